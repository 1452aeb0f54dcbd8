"""Whatever goes wrong with one call on the pump, the call beside it is whole to the packet, and nothing is left over.

Real sockets, and steps taken by hand (see `support.hand`): what the call beside hears and is sent is compared with what
it is when nobody does anything wrong.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
import trio

from support import frames
from support.frames import PING, TEXT, frame, take_frame
from support.hand import (
    PATIENCE_S,
    STEPS_OF_PTIME,
    Bench,
    Party,
    Steady,
    media,
    new_caller,
    open_bench,
    options,
    rtp,
)
from talkpath._native import lib
from talkpath.engine import EngineConfig, RtpLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded
from talkpath.events import DigitReceived
from talkpath.line import Line, serve_memory_lines
from talkpath.records import CallRecord, EndReason
from talkpath.testing import quiescence
from talkpath.transport.clock import has_timerfd
from talkpath.transport.driver_pump import PumpDriver

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

    assert_nobody_else_notices(scene, 10 * STEPS_A_SECOND, options(stall_s=300))


def test_a_bot_that_never_reads_again_loses_its_stream_and_not_its_call() -> None:
    async def scene(bench: Bench) -> None:
        party = await bench.call(receive_buffer=4096)
        assert party.stream is not None
        party.reads = False
        # Who stalls is found out in real time, and the steps are taken by hand: how many of them there would be until
        # then depends on the machine. So nobody looks until all have been taken.
        party.stream.flushing = True
        await bench.steps(12 * STEPS_A_SECOND)  # more than the kernel keeps for a peer who does not read
        party.stream.flushing = False
        party.stream.on_full()
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

    assert_nobody_else_notices(scene, 13 * STEPS_A_SECOND, options(stall_s=0.2))


# ---- ten seconds of audio in one burst ----


def _in_messages_of_20_ms(audio: bytes) -> bytes:
    return b"".join(frame(TEXT, media(audio[at : at + 160])) for at in range(0, len(audio), 160))


def _in_one_message(audio: bytes) -> bytes:
    return frame(TEXT, media(audio))


def _in_one_message_with_more_in_it(audio: bytes) -> bytes:
    return frame(TEXT, media(audio, more="x" * 100))


def _in_fragments(audio: bytes) -> bytes:
    text = media(audio)
    cut = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    first = frame(TEXT, cut[0], fin=False)
    return first + b"".join(frame(frames.CONTINUATION, one, fin=one is cut[-1]) for one in cut[1:])


@pytest.mark.parametrize(
    "written", [_in_messages_of_20_ms, _in_one_message, _in_one_message_with_more_in_it, _in_fragments]
)
def test_ten_seconds_of_audio_in_one_burst_are_heard_to_the_sample(written: Callable[[bytes], bytes]) -> None:
    audio = random.Random(3).randbytes(80_000)

    async def scene(bench: Bench) -> None:
        party = await bench.call()
        await bench.steps(10)
        party.unsent = written(audio)
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, bench.driver._native.pool.n_blocks - bench.driver._native.pool.n_free)

        await bench.steps(11 * STEPS_A_SECOND, each=look)
        heard = b"".join(party.payloads())
        assert heard.count(audio) == 1
        assert set(heard.replace(audio, b"")) == {0xFF}
        assert most * 1024 <= IN_MAX + 256 * 1024
        await party.leave()

    assert_nobody_else_notices(scene, 12 * STEPS_A_SECOND)


def test_a_burst_beyond_the_bound_of_the_playout_is_cut_there_and_told() -> None:
    audio = random.Random(4).randbytes(80_000)

    async def scene(bench: Bench) -> None:
        party = await bench.call(playout_s=2)
        party.unsent = _in_messages_of_20_ms(audio)
        await bench.steps(11 * STEPS_A_SECOND)
        heard = b"".join(party.payloads())
        assert audio[:16_000] in heard
        assert audio not in heard
        await party.leave()
        assert party.stream is not None
        assert party.stream.record is not None
        assert party.stream.record.application_ms + party.stream.record.dropped_ms == 10_000

    assert_nobody_else_notices(scene, 12 * STEPS_A_SECOND)


# ---- descriptors and slots that come again ----


def descriptors(party: Party) -> tuple[int, int | None]:
    """Of a live call's leg and of its stream."""
    leg: Any = party.call.leg
    connection = party.stream._connection if party.stream is not None else None
    return leg._socket.fileno(), connection.link.fd if connection is not None else None


def telephone_event(seq: int, *, ended: bool) -> bytes:
    return rtp(seq, 0, bytes([5, (0x80 if ended else 0) | 10]) + (800).to_bytes(2, "big"), payload_type=101)


