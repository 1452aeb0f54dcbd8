"""G.711 against tables built from the Recommendation's decision values, which share nothing with the native code."""

from __future__ import annotations

import numpy as np
import pytest

from talkpath.dsp import pcma_decode, pcma_encode, pcmu_decode, pcmu_encode
from talkpath.dsp.simd import available_simd_levels, select_simd_level
from talkpath.errors import FormatError

ALL_SAMPLES = np.arange(-32768, 32768).astype(np.int16)
ALL_OCTETS = np.arange(256).astype(np.uint8)


def pcmu_decision_values() -> np.ndarray:
    """Table 2: 128 intervals of a 14-bit magnitude; the first is half a step, steps double with each segment."""
    widths = [1] + [2] * 15 + [4] * 16 + [8] * 16 + [16] * 16 + [32] * 16 + [64] * 16 + [128] * 16 + [256] * 16
    return np.concatenate([[0], np.cumsum(widths)])


def pcma_decision_values() -> np.ndarray:
    """Table 1: 128 intervals of a 13-bit signed value's magnitude, in units of the smallest step."""
    widths = [1] * 32 + [2] * 16 + [4] * 16 + [8] * 16 + [16] * 16 + [32] * 16 + [64] * 16
    return np.concatenate([[0], np.cumsum(widths)])


def magnitudes(samples: np.ndarray, shift: int) -> np.ndarray:
    """The reference's reading of 16 bits: negative samples in one's complement, then the low bits dropped."""
    wide = samples.astype(np.int64)
    return np.where(wide < 0, -1 - wide, wide) >> shift


def interval_of(magnitude: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(decisions, magnitude, side="right") - 1, 127)


def expected_pcmu(samples: np.ndarray) -> np.ndarray:
    n = interval_of(magnitudes(samples, 2), pcmu_decision_values())
    return np.where(samples < 0, 0x7F - n, 0xFF - n).astype(np.uint8)


def expected_pcma(samples: np.ndarray) -> np.ndarray:
    n = interval_of(magnitudes(samples, 4), pcma_decision_values())
    return (np.where(samples < 0, n, n + 0x80) ^ 0x55).astype(np.uint8)


def expected_pcmu_values() -> np.ndarray:
    decisions = pcmu_decision_values()
    values = np.concatenate([[0], (decisions[1:-1] + decisions[2:]) // 2]) * 4
    n = np.where(ALL_OCTETS < 0x80, 0x7F - ALL_OCTETS.astype(int), 0xFF - ALL_OCTETS.astype(int))
    return np.where(ALL_OCTETS < 0x80, -values[n], values[n])


def expected_pcma_values() -> np.ndarray:
    decisions = pcma_decision_values() * 16
    values = (decisions[:-1] + decisions[1:]) // 2
    code = ALL_OCTETS.astype(int) ^ 0x55
    return np.asarray(np.where(code < 0x80, -values[code & 0x7F], values[code & 0x7F]))


@pytest.fixture(params=available_simd_levels(), autouse=True)
def level(request: pytest.FixtureRequest) -> str:
    return select_simd_level(request.param)


def test_pcmu_encodes_every_sample_as_the_tables_say() -> None:
    assert pcmu_encode(ALL_SAMPLES) == expected_pcmu(ALL_SAMPLES).tobytes()


def test_pcma_encodes_every_sample_as_the_tables_say() -> None:
    assert pcma_encode(ALL_SAMPLES) == expected_pcma(ALL_SAMPLES).tobytes()


def test_pcmu_decodes_every_octet_as_the_tables_say() -> None:
    decoded = pcmu_decode(ALL_OCTETS)
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, expected_pcmu_values())


def test_pcma_decodes_every_octet_as_the_tables_say() -> None:
    decoded = pcma_decode(ALL_OCTETS)
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, expected_pcma_values())


def test_octets_survive_decoding_and_encoding_but_for_negative_zero() -> None:
    assert pcma_encode(pcma_decode(ALL_OCTETS)) == ALL_OCTETS.tobytes()
    again = np.frombuffer(pcmu_encode(pcmu_decode(ALL_OCTETS)), np.uint8)
    np.testing.assert_array_equal(again, np.where(ALL_OCTETS == 0x7F, 0xFF, ALL_OCTETS))


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 160, 161])
def test_every_length_gives_what_its_samples_give_alone(n: int) -> None:
    samples = (np.arange(n) * 2731 % 65536 - 32768).astype(np.int16)
    assert pcmu_encode(samples) == expected_pcmu(samples).tobytes()
    assert pcma_encode(samples) == expected_pcma(samples).tobytes()
    octets = (np.arange(n) * 37 % 256).astype(np.uint8)
    np.testing.assert_array_equal(pcmu_decode(octets), expected_pcmu_values()[octets])
    np.testing.assert_array_equal(pcma_decode(octets), expected_pcma_values()[octets])


def test_bytes_bytearrays_and_views_are_taken_like_arrays() -> None:
    samples = ALL_SAMPLES[::100].copy()
    expected = pcmu_encode(samples)
    raw = samples.tobytes()
    odd = memoryview(b"x" + raw)[1:]
    for same in (raw, bytearray(raw), memoryview(raw), samples.data, odd, ALL_SAMPLES[::100]):
        assert pcmu_encode(same) == expected
    for payload in (expected, bytearray(expected), memoryview(expected), np.frombuffer(expected, np.uint8)):
        np.testing.assert_array_equal(pcmu_decode(payload), pcmu_decode(expected))
    np.testing.assert_array_equal(pcma_decode(memoryview(raw)[::2]), pcma_decode(raw[::2]))


def test_a_decoded_array_is_the_callers_own() -> None:
    payload = bytearray(b"\x00\x80")
    decoded = pcmu_decode(payload)
    payload[0] = 0xFF
    decoded[1] = 5
    assert decoded.tolist() == [-32124, 5]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(4, np.int32),
        np.zeros(4, np.float32),
        np.zeros(4, np.uint16),
        np.zeros(4, np.dtype(np.int16).newbyteorder()),
        np.zeros((2, 2), np.int16),
        np.array(1, np.int16),
        b"odd",
        [1, 2],
        "text",
        None,
    ],
    ids=repr,
)
def test_what_is_not_audio_is_refused(bad: object) -> None:
    with pytest.raises(FormatError):
        pcmu_encode(bad)  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        pcma_encode(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.zeros(4, np.int16), np.zeros((2, 2), np.uint8), [1], "text", None], ids=repr)
def test_what_is_not_a_payload_is_refused(bad: object) -> None:
    with pytest.raises(FormatError):
        pcmu_decode(bad)  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        pcma_decode(bad)  # type: ignore[arg-type]
