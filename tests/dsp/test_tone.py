"""Tones by their spectrum, length and level."""

from __future__ import annotations

import numpy as np
import pytest

from talkpath.dsp import Level, dtmf, tone
from talkpath.errors import ConfigError, FormatError

KEYPAD = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "A": (697, 1633),
    "4": (770, 1209), "5": (770, 1336), "6": (770, 1477), "B": (770, 1633),
    "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "C": (852, 1633),
    "*": (941, 1209), "0": (941, 1336), "#": (941, 1477), "D": (941, 1633),
}  # fmt: skip


def line_dbov(pcm: np.ndarray, frequency_hz: float, sample_rate_hz: int) -> float:
    """Level of one line over a whole number of its periods, as that of a sine of that amplitude."""
    n = np.arange(len(pcm))
    amplitude = 2 * abs(np.mean(pcm * np.exp(-2j * np.pi * frequency_hz / sample_rate_hz * n)))
    return float(20 * np.log10(amplitude / 32768 / np.sqrt(2)))


@pytest.mark.parametrize("sample_rate_hz", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize(("frequency_hz", "level_dbov"), [(100, -10.0), (1000, -3.02), (3400, -40.0)])
def test_a_tone_is_one_line_at_its_level(sample_rate_hz: int, frequency_hz: int, level_dbov: float) -> None:
    pcm = tone(frequency_hz, 200, sample_rate_hz, level_dbov)
    assert pcm.dtype == np.int16
    assert pcm.shape == (sample_rate_hz // 5,)
    assert pcm[0] == 0
    assert pcm[1] > 0
    assert line_dbov(pcm, frequency_hz, sample_rate_hz) == pytest.approx(level_dbov, abs=0.01)
    assert Level().process(pcm) == pytest.approx(level_dbov, abs=0.02)


@pytest.mark.parametrize("digit", KEYPAD)
def test_a_key_is_the_two_lines_of_its_row_and_column(digit: str) -> None:
    pcm = dtmf(digit, 1000, 8000, -12.0)
    assert len(pcm) == 8000
    for frequency_hz in (697, 770, 852, 941, 1209, 1336, 1477, 1633):
        level = line_dbov(pcm, frequency_hz, 8000)
        if frequency_hz in KEYPAD[digit]:
            assert level == pytest.approx(-12.0, abs=0.01)
        else:
            assert level < -80.0


def test_durations_round_down_to_whole_samples() -> None:
    assert len(tone(400, 0)) == 0
    assert len(tone(400, 3, 11025)) == 33
    assert len(dtmf("5")) == 800


@pytest.mark.parametrize("digit", ["", "1a", "a", "E", "²", " "])
def test_no_such_key_is_refused_without_repeating_it(digit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dtmf(digit)
    assert str(caught.value) == "a DTMF digit is one of 0123456789*#ABCD"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 20), ConfigError),
        ((-5, 20), ConfigError),
        ((4000, 20), ConfigError),
        ((float("nan"), 20), ConfigError),
        ((400, -1), ConfigError),
        ((400, 20, 8000, -3.0), ConfigError),
        ((400, 20, 8000, float("nan")), ConfigError),
        ((400, 20, 0), FormatError),
    ],
)
def test_a_tone_that_cannot_be_is_refused(arguments: tuple[float, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        tone(*arguments)  # type: ignore[arg-type]


def test_two_tones_together_must_fit_16_bits() -> None:
    assert abs(dtmf("1", 1000, level_dbov=-9.04).astype(int)).max() > 32000
    with pytest.raises(ConfigError):
        dtmf("1", level_dbov=-9.0)
