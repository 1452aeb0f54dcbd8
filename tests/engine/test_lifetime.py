"""Nothing outlives its call, whatever goes wrong and between whichever two steps of whichever task.

A call with streams is played again and again in virtual time. In each run one trouble comes before one step of Trio's
tasks, counted from the opening of the call; afterwards everything must be as it was before: tasks, slots, links,
blocks, descriptors. What leaves the call's block must be what the user's code raised, bare.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import trio
import trio.testing

from support.errors import Errors
from support.virtual import (
    Injector,
    assert_driver_is_empty,
    assert_pool_is_whole,
    flat,
    run_virtually,
    speech,
    spread,
    virtual_engine,
)
from talkpath.audio import AudioClip
from talkpath.engine.call import Call
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.engine import Engine
from talkpath.engine.leg import Leg
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.engine.stream import CallStream
from talkpath.errors import CallEnded, ConfigError
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.records import CallRecord, EndReason, Outcome, Played
from talkpath.testing.quiescent import ResourceSnapshot
from talkpath.transport.memory import listen_memory

SPEC = StreamSpec(url="memory://bot", bidirectional=True)
CLIP = AudioClip(speech(480), 8000)


class Broken(Exception):
    """A failure nobody expected."""


@dataclass
class Facts:
    """What a run saw."""

    entered: bool = False
    finished: bool = False
    """The block got to its end, or raised what it meant to raise."""
    cancelled: bool = False
    left_with: BaseException | None = None
    farewell: Played | None = None
    lines: list[Line] = field(default_factory=list)
    steps: int = 0
    record: CallRecord | None = None


# What the user's block does ------------------------------------------------------------------------------------------


async def waits(call: Call, facts: Facts) -> None:
    await call.start_stream(SPEC)
    call.leg.say(speech(800))
    call.leg.press("5")
    await trio.sleep(0.09)
    with suppress(ConfigError):  # it may have ended by itself
        await call.stop_stream()
    await trio.sleep(0.03)
    facts.finished = True


async def opens_a_nursery(call: Call, facts: Facts) -> None:
    async def start(control_id: str) -> None:
        with suppress(CallEnded):
            await call.start_stream(StreamSpec(url="memory://bot", bidirectional=True, control_id=control_id))

    async def read() -> None:
        async for _ in call.events():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, "a")
        nursery.start_soon(start, "b")
        nursery.start_soon(read)
        with suppress(CallEnded):
            await call.play(CLIP)
        await trio.sleep(0.06)
        nursery.cancel_scope.cancel()
    facts.finished = True


async def raises(call: Call, facts: Facts) -> None:
    await call.start_stream(SPEC)
    await trio.sleep(0.05)
    facts.finished = True
    raise ValueError("the user's own")


async def says_farewell(call: Call, facts: Facts) -> None:
    try:
        await call.start_stream(SPEC)
        await trio.sleep(0.06)
    finally:
        with trio.CancelScope(shield=True), suppress(CallEnded):
            facts.farewell = await call.play(CLIP)
    facts.finished = True


async def stops_an_iteration(call: Call, facts: Facts) -> None:
    await call.start_stream(SPEC)
    await trio.sleep(0.03)
    facts.finished = True
    raise StopAsyncIteration


BLOCKS: dict[str, Callable[[Call, Facts], Awaitable[None]]] = {
    block.__name__: block for block in (waits, opens_a_nursery, raises, says_farewell, stops_an_iteration)
}
RAISES = {"raises": ValueError, "stops_an_iteration": StopAsyncIteration}


async def talkative(line: Line) -> None:
    """A bot that uses its line: says something, sets checkpoints, listens, clears."""
    line.speak(speech(400), sample_rate_hz=8000)
    line.checkpoint("said")
    async for chunk in line.listen():
        line.speak(chunk)
        line.checkpoint("echo")
        if chunk.at_sample % 640 == 0:
            await line.clear()


# The trouble ---------------------------------------------------------------------------------------------------------


class Trouble:
    """One kind of trouble, ready to break out when told."""

    def __init__(self, kind: str, call: Call, outer: trio.CancelScope, facts: Facts) -> None:
        self.kind = kind
        self.call = call
        self.outer = outer
        self.facts = facts
        self.now = trio.Event()
        self.job = {"receive fails": "_receive", "send fails": "_send", "playback fails": "_playback"}.get(
            kind.removesuffix(" and outer cancel")
        )
        if self.job is not None:
            TroubledCall.trouble_of[call] = self
            call.__class__ = TroubledCall

    async def _until_trouble(self, job: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(job)
            await self.now.wait()
            raise Broken(self.kind)

    def jobs(self, call: Call) -> tuple[Callable[[], Awaitable[None]], ...]:
        """The call's tasks, one of them with the trouble in it."""
        return tuple(partial(self._until_trouble, job) if job.__name__ == self.job else job for job in Call.jobs(call))

    def break_out(self) -> None:
        self.now.set()
        if "outer cancel" in self.kind:
            self.outer.cancel()
        if self.kind == "caller hangs up":
            self.call.hang_up(EndReason.CALLER_HUNG_UP)
        elif self.kind == "application hangs up":
            for line in self.facts.lines:
                line.end(EndReason.APPLICATION_HUNG_UP)
        elif self.kind == "link breaks":
            for line in self.facts.lines:
                line._carriage.close()


