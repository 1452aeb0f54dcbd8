"""Levels against exact integer sums and the definition of dBov."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talkpath.dsp import SILENCE_DBOV, Level, energy_dbov
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import ConfigError, FormatError


def dbov(energy: int, n: int) -> float:
    return max(SILENCE_DBOV, min(0.0, 10 * math.log10(energy / n / 2**30))) if energy and n else SILENCE_DBOV


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(-32768, 32767) | st.sampled_from([-32768, 32767]), max_size=100), max_size=5))
@example([[-32768] * 3000])
def test_figures_are_exact_sums_however_the_audio_was_cut(chunks: list[list[int]]) -> None:
    samples = [sample for chunk in chunks for sample in chunk]
    for name in available_simd_levels():
        select_simd_level(name)
        level = Level()
        for chunk in chunks:
            energy = sum(sample * sample for sample in chunk)
            assert level.process(np.array(chunk, np.int16)) == pytest.approx(dbov(energy, len(chunk)), abs=0.006)
        assert level.energy == sum(sample * sample for sample in samples)
        assert level.peak == max(map(abs, samples), default=0)
        assert level.n_samples == len(samples)
        assert level.n_clipped == samples.count(32767) + samples.count(-32768)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 2**50), st.integers(1, 2**34))
@example(1, 1)
@example(2**30, 1)
@example(2**29, 1)
@example(2**64 - 1, 1)
@example(1, 2**64 - 1)
def test_dbov_is_the_definition_in_hundredths(energy: int, n_samples: int) -> None:
    level = energy_dbov(energy, n_samples)
    assert level == pytest.approx(dbov(energy, n_samples), abs=0.006)
    assert level == round(level, 2)


def test_known_levels() -> None:
    level = Level()
    assert level.dbov == SILENCE_DBOV
    assert level.process(np.full(160, -32768, np.int16)) == 0.0
    assert level.process(np.zeros(160, np.int16)) == SILENCE_DBOV
    assert level.process(b"") == SILENCE_DBOV
    assert level.dbov == -3.01
    sine = np.rint(32767 * np.sin(2 * np.pi * np.arange(800) / 80)).astype(np.int16)
    assert Level().process(sine) == pytest.approx(-3.01, abs=0.01)


def test_missing_audio_counts_as_silence() -> None:
    told, heard = Level(), Level()
    pcm = np.full(160, 1000, np.int16)
    told.process(pcm)
    told.fillin(480)
    heard.process(pcm)
    heard.process(np.zeros(480, np.int16))
    assert (told.dbov, told.n_samples, told.energy) == (heard.dbov, heard.n_samples, heard.energy)
    assert told.dbov < Level().process(pcm)


def test_reset_forgets() -> None:
    level = Level()
    level.process(np.full(10, 32767, np.int16))
    level.reset()
    assert (level.energy, level.peak, level.n_samples, level.n_clipped, level.dbov) == (0, 0, 0, 0, SILENCE_DBOV)


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    level = Level()
    with pytest.raises(FormatError):
        level.process(np.zeros(4, np.float32))
    with pytest.raises(FormatError):
        level.process(b"odd")
    with pytest.raises(ConfigError):
        level.fillin(-1)
    with pytest.raises(ConfigError):
        energy_dbov(-1, 1)
    with pytest.raises(ConfigError):
        energy_dbov(1, -1)
    assert level.n_samples == 0
