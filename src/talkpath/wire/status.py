"""What happened to a stream, as its owner's web server is told: in no platform's words.

Each wire writes the event down in its own form (``plivo_status`` and its like); `talkpath.wire.callback` makes a
request of it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from talkpath.errors import ConfigError


class StatusKind(enum.Enum):
    """What happened to a stream."""

    STARTED = "started"
    """Connected, ``start`` written."""
    STOPPED = "stopped"
    """Ended in an orderly way."""
    FAILED = "failed"
    """Could not connect, was lost, or read too slowly."""
    DEGRADED = "degraded"
    """The playout rose past 30, 60 or 90 % of its bound, or overflowed."""
    PLAYED = "played"
    """A checkpoint was reached."""
    CLEARED = "cleared"
    """A clear is done."""


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One thing that happened to a stream, with all that any wire says of it."""

    kind: StatusKind
    call_id: str
    stream_id: str
    at_unix_s: float
    """When, in seconds of Unix time; injected, because nothing here reads a clock."""
    from_number: str = field(default="", repr=False)
    to_number: str = field(default="", repr=False)
    direction: str = "inbound"
    """Of the call: ``inbound`` or ``outbound``."""
    account_id: str = ""
    control_id: str = ""
    stream_name: str = ""
    """The stream's, where it has one."""
    track: str = "inbound_track"
    service_url: str = field(default="", repr=False)
    """The WebSocket's."""
    name: str = ""
    """The checkpoint's."""
    reason: str = ""
    """Stopped and failed: ``completed``, ``connection_failed``, ``buffer_overflow``, ...; degraded: what is wrong."""
    duration_s: int = 0
    """Of the stream, when it stopped."""
    stream_attributes: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Classic: attributes of the ``<Stream>`` element to repeat (``bidirectional``, ``audioTrack``, ...)."""


def moment(event: StatusEvent) -> datetime:
    """When it happened, in UTC. Raises ConfigError: no moment there can be."""
    try:
        return datetime.fromtimestamp(event.at_unix_s, UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"at_unix_s is {event.at_unix_s}; right is a moment in seconds of Unix time") from None
