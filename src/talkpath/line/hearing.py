"""The hearing half of a line: who hears what comes in, each with a cursor of its own, called when a chunk is whole.

State lies in the rings of the native stream, and being called is only a hint: whoever was cancelled meanwhile has lost
nothing, because nothing was in its hands. The stream is told from how many samples on the next ear has a chunk, so a
message that completes nobody's chunk costs no Python at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk
from talkpath.dsp.resample import Resampler
from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.line.config import CHUNK_MS
from talkpath.path.stream import KNOWN_RATES_HZ, Stream, Track, native_format, tracks_of
from talkpath.units import ms_to_samples

NOBODY = (1 << 64) - 1
"""Samples that are never written: nobody waits for the track."""

_new = object.__new__
_set = object.__setattr__


class HeardChunk(AudioChunk):
    """A chunk as it came on the wire, decoded when somebody looks at its samples.

    Spoken back on a wire of the same format before that, it is passed on as it is: an echo costs a copy and is exact to
    the bit.
    """

    __slots__ = ("_decoded", "encoding", "payload")

    payload: bytes | None
    """As on the wire; None once the samples have been looked at, because then they may have been changed."""
    encoding: int
    _decoded: npt.NDArray[np.int16]

    def _get_samples(self) -> npt.NDArray[np.int16]:
        payload = self.payload
        if payload is not None:
            _set(self, "payload", None)
            _set(self, "_decoded", decoded(payload, self.encoding))
        return self._decoded

    def _set_samples(self, samples: npt.NDArray[np.int16]) -> None:
        """For what makes dataclasses anew: `copy`, `replace`, `pickle`."""
        _set(self, "payload", None)
        _set(self, "_decoded", samples)

    samples = property(_get_samples, _set_samples)  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    @property
    def n_samples(self) -> int:
        """How many samples it has."""
        payload = self.payload
        if payload is None:
            return len(self._decoded)
        return len(payload) >> (self.encoding > 2)

    @property
    def duration_ms(self) -> float:
        """How long it lasts."""
        return self.n_samples * 1000 / self.sample_rate_hz


def decoded(payload: bytes, encoding: int) -> npt.NDArray[np.int16]:
    """Return the samples of a payload in one of the native core's encodings."""
    pcm = np.empty(len(payload) >> (encoding > 2), dtype=np.int16)
    lib.tp_g711_decode(encoding, ffi.from_buffer("int16_t[]", pcm), payload, len(pcm))
    return pcm


class Hearing:
    """All ears of one line.

    Args:
        stream: the line's; its rings are made when somebody first listens to their track.
        media_format: of the wire.
        tracks: the names of those that are streamed.
        bound_ms: what an ear may lag.
    """

    __slots__ = (
        "_ears",
        "_stream",
        "_tracks",
        "_wake_at",
        "bound_ms",
        "dropped_samples",
        "encoding",
        "native",
        "over",
        "sample_bytes",
        "sample_rate_hz",
    )

    def __init__(self, stream: Stream, media_format: MediaFormat, tracks: tuple[str, ...], bound_ms: int) -> None:
        self._stream = stream
        self.native: Any = stream.native
        self.sample_rate_hz, self.encoding = native_format(media_format)
        self.sample_bytes = media_format.sample_bytes
        self._tracks = tracks
        self.bound_ms = bound_ms
        self._ears: tuple[Ear, ...] = ()
        self._wake_at: dict[int, int] = {}
        """Per track that was ever listened to."""
        self.dropped_samples = 0
        """That ears have lost by lagging, at the wire's rate."""
        self.over = False
        for track in Track:
            lib.tp_stream_wake_at(self.native, track, NOBODY)

    def bit_of(self, track: str) -> int:
        """Return a track's bit, with memory for its audio from now on.

        Raises:
            ConfigError: it is not streamed.
        """
        if track not in self._tracks:
            raise ConfigError(f"track {track!r} is not streamed on this line; there is {', '.join(self._tracks)}")
        bit = int(tracks_of((track,)))
        if bit not in self._wake_at:
            samples = ms_to_samples(max(self.bound_ms, CHUNK_MS[1]), self.sample_rate_hz)
            self._stream.set_track(Track(bit), samples * self.sample_bytes)
            self._wake_at[bit] = NOBODY
        return bit

    def add(self, ear: Ear) -> None:
        """Call `ear` from now on; those that are called within the step come first, in the order in which they came."""
        self._ears = (*(e for e in self._ears if e.first), ear, *(e for e in self._ears if not e.first))
        self.arm(ear.bit)

    def remove(self, ear: Ear) -> None:
        """Call `ear` no more. Idempotent."""
        self._ears = tuple(other for other in self._ears if other is not ear)
        self.arm(ear.bit)

    def arm(self, bit: int) -> None:
        """Have the native stream tell when the next ear on a track has a chunk."""
        wake_at = NOBODY
        for ear in self._ears:
            if ear.due < wake_at and ear.bit == bit:
                wake_at = ear.due
        if wake_at != self._wake_at[bit]:
            self._wake_at[bit] = wake_at
            lib.tp_stream_wake_at(self.native, bit, wake_at)

    def hear(self, bits: int, now_ns: int) -> None:
        """Call whoever has a chunk; in the step, when the stream says that audio has come on these tracks."""
        for bit in (1, 2):
            if bits & bit:
                written = lib.tp_stream_track_written(self.native, bit)
                for ear in self._ears:
                    if ear.due <= written and ear.bit == bit:
                        ear.hear(written, now_ns)
                        if self.over:
                            return
                self.arm(bit)

    def end(self) -> None:
        """The line is over: nobody is called any more; wake whoever waits."""
        self.over = True
        for ear in self._ears:
            ear.close()


