"""What a program says on a line: brought to the wire's rate and encoding, queued, fed as it can be heard.

Positions here are samples of the wire's rate since the line began: what has been sent, then what is queued, then what
the next step will queue.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk, AudioClip, samples_of
from talkpath.dsp.mix import gain_db_x100, steady
from talkpath.dsp.resample import Resampler
from talkpath.errors import CallEnded, NativeError, PlayoutFull
from talkpath.events import MediaFormat
from talkpath.line.checkpoint import Checkpoint, Checkpoints
from talkpath.line.hearing import HeardChunk
from talkpath.path.stream import NEVER, native_format
from talkpath.records import Outcome, Played
from talkpath.transport.commands import Commands
from talkpath.units import ms_to_samples, samples_to_ns

FEED_AHEAD_MS = 4000
"""`play` keeps this much in the queue: enough to send ahead, and short enough to drop."""
PLAY_NAME = "talkpath-play-"
CLEARS_REMEMBERED = 64
TAIL_AFTER_NS = 100_000_000
"""Speech whose queue has run dry for so long is over, and its resampler's tail is let out."""
TAIL_SLACK_MS = 500
"""Kept beyond what is sent ahead: a message of the longest, and a step that comes late."""
HELD_LOW_MS = 500
"""When so little is left of the native queue it is given what it had no room for: half of its reserve."""


class _Play:
    """One `play` under way."""

    __slots__ = ("epoch", "gain_db", "rate_hz", "resampler", "samples", "scale", "start", "to_skip")

    def __init__(self, epoch: int, gain_db: float) -> None:
        self.epoch = epoch
        self.gain_db = gain_db
        self.scale: Callable[[npt.NDArray[np.int16]], npt.NDArray[np.int16]] | None = None
        """What brings its audio to its gain; None: nothing."""
        self.start: int | None = None
        """Position of its first sample, once that is queued."""
        self.samples = 0
        self.rate_hz = 0
        self.resampler: Resampler | None = None
        self.to_skip = 0
        """Output samples still to be left out: the resampler's delay, which its tail makes up for."""


class _Piece:
    """Audio on its way to the native queue, as a command: a step calls it."""

    __slots__ = ("n", "payload", "speech")

    def __init__(self, speech: Speech, payload: bytes, n: int) -> None:
        self.speech = speech
        self.payload = payload
        self.n = n

    def __call__(self, now_ns: int) -> None:
        self.speech._write(self, now_ns)


