"""The time between the loss of a stream's connection and the next one: how long it may last, and what is heard in it.

A lost connection is no answer: whoever restarts a server, or loses a router, means the calls to go on. So for
`StreamSpec.reconnect_s` it is tried anew, at growing distances. The distances are random within their bounds: when a
server of a thousand calls goes down, they must not all come back in the same moment.

A connection that does not last does not renew the budget: what is lost again within `SETTLED_S` continues the outage
before, its deadline and its distances. So an application that flaps is given up like one that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import trio

from talkpath.audio import AudioClip
from talkpath.engine.source import Source
from talkpath.errors import CallEnded
from talkpath.records import EndReason
from talkpath.transport.wake import Moment

if TYPE_CHECKING:
    from talkpath.engine.call import Call

log = logging.getLogger("talkpath.engine.outage")

SETTLED_S = 10.0
"""How long a connection lasts that has been made for good; the budget, where that is shorter."""
LEAST_DISTANCE_S = 0.05
MOST_DISTANCE_S = 8.0


class Outage:
    """Why the connection was lost, and how long it is still tried anew."""

    __slots__ = ("_attempts", "_backoff_s", "_entropy", "cause", "deadline", "reason")

    def __init__(
        self,
        reason: EndReason,
        cause: BaseException | None,
        *,
        budget_s: float,
        backoff_s: float,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.reason = reason
        self.cause = cause
        self.deadline = trio.current_time() + budget_s
        self._backoff_s = backoff_s
        self._entropy = entropy
        self._attempts = 0

    def distance_s(self) -> float:
        """Return how long to wait before the next attempt: half to the whole of a time that doubles."""
        whole = min(max(self._backoff_s, LEAST_DISTANCE_S) * 2.0 ** min(self._attempts, 16), MOST_DISTANCE_S)
        self._attempts += 1
        return whole * (0.5 + int.from_bytes(self._entropy(2), "big") / 131072)


class Fallback:
    """What the caller hears in an application's place: a clip, over and over, where the stream was in the path.

    The place is free while there is no connection, so there is room for it however many streams a call has.
    """

    __slots__ = ("_clip", "_last", "_source", "heard")

    def __init__(self, call: Call, index: int, clip: AudioClip) -> None:
        self._clip = clip
        self._last = False
        self._source = Source(call, index)
        self.heard = Moment()
        """It has been heard to its end, or was cut short."""

    async def play(self) -> None:
        """Play until `finish`, or until `close` cuts it short; a task of the call's. Never raises."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._source.feed)
                await self._source.play(self._repeated(), None)
                nursery.cancel_scope.cancel()
        except* CallEnded:
            pass
        except* Exception as group:
            log.error("fallback audio: %s", type(group.exceptions[0]).__name__, exc_info=group)
        finally:
            self.heard.set()

    async def _repeated(self) -> AsyncIterator[AudioClip]:
        yield self._clip
        while not self._last:
            yield self._clip

    def finish(self) -> None:
        """Let the repetitions that are queued be heard to their end, and begin no other."""
        self._last = True

    def close(self) -> None:
        """Cut it short. Idempotent."""
        self._source.close()

    def on_native_event(self, event: Any) -> None:
        """One event of its stream in the path."""
        self._source.on_native_event(event)
