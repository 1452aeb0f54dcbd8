"""What a system under test says to the harness: it opens calls when told, and reports its own clock and memory.

The system under test measures itself (process clock, resident memory) and the load generator measures lateness;
the harness only asks. One JSON object a line, commands on standard input, answers on standard output:

    {"do": "open", "ws_port": 8080, "first": 0, "rtp_ports": [..]}  ->  {"rtp_ports": [..], ...usage}
    {"do": "mark"}                                                  ->  {...usage}
    {"do": "stop"} or end of input                                  ->  the process ends by itself

A system under test may know further commands; it says so by passing them to `serve_control`.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio


@dataclass(frozen=True, slots=True)
class Peers:
    """The far ends of the calls to open: all on loopback, both played by the load generator."""

    ws_port: int
    """Where the application's WebSocket server listens; call i connects to the path ``/i``."""
    first: int
    """Number of the first call of this batch."""
    rtp_ports: Sequence[int]
    """One per call: where its caller's RTP comes from and goes to."""


OpenCalls = Callable[[Peers], Awaitable[list[int]]]
"""Opens one call per remote port and returns their local RTP ports once media can flow."""
Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Does what one further command says and returns what its answer holds beside the usage."""
UNAVAILABLE = 69
"""Exit status of a system under test that cannot run here; its last line on standard error says why.

Source: sysexits.h, EX_UNAVAILABLE."""


def waited_s() -> float:
    """Seconds in which this thread was ready and its processor did other processes' work; 0 where Linux does not count.

    What the process's own threads used meanwhile is not in it.
    """
    try:
        waited_ns = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except OSError:
        return 0.0
    return waited_ns / 1e9 - (time.process_time() - time.thread_time())


def usage() -> dict[str, Any]:
    """Read the process's own clock, memory and switches; CPU seconds are user plus system of all threads."""
    with open("/proc/self/statm") as statm:
        resident_pages = int(statm.read().split()[1])
    switches = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "monotonic_s": time.monotonic(),
        "cpu_s": time.process_time(),
        "waited_s": waited_s(),
        "resident_bytes": resident_pages * os.sysconf("SC_PAGE_SIZE"),
        "voluntary_switches": switches.ru_nvcsw,
        "involuntary_switches": switches.ru_nivcsw,
        "collections": sum(generation["collections"] for generation in gc.get_stats()),
    }


def say(answer: dict[str, Any]) -> None:
    """Write one answer; the harness is waiting for it, so the pipe is never full."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve_control(
    open_calls: OpenCalls,
    statistics: Callable[[], dict[str, Any]] = dict,
    *,
    freeze: bool = True,
    commands: Mapping[str, Command] | None = None,
) -> None:
    """Obey the harness until it says stop or goes away.

    After each batch of calls the garbage collector's young objects are collected and, with ``freeze``, set aside:
    what a long-running call server does, and the same for every design, so that full collections over thousands of
    live objects are not what lateness measures.

    Args:
        open_calls: opens one batch of calls.
        statistics: the design's own counts, added to every answer under ``design``.
        commands: what it does beyond opening calls, by the word after ``do``.
    """
    pending = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as orders:
        async for piece in orders:
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                command = json.loads(line)
                answer: dict[str, Any] = {}
                if command["do"] == "stop":
                    return
                if command["do"] == "open":
                    peers = Peers(command["ws_port"], command["first"], command["rtp_ports"])
                    answer["rtp_ports"] = await open_calls(peers)
                    gc.collect()
                    if freeze:
                        gc.freeze()
                elif commands and command["do"] in commands:
                    answer = await commands[command["do"]](command)
                say(answer | usage() | {"design": statistics()})
