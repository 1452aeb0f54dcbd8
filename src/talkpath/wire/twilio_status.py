"""Twilio's status callbacks, and those of cXML documents, which copy them.

Three events: ``stream-started``, ``stream-stopped``, ``stream-error``, as a form or in a query. There is no word for a
checkpoint, a clear or a filling buffer: those are silent.

Source: Twilio's TwiML ``<Stream>`` page, SignalWire's cXML ``<Stream>`` page, read 2026-11.
"""

from __future__ import annotations

from typing import Final

from talkpath.wire.callback import CallbackRequest, callback
from talkpath.wire.status import StatusEvent, StatusKind, moment
from talkpath.wire.twilio import sid
from talkpath.wire.twilio_signature import SIGNATURE_HEADER, sign

_EVENTS: Final = {
    StatusKind.STARTED: "stream-started",
    StatusKind.STOPPED: "stream-stopped",
    StatusKind.FAILED: "stream-error",
}


def status_fields(event: StatusEvent, *, sids: bool = True) -> dict[str, str] | None:
    """Write a status event as the callback's fields, all text; None where there is no word for it.

    Args:
        sids: Twilio's form of ids; else as they are (cXML: UUIDs).
    """
    name = _EVENTS.get(event.kind)
    if name is None:
        return None
    call_id, account_id = event.call_id, event.account_id
    if sids:
        call_id, account_id = sid("CA", call_id) or call_id, sid("AC", account_id) or account_id
    fields = {
        "AccountSid": account_id,
        "CallSid": call_id,
        "StreamSid": event.stream_id,
        "StreamName": event.stream_name or event.stream_id,
        "StreamEvent": name,
        "Timestamp": moment(event).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if event.kind is StatusKind.FAILED:
        fields["StreamError"] = event.reason
    return fields


def status_callback(
    event: StatusEvent, *, url: str, method: str = "POST", auth_token: str = ""
) -> CallbackRequest | None:
    """Make the request that reports a status event, signed when there is an auth token; None where there is no word.

    Raises:
        ConfigError: a bad URL or method.
    """
    fields = status_fields(event)
    if fields is None:
        return None
    unsigned = callback(method, url, fields)
    if not auth_token:
        return unsigned
    signature = sign(auth_token, unsigned.url, fields if method == "POST" else None)
    return CallbackRequest(method, unsigned.url, (*unsigned.headers, (SIGNATURE_HEADER, signature)), unsigned.body)
