"""Louder and softer while it plays: the call's own source, and streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trio

from support.virtual import speech, virtual_engine
from talkpath.dsp import Gain, Limiter, mix
from talkpath.engine import Call, CallStream, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, serve_memory_lines
from talkpath.records import Outcome

FRAME = 160
SPEECH = speech(8000)
LEVEL = np.full(8000, 10000, np.int16)


def heard(call: Call) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    leg = call.leg
    assert isinstance(leg, MemoryLeg)
    return leg.heard()


@pytest.mark.parametrize("gain_db", [-12.0, 6.0, -math.inf])
async def test_one_play_is_louder_or_softer_than_another(autojump: object, gain_db: float) -> None:
    long = np.tile(SPEECH, 3)  # scaled a second at a time, and the limiter knows of the second before
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        assert (await call.play(long, sample_rate_hz=8000, gain_db=gain_db)).samples == len(long)
        await call.play(SPEECH, sample_rate_hz=8000)
        expected = mix(long, gains=(gain_db,), limiter=Limiter()) if gain_db > 0 else Gain(gain_db).process(long)
        assert np.array_equal(np.trim_zeros(heard(call), "b"), np.concatenate([expected, SPEECH]))


async def test_what_plays_is_ducked_over_one_ptime_and_comes_back(autojump: object) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call.play(LEVEL, sample_rate_hz=8000))
        await trio.sleep(0.2)
        call.play_gain_db = -18
        await trio.sleep(0.2)
        call.play_gain_db = 0
        assert call.play_gain_db == 0
        await trio.sleep(0.7)
        frames = heard(call)[: 8000 // FRAME * FRAME].reshape(-1, FRAME).astype(int)
    assert np.max(np.abs(np.diff(frames.ravel()[:7000]))) <= (10000 - 1259) / FRAME + 2
    kinds = ["full" if set(f) == {10000} else "low" if set(f) == {1259} else "ramp" for f in frames[:40]]
    ramps = [i for i, kind in enumerate(kinds) if kind == "ramp"]
    assert len(ramps) == 2
    assert ramps[1] - ramps[0] == 10
    assert set(kinds[: ramps[0]]) == {"full"} == set(kinds[ramps[1] + 1 :])
    assert set(kinds[ramps[0] + 1 : ramps[1]]) == {"low"}


async def test_a_gain_that_is_set_before_anything_plays_holds_from_the_first_sample(autojump: object) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        call.play_gain_db = -6
        await call.play(SPEECH, sample_rate_hz=8000)
        assert np.array_equal(np.trim_zeros(heard(call)), np.trim_zeros(Gain(-6).process(SPEECH)))


async def test_music_is_lowered_under_the_applications_voice(autojump: object) -> None:
    """The use case: the call's own music, a stream's voice, and the sum of both is what the caller hears."""

    async def bot(line: Line) -> None:
        await trio.sleep(0.2)
        await line.play(SPEECH, sample_rate_hz=8000)
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "voice")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            stream = await call.start_stream(StreamSpec(url=url, bidirectional=True, codec="L16@8000h", gain_db=-3))
            assert stream.gain_db == -3
            call.play_gain_db = -18
            nursery.start_soon(lambda: call.play(np.tile(LEVEL, 2), sample_rate_hz=8000))
            await trio.sleep(1.5)
            sound = heard(call).astype(int)
        nursery.cancel_scope.cancel()
    music = round(10000 * 10 ** (-18 / 20))
    assert sound[800] == music
    voice = Gain(-3).process(SPEECH).astype(int) + music
    begin = int(np.flatnonzero(sound[800:] != music)[0]) + 800
    assert np.array_equal(sound[begin : begin + 8000], voice)


async def test_a_gain_outlives_a_lost_connection_and_ends_with_the_stream(autojump: object) -> None:
    async def bot(line: Line) -> None:
        await line.play(LEVEL[:1600], sample_rate_hz=8000)
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "flaps")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            spec = StreamSpec(url=url, bidirectional=True, codec="L16@8000h", reconnect_s=5, control_id="one")
            stream: CallStream = await call.start_stream(spec)
            stream.gain_db = -20
            await trio.sleep(0.5)
            stream.on_broken(OSError("gone"))
            await trio.sleep(3)
            assert set(np.trim_zeros(heard(call)[8000:]).tolist()) == {1000}
            await call.stop_stream("one")
            with pytest.raises(CallEnded):
                stream.gain_db = 0
            assert stream.gain_db == -20
            assert (await call.play(LEVEL, sample_rate_hz=8000)).reason is Outcome.PLAYED
            assert heard(call)[-800] == 10000
        nursery.cancel_scope.cancel()


async def test_gains_that_cannot_be_are_refused(autojump: object) -> None:
    with pytest.raises(ConfigError, match="gain_db is 20"):
        StreamSpec(url="memory://x", gain_db=20)
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        with pytest.raises(ConfigError, match="gain_db is 20"):
            await call.play(LEVEL, sample_rate_hz=8000, gain_db=20)
        with pytest.raises(ConfigError, match="gain_db is nan"):
            call.play_gain_db = math.nan
        assert call.play_gain_db == 0
    with pytest.raises(CallEnded):
        call.play_gain_db = -3
