"""What is asked of every frame of every caller, for all calls of a tick at once: samples at 16 kHz, level, voice.

A call into the native core costs more than what it does to 20 ms of one caller. So whoever carries many calls (a
recogniser's front end, say) hands over a whole tick: one call decodes, measures, gates and resamples a thousand frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.level import SILENCE_DBOV
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm

EAR_RATE_HZ: int = lib.TP_EAR_RATE_HZ
"""Of the samples that come out."""
EAR_BYTES: int = lib.tp_ear_sizeof()
"""What one call's state occupies."""
_ENCODINGS = {"PCMU": 1, "PCMA": 2, "L16": 3}
_MOST_MS = 60
_HEARD = np.dtype([("energy", np.uint64), ("state", np.int32), ("missing", np.int32)])


@dataclass(frozen=True, slots=True, eq=False)
class HeardTick:
    """What all ears heard in one tick; the arrays are new ones, but for samples that were asked for elsewhere."""

    pcm: npt.NDArray[np.int16]
    """int16, [n_ears, n_samples], at 16 kHz; 1.9 ms later than what came in where that has 8 kHz."""
    level_dbov: npt.NDArray[np.float64]
    """float64, [n_ears], of each frame; `SILENCE_DBOV` where it is silent or missing."""
    voice: npt.NDArray[np.int32]
    """int32, [n_ears], a `VoiceState` each."""

    @property
    def speaking(self) -> npt.NDArray[np.bool_]:
        """bool, [n_ears]: whether somebody speaks, short gaps included."""
        return self.voice >= 2


class Ears:
    """Decode, measure, gate and resample a frame of each of many calls at once.

    An ear's past is its own: its samples, levels and states are what `pcmu_decode`, `Level`, `VoiceActivity` and
    `Resampler` give, call by call.

    Args:
        n: how many.
        codec: ``PCMU``, ``PCMA`` or ``L16`` (int16, little-endian), of all.
        sample_rate_hz: 8000 or 16000, of all.
        onset_ms, hangover_ms, margin_db: as for `VoiceActivity`.

    Raises:
        ConfigError: a value out of range; the caller's to mend.

    Source: as the four name them.
    """

    def __init__(
        self,
        n: int,
        codec: str = "PCMU",
        *,
        sample_rate_hz: int = 8000,
        onset_ms: int = 80,
        hangover_ms: int = 240,
        margin_db: float = 0.0,
    ) -> None:
        if not 1 <= n <= 1_000_000:
            raise ConfigError(f"{n} ears; there may be 1 to 1,000,000")
        if codec not in _ENCODINGS:
            raise ConfigError(f"codec is {codec!r}; it must be one of {', '.join(_ENCODINGS)}")
        self.n = n
        self._encoding = _ENCODINGS[codec]
        self._sample_bytes = 2 if codec == "L16" else 1
        self.sample_rate_hz = sample_rate_hz
        self._config = ffi.new("tp_voice_config *", (sample_rate_hz, onset_ms, hangover_ms, round(margin_db * 100)))
        self._ears = ffi.new("tp_ear[]", n)
        for i in range(n):
            if lib.tp_ear_init(self._ears + i, self._config) < 0:
                raise ConfigError(
                    f"ears of {sample_rate_hz} Hz with onset_ms={onset_ms} and hangover_ms={hangover_ms} cannot be"
                )

    def process(
        self,
        payloads: npt.NDArray[np.uint8],
        present: npt.NDArray[np.bool_] | None = None,
        *,
        out: npt.NDArray[np.int16] | None = None,
    ) -> HeardTick:
        """Hear one frame of each.

        Args:
            payloads: uint8, [n, n_bytes]: a frame of each ear, whole samples, at most 60 ms.
            present: bool, [n]: whose frame has come; of the others the payload does not matter. None: all.
            out: where the samples go, as `HeardTick.pcm` describes them, contiguous; None: a new array. Thousands of
                ears fill megabytes in every tick, which are dearer new than used.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        if payloads.dtype != np.uint8 or payloads.ndim != 2 or len(payloads) != self.n:
            raise FormatError(f"payloads must be uint8, [{self.n}, n_bytes], not {payloads.dtype} {payloads.shape}")
        n_bytes = payloads.shape[1]
        n_samples, half = divmod(n_bytes, self._sample_bytes)
        if half or n_samples > self.sample_rate_hz * _MOST_MS // 1000:
            raise FormatError(f"a frame of {n_bytes} bytes is not whole samples, or longer than {_MOST_MS} ms")
        flags = ffi.NULL
        if present is not None:
            if present.dtype != np.bool_ or present.shape != (self.n,):
                raise FormatError(f"present must be bool, [{self.n}], not {present.dtype} {present.shape}")
            flags = ffi.from_buffer("uint8_t[]", np.ascontiguousarray(present))
        payloads = np.ascontiguousarray(payloads)
        shape = (self.n, n_samples * (EAR_RATE_HZ // self.sample_rate_hz))
        if out is not None and (out.dtype != np.int16 or out.shape != shape or not out.flags.c_contiguous):
            raise FormatError(f"out must be int16, {list(shape)}, contiguous, not {out.dtype} {out.shape}")
        pcm: Pcm = np.empty(shape, np.int16) if out is None else out
        heard = np.empty(self.n, _HEARD)
        lib.tp_ear_hear_many(
            self._ears,
            self.n,
            self._encoding,
            ffi.from_buffer("uint8_t[]", payloads),
            n_bytes,
            n_samples,
            flags,
            ffi.from_buffer("int16_t[]", pcm),
            ffi.from_buffer("tp_heard[]", heard),
        )
        with np.errstate(divide="ignore"):
            level = 10 * np.log10(heard["energy"] / max(n_samples, 1) / (1 << 30))
        return HeardTick(pcm, np.maximum(level, SILENCE_DBOV), heard["state"])

    def reset(self, ear: int) -> None:
        """Let an ear begin anew, for another call.

        Raises:
            ConfigError: there is no such ear; the caller's to mend.
        """
        if not 0 <= ear < self.n:
            raise ConfigError(f"there is no ear {ear}; they are numbered 0 to {self.n - 1}")
        lib.tp_ear_init(self._ears + ear, self._config)
