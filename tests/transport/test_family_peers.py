"""Libraries that share no code with us at the other end of Twilio's wire, both ways, over real sockets.

`websockets` behind Twilio's own request validator, and `trio-websocket`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from trio_websocket import ConnectionClosed as TrioClosed
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket, wrap_client_stream
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from support.calls import engine
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded
from talkpath.line import Line, LineRecord, ServeConfig, serve_lines
from talkpath.records import EndReason, Outcome
from talkpath.testing import ToneSource, find_tones

pytestmark = pytest.mark.smoke

TOKEN = "0123456789abcdef0123456789abcdef"
STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
GREETING = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC00000000000000000000000000000abc",
        "streamSid": STREAM,
        "callSid": "CAb77e037d411944b5902d25826b654539",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"tier": "gold"},
    },
    "streamSid": STREAM,
}


class Bot:
    """An application as Twilio's samples are: it plays a tone, marks it, and closes when the mark comes back."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.heard = b""
        self.numbers: list[int] = []

    def answer(self, text: Any) -> list[str] | None:
        """What it says to a message; None: it closes."""
        assert isinstance(text, str), "everything on this wire is text"
        message = json.loads(text)
        if "sequenceNumber" in message:
            self.numbers.append(int(message["sequenceNumber"]))
        if message["event"] == "media":
            self.heard += base64.b64decode(message["media"]["payload"])
            return []
        self.events.append(message["event"])
        if message["event"] == "start":
            assert message["start"]["customParameters"] == {"tier": "gold"}
            stream = {"streamSid": message["streamSid"]}
            payload = base64.b64encode(pcmu_encode(ToneSource(450).take(4000))).decode()
            return [
                json.dumps({"event": "media", **stream, "media": {"payload": payload}}),
                json.dumps({"event": "mark", **stream, "mark": {"name": "played"}}),
            ]
        return None if message["event"] == "mark" else []


async def call_bot(bot: Bot, url: str) -> None:
    """Call an application with a stream of ours; it is heard and hears."""
    leg = MemoryLeg()
    async with engine() as which, which.open_call(leg) as call:
        leg.say(ToneSource(1050).take(8000))
        spec = StreamSpec(
            url=url, wire="twilio", bidirectional=True, auth_token=TOKEN, custom_parameters={"tier": "gold"}
        )
        stream = await call.start_stream(spec)
        with trio.fail_after(10):
            await stream.ended.wait()
        heard = leg.heard()
    assert stream.record is not None
    assert stream.record.reason is EndReason.APPLICATION_HUNG_UP
    assert stream.record.refused == {}
    assert [(mark.name, mark.outcome) for mark in stream.record.marks] == [("played", Outcome.PLAYED)]
    assert bot.events == ["connected", "start", "mark"]
    assert bot.numbers == list(range(1, len(bot.numbers) + 1))
    assert [span.hz for span in find_tones(heard, 8000, [450])] == [450]
    assert [span.hz for span in find_tones(pcmu_decode(bot.heard), 8000, [1050])] == [1050]


async def test_websockets_as_an_application_that_lets_twilio_alone_in() -> None:
    bot = Bot()
    address: list[str] = []

    def check(websocket: ServerConnection, request: Any) -> Any:
        signature = request.headers.get("X-Twilio-Signature", "")
        # The platform signs the address that its users give it, which is a wss one: TLS ends in front of the bot.
        if RequestValidator(TOKEN).validate(address[0].replace("ws://", "wss://"), {}, signature):
            return None
        return websocket.respond(403, "not Twilio\n")

    def talk(websocket: ServerConnection) -> None:
        for message in websocket:
            answers = bot.answer(message)
            if answers is None:
                return
            for answer in answers:
                websocket.send(answer)

    server = serve(talk, "127.0.0.1", 0, process_request=check)
    address.append(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/media")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        await call_bot(bot, address[0])
        async with engine(EngineConfig(connect_attempts=1)) as which, which.open_call(MemoryLeg()) as call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url=address[0], wire="twilio", auth_token=TOKEN[::-1]))
        assert caught.value.reason is EndReason.HANDSHAKE_REFUSED
    finally:
        server.shutdown()
        thread.join()


