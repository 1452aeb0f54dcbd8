"""The native wire's messages: the page's examples, every form of a number, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.native_peer import take_apart
from talkpath.errors import ConfigError, LocalWireError, RemoteWireError
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    DigitsSent,
    Handshaken,
    HangUp,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    Pause,
    PlatformError,
    PlatformStatistics,
    QueryStatistics,
    Resume,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.path.pool import Pool
from talkpath.path.stream import Stream, StreamOptions
from talkpath.records import Outcome
from talkpath.wire.dialect import Role
from talkpath.wire.native import FORMATS, Kind, NativeDialect, NativeOptions

PAGE = (Path(__file__).parents[2] / "docs" / "wire-native.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^\| (platform|application) \| (.+?) \| `([0-9a-f ]+)` \|$", PAGE, re.MULTILINE)
MULAW = MediaFormat("PCMU", 8000)
STARTED = StreamStarted("s1", "c1", "acme", ("inbound",), MULAW, {"lang": "en"}, 8000)
PLATFORM, APPLICATION = Role.PLATFORM, Role.APPLICATION
PROPERTY = settings(max_examples=120, deadline=None, derandomize=True)
AUDIO = b"\xff\x7f\x7e\x7d"

EVENTS: dict[str, tuple[Role, WireEvent]] = {
    "START": (PLATFORM, STARTED),
    "AUDIO, inbound, samples 160 to 163": (PLATFORM, Media(AUDIO, track="inbound", sequence=2, position=160)),
    "AUDIO, its first 4 samples": (APPLICATION, Media(AUDIO, track="outbound", sequence=1, position=0)),
    "MARK `greeted`": (APPLICATION, Mark("greeted")),
    "MARK_REACHED `greeted`, PLAYED at sample 16320": (PLATFORM, MarkReached("greeted", Outcome.PLAYED, 16320)),
    "DIGIT 5 after 1.2 s": (PLATFORM, Digit("5", timestamp_ms=1200)),
    "PAUSE": (APPLICATION, Pause()),
    "RESUME": (APPLICATION, Resume()),
    "MARK `late`": (APPLICATION, Mark("late")),
    "CLEAR": (APPLICATION, Clear()),
    "MARK_REACHED `late`, CLEARED at sample 20000": (PLATFORM, MarkReached("late", Outcome.CLEARED, 20000)),
    "CLEARED": (PLATFORM, Cleared()),
    "SEND_DIGITS `12#`": (APPLICATION, SendDigits("12#")),
    "DIGITS_SENT, begun": (PLATFORM, DigitsSent(begun=True)),
    "DIGITS_SENT": (PLATFORM, DigitsSent()),
    "QUERY_STATISTICS": (APPLICATION, QueryStatistics()),
    "STATISTICS, one counter": (PLATFORM, PlatformStatistics({"messages_in": 1})),
    "ERROR `too_many_marks`": (PLATFORM, PlatformError("too_many_marks")),
    "HANG_UP": (APPLICATION, HangUp()),
    "STOP `completed`": (PLATFORM, StreamStopped("completed")),
}
"""What each example of the page is."""


def ends(media_format: MediaFormat = MULAW, **options: Any) -> tuple[NativeDialect, NativeDialect]:
    """Both ends of a stream that has been started."""
    platform = NativeDialect(PLATFORM, media_format=media_format, options=NativeOptions(**options))
    application = NativeDialect(APPLICATION)
    for message in platform.send(replace(STARTED, media_format=media_format), sequence=1):
        application.receive_binary(message)
    return platform, application


def message(header: list[Any], body: Any) -> bytes:
    return bytes(msgpack.packb(header) + msgpack.packb(body))


def test_the_page_has_an_example_of_every_kind() -> None:
    assert [name for _, name, _ in EXAMPLES] == list(EVENTS)
    assert {take_apart(bytes.fromhex(text))[1] for _, _, text in EXAMPLES} == set(Kind)


@pytest.mark.parametrize(("who", "name", "text"), EXAMPLES, ids=[name for _, name, _ in EXAMPLES])
def test_the_pages_examples_are_written_and_read_as_they_stand(who: str, name: str, text: str) -> None:
    platform, application = ends()
    role, event = EVENTS[name]
    assert role.value == who
    if name == "START":
        platform, application = NativeDialect(PLATFORM), NativeDialect(APPLICATION)
    raw = bytes.fromhex(text)
    sender, reader = (platform, application) if role is PLATFORM else (application, platform)
    assert list(sender.send(event, sequence=take_apart(raw)[2])) == [raw]
    assert list(reader.receive_binary(raw)) == [event]
    assert sender.numbered(event)


def test_nothing_is_written_for_what_other_wires_say_before_their_start() -> None:
    for end in ends():
        assert list(end.send(Handshaken())) == []
        assert not end.numbered(Handshaken())


def forms_of(number: int) -> list[bytes]:
    """Every msgpack encoding of a whole number from 0."""
    forms = [bytes((number,))] if number < 128 else []
    for code, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8), (0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if number < 1 << (8 * size - (code >= 0xD0)):
            forms.append(bytes((code,)) + number.to_bytes(size, "big"))
    return forms


@st.composite
def encoded_headers(draw: st.DrawFn, kind: int) -> tuple[bytes, int, int]:
    """A header with its numbers in any form; with its sequence and position."""
    sequence, position = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**63 - 1))
    track, more = draw(st.integers(1, 2)), draw(st.lists(st.integers() | st.text() | st.none(), max_size=11))
    more = [one if not isinstance(one, int) else one % 2**63 for one in more]
    n = 5 + len(more)
    heads = [b"\xdc" + n.to_bytes(2, "big"), b"\xdd" + n.to_bytes(4, "big")] + ([bytes((0x90 | n,))] if n < 16 else [])
    numbers = b"".join(draw(st.sampled_from(forms_of(one))) for one in (1, kind, sequence, position, track))
    return draw(st.sampled_from(heads)) + numbers + b"".join(msgpack.packb(one) for one in more), sequence, position


@PROPERTY
@given(encoded_headers(Kind.AUDIO), st.binary(min_size=1, max_size=40))
def test_a_number_is_read_alike_in_every_form(header: tuple[bytes, int, int], payload: bytes) -> None:
    platform, _ = ends()
    raw, sequence, position = header
    expected = Media(payload, track="outbound", sequence=sequence, position=position)
    assert list(platform.receive_binary(raw + payload)) == [expected]


@PROPERTY
@given(encoded_headers(Kind.AUDIO) | st.just((b"\x95\x01\x00\xce\0\0\0\x01\xcf" + bytes(8) + b"\x02", 1, 0)), st.data())
def test_what_the_native_reader_takes_the_parser_reads_alike(
    header: tuple[bytes, int, int], data: st.DataObject
) -> None:
    """In both roles: it takes a message whole, with the parser's payload, or leaves it."""
    raw = header[0] + data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:at] + bytes((data.draw(st.integers(0, 255)),)) + raw[at + 1 :]
    media_format = data.draw(st.sampled_from([MULAW, MediaFormat("L16", 8000)]))
    pair = ends(media_format)
    for reader in pair:
        templates = (reader.media_template("inbound"), None)
        stream = Stream(
            Pool(1 << 18),
            StreamOptions(
                role=reader.role,
                media_format=media_format,
                templates=templates,
                shape=reader.media_shape(),
                websocket=False,
            ),
        )
        if not stream.receive_message(raw, 0):
            continue
        (event,) = reader.receive_binary(raw)
        assert isinstance(event, Media)
        assert stream.counters()["samples_in"] * media_format.sample_bytes == len(event.payload) > 0
        stream.close(0)


