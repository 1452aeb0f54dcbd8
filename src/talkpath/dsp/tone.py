"""Tones: a sine, and the pairs of sines that are the digits of a telephone keypad.

Tests tell who is heard, and when, by giving each party its own frequency; DTMF is what a caller's keypad sends on a leg
without telephone-events. Both start at phase zero and are not faded unless asked: fade where a click would matter.
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

    Source: RFC 6464 section 3 for the level.
    """
    return _sines((frequency_hz,), duration_ms, sample_rate_hz, (level_dbov,))


def dtmf(
    digits: str,
    duration_ms: int = 100,
    sample_rate_hz: int = 8000,
    level_dbov: float = -10.0,
    *,
    pause_ms: int = 100,
    twist_db: float = 0.0,
    fade_ms: float = 0.0,
) -> Pcm:
    """Make the tones of one key, or of several with a pause between them.

    Args:
        digits: one or more of ``0123456789*#ABCD``.
        duration_ms: of each; 0 or more, rounded down to whole samples. Receivers must accept 40 ms and may refuse less.
        sample_rate_hz: any rate above twice 1633.
        level_dbov: of each of the two tones, of the stronger where they differ; at most -9.04, so that their sum fits
            16 bits.
        pause_ms: between two digits. Receivers must accept 40 ms.
        twist_db: how much stronger the column's tone is than the row's; below 0: weaker. Telephones send about 2, since
            lines weaken it; receivers must accept -8 to 4.
        fade_ms: over which each digit swells and dies away, within its duration.

    Returns:
        int16; of one digit [duration_ms * sample_rate_hz // 1000], both tones starting at phase 0.

    Raises:
        FormatError: a sample rate that is not above 0; the caller's to mend.
        ConfigError: no such key, or a rate, duration, level or fade out of range; the caller's to mend.

    Source: ITU-T Q.23 for the frequencies, Q.24 for what receivers accept.
    """
    if pause_ms < 0:
        raise ConfigError(f"pause_ms must not be negative, got {pause_ms}")
    if not 0 <= fade_ms <= duration_ms / 2:
        raise ConfigError(f"fade_ms is {fade_ms:g}; it must be between 0 and half of the duration")
    if not digits:
        raise ConfigError("a DTMF digit is one of 0123456789*#ABCD")
    levels_dbov = (level_dbov - max(twist_db, 0.0), level_dbov + min(twist_db, 0.0))
    pieces: list[Pcm] = []
    for digit in digits:
        if pieces:
            pieces.append(np.zeros(ms_to_samples(pause_ms, sample_rate_hz), dtype=np.int16))
        pieces.append(_sines(dtmf_frequencies_hz(digit), duration_ms, sample_rate_hz, levels_dbov, fade_ms))
    return np.concatenate(pieces)


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


def _sines(
    frequencies_hz: tuple[float, ...],
    duration_ms: int,
    sample_rate_hz: int,
    levels_dbov: tuple[float, ...],
    fade_ms: float = 0.0,
) -> Pcm:
    if sample_rate_hz <= 0:
        raise FormatError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    for frequency_hz in frequencies_hz:
        if not 0 < frequency_hz < sample_rate_hz / 2:
            raise ConfigError(f"a frequency must lie between 0 and {sample_rate_hz / 2:g} Hz, got {frequency_hz}")
    if duration_ms < 0:
        raise ConfigError(f"duration_ms must not be negative, got {duration_ms}")
    amplitudes = [_FULL_SCALE * math.sqrt(2) * 10 ** (level_dbov / 20) for level_dbov in levels_dbov]
    if not sum(amplitudes) <= _FULL_SCALE:
        raise ConfigError(f"level_dbov {max(levels_dbov):g} does not fit 16 bits; a sine at full scale is -3.01 dBov")
    n = np.arange(ms_to_samples(duration_ms, sample_rate_hz), dtype=np.float64)
    samples = np.zeros(len(n))
    for frequency_hz, amplitude in zip(frequencies_hz, amplitudes, strict=True):
        samples += amplitude * np.sin(2 * np.pi * frequency_hz / sample_rate_hz * n)
    if fade_ms:
        from_end = np.minimum(n, n[::-1]) / (fade_ms * sample_rate_hz / 1000)
        samples *= np.sin(np.pi / 2 * np.minimum(from_end, 1.0)) ** 2
    return np.clip(np.rint(samples), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
