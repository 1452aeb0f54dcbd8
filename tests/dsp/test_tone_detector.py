"""The detector at the limits of ITU-T Q.24, with tones made here; in noise, under dial tone, over gaps, in speech."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp import ToneDetector, ToneEvent, dtmf, pcma_decode, pcma_encode, pcmu_decode, pcmu_encode
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import ConfigError, FormatError

Wave = npt.NDArray[np.float64]
ROWS_HZ = (697, 770, 852, 941)
COLUMNS_HZ = (1209, 1336, 1477, 1633)
KEYS = "123A456B789C*0#D"
PHASES = 6


def peak(dbm0: float) -> float:
    """Of a sine; 3.14 dBm0 is full scale."""
    return float(32768 * 10 ** ((dbm0 - 3.14) / 20))


def silence(ms: float, rate: int = 8000) -> Wave:
    return np.zeros(int(ms * rate / 1000))


def key(
    digit: str,
    ms: float = 40,
    row_dbm0: float = -10,
    column_dbm0: float = -10,
    row_off: float = 0,
    column_off: float = 0,
    *,
    rng: np.random.Generator,
    rate: int = 8000,
) -> Wave:
    """A key's tones, each off by a share of its frequency, at phases of their own."""
    row, column = divmod(KEYS.index(digit), 4)
    t = np.arange(int(ms * rate / 1000)) / rate
    wave = np.zeros(len(t))
    for hz, off, dbm0 in ((ROWS_HZ[row], row_off, row_dbm0), (COLUMNS_HZ[column], column_off, column_dbm0)):
        wave += peak(dbm0) * np.sin(2 * np.pi * hz * (1 + off) * t + rng.uniform(0, 2 * np.pi))
    return wave


def pcm(*waves: Wave) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(np.concatenate(waves)), -32768, 32767).astype(np.int16)


def found(samples: npt.NDArray[np.int16], rate: int = 8000) -> str:
    return "".join(event.digit for event in ToneDetector(rate).process(samples) if not event.ended)


def among(make: Callable[[str, np.random.Generator], Wave], rate: int = 8000, trials: int = PHASES) -> tuple[int, int]:
    """How many of all keys, at several phases and places, were found as the one digit they are, and how many at all."""
    rng = np.random.default_rng(24)
    right = some = 0
    for digit in KEYS:
        for _ in range(trials):
            samples = pcm(silence(40 + rng.uniform(0, 10), rate), make(digit, rng), silence(80, rate))
            digits = found(samples, rate)
            right += digits == digit
            some += digits != ""
    return right, some


ALL = 16 * PHASES

ACCEPTED: dict[str, dict[str, float]] = {
    "40 ms": {},
    "row +1.8 %": {"row_off": 0.018},
    "row -1.8 %": {"row_off": -0.018},
    "column +1.8 %": {"column_off": 0.018},
    "column -1.8 %": {"column_off": -0.018},
    "both +1.5 % + 2 Hz": {"row_off": 0.015 + 2 / 697, "column_off": 0.015 + 2 / 1209},
    "-27 dBm0": {"row_dbm0": -27, "column_dbm0": -27},
    "-3 dBm0": {"row_dbm0": -3, "column_dbm0": -3},
    "0 dBm0, clipped": {"row_dbm0": 0, "column_dbm0": 0},
    "column 10 dB weaker": {"column_dbm0": -20},
    "column 10 dB stronger": {"row_dbm0": -20},
    "column weaker, both far off": {"column_dbm0": -18, "row_off": 0.017, "column_off": -0.016},
    "5 s": {"ms": 5000},
}
REJECTED: dict[str, dict[str, float]] = {
    "24 ms": {"ms": 24},
    "row +3 %": {"row_off": 0.03, "ms": 300},
    "row -3 %": {"row_off": -0.03, "ms": 300},
    "column +3 %": {"column_off": 0.03, "ms": 300},
    "column -3 %": {"column_off": -0.03, "ms": 300},
    "row -12 %": {"row_off": -0.12, "ms": 300},
    "column +5 %": {"column_off": 0.05, "ms": 300},
    "-29 dBm0": {"row_dbm0": -29, "column_dbm0": -29},
    "row alone": {"column_dbm0": -90, "ms": 300},
    "column alone": {"row_dbm0": -90, "ms": 300},
}


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("limit", ACCEPTED)
def test_every_key_is_found_where_q24_demands_it(limit: str, rate: int) -> None:
    assert among(lambda digit, rng: key(digit, rng=rng, rate=rate, **ACCEPTED[limit]), rate) == (ALL, ALL)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("limit", REJECTED)
def test_no_key_is_found_where_q24_forbids_it(limit: str, rate: int) -> None:
    assert among(lambda digit, rng: key(digit, rng=rng, rate=rate, **REJECTED[limit]), rate) == (0, 0)


def test_other_pairs_of_tones_are_no_keys() -> None:
    rng = np.random.default_rng(3)
    t = np.arange(8000) / 8000
    for a, b in ((697, 852), (1209, 1477), (700, 1700), (440, 480), (480, 620), (1100, 1700), (1209, 2100)):
        wave = peak(-10) * (np.sin(2 * np.pi * a * t + rng.uniform(0, 6)) + np.sin(2 * np.pi * b * t))
        assert found(pcm(silence(50), wave, silence(50))) == "", (a, b)


