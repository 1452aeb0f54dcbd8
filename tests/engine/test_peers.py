"""Applications that are not there, do not answer, do not read or vanish; tokens, signatures and callbacks."""

from __future__ import annotations

import base64
import socket
import ssl
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import trio
import trustme
from plivo.utils import validate_v3_signature

from support.calls import Outcome, assert_nobody_else_noticed, engine, in_virtual_time, place
from support.frames import PING, TEXT, frame
from support.peer import Peer, accept_upgrade
from talkpath.dsp import pcmu_encode
from talkpath.engine import Call, CallStream, EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import CallEvent, DigitReceived, StreamEnded
from talkpath.line import Line, ServeConfig, serve_memory_lines
from talkpath.records import EndReason, EngineStatistics
from talkpath.records import Outcome as MarkFate
from talkpath.testing import ToneSource
from talkpath.transport.memory import listen_memory
from talkpath.transport.url_policy import UrlPolicy

TOKEN = "an-auth-token-that-nobody-may-see"
BEARER = "a-bearer-token-that-nobody-may-see"


async def never(peer: Peer) -> None:
    await trio.sleep_forever()


async def nothing(peer: Peer) -> None:
    """Say nothing more than the upgrade."""


def played(ms: int) -> dict[str, Any]:
    payload = base64.b64encode(pcmu_encode(ToneSource(650).take(8 * ms))).decode()
    return {"event": "playAudio", "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}}


def checkpoint(name: str) -> dict[str, Any]:
    return {"event": "checkpoint", "streamId": "s", "name": name}


def ended(outcome: Outcome) -> list[StreamEnded]:
    return [event for event in outcome.events if isinstance(event, StreamEnded)]


# Not there, or not answering


def test_one_that_never_answers_is_tried_three_times_and_given_up() -> None:
    outcome = place(None, answer=never, seconds=18)
    assert outcome.stream.reason is EndReason.HANDSHAKE_TIMED_OUT
    assert outcome.stream.cause == "TooSlowError"
    assert outcome.attempted_at == [0, 5.5, 11.5]
    assert outcome.ended_at == 16.5
    assert outcome.refused_to_start is not None
    assert outcome.refused_to_start.reason is EndReason.HANDSHAKE_TIMED_OUT
    assert [event.reason for event in ended(outcome)] == [EndReason.HANDSHAKE_TIMED_OUT]
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.BLOCK_LEFT
    assert all(peer.link.recv_into(memoryview(bytearray(4096))) > 0 for peer in outcome.attempts)
    assert all(peer.link.recv_into(memoryview(bytearray(1))) == 0 for peer in outcome.attempts), "all were closed"
    assert_nobody_else_noticed(outcome, 18)


def test_one_that_answers_a_byte_a_second_is_not_waited_for() -> None:
    async def dribble(peer: Peer) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n":
            await peer.send(bytes([byte]))
            await trio.sleep(1)

    outcome = place(None, answer=dribble, seconds=6, config=EngineConfig(connect_attempts=1))
    assert outcome.stream.reason is EndReason.HANDSHAKE_TIMED_OUT
    assert outcome.ended_at == 5


ANSWERS: list[tuple[bytes, str]] = [
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "the server answered 403 instead of 101"),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answered 404 instead of 101"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "the server answered 200 instead of 101"),
    (b"HTTP/1.1 301 Moved\r\nLocation: ws://elsewhere/\r\n\r\n", "the server answered 301 instead of 101"),
    (b"HTTP/1.1 500 Oh\r\n\r\n", "the server answered 500 instead of 101"),
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "Bad HTTP message"),
    (b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", "Bad HTTP message"),
    (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Bad accept token"),
    (
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        "Bad accept token",
    ),
    (b"X-Much: " + b"x" * 100_000, "bytes of HTTP head"),
    (b"", "the peer closed the connection during the handshake"),
    (b"HTTP/1.1 101 Switching", "the peer closed the connection during the handshake"),
]


@pytest.mark.parametrize(("answer", "cause"), ANSWERS, ids=[repr(answer[:12]) for answer, _ in ANSWERS])
def test_one_that_answers_something_else_has_refused(answer: bytes, cause: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)
        peer.link.close()

    outcome = place(None, answer=refuse)
    assert outcome.stream.reason is EndReason.HANDSHAKE_REFUSED
    assert cause in outcome.stream.cause
    assert outcome.attempted_at == [0, 0.5, 1.5]
    assert_nobody_else_noticed(outcome)


def test_one_that_is_not_there_is_tried_three_times_with_growing_pauses() -> None:
    outcome = place(None, url="memory://nobody")
    assert outcome.stream.reason is EndReason.CONNECT_FAILED
    assert outcome.stream.cause == "ConnectionRefusedError"
    assert outcome.ended_at == 1.5
    assert_nobody_else_noticed(outcome)


def test_the_third_attempt_may_succeed() -> None:
    outcome: Outcome

    async def at_last(peer: Peer) -> None:
        if trio.current_time() < 1.5:
            peer.link.close()
            raise OSError
        await peer.upgrade_as_server()

    async def application(peer: Peer) -> None:
        await peer.text(played(100))
        await peer.read_all()

    outcome = place(application, answer=at_last)
    assert outcome.started_at == 1.5
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.application_ms == 100
    assert outcome.peer.close_code == 1000
    assert_nobody_else_noticed(outcome)


@pytest.mark.parametrize("ends_call", [False, True])
def test_a_call_ends_with_a_stream_that_could_not_be_started_if_that_was_asked_for(ends_call: bool) -> None:
    outcome = place(None, url="memory://nobody", ends_call=ends_call)
    assert outcome.call is not None
    assert outcome.call.reason is (EndReason.CONNECT_FAILED if ends_call else EndReason.BLOCK_LEFT)


def test_a_hang_up_does_not_wait_for_a_connection() -> None:
    async def hang_up(call: Call) -> None:
        call.hang_up()

    async def scene() -> float:
        listener = listen_memory("silent")
        async with engine() as which, which.open_call(MemoryLeg()) as call, trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(CallEnded):
                    await call.start_stream(StreamSpec(url="memory://silent"))

            nursery.start_soon(start)
            await trio.sleep(2)
            call.hang_up()
        listener.close()
        return trio.current_time()

    assert in_virtual_time(scene) == 2


# There, and then not any more


def test_one_that_never_reads_is_given_up_after_the_stall_and_nobody_waits_for_it() -> None:
    async def application(peer: Peer) -> None:
        await peer.text(played(20_000))
        await peer.text(checkpoint("never heard"))

    outcome = place(application, reads=False, seconds=14)
    assert outcome.stream.reason is EndReason.PEER_STALLED
    # What it could have read is what the link held: 64 KiB. From the message that no longer fitted on, five seconds.
    whole = []
    while (one := trio.run(outcome.peer.read)) is not None:
        whole.append(one)
    size = len(whole[-1].payload) + 8
    n_media = len(whole) - 1  # the first was `start`
    assert 64 * 1024 - 2 * size < n_media * size < 64 * 1024
    assert outcome.ended_at is not None
    first_stuck = 0.005 + n_media * 0.02  # the second call's packets leave five ms after the first's
    assert outcome.ended_at == pytest.approx(first_stuck + 5)
    # At most 8 KiB waited here for the socket; all later messages were dropped whole.
    waited = outcome.stream.messages_sent - n_media - outcome.stream.media_dropped
    assert 8192 - size < waited * size <= 8192 + size
    # The caller heard the application until then, and heard it to the sample.
    sound = np.flatnonzero(outcome.heard)
    assert abs(sound[-1] - (first_stuck + 5) * 8000) <= 160
    assert [mark.outcome for mark in outcome.stream.marks] == [MarkFate.LOST]
    assert_nobody_else_noticed(outcome, 14)


def test_one_that_reads_slowly_loses_audio_and_lives() -> None:
    async def sip(peer: Peer) -> None:
        await peer.upgrade_as_server()

    async def application(peer: Peer) -> None:
        buffer = memoryview(bytearray(4096))
        while True:
            await trio.sleep(2)
            n = peer.link.recv_into(buffer)
            peer.taken = getattr(peer, "taken", b"") + bytes(buffer[:n])  # type: ignore[attr-defined]

    outcome = place(application, answer=sip, seconds=20)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.media_dropped > 400
    assert_nobody_else_noticed(outcome, 20)


def test_one_that_closes_the_connection_without_a_word_has_vanished() -> None:
    async def application(peer: Peer) -> None:
        await peer.text(played(1000))
        await peer.text(checkpoint("never heard"))
        await trio.sleep_until(0.5)
        peer.link.close()

    outcome = place(application)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert outcome.ended_at == 0.5
    assert np.flatnonzero(outcome.heard)[-1] <= 0.5 * 8000
    assert [(mark.outcome, mark.at_sample) for mark in outcome.stream.marks] == [(MarkFate.LOST, 4000)]
    assert_nobody_else_noticed(outcome)


def test_one_that_dies_in_the_middle_of_a_frame_has_vanished() -> None:
    async def application(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.send(frame(TEXT, says_length=5000) + b'{"event":"playAudio"')
        await trio.sleep(0.1)
        peer.link.close()

    outcome = place(application)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert outcome.ended_at == 0.6
    assert outcome.stream.refused == {}
    assert_nobody_else_noticed(outcome)


def test_one_that_dies_in_the_middle_of_a_fragmented_message_has_vanished() -> None:
    async def application(peer: Peer) -> None:
        await peer.send(frame(TEXT, b" " * 900_000, fin=False))
        await trio.sleep_until(0.5)
        peer.link.close()

    outcome = place(application)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert_nobody_else_noticed(outcome)


def test_a_half_open_connection_is_found_by_pings() -> None:
    outcome = place(nothing, pongs=False, seconds=33)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    pings = [at for one, at in zip(outcome.peer.frames, outcome.peer.arrived, strict=True) if one.opcode == PING]
    assert pings == [10]
    assert outcome.ended_at is not None
    assert 30 <= outcome.ended_at <= 31
    assert_nobody_else_noticed(outcome, 33)


def test_one_that_only_listens_and_answers_pings_is_there() -> None:
    outcome = place(nothing, seconds=42)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    pings = [at for one, at in zip(outcome.peer.frames, outcome.peer.arrived, strict=True) if one.opcode == PING]
    assert pings == pytest.approx([10, 20, 30, 40])
    assert_nobody_else_noticed(outcome, 42)


@pytest.mark.parametrize("ends_call", [False, True])
def test_a_stream_ends_at_its_timeout_and_the_call_only_if_asked(ends_call: bool) -> None:
    outcome = place(nothing, stream_timeout_s=1.0, ends_call=ends_call)
    assert outcome.stream.reason is EndReason.STREAM_TIMED_OUT
    assert outcome.stream.duration_ms == 1000
    assert outcome.peer.close_code == 1000
    assert outcome.call is not None
    assert outcome.call.reason is (EndReason.STREAM_TIMED_OUT if ends_call else EndReason.BLOCK_LEFT)
    assert outcome.call.duration_ms == (1000 if ends_call else 2000)
    assert_nobody_else_noticed(outcome)


def test_a_call_ends_at_its_longest_duration() -> None:
    async def scene() -> tuple[float, EndReason]:
        async with engine() as which, which.open_call(MemoryLeg(), max_duration_s=3) as call:
            record = await call.wait_ended()
            return trio.current_time(), record.reason

    assert in_virtual_time(scene) == (3, EndReason.DURATION_REACHED)


# Who is calling: tokens and signatures


async def _answered(config: ServeConfig, spec: dict[str, Any]) -> Line | CallEnded:
    lines: list[Line] = []

    async def bot(line: Line) -> None:
        lines.append(line)
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(partial_serve(bot, config))
        async with engine(EngineConfig(connect_attempts=1)) as which, which.open_call(MemoryLeg()) as call:
            try:
                await call.start_stream(StreamSpec(**{"url": url, **spec}))
                await trio.sleep(0.1)
            except CallEnded as exc:
                nursery.cancel_scope.cancel()
                return exc
        nursery.cancel_scope.cancel()
    return lines[0]


def partial_serve(bot: Any, config: ServeConfig) -> Any:
    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await serve_memory_lines(bot, "signed", config=config, task_status=task_status)

    return serve


@pytest.mark.parametrize("path", ["", "/", "/audio", "/audio?tier=gold&a=1", "/a%20b?x=%2B&x=0"])
def test_a_signed_upgrade_is_verified_at_the_other_end(path: str) -> None:
    answer = in_virtual_time(
        _answered, ServeConfig(plivo_auth_token=TOKEN), {"url": f"memory://signed{path}", "auth_token": TOKEN}
    )
    assert isinstance(answer, Line)
    assert answer.info.path == (path or "/")


@pytest.mark.parametrize("spec", [{}, {"auth_token": "another"}, {"headers": {"X-Plivo-Signature-V3": "AAAA"}}])
def test_an_upgrade_without_a_right_signature_is_answered_403(spec: dict[str, Any]) -> None:
    answer = in_virtual_time(_answered, ServeConfig(plivo_auth_token=TOKEN), spec)
    assert isinstance(answer, CallEnded)
    assert answer.reason is EndReason.HANDSHAKE_REFUSED
    assert "403" in str(answer.cause)


def test_behind_a_proxy_the_public_address_is_what_was_signed() -> None:
    config = ServeConfig(plivo_auth_token=TOKEN, public_url="wss://public.example")
    assert isinstance(in_virtual_time(_answered, config, {"auth_token": TOKEN}), CallEnded)


def test_every_attempt_has_a_nonce_of_its_own_and_a_signature_that_plivos_sdk_accepts() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
        peer.link.close()

    outcome = place(None, answer=refuse, url="memory://application/audio?x=1", auth_token=TOKEN)
    nonces = [peer.headers["x-plivo-signature-v3-nonce"] for peer in outcome.attempts]
    assert len(set(nonces)) == 3
    for peer, nonce in zip(outcome.attempts, nonces, strict=True):
        signature = peer.headers["x-plivo-signature-v3"]
        assert validate_v3_signature("GET", "http://application/audio?x=1", nonce, TOKEN, signature)


def test_bearer_token_and_headers_travel_with_the_upgrade() -> None:
    outcome = place(nothing, authorization_bearer_token=BEARER, headers={"X-Tier": "gold"})
    assert outcome.peer.headers["authorization"] == f"Bearer {BEARER}"
    assert outcome.peer.headers["x-tier"] == "gold"
    assert BEARER not in repr(StreamSpec(url="ws://a", authorization_bearer_token=BEARER, auth_token=TOKEN))
    assert TOKEN not in repr(StreamSpec(url="ws://a", authorization_bearer_token=BEARER, auth_token=TOKEN))


@pytest.mark.parametrize(
    "options",
    [
        {"authorization_bearer_token": "two\r\nlines: x"},
        {"authorization_bearer_token": "two words"},
        {"headers": {"X-A": "two\r\nlines: x"}},
        {"headers": {"X A": "x"}},
        {"headers": {"": "x"}},
        {"status_url": "ftp://app.example/"},
        {"status_url": "https://app.example/\r\nX: y"},
        {"status_url": "https://user@app.example/"},
    ],
)
def test_what_cannot_be_sent_is_refused_before_there_is_a_stream(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        StreamSpec(url="ws://app.example", **options)
    assert "lines" not in str(caught.value)


# What the owner of the stream is told


def fields(outcome: Outcome) -> list[dict[str, str]]:
    return [
        {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}
        for request in outcome.callbacks
    ]


async def eventful(peer: Peer) -> None:
    for _ in range(25):
        await peer.text(played(2000))
    await peer.text(checkpoint("lost"))
    await trio.sleep_until(0.5)
    await peer.text({"event": "clearAudio", "streamId": "s"})
    await peer.text(played(100))
    await peer.text(checkpoint("heard"))
    await trio.sleep_until(1)
    await peer.close()


def test_every_turn_is_told_in_the_classic_naming() -> None:
    outcome = place(eventful, status_url="https://app.example/status", status_scheme="A")
    assert [(one["Event"], one["Error"]) for one in fields(outcome)] == [
        ("StartStream", ""),
        ("DegradedStream", "buffer 30 % full"),
        ("DegradedStream", "buffer 60 % full"),
        ("DegradedStream", "buffer 90 % full"),
        ("DegradedStream", "buffer_overflow"),
        ("ClearedAudio", ""),
        ("PlayedStream", ""),
        ("StopStream", ""),
    ]
    assert [one["Name"] for one in fields(outcome) if "Name" in one] == ["heard"]


def test_starting_and_stopping_are_told_in_the_guides_naming() -> None:
    outcome = place(eventful, status_url="https://app.example/status", status_scheme="B")
    assert [(one["Event"], one.get("StatusReason"), one.get("Duration")) for one in fields(outcome)] == [
        ("started", None, None),
        ("stopped", "completed", "1"),
    ]


@pytest.mark.parametrize(
    ("scheme", "name", "reason"), [("A", "DroppedStream", "Error"), ("B", "failed", "StatusReason")]
)
def test_a_failure_is_told_with_its_reason(scheme: str, name: str, reason: str) -> None:
    status = {"status_url": "https://app.example/status", "status_scheme": scheme}
    (never_there,) = fields(place(None, url="memory://nobody", **status))
    assert (never_there["Event"], never_there[reason]) == (name, "connection_failed")

    async def vanish(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        peer.link.close()

    _, gone = fields(place(vanish, **status))
    assert (gone["Event"], gone[reason]) == (name, "peer_vanished")


def test_callbacks_are_signed_each_with_a_nonce_of_its_own() -> None:
    status = {"status_url": "https://app.example/status?x=1", "status_scheme": "A", "auth_token": TOKEN}
    outcome = place(eventful, **status)
    nonces = set()
    for request, form in zip(outcome.callbacks, fields(outcome), strict=True):
        headers = dict(request.headers)
        nonce = headers["X-Plivo-Signature-V3-Nonce"]
        nonces.add(nonce)
        assert validate_v3_signature("POST", request.url, nonce, TOKEN, headers["X-Plivo-Signature-V3"], form)
    assert len(nonces) == len(outcome.callbacks) == 8


# Faults of our own user's making


def test_a_hook_that_raises_ends_its_call_and_no_other() -> None:
    def hook(event: CallEvent) -> None:
        if isinstance(event, DigitReceived):
            raise RuntimeError("the user's own")

    async def during(call: Call) -> None:
        call.on_event(hook)
        await trio.sleep_until(0.5)
        call.leg.press("5")  # type: ignore[attr-defined]

    outcome = place(nothing, during=during)
    assert outcome.call is not None
    assert (outcome.call.reason, outcome.call.cause) == (EndReason.APPLICATION_FAILED, "RuntimeError")
    assert_nobody_else_noticed(outcome)


def test_an_ear_that_raises_ends_its_call_and_no_other() -> None:
    def hear(pcm: object) -> None:
        if trio.current_time() >= 0.5:
            raise RuntimeError("the user's own")

    outcome = place(nothing, leg=MemoryLeg(on_heard=hear))
    assert outcome.call is not None
    assert (outcome.call.reason, outcome.call.cause) == (EndReason.INTERNAL_ERROR, "RuntimeError")
    assert outcome.peer.close_code == 1011
    assert_nobody_else_noticed(outcome)


def test_what_raises_while_a_message_is_obeyed_ends_its_stream_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is called between a socket and the path: its exception is this stream's and must not reach the clock."""

    monkeypatch.setattr(CallStream, "_clear", lambda self, ident: 1 / 0)

    async def application(peer: Peer) -> None:
        await trio.sleep_until(0.5)
        await peer.text({"event": "clearAudio", "streamId": "s"})

    outcome = place(application)
    assert (outcome.stream.reason, outcome.stream.cause) == (EndReason.INTERNAL_ERROR, "ZeroDivisionError")
    assert outcome.ended_at == 0.5
    assert outcome.peer.close_code == 1011
    assert_nobody_else_noticed(outcome)


# A full socket, in earnest


@pytest.mark.smoke
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_a_real_socket_that_nobody_reads_ends_its_stream_and_nothing_else(secure: bool) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)

    async def application(stream: trio.SocketStream) -> None:
        plain: trio.abc.Stream = trio.SSLStream(stream, server, server_side=True) if secure else stream
        head = b""
        while b"\r\n\r\n" not in head:
            head += bytes(await plain.receive_some())
        key = next(line for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key"))
        await plain.send_all(accept_upgrade(key.partition(":")[2].strip()))
        await trio.sleep_forever()

    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    port = listener[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, application, listener)
        settings = EngineConfig(stall_s=0.3, tls_context=client)
        async with engine(settings) as which, which.open_call(MemoryLeg(sample_rate_hz=16000)) as call:
            url = f"{'wss' if secure else 'ws'}://localhost:{port}/"
            stream = await call.start_stream(StreamSpec(url=url, codec="L16@16000h", bidirectional=True))
            with trio.fail_after(20):
                await stream.ended.wait()
            assert stream.record is not None
            assert stream.record.reason is EndReason.PEER_STALLED
            assert call.end_reason is None
        nursery.cancel_scope.cancel()


# Callbacks over real sockets


LOOPBACK = UrlPolicy(networks=("127.0.0.0/8",))


class WebServer:
    """Answers each request with the next of `answers`, b"" being no answer at all; keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.at: list[float] = []
        self.url = ""

    async def serve(self, *, task_status: trio.TaskStatus[str]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/status?kept=1"
        task_status.started(self.url)
        await trio.serve_listeners(self._serve_one, listeners)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        text = b""
        while b"\r\n\r\n" not in text:
            text += await stream.receive_some()
        head, _, body = text.partition(b"\r\n\r\n")
        request, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += await stream.receive_some()
        form = body.decode() if body else request.split(" ")[1].partition("?")[2]
        self.requests.append((request, headers, {name: values[0] for name, values in parse_qs(form).items()}))
        self.at.append(trio.current_time())
        answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No\r\n\r\n"
        if not answer:
            await trio.sleep_forever()
        await stream.send_all(answer)
        await stream.aclose()


async def short_call(config: EngineConfig, **options: Any) -> tuple[EngineStatistics, EngineStatistics]:
    """A call of a fifth of a second. -> what the engine had counted when the call was gone, and when itself was left"""
    listener = listen_memory("application")

    async def application() -> None:
        peer = Peer(await listener.accept(), client=False)
        await peer.upgrade_as_server()
        await peer.read_all()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(application)
        async with engine(config) as which:
            async with which.open_call(MemoryLeg(), from_number="+15550001111", to_number="+15550002222") as call:
                await call.start_stream(StreamSpec(url="memory://application", **options))
                await trio.sleep(0.2)
            hung_up = which.statistics()
        left = which.statistics()
    listener.close()
    return hung_up, left


@pytest.mark.smoke
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("scheme", ["A", "B"])
async def test_callbacks_are_delivered_and_tried_again(method: str, scheme: str) -> None:
    server = WebServer(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.serve)
        _, left = await short_call(
            EngineConfig(callback_policy=LOOPBACK), status_url=url, status_url_method=method, status_scheme=scheme
        )
        nursery.cancel_scope.cancel()
    assert (left.callbacks_delivered, left.callbacks_failed) == (2, 0)
    assert len(server.requests) == 3
    words = {"A": ("StartStream", "StopStream"), "B": ("started", "stopped")}[scheme]
    assert [form["Event"] for _, _, form in server.requests].count(words[0]) == 2
    assert {form["Event"] for _, _, form in server.requests} == set(words)
    started = [headers for _, headers, form in server.requests if form["Event"] == words[0]]
    assert started[0]["x-talkpath-delivery"] == started[1]["x-talkpath-delivery"]
    for request, headers, form in server.requests:
        assert request.startswith(f"{method} /status?kept=1")
        assert form["From"] == "+15550001111"
        if method == "POST":
            assert headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.smoke
async def test_a_flood_of_passing_news_displaces_nobodys_beginning_or_end() -> None:
    server = WebServer(*[b""] * 100)
    settings = EngineConfig(callback_deadline_s=1, max_callbacks=8, connect_attempts=1, callback_policy=LOOPBACK)
    listener = listen_memory("flooder")

    async def flooder() -> None:
        peer = Peer(await listener.accept(), client=False)
        await peer.upgrade_as_server()
        for _ in range(50):
            await peer.text({"event": "clearAudio", "streamId": "s"})
        await peer.read_all()

    async with trio.open_nursery() as nursery:
        status = {"status_url": await nursery.start(server.serve), "status_scheme": "A"}
        nursery.start_soon(flooder)
        async with engine(settings) as which, which.open_call(MemoryLeg()) as call:
            await call.start_stream(StreamSpec(url="memory://flooder", bidirectional=True, **status))
            await trio.sleep(0.2)
            async with which.open_call(MemoryLeg()) as other:
                with pytest.raises(CallEnded):
                    await other.start_stream(StreamSpec(url="memory://nobody", **status))
            await trio.sleep(0.2)
            told = [form["Event"] for _, _, form in server.requests]
            failed = which.statistics().callbacks_failed
        nursery.cancel_scope.cancel()
    listener.close()
    assert sorted(told) == ["DroppedStream", "StartStream"]  # one stream's go one after the other: its clears wait
    assert failed == 50 - 3  # of eight, half are for what an application can cause; the first was the stream's start


@pytest.mark.smoke
async def test_a_callback_server_that_never_answers_delays_no_hang_up() -> None:
    server = WebServer(b"", b"", b"", b"")
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.serve)
        hung_up, left = await short_call(EngineConfig(callback_deadline_s=1, callback_policy=LOOPBACK), status_url=url)
        nursery.cancel_scope.cancel()
    assert (hung_up.calls, hung_up.callbacks_delivered, hung_up.callbacks_failed) == (0, 0, 0), (
        "the call was gone first"
    )
    assert (left.callbacks_delivered, left.callbacks_failed) == (0, 2)
