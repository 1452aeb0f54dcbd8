"""What the tests of the upper floors share: both ends of a call in one virtual run, and trouble at a chosen step of it.

A run is repeatable when Trio's shuffling of tasks is seeded: then the n-th step of its tasks is the same in each run,
and `Injector` can put a failure between any two of them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import trio
import trio.testing

from talkpath.engine.config import EngineConfig
from talkpath.engine.engine import Engine, open_engine
from talkpath.transport.driver_tasks import TasksDriver

T = TypeVar("T")
EPOCH_S = 1_760_000_000.0
"""What the wall clock of a virtual run says."""


def run_virtually(main: Callable[..., Awaitable[T]], *args: Any, seed: int = 0, instruments: tuple[Any, ...] = ()) -> T:
    """Run `main` in virtual time, in an order of tasks that depends on `seed` alone. A run that hangs fails."""
    stuck: list[str] = []

    async def watched() -> T:
        trio.lowlevel.spawn_system_task(_break_up, stuck)
        return await main(*args)

    with task_order(seed):
        try:
            result = trio.run(watched, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)
        except BaseException as exc:
            if stuck:
                raise AssertionError("still waiting after a year: " + ", ".join(stuck)) from exc
            raise
    assert not stuck, stuck
    return result


async def _break_up(stuck: list[str]) -> None:
    """After a virtual year cancel all there is, shielded or not: a test that hangs is to fail."""
    await trio.sleep(365 * 86_400)
    root = trio.lowlevel.current_root_task()
    assert root is not None
    waiting = [root]
    while waiting:
        task = waiting.pop()
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        if task is not trio.lowlevel.current_task():
            stuck.append(task.name)
            status: Any = task._cancel_status
            while status is not None:
                status._scope.shield = False
                status._scope.cancel()
                status = status.parent


@contextmanager
def task_order(seed: int) -> Iterator[None]:
    """Have Trio shuffle its batches of tasks as `seed` says."""
    shuffler = trio._core._run._r
    before = shuffler.getstate()
    shuffler.seed(seed)
    try:
        yield
    finally:
        shuffler.setstate(before)


def virtual_engine(config: EngineConfig | None = None, *, seed: int = 1) -> Engine:
    """Return an engine whose ids, keys and wall clock are the same in every run; small, since many are made."""
    return open_engine(
        config or EngineConfig(pool_bytes=1 << 20),
        entropy=random.Random(seed).randbytes,
        wall_clock=lambda: EPOCH_S + trio.current_time(),
    )


def speech(n_samples: int, *, seed: int = 5, peak: int = 8000) -> npt.NDArray[np.int16]:
    """Return audio of which no two frames are alike."""
    return np.random.default_rng(seed).integers(-peak, peak, n_samples).astype(np.int16)


class Injector(trio.abc.Instrument):
    """Counts steps of tasks from `arm` on and calls `inject` before step `at`."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.steps = 0
        self.armed = False
        self.injected = False
        self.inject: Callable[[], None] = lambda: None

    def arm(self, inject: Callable[[], None]) -> None:
        """Count from here."""
        self.inject = inject
        self.armed = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self.armed:
            return
        self.steps += 1
        if self.steps == self.at:
            self.injected = True
            self.inject()


def spread(n_steps: int, n: int, salt: str) -> list[int]:
    """Return `n` of the steps 1 to `n_steps`: one anywhere in each of as many equal parts."""
    chance = random.Random(salt)
    edges = [1 + n_steps * part // n for part in range(n + 1)]
    return [chance.randrange(begin, max(end, begin + 1)) for begin, end in pairwise(edges)]


def assert_driver_is_empty(driver: TasksDriver) -> None:
    """Fail when a call, line, link or descriptor is still in the driver's hands, or a slot has gone astray."""
    assert driver.members() == 0
    assert driver.watched() == 0
    assert not driver.has_work()
    probes: list[Any] = [SimpleNamespace(slot=-1) for _ in range(3)]
    for probe in probes:
        probe.slot = driver.take_slot(probe)
    assert [probe.slot for probe in probes] == [0, 1, 2], "slots were lost, or given back twice"
    for probe in probes:
        driver.remove(probe)


def assert_pool_is_whole(engine: Engine) -> None:
    """Fail when a block is in use or promised."""
    pool = engine.pool.statistics()
    assert (pool.n_free, pool.n_reserved) == (pool.n_blocks, 0)


def flat(error: BaseException) -> list[BaseException]:
    """Return the leaves of an exception, itself when it is no group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in flat(inner)]
    return [error]
