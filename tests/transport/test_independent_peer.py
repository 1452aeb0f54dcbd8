"""The `websockets` library, which shares no code with us, at the other end of both of ours; over real sockets."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from support.calls import engine
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded
from talkpath.line import Line, LineRecord, ServeConfig, serve_lines
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.wire.plivo import PlivoOptions

pytestmark = pytest.mark.smoke

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


@contextmanager
def application(work: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    """Serve `work` with the library, in a thread of its own."""
    server = serve(work, "127.0.0.1", 0, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/path?query=1"
    finally:
        server.shutdown()
        thread.join()


class Application:
    """Plays a tone in one message of many fragments, pings, and closes when its checkpoint has been played."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.path = ""
        self.heard = b""
        self.events: list[str] = []
        self.pong = False
        self.closed: ConnectionClosed | None = None

    def __call__(self, websocket: ServerConnection) -> None:
        assert websocket.request is not None
        self.path = websocket.request.path
        try:
            for message in websocket:
                assert isinstance(message, str), "everything on this wire is text"
                event = json.loads(message)
                if event["event"] != "media":
                    self.events.append(event["event"])
                match event["event"]:
                    case "start":
                        self.play(websocket)
                    case "media":
                        self.heard += base64.b64decode(event["media"]["payload"])
                    case "playedStream":
                        self.pong = websocket.ping(b"are you there?").wait(5)
                        websocket.close(self.code)
            websocket.recv()
        except ConnectionClosed as exc:
            self.closed = exc

    @staticmethod
    def play(websocket: ServerConnection) -> None:
        payload = base64.b64encode(pcmu_encode(ToneSource(450).take(4000))).decode()
        media = {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}
        text = json.dumps({"event": "playAudio", "media": media})
        websocket.send(text[i : i + 100] for i in range(0, len(text), 100))
        websocket.send(json.dumps({"event": "checkpoint", "streamId": "s", "name": "played"}))


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, EndReason.APPLICATION_HUNG_UP), (1011, EndReason.APPLICATION_FAILED)]
)
async def test_the_library_as_an_application(code: int, reason: EndReason) -> None:
    app, leg = Application(code), MemoryLeg()
    with application(app) as url:
        async with engine() as which, which.open_call(leg) as call:
            leg.say(ToneSource(1050).take(8000))
            stream = await call.start_stream(StreamSpec(url=url, bidirectional=True))
            with trio.fail_after(10):
                await stream.ended.wait()
            heard = leg.heard()
    assert stream.record is not None
    assert stream.record.reason is reason
    assert stream.record.refused == {}
    assert app.path == "/path?query=1"
    assert app.events == ["start", "playedStream"]
    assert app.pong
    assert app.closed is not None
    assert app.closed.rcvd is not None
    assert app.closed.rcvd.code == code
    assert [span.hz for span in find_tones(heard, 8000, [450])] == [450]
    assert [span.hz for span in find_tones(pcmu_decode(app.heard), 8000, [1050])] == [1050]


async def test_a_hang_up_reaches_the_library_as_an_orderly_close() -> None:
    app = Application(1000)
    app.play = lambda websocket: None  # type: ignore[method-assign,misc]
    with application(app) as url:
        async with engine() as which, which.open_call(MemoryLeg()) as call:
            await call.start_stream(StreamSpec(url=url, bidirectional=True, options=PlivoOptions(emit_stop=True)))
            await trio.sleep(0.2)
    assert app.events == ["start", "stop"]
    assert app.closed is not None
    assert app.closed.rcvd is not None
    assert (app.closed.rcvd.code, app.closed.rcvd_then_sent) == (1000, True)


async def test_the_librarys_refusal_is_a_refused_handshake() -> None:
    def refuse(websocket: ServerConnection, request: object) -> Any:
        return websocket.respond(403, "no\n")

    with application(lambda websocket: None, process_request=refuse) as url:
        settings = EngineConfig(connect_attempts=2, connect_backoff_s=0.05)
        async with engine(settings) as which, which.open_call(MemoryLeg()) as call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url=url))
    assert caught.value.reason is EndReason.HANDSHAKE_REFUSED
    assert "403" in str(caught.value.cause)


