"""Runs systems under test against the load generator, each pinned to a core of its own, in turns.

One measurement: start the generator on one core, the system under test on another, open N calls, let them settle,
take the system's process clock and the generator's counters at both edges of a window. CPU is what the system used
on its own clock, never wall time; lateness is what the generator saw arrive (see loadgen.c). A `Session` is such a pair
kept running, for measurements that open and close calls on the way.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.control import UNAVAILABLE
from benchmarks.report import ROOT, progress

FRAMES_PER_S = 50
PATIENCE_S = 60.0
REFERENCE_LOAD = 0.70
LOAD_BAND = (0.50, 0.70)
DISTURBED_BY = 0.06
"""More of the core than that in others' hands, and the sample is a fault."""
WAITED_BY = 0.004
"""Of the time. A thread that waits for its processor is late without having done anything."""
QUIET_FOR_S = 0.4
PRIORITY = -15
GENERATOR_LIMIT = 0.90
WORTH = 0.97
SOURCES = ("loadgen.c", "loadgen_batch.c", "loadgen_bytes.c", "loadgen_link.c")
FRAME_MS = 20
MAX_CALLS = 4000
"""What the load generator has room for."""


class HarnessError(RuntimeError):
    """A process of the measurement failed or fell silent; the message carries what it said last."""


class DesignUnavailable(HarnessError):
    """A system under test cannot run here: a package, a driver or TLS is missing; the message says which."""


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
    message_ms: int = 20
    """Audio in one media message, both ways."""
    tls: bool = False
    """Its streams are ``wss``; the process gets ``--wss`` with the authority's file."""
    cores: int = 1
    """How many cores it may use, of those that there are for systems under test."""


def _talkpath(name: str, *arguments: str, first_guess: int, message_ms: int = 20, tls: bool = False) -> Design:
    if message_ms != FRAME_MS:
        arguments += ("--message-ms", str(message_ms))
    memory_calls = (100, 500) if "tasks" in name else (100, 1000)
    return Design(name, "benchmarks.talkpath_server", arguments, first_guess, memory_calls, (), message_ms, tls)


FAST_CODECS = ("orjson", "pybase64")
NAIVE = Design("naive", "benchmarks.naive", (), first_guess=40, memory_calls=(20, 60))
TALKPATH = _talkpath("talkpath", first_guess=200)
PUMP = _talkpath("talkpath pump", "--driver", "pump", first_guess=500)
PUMP_60_MS = _talkpath("talkpath pump 60 ms", "--driver", "pump", first_guess=600, message_ms=60)
PUMP_WSS = _talkpath("talkpath pump wss", "--driver", "pump", first_guess=400, tls=True)
PUMP_LUMPS = _talkpath("talkpath pump lumps", "--driver", "pump", "--lumps", first_guess=500)
THREAD = _talkpath("talkpath thread", "--driver", "pump", "--media-thread", first_guess=500)
THREAD_LUMPS = _talkpath("talkpath thread lumps", "--driver", "pump", "--media-thread", "--lumps", first_guess=500)
TASKS = _talkpath("talkpath tasks", "--driver", "tasks", first_guess=200)
TASKS_60_MS = _talkpath("talkpath tasks 60 ms", "--driver", "tasks", first_guess=200, message_ms=60)
TASKS_WSS = _talkpath("talkpath tasks wss", "--driver", "tasks", first_guess=100, tls=True)
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
OURS = (TALKPATH, PUMP, PUMP_60_MS, PUMP_WSS, PUMP_LUMPS, THREAD, THREAD_LUMPS, TASKS, TASKS_60_MS, TASKS_WSS)
DESIGNS = {design.name: design for design in (*PEERS, UVLOOP_PICOWS_POLLED, *OURS)}


