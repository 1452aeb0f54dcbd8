"""Concealment against what anyone would do without it: silence, and repeating the last frame with a fade.

Material: harmonic tones with a moving pitch and a vowel-like envelope, as voiced speech has them, and noise. The
measures are plain: how far the waveform of a concealed gap, or its spectrum, is from the one that was lost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from talkpath.dsp.plc import Concealer, conceal
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import ConfigError, FormatError

Pcm = npt.NDArray[np.int16]
Rendering = Callable[[Pcm, set[int], int], Pcm]


def voice(rate_hz: int, seconds: float, pitch_hz: float, *, glide: float = 0.0, seed: int = 1) -> Pcm:
    """A voiced sound: harmonics of a pitch that glides by `glide` a second, three formants, a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    pitch = pitch_hz * (1 + glide * t) * (1 + 0.01 * np.sin(2 * np.pi * 4.5 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    sound = np.zeros_like(t)
    for k in range(1, int(0.45 * rate_hz / pitch_hz / (1 + abs(glide) * seconds)) + 1):
        frequency = k * pitch_hz
        level = sum(
            a * np.exp(-(((frequency - f) / w) ** 2)) for f, w, a in ((600, 250, 1), (1300, 300, 0.5), (2500, 400, 0.3))
        )
        sound += (level + 0.02) * np.sin(k * phase + k * k * 0.7)
    sound *= 1 + 0.3 * np.sin(2 * np.pi * 2.3 * t)
    sound = sound / np.abs(sound).max() * 9000 + 40 * rng.standard_normal(len(t))
    pcm: Pcm = sound.astype(np.int16)
    return pcm


def render(pcm: Pcm, lost: set[int], rate_hz: int, *, two_sided: bool, frame_ms: int = 20) -> Pcm:
    """Play `pcm` through a concealer with the frames in `lost` missing."""
    n = rate_hz * frame_ms // 1000
    concealer = Concealer(rate_hz)
    played = []
    for i in range(len(pcm) // n):
        if i not in lost:
            played.append(concealer.receive(pcm[i * n : (i + 1) * n]))
            continue
        following = pcm[(i + 1) * n : (i + 2) * n] if two_sided and i + 1 not in lost else None
        played.append(concealer.fillin(n, following))
    return np.concatenate(played)


def one_sided(pcm: Pcm, lost: set[int], rate_hz: int) -> Pcm:
    return render(pcm, lost, rate_hz, two_sided=False)


def two_sided(pcm: Pcm, lost: set[int], rate_hz: int) -> Pcm:
    return render(pcm, lost, rate_hz, two_sided=True)


def repeated(pcm: Pcm, lost: set[int], rate_hz: int) -> Pcm:
    """The last good frame again, a quarter weaker each time."""
    n = rate_hz // 50
    played = pcm.copy()
    run = 0
    for i in range(len(pcm) // n):
        run = run + 1 if i in lost else 0
        if run:
            last = pcm[(i - run) * n : (i - run + 1) * n]
            played[i * n : (i + 1) * n] = (last * max(0.0, 1 - 0.25 * (run - 1))).astype(np.int16)
    return played


def silenced(pcm: Pcm, lost: set[int], rate_hz: int) -> Pcm:
    n = rate_hz // 50
    played = pcm.copy()
    for i in lost:
        played[i * n : (i + 1) * n] = 0
    return played


def snr_db(pcm: Pcm, lost: set[int], rate_hz: int, rendering: Rendering) -> float:
    """Signal to error over the gaps and the frame after each, where the joint is."""
    n = rate_hz // 50
    played = rendering(pcm, lost, rate_hz).astype(float)
    at = np.concatenate([np.arange(i * n, (i + 2) * n) for i in lost])
    signal = pcm.astype(float)[at]
    return float(10 * np.log10((signal**2).sum() / (((played[at] - signal) ** 2).sum() + 1)))


def spectral_distance_db(pcm: Pcm, lost: set[int], rate_hz: int, rendering: Rendering) -> float:
    """Root mean square difference of log spectra (bins above -60 dB) of 32 ms windows centred on the gaps."""
    n = rate_hz // 50
    half = rate_hz * 16 // 1000
    played = rendering(pcm, lost, rate_hz).astype(float)
    signal = pcm.astype(float)
    total = []
    for i in lost:
        for centre in (i * n, i * n + n // 2, (i + 1) * n):
            window = np.hanning(2 * half)
            a = np.abs(np.fft.rfft(signal[centre - half : centre + half] * window))
            b = np.abs(np.fft.rfft(played[centre - half : centre + half] * window))
            floor = a.max() * 1e-3
            total.append(np.mean((20 * np.log10((a + floor) / (b + floor))) ** 2))
    return float(np.sqrt(np.mean(total)))


VOICES = [(80.0, 0.05), (110.0, -0.08), (160.0, 0.1), (220.0, -0.1), (300.0, 0.06)]
LOST = set(range(6, 145, 7))


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize(("pitch_hz", "glide"), VOICES)
def test_voiced_gaps_are_nearer_to_what_was_lost_than_repetition(rate_hz: int, pitch_hz: float, glide: float) -> None:
    pcm = voice(rate_hz, 3.0, pitch_hz, glide=glide)
    one, two, again, nothing = (snr_db(pcm, LOST, rate_hz, r) for r in (one_sided, two_sided, repeated, silenced))
    assert one > again + 3
    assert two > one + 3
    assert two > nothing + 3
    one, two, again, nothing = (
        spectral_distance_db(pcm, LOST, rate_hz, r) for r in (one_sided, two_sided, repeated, silenced)
    )
    assert one < again - 2
    assert two < min(one + 0.5, again - 2, nothing - 2)


@pytest.mark.parametrize("pitch_hz", [90.0, 130.0, 210.0])
def test_short_frames_are_closed_although_they_show_no_whole_period(pitch_hz: float) -> None:
    pcm = voice(8000, 2.0, pitch_hz, glide=0.1)
    lost = set(range(6, 190, 7))

    def error(two: bool) -> float:
        played = render(pcm, lost, 8000, two_sided=two, frame_ms=10).astype(float)
        joints = np.concatenate([np.arange(i * 80 + 40, (i + 1) * 80 + 40) for i in lost])
        return float(((played[joints] - pcm[joints]) ** 2).mean())

    assert error(two=True) < 0.7 * error(two=False)


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_a_steady_tone_goes_on_as_if_nothing_was_lost(rate_hz: int) -> None:
    t = np.arange(rate_hz) / rate_hz
    # 200 Hz and two harmonics: a whole number of samples a period.
    pcm = (4000 * np.sum([np.sin(2 * np.pi * 200 * k * t + k) for k in (1, 2, 3)], axis=0)).astype(np.int16)
    n = rate_hz // 50
    played = one_sided(pcm, {10}, rate_hz)
    error = (played.astype(float) - pcm)[10 * n : 10 * n + n // 4]
    assert 10 * np.log10((pcm[10 * n : 10 * n + n // 4].astype(float) ** 2).mean() / ((error**2).mean() + 1)) > 40
    # Later it only fades: with the level taken out nothing else is wrong.
    gap, lost = played[10 * n : 11 * n].astype(float), pcm[10 * n : 11 * n].astype(float)
    assert (gap * lost).sum() / np.sqrt((gap**2).sum() * (lost**2).sum()) > 0.995
    assert snr_db(pcm, {10, 20, 30}, rate_hz, two_sided) > 25


def test_noise_is_no_louder_in_a_gap_and_has_no_pitch_put_into_it() -> None:
    pcm = (2000 * np.random.default_rng(4).standard_normal(8000 * 4)).astype(np.int16)
    lost = set(range(5, 195, 5))
    for rendering in (one_sided, two_sided):
        gaps = np.concatenate([rendering(pcm, lost, 8000)[i * 160 : (i + 1) * 160] for i in sorted(lost)]).astype(float)
        # Two unlike signals are weaker while one goes over into the other.
        assert -4 < 10 * np.log10((gaps**2).mean() / 2000**2) < 1
    # Nothing repeats at less than 5 ms.
    for i in sorted(lost):
        gap = one_sided(pcm, lost, 8000)[i * 160 : (i + 1) * 160].astype(float)
        for lag in range(20, 38):
            a, b = gap[lag:], gap[:-lag]
            assert (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()) < 0.8


def test_a_long_gap_fades_to_silence_by_80_ms_and_stays_there() -> None:
    pcm = voice(8000, 2.0, 120.0)
    lost = set(range(20, 40))
    played = one_sided(pcm, lost, 8000)
    level = [float(np.abs(played[i * 160 : (i + 1) * 160].astype(float)).mean()) for i in range(20, 40)]
    before = float(np.abs(pcm[19 * 160 : 20 * 160].astype(float)).mean())
    assert level[0] > 0.7 * before
    assert level[0] > level[1] > level[2] > level[3] > 0
    assert level[4:] == [0.0] * 16


def test_a_long_gap_with_its_end_in_sight_fades_in_again() -> None:
    pcm = voice(8000, 2.0, 120.0)
    played = two_sided(pcm, set(range(20, 40)), 8000)
    assert not played[38 * 160 : 39 * 160].any()
    last = np.abs(played[39 * 160 : 40 * 160].astype(float))
    assert last[:20].mean() < last[-40:].mean()
    assert np.array_equal(played[40 * 160 : 41 * 160], pcm[40 * 160 : 41 * 160])


@pytest.mark.parametrize("rendering", [one_sided, two_sided])
@pytest.mark.parametrize("burst", [1, 2, 3, 6])
def test_no_joint_steps_further_than_the_voice_itself(rendering: Rendering, burst: int) -> None:
    pcm = voice(8000, 3.0, 100.0, glide=0.1)
    lost = {i + k for i in range(10, 130, 17) for k in range(burst)}
    played = rendering(pcm, lost, 8000).astype(int)
    own_step = np.abs(np.diff(pcm[: len(played)].astype(int))).max()
    assert np.abs(np.diff(played)).max() <= 1.25 * own_step


def test_good_audio_is_untouched_but_for_the_joint() -> None:
    pcm = voice(8000, 1.0, 120.0)
    played = one_sided(pcm, {10, 11}, 8000)
    differs = np.flatnonzero(played != pcm[: len(played)])
    assert differs.min() >= 10 * 160
    assert differs.max() < 12 * 160 + 80
    # Seen from both sides, the joint lies within the gap.
    played = two_sided(pcm, {10, 11}, 8000)
    differs = np.flatnonzero(played != pcm[: len(played)])
    assert differs.max() < 12 * 160


@pytest.mark.parametrize("frame_ms", [10, 20, 30, 60])
def test_any_frame_length_is_concealed(frame_ms: int) -> None:
    pcm = voice(8000, 2.4, 140.0)
    n = 8 * frame_ms
    played = render(pcm, {6, 7, 20}, 8000, two_sided=True, frame_ms=frame_ms)
    assert len(played) == len(pcm) // n * n
    gap = played[6 * n : 7 * n].astype(float)
    assert np.abs(gap).mean() > 0.3 * np.abs(pcm.astype(float)).mean()


def test_the_same_input_gives_the_same_bytes() -> None:
    pcm = voice(8000, 2.0, 130.0)
    lost = {7, 8, 20, 33, 34, 35}
    assert np.array_equal(two_sided(pcm, lost, 8000), two_sided(pcm, lost, 8000))


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_every_simd_level_makes_the_same_bytes(rate_hz: int) -> None:
    pcm = voice(rate_hz, 2.0, 130.0, glide=0.2)
    lost = [i % 5 in (2, 4) or i in (50, 51, 52) for i in range(100)]
    made = []
    for level in available_simd_levels():
        select_simd_level(level)
        made.append(conceal(pcm, lost, sample_rate_hz=rate_hz))
    assert all(np.array_equal(made[0], each) for each in made)


@pytest.mark.parametrize(("frame_ms", "rate_hz"), [(10, 8000), (20, 8000), (30, 16000), (60, 16000)])
def test_a_signal_at_once_is_the_same_as_frame_by_frame(frame_ms: int, rate_hz: int) -> None:
    pcm = voice(rate_hz, 1.21, 130.0)
    n = rate_hz * frame_ms // 1000
    gone = [i % 7 in (3, 4) for i in range(len(pcm) // n)]
    gone[-1] = False
    whole = conceal(pcm, gone, sample_rate_hz=rate_hz, frame_samples=n)
    frames = render(pcm, {i for i, is_lost in enumerate(gone) if is_lost}, rate_hz, two_sided=True, frame_ms=frame_ms)
    assert np.array_equal(whole[: len(frames)], frames)
    assert np.array_equal(whole[len(gone) * n :], pcm[len(gone) * n :])
    # What lies where a frame was lost is not looked at.
    covered = pcm.copy()
    for i, is_lost in enumerate(gone):
        covered[i * n : (i + 1) * n][...] = 12345 if is_lost else covered[i * n : (i + 1) * n]
    assert np.array_equal(conceal(covered, gone, sample_rate_hz=rate_hz, frame_samples=n), whole)


def test_the_pitch_is_that_of_the_last_milliseconds() -> None:
    # A voice that drops by a third within 20 ms: a repetition of what the last 20 ms resemble most would be too high.
    t = np.arange(8000) / 8000
    pitch = 150 - 50 * np.clip((t - 0.5) / 0.02, 0, 1)
    phase = 2 * np.pi * np.cumsum(pitch) / 8000
    pcm = (3000 * np.sum([np.sin(k * phase + k) / k for k in range(1, 8)], axis=0)).astype(np.int16)
    gap = 4200
    concealer = Concealer(8000)
    concealer.receive(pcm[:gap])
    made = concealer.fillin(160).astype(float)
    spectrum = [abs((made * np.exp(-2j * np.pi * hz / 8000 * np.arange(160))).sum()) for hz in (100, 125, 150)]
    assert spectrum[0] > spectrum[1] > 4 * spectrum[2]


def test_nothing_heard_before_is_silence_and_reset_forgets() -> None:
    concealer = Concealer(8000)
    assert not concealer.fillin(160).any()
    pcm = voice(8000, 0.2, 120.0)
    concealer.receive(pcm)
    assert concealer.fillin(160).any()
    concealer.reset()
    assert not concealer.fillin(160, pcm[:160]).any()


@pytest.mark.parametrize("value", [32767, -32768])
def test_full_scale_does_not_overflow(value: int) -> None:
    square = np.where(np.arange(1600) // 40 % 2 == 0, value, -value - 1).astype(np.int16)
    concealer = Concealer(8000)
    concealer.receive(square)
    made = concealer.fillin(160, square[:160]).astype(int)
    # A square wave goes on as one: no sample wrapped to the other sign beside its neighbours.
    assert (np.abs(np.diff(np.sign(made))) > 0).sum() <= 6
    assert np.abs(made).max() >= 30000


def test_long_frames_and_gaps_are_cut_inside() -> None:
    pcm = voice(16000, 1.0, 120.0)
    concealer = Concealer(16000)
    assert np.array_equal(concealer.receive(pcm[:5000]), pcm[:5000])
    made = concealer.fillin(2000, pcm[7000:7320])
    assert len(made) == 2000
    assert made[:600].any()
    assert not made[1300:1500].any()
    assert np.array_equal(concealer.receive(pcm[7000:7320]), pcm[7000:7320])
    assert len(concealer.fillin(0)) == 0


def test_input_is_never_written_to() -> None:
    pcm = voice(8000, 0.2, 120.0)
    concealer = Concealer(8000)
    concealer.receive(pcm)
    concealer.fillin(160)
    frame = pcm[:160].copy()
    frame.flags.writeable = False
    assert not np.array_equal(concealer.receive(frame), frame)


def test_wrong_audio_is_refused() -> None:
    with pytest.raises(FormatError):
        Concealer(11025)
    concealer = Concealer(8000)
    for wrong in (np.zeros(160, np.float32), np.zeros((2, 80), np.int16), b"\0" * 321):
        with pytest.raises(FormatError):
            concealer.receive(wrong)  # type: ignore[arg-type]
        with pytest.raises(FormatError):
            concealer.fillin(160, wrong)  # type: ignore[arg-type]
        with pytest.raises(FormatError):
            conceal(wrong, [False])  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        conceal(np.zeros(319, np.int16), [False, True])
    with pytest.raises(FormatError):
        conceal(np.zeros(2000, np.int16), [False], frame_samples=961)
    with pytest.raises(ConfigError):
        concealer.fillin(-1)
