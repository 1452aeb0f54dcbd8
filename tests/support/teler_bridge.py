"""An application on Teler's own SDK, unmodified: it says what it sees on stdout, a JSON line each.

Run as a program. The SDK's `StreamConnector` bridges the call to a remote WebSocket, as FreJun's bridge samples do
to a model's; the remote here says half a second of tone for each fifth message of the caller's, in four chunks, takes
back the third of them, and asks for the end after the second time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import sys
from collections.abc import AsyncIterator

import websockets
from teler.streams import StreamConnector, StreamOp

TONE_HZ = 450
CHUNK_MS = 125


def say(what: str, **facts: object) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


def tone(ms: int) -> str:
    samples = (round(8000 * math.sin(2 * math.pi * TONE_HZ * n / 8000)) for n in range(8 * ms))
    return base64.b64encode(b"".join(struct.pack("<h", sample) for sample in samples)).decode()


class CallWebSocket:
    """What the SDK wants of a web framework's socket, on the websockets library's."""

    def __init__(self, websocket: websockets.ServerConnection) -> None:
        self.websocket = websocket

    async def iter_text(self) -> AsyncIterator[str]:
        async for message in self.websocket:
            assert isinstance(message, str), "everything on this wire is text"
            yield message

    async def send_text(self, text: str) -> None:
        await self.websocket.send(text)

    async def close(self, code: int, reason: str) -> None:
        await self.websocket.close(code, reason)


async def remote(websocket: websockets.ServerConnection) -> None:
    """The model's end."""
    n_audio = 0
    async for _ in websocket:
        n_audio += 1
        if n_audio % 5 == 0:
            for n in range(4):
                await websocket.send(json.dumps({"say": n + n_audio, "take_back": n + n_audio if n == 2 else None}))
        if n_audio == 12:
            await websocket.send(json.dumps({"end": True}))


async def on_call(text: str) -> tuple[str, StreamOp]:
    message = json.loads(text)
    if message["type"] == "audio":
        return text, StreamOp.RELAY
    say(message["type"], message=message)
    return "", StreamOp.PASS


async def serve_call(websocket: websockets.ServerConnection, remote_url: str) -> None:
    take_back: list[int] = []

    async def on_remote(text: str) -> tuple[str, StreamOp]:
        message = json.loads(text)
        if message.get("end"):
            return "", StreamOp.STOP
        if message["take_back"] is not None:
            take_back.append(message["take_back"])
        audio = {"type": "audio", "audio_b64": tone(CHUNK_MS), "chunk_id": message["say"]}
        if take_back and message["say"] > take_back[-1]:
            # Behind the chunk after it, as a barge-in would: the connector sends one text per message.
            await websocket.send(json.dumps(audio))
            return json.dumps({"type": "interrupt", "chunk_id": take_back.pop()}), StreamOp.RELAY
        return json.dumps(audio), StreamOp.RELAY

    connector = StreamConnector(remote_url=remote_url, call_stream_handler=on_call, remote_stream_handler=on_remote)
    await connector.bridge_stream(CallWebSocket(websocket))
    say("bridged")


async def main() -> None:
    async with websockets.serve(remote, "127.0.0.1", 0) as far:
        remote_url = f"ws://127.0.0.1:{next(iter(far.sockets)).getsockname()[1]}/"
        async with websockets.serve(lambda websocket: serve_call(websocket, remote_url), "127.0.0.1", 0) as near:
            say("listening", port=next(iter(near.sockets)).getsockname()[1])
            await asyncio.to_thread(sys.stdin.read)  # until whoever started us goes


asyncio.run(main())
