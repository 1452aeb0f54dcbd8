"""Runs systems under test against the load generator, each pinned to a core of its own, in turns.

One measurement: start the generator on one core, the system under test on another, open N calls, let them settle,
take the system's process clock and the generator's counters at both edges of a window. CPU is what the system used
on its own clock, never wall time; lateness is what the generator saw arrive (see loadgen.c).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.report import ROOT, progress

FRAMES_PER_S = 50
PATIENCE_S = 60.0
REFERENCE_LOAD = 0.70
LOAD_BAND = (0.50, 0.70)
DISTURBED_BY = 0.06
QUIET_FOR_S = 0.4
PRIORITY = -15
GENERATOR_LIMIT = 0.90
WORTH = 0.97


class HarnessError(RuntimeError):
    """A process of the measurement failed or fell silent; the message carries what it said last."""


@dataclass(frozen=True, slots=True)
class Design:
    """A system under test: what to run, and where to begin looking for its load."""

    name: str
    module: str
    arguments: tuple[str, ...]
    first_guess: int
    """Calls of the first trial."""
    memory_calls: tuple[int, int]
    """Live calls between which the slope of resident memory is taken: as many as the design can carry."""
    needs: tuple[str, ...] = ()
    """Modules of optional packages; the design is left out, by name, where one is missing."""


FAST_CODECS = ("orjson", "pybase64")
NAIVE = Design("naive", "benchmarks.naive", (), first_guess=40, memory_calls=(20, 60))
TALKPATH = Design("talkpath", "benchmarks.talkpath_server", ("--driver", "tasks"), 200, (100, 500))
TRIO_WEBSOCKETS = Design("trio+websockets", "benchmarks.trio_websockets", (), 40, (20, 60), ("websockets.trio",))
UVLOOP_WEBSOCKETS = Design(
    "uvloop+websockets", "benchmarks.uvloop_websockets", (), 120, (50, 200), ("uvloop", "websockets", *FAST_CODECS)
)
PICOWS_NEEDS = ("uvloop", "picows", *FAST_CODECS)
UVLOOP_PICOWS = Design("uvloop+picows", "benchmarks.uvloop_picows", (), 200, (100, 400), PICOWS_NEEDS)
UVLOOP_PICOWS_POLLED = Design(
    "uvloop+picows polled", "benchmarks.uvloop_picows", ("--polled",), 200, (100, 400), PICOWS_NEEDS
)
IDLE = Design("idle timer", "benchmarks.idle_timer", (), 4, (0, 0))
PEERS = (NAIVE, TRIO_WEBSOCKETS, UVLOOP_WEBSOCKETS, UVLOOP_PICOWS)
DESIGNS = {design.name: design for design in (*PEERS, UVLOOP_PICOWS_POLLED, TALKPATH)}


class Child:
    """A process pinned to a core that answers a line with a line of JSON. Ends with the block, whatever happens."""

    def __init__(self, command: Sequence[str], cpu: int | None, title: str) -> None:
        self._title = title
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in __exit__
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            start_new_session=True,
        )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
            _raise_priority(self._process.pid)
        self._pending = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def tell(self, line: str) -> None:
        """Give a command that has no answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended early") from None

    def hear(self) -> dict[str, Any]:
        """Wait for one answer.

        Raises:
            HarnessError: the process ended or said nothing in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                raise self._failure("ended early" if ready else f"said nothing for {PATIENCE_S:.0f} s")
            self._pending += piece
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(line)
        return self.hear()

    def _failure(self, what: str) -> HarnessError:
        self._errors.seek(0)
        return HarnessError(f"{self._title} {what}\n{self._errors.read()[-4000:]}")


def _raise_priority(pid: int) -> None:
    """Go before others on the core where that is permitted, so that their work costs us cache and not turns.

    Linux groups processes by session where autogroups are on, and then only the group's own priority counts.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))


