"""Barge-in: deciding from the caller's audio what becomes of what is being said to him.

A policy is any callable that takes the caller's next `AudioChunk` and answers. Policies are called in order, once per
chunk, from one task; they may keep state and must not block. Two kinds of answer:

* A bool, numpy's too. True: this chunk completes the evidence that he is speaking; what is queued is cleared. It cannot
  be taken back.
* A `Verdict`, or None for nothing new. `SUSPECT`: he may have begun to speak; the playout pauses, at once and at a
  sample.
  `REJECT`: he has not; it goes on with the next sample. `CONFIRM`: he has; what is queued is cleared.

The second kind may suspect early, since a wrong suspicion costs a short silence and no word, and decide late.

Whoever runs a policy asks an `Interruption` what to do. It is a small machine without a clock or audio of its own::

    state      | SUSPECT                | CONFIRM, True    | REJECT         | None, False | limit over     | audio gone
    -----------+------------------------+------------------+----------------+-------------+----------------+-----------
    IDLE       | pause -> SUSPECTED (1) | clear (1)        | -              | -           | -              | -
    SUSPECTED  | -                      | clear -> IDLE    | resume -> IDLE | -           | resume -> SPENT| -> IDLE
    SPENT      | -                      | clear -> IDLE (1)| -> IDLE        | -> IDLE     | -              | -> IDLE

    (1) when something is to be heard; else nothing happens and the state stays.

`SPENT` is a suspicion that nobody decided: it has ended by itself, and the policy that goes on suspecting the same
does not pause again. "Audio gone" is a clear by the program, or the end. What is said while the playout is paused
queues behind; a checkpoint lies where it lay, and settles once, as if the pause had been silence.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from talkpath.audio import AudioChunk
from talkpath.dsp import Level, Resampler, VoiceActivity, VoiceState
from talkpath.errors import ConfigError
from talkpath.units import NS_PER_MS

NEVER = 2**63 - 1
SUSPICION_MS = (20, 10_000)
"""What a suspicion may last."""


class Verdict(enum.Enum):
    """What a policy makes of the caller's audio."""

    SUSPECT = "suspect"
    """He may have begun to speak: pause."""
    CONFIRM = "confirm"
    """He has: clear."""
    REJECT = "reject"
    """He has not: go on with the next sample."""


@runtime_checkable
class BargeIn(Protocol):
    """Decides what the caller's audio does to what is said to him; see the module."""

    def __call__(self, chunk: AudioChunk, /) -> Verdict | bool | np.bool_ | None:
        """Take the caller's next chunk; True is CONFIRM, False and None are nothing new."""
        ...


def check_policy(policy: object) -> None:
    """Refuse at once what can be no policy.

    Raises:
        ConfigError: it cannot be called with a chunk and answer there and then.
    """
    if isinstance(policy, type):
        raise ConfigError(f"the barge-in policy is the class {policy.__name__}; give one of its objects")
    if not callable(policy):
        raise ConfigError(f"a barge-in policy is called with an AudioChunk; {type(policy).__name__} is not callable")
    if inspect.iscoroutinefunction(policy) or inspect.iscoroutinefunction(type(policy).__call__):
        raise ConfigError("a barge-in policy answers within the step and cannot be an async function")


def read_answer(answer: object) -> Verdict | None:
    """Return what a policy's answer means; numpy's bools are bools.

    Raises:
        ConfigError: it is no answer. It would be taken for one that never comes else.
    """
    if answer is None or isinstance(answer, Verdict):
        return answer
    if isinstance(answer, bool | np.bool_):
        return Verdict.CONFIRM if answer else None
    raise ConfigError(f"a barge-in policy answers a bool, a Verdict or None, not {type(answer).__name__}")


class Act(enum.Enum):
    """What whoever runs a policy has to do."""

    NOTHING = 0
    PAUSE = 1
    RESUME = 2
    CLEAR = 3


class Interruption:
    """The state between a policy and a playout; see the module. Times are in ns, of any one clock."""

    __slots__ = ("_limit_ns", "_spent", "due_ns")

    def __init__(self, limit_ms: int) -> None:
        """Begin idle.

        Raises:
            ConfigError: a limit that cannot be meant.
        """
        if not SUSPICION_MS[0] <= limit_ms <= SUSPICION_MS[1]:
            raise ConfigError(f"suspicion_ms={limit_ms}: expected {SUSPICION_MS[0]} to {SUSPICION_MS[1]}")
        self._limit_ns = limit_ms * NS_PER_MS
        self._spent = False
        self.due_ns = NEVER
        """When a suspicion ends by itself; `NEVER` when there is none."""

    @property
    def suspected(self) -> bool:
        """Whether the playout is paused for it."""
        return self.due_ns != NEVER

    def answer(self, verdict: Verdict | bool | None, now_ns: int, is_heard: Callable[[], bool]) -> Act:
        """Take a policy's answer; return what to do.

        Args:
            is_heard: whether anything said is still to be heard; asked only when it matters.
        """
        if verdict is True or verdict is Verdict.CONFIRM:
            if not self.suspected and not is_heard():
                return Act.NOTHING
            self.gone()
            return Act.CLEAR
        if verdict is Verdict.SUSPECT:
            if self.suspected or self._spent or not is_heard():
                return Act.NOTHING
            self.due_ns = now_ns + self._limit_ns
            return Act.PAUSE
        self._spent = False
        if verdict is Verdict.REJECT and self.suspected:
            self.gone()
            return Act.RESUME
        return Act.NOTHING

    def look(self, now_ns: int) -> Act:
        """Return what to do as time has passed."""
        if now_ns < self.due_ns:
            return Act.NOTHING
        self.gone()
        self._spent = True
        return Act.RESUME

    def gone(self) -> None:
        """What was paused is not there any more, or is decided."""
        self.due_ns = NEVER
        self._spent = False


