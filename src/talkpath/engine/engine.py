"""The platform's end as a whole: a pool of memory, the calls that share it, and the status callbacks they leave
behind.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from talkpath._native import lib
from talkpath.engine.call import Call
from talkpath.engine.callbacks import CallbackQueue, Callbacks
from talkpath.engine.config import EngineConfig
from talkpath.engine.leg import Leg
from talkpath.errors import CallEnded, ConfigError, check_range
from talkpath.path.pool import Pool
from talkpath.records import CallRecord, EndReason, EngineStatistics
from talkpath.transport.admission import Admission
from talkpath.transport.clock import Clock, open_clock
from talkpath.wire.json_message import is_text

if TYPE_CHECKING:
    from talkpath.transport.driver_tasks import TasksDriver
    from talkpath.wire.callback import CallbackRequest

log = logging.getLogger("talkpath.engine.engine")

NUMBER_MAX = 256
"""Characters of a telephone number or SIP address."""
Entropy = Callable[[int], bytes]
WallClock = Callable[[], float]


class Engine:
    """A live engine; entered with ``async with open_engine(...) as engine``."""

    def __init__(self, config: EngineConfig, entropy: Entropy, wall_clock: WallClock) -> None:
        self.config = config
        self.entropy = entropy
        self.wall_clock = wall_clock
        self.clock: Clock
        self.driver: TasksDriver
        self.pumps = False
        """Whether calls that are made of sockets are moved by the pump."""
        self.pool: Pool
        self.admission: Admission
        self._calls: dict[Call, None] = {}
        self._opened = 0
        self._stalled_ms = 0.0
        self._attendance: AbstractContextManager[None] | None = None
        self._entered = False
        self._draining = False
        self._empty = trio.Event()
        self._callbacks: Callbacks | None = None
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._clock_manager: AbstractAsyncContextManager[Clock] | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Engine:
        if self._entered:
            raise ConfigError("an engine can be entered once; open another with open_engine()")
        self._entered = True
        self.pool = Pool(self.config.pool_bytes)
        self._clock_manager = open_clock()
        self.clock = await self._clock_manager.__aenter__()
        self.driver = self.clock.driver
        self.driver.pools.add(self.pool)
        self.pumps = self.config.driver == "pump" and self.driver.want_pump(media_thread=self.config.media_thread)
        self.clock.pace.per_tick = self.config.hang_up_pace
        self.admission = Admission(
            self.config,
            self.clock.load,
            what=("calls", "max_calls"),
            most=self.config.max_calls,
            live=lambda: len(self._calls),
            pool=self.pool,
            most_streams=self.config.max_streams,
            streams=self._count_streams,
        )
        self._attendance = self.clock.load.attended(log, self.config.gc)
        self._attendance.__enter__()
        self._manager = trio.open_nursery()
        self._callbacks = Callbacks(await self._manager.__aenter__(), self.config, self.entropy)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left, deliver the callbacks (within one callback's deadline), release the clock."""
        assert self._manager is not None
        assert self._clock_manager is not None
        assert self._callbacks is not None
        assert self._attendance is not None
        self._draining = True
        try:
            with trio.CancelScope(shield=True):
                # Their goodbyes are bounded, and their last callbacks still need the nursery.
                await self._end_all(EndReason.CANCELLED)
            self._callbacks.close_by(self.config.callback_deadline_s)
            if exc is not None and not isinstance(exc, Exception):
                # The run is being cancelled: nobody waits for a web server now.
                self._callbacks.cancel()
            await self._manager.__aexit__(None, None, None)
        finally:
            self._attendance.__exit__(None, None, None)
            await self._clock_manager.__aexit__(None, None, None)

    def open_call(
        self,
        leg: Leg,
        *,
        call_id: str | None = None,
        from_number: str = "",
        to_number: str = "",
        direction: str = "inbound",
        max_duration_s: float = 0.0,
    ) -> Call:
        """Describe a call; ``async with`` opens it.

        Args:
            leg: the caller's connection; one leg serves one call.
            call_id: a UUID, since wires and their readers insist on one; made when None.
            from_number, to_number, direction: for status callbacks; never logged.
            max_duration_s: the call ends then, looked at once a second; 0: never.

        Raises:
            ConfigError: a value that cannot be, or the engine has not been entered.
        """
        self._check_entered()
        if not isinstance(leg, Leg):
            raise ConfigError(f"leg is {type(leg).__name__}; it must be an RtpLeg, a MemoryLeg or a WavLeg")
        if call_id is not None and not _is_uuid(call_id):
            raise ConfigError(
                "call_id is no UUID; right is for example 2f1b6f0e-8f0a-4d3b-9a43-0c6f5b8f9d11: "
                "str(uuid.uuid4()), or uuid.uuid5(a namespace, your own id) to make one of another id"
            )
        for what, number in (("from_number", from_number), ("to_number", to_number)):
            if not isinstance(number, str) or len(number) > NUMBER_MAX or not is_text(number):
                raise ConfigError(f"{what} must be text of at most {NUMBER_MAX} characters")
        if direction not in ("inbound", "outbound"):
            raise ConfigError(f"direction {direction!r} is neither inbound nor outbound")
        check_range("max_duration_s", max_duration_s, 0, 366 * 86400)
        return Call(
            self,
            leg,
            call_id=call_id,
            from_number=from_number,
            to_number=to_number,
            direction=direction,
            max_duration_s=max_duration_s,
        )

    def _check_entered(self) -> None:
        if self._callbacks is None:
            raise ConfigError("the engine has not been entered; write `async with open_engine(...) as engine:`")

    def admit(self, call: Call) -> None:
        """Take a call in, or refuse it. Raises CallEnded."""
        if self._draining:
            raise CallEnded(EndReason.DRAINED, refusal=self.admission.draining())
        self.admission.check()
        self._calls[call] = None
        self._opened += 1

    def admit_stream(self) -> None:
        """Take one more stream of any call, or refuse it. Raises CallEnded."""
        self.admission.check_stream()

    def _count_streams(self) -> int:
        return sum(1 for call in self._calls for stream in call.streams if stream is not None)

    def forget(self, call: Call) -> None:
        """A call's block has been left and nothing of it remains."""
        if call in self._calls:
            del self._calls[call]
            if call.record is not None:
                self._stalled_ms += _stalled_ms(call, call.record.statistics.loop_stall_samples)
        if not self._calls:
            self._empty.set()

    async def drain(self, deadline_s: float) -> list[CallRecord]:
        """Take no more calls; wait until the live ones are over, at most `deadline_s`, then end them.

        Returns:
            Records of the calls that had to be ended.

        Cancellation: no further calls are taken; the live ones go on.
        """
        self._draining = True
        with trio.move_on_after(deadline_s):
            while self._calls:
                self._empty = trio.Event()
                await self._empty.wait()
        return await self._end_all(EndReason.DRAINED)

    async def _end_all(self, reason: EndReason) -> list[CallRecord]:
        """End the live calls, a few in each tick, and wait until nothing of their media is left."""
        ended = list(self._calls)
        for call in ended:
            await self.clock.pace.turn()
            await trio.lowlevel.checkpoint_if_cancelled()
            call.end(reason)
        return [await call.wait_ended() for call in ended]

    def deliver(self, request: CallbackRequest, *, after: CallbackQueue, in_passing: bool = False) -> None:
        """Have a status callback delivered by the engine's own nursery; a hang-up never waits for it.

        What an application can cause at will (`in_passing`: checkpoints, clears, a filling buffer) gets half of the
        room, so that no flood of it displaces anybody's news of a stream's beginning and end.

        Args:
            after: the stream's callbacks that go before this one.
        """
        if self._callbacks is not None:
            self._callbacks.tell(request, after, in_passing=in_passing)

    def callback_impossible(self, exc: ConfigError) -> None:
        """A status callback could not even be written down."""
        if self._callbacks is not None:
            self._callbacks.impossible(exc)

    def statistics(self, *, since: EngineStatistics | None = None) -> EngineStatistics:
        """Return a snapshot of the engine's counters.

        Args:
            since: an earlier snapshot; then the percentiles of lateness are those of the ticks since. Everything else
                counts from the beginning.

        Raises:
            ConfigError: the engine has not been entered.
        """
        self._check_entered()
        assert self._callbacks is not None
        lateness = self.driver.lateness
        before = since.load.lateness_counts if since is not None and since.ticks else None
        pool = self.pool.native
        return EngineStatistics(
            calls=len(self._calls),
            calls_opened=self._opened,
            streams=self._count_streams(),
            pool_bytes=pool.n_blocks * 1024,
            pool_used_bytes=(pool.n_blocks - pool.n_free) * 1024,
            pool_refused=pool.n_refused,
            ticks=self.driver.ticks,
            late_ticks=sum(lateness.counts[50:]),
            lateness_p50_ms=lateness.percentile_ms(0.5, before),
            lateness_p99_ms=lateness.percentile_ms(0.99, before),
            lateness_p999_ms=lateness.percentile_ms(0.999, before),
            lateness_max_ms=lateness.percentile_ms(1.0, before),
            callbacks_delivered=self._callbacks.delivered,
            callbacks_failed=self._callbacks.failed,
            refused=dict(self.admission.refused),
            loop_stall_ms=self._stalled_ms
            + sum(
                _stalled_ms(call, lib.tp_path_statistics(call.path).loop_stall_samples)
                for call in self._calls
                if call.path is not None
            ),
            load=self.clock.load.statistics(),
        )


def _stalled_ms(call: Call, n_samples: int) -> float:
    return n_samples * 1000 / call.leg.media_format.sample_rate_hz


def _is_uuid(text: object) -> bool:
    """Whether it is a UUID of RFC 9562 in its usual form, of version 1 to 8."""
    try:
        ident = uuid.UUID(text) if isinstance(text, str) else None
    except ValueError:
        return False
    return ident is not None and ident.version is not None and str(ident) == str(text).lower() and ident.version <= 8


def open_engine(
    config: EngineConfig | None = None,
    *,
    entropy: Entropy = os.urandom,
    wall_clock: WallClock = time.time,
) -> Engine:
    """Open the platform's end: ``async with open_engine() as engine``.

    Args:
        config: options; the defaults when None.
        entropy: n -> n random bytes, for ids, SSRCs, mask keys; a seeded source makes a virtual call repeatable to
            the byte.
        wall_clock: Unix time in seconds, for the timestamps that wires and callbacks carry.

    Cancellation: calls are ended, callbacks not yet delivered are dropped, nothing remains.
    """
    return Engine(config or EngineConfig(), entropy, wall_clock)
