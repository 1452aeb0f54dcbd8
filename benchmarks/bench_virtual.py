"""Ten minutes of a two-way call in virtual time: how long they take, and whether every run is the same to the byte.

One process, memory transports at both ends, a message per frame each way: a caller in memory, an engine, Plivo's
wire, a bot that echoes and sets a checkpoint each second. The event log (everything the clock's steps did, with its
instant), what the caller heard and the runs' order of Trio's tasks go into the result; the order is shuffled anew for
each run, and the logs must not notice.

The figure is wall time beside the CPU time of the same run: on a shared machine the second is the one to compare.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from typing import Any, TextIO

import numpy as np
import trio
import trio.testing

import talkpath
from benchmarks.report import print_table, progress
from talkpath.dsp import tone
from talkpath.line import serve_memory_lines
from talkpath.transport.clock import current_clock
from talkpath.transport.driver_tasks import TasksDriver


async def _bot(line: talkpath.Line) -> None:
    async for chunk in line.listen():
        line.speak(chunk)
        if chunk.at_sample % line.info.sample_rate_hz == 0:
            line.checkpoint(f"second-{chunk.at_sample // line.info.sample_rate_hz}")


async def _call(seconds: float, digest: Any) -> None:
    def journal(now_ns: int, slot: int, kind: str, facts: tuple[object, ...]) -> None:
        digest.update(f"{now_ns} {slot} {kind} {facts!r}\n".encode())

    def heard(pcm: Any) -> None:
        digest.update(pcm.tobytes())

    speech = np.concatenate([tone(300 + 20 * step, 500) for step in range(60)])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_memory_lines, _bot, "bot")
        seeded = random.Random(1).randbytes
        async with talkpath.open_engine(entropy=seeded, wall_clock=lambda: 1_760_000_000.0) as engine:
            clock = current_clock()
            assert clock is not None
            assert isinstance(clock.driver, TasksDriver)
            clock.driver.journal = journal
            leg = talkpath.MemoryLeg(keep_heard_s=0, on_heard=heard)
            async with engine.open_call(leg) as call:
                await call.start_stream(talkpath.StreamSpec(url="memory://bot", bidirectional=True))
                while trio.current_time() - clock.t0 < seconds:
                    leg.say(speech)
                    await trio.sleep(len(speech) / leg.sample_rate_hz)
        nursery.cancel_scope.cancel()


def measure(seconds: float, runs: int) -> dict[str, Any]:
    """Run the call `runs` times, each under another order of tasks; return figures and the logs' digests."""
    samples: list[dict[str, Any]] = []
    for run in range(runs):
        # Trio shuffles the tasks of one instant with this generator, on purpose.
        trio._core._run._r.seed(run)
        digest = hashlib.sha256()
        wall, cpu = time.perf_counter(), time.process_time()
        trio.run(_call, seconds, digest, clock=trio.testing.MockClock(autojump_threshold=0))
        sample = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "sha256": digest.hexdigest(),
        }
        samples.append(sample)
        progress(f"virtual run {run + 1}/{runs}: {seconds:g} s of call in {sample['wall_s']:.2f} s")
    return {
        "virtual_seconds": seconds,
        "median_wall_s": statistics.median(sample["wall_s"] for sample in samples),
        "median_cpu_s": statistics.median(sample["cpu_s"] for sample in samples),
        "identical": len({sample["sha256"] for sample in samples}) == 1,
        "runs": samples,
    }


def show(result: dict[str, Any], out: TextIO) -> None:
    """Print the result for people."""
    rows = [
        (
            f"{result['virtual_seconds']:g} s",
            f"{result['median_wall_s']:.2f}",
            f"{result['median_cpu_s']:.2f}",
            str(len(result["runs"])),
            "the same to the byte" if result["identical"] else "THEY DIFFER",
        )
    ]
    print_table("a two-way call in virtual time", ("call", "wall s", "CPU s", "runs", "logs of the runs"), rows, out)