class EnergyGate:
    """Clear when the caller has been loud for long enough.

    Cheap and dependable on a clean line, and the reason is visible in two numbers. It cannot tell speech from a slammed
    door that lasts `speech_ms`, nor from a line that is noisier than `threshold_dbov`: `VoiceGate` can.

    Loud audio adds up; audio below the threshold only begins to count against it after `hangover_ms` in one piece,
    since speech is full of short gaps. After True it stays silent until a gap of `hangover_ms` has ended the utterance,
    so an utterance clears once.
    """

    suspects = False
    """It never answers SUSPECT: whoever runs it need not be ready to take back a pause."""

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


class VoiceGate:
    """Pause when the caller may have begun to speak, clear when he has, go on when he has not.

    It follows the line's noise and asks whether what is loud is a voice (`talkpath.dsp.VoiceActivity`), so it works on
    noisy lines without a threshold to set. Suspicion comes after some 40 ms of speech, and is cheap to be wrong about;
    the decision takes `confirm_ms`. Coughs, clicks and a short "mhm" cost the caller a pause and no word.

    An utterance is suspected once and confirmed once; the next one begins after a gap of `hangover_ms`.
    """

    suspects = True

    def __init__(
        self, *, suspect_ms: int = 40, confirm_ms: int = 160, hangover_ms: int = 240, margin_db: float = 0.0
    ) -> None:
        """Describe what counts as speech.

        Args:
            suspect_ms: So much evidence pauses: voiced sound counts whole, what is only loud counts half.
            confirm_ms: So much of it clears, some of it voiced.
            hangover_ms: A gap shorter than this belongs to the utterance.
            margin_db: How much further than usual speech must stand above the noise; less than 0 for soft callers.

        Raises:
            ConfigError: a value that cannot be meant.
        """
        if not 10 <= suspect_ms <= confirm_ms:
            raise ConfigError(f"suspect_ms={suspect_ms}: expected 10 to confirm_ms, which is {confirm_ms}")
        self.suspect_ms = suspect_ms
        self._options = (confirm_ms, hangover_ms, margin_db)
        self._rate_hz = 8000
        self._resampler: Resampler | None = None
        self._activity = self._listen(8000)
        self._told: Verdict | None = None

    def _listen(self, sample_rate_hz: int) -> VoiceActivity:
        confirm_ms, hangover_ms, margin_db = self._options
        self._resampler = Resampler(sample_rate_hz, 8000) if sample_rate_hz > 16000 else None
        rate_hz = 8000 if self._resampler is not None else sample_rate_hz
        return VoiceActivity(rate_hz, onset_ms=confirm_ms, hangover_ms=hangover_ms, margin_db=margin_db)

    def __call__(self, chunk: AudioChunk, /) -> Verdict | None:
        """Take the caller's next chunk; return what is new."""
        if chunk.sample_rate_hz != self._rate_hz:
            self._rate_hz = chunk.sample_rate_hz
            self._activity = self._listen(self._rate_hz)
        samples = chunk.samples if self._resampler is None else self._resampler.process(chunk.samples)
        state = self._activity.process(samples)
        told, self._told = self._told, self._judge(state)
        return self._told if self._told is not told else None

    def _judge(self, state: VoiceState) -> Verdict | None:
        """Say what holds now: None before anything was told of the utterance, and after REJECT."""
        told = self._told
        if state >= VoiceState.SPEECH or (told is Verdict.CONFIRM and state is not VoiceState.QUIET):
            return Verdict.CONFIRM
        if told is Verdict.SUSPECT:
            return Verdict.REJECT if state is VoiceState.QUIET else told
        return Verdict.SUSPECT if self._activity.evidence_ms >= self.suspect_ms else None

    @property
    def activity(self) -> VoiceActivity:
        """What it listens with: state, score, level, noise floor."""
        return self._activity

    def reset(self) -> None:
        """Forget the utterance and the line's noise."""
        self._activity.reset()
        self._told = None
