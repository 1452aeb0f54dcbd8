"""What a program hears: a cursor for each listener, a bound, other rates, the line's end; the caller's digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from support.platform import Platform, instant, open_line
from support.virtual import run_virtually, speech
from talkpath.audio import AudioChunk, Samples
from talkpath.dsp import Resampler
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Digits, LineConfig, Listener
from talkpath.testing import ToneSource, find_tones

MS = 8
"""Samples in a millisecond of the lines here, where no other rate is said."""


async def take(listener: Listener, n: int) -> list[AudioChunk]:
    with trio.fail_after(30):
        return [await anext(listener) for _ in range(n)]


def joined(chunks: list[AudioChunk]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in chunks)])


async def say_at_once(platform: Platform, samples: Samples, track: str = "inbound") -> None:
    """Send audio in one burst of ordinary messages."""
    for i in range(0, len(samples), 160):
        await platform.say(samples[i : i + 160], track)
    await instant()


async def test_each_listener_hears_from_the_moment_of_its_call(autojump_clock: Any) -> None:
    said = speech(60 * MS)
    async with open_line() as (line, platform):
        first = line.listen()
        await say_at_once(platform, said[:320])
        second, third = line.listen(), line.listen()
        await say_at_once(platform, said[320:])
        chunks = await take(first, 3)
        assert np.array_equal(joined(chunks), said)
        assert [chunk.at_sample for chunk in chunks] == [0, 160, 320]
        assert {(chunk.track, chunk.sample_rate_hz) for chunk in chunks} == {("inbound", 8000)}
        for listener in (second, third):
            (chunk,) = await take(listener, 1)
            assert np.array_equal(chunk.samples, said[320:])
            assert chunk.at_sample == 320


async def test_a_chunk_is_there_in_the_instant_its_last_sample_comes(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(platform.say_paced, speech(100 * MS), 20)
        heard_at = []
        listener = line.listen(chunk_ms=40)
        for _ in range(2):
            await anext(listener)
            heard_at.append(trio.current_time() - began)
        assert heard_at == pytest.approx([0.04, 0.08], abs=1e-9)


async def test_a_slow_listener_loses_its_oldest_audio_and_delays_nobody(autojump_clock: Any) -> None:
    said = speech(1300 * MS)
    async with open_line() as (line, platform):
        slow, quick = line.listen(), line.listen()
        heard = []
        for i in range(0, len(said), 160):
            await say_at_once(platform, said[i : i + 160])
            heard += await take(quick, 1)
        assert np.array_equal(joined(heard), said)
        chunks = await take(slow, 50)
        assert np.array_equal(joined(chunks), said[300 * MS :])
        assert chunks[0].at_sample == 300 * MS
        assert (slow.dropped_samples, quick.dropped_samples) == (300 * MS, 0)
        assert line.statistics().listener_dropped_ms == 300


async def test_nothing_is_dropped_at_the_bound_itself(autojump_clock: Any) -> None:
    said = speech(1000 * MS)
    async with open_line() as (line, platform):
        listener = line.listen()
        await say_at_once(platform, said)
        assert np.array_equal(joined(await take(listener, 50)), said)
        assert listener.dropped_samples == 0


async def test_one_message_far_beyond_the_bound(autojump_clock: Any) -> None:
    said = speech(5000 * MS)
    async with open_line(config=LineConfig(listen_bound_ms=200)) as (line, platform):
        listener = line.listen()
        await platform.say(said)
        await instant()
        assert np.array_equal(joined(await take(listener, 10)), said[4800 * MS :])
        assert listener.dropped_samples == 4800 * MS


@pytest.mark.parametrize(("line_rate_hz", "rate_hz"), [(8000, 16000), (8000, 24000), (16000, 8000), (16000, 48000)])
@pytest.mark.parametrize("chunk_ms", [10, 20, 33, 500])
async def test_another_rate_has_exact_lengths_and_one_resamplers_samples(
    line_rate_hz: int, rate_hz: int, chunk_ms: int, autojump_clock: Any
) -> None:
    said = ToneSource(450, line_rate_hz).take(line_rate_hz)
    async with open_line(sample_rate_hz=line_rate_hz) as (line, platform):
        listener = line.listen(sample_rate_hz=rate_hz, chunk_ms=chunk_ms)
        await say_at_once(platform, said)
        n = 1000 // chunk_ms
        chunks = await take(listener, n)
    assert {len(chunk.samples) for chunk in chunks} == {rate_hz * chunk_ms // 1000}
    assert {chunk.sample_rate_hz for chunk in chunks} == {rate_hz}
    assert [chunk.at_sample for chunk in chunks] == [rate_hz * chunk_ms * i // 1000 for i in range(n)]
    heard = joined(chunks)
    whole = Resampler(line_rate_hz, rate_hz).process(said)
    assert np.array_equal(heard, whole[: len(heard)]), "cut into chunks it is the same audio"
    assert [span.hz for span in find_tones(heard, rate_hz, [450, 1050, 2550])] == [450]


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=25), st.integers(10, 120))
def test_whoever_is_cancelled_at_any_moment_loses_nothing(steps: list[tuple[int, bool]], chunk_ms: int) -> None:
    """Readers come, are cancelled before, while and after audio comes, and the next goes on where they were."""
    said = speech(sum(n for n, _ in steps))

    async def main() -> None:
        async with open_line() as (line, platform):
            listener = line.listen(chunk_ms=chunk_ms)
            heard: list[AudioChunk] = []

            async def read(scope: trio.CancelScope) -> None:
                with scope:
                    async for chunk in listener:
                        heard.append(chunk)  # noqa: PERF401 - what came before the cancellation counts

            at = 0
            async with trio.open_nursery() as nursery:
                for n, before in steps:
                    scope = trio.CancelScope()
                    nursery.start_soon(read, scope)
                    await instant()
                    if before:
                        scope.cancel()
                    await platform.say(said[at : at + n])
                    at += n
                    if not before:
                        await trio.lowlevel.checkpoint()
                        scope.cancel()
                    await instant()
                scope = trio.CancelScope()
                nursery.start_soon(read, scope)
                await instant()
                scope.cancel()
            whole = len(said) // (chunk_ms * MS) * chunk_ms * MS
            assert np.array_equal(joined(heard), said[:whole])
            assert listener.dropped_samples == 0

    run_virtually(main, seed=len(steps))


async def test_two_readers_of_one_listener_are_a_mistake(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        listener = line.listen()
        heard: list[AudioChunk] = []

        async def read() -> None:
            heard.append(await anext(listener))

        nursery.start_soon(read)
        await instant()
        with pytest.raises(trio.BusyResourceError):
            await anext(listener)
        await say_at_once(platform, speech(160))
        assert len(heard) == 1, "the one that was there first goes on"
        await say_at_once(platform, speech(160))
        assert await take(listener, 1)


async def test_it_ends_with_the_line_after_what_had_come(autojump_clock: Any) -> None:
    said = speech(60 * MS)
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        late = line.listen()
        heard: list[AudioChunk] = []

        async def read() -> None:
            heard.extend([chunk async for chunk in line.listen()])

        nursery.start_soon(read)
        await instant()
        await say_at_once(platform, said)
        await platform.peer.close(1000)
        await line.wait_ended()
        assert np.array_equal(joined([chunk async for chunk in late]), said)
        with pytest.raises(StopAsyncIteration):
            await anext(late)
        with pytest.raises(CallEnded):
            line.listen()
    assert np.array_equal(joined(heard), said)


async def test_a_listener_that_is_closed_ends(autojump_clock: Any) -> None:
    async with open_line() as (line, _), trio.open_nursery() as nursery:
        listener = line.listen()
        ended = []

        async def read() -> None:
            ended.append([chunk async for chunk in listener])

        nursery.start_soon(read)
        await instant()
        listener.close()
        await instant()
        assert ended == [[]]


async def test_both_tracks_are_heard_apart(autojump_clock: Any) -> None:
    caller, callee = speech(320, seed=1), speech(320, seed=2)
    async with open_line(tracks=("inbound", "outbound")) as (line, platform):
        inbound, outbound = line.listen(), line.listen(track="outbound")
        for i in (0, 160):
            await platform.say(caller[i : i + 160])
            await platform.say(callee[i : i + 160], "outbound")
        await instant()
        assert np.array_equal(joined(await take(inbound, 2)), caller)
        chunks = await take(outbound, 2)
        assert np.array_equal(joined(chunks), callee)
        assert {chunk.track for chunk in chunks} == {"outbound"}


@pytest.mark.parametrize(
    ("tracks", "options", "says"),
    [
        (("inbound",), {"track": "outbound"}, "'outbound' is not streamed"),
        (("outbound",), {}, "'inbound' is not streamed"),
        (("inbound",), {"track": "both"}, "'both' is not streamed"),
        (("inbound",), {"chunk_ms": 9}, "chunk_ms is 9"),
        (("inbound",), {"chunk_ms": 501}, "chunk_ms is 501"),
        (("inbound",), {"sample_rate_hz": 44100}, "sample_rate_hz is 44100"),
    ],
)
async def test_what_cannot_be_heard_says_so(
    tracks: tuple[str, ...], options: dict[str, Any], says: str, autojump_clock: Any
) -> None:
    async with open_line(tracks=tracks) as (line, _):
        with pytest.raises(ConfigError, match=says):
            line.listen(**options)
        assert not line.ended


async def keys(digits: Digits, n: int) -> str:
    with trio.fail_after(30):
        return "".join([await anext(digits) for _ in range(n)])


async def test_digits_are_heard_from_the_beginning_by_everyone(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        early = line.digits()
        for digit in "12#":
            await platform.press(digit)
        assert await keys(early, 3) == "12#"
        assert await keys(line.digits(), 3) == "12#"
        await platform.press("*")
        assert await keys(early, 1) == "*"
        await platform.peer.close(1000)
        await line.wait_ended()
        with pytest.raises(StopAsyncIteration):
            await anext(early)
        assert [digit async for digit in line.digits()] == list("12#*"), "what had come is still there"


async def test_the_last_256_digits_are_kept(autojump_clock: Any) -> None:
    pressed = "".join("0123456789"[i * 7 % 10] for i in range(300))
    async with open_line() as (line, platform):
        lagging = line.digits()
        for digit in pressed:
            await platform.press(digit)
        await instant()
        assert await keys(lagging, 256) == pressed[-256:]
        assert await keys(line.digits(), 256) == pressed[-256:]


async def test_a_cancelled_reader_of_digits_loses_none(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        digits = line.digits()
        for digit in "12345":
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(digits)
            await platform.press(digit)
            with trio.move_on_after(0):
                await anext(digits)
        await instant()
        assert await keys(digits, 5) == "12345"
