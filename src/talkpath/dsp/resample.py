"""Conversion between the rates of telephones, voices and files: of a stream that never holds audio back, or at once.

Resamplers made for files gather input until their transform is full: with chunks of 20 ms they answer with nothing for
100 ms and then with a burst, and a conversation hears that as delay. `Resampler` gives 20 ms for every 20 ms, at a
constant delay of at most 2 ms upwards and 4 ms downwards, with images and aliases at least 80 dB down and a ripple of
at most 0.02 dB. `resample` is the same filter for audio that is there as a whole, with the delay taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import FormatError, NativeError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm, PcmLike

RESAMPLER_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

_ARRAY = np.ndarray
_INT16 = np.dtype(np.int16)
_SAMPLES = ffi.typeof("int16_t[]")
_PORT = ffi.typeof("tp_resample_port *")
_PER_SECOND = 25  # chunks up to 40 ms are converted into a buffer of the resampler's own and copied from there


class Resampler:
    """Convert one stream of audio from one rate to another, chunk by chunk.

    After n samples in, exactly ceil(n * to_hz / from_hz) have come out, however the input was cut; the samples do not
    depend on the cuts either. Equal rates copy. Upwards the band up to 0.425 of the lower rate passes (3400 Hz of
    8 kHz) and its images are removed; downwards everything from half the new rate on is removed before it can fold.
    Among 8, 16, 24 and 48 kHz a chunk of 20 ms takes well below a microsecond; ratios with 44.1 kHz take several.

    Args:
        from_hz: rate of what goes in; one of `RESAMPLER_RATES_HZ`.
        to_hz: rate of what comes out; one of `RESAMPLER_RATES_HZ`.

    Raises:
        FormatError: another rate; the caller's to mend.

    Source: own filters, designed by least squares; polyphase decomposition is a textbook method.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        for rate_hz in (from_hz, to_hz):
            if rate_hz not in RESAMPLER_RATES_HZ:
                rates = ", ".join(map(str, RESAMPLER_RATES_HZ))
                raise FormatError(f"cannot resample {rate_hz!r} Hz; known rates: {rates}")
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._port: Any = ffi.new(_PORT)
        self._state: Any = ffi.addressof(self._port, "state")
        if lib.tp_resample_init(self._state, from_hz, to_hz) < 0:
            raise NativeError(f"the native core refused {from_hz} to {to_hz} Hz")
        self._out = np.empty(to_hz // _PER_SECOND, dtype=_INT16)
        self._port.out = ffi.from_buffer(_SAMPLES, self._out)
        self._port.capacity = len(self._out)
        self._n_out, self._copy_out = 0, self._out[:0].copy

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
        # Bytes go into the core without a buffer object, and a copy out costs less than a new array and its address.
        if type(pcm) is _ARRAY and pcm.dtype is _INT16 and pcm.ndim == 1:
            octets = pcm.tobytes()
        elif type(pcm) is bytes:
            octets = pcm
        else:
            octets = as_pcm(pcm).tobytes()
        n_out = _resample_chunk(self._port, octets, len(octets))
        if n_out != self._n_out:
            if n_out < 0:
                return self._process_long(as_pcm(octets))
            self._n_out, self._copy_out = n_out, self._out[:n_out].copy
        return self._copy_out()

    def _process_long(self, samples: Pcm) -> Pcm:
        out = np.empty(lib.tp_resample_output_length(self._state, len(samples)), dtype=_INT16)
        n_out = lib.tp_resample_process(
            self._state, ffi.from_buffer(_SAMPLES, out), len(out), ffi.from_buffer(_SAMPLES, samples), len(samples)
        )
        if n_out != len(out):
            raise NativeError(f"the native core resampled {len(samples)} samples into {n_out}, not {len(out)}")
        return out

    def reset(self) -> None:
        """Forget the past: the next chunk is the first of a new stream."""
        lib.tp_resample_reset(self._state)


_resample_chunk = lib.tp_resample_chunk


def resample(pcm: PcmLike, from_hz: int, to_hz: int) -> Pcm:
    """Convert a whole piece of audio, in place in time: output sample n lies at input time n / to_hz.

    The filter is that of `Resampler`; its delay is taken out and both ends are padded with silence.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array.
        from_hz: its rate; one of `RESAMPLER_RATES_HZ`.
        to_hz: the rate wanted; one of `RESAMPLER_RATES_HZ`.

    Returns:
        int16, [ceil(n_samples * to_hz / from_hz)], a new array.

    Raises:
        FormatError: wrong dtype or shape, half a sample, or another rate; the caller's to mend.

    Source: as `Resampler`.
    """
    samples = as_pcm(pcm)
    resampler = Resampler(from_hz, to_hz)
    delay = resampler.delay_samples
    tail = np.zeros(-(-delay * from_hz // to_hz) + 1, dtype=_INT16)
    n_out = -(-len(samples) * to_hz // from_hz)
    return resampler.process(np.concatenate([samples, tail]))[delay : delay + n_out]
