"""What a stream tells its owner's web server and its call's record, and what it keeps to itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio

from support.virtual import virtual_engine
from talkpath.engine.call import Call
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.engine import Engine
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import CallEnded
from talkpath.events import Digit, DigitReceived, Media, MediaFormat, SendDigits, StreamStarted
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.records import EndReason
from talkpath.wire.callback import CallbackRequest

STATUS = "https://app.example/status"


async def told(method: str, **options: Any) -> list[dict[str, str]]:
    """Start and stop a stream; return what its status callbacks carried."""
    requests: list[CallbackRequest] = []

    async def bot(line: Line) -> None:
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        engine = virtual_engine()
        engine.deliver = lambda request, **_: requests.append(request)  # type: ignore[method-assign]
        async with engine, engine.open_call(MemoryLeg()) as call:
            await call.start_stream(
                StreamSpec(**{"url": url, "status_url": STATUS, "status_url_method": method, **options})
            )
            await call.stop_stream()
            assert engine.statistics().callbacks_failed == 0
        nursery.cancel_scope.cancel()
    forms = [request.body.decode() if method == "POST" else urlsplit(request.url).query for request in requests]
    return [dict(parse_qsl(form, keep_blank_values=True)) for form in forms]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_classic_callbacks_repeat_what_the_stream_was_asked_to_be(autojump: object, method: str) -> None:
    parameters = {"tier": "gold", "queue": "a&b=\u00e9"}
    started, stopped = await told(
        method, status_scheme="A", bidirectional=True, codec="L16@16000h", custom_parameters=parameters
    )
    attributes = {
        "bidirectional": "true",
        "audioTrack": "inbound",
        "streamTimeout": "86400",
        "contentType": "audio/x-l16;rate=16000",
        "extraHeaders": "tier=gold,queue=a&b=\u00e9",
    }
    for fields, event in ((started, "StartStream"), (stopped, "StopStream")):
        assert fields["Event"] == event
        assert {name: fields.get(name) for name in attributes} == attributes


async def test_attributes_are_those_of_the_stream_and_the_guides_naming_has_none(autojump: object) -> None:
    started, _ = await told("POST", status_scheme="A", track="both_tracks", stream_timeout_s=90)
    assert (started["bidirectional"], started["audioTrack"], started["streamTimeout"]) == ("false", "both", "90")
    assert started["contentType"] == "audio/x-mulaw;rate=8000"
    assert "extraHeaders" not in started
    for fields in await told("POST", status_scheme="B", custom_parameters={"tier": "gold"}):
        assert not {"bidirectional", "audioTrack", "streamTimeout", "contentType", "extraHeaders"} & set(fields)


async def test_a_callback_too_long_for_a_url_is_counted_and_the_call_goes_on(autojump: object) -> None:
    async with virtual_engine(EngineConfig(pool_bytes=1 << 20, connect_attempts=1)) as engine:
        async with engine.open_call(MemoryLeg()) as call:
            url = STATUS + "?" + "x" * 8000
            spec = StreamSpec(url="memory://nobody", status_url=url, status_url_method="GET", status_scheme="A")
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(spec)
            assert caught.value.reason is EndReason.CONNECT_FAILED
            await trio.sleep(0.1)
            assert call.end_reason is None
        assert engine.statistics().callbacks_failed == 1


async def test_a_call_remembers_its_last_streams_and_counts_the_others(autojump: object) -> None:
    async with virtual_engine(EngineConfig(pool_bytes=1 << 20, connect_attempts=1)) as engine:
        async with engine.open_call(MemoryLeg()) as call:
            for number in range(70):
                with pytest.raises(CallEnded):
                    await call.start_stream(StreamSpec(url="memory://nobody", control_id=str(number)))
        assert call.record is not None
        assert [stream.control_id for stream in call.record.streams] == [str(number) for number in range(6, 70)]
        assert call.record.streams_forgotten == 6


async def test_an_engine_that_is_left_ends_its_calls_a_few_in_each_tick(autojump: object) -> None:
    ended: list[float] = []

    async def hold(engine: Engine, task_status: trio.TaskStatus[None]) -> None:
        async with engine.open_call(MemoryLeg()) as call:
            task_status.started()
            await wait_for_the_end(call)

    async def wait_for_the_end(call: Call) -> None:
        async for _ in call.events():
            pass
        ended.append(trio.current_time())

    async with (
        trio.open_nursery() as nursery,
        virtual_engine(EngineConfig(pool_bytes=1 << 20, hang_up_pace=2)) as engine,
    ):
        for _ in range(6):
            await nursery.start(hold, engine)
        await trio.sleep(1)
    assert [round(moment - ended[0], 6) for moment in ended] == [0, 0, 0.005, 0.005, 0.01, 0.01]


@pytest.mark.parametrize(
    "value",
    [
        StreamSpec(
            url="wss://app.example/secret?token=secret",
            custom_parameters={"pin": "secret"},
            authorization_bearer_token="secret",
            auth_token="secret",
            headers={"X-Key": "secret"},
            status_url="https://app.example/?key=secret",
        ),
        DigitReceived("7", 0),
        Digit("7"),
        SendDigits("777"),
        Media(b"777"),
        StreamStarted("s", "c", "a", ("inbound",), MediaFormat("PCMU", 8000), {"pin": "secret"}),
        CallbackRequest("POST", "https://app.example/?key=secret", (("X-Key", "secret"),), b"From=777"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_shows_secrets_digits_or_audio(value: object) -> None:
    assert type(value).__name__ in repr(value)
    assert "secret" not in repr(value)
    assert "7" not in repr(value)
