"""What a call-frame costs on each text and binary wire: both ends of many calls in one process, wires in turns.

Memory links and the tasks driver in virtual time, so nothing but our own work and Trio's is counted: a caller in
memory, an engine, the wire, a line that echoes each chunk within the driver's step. CPU time from a second after the
calls have begun until their end, beside that of Plivo's wire in the same round. A call-frame is 20 ms of a call, both
ways, at both ends.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

import trio
import trio.testing

import talkpath
from benchmarks.report import number, print_table, progress, spread
from talkpath.dsp import tone
from talkpath.line import LineConfig, ServeConfig, serve_memory_lines

BASE = "plivo"
WIRES: dict[str, dict[str, Any]] = {
    "plivo": {},
    "twilio": {},
    "signalwire": {},
    "native": {},
    "teler, 20 ms": {"wire": "teler", "message_ms": 20},
    "teler, 400 ms": {"wire": "teler", "message_ms": 400},
    "plivo, L16": {"wire": "plivo", "codec": "L16"},
}
"""Name of the row -> what its streams are asked to be; its own wire unless it says another."""
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    calls: int = 40
    seconds: float = 10
    rounds: int = 7


FULL = Effort()
SHORT = Effort(calls=4, seconds=2, rounds=2)


async def _bot(line: talkpath.Line) -> None:
    line.on_audio(line.speak)
    await line.wait_ended()


async def _calls(options: dict[str, Any], effort: Effort) -> float:
    """-> CPU seconds of what was measured"""
    speech = tone(440, round((effort.seconds + WARM_UP_S + 1) * 1000))
    async with trio.open_nursery() as nursery:
        config = ServeConfig(line=LineConfig(driver="tasks"))
        url = await nursery.start(partial(serve_memory_lines, _bot, "bot", config=config))
        async with talkpath.open_engine(talkpath.EngineConfig(driver="tasks")) as engine, trio.open_nursery() as calls:
            over = trio.Event()

            async def place(task_status: trio.TaskStatus[None]) -> None:
                leg = talkpath.MemoryLeg(keep_heard_s=0)
                async with engine.open_call(leg) as call:
                    await call.start_stream(talkpath.StreamSpec(**{"url": url, "bidirectional": True, **options}))
                    leg.say(speech)
                    task_status.started()
                    await over.wait()

            for _ in range(effort.calls):
                await calls.start(place)
            await trio.sleep(WARM_UP_S)
            gc.collect()
            begun = time.process_time()
            await trio.sleep(effort.seconds)
            spent = time.process_time() - begun
            over.set()
        nursery.cancel_scope.cancel()
    return spent


def run(effort: Effort = FULL) -> dict[str, Any]:
    """Measure every wire in turns; figures per wire, and the ratio to Plivo's of the same round."""
    frames = effort.calls * effort.seconds * 50
    samples: dict[str, list[float]] = {name: [] for name in WIRES}
    for number_of_round in range(effort.rounds):
        for name, options in WIRES.items():
            asked = {"wire": name, **options}
            spent = trio.run(_calls, asked, effort, clock=trio.testing.MockClock(autojump_threshold=0))
            samples[name].append(spent / frames * 1e6)
        progress(f"wires, round {number_of_round + 1}/{effort.rounds}")
    return {
        "calls": effort.calls,
        "seconds": effort.seconds,
        "wires": [
            {
                "name": name,
                "us_per_call_frame": spread(values),
                "ratio_to_plivo": spread([one / base for one, base in zip(values, samples[BASE], strict=True)]),
                "samples_us": values,
            }
            for name, values in samples.items()
        ],
    }


def show(result: dict[str, Any], out: TextIO) -> None:
    """Print the result for people."""
    rows = [
        (
            wire["name"],
            number(wire["us_per_call_frame"]["median"]),
            f"{wire['ratio_to_plivo']['median']:.3f}",
            f"{wire['ratio_to_plivo']['min']:.3f} to {wire['ratio_to_plivo']['max']:.3f}",
        )
        for wire in result["wires"]
    ]
    print_table(
        f"a call-frame on each wire, both ends ({result['calls']} calls, tasks driver)",
        ("wire", "CPU us", "to Plivo's", "from round to round"),
        rows,
        out,
    )
