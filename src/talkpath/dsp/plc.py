"""Packet loss concealment: make up the audio that did not come.

Rules: every frame goes through the concealer in order of time, by `receive` when it is there and by `fillin` when it is
not; a good frame costs a copy. How it is done (pitch search, repetition, two-sided cross-fade) is told in
``csrc/tp_plc.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.errors import FormatError

Pcm = npt.NDArray[np.int16]

_INT16_ARRAY = ffi.typeof("int16_t[]")


def _check(pcm: Pcm, what: str) -> None:
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        raise FormatError(f"{what} must be a one-dimensional int16 array")


class Concealer:
    """Conceal losses in one mono signal at 8 or 16 kHz, without added delay."""

    def __init__(self, sample_rate_hz: int = 8000) -> None:
        """Make a concealer that has heard nothing yet.

        Raises:
            FormatError: a rate other than 8000 and 16000; the caller's to mend.
        """
        self._state: Any = ffi.new("tp_plc *")
        if sample_rate_hz not in (8000, 16000) or lib.tp_plc_init(self._state, sample_rate_hz) < 0:
            raise FormatError(f"a concealer works at 8000 or 16000 Hz, not {sample_rate_hz}")

    def receive(self, frame: Pcm) -> Pcm:
        """Take a good frame and return what to play.

        Args:
            frame: int16, [n_samples], mono.

        Returns:
            A new array: the frame itself, its beginning cross-faded when it ends a gap.

        Raises:
            FormatError: not a one-dimensional int16 array.
        """
        _check(frame, "a frame")
        played = frame.copy()
        for at in range(0, len(played), lib.TP_PLC_MAX_FRAME):
            piece = played[at : at + lib.TP_PLC_MAX_FRAME]
            lib.tp_plc_receive(self._state, ffi.from_buffer(_INT16_ARRAY, piece), len(piece))
        return played

    def fillin(self, n_samples: int, following: Pcm | None = None) -> Pcm:
        """Make up `n_samples` that did not come.

        Args:
            n_samples: of the gap, or of its next part.
            following: int16, [n_samples], mono; the good audio right after these samples, where it is known already.
                It must be what `receive` gets next.

        Returns:
            int16, [n_samples].

        Raises:
            FormatError: a negative length, or `following` is not a one-dimensional int16 array.
        """
        if n_samples < 0:
            raise FormatError(f"a gap of {n_samples} samples cannot be filled")
        after = ffi.NULL
        n_after = 0
        if following is not None:
            _check(following, "what follows")
            after = ffi.from_buffer(_INT16_ARRAY, np.ascontiguousarray(following))
            n_after = len(following)
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


def conceal(pcm: Pcm, lost: Sequence[bool], *, sample_rate_hz: int = 8000, frame_samples: int = 0) -> Pcm:
    """Return a recorded signal as it would have been heard with some of its frames lost.

    To hear, or to show a recogniser, what a network does to a call. Each gap's last frame is closed against the good
    one after it, as a jitter buffer that holds one frame more permits.

    Args:
        pcm: int16, [n_samples], mono. What lies in a lost frame has no influence.
        lost: one for each whole frame; what is behind the last of them stays as it is.
        sample_rate_hz: 8000 or 16000.
        frame_samples: 20 ms when 0.

    Raises:
        FormatError: not a one-dimensional int16 array, another rate, more frames than the signal has, or frames longer
            than 960 samples; the caller's to mend.
    """
    _check(pcm, "a signal")
    concealer = Concealer(sample_rate_hz)
    n = frame_samples or sample_rate_hz // 50
    if not 0 < n <= lib.TP_PLC_MAX_FRAME or len(lost) * n > len(pcm):
        raise FormatError(f"{len(lost)} frames of {n} samples do not fit into {len(pcm)} samples")
    played = pcm.copy()
    gone = np.asarray(lost, np.bool_).tobytes()
    lib.tp_plc_conceal(concealer._state, ffi.from_buffer(_INT16_ARRAY, played), len(lost), n, gone)
    return played
