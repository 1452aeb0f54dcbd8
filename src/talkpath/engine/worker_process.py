"""One worker process as the front sees it: started, heard, believed or not, ended, reaped. And the calls in its books.

The problem: whatever the process does (dies, hangs, stops, says nonsense, says nothing, stays when told to go), the
front must go on, and whoever waits for one of its calls must get an answer. The choice: one task, `live`, from the
start of the process until it has been reaped; every wait in it has a deadline; when it ends, for whichever reason, the
process is killed if it is still there and every call in its books is settled::

    STARTING -- Serving                                  -- READY
             -- Refusing, end, garbage, start_s over     -- GONE, with a failure
    READY    -- retire (drain, restart), or Draining     -- DRAINING: takes no more calls
             -- end, garbage, silence for hang_s         -- GONE: its calls are lost
    DRAINING -- end, after the last call                 -- GONE
             -- end of anything else, garbage, silence   -- GONE: calls that are left are lost
             -- deadline and goodbye over                -- GONE: killed, calls that are left are lost

A placed call, in the front's books::

    SENT  -- Taken                       -- TAKEN
          -- Ended, or the worker is GONE -- refused: nothing of it ran, another worker may have it
    TAKEN -- Ready                       -- READY: `place` returns it
          -- Ended with no_capacity      -- refused
          -- Ended otherwise             -- ENDED: `place` raises its reason
    READY -- Ended                       -- ENDED: `wait_ended` returns its record
    TAKEN, READY -- the worker is GONE   -- ENDED, worker_lost
"""

from __future__ import annotations

import enum
import errno
import logging
import os
import site
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

