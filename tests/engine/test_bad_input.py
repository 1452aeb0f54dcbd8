"""The platform's end under bad input: each fault has a bounded, counted outcome, and nobody else hears of it."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio

from support import frames
from support.calls import Outcome, assert_nobody_else_noticed, place
from support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame
from support.peer import Peer
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.engine import CallStream, EngineConfig, MemoryLeg, RtpLeg
from talkpath.events import StreamDegraded
from talkpath.records import EndReason
from talkpath.records import Outcome as MarkFate
from talkpath.testing import ToneSource
from talkpath.transport.driver_tasks import TasksDriver
from talkpath.wire.plivo import PlivoOptions

MULAW = "audio/x-mulaw"


def play(payload: object = "//8=", content_type: object = MULAW, rate: object = 8000, **more: object) -> dict[str, Any]:
    return {
        "event": "playAudio",
        "media": {"contentType": content_type, "sampleRate": rate, "payload": payload, **more},
    }


def played(audio: bytes) -> dict[str, Any]:
    return play(base64.b64encode(audio).decode())


def tone(ms: int, hz: float = 650) -> bytes:
    return pcmu_encode(ToneSource(hz).take(8 * ms))


CHECKPOINT = {"event": "checkpoint", "streamId": "s", "name": "still here"}
CLEAR = {"event": "clearAudio", "streamId": "s"}

REFUSED_MESSAGES: list[tuple[str, object, str]] = [
    ("nothing", "", "bad_json"),
    ("no JSON", "hello", "bad_json"),
    ("half of JSON", '{"event": "playAudio", "media": {"payload": "AAAA', "bad_json"),
    ("two objects", '{"event":"clearAudio"}{"event":"clearAudio"}', "bad_json"),
    ("not a number", '{"event": NaN}', "bad_json"),
    ("nesting without end", "[" * 100_000, "bad_json"),
    ("an integer of thousands of digits", '{"event": ' + "9" * 5000 + "}", "bad_json"),
    ("a list", [1, 2], "bad_type"),
    ("a string", '"playAudio"', "bad_type"),
    ("null", "null", "bad_type"),
    ("no event", {}, "missing_field"),
    ("an event that is a number", {"event": 5}, "bad_type"),
    ("an event that is an object", {"event": {"event": "clearAudio"}}, "bad_type"),
    ("audio without media", {"event": "playAudio"}, "missing_field"),
    ("media that is a list", {"event": "playAudio", "media": []}, "bad_type"),
    ("media that is text", {"event": "playAudio", "media": "AAAA"}, "bad_type"),
    ("no payload", {"event": "playAudio", "media": {"contentType": MULAW, "sampleRate": 8000}}, "missing_field"),
    ("a payload that is a number", play(12345678), "bad_type"),
    ("a payload that is a list of bytes", play([255, 255]), "bad_type"),
    ("a payload that is not base64", play("!!!!"), "bad_base64"),
    ("base64 cut off", play("AAAAA"), "bad_base64"),
    ("base64 of the URL kind", play("__-_"), "bad_base64"),
    ("base64 with line breaks", play("AAAA\nAAAA"), "bad_base64"),
    ("base64 with text behind its padding", play("AA==AAAA"), "bad_base64"),
    ("base64 with bits left over", play("//9="), "bad_base64"),
    ("a long payload whose end is not base64", play("A" * 20_000 + "!!!!"), "bad_base64"),
    ("an odd number of bytes of L16", play("AAAA", "audio/x-l16", 16000), "odd_length"),
    ("an unknown format", play("AAAA", "audio/mpeg"), "unknown_format"),
    ("a format that is a number", play("AAAA", 7), "bad_type"),
    ("an unknown rate", play("AAAA", "audio/x-l16", 44100), "unknown_format"),
    ("a rate of another codec", play("AAAA", MULAW, 16000), "unknown_format"),
    ("a rate below zero", play("AAAA", MULAW, -8000), "bad_value"),
    ("a rate that is true", play("AAAA", MULAW, True), "bad_type"),
    ("a rate that is a fraction", play("AAAA", MULAW, 8000.5), "bad_type"),
    ("a rate beyond all numbers", play("AAAA", MULAW, 10**30), "bad_value"),
    ("a checkpoint without a name", {"event": "checkpoint"}, "missing_field"),
    ("a checkpoint with a number for a name", {"event": "checkpoint", "name": 5}, "bad_type"),
    ("a checkpoint with an empty name", {"event": "checkpoint", "name": ""}, "bad_value"),
    ("a checkpoint with too long a name", {"event": "checkpoint", "name": "n" * 257}, "too_long"),
    ("a checkpoint named with half a character", '{"event":"checkpoint","name":"\\ud800"}', "bad_value"),
    ("digits that are none", {"event": "sendDTMF", "dtmf": "12x"}, "bad_value"),
    ("digits that are a number", {"event": "sendDTMF", "dtmf": 12}, "bad_type"),
    ("no digits", {"event": "sendDTMF", "dtmf": ""}, "bad_value"),
    ("digits without end", {"event": "sendDTMF", "dtmf": "1" * 100_000}, "too_long"),
    ("an event nobody knows", {"event": "danceAudio"}, "unknown:danceAudio"),
    ("the platform's own message", {"event": "media", "media": {"payload": "AAAA"}}, "unknown:media"),
    ("an event that is a telephone number", {"event": "+15550001111"}, "unknown"),
    ("an event that is a novel", {"event": "n" * 50_000}, "unknown"),
]


@pytest.mark.parametrize(
    ("message", "kind"), [row[1:] for row in REFUSED_MESSAGES], ids=[row[0] for row in REFUSED_MESSAGES]
)
def test_a_bad_message_is_refused_by_kind_and_the_stream_lives_on(message: object, kind: str) -> None:
    async def application(peer: Peer) -> None:
        await peer.wait_for("start")
        await peer.text(played(tone(100)))
        await peer.text(message)
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream")
        await peer.close()

    outcome = place(application)
    assert outcome.stream.reason is EndReason.APPLICATION_HUNG_UP
    assert outcome.stream.refused == {kind: 1}
    assert [(mark.name, mark.outcome, mark.at_sample) for mark in outcome.stream.marks] == [
        ("still here", MarkFate.PLAYED, 800 + round((outcome.started_at or 0) * 8000))
    ]
    assert outcome.stream.application_ms == 100
    assert_nobody_else_noticed(outcome)


def test_digits_that_a_leg_cannot_send_are_counted_with_the_call() -> None:
    async def application(peer: Peer) -> None:
        await peer.text({"event": "sendDTMF", "dtmf": "123"})
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream")

    address, nowhere = ("127.0.0.1", 0), ("127.0.0.1", 9)
    leg = RtpLeg(local=address, remote=nowhere, event_payload_type=None, inband_digits=False)
    outcome = place(application, leg=leg)
    assert outcome.call is not None
    assert outcome.call.statistics.digits_refused == 3
    assert outcome.call.statistics.digits_sent == 0
    assert outcome.stream.digits_sent == 0
    assert outcome.stream.refused == {"digits": 1}


@pytest.mark.parametrize("event", ["playAudio", "checkpoint", "clearAudio", "sendDTMF"])
def test_an_application_that_talks_into_a_one_way_stream_is_counted_and_goes_on_listening(event: str) -> None:
    message = {**played(tone(20)), **CHECKPOINT, "event": event, "dtmf": "1"}

    async def application(peer: Peer) -> None:
        for _ in range(1200):  # more than are forgiven of what cannot be read
            await peer.text(message)

    outcome = place(application, bidirectional=False)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.refused == {"one_way": 1200}
    assert outcome.stream.messages_sent == 100  # twenty ms each, until the call was hung up
    assert not outcome.heard.any()
    assert_nobody_else_noticed(outcome)


def test_an_application_that_sends_nothing_but_rubbish_is_given_up() -> None:
    async def application(peer: Peer) -> None:
        for _ in range(2000):
            await peer.text("rubbish")

    outcome = place(application)
    assert outcome.stream.reason is EndReason.WIRE_ERROR
    assert outcome.stream.refused == {"bad_json": 1001}
    assert outcome.peer is not None
    assert outcome.peer.close_code == 1002
    assert_nobody_else_noticed(outcome)


def test_kinds_of_unknown_events_are_counted_within_a_bound() -> None:
    async def application(peer: Peer) -> None:
        for number in range(200):
            await peer.text({"event": "x" * (number // 26 + 1) + chr(97 + number % 26)})

    refused = place(application).stream.refused
    assert len(refused) <= 33
    assert sum(refused.values()) == 200


@pytest.mark.parametrize("size", [0, 1, 200, 70_000, 1_000_000])
def test_a_binary_message_is_refused_and_the_stream_lives_on(size: int) -> None:
    async def application(peer: Peer) -> None:
        await peer.send(frame(BINARY, bytes(size)))
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream")
        await peer.close()

    outcome = place(application)
    assert outcome.stream.refused == {"binary": 1}
    assert outcome.stream.reason is EndReason.APPLICATION_HUNG_UP
    assert_nobody_else_noticed(outcome)


TEN_MIB = 10 * 1024 * 1024

BROKEN_FRAMES: list[tuple[str, bytes, str, int]] = [
    ("a masked frame", frame(TEXT, b"{}", key=frames.KEY), "bad_mask", 1002),
    ("a reserved bit", frame(TEXT, b"{}", reserved=4), "bad_frame", 1002),
    ("another reserved bit", frame(TEXT, b"{}", reserved=1), "bad_frame", 1002),
    ("a reserved opcode", frame(3, b"{}"), "bad_frame", 1002),
    ("a reserved control opcode", frame(11, b"{}"), "bad_frame", 1002),
    ("a ping in fragments", frame(PING, b"x", fin=False), "bad_frame", 1002),
    ("a ping of 126 bytes", frame(PING, bytes(126)), "bad_frame", 1002),
    ("a close frame of 126 bytes", frame(8, b"\x03\xe8" + bytes(124)), "bad_frame", 1002),
    ("a continuation of nothing", frame(CONTINUATION, b"{}"), "bad_frame", 1002),
    ("a message inside another", frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), "bad_frame", 1002),
    ("a length longer than needed", frame(TEXT, b"{}", length_bytes=2), "bad_frame", 1002),
    ("a length much longer than needed", frame(TEXT, b"{}", length_bytes=8), "bad_frame", 1002),
    ("a length below zero", frame(TEXT, says_length=1 << 63), "bad_frame", 1002),
    ("text that is not UTF-8", frame(TEXT, b'{"event":"\xff"}'), "bad_utf8", 1007),
    ("text that ends within a character", frame(TEXT, b"\xe2\x82"), "bad_utf8", 1007),
    (
        "fragments that are not UTF-8",
        frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x", fin=False),
        "bad_utf8",
        1007,
    ),
    ("ten MiB announced", frame(TEXT, says_length=TEN_MIB), "too_long", 1009),
    ("ten MiB", frame(TEXT, bytes(TEN_MIB)), "too_long", 1009),
    ("ten MiB of binary", frame(BINARY, bytes(TEN_MIB)), "too_long", 1009),
    ("as long as can be said", frame(BINARY, says_length=(1 << 63) - 1), "too_long", 1009),
    (
        "ten MiB in fragments",
        frame(TEXT, b" " * 65536, fin=False) + frame(CONTINUATION, b" " * 65536, fin=False) * 159,
        "too_long",
        1009,
    ),
    ("a close frame of one byte", frame(8, b"\x03"), "bad_frame", 1002),
    ("a close code that may not be sent", frames.close(1005), "bad_frame", 1002),
    ("a close code below all others", frames.close(999), "bad_frame", 1002),
    ("a close code nobody has assigned", frames.close(2000), "bad_frame", 1002),
    ("a close reason that is not UTF-8", frames.close(1000, b"\xff"), "bad_utf8", 1007),
]


@pytest.mark.parametrize(
    ("data", "kind", "code"), [row[1:] for row in BROKEN_FRAMES], ids=[row[0] for row in BROKEN_FRAMES]
)
def test_a_broken_frame_ends_the_stream_and_nothing_else(data: bytes, kind: str, code: int) -> None:
    async def application(peer: Peer) -> None:
        await peer.text(played(tone(400)))
        await peer.text(CHECKPOINT)
        await trio.sleep_until(0.2)
        await peer.send(data)

    outcome = place(application)
    assert outcome.stream.reason is EndReason.WIRE_ERROR
    assert outcome.stream.refused == {kind: 1}
    assert outcome.stream.cause.startswith("FrameError: ")
    assert outcome.peer is not None
    assert outcome.peer.close_code == code
    assert [mark.outcome for mark in outcome.stream.marks] == [MarkFate.LOST]
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.BLOCK_LEFT  # the call outlived its stream
    assert len(outcome.heard) == 16000
    assert 1000 < np.flatnonzero(outcome.heard)[-1] < 2000  # what had been queued ended with the stream
    assert_nobody_else_noticed(outcome)


def in_fragments(payload: bytes, *cuts: int) -> list[bytes]:
    edges = [0, *cuts, len(payload)]
    pieces = [payload[a:b] for a, b in pairwise(edges)]
    return [frame(CONTINUATION if i else TEXT, piece, fin=i == len(pieces) - 1) for i, piece in enumerate(pieces)]


def whole(payload: bytes) -> list[bytes]:
    return in_fragments(payload)


def every_byte(payload: bytes) -> list[bytes]:
    return in_fragments(payload, *range(1, len(payload)))


def with_empty_ones(payload: bytes) -> list[bytes]:
    return in_fragments(payload, 0, 0, 7, 7, len(payload))


def with_pings_between(payload: bytes) -> list[bytes]:
    first, second, third = in_fragments(payload, 3, 40)
    return [first, frame(PING, b"a"), second, frame(PONG, b"unasked"), frame(PING, bytes(125)), third]


@pytest.mark.parametrize("cut", [whole, every_byte, with_empty_ones, with_pings_between])
@pytest.mark.parametrize("dribble", [False, True], ids=["at once", "a byte at a time"])
def test_lawful_fragments_of_every_kind_are_one_message(cut: Any, dribble: bool) -> None:
    audio = tone(60)

    async def application(peer: Peer) -> None:
        data = b"".join(part for message in (played(audio), CHECKPOINT) for part in cut(json.dumps(message).encode()))
        for i in range(0, len(data), 1 if dribble else len(data)):
            await peer.send(data[i : i + 1] if dribble else data)
        await peer.wait_for("playedStream")
        await peer.close()

    outcome = place(application)
    assert outcome.stream.refused == {}
    assert outcome.stream.reason is EndReason.APPLICATION_HUNG_UP
    heard = outcome.heard[np.flatnonzero(outcome.heard)[0] - 1 :][:480]
    assert np.array_equal(heard, pcmu_decode(audio))
    assert outcome.peer is not None
    pongs = [one.payload for one in outcome.peer.frames if one.opcode == PONG]
    assert pongs == ([b"a", bytes(125)] * 2 if cut is with_pings_between else [])
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (None, EndReason.APPLICATION_HUNG_UP),
        (1000, EndReason.APPLICATION_HUNG_UP),
        (1001, EndReason.APPLICATION_HUNG_UP),
        (1011, EndReason.APPLICATION_FAILED),
        (1002, EndReason.APPLICATION_FAILED),
        (1008, EndReason.APPLICATION_FAILED),
        (3000, EndReason.APPLICATION_HUNG_UP),
        (4999, EndReason.APPLICATION_HUNG_UP),
    ],
)
@pytest.mark.parametrize("ends_call", [False, True], ids=["the call goes on", "the call ends with it"])
def test_a_close_is_answered_in_kind_and_says_why(code: int | None, reason: EndReason, ends_call: bool) -> None:
    async def application(peer: Peer) -> None:
        await peer.text(played(tone(1000)))
        await trio.sleep_until(0.25)
        await peer.close(code)
        await peer.text("{}")  # after a close nothing counts any more

    outcome = place(application, ends_call=ends_call, options=PlivoOptions(emit_stop=True))
    assert outcome.stream.reason is reason
    assert outcome.stream.refused == {}
    assert outcome.peer is not None
    assert outcome.peer.frames[-1].opcode == 8, "nothing follows a close frame"
    assert outcome.peer.frames[-1].close_code == (code or 1000)
    assert outcome.call is not None
    assert outcome.call.reason is (reason if ends_call else EndReason.BLOCK_LEFT)
    assert_nobody_else_noticed(outcome)


def burst_in(n_messages: int, seconds: int) -> list[bytes]:
    audio = tone(seconds * 1000)
    size = len(audio) // n_messages
    return [audio[i : i + size] for i in range(0, len(audio), size)]


@pytest.mark.parametrize("n_messages", [1, 120, 6000])
@pytest.mark.parametrize("shape", ["as documented", "as Python's parser has to read it"])
def test_two_minutes_in_one_burst_play_as_far_as_the_bound_and_are_counted_beyond(n_messages: int, shape: str) -> None:
    async def application(peer: Peer) -> None:
        for audio in burst_in(n_messages, 120):
            message = played(audio)
            if shape != "as documented":
                message = {"media": message["media"], "note": [1], "event": "playAudio"}
            await peer.text(message)
        await peer.text({**CHECKPOINT, "name": "behind what was dropped"})
        await peer.wait_for("start")
        await trio.sleep_until(1.5)
        await peer.text(CLEAR)
        await peer.wait_for("clearedAudio")
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream")

    outcome = place(application)
    stream = outcome.stream
    assert stream.refused == {}
    assert stream.messages_received >= n_messages
    assert stream.reason is EndReason.PLATFORM_HUNG_UP
    # Forty seconds were kept, and what was played of them meanwhile made room for a little more.
    assert 120_000 - 40_000 - 2000 <= stream.dropped_ms <= 120_000 - 40_000
    assert [event.percent for event in outcome.events if isinstance(event, StreamDegraded)] == [30, 60, 90, 100]
    assert [(mark.name, mark.outcome) for mark in stream.marks] == [
        ("behind what was dropped", MarkFate.LOST),
        ("still here", MarkFate.PLAYED),
    ]
    sound = np.flatnonzero(outcome.heard)
    assert sound[-1] <= 1.5 * 8000, "no sample queued before a clear leaves after its tick"
    assert np.array_equal(outcome.heard[sound[0] - 1 : sound[-1]], pcmu_decode(tone(1500))[: sound[-1] - sound[0] + 1])
    assert_nobody_else_noticed(outcome)


def test_a_burst_beyond_the_pool_takes_from_nobody_elses_reserve() -> None:
    async def application(peer: Peer) -> None:
        for audio in burst_in(120, 120):
            await peer.text(played(audio))

    small = EngineConfig(pool_bytes=128 * 1024)
    outcome = place(application, config=small)
    assert outcome.beside == place(None, config=small).beside
    assert outcome.pool_whole
    assert outcome.stream.dropped_ms > 100_000
    assert outcome.engine is not None
    assert outcome.engine.pool_refused > 0


def test_three_hundred_checkpoints_are_two_hundred_and_fifty_six_and_the_rest_counted() -> None:
    async def application(peer: Peer) -> None:
        await peer.text(played(tone(200)))
        for number in range(300):
            await peer.text({**CHECKPOINT, "name": f"mark {number}"})
        await peer.wait_for("playedStream", 256)
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream", 257)
        await peer.close()

    outcome = place(application)
    assert outcome.stream.refused == {"too_many_marks": 44}
    assert outcome.stream.reason is EndReason.APPLICATION_HUNG_UP
    assert [mark.name for mark in outcome.stream.marks] == [f"mark {number}" for number in range(256)] + ["still here"]
    assert {mark.outcome for mark in outcome.stream.marks} == {MarkFate.PLAYED}
    at = round((outcome.started_at or 0) * 8000)
    assert {mark.at_sample for mark in outcome.stream.marks[:256]} == {at + 1600}
    assert_nobody_else_noticed(outcome)


def test_a_flood_of_messages_whose_answers_are_never_read_is_bounded() -> None:
    async def application(peer: Peer) -> None:
        flood = frame(TEXT, json.dumps(CLEAR).encode()) * 20
        for _ in range(1000):
            await peer.send(flood)

    outcome = place(application, reads=False)
    assert outcome.stream.reason is EndReason.CONTROL_OVERFLOW
    assert outcome.stream.clears < 5000
    assert_nobody_else_noticed(outcome)


def test_pings_without_end_from_one_that_never_reads_are_bounded() -> None:
    async def application(peer: Peer) -> None:
        flood = frame(PING, bytes(125)) * 50
        while True:
            await peer.send(flood)

    outcome = place(application, reads=False)
    assert outcome.stream.reason is EndReason.CONTROL_OVERFLOW
    assert_nobody_else_noticed(outcome)


def test_a_frame_that_never_ends_holds_one_messages_memory_and_no_more() -> None:
    async def application(peer: Peer) -> None:
        await peer.send(frame(TEXT, says_length=1_000_000) + b" " * 999_999)

    outcome = place(application)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.refused == {}
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("leg_rate", [8000, 16000])
def test_l16_of_another_rate_is_played_as_what_it_says(rate: int, leg_rate: int) -> None:
    async def application(peer: Peer) -> None:
        samples = ToneSource(650, rate).take(rate // 2)
        await peer.text(play(base64.b64encode(samples.tobytes()).decode(), "audio/x-l16", rate))
        await peer.text(CHECKPOINT)

    outcome: Outcome = place(application, leg=MemoryLeg(sample_rate_hz=leg_rate))
    assert outcome.stream.refused == {}
    at = round((outcome.started_at or 0) * leg_rate)
    (mark,) = outcome.stream.marks
    assert mark.outcome is MarkFate.PLAYED
    assert 0 <= mark.at_sample - at - leg_rate // 2 <= leg_rate // 250
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("message", [b'{"event":"hum"}', rb'{"event":"playAudio","media":{"payload":"\/\/8="}}'])
def test_what_only_python_can_read_is_read_in_portions_so_that_no_step_grows_long(
    message: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read, a_step = 0, []
    receive, step = CallStream.on_text, TasksDriver.step

    def on_text(self: CallStream, payload: bytes, now_ns: int) -> None:
        nonlocal n_read
        n_read += self.spec.url == "memory://application"
        receive(self, payload, now_ns)

    def one_step(self: TasksDriver, now_ns: int) -> None:
        nonlocal n_read
        n_read = 0
        step(self, now_ns)
        a_step.append(n_read)

    monkeypatch.setattr(CallStream, "on_text", on_text)
    monkeypatch.setattr(TasksDriver, "step", one_step)

    async def application(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.send(frame(TEXT, message) * 5000)
        await peer.text(CHECKPOINT)
        await peer.wait_for("playedStream")

    outcome = place(application)
    assert sum(a_step) == 5001
    assert max(a_step) <= 640
    assert [mark.outcome for mark in outcome.stream.marks] == [MarkFate.PLAYED]
    assert_nobody_else_noticed(outcome)
