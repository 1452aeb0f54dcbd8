"""Serve lines: accept what platforms open, recognise the wire, run a bot on each.

Two nurseries: one accepts, one holds the lines, so that accepting can stop while calls finish. A bot's failure ends
its own line and nobody else's.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import trio

from talkpath.errors import CallEnded, ConfigError, RemoteWireError
from talkpath.line.config import LineRecord, ServeConfig
from talkpath.line.line import Line
from talkpath.line.opening import Recogniser, receive_start
from talkpath.path.pool import Pool
from talkpath.records import EndReason, ServerStatistics
from talkpath.transport.admission import Admission
from talkpath.transport.carrier import WebSocketCarriage
from talkpath.transport.clock import Clock, open_clock
from talkpath.transport.link import Link, SocketLink, TlsLink
from talkpath.transport.memory import MemoryListener, listen_memory
from talkpath.transport.upgrade import receive_upgrade, refuse, send_all
from talkpath.wire.catalog import SUBPROTOCOLS
from talkpath.wire.signature import verify_headers
from talkpath.wire.websocket import CLOSE, ServerHandshake, UpgradeRequest, close_payload, frame

log = logging.getLogger("talkpath.line.serve")

CLOSE_POLICY = 1008
Bot = Callable[[Line], Awaitable[None]]
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
        Recogniser(wire, config.options)  # A wire or options that do not exist are said now, not at the first call.
        self.pool = Pool(config.pool_bytes)
        self.lines = 0
        self.lines_opened = 0
        self.admission = Admission(
            config,
            clock.load,
            what=("lines", "max_lines"),
            most=config.max_lines,
            live=lambda: self.lines,
            pool=self.pool,
        )
        self.handshakes = trio.CapacityLimiter(config.max_handshakes)

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
        return ServerStatistics(
            lines=self.lines,
            lines_opened=self.lines_opened,
            handshakes=self.handshakes.borrowed_tokens,
            pool_bytes=pool.n_blocks * 1024,
            pool_used_bytes=(pool.n_blocks - pool.n_free) * 1024,
            pool_refused=pool.n_refused,
            refused=dict(self.admission.refused),
            load=self.clock.load.statistics(),
        )


async def serve_lines(
    bot: Bot,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
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
        wire: its name; None recognises it.
        config: options.
        entropy: n -> n random bytes.
        task_status: readiness; its value is the list of bound addresses.

    Raises:
        ConfigError: an address other than loopback without a way to know who connects (see `ServeConfig`), or a wire
            that does not exist.
        OSError: the address cannot be bound.

    Cancellation: bots are cancelled, lines closed with 1001, nothing remains.
    """
    config = config or ServeConfig()
    async with open_clock() as clock:
        server = LineServer(bot, wire, config, clock, entropy)
        with server.serving():
            await _serve_sockets(server, host, port, task_status)


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
            lines.start_soon(serve_link, server, await listener.accept(), None)


async def _serve_sockets(
    server: LineServer, host: str, port: int, task_status: trio.TaskStatus[list[tuple[str, int]]]
) -> None:
    async def serve(sock: socket.socket, token: object) -> None:
        await serve_link(server, SocketLink(sock), token)

    sockets = await bind_sockets(host, port, server.config)
    try:
        async with trio.open_nursery() as lines, trio.open_nursery() as accepting:
            for sock in sockets:
                accepting.start_soon(accept_sockets, sock, server.handshakes, serve, lines)
            task_status.started([(str(name[0]), int(name[1])) for name in (sock.getsockname() for sock in sockets)])
    finally:
        for sock in sockets:
            sock.close()


async def bind_sockets(host: str, port: int, config: ServeConfig) -> list[trio.socket.SocketType]:
    """Listen on every address that `host` stands for. Raises ConfigError (nobody would be authenticated), OSError."""
    addresses = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[trio.socket.SocketType] = []
    try:
        for family, kind, protocol, _, address in addresses:
            if not _is_loopback(str(address[0])) and not config.plivo_auth_token and not config.allow_unauthenticated:
                raise ConfigError(
                    f"serving on {address[0]} would let anyone who finds the port talk to the bot; pass "
                    "ServeConfig(plivo_auth_token=...), or allow_unauthenticated=True if that is meant"
                )
            sock = trio.socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound_port = sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else port
            await sock.bind((address[0], bound_port, *address[2:]))
            sock.listen(config.backlog)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


async def accept_sockets(
    listening: trio.socket.SocketType,
    handshakes: trio.CapacityLimiter,
    serve: Callable[[socket.socket, object], Awaitable[None]],
    lines: trio.Nursery,
) -> None:
    """Accept for ever; each connection is served by a task in `lines`.

    Args:
        handshakes: how many may be unfinished; the next waits in the listen queue.
        serve: given the socket, which it closes, and its token, which it gives back to `handshakes`.
    """
    while True:
        await handshakes.acquire_on_behalf_of(token := object())
        try:
            connection, _ = await listening.accept()
        except OSError as exc:
            handshakes.release_on_behalf_of(token)
            # Out of descriptors, or a peer that was gone again: the server goes on, a little later.
            log.warning("accept failed: %s", type(exc).__name__)
            await trio.sleep(0.1)
            continue
        except BaseException:
            handshakes.release_on_behalf_of(token)
            raise
        plain = socket.socket(connection.family, connection.type, connection.proto, fileno=connection.detach())
        lines.start_soon(serve, plain, token)


