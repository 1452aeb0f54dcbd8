"""What every benchmark writes: the machine, every sample, a table for people."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from benchmarks.peers import peer_versions

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("talkpath", "trio", "trio-websocket", "wsproto", "cffi", "numpy")

_started = time.monotonic()


def progress(text: str) -> None:
    """Say on standard error what is being done and how long it has been going on."""
    print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def _cpu() -> dict[str, Any]:
    """The class of CPU, not its identity: model name and the instruction sets the kernels can use."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    known = {"sse4_2", "avx2", "avx512f", "avx512_vbmi2", "asimd", "sve", "hypervisor"}
    return {
        "model": model.group(1) if model else platform.processor() or platform.machine(),
        "instruction_sets": sorted(known & set(flags.group(1).split())) if flags else [],
        "cores": os.cpu_count(),
    }


def _compiler() -> dict[str, str]:
    """The compiler here now, and the flags that the builder of the extension names."""
    builder = ROOT / "csrc" / "build_native.py"
    flags = re.search(r"^\s*flags = \[(.*?)\]", builder.read_text(), re.MULTILINE | re.DOTALL)
    return {
        "compiler": _first_line(os.environ.get("CC", "cc"), "--version"),
        "extension_flags": " ".join(re.findall(r'"(-[^"]+)"', flags.group(1))) if flags else "",
        "python_flags": sysconfig.get_config_var("CFLAGS") or "",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_machine() -> dict[str, Any]:
    """Describe where a result was measured, as far as it explains the figures and no further."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _first_line("git", "rev-parse", "HEAD"),
        "commit_clean": not _first_line("git", "status", "--porcelain", "--untracked-files=no"),
        "cpu": _cpu(),
        "kernel": platform.release().partition("-")[0],
        "machine": platform.machine(),
        "load_average_1min": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {package: _version(package) for package in PACKAGES},
        "peers": peer_versions(),
        **_compiler(),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Summarise samples as median, smallest and largest; never as a mean, which one disturbed sample moves."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is to be reached, as a ratio or bound within one run."""

    name: str
    unit: str
    """``x`` for a ratio."""
    target: float
    at_least: bool
    """Whether the target is a floor; else it is a ceiling."""


def judge_goal(goal: Goal, measured: dict[str, float]) -> dict[str, Any]:
    """Put a goal beside what was measured, by its median."""
    value = measured["median"]
    met = value >= goal.target if goal.at_least else value <= goal.target
    named = {"name": goal.name, "unit": goal.unit, "sense": ">=" if goal.at_least else "<=", "target": goal.target}
    return {**named, "measured": measured, "met": met}


def print_goals(goals: Sequence[dict[str, Any]], file: TextIO) -> None:
    """Print goals beside what was measured."""
    rows = [
        [
            goal["name"],
            number(goal["measured"]["median"]),
            f"{number(goal['measured']['min'])}..{number(goal['measured']['max'])}",
            f"{goal['sense']} {goal['target']:g} {goal['unit']}".strip(),
            "yes" if goal["met"] else "no",
        ]
        for goal in goals
    ]
    if rows:
        print_table("goals", ("", "measured", "range", "goal", "met"), rows, file)


def number(value: float | None) -> str:
    """Write a figure with three significant digits and no exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], file: TextIO) -> None:
    """Print one table: words left, figures right."""
    lines = [list(heads), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    words = [all(not cell[:1].isdigit() and cell != "-" for cell in column[1:]) for column in zip(*lines, strict=True)]
    print(f"\n{title}", file=file)
    for index, line in enumerate(lines):
        cells = [
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(line, widths, words, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip(), file=file)
        if index == 0:
            print("  " + "  ".join("-" * width for width in widths), file=file)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result; one file holds everything that was measured. The path ``-`` is standard output."""
    if str(path) == "-":
        print(json.dumps(result, indent=1))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    progress(f"written: {path}")
