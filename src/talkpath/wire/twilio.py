"""Twilio's media stream wire, both ends; what SignalWire's has in common with it included.

JSON objects in text messages over a WebSocket that the platform opens. The platform writes ``connected``, ``start``,
``media``, ``dtmf``, ``mark``, ``stop``; the application writes ``media``, ``mark``, ``clear``. Every number the
platform writes is text. Every message but ``connected`` has the next sequence number; chunks count per track.

A checkpoint is a ``mark``, answered by the same name once what was sent before it has been played, at once when
nothing waits. A ``clear`` has no answer of its own: the marks that were pending come back, and nothing in them says
whether their audio was played. No message hangs up, and none sends digits; both are the REST API's.

Written strictly, read leniently, as on the Plivo wire; ids that a command leaves out are not missed, and their values
are not compared: one WebSocket is one stream.

Source: Twilio's Media Streams pages (WebSocket messages, TwiML ``<Stream>``) and helper library 9.13.0, read 2026-11;
the page ``docs/wire-twilio.md`` says which of them each rule rests on.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from talkpath.errors import ConfigError, NotOnThisWire
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
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role
from talkpath.wire.json_message import JsonMessages, check_max_message_bytes, fill, is_text, named, shown, type_name

PARAMETER_MAX: Final = 500
"""Characters of one custom parameter's name and value together; Twilio wants fewer."""
PARAMETERS_MAX: Final = 99
_PARAMETERS_READ_MAX: Final = 256
_ENCODINGS_READ: Final = {
    "audio/x-mulaw": "PCMU",
    "audio/mulaw": "PCMU",
    "audio/pcmu": "PCMU",
    "audio/x-alaw": "PCMA",
    "audio/alaw": "PCMA",
    "audio/pcma": "PCMA",
    "audio/x-l16": "L16",
    "audio/l16": "L16",
}
_RATES_READ: Final = {"PCMU": (8000,), "PCMA": (8000,), "L16": (8000, 16000, 24000, 48000)}
_WRITTEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_SID: Final = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TwilioOptions:
    """What Twilio's own documents leave open, with the choice made where nothing is said."""

    require_sids: bool = True
    """Platform: write ids as Twilio does (two letters, 32 hexadecimal digits): a UUID is written so, and any other id
    is refused; off, ids are written as they are."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread; Twilio documents no bound. This holds 196 s of mu-law."""

    timestamp_from_start: ClassVar[bool] = True
    """Timestamps count milliseconds from the stream's start (documented)."""

    def __post_init__(self) -> None:
        check_max_message_bytes(self.max_message_bytes)


