"""Many cores: one worker process a core, and a front that places each call on the least loaded of them.

The problem: one Python process moves the calls of one core, and a process may crash, hang, or have to be replaced by a
newer one while thousands of calls go on. The choice: processes that share nothing. A call is placed once, with its
parameters and its sockets, and never moves; its audio never passes through the front. Each worker has RTP ports of its
own, so an SDP names the worker by its port and no packet is ever handed on. Supervision is a task per process (see
`worker_process`), placement is arithmetic (see `placement`), and the front's program holds all of it in one block::

    async with talkpath.open_workers("my_calls:run_call", talkpath.WorkersConfig(port_range=(20000, 29999))) as workers:
        placed = await workers.place({"remote": ["192.0.2.7", 40000], "url": "wss://app.example/audio"})
        send_answer(placed.answer["rtp"])
        record = await placed.wait_ended()

*A worker that is lost* (killed, crashed, hung, speaking nonsense) is replaced, after a wait that doubles from failure
to failure; its calls end with `worker_lost`. *Restart*: the new worker takes calls before the old one drains, one seat
after the other, so that there is room for all calls all the time; there is one slice of ports more than there are
seats for it. *Drain*: everybody drains, nobody is replaced.

The block holds a task that outer cancellation does not reach before the block has been left: a shielded `finally` can
still drain, and records arrive.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import trio

from talkpath.engine.config import EngineConfig, check_port_range
from talkpath.engine.placement import backoff_s, by_load, port_slices, usable_cores
from talkpath.engine.travel import check_name, to_travel
from talkpath.engine.worker_process import PlacedCall, PlacedRecord, Seat, WorkerProcess, WorkerState, check_started
from talkpath.errors import CallEnded, ConfigError, check_range
from talkpath.records import EndReason
from talkpath.wire.control import CONTROL_VERSION, MAX_SOCKETS, Hello

log = logging.getLogger("talkpath.engine.workers")

WORKERS_MAX = 1024
STEADY_S = 30.0
"""A worker that has served for so long was no failure; the next one is started without waiting."""
_LOG_LEVELS = ("", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersConfig:
    """Options of a set of workers; see each field."""

    count: int = 0
    """Worker processes; 0: one for each core that this process may use."""
    port_range: tuple[int, int] | None = None
    """(first, last) UDP port for RTP legs, cut into one slice a worker and one for the replacement of another; a leg
    that names no port takes one of its worker's slice. None: any port that the system gives.
    """
    pin: bool = True
    """Keep each worker on one core."""
    engine: EngineConfig | str = field(default_factory=EngineConfig)
    """Of each worker's engine; ``"package.module:function"`` names a function that makes it there, for options that
    only exist within a process (a TLS context).
    """
    start_s: float = 60.0
    """From the start of a process until it serves: imports, and whatever the imported modules do."""
    place_s: float = 30.0
    """For the worker's function to say that a call is ready."""
    report_s: float = 0.5
    """Between two reports of a worker's load: its heartbeat."""
    hang_s: float = 10.0
    """A worker whose loop does not turn for so long has hung: it is ended, and says on stderr where it hung."""
    drain_s: float = 60.0
    """What a worker gives its live calls when it gets SIGTERM or SIGINT itself, or its front is gone."""
    goodbye_s: float = 2.0
    """For the function of a call that was told to end, until it is cancelled."""
    backoff_s: float = 0.1
    """Before a lost worker's replacement starts; doubled from loss to loss."""
    backoff_max_s: float = 10.0
    log_level: str = "WARNING"
    """Of the workers' logs, which go to stderr with the worker's number; empty: the imported modules see to it."""

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int):
            raise ConfigError(f"count is {self.count!r}; it must be a whole number")
        check_range("count", self.count, 0, WORKERS_MAX)
        if not isinstance(self.pin, bool):
            raise ConfigError(f"pin is {self.pin!r}; it must be True or False")
        if self.port_range is not None:
            check_port_range("port_range", self.port_range)
            port_slices(self.port_range, self.seats() + 1)
        if isinstance(self.engine, EngineConfig) and self.engine.port_range is not None:
            raise ConfigError("engine.port_range would be the same for all workers; give port_range to WorkersConfig")
        to_travel("engine", self.engine, EngineConfig)
        check_range("start_s", self.start_s, 1, 3600)
        check_range("place_s", self.place_s, 0.1, 3600)
        check_range("report_s", self.report_s, 0.05, 60)
        check_range("hang_s", self.hang_s, 4 * self.report_s, 3600)
        check_range("drain_s", self.drain_s, 0, 86400)
        check_range("goodbye_s", self.goodbye_s, 0.1, 60)
        check_range("backoff_s", self.backoff_s, 0.01, 60)
        check_range("backoff_max_s", self.backoff_max_s, self.backoff_s, 3600)
        if self.log_level not in _LOG_LEVELS:
            raise ConfigError(f"log_level is {self.log_level!r}; it must be one of {', '.join(_LOG_LEVELS[1:])} or ''")

    def seats(self) -> int:
        """Return how many workers there are to be."""
        return self.count or len(usable_cores())


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """A snapshot of one worker."""

    worker: int
    pid: int
    state: WorkerState
    calls: int
    """Live now, in the front's books."""
    calls_placed: int
    busy: float
    """Share of a core, in its last report."""
    restarts: int
    """Workers that had its place before it."""
    service: Mapping[str, Any]
    """Of the last report: `EngineStatistics`' names, or what the service counts."""


