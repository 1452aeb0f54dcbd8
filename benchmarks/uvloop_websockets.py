"""The usual peer of an asyncio programmer who knows where the time goes: uvloop, `websockets`, orjson, one clock.

One task a call, which awaits its messages; all else is one_clock.py's, the C codec included. `websockets` sends from a
coroutine as a rule; a clock that serves hundreds of calls in one step cannot await each of them, so it uses the
library's synchronous `broadcast` to one connection, and looks at the transport's buffer first: a peer that takes no
bytes has its messages dropped. Text stays bytes in both directions, compression is not offered, no keepalive pings.
"""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from benchmarks.one_clock import Call, serve

STALLED_BYTES = 8192


class WebsocketsCall(Call):
    """A call with a task that listens."""

    def __init__(self, number: int, connection: ClientConnection) -> None:
        super().__init__(number)
        self._connection = connection
        self._to = (connection,)
        self._waiting_bytes = connection.transport.get_write_buffer_size
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        receive = self._connection.recv
        try:
            while True:
                self.receive_text(await receive(decode=False))
        except ConnectionClosed:
            return

    def send_text(self, text: bytearray) -> None:
        """Send without waiting."""
        if self._waiting_bytes() > STALLED_BYTES:
            self.frames_dropped += 1
        else:
            broadcast(self._to, text, text=True)


async def open_call(number: int, url: str) -> Call:
    """Connect with websockets."""
    return WebsocketsCall(number, await connect(url, compression=None, ping_interval=None, proxy=None))


if __name__ == "__main__":
    uvloop.run(serve(open_call))
