"""The clock: due instants to the nanosecond, nudges, parking, one of it per run; how late it says it was."""

from __future__ import annotations

import itertools
import os
import random
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from support.virtual import run_virtually, task_order, virtual_engine
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.transport.clock import Clock, Lateness, Stay, current_clock, has_timerfd, open_clock
from talkpath.transport.driver_tasks import SOCKET_POLL_NS, TasksDriver, poll_ns_of
from talkpath.transport.memory import memory_link_pair
from talkpath.units import NS_PER_MS, seconds_to_ns


@dataclass
class Driven:
    """What a clock drives: due every `period_ns`, `n` times; keeps the times at which it was told to step."""

    period_ns: int | None = None
    n: int = 0
    steps: list[int] = field(default_factory=list)
    woke_at: list[float] = field(default_factory=list)
    work: bool = False
    closed: int = 0
    on_step: Any = None
    awaited: tuple[int, trio.Event] | None = None

    def next_due_ns(self) -> int | None:
        if self.period_ns is None or len(self.steps) >= self.n:
            return None
        return len(self.steps) * self.period_ns

    def step(self, now_ns: int) -> None:
        self.work = False
        self.steps.append(now_ns)
        self.woke_at.append(trio.current_time())
        if self.on_step is not None:
            self.on_step(now_ns)
        if self.awaited is not None and len(self.steps) >= self.awaited[0]:
            self.awaited[1].set()

    def has_work(self) -> bool:
        return self.work

    def awaits_answers(self, now_ns: int) -> bool:
        return False

    def stopping(self) -> None:
        self.stops = True

    def stay(self, timer_fd: int, others_fd: int, until_ns: int, enough_ns: int) -> Stay | None:
        return None

    def close(self) -> None:
        self.closed += 1

    async def wait_steps(self, n: int) -> None:
        """Wait, but not for ever, until the n-th step."""
        self.awaited = n, trio.Event()
        with trio.fail_after(5):
            if len(self.steps) < n:
                await self.awaited[1].wait()


async def drive(driven: Driven, during: Any) -> Clock:
    """Run a clock on `driven` while `during` runs."""
    clock = Clock(driven)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock._run)
        await during(clock)
        clock._scope.cancel()
    assert driven.closed
    return clock


@pytest.mark.parametrize("begin_s", [0.0, 123_456.789])
@pytest.mark.parametrize("period_ns", [20 * NS_PER_MS, 5 * NS_PER_MS, 3_333_333])
def test_every_step_is_told_its_grid_time_exactly(begin_s: float, period_ns: int) -> None:
    """However the others sleep: the deadline reached is the deadline asked for, and rounds back to the same integer."""

    async def sleeper(seed: int) -> None:
        chance = random.Random(seed)
        for _ in itertools.count():
            await trio.sleep(chance.random() / 10)

    async def main() -> tuple[Clock, Driven]:
        await trio.sleep(begin_s)
        driven = Driven(period_ns, 2000)

        async def during(clock: Clock) -> None:
            async with trio.open_nursery() as nursery:
                for seed in range(3):
                    nursery.start_soon(sleeper, seed)
                await trio.sleep(2000 * period_ns * 1e-9)
                nursery.cancel_scope.cancel()

        return await drive(driven, during), driven

    clock, driven = run_virtually(main, seed=3)
    assert driven.steps == [n * period_ns for n in range(2000)]
    assert driven.woke_at == [clock.t0 + n * period_ns * 1e-9 for n in range(2000)]


async def test_it_parks_while_nothing_is_due_and_a_nudge_wakes_it(autojump: object) -> None:
    driven = Driven()

    async def during(clock: Clock) -> None:
        await trio.sleep(3600)
        assert driven.steps == []
        driven.work = True
        clock.nudge()
        await trio.sleep(1)
        assert driven.steps == [3600 * 10**9]

    await drive(driven, during)


async def test_a_nudge_without_work_takes_no_step(autojump: object) -> None:
    driven = Driven(20 * NS_PER_MS, 3)

    async def during(clock: Clock) -> None:
        for _ in range(7):
            clock.nudge()
            await trio.sleep(0.005)

    await drive(driven, during)
    assert driven.steps == [0, 20 * NS_PER_MS]