async def serve_link(
    server: LineServer, link: Link, token: object | None, opened: Callable[[Line], None] | None = None
) -> LineRecord | None:
    """Serve one connection from its first byte to its last. Raises nothing but cancellation.

    Args:
        token: of `server.handshakes`, given back when the handshake is over; None: there is none.
        opened: told of the line before its bot runs.

    Returns:
        The line's record; None when none was opened.
    """
    line: Line | None = None
    try:
        try:
            with trio.fail_after(server.config.handshake_s):
                line = await _open_line(server, link)
        except trio.TooSlowError:
            log.info("a connection from %s did not open a line in time", link.peer_name())
        except RemoteWireError as exc:
            log.info("a connection from %s was refused: %s", link.peer_name(), exc)
        except (OSError, CallEnded) as exc:
            log.info("a connection from %s failed: %s", link.peer_name(), type(exc).__name__)
        finally:
            if token is not None:
                server.handshakes.release_on_behalf_of(token)
                token = None
            if line is None:
                link.close()
        if line is not None:
            server.lines_opened += 1
            try:
                if opened is not None:
                    opened(line)
                await run_bot(server.bot, line)
            finally:
                server.lines -= 1
                if line.record is not None and server.config.on_ended is not None:
                    server.config.on_ended(line.record)
    except CallEnded as exc:
        log.warning("a line could not be opened: %s", exc.reason.value)
    except Exception as exc:
        log.error("a line failed: %s", type(exc).__name__, exc_info=exc)
        link.close()
    return line.record if line is not None else None


async def _open_line(server: LineServer, link: Link) -> Line | None:
    """TLS, upgrade, opening message; None when the peer was told to go away. A line that is returned is counted."""
    config = server.config
    if config.tls_context is not None and isinstance(link, SocketLink):
        link = TlsLink(link, config.tls_context, server_side=True, server_hostname=None)
        await link.do_handshake()
    handshake, request = await receive_upgrade(link)
    if config.plivo_auth_token and not _signed(request, config):
        log.info("an upgrade from %s was refused: no valid signature", link.peer_name())
        await refuse(link, handshake.reject(403, "Forbidden"))
        return None
    refusal = server.admission.refusal()
    if refusal is not None:
        log.info("an upgrade from %s was refused: %s", link.peer_name(), refusal.explanation)
        again = (("Retry-After", str(refusal.retry_after_s)),) if refusal.retry_after_s is not None else ()
        await refuse(link, handshake.reject(refusal.status, "Service Unavailable", again))
        return None
    server.lines += 1
    try:
        return await _recognise(server, link, handshake, request)
    except BaseException:
        server.lines -= 1
        raise


async def _recognise(server: LineServer, link: Link, handshake: ServerHandshake, request: UpgradeRequest) -> Line:
    """Accept the upgrade and see by the opening message which wire this is."""
    config = server.config
    await send_all(link, handshake.accept(subprotocols=SUBPROTOCOLS))
    try:
        dialect, started, leftover = await receive_start(
            link, handshake.leftover, Recogniser(server.wire, config.options), masked=False
        )
    except RemoteWireError as exc:
        code = getattr(exc, "close_code", CLOSE_POLICY)
        await refuse(link, frame(CLOSE, close_payload(code, str(exc)), None))
        raise
    return Line(
        server.clock,
        server.pool,
        dialect,
        started,
        WebSocketCarriage(link, leftover, masked=False),
        mask_seed=int.from_bytes(server.entropy(8), "big"),
        config=config.line,
        path=request.target,
    )


def _signed(request: UpgradeRequest, config: ServeConfig) -> bool:
    if config.public_url:
        public = urlsplit(config.public_url)
        url = f"{public.scheme}://{public.netloc}{request.target}"
    else:
        url = f"ws://{request.host}{request.target}"
    return verify_headers(config.plivo_auth_token, request.headers.items(), "GET", url)


async def run_bot(bot: Bot, line: Line) -> None:
    """Live a bot's life on a line; returns when the line is over and nothing of either remains.

    Raises nothing of the bot's; what it raised is logged and in the line's record. Cancellation passes through.
    """
    async with line:
        failure = await _bot_failure(bot, line)
        if failure is not None:
            if not line.ended:
                try:
                    with trio.move_on_after(line.config.goodbye_s):
                        await line.clear()
                except CallEnded:
                    pass
            line.end(EndReason.APPLICATION_FAILED, failure)
        elif not line.ended:
            try:
                with trio.move_on_after(line.config.drain_s):
                    await line.drain()
                await line.hang_up()
            except CallEnded:
                pass
        failure = None  # it refers to this frame


async def _bot_failure(bot: Bot, line: Line) -> Exception | None:
    """Run the bot, at most `linger_s` longer than its line; return what it raised."""
    failure: Exception | None = None
    linger = trio.CancelScope()

    def begin_linger() -> None:
        linger.deadline = trio.current_time() + line.config.linger_s

    line.on_ended = begin_linger
    if line.ended:
        begin_linger()
    try:
        with linger:
            await bot(line)
    except Exception as exc:
        failure = exc
    except BaseExceptionGroup as group:
        # Cancelled from outside, and something failed in a nursery of the bot's: the cancellation goes on alone.
        failures, cancelled = group.split(Exception)
        if failures is not None and cancelled is not None:
            _report(line, failures)
            raise cancelled from None
        raise
    finally:
        line.on_ended = None
    return None if failure is None or not _report(line, failure) else failure


def _report(line: Line, failure: BaseException) -> bool:
    """Log what a bot raised, unless it is only that its line was over. -> whether it was a failure"""
    if line.ended and _only_call_ended(failure):
        return False
    log.error("the bot on line %s raised %s", line.info.stream_id, type(failure).__name__, exc_info=failure)
    return True


def _only_call_ended(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_only_call_ended(inner) for inner in exc.exceptions)
    return isinstance(exc, CallEnded)
