"""Real sockets, and a clock that the test moves by hand: what was sent before a step is read in it, whoever drives.

What was sent on loopback is there to be read once `HandClock.arrive` has returned, so a run is repeatable although its
sockets are real.
`Bench` is an engine of such a run with a caller and an application beside each of its calls; `Steady` are those of a
call that misbehaves in nothing and must hear the same, to the packet, whatever is done beside it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing

from support.calls import EPOCH
from support.frames import TEXT, frame
from support.peer import accept_upgrade
from support.virtual import assert_driver_is_empty, assert_pool_is_whole
from talkpath.engine import Call, CallStream, Engine, EngineConfig, RtpLeg, StreamSpec, open_engine
from talkpath.transport import clock as clocks
from talkpath.transport.clock import Clock
from talkpath.transport.driver_pump import PumpDriver
from talkpath.transport.driver_tasks import TasksDriver
from talkpath.transport.link import SocketLink, TlsLink
from talkpath.transport.load import Load
from talkpath.transport.websocket import Connection
from talkpath.units import NS_PER_MS

STEP_NS = 5 * NS_PER_MS
STEPS_OF_PTIME = 4
PATIENCE_S = 20
SIOCOUTQNSD = 0x894B
"""Linux: how much of what was written to a TCP socket has not been sent."""


class HandClock(Clock):
    """The run's clock, moved by the test; nobody else takes a step."""

    def __init__(self) -> None:
        self.at_ns = 1
        driver = PumpDriver()
        super().__init__(driver)
        driver.clock = self
        self.load = Load(self, driver)
        self._users = 1
        self._first, self._last = new_caller(), new_caller()
        self._last.settimeout(PATIENCE_S)

    def arrive(self) -> None:
        """Wait until all that was sent so far has arrived where it can.

        A busy machine leaves packets lying for a moment even on loopback; but those that one processor sends are
        delivered in their order, and this one is sent last.
        """
        self._first.sendto(b"last", self._last.getsockname())
        self._last.recv(16)

    def now_ns(self) -> int:
        return self.at_ns

    def nudge(self) -> None:
        return

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
        self.driver.close()
        self._first.close()
        self._last.close()


@contextmanager
def hand_clock() -> Iterator[HandClock]:
    """Be the clock of the present Trio run; its thread stays on one processor meanwhile, see `HandClock.arrive`."""
    processors = os.sched_getaffinity(0)
    clock = HandClock()
    clocks._current.set(clock)
    os.sched_setaffinity(0, {max(processors)})
    try:
        yield clock
    finally:
        os.sched_setaffinity(0, processors)
        clocks._current.set(None)
        clock.close()


