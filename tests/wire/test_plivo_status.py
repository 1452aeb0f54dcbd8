"""Plivo's status callbacks in both namings."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from talkpath.errors import ConfigError
from talkpath.wire.plivo_status import StatusNaming, status_callback, status_fields
from talkpath.wire.signature import verify_headers
from talkpath.wire.status import StatusEvent, StatusKind

STATUS_URL = "https://app.example/status"
EVENT = StatusEvent(
    StatusKind.STARTED,
    call_id="3f2a9c10-6b1d-4c57-9a1e-5d0f6f1c2b34",
    stream_id="b7d3e6a2-91c4-4f0b-8e2d-0c5a7f9e1d22",
    at_unix_s=1_760_000_000.9,
    from_number="+15550100",
    to_number="+15550199",
    account_id="MAXXXXXXXXXXXXXXXXXX",
    service_url="wss://app.example/media",
    name="greeting-end",
    reason="completed",
    duration_s=12,
)
CLASSIC = {
    "From": "+15550100",
    "To": "+15550199",
    "CallUUID": EVENT.call_id,
    "Event": "StartStream",
    "StreamID": EVENT.stream_id,
    "ServiceURL": "wss://app.example/media",
    "ParentAuthID": "MAXXXXXXXXXXXXXXXXXX",
    "status_callback_url": STATUS_URL,
    "status_callback_method": "POST",
    "Timestamp": "2025-10-09 08:53:20",
    "Error": "",
}
GUIDE = {
    "CallUUID": EVENT.call_id,
    "StreamID": EVENT.stream_id,
    "Event": "started",
    "Timestamp": "2025-10-09T08:53:20Z",
    "From": "+15550100",
    "To": "+15550199",
    "Direction": "inbound",
}


def without(fields: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name not in names}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (StatusKind.STARTED, CLASSIC),
        (StatusKind.STOPPED, without(CLASSIC, "ServiceURL") | {"Event": "StopStream"}),
        (StatusKind.FAILED, without(CLASSIC, "ServiceURL") | {"Event": "DroppedStream", "Error": "completed"}),
        (StatusKind.DEGRADED, without(CLASSIC, "ServiceURL") | {"Event": "DegradedStream", "Error": "completed"}),
        (StatusKind.PLAYED, without(CLASSIC, "ServiceURL") | {"Event": "PlayedStream", "Name": "greeting-end"}),
        (StatusKind.CLEARED, without(CLASSIC, "ServiceURL") | {"Event": "ClearedAudio"}),
    ],
)
def test_the_classic_naming(kind: StatusKind, fields: dict[str, str]) -> None:
    # Plivo's XML and best-practice pages and a compatible carrier's callbacks, read 2026-11.
    assert status_fields(replace(EVENT, kind=kind), StatusNaming.CLASSIC, status_url=STATUS_URL) == fields


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (StatusKind.STARTED, GUIDE),
        (StatusKind.STOPPED, GUIDE | {"Event": "stopped", "StatusReason": "completed", "Duration": "12"}),
        (StatusKind.FAILED, GUIDE | {"Event": "failed", "StatusReason": "completed"}),
        (StatusKind.DEGRADED, None),
        (StatusKind.PLAYED, None),
        (StatusKind.CLEARED, None),
    ],
)
def test_the_guides_naming(kind: StatusKind, fields: dict[str, str] | None) -> None:
    # Plivo's streaming guide and reference, 2026-01.
    event = replace(EVENT, kind=kind)
    assert status_fields(event, StatusNaming.GUIDE) == fields
    assert (status_callback(event, StatusNaming.GUIDE, url=STATUS_URL) is None) == (fields is None)


def test_attributes_of_the_stream_are_repeated_but_override_nothing() -> None:
    event = replace(EVENT, stream_attributes={"bidirectional": "true", "Event": "mine"})
    fields = status_fields(event, StatusNaming.CLASSIC, status_url=STATUS_URL)
    assert fields == CLASSIC | {"bidirectional": "true"}


@pytest.mark.parametrize("naming", list(StatusNaming))
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("url", [STATUS_URL, STATUS_URL + "?tenant=a%20b"])
def test_a_signed_callback_verifies_at_the_server(naming: StatusNaming, method: str, url: str) -> None:
    request = status_callback(EVENT, naming, url=url, method=method, auth_token="not-a-real-token", nonce="17")
    assert request is not None
    sent = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    query = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
    expected = status_fields(EVENT, naming, status_url=url, status_method=method)
    assert (sent if method == "POST" else without(query, "tenant")) == expected
    assert verify_headers("not-a-real-token", request.headers, method, request.url, sent)
    assert not verify_headers("another-token", request.headers, method, request.url, sent)


def test_without_a_token_nothing_is_signed() -> None:
    request = status_callback(EVENT, StatusNaming.CLASSIC, url=STATUS_URL)
    assert request is not None
    assert [name for name, _ in request.headers] == ["Content-Type"]


def test_a_moment_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="at_unix_s"):
        status_fields(replace(EVENT, at_unix_s=float("nan")), StatusNaming.GUIDE)
