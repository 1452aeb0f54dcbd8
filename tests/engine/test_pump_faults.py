"""Whatever goes wrong with one call on the pump, the call beside it is whole to the packet, and nothing is left over.

Real sockets, and steps taken by hand (see `support.hand`): what the call beside hears and is sent is compared with what
it is when nobody does anything wrong.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Awaitable, Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
import trio

from support import frames
from support.frames import PING, TEXT, frame, take_frame
from support.hand import (
    PATIENCE_S,
    STEP_NS,
    STEPS_OF_PTIME,
    Bench,
    Party,
    Steady,
    accept_stream,
    hand_clock,
    media,
    open_bench,
    rtp,
)
from talkpath._native import lib
from talkpath.dsp import pcmu_encode
from talkpath.engine import EngineConfig, StreamSpec
from talkpath.errors import CallEnded
from talkpath.events import DigitReceived
from talkpath.records import CallRecord, EndReason
from talkpath.testing import ToneSource, quiescence
from talkpath.transport.clock import has_timerfd

pytestmark = pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")

STEPS_A_SECOND = 200
SILENCE = b"\xff" * 160
MEDIA_MAX: int = lib.TP_PUMP_MEDIA_MAX
CONTROL_MAX: int = lib.TP_PUMP_CONTROL_MAX
IN_MAX: int = lib.TP_PUMP_IN_MAX

Scene = Callable[[Bench], Awaitable[None]]
Whole = tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]


def play(scene: Scene | None, n_steps: int, *, late: int = 0, config: EngineConfig | None = None) -> Whole:
    """Play a scene beside a steady call, which goes on for `n_steps` in all; return what its two parties got."""

    async def run() -> Whole:
        async with open_bench(config) as bench:
            if scene is not None:
                await scene(bench)
            assert bench.step_number <= n_steps, f"the scene took {bench.step_number} steps"
            while bench.step_number < n_steps:
                await bench.steps(late=late)
            beside = bench.beside
            assert beside is not None
            assert beside.call.end_reason is None
            return beside.datagrams, beside.messages

    with quiescence():
        return trio.run(run)


@lru_cache
def undisturbed(n_steps: int) -> Whole:
    """What the parties of the call beside get when nothing is wrong."""
    return play(None, n_steps)


def assert_nobody_else_notices(scene: Scene, n_steps: int, config: EngineConfig | None = None) -> None:
    datagrams, messages = undisturbed(n_steps)
    assert len(datagrams) == n_steps // STEPS_OF_PTIME
    assert len(messages) > n_steps // STEPS_OF_PTIME
    assert play(scene, n_steps, config=config) == (datagrams, messages)


def texts(data: bytes) -> list[dict[str, Any]]:
    """The messages in what an application was sent; whole frames, or this fails."""
    waiting = bytearray(data)
    found = []
    while waiting:
        one = take_frame(waiting)
        assert one is not None, "a frame was cut off"
        if one.opcode == TEXT:
            found.append(json.loads(one.payload))
    return found


# ---- a bot that stops reading ----


def test_a_bot_that_stops_reading_for_a_while_loses_whole_messages() -> None:
    async def scene(bench: Bench) -> None:
        party = await bench.call(receive_buffer=4096)
        party.caller_says = Steady(1).caller
        party.reads = False
        most = 0

        def look() -> None:
            nonlocal most
            assert party.stream is not None
            connection = party.stream._connection
            assert connection is not None
            if connection._port:
                most = max(most, connection._state.out_bytes)

        await bench.steps(8 * STEPS_A_SECOND, each=look)
        assert party.stream is not None
        connection = party.stream._connection
        assert connection is not None
        dropped = connection.media_dropped_so_far()
        assert dropped > 100
        assert MEDIA_MAX // 2 < most <= MEDIA_MAX

        party.reads = True

        def read_dry() -> bool:
            party.listen(bench.step_number)
            return not connection.backlogged()

        await bench.until(read_dry)  # in real time: a window that was closed takes its time to open
        for _ in range(50):
            await bench.steps(STEPS_OF_PTIME)
            await bench.until(read_dry)
        assert party.call.end_reason is None
        assert party.stream.end_reason is None
        assert connection.media_dropped_so_far() == dropped
        numbers = [int(one["media"]["chunk"]) for one in texts(party.written()) if one["event"] == "media"]
        assert len(numbers) + dropped >= 9 * 50 - 2
        leaps = [b - a - 1 for a, b in pairwise(numbers) if b - a != 1]
        assert sum(leaps) == dropped

        assert party.datagrams  # the caller is sent silence all the while
        await party.leave()

    assert_nobody_else_notices(scene, 10 * STEPS_A_SECOND, EngineConfig(stall_s=300, pool_bytes=8 << 20))


def test_a_bot_that_never_reads_again_loses_its_stream_and_not_its_call() -> None:
    async def scene(bench: Bench) -> None:
        party = await bench.call(receive_buffer=4096)
        assert party.stream is not None
        party.reads = False
        await bench.steps(6 * STEPS_A_SECOND)
        with trio.fail_after(PATIENCE_S):
            await party.stream.ended.wait()
        assert party.stream.end_reason is EndReason.PEER_STALLED
        assert party.stream.record is not None
        assert party.stream.record.media_dropped > 50
        assert party.call.end_reason is None
        heard = len(party.datagrams)
        await bench.steps(STEPS_OF_PTIME)
        assert len(party.datagrams) == heard + 1
        await party.leave()

    config = EngineConfig(stall_s=0.2, goodbye_s=0.1, pool_bytes=8 << 20)
    assert_nobody_else_notices(scene, 7 * STEPS_A_SECOND, config)
