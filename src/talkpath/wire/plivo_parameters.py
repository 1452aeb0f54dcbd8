"""What Plivo's messages and documents share: the formats of audio, custom parameters, and JSON read with bounds.

Two spellings of each exist. A format is a content type with its rate (``audio/x-l16;rate=16000``) in documents and a
bare content type beside a number in messages. Custom parameters are ``k=v,k=v`` (or ``k=v;k=v``) in documents and, in
messages, the text of a JSON object; other forms have been seen and are read.

Source: Plivo's XML, REST and streaming reference pages, read 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.events import MediaFormat
from talkpath.wire.json_message import JsonMessages, dump_json, is_text

WIRE: Final = "plivo"

_JSON: Final = JsonMessages(WIRE)

EXTRA_HEADERS_MAX_BYTES: Final = 512
"""Plivo's bound on ``extraHeaders``, counted in its ``k=v,k=v`` form."""

ENCODINGS: Final = {"PCMU": "audio/x-mulaw", "L16": "audio/x-l16"}
"""How this wire writes an encoding."""

FORMATS_WRITTEN: Final = (("PCMU", 8000), ("L16", 8000), ("L16", 16000))

# 24 kHz stands in some of Plivo's pages only: it is read, so that such a stream does not fail, and never written.
FORMATS_READ: Final = (*FORMATS_WRITTEN, ("L16", 24000))

_EXTRA_HEADERS_MAX_ESCAPED: Final = 1000  # as it stands in a message: a media template holds 1,280 bytes in all
_EXTRA_HEADERS_READ_MAX: Final = 8192
_PARAMETERS_READ_MAX: Final = 256
_ENCODINGS_READ: Final = {name: encoding for encoding, name in ENCODINGS.items()}
_CONTENT_TYPE: Final = re.compile(r"\s*([A-Za-z0-9/.+-]{1,64})\s*(?:;\s*rate\s*=\s*([0-9]{1,6})\s*)?;?\s*", re.ASCII)
_PREFIX: Final = "x-ph-"


def check_format(media_format: MediaFormat) -> None:
    """Refuse a stream format that this wire does not write.

    Raises:
        ConfigError: the caller's; says which formats there are.
    """
    if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS_WRITTEN:
        raise ConfigError(
            f"codec {media_format.encoding} at {media_format.sample_rate_hz} Hz is not on the plivo wire; "
            "right is PCMU at 8000 Hz, or L16 at 8000 or 16000 Hz"
        )


def content_type(media_format: MediaFormat) -> str:
    """Write a format as a ``contentType`` attribute, for example ``audio/x-l16;rate=16000``.

    Raises:
        ConfigError: a format that this wire does not write.
    """
    check_format(media_format)
    return f"{ENCODINGS[media_format.encoding]};rate={media_format.sample_rate_hz}"


def read_content_type(text: str) -> tuple[str, int | None] | None:
    """Read ``audio/x-l16;rate=16000`` as (encoding, rate in Hz), the rate None where there is none; None: unknown."""
    match = _CONTENT_TYPE.fullmatch(text)
    encoding = _ENCODINGS_READ.get(match[1].lower()) if match else None
    if match is None or encoding is None:
        return None
    return encoding, int(match[2]) if match[2] else None


def write_extra_headers(custom_parameters: Mapping[str, str]) -> str:
    """Write custom parameters as ``extra_headers``: the text of one JSON object, ``{}`` when there are none.

    Raises:
        ConfigError: a name or value is no text, or all together are beyond Plivo's 512 bytes; says by how much.
    """
    if not custom_parameters:
        return "{}"
    for name, value in custom_parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigError(f"custom parameters are text, name and value; {name!r} is not")
        if not name or not is_text(name) or not is_text(value):
            raise ConfigError("a custom parameter's name is not empty, and name and value are well-formed Unicode")
    n_bytes = len(",".join(f"{name}={value}" for name, value in custom_parameters.items()).encode())
    if n_bytes > EXTRA_HEADERS_MAX_BYTES:
        raise ConfigError(
            f"custom parameters take {n_bytes} bytes written as k=v,k=v; right is at most {EXTRA_HEADERS_MAX_BYTES}"
        )
    text = dump_json(dict(custom_parameters))
    n_bytes = len(dump_json(text).encode())
    if n_bytes > _EXTRA_HEADERS_MAX_ESCAPED:
        raise ConfigError(
            f"custom parameters take {n_bytes} bytes as escaped JSON; right is at most {_EXTRA_HEADERS_MAX_ESCAPED}: "
            "use fewer or plainer ones"
        )
    return text


def read_extra_headers(text: str) -> dict[str, str]:
    """Read ``extra_headers`` in any form seen: a JSON object's text, ``{k: v, k: v}``, ``k=v;k=v``, ``k=v,k=v``.

    A prefix ``X-PH-`` of a name is taken off. Values are text; where JSON has another type, it is written as JSON.

    Raises:
        RemoteWireError: too long, or too many.
    """
    if len(text) > _EXTRA_HEADERS_READ_MAX:
        _JSON.refuse(
            "too_long", f"extra_headers has {len(text)} characters, at most {_EXTRA_HEADERS_READ_MAX} are read"
        )
    text = text.strip()
    if text.startswith("{"):
        try:
            value = _JSON.load(text, _EXTRA_HEADERS_READ_MAX * 4)
        except RemoteWireError:
            pairs = [part.partition(":") for part in text.removeprefix("{").removesuffix("}").split(",")]
            return collect_parameters((name, value.strip()) for name, _, value in pairs)
        return collect_parameters(value.items())
    pairs = [part.partition("=") for part in text.split(";" if ";" in text else ",")]
    return collect_parameters((name, value.strip()) for name, _, value in pairs)


def collect_parameters(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Custom parameters from (name, value) pairs of any make; names lose their prefix, empty names are left out."""
    parameters: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.strip()
        if name.lower().startswith(_PREFIX):
            name = name[len(_PREFIX) :]
        if not name:
            continue
        if isinstance(raw_value, str):
            value = raw_value
        else:
            try:
                value = "" if raw_value is None else dump_json(raw_value)
            except RecursionError:
                _JSON.refuse("bad_value", "extra_headers is nested too deep")
        if not is_text(name) or not is_text(value):
            _JSON.refuse("bad_value", "extra_headers is not well-formed Unicode")
        parameters[name] = value
    if len(parameters) > _PARAMETERS_READ_MAX:
        _JSON.refuse("too_long", f"{len(parameters)} custom parameters, at most {_PARAMETERS_READ_MAX} are read")
    return parameters
