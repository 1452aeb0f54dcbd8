"""How tasks ask for something that only the driver's step may do: a bounded queue of commands, applied in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

import trio

from talkpath.errors import CallEnded, PlayoutFull

if TYPE_CHECKING:
    from talkpath.records import EndReason
    from talkpath.transport.driver_tasks import Member, TasksDriver

T = TypeVar("T")

MAX_COMMANDS = 4096
"""Commands waiting for one member's next step; far more than any program gives within 20 ms."""


class Commands:
    """The commands of one member of the driver.

    Once closed, with the reason for the end, everything that waits and everything new raises `CallEnded`.
    """

    __slots__ = (
        "_ahead",
        "_driver",
        "_end",
        "_member",
        "_performing",
        "_running",
        "_waiting",
    )

    def __init__(self, driver: TasksDriver, member: Member, ahead: Callable[[], None] | None = None) -> None:
        self._driver = driver
        self._ahead = ahead
        """Of who does things to the member directly while nothing waits, and is to look again."""
        self._member: Member | None = member
        self._waiting: list[Callable[[int], None]] = []
        self._running: list[Callable[[int], None]] = []
        """Those of the run under way, the next one last."""
        self._performing: dict[trio.Event, None] = {}
        self._end: tuple[EndReason, BaseException | None] | None = None

    def paused(self) -> AbstractContextManager[None]:
        """Let nothing native happen between the calls of the block; only a media thread could."""
        return self._driver.paused()

    def check_room(self, n: int = 1) -> None:
        """Raise what `put` would raise at the last of `n` commands: for whoever must change something before it."""
        if self._end is not None:
            raise CallEnded(*self._end)
        if len(self._waiting) + n > MAX_COMMANDS:
            raise PlayoutFull(f"{MAX_COMMANDS} operations wait for the next tick; await something between them")

    def is_idle(self) -> bool:
        """Whether nothing waits: what is done to the member now is in order."""
        return not (self._waiting or self._running)

    def forestall(self) -> None:
        """Say that something is put ahead of what is done to the member directly from now on."""
        if self._ahead is not None:
            self._ahead()

    def put(self, what: Callable[[int], None]) -> None:
        """Have `what(now_ns)` done in the next step.

        Raises:
            CallEnded: it is over. PlayoutFull: 4,096 wait already.
        """
        self.check_room()
        self._waiting.append(what)
        self.forestall()
        assert self._member is not None
        self._driver.command(self._member)

    async def perform(self, what: Callable[[int], T]) -> T:
        """Have `what(now_ns)` done in the next step and return its result.

        Raises:
            CallEnded: it was over first.

        Cancellation: it may still be done.
        """
        done = trio.Event()
        result: list[T] = []

        def run(now_ns: int) -> None:
            result.append(what(now_ns))
            done.set()

        self.put(run)
        self._performing[done] = None
        try:
            await done.wait()
        finally:
            self._performing.pop(done, None)
        if not result:
            assert self._end is not None
            raise CallEnded(*self._end)
        return result[0]

    def run(self, now_ns: int) -> None:
        """Apply what waits; the driver's step alone calls it. Within a command: apply what comes after that one."""
        while (self._running or self._waiting) and self._end is None:
            if not self._running:
                self._running, self._waiting = self._waiting[::-1], []
            self._running.pop()(now_ns)

    def close(self, reason: EndReason, cause: BaseException | None) -> None:
        """Apply nothing more; wake whoever waits, and let go of the member."""
        self._end = (reason, cause)
        self._member = self._ahead = None
        self._waiting.clear()
        self._running.clear()
        for done in self._performing:
            done.set()
