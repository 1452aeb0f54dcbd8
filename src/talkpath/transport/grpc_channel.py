"""One HTTP/2 connection with gRPC calls on it, on a link: who reads it, who writes it, who is told.

There is one reader for all calls of a connection, whoever is in charge::

    no call of it is carried yet, or none any more    a task: the server's `run`, or whoever waits for a message
    at least one call is carried                      the driver, in its steps; tasks only wait to be told

All that a step writes leaves at its end, in one send. While the link takes nothing, data waits in its own stream, so
that each owner sees what is his.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from talkpath.errors import RemoteWireError
from talkpath.transport.link import NOT_OURS, Link, SocketLink, TlsLink
from talkpath.transport.memory import MemoryLink
from talkpath.wire.grpc import Call, CallReceived, GrpcConnection
from talkpath.wire.http2 import Http2Error

if TYPE_CHECKING:
    from talkpath.transport.driver_tasks import TasksDriver

log = logging.getLogger("talkpath.transport.grpc")

READ_BYTES = 16 * 1024
"""At once, so that nobody's burst of small frames holds up a step."""
READ_ROUNDS = 8
PING_AFTER_NS = 10_000_000_000
VANISHED_AFTER_NS = 30_000_000_000
PINGS_WITHOUT_DATA = 2
PING_AGAIN_NS = 310_000_000_000
"""A server's peer is asked whenever it has been silent for 10 s. A client asks twice, and then every 5 minutes until
the server has sent data: gRPC's servers hang up on clients that ping more (``too_many_pings``)."""


class Carried(Protocol):
    """A call in the driver's hands, as its connection tells it what happens."""

    def deliver(self, now_ns: int) -> None:
        """Messages wait, or the end."""
        ...

    def on_full(self) -> None:
        """The link takes no more."""
        ...

    def on_lost(self, exc: OSError | None) -> None:
        """The connection is broken, or at its end (None)."""
        ...

    def on_protocol_error(self, exc: RemoteWireError) -> None: ...

    def failed(self, exc: Exception) -> None:
        """Something of ours raised."""
        ...


