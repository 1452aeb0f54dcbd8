"""Accepting sockets: where to listen, and how many may be at the door at once, in all and of each address.

The problem: whoever connects and says nothing costs a descriptor, a task and a place among the unfinished handshakes,
and costs himself nothing. The choice: three bounds. `ServeConfig.max_handshakes` holds for all together, and who comes
beyond it waits in the listen queue. `max_handshakes_per_address` keeps any one address from taking all those places,
and `max_connections_per_address` from taking all the lines; who comes beyond either is answered 429 at once, unread
(over TLS he is hung up on: his handshake is what a flood wants to be paid for). Time is bounded elsewhere
(`handshake_s`).

An IPv6 address counts as its /64, for that is what one subscriber has. Connections of proxies that are trusted are
counted once the request has said who is behind them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from talkpath.errors import ConfigError
from talkpath.line.access import is_within, parse_address, parse_network
from talkpath.line.config import ServeConfig

log = logging.getLogger("talkpath.line.accepting")

MAX_TURNED_AWAY = 64
"""Who is answered 429 may take half a second to read it, so many at once; others are hung up on."""
RETRY_S = 1
TURNED_AWAY_S = 0.5
TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % RETRY_S
)


def neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6 its /64."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed) if parsed is not None else address


class Visit:
    """One accepted connection as the bounds see it. `settled` and `left` are idempotent."""

    __slots__ = ("_counted", "_door", "_handshaking", "_place", "address")

    def __init__(self, door: Door, address: str, place: object) -> None:
        self._door = door
        self._place = place
        self.address = address
        self._counted = ""
        self._handshaking = False

    def begin(self) -> bool:
        """Count it, where its address is its own. -> whether there is room"""
        door = self._door
        if not is_within(self.address, door.proxies):
            one = neighbourhood(self.address)
            most = door.config.max_handshakes_per_address
            if (most and door.handshaking[one] >= most) or not self._count(one):
                return False
            door.handshaking[one] += 1
            self._handshaking = True
        return True

    def _count(self, one: str) -> bool:
        most = self._door.config.max_connections_per_address
        if most and self._door.connected[one] >= most:
            return False
        self._door.connected[one] += 1
        self._counted = one
        return True

    def is_for(self, address: str) -> bool:
        """Say who is behind a proxy. -> whether there is room for another of them"""
        if self._counted or address == self.address:
            return True
        self.address = address
        return self._count(neighbourhood(address))

    def settled(self) -> None:
        """The handshake is over, whichever way."""
        self._door.handshakes.release_for(self._place)
        if self._handshaking:
            self._handshaking = False
            _discount(self._door.handshaking, neighbourhood(self.address))

    def left(self) -> None:
        """The connection is over."""
        self.settled()
        if self._counted:
            _discount(self._door.connected, self._counted)
            self._counted = ""


def _discount(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class Places:
    """A bounded number of unfinished handshakes."""

    def __init__(self, total: int) -> None:
        self._limiter = trio.CapacityLimiter(total)
        self._held: set[object] = set()

    @property
    def taken(self) -> int:
        return int(self._limiter.borrowed_tokens)

    async def take(self, holder: object) -> None:
        """Wait for a place. Cancellation: none is taken."""
        await self._limiter.acquire_on_behalf_of(holder)
        self._held.add(holder)

    def release_for(self, holder: object) -> None:
        """Give a place back; idempotent."""
        if holder in self._held:
            self._held.discard(holder)
            self._limiter.release_on_behalf_of(holder)


class Door:
    """What the listening sockets of one server share; see the module."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.handshakes = Places(config.max_handshakes)
        self.proxies = [parse_network("proxies", one) for one in config.proxies]
        self.connected: Counter[str] = Counter()
        self.handshaking: Counter[str] = Counter()
        self.turned_away = 0
        """Connections beyond a bound of their address."""
        self._saying = 0
        self._ready = 0
        """Places taken for whoever comes next."""

    @property
    def unfinished(self) -> int:
        """How many handshakes are."""
        return self.handshakes.taken - self._ready

    def visit(self, address: str, place: object) -> Visit | None:
        """Count one that has come from `address`; None: there is no room for more from there.

        Args:
            place: taken from `handshakes`; the visit gives it back.
        """
        visit = Visit(self, address, place)
        if visit.begin():
            return visit
        self.turned_away += 1
        return None

    async def accept(
        self,
        listening: trio.socket.SocketType,
        serve: Callable[[socket.socket, Visit], Awaitable[None]],
        connections: trio.Nursery,
    ) -> None:
        """Accept for ever; each connection is served by a task in `connections`.

        Args:
            serve: given the socket, which it closes, and its visit, of which it says that it is settled and left.
        """
        while True:
            await self.handshakes.take(token := object())
            self._ready += 1
            try:
                connection, peer = await listening.accept()
            except OSError as exc:
                self.handshakes.release_for(token)
                # Out of descriptors, or a peer that was gone again: the server goes on, a little later.
                log.warning("accept failed: %s", type(exc).__name__)
                await trio.sleep(0.1)
                continue
            except BaseException:
                self.handshakes.release_for(token)
                raise
            finally:
                self._ready -= 1
            plain = socket.socket(connection.family, connection.type, connection.proto, fileno=connection.detach())
            plain.setblocking(False)
            visit = self.visit(str(peer[0]) if isinstance(peer, tuple) else "", token)
            if visit is None:
                self.handshakes.release_for(token)
                self._turn_away(plain, connections)
                continue
            connections.start_soon(serve, plain, visit)

    def _turn_away(self, sock: socket.socket, connections: trio.Nursery) -> None:
        if self.config.tls_context is None and self._saying < MAX_TURNED_AWAY:
            self._saying += 1
            connections.start_soon(self._say_no, sock)
        else:
            sock.close()

    async def _say_no(self, sock: socket.socket) -> None:
        """Answer, and wait a little: to close a socket with unread bytes would take the answer back."""
        try:
            with sock, contextlib.suppress(OSError), trio.move_on_after(TURNED_AWAY_S):
                sock.send(TOO_MANY)
                sock.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    if not sock.recv(16384):
                        break
        finally:
            self._saying -= 1


