"""The row that matters: two-way calls per core, RTP to WebSocket and back, beside named peers in the same run.

Rounds of idle timer, peers, talkpath's designs, over and over, each at a number of calls found by trial that loads its
core by 50 to 70 %. What is compared is compared within a round; what is claimed is the median of the rounds' ratios.
Then resident memory per call, as a slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.harness import (
    DESIGNS,
    IDLE,
    NAIVE,
    PEERS,
    PUMP,
    PUMP_60_MS,
    PUMP_WSS,
    TALKPATH,
    TASKS,
    THREAD,
    THREAD_LUMPS,
    Bench,
    Design,
    DesignUnavailable,
    HarnessError,
    open_bench,
)
from benchmarks.report import Goal, judge_goal, number, print_goals, print_table, progress, spread

TARGET_LOAD = 0.60
MAX_CALLS = 2000
DEFAULT = (*PEERS, PUMP, PUMP_60_MS, PUMP_WSS, THREAD, THREAD_LUMPS, TASKS)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int = 3
    seconds: float = 6.0
    warm_up_s: float = 2.0
    retries: int = 1
    """How often a sample with faults is taken again; all are kept."""
    patience_s: float = 15.0
    """How long to wait before a sample for others to leave the core."""
    memory: bool = True
    settle_s: float = 2.0


FULL = Plan()
SHORT = Plan(rounds=1, seconds=2.0, warm_up_s=1.0, retries=0, patience_s=1.0, memory=False)


def describe(sample: dict[str, Any]) -> str:
    """Put one sample into a line of progress."""
    late = sample["lateness_ms"]
    return (
        f"{sample['design']} {sample['calls']} calls: {sample['load']:.0%} of a core, "
        f"{sample['us_per_call_frame']:.1f} us per call-frame, late p50 {late['p50']:.2f} p99 {late['p99']:.2f} "
        f"p99.9 {late['p999']:.2f} max {late['max']:.2f} ms" + "".join(f"; FAULT {fault}" for fault in sample["faults"])
    )


def scaled_calls(sample: dict[str, Any]) -> int:
    """Scale a sample's number of calls to the target load."""
    wanted = round(float(sample["calls"]) * TARGET_LOAD / float(sample["load"]))
    return max(4, min(MAX_CALLS, wanted))


def find_calls(bench: Bench, design: Design, plan: Plan) -> int:
    """Find how many calls load the core by about 60 %: two short trials, each scaled to the target."""
    calls = design.first_guess
    for _ in range(2):
        calls = scaled_calls(_try(bench, design, calls, plan))
    return calls


def _try(bench: Bench, design: Design, calls: int, plan: Plan) -> dict[str, Any]:
    """Take a short sample; again while it has faults, for half starved a system seems to have room for more calls."""
    attempts_left = plan.retries
    while True:
        bench.wait_quiet(plan.patience_s)
        trial = bench.measure(design, calls, min(1.0, plan.warm_up_s), min(2.0, plan.seconds))
        progress("trial: " + describe(trial))
        if not trial["faults"] or not attempts_left:
            return trial
        attempts_left -= 1


def available(bench: Bench, designs: Sequence[Design]) -> tuple[list[Design], dict[str, str]]:
    """Divide designs into those that can run here, and the reasons why the others cannot."""
    reasons = {design.name: bench.why_not(design) for design in designs}
    missing = {name: reason for name, reason in reasons.items() if reason}
    for name, reason in missing.items():
        progress(f"{name} is left out: {reason}")
    return [design for design in designs if design.name not in missing], missing


def run(designs: Sequence[Design] | None, plan: Plan, calls: dict[str, int]) -> dict[str, Any]:
    """Run the plan.

    Args:
        designs: the systems under test, in the order of their turns; None for all those that can run here.
        calls: fixed numbers of calls by design name; a design not named is loaded by trial.

    Returns:
        Every sample, the memory slopes, and a summary of the samples without faults (all where none is without).

    Raises:
        DesignUnavailable: a design that was asked for cannot run here.
    """
    samples: list[dict[str, Any]] = []
    memory: list[dict[str, Any]] = []
    with open_bench() as bench:
        asked_for, (designs, missing) = designs, available(bench, designs or DEFAULT)
        if asked_for and missing:
            raise DesignUnavailable("; ".join(f"{name}: {reason}" for name, reason in missing.items()))
        numbers = {design.name: calls.get(design.name) or find_calls(bench, design, plan) for design in designs}
        for number_of_round in range(plan.rounds):
            for design in (IDLE, *designs):
                for attempt in range(plan.retries + 1):
                    how_many = numbers.get(design.name, design.first_guess)
                    bench.wait_quiet(plan.patience_s)
                    sample = bench.measure(design, how_many, plan.warm_up_s, plan.seconds)
                    samples.append(sample | {"round": number_of_round, "attempt": attempt})
                    progress(f"round {number_of_round + 1}/{plan.rounds}: {describe(sample)}")
                    if not sample["faults"]:
                        if design.name in numbers and design.name not in calls and not sample["in_band"]:
                            numbers[design.name] = scaled_calls(sample)
                        break
        if plan.memory:
            for design in designs:
                slope = bench.measure_memory(design, plan.settle_s)
                memory.append(slope)
                few, many = slope["calls"]
                progress(f"memory: {design.name} {slope['kib_per_call']:.1f} KiB a call between {few} and {many}")
    return {"samples": samples, "memory": memory, "left_out": missing, "summary": summarise(samples, memory)}


