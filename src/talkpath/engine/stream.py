"""One stream of a call: what is said on it. How it comes about, is lost, and ends is in `stream_life`.

An application's messages become changes of the call's path and answers; the path's events become messages. All of it
happens in the driver's step, either because it came from the wire or as a command.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from talkpath._native import ffi, lib
from talkpath.dsp.mix import gain_db_x100
from talkpath.engine.chunks import UNNUMBERED, Chunks
from talkpath.engine.config import TRACKS, StreamSpec
from talkpath.engine.leg import DIGITS_MAX
from talkpath.engine.stream_life import StreamLife
from talkpath.errors import CallEnded, ConfigError, NativeError, RemoteWireError
from talkpath.events import (
    BufferDepth,
    Clear,
    Cleared,
    Digit,
    DigitsSent,
    HangUp,
    Interrupt,
    Mark,
    MarkReached,
    MarkSettled,
    Media,
    Pause,
    PlatformError,
    PlatformStatistics,
    QueryBuffer,
    QueryStatistics,
    Resume,
    SendDigits,
    SourceCleared,
    StreamDegraded,
    StreamStarted,
    StreamStopped,
    StreamUp,
    UnknownMessage,
    WireEvent,
)
from talkpath.path.stream import OUTCOMES, EventKind, Stream, StreamOptions, counters_of, native_format, tracks_of
from talkpath.records import EndReason, MarkOutcome, Outcome
from talkpath.transport.carrier import Carriage
from talkpath.transport.refusals import Refusals
from talkpath.units import samples_to_ms
from talkpath.wire.dialect import Role
from talkpath.wire.status import StatusKind

if TYPE_CHECKING:
    from talkpath.engine.call import Call

log = logging.getLogger("talkpath.engine.stream")

MAX_RECORDED_MARKS = 10_000
"""Outcomes kept for the record; later ones are still reported as events."""
FULL = -4
ASSEMBLY_BYTES = 64_000
"""What the native core collects for messages that are longer than a ptime."""
MAX_MESSAGE_BYTES = 1 << 20
"""Of one message, where the wire has no option for it."""


class CallStream(StreamLife):
    """A live stream; `Call.start_stream` returns it. Its public side: `control_id`, `stream_id`, `spec`, `record`."""

    __slots__ = (
        "_chunks",
        "_digits_sending",
        "_gain_db",
        "_marks",
        "_message_ms",
        "_next_mark",
        "_origin",
        "_paused",
        "_play_format",
        "_timestamp_base_ms",
    )

    hears_media = False

    def __init__(self, call: Call, spec: StreamSpec, index: int, control_id: str, number: int) -> None:
        super().__init__(call, spec, index, control_id, number)
        self._timestamp_base_ms = 0
        """Takes the payload out of a message that is audio and nothing else, where the dialect can do that faster."""
        self._play_format = native_format(self._dialect.play_format)
        self._marks: dict[int, Mark] = {}
        self._next_mark = 1
        self._chunks: Chunks | None = None
        """Made for the first chunk, where chunks can be taken back."""
        self._digits_sending: list[str] = []
        """What the application calls those that have not all gone out, where it is to be told."""
        self._origin = 0
        """The call's sample at which the stream was attached: on the wire positions count from there."""
        self._paused = False
        """By the application."""
        self._message_ms = self._whole_ptimes()
        self._gain_db = float(spec.gain_db)

    @property
    def gain_db(self) -> float:
        """How loud the application's audio is played, in dB, -60 to 18; minus infinity is mute.

        Set it at any time, to lower music under a voice for instance: it moves there in a straight line over one ptime,
        from the next tick on, whatever waits in the queue. It outlives a lost connection.

        Raises:
            ConfigError: out of range; the caller's to mend. CallEnded: the stream, or the call, is over.
        """
        return self._gain_db

    @gain_db.setter
    def gain_db(self, gain_db: float) -> None:
        gain_db_x100(gain_db)
        if self.end_reason is not None:
            raise CallEnded(self.end_reason, self.cause)
        self.call.commands.put(lambda now_ns: self._apply_gain())
        self._gain_db = float(gain_db)

    def _apply_gain(self) -> None:
        if self._live:
            lib.tp_path_set_gain(self.call.path, self.index, gain_db_x100(self._gain_db))

    def forget(self) -> None:
        """As `StreamLife.forget`."""
        self._chunks = None
        self._digits_sending.clear()
        self._paused = False

    def _whole_ptimes(self) -> int:
        """Return the audio in one message: what was asked for, rounded up to whole ptimes of the leg."""
        ptime_ms = self.call.leg.ptime_ms
        message_ms = -(-self.spec.message_ptime_ms() // ptime_ms) * ptime_ms
        media_format = self._dialect.media_format
        n_tracks = len(TRACKS[self.spec.track])
        n_bytes = message_ms * media_format.sample_rate_hz // 1000 * media_format.sample_bytes * n_tracks
        if message_ms > ptime_ms and n_bytes > ASSEMBLY_BYTES:
            raise ConfigError(
                f"a message of {message_ms} ms holds {n_bytes} bytes of this audio on {n_tracks} tracks; at most"
                f" {ASSEMBLY_BYTES} are collected: ask for a shorter message_ms"
            )
        return message_ms

    # In the step -------------------------------------------------------------------------------------------------

    def attach(self, carriage: Carriage, now_ns: int) -> None:
        """As `StreamLife.attach`."""
        if self.end_reason is not None:
            return
        call, spec = self.call, self.spec
        if self._lost is not None:
            self._come_back()
        media_format = self._dialect.media_format
        tracks = TRACKS[spec.track]
        options = getattr(self._dialect, "options", None)
        max_message_bytes = int(getattr(options, "max_message_bytes", MAX_MESSAGE_BYTES))
        if not getattr(options, "timestamp_from_start", False):
            self._timestamp_base_ms = round(call.engine.wall_clock() * 1000)
        started = StreamStarted(
            self.stream_id,
            call.call_id,
            self.account_id,
            tracks,
            media_format,
            dict(spec.custom_parameters),
            call.leg.media_format.sample_rate_hz,
            call.from_number,
            call.to_number,
            call.direction,
            self._timestamp_base_ms,
        )
        first = self._dialect.send(started, sequence=1)
        template_of = {track: self._dialect.media_template(track) for track in tracks}
        self._stream = Stream(
            call.engine.pool,
            StreamOptions(
                role=Role.PLATFORM,
                media_format=media_format,
                play_format=self._dialect.play_format,
                templates=(template_of.get("inbound"), template_of.get("outbound")),
                shape=self._dialect.media_shape(),
                tracks=tracks_of(tracks),
                bidirectional=spec.bidirectional,
                websocket=carriage.framed,
                masked=carriage.masked,
                mask_seed=int.from_bytes(call.entropy(8), "big"),
                message_ms=self._message_ms,
                bound_ms=round(spec.bound_s() * 1000),
                reserve_ms=1000 if spec.bidirectional else 0,
                max_message_bytes=max_message_bytes,
                timestamp_base_ms=self._timestamp_base_ms or None,
            ),
            leg_rate_hz=call.leg.media_format.sample_rate_hz,
            now=now_ns,
        )
        self._stream.lend(call.leg.ptime_ms)
        native = self._stream.native
        with call.driver.paused():  # no media before `start`, and none that finds no socket
            if lib.tp_path_attach(call.path, self.index, native) < 0:
                lib.tp_stream_close(native, 0)
                raise NativeError("the path refused a stream index that was free")
            lib.tp_path_set_gain(call.path, self.index, gain_db_x100(self._gain_db))
            self._native = native
            self._origin = int(lib.tp_path_clock(call.path))
            self._connection = connection = carriage.carry(
                call.driver,
                native,
                self,
                live=True,
                writes_binary=self._dialect.writes_binary,
                max_message_bytes=max_message_bytes,
                mask_seed=int.from_bytes(call.entropy(8), "big"),
                pump=call.pump_place(self.index) if carriage.pumpable else None,
            )
            self._live = True
            self._connected_ns = now_ns
            if self._started_ns is None:
                self._started_ns = now_ns
            call.send_media[self.index] = connection.send_media
            if self._dialect.numbered(started):
                lib.tp_stream_take_sequence(native)
            # Told before it is written: the socket may break at the first byte, and that is news of its own.
            call.note(StreamUp(self.control_id, self.stream_id))
            self._tell(StatusKind.STARTED)
            for message in first:
                connection.send_message(message)
            connection.start(now_ns)

    def _send(self, command: WireEvent) -> None:
        """Write one command or event to the wire; within the step."""
        connection = self._connection
        if connection is None or self.end_reason is not None:
            return
        with self.call.driver.paused():  # no media message with the next number before this one
            sequence = int(lib.tp_stream_take_sequence(self._native)) if self._dialect.numbered(command) else 0
            for message in self._dialect.send(command, sequence=sequence):
                connection.send_message(message)

    def on_media(self, now_ns: int) -> None:
        """The native core has taken audio; nothing is left to do."""

    def on_text(self, payload: bytes, now_ns: int) -> None:
        self._receive(self._dialect.receive, payload, now_ns)

    def _receive(self, read: Callable[[bytes], Sequence[WireEvent]], payload: bytes, now_ns: int) -> None:
        try:
            events = read(payload)
        except RemoteWireError as exc:
            self._refuse_unreadable(exc.kind)
            return
        for event in events:
            if self.end_reason is not None:
                return
            self._obey(event, now_ns)

    def _obey(self, event: WireEvent, now_ns: int) -> None:
        match event:
            case Media():
                self._play(event, now_ns)
            case Mark():
                self._mark(event)
            case Clear(id=ident):
                self._clear(ident)
            case Pause():
                self._pause(True)
            case Resume():
                self._pause(False)
            case QueryBuffer(what=what):
                self._answer_depth(what)
            case QueryStatistics():
                self._send(PlatformStatistics(counters_of(lib.tp_stream_statistics(self._native))))
            case Interrupt(chunk=chunk):
                self._interrupt(chunk, now_ns)
            case SendDigits():
                self._send_digits(event, now_ns)
            case HangUp() | StreamStopped():
                self.end(EndReason.APPLICATION_HUNG_UP)
            case UnknownMessage(kind=kind):
                self._refusals.add_unknown(kind)
            case _:
                self._refuse("not_the_applications")

    def _refuse(self, kind: str) -> None:
        """Count what was understood and not obeyed; the application is told, where the wire can say it."""
        self._refusals.add(kind)
        if self._dialect.reports_errors:
            self._send(PlatformError(kind))

    def _play(self, media: Media, now_ns: int) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        media_format = native_format(media.media_format or self._dialect.play_format)
        taken = lib.tp_stream_receive_audio(
            self._native, 0, media_format, ffi.from_buffer("uint8_t[]", media.payload), len(media.payload), now_ns
        )
        if self.wire.takes_back_chunks:
            if self._chunks is None:
                self._chunks = Chunks(self._dialect.play_format.sample_bytes)
            number = UNNUMBERED if media.chunk is None else media.chunk
            self._chunks.add(number, media.payload, taken, int(lib.tp_stream_queued_samples(self._native)))

    def _interrupt(self, chunk: int, now_ns: int) -> None:
        """Take one chunk out of the queue: what follows it is played in its place."""
        rest = None
        with self.call.driver.paused():  # no sample is played between looking and clearing
            if self._chunks is not None:
                rest = self._chunks.without(chunk, int(lib.tp_stream_queued_samples(self._native)))
            if rest is not None:
                lib.tp_path_clear(self.call.path, self.index)
                for number, payload in rest:
                    self._play(Media(payload, chunk=number), now_ns)
        if rest is None:
            self._refuse("unknown_chunk")

    def _mark(self, mark: Mark) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        ident = self._next_mark
        if lib.tp_stream_mark(self._native, ident) < 0:
            self._refuse("too_many_marks")
            if self._dialect.reports_errors and self._dialect.returns_marks_on_clear:
                self._send(MarkReached(mark.name, Outcome.LOST, self._position(), mark.id))
            return
        self._next_mark += 1
        self._marks[ident] = mark

    def _clear(self, ident: str) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        self._clears += 1
        self._pause(False)
        dropped = int(lib.tp_path_clear(self.call.path, self.index))
        if self._chunks is not None:
            self._chunks.clear()
        self.pull_events()
        self._send(Cleared(ident))
        self._tell(StatusKind.CLEARED)
        self.call.note(SourceCleared(self.control_id, dropped))

    def _pause(self, paused: bool) -> None:
        """Hold the application's audio at the next sample, or let it go on. Digits that hold it have the last word."""
        if not self.spec.bidirectional:
            self._refuse("one_way")
        elif paused != self._paused:
            self._paused = paused
            if not self.call.leg.holds_audio(self.index):
                lib.tp_stream_pause(self._native, paused)

    def _answer_depth(self, what: str) -> None:
        """In what the wires that ask count: 20 ms of audio, or digits."""
        if what == "digits":
            self._send(BufferDepth(what, self.call.leg.digits_waiting(), DIGITS_MAX))
        else:
            waiting_ms = int(lib.tp_stream_queued_us(self._native)) // 1000
            self._send(BufferDepth(what, -(-waiting_ms // 20), round(self.spec.bound_s() * 50)))

    def _send_digits(self, asked: SendDigits, now_ns: int) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        told = self._dialect.confirms_digits
        with self.call.driver.paused():
            if told:  # those before may have gone out just now, and these have not
                self.call.pull_events(now_ns)
            status = self.call.leg.send_digits(
                self.index, self._native, asked.digits, asked.press_ms or 0, asked.gap_ms or 0
            )
        if status < 0:
            self._refuse("too_many_digits" if status == FULL else "digits")
            return
        self._digits_sent += len(asked.digits)
        if told:
            self._digits_sending.append(asked.id)
            self._send(DigitsSent(asked.id, begun=True))

    def on_digits_sent(self) -> None:
        """All digits of this stream have gone out."""
        sent, self._digits_sending = self._digits_sending, []
        for ident in sent:
            self._send(DigitsSent(ident))

    def on_audio_let_go(self) -> None:
        """A leg that held the audio for digits has let it go on, and has no more of them."""
        if self._paused and self._native is not None:
            lib.tp_stream_pause(self._native, 1)
        if self._digits_sending and self.end_reason is None:
            # The leg counts them as it hears: the messages of this very tick have their numbers and are not sent yet.
            self.call.commands.put(lambda now_ns: self.on_digits_sent())

    def _position(self) -> int:
        """Return the call's present sample, as it is told on the wire."""
        return int(lib.tp_path_clock(self.call.path)) - self._origin

    @property
    def _refusals(self) -> Refusals:
        """Made for the first one."""
        if self._refused is None:
            self._refused = Refusals(log, f"stream {self.control_id}: the application's")
        return self._refused

    def _refuse_unreadable(self, kind: str) -> None:
        if self._refusals.add_unreadable(kind):
            self._close_code = 1002
            self.end(EndReason.WIRE_ERROR)
        elif self._dialect.reports_errors:
            self._send(PlatformError(kind))

    def on_binary(self, payload: bytes, now_ns: int) -> None:
        if self.spec.bidirectional and (audio := self._dialect.plain_audio(payload)) is not None:
            lib.tp_stream_receive_audio(self._native, 0, self._play_format, audio, len(audio), now_ns)
            return
        self._receive(self._dialect.receive_binary, payload, now_ns)

    def on_protocol_error(self, exc: RemoteWireError) -> None:
        self._refusals.add(exc.kind)
        self._close_code = getattr(exc, "close_code", 1002)
        self.end(EndReason.WIRE_ERROR, exc)

    def on_native_event(self, event: Any) -> None:
        """One event of this stream, or of what is heard in its place."""
        if self._fallback is not None:
            self._fallback.on_native_event(event)
            return
        match event.kind:
            case EventKind.MARK:
                self._settle(event.id, OUTCOMES[event.value], event.at_sample)
            case EventKind.DIGITS_SENT:
                self.on_digits_sent()
            case EventKind.FILL:
                self.call.note(StreamDegraded(self.control_id, event.value))
                self._tell(
                    StatusKind.DEGRADED,
                    reason="buffer_overflow" if event.value >= 100 else f"buffer {event.value} % full",
                )
                if event.value >= 100 and self._dialect.reports_errors:
                    self._send(PlatformError("buffer_overflow"))
            case _:
                pass

    def _settle(self, ident: int, outcome: Outcome, at_sample: int) -> None:
        mark = self._marks.pop(ident, None)
        if mark is None:
            return
        name = mark.name
        if name and len(self._outcomes) < MAX_RECORDED_MARKS:
            self._outcomes.append(MarkOutcome(name, outcome, at_sample))
        if name and outcome is Outcome.PLAYED:
            self._tell(StatusKind.PLAYED, name=name)
        if self.end_reason is None and (outcome is Outcome.PLAYED or self._dialect.returns_marks_on_clear):
            self._send(MarkReached(name, outcome, at_sample - self._origin, mark.id))
        if name:
            self.call.note(MarkSettled(self.control_id, name, outcome, at_sample))

    def send_digit(self, digit: str, at_sample: int) -> None:
        """Tell the application that the caller pressed a key."""
        if self._live and self.end_reason is None and (self.spec.bidirectional or self.wire.digits_one_way):
            self._digits_received += 1
            rate = self.call.leg.media_format.sample_rate_hz
            at_ms = samples_to_ms(max(0, at_sample - self._origin), rate)
            self._send(Digit(digit, timestamp_ms=self._timestamp_base_ms + at_ms))
