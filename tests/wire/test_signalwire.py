"""What is peculiar to SignalWire's wire; its table is run by test_wire_tables.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from conformance_signalwire import APP, LETTER, PLATFORM, STARTED, STREAM, TABLE

from support.wire_table import last_json
from talkpath.engine import StreamSpec
from talkpath.engine.config import parse_codec
from talkpath.errors import ConfigError, LocalWireError
from talkpath.events import Cleared, Digit, Handshaken, MarkReached, Media, MediaFormat, SendDigits, StreamStopped
from talkpath.records import Outcome
from talkpath.wire.dialect import Role
from talkpath.wire.signalwire import SignalWireDialect, SignalWireOptions


def test_the_greeting_has_signalwires_version() -> None:
    greeting, start = TABLE.end(PLATFORM).send(STARTED, sequence=1)
    assert json.loads(greeting) == {"event": "connected", "protocol": "Call", "version": "0.2.0"}
    application = TABLE.end(APP)
    assert list(application.receive(greeting)) == [Handshaken("0.2.0")]
    assert list(application.receive(start)) == [STARTED]


def test_marks_come_back_without_a_number_and_a_clear_has_no_answer() -> None:
    platform = TABLE.started(PLATFORM)
    assert not platform.numbered(MarkReached("a"))
    assert list(platform.send(Cleared())) == []
    for outcome in Outcome:
        assert last_json(platform, MarkReached("a", outcome), 9) == {
            "event": "mark",
            "streamSid": STREAM,
            "mark": {"name": "a"},
        }


def test_digits_go_out_one_a_message() -> None:
    messages = [json.loads(text) for text in TABLE.started(APP).send(SendDigits("12a#"))]
    assert [message["dtmf"] for message in messages] == [{"digit": digit} for digit in "12A#"]
    assert {message["streamSid"] for message in messages} == {STREAM}


@pytest.mark.parametrize(
    ("digits", "says"),
    [("", "no digits"), ("1w2", "pauses are not on this wire"), ("12E", "0-9"), ("1" * 65, "at most 64")],
)
def test_digits_that_cannot_be_sent(digits: str, says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        TABLE.started(APP).send(SendDigits(digits))


def test_a_key_that_is_told_as_it_goes_down_has_no_duration_yet() -> None:
    assert last_json(TABLE.started(PLATFORM), Digit("5"))["dtmf"] == {"digit": "5", "duration": 0}


def test_to_the_letter_the_id_is_at_the_top_of_few_messages() -> None:
    platform = TABLE.started(PLATFORM, options=LETTER)
    for command, has_id in (
        (Media(b"", chunk=1, timestamp_ms=1), False),
        (Digit("1"), True),
        (MarkReached("a"), True),
        (StreamStopped(), False),
    ):
        assert ("streamSid" in last_json(platform, command)) == has_id
    assert last_json(platform, StreamStopped(), 4) == {"event": "stop", "sequenceNumber": "4"}


@pytest.mark.parametrize(
    ("codec", "media_format", "message_ms"),
    [
        ("", MediaFormat("PCMU", 8000), 20),
        ("PCMU", MediaFormat("PCMU", 8000), 20),
        ("pcmu@8000h", MediaFormat("PCMU", 8000), 20),
        ("PCMU@40i", MediaFormat("PCMU", 8000), 40),
        ("PCMA", MediaFormat("PCMA", 8000), 20),
        ("PCMA@8000h@60i", MediaFormat("PCMA", 8000), 60),
        ("L16", MediaFormat("L16", 8000), 20),
        ("L16@16000h", MediaFormat("L16", 16000), 20),
        ("L16@24000h@20i", MediaFormat("L16", 24000), 20),
        ("L16@24000h@40i", MediaFormat("L16", 24000), 40),
    ],
)
def test_codec_strings(codec: str, media_format: MediaFormat, message_ms: int) -> None:
    spec = StreamSpec(url="memory://a", wire="signalwire", codec=codec)
    assert (spec.media_format(), spec.message_ptime_ms()) == (media_format, message_ms)


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        ("G722", "codec G722 is one of the platforms', and not of this core; use PCMU, PCMA, L16"),
        ("OPUS@48000h@20i", "codec OPUS is one of the platforms'"),
        ("opus", "codec OPUS"),
        ("SPEEX", "not one of PCMU, PCMA, L16"),
        ("PCMU@16000h", "8000 Hz, not 16000"),
        ("L16@11025h", "11025 Hz is not supported"),
        ("L16@24000", "cannot be read"),
        ("L16@20i@24000h", "cannot be read"),
        ("PCMU@30i", "message_ms is 30"),
        ("@40i", "cannot be read"),
    ],
)
def test_codec_strings_that_name_no_stream_of_ours(codec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamSpec(url="memory://a", wire="signalwire", codec=codec)


def test_a_codec_string_is_read_whatever_its_case() -> None:
    assert parse_codec("l16@16000h@20i") == (MediaFormat("L16", 16000), 20)


def test_a_format_that_is_not_signalwires_is_refused() -> None:
    with pytest.raises(ConfigError, match="right is PCMU at 8000 Hz, PCMA at 8000 Hz, L16 at 8000 Hz"):
        SignalWireDialect(Role.PLATFORM, media_format=MediaFormat("L16", 44100))


def test_the_byte_order_is_an_option_of_both_ends() -> None:
    big = SignalWireOptions(big_endian=True)
    for role in Role:
        end = TABLE.started(role, MediaFormat("L16", 24000), big)
        assert end.media_format == MediaFormat("L16", 24000, big_endian=True)
        assert end.play_format == end.media_format
    assert not TABLE.started(APP, options=big).media_format.big_endian, "mu-law has none"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"account_id": "a b"}, "1 to 64 letters"),
        ({"account_id": "a" * 65}, "1 to 64 letters"),
        ({"custom_parameters": {"a": "b" * 499}}, "500 characters"),
        ({"options": object()}, "SignalWireOptions"),
        ({"realtime": True}, "for a bidirectional stream"),
        ({"realtime": "yes", "bidirectional": True}, "must be True or False"),
        ({"bidirectional": True, "track": "outbound_track"}, "inbound_track only"),
    ],
)
def test_what_a_signalwire_stream_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamSpec(url="memory://a", wire="signalwire", **options)


@pytest.mark.parametrize("wire", ["plivo", "twilio", "teler"])
def test_realtime_is_signalwires(wire: str) -> None:
    with pytest.raises(ConfigError, match=f"the {wire} wire has no realtime streams"):
        StreamSpec(url="memory://a", wire=wire, bidirectional=True, realtime=True)


def test_a_realtime_stream_keeps_a_second_at_most() -> None:
    spec = StreamSpec(url="memory://a", wire="signalwire", bidirectional=True, realtime=True)
    assert spec.bound_s() == 1
    assert replace(spec, realtime=False).bound_s() == spec.playout_s == 40


def test_ids_are_written_as_they_are() -> None:
    with pytest.raises(LocalWireError, match="call_id is not 1 to 64"):
        TABLE.end(PLATFORM).send(replace(STARTED, call_id="no id"))
