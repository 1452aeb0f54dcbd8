"""What a program hears of a line: a track's audio and the caller's digits, each reader with a cursor of its own.

State lies in the rings, and a wake is only a hint: a cancelled reader loses nothing, because nothing was in its hands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import trio

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk
from talkpath.dsp.resample import Resampler
from talkpath.errors import ConfigError
from talkpath.path.stream import KNOWN_RATES_HZ, tracks_of
from talkpath.units import ms_to_samples

if TYPE_CHECKING:
    from talkpath.line.line import Line


class Listener:
    """An iterator over a track's audio; `Line.listen` makes it. One reader; a cancelled one loses nothing."""

    def __init__(self, line: Line, sample_rate_hz: int, chunk_ms: int, track: str) -> None:
        if sample_rate_hz not in KNOWN_RATES_HZ:
            rates = ", ".join(map(str, KNOWN_RATES_HZ))
            raise ConfigError(f"a listener's sample_rate_hz is {sample_rate_hz}; it must be one of {rates}")
        if not 10 <= chunk_ms <= 500:
            raise ConfigError(f"a listener's chunk_ms is {chunk_ms}; it must be between 10 and 500")
        if track not in line.info.tracks:
            raise ConfigError(f"track {track!r} is not streamed on this line; there is {', '.join(line.info.tracks)}")
        line._check_live()
        bit = tracks_of((track,))
        line.take_ring(bit)
        self._line = line
        self._track = track
        self._bit = bit
        self._rate = sample_rate_hz
        self._chunk = ms_to_samples(chunk_ms, line._rate)
        self._bound = max(ms_to_samples(line.config.listen_bound_ms, line._rate), self._chunk)
        self._from = ffi.new("uint64_t *", lib.tp_stream_track_written(line._native, self._bit))
        self._bytes = bytearray(self._chunk * line._sample_bytes)
        self._bytes_c = ffi.from_buffer("uint8_t[]", self._bytes)
        self._resampler = Resampler(line._rate, sample_rate_hz) if sample_rate_hz != line._rate else None
        self._reading = False
        self._closed = False
        self.dropped_samples = 0
        """At the wire's rate, so far."""

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
            if self._behind() >= self._chunk:
                await trio.lowlevel.checkpoint()  # before anything is taken: who is cancelled here loses nothing
            while (chunk := self.read_nowait()) is None:
                if self._line.end_reason is not None or self._closed:
                    raise StopAsyncIteration
                await self._line._audio_lot.park()
            return chunk
        finally:
            self._reading = False

    def _behind(self) -> int:
        return int(lib.tp_stream_track_written(self._line._native, self._bit)) - int(self._from[0])

    def read_nowait(self) -> AudioChunk | None:
        """Return the next chunk when it is there, else None."""
        line = self._line
        behind = self._behind()
        if behind > self._bound:
            lost = behind - self._bound
            self._from[0] += lost
            self.dropped_samples += lost
            line._dropped_samples += lost
        elif behind < self._chunk:
            return None
        at = int(self._from[0])
        lib.tp_stream_track_read(line._native, self._bit, self._bytes_c, len(self._bytes), self._from, self._chunk)
        self._from[0] += self._chunk
        pcm = np.empty(self._chunk, dtype=np.int16)
        lib.tp_g711_decode(line._encoding, ffi.from_buffer("int16_t[]", pcm), self._bytes_c, self._chunk)
        if self._resampler is not None:
            pcm = self._resampler.process(pcm)
            at = at * self._rate // line._rate
        return AudioChunk(pcm, self._rate, at, self._track)

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._line._audio_lot.unpark_all()


class Digits:
    """An iterator over the caller's digits; a cancelled reader loses nothing."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._next = line._digits_begin

    def __aiter__(self) -> Digits:
        return self

    async def __anext__(self) -> str:
        """Return the next digit; ends with the line."""
        await trio.lowlevel.checkpoint()
        line = self._line
        while True:
            self._next = max(self._next, line._digits_begin)
            index = self._next - line._digits_begin
            if index < len(line._digits):
                self._next += 1
                return line._digits[index]
            if line.end_reason is not None:
                raise StopAsyncIteration
            await line._digit_lot.park()
