"""The naive design on the other WebSocket library of Trio programs: `websockets.trio`.

The same four tasks a call as in naive.py, with what `websockets` brings instead of trio-websocket and its reader: its
sans-IO codec is three times cheaper than wsproto, its stream layer the same order. Compression is not offered, since
no voice platform speaks it, and there are no keepalive pings, as trio-websocket sends none: one task and one timer a
call less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from websockets.trio.client import connect as websocket_connect

from benchmarks.naive import Messages, main


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Messages]:
    """Connect with websockets' Trio client."""
    async with websocket_connect(url, compression=None, ping_interval=None, proxy=None) as connection:
        yield Messages(connection.send, connection.recv)


if __name__ == "__main__":
    trio.run(main, connect)
