"""Comfort noise: the level and the spectrum that were described, and the same octets every time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from talkpath._native import ffi, lib
from talkpath.dsp import ComfortNoise
from talkpath.errors import ConfigError, FormatError

Pcm = npt.NDArray[np.int16]


def make(payload: bytes, n: int, seed: int = 1) -> Pcm:
    noise = ffi.new("tp_noise *")
    lib.tp_noise_reset(noise, seed)
    assert lib.tp_noise_receive(noise, payload, len(payload)) == 0
    out = np.zeros(n, np.int16)
    for at in range(0, n - 159, 160):
        lib.tp_noise_fill(noise, ffi.from_buffer("int16_t[]", out[at : at + 160]), 160)
    return out


def coefficient(k: float) -> int:
    """RFC 3389 3.2, the nearest."""
    return round(127 + k * 32768 / 258)


def level_db(pcm: Pcm) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(pcm[800:].astype(float) ** 2)) / 32768))


@pytest.mark.parametrize("reflections", [(), (0.9,), (-0.8, 0.5), (0.3, -0.4, 0.6, 0.2), tuple([0.1] * 12)])
@pytest.mark.parametrize("level", [20, 40, 55])
def test_the_level_is_the_one_asked_for(level: int, reflections: tuple[float, ...]) -> None:
    pcm = make(bytes([level, *map(coefficient, reflections)]), 160 * 200)
    assert abs(level_db(pcm) + level) < 1.0


@pytest.mark.parametrize(("k", "sign"), [(0.9, -1), (-0.9, 1)])
def test_the_spectrum_leans_as_the_coefficients_say(k: float, sign: int) -> None:
    pcm = make(bytes([30, coefficient(k)]), 160 * 200).astype(float)
    correlation = np.mean(pcm[1:] * pcm[:-1]) / np.mean(pcm**2)
    assert abs(correlation - sign * 0.9) < 0.05


def test_the_same_seed_gives_the_same_noise_and_another_another() -> None:
    payload = bytes([40, 100, 150])
    np.testing.assert_array_equal(make(payload, 1600), make(payload, 1600))
    assert np.any(make(payload, 1600) != make(payload, 1600, seed=2))


@pytest.mark.parametrize("code", [0, 254])
@pytest.mark.parametrize("order", range(1, 13))
def test_noise_is_never_much_louder_than_asked_for(order: int, code: int) -> None:
    """Coefficients at their most, of which twelve imply a gain of 360 dB."""
    assert level_db(make(bytes([30, *[code] * order]), 160 * 500)) < -26


@pytest.mark.parametrize("payload", [bytes([0, *[255] * 20]), bytes([0, *[0] * 20]), bytes([0, 0, 254] * 4)])
def test_any_description_gives_bounded_noise(payload: bytes) -> None:
    pcm = make(payload, 160 * 100)
    assert pcm.min() >= -32768
    assert pcm.max() <= 32767
    assert np.std(pcm[-1600:].astype(float)) > 0


def test_an_empty_description_is_refused_and_none_is_silence() -> None:
    noise = ffi.new("tp_noise *")
    lib.tp_noise_reset(noise, 1)
    assert lib.tp_noise_receive(noise, b"", 0) < 0
    out = np.full(160, 7, np.int16)
    lib.tp_noise_fill(noise, ffi.from_buffer("int16_t[]", out), 160)
    assert not out.any()


def test_numpy_has_the_same_noise() -> None:
    payload = bytes([40, 100, 150])
    noise = ComfortNoise(seed=1)
    assert not noise.take(160).any()
    noise.reset(1)
    noise.receive(payload)
    taken = np.concatenate([noise.take(160) for _ in range(10)])
    assert taken.dtype == np.int16
    np.testing.assert_array_equal(taken, make(payload, 1600))
    steady = noise.take(800).std()
    noise.fade()
    assert noise.take(16).std() < 0.3 * steady
    before = noise.take(800)
    with pytest.raises(FormatError):
        noise.receive(b"")
    assert noise.take(800).std() == pytest.approx(before.std(), rel=0.3)
    noise.reset()
    assert not noise.take(160).any()


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_out_of_range_and_a_negative_count_are_refused(seed: int) -> None:
    with pytest.raises(ConfigError):
        ComfortNoise(seed)
    with pytest.raises(ConfigError):
        ComfortNoise().take(-1)
