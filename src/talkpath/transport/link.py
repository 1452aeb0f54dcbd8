"""Byte links: what a WebSocket travels on. Non-blocking calls for the clock, and two waits for everybody else.

The clock task never awaits a link: it calls `recv_into` and `send`, which raise `BlockingIOError` like a non-blocking
socket. Handshakes, full sockets and goodbyes await `wait_readable` and `wait_writable`. TCP, TLS and memory offer the
same five calls.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any, Protocol

import trio

MEDIA_SEND_BUFFER_BYTES = 16 * 1024
"""SO_SNDBUF of a media socket. With the default a stalled peer hides 200 s of audio in the kernel; with this about 2
s.
"""
_TLS_READ_BYTES = 64 * 1024


class Link(Protocol):
    """One end of a reliable byte stream."""

    fd: int | None
    """For the driver's poll; None: a memory link, which says itself that it is readable."""

    def recv_into(self, buffer: memoryview) -> int:
        """Read what is there; 0 is the end. Raises BlockingIOError (nothing now) or OSError (broken)."""
        ...

    def send(self, data: bytes | bytearray | memoryview, /) -> int:
        """Hand over what fits. Raises BlockingIOError (nothing fits) or OSError (broken)."""
        ...

    def unsent(self) -> bool:
        """Whether bytes accepted by `send` still wait in the link (TLS records); `flush` moves them."""
        ...

    def flush(self) -> None:
        """Hand over waiting bytes. Raises BlockingIOError or OSError."""
        ...

    def more(self) -> bool:
        """Whether `recv_into` may have more although the system says nothing (TLS)."""
        ...

    async def wait_readable(self) -> None: ...

    async def wait_writable(self) -> None: ...

    def finish(self) -> None:
        """Say that nothing more will be sent, as far as the link can; reading goes on. Never raises."""
        ...

    def close(self) -> None:
        """Close at once; idempotent."""
        ...

    def peer_name(self) -> str:
        """Who is at the other end, for the log of a refused connection; never a phone number."""
        ...


class SocketLink:
    """A connected, non-blocking TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd: int | None = sock.fileno()
        self.recv_into = sock.recv_into
        self.send = sock.send

    def tune_for_media(self) -> None:
        """Send small messages at once and let little hide in the kernel."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MEDIA_SEND_BUFFER_BYTES)

    def unsent(self) -> bool:
        return False

    def flush(self) -> None:
        return

    def more(self) -> bool:
        return False

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self.sock)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self.sock)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.fd is not None:
            trio.lowlevel.notify_closing(self.sock)
            self.fd = None
            self.sock.close()

    def peer_name(self) -> str:
        try:
            return str(self.sock.getpeername()[0])
        except OSError:
            return "gone"


class TlsLink:
    """TLS over a `SocketLink`, through memory buffers: no task per message, the same non-blocking calls.

    Source: RFC 8446; certificates are the context's business, verified by default where a client context is made.
    """

    def __init__(
        self, inner: SocketLink, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None
    ) -> None:
        self._inner = inner
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        # typeshed knows only the form without a buffer to read into.
        self._read: Any = self._tls.read
        self._cipher = b""
        self._buffer = bytearray(_TLS_READ_BYTES)
        self.fd = inner.fd
        self._more = False

    async def do_handshake(self) -> None:
        """Complete the TLS handshake. Cancellation: the link is of no more use; close it."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush_all()
                await self._inner.wait_readable()
                with contextlib.suppress(BlockingIOError):
                    self._pull()
                continue
            except ssl.SSLError:
                # What is left to say is the alert that tells the peer why.
                with contextlib.suppress(OSError):
                    self.flush()
                raise
            await self._flush_all()
            return

    async def _flush_all(self) -> None:
        while self.unsent():
            try:
                self.flush()
            except BlockingIOError:
                await self._inner.wait_writable()

    def _pull(self) -> None:
        """Take what the socket has. Raises BlockingIOError when that is nothing."""
        n = self._inner.recv_into(self._buffer)
        if n == 0:
            self._in.write_eof()
        else:
            self._in.write(memoryview(self._buffer)[:n])

    def recv_into(self, buffer: memoryview) -> int:
        pulled = False
        while True:
            try:
                n = int(self._read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                self._more = False
                if pulled:
                    raise BlockingIOError from None
                self._pull()
                pulled = True
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                self._more = False
                return 0
            self._more = n > 0 and (self._tls.pending() > 0 or self._in.pending > 0)
            # A key update or an alert may have left something to say.
            if self._out.pending:
                self._try_flush()
            return n

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.unsent():
            self._try_flush()
            if self.unsent():
                raise BlockingIOError
        n = self._tls.write(data)
        self._try_flush()
        return n

    def _try_flush(self) -> None:
        try:
            self.flush()
        except BlockingIOError:
            return

    def unsent(self) -> bool:
        return bool(self._cipher) or self._out.pending > 0

    def flush(self) -> None:
        while True:
            if not self._cipher:
                self._cipher = self._out.read()
                if not self._cipher:
                    return
            n = self._inner.send(self._cipher)
            self._cipher = self._cipher[n:]

    def more(self) -> bool:
        return self._more

    async def wait_readable(self) -> None:
        if self._more:
            await trio.lowlevel.checkpoint()
            return
        await self._inner.wait_readable()

    async def wait_writable(self) -> None:
        await self._inner.wait_writable()

    def tune_for_media(self) -> None:
        self._inner.tune_for_media()

    def finish(self) -> None:
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self.flush()
        self._inner.finish()

    def close(self) -> None:
        if self._inner.fd is not None:
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self.flush()
        self._inner.close()
        self.fd = None

    def peer_name(self) -> str:
        return self._inner.peer_name()


def client_context(
    *, ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    """Make a context that verifies the peer's certificate and name, TLS 1.2 or later."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


_default_context: ssl.SSLContext | None = None


async def default_client_context() -> ssl.SSLContext:
    """Return the context of whoever passed none: made once, verifying against the system's authorities.

    To read them takes some 50 ms, in which nobody would hear anything: so that is done in a thread, once.

    Cancellation: the next one begins anew.
    """
    global _default_context
    if _default_context is None:
        made = await trio.to_thread.run_sync(client_context, abandon_on_cancel=True)
        _default_context = _default_context or made
    return _default_context


async def open_socket_link(host: str, port: int) -> SocketLink:
    """Connect to `host`:`port`, whichever of its addresses answers first: one that swallows packets holds up no other.

    Raises:
        OSError: none of them answered; the last error. The host's name is not in it.

    Cancellation: no socket is left open.

    Source: RFC 8305 (happy eyeballs), by way of Trio.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, "cannot resolve the host name") from None
    except UnicodeError:
        raise OSError("cannot resolve the host name (it is not one)") from None
    except OSError as exc:
        attempts = exc.__cause__
        if isinstance(attempts, ExceptionGroup) and isinstance(attempts.exceptions[-1], OSError):
            raise attempts.exceptions[-1] from None
        raise
    connected = stream.socket
    sock = socket.socket(connected.family, connected.type, connected.proto, fileno=connected.detach())
    link = SocketLink(sock)
    link.tune_for_media()
    return link
