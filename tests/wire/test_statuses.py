"""Status callbacks of the wires beside Plivo's: every field of every event, by GET and by POST, and who signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from talkpath.wire.callback import CallbackRequest
from talkpath.wire.catalog import wire_named
from talkpath.wire.status import StatusEvent, StatusKind
from talkpath.wire.twilio_signature import verify_headers

URL = "https://app.example/status"
TOKEN = "not-a-real-token"
CALL = "3f2a9c10-6b1d-4c57-9a1e-5d0f6f1c2b34"
EVENT = StatusEvent(
    StatusKind.STARTED,
    call_id=CALL,
    stream_id="b7d3e6a2-91c4-4f0b-8e2d-0c5a7f9e1d22",
    at_unix_s=1_760_000_000.25,
    from_number="+15550100",
    to_number="+15550199",
    account_id="11111111-1111-4111-8111-111111111111",
    control_id="stream-1",
    stream_name="asr",
    track="both_tracks",
    service_url="wss://app.example/in",
    name="greeting-end",
    reason="completed",
    duration_s=12,
)
SILENT = (StatusKind.DEGRADED, StatusKind.PLAYED, StatusKind.CLEARED)


def told(
    wire: str, scheme: str, event: StatusEvent, method: str = "POST", url: str = URL, token: str = ""
) -> CallbackRequest | None:
    return wire_named(wire).status_request(event, scheme, url, method, token, "17")


def fields(request: CallbackRequest | None) -> dict[str, str]:
    assert request is not None
    text = request.body.decode() if request.method == "POST" else urlsplit(request.url).query
    return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=True))


def body(request: CallbackRequest | None) -> object:
    assert request is not None
    assert request.method == "POST"
    assert dict(request.headers)["Content-Type"] == "application/json"
    return json.loads(request.body)


# Twilio's TwiML <Stream> page, read 2026-11.
TWILIO = {
    "AccountSid": "AC11111111111141118111111111111111",
    "CallSid": "CA3f2a9c106b1d4c579a1e5d0f6f1c2b34",
    "StreamSid": "MZb7d3e6a291c44f0b8e2d0c5a7f9e1d22",
    "StreamName": "asr",
    "StreamEvent": "stream-started",
    "Timestamp": "2025-10-09T08:53:20.250000Z",
}
# SignalWire's cXML <Stream> page, read 2026-11.
CXML = {
    **TWILIO,
    "AccountSid": EVENT.account_id,
    "CallSid": CALL,
    "StreamSid": EVENT.stream_id,
    "StreamTrack": "both_tracks",
    "Unique-ID": CALL,
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("kind", "reason", "changed"),
    [
        (StatusKind.STARTED, "", {}),
        (StatusKind.STOPPED, "completed", {"StreamEvent": "stream-stopped"}),
        (StatusKind.FAILED, "peer_vanished", {"StreamEvent": "stream-error", "StreamError": "peer_vanished"}),
    ],
)
def test_twilios_form(method: str, kind: StatusKind, reason: str, changed: dict[str, str]) -> None:
    event = replace(EVENT, kind=kind, reason=reason, stream_id=TWILIO["StreamSid"])
    assert fields(told("twilio", "form", event, method)) == TWILIO | changed
    unnamed = fields(told("twilio", "form", replace(event, stream_name=""), method))
    assert unnamed["StreamName"] == TWILIO["StreamSid"], "the name falls back to the SID"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("kind", "reason", "changed"),
    [
        (StatusKind.STARTED, "", {}),
        (StatusKind.STOPPED, "completed", {"StreamEvent": "stream-stopped"}),
        (
            StatusKind.FAILED,
            "connection_failed",
            {"StreamEvent": "stream-error", "StreamError": "connection_refused_timeout_or_ssl_error"},
        ),
        (StatusKind.FAILED, "peer_stalled", {"StreamEvent": "stream-error", "StreamError": "general_error"}),
    ],
)
def test_signalwires_form(method: str, kind: StatusKind, reason: str, changed: dict[str, str]) -> None:
    assert fields(told("signalwire", "cxml", replace(EVENT, kind=kind, reason=reason), method)) == CXML | changed


# SignalWire's API specification of calling.call.stream, read 2026-11.
SWML = {
    "event_type": "calling.call.stream",
    "event_channel": f"swml:{CALL}",
    "timestamp": 1_760_000_000.25,
    "project_id": EVENT.account_id,
    "space_id": EVENT.account_id,
    "params": {
        "call_id": CALL,
        "node_id": CALL,
        "segment_id": CALL,
        "control_id": "stream-1",
        "state": "streaming",
        "url": "wss://app.example/in",
        "name": "asr",
    },
}


@pytest.mark.parametrize(
    ("kind", "state"),
    [(StatusKind.STARTED, "streaming"), (StatusKind.STOPPED, "finished"), (StatusKind.FAILED, "finished")],
)
def test_signalwires_object(kind: StatusKind, state: str) -> None:
    event = replace(EVENT, kind=kind)
    params = {**SWML["params"], "state": state}  # type: ignore[dict-item]
    assert body(told("signalwire", "swml", event)) == SWML | {"params": params}
    got = fields(told("signalwire", "swml", event, "GET"))
    assert got == {name: str(value) for name, value in ((SWML | params).items()) if name != "params"}
    unnamed = body(told("signalwire", "swml", replace(event, stream_name="")))
    assert isinstance(unnamed, dict)
    assert "name" not in unnamed["params"]


def test_what_never_started_is_no_news_in_swml() -> None:
    assert told("signalwire", "swml", replace(EVENT, kind=StatusKind.FAILED, reason="connection_failed")) is None


# Teler's webhooks of 2025-08-01, read 2026-11.
@pytest.mark.parametrize(
    ("kind", "name", "moment"),
    [
        (StatusKind.STARTED, "stream.initiated", "start_time"),
        (StatusKind.STOPPED, "stream.completed", "end_time"),
        (StatusKind.FAILED, "stream.completed", "end_time"),
    ],
)
def test_telers_object(kind: StatusKind, name: str, moment: str) -> None:
    request = told("teler", "2025-08-01", replace(EVENT, kind=kind), token=TOKEN)
    got = body(request)
    assert isinstance(got, dict)
    assert isinstance(got.pop("call_app_id"), str)
    assert got == {
        "event": name,
        "account_id": EVENT.account_id,
        "data": {"call_id": CALL, "stream_id": EVENT.stream_id, moment: "2025-10-09T08:53:20Z"},
    }
    assert request is not None
    headers = dict(request.headers)
    assert headers["X-Teler-Timestamp"] == "1760000000"
    expected = hmac.new(TOKEN.encode(), b"1760000000." + request.body, hashlib.sha256).hexdigest()
    assert headers["X-Teler-Signature"] == expected


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize(
    ("wire", "scheme"),
    [("twilio", "form"), ("signalwire", "cxml"), ("signalwire", "swml"), ("teler", "2025-08-01")],
)
def test_what_a_platform_has_no_word_for_it_does_not_say(wire: str, scheme: str, kind: StatusKind) -> None:
    assert told(wire, scheme, replace(EVENT, kind=kind)) is None


@pytest.mark.parametrize("kind", list(StatusKind))
def test_our_own_wire_says_everything(kind: StatusKind) -> None:
    assert body(told("native", "json", replace(EVENT, kind=kind))) == {
        "event": kind.value,
        "call_id": CALL,
        "stream_id": EVENT.stream_id,
        "control_id": "stream-1",
        "name": "asr",
        "mark": "greeting-end",
        "reason": "completed",
        "at_unix_s": 1_760_000_000.25,
        "duration_s": 12,
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", [URL, URL + "?tenant=a%20b", "https://app.example:8443/status"])
def test_twilios_and_cxmls_callbacks_verify_at_the_server(method: str, url: str) -> None:
    twilio = told("twilio", "form", EVENT, method, url, TOKEN)
    assert twilio is not None
    form = fields(twilio) if method == "POST" else None
    assert verify_headers(TOKEN, twilio.headers, twilio.url, form)
    assert not verify_headers("another-token", twilio.headers, twilio.url, form)
    cxml = told("signalwire", "cxml", EVENT, method, url, TOKEN)
    assert cxml is not None
    signed = cxml.url + "".join(name + value for name, value in sorted((fields(cxml) if form else {}).items()))
    expected = base64.b64encode(hmac.new(TOKEN.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    assert dict(cxml.headers)["X-SignalWire-Signature"] == expected


@pytest.mark.parametrize(
    ("wire", "scheme"),
    [("twilio", "form"), ("signalwire", "cxml"), ("teler", "2025-08-01"), ("native", "json")],
)
def test_without_a_token_nothing_is_signed(wire: str, scheme: str) -> None:
    request = told(wire, scheme, EVENT)
    assert request is not None
    assert [name for name, _ in request.headers] == ["Content-Type"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", [URL, URL + "?tenant=a"])
def test_twilios_own_validator_takes_our_callbacks(method: str, url: str) -> None:
    validator = pytest.importorskip("twilio.request_validator").RequestValidator(TOKEN)
    for kind in (StatusKind.STARTED, StatusKind.STOPPED, StatusKind.FAILED):
        request = told("twilio", "form", replace(EVENT, kind=kind), method, url, TOKEN)
        assert request is not None
        signature = dict(request.headers)["X-Twilio-Signature"]
        form = fields(request) if method == "POST" else {}
        assert validator.validate(request.url, form, signature)
        assert not validator.validate(request.url + "x", form, signature)
