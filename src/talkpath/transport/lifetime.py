"""How a call, and a line, lives and ends: one nursery opened by hand, one supervising child, one door.

`enter` opens a nursery and starts the supervising child in it; the child sets up, opens the nursery of the background
tasks and then shields itself. From there outer cancellation reaches the user's block first; leaving the block calls
the owner's `end`, and only `end` cancels the background tasks. `leave` hands the nursery None instead of the user's
exception, so that exception leaves bare. Where many blocks are left at once, `leave` waits for its turn (`Pace`). The
owner's `end` must be synchronous and idempotent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import trio

from talkpath.errors import CallEnded
from talkpath.records import EndReason
from talkpath.transport.wake import Bell, Moment

if TYPE_CHECKING:
    from talkpath.transport.clock import Clock

log = logging.getLogger("talkpath.transport.lifetime")

Job = Callable[[], Awaitable[None]]


class Living(Protocol):
    """Who lives by a `Lifetime`."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    clock: Clock
    end_reason: EndReason | None
    cause: BaseException | None

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None: ...

    def set_up(self) -> None:
        """Take resources and begin; what it raises is what entering raises. Whatever it took, `end` gives back."""
        ...

    def jobs(self) -> Sequence[Job]:
        """The background tasks, cancelled together."""
        ...

    async def say_goodbye(self) -> None:
        """What may wait once everything is detached; it shields and bounds itself."""
        ...

    def finish(self) -> None:
        """Everything is over: write the record, wake whoever waits for it."""
        ...


class Lifetime:
    """See the module. It does not hold its owner: what is over shall die by reference counting."""

    __slots__ = (
        "_entered",
        "_manager",
        "_scope",
        "nursery",
    )

    def __init__(self) -> None:
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._scope: trio.CancelScope
        """Of the supervisor's nursery, which is the one that `leave` waits for."""
        self.nursery: trio.Nursery | None = None
        """Of the background tasks, while they run."""
        self._entered = False

    @property
    def used(self) -> bool:
        return self._entered

    async def enter(self, owner: Living) -> None:
        """Set up; return when the background tasks run. Cancellation, and failure: nothing remains."""
        self._entered = True
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        self._scope = nursery.cancel_scope
        begun, failures = Moment(), list[Exception]()
        nursery.start_soon(self._run, owner, begun, failures)
        try:
            await begun.wait()
            if failures:
                raise failures[0]
        except BaseException:
            owner.end(EndReason.CANCELLED)
            self._scope.shield = True
            await self._manager.__aexit__(None, None, None)
            raise

    async def leave(self, owner: Living, exc: BaseException | None) -> None:
        """End, when it is its turn, and wait until nothing remains."""
        manager, self._manager = self._manager, None
        assert manager is not None
        if owner.end_reason is None:
            await owner.clock.pace.turn()
        if exc is None:
            owner.end(EndReason.BLOCK_LEFT)
        elif isinstance(exc, Exception):
            owner.end(EndReason.BLOCK_FAILED, exc)
        else:
            owner.end(EndReason.CANCELLED)
            # It is on its way already: the wait need not be told once more, by another exception.
            self._scope.shield = True
        await manager.__aexit__(None, None, None)

    def cancel(self) -> None:
        """Cancel the background tasks; for the owner's `end` alone."""
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    def dismiss(self, *bells: Bell) -> None:
        """As `cancel`, of an owner each of whose tasks waits at one of `bells` and returns when it is rung after the
        end; where one is elsewhere, all are cancelled. The work is a third: no exceptions, and no groups of them.
        """
        told = [bell.ring() for bell in bells]
        if any(task is None or task.parent_nursery is not self.nursery for task in told):
            self.cancel()

    async def _run(self, owner: Living, begun: Moment, failures: list[Exception]) -> None:
        """Supervise. `nursery.start` would make a nursery and a scope more, for a wait that nobody else needs."""
        started = False
        try:
            # From here to `begun` nothing awaits. A cancellation, or an end, that came first is noticed now.
            if trio.current_effective_deadline() == -math.inf:
                owner.end(EndReason.CANCELLED)
            if owner.end_reason is not None:
                raise CallEnded(owner.end_reason, owner.cause)
            owner.set_up()
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                for job in owner.jobs():
                    nursery.start_soon(self._guard, owner, job)
                nursery.cancel_scope.shield = started = True
                if owner.end_reason is not None:
                    nursery.cancel_scope.cancel()
                begun.set()
        except Exception as exc:
            if started:
                owner.end(EndReason.INTERNAL_ERROR, exc)
            else:
                failures.append(exc)
        finally:
            owner.end(EndReason.CANCELLED)
            self.nursery = None
            try:
                if started:
                    await owner.say_goodbye()
            except Exception as exc:
                log.error("%s: %s in its goodbye", owner.name, type(exc).__name__, exc_info=exc)
            finally:
                owner.finish()
                begun.set()

    async def _guard(self, owner: Living, job: Job) -> None:
        """Run one task; its failure ends the owner at once, before its siblings have said goodbye."""
        try:
            await job()
        except Exception as exc:
            if isinstance(exc, CallEnded) and owner.end_reason is not None:
                return  # An operation of its own was cut short by the end that is under way.
            log.error("%s: %s", owner.name, type(exc).__name__, exc_info=exc)
            owner.end(EndReason.INTERNAL_ERROR, exc)
