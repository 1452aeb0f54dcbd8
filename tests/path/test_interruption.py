"""The machine between a policy and a playout, against its table; and the policies that know suspicion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.audio import AudioChunk, Samples
from talkpath.dsp import VoiceState
from talkpath.errors import ConfigError, FormatError
from talkpath.path.barge_in import Act, BargeIn, Interruption, Verdict, VoiceGate, check_policy, read_answer
from talkpath.path.second_opinion import SecondOpinion

SUSPECT, CONFIRM, REJECT = Verdict.SUSPECT, Verdict.CONFIRM, Verdict.REJECT
NOTHING, PAUSE, RESUME, CLEAR = Act
MS = 1_000_000


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([SUSPECT, CONFIRM, REJECT, True, False, None, "gone", "time"]),
            st.booleans(),
            st.integers(0, 80),
        ),
        max_size=40,
    )
)
def test_it_follows_its_table(steps: list[tuple[object, bool, int]]) -> None:
    interruption = Interruption(100)
    state, since, now = "idle", 0, 0
    for what, is_heard, ms in steps:
        now += ms
        if what == "time":
            expected = RESUME if state == "suspected" and now - since >= 100 else NOTHING
            state = "spent" if expected is RESUME else state
            assert interruption.look(now * MS) is expected
        elif what == "gone":
            state = "idle"
            interruption.gone()
        else:
            expected = NOTHING
            if what in (CONFIRM, True):
                if state == "suspected" or is_heard:
                    expected, state = CLEAR, "idle"
            elif what is SUSPECT:
                if state == "idle" and is_heard:
                    expected, state, since = PAUSE, "suspected", now
            elif what is REJECT and state == "suspected":
                expected, state = RESUME, "idle"
            elif state == "spent":
                state = "idle"
            assert interruption.answer(what, now * MS, lambda heard=is_heard: heard) is expected  # type: ignore[arg-type, misc]
        assert interruption.suspected == (state == "suspected")
        assert (interruption.due_ns == (since + 100) * MS) == (state == "suspected")


@pytest.mark.parametrize("limit_ms", [0, 19, 10_001])
def test_a_suspicion_has_a_bound(limit_ms: int) -> None:
    with pytest.raises(ConfigError, match="suspicion_ms"):
        Interruption(limit_ms)


def voice(ms: int, rate: int = 8000, hz: float = 140) -> Samples:
    at = np.arange(rate * ms // 1000) / rate
    return np.asarray(np.sum([2500 / k * np.sin(2 * np.pi * hz * k * at) for k in range(1, 20)], axis=0), np.int16)


def quiet(ms: int, rate: int = 8000) -> Samples:
    return np.random.default_rng(ms).integers(-20, 20, rate * ms // 1000).astype(np.int16)


def answers(policy: BargeIn, audio: Samples, rate: int = 8000, ms: int = 20) -> list[tuple[int, object]]:
    """(chunk's beginning in ms, answer) of every chunk with an answer."""
    n = rate * ms // 1000
    told = [(i * ms, policy(AudioChunk(audio[i * n : i * n + n], rate))) for i in range(len(audio) // n)]
    return [(at, answer) for at, answer in told if answer is not None]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_a_voice_is_suspected_and_confirmed_once_an_utterance(rate: int) -> None:
    audio = np.concatenate([quiet(2000, rate), voice(600, rate), quiet(600, rate), voice(600, rate), quiet(600, rate)])
    first, second, third, fourth = answers(VoiceGate(), audio, rate)
    assert [first[1], second[1], third[1], fourth[1]] == [SUSPECT, CONFIRM, SUSPECT, CONFIRM]
    assert 2000 <= first[0] <= 2060
    assert 2120 <= second[0] <= 2220
    assert third[0] >= 3200


def test_what_does_not_last_is_rejected() -> None:
    audio = np.concatenate([quiet(2000), voice(80), quiet(600), voice(80), quiet(600)])
    told = answers(VoiceGate(), audio)
    assert [answer for _, answer in told] == [SUSPECT, REJECT, SUSPECT, REJECT]
    assert told[1][0] - told[0][0] <= 300


def test_a_gate_can_be_reset_and_looked_at() -> None:
    gate = VoiceGate(suspect_ms=20, confirm_ms=100, hangover_ms=100, margin_db=3)
    assert isinstance(gate, BargeIn)
    assert [answer for _, answer in answers(gate, voice(400))] == [SUSPECT, CONFIRM]
    assert gate.activity.speaking
    gate.reset()
    assert not gate.activity.speaking
    assert [answer for _, answer in answers(gate, voice(400))] == [SUSPECT, CONFIRM]
    with pytest.raises(ConfigError, match="suspect_ms"):
        VoiceGate(suspect_ms=200, confirm_ms=100)


class Fake:
    """A detector that says what it is told to say, and keeps what it heard."""

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = list(probabilities)
        self.heard: list[Samples] = []

    def __call__(self, samples: Samples) -> float:
        self.heard.append(samples)
        return self.probabilities.pop(0) if len(self.probabilities) > 1 else self.probabilities[0]


def test_a_detector_hears_the_beginning_and_everything_after_it_once() -> None:
    audio = np.concatenate([quiet(2000), voice(400), quiet(600)])
    detector = Fake(0.0)
    told = answers(SecondOpinion(detector, look_back_ms=100, patience_ms=2000), audio)
    assert [answer for _, answer in told] == [SUSPECT, REJECT]
    heard = np.concatenate(detector.heard)
    begin = (told[0][0] - 100) * 8
    assert np.array_equal(heard, audio[begin : begin + len(heard)])
    assert len(heard) >= (told[1][0] + 20) * 8 - begin - 256


def test_it_takes_so_much_yes_to_confirm() -> None:
    audio = np.concatenate([quiet(2000), voice(1000), quiet(600)])
    detector = Fake(0.9, 0.1, 0.9, 0.1, 0.5, 0.1)
    told = answers(SecondOpinion(detector, confirm_ms=96, look_back_ms=0), audio)
    assert [answer for _, answer in told] == [SUSPECT, CONFIRM]
    assert len(detector.heard) == 5


def test_its_patience_ends_and_the_utterance_is_not_asked_about_again() -> None:
    audio = np.concatenate([quiet(2000), voice(3000), quiet(600), voice(400), quiet(600)])
    told = answers(SecondOpinion(Fake(0.2), patience_ms=400), audio)
    assert [answer for _, answer in told] == [SUSPECT, REJECT, SUSPECT, REJECT]
    assert told[1][0] - told[0][0] == 400
    assert told[2][0] > 5600


@pytest.mark.parametrize("rate", [8000, 48000])
def test_a_detector_has_its_own_rate(rate: int) -> None:
    audio = np.concatenate([quiet(2000, rate), voice(1000, rate)])
    detector = Fake(1.0)
    told = answers(SecondOpinion(detector, sample_rate_hz=16000, window_samples=512, look_back_ms=0), audio, rate)
    assert [answer for _, answer in told] == [SUSPECT, CONFIRM]
    assert {len(window) for window in detector.heard} == {512}
    assert told[1][0] - told[0][0] <= 120


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0.0}, {"confirm_ms": 700}, {"look_back_ms": -1}, {"window_samples": 0}, {"margin_db": 99.0}],
)
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SecondOpinion(Fake(1.0), **wrong)  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        VoiceGate()(AudioChunk(np.zeros(882, np.int16), 44_101))


