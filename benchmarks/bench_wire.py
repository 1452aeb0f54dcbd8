"""CPU per media message on real sockets: sent and received, at either end, beside the fastest WebSocket library.

Ours makes each message from audio and each audio from a message. So does the first peer, with the fastest JSON and
base64 there is for Python; the others, and the same peer once more, move text that was written before and parse none.
Every figure is a difference between two runs of the same process doing one thing more, so that timers, calls
and the process itself are in neither:

    platform's end      send      sending                - connections alone (ours: calls alone)
                        receive   sending and receiving  - sending
    application's end   receive   receiving              - connections alone
                        send      sending and receiving  - receiving

The second of each pair is two-way, as a call is: there TCP's acknowledgements ride on data that goes anyway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.harness import FAST_CODECS, FRAMES_PER_S, GENERATOR_LIMIT, WORTH, Bench, open_bench
from benchmarks.peers import missing_modules
from benchmarks.report import number, print_table, progress, spread


@dataclass(frozen=True, slots=True)
class Way:
    """A library that has one end of the connections."""

    name: str
    module: str
    arguments: tuple[str, ...]
    streams: tuple[int, int]
    """At the platform's and at the application's end: so many that a core is loaded by half, not overloaded."""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int = 3
    seconds: float = 3.0
    warm_up_s: float = 1.0
    patience_s: float = 10.0
    streams: int = 250


FULL = Plan()
SHORT = Plan(rounds=1, seconds=1.0, warm_up_s=0.5, patience_s=0.5, streams=20)

PICOWS_NEEDS = ("uvloop", "picows", *FAST_CODECS)
PICOWS = Way("picows on uvloop, JSON and base64 too", "benchmarks.wire_picows", ("--codec",), (250, 250), PICOWS_NEEDS)
PICOWS_TEXT = Way("picows on uvloop, text as it is", "benchmarks.wire_picows", (), (250, 250), PICOWS_NEEDS)
TRIO_WEBSOCKET = Way(
    "trio-websocket, text as it is", "benchmarks.wire_trio", ("--library", "trio-websocket"), (100, 100)
)
WEBSOCKETS = Way(
    "websockets.trio, text as it is",
    "benchmarks.wire_trio",
    ("--library", "websockets"),
    (100, 100),
    ("websockets.trio",),
)

# What is measured, and the two runs whose difference it is: (sends, hears).
WORK = {
    "platform": {"send": ((True, False), (False, False)), "receive": ((True, True), (True, False))},
    "application": {"receive": ((False, True), (False, False)), "send": ((True, True), (False, True))},
}


def title(driver: str | None) -> str:
    """Name talkpath, with the driver where one was asked for."""
    return f"talkpath ({driver})" if driver else "talkpath"


def talkpath_way(driver: str | None) -> Way:
    """Name our way, with a driver."""
    arguments = ("--driver", driver) if driver else ()
    return Way(f"{title(driver)}, JSON and base64 too", "benchmarks.wire_talkpath", arguments, (250, 250))


def sample(bench: Bench, way: Way, end: str, doing: tuple[bool, bool], plan: Plan) -> dict[str, Any]:
    """Measure one process doing one thing: CPU microseconds per connection and 20 ms, and what was carried."""
    sends, hears = doing
    streams = min(way.streams[end == "application"], plan.streams)
    arguments = ["--end", end, *(["--sends"] if sends else []), *(["--hears"] if hears else []), *way.arguments]
    far = ["--calls", str(streams), "--window-s", str(round(plan.seconds) + 2), "--limit-s", "120"]
    far += ["--mode", "bridge" if end == "platform" else "platform", *([] if hears else ["--quiet"])]
    mark = json.dumps({"do": "mark"})
    bench.wait_quiet(plan.patience_s)
    with ExitStack() as stack:
        if end == "platform":
            generator = stack.enter_context(bench.generator(*far))
            near = stack.enter_context(bench.under_test(way.name, way.module, *arguments))
            peers = generator.hear()
        else:
            near = stack.enter_context(bench.under_test(way.name, way.module, *arguments))
            generator = stack.enter_context(bench.generator(*far, "--connect", str(near.hear()["port"])))
            generator.hear()
            generator.ask(f"connect {streams}")
            peers = {"ws_port": 0, "rtp_ports": []}
        near.ask(json.dumps({"do": "open", "first": 0, **peers}))
        time.sleep(plan.warm_up_s)
        generator.tell("begin")
        before = near.ask(mark)
        time.sleep(plan.seconds)
        after = near.ask(mark)
        report = generator.ask("end")
    seconds = after["monotonic_s"] - before["monotonic_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    due = streams * FRAMES_PER_S * seconds
    messages = report["messages"]
    faults: list[str] = []
    if sends and messages["received"] < WORTH * due:
        faults.append(f"sent {messages['received'] / due:.1%} of what was due")
    if hears and messages["sent"] < WORTH * due:
        faults.append(f"was sent {messages['sent'] / due:.1%} of what was due")
    if messages["stalled"] or messages["protocol_errors"]:
        faults.append(f"{messages['stalled']} messages stalled, {messages['protocol_errors']} protocol errors")
    if report["generator"]["load"] > GENERATOR_LIMIT:
        faults.append("the generator was the limit")
    if cpu_s / seconds > GENERATOR_LIMIT:
        faults.append("the core was full")
    return {
        "way": way.name,
        "end": end,
        "sends": sends,
        "hears": hears,
        "streams": streams,
        "load": cpu_s / seconds,
        "us_per_stream_frame": cpu_s * 1e6 / due,
        "faults": faults,
        "generator": report,
    }


def run(driver: str | None, plan: Plan) -> dict[str, Any]:
    """Measure every way that is installed, in turns, round after round.

    Returns:
        All samples; for each end and work and way the microseconds per message and, round by round, how many times
        each peer's figure ours is.
    """
    ours = talkpath_way(driver)
    ways = [ours]
    for way in (PICOWS, PICOWS_TEXT, WEBSOCKETS, TRIO_WEBSOCKET):
        missing = missing_modules(way.needs)
        if missing:
            progress(f"skipped {way.name}: {', '.join(missing)} not installed")
        else:
            ways.append(way)
    samples: list[dict[str, Any]] = []
    with open_bench() as bench:
        for number_of_round in range(plan.rounds):
            for end, works in WORK.items():
                for doing in dict.fromkeys(doing for pair in works.values() for doing in reversed(pair)):
                    for way in ways:
                        taken = sample(bench, way, end, doing, plan)
                        samples.append(taken | {"round": number_of_round})
                        progress(
                            f"round {number_of_round + 1}/{plan.rounds}: {end}'s end, {way.name}, "
                            f"{'sends' if doing[0] else '-'} {'hears' if doing[1] else '-'}: {taken['load']:.0%} of a "
                            f"core, {taken['us_per_stream_frame']:.2f} us per stream and 20 ms"
                            + "".join(f"; FAULT {fault}" for fault in taken["faults"])
                        )
    return {"samples": samples, "rows": summarise(samples, ways, plan.rounds)}


def summarise(samples: Sequence[dict[str, Any]], ways: Sequence[Way], rounds: int) -> list[dict[str, Any]]:
    """Take the differences, and ours over each peer's within each round."""
    cost = {
        (each["round"], each["way"], each["end"], (each["sends"], each["hears"])): each["us_per_stream_frame"]
        for each in samples
    }
    rows: list[dict[str, Any]] = []
    for end, works in WORK.items():
        for work, (more, less) in works.items():
            by_way = {
                way.name: [cost[at, way.name, end, more] - cost[at, way.name, end, less] for at in range(rounds)]
                for way in ways
            }
            ours = by_way[ways[0].name]
            for way in ways:
                row: dict[str, Any] = {"end": end, "work": work, "way": way.name, "us": spread(by_way[way.name])}
                if way is not ways[0]:
                    row["ours_times"] = spread([own / their for own, their in zip(ours, by_way[way.name], strict=True)])
                rows.append(row)
    return rows


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print the table for people."""
    lines = [
        [
            f"{row['end']}'s end, {row['work']}",
            row["way"],
            f"{number(row['us']['median'])} ({number(row['us']['min'])}..{number(row['us']['max'])})",
            f"{number(times['median'])} ({number(times['min'])}..{number(times['max'])})"
            if (times := row.get("ours_times"))
            else "-",
        ]
        for row in result["rows"]
    ]
    faults = sum(bool(each["faults"]) for each in result["samples"])
    heads = ("work", "way", "us per message", "ours is so many times this")
    print_table(f"one media message over a real socket; {faults} samples with faults", heads, lines, file)
