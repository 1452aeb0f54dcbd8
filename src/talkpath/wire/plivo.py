"""Plivo's audio streaming wire, both ends.

JSON objects in text messages over a WebSocket that the platform opens. The platform writes ``start``, ``media``,
``dtmf``, ``playedStream``, ``clearedAudio`` (and ``stop``, where it is wanted); the application writes ``playAudio``,
``checkpoint``, ``clearAudio``, ``sendDTMF``. There is no greeting before ``start`` and no message that hangs up.

What is written is as strict as the strictest published reader of this wire: numbers are numbers, timestamps are
strings, ids are UUIDs, ``extra_headers`` is always text, every platform message bears a sequence number. What is read
is lenient: numbers may be strings, ids may be missing, unknown fields and events are harmless. What audio depends
on (payload, encoding, rate, checkpoint names, digits) is never guessed.

After a clear, pending checkpoints are dropped without a word and the clear itself is answered.

Source: Plivo's streaming reference and guide, its published stream SDKs and observed traffic, read 2026-11; the page
``docs/wire-plivo.md`` says which of them each rule rests on.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
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
from talkpath.records import Outcome
from talkpath.wire.dialect import Field, MediaShape, MediaTemplate, Role
from talkpath.wire.plivo_parameters import (
    ENCODINGS,
    FORMATS_READ,
    WIRE,
    check_format,
    collect_parameters,
    dump_json,
    is_text,
    load_object,
    read_content_type,
    read_extra_headers,
    refuse,
    type_name,
    write_extra_headers,
)

MARK_NAME_MAX: Final = 256
"""Characters of a checkpoint's name; Plivo documents no bound."""

DIGITS_MAX: Final = 64
"""Digits in one ``sendDTMF``."""

_ID_MAX: Final = 128
_NUMBER_MAX: Final = 2**63 - 1

_NUMERAL: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9A-Da-d*#]+", re.ASCII)
_UUID: Final = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}", re.ASCII
)


_WRITTEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlivoOptions:
    """What Plivo's own documents leave open, with the choice made where nothing is said."""

    big_endian: bool = False
    """Byte order of L16 samples; not documented, Plivo's people write little-endian."""
    emit_stop: bool = False
    """Platform: write ``stop`` before closing. Off: two of the official SDKs report it as an error."""
    timestamp_from_start: bool = False
    """Platform: timestamps count milliseconds from the stream's start; else Unix epoch milliseconds."""
    headers_on_media: bool = True
    """Platform: repeat the custom parameters on each media message; off, media bears ``{}``, in fewer bytes."""
    require_uuids: bool = True
    """Platform: refuse to start a stream whose stream or call id is no UUID; an official SDK drops its messages."""
    refuse_other_formats: bool = False
    """Platform: refuse audio whose format is not the stream's, as documented; off, it is played as what it says."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread. Plivo documents 64 KB, and a buffer of 40 s: this holds 40 s in one message
    in any format of the wire, and 196 s of mu-law."""

    def __post_init__(self) -> None:
        if not 1024 <= self.max_message_bytes <= 1 << 26:
            raise ConfigError(f"max_message_bytes is {self.max_message_bytes}; right is 1024 to {1 << 26}")


