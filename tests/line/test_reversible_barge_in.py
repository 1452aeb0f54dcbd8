"""A suspicion pauses what is said; it goes on with the next sample, or is cleared. Both ends ours, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time
from support.platform import instant, open_line
from talkpath.audio import AudioChunk, Samples
from talkpath.dsp import pcmu_decode
from talkpath.engine import Call, MemoryLeg, StreamSpec
from talkpath.errors import ConfigError
from talkpath.line import Line, serve_memory_lines
from talkpath.path.barge_in import Verdict
from talkpath.records import EndReason, Outcome

Bot = Callable[[Line], Awaitable[None]]
FRAME = 160
SECOND = 8000
PAUSELESS = ["plivo", "twilio", "signalwire", "teler", "freeclimb"]
HEARD_LATE_MS = {"teler": 500}
"""Where the caller's audio comes in messages so long, what is decided meanwhile is decided at once."""


def speech(n_samples: int, seed: int = 3) -> Samples:
    """Audio that survives mu-law as it is, no two frames alike, none of it silence."""
    raw = np.random.default_rng(seed).integers(0, 120, n_samples).astype(np.uint8)
    return pcmu_decode(raw.tobytes())


class Scripted:
    """A policy that answers by the caller's clock: {ms since the first chunk: answer}."""

    def __init__(self, script: dict[int, Verdict | bool]) -> None:
        self.script = dict(script)
        self.first: int | None = None

    def __call__(self, chunk: AudioChunk) -> Verdict | bool | None:
        if self.first is None:
            self.first = chunk.at_sample
        return self.script.pop((chunk.at_sample - self.first) * 1000 // chunk.sample_rate_hz, None)


async def _call(bot: Bot, during: Any, options: Any) -> Any:
    seconds, wire = options.pop("seconds", 6.0), options.pop("wire")
    leg = MemoryLeg()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve_memory_lines, bot, "bot"))
        async with engine() as which, which.open_call(leg) as call:
            stream = await call.start_stream(StreamSpec(url=url, wire=wire, bidirectional=True, **options))
            if during is not None:
                await during(call)
            with trio.move_on_at(seconds):
                await call.wait_ended()
            heard = leg.heard().copy()
        nursery.cancel_scope.cancel()
    return heard, stream.record


def place(bot: Bot, wire: str, during: Any = None, **options: Any) -> tuple[Samples, Any]:
    """One call with a bot on it: what its caller heard, the stream's record; nothing is left afterwards."""
    result: tuple[Samples, Any] = in_virtual_time(_call, bot, during, {"wire": wire, **options})
    return result


