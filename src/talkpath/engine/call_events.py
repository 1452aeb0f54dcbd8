"""What happened in a call, kept for those who have not read it yet."""

from __future__ import annotations

import trio

from talkpath.events import CallEvent

EVENTS_KEPT = 1024
"""Events kept for those who have not read them yet; the oldest are dropped and counted."""
EVENTS_SLACK = 64
"""How many are dropped at once."""


class EventLog:
    """A call's latest events, and those who wait for the next."""

    __slots__ = ("_lot", "begin", "dropped", "ended", "kept")

    def __init__(self) -> None:
        self.kept: list[CallEvent] = []
        self.begin = 0
        """How many there were before the first that is kept."""
        self.dropped = 0
        self.ended = False
        self._lot: trio.lowlevel.ParkingLot | None = None
        """Made when somebody waits for the next event."""

    def add(self, event: CallEvent) -> None:
        self.kept.append(event)
        if len(self.kept) > EVENTS_KEPT + EVENTS_SLACK:
            del self.kept[:EVENTS_SLACK]
            self.begin += EVENTS_SLACK
            self.dropped += EVENTS_SLACK
        self.wake_readers()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self.wake_readers()

    def wake_readers(self) -> None:
        if self._lot is not None:
            self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait until there is one more, or the call is over."""
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()


class CallEvents:
    """An iterator over a call's events; a cancelled reader loses nothing. One reader per iterator."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._next = log.begin

    def __aiter__(self) -> CallEvents:
        return self

    async def __anext__(self) -> CallEvent:
        """Return the next event; ends once the call is over and all were read."""
        await trio.lowlevel.checkpoint()
        log = self._log
        while True:
            self._next = max(self._next, log.begin)
            index = self._next - log.begin
            if index < len(log.kept):
                self._next += 1
                return log.kept[index]
            if log.ended:
                raise StopAsyncIteration
            await log.wait()
