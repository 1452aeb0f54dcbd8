"""gRPC with software that nobody here wrote: grpcio's client against our server, our client against grpcio's server."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from support.grpc_calls import Beat, Owner, refusal
from support.grpc_pair import PATH
from talkpath.errors import RemoteWireError
from talkpath.testing import assert_quiescent
from talkpath.transport.clock import Clock, open_clock
from talkpath.transport.grpc import (
    GrpcCarriage,
    GrpcServerConnection,
    accept_secure,
    open_grpc,
    parse_grpc_url,
)
from talkpath.transport.link import Link, SocketLink
from talkpath.transport.tls import client_context, server_context
from talkpath.wire.grpc import DEFAULT_OPTIONS, GrpcOptions, Status

grpc = pytest.importorskip("grpc")
pytestmark = pytest.mark.smoke
SERVICE, METHOD = PATH[1:].split("/")
ROOT = Path(__file__).parents[2]


class Authority:
    """A certificate for ``localhost`` and who vouches for it, as files."""

    def __init__(self, where: Path) -> None:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        issued = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        self.ca, self.cert, self.key = where / "ca.pem", where / "cert.pem", where / "key.pem"
        authority.cert_pem.write_to_path(self.ca)
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    def server(self) -> ssl.SSLContext:
        return server_context(self.cert, self.key)

    def client(self) -> ssl.SSLContext:
        return client_context(ca_file=self.ca)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("grpc"))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what others count
        await trio.sleep(0.01)


class OurServer:
    """Our server on a port of loopback; `handle` is carried calls that echo, unless the test sets another."""

    def __init__(
        self, clock: Clock, nursery: trio.Nursery, options: GrpcOptions, context: ssl.SSLContext | None
    ) -> None:
        self.clock = clock
        self.nursery = nursery
        self.options = options
        self.context = context
        self.port = 0
        self.live = 0
        self.connections = 0
        self.began = 0
        self.ends: list[str] = []
        self.metadata: list[Any] = []
        self.reply: Callable[[Owner, bytes], None] = lambda owner, payload: owner.carrier.send_message(payload)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.socket.socket() as listening:
            await listening.bind(("127.0.0.1", 0))
            listening.listen(64)
            self.port = listening.getsockname()[1]
            task_status.started()
            while True:
                accepted, _ = await listening.accept()
                self.nursery.start_soon(self._serve, accepted)

    async def _serve(self, accepted: trio.socket.SocketType) -> None:
        link: Link = SocketLink(socket.socket(fileno=accepted.detach()))
        self.connections += 1
        try:
            if self.context is not None:
                assert isinstance(link, SocketLink)
                link = await accept_secure(link, self.context)
            await GrpcServerConnection(link, self._handle, paths=[PATH], options=self.options).run()
        finally:
            link.close()
            self.connections -= 1

    async def _handle(self, carriage: GrpcCarriage) -> None:
        self.live += 1
        self.began += 1
        self.metadata.append(carriage.metadata)
        try:
            async with trio.open_nursery() as nursery:
                owner = Owner(nursery, carriage)
                owner.on_message = lambda payload: self.reply(owner, payload)
                await owner.begin(self.clock, live=False)
                said = await owner.over()
                self.ends.append(said)
                if said == "closed 1000":
                    await owner.carrier.close(1000)
                else:
                    owner.carrier.abort()
        finally:
            self.live -= 1

    async def idle(self) -> None:
        """Wait until no call is left; fail if one stays."""
        with trio.fail_after(5):
            await until(lambda: not self.live)


@asynccontextmanager
async def our_server(
    options: GrpcOptions = DEFAULT_OPTIONS, context: ssl.SSLContext | None = None
) -> AsyncIterator[OurServer]:
    async with open_clock() as clock:
        async with trio.open_nursery() as nursery:
            beat = Beat(clock.driver)
            server = OurServer(clock, nursery, options, context)
            with trio.fail_after(20):
                await nursery.start(server.run)
                yield server
                await server.idle()
            assert clock.driver.watched() == 0
            nursery.cancel_scope.cancel()
        clock.driver.remove(beat)
        assert clock.driver.members() == 0
    assert_quiescent()


class GrpcioStream:
    """One call of grpcio's, from threads."""

    def __init__(self, channel: Any, **options: Any) -> None:
        self._next: list[bytes | None] = []
        self._came = threading.Condition()
        self.answers = channel.stream_stream(PATH)(self._requests(), **options)

    def _requests(self) -> Iterator[bytes]:
        while True:
            with self._came:
                while not self._next:
                    self._came.wait()
                payload = self._next.pop(0)
            if payload is None:
                return
            yield payload

    def send(self, payload: bytes | None) -> None:
        with self._came:
            self._next.append(payload)
            self._came.notify()

    def echo(self, payload: bytes) -> bytes:
        self.send(payload)
        answer: bytes = next(self.answers)
        return answer

    def cancel(self) -> None:
        self.answers.cancel()
        self.send(None)


