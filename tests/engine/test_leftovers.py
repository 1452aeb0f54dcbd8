"""What is over dies by reference counting: nothing of a call or line waits for the garbage collector, which may be
frozen (see `talkpath.transport.collector`)."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from support.calls import in_virtual_time
from support.virtual import speech, virtual_engine
from talkpath.engine import Engine, MemoryLeg, StreamSpec
from talkpath.line import Line, serve_memory_lines


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def living() -> Counter[str]:
    """Objects of ours, by type."""
    kinds = Counter[str]()
    for each in gc.get_objects():
        module = type(each).__module__
        if isinstance(module, str) and module.startswith("talkpath."):
            kinds[f"{module}.{type(each).__qualname__}"] += 1
    return kinds


async def _bot(line: Line) -> None:
    hook = line.on_audio(lambda chunk: None)
    line.speak(speech(4000), sample_rate_hz=8000)
    mark = line.checkpoint("here")
    await mark.wait()
    hook.close()
    line.speak(speech(80_000), sample_rate_hz=8000)
    line.checkpoint("never")
    await line.clear()
    await line.send_digits("1")
    async for _ in line.listen():
        pass


async def _call(engine: Engine, how: str) -> None:
    leg = MemoryLeg()
    async with engine.open_call(leg) as call:
        call.on_event(lambda event: None)
        leg.say(speech(8000))
        await call.start_stream(StreamSpec(url="memory://bot", bidirectional=True, control_id="one"))
        await call.play(speech(800), sample_rate_hz=8000)
        with trio.move_on_after(0.5):
            await call.play(speech(80_000), sample_rate_hz=8000)
        await trio.sleep(1)
        leg.press("5")
        await trio.sleep(0.1)
        if how == "stream stopped":
            await call.stop_stream("one")
        elif how == "hung up":
            call.hang_up()
            await call.wait_ended()
        elif how == "cancelled":
            with trio.CancelScope() as scope:
                scope.cancel()
                await call.wait_ended()


@pytest.mark.parametrize("how", ["block left", "stream stopped", "hung up", "cancelled"])
def test_nothing_of_a_call_or_a_line_waits_for_the_collector(how: str) -> None:
    async def main() -> None:
        async with virtual_engine() as engine, trio.open_nursery() as nursery:
            await nursery.start(serve_memory_lines, _bot, "bot")
            await _call(engine, how)  # what is made once
            await trio.sleep(60)
            with without_collector():
                before = living()
                for _ in range(2):
                    await _call(engine, how)
                    await trio.sleep(60)
                left = living() - before
                del left["talkpath.transport.memory.MemoryLink"]  # the two ends refer to each other
                assert left == Counter()
            nursery.cancel_scope.cancel()

    in_virtual_time(main)
