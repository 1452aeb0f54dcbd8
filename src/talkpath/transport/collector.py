"""Python's garbage collector while calls live: what it may cost a tick, and what it may not.

Theory of operation. A full collection looks at every container there is. A call has about 140, its program tens of
thousands; with 1,000 calls that was measured as 19 to 90 ms, a stall each time. What ``gc.freeze()`` puts aside is not
looked at again. Media itself makes no garbage, so in a steady state nothing is collected at all; set-ups and hang-ups
do. Hence, while somebody holds the collector with the policy ``freeze``:

* at first, before there are calls, everything is collected once and frozen: modules, code, what the program has built;
* the collector's thresholds become 2,000, 2 and 1,000. The youngest generation is looked at after 2,000 new containers
  instead of 700, the two youngest together have 6,000 at most: one or two milliseconds. With the usual factor 10, or
  10,000 containers, it was 36. The oldest is left to the freezes, unless some millions have come meanwhile: the
  collector stays enabled, for bots are programs like others and may leave garbage of their own;
* at a quiet moment (the number of calls and lines changed by less than 5 % in two seconds; `Load` says so), once a
  minute at most, the two youngest are collected and all that lives is frozen: one or two milliseconds again, however
  many calls live. Without a quiet moment it is done after five minutes;
* what is frozen and dies in a cycle later is not given back. A call leaves no cycle behind, but programs do. So when
  the process has half as many blocks of memory in use again, and 1,000,000 more (some 100 MB), as after the last
  thorough collection, a quiet moment takes all back, collects and freezes anew. That is the one long pause. What a tick
  misses below 60 ms is made up;
* when the last holder goes, what was frozen is taken back and the thresholds are what they were.

Where the program has disabled the collector before, it is left alone, as with the policy ``leave``.

Pauses are measured either way, through ``gc.callbacks``, whoever caused them and in whatever thread: the collector
holds the interpreter's lock, so a tick waits in any case. In virtual time nobody holds the collector.

There is one garbage collector in a process, hence one `COLLECTOR`, for all engines, servers and Trio runs in it.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

Policy = Literal["freeze", "leave"]
POLICIES = ("freeze", "leave")

THRESHOLDS = (2_000, 2, 1_000)
YOUNG = 1
"""The two youngest generations."""
FREEZE_EVERY_NS = 60_000_000_000
FREEZE_AT_LAST_NS = 300_000_000_000
THAW_GROWTH = 1.5
THAW_BLOCKS = 1_000_000


class Collector:
    """What is done about the garbage collector; see the module.

    Args:
        module: `gc`, or a double of it.
        now_ns: a monotonic clock.
        blocks: returns how many blocks of memory Python has in use.
    """

    def __init__(
        self,
        module: ModuleType | Any = gc,
        now_ns: Callable[[], int] = time.perf_counter_ns,
        blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        self.pauses = 0
        """Collections while somebody held the collector."""
        self.pause_ns = 0
        """What they took together."""
        self.pause_max_ns = 0
        self.freezes = 0
        self.thaws = 0
        self._gc = module
        self._now_ns = now_ns
        self._blocks = blocks
        self._lock = threading.RLock()  # a collection may run a finaliser that ends up here
        self._holders: dict[object, Policy] = {}
        self._freezing = False
        self._paused_at_ns = 0
        self._thresholds_before: tuple[int, int, int] = (0, 0, 0)
        self._frozen_before = False
        self._blocks_thoroughly = 0
        self._frozen_at_ns = 0

    def hold(self, holder: object, policy: Policy) -> None:
        """Measure from now on, and with ``freeze`` do the rest, until `release`."""
        with self._lock:
            if not self._holders:
                self._gc.callbacks.append(self._on_collection)
            self._holders[holder] = policy
            if policy == "freeze" and not self._freezing and self._gc.isenabled():
                self._freezing = True
                self._thresholds_before = self._gc.get_threshold()
                self._frozen_before = self._gc.get_freeze_count() > 0
                self._gc.set_threshold(*THRESHOLDS)
                self._freeze(thoroughly=True)

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
                if self._gc.get_threshold() == THRESHOLDS:
                    self._gc.set_threshold(*self._thresholds_before)
            if not self._holders:
                self._gc.callbacks.remove(self._on_collection)

    def look(self, *, quiet: bool) -> None:
        """Freeze what came since, if it is time; told several times a second whether the moment is quiet."""
        if not self._freezing:
            return
        since_ns = self._now_ns() - self._frozen_at_ns
        if since_ns < FREEZE_EVERY_NS or not (quiet or since_ns >= FREEZE_AT_LAST_NS):
            return
        with self._lock:
            if quiet and self._blocks() > THAW_GROWTH * self._blocks_thoroughly + THAW_BLOCKS:
                self._gc.unfreeze()
                self._freeze(thoroughly=True)
                self.thaws += 1
            else:
                self._freeze(thoroughly=False)

    def _freeze(self, *, thoroughly: bool) -> None:
        if thoroughly:
            self._gc.collect()
            self._blocks_thoroughly = self._blocks()
        else:
            self._gc.collect(YOUNG)
        self._gc.freeze()
        self.freezes += 1
        self._frozen_at_ns = self._now_ns()

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
