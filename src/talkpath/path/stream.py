"""One end of a wire as the native core runs it: messages in and out, a playout with marks, rings to listen to.

The owner of the memory is here: whatever a native stream points to lives as long as its `Stream`. Drivers may call the
native functions on `Stream.native` directly; the methods below do the same with Python values.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from talkpath._native import ffi, lib
from talkpath.dsp.resample import RESAMPLER_RATES_HZ
from talkpath.errors import CallEnded, ConfigError, FormatError, NativeError
from talkpath.events import MediaFormat
from talkpath.path.arena import new_bytes, new_struct
from talkpath.path.pool import Outbox, Pool
from talkpath.records import EndReason, Outcome
from talkpath.wire.dialect import MediaShape, MediaTemplate, Role
from talkpath.wire.media_message import compile_shape, compile_template

KNOWN_RATES_HZ = (8000, 16000, 24000, 48000)
MAX_PENDING_MARKS: int = lib.TP_MARKS_MAX
NEVER = 2**63 - 1
"""A deadline that never comes."""


class Track(enum.IntFlag):
    """One direction of a call's audio."""

    INBOUND = 1
    OUTBOUND = 2


class EventKind(enum.IntEnum):
    """What an `Event` tells."""

    DIGIT = 1
    """The caller pressed ``chr(value)``; `at_sample` of the inbound track."""
    MARK = 2
    """Mark `id` came out as `MarkOutcome` `value` at `at_sample` of the outbound track."""
    MEDIA_TIMEOUT = 3
    FILL = 4
    """The playout rose past `value` percent of its bound; 100: excess is dropped, `id` samples since last told."""
    UNDERRUN = 5
    """A source that was playing had nothing more, `value` times."""
    DIGITS_SENT = 6
    MARK_DUE = 7
    """Everything before mark `id` is in the outbox: send it, then the checkpoint, then tick again."""
    AUDIO = 8
    """New audio in the rings of the `Track` bits in `value`; see `Stream.wake_at`."""
    LOW = 9
    """The queue is as short as `Stream.want_low` asked."""
    ALARM = 10
    """A tick came at or after the time of `Stream.set_alarm`."""
    HEARD = 11
    """What the caller said is in the path's tap, `value` samples in all."""


class MarkOutcome(enum.IntEnum):
    """How a mark came out."""

    PLAYED = 1
    CLEARED = 2
    LOST = 3


OUTCOMES = {
    MarkOutcome.PLAYED: Outcome.PLAYED,
    MarkOutcome.CLEARED: Outcome.CLEARED,
    MarkOutcome.LOST: Outcome.LOST,
}
"""The native core's numbers for what everybody else calls an `Outcome`."""


class Tick(enum.IntFlag):
    """What a tick says it has left to do."""

    EVENTS = 1
    OUTPUT = 2
    MARK_DUE = 4


class Event(NamedTuple):
    """Something that happened in a stream or path."""

    kind: int
    stream: int
    at_sample: int
    id: int
    value: int


class Received(NamedTuple):
    """What one call of `Stream.receive` did; see there."""

    other: bool
    consumed: int
    needed: int
    opcode: int
    fin: bool
    payload: bytes
    protocol_error: int


_ENCODINGS = {("PCMU", False): 1, ("PCMA", False): 2, ("L16", False): 3, ("L16", True): 4}
_FRAMING_WEBSOCKET: int = lib.TP_FRAMING_WEBSOCKET
_FRAMING_NONE: int = lib.TP_FRAMING_NONE


def native_format(media_format: MediaFormat, rates_hz: tuple[int, ...] = KNOWN_RATES_HZ) -> tuple[int, int]:
    """Return (rate_hz, encoding) as the native core writes a format.

    `rates_hz` are those that are right here: by default a leg's and a wire's; what is played may have any rate of
    `RESAMPLER_RATES_HZ`, as it is converted when it is heard.

    Raises:
        FormatError: an encoding or rate the core does not know; the caller's to mend.
    """
    big_endian = media_format.big_endian and media_format.encoding == "L16"
    encoding = _ENCODINGS.get((media_format.encoding, big_endian))
    if encoding is None:
        raise FormatError(f"unknown encoding {media_format.encoding!r}; known: PCMU, PCMA, L16")
    if media_format.sample_rate_hz not in rates_hz:
        raise FormatError(f"unknown rate {media_format.sample_rate_hz} Hz; known: {', '.join(map(str, rates_hz))}")
    return media_format.sample_rate_hz, encoding


