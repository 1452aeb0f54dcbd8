"""FreeClimb's wire, the application's end: an echo bot on our gRPC beside FreeClimb's sample echo on ``grpc.aio``.

30 calls, a connection each, messages of 20 ms and of 60 ms when they are due; the two echoes in turns on one core, the
load on another. What is compared is each echo's own processor time per message that came and went back.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.harness import WORTH, Child, choose_cores
from benchmarks.peers import missing_modules
from benchmarks.report import number, print_table, progress, spread

CALLS = 30
MESSAGES_MS = (20, 60)
GOALS = {20: 1.0, 60: 0.6}
OURS, THEIRS = "talkpath tasks", "grpc.aio"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int = 5
    seconds: float = 4.0
    warm_up_s: float = 1.0


FULL = Plan()
SHORT = Plan(rounds=1, seconds=1.0, warm_up_s=0.5)


def sample(name: str, message_ms: int, plan: Plan) -> dict[str, Any]:
    """Measure one echo once."""
    module, arguments = {
        OURS: ("benchmarks.echo_talkpath", ("--driver", "tasks", "--chunk-ms", str(message_ms))),
        THEIRS: ("benchmarks.echo_grpc_aio", ()),
    }[name]
    cpus, generator_cpu = choose_cores()
    other = () if generator_cpu is None else (generator_cpu,)
    options = ("--calls", str(CALLS), "--message-ms", str(message_ms))
    mark = json.dumps({"do": "mark"})
    with ExitStack() as stack:
        echo = stack.enter_context(Child([sys.executable, "-m", module, *arguments], cpus[:1], name))
        port = echo.hear()["port"]
        load = stack.enter_context(Child([sys.executable, "-m", "benchmarks.grpc_platform", *options], other, "load"))
        load.ask(f"connect {port}")
        echo.ask(json.dumps({"do": "open", "ws_port": 0, "first": 0, "rtp_ports": []}))
        time.sleep(plan.warm_up_s)
        load.tell("begin")
        before = echo.ask(mark)
        time.sleep(plan.seconds)
        after = echo.ask(mark)
        counts = load.ask("end")
    elapsed = after["monotonic_s"] - before["monotonic_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    faults: list[str] = []
    if counts["audio"] < WORTH * counts["sent"] * 8 * message_ms:
        faults.append(f"{counts['audio'] / max(1, counts['sent'] * 8 * message_ms):.1%} of the audio came back")
    if counts["sent"] < WORTH * CALLS * elapsed * 1000 / message_ms or counts["late"] > 0.01 * counts["sent"]:
        faults.append("the load was late")
    if counts["wrong"]:
        faults.append(f"{counts['wrong']} connections broke")
    us = cpu_s * 1e6 / max(1, counts["received"])
    progress(
        f"{name}, {message_ms} ms: {cpu_s / elapsed:.1%} of a core, {us:.1f} us per echo" + "; ".join(["", *faults])
    )
    return {"echo": name, "message_ms": message_ms, "us_per_echo": us, "load": cpu_s / elapsed, "faults": faults,
            "counts": counts}  # fmt: skip


def run(plan: Plan) -> dict[str, Any]:
    """Measure both echoes in turns.

    Returns:
        All samples, and per message length ours over theirs, per round.
    """
    if missing_modules(("grpc",)):
        progress("skipped grpc: grpcio is not installed")
        return {"samples": [], "summary": {}}
    samples = [
        sample(name, message_ms, plan) | {"round": at}
        for at in range(plan.rounds)
        for message_ms in MESSAGES_MS
        for name in (OURS, THEIRS)
    ]
    cost = {(each["echo"], each["message_ms"], each["round"]): each["us_per_echo"] for each in samples}
    summary = {
        str(message_ms): {
            "ratio": spread([cost[OURS, message_ms, at] / cost[THEIRS, message_ms, at] for at in range(plan.rounds)]),
            "ours_us": spread([cost[OURS, message_ms, at] for at in range(plan.rounds)]),
            "theirs_us": spread([cost[THEIRS, message_ms, at] for at in range(plan.rounds)]),
            "goal": GOALS[message_ms],
            "faults": sum(bool(each["faults"]) for each in samples if each["message_ms"] == message_ms),
        }
        for message_ms in MESSAGES_MS
    }
    return {"samples": samples, "summary": summary}


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print the table for people."""
    rows = [
        [
            f"{message_ms} ms",
            number(one["ours_us"]["median"]),
            number(one["theirs_us"]["median"]),
            f"{one['ratio']['median']:.2f} ({one['ratio']['min']:.2f}..{one['ratio']['max']:.2f})",
            f"<= {one['goal']}",
            str(one["faults"]),
        ]
        for message_ms, one in result["summary"].items()
    ]
    heads = ("messages", "us per echo", "grpc.aio's", "ours / theirs", "goal", "faults")
    print_table(f"FreeClimb over gRPC: an echo of {CALLS} calls", heads, rows, file)
