"""The garbage collector is asked to be quiet in the right order, measured, and left as it was found."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from talkpath.transport.collector import FREEZE_AT_LAST_NS, FREEZE_EVERY_NS, THAW_BLOCKS, THRESHOLDS, Collector

MS = 1_000_000


@dataclass
class Double:
    """`gc` as the collector sees it: counts of containers, and what was asked of it."""

    young: int = 0
    """Not frozen."""
    garbage: int = 0
    """Of these, dead."""
    frozen: int = 0
    frozen_garbage: int = 0
    threshold: tuple[int, int, int] = (700, 10, 10)
    enabled: bool = True
    asked: list[str] = field(default_factory=list)
    callbacks: list[Callable[[str, dict[str, int]], None]] = field(default_factory=list)
    now_ns: int = 1

    def isenabled(self) -> bool:
        return self.enabled

    def collect(self, generation: int = 2) -> None:
        self.asked.append("collect" if generation == 2 else f"collect {generation}")
        for told in self.callbacks:
            told("start", {})
        if generation == 2:
            self.now_ns += self.young * 100  # 0.1 µs each
            self.young -= self.garbage
            self.garbage = 0
        else:
            self.now_ns += min(self.young, 6_000) * 100
        for told in self.callbacks:
            told("stop", {})

    def freeze(self) -> None:
        self.asked.append("freeze")
        self.frozen += self.young
        self.frozen_garbage += self.garbage
        self.young = self.garbage = 0

    def unfreeze(self) -> None:
        self.asked.append("unfreeze")
        self.young += self.frozen
        self.garbage += self.frozen_garbage
        self.frozen = self.frozen_garbage = 0

    def get_freeze_count(self) -> int:
        return self.frozen

    def get_threshold(self) -> tuple[int, int, int]:
        return self.threshold

    def set_threshold(self, *threshold: int) -> None:
        self.threshold = (threshold[0], threshold[1], threshold[2])


@pytest.fixture
def double() -> Double:
    return Double(young=100_000, garbage=10_000)


@pytest.fixture
def collector(double: Double) -> Collector:
    return Collector(double, now_ns=lambda: double.now_ns, blocks=lambda: 4 * (double.young + double.frozen))


def test_first_it_collects_and_freezes_then_raises_the_threshold(double: Double, collector: Collector) -> None:
    collector.hold(1, "freeze")
    assert double.asked == ["collect", "freeze"]
    assert (double.frozen, double.frozen_garbage) == (90_000, 0)
    assert double.threshold == THRESHOLDS
    assert (collector.freezes, collector.thaws) == (1, 0)
    assert (collector.pauses, collector.pause_ns, collector.pause_max_ns) == (1, 10 * MS, 10 * MS)


def test_with_leave_it_only_measures(double: Double, collector: Collector) -> None:
    collector.hold(1, "leave")
    double.now_ns += FREEZE_EVERY_NS
    collector.look(quiet=True)
    assert double.asked == []
    double.collect()
    assert collector.pauses == 1
    collector.release(1)
    double.collect()
    assert collector.pauses == 1
    assert double.threshold == (700, 10, 10)


def test_the_last_one_out_puts_everything_back(double: Double, collector: Collector) -> None:
    collector.hold(1, "freeze")
    collector.hold(2, "freeze")
    collector.hold(3, "leave")
    assert double.asked == ["collect", "freeze"]
    collector.release(1)
    collector.release(1)
    assert double.frozen == 90_000
    collector.release(2)
    assert (double.frozen, double.young, double.threshold) == (0, 90_000, (700, 10, 10))
    assert len(double.callbacks) == 1
    collector.release(3)
    assert double.callbacks == []
    assert double.asked == ["collect", "freeze", "unfreeze"]


def test_it_can_be_held_again(double: Double, collector: Collector) -> None:
    for _ in range(3):
        collector.hold(1, "freeze")
        collector.release(1)
    assert double.threshold == (700, 10, 10)
    assert collector.freezes == 3


def test_it_freezes_what_came_since_once_a_minute_at_most(double: Double, collector: Collector) -> None:
    collector.hold(1, "freeze")
    double.young, double.garbage = 5_000, 3_000
    double.now_ns += FREEZE_EVERY_NS // 2
    collector.look(quiet=True)
    assert collector.freezes == 1
    double.now_ns += FREEZE_EVERY_NS
    collector.look(quiet=False)
    assert collector.freezes == 1
    collector.look(quiet=True)
    collector.look(quiet=True)
    assert (collector.freezes, collector.thaws, double.frozen) == (2, 0, 95_000)
    assert double.asked[-2:] == ["collect 1", "freeze"]
    assert collector.pause_max_ns == 10 * MS, "a freeze in between looks at the young alone"


def test_without_a_quiet_moment_it_freezes_after_five_minutes(double: Double, collector: Collector) -> None:
    collector.hold(1, "freeze")
    for _ in range(11):
        double.now_ns += FREEZE_AT_LAST_NS // 10
        collector.look(quiet=False)
    assert collector.freezes == 2


def test_what_died_frozen_is_given_back_before_it_is_much(double: Double, collector: Collector) -> None:
    """Calls come, are frozen, and end: no growth without bound, and the long pause is rare."""
    collector.hold(1, "freeze")
    alive = double.frozen
    most = 0
    minutes = 200
    for _ in range(minutes):
        double.young += 20_000  # calls of this minute,
        double.now_ns += FREEZE_EVERY_NS
        collector.look(quiet=True)
        double.frozen_garbage += 20_000  # which end in the next
        most = max(most, double.frozen)
    assert most <= 1.5 * (alive + 40_000) + THAW_BLOCKS / 4 + 40_000
    assert 5 <= collector.thaws <= 20
    assert collector.freezes == 1 + minutes


def test_a_collector_that_the_program_disabled_is_left_alone(double: Double, collector: Collector) -> None:
    double.enabled = False
    collector.hold(1, "freeze")
    double.now_ns += FREEZE_EVERY_NS
    collector.look(quiet=True)
    collector.release(1)
    assert double.asked == []


def test_what_the_program_froze_and_set_itself_stays_so(double: Double, collector: Collector) -> None:
    double.frozen = 5
    collector.hold(1, "freeze")
    double.threshold = (50_000, 20, 20)
    collector.release(1)
    assert double.young == 0
    assert double.threshold == (50_000, 20, 20)


@pytest.fixture
def real() -> Iterator[None]:
    before, callbacks = (gc.get_threshold(), gc.get_freeze_count()), list(gc.callbacks)
    yield
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    assert gc.callbacks == callbacks


class Node:
    """Something that can be in a cycle and be watched."""


def cycle() -> weakref.ref[Node]:
    node = Node()
    node.itself = node  # type: ignore[attr-defined]
    return weakref.ref(node)


@pytest.mark.usefixtures("real")
def test_python_s_own_collector_does_as_it_is_told() -> None:
    collector = Collector()
    collector.hold(1, "freeze")
    try:
        watch(collector)
    finally:
        collector.release(1)


def watch(collector: Collector) -> None:
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    dead = cycle()
    gc.collect()
    assert dead() is None, "garbage that is not frozen is collected as ever"
    assert collector.pauses >= 2
    assert 0 < collector.pause_max_ns <= collector.pause_ns