def media(payload: bytes, **more: object) -> bytes:
    """Return an application's media message."""
    body = {"event": "playAudio", "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000}}
    body["media"]["payload"] = base64.b64encode(payload).decode()  # type: ignore[index]
    return json.dumps(body | more).encode()


class TlsPeer:
    """An application's end of TLS: a socket's calls, with plaintext. Made of the standard library's own objects."""

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.sock: socket.socket | None = None
        self.cut: Callable[[int], int] = lambda n: n
        """Of so many bytes of cipher, how many `sendall` sends; the rest goes before what it sends next."""
        self._kept = b""

    async def _do(self, what: Callable[[], Any]) -> Any:
        while True:
            try:
                result = what()
            except ssl.SSLWantReadError:
                await self.send_all(b"")
                self.incoming.write(await self.stream.receive_some(65536))
            else:
                await self.send_all(b"")
                return result

    async def do_handshake(self) -> None:
        await self._do(self.tls.do_handshake)

    async def receive_some(self, n: int) -> bytes:
        return bytes(await self._do(lambda: self.tls.read(n)))

    async def send_all(self, data: bytes) -> None:
        if data:
            self.tls.write(data)
        if self.outgoing.pending:
            await self.stream.send_all(self.outgoing.read())

    def sendall(self, data: bytes) -> None:
        assert self.sock is not None
        if data:
            self.tls.write(data)
        cipher = self._kept + self.outgoing.read()
        sent = self.cut(len(cipher))
        self._kept = cipher[sent:]
        self.sock.sendall(cipher[:sent])

    def recv(self, n: int) -> bytes:
        assert self.sock is not None
        with suppress(BlockingIOError):
            self.incoming.write(self.sock.recv(n))
        try:
            return self.tls.read(n)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def close(self) -> None:
        assert self.sock is not None
        self.sock.close()


@asynccontextmanager
async def own_listener(usual: trio.SocketListener, receive_buffer: int | None) -> AsyncIterator[trio.SocketListener]:
    """Hold a listener whose connections keep no more than `receive_buffer` for who does not read; None: the usual one.

    A window that was once announced is not taken back, so it has to be small from the beginning.
    """
    if receive_buffer is None:
        yield usual
        return
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        yield listener


def url_of(listener: trio.SocketListener) -> str:
    return f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"


async def accept_stream(listener: trio.SocketListener, context: ssl.SSLContext | None = None) -> Any:
    """Take the next connection and upgrade it; what follows is moved by hand.

    Returns:
        The socket, or with a context a `TlsPeer`.
    """
    stream: Any = await listener.accept()
    peer: TlsPeer | None = None
    if context is not None:
        peer = stream = TlsPeer(stream, context)
        await peer.do_handshake()
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some(4096)
    key = next(line for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key"))
    await stream.send_all(accept_upgrade(key.partition(":")[2].strip()))
    theirs = peer.stream.socket if peer is not None else stream.socket
    plain = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
    plain.setblocking(False)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if peer is not None:
        peer.sock = plain
        return peer
    return plain


def never_full(connection: Connection | None) -> None:
    """Give a connection's socket room for whatever is read or written in one step.

    How much a full one takes is not repeatable.
    """
    assert connection is not None
    link = connection.link
    sock = link.inner.sock if isinstance(link, TlsLink) else link.sock
    for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, which, 4 << 20)


async def all_there(sender: socket.socket | TlsPeer | Connection | None) -> None:
    """Wait until what was sent has left for the other end, or until there is no room for it there.

    TCP has reasons of its own to wait a moment, even on loopback.
    """
    if isinstance(sender, Connection):
        link = sender.link.inner if isinstance(sender.link, TlsLink) else sender.link
        sender = link.sock if isinstance(link, SocketLink) else None
    elif isinstance(sender, TlsPeer):
        sender = sender.sock
    if sender is None or sender.fileno() < 0:
        return
    unsent = bytearray(4)
    with trio.move_on_after(0.5):
        while fcntl.ioctl(sender.fileno(), SIOCOUTQNSD, unsent) == 0 and any(unsent):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)


def drain(sock: socket.socket | TlsPeer) -> Iterator[bytes]:
    """Yield what can be read at this moment."""
    while True:
        try:
            data = sock.recv(1 << 20)
        except (BlockingIOError, ConnectionResetError):
            return
        if not data:
            return
        yield data


async def entered(nursery: trio.Nursery, manager: Any, until: trio.Event) -> Any:
    """Enter in a task of its own and stay there until the event."""

    async def stay(task_status: trio.TaskStatus[Any]) -> None:
        async with manager as what:
            task_status.started(what)
            await until.wait()

    return await nursery.start(stay)


def assert_nothing_is_left(driver: TasksDriver) -> None:
    """Fail when the driver, or its pump, still holds anything of a call or line."""
    assert_driver_is_empty(driver)
    assert isinstance(driver, PumpDriver)
    native = driver._native
    if native is not None:
        assert (native.n_members, native.n_open_ports, native.n_attention) == (0, 0, 0)
        assert (native.pool.n_free, native.pool.n_reserved) == (native.pool.n_blocks, 0)


def rtp(seq: int, timestamp: int, payload: bytes, *, payload_type: int = 0, ssrc: int = 7) -> bytes:
    """Return one datagram."""
    head = bytes([0x80, payload_type]) + (seq & 0xFFFF).to_bytes(2, "big")
    return head + (timestamp & 0xFFFFFFFF).to_bytes(4, "big") + ssrc.to_bytes(4, "big") + payload