class TroubledCall(Call):
    """A call with trouble in one of its tasks; an open call is made one by its class."""

    __slots__ = ()
    trouble_of: ClassVar[dict[Call, Trouble]] = {}

    def jobs(self) -> Any:
        return self.trouble_of.pop(self).jobs(self)


KINDS = {
    "outer cancel": EndReason.CANCELLED,
    "caller hangs up": EndReason.CALLER_HUNG_UP,
    "application hangs up": EndReason.APPLICATION_HUNG_UP,
    "link breaks": EndReason.PEER_VANISHED,
    "receive fails": EndReason.INTERNAL_ERROR,
    "send fails": EndReason.INTERNAL_ERROR,
    "playback fails": EndReason.INTERNAL_ERROR,
    "stream fails": EndReason.INTERNAL_ERROR,
    "step fails": EndReason.INTERNAL_ERROR,
    "receive fails and outer cancel": EndReason.CANCELLED,
    "stream fails and outer cancel": EndReason.CANCELLED,
}
"""Each kind of trouble, and the reason that some call or stream must end for when it breaks out at many moments."""


def sabotage_streams(monkeypatch: pytest.MonkeyPatch, kind: str, trouble: list[Trouble]) -> None:
    """Let a stream's task, or what the driver's step calls of it, raise once the trouble has broken out."""
    go_live, on_text = CallStream._go_live, CallStream.on_text

    async def fail_after_going_live(stream: CallStream, carriage: Any) -> None:
        await go_live(stream, carriage)
        await trouble[0].now.wait()
        raise Broken(kind)

    def fail_in_the_step(stream: CallStream, payload: bytes, now_ns: int) -> None:
        if trouble[0].now.is_set():
            raise Broken(kind)
        on_text(stream, payload, now_ns)

    if kind.startswith("stream fails"):
        monkeypatch.setattr(CallStream, "_go_live", fail_after_going_live)
    elif kind == "step fails":
        monkeypatch.setattr(CallStream, "on_text", fail_in_the_step)


# One run -------------------------------------------------------------------------------------------------------------


async def one_call(kind: str, block_name: str, injector: Injector, troubles: list[Trouble]) -> Facts:
    facts = Facts()

    async def bot(line: Line) -> None:
        facts.lines.append(line)
        await talkative(line)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_memory_lines, bot, "bot", entropy=random.Random(2).randbytes))
        async with virtual_engine() as engine:
            before = ResourceSnapshot.take()
            with trio.CancelScope() as outer:
                call = engine.open_call(MemoryLeg())
                troubles[:] = [Trouble(kind, call, outer, facts)]
                injector.arm(troubles[0].break_out)
                try:
                    async with call:
                        facts.entered = True
                        try:
                            await BLOCKS[block_name](call, facts)
                        except BaseException as exc:
                            facts.cancelled = is_cancelled(exc)
                            raise
                except BaseException as exc:
                    facts.left_with = exc
                    raise_unless(exc, (ValueError, StopAsyncIteration, CallEnded))
            facts.steps = injector.steps
            injector.armed = False
            check_call(engine, call, outer, facts, block_name)
            await trio.sleep(20)  # the application's end has lingered by then
            left = ResourceSnapshot.take().left_since(before)
            assert not left
            assert_driver_is_empty(engine.driver)
        nursery.cancel_scope.cancel()
    return facts


