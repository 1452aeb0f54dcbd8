"""The native wire end to end: our line and our platform's end; and each of them against an independent other end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
import trio_websocket

from support.calls import engine, in_virtual_time
from support.frames import BINARY, TEXT, frame
from support.native_peer import Application, Platform
from support.peer import Peer, accept
from talkpath.audio import Samples
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.engine import Call, CallStream, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, NotOnThisWire
from talkpath.line import Line, LineConfig, connect_line, serve_lines, serve_memory_lines
from talkpath.records import EndReason, Outcome, Played
from talkpath.testing import ToneSource
from talkpath.transport.memory import listen_memory

Bot = Callable[[Line], Awaitable[None]]
FRAME = 160


def speech(n_samples: int, seed: int = 3) -> Samples:
    """Audio that survives mu-law as it is, no two frames alike, none of it silence."""
    raw = np.random.default_rng(seed).integers(0, 120, n_samples).astype(np.uint8)
    return pcmu_decode(raw.tobytes())


async def _call(bot: Bot, during: Callable[[Call, CallStream], Awaitable[None]] | None, options: Any) -> Any:
    seconds, wire = options.pop("seconds", 4.0), options.pop("wire", "native")
    leg = MemoryLeg(sample_rate_hz=options.pop("leg_rate_hz", 8000))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial(serve_memory_lines, bot, "bot"))
        async with engine() as which:
            async with which.open_call(leg) as call:
                stream = await call.start_stream(StreamSpec(url=url, wire=wire, bidirectional=True, **options))
                if during is not None:
                    await during(call, stream)
                await trio.sleep_until(seconds)
                heard = leg.heard().copy()
            record = stream.record
        nursery.cancel_scope.cancel()
    assert record is not None
    return heard, record, leg


def place(
    bot: Bot, during: Callable[[Call, CallStream], Awaitable[None]] | None = None, **options: Any
) -> tuple[Samples, Any, MemoryLeg]:
    """One call with a bot on it; what its caller heard, the stream's record, the leg."""
    result: tuple[Samples, Any, MemoryLeg] = in_virtual_time(_call, bot, during, options)
    return result


def stretches(heard: Samples) -> list[tuple[int, int]]:
    """Where the caller heard something: (first sample, samples), frame by frame."""
    loud = [bool(np.any(heard[i : i + FRAME])) for i in range(0, len(heard), FRAME)]
    found: list[tuple[int, int]] = []
    for i, is_loud in enumerate(loud):
        if is_loud and i and loud[i - 1]:
            found[-1] = (found[-1][0], found[-1][1] + FRAME)
        elif is_loud:
            found.append((i * FRAME, FRAME))
    return found


def test_a_pause_holds_every_sample_and_resume_goes_on_with_the_next() -> None:
    said = speech(16000)
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(said, sample_rate_hz=8000)
        end = line.checkpoint("end")
        await trio.sleep(0.5)
        await line.pause()
        assert line.paused
        await line.pause()
        sent = line.statistics().messages_sent
        await trio.sleep(1)
        assert line.statistics().messages_sent == sent, "nothing is sent meanwhile"
        await line.resume()
        assert not line.paused
        outcomes.append((await end.wait(), trio.current_time()))

    heard, record, _ = place(bot)
    (first, before), (second, after) = stretches(heard)
    assert second - (first + before) == 8000, "a second of silence"
    assert before + after == 16000
    both = np.concatenate((heard[first : first + before], heard[second : second + after]))
    assert np.array_equal(both, said)
    ((outcome, when),) = outcomes
    assert outcome.outcome is Outcome.PLAYED
    assert outcome.exact
    assert outcome.at_sample == second + after
    assert abs(when - (second + after) / 8000) <= 0.021
    assert [mark.at_sample for mark in record.marks] == [outcome.at_sample]


