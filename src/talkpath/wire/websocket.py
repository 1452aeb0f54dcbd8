"""The parts of RFC 6455 that are not fifty times a second: handshakes, whole messages, closing. Sans-IO.

The native core reads and writes frames; what it does not recognise as plain media comes here as (opcode, fin,
payload). `MessageAssembler` turns those into whole messages and control events. `ClientHandshake` and
`ServerHandshake` do the HTTP upgrade by wsproto and hand back whatever followed it, so that the bytes after the
upgrade belong to the native core. The client's half, of which a server that makes a hundred calls a second makes a
hundred, writes and reads the usual itself, which costs a twentieth: a request of plain ASCII, and a whole answer that
opens the connection and says nothing unusual. It is all or nothing: anything else is wsproto's, to the byte.

Rules of this file. No extension is ever offered or selected, and no subprotocol but what a caller names: a compressed
stream could not be read in place, so a server that selects one anyway is refused. Whatever a peer sends,
`RemoteWireError` is all that is raised; a machine that raised it stays in that state and raises it again. Every size
has a bound.

One thing is not repeatable: ``Sec-WebSocket-Key`` is drawn from the operating system, so two otherwise identical
client handshakes differ in those 24 characters (and in the server's answer to them). Frame masks, which are what a
recording of a call shows, are injected everywhere.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import h11
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Event, RejectConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import ACCEPT_GUID, LocalProtocolError, RemoteProtocolError

from talkpath._native import ffi, lib
from talkpath.errors import LocalWireError, RemoteWireError

WIRE = "websocket"

MAX_HANDSHAKE_BYTES = 16 * 1024
"""Of one side's HTTP head. h11's own limit is the same; common servers stop at 8 to 64 KiB."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

CLOSE_NORMAL = 1000
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_NO_STATUS = 1005
"""Never on the wire: what a close frame without a code is reported as."""
CLOSE_BAD_TEXT = 1007
CLOSE_TOO_BIG = 1009
CLOSE_INTERNAL_ERROR = 1011

_MAX_CONTROL_BYTES = 125
_MAX_REASON_BYTES = _MAX_CONTROL_BYTES - 2
_END_OF_HEAD = re.compile(rb"\n\r?\n")

