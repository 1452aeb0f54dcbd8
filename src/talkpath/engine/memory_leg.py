"""Callers without a socket: PCM in memory, PCM from and to files."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.audio import WavWriter, read_audio
from talkpath.engine.leg import DIGIT_OFF_MS, DIGIT_ON_MS, DIGITS_MAX, Leg
from talkpath.errors import ConfigError, FormatError
from talkpath.events import MediaFormat
from talkpath.path.path import LegKind
from talkpath.records import EndReason
from talkpath.units import NS_PER_MS

if TYPE_CHECKING:
    from talkpath.engine.call import Call

FULL = -4
MAKE_UP_MS = 60
"""Ticks missed by no more than this are made up at once."""
DIGITS_KEPT = 1024


class MemoryLeg(Leg):
    """A caller in memory: PCM in and out, at the call's own pace, without a socket.

    Args:
        sample_rate_hz: 8000 or 16000.
        ptime_ms: 10..60.
        keep_heard_s: how much of what was heard is kept for `heard`; older audio is dropped.
        on_heard: called with each ptime the caller hears, within the driver's step: must be quick and must not block.
        on_digit: called in the same way with each digit that the caller is sent, as it begins.
        inband_digits: whether digits are also found in what the caller says, as on an `RtpLeg`.

    Digits that are sent to this caller take the time they take over RTP: 100 ms and 100 ms of gap each, in which the
    source that sends them rests. Other sources are heard on meanwhile, since no packet's place is taken.
    """

    kind = LegKind.PCM
    needs_before_tick = True

    def __init__(
        self,
        *,
        sample_rate_hz: int = 8000,
        ptime_ms: int = 20,
        keep_heard_s: float = 3600.0,
        on_heard: Callable[[npt.NDArray[np.int16]], None] | None = None,
        on_digit: Callable[[str], None] | None = None,
        inband_digits: bool = False,
    ) -> None:
        super().__init__()
        if sample_rate_hz not in (8000, 16000):
            raise ConfigError(f"a leg's sample_rate_hz is {sample_rate_hz}; it must be 8000 or 16000")
        if ptime_ms not in (10, 20, 30, 40, 60):
            raise ConfigError(f"ptime_ms is {ptime_ms}; it must be 10, 20, 30, 40 or 60")
        self.media_format = MediaFormat("L16", sample_rate_hz)
        self.ptime_ms = ptime_ms
        self._frame_bytes = 2 * sample_rate_hz * ptime_ms // 1000
        self._to_say: deque[bytes] = deque()
        self._to_say_bytes = 0
        self._heard: deque[bytes] = deque()
        self._keep_frames = max(1, round(keep_heard_s * 1000 / ptime_ms))
        self._on_heard = on_heard
        self._on_digit = on_digit
        self.inband_digits = inband_digits
        self._digits: deque[str] = deque(maxlen=DIGITS_KEPT)
        self._digits_to_come: deque[tuple[str, int, Any, int]] = deque()
        """(digit, index of its source, native stream of its source, ticks); the first of them sounds."""
        self._digit_ticks_left = 0

    @property
    def sample_rate_hz(self) -> int:
        return self.media_format.sample_rate_hz

    def say(self, pcm: npt.NDArray[np.int16]) -> None:
        """Let the caller say `pcm` (int16, mono, at the leg's rate) after what it is already saying. At most an hour
        waits.

        Raises:
            FormatError: not one-dimensional int16.
        """
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise FormatError(f"say() takes one-dimensional int16, not {pcm.ndim}-dimensional {pcm.dtype}")
        data = pcm.tobytes()
        if self._to_say_bytes + len(data) > 3600 * 2 * self.sample_rate_hz:
            raise FormatError("more than an hour of speech is waiting to be said")
        self._to_say.append(data)
        self._to_say_bytes += len(data)

    @property
    def still_to_say_ms(self) -> int:
        """How much speech waits to be said."""
        return self._to_say_bytes * 500 // self.sample_rate_hz

    def press(self, digit: str) -> None:
        """Let the caller press a key: one of 0-9 * # A-D."""
        if len(digit) != 1 or digit.upper() not in "0123456789*#ABCD":
            raise ConfigError(f"a digit is one of 0-9 * # A-D, not {len(digit)} characters of something else")
        self._command(lambda now_ns: lib.tp_path_receive_digit(self._live_path(), digit.upper().encode()))

    def hang_up(self) -> None:
        """Let the caller hang up."""
        if self._call is not None:
            self._call.end(EndReason.CALLER_HUNG_UP)

    def heard(self) -> npt.NDArray[np.int16]:
        """Return everything kept of what the caller has heard so far."""
        return np.frombuffer(b"".join(self._heard), dtype=np.int16)

    def digits(self) -> list[str]:
        """Return the digits that the caller has been sent so far, the last 1,024 of them."""
        return list(self._digits)

    def send_digits(self, index: int, stream: Any, digits: str, on_ms: int = 0, off_ms: int = 0) -> int:
        if len(self._digits_to_come) + len(digits) > DIGITS_MAX:
            self.digits_refused += len(digits)
            return FULL
        self.digits_taken += len(digits)
        lib.tp_stream_pause(stream, True)
        silent = not self._digits_to_come
        ticks = sum(math.ceil(ms / self.ptime_ms) for ms in (on_ms or DIGIT_ON_MS, off_ms or DIGIT_OFF_MS))
        self._digits_to_come.extend((digit, index, stream, ticks) for digit in digits.upper())
        if silent:
            self._begin_digit()
        return len(digits)

    def drop_digits(self, index: int) -> None:
        if self._digits_to_come:
            digit, sounding, stream, ticks = self._digits_to_come.popleft()
            kept = [one for one in self._digits_to_come if one[1] != index]
            # The digit that sounds goes on, for nobody: the index may be another source's by the time it ends.
            self._digits_to_come = deque(((digit, -1 if sounding == index else sounding, stream, ticks), *kept))

    def digits_waiting(self) -> int:
        return len(self._digits_to_come)

    def holds_audio(self, index: int) -> bool:
        return any(one[1] == index for one in self._digits_to_come)

    def _begin_digit(self) -> None:
        digit, _, _, self._digit_ticks_left = self._digits_to_come[0]
        self._digits.append(digit)
        if self._on_digit is not None:
            self._on_digit(digit)

    def _move_digits(self) -> None:
        """A ptime has been heard: of the digit that sounds, or of the gap after it, as long as there is one."""
        if not self._digits_to_come:
            return
        self._digit_ticks_left -= 1
        if self._digit_ticks_left > 0:
            return
        _, index, stream, _ = self._digits_to_come.popleft()
        if all(one[1] != index for one in self._digits_to_come):
            lib.tp_stream_pause(stream, False)
            assert self._call is not None
            self._call.digits_sent(index)
        if self._digits_to_come:
            self._begin_digit()

    def _live_path(self) -> Any:
        assert self._call is not None
        return self._call.path

    def next_frame(self) -> bytes:
        """Return the next ptime of speech, zero-padded; empty when the caller is silent."""
        need = self._frame_bytes
        if not self._to_say:
            return b""
        if len(self._to_say[0]) == need:
            self._to_say_bytes -= need
            return self._to_say.popleft()
        out = bytearray()
        while self._to_say and len(out) < need:
            piece = self._to_say.popleft()
            take = need - len(out)
            out += piece[:take]
            if len(piece) > take:
                self._to_say.appendleft(piece[take:])
        self._to_say_bytes -= len(out)
        if len(out) < need:
            out += bytes(need - len(out))
        return bytes(out)

    def before_tick(self, now_ns: int) -> None:
        path = self._live_path()
        # A late tick makes up for the missed ones, each with its own ptime of speech; of too many it skips all but one.
        late_ms = (now_ns - int(lib.tp_path_next_deadline(path))) // NS_PER_MS
        for _ in range(1 + (late_ms // self.ptime_ms if late_ms <= MAKE_UP_MS else 0)):
            frame = self.next_frame()
            if frame:
                lib.tp_path_receive_pcm(path, ffi.from_buffer("int16_t[]", frame), len(frame) // 2, now_ns)

    def hear_pcm(self, pcm: memoryview) -> None:
        frame = bytes(pcm)
        self._heard.append(frame)
        if len(self._heard) > self._keep_frames:
            self._heard.popleft()
        if self._on_heard is not None:
            self._on_heard(np.frombuffer(frame, dtype=np.int16))
        self._move_digits()


class WavLeg(MemoryLeg):
    """A caller read from a WAV file; what it hears is written to another.

    Args:
        say: the caller's speech, 8 or 16 kHz mono; None: a silent caller.
        hear: where what the caller heard is written, 16-bit PCM mono; None: nowhere.
        ptime_ms: 10..60.
        inband_digits: whether digits are found in the speech, as on an `RtpLeg`.

    Raises:
        FormatError: the file cannot be played at a leg's rate.
    """

    def __init__(
        self,
        say: str | Path | None = None,
        hear: str | Path | None = None,
        *,
        ptime_ms: int = 20,
        inband_digits: bool = False,
    ) -> None:
        clip = read_audio(say) if say is not None else None
        rate = clip.sample_rate_hz if clip is not None else 8000
        if rate not in (8000, 16000):
            raise FormatError(f"a WAV leg speaks at 8000 or 16000 Hz, and the file has {rate}")
        super().__init__(sample_rate_hz=rate, ptime_ms=ptime_ms, keep_heard_s=0, inband_digits=inband_digits)
        if clip is not None:
            self.say(clip.samples)
        self._hear = hear
        self._writer: WavWriter | None = None

    def open(self, call: Call) -> None:
        super().open(call)
        if self._hear is not None:
            self._writer = WavWriter(self._hear, self.sample_rate_hz)

    def hear_pcm(self, pcm: memoryview) -> None:
        if self._writer is not None:
            self._writer.write(np.frombuffer(pcm, dtype=np.int16))
        self._move_digits()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
