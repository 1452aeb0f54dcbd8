"""Tones: a sine, and the pairs of sines that are the digits of a telephone keypad.

Tests tell who is heard, and when, by giving each party its own frequency; DTMF is what a caller's keypad sends on a leg
without telephone-events. Both start at phase zero and are not faded: fade where a click would matter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from talkpath.errors import ConfigError, FormatError
from talkpath.units import ms_to_samples

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm

DTMF_ROWS_HZ = (697, 770, 852, 941)
DTMF_COLUMNS_HZ = (1209, 1336, 1477, 1633)
DTMF_KEYS = ("123A", "456B", "789C", "*0#D")
"""One string per row, one character per column."""

_FULL_SCALE = 32768


def tone(frequency_hz: float, duration_ms: int, sample_rate_hz: int = 8000, level_dbov: float = -10.0) -> Pcm:
    """Make a sine.

    Args:
        frequency_hz: above 0, below half the sample rate.
        duration_ms: 0 or more; rounded down to whole samples.
        sample_rate_hz: any rate above 0.
        level_dbov: RFC 6464's scale, where a sine at full scale is -3.01.

    Returns:
        int16, [duration_ms * sample_rate_hz // 1000], rounded to nearest, starting at phase 0.

    Raises:
        FormatError: a sample rate that is not above 0; the caller's to mend.
        ConfigError: a frequency, duration or level out of range; the caller's to mend.
    """
    return _sines((frequency_hz,), duration_ms, sample_rate_hz, level_dbov)


def dtmf(digit: str, duration_ms: int = 100, sample_rate_hz: int = 8000, level_dbov: float = -10.0) -> Pcm:
    """Make the two tones of one key.

    Args:
        digit: one of ``0123456789*#ABCD``.
        duration_ms: 0 or more; rounded down to whole samples. Receivers must accept 40 ms and may refuse less.
        sample_rate_hz: any rate above twice 1633.
        level_dbov: of each of the two tones; at most -9.04, so that their sum fits 16 bits.

    Returns:
        int16, [duration_ms * sample_rate_hz // 1000], both tones starting at phase 0.

    Raises:
        FormatError: a sample rate that is not above 0; the caller's to mend.
        ConfigError: no such key, or a rate, duration or level out of range; the caller's to mend.

    Source: ITU-T Q.23 for the frequencies, Q.24 for durations.
    """
    return _sines(dtmf_frequencies_hz(digit), duration_ms, sample_rate_hz, level_dbov)


def dtmf_frequencies_hz(digit: str) -> tuple[int, int]:
    """Return the row's and the column's frequency of one key.

    Raises:
        ConfigError: no such key; the caller's to mend.

    Source: ITU-T Q.23.
    """
    for row, keys in enumerate(DTMF_KEYS):
        if len(digit) == 1 and digit in keys:
            return DTMF_ROWS_HZ[row], DTMF_COLUMNS_HZ[keys.index(digit)]
    raise ConfigError("a DTMF digit is one of 0123456789*#ABCD")


def _sines(frequencies_hz: tuple[float, ...], duration_ms: int, sample_rate_hz: int, level_dbov: float) -> Pcm:
    if sample_rate_hz <= 0:
        raise FormatError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    for frequency_hz in frequencies_hz:
        if not 0 < frequency_hz < sample_rate_hz / 2:
            raise ConfigError(f"a frequency must lie between 0 and {sample_rate_hz / 2:g} Hz, got {frequency_hz}")
    if duration_ms < 0:
        raise ConfigError(f"duration_ms must not be negative, got {duration_ms}")
    amplitude = _FULL_SCALE * math.sqrt(2) * 10 ** (level_dbov / 20)
    if not amplitude * len(frequencies_hz) <= _FULL_SCALE:
        raise ConfigError(f"level_dbov {level_dbov:g} does not fit 16 bits; a sine at full scale is -3.01 dBov")
    n = np.arange(ms_to_samples(duration_ms, sample_rate_hz), dtype=np.float64)
    samples = np.zeros(len(n))
    for frequency_hz in frequencies_hz:
        samples += amplitude * np.sin(2 * np.pi * frequency_hz / sample_rate_hz * n)
    return np.clip(np.rint(samples), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