def test_a_pause_is_not_an_underrun_and_others_play_on() -> None:
    tone = ToneSource(1050).take(8000)
    counters: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        await trio.sleep(0.2)
        await line.pause()
        await trio.sleep(1.3)
        counters.append(await line.platform_statistics())
        await line.resume()
        await line.drain()
        counters.append(await line.platform_statistics())

    async def during(call: Call, stream: CallStream) -> None:
        await trio.sleep_until(0.3)
        assert await call.play(tone, sample_rate_hz=8000) == Played(8000, Outcome.PLAYED, True)

    heard, _, _ = place(bot, during)
    assert np.array_equal(heard[2400 : 2400 + 8000], tone), "nothing of the line's is mixed in"
    paused, drained = counters
    assert paused["underruns"] == 0
    assert 0 < paused["samples_played"] < 8000
    assert (drained["samples_played"], drained["samples_in"]) == (8000, 8000)
    assert drained["messages_in"] > 0


def test_the_model_stands_still_and_nothing_is_assumed_during_a_long_pause() -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        end = line.checkpoint("end")
        await trio.sleep(0.5)
        await line.pause()
        await trio.sleep(30)
        assert end.outcome is None
        await line.resume()
        await line.drain()
        outcomes.append((await end.wait(), trio.current_time()))

    place(bot, seconds=40.0)
    ((outcome, when),) = outcomes
    assert outcome.outcome is Outcome.PLAYED
    assert 31 <= when < 31.1


def test_a_clear_ends_a_pause_and_the_model_says_how_much_was_heard() -> None:
    played: list[Any] = []

    async def bot(line: Line) -> None:
        async with trio.open_nursery() as nursery:

            async def play() -> None:
                played.append(await line.play(speech(16000), sample_rate_hz=8000))

            nursery.start_soon(play)
            await trio.sleep(0.5)
            await line.pause()
            await trio.sleep(1)
            await line.clear()
            assert not line.paused
        await line.play(speech(1600, seed=9), sample_rate_hz=8000)

    heard, record, _ = place(bot)
    (_, before), (_, after) = stretches(heard)
    assert after == 1600
    assert played[0].reason is Outcome.CLEARED
    assert abs(played[0].samples - before) <= FRAME
    assert record.clears == 1


def test_positions_are_of_the_calls_clock_whatever_rate_the_stream_has() -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        assert (line.info.sample_rate_hz, line.info.clock_rate_hz) == (8000, 16000)
        line.speak(speech(8000), sample_rate_hz=8000)
        outcomes.append(await line.checkpoint("heard").wait())
        line.speak(speech(80000), sample_rate_hz=8000)
        await trio.sleep(1)
        unsent = line.checkpoint("never sent")
        await line.clear()
        outcomes.append(await unsent.wait())

    _, record, _ = place(bot, leg_rate_hz=16000)
    heard, unsent = outcomes
    assert heard.exact
    assert heard.at_sample == record.marks[0].at_sample
    assert 16000 <= heard.at_sample <= 17000
    assert not unsent.exact
    assert abs(unsent.at_sample - 2 * 16000) < 2000


def test_cleared_checkpoints_come_back_with_their_outcome_and_sample() -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        mark = line.checkpoint("never heard")
        await trio.sleep(0.3)
        await line.clear()
        outcomes.append(await mark.wait())

    _, record, _ = place(bot)
    assert [(one.outcome, one.exact) for one in outcomes] == [(Outcome.CLEARED, True)]
    assert outcomes[0].at_sample == record.marks[0].at_sample


def test_digits_go_out_and_a_pause_outlasts_them() -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(4000), sample_rate_hz=8000)
        await trio.sleep(0.2)
        await line.pause()
        await line.send_digits("12")
        await trio.sleep(1.5)
        await line.resume()
        await line.drain()

    heard, record, leg = place(bot)
    assert leg.digits() == ["1", "2"]
    (first, before), (second, after) = stretches(heard)
    assert before + after == 4000
    assert second - first - before == 12000, "it is the program that resumes, not the end of the digits"
    assert record.digits_sent == 2


@pytest.mark.parametrize("wire", ["plivo", "twilio", "teler"])
def test_other_wires_say_that_they_have_no_pause_and_no_statistics(wire: str) -> None:
    refused: list[str] = []

    async def bot(line: Line) -> None:
        for work in (line.pause, line.resume, line.platform_statistics):
            with pytest.raises(NotOnThisWire) as refusal:
                await work()
            refused.append(str(refusal.value))

    place(bot, wire=wire, seconds=1.0)
    assert len(refused) == 3
    assert all(wire in text for text in refused)


