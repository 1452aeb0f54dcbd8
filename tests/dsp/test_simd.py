"""Choosing the instruction set, by call and by environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from talkpath.dsp.simd import SIMD_LEVELS, available_simd_levels, select_simd_level, simd_level
from talkpath.errors import ConfigError


def level_of_a_process(value: str | None) -> subprocess.CompletedProcess[str]:
    environment = {key: item for key, item in os.environ.items() if key != "TALKPATH_SIMD"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if value is not None:
        environment["TALKPATH_SIMD"] = value
    command = [sys.executable, "-c", "import sys, talkpath.dsp as d; print(d.simd_level(), 'trio' in sys.modules)"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_best_level_is_chosen_and_base_is_always_there() -> None:
    levels = available_simd_levels()
    assert levels[0] == "base"
    assert select_simd_level() == levels[-1]
    for name in levels:
        assert select_simd_level(name) == name
        assert simd_level() == name


def test_import_chooses_and_the_environment_overrides_without_trio() -> None:
    assert level_of_a_process(None).stdout.split() == [available_simd_levels()[-1], "False"]
    for name in available_simd_levels():
        assert level_of_a_process(name).stdout.split() == [name, "False"]


def test_an_unknown_level_is_refused_by_name_and_changes_nothing() -> None:
    before = simd_level()
    for name in ("sse9", "", *SIMD_LEVELS[len(available_simd_levels()) :]):
        with pytest.raises(ConfigError, match="this machine has: base"):
            select_simd_level(name)
    assert simd_level() == before
    result = level_of_a_process("sse9")
    assert result.returncode != 0
    assert "ConfigError" in result.stderr
