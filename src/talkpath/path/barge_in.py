"""Barge-in: deciding from the caller's audio when what is queued for him should be cleared.

A policy is any callable that takes the caller's next `AudioChunk` and returns True when this chunk completes the
evidence that he is speaking. Whoever runs the policy clears at every True, so a policy says True once per utterance.
Policies are called in order, once per chunk, from one task; they may keep state and must not block.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from talkpath.audio import AudioChunk
from talkpath.dsp import Level
from talkpath.errors import ConfigError


@runtime_checkable
class BargeIn(Protocol):
    """Decides when the caller's speech clears what is queued."""

    def __call__(self, chunk: AudioChunk, /) -> bool:
        """Take the caller's next chunk; True: clear now."""
        ...


class EnergyGate:
    """Clear when the caller has been loud for long enough.

    Cheap and dependable on a clean line, and the reason is visible in two numbers. It cannot tell speech from a slammed
    door that lasts `speech_ms`; where that matters plug in a voice activity detector, which is any callable of the same
    shape.

    Loud audio adds up; audio below the threshold only begins to count against it after `hangover_ms` in one piece,
    since speech is full of short gaps. After True it stays silent until a gap of `hangover_ms` has ended the utterance,
    so an utterance clears once.
    """

    def __init__(self, threshold_dbov: float = -35.0, speech_ms: float = 100.0, hangover_ms: float = 300.0) -> None:
        """Describe what counts as speech.

        Args:
            threshold_dbov: Louder than this is speech. -35 dBov lies some 10 dB below ordinary telephone speech and
                20 dB above the noise of a quiet room.
            speech_ms: So much of it clears; 100 ms is longer than a click or a cough's onset, shorter than a word.
            hangover_ms: A quieter gap shorter than this belongs to the utterance.

        Raises:
            ConfigError: a value that cannot be meant.
        """
        if not -90 <= threshold_dbov <= 0:
            raise ConfigError(f"threshold_dbov={threshold_dbov}: expected -90 to 0, loudness below full scale")
        if speech_ms <= 0:
            raise ConfigError(f"speech_ms={speech_ms}: expected more than 0")
        if hangover_ms < 0:
            raise ConfigError(f"hangover_ms={hangover_ms}: expected 0 or more")
        self.threshold_dbov = threshold_dbov
        self.speech_ms = speech_ms
        self.hangover_ms = hangover_ms
        self._level = Level()
        self._loud_ms = 0.0
        self._quiet_ms = 0.0
        self._cleared = False

    def __call__(self, chunk: AudioChunk, /) -> bool:
        """Take the caller's next chunk; True: he has spoken for `speech_ms`, clear now."""
        if self._level.process(chunk.samples) <= self.threshold_dbov:
            self._quiet_ms += chunk.duration_ms
            if self._quiet_ms >= self.hangover_ms:
                self.reset()
            return False
        self._quiet_ms = 0.0
        self._loud_ms += chunk.duration_ms
        if self._cleared or self._loud_ms < self.speech_ms:
            return False
        self._cleared = True
        return True

    @property
    def speaking(self) -> bool:
        """Whether an utterance that cleared is still going on."""
        return self._cleared

    def reset(self) -> None:
        """Forget the utterance: the next speech clears again."""
        self._loud_ms = self._quiet_ms = 0.0
        self._cleared = False
