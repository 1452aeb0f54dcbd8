"""Serving lines: who is let in, who is turned away and how, what is bounded; plain and over TLS."""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
import trio
import trustme

from support.calls import engine, in_virtual_time
from support.frames import BINARY, PING, PONG, TEXT, frame
from support.peer import Peer, connect
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, LineRecord, ServeConfig, serve_lines, serve_memory_lines
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.transport.link import SocketLink

START = {
    "event": "start",
    "sequenceNumber": 1,
    "start": {
        "callId": "7a9f8c52-9f40-4c0b-8f8e-111111111111",
        "streamId": "20170ee2-2d41-4d3b-9d54-222222222222",
        "accountId": "MA00000000000000TEST",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    },
    "extra_headers": "{}",
}

Bot = Callable[[Line], Awaitable[None]]


async def patient(line: Line) -> None:
    await line.wait_ended()


@asynccontextmanager
async def serving(bot: Bot, config: ServeConfig | None = None, **options: Any) -> AsyncIterator[list[LineRecord]]:
    """Serve at ``memory://bot``; the list fills with the records of lines that ended."""
    records: list[LineRecord] = []
    settings = config or ServeConfig()
    settings = ServeConfig(
        **{name: getattr(settings, name) for name in settings.__slots__} | {"on_ended": records.append}
    )

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await serve_memory_lines(bot, "bot", config=settings, task_status=task_status, **options)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield records
        nursery.cancel_scope.cancel()


async def opened(nursery: trio.Nursery) -> Peer:
    """A platform that has opened a line and reads it."""
    peer = connect("bot")
    assert (await peer.upgrade_as_client()).startswith("HTTP/1.1 101 ")
    await peer.text(START)
    nursery.start_soon(peer.read_all)
    return peer


# Which addresses are served


@pytest.mark.smoke
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_a_loopback_address_is_served_without_authentication(host: str) -> None:
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(serve_lines, patient, host, 0)
        assert len({port for _, port in addresses}) == 1
        for address, port in addresses:
            stream = await trio.open_tcp_stream(address, port)
            await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_any_other_address_is_refused_without_authentication(host: str) -> None:
    with pytest.raises(ConfigError, match="anyone who finds the port"):
        await serve_lines(patient, host, 0)


@pytest.mark.smoke
@pytest.mark.parametrize("config", [ServeConfig(allow_unauthenticated=True), ServeConfig(plivo_auth_token="t")])
async def test_any_other_address_is_served_when_that_is_meant(config: ServeConfig) -> None:
    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(partial_serve(patient, "0.0.0.0", config))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        nursery.cancel_scope.cancel()


