"""AudioSocket's messages: a table read and written, splitting, what is refused."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
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
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.wire.audiosocket import RATES_HZ, AudioSocketDialect, AudioSocketOptions, Splitter
from talkpath.wire.dialect import Field, Role

PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)
CALL = "1f6b0d6e-2d0a-4a39-9b0e-7d5b0a6a9a11"
SLIN = MediaFormat("L16", 8000)
STARTED = StreamStarted(CALL, CALL, "", ("inbound",), SLIN)
OPENING = b"\x01\x00\x10" + uuid.UUID(CALL).bytes
P, A = Role.PLATFORM, Role.APPLICATION

# (read by, bytes, event, written by the other end)
ROWS: list[tuple[Role, bytes, WireEvent, bool]] = [
    (A, b"\x03\x00\x015", Digit("5"), True),
    (A, b"\x03\x00\x01#", Digit("#"), True),
    (A, b"\x03\x00\x01d", Digit("D"), False),
    (A, b"\x10\x00\x04\x01\x02\x03\x04", Media(b"\x01\x02\x03\x04", track="inbound"), True),
    (A, b"\x10\x00\x00", Media(b"", track="inbound"), False),
    (A, b"\x00\x00\x00", StreamStopped(), True),
    (A, b"\xff\x00\x01\x04", PlatformError("error 0x04"), False),
    (A, b"\xff\x00\x00", PlatformError("error"), False),
    (A, b"\x02\x00\x01x", UnknownMessage("kind_02"), False),
    (P, b"\x10\x00\x02\x01\x02", Media(b"\x01\x02", track="outbound"), True),
    (P, b"\x12\x00\x02\x01\x02", Media(b"\x01\x02", track="outbound", media_format=MediaFormat("L16", 16000)), False),
    (P, b"\x00\x00\x00", HangUp(), True),
    (P, b"\x03\x00\x015", UnknownMessage("kind_03"), False),
    (P, OPENING, UnknownMessage("kind_01"), False),
]


def ends(media_format: MediaFormat = SLIN) -> dict[Role, AudioSocketDialect]:
    """Both ends of a stream that has been started."""
    pair = {role: AudioSocketDialect(role, media_format=media_format) for role in Role}
    (opening,) = pair[P].send(STARTED)
    assert opening == OPENING
    assert list(pair[A].receive_binary(opening)) == [
        StreamStarted(CALL, CALL, "", ("inbound",), media_format),
    ]
    return pair


@pytest.mark.parametrize(("role", "raw", "event", "written"), ROWS, ids=lambda one: repr(one)[:40])
def test_a_message_is_read_as_its_event_and_written_from_it(
    role: Role, raw: bytes, event: WireEvent, written: bool
) -> None:
    pair = ends()
    assert list(pair[role].receive_binary(raw)) == [event]
    if written:
        assert list(pair[P if role is A else A].send(event)) == [raw]


@pytest.mark.parametrize(
    ("role", "raw", "kind"),
    [
        (A, b"", "bad_length"),
        (A, b"\x10\x00", "bad_length"),
        (A, b"\x10\x00\x02\x01", "bad_length"),
        (A, b"\x10\x00\x00\x01", "bad_length"),
        (A, b"\x10\x00\x01\x01", "odd_length"),
        (A, b"\x12\x00\x02\x01\x02", "other_format"),
        (A, b"\x11\x00\x02\x01\x02", "unknown_format"),
        (P, b"\x18\x00\x02\x01\x02", "unknown_format"),
        (P, b"\x10\x00\x01\x01", "odd_length"),
        (A, b"\x03\x00\x00", "bad_value"),
        (A, b"\x03\x00\x0212", "bad_value"),
        (A, b"\x03\x00\x01\xff", "bad_value"),
        (A, OPENING, "bad_state"),
    ],
    ids=repr,
)
def test_a_bad_message_is_refused_by_kind(role: Role, raw: bytes, kind: str) -> None:
    end = ends()[role]
    with pytest.raises(RemoteWireError) as refusal:
        end.receive_binary(raw)
    assert (refusal.value.kind, refusal.value.wire) == (kind, "audiosocket")
    with pytest.raises(RemoteWireError):
        end.receive("text")


def test_nothing_comes_before_the_uuid_which_has_sixteen_bytes() -> None:
    for raw, kind in (
        (b"\x10\x00\x02ab", "bad_state"),
        (b"\x00\x00\x00", "bad_state"),
        (b"\x01\x00\x01a", "bad_value"),
    ):
        with pytest.raises(RemoteWireError) as refusal:
            AudioSocketDialect(A).receive_binary(raw)
        assert refusal.value.kind == kind


def test_what_the_wire_has_no_word_for() -> None:
    pair = ends()
    for unsaid in (Cleared(), MarkReached("a"), PlatformError("e")):
        assert list(pair[P].send(unsaid)) == []
    assert list(pair[A].send(Clear())) == []
    for unknown in (Mark("a"), SendDigits("1"), Pause()):
        with pytest.raises(NotOnThisWire):
            pair[A].send(unknown)
    for role, event in (
        (A, Digit("1")),
        (A, STARTED),
        (P, STARTED),
        (P, Clear()),
        (P, Digit("12")),
        (A, Media(b"a")),
        (A, Media(b"")),
    ):
        with pytest.raises(LocalWireError):
            pair[role].send(event)
    with pytest.raises(LocalWireError):
        AudioSocketDialect(P).send(StreamStarted("no uuid", "c", "", ("inbound",), SLIN))


@pytest.mark.parametrize(("kind", "rate_hz"), list(RATES_HZ.items()))
def test_the_template_writes_the_kind_of_the_streams_rate(kind: int, rate_hz: int) -> None:
    if rate_hz not in (8000, 16000, 24000, 48000):
        with pytest.raises(ConfigError):
            AudioSocketDialect(P, media_format=MediaFormat("L16", rate_hz))
        with pytest.raises(ConfigError):
            AudioSocketOptions(sample_rate_hz=rate_hz)
        return
    end = ends(MediaFormat("L16", rate_hz))[P]
    template = end.media_template("inbound")
    assert template.pieces[0] == bytes((kind,))
    assert template.fields == (Field.LENGTH_16, Field.BYTES, Field.END)
    assert list(end.send(Media(b"ab"))) == [bytes((kind, 0, 2)) + b"ab"]


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8), st.data())
def test_any_split_gives_the_same_messages(messages: list[tuple[int, bytes]], data: st.DataObject) -> None:
    whole = [bytes((kind,)) + len(payload).to_bytes(2, "big") + payload for kind, payload in messages]
    stream, splitter, found = b"".join(whole), Splitter(), []
    while stream:
        n = data.draw(st.integers(1, len(stream)))
        found += splitter.receive(stream[:n])
        stream = stream[n:]
    assert found == whole
    assert splitter.is_between
    assert splitter.receive(b"\x10\x00\x02a") == []
    assert not splitter.is_between


@PROPERTY
@given(st.integers(0, 255), st.binary(max_size=30))
def test_garbage_is_read_or_refused_and_nothing_else(kind: int, payload: bytes) -> None:
    for end in (*ends().values(), AudioSocketDialect(A)):
        for raw in (payload, bytes((kind, 0, len(payload))) + payload):
            try:
                assert len(end.receive_binary(raw)) == 1
            except RemoteWireError as error:
                assert error.kind.isidentifier()  # noqa: PT017 - no test of an exception