NAMES = st.sampled_from(["name", "digits", "outcome", "counters", "tracks", "stream_id", "digit"])
VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats() | st.text(max_size=9) | st.just([{}])
)
BODIES = st.dictionaries(NAMES | st.integers(0, 9), VALUES, max_size=4) | VALUES


@PROPERTY
@given(st.binary(max_size=80) | st.builds(message, st.lists(st.integers(0, 40), max_size=7), BODIES))
def test_garbage_is_read_or_refused_and_nothing_else(raw: bytes) -> None:
    for end in (*ends(), NativeDialect(PLATFORM), NativeDialect(APPLICATION)):
        try:
            events = end.receive_binary(raw)
        except RemoteWireError as error:
            assert error.kind.isidentifier() and len(str(error)) < 300  # noqa: PT017, PT018 - no test of an exception
            continue
        assert len(events) == 1


@PROPERTY
@given(st.data())
def test_a_spoilt_example_is_read_or_refused(data: st.DataObject) -> None:
    _, _, text = data.draw(st.sampled_from(EXAMPLES))
    raw = bytearray.fromhex(text)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    for end in (*ends(), NativeDialect(APPLICATION)):
        try:
            end.receive_binary(bytes(raw))
        except RemoteWireError as error:
            assert error.wire == "native"  # noqa: PT017