@contextmanager
def grpcio_channel(port: int, **options: Any) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=list(options.items())) as channel:
        yield channel


# grpcio's client, our server -------------------------------------------------------------------------------------


async def test_a_bidirectional_stream_with_metadata_and_a_deadline() -> None:
    async with our_server() as server:

        def client() -> Any:
            with grpcio_channel(server.port) as channel:
                stream = GrpcioStream(channel, metadata=[("token", "t"), ("raw-bin", b"\0\xff")], timeout=10)
                for payload in (b"one", b"", b"x" * 900_000):
                    assert stream.echo(payload) == payload
                stream.send(None)
                assert list(stream.answers) == []
                return stream.answers.code()

        assert await trio.to_thread.run_sync(client) is grpc.StatusCode.OK
        assert {("token", "t"), ("raw-bin", b"\0\xff")} <= set(server.metadata[0])
        assert server.ends == ["closed 1000"]


async def test_ten_streams_that_are_cancelled_leave_no_call() -> None:
    async with our_server() as server:

        def client() -> None:
            with grpcio_channel(server.port) as channel:
                streams = [GrpcioStream(channel) for _ in range(10)]
                for stream in streams:
                    assert stream.echo(b"x") == b"x"
                for stream in streams:
                    stream.cancel()
                # The connection is still there: their ends are resets, not its loss.
                while server.live:
                    time.sleep(0.01)
                assert server.connections == 1

        await trio.to_thread.run_sync(client)
        assert server.began == 10
        assert server.ends == ["closed"] * 10


async def test_a_busy_stream_that_is_reset_leaves_the_others_alone() -> None:
    async with our_server() as server:
        flood = b"f" * 2000

        def reply(owner: Owner, payload: bytes) -> None:
            for _ in range(300 if payload == flood else 1):
                owner.carrier.send_message(payload)

        server.reply = reply

        def client() -> None:
            with grpcio_channel(server.port) as channel:
                quiet = [GrpcioStream(channel) for _ in range(8)]
                busy = [GrpcioStream(channel) for _ in range(2)]
                for n in range(24):
                    for stream in busy:
                        if n % 4 == 0:
                            stream.send(flood)  # and nobody reads what comes back
                    for stream in quiet:
                        stream.send(b"%d" % n)
                    assert [next(stream.answers) for stream in quiet] == [b"%d" % n] * 8
                    if n == 12:
                        for stream in busy:
                            stream.cancel()
                for stream in quiet:
                    stream.send(None)
                    assert list(stream.answers) == []
                    assert stream.answers.code() is grpc.StatusCode.OK

        await trio.to_thread.run_sync(client)
        assert sorted(server.ends) == ["closed"] * 2 + ["closed 1000"] * 8


async def test_a_client_whose_process_is_killed_leaves_no_call() -> None:
    program = """
import grpc, sys, threading
channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
def requests():
    yield b"x"
    threading.Event().wait()
streams = [channel.stream_stream(sys.argv[2])(requests()) for _ in range(5)]
print([next(stream) for stream in streams], flush=True)
threading.Event().wait()
"""
    async with our_server() as server:
        child = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment
            [sys.executable, "-c", program, str(server.port), PATH], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert child.stdout is not None
            await trio.to_thread.run_sync(child.stdout.readline)
            assert server.live == 5
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        await server.idle()
        assert len(server.ends) == 5


async def test_a_method_that_is_not_there_and_a_message_that_is_too_long() -> None:
    async with our_server(GrpcOptions(max_message_bytes=1000)) as server:

        def client() -> list[Any]:
            codes = []
            with grpcio_channel(server.port) as channel:
                for path, payload in ((f"/{SERVICE}/Other", b"x"), (PATH, bytes(1001))):
                    try:
                        list(channel.stream_stream(path)(iter([payload])))
                    except grpc.RpcError as exc:
                        codes.append(exc.code())
            return codes

        codes = await trio.to_thread.run_sync(client)
        assert codes == [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED]
        await until(lambda: server.ends == ["protocol status_8"])


async def test_a_deadline_that_passes() -> None:
    async with our_server() as server:

        def client() -> Any:
            with grpcio_channel(server.port) as channel:
                stream = GrpcioStream(channel, timeout=0.3)
                stream.echo(b"x")
                with pytest.raises(grpc.RpcError):
                    next(stream.answers)
                stream.send(None)
                return stream.answers.code()

        assert await trio.to_thread.run_sync(client) is grpc.StatusCode.DEADLINE_EXCEEDED
        await server.idle()
        assert server.ends == ["closed"]


async def test_tls_with_alpn(authority: Authority) -> None:
    async with our_server(context=authority.server()) as server:

        def client() -> Any:
            credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
            with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
                stream = GrpcioStream(channel)
                for n in (1, 10_000, 100_000):
                    assert stream.echo(bytes(n)) == bytes(n)
                stream.send(None)
                assert list(stream.answers) == []
                return stream.answers.code()

        assert await trio.to_thread.run_sync(client) is grpc.StatusCode.OK