async def test_work_at_an_instant_is_done_at_that_instant_after_everybody_else(autojump: object) -> None:
    """In virtual time a step sees all that the tasks of its instant do, whichever of them Trio runs first."""
    seen: list[tuple[int, tuple[str, ...]]] = []
    given_up: list[str] = []
    driven = Driven(on_step=lambda now: seen.append((now, tuple(sorted(given_up)))))

    async def during(clock: Clock) -> None:
        async def give(name: str) -> None:
            await trio.sleep_until(clock.t0 + 1)
            driven.work = True
            clock.nudge()
            await trio.lowlevel.checkpoint()
            given_up.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(give, name)
        await trio.sleep(1)

    for seed in range(5):
        seen.clear()
        given_up.clear()
        with task_order(seed):
            await drive(driven, during)
        assert seen[-1][1] == ("a", "b", "c", "d", "e", "f")


async def test_work_made_by_a_step_is_done_at_the_same_instant(autojump: object) -> None:
    driven = Driven()

    def more(now_ns: int) -> None:
        driven.work = len(driven.steps) < 3

    driven.on_step = more

    async def during(clock: Clock) -> None:
        await trio.sleep(1)
        driven.work = True
        clock.nudge()
        await trio.sleep(1)

    await drive(driven, during)
    assert driven.steps == [10**9] * 3


async def test_a_run_has_one_clock_while_anybody_holds_it(autojump: object) -> None:
    assert current_clock() is None
    async with open_clock() as first:
        async with open_clock() as second:
            assert second is first
            assert current_clock() is first
        assert current_clock() is first
        async with trio.open_nursery() as nursery:
            seen: list[Clock] = []

            async def hold() -> None:
                async with open_clock() as clock:
                    seen.append(clock)
                    await trio.sleep(1)

            for _ in range(3):
                nursery.start_soon(hold)
        assert seen == [first] * 3
    assert current_clock() is None
    async with open_clock() as another:
        assert another is not first


async def test_the_last_holder_leaves_no_task_even_when_cancelled(autojump: object) -> None:
    root = trio.lowlevel.current_root_task()
    assert root is not None

    def system_tasks() -> set[str]:
        assert root is not None
        return {task.name for nursery in root.child_nurseries for task in nursery.child_tasks}

    before = system_tasks()
    with trio.CancelScope() as scope:
        async with open_clock():
            assert "talkpath clock" in system_tasks()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert system_tasks() == before


class Held:
    """A line for the driver that has nothing to send."""

    pumped = False

    def __init__(self, slot: int, *, on_socket: bool, poll_ns: int = 5 * NS_PER_MS) -> None:
        self.slot = slot
        self.on_socket = on_socket
        self.poll_ns = poll_ns

    def next_send_ns(self) -> None:
        return None

    def run_commands(self, now_ns: int) -> None:
        raise NotImplementedError


def a_driver(*, virtual: bool) -> Any:
    """Return a driver whose clock stands still at 12 ms."""
    driver: Any = TasksDriver()
    driver.clock = SimpleNamespace(now_ns=lambda: 12 * NS_PER_MS, nudge=lambda: None, virtual=virtual)
    return driver


@pytest.fixture
def drivers() -> Iterator[dict[bool, Any]]:
    made = {virtual: a_driver(virtual=virtual) for virtual in (False, True)}
    yield made
    for driver in made.values():
        driver.close()


def test_in_real_time_a_line_is_looked_at_every_5_ms_whatever_it_travels_on(drivers: dict[bool, Any]) -> None:
    """A memory link does not wake a clock that sleeps on a timer: `line_on` depends on this."""
    for on_socket in (True, False):
        driver = drivers[False]
        line = Held(-1, on_socket=on_socket)
        line.slot = driver.take_slot(line)
        driver.add_line(line)
        assert driver.next_due_ns() == 15 * NS_PER_MS == 3 * SOCKET_POLL_NS
        driver.remove(line)
        assert driver.next_due_ns() is None


