"""Voice activity on made sounds: what repeats itself is a voice, what does not is noise, noise becomes the floor."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.audio import Samples
from talkpath.dsp import VoiceActivity, VoiceState
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import ConfigError, FormatError

QUIET, ONSET, SPEECH, HANGOVER = VoiceState
RATES = (8000, 16000)


def level(x: np.ndarray, dbov: float) -> Samples:
    """Bring audio to a level."""
    x = x / np.sqrt(np.mean(x.astype(float) ** 2)) * 32768 * 10 ** (dbov / 20)
    return np.asarray(np.clip(np.rint(x), -32768, 32767), np.int16)


def noise(seconds: float, dbov: float, rate: int = 8000, seed: int = 1) -> Samples:
    return level(np.random.default_rng(seed).standard_normal(round(seconds * rate)), dbov)


def pink(seconds: float, dbov: float, rate: int = 8000, seed: int = 1) -> Samples:
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(round(seconds * rate)))
    return level(np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), round(seconds * rate)), dbov)


def vowel(seconds: float, dbov: float, rate: int = 8000, hz: float = 130) -> Samples:
    """Harmonics with two formants, the pitch moving as in speech."""
    at = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.1 * np.sin(2 * np.pi * 2 * at))) / rate
    x = np.zeros(len(at))
    for k in range(1, int(3600 / hz)):
        weight = 1 / (1 + ((k * hz - 600) / 150) ** 2) + 0.4 / (1 + ((k * hz - 1400) / 200) ** 2)
        x += weight * np.sin(k * phase)
    return level(x, dbov)


def plus(*parts: Samples) -> Samples:
    """Overlay, the first one's length."""
    total = np.zeros(len(parts[0]), np.int64)
    for part in parts:
        total[: len(part)] += part
    return np.clip(total, -32768, 32767).astype(np.int16)


def states(activity: VoiceActivity, audio: Samples) -> list[VoiceState]:
    """The state after each 20 ms."""
    n = activity.sample_rate_hz // 50
    return [activity.process(audio[i : i + n]) for i in range(0, len(audio) - n + 1, n)]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("make", [noise, pink])
@pytest.mark.parametrize("dbov", [-70, -50, -40, -25])
def test_a_steady_noise_becomes_the_floor_and_is_never_speech(rate: int, make: object, dbov: float) -> None:
    activity = VoiceActivity(rate)
    audio = make(20, dbov, rate)  # type: ignore[operator]
    seen = states(activity, audio)
    assert SPEECH not in seen
    assert set(seen[100:]) == {QUIET}
    figures = activity.measure()
    if dbov > -45:
        # Of the octaves from 250 to 4000 Hz, whose share of the noise is known from its colour.
        spectrum = np.abs(np.fft.rfft(audio.astype(float))) ** 2
        hz = np.arange(len(spectrum)) * rate / len(audio)
        share = spectrum[(hz >= 250) & (hz < 4000)].sum() / spectrum.sum()
        assert figures.floor_dbov == pytest.approx(dbov + 10 * np.log10(share), abs=2.5)
        assert figures.snr_db < 6


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("noise_dbov", "hz"), [(-70, 110), (-45, 130), (-36, 200), (-36, 240)])
def test_a_voice_is_heard_through_noise(rate: int, noise_dbov: float, hz: float) -> None:
    activity = VoiceActivity(rate, hangover_ms=240)
    voice = vowel(1.0, -26, rate, hz)
    audio = plus(pink(6, noise_dbov, rate), np.concatenate([np.zeros(3 * rate, np.int16), voice]))
    seen = states(activity, audio)
    assert set(seen[100:150]) == {QUIET}
    onset = seen.index(ONSET, 150)
    assert onset <= 152, "suspected within 60 ms"
    assert seen.index(SPEECH) <= 158, "decided within 180 ms"
    assert set(seen[160:198]) == {SPEECH}
    over = seen.index(QUIET, 160)
    assert 200 + 11 <= over <= 200 + 16
    assert set(seen[over:]) == {QUIET}


@pytest.mark.parametrize("rate", RATES)
def test_a_slam_is_suspected_at_most(rate: int) -> None:
    rng = np.random.default_rng(4)
    audio = noise(12, -60, rate)
    for second in range(3, 12):
        n = round(0.12 * rate)
        slam = rng.standard_normal(n) * np.exp(-np.arange(n) / (n / 4)) * 9000
        audio[second * rate : second * rate + n] = np.clip(slam, -32768, 32767).astype(np.int16)
    seen = states(VoiceActivity(rate), audio)
    assert ONSET in seen
    assert SPEECH not in seen
    assert HANGOVER not in seen


