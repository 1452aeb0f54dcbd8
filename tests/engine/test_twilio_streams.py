"""The platform's end of Twilio's and SignalWire's wires in a call: numbers, marks, clears, digits, headers."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from support.streams import Streamed, base64_of, open_stream
from support.virtual import speech
from talkpath.dsp import pcmu_decode
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.events import CallEvent, StreamDegraded
from talkpath.records import EndReason, Outcome
from talkpath.testing import ToneSource, find_tones
from talkpath.wire.signalwire import SignalWireOptions
from talkpath.wire.twilio_signature import verify_headers

FAMILY = ["twilio", "signalwire"]
both_wires = pytest.mark.parametrize("wire", FAMILY)


def of_stream(streamed: Streamed, message: dict[str, Any]) -> dict[str, Any]:
    """A command to the stream."""
    return {**message, "streamSid": streamed.stream.stream_id}


def mulaw(n: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, n).astype(np.uint8).tobytes()


def media(payload: bytes) -> dict[str, Any]:
    return {"event": "media", "media": {"payload": base64.b64encode(payload).decode()}}


def mark(name: str) -> dict[str, Any]:
    return {"event": "mark", "mark": {"name": name}}


def where(heard: Any, said: Any) -> int:
    """The sample at which something that nothing else is like begins."""
    (first,) = (i for i in range(len(heard) - 15) if np.array_equal(heard[i : i + 16], said[:16]))
    return int(first)


@both_wires
async def test_every_message_has_the_next_number_and_chunks_count_by_track(autojump_clock: Any, wire: str) -> None:
    async with open_stream(wire=wire, bidirectional=False, track="both_tracks", message_ms=40) as streamed:
        streamed.leg.say(speech(16000))
        await trio.sleep(1)
    texts = streamed.texts()
    assert [text["event"] for text in texts[:2]] == ["connected", "start"]
    assert "sequenceNumber" not in texts[0]
    assert [text["sequenceNumber"] for text in texts[1:]] == [str(n) for n in range(1, len(texts))]
    assert texts[1]["start"]["tracks"] == ["inbound", "outbound"]
    assert texts[-1]["event"] == "stop"
    for track in ("inbound", "outbound"):
        bodies = [text["media"] for text in texts if text["event"] == "media" and text["media"]["track"] == track]
        assert len(bodies) >= 24
        assert [body["chunk"] for body in bodies] == [str(n + 1) for n in range(len(bodies))]
        stamps = [int(body["timestamp"]) for body in bodies]
        assert stamps[0] in range(41), "milliseconds since the stream's start"
        assert {later - earlier for earlier, later in pairwise(stamps)} == {40}
        assert {len(base64.b64decode(body["payload"])) for body in bodies} == {320}


@both_wires
async def test_ids_are_in_the_platforms_form(autojump_clock: Any, wire: str) -> None:
    async with open_stream(wire=wire, custom_parameters={"tier": "gold", "who": "Zoë"}) as streamed:
        await trio.sleep(0.1)
    (start,) = streamed.of("start")
    body = start["start"]
    assert body["customParameters"] == {"tier": "gold", "who": "Zoë"}
    assert start["streamSid"] == body["streamSid"] == streamed.stream.stream_id
    digits = streamed.call.call_id.replace("-", "")
    assert body["callSid"] == (f"CA{digits}" if wire == "twilio" else streamed.call.call_id)
    (stop,) = streamed.of("stop")
    assert stop["stop"] == {"accountSid": body["accountSid"], "callSid": body["callSid"]}
    assert streamed.peer.close_code == 1000


@both_wires
async def test_a_mark_comes_back_at_once_when_nothing_waits_and_else_when_it_is_heard(
    autojump_clock: Any, wire: str
) -> None:
    async with open_stream(wire=wire) as streamed:
        await trio.sleep(0.1)
        peer, began = streamed.peer, trio.current_time()
        await peer.text(of_stream(streamed, mark("nothing")))
        await trio.sleep(0.5)
        await peer.text(of_stream(streamed, media(mulaw(8000))))
        await peer.text(mark("said"))
        await trio.sleep(2)
    at_once, heard = streamed.times_of("mark")
    assert at_once - began <= 0.021
    assert heard - began == pytest.approx(1.5, abs=0.021)
    marks = streamed.of("mark")
    assert [one["mark"]["name"] for one in marks] == ["nothing", "said"]
    assert ["sequenceNumber" in one for one in marks] == [wire == "twilio"] * 2
    record = streamed.stream.record
    assert record is not None
    assert [(one.name, one.outcome) for one in record.marks] == [("nothing", Outcome.PLAYED), ("said", Outcome.PLAYED)]
    assert record.refused == {}


@both_wires
async def test_a_clear_returns_what_was_pending_and_the_stream_goes_on(autojump_clock: Any, wire: str) -> None:
    async with open_stream(wire=wire) as streamed:
        await trio.sleep(0.1)
        peer = streamed.peer
        for n in range(3):
            await peer.text(of_stream(streamed, media(mulaw(8000, n))))
            await peer.text(of_stream(streamed, mark(f"m{n}")))
        await trio.sleep(1.5)
        assert [one["mark"]["name"] for one in streamed.of("mark")] == ["m0"]
        began = trio.current_time()
        await peer.text(of_stream(streamed, {"event": "clear"}))
        await peer.text(of_stream(streamed, media(mulaw(1600, 7))))
        await peer.text(of_stream(streamed, mark("after")))
        await trio.sleep(1)
        assert [one["mark"]["name"] for one in streamed.of("mark")] == ["m0", "m1", "m2", "after"]
        assert [at - began <= 0.021 for at in streamed.times_of("mark")] == [True, True, True, False]
        await peer.text(of_stream(streamed, media(mulaw(8000, 9))))
        await peer.text(of_stream(streamed, mark("never")))
        await trio.sleep(0.1)
    record = streamed.stream.record
    assert record is not None
    assert [(one.name, one.outcome) for one in record.marks] == [
        ("m0", Outcome.PLAYED),
        ("m1", Outcome.CLEARED),
        ("m2", Outcome.CLEARED),
        ("after", Outcome.PLAYED),
        ("never", Outcome.LOST),
    ]
    assert record.clears == 1
    assert [one["mark"]["name"] for one in streamed.of("mark")] == ["m0", "m1", "m2", "after"], "none at the end"
    numbers = [int(text["sequenceNumber"]) for text in streamed.texts() if "sequenceNumber" in text]
    assert numbers == list(range(1, len(numbers) + 1)), "a message of silence takes no number"
    heard = streamed.leg.heard()
    cut = where(heard, pcmu_decode(mulaw(8000, 1)))
    assert where(heard, pcmu_decode(mulaw(1600, 7))) - cut <= 4160


@both_wires
async def test_keys_are_told_on_a_two_way_stream_alone(autojump_clock: Any, wire: str) -> None:
    for two_way in (True, False):
        async with open_stream(wire=wire, bidirectional=two_way) as streamed:
            await trio.sleep(0.1)
            streamed.leg.press("5")
            await trio.sleep(0.2)
        told = [one["dtmf"] for one in streamed.of("dtmf")]
        if two_way:
            assert told == [
                {"track": "inbound_track", "digit": "5"} if wire == "twilio" else {"digit": "5", "duration": 0}
            ]
        else:
            assert told == []
        numbers = [int(text["sequenceNumber"]) for text in streamed.texts()[1:]]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_digits_go_to_the_caller_on_signalwire_and_are_unknown_on_twilio(autojump_clock: Any) -> None:
    for wire, sent in (("signalwire", ["1", "2", "#"]), ("twilio", [])):
        async with open_stream(wire=wire) as streamed:
            for digit in "12#":
                await streamed.peer.text(of_stream(streamed, {"event": "dtmf", "dtmf": {"digit": digit}}))
            await trio.sleep(2)
            assert streamed.leg.digits() == sent
        record = streamed.stream.record
        assert record is not None
        assert record.refused == ({} if sent else {"unknown:dtmf": 3})


@both_wires
async def test_a_one_way_stream_plays_nothing_and_counts_what_is_asked_of_it(autojump_clock: Any, wire: str) -> None:
    async with open_stream(wire=wire, bidirectional=False) as streamed:
        await trio.sleep(0.1)
        for message in (media(mulaw(1600)), mark("m"), {"event": "clear"}):
            await streamed.peer.text(of_stream(streamed, message))
        await trio.sleep(0.5)
        assert not streamed.leg.heard().any()
        assert streamed.call.end_reason is None
    assert streamed.stream.record is not None
    assert streamed.stream.record.refused == {"one_way": 3}
    assert streamed.of("mark") == []


@both_wires
async def test_the_application_closes_and_the_stream_is_over(autojump_clock: Any, wire: str) -> None:
    async with open_stream(wire=wire) as streamed:
        await trio.sleep(0.1)
        await streamed.peer.close(1000)
        await streamed.stream.ended.wait()
        assert streamed.stream.end_reason is EndReason.APPLICATION_HUNG_UP
        assert streamed.call.end_reason is None


async def test_the_upgrade_is_signed_as_the_official_validator_wants_it(autojump_clock: Any) -> None:
    token = "0123456789abcdef0123456789abcdef"
    async with open_stream(wire="twilio", auth_token=token, url="memory://application/media?room=7") as streamed:
        await trio.sleep(0.1)
    headers = streamed.peer.headers
    url = f"memory://{headers['host']}{streamed.peer.path}"
    signature = headers["x-twilio-signature"]
    forms = [url.replace("memory", scheme) for scheme in ("memory", "ws", "wss")]
    assert any(RequestValidator(token).validate(form, {}, signature) for form in forms)
    assert not RequestValidator(token[::-1]).validate(forms[0], {}, signature)
    assert not verify_headers(token[::-1], list(headers.items()), forms[2])
    async with open_stream(wire="twilio") as streamed:
        await trio.sleep(0.1)
    assert "x-twilio-signature" not in streamed.peer.headers


async def test_signalwire_bears_its_token(autojump_clock: Any) -> None:
    async with open_stream(wire="signalwire", authorization_bearer_token="t0k") as streamed:
        await trio.sleep(0.1)
    assert streamed.peer.headers["authorization"] == "Bearer t0k"
    assert not [name for name in streamed.peer.headers if "signature" in name]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_16_bit_audio_goes_both_ways_to_the_sample(autojump_clock: Any, rate_hz: int, big_endian: bool) -> None:
    order = ">" if big_endian else "<"
    n = rate_hz // 10
    said, played = speech(n, seed=1), speech(n, seed=2)
    leg = MemoryLeg(sample_rate_hz=rate_hz)
    options = SignalWireOptions(big_endian=big_endian)
    async with open_stream(leg, wire="signalwire", codec=f"L16@{rate_hz}h@20i", options=options) as streamed:
        leg.say(said)
        await streamed.peer.text(
            of_stream(streamed, {"event": "media", "media": {"payload": base64_of(played, order)}})
        )
        await trio.sleep(0.5)
        heard = leg.heard()
    begin = where(heard, played)
    assert np.array_equal(heard[begin : begin + n], played)
    payloads = [base64.b64decode(one["media"]["payload"]) for one in streamed.of("media")]
    told = np.frombuffer(b"".join(payloads), f"{order}i2").astype(np.int16)
    begin = where(told, said)
    assert np.array_equal(told[begin : begin + n], said)
    assert {len(payload) for payload in payloads} == {rate_hz // 50 * 2}


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("rate_hz", [24000, 48000])
async def test_wider_audio_is_converted_in_its_own_byte_order(
    autojump_clock: Any, rate_hz: int, big_endian: bool
) -> None:
    order = ">" if big_endian else "<"
    options = SignalWireOptions(big_endian=big_endian)
    async with open_stream(wire="signalwire", codec=f"L16@{rate_hz}h@20i", options=options) as streamed:
        streamed.leg.say(ToneSource(650).take(8000))
        played = ToneSource(450, sample_rate_hz=rate_hz).take(rate_hz)
        await streamed.peer.text(
            of_stream(streamed, {"event": "media", "media": {"payload": base64_of(played, order)}})
        )
        await trio.sleep(1.5)
        heard = streamed.leg.heard()
    (start,) = streamed.of("start")
    assert start["start"]["mediaFormat"] == {"encoding": "audio/x-L16", "sampleRate": rate_hz, "channels": 1}
    payloads = [base64.b64decode(one["media"]["payload"]) for one in streamed.of("media")]
    assert {len(payload) for payload in payloads} == {rate_hz // 50 * 2}
    told = np.frombuffer(b"".join(payloads), f"{order}i2").astype(np.int16)
    for samples, at_hz, tone_hz in ((heard, 8000, 450), (told, rate_hz, 650)):
        (span,) = find_tones(samples, at_hz, [450, 650])
        assert span.hz == tone_hz
        assert abs(span.to_sample - span.from_sample - at_hz) <= at_hz // 25


async def test_a_laws_audio_passes_as_it_is(autojump_clock: Any) -> None:
    async with open_stream(wire="signalwire", codec="PCMA@40i") as streamed:
        streamed.leg.say(speech(8000))
        await streamed.peer.text(of_stream(streamed, media(mulaw(800))))
        await trio.sleep(0.5)
        assert streamed.leg.heard().any()
    (start,) = streamed.of("start")
    assert start["start"]["mediaFormat"] == {"encoding": "audio/x-alaw", "sampleRate": 8000, "channels": 1}
    assert {len(base64.b64decode(one["media"]["payload"])) for one in streamed.of("media")} == {320}


@pytest.mark.parametrize(("realtime", "heard_s"), [(False, 3), (True, 1)])
async def test_a_realtime_stream_drops_the_newest_of_what_is_too_much(
    autojump_clock: Any, realtime: bool, heard_s: int
) -> None:
    told: list[CallEvent] = []
    async with open_stream(wire="signalwire", realtime=realtime) as streamed:
        streamed.call.on_event(told.append)
        burst = mulaw(24000)
        for i in range(0, 24000, 160):
            await streamed.peer.text(of_stream(streamed, media(burst[i : i + 160])))
        await trio.sleep(4)
        heard = streamed.leg.heard()
    record = streamed.stream.record
    assert record is not None
    said = pcmu_decode(burst)
    begin = where(heard, said)
    end = begin + heard_s * 8000
    assert np.array_equal(heard[begin:end], said[: end - begin])
    assert not heard[end + 160 :].any()
    assert record.dropped_ms == (2000 if realtime else 0)
    assert any(isinstance(event, StreamDegraded) and event.percent >= 100 for event in told) == realtime
