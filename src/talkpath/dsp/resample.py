"""Streaming conversion between 8, 16, 24 and 48 kHz that never holds audio back.

Resamplers made for files gather input until their transform is full: with chunks of 20 ms they answer with nothing for
100 ms and then with a burst, and a conversation hears that as delay. This one gives 20 ms for every 20 ms, at a
constant delay of at most 2 ms upwards and 4 ms downwards, with images and aliases at least 75 dB down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import FormatError, NativeError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm, PcmLike

RESAMPLER_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

_SAMPLES = ffi.typeof("int16_t[]")
_STATE = ffi.typeof("tp_resample *")


class Resampler:
    """Convert one stream of audio from one rate to another, chunk by chunk.

    After n samples in, exactly ceil(n * to_hz / from_hz) have come out, however the input was cut; the samples do not
    depend on the cuts either. Equal rates copy. Upwards the band up to 0.425 of the lower rate passes (3400 Hz of
    8 kHz) and its images are removed; downwards everything from half the new rate on is removed before it can fold.

    Args:
        from_hz: rate of what goes in; one of `RESAMPLER_RATES_HZ`.
        to_hz: rate of what comes out; one of `RESAMPLER_RATES_HZ`.

    Raises:
        FormatError: another rate; the caller's to mend.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        for rate_hz in (from_hz, to_hz):
            if rate_hz not in RESAMPLER_RATES_HZ:
                raise FormatError(f"cannot resample {rate_hz!r} Hz; known rates: 8000, 16000, 24000, 48000")
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._state = ffi.new(_STATE)
        if lib.tp_resample_init(self._state, from_hz, to_hz) < 0:
            raise NativeError(f"the native core refused {from_hz} to {to_hz} Hz")

    @property
    def delay_samples(self) -> int:
        """How far the output lags behind the input, in samples of `to_hz`; a whole number, for all frequencies."""
        return int(lib.tp_resample_delay(self._state))

    @property
    def delay_ms(self) -> float:
        """How far the output lags behind the input, in milliseconds."""
        return self.delay_samples * 1000 / self.to_hz

    def process(self, pcm: PcmLike) -> Pcm:
        """Convert the next chunk.

        Args:
            pcm: int16, [n_samples], mono, any length, or the bytes of such an array.

        Returns:
            int16, a new array. Loud input whose filtered waveform would leave 16 bits is saturated.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        out = np.empty(lib.tp_resample_output_length(self._state, len(samples)), dtype=np.int16)
        n_out = lib.tp_resample_process(
            self._state, ffi.from_buffer(_SAMPLES, out), len(out), ffi.from_buffer(_SAMPLES, samples), len(samples)
        )
        if n_out != len(out):
            raise NativeError(f"the native core resampled {len(samples)} samples into {n_out}, not {len(out)}")
        return out

    def reset(self) -> None:
        """Forget the past: the next chunk is the first of a new stream."""
        lib.tp_resample_reset(self._state)