class Channel:
    """One HTTP/2 connection, and who reads it. Synchronous but for `turn`."""

    def __init__(self, link: Link, machine: GrpcConnection) -> None:
        self.link = link
        self.machine = machine
        self.driver: TasksDriver | None = None
        """Who reads, while calls are carried."""
        self.attended = False
        """A task of the server's reads while they are not."""
        self.on_call: Callable[[Call], None] | None = None
        self.calls: set[Call] = set()
        """Those that somebody has in hand, over or not."""
        self.carried: dict[Call, Carried] = {}
        self.broken = False
        self.failure: RemoteWireError | OSError | None = None
        self.pings_sent = 0
        self.round_trip_ms = 0.0
        self.last_received_ns = 0
        self._ping_sent_ns: int | None = None
        self._last_ping_ns = 0
        self._pings_without_data = 0
        self._pending = b""
        self._sent_bytes = 0
        self._sending_soon = False
        self._reading = False
        self._writing = False
        self._watched: tuple[str, int] | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self._waiters = 0
        self._attending = trio.lowlevel.ParkingLot()
        """The server's `run`: of what comes for calls that are carried it needs to know nothing."""
        self._buffer = memoryview(b"")
        self._sealed = isinstance(link, TlsLink)
        """What the link has taken it may have kept: records for a full socket."""
        if isinstance(link, (SocketLink, TlsLink)):
            link.tune_for_media()

    # Reading -----------------------------------------------------------------------------------------------------

    def on_readable(self, now_ns: int) -> None:
        """Read what is there, and tell whom it concerns."""
        if self.driver is not None:
            view = self.driver.scratch_view[:READ_BYTES]
        else:
            view = self._buffer = self._buffer or memoryview(bytearray(READ_BYTES))
        for _ in range(READ_ROUNDS):
            if self.broken:
                return
            try:
                n = self.link.recv_into(view)
            except BlockingIOError:
                return
            except OSError as exc:
                self.break_(exc)
                return
            if n == 0:
                self.break_(None)
                return
            self.last_received_ns = now_ns
            self.take(bytes(view[:n]), now_ns)
            if not self.link.more():
                return
        if self.driver is not None:
            self.driver.later(self._read_on)

    def _read_on(self, now_ns: int) -> None:
        if self.driver is not None:
            self.on_readable(now_ns)

    def take(self, data: bytes, now_ns: int) -> None:
        """Have the machine take what came."""
        machine = self.machine
        drained = machine.draining
        try:
            machine.receive(data, now_ns)
        except Http2Error as exc:
            self._fail(exc)
            return
        except Exception as exc:
            self._stumble(exc)
            return
        if machine.answered is not None:
            machine.answered = None
            if self._ping_sent_ns is not None:
                self.round_trip_ms = (now_ns - self._ping_sent_ns) / 1e6
                self._ping_sent_ns = None
        for event in machine.next_events():
            if isinstance(event, CallReceived):
                if self.on_call is not None:
                    self.on_call(event.call)
                continue
            self._pings_without_data = 0
            carrier = self.carried.get(event.call)
            if carrier is not None:
                carrier.deliver(now_ns)
        if machine.out or machine.held or machine.blocked or self._pending or self._sealed:
            self.send_soon()
        if machine.draining != drained:
            self.notify()
        elif self._waiters:
            self._waiting.unpark_all()

    def _fail(self, exc: Http2Error) -> None:
        """The peer broke HTTP/2: say so, and tell everybody."""
        self.send_now()
        self.failure = self.failure or exc
        self.broken = True
        for carrier in list(self.carried.values()):
            carrier.on_protocol_error(exc)
        self.notify()

    def _stumble(self, exc: Exception) -> None:
        """Something of ours raised: end this connection; nobody else is disturbed."""
        log.error("a connection: %s", type(exc).__name__, exc_info=exc)
        self.broken = True
        self.failure = ConnectionAbortedError(103, "the connection was given up")
        for carrier in list(self.carried.values()):
            carrier.failed(exc)
        self.notify()

    def break_(self, exc: OSError | None) -> None:
        """The connection is at its end (None), or broken."""
        if self.broken:
            return
        self.broken = True
        self.failure = exc
        if exc is not None and exc.errno in NOT_OURS and isinstance(self.link, (SocketLink, TlsLink)):
            self.link.disown()
        for carrier in list(self.carried.values()):
            carrier.on_lost(exc)
        self.notify()

    # Who reads ---------------------------------------------------------------------------------------------------

    def add(self, call: Call, carrier: Carried, driver: TasksDriver, now_ns: int) -> None:
        """A call is carried from now on; the driver reads."""
        self.carried[call] = carrier
        if self.driver is not None or self.broken:
            return
        self.driver = driver
        self.last_received_ns = now_ns
        self._buffer = memoryview(b"")
        if isinstance(self.link, MemoryLink):
            self._watched = ("memory", driver.watch_memory(self.link, self.on_readable))
        else:
            assert self.link.fd is not None
            self._watched = ("fd", self.link.fd)
            driver.watch(self.link.fd, self.on_readable)
            if self.link.more():
                driver.later(self._read_on)

    def remove(self, call: Call) -> None:
        """A call is carried no longer; with the last one the driver reads no more. Idempotent."""
        if self.carried.pop(call, None) is not None and not self.carried:
            driver, self.driver = self.driver, None
            watched, self._watched = self._watched, None
            if driver is not None and watched is not None:
                if watched[0] == "fd":
                    driver.unwatch(watched[1])
                else:
                    driver.unwatch_memory(watched[1])
            self.notify()

    def notify(self) -> None:
        """Have tasks that wait for this connection look again."""
        self._waiting.unpark_all()
        self._attending.unpark_all()

    async def turn(self, *, attending: bool = False) -> None:
        """Wait until something may have changed; be the one who reads or writes, if nobody else is.

        Cancellation: another one that waits takes over.
        """
        if self.broken:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self.blocked and not self._writing:
                self._writing = True
                try:
                    await self.link.wait_writable()
                finally:
                    self._writing = False
                    self.notify()
                self.send_now()
            elif self.driver is None and not self._reading and (attending or not self.attended):
                self._reading = True
                try:
                    await self.link.wait_readable()
                finally:
                    self._reading = False
                    self.notify()
                if self.driver is None:
                    self.on_readable(trio_ns())
            else:
                self._waiters += 1
                try:
                    await (self._attending if attending else self._waiting).park()
                finally:
                    self._waiters -= 1
        except trio.ClosedResourceError:
            self.broken = True
            self.notify()
        except OSError as exc:
            self.break_(exc)

    # Writing -----------------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """Whether the link takes nothing now."""
        return bool(self._pending) or (self._sealed and self.link.unsent())

    @property
    def sent_bytes(self) -> int:
        """What the link has taken, ever."""
        return self._sent_bytes

    def send_soon(self) -> None:
        """Send at the end of this step, with all else; outside a step, now."""
        driver = self.driver
        if driver is None or not driver.in_step:
            self.send_now()
        elif not self._sending_soon:
            machine = self.machine
            if machine.out or machine.held or machine.blocked or self.blocked:
                self._sending_soon = True
                driver.at_end(self.send_now)

    def send_now(self) -> None:
        """Hand the link what it takes."""
        self._sending_soon = False
        if self.broken:
            return
        machine = self.machine
        try:
            if self._sealed and self.link.unsent():
                self.link.flush()
            while True:
                if not self._pending:
                    machine.blocked = False
                    self._pending = machine.data_to_send()
                    if not self._pending:
                        break
                n = self.link.send(self._pending)
                self._sent_bytes += n
                self._pending = self._pending[n:]
                if self._sealed and self.link.unsent():
                    break
                if not (self._pending or machine.out or machine.held or machine.blocked):
                    return
        except BlockingIOError:
            pass
        except OSError as exc:
            self.break_(exc)
            return
        except Exception as exc:
            self._stumble(exc)
            return
        if self.blocked:
            machine.blocked = True
            for carrier in list(self.carried.values()):
                carrier.on_full()

    def check_alive(self, now_ns: int) -> bool:
        """As `Carrier`; for all its calls together."""
        silent = now_ns - self.last_received_ns
        if silent < PING_AFTER_NS:
            self._ping_sent_ns = None
        elif self._ping_sent_ns is not None:
            return silent < VANISHED_AFTER_NS or now_ns - self._ping_sent_ns < VANISHED_AFTER_NS - PING_AFTER_NS
        elif (
            not self.machine.client
            or self._pings_without_data < PINGS_WITHOUT_DATA
            or now_ns - self._last_ping_ns >= PING_AGAIN_NS
        ):
            self._ping_sent_ns = self._last_ping_ns = now_ns
            self._pings_without_data += 1
            self.pings_sent += 1
            self.machine.ping(self.pings_sent.to_bytes(8, "big"))
            self.send_soon()
        return True

    def forget(self, call: Call) -> None:
        """A call is over and done with; a client's connection goes with it."""
        self.calls.discard(call)
        if self.machine.client:
            self.close()
        else:
            self.notify()

    def close(self) -> None:
        """Say goodbye as far as it costs no waiting, and close the link. Idempotent."""
        self.machine.go_away()
        self.send_now()
        self.broken = True
        self.link.close()
        self.notify()


def trio_ns() -> int:
    """Return Trio's time in ns, for whoever reads outside a driver's step."""
    return round(trio.current_time() * 1e9)
