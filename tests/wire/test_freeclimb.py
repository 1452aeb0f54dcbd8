"""FreeClimb's dialect against what protoc makes of the definition, segment by segment, and against anything at all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from conformance_freeclimb import CALL, EPOCH_MS, L16_8, L16_16, MULAW, REFUSED, ROWS, STARTED, Row, start
from hypothesis import given, settings
from hypothesis import strategies as st

from support import freeclimb_protoc as protoc
from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Handshaken,
    Interrupt,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    Pause,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import EndReason, Outcome
from talkpath.wire.catalog import wire_named
from talkpath.wire.dialect import Dialect, Field, Role
from talkpath.wire.freeclimb import FreeClimbDialect, FreeClimbOptions, write_metadata
from talkpath.wire.freeclimb_messages import METHOD, file_descriptor

pytest.importorskip("grpc_tools")
PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
PLATFORM_START = replace(STARTED, account_id="freeclimb", clock_rate_hz=8000, started_ms=EPOCH_MS)


def make(role: Role, media_format: MediaFormat = MULAW, options: FreeClimbOptions | None = None) -> FreeClimbDialect:
    return FreeClimbDialect(role, media_format=media_format, options=options or FreeClimbOptions())


def started(role: Role, media_format: MediaFormat = MULAW, options: FreeClimbOptions | None = None) -> FreeClimbDialect:
    end = make(role, media_format, options)
    if role is Role.PLATFORM:
        end.send(replace(PLATFORM_START, media_format=media_format))
    else:
        kind = "mulaw" if media_format.encoding == "PCMU" else "l16"
        end.receive_binary(
            protoc.platform(**start(f"audio/{kind};rate={media_format.sample_rate_hz}")).SerializeToString()
        )
    return end


def written(role: Role, messages: Sequence[bytes]) -> list[Any]:
    """What an end wrote, as protoc's classes read it."""
    kind = protoc.messages().PlatformMessage if role is Role.PLATFORM else protoc.messages().AppMessage
    return [kind.FromString(message) for message in messages]


def made(row: Row) -> Any:
    return (protoc.platform if row.role is Role.APPLICATION else protoc.app)(**row.payload)


def other(role: Role) -> Role:
    return Role.PLATFORM if role is Role.APPLICATION else Role.APPLICATION


def test_the_definition_and_the_table_are_one() -> None:
    ours = file_descriptor()
    theirs = type(ours).FromString(protoc.messages().DESCRIPTOR.serialized_pb)
    for file in (ours, theirs):
        file.ClearField("name")
        for message in file.message_type:
            for inner in (*message.nested_type, message):
                inner.field.sort(key=lambda one: one.number)
                inner.reserved_range.sort(key=lambda one: one.start)
                for one in inner.field:
                    one.ClearField("json_name")
    assert theirs == ours
    service = protoc.messages().DESCRIPTOR.services_by_name["GRPCStreamService"]
    assert f"/{service.full_name}/{service.methods[0].name}" == METHOD == wire_named("freeclimb").grpc_method


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_read(row: Row) -> None:
    end = (make if row.before_start else started)(row.role, row.media_format, row.options)
    assert tuple(end.receive_binary(made(row).SerializeToString())) == row.events


