"""One connection, from its first byte to its last: what it speaks, who it is, the lines on it.

::

    TLS, where there is a context
      -> first bytes:  PRI * HTTP/2.0        gRPC: each of its calls is a line (`grpc_lines`)
                       01 00 10              AudioSocket
                       anything else         HTTP: an upgrade to a WebSocket is a line
      -> the request:  who may connect (`access`), whether there is room (`Admission`); then it is accepted
      -> the opening message: which wire it is (`opening`), who may connect if only that can tell
      -> the line, and the bot on it

All of it up to the line is bounded by `ServeConfig.handshake_s`; whatever goes wrong before is answered in the
transport's own words, logged in facts that are nobody's secret, and ends this connection alone.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from talkpath.errors import CallEnded, RemoteWireError
from talkpath.line.accepting import RETRY_S, Visit
from talkpath.line.access import Access, Shown, forwarded_address
from talkpath.line.bot import run_bot
from talkpath.line.config import LineRecord
from talkpath.line.grpc_lines import serve_calls
from talkpath.line.line import Line
from talkpath.line.opening import FirstBytes, Recogniser, first_bytes_say, receive_start, wires_on
from talkpath.transport.audiosocket import accept_audiosocket
from talkpath.transport.carrier import Carriage, WebSocketCarriage
from talkpath.transport.link import Link, SocketLink, TlsLink
from talkpath.transport.upgrade import receive_some, receive_upgrade, refuse, send_all
from talkpath.wire.audiosocket import AudioSocketOptions, Kind, message
from talkpath.wire.catalog import SUBPROTOCOLS
from talkpath.wire.websocket import CLOSE, ServerHandshake, UpgradeRequest, close_payload, frame

if TYPE_CHECKING:
    from talkpath.events import StreamStarted
    from talkpath.line.serve import LineServer
    from talkpath.wire.dialect import Dialect

log = logging.getLogger("talkpath.line.arrival")

CLOSE_POLICY = 1008
NOTHING_SHOWN = "it shows no valid signature, token or other proof"
NOT_ALLOWED = "this server is not for whoever connects: the opening message shows no right token"


async def serve_link(
    server: LineServer, link: Link, visit: Visit | None = None, opened: Callable[[Line], None] | None = None
) -> LineRecord | None:
    """Serve one connection from its first byte to its last. Raises nothing but cancellation.

    Args:
        visit: as the bounds of the door see it; None: nobody has counted it.
        opened: told of the first line before its bot runs.

    Returns:
        The last line's record; None when none was opened.
    """
    visit = visit or Visit(server.door, link.peer_name(), object())
    try:
        return await Arrival(server, link, visit, opened).serve()
    finally:
        visit.left()


class Arrival:
    """What is known of one connection; see `serve_link`."""

    def __init__(self, server: LineServer, link: Link, visit: Visit, opened: Callable[[Line], None] | None) -> None:
        self.server = server
        self.link = link
        self._visit = visit
        self._opened = opened
        self._address = visit.address
        self._client_names: frozenset[str] | None = None
        self.deadline = trio.current_time() + server.config.handshake_s
        """For the first line."""

    async def serve(self) -> LineRecord | None:
        """As `serve_link`."""
        line: Line | None = None
        calls: bytes | None = None
        try:
            with self.refusals(), trio.fail_at(self.deadline):
                kind, begun = await self._greet()
                if kind is FirstBytes.GRPC:
                    calls = begun
                elif kind is FirstBytes.AUDIOSOCKET:
                    line = await self._open_audiosocket(begun)
                else:
                    line = await self._open_websocket(begun)
        finally:
            if calls is None:
                self.settled()
                if line is None:
                    self.link.close()
        if calls is not None:
            return await serve_calls(self, calls)
        return await self.live(line, self.link.close) if line is not None else None

    def settled(self) -> None:
        """The connection has shown that it is in earnest: it has a line, or is over."""
        self._visit.settled()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Log what ends an opening; nothing of it passes but cancellation and failures of our own."""
        try:
            yield
        except trio.TooSlowError:
            log.info("a connection from %s did not open a line in time", self.link.peer_name())
        except RemoteWireError as exc:
            log.info("a connection from %s was refused: %s", self.link.peer_name(), exc)
        except (OSError, CallEnded) as exc:
            log.info("a connection from %s failed: %s", self.link.peer_name(), type(exc).__name__)
        except Exception as exc:
            log.error("a connection failed: %s", type(exc).__name__, exc_info=exc)

    async def live(self, line: Line, abandon: Callable[[], None]) -> LineRecord | None:
        """Have the bot live on a line that is counted. Raises nothing but cancellation.

        Args:
            abandon: ends what carries the line, for when the line itself can no longer.
        """
        server = self.server
        server.lines_opened += 1
        try:
            try:
                if self._opened is not None:
                    opened, self._opened = self._opened, None
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
            abandon()
        return line.record

    # What it is --------------------------------------------------------------------------------------------------

    async def _greet(self) -> tuple[FirstBytes, bytes]:
        """TLS and the first bytes. -> what they say, and the bytes"""
        context = self.server.config.tls_context
        if context is not None and isinstance(self.link, SocketLink):
            tls = self.link = TlsLink(self.link, context, server_side=True, server_hostname=None)
            await tls.do_handshake()
            if context.verify_mode is not ssl.CERT_NONE:
                self._client_names = tls.records.peer_names()
        begun = b""
        buffer = bytearray(4096)
        while True:
            kind = first_bytes_say(begun)
            if kind is not None:
                return kind, begun
            data = await receive_some(self.link, buffer)
            if not data:
                return FirstBytes.HTTP, begun
            begun += data
            if context is None and begun.startswith(b"\x16\x03"):
                log.info("a connection from %s begins TLS, and there is no tls_context", self.link.peer_name())

    # Who it is ---------------------------------------------------------------------------------------------------

    def shown(self, wires: tuple[str, ...], headers: Mapping[str, str], target: str, host: str | None) -> Shown:
        """Put together what the request shows; `host` is None for what no platform signs."""
        server = self.server
        return Shown(
            wires,
            forwarded_address(self._address, headers, server.door.proxies),
            target,
            host or "",
            headers,
            self._client_names,
            host is not None,
        )

    def ways_left(self, shown: Shown) -> tuple[Access, ...] | None:
        """Return the ways in that are still possible after the request, counted; None: turn it away."""
        gate = self.server.gate
        left = gate.left_for(shown)
        if left or gate.is_open:
            return left
        self.server.turned_away += 1
        return None

    def admits(self, left: tuple[Access, ...], dialect: Dialect, started: StreamStarted) -> bool:
        """Whether the opening message shows what was still missing, counted."""
        if self.server.gate.admits(left, dialect.wire, started.custom_parameters):
            return True
        self.server.turned_away += 1
        return False

    def is_for(self, address: str) -> bool:
        """Say who is behind a proxy. -> whether there is room for another of them, counted"""
        if self._visit.is_for(address):
            return True
        self.server.door.turned_away += 1
        return False

    # An AudioSocket ----------------------------------------------------------------------------------------------

    async def _open_audiosocket(self, begun: bytes) -> Line | None:
        """Read the UUID and the first audio; None when the peer was told to go away, which its wire says without a
        reason. A line that is returned is counted.
        """
        server = self.server
        wires = wires_on("audiosocket", server.wire)
        if not wires:
            raise RemoteWireError("an AudioSocket, which is not served here", kind="unknown_wire")
        ways = self.ways_left(self.shown(wires, {}, "/", None))
        refusal = server.admission.refusal() if ways is not None else None
        if ways is None or refusal is not None:
            why = NOTHING_SHOWN if refusal is None else refusal.explanation
            log.info("an AudioSocket from %s was refused: %s", self.link.peer_name(), why)
            await refuse(self.link, message(Kind.TERMINATE))
            return None
        server.lines += 1
        try:
            options = server.config.options
            dialect, started, carriage = await accept_audiosocket(
                self.link, begun, options if isinstance(options, AudioSocketOptions) else None
            )
            if not self.admits(ways, dialect, started):
                await refuse(self.link, message(Kind.TERMINATE))
                raise RemoteWireError(NOT_ALLOWED, wire=dialect.wire, kind="no_access")
            return self.make_line(dialect, started, carriage, path="/")
        except BaseException:
            server.lines -= 1
            raise

    # A WebSocket -------------------------------------------------------------------------------------------------

    async def _open_websocket(self, begun: bytes) -> Line | None:
        """Upgrade and opening message; None when the peer was told to go away. A line that is returned is counted."""
        server = self.server
        handshake, request = await receive_upgrade(self.link, begun)
        wires = self._wires_at(request.path)
        shown = self.shown(wires, request.headers, request.target, request.host)
        ways = self.ways_left(shown)
        if ways is None:
            challenge = server.gate.challenge()
            await self._turn_away(handshake, challenge.status, challenge.reason, challenge.headers, NOTHING_SHOWN)
            return None
        if not self.is_for(shown.address):
            later = (("Retry-After", str(RETRY_S)),)
            await self._turn_away(handshake, 429, "Too Many Requests", later, "too many from its address")
            return None
        if not wires:
            await self._turn_away(handshake, 404, "Not Found", (), "no wire of WebSockets is served")
            return None
        refusal = server.admission.refusal()
        if refusal is not None:
            again = (("Retry-After", str(refusal.retry_after_s)),) if refusal.retry_after_s is not None else ()
            await self._turn_away(handshake, refusal.status, "Service Unavailable", again, refusal.explanation)
            return None
        server.lines += 1
        try:
            return await self._recognise(handshake, request, wires, ways)
        except BaseException:
            server.lines -= 1
            raise

    def _wires_at(self, path: str) -> tuple[str, ...]:
        """Return which wires a WebSocket at this path may speak."""
        named = wire_at(self.server.config.wire_by_path, path) or self.server.wire
        return wires_on("websocket", named)

    async def _turn_away(
        self,
        handshake: ServerHandshake,
        status: int,
        reason: str,
        headers: tuple[tuple[str, str], ...],
        why: str,
    ) -> None:
        log.info("an upgrade from %s was refused: %s", self.link.peer_name(), why)
        await refuse(self.link, handshake.reject(status, reason, headers))

    async def _recognise(
        self,
        handshake: ServerHandshake,
        request: UpgradeRequest,
        wires: tuple[str, ...],
        ways: tuple[Access, ...],
    ) -> Line:
        """Accept the upgrade and see by the opening message which wire this is, and who."""
        server = self.server
        await send_all(self.link, handshake.accept(subprotocols=SUBPROTOCOLS))
        try:
            recogniser = Recogniser(wires, server.config.options)
            dialect, started, leftover = await receive_start(self.link, handshake.leftover, recogniser, masked=False)
            if not self.admits(ways, dialect, started):
                raise RemoteWireError(NOT_ALLOWED, wire=dialect.wire, kind="no_access")
        except RemoteWireError as exc:
            code = getattr(exc, "close_code", CLOSE_POLICY)
            await refuse(self.link, frame(CLOSE, close_payload(code, str(exc)), None))
            raise
        return self.make_line(
            dialect, started, WebSocketCarriage(self.link, leftover, masked=False), path=request.target
        )

    def make_line(self, dialect: Dialect, started: StreamStarted, carriage: Carriage, *, path: str) -> Line:
        """Make the line of one stream."""
        server = self.server
        return Line(
            server.clock,
            server.pool,
            dialect,
            started,
            carriage,
            mask_seed=int.from_bytes(server.entropy(8), "big"),
            config=server.config.line,
            path=path,
        )


def wire_at(wire_by_path: Mapping[str, str], path: str) -> str | None:
    """Return the wire of the longest prefix of `path`, in whole segments; None: the path says nothing."""
    best = None
    for prefix in wire_by_path:
        whole = prefix.rstrip("/")
        fits = path == whole or path.startswith(whole + "/")
        if fits and (best is None or len(whole) > len(best.rstrip("/"))):
            best = prefix
    return wire_by_path[best] if best is not None else None