def partial_serve(bot: Bot, host: str, config: ServeConfig) -> Any:
    async def serve(*, task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
        await serve_lines(bot, host, 0, config=config, task_status=task_status)

    return serve


def test_an_auth_token_is_not_in_the_options_repr() -> None:
    assert "secret" not in repr(ServeConfig(plivo_auth_token="secret"))


# Who is turned away, and how

NOT_HTTP: list[tuple[bytes, str]] = [
    (b"hello\r\n\r\n", "HTTP/1.1 400 "),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 "),
    (b"GET / HTTP/1.1\r\nHost: bot\r\n\r\n", "HTTP/1.1 400 "),
    (b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
    (b"POST / HTTP/1.1\r\nHost: bot\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 400 "),
    (
        b"GET / HTTP/1.1\r\nHost: bot\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\n\r\n",
        "HTTP/1.1 426 ",
    ),
    (b"GET / HTTP/1.1\r\nHost: bot\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", "HTTP/1.1 431 "),
]


@pytest.mark.parametrize(("request_bytes", "status"), NOT_HTTP, ids=[repr(row[0][:20]) for row in NOT_HTTP])
def test_what_is_no_upgrade_is_answered_in_http(request_bytes: bytes, status: str) -> None:
    async def scene() -> None:
        async with serving(patient) as records, trio.open_nursery() as nursery:
            peer = connect("bot")
            await peer.send(request_bytes)
            head = await peer.read_head()
            assert head.startswith(status)
            assert peer.headers["connection"] == "close"
            assert await peer.read() is None
            peer.link.close()
            await opened(nursery)  # the server goes on
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert [record.reason for record in records] == [EndReason.CANCELLED]

    in_virtual_time(scene)


def test_one_line_too_many_is_asked_to_come_later() -> None:
    async def scene() -> None:
        async with serving(patient, ServeConfig(max_lines=2)), trio.open_nursery() as nursery:
            first = await opened(nursery)
            await opened(nursery)
            await trio.sleep(0.1)
            third = connect("bot")
            assert (await third.upgrade_as_client()).startswith("HTTP/1.1 503 ")
            assert third.headers["retry-after"] == "1"
            assert await third.read() is None
            third.link.close()
            await first.close()
            await trio.sleep(1)
            await opened(nursery)
            nursery.cancel_scope.cancel()

    in_virtual_time(scene)


def test_lines_that_open_at_one_instant_do_not_slip_past_the_bound() -> None:
    async def scene() -> None:
        answers: list[str] = []

        async def one() -> None:
            peer = connect("bot")
            answers.append((await peer.upgrade_as_client()).split(" ")[1])
            if answers[-1] == "101":
                await peer.text(START)
            await peer.read_all()

        async with serving(patient, ServeConfig(max_lines=3)), trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert sorted(answers) == ["101"] * 3 + ["503"] * 7

    in_virtual_time(scene)


def test_a_place_taken_by_one_that_opens_nothing_is_given_back() -> None:
    async def scene() -> None:
        async with serving(patient, ServeConfig(max_lines=1)), trio.open_nursery() as nursery:
            idle = connect("bot")
            assert "101" in await idle.upgrade_as_client()
            await idle.read_all()
            assert trio.current_time() >= 10
            await opened(nursery)
            nursery.cancel_scope.cancel()

    in_virtual_time(scene)


async def say_nothing(peer: Peer) -> None:
    """Connect and wait."""


async def dribble_the_head(peer: Peer) -> None:
    for byte in b"GET / HTTP/1.1\r\nHost: bot\r\nX-Slow: " + b"x" * 100:
        await peer.send(bytes([byte]))
        await trio.sleep(1)


async def upgrade_and_say_nothing(peer: Peer) -> None:
    await peer.upgrade_as_client()


async def dribble_the_start(peer: Peer) -> None:
    await peer.upgrade_as_client()
    for byte in frame(TEXT, json.dumps(START).encode(), key=peer.key):
        await peer.send(bytes([byte]))
        await trio.sleep(1)


async def ping_for_ever(peer: Peer) -> None:
    await peer.upgrade_as_client()
    while True:
        await peer.send(frame(PING, b"", key=peer.key))
        await trio.sleep(1)


@pytest.mark.parametrize(
    "behaviour", [say_nothing, dribble_the_head, upgrade_and_say_nothing, dribble_the_start, ping_for_ever]
)
def test_whoever_takes_too_long_to_open_a_line_is_hung_up_on(behaviour: Callable[[Peer], Awaitable[None]]) -> None:
    async def scene() -> None:
        async with serving(patient, ServeConfig(handshake_s=10)), trio.open_nursery() as nursery:
            peer = connect("bot")

            async def behave() -> None:
                with suppress(OSError):
                    await behaviour(peer)

            nursery.start_soon(behave)
            await trio.sleep(9.9)
            assert not peer.link._eof  # type: ignore[attr-defined]
            await trio.sleep(0.2)
            assert peer.link._eof  # type: ignore[attr-defined]
            nursery.cancel_scope.cancel()
            peer.link.close()

    in_virtual_time(scene)


@pytest.mark.smoke
async def test_a_flood_before_the_opening_message_holds_up_nobody() -> None:
    """Data that never runs out must not keep the event loop: others are served and the deadline comes."""
    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(partial_serve(patient, "127.0.0.1", ServeConfig(handshake_s=1)))
        peer = Peer(SocketLink(socket.create_connection(("127.0.0.1", port))), client=True)
        await peer.upgrade_as_client()
        flood = frame(PONG, b"", key=peer.key) * 10_000
        with trio.fail_after(20), pytest.raises(OSError):  # noqa: PT012 - hung up on, sooner or later
            while True:
                await peer.send(flood)
        peer.link.close()
        nursery.cancel_scope.cancel()


OPENINGS: list[tuple[str, object, str]] = [
    ("not JSON", "hello +15550001111", "18 bytes that are not JSON"),
    ("a list", ["+15550001111"], "JSON, but a list and not an object"),
    ("another wire", {"type": "hello", "secret": "+15550001111"}, "an object with the keys type, secret"),
    ("audio first", {"event": "media", "media": {"payload": "AAAA"}}, "an object with the keys event, media"),
    (
        "a start without a format",
        {"event": "start", "start": {"streamId": "s"}},
        "an object with the keys event, start",
    ),
    (
        "a format nobody reads",
        {**START, "start": {**START["start"], "mediaFormat": {"encoding": "audio/opus", "sampleRate": 48000}}},
        "an object with the keys event",
    ),  # type: ignore[dict-item]
    ("nesting without end", "[" * 100_000, "100000 bytes that are not JSON"),
]


@pytest.mark.parametrize(("message", "said"), [row[1:] for row in OPENINGS], ids=[row[0] for row in OPENINGS])
def test_a_wire_that_is_not_known_is_refused_with_what_was_seen_and_no_value_of_it(
    message: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene() -> Peer:
        async with serving(patient) as records, trio.open_nursery():
            peer = connect("bot")
            await peer.upgrade_as_client()
            await peer.text(message)
            await peer.text({"event": "more", "number": "+15550001111"})
            await peer.read_all()
            await trio.sleep(1)
            assert records == []
            return peer

    peer = in_virtual_time(scene)
    assert peer.close_code == 1008
    reason = next(one.payload[2:].decode() for one in peer.frames if one.opcode == 8)
    assert reason.startswith("no known wire opens like this (" + said[:60])
    assert said in caplog.text
    assert "15550001111" not in caplog.text + reason


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"{}", key=b"abcd"), 1008),
        (frame(TEXT, json.dumps(START).encode()), 1002),
        (frame(TEXT, b"\xff", key=b"abcd"), 1007),
        (frame(TEXT, says_length=1 << 40, key=b"abcd"), 1009),
        (frame(PING, bytes(126), key=b"abcd"), 1002),
        (frame(TEXT, b'{"event":"pardon"}', key=b"abcd") * 20, 1008),
    ],
    ids=["binary", "unmasked", "not UTF-8", "too long", "a long ping", "unknown events without end"],
)
def test_what_breaks_the_rules_before_the_start_is_closed_with_the_right_code(data: bytes, code: int) -> None:
    async def scene() -> Peer:
        async with serving(patient) as records:
            peer = connect("bot")
            await peer.upgrade_as_client()
            await peer.send(data)
            await peer.read_all()
            assert records == []
            return peer

    assert in_virtual_time(scene).close_code == code