@pytest.mark.parametrize("row", [row for row in ROWS if row.written], ids=lambda row: row.name)
def test_rows_are_written(row: Row) -> None:
    end = (make if row.before_start else started)(other(row.role), row.media_format, row.options)
    (event,) = row.events
    if isinstance(event, StreamStarted):
        event = replace(event, started_ms=EPOCH_MS)
    elif isinstance(event, Media):
        event = replace(event, position=row.media_format.sample_rate_hz * 40 // 1000)
    messages = end.send(event, sequence=row.sequence)
    assert written(end.role, messages) == [made(row)]


@pytest.mark.parametrize(
    ("name", "role", "payload", "kind"), REFUSED, ids=lambda value: value if type(value) is str else ""
)
def test_what_breaks_the_rules_is_refused(name: str, role: Role, payload: Any, kind: str) -> None:
    end = make(role) if "notify_call_started" in payload else started(role)
    message = (protoc.platform if role is Role.APPLICATION else protoc.app)(**payload).SerializeToString()
    for _ in range(2):
        with pytest.raises(RemoteWireError) as refusal:
            end.receive_binary(message)
        assert refusal.value.kind == kind


def test_half_a_sample_from_the_platform_is_refused() -> None:
    with pytest.raises(RemoteWireError) as refusal:
        started(Role.APPLICATION, L16_8).receive_binary(
            protoc.platform(notify_audio_data={"audio_data": b"\0\0\0"}).SerializeToString()
        )
    assert refusal.value.kind == "odd_length"


def test_a_second_start_is_refused_and_nothing_comes_before_the_first() -> None:
    for end, message in (
        (started(Role.APPLICATION), protoc.platform(**start())),
        (make(Role.APPLICATION), protoc.platform(notify_audio_data={"audio_data": b"a"})),
        (make(Role.PLATFORM), protoc.app(audio_data={"audio_data": b"a", "id": "a"})),
    ):
        with pytest.raises(RemoteWireError) as refusal:
            end.receive_binary(message.SerializeToString())
        assert refusal.value.kind == "bad_state"


def test_bounds() -> None:
    end = started(Role.PLATFORM, options=FreeClimbOptions(max_message_bytes=1024))
    assert end.receive_binary(protoc.app(audio_data={"id": "a", "audio_data": b"\xff" * 900}).SerializeToString())
    with pytest.raises(RemoteWireError) as refusal:
        end.receive_binary(protoc.app(audio_data={"id": "a", "audio_data": b"\xff" * 1024}).SerializeToString())
    assert refusal.value.kind == "too_long"
    with pytest.raises(RemoteWireError):
        end.receive(b"{}")
    with pytest.raises(ConfigError):
        FreeClimbOptions(max_message_bytes=1)


# What is not known is tolerated ------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def pieces(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_messages_of_2023_are_read() -> None:
    """`content_type` was 2 and `size_bytes` 5 of the platform's audio, `size_bytes` 4 of the application's."""
    body = pieces(1, b"\xff" * 3) + pieces(2, b"audio/mulaw;rate=8000") + varint(5 << 3) + varint(3)
    assert list(started(Role.APPLICATION).receive_binary(pieces(2, body))) == [Media(b"\xff" * 3, sequence=0)]
    body = pieces(1, b"a") + pieces(2, b"\xff" * 3) + varint(4 << 3) + varint(3)
    events = started(Role.PLATFORM).receive_binary(pieces(1, body))
    assert events[-1] == Media(b"\xff" * 3, "outbound", sequence=0)


unknown_fields = st.lists(
    st.builds(pieces, st.integers(20, 2**28), st.binary(max_size=20))
    | st.builds(
        lambda number, value: varint(number << 3) + varint(value), st.integers(20, 2**28), st.integers(0, 2**63)
    ),
    max_size=4,
).map(b"".join)


@PROPERTY
@given(st.sampled_from(ROWS), unknown_fields, unknown_fields)
def test_unknown_fields_change_nothing(row: Row, before: bytes, after: bytes) -> None:
    end = (make if row.before_start else started)(row.role, row.media_format, row.options)
    assert tuple(end.receive_binary(before + made(row).SerializeToString() + after)) == row.events


@pytest.mark.parametrize("role", list(Role))
def test_payloads_of_later_days_are_an_event(role: Role) -> None:
    assert list(started(role).receive_binary(pieces(77, b"later"))) == [UnknownMessage("no_payload")]
    assert list(started(role).receive_binary(b"")) == [UnknownMessage("no_payload")]


@PROPERTY
@given(
    st.sampled_from(Role),
    st.booleans(),
    st.lists(
        st.binary(max_size=60)
        | st.builds(pieces, st.integers(1, 13), st.binary(max_size=40))
        | st.builds(pieces, st.integers(1, 13), st.builds(pieces, st.integers(1, 6), st.binary(max_size=20)))
        | st.sampled_from(ROWS).map(lambda row: made(row).SerializeToString()),
        min_size=1,
        max_size=6,
    ),
)
def test_whatever_comes_in_is_events_or_a_refusal(role: Role, begun: bool, messages: list[bytes]) -> None:
    end = started(role) if begun else make(role)
    for message in messages:
        with contextlib.suppress(RemoteWireError):
            for event in end.receive_binary(message):
                assert isinstance(event, WireEvent)


@PROPERTY
@given(st.sampled_from(ROWS), st.integers(0, 200), st.integers(0, 255))
def test_a_byte_that_is_wrong_is_no_worse(row: Row, at: int, byte: int) -> None:
    message = bytearray(made(row).SerializeToString())
    if message:
        message[at % len(message)] = byte
    end = (make if row.before_start else started)(row.role, row.media_format, row.options)
    with contextlib.suppress(RemoteWireError):
        end.receive_binary(bytes(message))


# Audio -----------------------------------------------------------------------------------------------------------


@PROPERTY
@given(
    st.sampled_from([MULAW, L16_8, L16_16]), st.binary(max_size=700), st.integers(0, 2**63 - 1), st.integers(0, 2**40)
)
def test_audio_survives_the_wire(media_format: MediaFormat, payload: bytes, sequence: int, position: int) -> None:
    payload = payload[: len(payload) // media_format.sample_bytes * media_format.sample_bytes]
    platform, application = started(Role.PLATFORM, media_format), started(Role.APPLICATION, media_format)
    (message,) = platform.send(Media(payload, position=position), sequence=sequence)
    at_ms = EPOCH_MS + position * 1000 // media_format.sample_rate_hz
    heard = [Media(payload, sequence=sequence & 0xFFFFFFFF, timestamp_ms=at_ms)] if payload else []
    assert list(application.receive_binary(message)) == heard
    (message,) = application.send(Media(payload), sequence=sequence)
    events = platform.receive_binary(message)
    assert isinstance(events[0], Mark)
    said = Media(payload, "outbound", media_format, sequence & 0xFFFFFFFF)
    assert list(events[1:]) == ([said] if payload else [])


@PROPERTY
@given(st.sampled_from(Role), st.binary(max_size=700), st.integers(0, 2**32 - 1), st.integers(0, 2**40))
def test_what_the_native_core_wrote_becomes_the_same_message(
    role: Role, payload: bytes, sequence: int, position: int
) -> None:
    one, two = started(role), started(role)
    template = one.media_template("inbound")
    assert template.fields == (Field.SEQUENCE_32, Field.SAMPLE_64, Field.BYTES, Field.END)
    framed = sequence.to_bytes(4, "big") + position.to_bytes(8, "big") + payload
    assert (one.wrap_media(memoryview(framed)),) == tuple(
        two.send(Media(payload, position=position), sequence=sequence)
    )


def test_the_moments_of_audio_are_exact_for_hours() -> None:
    platform = started(Role.PLATFORM, L16_16)
    (message,) = platform.send(Media(b"\0" * 640, position=16000 * 36_000 + 1), sequence=1)
    (read,) = written(Role.PLATFORM, [message])
    begin, end = read.notify_audio_data.start_tstamp, read.notify_audio_data.end_tstamp
    assert begin.seconds * 10**9 + begin.nanos == EPOCH_MS * 10**6 + 36_000 * 10**9 + 62_000
    assert (end.seconds - begin.seconds) * 10**9 + end.nanos - begin.nanos == 20 * 10**6


def test_audio_in_another_encoding_of_the_same_rate_is_taken() -> None:
    platform = started(Role.PLATFORM, L16_8, FreeClimbOptions(big_endian=True))
    for content_type, media_format in (
        ("audio/mulaw;rate=8000", MULAW),
        ("audio/l16;rate=8000", MediaFormat("L16", 8000, big_endian=True)),
        ("", None),
    ):
        message = protoc.app(audio_data={"id": "a", "audio_data": b"\0\1", "content_type": content_type})
        assert platform.receive_binary(message.SerializeToString())[-1] == Media(
            b"\0\1", "outbound", media_format, sequence=0
        )


@PROPERTY
@given(
    st.sampled_from(Role),
    st.booleans(),
    st.lists(
        st.sampled_from(ROWS).map(lambda row: made(row).SerializeToString())
        | st.builds(
            lambda ident, payload, last, kind: protoc.app(
                audio_data={"id": ident, "audio_data": payload, "last_message": last, "content_type": kind}
            ).SerializeToString(),
            st.sampled_from(["", "a", "b", "x" * 129]),
            st.binary(max_size=4),
            st.booleans(),
            st.sampled_from(["", "audio/mulaw;rate=8000", "audio/l16;rate=8000", "audio/opus"]),
        )
        | st.binary(max_size=30),
        max_size=8,
    ),
)
def test_the_shorter_way_to_audio_leads_to_the_same(role: Role, wide: bool, messages: list[bytes]) -> None:
    media_format = L16_8 if wide else MULAW
    short, long = started(role, media_format), started(role, media_format)
    for message in messages:
        events: list[WireEvent] | str
        try:
            events = list(long.receive_binary(message))
        except RemoteWireError as exc:
            events = exc.kind
        audio = short.plain_audio(message)
        if audio is not None:
            assert isinstance(events, list)
            (media,) = events
            assert isinstance(media, Media)
            assert media.payload == audio
            assert media.media_format in (None, media_format)
            continue
        if isinstance(events, str):
            with pytest.raises(RemoteWireError) as refusal:
                short.receive_binary(message)
            assert refusal.value.kind == events
        else:
            assert list(short.receive_binary(message)) == events


def test_plain_audio_takes_the_shorter_way() -> None:
    for end, message in (
        (started(Role.APPLICATION), protoc.platform(notify_audio_data={"audio_data": b"ab", "sequence_num": 3})),
        (started(Role.PLATFORM), protoc.app(audio_data={"id": "a", "audio_data": b"ab"})),
    ):
        assert end.receive_binary(message.SerializeToString())
        assert end.plain_audio(message.SerializeToString()) == b"ab"


# Segments ----------------------------------------------------------------------------------------------------------


class Queue:
    """What an engine does with a platform's dialect, as far as segments go: a queue of audio with marks in it."""

    def __init__(self) -> None:
        self.end = started(Role.PLATFORM)
        self.waiting: list[Mark | int] = []
        self.marks = 0

    def take(self, ident: str, n: int = 0, last: bool = False) -> None:
        message = protoc.app(audio_data={"id": ident, "audio_data": b"\xff" * n, "last_message": last})
        for event in self.end.receive_binary(message.SerializeToString()):
            if isinstance(event, Mark):
                self.marks += 1
                self.waiting.append(event)
            else:
                assert isinstance(event, Media)
                self.waiting += [1] * len(event.payload)

    def play(self, n: int) -> list[str]:
        """Play samples. -> what the application is told"""
        told: list[str] = []
        while self.waiting and (n or isinstance(self.waiting[0], Mark)):
            first = self.waiting.pop(0)
            if isinstance(first, Mark):
                told += self._say(MarkReached(first.name, Outcome.PLAYED, 0, first.id))
            else:
                n -= 1
        return told

    def clear(self, ident: str) -> list[str]:
        (clear,) = self.end.receive_binary(protoc.app(clear_audio_buffer={"id": ident}).SerializeToString())
        assert clear == Clear(ident)
        self.waiting.clear()
        return self._say(Cleared(ident))

    def _say(self, event: WireEvent) -> list[str]:
        said = []
        for message in written(Role.PLATFORM, self.end.send(event)):
            which = message.WhichOneof("payload")
            said.append(f"{which.split('_')[2]} {getattr(message, which).id}")
        return said


def test_messages_of_one_id_are_one_segment() -> None:
    queue = Queue()
    for _ in range(3):
        queue.take("a", 10)
    assert queue.play(0) == ["started a"]
    assert queue.play(29) == []
    queue.take("a", 10, last=True)
    assert queue.play(11) == ["completed a"]
    assert queue.marks == 2


def test_the_next_id_closes_a_segment() -> None:
    queue = Queue()
    queue.take("a", 10)
    queue.take("b", 10)
    assert queue.play(9) == ["started a"]
    assert queue.play(1) == ["completed a", "started b"]
    assert queue.marks == 2


def test_an_id_that_comes_again_is_a_segment_again() -> None:
    queue = Queue()
    queue.take("a", 5, last=True)
    queue.take("a", 5, last=True)
    assert queue.play(10) == ["started a", "completed a", "started a", "completed a"]


def test_a_segment_of_nothing_is_reported_where_it_lies() -> None:
    queue = Queue()
    queue.take("a", 5)
    queue.take("b", 0, last=True)
    queue.take("c", 0, last=True)
    assert queue.play(4) == ["started a"]
    assert queue.play(1) == ["completed a", "started b", "completed b", "started c", "completed c"]


def test_a_cleared_segment_is_never_completed_and_its_rest_is_a_segment_of_its_own() -> None:
    queue = Queue()
    queue.take("a", 10)
    assert queue.play(5) == ["started a"]
    queue.take("b", 10, last=True)
    assert queue.clear("now") == ["cleared now"]
    assert queue.play(100) == []
    queue.take("a", 10, last=True)
    assert queue.play(10) == ["started a", "completed a"]


def test_a_mark_that_was_reached_before_the_clear_is_reported() -> None:
    queue = Queue()
    queue.take("a", 5, last=True)
    mark = queue.waiting[-1]
    assert isinstance(mark, Mark)
    queue.end.receive_binary(protoc.app(clear_audio_buffer={"id": "c"}).SerializeToString())
    assert queue._say(MarkReached("a", Outcome.PLAYED, 0, mark.id)) == ["completed a"]
    assert queue._say(Cleared("c")) == ["cleared c"]
    assert queue._say(MarkReached("a", Outcome.PLAYED, 0, mark.id)) == []


def test_each_tiny_segment_takes_one_mark() -> None:
    queue = Queue()
    for number in range(255):
        queue.take(f"s{number}", 1, last=True)
    assert queue.marks == 256
    told = queue.play(255)
    assert told == [f"{what} s{number}" for number in range(255) for what in ("started", "completed")]


def test_what_is_kept_for_segments_that_are_never_played_is_bounded() -> None:
    end = started(Role.PLATFORM)
    for number in range(3000):
        end.receive_binary(protoc.app(audio_data={"id": f"s{number}", "audio_data": b"a"}).SerializeToString())
    assert len(end._boundaries) == 1024


segments = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.booleans()) | st.integers(0, 6) | st.just("clear"),
    max_size=25,
)


