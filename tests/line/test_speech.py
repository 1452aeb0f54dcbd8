"""What a program says: all of it is heard, once and in order; how far ahead it is sent; what became of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from support.peer import Peer
from support.platform import Platform, instant, open_line, start_message
from support.virtual import speech, virtual_engine
from talkpath.audio import AudioChunk, AudioClip, Samples
from talkpath.dsp import Resampler, mix, resample
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded, ConfigError, FormatError, PlayoutFull
from talkpath.line import Line, LineConfig, ServeConfig, serve_lines, serve_memory_lines
from talkpath.records import EndReason, Outcome, Played, StreamRecord
from talkpath.testing import ToneSource, find_tones
from talkpath.transport.link import open_socket_link

MS = 8
SAY_AHEAD_S = 2.0
"""`LineConfig.send_ahead_ms`, where no other is said."""
MESSAGE_S = 0.2
"""The longest message."""


def whole(resampler: Resampler, clip: Samples) -> Samples:
    """Return all that a resampler makes of a clip, its tail included."""
    delay = resampler.delay_samples
    n_zeros = 4 * delay * resampler.from_hz // resampler.to_hz + 8
    out = resampler.process(np.concatenate([clip, np.zeros(n_zeros, np.int16)]))
    return out[: -(-len(clip) * resampler.to_hz // resampler.from_hz) + delay]


# Speak ---------------------------------------------------------------------------------------------------------------


async def test_what_is_said_is_heard_once_in_order_and_at_once(autojump_clock: Any) -> None:
    pieces = [speech(n, seed=n) for n in (1, 160, 7, 3200, 80)]
    async with open_line() as (line, platform):
        said_at = trio.current_time()
        line.speak(pieces[0], sample_rate_hz=8000)
        line.speak(AudioChunk(pieces[1], 8000))
        line.speak(AudioClip(pieces[2], 8000))
        for piece in pieces[3:]:
            line.speak(piece, sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate(pieces))
        assert platform.soundings[0].begin_s == pytest.approx(said_at, abs=1e-9)
        assert platform.gaps_s() == []


async def test_however_an_array_lies_in_memory_it_is_heard(autojump_clock: Any) -> None:
    said = [speech(160, seed=seed) for seed in range(6)]
    pieces = [
        np.repeat(said[0], 2)[::2],
        np.frombuffer(b"\0" + said[1].tobytes(), np.uint8)[1:].view(np.int16),  # at an odd address, read-only
        said[2].astype(">i2"),
        np.stack([said[3], said[3]], axis=1)[:, 1],
        np.asfortranarray(said[4].reshape(1, -1))[0],
        said[5].view(type("Samples", (np.ndarray,), {})),
    ]
    async with open_line() as (line, platform):
        for piece in pieces:
            line.speak(piece, sample_rate_hz=8000)
            line.speak(np.empty(0, np.int16), sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate(said))


async def test_what_is_said_at_once_stays_behind_what_was_said_before(autojump_clock: Any) -> None:
    """Some pieces are queued as they are said, others by the next step; clears and checkpoints always by that."""
    said = [speech(160, seed=seed) for seed in range(40)]
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        nursery.start_soon(platform.obey)
        marks = []
        for number, piece in enumerate(said):
            # The big-endian ones are not for the short way; a checkpoint makes commands of all until the next step.
            line.speak(piece.astype(">i2") if number % 3 == 1 else piece, sample_rate_hz=8000)
            if number % 5 == 2:
                marks.append(line.checkpoint(f"m{number}"))
            if number % 7 == 6:
                await trio.sleep(0.005)
        outcomes = [(await mark.wait()).outcome for mark in marks]
        assert outcomes == [Outcome.PLAYED] * 8
        assert np.array_equal(platform.heard(), np.concatenate(said))
        nursery.cancel_scope.cancel()


async def test_what_has_not_left_a_resampler_is_not_overtaken(autojump_clock: Any) -> None:
    """One sample of 48 kHz gives the queue nothing yet: it lies in the filter when the next piece could go straight."""
    first, sample, after = speech(160, seed=1), speech(1, seed=2) + np.int16(20000), speech(160, seed=3)
    async with open_line() as (line, platform):
        line.speak(first, sample_rate_hz=8000)
        line.speak(sample, sample_rate_hz=48000)
        line.speak(after, sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate([first, whole(Resampler(48000, 8000), sample), after]))


async def test_what_went_straight_a_moment_ago_is_refused_at_the_end(autojump_clock: Any) -> None:
    async with open_line() as (line, _):
        for _ in range(3):
            line.speak(speech(160), sample_rate_hz=8000)
            line.speak(AudioChunk(speech(160), 8000))
        await line.hang_up()
        for audio, rate_hz in ((speech(160), 8000), (AudioChunk(speech(160), 8000), None)):
            with pytest.raises(CallEnded):
                line.speak(audio, sample_rate_hz=rate_hz)


async def test_a_queue_that_is_full_takes_nothing_of_what_it_refuses(autojump_clock: Any) -> None:
    said, refused, later = speech(16000, seed=1), speech(16000, seed=2), speech(800, seed=3)
    async with open_line(config=LineConfig(queue_s=3)) as (line, platform):
        line.speak(said, sample_rate_hz=8000)
        with pytest.raises(PlayoutFull, match="3 s of audio wait"):
            line.speak(refused, sample_rate_hz=8000)
        with pytest.raises(PlayoutFull):
            line.speak(np.repeat(refused, 2), sample_rate_hz=16000)
        line.speak(later, sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate([said, later]))


async def test_what_too_many_commands_refuse_leaves_nothing_in_a_resampler(autojump_clock: Any) -> None:
    """The bound of commands refuses as the bound of audio does: before anything of the chunk has been taken."""
    said = speech(6, seed=1)
    async with open_line() as (line, platform):
        taken = []
        for seed in range(5000):
            try:
                line.speak(speech(6, seed=seed), sample_rate_hz=16000)
            except PlayoutFull:
                continue
            taken.append(speech(6, seed=seed))
        await instant()
        assert 1000 < len(taken) < 5000
        line.speak(said, sample_rate_hz=16000)
        await line.drain()
        assert np.array_equal(platform.heard(), whole(Resampler(16000, 8000), np.concatenate([*taken, said])))


@pytest.mark.parametrize("rate_hz", [11_025, 22_050, 44_100])
async def test_a_voice_of_another_rate_is_heard_in_pieces_and_whole(autojump_clock: Any, rate_hz: int) -> None:
    said = speech(rate_hz // 2, seed=1)
    async with open_line() as (line, platform):
        for begin in range(0, len(said), 700):
            line.speak(said[begin : begin + 700], sample_rate_hz=rate_hz)
        await line.drain()
        assert np.array_equal(platform.heard(), whole(Resampler(rate_hz, 8000), said))
    async with open_line() as (line, platform):
        await line.play(AudioClip(said, rate_hz))
        n_heard = math.ceil(len(said) * 8000 / rate_hz)
        assert np.array_equal(platform.heard()[:n_heard], resample(said, rate_hz, 8000))


@pytest.mark.parametrize(
    ("audio", "rate_hz", "says"),
    [
        (np.zeros(10, np.int16), None, "sample_rate_hz="),
        (np.zeros(10, np.float32), 8000, "float32"),
        (np.zeros((2, 10), np.int16), 8000, r"2|shape"),
        (np.zeros(10, np.int16), 96000, "96000 Hz"),
        (b"\0\0", 8000, "not bytes"),
    ],
)
async def test_what_cannot_be_said_is_refused(audio: Any, rate_hz: int | None, says: str, autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        with pytest.raises(FormatError, match=says):
            line.speak(audio, sample_rate_hz=rate_hz)
        with pytest.raises(FormatError, match=says):
            await line.play(audio, sample_rate_hz=rate_hz)
        await line.drain()
        assert platform.messages == []


@pytest.mark.parametrize(("rate_hz", "line_rate_hz"), [(16000, 8000), (24000, 8000), (48000, 16000), (8000, 16000)])
async def test_the_end_of_a_clip_at_another_rate_is_heard(rate_hz: int, line_rate_hz: int, autojump_clock: Any) -> None:
    """The last 2 ms still lie in the filter when the clip has been said."""
    clip = speech(rate_hz // 10)
    async with open_line(sample_rate_hz=line_rate_hz) as (line, platform):
        line.speak(clip, sample_rate_hz=rate_hz)
        await trio.sleep(0.15)
        spoken_until = platform.heard_until_s
        assert len(platform.heard()) == line_rate_hz // 10
        await trio.sleep(0.2)
        assert np.array_equal(platform.heard(), whole(Resampler(rate_hz, line_rate_hz), clip))
        tail = platform.soundings[-1]
        assert tail.begin_s - spoken_until == pytest.approx(0.1, abs=0.002), "a while after the queue ran dry"


async def test_a_tail_does_not_wait_for_a_while_where_something_follows(autojump_clock: Any) -> None:
    """Before a checkpoint, before a drain, and before audio of another rate, which must not overtake it."""
    clip, after = speech(1600), speech(320, seed=9)
    expected = whole(Resampler(16000, 8000), clip)
    async with open_line() as (line, platform):
        line.speak(clip, sample_rate_hz=16000)
        outcome = await line.checkpoint("end").wait()
        assert outcome.outcome is Outcome.PLAYED
        assert np.array_equal(platform.heard(), expected)
        line.speak(clip, sample_rate_hz=16000)
        await trio.sleep(0.101)
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate([expected] * 2))
        line.speak(clip, sample_rate_hz=16000)
        line.speak(after, sample_rate_hz=8000)
        await line.play(after, sample_rate_hz=8000)
        assert np.array_equal(platform.heard(), np.concatenate([*[expected] * 3, after, after]))
        line.speak(clip, sample_rate_hz=16000)
        await line.play(after, sample_rate_hz=8000)
        assert np.array_equal(platform.heard()[-len(expected) - 320 :], np.concatenate([expected, after]))


async def test_a_live_echo_at_another_rate_has_no_holes(autojump_clock: Any) -> None:
    said = ToneSource(450).take(16000)
    async with open_line() as (line, platform), trio.open_nursery() as nursery:

        async def echo() -> None:
            async for chunk in line.listen(sample_rate_hz=16000):
                line.speak(chunk)

        nursery.start_soon(echo)
        await instant()
        await platform.say_paced(said)
        await trio.sleep(0.01)
        assert platform.gaps_s() == []
        back = Resampler(16000, 8000).process(Resampler(8000, 16000).process(said))
        assert np.array_equal(platform.heard(), back), "one piece of audio, not a hundred"
        await trio.sleep(0.3)
        assert len(platform.heard()) == len(back) + Resampler(16000, 8000).delay_samples
        assert len(platform.gaps_s()) == 1
        nursery.cancel_scope.cancel()


# Sending ahead -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [20, 100, 2000, 6000])
async def test_no_more_is_sent_ahead_than_allowed_and_no_gap_is_heard(ahead_ms: int, autojump_clock: Any) -> None:
    said = speech(9000 * MS)
    async with open_line(config=LineConfig(send_ahead_ms=ahead_ms)) as (line, platform):
        line.speak(said, sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), said)
        assert platform.gaps_s() == []
        assert ahead_ms / 1000 - MESSAGE_S <= platform.most_ahead_s <= ahead_ms / 1000 + 1e-6


async def test_after_a_clear_it_begins_anew(autojump_clock: Any) -> None:
    async with open_line(config=LineConfig(send_ahead_ms=500)) as (line, platform):
        for seed in range(4):
            line.speak(speech(4000 * MS, seed=seed), sample_rate_hz=8000)
            await trio.sleep(0.333)
            await line.clear()
            await instant()
            assert platform.heard_until_s <= trio.current_time()
        assert platform.most_ahead_s <= 0.5 + 1e-6
        assert len(platform.heard()) == pytest.approx(4 * 0.333 * 8000, abs=8)


async def test_a_platform_that_stops_reading_for_a_while_hears_everything(autojump_clock: Any) -> None:
    """A full link holds audio back; it drops none, and control messages keep their place among it."""
    said, after = speech(40 * 16000, seed=1), speech(16000, seed=2)
    config = LineConfig(send_ahead_ms=60_000)
    async with open_line(sample_rate_hz=16000, config=config, obeys=False) as (line, platform):
        line.speak(said, sample_rate_hz=16000)
        marks = [line.checkpoint(f"{i}") for i in range(20)]
        await line.send_digits("1#")
        line.speak(after, sample_rate_hz=16000)
        await trio.sleep(3)
        assert not line.ended
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.obey)
            await line.drain()
            assert np.array_equal(platform.heard(), np.concatenate([said, after]))
            assert platform.names()[:20] == [mark.name for mark in marks]
            assert {mark.outcome.outcome for mark in marks if mark.outcome} == {Outcome.PLAYED}
            nursery.cancel_scope.cancel()


async def test_a_clear_behind_a_full_link_is_no_overflow(autojump_clock: Any) -> None:
    """However much audio waits for the socket, control messages have room of their own."""
    config = LineConfig(send_ahead_ms=60_000)
    async with open_line(sample_rate_hz=16000, config=config, obeys=False) as (line, platform):
        line.speak(speech(40 * 16000), sample_rate_hz=16000)
        await trio.sleep(1)
        with trio.fail_after(1):
            await line.clear()
        line.speak(speech(1600, seed=8), sample_rate_hz=16000)
        mark = line.checkpoint("after")
        await trio.sleep(1)
        assert line.end_reason is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.obey)
            assert (await mark.wait()).outcome is Outcome.PLAYED
            assert np.array_equal(platform.heard()[-1600:], speech(1600, seed=8))
            nursery.cancel_scope.cancel()


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that holds four seconds of a line's audio."""
    monkeypatch.setattr("talkpath.line.connect.POOL_BYTES", 1 << 16)


