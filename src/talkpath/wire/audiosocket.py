"""AudioSocket, both ends: Asterisk's TCP protocol of three header bytes and raw audio.

A message is a kind (1 byte), its payload's length (2 bytes, big-endian) and the payload. Asterisk is the TCP client
and the platform; its first message is the call's UUID. It sends linear audio and pressed digits; the application sends
audio and may terminate. That is all: nothing is marked, cleared or paused, and only each audio message's own kind says
which rate it has. The application paces itself; what it has sent is heard.

`receive_binary` takes whole messages, header included; `Splitter` cuts them out of a byte stream.

Source: Asterisk's documentation of AudioSocket and its source (``res_audiosocket``) of 2026-08.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError, check_range
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
    PlatformError,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role, ShapeKind
from talkpath.wire.json_message import digits_problem, named

WIRE: Final = "audiosocket"
HEADER_BYTES: Final = 3
PAYLOAD_MAX: Final = 0xFFFF
UUID_BYTES: Final = 16


class Kind(enum.IntEnum):
    """What a message is."""

    TERMINATE = 0x00
    UUID = 0x01
    DTMF = 0x03
    AUDIO = 0x10
    """Linear, 16 bits, little-endian, 8 kHz; the kinds behind it have other rates."""
    ERROR = 0xFF


RATES_HZ: Final = {
    0x10: 8000,
    0x11: 12000,
    0x12: 16000,
    0x13: 24000,
    0x14: 32000,
    0x15: 44100,
    0x16: 48000,
    0x17: 96000,
    0x18: 192000,
}
"""Of each kind of audio."""
FORMATS: Final = (("L16", 8000), ("L16", 16000), ("L16", 24000), ("L16", 48000))
_KINDS: Final = {rate: kind for kind, rate in RATES_HZ.items() if ("L16", rate) in FORMATS}


@dataclass(frozen=True, slots=True)
class AudioSocketOptions:
    """What AudioSocket leaves open."""

    sample_rate_hz: int = 8000
    """Application: the stream's rate when Asterisk sends no audio within `first_audio_s`; its first audio tells it."""
    first_audio_s: float = 1.0
    """Application: how long a call waits for that. Until then the program has no line."""

    def __post_init__(self) -> None:
        if self.sample_rate_hz not in _KINDS:
            raise ConfigError(f"sample_rate_hz is {self.sample_rate_hz}; right is 8000, 16000, 24000 or 48000")
        check_range("first_audio_s", self.first_audio_s, 0, 60)


class Splitter:
    """Cuts a byte stream into whole messages; keeps the beginning of one."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = b""

    def receive(self, data: bytes | memoryview) -> list[bytes]:
        """Take bytes; return the messages that are whole now, header included."""
        waiting = self._kept + bytes(data)
        messages: list[bytes] = []
        at = 0
        while len(waiting) - at >= HEADER_BYTES:
            end = at + HEADER_BYTES + int.from_bytes(waiting[at + 1 : at + 3], "big")
            if end > len(waiting):
                break
            messages.append(waiting[at:end])
            at = end
        self._kept = waiting[at:]
        return messages

    @property
    def is_between(self) -> bool:
        """Whether no message has begun."""
        return not self._kept


def message(kind: int, payload: bytes = b"") -> bytes:
    """Write one message."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