def test_a_platform_that_never_answers_is_waited_for_five_seconds_and_the_lines_end_ends_the_wait() -> None:
    async def main() -> None:
        async with hand_made_platform() as (line, _, _):
            before = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                await line.platform_statistics()
            assert trio.current_time() - before == 5
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(CallEnded):
                        await line.platform_statistics()

                nursery.start_soon(ask)
                await trio.sleep(1)
                await line.hang_up()

    in_virtual_time(main)


# Against an implementation that was written from the page -----------------------------------------------------------

START = {"stream_id": "s1", "call_id": "c1", "tracks": ["inbound"], "encoding": "PCMU", "sample_rate_hz": 8000} | {
    "custom_parameters": {"lang": "en"},
}


@asynccontextmanager
async def hand_made_platform(**config: Any) -> AsyncIterator[tuple[Line, Platform, Peer]]:
    """A line, connected to a platform that obeys only when it is told to."""
    listener = listen_memory("platform")
    found: list[Any] = []

    async def serve() -> None:
        peer = await accept(listener)
        platform = Platform(lambda message: peer.send(frame(BINARY, message)), START)
        await platform.begin()
        found.extend((platform, peer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect_line("memory://platform", wire="native", config=LineConfig(**config)) as line:
            yield line, found[0], found[1]
        found[1].link.close()
    listener.close()


async def run_platform(platform: Platform, peer: Peer, seconds: float, said: bytes) -> None:
    """Obey what comes, and let time pass in steps of 20 ms."""
    begin = trio.current_time()

    async def obey() -> None:
        while (one := await peer.read()) is not None:
            if one.opcode == BINARY:
                await platform.obey(one.payload)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey)
        for step in range(round(seconds * 50)):
            await trio.sleep_until(begin + step * 0.02 + 0.001)
            await platform.pass_time(said[step * FRAME : step * FRAME + FRAME].ljust(FRAME, b"\xff"))
        nursery.cancel_scope.cancel()


def test_our_line_against_an_independent_platform() -> None:
    said, spoken = speech(8000), speech(12000, seed=8)
    outcomes: dict[str, Any] = {}
    ear: list[Samples] = []

    async def bot(line: Line) -> None:
        assert line.info.custom_parameters == {"lang": "en"}

        async def listen() -> None:
            async for chunk in line.listen():
                ear.append(chunk.samples)  # noqa: PERF401 - it is cancelled, and what was heard is kept

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            line.speak(spoken, sample_rate_hz=8000)
            played = line.checkpoint("played")
            await trio.sleep(0.5)
            await line.pause()
            await trio.sleep(0.5)
            await line.resume()
            outcomes["played"] = await played.wait()
            line.speak(spoken, sample_rate_hz=8000)
            cleared = line.checkpoint("cleared")
            await trio.sleep(0.3)
            await line.clear()
            outcomes["cleared"] = await cleared.wait()
            await line.send_digits("12#")
            outcomes["statistics"] = await line.platform_statistics()
            nursery.cancel_scope.cancel()
        await line.hang_up()

    async def main() -> Platform:
        async with hand_made_platform() as (line, platform, peer), trio.open_nursery() as nursery:
            nursery.start_soon(run_platform, platform, peer, 4.0, pcmu_encode(said))
            await bot(line)
            assert line.record is not None
            assert line.record.statistics.refused == {}
            nursery.cancel_scope.cancel()
            return platform

    platform = in_virtual_time(main)
    names = [name for name, _, _, _ in platform.heard if name != "AUDIO"]
    assert names == ["MARK", "PAUSE", "RESUME", "MARK", "CLEAR", "SEND_DIGITS", "QUERY_STATISTICS", "HANG_UP"]
    assert platform.audio(2)[:12000] == pcmu_encode(spoken)
    assert outcomes["played"].exact
    assert outcomes["played"].outcome is Outcome.PLAYED
    assert outcomes["played"].at_sample == platform.answered["played"]
    assert outcomes["cleared"].outcome is Outcome.CLEARED
    assert outcomes["cleared"].at_sample == platform.answered["cleared"]
    assert outcomes["statistics"] == {"messages_in": len(platform.heard) - 1}
    assert platform.caller_heard.replace(b"\xff", b"").startswith(pcmu_encode(spoken).replace(b"\xff", b""))
    assert np.array_equal(np.concatenate(ear)[: len(said)], said)


def test_an_independent_application_against_our_platform() -> None:
    said, spoken = speech(8000), speech(8000, seed=8)
    leg = MemoryLeg()
    seen: list[Application] = []

    async def serve(listener: Any) -> None:
        peer = await accept(listener)
        application = Application(lambda message: peer.send(frame(BINARY, message, key=peer.key)))
        seen.append(application)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, application)
            while (one := await peer.read()) is not None:
                if one.opcode == BINARY:
                    application.hear(one.payload)
            nursery.cancel_scope.cancel()
        peer.link.close()

    async def act(application: Application) -> None:
        await trio.sleep(0.01)
        await application.play(pcmu_encode(spoken))
        await application.send("MARK", {"name": "played"})
        await trio.sleep_until(0.5)
        await application.send("PAUSE")
        await trio.sleep_until(1.0)
        await application.send("RESUME")
        await trio.sleep_until(2.0)
        await application.play(pcmu_encode(spoken))
        await application.send("MARK", {"name": "cleared"})
        await application.send("CLEAR")
        await application.send("SEND_DIGITS", {"digits": "7"})
        await application.send("QUERY_STATISTICS")
        for _ in range(257):
            await application.send("MARK", {"name": "one of many"})
        await application.send("PAUSE")
        await trio.sleep_until(2.5)
        await application.send("HANG_UP")

    async def main() -> Any:
        listener = listen_memory("application")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener)
            async with engine() as which, which.open_call(leg) as call:
                stream = await call.start_stream(
                    StreamSpec(
                        url="memory://application",
                        wire="native",
                        bidirectional=True,
                        custom_parameters={"lang": "en"},
                        track="both_tracks",
                    )
                )
                leg.say(said)
                await trio.sleep_until(1.5)
                leg.press("5")
                await stream.ended.wait()
            listener.close()
        return stream.record

    record = in_virtual_time(main)
    (application,) = seen
    assert record.reason is EndReason.APPLICATION_HUNG_UP
    start = application.start
    assert (start["encoding"], start["sample_rate_hz"], start["clock_rate_hz"]) == ("PCMU", 8000, 8000)
    assert (start["tracks"], start["custom_parameters"]) == (["inbound", "outbound"], {"lang": "en"})
    inbound, outbound = application.audio(1), application.audio(2)
    assert pcmu_encode(said) in inbound
    heard = pcmu_encode(leg.heard())
    assert outbound == heard[: len(outbound)]
    reached = application.named("MARK_REACHED")
    assert reached[0][1] == {"name": "played", "outcome": "PLAYED"}
    first = heard.index(pcmu_encode(spoken)[:FRAME])
    assert reached[0][0] == first + 8000 + 4000, "behind the last sample, which the pause made half a second later"
    assert reached[1][1] == {"name": "cleared", "outcome": "CLEARED"}
    assert len(reached) == 2 + 257, "each mark has one answer"
    assert [body["begun"] for _, body in application.named("DIGITS_SENT")] == [True, False]
    assert application.named("DIGIT")[0][1]["digit"] == "5"
    assert application.named("STATISTICS")[0][1]["counters"]["samples_cleared"] == 8000
    order = [name for name, *_ in application.heard if name in ("MARK_REACHED", "CLEARED")]
    assert order.index("CLEARED") == 2, "the marks that a clear drops come before its answer"
    assert application.heard[-1][0] == "STOP"


