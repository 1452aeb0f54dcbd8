"""What a program hears of a line: a track's audio, in a task of its own or within the step, and the caller's digits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk
from talkpath.dsp.tone_detector import ToneDetector
from talkpath.line.hearing import Ear, Hearing

if TYPE_CHECKING:
    from talkpath.line.line import Line

MAX_DIGITS = 256
PRESS_WINDOW_MS = 500
"""A platform's message and the tones of one press are no further apart."""
DETECTOR_CHUNK_MS = 20


class Listener(Ear):
    """An iterator over a track's audio; `Line.listen` makes it. One reader; a cancelled one loses nothing."""

    __slots__ = ("_reading", "_task")

    def __init__(self, hearing: Hearing, sample_rate_hz: int, chunk_ms: int, track: str) -> None:
        self._reading = False
        self._task: trio.lowlevel.Task | None = None
        """Who waits for the next chunk. Not a parking lot: there is one reader, woken as often as chunks come."""
        super().__init__(hearing, sample_rate_hz, chunk_ms, track)

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> AudioChunk:
        """Return the next chunk; ends with the line, after what had come before its end.

        Raises:
            trio.BusyResourceError: another task reads from this listener.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is reading from this listener; make one listener each")
        self._reading = True
        try:
            if self._at + self._chunk == self.due:  # it will be announced
                if not self._is_over():
                    self._task = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._give_up)
            elif self._is_whole():
                await trio.lowlevel.checkpoint()  # before anything is taken: who is cancelled here loses nothing
            elif not self._is_over():
                await self._wait()
            while (chunk := self.read_nowait()) is None:
                if self._is_over():
                    raise StopAsyncIteration
                await self._wait()
            return chunk
        finally:
            self._reading = False

    def _is_over(self) -> bool:
        return self.closed or self._hearing.over

    async def _wait(self) -> None:
        due = self._at + self._chunk
        if due != self.due:
            self.due = due
            self._hearing.arm(self.bit)
            if self._is_whole():  # it came from a media thread just now, and nobody will say so
                await trio.lowlevel.checkpoint()
                return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def _give_up(self, _: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def hear(self, written: int, now_ns: int) -> None:
        """Wake the reader; the next time at the chunk after those that are there."""
        self.due += (written - self.due) // self._chunk * self._chunk + self._chunk
        self._wake()

    def close(self) -> None:
        """Listen no more."""
        super().close()
        self._wake()


class AudioHook(Ear):
    """A callable that is given a track's audio within the driver's step; `Line.on_audio` makes it.

    Args:
        what: called with each chunk and the time; raises nothing.
    """

    __slots__ = ("_what",)

    first = True

    def __init__(
        self,
        hearing: Hearing,
        sample_rate_hz: int,
        chunk_ms: int,
        track: str,
        what: Callable[[AudioChunk, int], None],
    ) -> None:
        self._what = what
        super().__init__(hearing, sample_rate_hz, chunk_ms, track)

    def hear(self, written: int, now_ns: int) -> None:
        """Hand over all that has come."""
        what = self._what
        while not self.closed and (chunk := self.read_nowait()) is not None:
            what(chunk, now_ns)
        self.due = self._at + self._chunk


class DigitEar(AudioHook):
    """Finds the caller's digits in its audio; `Line.detect_digits` makes it."""

    __slots__ = ("_begin_ms", "_detector", "_heard", "_next")

    def __init__(self, hearing: Hearing, pressed: Pressed) -> None:
        rate_hz = 16000 if hearing.sample_rate_hz == 16000 else 8000
        self._heard = pressed
        self._detector = ToneDetector(rate_hz)
        super().__init__(hearing, rate_hz, DETECTOR_CHUNK_MS, "inbound", self._find)
        self._begin_ms = self._at * 1000 // hearing.sample_rate_hz
        self._next: int | None = None
        """Sample at which the next chunk begins when none is lost before it."""

    def _find(self, chunk: AudioChunk, now_ns: int) -> None:
        if self._next is not None and chunk.at_sample > self._next:
            self._detector.fillin(chunk.at_sample - self._next)  # the ear lagged; the detector's clock is the track's
        self._next = chunk.at_sample + len(chunk.samples)
        for event in self._detector.process(chunk.samples):
            if not event.ended:
                at_ms = self._begin_ms + event.at_sample * 1000 // chunk.sample_rate_hz
                self._heard.see(event.digit, at_ms, lib.TP_PRESS_AUDIO)


class Digits:
    """An iterator over the caller's digits; a cancelled reader loses nothing."""

    __slots__ = ("_line", "_next", "_pressed")

    def __init__(self, line: Line, pressed: Pressed) -> None:
        self._line = line
        self._pressed = pressed
        self._next = pressed.begin

    def __aiter__(self) -> Digits:
        return self

    async def __anext__(self) -> str:
        """Return the next digit; ends with the line."""
        await trio.lowlevel.checkpoint()
        pressed = self._pressed
        while True:
            self._next = max(self._next, pressed.begin)
            index = self._next - pressed.begin
            if index < len(pressed.digits):
                self._next += 1
                return pressed.digits[index]
            if self._line.end_reason is not None:
                raise StopAsyncIteration
            await pressed.lot.park()


class Pressed:
    """The digits a caller has pressed, the last 256 of them, for any number of readers."""

    __slots__ = ("_presses", "begin", "digits", "lot")

    def __init__(self) -> None:
        self.digits: deque[str] = deque()
        self.begin = 0
        """How many have been forgotten."""
        self.lot = trio.lowlevel.ParkingLot()
        self._presses = ffi.new("tp_presses *")

    def see(self, digit: str, at_ms: int, how: int) -> None:
        """A digit was told by the platform, or heard; the other sight of a press is none of its own."""
        key = len(digit) == 1 and digit.isascii()
        if not key or lib.tp_presses_see(self._presses, digit.encode(), how, at_ms, PRESS_WINDOW_MS):
            self.add(digit)

    def add(self, digit: str) -> None:
        """One more was pressed."""
        self.digits.append(digit)
        if len(self.digits) > MAX_DIGITS:
            self.digits.popleft()
            self.begin += 1
        self.lot.unpark_all()
