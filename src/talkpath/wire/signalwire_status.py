"""SignalWire's status callbacks: SWML's event ``calling.call.stream``, and cXML's form.

SWML has two states, ``streaming`` and ``finished``, in a JSON object; a stream that never came about has none (the
script learns it from a variable). cXML's are Twilio's fields and a few more. How SWML's object would be written in
the query of a GET is not documented: here its members and those of ``params`` stand there by name.

Source: SignalWire's API specifications (status-callbacks) and cXML ``<Stream>`` page of 2026-08, read 2026-11.
"""

from __future__ import annotations

from talkpath.wire.callback import CallbackRequest, callback, json_callback
from talkpath.wire.status import StatusEvent, StatusKind
from talkpath.wire.twilio_status import status_fields as twilio_fields

NEVER_STARTED = "connection_failed"
_STATES = {StatusKind.STARTED: "streaming", StatusKind.STOPPED: "finished", StatusKind.FAILED: "finished"}


def swml_event(event: StatusEvent) -> dict[str, object] | None:
    """Write a status event as SWML's object; None where it has no word for it.

    The ids of the platform's own house (project, space, node, segment) are the account's and the call's here: there is
    one house.
    """
    state = _STATES.get(event.kind)
    if state is None or (event.kind is StatusKind.FAILED and event.reason == NEVER_STARTED):
        return None
    params: dict[str, object] = {
        "call_id": event.call_id,
        "node_id": event.call_id,
        "segment_id": event.call_id,
        "control_id": event.control_id,
        "state": state,
        "url": event.service_url,
    }
    if event.stream_name:
        params["name"] = event.stream_name
    return {
        "event_type": "calling.call.stream",
        "event_channel": f"swml:{event.call_id}",
        "timestamp": event.at_unix_s,
        "project_id": event.account_id,
        "space_id": event.account_id,
        "params": params,
    }


def swml_callback(event: StatusEvent, *, url: str, method: str = "POST") -> CallbackRequest | None:
    """Make the request that reports a status event in SWML's way; None where there is no word for it.

    Raises:
        ConfigError: a bad URL or method.
    """
    body = swml_event(event)
    if body is None:
        return None
    if method == "POST":
        return json_callback(url, body)
    params = body.pop("params")
    assert isinstance(params, dict)
    return callback(method, url, {name: str(value) for name, value in (body | params).items()})


def cxml_callback(event: StatusEvent, *, url: str, method: str = "POST") -> CallbackRequest | None:
    """Make the request that reports a status event in cXML's way; None where there is no word for it.

    Raises:
        ConfigError: a bad URL or method.
    """
    fields = twilio_fields(event, sids=False)
    if fields is None:
        return None
    fields["StreamTrack"] = event.track
    fields["Unique-ID"] = event.call_id
    return callback(method, url, fields)
