"""Turns: so many in a tick and no more, in order, cancelled or not; and what that means for calls that end at once."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from support.virtual import run_virtually, virtual_engine
from talkpath.engine import Call, EngineConfig, MemoryLeg
from talkpath.records import EndReason
from talkpath.transport.pace import PACE_S, Pace


def test_the_first_of_a_tick_do_not_even_pass_a_checkpoint() -> None:
    async def main() -> None:
        pace = Pace(3)
        for _ in range(3):
            with trio.testing.assert_no_checkpoints():
                await pace.turn()
        with trio.testing.assert_checkpoints():
            await pace.turn()
        await trio.sleep(PACE_S)
        with trio.testing.assert_no_checkpoints():
            await pace.turn()

    run_virtually(main)


@pytest.mark.parametrize("n", [1, 20, 21, 100, 1000])
def test_turns_come_in_order_so_many_in_each_tick(n: int) -> None:
    async def main() -> list[tuple[float, int]]:
        pace, turns = Pace(20), []

        async def one(number: int) -> None:
            await pace.turn()
            turns.append((trio.current_time(), number))

        async with trio.open_nursery() as nursery:
            for number in range(n):
                nursery.start_soon(one, number)
                await trio.testing.wait_all_tasks_blocked()
        return turns

    turns = run_virtually(main)
    assert sorted(number for _, number in turns) == list(range(n))
    assert max(Counter(round(at / PACE_S) for at, _ in turns).values()) <= 21
    assert turns[-1][0] <= (n // 20 + 1) * PACE_S + 1e-9
    order = [number for _, number in turns if number != 20]  # who wakes the others goes last
    assert [number // 20 for number in order if number < 20] == [0] * min(n, 20)
    assert [(number - 1) // 20 for number in order if number > 20] == sorted((k - 1) // 20 for k in range(21, n))


def test_a_turn_is_waited_for_and_taken_by_who_was_cancelled() -> None:
    async def main() -> list[float]:
        pace, turns = Pace(1), []

        async def one() -> None:
            try:
                await trio.sleep_forever()
            finally:
                await pace.turn()
                turns.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return turns

    turns = run_virtually(main)
    assert [round(at / PACE_S) for at in turns] == [0, 1, 2, 3, 4]


def test_calls_whose_nursery_is_cancelled_end_a_few_in_each_tick_and_the_others_go_on() -> None:
    async def main() -> None:
        ended: list[float] = []
        calls: list[Call] = []
        async with virtual_engine(EngineConfig(pool_bytes=1 << 24, hang_up_pace=10)) as engine:

            async def one() -> None:
                async with engine.open_call(MemoryLeg()) as call:
                    calls.append(call)
                    await trio.sleep_forever()

            async with engine.open_call(MemoryLeg()) as beside:
                async with trio.open_nursery() as nursery:
                    for _ in range(95):
                        nursery.start_soon(one)
                    await trio.sleep(1.0001)
                    assert len(calls) == 95
                    began = trio.current_time()

                    async def watch() -> None:
                        with trio.CancelScope(shield=True):
                            while len(ended) < 95:
                                now = sum(call.end_reason is not None for call in calls)
                                ended.extend([trio.current_time()] * (now - len(ended)))
                                await trio.sleep(0.001)

                    nursery.start_soon(watch)
                    nursery.cancel_scope.cancel()
                by_tick = Counter(int((at - began) / PACE_S + 0.01) for at in ended)
                assert max(by_tick.values()) <= 12
                assert len(by_tick) >= 8
                assert trio.current_time() - began <= 0.06
                assert beside.end_reason is None
                assert engine.statistics().calls == 1
            assert {call.end_reason for call in calls} == {EndReason.CANCELLED}

    run_virtually(main)
