"""An application on FreeClimb's wire that a test writes by hand, message by message, as protoc's classes make them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from support import freeclimb_protoc as protoc
from talkpath.errors import RemoteWireError
from talkpath.transport.grpc import GrpcCarriage, GrpcServerConnection
from talkpath.transport.memory import MemoryLink, listen_memory
from talkpath.wire.freeclimb_messages import METHOD


class HandMade:
    """One stream, as its application sees it."""

    def __init__(self, carriage: GrpcCarriage, server: GrpcServerConnection, link: MemoryLink) -> None:
        self.carriage = carriage
        self.server = server
        self.link = link
        self.said: list[Any] = []
        self._changed = trio.Event()

    def all(self, which: str) -> list[Any]:
        """Return all that the platform has said of a kind so far."""
        return [getattr(message, which) for message in self.said if message.WhichOneof("payload") == which]

    def in_order(self) -> list[str]:
        """Return what the platform has said, but audio, in words."""
        said = [(message.WhichOneof("payload"), message) for message in self.said]
        words = [
            (which.removeprefix("notify_").removesuffix("_data"), getattr(getattr(message, which), "id", ""))
            for which, message in said
            if which != "notify_audio_data"
        ]
        return [" ".join(word).strip() for word in words]

    async def send(self, **payload: Any) -> None:
        await self.carriage.send_message(protoc.app(**payload).SerializeToString())

    async def wait_for(self, which: str, count: int = 1) -> Any:
        while len(found := self.all(which)) < count:
            await self._changed.wait()
        return found[count - 1]

    async def read(self) -> None:
        """Read until the platform ends the stream."""
        while (message := await self.carriage.receive_message()) is not None:
            self.said.append(protoc.messages().PlatformMessage.FromString(message))
            self._changed.set()
            self._changed = trio.Event()


Script = Callable[[HandMade], Awaitable[None]]


@asynccontextmanager
async def hand_made(script: Script, *, reads: bool = True) -> AsyncIterator[tuple[str, list[HandMade]]]:
    """Serve applications that do what `script` says. -> the address, and the streams that came"""
    came: list[HandMade] = []
    listener = listen_memory("hand-made")

    async with trio.open_nursery() as nursery:

        async def connect(link: MemoryLink) -> None:
            async def handle(carriage: GrpcCarriage) -> None:
                app = HandMade(carriage, server, link)
                came.append(app)
                try:
                    async with trio.open_nursery() as both:
                        if reads:
                            both.start_soon(_reading, app, both.cancel_scope)
                        await script(app)
                except* (OSError, RemoteWireError):
                    pass  # The platform has gone, as it may.
                carriage.close()

            server = GrpcServerConnection(link, handle, paths=[METHOD])
            await server.run()

        async def accept() -> None:
            while True:
                nursery.start_soon(connect, await listener.accept())

        nursery.start_soon(accept)
        try:
            yield "memory://hand-made", came
        finally:
            listener.close()
            nursery.cancel_scope.cancel()


async def _reading(app: HandMade, scope: trio.CancelScope) -> None:
    await app.read()
    scope.cancel()
