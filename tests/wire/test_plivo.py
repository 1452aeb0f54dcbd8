"""Plivo's wire: its table run both ways, its strictness and its leniency."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conformance_plivo import CALL, MULAW, REFUSED, ROWS, STARTED, STREAM, Row
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
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
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import Outcome
from talkpath.testing.conformance import check_dialect, write_with_template
from talkpath.wire.dialect import Dialect, Field, Role
from talkpath.wire.plivo import PlivoDialect, PlivoOptions
from talkpath.wire.plivo_parameters import (
    check_format,
    content_type,
    read_content_type,
    read_extra_headers,
    write_extra_headers,
)

PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)
DEFAULTS = PlivoOptions()
OTHER = {Role.PLATFORM: Role.APPLICATION, Role.APPLICATION: Role.PLATFORM}


def make(role: Role, media_format: MediaFormat = MULAW, options: PlivoOptions = DEFAULTS) -> PlivoDialect:
    return PlivoDialect(role, media_format=media_format, options=options)


def started(role: Role, media_format: MediaFormat = MULAW, options: PlivoOptions = DEFAULTS) -> PlivoDialect:
    """An end whose stream has been started."""
    platform, application = make(Role.PLATFORM, media_format, options), make(Role.APPLICATION, options=options)
    for text in platform.send(replace(STARTED, media_format=media_format), sequence=1):
        application.receive(text)
    return platform if role is Role.PLATFORM else application


def end_for(row: Row, role: Role) -> PlivoDialect:
    return (make if row.before_start else started)(role, row.media_format, row.options)


def send_one(end: Dialect, command: WireEvent, sequence: int = 1) -> Any:
    (text,) = end.send(command, sequence=sequence)
    return json.loads(text)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.role.value}: {row.name}")
def test_a_documented_message_is_read_as_its_event(row: Row) -> None:
    for text in (row.text, row.text.encode(), bytearray(row.text.encode()), memoryview(row.text.encode())):
        assert list(end_for(row, row.role).receive(text)) == [row.event]


@pytest.mark.parametrize("row", [r for r in ROWS if r.written], ids=lambda row: f"{row.role.value}: {row.name}")
def test_an_event_is_written_as_its_documented_message(row: Row) -> None:
    sender = end_for(row, OTHER[row.role])
    assert send_one(sender, row.event, row.sequence) == json.loads(row.text)
    assert sender.numbered(row.event) == (row.role is Role.APPLICATION)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.role.value}: {row.name}")
def test_unknown_fields_white_space_and_order_change_nothing(row: Row) -> None:
    message = json.loads(row.text)
    for value in [message, *message.values()]:
        if isinstance(value, dict) and value is not message.get("extra_headers"):
            value["newField"] = {"deep": [1, 2.5, None, "é"]}
    text = json.dumps(dict(reversed(message.items())), indent=2)
    assert list(end_for(row, row.role).receive(text)) == [row.event]


@pytest.mark.parametrize(("name", "role", "text", "kind"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_bad_message_is_refused_by_kind_and_the_stream_lives_on(
    name: str, role: Role, text: str | bytes, kind: str
) -> None:
    end = started(role)
    with pytest.raises(RemoteWireError) as refusal:
        end.receive(text)
    assert refusal.value.kind == kind
    assert refusal.value.wire == "plivo"
    assert len(str(refusal.value)) < 200
    good = next(row for row in ROWS if row.role is role and not row.before_start and row.media_format == MULAW)
    assert list(end.receive(good.text)) == [good.event]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"event":"start"}', "missing_field"),
        ('{"event":"start","start":[]}', "bad_type"),
        ('{"event":"start","start":{"mediaFormat":{}}}', "missing_field"),
        ('{"event":"start","start":{"streamId":"a"}}', "missing_field"),
        ('{"event":"start","start":{"streamId":"a","mediaFormat":{"encoding":"audio/x-l16"}}}', "missing_field"),
        ('{"event":"start","start":{"streamId":"a","mediaFormat":{"encoding":7}}}', "bad_type"),
        ('{"event":"start","start":{"streamId":{},"mediaFormat":{}}}', "bad_type"),
        ('{"event":"start","start":{"streamId":"\\udfff"}}', "bad_value"),
        ('{"event":"start","start":{"streamId":"' + "a" * 200 + '"}}', "too_long"),
        ('{"event":"start","start":{"streamId":"a","tracks":"inbound"}}', "bad_type"),
        ('{"event":"start","start":{"streamId":"a","tracks":[1]}}', "bad_type"),
        (
            '{"event":"start","start":{"streamId":"a","mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":16000}}}',
            "unknown_format",
        ),
        ('{"event":"media","media":{"payload":"AA=="}}', "bad_state"),
    ],
)
def test_a_stream_that_cannot_be_understood_does_not_start(text: str, kind: str) -> None:
    end = make(Role.APPLICATION)
    with pytest.raises(RemoteWireError) as refusal:
        end.receive(text)
    assert refusal.value.kind == kind
    assert end.stream_id == ""


@pytest.mark.parametrize(
    ("headers", "kind"),
    [('"' + "a" * 9000 + '"', "too_long"), ("[]", "bad_type"), ('"{\\"a\\":\\"\\\\ud800\\"}"', "bad_value")],
)
def test_headers_beyond_bounds_are_refused(headers: str, kind: str) -> None:
    start = json.loads(ROWS[0].text)
    text = json.dumps(start).replace('"{}"', headers)
    with pytest.raises(RemoteWireError) as refusal:
        make(Role.APPLICATION).receive(text)
    assert refusal.value.kind == kind


@pytest.mark.parametrize("media_format", [MULAW, MediaFormat("L16", 8000), MediaFormat("L16", 16000)])
def test_the_common_rules_hold(media_format: MediaFormat) -> None:
    stream = StreamStarted(
        STREAM, CALL, "MA", ("inbound", "outbound"), media_format, {"tier": "gold", "who": 'a "b" é'}
    )
    check_dialect(lambda role: make(role, media_format), stream, payload=bytes(range(160)))


def sdk_types() -> ModuleType:
    """The official SDK's models, without what its package needs of web frameworks."""
    package = importlib.util.find_spec("plivo_stream")
    if package is None or package.origin is None:
        pytest.skip("plivo-stream-sdk is not installed")
    spec = importlib.util.spec_from_file_location("plivo_stream_types", Path(package.origin).parent / "types.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # the SDK's models warn of their own making
def test_the_official_sdk_takes_all_that_the_platform_writes() -> None:
    sdk = sdk_types()
    stream = replace(STARTED, tracks=("inbound", "outbound"), custom_parameters={"tier": "gold"})
    platform = make(Role.PLATFORM)
    start = sdk.StartEvent.model_validate(send_one(platform, stream, 1), strict=True)
    assert (start.start.stream_id, start.sequence_number) == (STREAM, 1)
    assert json.loads(start.extra_headers) == {"tier": "gold"}
    media = sdk.MediaEvent.model_validate(
        send_one(platform, Media(b"\x7f" * 160, chunk=1, timestamp_ms=20), 2), strict=True
    )
    assert (media.media.timestamp, media.media.chunk, media.stream_id) == ("20", 1, STREAM)
    assert isinstance(media.extra_headers, str)
    digit = sdk.DtmfEvent.model_validate(send_one(platform, Digit("5"), 3), strict=True)
    assert (digit.dtmf.track, digit.dtmf.digit) == ("inbound", "5")
    assert isinstance(digit.extra_headers, str)
    played = sdk.PlayedStreamEvent.model_validate(send_one(platform, MarkReached("a"), 4), strict=True)
    assert (played.sequence_number, played.stream_id, played.name) == (4, STREAM, "a")
    cleared = sdk.ClearedAudioEvent.model_validate(send_one(platform, Cleared(), 5), strict=True)
    assert (cleared.sequence_number, cleared.stream_id) == (5, STREAM)


@pytest.mark.filterwarnings("ignore")
def test_the_platform_takes_all_that_the_official_sdk_writes() -> None:
    sdk = sdk_types()
    platform = started(Role.PLATFORM)
    media = sdk.PlayAudioMedia(contentType="audio/x-mulaw", sampleRate=8000, payload="AAAB")
    for message, event in (
        (sdk.PlayAudioEvent(event="playAudio", media=media), Media(b"\0\0\1", media_format=MULAW)),
        (sdk.CheckpointEvent(event="checkpoint", streamId=STREAM, name="a"), Mark("a")),
        (sdk.ClearAudioEvent(event="clearAudio", streamId=STREAM), Clear()),
    ):
        assert list(platform.receive(json.dumps(message.model_dump(by_alias=True)))) == [event]


def test_what_is_settled_by_silence_writes_nothing() -> None:
    platform = started(Role.PLATFORM)
    for command in (
        MarkReached("a", Outcome.CLEARED),
        MarkReached("a", Outcome.LOST),
        StreamStopped("hangup"),
        Handshaken("1.0"),
    ):
        assert list(platform.send(command, sequence=5)) == []
        assert not platform.numbered(command)
    assert not platform.returns_marks_on_clear
    assert platform.confirms_clear


@pytest.mark.parametrize("command", [HangUp(), StreamStopped()])
def test_an_application_ends_by_closing(command: WireEvent) -> None:
    with pytest.raises(NotOnThisWire, match=r"plivo wire .* closing the WebSocket"):
        started(Role.APPLICATION).send(command)


@pytest.mark.parametrize(
    ("role", "command"),
    [
        (Role.PLATFORM, Mark("a")),
        (Role.PLATFORM, Clear()),
        (Role.PLATFORM, SendDigits("1")),
        (Role.PLATFORM, UnknownMessage("x")),
        (Role.APPLICATION, STARTED),
        (Role.APPLICATION, Cleared()),
        (Role.APPLICATION, MarkReached("a")),
        (Role.APPLICATION, Digit("1")),
    ],
)
def test_what_is_the_other_ends_to_send_is_refused(role: Role, command: WireEvent) -> None:
    with pytest.raises(LocalWireError, match="this end is the"):
        started(role).send(command)


@pytest.mark.parametrize(
    ("role", "command", "says"),
    [
        (Role.PLATFORM, Media(b"\0", chunk=1), "a chunk number and a timestamp"),
        (Role.PLATFORM, Media(b"\0", track="left", chunk=1, timestamp_ms=0), "inbound or outbound"),
        (Role.PLATFORM, Media(b"\0\0", media_format=MediaFormat("L16", 8000), chunk=1, timestamp_ms=0), "format"),
        (Role.PLATFORM, Digit("12"), "one of 0-9"),
        (Role.PLATFORM, Digit("1", track="both"), "inbound or outbound"),
        (Role.PLATFORM, MarkReached(""), "1 to 256"),
        (Role.PLATFORM, STARTED, "already"),
        (Role.APPLICATION, Mark(""), "1 to 256"),
        (Role.APPLICATION, Mark("a" * 257), "1 to 256"),
        (Role.APPLICATION, Mark("\ud800"), "well-formed"),
        (Role.APPLICATION, Media(b"", media_format=MediaFormat("L16", 16000)), "the stream's format"),
        (Role.APPLICATION, SendDigits(""), "no digits"),
        (Role.APPLICATION, SendDigits("1w2"), "pauses are not on this wire"),
        (Role.APPLICATION, SendDigits("12E"), "0-9"),
        (Role.APPLICATION, SendDigits("1" * 65), "at most 64"),
    ],
)
def test_a_command_that_breaks_the_rules_is_ours_to_mend(role: Role, command: WireEvent, says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        started(role).send(command)


@pytest.mark.parametrize("role", list(Role))
def test_half_a_sample_is_never_sent(role: Role) -> None:
    with pytest.raises(LocalWireError, match="even number"):
        started(role, MediaFormat("L16", 8000)).send(Media(b"\0", chunk=1, timestamp_ms=1))


@pytest.mark.parametrize("command", [Cleared(), Digit("1"), MarkReached("a"), Media(b"", chunk=1, timestamp_ms=1)])
def test_the_platform_starts_its_stream_first(command: WireEvent) -> None:
    with pytest.raises(LocalWireError, match="before its start"):
        make(Role.PLATFORM).send(command)


@pytest.mark.parametrize("command", [Mark("a"), Clear(), Media(b"")])
def test_the_application_waits_for_the_start(command: WireEvent) -> None:
    with pytest.raises(LocalWireError, match="before its start"):
        make(Role.APPLICATION).send(command)


@pytest.mark.parametrize("role", list(Role))
def test_there_is_no_template_before_the_start(role: Role) -> None:
    with pytest.raises(LocalWireError, match="before its start"):
        make(role).media_template("inbound")


def test_a_template_is_for_a_track() -> None:
    with pytest.raises(LocalWireError, match="inbound or outbound"):
        started(Role.PLATFORM).media_template("both")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stream_id": "stream-1"}, "stream_id is no UUID"),
        ({"call_id": ""}, "call_id is no UUID"),
        ({"stream_id": ""}, "1 to 64"),
        ({"account_id": "\ud800"}, "well-formed"),
        ({"tracks": ()}, "tracks"),
        ({"tracks": ("both",)}, "tracks"),
        ({"media_format": MediaFormat("L16", 8000)}, "made for"),
        ({"custom_parameters": {"a": "b" * 600}}, "602 bytes"),
    ],
)
def test_a_stream_that_plivo_could_not_start_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LocalWireError, match=says):
        make(Role.PLATFORM).send(replace(STARTED, **change))


