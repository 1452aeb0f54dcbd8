"""What a thousand calls in one process cost besides their audio: memory, growth, coming and going, leaving nothing.

    memory     resident bytes a call, as a slope between two numbers of live calls, plain and TLS
    marginal   CPU of a call more, among many against among few: whether anything grows with the number of calls
    churn      calls that come and go at 100 a second: set-up time, lateness meanwhile, what is left afterwards
    cancel     CPU of cancelling and joining all calls at once, each, with the others' media and without
    workers    two worker processes under their front, each half loaded, against one
    streams    four streams on each of 50 calls, on four wires, two of them stalling or flapping: the callers' packets

Each part stands alone and has its goal beside it. What a design under the knee does at 150 % is in bench_knee.py.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.bench_knee import choose
from benchmarks.harness import (
    PUMP_WSS,
    REFERENCE_LOAD,
    TASKS,
    TASKS_WSS,
    Bench,
    Child,
    Design,
    DesignUnavailable,
    HarnessError,
    open_bench,
)
from benchmarks.report import Goal, judge_goal, number, print_goals, print_table, progress, spread

WSS = {TASKS.name: TASKS_WSS}
"""The design over TLS that belongs to one; the pump's for all others."""
STREAMS_CALLS = 50
STREAMS_A_CALL = 4
CHURN_MARGIN = 1.3
"""Ports for calls at a time, of those that live: a call that ends takes a moment to be gone."""
WORKERS_LOAD = 0.65
"""Of a core that the calls of the workers' part fill when one worker carries them."""


@dataclass(frozen=True, slots=True)
class DensityPlan:
    """How much of what."""

    rounds: int = 3
    seconds: float = 4.0
    settle_s: float = 2.0
    churn_calls: int = 10_000
    churn_per_second: float = 100.0
    patience_s: float = 15.0
    """How long to wait before a measurement for others to leave the core."""
    scale: float = 1.0
    """Of the numbers of calls; the goals are about 1."""


FULL = DensityPlan()
SHORT = DensityPlan(
    rounds=1, seconds=1.0, settle_s=0.5, churn_calls=100, churn_per_second=100, patience_s=0.5, scale=0.2
)


def _calls(design: Design, plan: DensityPlan) -> tuple[int, int, int]:
    """Few, some and many live calls: 100, 500 and 1,000 for a design that carries a thousand."""
    few, many = (max(4, round(count * plan.scale)) for count in design.memory_calls)
    return few, many // 2, many


