"""TLS on a media connection: a message out at one end and in at the other, over many connections on loopback.

What is asked is what TLS adds, so a plain socket is in every round; and how much of that is ours, so the least that
Python's `ssl` needs is there as well: write, read, send; receive, write, read, with nothing around it. Many
connections take turns: a single one stays in the cache, where TLS looks half as dear as it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import trio

from benchmarks.peers import find_peer
from benchmarks.timing import Candidate, Row
from talkpath.transport.link import SocketLink, TlsLink
from talkpath.transport.tls import check_context

CONNECTIONS = 100
OUT_BYTES = 385
IN_BYTES = 305
"""Of a frame of 20 ms: the platform's message and the application's."""
Ends = list[tuple[Any, Any]]


def _contexts(trustme: Any) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    check_context(client, server_side=False)
    check_context(server, server_side=True)
    return client, server


def _connect() -> tuple[SocketLink, SocketLink]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = SocketLink(socket.create_connection(listener.getsockname()))
        theirs = SocketLink(listener.accept()[0])
    ours.tune_for_media()
    theirs.tune_for_media()
    return ours, theirs


async def _tls_links(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Ends:
    ends: Ends = []
    for _ in range(CONNECTIONS):
        ours, theirs = _connect()
        client = TlsLink(ours, contexts[0], server_side=False, server_hostname="localhost")
        server = TlsLink(theirs, contexts[1], server_side=True, server_hostname=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        ends.append((client, server))
    return ends


class Bare:
    """The least that `ssl` needs for a message: no ends, no full sockets, no records in pieces."""

    def __init__(self, inner: SocketLink, context: ssl.SSLContext, *, server_side: bool) -> None:
        arriving, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(arriving, leaving, server_side=server_side, server_hostname=name)
        self.feed, self.take = arriving.write, leaving.read
        self._write, self._send, self._receive = self.tls.write, inner.send, inner.recv_into
        self._read: Any = self.tls.read

    def send(self, data: bytes) -> None:
        self._write(data)
        self._send(self.take())

    def recv_into(self, buffer: memoryview) -> int:
        self.feed(buffer[: self._receive(buffer)])
        return int(self._read(len(buffer), buffer))


def _bare(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Ends:
    ends: Ends = []
    for _ in range(CONNECTIONS):
        ours, theirs = _connect()
        client, server = Bare(ours, contexts[0], server_side=False), Bare(theirs, contexts[1], server_side=True)
        for _ in range(2):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(ssl.SSLWantReadError):
                    one.tls.do_handshake()
                other.feed(one.take())
        with contextlib.suppress(ssl.SSLWantReadError):  # session tickets
            client.tls.read(1)
        ends.append((client, server))
    return ends


def _there_and_back(ends: Ends) -> Callable[[], None]:
    """Each end of each connection sends one message; then each reads the other's."""
    out, back = os.urandom(OUT_BYTES), os.urandom(IN_BYTES)
    buffer = memoryview(bytearray(64 * 1024))
    sends = [(one.send, out) for one, _ in ends] + [(other.send, back) for _, other in ends]
    reads = [one.recv_into for one, _ in ends] + [other.recv_into for _, other in ends]

    def run() -> None:
        for send, data in sends:
            send(data)
        for read in reads:
            read(buffer)

    return run


def rows() -> Sequence[Row]:
    """One call-frame of both ends: a message each way. Empty without the certificates that `trustme` makes."""
    trustme = find_peer("trustme")
    if trustme is None:
        return ()
    contexts = _contexts(trustme)
    ways: list[tuple[str, Ends]] = [
        ("talkpath", trio.run(_tls_links, contexts)),
        ("ssl, bare", _bare(contexts)),
        ("plain sockets", [_connect() for _ in range(CONNECTIONS)]),
    ]
    for _, ends in ways:
        for one, other in ends:  # a server's tickets are behind us, and every way carries what it should
            buffer = memoryview(bytearray(64 * 1024))
            for sender, reader, data in ((one, other, b"out"), (other, one, b"back")):
                sender.send(data)
                if bytes(buffer[: reader.recv_into(buffer)]) != data:
                    raise RuntimeError("a connection carries something else than it was given")
    ours, *peers = (
        Candidate(name, _there_and_back(ends), operations=CONNECTIONS, keeps=(ends,)) for name, ends in ways
    )
    return [Row("a message each way, both ends", ours, peers)]
