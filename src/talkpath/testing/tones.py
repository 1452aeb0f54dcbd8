"""Known tones, to prove who is heard, and when, to the frame.

Each party of a test speaks with a frequency of its own; what arrives is searched for those frequencies window by
window. Choose multiples of 1000 / window_ms Hz (50 Hz for 20 ms): over a whole window they do not leak into each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from talkpath.audio import Samples, check_rate, check_samples
from talkpath.errors import FormatError
from talkpath.units import ms_to_samples

_FULL_SCALE = 32767.0


class ToneSource:
    """An endless sine, taken in pieces of any length without a seam."""

    def __init__(self, hz: float, sample_rate_hz: int = 8000, level_dbov: float = -12.0) -> None:
        """Describe the tone.

        Args:
            hz: Its frequency, below half of the rate.
            sample_rate_hz: Rate of the samples.
            level_dbov: Its level; a full-scale sine is -3.01 dBov.

        Raises:
            FormatError: a frequency or level that the samples cannot carry.
        """
        if not 0 < hz < check_rate(sample_rate_hz) / 2:
            raise FormatError(f"hz={hz}: expected more than 0 and less than {sample_rate_hz / 2}")
        if level_dbov > -3:
            raise FormatError(f"level_dbov={level_dbov}: a sine reaches at most -3.01 dBov")
        self.hz = hz
        self.sample_rate_hz = sample_rate_hz
        self._peak = _FULL_SCALE * math.sqrt(2) * 10 ** (level_dbov / 20)
        self._n_taken = 0

    def take(self, n_samples: int) -> Samples:
        """Return the next `n_samples` as int16."""
        n = np.arange(self._n_taken, self._n_taken + n_samples, dtype=np.float64)
        self._n_taken += n_samples
        wave = self._peak * np.sin(2 * np.pi * np.remainder(n * (self.hz / self.sample_rate_hz), 1.0))
        return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


@dataclass(frozen=True, slots=True)
class ToneSpan:
    """One stretch in which a tone was heard without a break, in samples from the beginning; whole windows."""

    hz: float
    from_sample: int
    to_sample: int


def tone_levels(samples: Samples, sample_rate_hz: int, hz: float, *, window_ms: int = 20) -> npt.NDArray[np.float64]:
    """Return how loud one tone is in each window, in dBov ([n_windows]; a remainder at the end is left out)."""
    window = ms_to_samples(window_ms, check_rate(sample_rate_hz))
    frames = check_samples(samples)[: len(samples) // window * window].reshape(-1, window).astype(np.float64)
    turn = np.exp(-2j * np.pi * hz / sample_rate_hz * np.arange(window))
    peak = 2 / window * np.abs(frames @ turn)
    levels: npt.NDArray[np.float64] = 20 * np.log10(np.maximum(peak, 1e-6) / (_FULL_SCALE * math.sqrt(2)))
    return levels


def find_tones(
    samples: Samples,
    sample_rate_hz: int,
    candidates_hz: Iterable[float],
    *,
    window_ms: int = 20,
    threshold_dbov: float = -30.0,
) -> list[ToneSpan]:
    """Find where each of some known tones is heard.

    Args:
        samples: int16, [n_samples].
        sample_rate_hz: Their rate.
        candidates_hz: The frequencies that could be there.
        window_ms: Resolution in time, and by 1000 / window_ms in frequency.
        threshold_dbov: A tone is heard when a window holds it at least this loud.

    Returns:
        Spans by beginning, then frequency.
    """
    window = ms_to_samples(window_ms, check_rate(sample_rate_hz))
    spans = []
    for hz in candidates_hz:
        heard = tone_levels(samples, sample_rate_hz, hz, window_ms=window_ms) >= threshold_dbov
        edges = np.flatnonzero(np.diff(np.concatenate([[False], heard, [False]]).astype(np.int8)))
        spans += [ToneSpan(hz, int(a) * window, int(b) * window) for a, b in edges.reshape(-1, 2)]
    return sorted(spans, key=lambda span: (span.from_sample, span.hz))
