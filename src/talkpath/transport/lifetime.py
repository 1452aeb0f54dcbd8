"""How a call, and a line, lives and ends: one nursery opened by hand, one supervising child, one door.

`enter` opens a nursery and starts the supervising child in it; the child sets up, opens the nursery of the background
tasks and then shields itself. From there outer cancellation reaches the user's block first; leaving the block calls
the owner's `end`, and only `end` cancels the background tasks. `leave` hands the nursery None instead of the user's
exception, so that exception leaves bare. The owner's `end` must be synchronous and idempotent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

import trio

from talkpath.records import EndReason

log = logging.getLogger("talkpath.transport.lifetime")

Job = Callable[[], Awaitable[None]]


class Living(Protocol):
    """Who lives by a `Lifetime`."""

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None: ...

    def set_up(self) -> None:
        """Take resources and begin; what it raises is what entering raises. Whatever it took, `end` gives back."""
        ...

    def jobs(self) -> Sequence[Job]:
        """The background tasks, cancelled together."""
        ...

    async def say_goodbye(self) -> None:
        """What may wait once everything is detached; runs shielded and bounds itself."""
        ...

    def finish(self) -> None:
        """Everything is over: write the record, wake whoever waits for it."""
        ...


class Lifetime:
    """See the module."""

    def __init__(self, owner: Living, name: str) -> None:
        self._owner = owner
        self._name = name
        self._scope = trio.CancelScope()
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self.nursery: trio.Nursery | None = None
        """Of the background tasks, while they run."""
        self._entered = False

    @property
    def used(self) -> bool:
        return self._entered

    async def enter(self) -> None:
        """Set up; return when the background tasks run. Cancellation, and failure: nothing remains."""
        self._entered = True
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        try:
            await nursery.start(self._run)
        except BaseException:
            self._owner.end(EndReason.CANCELLED)
            await self._manager.__aexit__(None, None, None)
            raise

    async def leave(self, exc: BaseException | None) -> None:
        """End, and wait until nothing remains."""
        assert self._manager is not None
        self._owner.end(EndReason.BLOCK_FAILED if isinstance(exc, Exception) else EndReason.BLOCK_LEFT, exc)
        await self._manager.__aexit__(None, None, None)

    def cancel(self) -> None:
        """Cancel the background tasks; for the owner's `end` alone."""
        self._scope.cancel()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        owner = self._owner
        started = False
        try:
            scope: AbstractContextManager[object] = self._scope
            with scope:
                owner.set_up()
                async with trio.open_nursery() as nursery:
                    self.nursery = nursery
                    for job in owner.jobs():
                        nursery.start_soon(self._guard, job)
                    self._scope.shield = started = True
                    task_status.started()
        except Exception as exc:
            if not started:
                raise
            owner.end(EndReason.INTERNAL_ERROR, exc)
        finally:
            owner.end(EndReason.CANCELLED)
            self.nursery = None
            if started:
                with trio.CancelScope(shield=True):
                    await owner.say_goodbye()
            owner.finish()

    async def _guard(self, job: Job) -> None:
        """Run one task; its failure ends the owner at once, before its siblings have said goodbye."""
        try:
            await job()
        except Exception as exc:
            log.error("%s: %s", self._name, type(exc).__name__, exc_info=exc)
            self._owner.end(EndReason.INTERNAL_ERROR, exc)
