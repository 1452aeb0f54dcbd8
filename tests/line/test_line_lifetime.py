"""Nothing outlives its line: a bot at a served line, troubled before one step of Trio's tasks after the other.

The same as the engine's test, seen from the application's end: the server goes on, what it gave to the line is back,
the record is written once, and what a bot raises is recorded as it was raised.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pytest
import trio

from support.errors import Errors
from support.virtual import Injector, assert_driver_is_empty, run_virtually, speech, spread, virtual_engine
from talkpath.audio import Samples
from talkpath.engine.call import Call
from talkpath.engine.config import StreamSpec
from talkpath.engine.engine import Engine
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import CallEnded
from talkpath.line.config import LineConfig, LineRecord, ServeConfig
from talkpath.line.line import Line
from talkpath.line.listen import AudioHook
from talkpath.line.serve import serve_memory_lines
from talkpath.path.pool import PoolStatistics
from talkpath.records import EndReason, Outcome, Played
from talkpath.testing.quiescent import ResourceSnapshot

SPEC = StreamSpec(url="memory://bot", bidirectional=True)
LINGER_S, DRAIN_S = 1.0, 2.0


class Broken(Exception):
    """A failure nobody expected."""


@dataclass
class Facts:
    """What a run saw."""

    lines: list[Line] = field(default_factory=list)
    records: list[LineRecord] = field(default_factory=list)
    farewell: Played | None = None
    live_at_farewell: bool = False
    steps: int = 0


# Bots ----------------------------------------------------------------------------------------------------------------


async def says_and_goes(line: Line, facts: Facts) -> None:
    line.speak(speech(800), sample_rate_hz=16000)
    await line.play(speech(1200), sample_rate_hz=8000)


async def does_everything(line: Line, facts: Facts) -> None:
    async def pieces() -> AsyncIterator[Samples]:
        for _ in range(4):
            await trio.sleep(0.03)
            yield speech(400)

    async def listen() -> None:
        async for chunk in line.listen(sample_rate_hz=16000):
            with suppress(CallEnded):
                line.speak(chunk)
                line.checkpoint("same name")

    async def read() -> None:
        async for digit in line.digits():
            with suppress(CallEnded):
                await line.send_digits(digit)

    async def clear() -> None:
        with suppress(CallEnded):
            for _ in range(3):
                await trio.sleep(0.05)
                await line.clear()

    if line._policy is None:
        line.barge_in(lambda chunk: bool(np.any(chunk.samples)) and chunk.at_sample % 480 == 0)
    async with trio.open_nursery() as nursery:
        for job in (listen, read, clear):
            nursery.start_soon(job)
        await line.play(pieces(), sample_rate_hz=8000)


async def raises(line: Line, facts: Facts) -> None:
    line.speak(speech(4000), sample_rate_hz=8000)
    await trio.sleep(0.05)
    raise ValueError("the bot's own")


async def says_farewell(line: Line, facts: Facts) -> None:
    try:
        await trio.sleep(0.2)
    finally:
        facts.live_at_farewell = not line.ended
        with trio.CancelScope(shield=True), suppress(CallEnded):
            facts.farewell = await line.play(speech(480), sample_rate_hz=8000)


async def stops_an_iteration(line: Line, facts: Facts) -> None:
    await trio.sleep(0.05)
    raise StopAsyncIteration


BOTS: dict[str, Callable[[Line, Facts], Awaitable[None]]] = {
    bot.__name__: bot for bot in (says_and_goes, does_everything, raises, says_farewell, stops_an_iteration)
}
RAISES = {"raises": ValueError, "stops_an_iteration": StopAsyncIteration}


# Trouble -------------------------------------------------------------------------------------------------------------

KINDS = {
    "server cancelled": EndReason.CANCELLED,
    "platform hangs up": EndReason.PLATFORM_HUNG_UP,
    "link breaks": EndReason.PEER_VANISHED,
    "send fails": EndReason.INTERNAL_ERROR,
    "step fails": EndReason.INTERNAL_ERROR,
    "policy fails": EndReason.POLICY_FAILED,
    "send fails and server cancelled": EndReason.INTERNAL_ERROR,
}
"""Each kind of trouble, and the reason that some line must end for when it breaks out at many moments."""


class Trouble:
    """One kind of trouble, ready to break out when told."""

    def __init__(self, kind: str, call: Call, server: trio.CancelScope, facts: Facts) -> None:
        self.kind = kind
        self.call = call
        self.server = server
        self.facts = facts
        self.now = trio.Event()

    def at(self, line: Line) -> None:
        """Prepare a line that has begun."""
        if self.kind == "policy fails":
            line.barge_in(self.policy)
        elif self.kind == "step fails":
            AudioHook(line._hearing, 8000, 20, "inbound", self.fail_in_the_step)

    def policy(self, chunk: object) -> bool:
        if self.now.is_set():
            raise Broken(self.kind)
        return False

    def fail_in_the_step(self, chunk: object, now_ns: int) -> None:
        if self.now.is_set():
            raise Broken(self.kind)

    def break_out(self) -> None:
        self.now.set()
        if "server cancelled" in self.kind:
            self.server.cancel()
        if self.kind == "platform hangs up":
            self.call.hang_up()
        elif self.kind == "link breaks":
            for stream in self.call.streams:
                if stream is not None and stream._connection is not None:
                    stream._connection.link.close()


def sabotage_sending(monkeypatch: pytest.MonkeyPatch, troubles: list[Trouble]) -> None:
    """Let a line's one background task raise once the trouble has broken out."""

    async def fail(line: Line) -> None:
        await troubles[0].now.wait()
        raise Broken(troubles[0].kind)

    monkeypatch.setattr(Line, "jobs", lambda line: (partial(Line._send, line), partial(fail, line)))


