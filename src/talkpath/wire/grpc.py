"""gRPC over HTTP/2, sans-IO, both roles: calls that carry messages both ways.

A call, as its `Call` tells it::

    client                                                  server
    open_call -> open                                       CallReceived -> open
    open --half_close--> we are done, the server goes on    open --peer half-closes--> `half_closed`; we go on
    any --trailers, trailers-only--> `end` (its status)     any --finish_with--> `end`; RST_STREAM if the client goes on
    any --RST_STREAM, refused by GOAWAY--> `end` (broken)   any --RST_STREAM--> `end` (broken)
    any --cancel--> `end` (broken)                          any --cancel--> `end` (broken)
    any --a message too long, compressed--> cancel          any --the same--> that status

`end` is set once. Messages that came before an orderly end can still be taken; a broken call has none left.

A message is five bytes (compressed?, length) and its bytes, cut into DATA frames anywhere. It is acknowledged when it
is taken, the beginning of one that is not whole at once: so what waits is bounded by the window, and a message may be
longer than the window all the same.

Source: the gRPC-over-HTTP/2 protocol specification (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md, with
doc/http-grpc-status-mapping.md); compression is refused as its section on encodings says.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote

from talkpath.errors import LocalWireError
from talkpath.wire.http2 import (
    CANCEL,
    DEFAULT_WINDOW_BYTES,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Headers,
    Http2Connection,
    Stream,
)

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of a lower-case name and a value; the value of a name that ends in ``-bin`` is bytes."""

CONTENT_TYPE: Final = b"application/grpc"
PREFIX_BYTES: Final = 5