def test_what_is_refused_is_told_in_one_word() -> None:
    errors: list[str] = []

    async def serve(listener: Any) -> None:
        peer = await accept(listener)
        application = Application(lambda message: peer.send(frame(BINARY, message, key=peer.key)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, application, peer)
            while (one := await peer.read()) is not None:
                if one.opcode == BINARY:
                    application.hear(one.payload)
            nursery.cancel_scope.cancel()
        errors.extend(body["message"] for _, body in application.named("ERROR"))
        peer.link.close()

    async def act(application: Application, peer: Peer) -> None:
        await trio.sleep(0.1)
        for message in (b"", b"\x95\x01\x10", b"\x95\x02\x10\x01\x00\x00\x80", b"\x95\x01\x10\x01\x00\x00\x80"):
            await peer.send(frame(BINARY, message))
        await peer.send(frame(BINARY, b"\x95\x01\x11\x01\x00\x00\x80\x80"))
        await peer.send(frame(TEXT, b"{}"))
        await application.send("SEND_DIGITS", {"digits": "1" * 40})
        await application.send("SEND_DIGITS", {"digits": "1" * 40})
        await trio.sleep(1)
        await peer.close()

    async def main() -> Any:
        listener = listen_memory("application")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, listener)
            async with engine() as which, which.open_call(MemoryLeg()) as call:
                stream = await call.start_stream(
                    StreamSpec(url="memory://application", wire="native", bidirectional=True)
                )
                await stream.ended.wait()
            listener.close()
        return stream.record

    record = in_virtual_time(main)
    words = ["bad_msgpack", "bad_msgpack", "bad_version", "missing_field", "trailing", "text", "too_many_digits"]
    assert errors == words
    assert record.refused == {"bad_msgpack": 2, **dict.fromkeys(words[2:], 1)}
    assert record.digits_sent == 40


