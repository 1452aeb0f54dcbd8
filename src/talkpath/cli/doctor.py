"""``talkpath doctor``: what is available here, what is wrong, and how to mend it, in words."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

_EPILOG = """\
exit status: 0 talkpath can work here (remarks may remain), 1 something that it needs is missing

examples:
  talkpath doctor
  talkpath doctor --calls 2000
  talkpath doctor --json | python -m json.tool
"""

# The doctor speaks where nothing else can be imported, so these are named again; a test holds them equal.
_DESCRIPTORS_PER_CALL = 3
_SPARE_DESCRIPTORS = 64
_POOL_BYTES = 64 * 1024 * 1024
_BACKLOG = 1024
_CALLS = 1_000
_BYTES_PER_CALL = 64 * 1024
"""Resident, with nothing queued."""
_BASE_BYTES = 64 * 1024 * 1024
"""Of the interpreter and what is imported."""
_SIMD_NAMES = {0: "base", 1: "AVX2"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: str
    """``ok``; ``remark``: it works, it could be better; ``wrong``: talkpath cannot work."""
    says: str
    mend: str = ""
    """What to do about it."""


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "doctor",
        help="say what is available here, what is wrong, and how to mend it",
        description="Say what is available here, what is wrong, and how to mend it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--calls",
        type=_whole,
        default=_CALLS,
        metavar="N",
        help=f"how many calls at once one process is to carry ({_CALLS:,})",
    )
    parser.set_defaults(run=run)


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number between 1 and 1000000")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Look at everything and report."""
    findings = examine(options.calls)
    healthy = all(finding.state != "wrong" for finding in findings)
    if options.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
        return 0 if healthy else 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        sign = {"ok": "ok    ", "remark": "remark", "wrong": "WRONG "}[finding.state]
        print(f"{sign}  {finding.name:<{width}}  {finding.says}")
        if finding.mend:
            print(f"{'':{width + 10}}to mend: {finding.mend}")
    print()
    print("talkpath can work here." if healthy else "talkpath cannot work here before what is WRONG is mended.")
    return 0 if healthy else 1


def examine(n_calls: int = _CALLS) -> list[Finding]:
    """Look at everything, for a process that is to carry `n_calls`; nothing raises out of here."""
    findings = []

    def descriptors() -> Finding:
        return _descriptor_limit(n_calls)

    def memory() -> Finding:
        return _memory(n_calls)

    for look in (
        _python,
        _platform,
        _native_core,
        _simd_level,
        _packages,
        _loopback,
        _timer,
        _epoll,
        descriptors,
        memory,
        _listen_queue,
        _processors,
        _real_time_thread,
        _drivers,
        _system_calls,
        _benchmark_peers,
    ):
        try:
            findings.append(look())
        except Exception as error:
            findings.append(
                Finding(look.__name__.strip("_").replace("_", " "), "wrong", f"{type(error).__name__}: {error}")
            )
    return findings


def native_summary() -> str:
    """Return one line about the compiled core, for reports."""
    return f"{_native_core().says}; SIMD {_simd_level().says}"


def _python() -> Finding:
    says = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info < (3, 11):  # noqa: UP036 - a doctor believes nobody
        return Finding("python", "wrong", says, "use CPython 3.11 or newer")
    if sys.implementation.name != "cpython":
        return Finding("python", "wrong", says, "use CPython; the compiled core is built for it")
    return Finding("python", "ok", says)


def _platform() -> Finding:
    says = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64"):
        return Finding("platform", "ok", says)
    if platform.system() == "Darwin":
        return Finding("platform", "remark", f"{says}: works, without timerfd", "for density use Linux")
    return Finding("platform", "remark", f"{says}: not tested there")