def test_what_came_for_an_ended_call_is_not_the_next_ones_who_has_its_descriptors_and_its_slot() -> None:
    async def scene(bench: Bench) -> None:
        reused = 0
        for round_ in range(8):
            old = await bench.call()
            before, slot = descriptors(old), old.call.slot
            await bench.steps(STEPS_OF_PTIME)
            assert old.application is not None
            for seq in range(1, 30):  # nobody has read any of it when the call ends
                old.caller.sendto(rtp(seq, seq * 160, b"\x11" * 160), old.address)
                old.application.send(frame(TEXT, media(b"\x22" * 160)) + frame(PING, b"old"))
            new = await bench.call(stream=False, before=old.call.hang_up)
            assert (new.call.slot, descriptors(new)[0]) == (slot, before[0])
            await old.leave()
            await bench.start_stream(new)
            reused += descriptors(new)[1] == before[1]
            speaks = Steady(round_)
            new.caller_says, new.application_says = speaks.caller, speaks.application
            await bench.steps(10 * STEPS_OF_PTIME)
            new.caller_says = new.application_says = lambda step: None
            await bench.steps(2 * STEPS_OF_PTIME)
            await new.leave()
            assert new.call.record is not None
            statistics = new.call.record.statistics
            assert (statistics.packets_received, statistics.packets_refused) == (10, 0)
            assert statistics.send_failures == 0
            assert new.stream is not None
            assert new.stream.record is not None
            assert (new.stream.record.messages_received, new.stream.record.application_ms) == (10, 200)
            assert new.stream.record.reason is EndReason.PLATFORM_HUNG_UP
            assert b"\x22" * 160 not in new.payloads()
            old.close()
            new.close()
            bench.parties.remove(old)
            bench.parties.remove(new)
        assert reused == 8

    assert_nobody_else_notices(scene, 3 * STEPS_A_SECOND)


@pytest.mark.parametrize("ring", [False, True], ids=["each call alone", "through the ring"])
@pytest.mark.parametrize("which", ["the leg's", "the stream's"])
def test_a_descriptor_that_was_closed_behind_our_back_costs_its_own_call_and_not_its_new_owner(
    which: str, ring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PumpDriver, "may_ring", ring)

    async def scene(bench: Bench) -> None:
        victim = await bench.call()
        leg, stream = descriptors(victim)
        assert stream is not None
        newcomer = await bench.call(stream=False, before=(lambda: os.close(leg)) if which == "the leg's" else None)
        if which == "the leg's":
            assert descriptors(newcomer)[0] == leg
            await bench.settle()
            assert victim.call.end_reason is EndReason.INTERNAL_ERROR
            assert isinstance(victim.call.cause, OSError)
            await bench.start_stream(newcomer)
        else:
            os.close(stream)
            await bench.start_stream(newcomer)
            assert descriptors(newcomer)[1] == stream
            await bench.settle()
            assert victim.stream is not None
            assert victim.stream.end_reason is EndReason.PEER_VANISHED
            assert victim.call.end_reason is None
        steady = Steady(5)
        newcomer.caller_says, newcomer.application_says = steady.caller, steady.application
        await victim.leave()
        await bench.steps(50 * STEPS_OF_PTIME)
        newcomer.caller_says = newcomer.application_says = lambda step: None
        await bench.steps(2 * STEPS_OF_PTIME)
        await newcomer.leave()
        assert newcomer.call.record is not None
        assert newcomer.call.record.statistics.packets_received == 50
        assert newcomer.call.record.streams[0].application_ms == 1000
        assert newcomer.call.record.streams[0].reason is EndReason.PLATFORM_HUNG_UP

    assert_nobody_else_notices(scene, 2 * STEPS_A_SECOND)


