"""Rules that hold for every dialect whose messages are JSON text, ours or a user's.

`check_dialect` sets the two ends of one wire against each other: what one writes the other reads as the same thing, the
media template and `send` write one text, the media shape and `receive` read one thing, unknown fields change nothing,
and whatever else comes in is refused with `RemoteWireError` and nothing else. What a particular wire's messages look
like is for that wire's own table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from talkpath.errors import NotOnThisWire, RemoteWireError
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Handshaken,
    Mark,
    MarkReached,
    Media,
    SendDigits,
    StreamStarted,
    WireEvent,
)
from talkpath.records import Outcome
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role

NONSENSE: tuple[bytes, ...] = (
    b"",
    b"\x00",
    b"\xff\xfe{}",
    b"null",
    b"[]",
    b"{}",
    b"1e999",
    b'"text"',
    b"{" * 20,
    b"[" * 100_000,
    b'{"event":' * 50_000,
    b'{"event":NaN}',
    b'{"event":null}',
    b'{"event":17}',
    b'{"event":["media"]}',
    b'{"event":"\\ud800"}',
    b'{"event":"media"}',
    b'{"event":"media","media":null}',
    b'{"event":"media","media":[]}',
    b'{"event":"media","media":{"payload":17}}',
    b'{"event":"media","media":{"payload":"!!!!"}}',
    b'{"event":"media","media":{"payload":"AA="}}',
    b'{"event":"media","sequenceNumber":' + b"9" * 5000 + b',"media":{"payload":"AAAA"}}',
    b'{"event":"start"}',
    b'{"event":"start","start":{}}',
    b'{"event":"start","start":{"streamId":{}}}',
    b'{"event":"mark","mark":{"name":17}}',
    b'{"event":"dtmf","dtmf":{"digit":"far too long"}}',
)
"""Texts that are no message of any wire, or of one only by half."""


def check_dialect(make: Callable[[Role], Dialect], started: StreamStarted, *, payload: bytes) -> None:
    """Run the common rules on both ends of one wire.

    Args:
        make: Makes a fresh end of the wire.
        started: A stream that the platform's end can start.
        payload: Some audio in the stream's format.

    Raises:
        AssertionError: a rule is broken; says which.
    """
    _check_start(make, started)
    _check_media(make, started, payload)
    _check_commands(make, started)
    _check_reports(make, started)
    _check_nonsense(make, started)


def read_with_shape(shape: MediaShape, text: bytes) -> dict[str, Any] | None:
    """Read a media message by nothing but its shape, as the native reader does; None: not the known shape."""
    message = json.loads(text)
    if message.get(shape.event_key) != shape.event_value:
        return None
    inner = message.get(shape.object_key) if shape.object_key else message
    if not isinstance(inner, dict) or shape.payload_key not in inner:
        return None
    number = {"timestamp_ms": shape.timestamp_key, "chunk": shape.chunk_key}
    fields: dict[str, Any] = {name: int(inner[key]) for name, key in number.items() if key and key in inner}
    if shape.sequence_key and shape.sequence_key in message:
        fields["sequence"] = int(message[shape.sequence_key])
    if shape.track_key and shape.track_key in inner:
        fields["track"] = inner[shape.track_key]
    fields["payload"] = base64.b64decode(inner[shape.payload_key], validate=True)
    return fields


def write_with_template(
    template: MediaTemplate, payload: bytes, *, sequence: int, chunk: int, timestamp_ms: int
) -> bytes:
    """Write a media message from its template, as the native writer does."""
    numbers = {
        Field.PAYLOAD: base64.b64encode(payload),
        Field.SEQUENCE: str(sequence).encode(),
        Field.CHUNK: str(chunk).encode(),
        Field.TIMESTAMP_MS: str(timestamp_ms).encode(),
        Field.END: b"",
    }
    return b"".join(piece + numbers[field] for piece, field in zip(template.pieces, template.fields, strict=True))


def _ends(make: Callable[[Role], Dialect], started: StreamStarted) -> tuple[Dialect, Dialect]:
    platform, application = make(Role.PLATFORM), make(Role.APPLICATION)
    for text in platform.send(started, sequence=1):
        application.receive(text)
    return platform, application


def _check_start(make: Callable[[Role], Dialect], started: StreamStarted) -> None:
    platform, application = make(Role.PLATFORM), make(Role.APPLICATION)
    assert platform.role is Role.PLATFORM, "a dialect says which end it is"
    assert application.role is Role.APPLICATION, "a dialect says which end it is"
    events = [event for text in platform.send(started, sequence=1) for event in application.receive(text)]
    opened = [event for event in events if not isinstance(event, Handshaken)]
    assert len(opened) == 1, f"starting a stream is read as {len(opened)} events, not one"
    assert opened[0] == started, f"the stream started is read as {opened[0]!r}"
    assert application.media_format == platform.media_format, "the application learns the stream's format"


def _check_media(make: Callable[[Role], Dialect], started: StreamStarted, payload: bytes) -> None:
    platform, application = _ends(make, started)
    for track in started.tracks:
        media = Media(payload, track=track, sequence=7, chunk=3, timestamp_ms=1_760_000_000_120)
        _check_one_media(platform, application, media)
    try:
        texts = application.send(Media(payload))
    except NotOnThisWire:
        return
    assert len(texts) == 1, "audio is one message"
    _check_one_media(application, platform, Media(payload))


def _check_one_media(sender: Dialect, receiver: Dialect, media: Media) -> None:
    text = write_with_template(
        sender.media_template(media.track),
        media.payload,
        sequence=media.sequence or 0,
        chunk=media.chunk or 0,
        timestamp_ms=media.timestamp_ms or 0,
    )
    assert list(sender.send(media, sequence=media.sequence or 0)) == [text], "the template and send write one text"
    events = receiver.receive(text)
    assert len(events) == 1, "a media message is one event"
    event = events[0]
    assert isinstance(event, Media), "a media message is read as media"
    assert (event.payload, event.track) == (media.payload, media.track), "payload and track arrive as sent"
    shape = receiver.media_shape()
    fields = read_with_shape(shape, text) if shape is not None else {}
    assert fields is not None, "the shape knows the other end's media message"
    for name, value in fields.items():
        assert getattr(event, name) == value, f"the shape and receive differ in {name}"
    _check_unknown_fields(receiver, text, events)


def _check_commands(make: Callable[[Role], Dialect], started: StreamStarted) -> None:
    platform, application = _ends(make, started)
    for command in (Mark("a name"), Clear()):
        for text, events in _across(application, platform, command):
            assert list(events) == [command], f"{command!r} is read as {events!r}"
            _check_unknown_fields(platform, text, events)
    digits = ""
    for text, events in _across(application, platform, SendDigits("12#")):
        assert len(events) == 1, "a message that sends digits is one event"
        assert isinstance(events[0], SendDigits), "digits to be sent are read as such"
        digits += events[0].digits
        _check_unknown_fields(platform, text, events)
    assert digits in ("", "12#"), "digits arrive as they are to be sent, in one message or several"


def _check_reports(make: Callable[[Role], Dialect], started: StreamStarted) -> None:
    platform, application = _ends(make, started)
    for text, events in _across(platform, application, Digit("5", timestamp_ms=40)):
        assert len(events) == 1, "a digit is one event"
        assert isinstance(events[0], Digit), "a digit is read as a digit"
        assert events[0].digit == "5", "a digit arrives as pressed"
        _check_unknown_fields(application, text, events)
    for text, events in _across(platform, application, MarkReached("a name")):
        assert [event.name for event in events if isinstance(event, MarkReached)] == ["a name"], "a mark has its name"
        _check_unknown_fields(application, text, events)
    returned = list(_across(platform, application, MarkReached("a name", Outcome.CLEARED)))
    assert bool(returned) == platform.returns_marks_on_clear, "returns_marks_on_clear says what happens"
    confirmed = list(_across(platform, application, Cleared()))
    assert bool(confirmed) == platform.confirms_clear, "confirms_clear says what happens"
    for _, events in confirmed:
        assert list(events) == [Cleared()], "a clear's answer is read as one"


def _check_nonsense(make: Callable[[Role], Dialect], started: StreamStarted) -> None:
    for role in Role:
        for text in NONSENSE:
            for end in (make(role), _ends(make, started)[role is Role.APPLICATION]):
                try:
                    end.receive(text)
                except RemoteWireError as error:
                    assert error.kind.isidentifier(), "a refusal has a kind to count it by"  # noqa: PT017 - no test


def _across(sender: Dialect, receiver: Dialect, command: WireEvent) -> Iterator[tuple[bytes, Sequence[WireEvent]]]:
    """Each message that `command` is written as, with what the other end reads; nothing where the wire has none."""
    try:
        texts = sender.send(command, sequence=11)
        others = sender.send(command, sequence=12)
    except NotOnThisWire:
        return
    if texts:
        assert sender.numbered(command) == (list(texts) != list(others)), "numbered says whether a message has a number"
    for text in texts:
        yield text, receiver.receive(text)


def _check_unknown_fields(receiver: Dialect, text: bytes, events: Sequence[WireEvent]) -> None:
    message = json.loads(text)
    message["x_unknown"] = {"a": [1, None, {"b": "\u00e9"}]}
    for value in list(message.values()):
        if isinstance(value, dict):
            value["x_unknown"] = True
    assert list(receiver.receive(json.dumps(message))) == list(events), "unknown fields change nothing"
