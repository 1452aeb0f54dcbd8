"""Teler's own SDK, unmodified, as the application of a simulated call: what it bridges is heard."""

from __future__ import annotations

import pytest
import trio

from support.calls import engine
from support.program import running
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones


@pytest.mark.smoke
async def test_the_official_sdk_bridges_our_call() -> None:
    leg = MemoryLeg()
    async with running("teler_bridge.py") as sdk, engine() as which:
        port = (await sdk.wait_for("listening"))["port"]
        async with which.open_call(leg) as call:
            url = f"ws://127.0.0.1:{port}/call?token=1"
            stream = await call.start_stream(StreamSpec(url=url, wire="teler", bidirectional=True, message_ms=100))
            leg.say(ToneSource(650).take(16000))
            with trio.fail_after(10):
                await stream.ended.wait()
            heard = leg.heard()
        await sdk.wait_for("bridged")

    (start,) = sdk.all("start")
    assert start["message"]["stream_id"] == stream.stream_id
    assert start["message"]["data"] == {"encoding": "audio/l16", "sample_rate": 8000, "channels": 1}
    assert start["message"]["message_id"] == 1
    assert stream.record is not None
    assert stream.record.reason is EndReason.APPLICATION_HUNG_UP
    assert stream.record.refused == {}
    first = find_tones(heard, 8000, [450])[0]
    assert abs(first.to_sample - first.from_sample - 3000) <= 320, "three chunks of four: one was taken back"
