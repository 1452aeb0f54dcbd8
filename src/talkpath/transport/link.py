"""Byte links: what a WebSocket travels on. Non-blocking calls for the clock, and two waits for everybody else.

The clock task never awaits a link: it calls `recv_into` and `send`, which raise `BlockingIOError` like a non-blocking
socket. Handshakes, full sockets and goodbyes await `wait_readable` and `wait_writable`. TCP, TLS and memory offer the
same five calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

import trio

from talkpath.transport.tls import TlsRecords
from talkpath.transport.url_policy import EVERYWHERE, DestinationForbidden, UrlPolicy, open_permitted

MEDIA_SEND_BUFFER_BYTES = 16 * 1024
"""SO_SNDBUF of a media socket. With the default a stalled peer hides 200 s of audio in the kernel; with this about 2
s.
"""
NOT_OURS = frozenset({errno.EBADF, errno.ENOTSOCK})
"""What the system says of a descriptor that somebody else has closed; any other error may pass."""
MAX_RECORDS_BYTES = 16 * 1024
"""Of a long message, what is encrypted at once: at most this much of it waits as cipher for a full socket."""

HANDSHAKE_PIECE_BYTES = 1024
"""What is read at once before there is media: OpenSSL keeps the room of the most it was ever given, and that would be a
peer's chain of certificates."""


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

    __slots__ = ("fd", "recv_into", "send", "sock")

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

    def disown(self) -> None:
        """As `close`, but leave the descriptor alone: somebody closed it, and it may be another's by now."""
        if self.fd is not None:
            self.fd = None
            self.sock.detach()

    def peer_name(self) -> str:
        try:
            return str(self.sock.getpeername()[0])
        except OSError:
            return "gone"