@PROPERTY
@given(segments)
def test_each_segment_begins_once_and_ends_once_at_most(steps: list[Any]) -> None:
    """Against a model that holds segments as lists of samples."""
    queue = Queue()
    told: list[str] = []
    model: list[str] = []
    waiting: list[str] = []
    opened: str | None = None
    for step in steps:
        if isinstance(step, tuple):
            ident, n, last = step
            queue.take(ident, n, last)
            if ident != opened:
                waiting += [f"completed {opened}"] if opened else []
                waiting.append(f"started {ident}")
            waiting += [""] * n
            if last:
                waiting.append(f"completed {ident}")
            opened = None if last else ident
        elif step == "clear":
            told += queue.clear("x")
            model.append("cleared x")
            waiting, opened = [], None
        else:
            told += queue.play(step)
            while waiting and (step or waiting[0]):
                first = waiting.pop(0)
                if first:
                    model.append(first)
                else:
                    step -= 1
    # An end that is told when the next segment begins is told no earlier by the model; order and number are the same.
    assert told == model


def test_reports_say_when_by_the_clock_of_the_call() -> None:
    end = make(Role.PLATFORM, L16_16)
    end.send(replace(PLATFORM_START, media_format=L16_16))
    (mark, _) = end.receive_binary(protoc.app(audio_data={"id": "a", "audio_data": b"\0\0"}).SerializeToString())
    assert isinstance(mark, Mark)
    (message,) = written(Role.PLATFORM, end.send(MarkReached("", Outcome.PLAYED, 8000, mark.id)))
    assert message.notify_playback_started_data.timestamp.seconds == EPOCH_MS // 1000 + 1


