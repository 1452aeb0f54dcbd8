"""Networks' tones by what sounds when, and as what, against the tables of ITU-T E.180 supplement 2."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp import COUNTRIES, CallProgress, Level, ToneDetector, call_progress
from talkpath.dsp.call_progress import PROGRESS_DBOV, ProgressKind
from talkpath.errors import ConfigError, FormatError

KINDS: tuple[ProgressKind, ...] = get_args(ProgressKind)


def spans(pcm: np.ndarray, rate: int = 8000) -> list[tuple[int, int]]:
    """(ms on, ms off) of each burst, from windows of 5 ms."""
    loud = np.abs(pcm[: len(pcm) // (rate // 200) * (rate // 200)].reshape(-1, rate // 200)).max(axis=1) > 100
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]]).astype(int))) * 5
    ends = [*edges[2::2], len(loud) * 5]
    return [(int(off - on), int(end - off)) for on, off, end in zip(edges[::2], edges[1::2], ends, strict=True)]


def lines_hz(pcm: np.ndarray, rate: int = 8000) -> list[int]:
    """The strongest lines, to 1 Hz, of a second of sound."""
    spectrum = np.abs(np.fft.rfft(pcm[:rate] * np.hanning(rate)))
    peaks = [i for i in range(1, len(spectrum) - 1) if spectrum[i] >= spectrum[i - 1] and spectrum[i] > spectrum[i + 1]]
    return [i for i in peaks if spectrum[i] > 0.2 * spectrum.max()]


@pytest.mark.parametrize(
    ("kind", "country", "hz", "cadence"),
    [
        ("ringback", "us", [440, 480], [(2000, 4000)] * 2),
        ("busy", "us", [480, 620], [(500, 500)] * 12),
        ("congestion", "ca", [480, 620], [(250, 250)] * 24),
        ("ringback", "gb", [400, 450], [(400, 200), (400, 2000)] * 4),
        ("congestion", "gb", [400], [(400, 350), (225, 525)] * 8),
        ("busy", "de", [425], [(480, 480)] * 12 + [(480, 0)]),
        ("ringback", "fr", [440], [(1500, 3500)] * 2 + [(1500, 500)]),
        ("congestion", "es", [425], [(200, 200), (200, 200), (200, 600)] * 6),
        ("dial", "it", [425], [(200, 200), (600, 1000)] * 6),
        ("busy", "se", [425], [(250, 250)] * 24),
        ("congestion", "cn", [450], [(700, 700)] * 8 + [(700, 100)]),
    ],
)
def test_a_country_is_heard_as_its_table_says(
    kind: ProgressKind, country: str, hz: list[int], cadence: list[tuple[int, int]]
) -> None:
    pcm = call_progress(kind, country, 12_000)
    assert pcm.dtype == np.int16
    assert len(pcm) == 96_000
    heard = spans(pcm)
    assert [tuple(round(ms / 25) * 25 for ms in span) for span in heard[: len(cadence)]] == [
        tuple(round(ms / 25) * 25 for ms in span) for span in cadence
    ]
    on = np.concatenate([pcm[i : i + 800] for i in range(0, 96_000, 800) if np.abs(pcm[i : i + 800]).min() >= 0])
    first = round(cadence[0][0] * 8)
    assert [round(line * 8000 / min(first, 8000)) for line in lines_hz(on[:first], min(first, 8000))] == pytest.approx(
        hz, abs=5
    )


@pytest.mark.parametrize("country", COUNTRIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_tone_sounds_at_the_level_asked_for_and_is_no_key(kind: ProgressKind, country: str) -> None:
    pcm = call_progress(kind, country, 10_000, 16000)
    loud = np.abs(pcm.reshape(-1, 80)).max(axis=1) > 0
    assert Level().process(pcm.reshape(-1, 80)[loud].ravel()) == pytest.approx(PROGRESS_DBOV, abs=0.5)
    assert ToneDetector(16000).process(pcm) == []


def test_the_special_information_tone_rises_and_sounds_once_where_it_does() -> None:
    tone = CallProgress("information", "us")
    for hz in (950, 1400, 1800):
        assert not tone.is_over
        pcm = tone.take(2640)
        assert [round(line / 0.33) for line in lines_hz(pcm, 2640)] == pytest.approx([hz], abs=2)
    assert tone.is_over
    assert not tone.take(100_000).any()
    assert not CallProgress("information", "de").is_over


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(COUNTRIES), st.sampled_from(KINDS), st.lists(st.integers(0, 5000), max_size=12), st.integers(0, 1)
)
def test_pieces_of_any_length_are_one_tone(country: str, kind: ProgressKind, sizes: list[int], high: int) -> None:
    rate = (8000, 16000)[high]
    tone = CallProgress(kind, country, rate)
    pieces = [tone.take(size) for size in sizes]
    whole = CallProgress(kind, country, rate).take(sum(sizes))
    assert np.array_equal(np.concatenate([*pieces, np.zeros(0, np.int16)]), whole)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="ringback"):
        CallProgress("ringing")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="country 'xx'"):
        CallProgress("dial", "xx")
    with pytest.raises(FormatError):
        CallProgress("dial", "us", 4000)
    for level_dbov in (-9.0, -91.0, float("nan")):
        with pytest.raises(ConfigError):
            CallProgress("dial", "us", 8000, level_dbov)
    with pytest.raises(ConfigError):
        call_progress("dial", "us", -1)
    assert np.array_equal(call_progress("busy", "DE", 100), call_progress("busy", "de", 100))
