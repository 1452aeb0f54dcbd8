"""The load: shares of a processor that are known, lateness that is known, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkpath.transport.clock import Lateness, Stay
from talkpath.transport.collector import Collector
from talkpath.transport.load import LOOK_NS, Load, Stall
from talkpath.units import NS_PER_MS

SECOND = 1000 * NS_PER_MS


@dataclass
class Machine:
    """A clock, a driver and a processor whose every figure a test sets."""

    virtual: bool = False
    at_ns: int = 0
    cpu: int = 0
    live: int = 0
    lateness: Lateness = field(default_factory=Lateness)
    stalls: list[Stall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.collector = Collector(now_ns=lambda: self.at_ns)
        mover: Any = self
        clock: Any = SimpleNamespace(virtual=self.virtual, now_ns=lambda: self.at_ns)
        self.load = Load(clock, mover, cpu_ns=lambda: self.cpu, collector=self.collector)
        self.load.on_stall.append(self.stalls.append)

    def members(self) -> int:
        return self.live

    def run(self, seconds: float, *, share: float = 0.0, late_ms: float = 0.1, ticks: int = 200) -> None:
        """Let time pass: steps on a 5 ms grid, so many of them ticks of calls, so late, at such a share."""
        for step in range(round(seconds * 200)):
            due = self.at_ns + 5 * NS_PER_MS
            self.at_ns = due + round(late_ms * NS_PER_MS)
            self.cpu += round(share * 5 * NS_PER_MS)
            if step % 200 < ticks:
                self.lateness.add(self.at_ns - due)
            self.load.stepped(due, self.at_ns)
            self.at_ns = due


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=20))
def test_steps_without_python_count_as_those_with_it(late_ns: list[int]) -> None:
    one, other = Machine(), Machine()
    due = 0
    for late in late_ns:
        due += 20 * NS_PER_MS
        one.load.stepped(due, due + late)
    other.load.stayed(Stay(late_ns, -1, due + late_ns[-1], due, 0))
    assert other.load.steps.counts == one.load.steps.counts
    assert (other.load.steps.max_ns, other.load.steps.sum_ns) == (max(late_ns), sum(late_ns))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_stall_in_a_stay_is_told_with_what_came_between_it_and_the_step_before(share: float) -> None:
    machine = Machine()
    machine.run(3, share=0.1)
    before, cpu = machine.at_ns + 90 * NS_PER_MS, machine.cpu + 9 * NS_PER_MS
    machine.at_ns = before + 40 * NS_PER_MS
    machine.cpu = cpu + round(share * 40 * NS_PER_MS)
    machine.lateness.add(35 * NS_PER_MS)
    machine.load.stayed(Stay([1000, 35 * NS_PER_MS], -1, machine.at_ns, before, cpu))
    machine.run(0.5, share=0.1)
    (stall,) = machine.stalls
    assert stall.late_ticks == 1
    assert stall.busy_share == pytest.approx(share)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_share_is_that_of_the_last_two_seconds(shares: list[float]) -> None:
    machine = Machine()
    for share in shares:
        machine.run(3, share=share)
    assert machine.load.busy_share() == pytest.approx(shares[-1], abs=0.01)


def test_nothing_is_said_before_a_second_was_seen() -> None:
    machine = Machine()
    machine.run(0.9, share=1.0, late_ms=30)
    assert machine.load.busy_share() == 0.0
    assert machine.load.lateness_p99_ms() == 0.0


def test_a_change_is_half_seen_after_half_the_window() -> None:
    machine = Machine()
    machine.run(10, share=0.2)
    machine.run(1, share=0.8)
    assert machine.load.busy_share() == pytest.approx(0.5, abs=0.1)


def test_the_busier_of_two_threads_counts() -> None:
    machine = Machine()
    media = 0

    def media_cpu_ns() -> int:
        return media

    machine.load.media_cpu_ns = media_cpu_ns
    for _ in range(400):
        media += round(0.6 * 10 * NS_PER_MS)
        machine.run(0.01, share=0.3)
    assert machine.load.busy_share() == pytest.approx(0.6, abs=0.02)
    machine.run(4, share=0.3)
    assert machine.load.busy_share() == pytest.approx(0.3, abs=0.02)


def test_calls_that_have_just_come_are_counted_at_the_cost_of_the_others() -> None:
    machine = Machine(live=100)
    machine.run(5, share=0.3)
    assert machine.load.expected_share() == pytest.approx(0.3, abs=0.01)
    machine.live = 200
    assert machine.load.expected_share() == pytest.approx(0.6, abs=0.01)
    machine.live = 50  # they may come back
    assert machine.load.expected_share() == pytest.approx(0.3, abs=0.01)


def test_a_few_calls_say_nothing_about_the_next() -> None:
    machine = Machine(live=2)
    machine.run(5, share=0.3)
    machine.live = 10
    assert machine.load.expected_share() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("bad_seconds", "seen_ms"), [(0, 0.2), (1, 0.2), (2, 0.2), (3, 9.1), (5, 9.1)])
def test_a_hiccup_is_no_overload_and_three_bad_seconds_of_five_are(bad_seconds: int, seen_ms: float) -> None:
    machine = Machine()
    machine.run(0.005, late_ms=15)
    machine.run(9.995, late_ms=0.1)
    for _ in range(bad_seconds):
        machine.run(0.5, late_ms=0.1)
        machine.run(0.1, late_ms=9)
        machine.run(0.4, late_ms=0.1)
    machine.run(0.01)
    assert machine.load.lateness_p99_ms() == pytest.approx(seen_ms)


def test_bad_seconds_are_forgotten_when_nothing_ticks_any_more() -> None:
    machine = Machine()
    machine.run(6, late_ms=9)
    assert machine.load.lateness_p99_ms() == 9.0
    machine.at_ns += 6 * SECOND
    assert machine.load.lateness_p99_ms() == 0.0
    machine.at_ns += LOOK_NS
    assert machine.load.busy_share() == 0.0


def test_where_no_call_ticks_the_steps_are_judged() -> None:
    machine = Machine()
    machine.run(6, late_ms=7, ticks=0)
    assert machine.lateness.total == 0
    assert machine.load.lateness_p99_ms() == pytest.approx(7.1, abs=0.11)
    assert machine.load.histogram() is machine.load.steps


def test_a_media_thread_answers_for_its_own_lateness() -> None:
    machine = Machine()
    machine.load.media_cpu_ns = lambda: 0
    machine.run(6, late_ms=7, ticks=0)
    assert machine.load.lateness_p99_ms() == 0.0
    assert machine.stalls == []


def test_in_virtual_time_nothing_is_measured() -> None:
    machine = Machine(virtual=True)
    machine.run(6, share=1.0, late_ms=30)
    assert (machine.load.busy_share(), machine.load.lateness_p99_ms()) == (0.0, 0.0)
    assert machine.stalls == []


def test_a_stall_is_told_once_with_its_length_and_what_was_skipped() -> None:
    machine = Machine(live=7)
    machine.run(2.05)
    machine.run(0.005, late_ms=33, share=1.0)
    machine.run(0.005, late_ms=87, share=1.0)
    machine.run(2)
    (stall,) = machine.stalls
    assert (stall.longest_ms, stall.late_ticks, stall.skipped_ticks, stall.members) == (87.0, 2, 1, 7)


def test_a_stall_is_as_long_as_it_was_however_long_another_was_before() -> None:
    machine = Machine()
    machine.run(1)
    machine.run(0.005, late_ms=250)
    machine.run(1)
    machine.run(0.005, late_ms=26)
    machine.run(1)
    assert [stall.longest_ms for stall in machine.stalls] == [250.0, 30.0]


def test_what_was_just_in_time_is_no_stall() -> None:
    machine = Machine()
    machine.run(2, late_ms=19.9)
    assert machine.stalls == []


def test_a_collection_before_the_stall_is_not_its_cause() -> None:
    machine = Machine()
    machine.run(1.05)
    machine.collector.pause_ns += 80 * NS_PER_MS
    machine.run(0.01)
    machine.run(0.005, late_ms=45)
    machine.run(0.5)
    (stall,) = machine.stalls
    assert stall.collector_ms == 0.0
    assert stall.likely_cause().startswith("the thread waited")


@pytest.mark.parametrize(
    ("share", "collected_ms", "says"),
    [(0.1, 0, "the thread waited"), (1.0, 0, "Python code"), (1.0, 40, "garbage collection (40 ms)")],
)
def test_the_likely_cause(share: float, collected_ms: int, says: str) -> None:
    machine = Machine()
    machine.run(1.05)
    machine.collector.pause_ns += collected_ms * NS_PER_MS
    machine.cpu += round(share * 45 * NS_PER_MS)
    machine.run(0.005, late_ms=45, share=share)
    machine.run(0.5)
    (stall,) = machine.stalls
    assert stall.likely_cause().startswith(says)
