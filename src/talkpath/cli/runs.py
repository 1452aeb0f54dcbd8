"""Running Trio from a command: one failure comes out bare, however many nurseries it passed; a signal is a request."""

from __future__ import annotations

import signal
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


def run_bare(function: Callable[[Unpack[Arguments]], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run an async function to its end.

    Raises:
        Whatever it raised; of a group, KeyboardInterrupt if it is among them, else its first error, so that a command
        can say it in one line.
    """
    try:
        return trio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group.subgroup(KeyboardInterrupt) or group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def on_interrupt(stop: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
    """Call `stop` at each SIGINT (Ctrl-C) and SIGTERM (`timeout`, a supervisor), until cancelled.

    Elsewhere than in the main thread signals cannot be taken; there it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        task_status.started()
        return
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            stop()
