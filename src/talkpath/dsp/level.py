"""How loud audio is: dBov, peak and clipping.

dBov is decibels below overload (RFC 6464): 0 is a square wave at full scale, a sine at full scale is -3.01, -127 is
silence. Speech on a telephone sits around -26, line noise below -55. A level that is measured where audio is missing
should count the hole as silence (`fillin`), or a lossy call looks louder than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import PcmLike

SILENCE_DBOV = -127.0
"""What silence, or no audio at all, measures."""

_SAMPLES = ffi.typeof("int16_t[]")
_STATE = ffi.typeof("tp_level *")
_ACTIVE = ffi.typeof("tp_active *")


def energy_dbov(energy: int, n_samples: int) -> float:
    """Return the level of `n_samples` samples whose squares sum to `energy`, in dBov, a multiple of 0.01.

    Raises:
        ConfigError: a negative argument; the caller's to mend.

    Source: RFC 6464 section 3.
    """
    if energy < 0 or n_samples < 0:
        raise ConfigError(f"energy and n_samples must not be negative, got {energy} and {n_samples}")
    return int(lib.tp_level_dbov_x100(energy, n_samples)) / 100


class Level:
    """Measure chunk after chunk and keep the figures of all of them together.

    The figures are exact integers and do not depend on how the audio was cut.

    Source: RFC 6464 section 3 for dBov.
    """

    def __init__(self) -> None:
        self._state = ffi.new(_STATE)

    def process(self, pcm: PcmLike) -> float:
        """Take a chunk into account and return its own level in dBov, `SILENCE_DBOV` when it is silent or empty.

        Args:
            pcm: int16, [n_samples], mono, or the bytes of such an array.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        before = self._state.energy
        lib.tp_level_receive(self._state, ffi.from_buffer(_SAMPLES, samples), len(samples))
        return energy_dbov(self._state.energy - before, len(samples))

    def fillin(self, n_samples: int) -> None:
        """Count `n_samples` missing samples as silence.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        lib.tp_level_fillin(self._state, n_samples)

    def reset(self) -> None:
        """Forget everything measured so far."""
        lib.tp_level_reset(self._state)

    @property
    def dbov(self) -> float:
        """Level of everything since the start or `reset`, missing samples included, in dBov."""
        return energy_dbov(self._state.energy, self._state.n_samples)

    @property
    def energy(self) -> int:
        """Sum of squares since the start or `reset`."""
        return int(self._state.energy)

    @property
    def peak(self) -> int:
        """Largest magnitude since the start or `reset`, 0 to 32768."""
        return int(self._state.peak)

    @property
    def n_samples(self) -> int:
        """Samples since the start or `reset`, missing ones included."""
        return int(self._state.n_samples)

    @property
    def n_clipped(self) -> int:
        """Samples at full scale, 32767 or -32768, since the start or `reset`."""
        return int(self._state.n_clipped)


class ActiveLevel:
    """Measure how loud somebody speaks while he speaks, and how much of the time that is.

    The level of a whole recording depends on how long its pauses are; prompts and synthesisers are made equally loud
    by their active level. It needs a second of audio to mean much, and knows loud from soft, not speech from noise: on
    a line whose noise is within 16 dB of the speech it counts the noise too.

    Source: ITU-T P.56 section 5, method B (16 bits, margin 15.9 dB, hangover 200 ms, envelope 30 ms).
    """

    def __init__(self, sample_rate_hz: int = 8000) -> None:
        """Begin to measure.

        Raises:
            FormatError: a rate other than 8, 16, 24 or 48 kHz; the caller's to mend.
        """
        self._state = ffi.new(_ACTIVE)
        if lib.tp_active_init(self._state, sample_rate_hz) < 0:
            raise FormatError(f"sample_rate_hz must be 8000, 16000, 24000 or 48000, not {sample_rate_hz}")

    def process(self, pcm: PcmLike) -> None:
        """Take a chunk into account.

        Args:
            pcm: int16, [n_samples], mono, or the bytes of such an array.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        lib.tp_active_receive(self._state, ffi.from_buffer(_SAMPLES, samples), len(samples))

    def fillin(self, n_samples: int) -> None:
        """Count `n_samples` missing samples as silence.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        lib.tp_active_fillin(self._state, n_samples)

    def reset(self) -> None:
        """Forget everything measured so far."""
        lib.tp_active_reset(self._state)

    @property
    def dbov(self) -> float:
        """Active level since the start or `reset`, in dBov; `SILENCE_DBOV` when nobody has spoken."""
        return int(lib.tp_active_dbov_x100(self._state)) / 100

    @property
    def activity(self) -> float:
        """Share of the time in which there was speech, 0 to 1."""
        if self.dbov == SILENCE_DBOV:
            return 0.0
        return float(min(1.0, 10 ** ((energy_dbov(self._state.energy, self._state.n_samples) - self.dbov) / 10)))