def choose_cores() -> tuple[int | None, int | None]:
    """Choose a core for the system under test and another for everything else; None twice where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


def _core_busy_s(cpu: int | None) -> float:
    """Busy seconds of one core since boot, all its users; 0 where the kernel does not say."""
    if cpu is None:
        return 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _wait, irq, softirq, steal = (int(tick) for tick in ticks[:8])
            return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Bench:
    """Holds the compiled load generator and the cores for the length of a run; measures designs one at a time."""

    def __init__(self, generator: Path) -> None:
        self._generator = generator
        self.system_cpu, self.generator_cpu = choose_cores()

    def generator(self, *arguments: str) -> Child:
        """Start a load generator with options of the caller's own, on the generator's core."""
        return Child([str(self._generator), *arguments], self.generator_cpu, "load generator")

    def busy_s(self) -> float:
        """Busy seconds of the core under test so far, whoever used it."""
        return _core_busy_s(self.system_cpu)

    def under_test(self, title: str, module: str, *arguments: str) -> Child:
        """Start a system under test on its core."""
        return Child([sys.executable, "-m", module, *arguments], self.system_cpu, title)

    @contextlib.contextmanager
    def _pair(
        self, design: Design, calls: int, window_s: float, quiet: bool
    ) -> Iterator[tuple[Child, Child, dict[str, Any]]]:
        limit_s = round(2 * PATIENCE_S + window_s + calls / 10)
        command = [str(self._generator), "--calls", str(calls), "--window-s", str(round(window_s) + 2)]
        command += ["--limit-s", str(limit_s), *(["--quiet"] if quiet else [])]
        system = [sys.executable, "-m", design.module, *design.arguments]
        with (
            Child(command, self.generator_cpu, "load generator") as generator,
            Child(system, self.system_cpu, design.name) as under_test,
        ):
            yield under_test, generator, generator.hear()

    @staticmethod
    def _open(under_test: Child, generator: Child, ends: dict[str, Any], first: int, count: int) -> dict[str, Any]:
        ports = ends["rtp_ports"][first : first + count]
        command = {"do": "open", "ws_port": ends["ws_port"], "first": first, "rtp_ports": ports}
        answer = under_test.ask(json.dumps(command))
        for at in range(0, len(answer["rtp_ports"]), 100):
            generator.tell("to " + " ".join(str(port) for port in answer["rtp_ports"][at : at + 100]))
        return answer

    def wait_quiet(self, patience_s: float) -> None:
        """Wait until nobody else uses the core under test, at most so long; what disturbs later shows as a fault."""
        if self.system_cpu is None:
            return
        deadline = time.monotonic() + patience_s
        while True:
            busy = _core_busy_s(self.system_cpu)
            time.sleep(QUIET_FOR_S)
            share = (_core_busy_s(self.system_cpu) - busy) / QUIET_FOR_S
            if share <= DISTURBED_BY or time.monotonic() > deadline:
                return

    def measure(self, design: Design, calls: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
        """Measure one design under `calls` two-way calls.

        Returns:
            The sample: load of the core, CPU microseconds per call and frame, calls per core at 70 % scaled
            linearly, lateness in ms, what was carried, and `faults`, the reasons to distrust it (none when good).
        """
        mark = json.dumps({"do": "mark"})
        with self._pair(design, calls, seconds, quiet=False) as (under_test, generator, ends):
            self._open(under_test, generator, ends, 0, calls)
            time.sleep(warm_up_s)
            generator.tell("begin")
            busy = _core_busy_s(self.system_cpu)
            before = under_test.ask(mark)
            time.sleep(seconds)
            after = under_test.ask(mark)
            busy = _core_busy_s(self.system_cpu) - busy
            report = generator.ask("end")
        return _judge(design, calls, before, after, busy, report)

    def measure_memory(self, design: Design, settle_s: float) -> dict[str, Any]:
        """Measure resident memory per live two-way call with empty playout: the slope between two numbers of calls."""
        few, many = design.memory_calls
        mark = json.dumps({"do": "mark"})
        with self._pair(design, many, 4 * settle_s, quiet=True) as (under_test, generator, ends):
            self._open(under_test, generator, ends, 0, few)
            time.sleep(settle_s)
            before = under_test.ask(mark)
            self._open(under_test, generator, ends, few, many - few)
            time.sleep(settle_s)
            generator.tell("begin")
            time.sleep(1)
            report = generator.ask("end")
            after = under_test.ask(mark)
        slope = (after["resident_bytes"] - before["resident_bytes"]) / (many - few)
        return {
            "design": design.name,
            "calls": [few, many],
            "resident_bytes": [before["resident_bytes"], after["resident_bytes"]],
            "kib_per_call": slope / 1024,
            "connections": report["connections"],
            "rtp": report["rtp"],
            "under_test": [before, after],
        }


def _judge(
    design: Design, calls: int, before: dict[str, Any], after: dict[str, Any], busy_s: float, report: dict[str, Any]
) -> dict[str, Any]:
    seconds = after["monotonic_s"] - before["monotonic_s"]
    cpu_s = after["cpu_s"] - before["cpu_s"]
    load = cpu_s / seconds
    rtp, messages, generator = report["rtp"], report["messages"], report["generator"]
    faults: list[str] = []
    if design is not IDLE:
        heard = rtp["matching"] / max(1, rtp["received"])
        told = messages["matching"] / max(1, messages["received"])
        expected = calls * FRAMES_PER_S * report["seconds"]
        for what, share in (
            ("audio of the application in RTP", heard),
            ("audio of the caller in messages", told),
            ("RTP packets", rtp["received"] / expected),
            ("media messages", messages["received"] / expected),
        ):
            if share < WORTH:
                faults.append(f"{what}: {share:.1%} of what should have been")
        if report["connections"] != calls:
            faults.append(f"{report['connections']} of {calls} connections at the end")
        if messages["stalled"] or messages["protocol_errors"]:
            faults.append(f"messages: {messages['stalled']} stalled, {messages['protocol_errors']} protocol errors")
    if generator["load"] > GENERATOR_LIMIT or generator["ticks_skipped"]:
        faults.append(
            f"the generator was the limit: load {generator['load']:.0%}, {generator['ticks_skipped']} ticks skipped"
        )
    disturbance = busy_s / seconds - load if busy_s else 0.0
    if disturbance > DISTURBED_BY:
        faults.append(f"others used {disturbance:.0%} of the core")
    return {
        "design": design.name,
        "calls": calls,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "load": load,
        "in_band": LOAD_BAND[0] - 0.05 <= load <= LOAD_BAND[1] + 0.05,
        "us_per_call_frame": cpu_s * 1e6 / (calls * FRAMES_PER_S * seconds),
        "calls_per_core": REFERENCE_LOAD * calls / load if load else None,
        "lateness_ms": report["lateness_ms"],
        "faults": faults,
        "disturbance": disturbance,
        "generator": report,
        "under_test": [before, after],
    }


@contextlib.contextmanager
def open_bench() -> Iterator[Bench]:
    """Compile the load generator into a temporary directory and hold it for the length of the block.

    Raises:
        HarnessError: no C compiler, or not Linux.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        raise HarnessError("the load generator needs Linux and a C compiler")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with tempfile.TemporaryDirectory() as directory:
            generator = Path(directory) / "loadgen"
            source = Path(__file__).with_name("loadgen.c")
            subprocess.run([compiler, "-std=c11", "-O2", "-Wall", str(source), "-o", str(generator)], check=True)
            bench = Bench(generator)
            if bench.system_cpu is None:
                progress("only one core: system and generator share it, the figures are not comparable")
            elif (own := bench.generator_cpu) is not None:
                os.sched_setaffinity(0, {own})
            yield bench
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
