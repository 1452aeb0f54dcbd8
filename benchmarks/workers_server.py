"""The system under test on worker processes: talkpath_server's calls, placed by a front that does nothing else.

The process the harness talks to is the front; what counts stands under ``design`` in each answer: ``cpu_s`` and
``resident_bytes`` of the front and all workers together, and each worker's own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import Any

import trio

import talkpath
from benchmarks.control import UNAVAILABLE, Peers, serve_control
from benchmarks.talkpath_server import configure, make_parser
from talkpath.engine import Engine, PlacedCall, Workers
from talkpath.errors import ConfigError

PLACING = 16
"""Calls that are being set up at once."""
ARGUMENTS = "TALKPATH_BENCH_ARGUMENTS"
"""In the workers' environment: the front's command line, as JSON."""
_parser = make_parser(__doc__)
_parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; 0: one for each core")
_parser.add_argument("--pin", action="store_true", help="keep each worker on one of the cores there are, in turn")


def make_engine_config() -> talkpath.EngineConfig:
    """Make the options of a worker's engine, of what the front's command line says; in the worker."""
    return configure(_parser.parse_args(json.loads(os.environ[ARGUMENTS])))


async def run_call(engine: Engine, placed: talkpath.Placed) -> talkpath.CallRecord:
    """Keep one call with one stream until the front hangs up; in the worker."""
    to = placed.parameters
    leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", to["rtp_port"]), codec="PCMU", ptime_ms=20)
    async with engine.open_call(leg) as call:
        spec = talkpath.StreamSpec(
            url=to["url"], wire="plivo", bidirectional=True, codec="PCMU", message_ms=to["message_ms"]
        )
        await call.start_stream(spec)
        placed.ready({"rtp_port": leg.local_address[1]}, call=call)
        return await call.wait_ended()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, user plus system of all its threads. Source: clock_getres(2), CPU clocks."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def statistics(workers: Workers, calls: list[PlacedCall]) -> dict[str, Any]:
    """Return what the workers say, and what the system says of them."""
    snapshot = workers.statistics()
    each = [
        dataclasses.asdict(one) | {"cpu_s": cpu_s(one.pid), "resident_bytes": resident_bytes(one.pid)}
        for one in snapshot.workers
    ]
    ended: dict[str, int] = {}
    for call in calls:
        if call.record is not None:
            ended[call.record.reason.value] = ended.get(call.record.reason.value, 0) + 1
    return {
        "live": snapshot.calls,
        "ended": ended,
        "cpu_s": time.process_time() + sum(one["cpu_s"] for one in each),
        "resident_bytes": resident_bytes(os.getpid()) + sum(one["resident_bytes"] for one in each),
        "workers": each,
    }


async def main(count: int, pin: bool, scheme: str, message_ms: int) -> None:
    """Serve the harness on standard input and output."""
    config = talkpath.WorkersConfig(count=count, pin=pin, engine="benchmarks.workers_server:make_engine_config")
    async with talkpath.open_workers("benchmarks.workers_server:run_call", config) as workers:
        calls: list[PlacedCall] = []

        async def open_calls(peers: Peers) -> list[int]:
            ports = [0] * len(peers.rtp_ports)
            limit = trio.CapacityLimiter(PLACING)

            async def place(at: int) -> None:
                async with limit:
                    url = f"{scheme}://127.0.0.1:{peers.ws_port}/{peers.first + at}"
                    call = await workers.place({"url": url, "rtp_port": peers.rtp_ports[at], "message_ms": message_ms})
                calls.append(call)
                ports[at] = call.answer["rtp_port"]

            async with trio.open_nursery() as nursery:
                for at in range(len(ports)):
                    nursery.start_soon(place, at)
            return ports

        await serve_control(open_calls, lambda: statistics(workers, calls))


if __name__ == "__main__":
    chosen = _parser.parse_args()
    os.environ[ARGUMENTS] = json.dumps(sys.argv[1:])
    try:
        configure(chosen)
    except (ConfigError, TypeError) as cannot:
        print(cannot, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    trio.run(main, chosen.workers, chosen.pin, "wss" if chosen.wss else "ws", chosen.message_ms)
