"""Active speech level against ITU-T P.56 method B as its text defines it, written here in floating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.audio import Samples
from talkpath.dsp import SILENCE_DBOV, ActiveLevel, Level
from talkpath.errors import ConfigError, FormatError


def p56(audio: Samples, rate: int) -> tuple[float, float]:
    """(active level in dBov, activity): margin 15.9 dB, hangover 0.2 s, time constant 0.03 s, 16 bits."""
    x = np.abs(audio.astype(float))
    g = math.exp(-1 / (rate * 0.03))
    p = q = 0.0
    thresholds = [2.0**j for j in range(15)]
    active, quiet = [0] * 15, [round(0.2 * rate)] * 15
    for value in x:
        p = g * p + (1 - g) * value
        q = g * q + (1 - g) * p
        for j, c in enumerate(thresholds):
            if q >= c:
                active[j] += 1
                quiet[j] = 0
            elif quiet[j] < round(0.2 * rate):
                active[j] += 1
                quiet[j] += 1
    energy = float(np.sum(x**2))

    def dbov(power: float) -> float:
        return 10 * math.log10(power / 2**30)

    before: tuple[float, float] | None = None
    for j, c in enumerate(thresholds):
        if active[j] == 0:
            break
        level = dbov(energy / active[j])
        excess = level - dbov(c * c) - 15.9
        if excess <= 0:
            if before is not None:
                level = before[0] + (level - before[0]) * before[1] / (before[1] - excess)
            return level, energy / len(x) / 2**30 / 10 ** (level / 10)
        before = level, excess
    raise AssertionError("no threshold lies 15.9 dB below the level")


def bursts(rate: int, seed: int, level: float, share: float) -> Samples:
    """Noise with syllables: loud for a while, silent for a while."""
    rng = np.random.default_rng(seed)
    n = 3 * rate
    x = rng.standard_normal(n) * level
    x *= np.repeat(rng.random(30) < share, n // 30) * (1 + 0.8 * np.sin(np.arange(n) * 2 * np.pi * 4 / rate))
    return np.clip(np.rint(x + rng.standard_normal(n) * 3), -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(("level", "share"), [(2000, 0.3), (6000, 0.7), (300, 0.5)])
def test_it_is_what_the_recommendation_defines(rate: int, level: float, share: float) -> None:
    audio = bursts(rate, int(level), level, share)
    measured = ActiveLevel(rate)
    measured.process(audio)
    expected, activity = p56(audio, rate)
    assert measured.dbov == pytest.approx(expected, abs=0.05)
    assert measured.activity == pytest.approx(activity, abs=0.01)
    whole = Level()
    whole.process(audio)
    assert measured.dbov > whole.dbov + (1 if share == 0.3 else 0)


def test_pauses_do_not_change_it() -> None:
    audio = bursts(8000, 5, 3000, 1.0)
    alone, paused = ActiveLevel(), ActiveLevel()
    alone.process(audio)
    paused.process(audio)
    paused.fillin(10 * 8000)
    assert paused.dbov == pytest.approx(alone.dbov, abs=0.4), "the hangover counts"
    assert paused.activity == pytest.approx(alone.activity * 3 / 13, abs=0.025)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(0, 2**32 - 1))
def test_it_does_not_depend_on_how_the_audio_was_cut(lengths: list[int], seed: int) -> None:
    audio = bursts(8000, seed, 4000, 0.5)
    whole, cut = ActiveLevel(), ActiveLevel()
    whole.process(audio)
    at = 0
    for n in [*lengths, len(audio)]:
        cut.process(audio[at : at + n])
        at += n
    assert (whole.dbov, whole.activity) == (cut.dbov, cut.activity)


def test_missing_audio_counts_as_silence() -> None:
    audio = bursts(8000, 6, 3000, 0.8)
    told, heard = ActiveLevel(), ActiveLevel()
    for piece in (audio[:9000], audio[9000:]):
        told.process(piece)
        told.fillin(20_000)
        heard.process(piece)
        heard.process(np.zeros(20_000, np.int16))
    assert (told.dbov, told.activity) == (heard.dbov, heard.activity)


def test_its_ends() -> None:
    nothing = ActiveLevel()
    assert (nothing.dbov, nothing.activity) == (SILENCE_DBOV, 0.0)
    nothing.process(np.zeros(8000, np.int16))
    nothing.fillin(8000 * 86_400)
    assert (nothing.dbov, nothing.activity) == (SILENCE_DBOV, 0.0)
    square = ActiveLevel()
    square.process(np.tile(np.array([32767, -32768], np.int16), 8000))
    assert square.dbov == pytest.approx(0, abs=0.1)
    assert square.activity == pytest.approx(1, abs=0.02)
    square.reset()
    assert square.dbov == SILENCE_DBOV
    click = ActiveLevel()
    click.process(np.array([20_000, *[0] * 7999], np.int16))
    assert SILENCE_DBOV < click.dbov < -20


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(FormatError):
        ActiveLevel(11025)
    with pytest.raises(ConfigError):
        ActiveLevel().fillin(-1)
    with pytest.raises(FormatError):
        ActiveLevel().process(b"odd")
