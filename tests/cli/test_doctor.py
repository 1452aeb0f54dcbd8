"""The doctor names what is there, what is wrong and how to mend it, and answers scripts in JSON."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from talkpath.cli import doctor, main


def findings() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_here_everything_it_needs_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "talkpath can work here" in said
    for name in ("python", "native core", "simd", "drivers", "timerfd", "descriptors"):
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
    assert "48 calls" in finding.says
    assert "ulimit -n 4096" in finding.mend


def test_a_look_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loopback(*_: Any) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(doctor.socket, "socket", no_loopback)
    assert findings()["loopback"].state == "wrong"


def test_the_report_header_names_the_build() -> None:
    assert "SIMD" in doctor.native_summary()
