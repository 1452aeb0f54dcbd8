"""Every text wire's table run both ways, and the rules that hold for all of them.

A wire has its table in ``conformance_<wire>.py`` and what is peculiar to it in ``test_<wire>.py``.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import conformance_signalwire
import conformance_teler
import conformance_twilio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.wire_table import OTHER, Refusal, Row, WireTable, damaged, json_values, last_json, strings_in
from talkpath._native import ffi, lib
from talkpath.errors import LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Handshaken,
    HangUp,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.testing.conformance import check_dialect, write_with_template
from talkpath.wire.dialect import Field, Role
from talkpath.wire.media_message import compile_shape, compile_template, read_media, write_media
from talkpath.wire.websocket import TEXT, frame

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
TABLES: tuple[WireTable, ...] = (conformance_twilio.TABLE, conformance_signalwire.TABLE, conformance_teler.TABLE)
APPLICATION, PLATFORM = Role.APPLICATION, Role.PLATFORM

of_each_wire = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.wire)
of_each_row = pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(table, row, id=f"{table.wire} {row.role.value}: {row.name}")
        for table in TABLES
        for row in table.rows
    ],
)
of_each_written_row = pytest.mark.parametrize(
    ("table", "row"),
    [
        pytest.param(table, row, id=f"{table.wire} {row.role.value}: {row.name}")
        for table in TABLES
        for row in table.rows
        if row.written
    ],
)
of_each_refusal = pytest.mark.parametrize(
    ("table", "refusal"),
    [
        pytest.param(table, refusal, id=f"{table.wire} {refusal.role.value}: {refusal.name}")
        for table in TABLES
        for refusal in table.refusals
    ],
)


@of_each_row
def test_a_message_is_read_as_its_event(table: WireTable, row: Row) -> None:
    for text in (row.text, row.text.encode(), bytearray(row.text.encode()), memoryview(row.text.encode())):
        assert list(table.end_for(row, row.role).receive(text)) == [row.event]


@of_each_written_row
def test_an_event_is_written_as_its_message(table: WireTable, row: Row) -> None:
    sender = table.end_for(row, OTHER[row.role])
    assert last_json(sender, row.event, row.sequence) == json.loads(row.text)
    numbered = sender.numbered(row.event)
    if not isinstance(row.event, Handshaken):
        assert numbered == (last_json(table.end_for(row, OTHER[row.role]), row.event, 77) != json.loads(row.text))


@of_each_row
def test_unknown_fields_white_space_and_order_change_nothing(table: WireTable, row: Row) -> None:
    message = json.loads(row.text)
    for value in [message, *message.values()]:
        if isinstance(value, dict):
            value["newField"] = {"deep": [1, 2.5, None, "é"]}
    text = json.dumps(dict(reversed(message.items())), indent=2)
    assert list(table.end_for(row, row.role).receive(text)) == [row.event]


@of_each_refusal
def test_a_bad_message_is_refused_by_kind_and_the_stream_lives_on(table: WireTable, refusal: Refusal) -> None:
    end = table.end_for(refusal, refusal.role)
    with pytest.raises(RemoteWireError) as caught:
        end.receive(refusal.text)
    assert caught.value.kind == refusal.kind
    assert caught.value.wire == table.wire
    assert len(str(caught.value)) < 200
    if refusal.before_start:
        with pytest.raises(LocalWireError, match="before its start"):
            end.media_template("inbound")
    elif refusal.media_format is None:
        good = table.good(refusal.role)
        assert list(end.receive(good.text)) == [good.event]


@of_each_wire
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hello", "bad_json"),
        ('{"KEY":"x","y":NaN}', "bad_json"),
        ('{"KEY":"x","y":' + "7" * 5000 + "}", "bad_json"),
        ("[" * 100_000, "bad_json"),
        (b"\xff\xd8\xff\xe0", "bad_utf8"),
        ("[1]", "bad_type"),
        ("{}", "missing_field"),
        ('{"KEY":1}', "bad_type"),
        ('{"KEY":"x","y":"' + "a" * (1 << 21) + '"}', "too_long"),
    ],
    ids=["text", "NaN", "endless number", "nested", "binary", "list", "empty", "number", "long"],
)
@pytest.mark.parametrize("role", list(Role))
def test_what_is_no_message_of_any_wire_is_refused(table: WireTable, role: Role, text: str | bytes, kind: str) -> None:
    if isinstance(text, str):
        text = text.replace("KEY", table.event_key)
    for end in (table.end(role), table.started(role)):
        with pytest.raises(RemoteWireError) as caught:
            end.receive(text)
        assert caught.value.kind == kind
        with pytest.raises(RemoteWireError) as caught:
            end.receive_binary(b"\0\1")
        assert caught.value.kind == "binary"


@of_each_wire
def test_an_event_of_tomorrow_is_named_and_safe_to_log(table: WireTable) -> None:
    for role in Role:
        (event,) = table.started(role).receive(json.dumps({table.event_key: "a\n\x1b[31m" + "b" * 100 + "\ud800"}))
        assert isinstance(event, UnknownMessage)
        assert event.kind.isprintable()
        assert len(event.kind) == 64


@of_each_wire
def test_the_common_rules_hold(table: WireTable) -> None:
    for stream in (table.stream, *table.streams):
        check_dialect(partial(table.end, media_format=stream.media_format), stream, payload=bytes(range(160)))


@of_each_wire
@pytest.mark.parametrize("command", [HangUp(), StreamStopped()])
def test_an_application_ends_by_closing(table: WireTable, command: WireEvent) -> None:
    with pytest.raises(NotOnThisWire, match=rf"{table.wire} wire .* closing the WebSocket"):
        table.started(APPLICATION).send(command)


@of_each_wire
@pytest.mark.parametrize(
    ("role", "command"),
    [
        (PLATFORM, Mark("a")),
        (PLATFORM, Clear()),
        (PLATFORM, UnknownMessage("x")),
        (APPLICATION, None),
        (APPLICATION, Cleared()),
        (APPLICATION, MarkReached("a")),
        (APPLICATION, Digit("1")),
        (APPLICATION, Handshaken("1")),
    ],
)
def test_what_is_the_other_ends_to_send_is_refused(table: WireTable, role: Role, command: WireEvent | None) -> None:
    with pytest.raises(LocalWireError, match="this end is the"):
        table.started(role).send(command or table.stream)


@of_each_wire
def test_nothing_is_said_of_a_stream_before_its_start_and_it_starts_once(table: WireTable) -> None:
    reports: tuple[WireEvent, ...] = (
        Media(b"", chunk=1, timestamp_ms=1),
        Digit("1"),
        MarkReached("a"),
        StreamStopped(),
    )
    commands: tuple[WireEvent, ...] = (Media(b""), Clear())
    for report in reports:
        with contextlib.suppress(LocalWireError):
            assert list(table.end(PLATFORM).send(report)) == []
    for command in commands:
        with pytest.raises(LocalWireError, match="before its start"):
            table.end(APPLICATION).send(command)
    for role in Role:
        with pytest.raises(LocalWireError, match="before its start"):
            table.end(role).media_template("inbound")
    with pytest.raises(LocalWireError, match="already"):
        table.started(PLATFORM).send(table.stream)


@of_each_wire
def test_half_a_sample_is_never_sent(table: WireTable) -> None:
    linear = [stream.media_format for stream in table.streams if stream.media_format.encoding == "L16"]
    for media_format in linear[:1]:
        for role in Role:
            with pytest.raises(LocalWireError, match="even number"):
                table.started(role, media_format).send(Media(b"\0", chunk=1, timestamp_ms=1))


@of_each_wire
def test_ids_and_tracks_that_cannot_be_written_are_refused(table: WireTable) -> None:
    changes: list[dict[str, Any]] = [
        {"stream_id": ""},
        {"stream_id": "a b"},
        {"call_id": "\ud800"},
        {"account_id": 'a"'},
        {"tracks": ()},
        {"tracks": ("both",)},
        {"media_format": MediaFormat("L16", 44100)},
        {"custom_parameters": {"a": "b" * 600}},
        {"custom_parameters": {"a": "\ud800"}},
        {"custom_parameters": {"": "b"}},
    ]
    for change in changes:
        end = table.end(PLATFORM)
        with pytest.raises(LocalWireError):
            end.send(replace(table.stream, **change))
        assert end.send(table.stream), "a start that was refused was none"


@of_each_wire
def test_the_media_template_fits_the_native_writer_at_its_largest(table: WireTable) -> None:
    for stream in (table.stream, *table.streams):
        for role in Role:
            end = table.started(role, stream.media_format)
            template = end.media_template("inbound")
            assert len(template.pieces) == len(template.fields) <= 8
            assert template.fields[-1] is Field.END
            assert sum(map(len, template.pieces)) <= 1280
            numbers = {"sequence": 2**63, "chunk": 2**63, "timestamp_ms": 2**63}
            text = write_with_template(template, b"\x01\x02", **numbers)
            json.loads(text)
            assert write_media(compile_template(template), b"\x01\x02", mask_key=None, **numbers) == frame(TEXT, text)


@of_each_wire
def test_the_native_reader_and_the_dialect_read_the_tables_media_alike(table: WireTable) -> None:
    n_native = 0
    for row in table.rows:
        end = table.end_for(row, row.role)
        shape = end.media_shape()
        if shape is None:
            continue
        fields = read_media(compile_shape(shape), row.text.encode())
        if fields is None:
            continue
        n_native += 1
        assert isinstance(row.event, Media), "the native reader takes media alone"
        assert fields.track in ("", row.event.track)
        assert (fields.timestamp, fields.chunk) == (row.event.timestamp_ms, row.event.chunk)
        assert fields.sequence == row.event.sequence
        decoded = ffi.new("uint8_t[]", len(row.event.payload) + 3)
        taken = lib.tp_base64_decode(decoded, len(decoded), fields.payload_text, len(fields.payload_text))
        assert bytes(ffi.buffer(decoded, taken)) == row.event.payload
    assert n_native >= 2, "what comes fifty times a second is read by the native reader"


@PROPERTY
@given(st.data())
def test_whatever_comes_in_is_an_event_or_a_refusal(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(TABLES), label="wire")
    role = data.draw(st.sampled_from(Role))
    text = data.draw(
        damaged(table) | damaged(table) | json_values.map(json.dumps) | st.binary(max_size=200) | st.text(max_size=200)
    )
    end = table.started(role) if data.draw(st.booleans()) else table.end(role)
    with contextlib.suppress(RemoteWireError):
        for event in end.receive(text):
            for value in strings_in(asdict(event)):
                assert value.encode().decode() == value


@PROPERTY
@given(
    st.sampled_from(TABLES),
    st.binary(max_size=700),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)
def test_audio_survives_the_wire(
    table: WireTable, payload: bytes, sequence: int, chunk: int, timestamp_ms: int
) -> None:
    platform, application = table.started(PLATFORM), table.started(APPLICATION)
    payload = payload[: len(payload) // 2 * 2]
    (text,) = platform.send(Media(payload, "inbound", None, sequence, chunk, timestamp_ms), sequence=sequence)
    (heard,) = application.receive(text)
    assert isinstance(heard, Media)
    assert (heard.payload, heard.track, heard.sequence) == (payload, "inbound", sequence)
    (text,) = application.send(Media(payload, chunk=chunk))
    (played,) = platform.receive(text)
    assert isinstance(played, Media)
    assert played.payload == payload


@PROPERTY
@given(
    st.sampled_from([table for table in TABLES if table.end(PLATFORM).has_marks]),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=256),
)
def test_a_checkpoints_name_comes_back_as_it_was(table: WireTable, name: str) -> None:
    platform, application = table.started(PLATFORM), table.started(APPLICATION)
    (text,) = application.send(Mark(name))
    assert list(platform.receive(text)) == [Mark(name)]
    (text,) = platform.send(MarkReached(name), sequence=3)
    (event,) = application.receive(text)
    assert isinstance(event, MarkReached)
    assert event.name == name