def measure_memory(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Measure the slope of resident memory, for the design and its twin over TLS."""
    slopes: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    goals: list[dict[str, Any]] = []
    for each, limit, scheme in ((design, 40.0, "ws"), (WSS.get(design.name, PUMP_WSS), 64.0, "wss")):
        try:
            few, _, many = _calls(each, plan)
            scaled = dataclasses.replace(each, memory_calls=(few, many))
            own = [bench.measure_memory(scaled, plan.settle_s) for _ in range(plan.rounds)]
        except DesignUnavailable as reason:
            left_out[each.name] = str(reason)
            continue
        slopes += own
        progress(f"memory: {each.name} {own[-1]['kib_per_call']:.1f} KiB a call between {few} and {many}")
        goal = Goal(f"resident memory a call, {scheme}, empty playout", "KiB", limit, at_least=False)
        goals.append(judge_goal(goal, spread([slope["kib_per_call"] for slope in own])))
    return {"slopes": slopes, "left_out": left_out, "goals": goals}


def measure_marginal(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Measure CPU at three numbers of calls in one process, up and down again, and compare the differences."""
    few, some, many = _calls(design, plan)
    rounds: list[dict[str, Any]] = []
    for _ in range(plan.rounds):
        bench.wait_quiet(plan.patience_s)
        samples: list[dict[str, Any]] = []
        with bench.session(design, many, plan.seconds, lasts_s=600) as session:
            for calls in (few, some, many, some, few):
                if calls > session.live:
                    session.open(calls - session.live)
                else:
                    session.close(session.live - calls)
                time.sleep(plan.settle_s)
                samples.append(session.window(plan.seconds))
        load = {
            calls: statistics.mean(s["load"] for s in samples if s["calls"] == calls) for calls in (few, some, many)
        }
        low, high = (load[some] - load[few]) / (some - few), (load[many] - load[some]) / (many - some)
        rounds.append({"load": load, "percent_of_a_core_a_call": [100 * low, 100 * high], "samples": samples})
        progress(f"marginal: {100 * low:.4f} % of a core a call up to {some}, {100 * high:.4f} % up to {many}")
    goal = Goal(f"a call more, {some} -> {many} over {few} -> {some}", "x", 1.15, at_least=False)
    ratios = [high / low for low, high in (each["percent_of_a_core_a_call"] for each in rounds)]
    return {"calls": [few, some, many], "rounds": rounds, "goals": [judge_goal(goal, spread(ratios))]}


def measure_churn(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Have calls come and go at a steady rate, half as many live at a time as the design carries; look what is left.

    A fifth goes first, so that what the process keeps for good is there when memory is looked at.
    """
    live = _calls(design, plan)[2] / 2
    hold_s = live / plan.churn_per_second
    ports = math.ceil(live * CHURN_MARGIN) + 10
    lasts_s = plan.churn_calls / plan.churn_per_second + 2 * hold_s + 10
    passes: list[dict[str, Any]] = []
    bench.wait_quiet(plan.patience_s)
    with bench.session(design, ports, lasts_s, lasts_s=2 * lasts_s, latch=True) as session:
        for total in (plan.churn_calls // 5, plan.churn_calls - plan.churn_calls // 5):
            session.begin()
            told = session.ask_on_ports(
                "churn", ports, 2 * lasts_s, total=total, per_second=plan.churn_per_second, hold_s=hold_s
            )
            time.sleep(1)
            passes.append({"under_test": told, "generator": session.end(), "audit": session.ask("audit")})
            late = passes[-1]["generator"]["lateness_ms"]
            progress(
                f"churn: {told['set_up']} of {total} set up in {told['setup_ms']['p50']:.1f} ms (p50), "
                f"late p99 {late['p99']:.1f} ms, left over: {passes[-1]['audit']['left'] or 'nothing'}"
            )
    last = passes[-1]
    refused = plan.churn_calls - sum(each["under_test"]["set_up"] for each in passes)
    grown = last["audit"]["resident_bytes"] - passes[0]["audit"]["resident_bytes"]
    left = last["audit"]["left"]
    leaks = Goal(f"tasks, descriptors, slots left after {plan.churn_calls} calls", "", 0, at_least=False)
    failed = Goal(f"calls not set up of {plan.churn_calls}", "", 0, at_least=False)
    return {
        "live": live,
        "passes": passes,
        "left": left,
        "grown_bytes_a_call": grown / last["under_test"]["set_up"],
        "goals": [judge_goal(leaks, spread([len(left)])), judge_goal(failed, spread([refused]))],
    }


def measure_cancel(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Measure the process clock from cancelling all calls at once until the last is joined, a call: two figures.

    Hang-ups are paced, and the media of those whose turn has not come goes on meanwhile. *With media* is all that the
    process took; *alone* is that less the pump's turns, by the pump's own clock. Python's part of those turns (the
    clock's task, some 0.2 ms for 20 hang-ups) is in both. The goal is about *alone*: where the figure behind it was
    measured, all were cancelled in one stretch in which no tick ran.
    """
    many = _calls(design, plan)[2]
    rounds: list[dict[str, Any]] = []
    for _ in range(plan.rounds):
        bench.wait_quiet(plan.patience_s)
        with bench.session(design, many, plan.seconds, lasts_s=120, quiet=True) as session:
            session.ask("audit")
            session.open(many)
            time.sleep(plan.settle_s)
            before = session.window(min(1.0, plan.seconds))
            went = session.close(many)
            audit = session.ask("audit")
        rounds.append(
            {
                "calls": went["closed"],
                "cpu_ms_a_call": 1e3 * went["close_cpu_s"] / went["closed"],
                "alone_ms_a_call": 1e3 * (went["close_cpu_s"] - went["close_media_s"]) / went["closed"],
                "seconds": went["close_s"],
                "load_before": before["load"],
                "left": audit["left"],
            }
        )
        progress(
            f"cancel: {rounds[-1]['alone_ms_a_call']:.3f} ms a call alone, {rounds[-1]['cpu_ms_a_call']:.3f} with "
            f"media, all gone after {went['close_s']:.2f} s"
        )
    cost = Goal(f"cancel and join, each of {many} at once, without the others' media", "ms", 0.25, at_least=False)
    leaks = Goal(f"left over after {many} calls were cancelled", "", 0, at_least=False)
    return {
        "rounds": rounds,
        "goals": [
            judge_goal(cost, spread([each["alone_ms_a_call"] for each in rounds])),
            judge_goal(leaks, spread([len(each["left"]) for each in rounds])),
        ],
    }


def on_workers(design: Design, workers: int, cores: int) -> Design:
    """Have talkpath's own workers carry a design's calls: so many processes under a front, on so many cores."""
    return dataclasses.replace(
        design,
        name=f"{design.name}, {workers} worker{'s' * (workers > 1)}",
        module="benchmarks.workers_server",
        arguments=(*design.arguments, "--workers", str(workers), "--pin"),
        cores=cores,
    )


def measure_workers(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Measure two workers, each half loaded, against one: CPU of the front and of all workers, in turns.

    With cores for both and the generator, each of the two has its own, one carries half of what both do, and what is
    compared is how many calls fill 70 % of a core each. With fewer, all share the core under test and carry the same
    number of calls: what two then cost over one is what a second process costs, and nothing else.
    """
    cores = 2 if len(bench.system_cpus) > 1 else 1
    one, two = (on_workers(design, count, cores) for count in (1, 2))
    bench.wait_quiet(plan.patience_s)
    trial = bench.measure(one, design.first_guess, plan.settle_s, plan.seconds)
    calls = max(4, round(plan.scale * WORKERS_LOAD / REFERENCE_LOAD * trial["calls_per_core"] / 2) * 2)
    rounds: list[dict[str, Any]] = []
    for at in range(plan.rounds):
        samples: dict[str, dict[str, Any]] = {}
        for which in (one, two) if at % 2 == 0 else (two, one):
            bench.wait_quiet(plan.patience_s)
            carried = calls // cores if which is one else calls
            samples[which.name] = bench.measure(which, carried, plan.settle_s, plan.seconds)
        alone, both = samples[one.name], samples[two.name]
        # Cores' worth of calls at the same load each: twice as many, if a call costs the same.
        ratio = 2 * both["calls_per_core"] / alone["calls_per_core"]
        if cores == 1:
            ratio = both["us_per_call_frame"] / alone["us_per_call_frame"]
        rounds.append({"one": alone, "two": both, "ratio": ratio})
        faults = "; ".join(alone["faults"] + both["faults"]) or "no faults"
        progress(
            f"workers: {alone['us_per_call_frame']:.2f} us per call-frame with {alone['calls']} calls in one, "
            f"{both['us_per_call_frame']:.2f} with {both['calls']} in two: {ratio:.3f}; {faults}"
        )
    goal = Goal("calls at 70 % of a core each, two workers over one", "x", 1.9, at_least=True)
    if cores == 1:
        shape = f"two workers of {calls // 2} over one of {calls}"
        goal = Goal(f"CPU of a call, {shape}, on one core", "x", 1.1, at_least=False)
    return {"cores": cores, "rounds": rounds, "goals": [judge_goal(goal, spread([each["ratio"] for each in rounds]))]}


def measure_streams(bench: Bench, design: Design, plan: DensityPlan) -> dict[str, Any]:
    """Measure when callers get their packets while half of their calls' receivers stall or flap, with both drivers.

    The design asked for is not looked at: what is promised is promised of the pump and of the tasks.
    """
    calls = max(4, round(STREAMS_CALLS * plan.scale))
    drivers: dict[str, list[dict[str, Any]]] = {}
    goals: list[dict[str, Any]] = []
    for driver in ("pump", "tasks"):
        rounds = drivers[driver] = []
        for _ in range(plan.rounds):
            bench.wait_quiet(plan.patience_s)
            cpus = () if bench.generator_cpu is None else (bench.generator_cpu,)
            command = [sys.executable, "-m", "benchmarks.streams_receivers"]
            with Child(command, cpus, "streams_receivers") as receivers:
                arguments = ("--driver", driver, "--receivers", str(receivers.hear()["port"]))
                under_test = Design(
                    f"talkpath {driver} streams", "benchmarks.streams_server", arguments, calls, (calls, calls)
                )
                with bench.session(under_test, calls, plan.seconds, lasts_s=120) as session:
                    session.ask("audit")
                    session.open(calls)
                    time.sleep(plan.settle_s)
                    sample = session.window(plan.seconds)
                    asked = receivers.ask("asked")["asked"]
                    session.close(calls)
                    audit = session.ask("audit")
            late = sample["lateness_ms"]
            rounds.append({"sample": sample, "asked": asked, "left": audit["left"], "design": audit["design"]})
            progress(
                f"streams, {driver}: {calls} calls, late p99 {late['p99']:.1f} ms, load {sample['load']:.0%}, "
                f"connections asked for {asked}, left over: {audit['left'] or 'nothing'}"
            )
        late_ms = [each["sample"]["lateness_ms"]["p99"] for each in rounds]
        what = f"callers' packets late, p99, {calls * STREAMS_A_CALL} streams of which half fail, {driver}"
        goals.append(judge_goal(Goal(what, "ms", 10, at_least=False), spread(late_ms)))
        what = f"left over after {calls} calls of four streams, {driver}"
        goals.append(judge_goal(Goal(what, "", 0, at_least=False), spread([len(each["left"]) for each in rounds])))
    return {"calls": calls, "drivers": drivers, "goals": goals}


PARTS: dict[str, Callable[[Bench, Design, DensityPlan], dict[str, Any]]] = {
    "memory": measure_memory,
    "marginal": measure_marginal,
    "churn": measure_churn,
    "cancel": measure_cancel,
    "workers": measure_workers,
    "streams": measure_streams,
}


def run(name: str | None, parts: Sequence[str], plan: DensityPlan) -> dict[str, Any]:
    """Measure parts for the named design, or for the fastest of ours that can run here.

    Raises:
        DesignUnavailable: it cannot run here. HarnessError: it failed, or there is no such part.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise HarnessError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    with open_bench() as bench:
        design = choose(bench, name)
        measured = {part: PARTS[part](bench, design, plan) for part in parts or PARTS}
    return {"design": design.name, "parts": measured}


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print every part's goals for people, and what explains them."""
    parts = result["parts"]
    rows: list[list[str]] = []
    for slope in parts.get("memory", {}).get("slopes", []):
        few, many = slope["calls"]
        rows.append(
            [f"memory, {slope['design']}", f"{few} -> {many} calls", f"{number(slope['kib_per_call'])} KiB a call"]
        )
    for each in parts.get("marginal", {}).get("rounds", []):
        loads = ", ".join(f"{calls} calls {load:.1%}" for calls, load in each["load"].items())
        low, high = each["percent_of_a_core_a_call"]
        rows.append(["marginal", loads, f"{low:.4f} %, then {high:.4f} % of a core a call"])
    for each in parts.get("churn", {}).get("passes", []):
        told, late = each["under_test"], each["generator"]["lateness_ms"]
        setup = told["setup_ms"]
        rows.append(
            [
                "churn",
                f"{told['set_up']} calls, set up in p50 {setup['p50']:.1f} p99 {setup['p99']:.1f} ms",
                f"late p99 {late['p99']:.1f} p99.9 {late['p999']:.1f} ms",
            ]
        )
    rows += [
        [
            "cancel",
            f"{each['calls']} calls in {each['seconds']:.2f} s",
            f"{each['alone_ms_a_call']:.3f} ms a call alone, {each['cpu_ms_a_call']:.3f} with media",
        ]
        for each in parts.get("cancel", {}).get("rounds", [])
    ]
    for each in parts.get("workers", {}).get("rounds", []):
        one, two = each["one"], each["two"]
        rows.append(
            [
                "workers",
                f"{one['calls']} calls in one, {two['calls']} in two",
                f"{one['us_per_call_frame']:.1f} us, {two['us_per_call_frame']:.1f} us per call-frame",
            ]
        )
    for driver, rounds in parts.get("streams", {}).get("drivers", {}).items():
        for each in rounds:
            late, asked = each["sample"]["lateness_ms"], each["asked"]
            rows.append(
                [
                    f"streams, {driver}",
                    f"{parts['streams']['calls']} calls; {sum(asked.values())} connections beside theirs",
                    f"late p50 {late['p50']:.1f} p99 {late['p99']:.1f} ms",
                ]
            )
    print_table(f"density of {result['design']}", ("part", "with", "measured"), rows, file)
    left = [line for part in parts.values() for line in part.get("left", [])]
    for name, reason in parts.get("memory", {}).get("left_out", {}).items():
        print(f"  {name}: left out, {reason}", file=file)
    for line in left:
        print(f"  left over: {line}", file=file)
    print_goals([goal for part in parts.values() for goal in part["goals"]], file)
