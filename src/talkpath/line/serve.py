"""Serve lines: accept what platforms open, recognise the wire, run a bot on each.

Every listening socket speaks all there is; what it is, the first bytes of a connection say (`arrival`). Two nurseries:
one accepts, one holds the lines, so that accepting can stop while calls finish. A bot's failure ends its own line and
nobody else's.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from talkpath.line.accepting import Door, Visit, bind_sockets
from talkpath.line.access import Gate
from talkpath.line.arrival import serve_link
from talkpath.line.bot import Bot
from talkpath.line.config import ServeConfig
from talkpath.line.opening import check_options, wires_on
from talkpath.path.pool import Pool
from talkpath.records import ServerStatistics
from talkpath.transport.admission import Admission
from talkpath.transport.clock import Clock, open_clock
from talkpath.transport.link import SocketLink
from talkpath.transport.memory import MemoryListener, listen_memory

log = logging.getLogger("talkpath.line.serve")

Entropy = Callable[[int], bytes]


class LineServer:
    """What the lines of one server share, and its statistics: of one `serve_lines`, handed out by
    `ServeConfig.on_serving`, or of one worker process.
    """

    def __init__(self, bot: Bot, wire: str | None, config: ServeConfig, clock: Clock, entropy: Entropy) -> None:
        self.bot = bot
        self.wire = wire
        self.config = config
        self.clock = clock
        self.entropy = entropy
        check_options(wire, config.options)  # Said now, not at the first call.
        self.pool = Pool(config.pool_bytes)
        self.lines = 0
        self.lines_opened = 0
        self.turned_away = 0
        """Connections that had not shown what `ServeConfig.access` asks for."""
        self.gate = Gate(config.ways, config.public_url)
        self.admission = Admission(
            config,
            clock.load,
            what=("lines", "max_lines"),
            most=config.max_lines,
            live=lambda: self.lines,
            pool=self.pool,
        )
        self.door = Door(config)
        if config.tls_context is not None:
            # A client that offers both is no gRPC client: those offer HTTP/2 alone.
            protocols = ["http/1.1"] if wires_on("websocket", wire) else []
            config.tls_context.set_alpn_protocols([*protocols, *(["h2"] if wires_on("grpc", wire) else [])])

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Say that serving begins; watch over it until it ends."""
        with self.clock.load.attended(log, self.config.gc):
            if self.config.on_serving is not None:
                self.config.on_serving(self)
            yield

    def statistics(self) -> ServerStatistics:
        """Return a snapshot of the server's counters."""
        pool = self.pool.native
        others = {"access": self.turned_away, "address": self.door.turned_away}
        return ServerStatistics(
            lines=self.lines,
            lines_opened=self.lines_opened,
            handshakes=self.door.unfinished,
            pool_bytes=pool.n_blocks * 1024,
            pool_used_bytes=(pool.n_blocks - pool.n_free) * 1024,
            pool_refused=pool.n_refused,
            refused=self.admission.refused | {kind: count for kind, count in others.items() if count},
            load=self.clock.load.statistics(),
        )


async def serve_lines(
    bot: Bot,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    grpc_port: int | None = None,
    wire: str | None = None,
    config: ServeConfig | None = None,
    entropy: Entropy = os.urandom,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept streams from platforms and run `bot` on each; never returns.

    The wire is recognised by its first messages, or named. *Life of a bot*: when it returns, what it has queued is
    played (bounded), then the line hangs up; when it raises, what is queued is cleared, the line is closed with 1011,
    the failure is logged and recorded, and the server goes on; when the line ends first, its listeners stop, its
    waits return LOST, a new operation raises `CallEnded` (which may leave the bot), and the bot is cancelled after
    `LineConfig.linger_s`.

    Args:
        bot: called with each `Line`.
        host, port: where to listen; port 0 takes any.
        grpc_port: a second port, for platforms or proxies that want gRPC to have one of its own. Each port speaks all.
        wire: its name; None recognises it.
        config: options.
        entropy: n -> n random bytes.
        task_status: readiness; its value is the list of bound addresses, those of `grpc_port` last.

    Raises:
        ConfigError: an address other than loopback without a way to know who connects (see `ServeConfig`), or a wire
            that does not exist.
        OSError: the address cannot be bound.

    Cancellation: bots are cancelled, lines closed with 1001, nothing remains.
    """
    config = config or ServeConfig()
    ports = (port,) if grpc_port is None else (port, grpc_port)
    async with open_clock() as clock:
        server = LineServer(bot, wire, config, clock, entropy)
        with server.serving():
            await _serve_sockets(server, host, ports, task_status)


async def serve_memory_lines(
    bot: Bot,
    name: str,
    *,
    wire: str | None = None,
    config: ServeConfig | None = None,
    entropy: Entropy = os.urandom,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve lines at ``memory://name`` within this Trio run: both ends in one process, in virtual time if the run's
    clock is.

    As `serve_lines` in everything else.
    """
    async with open_clock() as clock:
        server = LineServer(bot, wire, config or ServeConfig(), clock, entropy)
        listener = listen_memory(name)
        try:
            with server.serving():
                await _serve_memory(server, listener, name, task_status)
        finally:
            listener.close()


async def _serve_memory(
    server: LineServer, listener: MemoryListener, name: str, task_status: trio.TaskStatus[str]
) -> None:
    async with trio.open_nursery() as lines:
        task_status.started(f"memory://{name}")
        while True:
            lines.start_soon(serve_link, server, await listener.accept())


async def _serve_sockets(
    server: LineServer, host: str, ports: tuple[int, ...], task_status: trio.TaskStatus[list[tuple[str, int]]]
) -> None:
    async def serve(sock: socket.socket, visit: Visit) -> None:
        await serve_link(server, SocketLink(sock), visit)

    sockets = await bind_sockets(host, ports, server.config)
    try:
        async with trio.open_nursery() as lines, trio.open_nursery() as accepting:
            for sock in sockets:
                accepting.start_soon(server.door.accept, sock, serve, lines)
            task_status.started([(str(name[0]), int(name[1])) for name in (sock.getsockname() for sock in sockets)])
    finally:
        for sock in sockets:
            sock.close()
