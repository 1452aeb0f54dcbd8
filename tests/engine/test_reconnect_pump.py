"""A lost connection made anew over real sockets: on the pump, where its port is taken again, and without it alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from support.frames import TEXT, frame, take_frame
from support.hand import PATIENCE_S, Bench, Party, Steady, accept_stream, media, open_bench, options
from talkpath.audio import AudioClip
from talkpath.dsp import pcmu_decode
from talkpath.events import StreamLost, StreamUp
from talkpath.records import EndReason
from talkpath.testing import quiescence
from talkpath.transport.clock import has_timerfd

pytestmark = pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")

CLIP = AudioClip(np.full(1600, 3000, np.int16), 8000)
LOUD = b"\x80" * 160
"""What the application says: the loudest of mu-law."""


def texts(messages: list[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """The whole messages in what an application was sent; the last frame may be cut off."""
    waiting = bytearray(b"".join(data for _, data in messages))
    found = []
    while (one := take_frame(waiting)) is not None:
        if one.opcode == TEXT:
            found.append(json.loads(one.payload))
    return found


async def lose(bench: Bench, party: Party, steps: int) -> None:
    """Cut the application's connection; `steps` pass before anybody answers again."""
    assert party.application is not None
    stream = party.stream
    assert stream is not None
    party.application.close()
    party.application = None
    await bench.until(lambda: stream._lost is not None)
    await bench.steps(steps)
    assert stream._connection is None
    with trio.fail_after(PATIENCE_S):
        party.application = await accept_stream(bench.listener)
    await bench.until(lambda: stream._connection is not None)


async def three_times(driver: str) -> list[Any]:
    """Lose one stream of a call three times, beside a steady call. -> what everybody got"""
    got: list[Any] = []
    config = options(driver=driver, connect_backoff_s=0.05)
    async with open_bench(config) as bench:
        party = await bench.call(reconnect_s=PATIENCE_S, fallback=CLIP, control_id="one")
        events: list[Any] = []
        party.call.on_event(events.append)
        party.caller_says = Steady(1).caller
        party.application_says = lambda step: frame(TEXT, media(LOUD)) if step % 4 == 2 else None
        await bench.steps(100)
        for _ in range(3):
            got.append(texts(party.messages))
            party.messages.clear()
            await lose(bench, party, 60)
            await bench.steps(100)
        got.append(texts(party.messages))
        beside = bench.beside
        assert beside is not None
        got.append((beside.payloads(), texts(beside.messages)))
        got.append([pcmu_decode(payload).tolist() for payload in party.payloads()])
        await party.leave()
        assert party.call.record is not None
        (record,) = party.call.record.streams
        got.append((record.reason, record.reconnects, record.application_ms, record.media_dropped))
        got.append([event for event in events if isinstance(event, StreamUp | StreamLost)])
    return got


def in_real_time(what: Callable[..., Any], *args: Any) -> Any:
    with quiescence():
        return trio.run(what, *args)


@pytest.mark.parametrize("driver", ["pump", "tasks"])
def test_a_port_that_was_lost_is_taken_again_and_nobody_beside_notices(driver: str) -> None:
    got = in_real_time(three_times, driver)
    lives, (beside, beside_told), heard, record, events = got[:4], got[4], got[5], got[6], got[7]
    ids = []
    for life in lives:
        assert life[0]["event"] == "start"
        ids.append(life[0]["start"]["streamId"])
        assert [message["sequenceNumber"] for message in life] == list(range(1, len(life) + 1))
        assert len(life) > 20
    assert len(set(ids)) == 4
    assert [event.stream_id for event in events if isinstance(event, StreamUp)] == ids[1:]
    assert [event.reason for event in events if isinstance(event, StreamLost)] == [EndReason.PEER_VANISHED] * 3
    assert record[:2] == (EndReason.PLATFORM_HUNG_UP, 3)
    assert len(beside) == len(heard)
    assert len(beside_told) >= len(beside) - 3
    flat = np.array(heard).ravel()
    told = np.flatnonzero(np.diff((np.abs(flat - 3000) < 150).astype(int)))
    assert len(told) == 6, "the fallback audio begins and ends three times, without a gap in it"
    assert np.abs(flat).max() > 30_000, "and the application is heard"
    assert np.abs(flat[-160:]).max() > 30_000, "to the last"


def test_both_drivers_lose_and_find_a_connection_alike() -> None:
    pump, tasks = (in_real_time(three_times, driver) for driver in ("pump", "tasks"))
    assert pump[:4] == tasks[:4]
    assert pump[4:] == tasks[4:]
