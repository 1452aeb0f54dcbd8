"""Between the two ends of a WebSocket: passes every frame on, and spoils what a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from support.frames import CLOSE, KEY, PING, PONG, TEXT, Frame, close, frame, take_frame
from talkpath.transport.link import Link
from talkpath.transport.memory import MemoryListener, listen_memory
from talkpath.transport.upgrade import open_websocket, parse_url, receive_upgrade, send_all
from talkpath.wire.catalog import SUBPROTOCOLS

__all__ = ["CLOSE", "PING", "PONG", "TEXT", "Frame", "HangUp", "Reply", "Saboteur", "Step", "close", "relaying"]


@dataclass(frozen=True)
class Reply:
    """Goes back to whoever sent the frame."""

    data: bytes


class HangUp(Exception):
    """Both connections are gone, without a word."""


Step = bytes | float | Reply
"""Bytes to pass on, seconds to wait first, or an answer."""


def again(one: Frame) -> bytes:
    """Write a frame as it was."""
    return frame(one.opcode, one.payload, fin=one.fin, key=KEY if one.masked else None)


class Saboteur:
    """Passes on what comes; a test overrides one of the two. Each gets whole frames, and keeps count as it likes."""

    subprotocol = "media"
    """What is offered to the server; the client's offer is accepted whatever it is."""
    selects = SUBPROTOCOLS
    idle_s = float("inf")
    """A client that is silent for so long is closed on."""
    takes_pieces = True
    """Off: a read of a single byte breaks it."""
    dies_of_a_break = False
    """On: after a client that was gone without a close, nobody is served."""

    def __init__(self) -> None:
        self.seen = 0
        self.dead = False

    def to_server(self, one: Frame) -> Sequence[Step]:
        return [again(one)]

    def to_client(self, one: Frame) -> Sequence[Step]:
        return [again(one)]


class _Relay:
    def __init__(self, spoiled: Saboteur, client: Link, server: Link) -> None:
        self.spoiled, self.client, self.server = spoiled, client, server

    async def run(self, from_client: bytes, from_server: bytes) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, self.server, self.client, self.spoiled.to_client, bytearray(from_server))
                await self._pump(self.client, self.server, self.spoiled.to_server, bytearray(from_client))
        except* (HangUp, OSError, trio.ClosedResourceError):
            pass
        finally:
            self.client.close()
            self.server.close()

    async def _pump(
        self, source: Link, sink: Link, change: Callable[[Frame], Sequence[Step]], waiting: bytearray
    ) -> None:
        buffer = bytearray(65536)
        closed = False
        while True:
            while (one := take_frame(waiting)) is not None:
                closed |= one.opcode == CLOSE
                for step in change(one):
                    if isinstance(step, float):
                        await trio.sleep(step)
                    elif isinstance(step, Reply):
                        await send_all(source, step.data)
                    else:
                        await send_all(sink, step)
            try:
                n = source.recv_into(memoryview(buffer))
            except BlockingIOError:
                with trio.move_on_after(self.spoiled.idle_s if source is self.client else float("inf")) as patience:
                    await source.wait_readable()
                if patience.cancelled_caught:
                    await send_all(source, close(1011))
                    raise HangUp from None
                continue
            if n == 0:
                if source is self.client and not closed:
                    self.spoiled.dead = self.spoiled.dies_of_a_break
                    raise HangUp
                sink.finish()
                return
            if n == 1 and source is self.client and not self.spoiled.takes_pieces:
                await send_all(source, close(1002))
                raise HangUp
            waiting += buffer[:n]


class relaying:  # noqa: N801 - reads as what it does
    """Serve ``memory://NAME`` for the block, passing each connection on to `url` through `spoiled`."""

    def __init__(self, nursery: trio.Nursery, spoiled: Saboteur, name: str, url: str) -> None:
        self._spoiled = spoiled
        self._url = url
        self._nursery = nursery
        self._listener: MemoryListener = listen_memory(name)
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        while True:
            self._nursery.start_soon(self._relay, await self._listener.accept())

    async def _relay(self, client: Link) -> None:
        if self._spoiled.dead:
            client.close()
            return
        with contextlib.suppress(OSError):
            handshake, request = await receive_upgrade(client)
            server, leftover = await open_websocket(
                parse_url(self._url), headers=_passed_on(request.headers), subprotocol=self._spoiled.subprotocol
            )
            await send_all(client, handshake.accept(subprotocols=self._spoiled.selects))
            await _Relay(self._spoiled, client, server).run(handshake.leftover, leftover)


def _passed_on(headers: object) -> list[tuple[str, str]]:
    assert hasattr(headers, "items")
    return [(name, value) for name, value in headers.items() if name == "authorization"]
