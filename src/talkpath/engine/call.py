"""One call: a leg, its streams, one nursery, one door out.

Theory of operation. `Call` is an async context manager that lives by a `Lifetime`: a supervising child opens the leg,
gives the path to the driver, and holds the nursery of the call's receive, send and playback tasks and of one task per
stream. Outer cancellation reaches the user's block first; leaving the block calls `end`, and `end` is the only thing
that ever ends media. So there is one source of cancellation and one order of teardown, and a user's shielded
`finally` can still say goodbye to the caller::

    OPENING --leg open, path ticking--> LIVE --end(reason)--> ENDED --goodbyes, callbacks queued--> record final

`end` is synchronous and idempotent: it takes the slot from the driver (no sample leaves from here), closes the leg's
socket, ends the streams (their marks are LOST), wakes everybody who waits and cancels the media nursery. What may wait
(close frames, end messages) is then done by the stream tasks, shielded, within `EngineConfig.goodbye_s` together.

What the three tasks are for, given that plain media and everything that changes the path's state happens in the
driver's step: *receive* hands on what the step found and that is not media (the call's events, to the hooks a user
registered); *send* empties sockets that were full, each under its own deadline; *playback* feeds the call's own source
with what `play` was given. All are parked else.

A background failure ends the call with a reason; it is not raised into the user's block and does not cancel it:
operations raise `CallEnded`, `events` ends, `wait_ended` returns the record.
"""

from __future__ import annotations

import logging
import uuid
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import lib
from talkpath.engine.call_events import CallEvents, EventLog
from talkpath.engine.call_statistics import read_statistics
from talkpath.engine.config import StreamSpec
from talkpath.engine.leg import DIGIT_OFF_MS, DIGIT_ON_MS, Leg
from talkpath.engine.sound import SoundOfCall
from talkpath.engine.source import Source
from talkpath.engine.stream import CallStream
from talkpath.engine.stream_life import StreamLife
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import CallEvent, DigitReceived
from talkpath.path.barge_in import BargeIn
from talkpath.path.path import Path, PathOptions
from talkpath.path.stream import EventKind
from talkpath.records import CallRecord, CallStatistics, EndReason, Played, StreamRecord
from talkpath.transport.clock import Clock
from talkpath.transport.commands import Commands
from talkpath.transport.driver_pump import PumpDriver
from talkpath.transport.lifetime import Job, Lifetime
from talkpath.transport.wake import Bell, Moment
from talkpath.units import NS_PER_MS, samples_to_ms

if TYPE_CHECKING:
    from talkpath.engine.engine import Engine
    from talkpath.transport.driver_tasks import TasksDriver

log = logging.getLogger("talkpath.engine.call")

STREAMS_MAX = 4
RECORDS_KEPT = 64
"""Records of ended streams kept for the call's; of a call that starts more, the oldest are forgotten and counted."""


