"""A bot's life on a line: it runs, what it left queued is heard, its failure is its own line's and nobody else's."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from talkpath.errors import CallEnded
from talkpath.line.line import Line
from talkpath.records import EndReason

log = logging.getLogger("talkpath.line.bot")

Bot = Callable[[Line], Awaitable[None]]


async def run_bot(bot: Bot, line: Line) -> None:
    """Live a bot's life on a line; returns when the line is over and nothing of either remains.

    Raises nothing of the bot's; what it raised is logged and in the line's record. Cancellation passes through.
    """
    async with line:
        failure = await _bot_failure(bot, line)
        if failure is not None:
            if not line.ended:
                try:
                    with trio.move_on_after(line.config.goodbye_s):
                        await line.clear()
                except CallEnded:
                    pass
            line.end(EndReason.APPLICATION_FAILED, failure)
        elif not line.ended:
            try:
                with trio.move_on_after(line.config.drain_s):
                    await line.drain()
                await line.hang_up()
            except CallEnded:
                pass
        failure = None  # it refers to this frame


async def _bot_failure(bot: Bot, line: Line) -> Exception | None:
    """Run the bot, at most `linger_s` longer than its line; return what it raised."""
    failure: Exception | None = None
    linger = trio.CancelScope()

    def begin_linger() -> None:
        linger.deadline = trio.current_time() + line.config.linger_s

    line.on_ended = begin_linger
    if line.ended:
        begin_linger()
    try:
        with linger:
            await bot(line)
    except Exception as exc:
        failure = exc
    except BaseExceptionGroup as group:
        # Cancelled from outside, and something failed in a nursery of the bot's: the cancellation goes on alone.
        failures, cancelled = group.split(Exception)
        if failures is not None and cancelled is not None:
            _report(line, failures)
            raise cancelled from None
        raise
    finally:
        line.on_ended = None
    return None if failure is None or not _report(line, failure) else failure


def _report(line: Line, failure: BaseException) -> bool:
    """Log what a bot raised, unless it is only that its line was over. -> whether it was a failure"""
    if line.ended and _only_call_ended(failure):
        return False
    log.error("the bot on line %s raised %s", line.info.stream_id, type(failure).__name__, exc_info=failure)
    return True


def _only_call_ended(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(_only_call_ended(inner) for inner in exc.exceptions)
    return isinstance(exc, CallEnded)
