"""One end of many WebSocket connections by picows on uvloop, the fastest WebSocket library for Python.

As it is measured it does the least there can be around the library: one timer for all, text that is written already,
frames looked at as memoryviews, and at the server's end, where nothing is masked, the same bytes with the header in
place. With `--codec` it does what a program has to do that wants audio: each message is made from G.711 octets, a
template filled in by one `bytes %` and base64 by pybase64, and of each that comes the octets are got by orjson, which
reads it where it arrived, and pybase64. Nothing is queued, paced, decoded or handed to a task: that is ours alone.
"""

from __future__ import annotations

from typing import Any

import orjson
import pybase64
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

from benchmarks.control import Peers, say
from benchmarks.control_asyncio import serve_control
from benchmarks.one_clock import Clock
from benchmarks.wire_ends import AUDIO, START, STREAM_ID, Ends, asked, urls

ROOM_FOR_HEADER = 14
# Any: bytearrays, whose % the type stubs take to give bytes.
MEDIA_TEMPLATE: Any = bytearray(ROOM_FOR_HEADER) + (
    b'{"event":"media","sequenceNumber":%d,"streamId":"' + STREAM_ID.encode() + b'",'
    b'"media":{"track":"inbound","timestamp":"%d","chunk":%d,"payload":"%b"},"extra_headers":"{}"}'
)
PLAY_TEMPLATE: Any = bytearray(ROOM_FOR_HEADER) + (
    b'{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":"%b"}}'
)

loads: Any = orjson.loads
b64decode: Any = pybase64.b64decode
b64encode: Any = pybase64.b64encode


class Connection(WSListener):
    """Hears frames and looks at them; sends one text on each tick."""

    def __init__(self, ends: Ends) -> None:
        self._masks = ends.platform
        self._text = ends.text.encode()
        self._framed = bytearray(ROOM_FOR_HEADER) + self._text
        self.heard_bytes = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Keep what sends."""
        self._send = transport.send
        self._send_framed = transport.send_reuse_external_bytearray

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Look at the payload where it lies."""
        self.heard_bytes += len(frame.get_payload_as_memoryview())
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def tick(self) -> None:
        """Send once."""
        if self._masks:
            self._send(WSMsgType.TEXT, self._text)
        else:
            self._send_framed(WSMsgType.TEXT, self._framed, ROOM_FOR_HEADER)


class AudioConnection(Connection):
    """Hears octets of audio and sends them."""

    def __init__(self, ends: Ends) -> None:
        super().__init__(ends)
        self._kind = "playAudio" if ends.platform else "media"
        self._chunk = 0
        self.heard: bytes = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Get the audio of a media message."""
        if frame.msg_type is WSMsgType.TEXT:
            message = loads(frame.get_payload_as_memoryview())
            if message["event"] == self._kind:
                self.heard = b64decode(message["media"]["payload"], validate=True)
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def tick(self) -> None:
        """Send 20 ms of audio."""
        if self._masks:
            self._chunk = chunk = self._chunk + 1
            framed = MEDIA_TEMPLATE % (chunk + 1, chunk * 20, chunk, b64encode(AUDIO))
        else:
            framed = PLAY_TEMPLATE % b64encode(AUDIO)
        self._send_framed(WSMsgType.TEXT, framed, ROOM_FOR_HEADER)


async def main(ends: Ends) -> None:
    """Serve the harness on standard input and output."""
    clock = Clock()
    connections: list[Connection] = []

    def add(request: WSUpgradeRequest | None = None) -> Connection:
        connection = (AudioConnection if ends.codec else Connection)(ends)
        connections.append(connection)
        return connection

    async def open_streams(peers: Peers) -> list[int]:
        for url in urls(peers):
            transport, _ = await ws_connect(lambda: add(), url, use_aiofastnet=False)
            transport.send(WSMsgType.TEXT, START.encode())
        return await begin(peers)

    async def begin(peers: Peers) -> list[int]:
        for connection in connections if ends.sends else ():
            clock.add(connection)
        clock.start()
        return []

    if ends.platform:
        await serve_control(open_streams)
        return
    server = await ws_create_server(add, "127.0.0.1", 0, use_aiofastnet=False)
    say({"port": server.sockets[0].getsockname()[1]})
    await serve_control(begin)
    server.close()


if __name__ == "__main__":
    uvloop.run(main(asked()))
