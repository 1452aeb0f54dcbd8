"""TLS as records and as a link, against Python's `ssl` used in the plainest way and against the program openssl."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from support.calls import engine
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, ServeConfig, connect_line, serve_lines
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.transport.link import SocketLink, TlsLink
from talkpath.transport.tls import TlsRecords, check_context, client_context, server_context
from talkpath.transport.upgrade import receive_some, send_all

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
both_sides = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


class Files:
    """Certificates in files: an authority with a server's and a client's, and a client's of another authority."""

    def __init__(self, where: Path) -> None:
        good, unknown = (trustme.CA(key_type=trustme.KeyType.ECDSA) for _ in range(2))
        self._contexts: dict[ssl.TLSVersion | None, tuple[ssl.SSLContext, ssl.SSLContext]] = {}
        self.authority = self._write(where / "authority.pem", [good.cert_pem])
        self.unknown = self._write(where / "unknown.pem", [unknown.cert_pem])
        self.server, self.server_key = self._pair(where / "server", good.issue_cert("localhost"))
        self.client, self.client_key = self._pair(where / "client", good.issue_cert("client@example.org"))
        self.stranger, self.stranger_key = self._pair(where / "stranger", unknown.issue_cert("client@example.org"))

    def _pair(self, stem: Path, issued: trustme.LeafCert) -> tuple[Path, Path]:
        return (
            self._write(stem.with_suffix(".pem"), issued.cert_chain_pems),
            self._write(stem.with_suffix(".key"), [issued.private_key_pem]),
        )

    @staticmethod
    def _write(path: Path, blobs: list[trustme.Blob]) -> Path:
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return path

    def server_context(self, **options: Any) -> ssl.SSLContext:
        return server_context(self.server, self.server_key, **options)

    def client_context(self, **options: Any) -> ssl.SSLContext:
        return client_context(ca_file=self.authority, **options)

    def contexts(self, version: ssl.TLSVersion | None = None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        if version not in self._contexts:
            client, server = self.client_context(), self.server_context()
            if version is not None:
                server.maximum_version = version
            self._contexts[version] = client, server
        return self._contexts[version]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


class Peer:
    """The other end, in the plainest way there is."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=name)

    def shake(self, cipher: bytes) -> bytes:
        self._in.write(cipher)
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._out.read()

    def say(self, data: bytes) -> bytes:
        if data:
            self.tls.write(data)
        return self._out.read()

    def hear(self, cipher: bytes) -> bytes:
        self._in.write(cipher)
        heard = b""
        try:
            while data := self.tls.read(65536):
                heard += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return heard

    def leave(self) -> bytes:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._out.read()

    def fail(self, cipher: bytes) -> tuple[ssl.SSLError, bytes]:
        """Hear what cannot be understood. -> what was thought of it, what was answered"""
        with pytest.raises(ssl.SSLError) as caught:
            self.hear(cipher)
        return caught.value, self._out.read()


def shaken(contexts: tuple[ssl.SSLContext, ssl.SSLContext], *, server_side: bool = False) -> tuple[TlsRecords, Peer]:
    """Our end and a peer, past the handshake; session tickets are still on their way to a client."""
    ours = TlsRecords(
        contexts[server_side], server_side=server_side, server_hostname=None if server_side else "localhost"
    )
    peer = Peer(contexts[not server_side], server_side=not server_side)
    cipher, done = b"", False
    while not done:
        done = ours.shake(cipher)
        cipher = peer.shake(ours.take())
    # A TLS 1.3 server's tickets, a TLS 1.2 server's last flight.
    into = memoryview(bytearray(64))
    if cipher:
        assert ours.decrypt(cipher, into) == 0
    assert not ours.ended
    assert not ours.more
    return ours, peer


def heard(ours: TlsRecords, cipher: bytes, room: int = 65536) -> bytes:
    """Decrypt as the owner of a socket would."""
    into = memoryview(bytearray(room))
    got = bytes(into[: ours.decrypt(cipher, into)])
    while ours.more:
        got += bytes(into[: ours.decrypt(b"", into)])
    return got


# Records


@both_versions
@both_sides
def test_what_one_end_encrypts_the_other_reads(files: Files, version: ssl.TLSVersion, server_side: bool) -> None:
    ours, peer = shaken(files.contexts(version), server_side=server_side)
    assert ours.version() == {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]
    assert ours.alpn_protocol() == "http/1.1"
    for size in (1, 385, 4096, 4097, 100_000):
        data = os.urandom(size)
        assert peer.hear(ours.encrypt(data)) == data
        assert heard(ours, peer.say(data)) == data
    assert peer.hear(ours.encrypt(b"")) == b""


@both_versions
def test_a_message_is_one_record(files: Files, version: ssl.TLSVersion) -> None:
    ours, _ = shaken(files.contexts(version))
    assert records_in(ours.encrypt(bytes(1700))) == 1


def records_in(cipher: bytes) -> int:
    count = 0
    while cipher:
        assert cipher[0] == 23, "application data"
        cipher = cipher[5 + int.from_bytes(cipher[3:5], "big") :]
        count += 1
    return count


@both_versions
def test_nothing_is_raised_for_whole_messages(files: Files, version: ssl.TLSVersion) -> None:
    ours, peer = shaken(files.contexts(version))
    into = memoryview(bytearray(65536))
    raised: list[Any] = []

    def watch(frame: FrameType, event: str, what: Any) -> None:
        if event == "c_exception":
            raised.append(what)

    arriving = [(peer.say(b"a" * n) + b"".join(peer.say(b"b" * n) for _ in range(n % 3))) for n in range(1, 400)]
    sys.setprofile(watch)
    try:
        for cipher in arriving:
            ours.decrypt(cipher, into)
            ours.encrypt(into[:385])
    finally:
        sys.setprofile(None)
    assert raised == []


@both_versions
def test_records_in_pieces_of_one_byte(files: Files, version: ssl.TLSVersion) -> None:
    ours, peer = shaken(files.contexts(version))
    cipher = b"".join(peer.say(word) for word in (b"one", b"two", b"three" * 50))
    got = b"".join(heard(ours, cipher[at : at + 1]) for at in range(len(cipher)))
    assert got == b"onetwo" + b"three" * 50


@given(
    sizes=st.lists(st.one_of(st.integers(1, 1500), st.integers(1, 40_000)), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    room=st.one_of(st.integers(1, 600), st.integers(600, 70_000)),
    version=st.sampled_from(VERSIONS),
    in_place=st.booleans(),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_however_cipher_is_cut_the_plaintext_is_the_same(
    files: Files, sizes: list[int], cuts: list[int], room: int, version: ssl.TLSVersion, in_place: bool
) -> None:
    ours, peer = shaken(files.contexts(version))
    said = [bytes([n]) * size for n, size in enumerate(sizes)]
    room = max(room, sum(sizes) // 200)
    cipher = b"".join(peer.say(data) for data in said) + peer.leave()
    edges = sorted({0, len(cipher), *(cut % (len(cipher) + 1) for cut in cuts)})
    buffer = bytearray(room)
    into = memoryview(buffer)
    got = b""
    for begin, end in pairwise(edges):
        for at in range(begin, end, room):
            piece = memoryview(cipher)[at : min(at + room, end)]
            if in_place:  # as a link does: the cipher is where the plaintext goes
                into[: len(piece)] = piece
                piece = into[: len(piece)]
            got += bytes(into[: ours.decrypt(piece, into)])
            while ours.more:
                got += bytes(into[: ours.decrypt(b"", into)])
    assert got == b"".join(said)
    assert ours.ended


def test_a_record_longer_than_the_buffer_comes_in_parts(files: Files) -> None:
    ours, peer = shaken(files.contexts())
    data = os.urandom(16384)
    cipher = peer.say(data)
    assert records_in(cipher) == 1
    assert heard(ours, cipher, room=1000) == data


# Ends


@both_versions
@both_sides
def test_close_notify_is_an_end_behind_the_data(files: Files, version: ssl.TLSVersion, server_side: bool) -> None:
    ours, peer = shaken(files.contexts(version), server_side=server_side)
    into = memoryview(bytearray(100))
    n = ours.decrypt(peer.say(b"last words") + peer.leave(), into)
    assert (bytes(into[:n]), ours.more, ours.ended) == (b"last words", True, False)
    assert (ours.decrypt(b"", into), ours.more, ours.ended) == (0, False, True)
    ours.receive_eof()
    assert ours.decrypt(b"whatever follows", into) == 0
    assert peer.hear(ours.encrypt(b"and mine")) == b"and mine"


@both_versions
def test_an_end_without_close_notify_is_none(files: Files, version: ssl.TLSVersion) -> None:
    ours, peer = shaken(files.contexts(version))
    assert heard(ours, peer.say(b"last words")) == b"last words"
    with pytest.raises(ssl.SSLEOFError, match="without a TLS close_notify"):
        ours.receive_eof()


@both_versions
@both_sides
def test_a_fatal_alert_breaks_with_its_reason(files: Files, version: ssl.TLSVersion, server_side: bool) -> None:
    ours, peer = shaken(files.contexts(version), server_side=server_side)
    cipher = bytearray(ours.encrypt(b"hello"))
    cipher[-1] ^= 1
    before = peer.say(b"before it")
    _, alert = peer.fail(bytes(cipher))
    into = memoryview(bytearray(100))
    n = ours.decrypt(before + alert, into)
    assert (bytes(into[:n]), ours.more) == (b"before it", True), "what came before a failure is not lost"
    with pytest.raises(ssl.SSLError) as caught:
        ours.decrypt(b"", into)
    assert caught.value.reason == "SSLV3_ALERT_BAD_RECORD_MAC"
    with pytest.raises(ssl.SSLError):
        ours.decrypt(peer.say(b""), into)


GARBAGE = {
    "another protocol": lambda cipher: b"GET / HTTP/1.1\r\n\r\n",
    "a byte changed": lambda cipher: cipher[:-1] + bytes([cipher[-1] ^ 1]),
    "a record twice": lambda cipher: cipher + cipher,
    "too long a record": lambda cipher: b"\x17\x03\x03\xff\xff" + bytes(70_000),
    "an unknown kind of record": lambda cipher: b"\x63\x03\x03\x00\x01\x00",
    "many": lambda cipher: os.urandom(9000),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@both_versions
def test_garbage_breaks_the_connection_and_the_peer_is_told(
    files: Files, version: ssl.TLSVersion, garbage: str
) -> None:
    ours, peer = shaken(files.contexts(version))
    cipher = GARBAGE[garbage](peer.say(b"the secret of the call"))
    with pytest.raises(ssl.SSLError) as caught:
        heard(ours, cipher, 100_000)
    assert "secret" not in f"{caught.value!r}"
    assert ours.answering
    assert peer.fail(ours.take())[0].reason.startswith(("SSLV3_ALERT", "TLSV1_ALERT"))
    with pytest.raises(ssl.SSLError):
        heard(ours, peer.say(b"and on"))


@both_versions
def test_after_our_close_notify_the_peer_may_go_on(files: Files, version: ssl.TLSVersion) -> None:
    ours, peer = shaken(files.contexts(version))
    assert peer.hear(ours.encrypt(b"last words") + ours.close_notify()) == b"last words"
    assert peer.tls.read(1) == b"", "the peer was told"
    for word in (b"and", b"on"):
        assert heard(ours, peer.say(word)) == word
    with pytest.raises(ssl.SSLError):
        ours.encrypt(b"one more thing")


# Certificates


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def connected(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    ours = socket.create_connection(listener.getsockname())
    return ours, listener.accept()[0]


async def meet(client: ssl.SSLContext, server: ssl.SSLContext, name: str = "localhost") -> list[BaseException | None]:
    """Have two links shake hands and exchange a word. -> what became of the client, of the server"""
    came_of: list[BaseException | None] = [None, None]

    async def one(at: int, link: TlsLink) -> None:
        try:
            await link.do_handshake()
            await send_all(link, b"word")
            assert bytes(await receive_some(link, bytearray(100))) == b"word"
        except OSError as exc:
            came_of[at] = exc

    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours, theirs = connected(listening)
    links = (
        TlsLink(SocketLink(ours), client, server_side=False, server_hostname=name),
        TlsLink(SocketLink(theirs), server, server_side=True, server_hostname=None),
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for at, link in enumerate(links):
                nursery.start_soon(one, at, link)
    for link in links:
        link.close()
    return came_of


@both_versions
async def test_a_server_may_demand_a_certificate(files: Files, version: ssl.TLSVersion) -> None:
    server = files.server_context(client_ca_file=files.authority)
    server.maximum_version = version
    assert await meet(files.client_context(cert_file=files.client, key_file=files.client_key), server) == [None, None]
    for client, why in (
        (files.client_context(), "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (files.client_context(cert_file=files.stranger, key_file=files.stranger_key), "CERTIFICATE_VERIFY_FAILED"),
    ):
        theirs, ours = await meet(client, server)
        assert isinstance(ours, ssl.SSLError)
        assert ours.reason == why
        assert isinstance(theirs, ssl.SSLError)
        assert "ALERT" in str(theirs.reason), "the client was told why"


@both_versions
async def test_a_client_verifies_authority_and_name(files: Files, version: ssl.TLSVersion) -> None:
    server = files.server_context()
    server.maximum_version = version
    for client, name in ((files.client_context(), "elsewhere.example"), (client_context(), "localhost")):
        ours, theirs = await meet(client, server, name)
        assert isinstance(ours, ssl.SSLCertVerificationError)
        assert isinstance(theirs, ssl.SSLError)


async def echo(line: Line) -> None:
    line.speak(ToneSource(450).take(1600), sample_rate_hz=8000)
    await line.wait_ended()


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[str]:
    serve = partial(serve_lines, echo, "127.0.0.1", 0, config=ServeConfig(tls_context=context))
    async with trio.open_nursery() as nursery:
        ((_, port), *_) = await nursery.start(serve)
        yield f"wss://localhost:{port}/"
        nursery.cancel_scope.cancel()


@pytest.mark.smoke
@both_versions
async def test_a_call_between_ends_that_both_show_certificates(files: Files, version: ssl.TLSVersion) -> None:
    server = files.server_context(client_ca_file=files.authority)
    server.maximum_version = version
    known = files.client_context(cert_file=files.client, key_file=files.client_key)
    leg = MemoryLeg()
    async with serving(server) as url:
        async with engine(EngineConfig(tls_context=known)) as which, which.open_call(leg) as call:
            await call.start_stream(StreamSpec(url=url, bidirectional=True))
            with trio.fail_after(10):
                while not find_tones(leg.heard(), 8000, [450]):  # noqa: ASYNC110 - a leg tells nobody
                    await trio.sleep(0.02)
        settings = EngineConfig(tls_context=files.client_context(), connect_attempts=1)
        async with engine(settings) as which, which.open_call(MemoryLeg()) as call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url=url))
        assert caught.value.reason is EndReason.CONNECT_FAILED
        assert isinstance(caught.value.cause, ssl.SSLError)


# Contexts


def old_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    return context


def lax_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    return context


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda files: "default", "it must be an ssl.SSLContext"),
        (lambda files: old_context(), "before TLS 1.2"),
        (lambda files: lax_context(), "before TLS 1.2"),
        (lambda files: files.server_context(), r"client_context\(\)"),
    ],
    ids=["a word", "TLS 1.1", "anything", "the other end's"],
)
async def test_a_context_that_will_not_do_is_refused_when_it_is_passed(
    files: Files, make: Callable[[Files], Any], says: str
) -> None:
    context = make(files)
    with pytest.raises(ConfigError, match=says):
        EngineConfig(tls_context=context)
    with pytest.raises(ConfigError, match=says):
        async with connect_line("wss://localhost:1/", tls_context=context):
            pass


def test_a_clients_context_serves_nobody(files: Files) -> None:
    with pytest.raises(ConfigError, match=r"server_context\(\)"):
        ServeConfig(tls_context=files.client_context())


def test_forbidding_old_versions_the_old_way_is_enough() -> None:
    context = lax_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.options |= ssl.OP_NO_SSLv3 | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    check_context(context, server_side=False)
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_made_contexts_verify(files: Files) -> None:
    client = files.client_context()
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert files.server_context().verify_mode is ssl.CERT_NONE
    assert files.server_context(client_ca_file=files.authority).verify_mode is ssl.CERT_REQUIRED
    for context in (client, files.server_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: client_context(ca_file=f.authority.parent / "none.pem"), "^ca_file cannot be used .No such file"),
        (lambda f: client_context(ca_file=f.server_key), "^ca_file cannot be used .NO_CERTIFICATE_OR_CRL_FOUND"),
        (lambda f: client_context(key_file=f.client_key), "without cert_file"),
        (lambda f: f.client_context(cert_file=f.client, key_file=f.server_key), "key_file .* .KEY_VALUES_MISMATCH"),
        (lambda f: f.client_context(cert_file=f.client), "^cert_file cannot be used"),
        (lambda f: server_context(f.server, f.client_key), "KEY_VALUES_MISMATCH"),
        (lambda f: f.server_context(client_ca_file=f.client_key), "^client_ca_file cannot be used"),
    ],
)
def test_a_file_that_is_of_no_use_is_named(files: Files, make: Callable[[Files], Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make(files)


def test_a_key_that_is_encrypted_needs_its_password(files: Files, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files.server_key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    cipher = serialization.BestAvailableEncryption(b"open sesame")
    form = serialization.PrivateFormat.PKCS8
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, cipher))
    assert server_context(files.server, locked, key_password="open sesame")
    with pytest.raises(ConfigError, match="pass key_password"):
        server_context(files.server, locked)
    with pytest.raises(ConfigError, match="cert_file or key_file cannot be used") as caught:
        server_context(files.server, locked, key_password="sesame, open")
    assert "sesame" not in str(caught.value)


# Links


class Narrow:
    """An inner link of which a test says what it takes: `room` bytes, then no more."""

    fd = -1

    def __init__(self) -> None:
        self.room = 1 << 30
        self.taken: list[bytes] = []
        self.to_read: list[bytes] = []

    def send(self, data: bytes | memoryview) -> int:
        n = min(self.room, len(data))
        if n == 0:
            raise BlockingIOError
        self.room -= n
        self.taken.append(bytes(data[:n]))
        return n

    def recv_into(self, buffer: memoryview) -> int:
        if not self.to_read:
            raise BlockingIOError
        data = self.to_read.pop(0)
        buffer[: len(data)] = data
        return len(data)

    def take(self) -> bytes:
        taken, self.taken = b"".join(self.taken), []
        return taken


def narrow_link(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[TlsLink, Narrow, Peer]:
    """A link past the handshake, over a `Narrow`."""
    inner: Any = Narrow()
    link = TlsLink(inner, contexts[0], server_side=False, server_hostname="localhost")
    peer = Peer(contexts[1], server_side=True)
    cipher, done = b"", False
    while not done:
        done = link.records.shake(cipher)
        cipher = peer.shake(link.records.take())
    if cipher:
        inner.to_read.append(cipher)
        with pytest.raises(BlockingIOError):
            link.recv_into(memoryview(bytearray(10_000)))
    return link, inner, peer


@given(
    deeds=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.one_of(st.integers(1, 2000), st.integers(1, 60_000))),
            st.tuples(st.just("queue"), st.integers(1, 2000)),
            st.tuples(st.just("flush"), st.just(0)),
            st.tuples(st.just("room"), st.integers(0, 30_000)),
        ),
        max_size=30,
    ),
    version=st.sampled_from(VERSIONS),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_a_full_socket_holds_up_leaves_in_order_and_whole(
    files: Files, deeds: list[tuple[str, int]], version: ssl.TLSVersion
) -> None:
    link, inner, peer = narrow_link(files.contexts(version))
    accepted = b""
    inner.room = 0
    for number, (deed, size) in enumerate(deeds):
        data = bytes([number]) * size
        try:
            if deed == "send":
                accepted += data[: link.send(data)]
            elif deed == "queue":
                link.queue(data)
                accepted += data
            elif deed == "flush":
                link.flush()
                assert not link.unsent()
            else:
                inner.room = size
        except BlockingIOError:
            assert link.unsent()
    inner.room = 1 << 30
    link.flush()
    assert not link.unsent()
    assert peer.hear(inner.take()) == accepted


def test_a_long_message_is_encrypted_only_as_far_as_it_leaves(files: Files) -> None:
    link, inner, peer = narrow_link(files.contexts())
    inner.room = 20_000
    data = os.urandom(200_000)
    n = link.send(data)
    assert 20_000 < n < 40_000
    with pytest.raises(BlockingIOError):
        link.send(data[n:])
    inner.room = 1 << 30
    assert link.send(data[n:]) == len(data) - n
    assert peer.hear(inner.take()) == data


def test_what_is_queued_leaves_in_one_record(files: Files) -> None:
    link, inner, peer = narrow_link(files.contexts())
    for word in (b"in", b"one", b"record"):
        link.queue(word)
    assert link.unsent()
    assert inner.taken == []
    link.flush()
    assert len(inner.taken) == records_in(inner.taken[0]) == 1
    assert peer.hear(inner.take()) == b"inonerecord"


def test_queued_words_go_before_those_that_are_sent_later(files: Files) -> None:
    link, inner, peer = narrow_link(files.contexts())
    link.queue(b"first")
    link.send(b"second")
    assert peer.hear(inner.take()) == b"firstsecond"


@both_versions
def test_a_link_says_how_it_ended(files: Files, version: ssl.TLSVersion) -> None:
    buffer = memoryview(bytearray(1000))

    link, inner, peer = narrow_link(files.contexts(version))
    inner.to_read = [peer.say(b"word") + peer.leave()]
    assert link.recv_into(buffer) == 4
    assert link.more()
    assert link.recv_into(buffer) == 0, "an orderly end"

    link, inner, peer = narrow_link(files.contexts(version))
    inner.to_read = [peer.say(b"word")[:-1], b""]
    with pytest.raises(BlockingIOError):
        link.recv_into(buffer)
    with pytest.raises(ssl.SSLEOFError):
        link.recv_into(buffer)

    link, inner, peer = narrow_link(files.contexts(version))
    inner.to_read = [os.urandom(500)]
    with pytest.raises(ssl.SSLError):
        link.recv_into(buffer)
    assert peer.fail(inner.take())[0].reason.startswith(("SSLV3_ALERT", "TLSV1_ALERT")), "the peer was told"


@pytest.mark.smoke
async def test_an_end_in_the_middle_of_the_handshake(files: Files, listener: socket.socket) -> None:
    ours, theirs = connected(listener)
    link = TlsLink(SocketLink(ours), files.client_context(), server_side=False, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, theirs)
        nursery.start_soon(trio.to_thread.run_sync, theirs.shutdown, socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            await link.do_handshake()
    link.close()
    theirs.close()


@pytest.mark.smoke
@both_versions
async def test_half_closed(files: Files, listener: socket.socket, version: ssl.TLSVersion) -> None:
    client, server = files.contexts(version)
    ours, theirs = connected(listener)
    link = TlsLink(SocketLink(ours), client, server_side=False, server_hostname="localhost")
    peer = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), server, server_side=True, https_compatible=True
    )
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.do_handshake)
            nursery.start_soon(peer.do_handshake)
        await send_all(link, b"last words")
        link.finish()
        assert bytes(await peer.receive_some()) == b"last words"
        assert bytes(await peer.receive_some()) == b""
        await peer.send_all(b"an answer")
        assert bytes(await receive_some(link, bytearray(100))) == b"an answer"
        await peer.aclose()
        with pytest.raises(ssl.SSLEOFError):  # https_compatible: it just hangs up
            await receive_some(link, bytearray(100))
    link.close()


# The openssl program: what Python's ssl cannot be made to say

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")


class Openssl:
    """A run of ``openssl s_client`` or ``s_server``; its commands are single letters that begin a line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = b""
        self._spoke = trio.Event()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.said += data
            self._spoke.set()
            self._spoke = trio.Event()

    async def wait_for(self, pattern: bytes) -> re.Match[bytes]:
        while (match := re.search(pattern, self.said)) is None:
            await self._spoke.wait()
        return match

    async def type(self, line: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line)


@asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[Openssl]:
    process = await trio.lowlevel.open_process(
        ["openssl", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    program = Openssl(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.read)
        try:
            with trio.fail_after(10):
                yield program
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def our_server(files: Files, listener: socket.socket, *arguments: str) -> AsyncIterator[tuple[TlsLink, Openssl]]:
    """A link to serve ``openssl s_client`` with."""
    port = listener.getsockname()[1]
    name = ("-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", str(files.authority))
    async with openssl("s_client", *name, *arguments) as program:
        await trio.lowlevel.wait_readable(listener)
        accepted, _ = listener.accept()
        link = TlsLink(SocketLink(accepted), files.server_context(), server_side=True, server_hostname=None)
        try:
            yield link, program
        finally:
            link.close()


@asynccontextmanager
async def our_client(files: Files, *arguments: str) -> AsyncIterator[tuple[TlsLink, Openssl]]:
    """A link to talk to ``openssl s_server`` with."""
    certificate = ("-cert", str(files.server), "-key", str(files.server_key), "-accept", "127.0.0.1:0")
    async with openssl("s_server", *certificate, *arguments) as program:
        port = int((await program.wait_for(rb"ACCEPT \S+:(\d+)"))[1])
        sock = socket.create_connection(("127.0.0.1", port))
        link = TlsLink(SocketLink(sock), files.client_context(), server_side=False, server_hostname="localhost")
        try:
            yield link, program
        finally:
            link.close()


async def expect(link: TlsLink, text: bytes) -> None:
    buffer = bytearray(1000)
    got = b""
    while len(got) < len(text):
        got += bytes(await receive_some(link, buffer))
    assert got == text


async def over(link: TlsLink) -> None:
    """Wait until the other end has hung up, one way or another."""
    with suppress(OSError):
        while await receive_some(link, bytearray(100)):
            pass


@needs_openssl
@pytest.mark.smoke
@pytest.mark.parametrize("command", [b"k\n", b"K\n"], ids=["theirs", "both"])
@both_sides
async def test_new_keys_in_the_middle_of_a_call(
    files: Files, listener: socket.socket, server_side: bool, command: bytes
) -> None:
    ends = our_server(files, listener, "-tls1_3") if server_side else our_client(files, "-tls1_3")
    async with ends as (link, program):
        await link.do_handshake()
        await program.type(b"before\n")
        await expect(link, b"before\n")
        for _ in range(3):
            await program.type(command)  # were it no command, it would arrive as text
            await link.wait_readable()
            program.said = b""
            await program.type(b"after\n")
            await expect(link, b"after\n")
            await send_all(link, b"answer\n")
            await program.wait_for(b"answer\n")


@needs_openssl
@pytest.mark.smoke
async def test_a_client_that_would_renegotiate_is_refused(files: Files, listener: socket.socket) -> None:
    async with our_server(files, listener, "-tls1_2") as (link, program):
        await link.do_handshake()
        await program.type(b"before\n")
        await expect(link, b"before\n")
        await program.type(b"R\n")
        await program.wait_for(b"RENEGOTIATING")
        await over(link)
        await program.wait_for(b"no renegotiation|NO_RENEGOTIATION")


@needs_openssl
@pytest.mark.smoke
async def test_a_server_that_would_renegotiate_is_refused(files: Files) -> None:
    async with our_client(files, "-tls1_2") as (link, program):
        await link.do_handshake()
        await program.type(b"before\n")
        await expect(link, b"before\n")
        await program.type(b"r\n")
        await over(link)
        await program.wait_for(b"no renegotiation|NO_RENEGOTIATION")


@needs_openssl
@pytest.mark.smoke
async def test_versions_before_1_2_find_nobody(files: Files, listener: socket.socket) -> None:
    async with our_server(files, listener, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as (link, _):
        with pytest.raises(ssl.SSLError) as caught:
            await link.do_handshake()
    assert caught.value.reason in ("UNSUPPORTED_PROTOCOL", "NO_SHARED_CIPHER")