@pytest.mark.parametrize("media_format", [MediaFormat(*one) for one in FORMATS], ids=str)
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_stream_of_every_format_starts(media_format: MediaFormat, big_endian: bool) -> None:
    platform, application = ends(media_format, big_endian=big_endian)
    ordered = replace(media_format, big_endian=big_endian and media_format.encoding == "L16")
    assert platform.media_format == application.media_format == application.play_format == ordered
    assert application.stream_id == "s1"


@pytest.mark.parametrize("key", ["call_id", "account_id", "tracks", "big_endian", "clock_rate_hz", "custom_parameters"])
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "nil"])
def test_an_optional_key_that_is_absent_or_nil_has_its_default(key: str, absent: bool) -> None:
    *_, body = take_apart(bytes.fromhex(EXAMPLES[0][2]))
    body[key] = None
    if absent:
        del body[key]
    (event,) = NativeDialect(APPLICATION).receive_binary(message([1, 1, 1, 0, 0], body))
    assert isinstance(event, StreamStarted)
    whole: dict[str, Any] = {
        "call_id": "",
        "account_id": "",
        "tracks": ("inbound",),
        "clock_rate_hz": 0,
        "custom_parameters": {},
    }
    expected = STARTED if key == "big_endian" else replace(STARTED, **{key: whole[key]})
    assert event == expected


def start_with(**keys: Any) -> bytes:
    *_, body = take_apart(bytes.fromhex(EXAMPLES[0][2]))
    return message([1, 1, 1, 0, 0], body | keys)


