"""No log, record or error holds a digit, a number, a token or audio, however badly things go."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from support.calls import Outcome, engine, in_virtual_time, place
from support.frames import BINARY, KEY, TEXT, frame
from support.peer import Peer, connect
from talkpath.dsp import pcmu_encode
from talkpath.engine import Call, EngineConfig, MemoryLeg, RtpLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError, LocalWireError
from talkpath.line import Line, LineRecord, ServeConfig, serve_memory_lines
from talkpath.testing import ToneSource
from talkpath.transport.url_policy import UrlPolicy

NUMBER = "15550001111"
DIGITS = "471108159"
BEARER = "bearer-4f6d2a9c"
AUTH = "auth-9b81d3e7"
SECRET = "secret-77c0ffee"
AUDIO = base64.b64encode(pcmu_encode(ToneSource(650).take(800))).decode()
MARKERS = (NUMBER, DIGITS, BEARER, AUTH, SECRET, AUDIO[40:60])

SPEC: dict[str, Any] = {
    "authorization_bearer_token": BEARER,
    "auth_token": AUTH,
    "headers": {"X-Key": SECRET},
    "custom_parameters": {"customer": SECRET},
    "url": f"memory://application/{SECRET}?token={SECRET}",
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def assert_discreet(log: pytest.LogCaptureFixture, *things: object) -> None:
    """Nothing that was logged, tracebacks included, and no repr of what is kept, holds a marker."""
    for text in (log.text, *map(repr, things), *map(str, things)):
        for marker in MARKERS:
            assert marker not in text
    for record in log.records:
        if not record.name.startswith(("asyncio", "trio")):
            assert re.fullmatch(r"talkpath\.[a-z]+\.[a-z_0-9]+", record.name)


def kept(outcome: Outcome) -> list[object]:
    things: list[object] = [outcome.call, outcome.refused_to_start, outcome.engine]
    if outcome.refused_to_start is not None:
        things.append(outcome.refused_to_start.cause)
    return things


async def nonsense(peer: Peer) -> None:
    """Every kind of message that is refused, each holding something that must not be repeated."""
    for message in (
        f"{DIGITS} {NUMBER}",
        {"event": DIGITS},
        {"event": f"+{NUMBER}"},
        {"event": {DIGITS: NUMBER}},
        {"event": "sendDTMF", "dtmf": DIGITS},
        {"event": "sendDTMF", "dtmf": f"{DIGITS}x"},
        {"event": "sendDTMF", "dtmf": int(DIGITS)},
        {"event": "checkpoint", "name": SECRET * 100},
        {"event": "checkpoint", "name": SECRET},
        {"event": "playAudio", "media": {"payload": AUDIO + "!"}},
        {"event": "playAudio", "media": {"payload": AUDIO, "contentType": NUMBER}},
        {"event": "playAudio", "media": {"payload": AUDIO, "contentType": "audio/x-l16", "sampleRate": int(NUMBER)}},
        {"event": "playAudio", "media": {"payload": AUDIO, "contentType": "audio/x-mulaw", "sampleRate": 8000}},
        {"event": "clearAudio", "streamId": SECRET},
    ):
        await peer.text(message)
    await peer.send(frame(BINARY, AUDIO.encode()))
    await trio.sleep(0.5)


async def break_off(peer: Peer) -> None:
    await nonsense(peer)
    await peer.send(frame(TEXT, f'{{"event":"{SECRET}\xff"}}'.encode("latin-1")))


async def press(call: Call) -> None:
    for digit in DIGITS:
        call.leg.press(digit)  # type: ignore[attr-defined]
        await trio.sleep(0.01)


@pytest.mark.parametrize("application", [nonsense, break_off])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_call_with_all_kinds_of_nonsense(
    log: pytest.LogCaptureFixture, application: Callable[[Peer], Awaitable[None]], bidirectional: bool
) -> None:
    outcome = place(application, during=press, bidirectional=bidirectional, **SPEC)
    assert sum(outcome.stream.refused.values()) >= 10
    assert outcome.stream.digits_received == len(DIGITS)
    # The names of checkpoints are the application's own words for its audio, and the record is there to tell them.
    for mark in outcome.stream.marks:
        assert mark.name == SECRET
    assert_discreet(log, *(thing for thing in kept(outcome) if thing is not outcome.call or not outcome.stream.marks))
    assert "refused" in log.text


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 403 {SECRET}\r\nX: {SECRET}\r\n\r\n",
        f"{SECRET} {NUMBER}\r\n\r\n",
        f"HTTP/1.1 301 Moved\r\nLocation: ws://{SECRET}/\r\n\r\n",
        f"HTTP/1.1 101 Yes\r\nUpgrade: {SECRET}\r\nSec-WebSocket-Accept: {SECRET}\r\n\r\n",
        f"HTTP/1.1 101 Yes\r\nbroken {SECRET}\r\n\r\n",
    ],
)
def test_an_application_that_refuses(log: pytest.LogCaptureFixture, answer: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer.encode())
        peer.link.close()

    assert_discreet(log, *kept(place(None, answer=refuse, config=EngineConfig(connect_attempts=1), **SPEC)))


def test_a_user_whose_own_code_fails(log: pytest.LogCaptureFixture) -> None:
    """A traceback shows lines of code, never the values in them."""

    def hook(event: object) -> None:
        raise KeyError

    async def during(call: Call) -> None:
        call.on_event(hook)
        with pytest.raises(CallEnded):
            await press(call)

    outcome = place(nonsense, during=during, **SPEC)
    assert "KeyError" in log.text
    assert_discreet(log, outcome.refused_to_start)


@pytest.mark.smoke
async def test_callbacks_that_cannot_be_delivered(log: pytest.LogCaptureFixture) -> None:
    loopback = UrlPolicy(networks=("127.0.0.0/8",))
    settings = EngineConfig(connect_attempts=1, callback_attempts=1, callback_deadline_s=2, callback_policy=loopback)
    async with engine(settings) as which:
        call = which.open_call(MemoryLeg(), from_number=NUMBER, to_number=NUMBER)
        status = {"status_url": f"http://127.0.0.1:9/{SECRET}?n={NUMBER}"}
        async with call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(**SPEC, **status))
    assert "was not delivered" in log.text
    assert_discreet(log, caught.value, call.record)


START = {
    "event": "start",
    "sequenceNumber": 1,
    "start": {
        "callId": "7a9f8c52-9f40-4c0b-8f8e-111111111111",
        "streamId": "20170ee2-2d41-4d3b-9d54-222222222222",
        "accountId": SECRET,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    },
    "extra_headers": json.dumps({"customer": SECRET}),
}

UPGRADES: list[bytes] = [
    f"GET /{SECRET} HTTP/1.1\r\nAuthorization Bearer {BEARER}\r\n\r\n".encode(),
    f"GET /{SECRET} HTTP/1.1\r\nHost: bot\r\nAuthorization: Bearer \x01{BEARER}\r\n\r\n".encode(),
    f"{SECRET} {NUMBER}\r\n\r\n".encode(),
    f"GET /{SECRET} HTTP/1.1\r\nHost: {SECRET}\r\nAuthorization: Bearer {BEARER}\r\n\r\n".encode(),
]


def serve_and(work: Callable[[], Awaitable[None]], config: ServeConfig, bot: Callable[[Line], Awaitable[None]]) -> None:
    async def scene() -> None:
        async def serve(*, task_status: trio.TaskStatus[str]) -> None:
            await serve_memory_lines(bot, "bot", config=config, task_status=task_status)

        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            await work()
            nursery.cancel_scope.cancel()

    in_virtual_time(scene)


async def patient(line: Line) -> None:
    await line.wait_ended()


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_a_server_that_is_sent_no_upgrade(log: pytest.LogCaptureFixture, upgrade: bytes) -> None:
    async def work() -> None:
        peer = connect("bot")
        await peer.send(upgrade)
        assert SECRET not in await peer.read_head()
        peer.link.close()
        await trio.sleep(1)

    serve_and(work, ServeConfig(plivo_auth_token=AUTH), patient)
    assert "was refused" in log.text
    assert_discreet(log)


def test_a_server_that_is_sent_a_wrong_signature(log: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        peer = connect("bot")
        status = await peer.upgrade_as_client(
            f"/{SECRET}", ("X-Plivo-Signature-V3", SECRET), ("X-Plivo-Signature-V3-Nonce", NUMBER), host=SECRET
        )
        assert "403" in status
        peer.link.close()
        await trio.sleep(1)

    serve_and(work, ServeConfig(plivo_auth_token=AUTH), patient)
    assert "no valid signature" in log.text
    assert_discreet(log)


@pytest.mark.parametrize(
    "first",
    [
        SECRET,
        [NUMBER],
        {"type": SECRET, "number": NUMBER},
        {"event": NUMBER},
        {NUMBER: SECRET},
        {**START, "start": SECRET},
    ],
)
def test_a_server_that_is_sent_another_wire(log: pytest.LogCaptureFixture, first: object) -> None:
    async def work() -> None:
        peer = connect("bot")
        await peer.upgrade_as_client()
        await peer.text(first)
        await peer.close()
        await peer.read_all()
        await trio.sleep(1)
        reasons = [one.payload[2:].decode() for one in peer.frames if one.opcode == 8]
        assert_discreet(log, *reasons)

    serve_and(work, ServeConfig(), patient)
    assert "was refused" in log.text


def test_a_line_with_all_kinds_of_nonsense_and_a_bot_that_fails(log: pytest.LogCaptureFixture) -> None:
    records: list[LineRecord] = []
    errors: list[BaseException] = []

    async def bot(line: Line) -> None:
        for wrong in (f"{DIGITS}w", f"{NUMBER}x", "1" * 100):
            try:
                await line.send_digits(wrong)
            except LocalWireError as exc:
                errors.append(exc)
        line.checkpoint("here")
        await line.send_digits(DIGITS)
        await trio.sleep(0.5)
        raise KeyError

    async def work() -> None:
        peer = connect("bot")
        await peer.upgrade_as_client(f"/{SECRET}", ("Authorization", f"Bearer {BEARER}"))
        await peer.text(START)
        for message in (
            f"{DIGITS} {NUMBER}",
            {"event": DIGITS},
            {"event": "dtmf", "dtmf": {"digit": DIGITS}},
            {"event": "playedStream", "name": SECRET},
            {"event": "media", "media": {"payload": AUDIO + "!", "track": NUMBER}},
            START,
        ):
            await peer.text(message)
        await peer.send(frame(BINARY, AUDIO.encode(), key=KEY))
        await peer.read_all()

    serve_and(work, ServeConfig(on_ended=records.append), bot)
    assert len(errors) == 3
    assert sum(records[0].statistics.refused.values()) == 7
    assert "KeyError" in log.text
    assert_discreet(log, *errors, records[0].statistics)


@pytest.mark.parametrize(
    "make",
    [
        lambda: StreamSpec(url="ws://a", authorization_bearer_token=f"{BEARER}\n"),
        lambda: StreamSpec(url="ws://a", headers={"X": f"{SECRET}\n"}),
        lambda: StreamSpec(url="ws://a", status_url=f"http://{SECRET}@app.example/{SECRET}"),
        lambda: StreamSpec(url="ws://a", status_url=f"gopher://{SECRET}"),
        lambda: RtpLeg(remote=(NUMBER, 4000)),
        lambda: MemoryLeg().press(DIGITS),
    ],
)
def test_errors_of_configuration_say_what_is_wrong_and_not_with_which_secret(
    log: pytest.LogCaptureFixture, make: Callable[[], object]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert_discreet(log, caught.value)
