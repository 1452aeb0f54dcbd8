"""Where a call goes, and what each worker has to itself: ports and a core. Pure functions.

*Load.* Two figures say how loaded a worker is: its live calls, which the front knows to the moment, and the share of
a core that it was busy in its last report, which is honest (a call with four streams is not a call with one) and up to
half a second old. So the busy share is brought up to date by what the same worker's calls have cost on average, cut
into bands of a tenth of a core so that noise decides nothing, and within a band the worker with the fewest calls is
first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from talkpath.errors import ConfigError

BAND = 0.1
"""Of a core: busy shares that differ by less are alike."""
UNKNOWN_CALL = 0.002
"""What a call costs, as a share of a core, until a worker's own calls have said so."""
_COST_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the front knows of one worker."""

    calls: int
    """Live now, those being set up included."""
    busy: float = 0.0
    """Of one core, in the last report."""
    reported_calls: int = 0
    """Live when that report was made."""

    def expected_busy(self) -> float:
        """Return the busy share that the calls of this moment will come to."""
        each = min(self.busy / self.reported_calls, _COST_MAX) if self.reported_calls > 0 else UNKNOWN_CALL
        return max(0.0, self.busy + (self.calls - self.reported_calls) * each)


def by_load(loads: Sequence[Load]) -> list[int]:
    """Return the indices of `loads`, the least loaded first."""

    def key(index: int) -> tuple[int, int, float, int]:
        load = loads[index]
        busy = load.expected_busy()
        return int(busy / BAND + 1e-9), load.calls, busy, index

    return sorted(range(len(loads)), key=key)


def port_slices(port_range: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Cut a range of ports into disjoint slices, each from an even port (RTP) to an odd one (its RTCP).

    Raises:
        ConfigError: there is not one pair of ports for each.
    """
    first, last = port_range
    first += first % 2
    pairs = (last + 1 - first) // 2
    each = pairs // count
    if each < 1:
        raise ConfigError(
            f"port_range {port_range[0]}..{port_range[1]} has {max(pairs, 0)} pairs of an even and an odd port; "
            f"{count} are needed: one for each worker, and one for the worker that replaces another"
        )
    return [(first + 2 * each * at, first + 2 * each * (at + 1) - 1) for at in range(count)]


def usable_cores() -> list[int]:
    """Return the cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def backoff_s(failures: int, first_s: float, most_s: float) -> float:
    """Return how long to wait before the next worker after `failures` in a row."""
    return 0.0 if failures <= 0 else min(first_s * 2.0 ** min(failures - 1, 32), most_s)
