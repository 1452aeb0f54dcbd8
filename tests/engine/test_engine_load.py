"""What a caller's server meets when an engine or a server of lines takes no more, and what statistics say of it."""

from __future__ import annotations

import gc
import logging
import time
from functools import partial
from typing import Any

import pytest
import trio

from support.calls import engine, in_virtual_time
from support.peer import Peer, connect
from talkpath import LineServer, prometheus_text
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded
from talkpath.line import Line, ServeConfig, serve_memory_lines
from talkpath.records import EndReason
from talkpath.transport.clock import current_clock
from talkpath.transport.load import Load


async def patient(line: Line) -> None:
    await line.wait_ended()


def test_a_full_engine_says_when_to_ask_again_and_takes_the_next_when_one_has_left() -> None:
    async def scene() -> None:
        async with engine(EngineConfig(max_calls=1)) as which:
            async with which.open_call(MemoryLeg()):
                with pytest.raises(CallEnded) as refused:
                    async with which.open_call(MemoryLeg()):
                        pass
                assert refused.value.reason is EndReason.NO_CAPACITY
                assert refused.value.refusal is not None
                assert (refused.value.refusal.kind, refused.value.refusal.retry_after_s) == ("calls", 1)
            async with which.open_call(MemoryLeg()):
                pass
            await which.drain(0)
            with pytest.raises(CallEnded) as drained:
                async with which.open_call(MemoryLeg()):
                    pass
            assert drained.value.reason is EndReason.DRAINED
            assert drained.value.refusal is not None
            assert drained.value.refusal.retry_after_s is None
            statistics = which.statistics()
            assert (statistics.calls, statistics.calls_opened) == (0, 2)
            assert statistics.refused == {"calls": 1, "draining": 1}

    in_virtual_time(scene)


@pytest.mark.parametrize("off", [None, 0])
def test_an_engine_without_limits_takes_calls(off: Any) -> None:
    async def scene() -> None:
        options = EngineConfig(max_calls=off, max_streams=off, max_busy_share=off, max_lateness_ms=off)
        async with engine(options) as which, which.open_call(MemoryLeg()), which.open_call(MemoryLeg()):
            which.admit_stream()
            assert which.statistics().calls == 2

    in_virtual_time(scene)


def test_streams_of_all_calls_count() -> None:
    async def scene() -> None:
        async with trio.open_nursery() as nursery, engine(EngineConfig(max_streams=1)) as which:
            url = await nursery.start(serve_memory_lines, patient, "bot")
            async with which.open_call(MemoryLeg()) as call:
                await call.start_stream(StreamSpec(url=url))
                with pytest.raises(CallEnded, match="max_streams"):
                    which.admit_stream()
                with pytest.raises(CallEnded, match="max_streams"):
                    await which.open_call(MemoryLeg()).__aenter__()
            nursery.cancel_scope.cancel()

    in_virtual_time(scene)


def test_in_virtual_time_statistics_hold_nothing_of_this_machine() -> None:
    async def scene() -> Any:
        async with engine() as which, which.open_call(MemoryLeg()):
            await trio.sleep(1)
            return which.statistics()

    first, second = in_virtual_time(scene), in_virtual_time(scene)
    assert first == second
    assert (first.load.resident_bytes, first.load.descriptors, first.load.busy_share) == (0, 0, 0.0)
    assert sum(first.load.lateness_counts) == first.ticks == first.load.lateness_counts[0]


def test_lateness_since_an_earlier_snapshot_is_that_of_the_ticks_since() -> None:
    async def scene() -> None:
        async with engine() as which, which.open_call(MemoryLeg()):
            await trio.sleep(1)
            before = which.statistics()
            for _ in range(10):
                which.driver.lateness.add(30_000_000)
            then = which.statistics()
            for _ in range(10):
                which.driver.lateness.add(2_000_000)
            assert which.statistics(since=then).lateness_max_ms == pytest.approx(2.1)
            assert which.statistics(since=before).lateness_max_ms == 30.0
            assert which.statistics().lateness_max_ms == 30.0

    in_virtual_time(scene)


@pytest.mark.smoke
async def test_an_overloaded_machine_refuses_at_both_ends_and_goes_on_serving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    share = 0.75
    servers: list[LineServer] = []
    monkeypatch.setattr(Load, "expected_share", lambda self: share)
    async with trio.open_nursery() as nursery, engine(EngineConfig(max_lateness_ms=None)) as which:
        serve = partial(
            serve_memory_lines,
            patient,
            "bot",
            config=ServeConfig(max_lateness_ms=None, on_serving=servers.append),
        )
        await nursery.start(serve)
        call = which.open_call(MemoryLeg())
        with pytest.raises(CallEnded, match="75% of a processor") as refused:
            await call.__aenter__()
        assert refused.value.reason is EndReason.OVERLOADED
        assert refused.value.refusal is not None
        assert (refused.value.refusal.status, refused.value.refusal.retry_after_s) == (503, 5)
        peer: Peer = connect("bot")
        assert (await peer.upgrade_as_client()).startswith("HTTP/1.1 503 ")
        assert peer.headers["retry-after"] == "5"
        peer.link.close()
        share = 0.5
        async with which.open_call(MemoryLeg()):
            pass
        peer = connect("bot")
        assert "101" in await peer.upgrade_as_client()
        peer.link.close()
        assert which.statistics().refused == servers[0].statistics().refused == {"busy": 1}
        assert 'talkpath_server_refusals_total{limit="busy"} 1' in prometheus_text(servers[0])
        assert 'talkpath_engine_refusals_total{limit="busy"} 1' in prometheus_text(which)
        nursery.cancel_scope.cancel()


@pytest.mark.smoke
async def test_an_engine_that_keeps_its_own_calls_waiting_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "talkpath")
    before = gc.get_threshold(), gc.isenabled()
    # What other programs of this machine do to the timing must refuse nobody here.
    async with engine(EngineConfig(max_busy_share=None, max_lateness_ms=None)) as which:
        assert gc.get_freeze_count() > 0
        async with which.open_call(MemoryLeg()):
            await trio.sleep(0.1)
            for _ in range(2):
                time.sleep(0.12)  # noqa: ASYNC251 - the very thing
                await trio.sleep(0.3)
            statistics = which.statistics()
        assert statistics.load.loop_stalls >= 2
        assert statistics.load.resident_bytes > 1 << 20
        assert 0 < statistics.load.descriptors <= statistics.load.descriptors_max
        assert statistics.load.gc_freezes >= 1
        ended = which.statistics()
        # 60 ms are made up; the rest of each stall was skipped, and stays counted when its call is gone.
        assert ended.loop_stall_ms >= statistics.loop_stall_ms >= 40
    warnings = [record for record in caplog.records if "late" in record.message]
    assert len(warnings) == 1
    assert warnings[0].name == "talkpath.engine.engine"
    assert "likely cause: the thread waited" in warnings[0].message
    assert "with 1 calls and lines live" in warnings[0].message
    assert (gc.get_threshold(), gc.isenabled()) == before
    assert gc.get_freeze_count() == 0


@pytest.mark.smoke
async def test_two_engines_of_one_run_share_one_load() -> None:
    async with engine(EngineConfig(gc="leave")) as first, engine() as second:
        clock = current_clock()
        assert clock is not None
        assert first.clock.load is second.clock.load is clock.load
        assert len(clock.load.on_stall) == 2
    assert clock.load.on_stall == []
