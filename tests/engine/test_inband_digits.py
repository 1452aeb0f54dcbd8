"""Digits in the caller's audio, at both ends: found, told once, and sent as tones; what generators make is played."""

from __future__ import annotations

import re
import textwrap
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trio

from support.platform import Platform, instant, open_line
from support.virtual import virtual_engine
from talkpath.audio import write_audio
from talkpath.dsp import ToneDetector, call_progress, dtmf
from talkpath.engine import MemoryLeg, RtpLeg, StreamSpec, WavLeg
from talkpath.errors import CallEnded
from talkpath.events import DigitReceived
from talkpath.line import Line, LineConfig, serve_memory_lines
from talkpath.records import EndReason

FRAME = 160
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sound.md"
NOWHERE = {"local": ("127.0.0.1", 0), "remote": ("127.0.0.1", 9)}


@pytest.mark.parametrize("sample_rate_hz", [8000, 16000])
async def test_keys_that_are_only_heard_reach_the_call_and_its_application(
    autojump: object, sample_rate_hz: int
) -> None:
    pressed: list[str] = []

    async def bot(line: Line) -> None:
        pressed.extend([digit async for digit in line.digits()])

    leg = MemoryLeg(sample_rate_hz=sample_rate_hz, inband_digits=True)
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with virtual_engine() as engine, engine.open_call(leg) as call:
            await call.start_stream(StreamSpec(url=url, bidirectional=True))
            await trio.sleep(0.1)
            leg.say(dtmf("42#", 60, sample_rate_hz, pause_ms=60))
            await trio.sleep(1)
            leg.press("7")
            leg.say(dtmf("7", 80, sample_rate_hz))
            await trio.sleep(1)
            call.hang_up(EndReason.CALLER_HUNG_UP)
            at = [event.at_sample async for event in call.events() if isinstance(event, DigitReceived)]
        nursery.cancel_scope.cancel()
    assert "".join(pressed) == "42#7"
    assert call.record is not None
    assert call.record.statistics.digits_received == 4
    apart_ms = [(later - earlier) * 1000 / sample_rate_hz for earlier, later in pairwise(at[:3])]
    assert apart_ms == pytest.approx([120, 120], abs=10)


async def test_a_leg_listens_for_keys_only_where_it_was_asked_to_or_would_lose_them(autojump: object) -> None:
    assert not RtpLeg(**NOWHERE).inband_digits
    assert RtpLeg(**NOWHERE, inband_digits=True).inband_digits
    assert RtpLeg(**NOWHERE, event_payload_type=None).inband_digits
    assert not RtpLeg(**NOWHERE, event_payload_type=None, inband_digits=False).inband_digits
    leg = MemoryLeg()
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        leg.say(dtmf("1", 100))
        await trio.sleep(0.5)
        assert call.statistics().digits_received == 0


async def test_a_caller_from_a_file_presses_what_is_on_it(autojump: object, tmp_path: object) -> None:
    path = f"{tmp_path}/keys.wav"
    write_audio(path, np.concatenate([np.zeros(800, np.int16), dtmf("147")]), 8000)
    async with virtual_engine() as engine, engine.open_call(WavLeg(path, inband_digits=True)) as call:
        await trio.sleep(2)
        assert call.statistics().digits_received == 3


async def test_digits_to_a_caller_without_telephone_events_take_their_time(autojump: object) -> None:
    leg = RtpLeg(**NOWHERE, event_payload_type=None)
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        await trio.sleep(0.1)
        start = trio.current_time()
        await call.send_digits("12a#")
        assert 0.78 <= trio.current_time() - start <= 0.82
        assert (call.statistics().digits_sent, call.statistics().digits_refused) == (4, 0)


async def test_what_the_generators_make_can_be_played(autojump: object) -> None:
    """The page's own lines are run: they play a busy tone, three seconds of ringback and two digits."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (lines,) = (block for block in blocks if "call_progress" in block)
    made: dict[str, Any] = {"trio": trio}
    exec("async def page(call):\n" + textwrap.indent(lines, "    "), made)
    leg = MemoryLeg()
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        await made["page"](call)
    heard = leg.heard()
    first = np.flatnonzero(heard)[0]
    busy = call_progress("busy", "de", 960)
    assert np.array_equal(heard[first - 1 : first - 1 + len(busy)], busy)
    ringback = call_progress("ringback", "gb", 2000)
    begin = first - 1 + len(busy)
    later = heard[begin:]
    offset = np.flatnonzero(later)[0] - 1
    assert np.array_equal(later[offset : offset + len(ringback)], ringback)
    assert [event.digit for event in ToneDetector().process(heard) if not event.ended] == ["1", "2"]


async def say(platform: Platform, samples: npt.NDArray[np.int16], told: dict[int, str] | None = None) -> None:
    for i in range(0, len(samples), FRAME):
        await trio.sleep(0.02)
        if digit := (told or {}).get(i // FRAME):
            await platform.press(digit)
        await platform.say(samples[i : i + FRAME])
    await instant()


async def read(line: Line, into: list[str]) -> None:
    async for digit in line.digits():
        into += digit


@pytest.mark.parametrize("told_at", [None, 3, 7, 12, 20])
async def test_a_line_finds_digits_and_tells_each_press_once(autojump: object, told_at: int | None) -> None:
    pcm = np.concatenate([np.zeros(5 * FRAME, np.int16), dtmf("9", 100), np.zeros(20 * FRAME, np.int16)])
    digits: list[str] = []
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        nursery.start_soon(partial(read, line, digits))
        line.detect_digits()
        line.detect_digits()
        await say(platform, pcm, {} if told_at is None else {told_at: "9"})
        assert digits == ["9"]
        await say(platform, pcm)
        assert digits == ["9", "9"]
        nursery.cancel_scope.cancel()


async def test_two_presses_told_and_heard_are_two_at_a_line(autojump: object) -> None:
    pcm = np.concatenate([np.zeros(5 * FRAME, np.int16), dtmf("55", 50, pause_ms=50), np.zeros(20 * FRAME, np.int16)])
    for told in ({6: "5", 11: "5"}, {12: "5", 16: "5"}):
        digits: list[str] = []
        async with open_line() as (line, platform), trio.open_nursery() as nursery:
            nursery.start_soon(partial(read, line, digits))
            line.detect_digits()
            await say(platform, pcm, told)
            assert digits == ["5", "5"]
            nursery.cancel_scope.cancel()


async def test_a_line_that_is_over_detects_nothing(autojump: object) -> None:
    async with open_line() as (line, _):
        await line.hang_up()
        with pytest.raises(CallEnded):
            line.detect_digits()


async def test_audio_that_the_detector_has_missed_moves_no_press(autojump: object) -> None:
    """A message longer than what an ear may lag: what is lost of it counts as time."""
    digits: list[str] = []
    async with open_line(config=LineConfig(listen_bound_ms=100)) as (line, platform), trio.open_nursery() as nursery:
        nursery.start_soon(partial(read, line, digits))
        line.detect_digits()
        for _ in range(4):
            await platform.say(np.zeros(20 * FRAME, np.int16))
            await instant()
        assert line.statistics().listener_dropped_ms == 1200
        pcm = np.concatenate([dtmf("5", 100), np.zeros(10 * FRAME, np.int16)])
        await say(platform, pcm, {2: "5"})
        assert digits == ["5"]
        nursery.cancel_scope.cancel()