class Status(IntEnum):
    """gRPC's status codes. Source: grpc doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_BY_HTTP_STATUS: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_BY_RESET: Final = {
    CANCEL: Status.CANCELLED,
    REFUSED_STREAM: Status.UNAVAILABLE,
    ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    12: Status.PERMISSION_DENIED,
}
_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_NOT_METADATA: Final = frozenset({"te", "content-type", "content-length"})


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """Bounds of one connection."""

    max_message_bytes: int = 1 << 20
    """Of one message received; a longer one ends its call with RESOURCE_EXHAUSTED."""
    max_streams: int = 100
    """Calls at once on one connection, as a server."""
    window_bytes: int = DEFAULT_WINDOW_BYTES
    """How far a peer may send ahead of what is taken, per call: some 6 s of audio."""
    max_backlog_bytes: int = 1 << 20
    """What `Call.send` lets wait for a peer that does not read."""


DEFAULT_OPTIONS: Final = GrpcOptions()


class CallEnd(NamedTuple):
    """How a call ended."""

    status: Status
    message: str
    broken: bool
    """By RST_STREAM, ours or theirs, or with the connection; not by a status that a server gave."""
    trailers: Metadata = ()
    ours: bool = False
    """This end gave the call up for what the peer sent."""


class CallReceived(NamedTuple):
    """A client began a call; server."""

    call: Call


class CallChanged(NamedTuple):
    """Messages wait, or the peer sends no more, or the call is over."""

    call: Call


class Call(Stream):
    """One call; see the module for its states."""

    __slots__ = ("_answered", "_final", "_held", "_partial", "_told", "_unacknowledged", "authority",
                 "end", "half_closed", "messages", "metadata", "path", "response_metadata",
                 "timeout_s")  # fmt: skip

    connection: GrpcConnection

    def __init__(self, connection: GrpcConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self.path = ""
        self.authority = ""
        self.metadata: Metadata = ()
        self.response_metadata: Metadata = ()
        self.timeout_s: float | None = None
        self.end: CallEnd | None = None
        self.half_closed = False
        """The peer sends no more messages."""
        self.messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._held = 0
        """Bytes of whole messages that nobody has taken."""
        self._unacknowledged = 0
        self._answered = False
        """Server: the response's headers have been sent. Client: they have come."""
        self._final: Headers | None = None
        self._told = False

    # What a user does --------------------------------------------------------------------------------------------

    def next_message(self) -> bytes | None:
        """Take the next message; None: there is none now."""
        if not self.messages:
            return None
        message = self.messages.popleft()
        self._held -= PREFIX_BYTES + len(message)
        due = self._unacknowledged - self._held
        if due > 0:
            self._unacknowledged -= due
            self.acknowledge(due)
        return message

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer's windows or for the link."""
        return len(self.outgoing)

    def accept(self, metadata: Metadata = ()) -> None:
        """Server: send the response's headers now; the first message does it otherwise. Idempotent."""
        if not self._answered and self.end is None and not self.gone:
            self._answered = True
            self.connection.send_headers(
                self, [(b":status", b"200"), (b"content-type", CONTENT_TYPE), *encode_metadata(metadata)]
            )

    def send(self, payload: bytes) -> bool:
        """Send one message. -> False: it finds no room (`GrpcOptions.max_backlog_bytes`) and is not sent.

        What is sent when the call is over goes nowhere, and that is True.
        """
        if self.gone or self.ending or self.end is not None:
            return True
        if self.outgoing and len(self.outgoing) + len(payload) > self.connection.options.max_backlog_bytes:
            return False
        if not self._answered and not self.connection.client:
            self.accept()
        self.connection.send_data(self, b"\0" + len(payload).to_bytes(4, "big") + payload)
        return True

    def half_close(self) -> None:
        """Client: say that no more messages come, behind those that wait. Idempotent."""
        if not self.ending and not self.gone:
            self.connection.end(self)

    def finish_with(self, status: Status, message: str = "", trailers: Metadata = (), *, ours: bool = False) -> None:
        """Server: end the call with a status, behind the messages that wait. Idempotent."""
        if self.end is not None or self.gone:
            return
        self.end = CallEnd(status, message, False, trailers, ours)
        final = [] if self._answered else [(b":status", b"200"), (b"content-type", CONTENT_TYPE)]
        final.append((b"grpc-status", str(int(status)).encode()))
        if message:
            final.append((b"grpc-message", encode_message(message)))
        self._final = [*final, *encode_metadata(trailers)]
        self.connection.end(self)

    def cancel(self, message: str = "") -> None:
        """End the call now (RST_STREAM); what waits is thrown away. Idempotent."""
        if not self.gone:
            self.connection.reset(self, CANCEL)
        self._break(Status.CANCELLED, message)

    # What the connection says ------------------------------------------------------------------------------------

    def on_headers(self, headers: Headers, ended: bool) -> None:
        """As `Stream`."""
        if self.connection.client:
            self._on_response(headers, ended)
        elif not self.path:
            self._on_request(headers)

    def _on_request(self, headers: Headers) -> None:
        fields = dict(reversed(headers))
        self.path = fields.get(b":path", b"").decode("ascii", "replace") or "/"
        self.authority = fields.get(b":authority", b"").decode("ascii", "replace")
        connection = self.connection
        if fields.get(b":method") != b"POST":
            self._refuse_http(b"405")
        elif not is_grpc(fields.get(b"content-type", b"")):
            self._refuse_http(b"415")
        elif fields.get(b"content-length", b"0") != b"0":
            # h2 would hold the stream's data against it, which it does not see; and no stream knows its length.
            self._refuse_http(b"400")
        elif self.path not in connection.paths:
            self.finish_with(Status.UNIMPLEMENTED, "there is no such method here")
        else:
            try:
                self.metadata = decode_metadata(headers)
                self.timeout_s = decode_timeout(fields.get(b"grpc-timeout"))
            except ValueError as exc:
                self.finish_with(Status.INTERNAL, str(exc))
                return
            connection.events.append(CallReceived(self))

    def _refuse_http(self, status: bytes) -> None:
        self.end = CallEnd(Status.UNKNOWN, "no gRPC", False)
        self._final = [(b":status", status)]
        self.connection.end(self)

    def _on_response(self, headers: Headers, ended: bool) -> None:
        fields = dict(reversed(headers))
        if not self._answered:
            self._answered = True
            http_status = fields.get(b":status", b"")
            if http_status != b"200" and b"grpc-status" not in fields:
                code = int(http_status) if http_status.isdigit() else 0
                self._give_up(_BY_HTTP_STATUS.get(code, Status.UNKNOWN), f"the server answered with HTTP status {code}")
                return
            if not is_grpc(fields.get(b"content-type", b"")) and not (ended and b"grpc-status" in fields):
                self._give_up(Status.UNKNOWN, "the server's answer is no gRPC")
                return
            if fields.get(b"content-length", b"0") != b"0":
                self._give_up(Status.INTERNAL, "the server's answer has a content-length")
                return
            if not ended:
                self.response_metadata = _lenient_metadata(headers)
                return
        if self.end is not None:
            return
        status = fields.get(b"grpc-status", b"")
        known = status.isdigit() and int(status) <= Status.UNAUTHENTICATED
        message = unquote(fields.get(b"grpc-message", b"").decode("ascii", "replace"), errors="replace")
        if not status:
            message = "the server's trailers have no status"
        elif self._partial and known and int(status) == Status.OK:
            known, message = False, "the call ended within a message"
        self.end = CallEnd(Status(int(status)) if known else Status.UNKNOWN, message, False, _lenient_metadata(headers))

    def on_data(self, payload: bytes, n_bytes: int) -> None:
        """As `Stream`: cut messages out of it."""
        self._unacknowledged += n_bytes
        if self.end is not None:
            self._settle()
            return
        connection, partial = self.connection, self._partial
        if connection.client and not self._answered:
            self._give_up(Status.INTERNAL, "data came before the response's headers", PROTOCOL_ERROR)
            return
        most = connection.options.max_message_bytes
        length = len(payload) - PREFIX_BYTES
        # Most frames are one message: five bytes that are a zero and the length are that length.
        if not partial and 0 <= length <= most and int.from_bytes(payload[:PREFIX_BYTES], "big") == length:
            self.messages.append(payload[PREFIX_BYTES:])
            self._held += len(payload)
        else:
            partial += payload
            while len(partial) >= PREFIX_BYTES:
                length = int.from_bytes(partial[1:PREFIX_BYTES], "big")
                if partial[0]:
                    self._give_up(Status.UNIMPLEMENTED, "compressed messages are not taken")
                    return
                if length > most:
                    self._give_up(Status.RESOURCE_EXHAUSTED, "the message is longer than is allowed")
                    return
                if len(partial) < PREFIX_BYTES + length:
                    break
                self.messages.append(bytes(partial[PREFIX_BYTES : PREFIX_BYTES + length]))
                self._held += PREFIX_BYTES + length
                del partial[: PREFIX_BYTES + length]
        if self._unacknowledged > self._held:
            self._settle()
        if self.messages and not self._told:
            self._tell()

    def _settle(self) -> None:
        """Acknowledge all that came but whole messages that wait."""
        due = self._unacknowledged - self._held
        if due > 0:
            self._unacknowledged -= due
            self.acknowledge(due)

    def on_end(self) -> None:
        """As `Stream`."""
        self.half_closed = True
        if self.end is None:
            if self.connection.client:
                self._give_up(Status.INTERNAL, "the server ended the call without a status")
            elif self._partial:
                self._give_up(Status.INTERNAL, "the call ended within a message")
        elif self.connection.client and not self.done:
            self.connection.reset(self, CANCEL)  # The server has said its last: nobody will read what we have to say.
        self._tell()

    def on_reset(self, code: int) -> None:
        """As `Stream`."""
        self._break(_BY_RESET.get(code, Status.INTERNAL), f"the stream was reset (HTTP/2 error {code})")

    def finish(self) -> None:
        """As `Stream`: END_STREAM, by itself or with the trailers."""
        if self._final is None:
            super().finish()
            return
        self.connection.send_headers(self, self._final, end=True)
        if not self.gone:  # the client goes on sending: it need not
            self.connection.reset(self, NO_ERROR)

    def _give_up(self, status: Status, message: str, code: int = CANCEL) -> None:
        """End the call for something the peer did, and tell it."""
        self.messages.clear()
        self._held = 0
        self._partial.clear()
        if self.connection.client:
            if self.end is None:
                self.end = CallEnd(status, message, False, ours=True)
            self.connection.reset(self, code)
        else:
            self.finish_with(status, message, ours=True)
        self._tell()

    def _break(self, status: Status, message: str) -> None:
        self.messages.clear()
        self._held = 0
        self._partial.clear()
        if self.end is None:
            self.end = CallEnd(status, message, True)
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self.connection.events.append(CallChanged(self))


