"""Packet loss concealment: make up the audio that did not come.

Rules: every frame goes through the concealer in order of time, by `receive` when it is there and by `fillin` when it is
not; a good frame costs a copy. How it is done (pitch search, repetition, two-sided cross-fade) is told in
``csrc/tp_plc.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm, PcmLike

_INT16_ARRAY = ffi.typeof("int16_t[]")


class Concealer:
    """Conceal losses in one mono signal, without added delay.

    What is made up repeats the last period of the voice, fades from 5 ms on and is silence after 80; a good frame costs
    a copy, a lost one a microsecond.

    Args:
        sample_rate_hz: 8000 or 16000.

    Raises:
        FormatError: another rate; the caller's to mend.

    Source: own; cross-correlation and overlap-add are textbook methods.
    """

    def __init__(self, sample_rate_hz: int = 8000) -> None:
        self._state: Any = ffi.new("tp_plc *")
        if sample_rate_hz not in (8000, 16000) or lib.tp_plc_init(self._state, sample_rate_hz) < 0:
            raise FormatError(f"a concealer works at 8000 or 16000 Hz, not {sample_rate_hz}")

    def receive(self, frame: PcmLike) -> Pcm:
        """Take a good frame and return what to play.

        Args:
            frame: int16, [n_samples], mono, any length, or the bytes of such an array.

        Returns:
            int16, [n_samples], a new array: the frame itself, its beginning cross-faded when it ends a gap.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        played = as_pcm(frame).copy()
        for at in range(0, len(played), lib.TP_PLC_MAX_FRAME):
            piece = played[at : at + lib.TP_PLC_MAX_FRAME]
            lib.tp_plc_receive(self._state, ffi.from_buffer(_INT16_ARRAY, piece), len(piece))
        return played

    def fillin(self, n_samples: int, following: PcmLike | None = None) -> Pcm:
        """Make up `n_samples` that did not come.

        Args:
            n_samples: of the gap, or of its next part.
            following: int16, [n_following], mono, or the bytes of such an array; the good audio right after these
                samples, where it is known already. It must be what `receive` gets next.

        Returns:
            int16, [n_samples], a new array.

        Raises:
            FormatError: wrong dtype or shape of `following`, or half a sample. ConfigError: a negative count. Both the
                caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        after = ffi.NULL
        n_after = 0
        if following is not None:
            after = ffi.from_buffer(_INT16_ARRAY, as_pcm(following))
            n_after = len(after)
        made = np.empty(n_samples, np.int16)
        for at in range(0, n_samples, lib.TP_PLC_MAX_FRAME):
            piece = made[at : at + lib.TP_PLC_MAX_FRAME]
            last = at + len(piece) == n_samples
            lib.tp_plc_fillin(
                self._state,
                ffi.from_buffer(_INT16_ARRAY, piece),
                len(piece),
                after if last else ffi.NULL,
                n_after if last else 0,
            )
        return made

    def reset(self) -> None:
        """Forget what was heard: another signal begins."""
        lib.tp_plc_reset(self._state)


def conceal(pcm: PcmLike, lost: Sequence[bool], *, sample_rate_hz: int = 8000, frame_samples: int = 0) -> Pcm:
    """Return a recorded signal as it would have been heard with some of its frames lost.

    To hear, or to show a recogniser, what a network does to a call. Each gap's last frame is closed against the good
    one after it, as a jitter buffer that holds one frame more permits.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array. What lies in a lost frame has no influence.
        lost: one for each whole frame; what is behind the last of them stays as it is.
        sample_rate_hz: 8000 or 16000.
        frame_samples: 20 ms when 0.

    Returns:
        int16, [n_samples], a new array, in place in time.

    Raises:
        FormatError: wrong dtype or shape, or half a sample, another rate, more frames than the signal has, or frames
            longer than 960 samples; the caller's to mend.

    Source: as `Concealer`.
    """
    samples = as_pcm(pcm)
    concealer = Concealer(sample_rate_hz)
    n = frame_samples or sample_rate_hz // 50
    if not 0 < n <= lib.TP_PLC_MAX_FRAME or len(lost) * n > len(samples):
        raise FormatError(f"{len(lost)} frames of {n} samples do not fit into {len(samples)} samples")
    played = samples.copy()
    gone = np.asarray(lost, np.bool_).tobytes()
    lib.tp_plc_conceal(concealer._state, ffi.from_buffer(_INT16_ARRAY, played), len(lost), n, gone)
    return played