class Speech:
    """The saying half of a line; see the module."""

    __slots__ = (
        "_checkpoints",
        "_commands",
        "_held",
        "_held_back",
        "_held_samples",
        "_low",
        "_most_samples",
        "_native",
        "_native_format",
        "_pending_samples",
        "_played_at_clear",
        "_played_at_end",
        "_plays",
        "_queue_s",
        "_room",
        "_sample_bytes",
        "_speakers",
        "_tail_due_ns",
        "_tails",
        "_wake_ns",
        "clears_asked",
        "encoding",
        "feeding",
        "sample_rate_hz",
    )

    def __init__(
        self,
        native: Any,
        media_format: MediaFormat,
        commands: Commands,
        checkpoints: Checkpoints,
        *,
        queue_s: float,
    ) -> None:
        self._native = native
        self.sample_rate_hz, self.encoding = native_format(media_format)
        self._native_format = ffi.new("tp_format *", (self.sample_rate_hz, self.encoding))[0]
        self._sample_bytes = media_format.sample_bytes
        self._commands = commands
        self._checkpoints = checkpoints
        self._queue_s = queue_s
        self._most_samples = queue_s * self.sample_rate_hz
        self._pending_samples = 0
        """Said, and not in the native queue: commands, and what is held."""
        self._held: deque[_Piece | int] | None = None
        """What the native queue has had no room for: audio, and the numbers of checkpoints behind it."""
        self._held_samples = 0
        self._held_back = False
        """The program has paused the line."""
        self._low = 0
        """What the native stream was last asked to tell of, `tp_stream_want_low`."""
        self._speakers: dict[int, Resampler] = {}
        self._tails: dict[int, Resampler] = {}
        """Those of them that hold back the end of what was said."""
        self._tail_due_ns = NEVER
        self._wake_ns = NEVER
        self._room: trio.lowlevel.ParkingLot | None = None
        self._plays = 0
        self.feeding = 0
        """`play`s that have not been given all their audio yet: a synthesiser may be between two pieces."""
        self.clears_asked = 0
        """Clears the program has asked for; those that wait for the next step are ahead of the checkpoints' epoch."""
        self._played_at_clear: dict[int, int] = {}
        self._played_at_end: int | None = None

    def tail_bytes(self, send_ahead_ms: int) -> int:
        """Return the bytes of all that can be sent and unheard, the longest message and a hold's lateness included."""
        return ms_to_samples(send_ahead_ms + TAIL_SLACK_MS, self.sample_rate_hz) * self._sample_bytes

    def queued_samples(self) -> int:
        """Return what has been said and not sent yet."""
        return int(lib.tp_stream_queued_samples(self._native)) + self._pending_samples

    def _position(self) -> int:
        with self._commands.paused():  # what a tick moves from one to the other is counted once
            return int(lib.tp_stream_sent_samples(self._native)) + self.queued_samples()

    def is_ahead(self) -> bool:
        """Whether anything is ahead of what is said now, but for what is queued natively."""
        return bool(self._pending_samples or self._tails or self._room) or not self._commands.is_idle()

    def speak(self, chunk: AudioChunk | AudioClip | npt.NDArray[np.int16], sample_rate_hz: int | None) -> None:
        """See `Line.speak`: what does not go straight to the native queue."""
        if (
            isinstance(chunk, HeardChunk)
            and (payload := chunk.payload) is not None
            and chunk.encoding == self.encoding
            and chunk.sample_rate_hz == self.sample_rate_hz
        ):
            n = len(payload) // self._sample_bytes
            self._check_bound(n)
            if self._tails:
                self._commands.check_room(1 + len(self._tails))
                self._let_out(self._tails)  # What was said first is heard first.
            self._queue_payload(payload, n)
            return
        pcm, rate = samples_of(chunk, sample_rate_hz)
        self._check_bound(math.ceil(len(pcm) * self.sample_rate_hz / rate))
        self._commands.check_room(1 + len(self._tails))
        self._let_out(other for other in self._tails if other != rate)
        if rate != self.sample_rate_hz:
            resampler = self._speakers.get(rate)
            if resampler is None:
                resampler = self._speakers[rate] = Resampler(rate, self.sample_rate_hz)
            self._tails[rate] = resampler
            pcm = resampler.process(pcm)
        self._queue(pcm)

    def _check_bound(self, n: int) -> None:
        if self.queued_samples() + n > self._most_samples:
            raise PlayoutFull(
                f"{self._queue_s:g} s of audio wait already; await play(), or speak no faster than it is heard"
            )

    def let_out_tails(self, now_ns: int = NEVER) -> None:
        """Queue what the resamplers hold back, once nothing follows what was said."""
        if now_ns >= self._tail_due_ns:
            self._tail_due_ns = NEVER
            self._let_out(self._tails)

    def _let_out(self, rates_hz: Iterable[int]) -> None:
        for rate in list(rates_hz):
            resampler = self._tails.pop(rate)
            self._queue(_tail(resampler, rate, self.sample_rate_hz))
            resampler.reset()

    def wake_at(self, now_ns: int) -> None:
        """Have an ALARM come at that time (or before), beside those for the resamplers' tails; `NEVER`: no more."""
        self._wake_ns = now_ns
        self._set_alarm()

    def _set_alarm(self) -> None:
        lib.tp_stream_set_alarm(self._native, min(self._tail_due_ns, self._wake_ns))

    def hold(self, held: bool, now_ns: int) -> int:
        """The far end is told to hold its queue, or to go on; in the step. -> how long it was held, ns"""
        held_ns = int(lib.tp_stream_hold(self._native, held, now_ns))
        self._held_back = held
        # What the resamplers hold back is the end of speech that waits: it waits with it.
        self._tail_due_ns = now_ns + self.unheard_ns(now_ns) + TAIL_AFTER_NS if self._tails and not held else NEVER
        self._set_alarm()
        return held_ns

    def unheard_ns(self, now_ns: int) -> int:
        """Return how long, by the model, what was said is still to be heard."""
        native = self._native
        with self._commands.paused():  # as in `_position`
            queued = int(lib.tp_stream_queued_samples(native))
            ahead_ns = self.ahead_ns(now_ns)
        return ahead_ns + samples_to_ns(queued + self._held_samples, self.sample_rate_hz)

    def ahead_ns(self, now_ns: int) -> int:
        """Return how long, by the model, what was sent is still to be heard; what is queued comes after it."""
        native = self._native
        with self._commands.paused():
            sent = int(lib.tp_stream_sent_samples(native)) - int(lib.tp_stream_model_played(native, now_ns))
        return samples_to_ns(sent, self.sample_rate_hz)

    def _queue(self, pcm: npt.NDArray[np.int16]) -> None:
        n = len(pcm)
        if n == 0:
            return
        payload = bytearray(n * self._sample_bytes)
        pcm = np.ascontiguousarray(pcm)
        lib.tp_g711_encode(self.encoding, ffi.from_buffer("uint8_t[]", payload), ffi.from_buffer("int16_t[]", pcm), n)
        self._queue_payload(bytes(payload), n)

    def _queue_payload(self, payload: bytes, n: int) -> None:
        self._commands.put(_Piece(self, payload, n))
        self._pending_samples += n

    def _write(self, piece: _Piece, now_ns: int) -> None:
        """Queue a piece behind what is held; in the step."""
        if self._held or not self._give(piece):
            self._hold(piece)
            self._held_samples += piece.n
        if self._tails and not self._held_back:
            self._tail_due_ns = now_ns + self.unheard_ns(now_ns) + TAIL_AFTER_NS
            self._set_alarm()
        if self._room:
            self._arm()

    def _write_mark(self, ident: int) -> None:
        if self._held:
            self._hold(ident)
        else:
            self._give_mark(ident)

    def _hold(self, what: _Piece | int) -> None:
        if self._held is None:
            self._held = deque()
        self._held.append(what)
        self._arm()

    def _give(self, piece: _Piece) -> bool:
        """Hand a piece to the native queue; -> whether all of it was taken, else the piece is what is left."""
        payload, n = piece.payload, piece.n
        taken = lib.tp_stream_play(self._native, self._native_format, payload, len(payload))
        if taken < 0:
            raise NativeError(f"tp_stream_play: status {taken}")
        self._pending_samples -= taken
        if taken == n:
            return True
        piece.payload = payload[taken * self._sample_bytes :]
        piece.n = n - taken
        return False

    def _give_mark(self, ident: int) -> None:
        if lib.tp_stream_mark(self._native, ident) < 0:
            self._checkpoints.unsent(ident, Outcome.LOST)

    def _hand_over(self) -> None:
        """Give the native queue what it takes.

        With the pool that all lines share used up it takes no more than its reserve. The rest waits here, in order,
        until half of that has been sent: nothing a program says is dropped.
        """
        held = self._held
        while held:
            first = held[0]
            if isinstance(first, _Piece):
                before = first.n
                whole = self._give(first)
                self._held_samples -= before if whole else before - first.n
                if not whole:
                    return
            else:
                self._give_mark(first)
            held.popleft()

    def _arm(self, *, parking: bool = False) -> None:
        """Have the native stream tell when its queue is short enough for what waits: what is held, `play`."""
        low = ms_to_samples(HELD_LOW_MS, self.sample_rate_hz) if self._held else 0
        if parking or self._room:
            low = max(low, ms_to_samples(FEED_AHEAD_MS, self.sample_rate_hz) - self._pending_samples)
        if low != self._low:
            self._low = low
            lib.tp_stream_want_low(self._native, low)

    def on_low(self) -> None:
        """The native queue is as short as was asked; in the step."""
        self._low = 0
        self._hand_over()
        self.wake()
        self._arm()

    def mark(self, name: str) -> Checkpoint:
        """Set a checkpoint after everything said so far. Raises CallEnded."""
        self.let_out_tails()
        ident, checkpoint = self._checkpoints.set(name)

        try:
            self._commands.put(lambda now_ns: self._write_mark(ident))
        except BaseException:
            self._checkpoints.unsent(ident, Outcome.LOST)
            raise
        return checkpoint

    def mark_here(self) -> Checkpoint:
        """Set a checkpoint under a name of our own."""
        self._plays += 1
        return self.mark(f"{PLAY_NAME}{self._plays}")

    async def play(self, audio: object, sample_rate_hz: int | None, gain_db: float = 0.0) -> Played:
        """See `Line.play`."""
        gain_db_x100(gain_db)
        play = _Play(self.clears_asked, gain_db)
        try:
            self.feeding += 1
            try:
                await self._feed_all(play, audio, sample_rate_hz)
            finally:
                self.feeding -= 1
            self._finish_resampling(play)
            outcome = None if self._is_over(play) else (await self.mark_here().wait()).outcome
        except CallEnded:
            outcome = Outcome.LOST
        if outcome is None:
            outcome = Outcome.CLEARED if self._checkpoints.epoch > play.epoch else Outcome.LOST
        if outcome is Outcome.PLAYED or (outcome is Outcome.ASSUMED and self._checkpoints.epoch == play.epoch):
            return Played(play.samples, outcome, outcome is Outcome.PLAYED)
        return Played(self._heard(play, outcome), outcome, False)

    async def _feed_all(self, play: _Play, audio: object, sample_rate_hz: int | None) -> None:
        if not isinstance(audio, AsyncIterable):
            await self._feed(play, *samples_of(audio, sample_rate_hz, or_file=True))
            return
        pieces = aiter(audio)
        try:
            async for piece in pieces:
                await self._feed(play, *samples_of(piece, sample_rate_hz))
                if self._is_over(play):
                    break
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()  # Left half read, its clean-up would be the garbage collector's.

    async def _feed(self, play: _Play, pcm: npt.NDArray[np.int16], rate_hz: int) -> None:
        """Queue audio half a second at a time, as the queue has room; stop when there is no more point in it."""
        if rate_hz != play.rate_hz:
            self._finish_resampling(play)
            play.rate_hz = rate_hz
            play.scale = steady(play.gain_db, rate_hz)
            if rate_hz != self.sample_rate_hz:
                play.resampler = Resampler(rate_hz, self.sample_rate_hz)
                play.to_skip = play.resampler.delay_samples
        step = rate_hz // 2
        for begin in range(0, len(pcm), step):
            await self._wait_room()
            if self._is_over(play):
                return
            piece = pcm[begin : begin + step]
            self._queue_of(play, piece if play.scale is None else play.scale(piece))

    def _queue_of(self, play: _Play, pcm: npt.NDArray[np.int16]) -> None:
        if play.resampler is not None:
            pcm = play.resampler.process(pcm)
            skipped = min(play.to_skip, len(pcm))
            pcm = pcm[skipped:]
            play.to_skip -= skipped
        if play.start is None:
            self.let_out_tails()
            play.start = self._position()
        self._queue(pcm)
        play.samples += len(pcm)

    def _finish_resampling(self, play: _Play) -> None:
        """Let out what the resampler holds back."""
        resampler, play.resampler = play.resampler, None
        if resampler is not None and play.start is not None and not self._is_over(play):
            tail = _tail(resampler, play.rate_hz, self.sample_rate_hz)[play.to_skip :]
            self._queue(tail)
            play.samples += len(tail)

    def _is_over(self, play: _Play) -> bool:
        return self._played_at_end is not None or self._checkpoints.epoch > play.epoch

    async def _wait_room(self) -> None:
        """Wait until the queue is short enough for more, or the line is over."""
        most = ms_to_samples(FEED_AHEAD_MS, self.sample_rate_hz)
        await trio.lowlevel.checkpoint()
        while self._played_at_end is None and self.queued_samples() >= most:
            if self._room is None:
                self._room = trio.lowlevel.ParkingLot()
            self._arm(parking=True)
            self._commands.forestall()
            await self._room.park()

    def _heard(self, play: _Play, outcome: Outcome) -> int:
        """Reckon, by the model, how much of a play was heard before it was cleared or lost."""
        cleared = outcome in (Outcome.CLEARED, Outcome.ASSUMED)
        played = self._played_at_clear.get(play.epoch + 1) if cleared else self._played_at_end
        if played is None or play.start is None:
            return 0
        return max(0, min(play.samples, played - play.start))

    def clear(self, now_ns: int) -> None:
        """Drop what is not sent; in the step, before the checkpoints' epoch moves on."""
        epoch = self._checkpoints.epoch + 1
        self._played_at_clear[epoch] = int(lib.tp_stream_model_played(self._native, now_ns))
        self._played_at_clear.pop(epoch - CLEARS_REMEMBERED, None)
        for held in self._held or ():
            if not isinstance(held, _Piece):
                self._checkpoints.unsent(held, Outcome.CLEARED)
        self._held = None
        self._pending_samples -= self._held_samples
        self._held_samples = 0
        for resampler in self._speakers.values():
            resampler.reset()
        self._tails.clear()
        self._tail_due_ns = NEVER

    def is_heard(self, now_ns: int) -> bool:
        """Whether, by the model, anything said is still to be heard."""
        if self.queued_samples() or self._checkpoints.outstanding():
            return True
        return bool(lib.tp_stream_model_played(self._native, now_ns) < lib.tp_stream_sent_samples(self._native))

    def wake(self) -> None:
        """The queue has become shorter."""
        if self._room is not None:
            self._room.unpark_all()

    def end(self, now_ns: int) -> None:
        """The line is over: nothing more is said."""
        self._played_at_end = int(lib.tp_stream_model_played(self._native, now_ns))
        self.wake()


def _tail(resampler: Resampler, from_hz: int, to_hz: int) -> npt.NDArray[np.int16]:
    """Return what a resampler still holds back."""
    n_in = math.ceil(resampler.delay_samples * from_hz / to_hz)
    return resampler.process(np.zeros(n_in, dtype=np.int16))[: resampler.delay_samples]