def test_numpys_bools_are_answers_and_nothing_else_is() -> None:
    loud = np.ones(4, np.int16) > 0
    assert [read_answer(one) for one in (loud[0], ~loud[0], True, False, None, REJECT)] == [
        CONFIRM,
        None,
        CONFIRM,
        None,
        None,
        REJECT,
    ]
    for nonsense in ("confirm", 1, 0.7, loud, VoiceState.SPEECH):
        with pytest.raises(ConfigError, match="answers a bool, a Verdict or None, not "):
            read_answer(nonsense)


async def _later(chunk: AudioChunk) -> bool:
    return True


class _Later:
    async def __call__(self, chunk: AudioChunk) -> bool:
        return True


@pytest.mark.parametrize(
    ("policy", "message"),
    [(VoiceGate, "the class VoiceGate"), (0.5, "float is not callable"), (_later, "async"), (_Later(), "async")],
)
def test_what_can_be_no_policy_is_refused_at_once(policy: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_policy(policy)


def test_a_detector_that_can_begin_anew_does_so_at_each_suspicion() -> None:
    """What it hears then does not follow what it heard last."""
    told: list[str] = []

    class Detector:
        def reset(self) -> None:
            told.append("reset")

        def __call__(self, samples: Samples) -> float:
            told.append("heard")
            return 0.0

    audio = np.concatenate([quiet(1000), voice(400), quiet(1000), voice(400), quiet(1000)])
    given = answers(SecondOpinion(Detector()), audio)
    assert [verdict for _, verdict in given] == [SUSPECT, REJECT] * 2
    assert told[0] == "reset"
    assert told.count("reset") == 2
    assert told.count("heard") > 10
