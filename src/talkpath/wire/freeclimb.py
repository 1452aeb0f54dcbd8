"""FreeClimb's audio streaming wire, both ends: protobuf messages of one gRPC call.

The platform is the client. Its first message is ``notify_call_started``; then ``notify_audio_data`` about every 20
ms, and what happens; its last is ``notify_call_ended``. The application, which serves, sends ``audio_data``,
``clear_audio_buffer``, ``dtmf_data``, ``query_buffer``, ``terminate_call``, in any order.

Audio that the application plays has an id. Messages of one id that follow each other are one *segment*, closed by
``last_message`` or by the next id; the platform reports when a segment begins to play and when all of it has been
played. A segment that a clear cut short gets no completed report (inferred: nothing says so); the clear itself is
answered by its id. Checkpoints are made of this: at the application's end a checkpoint closes the segment it follows,
by an empty last message, and is reached when that segment is completed.

At the platform's end it is the other way round: what is to be reported lies at *boundaries*, positions in the queue
where segments end and begin, and a boundary is a mark. One that ends a segment bears the segment's id as its name; one
that only begins a segment has no name, and shares the mark before it when no audio lies between.

What is not settled by any document: the byte order of L16 (little-endian here, an option), the units of a buffer's
depth (20 ms here), what happens to the rest of a segment's id after a clear (a new segment here).

Source: FreeClimb's audio streaming specification of 2024-05 and its documentation and samples, read 2026-11; the page
``docs/wire-freeclimb.md`` says which of them each rule rests on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, NoReturn

from google.protobuf.message import DecodeError

from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.events import (
    BufferDepth,
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
    PlatformError,
    QueryBuffer,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import EndReason, Outcome
from talkpath.wire.dialect import Dialect, Field, MediaTemplate, Role
from talkpath.wire.freeclimb_messages import AppMessage, PlatformMessage
from talkpath.wire.json_message import ID_MAX, MARK_NAME_MAX, check_max_message_bytes, digits_problem, named, shown

WIRE: Final = "freeclimb"
CONTENT_TYPES: Final[Mapping[tuple[str, int], str]] = {
    ("PCMU", 8000): "audio/mulaw;rate=8000",
    ("L16", 8000): "audio/l16;rate=8000",
    ("L16", 16000): "audio/l16;rate=16000",
}
FORMATS: Final = tuple(CONTENT_TYPES)
METADATA_MAX: Final = 256
"""Strings of metadata that are read or written."""
_FORMAT_OF: Final = {text: key for key, text in CONTENT_TYPES.items()} | {"audio/x-mulaw;rate=8000": ("PCMU", 8000)}
_FIELDS: Final = struct.Struct(">IQ")
"""What the native core writes before the payload of a media message: its number and its first sample's position."""
_PRESS_MS: Final = 100
_PRESS_MAX_MS: Final = 8000
_CALLER, _APPLICATION, _PLATFORM, _ERROR = range(4)
_REASONS: Final[Mapping[str, int]] = {
    EndReason.CALLER_HUNG_UP.value: _CALLER,
    EndReason.APPLICATION_HUNG_UP.value: _APPLICATION,
    EndReason.APPLICATION_FAILED.value: _APPLICATION,
    EndReason.PLATFORM_HUNG_UP.value: _PLATFORM,
    EndReason.STOPPED.value: _PLATFORM,
    EndReason.CANCELLED.value: _PLATFORM,
    EndReason.STREAM_TIMED_OUT.value: _PLATFORM,
    EndReason.DURATION_REACHED.value: _PLATFORM,
    EndReason.DRAINED.value: _PLATFORM,
    EndReason.BLOCK_LEFT.value: _PLATFORM,
}
"""What is not here is PLATFORM_ERROR."""
_REASON_NAMES: Final = ("CALLER_DISCONNECT", "APPLICATION_DISCONNECT", "PLATFORM_DISCONNECT", "PLATFORM_ERROR")
_ENDS: Final = (
    EndReason.CALLER_HUNG_UP,
    EndReason.APPLICATION_HUNG_UP,
    EndReason.PLATFORM_HUNG_UP,
    EndReason.PLATFORM_FAILED,
)
_BEGUN, _ENDED = "notify_playback_started_data", "notify_playback_completed_data"
_BOUNDARIES_MAX: Final = 1024
"""Of which reports are kept: beyond what the engine lets be pending, so that none that is pending is forgotten."""
_UNANSWERED_MAX: Final = 8192
"""Checkpoints, and clears, whose answers an application waits for."""