def _native_core() -> Finding:
    try:
        from talkpath._native import ffi, lib
    except ImportError as error:
        return Finding(
            "native core",
            "wrong",
            f"cannot be loaded ({error})",
            "in a checkout: make setup; else: pip install talkpath",
        )
    try:
        if ffi.string(lib.tp_status_name(0)) != b"OK":
            return Finding("native core", "wrong", "answers wrongly", "in a checkout: make clean setup")
    except AttributeError as error:
        return Finding("native core", "wrong", f"is older than its sources ({error})", "in a checkout: make setup")
    return Finding("native core", "ok", f"loaded, cffi {importlib.metadata.version('cffi')}")


def _simd_level() -> Finding:
    try:
        import talkpath.dsp.simd  # noqa: F401 - chooses the level
        from talkpath._native import lib

        used, best = lib.tp_simd_level_in_use(), lib.tp_simd_level_best()
    except (ImportError, AttributeError) as error:
        return Finding("simd", "wrong", f"unknown ({error})", "in a checkout: make setup")
    machine = platform.machine()
    name = "NEON" if machine in ("aarch64", "arm64") else _SIMD_NAMES.get(used, str(used))
    if used < best:
        return Finding(
            "simd", "remark", f"{name}; this machine has {_SIMD_NAMES.get(best, best)}", "unset TALKPATH_SIMD"
        )
    return Finding("simd", "ok", name)


