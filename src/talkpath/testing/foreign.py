"""Messages of tomorrow: lawful ones with something in them that nobody knows, in each form that messages have.

What reads a wire must go on when the platform, or the application, is newer than itself. Each function takes a message
as a dialect wrote it and returns it changed, or None where the wire's form has no place for such a change.
"""

from __future__ import annotations

import json
from typing import Any

import msgpack

from talkpath.wire.dialect import Dialect, Role

_UNKNOWN_FIELD = b"\x9a\x06\x03new"
"""Protocol Buffers: field 99, three bytes."""
_FORMS = {"native": "msgpack", "asterisk": "words", "freeclimb": "protobuf", "audiosocket": "packets"}
_EVENT_KEYS = ("event", "type")
_NUMBERS = ("sequenceNumber", "message_id", "chunk", "chunk_id", "timestamp", "sampleRate", "sample_rate", "duration")


def form_of(dialect: Dialect) -> str:
    """Return how a wire's messages are written: ``json``, ``msgpack``, ``words``, ``protobuf`` or ``packets``."""
    return _FORMS.get(dialect.wire, "json")


def unknown_message(dialect: Dialect, example: bytes) -> tuple[bytes, bool] | None:
    """Return a message of a kind nobody knows, and whether it is binary.

    Args:
        example: a lawful message of the same sender.
    """
    match form_of(dialect):
        case "json":
            message = json.loads(example)
            key = next(key for key in _EVENT_KEYS if key in message)
            kept = {name: value for name, value in message.items() if not isinstance(value, dict)}
            return _json({**kept, key: "talkpathUnknown", "talkpathUnknown": {"a": [1, None]}}), False
        case "words":
            if example.lstrip()[:1] == b"{":
                key = "command" if b'"command"' in example else "event"
                return _json({key: "TALKPATH_UNKNOWN", "a": 1}), False
            return b"TALKPATH_UNKNOWN a:1", False
        case "msgpack":
            return _pack([1, 15, _header(example)[2], 0, 0]) + _pack({"a": [1, None]}), True
        case "protobuf":
            return _UNKNOWN_FIELD, True
        case "packets":
            return b"\x7f\x00\x03new", True
    return None


def with_unknown_fields(dialect: Dialect, message: bytes, *, binary: bool) -> bytes | None:
    """Return the message with fields in it that nobody knows."""
    match form_of(dialect):
        case "json":
            body = json.loads(message)
            for value in body.values():
                if isinstance(value, dict):
                    value["talkpathUnknown"] = True
            return _json({**body, "talkpathUnknown": {"b": ["\u00e9", None]}})
        case "words" if not binary:
            if message.lstrip()[:1] == b"{":
                return _json({**json.loads(message), "talkpathUnknown": 1})
            if dialect.role is Role.APPLICATION:
                return None  # All behind a command's word is its one argument.
            return message + b" talkpath_unknown:1"
        case "msgpack":
            header = _header(message)
            if header[1] == 0:
                return None  # Audio goes from its header to the message's end.
            unpacker = _unpacker(message)
            unpacker.unpack()
            return _pack(header) + _pack({**unpacker.unpack(), "talkpath_unknown": 1})
        case "protobuf":
            return message + _UNKNOWN_FIELD
    return None


def with_other_numbers(dialect: Dialect, message: bytes) -> bytes | None:
    """Return the message with its numbers as text, and numbers that were text as numbers; the same figures."""
    if form_of(dialect) != "json":
        return None
    body = json.loads(message)
    changed = _turn(body)
    return _json(body) if changed else None


def sequence_of(dialect: Dialect, payload: bytes) -> int | None:
    """Return the number a message bears, whatever its kind; None where it has none, or where only audio has."""
    shape = dialect.media_shape()
    match form_of(dialect):
        case "json":
            message = json.loads(payload)
            value = message.get(shape.sequence_key) if shape is not None and shape.sequence_key else None
            return int(value) if value is not None else None
        case "msgpack":
            return int(_header(payload)[2])
    return None


def stream_ids_in(dialect: Dialect, payload: bytes) -> set[str]:
    """Return every id of the stream that stands in a message."""
    if form_of(dialect) != "json":
        return set()
    message = json.loads(payload)
    places = [message, *(value for value in message.values() if isinstance(value, dict))]
    keys = ("streamId", "streamSid", "stream_id")
    return {place[key] for place in places for key in keys if isinstance(place.get(key), str)}


def _turn(body: dict[str, Any]) -> bool:
    changed = False
    for name, value in body.items():
        if isinstance(value, dict):
            changed |= _turn(value)
        elif name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            body[name] = str(value)
            changed = True
        elif name in _NUMBERS and isinstance(value, str) and value.isascii() and value.isdigit():
            body[name] = int(value)
            changed = True
    return changed


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _pack(value: object) -> bytes:
    packed: Any = msgpack.packb(value)
    return bytes(packed)


def _unpacker(message: bytes) -> Any:
    unpacker = msgpack.Unpacker()
    unpacker.feed(message)
    return unpacker


def _header(message: bytes) -> list[Any]:
    header: list[Any] = _unpacker(message).unpack()
    return header
