"""A small HTTP/1.1 client that delivers status callbacks, and nothing else.

A callback is worth a few tries and no more: it runs in the engine's own nursery under a deadline, so that nobody's web
server can hold up a hang-up. One request per connection, no redirects, no proxies; the answer's headers are bounded and
its body thrown away. A try that may have arrived and one that did not are repeated alike, so each delivery has one id
(``X-Talkpath-Delivery``) by which a server can tell a repetition.

The URL may be a stranger's: where it may lead is a `UrlPolicy`'s to say, and a redirect is an answer like any other,
not an address.

Tried again: a failed connection, 429, 5xx. Not tried again: any other answer, a certificate that does not verify, a
destination that is not permitted.

Source: RFC 9110 and 9112 (HTTP), by way of h11; RFC 9110 10.2.3 (Retry-After).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from talkpath.errors import ConfigError
from talkpath.transport.tls import default_client_context
from talkpath.transport.url_policy import PUBLIC, DestinationForbidden, UrlPolicy, open_permitted
from talkpath.wire.callback import CallbackRequest

DELIVERY_HEADER: Final = "X-Talkpath-Delivery"

_RESPONSE_HEADERS_MAX_BYTES: Final = 16 * 1024
_RESPONSE_BODY_MAX_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 4096
_INFORMATIONAL_MAX: Final = 8

OpenStream = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to (host, port, whether TLS)."""


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How hard a callback is tried.

    Raises:
        ConfigError: says what would be right.
    """

    deadline_s: float = 30.0
    """For all tries together, waits included."""
    attempts: int = 3
    attempt_s: float = 10.0
    """For one try, from the connection to the end of the answer's headers."""
    backoff_s: float = 0.5
    """Before the second try; doubles from try to try."""
    backoff_max_s: float = 8.0
    """No wait is longer, whatever the server's Retry-After asks for."""

    def __post_init__(self) -> None:
        if self.deadline_s <= 0 or self.attempt_s <= 0:
            raise ConfigError("deadline_s and attempt_s are positive numbers of seconds")
        if self.attempts < 1:
            raise ConfigError(f"attempts is {self.attempts}; right is at least 1")
        if not 0 <= self.backoff_s <= self.backoff_max_s:
            raise ConfigError("backoff_s is from 0 to backoff_max_s")


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of one callback."""

    delivered: bool
    """A 2xx answer came."""
    attempts: int
    """Tries begun."""
    status: int | None
    """Of the last answer; None when there was none."""
    error: str = ""
    """Why not: the type of the last try's error, ``deadline``, or ``status``; empty when delivered."""


class _Refused(Exception):
    """A failure that another try would only repeat."""


async def deliver(
    request: CallbackRequest,
    *,
    delivery_id: str,
    options: DeliveryOptions = DeliveryOptions(),
    policy: UrlPolicy = PUBLIC,
    open_stream: OpenStream | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> DeliveryResult:
    """Deliver one callback, trying again within bounds; failing is a result, not an exception.

    Args:
        request: What to send; the same on each try.
        delivery_id: Unique to this delivery; goes along as ``X-Talkpath-Delivery``.
        options: How hard to try.
        policy: Where it may go; by default to public addresses.
        open_stream: Opens the connection, and judges where it goes; None: TCP, with TLS for https.
        ssl_context: For TLS; None: the system's certificate authorities, host names checked.

    Cancellation: the connection is closed at once; the server may or may not have seen the request.
    """
    opener = open_stream or _opener(policy, ssl_context)
    status: int | None = None
    error = "deadline"
    attempts = 0
    with trio.move_on_after(options.deadline_s):
        while True:
            attempts += 1
            wait_s = min(options.backoff_s * 2.0 ** min(attempts - 1, 32), options.backoff_max_s)
            try:
                with trio.fail_after(options.attempt_s):
                    status, retry_after_s = await _attempt(request, delivery_id, opener)
            except _Refused as refusal:
                return DeliveryResult(False, attempts, None, type(refusal.__cause__).__name__)
            except (UnicodeError, DestinationForbidden) as failure:
                # A host name that no name service could hold, or a place nobody may go: nothing will change that.
                return DeliveryResult(False, attempts, None, type(failure).__name__)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as failure:
                status, failed = None, type(failure).__name__
            else:
                if 200 <= status < 300:
                    return DeliveryResult(True, attempts, status)
                failed = "status"
                if status != 429 and status < 500:
                    return DeliveryResult(False, attempts, status, failed)
                wait_s = min(max(wait_s, retry_after_s), options.backoff_max_s)
            if attempts == options.attempts:
                return DeliveryResult(False, attempts, status, failed)
            await trio.sleep(wait_s)
    return DeliveryResult(False, attempts, status, error)


async def _attempt(request: CallbackRequest, delivery_id: str, opener: OpenStream) -> tuple[int, float]:
    """Make one try. -> (status, seconds that the server asks to wait)"""
    parts = urlsplit(request.url)
    tls = parts.scheme == "https"
    stream = await opener(parts.hostname or "", parts.port or (443 if tls else 80), tls)
    try:
        return await _exchange(stream, _head(request, delivery_id, parts), request.body)
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise _Refused from error.__cause__
        raise
    finally:
        # Nothing more is wanted of this connection: a polite close could wait for a server that does not answer.
        await trio.aclose_forcefully(stream)


def _head(request: CallbackRequest, delivery_id: str, parts: SplitResult) -> h11.Request:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [
        ("Host", parts.netloc),
        ("User-Agent", "talkpath"),
        ("Accept", "*/*"),
        ("Connection", "close"),
        (DELIVERY_HEADER, delivery_id),
        *request.headers,
    ]
    if request.method == "POST":
        headers.append(("Content-Length", str(len(request.body))))
    return h11.Request(method=request.method, target=target, headers=headers)


async def _exchange(stream: trio.abc.Stream, head: h11.Request, body: bytes) -> tuple[int, float]:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_RESPONSE_HEADERS_MAX_BYTES)
    out = http.send(head) or b""
    if body:
        out += http.send(h11.Data(data=body)) or b""
    out += http.send(h11.EndOfMessage()) or b""
    await stream.send_all(out)
    informational = 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
        elif isinstance(event, h11.InformationalResponse):
            informational += 1
            if informational > _INFORMATIONAL_MAX:
                raise h11.RemoteProtocolError("too many interim answers")
        elif isinstance(event, h11.Response):
            break
        else:
            raise h11.RemoteProtocolError("the connection was closed before an answer")
    await _discard_body(http, stream)
    return event.status_code, _retry_after_s(event)


async def _discard_body(http: h11.Connection, stream: trio.abc.Stream) -> None:
    """Read the answer to its end if it is short, so that the server meets no reset; its content never matters."""
    n_bytes = 0
    with trio.move_on_after(1):
        try:
            while n_bytes <= _RESPONSE_BODY_MAX_BYTES:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
                elif isinstance(event, h11.Data):
                    n_bytes += len(event.data)
                else:
                    return
        except (h11.RemoteProtocolError, trio.BrokenResourceError, OSError):
            return


def _retry_after_s(response: h11.Response) -> float:
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 9:
            return float(value)
    return 0.0


def _opener(policy: UrlPolicy, ssl_context: ssl.SSLContext | None) -> OpenStream:
    async def open_stream(host: str, port: int, tls: bool) -> trio.abc.Stream:
        stream = await open_permitted(policy, "https" if tls else "http", host, port)
        if not tls:
            return stream
        context = ssl_context or await default_client_context()
        return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)

    return open_stream
