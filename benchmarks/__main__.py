"""Run benchmarks: ``python -m benchmarks [what] [--short] [--json PATH]``; README.md says what there is."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    bench_application,
    bench_base64,
    bench_calls,
    bench_density,
    bench_g711,
    bench_grpc,
    bench_jitter,
    bench_knee,
    bench_media_message,
    bench_path,
    bench_plc,
    bench_resample,
    bench_tick,
    bench_tls,
    bench_tone,
    bench_virtual,
    bench_voice,
    bench_wire,
    bench_wires,
    table,
    timing,
)
from benchmarks.harness import HarnessError
from benchmarks.report import ROOT, describe_machine, progress, write_json
from talkpath._native import lib

SMALL = (
    ("base64", "base64", bench_base64.rows),
    ("g711", "G.711", bench_g711.rows),
    ("resample", "resampling", bench_resample.rows),
    ("message", "one media message", bench_media_message.rows),
    ("path", "one call in the core", bench_path.rows),
    ("jitter", "jitter buffer, cost", bench_jitter.rows),
    ("tick", "one tick of many calls", bench_tick.rows),
    ("tls", "TLS on a media connection", bench_tls.rows),
)
WHAT = (
    *(
        "base64",
        "g711",
        "resample",
        "message",
        "path",
        "plc",
        "jitter",
        "tick",
        "tls",
        "voice",
        "tone",
        "virtual",
        "wire",
        "wires",
        "grpc",
        "application",
        "calls",
        "knee",
        "density",
        "all",
    ),
    "table",
    "plots",
)
DRAWINGS: tuple[Callable[[Path], list[Path]], ...] = (bench_resample.draw, bench_plc.draw, bench_jitter.draw)
"""Each draws its pictures into a directory and names them."""
DEFAULT = ROOT / "build" / "bench.json"
RESULTS = ROOT / "benchmarks" / "results"


def _calls(texts: list[str]) -> dict[str, int]:
    pairs = (text.partition("=") for text in texts)
    return {name: int(count) for name, _, count in pairs}


def main() -> int:
    """Measure what was asked for, print tables, write one JSON file."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks of talkpath, as ratios to named peers."
    )
    options.add_argument("what", nargs="?", default="all", choices=WHAT)
    options.add_argument("--short", action="store_true", help="quick: shows that it works, not what it reaches")
    options.add_argument("--json", type=Path, default=DEFAULT, help="where the result goes; - is standard output")
    options.add_argument("--designs", help="calls: the systems under test, in turns; all that can run by default")
    options.add_argument("--design", help="knee, density: another system under test than the fastest of ours")
    options.add_argument("--parts", default="", help="density: some of " + ",".join(bench_density.PARTS))
    options.add_argument("--calls", action="append", default=[], metavar="DESIGN=N", help="calls: N instead of a trial")
    options.add_argument("--rounds", type=int, help="calls: rounds instead of 3")
    options.add_argument("--seconds", type=float, help="calls: length of a window instead of 6 s")
    options.add_argument("--driver", help="wire, application: talkpath's driver instead of its own choice")
    options.add_argument("--no-memory", action="store_true", help="calls: without the slope of resident memory")
    asked = options.parse_args()
    if asked.what == "table":
        progress("README.md: written anew" if table.write() else "README.md was up to date")
        return 0
    if asked.what == "plots":
        for draw in DRAWINGS:
            for path in draw(RESULTS):
                progress(f"{path.relative_to(ROOT)} drawn")
        return 0
    tables = sys.stderr if str(asked.json) == "-" else sys.stdout

    effort = timing.SHORT if asked.short else timing.FULL
    plan = bench_calls.SHORT if asked.short else bench_calls.FULL
    plan = bench_calls.Plan(
        rounds=asked.rounds or plan.rounds,
        seconds=asked.seconds or plan.seconds,
        warm_up_s=plan.warm_up_s,
        retries=plan.retries,
        patience_s=plan.patience_s,
        memory=plan.memory and not asked.no_memory,
        settle_s=plan.settle_s,
    )
    result: dict[str, Any] = {"short": asked.short, "machine": describe_machine()}
    lib.tp_simd_select(-1)
    result["machine"]["simd_level"] = lib.tp_simd_level_in_use()
    try:
        for what, title, rows in SMALL:
            if asked.what in (what, "all"):
                result[what] = timing.measure(rows(), effort)
                timing.show(title, result[what], tables)
        if asked.what in ("plc", "all"):
            result["plc"] = bench_plc.run(bench_plc.SHORT if asked.short else bench_plc.FULL)
            bench_plc.show(result["plc"], tables)
        if asked.what in ("jitter", "all"):
            result["jitter traces"] = bench_jitter.run(bench_jitter.SHORT if asked.short else bench_jitter.FULL)
            bench_jitter.show(result["jitter traces"], tables)
        if asked.what in ("voice", "all"):
            result["voice"] = bench_voice.run(effort)
            bench_voice.show(result["voice"], tables)
        if asked.what in ("tone", "all"):
            result["tone"] = bench_tone.run(bench_tone.SHORT if asked.short else bench_tone.FULL)
            bench_tone.show(result["tone"], tables)
        if asked.what in ("virtual", "all"):
            result["virtual"] = bench_virtual.measure(60 if asked.short else 600, 2 if asked.short else 3)
            bench_virtual.show(result["virtual"], tables)
        if asked.what == "wire":
            result["wire"] = bench_wire.run(asked.driver, bench_wire.SHORT if asked.short else bench_wire.FULL)
            bench_wire.show(result["wire"], tables)
        if asked.what in ("wires", "all"):
            result["wires"] = bench_wires.run(bench_wires.SHORT if asked.short else bench_wires.FULL)
            bench_wires.show(result["wires"], tables)
        if asked.what == "grpc":
            effort_there_too = bench_grpc.SHORT if asked.short else bench_grpc.FULL
            if asked.rounds:
                effort_there_too = dataclasses.replace(effort_there_too, rounds=asked.rounds)
            result["grpc"] = bench_grpc.run(effort_there_too)
            bench_grpc.show(result["grpc"], tables)
        if asked.what == "application":
            effort_there = bench_application.SHORT if asked.short else bench_application.FULL
            result["application"] = bench_application.run(asked.driver, effort_there)
            bench_application.show(result["application"], tables)
        if asked.what in ("calls", "all"):
            designs = bench_calls.named_designs(asked.designs) if asked.designs else None
            result["calls"] = bench_calls.run(designs, plan, _calls(asked.calls))
            bench_calls.show(result["calls"], tables)
        if asked.what in ("knee", "all"):
            result["knee"] = bench_knee.run(asked.design, bench_knee.SHORT if asked.short else bench_knee.FULL)
            bench_knee.show(result["knee"], tables)
        if asked.what in ("density", "all"):
            density = bench_density.SHORT if asked.short else bench_density.FULL
            if asked.rounds:
                density = dataclasses.replace(density, rounds=asked.rounds)
            parts = [part for part in asked.parts.split(",") if part]
            result["density"] = bench_density.run(asked.design, parts, density)
            bench_density.show(result["density"], tables)
    except HarnessError as failure:
        progress(f"failed: {failure}")
        if len(result) > 2:
            write_json(asked.json, result | {"failed": str(failure).partition("\n")[0]})
        return 1
    write_json(asked.json, result)
    return 0 if asked.what != "knee" or result["knee"]["summary"]["trustworthy"] else 1


if __name__ == "__main__":
    sys.exit(main())