# The application's end ---------------------------------------------------------------------------------------------


def one(end: Dialect, command: WireEvent, sequence: int = 0) -> Any:
    (message,) = written(end.role, end.send(command, sequence=sequence))
    return message


def told(end: FreeClimbDialect, which: str, ident: str) -> list[WireEvent]:
    return list(end.receive_binary(protoc.platform(**{which: {"id": ident}}).SerializeToString()))


def test_a_checkpoint_closes_the_segment_and_is_reached_with_it() -> None:
    end = started(Role.APPLICATION)
    first = one(end, Media(b"ab"), 3).audio_data
    assert (first.sequence_num, first.last_message, first.content_type) == (3, False, "audio/mulaw;rate=8000")
    assert one(end, Media(b"cd"), 4).audio_data.id == first.id
    assert end.numbered(Mark("greeting"))
    last = one(end, Mark("greeting"), 5).audio_data
    assert (last.id, last.audio_data, last.sequence_num, last.last_message) == (first.id, b"", 5, True)
    assert one(end, Media(b"ef")).audio_data.id != first.id
    assert told(end, "notify_playback_started_data", first.id) == []
    assert told(end, "notify_playback_completed_data", first.id) == [MarkReached("greeting")]
    assert told(end, "notify_playback_completed_data", first.id) == []


