"""Commands: done in order in the next step, bounded, answered; none after the end."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from talkpath.errors import CallEnded, PlayoutFull
from talkpath.records import EndReason
from talkpath.transport.commands import MAX_COMMANDS, Commands


class Driver:
    """Counts who asked for a step."""

    def __init__(self) -> None:
        self.commanded: list[object] = []

    def command(self, member: object) -> None:
        self.commanded.append(member)


@pytest.fixture
def driver() -> Any:
    return Driver()


@pytest.fixture
def commands(driver: Any) -> Commands:
    return Commands(driver, "the member")  # type: ignore[arg-type]


def test_they_are_done_in_order_each_once(commands: Commands, driver: Driver) -> None:
    done: list[tuple[int, int]] = []
    for i in range(5):
        commands.put(lambda now_ns, i=i: done.append((i, now_ns)))  # type: ignore[misc]
    assert driver.commanded == ["the member"] * 5, "each asks for a step"
    assert done == []
    commands.run(7)
    commands.run(8)
    assert done == [(i, 7) for i in range(5)]


def test_what_a_command_asks_for_is_done_in_the_same_run_after_the_others(commands: Commands) -> None:
    done: list[str] = []

    def first(now_ns: int) -> None:
        done.append("first")
        commands.put(lambda now_ns: done.append("third"))

    commands.put(first)
    commands.put(lambda now_ns: done.append("second"))
    commands.run(0)
    assert done == ["first", "second", "third"]


def test_a_run_within_a_command_does_what_follows_once(commands: Commands) -> None:
    """A policy that clears has what was said before it done first, from within the step."""
    done: list[str] = []

    def nested(now_ns: int) -> None:
        commands.run(now_ns)
        done.append("outer")

    commands.put(nested)
    commands.put(lambda now_ns: done.append("inner"))
    commands.run(0)
    assert done == ["inner", "outer"]


def test_they_are_bounded_and_the_refused_one_is_not_done(commands: Commands) -> None:
    done: list[int] = []
    for i in range(MAX_COMMANDS):
        commands.check_room()
        commands.put(lambda now_ns, i=i: done.append(i))  # type: ignore[misc]
    for refuse in (commands.check_room, lambda: commands.put(lambda now_ns: done.append(-1))):
        with pytest.raises(PlayoutFull, match="4096 operations wait"):
            refuse()
    commands.run(0)
    assert done == list(range(MAX_COMMANDS))
    with pytest.raises(PlayoutFull):
        commands.check_room(MAX_COMMANDS + 1)
    commands.check_room(MAX_COMMANDS)
    commands.put(lambda now_ns: done.append(-2))
    with pytest.raises(PlayoutFull):
        commands.check_room(MAX_COMMANDS)


async def test_whoever_waits_gets_the_result_after_the_step(commands: Commands) -> None:
    results: list[int] = []

    async def ask(i: int) -> None:
        results.append(await commands.perform(lambda now_ns: now_ns + i))

    async with trio.open_nursery() as nursery:
        for i in range(3):
            nursery.start_soon(ask, i)
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        commands.run(100)
    assert sorted(results) == [100, 101, 102]


async def test_one_that_is_cancelled_may_still_be_done(commands: Commands) -> None:
    done: list[int] = []
    with trio.move_on_after(0):
        await commands.perform(done.append)
    assert done == []
    commands.run(5)
    assert done == [5]
    commands.close(EndReason.STOPPED, None)


async def test_after_the_end_nothing_is_done_and_everybody_is_told_why(commands: Commands) -> None:
    done: list[int] = []
    told: list[CallEnded] = []

    async def ask() -> None:
        try:
            await commands.perform(done.append)
        except CallEnded as exc:
            told.append(exc)

    cause = OSError("gone")
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        commands.put(done.append)
        commands.close(EndReason.PEER_VANISHED, cause)
        commands.run(1)
    for refuse in (commands.check_room, lambda: commands.put(done.append)):
        with pytest.raises(CallEnded) as caught:
            refuse()
        told.append(caught.value)
    await ask()
    assert done == []
    assert [(one.reason, one.cause) for one in told] == [(EndReason.PEER_VANISHED, cause)] * 6


async def test_one_that_was_done_in_the_step_of_the_end_has_its_result(commands: Commands) -> None:
    async def end_soon() -> None:
        await trio.testing.wait_all_tasks_blocked()
        commands.put(lambda now_ns: commands.close(EndReason.APPLICATION_HUNG_UP, None))
        commands.put(lambda now_ns: pytest.fail("done after the end"))
        commands.run(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_soon)
        assert await commands.perform(lambda now_ns: now_ns) == 3


async def test_whoever_waits_for_one_that_raises_is_told_by_the_end_that_follows(commands: Commands) -> None:
    async def step() -> None:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ZeroDivisionError) as caught:
            commands.run(0)
        commands.close(EndReason.INTERNAL_ERROR, caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(step)
        with pytest.raises(CallEnded) as ended:
            await commands.perform(lambda now_ns: 1 // now_ns)
        assert isinstance(ended.value.cause, ZeroDivisionError)
