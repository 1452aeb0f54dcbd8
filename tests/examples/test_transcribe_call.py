"""The transcription example: both tracks, who said what and when; with a fake recogniser, and with the real one."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import trio
import trio.testing

import talkpath
from support.virtual import virtual_engine
from talkpath.audio import Samples
from talkpath.line import LineConfig, ServeConfig, serve_memory_lines
from talkpath.testing import ToneSource, quiescence

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAUSE = np.zeros(8_000, np.int16)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, under the name that the recogniser's process finds it by."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("transcribe_call")


def call(
    example: ModuleType,
    recognise: object,
    caller: Samples,
    agent: Samples | None,
    *,
    wire: str = "twilio",
    linger_s: float = 5,
) -> None:
    """Hold a call of which both tracks are streamed one-way, in virtual time."""

    async def main() -> None:
        leg = talkpath.MemoryLeg()
        config = ServeConfig(line=LineConfig(linger_s=linger_s))
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                lambda task_status: serve_memory_lines(
                    functools.partial(example.bot, recognise), "bot", config=config, task_status=task_status
                )
            )
            async with virtual_engine() as engine, engine.open_call(leg) as live:
                await live.start_stream(talkpath.StreamSpec(url=url, wire=wire, track="both_tracks"))
                leg.say(caller)
                if agent is not None:
                    await live.play(agent, sample_rate_hz=8_000)
                await trio.sleep(len(caller) / 8_000 + 1)
            await trio.sleep(linger_s + 1)
            nursery.cancel_scope.cancel()

    with quiescence():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def tone(seconds: float) -> Samples:
    return ToneSource(450).take(round(seconds * 8_000))


@pytest.mark.parametrize("wire", ["twilio", "signalwire", "native"])
def test_both_sides_are_written_down_with_their_times(
    example: ModuleType, wire: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def recognise(samples: Samples) -> str:
        await trio.sleep(0.2)
        return f"{len(samples) / example.RATE_HZ:.1f} s of speech"

    call(example, recognise, np.concatenate([PAUSE, PAUSE, tone(0.5), PAUSE, tone(1)]), tone(0.8), wire=wire)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert sorted(line.split("s  ")[1].split(":")[0] for line in said) == ["agent", "caller", "caller"]
    found = [re.fullmatch(r" *([\d.]+) s  (\w+): ([\d.]+) s of speech", line) for line in said]
    at = sorted((float(one[1]), one[2], float(one[3])) for one in found if one is not None)
    assert [who for _, who, _ in at] == ["agent", "caller", "caller"]
    for (at_s, _, lasted_s), (right_s, right_lasted_s) in zip(at, [(0, 1.4), (2, 1.1), (3.5, 1.6)], strict=True):
        assert abs(at_s - right_s) <= 0.2
        assert abs(lasted_s - right_lasted_s) <= 0.25  # with the pause that ended it


def test_a_slow_recogniser_loses_the_oldest_and_says_so(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    async def recognise(samples: Samples) -> str:
        await trio.sleep(60)
        return "words"

    breath = np.concatenate([tone(0.3), PAUSE])
    call(example, recognise, np.concatenate([breath] * 10), None, linger_s=3600)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + example.WAITING + 1
    assert said[-1] == "5 utterances were dropped: the recogniser is too slow"
    # The first was under way; of the rest the newest were kept.
    moments = [float(line.split()[0]) for line in said[:-1]]
    assert moments[0] < 0.5
    assert moments[1:] == sorted(moments[1:])
    assert moments[1] > 7


def test_nobody_speaks_and_nothing_is_written(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    async def recognise(samples: Samples) -> str:
        raise AssertionError("there was nothing to recognise")

    call(example, recognise, np.concatenate([PAUSE] * 3), None)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.smoke
def test_the_real_recogniser_understands_words(example: ModuleType) -> None:
    pytest.importorskip("pocketsphinx", reason="the examples extra is not installed")
    speech = talkpath.read_audio(EXAMPLES / "audio" / "greeting.wav").at_rate(example.RATE_HZ).samples

    async def main(process: object) -> tuple[str, str]:
        return await example.recognise_in(process, speech), await example.recognise_in(process, speech * 0)

    with example.recogniser_process() as process:
        words, nothing = trio.run(main, process)
    # Telephone speech is not what its model was made for: words come out, if not always the right ones.
    assert len(words.split()) >= 5
    assert {"will", "come", "back", "you", "what"} & set(words.split())
    assert len(nothing.split()) <= 1