class TwilioFamily(Dialect):
    """One end of one stream of Twilio's wire or one that copies it; a subclass says in what they differ."""

    wire: str
    returns_marks_on_clear: bool = True
    """Pending checkpoints come back after a clear, and nothing in them says that they were cleared."""

    _VERSION: ClassVar[str]
    _ENCODINGS: ClassVar[Mapping[str, str]]
    """How the wire writes an encoding."""
    _ID_EVERYWHERE: bool
    """The stream's id stands at the top of every message of the platform's."""
    _MARKS_NUMBERED: ClassVar[bool]
    _STOP_SAYS_WHO: bool
    """``stop`` names the account and the call."""

    def __init__(
        self, role: Role, *, media_format: MediaFormat, max_message_bytes: int, big_endian: bool = False
    ) -> None:
        self.role = role
        self.stream_id = ""
        self._json = JsonMessages(self.wire)
        self._max_message_bytes = max_message_bytes
        self._big_endian = big_endian
        self.media_format = self._ordered(media_format)
        self._call_id = self._account_id = ""

    # What subclasses say -----------------------------------------------------------------------------------------

    def _write_ids(self, started: StreamStarted) -> tuple[str, str, str]:
        """Return stream, call and account id as they are written."""
        raise NotImplementedError

    def _digit_body(self, digit: Digit) -> dict[str, object]:
        raise NotImplementedError

    def _send_digits(self, command: SendDigits) -> Sequence[bytes]:
        raise NotImplementedError

    def _read_digits(self, message: dict[str, Any]) -> WireEvent:
        """What the platform makes of an application's ``dtmf``."""
        raise NotImplementedError

    # Both ends ---------------------------------------------------------------------------------------------------

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        message = self._json.load(text, self._max_message_bytes)
        event = self._json.kind(message)
        if self.role is Role.PLATFORM:
            match event:
                case "media":
                    return (self._read_media(message, event, played=True),)
                case "mark":
                    return (Mark(self._read_mark(message, event)),)
                case "clear":
                    return (Clear(),)
                case "dtmf":
                    return (self._read_digits(message),)
        else:
            match event:
                case "media":
                    return (self._read_media(message, event, played=False),)
                case "connected":
                    version = message.get("version")
                    return (Handshaken(version if isinstance(version, str) and len(version) <= 32 else ""),)
                case "start":
                    return (self._read_start(message),)
                case "dtmf":
                    return (self._json.digit(self._json.inner(message, "dtmf", event), event, duration_key="duration"),)
                case "mark":
                    return (MarkReached(self._read_mark(message, event), None),)
        if event == "stop":
            return (StreamStopped(),)
        return (UnknownMessage(shown(event)),)

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """This wire has no binary messages. Raises RemoteWireError."""
        self._json.refuse("binary", f"a binary message of {len(data)} bytes; this wire is text")

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more text messages; `sequence` is the stream's next message number.

        Zero messages: the wire says it by silence (that a clear is done).

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if self.role is Role.PLATFORM:
            return self._send_as_platform(command, sequence)
        return self._send_as_application(command)

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number."""
        if self.role is not Role.PLATFORM:
            return False
        match command:
            case StreamStarted() | Media() | Digit() | StreamStopped():
                return True
            case MarkReached():
                return self._MARKS_NUMBERED
        return False

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes; `track` is ``inbound`` or ``outbound`` (platform only).

        Raises:
            LocalWireError: no such track, or the stream has not been started yet.
        """
        self._check_started("media")
        stream_id = f'"streamSid":"{self.stream_id}"'
        if self.role is Role.APPLICATION:
            return MediaTemplate(
                (f'{{"event":"media",{stream_id},"media":{{"payload":"'.encode(), b'"}}'), (Field.PAYLOAD, Field.END)
            )
        if track not in ("inbound", "outbound"):
            self._json.blame("media", "bad_value", "the track of a media message is inbound or outbound")
        return MediaTemplate(
            (
                b'{"event":"media","sequenceNumber":"',
                f'","media":{{"track":"{track}","chunk":"'.encode(),
                b'","timestamp":"',
                b'","payload":"',
                f'"}},{stream_id}}}'.encode() if self._ID_EVERYWHERE else b'"}}',
            ),
            (Field.SEQUENCE, Field.CHUNK, Field.TIMESTAMP_MS, Field.PAYLOAD, Field.END),
        )

    def media_shape(self) -> MediaShape:
        """Describe the media message that the other end sends."""
        if self.role is Role.PLATFORM:
            return MediaShape(event_value="media")
        return MediaShape(
            event_value="media",
            track_key="track",
            timestamp_key="timestamp",
            chunk_key="chunk",
            sequence_key="sequenceNumber",
        )

    # Writing -----------------------------------------------------------------------------------------------------

    def _send_as_platform(self, command: WireEvent, sequence: int) -> Sequence[bytes]:
        match command:
            case StreamStarted():
                start = self._write_start(command, sequence)
                return (self._json.write(self._greeting()), start)
            case Handshaken():
                return ()
            case Media():
                return (self._write_media(command, sequence),)
            case Digit(digit=digit, track=track):
                self._check_started("dtmf")
                self._json.check_digit(digit, "dtmf")
                if track not in ("inbound", "outbound"):
                    self._json.blame("dtmf", "bad_value", "the track of a digit is inbound or outbound")
                return (
                    self._json.write(
                        {
                            "event": "dtmf",
                            "streamSid": self.stream_id,
                            "sequenceNumber": str(sequence),
                            "dtmf": self._digit_body(command),
                        }
                    ),
                )
            case MarkReached(name=name):
                self._check_started("mark")
                self._json.check_mark_name(name, "mark")
                number = {"sequenceNumber": str(sequence)} if self._MARKS_NUMBERED else {}
                return (
                    self._json.write({"event": "mark", **number, "streamSid": self.stream_id, "mark": {"name": name}}),
                )
            case Cleared():
                return ()
            case StreamStopped():
                self._check_started("stop")
                who = {"accountSid": self._account_id, "callSid": self._call_id}
                return (
                    self._json.write(
                        {
                            "event": "stop",
                            "sequenceNumber": str(sequence),
                            **({"stop": who} if self._STOP_SAYS_WHO else {}),
                            **({"streamSid": self.stream_id} if self._ID_EVERYWHERE else {}),
                        }
                    ),
                )
        raise self._json.not_ours(command, "the application's to send; this end is the platform's")

    def _send_as_application(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case Media(payload=payload, media_format=media_format):
                self._check_format("media", media_format)
                self._check_whole("media", payload)
                template = self.media_template("")
                return (template.pieces[0] + base64.b64encode(payload) + template.pieces[1],)
            case Mark(name=name):
                self._json.check_mark_name(name, "mark")
                self._check_started("mark")
                return (self._json.write({"event": "mark", "streamSid": self.stream_id, "mark": {"name": name}}),)
            case Clear():
                self._check_started("clear")
                return (self._json.write({"event": "clear", "streamSid": self.stream_id}),)
            case SendDigits():
                return self._send_digits(command)
            case HangUp() | StreamStopped():
                raise NotOnThisWire(
                    self.wire, "message that ends the call or the stream", "closing the WebSocket with code 1000"
                )
        if isinstance(command, (StreamStarted, Digit, MarkReached, Cleared, Handshaken)):
            raise self._json.not_ours(command, "the platform's to send; this end is the application's")
        raise NotOnThisWire(self.wire, f"message for {type(command).__name__}", "media, mark and clear")

    def _greeting(self) -> dict[str, object]:
        return {"event": "connected", "protocol": "Call", "version": self._VERSION}

    def _write_start(self, started: StreamStarted, sequence: int) -> bytes:
        if self.stream_id:
            self._json.blame("start", "bad_state", "the stream has been started already")
        self._check_format("start", started.media_format)
        if not started.tracks or not set(started.tracks) <= {"inbound", "outbound"}:
            self._json.blame("start", "bad_value", "the tracks of a stream are inbound, outbound or both")
        try:
            check_parameters(self.wire, started.custom_parameters)
        except ConfigError as error:
            self._json.blame("start", "bad_value", str(error))
        stream_id, call_id, account_id = self._write_ids(started)
        text = self._json.write(
            {
                "event": "start",
                "sequenceNumber": str(sequence),
                "start": {
                    "accountSid": account_id,
                    "streamSid": stream_id,
                    "callSid": call_id,
                    "tracks": list(started.tracks),
                    "mediaFormat": {
                        "encoding": self._ENCODINGS[self.media_format.encoding],
                        "sampleRate": self.media_format.sample_rate_hz,
                        "channels": 1,
                    },
                    "customParameters": dict(started.custom_parameters),
                },
                **({"streamSid": stream_id} if self._ID_EVERYWHERE else {}),
            }
        )
        self.stream_id, self._call_id, self._account_id = stream_id, call_id, account_id
        return text

    def _check_written_id(self, what: str, value: str) -> str:
        if not _WRITTEN_ID.fullmatch(value):
            self._json.blame("start", "bad_value", f"{what} is not 1 to 64 letters, digits and - _ . :")
        return value

    def _write_media(self, media: Media, sequence: int) -> bytes:
        self._check_format("media", media.media_format)
        if media.chunk is None or media.timestamp_ms is None:
            self._json.blame("media", "missing_field", "a media message has a chunk number and a timestamp")
        self._check_whole("media", media.payload)
        return fill(
            self.media_template(media.track),
            media.payload,
            sequence=sequence,
            chunk=media.chunk,
            timestamp_ms=media.timestamp_ms,
        )

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            self._json.blame(event, "bad_state", "nothing is known of the stream before its start message")

    def _check_format(self, event: str, media_format: MediaFormat | None) -> None:
        if media_format is not None and self._ordered(media_format) != self.media_format:
            self._json.blame(
                event, "unknown_format", f"audio is sent in the stream's format, {named(self.media_format)}"
            )

    def _check_whole(self, event: str, payload: bytes) -> None:
        if len(payload) % self.media_format.sample_bytes:
            self._json.blame(event, "odd_length", "L16 audio has an even number of bytes")

    def _ordered(self, media_format: MediaFormat) -> MediaFormat:
        return replace(media_format, big_endian=self._big_endian and media_format.encoding == "L16")

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_start(self, message: dict[str, Any]) -> StreamStarted:
        event, json = "start", self._json
        if self.stream_id:
            json.refuse("bad_state", "a second start on one connection", event)
        body = json.inner(message, "start", event)
        stream_id = json.id(body["streamSid"] if "streamSid" in body else message.get("streamSid"), "streamSid", event)
        if not stream_id:
            json.refuse("missing_field", "no streamSid", event)
        tracks = body.get("tracks")
        if tracks is None:
            tracks = ["inbound"]
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            json.refuse("bad_type", "tracks is not a list of text", event)
        bare = [track.removesuffix("_track").removesuffix("_tracks") for track in tracks]
        media_format = self._read_format(json.inner(body, "mediaFormat", event), event)
        started = StreamStarted(
            stream_id=stream_id,
            call_id=json.id(body.get("callSid"), "callSid", event),
            account_id=json.id(body.get("accountSid"), "accountSid", event),
            tracks=tuple(t for t in ("inbound", "outbound") if t in bare or "both" in bare) or ("inbound",),
            media_format=media_format,
            custom_parameters=self._read_parameters(body, event),
        )
        self.stream_id = stream_id
        self.media_format = media_format
        return started

    def _read_format(self, described: dict[str, Any], event: str) -> MediaFormat:
        json = self._json
        written = described.get("encoding")
        if not isinstance(written, str):
            json.refuse(
                "missing_field" if written is None else "bad_type", "mediaFormat has no encoding in text", event
            )
        encoding = _ENCODINGS_READ.get(written.strip().lower())
        rate_hz = json.number(described, "sampleRate", event) or 8000
        if encoding is None or rate_hz not in _RATES_READ[encoding]:
            what = f"{encoding} at {rate_hz} Hz" if encoding else "an encoding other than mu-law, A-law and L16"
            json.refuse("unknown_format", what, event)
        if (json.number(described, "channels", event) or 1) != 1:
            json.refuse("unknown_format", "more than one channel", event)
        return self._ordered(MediaFormat(encoding, rate_hz))

    def _read_parameters(self, body: dict[str, Any], event: str) -> dict[str, str]:
        json = self._json
        custom = body.get("customParameters")
        if custom is None:
            return {}
        if not isinstance(custom, dict):
            json.refuse("bad_type", f"customParameters is {type_name(custom)}, not an object", event)
        if len(custom) > _PARAMETERS_READ_MAX:
            json.refuse("too_long", f"{len(custom)} custom parameters; at most {_PARAMETERS_READ_MAX} are read", event)
        return {name: value if isinstance(value, str) else json.text_of(value, event) for name, value in custom.items()}

    def _read_media(self, message: dict[str, Any], event: str, *, played: bool) -> Media:
        json = self._json
        if not self.stream_id:
            json.refuse("bad_state", "audio before start", event)
        body = json.inner(message, "media", event)
        samples = json.payload(body, event)
        if len(samples) % self.media_format.sample_bytes:
            json.refuse("odd_length", f"{len(samples)} bytes of 16-bit audio", event)
        if played:
            return Media(samples)
        return Media(
            samples,
            track=json.track(body, event),
            sequence=json.number(message, "sequenceNumber", event),
            chunk=json.number(body, "chunk", event),
            timestamp_ms=json.number(body, "timestamp", event),
        )

    def _read_mark(self, message: dict[str, Any], event: str) -> str:
        return self._json.mark_name(self._json.inner(message, "mark", event), event)


def check_parameters(wire: str, custom_parameters: Mapping[str, str]) -> None:
    """Refuse custom parameters that cannot be written. Raises ConfigError."""
    if len(custom_parameters) > PARAMETERS_MAX:
        raise ConfigError(f"{len(custom_parameters)} custom parameters; the {wire} wire has at most {PARAMETERS_MAX}")
    for name, value in custom_parameters.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise ConfigError("custom parameters have a name, and values that are text")
        if len(name) + len(value) >= PARAMETER_MAX:
            raise ConfigError(
                f"the custom parameter {name[:64]!a} has {len(name) + len(value)} characters with its name; "
                f"the {wire} wire carries fewer than {PARAMETER_MAX}"
            )
        if not is_text(name) or not is_text(value):
            raise ConfigError(f"the custom parameter {name[:64]!a} is not well-formed Unicode")


def check_account_id(account_id: str) -> None:
    """Refuse an account that ``start`` cannot name. Raises ConfigError."""
    if not _WRITTEN_ID.fullmatch(account_id):
        raise ConfigError("account_id is not 1 to 64 letters, digits and - _ . :")


def sid(prefix: str, value: str) -> str | None:
    """Write an id as Twilio does: as it is, or a UUID's digits behind the prefix; None when it is neither."""
    if _SID.fullmatch(value) and value.startswith(prefix):
        return value
    try:
        return prefix + uuid.UUID(value).hex
    except ValueError:
        return None


class TwilioDialect(TwilioFamily):
    """One end of one Twilio stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: mu-law at 8000 Hz; there is no other.
        options: What Twilio leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = "twilio"
    _VERSION = "1.0.0"
    _ENCODINGS: ClassVar[Mapping[str, str]] = {"PCMU": "audio/x-mulaw"}
    _ID_EVERYWHERE = True
    _MARKS_NUMBERED = True
    _STOP_SAYS_WHO = True

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: TwilioOptions = TwilioOptions(),
    ) -> None:
        if (media_format.encoding, media_format.sample_rate_hz) != ("PCMU", 8000):
            raise ConfigError(f"codec {named(media_format)} is not on the twilio wire; right is PCMU at 8000 Hz")
        self.options = options
        super().__init__(role, media_format=media_format, max_message_bytes=options.max_message_bytes)

    def _write_ids(self, started: StreamStarted) -> tuple[str, str, str]:
        ids = (
            ("MZ", "stream_id", started.stream_id),
            ("CA", "call_id", started.call_id),
            ("AC", "account_id", started.account_id),
        )
        if not self.options.require_sids:
            stream_id, call_id, account_id = (self._check_written_id(what, value) for _, what, value in ids)
            return stream_id, call_id, account_id
        written: list[str] = []
        for prefix, what, value in ids:
            as_sid = sid(prefix, value)
            if as_sid is None:
                self._json.blame(
                    "start", "bad_value", f"{what} is neither {prefix} and 32 hexadecimal digits nor a UUID"
                )
            written.append(as_sid)
        return written[0], written[1], written[2]

    def _digit_body(self, digit: Digit) -> dict[str, object]:
        return {"track": f"{digit.track}_track", "digit": digit.digit.upper()}

    def _send_digits(self, command: SendDigits) -> Sequence[bytes]:
        raise NotOnThisWire(self.wire, "message that sends digits", "the REST API, or playing their tones as audio")

    def _read_digits(self, message: dict[str, Any]) -> WireEvent:
        return UnknownMessage("dtmf")
