"""The worker process: ``python -m talkpath.engine.worker FD``, started by the front and by nobody else.

The problem: a process that carries calls must go when it should (told to, its front dead, hung) and must not go while
it need not (a call of its fails). The choice: one receive task for the front's words, one report task that is the
heartbeat, one task per placed call, and a main task that waits for the drain::

    SERVING -- Drain from the front                         -- DRAINING, until its deadline
            -- SIGTERM, SIGINT (Draining is said first)     -- DRAINING, until drain_s; a second signal: now
            -- end of the control link: the front is gone   -- DRAINING, until drain_s
    DRAINING -- no call left                                -- gone, exit status 0
              -- deadline                                    -- calls ended; cancelled after goodbye_s; gone
    any      -- the loop does not turn for hang_s           -- tracebacks of all threads on stderr, exit status 1

The last is the C library's watchdog thread of `faulthandler`, which needs neither the GIL nor our loop; every report
puts it off. So not even a worker that hangs while its front is dead stays behind.
"""

from __future__ import annotations

import dataclasses
import errno
import faulthandler
import functools
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import trio

from talkpath.engine.placed import Placed, Ports, Service
from talkpath.errors import CallEnded, ConfigError, RemoteWireError
from talkpath.records import EndReason
from talkpath.transport.control import ControlLink, Received
from talkpath.wire.control import (
    CONTROL_VERSION,
    Drain,
    Draining,
    Ended,
    HangUp,
    Hello,
    Message,
    Place,
    Ready,
    Refusing,
    Report,
    Serving,
    Taken,
)

log = logging.getLogger("talkpath.engine.worker")

HELLO_S = 30.0
"""For the front's first word."""
LAST_S = 2.0
"""For the service to close, and again as much for the last words to the front; then the process is ended as if it hung.
"""
_FULL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRINUSE})
"""A call that fails with one of these before it is ready found no room here: another worker may have some."""