# Our client, grpcio's server -------------------------------------------------------------------------------------


class GrpcioServer:
    """An echo of grpcio's, in threads, that counts its handlers."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.live = 0
        self.metadata: list[Any] = []
        self._count = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
        handler = grpc.stream_stream_rpc_method_handler(self._echo)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
        if authority is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            pair = [(authority.key.read_bytes(), authority.cert.read_bytes())]
            self.port = self._server.add_secure_port("localhost:0", grpc.ssl_server_credentials(pair))

    def _echo(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        with self._count:
            self.live += 1
        self.metadata.append(context.invocation_metadata())
        try:
            for payload in requests:
                if payload == b"fail":
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
                yield payload
                if payload == b"enough":
                    return
        finally:
            with self._count:
                self.live -= 1

    def __enter__(self) -> GrpcioServer:
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(None).wait()


@asynccontextmanager
async def our_clients() -> AsyncIterator[tuple[Clock, trio.Nursery]]:
    async with open_clock() as clock:
        async with trio.open_nursery() as nursery:
            beat = Beat(clock.driver)
            with trio.fail_after(20):
                yield clock, nursery
            assert clock.driver.watched() == 0
            nursery.cancel_scope.cancel()
        clock.driver.remove(beat)
    assert_quiescent()


@pytest.mark.parametrize("secure", [False, True])
async def test_our_client_and_grpcios_server(secure: bool, authority: Authority) -> None:
    context = authority.client() if secure else None
    with GrpcioServer(authority if secure else None) as server:
        async with our_clients() as (clock, nursery):
            url = f"grpcs://localhost:{server.port}" if secure else f"grpc://127.0.0.1:{server.port}"
            carriage = await open_grpc(parse_grpc_url(url), PATH, metadata=[("token", "t")], context=context)
            ours = await Owner(nursery, carriage).begin(clock, live=False)
            sent = [b"one", b"", b"x" * 900_000]
            for payload in sent:
                ours.carrier.send_message(payload)
            await until(lambda: len(ours.messages) == 3)
            assert ours.messages == sent
            assert ("token", "t") in [(one.key, one.value) for one in server.metadata[0]]
            await ours.carrier.close(1000)
            assert carriage.call.end is not None
            assert carriage.call.end.status is Status.OK
            await until(lambda: server.live == 0)


async def test_grpcios_statuses_are_heard() -> None:
    with GrpcioServer() as server:
        async with our_clients() as (clock, nursery):
            target = parse_grpc_url(f"http://127.0.0.1:{server.port}")
            for payload, said, status in (
                (b"enough", "closed 1000", Status.OK),
                (b"fail", "closed 1011", Status.FAILED_PRECONDITION),
            ):
                carriage = await open_grpc(target, PATH)
                ours = await Owner(nursery, carriage).begin(clock)
                ours.carrier.send_message(payload)
                assert await ours.over() == said
                assert carriage.call.end is not None
                assert carriage.call.end.status is status
                await ours.carrier.close(1000)
            assert await refusal(target, f"/{SERVICE}/Other") == "status_12"


async def test_ten_cancelled_calls_of_ours_leave_grpcio_no_handler() -> None:
    with GrpcioServer() as server:
        async with our_clients() as (clock, nursery):
            target = parse_grpc_url(f"http://127.0.0.1:{server.port}")
            calls = []
            for _ in range(10):
                calls.append(await Owner(nursery, await open_grpc(target, PATH)).begin(clock))
                calls[-1].carrier.send_message(b"x")
            await until(lambda: all(call.messages == [b"x"] for call in calls))
            assert server.live == 10
            for call in calls:
                call.carrier.abort()
            await until(lambda: server.live == 0)


async def test_a_server_that_stops_is_heard() -> None:
    async with our_clients() as (clock, nursery):
        with GrpcioServer() as server:
            carriage = await open_grpc(parse_grpc_url(f"http://127.0.0.1:{server.port}"), PATH)
            ours = await Owner(nursery, carriage).begin(clock)
            ours.carrier.send_message(b"x")
            await until(lambda: ours.messages == [b"x"])
        assert await ours.over() in ("closed", "closed 1011")
        await ours.carrier.close(1000)


async def test_who_agrees_on_no_http2_is_turned_away(authority: Authority) -> None:
    async with our_clients():
        with trio.socket.socket() as listening:
            await listening.bind(("127.0.0.1", 0))
            listening.listen()
            target = parse_grpc_url(f"https://localhost:{listening.getsockname()[1]}")

            async def web() -> None:
                accepted, _ = await listening.accept()
                stream = trio.SSLStream(trio.SocketStream(accepted), authority.server(), server_side=True)
                await stream.do_handshake()
                await trio.aclose_forcefully(stream)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(web)
                with pytest.raises(RemoteWireError) as caught:
                    await open_grpc(target, PATH, context=authority.client())
            assert caught.value.kind == "alpn"
