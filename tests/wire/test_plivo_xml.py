"""The documents that ask for a stream: read, refused in words, and written back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.events import MediaFormat
from talkpath.wire.plivo_xml import PlivoStreamRequest, read_create_body, read_response, write_response

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
URL = "wss://app.example/media?x=1"


def stream(attributes: str, url: str = URL) -> str:
    return f"<Response><Stream {attributes}>{url}</Stream></Response>"


def test_the_documented_defaults() -> None:
    # Plivo's XML page, read 2026-11.
    request = read_response(stream(""))
    assert request == PlivoStreamRequest(
        url=URL,
        bidirectional=False,
        audio_track="inbound",
        stream_timeout_s=86400,
        status_callback_url="",
        status_callback_method="POST",
        media_format=MediaFormat("L16", 8000),
        extra_headers={},
        keep_call_alive=False,
        noise_cancellation=False,
        noise_cancellation_level=85,
    )
    assert request.tracks == ("inbound",)


EVERYTHING = PlivoStreamRequest(
    url="wss://app.example/media?x=1&y=2",
    bidirectional=True,
    stream_timeout_s=60,
    status_callback_url="https://app.example/status?a=1&b=2",
    status_callback_method="GET",
    media_format=MediaFormat("L16", 16000),
    extra_headers={"tenant": "acme", "room": "7"},
    keep_call_alive=True,
    noise_cancellation=True,
    noise_cancellation_level=60,
)


@pytest.mark.parametrize("separator", [",", ";"])
def test_every_attribute(separator: str) -> None:
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
    <Response>
      <!-- asks for everything -->
      <Stream bidirectional="true" audioTrack="inbound" streamTimeout="60" keepCallAlive="TRUE"
              statusCallbackUrl="https://app.example/status?a=1&amp;b=2" statusCallbackMethod="get"
              contentType="audio/x-l16;rate=16000" extraHeaders="tenant=acme{separator}room=7"
              noiseCancellation="true" noiseCancellationLevel="60">
        wss://app.example/media?x=1&amp;y=2
      </Stream>
    </Response>"""
    assert read_response(text) == EVERYTHING
    assert read_response(text.encode()) == EVERYTHING
    assert read_response(write_response(EVERYTHING, separator=separator)) == EVERYTHING


def test_the_rest_body() -> None:
    body: dict[str, Any] = {
        "service_url": EVERYTHING.url,
        "bidirectional": True,
        "audio_track": "inbound",
        "stream_timeout": 60,
        "status_callback_url": EVERYTHING.status_callback_url,
        "status_callback_method": "GET",
        "content_type": "audio/x-l16;rate=16000",
        "extra_headers": "tenant=acme,room=7",
        "noise_cancellation": True,
        "noise_cancellation_level": 60,
        "cx_bot": True,
    }
    expected = {**{name: getattr(EVERYTHING, name) for name in EVERYTHING.__slots__}, "keep_call_alive": False}
    assert read_create_body(json.dumps(body)) == PlivoStreamRequest(**expected)
    as_text = body | {
        "bidirectional": "true",
        "stream_timeout": "60",
        "extra_headers": {"tenant": "acme", "room": 7},
        "audio_track": None,
    }
    assert read_create_body(json.dumps(as_text).encode()) == PlivoStreamRequest(**expected)
    assert read_create_body(json.dumps({"service_url": URL})) == PlivoStreamRequest(URL)


