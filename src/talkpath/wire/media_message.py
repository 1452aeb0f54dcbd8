"""The media message's template and shape, compiled for the native core.

A dialect describes its media message in Python values; the native core executes the description fifty times a second.
Here the one becomes the other, once per stream, and everything that could be wrong with a description is said here,
so that C need not check. `write_media` and `read_media` are the same two operations one message at a time, for tests
and for whatever is rare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError, NativeError
from talkpath.wire.dialect import Field, MediaShape, MediaTemplate, ShapeKind

_TRACKS = {0: "", 1: "inbound", 2: "outbound"}
_AT_TOP = ("event_key", "object_key", "sequence_key")
_NOT_NAMES = ("event_value", "encoding_name")


@dataclass(frozen=True, slots=True)
class MediaFields:
    """What one media message says, as the native reader sees it."""

    payload_text: bytes
    """Base64, not yet validated."""
    encoding: str
    """As the wire writes it; empty when absent."""
    track: str
    """``inbound``, ``outbound``, or empty when absent."""
    rate_hz: int | None
    timestamp: int | None
    chunk: int | None
    sequence: int | None


def _bytes_of_its_own(n: int) -> Any:
    return ffi.new("uint8_t[]", n)


def compile_template(template: MediaTemplate, new_bytes: Callable[[int], Any] = _bytes_of_its_own) -> Any:
    """Compile a media template for the native writer.

    Args:
        template: of a dialect.
        new_bytes: gives the owning ``uint8_t[n]`` that it is to lie in.

    Returns:
        An owning ``tp_media_template *``; keep it as long as anything points to it.

    Raises:
        ConfigError: too many or too long pieces, or fields that do not fit them; the dialect's author is to blame.
    """
    pieces, kinds = template.pieces, template.fields
    if len(pieces) != len(kinds) or not pieces:
        raise ConfigError(f"a media template needs one field per piece, not {len(kinds)} for {len(pieces)}")
    if len(pieces) > lib.TP_TEMPLATE_MAX_PIECES:
        raise ConfigError(f"a media template has at most {lib.TP_TEMPLATE_MAX_PIECES} pieces, not {len(pieces)}")
    if kinds[-1] is not Field.END or Field.END in kinds[:-1]:
        raise ConfigError("END follows the last piece of a media template and no other")
    own = Field.BYTES if template.binary else Field.PAYLOAD
    if kinds.count(own) != 1:
        raise ConfigError(f"a media template has its payload once, not {kinds.count(own)} times")
    if any((kind >= Field.BYTES) != template.binary for kind in kinds[:-1]):
        raise ConfigError("a text message has no fields of binary ones, nor the other way round")
    text = b"".join(pieces)
    if len(text) > lib.TP_TEMPLATE_MAX_TEXT:
        raise ConfigError(f"a media template has at most {lib.TP_TEMPLATE_MAX_TEXT} bytes of text, not {len(text)}")
    # One per stream and track, and of the longest text they have room for most need a tenth.
    n_bytes = ffi.offsetof("tp_media_template", "text") + len(text)
    compiled = ffi.new_allocator(lambda _: new_bytes(n_bytes), None, False)("tp_media_template *")
    compiled.n_pieces = len(pieces)
    compiled.text_bytes = len(text)
    compiled.binary = template.binary
    compiled.lengths[0 : len(pieces)] = [len(piece) for piece in pieces]
    compiled.fields[0 : len(pieces)] = [int(kind) for kind in kinds]
    ffi.memmove(compiled.text, text, len(text))
    return compiled


@lru_cache(maxsize=64)
def compile_shape(shape: MediaShape) -> Any:
    """Compile a media shape for the native reader.

    Returns:
        An owning ``tp_media_shape *``; keep it as long as anything points to it. Equal shapes share it: write nothing
        to it.

    Raises:
        ConfigError: a name that is too long, not plain ASCII, missing or used twice on one level; the dialect's author
            is to blame.
    """
    compiled = ffi.new("tp_media_shape *")
    compiled.kind = shape.kind
    if shape.kind is not ShapeKind.JSON:
        return compiled
    longest = lib.TP_SHAPE_MAX_NAME - 1
    seen: dict[tuple[bool, str], str] = {}
    for name in (field.name for field in fields(MediaShape) if field.name not in ("encoding_name", "kind")):
        value = getattr(shape, name)
        if len(value) > longest:
            raise ConfigError(f"{name} of a media shape has at most {longest} characters, not {len(value)}")
        if any(not " " <= character < "\x7f" or character in '"\\' for character in value):
            raise ConfigError(
                f"{name} of a media shape must be printable ASCII without quotes and backslashes: {value!r}"
            )
        if not value and name in ("event_key", "event_value", "payload_key"):
            raise ConfigError(f"{name} of a media shape cannot be empty")
        level = name in _AT_TOP or not shape.object_key
        if value and name not in _NOT_NAMES and (other := seen.setdefault((level, value), name)) != name:
            raise ConfigError(f"{name} and {other} of a media shape are both {value!r}")
        setattr(compiled, name, value.encode("ascii"))
    return compiled


def write_media(
    template: Any,
    payload: bytes,
    *,
    sequence: int = 0,
    chunk: int = 0,
    timestamp_ms: int = 0,
    sample: int = 0,
    mask_key: bytes | None = None,
) -> bytes:
    """Write one media message as a whole WebSocket frame, masked when there is a key of four bytes."""
    if mask_key is not None and len(mask_key) != 4:
        raise ConfigError(f"a mask key has 4 bytes, not {len(mask_key)}")
    out = ffi.new("uint8_t[]", lib.tp_media_message_room(template, len(payload)))
    numbers = ffi.new("tp_media_numbers *", (sequence, chunk, timestamp_ms, sample))
    written = lib.tp_media_message_write(
        out, len(out), template, numbers, payload, len(payload), ffi.NULL if mask_key is None else mask_key
    )
    if written < 0:
        raise NativeError(f"tp_media_message_write: {_status_name(written)}")
    return bytes(ffi.buffer(out, written))


def read_media(shape: Any, text: bytes) -> MediaFields | None:
    """Read one message's text; None when it is not surely the known shape and belongs to the dialect's own parser."""
    out = ffi.new("tp_media_fields *")
    if lib.tp_media_message_read(out, shape, text, len(text)) != 1:
        return None
    return MediaFields(
        payload_text=text[out.payload_offset : out.payload_offset + out.payload_bytes],
        encoding=text[out.encoding_offset : out.encoding_offset + out.encoding_bytes].decode("ascii"),
        track=_TRACKS[out.track],
        rate_hz=out.rate_hz or None,
        timestamp=_present(out.timestamp),
        chunk=_present(out.chunk),
        sequence=_present(out.sequence),
    )


def read_binary_media(shape: Any, data: bytes) -> tuple[bytes, str, int | None, int | None] | None:
    """Read one binary message: payload, track, sequence, position of the first sample; None as `read_media`."""
    out = ffi.new("tp_media_fields *")
    if lib.tp_media_message_read_binary(out, shape, data, len(data)) != 1:
        return None
    payload = data[out.payload_offset : out.payload_offset + out.payload_bytes]
    return payload, _TRACKS[out.track], _present(out.sequence), _present(out.timestamp)


def _present(number: int) -> int | None:
    return None if number < 0 else number


def _status_name(status: int) -> str:
    return str(ffi.string(lib.tp_status_name(status)).decode("ascii"))
