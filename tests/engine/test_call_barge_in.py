"""Barge-in on what the call itself plays: exact to the sample, within one tick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time
from support.errors import Errors
from talkpath.audio import AudioChunk, Samples
from talkpath.engine import Call, MemoryLeg
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import SourceCleared
from talkpath.path.barge_in import Verdict, VoiceGate
from talkpath.records import EndReason, Outcome, Played
from talkpath.testing import ToneSource

FRAME = 160
LOUD = np.full(FRAME, 1000, np.int16)


def speech(n_samples: int, seed: int = 3) -> Samples:
    return np.random.default_rng(seed).integers(1, 9000, n_samples).astype(np.int16)


def by_level(chunk: AudioChunk) -> Verdict | None:
    """SUSPECT at 1000, CONFIRM at 2000, REJECT at 3000."""
    peak = int(np.max(chunk.samples))
    return {1000: Verdict.SUSPECT, 2000: Verdict.CONFIRM, 3000: Verdict.REJECT}.get(peak)


def run(during: Callable[[Call, MemoryLeg], Awaitable[None]], rate: int = 8000) -> Any:
    async def main() -> Any:
        leg = MemoryLeg(sample_rate_hz=rate)
        async with engine() as which, which.open_call(leg) as call:
            await during(call, leg)
            heard = leg.heard().copy()
        return heard, call.record

    return in_virtual_time(main)


def loud_parts(heard: Samples) -> list[tuple[int, Samples]]:
    frames = heard[: len(heard) // FRAME * FRAME].reshape(-1, FRAME)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.any(frames, axis=1), [False]]).astype(int)))
    return [(int(a) * FRAME, frames[a:b].reshape(-1)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("last", [0, 77])
def test_it_rests_in_the_next_tick_and_goes_on_with_the_next_sample(last: int) -> None:
    said = speech(8000 + last)
    played: list[Played] = []
    suspected_at: list[int] = []

    def policy(chunk: AudioChunk) -> Verdict | None:
        verdict = by_level(chunk)
        if verdict is Verdict.SUSPECT:
            suspected_at.append(chunk.at_sample)
        return verdict

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(policy)
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                played.append(await call.play(said, sample_rate_hz=8000))

            nursery.start_soon(play)
            await trio.sleep(0.3)
            leg.say(LOUD)
            await trio.sleep(0.5)
            leg.say(3 * LOUD)

    heard, _ = run(during)
    (first, before), (second, after) = loud_parts(heard)
    assert np.array_equal(np.concatenate((before, after))[: len(said)], said)
    assert first + len(before) == suspected_at[0] + FRAME, "the tick that brings it is the last that plays"
    assert 3800 < second - first - len(before) < 4400
    assert played == [Played(len(said), Outcome.PLAYED, True)]


def test_a_confirmation_clears_and_tells_how_much_was_heard() -> None:
    said = speech(16000)
    results: list[Any] = []

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(by_level)
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                results.append(await call.play(said, sample_rate_hz=8000))

            nursery.start_soon(play)
            await trio.sleep(0.3)
            leg.say(LOUD)
            await trio.sleep(0.2)
            leg.say(2 * LOUD)
        await call.play(speech(800, seed=8), sample_rate_hz=8000)
        events = call.events()
        with trio.move_on_after(0.01):
            results.append(await anext(events))

    heard, _ = run(during)
    (_, before), (_, after) = loud_parts(heard)
    assert results[0] == Played(len(before), Outcome.CLEARED, True)
    assert np.array_equal(before, said[: len(before)])
    assert np.array_equal(after, speech(800, seed=8))
    assert results[1:] == [SourceCleared("", 16000 - len(before))]


def test_an_undecided_suspicion_ends_and_the_program_may_clear_meanwhile() -> None:
    said = speech(8000)

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(lambda chunk: Verdict.SUSPECT if chunk.at_sample >= 1600 else None, suspicion_ms=200)
        assert (await call.play(said, sample_rate_hz=8000)).reason is Outcome.PLAYED
        call.barge_in(by_level, suspicion_ms=10_000)
        await trio.sleep(0.1)
        leg.say(LOUD)
        with trio.move_on_after(0.5):
            await call.play(said, sample_rate_hz=8000)
        await call.clear()
        assert await call.play(speech(800, seed=8), sample_rate_hz=8000) == Played(800, Outcome.PLAYED, True)

    heard, _ = run(during)
    parts = loud_parts(heard)
    assert np.array_equal(np.concatenate((parts[0][1], parts[1][1])), said)
    assert 1600 <= parts[1][0] - parts[0][0] - len(parts[0][1]) <= 1600 + 2 * FRAME
    assert np.array_equal(parts[-1][1], speech(800, seed=8))


def test_digits_do_not_end_a_suspicion() -> None:
    said = speech(8000)

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(by_level, suspicion_ms=2000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call.play(said, sample_rate_hz=8000))
            await trio.sleep(0.3)
            leg.say(LOUD)
            await trio.sleep(0.1)
            await call.send_digits("12")
            await trio.sleep(0.5)
            leg.say(3 * LOUD)

    heard, _ = run(during)
    (first, before), (second, after) = loud_parts(heard)
    assert np.array_equal(np.concatenate((before, after)), said)
    assert second - first - len(before) > 7000


def test_a_policy_taken_away_lets_go_and_leaves_no_tap() -> None:
    said = speech(8000)
    asked: list[int] = []

    def policy(chunk: AudioChunk) -> Verdict | None:
        asked.append(chunk.at_sample)
        return by_level(chunk)

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(None)
        call.barge_in(policy, suspicion_ms=5000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: call.play(said, sample_rate_hz=8000))
            await trio.sleep(0.3)
            leg.say(LOUD)
            await trio.sleep(0.3)
            call.barge_in(None)
            n = len(asked)
        assert len(asked) == n
        with pytest.raises(ConfigError, match="suspicion_ms"):
            call.barge_in(policy, suspicion_ms=1)

    heard, _ = run(during)
    parts = loud_parts(heard)
    assert np.array_equal(np.concatenate([part for _, part in parts]), said)
    assert asked == list(range(asked[0], asked[-1] + 1, FRAME))


def test_a_policy_may_take_itself_away_or_hang_up() -> None:
    said = speech(1600)

    async def during(call: Call, leg: MemoryLeg) -> None:
        def once(chunk: AudioChunk) -> bool:
            call.barge_in(None)
            return True

        call.barge_in(once)
        assert await call.play(said, sample_rate_hz=8000) == Played(1600, Outcome.PLAYED, True)

        def last(chunk: AudioChunk) -> Verdict:
            call.hang_up()
            return Verdict.CONFIRM

        call.barge_in(last)
        assert (await call.play(said, sample_rate_hz=8000)).reason is Outcome.LOST

    heard, record = run(during)
    assert np.array_equal(loud_parts(heard)[0][1][:1600], said)
    assert record.reason is EndReason.PLATFORM_HUNG_UP


def test_a_policy_that_raises_ends_the_call(errors: Errors) -> None:
    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(lambda chunk: bool(1 // 0))
        await call.wait_ended()
        with pytest.raises(CallEnded):
            call.barge_in(by_level)

    _, record = run(during)
    assert (record.reason, [type(error) for error in errors.raised]) == (EndReason.POLICY_FAILED, [ZeroDivisionError])


def test_a_hang_up_while_suspected_loses_what_waits() -> None:
    results: list[Played] = []

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(by_level, suspicion_ms=5000)
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                results.append(await call.play(speech(16000), sample_rate_hz=8000))

            nursery.start_soon(play)
            await trio.sleep(0.3)
            leg.say(LOUD)
            await trio.sleep(0.2)
            call.hang_up()

    heard, _ = run(during)
    ((_, before),) = loud_parts(heard)
    assert results == [Played(len(before), Outcome.LOST, True)]


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_voice_gate_hears_a_voice_and_lets_a_click_pass(rate: int) -> None:
    """A buzz of 150 Hz and its harmonics is as periodic as a voice."""
    n = rate // 2
    at = np.arange(n) / rate
    buzz = np.sum([2500 / k * np.sin(2 * np.pi * 150 * k * at) for k in range(1, 20)], axis=0)
    click = np.zeros(rate // 50, np.int16)
    click[10:40] = 12000
    results: list[Any] = []

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(VoiceGate())
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                results.append(
                    await call.play(ToneSource(700, sample_rate_hz=rate).take(4 * rate), sample_rate_hz=rate)
                )

            nursery.start_soon(play)
            await trio.sleep(1)
            leg.say(click)
            await trio.sleep(1)
            assert results == [], "it plays on"
            leg.say(buzz.astype(np.int16))

    run(during, rate)
    assert results[0].reason is Outcome.CLEARED
    assert 1.9 * rate < results[0].samples < 2.6 * rate


def test_a_policy_may_answer_what_numpy_compares_and_no_nonsense(errors: Errors) -> None:
    async def during(call: Call, leg: MemoryLeg) -> None:
        with pytest.raises(ConfigError, match="the class VoiceGate"):
            call.barge_in(VoiceGate)  # type: ignore[arg-type]
        call.barge_in(lambda chunk: np.max(chunk.samples) > 900)
        leg.say(LOUD)
        assert (await call.play(speech(8000), sample_rate_hz=8000)).reason is Outcome.CLEARED
        call.barge_in(lambda chunk: 0.7)  # type: ignore[arg-type, return-value]
        await call.wait_ended()

    _, record = run(during)
    assert (record.reason, [type(error) for error in errors.raised]) == (EndReason.POLICY_FAILED, [ConfigError])


def test_a_synthesiser_between_two_pieces_is_interrupted_too() -> None:
    async def synthesise() -> AsyncIterator[Samples]:
        yield speech(800)
        await trio.sleep(1)
        yield speech(800, seed=4)

    played: list[Played] = []

    async def during(call: Call, leg: MemoryLeg) -> None:
        call.barge_in(by_level)

        async def play() -> None:
            played.append(await call.play(synthesise(), sample_rate_hz=8000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            await trio.sleep(0.6)
            leg.say(2 * LOUD)

    run(during)
    assert played == [Played(800, Outcome.CLEARED, True)]