class AudioSocketDialect(Dialect):
    """One end of one connection: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is: ``PLATFORM`` is Asterisk's.
        media_format: Of the stream; without, what the options say. An application has it before the first message is
            read (`accept_audiosocket`).
        options: What is left open.

    Raises:
        ConfigError: a format that this wire does not carry, or that the core cannot play (12, 32, 44.1, 96, 192 kHz).
    """

    wire: str = WIRE
    writes_binary: bool = True
    has_marks: bool = False

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat | None = None,
        options: AudioSocketOptions = AudioSocketOptions(),
    ) -> None:
        media_format = media_format or MediaFormat("L16", options.sample_rate_hz)
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = MediaFormat("L16", media_format.sample_rate_hz)

    @property
    def audio_kind(self) -> int:
        """The kind of this stream's audio."""
        return _KINDS[self.media_format.sample_rate_hz]

    # Reading -----------------------------------------------------------------------------------------------------

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """This wire has no text messages. Raises RemoteWireError."""
        _refuse("text", "a text message; this wire is binary")

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """Turn one whole message into events.

        Raises:
            RemoteWireError: it is not of this wire, or has audio of a rate that this stream does not take.
        """
        if len(data) < HEADER_BYTES or len(data) != HEADER_BYTES + int.from_bytes(data[1:3], "big"):
            _refuse("bad_length", "a message of another length than it says")
        kind, payload = data[0], data[HEADER_BYTES:]
        if kind in RATES_HZ:
            return (self._read_audio(kind, payload),)
        if self.role is Role.PLATFORM:
            return (HangUp(),) if kind == Kind.TERMINATE else (UnknownMessage(f"kind_{kind:02x}"),)
        if not self.stream_id and kind != Kind.UUID:
            _refuse("bad_state", "a message before the UUID", f"{kind:02x}")
        match kind:
            case Kind.UUID:
                return (self._read_start(payload),)
            case Kind.TERMINATE:
                return (StreamStopped(),)
            case Kind.DTMF:
                digit = payload.decode("ascii", "replace").upper()
                if len(digit) != 1 or digits_problem(digit):
                    _refuse("bad_value", "not one digit of 0-9 * # A-D", "DTMF")
                return (Digit(digit),)
            case Kind.ERROR:
                return (PlatformError(f"error {payload[0]:#04x}" if payload else "error"),)
        return (UnknownMessage(f"kind_{kind:02x}"),)

    def _read_audio(self, kind: int, payload: bytes) -> Media:
        rate_hz = RATES_HZ[kind]
        if not self.stream_id:
            _refuse("bad_state", "audio before the UUID", "AUDIO")
        if len(payload) % 2:
            _refuse("odd_length", f"{len(payload)} bytes of 16-bit audio", "AUDIO")
        if rate_hz not in _KINDS:
            _refuse("unknown_format", f"audio at {rate_hz} Hz, which is not played here", "AUDIO")
        if rate_hz == self.media_format.sample_rate_hz:
            return Media(payload, track="outbound" if self.role is Role.PLATFORM else "inbound")
        if self.role is Role.APPLICATION:
            _refuse("other_format", f"audio at {rate_hz} Hz in a stream of another rate", "AUDIO")
        return Media(payload, track="outbound", media_format=MediaFormat("L16", rate_hz))

    def _read_start(self, payload: bytes) -> StreamStarted:
        if self.stream_id:
            _refuse("bad_state", "a second UUID on one connection", "UUID")
        if len(payload) != UUID_BYTES:
            _refuse("bad_value", f"a UUID of {len(payload)} bytes", "UUID")
        self.stream_id = str(uuid.UUID(bytes=payload))
        return StreamStarted(self.stream_id, self.stream_id, "", ("inbound",), self.media_format)

    # Writing -----------------------------------------------------------------------------------------------------

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number: none does."""
        return False

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes."""
        return MediaTemplate(
            (bytes((self.audio_kind,)), b"", b""), (Field.LENGTH_16, Field.BYTES, Field.END), binary=True
        )

    def media_shape(self) -> MediaShape:
        """Describe what the carrier hands to the native core: the payload of audio of the stream's rate."""
        return MediaShape("", kind=ShapeKind.BYTES)

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or one message.

        Zero messages: a clear drops what has not been sent, and nobody needs to be told; what the platform knows of the
        application's audio cannot be said.

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if isinstance(command, Handshaken):
            return ()
        if isinstance(command, Media):
            if len(command.payload) % 2 or not 0 < len(command.payload) <= PAYLOAD_MAX:
                _blame("AUDIO", "odd_length", f"a message holds 2 to {PAYLOAD_MAX - 1} bytes of whole samples")
            return (message(self.audio_kind, command.payload),)
        if self.role is Role.PLATFORM:
            return self._send_as_platform(command)
        match command:
            case HangUp():
                return (message(Kind.TERMINATE),)
            case Clear():
                return ()
            case Mark():
                raise NotOnThisWire(WIRE, "checkpoint", "the line's own model of what has been heard")
            case SendDigits():
                raise NotOnThisWire(WIRE, "message that sends digits", "playing their tones as audio, or the dialplan")
        if isinstance(command, (StreamStarted, Digit, MarkReached, Cleared)):
            _blame(type(command).__name__, "bad_state", "this is the platform's to send")
        raise NotOnThisWire(WIRE, f"message for {type(command).__name__}", "audio and hanging up")

    def _send_as_platform(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case StreamStarted(stream_id=stream_id, tracks=tracks):
                if self.stream_id:
                    _blame("UUID", "bad_state", "the stream has been started already")
                if tracks != ("inbound",):
                    _blame("UUID", "bad_value", "this wire has no track but the caller's")
                try:
                    written = uuid.UUID(stream_id)
                except ValueError:
                    _blame("UUID", "bad_value", "the id of a stream is a UUID on this wire")
                self.stream_id = stream_id
                return (message(Kind.UUID, written.bytes),)
            case Digit(digit=digit):
                if len(digit) != 1 or digits_problem(digit):
                    _blame("DTMF", "bad_value", "a digit is one of 0-9 * # A-D")
                return (message(Kind.DTMF, digit.upper().encode()),)
            case StreamStopped():
                return (message(Kind.TERMINATE),)
            case MarkReached() | Cleared() | PlatformError():
                return ()
        raise LocalWireError(
            "this is the application's to send, or not on this wire",
            wire=WIRE,
            event=type(command).__name__,
            kind="bad_state",
        )


def check_format(media_format: MediaFormat) -> None:
    """Refuse a format that this wire does not carry. Raises ConfigError."""
    if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS:
        raise ConfigError(
            f"codec {named(media_format)} is not on the audiosocket wire; "
            "right is L16 at 8000, 16000, 24000 or 48000 Hz"
        )


def _refuse(kind: str, problem: str, event: str = "") -> NoReturn:
    raise RemoteWireError(problem, wire=WIRE, event=event, kind=kind)


def _blame(event: str, kind: str, problem: str) -> NoReturn:
    raise LocalWireError(problem, wire=WIRE, event=event, kind=kind)
