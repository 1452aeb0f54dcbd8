"""The application's end under test: a bot under `serve_lines` that says back what it hears, as the README shows it."""

from __future__ import annotations

import argparse
from typing import Any

import trio

import talkpath
from benchmarks.control import Peers, say, serve_control
from benchmarks.wire_talkpath import with_driver


async def main(chunk_ms: int, driver: str | None) -> None:
    """Serve the harness on standard input and output."""
    line_config = with_driver(talkpath.LineConfig, driver, message_ms=chunk_ms)
    config = with_driver(talkpath.ServeConfig, None, line=line_config, max_lines=4000)
    ended: dict[str, int] = {}

    async def bot(line: talkpath.Line) -> None:
        async for chunk in line.listen(chunk_ms=chunk_ms):
            line.speak(chunk)
        reason = (await line.wait_ended()).value
        ended[reason] = ended.get(reason, 0) + 1

    def serve(*, task_status: trio.TaskStatus[Any]) -> Any:
        return talkpath.serve_lines(bot, "127.0.0.1", 0, config=config, task_status=task_status)

    async def settle(peers: Peers) -> list[int]:
        return []

    async with trio.open_nursery() as nursery:
        ((_, port),) = await nursery.start(serve)
        say({"port": port})
        await serve_control(settle, lambda: {"ended": ended})
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--chunk-ms", type=int, default=60)
    options.add_argument("--driver")
    given = options.parse_args()
    trio.run(main, given.chunk_ms, given.driver)
