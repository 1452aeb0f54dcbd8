"""Louder and softer, several tracks as one, and a limit that is not heard.

Music that is lowered under a voice must not click when it is lowered, and the sum of two loud tracks must not be
squared by saturation: `Gain` moves in a straight line, sample by sample, and `Limiter` turns the whole waveform down
for as long as it is too loud, so that its shape stays. Neither delays anything, both are integer arithmetic, and
neither depends on how the audio is cut into chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm, PcmLike

GAIN_DB = (-60.0, 18.0)
"""Least and most of a gain; minus infinity beside them is mute."""
LIMITER_KNEE: int = lib.TP_LIMITER_KNEE
"""Samples up to this magnitude pass a limiter at rest unchanged; -1.16 dB of full scale."""

Sums: TypeAlias = npt.NDArray[np.int32]
"""int32, [n_samples]: int16 samples added up, not yet limited."""

_SAMPLES = ffi.typeof("int16_t[]")
_SUMS = ffi.typeof("int32_t[]")
_GAIN = ffi.typeof("tp_gain *")
_LIMITER = ffi.typeof("tp_limiter *")
_MUTE: int = lib.TP_GAIN_MUTE
_MOST_RAMP_MS = 10_000


def gain_db_x100(gain_db: float) -> int:
    """Return a gain as the native core takes it: hundredths of a decibel, or its number for mute.

    Raises:
        ConfigError: neither from -60 to 18 nor minus infinity; the caller's to mend.
    """
    if isinstance(gain_db, bool) or not isinstance(gain_db, int | float | np.integer | np.floating):
        raise ConfigError(f"gain_db is {gain_db!r}; it must be a number of decibels")
    if gain_db == -math.inf:
        return _MUTE
    least, most = GAIN_DB
    if not least <= gain_db <= most:
        raise ConfigError(f"gain_db is {gain_db}; it must be {least:g} to {most:g}, or -inf for mute")
    return round(gain_db * 100)


class Gain:
    """Make one stream of audio louder or softer, and change that while it plays.

    A change is a straight line to the new gain over `ramp_ms`, from the next sample on, so it never clicks. What
    exceeds 16 bits is saturated: put a `Limiter` behind a gain above 0 dB.

    Args:
        gain_db: -60 to 18 dB, in hundredths; minus infinity is mute.
        sample_rate_hz: of the audio; it says how many samples a ramp has.
        ramp_ms: how long a change takes, 0 (at once, with a click) to 10,000.

    Raises:
        ConfigError: an argument out of range; the caller's to mend.

    Source: own.
    """

    def __init__(self, gain_db: float = 0.0, *, sample_rate_hz: int = 8000, ramp_ms: float = 20.0) -> None:
        if not 1000 <= sample_rate_hz <= 384_000:
            raise ConfigError(f"sample_rate_hz is {sample_rate_hz}; it must be 1,000 to 384,000")
        if not 0 <= ramp_ms <= _MOST_RAMP_MS:
            raise ConfigError(f"ramp_ms is {ramp_ms}; it must be 0 to {_MOST_RAMP_MS}")
        self._state = ffi.new(_GAIN)
        lib.tp_gain_init(self._state, round(sample_rate_hz * ramp_ms / 1000))
        self.gain_db = gain_db
        lib.tp_gain_settle(self._state)

    @property
    def gain_db(self) -> float:
        """The gain that is in force, or that the ramp under way leads to, in dB; set it to begin a ramp.

        Raises:
            ConfigError: out of range; nothing has changed; the caller's to mend.
        """
        return self._gain_db

    @gain_db.setter
    def gain_db(self, gain_db: float) -> None:
        lib.tp_gain_set(self._state, gain_db_x100(gain_db))
        self._gain_db = float(gain_db)

    def process(self, pcm: PcmLike) -> Pcm:
        """Scale the next chunk.

        Args:
            pcm: int16, [n_samples], mono, any length, or the bytes of such an array.

        Returns:
            int16, [n_samples], a new array; without delay. At 0 dB the same samples.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        out = np.empty_like(samples)
        lib.tp_gain_process(
            self._state, ffi.from_buffer(_SAMPLES, out), ffi.from_buffer(_SAMPLES, samples), len(samples)
        )
        return out

    def settle(self) -> None:
        """End a ramp at its goal: the next chunk is the beginning of something new."""
        lib.tp_gain_settle(self._state)


