"""The one clock of a Trio run: every engine and every line in the run has its media moved by this task.

One task instead of a timer per call, because a Trio timer costs 17-20 µs a wake and a call needs fifty wakes a second
each way; and one instead of a task per engine, because two tasks that wake at one instant run in an order Trio
shuffles on purpose, and then no virtual call could be repeated to the byte.

Theory of operation. Time is an integer, nanoseconds since `Clock.t0`. The driver says when it is next due; the clock
sleeps until exactly `t0 + due * 1e-9` and hands the driver that *due* time, never the time at which it woke: grid
time goes in, and how late it was is measured beside it. Nothing is accumulated.

* Real time: the sleep is a timerfd where the system has one (0.1-0.25 ms late instead of 0.7-0.85, since epoll's
  timeouts are whole milliseconds), else a Trio deadline.
* Any other clock (a test's): the sleep is a Trio deadline, and before it moves anything the task lets every other
  task of this instant run until all are blocked. So what a step finds does not depend on the order in which Trio ran
  them.

In real time most steps of the pump need nothing of Python. A pass of Trio's loop for each, some 0.2 ms with its code
and data long out of the caches, would be the greatest cost of a step. So, when Trio is about to wait for whatever comes
and says for how long at most, the driver is asked to `stay`: to take steps by itself, until somebody is to be seen to.

The task is a system task that lives exactly as long as somebody holds the clock: `open_clock` counts its users, and
the last one out waits for the task to be gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import struct
import sys
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import trio
import trio.testing

from talkpath.errors import ConfigError
from talkpath.transport.pace import Pace
from talkpath.units import NS_PER_MS, seconds_to_ns

if TYPE_CHECKING:
    from talkpath.transport.driver_tasks import TasksDriver
    from talkpath.transport.load import Load

LATENESS_BUCKETS = 256
_FINE_NS = 100_000
"""Lateness is counted in steps of 0.1 ms up to 20 ms, then of 5 ms up to 300 ms, then in one last bucket."""
_FINE_BUCKETS = 200


LEAST_STAY_S = 0.001
WAITS_NOT_STAYED = 8
"""After a stay that was in vain."""


class Lateness:
    """A histogram of how late ticks were, in nanoseconds, with bounded memory."""

    __slots__ = ("counts", "max_ns", "sum_ns", "total")

    def __init__(self) -> None:
        # 64 bits each: a month is half a thousand million ticks.
        self.counts = array("Q", bytes(8 * LATENESS_BUCKETS))
        self.max_ns = 0
        self.sum_ns = 0
        self.total = 0

    def add(self, lateness_ns: int, count: int = 1) -> None:
        """Count `count` ticks that were `lateness_ns` late."""
        if lateness_ns < 0:
            lateness_ns = 0
        bucket = lateness_ns // _FINE_NS
        if bucket >= _FINE_BUCKETS:
            bucket = min(
                _FINE_BUCKETS + (lateness_ns - _FINE_BUCKETS * _FINE_NS) // (5 * NS_PER_MS), LATENESS_BUCKETS - 1
            )
        self.counts[bucket] += count
        self.total += count
        self.sum_ns += lateness_ns * count
        if lateness_ns > self.max_ns:
            self.max_ns = lateness_ns

    def copy_counts(self) -> array[int]:
        """Return the counts so far, to tell later what came since."""
        return array("Q", self.counts)

    def packed_counts(self) -> array[int]:
        """Return the same in less memory: of each bucket that is not empty its count, times 256, plus its number."""
        counts = np.frombuffer(self.counts, np.uint64).copy()  # a media thread may go on counting meanwhile
        buckets = counts.nonzero()[0]
        packed = counts[buckets] << np.uint64(8) | buckets.astype(np.uint64)
        wide = bool(packed.size and packed.max() >> np.uint64(32))
        return array("Q" if wide else "I", packed.astype(np.uint64 if wide else np.uint32).tobytes())

    @staticmethod
    def unpacked(packed: Sequence[int]) -> array[int]:
        """Return what `copy_counts` would have returned when `packed_counts` was called."""
        counts = array("Q", bytes(8 * LATENESS_BUCKETS))
        for number in packed:
            counts[number & 0xFF] = number >> 8
        return counts

    def percentile_ms(self, share: float, since: Sequence[int] | None = None) -> float:
        """Return the lateness in ms that `share` of the ticks did not exceed; since a copy of `counts`, when given.

        It is the upper edge of a step of the histogram, and never more than the greatest lateness that was seen.
        """
        return self.percentiles_ms((share,), since)[0]

    def percentiles_ms(self, shares: Sequence[float], since: Sequence[int] | None = None) -> list[float]:
        """Return `percentile_ms` of each share, in one pass."""
        counts = np.frombuffer(self.counts, np.int64)
        if since is not None:
            counts = counts - np.asarray(since, np.int64)
        seen = counts.cumsum()
        total = int(seen[-1])
        if total == 0:
            return [0.0] * len(shares)
        most_ms = self.max_ns / 1e6
        # The first step at which so many had been seen; there is a tick in it.
        steps = seen.searchsorted([max(share * total, 1) for share in shares]).tolist()
        return [min(bucket_edge_ms(step), most_ms) for step in steps]


def bucket_edge_ms(bucket: int) -> float:
    """Return up to which lateness a bucket of `Lateness` counts; the last one has no end."""
    if bucket == LATENESS_BUCKETS - 1:
        return math.inf
    fine = bucket < _FINE_BUCKETS
    return (bucket + 1) * _FINE_NS / 1e6 if fine else 20.0 + (bucket - _FINE_BUCKETS + 1) * 5.0


class Stay(NamedTuple):
    """What came of steps that were taken without Python; see `tp_pump_stay`."""

    late_ns: list[int]
    """How late each was done."""
    armed_ns: int
    """For when the timer is armed; -1: as before."""
    done_ns: int
    """When the last was done."""
    before_ns: int
    """When the last but one was, where there were two."""
    cpu_before_ns: int
    """The thread's processor time as the last began, then."""


