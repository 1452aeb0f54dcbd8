"""Find the digits of a telephone keypad in audio.

A caller whose leg has no telephone-events, or whose platform passes them in the audio, presses keys that can only be
heard. Speech must not be taken for keys, and keys must be found in noise, at the ends of long lines, over a dial tone:
the limits are those of ITU-T Q.24, written down with what is reached in the header of the native core's `tp_tone`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from talkpath._native import ffi, lib
from talkpath.dsp.pcm import as_pcm
from talkpath.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from talkpath.dsp.pcm import PcmLike

_SAMPLES = ffi.typeof("int16_t[]")
_STATE = ffi.typeof("tp_tone *")
_EVENT = ffi.typeof("tp_tone_event *")
_ENDED: int = lib.TP_TONE_ENDED


@dataclass(frozen=True, slots=True)
class ToneEvent:
    """A digit has begun, or has ended; an event of each for every digit."""

    digit: str = field(repr=False)
    """One of ``0123456789*#ABCD``; no `repr` shows it, since it may be part of a PIN."""
    at_sample: int
    """Where its tones begin, counted from the detector's start or `reset`, within 5 ms."""
    n_samples: int
    """How long they are; when it begins, how long they have been so far."""
    ended: bool


class ToneDetector:
    """Find DTMF digits in a stream of audio.

    A digit is reported as begun when it has lasted for about 35 ms, and as ended 30 ms after its tones are gone. The
    choice of chunks changes nothing. Where audio is missing say so with `fillin`: neither silence nor concealed audio
    is what was there, and either may split a digit in two.

    Args:
        sample_rate_hz: 8000 or 16000.

    Raises:
        FormatError: another rate; the caller's to mend.

    Source: ITU-T Q.23, Q.24.
    """

    def __init__(self, sample_rate_hz: int = 8000) -> None:
        self._state = ffi.new(_STATE)
        self._event = ffi.new(_EVENT)
        if lib.tp_tone_init(self._state, sample_rate_hz) < 0:
            raise FormatError(f"a ToneDetector's sample_rate_hz is {sample_rate_hz}; it must be 8000 or 16000")

    def process(self, pcm: PcmLike) -> list[ToneEvent]:
        """Take a chunk and return what happened in it, in order.

        Args:
            pcm: int16, [n_samples], mono, or the bytes of such an array; 0 dBm0 is a sine 3.14 dB below full scale.

        Raises:
            FormatError: wrong dtype or shape, or half a sample; nothing was taken; the caller's to mend.
        """
        samples = as_pcm(pcm)
        n, event = len(samples), self._event
        at = ffi.from_buffer(_SAMPLES, samples)
        taken = lib.tp_tone_receive(self._state, event, at, n)
        if taken == n and not event.kind:
            return []
        events = self._told()
        while taken < n:
            taken += lib.tp_tone_receive(self._state, event, at + taken, n - taken)
            events += self._told()
        return events

    def fillin(self, n_samples: int) -> list[ToneEvent]:
        """Pass over `n_samples` missing samples; return what that ends: a digit, when more than 100 ms are missing.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        lib.tp_tone_fillin(self._state, self._event, n_samples)
        return self._told()

    def reset(self) -> None:
        """Begin anew, at sample 0."""
        lib.tp_tone_reset(self._state)

    @property
    def sounding(self) -> bool:
        """Whether a digit has begun and not ended."""
        return bool(self._state.sounding >= 0)

    def _told(self) -> list[ToneEvent]:
        event = self._event
        if not event.kind:
            return []
        return [ToneEvent(chr(event.digit), event.begin, event.duration, event.kind == _ENDED)]