def is_cancelled(exc: BaseException) -> bool:
    """Whether this is a cancellation, as the user's own nursery may have wrapped it."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in flat(exc))


def raise_unless(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> None:
    if not isinstance(exc, kinds):
        raise exc


def check_call(engine: Engine, call: Call, outer: trio.CancelScope, facts: Facts, block_name: str) -> None:
    """The call's block has just been left."""
    assert call.end_reason is not None
    assert call._ended.is_set()
    assert call.record is not None
    assert call.record.reason is call.end_reason
    assert engine.statistics().calls == 0
    assert all(stream is None for stream in call.streams)
    assert call.commands._performing == {}
    assert_pool_is_whole(engine)
    assert engine.driver._groups == {}
    facts.record = call.record
    # Whatever left is the user's own, bare, and only an outer cancellation may have cancelled the block.
    assert not isinstance(facts.left_with, BaseExceptionGroup) or facts.cancelled
    assert outer.cancel_called or not facts.cancelled
    if facts.finished and block_name in RAISES:
        assert type(facts.left_with) is RAISES[block_name]
        assert facts.left_with.__context__ is None
        assert facts.left_with.__cause__ is None
    elif isinstance(facts.left_with, CallEnded):
        assert facts.left_with.reason is not None
    elif outer.cancel_called and not facts.finished:
        assert outer.cancelled_caught
    else:
        assert facts.left_with is None or is_cancelled(facts.left_with)


def run(kind: str, block_name: str, at: int, monkeypatch: pytest.MonkeyPatch) -> Facts:
    injector = Injector(at)
    troubles: list[Trouble] = []
    sabotage_streams(monkeypatch, kind, troubles)
    facts = run_virtually(one_call, kind, block_name, injector, troubles, instruments=(injector,), seed=at)
    monkeypatch.undo()
    assert injector.injected == (0 < at <= facts.steps)
    return facts


