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
from dataclasses import asdict, dataclass
from typing import Any

_EPILOG = """\
exit status: 0 talkpath can work here (remarks may remain), 1 something that it needs is missing

examples:
  talkpath doctor
  talkpath doctor --json | python -m json.tool
"""

_DESCRIPTORS_PER_CALL = 4
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look at everything and report."""
    findings = examine()
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


def examine() -> list[Finding]:
    """Look at everything; nothing raises out of here."""
    findings = []
    for look in (
        _python,
        _platform,
        _native_core,
        _simd_level,
        _packages,
        _loopback,
        _timer,
        _descriptor_limit,
        _processors,
        _drivers,
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


def _descriptor_limit() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("descriptors", "ok", "no limit")
    calls = max(soft - 64, 0) // _DESCRIPTORS_PER_CALL
    says = f"{soft} open files, enough for about {calls} calls"
    if calls >= 1_000:
        return Finding("descriptors", "ok", says)
    ceiling = "more" if hard == resource.RLIM_INFINITY else str(hard)
    return Finding("descriptors", "remark", says, f"for more calls: ulimit -n {ceiling} (systemd: LimitNOFILE=)")


def _processors() -> Finding:
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processors", "ok", f"{n_processors}; one engine uses one, run one process per processor")


def _drivers() -> Finding:
    return Finding("drivers", "ok", "tasks")


def _benchmark_peers() -> Finding:
    peers = ("orjson", "uvloop", "picows", "websockets")
    found = [peer for peer in peers if importlib.util.find_spec(peer) is not None]
    if len(found) == len(peers):
        return Finding("peers", "ok", f"for benchmarks: {', '.join(found)}")
    return Finding("peers", "ok", f"for benchmarks: {', '.join(found) or 'none'} (make bench installs them)")