@pytest.mark.smoke
async def test_an_independent_application_over_a_real_socket() -> None:
    heard: list[Application] = []

    async def serve(request: Any) -> None:
        socket = await request.accept()
        application = Application(socket.send_message)
        heard.append(application)
        application.hear(await socket.get_message())
        await application.play(pcmu_encode(speech(1600)))
        await application.send("MARK", {"name": "played"})
        while not application.named("MARK_REACHED"):
            application.hear(await socket.get_message())
        await application.send("HANG_UP")
        while "STOP" not in [name for name, *_ in application.heard]:
            application.hear(await socket.get_message())
        with pytest.raises(trio_websocket.ConnectionClosed, match="1000"):
            await socket.get_message()

    leg = MemoryLeg()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
            async with engine() as which, which.open_call(leg) as call:
                stream = await call.start_stream(
                    StreamSpec(url=f"ws://127.0.0.1:{server.port}", wire="native", bidirectional=True)
                )
                await stream.ended.wait()
            nursery.cancel_scope.cancel()
    assert stream.record is not None
    assert stream.record.reason is EndReason.APPLICATION_HUNG_UP
    assert heard[0].named("MARK_REACHED")[0][1]["outcome"] == "PLAYED"
    assert heard[0].heard[-1][0] == "STOP"


@pytest.mark.smoke
async def test_an_independent_platform_over_a_real_socket() -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        outcomes.append(await line.play(speech(1600), sample_rate_hz=8000))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(partial(serve_lines, bot, "127.0.0.1", 0))
            stream = await trio.open_tcp_stream(host, port)
            socket = await trio_websocket.wrap_client_stream(nursery, stream, host, "/")
            platform = Platform(socket.send_message, START)

            await platform.begin()
            due = trio.current_time()
            with contextlib.suppress(trio_websocket.ConnectionClosed):
                while True:
                    message = None
                    with trio.move_on_at(due):
                        message = await socket.get_message()
                    if message is None:
                        await platform.pass_time(b"\xff" * FRAME)
                        due += 0.02
                    else:
                        assert isinstance(message, bytes)
                        await platform.obey(message)
            assert socket.closed is not None
            assert socket.closed.code == 1000
            await stream.aclose()
            nursery.cancel_scope.cancel()
    assert outcomes == [Played(1600, Outcome.PLAYED, True)]
    assert [name for name, *_ in platform.heard][-1] == "HANG_UP"
