"""The application's end under a platform that breaks the rules, stalls or vanishes: one line's trouble, counted."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pytest
import trio

from support import frames
from support.calls import engine, in_virtual_time
from support.frames import BINARY, CONTINUATION, KEY, PING, PONG, TEXT, frame
from support.peer import Peer, connect
from talkpath.audio import AudioChunk
from talkpath.dsp import pcmu_encode
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import PlayoutFull
from talkpath.line import Checkpoint, Line, LineConfig, LineRecord, ServeConfig, serve_memory_lines
from talkpath.records import EndReason, MarkOutcome
from talkpath.records import Outcome as MarkFate
from talkpath.testing import ToneSource

Platform = Callable[[Peer], Awaitable[None]]
Bot = Callable[[Line], Awaitable[None]]

STREAM = "20170ee2-2d41-4d3b-9d54-222222222222"
ROGUE = "the rogue's"


def start(encoding: str = "audio/x-mulaw", rate: int = 8000) -> dict[str, Any]:
    body = {
        "callId": "7a9f8c52-9f40-4c0b-8f8e-111111111111",
        "streamId": STREAM,
        "accountId": "MA00000000000000TEST",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": encoding, "sampleRate": rate},
    }
    return {"event": "start", "sequenceNumber": 1, "start": body, "extra_headers": json.dumps({"who": ROGUE})}


def media(payload: object = "//8=", **more: object) -> dict[str, Any]:
    return {"event": "media", "media": {"track": "inbound", "timestamp": "0", "chunk": 1, "payload": payload, **more}}


def audio(ms: int) -> dict[str, Any]:
    return media(base64.b64encode(pcmu_encode(ToneSource(650).take(8 * ms))).decode())


def digit(value: object) -> dict[str, Any]:
    return {"event": "dtmf", "dtmf": {"track": "inbound", "digit": value, "timestamp": "0"}}


@dataclass
class Outcome:
    """What became of the rogue's line, and of the call beside it."""

    peer: Peer
    line: Line | None = None
    record: LineRecord | None = None
    ended_at: float = 0
    digits: str = ""
    samples: int = 0
    """Heard by the bot."""
    marks: list[MarkOutcome] = field(default_factory=list)
    beside: bytes = b""

    @property
    def reason(self) -> EndReason:
        assert self.record is not None
        return self.record.reason

    @property
    def refused(self) -> dict[str, int]:
        assert self.record is not None
        return self.record.statistics.refused