def test_ids_of_any_kind_by_option() -> None:
    platform = make(Role.PLATFORM, options=PlivoOptions(require_uuids=False))
    message = send_one(platform, replace(STARTED, stream_id="stream-1", call_id="c"))
    assert message["start"]["streamId"] == "stream-1"
    assert send_one(platform, Media(b"", chunk=1, timestamp_ms=0))["streamId"] == "stream-1"


def test_other_formats_are_refused_by_option() -> None:
    platform = started(Role.PLATFORM, options=PlivoOptions(refuse_other_formats=True))
    text = '{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":8000,"payload":""}}'
    with pytest.raises(RemoteWireError) as refusal:
        platform.receive(text)
    assert refusal.value.kind == "other_format"
    assert list(platform.receive(text.replace("l16", "mulaw"))) == [Media(b"", media_format=MULAW)]


def test_media_bears_the_headers_unless_told_otherwise() -> None:
    stream = replace(STARTED, custom_parameters={"tier": "gold"})
    for options, headers in ((PlivoOptions(), '{"tier":"gold"}'), (PlivoOptions(headers_on_media=False), "{}")):
        platform = make(Role.PLATFORM, options=options)
        assert send_one(platform, stream)["extra_headers"] == '{"tier":"gold"}'
        assert send_one(platform, Media(b"", chunk=1, timestamp_ms=0))["extra_headers"] == headers
        assert send_one(platform, Digit("1"))["extra_headers"] == '{"tier":"gold"}'


