"""Stretching as numpy has it: lengths, pitch, refusals, and that a stream shortened frame by frame stays whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from talkpath.dsp import lengthen, shorten, stretch, tone
from talkpath.errors import ConfigError, FormatError

Pcm = npt.NDArray[np.int16]


def dominant_hz(pcm: Pcm, rate_hz: int) -> float:
    n = 1 << 16
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), n))
    return float(np.argmax(spectrum) * rate_hz / n)


@pytest.mark.parametrize("rate_hz", [8000, 12000, 16000])
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.3, 1.5, 1.6, 2.0])
def test_a_recording_takes_as_long_as_asked_for_and_keeps_its_pitch(speed: float, rate_hz: int) -> None:
    pcm = tone(220, 4000, rate_hz, -15)
    out = stretch(pcm, speed, sample_rate_hz=rate_hz)
    assert abs(len(out) - len(pcm) / speed) <= 0.04 * rate_hz
    assert dominant_hz(out, rate_hz) == pytest.approx(220, abs=2)
    assert np.max(np.abs(np.diff(out.astype(int)))) <= 1.25 * np.max(np.abs(np.diff(pcm.astype(int)))) + 2


def test_at_its_own_speed_a_recording_is_unchanged() -> None:
    pcm = np.random.default_rng(3).integers(-3000, 3000, 4321).astype(np.int16)
    np.testing.assert_array_equal(stretch(pcm, 1.0), pcm)
    assert stretch(pcm.tobytes(), 1.0).tobytes() == pcm.tobytes()
    assert len(stretch(pcm[:0], 2.0)) == 0


def test_what_was_done_says_where_the_next_frame_begins() -> None:
    pcm = tone(200, 1000, 8000, -15)
    at, frames = 0, 0
    while at + 320 <= len(pcm):
        frame, removed = shorten(pcm[at : at + 320], 160, 100)
        assert 0 < removed <= 100
        assert frame.shape == (160,)
        assert abs(int(frame[-1]) - int(pcm[at + removed + 159])) <= 1
        at += 160 + removed
        frames += 1
    assert frames < len(pcm) / 160 * 0.85
    frame, repeated = lengthen(pcm[:160], 40)
    assert 40 <= repeated <= 120
    np.testing.assert_array_equal(frame[:repeated], pcm[:repeated])


def test_nothing_is_done_where_nothing_suits() -> None:
    noise = np.random.default_rng(5).integers(-9000, 9000, 320).astype(np.int16)
    frame, removed = shorten(noise, 160, 160)
    assert removed == 0
    np.testing.assert_array_equal(frame, noise[:160])
    frame, repeated = lengthen(noise[:160], 100)
    assert repeated == 0
    np.testing.assert_array_equal(frame, noise[:160])
    assert shorten(noise, 160, 160, urgency=3)[1] > 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: stretch(np.zeros(400, np.float32), 1.2), FormatError),
        (lambda: stretch(np.zeros((400, 2), np.int16), 1.2), FormatError),
        (lambda: stretch(b"123", 1.2), FormatError),
        (lambda: stretch(b"", 1.2, sample_rate_hz=44100), FormatError),
        (lambda: stretch(b"", 2.1), ConfigError),
        (lambda: stretch(b"", float("nan")), ConfigError),
        (lambda: shorten(np.zeros(100, np.int16), 160, 10), FormatError),
        (lambda: shorten(np.zeros(2000, np.int16), 961, 10), ConfigError),
        (lambda: shorten(np.zeros(400, np.int16), 160, -1), ConfigError),
        (lambda: shorten(np.zeros(400, np.int16), 160, 1, urgency=4), ConfigError),
        (lambda: lengthen(np.zeros(15, np.int16), 10), ConfigError),
        (lambda: lengthen(np.zeros(160, np.int16), 10, sample_rate_hz=4000), FormatError),
    ],
)
def test_what_cannot_be_is_refused(wrong: object, error: type[Exception]) -> None:
    assert callable(wrong)
    with pytest.raises(error):
        wrong()
