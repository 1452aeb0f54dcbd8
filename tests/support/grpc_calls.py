"""gRPC calls on links, both ends in one run: an owner that writes down what it hears, and a clock that steps for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from support.grpc_pair import PATH
from talkpath.errors import RemoteWireError
from talkpath.transport.clock import Clock, open_clock
from talkpath.transport.driver_tasks import TasksDriver
from talkpath.transport.grpc import GrpcCarriage, GrpcCarrier, GrpcServerConnection, open_grpc, parse_grpc_url
from talkpath.transport.memory import MemoryLink, listen_memory
from talkpath.transport.upgrade import Target
from talkpath.wire.grpc import DEFAULT_OPTIONS, GrpcOptions


async def refusal(target: Target, path: str) -> str:
    """Begin a call that is refused. -> the kind of error, whether it came with the first bytes or later"""
    with pytest.raises(RemoteWireError) as caught:
        await _begin_and_listen(target, path)
    return caught.value.kind


async def _begin_and_listen(target: Target, path: str) -> None:
    carriage = await open_grpc(target, path)
    try:
        await carriage.receive_message()
    finally:
        carriage.close()


class Beat:
    """A line that does nothing, so that the driver looks at sockets every 5 ms."""

    on_socket = True
    poll_ns = 5_000_000
    pumped = False
    native = None

    def __init__(self, driver: TasksDriver) -> None:
        self.slot = driver.take_slot(self)
        driver.add_line(self)

    def next_send_ns(self) -> int | None:
        return None

    def tick(self, now_ns: int) -> None: ...

    run_commands = pull_events = housekeeping = tick

    def failed(self, exc: Exception) -> None:
        raise exc


class Owner:
    """Writes down what a carrier tells, and flushes when it is told to."""

    hears_media = False

    def __init__(self, nursery: trio.Nursery, carriage: GrpcCarriage) -> None:
        self.carriage = carriage
        self.carrier: GrpcCarrier = None  # type: ignore[assignment]
        self.nursery = nursery
        self.messages: list[bytes] = []
        self.said: list[tuple[str, Any]] = []
        self.flushes = 0
        self.stall_s = 1e9
        self.stalled = 0
        self.on_message: Callable[[bytes], None] | None = None
        self._over = trio.Event()

    async def begin(self, clock: Clock, *, live: bool = True) -> Owner:
        """Have the call carried, in a step."""
        done = trio.Event()

        def carry(now_ns: int) -> None:
            self.carrier = self.carriage.carry(
                clock.driver,
                None,
                self,
                live=live,
                writes_binary=True,
                max_message_bytes=1 << 20,
                mask_seed=1,
            )
            self.carrier.start(now_ns)
            done.set()

        clock.driver.later(carry)
        clock.nudge()
        await done.wait()
        return self

    async def over(self) -> str:
        """Wait until the call is said to be over. -> what was said"""
        await self._over.wait()
        return self.said[-1][0] if self.said[-1][1] is None else f"{self.said[-1][0]} {self.said[-1][1]}"

    def on_binary(self, payload: bytes, now_ns: int) -> None:
        self.messages.append(payload)
        if self.on_message is not None:
            self.on_message(payload)

    def on_text(self, payload: bytes, now_ns: int) -> None:
        raise AssertionError("gRPC has no text messages")

    def on_media(self, now_ns: int) -> None:
        raise AssertionError("the native core reads no gRPC")

    def _end(self, what: str, fact: object) -> None:
        if not self._over.is_set():
            self.said.append((what, fact))
            self.carrier.stop()
            self._over.set()

    def on_peer_closed(self, code: int | None) -> None:
        self._end("closed", code)

    def on_broken(self, exc: OSError) -> None:
        self._end("broken", type(exc).__name__)

    def on_protocol_error(self, exc: Any) -> None:
        self._end("protocol", exc.kind)

    def on_overflow(self) -> None:
        self._end("overflow", None)

    def failed(self, exc: Exception) -> None:
        self._end("failed", type(exc).__name__)

    def on_full(self) -> None:
        if self.flushes == 0:
            self.flushes += 1
            self.nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        if not await self.carrier.flush(self.stall_s):
            self.stalled += 1
        self.flushes -= 1


class Bench:
    """A run's clock, a server at ``memory://app`` and its calls as they come."""

    def __init__(self, clock: Clock, nursery: trio.Nursery) -> None:
        self.clock = clock
        self.nursery = nursery
        self.servers: list[GrpcServerConnection] = []
        self.ran = 0
        self.links: list[MemoryLink] = []
        self.calls: list[Owner] = []
        self._came = trio.lowlevel.ParkingLot()
        self.handle: Callable[[GrpcCarriage], Awaitable[None]] = self.carry

    async def serve(self, name: str, options: GrpcOptions, idle_s: float) -> None:
        listener = listen_memory(name)
        try:
            while True:
                link = await listener.accept()
                self.links.append(link)
                server = GrpcServerConnection(
                    link, lambda carriage: self.handle(carriage), paths=[PATH], options=options, idle_s=idle_s
                )
                self.servers.append(server)
                self.nursery.start_soon(self._run, server)
        finally:
            listener.close()

    async def _run(self, server: GrpcServerConnection) -> None:
        await server.run()
        self.ran += 1

    async def carry(self, carriage: GrpcCarriage) -> None:
        """Have a call carried until it is over, and closed by whoever made the test."""
        owner = await Owner(self.nursery, carriage).begin(self.clock)
        self.calls.append(owner)
        self._came.unpark_all()

    async def dial(self, *, live: bool = True, **options: Any) -> tuple[Owner, Owner]:
        """Begin a call. -> its client's end, its server's end"""
        n = len(self.calls)
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH, **options)
        ours = await Owner(self.nursery, carriage).begin(self.clock, live=live)
        while len(self.calls) == n:
            await self._came.park()
        return ours, self.calls[n]


@asynccontextmanager
async def open_bench(options: GrpcOptions = DEFAULT_OPTIONS, idle_s: float = 300) -> AsyncIterator[Bench]:
    """Hold a bench for the block."""
    async with open_clock() as clock, trio.open_nursery() as nursery:
        bench = Bench(clock, nursery)
        nursery.start_soon(bench.serve, "app", options, idle_s)
        await trio.testing.wait_all_tasks_blocked()
        yield bench
        nursery.cancel_scope.cancel()
