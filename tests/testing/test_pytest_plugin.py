"""The plugin's fixtures do what they say."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import trio
import trio.testing

SUITE = """
import socket, pytest, trio
left = []

async def test_time_is_virtual(autojump):
    assert trio.current_time() == 0
    await trio.sleep(3600)
    assert trio.current_time() == 3600

@pytest.mark.usefixtures("quiescent")
def test_nothing_left():
    socket.socket().close()

@pytest.mark.usefixtures("quiescent")
def test_something_left():
    left.append(socket.socket())
"""


async def test_time_is_virtual(autojump: trio.testing.MockClock) -> None:
    await trio.sleep(86_400)
    assert trio.current_time() == 86_400


def test_leftovers_fail_the_test_that_left_them(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    if not any(plugin.name == "talkpath" for plugin in entry_points(group="pytest11")):
        command += ["-p", "talkpath.testing.pytest_plugin"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "3 passed, 1 error" in answer.stdout, answer.stdout + answer.stderr
    assert "ERROR test_suite.py::test_something_left" in answer.stdout
