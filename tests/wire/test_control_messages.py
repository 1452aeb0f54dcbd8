"""The messages between a front and its workers: round trips however the stream is cut, and nothing else gets in."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.wire.control import (
    MAX_MESSAGE_BYTES,
    MAX_SOCKETS,
    Decoder,
    Drain,
    Draining,
    Ended,
    HangUp,
    Hello,
    Message,
    Place,
    Ready,
    Refusing,
    Report,
    Serving,
    Taken,
    decode,
    encode,
)

ints = st.integers(0, 2**63 - 1)
times = st.floats(0, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(texts, plain, max_size=4)
hellos = st.builds(
    Hello, ints, ints, texts, mappings, st.lists(texts), st.integers(-1, 99), ints, ints, *[times] * 5, texts
)
messages: st.SearchStrategy[Message] = st.one_of(
    hellos,
    st.builds(Place, ints, mappings, st.integers(0, MAX_SOCKETS)),
    st.builds(HangUp, ints, texts),
    st.builds(Drain, times, texts),
    st.builds(Serving),
    st.builds(Refusing, texts),
    st.builds(Taken, ints),
    st.builds(Ready, ints, mappings),
    st.builds(Ended, ints, texts, texts, ints, mappings),
    st.builds(Report, ints, times, mappings),
    st.builds(Draining),
)


def read_all(decoder: Decoder) -> list[Message]:
    read = []
    while (message := decoder.next_message()) is not None:
        read.append(message)
    return read


@given(st.lists(messages, max_size=4), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_what_is_written_is_read_however_the_stream_is_cut(written: list[Message], cuts: list[int]) -> None:
    stream = b"".join(map(encode, written))
    decoder = Decoder()
    read: list[Message] = []
    at = turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        decoder.receive(stream[at : at + step])
        read += read_all(decoder)
        at, turn = at + step, turn + 1
    assert read == written
    assert not decoder.amid


@given(st.binary(max_size=200) | messages.map(encode).flatmap(lambda whole: st.just(whole[:-1] + b"\xc1" + whole)))
def test_no_bytes_raise_anything_but_the_one_error(data: bytes) -> None:
    decoder = Decoder()
    decoder.receive(data)
    try:
        read_all(decoder)
    except RemoteWireError:
        with pytest.raises(RemoteWireError):
            decoder.next_message()
        decoder.receive(encode(Serving()))
        with pytest.raises(RemoteWireError):
            decoder.next_message()


@given(mappings)
def test_no_mapping_raises_anything_but_the_one_error(body: dict[str, Any]) -> None:
    for kind in ("place", "hello", "report", "serving"):
        try:
            data = msgpack.packb(body | {"kind": kind})
        except (ValueError, OverflowError):
            return
        with contextlib.suppress(RemoteWireError):
            decode(data)


WRONG: list[tuple[dict[Any, Any], str]] = [
    ({}, "unknown kind"),
    ({"kind": "pardon"}, "unknown kind"),
    ({"kind": ["place"]}, "unknown kind"),
    ({"kind": "taken"}, "other fields"),
    ({"kind": "taken", "number": 1, "more": 1}, "other fields"),
    ({"kind": "taken", "number": True}, "wrong type"),
    ({"kind": "taken", "number": "1"}, "wrong type"),
    ({"kind": "drain", "deadline_s": float("nan"), "reason": ""}, "wrong type"),
    ({"kind": "ready", "number": 1, "answer": []}, "wrong type"),
]


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_what_is_no_message_is_refused_in_words(body: dict[Any, Any], says: str) -> None:
    with pytest.raises(RemoteWireError, match=says):
        decode(msgpack.packb(body))


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 2**32 - 1])
def test_an_impossible_length_is_refused_before_anything_is_kept(length: int) -> None:
    decoder = Decoder()
    decoder.receive(length.to_bytes(4, "big"))
    with pytest.raises(RemoteWireError, match="impossible length"):
        decoder.next_message()
    decoder.receive(bytes(1000))
    assert not decoder.amid


@pytest.mark.parametrize("sockets", [-1, MAX_SOCKETS + 1])
def test_an_impossible_number_of_sockets_is_refused(sockets: int) -> None:
    decoder = Decoder()
    decoder.receive(encode(Place(1, {}, sockets)))
    with pytest.raises(RemoteWireError, match="number of sockets"):
        decoder.next_message()


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"when": datetime.date(2020, 1, 1)}, r"parameters\['when'\] is of type date"),
        ({"ids": [1, {2: 3}]}, r"parameters\['ids'\]\[1\] has a key of type int"),
        ({"blob": b"x" * MAX_MESSAGE_BYTES}, "at most 65536 travel"),
        ({"big": 2**64}, "OverflowError"),
        ({"half": "\ud800"}, "UnicodeEncodeError"),
        ({"extension": msgpack.ExtType(5, b"")}, "ExtType|type"),
        (deep(40), "nested more than 32 deep"),
    ],
)
def test_what_cannot_travel_is_refused_where_it_is_sent(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        encode(Place(1, parameters))
