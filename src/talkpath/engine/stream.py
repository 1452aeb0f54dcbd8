"""One stream of a call: connect, say `start`, carry media and control messages, end, say goodbye.

States, and who moves them::

    CONNECTING --handshake done, tick attaches--> LIVE --end()--> ENDED --goodbye, callbacks--> gone
        |                                                           ^
        +-- out of attempts, timed out, refused, end() -------------+

`run` is a task in the call's media nursery. Everything that changes the path (attach, marks, clears) happens in the
driver's step, either because it came from the wire or as a command. `end` is the one door: synchronous, idempotent,
from anywhere; it detaches at once, and what needs waiting (the goodbye) is left to `run`. A stream's end is not the
call's, unless its specification says so.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import ffi, lib
from talkpath.engine.chunks import Chunks
from talkpath.engine.config import TRACKS, StreamSpec
from talkpath.errors import CallEnded, ConfigError, LocalWireError, NativeError, RemoteWireError
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
    StreamEnded,
    StreamStarted,
    StreamStopped,
    StreamUp,
    UnknownMessage,
    WireEvent,
)
from talkpath.path.stream import OUTCOMES, EventKind, Stream, StreamOptions, counters_of, native_format, tracks_of
from talkpath.records import EndReason, MarkOutcome, Outcome, StreamRecord
from talkpath.transport.carrier import Carriage, Carrier, open_carriage, parse_target
from talkpath.transport.refusals import Refusals
from talkpath.transport.upgrade import Target
from talkpath.transport.wake import Bell, Moment
from talkpath.units import NS_PER_MS, samples_to_ms
from talkpath.wire.catalog import wire_named
from talkpath.wire.dialect import Role
from talkpath.wire.entry import StreamAttributes
from talkpath.wire.status import StatusEvent, StatusKind

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
GOODBYE_CODES = {
    EndReason.WIRE_ERROR: 1002,
    EndReason.INTERNAL_ERROR: 1011,
    EndReason.BLOCK_FAILED: 1011,
    EndReason.CONTROL_OVERFLOW: 1011,
}


class CallStream:
    """A live stream; `Call.start_stream` returns it. Its public side: `control_id`, `stream_id`, `spec`, `record`."""

    __slots__ = (
        "_chunks",
        "_clears",
        "_close_code",
        "_connection",
        "_dialect",
        "_digits_received",
        "_digits_sending",
        "_digits_sent",
        "_end_bell",
        "_ended_ns",
        "_live",
        "_marks",
        "_message_ms",
        "_native",
        "_next_mark",
        "_origin",
        "_outcomes",
        "_paused",
        "_refused",
        "_scope",
        "_started_ns",
        "_stream",
        "_target",
        "_timestamp_base_ms",
        "account_id",
        "call",
        "cause",
        "control_id",
        "end_reason",
        "ended",
        "flushing",
        "index",
        "number",
        "ready",
        "record",
        "spec",
        "stream_id",
        "wire",
    )

    hears_media = False

    def __init__(self, call: Call, spec: StreamSpec, index: int, control_id: str, number: int) -> None:
        self.call = call
        self.spec = spec
        self.index = index
        self.control_id = control_id
        self.number = number
        """How many streams of the call had begun with this one."""
        self.wire = wire_named(spec.wire)
        self.account_id = spec.account_id or self.wire.default_account_id
        self.stream_id = self.wire.make_stream_id(call.entropy)
        self.end_reason: EndReason | None = None
        self.cause: BaseException | None = None
        self.record: StreamRecord | None = None
        self.ready = Moment()
        self.ended = Moment()
        self._scope: trio.CancelScope | None = None
        """Of the attempt to connect, while it lasts."""
        self._end_bell = Bell()
        self._live = False
        self._native: Any = None
        self._stream: Stream | None = None
        self._timestamp_base_ms = 0
        self._dialect = self.wire.platform(spec.media_format(), spec.options)
        self._connection: Carrier | None = None
        self._marks: dict[int, str] = {}
        self._next_mark = 1
        self._outcomes: list[MarkOutcome] = []
        self._refused: Refusals | None = None
        self.flushing = False
        """Whether its socket is full, and the call's send task sees to it."""
        self._clears = 0
        self._chunks: Chunks | None = None
        """Made for the first chunk that has a number to be taken back by."""
        self._digits_received = 0
        self._digits_sent = 0
        self._digits_sending: list[str] = []
        """What the application calls those that have not all gone out, where it is to be told."""
        self._origin = 0
        """The call's sample at which the stream was attached: on the wire positions count from there."""
        self._paused = False
        """By the application."""
        self._started_ns: int | None = None
        self._ended_ns = 0
        self._close_code = 1000
        self._target: Target | None = parse_target(self.wire.transport, spec.url)
        """Until it has been connected to."""
        self._message_ms = self._whole_ptimes()

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

    # The task ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live the stream's whole life. Never raises; a failure ends the stream with a reason."""
        try:
            with trio.CancelScope() as self._scope:
                if self.end_reason is None:
                    await self._begin()
            self._scope = self._target = None
            if self.end_reason is None:
                await self._end_bell.wait()
        except CallEnded as exc:
            self.end(exc.reason, exc.cause)
        except LocalWireError as exc:
            self.end(EndReason.WIRE_ERROR, exc)
        except Exception as exc:
            log.error("stream %s: %s", self.control_id, type(exc).__name__, exc_info=exc)
            self.end(EndReason.INTERNAL_ERROR, exc)
        finally:
            self.end(EndReason.CANCELLED)
            await self._goodbye()
            self._finish()

    async def _begin(self) -> None:
        carriage = await self._connect()
        try:
            await self._go_live(carriage)
        except BaseException:
            if self._connection is None:
                carriage.close()
            raise

    async def _connect(self) -> Carriage:
        config = self.call.engine.config
        spec, target = self.spec, self._target
        assert target is not None
        fixed = list(spec.headers.items())
        if spec.authorization_bearer_token:
            fixed.append(("Authorization", f"Bearer {spec.authorization_bearer_token}"))
        last: Exception | None = None
        reason = EndReason.CONNECT_FAILED
        for attempt in range(config.connect_attempts):
            if attempt:
                await trio.sleep(config.connect_backoff_s * 2 ** (attempt - 1))
            # Each attempt has a nonce of its own: whoever remembers nonces must be able to refuse one that comes again.
            nonce = str(int.from_bytes(self.call.entropy(8), "big"))
            headers = [*fixed, *self.wire.upgrade_headers(spec.auth_token, nonce, target.url)]
            try:
                with trio.fail_after(config.connect_timeout_s):
                    return await open_carriage(
                        self.wire.transport,
                        target,
                        headers=headers,
                        subprotocol=self.wire.subprotocol,
                        method=self.wire.grpc_method,
                        wrap=getattr(self._dialect, "wrap_media", bytes),
                        context=config.tls_context,
                    )
            except trio.TooSlowError as exc:
                last, reason = exc, EndReason.HANDSHAKE_TIMED_OUT
            except RemoteWireError as exc:
                last, reason = exc, EndReason.HANDSHAKE_REFUSED
            except (OSError, ssl.SSLError) as exc:
                last, reason = exc, EndReason.CONNECT_FAILED
        raise CallEnded(reason, last)

    async def _go_live(self, carriage: Carriage) -> None:
        """Have the next tick attach the stream and say `start`."""

        def attach(now_ns: int) -> Exception | None:
            try:
                self._attach(carriage, now_ns)
            except Exception as exc:
                return exc
            self.ready.set()  # here, so that whoever waits for it goes on beside this stream's task and not after it
            return None

        failure = await self.call.commands.perform(attach)
        if failure is not None:
            raise failure

    # In the step -------------------------------------------------------------------------------------------------

    def _attach(self, carriage: Carriage, now_ns: int) -> None:
        if self.end_reason is not None:
            return
        call, spec = self.call, self.spec
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
            self._started_ns = now_ns
            call.send_media[self.index] = connection.send_media
            if self._dialect.numbered(started):
                lib.tp_stream_take_sequence(native)
            for message in first:
                connection.send_message(message)
            call.note(StreamUp(self.control_id, self.stream_id))
            self._tell(StatusKind.STARTED)
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
            case Mark(name=name):
                self._mark(name)
            case Clear(id=ident):
                self._clear(ident)
            case Pause():
                self._pause(True)
            case Resume():
                self._pause(False)
            case QueryBuffer():
                waiting_ms = int(lib.tp_stream_queued_us(self._native)) // 1000
                self._send(BufferDepth("audio", -(-waiting_ms // 20), round(self.spec.bound_s() * 50)))
            case QueryStatistics():
                self._send(PlatformStatistics(counters_of(lib.tp_stream_statistics(self._native))))
            case Interrupt(chunk=chunk):
                self._interrupt(chunk, now_ns)
            case SendDigits(digits=digits, id=ident):
                self._send_digits(digits, ident, now_ns)
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
        if media.chunk is not None:
            if self._chunks is None:
                self._chunks = Chunks(self._dialect.play_format.sample_bytes)
            self._chunks.add(media.chunk, media.payload, taken, int(lib.tp_stream_queued_samples(self._native)))

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

    def _mark(self, name: str) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        ident = self._next_mark
        if lib.tp_stream_mark(self._native, ident) < 0:
            self._refuse("too_many_marks")
            if self._dialect.reports_errors and self._dialect.returns_marks_on_clear:
                self._send(MarkReached(name, Outcome.LOST, self._position()))
            return
        self._next_mark += 1
        self._marks[ident] = name

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

    def _send_digits(self, digits: str, ident: str, now_ns: int) -> None:
        if not self.spec.bidirectional:
            self._refuse("one_way")
            return
        told = self._dialect.confirms_digits
        with self.call.driver.paused():
            if told:  # those before may have gone out just now, and these have not
                self.call.pull_events(now_ns)
            status = self.call.leg.send_digits(self.index, self._native, digits)
        if status < 0:
            self._refuse("too_many_digits" if status == FULL else "digits")
            return
        self._digits_sent += len(digits)
        if told:
            self._digits_sending.append(ident)
            self._send(DigitsSent(ident, begun=True))

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
        self._receive(self._dialect.receive_binary, payload, now_ns)

    def on_peer_closed(self, code: int | None) -> None:
        if code is None:
            self.end(EndReason.PEER_VANISHED)
        elif code in (1011, 1002, 1003, 1007, 1008, 1009):
            self.end(EndReason.APPLICATION_FAILED)
        else:
            self.end(EndReason.APPLICATION_HUNG_UP)

    def on_broken(self, exc: OSError) -> None:
        self.end(EndReason.PEER_VANISHED, exc)

    def on_protocol_error(self, exc: RemoteWireError) -> None:
        self._refusals.add(exc.kind)
        self._close_code = getattr(exc, "close_code", 1002)
        self.end(EndReason.WIRE_ERROR, exc)

    def on_full(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.call.flush_soon(self)

    def on_overflow(self) -> None:
        self.end(EndReason.CONTROL_OVERFLOW)

    def failed(self, exc: Exception) -> None:
        log.error("stream %s: %s", self.control_id, type(exc).__name__, exc_info=exc)
        self.end(EndReason.INTERNAL_ERROR, exc)

    def pull_events(self) -> None:
        """Take this stream's own events (marks settled by a clear or a close) from the native core."""
        event = ffi.new("tp_event *")
        while lib.tp_stream_next_event(self._native, event) == 1:
            self.on_native_event(event)

    def on_native_event(self, event: Any) -> None:
        """One event of this stream."""
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
            case _:
                pass

    def _settle(self, ident: int, outcome: Outcome, at_sample: int) -> None:
        name = self._marks.pop(ident, None)
        if name is None:
            return
        if len(self._outcomes) < MAX_RECORDED_MARKS:
            self._outcomes.append(MarkOutcome(name, outcome, at_sample))
        if outcome is Outcome.PLAYED:
            self._tell(StatusKind.PLAYED, name=name)
        if self.end_reason is None and (outcome is Outcome.PLAYED or self._dialect.returns_marks_on_clear):
            self._send(MarkReached(name, outcome, at_sample - self._origin))
        self.call.note(MarkSettled(self.control_id, name, outcome, at_sample))

    def send_digit(self, digit: str, at_sample: int) -> None:
        """Tell the application that the caller pressed a key."""
        if self._live and self.end_reason is None and (self.spec.bidirectional or self.wire.digits_one_way):
            self._digits_received += 1
            rate = self.call.leg.media_format.sample_rate_hz
            at_ms = samples_to_ms(max(0, at_sample - self._origin), rate)
            self._send(Digit(digit, timestamp_ms=self._timestamp_base_ms + at_ms))

    def housekeeping(self, now_ns: int) -> None:
        connection = self._connection
        if connection is None or self.end_reason is not None:
            return
        if self._started_ns is not None and now_ns - self._started_ns >= self.spec.stream_timeout_s * 1e9:
            self.end(EndReason.STREAM_TIMED_OUT)
        elif not connection.check_alive(now_ns):
            self.end(EndReason.PEER_VANISHED)

    # The end -----------------------------------------------------------------------------------------------------

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """End the stream now: no sample of it is played or sent from here. Idempotent; the only door."""
        if self.end_reason is not None:
            return
        self.end_reason, self.cause = reason, cause
        call = self.call
        self._ended_ns = call.clock.now_ns()
        call.send_media[self.index] = None
        with call.driver.paused():  # no tick between the two writes a message for nobody
            if self._connection is not None:
                self._connection.stop()
            if self._native is not None:
                lib.tp_path_detach(call.path, self.index)
        if self._native is not None:
            call.leg.drop_digits(self.index)
            self.pull_events()
        self._live = False
        if self._scope is not None:
            self._scope.cancel()
        self._end_bell.ring()
        call.note(StreamEnded(self.control_id, self.stream_id, reason))
        if self.spec.ends_call:
            call.end(reason, cause)

    async def _goodbye(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with trio.move_on_after(self.call.engine.config.goodbye_s, shield=True):
            if connection.broken:
                connection.abort()
                return
            reason = self.end_reason or EndReason.STOPPED
            sequence = int(lib.tp_stream_take_sequence(self._native))
            for message in self._dialect.send(StreamStopped(reason.value), sequence=sequence):
                connection.send_message(message)
            code = self._close_code if reason is EndReason.WIRE_ERROR else GOODBYE_CODES.get(reason, 1000)
            await connection.close(code)
        connection.abort()

    def _finish(self) -> None:
        """Write the record; give everything back."""
        reason = self.end_reason or EndReason.INTERNAL_ERROR
        counters = lib.tp_stream_statistics(self._native) if self._native is not None else None
        rate = self._dialect.media_format.sample_rate_hz
        duration_ms = (self._ended_ns - self._started_ns) // NS_PER_MS if self._started_ns is not None else 0
        self.record = StreamRecord(
            stream_id=self.stream_id,
            control_id=self.control_id,
            name=self.spec.name,
            wire=self.spec.wire,
            reason=reason,
            duration_ms=duration_ms,
            messages_sent=counters.messages_out if counters is not None else 0,
            messages_received=counters.messages_in if counters is not None else 0,
            marks=tuple(self._outcomes),
            clears=self._clears,
            refused=dict(self._refused.by_kind) if self._refused is not None else {},
            application_ms=samples_to_ms(counters.samples_played, rate) if counters is not None else 0,
            dropped_ms=samples_to_ms(counters.samples_dropped, rate) if counters is not None else 0,
            media_dropped=self._connection.media_dropped_so_far() if self._connection is not None else 0,
            digits_received=self._digits_received,
            digits_sent=self._digits_sent,
            cause=_cause_name(self.cause),
        )
        try:
            if self._started_ns is not None and reason.orderly:
                self._tell(StatusKind.STOPPED, reason="completed", duration_s=duration_ms // 1000)
            else:
                self._tell(
                    StatusKind.FAILED,
                    reason="connection_failed" if self._started_ns is None else reason.value,
                    duration_s=duration_ms // 1000,
                )
        finally:
            self._native = None
            self._stream = None
            self._connection = None
            self.ready.set()
            self.ended.set()
            self.call.stream_gone(self)

    def _tell(self, kind: StatusKind, *, reason: str = "", name: str = "", duration_s: int = 0) -> None:
        """Queue a status callback; the engine's own nursery delivers it."""
        spec, call = self.spec, self.call
        if not spec.status_url:
            return
        event = StatusEvent(
            kind=kind,
            call_id=call.call_id,
            stream_id=self.stream_id,
            at_unix_s=call.engine.wall_clock(),
            from_number=call.from_number,
            to_number=call.to_number,
            direction=call.direction,
            account_id=self.account_id,
            control_id=self.control_id,
            stream_name=spec.name,
            track=spec.track,
            service_url=spec.url,
            name=name,
            reason=reason,
            duration_s=duration_s,
            stream_attributes=self.wire.stream_attributes(
                StreamAttributes(
                    bidirectional=spec.bidirectional,
                    tracks=TRACKS[spec.track],
                    timeout_s=spec.stream_timeout_s,
                    media_format=spec.media_format(),
                    custom_parameters=spec.custom_parameters,
                )
            ),
        )
        nonce = str(int.from_bytes(call.entropy(8), "big"))
        scheme = spec.status_scheme or self.wire.status_schemes[0]
        try:
            request = self.wire.status_request(
                event,
                scheme,
                spec.status_url,
                spec.status_url_method,
                spec.auth_token,
                nonce,
            )
        except ConfigError as exc:
            # By GET a long status_url and long fields together may pass the bound of a URL.
            call.engine.callback_impossible(exc)
            return
        if request is not None:
            in_passing = kind in (StatusKind.PLAYED, StatusKind.CLEARED, StatusKind.DEGRADED)
            call.engine.deliver(request, in_passing=in_passing)

    async def flush(self) -> None:
        """Empty a full socket, or give the stream up; run by the call's send task."""
        connection = self._connection
        if connection is None:
            return
        try:
            if not await connection.flush(self.call.engine.config.stall_s):
                self.end(EndReason.PEER_STALLED)
        finally:
            self.flushing = False


def _cause_name(cause: BaseException | None) -> str:
    if cause is None:
        return ""
    if isinstance(cause, (RemoteWireError, LocalWireError)):
        return f"{type(cause).__name__}: {cause}"
    return type(cause).__name__
