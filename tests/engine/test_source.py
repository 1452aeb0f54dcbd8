"""What the call server itself plays: audio of any kind and length, in bounded memory; and the digits it sends."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import trio

from support.virtual import assert_pool_is_whole, speech, virtual_engine
from talkpath.audio import AudioChunk, AudioClip, write_audio
from talkpath.dsp import Resampler
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import FormatError, PlayoutFull
from talkpath.records import Outcome, Played

SPEECH = speech(800)


async def pieces(*audio: object) -> AsyncIterator[object]:
    for one in audio:
        yield one


@pytest.mark.parametrize("kind", ["clip", "chunk", "array", "every other sample", "path", "text path", "pieces"])
async def test_a_call_plays_audio_of_every_kind(autojump: object, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    write_audio(path, SPEECH, 8000)
    audio: object = {
        "clip": AudioClip(SPEECH, 8000),
        "chunk": AudioChunk(SPEECH, 8000),
        "array": SPEECH,
        "every other sample": np.repeat(SPEECH, 2)[::2],
        "path": path,
        "text path": str(path),
        "pieces": pieces(SPEECH[:300], AudioChunk(SPEECH[300:500], 8000), SPEECH[:0], SPEECH[500:]),
    }[kind]
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        assert await call.play(audio, sample_rate_hz=8000) == Played(800, Outcome.PLAYED, True)
        assert np.array_equal(np.trim_zeros(call.leg.heard()), SPEECH)


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (SPEECH, "sample_rate_hz="),
        (AudioClip(SPEECH, 96000), "one of 8000, 11025, .* 44100, 48000"),
        (SPEECH.astype(np.float32), "an array says nothing|float32"),
        (AudioClip(SPEECH.reshape(2, 400), 8000), "mono"),
        (SPEECH.tobytes(), "not bytes"),
        (None, "not NoneType"),
    ],
)
async def test_audio_that_cannot_be_played_is_refused_in_words(autojump: object, audio: object, says: str) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        with pytest.raises(FormatError, match=says):
            await call.play(audio)
        with pytest.raises(FormatError, match=says):
            await call.play(pieces(audio))


@pytest.mark.parametrize("rate_hz", [11_025, 22_050, 44_100])
async def test_a_file_at_a_voices_own_rate_is_heard(autojump: object, tmp_path: Path, rate_hz: int) -> None:
    seconds = np.arange(rate_hz) / rate_hz
    said = np.rint(10_000 * np.sin(2 * np.pi * 440 * seconds)).astype(np.int16)
    write_audio(tmp_path / "said.wav", said, rate_hz)
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        played = await call.play(tmp_path / "said.wav")
        assert played == Played(8000, Outcome.PLAYED, False)
        heard = np.trim_zeros(call.leg.heard())
    expected = Resampler(rate_hz, 8000).process(np.concatenate([said, np.zeros(rate_hz // 10, np.int16)]))
    assert np.array_equal(heard, np.trim_zeros(expected))


async def test_a_missing_file_is_the_callers_to_mend(autojump: object, tmp_path: Path) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        with pytest.raises(FileNotFoundError):
            await call.play(tmp_path / "none.wav")
        with pytest.raises(FormatError, match="not str"):  # what a synthesiser gives is audio, and text a slip
            await call.play(pieces(str(tmp_path / "none.wav")))


async def test_an_hour_to_be_played_is_not_copied(autojump: object) -> None:
    hour = np.zeros(3600 * 8000, np.int16)
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:
        tracemalloc.start()
        try:
            for _ in range(3):
                nursery.start_soon(lambda: call.play(hour, sample_rate_hz=8000))
            await trio.sleep(20)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < hour.nbytes / 8
        nursery.cancel_scope.cancel()


async def test_plays_that_wait_are_bounded_and_those_given_up_leave_room(autojump: object) -> None:
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()) as call:
            for _ in range(200):
                with trio.move_on_after(0.001):
                    await call.play(SPEECH, sample_rate_hz=8000)
            async with trio.open_nursery() as nursery:
                for _ in range(64):
                    nursery.start_soon(lambda: call.play(np.zeros(80_000, np.int16), sample_rate_hz=8000))
                await trio.sleep(1)
                with pytest.raises(PlayoutFull, match="64 plays"):
                    await call.play(SPEECH, sample_rate_hz=8000)
                nursery.cancel_scope.cancel()
            await call.clear()
            assert await call.play(SPEECH, sample_rate_hz=8000) == Played(800, Outcome.PLAYED, True)
        assert_pool_is_whole(engine)
