"""Gain, limiter and mix against floating point, and by what they are for: no click, no clipping, no pumping."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp import GAIN_DB, LIMITER_KNEE, Gain, Limiter, mix
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import ConfigError, FormatError

RATES_HZ = (8000, 16000, 24000, 48000)


def noise(n: int, seed: int = 1, peak: int = 9000) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-peak, peak + 1, n).astype(np.int16)


def sine(hertz: float, peak: float, seconds: float, rate_hz: int = 8000) -> npt.NDArray[np.int32]:
    at = np.arange(round(seconds * rate_hz))
    return np.rint(peak * np.sin(2 * np.pi * hertz * at / rate_hz)).astype(np.int32)


def cut(n: int, seed: int) -> list[int]:
    edges = np.random.default_rng(seed).integers(0, n + 1, 12).tolist()
    return [0, *sorted(edges), n]


def db(ratio: float) -> float:
    return 20 * math.log10(ratio)


# Gain


def test_unity_is_bit_exact_and_mute_is_silence() -> None:
    pcm = np.arange(-32768, 32768).astype(np.int16)
    assert np.array_equal(Gain().process(pcm), pcm)
    assert not Gain(-math.inf).process(pcm).any()


@pytest.mark.parametrize("gain_db", [-60, -40, -20.5, -6, -0.01, 0.01, 3, 6.02, 12.34, 18])
def test_the_gain_is_the_one_that_was_asked_for(gain_db: float) -> None:
    pcm = noise(20_000, peak=4000 if gain_db > 0 else 32767).astype(np.int16)
    got = Gain(gain_db).process(pcm).astype(float)
    found = db(float(np.dot(got, pcm)) / float(np.dot(pcm.astype(float), pcm)))
    assert found == pytest.approx(gain_db, abs=0.01 if gain_db >= -20.5 else 0.1 if gain_db >= -40 else 0.6)
    assert np.max(np.abs(got - pcm * 10 ** (found / 20))) <= 0.5 + 32768 / 8192


def test_what_exceeds_sixteen_bits_is_saturated() -> None:
    assert Gain(18).process(np.array([30000, -30000, 100], np.int16)).tolist() == [32767, -32768, 794]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_change_is_a_straight_line_over_its_ramp(rate_hz: int) -> None:
    gain = Gain(0, sample_rate_hz=rate_hz)
    level = np.full(rate_hz // 10, 16000, np.int16)
    gain.process(level)
    gain.gain_db = -18
    ramp = gain.process(level).astype(float)
    n = rate_hz // 50
    end = 16000 * 10 ** (-18 / 20)
    line = 16000 + (end - 16000) * np.minimum(np.arange(1, len(ramp) + 1), n) / n
    assert np.max(np.abs(ramp - line)) <= 3
    assert np.max(np.abs(np.diff(ramp))) <= abs(end - 16000) / n + 3
    gain.gain_db = 0
    half = gain.process(level[: n // 2])
    gain.gain_db = -18  # turned round half way: from where it is
    back = gain.process(level)
    assert abs(int(back[0]) - int(half[-1])) <= abs(end - 16000) / n + 3


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), first=st.floats(-60, 18), second=st.floats(-60, 18))
def test_how_the_audio_is_cut_makes_no_difference(seed: int, first: float, second: float) -> None:
    pcm = noise(700, seed, 32767)
    one, other = Gain(first), Gain(first)
    one.gain_db = other.gain_db = second
    whole = one.process(pcm)
    pieces = [other.process(pcm[a:b]) for a, b in pairwise(cut(len(pcm), seed))]
    assert np.array_equal(whole, np.concatenate(pieces))


@pytest.mark.parametrize("gain_db", [-60.01, 18.01, math.nan, math.inf, "loud", True])
def test_a_gain_that_cannot_be_is_refused_and_nothing_changes(gain_db: float) -> None:
    gain = Gain(-6)
    with pytest.raises(ConfigError, match="gain_db"):
        gain.gain_db = gain_db
    assert gain.gain_db == -6
    assert GAIN_DB == (-60, 18)


def test_ramps_and_rates_have_bounds() -> None:
    for options in ({"sample_rate_hz": 10}, {"ramp_ms": -1}, {"ramp_ms": 1e9}):
        with pytest.raises(ConfigError):
            Gain(0, **options)
    with pytest.raises(ConfigError):
        Limiter(999)


def test_no_ramp_is_at_once() -> None:
    gain = Gain(0, ramp_ms=0)
    gain.gain_db = -math.inf
    assert not gain.process(noise(10)).any()


# Limiter


def test_below_the_knee_nothing_changes() -> None:
    pcm = noise(10_000, peak=LIMITER_KNEE)
    assert np.array_equal(Limiter().process(pcm), pcm)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 30), scale=st.integers(1, 31), n=st.integers(0, 400))
def test_no_sample_ever_exceeds_full_scale_and_none_changes_sign(seed: int, scale: int, n: int) -> None:
    sums = np.random.default_rng(seed).integers(-(1 << scale), 1 << scale, n).astype(np.int32)
    sums[: n // 50] = np.iinfo(np.int32).min
    out = Limiter().process(sums).astype(int)
    assert np.all(np.abs(out) <= 32767)
    assert np.all(out * np.sign(sums) >= 0)
    limiter = Limiter()
    pieces = [limiter.process(sums[a:b]) for a, b in pairwise(cut(n, seed % 1000))]
    assert np.array_equal(out, np.concatenate(pieces))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_gain_follows_a_model_in_floating_point(rate_hz: int) -> None:
    rng = np.random.default_rng(3)
    sums = (rng.normal(0, 14000, rate_hz // 2) * (1 + (np.arange(rate_hz // 2) % 4000 < 900))).astype(np.int32)
    gain, room, expected = 1.0, 32767 - LIMITER_KNEE, np.empty(len(sums))
    for i, x in enumerate(np.abs(sums.astype(float))):
        gain = min(1.0, gain * 10 ** (40 / 20 / rate_hz))
        if x > LIMITER_KNEE:
            over = x - LIMITER_KNEE
            gain = min(gain, (LIMITER_KNEE + room * over / (over + room)) / x)
        expected[i] = sums[i] * gain
    assert np.max(np.abs(Limiter(rate_hz).process(sums) - expected)) < 2


@pytest.mark.parametrize("hertz", [200, 440, 1000, 3000])
@pytest.mark.parametrize("too_much_db", [1, 3, 6, 12])
def test_a_tone_that_is_too_loud_is_turned_down_and_not_squared(hertz: float, too_much_db: float) -> None:
    tone = sine(hertz, 32767 * 10 ** (too_much_db / 20), 2.0)
    limited = Limiter().process(tone)[8000:].astype(float)
    spectrum = np.abs(np.fft.rfft(limited)) ** 2
    distortion = 10 * math.log10((spectrum.sum() - spectrum[round(hertz)]) / spectrum[round(hertz)])
    assert distortion < -40
    if too_much_db >= 6:
        clipped = np.abs(np.fft.rfft(np.clip(tone, -32768, 32767)[8000:].astype(float))) ** 2
        assert 10 * math.log10((clipped.sum() - clipped[round(hertz)]) / clipped[round(hertz)]) > -16
    assert np.max(np.abs(limited)) > 0.85 * 32767


def test_the_gain_comes_back_slowly_and_soon() -> None:
    """No pumping: the quiet after a loud sound rises by no more than 40 dB a second, and 6 dB are over in 150 ms."""
    limiter = Limiter()
    limiter.process(sine(440, 65534, 0.2))
    before = limiter.reduction_db
    assert 6 < before < 7
    quiet = sine(1000, 4000, 0.2)
    levels = []
    for at in range(0, len(quiet), 80):
        limiter.process(quiet[at : at + 80])
        levels.append(limiter.reduction_db)
    rises = -np.diff([before, *levels])
    assert np.all(rises <= 0.4 + 1e-3)
    assert np.all(rises >= -1e-9)
    assert levels[17] == 0  # 180 ms
    assert np.array_equal(limiter.process(quiet), quiet)


def test_one_click_lowers_only_itself_for_long() -> None:
    """A single spike of 3 dB too much costs what follows 3 dB at most, and nothing after 100 ms."""
    sums = sine(300, 8000, 0.3)
    sums[400] = 46000
    out = Limiter().process(sums)
    assert np.array_equal(out[:400], sums[:400])
    assert 31900 < out[400] <= 32767
    assert np.array_equal(out[400 + 800 :], sums[400 + 800 :])
    assert np.max(np.abs(out[401:] - sums[401:])) < 8000 * 0.31


def test_reset_forgets() -> None:
    limiter = Limiter()
    limiter.process(np.full(10, 60000, np.int32))
    assert limiter.reduction_db > 5
    limiter.reset()
    assert limiter.reduction_db == 0


def test_shapes_and_types_are_checked() -> None:
    for wrong in (np.zeros((2, 2), np.int32), np.zeros(4), np.zeros((2, 2), np.int16), b"abc"):
        with pytest.raises(FormatError):
            Limiter().process(wrong)  # type: ignore[arg-type]
        with pytest.raises(FormatError):
            Gain().process(wrong)  # type: ignore[arg-type]


# Mix


def test_a_sum_that_does_not_exceed_is_exact_and_the_longest_counts() -> None:
    a, b = noise(500, 1), noise(300, 2)
    expected = a.astype(int)
    expected[:300] += b
    assert np.array_equal(mix(a, b.tobytes()), expected)
    assert mix().tolist() == []
    assert np.array_equal(mix(a), a)


def test_gains_and_limiter_are_kept_from_chunk_to_chunk() -> None:
    voice, music = noise(8000, 1, 30000), noise(8000, 2, 30000)
    whole = Gain(-3), Gain(0)
    whole[1].gain_db = -18
    expected = mix(voice, music, gains=whole)
    gains, limiter = (Gain(-3), Gain(0)), Limiter()
    gains[1].gain_db = -18
    pieces = [
        mix(voice[at : at + 160], music[at : at + 160], gains=gains, limiter=limiter) for at in range(0, 8000, 160)
    ]
    assert np.array_equal(np.concatenate(pieces), expected)
    model = np.clip(voice * 10 ** (-3 / 20) + music * 10 ** (-18 / 20), -32768, 32767)
    assert np.corrcoef(model[200:], expected[200:])[0, 1] > 0.995


def test_numbers_serve_as_gains_and_must_be_as_many_as_tracks() -> None:
    a = noise(100)
    assert np.array_equal(mix(a, a, gains=(-6, -math.inf)), Gain(-6).process(a))
    with pytest.raises(ConfigError, match="1 gains for 2 tracks"):
        mix(a, a, gains=(0,))


def test_every_instruction_set_gives_the_same_bytes() -> None:
    a, b = noise(3000, 5, 32767), noise(3000, 6, 32767)
    results = []
    for level in available_simd_levels():
        select_simd_level(level)
        results.append(mix(a, b, gains=(-2.5, 3)).tobytes())
    assert len(set(results)) == 1
