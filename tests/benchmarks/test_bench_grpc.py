"""The gRPC benchmark works: both echoes send back what they hear, and it is put in figures."""

from __future__ import annotations

import io

import pytest

from benchmarks.bench_grpc import OURS, THEIRS, Plan, sample, show

pytest.importorskip("grpc")
pytestmark = [pytest.mark.smoke, pytest.mark.slow]


@pytest.mark.parametrize("echo", [OURS, THEIRS])
def test_an_echo_is_measured(echo: str) -> None:
    taken = sample(echo, 60, Plan(rounds=1, seconds=0.5, warm_up_s=0.3))
    counts = taken["counts"]
    assert counts["wrong"] == 0
    assert counts["received"] > 100
    assert counts["audio"] == counts["received"] * 480
    assert taken["us_per_echo"] > 0


def test_the_table_says_what_was_reached() -> None:
    one = {"median": 0.5, "min": 0.4, "max": 0.6, "n": 1}
    out = io.StringIO()
    figures = {"ratio": one, "ours_us": one, "theirs_us": one, "goal": 1.0, "faults": 0}
    show({"summary": {"20": figures}}, out)
    assert "0.50 (0.40..0.60)" in out.getvalue()
