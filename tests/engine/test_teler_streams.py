"""The platform's end of Teler's wire in a call: long messages, chunks that are taken back, silence for an answer."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.streams import base64_of, open_stream
from support.virtual import run_virtually, speech
from talkpath.audio import Samples
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.wire.teler import TelerOptions


def audio(samples: Samples, chunk: int | None, *, nested: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"audio_b64": base64_of(samples)}
    if chunk is not None:
        body["chunk_id"] = chunk
    return {"type": "audio", "data": body} if nested else {"type": "audio", **body}


def begin_of(heard: Samples, said: Samples) -> int:
    """The sample at which something that nothing else is like begins."""
    (first,) = (i for i in range(len(heard) - 15) if np.array_equal(heard[i : i + 16], said[:16]))
    return int(first)


@pytest.mark.parametrize("rate_hz", [8000, 16000])
@pytest.mark.parametrize("chunk_ms", [20, 60, 400, 500, 1000, 1980, 2000])
async def test_audio_comes_in_messages_as_long_as_was_asked(autojump_clock: Any, rate_hz: int, chunk_ms: int) -> None:
    said = speech(rate_hz * 7)
    leg = MemoryLeg(sample_rate_hz=rate_hz)
    async with open_stream(leg, wire="teler", codec=f"L16@{rate_hz}h", message_ms=chunk_ms) as streamed:
        began = trio.current_time()
        leg.say(said)
        await trio.sleep(6.5)
    messages = streamed.of("audio")
    payloads = [base64.b64decode(one["data"]["audio_b64"]) for one in messages]
    n_whole = 6500 // chunk_ms
    assert len(payloads) - n_whole in (0, 1)
    assert {len(payload) for payload in payloads} == {chunk_ms * rate_hz // 1000 * 2}
    told = np.frombuffer(b"".join(payloads), "<i2")
    begin = begin_of(told, said)
    assert np.array_equal(told[begin:], said[: len(told) - begin])
    assert [one["message_id"] for one in streamed.texts()] == list(range(1, len(messages) + 2))
    times = streamed.times_of("audio")
    assert times[0] - began == pytest.approx(chunk_ms / 1000, abs=0.021)
    assert np.diff(times) == pytest.approx(chunk_ms / 1000, abs=1e-6)


async def test_the_start_and_the_default(autojump_clock: Any) -> None:
    async with open_stream(wire="teler", account_id="acc_1", options=TelerOptions(voice_app_id="va_1")) as streamed:
        await trio.sleep(1)
    start, *rest = streamed.texts()
    assert start == {
        "type": "start",
        "account_id": "acc_1",
        "call_app_id": "va_1",
        "call_id": streamed.call.call_id,
        "stream_id": streamed.stream.stream_id,
        "message_id": 1,
        "data": {"encoding": "audio/l16", "sample_rate": 8000, "channels": 1},
    }
    assert {len(base64.b64decode(one["data"]["audio_b64"])) for one in rest} == {6400}, "400 ms"
    assert {one["type"] for one in rest} == {"audio"}, "the end is the socket's"
    assert streamed.peer.close_code == 1000


@pytest.mark.parametrize("nested", [False, True])
async def test_flat_and_nested_audio_is_played_gap_free_in_order(autojump_clock: Any, nested: bool) -> None:
    pieces = [speech(4000, seed=n) for n in range(3)]
    async with open_stream(wire="teler") as streamed:
        for n, piece in enumerate(pieces):
            await streamed.peer.text(audio(piece, n, nested=nested))
        await trio.sleep(2)
        heard = streamed.leg.heard()
    whole = np.concatenate(pieces)
    begin = begin_of(heard, whole)
    assert np.array_equal(heard[begin : begin + 12000], whole)
    assert not heard[begin + 12000 :].any()


@dataclass
class Interrupted:
    heard: Samples
    refused: dict[str, int]


async def interrupt(
    after_s: float, chunks: list[int | None], taken_back: list[int], rate_hz: int = 8000
) -> Interrupted:
    """Play chunks of half a second each, take some back."""
    async with open_stream(MemoryLeg(), wire="teler", codec=f"L16@{rate_hz}h") as streamed:
        for position, chunk in enumerate(chunks):
            await streamed.peer.text(audio(speech(4000, seed=100 + position), chunk))
        await trio.sleep(after_s)
        for chunk in taken_back:
            await streamed.peer.text({"type": "interrupt", "chunk_id": chunk})
        await trio.sleep(len(chunks))
        heard = streamed.leg.heard()
    assert streamed.stream.record is not None
    return Interrupted(heard, dict(streamed.stream.record.refused))


def spoken(heard: Samples) -> Samples:
    """What was heard, without the silence around it."""
    at = np.flatnonzero(heard)
    return heard[at[0] : at[-1] + 1] if len(at) else heard[:0]


@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_a_queued_chunk_is_taken_back_and_nothing_else_changes(autojump_clock: Any, rate_hz: int) -> None:
    """Whatever the stream's rate, what is played stays at 8 kHz."""
    result = await interrupt(0.25, [1, 2, 3], [2], rate_hz)
    expected = np.concatenate([speech(4000, seed=100), speech(4000, seed=102)])
    begin = begin_of(result.heard, expected)
    assert np.array_equal(result.heard[begin : begin + 8000], expected)
    assert not result.heard[begin + 8000 :].any()
    assert result.refused == {}


async def test_the_chunk_that_is_being_played_stops_and_the_next_follows_at_once(autojump_clock: Any) -> None:
    result = await interrupt(0.25, [1, 2, 3], [1])
    heard = result.heard
    first, rest = speech(4000, seed=100), np.concatenate([speech(4000, seed=101), speech(4000, seed=102)])
    begin, second = begin_of(heard, first), begin_of(heard, rest)
    cut = second - begin
    assert 1600 <= cut <= 2400
    assert cut % 160 == 0, "what is in the frame that was handed out cannot be taken back"
    assert np.array_equal(heard[begin : begin + cut], first[:cut])
    assert np.array_equal(heard[second : second + 8000], rest)
    assert not heard[second + 8000 :].any()


