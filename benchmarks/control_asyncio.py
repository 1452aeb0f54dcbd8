"""The control protocol of control.py for systems under test that run on asyncio or a loop like it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections.abc import Callable
from typing import Any

from benchmarks.control import OpenCalls, Peers, say, usage


async def serve_control(open_calls: OpenCalls, statistics: Callable[[], dict[str, Any]] = dict) -> None:
    """Obey the harness until it says stop or goes away; see `benchmarks.control.serve_control`."""
    commands = asyncio.StreamReader(limit=1 << 20)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(os.dup(0), "rb")
    )
    try:
        while line := await commands.readline():
            command = json.loads(line)
            if command["do"] == "stop":
                return
            answer: dict[str, Any] = {}
            if command["do"] == "open":
                peers = Peers(command["ws_port"], command["first"], command["rtp_ports"])
                answer["rtp_ports"] = await open_calls(peers)
                gc.collect()
                gc.freeze()
            say(answer | usage() | {"design": statistics()})
    finally:
        pipe.close()
