"""Barge-in: the caller's speech clears what is queued, at the right chunk, once, and only when there is something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio

from support.errors import Errors
from support.platform import Platform, instant, open_line
from support.virtual import speech, virtual_engine
from talkpath.audio import AudioChunk, Samples
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, LineConfig, LineRecord, ServeConfig, serve_memory_lines
from talkpath.path.barge_in import EnergyGate
from talkpath.records import EndReason, Outcome
from talkpath.testing import ToneSource

FRAME = 160
SILENCE = np.zeros(FRAME, np.int16)


def loud(n_frames: int = 1) -> Samples:
    return ToneSource(450).take(n_frames * FRAME)


def always(chunk: AudioChunk) -> bool:
    return True


def when_loud(chunk: AudioChunk) -> bool:
    return bool(np.any(chunk.samples))


async def say_frames(platform: Platform, samples: Samples) -> None:
    """Send each 20 ms when it has been spoken."""
    for i in range(0, len(samples), FRAME):
        await trio.sleep(0.02)
        await platform.say(samples[i : i + FRAME])
    await instant()


async def test_an_energy_gate_clears_at_the_chunk_that_completes_its_evidence(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(EnergyGate(speech_ms=100))
        line.speak(speech(80_000), sample_rate_hz=8000)
        mark = line.checkpoint("end")
        began = trio.current_time()
        await say_frames(platform, np.concatenate([np.zeros(5 * FRAME, np.int16), loud(4)]))
        assert platform.named("clearAudio") == []
        await say_frames(platform, loud(1))
        assert len(platform.named("clearAudio")) == 1
        cleared_at = platform.arrived[-1]
        assert cleared_at - began == pytest.approx(0.2, abs=1e-4), "ten chunks of 20 ms"
        assert (await mark.wait()).outcome is Outcome.CLEARED
        assert len(platform.heard()) == pytest.approx(1600, abs=8)
        await say_frames(platform, loud(50))
        assert len(platform.named("clearAudio")) == 1
        statistics = line.statistics()
        assert (statistics.barge_ins, statistics.clears, statistics.queued_ms) == (1, 1, 0)


async def test_a_policy_is_asked_about_each_20_ms_in_order(autojump_clock: Any) -> None:
    asked: list[AudioChunk] = []

    def policy(chunk: AudioChunk) -> bool:
        asked.append(chunk)
        return False

    said = speech(10 * FRAME + 50)
    async with open_line() as (line, platform):
        await say_frames(platform, loud(3))
        line.barge_in(policy)
        for begin, end in ((0, 30), (30, 500), (500, 1650)):
            await platform.say(said[begin:end])
        await instant()
        assert np.array_equal(np.concatenate([chunk.samples for chunk in asked]), said[: 10 * FRAME])
        assert [chunk.at_sample for chunk in asked] == [(3 + i) * FRAME for i in range(10)]
        assert {(chunk.track, chunk.sample_rate_hz) for chunk in asked} == {("inbound", 8000)}


async def test_nothing_to_clear_is_no_clear(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(always)
        await say_frames(platform, loud(5))
        assert platform.messages == []
        line.speak(speech(800), sample_rate_hz=8000)
        await line.drain()
        n_messages = len(platform.messages)
        await say_frames(platform, loud(5))
        assert len(platform.messages) == n_messages, "it has all been heard"
        assert line.statistics().barge_ins == 0


@pytest.mark.parametrize("confirms_after_s", [0.0, 0.5])
async def test_one_utterance_of_ours_is_cleared_once(confirms_after_s: float, autojump_clock: Any) -> None:
    """A policy that goes on saying yes does not clear again while the confirmation is on its way, or later."""
    async with open_line() as (line, platform):
        platform.hold_answers_s = confirms_after_s
        line.barge_in(when_loud)
        for _ in range(3):
            line.speak(speech(16_000), sample_rate_hz=8000)
            mark = line.checkpoint("end")
            await trio.sleep(0.5)
            await say_frames(platform, loud(20))
            assert (await mark.wait()).outcome is Outcome.CLEARED
        assert len(platform.named("clearAudio")) == 3
        assert line.statistics().barge_ins == 3


async def test_what_the_program_says_into_the_callers_speech_is_cleared_again(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(when_loud)
        line.speak(speech(16_000), sample_rate_hz=8000)
        await say_frames(platform, loud(1))
        line.speak(speech(16_000), sample_rate_hz=8000)
        await say_frames(platform, loud(1))
        assert len(platform.named("clearAudio")) == 2
        assert platform.heard_until_s <= trio.current_time()


async def test_what_was_said_at_the_same_instant_is_cleared_too(autojump_clock: Any) -> None:
    """Audio waits for the clock's step as a command. What the caller interrupts includes it: he would hear it else."""
    async with open_line() as (line, platform):
        line.barge_in(when_loud)
        line.speak(speech(800), sample_rate_hz=8000)
        await trio.sleep(0.05)
        await platform.say(loud())
        line.speak(speech(40_000), sample_rate_hz=8000)
        mark = line.checkpoint("end")
        await instant()
        assert outcome_of(mark) is Outcome.CLEARED
        assert line.statistics().queued_ms == 0
        assert platform.heard_until_s <= trio.current_time()