class TlsLink:
    """TLS over a `SocketLink`: no task per message, the same non-blocking calls.

    It owns no buffer: cipher is read into the buffer that the plaintext is asked for in, and decrypted where it lies.
    What is encrypted is sent at once; what the socket does not take waits here, in the order in which it was
    encrypted, and nothing more is encrypted until it has left.

    Whoever moves the socket's bytes in its place (the pump) has the cipher leave through itself with `divert`, and
    gives back with `restore` what has not left; see docs/tls.md.

    Certificates are the context's business, verified by default where a client context is made (`tls`).
    """

    __slots__ = ("_cipher", "_queued", "_receive", "_send", "fd", "inner", "records")

    def __init__(
        self, inner: SocketLink, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None
    ) -> None:
        self.inner = inner
        self._receive = inner.recv_into
        self._send: Callable[[bytes | bytearray | memoryview], int] = inner.send
        self.records = TlsRecords(context, server_side=server_side, server_hostname=server_hostname)
        self._cipher: bytes | memoryview = b""
        self._queued: bytearray | None = None
        self.fd = inner.fd

    async def do_handshake(self) -> None:
        """Complete the TLS handshake.

        Raises:
            ssl.SSLError: it failed; a certificate that does not verify, or an end in the middle of it, among others.
            OSError: the connection broke.

        Cancellation: the link is of no more use; close it.
        """
        records = self.records
        buffer = memoryview(bytearray(HANDSHAKE_PIECE_BYTES))
        n = 0
        while True:
            try:
                done = records.shake(buffer[:n])
            except ssl.SSLError:
                # What is left to say is the alert that tells the peer why.
                with contextlib.suppress(OSError):
                    self._answer()
                raise
            await self._answer_all()
            if done:
                return
            await self.inner.wait_readable()
            try:
                n = self._receive(buffer)
            except BlockingIOError:
                n = 0
                continue
            if n == 0:
                records.receive_eof()

    async def _answer_all(self) -> None:
        while self.records.answering or self._cipher:
            try:
                self._answer()
                self.flush()
            except BlockingIOError:
                await self.inner.wait_writable()

    def _answer(self) -> None:
        """Send what TLS itself has to say, behind what waits."""
        answer = self.records.take()
        if answer:
            self._cipher = b"".join((self._cipher, answer))
            with contextlib.suppress(BlockingIOError):
                self._flush_cipher()

    def divert(self, send: Callable[[bytes | bytearray | memoryview], int]) -> None:
        """Have cipher leave through `send`, what waits first; it takes all that it is given."""
        self._send = send
        self.flush()

    def restore(self, waiting: bytes) -> None:
        """Have cipher leave through the socket again, first of all what `divert`'s `send` took and did not send."""
        self._send = self.inner.send
        self._cipher = b"".join((waiting, self._cipher))

    def decrypt(self, cipher: bytes | memoryview, into: memoryview) -> int:
        """Take cipher that somebody else has read, of any length; returns and raises as `recv_into`."""
        return self._said(lambda: self.records.decrypt(cipher, into))

    def go_on(self, into: memoryview, n: int, exc: ssl.SSLError | None) -> int:
        """As `decrypt`, where a loop has begun it by `TlsRecords.calls`."""
        return self._said(lambda: self.records.go_on(into, n, exc))

    def _said(self, decrypt: Callable[[], int]) -> int:
        try:
            n = decrypt()
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self._answer()
            raise
        if self.records.answering:
            self._answer()
        if n == 0 and not self.records.ended:
            raise BlockingIOError
        return n

    def recv_into(self, buffer: memoryview) -> int:
        records = self.records
        cipher: bytes | memoryview = b""
        if not records.more:
            n = self._receive(buffer)
            if n == 0:
                records.receive_eof()
                return 0
            cipher = buffer[:n]
        try:
            n = records.decrypt(cipher, buffer)
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self._answer()
            raise
        if records.answering:
            self._answer()
        if n == 0 and not records.ended:
            raise BlockingIOError
        return n

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self._cipher or self._queued:
            self.flush()
        if len(data) > MAX_RECORDS_BYTES:
            return self._send_long(data)
        return self._send_records(data)

    def _send_records(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt and send; what the socket does not take waits. -> the length of `data`, for it is all accepted"""
        cipher = self.records.encrypt(data)
        try:
            n = self._send(cipher)
        except BlockingIOError:
            n = 0
        if n != len(cipher):
            self._cipher = memoryview(cipher)[n:]
        return len(data)

    def _send_long(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as the socket takes, and little beyond: the rest need not be encrypted yet."""
        view = memoryview(data)
        sent = 0
        while sent < len(view) and not self._cipher:
            sent += self._send_records(view[sent : sent + MAX_RECORDS_BYTES])
        return sent

    def queue(self, data: bytes | bytearray | memoryview) -> None:
        """Have `data` leave with the next `flush` or `send`, in one record with all that is queued by then.

        For several small messages within one tick: each record costs a call into OpenSSL and one into the system. Who
        queues bounds it: as long as `unsent` is true after a `flush`, the socket is full.
        """
        if self._queued is None:
            self._queued = bytearray(data)
        else:
            self._queued += data

    def unsent(self) -> bool:
        return bool(self._cipher) or self._queued is not None

    def flush(self) -> None:
        if self._cipher:
            self._flush_cipher()
        queued = self._queued
        if queued is not None:
            self._queued = None
            n = self._send_long(queued) if len(queued) > MAX_RECORDS_BYTES else self._send_records(queued)
            if n < len(queued):
                self._queued = queued[n:]
            if self._cipher:
                raise BlockingIOError

    def _flush_cipher(self) -> None:
        while self._cipher:
            n = self._send(self._cipher)
            self._cipher = memoryview(self._cipher)[n:]
        self._cipher = b""

    def more(self) -> bool:
        return self.records.more

    async def wait_readable(self) -> None:
        if self.records.more:
            await trio.lowlevel.checkpoint()
            return
        await self.inner.wait_readable()

    async def wait_writable(self) -> None:
        await self.inner.wait_writable()

    def tune_for_media(self) -> None:
        self.inner.tune_for_media()

    def finish(self) -> None:
        self._say_goodbye()
        self.inner.finish()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
            self._cipher = self.records.close_notify()
            self._flush_cipher()

    def close(self) -> None:
        if self.inner.fd is not None:
            self._say_goodbye()
        self.inner.close()
        self.fd = None

    def disown(self) -> None:
        """As `SocketLink.disown`."""
        self.inner.disown()
        self.fd = None

    def peer_name(self) -> str:
        return self.inner.peer_name()


async def open_socket_link(host: str, port: int, scheme: str = "ws", policy: UrlPolicy = EVERYWHERE) -> SocketLink:
    """Connect to `host`:`port`, whichever of its addresses answers first: one that swallows packets holds up no other.

    An address that is one already is connected to as it is: the race between one runner costs as much again as all
    else that is done to set up a stream.

    Raises:
        DestinationForbidden: `policy` does not permit it.
        OSError: none of them answered; the last error. The host's name is not in it.

    Cancellation: no socket is left open.

    Source: RFC 8305 (happy eyeballs), by way of Trio.
    """
    if (family := _family_of(host)) is not None:
        policy.check(scheme, host, port)
        if not policy.permits(host):
            raise DestinationForbidden("the address is not permitted")
        return await _connect(family, host, port)
    try:
        stream = await open_permitted(policy, scheme, host, port)
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


def _family_of(host: str) -> socket.AddressFamily | None:
    """Return which kind of IP address it is; None: a name, or an address that names a network interface."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):  # UnicodeError is a ValueError
            socket.inet_pton(family, host)
            return family
    return None


async def _connect(family: socket.AddressFamily, host: str, port: int) -> SocketLink:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        error = sock.connect_ex((host, port))
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await trio.lowlevel.checkpoint()
        if error:
            raise OSError(error, os.strerror(error))
        with contextlib.suppress(OSError, AttributeError):  # as Trio's own connections have it, where the system does
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MEDIA_SEND_BUFFER_BYTES)
    except BaseException:
        sock.close()
        raise
    link = SocketLink(sock)
    link.tune_for_media()
    return link
