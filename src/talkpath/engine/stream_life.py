"""How a stream of a call comes about, is lost, comes back and ends; what is said on it is in `stream`.

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

import abc
import logging
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import ffi, lib
from talkpath.engine.callbacks import CallbackQueue
from talkpath.engine.config import StreamSpec
from talkpath.engine.dialling import Dialling
from talkpath.engine.outage import SETTLED_S, Fallback, Outage
from talkpath.engine.status import tell
from talkpath.errors import CallEnded, LocalWireError, RemoteWireError
from talkpath.events import StreamEnded, StreamLost, StreamStopped
from talkpath.path.stream import Stream
from talkpath.records import EndReason, MarkOutcome, StreamRecord
from talkpath.transport.carrier import Carriage, Carrier
from talkpath.transport.refusals import Refusals
from talkpath.transport.wake import Bell, Moment
from talkpath.units import NS_PER_MS, samples_to_ms
from talkpath.wire.catalog import wire_named
from talkpath.wire.status import StatusKind

if TYPE_CHECKING:
    from talkpath.engine.call import Call

log = logging.getLogger("talkpath.engine.stream")

NOTHING_YET = (0, 0, 0, 0, 0)
GOING_AWAY = frozenset({1001, 1012, 1013})
"""A server that is shut down, restarted, or has no room just now (RFC 6455 7.4.1 and the registry it opened)."""
GOODBYE_CODES = {
    EndReason.WIRE_ERROR: 1002,
    EndReason.INTERNAL_ERROR: 1011,
    EndReason.BLOCK_FAILED: 1011,
    EndReason.CONTROL_OVERFLOW: 1011,
}


class StreamLife(abc.ABC):
    """See the module; `CallStream` is one."""

    __slots__ = (
        "_callbacks",
        "_clears",
        "_close_code",
        "_connected_ns",
        "_connection",
        "_dialect",
        "_dialling",
        "_digits_received",
        "_digits_sent",
        "_end_bell",
        "_ended_ns",
        "_fallback",
        "_live",
        "_lost",
        "_native",
        "_outage",
        "_outcomes",
        "_past",
        "_reconnects",
        "_refused",
        "_scope",
        "_started_ns",
        "_stream",
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
        self._dialect = self.wire.platform(spec.media_format(), spec.options)
        self._connection: Carrier | None = None
        self._outcomes: list[MarkOutcome] = []
        self._refused: Refusals | None = None
        self.flushing = False
        """Whether its socket is full, and the call's send task sees to it."""
        self._clears = 0
        self._callbacks: CallbackQueue | None = None
        self._digits_received = 0
        self._digits_sent = 0
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

    # What is said on it, in `CallStream` ------------------------------------------------------------------------

    @abc.abstractmethod
    def attach(self, carriage: Carriage, now_ns: int) -> None:
        """Give the connection to the driver and say `start`; in the step."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Let go of what belongs to the connection that was lost."""

    @abc.abstractmethod
    def on_native_event(self, event: Any) -> None:
        """One event of this stream, or of what is heard in its place."""

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
                self._lost = self._outage = None
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
        carriage = None
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
            and reason is not EndReason.CANCELLED
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
                self.attach(carriage, now_ns)
            except Exception as exc:
                return exc
            self.ready.set()  # here, so that whoever waits for it goes on beside this stream's task and not after it
            return None

        failure = await self.call.commands.perform(attach)
        if failure is not None:
            raise failure

    # In the step -------------------------------------------------------------------------------------------------

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
        self._native = self._stream = None
        self._dialect = self.wire.platform(self.spec.media_format(), self.spec.options)
        self.flushing = False
        self.forget()
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

    def pull_events(self) -> None:
        """Take this stream's own events (marks settled by a clear or a close) from the native core."""
        event = ffi.new("tp_event *")
        while lib.tp_stream_next_event(self._native, event) == 1:
            self.on_native_event(event)

    def housekeeping(self, now_ns: int) -> None:
        connection = self._connection
        if self._started_ns is None or self.end_reason is not None:
            return
        if now_ns - self._started_ns >= self.spec.stream_timeout_s * 1e9:
            self.end(EndReason.STREAM_TIMED_OUT)
        elif connection is not None and not connection.check_alive(now_ns):
            self._lose(EndReason.PEER_VANISHED)

    def on_peer_closed(self, code: int | None) -> None:
        if code is None or (code in GOING_AWAY and self.spec.reconnect_s):
            self._lose(EndReason.PEER_VANISHED)
        elif code in (1011, 1002, 1003, 1007, 1008, 1009):
            self.end(EndReason.APPLICATION_FAILED)
        else:
            self.end(EndReason.APPLICATION_HUNG_UP)

    def on_broken(self, exc: OSError) -> None:
        self._lose(EndReason.PEER_VANISHED, exc)

    def on_full(self) -> None:
        if not self.flushing:
            self.flushing = True
            self.call.flush_soon(self)

    def on_overflow(self) -> None:
        self.end(EndReason.CONTROL_OVERFLOW)

    def failed(self, exc: Exception) -> None:
        log.error("stream %s: %s", self.control_id, type(exc).__name__, exc_info=exc)
        self.end(EndReason.INTERNAL_ERROR, exc)

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
