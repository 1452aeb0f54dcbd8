"""What is peculiar to Twilio's wire; its table is run by test_wire_tables.py."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from conformance_twilio import ACCOUNT, APP, CALL, PLATFORM, STARTED, STREAM, TABLE

from support.wire_table import last_json
from talkpath.engine import StreamSpec
from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire
from talkpath.events import Cleared, Digit, Handshaken, Mark, MarkReached, Media, MediaFormat, SendDigits, StreamStopped
from talkpath.records import Outcome
from talkpath.wire.catalog import wire_named
from talkpath.wire.dialect import Role
from talkpath.wire.twilio import TwilioDialect, TwilioOptions, sid

TWILIO = wire_named("twilio")


def test_a_stream_begins_with_a_greeting_that_has_no_number_and_then_its_start() -> None:
    greeting, start = TABLE.end(PLATFORM).send(STARTED, sequence=1)
    assert json.loads(greeting) == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert json.loads(start)["sequenceNumber"] == "1"
    application = TABLE.end(APP)
    assert list(application.receive(greeting)) == [Handshaken("1.0.0")]
    assert list(application.receive(start)) == [STARTED]


def test_every_number_is_text_and_every_message_but_the_greeting_is_numbered() -> None:
    platform = TABLE.started(PLATFORM)
    for command in (Media(b"", chunk=4, timestamp_ms=60), Digit("1"), MarkReached("a"), StreamStopped()):
        message = last_json(platform, command, 12)
        assert message["sequenceNumber"] == "12"
        assert message["streamSid"] == STREAM
        assert platform.numbered(command)
    media = last_json(platform, Media(b"", chunk=4, timestamp_ms=60), 12)["media"]
    assert (media["chunk"], media["timestamp"]) == ("4", "60")


def test_a_clear_has_no_answer_and_marks_come_back_whatever_became_of_them() -> None:
    platform = TABLE.started(PLATFORM)
    assert list(platform.send(Cleared())) == []
    assert not platform.numbered(Cleared())
    assert platform.returns_marks_on_clear
    assert not platform.confirms_clear
    for outcome in Outcome:
        assert last_json(platform, MarkReached("a", outcome))["mark"] == {"name": "a"}
    (event,) = TABLE.started(APP).receive(platform.send(MarkReached("a", Outcome.CLEARED), sequence=3)[0])
    assert event == MarkReached("a", None), "nothing in it says whether it was played"


def test_digits_are_the_rest_apis() -> None:
    with pytest.raises(NotOnThisWire, match=r"twilio wire .* REST API, or playing their tones"):
        TABLE.started(APP).send(SendDigits("1"))


@pytest.mark.parametrize(
    ("role", "command", "says"),
    [
        (Role.PLATFORM, Media(b"\0", chunk=1), "a chunk number and a timestamp"),
        (Role.PLATFORM, Media(b"\0", track="left", chunk=1, timestamp_ms=0), "inbound or outbound"),
        (Role.PLATFORM, Media(b"\0\0", media_format=MediaFormat("L16", 8000), chunk=1, timestamp_ms=0), "format"),
        (Role.PLATFORM, Digit("12"), "one of 0-9"),
        (Role.PLATFORM, Digit("1", track="both"), "inbound or outbound"),
        (Role.PLATFORM, MarkReached(""), "1 to 256"),
        (Role.APPLICATION, Mark(""), "1 to 256"),
        (Role.APPLICATION, Mark("a" * 257), "1 to 256"),
        (Role.APPLICATION, Mark("\ud800"), "well-formed"),
        (Role.APPLICATION, Media(b"", media_format=MediaFormat("L16", 16000)), "the stream's format"),
    ],
)
def test_a_command_that_breaks_the_rules_is_ours_to_mend(role: Role, command: Any, says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        TABLE.started(role).send(command)


def test_a_track_is_one_of_two() -> None:
    with pytest.raises(LocalWireError, match="inbound or outbound"):
        TABLE.started(PLATFORM).media_template("both")


def test_ids_are_written_as_twilio_writes_them() -> None:
    whole = uuid.UUID("3f2a9c10-6b1d-4c57-9a1e-5d0f6f1c2b34")
    assert sid("CA", str(whole)) == f"CA{whole.hex}"
    assert sid("CA", CALL) == CALL
    assert sid("CA", ACCOUNT) is None
    assert sid("CA", "call-1") is None
    for change in ({"stream_id": "stream-1"}, {"call_id": STREAM}, {"account_id": "AC12"}):
        with pytest.raises(LocalWireError, match="32 hexadecimal digits"):
            TABLE.end(PLATFORM).send(replace(STARTED, **change))  # type: ignore[arg-type]
    message = last_json(TABLE.end(PLATFORM), replace(STARTED, call_id=str(whole)))
    assert message["start"]["callSid"] == f"CA{whole.hex}"


def test_a_stream_is_mu_law_and_nothing_else() -> None:
    for media_format in (MediaFormat("PCMA", 8000), MediaFormat("L16", 8000), MediaFormat("PCMU", 16000)):
        with pytest.raises(ConfigError, match="right is PCMU at 8000 Hz"):
            TwilioDialect(Role.PLATFORM, media_format=media_format)
    for codec in ("PCMA", "L16@16000h"):
        with pytest.raises(ConfigError, match="twilio wire"):
            StreamSpec(url="memory://a", wire="twilio", codec=codec)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"a": "b" * 499}, "has 500 characters with its name"),
        ({f"k{i}": "" for i in range(100)}, "at most 99"),
        ({"": "a"}, "have a name"),
        ({"a": "\ud800"}, "well-formed"),
        ({"a": 5}, "values that are text"),
    ],
)
def test_parameters_that_twilio_would_not_carry_are_refused_before_there_is_a_call(parameters: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamSpec(url="memory://a", wire="twilio", custom_parameters=parameters)
    StreamSpec(url="memory://a", wire="twilio", custom_parameters={"a": "b" * 498})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"account_id": "me"}, "AC and 32 hexadecimal digits"),
        ({"account_id": "a b", "options": TwilioOptions(require_sids=False)}, "1 to 64 letters"),
        ({"options": object()}, "TwilioOptions"),
        ({"message_ms": 400}, "20, 40, 60, 80, 100"),
        ({"codec": "PCMU@30i"}, "20, 40, 60, 80, 100"),
        ({"bidirectional": True, "track": "both_tracks"}, "inbound_track only"),
        ({"realtime": True, "bidirectional": True}, "the twilio wire has no realtime streams"),
        ({"status_scheme": "A"}, "status_scheme 'A' is not one of form"),
    ],
)
def test_what_a_twilio_stream_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamSpec(url="memory://a", wire="twilio", **options)


def test_absurd_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_message_bytes is 1;"):
        TwilioOptions(max_message_bytes=1)


def test_a_stream_of_twilios_is_known_by_its_id() -> None:
    assert TWILIO.claims(STARTED)
    assert not TWILIO.claims(replace(STARTED, stream_id="c1a5b9e0-2f3d-4a6b-8c7d-9e0f1a2b3c4d"))
    assert TWILIO.make_stream_id(bytes) == f"MZ{0:032x}"
