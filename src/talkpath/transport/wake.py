"""Waiting that costs little while nobody waits, and little more while somebody does.

A call has many moments that hardly anybody ever asks for, and three tasks that are parked nearly all of their lives.
Trio's own `Event` and `ParkingLot` make their tables at birth, half a kilobyte each; these two make nothing. Their
`wait` hands out Trio's own coroutine, so that a task that waits for hours holds no frame of ours.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import trio


class Bell:
    """Wakes the one task that waits. A ring for which nobody waits is forgotten: look first, then wait."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wait(self) -> Coroutine[Any, Any, Any]:
        """Wait for the next ring; to be awaited where it is called. Cancellation: nobody waits."""
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this bell")
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._give_up)  # noqa: ASYNC105 - the caller awaits it

    def _give_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def ring(self) -> trio.lowlevel.Task | None:
        """Wake whoever waits. -> who it was"""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)
        return task


class Moment:
    """Something that comes once; any number of tasks may wait for it."""

    __slots__ = ("_come", "_waiting")

    def __init__(self) -> None:
        self._come = False
        self._waiting: list[trio.lowlevel.Task] | None = None

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._come

    def set(self) -> None:
        """Let it have come, for good. Idempotent."""
        self._come = True
        waiting, self._waiting = self._waiting, None
        for task in waiting or ():
            trio.lowlevel.reschedule(task)

    def wait(self) -> Coroutine[Any, Any, Any]:
        """Wait until it has come, and let others run in any case; to be awaited where it is called.

        Cancellation changes nothing.
        """
        if self._come:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105
        if self._waiting is None:
            self._waiting = []
        waiting, task = self._waiting, trio.lowlevel.current_task()
        waiting.append(task)

        def give_up(_: object) -> trio.lowlevel.Abort:
            waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(give_up)  # noqa: ASYNC105
