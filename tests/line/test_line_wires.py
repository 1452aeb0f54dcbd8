"""A bot's view of wires other than Plivo's, both ends ours: what each can say, and what a line must assume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.virtual import assert_pool_is_whole, run_virtually, speech, virtual_engine
from talkpath.audio import Samples
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import NotOnThisWire
from talkpath.line import Line, LineInfo, LineRecord, ServeConfig, serve_memory_lines
from talkpath.line.checkpoint import Checkpoint
from talkpath.records import EndReason, MarkOutcome, Outcome, Played, StreamRecord

PLAYED, CLEARED, LOST, ASSUMED = Outcome.PLAYED, Outcome.CLEARED, Outcome.LOST, Outcome.ASSUMED
WIRES = ["twilio", "signalwire", "teler"]
HEARD = {"twilio": PLAYED, "signalwire": PLAYED, "teler": ASSUMED}
"""How a checkpoint comes out whose audio was heard."""
each_wire = pytest.mark.parametrize("wire", WIRES)


@dataclass
class Conversation:
    """What both ends say of it afterwards."""

    heard: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    digits: list[str] = field(default_factory=list)
    stream: StreamRecord | None = None
    lines: list[LineRecord] = field(default_factory=list)
    end_reason: EndReason | None = None


async def converse(
    bot: Callable[[Line], Awaitable[None]],
    *,
    seconds: float = 6,
    says: Samples | None = None,
    presses: str = "",
    **options: Any,
) -> Conversation:
    """Place a call to the bot; what it raises is raised."""
    result = Conversation()
    failures: list[Exception] = []

    async def watched(line: Line) -> None:
        try:
            await bot(line)
        except Exception as exc:
            failures.append(exc)
            raise

    leg = MemoryLeg()
    async with trio.open_nursery() as nursery, virtual_engine(EngineConfig(pool_bytes=4 << 20)) as engine:
        config = ServeConfig(on_ended=result.lines.append)
        url = await nursery.start(partial(serve_memory_lines, watched, "bot", config=config))
        async with engine.open_call(leg) as call:
            stream = await call.start_stream(StreamSpec(**{"url": url, "bidirectional": True, **options}))
            if says is not None:
                leg.say(says)
            for digit in presses:
                leg.press(digit)
                await trio.sleep(0.3)
            await trio.sleep(seconds)
            result.heard, result.digits, result.end_reason = leg.heard(), leg.digits(), stream.end_reason
        result.stream = stream.record
        assert_pool_is_whole(engine)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return result


def spoken(heard: Samples) -> Samples:
    at = np.flatnonzero(heard)
    return heard[at[0] : at[-1] + 1] if len(at) else heard[:0]


@each_wire
async def test_a_checkpoint_says_as_much_as_the_wire_does(autojump_clock: Any, wire: str) -> None:
    seen: dict[str, MarkOutcome] = {}
    times: list[float] = []

    async def bot(line: Line) -> None:
        began = trio.current_time()
        seen["at once"] = await line.checkpoint("at once").wait()
        times.append(trio.current_time() - began)
        line.speak(speech(8000), sample_rate_hz=8000)
        seen["heard"] = await line.checkpoint("heard").wait()
        times.append(trio.current_time() - began)
        line.speak(speech(16000), sample_rate_hz=8000)
        cleared = line.checkpoint("cleared")
        await trio.sleep(0.5)
        await line.clear()
        seen["cleared"] = await cleared.wait()
        line.speak(speech(4000), sample_rate_hz=8000)
        seen["again"] = await line.checkpoint("again").wait()
        line.speak(speech(16000), sample_rate_hz=8000)
        lost = line.checkpoint("lost")
        await trio.sleep(0.1)
        await line.hang_up()
        seen["lost"] = await lost.wait()

    result = await converse(bot, wire=wire)
    heard = HEARD[wire]
    assert {name: mark.outcome for name, mark in seen.items()} == {
        "at once": heard,
        "heard": heard,
        "cleared": CLEARED,
        "again": heard,
        "lost": LOST,
    }
    assert not any(mark.exact for mark in seen.values())
    assert times == pytest.approx([0.02, 1.03], abs=0.045)
    assert result.end_reason is EndReason.APPLICATION_HUNG_UP
    assert result.stream is not None
    assert result.stream.refused == {}
    if wire == "teler":
        assert result.stream.marks == (), "the platform has never heard of a checkpoint"
    else:
        assert [mark.outcome for mark in result.stream.marks] == [PLAYED, PLAYED, CLEARED, PLAYED, LOST]
    (line,) = result.lines
    assert line.statistics.refused == {}
    assert line.statistics.clears == 1


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 3, 20, 100, 700]),
        st.sampled_from(["speak", "speak", "mark", "mark", "clear"]),
        st.sampled_from([20, 160, 1000, 4000, 12000]),
    ),
    max_size=20,
)
HONEST = {PLAYED: {PLAYED, ASSUMED}, CLEARED: {CLEARED, ASSUMED}, LOST: {LOST}}
"""What a line may say of a checkpoint, by what the platform knows became of it."""


@pytest.mark.parametrize("wire", ["plivo", "twilio", "signalwire"])
@settings(max_examples=20)
@given(script=steps)
def test_a_line_never_says_of_a_checkpoint_what_the_platform_knows_to_be_false(
    wire: str, script: list[tuple[int, str, int]]
) -> None:
    marks: dict[str, Checkpoint] = {}

    async def bot(line: Line) -> None:
        for n, (after_ms, what, n_samples) in enumerate(script):
            await trio.sleep(after_ms / 1000 + 0.0007)
            if what == "speak":
                line.speak(speech(n_samples, seed=n), sample_rate_hz=8000)
            elif what == "mark":
                marks[f"m{n}"] = line.checkpoint(f"m{n}")
            else:
                await line.clear()
        await trio.sleep(0.5)
        await line.hang_up()

    seconds = 1 + sum(after_ms + 1 for after_ms, _, _ in script) / 1000
    result = run_virtually(partial(converse, bot, wire=wire, seconds=seconds), seed=len(script))
    assert result.stream is not None
    known = {mark.name: mark.outcome for mark in result.stream.marks}
    for name, mark in marks.items():
        assert mark.outcome is not None
        if name in known:
            assert mark.outcome.outcome in HONEST[known[name]], name
        else:
            assert mark.outcome.outcome in (CLEARED, LOST), "the platform has never heard of it"
    assert set(known) <= set(marks)


@each_wire
async def test_what_became_of_a_play(autojump_clock: Any, wire: str) -> None:
    results: list[Played] = []

    async def bot(line: Line) -> None:
        results.append(await line.play(speech(8000), sample_rate_hz=8000))

        async def clear_soon() -> None:
            await trio.sleep(1)
            await line.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(clear_soon)
            results.append(await line.play(speech(24000, seed=9), sample_rate_hz=8000))
        await line.wait_ended()

    result = await converse(bot, wire=wire)
    whole, cut = results
    assert whole == Played(8000, HEARD[wire], HEARD[wire] is PLAYED)
    assert cut.reason is CLEARED
    assert not cut.exact
    said = spoken(result.heard)
    truth = len(said) - 8000
    if wire != "teler":
        truth = len(spoken(said[8000:]))
    assert abs(cut.samples - truth) <= 800
    assert np.corrcoef(said[:8000], speech(8000))[0, 1] > 0.99


@each_wire
async def test_the_caller_is_heard_and_the_bot_knows_who_calls(autojump_clock: Any, wire: str) -> None:
    infos: list[LineInfo] = []
    heard: list[Samples] = []
    said = speech(8000, peak=2000)

    async def bot(line: Line) -> None:
        infos.append(line.info)
        heard.extend([chunk.samples.copy() async for chunk in line.listen()])

    parameters = {} if wire == "teler" else {"tier": "gold", "who": "Zoë"}
    result = await converse(bot, wire=wire, says=said, seconds=3, custom_parameters=parameters)
    (info,) = infos
    assert (info.wire, info.tracks, dict(info.custom_parameters)) == (wire, ("inbound",), parameters)
    assert (info.codec, info.sample_rate_hz) == (("L16", 8000) if wire == "teler" else ("PCMU", 8000))
    whole = np.concatenate(heard)
    begin = int(np.argmax(np.correlate(whole.astype(float), said[:400].astype(float))))
    assert np.corrcoef(whole[begin : begin + 8000], said)[0, 1] > 0.99
    assert result.stream is not None
    assert info.stream_id == result.stream.stream_id


@pytest.mark.parametrize(
    ("wire", "codec", "rate_hz"),
    [
        ("signalwire", "L16@24000h@20i", 24000),
        ("signalwire", "L16@16000h", 16000),
        ("signalwire", "PCMA@40i", 8000),
        ("signalwire", "PCMU@100i", 8000),
        ("teler", "L16@16000h", 16000),
    ],
)
async def test_other_codecs_carry_speech_both_ways(autojump_clock: Any, wire: str, codec: str, rate_hz: int) -> None:
    rates: list[int] = []

    async def bot(line: Line) -> None:
        rates.append(line.info.sample_rate_hz)
        async for chunk in line.listen():
            line.speak(chunk)

    n = np.arange(16000)
    said = (6000 * np.sin(2 * np.pi * 440 * n / 8000)).astype(np.int16)
    result = await converse(bot, wire=wire, codec=codec, says=said, seconds=4)
    assert rates == [rate_hz]
    loud = result.heard[np.abs(result.heard.astype(int)) > 1000]
    assert 8000 < len(loud) < 16000
    spectrum = np.abs(np.fft.rfft(spoken(result.heard)[2000:10000].astype(float)))
    assert int(np.argmax(spectrum)) == 440


async def test_digits_go_both_ways_where_the_wire_has_them(autojump_clock: Any) -> None:
    pressed: list[str] = []

    async def bot(line: Line) -> None:
        await line.send_digits("12#")
        pressed.extend([digit async for digit in line.digits()])

    result = await converse(bot, wire="signalwire", presses="47*")
    assert pressed == ["4", "7", "*"]
    assert result.digits == ["1", "2", "#"]


@pytest.mark.parametrize(
    ("wire", "nearest"), [("twilio", "REST API, or playing their tones"), ("teler", "REST API's dtmf, or their tones")]
)
async def test_where_digits_cannot_be_sent_the_nearest_thing_is_named(
    autojump_clock: Any, wire: str, nearest: str
) -> None:
    pressed: list[str] = []

    async def bot(line: Line) -> None:
        with pytest.raises(NotOnThisWire, match=nearest):
            await line.send_digits("1")
        pressed.extend([digit async for digit in line.digits()])

    result = await converse(bot, wire=wire, presses="5")
    assert pressed == (["5"] if wire == "twilio" else [])
    assert result.stream is not None
    assert result.stream.refused == {}


async def test_one_chunk_is_taken_back_and_the_rest_is_heard(autojump_clock: Any) -> None:
    """Chunks are counted from 1, and what goes out at once while much waits is 200 ms long."""

    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        await trio.sleep(0.1)
        await line.interrupt(2)
        await line.interrupt(5)
        await line.wait_ended()

    result = await converse(bot, wire="teler")
    said = speech(8000)
    expected = np.concatenate([said[:1600], said[3200:6400]])
    assert np.array_equal(spoken(result.heard)[: len(expected)], expected)
    assert len(spoken(result.heard)) == len(expected)


@pytest.mark.parametrize("wire", ["plivo", "twilio", "signalwire"])
async def test_chunks_without_numbers_cannot_be_taken_back(autojump_clock: Any, wire: str) -> None:
    async def bot(line: Line) -> None:
        with pytest.raises(NotOnThisWire, match=wire):
            await line.interrupt(1)

    result = await converse(bot, wire=wire, seconds=1)
    assert result.end_reason is EndReason.APPLICATION_HUNG_UP


@each_wire
async def test_the_callers_speech_clears_what_is_queued(autojump_clock: Any, wire: str) -> None:
    outcomes: list[Outcome] = []

    async def bot(line: Line) -> None:
        line.barge_in(lambda chunk: bool(np.abs(chunk.samples.astype(int)).mean() > 1000))
        line.speak(speech(5 * 8000), sample_rate_hz=8000)
        outcomes.append((await line.checkpoint("said").wait()).outcome)
        await line.wait_ended()

    says = np.concatenate([np.zeros(8000, np.int16), speech(4000)])
    result = await converse(bot, wire=wire, says=says, message_ms=20)
    assert outcomes == [CLEARED]
    assert len(spoken(result.heard)) / 8000 == pytest.approx(1.05, abs=0.15)
    (line,) = result.lines
    assert line.statistics.barge_ins == 1
