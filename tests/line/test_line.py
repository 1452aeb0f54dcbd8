"""What a program can rely on at its end of a line, seen from the wire: a platform by hand, in virtual time."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
import trio_websocket

from support.errors import Errors
from support.frames import TEXT
from support.peer import Peer, connect
from support.virtual import speech, task_order
from talkpath.audio import AudioChunk, AudioClip, Samples
from talkpath.dsp import Resampler, pcmu_decode, pcmu_encode
from talkpath.errors import CallEnded, ConfigError, FormatError, LocalWireError, NotOnThisWire, PlayoutFull
from talkpath.events import Clear, HangUp, Mark, SendDigits
from talkpath.line import Line, LineConfig, LineRecord, ServeConfig, connect_line, line_on, serve_memory_lines
from talkpath.path.barge_in import EnergyGate
from talkpath.records import EndReason, MarkOutcome, Outcome, Played
from talkpath.testing import ToneSource, quiescence
from talkpath.transport.clock import current_clock
from talkpath.transport.memory import listen_memory
from talkpath.wire.plivo import PlivoDialect

Bot = Callable[[Line], Awaitable[None]]
FRAME = 160


# A platform by hand --------------------------------------------------------------------------------------------------


@dataclass
class Platform:
    """The platform's end of one line: says what a test tells it to, keeps what the application says and when."""

    peer: Peer
    records: list[LineRecord] = field(default_factory=list)
    sequence: int = 1

    async def say(self, event: str, **fields: object) -> None:
        self.sequence += 1
        await self.peer.text({"event": event, "sequenceNumber": self.sequence, "streamId": "stream", **fields})

    async def start(
        self, tracks: Sequence[str] = ("inbound",), encoding: str = "audio/x-mulaw", rate: int = 8000
    ) -> None:
        body = {"callId": "call", "streamId": "stream", "accountId": "account", "tracks": list(tracks)}
        body["mediaFormat"] = {"encoding": encoding, "sampleRate": rate}
        await self.say("start", start=body, extra_headers="{}")

    async def hear(self, pcm: Samples, track: str = "inbound") -> None:
        """Pass on what the caller says: one message."""
        payload = base64.b64encode(pcmu_encode(pcm)).decode()
        media = {"track": track, "timestamp": "1", "chunk": self.sequence, "payload": payload}
        await self.say("media", media=media, extra_headers="{}")

    async def hear_for(self, pcm: Samples) -> None:
        """Pass on what the caller says, 20 ms at a time, as it is said."""
        for begin in range(0, len(pcm), FRAME):
            await self.hear(pcm[begin : begin + FRAME])
            await trio.sleep(0.02)

    async def press(self, digit: str) -> None:
        await self.say("dtmf", dtmf={"track": "inbound", "timestamp": "1", "digit": digit})

    async def played(self, name: str) -> None:
        await self.say("playedStream", name=name)

    async def cleared(self) -> None:
        await self.say("clearedAudio")

    async def hang_up(self) -> None:
        await self.peer.close(1000)

    @property
    def audio(self) -> list[tuple[float, Samples]]:
        """What the application has played, and when it came."""
        return [
            (at, pcmu_decode(base64.b64decode(message["media"]["payload"])))
            for at, message in zip(self.peer.arrived, self.peer.messages, strict=False)
            if message["event"] == "playAudio"
        ]

    @property
    def said(self) -> list[str]:
        """The application's messages by event, checkpoints with their names, audio left out."""
        return [
            message["event"] + (f" {message['name']}" if "name" in message else "")
            for message in self.peer.messages
            if message["event"] != "playAudio"
        ]

    async def answer(self) -> None:
        """Report each checkpoint as played when the model of the queue says so, and each clear at once."""
        done, until = 0, 0.0
        while True:
            while done < len(self.peer.frames):
                frame = self.peer.frames[done]
                done += 1
                if frame.opcode != TEXT:
                    continue
                message = json.loads(frame.payload)
                if message["event"] == "playAudio":
                    seconds = len(base64.b64decode(message["media"]["payload"])) / 8000
                    until = max(until, trio.current_time()) + seconds
                elif message["event"] == "clearAudio":
                    until = trio.current_time()
                    await self.cleared()
                elif message["event"] == "checkpoint":
                    await trio.sleep_until(max(until, trio.current_time()))
                    await self.played(message["name"])
            await trio.sleep(0.01)


@asynccontextmanager
async def platform_of(
    bot: Bot, config: LineConfig | None = None, *, answers: bool = False, **start: Any
) -> AsyncIterator[Platform]:
    """Serve `bot` and be the platform that opens a line to it; afterwards nothing may be left."""
    with quiescence():
        async with trio.open_nursery() as nursery:
            records: list[LineRecord] = []
            serving = ServeConfig(line=config or LineConfig(), on_ended=records.append, pool_bytes=1 << 22)
            await nursery.start(
                partial(serve_memory_lines, bot, "bot", config=serving, entropy=random.Random(3).randbytes)
            )
            peer = connect("bot")
            assert "101" in await peer.upgrade_as_client()
            platform = Platform(peer, records)
            nursery.start_soon(peer.read_all)
            if answers:
                nursery.start_soon(answers_until_closed, platform)
            await platform.start(**start)
            yield platform
            await trio.sleep(1)
            peer.link.close()
            await trio.sleep(30)
            nursery.cancel_scope.cancel()