def test_a_slot_is_taken_again_while_events_of_its_last_owner_wait() -> None:
    async def scene(bench: Bench) -> None:
        old = await bench.call()
        await bench.steps(STEPS_OF_PTIME)
        native, slot = bench.driver._native, old.call.slot
        assert old.application is not None
        for seq in (1, 2, 3):
            old.caller.sendto(telephone_event(seq, ended=True), old.address)
        old.application.send(frame(TEXT, json.dumps({"event": "checkpoint", "streamId": "s", "name": "old"}).encode()))
        news: list[Party] = []

        async def take_over() -> None:
            # What the media thread does while Python is elsewhere.
            lib.tp_pump_read(native, bench.clock.at_ns)
            lib.tp_pump_tick(native, bench.clock.at_ns)
            waiting = native.n_attention
            assert waiting >= 2
            old.call.hang_up()
            assert native.n_attention <= waiting - 2
            news.append(await bench.call(stream=False))

        await bench.steps(before=take_over)
        (new,) = news
        assert new.call.slot == slot
        await bench.start_stream(new)
        steady = Steady(6)
        new.caller_says, new.application_says = steady.caller, steady.application
        await bench.steps(20 * STEPS_OF_PTIME)
        assert not [event for event in new.call._events.kept if isinstance(event, DigitReceived)]
        assert not [event for event in old.call._events.kept if isinstance(event, DigitReceived)]
        assert not [one for one in texts(new.written()) if one["event"] in ("dtmf", "playedStream")]
        await old.leave()
        await new.leave()
        assert old.call.record is not None
        assert old.call.record.reason is EndReason.PLATFORM_HUNG_UP
        assert new.call.record is not None
        assert new.call.record.statistics.digits_received == 0
        assert new.call.record.streams[0].marks == ()

    assert_nobody_else_notices(scene, STEPS_A_SECOND)


# ---- steps that come too late, and clocks that jump ----


@pytest.mark.parametrize("late", [3, 11, 12, 13, 19, 199])
def test_steps_that_are_late_again_and_again_make_up_60_ms_and_no_more(late: int) -> None:
    n_late = 60

    async def run() -> tuple[CallRecord, list[tuple[int, bytes]]]:
        async with open_bench() as bench:
            others = [await bench.call(stream=False) for _ in range(30)]
            for other in others:
                other.caller_says = Steady(other.number).caller
            beside = bench.beside
            assert beside is not None
            await bench.steps(STEPS_OF_PTIME)
            native, pool = bench.driver._native, bench.engine.pool.native
            blocks = pool.n_blocks - pool.n_free
            before = len(beside.datagrams)

            def look() -> None:
                assert native.handover[0].n_outputs == native.handover[1].n_outputs == 0
                assert pool.n_blocks - pool.n_free <= blocks + 60 * 8 + 8  # of what is to be played, 60 s
                for party in bench.parties:
                    assert sum(1 for step, _ in party.datagrams if step == bench.step_number) <= 4

            await bench.steps(n_late, late=late, each=look)
            sent, stalled = len(beside.datagrams) - before, beside.call.statistics().loop_stall_samples
            assert sent * 160 + stalled == pytest.approx(n_late * (late + 1) * 40, abs=160)
            if late >= 19:
                assert sent == n_late
            elif late < 12:
                assert stalled == 0

            await bench.steps(50 * STEPS_OF_PTIME)  # and then all is as it was
            assert beside.call.statistics().loop_stall_samples == stalled
            for party in bench.parties:
                steps = [step for step, _ in party.datagrams[-50:]]
                assert [b - a for a, b in pairwise(steps)] == [STEPS_OF_PTIME] * 49
            datagrams = beside.datagrams
            beside.caller_says = beside.application_says = lambda step: None
            await beside.leave()
            assert beside.call.record is not None
            return beside.call.record, datagrams

    with quiescence():
        record, datagrams = trio.run(run)
    # The caller's clock and ours are still the same: what was skipped is skipped in the timestamps, too.
    first, last = (int.from_bytes(packet[4:8], "big") for _, packet in (datagrams[0], datagrams[-1]))
    elapsed = (datagrams[-1][0] - datagrams[0][0]) * 40
    assert (last - first) % (1 << 32) == elapsed
    assert [int.from_bytes(b[2:4], "big") - int.from_bytes(a[2:4], "big") for (_, a), (_, b) in pairwise(datagrams)]
    assert record.statistics.clock_samples == pytest.approx(datagrams[-1][0] * 40, abs=160)


