"""How a WebSocket comes about: addresses, links, the upgrade; at the client's end and at the server's.

All of this may wait, so tasks do it, under bounds of their callers; then a `Connection` takes the link over.
"""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio

from talkpath.errors import ConfigError
from talkpath.transport.link import Link, TlsLink, open_socket_link
from talkpath.transport.memory import connect_memory
from talkpath.transport.tls import default_client_context
from talkpath.transport.url_policy import EVERYWHERE, UrlPolicy
from talkpath.wire.websocket import (
    ClientHandshake,
    HandshakeError,
    ServerHandshake,
    UpgradeRequest,
)

_BLANK = re.compile(r"[\x00-\x20\x7f]")
REFUSAL_S = 0.5
MAX_REFUSED_BYTES = 1024 * 1024
"""How long one that was turned away may take to hang up, and what may still come from it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The address of an application, taken apart."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        return self.scheme in ("wss", "https")

    @property
    def authority(self) -> str:
        """Of the Host header: the port is left out where it goes without saying."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """As the other end sees it asked for; what a signature covers."""
        return f"{self.scheme}://{self.authority}{self.path}"


@functools.lru_cache(maxsize=8)  # a specification is checked, then used
def parse_url(url: str) -> Target:
    """Take apart a ``ws://``, ``wss://`` or ``memory://`` address.

    Raises:
        ConfigError: not such an address; the caller's to mend. The address itself is not repeated: its path may be
            secret.
    """
    if len(url) > 2048:
        raise ConfigError(f"the stream's url has {len(url)} characters; at most 2048 are allowed")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigError(f"the stream's url cannot be read ({exc}); write it like wss://host:port/path") from None
    if parts.scheme not in ("ws", "wss", "memory"):
        raise ConfigError(
            f"the stream's url begins with {parts.scheme!r}; it must begin with ws:// or wss:// (or memory:// in tests)"
        )
    if not parts.hostname:
        raise ConfigError("the stream's url names no host; write it like wss://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the stream's url carries a user name; pass a bearer token instead")
    if _BLANK.search(url):
        raise ConfigError("the stream's url contains white space or control characters")
    if not (parts.path.isascii() and parts.query.isascii()):
        raise ConfigError("the stream's url has a path or query that is not ASCII; percent-encode it")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname if parts.scheme != "memory" else parts.netloc
    return Target(parts.scheme, host, port or (443 if parts.scheme == "wss" else 80), path)


async def receive_some(link: Link, buffer: bytearray) -> memoryview:
    """Wait for bytes on `link` and return them as a view of `buffer`; empty at the end. For handshakes and goodbyes
    only.

    It always lets others run: a peer that never stops sending holds up nobody, and its deadline comes. It waits before
    it reads, for what is read here is an answer, which is hardly ever there yet.
    """
    view = memoryview(buffer)
    while True:
        await link.wait_readable()
        try:
            return view[: link.recv_into(view)]
        except BlockingIOError:
            continue


async def send_all(link: Link, data: bytes) -> None:
    """Send all of `data`, waiting as needed and no longer. For handshakes and goodbyes only, which then wait for an
    answer.
    """
    rest = memoryview(data)
    while rest or link.unsent():
        try:
            if rest:
                rest = rest[link.send(rest) :]
            else:
                link.flush()
        except BlockingIOError:
            await link.wait_writable()


async def open_link(target: Target, context: ssl.SSLContext | None = None, policy: UrlPolicy = EVERYWHERE) -> Link:
    """Open what a WebSocket to `target` travels on, as far as `policy` permits. Raises OSError (`DestinationForbidden`
    is one), ssl.SSLError. Cancellation: nothing is left open.
    """
    if target.scheme == "memory":
        policy.check(target.scheme, target.host, target.port)
        link = connect_memory(target.host)
        await trio.lowlevel.checkpoint()
        return link
    tcp = await open_socket_link(target.host, target.port, target.scheme, policy)
    if not target.secure:
        return tcp
    try:
        context = context or await default_client_context()
        tls = TlsLink(tcp, context, server_side=False, server_hostname=target.host)
        await tls.do_handshake()
    except BaseException:
        tcp.close()
        raise
    return tls


async def open_websocket(
    target: Target,
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocol: str = "",
    context: ssl.SSLContext | None = None,
    policy: UrlPolicy = EVERYWHERE,
) -> tuple[Link, bytes]:
    """Connect and upgrade; return the link and the bytes that came after the handshake.

    Raises:
        DestinationForbidden: `policy` does not permit it.
        OSError: could not connect, or the connection broke.
        ssl.SSLError: TLS failed; a certificate that does not verify among others.
        RemoteWireError: the peer answered, but not with a WebSocket.

    Cancellation: nothing is left open.
    """
    link = await open_link(target, context, policy)
    try:
        handshake = ClientHandshake(
            target.authority, target.path, headers, subprotocols=(subprotocol,) if subprotocol else ()
        )
        await send_all(link, handshake.request)
        buffer = bytearray(4096)
        while not handshake.receive(bytes(await receive_some(link, buffer))):
            pass
        return link, handshake.leftover
    except BaseException:
        link.close()
        raise


async def receive_upgrade(link: Link, begun: bytes = b"") -> tuple[ServerHandshake, UpgradeRequest]:
    """Read an upgrade request, of which `begun` has been read. The caller bounds the wait and closes the link.

    Raises:
        RemoteWireError: it is none; who sent it has been told so, in HTTP.
        OSError: the connection broke.
    """
    handshake = ServerHandshake()
    buffer = bytearray(4096)
    try:
        while True:
            request = handshake.receive(begun or bytes(await receive_some(link, buffer)))
            if request is not None:
                return handshake, request
            begun = b""
    except HandshakeError as exc:
        if exc.status is not None:
            await refuse(link, handshake.reject(exc.status, "", exc.headers.items()))
        raise


async def refuse(link: Link, goodbye: bytes) -> None:
    """Say why not, and let the peer read it: closing a socket that holds unread bytes would take the words back.

    Cancellation: the peer may have read it or not.
    """
    await send_all(link, goodbye)
    link.finish()
    n_bytes = 0
    buffer = bytearray(16384)
    # One that hangs up without ceremony (a reset, no close_notify) has hung up, which is all that is waited for.
    with trio.move_on_after(REFUSAL_S), contextlib.suppress(OSError):
        while n_bytes < MAX_REFUSED_BYTES and (data := await receive_some(link, buffer)):
            n_bytes += len(data)
