"""When the caller's speech clears: loud for long enough, once per utterance."""

from __future__ import annotations

import numpy as np
import pytest

from talkpath.audio import AudioChunk
from talkpath.errors import ConfigError
from talkpath.path.barge_in import BargeIn, EnergyGate


def square(level_db: float, ms: int = 20, rate: int = 8000) -> AudioChunk:
    """A chunk of exactly `level_db` dBov: a square wave's level is its amplitude."""
    amplitude = round(32767 * 10 ** (level_db / 20))
    samples = np.full(rate * ms // 1000, amplitude, np.int16)
    samples[1::2] *= -1
    return AudioChunk(samples, rate)


def clears(gate: BargeIn, levels: list[float]) -> list[int]:
    """Indices of the 20 ms chunks at which the gate says: clear."""
    return [index for index, level in enumerate(levels) if gate(square(level))]


def test_a_tenth_of_a_second_of_speech_clears_once() -> None:
    assert clears(EnergyGate(), [-20.0] * 100) == [4]


def test_a_click_does_not_clear() -> None:
    assert clears(EnergyGate(), ([-10.0] * 2 + [-70.0] * 15) * 20) == []


def test_quiet_audio_never_clears() -> None:
    assert clears(EnergyGate(), [-36.0] * 500) == []
    assert clears(EnergyGate(threshold_dbov=-37), [-36.0] * 5) == [4]


def test_short_gaps_belong_to_the_utterance() -> None:
    # 3 loud, 280 ms of gap, 2 loud: together 100 ms.
    assert clears(EnergyGate(), [-20.0] * 3 + [-70.0] * 14 + [-20.0] * 10) == [18]


def test_a_new_utterance_clears_again() -> None:
    utterance = [-20.0] * 10 + [-70.0] * 15
    assert clears(EnergyGate(), utterance * 3) == [4, 29, 54]


def test_chunk_length_does_not_matter_beyond_its_grain() -> None:
    at_16k = EnergyGate()
    said = [at_16k(square(-20, ms=100, rate=16_000)) for _ in range(3)]
    assert said == [True, False, False]


def test_speaking_tells_whether_the_utterance_goes_on() -> None:
    gate = EnergyGate()
    clears(gate, [-20.0] * 5)
    assert gate.speaking
    clears(gate, [-70.0] * 15)
    assert not gate.speaking


@pytest.mark.parametrize("wrong", [{"threshold_dbov": 3.0}, {"speech_ms": 0.0}, {"hangover_ms": -1.0}])
def test_a_value_that_cannot_be_meant_is_refused_by_name(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        EnergyGate(**wrong)


def test_any_callable_is_a_policy() -> None:
    assert isinstance(EnergyGate(), BargeIn)
    assert isinstance(lambda chunk: True, BargeIn)