REFUSED: list[tuple[str, Role, bytes, str]] = [
    ("nothing", PLATFORM, b"", "bad_msgpack"),
    ("half a header", PLATFORM, b"\x95\x01\x10", "bad_msgpack"),
    ("a header of four", PLATFORM, message([1, 17, 1, 0], {}), "bad_header"),
    ("a header of seventeen", PLATFORM, message([1, 17, 1, 0, 0, *range(12)], {}), "bad_header"),
    ("a header that is a map", PLATFORM, b"\x80\x80", "bad_header"),
    ("a number that is a float", PLATFORM, message([1, 17, 1.0, 0, 0], {}), "bad_header"),
    ("a number that is a boolean", PLATFORM, message([True, 17, 1, 0, 0], {}), "bad_header"),
    ("a number below 0", PLATFORM, message([1, 17, -1, 0, 0], {}), "bad_header"),
    ("a position beyond 2^63 - 1", PLATFORM, message([1, 17, 1, 2**63, 0], {}), "bad_header"),
    ("a track that is none", PLATFORM, message([1, 17, 1, 0, 3], {}), "bad_header"),
    ("another version", PLATFORM, message([2, 17, 1, 0, 0], {}), "bad_version"),
    ("a list for a map", PLATFORM, message([1, 17, 1, 0, 0], []), "bad_type"),
    ("bytes behind the map", PLATFORM, message([1, 17, 1, 0, 0], {}) + b"\0", "trailing"),
    ("a map cut short", PLATFORM, message([1, 16, 1, 0, 0], {"name": "a"})[:-1], "bad_msgpack"),
    ("an ext type", PLATFORM, message([1, 17, 1, 0, 0], {"a": msgpack.ExtType(5, b"x")}), "bad_msgpack"),
    ("text that is not UTF-8", PLATFORM, message([1, 16, 1, 0, 0], {})[:-1] + b"\x81\xa4name\xa1\xff", "bad_msgpack"),
    ("a mark without a name", PLATFORM, message([1, 16, 1, 0, 0], {}), "missing_field"),
    ("a mark with an empty name", PLATFORM, message([1, 16, 1, 0, 0], {"name": ""}), "bad_value"),
    ("a mark with a name of 257", PLATFORM, message([1, 16, 1, 0, 0], {"name": "n" * 257}), "bad_value"),
    ("a mark named by a number", PLATFORM, message([1, 16, 1, 0, 0], {"name": 5}), "bad_type"),
    ("no digits", PLATFORM, message([1, 20, 1, 0, 0], {}), "bad_value"),
    ("other digits", PLATFORM, message([1, 20, 1, 0, 0], {"digits": "1w"}), "bad_value"),
    ("too many digits", PLATFORM, message([1, 20, 1, 0, 0], {"digits": "1" * 65}), "bad_value"),
    ("a digit of two", APPLICATION, message([1, 3, 1, 0, 1], {"digit": "12"}), "bad_value"),
    ("another digit", APPLICATION, message([1, 3, 1, 0, 1], {"digit": "x"}), "bad_value"),
    ("another outcome", APPLICATION, message([1, 4, 1, 0, 2], {"name": "a", "outcome": "played"}), "bad_value"),
    ("counters that are none", APPLICATION, message([1, 6, 1, 0, 0], {"counters": [1]}), "bad_type"),
    ("a counter that is text", APPLICATION, message([1, 6, 1, 0, 0], {"counters": {"a": "1"}}), "bad_type"),
    ("begun as a number", APPLICATION, message([1, 7, 1, 0, 0], {"begun": 1}), "bad_type"),
    ("a second start", APPLICATION, start_with(), "bad_state"),
]


@pytest.mark.parametrize(("name", "role", "raw", "kind"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_bad_message_is_refused_by_kind_and_the_stream_lives_on(name: str, role: Role, raw: bytes, kind: str) -> None:
    platform, application = ends()
    reader, event = (platform, Clear()) if role is PLATFORM else (application, Cleared())
    with pytest.raises(RemoteWireError) as refusal:
        reader.receive_binary(raw)
    assert (refusal.value.kind, refusal.value.wire) == (kind, "native")
    sender = application if role is PLATFORM else platform
    (good,) = sender.send(event, sequence=2)
    assert list(reader.receive_binary(good)) == [event]


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"stream_id": ""}, "bad_value"),
        ({"stream_id": None}, "missing_field"),
        ({"stream_id": "s" * 129}, "bad_value"),
        ({"tracks": []}, "bad_value"),
        ({"tracks": ["both"]}, "bad_value"),
        ({"tracks": "inbound"}, "bad_value"),
        ({"encoding": "OPUS"}, "unknown_format"),
        ({"sample_rate_hz": 16000}, "unknown_format"),
        ({"sample_rate_hz": None}, "unknown_format"),
        ({"big_endian": 1}, "bad_type"),
        ({"clock_rate_hz": -1}, "bad_type"),
        ({"custom_parameters": {"a": 1}}, "bad_type"),
        ({"custom_parameters": {str(i): "" for i in range(257)}}, "too_long"),
    ],
    ids=str,
)
def test_a_bad_start_is_refused(keys: dict[str, Any], kind: str) -> None:
    application = NativeDialect(APPLICATION)
    with pytest.raises(RemoteWireError) as refusal:
        application.receive_binary(start_with(**keys))
    assert refusal.value.kind == kind
    assert not application.stream_id


