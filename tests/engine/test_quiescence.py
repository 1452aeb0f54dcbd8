"""A thousand calls, most of them cancelled somewhere, leave nothing behind."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import pytest
import trio

from support.virtual import Injector, run_virtually, speech, virtual_engine
from talkpath.audio import AudioClip
from talkpath.engine.call import Call
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.engine import Engine
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import CallEnded
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.testing.quiescent import ResourceSnapshot, assert_quiescent, quiescence

N_CALLS = 1000
AT_ONCE = 20
MANY_STEPS = 900
"""Of Trio's tasks, all together: about what `AT_ONCE` calls need."""


async def bot(line: Line) -> None:
    line.barge_in(lambda chunk: chunk.at_sample % 3200 == 160)
    async with trio.open_nursery() as nursery:

        async def play() -> None:
            with suppress(CallEnded):
                await line.play(speech(1600), sample_rate_hz=8000)

        nursery.start_soon(play)
        async for chunk in line.listen(sample_rate_hz=16000):
            with suppress(CallEnded):
                line.speak(chunk)
                line.checkpoint("echo")


async def converse(call: Call) -> None:
    call.leg.say(speech(800))
    stream = await call.start_stream(StreamSpec(url="memory://bot", bidirectional=True, ends_call=True))
    async with trio.open_nursery() as nursery:

        async def announce() -> None:
            with suppress(CallEnded):
                await call.play(AudioClip(speech(320), 8000))

        nursery.start_soon(announce)
        await trio.sleep(0.05)
        call.leg.press("1")
        await trio.sleep(0.05)
        assert stream.end_reason is None or call.end_reason is not None


async def place(engine: Engine, scope: trio.CancelScope) -> None:
    with scope, suppress(CallEnded):
        async with engine.open_call(MemoryLeg()) as call:
            await converse(call)


async def a_thousand_calls(injector: Injector) -> int:
    chance = random.Random(7)
    cancelled = 0
    async with trio.open_nursery() as serving:
        await serving.start(partial(serve_memory_lines, bot, "bot", entropy=random.Random(2).randbytes))
        async with virtual_engine(EngineConfig(pool_bytes=8 << 20)) as engine:
            before = ResourceSnapshot.take()
            for _ in range(N_CALLS // AT_ONCE):
                scopes = [trio.CancelScope() for _ in range(AT_ONCE)]
                moments = sorted((chance.randrange(MANY_STEPS), index) for index in range(AT_ONCE))

                def cancel(moments: list[tuple[int, int]] = moments, scopes: list[trio.CancelScope] = scopes) -> None:
                    while moments and injector.steps >= moments[0][0]:
                        scopes[moments.pop(0)[1]].cancel()
                    injector.at = moments[0][0] if moments else 0

                injector.steps, injector.at = 0, 1
                injector.arm(cancel)
                async with trio.open_nursery() as calls:
                    for scope in scopes:
                        calls.start_soon(place, engine, scope)
                injector.armed = False
                cancelled += sum(scope.cancelled_caught for scope in scopes)
            await trio.sleep(20)  # the application's end has lingered by then
            assert engine.statistics().calls_opened > N_CALLS // 2
            assert_quiescent(before)
            serving.cancel_scope.cancel()
    assert_quiescent()
    return cancelled


def test_a_thousand_calls_cancelled_anywhere_leave_nothing() -> None:
    injector = Injector()
    with quiescence():
        cancelled = run_virtually(a_thousand_calls, injector, instruments=(injector,))
    assert N_CALLS // 2 < cancelled < N_CALLS


async def test_what_a_live_call_holds_is_named(autojump: object) -> None:
    async with trio.open_nursery() as nursery, virtual_engine() as engine:
        await nursery.start(serve_memory_lines, bot, "bot")
        with quiescence():
            async with engine.open_call(MemoryLeg()) as call:
                await call.start_stream(StreamSpec(url="memory://bot", bidirectional=True))
                await trio.sleep(0.1)
                with pytest.raises(AssertionError) as caught:
                    assert_quiescent()
                for what in (
                    "live calls and lines: 2",
                    "polled links: 2",
                    "pool blocks in use",
                    "pool blocks promised",
                ):
                    assert what in str(caught.value)
            await trio.sleep(20)
        nursery.cancel_scope.cancel()
