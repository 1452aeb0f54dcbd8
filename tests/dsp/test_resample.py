"""The resampler as a black box: sines through 20 ms chunks, measured by DFT; lengths, cuts, saturation, levels.

Every tone is a multiple of 5 Hz, so 200 ms hold whole periods of it and of all it can turn into, at every rate: a DFT
without a window separates the tone from everything else exactly.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp import RESAMPLER_RATES_HZ, Resampler, resample
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import FormatError

PAIRS = list(itertools.permutations(RESAMPLER_RATES_HZ, 2))
ALL_PAIRS = list(itertools.product(RESAMPLER_RATES_HZ, repeat=2))
CALL_PAIRS = [pair for pair in PAIRS if not {11025, 12000, 22050, 32000, 44100} & set(pair)]
RATIOS = list({(t // math.gcd(f, t), f // math.gcd(f, t)): (f, t) for f, t in reversed(PAIRS)}.values())
"""One pair per ratio, the one with the lowest rates: a filter depends on nothing else."""
AMPLITUDE = 16000.0

REJECTION_DB = -80.0
RIPPLE_DB = 0.02


def noise(n: int, amplitude: float = 32767.0, seed: int = 1) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).uniform(-amplitude, amplitude, n)).astype(np.int16)


def in_chunks(resampler: Resampler, pcm: np.ndarray, chunk: int) -> np.ndarray:
    return np.concatenate([resampler.process(pcm[i : i + chunk]) for i in range(0, len(pcm), chunk)])


def spectrum_of_tone(from_hz: int, to_hz: int, frequency_hz: float) -> np.ndarray:
    """Complex amplitudes relative to the tone's, 5 Hz apart, of the 200 ms that follow 20 ms of settling."""
    n = np.arange(from_hz * 11 // 50)
    pcm = np.rint(AMPLITUDE * np.sin(2 * np.pi * frequency_hz / from_hz * n)).astype(np.int16)
    out = in_chunks(Resampler(from_hz, to_hz), pcm, from_hz // 50)
    lines: np.ndarray = np.fft.rfft(out[-(to_hz // 5) :]) / (to_hz // 10) / AMPLITUDE
    return lines


def decibels(amplitude: float) -> float:
    return 20 * math.log10(max(float(amplitude), 1e-12))


def tones_hz(from_hz: int, to_hz: int, first_hz: float, last_hz: float | None = None) -> np.ndarray:
    """Tones from first to last where the lower rate is 8 kHz, in proportion elsewhere; by default to half the input's.

    Every 50 Hz and both ends; 250 Hz where the lower rate is not that of a call, whose filter is the same.
    """
    scale = min(from_hz, to_hz) / 8000
    last = from_hz / 2 - 50 if last_hz is None else last_hz * scale
    every = np.arange(first_hz * scale, last, (50 if (from_hz, to_hz) in CALL_PAIRS else 250) * scale)
    return np.clip(np.rint(np.append(every, last) / 5) * 5, math.ceil(first_hz * scale / 5) * 5, last // 5 * 5)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATIOS)
def test_the_telephone_band_passes_flat_and_leaves_nothing_beside_itself(from_hz: int, to_hz: int) -> None:
    gains_db = []
    for frequency_hz in tones_hz(from_hz, to_hz, 100, 3400):
        lines = np.abs(spectrum_of_tone(from_hz, to_hz, frequency_hz))
        at = round(frequency_hz / 5)
        gains_db.append(decibels(lines[at]))
        assert decibels(np.delete(lines, at).max()) <= REJECTION_DB, f"an image of {frequency_hz} Hz"
    assert max(map(abs, gains_db)) <= RIPPLE_DB


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in RATIOS if pair[0] > pair[1]])
def test_nothing_folds_from_above_half_the_new_rate(from_hz: int, to_hz: int) -> None:
    for frequency_hz in tones_hz(from_hz, to_hz, 4000):
        lines = np.abs(spectrum_of_tone(from_hz, to_hz, frequency_hz))
        assert decibels(lines.max()) <= REJECTION_DB, f"an alias of {frequency_hz} Hz"


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_the_delay_is_the_one_it_tells_at_every_frequency(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    assert resampler.delay_ms == resampler.delay_samples * 1000 / to_hz
    assert 0 < resampler.delay_ms <= (2 if to_hz > from_hz else 4)
    for frequency_hz in tones_hz(from_hz, to_hz, 300, 3400)[::8]:
        line = spectrum_of_tone(from_hz, to_hz, frequency_hz)[round(frequency_hz / 5)]
        first = -(-(from_hz * 11 // 50) * to_hz // from_hz) - to_hz // 5
        # A sine is -j at phase 0; the DFT begins at output `first`.
        turn = np.angle(line / -1j * np.exp(2j * np.pi * frequency_hz * (resampler.delay_samples - first) / to_hz))
        assert abs(turn / (2 * np.pi) * to_hz / frequency_hz) < 0.01, "samples of error"


@pytest.mark.parametrize(("from_hz", "to_hz"), ALL_PAIRS)
def test_a_chunk_of_20_ms_gives_20_ms(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    taken = made = 0
    for _ in range(5):
        taken += from_hz // 50
        made += len(resampler.process(noise(from_hz // 50)))
        assert made == -(-taken * to_hz // from_hz)  # 11,025 Hz has 220.5 samples in 20 ms


@pytest.mark.parametrize("rate_hz", RESAMPLER_RATES_HZ)
def test_equal_rates_copy_without_delay(rate_hz: int) -> None:
    resampler = Resampler(rate_hz, rate_hz)
    pcm = noise(500)
    out = resampler.process(pcm)
    np.testing.assert_array_equal(out, pcm)
    assert out.base is not pcm
    assert not np.shares_memory(out, pcm)
    assert resampler.delay_ms == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(ALL_PAIRS), st.lists(st.integers(0, 60) | st.sampled_from([160, 480, 481, 960, 2000]), max_size=12)
)
def test_lengths_and_samples_do_not_depend_on_the_cuts(pair: tuple[int, int], cuts: list[int]) -> None:
    from_hz, to_hz = pair
    pcm = noise(sum(cuts))
    whole = Resampler(from_hz, to_hz).process(pcm)
    resampler, taken, parts = Resampler(from_hz, to_hz), 0, [np.zeros(0, np.int16)]
    for n in cuts:
        parts.append(resampler.process(pcm[taken : taken + n]))
        taken += n
        assert sum(map(len, parts)) == -(-taken * to_hz // from_hz)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("from_hz", "to_hz"), ALL_PAIRS)
def test_reset_equals_fresh_in_the_middle_of_an_output(from_hz: int, to_hz: int) -> None:
    used, pcm = Resampler(from_hz, to_hz), noise(700)
    used.process(noise(337, seed=2))
    used.reset()
    np.testing.assert_array_equal(used.process(pcm), Resampler(from_hz, to_hz).process(pcm))


@pytest.mark.parametrize(("from_hz", "to_hz"), ALL_PAIRS)
def test_every_simd_level_gives_the_same_samples(from_hz: int, to_hz: int) -> None:
    results = []
    for level in available_simd_levels():
        select_simd_level(level)
        resampler = Resampler(from_hz, to_hz)
        results.append([in_chunks(resampler, noise(2000), chunk).tolist() for chunk in (2000, 160, 7)])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(("from_hz", "to_hz"), CALL_PAIRS)
@pytest.mark.parametrize("level", available_simd_levels())
def test_the_loudest_input_there_is_saturates_and_does_not_wrap(from_hz: int, to_hz: int, level: str) -> None:
    """An input whose signs follow an output's taps drives that output's sum as far as any input can."""
    select_simd_level(level)
    up = to_hz // math.gcd(from_hz, to_hz)
    n = 900
    at = n * to_hz // from_hz * 6 // 10
    responses = []
    for i in range(n):
        impulse = np.zeros(n, np.int16)
        impulse[i] = 32767
        responses.append(Resampler(from_hz, to_hz).process(impulse))
    taps = np.array(responses).T.astype(np.int64)  # [n_out, n_in]
    for k in range(at, at + up):
        loud = np.where(taps[k] < 0, -32768, 32767).astype(np.int16)
        assert Resampler(from_hz, to_hz).process(loud)[k] == 32767
        assert Resampler(from_hz, to_hz).process((-1 - loud.astype(np.int32)).astype(np.int16))[k] == -32768


@pytest.mark.parametrize(("from_hz", "to_hz"), ALL_PAIRS)
def test_a_whole_piece_stays_in_place_in_time(from_hz: int, to_hz: int) -> None:
    seconds = np.arange(from_hz // 5) / from_hz
    out = resample(np.rint(AMPLITUDE * np.sin(2 * np.pi * 1000 * seconds)).astype(np.int16), from_hz, to_hz)
    assert len(out) == math.ceil(from_hz // 5 * to_hz / from_hz)
    expected = AMPLITUDE * np.sin(2 * np.pi * 1000 * np.arange(len(out)) / to_hz)
    inner = slice(to_hz // 100, -to_hz // 100)
    assert np.abs(out - expected)[inner].max() < 0.002 * AMPLITUDE
    assert len(resample(np.zeros(0, np.int16), from_hz, to_hz)) == 0


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 44100), (44100, 8000), (11025, 8000)])
def test_full_scale_at_any_ratio_saturates_and_does_not_wrap(from_hz: int, to_hz: int) -> None:
    square = np.where(np.arange(4000) // 40 % 2, 32767, -32768).astype(np.int16)
    out = resample(square, from_hz, to_hz).astype(np.int64)
    assert out.max() == 32767
    assert out.min() == -32768
    assert np.abs(np.diff(out)).max() < 32768 * 2 * max(1.0, from_hz / to_hz) * 0.9


def test_chunks_longer_than_its_own_buffer_and_shorter_ones_take_turns() -> None:
    pcm, resampler = noise(9000), Resampler(8000, 16000)
    parts = [resampler.process(pcm[i:j]) for i, j in itertools.pairwise([0, 160, 4000, 4160, 4160, 4170, 8990, 9000])]
    np.testing.assert_array_equal(np.concatenate(parts), Resampler(8000, 16000).process(pcm))
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(parts, 2))


def test_silence_stays_silence() -> None:
    for from_hz, to_hz in PAIRS:
        assert not Resampler(from_hz, to_hz).process(np.zeros(1000, np.int16)).any()


@pytest.mark.parametrize("rates", [(8000, 9600), (96000, 8000), (0, 8000), (8000, -8000)])
def test_an_unknown_rate_is_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match=str(next(rate for rate in rates if rate not in RESAMPLER_RATES_HZ))):
        Resampler(*rates)


@pytest.mark.parametrize("bad", [np.zeros(3, np.float64), np.zeros((3, 1), np.int16), b"odd", None], ids=repr)
def test_a_refused_chunk_leaves_the_stream_as_it_was(bad: object) -> None:
    resampler, pcm = Resampler(8000, 16000), noise(320)
    first = resampler.process(pcm[:150])
    with pytest.raises(FormatError):
        resampler.process(bad)  # type: ignore[arg-type]
    second = resampler.process(pcm[150:].tobytes())
    np.testing.assert_array_equal(np.concatenate([first, second]), Resampler(8000, 16000).process(pcm))