class Watched(Protocol):
    """Who wants to know how steps came out; see `Load`."""

    due_ns: int
    """When it next wants to look around, in a step."""

    def stepped(self, due_ns: int | None, now_ns: int) -> None:
        """A step that was due at `due_ns` has just been done. Cheap; never raises."""
        ...

    def stayed(self, stay: Stay) -> None:
        """Steps have been done without Python. Cheap; never raises."""
        ...


class _TimerFd:
    """A Linux timerfd on the monotonic clock, waited for through Trio, and whatever else is to wake the clock."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer: int = self._libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._both: select.epoll | None = None
        self.fd = self._timer
        self._spec = ctypes.create_string_buffer(32)

    def listen(self, fd: int) -> None:
        """Be readable when `fd` is, too."""
        if self._both is None:
            self._both = select.epoll()
            self._both.register(self._timer, select.EPOLLIN)
            trio.lowlevel.notify_closing(self.fd)  # Whoever waits for the timer alone looks anew.
            self.fd = self._both.fileno()
        self._both.register(fd, select.EPOLLIN)

    def arm(self, delay_ns: int) -> None:
        """Fire once, `delay_ns` from now; what had fired before is forgotten."""
        delay_ns = max(delay_ns, 1)
        struct.pack_into("qqqq", self._spec, 0, 0, 0, delay_ns // 1_000_000_000, delay_ns % 1_000_000_000)
        if self._libc.timerfd_settime(self._timer, 0, self._spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def is_alone(self) -> bool:
        """Whether nothing but the timer is waited for."""
        return self._both is None

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.fd)
        if self._both is not None:
            self._both.close()
        os.close(self._timer)


def _waits_of_trio() -> int | None:
    """Return the epoll in which Trio waits for everything but deadlines; None where that cannot be had.

    Trio does not offer it. A later Trio that keeps it elsewhere costs a scheduler's pass for each step, and no more.
    """
    try:
        core: Any = trio._core
        runner = core._run.GLOBAL_RUN_CONTEXT.runner
        return None if runner.is_guest else int(runner.io_manager._epoll.fileno())  # a host's loop must not be kept
    except AttributeError:
        return None


class _BeforeWait(trio.abc.Instrument):
    """Tells the clock when Trio has nothing to do, and for how long at most."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told

    def before_io_wait(self, timeout: float) -> None:
        self._told(timeout)


def has_timerfd() -> bool:
    """Whether the system's timerfd can be used."""
    return sys.platform == "linux"


DEFAULT_DRIVER: Literal["pump", "tasks"] = "pump" if has_timerfd() else "tasks"


