"""A server of lines in virtual time, and platforms that knock at it by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from support.peer import Peer, connect
from talkpath.line import Line, LineRecord, LineServer, ServeConfig, serve_lines, serve_memory_lines
from talkpath.records import EndReason

START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": 1,
    "start": {
        "callId": "7a9f8c52-9f40-4c0b-8f8e-111111111111",
        "streamId": "20170ee2-2d41-4d3b-9d54-222222222222",
        "accountId": "MA00000000000000TEST",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    },
    "extra_headers": "{}",
}


class Served:
    """What became of a server's connections."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        """Those whose bot ran."""
        self.records: list[LineRecord] = []
        self.server: LineServer = None  # type: ignore[assignment]
        self.addresses: list[tuple[str, int]] = []

    async def stay(self, line: Line) -> None:
        """A bot that waits until its line is over."""
        self.lines.append(line)
        await line.wait_ended()

    def settings(self, config: ServeConfig) -> ServeConfig:
        def serving(server: LineServer) -> None:
            self.server = server

        return dataclasses.replace(config, on_ended=self.records.append, on_serving=serving)


@asynccontextmanager
async def served(
    config: ServeConfig | None = None, bot: Callable[[Line], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[Served]:
    """Serve at ``memory://bot`` for the block."""
    what = Served()
    settings = what.settings(config or ServeConfig())

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await serve_memory_lines(bot or what.stay, "bot", config=settings, task_status=task_status, **options)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield what
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served_on_sockets(
    config: ServeConfig | None = None, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[Served]:
    """Serve on a port of this machine for the block; a test that hangs fails."""
    what = Served()
    settings = what.settings(config or ServeConfig())

    async def serve(*, task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
        await serve_lines(what.stay, host, 0, config=settings, task_status=task_status, **options)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            what.addresses = await nursery.start(serve)
            yield what
            nursery.cancel_scope.cancel()


async def knock(path: str = "/", *headers: tuple[str, str], parameters: str = "{}") -> tuple[str, Peer]:
    """Ask for an upgrade, and open a stream where it is granted. -> the status, the peer"""
    peer = connect("bot")
    status = (await peer.upgrade_as_client(path, *headers)).split(" ")[1]
    if status == "101":
        await peer.text({**START, "extra_headers": parameters})
        with trio.move_on_after(0.5):
            await peer.read_all(closes=False)
    return status, peer


def reasons(records: list[LineRecord]) -> list[EndReason]:
    return [record.reason for record in records]