def test_a_clock_that_leaps_an_hour_costs_what_was_missed_and_nobody_who_still_speaks() -> None:
    hour = 3600 * STEPS_A_SECOND

    async def run() -> None:
        async with open_bench() as bench:
            beside = bench.beside
            assert beside is not None
            silent = await bench.call(leg={"media_timeout_s": 60})
            listens = await bench.call(stream=False, leg={"media_timeout_s": 0})
            await bench.start_stream(listens)
            await bench.steps(STEPS_A_SECOND)
            bench.step_number += hour
            n = len(beside.datagrams)
            await bench.steps(1)
            assert len(beside.datagrams) == n + 1
            assert silent.call.end_reason is EndReason.MEDIA_TIMED_OUT
            await bench.steps(STEPS_A_SECOND - 1)
            assert len(beside.datagrams) == n + 51
            stalled = beside.call.statistics().loop_stall_samples
            assert stalled == pytest.approx(3600 * 8000, abs=160)
            # Who had nothing to say is asked before he is given up; here he answers.
            assert [one.opcode for one in all_frames(listens.written()) if one.opcode == PING] == [PING]
            assert listens.application is not None
            listens.application.send(frame(frames.PONG))
            await bench.steps(60 * STEPS_A_SECOND // 100, late=99)
            assert beside.stream is not None
            assert listens.stream is not None
            assert beside.stream.end_reason is None
            assert beside.call.end_reason is None
            assert listens.call.end_reason is None

    with quiescence():
        trio.run(run)


def all_frames(data: bytes) -> list[frames.Frame]:
    waiting = bytearray(data)
    found = []
    while (one := take_frame(waiting)) is not None:
        found.append(one)
    return found


@pytest.mark.parametrize("leap_s", [-86_400 * 365, 86_400 * 365])
def test_a_wall_clock_that_is_set_anew_moves_no_timestamp_of_a_stream(leap_s: float) -> None:
    async def scene(bench: Bench) -> None:
        await bench.steps(STEPS_A_SECOND)
        bench.wall_clock_s += leap_s

    assert_nobody_else_notices(scene, 2 * STEPS_A_SECOND)


# ---- no descriptor left ----


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Leave the process not one descriptor to open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("spare", [64, 0])
def test_without_a_descriptor_left_what_is_new_is_refused_and_what_lives_goes_on(spare: int) -> None:
    def is_refusal(exc: Exception) -> bool:
        if spare:  # before anything is tried
            return isinstance(exc, CallEnded) and exc.refusal is not None and exc.refusal.kind == "descriptors"
        return isinstance(exc, OSError) and exc.errno == errno.EMFILE

    async def scene(bench: Bench) -> None:
        live = await bench.call(stream=False)
        waiting = new_caller()
        with quiescence(), no_descriptor_left():
            for _ in range(3):
                with pytest.raises((CallEnded, OSError)) as refused:
                    await bench.call(caller=waiting)
                assert is_refusal(refused.value)
                await bench.start_stream(live)
                assert isinstance(live.refused, CallEnded)
                assert live.refused.reason is EndReason.CONNECT_FAILED
                assert isinstance(live.refused.cause, OSError)
                assert live.refused.cause.errno == errno.EMFILE
                live.refused = None
                await bench.steps(STEPS_OF_PTIME)
            assert live.call.end_reason is None
            assert bench.engine.statistics().calls == 2
        steady = Steady(8)
        await bench.start_stream(live)  # and now that there are some again, all is well
        late = await bench.call(caller=waiting)
        for party in (live, late):
            party.caller_says, party.application_says = steady.caller, steady.application
        await bench.steps(20 * STEPS_OF_PTIME)
        assert len(live.datagrams) == 23
        assert len(late.datagrams) == 20
        assert (live.refused, late.refused) == (None, None)
        for party in (live, late):
            assert len(set(party.payloads())) > 15
            await party.leave()

    assert_nobody_else_notices(scene, STEPS_A_SECOND, options(spare_descriptors=spare))


async def test_an_engine_that_cannot_have_its_descriptors_is_not_opened_and_leaves_nothing() -> None:
    with quiescence():
        with no_descriptor_left(), pytest.raises(OSError):
            async with open_engine(EngineConfig(pool_bytes=1 << 20)):
                pass
        async with (
            open_engine(EngineConfig(pool_bytes=1 << 20)) as engine,
            engine.open_call(RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", 9))),
        ):
            await trio.sleep(0.05)


# ---- what a turn without Python has left to Python ----


def test_messages_that_wait_for_python_are_not_the_next_calls_who_has_the_slot() -> None:
    """A stay comes back with them, and a task that ends the call and begins another may run before the step."""

    async def scene(bench: Bench) -> None:
        native = bench.driver._native
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_memory_lines, Line.wait_ended, "bot")
            party = await bench.call(stream=False)
            nursery.start_soon(party.call.start_stream, StreamSpec(url=url))
            await bench.until(
                lambda: any(stream is not None and stream.ready.is_set() for stream in party.call.streams)
            )
            await bench.steps(STEPS_OF_PTIME - 1)
            waiting = 0
            for _ in range(STEPS_OF_PTIME):
                lib.tp_pump_tick(native, bench.clock.at_ns + 5_000_000)
                bench.clock.at_ns += 5_000_000
                waiting = max(waiting, native.handover[native.filling].n_outputs)
            assert waiting
            party.call.end(EndReason.PLATFORM_HUNG_UP)
            assert native.handover[native.filling].n_outputs == 0
            await party.leave()
            nursery.cancel_scope.cancel()

    async def run() -> None:
        async with open_bench(beside=False) as bench:
            await scene(bench)

    with quiescence():
        trio.run(run)
