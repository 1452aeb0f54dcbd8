"""What counts as audio here: the one place that turns an argument into a checked array.

Arrays are taken as they are and never converted: an int32 or float array is a mistake of scale as often as of type, and
a silent cast would turn it into noise. Bytes are read as int16 in native order, which is little-endian on every
platform talkpath runs on.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from talkpath.errors import FormatError

Pcm: TypeAlias = npt.NDArray[np.int16]
"""int16 samples, [n_samples], mono, native byte order."""

PcmLike: TypeAlias = Pcm | bytes | bytearray | memoryview
"""Samples as an array, or as the bytes of one."""

PayloadLike: TypeAlias = npt.NDArray[np.uint8] | bytes | bytearray | memoryview
"""Octets of a wire: one per sample for G.711."""

_INT16 = np.dtype(np.int16)
_UINT8 = np.dtype(np.uint8)


def as_pcm(pcm: PcmLike) -> Pcm:
    """Return `pcm` as a C-contiguous, aligned int16 array of one dimension; copies only where it must.

    Raises:
        FormatError: another dtype or byte order, another number of dimensions, or half a sample; the caller's to mend.
    """
    if isinstance(pcm, np.ndarray):
        if pcm.dtype != _INT16:
            raise FormatError(f"samples must be int16 in native byte order, not {pcm.dtype}")
        if pcm.ndim != 1:
            raise FormatError(f"samples must be mono, one dimension, not shape {pcm.shape}")
        return pcm if pcm.flags.c_contiguous and pcm.flags.aligned else pcm.copy()
    octets = _octets(pcm, "samples")
    if len(octets) % 2:
        raise FormatError(f"{len(octets)} bytes are not a whole number of 16-bit samples")
    samples = octets.view(_INT16)
    return samples if samples.flags.aligned else samples.copy()


def as_payload(payload: PayloadLike) -> npt.NDArray[np.uint8]:
    """Return `payload` as a C-contiguous uint8 array of one dimension; copies only where it must.

    Raises:
        FormatError: another dtype or number of dimensions; the caller's to mend.
    """
    if isinstance(payload, np.ndarray):
        if payload.dtype != _UINT8:
            raise FormatError(f"a payload must be uint8, not {payload.dtype}")
        if payload.ndim != 1:
            raise FormatError(f"a payload must have one dimension, not shape {payload.shape}")
        return payload if payload.flags.c_contiguous else payload.copy()
    return _octets(payload, "a payload")


def _octets(buffer: bytes | bytearray | memoryview, what: str) -> npt.NDArray[np.uint8]:
    if not isinstance(buffer, (bytes, bytearray, memoryview)):
        raise FormatError(f"{what} must be an array or bytes, not {type(buffer).__name__}")
    if isinstance(buffer, memoryview) and not buffer.c_contiguous:
        buffer = buffer.tobytes()
    return np.frombuffer(buffer, dtype=_UINT8)
