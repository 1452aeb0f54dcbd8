"""SignalWire's status callbacks: SWML's event ``calling.call.stream``, and cXML's form.

SWML has two states, ``streaming`` and ``finished``, in a JSON object; a stream that never came about has none (the
script learns it from a variable). cXML's are Twilio's fields and a few more. How SWML's object would be written in
the query of a GET is not documented: here its members and those of ``params`` stand there by name.

SWML's are not signed. cXML's requests are, in Twilio's way, with the project's signing key and under a header of
SignalWire's; that its callbacks are among them is inferred. ``StreamError`` is one of the page's words.

Source: SignalWire's API specifications (status-callbacks), cXML ``<Stream>`` and webhook security pages of 2026-08,
read 2026-11.
"""

from __future__ import annotations

from talkpath.wire.callback import CallbackRequest, callback, json_callback
from talkpath.wire.status import StatusEvent, StatusKind
from talkpath.wire.twilio_signature import sign
from talkpath.wire.twilio_status import status_fields as twilio_fields

SIGNATURE_HEADER = "X-SignalWire-Signature"
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


def cxml_callback(
    event: StatusEvent, *, url: str, method: str = "POST", auth_token: str = ""
) -> CallbackRequest | None:
    """Make the request that reports a status event in cXML's way, signed when there is a token (the signing key); None
    where there is no word for it.

    Raises:
        ConfigError: a bad URL or method.
    """
    fields = twilio_fields(event, sids=False)
    if fields is None:
        return None
    fields["StreamTrack"] = event.track
    fields["Unique-ID"] = event.call_id
    if event.kind is StatusKind.FAILED:
        never = event.reason == NEVER_STARTED
        fields["StreamError"] = "connection_refused_timeout_or_ssl_error" if never else "general_error"
    unsigned = callback(method, url, fields)
    if not auth_token:
        return unsigned
    signature = sign(auth_token, unsigned.url, fields if method == "POST" else None)
    return CallbackRequest(method, unsigned.url, (*unsigned.headers, (SIGNATURE_HEADER, signature)), unsigned.body)
