"""One end of many WebSocket connections by the libraries of Trio programs: trio-websocket, and websockets' Trio API.

As cheap as the libraries allow: one task sends on all connections in turn, at the beat of one timerfd, text that is
written already; one task per connection awaits messages, which the libraries cannot do otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from benchmarks import naive
from benchmarks.control import Peers, say, serve_control
from benchmarks.idle_timer import Clock
from benchmarks.naive import Messages
from benchmarks.wire_ends import PHASES, START, Ends, asked, urls

Serve = Callable[[Callable[[Messages], Awaitable[None]], trio.Nursery], Awaitable[int]]
"""Serves on loopback with a task per connection, in a nursery; returns the port."""


async def serve_trio_websocket(use: Callable[[Messages], Awaitable[None]], nursery: trio.Nursery) -> int:
    """Serve with trio-websocket."""
    import trio_websocket

    async def answer(request: Any) -> None:
        connection = await request.accept()
        await use(Messages(connection.send_message, connection.get_message))

    server = await nursery.start(trio_websocket.serve_websocket, answer, "127.0.0.1", 0, None)
    port: int = server.port
    return port


async def serve_websockets(use: Callable[[Messages], Awaitable[None]], nursery: trio.Nursery) -> int:
    """Serve with websockets."""
    from websockets.trio.server import ServerConnection, serve

    async def answer(connection: ServerConnection) -> None:
        await use(Messages(connection.send, connection.recv))

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(serve, answer, listeners=listeners, compression=None, ping_interval=None))
    port: int = listeners[0].socket.getsockname()[1]
    return port


class Connections:
    """All connections of this process."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._open: list[Messages] = []

    async def connect(
        self, connect: naive.Connect, url: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Be the client of one connection."""
        async with connect(url) as messages:
            await messages.send(START)
            task_status.started()
            await self.use(messages)

    async def use(self, messages: Messages) -> None:
        """Hear what comes for as long as the connection lasts."""
        self._open.append(messages)
        while True:
            await messages.receive()

    async def send(self) -> None:
        """Send on a quarter of the connections every 5 ms; where nothing is to be sent, keep the beat alone."""
        clock = Clock()
        text = self._ends.text
        ticks = 0
        while True:
            for _ in range(await clock.wait()):
                for messages in self._open[ticks % PHASES :: PHASES] if self._ends.sends else ():
                    await messages.send(text)
                ticks += 1


async def main(ends: Ends) -> None:
    """Serve the harness on standard input and output."""
    if ends.library == "websockets":
        from benchmarks import trio_websockets

        connect, serve = trio_websockets.connect, serve_websockets
    else:
        connect, serve = naive.connect, serve_trio_websocket
    connections = Connections(ends)
    async with trio.open_nursery() as nursery:

        async def begin(peers: Peers) -> list[int]:
            for url in urls(peers):
                await nursery.start(connections.connect, connect, url)
            nursery.start_soon(connections.send)
            return []

        if not ends.platform:
            say({"port": await serve(connections.use, nursery)})
        await serve_control(begin)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, asked())