def test_the_media_template_fits_the_native_writer_at_its_largest() -> None:
    platform = make(Role.PLATFORM)
    platform.send(replace(STARTED, custom_parameters={f"k{i}": '"' for i in range(59)}))
    template = platform.media_template("outbound")
    assert len(template.pieces) == len(template.fields) <= 8
    assert template.fields[-1] is Field.END
    assert 1000 < sum(map(len, template.pieces)) <= 1280
    text = write_with_template(template, b"\x01", sequence=2**63, chunk=2**63, timestamp_ms=2**63)
    assert json.loads(text)["media"]["payload"] == "AQ=="


def test_parameters_that_no_media_message_could_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="as escaped JSON"):
        write_extra_headers({f"k{i}": "" for i in range(100)})


@pytest.mark.parametrize("parameters", [{"": "a"}, {"a": 5}, {"a": "\ud800"}, {"é": "x" * 510}])
def test_parameters_that_are_no_text_are_refused(parameters: Any) -> None:
    with pytest.raises(ConfigError):
        write_extra_headers(parameters)


@pytest.mark.parametrize(
    "media_format", [MediaFormat("PCMU", 16000), MediaFormat("PCMA", 8000), MediaFormat("L16", 24000)]
)
def test_formats_that_plivo_has_not_are_refused(media_format: MediaFormat) -> None:
    for refusing in (check_format, content_type, lambda f: PlivoDialect(Role.PLATFORM, media_format=f)):
        with pytest.raises(ConfigError, match="PCMU at 8000 Hz, or L16 at 8000 or 16000 Hz"):
            refusing(media_format)