def test_what_was_sent_before_a_clear_is_settled_by_its_answer() -> None:
    end = started(Role.APPLICATION)
    a, b = (one(end, Mark(name)).audio_data.id for name in "ab")
    first = one(end, Clear()).clear_audio_buffer.id
    c = one(end, Mark("c")).audio_data.id
    second = one(end, Clear()).clear_audio_buffer.id
    d = one(end, Mark("d")).audio_data.id
    assert first != second
    assert told(end, "notify_playback_completed_data", a) == [MarkReached("a")]
    assert told(end, "notify_audio_cleared_data", first) == [Cleared(first)]
    assert told(end, "notify_playback_completed_data", b) == []
    assert told(end, "notify_playback_completed_data", c) == [MarkReached("c")]
    assert told(end, "notify_audio_cleared_data", second) == [Cleared(second)]
    assert told(end, "notify_playback_completed_data", d) == [MarkReached("d")]


def test_an_answer_to_a_later_clear_answers_those_before_it() -> None:
    end = started(Role.APPLICATION)
    first, second = (one(end, Clear()).clear_audio_buffer.id for _ in range(2))
    assert told(end, "notify_audio_cleared_data", "whose") == []
    assert told(end, "notify_audio_cleared_data", second) == [Cleared(first), Cleared(second)]
    third = one(end, Clear()).clear_audio_buffer.id
    assert told(end, "notify_audio_cleared_data", "") == [Cleared(third)]
    assert told(end, "notify_audio_cleared_data", "") == []