async def answers_until_closed(platform: Platform) -> None:
    with suppress(OSError):
        await platform.answer()


async def a_line(
    body: Callable[[Line, Platform], Awaitable[None]], config: LineConfig | None = None, **start: Any
) -> Platform:
    """Run `body` as the bot, with the platform at hand; return when it is done."""
    done = trio.Event()
    box: list[Platform] = []
    failure: list[BaseException] = []

    async def bot(line: Line) -> None:
        await trio.testing.wait_all_tasks_blocked()
        try:
            await body(line, box[0])
        except BaseException as exc:
            failure.append(exc)
            raise
        finally:
            done.set()

    async with platform_of(bot, config, **start) as platform:
        box.append(platform)
        await done.wait()
    for exc in failure:
        if not isinstance(exc, CallEnded):
            raise exc
    return platform


def law(pcm: Samples) -> Samples:
    """What is left of audio on a mu-law wire."""
    return pcmu_decode(pcmu_encode(pcm))


def heard(chunks: Sequence[AudioChunk]) -> Samples:
    return np.concatenate([chunk.samples for chunk in chunks])


# Listening -----------------------------------------------------------------------------------------------------------


async def test_each_listener_hears_everything_from_its_own_beginning_in_chunks_of_its_own(autojump: object) -> None:
    said = speech(8000)

    async def body(line: Line, platform: Platform) -> None:
        listeners = [line.listen(), line.listen(chunk_ms=60)]
        await platform.hear_for(said[:4000])
        listeners.append(line.listen(chunk_ms=10))
        await platform.hear_for(said[4000:])
        await platform.hang_up()
        for listener, begin, length in zip(listeners, (0, 0, 4000), (160, 480, 80), strict=True):
            chunks = [chunk async for chunk in listener]
            assert {len(chunk.samples) for chunk in chunks} == {length}
            assert [chunk.at_sample for chunk in chunks] == list(range(begin, begin + length * len(chunks), length))
            whole = (8000 - begin) // length * length
            assert np.array_equal(heard(chunks), law(said)[begin : begin + whole])
            assert {(chunk.sample_rate_hz, chunk.track) for chunk in chunks} == {(8000, "inbound")}

    await a_line(body)


async def test_a_listener_gets_the_rate_it_asks_for_on_one_clock(autojump: object) -> None:
    said = speech(4000)

    async def body(line: Line, platform: Platform) -> None:
        listener = line.listen(sample_rate_hz=24000)
        await platform.hear_for(said)
        await platform.hang_up()
        chunks = [chunk async for chunk in listener]
        assert [chunk.at_sample for chunk in chunks] == list(range(0, 12000, 480))
        assert np.array_equal(heard(chunks), Resampler(8000, 24000).process(law(said)))

    await a_line(body)


async def test_both_tracks_are_heard_where_the_platform_sends_them(autojump: object) -> None:
    inbound, outbound = speech(320, seed=1), speech(320, seed=2)

    async def body(line: Line, platform: Platform) -> None:
        assert line.info.tracks == ("inbound", "outbound")
        ears = {track: line.listen(track=track) for track in line.info.tracks}
        await platform.hear(inbound)
        await platform.hear(outbound, "outbound")
        for track, said in (("inbound", inbound), ("outbound", outbound)):
            chunks = [await anext(ears[track]), await anext(ears[track])]
            assert np.array_equal(heard(chunks), law(said))
            assert chunks[0].track == track

    await a_line(body, tracks=["inbound", "outbound"])


@pytest.mark.parametrize(
    ("options", "what"),
    [({"track": "outbound"}, "outbound"), ({"sample_rate_hz": 11025}, "11025"), ({"chunk_ms": 5}, "chunk_ms")],
)
async def test_what_cannot_be_listened_to_is_said_at_once(autojump: object, options: dict[str, Any], what: str) -> None:
    async def body(line: Line, platform: Platform) -> None:
        with pytest.raises(ConfigError, match=what):
            line.listen(**options)

    await a_line(body)


async def test_a_slow_listener_loses_its_oldest_audio_counted_and_delays_nobody(autojump: object) -> None:
    said = speech(3 * 8000)

    async def body(line: Line, platform: Platform) -> None:
        slow, quick = line.listen(), line.listen()
        chunks: list[AudioChunk] = []

        async def read() -> None:
            async for chunk in quick:
                chunks.append(chunk)  # noqa: PERF401 - as they come

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await platform.hear_for(said)
            first = await anext(slow)
            nursery.cancel_scope.cancel()
        assert first.at_sample == 2 * 8000
        assert np.array_equal(first.samples, law(said)[16000:16160])
        assert (slow.dropped_samples, quick.dropped_samples) == (16000, 0)
        assert np.array_equal(heard(chunks), law(said))
        assert line.statistics().listener_dropped_ms == 2000

    await a_line(body)