def test_who_speaks_from_the_first_sample_on_is_heard() -> None:
    seen = states(VoiceActivity(), vowel(1, -26))
    assert seen.index(SPEECH) <= 5


def test_hum_and_handling_below_the_telephone_band_do_not_count() -> None:
    at = np.arange(4 * 8000) / 8000
    thumps = (np.sin(2 * np.pi * 40 * at) * 8000 * (np.sin(2 * np.pi * 0.7 * at) > 0.6)).astype(np.int16)
    assert set(states(VoiceActivity(), thumps)[10:]) <= {QUIET, ONSET}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=30), st.sampled_from(RATES))
def test_figures_do_not_depend_on_how_the_audio_was_cut(lengths: list[int], rate: int) -> None:
    audio = plus(noise(1, -50, rate), vowel(1, -26, rate))[: sum(lengths)]
    whole, cut = VoiceActivity(rate), VoiceActivity(rate)
    whole.process(audio)
    at = 0
    for n in lengths:
        cut.process(audio[at : at + n])
        at += n
    assert (whole.state, whole.score, whole.evidence_ms, whole.measure()) == (
        cut.state,
        cut.score,
        cut.evidence_ms,
        cut.measure(),
    )


def test_the_same_bytes_on_every_machine() -> None:
    """Integers alone: whoever changes what this prints has changed what the gate hears."""
    x, audio = 1, np.zeros(40_000, np.int16)
    for i in range(len(audio)):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        audio[i] = ((x >> 16) - 16384) // (4 if i // 4000 % 3 == 2 and i % 61 < 20 else 64)
    activity = VoiceActivity()
    told = hashlib.sha256()
    for i in range(0, len(audio), 160):
        state = activity.process(audio[i : i + 160])
        figures = activity.measure()
        told.update(repr((int(state), activity.score, activity.evidence_ms, figures)).encode())
    assert told.hexdigest()[:16] == "449f3a06c97eac6e"


def test_missing_audio_is_neither_speech_nor_noise() -> None:
    activity = VoiceActivity(hangover_ms=200)
    states(activity, plus(noise(3, -60), np.concatenate([np.zeros(16000, np.int16), vowel(1, -26)])))
    floor = activity.measure().floor_dbov
    assert activity.state is SPEECH
    assert activity.fillin(160) is SPEECH
    assert activity.fillin(320) is SPEECH
    assert activity.fillin(160) is HANGOVER
    assert activity.fillin(160 * 9) is HANGOVER
    assert activity.fillin(160) is QUIET
    assert activity.fillin(8000 * 3600 * 24) is QUIET
    assert activity.measure().floor_dbov == floor
    activity.reset()
    assert (activity.state, activity.score, activity.evidence_ms, activity.speaking) == (QUIET, 0, 0, False)


def test_the_margin_makes_it_harder() -> None:
    audio = plus(noise(3, -40), np.concatenate([np.zeros(16000, np.int16), vowel(1, -30)]))
    heard = [SPEECH in states(VoiceActivity(margin_db=margin), audio) for margin in (-3, 0, 30)]
    assert heard == [True, True, False]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(FormatError, match="sample_rate_hz"):
        VoiceActivity(24000)
    for wrong in ({"onset_ms": 10}, {"onset_ms": 20_000}, {"hangover_ms": -1}, {"margin_db": 61}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            VoiceActivity(**wrong)
    activity = VoiceActivity()
    with pytest.raises(FormatError):
        activity.process(b"odd")
    with pytest.raises(ConfigError):
        activity.fillin(-1)


@pytest.mark.parametrize("rate", RATES)
def test_every_level_of_instructions_judges_alike(rate: int) -> None:
    audio = np.concatenate([noise(1, -50, rate), vowel(1, -20, rate), pink(1, 0, rate), plus(vowel(1, -9, rate))])

    def judged(name: str) -> list[tuple[VoiceState, float, int, float]]:
        select_simd_level(name)
        activity, told = VoiceActivity(rate), []
        for i in range(0, len(audio), rate // 50):
            state = activity.process(audio[i : i + rate // 50])
            told.append((state, activity.score, activity.evidence_ms, activity.measure().floor_dbov))
        return told

    first, *others = [judged(name) for name in available_simd_levels()]
    assert SPEECH in {state for state, *_ in first}
    assert all(other == first for other in others)
