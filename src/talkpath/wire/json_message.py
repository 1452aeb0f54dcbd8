"""JSON messages of any wire, read with bounds and written strictly: what the text dialects share.

Read leniently where nothing hangs on it (numbers may be strings, ids may be missing), never where audio does
(payload, names of checkpoints, digits). A problem is the peer's: a `RemoteWireError` with a word for its kind. What is
wrong with what we would write is ours: a `LocalWireError`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn

from talkpath.errors import ConfigError, LocalWireError, RemoteWireError
from talkpath.events import Digit, MediaFormat, WireEvent
from talkpath.wire.dialect import Field, MediaTemplate

MARK_NAME_MAX: Final = 256
"""Characters of a checkpoint's name; no platform documents a bound."""
DIGITS_MAX: Final = 64
"""Digits in one message."""
ID_MAX: Final = 128
NUMBER_MAX: Final = 2**63 - 1

_NUMERAL: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9A-Da-d*#]+", re.ASCII)


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def dump_json(value: object) -> str:
    """Write compact JSON; what is not ASCII stays as it is."""
    return _encode(value)


def type_name(value: object) -> str:
    """Name the JSON type of a value in words."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def is_text(value: str) -> bool:
    """Whether a string is well-formed Unicode: JSON's escapes can write half a surrogate pair, UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def digits_problem(digits: str) -> str:
    """Say what is wrong with digits to be sent; empty when nothing is."""
    if not digits:
        return "no digits"
    if len(digits) > DIGITS_MAX:
        return f"{len(digits)} digits, at most {DIGITS_MAX} at once"
    if not _DIGITS.fullmatch(digits):
        if set(digits) & set("wW,"):
            return "pauses are not on this wire; send the digits before and after the pause one after the other"
        return "digits are 0-9 * # A-D"
    return ""


def check_max_message_bytes(n_bytes: int) -> None:
    """Raise ConfigError unless a wire's bound of one message is one that can be kept."""
    if not 1024 <= n_bytes <= 1 << 26:
        raise ConfigError(f"max_message_bytes is {n_bytes}; right is 1024 to {1 << 26}")


def shown(kind: str) -> str:
    """A kind of message as it may be logged: short and printable."""
    return "".join(c if c.isprintable() else "?" for c in kind[:64])


def fill(template: MediaTemplate, payload: bytes, *, sequence: int, chunk: int, timestamp_ms: int) -> bytes:
    """Write one media message of a text wire from its template, as the native core does."""
    numbers = {
        Field.PAYLOAD: base64.b64encode(payload),
        Field.SEQUENCE: b"%d" % sequence,
        Field.CHUNK: b"%d" % chunk,
        Field.TIMESTAMP_MS: b"%d" % timestamp_ms,
        Field.END: b"",
    }
    return b"".join(piece + numbers[field] for piece, field in zip(template.pieces, template.fields, strict=True))


def named(media_format: MediaFormat) -> str:
    """A format in words."""
    return f"{media_format.encoding} at {media_format.sample_rate_hz} Hz"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