# What the client's half writes and reads itself. Everything here is narrower than HTTP.
_PLAIN_HOST = re.compile(r"(?:(?:[A-Za-z0-9_-]{1,50}\.)*[A-Za-z0-9_-]{1,50}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PLAIN_TARGET = re.compile(r"/[!-~]*")
_PLAIN_NAME = re.compile(rb"[A-Za-z0-9_-]+")
_PLAIN_VALUE = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
_PLAIN_ANSWER = re.compile(rb"HTTP/1\.1 101 [ -~]*\r\n((?:[A-Za-z0-9_-]+:[ -~]*\r\n)*)\r\n")
_UNUSUAL = frozenset({"content-length", "transfer-encoding", "sec-websocket-extensions", "sec-websocket-protocol"})


class HandshakeError(RemoteWireError):
    """The peer's half of the handshake is broken or a refusal."""

    def __init__(self, message: str, status: int | None, headers: Headers | None = None) -> None:
        super().__init__(message, wire=WIRE, event="handshake")
        self.status = status
        """At the client: the HTTP status the server gave instead of 101, None when its answer was no answer at all. At
        the server: the status to refuse the request with."""
        self.headers = headers if headers is not None else Headers(())
        """At the client: those of the refusal (``retry-after``, ``location``). At the server: those to refuse with."""


class FrameError(RemoteWireError):
    """The peer broke the rules of frames and messages; `close_code` is what to close the connection with."""

    def __init__(self, message: str, close_code: int, kind: str = "bad_frame") -> None:
        super().__init__(message, wire=WIRE, kind=kind)
        self.close_code = close_code


def frame_error(native: int) -> FrameError:
    """Put into words what the native reader found wrong (``tp_received.protocol_error``)."""
    match native:
        case 2:
            return FrameError("the message is longer than the wire allows", CLOSE_TOO_BIG, "too_long")
        case 3:
            return FrameError(
                "a client's frames must be masked and a server's must not", CLOSE_PROTOCOL_ERROR, "bad_mask"
            )
        case _:
            return FrameError("the frame's header breaks RFC 6455", CLOSE_PROTOCOL_ERROR)


class Headers(Mapping[str, str]):
    """HTTP headers by name, ignoring case; several of one name are joined with commas (RFC 9110 section 5.3)."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in items:
            known = self._values.get(name.lower())
            self._values[name.lower()] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Handshake:
    """What both ends share: the peer's HTTP head in, one wsproto event out, and an error that stays.

    The head is cut off the stream here, so that the HTTP parser never sees what follows it and it can be handed on.
    """

    def __init__(self, *, at_client: bool) -> None:
        self._made: H11Handshake | None = None
        self._at_client = at_client
        self._leftover = b""
        self._n_head_bytes = 0
        self._tail = b""
        self._error: HandshakeError | None = None
        self._over = False

    @property
    def _machine(self) -> H11Handshake:
        if self._made is None:
            self._made = self._make_machine()
        return self._made

    def _make_machine(self) -> H11Handshake:
        return H11Handshake(ConnectionType.SERVER)

    @property
    def leftover(self) -> bytes:
        """What came after the peer's half of the handshake: the beginning of its first frames, for the native core."""
        return self._leftover

    def _receive(self, data: bytes) -> Event | None:
        if self._error is not None:
            raise self._error
        if self._over:
            raise _local("the handshake is over; these bytes are frames")
        if not data:
            raise self._fail("the peer closed the connection during the handshake", None)
        window = self._tail + data
        match = _END_OF_HEAD.search(window)
        head, self._leftover = data, b""
        if match is not None:
            end = match.end() - len(self._tail)
            head, self._leftover = data[:end], data[end:]
        self._tail = window[-2:]
        self._n_head_bytes += len(head)
        if self._n_head_bytes > MAX_HANDSHAKE_BYTES:
            raise self._fail(f"more than {MAX_HANDSHAKE_BYTES} bytes of HTTP head", 431)
        try:
            self._machine.receive_data(head)
        except RemoteProtocolError as error:
            hint = error.event_hint
            if isinstance(hint, RejectConnection):
                raise self._fail(str(error), hint.status_code, hint.headers) from None
            raise self._fail(str(error), 400) from None
        except UnicodeError:
            raise self._fail("a header that has to be ASCII is not", 400) from None
        event = next(iter(self._machine.events()), None)
        if event is None and match is not None:
            raise self._fail("an HTTP head that says nothing", 400)
        self._over = event is not None
        return event

    def _fail(self, message: str, status: int | None, headers: Sequence[tuple[bytes, bytes]] = ()) -> HandshakeError:
        # What wsproto would answer is no answer the client was given.
        at_client = self._at_client
        self._error = HandshakeError(
            message, None if at_client else status, Headers(() if at_client else _decoded(headers))
        )
        return self._error


class ClientHandshake(_Handshake):
    """The client's half of the upgrade. Send `request`, then `receive` until it says True.

    Args:
        host: as it stands in the URL, with the port where there is one.
        target: path and query.
        extra_headers: anything but what the upgrade itself consists of.
        subprotocols: what is offered; a server may select one of them, or none.

    Raises:
        LocalWireError: a host, target or header that HTTP cannot carry.
    """

    def __init__(
        self,
        host: str,
        target: str,
        extra_headers: Iterable[tuple[str, str]] = (),
        *,
        subprotocols: Sequence[str] = (),
    ) -> None:
        super().__init__(at_client=True)
        self._asked = Request(
            host=host,
            target=target or "/",
            extra_headers=_raw_headers(extra_headers),
            subprotocols=list(subprotocols),
        )
        self._key = _draw_key()
        request = self._write_plain()
        if request is None:
            self._made = H11Handshake(ConnectionType.CLIENT)
            try:
                request = self._made.send(self._asked)
            except (LocalProtocolError, h11.LocalProtocolError, UnicodeError):
                # What h11 says quotes the value, which may be a token.
                raise _local("the host, the target or a header has characters that HTTP cannot carry") from None
        self.request: bytes = request
        self.response_headers = Headers(())
        self.subprotocol = ""
        """What the server selected of what was offered; empty: nothing."""

    def _write_plain(self) -> bytes | None:
        """Return the request; None: it is not plain."""
        asked, headers = self._asked, self._asked.extra_headers
        if asked.subprotocols:
            return None
        if not (_PLAIN_HOST.fullmatch(asked.host) and _PLAIN_TARGET.fullmatch(asked.target)):
            return None
        for name, value in headers:
            if not (_PLAIN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(value)):
                return None
        return (
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
        ) % (
            asked.target.encode(),
            asked.host.encode(),
            self._key,
            b"".join([b"%b: %b\r\n" % header for header in headers]),
        )

    def _read_plain(self, data: bytes) -> bool:
        """Take a whole answer that opens the connection and says nothing unusual. False: nothing is taken."""
        answer = _PLAIN_ANSWER.match(data)
        if answer is None or answer.end() > MAX_HANDSHAKE_BYTES:
            return False
        headers: dict[str, str] = {}
        for line in answer[1].decode().split("\r\n")[:-1]:
            name, _, value = line.partition(":")
            name = name.lower()
            if name in headers or name in _UNUSUAL:
                return False
            headers[name] = value.strip(" ")
        tokens = [token.strip() for token in headers.pop("connection", "").lower().split(",")]
        accept = base64.b64encode(hashlib.sha1(self._key + ACCEPT_GUID, usedforsecurity=False).digest()).decode()
        if (
            "upgrade" not in tokens
            or headers.pop("upgrade", "").lower() != "websocket"
            or headers.pop("sec-websocket-accept", "") != accept
        ):
            return False
        self.response_headers = Headers(headers.items())
        self._over, self._leftover = True, data[answer.end() :]
        return True

    def _make_machine(self) -> H11Handshake:
        """Make the machine that has sent the request we have sent."""
        machine = H11Handshake(ConnectionType.CLIENT)
        machine.send(self._asked)
        machine._nonce = self._key  # It takes none from outside, and the peer has answered ours.
        return machine

    def receive(self, data: bytes) -> bool:
        """Take bytes from the server, ``b""`` for the end of its stream; say whether the connection is open.

        Raises:
            HandshakeError: the server refused, closed, selected something that was not offered, or is not a WebSocket
                server.
            LocalWireError: the handshake was already over.
        """
        if self._made is None and self._error is None and not self._over and self._read_plain(data):
            return True
        event = self._receive(data)
        if isinstance(event, AcceptConnection):
            self.response_headers = Headers(_decoded(event.extra_headers))
            self.subprotocol = event.subprotocol or ""
        elif isinstance(event, RejectConnection):
            status = event.status_code
            self._error = HandshakeError(
                f"the server answered {status} instead of 101", status, Headers(_decoded(event.headers))
            )
            raise self._error
        return event is not None


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What a client asks for."""

    target: str
    """Path and query, as sent."""
    host: str
    headers: Headers = field(repr=False)
    """Credentials included: not for logs. Without what offers extensions and subprotocols."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


class ServerHandshake(_Handshake):
    """The server's half of the upgrade: `receive` until there is a request, then `accept` or `reject` it, once."""

    def __init__(self) -> None:
        super().__init__(at_client=False)
        self._answered = False
        self._offered: Sequence[str] = ()

    def receive(self, data: bytes) -> UpgradeRequest | None:
        """Take bytes from the client, ``b""`` for the end of its stream; return its request once it is whole.

        Raises:
            HandshakeError: not a WebSocket upgrade; `reject` may still be called, with the error's status and headers.
            LocalWireError: the handshake was already over.
        """
        event = self._receive(data)
        if not isinstance(event, Request):
            return None
        headers = Headers([("host", event.host), *_decoded(event.extra_headers)])
        if (fault := _fault_of(headers)) is not None:
            raise self._fail(fault, 400)
        self._offered = event.subprotocols
        return UpgradeRequest(target=event.target, host=event.host, headers=headers)

    def accept(self, extra_headers: Iterable[tuple[str, str]] = (), *, subprotocols: Sequence[str] = ()) -> bytes:
        """Return the bytes that open the connection.

        Args:
            subprotocols: what is spoken here; the first that the client offers is selected.

        Raises:
            LocalWireError: there is no request to accept, it was answered, or a header is not HTTP's.
        """
        if not self._over or self._error is not None:
            raise _local("there is no request to accept")
        headers = _raw_headers(extra_headers)
        self._answer()
        try:
            selected = next((name for name in self._offered if name in subprotocols), None)
            return self._machine.send(AcceptConnection(extra_headers=headers, subprotocol=selected))
        except (LocalProtocolError, h11.LocalProtocolError):
            raise _local("a header has characters that HTTP cannot carry") from None

    def reject(
        self, status: int, reason: str = "", extra_headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> bytes:
        """Return a whole HTTP response that refuses, after which the connection is to be closed.

        It may be sent at any time before an answer, also when the request was no lawful HTTP at all.

        Raises:
            LocalWireError: the request was answered, or the response is not HTTP's.
        """
        headers = _raw_headers(extra_headers, _OF_A_RESPONSE)
        headers += [(b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
        if not (reason.isascii() and reason.isprintable()):
            raise _local(f"the reason {reason!a} is not one line of ASCII")
        # Not by wsproto: it can neither say a reason nor answer what it could not parse.
        writer = h11.Connection(h11.SERVER)
        try:
            response = h11.Response(status_code=status, headers=headers, reason=reason.encode("ascii"))
            parts = [writer.send(response), writer.send(h11.Data(data=body)), writer.send(h11.EndOfMessage())]
        except (h11.LocalProtocolError, UnicodeError):
            raise _local("the status or a header is not one that HTTP can carry") from None
        self._answer()
        return b"".join(part for part in parts if part is not None)

    def _answer(self) -> None:
        if self._answered:
            raise _local("the request has been answered")
        self._answered = True


def _draw_key() -> bytes:
    return base64.b64encode(os.urandom(16))


_OF_A_RESPONSE = frozenset({"connection", "content-length", "transfer-encoding"})
_OF_THE_UPGRADE = _OF_A_RESPONSE | {
    "host",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
}


def _raw_headers(
    headers: Iterable[tuple[str, str]], reserved: frozenset[str] = _OF_THE_UPGRADE
) -> list[tuple[bytes, bytes]]:
    raw = []
    for name, value in headers:
        if name.lower() in reserved:
            raise _local(f"the header {name!a} is not the caller's to set")
        try:
            raw.append((name.encode("ascii"), value.encode("latin-1")))
        except UnicodeError:
            raise _local(f"the header {name!a} is not Latin-1") from None
    return raw


def _decoded(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


def _local(message: str) -> LocalWireError:
    return LocalWireError(message, wire=WIRE, event="handshake")


def _fault_of(headers: Headers) -> str | None:
    """What RFC 6455 4.2.1 asks of a request and wsproto does not look at."""
    try:
        key = base64.b64decode(headers["sec-websocket-key"], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        return "Sec-WebSocket-Key is not 16 bytes in base64"
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return "an upgrade request with a body"
    return None


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A whole text message; well-formed UTF-8."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """A whole binary message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a pong of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping, or a keep-alive of the peer's own accord."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer closes; to be answered with a close frame, once."""

    code: int
    """1005 when the frame carried none."""
    reason: str


Received = TextMessage | BinaryMessage | Ping | Pong | Close


class MaskKeys:
    """Mask keys for control messages, from a seed that is fresh entropy (or a test's), in eight bytes of state.

    Source: RFC 6455 5.3 asks for keys a page's author cannot foresee; Marsaglia's 64-bit xorshift spreads the seed.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & 0xFFFFFFFFFFFFFFFF or 1

    def take(self) -> bytes:
        """Return the next key."""
        x = self._state
        x ^= x << 13 & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= x << 17 & 0xFFFFFFFFFFFFFFFF
        self._state = x
        return (x >> 16 & 0xFFFFFFFF).to_bytes(4, "big")


class MessageAssembler:
    """Turns frames, as the native core passes them up, into whole messages and control events.

    Args:
        max_message_bytes: of one message, all its fragments together.
    """

    __slots__ = ("_closed", "_error", "_fragments", "_max_message_bytes", "_opcode", "_text")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._opcode = CONTINUATION
        self._fragments: bytes | bytearray = b""
        self._text: codecs.IncrementalDecoder | None = None
        """Both made for a message that comes in fragments, which is rare."""
        self._closed = False
        self._error: FrameError | None = None

    def receive(self, opcode: int, fin: bool, payload: bytes | bytearray | memoryview) -> Received | None:
        """Take one frame; return what it completes, None while a message is unfinished.

        After a close frame whatever follows is discarded, as RFC 6455 section 1.4 asks.

        Raises:
            FrameError: the peer broke the rules; `close_code` says which.
        """
        if self._error is not None:
            raise self._error
        if self._closed:
            return None
        try:
            if opcode in (CLOSE, PING, PONG):
                return self._receive_control(opcode, fin, bytes(payload))
            return self._receive_data(opcode, fin, bytes(payload))
        except FrameError as error:
            self._error = error
            self._fragments = b""
            raise

    def _receive_control(self, opcode: int, fin: bool, payload: bytes) -> Received:
        if not fin:
            raise FrameError("a fragmented control frame", CLOSE_PROTOCOL_ERROR)
        if len(payload) > _MAX_CONTROL_BYTES:
            raise FrameError(f"a control frame of {len(payload)} bytes", CLOSE_PROTOCOL_ERROR)
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        close = _read_close(payload)
        self._closed = True
        return close

    def _receive_data(self, opcode: int, fin: bool, payload: bytes) -> Received | None:
        if opcode not in (CONTINUATION, TEXT, BINARY):
            raise FrameError(f"a frame with the reserved opcode {opcode}", CLOSE_PROTOCOL_ERROR)
        if opcode == CONTINUATION and self._opcode == CONTINUATION:
            raise FrameError("a continuation of nothing", CLOSE_PROTOCOL_ERROR)
        if opcode != CONTINUATION and self._opcode != CONTINUATION:
            raise FrameError("a new message inside an unfinished one", CLOSE_PROTOCOL_ERROR)
        if len(self._fragments) + len(payload) > self._max_message_bytes:
            raise FrameError(f"a message of more than {self._max_message_bytes} bytes", CLOSE_TOO_BIG, "too_long")
        if fin and opcode != CONTINUATION:
            if opcode == TEXT and lib.tp_websocket_is_utf8(payload, len(payload)) != 1:
                raise FrameError("a text message that is not UTF-8", CLOSE_BAD_TEXT, "bad_utf8")
            return _message(opcode, payload)
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._fragments = bytearray()
            self._text = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        if self._text is not None:
            self._check_text(self._text, payload, fin)
        self._fragments += payload
        if not fin:
            return None
        message = _message(self._opcode, bytes(self._fragments))
        self._opcode = CONTINUATION
        self._fragments, self._text = b"", None
        return message

    def _check_text(self, text: codecs.IncrementalDecoder, payload: bytes, fin: bool) -> None:
        # Fragment by fragment, so that a broken message is refused at the fragment that breaks it.
        try:
            text.decode(payload, fin)
        except UnicodeDecodeError:
            raise FrameError("a text message that is not UTF-8", CLOSE_BAD_TEXT, "bad_utf8") from None


def frame(opcode: int, payload: bytes, mask_key: bytes | None = None, fin: bool = True) -> bytes:
    """Return one whole frame, masked when there is a key of four bytes (a client has to, a server must not).

    Raises:
        LocalWireError: a key of another length, a reserved opcode, a control frame that is fragmented or too long.
    """
    if mask_key is not None and len(mask_key) != 4:
        raise LocalWireError(f"a mask key of {len(mask_key)} bytes", wire=WIRE)
    header = ffi.new("uint8_t[]", lib.TP_WEBSOCKET_MAX_HEADER_BYTES)
    n_header = -1
    if 0 <= opcode <= PONG:
        n_header = lib.tp_websocket_write_header(
            header, len(header), fin, opcode, len(payload), ffi.NULL if mask_key is None else mask_key
        )
    if n_header < 0:
        raise LocalWireError(f"not a lawful frame: opcode {opcode}, fin {fin}, {len(payload)} bytes", wire=WIRE)
    if mask_key is None:
        return bytes(ffi.buffer(header, n_header)) + payload
    masked = bytearray(payload)
    lib.tp_websocket_mask(ffi.from_buffer("uint8_t[]", masked), len(masked), mask_key, 0)
    return bytes(ffi.buffer(header, n_header)) + masked


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; a reason longer than its 123 bytes is cut at a character.

    1005 gives the empty payload, so that a peer's close can be echoed as it was reported.

    Raises:
        LocalWireError: a code that must not be on the wire.
    """
    if code == CLOSE_NO_STATUS and not reason:
        return b""
    if not _code_is_sendable(code):
        raise LocalWireError(f"the close code {code} must not be sent", wire=WIRE)
    cut = reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + cut.encode("utf-8")


def _message(opcode: int, payload: bytes) -> TextMessage | BinaryMessage:
    return TextMessage(payload) if opcode == TEXT else BinaryMessage(payload)


def _code_is_sendable(code: int) -> bool:
    # RFC 6455 7.4.2 and the IANA registry: 1004 to 1006 and 1015 never appear in a frame, 1016 to 2999 are unassigned.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _read_close(payload: bytes) -> Close:
    if not payload:
        return Close(CLOSE_NO_STATUS, "")
    if len(payload) == 1:
        raise FrameError("a close frame of one byte", CLOSE_PROTOCOL_ERROR)
    code = int.from_bytes(payload[:2], "big")
    if not _code_is_sendable(code):
        raise FrameError(f"the close code {code}", CLOSE_PROTOCOL_ERROR)
    try:
        return Close(code, payload[2:].decode("utf-8"))
    except UnicodeDecodeError:
        raise FrameError("a close reason that is not UTF-8", CLOSE_BAD_TEXT, "bad_utf8") from None
