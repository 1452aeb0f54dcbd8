"""FreJun Teler's media wire, both ends.

JSON objects in text messages over a WebSocket that the platform opens. The platform writes ``start`` and ``audio``,
each with the next ``message_id``; the application writes ``audio`` with a ``chunk_id``, ``interrupt`` (take back one
chunk), ``clear``. Nothing is acknowledged: no checkpoint, no answer to a clear, no end but the socket's. Whoever
plays keeps a model of what has been heard, and says ASSUMED.

Audio is 16-bit linear, little-endian. A flow may ask for the caller's audio at 16 kHz; what the application plays
stays at 8 kHz (every published bridge sends it so), unless `TelerOptions.play_at_stream_rate` says otherwise.

The reference page writes the application's audio inside ``data``; every published SDK and sample writes it flat. Both
are read; flat is written unless `TelerOptions.nested_audio` says otherwise. No message for a pressed key or the end
is documented, and third parties speak of ``dtmf`` and ``stop``: they are read when they come, and written only by
`TelerOptions.undocumented`.

Source: FreJun's media streaming pages, its Python SDK 1.0.0 and Node SDK 1.0.8, its bridge samples, third parties'
notes from live calls, read 2026-11; the page ``docs/wire-teler.md`` says which of them each rule rests on.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from talkpath.errors import ConfigError, NotOnThisWire
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Handshaken,
    HangUp,
    Interrupt,
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
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role
from talkpath.wire.json_message import JsonMessages, check_max_message_bytes, fill, named, shown

WIRE: Final = "teler"
FORMATS: Final = (("L16", 8000), ("L16", 16000))
PLAY_RATE_HZ: Final = 8000

_JSON: Final = JsonMessages(WIRE)
_WRITTEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_ENCODINGS_READ: Final = ("audio/l16", "audio/x-l16", "audio/pcm", "l16")


@dataclass(frozen=True, slots=True)
class TelerOptions:
    """What Teler's own documents leave open, with the choice made where nothing is said."""

    nested_audio: bool = False
    """Application: write audio inside ``data``, as the reference page has it; off, flat, as all published code does."""
    play_at_stream_rate: bool = False
    """What the application plays has the stream's rate; off, 8000 Hz. They differ for a stream of 16 kHz only."""
    big_endian: bool = False
    """Byte order of samples; seen little-endian on live calls."""
    undocumented: bool = False
    """Platform: write ``dtmf`` and ``stop``, which third parties speak of."""
    voice_app_id: str = "va_00000000000000000000000000"
    """Platform: what ``start`` names as the voice app."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread. No bound is documented; this holds 98 s of what is played."""

    def __post_init__(self) -> None:
        check_max_message_bytes(self.max_message_bytes)
        if not _WRITTEN_ID.fullmatch(self.voice_app_id):
            raise ConfigError("voice_app_id is not 1 to 64 letters, digits and - _ . :")


