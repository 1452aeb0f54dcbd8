"""A dear detector behind the cheap gate: a neural network decides about barge-in, and only when there is something.

Voice activity by octaves and repetition (`talkpath.dsp.VoiceActivity`) listens all the time, which costs next to
nothing. When it suspects speech the playout pauses, and the detector hears what led to the suspicion and all that
follows, until it has said yes for long enough, or the gate has closed, or its time is up. So a network that takes 0.1
ms for each 32 ms of audio costs nothing in calls in which nobody interrupts.

The detector runs within the driver's step, where every other call waits for it: keep it below a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from talkpath.audio import AudioChunk
from talkpath.dsp import Resampler, VoiceActivity, VoiceState
from talkpath.errors import ConfigError
from talkpath.path.barge_in import Verdict

Detector = Callable[[npt.NDArray[np.int16]], float]
"""Takes a window of samples, in order; returns how probable speech is, 0 to 1. It may keep state.

One that has a ``reset()`` is told so where a suspicion begins: what comes then does not follow what came before.
"""


class SecondOpinion:
    """Suspect what the gate suspects, confirm what the detector confirms, reject the rest.

    An utterance is suspected once. One that the detector has not confirmed within `patience_ms` is rejected, and not
    asked about again before the gate has closed.
    """

    suspects = True

    def __init__(
        self,
        detector: Detector,
        *,
        sample_rate_hz: int = 8000,
        window_samples: int = 256,
        threshold: float = 0.5,
        confirm_ms: int = 96,
        patience_ms: int = 600,
        suspect_ms: int = 40,
        look_back_ms: int = 160,
        hangover_ms: int = 240,
        margin_db: float = 0.0,
    ) -> None:
        """Put `detector` behind a gate.

        Args:
            detector: asked about each window of a suspicion.
            sample_rate_hz, window_samples: of what the detector takes.
            threshold: Windows at or above it are speech.
            confirm_ms: So much of it clears.
            patience_ms: So long it may take; less than the line's ``suspicion_ms``.
            suspect_ms, hangover_ms, margin_db: the gate's, as `VoiceGate`'s.
            look_back_ms: What the detector hears of the time before the suspicion: the beginning of the word.

        Raises:
            ConfigError: a value that cannot be meant. FormatError: a rate that cannot be had.
        """
        if window_samples <= 0:
            raise ConfigError(f"window_samples={window_samples}: expected more than 0")
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold={threshold}: expected more than 0, at most 1")
        if not 0 < confirm_ms <= patience_ms:
            raise ConfigError(f"confirm_ms={confirm_ms}: expected 1 to patience_ms, which is {patience_ms}")
        if not 0 <= look_back_ms <= 2000:
            raise ConfigError(f"look_back_ms={look_back_ms}: expected 0 to 2000")
        self._detector = detector
        self._reset_detector: Callable[[], object] | None = getattr(detector, "reset", None)
        self._detector_rate_hz = sample_rate_hz
        self._window = window_samples
        self._threshold = threshold
        self._confirm_ms, self._patience_ms, self._suspect_ms = confirm_ms, patience_ms, suspect_ms
        self._look_back_ms = look_back_ms
        self._gate_options = {"onset_ms": max(160, suspect_ms), "hangover_ms": hangover_ms, "margin_db": margin_db}
        self._set_rate(8000)

    def _set_rate(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._to_gate = Resampler(rate_hz, 8000) if rate_hz > 16_000 else None
        self._activity = VoiceActivity(8000 if self._to_gate else rate_hz, **self._gate_options)  # type: ignore[arg-type]
        self._recent = np.zeros(0, np.int16)
        self._to_detector: Resampler | None = None
        self._pending = np.zeros(0, np.int16)
        self._open = self._decided = False
        self._open_ms = self._speech_ms = 0.0

    def __call__(self, chunk: AudioChunk, /) -> Verdict | None:
        """Take the caller's next chunk; return what is new."""
        if chunk.sample_rate_hz != self._rate_hz:
            self._set_rate(chunk.sample_rate_hz)
        samples = chunk.samples
        state = self._activity.process(samples if self._to_gate is None else self._to_gate.process(samples))
        if self._open:
            self._open_ms += chunk.duration_ms
            if self._hear(samples):
                return self._close(Verdict.CONFIRM)
            if state is VoiceState.QUIET or self._open_ms >= self._patience_ms:
                return self._close(Verdict.REJECT)
            return None
        n = self._look_back_ms * self._rate_hz // 1000
        self._recent = np.concatenate((self._recent, samples))[-n - len(samples) :]
        self._decided = self._decided and state is not VoiceState.QUIET
        if self._decided or self._activity.evidence_ms < self._suspect_ms:
            return None
        self._open = True
        if self._reset_detector is not None:
            self._reset_detector()
        self._open_ms = self._speech_ms = 0.0
        self._pending = np.zeros(0, np.int16)
        different = self._rate_hz != self._detector_rate_hz
        self._to_detector = Resampler(self._rate_hz, self._detector_rate_hz) if different else None
        return self._close(Verdict.CONFIRM) if self._hear(self._recent) else Verdict.SUSPECT

    def _hear(self, samples: npt.NDArray[np.int16]) -> bool:
        """Have the detector hear more; -> whether it has said yes for long enough."""
        if self._to_detector is not None:
            samples = self._to_detector.process(samples)
        self._pending = np.concatenate((self._pending, samples))
        while len(self._pending) >= self._window and self._speech_ms < self._confirm_ms:
            if self._detector(self._pending[: self._window]) >= self._threshold:
                self._speech_ms += self._window * 1000 / self._detector_rate_hz
            self._pending = self._pending[self._window :]
        return self._speech_ms >= self._confirm_ms

    def _close(self, verdict: Verdict) -> Verdict:
        self._open, self._decided = False, True
        self._recent = np.zeros(0, np.int16)
        return verdict

    @property
    def activity(self) -> VoiceActivity:
        """The gate."""
        return self._activity
