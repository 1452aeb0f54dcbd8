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
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire
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
from talkpath.wire.dialect import Dialect, Field, MediaShape, MediaTemplate, Role
from talkpath.wire.json_message import (
    JsonMessages,
    check_max_message_bytes,
    digits_problem,
    dump_json,
    fill,
    is_text,
    named,
    shown,
    type_name,
)
from talkpath.wire.plivo_parameters import (
    ENCODINGS,
    FORMATS_READ,
    WIRE,
    check_format,
    collect_parameters,
    read_content_type,
    read_extra_headers,
    write_extra_headers,
)

_JSON: Final = JsonMessages(WIRE)
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
        check_max_message_bytes(self.max_message_bytes)


class PlivoDialect(Dialect):
    """One end of one Plivo stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: the stream's format. Its byte order is not looked at; `options` says it.
        options: What Plivo leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = WIRE
    confirms_clear: bool = True
    """By ``clearedAudio``."""

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

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        message = _JSON.load(text, self.options.max_message_bytes)
        event = _JSON.kind(message)
        if self.role is Role.PLATFORM:
            match event:
                case "playAudio":
                    return (self._read_media(message, event, played=True),)
                case "checkpoint":
                    return (Mark(_JSON.mark_name(message, event)),)
                case "clearAudio":
                    return (Clear(),)
                case "sendDTMF":
                    return (SendDigits(_JSON.digits(message, event)),)
        else:
            match event:
                case "media":
                    return (self._read_media(message, event, played=False),)
                case "start":
                    return (self._read_start(message),)
                case "dtmf":
                    return (_JSON.digit(_JSON.inner(message, "dtmf", event), event, timestamp_key="timestamp"),)
                case "playedStream" | "played":
                    return (MarkReached(_JSON.mark_name(message, event)),)
                case "clearedAudio":
                    return (Cleared(),)
        if event == "stop":
            return (StreamStopped(_stop_reason(message)),)
        return (UnknownMessage(shown(event)),)

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """This wire has no binary messages. Raises RemoteWireError."""
        _JSON.refuse("binary", f"a binary message of {len(data)} bytes; this wire is text")

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
            _JSON.blame("media", "bad_value", "the track of a media message is inbound or outbound")
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
                _JSON.check_digit(digit, "dtmf")
                if track not in ("inbound", "outbound"):
                    _JSON.blame("dtmf", "bad_value", "the track of a digit is inbound or outbound")
                body = {"track": track, "digit": digit.upper(), "timestamp": str(timestamp_ms or 0)}
                return (self._message("dtmf", sequence, dtmf=body, extra_headers=self._extra_headers),)
            case MarkReached(name=name, outcome=outcome):
                self._check_started("playedStream")
                _JSON.check_mark_name(name, "playedStream")
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
        raise _JSON.not_ours(command, "the application's to send; this end is the platform's")

    def _send_as_application(self, command: WireEvent) -> Sequence[bytes]:
        match command:
            case Media(payload=payload, media_format=media_format):
                self._check_started("playAudio")
                if media_format is not None and self._ordered(media_format) != self.media_format:
                    _JSON.blame(
                        "playAudio",
                        "unknown_format",
                        f"audio is sent in the stream's format, {named(self.media_format)}",
                    )
                if len(payload) % self.media_format.sample_bytes:
                    _JSON.blame("playAudio", "odd_length", "L16 audio has an even number of bytes")
                return (self._play_prefix() + base64.b64encode(payload) + b'"}}',)
            case Mark(name=name):
                _JSON.check_mark_name(name, "checkpoint")
                self._check_started("checkpoint")
                return (_JSON.write({"event": "checkpoint", "streamId": self.stream_id, "name": name}),)
            case Clear():
                self._check_started("clearAudio")
                return (_JSON.write({"event": "clearAudio", "streamId": self.stream_id}),)
            case SendDigits(digits=digits):
                problem = digits_problem(digits)
                if problem:
                    _JSON.blame("sendDTMF", "bad_value", problem)
                return (_JSON.write({"event": "sendDTMF", "dtmf": digits.upper()}),)
            case HangUp() | StreamStopped():
                raise NotOnThisWire(
                    WIRE, "message that ends the call or the stream", "closing the WebSocket with code 1000"
                )
        if isinstance(command, (StreamStarted, Digit, MarkReached, Cleared, Handshaken)):
            raise _JSON.not_ours(command, "the platform's to send; this end is the application's")
        raise NotOnThisWire(WIRE, f"message for {type(command).__name__}", "playAudio, checkpoint and clearAudio")

    def _write_start(self, started: StreamStarted, sequence: int) -> bytes:
        if self.stream_id:
            _JSON.blame("start", "bad_state", "the stream has been started already")
        if self._ordered(started.media_format) != self.media_format:
            _JSON.blame("start", "unknown_format", f"this stream was made for {named(self.media_format)}")
        if not _WRITTEN_ID.fullmatch(started.stream_id):
            _JSON.blame("start", "bad_value", "stream_id is not 1 to 64 letters, digits and - _ . :")
        for what, value in (("stream_id", started.stream_id), ("call_id", started.call_id)):
            if self.options.require_uuids and not _UUID.fullmatch(value):
                _JSON.blame("start", "bad_value", f"{what} is no UUID; make one with uuid.UUID(bytes=..., version=4)")
        if not started.tracks or not set(started.tracks) <= {"inbound", "outbound"}:
            _JSON.blame("start", "bad_value", "the tracks of a stream are inbound, outbound or both")
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
        text = _JSON.write(message)
        self.stream_id = started.stream_id
        self._extra_headers = extra_headers
        return text

    def _write_media(self, media: Media, sequence: int) -> bytes:
        if media.media_format is not None and self._ordered(media.media_format) != self.media_format:
            _JSON.blame("media", "unknown_format", f"audio is sent in the stream's format, {named(self.media_format)}")
        if media.chunk is None or media.timestamp_ms is None:
            _JSON.blame("media", "missing_field", "a media message has a chunk number and a timestamp")
        if len(media.payload) % self.media_format.sample_bytes:
            _JSON.blame("media", "odd_length", "L16 audio has an even number of bytes")
        return fill(
            self.media_template(media.track),
            media.payload,
            sequence=sequence,
            chunk=media.chunk,
            timestamp_ms=media.timestamp_ms,
        )

    def _message(self, event: str, sequence: int, **fields: object) -> bytes:
        return _JSON.write({"event": event, "sequenceNumber": sequence, "streamId": self.stream_id, **fields})

    def _play_prefix(self) -> bytes:
        encoding, rate_hz = ENCODINGS[self.media_format.encoding], self.media_format.sample_rate_hz
        return f'{{"event":"playAudio","media":{{"contentType":"{encoding}","sampleRate":{rate_hz},"payload":"'.encode()

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            _JSON.blame(event, "bad_state", "nothing is known of the stream before its start message")

    def _ordered(self, media_format: MediaFormat) -> MediaFormat:
        big_endian = self.options.big_endian and media_format.encoding == "L16"
        return replace(media_format, big_endian=big_endian)

    def _read_start(self, message: dict[str, Any]) -> StreamStarted:
        event = "start"
        if self.stream_id:
            _JSON.refuse("bad_state", "a second start on one connection", event)
        body = _JSON.inner(message, event, event)
        stream_id = _JSON.id(body["streamId"] if "streamId" in body else message.get("streamId"), "streamId", event)
        if not stream_id:
            _JSON.refuse("missing_field", "no streamId", event)
        tracks = body.get("tracks")
        if tracks is None:
            tracks = ["inbound"]
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            _JSON.refuse("bad_type", "tracks is not a list of text", event)
        described = _JSON.inner(body, "mediaFormat", event)
        encoding, rate_hz = _encoding_and_rate(described, "encoding", "sampleRate", event)
        if encoding is None or rate_hz is None:
            _JSON.refuse("missing_field", "mediaFormat has no encoding or no sampleRate", event)
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
            _JSON.refuse("bad_type", f"extra_headers is {type_name(headers)}, not text", event)
        started = StreamStarted(
            stream_id=stream_id,
            call_id=_JSON.id(body.get("callId"), "callId", event),
            account_id=_JSON.id(body.get("accountId"), "accountId", event),
            tracks=tuple(t for t in ("inbound", "outbound") if t in tracks or "both" in tracks) or ("inbound",),
            media_format=self._readable(encoding, rate_hz, event),
            custom_parameters=parameters,
        )
        self.stream_id = stream_id
        self.media_format = started.media_format
        return started

    def _read_media(self, message: dict[str, Any], event: str, *, played: bool) -> Media:
        if not self.stream_id:
            _JSON.refuse("bad_state", "audio before start", event)
        body = _JSON.inner(message, "media", event)
        media_format = self._played_format(body, event) if played else None
        samples = _JSON.payload(body, event)
        if len(samples) % (media_format or self.media_format).sample_bytes:
            _JSON.refuse("odd_length", f"{len(samples)} bytes of 16-bit audio", event)
        if played:
            return Media(samples, media_format=media_format)
        return Media(
            samples,
            track=_JSON.track(body, event),
            sequence=_JSON.number(message, "sequenceNumber", event),
            chunk=_JSON.number(body, "chunk", event),
            timestamp_ms=_JSON.number(body, "timestamp", event),
        )

    def _played_format(self, body: dict[str, Any], event: str) -> MediaFormat | None:
        encoding, rate_hz = _encoding_and_rate(body, "contentType", "sampleRate", event)
        if encoding is None and rate_hz is None:
            return None
        media_format = self._readable(
            encoding or self.media_format.encoding, rate_hz or self.media_format.sample_rate_hz, event
        )
        if self.options.refuse_other_formats and media_format != self.media_format:
            _JSON.refuse("other_format", "the audio's format is not the stream's", event)
        return media_format

    def _readable(self, encoding: str, rate_hz: int, event: str) -> MediaFormat:
        if (encoding, rate_hz) not in FORMATS_READ:
            _JSON.refuse("unknown_format", f"{encoding} at {rate_hz} Hz", event)
        return self._ordered(MediaFormat(encoding, rate_hz))


def _encoding_and_rate(
    body: dict[str, Any], encoding_key: str, rate_key: str, event: str
) -> tuple[str | None, int | None]:
    """Read the two keys that name a format; a rate of its own outweighs one inside the content type."""
    encoding: str | None = None
    rate_hz: int | None = None
    named = body.get(encoding_key)
    if named is not None:
        if not isinstance(named, str):
            _JSON.refuse("bad_type", f"{encoding_key} is {type_name(named)}, not text", event)
        found = read_content_type(named)
        if found is None:
            _JSON.refuse("unknown_format", f"{encoding_key} is neither audio/x-mulaw nor audio/x-l16", event)
        encoding, rate_hz = found
    own_rate_hz = _JSON.number(body, rate_key, event)
    return encoding, rate_hz if own_rate_hz is None else own_rate_hz


def _stop_reason(message: dict[str, Any]) -> str:
    reason = message.get("reason")
    # Only ever shown: what is no short text is left out rather than refused, the stream ends all the same.
    return reason if isinstance(reason, str) and len(reason) <= 256 and is_text(reason) else ""