class JsonMessages:
    """Reads and writes the JSON messages of one wire. Stateless; one per wire.

    Args:
        wire: its name, for errors.
    """

    def __init__(self, wire: str) -> None:
        self.wire = wire

    # Reading: what is wrong is the peer's ------------------------------------------------------------------------

    def refuse(self, kind: str, problem: str, event: str = "") -> NoReturn:
        """Raise `RemoteWireError` for something the peer wrote."""
        raise RemoteWireError(problem, wire=self.wire, event=event, kind=kind)

    def load(self, text: bytes | bytearray | memoryview | str, max_bytes: int) -> dict[str, Any]:
        """Read one JSON object (RFC 8259; no NaN).

        Raises:
            RemoteWireError: ``too_long``, ``bad_utf8``, ``bad_json``, or ``bad_type`` when it is something else than
                an object.
        """
        length = text.nbytes if isinstance(text, memoryview) else len(text)
        if length > max_bytes:
            self.refuse("too_long", f"{length} bytes, at most {max_bytes} are read")
        if not isinstance(text, str):
            try:
                text = bytes(text).decode()
            except UnicodeDecodeError as error:
                raise RemoteWireError("not UTF-8", wire=self.wire, offset=error.start, kind="bad_utf8") from None
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise RemoteWireError("not JSON", wire=self.wire, offset=error.pos, kind="bad_json") from None
        except (ValueError, RecursionError):
            # NaN and its like, integers of thousands of digits, nesting deeper than the interpreter allows.
            raise RemoteWireError("not JSON that can be read", wire=self.wire, kind="bad_json") from None
        if not isinstance(value, dict):
            self.refuse("bad_type", f"the message is {type_name(value)}, not an object")
        return value

    def kind(self, message: dict[str, Any], key: str = "event") -> str:
        """Return what kind of message it is."""
        kind = message.get(key)
        if kind is None:
            self.refuse("missing_field", f"no {key}")
        if not isinstance(kind, str):
            self.refuse("bad_type", f"{key} is {type_name(kind)}, not text")
        return kind

    def inner(self, message: dict[str, Any], key: str, event: str) -> dict[str, Any]:
        """Return an inner object that must be there."""
        value = message.get(key)
        if value is None:
            self.refuse("missing_field", f"no {key}", event)
        if not isinstance(value, dict):
            self.refuse("bad_type", f"{key} is {type_name(value)}, not an object", event)
        return value

    def id(self, value: object, key: str, event: str) -> str:
        """Read an id: text, or a whole number; empty when absent."""
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX:
            return str(value)
        if not isinstance(value, str):
            self.refuse("bad_type", f"{key} is {type_name(value)}, not text", event)
        if len(value) > ID_MAX:
            self.refuse("too_long", f"{key} has {len(value)} characters, at most {ID_MAX} are read", event)
        if not is_text(value):
            self.refuse("bad_value", f"{key} is not well-formed Unicode", event)
        return value

    def number(self, message: dict[str, Any], key: str, event: str) -> int | None:
        """Read a whole number, or a string of digits; None when absent."""
        value = message.get(key)
        if value is None:
            return None
        if isinstance(value, str) and _NUMERAL.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse("bad_type", f"{key} is {type_name(value)}, not a whole number", event)
        if not 0 <= value <= NUMBER_MAX:
            self.refuse("bad_value", f"{key} is out of range", event)
        return value

    def track(self, body: dict[str, Any], event: str, key: str = "track") -> str:
        """Read a track: ``inbound`` or ``outbound``, with or without ``_track``; inbound when absent."""
        track = body.get(key)
        if track is None:
            return "inbound"
        if not isinstance(track, str):
            self.refuse("bad_type", f"{key} is {type_name(track)}, not text", event)
        if track not in ("inbound", "outbound"):
            if track in ("inbound_track", "outbound_track"):
                return track.removesuffix("_track")
            self.refuse("bad_value", f"{key} is neither inbound nor outbound", event)
        return track

    def payload(self, body: dict[str, Any], event: str, key: str = "payload") -> bytes:
        """Read audio that must be there, as canonical base64."""
        payload = body.get(key)
        if payload is None:
            self.refuse("missing_field", f"no {key}", event)
        if not isinstance(payload, str):
            self.refuse("bad_type", f"{key} is {type_name(payload)}, not text", event)
        try:
            decoded = base64.b64decode(payload.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            self.refuse("bad_base64", f"{key} is not base64", event)
        # Bits left over in the last character mean a broken encoder; the native reader refuses them, so this one does.
        tail = len(decoded) % 3
        if len(payload) % 4 or (tail and base64.b64encode(decoded[-tail:]).decode() != payload[-4:]):
            self.refuse("bad_base64", f"{key} is not canonical base64", event)
        return decoded

    def mark_name(self, body: dict[str, Any], event: str, key: str = "name") -> str:
        """Read the name of a checkpoint."""
        name = body.get(key)
        if name is None:
            self.refuse("missing_field", f"no {key}", event)
        if not isinstance(name, str):
            self.refuse("bad_type", f"{key} is {type_name(name)}, not text", event)
        if len(name) > MARK_NAME_MAX:
            self.refuse("too_long", f"{key} has {len(name)} characters, at most {MARK_NAME_MAX} are read", event)
        if not name or not is_text(name):
            self.refuse("bad_value", f"{key} is empty or not well-formed Unicode", event)
        return name

    def digits(self, body: dict[str, Any], event: str, key: str = "dtmf") -> str:
        """Read digits to be sent, in capitals."""
        digits = body.get(key)
        if digits is None:
            self.refuse("missing_field", f"no {key}", event)
        if not isinstance(digits, str):
            self.refuse("bad_type", f"{key} is {type_name(digits)}, not text", event)
        problem = digits_problem(digits)
        if problem:
            self.refuse("too_long" if len(digits) > DIGITS_MAX else "bad_value", problem, event)
        return digits.upper()

    def digit(self, body: dict[str, Any], event: str, *, timestamp_key: str = "", duration_key: str = "") -> Digit:
        """Read a digit that was pressed."""
        digit = body.get("digit")
        if digit is None:
            self.refuse("missing_field", "no digit", event)
        if isinstance(digit, int) and not isinstance(digit, bool) and 0 <= digit <= 9:
            digit = str(digit)
        if not isinstance(digit, str):
            self.refuse("bad_type", f"digit is {type_name(digit)}, not text", event)
        if len(digit) != 1 or not _DIGITS.fullmatch(digit):
            self.refuse("bad_value", "digit is not one of 0-9 * # A-D", event)
        return Digit(
            digit.upper(),
            track=self.track(body, event),
            timestamp_ms=self.number(body, timestamp_key, event) if timestamp_key else None,
            duration_ms=self.number(body, duration_key, event) if duration_key else None,
        )

    def text_of(self, value: object, event: str) -> str:
        """Write a custom parameter that is no text as JSON; empty for null."""
        try:
            text = "" if value is None else dump_json(value)
        except RecursionError:
            self.refuse("bad_value", "a custom parameter is nested too deep", event)
        if not is_text(text):
            self.refuse("bad_value", "a custom parameter is not well-formed Unicode", event)
        return text

    # Writing: what is wrong is ours ------------------------------------------------------------------------------

    def blame(self, event: str, kind: str, problem: str) -> NoReturn:
        """Raise `LocalWireError` for something we would write."""
        raise LocalWireError(problem, wire=self.wire, event=event, kind=kind)

    def not_ours(self, command: WireEvent, whose: str) -> LocalWireError:
        """Return the error for a command of the other end's."""
        return LocalWireError(f"this is {whose}", wire=self.wire, event=type(command).__name__, kind="bad_state")

    def write(self, message: dict[str, object], event_key: str = "event") -> bytes:
        """Write a message."""
        try:
            return dump_json(message).encode()
        except UnicodeEncodeError:
            self.blame(str(message[event_key]), "bad_value", "what is sent is well-formed Unicode")

    def check_mark_name(self, name: str, event: str) -> None:
        """Refuse a checkpoint's name that cannot be sent."""
        if not 1 <= len(name) <= MARK_NAME_MAX or not is_text(name):
            self.blame(
                event, "bad_value", f"a checkpoint's name is 1 to {MARK_NAME_MAX} characters of well-formed Unicode"
            )

    def check_digit(self, digit: str, event: str) -> None:
        """Refuse a digit that is none."""
        if len(digit) != 1 or not _DIGITS.fullmatch(digit):
            self.blame(event, "bad_value", "a digit is one of 0-9 * # A-D")