class PlivoDialect:
    """One end of one Plivo stream: messages in, events out; commands in, messages out.

    The platform's end is made with the stream's format and learns the rest from the `StreamStarted` it sends; the
    application's end learns all of it from the `StreamStarted` it receives. Sans-IO, one owner.

    Args:
        role: Which end this is.
        media_format: Platform: the stream's format. Its byte order is not looked at; `options` says it.
        options: What Plivo leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = WIRE

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: PlivoOptions = PlivoOptions(),
    ) -> None:
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = self._ordered(media_format)
        self._extra_headers = "{}"

    @property
    def returns_marks_on_clear(self) -> bool:
        """Whether pending checkpoints come back after a clear: not on this wire."""
        return False

    @property
    def confirms_clear(self) -> bool:
        """Whether a clear is answered: by ``clearedAudio``."""
        return True

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        message = self._object(text)
        event = message.get("event")
        if event is None:
            refuse("missing_field", "no event")
        if not isinstance(event, str):
            refuse("bad_type", f"event is {type_name(event)}, not text")
        if self.role is Role.PLATFORM:
            match event:
                case "playAudio":
                    return (self._read_media(message, event, played=True),)
                case "checkpoint":
                    return (Mark(_mark_name(message, event)),)
                case "clearAudio":
                    return (Clear(),)
                case "sendDTMF":
                    return (SendDigits(_digits(message, event)),)
        else:
            match event:
                case "media":
                    return (self._read_media(message, event, played=False),)
                case "start":
                    return (self._read_start(message),)
                case "dtmf":
                    return (_read_digit(message, event),)
                case "playedStream" | "played":
                    return (MarkReached(_mark_name(message, event)),)
                case "clearedAudio":
                    return (Cleared(),)
        if event == "stop":
            return (StreamStopped(_stop_reason(message)),)
        return (UnknownMessage("".join(c if c.isprintable() else "?" for c in event[:64])),)

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more text messages; `sequence` is the stream's next message number.

        Zero messages: Plivo says it by silence (a checkpoint cleared or lost; ``stop`` unless asked for; a greeting).

        Raises:
            NotOnThisWire: Plivo has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if self.role is Role.PLATFORM:
            return self._send_as_platform(command, sequence)
        return self._send_as_application(command)

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number: all of the platform's do, no other."""
        if self.role is not Role.PLATFORM:
            return False
        match command:
            case StreamStarted() | Media() | Digit() | Cleared():
                return True
            case MarkReached(outcome=outcome):
                return outcome is Outcome.PLAYED
            case StreamStopped():
                return self.options.emit_stop
        return False

    def media_template(self, track: str) -> MediaTemplate:
        """Describe the media message this end writes; `track` is ``inbound`` or ``outbound`` (platform only).

        Raises:
            LocalWireError: no such track, or the stream has not been started yet.
        """
        if self.role is Role.APPLICATION:
            self._check_started("playAudio")
            return MediaTemplate((self._play_prefix(), b'"}}'), (Field.PAYLOAD, Field.END))
        self._check_started("media")
        if track not in ("inbound", "outbound"):
            _blame("media", "bad_value", "the track of a media message is inbound or outbound")
        headers = self._extra_headers if self.options.headers_on_media else "{}"
        return MediaTemplate(
            (
                b'{"event":"media","sequenceNumber":',
                f',"streamId":"{self.stream_id}","media":{{"track":"{track}","timestamp":"'.encode(),
                b'","chunk":',
                b',"payload":"',
                f'"}},"extra_headers":{dump_json(headers)}}}'.encode(),
            ),
            (Field.SEQUENCE, Field.TIMESTAMP_MS, Field.CHUNK, Field.PAYLOAD, Field.END),
        )

    def media_shape(self) -> MediaShape:
        """Describe the media message that the other end sends."""
        if self.role is Role.PLATFORM:
            return MediaShape(
                event_value="playAudio",
                encoding_key="contentType",
                rate_key="sampleRate",
                encoding_name=ENCODINGS[self.media_format.encoding],
            )
        return MediaShape(
            event_value="media",
            track_key="track",
            timestamp_key="timestamp",
            chunk_key="chunk",
            sequence_key="sequenceNumber",
        )

    def _send_as_platform(self, command: WireEvent, sequence: int) -> Sequence[bytes]:
        match command:
            case StreamStarted():
                return (self._write_start(command, sequence),)
            case Media():
                return (self._write_media(command, sequence),)
            case Digit(digit=digit, track=track, timestamp_ms=timestamp_ms):
                self._check_started("dtmf")
                if len(digit) != 1 or not _DIGITS.fullmatch(digit):
                    _blame("dtmf", "bad_value", "a digit is one of 0-9 * # A-D")
                if track not in ("inbound", "outbound"):
                    _blame("dtmf", "bad_value", "the track of a digit is inbound or outbound")
                body = {"track": track, "digit": digit.upper(), "timestamp": str(timestamp_ms or 0)}
                return (self._message("dtmf", sequence, dtmf=body, extra_headers=self._extra_headers),)
            case MarkReached(name=name, outcome=outcome):
                self._check_started("playedStream")
                _check_mark_name(name, "playedStream")
                if outcome is not Outcome.PLAYED:
                    return ()
                return (self._message("playedStream", sequence, name=name),)
            case Cleared():
                self._check_started("clearedAudio")
                return (self._message("clearedAudio", sequence),)
            case StreamStopped(reason=reason):
                if not self.options.emit_stop:
                    return ()
                self._check_started("stop")
                return (self._message("stop", sequence, **({"reason": reason} if reason else {})),)
            case Handshaken():
                return ()
        raise _not_ours(command, "the application's to send; this end is the platform's")

    def _send_as_application(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case Media(payload=payload, media_format=media_format):
                self._check_started("playAudio")
                if media_format is not None and self._ordered(media_format) != self.media_format:
                    _blame(
                        "playAudio",
                        "unknown_format",
                        f"audio is sent in the stream's format, {_named(self.media_format)}",
                    )
                if len(payload) % self.media_format.sample_bytes:
                    _blame("playAudio", "odd_length", "L16 audio has an even number of bytes")
                return (self._play_prefix() + base64.b64encode(payload) + b'"}}',)
            case Mark(name=name):
                _check_mark_name(name, "checkpoint")
                self._check_started("checkpoint")
                return (_write({"event": "checkpoint", "streamId": self.stream_id, "name": name}),)
            case Clear():
                self._check_started("clearAudio")
                return (_write({"event": "clearAudio", "streamId": self.stream_id}),)
            case SendDigits(digits=digits):
                problem = _digits_problem(digits)
                if problem:
                    _blame("sendDTMF", "bad_value", problem)
                return (_write({"event": "sendDTMF", "dtmf": digits.upper()}),)
            case HangUp() | StreamStopped():
                raise NotOnThisWire(
                    WIRE, "message that ends the call or the stream", "closing the WebSocket with code 1000"
                )
        raise _not_ours(command, "the platform's to send; this end is the application's")

    def _write_start(self, started: StreamStarted, sequence: int) -> bytes:
        if self.stream_id:
            _blame("start", "bad_state", "the stream has been started already")
        if self._ordered(started.media_format) != self.media_format:
            _blame("start", "unknown_format", f"this stream was made for {_named(self.media_format)}")
        if not _WRITTEN_ID.fullmatch(started.stream_id):
            _blame("start", "bad_value", "stream_id is not 1 to 64 letters, digits and - _ . :")
        for what, value in (("stream_id", started.stream_id), ("call_id", started.call_id)):
            if self.options.require_uuids and not _UUID.fullmatch(value):
                _blame("start", "bad_value", f"{what} is no UUID; make one with uuid.UUID(bytes=..., version=4)")
        if not started.tracks or not set(started.tracks) <= {"inbound", "outbound"}:
            _blame("start", "bad_value", "the tracks of a stream are inbound, outbound or both")
        try:
            extra_headers = write_extra_headers(started.custom_parameters)
        except ConfigError as error:
            raise LocalWireError(str(error), wire=WIRE, event="start", kind="bad_value") from error
        body = {
            "callId": started.call_id,
            "streamId": started.stream_id,
            "accountId": started.account_id,
            "tracks": list(started.tracks),
            "mediaFormat": {
                "encoding": ENCODINGS[self.media_format.encoding],
                "sampleRate": self.media_format.sample_rate_hz,
            },
        }
        message = {"event": "start", "sequenceNumber": sequence, "start": body, "extra_headers": extra_headers}
        text = _write(message)
        self.stream_id = started.stream_id
        self._extra_headers = extra_headers
        return text

    def _write_media(self, media: Media, sequence: int) -> bytes:
        if media.media_format is not None and self._ordered(media.media_format) != self.media_format:
            _blame("media", "unknown_format", f"audio is sent in the stream's format, {_named(self.media_format)}")
        if media.chunk is None or media.timestamp_ms is None:
            _blame("media", "missing_field", "a media message has a chunk number and a timestamp")
        if len(media.payload) % self.media_format.sample_bytes:
            _blame("media", "odd_length", "L16 audio has an even number of bytes")
        numbers = {
            Field.PAYLOAD: base64.b64encode(media.payload),
            Field.SEQUENCE: b"%d" % sequence,
            Field.CHUNK: b"%d" % media.chunk,
            Field.TIMESTAMP_MS: b"%d" % media.timestamp_ms,
            Field.END: b"",
        }
        template = self.media_template(media.track)
        return b"".join(piece + numbers[field] for piece, field in zip(template.pieces, template.fields, strict=True))

    def _message(self, event: str, sequence: int, **fields: object) -> bytes:
        return _write({"event": event, "sequenceNumber": sequence, "streamId": self.stream_id, **fields})

    def _play_prefix(self) -> bytes:
        encoding, rate_hz = ENCODINGS[self.media_format.encoding], self.media_format.sample_rate_hz
        return f'{{"event":"playAudio","media":{{"contentType":"{encoding}","sampleRate":{rate_hz},"payload":"'.encode()

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            _blame(event, "bad_state", "nothing is known of the stream before its start message")

    def _ordered(self, media_format: MediaFormat) -> MediaFormat:
        big_endian = self.options.big_endian and media_format.encoding == "L16"
        return replace(media_format, big_endian=big_endian)

    def _object(self, text: bytes | bytearray | memoryview | str) -> dict[str, Any]:
        length = text.nbytes if isinstance(text, memoryview) else len(text)
        if length > self.options.max_message_bytes:
            refuse("too_long", f"{length} bytes, at most {self.options.max_message_bytes} are read")
        if not isinstance(text, str):
            try:
                text = bytes(text).decode()
            except UnicodeDecodeError as error:
                raise RemoteWireError("not UTF-8", wire=WIRE, offset=error.start, kind="bad_utf8") from None
        return load_object(text)

    def _read_start(self, message: dict[str, Any]) -> StreamStarted:
        event = "start"
        if self.stream_id:
            refuse("bad_state", "a second start on one connection", event)
        body = _inner(message, event, event)
        stream_id = _id(body["streamId"] if "streamId" in body else message.get("streamId"), "streamId", event)
        if not stream_id:
            refuse("missing_field", "no streamId", event)
        tracks = body.get("tracks")
        if tracks is None:
            tracks = ["inbound"]
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            refuse("bad_type", "tracks is not a list of text", event)
        described = _inner(body, "mediaFormat", event)
        encoding, rate_hz = _encoding_and_rate(described, "encoding", "sampleRate", event)
        if encoding is None or rate_hz is None:
            refuse("missing_field", "mediaFormat has no encoding or no sampleRate", event)
        parameters: dict[str, str] = {}
        custom = body.get("customParameters")
        if isinstance(custom, dict):
            parameters |= collect_parameters(custom.items())
        headers = message.get("extra_headers")
        if isinstance(headers, str):
            parameters |= read_extra_headers(headers)
        elif isinstance(headers, dict):
            parameters |= collect_parameters(headers.items())
        elif headers is not None:
            refuse("bad_type", f"extra_headers is {type_name(headers)}, not text", event)
        started = StreamStarted(
            stream_id=stream_id,
            call_id=_id(body.get("callId"), "callId", event),
            account_id=_id(body.get("accountId"), "accountId", event),
            tracks=tuple(t for t in ("inbound", "outbound") if t in tracks or "both" in tracks) or ("inbound",),
            media_format=self._readable(encoding, rate_hz, event),
            custom_parameters=parameters,
        )
        self.stream_id = stream_id
        self.media_format = started.media_format
        return started

    def _read_media(self, message: dict[str, Any], event: str, *, played: bool) -> Media:
        if not self.stream_id:
            refuse("bad_state", "audio before start", event)
        body = _inner(message, "media", event)
        payload = body.get("payload")
        if payload is None:
            refuse("missing_field", "no payload", event)
        if not isinstance(payload, str):
            refuse("bad_type", f"payload is {type_name(payload)}, not text", event)
        media_format = self._played_format(body, event) if played else None
        samples = _decode_base64(payload, event)
        if len(samples) % (media_format or self.media_format).sample_bytes:
            refuse("odd_length", f"{len(samples)} bytes of 16-bit audio", event)
        if played:
            return Media(samples, media_format=media_format)
        return Media(
            samples,
            track=_track(body, event),
            sequence=_number(message, "sequenceNumber", event),
            chunk=_number(body, "chunk", event),
            timestamp_ms=_number(body, "timestamp", event),
        )

    def _played_format(self, body: dict[str, Any], event: str) -> MediaFormat | None:
        encoding, rate_hz = _encoding_and_rate(body, "contentType", "sampleRate", event)
        if encoding is None and rate_hz is None:
            return None
        media_format = self._readable(
            encoding or self.media_format.encoding, rate_hz or self.media_format.sample_rate_hz, event
        )
        if self.options.refuse_other_formats and media_format != self.media_format:
            refuse("other_format", "the audio's format is not the stream's", event)
        return media_format

    def _readable(self, encoding: str, rate_hz: int, event: str) -> MediaFormat:
        if (encoding, rate_hz) not in FORMATS_READ:
            refuse("unknown_format", f"{encoding} at {rate_hz} Hz", event)
        return self._ordered(MediaFormat(encoding, rate_hz))


def _blame(event: str, kind: str, problem: str) -> NoReturn:
    raise LocalWireError(problem, wire=WIRE, event=event, kind=kind)


def _write(message: dict[str, object]) -> bytes:
    try:
        return dump_json(message).encode()
    except UnicodeEncodeError:
        _blame(str(message["event"]), "bad_value", "what is sent is well-formed Unicode")


def _named(media_format: MediaFormat) -> str:
    return f"{media_format.encoding} at {media_format.sample_rate_hz} Hz"


def _not_ours(command: WireEvent, whose: str) -> LocalWireError:
    return LocalWireError(f"this is {whose}", wire=WIRE, event=type(command).__name__, kind="bad_state")


def _inner(message: dict[str, Any], key: str, event: str) -> dict[str, Any]:
    value = message.get(key)
    if value is None:
        refuse("missing_field", f"no {key}", event)
    if not isinstance(value, dict):
        refuse("bad_type", f"{key} is {type_name(value)}, not an object", event)
    return value


def _id(value: object, key: str, event: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _NUMBER_MAX:
        return str(value)
    if not isinstance(value, str):
        refuse("bad_type", f"{key} is {type_name(value)}, not text", event)
    if len(value) > _ID_MAX:
        refuse("too_long", f"{key} has {len(value)} characters, at most {_ID_MAX} are read", event)
    if not is_text(value):
        refuse("bad_value", f"{key} is not well-formed Unicode", event)
    return value


def _number(message: dict[str, Any], key: str, event: str) -> int | None:
    value = message.get(key)
    if value is None:
        return None
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        refuse("bad_type", f"{key} is {type_name(value)}, not a whole number", event)
    if not 0 <= value <= _NUMBER_MAX:
        refuse("bad_value", f"{key} is out of range", event)
    return value


def _track(body: dict[str, Any], event: str) -> str:
    track = body.get("track")
    if track is None:
        return "inbound"
    if not isinstance(track, str):
        refuse("bad_type", f"track is {type_name(track)}, not text", event)
    if track not in ("inbound", "outbound"):
        refuse("bad_value", "track is neither inbound nor outbound", event)
    return track


def _encoding_and_rate(
    body: dict[str, Any], encoding_key: str, rate_key: str, event: str
) -> tuple[str | None, int | None]:
    """Read the two keys that name a format; a rate of its own outweighs one inside the content type."""
    encoding: str | None = None
    rate_hz: int | None = None
    named = body.get(encoding_key)
    if named is not None:
        if not isinstance(named, str):
            refuse("bad_type", f"{encoding_key} is {type_name(named)}, not text", event)
        found = read_content_type(named)
        if found is None:
            refuse("unknown_format", f"{encoding_key} is neither audio/x-mulaw nor audio/x-l16", event)
        encoding, rate_hz = found
    own_rate_hz = _number(body, rate_key, event)
    return encoding, rate_hz if own_rate_hz is None else own_rate_hz


def _decode_base64(payload: str, event: str) -> bytes:
    try:
        decoded = base64.b64decode(payload.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        refuse("bad_base64", "payload is not base64", event)
    # Bits left over in the last character mean a broken encoder; the native reader refuses them, so this one does.
    tail = len(decoded) % 3
    if len(payload) % 4 or (tail and base64.b64encode(decoded[-tail:]).decode() != payload[-4:]):
        refuse("bad_base64", "payload is not canonical base64", event)
    return decoded


def _mark_name(message: dict[str, Any], event: str) -> str:
    name = message.get("name")
    if name is None:
        refuse("missing_field", "no name", event)
    if not isinstance(name, str):
        refuse("bad_type", f"name is {type_name(name)}, not text", event)
    if len(name) > MARK_NAME_MAX:
        refuse("too_long", f"name has {len(name)} characters, at most {MARK_NAME_MAX} are read", event)
    if not name or not is_text(name):
        refuse("bad_value", "name is empty or not well-formed Unicode", event)
    return name


def _check_mark_name(name: str, event: str) -> None:
    if not 1 <= len(name) <= MARK_NAME_MAX or not is_text(name):
        _blame(event, "bad_value", f"a checkpoint's name is 1 to {MARK_NAME_MAX} characters of well-formed Unicode")


def _digits_problem(digits: str) -> str:
    if not digits:
        return "no digits"
    if len(digits) > DIGITS_MAX:
        return f"{len(digits)} digits, at most {DIGITS_MAX} at once"
    if not _DIGITS.fullmatch(digits):
        if set(digits) & set("wW,"):
            return "pauses are not on this wire; send the digits before and after the pause one after the other"
        return "digits are 0-9 * # A-D"
    return ""


def _digits(message: dict[str, Any], event: str) -> str:
    digits = message.get("dtmf")
    if digits is None:
        refuse("missing_field", "no dtmf", event)
    if not isinstance(digits, str):
        refuse("bad_type", f"dtmf is {type_name(digits)}, not text", event)
    problem = _digits_problem(digits)
    if problem:
        refuse("too_long" if len(digits) > DIGITS_MAX else "bad_value", problem, event)
    return digits.upper()


def _read_digit(message: dict[str, Any], event: str) -> Digit:
    body = _inner(message, "dtmf", event)
    digit = body.get("digit")
    if digit is None:
        refuse("missing_field", "no digit", event)
    if isinstance(digit, int) and not isinstance(digit, bool) and 0 <= digit <= 9:
        digit = str(digit)
    if not isinstance(digit, str):
        refuse("bad_type", f"digit is {type_name(digit)}, not text", event)
    if len(digit) != 1 or not _DIGITS.fullmatch(digit):
        refuse("bad_value", "digit is not one of 0-9 * # A-D", event)
    return Digit(digit.upper(), track=_track(body, event), timestamp_ms=_number(body, "timestamp", event))


def _stop_reason(message: dict[str, Any]) -> str:
    reason = message.get("reason")
    # Only ever shown: what is no short text is left out rather than refused, the stream ends all the same.
    return reason if isinstance(reason, str) and len(reason) <= 256 and is_text(reason) else ""
