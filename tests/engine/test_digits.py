"""Digits to the caller: over RTP as telephone-events, into memory as they are; when they have gone out, or why not."""

from __future__ import annotations

import socket
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import trio

from support.virtual import speech, virtual_engine
from talkpath.audio import AudioClip
from talkpath.engine.config import StreamSpec
from talkpath.engine.leg import Leg
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.engine.rtp_leg import RtpLeg
from talkpath.errors import CallEnded, ConfigError, PlayoutFull
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.records import EndReason, Outcome, Played

LEGS = {
    "memory": MemoryLeg,
    "memory, 30 ms": partial(MemoryLeg, ptime_ms=30),
    "rtp": partial(RtpLeg, local=("127.0.0.1", 0), remote=("127.0.0.1", 9)),
}


@pytest.mark.parametrize(("kind", "each_ms"), [("memory", 200), ("memory, 30 ms", 240), ("rtp", 200)])
async def test_send_digits_returns_when_they_have_gone_out(autojump: object, kind: str, each_ms: int) -> None:
    leg: Leg = LEGS[kind]()
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        await trio.sleep(0.1)
        start = trio.current_time()
        await call.send_digits("12a#")
        took_ms = 1000 * (trio.current_time() - start)
        assert 4 * each_ms - leg.ptime_ms <= took_ms <= 4 * each_ms + leg.ptime_ms
        assert call.statistics().digits_sent == 4
        assert call.statistics().digits_refused == 0
        if isinstance(leg, MemoryLeg):
            assert leg.digits() == ["1", "2", "A", "#"]


async def test_what_plays_rests_while_its_digits_go_out(autojump: object) -> None:
    audio = speech(8000)
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:
        played: list[Played] = []

        async def play() -> None:
            played.append(await call.play(AudioClip(audio, 8000)))

        nursery.start_soon(play)
        await trio.sleep(0.2)
        await call.send_digits("12")
        await trio.sleep(2)
        heard = np.trim_zeros(call.leg.heard())
        gap = np.flatnonzero(heard == 0)
        pauses = [b - a for a, b in pairwise(np.flatnonzero(heard)) if b - a > 100]
        assert len(pauses) == 1
        assert pauses[0] in range(3200, 3205)
        assert len(heard) == 8000 + 3200
        assert len(gap) >= 3200
        assert played == [Played(8000, Outcome.PLAYED, True)]


async def test_a_tester_hears_each_digit_of_a_bot_when_it_begins(autojump: object) -> None:
    pressed: list[tuple[float, str]] = []
    leg = MemoryLeg(on_digit=lambda digit: pressed.append((trio.current_time(), digit)))

    async def bot(line: Line) -> None:
        await line.send_digits("5")
        await line.send_digits("6#")
        await line.send_digits("7" * 64)
        await trio.sleep(20)

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with virtual_engine() as engine, engine.open_call(leg) as call:
            stream = await call.start_stream(StreamSpec(url=url, bidirectional=True))
            await trio.sleep(1)
            await call.stop_stream()
        nursery.cancel_scope.cancel()
    assert "".join(digit for _, digit in pressed) == "56#"
    assert [round(b - a, 6) for (a, _), (b, _) in pairwise(pressed)] == [0.2, 0.2]
    assert stream.record is not None
    assert stream.record.digits_sent == 3
    assert stream.record.refused == {"too_many_digits": 1}
    assert call.record is not None
    assert (call.record.statistics.digits_sent, call.record.statistics.digits_refused) == (3, 64)


@pytest.mark.parametrize("kind", LEGS)
async def test_digits_of_a_stream_that_is_gone_are_not_sent(autojump: object, kind: str) -> None:
    leg: Leg = LEGS[kind]()

    async def bot(line: Line) -> None:
        await line.send_digits("1234")
        await trio.sleep(20)

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with virtual_engine() as engine, engine.open_call(leg) as call:
            await call.start_stream(StreamSpec(url=url, bidirectional=True))
            await trio.sleep(0.3)
            await call.stop_stream()
            start = trio.current_time()
            await call.send_digits("9")
            assert trio.current_time() - start < 0.5
            if isinstance(leg, MemoryLeg):
                assert leg.digits() == ["1", "2", "9"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["memory", "rtp"])
async def test_what_cannot_be_sent_is_refused_in_its_own_words(autojump: object, kind: str) -> None:
    async with virtual_engine() as engine, engine.open_call(LEGS[kind]()) as call:
        for digits in ("", "12x", "1 2", "1w2", "\u0661", 12, None):
            with pytest.raises(ConfigError, match=r"0-9 \* # A-D"):
                await call.send_digits(digits)  # type: ignore[arg-type]
        with pytest.raises(PlayoutFull, match="64 digits"):
            await call.send_digits("1" * 65)
        await call.send_digits("1")
        assert call.statistics().digits_refused == 65


async def test_a_leg_without_telephone_event_says_so_and_counts(autojump: object) -> None:
    address, nowhere = ("127.0.0.1", 0), ("127.0.0.1", 9)
    leg = RtpLeg(local=address, remote=nowhere, event_payload_type=None, inband_digits=False)
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        with pytest.raises(ConfigError, match="no telephone-event"):
            await call.send_digits("123")
        assert call.statistics().digits_refused == 3
        assert call.statistics().digits_sent == 0


@pytest.mark.parametrize("kind", ["memory", "rtp"])
async def test_digits_that_wait_end_with_their_call(autojump: object, kind: str) -> None:
    async with virtual_engine() as engine, engine.open_call(LEGS[kind]()) as call, trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(CallEnded):
                await call.send_digits("1234567890")

        nursery.start_soon(send)
        await trio.sleep(0.5)
        call.hang_up(EndReason.CALLER_HUNG_UP)


async def test_giving_up_on_digits_stops_none_of_them(autojump: object) -> None:
    leg = MemoryLeg()
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        with trio.move_on_after(0.05):
            await call.send_digits("12")
        await call.send_digits("3")
        assert leg.digits() == ["1", "2", "3"]
        assert trio.current_time() == pytest.approx(0.6, abs=0.04)


async def test_the_events_go_out_on_the_wire(autojump: object) -> None:
    caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    caller.setblocking(False)
    caller.bind(("127.0.0.1", 0))
    leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname())
    with caller:
        async with virtual_engine() as engine, engine.open_call(leg) as call:
            await call.send_digits("4")
            datagrams = []
            while True:
                try:
                    datagrams.append(caller.recv(2048))
                except BlockingIOError:
                    break
    events = [datagram[12:] for datagram in datagrams if datagram[1] & 0x7F == 101]
    assert {event[0] for event in events} == {4}
    assert sum(event[1] >> 7 for event in events) == 3, "the end goes out three times before send_digits returns"