def test_a_wire_that_was_named_takes_no_other() -> None:
    async def scene() -> None:
        async with serving(patient, wire="plivo"), trio.open_nursery() as nursery:
            await opened(nursery)
            nursery.cancel_scope.cancel()
        with pytest.raises(ConfigError, match="wire 'morse' is not one of"):
            await serve_memory_lines(patient, "bot", wire="morse")

    in_virtual_time(scene)


# How lines end with their server


def test_a_server_that_is_cancelled_says_that_it_goes_away() -> None:
    async def scene() -> tuple[list[Peer], list[LineRecord]]:
        peers: list[Peer] = []
        async with trio.open_nursery() as nursery:
            async with serving(patient) as records:
                for _ in range(20):
                    peers.append(await opened(nursery))  # noqa: PERF401 - one after the other
                await trio.sleep(0.5)
            await trio.sleep(1)
        return peers, records

    peers, records = in_virtual_time(scene)
    assert [peer.close_code for peer in peers] == [1001] * 20
    assert [record.reason for record in records] == [EndReason.CANCELLED] * 20


def test_a_bot_that_raises_ends_its_own_line_and_is_recorded() -> None:
    async def fragile(line: Line) -> None:
        if line.info.custom_parameters:
            raise RuntimeError("the bot's own")
        await line.wait_ended()

    async def scene() -> tuple[Peer, Peer, list[LineRecord]]:
        async with serving(fragile) as records, trio.open_nursery() as nursery:
            whole = await opened(nursery)
            broken = connect("bot")
            await broken.upgrade_as_client()
            await broken.text({**START, "extra_headers": '{"break":"yes"}'})
            await broken.read_all()
            await trio.sleep(1)
            assert whole.close_code is None
            assert len(records) == 1
            nursery.cancel_scope.cancel()
        return whole, broken, records

    _, broken, records = in_virtual_time(scene)
    assert broken.close_code == 1011
    assert broken.messages == [{"event": "clearAudio", "streamId": START["start"]["streamId"]}]  # type: ignore[index]
    assert (records[0].reason, records[0].cause) == (EndReason.APPLICATION_FAILED, "RuntimeError")


