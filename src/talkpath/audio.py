"""Audio as a program holds it: pieces of int16 samples with their rate, and WAV files in and out.

Samples are one-dimensional ``numpy.int16`` arrays in the machine's byte order, mono, full scale ±32767. Everything is
checked where it enters, so that a float array or a stereo file is refused with the remedy in the message instead of
being heard as noise.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from talkpath.errors import FormatError

Samples = npt.NDArray[np.int16]
"""int16, [n_samples], mono."""

PLAYABLE_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""The rates that can be played, converted as they play; `convert_rate` brings any other to one of them."""

_MIN_RATE_HZ = 1_000
_MAX_RATE_HZ = 384_000
_MAX_FILE_BYTES = 1 << 29
_MAX_WAV_DATA_BYTES = 0xFFFFFFFF - 64


def check_rate(sample_rate_hz: int) -> int:
    """Return `sample_rate_hz`, or say why it cannot be one.

    Raises:
        FormatError: not a whole number of hertz between 1,000 and 384,000.
    """
    if isinstance(sample_rate_hz, bool) or not isinstance(sample_rate_hz, int | np.integer):
        raise FormatError(f"sample_rate_hz must be a whole number such as 8000, not {sample_rate_hz!r}")
    if not _MIN_RATE_HZ <= sample_rate_hz <= _MAX_RATE_HZ:
        raise FormatError(f"sample_rate_hz={sample_rate_hz}: expected hertz, between {_MIN_RATE_HZ} and {_MAX_RATE_HZ}")
    return int(sample_rate_hz)


