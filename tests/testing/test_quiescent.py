"""Leftovers of every kind are seen and named; their absence passes."""

from __future__ import annotations

import socket

import pytest
import trio

from talkpath.testing import assert_quiescent, quiescence, register_resource_counter


async def test_a_block_that_leaves_nothing_passes() -> None:
    with quiescence():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
        with socket.socket():
            pass


async def test_a_task_left_over_is_named() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(AssertionError, match=r"task .*sleep_forever"), quiescence():
            nursery.start_soon(trio.sleep_forever)
        with pytest.raises(AssertionError, match=r"task .*sleep_forever"):
            assert_quiescent()
        nursery.cancel_scope.cancel()
    assert_quiescent()


def test_a_socket_left_over_is_named() -> None:
    left = []
    with pytest.raises(AssertionError, match=r"file descriptor \d+: "), quiescence():
        left.append(socket.socket())
    left[0].close()


def test_a_registered_counter_is_compared_with_before() -> None:
    slots = [3]
    unregister = register_resource_counter("test slots", lambda: slots[0])
    try:
        with quiescence():
            slots[0] = 5
            slots[0] = 3
        with pytest.raises(AssertionError, match="test slots: 4, were 3"), quiescence():
            slots[0] = 4
        with pytest.raises(AssertionError, match="test slots: 4"):
            assert_quiescent()
    finally:
        unregister()
    assert_quiescent()


def test_the_error_of_the_block_itself_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), quiescence(), socket.socket():
        _ = 1 // 0


def test_a_whole_run_can_be_checked_from_outside() -> None:
    with quiescence():
        trio.run(trio.sleep, 0)