def test_a_line_of_long_messages_is_looked_at_less_often_and_as_often_in_each() -> None:
    assert [poll_ns_of(ms) // NS_PER_MS for ms in (10, 20, 29, 30, 40, 59, 60, 200)] == [5, 5, 5, 10, 10, 10, 20, 20]
    for message_ms in (10, 20, 30, 40, 60, 80, 100, 120, 160, 200, 500, 1000, 2000):
        assert message_ms * NS_PER_MS % poll_ns_of(message_ms) == 0


@pytest.mark.parametrize("poll_ms", [200, 5])
async def test_whom_a_step_wakes_is_answered_before_a_look_that_is_far(
    poll_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    woken, done = trio.Event(), trio.Event()
    near, far = socket.socketpair()
    with near, far:
        async with open_clock() as clock:
            driver = clock.driver
            line: Any = Held(-1, on_socket=True, poll_ns=poll_ms * NS_PER_MS)
            line.slot = driver.take_slot(line)

            def read(now_ns: int) -> None:
                near.recv(10)
                log.append("read")
                woken.set()

            def run_commands(now_ns: int) -> None:
                log.append("commands")
                done.set()

            def step(now_ns: int, step: Callable[[int], None] = driver.step) -> None:
                log.append("step")
                step(now_ns)

            monkeypatch.setattr(line, "run_commands", run_commands)
            monkeypatch.setattr(driver, "step", step)
            driver.watch(near.fileno(), read)
            driver.add_line(line)
            far.send(b"audio")
            await woken.wait()
            driver.command(line)
            await done.wait()
            driver.unwatch(near.fileno())
            driver.remove(line)
    between = log[log.index("read") + 1 : log.index("commands")]
    assert between == ([] if poll_ms == 200 else ["step"])


def test_in_virtual_time_an_idle_line_costs_no_wake_but_housekeeping(drivers: dict[bool, Any]) -> None:
    driver = drivers[True]
    line = Held(-1, on_socket=False)
    line.slot = driver.take_slot(line)
    driver.add_line(line)
    assert driver.next_due_ns() == 1012 * NS_PER_MS
    driver.remove(line)


def test_slots_are_the_lowest_free_and_come_back_once(drivers: dict[bool, Any]) -> None:
    driver = drivers[True]
    held = [Held(-1, on_socket=False) for _ in range(5)]
    for line in held:
        line.slot = driver.take_slot(line)
    assert [line.slot for line in held] == [0, 1, 2, 3, 4]
    for index in (3, 1, 3, 1):
        driver.remove(held[index])  # one of them had never been added; twice does no harm
    late = Held(-1, on_socket=False)
    late.slot = driver.take_slot(late)
    driver.remove(held[1])  # its number is another's now
    assert (late.slot, driver.members()) == (1, 4)
    assert driver.take_slot(Held(-1, on_socket=False)) == 3
    assert driver.take_slot(Held(-1, on_socket=False)) == 5


def test_memory_links_report_until_they_are_no_longer_watched(drivers: dict[bool, Any]) -> None:
    driver = drivers[True]
    near, far = memory_link_pair()
    heard: list[int] = []

    def read(now_ns: int) -> None:
        heard.append(near.recv_into(memoryview(bytearray(3))))

    far.send(b"before it was watched")
    ident = driver.watch_memory(near, read)
    assert driver.has_work()
    assert driver.watched() == 1
    driver.step(12 * NS_PER_MS)
    assert heard == [3] * 7
    far.send(b"more")
    driver.step(12 * NS_PER_MS)
    assert heard[7:] == [3, 1]
    far.send(b"unheard")
    driver.unwatch_memory(ident)
    driver.step(12 * NS_PER_MS)
    assert (len(heard), driver.watched(), driver.has_work()) == (9, 0, False)


@pytest.mark.smoke
async def test_in_real_time_it_comes_at_each_due_time_and_never_before() -> None:
    async with trio.open_nursery() as nursery:
        driven = Driven(2 * NS_PER_MS, 20)
        clock = Clock(driven)
        nursery.start_soon(clock._run)
        await driven.wait_steps(20)
        # Parked now; a nudge wakes it.
        driven.work = True
        clock.nudge()
        await driven.wait_steps(21)
        clock._scope.cancel()
    assert not clock.virtual
    assert all(now >= n * 2 * NS_PER_MS for n, now in enumerate(driven.steps[:20]))
    for now, woke_at in zip(driven.steps, driven.woke_at, strict=True):
        assert now <= seconds_to_ns(woke_at - clock.t0)


@pytest.mark.smoke
@pytest.mark.skipif(not has_timerfd(), reason="the system has no timerfd")
async def test_in_real_time_a_nudge_brings_an_earlier_due_time_forward() -> None:
    class Impatient(Driven):
        due = 3600 * 10**9

        def next_due_ns(self) -> int | None:
            return None if self.steps else self.due

    async with trio.open_nursery() as nursery:
        driven = Impatient()
        clock = Clock(driven)
        nursery.start_soon(clock._run)
        await trio.sleep(0.01)
        assert not driven.steps
        driven.due = clock.now_ns()
        clock.nudge()
        await driven.wait_steps(1)
        clock._scope.cancel()


@pytest.mark.smoke
@pytest.mark.skipif(not has_timerfd(), reason="the system has no timerfd")
async def test_the_driver_may_stay_while_nobody_else_has_anything_to_do() -> None:
    """Told until when, and by what to know that it is over: that is readable when anybody in the run is to go on."""

    class Staying(Driven):
        stays: ClassVar[list[tuple[bool, float]]] = []

        def stay(self, timer_fd: int, others_fd: int, until_ns: int, enough_ns: int) -> Stay | None:
            rest, _, _ = select.select([others_fd], [], [], 0)
            self.stays.append((bool(rest), until_ns / 1e9))
            os.write(there, b"x")  # as if it had come meanwhile
            rest, _, _ = select.select([others_fd], [], [], 0)
            assert rest
            return Stay([1000, 2000], -1, 2, 1, 0)

    here, there = os.pipe2(os.O_NONBLOCK)
    try:
        async with trio.open_nursery() as nursery:
            driven = Staying(3_600_000 * NS_PER_MS, 2)
            clock = Clock(driven)
            nursery.start_soon(clock._run)
            with trio.fail_after(20) as scope:
                while len(driven.stays) < 3:
                    await trio.lowlevel.wait_readable(here)
                    os.read(here, 1)
            clock._scope.cancel()
        assert not any(readable for readable, _ in driven.stays)
        latest_s = scope.deadline - clock.t0
        assert all(
            until_s == pytest.approx(latest_s, abs=1) and until_s < latest_s + 0.1 for _, until_s in driven.stays
        )
        assert len(driven.steps) == 1  # what was due at once; the rest of an hour it had no reason to step
    finally:
        os.close(here)
        os.close(there)


@given(
    st.lists(st.integers(-1_000_000, 400_000_000), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0]),
)
def test_percentiles_of_lateness_are_numpys_to_a_bucket(late_ns: list[int], share: float) -> None:
    lateness = Lateness()
    for ns in late_ns:
        lateness.add(ns)
    exact_ms = float(np.quantile(np.maximum(late_ns, 0), share, method="inverted_cdf")) / NS_PER_MS
    found_ms = lateness.percentile_ms(share)
    assert lateness.total == len(late_ns)
    assert lateness.max_ns == max(0, *late_ns)
    if exact_ms >= 295:  # the last bucket has no end
        assert found_ms >= exact_ms
    else:
        width_ms = 0.1 if exact_ms < 20 else 5.0
        assert exact_ms <= found_ms <= exact_ms + width_ms + 1e-9


def test_percentiles_since_a_moment_leave_out_what_came_before() -> None:
    lateness = Lateness()
    lateness.add(50 * NS_PER_MS, 1000)
    before = Lateness.unpacked(lateness.packed_counts())
    assert before == lateness.copy_counts()
    assert lateness.percentile_ms(0.5, before) == 0.0
    lateness.add(1 * NS_PER_MS, 99)
    lateness.add(7 * NS_PER_MS)
    assert lateness.percentile_ms(0.5, before) == pytest.approx(1.1)
    assert lateness.percentile_ms(1.0, before) == pytest.approx(7.1)


@pytest.mark.parametrize("count", [1, 2**24 - 1, 2**24, 2**50])
def test_packed_counts_hold_any_count_in_any_bucket(count: int) -> None:
    lateness = Lateness()
    for late_ms in (0, 3, 19, 250, 10_000):
        lateness.add(late_ms * NS_PER_MS, count)
    packed = lateness.packed_counts()
    assert len(packed) == 5
    assert Lateness.unpacked(packed) == lateness.copy_counts()


def test_a_very_late_tick_is_not_reported_as_a_little_late_one() -> None:
    lateness = Lateness()
    lateness.add(2_500 * NS_PER_MS)
    assert lateness.percentile_ms(1.0) == 2500.0


def test_no_tick_is_reported_later_than_the_latest() -> None:
    lateness = Lateness()
    lateness.add(0, 100)
    assert [lateness.percentile_ms(share) for share in (0.5, 0.99, 1.0)] == [0.0, 0.0, 0.0]
    before = Lateness.unpacked(lateness.packed_counts())
    assert before == lateness.copy_counts()
    lateness.add(3_020_000)
    assert lateness.percentile_ms(0.5) == 0.1
    assert lateness.percentile_ms(1.0) == lateness.percentile_ms(0.5, before) == 3.02


async def test_a_call_in_virtual_time_is_never_late(autojump: object) -> None:
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()):
            await trio.sleep(0.1)
        async with engine.open_call(MemoryLeg()) as call:
            await trio.sleep(0.1)
            statistics = call.statistics()
        assert (statistics.lateness_p50_ms, statistics.lateness_p999_ms, statistics.lateness_max_ms) == (0, 0, 0)
        assert engine.statistics().lateness_p99_ms == 0
