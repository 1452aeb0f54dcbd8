"""One call's audio path as the native core runs it: a leg and up to four streams, moved one ptime at a time.

Everything takes `now`; nothing here reads a clock. Drivers may call the native functions on `Path.native` directly.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.dsp.mix import gain_db_x100
from talkpath.errors import ConfigError, NativeError
from talkpath.events import MediaFormat
from talkpath.path.arena import new_bytes, new_struct
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import Event, Stream, counters_of, native_format
from talkpath.path.tape import Tape

MAX_STREAMS: int = lib.TP_PATH_STREAMS
_PCMU = MediaFormat("PCMU", 8000)
NO_STREAM = 255
"""For `Path.send_digits`: nobody's audio rests in the gaps."""


class OutputKind(enum.IntEnum):
    """What an `Output` is."""

    RTP = 1
    MESSAGE = 2
    PCM = 3


class LegKind(enum.IntEnum):
    """How the caller is connected."""

    RTP = 1
    PCM = 2


class Direction(enum.IntFlag):
    """What may flow; the names are ours: RECEIVE is what the caller says."""

    NONE = 0
    RECEIVE = 1
    SEND = 2
    BOTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PathOptions:
    """How a leg is to work."""

    leg: LegKind = LegKind.RTP
    media_format: MediaFormat = _PCMU
    """RTP: of the payload (L16 is big-endian). PCM: ``L16`` at the leg's rate, native int16."""
    ptime_ms: int = 20
    slot: int = 0
    """Goes into every output."""
    phase_ns: int = 0
    """Ticks are due at ``n * ptime + phase``."""
    payload_type: int = 0
    event_payload_type: int | None = None
    """Of telephone-events; None: not negotiated."""
    ssrc: int = 0
    first_seq: int = 0
    first_timestamp: int = 0
    jitter_min_ms: int = 20
    jitter_max_ms: int = 200
    media_timeout_ms: int = 0
    """0: never."""
    digit_on_ms: int = 100
    digit_off_ms: int = 100
    inband_digits: bool = False
    """Whether digits may be tones in the audio, both ways; every frame is decoded then."""