def check_samples(samples: Any) -> Samples:
    """Return `samples` as an int16 array, or say why it is none.

    Raises:
        FormatError: not an array, not int16, or not one-dimensional; the caller's to mend, and the message says how.
    """
    if not isinstance(samples, np.ndarray):
        raise FormatError(
            f"samples must be a numpy int16 array, not {type(samples).__name__}; "
            "for raw little-endian bytes use numpy.frombuffer(data, '<i2')"
        )
    if samples.ndim != 1:
        raise FormatError(
            f"samples are {samples.ndim}-dimensional, of shape {samples.shape}; expected [n_samples], mono: "
            "take one channel, samples[:, 0]"
        )
    if samples.dtype.kind == "f":
        raise FormatError(
            f"samples are {samples.dtype}; expected int16: (samples * 32767).clip(-32768, 32767).astype(numpy.int16)"
        )
    if samples.dtype.kind != "i" or samples.dtype.itemsize != 2:
        raise FormatError(f"samples are {samples.dtype}; expected int16")
    return samples.astype(np.int16, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A piece of one track: what a listener gets, and what may be spoken back."""

    samples: Samples
    """int16, [n_samples], mono."""
    sample_rate_hz: int
    at_sample: int = 0
    """Where its first sample lies on the track, in samples of this chunk's rate."""
    track: str = "inbound"
    """``inbound`` (what the caller says) or ``outbound`` (what the caller hears)."""

    @property
    def duration_ms(self) -> float:
        """How long it lasts."""
        return len(self.samples) * 1000 / self.sample_rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class AudioClip:
    """A whole recording: samples and their rate."""

    samples: Samples
    """int16, [n_samples], mono."""
    sample_rate_hz: int

    @property
    def duration_ms(self) -> float:
        """How long it lasts."""
        return len(self.samples) * 1000 / self.sample_rate_hz

    def at_rate(self, sample_rate_hz: int) -> AudioClip:
        """Return the clip at another rate (itself when it has that rate); see `convert_rate`."""
        if sample_rate_hz == self.sample_rate_hz:
            return self
        return AudioClip(convert_rate(self.samples, self.sample_rate_hz, sample_rate_hz), sample_rate_hz)


def read_audio(path: str | os.PathLike[str], *, mix_down: bool = False) -> AudioClip:
    """Read a WAV file.

    Recordings come in many dresses and a name proves nothing, so the content decides: 8, 16, 24 and 32 bit PCM, 32 and
    64 bit float, μ-law and A-law, plain or WAVE_FORMAT_EXTENSIBLE, with any other chunks around them. Samples come back
    as int16 at the file's own rate. More than one channel is refused rather than guessed at: two callers mixed into one
    track is seldom what was meant.

    Args:
        path: The file; at most 512 MiB.
        mix_down: Average the channels of a file that has several.

    Raises:
        FormatError: not a WAV file, or one that cannot be read; says what would be right.
        OSError: the file cannot be opened.
    """
    size = os.stat(path).st_size
    if size > _MAX_FILE_BYTES:
        raise FormatError(f"{os.fspath(path)}: {size} bytes; at most {_MAX_FILE_BYTES} are read at once")
    return parse_wav(Path(path).read_bytes(), name=os.fspath(path), mix_down=mix_down)


def samples_of(audio: object, sample_rate_hz: int | None = None, *, or_file: bool = False) -> tuple[Samples, int]:
    """Return the samples of whatever audio a program may hand over to be played, and their rate.

    Args:
        audio: An `AudioChunk`, an `AudioClip` or an int16 array.
        sample_rate_hz: Of an array; everything else says its own.
        or_file: Whether it may be the path of a WAV file too, which is read here and now. Not for pieces of a stream:
            text among them is a slip of the program's, not a file.

    Returns:
        int16, [n_samples], contiguous, and not copied where that can be helped; one of `PLAYABLE_RATES_HZ`.

    Raises:
        FormatError: no audio, no rate, or one that cannot be played; says what would be right.
        OSError: the file cannot be opened.
    """
    if or_file and isinstance(audio, str | os.PathLike):
        audio = read_audio(audio)
    if isinstance(audio, AudioChunk | AudioClip):
        pcm, rate = audio.samples, audio.sample_rate_hz
    elif isinstance(audio, np.ndarray):
        if sample_rate_hz is None:
            raise FormatError("an array says nothing of its rate; pass sample_rate_hz=")
        pcm, rate = audio, sample_rate_hz
    else:
        raise FormatError(
            f"audio is an AudioChunk, an AudioClip{', the path of a WAV file' if or_file else ''} or an int16 array, "
            f"not {type(audio).__name__}"
        )
    pcm = np.ascontiguousarray(check_samples(pcm))
    if check_rate(rate) not in PLAYABLE_RATES_HZ:
        raise FormatError(
            f"audio of {rate} Hz cannot be played; bring it to one of {', '.join(map(str, PLAYABLE_RATES_HZ))} Hz "
            "first: AudioClip.at_rate() or convert_rate()"
        )
    return pcm, int(rate)


def parse_wav(content: bytes, *, name: str = "audio", mix_down: bool = False) -> AudioClip:
    """Read the bytes of a WAV file; `name` goes into messages. See `read_audio`.

    A data chunk longer than the file (a recorder that was killed, a program writing to a pipe) is read to the end.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise FormatError(f"{name}: {_what_instead(content)}")
    audio_format: tuple[int, int, int, int] | None = None
    for kind, body in _riff_chunks(content):
        if kind == b"fmt ":
            audio_format = _wav_format(body, name)
        elif kind == b"data":
            if audio_format is None:
                raise FormatError(f"{name}: its data comes before its format chunk; not a readable WAV file")
            tag, n_channels, rate_hz, bits = audio_format
            return AudioClip(_wav_samples(body, tag, n_channels, bits, name, mix_down), rate_hz)
    raise FormatError(f"{name}: a WAV file without audio in it (no data chunk)")


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(content)
    offset = 12
    while offset + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, offset)
        offset += 8
        yield kind, view[offset : offset + length]
        offset += length + (length & 1)


def _what_instead(content: bytes) -> str:
    seen = "an empty file"
    for magic, text in (
        (b"fLaC", "a FLAC file"),
        (b"OggS", "an Ogg file"),
        (b"ID3", "an MP3 file"),
        (b"\xff\xfb", "an MP3 file"),
        (b"\xff\xf3", "an MP3 file"),
        (b"RIFX", "a big-endian WAV file"),
        (b"RF64", "a WAV file of more than 4 GiB"),
        (b"FORM", "an AIFF file"),
        (b".snd", "an AU file"),
        (b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    ):
        if content.startswith(magic):
            seen = text
            break
    else:
        if content[4:8] == b"ftyp":
            seen = "an MP4 file"
        elif content:
            seen = "not a WAV file, nor anything known (raw samples carry no rate: numpy.frombuffer reads them)"
    return f"{seen}; expected WAV, for instance made by: ffmpeg -i INPUT -ac 1 -ar 8000 -c:a pcm_s16le OUTPUT.wav"


def _wav_format(body: memoryview, name: str) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise FormatError(f"{name}: a WAV format chunk of {len(body)} bytes; expected 16 or more")
    tag, n_channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 40:
        # The real tag is the beginning of the sub-format GUID.
        (tag,) = struct.unpack_from("<H", body, 24)
    if (tag, bits) not in _DECODERS:
        raise FormatError(
            f"{name}: WAV format tag {tag:#06x} with {bits} bits; "
            "expected PCM of 8, 16, 24 or 32 bits, float of 32 or 64, mu-law or A-law"
        )
    if n_channels < 1:
        raise FormatError(f"{name}: a WAV file with no channels")
    return tag, n_channels, check_rate(rate_hz), bits


def _wav_samples(body: memoryview, tag: int, n_channels: int, bits: int, name: str, mix_down: bool) -> Samples:
    if n_channels > 1 and not mix_down:
        raise FormatError(
            f"{name}: {n_channels} channels; a call's track is mono. read_audio(..., mix_down=True) averages them"
        )
    group = n_channels * (bits // 8)
    whole = body[: len(body) // group * group]
    samples = _DECODERS[tag, bits](whole)
    if n_channels == 1:
        return samples
    return _to_int16(samples.reshape(-1, n_channels).mean(axis=1))


def _to_int16(scaled: npt.NDArray[np.float64]) -> Samples:
    return np.clip(np.rint(scaled), -32768, 32767).astype(np.int16)


def _pcm8(body: memoryview) -> Samples:
    # WAV's 8 bits are unsigned, all its other widths signed.
    return (np.frombuffer(body, np.uint8).astype(np.int16) - 128) << 8


def _pcm16(body: memoryview) -> Samples:
    return np.frombuffer(body, "<i2").astype(np.int16)


def _pcm24(body: memoryview) -> Samples:
    octets = np.frombuffer(body, np.uint8).reshape(-1, 3).astype(np.int32)
    value = (octets[:, 2] << 24 | octets[:, 1] << 16 | octets[:, 0] << 8) >> 8
    return _to_int16(value / 256.0)


def _pcm32(body: memoryview) -> Samples:
    return _to_int16(np.frombuffer(body, "<i4") / 65536.0)


def _float(body: memoryview, kind: str) -> Samples:
    values = np.nan_to_num(np.frombuffer(body, kind).astype(np.float64), nan=0.0, posinf=1.0, neginf=-1.0)
    return _to_int16(values * 32768.0)


def _pcmu_table() -> Samples:
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 15) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _pcma_table() -> Samples:
    code = np.arange(256) ^ 0x55
    segment, step = (code >> 4) & 7, (code & 15) << 4
    magnitude = np.where(segment == 0, step + 8, step + 0x108 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_DECODERS: dict[tuple[int, int], Callable[[memoryview], Samples]] = {
    (_PCM, 8): _pcm8,
    (_PCM, 16): _pcm16,
    (_PCM, 24): _pcm24,
    (_PCM, 32): _pcm32,
    (_FLOAT, 32): lambda body: _float(body, "<f4"),
    (_FLOAT, 64): lambda body: _float(body, "<f8"),
    # Files carry G.711 in two tables here, on floor 1; calls carry it in the C core.
    (_MULAW, 8): lambda body: _pcmu_table()[np.frombuffer(body, np.uint8)],
    (_ALAW, 8): lambda body: _pcma_table()[np.frombuffer(body, np.uint8)],
}


def write_audio(path: str | os.PathLike[str], samples: Samples, sample_rate_hz: int) -> None:
    """Write a WAV file: 16 bit PCM, mono.

    Args:
        path: The file; one that exists is replaced.
        samples: int16, [n_samples].
        sample_rate_hz: Their rate.

    Raises:
        FormatError: the samples or the rate are not what they should be.
        OSError: the file cannot be written.
    """
    checked = check_samples(samples)
    with WavWriter(path, sample_rate_hz) as writer:
        writer.write(checked)


class WavWriter:
    """A WAV file that grows while a call runs: 16 bit PCM, mono or with more channels.

    A recorder does not know how long the call will be, and must not hold it in memory. So the samples go to the file as
    they come and the header's lengths are put right at `close`; `flush` puts them right on the way, so that a recording
    can be read while it grows and survives a killed process.

    Not for more than one task at a time. Writes go through a buffered file and block as files do.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate_hz: int, *, n_channels: int = 1) -> None:
        """Create the file, replacing one that exists.

        Raises:
            FormatError: the rate, or the number of channels (1 to 8), cannot be one.
            OSError: the file cannot be created.
        """
        self._sample_rate_hz = check_rate(sample_rate_hz)
        if not 1 <= n_channels <= 8:
            raise FormatError(f"n_channels is {n_channels}; a WAV file here has 1 to 8")
        self._n_channels = n_channels
        self._n_samples = 0
        self._file: BinaryIO | None = open(path, "wb")  # noqa: SIM115 - close() is this object's own
        self._file.write(self._header())

    @property
    def sample_rate_hz(self) -> int:
        """The rate of the file."""
        return self._sample_rate_hz

    @property
    def n_samples(self) -> int:
        """Samples of each channel written so far."""
        return self._n_samples

    def write(self, samples: Samples) -> None:
        """Append int16 samples, [n_samples], or [n_samples, n_channels] where there are several.

        Raises:
            FormatError: wrong type or shape, or more than a WAV file can hold (4 GiB).
            ValueError: the writer is closed.
        """
        if self._n_channels > 1:
            if np.ndim(samples) != 2 or samples.shape[1] != self._n_channels:
                raise FormatError(f"samples have shape {np.shape(samples)}; expected [n_samples, {self._n_channels}]")
            samples = samples.reshape(-1)
        self._append(check_samples(samples).astype("<i2", copy=False).tobytes())

    def write_silence(self, n_samples: int) -> None:
        """Append `n_samples` zeros to each channel."""
        while n_samples > 0:
            n = min(n_samples, 65_536)
            self._append(bytes(2 * n * self._n_channels))
            n_samples -= n

    def flush(self) -> None:
        """Make what was written so far a complete WAV file on disk."""
        file = self._open_file()
        file.seek(0)
        file.write(self._header())
        file.seek(0, os.SEEK_END)
        file.flush()

    def close(self) -> None:
        """Complete the header and close the file. Once is enough, more do no harm."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the WAV file is closed")
        return self._file

    def _append(self, octets: bytes) -> None:
        file = self._open_file()
        group = 2 * self._n_channels
        if group * self._n_samples + len(octets) > _MAX_WAV_DATA_BYTES:
            raise FormatError("a WAV file holds at most 4 GiB; begin another")
        file.write(octets)
        self._n_samples += len(octets) // group

    def _header(self) -> bytes:
        group = 2 * self._n_channels
        data_bytes = group * self._n_samples
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            36 + data_bytes,
            b"WAVE",
            b"fmt ",
            16,
            _PCM,
            self._n_channels,
            self._sample_rate_hz,
            group * self._sample_rate_hz,
            group,
            16,
            b"data",
            data_bytes,
        )


_ZERO_CROSSINGS = 64
_KAISER_BETA = 9.0
_PASSBAND = 0.91
_OUTPUT_BLOCK = 4096


def convert_rate(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Convert a whole recording from any rate to any other, for files only.

    A running call converts what it plays by itself, with `talkpath.dsp.Resampler`, at the rates that are usual
    (`PLAYABLE_RATES_HZ`); this is for all others, and for files that stay files. There is no hurry here, so the filter
    is long: a windowed sinc (Kaiser, 128 zero crossings) evaluated at the exact position of every output sample, in
    double precision. Flat within 0.01 dB up to 0.91 of the lower Nyquist frequency, images and aliases below -85 dB,
    linear phase, no delay: output sample n lies at input time n / to_hz. The ends are padded with silence.

    Args:
        samples: int16, [n_samples] at `from_hz`.
        from_hz: Rate of the input.
        to_hz: Rate wanted.

    Returns:
        int16, [round(n_samples * to_hz / from_hz)].

    Raises:
        FormatError: samples or a rate are not what they should be.
    """
    pcm = check_samples(samples)
    from_hz, to_hz = check_rate(from_hz), check_rate(to_hz)
    if from_hz == to_hz or len(pcm) == 0:
        return pcm.copy()
    common = math.gcd(from_hz, to_hz)
    up, down = to_hz // common, from_hz // common
    # The cut-off follows the lower of the two rates; the kernel widens as it falls.
    stretch = max(1.0, from_hz / to_hz)
    half = math.ceil(_ZERO_CROSSINGS * stretch)
    padded = np.concatenate([np.zeros(half), pcm.astype(np.float64), np.zeros(half + 1)])
    n_out = (len(pcm) * up + down // 2) // down
    out = np.empty(n_out, np.int16)
    table = _sinc_rows(np.arange(up) / up, half, stretch) if up <= _OUTPUT_BLOCK else None
    offsets = np.arange(2 * half)
    for first in range(0, n_out, _OUTPUT_BLOCK):
        position = np.arange(first, min(first + _OUTPUT_BLOCK, n_out)) * down
        whole, phase = position // up, position % up
        rows = table[phase] if table is not None else _sinc_rows(phase / up, half, stretch)
        window = padded[np.minimum(whole[:, None] + offsets + 1, len(padded) - 1)]
        out[first : first + len(position)] = _to_int16(np.einsum("ij,ij->i", rows, window))
    return out


def _sinc_rows(fractions: npt.NDArray[np.float64], half: int, stretch: float) -> npt.NDArray[np.float64]:
    """Return, for each fraction of an input sample, the weights of the inputs from -half + 1 to +half around it."""
    distance = np.arange(-half + 1, half + 1)[None, :] - fractions[:, None]
    cutoff = (1 + _PASSBAND) / 2 / stretch
    inside = np.clip(1 - (distance / half) ** 2, 0, None)
    rows = np.sinc(distance * cutoff) * np.i0(_KAISER_BETA * np.sqrt(inside))
    scaled: npt.NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return scaled
