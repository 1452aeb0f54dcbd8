"""Runs of whole calls through the harness, cut to a second: they work, say what README.md says they do, and are judged.

Figures are not looked at. What is made of samples (ratios, goals, the knee, README's table) is checked on samples made
up for it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench_calls, bench_density, bench_knee, table
from benchmarks.harness import DESIGNS, PUMP, Design
from benchmarks.report import Goal, judge_goal, spread
from talkpath.cli import main

ROOT = Path(__file__).resolve().parents[2]


def sample(design: str, round_: int, us: float, p999: float = 1.0, faults: tuple[str, ...] = ()) -> dict[str, Any]:
    late = {"p50": 0.1, "p99": 0.5, "p999": p999, "max": 2 * p999}
    return {
        "design": design,
        "round": round_,
        "calls": 100,
        "load": 0.6,
        "us_per_call_frame": us,
        "calls_per_core": 14000 / us,
        "lateness_ms": late,
        "faults": list(faults),
        "generator": {"generator": {"load": 0.4}},
    }


def test_goals_compare_two_designs_within_each_round() -> None:
    costs = {"naive": (240.0, 200.0), "talkpath pump": (12.0, 16.0), "talkpath pump 60 ms": (9.0, 10.0)}
    samples = [sample(name, at, costs[name][at]) for at in (0, 1) for name in costs]
    samples += [sample("idle timer", at, 1.0, p999=0.4) for at in (0, 1)]
    goals = {goal["name"]: goal for goal in bench_calls.summarise(samples, [])["goals"]}
    over_naive = goals["calls per core, pump over naive"]
    assert over_naive["measured"] == {"median": 16.25, "min": 12.5, "max": 20.0, "n": 2}
    assert over_naive["met"] is True
    assert goals["calls per core, messages of 60 ms over 20 ms"]["measured"]["max"] == pytest.approx(1.6)
    assert "media_thread" not in bench_calls.summarise(samples, [])
    above = goals["lateness p99.9, pump above the idle timer"]
    assert above["measured"]["median"] == pytest.approx(0.6)
    # What was not measured has no goal.
    assert "CPU of a call, wss over ws" not in goals


def test_a_goal_is_met_from_its_own_side() -> None:
    floor, ceiling = Goal("", "x", 1.5, at_least=True), Goal("", "ms", 3.0, at_least=False)
    assert [judge_goal(floor, spread([value]))["met"] for value in (1.4, 1.5, 1.6)] == [False, True, True]
    assert [judge_goal(ceiling, spread([value]))["met"] for value in (2.9, 3.0, 3.1)] == [True, True, False]


def test_a_step_is_unclean_for_lateness_or_loss_but_not_for_others_work() -> None:
    idle = sample("idle timer", 0, 1.0)
    clean = sample("talkpath tasks", 0, 30.0, faults=("others used 40% of the core",))
    assert bench_knee.why_unclean(clean, idle) == ""
    assert bench_knee.disturbed(clean)
    late = sample("talkpath tasks", 0, 30.0)
    late["lateness_ms"]["p99"] = 0.5 + bench_knee.LATE_MS + 0.1
    assert "lateness p99" in bench_knee.why_unclean(late, idle)
    lost = sample("talkpath tasks", 0, 30.0, faults=("RTP packets: 90.0% of what should have been",))
    assert "RTP packets" in bench_knee.why_unclean(lost, idle)


def test_the_ramp_ends_at_an_unclean_step_or_at_two_while_others_disturb() -> None:
    clean = {"unclean": "", "faults": []}
    unclean = {"unclean": "lateness", "faults": []}
    blurred = {"unclean": "lateness", "faults": ["others used 40% of the core"]}
    ends = [bench_knee.is_over(steps) for steps in ([clean], [clean, unclean], [clean, blurred], [blurred, blurred])]
    assert ends == [False, True, False, True]
    assert not bench_knee.is_over([blurred, clean])


def test_designs_pass_their_options_to_the_server_and_the_generator() -> None:
    def seen(name: str) -> tuple[tuple[str, ...], int, bool]:
        design: Design = DESIGNS[name]
        return design.arguments, design.message_ms, design.tls

    assert seen("talkpath pump") == (("--driver", "pump"), 20, False)
    assert seen("talkpath pump 60 ms") == (("--driver", "pump", "--message-ms", "60"), 60, False)
    assert seen("talkpath pump wss") == (("--driver", "pump"), 20, True)
    assert seen("talkpath thread lumps") == (("--driver", "pump", "--media-thread", "--lumps"), 20, False)
    assert seen("talkpath tasks") == (("--driver", "tasks"), 20, False)


class Measured:
    """A bench on which a call on one worker costs 14 us a frame, and on two what it is told."""

    def __init__(self, cores: int, us_on_two: float) -> None:
        self.system_cpus = tuple(range(cores))
        self.us = {"1": 14.0, "2": us_on_two}
        self.carried: list[tuple[str, int, int]] = []

    def wait_quiet(self, patience_s: float) -> None:
        pass

    def measure(self, design: Design, calls: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
        assert design.module == "benchmarks.workers_server"
        workers = design.arguments[design.arguments.index("--workers") + 1]
        self.carried.append((workers, calls, design.cores))
        return sample(design.name, 0, self.us[workers]) | {"calls": calls}


@pytest.mark.parametrize(("us", "ratio", "met"), [(15.0, 15 / 14, True), (16.0, 16 / 14, False)])
def test_two_workers_on_one_core_are_judged_by_what_a_call_costs(us: float, ratio: float, met: bool) -> None:
    bench = Measured(1, us)
    plan = bench_density.DensityPlan(rounds=2)
    part = bench_density.measure_workers(bench, PUMP, plan)  # type: ignore[arg-type]
    calls = 928  # 65 % of a core that 1,000 calls fill to 70 %
    assert bench.carried[1:] == [("1", calls, 1), ("2", calls, 1), ("2", calls, 1), ("1", calls, 1)]
    (goal,) = part["goals"]
    assert goal["measured"]["median"] == pytest.approx(ratio)
    assert (goal["sense"], goal["target"], goal["met"]) == ("<=", 1.1, met)


@pytest.mark.parametrize(("us", "met"), [(14.7, True), (14.8, False)])
def test_two_workers_with_a_core_each_are_judged_by_how_many_calls_they_carry(us: float, met: bool) -> None:
    bench = Measured(2, us)
    part = bench_density.measure_workers(bench, PUMP, bench_density.DensityPlan(rounds=1))  # type: ignore[arg-type]
    assert bench.carried[1:] == [("1", 464, 2), ("2", 928, 2)]
    (goal,) = part["goals"]
    assert goal["measured"]["median"] == pytest.approx(2 * 14 / us)
    assert (goal["sense"], goal["target"], goal["met"]) == (">=", 1.9, met)


def test_readme_holds_the_figures_of_the_newest_result() -> None:
    readme = (ROOT / "README.md").read_text()
    figures = table.render(json.loads(table.newest_result().read_text()))
    assert table.insert(readme, figures) == readme, "run `python -m benchmarks table`"
    assert "two-way calls per core" in figures


def test_the_newest_result_is_the_highest_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for version in ("0.9.0", "0.10.0", "0.2.1"):
        (results / f"{version}.json").write_text("{}")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    assert table.newest_result().stem == "0.10.0"


def test_the_table_shows_goals_of_every_section_and_marks_what_was_missed() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "0.1.0.json").read_text())
    met = judge_goal(Goal("calls per core, pump over naive", "x", 12, at_least=True), spread([13.0, 14.0, 15.0]))
    missed = judge_goal(Goal("cancel and join", "ms", 0.25, at_least=False), spread([0.5]))
    result["calls"]["summary"]["goals"] = [met]
    result["calls"]["summary"]["media_thread"] = {"SCHED_FIFO": 1, "SCHED_OTHER": 2}
    result["density"] = {"parts": {"cancel": {"goals": [missed]}}}
    figures = table.render(result)
    assert "The media thread's process: 1 × SCHED_FIFO, 2 × SCHED_OTHER." in figures
    assert "| calls per core, pump over naive | 14 × | 13 to 15 | ≥ 12 × |" in figures
    assert "| cancel and join | 0.5 ms (missed) | 0.5 to 0.5 | ≤ 0.25 ms |" in figures


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        table.insert("no figures here", "table")


def test_bench_calls_is_the_knee_finder_and_its_status_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def note(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 1 if "knee" in command else 0)

    monkeypatch.setattr(subprocess, "run", note)
    assert main(["bench", "calls", "--json", "-", "--short"]) == 1
    assert main(["bench"]) == 0
    assert main(["bench", "--", "calls"]) == 0
    assert commands == [["knee", "--json", "-", "--short"], [], ["calls"]]


def run_short(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    path = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--short", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the load generator needs Linux")
def test_calls_come_and_go_and_are_cancelled_without_anything_left(tmp_path: Path) -> None:
    done, result = run_short(tmp_path, "density", "--parts", "churn,cancel", "--design", "talkpath tasks")
    assert done.returncode == 0, done.stderr
    parts = result["density"]["parts"]
    assert parts["churn"]["left"] == []
    assert sum(each["under_test"]["set_up"] for each in parts["churn"]["passes"]) == 100
    (cancelled,) = parts["cancel"]["rounds"]
    assert (cancelled["calls"], cancelled["left"]) == (100, [])
    assert re.search(r"left after 100 calls +0 +0\.\.0 +<= 0 +yes", done.stdout)


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the load generator needs Linux")
def test_streams_stall_and_flap_and_nothing_is_left(tmp_path: Path) -> None:
    done, result = run_short(tmp_path, "density", "--parts", "streams")
    assert done.returncode == 0, done.stderr
    streams = result["density"]["parts"]["streams"]
    assert streams["calls"] == 10
    for driver in ("pump", "tasks"):
        (only,) = streams["drivers"][driver]
        assert only["left"] == []
        assert only["design"]["ended"] == {"cancelled": 10}
        assert only["asked"]["reads"] == 10
        assert only["asked"]["flaps"] > 10, "those that were lost came back"
        assert only["sample"]["generator"]["rtp"]["received"] > 0


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the load generator needs Linux")
def test_the_knee_finder_ramps_overloads_holds_and_leaves_nothing(tmp_path: Path) -> None:
    done, result = run_short(tmp_path, "knee", "--design", "talkpath tasks")
    knee = result["knee"]
    found = knee["summary"]
    # How clean it was depends on who else uses this machine; that it says so does not.
    assert done.returncode == (0 if found["trustworthy"] else 1), done.stderr
    assert found["left_over"] == []
    assert knee["steps"][0]["calls"] < knee["overload"]["calls"]
    assert found["calls_at_hold"] == knee["hold"]["calls"] < knee["overload"]["calls"]
    assert found["calls_per_core"] == pytest.approx(0.7 * found["calls_at_hold"] / found["load_at_hold"])
    for says in (
        "calls per core at 70 %",
        "load generator:",
        "overload:",
        "left over when all calls were closed: nothing",
    ):
        assert says in done.stdout


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the load generator needs Linux")
def test_a_design_that_cannot_run_here_is_said_in_words(tmp_path: Path) -> None:
    done, result = run_short(tmp_path, "calls", "--designs", "naive,no such design")
    assert (done.returncode, result) == (1, {})
    assert "no design no such design" in done.stderr
    assert "Traceback" not in done.stderr
