"""The doctor names what is there, what is wrong and how to mend it, and answers scripts in JSON."""

from __future__ import annotations

import builtins
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talkpath.cli import doctor, main
from talkpath.engine import EngineConfig
from talkpath.line import ServeConfig
from talkpath.transport import pump
from talkpath.transport.admission import DESCRIPTORS_A_CALL


def findings(n_calls: int = 1000) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine(n_calls)}


def test_here_everything_it_needs_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "talkpath can work here" in said
    for name in (
        "python",
        "native core",
        "simd",
        "drivers",
        "timerfd",
        "epoll",
        "descriptors",
        "memory",
        "real-time thread",
        "system calls",
    ):
        assert name in said


def test_scripts_get_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["healthy"] is True
    assert {"name", "state", "says", "mend"} == set(answer["findings"][0])


def test_a_missing_core_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_core(name: str, *rest: Any, **more: Any) -> Any:
        if name == "talkpath._native":
            raise ImportError("no such module")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_core)
    assert findings()["native core"].state == "wrong"
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "WRONG   native core" in said
    assert "make setup" in said


def test_the_doctor_speaks_where_nothing_else_can(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.modules['numpy'] = None; from talkpath.cli import main; "
        "codes = main(['doctor']), main(['call', 'ws://x']); print(codes)"
    )
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30)
    assert answer.stdout.endswith("(1, 1)\n"), answer.stdout + answer.stderr
    assert "talkpath doctor says what to do" in answer.stderr


def test_few_descriptors_are_a_remark_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    finding = findings()["descriptors"]
    assert finding.state == "remark"
    assert "64 calls" in finding.says
    assert "ulimit -n 3064" in finding.mend
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 2048))
    assert "ulimit -n 2048" in findings()["descriptors"].mend
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3064, 3064))
    assert findings()["descriptors"].state == "ok"
    assert findings(1001)["descriptors"].state == "remark"
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert findings(1_000_000)["descriptors"].state == "ok"


def system(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], available_kib: int | None = None) -> None:
    """Have the doctor read these files, and no others."""

    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path]

    monkeypatch.setattr(doctor, "_read", read)
    if available_kib is not None:
        text = f"MemTotal:  99999999 kB\nMemAvailable:  {available_kib} kB\n"
        monkeypatch.setattr(builtins, "open", lambda path, *_: io.StringIO(text))


def test_memory_is_held_against_the_pool_and_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 calls of 64 KiB, 64 MiB of pool, 64 MiB of program: 190 MiB."""
    system(monkeypatch, {}, available_kib=191 * 1024)
    assert findings()["memory"].state == "ok"
    assert findings(2000)["memory"].state == "remark"
    system(monkeypatch, {}, available_kib=189 * 1024)
    assert findings()["memory"].state == "remark"
    group = {"/sys/fs/cgroup/memory.max": str(300 << 20), "/sys/fs/cgroup/memory.current": str(200 << 20)}
    system(monkeypatch, group, available_kib=10 << 20)
    assert findings()["memory"].says.startswith("100 MiB available")
    system(monkeypatch, {**group, "/sys/fs/cgroup/memory.max": "max"}, available_kib=10 << 20)
    assert findings()["memory"].state == "ok"


@pytest.mark.parametrize(("somaxconn", "state"), [("128", "remark"), ("1024", "ok"), ("4096", "ok"), (None, "ok")])
def test_the_listen_queue_is_held_against_the_backlog(
    monkeypatch: pytest.MonkeyPatch, somaxconn: str | None, state: str
) -> None:
    system(monkeypatch, {"/proc/sys/net/core/somaxconn": somaxconn} if somaxconn else {})
    finding = findings()["listen queue"]
    assert finding.state == state
    assert bool(finding.mend) == (state == "remark")


@pytest.mark.parametrize(
    ("cpu_max", "state", "says"),
    [
        ("50000 100000", "remark", "grants 0.5"),
        ("150000 100000", "ok", "grants 1.5"),
        ("max 100000", "ok", "4;"),
        ("900000 100000", "ok", "4;"),
    ],
)
def test_what_a_control_group_grants_counts(
    monkeypatch: pytest.MonkeyPatch, cpu_max: str, state: str, says: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    system(monkeypatch, {"/sys/fs/cgroup/cpu.max": cpu_max})
    finding = findings()["processors"]
    assert finding.state == state
    assert says in finding.says


def test_a_real_time_thread_is_tried_and_this_one_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getscheduler(0)
    assert findings()["real-time thread"].state in ("ok", "remark")
    assert os.sched_getscheduler(0) == before

    def forbidden(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    finding = findings()["real-time thread"]
    assert finding.state == "remark"
    assert "Operation not permitted" in finding.says
    assert "LimitRTPRIO" in finding.mend
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    assert findings()["real-time thread"].state == "ok"


def test_an_io_uring_is_tried_and_its_refusal_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings()["system calls"].state in ("ok", "remark")
    monkeypatch.setattr(pump, "ring_refusal", lambda: None)
    assert findings()["system calls"].state == "ok"
    monkeypatch.setattr(pump, "ring_refusal", lambda: PermissionError(1, "Operation not permitted"))
    finding = findings()["system calls"]
    assert finding.state == "remark"
    assert "Operation not permitted" in finding.says
    assert "io_uring_setup" in finding.mend


def test_its_figures_are_those_of_the_package() -> None:
    assert EngineConfig().pool_bytes == doctor._POOL_BYTES
    assert EngineConfig().spare_descriptors == doctor._SPARE_DESCRIPTORS
    assert ServeConfig().backlog == doctor._BACKLOG
    assert DESCRIPTORS_A_CALL == doctor._DESCRIPTORS_PER_CALL


@pytest.mark.parametrize("calls", ["0", "-5", "many", "1.5"])
def test_a_number_of_calls_that_cannot_be(calls: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--calls", calls]) == 2
    assert "--calls" in capsys.readouterr().err


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loopback(*_: Any) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(doctor.socket, "socket", no_loopback)
    assert findings()["loopback"].state == "wrong"


def test_the_report_header_names_the_build() -> None:
    assert "SIMD" in doctor.native_summary()
