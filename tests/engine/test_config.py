"""A bad value never gets as far as a call: it is refused where it is written down, in words that say what is right."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from support.virtual import virtual_engine
from talkpath.engine.config import EngineConfig, StreamSpec, parse_codec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import ConfigError
from talkpath.wire.plivo import PlivoOptions

URL = "wss://app.example/audio"
TOKEN = "t" * 40

BAD_SPECS: list[tuple[dict[str, Any], str]] = [
    ({"url": "http://app.example/"}, "ws://"),
    ({"url": "app.example"}, "ws://"),
    ({"url": ""}, "ws://"),
    ({"url": "wss://"}, "no host"),
    ({"url": "wss://user:password@app.example/"}, "user name"),
    ({"url": "wss://app.example:70000/"}, "url cannot be read"),
    ({"url": "wss://app.example/a b"}, "white space"),
    ({"url": "wss://app.example/a#b"}, "fragment"),
    ({"url": "wss://app.example/\u00e9"}, "percent-encode"),
    ({"url": "wss://app.example/" + "a" * 2048}, "2048"),
    ({"url": None}, "url is NoneType"),
    ({"url": b"wss://app.example/"}, "url is bytes"),
    ({"wire": "telegraph"}, "plivo"),
    ({"wire": None}, "wire is NoneType"),
    ({"bidirectional": "yes"}, "True or False"),
    ({"ends_call": 1}, "True or False"),
    ({"track": "inbound"}, "inbound_track"),
    ({"bidirectional": True, "track": "both_tracks"}, "inbound_track only"),
    ({"codec": "PCMA"}, "PCMU at 8000 Hz"),
    ({"codec": "L16@24000h"}, "L16 at 8000 or 16000"),
    ({"codec": "L16@48000h"}, "L16 at 8000 or 16000"),
    ({"codec": "OPUS"}, "PCMU, PCMA, L16"),
    ({"codec": 8}, "codec is int"),
    ({"message_ms": 25}, "20, 40"),
    ({"message_ms": 20.0}, "whole number"),
    ({"message_ms": True}, "whole number"),
    ({"control_id": 7}, "control_id is int"),
    ({"control_id": "c" * 257}, "256"),
    ({"name": "n" * 257}, "256"),
    ({"name": "\ud800"}, "well-formed"),
    ({"custom_parameters": {"tier": 1}}, "text"),
    ({"custom_parameters": {5: "a"}}, "text"),
    ({"custom_parameters": {"": "a"}}, "not empty"),
    ({"custom_parameters": {"a": "\ud800"}}, "Unicode"),
    ({"custom_parameters": {"tier": "g" * 512}}, "512"),
    ({"custom_parameters": {"tier": '"' * 500}}, "1000"),
    ({"custom_parameters": [("a", "b")]}, "mapping"),
    ({"custom_parameters": None}, "mapping"),
    ({"authorization_bearer_token": "two words"}, "white space"),
    ({"authorization_bearer_token": TOKEN, "headers": {"authorization": "Basic x"}}, "Authorization"),
    ({"headers": {"X": 5}}, "text"),
    ({"headers": {"X Y": "5"}}, "cannot be sent"),
    ({"headers": {"X": "a\r\nY: b"}}, "one line"),
    ({"headers": {"Host": "other.example"}}, "not the caller's"),
    ({"headers": {"X": "a" * 8193}}, "8192"),
    ({"headers": {"X": "a" * 5000, "Y": "a" * 5000}}, "8192"),
    ({"account_id": "M" * 65}, "account_id"),
    ({"account_id": "a b"}, "account_id"),
    ({"account_id": 'MA"quoted'}, "account_id"),
    ({"auth_token": 5}, "auth_token is int"),
    ({"status_url": "ftp://app.example/"}, "http"),
    ({"status_url_method": "PUT"}, "GET nor POST"),
    ({"status_scheme": "C"}, "not one of B, A"),
    ({"stream_timeout_s": 0}, "stream_timeout_s"),
    ({"stream_timeout_s": "60"}, "number"),
    ({"stream_timeout_s": float("nan")}, "stream_timeout_s"),
    ({"playout_s": 301}, "playout_s"),
    ({"options": {"emit_stop": True}}, "PlivoOptions"),
]


@pytest.mark.parametrize(("options", "says"), BAD_SPECS, ids=lambda value: ascii(value)[:60])
def test_a_stream_that_cannot_work_is_refused_when_it_is_described(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        StreamSpec(**{"url": URL, **options})
    assert TOKEN not in str(caught.value)
    assert "password" not in str(caught.value)


def test_what_the_wire_carries_is_accepted() -> None:
    for codec in ("PCMU", "pcmu", "L16", "L16@8000h", "L16@16000h", "PCMU@40i"):
        StreamSpec(url=URL, codec=codec)
    StreamSpec(url="memory://bot")
    StreamSpec(url="ws://[::1]:8080/a?b=c", headers={"Authorization": "Basic x"}, options=PlivoOptions(emit_stop=True))
    StreamSpec(url=URL, custom_parameters={"k": "v" * 510})


def test_what_was_checked_does_not_change_afterwards() -> None:
    parameters = {"tier": "gold"}
    spec = StreamSpec(url=URL, custom_parameters=parameters)
    parameters["tier"] = "g" * 1000
    assert spec.custom_parameters == {"tier": "gold"}


@pytest.mark.parametrize(
    "options",
    [
        {"max_calls": -1},
        {"max_calls": 1.5},
        {"pool_bytes": "64M"},
        {"hang_up_pace": 0},
        {"stall_s": None},
        {"tls_context": "default"},
        {"driver": "native"},
        {"driver": "tasks", "media_thread": True},
        {"port_range": 4000},
        {"port_range": (4001, 4001)},
    ],
)
def test_an_engine_that_cannot_work_is_refused_when_it_is_described(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        EngineConfig(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"call_id": "42"}, "uuid4"),
        ({"call_id": ""}, "uuid4"),
        ({"call_id": uuid.UUID(int=5)}, "uuid4"),
        ({"call_id": str(uuid.UUID(int=0))}, "uuid4"),
        ({"call_id": "{2f1b6f0e-8f0a-4d3b-9a43-0c6f5b8f9d11}"}, "uuid4"),
        ({"max_duration_s": -1}, "max_duration_s"),
        ({"max_duration_s": float("inf")}, "max_duration_s"),
        ({"max_duration_s": None}, "max_duration_s"),
        ({"direction": "sideways"}, "inbound nor outbound"),
        ({"from_number": 15550001111}, "from_number must be text"),
        ({"to_number": "5" * 257}, "to_number"),
        ({"leg": "PCMU"}, "RtpLeg"),
    ],
)
async def test_a_call_that_cannot_be_is_refused_when_it_is_described(
    autojump: object, options: dict[str, Any], says: str
) -> None:
    async with virtual_engine() as engine:
        with pytest.raises(ConfigError, match=says) as caught:
            engine.open_call(**{"leg": MemoryLeg(), **options})
        assert "5550001111" not in str(caught.value)
        for ident in ("2f1b6f0e-8f0a-4d3b-9a43-0c6f5b8f9d11", "2F1B6F0E-8F0A-4D3B-9A43-0C6F5B8F9D11"):
            async with engine.open_call(MemoryLeg(), call_id=ident, max_duration_s=10) as call:
                assert call.call_id == ident


async def test_an_engine_that_was_not_entered_says_what_to_write(autojump: object) -> None:
    engine = virtual_engine()
    with pytest.raises(ConfigError, match="async with open_engine"):
        engine.statistics()
    with pytest.raises(ConfigError, match="async with open_engine"):
        engine.open_call(MemoryLeg())
    async with engine:
        assert engine.statistics().calls == 0
        with pytest.raises(ConfigError, match="once"):
            async with engine:
                pytest.fail("the block must not be entered")
        async with engine.open_call(MemoryLeg()):
            assert engine.statistics().calls == 1
    assert engine.statistics().calls_opened == 1


async def test_a_call_that_was_not_entered_says_what_to_write(autojump: object) -> None:
    async with virtual_engine() as engine:
        call = engine.open_call(MemoryLeg())
        for operation in (call.start_stream(StreamSpec(url=URL)), call.play("none.wav"), call.send_digits("1")):
            with pytest.raises(ConfigError, match="async with"):
                await operation


def test_a_rate_that_is_written_in_another_way_is_nobody_else_s() -> None:
    for rate in (24000.0, 24000):
        media_format, _ = parse_codec("L16", rate)  # type: ignore[arg-type]
        assert type(media_format.sample_rate_hz) is type(rate)