class GrpcConnection(Http2Connection):
    """One end of a connection that carries calls; see the module, and `Http2Connection` for bytes in and out.

    Args:
        client: our role.
        paths: a server's methods, ``/package.Service/Method`` each; others are answered with UNIMPLEMENTED.
    """

    def __init__(self, *, client: bool, paths: Collection[str] = (), options: GrpcOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(client=client, max_streams=options.max_streams, window_bytes=options.window_bytes)
        self.paths = frozenset(paths)
        self.options = options
        self.events: list[CallReceived | CallChanged] = []

    def on_request(self, stream_id: int) -> Stream:
        """As `Http2Connection`."""
        return Call(self, stream_id)

    def next_events(self) -> list[CallReceived | CallChanged]:
        """Return what has happened since the last time, each call at most once as changed."""
        events, self.events = self.events, []
        for event in events:
            if isinstance(event, CallChanged):
                event.call._told = False
        return events

    def open_call(
        self,
        path: str,
        *,
        authority: str,
        scheme: str = "http",
        metadata: Metadata = (),
        timeout_s: float | None = None,
    ) -> Call:
        """Begin a call; client. Raises LocalWireError: bad metadata, or the peer takes no more calls."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", scheme.encode()),
            (b":path", path.encode()),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
        ]
        if timeout_s is not None:
            headers.append((b"grpc-timeout", encode_timeout(timeout_s)))
        headers += [(b"content-type", CONTENT_TYPE), (b"user-agent", b"talkpath"), *encode_metadata(metadata)]
        call = Call(self, self.next_stream_id())
        call.path, call.authority, call.metadata, call.timeout_s = path, authority, tuple(metadata), timeout_s
        self.open_stream(call, headers)
        return call


def is_grpc(content_type: bytes) -> bool:
    """Whether a content-type is gRPC's, whatever its messages are encoded in."""
    kind = content_type.lower()
    return kind.startswith(CONTENT_TYPE) and kind[len(CONTENT_TYPE) :][:1] in (b"", b"+", b";")


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """Return metadata as header fields. Raises LocalWireError: a name or value that cannot be sent."""
    fields = []
    for name, value in metadata:
        if not _NAME.fullmatch(name) or name.startswith("grpc-") or name in _NOT_METADATA:
            raise LocalWireError("metadata of a name that cannot be sent", wire="grpc", kind="metadata")
        if name.endswith("-bin"):
            data = value.encode() if isinstance(value, str) else value
            fields.append((name.encode(), base64.b64encode(data).rstrip(b"=")))
            continue
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not all(" " <= c <= "~" for c in text):
            raise LocalWireError(
                "metadata that is not printable ASCII; give it a -bin name", wire="grpc", kind="metadata"
            )
        fields.append((name.encode(), text.strip().encode()))
    return fields


def decode_metadata(headers: Headers) -> Metadata:
    """Return the metadata among header fields. Raises ValueError: a ``-bin`` value that is not base64."""
    metadata: list[tuple[str, str | bytes]] = []
    for raw_name, value in headers:
        name = raw_name.decode("latin-1")
        if name.startswith((":", "grpc-")) or name in _NOT_METADATA:
            continue
        if name.endswith("-bin"):
            try:
                for part in value.split(b","):  # of one name several may come in one field
                    part = part.strip()
                    metadata.append((name, base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)))
            except binascii.Error:
                raise ValueError("binary metadata is not base64") from None
        else:
            metadata.append((name, value.decode("latin-1")))
    return tuple(metadata)


def _lenient_metadata(headers: Headers) -> Metadata:
    try:
        return decode_metadata(headers)
    except ValueError:
        return ()


def encode_message(message: str) -> bytes:
    """Return a status message percent-encoded: printable ASCII but the percent sign stays as it is."""
    kept = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)
    return quote_from_bytes(message.encode("utf-8", "replace"), safe=kept).encode()


def encode_timeout(timeout_s: float) -> bytes:
    """Return a ``grpc-timeout``, exact to the microsecond while it is short; rounded up."""
    for unit, seconds in reversed(_UNITS_S.items()):
        if unit == "n":
            continue
        amount = max(math.ceil(timeout_s / seconds - 1e-6), 0)
        if amount < 100_000_000:
            return f"{amount}{unit}".encode()
    return b"99999999H"


def decode_timeout(value: bytes | None) -> float | None:
    """Return a ``grpc-timeout`` in seconds. Raises ValueError: it is none."""
    if value is None:
        return None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError("the grpc-timeout cannot be read")
    return int(match[1]) * _UNITS_S[match[2].decode()]
