"""The committed filter tables are what their program makes, and the program notices when they are not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

TABLES = Path(__file__).resolve().parents[2] / "csrc" / "tables"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(directory / "gen_tables.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_committed_tables_are_current() -> None:
    result = run(TABLES, "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_the_committed_tone_tables_are_current(tmp_path: Path) -> None:
    def check(directory: Path) -> int:
        command = [sys.executable, str(directory / "gen_tone_tables.py"), "--check"]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    assert check(TABLES) == 0
    shutil.copy(TABLES / "gen_tone_tables.py", tmp_path)
    (tmp_path / "tp_tone_tables.h").write_text((TABLES / "tp_tone_tables.h").read_text().replace("8192", "8191"))
    assert check(tmp_path) == 1


def test_one_changed_coefficient_is_noticed_and_mended(tmp_path: Path) -> None:
    shutil.copy(TABLES / "gen_tables.py", tmp_path)
    committed = (TABLES / "tp_resample_tables.h").read_text()
    table = tmp_path / "tp_resample_tables.h"
    before, brace, coefficients = committed.partition("] = {")
    table.write_text(before + brace + re.sub(r"\d+", lambda match: str(int(match[0]) + 1), coefficients, count=1))
    assert run(tmp_path, "--check").returncode == 1
    assert run(tmp_path).returncode == 0
    assert table.read_text() == committed


def test_wrong_usage_is_told_apart() -> None:
    assert run(TABLES, "--chekc").returncode == 2