async def one_line(kind: str, bot_name: str, injector: Injector, troubles: list[Trouble]) -> Facts:
    facts = Facts()

    async def bot(line: Line) -> None:
        facts.lines.append(line)
        troubles[0].at(line)
        await BOTS[bot_name](line, facts)

    config = ServeConfig(
        pool_bytes=1 << 20,
        line=LineConfig(linger_s=LINGER_S, drain_s=DRAIN_S),
        on_ended=facts.records.append,
    )
    async with virtual_engine() as engine:
        before = ResourceSnapshot.take()
        async with trio.open_nursery() as nursery:
            server = trio.CancelScope()

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                with server:
                    await serve_memory_lines(
                        bot, "bot", config=config, entropy=random.Random(2).randbytes, task_status=task_status
                    )

            await nursery.start(serve)
            async with engine.open_call(MemoryLeg()) as call:
                troubles[:] = [Trouble(kind, call, server, facts)]
                injector.arm(troubles[0].break_out)
                with suppress(CallEnded):
                    await call.start_stream(SPEC)
                    call.leg.say(speech(1600))
                    call.leg.press("7")
                    await trio.sleep(0.3)
            await trio.sleep(LINGER_S + DRAIN_S)
            facts.steps, injector.armed = injector.steps, False
            await trio.sleep(20)
            if not server.cancel_called:
                n_lines = len(facts.lines)
                await another_call(engine)
                assert len(facts.lines) == n_lines + 1, "the server goes on"
            nursery.cancel_scope.cancel()
        left = ResourceSnapshot.take().left_since(before)
        assert not left
        assert_driver_is_empty(engine.driver)
        check_lines(facts)
    return facts


async def another_call(engine: Engine) -> None:
    """Place one more call, which has the same bot."""
    async with engine.open_call(MemoryLeg()) as call:
        await call.start_stream(SPEC)
        await trio.sleep(0.1)
    await trio.sleep(LINGER_S + DRAIN_S + 1)


def check_lines(facts: Facts) -> None:
    for line in facts.lines:
        assert line.ended
        assert line.record is not None
        assert line.record.reason is line.end_reason
        pool: PoolStatistics = line._pool.statistics()
        assert (pool.n_free, pool.n_reserved) == (pool.n_blocks, 0)
    records = [line.record for line in facts.lines]
    # A line whose server is cancelled as it opens is recorded, although no bot ever sees it.
    assert facts.records[: len(records)] == records
    assert {record.reason for record in facts.records[len(records) :]} <= {EndReason.CANCELLED}


def run(kind: str, bot_name: str, at: int, monkeypatch: pytest.MonkeyPatch) -> Facts:
    injector = Injector(at)
    troubles: list[Trouble] = []
    if kind.startswith("send fails"):
        sabotage_sending(monkeypatch, troubles)
    facts = run_virtually(one_line, kind, bot_name, injector, troubles, instruments=(injector,), seed=at)
    monkeypatch.undo()
    assert injector.injected == (0 < at <= facts.steps)
    return facts


@pytest.mark.parametrize("bot_name", BOTS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_breaks_at_whichever_step_the_server_goes_on_and_nothing_remains(
    kind: str, bot_name: str, monkeypatch: pytest.MonkeyPatch, errors: Errors
) -> None:
    descriptors = set(os.listdir("/dev/fd"))
    undisturbed = run(kind, bot_name, 0, monkeypatch)
    if bot_name in RAISES:
        assert [type(error) for error in errors.raised] == [RAISES[bot_name]] * 2
        assert undisturbed.lines[0].cause is errors.raised[0]
        assert undisturbed.records[0].reason is EndReason.APPLICATION_FAILED
    else:
        assert not errors.seen
        assert undisturbed.records[0].reason.orderly
    reasons = set()
    for at in spread(undisturbed.steps, 8, kind + bot_name):
        facts = run(kind, bot_name, at, monkeypatch)
        reasons |= {record.reason for record in facts.records}
        if kind == "server cancelled" and facts.live_at_farewell:
            assert facts.farewell == Played(480, Outcome.PLAYED, True)
    assert set(os.listdir("/dev/fd")) == descriptors
    # A bot that fails by itself may have left before the trouble of every chosen moment.
    assert KINDS[kind] in reasons or bot_name in RAISES
    assert {type(error) for error in errors.raised} <= {Broken, RAISES.get(bot_name, Broken), ExceptionGroup}
