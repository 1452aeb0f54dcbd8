"""How a line hears: woken once a chunk, hooks within the step, chunks that stay as they came until looked at."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest
import trio

from support.frames import TEXT
from support.peer import Peer, accept
from support.platform import STREAM_ID, instant, open_line, start_message
from support.virtual import speech
from talkpath.audio import AudioChunk, Samples
from talkpath.dsp import Resampler
from talkpath.dsp.g711 import pcmu_decode
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, LineConfig, connect_line
from talkpath.records import EndReason
from talkpath.transport.memory import listen_memory

MS = 8
"""Samples in a millisecond of the lines here, where no other rate is said."""


class Steps(trio.abc.Instrument):
    """Counts how often a task runs."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.n = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.n += task is self.task


def joined(chunks: list[AudioChunk]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in chunks)])


# Who is woken, and when ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chunk_ms", "chunks"), [(20, 30), (60, 10), (200, 3)])
async def test_a_listener_wakes_once_a_chunk_and_no_more(chunk_ms: int, chunks: int, autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        listener = line.listen(chunk_ms=chunk_ms)
        steps = Steps(trio.lowlevel.current_task())
        nursery.start_soon(platform.say_paced, speech(600 * MS), 20)
        trio.lowlevel.add_instrument(steps)
        for _ in range(chunks):
            assert len((await anext(listener)).samples) == chunk_ms * MS
        trio.lowlevel.remove_instrument(steps)
        assert steps.n == chunks


async def test_each_listener_wakes_for_its_own_chunks(autojump_clock: Any) -> None:
    said = speech(1200 * MS)
    heard_at: dict[int, list[float]] = {20: [], 60: [], 100: []}
    heard: dict[int, list[AudioChunk]] = {chunk_ms: [] for chunk_ms in heard_at}
    async with open_line() as (line, platform), trio.open_nursery() as nursery:

        async def listen(chunk_ms: int) -> None:
            async for chunk in line.listen(chunk_ms=chunk_ms):
                heard[chunk_ms].append(chunk)
                heard_at[chunk_ms].append(trio.current_time() - began)

        for chunk_ms in heard:
            nursery.start_soon(listen, chunk_ms)
        await instant()
        began = trio.current_time()
        await platform.say_paced(said, 20)
        await instant()
        nursery.cancel_scope.cancel()
    for chunk_ms, times in heard_at.items():
        n = 1200 // chunk_ms
        assert times == pytest.approx([(i + 1) * chunk_ms / 1000 for i in range(n)], abs=1e-9)
        assert np.array_equal(joined(heard[chunk_ms]), said)


async def test_one_who_comes_late_is_woken_for_what_he_has_not_had(autojump_clock: Any) -> None:
    """His chunks have long since begun elsewhere in the track, and some of them were lost."""
    said = speech(3000 * MS)
    async with open_line(config=LineConfig(listen_bound_ms=130)) as (line, platform), trio.open_nursery() as nursery:
        listener = line.listen(chunk_ms=60)
        nursery.start_soon(platform.say_paced, said, 20)
        await trio.sleep(1.0 + 1e-6)
        chunks = [await anext(listener) for _ in range(10)]
        assert listener.dropped_samples == (1000 - 130) * MS
        assert [chunk.at_sample for chunk in chunks] == [(870 + 60 * i) * MS for i in range(10)]
        assert np.array_equal(joined(chunks), said[870 * MS : 1470 * MS])
        assert trio.current_time() == pytest.approx(1.48, abs=0.01)


async def test_closing_a_listener_wakes_its_reader(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        listener, other = line.listen(), line.listen()
        ended = trio.Event()

        async def read() -> None:
            async for _ in listener:
                pass
            ended.set()

        nursery.start_soon(read)
        await instant()
        listener.close()
        listener.close()
        await instant()
        assert ended.is_set()
        await platform.say(speech(160))
        assert np.array_equal((await anext(other)).samples, speech(160))


async def test_a_line_says_once_how_long_its_chunks_are(autojump_clock: Any) -> None:
    async with open_line(config=LineConfig(chunk_ms=60)) as (line, platform):
        listener, short = line.listen(), line.listen(chunk_ms=20)
        hooked: list[AudioChunk] = []
        line.on_audio(hooked.append)
        await platform.say(speech(60 * MS))
        assert len((await anext(listener)).samples) == 60 * MS
        assert len((await anext(short)).samples) == 20 * MS
        assert [len(chunk.samples) for chunk in hooked] == [60 * MS]
    for chunk_ms in (9, 501, True):
        with pytest.raises(ConfigError, match="chunk_ms"):
            LineConfig(chunk_ms=chunk_ms)


# Hooks ---------------------------------------------------------------------------------------------------------------


async def test_a_hook_hears_each_chunk_as_it_comes(autojump_clock: Any) -> None:
    said = speech(200 * MS)
    heard: list[tuple[float, AudioChunk]] = []
    async with open_line() as (line, platform):
        began = trio.current_time()
        hook = line.on_audio(lambda chunk: heard.append((trio.current_time() - began, chunk)), chunk_ms=40)
        await platform.say_paced(said[: 150 * MS], 10)
        await instant()
        hook.close()
        hook.close()
        await platform.say_paced(said[150 * MS :], 10)
        await instant()
    assert [at for at, _ in heard] == pytest.approx([0.04, 0.08, 0.12], abs=1e-9)
    chunks = [chunk for _, chunk in heard]
    assert np.array_equal(joined(chunks), said[: 120 * MS])
    assert [(c.at_sample, c.sample_rate_hz, c.track) for c in chunks] == [(320 * i, 8000, "inbound") for i in range(3)]


async def test_hooks_hear_a_burst_before_any_task_does(autojump_clock: Any) -> None:
    order: list[str] = []
    async with open_line() as (line, platform), trio.open_nursery() as nursery:

        async def listen() -> None:
            async for _ in line.listen():
                order.append("task")  # noqa: PERF401 - what was heard when time is up counts

        nursery.start_soon(listen)
        await instant()
        line.on_audio(lambda _: order.append("first"))
        line.on_audio(lambda _: order.append("second"))
        await platform.say(speech(60 * MS))
        await instant()
        nursery.cancel_scope.cancel()
    assert order == ["first"] * 3 + ["second"] * 3 + ["task"] * 3


async def test_a_hook_at_another_rate_and_of_the_other_track(autojump_clock: Any) -> None:
    said = speech(200 * MS)
    heard: list[AudioChunk] = []
    async with open_line(tracks=("inbound", "outbound")) as (line, platform):
        line.on_audio(heard.append, sample_rate_hz=16000, chunk_ms=20, track="outbound")
        await platform.say(speech(1000), "inbound")
        await platform.say_paced(said_part := said, 20)
        assert heard == [], "that was the other track"
        for i in range(0, len(said_part), 160):
            await platform.say(said_part[i : i + 160], "outbound")
        await instant()
    assert {(c.sample_rate_hz, c.track, len(c.samples)) for c in heard} == {(16000, "outbound", 320)}
    assert np.array_equal(joined(heard), Resampler(8000, 16000).process(said))


async def test_a_hook_may_speak_and_may_close_itself_and_others(autojump_clock: Any) -> None:
    said = speech(100 * MS)
    async with open_line() as (line, platform):
        mute = line.on_audio(lambda _: pytest.fail("it was closed by the hook before it"))
        mute.close()

        def echo(chunk: AudioChunk) -> None:
            line.speak(chunk)
            if chunk.at_sample == 40 * MS:
                hook.close()
                later.close()

        hook = line.on_audio(echo)
        heard: list[int] = []
        later = line.on_audio(lambda chunk: heard.append(chunk.at_sample))
        await platform.say(said)
        await instant()
        await line.drain()
        assert np.array_equal(platform.heard(), said[: 60 * MS])
        assert heard == [], "the burst was the first hook's first"


async def test_a_hook_that_raises_ends_its_line(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def hook(chunk: AudioChunk) -> None:
        calls.append(chunk.at_sample)
        raise ZeroDivisionError

    async with open_line() as (line, platform):
        line.on_audio(hook)
        behind: list[AudioChunk] = []
        line.on_audio(behind.append)
        await platform.say(speech(100 * MS))
        assert await line.wait_ended() is EndReason.HOOK_FAILED
        assert isinstance(line.cause, ZeroDivisionError)
        with pytest.raises(CallEnded):
            line.on_audio(hook)
    assert (calls, behind) == ([0], [])
    assert platform.close_code == 1011
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    "options", [{"sample_rate_hz": 11025}, {"chunk_ms": 5}, {"chunk_ms": 501}, {"track": "outbound"}]
)
async def test_a_hook_that_cannot_be_had(options: dict[str, Any], autojump_clock: Any) -> None:
    async with open_line() as (line, _):
        with pytest.raises(ConfigError):
            line.on_audio(print, **options)


# Chunks as they came -------------------------------------------------------------------------------------------------


class G711Platform:
    """A stream of G.711, by hand: what the line says is kept as payload."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    async def say(self, payload: bytes) -> None:
        media = {"track": "inbound", "payload": base64.b64encode(payload).decode()}
        await self.peer.text({"event": "media", "streamId": STREAM_ID, "media": media, "extra_headers": "{}"})

    async def heard(self, n: int) -> bytes:
        payload = b""
        while len(payload) < n:
            one = await self.peer.read()
            assert one is not None
            assert one.opcode == TEXT
            payload += base64.b64decode(json.loads(one.payload)["media"]["payload"])
        return payload


async def g711_line(codec: str, body: Any) -> None:
    listener = listen_memory("g711")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def program() -> None:
                async with connect_line("memory://g711") as line:
                    await body(line, G711Platform(await peers.receive()))
                nursery.cancel_scope.cancel()

            hand_over, peers = trio.open_memory_channel[Peer](1)
            nursery.start_soon(program)
            peer = await accept(listener)
            start = start_message()
            start["start"]["mediaFormat"] = {"encoding": codec, "sampleRate": 8000}
            await peer.text(start)
            hand_over.send_nowait(peer)
            await trio.sleep_forever()
    listener.close()
    hand_over.close()
    peers.close()


EVERY_CODE = bytes(range(256)) + bytes(range(255, 191, -1))
"""320 samples: 40 ms in which every code occurs, μ-law's negative zero too, which no encoder writes."""


async def test_an_echo_is_exact_to_the_bit(autojump_clock: Any) -> None:
    async def body(line: Line, platform: G711Platform) -> None:
        listener = line.listen(chunk_ms=40)
        await platform.say(EVERY_CODE)
        line.speak(await anext(listener))
        assert await platform.heard(320) == EVERY_CODE

    await g711_line("audio/x-mulaw", body)


async def test_a_chunk_that_was_changed_is_spoken_as_changed(autojump_clock: Any) -> None:
    async def body(line: Line, platform: G711Platform) -> None:
        listener = line.listen(chunk_ms=40)
        await platform.say(EVERY_CODE)
        chunk = await anext(listener)
        assert chunk.duration_ms == 40.0
        samples = chunk.samples
        assert np.array_equal(samples, pcmu_decode(EVERY_CODE))
        assert chunk.samples is samples
        assert chunk.duration_ms == 40.0
        samples[:] = pcmu_decode(bytes(320))
        line.speak(chunk)
        assert await platform.heard(320) == bytes(320)

    await g711_line("audio/x-mulaw", body)


async def test_a_chunk_can_be_copied_replaced_and_sent_away(autojump_clock: Any) -> None:
    async def body(line: Line, platform: G711Platform) -> None:
        listener = line.listen(chunk_ms=40)
        for duplicate in (
            copy.copy,
            copy.deepcopy,
            dataclasses.replace,
            lambda chunk: pickle.loads(pickle.dumps(chunk)),
        ):
            await platform.say(EVERY_CODE)
            chunk = await anext(listener)
            again = duplicate(chunk)  # type: ignore[operator]
            assert np.array_equal(again.samples, pcmu_decode(EVERY_CODE))
            facts = (chunk.sample_rate_hz, chunk.at_sample, chunk.track)
            assert (again.sample_rate_hz, again.at_sample, again.track) == facts
            line.speak(again)
            assert pcmu_decode(await platform.heard(320)).tolist() == pcmu_decode(EVERY_CODE).tolist()
        assert isinstance(chunk, AudioChunk)
        assert "sample_rate_hz=8000" in repr(chunk)
        with pytest.raises(dataclasses.FrozenInstanceError):
            chunk.sample_rate_hz = 16000  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError):
            chunk.samples = chunk.samples  # type: ignore[misc]

    await g711_line("audio/x-mulaw", body)


async def test_a_chunk_of_another_wire_is_converted(autojump_clock: Any) -> None:
    """From a line of μ-law to one of L16: only the samples can be passed on."""
    async with open_line() as (other, platform):

        async def body(line: Line, g711: G711Platform) -> None:
            listener, loud = line.listen(chunk_ms=40), line.listen(chunk_ms=40, sample_rate_hz=16000)
            await g711.say(EVERY_CODE)
            other.speak(await anext(listener))
            other.speak(await anext(loud))
            await other.drain()
            heard = platform.heard()
            assert np.array_equal(heard[:320], pcmu_decode(EVERY_CODE))
            assert len(heard) == 320 + 320 + Resampler(16000, 8000).delay_samples

        await g711_line("audio/x-mulaw", body)


async def test_what_is_said_after_another_rate_comes_after_all_of_it(autojump_clock: Any) -> None:
    """The resampler still holds the end of what was said before; a chunk passed on as it came must not overtake it."""
    said = speech(20 * MS)
    tone = (np.sin(np.arange(1600) / 5) * 8000).astype(np.int16)
    async with open_line() as (line, platform):
        listener = line.listen()
        await platform.say(said)
        chunk = await anext(listener)
        line.speak(tone, sample_rate_hz=16000)
        line.speak(chunk)
        await line.drain()
        heard = platform.heard()
        assert np.array_equal(heard[-160:], said)
        assert len(heard) > 800 + 160, "the tail came first"
