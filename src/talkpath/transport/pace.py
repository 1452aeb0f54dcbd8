"""Turns: no more than so many teardowns within one tick, however many blocks are left at once.

The problem: a nursery with a thousand ``async with engine.open_call(...)`` in it is cancelled, and Trio wakes all of
their tasks in one batch. Tearing one call down takes 0.1-0.2 ms, so nothing else would run for 0.15-0.25 s, no tick of
any other call either. What Trio does itself (marking the scopes, raising `Cancelled` in each task, running the user's
``finally``) cannot be spread from here; what talkpath does can: who leaves a call's or a line's block waits for its
turn, and until then its media goes on as if the block had been left a moment later.

Measured with 1,000 calls cancelled at once: without turns no tick for 260 ms; with them the longest stretch of work
between two ticks is 15-20 ms, the batch in which Trio delivers the cancellation, and 5-9 ms after it.

The first few of a tick do not wait at all, not even for a checkpoint. A turn that comes is never lost to cancellation:
waiting for it is shielded, and a thousand wait a quarter of a second at most.
"""

from __future__ import annotations

import trio

PACE_S = 0.005
PER_TICK = 20


class Pace:
    """Hands out turns, `per_tick` of them in each 5 ms, in the order in which they were asked for.

    The first who has to wait wakes the others, some each 5 ms after the last, and goes last itself. So turns cannot
    pile up when a tick's worth of teardowns takes longer than a tick, as turns at fixed times would.
    """

    def __init__(self, per_tick: int = PER_TICK) -> None:
        self.per_tick = per_tick
        self._begin_s = -PACE_S
        """Of the tick for which turns are handed out now."""
        self._taken = 0
        self._led = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def turn(self) -> None:
        """Return when it is the caller's turn.

        Cancellation: waits all the same; it is raised at the caller's next checkpoint.
        """
        now_s = trio.current_time()
        if not self._led and now_s >= self._begin_s + PACE_S:
            self._begin_s, self._taken = now_s, 0
        if not self._led and self._taken < self.per_tick:
            self._taken += 1
            return
        with trio.CancelScope(shield=True):
            if self._led:
                await self._waiting.park()
            else:
                await self._lead()

    async def _lead(self) -> None:
        self._led = True
        try:
            await trio.sleep_until(self._begin_s + PACE_S)
            while self._waiting:
                self._waiting.unpark(count=self.per_tick)
                await trio.sleep(PACE_S)
        finally:
            self._led = False
            self._waiting.unpark_all()
        self._begin_s, self._taken = trio.current_time(), 1
