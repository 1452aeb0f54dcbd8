"""A line written down: what is heard lies beside what is said, by the wire's own track or by the line's model."""

from __future__ import annotations

import itertools
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trio

from support.platform import Platform, open_line
from support.virtual import speech, virtual_engine
from talkpath.audio import AudioChunk, Samples
from talkpath.dsp import Resampler
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, serve_memory_lines
from talkpath.path.barge_in import Verdict

SAID = speech(10 * 8000, seed=3)


def read_pairs(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert file.getnchannels() == 2
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def laid_out(platform: Platform, began: float, n: int) -> Samples:
    """What the platform plays, by its own clock, from the moment on at which the caller began to speak."""
    track = np.zeros(n, np.int16)
    for sounding in platform.soundings:
        at = round((sounding.begin_s - began) * platform.rate)
        piece = sounding.samples[max(0, -at) : n - at]
        track[max(0, at) : max(0, at) + len(piece)] = piece
    return track


async def test_what_the_line_says_is_recorded_where_it_is_heard(autojump_clock: Any, tmp_path: Path) -> None:
    """Runs, gaps, a clear in the middle of what was sent ahead: exact to the sample, by the model alone."""
    path = tmp_path / "both.wav"
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        recording = await line.record_to(path)
        began = trio.current_time()
        nursery.start_soon(platform.say_paced, SAID)
        await trio.sleep(0.5)
        await line.play(speech(4321, seed=1), sample_rate_hz=8000)
        await trio.sleep(0.3337)
        nursery.start_soon(lambda: line.play(speech(40_000, seed=2), sample_rate_hz=8000))
        await trio.sleep(1.5)
        await line.clear()
        await trio.sleep(0.2)
        for i in range(30):
            line.speak(speech(160, seed=10 + i), sample_rate_hz=8000)
            await trio.sleep(0.02)
        await trio.sleep(5)
        record = await recording.stop()
        expected = laid_out(platform, began, record.n_samples)
        await line.record_to(tmp_path / "another.wav")
        with pytest.raises(ConfigError, match="being recorded"):
            await line.record_to(path)
    pairs = read_pairs(path)
    assert record.error == ""
    assert len(pairs) > 8 * 8000
    assert np.array_equal(pairs[:, 0], SAID[: len(pairs)])
    assert np.count_nonzero(expected) > 20_000
    assert np.array_equal(pairs[:, 1], expected)


@pytest.mark.parametrize("wire", ["native", "plivo"])
async def test_a_pause_is_recorded_as_long_as_it_lasts(autojump_clock: Any, tmp_path: Path, wire: str) -> None:
    """By the wire's own pause where it has one; by a suspicion of barge-in, and audio sent again, where it has none."""
    path = tmp_path / "both.wav"
    music = speech(16_000, seed=6)

    async def bot(line: Line) -> None:
        recording = await line.record_to(path)
        verdicts = {50: Verdict.SUSPECT, 65: Verdict.REJECT}
        heard = itertools.count()
        if wire == "plivo":
            line.barge_in(lambda chunk: verdicts.get(next(heard)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: line.play(music, sample_rate_hz=8000))
            if wire == "native":
                await trio.sleep(1)
                await line.pause()
                await trio.sleep(0.3)
                await line.resume()
        await trio.sleep(0.5)
        await recording.stop()
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "pauses")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            both = await call.record_to(tmp_path / "engine.wav")
            await call.start_stream(StreamSpec(url=url, wire=wire, bidirectional=True, codec="L16@8000h"))
            await trio.sleep(4)
            await both.stop()
        nursery.cancel_scope.cancel()
    by_line, by_engine = read_pairs(path)[:, 1], read_pairs(tmp_path / "engine.wav")[:, 1]
    # Two ends' notions of the pause differ by a message's way and a ptime; its length and the audio do not.
    line_gap, engine_gap = (gap_in(np.trim_zeros(track)) for track in (by_line, by_engine))
    assert 2000 < engine_gap < 2800
    assert abs(line_gap - engine_gap) <= 200
    assert abs(len(np.trim_zeros(by_line)) - len(np.trim_zeros(by_engine))) <= 200
    if wire == "native":
        assert np.array_equal(by_line[by_line != 0], by_engine[by_engine != 0])


@pytest.mark.parametrize("policy_first", [False, True])
@pytest.mark.parametrize("wire", ["native", "plivo", "audiosocket"])
async def test_a_suspicion_is_recorded_where_it_was(
    autojump_clock: Any, tmp_path: Path, wire: str, policy_first: bool
) -> None:
    """Whichever of policy and tape hears a chunk first."""
    music = speech(16_000, seed=6)
    verdicts = {50: Verdict.SUSPECT, 65: Verdict.REJECT}

    async def bot(line: Line) -> None:
        def policy(chunk: AudioChunk) -> Verdict | None:
            return verdicts.pop(chunk.at_sample // 160, None)

        if policy_first:
            line.barge_in(policy)
        recording = await line.record_to(tmp_path / "line.wav")
        line.barge_in(policy)
        await line.play(music, sample_rate_hz=8000)
        await trio.sleep(0.5)
        await recording.stop()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "suspicious")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            both = await call.record_to(tmp_path / "engine.wav")
            await call.start_stream(StreamSpec(url=url, wire=wire, bidirectional=True))
            await trio.sleep(4)
            await both.stop()
        nursery.cancel_scope.cancel()
    edges = []
    for name in ("line.wav", "engine.wav"):
        track = np.trim_zeros(read_pairs(tmp_path / name)[:, 1])
        begin = int(np.argmax(np.diff(np.flatnonzero(track))))
        edges.append((np.flatnonzero(track)[begin], gap_in(track), len(track)))
    assert edges[0] == edges[1]


def gap_in(track: Samples) -> int:
    """The longest silence."""
    return int(np.max(np.diff(np.flatnonzero(track))))


async def test_another_rate_is_brought_to_the_callers(autojump_clock: Any, tmp_path: Path) -> None:
    path = tmp_path / "both.wav"
    music = speech(8000, seed=4)
    async with open_line(sample_rate_hz=16000) as (line, platform), trio.open_nursery() as nursery:
        recording = await line.record_to(path)
        began = trio.current_time()
        nursery.start_soon(platform.say_paced, np.repeat(SAID, 2))
        await trio.sleep(0.5)
        await line.play(music, sample_rate_hz=8000)
        await trio.sleep(1)
        record = await recording.stop()
        assert record.sample_rate_hz == 16000
        expected = laid_out(platform, began, record.n_samples)
    assert np.array_equal(read_pairs(path)[:, 1], expected)
    assert np.count_nonzero(expected) > len(Resampler(8000, 16000).process(music)) * 0.99


async def test_the_outbound_track_is_recorded_where_the_wire_streams_it(autojump_clock: Any, tmp_path: Path) -> None:
    """What the call server plays itself is heard too, and only the wire can tell of that."""
    path = tmp_path / "both.wav"
    music = speech(16_000, seed=6)

    async def bot(line: Line) -> None:
        await line.record_to(path)
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "both")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            leg = call.leg
            assert isinstance(leg, MemoryLeg)
            await call.start_stream(StreamSpec(url=url, track="both_tracks", codec="L16@8000h"))
            await trio.sleep(0.5)
            leg.say(SAID)
            await call.play(music, sample_rate_hz=8000)
            await trio.sleep(1)
            heard = leg.heard()
        nursery.cancel_scope.cancel()
    pairs = read_pairs(path)
    said = int(np.flatnonzero(pairs[:, 0])[0])
    music_at = int(np.flatnonzero(pairs[:, 1])[0])
    assert np.array_equal(pairs[said : said + 20_000, 0], SAID[np.flatnonzero(SAID)[0] :][:20_000])
    assert np.array_equal(np.trim_zeros(pairs[:, 1]), np.trim_zeros(music))
    assert np.array_equal(np.trim_zeros(heard), np.trim_zeros(music))
    assert abs(music_at - said) <= 160


async def test_a_recording_ends_with_its_line(autojump_clock: Any, tmp_path: Path) -> None:
    path = tmp_path / "both.wav"
    async with open_line() as (line, platform):
        await line.record_to(path)
        await platform.say_paced(SAID[:16_000])
    assert line.record is not None
    (record,) = line.record.recordings
    assert record.error == ""
    assert record.n_samples >= 16_000 - 160  # the last message may come with the goodbye
    assert np.array_equal(read_pairs(path)[:, 0], SAID[: record.n_samples])
    with pytest.raises(CallEnded):
        await line.record_to(path)
