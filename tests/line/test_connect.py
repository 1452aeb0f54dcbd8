"""Lines that were not served: dialled, and put on a WebSocket that trio-websocket holds; in virtual time."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import trio_websocket

from support.calls import in_virtual_time
from support.frames import PING, TEXT, frame
from support.peer import Peer
from talkpath.dsp import pcmu_encode
from talkpath.errors import CallEnded, RemoteWireError
from talkpath.line import Line, connect_line, line_on
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.transport.memory import listen_memory

STREAM = "20170ee2-2d41-4d3b-9d54-222222222222"
START = {
    "event": "start",
    "sequenceNumber": 1,
    "start": {
        "callId": "7a9f8c52-9f40-4c0b-8f8e-111111111111",
        "streamId": STREAM,
        "accountId": "MA00000000000000TEST",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    },
    "extra_headers": "{}",
}
DIGIT = {"event": "dtmf", "dtmf": {"track": "inbound", "digit": "5", "timestamp": "0"}}


def run(work: Callable[[], Awaitable[None]]) -> None:
    in_virtual_time(work)


def media(pcm: Any) -> dict[str, Any]:
    payload = base64.b64encode(pcmu_encode(pcm)).decode()
    return {"event": "media", "media": {"track": "inbound", "timestamp": "0", "chunk": 1, "payload": payload}}


# Dialled


@asynccontextmanager
async def waiting_platform(work: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[list[Peer]]:
    """A platform that waits for applications at ``memory://platform``."""
    listener = listen_memory("platform")
    peers: list[Peer] = []

    async def serve() -> None:
        peer = Peer(await listener.accept(), client=False)
        peers.append(peer)
        with suppress(OSError):
            await work(peer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield peers
        nursery.cancel_scope.cancel()
    listener.close()
    for peer in peers:
        peer.link.close()


async def good(peer: Peer) -> None:
    await peer.upgrade_as_server()
    await peer.text(START)
    await peer.text(DIGIT)
    await peer.read_all()


def test_a_line_that_was_dialled_speaks_and_hears() -> None:
    async def work() -> None:
        async with waiting_platform(good) as peers:
            headers = {"X-Key": "value"}
            async with connect_line("memory://platform/path?a=1", headers=headers) as line:
                line.speak(ToneSource(450).take(1600), sample_rate_hz=8000)
                async for digit in line.digits():
                    assert digit == "5"
                    break
            await trio.sleep(1)
            (peer,) = peers
            assert peer.path == "/path?a=1"
            assert peer.headers["x-key"] == "value"
            audio = b"".join(base64.b64decode(one["media"]["payload"]) for one in peer.named("playAudio"))
            assert audio == pcmu_encode(ToneSource(450).take(1600))
            assert peer.close_code == 1000
            assert all(one.masked for one in peer.frames)

    run(work)


async def refuse(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")


async def speak_no_wire(peer: Peer) -> None:
    await peer.upgrade_as_server()
    await peer.text({"type": "hello"})


async def say_nothing(peer: Peer) -> None:
    await peer.upgrade_as_server()
    await trio.sleep_forever()


async def never_upgrade(peer: Peer) -> None:
    await trio.sleep_forever()


async def close_at_once(peer: Peer) -> None:
    await peer.upgrade_as_server()
    await peer.close(1011)


async def mask(peer: Peer) -> None:
    await peer.upgrade_as_server()
    await peer.send(frame(TEXT, json.dumps(START).encode(), key=b"abcd"))


async def ping_for_ever(peer: Peer) -> None:
    await peer.upgrade_as_server()
    while True:
        await peer.send(frame(PING))
        await trio.sleep(1)


@pytest.mark.parametrize(
    ("platform", "error", "says"),
    [
        (refuse, RemoteWireError, "404"),
        (speak_no_wire, RemoteWireError, "keys type"),
        (say_nothing, trio.TooSlowError, ""),
        (never_upgrade, trio.TooSlowError, ""),
        (ping_for_ever, trio.TooSlowError, ""),
        (close_at_once, RemoteWireError, "before the wire's opening message"),
        (mask, RemoteWireError, "RFC 6455"),
    ],
)
def test_a_platform_that_is_none_raises_and_leaves_nothing(
    platform: Callable[[Peer], Awaitable[None]], error: type[Exception], says: str
) -> None:
    async def work() -> None:
        async with waiting_platform(platform) as peers:
            with pytest.raises(error, match=says or None):
                async with connect_line("memory://platform"):
                    pytest.fail("there is no line")
            assert peers[0].link._eof  # type: ignore[attr-defined]

    run(work)


def test_nobody_there_is_a_connection_refused() -> None:
    async def work() -> None:
        with pytest.raises(ConnectionRefusedError):
            async with connect_line("memory://nobody"):
                pytest.fail("there is no line")

    run(work)


def test_what_the_block_raises_leaves_it_bare_and_closes_with_1011() -> None:
    async def work() -> None:
        async with waiting_platform(good) as peers:
            with pytest.raises(ValueError, match="my own"):
                async with connect_line("memory://platform"):
                    raise ValueError("my own")
            await trio.sleep(1)
            assert peers[0].close_code == 1011

    run(work)


# On a WebSocket somebody else holds


@asynccontextmanager
async def websocket_pair() -> AsyncIterator[
    tuple[trio_websocket.WebSocketConnection, trio_websocket.WebSocketConnection]
]:
    """-> (the application's end, the platform's), both trio-websocket's, over memory."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        platforms: list[trio_websocket.WebSocketConnection] = []

        async def dial() -> None:
            platforms.append(await trio_websocket.wrap_client_stream(nursery, theirs, "bot", "/audio"))

        nursery.start_soon(dial)
        request = await trio_websocket.wrap_server_stream(nursery, ours)
        application = await request.accept()
        while not platforms:
            await trio.lowlevel.checkpoint()
        yield application, platforms[0]
        nursery.cancel_scope.cancel()


async def tell(platform: trio_websocket.WebSocketConnection, *messages: object) -> None:
    for message in messages:
        await platform.send_message(json.dumps(message))


def test_a_line_on_another_librarys_websocket_speaks_and_hears() -> None:
    async def work() -> None:
        async with websocket_pair() as (application, platform):
            await tell(platform, START)
            heard: list[Any] = []
            async with line_on(application) as line:
                assert line.info.path == "/audio"
                listener = line.listen(chunk_ms=100)
                await tell(platform, media(ToneSource(650).take(1600)), DIGIT)
                async for chunk in listener:
                    heard.append(chunk.samples)
                    if len(heard) == 2:
                        break
                async for digit in line.digits():
                    assert digit == "5"
                    break
                line.speak(ToneSource(450).take(1600), sample_rate_hz=8000)
                mark = line.checkpoint("said")
                audio = b""
                while True:
                    message = json.loads(await platform.get_message())
                    if message["event"] == "checkpoint":
                        break
                    audio += base64.b64decode(message["media"]["payload"])
                assert audio == pcmu_encode(ToneSource(450).take(1600))
                await tell(platform, {"event": "playedStream", "name": "said"})
                assert (await mark.wait()).name == "said"
            assert application.closed is None, "closing it stays with its owner"
            await application.send_message("and it can still be used")
            assert await platform.get_message() == "and it can still be used"
            assert [span.hz for one in heard for span in find_tones(one, 8000, [650])] == [650, 650]

    run(work)


@pytest.mark.parametrize("code", [1000, 1001, 1011])
def test_its_close_ends_the_line(code: int) -> None:
    async def work() -> None:
        async with websocket_pair() as (application, platform):
            await tell(platform, START)
            async with line_on(application) as line:
                mark = line.checkpoint("open")
                await platform.aclose(code)
                assert await line.wait_ended() is EndReason.PLATFORM_HUNG_UP
                assert (await mark.wait()).outcome.value == "LOST"
                with pytest.raises(CallEnded):
                    line.speak(ToneSource(450).take(160), sample_rate_hz=8000)

    run(work)


def test_nonsense_on_it_is_counted_and_binary_too() -> None:
    async def work() -> None:
        async with websocket_pair() as (application, platform):
            await tell(platform, START)
            async with line_on(application) as line:
                await platform.send_message("no JSON")
                await platform.send_message(b"binary")
                await tell(platform, {"event": "sing"}, DIGIT)
                async for digit in line.digits():
                    assert digit == "5"
                    break
                assert line.statistics().refused == {"bad_json": 1, "binary": 1, "unknown:sing": 1}

    run(work)


@pytest.mark.parametrize("first", [{"type": "hello"}, None])
def test_one_that_speaks_no_wire_raises_and_is_left_open(first: object) -> None:
    async def work() -> None:
        async with websocket_pair() as (application, platform):
            if first is not None:
                await tell(platform, first)
            with pytest.raises(RemoteWireError if first else trio.TooSlowError):
                async with line_on(application):
                    pytest.fail("there is no line")
            assert application.closed is None

    run(work)


def test_a_bot_on_it_that_fails_leaves_its_error_bare() -> None:
    async def bot(line: Line) -> None:
        raise ValueError("my own")

    async def work() -> None:
        async with websocket_pair() as (application, platform):
            await tell(platform, START)
            with pytest.raises(ValueError, match="my own"):
                async with line_on(application) as line:
                    await bot(line)

    run(work)