def test_content_types_are_read_as_written() -> None:
    for media_format in (MULAW, MediaFormat("L16", 8000), MediaFormat("L16", 16000)):
        assert read_content_type(content_type(media_format)) == (media_format.encoding, media_format.sample_rate_hz)
    assert read_content_type(" Audio/X-L16 ; rate=8000 ") == ("L16", 8000)
    assert read_content_type("audio/x-mulaw") == ("PCMU", None)
    for text in ("", "audio/mpeg", "audio/x-l16;rate=", "audio/x-l16;rate=1;rate=2", "audio/x-l16;channels=2"):
        assert read_content_type(text) is None


def test_absurd_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_message_bytes is 1;"):
        PlivoOptions(max_message_bytes=1)


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


@PROPERTY
@given(st.dictionaries(names, st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8), max_size=8))
def test_parameters_are_read_in_every_form(parameters: dict[str, str]) -> None:
    forms = [
        json.dumps(parameters),
        "{" + ", ".join(f"{k}: {v}" for k, v in parameters.items()) + "}",
        ";".join(f"{k}={v}" for k, v in parameters.items()),
        ",".join(f"X-PH-{k}={v}" for k, v in parameters.items()),
    ]
    for text in forms:
        assert read_extra_headers(text) == parameters


@PROPERTY
@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=12), max_size=6))
def test_parameters_survive_the_wire(parameters: dict[str, str]) -> None:
    written = write_extra_headers(parameters)
    assert json.loads(written) == parameters


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
plivo_keys = st.sampled_from(
    ["media", "start", "dtmf", "name", "streamId", "sequenceNumber", "extra_headers", "reason"]
)
PLIVO_INNER_KEYS = (
    "payload",
    "track",
    "chunk",
    "timestamp",
    "digit",
    "contentType",
    "sampleRate",
    "mediaFormat",
    "tracks",
    "streamId",
    "callId",
    "accountId",
    "customParameters",
    "encoding",
)
plivo_inner = st.dictionaries(
    st.sampled_from(PLIVO_INNER_KEYS),
    json_values | st.just("AAAA") | st.just({"encoding": "audio/x-l16", "sampleRate": 8000}),
)
plivo_events = st.sampled_from(
    ["hello", "played", "sendDTMF", *sorted({json.loads(row.text)["event"] for row in ROWS})]
)
plivo_messages = st.builds(
    lambda event, fields: {"event": event, **fields},
    plivo_events | json_values,
    st.dictionaries(plivo_keys, plivo_inner | json_values, max_size=4),
)


