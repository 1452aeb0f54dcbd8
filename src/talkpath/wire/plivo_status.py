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
from typing import Final

from talkpath.wire.callback import CallbackRequest, callback
from talkpath.wire.signature import signature_headers
from talkpath.wire.status import StatusEvent, StatusKind, moment


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
    fields["Timestamp"] = moment(event).strftime("%Y-%m-%d %H:%M:%S")
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
        "Timestamp": moment(event).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "From": event.from_number,
        "To": event.to_number,
        "Direction": event.direction,
    }
    if event.kind in (StatusKind.STOPPED, StatusKind.FAILED):
        fields["StatusReason"] = event.reason
    if event.kind is StatusKind.STOPPED:
        fields["Duration"] = str(event.duration_s)
    return fields
