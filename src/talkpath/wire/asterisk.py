"""Asterisk's media over WebSocket (``chan_websocket``), both ends.

Binary messages are audio, as it is, and nothing else; text messages are control, in plain words or in JSON. Asterisk
tells ``MEDIA_START``, ``DTMF_END``, ``MEDIA_MARK_PROCESSED``, ``STATUS`` and a few more; the application commands
``ANSWER``, ``HANGUP``, ``MARK_MEDIA``, ``FLUSH_MEDIA``, ``PAUSE_MEDIA``, ``CONTINUE_MEDIA``, ``GET_STATUS``. Either
side may have dialled: who commands is the application, whoever opened the socket.

``FLUSH_MEDIA`` is not answered, and the marks it drops never come back. Asterisk plays whole frames: a remainder
shorter than one is dropped, unless the application has asked for buffering, which an application's end here does at
once, and again after each flush, which ends it; a mark closes the buffer (the last frame is padded with silence),
follows the audio, and opens it again. A text command longer than 128 bytes is ignored by Asterisk without a word, so
names are short.

Source: Asterisk's documentation of the WebSocket channel driver (2026-05) and its source of 2026-08; the page
``docs/wire-asterisk.md`` says which of them each rule rests on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
    BufferDepth,
    Clear,
    Cleared,
    Digit,
    Handshaken,
    HangUp,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    Pause,
    PlatformError,
    QueryBuffer,
    Resume,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import Outcome
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role, ShapeKind
from talkpath.wire.json_message import ID_MAX, JsonMessages, check_max_message_bytes, dump_json, named, shown

WIRE: Final = "asterisk"
FORMATS: Final = (("PCMU", 8000), ("PCMA", 8000), ("L16", 8000), ("L16", 16000), ("L16", 24000), ("L16", 48000))
COMMAND_MAX: Final = 128
"""Bytes of a text command; Asterisk ignores longer ones."""
NAME_MAX: Final = 64
"""Characters of a mark's name: with the longest of the commands' forms around it, it stays below `COMMAND_MAX`."""
EVENT_MAX: Final = 1 << 16

_JSON: Final = JsonMessages(WIRE)
_WORD: Final = re.compile(r"[A-Za-z0-9._:/-]{1,64}", re.ASCII)
_NAME: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_NAMES: Final[Mapping[tuple[str, int], str]] = {
    ("PCMU", 8000): "ulaw",
    ("PCMA", 8000): "alaw",
    ("L16", 8000): "slin",
    ("L16", 16000): "slin16",
    ("L16", 24000): "slin24",
    ("L16", 48000): "slin48",
}
_FORMAT_OF: Final = {name: key for key, name in _NAMES.items()} | {"slin8": ("L16", 8000)}
_NAMED_EVENTS: Final = frozenset({"MEDIA_MARK_PROCESSED", "MEDIA_BUFFERING_COMPLETED"})
"""Plain events that have an id and nothing else behind their word."""
_COMPLETED: Final = "MEDIA_BUFFERING_COMPLETED "
"""Platform: begins the names of marks that stand for the end of a buffering."""


@dataclass(frozen=True, slots=True)
class AsteriskOptions:
    """What an Asterisk channel is configured to, and what is left to the application."""

    control: Literal["plain", "json"] = "plain"
    """Platform: how control messages are written (the dial string's ``f(json)``). An application answers in the form in
    which it was spoken to."""
    answer: bool = True
    """Application: say ``ANSWER`` at once; on an answered channel it changes nothing."""
    connection_id: str = "media"
    """Platform: what ``MEDIA_START`` names as the connection."""
    big_endian: bool = False
    """Byte order of linear audio: the machine's own, which is little-endian wherever Asterisk is common."""
    max_message_bytes: int = 65_500
    """A longer message is refused unread; Asterisk closes the socket on one."""

    def __post_init__(self) -> None:
        if self.control not in ("plain", "json"):
            raise ConfigError(f"control is {self.control!r}; right is plain or json")
        if not _WORD.fullmatch(self.connection_id):
            raise ConfigError("connection_id is not 1 to 64 letters, digits and - _ . : /")
        check_max_message_bytes(self.max_message_bytes)


class AsteriskDialect(Dialect):
    """One end of one WebSocket channel: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is: ``PLATFORM`` is Asterisk's.
        media_format: Platform: the channel's format. Its byte order is not looked at; `options` says it.
        options: What is left open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = WIRE
    reports_errors: bool = True

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: AsteriskOptions = AsteriskOptions(),
    ) -> None:
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = self._ordered(media_format.encoding, media_format.sample_rate_hz)
        self._json = role is Role.PLATFORM and options.control == "json"
        self._buffering = self._paused = False
        """Platform: what STATUS says of the application's commands."""

    def greeting(self) -> Sequence[bytes]:
        """What an application says as soon as it knows the channel."""
        answer = (self._command("ANSWER"),) if self.options.answer else ()
        return (*answer, self._command("START_MEDIA_BUFFERING"))

    # Reading -----------------------------------------------------------------------------------------------------

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        word, fields = self._read(text)
        if self.role is Role.PLATFORM:
            return self._read_command(word, fields)
        return self._read_event(word, fields)

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """A binary message is audio. Raises RemoteWireError: it is not whole samples, or came too early."""
        if not self.stream_id:
            _JSON.refuse("bad_state", "audio before MEDIA_START", "media")
        if len(data) > self.options.max_message_bytes:
            _JSON.refuse("too_long", f"{len(data)} bytes, at most {self.options.max_message_bytes} are read", "media")
        if len(data) % self.media_format.sample_bytes:
            _JSON.refuse("odd_length", f"{len(data)} bytes of 16-bit audio", "media")
        return (Media(data, track="outbound" if self.role is Role.PLATFORM else "inbound"),) if data else ()

    def _read(self, text: bytes | bytearray | memoryview | str) -> tuple[str, dict[str, Any]]:
        """Take a control message apart: its word, and its fields by name; a plain command's argument is ``id``."""
        raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        most = COMMAND_MAX if self.role is Role.PLATFORM else EVENT_MAX
        if len(raw) > most:
            _JSON.refuse("too_long", f"{len(raw)} bytes, at most {most} are read")
        if raw.lstrip()[:1] == b"{":
            message = _JSON.load(raw, most)
            if self.role is Role.APPLICATION:
                self._json = True
            return _JSON.kind(message, "command" if self.role is Role.PLATFORM else "event"), message
        try:
            words = raw.decode().split()
        except UnicodeDecodeError as error:
            raise RemoteWireError("not UTF-8", wire=WIRE, offset=error.start, kind="bad_utf8") from None
        if not words or not re.fullmatch(r"[A-Z_]{1,64}", words[0], re.ASCII):
            _JSON.refuse("bad_message", "a control message begins with a word in capitals")
        rest = raw.decode().strip()[len(words[0]) :].strip()
        if self.role is Role.PLATFORM or words[0] in _NAMED_EVENTS:
            return words[0], {"correlation_id": rest.removeprefix("correlation_id:")} if rest else {}
        fields: dict[str, Any] = {}
        pairs, said, text = rest.partition("error_text:")
        if said:
            fields["error_text"] = text
        for word in pairs.split():
            name, colon, value = word.partition(":")
            if colon:
                fields[name] = value
        return words[0], fields

    def _read_command(self, word: str, fields: dict[str, Any]) -> Sequence[WireEvent]:
        match word:
            case "MARK_MEDIA":
                return (Mark(_name(fields, word)),)
            case "FLUSH_MEDIA":
                # Documented to end a pause as well; the source does not, and a line sends CONTINUE_MEDIA too.
                self._buffering = self._paused = False
                return (Clear(),)
            case "PAUSE_MEDIA":
                self._paused = True
                return (Pause(),)
            case "CONTINUE_MEDIA":
                self._paused = False
                return (Resume(),)
            case "HANGUP":
                return (HangUp(),)
            case "GET_STATUS":
                return (QueryBuffer(),)
            case "START_MEDIA_BUFFERING":
                self._buffering = True
                return ()  # Nothing else depends on it: the queue here takes audio of any length.
            case "STOP_MEDIA_BUFFERING":
                self._buffering = False
                name = _name(fields, word)
                # Told behind the audio, as a mark is; who gives it no name does not wait for it.
                return (Mark(_COMPLETED + name),) if name else ()
            case "ANSWER":
                return ()  # The call is up.
        return (UnknownMessage(shown(word)),)

    def _read_event(self, word: str, fields: dict[str, Any]) -> Sequence[WireEvent]:
        if not self.stream_id and word != "MEDIA_START":
            _JSON.refuse("bad_state", "a message before MEDIA_START", shown(word))
        match word:
            case "MEDIA_START":
                return (self._read_start(fields),)
            case "DTMF_END":
                return (_JSON.digit(fields, word, duration_key="duration_ms"),)
            case "MEDIA_MARK_PROCESSED":
                return (MarkReached(_name(fields, word)),)
            case "STATUS":
                depth = _JSON.number(fields, "queue_length", word) or 0
                return (BufferDepth("audio", depth, _JSON.number(fields, "xoff_level", word) or 0),)
            case "ERROR":
                said = fields.get("error_text", fields.get("correlation_id", ""))
                return (PlatformError(shown(said) if isinstance(said, str) else ""),)
            case "MEDIA_XOFF" | "MEDIA_XON" | "QUEUE_DRAINED" | "MEDIA_BUFFERING_COMPLETED":
                return ()  # The line paces itself by its model, well below the queue's limit.
        return (UnknownMessage(shown(word)),)

    def _read_start(self, fields: dict[str, Any]) -> StreamStarted:
        event = "MEDIA_START"
        if self.stream_id:
            _JSON.refuse("bad_state", "a second start on one connection", event)
        written = fields.get("format")
        found = _FORMAT_OF.get(written.lower()) if isinstance(written, str) else None
        if found is None:
            _JSON.refuse("unknown_format", "a format other than ulaw, alaw and slin", event)
        channel_id = _JSON.id(fields.get("channel_id"), "channel_id", event)
        connection_id = _JSON.id(fields.get("connection_id"), "connection_id", event)
        variables = fields.get("channel_variables")
        custom: dict[str, str] = {}
        if isinstance(variables, dict) and len(variables) <= 256:
            custom = {name: value for name, value in variables.items() if isinstance(value, str)}
        self.stream_id = channel_id or connection_id or "media"
        self.media_format = self._ordered(*found)
        return StreamStarted(
            stream_id=self.stream_id,
            call_id=channel_id,
            account_id=connection_id,
            tracks=("inbound",),
            media_format=self.media_format,
            custom_parameters=custom,
        )

    # Writing -----------------------------------------------------------------------------------------------------

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number: none does."""
        return False

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes: payload and nothing else."""
        return MediaTemplate((b"", b""), (Field.BYTES, Field.END), binary=True)

    def media_shape(self) -> MediaShape:
        """Describe the media message that the other end sends."""
        return MediaShape("", kind=ShapeKind.BYTES)

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more text messages, audio as a binary one.

        Zero messages: the wire says it by silence (that a flush is done, what it dropped, that the channel is gone).

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if isinstance(command, Media):
            if len(command.payload) % self.media_format.sample_bytes:
                _blame("media", "odd_length", "linear audio has an even number of bytes")
            return (command.payload,)
        if self.role is Role.PLATFORM:
            return self._send_as_platform(command)
        return self._send_as_application(command)

    def _send_as_platform(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case StreamStarted():
                return (self._write_start(command),)
            case Digit(digit=digit, duration_ms=duration_ms):
                _JSON.check_digit(digit, "DTMF_END")
                held = {"duration_ms": duration_ms} if duration_ms is not None else {}
                return (self._event("DTMF_END", digit=digit.upper(), channel_id=self.stream_id, **held),)
            case MarkReached(name=name, outcome=outcome):
                if outcome is not Outcome.PLAYED:
                    return ()
                word = "MEDIA_MARK_PROCESSED"
                if name.startswith(_COMPLETED):
                    word, name = "MEDIA_BUFFERING_COMPLETED", name.removeprefix(_COMPLETED)
                if self._json:
                    return (self._event(word, channel_id=self.stream_id, correlation_id=name),)
                return (f"{word} {name}".rstrip().encode(),)
            case BufferDepth(depth=depth, size=size):
                flags = {"queue_full": depth >= size, "bulk_media": self._buffering, "media_paused": self._paused}
                levels = {"queue_length": depth, "xon_level": size * 8 // 9, "xoff_level": size}
                return (self._event("STATUS", channel_id=self.stream_id, **levels, **flags),)
            case PlatformError(message=message):
                return (self._event("ERROR", channel_id=self.stream_id, error_text=message),)
            case Cleared() | StreamStopped() | Handshaken():
                return ()
        raise _JSON.not_ours(command, "the application's to send; this end is the platform's")

    def _send_as_application(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case Mark(name=name):
                if not _NAME.fullmatch(name):
                    _blame("MARK_MEDIA", "bad_value", f"a mark's name is 1 to {NAME_MAX} visible ASCII characters here")
                # Asterisk holds back what is no whole frame: closing the buffer lets it out in front of the mark.
                return (
                    self._command("STOP_MEDIA_BUFFERING"),
                    self._command("MARK_MEDIA", name),
                    self._command("START_MEDIA_BUFFERING"),
                )
            case Clear():
                # Asterisk's source ends the buffering with the flush.
                return (self._command("FLUSH_MEDIA"), self._command("START_MEDIA_BUFFERING"))
            case Pause():
                return (self._command("PAUSE_MEDIA"),)
            case Resume():
                return (self._command("CONTINUE_MEDIA"),)
            case QueryBuffer():
                return (self._command("GET_STATUS"),)
            case HangUp():
                return (self._command("HANGUP"),)
            case SendDigits():
                raise NotOnThisWire(WIRE, "command that sends digits", "playing their tones as audio, or the dialplan")
            case StreamStopped():
                raise NotOnThisWire(WIRE, "message that ends the stream alone", "HANGUP, or closing the WebSocket")
            case Handshaken():
                return ()
        if isinstance(command, (StreamStarted, Digit, MarkReached, Cleared, BufferDepth)):
            raise _JSON.not_ours(command, "the platform's to send; this end is the application's")
        raise NotOnThisWire(WIRE, f"command for {type(command).__name__}", "mark, flush, pause and hang-up")

    def _write_start(self, started: StreamStarted) -> bytes:
        if self.stream_id:
            _blame("MEDIA_START", "bad_state", "the stream has been started already")
        if started.tracks != ("inbound",):
            _blame("MEDIA_START", "bad_value", "this wire has no track but the caller's")
        for what, value in (("stream_id", started.stream_id), ("call_id", started.call_id)):
            if not _WORD.fullmatch(value):
                _blame("MEDIA_START", "bad_value", f"{what} is not 1 to 64 letters, digits and - _ . : /")
        if started.custom_parameters and not self._json:
            _blame("MEDIA_START", "bad_value", "channel variables travel in JSON control only: control='json'")
        media_format = self.media_format
        fields: dict[str, object] = {
            "connection_id": self.options.connection_id,
            "channel": f"WebSocket/{self.options.connection_id}",
            "channel_id": started.call_id,
            "format": _NAMES[media_format.encoding, media_format.sample_rate_hz],
            "optimal_frame_size": media_format.sample_rate_hz // 50 * media_format.sample_bytes,
            "ptime": 20,
        }
        if self._json:
            fields["channel_variables"] = dict(started.custom_parameters)
        self.stream_id = started.call_id
        return self._event("MEDIA_START", **fields)

    def _event(self, word: str, **fields: object) -> bytes:
        if self._json:
            return dump_json({"event": word, **fields}).encode()
        written = (
            f"{name}:{str(value).lower() if isinstance(value, bool) else value}" for name, value in fields.items()
        )
        return " ".join((word, *written)).encode()

    def _command(self, word: str, name: str = "") -> bytes:
        if not self._json:
            return f"{word} {name}".rstrip().encode()
        text = dump_json({"command": word, **({"correlation_id": name} if name else {})}).encode()
        if len(text) > COMMAND_MAX:
            _blame(word, "too_long", f"{len(text)} bytes in JSON; Asterisk ignores commands of more than {COMMAND_MAX}")
        return text

    def _ordered(self, encoding: str, rate_hz: int) -> MediaFormat:
        return MediaFormat(encoding, rate_hz, self.options.big_endian and encoding == "L16")


def check_format(media_format: MediaFormat) -> None:
    """Refuse a format that this wire does not write. Raises ConfigError."""
    if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS:
        raise ConfigError(
            f"codec {named(media_format)} is not on the asterisk wire; right is PCMU or PCMA at 8000 Hz, or L16 at "
            "8000, 16000, 24000 or 48000 Hz"
        )


def _name(fields: dict[str, Any], word: str) -> str:
    name = fields.get("correlation_id", "")
    if not isinstance(name, str):
        _JSON.refuse("bad_type", "correlation_id is not text", word)
    if len(name) > ID_MAX:
        _JSON.refuse("too_long", f"correlation_id has {len(name)} characters; at most {ID_MAX} are read", word)
    return name


def _blame(event: str, kind: str, problem: str) -> NoReturn:
    raise LocalWireError(problem, wire=WIRE, event=event, kind=kind)
