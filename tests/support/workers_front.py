"""A front program for the tests to kill: says its workers' pids, places what it is told to, drains at a signal.

python workers_front.py DO...       one worker and one call for each DO
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

sys.path.append(str(Path(__file__).parent.parent))

import talkpath
from talkpath.engine import PlacedCall


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main(do: list[str]) -> None:
    config = talkpath.WorkersConfig(count=len(do), report_s=0.1, hang_s=2, drain_s=0.2, pin=False)
    async with talkpath.open_workers("support.worker_calls:run_call", config) as workers:
        async with trio.open_nursery() as nursery:
            await nursery.start(talkpath.run_until_signalled, workers, 30)

            async def stay(call: PlacedCall) -> None:
                say(what="ended", reason=(await call.wait_ended()).reason)

            for one in do:
                call = await workers.place({"do": one})
                say(what="call", pid=call.answer["pid"])
                nursery.start_soon(stay, call)
        say(what="drained")


trio.run(main, sys.argv[1:])