@pytest.mark.parametrize("gap_ms", [10, 12])
def test_an_interruption_is_bridged(gap_ms: int) -> None:
    def interrupted(digit: str, rng: np.random.Generator) -> Wave:
        return np.concatenate([key(digit, 60, rng=rng), silence(gap_ms), key(digit, 60, rng=rng)])

    assert among(interrupted) == (ALL, ALL)


@pytest.mark.parametrize("pause_ms", [30, 40])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_pause_makes_two_presses_of_one_key(pause_ms: int, rate: int) -> None:
    rng = np.random.default_rng(7)
    for digit in KEYS:
        for _ in range(PHASES):
            two = key(digit, rng=rng, rate=rate), silence(pause_ms, rate), key(digit, rng=rng, rate=rate)
            assert found(pcm(silence(20 + rng.uniform(0, 10), rate), *two, silence(60, rate)), rate) == 2 * digit


@pytest.mark.parametrize(("snr_db", "column_dbm0"), [(15, -10), (15, -18), (12, -10)])
def test_noise_hides_no_key(snr_db: float, column_dbm0: float) -> None:
    def noisy(digit: str, rng: np.random.Generator) -> Wave:
        wave = np.concatenate([silence(30), key(digit, 50, column_dbm0=column_dbm0, rng=rng), silence(30)])
        power = (peak(-10) ** 2 + peak(column_dbm0) ** 2) / 2
        return np.asarray(wave + rng.normal(0, math.sqrt(power / 10 ** (snr_db / 10)), len(wave)))

    right, some = among(noisy, trials=20)
    assert (right, some) == (320, 320)


@pytest.mark.parametrize("louder_db", [-10, -8, -6, -5, -3, 0, 3, 6])
@pytest.mark.parametrize("tones_hz", [(350, 440), (425,)])
def test_a_dial_tone_hides_no_key(louder_db: float, tones_hz: tuple[int, ...]) -> None:
    def over_dial_tone(digit: str, rng: np.random.Generator) -> Wave:
        wave = np.concatenate([silence(30), key(digit, row_dbm0=-14, column_dbm0=-14, rng=rng), silence(60)])
        t = np.arange(len(wave)) / 8000
        for hz in tones_hz:
            wave = wave + peak(-14 + louder_db) * np.sin(2 * np.pi * hz * t + rng.uniform(0, 2 * np.pi))
        return wave

    assert among(over_dial_tone) == (ALL, ALL)


def test_dial_tone_alone_and_an_echo_are_nothing_more() -> None:
    t = np.arange(40_000) / 8000
    assert found(pcm(peak(-8) * (np.sin(2 * np.pi * 350 * t) + np.sin(2 * np.pi * 440 * t)))) == ""

    def echoed(digit: str, rng: np.random.Generator) -> Wave:
        wave = np.concatenate([key(digit, 60, rng=rng), silence(20)])
        wave[160:] += wave[:-160] * 10 ** (-10 / 20)
        return wave

    assert among(echoed) == (ALL, ALL)


@pytest.mark.parametrize(("encode", "decode"), [(pcmu_encode, pcmu_decode), (pcma_encode, pcma_decode)])
def test_companding_hides_no_key(encode: Callable[..., bytes], decode: Callable[..., npt.NDArray[np.int16]]) -> None:
    rng = np.random.default_rng(11)
    for dbm0 in (-3, -25):
        waves = [part for digit in KEYS for part in (key(digit, 40, dbm0, dbm0, rng=rng), silence(40))]
        assert found(decode(encode(pcm(silence(40), *waves)))) == KEYS


@pytest.mark.parametrize("rate", [8000, 16000])
def test_positions_are_those_of_the_tones(rate: int) -> None:
    rng = np.random.default_rng(5)
    detector = ToneDetector(rate)
    at = 0
    for ms in (40, 47, 100, 333):
        for digit in "5D":
            quiet = silence(61.3, rate)
            begin = at + len(quiet)
            samples = pcm(quiet, key(digit, ms, rng=rng, rate=rate), silence(50, rate))
            at += len(samples)
            began, ended = detector.process(samples)
            assert (began.digit, began.ended, ended.digit, ended.ended) == (digit, False, digit, True)
            assert began.at_sample == ended.at_sample == pytest.approx(begin, abs=rate * 0.005)
            assert ended.n_samples == pytest.approx(ms * rate / 1000, abs=rate * 0.006)
            assert not detector.sounding


def test_a_key_is_told_while_it_is_held() -> None:
    detector = ToneDetector()
    rng = np.random.default_rng(5)
    events = detector.process(pcm(key("7", 45, rng=rng)))
    assert [(event.digit, event.ended) for event in events] == [("7", False)]
    assert events[0].n_samples < 360
    assert detector.sounding
    assert detector.process(pcm(key("7", 500, rng=rng))) == []
    assert "7" not in repr(ToneEvent("7", 8, 9, ended=False))


