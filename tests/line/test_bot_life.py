"""The life of a bot and its line: how each ends, what the platform is told, and the doors a line is opened by."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
import trio_websocket

from support.errors import Errors
from support.peer import accept, connect
from support.platform import ADDRESS, CALL_ID, STREAM_ID, Platform, instant, media_message, open_line, start_message
from support.virtual import run_virtually, speech, virtual_engine
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, LocalWireError, NotOnThisWire, RemoteWireError
from talkpath.line import Line, LineConfig, LineRecord, ServeConfig, connect_line, line_on, serve_memory_lines
from talkpath.records import EndReason, Outcome
from talkpath.transport.memory import listen_memory
from talkpath.wire.plivo import PlivoDialect

Bot = Callable[[Line], Awaitable[None]]


@asynccontextmanager
async def calling(bot: Bot, line: LineConfig | None = None) -> AsyncIterator[tuple[Platform, list[LineRecord]]]:
    """Hold a platform's end of a line that `bot` was given by a server, and the server's records."""
    records: list[LineRecord] = []
    config = ServeConfig(pool_bytes=1 << 22, line=line or LineConfig(), on_ended=records.append)
    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_memory_lines, bot, "bot", config=config))
            peer = connect("bot")
            await peer.upgrade_as_client("/agent?lang=en")
            await peer.text(start_message())
            platform = Platform(peer, 8000)
            nursery.start_soon(platform.obey)
            yield platform, records
            nursery.cancel_scope.cancel()


async def ends(records: list[LineRecord]) -> float:
    """Wait for the first record; return when it came."""
    while not records:  # noqa: ASYNC110 - the server tells nobody
        await trio.sleep(0.001)
    return trio.current_time()


# A bot that returns, raises, or is outlived ---------------------------------------------------------------------------


async def test_when_a_bot_returns_what_it_said_is_heard_and_then_the_line_hangs_up(autojump_clock: Any) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(12_000), sample_rate_hz=8000)

    async with calling(bot) as (platform, records):
        began = trio.current_time()
        assert await ends(records) - began == pytest.approx(1.5, abs=0.01)
        assert np.array_equal(platform.heard(), speech(12_000))
        assert platform.close_code == 1000
        assert records[0].reason is EndReason.APPLICATION_HUNG_UP
        assert records[0].cause == ""
        assert records[0].duration_ms == pytest.approx(1500, abs=2)
        assert records[0].info.path == "/agent?lang=en"


async def test_a_bot_that_says_nothing_hangs_up_at_once(autojump_clock: Any) -> None:
    async def bot(line: Line) -> None:
        return

    async with calling(bot) as (platform, records):
        began = trio.current_time()
        assert await ends(records) - began < 0.01
        assert platform.messages == []
        assert platform.close_code == 1000


async def test_what_a_bot_leaves_behind_is_drained_for_so_long_and_no_longer(autojump_clock: Any) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(400_000), sample_rate_hz=8000)

    async with calling(bot, LineConfig(drain_s=3)) as (platform, records):
        began = trio.current_time()
        assert await ends(records) - began == pytest.approx(3, abs=0.01)
        assert platform.close_code == 1000


async def test_when_a_bot_raises_what_it_said_is_cleared_and_the_line_closed(
    autojump_clock: Any, errors: Errors
) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(80_000), sample_rate_hz=8000)
        await trio.sleep(0.5)
        raise ZeroDivisionError("secret words")

    async with calling(bot) as (platform, records):
        began = trio.current_time()
        assert await ends(records) - began == pytest.approx(0.5, abs=0.01)
        assert len(platform.heard()) == pytest.approx(4000, abs=8)
        assert platform.messages[-1] == {"event": "clearAudio", "streamId": STREAM_ID}
        assert platform.close_code == 1011
        assert (records[0].reason, records[0].cause) == (EndReason.APPLICATION_FAILED, "ZeroDivisionError")
    assert errors.seen == [f"the bot on line {STREAM_ID} raised ZeroDivisionError"]


async def test_when_the_line_ends_first_the_bot_has_a_while_to_finish(autojump_clock: Any) -> None:
    seen: list[str] = []

    async def bot(line: Line) -> None:
        mark = line.checkpoint("never reached")
        line.speak(speech(80_000), sample_rate_hz=8000)
        last = line.checkpoint("at the end")
        async for _ in line.listen():
            seen.append("chunk")  # noqa: PERF401 - what came before is in there too
        seen.append("listening ended")
        seen.append((await last.wait()).outcome)
        assert (await mark.wait()).outcome is Outcome.PLAYED
        await trio.sleep(1)
        seen.append("worked on")
        try:
            await trio.sleep(60)
        finally:
            seen.append(f"cancelled after {trio.current_time() - ended_at:.3f} s")

    async with calling(bot, LineConfig(linger_s=3)) as (platform, records):
        await platform.say_paced(speech(320))
        await platform.peer.close(1000)
        ended_at = trio.current_time()
        await ends(records)
        assert seen == ["chunk", "chunk", "listening ended", "LOST", "worked on", "cancelled after 3.000 s"]
        assert records[0].reason is EndReason.PLATFORM_HUNG_UP


async def test_an_operation_after_the_end_may_leave_the_bot_without_blame(autojump_clock: Any, errors: Errors) -> None:
    async def bot(line: Line) -> None:
        await line.wait_ended()
        line.speak(speech(160), sample_rate_hz=8000)

    async with calling(bot) as (platform, records):
        await platform.peer.close(1000)
        await ends(records)
        assert (records[0].reason, records[0].cause) == (EndReason.PLATFORM_HUNG_UP, "")
    assert errors.seen == []


async def test_call_ended_while_the_line_lives_is_a_failure_like_any_other(autojump_clock: Any, errors: Errors) -> None:
    async def bot(line: Line) -> None:
        raise CallEnded(EndReason.STOPPED)  # of another line, say

    async with calling(bot) as (platform, records):
        await ends(records)
        assert records[0].reason is EndReason.APPLICATION_FAILED
        assert platform.close_code == 1011


async def test_a_link_that_breaks_is_a_peer_that_vanished(autojump_clock: Any) -> None:
    reasons: list[EndReason] = []

    async def bot(line: Line) -> None:
        reasons.append(await line.wait_ended())

    async with calling(bot) as (platform, records):
        await instant()
        platform.peer.link.close()
        await ends(records)
        assert reasons == [EndReason.PEER_VANISHED]


async def test_a_platform_that_is_silent_is_asked_and_then_given_up(autojump_clock: Any) -> None:
    async with open_line(obeys=False) as (line, _):
        began = trio.current_time()
        assert await line.wait_ended() is EndReason.PEER_VANISHED
        assert trio.current_time() - began == pytest.approx(30, abs=1)
        assert line.statistics().pings_sent == 1
    async with open_line() as (line, _):
        await trio.sleep(120)
        assert not line.ended
        assert line.statistics().pings_sent >= 10


# Operations ----------------------------------------------------------------------------------------------------------


async def test_hanging_up_drops_what_is_queued_and_returns_when_nothing_is_left(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        line.speak(speech(80_000), sample_rate_hz=8000)
        mark = line.checkpoint("end")
        await trio.sleep(0.2)
        await line.hang_up()
        assert line.ended
        assert line.record is not None
        assert line.record.reason is EndReason.APPLICATION_HUNG_UP
        assert (await mark.wait()).outcome is Outcome.LOST
        assert platform.close_code == 1000
        await line.hang_up()
        for refuse in (line.clear, partial(line.send_digits, "1"), partial(line.play, speech(1), sample_rate_hz=8000)):
            with pytest.raises(CallEnded) as caught:
                await refuse()
            assert caught.value.reason is EndReason.APPLICATION_HUNG_UP


async def test_a_cancelled_hang_up_ends_the_line_all_the_same(autojump_clock: Any) -> None:
    async with open_line() as (line, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await line.hang_up()
        assert line.end_reason is EndReason.APPLICATION_HUNG_UP


async def test_digits_go_both_ways(autojump_clock: Any) -> None:
    pressed: list[str] = []

    async def bot(line: Line) -> None:
        async for digit in line.digits():
            pressed.append(digit)
            await line.send_digits(f"{digit}#")

    async with calling(bot) as (platform, _):
        for digit in "19*":
            await platform.press(digit)
            await instant()
        assert pressed == list("19*")
        assert [message["dtmf"] for message in platform.named("sendDTMF")] == ["1#", "9#", "*#"]


@pytest.mark.parametrize("digits", ["", "12w", "1 2", "9" * 65])
async def test_digits_that_the_wire_does_not_know_are_refused_where_they_are_sent(
    digits: str, autojump_clock: Any
) -> None:
    async with open_line() as (line, platform):
        with pytest.raises(LocalWireError):
            await line.send_digits(digits)
        await instant()
        assert platform.messages == []
        assert not line.ended


async def test_what_the_wire_cannot_say_raises_and_harms_nothing(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(dialect: PlivoDialect, command: object) -> Any:
        raise NotOnThisWire("plivo", "digits", "a call to its REST interface")

    async with open_line() as (line, platform):
        with monkeypatch.context() as patch:
            patch.setattr(PlivoDialect, "_send_as_application", send)
            with pytest.raises(NotOnThisWire, match="plivo wire has no digits"):
                await line.send_digits("1")
        await line.clear()
        await instant()
        assert [message["event"] for message in platform.messages] == ["clearAudio"]


async def test_whatever_the_platform_writes_is_counted_and_harmless(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        for message in (
            {"event": "surprise"},
            {"event": "+15550001111"},
            {"event": "dtmf", "dtmf": {"digit": "x"}},
            start_message(),
            b"{",
            b"[]",
        ):
            await platform.peer.text(message)
        await platform.say(speech(160))
        await instant()
        statistics = line.statistics()
        assert statistics.received_ms == 20
        assert statistics.refused == {
            "unknown:surprise": 1,
            "unknown": 1,
            "bad_value": 1,
            "bad_state": 1,
            "bad_json": 1,
            "bad_type": 1,
        }


async def within(scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await work()


# Doors ---------------------------------------------------------------------------------------------------------------


async def test_a_line_is_dialled_with_its_headers_and_knows_who_calls(autojump_clock: Any) -> None:
    listener = listen_memory(ADDRESS)
    started = start_message(16000)
    started["extra_headers"] = '{"tier":"gold"}'
    async with trio.open_nursery() as nursery:
        heads: list[str] = []

        async def serve() -> None:
            while True:
                peer = await accept(listener)
                heads.append(peer.head)
                await peer.text(started)
                await peer.read_all()

        nursery.start_soon(serve)
        headers = {"Authorization": "Bearer abc"}
        async with connect_line(f"memory://{ADDRESS}/calls?x=1", wire="plivo", headers=headers) as line:
            info = line.info
            assert (info.wire, info.call_id, info.stream_id) == ("plivo", CALL_ID, STREAM_ID)
            assert (info.tracks, info.codec, info.sample_rate_hz) == (("inbound",), "L16", 16000)
            assert dict(info.custom_parameters) == {"tier": "gold"}
            assert info.path == "/calls?x=1"
        assert line.end_reason is EndReason.BLOCK_LEFT
        assert heads[0].startswith("GET /calls?x=1 HTTP/1.1\r\n")
        assert "Authorization: Bearer abc" in heads[0].split("\r\n")
        with pytest.raises(ValueError, match="my own"):
            async with connect_line(f"memory://{ADDRESS}"):
                raise ValueError("my own")
        listener.close()
        nursery.cancel_scope.cancel()


async def test_dialling_what_is_not_there_does_not_answer_or_speaks_no_wire(autojump_clock: Any) -> None:
    with pytest.raises(OSError, match="nobody listens"):
        async with connect_line("memory://nowhere"):
            pytest.fail("there is no line")
    listener = listen_memory(ADDRESS)
    async with trio.open_nursery() as nursery:

        async def answer(*messages: object) -> None:
            peer = await accept(listener)
            for message in messages:
                await peer.text(message)
            await peer.read_all()

        nursery.start_soon(answer)
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            async with connect_line(f"memory://{ADDRESS}"):
                pytest.fail("there is no line")
        assert trio.current_time() == began + 10
        nursery.start_soon(answer, {"event": "media", "media": {"payload": "AAAA"}})
        with pytest.raises(RemoteWireError, match="no known wire opens like this"):
            async with connect_line(f"memory://{ADDRESS}"):
                pytest.fail("there is no line")
    listener.close()


@pytest.mark.smoke
async def test_a_line_on_somebody_elses_websocket() -> None:
    """Its audio is as live as on any other; closing the WebSocket stays with whoever opened it."""
    said = speech(1600)
    facts: dict[str, Any] = {}
    served = trio.Event()

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept()
        async with line_on(websocket) as line:
            facts["info"] = line.info
            listener = line.listen(chunk_ms=200)
            facts["heard"] = (await anext(listener)).samples
            await line.clear()
            facts["played"] = await line.play(said, sample_rate_hz=8000)
        facts["still_open"] = websocket.closed is None
        await websocket.send_message("mine again")
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await websocket.get_message()
        served.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None))
            async with trio_websocket.open_websocket("127.0.0.1", server.port, "/x?y", use_ssl=False) as client:
                await client.send_message(json.dumps(start_message()))
                events: list[str] = []

                async def speak() -> None:
                    while True:
                        await client.send_message(json.dumps(media_message(said[:160])))
                        await trio.sleep(0.02)

                talking = trio.CancelScope()
                nursery.start_soon(within, talking, speak)
                while True:
                    text = await client.get_message()
                    if text == "mine again":
                        talking.cancel()
                        break
                    message = json.loads(text)
                    events.append(message["event"])
                    if message["event"] == "checkpoint":
                        answer = {"event": "playedStream", "streamId": STREAM_ID, "name": message["name"]}
                        await client.send_message(json.dumps(answer))
            await served.wait()
            nursery.cancel_scope.cancel()
    assert facts["info"].path == "/x?y"
    assert np.array_equal(facts["heard"], np.tile(said[:160], 10))
    assert facts["played"].reason is Outcome.PLAYED
    assert facts["still_open"]
    assert events[0] == "clearAudio"
    assert events[-1] == "checkpoint"
    assert set(events[1:-1]) == {"playAudio"}


async def test_a_line_on_a_websocket_ends_with_it(autojump_clock: Any) -> None:
    """In memory: what the library offers is a connection on any stream."""
    ours, theirs = trio.testing.memory_stream_pair()
    reasons: list[EndReason] = []
    async with trio.open_nursery() as nursery:

        async def server() -> None:
            request = await trio_websocket.wrap_server_stream(nursery, theirs)
            websocket = await request.accept()
            async with line_on(websocket) as line:
                reasons.append(await line.wait_ended())

        nursery.start_soon(server)
        client = await trio_websocket.wrap_client_stream(nursery, ours, "bot", "/")
        await client.send_message(json.dumps(start_message()))
        await trio.sleep(1)
        await client.aclose(1000)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert reasons == [EndReason.PLATFORM_HUNG_UP]


# Repeatable ----------------------------------------------------------------------------------------------------------


def test_two_engines_and_a_server_share_one_clock_and_every_run_is_the_same() -> None:
    """Whatever the order in which Trio runs the tasks, the same things happen at the same instants, in one order."""

    async def bot(line: Line) -> None:
        async def listen(rate_hz: int) -> None:
            async for chunk in line.listen(sample_rate_hz=rate_hz):
                if line.ended:
                    break
                line.speak(chunk)
                if chunk.at_sample % (rate_hz // 10) == 0:
                    line.checkpoint(f"{chunk.at_sample}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, 16000)
            await trio.sleep(0.1013)  # Off the grid: what two tasks of a bot do at one instant is the bot's to order.
            await line.clear()
            await line.send_digits("5")
            async for _ in line.digits():
                await trio.sleep(0.0013)
                await line.hang_up()
                break
            nursery.cancel_scope.cancel()

    async def main() -> tuple[list[Any], list[bytes]]:
        journal: list[Any] = []
        legs = [MemoryLeg() for _ in range(4)]
        async with virtual_engine(seed=1) as one, virtual_engine(seed=2) as two, trio.open_nursery() as nursery:
            assert one.clock is two.clock
            assert one.driver is two.driver
            one.driver.journal = lambda *facts: journal.append(facts)
            serve = partial(serve_memory_lines, bot, "bot", entropy=random.Random(3).randbytes)
            url = await nursery.start(serve)

            async def call(index: int) -> None:
                await trio.sleep(0.007 * index)
                async with (one, two)[index % 2].open_call(legs[index]) as call:
                    await call.start_stream(StreamSpec(url=url, bidirectional=True))
                    legs[index].say(speech(4000, seed=index))
                    await trio.sleep(0.3)
                    legs[index].press("1")
                    await trio.sleep(0.2)

            async with trio.open_nursery() as calls:
                for index in range(4):
                    calls.start_soon(call, index)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return journal, [leg.heard().tobytes() for leg in legs]

    runs = [run_virtually(main, seed=seed) for seed in range(4)]
    assert len(runs[0][0]) > 30
    assert all(np.frombuffer(heard, np.int16).any() for heard in runs[0][1])
    for journal, heard in runs[1:]:
        assert journal == runs[0][0]
        assert heard == runs[0][1]