def test_a_pool_that_is_used_up_refuses_the_next_line_and_no_other() -> None:
    async def scene() -> tuple[Peer, Peer]:
        async with serving(patient, ServeConfig(pool_bytes=64 * 1024)), trio.open_nursery() as nursery:
            peers = [await opened(nursery) for _ in range(12)]
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
            return peers[0], peers[-1]

    first, last = in_virtual_time(scene)
    assert first.close_code is None
    assert last.close_code == 1013


# TLS


class Authority:
    """Certificates for a test: an authority that is trusted, one that is not."""

    def __init__(self) -> None:
        self.good, self.unknown = trustme.CA(), trustme.CA()

    def server(self, name: str = "localhost", authority: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (authority or self.good).issue_cert(name).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.good.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def say(line: Line) -> None:
    line.speak(ToneSource(450).take(1600), sample_rate_hz=8000)
    async for chunk in line.listen():
        line.speak(chunk)


@pytest.mark.smoke
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_call_over_tls_at_both_ends(authority: Authority, version: ssl.TLSVersion) -> None:
    server, client = authority.server(), authority.client()
    server.maximum_version = version
    leg = MemoryLeg()
    async with trio.open_nursery() as nursery:
        ((_, port), *_) = await nursery.start(partial_serve(say, "127.0.0.1", ServeConfig(tls_context=server)))
        async with engine(EngineConfig(tls_context=client)) as which, which.open_call(leg) as call:
            stream = await call.start_stream(StreamSpec(url=f"wss://localhost:{port}/", bidirectional=True))
            leg.say(ToneSource(1050).take(1600))
            with trio.fail_after(10):
                while len(find_tones(leg.heard(), 8000, [450, 1050])) < 2:  # noqa: ASYNC110 - a leg tells nobody
                    await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert stream.record is not None
    assert stream.record.refused == {}
    assert stream.record.media_dropped == 0


@pytest.mark.smoke
@pytest.mark.parametrize("fault", ["wrong name", "unknown authority", "no TLS at all", "TLS where none is expected"])
async def test_a_certificate_that_does_not_verify_is_a_failed_connection_with_its_cause(
    authority: Authority, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    context: ssl.SSLContext | None = {
        "wrong name": authority.server("elsewhere.example"),
        "unknown authority": authority.server(authority=authority.unknown),
        "no TLS at all": None,
        "TLS where none is expected": authority.server(),
    }[fault]
    scheme = "ws" if fault == "TLS where none is expected" else "wss"
    async with trio.open_nursery() as nursery:
        config = ServeConfig(tls_context=context)
        ((_, port), *_) = await nursery.start(partial_serve(patient, "127.0.0.1", config))
        settings = EngineConfig(tls_context=authority.client(), connect_attempts=1)
        async with engine(settings) as which, which.open_call(MemoryLeg()) as call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url=f"{scheme}://localhost:{port}/"))
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert call.record is not None
    (stream,) = call.record.streams
    if scheme == "ws":
        assert stream.reason in (EndReason.HANDSHAKE_REFUSED, EndReason.CONNECT_FAILED)
        return
    assert caught.value.reason is stream.reason is EndReason.CONNECT_FAILED
    assert stream.cause == ("SSLError" if fault == "no TLS at all" else "SSLCertVerificationError")
    if fault != "no TLS at all":
        assert "failed: SSLError" in caplog.text, "the alert told the server why"


