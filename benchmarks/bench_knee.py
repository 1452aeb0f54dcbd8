"""Where one design's knee is: more and more two-way calls in one process until it no longer keeps time.

Ramp, overload, hold, leave. Steps of calls, each held and measured, until one is not clean; then half as many again as
fill the core; back to about 60 % of a core, where the figures are taken that are quoted; then every call is closed and
what is left over is counted. The load generator's own load stands beside every step: where it was the limit, the step
says so and proves nothing about the system.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.harness import (
    DESIGNS,
    FRAMES_PER_S,
    GENERATOR_LIMIT,
    IDLE,
    MAX_CALLS,
    PUMP,
    REFERENCE_LOAD,
    TASKS,
    Bench,
    Design,
    DesignUnavailable,
    Session,
    open_bench,
)
from benchmarks.report import number, print_table, progress

LATE_MS = 5.0
"""Lateness p99 above the idle timer's that ends the ramp; admission control's default limit is the same."""
HOLD_SHARE = 0.62
OVERLOAD_SHARE = 1.5
CHOICES = (PUMP, TASKS)
"""What is tried when no design is named: the first that can run here."""


@dataclass(frozen=True, slots=True)
class KneePlan:
    """How long to hold what."""

    shares: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
    """Steps of the ramp, as parts of the calls that would fill the core if each cost what the trial's cost."""
    settle_s: float = 1.5
    step_s: float = 3.0
    overload_s: float = 10.0
    """In two halves: lateness that is not bounded is larger in the second."""
    recover_s: float = 3.0
    hold_s: float = 15.0
    retries: int = 2
    """How often a step that others disturbed is taken again."""
    scale: float = 1.0
    """Of the numbers of calls."""


FULL = KneePlan()
SHORT = KneePlan((0.5, 1.0), settle_s=0.5, step_s=1.0, overload_s=2.0, recover_s=0.5, hold_s=2.0, retries=0, scale=0.15)


def choose(bench: Bench, name: str | None) -> Design:
    """Choose the design: the named one, or the fastest of ours that can run here.

    Raises:
        DesignUnavailable: there is no such design, or it cannot run here.
    """
    if name is not None and name not in DESIGNS:
        raise DesignUnavailable(f"no design {name}; there are {', '.join(DESIGNS)}")
    designs = CHOICES if name is None else (DESIGNS[name],)
    reasons = []
    for design in designs:
        reason = bench.why_not(design)
        if not reason:
            return design
        reasons.append(f"{design.name}: {reason}")
    raise DesignUnavailable("; ".join(reasons))


def disturbed(sample: dict[str, Any]) -> bool:
    """Whether others' work is why a sample is not clean."""
    return any(fault.startswith("others ") for fault in sample["faults"])


def why_unclean(sample: dict[str, Any], idle: dict[str, Any]) -> str:
    """Say why calls were not carried cleanly; empty when they were. Others' work alone is no reason."""
    reasons = [fault for fault in sample["faults"] if not fault.startswith("others ")]
    limit_ms = idle["lateness_ms"]["p99"] + LATE_MS
    if sample["lateness_ms"]["p99"] > limit_ms:
        reasons.append(f"lateness p99 {sample['lateness_ms']['p99']:.1f} ms is above {limit_ms:.1f} ms")
    return "; ".join(reasons)