def steady(gain_db: float, sample_rate_hz: int) -> Callable[[Pcm], Pcm] | None:
    """Return what scales one stream of audio by a gain that does not change, without clipping it; None: nothing to do.

    Raises:
        ConfigError: a gain out of range; the caller's to mend.
    """
    if gain_db_x100(gain_db) == 0:
        return None
    gain = Gain(gain_db, sample_rate_hz=sample_rate_hz)
    if gain_db < 0:
        return gain.process
    limiter = Limiter(sample_rate_hz)
    return lambda pcm: mix(pcm, gains=(gain,), limiter=limiter)


class Limiter:
    """Keep one stream of audio, or the sum of several, within 16 bits without clipping it.

    At rest it passes samples up to `LIMITER_KNEE` unchanged. What goes beyond turns the gain down from that very sample
    on, just so far that full scale is not reached, along a curve that begins at the knee; afterwards the gain rises by
    40 dB a second at most. So 6 dB too much is over 150 ms later, and the level does not pump.

    Args:
        sample_rate_hz: of the audio; it says how fast the gain rises in a sample.

    Raises:
        ConfigError: not 1,000 to 384,000; the caller's to mend.

    Source: own; the static curve is the rational soft knee of textbooks.
    """

    def __init__(self, sample_rate_hz: int = 8000) -> None:
        self._state = ffi.new(_LIMITER)
        if not 0 <= sample_rate_hz < 1 << 32 or lib.tp_limiter_init(self._state, sample_rate_hz) < 0:
            raise ConfigError(f"sample_rate_hz is {sample_rate_hz}; it must be 1,000 to 384,000")

    def process(self, pcm: PcmLike | Sums) -> Pcm:
        """Limit the next chunk.

        Args:
            pcm: int16 or int32, [n_samples], mono, any length, or the bytes of an int16 array.

        Returns:
            int16, [n_samples], a new array, without delay; no magnitude above 32767.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        if isinstance(pcm, np.ndarray) and pcm.dtype == np.int32:
            if pcm.ndim != 1:
                raise FormatError(f"samples must be mono, one dimension, not shape {pcm.shape}")
            sums: Sums = np.ascontiguousarray(pcm, np.int32)
        else:
            sums = as_pcm(pcm).astype(np.int32)  # type: ignore[arg-type]
        out = np.empty(len(sums), np.int16)
        lib.tp_limiter_process(self._state, ffi.from_buffer(_SAMPLES, out), ffi.from_buffer(_SUMS, sums), len(sums))
        return out

    def reset(self) -> None:
        """Forget the past: the gain is at rest."""
        lib.tp_limiter_reset(self._state)

    @property
    def reduction_db(self) -> float:
        """By how much the gain is turned down at the moment, in dB; 0.0 at rest."""
        return 20 * math.log10(lib.TP_LIMITER_UNITY / self._state.gain)


def mix(
    *tracks: PcmLike,
    gains: Sequence[Gain | float] | None = None,
    limiter: Limiter | None = None,
    sample_rate_hz: int = 8000,
) -> Pcm:
    """Add up tracks that begin at the same time, and limit the sum.

    For whole recordings call it once; for streams chunk by chunk, with a `Gain` for each track and one `Limiter` that
    are kept from call to call.

    Args:
        tracks: each int16, [n_samples], mono, or the bytes of such an array; shorter ones end in silence.
        gains: one per track, a `Gain` or decibels; None: 0 dB for all.
        limiter: of the sum; None: a new one.
        sample_rate_hz: of all tracks, for that new one.

    Returns:
        int16, [n_samples of the longest], a new array, without delay.

    Raises:
        FormatError: wrong dtype or shape, or half a sample. ConfigError: another number of gains than of tracks, or one
            out of range. The caller's to mend; no state has changed.

    Source: own.
    """
    arrays = [as_pcm(track) for track in tracks]
    if gains is None:
        gains = [0.0] * len(arrays)
    if len(gains) != len(arrays):
        raise ConfigError(f"{len(gains)} gains for {len(arrays)} tracks")
    scales = [gain if isinstance(gain, Gain) else Gain(gain) for gain in gains]
    limiter = limiter if limiter is not None else Limiter(sample_rate_hz)
    sums = np.zeros(max(map(len, arrays), default=0), np.int32)
    for pcm, scale in zip(arrays, scales, strict=True):
        lib.tp_mix_add(ffi.from_buffer(_SUMS, sums), ffi.from_buffer(_SAMPLES, pcm), len(pcm), scale._state)
    return limiter.process(sums)