def test_both_tracks() -> None:
    assert read_response(stream('audioTrack="both"')).tracks == ("inbound", "outbound")
    assert read_response(stream('audioTrack="outbound"')).tracks == ("outbound",)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ('audioTrack="inbound_track"', "audioTrack is not one of inbound, outbound, both"),
        ('bidirectional="true" audioTrack="both"', "audioTrack is both on a bidirectional stream; right is inbound"),
        ('bidirectional="true" audioTrack="outbound"', "right is inbound"),
        ('bidirectional="yes"', "bidirectional is not a boolean; right is true or false"),
        ('streamTimeout="0"', "streamTimeout is not positive"),
        ('streamTimeout="-5"', "streamTimeout is not a whole number"),
        ('streamTimeout="1.5"', "streamTimeout is not a whole number"),
        ('streamTimeout="9999999999999999999"', "streamTimeout is not a whole number"),
        ('statusCallbackUrl="app.example"', "statusCallbackUrl: .* right is for example https"),
        ('statusCallbackMethod="PUT"', "statusCallbackMethod is neither GET nor POST"),
        ('contentType="audio/mpeg"', "contentType is unknown; right is audio/x-mulaw;rate=8000"),
        ('contentType="audio/x-l16;rate=24000"', "contentType: .* right is PCMU at 8000 Hz, or L16"),
        ('contentType="audio/x-mulaw;rate=16000"', "contentType: .* right is PCMU at 8000"),
        (f'extraHeaders="a={"b" * 511}"', "extraHeaders has 513 bytes; right is at most 512"),
        ('noiseCancellationLevel="59"', "noiseCancellationLevel is 59; right is a whole number from 60 to 100"),
        ('noiseCancellationLevel="101"', "from 60 to 100"),
        ('bidirectionnal="true"', "there is no 'bidirectionnal'; right may be bidirectional"),
        ('audio_track="inbound"', "right may be audioTrack"),
    ],
)
def test_a_bad_attribute_is_named_with_what_is_right(attributes: str, says: str) -> None:
    with pytest.raises(RemoteWireError, match=says):
        read_response(stream(attributes))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "https://app.example",
        "wss://",
        "wss://a b",
        "wss://é.example",
        "ws://a:0",
        "ws://a:x",
        "wss://" + "a" * 2048,
    ],
)
def test_a_url_that_cannot_be_streamed_to_is_refused(url: str) -> None:
    with pytest.raises(RemoteWireError, match="the stream's URL"):
        read_response(stream("", url))


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ("", "bad_xml"),
        ("hello", "bad_xml"),
        ("<Response>", "bad_xml"),
        ("<Response/>", "bad_value"),
        ("<Stream>wss://a</Stream>", "bad_value"),
        ("<Response><Speak>hi</Speak></Response>", "bad_value"),
        ("<Response><Speak>hi</Speak><Stream>wss://a</Stream></Response>", "bad_value"),
        ("<Response><Stream><Url>wss://a</Url></Stream></Response>", "bad_value"),
        ("<Response>" + "<a>" * 20, "bad_xml"),
        ("<Response><Stream>&nbsp;</Stream></Response>", "bad_xml"),
        ('<!DOCTYPE Response [<!ENTITY a "wss://a">]><Response><Stream>&a;</Stream></Response>', "bad_xml"),
        ('<!DOCTYPE Response SYSTEM "file:///etc/hostname"><Response/>', "bad_xml"),
        ("<Response>" + " " * 102_400 + "</Response>", "too_long"),
        (b'<?xml version="1.0" encoding="no-such"?><Response/>', "bad_xml"),
        (b"\xff\xff\xff", "bad_xml"),
        ("<Response>\ud800</Response>", "bad_xml"),
    ],
)
def test_what_is_no_such_document_is_refused(document: str | bytes, kind: str) -> None:
    with pytest.raises(RemoteWireError) as refusal:
        read_response(document)
    assert refusal.value.kind == kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("", "bad_json"),
        ("[]", "bad_type"),
        ("{}", "missing_field"),
        (b"\xff", "bad_utf8"),
        ('{"service_url":5}', "bad_type"),
        ('{"service_url":"wss://a","keepCallAlive":true}', "unknown_field"),
        ('{"service_url":"wss://a","audio_track":5}', "bad_type"),
        ('{"service_url":"wss://a","audio_track":"\\ud800"}', "bad_value"),
        ('{"service_url":"wss://a","stream_timeout":true}', "bad_value"),
        ('{"service_url":"wss://a","stream_timeout":' + "1" * 30 + "}", "bad_value"),
        ('{"service_url":"wss://a","extra_headers":"a=' + "b" * 600 + '"}', "too_long"),
        ('{"service_url":"wss://a","extra_headers":{"a":"' + "b" * 600 + '"}}', "bad_value"),
        ("[" * 100_000, "bad_json"),
        (" " * 200_000, "too_long"),
    ],
)
def test_what_is_no_create_body_is_refused(body: str | bytes, kind: str) -> None:
    with pytest.raises(RemoteWireError) as refusal:
        read_create_body(body)
    assert refusal.value.kind == kind


def test_parameters_that_the_attribute_cannot_hold_are_not_written() -> None:
    for parameters in ({"a": "b,c"}, {"a=b": "c"}, {"a": "b;c"}):
        with pytest.raises(ConfigError, match="which separate"):
            write_response(PlivoStreamRequest(URL, extra_headers=parameters))
    with pytest.raises(ConfigError, match="is , or ;"):
        write_response(EVERYTHING, separator="|")


def test_a_request_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="extraHeaders: custom parameters take"):
        PlivoStreamRequest(URL, extra_headers={"a": "b" * 600})


plain = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
requests = st.builds(
    PlivoStreamRequest,
    url=st.builds(lambda path: f"wss://app.example/{path}", plain) | st.just("ws://a.example?b=1&c=<"),
    audio_track=st.sampled_from(["inbound", "outbound", "both"]),
    stream_timeout_s=st.integers(1, 10**9),
    status_callback_url=st.sampled_from(["", "https://app.example/s?a=1&b='2'"]),
    status_callback_method=st.sampled_from(["GET", "POST"]),
    media_format=st.sampled_from([MediaFormat("PCMU", 8000), MediaFormat("L16", 8000), MediaFormat("L16", 16000)]),
    extra_headers=st.dictionaries(plain, plain, max_size=5),
    keep_call_alive=st.booleans(),
    noise_cancellation=st.booleans(),
    noise_cancellation_level=st.integers(60, 100),
)


@PROPERTY
@given(requests, st.sampled_from([",", ";"]))
def test_what_is_written_is_read_back(request: PlivoStreamRequest, separator: str) -> None:
    assert read_response(write_response(request, separator=separator)) == request


xml_pieces = st.lists(
    st.sampled_from(
        ["<Response>", "</Response>", "<Stream ", "<Stream>", "</Stream>", ">", "/>", "wss://a.example", "<!--", "-->"]
    )
    | st.sampled_from(['bidirectional="true" ', 'contentType="', '"', "&amp;", "&#0;", "<![CDATA[", "]]>", "<?x ?>"])
    | st.text(max_size=5),
    max_size=10,
).map("".join)


@PROPERTY
@given(xml_pieces | st.binary(max_size=60))
def test_any_document_is_a_request_or_a_refusal(document: str | bytes) -> None:
    with contextlib.suppress(RemoteWireError):
        read_response(document)


@PROPERTY
@given(
    st.dictionaries(
        st.sampled_from(["service_url", "bidirectional", "stream_timeout", "content_type", "extra_headers", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dictionaries(st.text(), st.text()),
    )
)
def test_any_body_is_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    with contextlib.suppress(RemoteWireError):
        read_create_body(json.dumps({"service_url": URL, **body}))