def is_over(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether the ramp has found the knee: a step is unclean by itself, or two in a row while others disturb."""
    unclean = [bool(step["unclean"]) for step in steps[-2:]]
    return unclean[-1] and (not disturbed(steps[-1]) or unclean == [True, True])


def _settled(session: Session, settle_s: float, seconds: float, idle: dict[str, Any], retries: int) -> dict[str, Any]:
    """Let the calls settle and measure; again while others disturb what is not clean."""
    while True:
        time.sleep(settle_s)
        sample = session.window(seconds)
        sample["unclean"] = why_unclean(sample, idle)
        if not (sample["unclean"] and disturbed(sample) and retries):
            break
        retries -= 1
    late = sample["lateness_ms"]
    progress(
        f"{session.live} calls: {sample['load']:.0%} of a core, late p99 {late['p99']:.1f} max {late['max']:.1f} ms, "
        f"generator {sample['generator']['generator']['load']:.0%}; {sample['unclean'] or 'clean'}"
    )
    return sample


def find(bench: Bench, design: Design, plan: KneePlan) -> dict[str, Any]:
    """Find the knee of one design; see the module's description for what is done.

    Returns:
        Every step's sample, and under ``summary`` what is quoted; ``summary.trustworthy`` is false when the figures
        at hold have faults, when the generator was the limit there, or when something was left over.
    """
    progress(f"{design.name}: the idle timer's own lateness, then a trial")
    idle = bench.measure(IDLE, IDLE.first_guess, plan.settle_s, plan.step_s)
    trial = bench.measure(design, design.first_guess, plan.settle_s, plan.step_s)
    full = 1e6 / FRAMES_PER_S / trial["us_per_call_frame"]
    progress(f"{trial['us_per_call_frame']:.1f} us per call-frame: about {full:.0f} calls would fill the core")
    full *= plan.scale
    most = min(MAX_CALLS, math.ceil(full * max(*plan.shares, OVERLOAD_SHARE)))
    lasts_s = 600 + most / 10
    steps: list[dict[str, Any]] = []
    with bench.session(design, most, max(plan.hold_s, plan.overload_s), lasts_s=lasts_s) as session:
        before = session.ask("audit")
        for share in plan.shares:
            session.open(max(0, min(most, round(full * share)) - session.live))
            steps.append(_settled(session, plan.settle_s, plan.step_s, idle, plan.retries))
            if is_over(steps):
                break
        session.open(max(0, min(most, round(full * OVERLOAD_SHARE)) - session.live))
        progress("overload")
        overload_first = _settled(session, plan.settle_s, plan.overload_s / 2, idle, 0)
        overload = _settled(session, 0, plan.overload_s / 2, idle, 0)
        went = session.close(session.live - round(full * HOLD_SHARE))
        progress("hold")
        hold = _settled(session, plan.recover_s, plan.hold_s, idle, plan.retries)
        session.close(session.live)
        after = session.ask("audit")
    result = {
        "design": design.name,
        "idle": idle,
        "trial": trial,
        "steps": steps,
        "overload_first": overload_first,
        "overload": overload,
        "overload_closed": went["closed"],
        "hold": hold,
        "audit": {"before": before, "after": after},
    }
    return result | {"summary": summarise(result)}


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """Say in a few figures what was found."""
    idle, hold, overload = (result[what] for what in ("idle", "hold", "overload"))
    clean = [step["calls"] for step in result["steps"] if not step["unclean"]]
    unclean = [step for step in result["steps"] if step["unclean"] and step["calls"] > max(clean, default=0)]
    by_generator = bool(unclean) and "the generator was the limit" in unclean[0]["unclean"]
    samples = [*result["steps"], hold]
    left = result["audit"]["after"]["left"]
    not_clean = hold["unclean"]
    return {
        "design": result["design"],
        "knee_calls": max(clean, default=0),
        "first_unclean_calls": unclean[0]["calls"] if unclean else None,
        "why_unclean": unclean[0]["unclean"] if unclean else "",
        "generator_was_the_limit": by_generator,
        "generator_load_at_knee": max(
            (step["generator"]["generator"]["load"] for step in result["steps"] if not step["unclean"]), default=None
        ),
        "calls_per_core": REFERENCE_LOAD * hold["calls"] / hold["load"],
        "us_per_call_frame": hold["us_per_call_frame"],
        "load_at_hold": hold["load"],
        "calls_at_hold": hold["calls"],
        "lateness_ms": hold["lateness_ms"],
        "lateness_p999_above_idle_ms": hold["lateness_ms"]["p999"] - idle["lateness_ms"]["p999"],
        "generator_load_at_hold": hold["generator"]["generator"]["load"],
        "overload": {
            "calls": overload["calls"],
            "load": overload["load"],
            "lateness_ms": overload["lateness_ms"],
            "lateness_p99_grew": overload["lateness_ms"]["p99"] / result["overload_first"]["lateness_ms"]["p99"],
            "carried": overload["generator"]["rtp"]["received"]
            / (overload["calls"] * FRAMES_PER_S * overload["generator"]["seconds"]),
            "connections": overload["generator"]["connections"],
            "generator_load": overload["generator"]["generator"]["load"],
            "normal_again": not not_clean,
        },
        "left_over": left,
        "disturbed": any(disturbed(sample) for sample in samples),
        "trustworthy": not left and not not_clean and hold["generator"]["generator"]["load"] <= GENERATOR_LIMIT,
    }


def run(name: str | None, plan: KneePlan) -> dict[str, Any]:
    """Find the knee of the named design, or of the fastest of ours that can run here.

    Raises:
        DesignUnavailable: it cannot run here. HarnessError: it failed.
    """
    with open_bench() as bench:
        return find(bench, choose(bench, name), plan)


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print what was found, for people."""
    rows = [
        _row(what, sample)
        for what, sample in (
            *[("ramp", step) for step in result["steps"]],
            ("overload", result["overload"]),
            ("hold", result["hold"]),
        )
    ]
    heads = ("", "calls", "load", "us per call-frame", "late p50 ms", "p99", "p99.9", "max", "carried", "generator")
    print_table(f"the knee of {result['design']}", heads, rows, file)
    found, over = result["summary"], result["summary"]["overload"]
    late = found["lateness_ms"]
    knee = f"{found['first_unclean_calls']} not: {found['why_unclean']}" if found["why_unclean"] else "none was not"
    limit = "it was the limit at the knee" if found["generator_was_the_limit"] else "never the limit"
    again = "back to normal" if over["normal_again"] else f"NOT back to normal: {result['hold']['unclean']}"
    lines = [
        f"calls per core at 70 %: {found['calls_per_core']:.0f}, at {found['us_per_call_frame']:.1f} us per call-frame "
        f"(held {found['calls_at_hold']} calls at {found['load_at_hold']:.0%})",
        f"knee: {found['knee_calls']} calls were clean, {knee}",
        f"lateness at hold: p50 {late['p50']:.2f}, p99 {late['p99']:.2f}, p99.9 {late['p999']:.2f}, max "
        f"{late['max']:.2f} ms; p99.9 of an idle timer {result['idle']['lateness_ms']['p999']:.2f} ms",
        f"load generator: {found['generator_load_at_hold']:.0%} of its core at hold, {limit}",
        f"overload: {over['calls']} calls, {over['load']:.0%} of a core, {over['carried']:.0%} of packets sent, "
        f"late p99 {over['lateness_ms']['p99']:.0f} ms ({over['lateness_p99_grew']:.1f} x that of the first half), "
        f"{over['connections']} connections kept; afterwards {again}",
        "left over when all calls were closed: " + ("; ".join(found["left_over"]) or "nothing"),
    ]
    if found["disturbed"]:
        lines.append("others used the core under test meanwhile: repeat on a quiet machine before quoting")
    print("", *(f"  {line}" for line in lines), sep="\n", file=file)


def _row(what: str, sample: dict[str, Any]) -> list[str]:
    report, late = sample["generator"], sample["lateness_ms"]
    carried = report["rtp"]["received"] / (sample["calls"] * FRAMES_PER_S * report["seconds"])
    return [
        what,
        number(sample["calls"]),
        f"{sample['load']:.0%}",
        number(sample["us_per_call_frame"]),
        *[number(late[key]) for key in ("p50", "p99", "p999", "max")],
        f"{carried:.1%}",
        f"{report['generator']['load']:.0%}",
    ]
