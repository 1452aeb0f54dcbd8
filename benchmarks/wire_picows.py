"""One end of many WebSocket connections by picows on uvloop: text that is written already, text that nobody parses.

What is measured is the library and the kernel, with as little around them as there can be: one timer for all, frames
looked at as memoryviews, and at the server's end, where nothing is masked, the same bytes with the header in place.
"""

from __future__ import annotations

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

from benchmarks.control import Peers, say
from benchmarks.control_asyncio import serve_control
from benchmarks.one_clock import Clock
from benchmarks.wire_ends import START, Ends, asked, urls

ROOM_FOR_HEADER = 14


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


async def main(ends: Ends) -> None:
    """Serve the harness on standard input and output."""
    clock = Clock()
    connections: list[Connection] = []

    def add(request: WSUpgradeRequest | None = None) -> Connection:
        connection = Connection(ends)
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