def new_caller() -> socket.socket:
    """Return a caller's socket."""
    caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    caller.bind(("127.0.0.1", 0))
    caller.setblocking(False)
    return caller


class Party:
    """A call with both of its parties. What they say is made anew for each step, unless it is None."""

    def __init__(self, bench: Bench, call: Call, caller: socket.socket, number: int) -> None:
        self.bench = bench
        self.call = call
        self.caller = caller
        self.number = number
        self.application: socket.socket | None = None
        self.stream: CallStream | None = None
        self.refused: BaseException | None = None
        """What `start_stream` raised."""
        self.done = trio.Event()
        self.gone = trio.Event()
        self.address: tuple[str, int] = call.leg.local_address
        self.caller_says: Callable[[int], bytes | None] = lambda step: None
        """A payload for a step in which there is one."""
        self.application_says: Callable[[int], bytes | None] = lambda step: None
        self.reads = True
        """Whether the application reads what it is sent."""
        self.unsent = b""
        """Of the application's, what its socket has not taken yet."""
        self.datagrams: list[tuple[int, bytes]] = []
        self.messages: list[tuple[int, bytes]] = []
        """What came, and in which step."""
        self._seq = 0

    def speak(self, step: int) -> None:
        """Have both parties say what they say in this step."""
        payload = self.caller_says(step)
        if payload is not None:
            self._seq += 1
            self.caller.sendto(rtp(self._seq, self._seq * 160, payload), self.address)
        if self.application is None:
            return
        self.unsent += self.application_says(step) or b""
        while self.unsent:
            try:
                self.unsent = self.unsent[self.application.send(self.unsent) :]
            except BlockingIOError:
                break
            except OSError:
                self.unsent = b""

    def listen(self, step: int) -> None:
        """Take down what has come."""
        self.datagrams += [(step, packet) for packet in drain(self.caller)]
        if self.application is not None and self.reads:
            written = b"".join(drain(self.application))
            if written:
                self.messages.append((step, written))

    def payloads(self) -> list[bytes]:
        """The audio that the caller was sent, packet by packet."""
        return [packet[12:] for _, packet in self.datagrams]

    def written(self) -> bytes:
        """All that the application was sent."""
        return b"".join(data for _, data in self.messages)

    async def leave(self) -> None:
        """Leave the call's block, and wait until it has been left."""
        self.done.set()
        with trio.fail_after(PATIENCE_S):
            await self.bench.until(self.gone.is_set)

    def close(self) -> None:
        self.caller.close()
        if self.application is not None:
            self.application.close()


@dataclass
class Steady:
    """Parties that say something in every ptime, each of them something else each time."""

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def caller(self, step: int) -> bytes | None:
        return self.random.randbytes(160) if step % STEPS_OF_PTIME == 1 else None

    def application(self, step: int) -> bytes | None:
        return frame(TEXT, media(self.random.randbytes(160))) if step % STEPS_OF_PTIME == 2 else None


def options(**others: Any) -> EngineConfig:
    """Return an engine's options for a bench: nobody is refused for what the real clock says of it."""
    usual: dict[str, Any] = {"pool_bytes": 8 << 20, "goodbye_s": 0.02, "connect_attempts": 1}
    return EngineConfig(**{**usual, "max_busy_share": None, "max_lateness_ms": None, **others})