def a_minute(rate: int) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng(9)
    waves = [silence(20, rate)]
    for digit in KEYS * 2:
        waves += [key(digit, rng.uniform(30, 80), rng=rng, rate=rate), silence(rng.uniform(10, 60), rate)]
    noise = rng.normal(0, 60, sum(map(len, waves)))
    return pcm(np.concatenate(waves) + noise)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=30), st.sampled_from([8000, 16000]))
def test_the_choice_of_chunks_changes_nothing(sizes: list[int], rate: int) -> None:
    samples = a_minute(rate)
    whole = ToneDetector(rate).process(samples)
    assert len(whole) > 30
    for level in available_simd_levels():
        select_simd_level(level)
        detector = ToneDetector(rate)
        pieces: list[ToneEvent] = []
        at = 0
        while at < len(samples):
            for size in [*sizes, 160]:
                pieces += detector.process(samples[at : at + size])
                at += size
        assert pieces == whole


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_lost_frame_neither_splits_a_digit_nor_doubles_it(rate: int) -> None:
    rng = np.random.default_rng(13)
    frame = rate // 50
    for at in range(14):
        for lost in (1, 2, 3):
            samples = pcm(silence(60, rate), key("8", 160, rng=rng, rate=rate), silence(120, rate))
            detector = ToneDetector(rate)
            events: list[ToneEvent] = []
            for i in range(len(samples) // frame):
                if at <= i < at + lost:
                    events += detector.fillin(frame)
                else:
                    events += detector.process(samples[i * frame : (i + 1) * frame])
            assert [(event.digit, event.ended) for event in events] == [("8", False), ("8", True)], (at, lost)
            assert events[1].at_sample == pytest.approx(0.06 * rate, abs=(lost * 20 + 6) * rate / 1000)


def test_a_short_digit_survives_a_frame_lost_from_its_middle() -> None:
    rng = np.random.default_rng(17)
    samples = pcm(silence(40), key("3", 80, rng=rng), silence(80))
    detector = ToneDetector()
    events = detector.process(samples[:560]) + detector.fillin(160) + detector.process(samples[720:])
    assert [event.digit for event in events] == ["3", "3"]
    assert events[0].at_sample == pytest.approx(320, abs=40)


def test_what_is_missing_for_long_ends_a_digit_and_counts_as_time() -> None:
    rng = np.random.default_rng(19)
    detector = ToneDetector()
    detector.process(pcm(key("1", 100, rng=rng)))
    assert detector.fillin(800) == []
    (ended,) = detector.fillin(1)
    assert (ended.ended, ended.n_samples) == (True, pytest.approx(800, abs=48))
    detector.fillin(6399)
    began, _ = detector.process(pcm(silence(100), key("2", 60, rng=rng), silence(60)))
    assert began.at_sample == pytest.approx(8000 + 800, abs=40)
    detector.reset()
    began, _ = detector.process(pcm(silence(100), key("2", 60, rng=rng), silence(60)))
    assert began.at_sample == pytest.approx(800, abs=40)


def talker(seconds: int, seed: int) -> npt.NDArray[np.int16]:
    """Something like speech: a gliding pitch of many harmonics under moving formants, fricatives and gaps between."""
    rng = np.random.default_rng(seed)
    pieces: list[Wave] = []
    while sum(map(len, pieces)) < seconds * 8000:
        n = int(rng.uniform(0.04, 0.3) * 8000)
        t = np.arange(n) / 8000
        if rng.uniform() < 0.2:
            wave = rng.normal(0, 1, n)
        else:
            pitch = rng.uniform(80, 300) * (1 + rng.uniform(-0.2, 0.2) * t)
            k = np.arange(1, 24)[:, None]
            hz = k * pitch
            formants = rng.uniform((280, 800, 2000), (900, 2200, 3200))
            gain = sum(1 / (1 + ((hz - formant) / 90) ** 2) for formant in formants) / np.sqrt(k)
            wave = np.sum(np.where(hz < 3600, gain, 0) * np.sin(2 * np.pi * np.cumsum(hz, axis=1) / 8000), axis=0)
        wave *= np.hanning(n) ** 0.3 * rng.uniform(500, 6000) / max(1e-9, np.sqrt(np.mean(wave**2)))
        pieces += [wave, silence(rng.choice([0, 0, 50]))]
    return pcm(*pieces)


def test_a_talker_presses_no_key() -> None:
    for seed in range(3):
        assert found(talker(60, seed)) == ""


def test_what_the_generators_make_is_found() -> None:
    assert found(dtmf(KEYS, 40, pause_ms=40, twist_db=2, fade_ms=2)) + found(dtmf("9") * 0) == KEYS[:-1] + KEYS[-1]


def test_bad_arguments_are_refused_and_change_nothing() -> None:
    with pytest.raises(FormatError):
        ToneDetector(24000)
    detector = ToneDetector()
    with pytest.raises(FormatError):
        detector.process(np.zeros(4, np.float32))
    with pytest.raises(FormatError):
        detector.process(b"odd")
    with pytest.raises(ConfigError):
        detector.fillin(-1)
    assert detector.process(b"") == []
    assert detector.fillin(0) == []