def outcome_of(mark: Any) -> Outcome | None:
    return mark.outcome.outcome if mark.outcome is not None else None


async def test_a_play_under_way_is_cleared(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        line.barge_in(when_loud)
        played = []

        async def play() -> None:
            played.append(await line.play(speech(40_000), sample_rate_hz=8000))

        nursery.start_soon(play)
        await trio.sleep(0.98)
        await say_frames(platform, loud(1))
        await trio.sleep(0.01)
        assert [one.reason for one in played] == [Outcome.CLEARED]
        assert played[0].samples == pytest.approx(8000, abs=160)


async def test_it_can_be_exchanged_and_taken_away(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.speak(speech(80_000), sample_rate_hz=8000)
        line.barge_in(when_loud)
        line.barge_in(lambda chunk: False)
        await say_frames(platform, loud(2))
        line.barge_in(when_loud)
        line.barge_in(None)
        line.barge_in(None)
        await say_frames(platform, loud(2))
        assert platform.named("clearAudio") == []
        line.barge_in(when_loud)
        await say_frames(platform, SILENCE)
        assert platform.named("clearAudio") == [], "what was said while there was no policy is not asked about"
        await say_frames(platform, loud(1))
        assert len(platform.named("clearAudio")) == 1


async def test_a_policy_may_take_itself_away_or_hang_up(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):

        def once(chunk: AudioChunk) -> bool:
            line.barge_in(None)
            return True

        line.barge_in(once)
        line.speak(speech(80_000), sample_rate_hz=8000)
        await say_frames(platform, loud(5))
        assert line.statistics().barge_ins == 1
        assert not line.ended

        def end(chunk: AudioChunk) -> bool:
            line.end(EndReason.APPLICATION_HUNG_UP)
            return True

        line.barge_in(end)
        await say_frames(platform, loud(1))
        assert line.end_reason is EndReason.APPLICATION_HUNG_UP
        with pytest.raises(CallEnded):
            line.barge_in(EnergyGate())


async def test_a_line_without_the_callers_audio_has_no_barge_in(autojump_clock: Any) -> None:
    async with open_line(tracks=("outbound",)) as (line, platform):
        with pytest.raises(ConfigError, match="'inbound' is not streamed"):
            line.barge_in(always)
        await platform.say(loud(), "outbound")
        await instant()
        assert not line.ended


async def test_a_policy_that_raises_ends_its_line_and_the_server_goes_on(autojump_clock: Any, errors: Errors) -> None:
    records: list[LineRecord] = []
    policies: list[Callable[[AudioChunk], bool]] = [lambda chunk: bool(1 // 0), lambda chunk: False]

    async def bot(line: Line) -> None:
        line.barge_in(policies.pop(0))
        line.speak(speech(8000), sample_rate_hz=8000)
        await line.wait_ended()

    config = ServeConfig(on_ended=records.append, line=LineConfig(linger_s=1))
    async with virtual_engine() as engine, trio.open_nursery() as nursery:
        url = await nursery.start(
            lambda task_status: serve_memory_lines(bot, "bot", config=config, task_status=task_status)
        )
        for _ in range(2):
            async with engine.open_call(MemoryLeg()) as call:
                await call.start_stream(StreamSpec(url=url, bidirectional=True))
                await trio.sleep(0.5)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert [(record.reason, record.cause) for record in records] == [
        (EndReason.POLICY_FAILED, "ZeroDivisionError"),
        (EndReason.PLATFORM_HUNG_UP, ""),
    ]
    assert [type(error) for error in errors.raised] == [ZeroDivisionError]


async def test_a_policy_may_answer_what_numpy_compares(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.barge_in(lambda chunk: np.max(np.abs(chunk.samples)) > 1000)
        line.speak(speech(16_000), sample_rate_hz=8000)
        await say_frames(platform, SILENCE)
        assert line.statistics().barge_ins == 0
        await say_frames(platform, loud(1))
        assert line.statistics().barge_ins == 1


async def test_a_policy_that_answers_nonsense_ends_its_line_and_says_so(autojump_clock: Any, errors: Errors) -> None:
    async with open_line() as (line, platform):
        with pytest.raises(ConfigError, match="the class EnergyGate"):
            line.barge_in(EnergyGate)  # type: ignore[arg-type]
        line.barge_in(lambda chunk: "clear")  # type: ignore[arg-type, return-value]
        await say_frames(platform, SILENCE)
        assert line.end_reason is EndReason.POLICY_FAILED
        assert "a Verdict or None, not str" in str(line.cause)
    assert [type(error) for error in errors.raised] == [ConfigError]