async def test_trio_websocket_as_an_application() -> None:
    bot = Bot()

    async def talk(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        try:
            while (answers := bot.answer(await websocket.get_message())) is not None:
                for answer in answers:
                    await websocket.send_message(answer)
            await websocket.aclose()
        except TrioClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, talk, "127.0.0.1", 0, ssl_context=None))
        await call_bot(bot, f"ws://127.0.0.1:{server.port}/media")
        nursery.cancel_scope.cancel()


def says(n: int, tone: ToneSource) -> str:
    payload = base64.b64encode(pcmu_encode(tone.take(160))).decode()
    media = {"track": "inbound", "chunk": str(n), "timestamp": str(20 * n - 20), "payload": payload}
    return json.dumps({"event": "media", "sequenceNumber": str(n + 1), "media": media, "streamSid": STREAM})


class Platform:
    """What Twilio's end does with what the bot says: marks come back, audio is kept; the caller speaks once heard."""

    def __init__(self) -> None:
        self.audio = b""

    def answer(self, text: Any) -> list[str]:
        message = json.loads(text)
        assert message["streamSid"] == STREAM
        if message["event"] == "media":
            self.audio += base64.b64decode(message["media"]["payload"])
            return []
        assert message["event"] == "mark"
        tone = ToneSource(650)
        spoken = [says(n, tone) for n in range(1, 52)] if message["mark"]["name"] == "listening" else []
        return [json.dumps({**message, "sequenceNumber": "99"}), *spoken]


async def bot(line: Line) -> None:
    assert (line.info.wire, dict(line.info.custom_parameters)) == ("twilio", {"tier": "gold"})
    heard = []
    listener = line.listen()
    line.checkpoint("listening")
    async for chunk in listener:
        heard.append(chunk.samples)
        if len(heard) == 50:
            break
    assert [span.hz for span in find_tones(np.concatenate(heard), 8000, [650])] == [650]
    played = await line.play(ToneSource(450).take(4000), sample_rate_hz=8000)
    assert played.reason is Outcome.PLAYED


async def serve_one(work: Callable[[Platform, str], Awaitable[None]]) -> None:
    """Serve the bot to a platform that `work` plays; nothing is refused."""
    platform, records = Platform(), list[LineRecord]()
    async with trio.open_nursery() as nursery:
        config = ServeConfig(on_ended=records.append)
        ((_, port),) = await nursery.start(partial(serve_lines, bot, "127.0.0.1", 0, config=config))
        with trio.fail_after(15):
            await work(platform, f"ws://127.0.0.1:{port}/")
            while not records:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert [record.reason for record in records] == [EndReason.APPLICATION_HUNG_UP]
    assert records[0].statistics.refused == {}
    assert platform.audio == pcmu_encode(ToneSource(450).take(4000))


async def test_websockets_as_the_platform() -> None:
    def talk(platform: Platform, url: str) -> ConnectionClosed:
        with connect(url) as websocket:
            for message in (GREETING, START):
                websocket.send(json.dumps(message))
            try:
                while True:
                    for answer in platform.answer(websocket.recv(timeout=10)):
                        websocket.send(answer)
            except ConnectionClosed as exc:
                return exc

    async def work(platform: Platform, url: str) -> None:
        closed = await trio.to_thread.run_sync(talk, platform, url)
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1000

    await serve_one(work)


async def test_trio_websocket_as_the_platform() -> None:
    async def talk(platform: Platform, websocket: WebSocketConnection) -> TrioClosed:
        for message in (GREETING, START):
            await websocket.send_message(json.dumps(message))
        try:
            while True:
                for answer in platform.answer(await websocket.get_message()):
                    await websocket.send_message(answer)
        except TrioClosed as exc:
            return exc

    async def work(platform: Platform, url: str) -> None:
        host = url.removeprefix("ws://").rstrip("/")
        # The library leaves a socket to the collector that the other end has closed: this one is ours.
        stream = await trio.open_tcp_stream(host.split(":")[0], int(host.split(":")[1]))
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(nursery, stream, host, "/")
            closed = await talk(platform, websocket)
            nursery.cancel_scope.cancel()
        assert closed.reason is not None
        assert closed.reason.code == 1000

    await serve_one(work)
