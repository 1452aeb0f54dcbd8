"""Finding a known piece of audio in a recording: where it begins, and how much it is itself.

Normalised cross-correlation. Codecs change a waveform a little and concealment changes it in places, so likeness is a
figure between 0 and 1 rather than an equality: G.711 leaves about 0.999 of speech, another sentence reaches 0.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talkpath.audio import Samples, check_samples
from talkpath.errors import FormatError


@dataclass(frozen=True, slots=True)
class Copy:
    """The best match of a piece within a recording."""

    at_sample: int
    """Where its first sample lies."""
    likeness: float
    """1: the same but for loudness; 0: nothing in common."""


def find_copy(track: Samples, piece: Samples) -> Copy:
    """Find where `piece` is most likely heard within `track`.

    Args:
        track: int16, [n_samples], at least as long as the piece; silence within it is no match.
        piece: int16, [n_samples], not silent, at the same rate.

    Raises:
        FormatError: a piece that is empty, silent or longer than the track.
    """
    whole = check_samples(track).astype(np.float64)
    sought = check_samples(piece).astype(np.float64)
    energy = float(sought @ sought)
    if energy == 0 or len(sought) > len(whole):
        raise FormatError(f"a piece of {len(sought)} samples cannot be found in {len(whole)}, or it is silent")
    size = 1 << (len(whole) + len(sought) - 1).bit_length()
    product = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(sought, size))
    n_places = len(whole) - len(sought) + 1
    overlap = np.fft.irfft(product, size)[:n_places]
    sums = np.concatenate([[0.0], np.cumsum(whole * whole)])
    local = sums[len(sought) :] - sums[:n_places]
    # Where hardly anything is heard, rounding alone would look like a match.
    floor = energy * 1e-4
    likeness = np.where(local > floor, overlap / np.sqrt(np.maximum(local, floor) * energy), 0.0)
    best = int(np.argmax(likeness))
    return Copy(best, float(np.clip(likeness[best], 0, 1)))
