"""Stretching one frame: its length, its joints, its pitch, and what surrounds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath._native import ffi, lib

Pcm = npt.NDArray[np.int16]


def buffer(pcm: Pcm) -> Any:
    return ffi.from_buffer("int16_t[]", pcm)


def shorten(pcm: Pcm, n: int, most: int, rate_hz: int = 8000, urgency: int = 1) -> tuple[Pcm, int]:
    out = np.zeros(n, np.int16)
    return out, lib.tp_stretch_shorten(buffer(out), n, buffer(pcm), len(pcm), most, rate_hz, urgency)


def lengthen(pcm: Pcm, wanted: int, rate_hz: int = 8000, urgency: int = 1) -> tuple[Pcm, int]:
    out = np.zeros(len(pcm), np.int16)
    return out, lib.tp_stretch_lengthen(buffer(out), len(pcm), buffer(pcm), wanted, rate_hz, urgency)


def tone(hz: float, n: int, rate_hz: int = 8000, level: float = 8000.0) -> Pcm:
    return np.asarray(np.sin(2 * np.pi * hz * np.arange(n) / rate_hz + 0.3) * level, np.int16)


def voice(n: int, rate_hz: int = 8000, pitch_hz: float = 130.0, seed: int = 1) -> Pcm:
    """A pulse train with a slowly moving pitch through one resonance, with a little breath."""
    rng = np.random.default_rng(seed)
    at = np.arange(n) / rate_hz
    pulses = np.diff(np.floor(np.cumsum(pitch_hz * (1 + 0.05 * np.sin(9 * at))) / rate_hz), prepend=0.0)
    out, low, last = np.zeros(n), 0.0, 0.0
    a1, a2 = 2 * 0.93 * np.cos(2 * np.pi * 600 / rate_hz), -(0.93**2)
    for i, x in enumerate(pulses + 0.01 * rng.standard_normal(n)):
        low, last = x + a1 * low + a2 * last, low
        out[i] = low
    return np.asarray(out / np.max(np.abs(out)) * 12000, np.int16)


def largest_step(pcm: Pcm) -> int:
    return int(np.max(np.abs(np.diff(pcm.astype(int)))))


def dominant_hz(pcm: Pcm, rate_hz: int) -> float:
    n = 1 << 15
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)), n))
    return float(np.argmax(spectrum) * rate_hz / n)


def play(pcm: Pcm, moves: list[int], n: int, rate_hz: int = 8000, urgency: int = 1) -> tuple[Pcm, list[int]]:
    """Frames of n, each with what is wanted of it (> 0: shorter), one after the other; also what was done."""
    position, out, done = 0, [], []
    for wanted in moves:
        frame = pcm[position : position + n].copy()
        moved = 0
        if wanted > 0:
            frame, moved = shorten(pcm[position : position + 2 * n].copy(), n, wanted, rate_hz, urgency)
        elif wanted < 0:
            frame, repeated = lengthen(frame, -wanted, rate_hz, urgency)
            moved = -repeated
        out.append(frame)
        done.append(moved)
        position += n + moved
    return np.concatenate(out), done


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize("hz", [90.0, 200.0, 440.0, 1000.0, 2350.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_tone_keeps_its_pitch_and_has_no_joint(rate_hz: int, hz: float, direction: int) -> None:
    n = rate_hz // 50
    pcm = tone(hz, rate_hz * 3, rate_hz)
    out, done = play(pcm, [0, direction * n * 3 // 4, 0] * 20, n, rate_hz)
    assert len(out) == 60 * n
    assert sum(map(abs, done)) >= 10 * n // 4, "a tone can always be stretched"
    assert abs(dominant_hz(out, rate_hz) - hz) < 1.5
    assert largest_step(out) <= 1.05 * largest_step(pcm) + 2
    assert abs(np.std(out.astype(float)) / np.std(pcm.astype(float)) - 1) < 0.03


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize("pitch_hz", [80.0, 130.0, 220.0, 320.0])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_voice_is_stretched_without_a_click(rate_hz: int, pitch_hz: float, direction: int) -> None:
    n = rate_hz // 50
    pcm = voice(rate_hz * 3, rate_hz, pitch_hz)
    out, done = play(pcm, [0, direction * n * 3 // 4, 0, 0] * 20, n, rate_hz)
    assert sum(move != 0 for move in done) >= 10
    assert largest_step(out) <= 1.25 * largest_step(pcm)
    assert all(move == 0 or abs(move) >= rate_hz // 400 for move in done)


def test_the_frame_joins_what_comes_before_and_after_it_sample_for_sample() -> None:
    pcm = voice(8000)
    for at in range(0, 6000, 370):
        window = pcm[at : at + 320].copy()
        out, removed = shorten(window, 160, 100, urgency=3)
        assert abs(int(out[0]) - int(window[0])) <= largest_step(pcm)
        assert abs(int(out[-1]) - int(window[159 + removed])) <= largest_step(pcm)
        longer, repeated = lengthen(window[:160].copy(), 60, urgency=3)
        assert 0 < repeated <= 120
        np.testing.assert_array_equal(longer[:repeated], window[:repeated])


def test_what_resembles_nothing_is_left_alone_until_it_is_urgent() -> None:
    rng = np.random.default_rng(7)
    noise = np.asarray(rng.standard_normal(320) * 5000, np.int16)
    same, removed = shorten(noise, 160, 160)
    assert removed == 0
    np.testing.assert_array_equal(same, noise[:160])
    same, repeated = lengthen(noise[:160].copy(), 100)
    assert repeated == 0
    np.testing.assert_array_equal(same, noise[:160])
    assert shorten(noise, 160, 160, urgency=3)[1] > 0
    assert lengthen(noise[:160].copy(), 100, urgency=3)[1] > 0


def test_quiet_audio_is_moved_by_exactly_what_is_wanted() -> None:
    rng = np.random.default_rng(8)
    quiet = np.asarray(rng.standard_normal(320) * 60, np.int16)
    for wanted in (1, 7, 50, 160):
        assert shorten(quiet, 160, wanted, urgency=0)[1] == wanted
    for wanted in (1, 7, 50, 120):
        assert lengthen(quiet[:160].copy(), wanted, urgency=0)[1] == wanted
    assert shorten(tone(200, 320), 160, 160, urgency=0)[1] == 0


@given(
    st.integers(0, 1 << 30),
    st.sampled_from((80, 160, 240, 320, 480, 960)),
    st.sampled_from((8000, 16000)),
    st.integers(0, 2000),
    st.integers(0, 4),
    st.sampled_from((30.0, 3000.0, 32767.0)),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_audio_gives_a_frame_of_what_was_there(
    seed: int, n: int, rate_hz: int, wanted: int, urgency: int, level: float
) -> None:
    rng = np.random.default_rng(seed)
    pcm = np.asarray(np.clip(rng.standard_normal(2 * n) * level, -32768, 32767), np.int16)
    if seed % 2:
        pcm = tone(50 + seed % 3000, 2 * n, rate_hz, level)
    out, removed = shorten(pcm, n, wanted, rate_hz, urgency)
    assert 0 <= removed <= min(wanted, n)
    shifted = pcm[removed : removed + n].astype(int)
    low, high = np.minimum(pcm[:n], shifted), np.maximum(pcm[:n], shifted)
    assert np.all((out >= low) & (out <= high)), "between the two that are joined"
    longer, repeated = lengthen(pcm[:n].copy(), wanted, rate_hz, urgency)
    assert 0 <= repeated < n
    before = np.concatenate([pcm[:repeated], pcm[: n - repeated]]).astype(int)
    low, high = np.minimum(pcm[:n], before), np.maximum(pcm[:n], before)
    assert np.all((longer >= low) & (longer <= high))


def test_what_cannot_be_is_refused() -> None:
    pcm = np.zeros(4000, np.int16)
    assert lib.tp_stretch_shorten(buffer(pcm), 0, buffer(pcm), 100, 10, 8000, 0) < 0
    assert lib.tp_stretch_shorten(buffer(pcm), 961, buffer(pcm), 2000, 10, 8000, 0) < 0
    assert lib.tp_stretch_shorten(buffer(pcm), 160, buffer(pcm), 159, 10, 8000, 0) < 0
    assert lib.tp_stretch_lengthen(buffer(pcm), 160, buffer(pcm), 10, 4000, 0) < 0
    assert shorten(pcm[:160], 160, 50)[1] == 0, "nothing follows"