class Child:
    """A process pinned to its cores that answers a line with a line of JSON. Ends with the block, whatever happens."""

    def __init__(self, command: Sequence[str], cpus: Collection[int], title: str) -> None:
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
        if cpus:
            os.sched_setaffinity(self._process.pid, cpus)
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

    def hear(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait for one answer.

        Raises:
            DesignUnavailable: the process ended because it cannot run here.
            HarnessError: the process ended or said nothing in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + patience_s
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                raise self._failure("ended early" if ready else f"said nothing for {patience_s:.0f} s")
            self._pending += piece
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, line: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.tell(line)
        return self.hear(patience_s)

    def _failure(self, what: str) -> HarnessError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._errors.seek(0)
        said = self._errors.read()[-4000:]
        if self._process.returncode == UNAVAILABLE:
            return DesignUnavailable(said.strip().rpartition("\n")[2] or "it did not say why")
        return HarnessError(f"{self._title} {what}\n{said}")


def _raise_priority(pid: int) -> None:
    """Go before others on the core where that is permitted, so that their work costs us cache and not turns.

    Linux groups processes by session where autogroups are on, and then only the group's own priority counts.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))


def choose_cores() -> tuple[tuple[int, ...], int | None]:
    """Choose cores for systems under test, the first for those of one core, and another for everything else.

    Returns:
        (cores, core): none, and None, where there is but one.
    """
    cores = sorted(os.sched_getaffinity(0))
    return ((cores[0], *cores[2:]), cores[1]) if len(cores) > 1 else ((), None)


def _cores_busy_s(cpus: Collection[int]) -> float:
    """Busy seconds of cores since boot, all their users; 0 where the kernel does not say."""
    wanted = {f"cpu{cpu}" for cpu in cpus}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines() if wanted else ():
        name, *ticks = line.split()
        if name in wanted:
            user, nice, system, _idle, _wait, irq, softirq, steal = (int(tick) for tick in ticks[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK")


class Session:
    """One system under test and its load generator, both running; calls open at the end and close from there."""

    def __init__(self, design: Design, under_test: Child, generator: Child, cpus: Collection[int]) -> None:
        self.design = design
        self.live = 0
        self._under_test = under_test
        self._generator = generator
        self._cpus = cpus
        self._ends = generator.hear()

    def ask(self, do: str, patience_s: float = PATIENCE_S, **command: Any) -> dict[str, Any]:
        """Give the system under test a command of control.py and wait for its answer."""
        return self._under_test.ask(json.dumps({"do": do, **command}), patience_s)

    def ask_on_ports(self, do: str, ports: int, patience_s: float, **command: Any) -> dict[str, Any]:
        """Give a command that opens calls by itself, with the far ends of that many."""
        ends = {"ws_port": self._ends["ws_port"], "rtp_ports": self._ends["rtp_ports"][:ports]}
        return self.ask(do, patience_s, **ends, **command)

    def open(self, count: int) -> dict[str, Any]:
        """Open so many more calls, and have their callers speak."""
        ports = self._ends["rtp_ports"][self.live : self.live + count]
        answer = self.ask("open", ws_port=self._ends["ws_port"], first=self.live, rtp_ports=ports)
        local = answer["rtp_ports"]
        for at in range(0, len(local), 100):
            ports_text = " ".join(str(port) for port in local[at : at + 100])
            self._generator.tell(f"at {self.live + at} {ports_text}")
        self.live += count
        return answer

    def close(self, count: int) -> dict[str, Any]:
        """Close the last so many calls, all at once; their callers fall silent first."""
        self.live -= count
        self._generator.tell(f"stop {self.live} {count}")
        return self.ask("close", first=self.live, count=count)

    def window(self, seconds: float) -> dict[str, Any]:
        """Measure what is live, for so long.

        Returns:
            The sample: load of the core (cores' worth, for a design of several), CPU microseconds per call and frame,
            calls per core at 70 % scaled linearly, lateness in ms, what was carried, and `faults`, the reasons to
            distrust it (none when good).
        """
        self._generator.tell("begin")
        busy = _cores_busy_s(self._cpus)
        before = self.ask("mark")
        time.sleep(seconds)
        after = self.ask("mark")
        busy = _cores_busy_s(self._cpus) - busy
        return _judge(self.design, self.live, before, after, busy, self._generator.ask("end"))

    def begin(self) -> None:
        """Begin a window of the generator's alone."""
        self._generator.tell("begin")

    def end(self) -> dict[str, Any]:
        """End the window of the generator's alone; return its report."""
        return self._generator.ask("end")


class Bench:
    """Holds the compiled load generator and the cores for the length of a run; measures designs one at a time."""

    def __init__(self, generator: Path, tls: str) -> None:
        self._generator = generator
        self.without_tls = tls
        """Why ``wss`` cannot be measured here; empty when it can."""
        self.system_cpus, self.generator_cpu = choose_cores()

    def generator(self, *arguments: str) -> Child:
        """Start a load generator with options of the caller's own, on the generator's core."""
        cpus = () if self.generator_cpu is None else (self.generator_cpu,)
        return Child([str(self._generator), *arguments], cpus, "load generator")

    def busy_s(self) -> float:
        """Busy seconds of the core under test so far, whoever used it."""
        return _cores_busy_s(self.system_cpus[:1])

    def under_test(self, title: str, module: str, *arguments: str, cores: int = 1) -> Child:
        """Start a system under test on its core, or on so many of those that there are."""
        return Child([sys.executable, "-m", module, *arguments], self.system_cpus[:cores], title)

    @contextlib.contextmanager
    def session(
        self, design: Design, calls: int, window_s: float, *, lasts_s: float, quiet: bool = False, latch: bool = False
    ) -> Iterator[Session]:
        """Run a system under test and a generator with the far ends of so many calls, for the length of the block.

        Args:
            window_s: the longest window to be measured.
            lasts_s: by then everything is over; the generator ends itself a while later, whatever happens.
            quiet: the application sends nothing.
            latch: callers answer whoever calls them, so that calls may come and go.

        Raises:
            DesignUnavailable: it cannot run here.
        """
        limit_s = round(2 * PATIENCE_S + lasts_s + calls / 10)
        options = ["--calls", str(calls), "--message-ms", str(design.message_ms), "--limit-s", str(limit_s)]
        options += ["--window-s", str(round(window_s) + 2), *["--quiet"] * quiet, *["--latch"] * latch]
        arguments = [*design.arguments]
        if design.tls:
            if self.without_tls:
                raise DesignUnavailable(self.without_tls)
            certificate, key = (str(self._generator.with_name(name)) for name in ("certificate.pem", "key.pem"))
            options += ["--tls-cert", certificate, "--tls-key", key]
            arguments += ["--wss", certificate]
        with (
            self.generator(*options) as generator,
            self.under_test(design.name, design.module, *arguments, cores=design.cores) as under_test,
        ):
            yield Session(design, under_test, generator, self.system_cpus[: design.cores])

    def why_not(self, design: Design) -> str:
        """Say why a design cannot be measured here; empty when it can."""
        for module in design.needs:
            with contextlib.suppress(ModuleNotFoundError):
                if importlib.util.find_spec(module) is not None:
                    continue
            return f"{module} is not installed"
        try:
            with self.session(design, 1, 1, lasts_s=1) as session:
                session.ask("mark")
        except DesignUnavailable as reason:
            return str(reason)
        return ""

    def wait_quiet(self, patience_s: float) -> None:
        """Wait until nobody else uses the core under test, at most so long; what disturbs later shows as a fault."""
        if not self.system_cpus:
            return
        deadline = time.monotonic() + patience_s
        while True:
            busy = self.busy_s()
            time.sleep(QUIET_FOR_S)
            share = (self.busy_s() - busy) / QUIET_FOR_S
            if share <= DISTURBED_BY or time.monotonic() > deadline:
                return

    def measure(self, design: Design, calls: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
        """Measure one design under `calls` two-way calls; the sample is `Session.window`'s."""
        with self.session(design, calls, seconds, lasts_s=warm_up_s + seconds) as session:
            session.open(calls)
            time.sleep(warm_up_s)
            return session.window(seconds)

    def measure_memory(self, design: Design, settle_s: float) -> dict[str, Any]:
        """Measure resident memory per live two-way call with empty playout: the slope between two numbers of calls."""
        few, many = design.memory_calls
        with self.session(design, many, 4 * settle_s, lasts_s=4 * settle_s, quiet=True) as session:
            session.open(few)
            time.sleep(settle_s)
            before = session.ask("mark")
            session.open(many - few)
            time.sleep(settle_s)
            session.begin()
            time.sleep(1)
            report = session.end()
            after = session.ask("mark")
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


def _cpu_s(mark: dict[str, Any]) -> float:
    """Return the CPU seconds of a design: its process's, unless it says itself what several have used together."""
    used: float = mark["design"].get("cpu_s", mark["cpu_s"])
    return used


def _judge(
    design: Design, calls: int, before: dict[str, Any], after: dict[str, Any], busy_s: float, report: dict[str, Any]
) -> dict[str, Any]:
    seconds = after["monotonic_s"] - before["monotonic_s"]
    lumps_s = after["design"].get("lump_cpu_s", 0.0) - before["design"].get("lump_cpu_s", 0.0)
    cpu_s = _cpu_s(after) - _cpu_s(before) - lumps_s
    load = cpu_s / seconds
    rtp, messages, generator = report["rtp"], report["messages"], report["generator"]
    faults: list[str] = []
    if design is not IDLE:
        heard = rtp["matching"] / max(1, rtp["received"])
        told = messages["matching"] / max(1, messages["received"])
        expected_s = calls * report["seconds"]
        for what, share in (
            ("audio of the application in RTP", heard),
            ("audio of the caller in messages", told),
            ("RTP packets", rtp["received"] / FRAMES_PER_S / expected_s),
            ("audio in media messages", messages["audio_s"] / expected_s),
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
    disturbance = (busy_s - cpu_s - lumps_s) / seconds / design.cores if busy_s else 0.0
    if disturbance > DISTURBED_BY:
        faults.append(f"others used {disturbance:.0%} of the core")
    waited_s = after["waited_s"] - before["waited_s"]
    if waited_s > WAITED_BY * seconds:
        faults.append(f"others had the core for {waited_s * 1e3:.0f} ms when it was needed")
    return {
        "design": design.name,
        "calls": calls,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "load": load,
        "lump_load": lumps_s / seconds,
        "in_band": LOAD_BAND[0] - 0.05 <= load <= LOAD_BAND[1] + 0.05,
        "us_per_call_frame": cpu_s * 1e6 / (calls * FRAMES_PER_S * seconds),
        "calls_per_core": REFERENCE_LOAD * calls / load if load else None,
        "lateness_ms": report["lateness_ms"],
        "faults": faults,
        "disturbance": disturbance,
        "waited_s": waited_s,
        "generator": report,
        "under_test": [before, after],
    }


def _build(compiler: str, generator: Path) -> str:
    """Compile the load generator, with TLS and a certificate where that can be; return why it cannot, or nothing."""
    sources = [str(Path(__file__).with_name(name)) for name in SOURCES]
    command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", *sources, "-o", str(generator)]
    with_tls = subprocess.run([*command, "-DLOADGEN_TLS", "-lssl", "-lcrypto"], capture_output=True, check=False)
    if with_tls.returncode:
        subprocess.run(command, check=True)
        return "the load generator was built without TLS: OpenSSL's headers were not found"
    # One certificate that is its own authority, for the length of the run.
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=talkpath-bench"
    subject = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"]
    try:
        made = subprocess.run(
            ["openssl", *request.split(), *subject], cwd=generator.parent, capture_output=True, check=False
        )
    except FileNotFoundError:
        return "there is no openssl command to make a certificate with"
    return "" if made.returncode == 0 else "openssl could not make a certificate"


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
            bench = Bench(generator, _build(compiler, generator))
            if not bench.system_cpus:
                progress("only one core: system and generator share it, the figures are not comparable")
            elif (own := bench.generator_cpu) is not None:
                os.sched_setaffinity(0, {own})
            yield bench
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