def test_audio_before_the_start_half_a_sample_and_text_are_refused() -> None:
    audio = bytes.fromhex(EXAMPLES[1][2])
    _, l16 = ends(MediaFormat("L16", 16000))
    for end, raw, kind in ((NativeDialect(APPLICATION), audio, "bad_state"), (l16, audio[:-1], "odd_length")):
        with pytest.raises(RemoteWireError) as refusal:
            end.receive_binary(raw)
        assert refusal.value.kind == kind
    with pytest.raises(RemoteWireError) as refusal:
        l16.receive("{}")
    assert refusal.value.kind == "text"
    with pytest.raises(RemoteWireError) as refusal:
        NativeDialect(PLATFORM, options=NativeOptions(max_message_bytes=1024)).receive_binary(bytes(1025))
    assert refusal.value.kind == "too_long"


def test_unknown_kinds_and_those_of_the_other_end_are_told_as_unknown() -> None:
    platform, application = ends()
    for reader, kind in ((platform, 9), (platform, 30), (platform, 4), (application, 17), (application, 255)):
        raw = message([1, kind, 1, 0, 0], {"anything": [1, {"deep": None}]})
        assert list(reader.receive_binary(raw)) == [UnknownMessage(f"kind_{kind}")]


def test_unknown_keys_change_nothing() -> None:
    for who, name, text in EXAMPLES[2:]:
        version, kind, sequence, position, track, body = take_apart(bytes.fromhex(text))
        if kind == Kind.AUDIO:
            continue
        reader = ends()[1 if who == "platform" else 0]
        raw = message([version, kind, sequence, position, track, "later"], body | {"x_unknown": {"a": [None]}})
        assert list(reader.receive_binary(raw)) == [EVENTS[name][1]]


def test_each_end_sends_only_what_is_its_own_and_nothing_before_the_start() -> None:
    platform, application = ends()
    for role, event in list(EVENTS.values())[1:]:
        if not isinstance(event, Media):
            with pytest.raises(LocalWireError):
                (application if role is PLATFORM else platform).send(event)
        with pytest.raises(LocalWireError):
            NativeDialect(role).send(event)


@pytest.mark.parametrize(
    "event",
    [Mark(""), Mark("n" * 257), Mark("\ud800"), SendDigits("w"), SendDigits(""), Media(b"\0\0\0")],
    ids=repr,
)
def test_what_an_application_may_not_say_is_its_own_fault(event: WireEvent) -> None:
    _, application = ends(MediaFormat("L16", 8000))
    with pytest.raises(LocalWireError):
        application.send(event)


@pytest.mark.parametrize(
    "change",
    [
        {"stream_id": ""},
        {"call_id": "c" * 129},
        {"tracks": ()},
        {"tracks": ("both",)},
        {"media_format": MediaFormat("PCMA", 8000)},
        {"custom_parameters": {"a": "b" * 4096}},
        {"custom_parameters": {str(i): "" for i in range(257)}},
    ],
    ids=str,
)
def test_a_start_that_the_page_forbids_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(LocalWireError):
        NativeDialect(PLATFORM).send(replace(STARTED, **change))


def test_numbers_begin_anew_after_two_to_the_thirty_two() -> None:
    platform, _ = ends()
    for event in (Media(AUDIO, position=7), Cleared()):
        (raw,) = platform.send(event, sequence=2**32 + 5)
        assert take_apart(raw)[2] == 5


def test_formats_and_options_that_do_not_exist_are_refused() -> None:
    for media_format in (MediaFormat("OPUS", 48000), MediaFormat("PCMU", 16000), MediaFormat("L16", 44100)):
        with pytest.raises(ConfigError):
            NativeDialect(PLATFORM, media_format=media_format)
    with pytest.raises(ConfigError):
        NativeOptions(max_message_bytes=10)