class Ear:
    """A cursor in a track, from this moment on.

    Raises:
        ConfigError: a rate, length or track that cannot be had.
    """

    __slots__ = (
        "_at",
        "_bound",
        "_chunk",
        "_from",
        "_hearing",
        "_out",
        "_rate",
        "_resampler",
        "_track",
        "_view",
        "bit",
        "closed",
        "dropped_samples",
        "due",
    )

    first = False
    """Whether it is called before those that only wake a task."""

    def __init__(self, hearing: Hearing, sample_rate_hz: int, chunk_ms: int, track: str) -> None:
        if sample_rate_hz not in KNOWN_RATES_HZ:
            rates = ", ".join(map(str, KNOWN_RATES_HZ))
            raise ConfigError(f"a listener's sample_rate_hz is {sample_rate_hz}; it must be one of {rates}")
        if not CHUNK_MS[0] <= chunk_ms <= CHUNK_MS[1]:
            raise ConfigError(
                f"a listener's chunk_ms is {chunk_ms}; it must be between {CHUNK_MS[0]} and {CHUNK_MS[1]}"
            )
        self.bit = hearing.bit_of(track)
        self._hearing = hearing
        self._track = track
        self._rate = sample_rate_hz
        self._chunk = ms_to_samples(chunk_ms, hearing.sample_rate_hz)
        self._bound = max(ms_to_samples(hearing.bound_ms, hearing.sample_rate_hz), self._chunk)
        self._at = int(lib.tp_stream_track_written(hearing.native, self.bit))
        self._from = ffi.new("uint64_t *", self._at)
        self._out = ffi.new("uint8_t[]", self._chunk * hearing.sample_bytes)
        self._view = ffi.buffer(self._out)
        self._resampler = (
            Resampler(hearing.sample_rate_hz, sample_rate_hz) if sample_rate_hz != hearing.sample_rate_hz else None
        )
        self.closed = False
        self.dropped_samples = 0
        """At the wire's rate, so far."""
        self.due = self._at + self._chunk
        """Samples written from which on it is to be called."""
        hearing.add(self)

    def read_nowait(self) -> AudioChunk | None:
        """Return the next chunk when it is there, else None."""
        hearing, view, n = self._hearing, self._view, self._chunk
        lost = lib.tp_stream_track_next(hearing.native, self.bit, self._out, len(view), self._from, n, self._bound)
        if lost < 0:
            return None
        if lost:
            self.dropped_samples += lost
            hearing.dropped_samples += lost
            self._at += lost
        at = self._at
        self._at = at + n
        if self._resampler is not None:
            pcm = self._resampler.process(decoded(view[:], hearing.encoding))
            return AudioChunk(pcm, self._rate, at * self._rate // hearing.sample_rate_hz, self._track)
        chunk = _new(HeardChunk)
        _set(chunk, "payload", view[:])
        _set(chunk, "encoding", hearing.encoding)
        _set(chunk, "sample_rate_hz", self._rate)
        _set(chunk, "at_sample", at)
        _set(chunk, "track", self._track)
        return chunk

    def _is_whole(self) -> bool:
        """Whether the next chunk is there."""
        return int(lib.tp_stream_track_written(self._hearing.native, self.bit)) - self._at >= self._chunk

    def hear(self, written: int, now_ns: int) -> None:
        """Take what has come, or wake whoever will, and move `due` beyond `written`; in the step."""
        raise NotImplementedError

    def close(self) -> None:
        """Listen no more."""
        if not self.closed:
            self.closed = True
            self._hearing.remove(self)