def summarise(samples: Sequence[dict[str, Any]], memory: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarise per design, and one design against another round by round."""
    designs: dict[str, Any] = {}
    for name in dict.fromkeys(sample["design"] for sample in samples):
        own = [sample for sample in samples if sample["design"] == name]
        good = [sample for sample in own if not sample["faults"]] or own
        designs[name] = {
            "samples": len(own),
            "without_faults": sum(not sample["faults"] for sample in own),
            "calls": spread([sample["calls"] for sample in good]),
            "load": spread([sample["load"] for sample in good]),
            "us_per_call_frame": spread([sample["us_per_call_frame"] for sample in good]),
            "calls_per_core": spread([sample["calls_per_core"] for sample in good]),
            "lateness_ms": {
                key: spread([sample["lateness_ms"][key] for sample in good]) for key in ("p50", "p99", "p999", "max")
            },
            "kib_per_call": next((slope["kib_per_call"] for slope in memory if slope["design"] == name), None),
        }
    # The last attempt of a round is the one without faults, if any is.
    last = {(sample["design"], sample["round"]): sample for sample in samples}
    rounds = sorted({sample["round"] for sample in samples})
    summary: dict[str, Any] = {"designs": designs, "goals": []}
    for goal, over, under, figure in GOALS:
        if over.name in designs and under.name in designs:
            pairs = [(last[over.name, each], last[under.name, each]) for each in rounds]
            good_pairs = [pair for pair in pairs if not (pair[0]["faults"] or pair[1]["faults"])] or pairs
            summary["goals"].append(judge_goal(goal, spread([figure(*pair) for pair in good_pairs])))
    with_thread = [sample for sample in samples if sample["design"] in (THREAD.name, THREAD_LUMPS.name)]
    if with_thread:
        summary["media_thread"] = with_thread[-1]["under_test"][1]["design"]["schedulers"]
    ours = next((design.name for design in (PUMP, TALKPATH, TASKS) if design.name in designs), None)
    if ours and NAIVE.name in designs:
        summary["calls_per_core_times_naive"] = spread(
            [_times(last[NAIVE.name, each], last[ours, each]) for each in rounds]
        )
    if ours:
        own, idle = (designs[name]["lateness_ms"]["p99"]["median"] for name in (ours, IDLE.name))
        summary["lateness_p99_above_idle_ms"] = own - idle
    return summary


def _times(over: dict[str, Any], under: dict[str, Any]) -> float:
    return float(over["us_per_call_frame"]) / float(under["us_per_call_frame"])


def _later(over: dict[str, Any], under: dict[str, Any]) -> float:
    return float(over["lateness_ms"]["p999"]) - float(under["lateness_ms"]["p999"])


GOALS: list[tuple[Goal, Design, Design, Callable[[dict[str, Any], dict[str, Any]], float]]] = [
    (Goal("calls per core, pump over naive", "x", 12.0, at_least=True), NAIVE, PUMP, _times),
    *(
        (Goal(f"calls per core, pump over {peer.name}", "x", 1.6, at_least=True), peer, PUMP, _times)
        for peer in PEERS
        if "picows" in peer.name
    ),
    (Goal("calls per core, messages of 60 ms over 20 ms", "x", 1.25, at_least=True), PUMP, PUMP_60_MS, _times),
    (Goal("CPU of a call, wss over ws", "x", 1.4, at_least=False), PUMP_WSS, PUMP, _times),
    (Goal("lateness p99.9, pump above the idle timer", "ms", 3.0, at_least=False), PUMP, IDLE, _later),
    (
        Goal("lateness p99.9, media thread beside Python work, above the idle timer", "ms", 3.0, at_least=False),
        THREAD_LUMPS,
        IDLE,
        _later,
    ),
]
"""What each is, and of which two designs of one round; the first design is the one on top."""


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print the table for people."""
    rows: list[list[str]] = []
    for name, design in result["summary"]["designs"].items():
        late = design["lateness_ms"]
        carries = name != IDLE.name
        cost, capacity = design["us_per_call_frame"], design["calls_per_core"]
        rows.append(
            [
                name,
                number(design["calls"]["median"]),
                f"{design['load']['median']:.0%}",
                f"{number(cost['median'])} ({number(cost['min'])}..{number(cost['max'])})" if carries else "-",
                f"{number(capacity['median'])} ({number(capacity['min'])}..{number(capacity['max'])})"
                if carries
                else "-",
                *[number(late[key]["median"]) for key in ("p50", "p99", "p999")],
                number(late["max"]["max"]),
                number(design["kib_per_call"]),
                f"{design['without_faults']}/{design['samples']}",
            ]
        )
    heads = ("design", "calls", "load", "us per call-frame", "calls/core at 70 %", "late p50 ms", "p99", "p99.9", "max")
    print_table("two-way calls, G.711, RTP <-> WebSocket", (*heads, "KiB/call", "good"), rows, file)
    for name, reason in result["left_out"].items():
        print(f"  {name}: left out, {reason}", file=file)
    print_goals(result["summary"]["goals"], file)
    if threads := result["summary"].get("media_thread"):
        print("  threads with a media thread: " + ", ".join(f"{n} {how}" for how, n in threads.items()), file=file)
    for key in ("calls_per_core_times_naive", "lateness_p99_above_idle_ms"):
        if key in result["summary"]:
            value = result["summary"][key]
            text = (
                f"{value['median']:.2f} ({value['min']:.2f}..{value['max']:.2f})"
                if isinstance(value, dict)
                else f"{value:.2f}"
            )
            print(f"  {key.replace('_', ' ')}: {text}", file=file)


def named_designs(names: str) -> list[Design]:
    """Look designs up by name, separated by commas.

    Raises:
        HarnessError: there is no such design.
    """
    unknown = [name for name in names.split(",") if name not in DESIGNS]
    if unknown:
        raise HarnessError(f"no design {', '.join(unknown)}; there are {', '.join(DESIGNS)}")
    return [DESIGNS[name] for name in names.split(",")]
