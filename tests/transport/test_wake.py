"""Bells and moments: who is woken, and what a cancelled wait leaves behind."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from talkpath.transport.wake import Bell, Moment


async def test_a_bell_wakes_who_waits_and_forgets_a_ring_that_nobody_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bell, woken = Bell(), []

    async def wait() -> None:
        await bell.wait()
        woken.append(trio.current_time())

    begun = trio.current_time()
    bell.ring()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        assert woken == []
        bell.ring()
        bell.ring()
    assert woken == [begun + 1]


async def test_a_cancelled_wait_leaves_the_bell_to_the_next(autojump_clock: trio.testing.MockClock) -> None:
    bell = Bell()
    with trio.move_on_after(1) as scope:
        await bell.wait()
    assert scope.cancelled_caught
    bell.ring()

    async def wait() -> None:
        await bell.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await bell.wait()
        bell.ring()


async def test_a_moment_wakes_all_who_wait_and_stays(autojump_clock: trio.testing.MockClock) -> None:
    moment, woken = Moment(), []

    async def wait(who: int) -> None:
        await moment.wait()
        woken.append(who)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await moment.wait()
        assert scope.cancelled_caught
        for who in range(3):
            nursery.start_soon(wait, who)
        await trio.testing.wait_all_tasks_blocked()
        assert not moment.is_set()
        moment.set()
        assert moment.is_set()
        assert woken == []
    assert sorted(woken) == [0, 1, 2]
    moment.set()
    with trio.testing.assert_checkpoints():
        await moment.wait()


async def test_a_moment_that_comes_before_the_cancellation_counts() -> None:
    moment, heard = Moment(), []

    async def wait() -> None:
        await moment.wait()
        heard.append("moment")
        await trio.lowlevel.checkpoint()
        heard.append("more")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        moment.set()
        nursery.cancel_scope.cancel()
    assert heard == ["moment"]
