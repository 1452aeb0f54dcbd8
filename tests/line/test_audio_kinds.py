"""What a line says: every kind of audio that a call plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio

from support.virtual import speech, virtual_engine
from talkpath.audio import AudioClip, write_audio
from talkpath.engine.config import StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.records import EndReason, Outcome, Played

SPEECH = speech(800)


@pytest.mark.parametrize("kind", ["clip", "array", "path", "text path"])
async def test_a_line_plays_audio_of_every_kind(autojump: object, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    write_audio(path, SPEECH, 8000)
    audio = {"clip": AudioClip(SPEECH, 8000), "array": SPEECH, "path": path, "text path": str(path)}[kind]
    played: list[Played] = []

    async def bot(line: Line) -> None:
        played.append(await line.play(audio, sample_rate_hz=8000))

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            spec = StreamSpec(url=url, bidirectional=True, codec="L16", ends_call=True)
            await call.start_stream(spec)
            assert (await call.wait_ended()).reason is EndReason.APPLICATION_HUNG_UP
            assert np.array_equal(np.trim_zeros(call.leg.heard()), SPEECH)
        nursery.cancel_scope.cancel()
    assert played == [Played(800, Outcome.PLAYED, True)]
