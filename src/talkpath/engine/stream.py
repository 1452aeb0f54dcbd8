"""One stream of a call: connect, say `start`, carry media and control messages, end, say goodbye.

States, and who moves them::

    CONNECTING --handshake done, tick attaches--> LIVE ------- end() -------> ENDED --goodbye, callbacks--> gone
        |                                         |  ^                          ^
        |             connection lost, reconnect_s|  |tick attaches anew        |
        |                                         v  |                          |
        |                                     RECONNECTING -- budget spent, end()
        +-- out of attempts, timed out, refused, end() -------------------------+

`run` is a task in the call's media nursery. Everything that changes the path (attach, marks, clears) happens in the
driver's step, either because it came from the wire or as a command. `end` is the one door: synchronous, idempotent,
from anywhere; it detaches at once, and what needs waiting (the goodbye) is left to `run`. A stream's end is not the
call's, unless its specification says so.

Lost is a connection that broke, closed without a word, fell silent (pings), takes no bytes, or whose server said that
it goes away (close codes 1001, 1012, 1013). An application that hangs up, fails (1011) or breaks the wire's rules has
not been lost. What was queued is then settled as LOST, as at an end. A new connection is a new stream to the wire: a
stream id of its own, `start`, sequence and chunks from the beginning (Plivo's compatible carriers do so; where a
platform documents nothing it is our choice, since a status or a start that comes twice for one id is read as one). To
the call it is the same stream: control id, place, record. Each stream id is told as started once, and as stopped or
failed once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import ffi, lib
from talkpath.engine.callbacks import CallbackQueue
from talkpath.engine.chunks import UNNUMBERED, Chunks
from talkpath.engine.config import TRACKS, StreamSpec
from talkpath.engine.dialling import Dialling
from talkpath.engine.leg import DIGITS_MAX
from talkpath.engine.outage import SETTLED_S, Fallback, Outage
from talkpath.engine.status import tell
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
    StreamLost,
    StreamStarted,
    StreamStopped,
    StreamUp,
    UnknownMessage,
    WireEvent,
)
from talkpath.path.stream import OUTCOMES, EventKind, Stream, StreamOptions, counters_of, native_format, tracks_of
from talkpath.records import EndReason, MarkOutcome, Outcome, StreamRecord
from talkpath.transport.carrier import Carriage, Carrier
from talkpath.transport.refusals import Refusals
from talkpath.transport.wake import Bell, Moment
from talkpath.units import NS_PER_MS, samples_to_ms
from talkpath.wire.catalog import wire_named
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
NOTHING_YET = (0, 0, 0, 0, 0)
MAX_MESSAGE_BYTES = 1 << 20
"""Of one message, where the wire has no option for it."""
GOING_AWAY = frozenset({1001, 1012, 1013})
"""A server that is shut down, restarted, or has no room just now (RFC 6455 7.4.1 and the registry it opened)."""
GOODBYE_CODES = {
    EndReason.WIRE_ERROR: 1002,
    EndReason.INTERNAL_ERROR: 1011,
    EndReason.BLOCK_FAILED: 1011,
    EndReason.CONTROL_OVERFLOW: 1011,
}


class CallStream:
    """A live stream; `Call.start_stream` returns it. Its public side: `control_id`, `stream_id`, `spec`, `record`."""

    __slots__ = (
        "_callbacks",
        "_chunks",
        "_clears",
        "_close_code",
        "_connected_ns",
        "_connection",
        "_dialect",
        "_dialling",
        "_digits_received",
        "_digits_sending",
        "_digits_sent",
        "_end_bell",
        "_ended_ns",
        "_fallback",
        "_live",
        "_lost",
        "_marks",
        "_message_ms",
        "_native",
        "_next_mark",
        "_origin",
        "_outage",
        "_outcomes",
        "_past",
        "_paused",
        "_reconnects",
        "_refused",
        "_scope",
        "_started_ns",
        "_stream",
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
        self._marks: dict[int, Mark] = {}
        self._next_mark = 1
        self._outcomes: list[MarkOutcome] = []
        self._refused: Refusals | None = None
        self.flushing = False
        """Whether its socket is full, and the call's send task sees to it."""
        self._clears = 0
        self._callbacks: CallbackQueue | None = None
        self._chunks: Chunks | None = None
        """Made for the first chunk, where chunks can be taken back."""
        self._digits_received = 0
        self._digits_sent = 0
        self._digits_sending: list[str] = []
        """What the application calls those that have not all gone out, where it is to be told."""
        self._origin = 0
        """The call's sample at which the stream was attached: on the wire positions count from there."""
        self._paused = False
        """By the application."""
        self._started_ns: int | None = None
        """The first time."""
        self._connected_ns = 0
        """The last time."""
        self._ended_ns = 0
        self._outage: Outage | None = None
        """While it lasts, and after it until the connection has settled."""
        self._lost: Carrier | None = None
        """The connection that was lost, until it has been closed; its being there is the state RECONNECTING."""
        self._fallback: Fallback | None = None
        self._reconnects = 0
        self._past = NOTHING_YET
        """Counters of the connections that were lost."""
        self._close_code = 1000
        self._dialling: Dialling | None = Dialling(call, spec, self.wire, self._dialect)
        """While it is being connected to."""
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
                    assert self._dialling is not None
                    await self._begin(await self._dialling.begin())
            self._scope = self._dialling = None
            while self.end_reason is None:
                if self._lost is not None:
                    await self._reconnect()
                else:
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
            try:
                await self._goodbye()
                self._finish()
                await self._say_sorry()
            finally:
                self._silence()
                self.call.stream_gone(self)

    async def _begin(self, carriage: Carriage) -> None:
        try:
            await self._go_live(carriage)
        finally:
            if self._connection is None:
                carriage.close()

    async def _reconnect(self) -> None:
        """Bridge an outage: fallback audio meanwhile, and then a new connection or the end."""
        outage, lost = self._outage, self._lost
        assert outage is not None
        assert lost is not None
        lost.abort()
        fallback = self._console()
        with trio.CancelScope() as self._scope:
            carriage = await Dialling(self.call, self.spec, self.wire, self._dialect).again(outage)
            if carriage is not None:
                await self._begin(carriage)
            elif fallback is not None:
                fallback.finish()
                await fallback.heard.wait()
        self._scope = None
        if carriage is None:
            self.end(outage.reason, outage.cause)

    # In the place of an application that is gone -----------------------------------------------------------------

    def _console(self) -> Fallback | None:
        """Begin to play the fallback audio, where there is one, and memory for it."""
        clip, call = self.spec.fallback_clip, self.call
        if clip is None or call.end_reason is not None:
            return None
        try:
            with call.driver.paused():
                self._fallback = fallback = Fallback(call, self.index, clip)
        except CallEnded:
            return None
        call.start_soon(fallback.play)
        return fallback

    def _silence(self) -> None:
        """Nothing more of the fallback audio is heard. Idempotent."""
        fallback, self._fallback = self._fallback, None
        if fallback is not None:
            with self.call.driver.paused():
                fallback.close()

    def _is_sorry(self) -> bool:
        """Whether this end is one that the caller has not been told of, and can be."""
        reason = self.end_reason
        return (
            reason is not None
            and not reason.orderly
            and reason not in (EndReason.CANCELLED, EndReason.INTERNAL_ERROR)
            and self.spec.fallback_clip is not None
            and self._lost is None
            and self.call.end_reason is None
        )

    async def _say_sorry(self) -> None:
        """Play the fallback audio once, at an end that no outage came before; then the call ends, if it is to."""
        if not self._is_sorry():
            return
        fallback = self._console()
        if fallback is not None:
            fallback.finish()
            await fallback.heard.wait()
        if self.spec.ends_call:
            self.call.end(self.end_reason or EndReason.INTERNAL_ERROR, self.cause)

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
            for message in first:
                connection.send_message(message)
            call.note(StreamUp(self.control_id, self.stream_id))
            self._tell(StatusKind.STARTED)
            connection.start(now_ns)

    def _come_back(self) -> None:
        """Begin anew what belongs to one connection."""
        self._silence()
        self._lost = None
        self._reconnects += 1
        self.stream_id = self.wire.make_stream_id(self.call.entropy)

    def _lose(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """The connection is lost: begin an outage where the specification allows one, or end."""
        budget_s = self.spec.reconnect_s
        connection = self._connection
        if not budget_s or connection is None or self.end_reason is not None:
            self.end(reason, cause)
            return
        call = self.call
        lasted_s = (call.clock.now_ns() - self._connected_ns) / 1e9
        if self._outage is None or lasted_s >= min(SETTLED_S, budget_s):
            self._outage = Outage(
                reason,
                cause,
                budget_s=budget_s,
                backoff_s=call.engine.config.connect_backoff_s,
                entropy=call.entropy,
            )
        self._lost, self._connection = connection, None
        self._detach(connection)
        self._past = self._totals(connection)
        self._native = self._stream = self._chunks = None
        self._dialect = self.wire.platform(self.spec.media_format(), self.spec.options)
        self._digits_sending.clear()
        self._paused = self.flushing = False
        log.info("stream %s: its connection was lost (%s) and is tried anew", self.control_id, reason.value)
        self._tell(StatusKind.FAILED, reason=reason.value, duration_s=int(lasted_s))
        call.note(StreamLost(self.control_id, self.stream_id, reason))
        self._end_bell.ring()

    def _detach(self, connection: Carrier | None) -> None:
        """No sample of this connection is played or sent from here; what was queued is lost."""
        call = self.call
        call.send_media[self.index] = None
        with call.driver.paused():  # no tick between the two writes a message for nobody
            if connection is not None:
                connection.stop()
            if self._native is not None:
                lib.tp_path_detach(call.path, self.index)
        if self._native is not None:
            call.leg.drop_digits(self.index)
            self.pull_events()
        self._live = False

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
        self._receive(self._dialect.receive_binary, payload, now_ns)

    def on_peer_closed(self, code: int | None) -> None:
        if code is None or (code in GOING_AWAY and self.spec.reconnect_s):
            self._lose(EndReason.PEER_VANISHED)
        elif code in (1011, 1002, 1003, 1007, 1008, 1009):
            self.end(EndReason.APPLICATION_FAILED)
        else:
            self.end(EndReason.APPLICATION_HUNG_UP)

    def on_broken(self, exc: OSError) -> None:
        self._lose(EndReason.PEER_VANISHED, exc)

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

    def housekeeping(self, now_ns: int) -> None:
        connection = self._connection
        if self._started_ns is None or self.end_reason is not None:
            return
        if now_ns - self._started_ns >= self.spec.stream_timeout_s * 1e9:
            self.end(EndReason.STREAM_TIMED_OUT)
        elif connection is not None and not connection.check_alive(now_ns):
            self._lose(EndReason.PEER_VANISHED)

    # The end -----------------------------------------------------------------------------------------------------

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """End the stream now: no sample of it is played or sent from here. Idempotent; the only door."""
        call = self.call
        if self.end_reason is None or call.end_reason is not None:
            self._silence()
        if self.end_reason is not None:
            return
        self.end_reason, self.cause = reason, cause
        self._ended_ns = call.clock.now_ns()
        self._detach(self._connection)
        if self._scope is not None:
            self._scope.cancel()
        self._end_bell.ring()
        call.note(StreamEnded(self.control_id, self.stream_id, reason))
        if self.spec.ends_call and not self._is_sorry():
            call.end(reason, cause)

    async def _goodbye(self) -> None:
        connection = self._connection
        if self._lost is not None:
            self._lost.abort()
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
        messages_sent, messages_received, played, dropped, media_dropped = self._totals(self._connection)
        rate = self._dialect.media_format.sample_rate_hz
        duration_ms = (self._ended_ns - self._started_ns) // NS_PER_MS if self._started_ns is not None else 0
        self.record = StreamRecord(
            stream_id=self.stream_id,
            control_id=self.control_id,
            name=self.spec.name,
            wire=self.spec.wire,
            reason=reason,
            duration_ms=duration_ms,
            messages_sent=messages_sent,
            messages_received=messages_received,
            marks=tuple(self._outcomes),
            clears=self._clears,
            refused=dict(self._refused.by_kind) if self._refused is not None else {},
            application_ms=samples_to_ms(played, rate),
            dropped_ms=samples_to_ms(dropped, rate),
            media_dropped=media_dropped,
            digits_received=self._digits_received,
            digits_sent=self._digits_sent,
            cause=_cause_name(self.cause),
            reconnects=self._reconnects,
        )
        duration_s = (self._ended_ns - self._connected_ns) // 1_000_000_000 if self._started_ns is not None else 0
        try:
            if self._lost is not None:
                pass  # This stream id has been told of.
            elif self._started_ns is not None and reason.orderly:
                self._tell(StatusKind.STOPPED, reason="completed", duration_s=duration_s)
            else:
                self._tell(
                    StatusKind.FAILED,
                    reason="connection_failed" if self._started_ns is None else reason.value,
                    duration_s=duration_s,
                )
        finally:
            self._native = None
            self._stream = None
            self._connection = None
            self.ready.set()
            self.ended.set()

    def _totals(self, connection: Carrier | None) -> tuple[int, int, int, int, int]:
        """Return messages sent and received, samples played and dropped, media messages dropped; of all connections."""
        if self._native is None:
            return self._past
        counters = lib.tp_stream_statistics(self._native)
        sent, received, played, dropped, media_dropped = self._past
        return (
            sent + counters.messages_out,
            received + counters.messages_in,
            played + counters.samples_played,
            dropped + counters.samples_dropped,
            media_dropped + (connection.media_dropped_so_far() if connection is not None else 0),
        )

    def _tell(self, kind: StatusKind, *, reason: str = "", name: str = "", duration_s: int = 0) -> None:
        if not self.spec.status_url:
            return
        if self._callbacks is None:
            self._callbacks = CallbackQueue()
        tell(self, self._callbacks, kind, reason=reason, name=name, duration_s=duration_s)

    async def flush(self) -> None:
        """Empty a full socket, or give the stream up; run by the call's send task."""
        connection = self._connection
        if connection is None:
            return
        try:
            if not await connection.flush(self.call.engine.config.stall_s) and connection is self._connection:
                self._lose(EndReason.PEER_STALLED)
        finally:
            if connection is self._connection:
                self.flushing = False


def _cause_name(cause: BaseException | None) -> str:
    if cause is None:
        return ""
    if isinstance(cause, (RemoteWireError, LocalWireError)):
        return f"{type(cause).__name__}: {cause}"
    return type(cause).__name__
