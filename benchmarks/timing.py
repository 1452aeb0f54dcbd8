"""Timing of small operations: candidates in turns, process clock, median and spread.

The headline is a ratio within one run: the candidates of a row take turns, round after round, so that what moves the
machine moves them alike. CPU time, not wall time: another tenant's turn on the core is not ours.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from benchmarks.report import Goal, judge_goal, number, print_goals, print_table, progress, spread
from talkpath._native import lib


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way of doing the row's work."""

    name: str
    run: Callable[[], None]
    """Does the work `operations` times, over content that varies."""
    operations: int
    notes: dict[str, float] = field(default_factory=dict)
    """Quality beside speed: what the result is worth (dB, ms of delay, mismatches)."""
    keeps: tuple[object, ...] = ()
    """Memory that native state points to and nothing else holds."""


def at_base(run: Callable[[], None]) -> Callable[[], None]:
    """Return the same work with the base instruction set alone: what a machine without AVX2 gets."""

    def run_base() -> None:
        lib.tp_simd_select(0)
        run()
        lib.tp_simd_select(-1)

    return run_base


@dataclass(frozen=True, slots=True)
class Row:
    """Some work, our way first, then the peers'."""

    name: str
    ours: Candidate
    peers: Sequence[Candidate]
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Goals: by the beginning of a peer's name, how many times ours must fit into its time."""
    at_most: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int = 15
    sample_s: float = 0.02


FULL = Effort()
SHORT = Effort(rounds=3, sample_s=0.001)


def _sample(candidate: Candidate, times: int) -> float:
    started = time.process_time_ns()
    for _ in range(times):
        candidate.run()
    return (time.process_time_ns() - started) / (times * candidate.operations)


def _times(candidate: Candidate, sample_s: float) -> int:
    """How often to repeat so that one sample lasts long enough to be timed."""
    candidate.run()
    started = time.process_time_ns()
    candidate.run()
    return max(1, round(sample_s * 1e9 / max(1, time.process_time_ns() - started)))


def measure(rows: Sequence[Row], effort: Effort) -> list[dict[str, Any]]:
    """Measure rows one after the other, the candidates of each in turns.

    Returns:
        One object per row: for each candidate the nanoseconds per operation as median, spread and samples, and
        each peer's ratio to ours within the same round (how many times ours fits into the peer's time); the row's goals
        beside what was measured.
    """
    results: list[dict[str, Any]] = []
    for row in rows:
        candidates = [row.ours, *row.peers]
        progress(f"{row.name}: {', '.join(candidate.name for candidate in candidates)}")
        times = [_times(candidate, effort.sample_s) for candidate in candidates]
        samples: list[list[float]] = [[] for _ in candidates]
        gc.collect()
        gc.disable()
        try:
            for _ in range(effort.rounds):
                for index, candidate in enumerate(candidates):
                    samples[index].append(_sample(candidate, times[index]))
        finally:
            gc.enable()
        described = [
            {
                "name": candidate.name,
                "ns": spread(taken),
                "samples_ns": [round(each, 2) for each in taken],
                **candidate.notes,
            }
            for candidate, taken in zip(candidates, samples, strict=True)
        ]
        for entry, taken in zip(described[1:], samples[1:], strict=True):
            entry["ratio"] = spread([theirs / own for theirs, own in zip(taken, samples[0], strict=True)])
        goals = [
            judge_goal(Goal(f"{row.name}: {entry['name']} over ours", "x", target, at_least=at_least), entry["ratio"])
            for entry in described[1:]
            for wanted, at_least in ((row.at_least, True), (row.at_most, False))
            for beginning, target in wanted.items()
            if entry["name"].startswith(beginning)
        ]
        results.append({"name": row.name, "ours": described[0], "peers": described[1:], "goals": goals})
    return results


def show(title: str, results: Sequence[dict[str, Any]], file: TextIO) -> None:
    """Print rows as a table, and their goals."""
    print_table(title, TABLE_HEADS, table_rows(results), file)
    if goals := [goal for result in results for goal in result["goals"]]:
        print_goals(goals, file)


def table_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Lay results out for `print_table`: row, candidate, ns, spread, ratio to ours, notes."""
    lines: list[list[str]] = []
    for result in results:
        for entry in (result["ours"], *result["peers"]):
            known = {"name", "ns", "samples_ns", "ratio"}
            notes = ", ".join(f"{key} {number(value)}" for key, value in entry.items() if key not in known)
            lines.append(
                [
                    result["name"] if entry is result["ours"] else "",
                    entry["name"],
                    number(entry["ns"]["median"]),
                    f"{number(entry['ns']['min'])}..{number(entry['ns']['max'])}",
                    number(entry["ratio"]["median"]) if "ratio" in entry else "1",
                    notes,
                ]
            )
    return lines


TABLE_HEADS = ("work", "by", "ns", "spread", "times ours", "quality")