def _packages() -> Finding:
    missing, found = [], []
    for package in ("trio", "trio-websocket", "wsproto", "h11", "numpy", "msgpack"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("packages", "wrong", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("packages", "ok", ", ".join(found))


def _loopback() -> Finding:
    kinds: list[tuple[str, int, str]] = [
        ("UDP", socket.SOCK_DGRAM, "127.0.0.1"),
        ("TCP", socket.SOCK_STREAM, "127.0.0.1"),
    ]
    for name, kind, host in kinds:
        try:
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind((host, 0))
        except OSError as error:
            return Finding(
                "loopback",
                "wrong",
                f"{name} on {host}: {error.strerror}",
                "bring the interface lo up: ip link set lo up",
            )
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return Finding("loopback", "ok", "UDP and TCP, IPv4 and IPv6")
    return Finding("loopback", "ok", "UDP and TCP, IPv4 (no IPv6 here)")


def _timer() -> Finding:
    if hasattr(os, "timerfd_create"):
        return Finding("timerfd", "ok", "from the standard library")
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "timerfd_create"):
        return Finding("timerfd", "ok", "from the C library")
    return Finding("timerfd", "remark", "none: an idle clock wakes about 0.6 ms later than with one")


def _epoll() -> Finding:
    import select

    if hasattr(select, "epoll"):
        with select.epoll() as probe:
            probe.fileno()
        return Finding("epoll", "ok", "available")
    return Finding("epoll", "remark", "none: sockets are asked one by one", "for density use Linux")


def _descriptor_limit(n_calls: int) -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("descriptors", "ok", "no limit")
    says = f"{soft} open files, enough for about {max(soft - _SPARE_DESCRIPTORS, 0) // _DESCRIPTORS_PER_CALL} calls"
    needed = n_calls * _DESCRIPTORS_PER_CALL + _SPARE_DESCRIPTORS
    if soft >= needed:
        return Finding("descriptors", "ok", says)
    mend = f"for {n_calls} calls: ulimit -n {needed} (systemd: LimitNOFILE={needed})"
    if hard != resource.RLIM_INFINITY and hard < needed:
        mend = f"{n_calls} calls need {needed}, this user may have {hard}: ulimit -n {hard} (systemd: LimitNOFILE=)"
    return Finding("descriptors", "remark", says, mend)


def _memory(n_calls: int) -> Finding:
    available = _available_bytes()
    needed = _POOL_BYTES + _BASE_BYTES + n_calls * _BYTES_PER_CALL
    if available is None:
        return Finding(
            "memory", "remark", "unknown", f"{n_calls} calls need about {needed >> 20} MiB, the pool included"
        )
    says = f"{available >> 20} MiB available, {n_calls} calls need about {needed >> 20} MiB, the pool included"
    if available >= needed:
        return Finding("memory", "ok", says)
    return Finding("memory", "remark", says, "fewer calls, a smaller pool (EngineConfig.pool_bytes), or more memory")


def _available_bytes() -> int | None:
    """Return what could still be used, of the machine and of the control group; None where nobody tells."""
    found: list[int] = []
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        found.append(int(_read("/sys/fs/cgroup/memory.max")) - int(_read("/sys/fs/cgroup/memory.current")))
    return min(found, default=None)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _listen_queue() -> Finding:
    try:
        somaxconn = int(_read("/proc/sys/net/core/somaxconn"))
    except (OSError, ValueError):
        return Finding("listen queue", "ok", "the system does not tell its limit")
    says = f"{somaxconn} connections may wait"
    if somaxconn >= _BACKLOG:
        return Finding("listen queue", "ok", says)
    return Finding(
        "listen queue",
        "remark",
        f"{says}, {_BACKLOG} are asked for (ServeConfig.backlog): more at once are turned away",
        f"sysctl net.core.somaxconn={_BACKLOG * 4}",
    )


def _processors() -> Finding:
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _processor_quota()
    if quota is not None and quota < n_processors:
        says = f"{n_processors}, of which the control group grants {quota:.1f}"
        if quota < 1:
            return Finding(
                "processors",
                "remark",
                f"{says}: media is stopped for the rest of each period",
                "grant a whole processor at least (cpu.max; in Kubernetes no CPU limit, or 1)",
            )
        return Finding("processors", "ok", f"{says}; one engine uses one, run one process per granted processor")
    return Finding("processors", "ok", f"{n_processors}; one engine uses one, run one process per processor")


def _processor_quota() -> float | None:
    """Return how many processors' time the control group grants; None: no limit, or nobody tells."""
    try:
        quota, period = _read("/sys/fs/cgroup/cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _real_time_thread() -> Finding:
    """Try it, in a thread that ends at once: no table of rights and limits is as sure."""
    if not hasattr(os, "SCHED_FIFO"):
        return Finding("real-time thread", "remark", "no SCHED_FIFO here: a media thread runs at normal priority")
    answers: list[OSError | None] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread alone
            answers.append(None)
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if answers[0] is None:
        return Finding("real-time thread", "ok", "SCHED_FIFO is permitted")
    return Finding(
        "real-time thread",
        "remark",
        f"SCHED_FIFO is not permitted ({answers[0].strerror}): a media thread runs at normal priority",
        "ulimit -r 1 (systemd: LimitRTPRIO=1), or the capability CAP_SYS_NICE",
    )


def _drivers() -> Finding:
    from talkpath.transport.clock import DEFAULT_DRIVER

    there = "pump, tasks" if DEFAULT_DRIVER == "pump" else "tasks (the pump needs Linux)"
    return Finding("drivers", "ok", there)


def _system_calls() -> Finding:
    from talkpath.transport.clock import DEFAULT_DRIVER
    from talkpath.transport.pump import ring_refusal

    if DEFAULT_DRIVER != "pump":
        return Finding("system calls", "ok", "each alone (io_uring needs Linux)")
    refusal = ring_refusal()
    if refusal is None:
        return Finding("system calls", "ok", "the pump makes them in batches, through io_uring")
    return Finding(
        "system calls",
        "remark",
        f"no io_uring ({refusal.strerror}): the pump makes each alone, which costs processor time",
        "Linux 6.1; kernel.io_uring_disabled=0; a seccomp profile that permits io_uring_setup and io_uring_enter",
    )


def _benchmark_peers() -> Finding:
    peers = ("orjson", "uvloop", "picows", "websockets")
    found = [peer for peer in peers if importlib.util.find_spec(peer) is not None]
    if len(found) == len(peers):
        return Finding("peers", "ok", f"for benchmarks: {', '.join(found)}")
    return Finding("peers", "ok", f"for benchmarks: {', '.join(found) or 'none'} (make bench installs them)")