@dataclass(frozen=True, slots=True)
class FreeClimbOptions:
    """What FreeClimb's own documents leave open, with the choice made where nothing is said."""

    big_endian: bool = False
    """Byte order of L16 samples; not documented. The MIME type's own order is big-endian, most voice platforms write
    little-endian under that name."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread; no bound is documented."""

    timestamp_from_start: ClassVar[bool] = False
    """Moments are those of the wall clock."""

    def __post_init__(self) -> None:
        check_max_message_bytes(self.max_message_bytes)


class FreeClimbDialect(Dialect):
    """One end of one FreeClimb stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: the stream's format. Its byte order is not looked at; `options` says it.
        options: What FreeClimb leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = WIRE
    writes_binary: bool = True
    reports_errors: bool = True
    confirms_digits: bool = True
    confirms_clear: bool = True

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: FreeClimbOptions = FreeClimbOptions(),
    ) -> None:
        check_format(media_format)
        self.role = role
        self.options = options
        self.stream_id = ""
        self.media_format = self._ordered(media_format)
        self._content_type = CONTENT_TYPES[media_format.encoding, media_format.sample_rate_hz]
        self._started_ms = self._now_ms = 0
        """The stream's beginning, and the end of the latest audio, by the wall clock."""
        self._clock_rate_hz = 8000
        """Of the positions that `MarkReached` has."""
        self._open: str | None = None
        """The segment that is being written, at both ends."""
        self._boundaries: dict[str, list[tuple[str, str]]] = {}
        """Platform: by mark, what is to be said when it is reached: (which message, the segment's id)."""
        self._last_boundary = ""
        """Platform: the mark behind which no audio has come yet."""
        self._numbers = 0
        """Ids given out: by the application's end to the platform, by the platform's to its engine."""
        self._pending: dict[str, tuple[str, int]] = {}
        """Application: by segment, the checkpoint that waits for it, and how many clears were sent before it."""
        self._clears: dict[str, int] = {}
        """Application: unanswered clears, each with how many were sent before it."""
        self._clears_sent = 0
        self._pressed = ""
        """Application: the key that is held down."""
        self._incoming = AppMessage() if role is Role.PLATFORM else PlatformMessage()
        self._outgoing = PlatformMessage() if role is Role.PLATFORM else AppMessage()
        """Messages of audio, used again for each: to make one costs more than to fill it."""

    # Audio -------------------------------------------------------------------------------------------------------

    def media_template(self, track: str) -> MediaTemplate:
        """Describe what the native core writes of a media message: its facts and payload, for `wrap_media`.

        Raises:
            LocalWireError: another track than the caller's (platform), or the stream has not been started yet.
        """
        self._check_started("audio")
        if self.role is Role.PLATFORM and track != "inbound":
            _blame("audio", "bad_value", "this wire has no track but the caller's")
        fields = (Field.SEQUENCE_32, Field.SAMPLE_64, Field.BYTES, Field.END)
        return MediaTemplate((b"", b"", b"", b""), fields, binary=True)

    def media_shape(self) -> None:
        """All messages are `receive_binary`'s."""
        return

    def wrap_media(self, framed: memoryview) -> bytes:
        """Make the message of what the native core wrote."""
        sequence, sample = _FIELDS.unpack_from(framed)
        return self._audio(bytes(framed[_FIELDS.size :]), sequence, sample)

    def _audio(self, payload: bytes, sequence: int, sample: int) -> bytes:
        if self.role is Role.APPLICATION:
            return self._play(payload, sequence, last=False)
        message = self._outgoing
        audio = message.notify_audio_data
        audio.audio_data = payload
        audio.sequence_num = sequence & 0xFFFFFFFF
        rate_hz, n = self.media_format.sample_rate_hz, len(payload) // self.media_format.sample_bytes
        begin_us = self._started_ms * 1000 + sample * 1_000_000 // rate_hz
        _write_moment(audio.start_tstamp, begin_us)
        _write_moment(audio.end_tstamp, begin_us + n * 1_000_000 // rate_hz)
        self._now_ms = (begin_us + n * 1_000_000 // rate_hz) // 1000
        return bytes(message.SerializeToString())

    def _play(self, payload: bytes, sequence: int, *, last: bool) -> bytes:
        if self._open is None:
            self._open = self._new_id("segment")
        message = self._outgoing
        audio = message.audio_data
        audio.id = self._open
        audio.audio_data = payload
        audio.content_type = self._content_type
        audio.sequence_num = sequence & 0xFFFFFFFF
        audio.last_message = last
        return bytes(message.SerializeToString())

    def _new_id(self, what: str) -> str:
        self._numbers += 1
        return f"{what}-{self._numbers}"

    # Reading -----------------------------------------------------------------------------------------------------

    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """This wire has no text messages. Raises RemoteWireError."""
        _refuse("text", "a text message; this wire is protobuf over gRPC")

    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """Turn one whole message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; ``kind`` says in one word why.
        """
        if len(data) > self.options.max_message_bytes:
            _refuse("too_long", f"{len(data)} bytes, at most {self.options.max_message_bytes} are read")
        message = AppMessage() if self.role is Role.PLATFORM else PlatformMessage()
        try:
            message.ParseFromString(data)
        except (DecodeError, UnicodeDecodeError):
            _refuse("bad_protobuf", "not a message of this wire")
        which = message.WhichOneof("payload")
        if which is None:
            return (UnknownMessage("no_payload"),)
        body = getattr(message, which)
        if self.role is Role.PLATFORM:
            return self._read_command(which, body)
        return self._read_report(which, body)

    def plain_audio(self, data: bytes) -> bytes | None:
        """Return the audio of a message that is audio in the stream's format, of the open segment, and nothing else;
        None: `receive_binary` is to say what it is.
        """
        if not self.stream_id or len(data) > self.options.max_message_bytes:
            return None
        message = self._incoming
        try:
            message.ParseFromString(data)
        except (DecodeError, UnicodeDecodeError):
            return None
        which = message.WhichOneof("payload")
        if which == "notify_audio_data":
            payload: bytes = message.notify_audio_data.audio_data
        elif which == "audio_data":
            body = message.audio_data
            if body.id != self._open or body.last_message or body.content_type not in ("", self._content_type):
                return None
            payload = body.audio_data
        else:
            return None
        if not payload or len(payload) % self.media_format.sample_bytes:
            return None
        self._last_boundary = ""
        return payload

    def _read_command(self, which: str, body: Any) -> Sequence[WireEvent]:
        match which:
            case "audio_data":
                return self._read_played(body)
            case "clear_audio_buffer":
                cleared = Clear(_id(body.id, which))
                self._open, self._last_boundary = None, ""
                return (cleared,)
            case "dtmf_data":
                problem = digits_problem(body.dtmf_digits)
                if problem:
                    _refuse("bad_value", problem, which)
                press_ms = min(body.press_duration_ms, _PRESS_MAX_MS) or None
                gap_ms = min(body.break_duration_ms, _PRESS_MAX_MS) or None
                return (SendDigits(body.dtmf_digits.upper(), _id(body.id, which), press_ms, gap_ms),)
            case "terminate_call":
                return (HangUp(),)
            case "query_buffer":
                return (QueryBuffer("digits" if body.buffer_type == 0 else "audio"),)
        return (UnknownMessage(which),)  # ``end_stream`` is marked as not implemented by the platform

    def _read_played(self, body: Any) -> Sequence[WireEvent]:
        event = "audio_data"
        if not self.stream_id:
            _refuse("bad_state", "audio before the stream's start", event)
        segment = _id(body.id, event)
        media_format = self._played_format(body.content_type, event)
        payload = bytes(body.audio_data)
        if len(payload) % (media_format or self.media_format).sample_bytes:
            _refuse("odd_length", f"{len(payload)} bytes of 16-bit audio", event)
        media = Media(payload, track="outbound", media_format=media_format, sequence=body.sequence_num)
        if segment == self._open and not body.last_message:
            return (media,) if payload else ()
        events: list[WireEvent] = []
        reports: list[tuple[str, str]] = []
        if segment != self._open:
            if self._open is not None:
                reports.append((_ENDED, self._open))
            reports.append((_BEGUN, segment))
            if payload or self._open is not None or not body.last_message:
                self._set_boundary(events, self._open or "", reports)
                reports = []
        if payload:
            self._last_boundary = ""
            events.append(media)
        if body.last_message:
            self._set_boundary(events, segment, [*reports, (_ENDED, segment)])
        self._open = None if body.last_message else segment
        return events

    def _set_boundary(self, events: list[WireEvent], closed: str, reports: list[tuple[str, str]]) -> None:
        """Have `reports` made when all before has been played, by a mark of their own unless one is at hand."""
        before = self._boundaries.get(self._last_boundary)
        if before is not None and not closed:
            before += reports
            return
        self._numbers += 1
        self._last_boundary = str(self._numbers)
        self._boundaries[self._last_boundary] = reports
        _bound(self._boundaries, _BOUNDARIES_MAX)
        events.append(Mark(closed, self._last_boundary))

    def _played_format(self, content_type: str, event: str) -> MediaFormat | None:
        if not content_type:
            return None
        found = _FORMAT_OF.get(content_type.replace(" ", "").lower())
        if found is None:
            _refuse("unknown_format", "a content type other than audio/mulaw and audio/l16 with their rates", event)
        if found[1] != self.media_format.sample_rate_hz:
            _refuse(
                "other_format", f"audio at {found[1]} Hz on a stream of {self.media_format.sample_rate_hz} Hz", event
            )
        return self._ordered(MediaFormat(*found))

    def _read_report(self, which: str, body: Any) -> Sequence[WireEvent]:
        if which != "notify_call_started" and not self.stream_id:
            _refuse("bad_state", "a message before notify_call_started", which)
        match which:
            case "notify_call_started":
                return (self._read_start(body),)
            case "notify_audio_data":
                if len(body.audio_data) % self.media_format.sample_bytes:
                    _refuse("odd_length", f"{len(body.audio_data)} bytes of 16-bit audio", which)
                if not body.audio_data:
                    return ()
                return (
                    Media(
                        bytes(body.audio_data),
                        sequence=body.sequence_num,
                        timestamp_ms=_read_moment(body, "start_tstamp"),
                    ),
                )
            case "notify_dtmf_received_start_data":
                self._pressed = _digit(body.digit, which)
                return (Digit(self._pressed, timestamp_ms=_read_moment(body, "start_tstamp")),)
            case "notify_dtmf_received_end_data":
                digit, begun = _digit(body.digit, which), self._pressed
                self._pressed = ""
                return () if begun == digit else (Digit(digit, timestamp_ms=_read_moment(body, "end_tstamp")),)
            case "notify_playback_completed_data":
                waiting = self._pending.pop(_id(body.id, which), None)
                return () if waiting is None else (MarkReached(waiting[0]),)
            case "notify_playback_started_data":
                return ()
            case "notify_audio_cleared_data":
                return self._settle_clears(_id(body.id, which))
            case "notify_dtmf_play_started_data":
                return (DigitsSent(_id(body.id, which), begun=True),)
            case "notify_dtmf_play_completed_data":
                return (DigitsSent(_id(body.id, which)),)
            case "notify_call_ended":
                code = body.reason_code
                if not 0 <= code < len(_REASON_NAMES):
                    return (StreamStopped(f"reason {code}"),)
                return (StreamStopped(_REASON_NAMES[code], _ENDS[code]),)
            case "notify_error":
                return (PlatformError(shown(body.error_message), _id(body.error_id[:ID_MAX], which)),)
            case "notify_buffer":
                return (BufferDepth("digits" if body.buffer_type == 0 else "audio", body.depth, body.buffer_size),)
        return (UnknownMessage(which),)

    def _read_start(self, body: Any) -> StreamStarted:
        event = "notify_call_started"
        if self.stream_id:
            _refuse("bad_state", "a second start in one call", event)
        found = _FORMAT_OF.get(body.content_type.replace(" ", "").lower())
        if found is None:
            _refuse("unknown_format", "a content type other than audio/mulaw and audio/l16 with their rates", event)
        if len(body.metadata) > METADATA_MAX:
            _refuse("too_long", f"{len(body.metadata)} strings of metadata, at most {METADATA_MAX} are read", event)
        call_id = _id(body.call_id, event)
        self.stream_id = call_id or "freeclimb"
        self.media_format = self._ordered(MediaFormat(*found))
        self._content_type = CONTENT_TYPES[found]
        return StreamStarted(
            stream_id=self.stream_id,
            call_id=call_id,
            account_id="",
            tracks=("inbound",),
            media_format=self.media_format,
            custom_parameters=_read_metadata(body.metadata),
            from_number=_id(getattr(body, "from"), event),
            to_number=_id(body.to, event),
            direction="inbound" if body.is_inbound else "outbound",
        )

    # Writing -----------------------------------------------------------------------------------------------------

    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number of the stream's: audio does, and a segment's end
        is a message of audio, too.
        """
        return isinstance(command, Media | Mark)

    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more messages; `sequence` is the stream's next message number.

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules, or is the other end's to send.
        """
        if isinstance(command, Handshaken):
            return ()
        if isinstance(command, Media):
            self._check_started("audio")
            if len(command.payload) % self.media_format.sample_bytes:
                _blame("audio", "odd_length", "L16 audio has an even number of bytes")
            return (self._audio(command.payload, sequence, command.position or 0),)
        if isinstance(command, Mark) and self.role is Role.APPLICATION:
            return (self._end_segment(command.name, sequence),)
        messages = self._report(command) if self.role is Role.PLATFORM else self._command(command)
        return tuple(bytes(message.SerializeToString()) for message in messages)

    def check(self, command: WireEvent) -> None:
        """Raise what `send` would: an application's checkpoints and clears are remembered when they are sent."""
        match command:
            case Mark(name=name) if self.role is Role.APPLICATION:
                self._check_mark(name)
            case Clear() if self.role is Role.APPLICATION:
                self._check_started("Clear")
            case _:
                self.send(command)

    def _report(self, command: WireEvent) -> Sequence[Any]:
        message = PlatformMessage()
        now_us = self._now_ms * 1000
        match command:
            case StreamStarted():
                self._write_start(message.notify_call_started, command)
            case Digit(digit=digit, timestamp_ms=timestamp_ms, duration_ms=duration_ms):
                self._check_started("digit")
                if len(digit) != 1 or digits_problem(digit):
                    _blame("digit", "bad_value", "a digit is one of 0-9 * # A-D")
                begin_us = (timestamp_ms or self._now_ms) * 1000
                start, end = message.notify_dtmf_received_start_data, PlatformMessage()
                start.digit = end.notify_dtmf_received_end_data.digit = digit.upper()
                _write_moment(start.start_tstamp, begin_us)
                _write_moment(end.notify_dtmf_received_end_data.end_tstamp, begin_us + (duration_ms or 0) * 1000)
                return (message, end)
            case MarkReached():
                return self._write_boundary(command)
            case Cleared(id=ident):
                self._boundaries.clear()  # all that were pending were cleared, and none is newer than the clear
                message.notify_audio_cleared_data.id = ident
                _write_moment(message.notify_audio_cleared_data.timestamp, now_us)
            case DigitsSent(id=ident, begun=begun):
                body = message.notify_dtmf_play_started_data if begun else message.notify_dtmf_play_completed_data
                body.id = ident
                _write_moment(body.timestamp, now_us)
            case BufferDepth(what=what, depth=depth, size=size):
                message.notify_buffer.buffer_type = 0 if what == "digits" else 1
                message.notify_buffer.depth = depth
                message.notify_buffer.buffer_size = size
            case PlatformError(message=text, id=ident):
                message.notify_error.error_message = text
                message.notify_error.error_id = ident
            case StreamStopped(reason=reason):
                self._check_started("end")
                message.notify_call_ended.call_id = self.stream_id
                message.notify_call_ended.reason_code = _REASONS.get(reason, 3)
                message.notify_call_ended.reason = reason
            case _:
                raise LocalWireError(
                    "this is the application's to send; this end is the platform's",
                    wire=WIRE,
                    event=type(command).__name__,
                    kind="bad_state",
                )
        return (message,)

    def _write_boundary(self, reached: MarkReached) -> Sequence[Any]:
        """Report what lies at a boundary between segments, once it has been played; cleared ones are silent."""
        reports = self._boundaries.pop(reached.id, ())
        if reached.outcome is not Outcome.PLAYED:
            return ()
        at_us = self._now_ms * 1000
        if reached.at_sample is not None:
            at_us = self._started_ms * 1000 + reached.at_sample * 1_000_000 // self._clock_rate_hz
        messages = []
        for which, ident in reports:
            message = PlatformMessage()
            body = getattr(message, which)
            body.id = ident
            _write_moment(body.timestamp, at_us)
            messages.append(message)
        return messages

    def _write_start(self, body: Any, started: StreamStarted) -> None:
        event = "notify_call_started"
        if self.stream_id:
            _blame(event, "bad_state", "the stream has been started already")
        if self._ordered(started.media_format) != self.media_format:
            _blame(event, "unknown_format", f"this stream was made for {named(self.media_format)}")
        if started.tracks != ("inbound",):
            _blame(event, "bad_value", "this wire has no track but the caller's")
        if not 1 <= len(started.call_id) <= ID_MAX:
            _blame(event, "bad_value", f"call_id is not 1 to {ID_MAX} characters")
        try:
            metadata = write_metadata(started.custom_parameters)
        except ConfigError as error:
            _blame(event, "bad_value", str(error))
        body.call_id = started.call_id
        body.to = started.to_number
        setattr(body, "from", started.from_number)  # a word of the language
        body.is_inbound = started.direction == "inbound"
        body.metadata.extend(metadata)
        body.content_type = self._content_type
        self.stream_id = started.call_id
        self._started_ms = self._now_ms = started.started_ms
        self._clock_rate_hz = started.clock_rate_hz or self.media_format.sample_rate_hz

    def _command(self, command: WireEvent) -> Sequence[Any]:
        message = AppMessage()
        match command:
            case Clear():
                self._check_started("Clear")
                self._open = None
                ident = self._new_id("clear")
                self._clears[ident] = self._clears_sent
                self._clears_sent += 1
                _bound(self._clears, _UNANSWERED_MAX)
                message.clear_audio_buffer.id = ident
            case SendDigits(digits=digits, id=ident, press_ms=press_ms, gap_ms=gap_ms):
                problem = digits_problem(digits)
                if problem:
                    _blame("SendDigits", "bad_value", problem)
                message.dtmf_data.id = ident or self._new_id("digits")
                message.dtmf_data.dtmf_digits = digits.lower()
                message.dtmf_data.press_duration_ms = press_ms or _PRESS_MS
                message.dtmf_data.break_duration_ms = gap_ms or _PRESS_MS
            case QueryBuffer(what=what):
                message.query_buffer.buffer_type = 0 if what == "digits" else 1
            case HangUp():
                message.terminate_call.SetInParent()
            case StreamStopped():
                raise NotOnThisWire(
                    WIRE, "message that ends the stream alone", "terminate_call, or ending the gRPC call"
                )
            case StreamStarted() | Digit() | MarkReached() | Cleared() | DigitsSent() | BufferDepth() | PlatformError():
                raise LocalWireError(
                    "this is the platform's to send; this end is the application's",
                    wire=WIRE,
                    event=type(command).__name__,
                    kind="bad_state",
                )
            case _:
                raise NotOnThisWire(WIRE, f"message for {type(command).__name__}", "audio, clear, digits and terminate")
        return (message,)

    def _check_mark(self, name: str) -> None:
        if not 1 <= len(name) <= MARK_NAME_MAX:
            _blame("Mark", "bad_value", f"a checkpoint's name is 1 to {MARK_NAME_MAX} characters")
        self._check_started("Mark")

    def _end_segment(self, name: str, sequence: int) -> bytes:
        """Close the open segment, or one of nothing: when it is completed, the checkpoint is reached."""
        self._check_mark(name)
        message = self._play(b"", sequence, last=True)
        assert self._open is not None
        self._pending[self._open] = name, self._clears_sent
        _bound(self._pending, _UNANSWERED_MAX)
        self._open = None
        return message

    def _settle_clears(self, ident: str) -> Sequence[Cleared]:
        """What was sent before the clear of that id and is not completed never will be; clears before it that nobody
        has answered are answered by it. One without an id answers the oldest, one that was not asked for nothing.
        """
        ident = ident or next(iter(self._clears), "")
        last = self._clears.get(ident)
        if last is None:
            return ()
        answered = [clear for clear, number in self._clears.items() if number <= last]
        for clear in answered:
            del self._clears[clear]
        self._pending = {segment: one for segment, one in self._pending.items() if one[1] > last}
        return tuple(Cleared(clear) for clear in answered)

    def _check_started(self, event: str) -> None:
        if not self.stream_id:
            _blame(event, "bad_state", "nothing is known of the stream before its start message")

    def _ordered(self, media_format: MediaFormat) -> MediaFormat:
        return replace(media_format, big_endian=self.options.big_endian and media_format.encoding == "L16")


def check_format(media_format: MediaFormat) -> None:
    """Refuse a stream format that this wire does not write. Raises ConfigError."""
    if (media_format.encoding, media_format.sample_rate_hz) not in CONTENT_TYPES:
        raise ConfigError(
            f"codec {named(media_format)} is not on the freeclimb wire; right is PCMU at 8000 Hz, or L16 at 8000 or"
            " 16000 Hz"
        )


def write_metadata(custom_parameters: Mapping[str, str]) -> list[str]:
    """Write custom parameters as FreeClimb's list of strings: ``name=value``. Raises ConfigError."""
    if len(custom_parameters) > METADATA_MAX:
        raise ConfigError(f"{len(custom_parameters)} custom parameters; the freeclimb wire has at most {METADATA_MAX}")
    for name in custom_parameters:
        if not name or "=" in name:
            raise ConfigError(f"the custom parameter's name {name[:64]!a} is empty or has a = in it")
    return [f"{name}={value}" for name, value in custom_parameters.items()]


def _read_metadata(metadata: Sequence[str]) -> dict[str, str]:
    """``name=value`` by its name, anything else by its place in the list."""
    parameters: dict[str, str] = {}
    for place, text in enumerate(metadata):
        name, equals, value = text.partition("=")
        if equals and name:
            parameters[name] = value
        else:
            parameters[str(place)] = text
    return parameters


def _bound(remembered: dict[str, Any], most: int) -> None:
    """Forget the oldest of too many."""
    if len(remembered) > most:
        del remembered[next(iter(remembered))]


def _id(value: str, event: str) -> str:
    if len(value) > ID_MAX:
        _refuse("too_long", f"an id has {len(value)} characters, at most {ID_MAX} are read", event)
    return value


def _digit(value: str, event: str) -> str:
    if len(value) != 1 or digits_problem(value):
        _refuse("bad_value", "digit is not one of 0-9 * # A-D", event)
    return value.upper()


def _write_moment(moment: Any, at_us: int) -> None:
    moment.seconds, rest_us = divmod(at_us, 1_000_000)
    moment.nanos = rest_us * 1000


def _read_moment(body: Any, field: str) -> int | None:
    if not body.HasField(field):
        return None
    moment = getattr(body, field)
    at_ms = moment.seconds * 1000 + moment.nanos // 1_000_000
    return at_ms if at_ms >= 0 else None


def _refuse(kind: str, problem: str, event: str = "") -> NoReturn:
    raise RemoteWireError(problem, wire=WIRE, event=event, kind=kind)


def _blame(event: str, kind: str, problem: str) -> NoReturn:
    raise LocalWireError(problem, wire=WIRE, event=event, kind=kind)
