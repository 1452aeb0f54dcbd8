"""Comfort noise: what a pause sounds like when its sender describes its noise instead of sending it.

A telephone that stops sending in a pause leaves a dead line, and callers ask whether somebody is still there. RFC 3389
has it send one packet that tells how loud its room is and of what colour; `ComfortNoise` makes such noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_payload
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import PayloadLike, Pcm

_SAMPLES = ffi.typeof("int16_t[]")
_STATE = ffi.typeof("tp_noise *")


class ComfortNoise:
    """Make the noise that a comfort noise payload describes, piece by piece and without end.

    Of any sample rate: the colour is relative to it. The same seed and the same payloads give the same samples on every
    machine; the level is the one asked for within 1 dB.

    Args:
        seed: which of all noises; 0 to 2**32 - 1.

    Raises:
        ConfigError: a seed out of range; the caller's to mend.

    Source: RFC 3389 sections 3 and 4.
    """

    def __init__(self, seed: int = 1) -> None:
        self._state = ffi.new(_STATE)
        self.reset(seed)

    def receive(self, payload: PayloadLike) -> None:
        """Take a description; the noise approaches it over 160 samples.

        Args:
            payload: of an RTP packet of payload type 13: an octet of level, in dB below overload, then one for each
                reflection coefficient, of which the first 12 are used. ``bytes([60])`` is white noise at -60 dBov.

        Raises:
            FormatError: it is empty, or wrong in dtype or shape; the noise stays as it was; the sender's fault.
        """
        octets = as_payload(payload).tobytes()
        if lib.tp_noise_receive(self._state, octets, len(octets)) < 0:
            raise FormatError("a comfort noise payload has at least its level")

    def take(self, n_samples: int) -> Pcm:
        """Return the next `n_samples`, int16, a new array; silence until something was received.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        out = np.empty(n_samples, np.int16)
        lib.tp_noise_fill(self._state, ffi.from_buffer(_SAMPLES, out), n_samples)
        return out

    def fade(self) -> None:
        """Begin again from nothing, at the level received last: when something else was heard in between."""
        lib.tp_noise_fade(self._state)

    def reset(self, seed: int = 1) -> None:
        """Forget what was received: silence until the next `receive`.

        Raises:
            ConfigError: a seed out of range; the caller's to mend.
        """
        if not 0 <= seed < 1 << 32:
            raise ConfigError(f"seed={seed}: expected 0 to 2**32 - 1")
        lib.tp_noise_reset(self._state, seed)
