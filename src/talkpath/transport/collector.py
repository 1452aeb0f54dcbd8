"""Python's garbage collector while calls live: what it may cost a tick, and what it may not.

Theory of operation. A full collection looks at every container there is. With 1,000 calls that was measured as 19 to
71 ms, depending on the design around them, a stall each time; after ``gc.freeze()``, which puts what exists aside, as
0.0 ms. Media itself makes no garbage, so in a steady state nothing is collected at all; set-ups and hang-ups do, some
hundred containers each. Hence, while somebody holds the collector with the policy ``freeze``:

* at first everything is collected once and frozen: modules, code, what the program has built so far;
* the youngest generation is collected after 10,000 new containers instead of 700: about a millisecond, and with a
  hundred set-ups a second still every few hundred of them. A collection of the oldest generation remains possible; it
  walks over what came after the last freeze only;
* at a quiet moment (the number of calls and lines changed by less than 5 % in two seconds; `Load` says so), once a
  minute at most, what came since is collected and frozen. It costs what those survivors cost: a millisecond for every
  few thousand;
* what is frozen and dies in a cycle (an ended call refers to its tasks, and they to it) is not given back. So when
  half as many containers again, and 100,000 more, are frozen as after the last thorough collection, a quiet moment
  takes all back, collects and freezes anew: the one long pause, paid once for some thousand calls that came and went,
  with nothing skipped below 60 ms;
* when the last holder goes, what was frozen is taken back and the thresholds are what they were.

The collector is never disabled: bots are programs like others and may leave garbage of their own. Where the program has
disabled it before, it is left alone, as with the policy ``leave``.

Pauses are measured either way, through ``gc.callbacks``, whoever caused them and in whatever thread: the collector
holds the interpreter's lock, so a tick waits in any case. In virtual time nobody holds the collector.

There is one garbage collector in a process, hence one `COLLECTOR`, for all engines, servers and Trio runs in it.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

Policy = Literal["freeze", "leave"]
POLICIES = ("freeze", "leave")

THRESHOLD = 10_000
FREEZE_EVERY_NS = 60_000_000_000
THAW_GROWTH = 1.5
THAW_OBJECTS = 100_000


class Collector:
    """What is done about the garbage collector; see the module.

    Args:
        module: `gc`, or a double of it.
        now_ns: a monotonic clock.
    """

    def __init__(self, module: ModuleType | Any = gc, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self.pauses = 0
        """Collections while somebody held the collector."""
        self.pause_ns = 0
        """What they took together."""
        self.pause_max_ns = 0
        self.freezes = 0
        self.thaws = 0
        self.frozen = 0
        """Containers put aside, as of the last freeze."""
        self._gc = module
        self._now_ns = now_ns
        self._lock = threading.RLock()  # a collection may run a finaliser that ends up here
        self._holders: dict[object, Policy] = {}
        self._freezing = False
        self._paused_at_ns = 0
        self._threshold_before: tuple[int, int, int] = (0, 0, 0)
        self._frozen_before = False
        self._frozen_thoroughly = 0
        self._next_ns = 0

    def hold(self, holder: object, policy: Policy) -> None:
        """Measure from now on, and with ``freeze`` do the rest, until `release`."""
        with self._lock:
            if not self._holders:
                self._gc.callbacks.append(self._on_collection)
            self._holders[holder] = policy
            if policy == "freeze" and not self._freezing and self._gc.isenabled():
                self._freezing = True
                self._threshold_before = self._gc.get_threshold()
                self._frozen_before = self._gc.get_freeze_count() > 0
                self._gc.set_threshold(THRESHOLD, *self._threshold_before[1:])
                self._freeze()
                self._frozen_thoroughly = self.frozen

    def release(self, holder: object) -> None:
        """Undo what `hold` did, as far as nobody else holds. Idempotent."""
        with self._lock:
            if self._holders.pop(holder, None) is None:
                return
            if self._freezing and "freeze" not in self._holders.values():
                self._freezing = False
                self._gc.unfreeze()
                if self._frozen_before:  # somebody else had his reasons
                    self._gc.freeze()
                if self._gc.get_threshold()[0] == THRESHOLD:
                    self._gc.set_threshold(*self._threshold_before)
            if not self._holders:
                self._gc.callbacks.remove(self._on_collection)

    def look(self) -> None:
        """Freeze what came since, if it is time; at a quiet moment."""
        if not self._freezing or self._now_ns() < self._next_ns:
            return
        with self._lock:
            thoroughly = self._gc.get_freeze_count() > THAW_GROWTH * self._frozen_thoroughly + THAW_OBJECTS
            if thoroughly:
                self._gc.unfreeze()
            self._freeze()
            if thoroughly:
                self._frozen_thoroughly = self.frozen
                self.thaws += 1

    def _freeze(self) -> None:
        self._gc.collect()
        self._gc.freeze()
        self.frozen = self._gc.get_freeze_count()
        self.freezes += 1
        self._next_ns = self._now_ns() + FREEZE_EVERY_NS

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._paused_at_ns = self._now_ns()
        elif self._paused_at_ns:
            pause_ns = self._now_ns() - self._paused_at_ns
            self._paused_at_ns = 0
            self.pauses += 1
            self.pause_ns += pause_ns
            if pause_ns > self.pause_max_ns:
                self.pause_max_ns = pause_ns


COLLECTOR = Collector()
