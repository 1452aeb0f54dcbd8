"""An application whose connection is lost: tried anew within a budget, with something to hear meanwhile."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
import trio

from support.calls import Outcome, assert_nobody_else_noticed, in_virtual_time, place
from support.peer import Peer
from support.virtual import (
    Injector,
    assert_driver_is_empty,
    assert_pool_is_whole,
    run_virtually,
    spread,
    virtual_engine,
)
from talkpath.audio import AudioClip, write_audio
from talkpath.engine import Call, CallStream, EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import ConfigError, FormatError
from talkpath.events import CallEvent, MarkSettled, StreamEnded, StreamLost, StreamUp
from talkpath.line import Line, serve_memory_lines
from talkpath.records import EndReason
from talkpath.records import Outcome as MarkFate
from talkpath.testing import ToneSource, quiescence, tone_levels
from talkpath.transport.memory import listen_memory

STATUS: dict[str, Any] = {"status_url": "https://app.example/status", "status_scheme": "A"}
CLIP = AudioClip(np.full(2400, 3000, np.int16), 8000)
"""300 ms of something that nothing else in these calls sounds like."""


def play_audio(level: int, n_samples: int) -> dict[str, Any]:
    payload = base64.b64encode(np.full(n_samples, level, "<i2").tobytes()).decode()
    return {
        "event": "playAudio",
        "media": {"contentType": "audio/x-l16", "sampleRate": 8000, "payload": payload},
    }


def of(outcome: Outcome, kind: type[CallEvent]) -> list[Any]:
    return [event for event in outcome.events if isinstance(event, kind)]


def told(outcome: Outcome) -> list[tuple[str, str]]:
    """(event, stream id) of each status callback."""
    forms = [dict(parse_qsl(request.body.decode())) for request in outcome.callbacks]
    return [(form["Event"], form["StreamID"]) for form in forms]


def n_heard(outcome: Outcome, level: int) -> int:
    """How many samples of a level the caller heard; mu-law bends it a little."""
    return int(np.count_nonzero(np.abs(outcome.heard.astype(int) - level) < 120))


def stretches(outcome: Outcome, level: int) -> list[tuple[float, float]]:
    """When the caller heard a level: (from, to) in seconds."""
    mask = np.concatenate([[0], np.abs(outcome.heard.astype(int) - level) < 120, [0]])
    edges = np.flatnonzero(np.diff(mask.astype(int)))
    return [(int(a) / 8000, int(b) / 8000) for a, b in edges.reshape(-1, 2)]


class Flapping:
    """An application that hangs up without a word on each connection but the last ones."""

    def __init__(self, *lasting_s: float) -> None:
        self.lasting_s = list(lasting_s)

    async def __call__(self, peer: Peer) -> None:
        if self.lasting_s:
            await trio.sleep(self.lasting_s.pop(0))
            peer.link.close()
        else:
            await peer.wait_for("start")
            await peer.text(play_audio(-6000, 4000))


async def deaf_door(peer: Peer) -> None:
    """Refuses everybody but the first."""
    if trio.current_time() > 0.5:
        peer.link.close()
        raise OSError
    await peer.upgrade_as_server()


def test_a_lost_connection_is_made_anew_and_is_a_new_stream_to_the_wire() -> None:
    begun: list[Peer] = []

    async def application(peer: Peer) -> None:
        begun.append(peer)
        await peer.wait_for("start")
        first = peer is begun[0]
        await peer.text(play_audio(6000 if first else -6000, 16_000))
        await peer.text({"event": "checkpoint", "streamId": "s", "name": "end"})
        if first:
            await trio.sleep(0.5)
            peer.link.close()

    outcome = place(application, seconds=6, codec="L16", control_id="one", reconnect_s=10, fallback=CLIP, **STATUS)
    assert len(outcome.attempts) == 2
    assert 0.25 <= outcome.attempted_at[1] - 0.5 <= 0.53, "half to the whole of the first distance"
    begins = [peer.named("start")[0] for peer in outcome.attempts]
    ids = [begin["start"]["streamId"] for begin in begins]
    assert len(set(ids)) == 2
    assert begins[0]["start"]["callId"] == begins[1]["start"]["callId"]
    for peer in outcome.attempts:
        media = peer.named("media")
        assert [message["sequenceNumber"] for message in peer.messages][:10] == list(range(1, 11))
        assert [int(message["media"]["chunk"]) for message in media[:5]] == [1, 2, 3, 4, 5]
    # What was queued at the loss is lost; what the new connection queued is played.
    assert [event.outcome for event in of(outcome, MarkSettled)] == [MarkFate.LOST, MarkFate.PLAYED]
    assert [(event.control_id, event.stream_id) for event in of(outcome, StreamUp)] == [("one", x) for x in ids]
    assert of(outcome, StreamLost) == [StreamLost("one", ids[0], EndReason.PEER_VANISHED)]
    assert told(outcome) == [
        ("StartStream", ids[0]),
        ("DroppedStream", ids[0]),
        ("StartStream", ids[1]),
        ("PlayedStream", ids[1]),
        ("StopStream", ids[1]),
    ]
    record = outcome.stream
    assert (record.stream_id, record.control_id, record.reconnects) == (ids[1], "one", 1)
    assert record.reason is EndReason.PLATFORM_HUNG_UP
    assert record.duration_ms == 6000
    assert record.messages_sent == sum(len(peer.named("media")) for peer in outcome.attempts)
    assert [mark.outcome for mark in record.marks] == [MarkFate.LOST, MarkFate.PLAYED]
    # The caller hears the first answer break off, the fallback audio, and the whole second answer.
    ((_, broke_off),) = stretches(outcome, 6000)
    ((fallback, until),) = stretches(outcome, 3000)
    ((again, ended),) = stretches(outcome, -6000)
    assert 0 <= fallback - broke_off <= 0.06
    assert 0 <= again - until <= 0.06
    assert ended - again == 2
    assert_nobody_else_noticed(outcome, 6)


def test_a_connection_that_breaks_at_the_first_byte_has_begun_and_was_lost() -> None:
    async def hang_up_at_once(peer: Peer) -> None:
        await peer.upgrade_as_server()
        if trio.current_time() < 0.2:
            peer.link.close()
            raise OSError

    outcome = place(None, answer=hang_up_at_once, reconnect_s=10, **STATUS)
    names = [name for name, _ in told(outcome)]
    assert names == ["StartStream", "DroppedStream", "StartStream", "StopStream"]
    kinds = [type(event) for event in outcome.events if isinstance(event, StreamUp | StreamLost | StreamEnded)]
    assert kinds == [StreamUp, StreamLost, StreamUp, StreamEnded]
    assert outcome.stream.reconnects == 1


def test_each_outage_is_the_same_in_each_run_and_differs_from_the_next() -> None:
    runs = [place(Flapping(1, 12), seconds=16, reconnect_s=30).attempted_at for _ in range(2)]
    assert runs[0] == runs[1]
    first, second = (round(b - a - lasted, 6) for (a, b), lasted in zip(pairwise(runs[0]), (1, 12), strict=True))
    assert first != second


@pytest.mark.parametrize("code", [1001, 1012, 1013])
def test_a_server_that_goes_away_is_waited_for(code: int) -> None:
    async def application(peer: Peer) -> None:
        if trio.current_time() < 0.5:
            await trio.sleep(0.5)
            await peer.close(code)

    assert place(application, reconnect_s=10).stream.reconnects == 1
    alone = place(application)
    assert (alone.stream.reason, len(alone.attempts)) == (EndReason.APPLICATION_HUNG_UP, 1)


@pytest.mark.parametrize(
    ("farewell", "reason"),
    [
        (1000, EndReason.APPLICATION_HUNG_UP),
        (None, EndReason.APPLICATION_HUNG_UP),
        (4000, EndReason.APPLICATION_HUNG_UP),
        (1011, EndReason.APPLICATION_FAILED),
        (1008, EndReason.APPLICATION_FAILED),
        (b"\x83\x00", EndReason.WIRE_ERROR),
    ],
)
def test_an_application_that_hangs_up_fails_or_breaks_the_rules_has_not_been_lost(
    farewell: int | bytes | None, reason: EndReason
) -> None:
    async def application(peer: Peer) -> None:
        await trio.sleep(0.5)
        if isinstance(farewell, bytes):
            await peer.send(farewell)
        else:
            await peer.close(farewell)

    outcome = place(application, reconnect_s=10)
    assert len(outcome.attempts) == 1
    assert outcome.stream.reason is reason
    assert_nobody_else_noticed(outcome)


def test_it_is_given_up_when_the_budget_is_spent() -> None:
    outcome = place(Flapping(0.4), seconds=20, answer=deaf_door, reconnect_s=10, fallback=CLIP, **STATUS)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert outcome.stream.reconnects == 0
    distances = [round(b - a, 6) for a, b in pairwise(outcome.attempted_at[1:])]
    assert len(distances) >= 3
    for number, distance in enumerate(distances):
        assert 2**number / 2 <= distance <= 2**number
    assert outcome.attempted_at[-1] < 10.5
    assert outcome.ended_at is not None
    assert outcome.ended_at >= 10.4
    assert [name for name, _ in told(outcome)] == ["StartStream", "DroppedStream"], "each id ends once"
    assert [event.reason for event in of(outcome, StreamEnded)] == [EndReason.PEER_VANISHED]
    # Whole repetitions, without a gap between them, at most five seconds of them after giving up.
    ((begin, end),) = stretches(outcome, 3000)
    assert round((end - begin) * 8000) % 2400 == 0
    assert 10 < end < 10.4 + 5.5
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.BLOCK_LEFT, "the call goes on"
    assert_nobody_else_noticed(outcome, 20)


def test_the_call_ends_once_the_caller_has_heard_why() -> None:
    outcome = place(Flapping(0.4), seconds=20, answer=deaf_door, reconnect_s=3, fallback=CLIP, ends_call=True)
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.PEER_VANISHED
    assert outcome.ended_at is not None
    assert 3.4 <= outcome.ended_at <= 3.4 + 5.5
    assert n_heard(outcome, 3000) % 2400 == 0
    assert outcome.call.duration_ms == pytest.approx(outcome.ended_at * 1000, abs=40)


@pytest.mark.parametrize("ends_call", [False, True])
@pytest.mark.parametrize("how", ["lost", "failed", "refused"])
def test_without_a_budget_the_fallback_audio_is_heard_once(how: str, ends_call: bool) -> None:
    async def application(peer: Peer) -> None:
        await trio.sleep(0.5)
        if how == "failed":
            await peer.close(1011)
        else:
            peer.link.close()

    options: dict[str, Any] = {"url": "memory://nobody"} if how == "refused" else {}
    outcome = place(application, seconds=5, fallback=CLIP, ends_call=ends_call, **options)
    assert n_heard(outcome, 3000) == 2400
    assert outcome.call is not None
    reason = {
        "lost": EndReason.PEER_VANISHED,
        "failed": EndReason.APPLICATION_FAILED,
        "refused": EndReason.CONNECT_FAILED,
    }[how]
    assert outcome.stream.reason is reason
    assert outcome.call.reason is (reason if ends_call else EndReason.BLOCK_LEFT)
    ((_, end),) = stretches(outcome, 3000)
    if ends_call:
        assert outcome.call.duration_ms == pytest.approx(end * 1000, abs=60)
    assert_nobody_else_noticed(outcome, 5)


def test_after_an_orderly_end_nothing_is_heard() -> None:
    async def application(peer: Peer) -> None:
        await trio.sleep(0.5)
        await peer.close(1000)

    assert n_heard(place(application, fallback=CLIP, reconnect_s=5), 3000) == 0


def test_an_application_that_flaps_is_given_up_like_one_that_is_gone() -> None:
    outcome = place(Flapping(*[0.5] * 100), seconds=30, reconnect_s=8)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert outcome.ended_at is not None
    assert 8 <= outcome.ended_at <= 9.1
    assert outcome.stream.reconnects == len(outcome.attempts) - 1 >= 3


def test_a_connection_that_lasted_renews_the_budget() -> None:
    outcome = place(Flapping(*[10.5] * 5), seconds=60, reconnect_s=11)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.reconnects == 5


def test_a_stream_can_be_stopped_and_its_time_runs_out_in_an_outage() -> None:
    async def stop(call: Call) -> None:
        await trio.sleep(3)
        await call.stop_stream()

    outcome = place(Flapping(0.4), seconds=6, answer=deaf_door, during=stop, reconnect_s=30, fallback=CLIP)
    assert (outcome.stream.reason, outcome.ended_at) == (EndReason.STOPPED, 3)
    ((_, until),) = stretches(outcome, 3000)
    assert until == pytest.approx(3, abs=0.04)
    outcome = place(Flapping(0.4), seconds=6, answer=deaf_door, reconnect_s=30, stream_timeout_s=3.5)
    assert outcome.stream.reason is EndReason.STREAM_TIMED_OUT
    assert_nobody_else_noticed(outcome, 6)


@pytest.mark.parametrize("at", [0.41, 0.6, 0.9, 2.0, 6.5])
def test_a_call_can_end_anywhere_in_an_outage(at: float) -> None:
    # `place` fails when anything outlives the call.
    outcome = place(Flapping(0.4), seconds=at, answer=deaf_door, reconnect_s=5, fallback=CLIP, **STATUS)
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.BLOCK_LEFT
    assert outcome.pool_whole


def test_the_control_id_and_the_place_stay_taken_while_a_connection_is_tried_anew() -> None:
    refused: list[Exception] = []
    places: list[int] = []

    async def during(call: Call) -> None:
        await trio.sleep(1)
        try:
            await call.start_stream(StreamSpec(url="memory://beside", control_id="one"))
        except ConfigError as exc:
            refused.append(exc)
        await trio.sleep(4)
        stream = await call.start_stream(StreamSpec(url="memory://beside", control_id="one"))
        assert isinstance(stream, CallStream)
        places.append(stream.index)

    place(Flapping(0.4), seconds=6, answer=deaf_door, during=during, reconnect_s=3, control_id="one")
    assert "taken" in str(refused[0])
    assert places == [0]


# Whatever comes, and between whichever two steps of whichever task


async def _outage(injector: Injector, trouble: str, facts: list[Any]) -> None:
    listener = listen_memory("application")

    async def answer() -> None:
        while True:
            peer = Peer(await listener.accept(), client=False)
            if facts and trio.current_time() < 2:
                peer.link.close()
                continue
            facts.append(peer)
            await peer.upgrade_as_server()
            nursery.start_soon(peer.read_all)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        engine = virtual_engine(EngineConfig(pool_bytes=1 << 20))
        async with engine:
            with trio.CancelScope() as scope:
                async with engine.open_call(MemoryLeg()) as call:
                    stream = await call.start_stream(
                        StreamSpec(url="memory://application", bidirectional=True, reconnect_s=5, fallback=CLIP)
                    )
                    await trio.sleep(0.1)
                    injector.arm(
                        {
                            "cancelled": scope.cancel,
                            "ended": lambda: call.end(EndReason.CALLER_HUNG_UP),
                            "stopped": lambda: stream.end(EndReason.STOPPED),
                            "lost": lambda: facts[-1].link.close(),
                        }[trouble]
                    )
                    facts[0].link.close()
                    await trio.sleep(4)
                    injector.armed = False
            assert_pool_is_whole(engine)
            assert_driver_is_empty(engine.driver)
            facts.append(call.record)
        listener.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", ["cancelled", "ended", "stopped", "lost"])
def test_whatever_breaks_into_an_outage_nothing_remains(trouble: str) -> None:
    def run(at: int) -> tuple[Injector, list[Any]]:
        injector, facts = Injector(at), list[Any]()
        with quiescence():
            run_virtually(_outage, injector, trouble, facts, instruments=(injector,))
        return injector, facts

    counted, facts = run(0)
    assert facts[-1].streams[0].reconnects == 1
    for at in spread(counted.steps, 24, trouble):
        injector, facts = run(at)
        assert injector.injected
        (record,) = facts[-1].streams
        if trouble == "ended":
            assert facts[-1].reason is EndReason.CALLER_HUNG_UP
        if trouble == "stopped":
            assert record.reason is EndReason.STOPPED
        if trouble == "lost":
            assert record.reason is EndReason.PLATFORM_HUNG_UP
            assert record.reconnects >= 1


# Half-open: nothing is closed, and nothing comes


SPOKEN: dict[str, dict[str, Any]] = {
    "plivo": {},
    "twilio": {},
    "signalwire": {},
    "teler": {},
    "native": {},
    "asterisk": {"codec": "L16@16000h"},
}


@pytest.mark.parametrize("wire", SPOKEN)
def test_a_peer_that_falls_silent_is_found_by_pings_on_every_wire(wire: str) -> None:
    outcome = place(None, seconds=34, pongs=False, wire=wire, reconnect_s=20, **SPOKEN[wire])
    assert len(outcome.attempts) == 2
    assert 30 < outcome.attempted_at[1] < 32
    assert of(outcome, StreamLost)[0].reason is EndReason.PEER_VANISHED
    assert outcome.stream.reconnects == 1
    assert_nobody_else_noticed(outcome, 34)


@pytest.mark.parametrize("wire", SPOKEN)
def test_a_peer_that_takes_nothing_more_is_lost_on_every_wire(wire: str) -> None:
    outcome = place(None, seconds=34, reads=False, wire=wire, reconnect_s=20, **SPOKEN[wire])
    assert len(outcome.attempts) >= 2
    assert of(outcome, StreamLost)[0].reason in (EndReason.PEER_STALLED, EndReason.PEER_VANISHED)
    assert_nobody_else_noticed(outcome, 34)


# What is wrong is said at once


def test_fallback_audio_is_a_clip_or_a_file_that_is_read_once(tmp_path: Any) -> None:
    path = tmp_path / "sorry.wav"
    write_audio(path, CLIP.samples, CLIP.sample_rate_hz)
    spec = StreamSpec(url="ws://a", fallback=path)
    path.unlink()
    assert spec.fallback_clip is not None
    assert spec.fallback_clip.samples.tolist() == CLIP.samples.tolist()
    with pytest.raises(OSError):
        StreamSpec(url="ws://a", fallback=path)
    with pytest.raises(FormatError):
        StreamSpec(url="ws://a", fallback=b"audio")
    with pytest.raises(FormatError):
        StreamSpec(url="ws://a", fallback=AudioClip(CLIP.samples, 96_000))
    with pytest.raises(ConfigError, match="at least 100"):
        StreamSpec(url="ws://a", fallback=AudioClip(CLIP.samples[:400], 8000))
    with pytest.raises(ConfigError, match="reconnect_s"):
        StreamSpec(url="ws://a", reconnect_s=-1)


def test_tones_of_other_rates_are_heard_too() -> None:
    clip = AudioClip(ToneSource(1000, sample_rate_hz=16_000).take(16_000), 16_000)
    outcome = place(Flapping(0.4), seconds=4, fallback=clip, config=EngineConfig(connect_attempts=1))
    power = np.abs(np.fft.rfft(outcome.heard[8000 : 8000 + 4000].astype(float)))
    assert int(np.argmax(power)) * 2 == 1000


EVERY_WIRE: dict[str, dict[str, Any]] = {
    **{wire: {"bidirectional": True, **more} for wire, more in SPOKEN.items()},
    "freeclimb": {"bidirectional": True},
}


@pytest.mark.parametrize("wire", EVERY_WIRE)
def test_a_bot_that_was_lost_is_begun_anew_on_every_wire(wire: str) -> None:
    ids: list[str] = []

    async def bot(line: Line) -> None:
        ids.append(line.info.stream_id)
        first = len(ids) == 1
        line.speak(ToneSource(600 if first else 900).take(4000), sample_rate_hz=8000)
        if first:
            await trio.sleep(0.3)
            line._carriage.close()
        await line.wait_ended()

    async def run() -> tuple[Any, Any]:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_memory_lines, bot, "bot")
            which = virtual_engine()
            leg = MemoryLeg()
            async with which, which.open_call(leg) as call:
                await call.start_stream(
                    StreamSpec(url=url, wire=wire, reconnect_s=10, fallback=CLIP, **EVERY_WIRE[wire])
                )
                await trio.sleep(4)
                assert call.end_reason is None
            assert_pool_is_whole(which)
            nursery.cancel_scope.cancel()
        return leg.heard(), call.record

    heard, record = in_virtual_time(run)
    assert len(ids) == 2
    (stream,) = record.streams
    assert (stream.reason, stream.reconnects) == (EndReason.PLATFORM_HUNG_UP, 1)
    for hz in (600, 900):
        levels = tone_levels(heard, 8000, hz)
        assert np.count_nonzero(levels > -20) >= 10, "both bots are heard"
