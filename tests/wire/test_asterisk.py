"""Asterisk's WebSocket channel: its table, in plain words and in JSON, run both ways; its limits; garbage."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
    BufferDepth,
    Clear,
    Cleared,
    Digit,
    HangUp,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    Pause,
    PlatformError,
    QueryBuffer,
    QueryStatistics,
    Resume,
    SendDigits,
    StreamStarted,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import Outcome
from talkpath.wire.asterisk import COMMAND_MAX, FORMATS, AsteriskDialect, AsteriskOptions
from talkpath.wire.dialect import Role

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
CHANNEL = "1755000000.42"
MULAW = MediaFormat("PCMU", 8000)
STARTED = StreamStarted(CHANNEL, CHANNEL, "media", ("inbound",), MULAW)
P, A = Role.PLATFORM, Role.APPLICATION
SOURCE = "Asterisk's chan_websocket.c, read 2026-11"
PAGE = "Asterisk's page on the WebSocket channel driver, 2026-05"


@dataclass(frozen=True)
class Row:
    """One message in both forms of control, read by the end `role`."""

    role: Role
    plain: str
    json: dict[str, Any]
    event: WireEvent
    source: str
    written: bool = True


ROWS = (
    Row(
        A,
        f"DTMF_END digit:5 channel_id:{CHANNEL}",
        {"event": "DTMF_END", "channel_id": CHANNEL, "digit": "5"},
        Digit("5"),
        SOURCE,
    ),
    Row(
        A,
        f"DTMF_END digit:# channel_id:{CHANNEL}",
        {"event": "DTMF_END", "channel_id": CHANNEL, "digit": "#"},
        Digit("#"),
        SOURCE,
    ),
    Row(
        A,
        "MEDIA_MARK_PROCESSED greeted",
        {"event": "MEDIA_MARK_PROCESSED", "channel_id": CHANNEL, "correlation_id": "greeted"},
        MarkReached("greeted"),
        SOURCE,
    ),
    Row(
        A,
        "MEDIA_MARK_PROCESSED a:b=c",
        {"event": "MEDIA_MARK_PROCESSED", "channel_id": CHANNEL, "correlation_id": "a:b=c"},
        MarkReached("a:b=c"),
        SOURCE,
    ),
    Row(
        A,
        f"STATUS channel_id:{CHANNEL} queue_length:7 xon_level:800 xoff_level:900 queue_full:false bulk_media:false"
        " media_paused:false",
        {"event": "STATUS", "channel_id": CHANNEL, "queue_length": 7, "xon_level": 800, "xoff_level": 900}
        | {"queue_full": False, "bulk_media": False, "media_paused": False},
        BufferDepth("audio", 7, 900),
        SOURCE,
    ),
    Row(
        A,
        f"ERROR channel_id:{CHANNEL} error_text:Unable to parse: it",
        {"event": "ERROR", "channel_id": CHANNEL, "error_text": "Unable to parse: it"},
        PlatformError("Unable to parse: it"),
        SOURCE,
    ),
    Row(
        P, "MARK_MEDIA greeted", {"command": "MARK_MEDIA", "correlation_id": "greeted"}, Mark("greeted"), SOURCE, False
    ),
    Row(
        P,
        "MARK_MEDIA two words",
        {"command": "MARK_MEDIA", "correlation_id": "two words"},
        Mark("two words"),
        SOURCE,
        False,
    ),
    Row(P, "MARK_MEDIA", {"command": "MARK_MEDIA"}, Mark(""), SOURCE, False),
    Row(P, "FLUSH_MEDIA", {"command": "FLUSH_MEDIA"}, Clear(), SOURCE, False),
    Row(P, "PAUSE_MEDIA", {"command": "PAUSE_MEDIA"}, Pause(), PAGE),
    Row(P, "CONTINUE_MEDIA", {"command": "CONTINUE_MEDIA"}, Resume(), PAGE),
    Row(P, "HANGUP", {"command": "HANGUP"}, HangUp(), PAGE),
    Row(P, "GET_STATUS", {"command": "GET_STATUS"}, QueryBuffer(), PAGE),
    Row(
        P,
        "REPORT_QUEUE_DRAINED",
        {"command": "REPORT_QUEUE_DRAINED"},
        UnknownMessage("REPORT_QUEUE_DRAINED"),
        PAGE,
        False,
    ),
)
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.role.value}: {row.plain[:30]}")
each_control = pytest.mark.parametrize("control", ["plain", "json"])


def ends(control: Any = "plain", media_format: MediaFormat = MULAW) -> dict[Role, AsteriskDialect]:
    """Both ends of a channel that has been started."""
    options = AsteriskOptions(control=control)
    pair = {role: AsteriskDialect(role, media_format=media_format, options=options) for role in Role}
    (text,) = pair[P].send(replace(STARTED, media_format=media_format))
    assert list(pair[A].receive(text)) == [replace(STARTED, media_format=media_format)]
    return pair


def texts(end: AsteriskDialect, command: WireEvent) -> list[str]:
    return [text.decode() for text in end.send(command)]


@each_row
def test_a_message_is_read_as_its_event_in_both_forms(row: Row) -> None:
    for text in (row.plain, f" {row.plain} \n", json.dumps(row.json), json.dumps(row.json | {"x_unknown": [1, None]})):
        assert list(ends()[row.role].receive(text)) == [row.event]
        assert list(ends("json")[row.role].receive(text.encode())) == [row.event]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.written], ids=lambda row: f"{row.role.value}: {row.plain[:30]}"
)
def test_an_event_is_written_as_its_message_in_both_forms(row: Row) -> None:
    other = P if row.role is A else A
    assert texts(ends()[other], row.event) == [row.plain]
    (text,) = texts(ends("json")[other], row.event)
    assert json.loads(text) == row.json


@each_control
def test_the_channel_is_started_as_asterisk_does(control: Any) -> None:
    platform = AsteriskDialect(P, media_format=MediaFormat("L16", 16000), options=AsteriskOptions(control=control))
    custom = {"lang": "en"} if control == "json" else {}
    started = StreamStarted(CHANNEL, CHANNEL, "media", ("inbound",), platform.media_format, custom)
    (text,) = texts(platform, started)
    if control == "plain":
        assert text == (
            f"MEDIA_START connection_id:media channel:WebSocket/media channel_id:{CHANNEL} format:slin16"
            " optimal_frame_size:640 ptime:20"
        )
    else:
        body = json.loads(text)
        assert (body["format"], body["optimal_frame_size"], body["ptime"]) == ("slin16", 640, 20)
        assert body["channel_variables"] == {"lang": "en"}
    assert list(AsteriskDialect(A).receive(text)) == [started]


@each_control
def test_a_line_greets_marks_and_clears_so_that_no_sample_is_lost(control: Any) -> None:
    line = ends(control)[A]

    def words(messages: list[str]) -> list[str]:
        if control == "plain":
            return messages
        return [" ".join(json.loads(text).values()) for text in messages]

    assert words([text.decode() for text in line.greeting()]) == ["ANSWER", "START_MEDIA_BUFFERING"]
    assert words(texts(line, Mark("m"))) == ["STOP_MEDIA_BUFFERING", "MARK_MEDIA m", "START_MEDIA_BUFFERING"]
    assert words(texts(line, Clear())) == ["FLUSH_MEDIA", "START_MEDIA_BUFFERING"]
    quiet = AsteriskDialect(A, options=AsteriskOptions(answer=False))
    assert [text.decode() for text in quiet.greeting()] == ["START_MEDIA_BUFFERING"]


@each_control
def test_the_end_of_a_buffering_is_told_where_it_has_a_name(control: Any) -> None:
    platform = ends(control)[P]
    assert list(platform.receive("START_MEDIA_BUFFERING")) == []
    assert list(platform.receive("STOP_MEDIA_BUFFERING")) == []
    (mark,) = platform.receive("STOP_MEDIA_BUFFERING here")
    assert isinstance(mark, Mark)
    (text,) = texts(platform, MarkReached(mark.name))
    if control == "plain":
        assert text == "MEDIA_BUFFERING_COMPLETED here"
    else:
        body = {"event": "MEDIA_BUFFERING_COMPLETED", "channel_id": CHANNEL, "correlation_id": "here"}
        assert json.loads(text) == body
    assert list(ends(control)[A].receive(text)) == []


def test_status_tells_what_was_commanded() -> None:
    platform = ends()[P]
    for commands, said in (
        (("START_MEDIA_BUFFERING", "PAUSE_MEDIA"), "bulk_media:true media_paused:true"),
        (("CONTINUE_MEDIA",), "bulk_media:true media_paused:false"),
        (("FLUSH_MEDIA",), "bulk_media:false media_paused:false"),
    ):
        for command in commands:
            platform.receive(command)
        assert texts(platform, BufferDepth("audio", 900, 900))[0].endswith(f"queue_full:true {said}")


def test_what_a_flush_drops_is_never_told() -> None:
    platform = ends()[P]
    for event in (Cleared(), MarkReached("m", Outcome.CLEARED), MarkReached("m", Outcome.LOST)):
        assert list(platform.send(event)) == []


def test_audio_is_the_payload_and_nothing_else() -> None:
    pair = ends(media_format=MediaFormat("L16", 16000))
    assert list(pair[A].send(Media(b"ab"))) == [b"ab"]
    assert list(pair[P].receive_binary(b"ab")) == [Media(b"ab", track="outbound")]
    assert list(pair[A].receive_binary(b"ab")) == [Media(b"ab", track="inbound")]
    assert list(pair[A].receive_binary(b"")) == []
    for raw, kind in ((b"abc", "odd_length"), (bytes(65_502), "too_long")):
        with pytest.raises(RemoteWireError) as refusal:
            pair[P].receive_binary(raw)
        assert refusal.value.kind == kind
    with pytest.raises(LocalWireError):
        pair[A].send(Media(b"abc"))
    with pytest.raises(RemoteWireError):
        AsteriskDialect(A).receive_binary(b"ab")


@pytest.mark.parametrize("media_format", [MediaFormat(*one) for one in FORMATS], ids=str)
def test_every_format_is_told(media_format: MediaFormat) -> None:
    assert ends(media_format=media_format)[A].media_format == media_format


def test_a_command_that_asterisk_would_ignore_is_never_written() -> None:
    for control in ("plain", "json"):
        line = ends(control)[A]
        for text in line.send(Mark("n" * 64)):
            assert len(text) <= COMMAND_MAX
        for name in ("n" * 65, "", "two words", "é", "a\n"):
            with pytest.raises(LocalWireError):
                line.send(Mark(name))
    with pytest.raises(LocalWireError, match="128"):
        ends("json")[A].send(Mark('"' * 64))
    assert len(list(ends()[A].send(Mark('"' * 64)))) == 3


@pytest.mark.parametrize(
    ("role", "text", "kind"),
    [
        (P, "MARK_MEDIA " + "n" * 128, "too_long"),
        (P, "", "bad_message"),
        (P, "mark_media a", "bad_message"),
        (P, b"MARK_MEDIA \xff", "bad_utf8"),
        (P, '{"command":', "bad_json"),
        (P, '{"event":"MARK_MEDIA"}', "missing_field"),
        (P, '{"command":"MARK_MEDIA","correlation_id":5}', "bad_type"),
        (A, "DTMF_END digit:12", "bad_value"),
        (A, "DTMF_END", "missing_field"),
        (A, "STATUS queue_length:x", "bad_type"),
        (A, f"MEDIA_START channel_id:{CHANNEL} format:ulaw", "bad_state"),
        (A, "X" * 70_000, "too_long"),
    ],
    ids=lambda one: repr(one)[:40],
)
def test_a_bad_message_is_refused_by_kind_and_the_channel_lives_on(role: Role, text: str | bytes, kind: str) -> None:
    pair = ends()
    with pytest.raises(RemoteWireError) as refusal:
        pair[role].receive(text)
    assert (refusal.value.kind, refusal.value.wire) == (kind, "asterisk")
    good = next(row for row in ROWS if row.role is role)
    assert list(pair[role].receive(good.plain)) == [good.event]


@pytest.mark.parametrize(
    "text",
    ["MEDIA_START format:opus channel_id:c", "MEDIA_START channel_id:c", "DTMF_END digit:5", '{"event":"start"}'],
)
def test_what_does_not_start_a_channel_is_refused(text: str) -> None:
    with pytest.raises(RemoteWireError):
        AsteriskDialect(A).receive(text)


def test_unknown_messages_are_named_and_flow_control_needs_no_answer() -> None:
    pair = ends()
    assert list(pair[A].receive("SOMETHING_NEW a:b")) == [UnknownMessage("SOMETHING_NEW")]
    assert list(pair[P].receive("SET_MEDIA_DIRECTION")) == [UnknownMessage("SET_MEDIA_DIRECTION")]
    for text in (
        "MEDIA_XOFF",
        "MEDIA_XON",
        "QUEUE_DRAINED",
        "MEDIA_BUFFERING_COMPLETED",
        "MEDIA_BUFFERING_COMPLETED a:b",
    ):
        assert list(pair[A].receive(text)) == []


def test_what_the_wire_has_no_word_for() -> None:
    pair = ends()
    for unknown in (SendDigits("1"), QueryStatistics()):
        with pytest.raises(NotOnThisWire):
            pair[A].send(unknown)
    for role, event in ((A, Digit("1")), (A, STARTED), (P, Clear()), (P, STARTED), (P, Mark("a"))):
        with pytest.raises(LocalWireError):
            pair[role].send(event)
    for options in ({"control": "xml"}, {"connection_id": "a b"}, {"max_message_bytes": 1}):
        with pytest.raises(ConfigError):
            AsteriskOptions(**options)
    with pytest.raises(ConfigError):
        AsteriskDialect(P, media_format=MediaFormat("OPUS", 48000))


@PROPERTY
@given(st.data())
def test_garbage_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    row = data.draw(st.sampled_from(ROWS))
    text = data.draw(st.sampled_from([row.plain, json.dumps(row.json)]))
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.text(max_size=6)) + text[data.draw(st.integers(at, len(text))) :]
    for end in (*ends().values(), AsteriskDialect(A)):
        for raw in (text, data.draw(st.binary(max_size=30))):
            try:
                assert len(end.receive(raw)) <= 1
            except RemoteWireError as error:
                assert error.kind.isidentifier()  # noqa: PT017 - no test of an exception