def check_driver(driver: str, media_thread: bool) -> None:
    """Raise ConfigError when there is no such driver here."""
    if driver not in ("pump", "tasks"):
        raise ConfigError(f"driver {driver!r} does not exist; use 'pump' or 'tasks'")
    if driver == "pump" and not has_timerfd():
        raise ConfigError("the pump needs Linux; use driver='tasks'")
    if media_thread and driver != "pump":
        raise ConfigError("media_thread is the pump's; use driver='pump' with it")


class Clock:
    """The run's clock; see the module. Opened by `open_clock`, never built by hand."""

    def __init__(self, driver: TasksDriver) -> None:
        self.t0 = trio.current_time()
        self.virtual = type(trio.lowlevel.current_clock()).__name__ != "SystemClock"
        self.driver = driver
        self.load: Load
        """How loaded the run's thread is; set by `open_clock`."""
        self.pace = Pace()
        """Of teardowns, when many calls and lines end at once."""
        self.watched: Watched | None = None
        """Told after each step in real time."""
        self._users = 0
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self._wake = trio.Event()
        self._armed_ns: int | None = None
        self._nursery: trio.Nursery | None = None
        self._jobs: list[Callable[[], Awaitable[None]]] = []
        self._timer = _TimerFd() if has_timerfd() and not self.virtual else None
        self._asleep = False
        """On the timer."""
        self._others: int | None = None
        self._not_staying = 0
        self._raised: BaseException | None = None
        """While staying."""

    def now_ns(self) -> int:
        """Return the present moment on this clock."""
        return seconds_to_ns(trio.current_time() - self.t0)

    def nudge(self) -> None:
        """Say that the driver's next due time may have changed, or that there is work at this instant.

        In real time a command waits for the next tick that is due anyway; only an earlier due time, or a parked
        clock, wakes the task.
        """
        if self.virtual or self._armed_ns is None:
            self._wake.set()
            return
        due = self.driver.next_due_ns()
        if due is not None and due < self._armed_ns:
            if self._timer is not None:
                self._armed_ns = due
                self._timer.arm(due - self.now_ns())
            else:
                self._wake.set()

    def listen(self, fd: int) -> None:
        """Have the driver's step run when `fd` becomes readable, too; in real time, where there is a timerfd."""
        assert self._timer is not None
        self._timer.listen(fd)
        self._wake.set()

    def start_soon(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` in the clock's own nursery; the clock is not gone before it is."""
        self._jobs.append(job)
        self._begin_jobs()

    def _begin_jobs(self) -> None:
        while self._jobs and self._nursery is not None:
            self._nursery.start_soon(self._jobs.pop())

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                self._begin_jobs()
                with self._scope:
                    try:
                        if self.virtual:
                            await self._run_virtual()
                        elif self._timer is None or (others := _waits_of_trio()) is None:
                            await self._run_real()
                        else:
                            self._others = others
                            before_wait = _BeforeWait(self._before_wait)
                            trio.lowlevel.add_instrument(before_wait)
                            try:
                                await self._run_real()
                            finally:
                                with contextlib.suppress(KeyError):  # Trio takes one out that has raised
                                    trio.lowlevel.remove_instrument(before_wait)
                    finally:
                        self.driver.stopping()
        finally:
            self._armed_ns = None
            if self._timer is not None:
                self._timer.close()
            if self._users:  # It was not they who ended it: this task has raised, or another of the run's own.
                self.driver.abandon()
            else:
                self.driver.close()
            self._gone.set()

    async def _run_real(self) -> None:
        driver, timer = self.driver, self._timer
        while True:
            due = self._armed_ns = driver.next_due_ns()
            if due is None:
                self._wake = trio.Event()
                await self._wake.wait()
            elif timer is None:
                self._wake = trio.Event()
                with trio.move_on_at(self.t0 + due * 1e-9):
                    await self._wake.wait()
            elif (delay := due - self.now_ns()) > 0:
                timer.arm(delay)
                self._asleep = True
                try:
                    await trio.lowlevel.wait_readable(timer.fd)
                except trio.ClosedResourceError:  # it listens to more than before
                    pass
                finally:
                    self._asleep = False
                if self._raised is not None:
                    raise self._raised
            else:
                await trio.lowlevel.checkpoint()
            now = self.now_ns()
            due = driver.next_due_ns()
            if driver.has_work() or (due is not None and due <= now):
                driver.step(now)
                if self.watched is not None:
                    self.watched.stepped(due, self.now_ns())
                if driver.awaits_answers(now):
                    # Whom the step woke runs in Trio's next pass, before this task or after it; then all have run.
                    for _ in range(2):
                        await trio.lowlevel.checkpoint()
                    driver.answer(self.now_ns())

    def _before_wait(self, timeout_s: float) -> None:
        """Stay; what is raised meanwhile, by the handler of a signal for one, is the task's: of an instrument's
        exceptions Trio makes a line in a log.
        """
        try:
            self._stay(timeout_s)
        except BaseException as exc:
            self._raised = exc
            if self._timer is not None:
                self._timer.arm(0)

    def _stay(self, timeout_s: float) -> None:
        """Have the driver take steps by itself, while nobody else in the run has anything to do: Trio, which is about
        to wait, then needs no pass of its loop for them.

        Trio's wait returns at once when this task is to see to something: the timer says so. What Trio waits for, be it
        a socket, another thread or a signal, ends the stay, for all of it makes Trio's epoll readable; so does the
        first deadline.
        """
        timer = self._timer
        if not self._asleep or timeout_s < LEAST_STAY_S or timer is None or self._others is None:
            return
        if self._not_staying or not timer.is_alone():
            self._not_staying -= 1
            return
        watched = self.watched
        until_ns = self.now_ns() + seconds_to_ns(timeout_s)
        stay = self.driver.stay(timer.fd, self._others, until_ns, until_ns if watched is None else watched.due_ns)
        if stay is None:
            return
        if stay.armed_ns >= 0:
            self._armed_ns = stay.armed_ns
        if len(stay.late_ns) < 2:  # in vain: there is much to do
            self._not_staying = WAITS_NOT_STAYED
        if stay.late_ns and watched is not None:
            watched.stayed(stay)

    async def _run_virtual(self) -> None:
        """As `_run_real`, but a step is only taken when every other task of the instant is blocked.

        That costs a pass of Trio's loop, so it is left out where it cannot matter: when all were blocked as the clock
        went to sleep and nobody else is due before or at its own deadline, then nobody else runs until it wakes. When
        the clock begins, whoever began it is still at work.
        """
        driver = self.driver
        slept_from = self.now_ns()
        all_blocked = False
        while True:
            self._wake = trio.Event()
            due = driver.next_due_ns()
            alone = False
            if due is None:
                await self._wake.wait()
            elif not driver.has_work():
                others_s = trio.lowlevel.current_statistics().seconds_to_next_deadline
                with trio.move_on_at(self.t0 + due * 1e-9) as sleep:
                    await self._wake.wait()
                alone = all_blocked and sleep.cancelled_caught and others_s * 1e9 > due - slept_from + 1000
            if not alone:
                await trio.testing.wait_all_tasks_blocked()
            now = self.now_ns()
            while driver.has_work() or ((due := driver.next_due_ns()) is not None and due <= now):
                driver.step(now)
                await trio.testing.wait_all_tasks_blocked()
            slept_from, all_blocked = now, True


_current: trio.lowlevel.RunVar[Clock | None] = trio.lowlevel.RunVar("talkpath.clock", default=None)


def current_clock() -> Clock | None:
    """Return the run's clock while somebody holds it, else None."""
    return _current.get()


def _make_driver() -> TasksDriver:
    """Make what this run's media is moved by: with a pump at hand where there can be one, on Linux and in real time."""
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver

    virtual = type(trio.lowlevel.current_clock()).__name__ != "SystemClock"
    return PumpDriver() if has_timerfd() and not virtual else TasksDriver()


@asynccontextmanager
async def open_clock() -> AsyncIterator[Clock]:
    """Hold the run's clock, starting it when nobody did before.

    Cancellation: leaving the block releases it; the last user waits (shielded; the task only has to notice) until it
        is gone.
    """
    from talkpath.transport.load import Load

    clock = _current.get()
    if clock is None:
        driver = _make_driver()
        clock = Clock(driver)
        driver.clock = clock
        clock.load = Load(clock, driver)
        if not clock.virtual:
            clock.watched = clock.load
        _current.set(clock)
        trio.lowlevel.spawn_system_task(clock._run, name="talkpath clock")
    clock._users += 1
    try:
        yield clock
    finally:
        clock._users -= 1
        if clock._users == 0:
            _current.set(None)
            clock._scope.cancel()
            with trio.CancelScope(shield=True):
                await clock._gone.wait()
            clock.driver.close()