class Call(SoundOfCall):
    """A live call; made by `Engine.open_call`. See the module."""

    __slots__ = (
        "_ended",
        "_ended_ns",
        "_errors_after_end",
        "_events",
        "_hook_bell",
        "_hooked",
        "_hooks",
        "_lateness_before",
        "_life",
        "_max_duration_ns",
        "_path",
        "_playback_bell",
        "_records",
        "_records_forgotten",
        "_send_bell",
        "_started_ns",
        "_streams_begun",
        "_to_flush",
        "_underruns",
        "before_tick",
        "call_id",
        "cause",
        "direction",
        "driver",
        "entropy",
        "from_number",
        "group",
        "hear_pcm",
        "needs_before_tick",
        "period_ns",
        "pumped",
        "record",
        "send_media",
        "send_rtp",
        "slot",
        "streams",
        "to_number",
    )

    def __init__(
        self,
        engine: Engine,
        leg: Leg,
        *,
        call_id: str | None,
        from_number: str,
        to_number: str,
        direction: str,
        max_duration_s: float,
    ) -> None:
        self.engine = engine
        self.leg = leg
        self.clock: Clock = engine.clock
        self.driver: TasksDriver = engine.driver
        self.entropy = engine.entropy
        self.call_id = call_id or str(uuid.UUID(bytes=engine.entropy(16), version=4))
        self.from_number = from_number
        self.to_number = to_number
        self.direction = direction
        self.end_reason: EndReason | None = None
        self.cause: BaseException | None = None
        self.record: CallRecord | None = None
        self.streams: list[CallStream | None] = [None] * STREAMS_MAX
        self._streams_begun = 0
        # The driver's side of a call.
        self.slot = -1
        self.path: Any = None
        self.group: Any = None
        self.pumped = engine.pumps and leg.pumpable
        self.period_ns = leg.ptime_ms * NS_PER_MS
        self.needs_before_tick = leg.needs_before_tick
        self.send_media: list[Callable[[memoryview], None] | None] = [None] * STREAMS_MAX
        self.send_rtp = leg.send_rtp
        self.hear_pcm = leg.hear_pcm
        self.before_tick = leg.before_tick
        self._path: Path | None = None
        self.commands = Commands(self.driver, self)
        self._lateness_before: array[int] | None = None
        """Packed."""
        self._source = None
        self._play_gain_db = 0.0
        self._recordings = None
        self._started_ns = 0
        self._ended_ns = 0
        self._max_duration_ns = round(max_duration_s * 1e9)
        self._underruns = 0
        self._errors_after_end = 0
        self._records: tuple[StreamRecord, ...] = ()
        self._records_forgotten = 0
        self._events = EventLog()
        self._send_bell = Bell()
        self._playback_bell = Bell()
        self._hook_bell = Bell()
        self._to_flush: dict[StreamLife, None] = {}
        self._hooks: tuple[Callable[[CallEvent], None], ...] = ()
        self._hooked: list[CallEvent] = []
        self._ended = Moment()
        self._life = Lifetime()

    @property
    def name(self) -> str:
        """For the log."""
        return f"call {self.call_id}"

    # The context manager -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Call:
        """Open the leg and begin to move media.

        Raises:
            CallEnded: the engine is full or draining, or the pool cannot serve another call.
            OSError: the leg's socket could not be bound.

        Cancellation: nothing of the call remains.
        """
        if self._life.used:
            raise ConfigError("a call can be entered once")
        self.engine.admit(self)
        try:
            await self._life.enter(self)
        except BaseException:
            self.engine.forget(self)
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._life.leave(self, exc)
        finally:
            self.engine.forget(self)

    def set_up(self) -> None:
        """Open the leg, make the path, give it to the driver."""
        self.leg.open(self)
        self._attach()

    def jobs(self) -> tuple[Job, ...]:
        """The call's three tasks."""
        return self._receive, self._send, self._playback

    async def say_goodbye(self) -> None:
        """Each stream has said its own."""

    def finish(self) -> None:
        """Tell the hooks how it ended, write the record; nothing of the call is left."""
        self._tell_hooks()
        self._write_record()
        self._let_go()
        self._ended.set()
        self._events.end()

    def _let_go(self) -> None:
        """Drop what refers back to the call, and the native memory: it dies when nobody refers to it any more."""
        self.leg.let_go(self.end_reason or EndReason.INTERNAL_ERROR)
        self._source = None
        self._hooks = ()
        self._to_flush.clear()
        self.path = None
        self._path = None
        self.group = None

    def _attach(self) -> None:
        """Make the path and give it to the driver."""
        leg = self.leg
        self.slot = self.driver.take_slot(self)
        phase = self.driver.choose_phase(self.period_ns, self.pumped)
        now = self.clock.now_ns()
        self._path = Path(
            self.engine.pool,
            PathOptions(
                leg=leg.kind,
                media_format=leg.media_format,
                ptime_ms=leg.ptime_ms,
                slot=self.slot,
                phase_ns=phase,
                payload_type=leg.payload_type,
                event_payload_type=leg.event_payload_type,
                first_seq=int.from_bytes(self.entropy(2), "big"),
                ssrc=int.from_bytes(self.entropy(4), "big"),
                first_timestamp=int.from_bytes(self.entropy(4), "big"),
                jitter_min_ms=leg.jitter_min_ms,
                jitter_max_ms=leg.jitter_max_ms,
                media_timeout_ms=leg.media_timeout_ms,
                digit_on_ms=DIGIT_ON_MS,
                digit_off_ms=DIGIT_OFF_MS,
                inband_digits=leg.inband_digits,
            ),
            now=self.driver.first_tick_ns(self.period_ns, phase, self.pumped),
        )
        self.path = self._path.native
        self._started_ns = now
        with self.driver.paused():  # no first packet that finds no socket
            self.driver.add_call(self, phase)
            self.leg.start()
        self._lateness_before = self.group.lateness.packed_counts()

    # The driver's side -------------------------------------------------------------------------------------------

    def pump_place(self, index: int) -> tuple[PumpDriver, int, int] | None:
        """Return the pump and where in it the socket of a stream belongs; None when this call is not pumped."""
        if not self.pumped:
            return None
        assert isinstance(self.driver, PumpDriver)
        return self.driver, self.slot, index

    def run_commands(self, now_ns: int) -> None:
        self.commands.run(now_ns)

    def pull_events(self, now_ns: int) -> None:
        event = self.driver.event
        while self.end_reason is None and lib.tp_path_next_event(self.path, event) == 1:
            kind = event.kind
            if kind == EventKind.DIGIT:
                self._on_digit(chr(event.value), event.at_sample)
            elif kind == EventKind.HEARD:
                if self._source is not None and self._source.barge_in is not None:
                    self._source.barge_in.hear(event.value, now_ns)
            elif kind == EventKind.MEDIA_TIMEOUT:
                self.end(EndReason.MEDIA_TIMED_OUT)
            else:
                if kind == EventKind.UNDERRUN:
                    self._underruns += int(event.value)
                stream = self.streams[event.stream] if 0 <= event.stream < STREAMS_MAX else None
                if stream is not None:
                    stream.on_native_event(event)
                elif self._is_source(event.stream):
                    assert self._source is not None
                    self._source.on_native_event(event)

    def digits_sent(self, index: int) -> None:
        """All digits of a source have gone out; told by a leg that counts them out itself."""
        stream = self.streams[index] if 0 <= index < STREAMS_MAX else None
        if stream is not None:
            stream.on_audio_let_go()
        elif self._is_source(index):
            assert self._source is not None
            self._source.on_audio_let_go()
            self._source.on_digits_sent()

    def _on_digit(self, digit: str, at_sample: int) -> None:
        self.note(DigitReceived(digit, at_sample))
        for stream in self.streams:
            if stream is not None:
                stream.send_digit(digit, at_sample)

    def housekeeping(self, now_ns: int) -> None:
        for stream in self.streams:
            if stream is not None:
                stream.housekeeping(now_ns)
        if self._max_duration_ns and now_ns - self._started_ns >= self._max_duration_ns:
            self.end(EndReason.DURATION_REACHED)

    def failed(self, exc: Exception) -> None:
        self.end(EndReason.INTERNAL_ERROR, exc)

    def note(self, event: CallEvent) -> None:
        """Record an event, in the order things happened."""
        journal = self.driver.journal
        if journal is not None:
            journal(self.clock.now_ns(), self.slot, type(event).__name__, (event,))
        self._events.add(event)
        if self._hooks:
            self._hooked.append(event)
            self._hook_bell.ring()

    # The three tasks ---------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Hand events to the hooks a user registered; a hook that raises ends the call with a reason."""
        while True:
            self._tell_hooks()
            if self.end_reason is not None:
                return
            await self._hook_bell.wait()

    def _tell_hooks(self) -> None:
        while self._hooked:
            event = self._hooked.pop(0)
            for hook in self._hooks:
                try:
                    hook(event)
                except Exception as exc:
                    log.error("call %s: a hook raised %s", self.call_id, type(exc).__name__, exc_info=exc)
                    self.end(EndReason.APPLICATION_FAILED, exc)

    async def _send(self) -> None:
        """Empty full sockets, each under its own deadline: a slow peer delays nobody else."""
        while self.end_reason is None:
            if not self._to_flush:
                await self._send_bell.wait()
                continue
            async with trio.open_nursery() as flushes:
                while self._to_flush or flushes.child_tasks:
                    while self._to_flush:
                        stream, _ = self._to_flush.popitem()
                        flushes.start_soon(self._flush, stream)
                    await self._send_bell.wait()

    async def _flush(self, stream: StreamLife) -> None:
        await stream.flush()
        self._send_bell.ring()

    async def _playback(self) -> None:
        """Feed the call's own source with what `play` was given, as its queue has room."""
        while self._source is None:
            await self._playback_bell.wait()
            if self.end_reason is not None:
                return
        await self._source.feed()

    def flush_soon(self, stream: StreamLife) -> None:
        """Have the send task empty `stream`'s socket."""
        self._to_flush[stream] = None
        self._send_bell.ring()

    # The public side ---------------------------------------------------------------------------------------------

    async def start_stream(self, spec: StreamSpec) -> CallStream:
        """Connect a stream to an application and say `start`; return once it is live.

        Args:
            spec: what, where to, in which wire.

        Raises:
            CallEnded: the call is over, or the stream could not be started; `.reason` says which and why.
            ConfigError: four streams are live, or the control id is taken.

        Cancellation: the stream is ended; nothing of it remains.
        """
        self.check_live()
        index = next((i for i, taken in enumerate(self.streams) if taken is None and not self._is_source(i)), None)
        if index is None:
            raise ConfigError(f"a call has at most {STREAMS_MAX} streams and sources; stop one first")
        control_id = spec.control_id or str(uuid.UUID(bytes=self.entropy(16), version=4))
        if any(
            stream is not None and stream.end_reason is None and stream.control_id == control_id
            for stream in self.streams
        ):
            raise ConfigError("the control_id is taken by a live stream of this call")
        self.engine.admit_stream()
        self._streams_begun += 1
        stream = CallStream(self, spec, index, control_id, self._streams_begun)
        self.streams[index] = stream
        self.start_soon(stream.run)
        try:
            await stream.ready.wait()
        except trio.Cancelled:
            stream.end(EndReason.CANCELLED)
            raise
        if stream.end_reason is not None:
            raise CallEnded(stream.end_reason, stream.cause)
        return stream

    async def stop_stream(self, control_id: str | None = None) -> None:
        """Stop a stream by its control id, the youngest one when None; return when it is gone.

        Raises:
            ConfigError: no such stream is live.

        Cancellation: the stream is ended all the same.
        """
        live = [
            stream
            for stream in self.streams
            if stream is not None and stream.end_reason is None and control_id in (None, stream.control_id)
        ]
        if not live:
            raise ConfigError("no live stream of this call has that control_id")
        stream = max(live, key=lambda one: one.number)
        stream.end(EndReason.STOPPED)
        await stream.ended.wait()

    def events(self) -> CallEvents:
        """Return an iterator over what happens in the call, from its beginning, as far as it is kept (1,024 events)."""
        return CallEvents(self._events)

    @property
    def events_dropped(self) -> int:
        """Events that were no longer kept for those who had not read them."""
        return self._events.dropped

    def on_event(self, hook: Callable[[CallEvent], None]) -> None:
        """Have `hook` called with each event from here on, by the call's receive task. It must not block."""
        self._hooks += (hook,)

    async def play(self, audio: object, *, sample_rate_hz: int | None = None, gain_db: float = 0.0) -> Played:
        """Play audio to the caller from the call's own source, beside the streams; return what became of it.

        Args:
            audio: an array (int16, mono, with `sample_rate_hz`), an `AudioClip` such as `read_audio` returns, an
                `AudioChunk`, the path of a WAV file (read here and now), or an async iterable of arrays, clips or
                chunks. It is not copied: leave an array as it is until it has been played.
            sample_rate_hz: of arrays.
            gain_db: of this audio, -60 to 18 dB, beside what `play_gain_db` says of all.

        Raises:
            CallEnded: the call is over. FormatError: audio that cannot be played. OSError: the file cannot be opened.
            PlayoutFull: 64 plays are under way. ConfigError: the call has not been entered, has four streams, or the
                gain is out of range.

        Cancellation: what was queued (5 s at most) plays on; `clear` drops it.
        """
        return await self.own_source().play(audio, sample_rate_hz, gain_db)

    async def clear(self) -> int:
        """Drop what `play` has queued; return how many samples. Streams' audio is untouched.

        Raises:
            CallEnded: the call is over.
        """
        if self._source is None and self.end_reason is None:
            return 0
        return await self.own_source().clear()

    def barge_in(self, policy: BargeIn | None, *, suspicion_ms: int = 1000) -> None:
        """Let `policy` decide, on each ptime of the caller's audio, what it does to what `play` plays to him.

        As `Line.barge_in`, and exact to the sample: what is suspected rests from the next tick on and goes on with the
        next sample. Streams' audio is untouched. None removes the policy. A policy that raises ends the call.

        Raises:
            CallEnded: the call is over. ConfigError: `suspicion_ms`, or as for `play`.
        """
        if policy is not None or self._source is not None:
            self.own_source().set_barge_in(policy, suspicion_ms)

    async def send_digits(self, digits: str) -> None:
        """Send digits to the caller as telephone-events, or as tones; return when they, and a gap after, have gone out.

        What `play` has queued rests meanwhile and goes on at its next sample.

        Args:
            digits: of 0-9 * # A-D; each takes 100 ms and 100 ms of gap.

        Raises:
            ConfigError: other characters, or the leg has neither telephone-event nor `inband_digits`.
            PlayoutFull: 64 digits would wait; none of these was taken.
            CallEnded: the call is over, before or meanwhile.

        Cancellation: digits that were taken go out all the same.
        """
        await self.own_source().send_digits(digits)

    def own_source(self) -> Source:
        """Return the call's own source, made when first needed."""
        self.check_live()
        if self._source is None:
            index = next((i for i in reversed(range(STREAMS_MAX)) if self.streams[i] is None), None)
            if index is None:
                raise ConfigError(f"a call has at most {STREAMS_MAX} streams and sources; stop one first")
            self._source = Source(self, index)
            self._apply_play_gain()
            self._playback_bell.ring()
        return self._source

    def _is_source(self, index: int) -> bool:
        return self._source is not None and self._source.index == index

    def check_live(self) -> None:
        """Raise CallEnded when the call is over, ConfigError when it has not begun."""
        if self.end_reason is not None:
            raise CallEnded(self.end_reason, self.cause)
        if self.path is None:
            raise ConfigError("the call has not been entered; write `async with engine.open_call(leg) as call:`")

    def hang_up(self, reason: EndReason = EndReason.PLATFORM_HUNG_UP) -> None:
        """End the call from this side; the block may go on to read its events and record."""
        self.end(reason)

    async def wait_ended(self) -> CallRecord:
        """Wait until the call is over and everything of it is gone; return its record. Cancellation changes nothing."""
        await self._ended.wait()
        assert self.record is not None
        return self.record

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """End the call now. Synchronous, idempotent; the only door."""
        if self.end_reason is not None:
            if cause is not None and reason in (EndReason.INTERNAL_ERROR, EndReason.APPLICATION_FAILED):
                self._errors_after_end += 1
            return
        self.end_reason, self.cause = reason, cause
        self._ended_ns = self.clock.now_ns()
        self.driver.remove(self)
        try:
            self.leg.close()
        except Exception as exc:
            # A full disk under a WAV file must not keep the rest of the call from ending.
            log.error("call %s: %s while closing its leg", self.call_id, type(exc).__name__, exc_info=exc)
            self._errors_after_end += 1
        for stream in self.streams:
            if stream is not None:
                stream.end(_stream_reason(reason))
        if self._source is not None:
            self._source.close()
        if self.path is not None:
            lib.tp_path_close(self.path)
        if self._recordings is not None:
            self._recordings.end()
        self.commands.close(reason, cause)
        self._events.wake_readers()
        if any(stream is not None and stream.flushing for stream in self.streams):
            self._life.cancel()
        else:  # A stream's own task has been told by its `end`.
            self._life.dismiss(self._hook_bell, self._send_bell, self._playback_bell)

    def start_soon(self, job: Job) -> None:
        """Run a task among the call's; it ends with the call."""
        assert self._life.nursery is not None
        self._life.nursery.start_soon(job)

    def stream_gone(self, stream: StreamLife) -> None:
        """A stream's task is at its end."""
        if stream.record is not None:
            if len(self._records) == RECORDS_KEPT:
                self._records_forgotten += 1
            self._records = (*self._records, stream.record)[-RECORDS_KEPT:]
        self.streams[stream.index] = None

    def statistics(self) -> CallStatistics:
        """Return a snapshot of the call's counters; after the end, the last one."""
        if self.record is not None:
            return self.record.statistics
        if self.path is None:
            return CallStatistics()
        lateness = self.group.lateness if self.group is not None else None
        return read_statistics(self.path, self.leg, lateness, self._lateness_before, self._underruns)

    def _write_record(self) -> None:
        statistics = self.statistics()
        rate = self.leg.media_format.sample_rate_hz
        self.record = CallRecord(
            call_id=self.call_id,
            reason=self.end_reason or EndReason.INTERNAL_ERROR,
            cause=type(self.cause).__name__ if self.cause is not None else "",
            duration_ms=samples_to_ms(statistics.clock_samples, rate),
            streams=self._records,
            streams_forgotten=self._records_forgotten,
            statistics=statistics,
            errors_after_end=self._errors_after_end,
            recordings=self._recordings.records if self._recordings is not None else (),
        )


def _stream_reason(reason: EndReason) -> EndReason:
    """A stream that ends with its call ends for the call's reason, unless that one is the block's own business."""
    if reason in (EndReason.BLOCK_LEFT, EndReason.BLOCK_FAILED, EndReason.CANCELLED):
        return EndReason.PLATFORM_HUNG_UP
    return reason
