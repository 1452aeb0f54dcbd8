"""Frozen events and commands: what crosses between a wire's machine and whoever drives it, and what a call tells its
user.

A *dialect* turns messages into the events below and commands into messages; which of the two a value is depends on the
end of the wire one stands at, so both ends share one set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from talkpath.records import EndReason, Outcome


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """How payload bytes are to be read."""

    encoding: str
    """``PCMU``, ``PCMA``, ``L16`` (byte order is the dialect's)."""
    sample_rate_hz: int
    big_endian: bool = False

    @property
    def sample_bytes(self) -> int:
        return 2 if self.encoding == "L16" else 1


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The wire's opening message: who calls, and how audio is written."""

    stream_id: str
    call_id: str
    account_id: str
    tracks: tuple[str, ...]
    """``inbound``, ``outbound``."""
    media_format: MediaFormat
    custom_parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    clock_rate_hz: int = 0
    """Of the samples in which the platform tells positions, where the wire says it."""
    from_number: str = field(default="", repr=False)
    to_number: str = field(default="", repr=False)
    direction: str = ""
    """``inbound`` or ``outbound``, as the platform sees the call, where the wire says it; the numbers likewise."""
    started_ms: int = 0
    """Platform: the stream's beginning in Unix milliseconds, for a wire that writes moments of the wall clock."""


@dataclass(frozen=True, slots=True)
class Media:
    """Audio, as payload bytes."""

    payload: bytes = field(repr=False)
    track: str = "inbound"
    media_format: MediaFormat | None = None
    """Where the message itself says one (Plivo's ``contentType``); None: the stream's."""
    sequence: int | None = None
    chunk: int | None = None
    timestamp_ms: int | None = None
    position: int | None = None
    """The first sample's, since the stream began (the native wire)."""


@dataclass(frozen=True, slots=True)
class Digit:
    """The caller pressed a key."""

    digit: str = field(repr=False)
    """No `repr` shows digits, payload or what a program passes on: they are PINs, voices and secrets."""
    track: str = "inbound"
    timestamp_ms: int | None = None
    duration_ms: int | None = None
    """How long it was held, where that is known."""


@dataclass(frozen=True, slots=True)
class SendDigits:
    """The application wants digits sent to the caller."""

    digits: str = field(repr=False)
    id: str = ""
    """What the wire calls this request (FreeClimb)."""
    press_ms: int | None = None
    gap_ms: int | None = None
    """Where the wire says them (FreeClimb); None: as the platform likes."""


@dataclass(frozen=True, slots=True)
class DigitsSent:
    """The platform has begun to send digits, or has sent them (wires that say so)."""

    id: str = ""
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """The application sets a checkpoint after all audio it has sent."""

    name: str
    """Empty: nobody's but the wire's own end, which asks to be told when it is reached."""
    id: str = ""
    """What the wire's own end calls it; comes back in `MarkReached`."""


@dataclass(frozen=True, slots=True)
class MarkReached:
    """The platform reports a checkpoint. `outcome` is None where the wire cannot tell played from cleared."""

    name: str
    outcome: Outcome | None = Outcome.PLAYED
    at_sample: int | None = None
    id: str = ""
    """The `Mark`'s."""


@dataclass(frozen=True, slots=True)
class Clear:
    """The application drops what it has queued."""

    id: str = ""
    """What the wire calls this request (FreeClimb)."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """The platform confirms a clear."""

    id: str = ""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The application takes back one chunk of what it has queued (Teler)."""

    chunk: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The application holds its own audio at the sample it has reached (the native wire)."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The application's audio goes on at the next sample."""


@dataclass(frozen=True, slots=True)
class QueryBuffer:
    """The application asks how much waits: ``audio`` or ``digits`` (FreeClimb)."""

    what: str = "audio"


@dataclass(frozen=True, slots=True)
class BufferDepth:
    """The platform's answer, in the wire's own entries."""

    what: str
    depth: int
    size: int


@dataclass(frozen=True, slots=True)
class QueryStatistics:
    """The application asks for the platform's counters (the native wire)."""


@dataclass(frozen=True, slots=True)
class PlatformStatistics:
    """The platform's counters of this stream, by name."""

    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PlatformError:
    """The platform says that it could not do something; the stream goes on."""

    message: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The application ends the call with a message (wires that have one)."""


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The wire's closing message."""

    reason: str = ""
    end: EndReason | None = None
    """Who ended it, where the wire says so."""


@dataclass(frozen=True, slots=True)
class Handshaken:
    """A message that opens the wire before `StreamStarted` (Twilio's ``connected``)."""

    version: str = ""


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A message the dialect does not know; harmless, logged once per kind, counted."""

    kind: str


WireEvent = (
    StreamStarted
    | Media
    | Digit
    | SendDigits
    | Mark
    | MarkReached
    | Clear
    | Cleared
    | Interrupt
    | Pause
    | Resume
    | DigitsSent
    | QueryBuffer
    | BufferDepth
    | QueryStatistics
    | PlatformStatistics
    | PlatformError
    | HangUp
    | StreamStopped
    | Handshaken
    | UnknownMessage
)


@dataclass(frozen=True, slots=True)
class DigitReceived:
    """The caller pressed a key."""

    digit: str = field(repr=False)
    at_sample: int


@dataclass(frozen=True, slots=True)
class StreamUp:
    """A stream is connected and started."""

    control_id: str
    stream_id: str


@dataclass(frozen=True, slots=True)
class StreamLost:
    """A stream's connection is lost, and tried anew: `StreamUp` follows, with another stream id, or `StreamEnded`."""

    control_id: str
    stream_id: str
    reason: EndReason


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """A stream is over; the call may go on."""

    control_id: str
    stream_id: str
    reason: EndReason


@dataclass(frozen=True, slots=True)
class MarkSettled:
    """A checkpoint of a stream has its outcome."""

    control_id: str
    name: str
    outcome: Outcome
    at_sample: int


@dataclass(frozen=True, slots=True)
class SourceCleared:
    """An application cleared its queue, or the caller spoke into what the call plays."""

    control_id: str
    """Of the stream; empty: the call's own source."""
    samples: int


@dataclass(frozen=True, slots=True)
class StreamDegraded:
    """A stream's playout rose past 30, 60 or 90 % of its bound, or began to overflow (100)."""

    control_id: str
    percent: int


@dataclass(frozen=True, slots=True)
class LegChanged:
    """The caller's source was learned, changed, or put on hold."""

    what: str
    """``source_learned``, ``held``, ``resumed``, ``updated``."""


CallEvent = (
    DigitReceived | StreamUp | StreamLost | StreamEnded | MarkSettled | SourceCleared | StreamDegraded | LegChanged
)
