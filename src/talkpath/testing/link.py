"""A bad network path, sans-IO and repeatable: latency, jitter, loss, duplication, reordering.

Rules of this file: time is the caller's, in integer nanoseconds; the same seed and the same packets give the same
fate, and every packet takes the same number of random draws, so that turning one knob does not change who is lost by
another.

What the knobs mean. A packet's delay is `latency_ms` plus a uniform draw from 0 to `jitter_ms`, and a packet never
overtakes another because of jitter: a real path queues, it does not shuffle. Overtaking is `reorder`'s own: a packet it
strikes arrives right after its successor (or 100 ms late when none comes). `loss` strikes packets independently;
`GilbertElliott` strikes them in bursts, as radio does.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from talkpath.errors import ConfigError
from talkpath.units import NS_PER_MS

_HELD_NS = 100 * NS_PER_MS
_MAX_IN_FLIGHT = 65_536


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a path that is good or bad, and changes its mind between packets."""

    to_bad: float
    """Probability, per packet, that a good path turns bad."""
    to_good: float
    """Probability, per packet, that a bad path turns good; the mean burst is 1 / to_good packets."""
    loss_when_bad: float = 1.0
    loss_when_good: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What the link has done so far, in packets."""

    sent: int = 0
    """Handed in by the sender."""
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    overflowed: int = 0
    """Dropped because 65,536 were in flight and nobody received."""


class LinkEmulator:
    """One direction of an impaired network path."""

    def __init__(
        self,
        seed: int = 0,
        *,
        latency_ms: float = 0,
        jitter_ms: float = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        gilbert_elliott: GilbertElliott | None = None,
    ) -> None:
        """Describe the path.

        Args:
            seed: The same seed gives the same path.
            latency_ms: Delay of every packet.
            jitter_ms: Further delay, uniform from 0 to this, order kept.
            loss: Probability that a packet is lost, independently of others.
            duplicate: Probability that a packet arrives twice, each copy with its own jitter.
            reorder: Probability that a packet is overtaken by its successor.
            gilbert_elliott: Loss in bursts, in the place of `loss`.

        Raises:
            ConfigError: a value that cannot be meant.
        """
        for name, value in (("latency_ms", latency_ms), ("jitter_ms", jitter_ms)):
            if not 0 <= value <= 60_000:
                raise ConfigError(f"{name}={value}: expected 0 to 60,000 milliseconds")
        chances = [("loss", loss), ("duplicate", duplicate), ("reorder", reorder)]
        if gilbert_elliott is not None:
            if loss:
                raise ConfigError("loss and gilbert_elliott are two descriptions of the same thing; give one")
            model = gilbert_elliott
            chances += [("to_bad", model.to_bad), ("to_good", model.to_good)]
            chances += [("loss_when_bad", model.loss_when_bad), ("loss_when_good", model.loss_when_good)]
        for name, value in chances:
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}={value}: expected a probability from 0 to 1 (3 % is 0.03)")
        self._random = random.Random(seed)
        self._latency_ns = round(latency_ms * NS_PER_MS)
        self._jitter_ns = round(jitter_ms * NS_PER_MS)
        self._loss, self._duplicate, self._reorder = loss, duplicate, reorder
        self._model, self._bad = gilbert_elliott, False
        self._in_flight: list[tuple[int, int, bytes]] = []
        self._n_queued = 0
        self._newest_arrival_ns = 0
        self._held: tuple[int, bytes] | None = None
        self._sent = self._delivered = self._lost = self._duplicated = self._reordered = self._overflowed = 0

    def send(self, datagram: bytes, now_ns: int) -> None:
        """Put a datagram on the path at `now_ns`; `receive` gives it, perhaps."""
        self._sent += 1
        draw = self._random.random
        loss, duplicate, reorder, jitter, again = draw(), draw(), draw(), draw(), draw()
        held, self._held = self._held, None
        if loss < self._loss_now(draw()):
            self._lost += 1
            if held is not None:
                self._queue(held[0], held[1])
            return
        arrival = self._after_queue(now_ns + self._latency_ns + round(jitter * self._jitter_ns))
        if reorder < self._reorder and held is None:
            self._held = (arrival, datagram)
        else:
            self._queue(arrival, datagram)
        if held is not None:
            self._reordered += 1
            self._queue(max(held[0], arrival), held[1])
        if duplicate < self._duplicate:
            self._duplicated += 1
            self._queue(self._after_queue(now_ns + self._latency_ns + round(again * self._jitter_ns)), datagram)

    def receive(self, now_ns: int) -> list[bytes]:
        """Return what has arrived by `now_ns`, in order of arrival."""
        if self._held is not None and self._held[0] + _HELD_NS <= now_ns:
            self._queue(self._held[0] + _HELD_NS, self._held[1])
            self._held = None
        arrived = []
        while self._in_flight and self._in_flight[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._in_flight)[2])
        self._delivered += len(arrived)
        return arrived

    def next_deadline(self) -> int | None:
        """Return when `receive` will next have something; None when nothing is on its way."""
        due = [self._in_flight[0][0]] if self._in_flight else []
        if self._held is not None:
            due.append(self._held[0] + _HELD_NS)
        return min(due, default=None)

    def statistics(self) -> LinkStatistics:
        """Return the counts so far."""
        return LinkStatistics(
            self._sent, self._delivered, self._lost, self._duplicated, self._reordered, self._overflowed
        )

    def _loss_now(self, turn: float) -> float:
        if self._model is None:
            return self._loss
        if turn < (self._model.to_good if self._bad else self._model.to_bad):
            self._bad = not self._bad
        return self._model.loss_when_bad if self._bad else self._model.loss_when_good

    def _after_queue(self, arrival_ns: int) -> int:
        self._newest_arrival_ns = max(self._newest_arrival_ns, arrival_ns)
        return self._newest_arrival_ns

    def _queue(self, arrival_ns: int, datagram: bytes) -> None:
        if len(self._in_flight) >= _MAX_IN_FLIGHT:
            self._overflowed += 1
            return
        self._n_queued += 1
        heapq.heappush(self._in_flight, (arrival_ns, self._n_queued, datagram))
