"""Audio values and WAV files: every width read, wrong ones refused with the remedy, files complete after each close."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.audio import (
    PLAYABLE_RATES_HZ,
    AudioChunk,
    AudioClip,
    WavWriter,
    check_samples,
    convert_rate,
    parse_wav,
    read_audio,
    write_audio,
)
from talkpath.dsp import RESAMPLER_RATES_HZ
from talkpath.errors import FormatError

RAMP = np.arange(-32768, 32768, 256, dtype=np.int16)


def wav(tag: int, bits: int, body: bytes, *, channels: int = 1, rate: int = 8000, extra: bytes = b"") -> bytes:
    """A WAV file by hand, with a foreign chunk of odd length before its data."""
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra
    chunks = [(b"fmt ", fmt), (b"LIST", b"odd"), (b"data", body)]
    content = b"".join(struct.pack("<4sI", kind, len(c)) + c + b"\0" * (len(c) & 1) for kind, c in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WAVE" + content


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    write_audio(path, RAMP, 16_000)
    clip = read_audio(path)
    assert np.array_equal(clip.samples, RAMP)
    assert clip.samples.dtype == np.int16
    assert clip.sample_rate_hz == 16_000
    assert clip.duration_ms == 16


def test_the_standard_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    write_audio(path, RAMP, 8000)
    with wave.open(str(path)) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getframerate()) == (1, 2, 8000)
        assert reader.readframes(len(RAMP)) == RAMP.astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("tag", "bits", "body"),
    [
        (1, 8, ((RAMP >> 8) + 128).astype(np.uint8).tobytes()),
        (1, 16, RAMP.astype("<i2").tobytes()),
        (1, 24, b"".join((int(x) * 256).to_bytes(3, "little", signed=True) for x in RAMP)),
        (1, 32, (RAMP.astype("<i4") * 65536).tobytes()),
        (3, 32, (RAMP / 32768).astype("<f4").tobytes()),
        (3, 64, (RAMP / 32768).astype("<f8").tobytes()),
    ],
)
def test_every_width_gives_the_same_samples(tag: int, bits: int, body: bytes) -> None:
    assert np.array_equal(parse_wav(wav(tag, bits, body)).samples, RAMP)


def test_an_extensible_header_is_read_by_its_sub_format() -> None:
    guid = struct.pack("<HHIH", 22, 16, 4, 1) + bytes.fromhex("000000001000800000aa00389b71")
    clip = parse_wav(wav(0xFFFE, 16, RAMP.astype("<i2").tobytes(), extra=guid))
    assert np.array_equal(clip.samples, RAMP)


# ITU-T G.711 (11/88): decoder output values of the positive half, segment ends, scaled to 16 bits (tables 1a and 2a).
@pytest.mark.parametrize(
    ("tag", "codes", "values"),
    [
        (7, [0xFF, 0x7F, 0x80, 0x00, 0xF0, 0xEF, 0x8F, 0xFE], [0, 0, 32124, -32124, 120, 132, 16764, 8]),
        (6, [0xD5, 0x55, 0xAA, 0x2A, 0xC5, 0xF5, 0x80, 0x9A], [8, -8, 32256, -32256, 264, 528, 5504, 4032]),
    ],
)
def test_g711_files_decode_to_the_tables_of_the_recommendation(tag: int, codes: list[int], values: list[int]) -> None:
    assert parse_wav(wav(tag, 8, bytes(codes))).samples.tolist() == values


def test_float_beyond_full_scale_saturates() -> None:
    body = np.array([1.5, -1.5, math.nan, math.inf, -math.inf], "<f4").tobytes()
    assert parse_wav(wav(3, 32, body)).samples.tolist() == [32767, -32768, 0, 32767, -32768]


def test_channels_are_averaged_only_when_asked() -> None:
    stereo = wav(1, 16, np.array([100, 300, -5, -5], "<i2").tobytes(), channels=2)
    with pytest.raises(FormatError, match=r"2 channels.*mix_down=True"):
        parse_wav(stereo)
    assert parse_wav(stereo, mix_down=True).samples.tolist() == [200, -5]


def test_a_file_cut_short_is_read_to_its_end() -> None:
    whole = wav(1, 16, RAMP.astype("<i2").tobytes())
    assert np.array_equal(parse_wav(whole[:-101]).samples, RAMP[:-51])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file; expected WAV"),
        (b"fLaC....", "a FLAC file; expected WAV.*ffmpeg"),
        (b"ID3\x04", "an MP3 file"),
        (b"OggS", "an Ogg file"),
        (b"....ftypM4A ", "an MP4 file"),
        (b"\x01\x02\x03\x04\x05", "raw samples carry no rate"),
        (b"RIFF\0\0\0\0WAVE", "no data chunk"),
        (wav(1, 16, b"")[:12] + b"data\0\0\0\0", "before its format chunk"),
        (wav(1, 12, b""), "12 bits; expected PCM"),
        (wav(0x55, 0, b""), "tag 0x0055"),
        (wav(1, 16, b"", rate=3), "sample_rate_hz=3"),
        (wav(1, 16, b"", channels=0), "no channels"),
    ],
)
def test_what_is_no_readable_wav_file_is_refused_with_the_remedy(content: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        parse_wav(content)


@given(st.binary(max_size=400), st.booleans())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_bytes_raise_anything_else(noise: bytes, dressed: bool) -> None:
    content = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + noise if dressed else noise
    try:
        clip = parse_wav(content)
    except FormatError:
        return
    assert clip.samples.dtype == np.int16


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([1, 2, 3], "not list"),
        (b"\0\0", "numpy.frombuffer"),
        (np.zeros(3), "float64.*32767"),
        (np.zeros((3, 2), np.int16), r"shape \(3, 2\).*one channel"),
        (np.zeros(3, np.uint16), "uint16"),
        (np.zeros(3, np.int32), "int32"),
    ],
)
def test_samples_of_the_wrong_kind_are_refused_with_the_remedy(samples: object, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        check_samples(samples)


def test_big_endian_samples_become_the_machine_s_own() -> None:
    assert check_samples(np.array([1, -2], ">i2")).tolist() == [1, -2]
    assert check_samples(np.array([1, -2], ">i2")).dtype == np.int16


def test_a_recording_is_a_whole_file_after_each_flush_and_close(tmp_path: Path) -> None:
    path = tmp_path / "growing.wav"
    with WavWriter(path, 8000) as writer:
        for n in range(4):
            writer.flush()
            assert np.array_equal(read_audio(path).samples, np.tile(RAMP, n))
            writer.write(RAMP)
        writer.write_silence(100_000)
        assert writer.n_samples == 4 * len(RAMP) + 100_000
    assert read_audio(path).samples[4 * len(RAMP) :].tolist() == [0] * 100_000
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(RAMP)


def test_a_recording_survives_an_error_of_its_user(tmp_path: Path) -> None:
    path = tmp_path / "broken_off.wav"

    def record() -> None:
        with WavWriter(path, 8000) as writer:
            writer.write(RAMP)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record()
    assert np.array_equal(read_audio(path).samples, RAMP)


@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(44_100, 8_000), (22_050, 8_000), (22_050, 16_000), (11_025, 8_000), (8_000, 48_000), (16_001, 8_000)],
)
def test_converted_rates_keep_what_fits_and_drop_what_does_not(from_hz: int, to_hz: int) -> None:
    n_samples = from_hz // 2
    at = np.arange(n_samples) / from_hz
    lower = min(from_hz, to_hz) / 2
    for share in (0.05, 0.5, 0.9):
        out = convert_rate((20_000 * np.sin(2 * np.pi * share * lower * at)).round().astype(np.int16), from_hz, to_hz)
        assert len(out) == round(n_samples * to_hz / from_hz)
        # The ideal conversion of a sine is the sine at the new instants: amplitude, phase and delay in one comparison.
        wanted = 20_000 * np.sin(2 * np.pi * share * lower * np.arange(len(out)) / to_hz)
        middle = slice(len(out) // 5, -len(out) // 5)
        error = out[middle] - wanted[middle]
        assert 20 * np.log10(np.sqrt(np.mean(error**2)) / (20_000 / math.sqrt(2))) < -75
    if from_hz > to_hz * 1.1:
        above = min(1.1 * to_hz / 2, 0.49 * from_hz)
        out = convert_rate((20_000 * np.sin(2 * np.pi * above * at)).round().astype(np.int16), from_hz, to_hz)
        residue = np.sqrt(np.mean(out[len(out) // 5 : -len(out) // 5].astype(np.float64) ** 2))
        assert 20 * np.log10(max(residue, 1e-3) / (20_000 / math.sqrt(2))) < -85


def test_a_clip_comes_at_any_rate() -> None:
    clip = AudioClip(RAMP, 8000)
    assert clip.at_rate(8000) is clip
    assert clip.at_rate(24_000).sample_rate_hz == 24_000
    assert len(clip.at_rate(24_000).samples) == 3 * len(RAMP)
    assert len(convert_rate(RAMP[:0], 8000, 16_000)) == 0


def test_values_are_frozen() -> None:
    chunk = AudioChunk(RAMP, 8000)
    with pytest.raises(AttributeError):
        chunk.sample_rate_hz = 16_000  # type: ignore[misc]
    assert chunk.duration_ms == 32


def test_the_module_needs_no_event_loop() -> None:
    probe = "import sys, talkpath.audio; print('trio' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout.strip() == "False"


def test_what_can_be_played_is_what_the_resampler_knows() -> None:
    assert PLAYABLE_RATES_HZ == RESAMPLER_RATES_HZ
