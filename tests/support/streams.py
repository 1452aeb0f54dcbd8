"""One stream of one call in virtual time, and the application at its other end, by hand: any text wire's."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from support.frames import TEXT
from support.peer import Peer
from support.virtual import assert_pool_is_whole, virtual_engine
from talkpath.audio import Samples
from talkpath.engine.call import Call
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.engine.stream import CallStream
from talkpath.transport.memory import listen_memory


@dataclass
class Streamed:
    """What a test holds of it."""

    call: Call
    leg: MemoryLeg
    stream: CallStream
    peer: Peer

    def texts(self) -> list[dict[str, Any]]:
        """Everything the application has been told."""
        return [json.loads(one.payload) for one in self.peer.frames if one.opcode == TEXT]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of one kind."""
        return [text for text in self.texts() if kind in (text.get("event"), text.get("type"))]

    def times_of(self, kind: str) -> list[float]:
        """When they came."""
        return [
            at
            for one, at in zip(self.peer.frames, self.peer.arrived, strict=True)
            if one.opcode == TEXT
            and kind in (json.loads(one.payload).get("event"), json.loads(one.payload).get("type"))
        ]


def base64_of(samples: Samples, byte_order: str = "<") -> str:
    """Write L16 samples as a payload."""
    return base64.b64encode(samples.astype(f"{byte_order}i2").tobytes()).decode()


@asynccontextmanager
async def open_stream(
    leg: MemoryLeg | None = None, *, bidirectional: bool = True, **options: Any
) -> AsyncIterator[Streamed]:
    """Start a stream of a call; whoever leaves hangs the call up, and every block is back afterwards."""
    listener = listen_memory("application")
    leg = leg or MemoryLeg()
    async with trio.open_nursery() as nursery, virtual_engine(EngineConfig(pool_bytes=4 << 20)) as engine:
        peers: list[Peer] = []

        async def application() -> None:
            peers.append(Peer(await listener.accept(), client=False))
            await peers[0].upgrade_as_server()
            await peers[0].read_all()

        nursery.start_soon(application)
        async with engine.open_call(leg) as call:
            spec = StreamSpec(**{"url": "memory://application", "bidirectional": bidirectional, **options})
            yield Streamed(call, leg, await call.start_stream(spec), peers[0])
        assert_pool_is_whole(engine)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    listener.close()
