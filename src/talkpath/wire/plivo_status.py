"""Plivo's status callbacks: what a stream tells its owner's web server, in either naming.

Plivo documents two sets of names for the same things. The classic one (``StartStream``, ``StopStream``,
``DroppedStream``, ``DegradedStream``, ``PlayedStream``, ``ClearedAudio``) is in its XML pages, best practices and
console; the guide's one (``started``, ``stopped``, ``failed``) in its streaming guide and reference. The guide has no
name for a filling buffer, a checkpoint or a clear: those are silent there. Which of the two is live is not known, so
whoever starts a stream chooses.

Source: Plivo's XML, best-practice, guide and reference pages and a compatible carrier's callbacks, read 2026-11.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from talkpath.errors import ConfigError
from talkpath.wire.callback import CallbackRequest, callback
from talkpath.wire.signature import signature_headers


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


class StatusNaming(enum.Enum):
    """Which of Plivo's two sets of names is written."""

    CLASSIC = "classic"
    GUIDE = "guide"


_CLASSIC: Final = {
    StatusKind.STARTED: "StartStream",
    StatusKind.STOPPED: "StopStream",
    StatusKind.FAILED: "DroppedStream",
    StatusKind.DEGRADED: "DegradedStream",
    StatusKind.PLAYED: "PlayedStream",
    StatusKind.CLEARED: "ClearedAudio",
}
_GUIDE: Final = {StatusKind.STARTED: "started", StatusKind.STOPPED: "stopped", StatusKind.FAILED: "failed"}


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """One thing that happened to a stream, with all that either naming says of it."""

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


def status_fields(
    event: StatusEvent, naming: StatusNaming, *, status_url: str = "", status_method: str = "POST"
) -> dict[str, str] | None:
    """Write a status event as the callback's fields, all text; None where the naming has no word for it."""
    if naming is StatusNaming.GUIDE:
        return _guide_fields(event)
    fields = {
        **event.stream_attributes,
        "From": event.from_number,
        "To": event.to_number,
        "CallUUID": event.call_id,
        "Event": _CLASSIC[event.kind],
        "StreamID": event.stream_id,
    }
    if event.kind is StatusKind.STARTED:
        fields["ServiceURL"] = event.service_url
    if event.kind is StatusKind.PLAYED:
        fields["Name"] = event.name
    fields["ParentAuthID"] = event.account_id
    fields["status_callback_url"] = status_url
    fields["status_callback_method"] = status_method
    fields["Timestamp"] = _moment(event).strftime("%Y-%m-%d %H:%M:%S")
    fields["Error"] = event.reason if event.kind in (StatusKind.FAILED, StatusKind.DEGRADED) else ""
    return fields


def status_callback(
    event: StatusEvent,
    naming: StatusNaming,
    *,
    url: str,
    method: str = "POST",
    auth_token: str = "",
    nonce: str = "",
) -> CallbackRequest | None:
    """Make the request that reports a status event, signed when there is an auth token; None where there is no word.

    Raises:
        ConfigError: a bad URL or method, or a token without a nonce.
    """
    fields = status_fields(event, naming, status_url=url, status_method=method)
    if fields is None:
        return None
    unsigned = callback(method, url, fields)
    if not auth_token:
        return unsigned
    signed = fields if method == "POST" else None  # by GET they are in the URL's query already
    headers = signature_headers(auth_token, nonce, method, unsigned.url, signed)
    return CallbackRequest(method, unsigned.url, (*unsigned.headers, *headers), unsigned.body)


def _guide_fields(event: StatusEvent) -> dict[str, str] | None:
    name = _GUIDE.get(event.kind)
    if name is None:
        return None
    fields = {
        "CallUUID": event.call_id,
        "StreamID": event.stream_id,
        "Event": name,
        "Timestamp": _moment(event).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "From": event.from_number,
        "To": event.to_number,
        "Direction": event.direction,
    }
    if event.kind in (StatusKind.STOPPED, StatusKind.FAILED):
        fields["StatusReason"] = event.reason
    if event.kind is StatusKind.STOPPED:
        fields["Duration"] = str(event.duration_s)
    return fields


def _moment(event: StatusEvent) -> datetime:
    try:
        return datetime.fromtimestamp(event.at_unix_s, UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigError(f"at_unix_s is {event.at_unix_s}; right is a moment in seconds of Unix time") from None
