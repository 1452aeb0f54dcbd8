"""Nothing outlives its call: counting what is left.

What is counted: Trio tasks, file descriptors (sockets and with them ports), calls and lines that the run's clock still
moves and what it still polls, blocks of the pools of its engines and servers, and whatever has been registered with
`register_resource_counter`. A resource's owner does not know this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from talkpath.transport.clock import current_clock
from talkpath.transport.driver_tasks import TasksDriver

_COUNTERS: dict[str, Callable[[], int]] = {}


def register_resource_counter(name: str, count: Callable[[], int]) -> Callable[[], None]:
    """Count one more kind of resource from now on.

    Args:
        name: What it is, in the plural, for the message: ``"pool blocks"``.
        count: Returns how many are in use now; called from any task, must not block.

    Returns:
        A function that takes the counter away again.
    """
    _COUNTERS[name] = count

    def unregister() -> None:
        if _COUNTERS.get(name) is count:
            del _COUNTERS[name]

    return unregister


@dataclass(frozen=True, slots=True)
class ResourceSnapshot:
    """What is in use at one moment."""

    tasks: frozenset[trio.lowlevel.Task]
    """Every task of the present Trio run; empty outside one."""
    descriptors: Mapping[int, str]
    """Open file descriptors, and what each is."""
    counts: Mapping[str, int]
    """What the clock moves, and the registered counters."""

    @classmethod
    def take(cls) -> ResourceSnapshot:
        """Look around."""
        counts = _clock_counts() | {name: count() for name, count in _COUNTERS.items()}
        return cls(_tasks(), _descriptors(), counts)

    def left_since(self, before: ResourceSnapshot) -> list[str]:
        """Say, one line each, what is in use now and was not at `before`."""
        left = [f"task {task.name}" for task in self.tasks - before.tasks]
        left += [
            f"file descriptor {number}: {what}"
            for number, what in self.descriptors.items()
            if before.descriptors.get(number) != what
        ]
        for name, count in self.counts.items():
            was = before.counts.get(name, 0)
            if count != was:
                left.append(f"{name}: {count}, were {was}")
        return sorted(left)


def assert_quiescent(since: ResourceSnapshot | None = None) -> None:
    """Fail when something is left over.

    Args:
        since: What may be there. Without it: the calling task must have no child tasks and every counter must be 0;
            descriptors are not looked at, for nobody can say whose they are.

    Raises:
        AssertionError: names everything that is left.
    """
    now = ResourceSnapshot.take()
    if since is not None:
        left = now.left_since(since)
    else:
        left = [f"{name}: {count}" for name, count in now.counts.items() if count]
        if trio.lowlevel.in_trio_run():
            left += [f"task {task.name}" for task in _below(trio.lowlevel.current_task())]
    if left:
        raise AssertionError("left over:\n  " + "\n  ".join(left))


@contextmanager
def quiescence() -> Iterator[ResourceSnapshot]:
    """Check that a block leaves nothing behind.

    Works around a whole ``trio.run`` as well as inside one. A block that raises is not checked: its own error says
    more.
    """
    before = ResourceSnapshot.take()
    yield before
    assert_quiescent(before)


def _clock_counts() -> dict[str, int]:
    clock = current_clock() if trio.lowlevel.in_trio_run() else None
    if clock is None or not isinstance(clock.driver, TasksDriver):
        return {}
    pools = [pool.statistics() for pool in clock.driver.pools]
    return {
        "live calls and lines": clock.driver.members(),
        "polled links": clock.driver.watched(),
        "pool blocks in use": sum(pool.n_blocks - pool.n_free for pool in pools),
        "pool blocks promised": sum(pool.n_reserved for pool in pools),
    }


def _tasks() -> frozenset[trio.lowlevel.Task]:
    if not trio.lowlevel.in_trio_run():
        return frozenset()
    root = trio.lowlevel.current_root_task()
    return frozenset(_below(root)) if root is not None else frozenset()


def _below(top: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    found: list[trio.lowlevel.Task] = []
    waiting = [top]
    while waiting:
        children = [task for nursery in waiting.pop().child_nurseries for task in nursery.child_tasks]
        found += children
        waiting += children
    return found


def _descriptors() -> dict[int, str]:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found = {}
        for name in names:
            try:
                os.fstat(int(name))
            except OSError:
                continue  # the one that listed the directory
            try:
                what = os.readlink(f"{directory}/{name}")
            except OSError:
                what = "open"
            found[int(name)] = what
        return found
    return {}