class Worker:
    """One process's calls; see the module."""

    def __init__(self, link: ControlLink, hello: Hello, service: Service) -> None:
        self._link = link
        self._hello = hello
        self._service = service
        self._live: dict[int, Placed] = {}
        self._tasks: trio.Nursery | None = None
        self._draining = trio.Event()
        self._reason = EndReason.DRAINED
        self._patience = trio.CancelScope()
        """Of the drain; its deadline may come nearer while it runs."""
        self._empty = trio.Event()
        self._going = False

    async def run(self) -> None:
        """Serve until drained."""
        async with trio.open_nursery() as background:
            await background.start(self._obey_signals)
            background.start_soon(self._report)
            with trio.CancelScope() as last:
                async with self._service, trio.open_nursery() as self._tasks:
                    background.start_soon(self._receive)
                    self._tell(Serving())
                    await self._draining.wait()
                    with self._patience:
                        await self._wait_empty()
                    await self._end_all()
                    self._tasks.cancel_scope.cancel()
                    # The service's own goodbye (status callbacks) has what is left of the drain, and LAST_S. What
                    # has not gone then is ended by the watchdog, which is not put off any more.
                    self._going = True
                    left_s = max(0.0, self._patience.deadline - trio.current_time()) + LAST_S
                    last.deadline = trio.current_time() + left_s
                    faulthandler.dump_traceback_later(left_s + LAST_S, exit=True)
            background.cancel_scope.cancel()

    async def _end_all(self) -> None:
        for placed in list(self._live.values()):
            placed.end(self._reason)
        with trio.move_on_after(self._hello.goodbye_s):
            await self._wait_empty()

    def drain(self, deadline_s: float, reason: EndReason) -> None:
        """Take no more calls; end what is live after `deadline_s`, or earlier when that was said before."""
        self._reason = reason
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + deadline_s)
        self._draining.set()

    async def _wait_empty(self) -> None:
        while self._live:
            self._empty = trio.Event()
            await self._empty.wait()

    def _tell(self, message: Message) -> None:
        try:
            self._link.put(message)
        except OSError:
            self.drain(self._hello.drain_s, EndReason.DRAINED)

    # The background tasks ----------------------------------------------------------------------------------------

    async def _obey_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            deadline_s = self._hello.drain_s
            async for _ in signals:
                self._tell(Draining())
                self.drain(deadline_s, EndReason.DRAINED)
                deadline_s = 0.0

    async def _report(self) -> None:
        cpu_s, at_s = time.process_time(), time.monotonic()
        while True:
            if not self._going:
                faulthandler.dump_traceback_later(self._hello.hang_s, exit=True)
            await trio.sleep(self._hello.report_s)
            cpu_before_s, before_s = cpu_s, at_s
            cpu_s, at_s = time.process_time(), time.monotonic()
            busy = (cpu_s - cpu_before_s) / max(at_s - before_s, 1e-9)
            self._tell(Report(len(self._live), busy, dict(self._service.statistics())))

    async def _receive(self) -> None:
        """Obey the front until it is gone."""
        try:
            while (received := await self._link.receive()) is not None:
                self._obey(received.message, received.sockets)
        except RemoteWireError as exc:
            log.error("the front cannot be understood: %s", exc)
        if not self._draining.is_set():
            log.warning("the front is gone; ending within %g s", self._hello.drain_s)
        self.drain(self._hello.drain_s, EndReason.DRAINED)

    def _obey(self, message: Message, sockets: tuple[socket.socket, ...] | None) -> None:
        match message:
            case Place():
                self._take(message, sockets)
            case HangUp():
                placed = self._live.get(message.number)
                if placed is not None:
                    placed.end(_reason_named(message.reason))
            case Drain():
                self.drain(message.deadline_s, _reason_named(message.reason))
            case _:
                raise RemoteWireError("the front does not say this", wire="control", event=type(message).__name__)

    # Calls -------------------------------------------------------------------------------------------------------

    def _take(self, message: Place, sockets: tuple[socket.socket, ...] | None) -> None:
        number = message.number
        if self._draining.is_set() or sockets is None:
            reason = EndReason.DRAINED if sockets is not None else EndReason.NO_CAPACITY
            for one in sockets or ():
                one.close()
            self._tell(Ended(number, reason.value, "", 0, {}))
            return
        placed = Placed(number, message.parameters, sockets, self._tell_ready, self._hello.goodbye_s)
        self._live[number] = placed
        self._tell(Taken(number))
        assert self._tasks is not None
        self._tasks.start_soon(self._run, placed, name=f"placed call {number}")

    def _tell_ready(self, number: int, answer: dict[str, Any]) -> None:
        try:
            self._link.put(Ready(number, answer))
        except OSError:
            self.drain(self._hello.drain_s, EndReason.DRAINED)

    async def _run(self, placed: Placed) -> None:
        """Run the user's function for one call; its failure is the call's and nobody else's."""
        began_s = trio.current_time()
        result: object = None
        reason: EndReason | None = None
        cause = ""
        try:
            with placed.scope:
                result = await self._service.run(placed)
        except Exception as exc:
            reason, cause = _why(exc, placed.is_ready)
            if reason is EndReason.APPLICATION_FAILED:
                log.error("placed call %d raised %s", placed.number, type(exc).__name__, exc_info=exc)
        except BaseExceptionGroup as group:
            # Cancelled from outside, and something failed as well: the cancellation goes on alone.
            failures, cancelled = group.split(Exception)
            if failures is not None and cancelled is not None:
                log.error("placed call %d failed as it was cancelled", placed.number, exc_info=failures)
                raise cancelled from None
            raise
        finally:
            for one in placed.sockets:
                one.close()
            if reason is None:
                reason = placed.end_reason or (EndReason.CANCELLED if self._going else EndReason.BLOCK_LEFT)
            # The function's last word counts more than what it was told.
            reason, cause, statistics = _told(result, reason, cause)
            duration_ms = round((trio.current_time() - began_s) * 1000)
            self._tell_ended(Ended(placed.number, reason.value, cause, duration_ms, statistics))
            del self._live[placed.number]
            if not self._live:
                self._empty.set()

    def _tell_ended(self, ended: Ended) -> None:
        try:
            self._tell(ended)
        except ConfigError as exc:
            log.warning("the record of placed call %d stays here: %s", ended.number, exc)
            self._tell(dataclasses.replace(ended, statistics={}))


