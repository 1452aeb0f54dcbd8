"""README.md's figures, written from the kept result of a release: ``python -m benchmarks table``.

Everything between the two markers in README.md is made here and nowhere else, so that no figure can be quoted that no
result holds. A row is left out where the result does not have it: results are kept as they were measured, and what is
measured grows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, number

BEGIN = "<!-- figures: begin, written by `python -m benchmarks table` -->"
END = "<!-- figures: end -->"
OURS = ("talkpath pump", "talkpath", "talkpath tasks")
"""The design whose figures are the product's: the first that a result has."""
NAIVE = "plain Trio, a task per job, trio-websocket, json, base64"
MESSAGE_PEER = "json + base64 + audioop + wsproto"


def newest_result() -> Path:
    """Return the kept result of the latest release."""
    return max((ROOT / "benchmarks" / "results").glob("*.json"), key=lambda path: _version(path.stem))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _calls(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    summary = result.get("calls", {}).get("summary", {"designs": {}})
    designs = summary["designs"]
    name = next((name for name in OURS if name in designs), None)
    if name is None:
        return
    ours, idle = designs[name], designs.get("idle timer")
    load = f"{ours['load']['median']:.0%}".replace("%", " %")
    if times := summary.get("calls_per_core_times_naive"):
        yield (
            "two-way calls per core (RTP ↔ WebSocket, G.711, 20 ms)",
            f"{ours['calls_per_core']['median']:.0f} at 70 % of a core",
            f"{NAIVE}: {designs['naive']['calls_per_core']['median']:.0f}",
            f"{times['median']:.1f} ×",
        )
    if idle:
        for key, title in (("p99", "p99"), ("p999", "p99.9")):
            own, floor = ours["lateness_ms"][key]["median"], idle["lateness_ms"][key]["median"]
            yield (
                f"outgoing lateness, {title}, at {load} load",
                f"{own:.1f} ms",
                f"an idle timer: {floor:.1f} ms",
                f"+ {own - floor:.1f} ms",
            )
    if ours["kib_per_call"] is not None:
        peer = designs.get("naive", {}).get("kib_per_call")
        yield (
            "resident memory a call, playout empty",
            f"{ours['kib_per_call']:.0f} KiB",
            f"the same design: {peer:.0f} KiB" if peer is not None else "",
            "",
        )


def _message(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    rows = {row["name"]: row for row in result.get("message", [])}
    both = [rows.get(f"message {way}") for way in ("in, platform's end", "out, platform's end, masked")]
    if not all(both):
        return
    ours = [row["ours"]["ns"]["median"] / 1e3 for row in both if row]
    peers = [next(peer for peer in row["peers"] if peer["name"] == MESSAGE_PEER) for row in both if row]
    yield (
        "one media message in / out, audio to bytes",
        " / ".join(f"{us:.2f}" for us in ours) + " µs",
        f"{MESSAGE_PEER}: " + " / ".join(f"{peer['ns']['median'] / 1e3:.1f}" for peer in peers) + " µs",
        " / ".join(f"{peer['ratio']['median']:.0f} ×" for peer in peers),
    )


def _virtual(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    if virtual := result.get("virtual"):
        minutes = virtual["virtual_seconds"] // 60
        yield (
            f"{minutes} minute{'s' * (minutes != 1)} of a two-way call in virtual time",
            f"{virtual['median_wall_s']:.1f} s" + (", every run the same to the byte" if virtual["identical"] else ""),
            "",
            "",
        )


def _knee(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    if not (found := result.get("knee", {}).get("summary")):
        return
    over = found["overload"]
    yield (
        "the knee: calls carried cleanly in one process",
        f"{found['knee_calls']}",
        f"load generator at {found['generator_load_at_knee']:.0%} of its core".replace("%", " %"),
        "",
    )
    yield (
        f"overload, {over['calls']} calls: late p99",
        f"{over['lateness_ms']['p99']:.0f} ms",
        "back to normal when it is over" if over["normal_again"] else "not back to normal afterwards",
        f"{len(found['left_over'])} left over",
    )


SECTIONS = {
    "calls": "calls per core",
    "lateness": "lateness once more, nearer to 60 % of a core",
    "wire": "a message over a socket",
    "wires": "each platform's wire",
    "grpc": "gRPC",
    "application": "the application's end",
    "g711": "G.711",
    "resample": "resampling, 20 ms",
    "jitter": "jitter buffer, cost",
    "jitter traces": "jitter buffer, delay at equal loss",
    "plc": "concealment",
    "tone": "digits in audio",
    "tick": "many calls at once",
}
"""Titles of what is measured; other sections bear their own names."""


def _goals(result: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Find the goals of every section, in the order of measurement."""
    sections: dict[str, list[dict[str, Any]]] = {
        SECTIONS["calls"]: result.get("calls", {}).get("summary", {}).get("goals", [])
    }
    for part in result.get("density", {}).get("parts", {}).values():
        sections.setdefault("density", []).extend(part["goals"])
    for what, section in result.items():
        if what in ("calls", "density") or not isinstance(section, (dict, list)):
            continue
        rows = section if isinstance(section, list) else section.get("speed", [])
        goals = [] if isinstance(section, list) else list(section.get("goals", []))
        goals += [goal for row in rows for goal in row.get("goals", [])]
        sections[SECTIONS.get(what, what)] = goals
    yield from ((title, goals) for title, goals in sections.items() if goals)


def _goal_line(goal: dict[str, Any]) -> str:
    unit = {"x": " ×"}.get(goal["unit"], f" {goal['unit']}".rstrip())
    sense = "≥" if goal["sense"] == ">=" else "≤"
    measured = goal["measured"]
    return (
        f"| {goal['name']} | {number(measured['median'])}{unit}{'' if goal['met'] else ' (missed)'} "
        f"| {number(measured['min'])} to {number(measured['max'])} | {sense} {goal['target']:g}{unit} |"
    )


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = {name: version for name, version in machine["packages"].items() if version and name != "talkpath"}
    versions |= {name.replace("_", "-"): version for name, version in machine["peers"].items() if version}
    listed = ", ".join(
        f"{name} {version}".replace(" standard library", "") for name, version in sorted(versions.items())
    )
    version = machine["packages"]["talkpath"] or "from its source tree"
    return (
        f"talkpath {version}, measured {machine['when'][:10]} on {machine['cpu']['cores']} cores of "
        f"{machine['cpu']['model']}, Linux {machine['kernel']}, {machine['python']}; {listed}."
    )


def render(result: dict[str, Any]) -> str:
    """Write a result as Markdown, without the markers."""
    lines = ["| | talkpath | the peer in the same run | |", "| --- | --- | --- | --- |"]
    for rows in (_calls, _knee, _message, _virtual):
        lines += ["| " + " | ".join(row) + " |" for row in rows(result)]
    while any("|  |" in line for line in lines):
        lines = [line.replace("|  |", "| |") for line in lines]
    if sections := list(_goals(result)):
        lines += ["", "| set as a goal | measured | smallest to largest | goal |", "| --- | --- | --- | --- |"]
        for title, goals in sections:
            lines.append(f"| **{title}** | | | |")
            lines += [_goal_line(goal) for goal in goals]
    left_out = result.get("calls", {}).get("left_out", {})
    lines += ["", _machine(result)]
    if threads := result.get("calls", {}).get("summary", {}).get("media_thread"):
        lines.append("The media thread's process: " + ", ".join(f"{n} × {how}" for how, n in threads.items()) + ".")
    if carried := result.get("carried"):
        lines.append(f"Not measured anew, from {carried['from']}: " + "; ".join(carried["what"]) + ".")
    lines += [f"Left out: {name} ({reason})." for name, reason in left_out.items()]
    return "\n".join(lines)


def insert(readme: str, table: str) -> str:
    """Put the table between the markers. Raises ValueError: a marker is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has lost the markers of its figures")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def write() -> bool:
    """Bring README.md up to date; return whether it was not."""
    path = ROOT / "README.md"
    old = path.read_text()
    new = insert(old, render(json.loads(newest_result().read_text())))
    path.write_text(new)
    return new != old
