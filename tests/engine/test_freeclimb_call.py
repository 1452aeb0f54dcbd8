"""A call on FreeClimb's wire from end to end: our engine with our lines, and with an application made by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from support.calls import engine, in_virtual_time, pool_is_whole
from support.freeclimb_app import HandMade, Script, hand_made
from talkpath.engine import Call, EngineConfig, MemoryLeg, RtpLeg, StreamSpec, open_engine
from talkpath.errors import NotOnThisWire
from talkpath.line import Line, LineConfig, ServeConfig, serve_lines, serve_memory_lines
from talkpath.records import CallRecord, EndReason, Outcome
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.wire.freeclimb import FreeClimbOptions

pytest.importorskip("grpc_tools")
TONE = ToneSource(450).take(16_000)
CODECS = ("PCMU", "L16@8000h", "L16@16000h")


async def place(
    url: str, during: Callable[[Call, MemoryLeg], Awaitable[None]], seconds: float = 3.0, **options: Any
) -> tuple[CallRecord, MemoryLeg]:
    leg = MemoryLeg()
    async with engine() as which:
        async with which.open_call(leg) as call:
            spec = StreamSpec(**{"url": url, "wire": "freeclimb", "bidirectional": True, "ends_call": True, **options})
            await call.start_stream(spec)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(during, call, leg)
                    await call.wait_ended()
                    nursery.cancel_scope.cancel()
        assert pool_is_whole(which)
    assert call.record is not None
    return call.record, leg


async def nothing(call: Call, leg: MemoryLeg) -> None:
    """The caller is silent."""


def call_a_bot(
    bot: Callable[[Line], Awaitable[None]],
    during: Callable[[Call, MemoryLeg], Awaitable[None]] = nothing,
    config: ServeConfig | None = None,
    **options: Any,
) -> tuple[CallRecord, MemoryLeg]:
    async def run() -> tuple[CallRecord, MemoryLeg]:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                lambda task_status: serve_memory_lines(bot, "bot", config=config, task_status=task_status)
            )
            came = await place(url, during, **options)
            nursery.cancel_scope.cancel()
        return came

    return in_virtual_time(run)


def call_by_hand(
    script: Script,
    during: Callable[[Call, MemoryLeg], Awaitable[None]] = nothing,
    *,
    reads: bool = True,
    **options: Any,
) -> tuple[CallRecord, MemoryLeg, HandMade]:
    async def run() -> tuple[CallRecord, MemoryLeg, HandMade]:
        async with hand_made(script, reads=reads) as (url, came):
            record, leg = await place(url, during, **options)
            return record, leg, came[0]

    return in_virtual_time(run)


# Our line ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_a_bot_does_all_that_a_line_can(codec: str) -> None:
    outcomes: list[tuple[str, Outcome]] = []
    pressed: list[str] = []
    lines: list[Line] = []

    async def bot(line: Line) -> None:
        lines.append(line)
        played = await line.play(TONE[:4000], sample_rate_hz=8000)
        outcomes.append(("play", played.reason))
        line.speak(TONE[:1600], sample_rate_hz=8000)
        first = line.checkpoint("first")
        second = line.checkpoint("second")
        line.speak(TONE, sample_rate_hz=8000)
        cut = line.checkpoint("cut")
        outcomes.append(("first", (await first.wait()).outcome))
        outcomes.append(("second", (await second.wait()).outcome))
        await line.clear()
        outcomes.append(("cut", (await cut.wait()).outcome))
        with pytest.raises(NotOnThisWire):
            await line.pause()
        await line.send_digits("12#")
        pressed.append(await line.digits().__anext__())
        played = await line.play(TONE[:1600], sample_rate_hz=8000)
        outcomes.append(("after", played.reason))
        await line.hang_up()

    async def press(call: Call, leg: MemoryLeg) -> None:
        leg.say(TONE)
        await trio.sleep(1)
        leg.press("7")

    record, leg = call_a_bot(bot, press, codec=codec, custom_parameters={"tier": "gold"})
    assert outcomes == [
        ("play", Outcome.PLAYED),
        ("first", Outcome.PLAYED),
        ("second", Outcome.PLAYED),
        ("cut", Outcome.CLEARED),
        ("after", Outcome.PLAYED),
    ]
    assert (pressed, leg.digits()) == (["7"], ["1", "2", "#"])
    (stream,) = record.streams
    assert (stream.reason, stream.refused, record.reason) == (
        EndReason.APPLICATION_HUNG_UP,
        {},
        EndReason.APPLICATION_HUNG_UP,
    )
    assert [mark.outcome for mark in stream.marks].count(Outcome.CLEARED) == 1
    (line,) = lines
    assert line.info.wire == "freeclimb"
    assert line.info.call_id == record.call_id
    assert line.info.custom_parameters == {"tier": "gold"}
    assert line.record is not None
    assert line.record.statistics.refused == {}
    assert line.record.statistics.received_ms >= 1000
    heard = find_tones(leg.heard(), 8000, [450])
    assert abs(heard[0].to_sample - heard[0].from_sample - 5600 - 0) < 1200


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_echoed_is_what_was_said(codec: str) -> None:
    async def bot(line: Line) -> None:
        async for chunk in line.listen():
            line.speak(chunk)

    async def say(call: Call, leg: MemoryLeg) -> None:
        leg.say(TONE[:8000])

    _, leg = call_a_bot(
        bot,
        say,
        codec=codec,
        options=FreeClimbOptions(big_endian=True),
        seconds=2,
        config=ServeConfig(options=FreeClimbOptions(big_endian=True)),
    )
    (span,) = find_tones(leg.heard(), 8000, [450])
    assert abs(span.to_sample - span.from_sample - 8000) <= 400


@pytest.mark.parametrize(
    ("hang_up", "line_reason"),
    [
        (lambda call, leg: leg.hang_up(), EndReason.CALLER_HUNG_UP),
        (lambda call, leg: call.hang_up(), EndReason.PLATFORM_HUNG_UP),
        (lambda call, leg: call.end(EndReason.INTERNAL_ERROR), EndReason.PLATFORM_FAILED),
    ],
)
def test_the_line_learns_who_hung_up(hang_up: Callable[[Call, MemoryLeg], None], line_reason: EndReason) -> None:
    lines: list[Line] = []

    async def bot(line: Line) -> None:
        lines.append(line)
        await line.wait_ended()

    async def end(call: Call, leg: MemoryLeg) -> None:
        await trio.sleep(0.5)
        hang_up(call, leg)

    call_a_bot(bot, end)
    (line,) = lines
    assert line.end_reason is line_reason


def test_a_hundred_calls_end_with_nothing_left() -> None:
    async def bot(line: Line) -> None:
        assert (await line.play(TONE[:800], sample_rate_hz=8000)).reason is Outcome.PLAYED
        await line.hang_up()

    async def run() -> list[EndReason]:
        reasons: list[EndReason] = []

        async def one(which: Any, url: str) -> None:
            async with which.open_call(MemoryLeg()) as call:
                await call.start_stream(StreamSpec(url=url, wire="freeclimb", bidirectional=True, ends_call=True))
                reasons.append((await call.wait_ended()).reason)

        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_memory_lines, bot, "bot")
            async with engine() as which:
                async with trio.open_nursery() as calls:
                    for _ in range(100):
                        calls.start_soon(one, which, url)
                assert pool_is_whole(which)
            nursery.cancel_scope.cancel()
        return reasons

    assert in_virtual_time(run) == [EndReason.APPLICATION_HUNG_UP] * 100


# An application made by hand ---------------------------------------------------------------------------------------


MULAW_20 = b"\x7f" * 160


def test_the_platforms_messages_in_order() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_audio_data", 3)
        for number in range(5):
            await app.send(audio_data={"id": "a", "audio_data": MULAW_20, "sequence_num": number})
        await app.send(audio_data={"id": "b", "audio_data": MULAW_20, "last_message": True})
        await app.wait_for("notify_playback_completed_data", 2)
        await app.send(audio_data={"id": "c", "audio_data": MULAW_20 * 50, "last_message": True})
        await trio.sleep(0.2)
        await app.send(clear_audio_buffer={"id": "now"})
        await app.wait_for("notify_audio_cleared_data")
        await app.wait_for("notify_dtmf_received_end_data")
        await app.send(terminate_call={})
        await trio.sleep(1)

    async def press(call: Call, leg: MemoryLeg) -> None:
        await trio.sleep(1)
        leg.press("9")

    record, _, app = call_by_hand(script, press, custom_parameters={"a": "b"})
    assert app.in_order() == [
        "call_started",
        "playback_started a",
        "playback_completed a",
        "playback_started b",
        "playback_completed b",
        "playback_started c",
        "audio_cleared now",
        "dtmf_received_start",
        "dtmf_received_end",
        "call_ended",
    ]
    begin = app.all("notify_call_started")[0]
    assert (begin.call_id, list(begin.metadata), begin.content_type) == (
        record.call_id,
        ["a=b"],
        "audio/mulaw;rate=8000",
    )
    audio = app.all("notify_audio_data")
    numbers = [one.sequence_num for one in audio]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert {len(one.audio_data) for one in audio} == {160}
    moments = [one.start_tstamp.ToNanoseconds() for one in audio]
    assert {b - a for a, b in itertools.pairwise(moments)} == {20_000_000}
    assert all(one.end_tstamp.ToNanoseconds() - one.start_tstamp.ToNanoseconds() == 20_000_000 for one in audio)
    started, completed = app.all("notify_playback_started_data"), app.all("notify_playback_completed_data")
    assert completed[0].timestamp.ToNanoseconds() - started[0].timestamp.ToNanoseconds() == 100_000_000
    assert started[1].timestamp == completed[0].timestamp
    assert app.all("notify_call_ended")[0].reason_code == 1
    assert record.reason is EndReason.APPLICATION_HUNG_UP


def test_what_is_refused_is_said_and_the_stream_lives() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_call_started")
        await app.send(audio_data={"id": "a", "audio_data": b"\0\0", "content_type": "audio/l16;rate=16000"})
        await app.send(audio_data={"id": "a", "audio_data": b"\0\0", "content_type": "audio/mpeg"})
        await app.carriage.send_message(b"\xff\xff\xff")
        await app.send(dtmf_data={"id": "d", "dtmf_digits": "hello"})
        await app.wait_for("notify_error", 4)
        await app.send(audio_data={"id": "a", "audio_data": MULAW_20, "last_message": True})
        await app.wait_for("notify_playback_completed_data")
        await app.send(terminate_call={})

    record, _, app = call_by_hand(script)
    said = [error.error_message for error in app.all("notify_error")]
    assert said == ["other_format", "unknown_format", "bad_protobuf", "bad_value"]
    assert record.streams[0].refused == dict.fromkeys(said, 1)
    assert record.reason is EndReason.APPLICATION_HUNG_UP


def test_an_overfull_buffer_is_said_and_its_depth_can_be_asked() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_call_started")
        await app.send(query_buffer={"buffer_type": 1})
        await app.send(audio_data={"id": "a", "audio_data": MULAW_20 * 25})
        await app.send(query_buffer={"buffer_type": 1})
        await app.wait_for("notify_buffer", 2)
        for _ in range(5):
            await app.send(audio_data={"id": "a", "audio_data": MULAW_20 * 25})
        await app.wait_for("notify_error")
        await app.send(query_buffer={"buffer_type": 1})
        await app.wait_for("notify_buffer", 3)

    _, _, app = call_by_hand(script, playout_s=1.0)
    depths = [(one.buffer_type, one.depth, one.buffer_size) for one in app.all("notify_buffer")]
    assert depths[:2] == [(1, 0, 50), (1, 25, 50)]
    assert depths[2][1] > 45
    assert app.all("notify_error")[0].error_message == "buffer_overflow"


def test_digits_are_sent_for_as_long_as_asked_and_reported() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_call_started")
        await app.send(dtmf_data={"id": "d", "dtmf_digits": "12", "press_duration_ms": 300, "break_duration_ms": 200})
        await app.send(query_buffer={"buffer_type": 0})
        await app.wait_for("notify_dtmf_play_completed_data")
        await app.send(query_buffer={"buffer_type": 0})
        await app.wait_for("notify_buffer", 2)
        await app.send(terminate_call={})

    _, leg, app = call_by_hand(script)
    begun, sent = app.all("notify_dtmf_play_started_data"), app.all("notify_dtmf_play_completed_data")
    assert [one.id for one in (*begun, *sent)] == ["d", "d"]
    assert sent[0].timestamp.ToMilliseconds() - begun[0].timestamp.ToMilliseconds() == 1000
    assert [(one.buffer_type, one.depth, one.buffer_size) for one in app.all("notify_buffer")] == [
        (0, 2, 64),
        (0, 0, 64),
    ]
    assert leg.digits() == ["1", "2"]


def test_too_many_pending_segments_are_refused_and_counted() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_call_started")
        for number in range(300):
            await app.send(audio_data={"id": f"s{number}", "audio_data": b"\x7f" * 8, "last_message": True})
        await app.wait_for("notify_playback_completed_data", 200)
        await app.send(terminate_call={})
        await trio.sleep(0.1)

    record, _, app = call_by_hand(script)
    assert record.streams[0].refused["too_many_marks"] > 0
    completed = [one.id for one in app.all("notify_playback_completed_data")]
    begun = [one.id for one in app.all("notify_playback_started_data")]
    assert len(set(completed)) == len(completed)
    assert len(set(begun)) == len(begun)
    assert completed == [ident for ident in begun if ident in set(completed)]


def test_a_one_way_stream_takes_no_audio() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_call_started")
        await app.send(audio_data={"id": "a", "audio_data": MULAW_20, "last_message": True})
        await app.wait_for("notify_error", 1)
        await app.send(terminate_call={})

    record, leg, app = call_by_hand(script, bidirectional=False)
    assert app.all("notify_error")[0].error_message == "one_way"
    assert not find_tones(leg.heard(), 8000, [450])
    assert record.streams[0].application_ms == 0


# The application is lost -------------------------------------------------------------------------------------------


async def _vanish(app: HandMade) -> None:
    app.link.close()


async def _reset(app: HandMade) -> None:
    app.carriage.close()


async def _end_with_ok(app: HandMade) -> None:
    from talkpath.wire.grpc import Status

    app.carriage.refuse(Status.OK, "")


async def _fail(app: HandMade) -> None:
    from talkpath.wire.grpc import Status

    app.carriage.refuse(Status.INTERNAL, "a bug")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (_vanish, EndReason.PEER_VANISHED),
        (_reset, EndReason.PEER_VANISHED),
        (_end_with_ok, EndReason.APPLICATION_HUNG_UP),
        (_fail, EndReason.APPLICATION_FAILED),
    ],
)
def test_an_application_that_goes_ends_its_stream(how: Script, reason: EndReason) -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_audio_data", 5)
        await app.send(audio_data={"id": "a", "audio_data": MULAW_20 * 50, "last_message": True})
        await app.wait_for("notify_playback_started_data")
        await how(app)

    record, _, _ = call_by_hand(script)
    (stream,) = record.streams
    assert stream.reason is reason
    assert [(mark.name, mark.outcome) for mark in stream.marks] == [("a", Outcome.LOST)]


def test_a_server_that_drains_keeps_the_calls_it_has() -> None:
    async def script(app: HandMade) -> None:
        await app.wait_for("notify_audio_data", 5)
        app.server.drain()
        await app.wait_for("notify_audio_data", 50)
        await app.send(terminate_call={})

    record, _, app = call_by_hand(script)
    assert record.streams[0].reason is EndReason.APPLICATION_HUNG_UP
    assert len(app.all("notify_audio_data")) >= 50


def test_an_application_that_does_not_read_is_given_up_and_costs_no_memory() -> None:
    async def script(app: HandMade) -> None:
        await trio.sleep_forever()

    record, leg, _ = call_by_hand(script, reads=False, seconds=60)
    (stream,) = record.streams
    assert stream.reason is EndReason.PEER_STALLED
    assert stream.media_dropped > 0
    assert len(leg.heard()) > 8000 * 10


# Over sockets, with every driver ------------------------------------------------------------------------------------


@pytest.mark.smoke
@pytest.mark.parametrize("driver", ["tasks", "pump"])
async def test_over_sockets(driver: Any) -> None:
    outcomes: list[Outcome] = []

    async def bot(line: Line) -> None:
        outcomes.append((await line.play(TONE[:1600], sample_rate_hz=8000)).reason)
        line.speak(TONE, sample_rate_hz=8000)
        cut = line.checkpoint("cut")
        await trio.sleep(0.1)
        await line.clear()
        outcomes.append((await cut.wait()).outcome)
        await line.hang_up()

    with trio.fail_after(20), quiescence():
        async with trio.open_nursery() as nursery:
            config = ServeConfig(line=LineConfig(driver=driver))
            ((host, port),) = await nursery.start(
                lambda task_status: serve_lines(bot, "127.0.0.1", 0, config=config, task_status=task_status)
            )
            leg = RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", 9), codec="PCMU", ptime_ms=20)
            async with (
                open_engine(EngineConfig(driver=driver), entropy=random.Random(1).randbytes) as which,
                which.open_call(leg) as call,
            ):
                await call.start_stream(
                    StreamSpec(url=f"grpc://{host}:{port}", wire="freeclimb", bidirectional=True, ends_call=True)
                )
                record = await call.wait_ended()
            nursery.cancel_scope.cancel()
    assert outcomes == [Outcome.PLAYED, Outcome.CLEARED]
    assert record.reason is EndReason.APPLICATION_HUNG_UP
    assert record.streams[0].application_ms >= 200