def _why(exc: BaseException, was_ready: bool) -> tuple[EndReason, str]:
    """Say in a record's words why a call's function raised."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, CallEnded):
        return exc.reason, type(exc.cause).__name__ if exc.cause is not None else ""
    if not was_ready and isinstance(exc, OSError) and exc.errno in _FULL_ERRNOS:
        return EndReason.NO_CAPACITY, errno.errorcode.get(exc.errno or 0, "OSError")
    return EndReason.APPLICATION_FAILED, type(exc).__name__


def _told(result: object, reason: EndReason, cause: str) -> tuple[EndReason, str, dict[str, Any]]:
    """Read what a call's function returned: a record (of a call, of a line), or plain values."""
    if isinstance(result, Mapping):
        return reason, cause, dict(result)
    if isinstance(said := getattr(result, "reason", None), EndReason):
        reason, cause = said, str(getattr(result, "cause", ""))
    statistics = getattr(result, "statistics", None)
    if dataclasses.is_dataclass(statistics) and not isinstance(statistics, type):
        return reason, cause, dataclasses.asdict(statistics)
    return reason, cause, {}


def _reason_named(name: str) -> EndReason:
    try:
        return EndReason(name)
    except ValueError:
        return EndReason.PLATFORM_HUNG_UP


def _make_service(hello: Hello) -> Service:
    """Become the process that the front wants, and import what it wants run."""
    if hello.version != CONTROL_VERSION:
        raise ConfigError(
            f"this talkpath speaks version {CONTROL_VERSION} to its front, which speaks {hello.version}: the program "
            "was updated while it ran; start it anew"
        )
    sys.path[:] = [str(one) for one in hello.path]
    importlib.invalidate_caches()
    if hello.core >= 0 and sys.platform == "linux":
        try:
            os.sched_setaffinity(0, {hello.core})
        except OSError as exc:
            log.warning("worker %d does not stay on core %d: %s", hello.worker, hello.core, exc.strerror)
    if hello.log_level:
        prefix = f"%(asctime)s worker {hello.worker} (pid {os.getpid()}) "
        logging.basicConfig(level=hello.log_level, format=prefix + "%(levelname)s %(name)s: %(message)s")
    module, _, name = hello.service.partition(":")
    make: Callable[[Mapping[str, Any], Ports | None], Service] = getattr(importlib.import_module(module), name)
    return make(hello.options, (hello.first_port, hello.last_port) if hello.first_port else None)


async def work(sock: socket.socket) -> int:
    """Live a worker's life on a control socket. -> exit status"""
    link = ControlLink(sock, takes_sockets=True)
    status = 1
    received: Received | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run_sender)
            with trio.move_on_after(HELLO_S):
                received = await link.receive()
            if received is not None and isinstance(received.message, Hello):
                status = await _serve(link, received.message)
            with trio.move_on_after(LAST_S):
                await link.flush()
            nursery.cancel_scope.cancel()
    finally:
        link.close()
    return status


async def _serve(link: ControlLink, hello: Hello) -> int:
    """Serve, or say why not. -> exit status"""
    faulthandler.dump_traceback_later(hello.start_s, exit=True)
    try:
        service = _make_service(hello)
    except ConfigError as exc:
        link.put(Refusing(str(exc)[:1000]))
        return 2
    except Exception as exc:
        log.error("the worker cannot begin", exc_info=exc)
        link.put(Refusing(f"{type(exc).__name__}: {exc}"[:1000]))
        return 1
    await Worker(link, hello, service).run()
    return 0


def main(words: list[str]) -> int:
    """Run a worker on the control socket whose descriptor is the only argument."""
    if len(words) != 1 or not words[0].isdigit():
        print("a worker is started by talkpath.open_workers, not by hand", file=sys.stderr)
        return 2
    with socket.socket(fileno=int(words[0])) as sock:
        return trio.run(functools.partial(work, sock))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