@pytest.mark.parametrize("block_name", BLOCKS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_breaks_at_whichever_step_nothing_remains(
    kind: str, block_name: str, monkeypatch: pytest.MonkeyPatch, errors: Errors
) -> None:
    descriptors = set(os.listdir("/dev/fd"))
    undisturbed = run(kind, block_name, 0, monkeypatch)
    assert undisturbed.finished
    assert undisturbed.record is not None
    expected = EndReason.BLOCK_FAILED if block_name in RAISES else EndReason.BLOCK_LEFT
    assert undisturbed.record.reason is expected
    reasons = set()
    for at in spread(undisturbed.steps, 10, kind + block_name):
        facts = run(kind, block_name, at, monkeypatch)
        assert facts.record is not None
        reasons |= {facts.record.reason, *(stream.reason for stream in facts.record.streams)}
        assert facts.record.errors_after_end <= kind.count("fails")
        if kind == "outer cancel" and block_name == "says_farewell" and facts.entered:
            assert facts.farewell == Played(480, Outcome.PLAYED, True)
    assert set(os.listdir("/dev/fd")) == descriptors
    # A block that fails by itself may have left before the trouble of every chosen moment.
    assert KINDS[kind] in reasons or block_name in RAISES
    assert kind.count("fails") or not errors.seen


async def test_a_call_is_not_opened_in_a_scope_that_is_cancelled_already(autojump: object) -> None:
    async with virtual_engine() as engine:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with engine.open_call(MemoryLeg()):
                pytest.fail("the block must not be entered")
        assert scope.cancelled_caught
        assert_driver_is_empty(engine.driver)
        assert engine.statistics().calls == 0


async def test_a_call_that_was_ended_before_it_is_entered_says_so(autojump: object) -> None:
    async with virtual_engine() as engine:
        call = engine.open_call(MemoryLeg())
        call.hang_up()
        with pytest.raises(CallEnded) as caught:
            async with call:
                pytest.fail("the block must not be entered")
        assert caught.value.reason is EndReason.PLATFORM_HUNG_UP
        assert (await call.wait_ended()).reason is EndReason.PLATFORM_HUNG_UP
        assert_driver_is_empty(engine.driver)


async def test_a_call_that_was_not_entered_says_what_to_write(autojump: object) -> None:
    async with virtual_engine() as engine:
        with pytest.raises(ConfigError, match="async with"):
            await engine.open_call(MemoryLeg()).start_stream(SPEC)


async def test_a_leg_that_cannot_be_opened_leaves_no_slot(autojump: object) -> None:
    class Unwilling(MemoryLeg):
        def open(self, call: Call) -> None:
            raise OSError("no port")

        def close(self) -> None:
            self.closed = True

    class Late(Unwilling):
        def open(self, call: Call) -> None:
            Leg.open(self, call)

        def start(self) -> None:
            raise OSError("no port after all")

    async with virtual_engine() as engine:
        for leg in (Unwilling(), Late()):
            with pytest.raises(OSError, match="no port"):
                async with engine.open_call(leg):
                    pytest.fail("the block must not be entered")
            assert leg.closed
            assert_driver_is_empty(engine.driver)


async def test_a_leg_that_cannot_be_closed_does_not_keep_its_call(autojump: object, errors: Errors) -> None:
    class Sticky(MemoryLeg):
        def close(self) -> None:
            raise OSError("disk full")

    async with virtual_engine() as engine:
        async with engine.open_call(Sticky()) as call:
            await trio.sleep(0.1)
        assert (await call.wait_ended()).errors_after_end == 1
        assert_driver_is_empty(engine.driver)
    assert len(errors.seen) == 1


@pytest.mark.parametrize("error", [ValueError("mine"), StopAsyncIteration("mine"), KeyError("mine")])
async def test_an_engines_block_lets_its_exception_out_bare(autojump: object, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()):
            raise error
    assert caught.value is error
    assert error.__context__ is None


async def test_an_engine_that_is_left_ends_the_calls_of_other_tasks_first(autojump: object) -> None:
    ended: list[tuple[float, CallRecord]] = []

    async def hold(engine: Engine, task_status: trio.TaskStatus[None]) -> None:
        async with engine.open_call(MemoryLeg()) as call:
            await call.start_stream(SPEC)
            task_status.started()
            record = await call.wait_ended()
            with pytest.raises(CallEnded):
                await call.play(CLIP)
            ended.append((trio.current_time(), record))
            await trio.sleep(3)  # the block is its task's own and goes on

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_memory_lines, talkative, "bot"))
        async with trio.open_nursery() as holders:
            async with virtual_engine(EngineConfig(pool_bytes=1 << 20, hang_up_pace=2)) as engine:
                for _ in range(5):
                    await holders.start(hold, engine)
                await trio.sleep(1)
                driver = engine.driver
            assert driver.members() == 0
            assert_pool_is_whole(engine)
            left_at = trio.current_time()
        assert trio.current_time() == left_at + 3
        nursery.cancel_scope.cancel()
    assert [record.reason for _, record in ended] == [EndReason.CANCELLED] * 5
    assert all(record.streams[0].reason is EndReason.PLATFORM_HUNG_UP for _, record in ended)


async def test_a_play_reports_what_was_heard_when_it_was_cleared_or_lost(autojump: object) -> None:
    async def drops(chunks: int) -> AsyncIterator[AudioClip]:
        for _ in range(chunks):
            yield AudioClip(speech(1600), 8000)

    for audio in (AudioClip(speech(16000), 8000), drops(10)):
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:
            played: list[Played] = []

            async def play(audio: object = audio, call: Call = call, played: list[Played] = played) -> None:
                played.append(await call.play(audio))

            nursery.start_soon(play)
            await trio.sleep_until(0.505 + trio.current_time())
            dropped = await call.clear()
            heard = len(np.trim_zeros(call.leg.heard()))
            await trio.sleep(0.1)
            assert played == [Played(heard, Outcome.CLEARED, True)]
            assert heard in range(3840, 4161)
            assert dropped >= 16000 - heard
            nursery.start_soon(play)
            await trio.sleep(0.2)
            call.hang_up()
            await trio.lowlevel.checkpoint()
        if isinstance(audio, AudioClip):
            assert played[1] == Played(1600, Outcome.LOST, True)
        assert_pool_is_whole(engine)