async def test_a_bound_shorter_than_a_chunk_does_not_break_the_chunk(autojump: object) -> None:
    said = speech(16000)

    async def body(line: Line, platform: Platform) -> None:
        listener = line.listen(chunk_ms=500)
        await platform.hear_for(said[:4800])
        chunk = await anext(listener)
        assert chunk.at_sample == 800
        assert np.array_equal(chunk.samples, law(said)[800:4800])
        await platform.hear_for(said[4800:8800])
        assert np.array_equal((await anext(listener)).samples, law(said)[4800:8800])

    await a_line(body, LineConfig(listen_bound_ms=100))


async def test_a_cancelled_listener_loses_nothing(autojump: object) -> None:
    said = speech(8000)
    chance = random.Random(4)

    async def body(line: Line, platform: Platform) -> None:
        listener = line.listen()
        chunks: list[AudioChunk] = []
        n_cancelled = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.hear_for, said)
            while len(chunks) < 50:
                with trio.CancelScope() as scope:
                    if chance.random() < 0.5:
                        scope.cancel()
                    else:
                        scope.deadline = trio.current_time() + chance.choice((0.0, 0.013, 0.02, 0.04))
                    chunks.append(await anext(listener))
                if scope.cancelled_caught:
                    n_cancelled += 1
                    await trio.sleep(0.005)
        assert n_cancelled > 20
        assert np.array_equal(heard(chunks), law(said))
        assert listener.dropped_samples == 0

    await a_line(body)


async def test_two_tasks_cannot_read_one_listener(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        listener = line.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, listener)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(listener)
            nursery.cancel_scope.cancel()

    await a_line(body)


# Speaking ------------------------------------------------------------------------------------------------------------


async def test_what_is_said_is_sent_as_it_is_in_short_messages_while_little_waits(autojump: object) -> None:
    said = speech(800)

    async def body(line: Line, platform: Platform) -> None:
        for begin in range(0, 800, 160):
            line.speak(AudioChunk(said[begin : begin + 160], 8000, 0, "inbound"))
            await trio.sleep(0.02)
        line.speak(AudioClip(said, 8000))
        line.speak(said[:8], sample_rate_hz=8000)
        await trio.sleep(1)

    platform = await a_line(body)
    sent = platform.audio
    assert np.array_equal(np.concatenate([pcm for _, pcm in sent]), law(np.concatenate([said, said, said[:8]])))
    assert [len(pcm) for _, pcm in sent] == [160] * 10 + [8]


async def test_audio_of_another_rate_is_resampled_as_one_piece(autojump: object) -> None:
    said = speech(16000)

    async def body(line: Line, platform: Platform) -> None:
        for begin in range(0, 16000, 320):
            line.speak(said[begin : begin + 320], sample_rate_hz=16000)
        await trio.sleep(3)

    platform = await a_line(body)
    sent = np.concatenate([pcm for _, pcm in platform.audio])
    resampler = Resampler(16000, 8000)
    whole = resampler.process(np.concatenate([said, np.zeros(2 * resampler.delay_samples, np.int16)]))
    assert np.array_equal(sent, law(whole[: 8000 + resampler.delay_samples]))


async def test_speaking_beyond_the_bound_is_refused_whole(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8 * 8000), sample_rate_hz=8000)
        line.speak(speech(2 * 8000 - 1), sample_rate_hz=8000)
        for _ in range(2):
            with pytest.raises(PlayoutFull, match="10 s"):
                line.speak(speech(2), sample_rate_hz=8000)
        line.speak(speech(1), sample_rate_hz=8000)
        await line.drain()

    platform = await a_line(body, LineConfig(queue_s=10), answers=True)
    assert sum(len(pcm) for _, pcm in platform.audio) == 80000


@pytest.mark.parametrize(
    ("audio", "rate", "what"),
    [
        (np.zeros(160, np.float32), 8000, "int16"),
        (np.zeros((2, 160), np.int16), 8000, r"2|shape"),
        (np.zeros(160, np.int16), None, "sample_rate_hz"),
        (np.zeros(160, np.int16), 11000, "11000"),
        (b"\0" * 320, 8000, "bytes"),
    ],
)
async def test_what_is_no_audio_is_said_to_be_none(autojump: object, audio: Any, rate: int | None, what: str) -> None:
    async def body(line: Line, platform: Platform) -> None:
        with pytest.raises(FormatError, match=what):
            line.speak(audio, sample_rate_hz=rate)
        with pytest.raises(FormatError, match=what):
            await line.play(audio, sample_rate_hz=rate)
        assert not line.ended

    await a_line(body)


@pytest.mark.parametrize("send_ahead_ms", [20, 100, 500, 2000])
async def test_never_more_is_sent_ahead_than_allowed_and_nothing_is_late(autojump: object, send_ahead_ms: int) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(5 * 8000), sample_rate_hz=8000)
        await trio.sleep(2.5)
        line.speak(speech(4000), sample_rate_hz=8000)
        await trio.sleep(7)

    platform = await a_line(body, LineConfig(send_ahead_ms=send_ahead_ms))
    begin, until = platform.audio[0][0], platform.audio[0][0]
    for at, pcm in platform.audio:
        assert at <= until + 1e-9, "the far end ran dry"
        until += len(pcm) / 8000
        assert until - at <= send_ahead_ms / 1000 + 1e-9
    assert until == pytest.approx(begin + 5.5)