class TelerDialect(Dialect):
    """One end of one Teler stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: L16 at 8000 or 16000 Hz. Its byte order is not looked at; `options` says it.
        options: What Teler leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = WIRE
    has_marks: bool = False

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("L16", 8000),  # noqa: B008 - frozen
        options: TelerOptions = TelerOptions(),
    ) -> None:
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = replace(media_format, big_endian=options.big_endian)

    @property
    def play_format(self) -> MediaFormat:
        """Of what the application plays: 8000 Hz, whatever the stream's rate."""
        if self.options.play_at_stream_rate:
            return self.media_format
        return replace(self.media_format, sample_rate_hz=PLAY_RATE_HZ)

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        message = _JSON.load(text, self.options.max_message_bytes)
        kind = _JSON.kind(message, "type")
        if self.role is Role.PLATFORM:
            match kind:
                case "audio":
                    return (self._read_played(message),)
                case "interrupt":
                    chunk = self._chunk_id(message, kind)
                    if chunk is None:
                        _JSON.refuse("missing_field", "no chunk_id", kind)
                    return (Interrupt(chunk),)
                case "clear":
                    return (Clear(),)
        else:
            match kind:
                case "audio":
                    return (self._read_heard(message),)
                case "start":
                    return (self._read_start(message),)
                case "dtmf":
                    return (_JSON.digit(_JSON.inner(message, "data", kind), kind),)
            if not self.stream_id:
                _JSON.refuse("bad_state", "a message before start, which is always the first", shown(kind))
        if kind == "stop":
            return (StreamStopped(),)
        return (UnknownMessage(shown(kind)),)

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """This wire has no binary messages. Raises RemoteWireError."""
        _JSON.refuse("binary", f"a binary message of {len(data)} bytes; this wire is text")

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more text messages; `sequence` is the stream's next message number.

        Zero messages: the wire says it by silence, which is most of what a platform could say.

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if self.role is Role.PLATFORM:
            return self._send_as_platform(command, sequence)
        return self._send_as_application(command)

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a message id."""
        if self.role is not Role.PLATFORM:
            return False
        match command:
            case StreamStarted() | Media():
                return True
            case Digit() | StreamStopped():
                return self.options.undocumented
        return False

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes; the platform's has the caller's track alone.

        Raises:
            LocalWireError: another track, or the stream has not been started yet.
        """
        self._check_started("audio")
        if self.role is Role.APPLICATION:
            nested = self.options.nested_audio
            return MediaTemplate(
                (
                    b'{"type":"audio","data":{"audio_b64":"' if nested else b'{"type":"audio","audio_b64":"',
                    b'","chunk_id":',
                    b"}}" if nested else b"}",
                ),
                (Field.PAYLOAD, Field.CHUNK, Field.END),
            )
        if track != "inbound":
            _JSON.blame("audio", "bad_value", "this wire has no track but the caller's")
        return MediaTemplate(
            (
                f'{{"type":"audio","stream_id":"{self.stream_id}","message_id":'.encode(),
                b',"data":{"audio_b64":"',
                b'"}}',
            ),
            (Field.SEQUENCE, Field.PAYLOAD, Field.END),
        )

    def media_shape(self) -> MediaShape | None:
        """Describe the media message that the other end sends.

        The application's are read one by one: each chunk may be taken back, so somebody must know it by its number.
        """
        if self.role is Role.PLATFORM:
            return None
        return MediaShape(
            event_value="audio", event_key="type", object_key="data", payload_key="audio_b64", sequence_key="message_id"
        )

    def _send_as_platform(self, command: WireEvent, sequence: int) -> Sequence[bytes]:
        match command:
            case StreamStarted():
                return (self._write_start(command, sequence),)
            case Media(payload=payload, track=track):
                self._check_whole(payload, self.media_format)
                return (fill(self.media_template(track), payload, sequence=sequence, chunk=0, timestamp_ms=0),)
            case Digit(digit=digit):
                if not self.options.undocumented:
                    return ()
                self._check_started("dtmf")
                _JSON.check_digit(digit, "dtmf")
                return (self._message("dtmf", sequence, data={"digit": digit.upper()}),)
            case StreamStopped():
                if not self.options.undocumented:
                    return ()
                self._check_started("stop")
                return (self._message("stop", sequence),)
            case MarkReached() | Cleared() | Handshaken():
                return ()
        raise _JSON.not_ours(command, "the application's to send; this end is the platform's")

    def _send_as_application(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case Media(payload=payload, media_format=media_format, chunk=chunk):
                if media_format is not None and replace(media_format, big_endian=False) != replace(
                    self.play_format, big_endian=False
                ):
                    _JSON.blame("audio", "unknown_format", f"audio is sent as {named(self.play_format)}")
                self._check_whole(payload, self.play_format)
                template = self.media_template("")
                middle = b"%d" % (chunk or 0)
                before, between, after = template.pieces
                return (before + base64.b64encode(payload) + between + middle + after,)
            case Interrupt(chunk=chunk):
                self._check_started("interrupt")
                return (_JSON.write({"type": "interrupt", "chunk_id": chunk}, "type"),)
            case Clear():
                self._check_started("clear")
                return (_JSON.write({"type": "clear"}, "type"),)
            case Mark():
                raise NotOnThisWire(WIRE, "checkpoint", "the line's own model of what has been heard")
            case SendDigits():
                raise NotOnThisWire(WIRE, "message that sends digits", "the REST API's dtmf, or their tones as audio")
            case HangUp() | StreamStopped():
                raise NotOnThisWire(
                    WIRE, "message that ends the call or the stream", "closing the WebSocket with code 1000"
                )
        if isinstance(command, (StreamStarted, Digit, MarkReached, Cleared, Handshaken)):
            raise _JSON.not_ours(command, "the platform's to send; this end is the application's")
        raise NotOnThisWire(WIRE, f"message for {type(command).__name__}", "audio, interrupt and clear")

    def _write_start(self, started: StreamStarted, sequence: int) -> bytes:
        if self.stream_id:
            _JSON.blame("start", "bad_state", "the stream has been started already")
        if replace(started.media_format, big_endian=False) != replace(self.media_format, big_endian=False):
            _JSON.blame("start", "unknown_format", f"this stream was made for {named(self.media_format)}")
        if started.tracks != ("inbound",):
            _JSON.blame("start", "bad_value", "this wire has no track but the caller's")
        try:
            check_parameters(started.custom_parameters)
        except ConfigError as error:
            _JSON.blame("start", "bad_value", str(error))
        for what, value in (
            ("stream_id", started.stream_id),
            ("call_id", started.call_id),
            ("account_id", started.account_id),
        ):
            if not _WRITTEN_ID.fullmatch(value):
                _JSON.blame("start", "bad_value", f"{what} is not 1 to 64 letters, digits and - _ . :")
        text = _JSON.write(
            {
                "type": "start",
                "account_id": started.account_id,
                "call_app_id": self.options.voice_app_id,
                "call_id": started.call_id,
                "stream_id": started.stream_id,
                "message_id": sequence,
                "data": {
                    "encoding": "audio/l16",
                    "sample_rate": self.media_format.sample_rate_hz,
                    "channels": 1,
                },
            },
            "type",
        )
        self.stream_id = started.stream_id
        return text

    def _message(self, kind: str, sequence: int, **fields: object) -> bytes:
        return _JSON.write({"type": kind, "stream_id": self.stream_id, "message_id": sequence, **fields}, "type")

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            _JSON.blame(event, "bad_state", "nothing is known of the stream before its start message")

    def _check_whole(self, payload: bytes, media_format: MediaFormat) -> None:
        if len(payload) % media_format.sample_bytes:
            _JSON.blame("audio", "odd_length", "L16 audio has an even number of bytes")

    def _read_start(self, message: dict[str, Any]) -> StreamStarted:
        event = "start"
        if self.stream_id:
            _JSON.refuse("bad_state", "a second start on one connection", event)
        stream_id = _JSON.id(message.get("stream_id"), "stream_id", event)
        if not stream_id:
            _JSON.refuse("missing_field", "no stream_id", event)
        described = _JSON.inner(message, "data", event)
        encoding = described.get("encoding", "audio/l16")
        rate_hz = _JSON.number(described, "sample_rate", event)
        if rate_hz is None:
            _JSON.refuse("missing_field", "no sample_rate", event)
        if not isinstance(encoding, str) or encoding.strip().lower() not in _ENCODINGS_READ:
            _JSON.refuse("unknown_format", "an encoding other than audio/l16", event)
        if ("L16", rate_hz) not in FORMATS:
            _JSON.refuse("unknown_format", f"L16 at {rate_hz} Hz", event)
        if (_JSON.number(described, "channels", event) or 1) != 1:
            _JSON.refuse("unknown_format", "more than one channel", event)
        self.stream_id = stream_id
        self.media_format = MediaFormat("L16", rate_hz, self.options.big_endian)
        return StreamStarted(
            stream_id=stream_id,
            call_id=_JSON.id(message.get("call_id"), "call_id", event),
            account_id=_JSON.id(message.get("account_id"), "account_id", event),
            tracks=("inbound",),
            media_format=self.media_format,
        )

    def _read_heard(self, message: dict[str, Any]) -> Media:
        event = "audio"
        if not self.stream_id:
            _JSON.refuse("bad_state", "audio before start", event)
        samples = _JSON.payload(_JSON.inner(message, "data", event), event, "audio_b64")
        if len(samples) % 2:
            _JSON.refuse("odd_length", f"{len(samples)} bytes of 16-bit audio", event)
        return Media(samples, sequence=_JSON.number(message, "message_id", event))

    def _read_played(self, message: dict[str, Any]) -> Media:
        event = "audio"
        if not self.stream_id:
            _JSON.refuse("bad_state", "audio before start", event)
        body = message if "audio_b64" in message else _JSON.inner(message, "data", event)
        samples = _JSON.payload(body, event, "audio_b64")
        if len(samples) % 2:
            _JSON.refuse("odd_length", f"{len(samples)} bytes of 16-bit audio", event)
        return Media(samples, chunk=self._chunk_id(message, event))

    def _chunk_id(self, message: dict[str, Any], event: str) -> int | None:
        """A chunk's number, which stands where the audio does: at the top, or in ``data``."""
        if "chunk_id" not in message and isinstance(message.get("data"), dict):
            message = message["data"]
        return _JSON.number(message, "chunk_id", event)


def check_format(media_format: MediaFormat) -> None:
    """Refuse a stream format that this wire does not write. Raises ConfigError."""
    if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS:
        raise ConfigError(f"codec {named(media_format)} is not on the teler wire; right is L16 at 8000 or 16000 Hz")


def check_parameters(custom_parameters: Mapping[str, str]) -> None:
    """Refuse custom parameters: the wire carries none. Raises ConfigError."""
    if custom_parameters:
        raise ConfigError("the teler wire carries no custom parameters; put them into the query of the stream's url")
