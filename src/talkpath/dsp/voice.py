"""Whether somebody speaks: voice activity on a line that is not quiet.

A gate for 8 and 16 kHz that costs a fraction of a microsecond a frame. It follows the line's noise by octaves, so that
a steady noise of any colour is no speech after at most 1.6 s, and asks of what is loud whether it repeats itself as
voices do, so that a slammed door is not either. What it cannot tell apart is one voice from another: a talker in the
background who is about as loud as the caller opens it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import talkpath.dsp.simd  # noqa: F401 - chooses the kernels
from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import PcmLike

_SAMPLES = ffi.typeof("int16_t[]")
_STATE = ffi.typeof("tp_voice *")
_CONFIG = ffi.typeof("tp_voice_config *")
_FIGURES = ffi.typeof("tp_voice_figures *")


class VoiceState(enum.IntEnum):
    """Where between silence and speech a track is."""

    QUIET = 0
    ONSET = 1
    """Something has begun that may be speech."""
    SPEECH = 2
    HANGOVER = 3
    """It has stopped, perhaps only to draw breath."""


_STATES = tuple(VoiceState)
_receive = lib.tp_voice_receive


@dataclass(frozen=True, slots=True)
class VoiceFigures:
    """What a voice activity detector measures, of the band from 250 to 4000 Hz."""

    level_dbov: float
    """Of the last 20 ms."""
    floor_dbov: float
    """Of the line's noise; nothing below -51 is told apart."""
    snr_db: float
    """Of the last 20 ms above the floor; never below 0."""


class VoiceActivity:
    """Follow one track and say whether somebody speaks on it.

    It judges a frame every 20 ms, whatever the chunks; the same samples give the same answers on every machine. On a
    clean line speech is suspected (`ONSET`) some 20 ms after it began and decided (`SPEECH`) after `onset_ms` of voiced
    sound: 80 ms is longer than a click or a knock, shorter than a word.

    Source: own; minimum statistics after R. Martin, IEEE Transactions on Speech and Audio Processing 9 (2001) 504.
    """

    def __init__(
        self, sample_rate_hz: int = 8000, *, onset_ms: int = 80, hangover_ms: int = 240, margin_db: float = 0.0
    ) -> None:
        """Describe what counts as speech.

        Args:
            sample_rate_hz: 8000 or 16000.
            onset_ms: So much voiced sound decides for speech; 20 to 10,000.
            hangover_ms: A gap shorter than this belongs to the utterance; up to 10,000.
            margin_db: How much further than usual speech must stand above the noise; less than 0 for soft callers.

        Raises:
            FormatError: another rate. ConfigError: a value out of range. Both the caller's to mend.
        """
        if sample_rate_hz not in (8000, 16000):
            raise FormatError(f"sample_rate_hz must be 8000 or 16000, not {sample_rate_hz}")
        if not 20 <= onset_ms <= 10_000:
            raise ConfigError(f"onset_ms={onset_ms}: expected 20 to 10000")
        if not 0 <= hangover_ms <= 10_000:
            raise ConfigError(f"hangover_ms={hangover_ms}: expected 0 to 10000")
        if not -60 <= margin_db <= 60:
            raise ConfigError(f"margin_db={margin_db}: expected -60 to 60")
        self.sample_rate_hz = sample_rate_hz
        self._state = ffi.new(_STATE)
        config = ffi.new(_CONFIG, (sample_rate_hz, int(onset_ms), int(hangover_ms), round(margin_db * 100)))
        lib.tp_voice_init(self._state, config)

    def process(self, pcm: PcmLike) -> VoiceState:
        """Take a chunk into account and return the state after it.

        Args:
            pcm: int16, [n_samples], mono, or the bytes of such an array; of any length.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        state: VoiceState = _STATES[_receive(self._state, ffi.from_buffer(_SAMPLES, samples), len(samples))]
        return state

    def fillin(self, n_samples: int) -> VoiceState:
        """Say that `n_samples` are missing, and return the state after them.

        A hole of up to 60 ms changes nothing; a longer one is silence from then on. The noise floor stays as it is.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        return VoiceState(lib.tp_voice_fillin(self._state, n_samples))

    def reset(self) -> None:
        """Forget the line: its noise too."""
        lib.tp_voice_reset(self._state)

    @property
    def state(self) -> VoiceState:
        """Where the track is."""
        return VoiceState(self._state.state)

    @property
    def speaking(self) -> bool:
        """Whether somebody speaks, short gaps included."""
        return bool(self._state.state >= VoiceState.SPEECH)

    @property
    def evidence_ms(self) -> int:
        """How much speaks for speech, up to `onset_ms`: 20 for 20 ms of voiced sound, 10 for what is only loud."""
        return int(self._state.evidence)

    @property
    def score(self) -> float:
        """How far the last frame stood above the noise, from 0; 0.5 counts for speech, 1 is beyond doubt."""
        return min(1.0, int(self._state.score) / 800)

    def measure(self) -> VoiceFigures:
        """Return what it measures now."""
        figures = ffi.new(_FIGURES)
        lib.tp_voice_measure(self._state, figures)
        return VoiceFigures(figures.level_x100 / 100, figures.floor_x100 / 100, figures.snr_x100 / 100)
