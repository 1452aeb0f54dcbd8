"""The application's end: an echo bot under `serve_lines` beside Pipecat's bare telephony echo, each at its clean limit.

The load generator plays the platform: N WebSocket connections that send 20 ms of audio every 20 ms and note what comes
back and when. Each design is ramped until its core is at 70 % or what it says is late, missing or another call's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TextIO

from benchmarks.bench_wire import title
from benchmarks.harness import DISTURBED_BY, FRAMES_PER_S, GENERATOR_LIMIT, WORTH, Bench, HarnessError, open_bench
from benchmarks.peers import missing_modules
from benchmarks.report import number, print_table, progress, spread

MOST_LOAD = 0.70
NEAR_ENOUGH = 0.65
LATE_P99_MS = 20.0
STEP = 0.08
MAX_CALLS = 2000


@dataclass(frozen=True, slots=True)
class Bot:
    """An echo under test."""

    name: str
    module: str
    arguments: tuple[str, ...]
    chunk_ms: int
    first_guess: int
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure."""

    rounds: int = 3
    seconds: float = 5.0
    trial_s: float = 3.0
    warm_up_s: float = 2.0
    patience_s: float = 10.0
    trials: int = 16
    retries: int = 1
    """How often a trial that broke is taken again where it was disturbed."""


FULL = Plan()
SHORT = Plan(rounds=1, seconds=1.0, trial_s=1.0, warm_up_s=0.5, patience_s=0.5, trials=1, retries=0)

CHUNKS_MS = (60, 20)
PIPECAT_NEEDS = ("pipecat", "fastapi", "uvicorn", "uvloop")


def bots(driver: str | None) -> list[Bot]:
    """Name the echoes, ours and Pipecat's for each length of chunk."""
    named: list[Bot] = []
    for chunk_ms in CHUNKS_MS:
        chunk = ("--chunk-ms", str(chunk_ms))
        ours = ("--driver", driver, *chunk) if driver else chunk
        named.append(Bot(f"{title(driver)}, {chunk_ms} ms", "benchmarks.echo_talkpath", ours, chunk_ms, 60))
        named.append(Bot(f"pipecat, {chunk_ms} ms", "benchmarks.echo_pipecat", chunk, chunk_ms, 10, PIPECAT_NEEDS))
    return named


