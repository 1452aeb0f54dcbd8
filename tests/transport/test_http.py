"""Callbacks delivered: over streams in memory and in virtual time, and once over real sockets with TLS."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from talkpath.errors import ConfigError
from talkpath.transport.http import DeliveryOptions, DeliveryResult, deliver
from talkpath.transport.url_policy import EVERYWHERE
from talkpath.wire.callback import CallbackRequest, callback

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = callback("POST", "http://app.example:8080/status?x=1", {"Event": "StartStream"})


class Server:
    """A web server in memory: each connection is one script step, a text to answer or something to do."""

    def __init__(self, nursery: trio.Nursery, *steps: bytes | Exception | Callable[[trio.abc.Stream], Awaitable[None]]):
        self.nursery = nursery
        self.steps = list(steps)
        self.opened: list[tuple[str, int, bool]] = []
        self.opened_at: list[float] = []
        self.requests: list[bytes] = []
        self.streams: list[trio.abc.Stream] = []

    async def open_stream(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        self.opened.append((host, port, tls))
        self.opened_at.append(trio.current_time())
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(ours)
        self.nursery.start_soon(self._serve, theirs, step)
        return ours

    async def _serve(self, stream: trio.abc.Stream, step: bytes | Callable[[trio.abc.Stream], Awaitable[None]]) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some()
        head, _, body = request.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += await stream.receive_some()
        self.requests.append(head + b"\r\n\r\n" + body)
        try:
            if callable(step):
                await step(stream)
            else:
                await stream.send_all(step)
        except trio.BrokenResourceError:
            pass
        await stream.aclose()


async def run(
    request: CallbackRequest,
    *steps: bytes | Exception | Callable[[trio.abc.Stream], Awaitable[None]],
    options: DeliveryOptions | None = None,
) -> tuple[DeliveryResult, Server]:
    async with trio.open_nursery() as nursery:
        server = Server(nursery, *steps)
        result = await deliver(
            request, delivery_id="d-1", options=options or DeliveryOptions(), open_stream=server.open_stream
        )
        nursery.cancel_scope.cancel()
    for stream in server.streams:  # nothing of a delivery is left open
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
    return result, server


async def test_a_form_is_posted(autojump_clock: trio.testing.MockClock) -> None:
    signed = CallbackRequest(POST.method, POST.url, (*POST.headers, ("X-Plivo-Signature-V3", "abc=")), POST.body)
    result, server = await run(signed, OK)
    assert result == DeliveryResult(True, 1, 200)
    assert server.opened == [("app.example", 8080, False)]
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /status?x=1 HTTP/1.1"
    assert {h.partition(": ")[0].lower(): h.partition(": ")[2] for h in headers} == {
        "host": "app.example:8080",
        "user-agent": "talkpath",
        "accept": "*/*",
        "connection": "close",
        "x-talkpath-delivery": "d-1",
        "content-type": "application/x-www-form-urlencoded",
        "x-plivo-signature-v3": "abc=",
        "content-length": "17",
    }
    assert body == b"Event=StartStream"


async def test_a_query_is_got(autojump_clock: trio.testing.MockClock) -> None:
    result, server = await run(callback("GET", "https://app.example", {"Event": "a b"}), b"HTTP/1.1 204 No\r\n\r\n")
    assert result == DeliveryResult(True, 1, 204)
    assert server.opened == [("app.example", 443, True)]
    assert server.requests[0].startswith(b"GET /?Event=a+b HTTP/1.1\r\nHost: app.example\r\n")
    assert b"content-length" not in server.requests[0].lower()


async def test_interim_answers_are_passed_over(autojump_clock: trio.testing.MockClock) -> None:
    result, _ = await run(POST, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + OK)
    assert result == DeliveryResult(True, 1, 200)


@pytest.mark.parametrize("status", [301, 400, 404, 418])
async def test_what_another_try_would_not_mend_is_not_tried_again(
    autojump_clock: trio.testing.MockClock, status: int
) -> None:
    answer = b"HTTP/1.1 %d X\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n" % status
    result, server = await run(POST, answer)
    assert result == DeliveryResult(False, 1, status, "status")
    assert len(server.opened) == 1


@pytest.mark.parametrize(
    ("step", "status", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503, "status"),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", 429, "status"),
        (OSError("refused"), None, "OSError"),
        (b"", None, "RemoteProtocolError"),
        (b"hello\r\n\r\n", None, "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000, None, "RemoteProtocolError"),
        (b"HTTP/1.1 100 Go\r\n\r\n" * 20, None, "RemoteProtocolError"),
    ],
)
async def test_what_may_pass_is_tried_again_with_growing_waits(
    autojump_clock: trio.testing.MockClock, step: bytes | Exception, status: int | None, error: str
) -> None:
    options = DeliveryOptions(attempts=5, backoff_s=1, backoff_max_s=3)
    result, server = await run(POST, *[step] * 5, options=options)
    assert result == DeliveryResult(False, 5, status, error)
    assert [at - server.opened_at[0] for at in server.opened_at] == [0, 1, 3, 6, 9]
    result, server = await run(POST, step, step, OK)
    assert result == DeliveryResult(True, 3, 200)
    assert len(set(server.requests)) == 1  # the same request, the same delivery id


@pytest.mark.parametrize(("asked", "waited"), [(b"3", 3), (b"99999", 8), (b"soon", 0.5), (b"0", 0.5)])
async def test_the_servers_wish_to_wait_is_followed_within_bounds(
    autojump_clock: trio.testing.MockClock, asked: bytes, waited: float
) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % asked
    result, server = await run(POST, busy, OK)
    assert result == DeliveryResult(True, 2, 200)
    assert server.opened_at[1] - server.opened_at[0] == waited


async def test_a_server_that_never_answers_costs_its_try(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    begun = trio.current_time()
    result, _ = await run(POST, hang, OK, options=DeliveryOptions(attempt_s=4, backoff_s=1))
    assert result == DeliveryResult(True, 2, 200)
    assert trio.current_time() - begun == 5
    result, _ = await run(POST, *[hang] * 9, options=DeliveryOptions(attempts=9, attempt_s=4, deadline_s=10))
    assert result == DeliveryResult(False, 3, None, "deadline")
    assert trio.current_time() - begun == 15


async def test_a_deadline_within_a_wait_keeps_the_last_answer(autojump_clock: trio.testing.MockClock) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    options = DeliveryOptions(attempts=9, backoff_s=6, backoff_max_s=6, deadline_s=10)
    result, _ = await run(POST, *[busy] * 9, options=options)
    assert result == DeliveryResult(False, 2, 503, "deadline")


async def test_a_body_without_end_does_not_hold_up_the_delivery(autojump_clock: trio.testing.MockClock) -> None:
    async def endless(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"x" * 1000)
            await trio.lowlevel.checkpoint()

    async def trickle(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await trio.sleep_forever()

    begun = trio.current_time()
    for step, took_s in ((endless, 0), (trickle, 1)):
        result, _ = await run(POST, step)
        assert result == DeliveryResult(True, 1, 200)
        assert trio.current_time() - begun == took_s


async def test_cancelling_closes_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = Server(nursery, hang)
        with trio.move_on_after(1) as scope:
            await deliver(POST, delivery_id="d", open_stream=server.open_stream)
        assert scope.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await server.streams[0].send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_host_that_no_name_service_could_hold(autojump_clock: trio.testing.MockClock) -> None:
    result = await deliver(callback("GET", "http://a..example/", {}), delivery_id="d")
    assert result == DeliveryResult(False, 1, None, "UnicodeError")


@pytest.mark.smoke
async def test_over_tls_certificates_are_verified() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(OK)
            await stream.aclose()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            listeners = await trio.open_ssl_over_tcp_listeners(
                0, server_context, host="127.0.0.1", https_compatible=True
            )
            transport = listeners[0].transport_listener
            assert isinstance(transport, trio.SocketListener)
            port = transport.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            request = callback("POST", f"https://localhost:{port}/", {"a": "b"})
            trusted = await deliver(request, delivery_id="d", policy=EVERYWHERE, ssl_context=trusting)
            assert trusted == DeliveryResult(True, 1, 200)
            stranger = await deliver(request, delivery_id="d", policy=EVERYWHERE)
            assert stranger == DeliveryResult(False, 1, None, "SSLCertVerificationError")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "options",
    [{"deadline_s": 0}, {"attempt_s": -1}, {"attempts": 0}, {"backoff_s": -1}, {"backoff_s": 9, "backoff_max_s": 8}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DeliveryOptions(**options)  # type: ignore[arg-type]