import talkpath
from talkpath.engine.placement import Load
from talkpath.errors import ConfigError, RemoteWireError
from talkpath.records import EndReason
from talkpath.transport.control import ControlLink, Received
from talkpath.wire.control import (
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

log = logging.getLogger("talkpath.engine.worker_process")

LAST_S = 6.0
"""Beyond the deadline and the goodbye of a drain: the worker's own last words, bounded there as well."""
REAP_S = 5.0
"""A killed process is gone within it, or the system is beyond our help."""
_SILENCE_MARGIN_S = 1.0
"""The worker's own watchdog comes first: it says where the worker hung."""


class WorkerState(enum.StrEnum):
    """See the module."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """One placed call, after its end."""

    worker: int
    reason: EndReason
    cause: str
    """The type of the error behind the reason, when there was one."""
    duration_ms: int
    """Of the worker's function; 0 when the worker was lost with it."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Of the record that the worker's function returned (`CallStatistics`' names), or what it returned."""


class PlacedCall:
    """A call that a worker carries, in the program that placed it; made by `Workers.place`."""

    def __init__(self, number: int, worker: WorkerProcess) -> None:
        self.number = number
        self.answer: Mapping[str, Any] = {}
        """What the worker's function gave to `Placed.ready`."""
        self.record: PlacedRecord | None = None
        """Once it is over."""
        self.taken = False
        self.is_ready = False
        self.refused = False
        """Nothing of it ran, or its worker had no room: it may be placed elsewhere."""
        self.settled = trio.Event()
        """Ready, refused, or over."""
        self._worker = worker
        self._ended = trio.Event()

    @property
    def worker(self) -> int:
        """The number of the worker that carries it."""
        return self._worker.number

    def hang_up(self, reason: EndReason = EndReason.PLATFORM_HUNG_UP) -> None:
        """Have the worker end the call with `reason`; `wait_ended` tells when it is over. Idempotent."""
        if self.record is None:
            self._worker.tell(HangUp(self.number, reason.value))

    async def wait_ended(self) -> PlacedRecord:
        """Wait until the call is over, or its worker lost; return its record. Cancellation changes nothing."""
        await self._ended.wait()
        assert self.record is not None
        return self.record

    # For the worker's books --------------------------------------------------------------------------------------

    def become_ready(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        self.is_ready = True
        self.settled.set()

    def end(self, record: PlacedRecord, *, refused: bool = False) -> None:
        self.record = record
        self.refused = refused
        self.settled.set()
        self._ended.set()


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker has to itself; its replacement inherits the core, and takes ports that nobody has."""

    index: int
    core: int
    """-1: any."""


class WorkerProcess:
    """See the module; made by `Workers`."""

    def __init__(self, seat: Seat, ports: tuple[int, int] | None, hello: Hello, failures: int, restarts: int) -> None:
        self.seat = seat
        self.ports = ports
        self.failures = failures
        """How many workers of this seat were lost in a row before it."""
        self.restarts = restarts
        """How many had this seat before it."""
        self.state = WorkerState.STARTING
        self.failure = ""
        """Why it is gone, when it should not be."""
        self.retiring = False
        """It was told to go, and is not to be replaced for going."""
        self.candidate = False
        """It is to take over the seat once it serves; until then it is nobody's, and is not replaced."""
        self.settled = trio.Event()
        """READY for the first time, or GONE."""
        self.leaving = trio.Event()
        """Takes no more calls, for whichever reason."""
        self.gone = trio.Event()
        self.ready_since_s: float | None = None
        self.calls: dict[int, PlacedCall] = {}
        self.calls_placed = 0
        self.calls_lost = 0
        self.report = Report(0, 0.0, {})
        self.pid = 0
        self._hello = hello
        self._link: ControlLink | None = None
        self._scope = trio.CancelScope()

    @property
    def number(self) -> int:
        return self._hello.worker

    def load(self) -> Load:
        """Return what a placement compares."""
        return Load(len(self.calls), max(0.0, self.report.busy), max(0, self.report.calls))

    def tell(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        """Queue a message. -> whether it was; a link that cannot take it ends the worker by itself"""
        try:
            if self._link is None:
                return False
            self._link.put(message, sockets)
        except OSError as exc:
            # Where it is gone there may still be something to read, and then the end.
            if exc.errno == errno.ENOBUFS:
                self._lose("it does not read what it is told")
            return False
        return True

    def place(self, number: int, parameters: dict[str, Any], sockets: Sequence[socket.socket]) -> PlacedCall | None:
        """Send a call; None when the worker cannot even be told. Raises ConfigError: the parameters cannot travel."""
        call = PlacedCall(number, self)
        if not self.tell(Place(number, parameters, len(sockets)), sockets):
            return None
        self.calls[number] = call
        self.calls_placed += 1
        return call

    def retire(self, deadline_s: float, reason: EndReason) -> None:
        """Have it take no more calls, end what is live after `deadline_s`, and go. May be said again, for sooner."""
        self.retiring = True
        self.leaving.set()
        if self.state is WorkerState.STARTING:
            self._scope.cancel()
            return
        if self.state is WorkerState.GONE:
            return
        self._drain_within(deadline_s)
        self.tell(Drain(deadline_s, reason.value))

    def _drain_within(self, deadline_s: float) -> None:
        self.state = WorkerState.DRAINING
        self.leaving.set()
        within_s = deadline_s + self._hello.goodbye_s + LAST_S
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + within_s)

    def _lose(self, why: str) -> None:
        self.failure = self.failure or why
        self._scope.cancel()

    # Its life ----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Start the process and stay with it until it has been reaped. Raises nothing but cancellation.

        Cancellation: it is killed and reaped all the same.
        """
        process: trio.Process | None = None
        orderly = False
        try:
            with self._scope:
                process = await self._start()
                async with trio.open_nursery() as nursery:
                    assert self._link is not None
                    nursery.start_soon(self._link.run_sender)
                    nursery.start_soon(self._watch, process)
                    await self._read()
                    orderly = not self.failure
                    nursery.cancel_scope.cancel()
            if self._scope.cancelled_caught and not self.failure and self.state is WorkerState.DRAINING:
                self.failure = "it did not go in time"
        except (OSError, ConfigError) as exc:
            self.failure = self.failure or f"{type(exc).__name__}: {exc}"
        except Exception as exc:
            log.error("worker %d: %s", self.number, type(exc).__name__, exc_info=exc)
            self.failure = self.failure or type(exc).__name__
        finally:
            status: int | None = None
            with trio.CancelScope(shield=True):
                status = await self._reap(process, orderly)
            self._finish(status)

    async def _start(self) -> trio.Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # -P: what lies in the current directory is not the worker's; the front's own path is in the hello.
            command = [sys.executable, "-P", "-m", "talkpath.engine.worker", str(theirs.fileno())]
            self._link = ControlLink(ours, takes_sockets=False)
            self._link.put(self._hello)
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                # Ctrl-C in a terminal is the front's business: it tells its workers.
                process_group=0,
            )
        self.pid = process.pid
        return process

    async def _read(self) -> None:
        """Hear the worker until its end; what is wrong with it is its `failure`."""
        try:
            await self._hear_all()
        except RemoteWireError as exc:
            self.failure = self.failure or str(exc)

    async def _hear_all(self) -> None:
        assert self._link is not None
        silence_s = self._hello.hang_s + 2 * self._hello.report_s + _SILENCE_MARGIN_S
        patience_s = self._hello.start_s + _SILENCE_MARGIN_S
        while True:
            received: Received | None = None
            with trio.move_on_after(patience_s) as patience:
                received = await self._link.receive()
            if patience.cancelled_caught:
                self.failure = self.failure or f"it said nothing for {patience_s:g} s"
                return
            if received is None:
                if not self.retiring and self.state is not WorkerState.DRAINING:
                    self.failure = self.failure or "it ended"
                return
            self._hear(received.message)
            patience_s = silence_s

    async def _watch(self, process: trio.Process) -> None:
        """The end of the link comes with the process's, unless a child of its own holds on to a copy."""
        await process.wait()
        await trio.sleep(1.0)
        self._lose("it ended")

    async def _reap(self, process: trio.Process | None, orderly: bool) -> int | None:
        if self._link is not None:
            self._link.close()
        if process is None:
            return None
        if not orderly:
            process.kill()
        with trio.move_on_after(REAP_S):
            return await process.wait()
        process.kill()
        with trio.move_on_after(REAP_S):
            return await process.wait()
        log.error("worker %d (pid %d) was killed and is still there", self.number, self.pid)
        return None

    def _finish(self, status: int | None) -> None:
        if self.failure and status is not None and status != 0:
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            self.failure += f" ({how})"
        was, self.state = self.state, WorkerState.GONE
        self.calls_lost = sum(call.taken for call in self.calls.values())
        if self.failure and was is not WorkerState.STARTING:
            what = f"worker {self.number} (pid {self.pid})"
            log.error("%s is lost with %d calls: %s", what, self.calls_lost, self.failure)
        for call in self.calls.values():
            call.end(PlacedRecord(self.number, EndReason.WORKER_LOST, "", 0), refused=not call.taken)
        self.calls.clear()
        self.settled.set()
        self.leaving.set()
        self.gone.set()

    # What it says ------------------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        match message:
            case Report():
                self.report = message
            case Taken():
                self._call(message.number).taken = True
            case Ready():
                self._call(message.number).become_ready(message.answer)
            case Ended():
                self._hear_ended(message)
            case Serving() if self.ready_since_s is None:
                self.ready_since_s = trio.current_time()
                if self.state is WorkerState.STARTING:
                    self.state = WorkerState.READY
                    self.settled.set()
            case Refusing() if self.state is WorkerState.STARTING:
                self.failure = message.text
            case Draining():
                # Its own signal: it goes by itself, and the front finds another.
                self._drain_within(self._hello.drain_s)
            case _:
                raise RemoteWireError("a worker does not say this now", wire="control", event=type(message).__name__)

    def _call(self, number: int) -> PlacedCall:
        call = self.calls.get(number)
        if call is None:
            raise RemoteWireError("the call is not this worker's", wire="control")
        return call

    def _hear_ended(self, message: Ended) -> None:
        call = self._call(message.number)
        try:
            reason, cause = EndReason(message.reason), message.cause
        except ValueError:
            # Of a worker that was updated while we ran.
            reason, cause = EndReason.INTERNAL_ERROR, message.reason
        del self.calls[message.number]
        refused = not call.taken or (not call.is_ready and reason is EndReason.NO_CAPACITY)
        call.end(PlacedRecord(self.number, reason, cause, message.duration_ms, message.statistics), refused=refused)


def _environment() -> Mapping[str, str] | None:
    """Return the environment in which a worker finds this talkpath: our own, unless somebody changed ``sys.path``."""
    home = str(Path(talkpath.__file__).resolve().parent.parent)
    known = [*site.getsitepackages(), site.getusersitepackages()]
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if home in (str(Path(path).resolve()) for path in (*known, *paths)):
        return None
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *paths])}


def check_started(worker: WorkerProcess) -> None:
    """Raise ConfigError when a worker did not get ready."""
    if worker.state is WorkerState.GONE:
        raise ConfigError(f"a worker could not begin: {worker.failure or 'it was ended'}")