@dataclass(frozen=True, slots=True)
class WorkersStatistics:
    """A snapshot of a set of workers, and their sum."""

    workers: tuple[WorkerStatistics, ...] = ()
    calls: int = 0
    calls_placed: int = 0
    """Since the beginning, by workers that are gone as well."""
    calls_refused: int = 0
    """Not placed, because nobody had room."""
    calls_lost: int = 0
    """Ended with their worker."""
    busy: float = 0.0
    """Cores' worth."""
    workers_lost: int = 0
    restarts: int = 0
    """Workers started in the place of another, lost or restarted."""


class Workers:
    """A live set of workers; entered with ``async with open_workers(...) as workers``."""

    def __init__(self, service: str, options: dict[str, Any], config: WorkersConfig) -> None:
        self.config = config
        self._service = service
        self._options = options
        self._workers: list[WorkerProcess] = []
        """Those that are not gone, the oldest first."""
        self._entered = False
        self._draining = False
        self._stop = trio.Event()
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        """Of the tasks that stay with the workers, while they run."""
        self._restarting = trio.Lock()
        self._numbers = 0
        self._calls = 0
        self._free_ports: list[tuple[int, int]] = []
        self._ports_lot = trio.lowlevel.ParkingLot()
        self._placed_by_gone = 0
        self._refused = 0
        self._lost_calls = 0
        self._lost_workers = 0
        self._restarts = 0

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Workers:
        """Start the workers; return when all of them serve.

        Raises:
            ConfigError: one of them cannot; says why. None is left.

        Cancellation: none is left.
        """
        if self._entered:
            raise ConfigError("a set of workers can be entered once; open another with open_workers()")
        self._entered = True
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        try:
            with _bare_exceptions():
                await nursery.start(self._run)
        except BaseException:
            await self._manager.__aexit__(None, None, None)
            raise
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what is left, wait until every process has been reaped. Bounded by the goodbyes."""
        assert self._manager is not None
        self._draining = True
        self._stop.set()
        await self._manager.__aexit__(None, None, None)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Hold the workers' tasks, from before the block until after it."""
        config = self.config
        seats = config.seats()
        cores = usable_cores()
        if config.port_range is not None:
            self._free_ports = port_slices(config.port_range, seats + 1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as self._nursery:
                for index in range(seats):
                    core = cores[index % len(cores)] if config.pin else -1
                    ports = self._free_ports.pop(0) if self._free_ports else None
                    self._start(Seat(index, core), ports).candidate = True
                first = list(self._workers)
                for worker in first:
                    await worker.settled.wait()
                    check_started(worker)
                for worker in first:
                    check_started(worker)
                    worker.candidate = False
                    if worker.leaving.is_set():
                        self._nursery.start_soon(self._replace, worker)
                # No await between the shield and `started`: later, `start` would wait for us, shielded as we are.
                await trio.lowlevel.checkpoint_if_cancelled()
                scope.shield = True
                task_status.started()
                await self._stop.wait()
                await self._end_all(0.0, EndReason.CANCELLED)
                self._nursery.cancel_scope.cancel()

    # Seats and their workers -------------------------------------------------------------------------------------

    def _start(self, seat: Seat, ports: tuple[int, int] | None, failures: int = 0, restarts: int = 0) -> WorkerProcess:
        """Start a worker with ports that were taken for it."""
        assert self._nursery is not None
        config = self.config
        self._numbers += 1
        hello = Hello(
            version=CONTROL_VERSION,
            worker=self._numbers,
            service=self._service,
            options=self._options,
            path=list(sys.path),
            core=seat.core,
            first_port=ports[0] if ports is not None else 0,
            last_port=ports[1] if ports is not None else 0,
            start_s=config.start_s,
            report_s=config.report_s,
            hang_s=config.hang_s,
            drain_s=config.drain_s,
            goodbye_s=config.goodbye_s,
            log_level=config.log_level,
        )
        worker = WorkerProcess(seat, ports, hello, failures, restarts)
        self._workers.append(worker)
        self._nursery.start_soon(self._live, worker)
        self._nursery.start_soon(self._replace, worker)
        return worker

    async def _live(self, worker: WorkerProcess) -> None:
        """Stay with a worker to its end, and settle what it leaves."""
        try:
            await worker.live()
        finally:
            self._workers.remove(worker)
            self._placed_by_gone += worker.calls_placed
            self._lost_calls += worker.calls_lost
            self._lost_workers += bool(worker.failure) and worker.ready_since_s is not None
            if worker.ports is not None:
                self._free_ports.append(worker.ports)
                self._ports_lot.unpark_all()

    async def _replace(self, worker: WorkerProcess) -> None:
        """Find another worker for the seat when this one goes and was not told to."""
        await worker.leaving.wait()
        if worker.retiring or worker.candidate or self._draining:
            return
        failures = 0
        if worker.state is WorkerState.GONE:
            served_s = 0.0 if worker.ready_since_s is None else trio.current_time() - worker.ready_since_s
            failures = 1 if served_s >= STEADY_S else worker.failures + 1
            if worker.ready_since_s is None:
                log.error("worker %d could not begin: %s", worker.number, worker.failure)
        await trio.sleep(backoff_s(failures, self.config.backoff_s, self.config.backoff_max_s))
        ports = await self._take_ports()
        if self._draining:
            return
        self._restarts += 1
        self._start(worker.seat, ports, failures, worker.restarts + 1)

    async def _take_ports(self) -> tuple[int, int] | None:
        """Take a slice that nobody has: while several workers drain at once there is none for a moment."""
        if self.config.port_range is None:
            return None
        while not self._free_ports:
            await self._ports_lot.park()
        return self._free_ports.pop(0)

    # Calls -------------------------------------------------------------------------------------------------------

    async def place(
        self, parameters: Mapping[str, Any] | None = None, sockets: Sequence[socket.socket] = ()
    ) -> PlacedCall:
        """Have the least loaded worker run a call; return once its function says that the call is ready.

        Args:
            parameters: plain values (text, bytes, numbers, None, lists, dicts), at most 64 KiB.
            sockets: at most 8, passed on to the worker; these remain the caller's to close, at any time.

        Raises:
            CallEnded: `no_capacity`: nobody has room; `drained`: no more calls are taken; `worker_lost`: the worker
                went while the call was set up; else what the call ended with before it was ready, where the worker is
                named in a note.
            ConfigError: the parameters cannot travel; the caller's to mend.

        Cancellation: the call is ended.
        """
        if self._nursery is None:
            raise ConfigError("the workers have not been entered; write `async with open_workers(...) as workers:`")
        if len(sockets) > MAX_SOCKETS:
            raise ConfigError(f"{len(sockets)} sockets are too many for a call; at most {MAX_SOCKETS} can be passed on")
        asked: set[int] = set()
        while not self._draining:
            worker = self._choose(asked)
            if worker is None:
                break
            asked.add(worker.number)
            self._calls += 1
            call = worker.place(self._calls, dict(parameters or {}), sockets)
            if call is None:
                continue
            await self._settle(call)
            if call.refused:
                continue
            if call.record is not None and not call.is_ready:
                raise _ended(call.record)
            return call
        await trio.lowlevel.checkpoint()
        if self._draining:
            raise CallEnded(EndReason.DRAINED)
        self._refused += 1
        raise CallEnded(EndReason.NO_CAPACITY)

    def _choose(self, asked: set[int]) -> WorkerProcess | None:
        ready = [one for one in self._workers if one.state is WorkerState.READY and one.number not in asked]
        order = by_load([one.load() for one in ready])
        return ready[order[0]] if order else None

    async def _settle(self, call: PlacedCall) -> None:
        """Wait until a call is ready, refused, or over."""
        try:
            with trio.move_on_after(self.config.place_s):
                await call.settled.wait()
                return
        except trio.Cancelled:
            call.hang_up(EndReason.CANCELLED)
            raise
        call.hang_up(EndReason.HANDSHAKE_TIMED_OUT)
        raise CallEnded(EndReason.HANDSHAKE_TIMED_OUT)

    # The end, and a new beginning --------------------------------------------------------------------------------

    async def drain(self, deadline_s: float) -> list[PlacedRecord]:
        """Take no more calls; wait until the live ones are over, at most `deadline_s`, then end them; end the workers.

        Returns:
            Records of the calls that had to be ended.

        Cancellation: the workers drain on, within their deadline; another `drain` may shorten it.
        """
        check_range("deadline_s", deadline_s, 0, 7 * 86400)
        self._draining = True
        return await self._end_all(deadline_s, EndReason.DRAINED)

    async def _end_all(self, deadline_s: float, reason: EndReason) -> list[PlacedRecord]:
        workers = list(self._workers)
        calls = [call for worker in workers for call in worker.calls.values()]
        for worker in workers:
            worker.retire(deadline_s, reason)
        for worker in workers:
            await worker.gone.wait()
        return [call.record for call in calls if call.record is not None and call.record.reason is reason]

    async def restart(self, deadline_s: float) -> None:
        """Replace the workers by new processes, one seat after the other; calls are taken all the time.

        The new worker of a seat serves before the old one drains; the old one's calls have `deadline_s`, then they end
        with `drained`. So it takes at most so long for each worker, and code that was changed meanwhile is what the
        new ones run.

        Raises:
            ConfigError: a new worker cannot begin; says why. The old ones that are left go on.

        Cancellation: what has been replaced stays so; an old worker that drains goes on draining.
        """
        check_range("deadline_s", deadline_s, 0, 7 * 86400)
        async with self._restarting:
            for old in list(self._workers):
                if self._draining:
                    return
                # One that goes by itself is being replaced already.
                if not old.leaving.is_set():
                    await self._renew(old, deadline_s)

    async def _renew(self, old: WorkerProcess, deadline_s: float) -> None:
        ports = await self._take_ports()
        if self._draining:
            return
        new = self._start(old.seat, ports, 0, old.restarts + 1)
        new.candidate = True
        try:
            await new.settled.wait()
            if not self._draining:
                check_started(new)
        except BaseException:
            new.retire(0.0, EndReason.DRAINED)
            raise
        if old.leaving.is_set():
            # It went by itself meanwhile, and the seat has its replacement from there.
            new.retire(0.0, EndReason.DRAINED)
            return
        new.candidate = False
        self._restarts += 1
        old.retire(deadline_s, EndReason.DRAINED)
        await old.gone.wait()

    def statistics(self) -> WorkersStatistics:
        """Return a snapshot; figures of the workers themselves are of their last reports."""
        workers = tuple(
            WorkerStatistics(
                one.number,
                one.pid,
                one.state,
                len(one.calls),
                one.calls_placed,
                one.report.busy,
                one.restarts,
                one.report.statistics,
            )
            for one in self._workers
        )
        return WorkersStatistics(
            workers=workers,
            calls=sum(one.calls for one in workers),
            calls_placed=self._placed_by_gone + sum(one.calls_placed for one in workers),
            calls_refused=self._refused,
            calls_lost=self._lost_calls,
            busy=sum(one.busy for one in workers),
            workers_lost=self._lost_workers,
            restarts=self._restarts,
        )


def _ended(record: PlacedRecord) -> CallEnded:
    ended = CallEnded(record.reason)
    ended.add_note(f"in worker {record.worker}" + (f": {record.cause}" if record.cause else ""))
    return ended


@contextmanager
def _bare_exceptions() -> Iterator[None]:
    """Let the one error of a nursery out without the group around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = group.subgroup(Exception)
        inner: BaseException = errors or group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        raise inner from None


def open_workers(target: str, config: WorkersConfig | None = None) -> Workers:
    """Open worker processes that run calls: ``async with open_workers("package.module:run_call") as workers``.

    Args:
        target: the name of ``async def run_call(engine, placed)``, which each worker imports; see `Placed`.
        config: options; the defaults when None.

    Raises:
        ConfigError: the target is no name; or, on entering, it cannot be imported by a worker.
    """
    config = config or WorkersConfig()
    options = {"target": check_name("the target", target), "engine": to_travel("engine", config.engine, EngineConfig)}
    return Workers("talkpath.engine.placed:EngineCalls", options, config)
