"""Plivo's own stream SDK, unmodified, as the application of a simulated call: what it accepts is right."""

from __future__ import annotations

import json
import uuid

import pytest
import trio

from support.calls import engine
from support.program import running
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.records import EndReason, Outcome
from talkpath.testing import ToneSource, find_tones


@pytest.mark.smoke
async def test_the_official_sdk_is_served_by_our_engine() -> None:
    leg = MemoryLeg()
    async with running("official_sdk_bot.py") as sdk, engine() as which:
        port = (await sdk.wait_for("listening"))["port"]
        async with which.open_call(leg) as call:
            stream = await call.start_stream(
                StreamSpec(
                    url=f"ws://127.0.0.1:{port}/stream",
                    bidirectional=True,
                    custom_parameters={"tier": "gold", "name": "Zoë"},
                )
            )
            leg.say(ToneSource(650).take(16000))
            assert (await sdk.wait_for("playedStream"))["name"] == "greeting"
            await sdk.wait_for("media")
            leg.press("5")
            assert (await sdk.wait_for("playedStream", 2))["name"] == "digit"
        await sdk.wait_for("disconnected")
        await stream.ended.wait()
        heard = leg.heard()

    assert sdk.all("error") == []
    (start,) = sdk.all("start")
    assert start["stream_id"] == stream.stream_id
    assert start["call_id"] == call.call_id
    assert uuid.UUID(start["stream_id"]).version == 4
    assert (start["tracks"], start["encoding"], start["rate"]) == (["inbound"], "audio/x-mulaw", 8000)
    assert json.loads(start["extra_headers"]) == {"tier": "gold", "name": "Zoë"}
    (media,) = sdk.all("media")
    assert media["chunk"] == 25
    assert media["n_bytes"] == 160
    assert [one["digit"] for one in sdk.all("dtmf")] == ["5"]
    assert [one["stream_id"] for one in sdk.all("clearedAudio")] == [stream.stream_id]

    assert stream.record is not None
    assert stream.record.refused == {}
    assert stream.record.reason is EndReason.PLATFORM_HUNG_UP
    assert [(mark.name, mark.outcome) for mark in stream.record.marks] == [
        ("greeting", Outcome.PLAYED),
        ("cleared before it is heard", Outcome.CLEARED),
        ("digit", Outcome.PLAYED),
    ]
    greeting, *rest = find_tones(heard, 8000, [450, 1050])
    assert greeting.hz == 450
    assert abs(greeting.to_sample - greeting.from_sample - 4000) <= 320
    digit = rest[-1]
    assert digit.hz == 1050
    assert abs(digit.to_sample - digit.from_sample - 2400) <= 320
    assert all(span.to_sample - span.from_sample < 4000 for span in rest), "what was cleared was not heard"


@pytest.mark.smoke
async def test_the_official_sdk_goes_when_its_stream_is_stopped_and_the_call_lives() -> None:
    async with running("official_sdk_bot.py") as sdk, engine() as which:
        port = (await sdk.wait_for("listening"))["port"]
        async with which.open_call(MemoryLeg()) as call:
            await call.start_stream(StreamSpec(url=f"ws://127.0.0.1:{port}/", bidirectional=True, control_id="a"))
            await sdk.wait_for("start")
            await call.stop_stream("a")
            await sdk.wait_for("disconnected")
            assert call.end_reason is None
            await trio.sleep(0.1)
    assert sdk.all("error") == []