async def test_with_the_pool_used_up_what_is_said_waits_and_is_heard(small_pool: None, autojump_clock: Any) -> None:
    said = [speech(5 * 8000, seed=seed) for seed in range(8)]
    async with open_line(config=LineConfig(send_ahead_ms=200)) as (line, platform):
        marks = []
        for piece in said:
            line.speak(piece, sample_rate_hz=8000)
            marks.append(line.checkpoint(f"{len(marks)}"))
        await trio.sleep(1)
        assert 38_500 <= line.statistics().queued_ms <= 39_000
        assert (await marks[0].wait()).outcome is Outcome.PLAYED
        await line.drain()
        assert np.array_equal(platform.heard(), np.concatenate(said))
        assert platform.gaps_s() == []
        assert [mark.outcome.outcome for mark in marks if mark.outcome] == [Outcome.PLAYED] * 8
        assert await line.play(said[0], sample_rate_hz=8000) == Played(40_000, Outcome.PLAYED, True)


@pytest.mark.parametrize("ends", [False, True])
async def test_what_waits_for_the_pool_is_cleared_and_lost_as_the_rest(
    ends: bool, small_pool: None, autojump_clock: Any
) -> None:
    async with open_line(config=LineConfig(send_ahead_ms=200)) as (line, platform):
        for seed in range(8):
            line.speak(speech(5 * 8000, seed=seed), sample_rate_hz=8000)
        mark = line.checkpoint("end")
        await trio.sleep(1)
        if ends:
            line.end(EndReason.STOPPED)
            assert (await mark.wait()).outcome is Outcome.LOST
            return
        await line.clear()
        assert (await mark.wait()).outcome is Outcome.CLEARED
        assert line.statistics().queued_ms == 0
        after = speech(8000, seed=9)
        assert await line.play(after, sample_rate_hz=8000) == Played(8000, Outcome.PLAYED, True)
        assert np.array_equal(platform.heard()[-8000:], after)
        assert len(platform.heard()) == pytest.approx(16_000, abs=8)


