"""Running Trio from a command: one failure comes out bare, however many nurseries it passed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


def run_bare(function: Callable[[Unpack[Arguments]], Awaitable[T]], *arguments: *Arguments) -> T:
    """Run an async function to its end.

    Raises:
        Whatever it raised; of a group, its first error, so that a command can say it in one line.
    """
    try:
        return trio.run(function, *arguments)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None