def tracks_of(names: Iterable[str]) -> Track:
    """Return the `Track` bits of ``inbound`` and ``outbound``; other names are none."""
    bits = Track(0)
    for name in names:
        bits |= {"inbound": Track.INBOUND, "outbound": Track.OUTBOUND}.get(name, Track(0))
    return bits


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream is to work. Durations in ms."""

    role: Role
    media_format: MediaFormat
    play_format: MediaFormat | None = None
    """Of what the application plays; None: the same."""
    templates: tuple[MediaTemplate | None, MediaTemplate | None] = (None, None)
    """Platform: of the inbound and the outbound track. Application: first, of what it plays."""
    shape: MediaShape | None = None
    """Of the media messages that come in; None: every message is the dialect's."""
    tracks: Track = Track.INBOUND
    """Which travel from platform to application."""
    bidirectional: bool = True
    websocket: bool = True
    """Messages are WebSocket frames; False: whole messages without framing."""
    masked: bool = False
    """Our frames are masked: we are the WebSocket client."""
    mask_seed: int = 1
    """Injected entropy of the mask keys, 64 bits."""
    message_ms: int = 20
    bound_ms: int = 60_000
    reserve_ms: int = 1000
    send_ahead_ms: int = 2000
    most_message_ms: int = 200
    """Application: in one message while much waits."""
    max_message_bytes: int = 1024 * 1024
    timestamp_base_ms: int | None = None
    """``media.timestamp`` of the first sample; None: 0."""


