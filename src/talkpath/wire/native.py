"""talkpath's own wire, both ends: binary WebSocket messages, a msgpack header before raw audio or one msgpack map.

Every message is a header, the msgpack array ``[1, kind, sequence, position, track]``, and what it announces: for audio
the payload to the message's end, for everything else one msgpack map. It says all that the engine knows: how each
checkpoint came out and at which sample, pause and resume, a clear's confirmation, digits, both tracks on one sample
clock, the platform's counters. Both ends number their messages, from 1, for people who compare two
logs; nothing depends on the numbers, because a WebSocket neither loses nor reorders.

``docs/wire-native.md`` is the specification; it is enough to write another implementation from.

Source: ours; msgpack's format specification.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import msgpack

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
from talkpath.records import Outcome
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role, ShapeKind
from talkpath.wire.json_message import (
    ID_MAX,
    MARK_NAME_MAX,
    NUMBER_MAX,
    check_max_message_bytes,
    digits_problem,
    is_text,
    named,
)

WIRE: Final = "native"
VERSION: Final = 1
FORMATS: Final = (
    ("PCMU", 8000),
    ("PCMA", 8000),
    ("L16", 8000),
    ("L16", 16000),
    ("L16", 24000),
    ("L16", 48000),
)
PARAMETERS_MAX: Final = 256
PARAMETER_MAX: Final = 4096
"""Characters of one custom parameter's name and value together."""
SEQUENCES: Final = 1 << 32
"""Message numbers begin anew after so many: in 2.7 years."""
_HEADER_ITEMS_MAX: Final = 16
_TRACKS: Final = ("", "inbound", "outbound")


class Kind(enum.IntEnum):
    """What a message is; the second number of its header."""

    AUDIO = 0
    START = 1
    STOP = 2
    DIGIT = 3
    MARK_REACHED = 4
    CLEARED = 5
    STATISTICS = 6
    DIGITS_SENT = 7
    ERROR = 8
    MARK = 16
    CLEAR = 17
    PAUSE = 18
    RESUME = 19
    SEND_DIGITS = 20
    QUERY_STATISTICS = 21
    HANG_UP = 22


_FROM_PLATFORM: Final = frozenset(kind for kind in Kind if kind < Kind.MARK)
_FROM_APPLICATION: Final = frozenset((Kind.AUDIO, *(kind for kind in Kind if kind >= Kind.MARK)))


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """Choices of the native wire."""

    big_endian: bool = False
    """Platform: byte order of L16 samples; the start message tells it."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread."""

    def __post_init__(self) -> None:
        check_max_message_bytes(self.max_message_bytes)

    @property
    def timestamp_from_start(self) -> bool:
        """Positions count samples from the stream's start."""
        return True


