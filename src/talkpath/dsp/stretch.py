"""Make speech last longer or shorter without a gap, a click or another pitch.

A jitter buffer wins and loses delay so, and a listener gets through a voicemail faster. Both do it by leaving out, or
saying twice, whole periods of the voice with a cross-fade over the joint. `stretch` does a recording; `shorten` and
`lengthen` do one frame of a stream, without state and without delay, and say what they did. How a period is found is
told in ``csrc/tp_stretch.h``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm, PcmLike

_SAMPLES = ffi.typeof("int16_t[]")
_LEAST_FRAME, _MOST_FRAME = 16, 960
_MAKES_SURE = 3


def shorten(
    pcm: PcmLike, frame_samples: int, at_most: int, *, sample_rate_hz: int = 8000, urgency: int = 1
) -> tuple[Pcm, int]:
    """Make one frame of a little more than a frame's worth of audio.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array: the frame and what follows it, 20 ms or more.
        frame_samples: of the frame that comes out; 16 to 960, at most n_samples.
        at_most: how many samples may be left out; never more than 20 ms nor than what follows.
        sample_rate_hz: 8000 to 16000.
        urgency: 0: only where it is quiet; 1: where the voice repeats itself well; 2: where it does so a little; 3:
            wherever.

    Returns:
        The frame, int16, [frame_samples], a new array, and how many samples were left out: the next frame begins at
        ``frame_samples`` plus that many. 0, and the frame as it was, where nothing suits.

    Raises:
        FormatError: wrong dtype or shape, or half a sample, or too few samples for a frame, or another rate.
        ConfigError: a frame, number or urgency out of range. Both the caller's to mend.

    Source: overlap-add at the lag of greatest likeness; W. Verhelst, M. Roelands, ICASSP 1993.
    """
    samples = as_pcm(pcm)
    _check(frame_samples, at_most, sample_rate_hz, urgency)
    if len(samples) < frame_samples:
        raise FormatError(f"{len(samples)} samples are less than a frame of {frame_samples}")
    frame = np.empty(frame_samples, np.int16)
    given, out = ffi.from_buffer(_SAMPLES, samples), ffi.from_buffer(_SAMPLES, frame)
    removed = lib.tp_stretch_shorten(out, frame_samples, given, len(samples), at_most, sample_rate_hz, urgency)
    return frame, int(removed)


def lengthen(frame: PcmLike, about: int, *, sample_rate_hz: int = 8000, urgency: int = 1) -> tuple[Pcm, int]:
    """Make a frame that says part of itself twice, so that its end is still to come.

    Args:
        frame: int16, [n_samples], mono, or the bytes of such an array; 16 to 960 samples.
        about: how many samples to repeat; what is repeated are whole periods, so it may be up to twice as much, but
            never more than three quarters of the frame.
        sample_rate_hz: 8000 to 16000.
        urgency: as for `shorten`.

    Returns:
        A frame, int16, [n_samples], a new array, and how many samples were repeated: the next frame begins that much
        before the end of this one. 0, and the frame as it was, where nothing suits.

    Raises:
        FormatError, ConfigError: as `shorten`.

    Source: as `shorten`.
    """
    samples = as_pcm(frame)
    _check(len(samples), about, sample_rate_hz, urgency)
    longer = np.empty(len(samples), np.int16)
    given, out = ffi.from_buffer(_SAMPLES, samples), ffi.from_buffer(_SAMPLES, longer)
    repeated = lib.tp_stretch_lengthen(out, len(samples), given, about, sample_rate_hz, urgency)
    return longer, int(repeated)


def stretch(pcm: PcmLike, speed: float, *, sample_rate_hz: int = 8000) -> Pcm:
    """Return a recording as it sounds spoken faster or slower, at the same pitch.

    Args:
        pcm: int16, [n_samples], mono, or the bytes of such an array.
        speed: 0.5 to 2.0; 2.0 takes half the time.
        sample_rate_hz: 8000 to 16000.

    Returns:
        int16, a new array of n_samples / speed samples, give or take 40 ms.

    Raises:
        FormatError: wrong dtype or shape, or half a sample, or another rate.
        ConfigError: a speed out of range. Both the caller's to mend.

    Source: as `shorten`.
    """
    samples = as_pcm(pcm)
    if not 0.5 <= speed <= 2.0:
        raise ConfigError(f"speed={speed}: expected 0.5 to 2.0")
    # A frame leaves out one lag of up to 20 ms; where more than that is to go, frames are shorter.
    n, ahead = sample_rate_hz // (50 if speed <= 1.5 else 100), sample_rate_hz // 50
    _check(n, 0, sample_rate_hz, _MAKES_SURE)
    frames: list[Pcm] = []
    at = 0
    # A shorter lag than 2.5 ms is no period of a voice: less than that waits for the next frame.
    least = sample_rate_hz // 400
    while at + n + ahead <= len(samples):
        behind = round((len(frames) + 1) * n * speed) - (at + n)
        moved = 0
        if behind >= least:
            frame, moved = shorten(
                samples[at : at + n + ahead], n, behind, sample_rate_hz=sample_rate_hz, urgency=_MAKES_SURE
            )
        elif behind <= -least:
            frame, repeated = lengthen(
                samples[at : at + n], -behind, sample_rate_hz=sample_rate_hz, urgency=_MAKES_SURE
            )
            moved = -repeated
        else:
            frame = samples[at : at + n]
        frames.append(frame)
        at += n + moved
    return np.concatenate([*frames, samples[at:]])


def _check(frame_samples: int, samples: int, sample_rate_hz: int, urgency: int) -> None:
    if not 8000 <= sample_rate_hz <= 16000:
        raise FormatError(f"sample_rate_hz must be 8000 to 16000, not {sample_rate_hz}")
    if not _LEAST_FRAME <= frame_samples <= _MOST_FRAME:
        raise ConfigError(f"a frame of {frame_samples} samples: expected {_LEAST_FRAME} to {_MOST_FRAME}")
    if samples < 0:
        raise ConfigError(f"a number of samples must not be negative, got {samples}")
    if urgency not in (0, 1, 2, 3):
        raise ConfigError(f"urgency={urgency}: expected 0 to 3")