def test_checking_a_command_sends_nothing() -> None:
    end = started(Role.APPLICATION)
    segment = one(end, Media(b"a")).audio_data.id
    end.check(Mark("m"))
    end.check(Clear())
    assert one(end, Media(b"a")).audio_data.id == segment
    assert told(end, "notify_audio_cleared_data", "") == []
    with pytest.raises(LocalWireError):
        end.check(Mark(""))
    with pytest.raises(NotOnThisWire):
        end.check(Pause())


def test_answers_that_never_come_cost_little() -> None:
    end = started(Role.APPLICATION)
    for number in range(9000):
        end.send(Mark(str(number)))
        end.send(Clear())
    assert len(end._pending) == len(end._clears) == 8192


def test_a_key_is_one_digit_however_long_it_is_held() -> None:
    platform, application = started(Role.PLATFORM), started(Role.APPLICATION)
    events = [
        event
        for digit in "112"
        for message in platform.send(Digit(digit, timestamp_ms=EPOCH_MS + 5, duration_ms=90))
        for event in application.receive_binary(message)
    ]
    assert events == [Digit(digit, timestamp_ms=EPOCH_MS + 5) for digit in "112"]
    begin, end = written(Role.PLATFORM, platform.send(Digit("a", timestamp_ms=EPOCH_MS + 5, duration_ms=90)))
    assert begin.notify_dtmf_received_start_data.digit == end.notify_dtmf_received_end_data.digit == "A"
    assert begin.notify_dtmf_received_start_data.start_tstamp.nanos == 5_000_000
    assert end.notify_dtmf_received_end_data.end_tstamp.nanos == 95_000_000


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (EndReason.CALLER_HUNG_UP, "CALLER_DISCONNECT"),
        (EndReason.APPLICATION_HUNG_UP, "APPLICATION_DISCONNECT"),
        (EndReason.STOPPED, "PLATFORM_DISCONNECT"),
        (EndReason.DURATION_REACHED, "PLATFORM_DISCONNECT"),
        (EndReason.CONTROL_OVERFLOW, "PLATFORM_ERROR"),
        (EndReason.INTERNAL_ERROR, "PLATFORM_ERROR"),
    ],
)
def test_why_the_stream_ended(reason: EndReason, code: str) -> None:
    message = one(started(Role.PLATFORM), StreamStopped(reason.value)).notify_call_ended
    assert (message.call_id, message.ReasonCode.Name(message.reason_code)) == (CALL, code)
    assert message.reason == reason.value