def platform(url: str, seen: list[dict[str, Any]], **options: Any) -> tuple[bool, ConnectionClosed]:
    """Start, a tone in fragments, a ping; then confirm what is asked. -> (whether the pong came, the close)"""
    with connect(url, **options) as websocket:
        websocket.send(json.dumps(START))
        assert json.loads(websocket.recv(timeout=10)) == {
            "event": "checkpoint",
            "streamId": STREAM,
            "name": "listening",
        }
        tone = ToneSource(650)
        for n in range(50):
            payload = base64.b64encode(pcmu_encode(tone.take(160))).decode()
            media = {"track": "inbound", "timestamp": str(20 * n), "chunk": n + 1, "payload": payload}
            text = json.dumps({"event": "media", "sequenceNumber": n + 2, "media": media})
            websocket.send([text[:50], text[50:51], text[51:]] if n % 2 else text)
        pong = websocket.ping(b"are you there?").wait(5)
        websocket.send(json.dumps({"event": "dtmf", "dtmf": {"track": "inbound", "digit": "5", "timestamp": "0"}}))
        return pong, _confirm_until_closed(websocket, seen)


def _confirm_until_closed(websocket: ClientConnection, seen: list[dict[str, Any]]) -> ConnectionClosed:
    try:
        while True:
            message = json.loads(websocket.recv(timeout=10))
            seen.append(message)
            if message["event"] == "checkpoint":
                websocket.send(json.dumps({"event": "playedStream", "name": message["name"]}))
    except ConnectionClosed as exc:
        return exc


async def bot(line: Line) -> None:
    heard = []
    listener = line.listen()
    line.checkpoint("listening")
    async for chunk in listener:
        heard.append(chunk.samples)
        if len(heard) == 50:
            break
    assert [span.hz for span in find_tones(np.concatenate(heard), 8000, [650])] == [650]
    async for digit in line.digits():
        assert digit == "5"
        break
    await line.play(ToneSource(450).take(4000), sample_rate_hz=8000)


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_the_library_as_a_platform(compression: Any) -> None:
    """Also when it offers to compress: nobody here takes up that offer."""
    seen: list[dict[str, Any]] = []
    records: list[LineRecord] = []
    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(
            partial(serve_lines, bot, "127.0.0.1", 0, config=ServeConfig(on_ended=records.append))
        )
        work = partial(platform, f"ws://127.0.0.1:{port}/", seen, compression=compression)
        with trio.fail_after(15):
            pong, closed = await trio.to_thread.run_sync(work)
            while not records:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert pong
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1000
    assert [record.reason for record in records] == [EndReason.APPLICATION_HUNG_UP]
    assert records[0].statistics.refused == {}
    audio = b"".join(base64.b64decode(one["media"]["payload"]) for one in seen if one["event"] == "playAudio")
    assert audio == pcmu_encode(ToneSource(450).take(4000))


async def test_the_library_is_turned_away_without_a_signature() -> None:
    async with trio.open_nursery() as nursery:
        config = ServeConfig(plivo_auth_token="token")
        ((_, port),) = await nursery.start(partial(serve_lines, bot, "127.0.0.1", 0, config=config))
        with pytest.raises(InvalidStatus) as caught:
            await trio.to_thread.run_sync(partial(platform, f"ws://127.0.0.1:{port}/", []))
        nursery.cancel_scope.cancel()
    assert caught.value.response.status_code == 403


async def test_the_library_speaking_no_wire_is_told_so() -> None:
    def speak(url: str) -> ConnectionClosed:
        with connect(url) as websocket:
            try:
                websocket.send(json.dumps({"greeting": "hello"}))
                for _ in range(100):
                    websocket.send(json.dumps({"type": "more", "text": "x" * 1000}))
            except ConnectionClosed as exc:
                return exc
            return _confirm_until_closed(websocket, [])

    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(partial(serve_lines, bot, "127.0.0.1", 0))
        with trio.fail_after(10):
            closed = await trio.to_thread.run_sync(speak, f"ws://127.0.0.1:{port}/")
        nursery.cancel_scope.cancel()
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1008
    assert closed.rcvd.reason.startswith("no known wire opens like this (an object with the keys greeting; known:")
