"""The native media message against json, base64 and wsproto."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto import Connection, ConnectionType
from wsproto.events import TextMessage

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError
from talkpath.wire.dialect import Field, MediaShape, MediaTemplate
from talkpath.wire.media_message import MediaFields, compile_shape, compile_template, read_media, write_media
from talkpath.wire.websocket import TEXT, frame

PCMU, L16LE, L16BE = 1, 3, 4

TEMPLATE = MediaTemplate(
    pieces=(
        b'{"event":"media","sequenceNumber":',
        b',"media":{"track":"inbound","timestamp":"',
        b'","chunk":',
        b',"payload":"',
        b'"},"extra_headers":"{}"}',
    ),
    fields=(Field.SEQUENCE, Field.TIMESTAMP_MS, Field.CHUNK, Field.PAYLOAD, Field.END),
)
NESTED = MediaShape(
    event_value="media",
    track_key="track",
    encoding_key="contentType",
    rate_key="sampleRate",
    timestamp_key="timestamp",
    chunk_key="chunk",
    sequence_key="sequenceNumber",
)
FLAT = MediaShape(event_value="audio", event_key="type", object_key="", payload_key="chunk", sequence_key="message_id")
SHAPES = {"nested": NESTED, "flat": FLAT}


def received_text(frames: bytes, masked: bool) -> str:
    """What wsproto makes of the frames."""
    peer = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    peer.receive_data(frames)
    events = list(peer.events())
    assert all(isinstance(event, TextMessage) for event in events)
    assert [event.message_finished for event in events] == [False] * (len(events) - 1) + [True]
    return "".join(event.data for event in events)


@pytest.mark.parametrize("mask_key", [None, b"\x00\x00\x00\x00", b"\x12\x34\x56\x78", b"\xff\x80\x7f\x01"])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 159, 160, 161, 320, 640, 3000, 49000, 60000])
def test_a_written_message_reads_back_by_wsproto_and_json(n: int, mask_key: bytes | None) -> None:
    payload = bytes((5 * i + n) & 0xFF for i in range(n))
    written = write_media(
        compile_template(TEMPLATE),
        payload,
        sequence=n,
        chunk=2**64 - 1,
        timestamp_ms=1_760_000_000_120,
        mask_key=mask_key,
    )
    assert json.loads(received_text(written, mask_key is not None)) == {
        "event": "media",
        "sequenceNumber": n,
        "media": {
            "track": "inbound",
            "timestamp": "1760000000120",
            "chunk": 2**64 - 1,
            "payload": base64.b64encode(payload).decode(),
        },
        "extra_headers": "{}",
    }


@given(
    st.binary(max_size=700),
    st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3),
    st.none() | st.binary(min_size=4, max_size=4),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_written_messages_have_the_text_that_was_described(
    payload: bytes, numbers: list[int], mask_key: bytes | None
) -> None:
    sequence, chunk, timestamp_ms = numbers
    template = compile_template(TEMPLATE)
    written = write_media(
        template, payload, sequence=sequence, chunk=chunk, timestamp_ms=timestamp_ms, mask_key=mask_key
    )
    gaps = [str(sequence).encode(), str(timestamp_ms).encode(), str(chunk).encode(), base64.b64encode(payload), b""]
    text = b"".join(piece + gap for piece, gap in zip(TEMPLATE.pieces, gaps, strict=True))
    assert written == frame(TEXT, text, mask_key)
    assert len(written) <= lib.tp_media_message_room(template, len(payload))


def test_without_room_nothing_is_written() -> None:
    template, payload = compile_template(TEMPLATE), bytes(160)
    numbers = ffi.new("tp_media_numbers *", (1, 2, 3))
    whole = write_media(template, payload, sequence=1, chunk=2, timestamp_ms=3, mask_key=b"mask")
    out = ffi.new("uint8_t[]", len(whole))
    for capacity in range(len(whole)):
        header_room = capacity >= 8
        ffi.memmove(out, b"\xee" * len(whole), len(whole))
        assert lib.tp_media_message_write(out, capacity, template, numbers, payload, 160, b"mask") == -2
        assert bytes(ffi.buffer(out))[8 if header_room else 0 :] == b"\xee" * (len(whole) - (8 if header_room else 0))
    assert lib.tp_media_message_write(out, len(whole), template, numbers, payload, 160, b"mask") == len(whole)
    assert bytes(ffi.buffer(out)) == whole


def mu_law_to_linear(octet: int) -> int:
    """ITU-T G.711 table 2a, by its construction."""
    sign, exponent, mantissa = octet >> 7, ~octet >> 4 & 7, ~octet & 15
    magnitude = ((mantissa * 2 + 33) << exponent) - 33
    return 4 * magnitude * (1 if sign else -1)


@pytest.mark.parametrize("mask_key", [None, b"\x9a\xbc\xde\xf0"])
def test_pcm_becomes_a_framed_message_and_pcm_again(mask_key: bytes | None) -> None:
    shape, template = compile_shape(NESTED), compile_template(TEMPLATE)
    # Without the code of negative zero, which no encoder gives.
    octets = bytes(octet for octet in range(256) if octet != 0x7F)
    linear = [mu_law_to_linear(octet) for octet in octets]
    for encoding, payload in (
        (PCMU, octets),
        (L16LE, struct.pack(f"<{len(linear)}h", *linear)),
    ):
        numbers = ffi.new("tp_media_numbers *", (7, 8, 9))
        out = ffi.new("uint8_t[]", lib.tp_media_message_room(template, len(payload)))
        key = ffi.NULL if mask_key is None else mask_key
        written = lib.tp_media_message_write_pcm(
            out, len(out), template, numbers, encoding, ffi.new("int16_t[]", linear), len(linear), key
        )
        expected = write_media(template, payload, sequence=7, chunk=8, timestamp_ms=9, mask_key=mask_key)
        assert bytes(ffi.buffer(out, written)) == expected
        pcm = ffi.new("int16_t[]", len(linear))
        assert lib.tp_media_message_read_pcm(pcm, len(pcm), shape, encoding, out, written) == len(linear)
        assert list(pcm) == linear


def read_pcm(framed: bytes, encoding: int = L16LE, capacity: int = 100) -> int:
    out = ffi.new("int16_t[]", 100)
    return int(
        lib.tp_media_message_read_pcm(
            out, capacity, compile_shape(NESTED), encoding, ffi.new("uint8_t[]", framed), len(framed)
        )
    )


def media_text(payload: str) -> bytes:
    return json.dumps({"event": "media", "media": {"payload": payload}}).encode()


@pytest.mark.parametrize(
    ("framed", "expected"),
    [
        (frame(TEXT, media_text("AAAA/w=="), b"mask"), 2),
        (frame(TEXT, media_text("AAAA/w==")), 2),
        (frame(TEXT, media_text("AAA*/w==")), -3),
        (frame(TEXT, media_text("AAAA/x==")), -3),
        (frame(TEXT, media_text("AAAA/")), -3),
        (frame(TEXT, media_text("AAAA")), -3),
        (frame(TEXT, media_text("A" * 400)), -2),
        (frame(TEXT, media_text("AAAA/w=="))[:-1], 0),
        (frame(TEXT, media_text("AAAA/w==")) + b"x", 0),
        (frame(TEXT, media_text("AAAA/w=="), fin=False), 0),
        (frame(2, media_text("AAAA/w==")), 0),
        (frame(TEXT, b'{"event":"stop"}', b"mask"), 0),
        (b"", 0),
        (b"\xc1\x00", 0),
    ],
)
def test_a_frame_that_is_not_surely_ours_gives_no_samples(framed: bytes, expected: int) -> None:
    assert read_pcm(framed) == expected


@pytest.mark.parametrize(
    ("pieces", "kinds"),
    [
        ((), ()),
        ((b"{", b"}"), (Field.PAYLOAD,)),
        ((b"{", b"}"), (Field.END, Field.PAYLOAD)),
        ((b"{", b"}"), (Field.PAYLOAD, Field.PAYLOAD)),
        ((b"{",), (Field.END,)),
        ((b"{", b",", b"}"), (Field.PAYLOAD, Field.PAYLOAD, Field.END)),
        ((b"{", b"x" * 1280), (Field.PAYLOAD, Field.END)),
        ((b"{",) * 9, (Field.PAYLOAD, *[Field.CHUNK] * 7, Field.END)),
    ],
)
def test_an_impossible_template_is_a_config_error(pieces: tuple[bytes, ...], kinds: tuple[Field, ...]) -> None:
    with pytest.raises(ConfigError):
        compile_template(MediaTemplate(pieces, kinds))


def test_a_template_of_every_allowed_size_is_executed() -> None:
    pieces = (b'{"a":"', b'","b":[', b",", b",", b",", b",", b"]", b"}" + b" " * 1000)
    kinds = (Field.PAYLOAD, *[Field.CHUNK] * 5, Field.END)
    with pytest.raises(ConfigError, match="one field per piece"):
        compile_template(MediaTemplate(pieces, kinds))
    merged = (*pieces[:6], pieces[6] + pieces[7])
    written = write_media(compile_template(MediaTemplate(merged, kinds)), b"abc", chunk=5)
    assert json.loads(received_text(written, masked=False)) == {"a": "YWJj", "b": [5] * 5}


def test_the_native_writer_refuses_a_template_that_would_reach_outside_itself() -> None:
    numbers, out = ffi.new("tp_media_numbers *"), ffi.new("uint8_t[]", 4000)
    for name, value in (("n_pieces", 9), ("n_pieces", 0), ("text_bytes", 1281), ("text_bytes", 5)):
        template = compile_template(TEMPLATE)
        setattr(template, name, value)
        assert lib.tp_media_message_write(out, 4000, template, numbers, b"", 0, ffi.NULL) == -1
    template = compile_template(TEMPLATE)
    template.lengths[0] = 60000
    assert lib.tp_media_message_write(out, 4000, template, numbers, b"", 0, ffi.NULL) == -1
    template = compile_template(TEMPLATE)
    template.fields[0] = 77
    assert lib.tp_media_message_write(out, 4000, template, numbers, b"", 0, ffi.NULL) == -1


@pytest.mark.parametrize(
    "change",
    [
        {"event_value": ""},
        {"event_key": ""},
        {"payload_key": ""},
        {"payload_key": "p" * 32},
        {"track_key": "träck"},
        {"track_key": 'tr"ck'},
        {"track_key": "tr\\ck"},
        {"track_key": "payload"},
        {"sequence_key": "event"},
        {"object_key": "event"},
        {"object_key": "", "payload_key": "event"},
    ],
)
def test_an_impossible_shape_is_a_config_error(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        compile_shape(replace(NESTED, **change))  # type: ignore[arg-type]


def test_one_name_may_stand_on_both_levels() -> None:
    shape = compile_shape(replace(NESTED, sequence_key="chunk"))
    read = read_media(shape, b'{"chunk":1,"event":"media","media":{"payload":"","chunk":2}}')
    assert read is not None
    assert (read.sequence, read.chunk) == (1, 2)


def test_reads_every_named_field_in_any_order_with_white_space() -> None:
    text = b"""\r\n\t {"streamId" : "x", "media" :{ "chunk": "12","payload":"AAAA",
        "sampleRate":"8000", "timestamp" :9007199254740992 ,"track":"outbound","contentType":"audio/x-mulaw",
        "more":null }, "sequenceNumber":0 , "flag" : true, "event":"media", "other": 17, "no":false} \n"""
    assert read_media(compile_shape(NESTED), text) == MediaFields(
        payload_text=b"AAAA",
        encoding="audio/x-mulaw",
        track="outbound",
        rate_hz=8000,
        timestamp=9007199254740992,
        chunk=12,
        sequence=0,
    )


def test_what_is_absent_is_said_to_be_absent() -> None:
    read = read_media(compile_shape(NESTED), b'{"event":"media","media":{"payload":""}}')
    assert read == MediaFields(b"", "", "", None, None, None, None)


def test_names_count_only_on_their_own_level() -> None:
    inner = b'{"payload":"AA==","event":"y","sequenceNumber":"z","media":0}'
    text = b'{"payload":1,"track":"x","event":"media","media":' + inner + b"}"
    read = read_media(compile_shape(NESTED), text)
    assert read is not None
    assert (read.payload_text, read.track, read.sequence) == (b"AA==", "", None)


PLAIN = '{"event":"media","media":{"payload":"AAAA"}}'


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "{", "}", "{}", "[]", "null", '"media"', "1", '{"event":"media"}', '{"media":{"payload":"AAAA"}}',
        '{"event":"stop","media":{"payload":"AAAA"}}', '{"event":"medi","media":{"payload":"AAAA"}}',
        '{"event":"media2","media":{"payload":"AAAA"}}', '{"event":"","media":{"payload":"AAAA"}}',
        '{"event":null,"media":{"payload":"AAAA"}}', '{"event":"media","media":{}}', '{"event":"media","media":[]}',
        '{"event":"media","media":"payload"}', '{"event":"media","media":{"payload":1}}',
        '{"event":"media","media":{"payload":null}}', '{"event":"media","media":{"payload":{}}}',
        '{"event":"media","media":{"payload":["AAAA"]}}', '{"event":"media","payload":"AAAA"}',
        PLAIN + "x", PLAIN + ",", PLAIN + "{}", PLAIN + "\0", "\0" + PLAIN, "\ufeff" + PLAIN, PLAIN[:-1], PLAIN[:-2],
        '{"event":"media","media":{"payload":"AAAA"},}', '{,"event":"media","media":{"payload":"AAAA"}}',
        '{"event":"media" "media":{"payload":"AAAA"}}', '{"event":"media";"media":{"payload":"AAAA"}}',
        '{"event":"media","media":{"payload":"AAAA",}}', '{"event"="media","media":{"payload":"AAAA"}}',
        "{event:'media',media:{payload:'AAAA'}}", '{"event":"media","media":{"payload":"AA\nAA"}}',
        '{"event":"media","media":{"payload":"AA\\u0041A"}}', '{"event":"media","media":{"payload":"AAAA"},"n\\"":"x"}',
        '{"event":"media","media":{"payload":"AAAA"},"n":"é"}', '{"é":1,"event":"media","media":{"payload":"AAAA"}}',
        '{"event":"media","event":"media","media":{"payload":"AAAA"}}',
        '{"event":"media","media":{"payload":"AAAA"},"media":{"payload":"AAAA"}}',
        '{"event":"media","media":{"payload":"AAAA"},"media":{}}',
        '{"event":"media","media":{"payload":"AAAA","payload":"AAAA"}}',
        '{"event":"media","media":{"payload":"AAAA","chunk":1,"chunk":1}}',
        '{"event":"media","media":{"payload":"AAAA","track":"inbound","track":"inbound"}}',
        '{"event":"media","media":{"payload":"AAAA","track":"both"}}',
        '{"event":"media","media":{"payload":"AAAA","track":""}}',
        '{"event":"media","media":{"payload":"AAAA","track":1}}',
        '{"event":"media","media":{"payload":"AAAA","contentType":8}}',
        '{"event":"media","media":{"payload":"AAAA","contentType":""}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":0}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":4294967296}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":8000.0}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":"08000"}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":"8000 "}}',
        '{"event":"media","media":{"payload":"AAAA","sampleRate":null}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":-1}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":01}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":1e3}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":"1e3"}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":""}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":"٣"}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":true}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":9007199254740993}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":"9007199254740993"}}',
        '{"event":"media","media":{"payload":"AAAA","timestamp":18446744073709551617}}',
        '{"event":"media","media":{"payload":"AAAA"},"x":{}}',
        '{"event":"media","media":{"payload":"AAAA"},"x":[]}',
        '{"event":"media","media":{"payload":"AAAA","x":{}}}',
        '{"event":"media","media":{"payload":"AAAA","media":{}}}',
        '{"event":"media","media":{"payload":"AAAA"},"x":1.5}', '{"event":"media","media":{"payload":"AAAA"},"x":-0}',
        '{"event":"media","media":{"payload":"AAAA"},"x":NaN}', '{"event":"media","media":{"payload":"AAAA"},"x":tru}',
        '{"event":"media","media":{"payload":"AAAA"},"x":truefalse}',
        '{"event":"media","media":{"payload":"AAAA"},"x":}',
        '{"event":"media","media":{"payload":"AAAA"},"x":1 2}', '{"event":"media","media":{"payload":"AAAA"},1:2}',
        "[" * 5000, '{"media":' * 5000,
    ],
)  # fmt: skip
def test_what_is_not_surely_the_known_message_is_left_to_the_ordinary_parser(text: str) -> None:
    assert read_media(compile_shape(NESTED), text.encode()) is None


def test_never_looks_at_what_follows_the_message() -> None:
    shape, out = compile_shape(NESTED), ffi.new("tp_media_fields *")
    text = PLAIN.encode()
    for n in range(len(text)):
        assert lib.tp_media_message_read(out, shape, text, n) == 0
    assert lib.tp_media_message_read(out, shape, text + b"garbage", len(text)) == 1


def test_a_special_byte_is_seen_wherever_it_stands_in_a_long_string() -> None:
    shape = compile_shape(NESTED)
    for n in (1, 7, 8, 9, 15, 16, 17, 31, 33, 70):
        for at in range(n):
            for special in b"\x00\x1f\\\x80\xff\n":
                payload = bytes(special if i == at else ord("A") for i in range(n))
                assert read_media(shape, b'{"event":"media","media":{"payload":"' + payload + b'"}}') is None
        payload = bytes(32 + i % 2 for i in range(n - 1)) + b"\x7f"
        read = read_media(shape, b'{"event":"media","media":{"payload":"' + payload + b'"}}')
        assert read is not None
        assert read.payload_text == payload


# Parity: whatever the scanner takes, json.loads reads the same.


class Pairs(list[tuple[str, Any]]):
    """An object as json reads it, before one of two equal keys wins."""

    def named(self, names: set[str]) -> dict[str, Any]:
        found = [(key, value) for key, value in self if key in names - {""}]
        assert len(found) == len(dict(found)), "a named key stands twice"
        return dict(found)


def number(value: Any) -> int | None:
    if value is None:
        return None
    assert type(value) is int or type(value) is str
    assert 0 <= int(value) <= 2**53
    assert str(int(value)) == str(value)
    return int(value)


def reference(shape: MediaShape, text: bytes) -> MediaFields:
    """The fields by the ordinary parser; fails on anything the native reader must not have taken."""
    message = json.loads(text, object_pairs_hook=Pairs)
    inner_names = {shape.payload_key, shape.track_key, shape.encoding_key, shape.rate_key, shape.timestamp_key}
    inner_names |= {shape.chunk_key}
    outer_names = {shape.event_key, shape.object_key, shape.sequence_key}
    outer = message.named(outer_names if shape.object_key else outer_names | inner_names)
    inner = outer[shape.object_key].named(inner_names) if shape.object_key else outer
    assert outer[shape.event_key] == shape.event_value
    assert inner.get(shape.track_key, "inbound") in ("inbound", "outbound")
    return MediaFields(
        payload_text=inner[shape.payload_key].encode(),
        encoding=inner.get(shape.encoding_key, ""),
        track=inner.get(shape.track_key, ""),
        rate_hz=number(inner.get(shape.rate_key)),
        timestamp=number(inner.get(shape.timestamp_key)),
        chunk=number(inner.get(shape.chunk_key)),
        sequence=number(outer.get(shape.sequence_key)),
    )


PLAIN_STRINGS = st.text(st.characters(min_codepoint=32, max_codepoint=127, exclude_characters='"\\'), max_size=40)
NUMBERS = st.integers(0, 2**53)
NUMBERS_EITHER_WAY = NUMBERS.map(str) | NUMBERS.map(lambda number: f'"{number}"')
QUOTED = PLAIN_STRINGS.map(lambda string: f'"{string}"')
ANY_SCALAR = QUOTED | NUMBERS.map(str) | st.sampled_from(["true", "false", "null"])
SPACE = st.text(" \t\r\n", max_size=2)
UNKNOWN = st.tuples(PLAIN_STRINGS.map(lambda string: f"x{string}"), ANY_SCALAR)


ODD_NUMBERS = st.sampled_from(
    [
        "", "0", "00", "007", "-0", "-1", "1.0", "1e3", "9007199254740993", "18446744073709551616", "null", "true",
        "[]", '"007"', '"1.0"', '"-1"', '" 1"', '"1 "', '""', '"9007199254740993"', '"1_0"',
    ]
)  # fmt: skip


@st.composite
def plain_messages(draw: st.DrawFn, shape: MediaShape, odd: bool = False) -> str:
    """Messages of the known shape, in any order; odd: one number that is none, or one pair twice."""

    def written(pairs: list[tuple[str, str]]) -> str:
        parts = [
            f'{draw(SPACE)}"{key}"{draw(SPACE)}:{draw(SPACE)}{value}{draw(SPACE)}'
            for key, value in draw(st.permutations(pairs))
        ]
        return "{" + ",".join(parts) + "}"

    named = {
        shape.track_key: st.sampled_from(['"inbound"', '"outbound"']),
        shape.encoding_key: PLAIN_STRINGS.filter(bool).map(lambda string: f'"{string}"'),
        shape.rate_key: st.sampled_from(["8000", '"16000"', "24000"]),
        shape.timestamp_key: NUMBERS_EITHER_WAY,
        shape.chunk_key: NUMBERS_EITHER_WAY,
    }
    optional = [(key, draw(values)) for key, values in named.items() if key and draw(st.booleans())]
    if odd and draw(st.booleans()):
        odd, key = False, draw(st.sampled_from([shape.rate_key, shape.timestamp_key, shape.chunk_key]))
        optional = [pair for pair in optional if pair[0] != key] + [(key, draw(ODD_NUMBERS))]
    fields = [(shape.payload_key, draw(QUOTED)), *optional, *draw(st.lists(UNKNOWN, max_size=2))]
    outer = [(shape.event_key, f'"{shape.event_value}"'), *draw(st.lists(UNKNOWN, max_size=2))]
    if shape.sequence_key and draw(st.booleans()):
        outer.append((shape.sequence_key, draw(NUMBERS_EITHER_WAY)))
    if odd:
        where = draw(st.sampled_from([outer, fields]))
        where.append(draw(st.sampled_from(where)))
    outer += [(shape.object_key, written(fields))] if shape.object_key else fields
    return draw(SPACE) + written(outer) + draw(SPACE)


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_takes_every_plain_message_and_reads_it_as_json_does(name: str, data: st.DataObject) -> None:
    shape = SHAPES[name]
    text = data.draw(plain_messages(shape)).encode()
    read = read_media(compile_shape(shape), text)
    assert read is not None
    assert read == reference(shape, text)


TOKENS = [
    b'"', b"\\", b"\\u0041", b"{", b"}", b"[", b"]", b",", b":", b" ", b"0", b"1", b".", b"e", b"-", b"null", b"true",
    b'"event":"media",', b'"media":{},', b'"payload":"AAAA",', b'"chunk":1,', b'"track":"inbound"', b"\x00", b"\x1f",
    b"\x7f", b"\x80", b"\xc3\xa9", b"9007199254740993", b"",
]  # fmt: skip


@st.composite
def broken_messages(draw: st.DrawFn, shape: MediaShape) -> bytes:
    """Nearly plain messages with a few pieces cut out, doubled, or put in."""
    text = draw(plain_messages(shape, odd=draw(st.booleans()))).encode()
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + draw(st.sampled_from([0, 1, 1, 2, 12])))))
        put_in = draw(st.sampled_from(TOKENS) | st.just(text[begin:end] * 2) | st.binary(max_size=2))
        text = text[:begin] + put_in + text[end:]
    return text


@pytest.mark.parametrize("name", SHAPES)
@given(data=st.data())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_what_it_takes_of_broken_messages_json_reads_the_same(name: str, data: st.DataObject) -> None:
    shape = SHAPES[name]
    text = data.draw(broken_messages(shape))
    read = read_media(compile_shape(shape), text)
    if read is not None:
        assert read == reference(shape, text)


# Hypothesis tries the bytes that stand in this file, too; of those that are messages the test above says what they are.
@given(st.binary(max_size=300).filter(lambda text: not text.startswith(b"{")))
@example(b"\x00" * 100)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_arbitrary_bytes_are_not_mine(text: bytes) -> None:
    assert read_media(compile_shape(NESTED), text) is None


@pytest.mark.parametrize("escaped", [r"\"", r"{\"tier\":\"gold\"}", r"\\ \/ \b\f\n\r\t", r"\u00e9\uD834\udd1e"])
def test_escapes_in_a_value_nobody_wants_are_skipped(escaped: str) -> None:
    text = f'{{"event":"media","extra_headers":"{escaped}","media":{{"x":"{escaped}","payload":"AAAA"}}}}'
    assert json.loads(text)["media"]["payload"] == "AAAA"
    fields = read_media(compile_shape(NESTED), text.encode())
    assert fields is not None
    assert fields.payload_text == b"AAAA"


@pytest.mark.parametrize("broken", [r"\q", r"\u12g4", r"\u123", "\\"])
def test_broken_escapes_are_left_to_the_ordinary_parser(broken: str) -> None:
    text = f'{{"event":"media","extra_headers":"{broken}","media":{{"payload":"AAAA"}}}}'
    assert read_media(compile_shape(NESTED), text.encode()) is None
