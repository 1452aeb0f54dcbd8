"""A known piece is found where it is, through a codec, and not where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from talkpath.audio import read_audio
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.errors import FormatError
from talkpath.testing.likeness import find_copy

AUDIO = Path(__file__).resolve().parents[2] / "examples" / "audio"
SPEECH = read_audio(AUDIO / "caller.wav").samples
OTHER = read_audio(AUDIO / "greeting.wav").samples


def test_a_piece_is_found_to_the_sample() -> None:
    copy = find_copy(SPEECH, SPEECH[12_345:20_345])
    assert copy.at_sample == 12_345
    assert copy.likeness == pytest.approx(1)


def test_loudness_does_not_matter_and_a_codec_little() -> None:
    track = np.zeros(60_000, np.int16)
    track[7_777 : 7_777 + 16_000] = pcmu_decode(pcmu_encode((SPEECH[8_000:24_000] // 3).astype(np.int16)))
    copy = find_copy(track, SPEECH[8_000:24_000])
    assert copy.at_sample == 7_777
    assert copy.likeness > 0.99


def test_another_sentence_is_no_copy() -> None:
    assert find_copy(OTHER, SPEECH[8_000:24_000]).likeness < 0.3


def test_silence_is_no_copy() -> None:
    assert find_copy(np.zeros(20_000, np.int16), SPEECH[:8_000]).likeness == 0


@pytest.mark.parametrize("piece", [SPEECH[:0], np.zeros(10, np.int16), SPEECH])
def test_what_cannot_be_found_is_refused(piece: np.ndarray) -> None:
    with pytest.raises(FormatError):
        find_copy(SPEECH[:-1], piece)