class NativeDialect(Dialect):
    """One end of one native stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: the stream's format. Its byte order is not looked at; `options` says it.
        options: Choices.

    Raises:
        ConfigError: a format that this wire does not carry.
    """

    wire: str = WIRE
    writes_binary: bool = True
    reports_errors: bool = True
    confirms_digits: bool = True
    returns_marks_on_clear: bool = True
    """With their outcome: nothing about them is a guess."""
    confirms_clear: bool = True

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: NativeOptions = NativeOptions(),
    ) -> None:
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = replace(media_format, big_endian=options.big_endian and media_format.encoding == "L16")

    # Reading -----------------------------------------------------------------------------------------------------

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """This wire has no text messages. Raises RemoteWireError."""
        _refuse("text", "a text message; this wire is binary")

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """Turn one whole binary message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        if len(data) > self.options.max_message_bytes:
            _refuse("too_long", f"{len(data)} bytes, at most {self.options.max_message_bytes} are read")
        unpacker = msgpack.Unpacker(
            max_buffer_size=max(len(data), 1), strict_map_key=True, max_map_len=1024, max_array_len=64, max_ext_len=0
        )
        unpacker.feed(data)
        header = _next(unpacker)
        if not isinstance(header, list) or not 5 <= len(header) <= _HEADER_ITEMS_MAX:
            _refuse("bad_header", "no header of 5 numbers")
        for number in header[:5]:
            if type(number) is not int or not 0 <= number <= NUMBER_MAX:
                _refuse("bad_header", "the header's numbers are whole and not negative")
        version, kind, sequence, position, track = header[:5]
        if version != VERSION:
            _refuse("bad_version", f"version {version}; this is version {VERSION}")
        if track >= len(_TRACKS):
            _refuse("bad_header", f"track {track} is none")
        if kind == Kind.AUDIO:
            return (self._read_audio(data[unpacker.tell() :], sequence, position, _TRACKS[track]),)
        body = _next(unpacker)
        if not isinstance(body, dict):
            _refuse("bad_type", "what follows the header is not a map")
        if unpacker.tell() != len(data):
            _refuse("trailing", f"{len(data) - unpacker.tell()} bytes behind the map")
        allowed = _FROM_APPLICATION if self.role is Role.PLATFORM else _FROM_PLATFORM
        if kind not in allowed:
            return (UnknownMessage(f"kind_{kind}"),)
        return (self._read(Kind(kind), body, position, _TRACKS[track]),)

    def _read_audio(self, payload: bytes, sequence: int, position: int, track: str) -> Media:
        if not self.stream_id:
            _refuse("bad_state", "audio before start", "AUDIO")
        if len(payload) % self.media_format.sample_bytes:
            _refuse("odd_length", f"{len(payload)} bytes of 16-bit audio", "AUDIO")
        if self.role is Role.PLATFORM:
            return Media(payload, track="outbound", sequence=sequence, position=position)
        return Media(payload, track=track or "inbound", sequence=sequence, position=position)

    def _read(self, kind: Kind, body: dict[Any, Any], position: int, track: str) -> WireEvent:
        event = kind.name
        match kind:
            case Kind.START:
                return self._read_start(body)
            case Kind.STOP:
                return StreamStopped(_text(body, "reason", event, most=256))
            case Kind.DIGIT:
                digit = _text(body, "digit", event, least=1, most=1).upper()
                if digits_problem(digit):
                    _refuse("bad_value", "digit is not one of 0-9 * # A-D", event)
                return Digit(
                    digit,
                    track=track or "inbound",
                    timestamp_ms=_number(body, "timestamp_ms", event),
                    duration_ms=_number(body, "duration_ms", event),
                )
            case Kind.MARK_REACHED:
                outcome = _text(body, "outcome", event, least=1)
                if outcome not in _OUTCOMES:
                    _refuse("bad_value", "outcome is not PLAYED, CLEARED or LOST", event)
                name = _text(body, "name", event, least=1, most=MARK_NAME_MAX)
                return MarkReached(name, _OUTCOMES[outcome], position)
            case Kind.CLEARED:
                return Cleared()
            case Kind.STATISTICS:
                counters = body.get("counters")
                if not isinstance(counters, dict) or not all(
                    isinstance(name, str) and type(value) is int for name, value in counters.items()
                ):
                    _refuse("bad_type", "counters is not a map of text to whole numbers", event)
                return PlatformStatistics(counters)
            case Kind.DIGITS_SENT:
                return DigitsSent(begun=_flag(body, "begun", event))
            case Kind.ERROR:
                return PlatformError(_text(body, "message", event, most=1024))
            case Kind.MARK:
                return Mark(_text(body, "name", event, least=1, most=MARK_NAME_MAX))
            case Kind.CLEAR:
                return Clear()
            case Kind.PAUSE:
                return Pause()
            case Kind.RESUME:
                return Resume()
            case Kind.SEND_DIGITS:
                digits = _text(body, "digits", event)
                problem = digits_problem(digits)
                if problem:
                    _refuse("bad_value", problem, event)
                return SendDigits(digits.upper())
            case Kind.QUERY_STATISTICS:
                return QueryStatistics()
        return HangUp()

    def _read_start(self, body: dict[Any, Any]) -> StreamStarted:
        event = "START"
        if self.stream_id:
            _refuse("bad_state", "a second start on one connection", event)
        stream_id = _text(body, "stream_id", event, least=1, most=ID_MAX)
        tracks = _given(body, "tracks", ["inbound"])
        if not isinstance(tracks, list) or not tracks or not all(track in _TRACKS[1:] for track in tracks):
            _refuse("bad_value", "tracks is not a list of inbound and outbound", event)
        encoding, rate_hz = _text(body, "encoding", event, least=1), _number(body, "sample_rate_hz", event)
        if (encoding, rate_hz) not in FORMATS or rate_hz is None:
            _refuse("unknown_format", f"an encoding and rate this wire does not have, at {rate_hz} Hz", event)
        big_endian = _flag(body, "big_endian", event)
        custom = _given(body, "custom_parameters", {})
        if not isinstance(custom, dict) or not all(
            isinstance(name, str) and isinstance(value, str) for name, value in custom.items()
        ):
            _refuse("bad_type", "custom_parameters is not a map of text to text", event)
        if len(custom) > PARAMETERS_MAX:
            _refuse("too_long", f"{len(custom)} custom parameters, at most {PARAMETERS_MAX} are read", event)
        media_format = MediaFormat(encoding, rate_hz, big_endian and encoding == "L16")
        started = StreamStarted(
            stream_id=stream_id,
            call_id=_text(body, "call_id", event, most=ID_MAX),
            account_id=_text(body, "account_id", event, most=ID_MAX),
            tracks=tuple(track for track in _TRACKS[1:] if track in tracks),
            media_format=media_format,
            custom_parameters=custom,
            clock_rate_hz=_number(body, "clock_rate_hz", event) or 0,
        )
        self.stream_id, self.media_format = stream_id, media_format
        return started

    # Writing -----------------------------------------------------------------------------------------------------

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number: all do."""
        return not isinstance(command, Handshaken)

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes; `track` is ``inbound`` or ``outbound`` (platform only).

        Raises:
            LocalWireError: no such track, or the stream has not been started yet.
        """
        self._check_started("AUDIO")
        if self.role is Role.APPLICATION:
            track = "outbound"
        if track not in _TRACKS[1:]:
            _blame("AUDIO", "bad_value", "the track of a media message is inbound or outbound")
        # The header's numbers in their widest forms, so that each message has one length.
        return MediaTemplate(
            (b"\x95\x01\x00\xce", b"\xcf", bytes((_TRACKS.index(track),)), b""),
            (Field.SEQUENCE_32, Field.SAMPLE_64, Field.BYTES, Field.END),
            binary=True,
        )

    def media_shape(self) -> MediaShape:
        """Describe the media message that the other end sends."""
        return MediaShape("", kind=ShapeKind.NATIVE)

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or one binary message; `sequence` is the stream's next message number.

        Raises:
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if isinstance(command, Handshaken):
            return ()
        if isinstance(command, Media):
            return (self._write_audio(command, sequence),)
        kind, body, position, track = self._describe(command)
        if kind not in (_FROM_PLATFORM if self.role is Role.PLATFORM else _FROM_APPLICATION):
            other = "application" if self.role is Role.PLATFORM else "platform"
            _blame(kind.name, "bad_state", f"this is the {other}'s to send")
        if kind is not Kind.START:
            self._check_started(kind.name)
        try:
            message = _header(kind, sequence, position, track) + _packed(body)
        except UnicodeEncodeError:
            _blame(kind.name, "bad_value", "what is sent is well-formed Unicode")
        if isinstance(command, StreamStarted):
            self.stream_id = command.stream_id
        return (message,)

    def _describe(self, command: WireEvent) -> tuple[Kind, dict[str, object], int, str]:
        match command:
            case StreamStarted():
                return Kind.START, self._describe_start(command), 0, ""
            case StreamStopped(reason=reason):
                return Kind.STOP, {"reason": reason} if reason else {}, 0, ""
            case Digit(digit=digit, track=track, timestamp_ms=timestamp_ms, duration_ms=duration_ms):
                if len(digit) != 1 or digits_problem(digit):
                    _blame("DIGIT", "bad_value", "a digit is one of 0-9 * # A-D")
                body: dict[str, object] = {"digit": digit.upper()}
                if timestamp_ms is not None:
                    body["timestamp_ms"] = timestamp_ms
                if duration_ms is not None:
                    body["duration_ms"] = duration_ms
                return Kind.DIGIT, body, 0, track
            case MarkReached(name=name, outcome=outcome, at_sample=at_sample):
                _check_name("MARK_REACHED", name)
                return Kind.MARK_REACHED, {"name": name, "outcome": _OUTCOME_NAMES[outcome]}, at_sample or 0, "outbound"
            case Cleared():
                return Kind.CLEARED, {}, 0, ""
            case PlatformStatistics(counters=counters):
                return Kind.STATISTICS, {"counters": dict(counters)}, 0, ""
            case DigitsSent(begun=begun):
                return Kind.DIGITS_SENT, {"begun": begun}, 0, ""
            case PlatformError(message=message):
                return Kind.ERROR, {"message": message[:1024]}, 0, ""
            case Mark(name=name):
                _check_name("MARK", name)
                return Kind.MARK, {"name": name}, 0, ""
            case Clear():
                return Kind.CLEAR, {}, 0, ""
            case Pause():
                return Kind.PAUSE, {}, 0, ""
            case Resume():
                return Kind.RESUME, {}, 0, ""
            case SendDigits(digits=digits):
                problem = digits_problem(digits)
                if problem:
                    _blame("SEND_DIGITS", "bad_value", problem)
                return Kind.SEND_DIGITS, {"digits": digits.upper()}, 0, ""
            case QueryStatistics():
                return Kind.QUERY_STATISTICS, {}, 0, ""
            case HangUp():
                return Kind.HANG_UP, {}, 0, ""
        raise LocalWireError(
            "this wire has other words for it", wire=WIRE, event=type(command).__name__, kind="bad_value"
        )

    def _describe_start(self, started: StreamStarted) -> dict[str, object]:
        event = "START"
        if self.stream_id:
            _blame(event, "bad_state", "the stream has been started already")
        if replace(started.media_format, big_endian=False) != replace(self.media_format, big_endian=False):
            _blame(event, "unknown_format", f"this stream was made for {named(self.media_format)}")
        if not started.tracks or not set(started.tracks) <= set(_TRACKS[1:]):
            _blame(event, "bad_value", "the tracks of a stream are inbound, outbound or both")
        for what, value in (("stream_id", started.stream_id), ("call_id", started.call_id)):
            if not 1 <= len(value) <= ID_MAX:
                _blame(event, "bad_value", f"{what} is not 1 to {ID_MAX} characters")
        try:
            check_parameters(started.custom_parameters)
        except ConfigError as error:
            _blame(event, "bad_value", str(error))
        return {
            "stream_id": started.stream_id,
            "call_id": started.call_id,
            "account_id": started.account_id[:ID_MAX],
            "tracks": list(started.tracks),
            "encoding": self.media_format.encoding,
            "sample_rate_hz": self.media_format.sample_rate_hz,
            "big_endian": self.media_format.big_endian,
            "clock_rate_hz": started.clock_rate_hz or self.media_format.sample_rate_hz,
            "custom_parameters": dict(started.custom_parameters),
        }

    def _write_audio(self, media: Media, sequence: int) -> bytes:
        if len(media.payload) % self.media_format.sample_bytes:
            _blame("AUDIO", "odd_length", "L16 audio has an even number of bytes")
        pieces = self.media_template(media.track).pieces
        numbers = ((sequence % SEQUENCES).to_bytes(4, "big"), (media.position or 0).to_bytes(8, "big"))
        return b"".join((pieces[0], numbers[0], pieces[1], numbers[1], pieces[2], media.payload))

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            _blame(event, "bad_state", "nothing is known of the stream before its start message")


_OUTCOMES: Final = {"PLAYED": Outcome.PLAYED, "CLEARED": Outcome.CLEARED, "LOST": Outcome.LOST}
_OUTCOME_NAMES: Final[Mapping[Outcome | None, str]] = {
    None: "PLAYED",
    **{outcome: name for name, outcome in _OUTCOMES.items()},
}


def check_format(media_format: MediaFormat) -> None:
    """Refuse a stream format that this wire does not carry. Raises ConfigError."""
    if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS:
        raise ConfigError(
            f"codec {named(media_format)} is not on the native wire; right is "
            + ", ".join(f"{encoding} at {rate_hz} Hz" for encoding, rate_hz in FORMATS)
        )


def check_parameters(custom_parameters: Mapping[str, str]) -> None:
    """Refuse custom parameters that are too many or too long. Raises ConfigError."""
    if len(custom_parameters) > PARAMETERS_MAX:
        raise ConfigError(f"{len(custom_parameters)} custom parameters; the native wire has at most {PARAMETERS_MAX}")
    for name, value in custom_parameters.items():
        if not isinstance(name, str) or not isinstance(value, str) or not is_text(name) or not is_text(value):
            raise ConfigError("custom parameters have names and values that are well-formed text")
        if len(name) + len(value) > PARAMETER_MAX:
            raise ConfigError(f"the custom parameter {name[:64]!a} has more than {PARAMETER_MAX} characters")


def _header(kind: Kind, sequence: int, position: int, track: str) -> bytes:
    return _packed([VERSION, int(kind), sequence % SEQUENCES, position, _TRACKS.index(track)])


def _packed(value: object) -> bytes:
    packed: bytes | None = msgpack.packb(value)
    assert packed is not None, "only a packer that keeps its buffer gives nothing"
    return packed


def _next(unpacker: msgpack.Unpacker) -> Any:
    try:
        return unpacker.unpack()
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        _refuse("bad_msgpack", "not msgpack, or cut short")


def _text(body: dict[Any, Any], key: str, event: str, *, least: int = 0, most: int = 256) -> str:
    value = body.get(key)
    if value is None:
        if least:
            _refuse("missing_field", f"no {key}", event)
        return ""
    if not isinstance(value, str):
        _refuse("bad_type", f"{key} is not text", event)
    if not least <= len(value) <= most:
        _refuse("bad_value", f"{key} has {len(value)} characters, not {least} to {most}", event)
    return value


def _given(body: dict[Any, Any], key: str, default: Any) -> Any:
    value = body.get(key)
    return default if value is None else value


def _flag(body: dict[Any, Any], key: str, event: str) -> bool:
    value = _given(body, key, False)
    if not isinstance(value, bool):
        _refuse("bad_type", f"{key} is not a boolean", event)
    return value


def _number(body: dict[Any, Any], key: str, event: str) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        _refuse("bad_type", f"{key} is not a whole number from 0", event)
    return value


def _check_name(event: str, name: str) -> None:
    if not 1 <= len(name) <= MARK_NAME_MAX or not is_text(name):
        _blame(event, "bad_value", f"a checkpoint's name is 1 to {MARK_NAME_MAX} characters of well-formed Unicode")


def _refuse(kind: str, problem: str, event: str = "") -> NoReturn:
    raise RemoteWireError(problem, wire=WIRE, event=event, kind=kind)


def _blame(event: str, kind: str, problem: str) -> NoReturn:
    raise LocalWireError(problem, wire=WIRE, event=event, kind=kind)