async def test_chunks_that_are_unknown_or_over_are_counted_and_change_nothing(autojump_clock: Any) -> None:
    result = await interrupt(0.75, [1, 2], [1, 7])
    expected = np.concatenate([speech(4000, seed=100), speech(4000, seed=101)])
    begin = begin_of(result.heard, expected)
    assert np.array_equal(result.heard[begin : begin + 8000], expected)
    assert result.refused == {"unknown_chunk": 2}


@settings(max_examples=20)
@given(
    st.lists(st.none() | st.integers(1, 5), min_size=1, max_size=6),
    st.lists(st.integers(1, 6), max_size=4),
    st.integers(0, 120),
)
def test_what_is_heard_is_what_was_not_taken_back(
    chunks: list[int | None], taken_back: list[int], after_ticks: int
) -> None:
    """Numbers may come twice: all that wait under one are taken back. Or not at all: then nothing takes them back."""
    after_s = after_ticks * 0.02 + 0.003
    result = run_virtually(partial(interrupt, after_s, chunks, taken_back))
    whole = run_virtually(partial(interrupt, after_s, chunks, []))
    played = np.concatenate([speech(4000, seed=100 + position) for position in range(len(chunks))])
    begin = begin_of(whole.heard, played)
    assert np.array_equal(whole.heard[begin : begin + len(played)], played)
    ticks = len(whole.heard) // 160
    best: list[bool] = []
    for tick in range(ticks + 1):
        cut = min(max(tick * 160 - begin, 0), len(played))
        kept = [
            played[position * 4000 : (position + 1) * 4000][max(0, cut - position * 4000) :]
            for position, chunk in enumerate(chunks)
            if chunk not in taken_back
        ]
        expected = np.concatenate([whole.heard[: begin + cut], *kept])
        n = min(len(expected), len(result.heard))
        best.append(np.array_equal(result.heard[:n], expected[:n]) and not result.heard[n:].any())
    assert any(best), "some tick's cut explains all that was heard"


@pytest.mark.parametrize("chunks", [[None, 1, None], [1, None, None], [None, None, 1]])
async def test_audio_without_a_number_stays(autojump_clock: Any, chunks: list[int | None]) -> None:
    result = await interrupt(0.05, chunks, [1])
    whole = np.concatenate([speech(4000, seed=100 + n) for n, chunk in enumerate(chunks) if chunk is None])
    begin = begin_of(result.heard, whole)
    assert np.array_equal(result.heard[begin : begin + 8000], whole)
    assert not result.heard[begin + 8000 :].any()


async def test_a_clear_drops_everything_and_what_comes_later_is_played(autojump_clock: Any) -> None:
    async with open_stream(wire="teler") as streamed:
        for chunk in (1, 2):
            await streamed.peer.text(audio(speech(8000, seed=chunk), chunk))
        await trio.sleep(0.3)
        told = len(streamed.texts())
        await streamed.peer.text({"type": "clear"})
        await streamed.peer.text({"type": "interrupt", "chunk_id": 2})
        await trio.sleep(0.3)
        await streamed.peer.text(audio(speech(1600, seed=3), 3))
        await trio.sleep(1)
        heard = streamed.leg.heard()
        assert {one["type"] for one in streamed.texts()[told:]} <= {"audio"}, "nothing is answered"
    begin, later = begin_of(heard, speech(8000, seed=1)), begin_of(heard, speech(1600, seed=3))
    assert not heard[begin + 2880 : later].any()
    assert np.array_equal(heard[later : later + 1600], speech(1600, seed=3))
    assert streamed.stream.record is not None
    assert streamed.stream.record.clears == 1
    assert streamed.stream.record.refused == {"unknown_chunk": 1}


@pytest.mark.parametrize(("play_at_stream_rate", "rate_hz"), [(False, 8000), (True, 16000)])
async def test_what_a_wide_stream_plays(autojump_clock: Any, play_at_stream_rate: bool, rate_hz: int) -> None:
    options = TelerOptions(play_at_stream_rate=play_at_stream_rate)
    leg = MemoryLeg(sample_rate_hz=16000)
    async with open_stream(leg, wire="teler", codec="L16@16000h", options=options) as streamed:
        await streamed.peer.text(audio(ToneSource(450, sample_rate_hz=rate_hz).take(rate_hz), 1))
        await trio.sleep(2)
        heard = leg.heard()
    (span,) = find_tones(heard, 16000, [225, 450, 900])
    assert span.hz == 450
    assert abs(span.to_sample - span.from_sample - 16000) <= 640


async def test_keys_are_told_where_third_parties_expect_them(autojump_clock: Any) -> None:
    for undocumented in (False, True):
        async with open_stream(wire="teler", options=TelerOptions(undocumented=undocumented)) as streamed:
            await trio.sleep(0.5)
            streamed.leg.press("5")
            await trio.sleep(0.5)
        assert [one["data"] for one in streamed.of("dtmf")] == ([{"digit": "5"}] if undocumented else [])
        assert len(streamed.of("stop")) == undocumented
        numbers = [one["message_id"] for one in streamed.texts()]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_closing_is_the_end(autojump_clock: Any) -> None:
    async with open_stream(wire="teler", ends_call=True) as streamed:
        await streamed.peer.close(1000)
        await streamed.stream.ended.wait()
        assert streamed.stream.end_reason is EndReason.APPLICATION_HUNG_UP