class Bench:
    """An engine, its calls and their parties; made by `open_bench`."""

    def __init__(self, clock: HandClock, engine: Engine, nursery: trio.Nursery, listener: trio.SocketListener) -> None:
        self.clock = clock
        self.driver: PumpDriver = clock.driver  # type: ignore[assignment]
        self.engine = engine
        self.nursery = nursery
        self.listener = listener
        self.parties: list[Party] = []
        self.step_number = 0
        self.wall_clock_s = EPOCH
        self.beside: Party | None = None
        """The call that must not notice anything."""

    async def settle(self) -> None:
        """Take a step at this very moment, and let every task have its turn."""
        self.clock.arrive()
        self.clock.driver.step(self.clock.at_ns)
        await trio.testing.wait_all_tasks_blocked()
        self.clock.arrive()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time stand still until something has happened. A test that hangs fails."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await self.settle()
                await trio.sleep(0.001)

    async def call(
        self,
        *,
        stream: bool = True,
        receive_buffer: int | None = None,
        before: Callable[[], None] | None = None,
        caller: socket.socket | None = None,
        **options: Any,
    ) -> Party:
        """Open a call; with a stream unless told otherwise.

        Args:
            receive_buffer: of the application's socket.
            before: called when the leg is about to be opened.
            caller: whose call it is, made by `new_caller`.
            options: of the `StreamSpec`; `leg` of the leg.
        """
        caller = caller or new_caller()
        if before is not None:
            before()
        leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname(), **options.pop("leg", {}))
        left = trio.Event()
        parties: list[Party] = []

        async def live(task_status: trio.TaskStatus[None]) -> None:
            async with self.engine.open_call(leg) as call:
                party = Party(self, call, caller, len(self.parties))
                parties.append(party)
                task_status.started()
                await party.done.wait()
            left.set()
            party.gone.set()

        await self.nursery.start(live)
        party = parties[0]
        self.parties.append(party)
        if stream:
            await self.start_stream(party, receive_buffer=receive_buffer, **options)
        return party

    async def start_stream(self, party: Party, *, receive_buffer: int | None = None, **options: Any) -> None:
        """Start a stream of a call and wait until it is live, or refused."""

        async def start(url: str) -> None:
            try:
                party.stream = await party.call.start_stream(StreamSpec(url=url, bidirectional=True, **options))
            except Exception as exc:
                party.refused = exc

        async with own_listener(self.listener, receive_buffer) as listener:
            self.nursery.start_soon(start, url_of(listener))
            with trio.fail_after(PATIENCE_S):
                await trio.testing.wait_all_tasks_blocked()
                if party.refused is not None:
                    return
                party.application = await accept_stream(listener)
        await self.until(lambda: party.stream is not None or party.refused is not None)

    async def steps(
        self,
        n: int = 1,
        *,
        each: Callable[[], None] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
        late: int = 0,
    ) -> None:
        """Take `n` steps of the grid, each `late` steps later than it should be, with everybody speaking meanwhile.

        Args:
            each: called after each step.
            before: awaited before each, when all has been said and its time has come.
        """
        for _ in range(n):
            for _ in range(late + 1):
                self.step_number += 1
                for party in self.parties:
                    party.speak(self.step_number)
            self.clock.at_ns = self.step_number * STEP_NS
            for party in self.parties:
                if party.application is not None and not party.unsent:
                    await all_there(party.application)
            if before is not None:
                await before()
            await self.settle()
            for party in self.parties:
                if party.reads and party.stream is not None:
                    await all_there(party.stream._connection)
            self.clock.arrive()
            for party in self.parties:
                party.listen(self.step_number)
            if each is not None:
                each()

    async def open_beside(self, seed: int = 99) -> Party:
        """Open the call that must not notice anything; to be done first."""
        assert not self.parties
        self.beside = await self.call()
        steady = Steady(seed)
        self.beside.caller_says, self.beside.application_says = steady.caller, steady.application
        return self.beside


@asynccontextmanager
async def open_bench(config: EngineConfig | None = None, *, beside: bool = True) -> AsyncIterator[Bench]:
    """Hold an engine on the pump, moved by hand; at the end nothing may be left of it."""
    with hand_clock() as clock:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        bench: Bench | None = None
        engine = open_engine(
            config or options(),
            entropy=random.Random(7).randbytes,
            wall_clock=lambda: bench.wall_clock_s if bench is not None else EPOCH,
        )
        try:
            async with trio.open_nursery() as nursery, engine:
                bench = Bench(clock, engine, nursery, listener)
                if beside:
                    await bench.open_beside()
                yield bench
                for party in bench.parties:
                    party.done.set()
                await bench.until(lambda: all(party.gone.is_set() for party in bench.parties))
                await bench.settle()
                assert_nothing_is_left(clock.driver)
                assert_pool_is_whole(engine)
        finally:
            if bench is not None:
                for party in bench.parties:
                    party.close()
            with suppress(OSError):
                await listener.aclose()
