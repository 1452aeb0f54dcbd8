"""One end of many media streams by talkpath, through its public face: JSON, base64, G.711 and playout are its own.

The platform's end is a call per connection. Its caller is an RTP leg on hold, so that nothing goes to it or comes from
it, with one stream, bidirectional where it is to hear; with neither `--sends` nor `--hears` there is no stream, and
what the process uses then is what the calls cost without their WebSocket. A stream always sends, so hearing is measured
as what both cost more than sending. The application's end is `serve_lines`: hearing is a bot that listens in chunks of
60 ms, sending is one task that speaks 20 ms on every line at a timer's beat.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import trio

import talkpath
from benchmarks.control import Peers, say, serve_control
from benchmarks.idle_timer import Clock
from benchmarks.wire_ends import PHASES, Ends, asked, urls

CHUNK_MS = 60


def with_driver(config: type[Any], driver: str | None, **options: Any) -> Any:
    """Make a config that names the driver, where one is asked for and this kind of config has a say in it."""
    if driver and any(field.name == "driver" for field in dataclasses.fields(config)):
        options["driver"] = driver
    if any(field.name == "max_busy_share" for field in dataclasses.fields(config)):
        options |= {"max_busy_share": None, "max_lateness_ms": None}  # It is to be loaded to its limit.
    if any(field.name == "max_handshakes_per_address" for field in dataclasses.fields(config)):
        options["max_handshakes_per_address"] = None  # The generator is one address.
    return config(**options)


async def run_call(
    engine: talkpath.Engine,
    ends: Ends,
    url: str,
    rtp_port: int,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep one call, with the stream that is asked for."""
    leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", rtp_port), media_timeout_s=0)
    async with engine.open_call(leg) as call:
        leg.update(direction="inactive")
        if ends.sends or ends.hears:
            await call.start_stream(talkpath.StreamSpec(url=url, bidirectional=ends.hears))
        task_status.started()
        await call.wait_ended()


async def be_platform(ends: Ends) -> None:
    """Serve the harness with calls."""
    config = with_driver(talkpath.EngineConfig, ends.driver)
    async with talkpath.open_engine(config) as engine, trio.open_nursery() as nursery:

        async def open_streams(peers: Peers) -> list[int]:
            for url, rtp_port in zip(urls(peers), peers.rtp_ports, strict=True):
                await nursery.start(run_call, engine, ends, url, rtp_port)
            return []

        await serve_control(open_streams)
        nursery.cancel_scope.cancel()


async def be_application(ends: Ends) -> None:
    """Serve the harness with lines."""
    lines: list[talkpath.Line] = []

    async def bot(line: talkpath.Line) -> None:
        lines.append(line)
        if ends.hears:
            async for _ in line.listen(chunk_ms=CHUNK_MS):
                pass
        await line.wait_ended()

    async def speak() -> None:
        frame = np.arange(160, dtype=np.int16)
        clock = Clock()
        ticks = 0
        while True:
            for _ in range(await clock.wait()):
                for line in lines[ticks % PHASES :: PHASES] if ends.sends else ():
                    line.speak(frame, sample_rate_hz=8000)
                ticks += 1

    line = with_driver(talkpath.LineConfig, ends.driver)
    config = with_driver(talkpath.ServeConfig, None, line=line, max_lines=4000)
    async with trio.open_nursery() as nursery:

        async def begin(peers: Peers) -> list[int]:
            nursery.start_soon(speak)
            return []

        def serve(*, task_status: trio.TaskStatus[Any]) -> Any:
            return talkpath.serve_lines(bot, "127.0.0.1", 0, config=config, task_status=task_status)

        ((_, port),) = await nursery.start(serve)
        say({"port": port})
        await serve_control(begin)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    given = asked()
    trio.run(be_platform if given.platform else be_application, given)