class Chunked:
    """A TCP link that takes and gives at most a few bytes at a time, and often none."""

    def __init__(self, inner: SocketLink, most: int) -> None:
        self._inner, self._most, self._turn = inner, most, 0
        self.fd = inner.fd

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        self._turn += 1
        if self._turn % 3 == 0:
            raise BlockingIOError
        return self._inner.send(memoryview(data)[: self._most])

    def recv_into(self, buffer: memoryview) -> int:
        return self._inner.recv_into(memoryview(buffer)[: self._most])


@pytest.mark.smoke
@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_tls_in_pieces_of_any_size_carries_the_same_bytes(authority: Authority, most: int) -> None:
    from talkpath.transport.link import TlsLink
    from talkpath.transport.upgrade import receive_some, send_all

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    client = TlsLink(
        Chunked(SocketLink(ours), most), authority.client(), server_side=False, server_hostname="localhost"
    )  # type: ignore[arg-type]
    server = TlsLink(Chunked(SocketLink(theirs), most), authority.server(), server_side=True, server_hostname=None)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    text = np.random.default_rng(1).bytes(40 * most + 20_000)
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, client, text)
        buffer = bytearray(3000)
        while len(got) < len(text):
            got += await receive_some(server, buffer)
    assert bytes(got) == text
    client.close()
    server.close()


@pytest.mark.smoke
async def test_what_came_with_the_tls_handshake_is_read_without_waiting_for_more(authority: Authority) -> None:
    """All of a platform's first words in one flight, the last of them longer than the handshake's own buffer."""
    lines: list[Line] = []

    async def keep(line: Line) -> None:
        lines.append(line)
        await line.wait_ended()

    media = {
        "event": "media",
        "media": {
            "track": "inbound",
            "timestamp": "0",
            "chunk": 1,
            "payload": base64.b64encode(b"\xff" * 1600).decode(),
        },
    }
    async with trio.open_nursery() as nursery:
        config = ServeConfig(tls_context=authority.server())
        ((_, port), *_) = await nursery.start(partial_serve(keep, "127.0.0.1", config))
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), authority.client(), server_hostname="localhost"
        )
        head = (
            b"GET / HTTP/1.1\r\nHost: bot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        messages = [frame(TEXT, json.dumps(one).encode(), key=b"abcd") for one in (START, *[media] * 20)]
        await stream.send_all(head + b"".join(messages))
        with trio.fail_after(5):
            while not lines or lines[0].statistics().messages_received < 20:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


# Many


def test_many_lines_at_once() -> None:
    async def scene() -> list[LineRecord]:
        async with serving(say) as records:
            async with engine() as which, trio.open_nursery() as nursery:

                async def one(hz: int) -> None:
                    leg = MemoryLeg()
                    async with which.open_call(leg) as call:
                        await call.start_stream(StreamSpec(url="memory://bot", bidirectional=True))
                        leg.say(ToneSource(hz).take(8000))
                        await trio.sleep(2)
                        spans = find_tones(leg.heard(), 8000, [450, *range(1000, 3000, 50)])
                        assert {span.hz for span in spans} == {450, hz}

                for number in range(40):
                    nursery.start_soon(one, 1000 + 50 * number)
            await trio.sleep(1)
        return records

    records = in_virtual_time(scene)
    assert [record.reason for record in records] == [EndReason.PLATFORM_HUNG_UP] * 40