@pytest.mark.parametrize("passes", range(8))
async def test_a_play_whose_call_ends_on_its_way_into_the_queue_is_lost(autojump: object, passes: int) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        played: list[Played] = []

        async def play() -> None:
            with suppress(CallEnded):
                played.append(await call.play(CLIP))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            call.hang_up()
        assert played or passes <= 1, "only a play that had begun is lost"
        assert all(one.reason is Outcome.LOST for one in played)


async def test_what_a_hook_raises_is_the_calls_reason_and_nothing_else(autojump: object, errors: Errors) -> None:
    def hook(event: object) -> None:
        raise KeyError("a hook's own")

    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as beside:
        async with engine.open_call(MemoryLeg()) as call:
            call.on_event(hook)
            call.leg.press("1")
            record = await call.wait_ended()
            await trio.sleep(1)
            assert beside.end_reason is None
        assert (record.reason, record.cause) == (EndReason.APPLICATION_FAILED, "KeyError")


async def test_starting_a_stream_does_not_delay_a_hang_up(autojump: object) -> None:
    listener = listen_memory("slow")
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:

        async def start() -> None:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url="memory://slow"))
            assert caught.value.reason is EndReason.CALLER_HUNG_UP

        nursery.start_soon(start)
        await trio.sleep(2)
        call.hang_up(EndReason.CALLER_HUNG_UP)
        await call.wait_ended()
        assert trio.current_time() == 2
    listener.close()


async def test_cancelling_the_start_of_a_stream_leaves_the_call_as_it_was(autojump: object) -> None:
    listener = listen_memory("slow")
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()) as call:
            before = ResourceSnapshot.take()
            with trio.move_on_after(1):
                await call.start_stream(StreamSpec(url="memory://slow"))
            await trio.sleep(1)
            assert not ResourceSnapshot.take().left_since(before)
            assert call.end_reason is None
            assert call.streams == [None] * 4
        assert call.record is not None
        assert [stream.reason for stream in call.record.streams] == [EndReason.CANCELLED]
    listener.close()


async def test_without_a_name_the_youngest_stream_is_stopped(autojump: object) -> None:
    async with trio.open_nursery() as nursery, virtual_engine() as engine:
        await nursery.start(partial(serve_memory_lines, talkative, "bot"))

        def spec(name: str) -> StreamSpec:
            return StreamSpec(url="memory://bot", bidirectional=True, control_id=name)

        async with engine.open_call(MemoryLeg()) as call:
            for name in ("a", "b"):
                await call.start_stream(spec(name))
            await call.stop_stream("a")
            await call.start_stream(spec("c"))  # takes the place that "a" had
            for expected in ("c", "b"):
                await call.stop_stream()
                assert call._records[-1].control_id == expected
            with pytest.raises(ConfigError, match="no live stream"):
                await call.stop_stream()
        nursery.cancel_scope.cancel()


async def test_hooks_hear_the_end_too(autojump: object) -> None:
    heard: list[str] = []
    async with trio.open_nursery() as nursery, virtual_engine() as engine:
        await nursery.start(partial(serve_memory_lines, talkative, "bot"))
        async with engine.open_call(MemoryLeg()) as call:
            call.on_event(lambda event: heard.append(type(event).__name__))
            await call.start_stream(SPEC)
            await trio.sleep(0.1)
        assert heard == [type(event).__name__ for event in [event async for event in call.events()]]
        assert heard[0] == "StreamUp"
        assert heard[-1] == "StreamEnded"
        nursery.cancel_scope.cancel()


async def test_calls_that_join_at_a_ticks_own_instant_tick_once_a_ptime(autojump: object) -> None:
    moments: dict[int, list[float]] = {index: [] for index in range(9)}
    async with virtual_engine() as engine, AsyncExitStack() as calls:
        for index, noted in moments.items():
            if index == 4:
                await trio.sleep_until(engine.clock.t0 + 0.1)  # four calls tick, each in its phase; one has done so now
                while len(moments[0]) < 6:
                    await trio.testing.wait_all_tasks_blocked()
            leg = MemoryLeg(on_heard=lambda pcm, noted=noted: noted.append(trio.current_time()))
            await calls.enter_async_context(engine.open_call(leg))
        await trio.sleep(0.2)
    for noted in moments.values():
        assert len(noted) >= 9
        assert np.allclose(np.diff(noted), 0.02)
