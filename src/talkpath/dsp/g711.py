"""ITU-T G.711, mu-law (PCMU) and A-law (PCMA): linear int16 to and from one octet a sample.

Encoders return `bytes`, because a payload goes into a message or a packet next; decoders return an int16 array, because
samples go into arithmetic. Exact to ITU-T's reference on all 65,536 samples, negative ones included, where widespread
encoders differ from it on up to 964. For one frame at a time the call costs more than the work: inside calls the native
core does this as part of larger steps, and in bulk it runs at several thousand million samples a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_payload, as_pcm

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkpath.dsp.pcm import PayloadLike, Pcm, PcmLike

_SAMPLES = ffi.typeof("int16_t[]")
_OCTETS = ffi.typeof("uint8_t[]")


def pcmu_encode(pcm: PcmLike) -> bytes:
    """Encode linear samples as mu-law.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array.

    Returns:
        n_samples octets; silence is 0xff.

    Raises:
        FormatError: wrong dtype or shape, or half a sample; the caller's to mend.

    Source: ITU-T G.711 (11/88) table 2; G.191 for negative samples.
    """
    return _encode(lib.tp_g711_pcmu_encode, pcm)


def pcmu_decode(payload: PayloadLike) -> Pcm:
    """Decode mu-law to linear samples.

    Args:
        payload: octets as bytes or as uint8, [n_samples].

    Returns:
        int16, [n_samples], within +-32124; a new array.

    Raises:
        FormatError: wrong dtype or shape; the caller's to mend.

    Source: ITU-T G.711 (11/88) table 2.
    """
    return _decode(lib.tp_g711_pcmu_decode, payload)


def pcma_encode(pcm: PcmLike) -> bytes:
    """Encode linear samples as A-law, even bits inverted as on the wire.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array.

    Returns:
        n_samples octets; silence is 0xd5.

    Raises:
        FormatError: wrong dtype or shape, or half a sample; the caller's to mend.

    Source: ITU-T G.711 (11/88) table 1; G.191 for negative samples.
    """
    return _encode(lib.tp_g711_pcma_encode, pcm)


def pcma_decode(payload: PayloadLike) -> Pcm:
    """Decode A-law to linear samples.

    Args:
        payload: octets as bytes or as uint8, [n_samples].

    Returns:
        int16, [n_samples], within +-32256; a new array.

    Raises:
        FormatError: wrong dtype or shape; the caller's to mend.

    Source: ITU-T G.711 (11/88) table 1.
    """
    return _decode(lib.tp_g711_pcma_decode, payload)


def _encode(kernel: Callable[..., None], pcm: PcmLike) -> bytes:
    # Bytes need no detour through an array, which would cost more than the work.
    samples = ffi.from_buffer(_SAMPLES, pcm if type(pcm) is bytes and len(pcm) % 2 == 0 else as_pcm(pcm))
    payload = np.empty(len(samples), dtype=np.uint8)
    kernel(ffi.from_buffer(_OCTETS, payload), samples, len(samples))
    return payload.tobytes()


def _decode(kernel: Callable[..., None], payload: PayloadLike) -> Pcm:
    octets = payload if type(payload) is bytes else ffi.from_buffer(_OCTETS, as_payload(payload))
    samples = np.empty(len(octets), dtype=np.int16)
    kernel(ffi.from_buffer(_SAMPLES, samples), octets, len(octets))
    return samples