# Playing -------------------------------------------------------------------------------------------------------------


async def pieces(log: list[float], n: int = 40, n_samples: int = 4000, every_s: float = 0.0) -> AsyncIterator[Samples]:
    """A synthesiser: notes when each piece is asked for, and that it was closed."""
    try:
        for _ in range(n):
            log.append(trio.current_time())
            await trio.sleep(every_s)
            yield speech(n_samples)
    finally:
        log.append(-1.0)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
@pytest.mark.parametrize("kind", ["array", "clip", "chunk", "pieces"])
async def test_playing_tells_when_all_was_played(autojump: object, kind: str, rate: int) -> None:
    said = speech(rate)

    async def body(line: Line, platform: Platform) -> None:
        begin = trio.current_time()
        if kind == "array":
            played = await line.play(said, sample_rate_hz=rate)
        elif kind == "pieces":
            played = await line.play(pieces([], 2, rate // 2), sample_rate_hz=rate)
        else:
            played = await line.play(AudioClip(said, rate) if kind == "clip" else AudioChunk(said, rate, 0, "inbound"))
        assert played == Played(8000, Outcome.PLAYED, True)
        assert trio.current_time() - begin == pytest.approx(1, abs=0.02)

    platform = await a_line(body, answers=True)
    sent = np.concatenate([pcm for _, pcm in platform.audio])
    assert len(sent) == 8000
    if rate == 8000 and kind != "pieces":
        assert np.array_equal(sent, law(said))


async def test_playing_nothing_is_played_at_once(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        assert await line.play(speech(0), sample_rate_hz=8000) == Played(0, Outcome.PLAYED, True)
        assert trio.current_time() < 0.1

    await a_line(body, answers=True)


async def test_a_synthesiser_faster_than_speech_is_held_back(autojump: object) -> None:
    log: list[float] = []

    async def body(line: Line, platform: Platform) -> None:
        assert await line.play(pieces(log), sample_rate_hz=8000) == Played(160_000, Outcome.PLAYED, True)

    await a_line(body, answers=True)
    asked, closed = log[:-1], log[-1]
    assert closed == -1.0
    ahead = [0.5 * n - at for n, at in enumerate(asked)]
    assert max(ahead) <= 6.5, "2 s sent ahead, 4 s in the queue, and the piece in hand"
    assert asked[-1] > 12


async def test_a_clear_ends_a_play_with_what_the_model_says_was_heard_and_closes_its_synthesiser(
    autojump: object,
) -> None:
    log: list[float] = []

    async def body(line: Line, platform: Platform) -> None:
        played: list[Played] = []

        async def play() -> None:
            played.append(await line.play(pieces(log), sample_rate_hz=8000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play)
            await trio.sleep(1.25)
            await line.clear()
            assert line.statistics().queued_ms == 0
        assert played == [Played(10_000, Outcome.CLEARED, False)]
        assert trio.current_time() < 2

    platform = await a_line(body, answers=True)
    assert log[-1] == -1.0
    assert platform.said == ["clearAudio"]


async def test_a_clear_that_was_asked_for_before_a_play_does_not_end_it(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.clear)
            await trio.lowlevel.checkpoint()
            played = await line.play(speech(4000), sample_rate_hz=8000)
        assert played == Played(4000, Outcome.PLAYED, True)

    for seed in range(4):
        with task_order(seed):
            await a_line(body, answers=True)


async def test_a_play_that_the_lines_end_cuts_off_is_lost(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        played: list[Played] = []

        async def play(audio: object) -> None:
            played.append(await line.play(audio, sample_rate_hz=8000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, speech(8000))
            await trio.sleep(0.1)
            nursery.start_soon(play, pieces([]))
            await trio.sleep(0.65)
            await platform.hang_up()
        assert sorted(played, key=lambda one: -one.samples) == [
            Played(6000, Outcome.LOST, False),
            Played(0, Outcome.LOST, False),
        ]
        with pytest.raises(CallEnded):
            await line.play(speech(160), sample_rate_hz=8000)

    await a_line(body)


async def test_a_piece_that_is_no_audio_ends_the_play_not_the_line(autojump: object) -> None:
    async def bad() -> AsyncIterator[object]:
        yield speech(800)
        yield 5

    async def body(line: Line, platform: Platform) -> None:
        with pytest.raises(FormatError, match="int"):
            await line.play(bad(), sample_rate_hz=8000)
        await line.drain()
        assert not line.ended

    platform = await a_line(body, answers=True)
    assert sum(len(pcm) for _, pcm in platform.audio) == 800


# Checkpoints and clears ----------------------------------------------------------------------------------------------


def outcomes(*checkpoints: Any) -> list[Outcome | None]:
    return [None if one.outcome is None else one.outcome.outcome for one in checkpoints]


async def test_a_checkpoint_goes_out_after_what_was_said_before_it_and_before_what_is_said_after(
    autojump: object,
) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.checkpoint("first")
        line.speak(speech(250), sample_rate_hz=8000)
        line.checkpoint("second")
        line.checkpoint("third")
        line.speak(speech(100), sample_rate_hz=8000)
        line.checkpoint("last")
        await trio.sleep(1)

    platform = await a_line(body)
    order: list[object] = []
    for message in platform.peer.messages:
        if message["event"] == "playAudio":
            n = len(base64.b64decode(message["media"]["payload"]))
            if order and isinstance(order[-1], int):
                order[-1] += n
            else:
                order.append(n)
        else:
            order.append(message["name"])
    assert order[:6] == ["first", 250, "second", "third", 100, "last"]


async def test_answers_match_first_in_first_out_per_name(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        a1, b1, a2, b2, a3 = (line.checkpoint(name) for name in "ababa")
        await trio.sleep(0.1)
        for name, settled in (("b", (0, 1)), ("a", (1, 1)), ("b", (1, 2)), ("a", (2, 2)), ("a", (3, 2))):
            await platform.played(name)
            await trio.sleep(0.1)
            done = outcomes(a1, a2, a3), outcomes(b1, b2)
            assert tuple(sum(one is Outcome.PLAYED for one in some) for some in done) == settled
            assert all(sorted(some, key=lambda one: one is None) == some for some in done)
        await platform.played("a")
        await platform.played("never set")
        await trio.sleep(0.1)
        assert line.statistics().refused == {"unexpected_mark": 2}

    await a_line(body)


async def test_a_clear_settles_what_was_sent_before_it_and_nothing_else(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8 * 8000), sample_rate_hz=8000)
        line.speak(speech(0), sample_rate_hz=8000)
        early = line.checkpoint("same")
        await trio.sleep(0.1)
        await line.clear()
        assert outcomes(early) == [Outcome.CLEARED], "it had not been sent: nobody else needs to say so"
        before = line.checkpoint("same")
        await trio.sleep(0.1)
        await line.clear()
        between = line.checkpoint("same")
        await trio.sleep(0.1)
        await line.clear()
        after = line.checkpoint("same")
        await trio.sleep(0.1)
        assert outcomes(before, between, after) == [None] * 3
        await platform.cleared()
        await trio.sleep(0.1)
        assert outcomes(before, between, after) == [None] * 3, "the first clear found nothing sent"
        await platform.cleared()
        await trio.sleep(0.1)
        assert outcomes(before, between, after) == [Outcome.CLEARED, None, None]
        await platform.played("same")
        await trio.sleep(0.1)
        assert outcomes(before, between, after) == [Outcome.CLEARED, Outcome.PLAYED, None], "it crossed the clear"
        await platform.cleared()
        await trio.sleep(0.1)
        await platform.cleared()
        await trio.sleep(0.1)
        assert outcomes(after) == [None], "a clear nobody asked for settles nothing that came after"
        await platform.played("same")
        await trio.sleep(0.1)
        assert outcomes(after) == [Outcome.PLAYED]
        assert line.statistics().clears == 3

    await a_line(body)


async def test_a_checkpoint_settles_once_and_at_the_latest_with_the_line(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8 * 8000), sample_rate_hz=8000)
        unsent = line.checkpoint("unsent")
        line.speak(speech(8), sample_rate_hz=8000)
        await platform.hear_for(speech(800))
        waited: list[MarkOutcome] = []

        async def wait() -> None:
            waited.append(await unsent.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            with trio.move_on_after(0.5):
                await unsent.wait()
            await platform.hang_up()
        assert waited == [MarkOutcome("unsent", Outcome.LOST, 800, False)]
        assert await unsent.wait() == waited[0]
        with pytest.raises(CallEnded):
            line.checkpoint("late")

    await a_line(body)


async def test_the_257th_checkpoint_unsent_is_lost_and_the_line_lives_on(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8 * 8000), sample_rate_hz=8000)
        set_ = [line.checkpoint("same") for _ in range(257)]
        await trio.sleep(0.1)
        assert outcomes(*set_) == [None] * 256 + [Outcome.LOST]
        await line.clear()
        assert outcomes(*set_) == [Outcome.CLEARED] * 256 + [Outcome.LOST]
        assert outcomes(line.checkpoint("again")) == [None]

    await a_line(body)


@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_a_name_no_wire_carries_is_refused(autojump: object, name: str) -> None:
    async def body(line: Line, platform: Platform) -> None:
        with pytest.raises(ConfigError):
            line.checkpoint(name)
        with pytest.raises(LocalWireError):
            line.checkpoint("half \ud800 a character")
        await trio.sleep(0.1)
        assert not line.ended

    await a_line(body)


# Digits --------------------------------------------------------------------------------------------------------------


async def test_digits_come_from_the_beginning_to_each_reader_and_go_out(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        for digit in "12":
            await platform.press(digit)
        await trio.sleep(0.1)
        readers = [line.digits(), line.digits()]
        with trio.move_on_after(1):
            assert [await anext(readers[0]) for _ in range(3)] == []
        for digit in "3#":
            await platform.press(digit)
        assert [await anext(readers[0]) for _ in range(2)] == ["3", "#"], "a cancelled reader has lost nothing"
        await line.send_digits("90*a")
        for bad in ("", "1w2", "x" * 65):
            with pytest.raises(LocalWireError):
                await line.send_digits(bad)
        await platform.hang_up()
        assert [digit async for digit in readers[1]] == ["1", "2", "3", "#"]
        assert [digit async for digit in readers[0]] == []

    platform = await a_line(body)
    assert platform.peer.named("sendDTMF") == [{"event": "sendDTMF", "dtmf": "90*A"}]


async def test_the_last_256_digits_are_kept(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        reader = line.digits()
        for n in range(300):
            await platform.press(str(n % 10))
        await platform.hang_up()
        await trio.sleep(0.1)
        assert [digit async for digit in reader] == [str(n % 10) for n in range(44, 300)]

    await a_line(body)


# Barge-in ------------------------------------------------------------------------------------------------------------


async def test_the_callers_speech_clears_what_is_said(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.barge_in(EnergyGate(speech_ms=100))
        await platform.hear_for(np.zeros(800, np.int16))
        loud = ToneSource(450, level_dbov=-12).take(4000)
        line.speak(speech(3 * 8000), sample_rate_hz=8000)
        begin = trio.current_time()
        await platform.hear_for(loud[:640])
        assert platform.said == []
        await platform.hear_for(loud[640:])
        assert platform.said == ["clearAudio"]
        at = platform.peer.arrived[platform.peer.messages.index({"event": "clearAudio", "streamId": "stream"})]
        assert at == pytest.approx(begin + 0.08), "with the fifth loud frame"
        assert line.statistics().barge_ins == 1
        assert line.statistics().queued_ms == 0

    await a_line(body)


async def test_speech_while_nothing_is_said_clears_nothing(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        asked: list[int] = []

        def always(chunk: AudioChunk) -> bool:
            asked.append(chunk.at_sample)
            assert (len(chunk.samples), chunk.sample_rate_hz) == (160, 8000)
            return True

        line.barge_in(always)
        await platform.hear_for(speech(480))
        assert asked == [0, 160, 320]
        line.speak(speech(800), sample_rate_hz=8000)
        await trio.sleep(0.1)
        await platform.hear(speech(160))
        await trio.sleep(0.1)
        assert platform.said == [], "what was said has been played, by the model"
        line.speak(speech(800), sample_rate_hz=8000)
        line.barge_in(None)
        await platform.hear(speech(160))
        await trio.sleep(0.01)
        assert len(asked) == 4
        assert platform.said == []

    await a_line(body)


async def test_what_was_said_at_the_very_instant_of_a_barge_in_is_cleared_too(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        await trio.sleep(0.01)
        line.barge_in(lambda chunk: True)
        line.speak(speech(8000), sample_rate_hz=8000)
        await platform.hear(speech(160))
        await trio.sleep(0.5)
        assert platform.said == ["clearAudio"]
        assert platform.audio == []
        assert line.statistics().queued_ms == 0

    await a_line(body)


async def test_a_policy_that_raises_ends_its_line(autojump: object, errors: Errors) -> None:
    def policy(chunk: AudioChunk) -> bool:
        raise ZeroDivisionError

    async def body(line: Line, platform: Platform) -> None:
        line.barge_in(policy)
        await platform.hear(speech(160))
        assert await line.wait_ended() is EndReason.POLICY_FAILED

    platform = await a_line(body)
    assert platform.peer.close_code == 1011
    assert (platform.records[0].reason, platform.records[0].cause) == (EndReason.POLICY_FAILED, "ZeroDivisionError")
    assert len(errors.seen) == 1


# The life of a bot ---------------------------------------------------------------------------------------------------


async def test_a_bot_that_returns_has_its_words_heard_then_hangs_up(autojump: object) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(3 * 8000), sample_rate_hz=8000)

    async with platform_of(bot, answers=True) as platform:
        await trio.sleep(10)
        assert sum(len(pcm) for _, pcm in platform.audio) == 24000
        close_at = platform.peer.arrived[-1]
        assert 3.0 <= close_at <= 3.1
        assert platform.peer.close_code == 1000
        assert platform.records[0].reason is EndReason.APPLICATION_HUNG_UP


async def test_a_platform_that_never_says_played_is_not_waited_for_longer_than_the_drain(autojump: object) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)

    async with platform_of(bot, LineConfig(drain_s=7)) as platform:
        await trio.sleep(10)
        assert platform.peer.close_code == 1000
        assert platform.peer.arrived[-1] == pytest.approx(7, abs=0.03)


@pytest.mark.parametrize("error", [ValueError("mine"), StopAsyncIteration()])
async def test_a_bot_that_raises_is_cleared_closed_and_recorded_and_the_server_goes_on(
    autojump: object, errors: Errors, error: Exception
) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        await trio.sleep(0.1)
        raise error

    async with platform_of(bot) as platform:
        await trio.sleep(5)
        assert platform.said == ["clearAudio"]
        assert platform.peer.close_code == 1011
        assert platform.peer.arrived[-1] < 0.2
        (record,) = platform.records
        assert (record.reason, record.cause) == (EndReason.APPLICATION_FAILED, type(error).__name__)
        assert errors.raised == [error]
        again = connect("bot")
        assert "101" in await again.upgrade_as_client()
        again.link.close()


async def test_a_line_that_ends_first_leaves_its_bot_some_seconds(autojump: object) -> None:
    log: list[tuple[str, float]] = []

    async def bot(line: Line) -> None:
        note = lambda what: log.append((what, trio.current_time()))  # noqa: E731
        checkpoint = line.checkpoint("pending")
        async for _ in line.listen():
            pass
        note("listener stopped")
        assert (await checkpoint.wait()).outcome is Outcome.LOST
        assert await line.wait_ended() is EndReason.PLATFORM_HUNG_UP
        for operation in (
            lambda: line.speak(speech(8), sample_rate_hz=8000),
            lambda: line.checkpoint("x"),
            lambda: line.listen(),
        ):
            with pytest.raises(CallEnded):
                operation()
        for later in (line.clear(), line.play(speech(8), sample_rate_hz=8000), line.send_digits("1")):
            with pytest.raises(CallEnded):
                await later
        await line.drain()
        await line.hang_up()
        try:
            await trio.sleep(100)
        finally:
            note("cancelled")

    async with platform_of(bot, LineConfig(linger_s=3)) as platform:
        await trio.sleep(1)
        await platform.hang_up()
        await trio.sleep(10)
        assert [what for what, _ in log] == ["listener stopped", "cancelled"]
        assert log[1][1] - log[0][1] == pytest.approx(3)
        assert platform.peer.close_code == 1000


async def test_a_bot_that_lets_call_ended_out_has_not_failed(autojump: object, errors: Errors) -> None:
    async def bot(line: Line) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            while True:
                line.speak(speech(160), sample_rate_hz=8000)
                await trio.sleep(0.02)

    async with platform_of(bot) as platform:
        await trio.sleep(1)
        await platform.hang_up()
        await trio.sleep(1)
        assert platform.records[0].reason is EndReason.PLATFORM_HUNG_UP
    assert not errors.seen


async def test_hanging_up_drops_what_is_queued_and_is_done_when_it_returns(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        line.speak(speech(8 * 8000), sample_rate_hz=8000)
        await trio.sleep(0.1)
        await line.hang_up()
        assert line.record is not None
        await line.hang_up()

    platform = await a_line(body)
    assert platform.peer.close_code == 1000
    assert platform.records[0].reason is EndReason.APPLICATION_HUNG_UP
    assert sum(len(pcm) for _, pcm in platform.audio) <= 2.1 * 8000


async def test_hanging_up_is_done_even_when_cancelled(autojump: object) -> None:
    async def body(line: Line, platform: Platform) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await line.hang_up()
        assert scope.cancelled_caught
        assert line.ended

    await a_line(body)


async def test_what_the_wire_does_not_have_is_said_and_the_line_lives_on(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = PlivoDialect.send

    def without(dialect: PlivoDialect, command: Any, *, sequence: int = 0) -> Sequence[bytes]:
        if isinstance(command, SendDigits | Clear | Mark | HangUp):
            raise NotOnThisWire("poor", "such message", "nothing")
        return send(dialect, command, sequence=sequence)

    async def body(line: Line, platform: Platform) -> None:
        monkeypatch.setattr(PlivoDialect, "send", without)
        for operation in (line.send_digits("1"), line.clear()):
            with pytest.raises(NotOnThisWire, match="the poor wire has no such message"):
                await operation
        with pytest.raises(NotOnThisWire):
            line.checkpoint("x")
        with pytest.raises(NotOnThisWire):
            line.barge_in(EnergyGate())
        await platform.hear(speech(160))
        await trio.sleep(0.1)
        assert not line.ended
        await line.hang_up()  # closing is what every wire has

    platform = await a_line(body)
    assert platform.peer.close_code == 1000


# Lines from the other side -------------------------------------------------------------------------------------------


async def test_a_line_on_somebodys_websocket_hears_speaks_and_leaves_it_open(autojump: object) -> None:
    server_stream, client_stream = trio.testing.memory_stream_pair()
    said = speech(1600)
    left_open: list[bool] = []

    async def application(nursery: trio.Nursery) -> None:
        request = await trio_websocket.wrap_server_stream(nursery, server_stream)
        websocket = await request.accept()
        async with line_on(websocket) as line:
            assert (line.info.wire, line.info.call_id, line.info.path) == ("plivo", "call", "/bot?x=1")
            chunks = [await anext(ear) for ear in [line.listen()] for _ in range(10)]
            assert np.array_equal(heard(chunks), law(said))
            assert await line.play(said, sample_rate_hz=8000) == Played(1600, Outcome.PLAYED, True)
            left_at = trio.current_time()
        assert trio.current_time() == left_at, "the goodbye is answered at once"
        assert current_clock() is None
        left_open.append(websocket.closed is None)
        await websocket.send_message("the owner's own words")
        await websocket.aclose(1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(application, nursery)
        websocket = await trio_websocket.wrap_client_stream(nursery, client_stream, "host", "/bot?x=1")
        got: list[dict[str, Any]] = []
        last = ""

        async def read() -> None:
            nonlocal last
            with suppress(trio_websocket.ConnectionClosed):
                while True:
                    last = await websocket.get_message()
                    if last.startswith("{"):
                        got.append(json.loads(last))
                        if got[-1]["event"] == "checkpoint":
                            await trio.sleep(0.2)
                            await websocket.send_message(
                                json.dumps({"event": "playedStream", "streamId": "stream", "name": got[-1]["name"]})
                            )

        nursery.start_soon(read)
        start = {"callId": "call", "streamId": "stream", "accountId": "a", "tracks": ["inbound"]}
        start["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": 8000}  # type: ignore[assignment]
        await websocket.send_message(json.dumps({"event": "start", "start": start, "extra_headers": "{}"}))
        await trio.sleep(0.5)
        for begin in range(0, 1600, 160):
            payload = base64.b64encode(pcmu_encode(said[begin : begin + 160])).decode()
            media = {"track": "inbound", "timestamp": "1", "chunk": 1, "payload": payload}
            await websocket.send_message(json.dumps({"event": "media", "streamId": "stream", "media": media}))
    assert left_open == [True]
    assert last == "the owner's own words"
    sent = b"".join(base64.b64decode(one["media"]["payload"]) for one in got if one["event"] == "playAudio")
    assert sent == pcmu_encode(said)


@asynccontextmanager
async def a_platform_that_listens() -> AsyncIterator[Platform]:
    """Wait for applications at ``memory://platform``, and start a stream with the first."""
    listener = listen_memory("platform")
    async with trio.open_nursery() as nursery:
        platform = Platform(Peer(None, client=False))  # type: ignore[arg-type]

        async def serve() -> None:
            platform.peer.link = await listener.accept()
            await platform.peer.upgrade_as_server()
            await platform.start()
            await platform.peer.read_all()

        nursery.start_soon(serve)
        yield platform
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    listener.close()


async def test_a_line_is_dialled_and_says_goodbye(autojump: object) -> None:
    async with a_platform_that_listens() as platform:
        async with connect_line("memory://platform", headers={"X-Api-Key": "k"}) as line:
            line.speak(speech(160), sample_rate_hz=8000)
            await trio.sleep(0.1)
        await trio.sleep(1)
        assert platform.peer.headers["x-api-key"] == "k"
        assert len(platform.audio) == 1
        assert platform.peer.close_code == 1000


@pytest.mark.parametrize("error", [ValueError("mine"), StopAsyncIteration("mine"), KeyError("mine")])
async def test_a_dialled_lines_block_lets_its_exception_out_bare(autojump: object, error: Exception) -> None:
    async with a_platform_that_listens() as platform:
        with quiescence():
            with pytest.raises(type(error)) as caught:
                async with connect_line("memory://platform"):
                    raise error
            assert caught.value is error
            await trio.sleep(1)
        assert platform.peer.close_code == 1011


async def test_the_block_of_a_line_on_a_websocket_lets_its_exception_out_bare(autojump: object) -> None:
    near, far = trio.testing.memory_stream_pair()
    error = ValueError("mine")
    async with trio.open_nursery() as nursery:

        async def application() -> None:
            request = await trio_websocket.wrap_server_stream(nursery, near)
            websocket = await request.accept()
            with pytest.raises(ValueError, match="mine") as caught:
                async with line_on(websocket):
                    raise error
            assert caught.value is error
            assert error.__context__ is None
            with trio.CancelScope() as scope:
                async with line_on(websocket) as line:
                    try:
                        scope.cancel()
                        await trio.sleep(1)
                    finally:
                        with trio.CancelScope(shield=True):
                            line.speak(speech(160), sample_rate_hz=8000)
                            await trio.sleep(0.1)
            assert scope.cancelled_caught
            await websocket.aclose(1000)

        nursery.start_soon(application)
        websocket = await trio_websocket.wrap_client_stream(nursery, far, "host", "/")
        start = {"callId": "c", "streamId": "s", "tracks": ["inbound"]}
        start["mediaFormat"] = {"encoding": "audio/x-mulaw", "sampleRate": 8000}  # type: ignore[assignment]
        for _ in range(2):
            await websocket.send_message(json.dumps({"event": "start", "start": start, "extra_headers": "{}"}))
            await trio.sleep(1)
        message = json.loads(await websocket.get_message())
        assert message["event"] == "playAudio", "a cancelled block may still say goodbye"


async def test_a_line_nobody_starts_is_given_up(autojump: object) -> None:
    listener = listen_memory("mute")
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            peer = Peer(await listener.accept(), client=False)
            await peer.upgrade_as_server()
            await peer.read_all()

        nursery.start_soon(serve)
        with quiescence():
            with pytest.raises(trio.TooSlowError):
                async with connect_line("memory://mute"):
                    pytest.fail("there is no line")
            await trio.sleep(1)
    listener.close()