async def test_a_platform_that_never_reads_ends_the_line(autojump_clock: Any) -> None:
    async with open_line(sample_rate_hz=16000, config=LineConfig(stall_s=2), obeys=False) as (line, _):
        for _ in range(3):
            line.speak(speech(16000 * 10), sample_rate_hz=16000)
        with trio.fail_after(20):
            assert await line.wait_ended() is EndReason.PEER_STALLED


# Play ----------------------------------------------------------------------------------------------------------------


async def pieces_of(samples: Samples, *, as_chunks: bool, step: int = 700) -> AsyncIterator[Any]:
    for i in range(0, len(samples), step):
        await trio.sleep(0.001)
        piece = samples[i : i + step]
        yield AudioChunk(piece, 8000) if as_chunks else piece


FORMS: dict[str, Callable[[Samples], dict[str, Any]]] = {
    "array": lambda pcm: {"audio": pcm, "sample_rate_hz": 8000},
    "clip": lambda pcm: {"audio": AudioClip(pcm, 8000)},
    "chunk": lambda pcm: {"audio": AudioChunk(pcm, 8000)},
    "iterable of arrays": lambda pcm: {"audio": pieces_of(pcm, as_chunks=False), "sample_rate_hz": 8000},
    "iterable of chunks": lambda pcm: {"audio": pieces_of(pcm, as_chunks=True)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [0, 1, 160, 12345])
async def test_play_returns_when_it_has_been_heard(form: str, n: int, autojump_clock: Any) -> None:
    said = speech(n)
    async with open_line() as (line, platform):
        began = trio.current_time()
        assert await line.play(**FORMS[form](said)) == Played(n, Outcome.PLAYED, True)
        assert np.array_equal(platform.heard(), said)
        assert trio.current_time() - began == pytest.approx(n / 8000, abs=0.0021)


@pytest.mark.parametrize("n", [1, 5, 8, 1601])
@pytest.mark.parametrize(("rate_hz", "line_rate_hz"), [(16000, 8000), (8000, 16000), (24000, 16000)])
async def test_play_at_another_rate_is_as_long_as_its_clip(
    n: int, rate_hz: int, line_rate_hz: int, autojump_clock: Any
) -> None:
    clip = speech(n)
    resampler = Resampler(rate_hz, line_rate_hz)
    n_out = -(-n * line_rate_hz // rate_hz)
    expected = whole(resampler, clip)[resampler.delay_samples :]
    async with open_line(sample_rate_hz=line_rate_hz) as (line, platform):
        for _ in range(2):
            assert await line.play(clip, sample_rate_hz=rate_hz) == Played(n_out, Outcome.PLAYED, True)
        assert np.array_equal(platform.heard(), np.concatenate([expected, expected]))


@pytest.mark.parametrize("gain_db", [-9.5, 6, -math.inf])
async def test_a_play_may_be_louder_or_softer(gain_db: float, autojump_clock: Any) -> None:
    said = speech(12345)
    async with open_line() as (line, platform):
        assert await line.play(said, sample_rate_hz=8000, gain_db=gain_db) == Played(12345, Outcome.PLAYED, True)
        assert np.array_equal(platform.heard(), mix(said, gains=(gain_db,)))
        with pytest.raises(ConfigError, match="gain_db is 99"):
            await line.play(said, sample_rate_hz=8000, gain_db=99)


async def test_a_synthesiser_faster_than_speech_is_held_back(autojump_clock: Any) -> None:
    said = speech(30 * 8000)
    asked_for: list[int] = []
    async with open_line() as (line, platform), trio.open_nursery() as nursery:

        async def synthesise() -> AsyncIterator[Samples]:
            for i in range(0, len(said), 800):
                heard_s = max(0.0, trio.current_time() - platform.soundings[0].begin_s) if platform.soundings else 0.0
                asked_for.append(i)
                assert line.statistics().queued_ms <= 4100
                assert i / 8000 <= heard_s + SAY_AHEAD_S + 4.1
                yield said[i : i + 800]

        async def watch() -> None:
            while True:
                await trio.sleep(0.05)
                assert line.statistics().queued_ms <= 4100

        nursery.start_soon(watch)
        assert await line.play(synthesise(), sample_rate_hz=8000) == Played(len(said), Outcome.PLAYED, True)
        assert np.array_equal(platform.heard(), said)
        assert platform.gaps_s() == []
        nursery.cancel_scope.cancel()


async def test_a_long_clip_is_not_queued_all_at_once(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        nursery.start_soon(partial(line.play, speech(100 * 8000), sample_rate_hz=8000))
        for _ in range(50):
            await trio.sleep(0.33)
            assert 3500 <= line.statistics().queued_ms <= 4500
        assert platform.gaps_s() == []
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("clear_at_s", [0.0, 0.1, 1.234, 2.99, 7.0])
@pytest.mark.parametrize("before_s", [0.0, 0.5])
@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_play_says_how_much_was_heard_before_a_clear(
    clear_at_s: float, before_s: float, rate_hz: int, autojump_clock: Any
) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        if before_s:
            line.speak(speech(round(before_s * 8000)), sample_rate_hz=8000)
        results: list[Played] = []

        async def play() -> None:
            results.append(await line.play(speech(9 * rate_hz), sample_rate_hz=rate_hz))

        nursery.start_soon(play)
        await instant()
        await trio.sleep(clear_at_s)
        cleared_at = trio.current_time()
        await line.clear()
        await trio.sleep(0.1)
        (played,) = results
        assert (played.reason, played.exact) == (Outcome.CLEARED, False)
        heard = max(0, len(platform.heard()) - round(before_s * 8000))
        assert abs(played.samples - heard) <= 20 * MS
        assert platform.heard_until_s <= cleared_at + 1e-6
        assert await line.play(speech(80), sample_rate_hz=8000) == Played(80, Outcome.PLAYED, True)


async def test_play_says_how_much_was_heard_before_the_line_ended(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:

        async def hang_up() -> None:
            await trio.sleep(1.5)
            await platform.peer.close(1000)

        nursery.start_soon(hang_up)
        began = trio.current_time()
        played = await line.play(speech(9 * 8000), sample_rate_hz=8000)
        assert played == Played(12000, Outcome.LOST, False)
        assert trio.current_time() - began == pytest.approx(1.5, abs=1e-6)
        with pytest.raises(CallEnded):
            await line.play(speech(80), sample_rate_hz=8000)
        with pytest.raises(CallEnded):
            line.speak(speech(80), sample_rate_hz=8000)


async def test_a_clear_ends_the_reading_of_what_is_played(autojump_clock: Any) -> None:
    """An iterable that is not read to its end is closed, by whoever stopped reading it."""
    steps: list[str] = []

    async def endless() -> AsyncIterator[Samples]:
        try:
            while True:
                yield speech(800)
                steps.append("piece")
        finally:
            await trio.lowlevel.checkpoint()
            steps.append("closed")

    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        results: list[Played] = []

        async def play() -> None:
            results.append(await line.play(endless(), sample_rate_hz=8000))

        nursery.start_soon(play)
        await trio.sleep(1)
        await line.clear()
        await trio.sleep(0.1)
        assert results == [Played(len(platform.heard()), Outcome.CLEARED, False)]
        assert steps[-1] == "closed"


async def test_what_a_cancelled_play_has_queued_is_still_heard(autojump_clock: Any) -> None:
    said = speech(3 * 8000)
    async with open_line() as (line, platform):
        with trio.move_on_after(0.5) as scope:
            await line.play(said, sample_rate_hz=8000)
        assert scope.cancelled_caught
        await line.drain()
        assert np.array_equal(platform.heard(), said)
        assert await line.play(said, sample_rate_hz=8000) == Played(len(said), Outcome.PLAYED, True)


async def test_an_iterable_that_fails_leaves_the_line_alone(autojump_clock: Any) -> None:
    async def failing() -> AsyncIterator[Samples]:
        yield speech(800)
        raise ZeroDivisionError

    async with open_line() as (line, platform):
        with pytest.raises(ZeroDivisionError):
            await line.play(failing(), sample_rate_hz=8000)
        await line.drain()
        assert np.array_equal(platform.heard(), speech(800))


async def test_on_a_one_way_stream_a_play_is_assumed_in_bounded_time(autojump_clock: Any) -> None:
    """The engine answers no checkpoint where the application may not play; nobody may wait for that for ever."""
    results: list[tuple[Played, float]] = []
    done = trio.Event()

    async def bot(line: Line) -> None:
        began = trio.current_time()
        played = await line.play(speech(8000), sample_rate_hz=8000)
        results.append((played, trio.current_time() - began))
        done.set()
        await line.hang_up()

    async with virtual_engine() as engine, trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with engine.open_call(MemoryLeg()) as call:
            await call.start_stream(StreamSpec(url=url))
            with trio.fail_after(30):
                await done.wait()
        nursery.cancel_scope.cancel()
    ((played, took_s),) = results
    assert played == Played(8000, Outcome.ASSUMED, False)
    assert 11 <= took_s <= 13


# With our own engine -------------------------------------------------------------------------------------------------


async def test_the_caller_hears_it_to_the_sample(autojump_clock: Any) -> None:
    said = speech(8000)

    async def bot(line: Line) -> None:
        assert await line.play(said, sample_rate_hz=8000) == Played(8000, Outcome.PLAYED, True)

    leg = MemoryLeg()
    async with virtual_engine() as engine, trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with engine.open_call(leg) as call:
            stream = await call.start_stream(StreamSpec(url=url, bidirectional=True, codec="L16"))
            await stream.ended.wait()
        nursery.cancel_scope.cancel()
    heard = leg.heard()
    (first,) = np.flatnonzero(heard == said[0])[:1]
    assert np.array_equal(heard[first : first + 8000], said)
    assert stream.record is not None
    assert stream.record.application_ms == 1000
    assert stream.record.reason is EndReason.APPLICATION_HUNG_UP


CLIP_S = 6.5


@pytest.mark.smoke
@pytest.mark.slow
async def test_over_real_sockets_nothing_said_is_dropped() -> None:
    """Two calls that send a little and far ahead, and a peer that reads slower than a burst; all at once."""
    clip = ToneSource(450, 16000).take(round(CLIP_S * 16000))
    records: dict[int, StreamRecord] = {}
    heard: dict[int, Samples] = {}
    slowly: list[Samples] = []

    async def bot(line: Line) -> None:
        await line.play(clip, sample_rate_hz=16000)

    async def call_it(ahead_ms: int) -> None:
        async with trio.open_nursery() as nursery:
            config = ServeConfig(line=LineConfig(send_ahead_ms=ahead_ms))
            ((host, port),) = await nursery.start(partial(serve_lines, bot, "127.0.0.1", 0, config=config))
            leg = MemoryLeg(sample_rate_hz=16000)
            async with open_engine(EngineConfig(pool_bytes=1 << 22)) as engine, engine.open_call(leg) as call:
                spec = StreamSpec(url=f"ws://{host}:{port}", bidirectional=True, codec="L16@16000h")
                stream = await call.start_stream(spec)
                await stream.ended.wait()
                assert stream.record is not None
                records[ahead_ms] = stream.record
                heard[ahead_ms] = leg.heard()
            nursery.cancel_scope.cancel()

    async def read_slowly() -> None:
        """As fast as it is spoken, in small sips, after a pause."""

        async def say(line: Line) -> None:
            line.speak(clip[: 3 * 16000], sample_rate_hz=16000)
            await line.wait_ended()

        async with trio.open_nursery() as nursery:
            config = ServeConfig(line=LineConfig(send_ahead_ms=6000))
            ((host, port),) = await nursery.start(partial(serve_lines, say, "127.0.0.1", 0, config=config))
            link = await open_socket_link(host, port)
            peer = Peer(Sipping(link), client=True)  # type: ignore[arg-type]
            await peer.upgrade_as_client()
            await peer.text(start_message(16000))
            await trio.sleep(1)
            platform = Platform(peer, 16000)
            nursery.start_soon(platform.obey)
            while len(platform.heard()) < 3 * 16000:  # noqa: ASYNC110 - the platform tells nobody
                await trio.sleep(0.05)
            slowly.append(platform.heard())
            nursery.cancel_scope.cancel()
            link.close()

    with trio.fail_after(CLIP_S + 10):
        async with trio.open_nursery() as nursery:
            for ahead_ms in (2000, 6000):
                nursery.start_soon(call_it, ahead_ms)
            nursery.start_soon(read_slowly)
    for ahead_ms, record in records.items():
        assert (record.application_ms, record.media_dropped, record.dropped_ms) == (CLIP_S * 1000, 0, 0)
        assert record.refused == {}
        (span,) = find_tones(heard[ahead_ms], 16000, [450])
        assert span.to_sample - span.from_sample == pytest.approx(len(clip), abs=640), "in one piece"
    assert np.array_equal(slowly[0], clip[: 3 * 16000])


class Sipping:
    """A socket of which a kilobyte is read at a time, with pauses."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.send = link.send
        self.wait_writable = link.wait_writable
        self.close = link.close

    def recv_into(self, buffer: memoryview) -> int:
        return int(self._link.recv_into(buffer[:1024]))

    async def wait_readable(self) -> None:
        await trio.sleep(0.005)
        await self._link.wait_readable()