def sample(bench: Bench, bot: Bot, calls: int, warm_up_s: float, seconds: float, patience_s: float) -> dict[str, Any]:
    """Measure one echo with `calls` calls; `broken` says what is not as it should be, `faults` why not to trust it."""
    mark = json.dumps({"do": "mark"})
    bench.wait_quiet(patience_s)
    with ExitStack() as stack:
        near = stack.enter_context(bench.under_test(bot.name, bot.module, *bot.arguments))
        port = near.hear()["port"]
        far = ["--mode", "platform", "--calls", str(calls), "--window-s", str(round(seconds) + 2), "--limit-s", "180"]
        generator = stack.enter_context(bench.generator(*far, "--connect", str(port)))
        generator.hear()
        generator.ask(f"connect {calls}")
        near.ask(json.dumps({"do": "open", "ws_port": 0, "first": 0, "rtp_ports": []}))
        time.sleep(warm_up_s)
        generator.tell("begin")
        busy = bench.busy_s()
        before = near.ask(mark)
        time.sleep(seconds)
        after = near.ask(mark)
        busy = bench.busy_s() - busy
        report = generator.ask("end")
    elapsed = after["monotonic_s"] - before["monotonic_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    load = cpu_s / elapsed
    messages, late = report["messages"], report["lateness_ms"]
    # The window may begin and end within a chunk.
    heard = messages["audio_s"] / (calls * (report["seconds"] - bot.chunk_ms / 1000))
    right = messages["matching"] / max(1, messages["received"])
    broken: list[str] = []
    if heard < WORTH:
        broken.append(f"{heard:.1%} of the audio came back")
    if right < WORTH:
        broken.append(f"{right:.1%} of the messages were the call's own audio")
    if report["connections"] != calls:
        broken.append(f"{report['connections']} of {calls} connections at the end")
    if late["p99"] > LATE_P99_MS:
        broken.append(f"late: p99 {late['p99']:.1f} ms")
    if load > MOST_LOAD:
        broken.append(f"load {load:.0%}")
    faults: list[str] = []
    if report["generator"]["load"] > GENERATOR_LIMIT or report["generator"]["ticks_skipped"]:
        faults.append("the generator was the limit")
    if messages["stalled"] or messages["protocol_errors"]:
        broken.append(f"messages: {messages['stalled']} stalled, {messages['protocol_errors']} protocol errors")
    if (disturbance := busy / elapsed - load if busy else 0.0) > DISTURBED_BY:
        faults.append(f"others used {disturbance:.0%} of the core")
    return {
        "bot": bot.name,
        "calls": calls,
        "load": load,
        "us_per_call_frame": cpu_s * 1e6 / (calls * FRAMES_PER_S * elapsed),
        "lateness_ms": late,
        "broken": broken,
        "faults": faults,
        "generator": report,
        "under_test": [before, after],
    }


def describe(taken: dict[str, Any]) -> str:
    """Put one sample into a line of progress."""
    late = taken["lateness_ms"]
    return (
        f"{taken['bot']}, {taken['calls']} calls: {taken['load']:.0%} of a core, {taken['us_per_call_frame']:.1f} us "
        f"per call-frame, late p50 {late['p50']:.2f} p99 {late['p99']:.2f} max {late['max']:.2f} ms"
        + "".join(f"; BROKEN {what}" for what in taken["broken"])
        + "".join(f"; FAULT {fault}" for fault in taken["faults"])
    )


def _try(bench: Bench, bot: Bot, calls: int, plan: Plan, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Take a trial; again where it broke while others had the core, which says nothing about the bot."""
    attempts_left = plan.retries
    while True:
        taken = sample(bench, bot, calls, min(1.5, plan.warm_up_s), plan.trial_s, plan.patience_s)
        trials.append(taken)
        progress("trial: " + describe(taken))
        if not (taken["broken"] and taken["faults"]) or not attempts_left:
            return taken
        attempts_left -= 1


def find_limit(bench: Bench, bot: Bot, plan: Plan) -> tuple[int, list[dict[str, Any]]]:
    """Ramp until it breaks or its core is near 70 %; return the most calls that were clean, and the trials."""
    trials: list[dict[str, Any]] = []
    clean, broken, calls = 0, MAX_CALLS + 1, bot.first_guess
    while len(trials) < plan.trials:
        taken = _try(bench, bot, calls, plan, trials)
        if taken["broken"]:
            broken = calls
            # The load says how far to go back.
            calls = max(1, clean, round(calls * min(0.9, NEAR_ENOUGH / taken["load"])))
            if calls <= clean:
                calls = (clean + broken) // 2
        else:
            clean = calls
            if taken["load"] >= NEAR_ENOUGH:
                break
            room = round(calls * (MOST_LOAD - 0.02) / max(0.02, taken["load"]))
            calls = min(2 * calls, room, (clean + broken) // 2 if broken <= MAX_CALLS else MAX_CALLS)
        if broken - clean <= max(1, STEP * clean) or calls <= clean:
            break
    return clean, trials


def run(driver: str | None, plan: Plan) -> dict[str, Any]:
    """Find each echo's limit, then hold them there in turns.

    Returns:
        Trials and samples; per echo its clean calls and their cost; ours over Pipecat's for each length of chunk, both
        at that length and at Pipecat's better one.

    Raises:
        HarnessError: a bot cannot carry a single call.
    """
    samples: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    limits: dict[str, int] = {}
    able: list[Bot] = []
    for bot in bots(driver):
        missing = missing_modules(bot.needs)
        if missing:
            progress(f"skipped {bot.name}: {', '.join(missing)} not installed")
        else:
            able.append(bot)
    with open_bench() as bench:
        for bot in able:
            limits[bot.name], taken = find_limit(bench, bot, plan)
            trials += taken
            if not limits[bot.name]:
                raise HarnessError(f"{bot.name} is not clean with any number of calls")
        for number_of_round in range(plan.rounds):
            for bot in able:
                held = sample(bench, bot, limits[bot.name], plan.warm_up_s, plan.seconds, plan.patience_s)
                samples.append(held | {"round": number_of_round})
                progress(f"round {number_of_round + 1}/{plan.rounds}: {describe(held)}")
    return {"trials": trials, "samples": samples, "summary": summarise(samples, limits, driver)}


def summarise(samples: Sequence[dict[str, Any]], limits: dict[str, int], driver: str | None) -> dict[str, Any]:
    """Summarise per echo, and ours against Pipecat's."""
    echoes: dict[str, Any] = {}
    for name, calls in limits.items():
        own = [each for each in samples if each["bot"] == name]
        echoes[name] = {
            "clean_calls": calls,
            "load": spread([each["load"] for each in own]),
            "us_per_call_frame": spread([each["us_per_call_frame"] for each in own]),
            "late_p99_ms": spread([each["lateness_ms"]["p99"] for each in own]),
            "clean": sum(not each["broken"] for each in own),
            "without_faults": sum(not each["faults"] for each in own),
            "samples": len(own),
        }
    theirs = {ms: f"pipecat, {ms} ms" for ms in CHUNKS_MS}
    ratios: dict[str, Any] = {}
    cost = {(each["bot"], each["round"]): each["us_per_call_frame"] for each in samples}
    rounds = sorted({each["round"] for each in samples})
    for ms in CHUNKS_MS:
        ours = f"{title(driver)}, {ms} ms"
        if theirs[ms] not in limits:
            continue
        ratios[f"{ms} ms"] = {
            "clean_calls": limits[ours] / limits[theirs[ms]],
            "clean_calls_at_their_best": limits[ours] / max(limits[name] for name in theirs.values()),
            "cpu": spread([cost[theirs[ms], at] / cost[ours, at] for at in rounds]),
        }
    return {"echoes": echoes, "times_pipecat": ratios}


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print the table for people."""
    rows = [
        [
            name,
            number(echo["clean_calls"]),
            f"{echo['load']['median']:.0%}",
            f"{number(echo['us_per_call_frame']['median'])} ({number(echo['us_per_call_frame']['min'])}.."
            f"{number(echo['us_per_call_frame']['max'])})",
            number(echo["late_p99_ms"]["median"]),
            f"{echo['clean']}/{echo['samples']}",
            f"{echo['without_faults']}/{echo['samples']}",
        ]
        for name, echo in result["summary"]["echoes"].items()
    ]
    heads = ("echo", "clean calls on a core", "load", "us per call-frame", "late p99 ms", "clean", "undisturbed")
    print_table("the application's end: an echo bot, G.711 20 ms in", heads, rows, file)
    for chunk, ratio in result["summary"]["times_pipecat"].items():
        cpu, best = ratio["cpu"], ratio["clean_calls_at_their_best"]
        print(
            f"  chunks of {chunk}: {ratio['clean_calls']:.1f} times pipecat's calls ({best:.1f} times those of its "
            f"better chunk); CPU {cpu['median']:.1f} ({cpu['min']:.1f}..{cpu['max']:.1f})",
            file=file,
        )
