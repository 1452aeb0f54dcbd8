"""The system under test: talkpath through its public face alone, as a call server embeds it.

One `open_call` block per call in a task of its own, one bidirectional stream on Plivo's wire, nothing between the
engine and the benchmark that a user would not have.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Literal

import trio

import talkpath
from benchmarks.control import Peers, serve_control


class Server:
    """Holds calls open until it is told to stop, and adds up what their records say."""

    def __init__(self, engine: talkpath.Engine) -> None:
        self._engine = engine
        self.live = 0
        self.ended: dict[str, int] = {}

    async def run_call(
        self, number: int, ws_port: int, rtp_port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep one call with one stream; reports its local RTP port when media can flow."""
        leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", rtp_port), codec="PCMU", ptime_ms=20)
        async with self._engine.open_call(leg) as call:
            await call.start_stream(
                talkpath.StreamSpec(
                    url=f"ws://127.0.0.1:{ws_port}/{number}", wire="plivo", bidirectional=True, codec="PCMU"
                )
            )
            self.live += 1
            task_status.started(call.leg.local_address[1])
            record = await call.wait_ended()
            self.live -= 1
            self.ended[record.reason.value] = self.ended.get(record.reason.value, 0) + 1


async def main(driver: Literal["tasks"]) -> None:
    """Serve the harness on standard input and output."""
    async with talkpath.open_engine(talkpath.EngineConfig(driver=driver)) as engine, trio.open_nursery() as nursery:
        server = Server(engine)

        async def open_calls(peers: Peers) -> list[int]:
            return [
                await nursery.start(server.run_call, number, peers.ws_port, rtp_port)
                for number, rtp_port in enumerate(peers.rtp_ports, peers.first)
            ]

        def statistics() -> dict[str, Any]:
            return {"live": server.live, "ended": server.ended, "engine": dataclasses.asdict(engine.statistics())}

        await serve_control(open_calls, statistics)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--driver", choices=("tasks",), default="tasks", help="who moves plain media")
    trio.run(main, options.parse_args().driver)
