"""How loaded the run is: the processor time of the thread that moves media, how late its ticks were, and why.

Theory of operation. The clock tells `Load` after each step; four times a second, and whenever somebody asks after a
quiet time, it takes a look: the thread's processor time, the histogram of lateness, how many calls and lines live.

* *Busy share*: processor time over wall time, over the last two seconds. Of the whole thread, not of the ticks alone:
  a bot's own Python keeps ticks waiting just as well. Where media moves on a thread of its own (`media_cpu_ns`) the
  busier of the two counts, for each can fill one processor. Time that a host takes away is not in it; it shows in the
  lateness.
* *Expected share*: calls that came within those two seconds are not yet in the measure, and a thousand may come in one
  of them. So the share is scaled by how many live now over how many lived on average, once there are enough to tell.
  Under steady coming and going that factor is one.
* *Lateness*: the 99th percentile of each of the last five seconds, and of these the middle one. Two late ticks in a
  hundred make a bad second; a hiccup of the host spoils one or two seconds and is no overload, while overload spoils
  all of them. Where calls tick, it is the lateness of their ticks, sending included; where only lines live, that of the
  steps that move them.
* *Stalls*: ticks more than 20 ms late are told to whoever asked (`on_stall`), with what can be said about the cause:
  how busy the thread was from the end of the step before, and what the garbage collector took.

In virtual time a step takes no time and a share of a processor means nothing: nothing is measured, everything is 0.
A look costs some 50 µs, a step 2 to 4.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from talkpath.records import LoadStatistics
from talkpath.transport.clock import Lateness, bucket_edge_ms
from talkpath.transport.collector import COLLECTOR, Collector, Policy
from talkpath.transport.process import Descriptors, resident_bytes
from talkpath.units import NS_PER_MS

if TYPE_CHECKING:
    from talkpath.transport.clock import Clock, Stay

LOOK_NS = 250 * NS_PER_MS
BUSY_WINDOW_NS = 2000 * NS_PER_MS
BUSY_LEAST_NS = 1000 * NS_PER_MS
"""A shorter measure says nothing: setting up the first call takes all of it."""
SILENCE_NS = 10_000 * NS_PER_MS
SECOND_NS = 1000 * NS_PER_MS
SECONDS_KEPT = 5
TICKS_LEAST = 20
"""A second with fewer says nothing about the hundredth of them."""
MEMBERS_TELLING = 20
"""So many calls and lines must live before their mean cost is believed."""
LATE_BUCKET = 200
"""Of the histogram, from 20 ms on: a tick that is later leaves the far jitter buffer to bridge it."""
LATE_NS = 20 * NS_PER_MS
SKIPPED_BUCKET = 208
"""From 60 ms on: such a tick is not made up, `tp_path` skips what it missed."""


class Mover(Protocol):
    """What `Load` asks of a driver."""

    @property
    def lateness(self) -> Lateness:
        """Of the ticks of calls, from due to sent."""
        ...

    def members(self) -> int:
        """Return how many calls and lines live."""
        ...


class Stall(NamedTuple):
    """Ticks came late, more than 20 ms: the engine itself was the cause of a gap."""

    longest_ms: float
    """To the next 5 ms up to 295 ms."""
    late_ticks: int
    skipped_ticks: int
    """Of these, so late that audio was skipped."""
    members: int
    busy_share: float
    """From the end of the step before to the end of the latest one; where media has its own thread, since the look
    before.
    """
    collector_ms: float
    """What the garbage collector took of that."""

    def likely_cause(self) -> str:
        """Return the best guess, in words."""
        if self.collector_ms >= 0.5 * self.longest_ms:
            return f"garbage collection ({self.collector_ms:.0f} ms)"
        if self.busy_share >= 0.85:
            return "Python code that held the thread, or more calls than it can move"
        return "the thread waited: for the processor, a lock or a blocking call"


class StallLog:
    """Warns of stalls, one line in ten seconds at most, which then says how many it stands for."""

    def __init__(self, log: logging.Logger, now_ns: Callable[[], int]) -> None:
        self._log = log
        self._now_ns = now_ns
        self._silent_until_ns = 0
        self._unsaid = 0

    def tell(self, stall: Stall) -> None:
        """Warn, unless a warning has just been written."""
        now_ns = self._now_ns()
        if now_ns < self._silent_until_ns:
            self._unsaid += 1
            return
        self._silent_until_ns = now_ns + SILENCE_NS
        self._log.warning(
            "%d ticks came up to %.0f ms late%s, with %d calls and lines live and the thread %.0f %% busy; "
            "likely cause: %s%s",
            stall.late_ticks,
            stall.longest_ms,
            f", {stall.skipped_ticks} of them beyond the 60 ms that are made up" if stall.skipped_ticks else "",
            stall.members,
            stall.busy_share * 100,
            stall.likely_cause(),
            f"; {self._unsaid} more stalls since the last warning" if self._unsaid else "",
        )
        self._unsaid = 0


class _Look(NamedTuple):
    at_ns: int
    cpu_ns: int
    media_ns: int
    members: int


class Load:
    """The load of one run; see the module.

    Args:
        clock: the run's; only its `virtual` and `now_ns` are used.
        mover: its driver.
        cpu_ns: processor time of the present thread.
        collector: the process's, whose pauses are part of the story.
    """

    def __init__(
        self,
        clock: Clock,
        mover: Mover,
        *,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
        collector: Collector = COLLECTOR,
    ) -> None:
        self.virtual = clock.virtual
        self.media_cpu_ns: Callable[[], int] | None = None
        """Processor time of the thread that moves media, where that is another one; set by its driver."""
        self.steps = Lateness()
        """Of the clock's own steps, from due to done."""
        self.on_stall: list[Callable[[Stall], None]] = []
        self._clock = clock
        self._mover = mover
        self._cpu_ns = cpu_ns
        self._collector = collector
        self._looks: deque[_Look] = deque()
        self.due_ns = 0
        """When the next look is due."""
        self._stalls_before = (self.histogram(), self.histogram().copy_counts())
        self._pause_ns = collector.pause_ns
        self._step_before = (clock.now_ns(), cpu_ns(), collector.pause_ns)
        self._latest: tuple[int, float, int] | None = None
        """Of the latest step since the look before: how late, and what came between it and the step before."""
        self._second = 0
        self._second_before = (mover.lateness.copy_counts(), self.steps.copy_counts())
        self._seconds: deque[float] = deque(maxlen=SECONDS_KEPT)

    def stepped(self, due_ns: int | None, now_ns: int) -> None:
        """Count a step of the clock, and look around when it is time."""
        cpu_ns = self._cpu_ns()
        if due_ns is not None and due_ns <= now_ns:
            self._count(now_ns - due_ns, now_ns, cpu_ns)
        self._step_before = (now_ns, cpu_ns, self._collector.pause_ns)
        if now_ns >= self.due_ns:
            self.look(now_ns)

    def stayed(self, stay: Stay) -> None:
        """Count steps that were taken without Python; the next one with it looks around."""
        *earlier, last_ns = stay.late_ns
        cpu_ns = self._cpu_ns()
        if earlier:
            for late_ns in earlier:  # none of them more than `LATE_NS`
                self.steps.add(late_ns)
            self._step_before = (stay.before_ns, stay.cpu_before_ns, self._collector.pause_ns)
        self._count(last_ns, stay.done_ns, cpu_ns)
        self._step_before = (stay.done_ns, cpu_ns, self._collector.pause_ns)

    def _count(self, late_ns: int, now_ns: int, cpu_ns: int) -> None:
        self.steps.add(late_ns)
        if late_ns > LATE_NS and (self._latest is None or late_ns > self._latest[0]):
            at_ns, cpu_before_ns, pause_before_ns = self._step_before
            share = (cpu_ns - cpu_before_ns) / max(now_ns - at_ns, 1)
            self._latest = (late_ns, share, self._collector.pause_ns - pause_before_ns)

    def look(self, now_ns: int) -> None:
        """Take a look; in the thread that is measured."""
        if self.virtual:
            return
        self.due_ns = now_ns // LOOK_NS * LOOK_NS + LOOK_NS
        members = self._mover.members()
        looks = self._looks
        media_ns = self.media_cpu_ns() if self.media_cpu_ns is not None else 0
        looks.append(_Look(now_ns, self._cpu_ns(), media_ns, members))
        while len(looks) > 2 and now_ns - looks[1].at_ns >= BUSY_WINDOW_NS:
            looks.popleft()
        self._look_for_stalls(members)
        if now_ns // SECOND_NS > self._second:
            self._close_second(now_ns)
        self._collector.look(quiet=self._is_quiet())

    def _look_if_stale(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns >= self.due_ns:
            self.look(now_ns)

    def _is_quiet(self) -> bool:
        """Whether the number of calls and lines has hardly changed for two seconds."""
        lives = [look.members for look in self._looks]
        return self._looks_back_ns() >= BUSY_WINDOW_NS and max(lives) - min(lives) <= max(2, lives[-1] // 20)

    @contextmanager
    def attended(self, log: logging.Logger, policy: Policy) -> Iterator[None]:
        """Hold the garbage collector and warn of stalls, as an engine or server does while it is open."""
        if self.virtual:
            yield
            return
        warnings, holder = StallLog(log, self._clock.now_ns), object()
        self.on_stall.append(warnings.tell)
        self._collector.hold(holder, policy)
        try:
            yield
        finally:
            self._collector.release(holder)
            self.on_stall.remove(warnings.tell)

    def statistics(self) -> LoadStatistics:
        """Return how the run and its process stand. In virtual time only the histogram, which is all zeros there."""
        lateness, collector, descriptors = self.histogram(), self._collector, Descriptors()
        ticks = tuple(lateness.counts)
        if self.virtual:
            return LoadStatistics(lateness_counts=ticks)
        return LoadStatistics(
            busy_share=self.busy_share(),
            recent_lateness_p99_ms=self.lateness_p99_ms(),
            lateness_counts=ticks,
            lateness_sum_ms=lateness.sum_ns / NS_PER_MS,
            loop_stalls=sum(ticks[SKIPPED_BUCKET:]),
            gc_pauses=collector.pauses,
            gc_pause_ms=collector.pause_ns / NS_PER_MS,
            gc_pause_max_ms=collector.pause_max_ns / NS_PER_MS,
            gc_freezes=collector.freezes,
            gc_thaws=collector.thaws,
            descriptors=descriptors.in_use(),
            descriptors_max=descriptors.limit() or 0,
            resident_bytes=resident_bytes(),
        )

    # The share ---------------------------------------------------------------------------------------------------

    def busy_share(self) -> float:
        """Return the processor time of the busiest thread that moves media, over the last two seconds; 1 is a whole
        processor.
        """
        self._look_if_stale()
        return self._share(0) if self._looks_back_ns() >= BUSY_LEAST_NS else 0.0

    def expected_share(self) -> float:
        """Return the busy share with calls and lines that have just come counted at the mean cost of the others."""
        share = self.busy_share()
        looks = self._looks
        if len(looks) < 2:
            return share
        mean = sum(look.members for look in looks) / len(looks)
        now = self._mover.members()
        return share * now / mean if mean >= MEMBERS_TELLING and now > mean else share

    def _looks_back_ns(self) -> int:
        return self._looks[-1].at_ns - self._looks[0].at_ns if self._looks else 0

    def _share(self, since: int) -> float:
        """The busy share between the look with index `since` and the last one."""
        if len(self._looks) < 2:
            return 0.0
        first, last = self._looks[since], self._looks[-1]
        wall_ns = max(last.at_ns - first.at_ns, 1)
        return max(last.cpu_ns - first.cpu_ns, last.media_ns - first.media_ns) / wall_ns

    # Lateness ----------------------------------------------------------------------------------------------------

    def histogram(self) -> Lateness:
        """Return the lateness of calls' ticks, or of steps where no call has ticked yet."""
        lateness = self._mover.lateness
        return lateness if lateness.total or self.media_cpu_ns is not None else self.steps

    def lateness_p99_ms(self) -> float:
        """Return the 99th percentile of each of the last five seconds, the middle one."""
        self._look_if_stale()
        return sorted(self._seconds)[len(self._seconds) // 2] if len(self._seconds) == SECONDS_KEPT else 0.0

    def _close_second(self, now_ns: int) -> None:
        ticks, steps = self._mover.lateness, self.steps
        before = self._second_before
        self._second_before = (ticks.copy_counts(), steps.copy_counts())
        passed = now_ns // SECOND_NS - self._second
        self._second += passed
        p99_ms = 0.0
        if sum(ticks.counts) - sum(before[0]) >= TICKS_LEAST:
            p99_ms = ticks.percentile_ms(0.99, before[0])
        elif self.media_cpu_ns is None and sum(steps.counts) - sum(before[1]) >= TICKS_LEAST:
            p99_ms = steps.percentile_ms(0.99, before[1])
        # Where nothing was due, nothing was late.
        self._seconds.extend([0.0] * min(passed - 1, SECONDS_KEPT))
        self._seconds.append(p99_ms)

    # Stalls ------------------------------------------------------------------------------------------------------

    def _look_for_stalls(self, members: int) -> None:
        """Tell of ticks that came more than 20 ms late since the look before."""
        which = self.histogram()
        before, self._stalls_before = self._stalls_before, (which, which.copy_counts())
        pause_ns, self._pause_ns = self._collector.pause_ns - self._pause_ns, self._collector.pause_ns
        share = self._share(-2)
        if self._latest is not None:
            _, share, pause_ns = self._latest
            self._latest = None
        if before[0] is not which:  # the first call has ticked: another histogram
            return
        late = {
            bucket: count - before[1][bucket]
            for bucket, count in enumerate(which.counts[LATE_BUCKET:], LATE_BUCKET)
            if count > before[1][bucket]
        }
        if late:
            stall = Stall(
                longest_ms=min(bucket_edge_ms(max(late)), which.max_ns / NS_PER_MS),
                late_ticks=sum(late.values()),
                skipped_ticks=sum(count for bucket, count in late.items() if bucket >= SKIPPED_BUCKET),
                members=members,
                busy_share=share,
                collector_ms=pause_ns / NS_PER_MS,
            )
            for tell in self.on_stall:
                tell(stall)
