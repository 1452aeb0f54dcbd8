"""How late ticks were: a histogram that tells nothing worse, and nothing better, than what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from support.virtual import virtual_engine
from talkpath.engine.leg import MemoryLeg
from talkpath.transport.clock import Lateness

MS = 1_000_000


@pytest.mark.parametrize("most_ms", [0.05, 3, 30, 900])
def test_percentiles_are_within_a_step_of_the_true_ones_and_the_greatest_is_exact(most_ms: float) -> None:
    lateness = Lateness()
    seen = np.random.default_rng(1).integers(0, round(most_ms * MS), 5000)
    for one in seen:
        lateness.add(int(one))
    assert lateness.percentile_ms(1.0) == seen.max() / MS
    for share in (0.5, 0.99, 0.999):
        true = float(np.quantile(seen, share, method="inverted_cdf")) / MS
        step = 0.1 if true < 20 else 5 if true < 300 else most_ms
        assert true <= lateness.percentile_ms(share) <= true + step


def test_nothing_late_is_told_as_nothing() -> None:
    lateness = Lateness()
    assert lateness.percentile_ms(0.5) == 0.0
    lateness.add(0, 100)
    assert [lateness.percentile_ms(share) for share in (0.5, 0.99, 1.0)] == [0.0, 0.0, 0.0]
    before = lateness.copy_counts()
    lateness.add(3 * MS)
    assert lateness.percentile_ms(0.5) == 0.1
    assert lateness.percentile_ms(0.5, before) == 3.0


async def test_a_call_in_virtual_time_is_never_late(autojump: object) -> None:
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()) as call:
            pass
        async with engine.open_call(MemoryLeg()) as call:
            await call.play(np.ones(800, np.int16), sample_rate_hz=8000)
            statistics = call.statistics()
        assert (statistics.lateness_p50_ms, statistics.lateness_p999_ms, statistics.lateness_max_ms) == (0, 0, 0)
        assert engine.statistics().lateness_p99_ms == 0
