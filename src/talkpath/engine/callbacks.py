"""The status callbacks of an engine: delivered in its own nursery, in the order in which each stream told them.

A web server that reads "stopped" before "started" keeps a stream for live that is over, so a stream's callbacks go one
after the other; those of different streams go side by side. Nothing here waits for a web server but the task that talks
to it, and nothing grows without bound: what may wait of all streams is `EngineConfig.max_callbacks`, of one stream's
news in passing `IN_PASSING_MAX`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import trio

from talkpath.engine.config import EngineConfig
from talkpath.errors import ConfigError
from talkpath.transport.http import DeliveryOptions, deliver
from talkpath.wire.callback import CallbackRequest

log = logging.getLogger("talkpath.engine.callbacks")

IN_PASSING_MAX = 64
"""Callbacks of one stream that may wait because its application caused them; the next is dropped and counted."""


class CallbackQueue:
    """The callbacks of one stream that wait, oldest first: (delivery id, request)."""

    __slots__ = ("delivering", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, CallbackRequest]] = deque()
        self.delivering = False


class Callbacks:
    """See the module; an engine has one, while it is entered."""

    def __init__(self, nursery: trio.Nursery, config: EngineConfig, entropy: Callable[[int], bytes]) -> None:
        self._nursery = nursery
        self._config = config
        self._entropy = entropy
        self._options = DeliveryOptions(deadline_s=config.callback_deadline_s, attempts=config.callback_attempts)
        self._waiting = 0
        self.delivered = 0
        self.failed = 0

    def tell(self, request: CallbackRequest, queue: CallbackQueue, *, in_passing: bool) -> None:
        """Have a callback delivered after those in its queue; see `Engine.deliver`."""
        most = self._config.max_callbacks // 2 if in_passing else self._config.max_callbacks
        if self._waiting >= most or (in_passing and len(queue.waiting) >= IN_PASSING_MAX):
            self.failed += 1
            return
        self._waiting += 1
        queue.waiting.append((self._entropy(16).hex(), request))
        if not queue.delivering:
            queue.delivering = True
            self._nursery.start_soon(self._deliver_all, queue)

    def impossible(self, exc: ConfigError) -> None:
        """A callback could not even be written down."""
        self.failed += 1
        log.info("a status callback was not delivered: %s", exc)

    def close_by(self, deadline_s: float) -> None:
        """Give up what has not been delivered in `deadline_s` from now."""
        self._nursery.cancel_scope.deadline = trio.current_time() + deadline_s

    def cancel(self) -> None:
        """Give up all that waits."""
        self._nursery.cancel_scope.cancel()

    async def _deliver_all(self, queue: CallbackQueue) -> None:
        try:
            while queue.waiting:
                delivery_id, request = queue.waiting.popleft()
                try:
                    await self._deliver(delivery_id, request)
                finally:
                    self._waiting -= 1
        finally:
            queue.delivering = False
            self.failed += len(queue.waiting)
            self._waiting -= len(queue.waiting)
            queue.waiting.clear()

    async def _deliver(self, delivery_id: str, request: CallbackRequest) -> None:
        delivered = False
        try:
            result = await deliver(
                request,
                delivery_id=delivery_id,
                options=self._options,
                policy=self._config.callback_policy,
                ssl_context=self._config.tls_context,
            )
            delivered = result.delivered
            if not delivered:
                log.info("a status callback was not delivered: %s", result.error)
        except Exception as exc:
            log.error("a status callback failed: %s", type(exc).__name__, exc_info=exc)
        finally:
            if delivered:
                self.delivered += 1
            else:
                self.failed += 1