def test_a_greeting_says_nothing() -> None:
    for role in Role:
        assert list(started(role).greeting()) == list(started(role).send(Handshaken())) == []


# What is ours to mend ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "command", "says"),
    [
        (Role.PLATFORM, Mark("a"), "application's to send"),
        (Role.PLATFORM, Clear(), "application's to send"),
        (Role.PLATFORM, Digit("12"), "one of 0-9"),
        (Role.PLATFORM, replace(STARTED), "already"),
        (Role.APPLICATION, STARTED, "platform's to send"),
        (Role.APPLICATION, Cleared(), "platform's to send"),
        (Role.APPLICATION, Mark(""), "1 to 256"),
        (Role.APPLICATION, Mark("a" * 257), "1 to 256"),
        (Role.APPLICATION, SendDigits("1w"), "pauses"),
    ],
)
def test_a_command_that_breaks_the_rules_is_ours_to_mend(role: Role, command: WireEvent, says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        started(role).send(command)


@pytest.mark.parametrize("command", [StreamStopped(), Pause(), Interrupt(1)])
def test_what_the_wire_has_not(command: WireEvent) -> None:
    with pytest.raises(NotOnThisWire, match="freeclimb"):
        started(Role.APPLICATION).send(command)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tracks": ("inbound", "outbound")}, "no track but"),
        ({"call_id": ""}, "1 to 128"),
        ({"media_format": L16_8}, "made for"),
        ({"custom_parameters": {"a=b": "c"}}, "has a ="),
    ],
)
def test_a_stream_that_freeclimb_could_not_start_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        make(Role.PLATFORM).send(replace(PLATFORM_START, **change))


@pytest.mark.parametrize("role", list(Role))
def test_nothing_is_sent_before_the_start(role: Role) -> None:
    for work in (lambda end: end.media_template("inbound"), lambda end: end.send(Media(b""))):
        with pytest.raises(LocalWireError, match="before its start"):
            work(make(role))
    for command in (Mark("a"), Clear()) if role is Role.APPLICATION else (Digit("1"), StreamStopped()):
        with pytest.raises(LocalWireError, match="before its start"):
            make(role).send(command)


def test_there_is_one_track() -> None:
    with pytest.raises(LocalWireError, match="no track but"):
        started(Role.PLATFORM).media_template("outbound")


@pytest.mark.parametrize(
    "media_format", [MediaFormat("PCMU", 16000), MediaFormat("PCMA", 8000), MediaFormat("L16", 24000)]
)
def test_formats_that_freeclimb_has_not_are_refused(media_format: MediaFormat) -> None:
    with pytest.raises(ConfigError, match="PCMU at 8000 Hz, or L16 at 8000 or 16000 Hz"):
        make(Role.PLATFORM, media_format)


@PROPERTY
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="="), min_size=1, max_size=12),
        st.text(st.characters(codec="utf-8"), max_size=12),
        max_size=6,
    )
)
def test_parameters_survive_the_wire(parameters: dict[str, str]) -> None:
    platform, application = make(Role.PLATFORM), make(Role.APPLICATION)
    (message,) = platform.send(replace(PLATFORM_START, custom_parameters=parameters))
    (event,) = application.receive_binary(message)
    assert isinstance(event, StreamStarted)
    assert event.custom_parameters == parameters
    assert len(write_metadata(parameters)) == len(parameters)