async def _face(
    platform: Platform | None,
    bot: Bot | None,
    seconds: float,
    config: LineConfig,
    reads: bool,
    pongs: bool,
    first: object,
) -> Outcome:
    outcome = Outcome(Peer(None, client=True))  # type: ignore[arg-type]

    async def echo(line: Line) -> None:
        async for chunk in line.listen():
            line.speak(chunk)

    async def attend(line: Line) -> None:
        """Note everything that the rogue's caller says and presses."""
        outcome.line = line

        async def digits() -> None:
            async for one in line.digits():
                outcome.digits += one

        async with trio.open_nursery() as nursery:
            nursery.start_soon(digits)
            async for chunk in line.listen():
                outcome.samples += len(chunk.samples)

    async def either(line: Line) -> None:
        if line.info.custom_parameters.get("who") == ROGUE:
            outcome.line = line
            await (bot or attend)(line)
        else:
            await echo(line)

    def ended(record: LineRecord) -> None:
        if record.info.stream_id == STREAM:
            outcome.record, outcome.ended_at = record, trio.current_time()

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        settings = ServeConfig(line=config, on_ended=ended)
        await serve_memory_lines(either, "bot", config=settings, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        caller = MemoryLeg()
        async with engine() as which, which.open_call(caller) as beside:
            await beside.start_stream(StreamSpec(url="memory://bot", bidirectional=True))
            caller.say(ToneSource(1050).take(round((seconds + 1) * 8000)))
            outcome.peer = peer = connect("bot")
            await peer.upgrade_as_client()
            await peer.text(first)
            if reads:

                async def read() -> None:
                    await peer.read_all(pongs=pongs)

                nursery.start_soon(read)

            async def act() -> None:
                try:
                    if platform is not None:
                        await platform(peer)
                except OSError:
                    pass  # The line hung up on it in the middle, as it may.

            nursery.start_soon(act)
            await trio.sleep_until(seconds)
            if outcome.record is None:
                peer.link.close()
            await trio.sleep_until(seconds + 1)
            outcome.beside = caller.heard().tobytes()
        nursery.cancel_scope.cancel()
    peer.link.close()
    return outcome


def face(
    platform: Platform | None,
    *,
    bot: Bot | None = None,
    seconds: float = 2.0,
    config: LineConfig | None = None,
    reads: bool = True,
    pongs: bool = True,
    first: object = None,
) -> Outcome:
    """Have a line face a platform until `seconds`, with a good call beside it; the platform then just hangs up."""
    return in_virtual_time(_face, platform, bot, seconds, config or LineConfig(), reads, pongs, first or start())


@lru_cache
def undisturbed(seconds: float) -> bytes:
    """What the caller beside hears when the rogue does nothing."""
    return face(None, seconds=seconds).beside


def assert_nobody_else_noticed(outcome: Outcome, seconds: float = 2.0) -> None:
    assert outcome.beside == undisturbed(seconds)
    assert len(outcome.beside) == 2 * 8000 * (seconds + 1)


REFUSED: list[tuple[str, object, str]] = [
    ("no JSON", "hello", "bad_json"),
    ("nesting without end", "[" * 100_000, "bad_json"),
    ("a list", [1], "bad_type"),
    ("no event", {}, "missing_field"),
    ("an event that is null", {"event": None}, "missing_field"),
    ("an event that is a list", {"event": ["media"]}, "bad_type"),
    ("media that is none", {"event": "media"}, "missing_field"),
    ("media that is a number", {"event": "media", "media": 1}, "bad_type"),
    ("no payload", {"event": "media", "media": {}}, "missing_field"),
    ("a payload that is a number", media(5), "bad_type"),
    ("a payload that is not base64", media("!!!!"), "bad_base64"),
    ("a long payload whose end is not base64", media("A" * 20_000 + "="), "bad_base64"),
    ("a track nobody knows", media(track="both"), "bad_value"),
    ("a track that is a number", media(track=1), "bad_type"),
    ("a chunk that is true", media(chunk=True), "bad_type"),
    ("a chunk below zero", media(chunk=-1), "bad_value"),
    ("a timestamp that is text", media(timestamp="noon"), "bad_type"),
    ("a digit that is none", digit("x"), "bad_value"),
    ("two digits", digit("12"), "bad_value"),
    ("a digit that is an object", digit({}), "bad_type"),
    ("no digit", {"event": "dtmf", "dtmf": {}}, "missing_field"),
    ("a checkpoint without a name", {"event": "playedStream"}, "missing_field"),
    ("a checkpoint that was never set", {"event": "playedStream", "name": "what"}, "unexpected_mark"),
    ("a second start", start(), "bad_state"),
    ("the application's own message", {"event": "playAudio", "media": {}}, "unknown:playAudio"),
    ("an event nobody knows", {"event": "sing"}, "unknown:sing"),
    ("an event that is a telephone number", {"event": "+15550001111"}, "unknown"),
]


@pytest.mark.parametrize(("message", "kind"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bad_message_is_refused_by_kind_and_the_line_lives_on(message: object, kind: str) -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        await peer.text(message)
        await peer.text(audio(100))
        await peer.text(digit("7"))
        await trio.sleep(0.1)
        await peer.close()

    outcome = face(platform)
    assert outcome.refused == {kind: 1}
    assert outcome.reason is EndReason.PLATFORM_HUNG_UP
    assert (outcome.samples, outcome.digits) == (800, "7")
    assert outcome.peer.close_code == 1000
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("n_bytes", [1, 3, 321, 20_001])
def test_half_a_sample_is_refused(n_bytes: int) -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        await peer.text(media(base64.b64encode(bytes(n_bytes)).decode()))
        await peer.text(media(base64.b64encode(bytes(1600)).decode()))

    outcome = face(platform, first=start("audio/x-l16", 16000))
    assert outcome.refused == {"odd_length": 1}
    assert outcome.samples == 640  # two whole chunks of 320 of the 800 that came
    assert_nobody_else_noticed(outcome)


BROKEN: list[tuple[str, bytes, str, int]] = [
    ("an unmasked frame", frame(TEXT, b"{}"), "bad_mask", 1002),
    ("a reserved bit", frame(TEXT, b"{}", reserved=4, key=KEY), "bad_frame", 1002),
    ("a reserved opcode", frame(5, b"{}", key=KEY), "bad_frame", 1002),
    ("a ping of 126 bytes", frame(PING, bytes(126), key=KEY), "bad_frame", 1002),
    ("a continuation of nothing", frame(CONTINUATION, b"{}", key=KEY), "bad_frame", 1002),
    ("text that is not UTF-8", frame(TEXT, b"\xc0\x80", key=KEY), "bad_utf8", 1007),
    ("ten MiB announced", frame(TEXT, says_length=10 << 20, key=KEY), "too_long", 1009),
    (
        "ten MiB in fragments",
        frame(TEXT, bytes(65536), fin=False, key=KEY) + frame(CONTINUATION, bytes(65536), fin=False, key=KEY) * 159,
        "too_long",
        1009,
    ),
    ("a close code that may not be sent", frames.close(1006, key=KEY), "bad_frame", 1002),
]


@pytest.mark.parametrize(("data", "kind", "code"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_frame_ends_the_line_and_no_other(data: bytes, kind: str, code: int) -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        await peer.send(data)

    outcome = face(platform)
    assert outcome.reason is EndReason.WIRE_ERROR
    assert outcome.refused == {kind: 1}
    assert outcome.record is not None
    assert outcome.record.cause == "FrameError"
    assert outcome.peer.close_code == code
    assert_nobody_else_noticed(outcome)


def test_a_platform_that_sends_nothing_but_rubbish_is_given_up() -> None:
    async def platform(peer: Peer) -> None:
        for _ in range(600):
            await peer.text("rubbish")
            await peer.send(frame(BINARY, b"rubbish", key=KEY))

    outcome = face(platform)
    assert outcome.reason is EndReason.WIRE_ERROR
    assert sum(outcome.refused.values()) == 1001
    assert outcome.peer.close_code == 1002
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize(
    "flood",
    [frame(PONG, b"", key=KEY) * 500, frame(TEXT, b"", key=KEY) * 500, b"\0" * 4000, b"\xff" * 4000],
    ids=["control frames", "empty messages", "zeros", "ones"],
)
def test_one_that_goes_on_sending_after_it_was_refused_is_hung_up_on(flood: bytes) -> None:
    sent = 0

    async def platform(peer: Peer) -> None:
        nonlocal sent
        await trio.sleep(0.1)
        await peer.send(frame(TEXT, b"{}"))
        with pytest.raises(OSError):  # noqa: PT012 - sooner or later
            while True:
                await peer.send(flood)
                sent += len(flood)

    outcome = face(platform, reads=False)
    assert outcome.reason is EndReason.WIRE_ERROR
    assert sent < 2 << 20
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("code", [None, 1000, 1001, 1011, 4000])
def test_a_close_ends_the_line_as_the_platforms_wish(code: int | None) -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.close(code)

    outcome = face(platform)
    assert outcome.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.peer.close_code == (code or 1000)
    assert_nobody_else_noticed(outcome)


def test_a_stop_ends_the_line_before_its_close_does() -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.text({"event": "stop", "streamId": STREAM})
        await peer.text(digit("9"))

    outcome = face(platform)
    assert outcome.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.digits == ""
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("half", [b"", frame(TEXT, says_length=500, key=KEY) + b"xxx", b"\x81"])
def test_a_platform_that_vanishes_ends_the_line_and_settles_what_was_open(half: bytes) -> None:
    marks: list[MarkOutcome] = []
    ends: list[str] = []

    async def bot(line: Line) -> None:
        line.speak(ToneSource(450).take(16000), sample_rate_hz=8000)
        mark = line.checkpoint("open")
        async for _ in line.listen():
            pass
        ends.append("listening")
        marks.append(await mark.wait())
        async for _ in line.digits():
            pass
        ends.append("digits")

    async def platform(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.send(half)
        peer.link.close()

    outcome = face(platform, bot=bot)
    assert outcome.reason is EndReason.PEER_VANISHED
    assert outcome.ended_at == 0.5
    assert [mark.outcome for mark in marks] == [MarkFate.LOST]
    assert ends == ["listening", "digits"]
    assert_nobody_else_noticed(outcome)


def test_a_platform_that_never_reads_is_given_up_and_what_waits_is_bounded() -> None:
    refused: list[float] = []

    async def bot(line: Line) -> None:
        tone = ToneSource(450)
        while not line.ended:
            try:
                line.speak(AudioChunk(tone.take(800), 8000, 0, "outbound"))
            except PlayoutFull:
                refused.append(trio.current_time())
            await trio.sleep(0.02)

    outcome = face(None, bot=bot, seconds=25, reads=False, config=LineConfig(queue_s=5))
    assert outcome.reason is EndReason.PEER_STALLED
    assert outcome.line is not None
    assert outcome.line.statistics().queued_ms == 0
    assert refused, "speaking faster than it is heard meets a bound"
    assert_nobody_else_noticed(outcome, 25)


def test_a_platform_that_says_nothing_is_pinged_then_given_up() -> None:
    outcome = face(None, seconds=33, pongs=False)
    assert outcome.reason is EndReason.PEER_VANISHED
    assert [at for one, at in zip(outcome.peer.frames, outcome.peer.arrived, strict=True) if one.opcode == PING] == [10]
    assert 30 <= outcome.ended_at <= 31.5
    assert outcome.record is not None
    assert outcome.record.statistics.pings_sent == 1
    assert_nobody_else_noticed(outcome, 33)


def test_a_platform_that_answers_pings_and_nothing_else_is_there() -> None:
    outcome = face(None, seconds=33)
    assert outcome.ended_at == 33
    assert outcome.record is not None
    assert outcome.record.statistics.pings_sent == 3
    assert_nobody_else_noticed(outcome, 33)


def test_a_platform_that_never_confirms_a_checkpoint_cannot_fill_memory() -> None:
    made: list[Checkpoint] = []

    async def bot(line: Line) -> None:
        for n in range(6000):
            made.append(line.checkpoint(f"{n}"))
            if n % 200 == 199:
                await trio.sleep(0.02)
        await line.wait_ended()

    outcome = face(None, bot=bot)
    assert outcome.reason is EndReason.PEER_VANISHED
    outcomes = [mark.outcome for mark in made]
    assert all(one is not None and one.outcome is MarkFate.LOST for one in outcomes)
    assert len(outcome.peer.named("checkpoint")) <= 4096
    assert_nobody_else_noticed(outcome)


def test_a_platform_that_never_confirms_a_clear_is_cleared_all_the_same() -> None:
    async def bot(line: Line) -> None:
        for _ in range(1000):
            await line.clear()
        line.speak(ToneSource(450).take(160), sample_rate_hz=8000)
        await line.wait_ended()

    outcome = face(None, bot=bot)
    assert len(outcome.peer.named("clearAudio")) == 1000
    assert len(outcome.peer.named("playAudio")) == 1
    assert_nobody_else_noticed(outcome)


def test_audio_faster_than_any_call_is_dropped_oldest_first_and_counted() -> None:
    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        for _ in range(100):
            await peer.text(audio(1000))

    outcome = face(platform)
    assert outcome.record is not None
    statistics = outcome.record.statistics
    assert statistics.received_ms == 100_000
    assert outcome.samples // 8 + statistics.listener_dropped_ms == 100_000
    assert outcome.samples <= 8 * 20_000
    assert_nobody_else_noticed(outcome)


def test_digits_without_end_are_kept_to_a_bound() -> None:
    digits: list[str] = []

    async def bot(line: Line) -> None:
        await trio.sleep(1)
        kept = line.digits()
        with trio.move_on_after(0.5):
            async for one in kept:
                digits.append(one)  # noqa: PERF401 - what had come when time was up counts
        await line.wait_ended()

    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        for n in range(10_000):
            await peer.text(digit(str(n % 10)))

    outcome = face(platform, bot=bot)
    assert len(digits) == 256
    assert digits[-1] == "9"
    assert_nobody_else_noticed(outcome)


def test_a_policy_that_raises_ends_its_line_and_no_other() -> None:
    def policy(chunk: AudioChunk) -> bool:
        raise RuntimeError("the user's own")

    async def bot(line: Line) -> None:
        line.barge_in(policy)
        await line.wait_ended()

    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        await peer.text(audio(100))

    outcome = face(platform, bot=bot)
    assert outcome.reason is EndReason.POLICY_FAILED
    assert outcome.record is not None
    assert outcome.record.cause == "RuntimeError"
    assert outcome.peer.close_code == 1011
    assert_nobody_else_noticed(outcome)


def test_what_raises_while_a_message_is_obeyed_ends_its_line_and_no_other() -> None:
    async def bot(line: Line) -> None:
        line._dialect.receive = lambda _: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        await line.wait_ended()

    async def platform(peer: Peer) -> None:
        await trio.sleep(0.1)
        await peer.text(digit("5"))

    outcome = face(platform, bot=bot)
    assert outcome.reason is EndReason.INTERNAL_ERROR
    assert outcome.peer.close_code == 1011
    assert_nobody_else_noticed(outcome)
