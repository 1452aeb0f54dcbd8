"""Tones are made as asked and found where they are."""

from __future__ import annotations

import numpy as np
import pytest

from talkpath.errors import FormatError
from talkpath.testing import ToneSource, ToneSpan, find_tones, tone_levels


def test_pieces_of_a_tone_join_without_a_seam() -> None:
    whole = ToneSource(440).take(1000)
    source = ToneSource(440)
    pieces = [source.take(n) for n in (1, 159, 160, 333, 347)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_a_tone_has_the_level_asked_for() -> None:
    samples = ToneSource(1000, level_dbov=-20).take(8000).astype(np.float64)
    assert 20 * np.log10(np.sqrt(np.mean(samples**2)) / 32767) == pytest.approx(-20, abs=0.01)
    assert tone_levels(samples.astype(np.int16), 8000, 1000) == pytest.approx(-20, abs=0.01)


def test_two_voices_are_told_apart_and_placed_to_the_window() -> None:
    quiet = np.zeros(160, np.int16)
    a, b = ToneSource(450).take(480), ToneSource(1200).take(800)
    track = np.concatenate([quiet, a, quiet, quiet])
    track[320:] += b[: len(track) - 320]
    assert find_tones(track, 8000, [450, 1200, 700]) == [ToneSpan(450, 160, 640), ToneSpan(1200, 320, 960)]


def test_silence_holds_no_tone() -> None:
    assert find_tones(np.zeros(4000, np.int16), 8000, [450]) == []
    assert find_tones(np.zeros(10, np.int16), 8000, [450]) == []


@pytest.mark.parametrize(("hz", "level_dbov"), [(0, -12), (4000, -12), (440, 0)])
def test_a_tone_that_cannot_be_is_refused(hz: float, level_dbov: float) -> None:
    with pytest.raises(FormatError):
        ToneSource(hz, 8000, level_dbov)
