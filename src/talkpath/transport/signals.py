"""Signals as a server takes them: the first one means drain, the second one means now."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Protocol

import trio

from talkpath.errors import ConfigError

log = logging.getLogger("talkpath.transport.signals")


class Drainable(Protocol):
    """An engine, a set of workers, a server of lines."""

    async def drain(self, deadline_s: float) -> object: ...


async def run_until_signalled(
    what: Drainable, deadline_s: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for SIGTERM or SIGINT, then drain `what`; return when it is drained. A second signal forces it.

    Args:
        what: has ``drain(deadline_s)``.
        deadline_s: for what is live at the first signal; at the second it is over.
        task_status: readiness: from here on a signal is a request.

    Raises:
        ConfigError: this is not the main thread, where alone signals can be taken.

    Cancellation: nothing is drained that was not being drained.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("signals are taken in the main thread; elsewhere call drain() yourself")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
        log.info("draining within %g s; another signal ends it now", deadline_s)
        async with trio.open_nursery() as nursery:

            async def force() -> None:
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(force)
            await what.drain(deadline_s)
            nursery.cancel_scope.cancel()
            return
        await what.drain(0.0)