def strings_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings_in(pair)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from strings_in(item)


@PROPERTY
@given(
    st.sampled_from(Role),
    st.booleans(),
    st.binary(max_size=200)
    | st.text(max_size=200)
    | json_values.map(json.dumps)
    | plivo_messages.map(json.dumps)
    | plivo_messages.map(lambda message: json.dumps(message, ensure_ascii=False)),
)
def test_whatever_comes_in_is_an_event_or_a_refusal(role: Role, begun: bool, text: bytes | str) -> None:
    end = started(role) if begun else make(role)
    with contextlib.suppress(RemoteWireError):
        for event in end.receive(text):
            for value in strings_in(asdict(event)):
                assert value.encode().decode() == value


@PROPERTY
@given(st.binary(max_size=700), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_audio_survives_the_wire(payload: bytes, sequence: int, chunk: int, timestamp_ms: int) -> None:
    platform, application = started(Role.PLATFORM), started(Role.APPLICATION)
    media = Media(payload, "inbound", None, sequence, chunk, timestamp_ms)
    (text,) = platform.send(media, sequence=sequence)
    assert list(application.receive(text)) == [media]
    (text,) = application.send(Media(payload))
    assert list(platform.receive(text)) == [Media(payload, media_format=MULAW)]


@PROPERTY
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=256))
def test_a_checkpoints_name_comes_back_as_it_was(name: str) -> None:
    platform, application = started(Role.PLATFORM), started(Role.APPLICATION)
    (text,) = application.send(Mark(name))
    (mark,) = platform.receive(text)
    assert mark == Mark(name)
    (text,) = platform.send(MarkReached(name), sequence=3)
    assert list(application.receive(text)) == [MarkReached(name)]


def test_the_names_of_strange_events_are_safe_to_log() -> None:
    (event,) = started(Role.PLATFORM).receive(json.dumps({"event": "a\n\x1b[31m" + "b" * 100 + "\ud800"}))
    assert isinstance(event, UnknownMessage)
    assert event.kind.isprintable()
    assert len(event.kind) == 64


def test_the_reason_of_a_stop_is_shown_when_it_can_be() -> None:
    end = started(Role.APPLICATION)
    for reason in (5, None, "\ud800", "x" * 500):
        assert list(end.receive(json.dumps({"event": "stop", "reason": reason}))) == [StreamStopped("")]
