"""Every benchmark that needs no second core still runs, and its result holds what README.md says.

Figures are not looked at: a benchmark is not a test. The answers are, by the benchmarks themselves: a row whose ways
disagree raises before anything is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "a_peer"),
    [
        ("base64", "base64"),
        ("g711", "talkpath, base"),
        ("resample", "talkpath, base"),
        ("message", "json + base64"),
        ("path", "struct + json + base64"),
        ("tick", "talkpath, base"),
    ],
)
def test_short_run_reports_every_row_with_samples_and_ratios(what: str, a_peer: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", what, "--short", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["short"] is True
    assert result["machine"]["python"]
    rows = result[what]
    assert rows
    peers: list[str] = []
    for row in rows:
        assert len(row["ours"]["samples_ns"]) == row["ours"]["ns"]["n"] > 0
        for peer in row["peers"]:
            peers.append(peer["name"])
            assert peer["ratio"]["min"] <= peer["ratio"]["median"] <= peer["ratio"]["max"]
            assert peer["ratio"]["min"] > 0
    assert any(name.startswith(a_peer) for name in peers)
    assert all(row["name"] in done.stdout for row in rows)


@pytest.mark.slow
def test_short_run_of_the_wires_sets_each_beside_plivos(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "wires", "--short", "--json", str(path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    rows = {row["name"]: row for row in json.loads(path.read_text())["wires"]["wires"]}
    assert rows["plivo"]["ratio_to_plivo"] == {"median": 1, "min": 1, "max": 1, "n": 2}
    assert {"twilio", "signalwire", "native"} < set(rows)
    assert all(row["us_per_call_frame"]["min"] > 0 for row in rows.values())


@pytest.mark.slow
def test_short_run_of_voice_activity_sets_its_cost_beside_a_peers(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "voice", "--short", "--json", str(path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    result = json.loads(path.read_text())["voice"]
    assert [row["ours"]["name"] for row in result["speed"]] in (["talkpath, fused"], ["talkpath, fused"] * 2)
    for row in result["quality"]:
        assert 0 <= row["hit_percent"] <= 100
        assert 0 <= row["false_percent"] <= 100


@pytest.mark.slow
def test_short_run_of_the_tones_tries_every_limit_and_times_every_content(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "tone", "--short", "--json", str(path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True)
    result = json.loads(path.read_text())["tone"]
    assert len(result["limits"]) > 20
    assert all(limit["right %"]["talkpath"] == 100 for limit in result["limits"])
    assert result["noise"]["missed"]["talkpath"] == result["talk_off"]["hits"]["talkpath"] == 0
    assert [row["ours"]["ns"]["min"] > 0 for row in result["speed"]] == [True] * 4