class Stream:
    """Own one native stream.

    Args:
        pool: where its queue waits.
        options: how it works.
        leg_rate_hz: of the path it will be attached to; ignored in the application's role.
        now: present time, ns.

    Raises:
        ConfigError: options that contradict each other or that the core cannot do.
        FormatError: an unknown encoding or rate.
        CallEnded: with NO_CAPACITY, when the pool cannot promise the reserve.
    """

    __slots__ = ("_config", "_lent", "_rings", "_shape", "_tail", "_templates", "native", "pool", "tail_from")

    def __init__(self, pool: Pool, options: StreamOptions, *, leg_rate_hz: int = 8000, now: int = 0) -> None:
        rate_hz, encoding = native_format(options.media_format)
        if options.reserve_ms > options.bound_ms:
            raise ConfigError(f"reserve_ms ({options.reserve_ms}) must not exceed bound_ms ({options.bound_ms})")
        if leg_rate_hz not in KNOWN_RATES_HZ:
            raise ConfigError(f"a leg has 8000, 16000, 24000 or 48000 Hz, not {leg_rate_hz}")
        longest = 200 if options.role is Role.APPLICATION else 2000
        if not 0 < options.message_ms <= longest:
            raise ConfigError(f"message_ms is 1 to {longest}, not {options.message_ms}")
        self.pool = pool
        self._templates = [None if t is None else compile_template(t, new_bytes) for t in options.templates]
        self._shape = None if options.shape is None else compile_shape(options.shape)
        self._rings: dict[Track, Any] = {}
        self._lent: Any = None
        self._tail: Any = None
        self.tail_from = NEVER
        """Samples that had been sent when they began to be kept: what came before cannot be sent again."""
        config = self._config = new_struct("tp_stream_config")
        config.role = 1 if options.role is Role.PLATFORM else 2
        config.framing = _FRAMING_WEBSOCKET if options.websocket else _FRAMING_NONE
        config.format.rate_hz, config.format.encoding = rate_hz, encoding
        played = options.play_format or options.media_format
        config.play_format.rate_hz, config.play_format.encoding = native_format(played)
        config.tracks = options.tracks
        config.bidirectional = options.bidirectional
        config.masked = options.masked
        config.message_ms = options.message_ms
        config.bound_ms, config.reserve_ms = options.bound_ms, options.reserve_ms
        config.send_ahead_ms = options.send_ahead_ms
        config.most_message_ms = options.most_message_ms
        config.max_message_bytes = options.max_message_bytes
        config.timestamp_from_zero = options.timestamp_base_ms is None
        config.timestamp_base_ms = options.timestamp_base_ms or 0
        config.mask_seed = options.mask_seed
        for i, template in enumerate(self._templates):
            if template is not None:
                config.templates[i] = template
        if self._shape is not None and options.shape is not None:
            config.shape = self._shape
            config.encoding_name = options.shape.encoding_name.encode("ascii")
        self.native: Any = new_struct("tp_stream")
        status = lib.tp_stream_init(self.native, pool.native, config, leg_rate_hz, now)
        if status == -4:
            raise CallEnded(EndReason.NO_CAPACITY)
        if status < 0:
            raise ConfigError("every track that travels needs its template")

    def lend(self, ptime_ms: int) -> None:
        """Give the native stream what only some need: before it is attached to a path of this ptime."""
        n_bytes = lib.tp_stream_lent_bytes(self.native, ptime_ms)
        if n_bytes:
            self._lent = new_bytes(n_bytes)
            lib.tp_stream_lend(self.native, ptime_ms, self._lent, n_bytes)

    def close(self, at_sample: int) -> list[Event]:
        """Drop what is queued, marks LOST at `at_sample`, give every block back; return the last events."""
        lib.tp_stream_close(self.native, at_sample)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Return and forget what has happened since last asked."""
        events: list[Event] = []
        event = ffi.new("tp_event *")
        while lib.tp_stream_next_event(self.native, event) == 1:
            events.append(Event(event.kind, event.stream, event.at_sample, event.id, event.value))
        return events

    def receive(self, data: bytearray | memoryview, now: int) -> Received:
        """Take bytes from the socket, unmasked in place.

        Returns:
            Received: `consumed` bytes are dealt with and need not come again. `other`: the last of them are a frame
            that is not plain media, with its unmasked `payload`; call again with the rest. `needed`: bytes from
            `consumed` on that the frame begun there will have in all, 0 when its header is not yet whole.
            `protocol_error`: not 0 when the peer broke RFC 6455 (1), announced too long a message (2) or masked
            wrongly (3); nothing follows that.
        """
        report = ffi.new("tp_received *")
        buffer = ffi.from_buffer("uint8_t[]", data, True)
        status = lib.tp_stream_receive(self.native, report, buffer, len(buffer), now)
        payload = bytes(ffi.buffer(buffer + report.offset, report.length)) if status == 1 else b""
        return Received(
            status == 1, report.consumed, report.needed, report.opcode, bool(report.fin), payload, report.protocol_error
        )

    def receive_message(self, text: bytearray | memoryview | bytes, now: int) -> bool:
        """Take one whole message; False when it is not plain media and belongs to the dialect."""
        buffer = ffi.from_buffer("uint8_t[]", text)
        return bool(lib.tp_stream_receive_message(self.native, buffer, len(buffer), now) == 1)

    def receive_audio(
        self, payload: bytes, now: int, *, media_format: MediaFormat | None = None, track: Track = Track.INBOUND
    ) -> int:
        """Take payload that the dialect's parser found; return the samples taken, the excess being dropped and counted.

        Raises:
            FormatError: not whole samples, or a format this stream cannot take; the peer's fault.
        """
        own = self._config.play_format if self._config.role == 1 else self._config.format
        wire_format = own if media_format is None else native_format(media_format)
        taken = lib.tp_stream_receive_audio(self.native, track, wire_format, payload, len(payload), now)
        return self._count(taken, "receive")

    def play(self, payload: bytes, *, media_format: MediaFormat | None = None) -> int:
        """Queue payload; return how many samples were taken, perhaps fewer than given.

        Raises:
            FormatError: not whole samples, or (application's role) another rate than the stream's.
        """
        own = self._config.play_format
        wire_format = own if media_format is None else native_format(media_format, RESAMPLER_RATES_HZ)
        return self._count(lib.tp_stream_play(self.native, wire_format, payload, len(payload)), "play")

    def mark(self, mark_id: int) -> bool:
        """Set a mark at the queue's present end; False when `MAX_PENDING_MARKS` are pending or the stream is closed."""
        return bool(lib.tp_stream_mark(self.native, mark_id) == 0)

    def clear(self, at_sample: int) -> int:
        """Drop what is queued; pending marks are CLEARED at `at_sample`. Returns the samples dropped."""
        return int(lib.tp_stream_clear(self.native, at_sample))

    def pause(self, paused: bool = True) -> None:
        """Hold the queue's position, or go on at the next sample."""
        lib.tp_stream_pause(self.native, paused)

    def keep_tail(self, n_bytes: int) -> None:
        """Keep the last `n_bytes` sent from now on, for `tp_stream_rewind` (application's role). Idempotent.

        Raises:
            ConfigError: the platform's role, not whole samples, or less than one message may hold.
        """
        if self._tail is None:
            ring = ffi.new("uint8_t[]", n_bytes)
            if lib.tp_stream_keep_tail(self.native, ring, n_bytes) < 0:
                raise ConfigError("a tail belongs to a stream in the application's role and holds a whole message")
            self._tail = ring
            self.tail_from = int(lib.tp_stream_sent_samples(self.native))

    def set_track(self, track: Track, n_bytes: int) -> None:
        """Keep the last `n_bytes` of a track from now on (application's role); 0: keep nothing.

        Raises:
            ConfigError: the platform's role, or not whole samples.
        """
        ring = ffi.new("uint8_t[]", n_bytes) if n_bytes else ffi.NULL
        if lib.tp_stream_set_track(self.native, track, ring, n_bytes) < 0:
            raise ConfigError("a ring belongs to a stream in the application's role and holds whole samples")
        self._rings[track] = ring

    def tick(self, slot: int, now: int, outbox: Outbox) -> int:
        """Append what may be sent ahead (application's role); return `Tick` bits, or -2: no room, nothing done."""
        return int(lib.tp_stream_tick(self.native, slot, now, outbox.native))

    def next_deadline(self) -> int:
        """Return when a tick could send again or has an alarm to raise, in ns; `NEVER` when nothing waits."""
        return int(lib.tp_stream_next_deadline(self.native))

    def wake_at(self, track: Track, written: int) -> None:
        """Have AUDIO come only when so many samples of a track were ever written; 0: always, 2**64 - 1: never.

        Raises:
            ConfigError: the platform's role.
        """
        if lib.tp_stream_wake_at(self.native, track, written) < 0:
            raise ConfigError("only a stream in the application's role has rings")

    def want_low(self, samples: int) -> None:
        """Have LOW come once, when a tick or a clear leaves fewer samples in the queue; 0: never."""
        lib.tp_stream_want_low(self.native, samples)

    def set_alarm(self, at: int) -> None:
        """Have ALARM come once, at the first tick at or after a time in ns; `NEVER`: not."""
        lib.tp_stream_set_alarm(self.native, at)

    def take_sequence(self) -> int:
        """Take the next number of the wire's message sequence, for a message written elsewhere."""
        return int(lib.tp_stream_take_sequence(self.native))

    @property
    def queued_samples(self) -> int:
        return int(lib.tp_stream_queued_samples(self.native))

    @property
    def queued_us(self) -> int:
        return int(lib.tp_stream_queued_us(self.native))

    @property
    def pool_bytes(self) -> int:
        return int(lib.tp_stream_pool_bytes(self.native))

    def counters(self) -> dict[str, int]:
        """Return the stream's counters by name."""
        return counters_of(lib.tp_stream_statistics(self.native))

    def _count(self, status: int, what: str) -> int:
        if status >= 0:
            return int(status)
        if status == -3:
            raise FormatError(f"{what}: not whole samples")
        if status == -1:
            raise FormatError(f"{what}: this stream cannot take that rate")
        if status == -5:
            return 0
        raise NativeError(f"{what}: status {status}")


def counters_of(pointer: Any) -> dict[str, int]:
    """Return the members of a native struct of counters by name."""
    return {name: int(getattr(pointer, name)) for name, _ in ffi.typeof(pointer).item.fields}