class Path:
    """Own one native path.

    Args:
        pool: of the engine.
        options: how the leg works.
        now: present time, ns; the first tick is due at the next point of the grid.

    Raises:
        ConfigError: options the core cannot do.
        FormatError: an unknown encoding or rate.
    """

    __slots__ = ("_config", "_jitter_bytes", "_streams", "native", "pool")

    def __init__(self, pool: Pool, options: PathOptions, *, now: int = 0) -> None:
        rate_hz, encoding = native_format(options.media_format)
        config = self._config = ffi.new("tp_path_config *")
        config.leg_kind = options.leg
        config.leg_format.rate_hz, config.leg_format.encoding = rate_hz, encoding
        config.ptime_ms = options.ptime_ms
        config.slot = options.slot
        config.phase_ns = options.phase_ns
        config.payload_type = options.payload_type
        config.event_payload_type = 255 if options.event_payload_type is None else options.event_payload_type
        config.first_seq, config.ssrc, config.first_timestamp = options.first_seq, options.ssrc, options.first_timestamp
        config.jitter_min_ms, config.jitter_max_ms = options.jitter_min_ms, options.jitter_max_ms
        config.media_timeout_ms = options.media_timeout_ms
        config.digit_on_ms, config.digit_off_ms = options.digit_on_ms, options.digit_off_ms
        config.inband_digits = options.inband_digits
        n_bytes = lib.tp_path_jitter_bytes(config)
        if n_bytes == 0:
            raise ConfigError(
                "a leg needs a ptime of 10 to 60 ms and, as RTP, G.711 or L16 at 8 or 16 kHz; as PCM, little-endian L16"
            )
        self.pool = pool
        self._jitter_bytes = new_bytes(n_bytes)
        self._streams: list[Stream | None] = [None] * MAX_STREAMS
        self.native: Any = new_struct("tp_path")
        if lib.tp_path_init(self.native, pool.native, config, self._jitter_bytes, now) < 0:
            raise ConfigError("the jitter buffer's delay is 0 to 400 ms, its least not above its most")

    def attach(self, index: int, stream: Stream) -> None:
        """Let a stream in the platform's role take part from the next tick on.

        Raises:
            ConfigError: the place is taken, the stream was made for another leg rate, or its message_ms is not a
                multiple of the ptime or more than the core assembles.
        """
        stream.lend(self._config.ptime_ms)
        if lib.tp_path_attach(self.native, index, stream.native) < 0:
            raise ConfigError(f"the stream cannot be attached at {index}: place, leg rate and message_ms must fit")
        self._streams[index] = stream

    def detach(self, index: int) -> list[Event]:
        """Take a stream off: its pending marks are LOST at the clock, its blocks go back; return its last events."""
        lib.tp_path_detach(self.native, index)
        stream, self._streams[index] = self._streams[index], None
        return [] if stream is None else [event._replace(stream=index) for event in stream.take_events()]

    def close(self) -> list[Event]:
        """Detach every stream; no sample leaves from here. Returns the last events."""
        events = self.take_events()
        lib.tp_path_close(self.native)
        for index in range(MAX_STREAMS):
            events += self.detach(index)
        return events

    def receive_rtp(self, datagram: bytes, arrived: int) -> bool:
        """Take a datagram from the accepted source; False when it was not media or was discarded (counted)."""
        return bool(lib.tp_path_receive_rtp(self.native, datagram, len(datagram), arrived) == 1)

    def receive_pcm(self, samples: npt.NDArray[np.int16], now: int) -> None:
        """Take what the caller says on a PCM leg; beyond 200 ms waiting the oldest is dropped and counted.

        Raises:
            NativeError: the leg is not PCM, or the path is closed.
        """
        buffer = ffi.from_buffer("int16_t[]", samples)
        if lib.tp_path_receive_pcm(self.native, buffer, len(buffer), now) < 0:
            raise NativeError("samples for a leg that takes none")

    def receive_digit(self, digit: str) -> None:
        """The caller presses a key, on a PCM leg."""
        lib.tp_path_receive_digit(self.native, digit.encode("ascii"))

    def clear(self, index: int) -> int:
        """Drop what a source has queued, marks CLEARED at the clock; return the samples dropped."""
        return int(lib.tp_path_clear(self.native, index))

    def set_gain(self, index: int, gain_db: float) -> None:
        """Let a source play louder or softer, from the next tick on: over one ptime if it plays, else at once.

        It is the place's, until its stream is detached. Minus infinity is mute.

        Raises:
            ConfigError: out of range.
        """
        lib.tp_path_set_gain(self.native, index, gain_db_x100(gain_db))

    def record(self, tape: Tape | None) -> None:
        """Have both tracks written to a tape from the next tick on; None: no more. One tape at a time."""
        lib.tp_path_record(self.native, ffi.NULL if tape is None else tape.native)

    def send_digits(self, index: int, digits: str, *, on_ms: int = 0, off_ms: int = 0) -> bool:
        """Send digits to the caller as telephone-events, or else as tones; False (counted): neither, bad or too many.

        A packet with an event, or its tones, takes the place of audio, so all sources rest meanwhile; in the gaps only
        `index` rests (`NO_STREAM`: none).
        """
        text = digits.encode("ascii", "replace")
        return bool(lib.tp_path_send_digits(self.native, index, text, len(text), on_ms, off_ms) >= 0)

    def hold(self, direction: Direction) -> None:
        """Say what may flow from now on; the clock runs on."""
        lib.tp_path_hold(self.native, direction)

    def restart_receive(self) -> None:
        """Expect a new source: jitter buffer and SSRC start anew."""
        lib.tp_path_restart_receive(self.native)

    def tick(self, now: int, outbox: Outbox) -> int:
        """Move one ptime if one is due; return `Tick` bits, or -2: no room in the outbox, nothing done."""
        return int(lib.tp_path_tick(self.native, now, outbox.native))

    def take_events(self) -> list[Event]:
        """Return and forget what has happened since last asked, of the leg and of attached streams."""
        events: list[Event] = []
        event = ffi.new("tp_event *")
        while lib.tp_path_next_event(self.native, event) == 1:
            events.append(Event(event.kind, event.stream, event.at_sample, event.id, event.value))
        return events

    @property
    def deadline(self) -> int:
        """When the next tick is due, ns."""
        return int(lib.tp_path_next_deadline(self.native))

    @property
    def clock(self) -> int:
        """Samples of either track so far, at the leg's rate."""
        return int(lib.tp_path_clock(self.native))

    def counters(self) -> dict[str, int]:
        """Return the path's counters by name."""
        return counters_of(lib.tp_path_statistics(self.native))

    def jitter(self) -> Any:
        """Return the native jitter buffer, for its statistics; valid as long as the path."""
        return lib.tp_path_jitter(self.native)