def stretches(heard: Samples) -> list[Samples]:
    """What the caller heard between silences of a frame and more."""
    frames = heard[: len(heard) // FRAME * FRAME].reshape(-1, FRAME)
    loud = np.any(frames, axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int)))
    return [frames[a:b].reshape(-1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def overlap(before: Samples, after: Samples, said: Samples) -> int:
    """Samples of `said` that are in both (positive) or in neither (negative)."""
    assert np.array_equal(before, said[: len(before)])
    # The last frame is filled up with silence.
    whole = len(after) // FRAME * FRAME
    for start in range(max(0, len(before) - 4 * FRAME), len(before) + 4 * FRAME):
        rest = said[start:]
        n = min(len(rest), whole)
        if np.array_equal(after[:n], rest[:n]):
            return len(before) - start
    raise AssertionError("what was heard afterwards is not what was said")


@pytest.mark.parametrize("wire", ["native", "asterisk"])
def test_a_wire_with_a_pause_goes_on_with_the_next_sample(wire: str) -> None:
    said = speech(3 * SECOND)
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({500: Verdict.SUSPECT, 900: Verdict.REJECT}))
        line.speak(said, sample_rate_hz=SECOND)
        middle = line.checkpoint("middle")
        line.speak(speech(SECOND, seed=9), sample_rate_hz=SECOND)
        outcomes.append(await middle.wait())

    heard, record = place(bot, wire)
    before, after = stretches(heard)
    both = np.concatenate((before, after))
    assert np.array_equal(both, np.concatenate((said, speech(SECOND, seed=9))))
    assert 3000 < len(before) < 5000
    assert [(one.outcome, one.exact) for one in outcomes] == [(Outcome.PLAYED, wire == "native")]
    assert record.clears == 0


@pytest.mark.parametrize("wire", PAUSELESS)
def test_a_wire_without_a_pause_hears_the_rest_again_to_within_a_frame(wire: str) -> None:
    said = speech(3 * SECOND)
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        late = HEARD_LATE_MS.get(wire, 0)
        line.barge_in(Scripted({400: Verdict.SUSPECT, 800 + late: Verdict.REJECT}))
        line.speak(said[: 2 * SECOND], sample_rate_hz=SECOND)
        sent = line.checkpoint("sent")  # with the clear already on the platform
        line.speak(said[2 * SECOND :], sample_rate_hz=SECOND)
        queued = line.checkpoint("queued")
        await trio.sleep(0.7)
        assert sent.outcome is None
        outcomes.extend([(await sent.wait(), trio.current_time()), (await queued.wait(), trio.current_time())])

    heard, record = place(bot, wire)
    before, after = stretches(heard)
    assert 2400 < len(before) < 7000
    assert abs(overlap(before, after, said)) <= FRAME
    (sent, sent_at), (queued, queued_at) = outcomes
    assert sent.outcome is Outcome.ASSUMED
    assert queued.outcome is (Outcome.ASSUMED if wire == "teler" else Outcome.PLAYED)
    assert queued_at - sent_at == pytest.approx(1, abs=0.05)
    assert record.clears == 1


@pytest.mark.parametrize("wire", ["native", *PAUSELESS])
def test_a_confirmed_suspicion_clears_all_of_it(wire: str) -> None:
    said = speech(4 * SECOND)
    results: list[Any] = []

    async def bot(line: Line) -> None:
        late = HEARD_LATE_MS.get(wire, 0)
        line.barge_in(Scripted({400: Verdict.SUSPECT, 700 + late: Verdict.CONFIRM}))

        async def play() -> None:
            results.append(await line.play(said, sample_rate_hz=SECOND))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            await trio.sleep(0.1)
            line.speak(speech(SECOND, seed=5), sample_rate_hz=SECOND)
            mark = line.checkpoint("end")
        results.append(await mark.wait())
        results.append((line.statistics().suspicions, line.statistics().barge_ins))
        await line.play(speech(SECOND, seed=7), sample_rate_hz=SECOND)

    heard, _ = place(bot, wire)
    before, after = stretches(heard)
    assert np.array_equal(before, said[: len(before)])
    assert np.array_equal(after, speech(SECOND, seed=7))
    played, mark, counted = results
    assert played.reason is Outcome.CLEARED
    assert abs(played.samples - len(before)) <= FRAME
    assert mark.outcome is Outcome.CLEARED
    assert counted == (1, 1)


@pytest.mark.parametrize("wire", ["native", "plivo", "twilio", "teler"])
def test_a_suspicion_that_nobody_decides_ends_by_itself(wire: str) -> None:
    said = speech(2 * SECOND)

    async def bot(line: Line) -> None:
        line.barge_in(lambda chunk: Verdict.SUSPECT if chunk.at_sample >= 4000 else None, suspicion_ms=300)
        line.speak(said, sample_rate_hz=SECOND)
        await line.drain()

    heard, _ = place(bot, wire)
    before, after = stretches(heard)
    assert abs(overlap(before, after, said)) <= (0 if wire == "native" else FRAME)
    silence = np.flatnonzero(np.any(heard[: len(heard) // FRAME * FRAME].reshape(-1, FRAME), axis=1))
    gap = int(np.max(np.diff(silence)) - 1) * 20
    assert 280 <= gap <= 340


@pytest.mark.parametrize("wire", ["native", "plivo", "twilio"])
def test_suspicions_one_after_the_other_lose_nothing(wire: str) -> None:
    said = speech(3 * SECOND)
    script: dict[int, Verdict | bool] = {}
    for at in (300, 600, 900, 1100):
        script |= {at: Verdict.SUSPECT, at + 100: Verdict.REJECT}

    async def bot(line: Line) -> None:
        line.barge_in(Scripted(script))
        line.speak(said, sample_rate_hz=SECOND)
        await line.drain()

    heard, record = place(bot, wire)
    parts = stretches(heard)
    assert len(parts) == 5
    at = 0
    for part in parts:
        off = min(range(-FRAME, FRAME + 1), key=lambda d: (not _is_at(part, said, at + d), abs(d)))
        assert _is_at(part, said, at + off)
        assert off == 0 or wire != "native"
        at += off + len(part)
    assert abs(at - len(said)) < FRAME
    assert record.clears == (0 if wire == "native" else 4)


def _is_at(part: Samples, said: Samples, at: int) -> bool:
    if at < 0:
        return False
    n = min(len(part), len(said) - at)
    return n > 0 and bool(np.array_equal(part[:n], said[at : at + n])) and not np.any(part[n:])


@pytest.mark.parametrize("wire", ["native", "plivo", "twilio"])
def test_a_clear_by_the_program_ends_the_suspicion(wire: str) -> None:
    answers: list[Any] = []

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({300: Verdict.SUSPECT, 900: Verdict.REJECT}))
        line.speak(speech(4 * SECOND), sample_rate_hz=SECOND)
        mark = line.checkpoint("end")
        await trio.sleep(0.5)
        await line.clear()
        line.speak(speech(SECOND, seed=4), sample_rate_hz=SECOND)
        answers.append(await mark.wait())
        await line.drain()
        answers.append(line.statistics().barge_ins)

    heard, _ = place(bot, wire)
    before, after = stretches(heard)
    assert np.array_equal(after, speech(SECOND, seed=4)), "heard at once, and once"
    assert answers[0].outcome is Outcome.CLEARED
    assert answers[1] == 0
    assert np.array_equal(before, speech(4 * SECOND)[: len(before)])


@pytest.mark.parametrize("wire", ["native", "plivo", "twilio", "teler"])
def test_a_hang_up_while_suspected_loses_every_checkpoint_once(wire: str) -> None:
    marks: list[Any] = []

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({300: Verdict.SUSPECT}), suspicion_ms=5000)
        line.speak(speech(SECOND), sample_rate_hz=SECOND)
        marks.append(line.checkpoint("sent"))
        line.speak(speech(4 * SECOND), sample_rate_hz=SECOND)
        marks.append(line.checkpoint("queued"))
        await trio.sleep(1)
        await line.hang_up()

    place(bot, wire)
    assert [mark.outcome.outcome for mark in marks] == [Outcome.LOST, Outcome.LOST]


def test_the_programs_own_pause_outlasts_a_suspicion() -> None:
    said = speech(2 * SECOND)

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({300: Verdict.SUSPECT, 700: Verdict.REJECT}))
        line.speak(said, sample_rate_hz=SECOND)
        await trio.sleep(0.5)
        assert not line.paused
        await line.pause()
        await trio.sleep(1)
        assert line.paused
        await line.resume()
        await line.drain()

    heard, _ = place(bot, "native")
    before, after = stretches(heard)
    assert np.array_equal(np.concatenate((before, after)), said)
    loud = np.flatnonzero(np.any(heard[: len(heard) // FRAME * FRAME].reshape(-1, FRAME), axis=1))
    assert int(np.max(np.diff(loud))) * 20 >= 1100


async def test_a_policy_taken_away_takes_its_suspicion_along(autojump_clock: Any) -> None:
    said = speech(SECOND)
    async with open_line() as (line, platform):
        line.barge_in(Scripted({0: Verdict.SUSPECT}), suspicion_ms=10_000)
        line.speak(said, sample_rate_hz=SECOND)
        await trio.sleep(0.25)
        await platform.say(np.ones(FRAME, np.int16))
        await instant()
        assert len(platform.named("clearAudio")) == 1
        assert len(platform.heard()) == pytest.approx(2000, abs=8)
        await trio.sleep(2)
        line.barge_in(None)
        await line.drain()
        assert np.array_equal(platform.heard(), said), "no sample lost or doubled where no time is lost on the way"
        assert line.statistics().barge_ins == 0


async def test_a_checkpoint_of_the_same_name_is_not_settled_by_its_ghost(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(Scripted({0: Verdict.SUSPECT, 20: Verdict.REJECT}))
        line.speak(speech(4000), sample_rate_hz=SECOND)
        first = line.checkpoint("same")
        await trio.sleep(0.1)
        platform.hold_answers_s = 0.3
        for _ in range(2):
            await platform.say(np.ones(FRAME, np.int16))
            await instant()
        line.speak(speech(4000), sample_rate_hz=SECOND)
        second = line.checkpoint("same")
        assert (await first.wait()).outcome is Outcome.ASSUMED
        assert second.outcome is None
        assert (await second.wait()).outcome is Outcome.PLAYED


async def test_a_suspicion_without_anything_to_hear_is_none(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(lambda chunk: Verdict.SUSPECT)
        for _ in range(3):
            await platform.say(np.ones(FRAME, np.int16))
            await instant()
        assert platform.messages == []
        with pytest.raises(ConfigError, match="suspicion_ms"):
            line.barge_in(lambda chunk: None, suspicion_ms=5)


def test_the_callers_hang_up_while_suspected_ends_the_line() -> None:
    reasons: list[Any] = []

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({300: Verdict.SUSPECT}), suspicion_ms=5000)
        line.speak(speech(5 * SECOND), sample_rate_hz=SECOND)
        mark = line.checkpoint("end")
        reasons.append((await mark.wait()).outcome)
        reasons.append(await line.wait_ended())

    async def during(call: Call) -> None:
        await trio.sleep(1)
        call.hang_up()

    place(bot, "twilio", during)
    assert reasons == [Outcome.LOST, EndReason.PLATFORM_HUNG_UP]


def test_a_policy_hears_the_callers_rate_whatever_is_said_at() -> None:
    """On Teler at 16 kHz the two ways have different rates."""
    heard: set[tuple[int, int]] = set()

    def policy(chunk: AudioChunk) -> None:
        heard.add((chunk.sample_rate_hz, len(chunk.samples)))

    async def bot(line: Line) -> None:
        line.barge_in(policy)
        await trio.sleep(1)

    place(bot, "teler", seconds=2, codec="L16@16000h")
    assert heard == {(16000, 320)}


async def test_what_was_sent_before_the_policy_came_is_heard_or_cleared_and_never_lost(autojump_clock: Any) -> None:
    """It has not been kept, so it could not be sent again."""
    said = speech(3 * SECOND)
    async with open_line() as (line, platform):
        line.speak(said, sample_rate_hz=SECOND)
        await trio.sleep(0.25)
        line.barge_in(Scripted({0: Verdict.SUSPECT, 20: Verdict.REJECT, 40: Verdict.SUSPECT, 60: Verdict.REJECT}))
        for wait_s in (0.1, 2.4, 0.1, 0.1):
            await platform.say(np.ones(FRAME, np.int16))
            await instant()
            await trio.sleep(wait_s)
        await line.drain()
        assert np.array_equal(platform.heard(), said)
        assert line.statistics().suspicions == 1, "the second one, of what was sent since"


@pytest.mark.parametrize("verdict", [Verdict.CONFIRM, Verdict.SUSPECT])
async def test_a_synthesiser_between_two_pieces_is_interrupted_too(autojump_clock: Any, verdict: Verdict) -> None:
    pieces = [speech(800), speech(800, seed=4)]
    played: list[Any] = []

    async def synthesise() -> AsyncIterator[Samples]:
        yield pieces[0]
        await trio.sleep(1)
        yield pieces[1]

    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        line.barge_in(Scripted({0: verdict}), suspicion_ms=2000)

        async def play() -> None:
            played.append(await line.play(synthesise(), sample_rate_hz=SECOND))

        nursery.start_soon(play)
        await trio.sleep(0.6)
        await platform.say(np.ones(FRAME, np.int16))
        await trio.sleep(1)
        assert np.array_equal(platform.heard(), pieces[0])
        if verdict is Verdict.CONFIRM:
            assert [(one.reason, one.samples) for one in played] == [(Outcome.CLEARED, 800)]
        else:
            await trio.sleep(3)
            assert np.array_equal(platform.heard(), np.concatenate(pieces))


@pytest.mark.parametrize("rejected_ms", [420, 800])
def test_where_nothing_takes_back_what_was_sent_it_is_heard_once(rejected_ms: int) -> None:
    said = speech(2 * SECOND)

    async def bot(line: Line) -> None:
        line.barge_in(Scripted({400: Verdict.SUSPECT, rejected_ms: Verdict.REJECT}))
        line.speak(said, sample_rate_hz=SECOND)
        await line.drain()
        assert line.statistics().suspicions == 1

    heard, _ = place(bot, "audiosocket")
    loud = np.concatenate(stretches(heard))
    assert np.array_equal(loud, said)
    assert len(stretches(heard)) == (2 if rejected_ms == 800 else 1)


async def test_another_policy_during_a_suspicion_has_a_limit_of_its_own(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(Scripted({0: Verdict.SUSPECT}), suspicion_ms=200)
        line.speak(speech(4 * SECOND), sample_rate_hz=SECOND)
        await trio.sleep(0.1)
        await platform.say(np.ones(FRAME, np.int16))
        await trio.sleep(0.1)
        line.barge_in(Scripted({20: Verdict.SUSPECT}), suspicion_ms=1000)
        await trio.sleep(0.2)
        for _ in range(2):
            await platform.say(np.ones(FRAME, np.int16))
            await instant()
        await trio.sleep(2)
        kinds = [message["event"] for message in platform.messages]
        cleared = [i for i, kind in enumerate(kinds) if kind == "clearAudio"]
        rested = [platform.arrived[i + 1] - platform.arrived[i] for i in cleared]
        assert rested == [pytest.approx(0.2, abs=0.001), pytest.approx(1, abs=0.001)]


async def test_a_policy_that_takes_itself_away_takes_what_it_suspects_along(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):

        def once(chunk: AudioChunk) -> Verdict:
            line.barge_in(None)
            return Verdict.SUSPECT

        line.barge_in(once)
        line.speak(speech(SECOND), sample_rate_hz=SECOND)
        await trio.sleep(0.1)
        await platform.say(np.ones(FRAME, np.int16))
        await instant()
        assert platform.named("clearAudio") == []


async def test_a_policy_can_be_taken_away_when_the_line_is_over(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(Scripted({0: Verdict.SUSPECT}))
        line.speak(speech(SECOND), sample_rate_hz=SECOND)
        await trio.sleep(0.1)
        await platform.say(np.ones(FRAME, np.int16))
        await instant()
        line.end(EndReason.APPLICATION_HUNG_UP)
        line.barge_in(None)
