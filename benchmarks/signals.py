"""Content for benchmarks: a signal that branches and tables see as they see speech, the same in every run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]

FRAME_MS = 20


def speech_like(seconds: float, rate_hz: int = 8000, seed: int = 1) -> Pcm:
    """Make voiced syllables, hiss and pauses: a pulse train of moving pitch through three resonances, enveloped.

    Noise alone would flatter branchless code (an encoder that branches on the segment mispredicts more on noise than
    on speech); one frame over and over would flatter branching code.

    Returns:
        int16, [seconds * rate_hz], mono.
    """
    random = np.random.default_rng(seed)
    n = round(seconds * rate_hz)
    at = np.arange(n) / rate_hz
    pitch_hz = 120 + 30 * np.sin(2 * np.pi * 0.7 * at)
    pulses = np.diff(np.floor(np.cumsum(pitch_hz) / rate_hz), prepend=0.0)
    source = pulses + 0.02 * random.standard_normal(n)
    spectrum = np.fft.rfft(source)
    hz = np.fft.rfftfreq(n, 1 / rate_hz)
    response = sum(gain / (1 + 1j * (hz - centre) / 80) for gain, centre in ((1.0, 500), (0.6, 1500), (0.3, 2500)))
    voiced = np.fft.irfft(spectrum * response, n)
    envelope = np.clip(np.sin(2 * np.pi * 3.1 * at) + 0.4, 0.003, None)
    shaped = voiced * envelope
    scaled: Pcm = (shaped / np.max(np.abs(shaped)) * 20000).astype(np.int16)
    return scaled


def frames_of(pcm: Pcm, rate_hz: int = 8000) -> list[Pcm]:
    """Cut into whole frames of 20 ms."""
    size = rate_hz * FRAME_MS // 1000
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]