async def bind_sockets(host: str, ports: tuple[int, ...], config: ServeConfig) -> list[trio.socket.SocketType]:
    """Listen on every address that `host` stands for, at each port.

    Raises:
        ConfigError: nobody would be authenticated.
        OSError: an address cannot be bound.
    """
    sockets: list[trio.socket.SocketType] = []
    try:
        for port in ports:
            sockets += await _bind(host, port, config, sockets)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


async def _bind(
    host: str, port: int, config: ServeConfig, sockets: list[trio.socket.SocketType]
) -> list[trio.socket.SocketType]:
    addresses = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[trio.socket.SocketType] = []
    try:
        for family, kind, protocol, _, address in addresses:
            _check_reach(str(address[0]), config, warn=not sockets and not bound)
            sock = trio.socket.socket(family, kind, protocol)
            bound.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            same_port = bound[0].getsockname()[1] if port == 0 and len(bound) > 1 else port
            await sock.bind((address[0], same_port, *address[2:]))
            sock.listen(config.backlog)
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def _check_reach(address: str, config: ServeConfig, *, warn: bool) -> None:
    parsed = parse_address(address)
    if config.ways or (parsed is not None and parsed.is_loopback):
        return
    if not config.allow_unauthenticated:
        raise ConfigError(
            f"serving on {address} would let anyone who finds the port talk to the bot; say who may connect with "
            "ServeConfig(access=Access(...)), or allow_unauthenticated=True if that is meant"
        )
    if warn:
        log.warning("serving on %s, and anyone who finds the port can talk to the bot: no access is set", address)
