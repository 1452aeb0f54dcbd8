"""The arithmetic of telephone audio alone: numpy in and out, no Trio, no sockets, no clock.

    from talkpath.dsp import Resampler, pcmu_decode

    pcm = Resampler(8000, 16000).process(pcmu_decode(payload))

Every module here is a checked coat over one module of the native core, which does the same work inside calls without
coming back to Python. Audio is int16, mono, one-dimensional, native byte order; a wrong type, shape or rate raises
`talkpath.errors.FormatError`, anything else that is wrong with an argument `talkpath.errors.ConfigError`. An object
with state belongs to one task at a time.
"""

from __future__ import annotations

from talkpath.dsp.call_progress import COUNTRIES, CallProgress, call_progress
from talkpath.dsp.ear import EAR_BYTES, EAR_RATE_HZ, Ears, HeardTick
from talkpath.dsp.g711 import pcma_decode, pcma_encode, pcmu_decode, pcmu_encode
from talkpath.dsp.jitter import JitterBuffer, JitterFrame, JitterKind, JitterStatistics
from talkpath.dsp.level import SILENCE_DBOV, ActiveLevel, Level, energy_dbov
from talkpath.dsp.mix import GAIN_DB, LIMITER_KNEE, Gain, Limiter, mix
from talkpath.dsp.noise import ComfortNoise
from talkpath.dsp.plc import Concealer, conceal
from talkpath.dsp.resample import RESAMPLER_RATES_HZ, Resampler, resample
from talkpath.dsp.simd import simd_level
from talkpath.dsp.stretch import lengthen, shorten, stretch
from talkpath.dsp.tone import dtmf, tone
from talkpath.dsp.tone_detector import ToneDetector, ToneEvent
from talkpath.dsp.voice import VoiceActivity, VoiceFigures, VoiceState

__all__ = [
    "COUNTRIES",
    "EAR_BYTES",
    "EAR_RATE_HZ",
    "GAIN_DB",
    "LIMITER_KNEE",
    "RESAMPLER_RATES_HZ",
    "SILENCE_DBOV",
    "ActiveLevel",
    "CallProgress",
    "ComfortNoise",
    "Concealer",
    "Ears",
    "Gain",
    "HeardTick",
    "JitterBuffer",
    "JitterFrame",
    "JitterKind",
    "JitterStatistics",
    "Level",
    "Limiter",
    "Resampler",
    "ToneDetector",
    "ToneEvent",
    "VoiceActivity",
    "VoiceFigures",
    "VoiceState",
    "call_progress",
    "conceal",
    "dtmf",
    "energy_dbov",
    "lengthen",
    "mix",
    "pcma_decode",
    "pcma_encode",
    "pcmu_decode",
    "pcmu_encode",
    "resample",
    "shorten",
    "simd_level",
    "stretch",
    "tone",
]
