"""Arrival times of a call's packets over networks of several kinds, from a seed.

A trace says of each 20 ms packet when it arrives (ns after the first was sent, on the receiver's clock) or that the
network lost it. What is modelled is what makes jitter buffers differ: how delay is spread, and how it is correlated.
The kinds' figures are ours, made after the shapes that measurements of such networks describe; none is a recording.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

PTIME_NS = 20_000_000
NS_PER_MS = 1_000_000
NEVER = -1


@dataclass(frozen=True, slots=True)
class Trace:
    """One direction of one call."""

    kind: str
    arrivals: tuple[int, ...]
    """Per packet, ns; NEVER: lost."""
    skew_ppm: float = 0.0
    """How much slower the sender's clock runs."""
    least_transit: float = 0.0
    """The shortest way any packet had, ns: no buffer can do anything about it."""

    def sent(self, index: float) -> float:
        """When packet `index` was sent, ns on the receiver's clock; the n-th sample of it a fraction later."""
        return index * PTIME_NS * (1 + self.skew_ppm * 1e-6)

    @property
    def lost(self) -> int:
        """How many packets never arrive."""
        return self.arrivals.count(NEVER)

    def by_arrival(self) -> list[tuple[int, int]]:
        """(arrival, packet), those that arrive, in that order."""
        return sorted((at, i) for i, at in enumerate(self.arrivals) if at != NEVER)


def _in_order(delays: Iterator[float], n: int, rng: random.Random, *, loss: float, ppm: float = 0.0) -> tuple[int, ...]:
    """Lay out delays (ms) on a path that keeps the order, as one queue does, and lose some packets."""
    arrivals, last = [], 0.0
    for i in range(n):
        last = max(last + 0.05, i * 20 * (1 + ppm * 1e-6) + next(delays))
        arrivals.append(NEVER if i and rng.random() < loss else round(last * NS_PER_MS))
    return tuple(arrivals)


def _steady(rng: random.Random) -> Iterator[float]:
    """A wired network: a sender's timer and a few switches."""
    while True:
        yield 20 + abs(rng.gauss(0, 0.8)) + rng.expovariate(1.0)


def _wifi(rng: random.Random) -> Iterator[float]:
    """Contention that comes and goes, and a scan of the other channels now and then."""
    busy, left, scan = False, 0, 0.0
    while True:
        if left == 0:
            busy = not busy
            left = round(rng.expovariate(1 / (4 if busy else 12)) * 50) + 25
        left -= 1
        scan = max(0.0, scan - 20)
        if rng.random() < 1 / (40 * 50):
            scan = rng.uniform(60, 140)
        yield 5 + rng.gammavariate(1.5, 12.0 if busy else 2.0) + scan


def _mobile(rng: random.Random) -> Iterator[float]:
    """A scheduler's grid, retransmissions, a queue that fills and drains over seconds, and handovers."""
    queue, handover = 20.0, 0.0
    while True:
        queue = max(0.0, queue + 0.004 * (25 - queue) + rng.gauss(0, 1.5))
        handover = max(0.0, handover - 20)
        if rng.random() < 1 / (60 * 50):
            handover = rng.uniform(80, 250)
        retransmissions = 0
        while retransmissions < 4 and rng.random() < 0.1:
            retransmissions += 1
        yield 40 + 5 * int(rng.uniform(0, 3)) + 8 * retransmissions + queue + handover


def _bursts(rng: random.Random) -> Iterator[float]:
    """Now and then, for some seconds, something on the way hands on packets in lumps of 60 to 100 ms."""
    lump, left, i = 1, 0, 0
    while True:
        if left == 0:
            lump = rng.randint(3, 5) if lump == 1 else 1
            left = round(rng.expovariate(1 / (6 if lump > 1 else 14)) * 50) + 50
        left -= 1
        yield 15 + rng.expovariate(0.7) + 20 * (lump - 1 - i % lump)
        i += 1


def _spikes(rng: random.Random) -> Iterator[float]:
    """A quiet network on which a queue jumps by 60 to 250 ms every ten seconds and drains at once."""
    spike = 0.0
    while True:
        spike = max(0.0, spike - 20)
        if rng.random() < 1 / (10 * 50):
            spike = rng.uniform(60, 250)
        yield 25 + rng.gammavariate(2, 1.5) + spike


KINDS: dict[str, tuple[Callable[[random.Random], Iterator[float]], float, float]] = {
    "steady": (_steady, 0.0, 0.0),
    "wifi": (_wifi, 0.003, 0.0),
    "mobile": (_mobile, 0.005, 0.0),
    "bursts": (_bursts, 0.002, 0.0),
    "spikes": (_spikes, 0.001, 0.0),
    "skew +200 ppm": (_steady, 0.0, 200.0),
    "skew -200 ppm": (_steady, 0.0, -200.0),
}
"""How delays come, the share that is lost, and the skew of the sender's clock, by kind."""


def make_trace(kind: str, seconds: float, seed: int = 1) -> Trace:
    """Make one trace; the same seed gives the same."""
    delays, loss, ppm = KINDS[kind]
    rng = random.Random(f"{kind} {seed}")
    trace = Trace(kind, _in_order(delays(rng), round(seconds * 50), rng, loss=loss, ppm=ppm), ppm)
    return replace(trace, least_transit=min(at - trace.sent(i) for at, i in trace.by_arrival()))
