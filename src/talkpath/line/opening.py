"""From an upgraded WebSocket to a line: read until the wire's opening message, and see by it which wire this is.

A task does this, before the clock takes over: it may wait, it is bounded in messages, bytes and time, and what it has
read beyond the opening message is handed on untouched.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Sequence
from typing import Any

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError, RemoteWireError
from talkpath.events import Handshaken, StreamStarted, UnknownMessage
from talkpath.transport.link import Link
from talkpath.transport.upgrade import receive_some, send_all
from talkpath.wire.catalog import WIRES, wire_named
from talkpath.wire.dialect import Dialect
from talkpath.wire.websocket import (
    CLOSE_PROTOCOL_ERROR,
    CLOSE_TOO_BIG,
    PONG,
    BinaryMessage,
    Close,
    FrameError,
    MessageAssembler,
    Ping,
    TextMessage,
    frame,
)

MAX_OPENING_MESSAGES = 16
MAX_OPENING_BYTES = 256 * 1024
NAMEABLE = re.compile(r"[A-Za-z_.-]{1,32}")
"""A key that may be repeated: nothing that could be a number or a token."""


class FirstBytes(enum.Enum):
    """What a connection speaks, by its first bytes."""

    HTTP = "http"
    """Or nothing that is known: HTTP has an answer for that."""
    GRPC = "grpc"
    AUDIOSOCKET = "audiosocket"


_OPENINGS = {FirstBytes.GRPC: b"PRI * HTTP/2.0", FirstBytes.AUDIOSOCKET: b"\x01\x00\x10"}
"""HTTP/2's preface; AudioSocket's first message, a UUID of sixteen bytes. Source: RFC 9113 3.4; Asterisk's
res_audiosocket."""


def first_bytes_say(data: bytes) -> FirstBytes | None:
    """Say by its first bytes what a connection speaks; None: they are too few."""
    if not data:
        return None
    for kind, opening in _OPENINGS.items():
        if data.startswith(opening):
            return kind
        if opening.startswith(data):
            return None
    return FirstBytes.HTTP


def wires_on(transport: str, wire: str | None = None) -> tuple[str, ...]:
    """Return the wires that travel on it: all, or the one that is named if it does."""
    names = WIRES if wire is None else (wire,)
    return tuple(name for name in names if wire_named(name).transport == transport)


def check_options(wire: str | None, options: Any) -> None:
    """Raise ConfigError for a wire that does not exist, or options that are none of its; of no wire's, where none is
    named.
    """
    names = [wire] if wire is not None else list(WIRES)
    for name in names:
        entry = wire_named(name)
        if wire is not None or isinstance(options, entry.options_type):
            entry.application(options)
    if options is not None and not any(isinstance(options, wire_named(name).options_type) for name in names):
        raise ConfigError(f"options are {type(options).__name__}, which no wire has")


class Recogniser:
    """Which wire is this? Offers each message to the dialects that are still possible.

    Args:
        wires: which it may be; of a single one nobody asks whether the start is its own.
        options: of one of them; the others have their defaults.
    """

    def __init__(self, wires: Sequence[str], options: Any) -> None:
        self._named = len(wires) == 1
        self._wires = tuple(wires)
        self._seen: list[str] = []
        self._greeted = False
        self._dialects: dict[str, Dialect] = {}
        for name in wires:
            entry = wire_named(name)
            self._dialects[name] = entry.application(options if isinstance(options, entry.options_type) else None)

    def receive(self, message: bytes, *, binary: bool = False) -> tuple[Dialect, StreamStarted] | None:
        """Take one message; return the dialect and its start, None while it may still come.

        Raises:
            RemoteWireError: no wire opens like this; says what was seen.
        """
        problems: list[RemoteWireError] = []
        known = self._named or self._greeted
        self._seen.append(_describe(message, binary))
        for name, dialect in list(self._dialects.items()):
            try:
                events = (dialect.receive_binary if binary else dialect.receive)(message)
            except RemoteWireError as exc:
                problems.append(exc)
                del self._dialects[name]
                continue
            known |= not events
            for event in events:
                known |= not isinstance(event, UnknownMessage)
                self._greeted |= isinstance(event, Handshaken)
                if isinstance(event, StreamStarted):
                    if self._named or wire_named(name).claims(event):
                        return dialect, event
                    del self._dialects[name]
                    break
                if not isinstance(event, Handshaken | UnknownMessage):
                    problems.append(
                        RemoteWireError("a stream's first message is its start", wire=name, event=type(event).__name__)
                    )
                    del self._dialects[name]
                    break
        if self._dialects and known:
            return None
        # What no wire knows as its first message would be waited behind for nothing.
        raise RemoteWireError(
            f"no known wire opens like this ({', then '.join(self._seen)}; known: {', '.join(self._wires)})"
            + (f"; {problems[-1]}" if len(problems) == 1 else ""),
            kind="unknown_wire",
        )


def _describe(text: bytes, binary: bool) -> str:
    """Say what a message looks like, in its keys alone: never in its values."""
    if binary:
        return f"a binary message of {len(text)} bytes"
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return f"{len(text)} bytes that are not JSON"
    if not isinstance(message, dict):
        return f"JSON, but a {type(message).__name__} and not an object"
    keys: Sequence[str] = [key for key in list(message)[:8] if NAMEABLE.fullmatch(key)]
    return f"an object with the keys {', '.join(keys) or 'none'}"


async def receive_start(
    link: Link, leftover: bytes, recogniser: Recogniser, *, masked: bool
) -> tuple[Dialect, StreamStarted, bytes]:
    """Read until the opening message; return the dialect, what it said, and the bytes after it.

    Args:
        masked: whether frames of ours are masked (we are the client); the peer's are the other way round.

    Raises:
        RemoteWireError: the peer speaks no wire that is known, or breaks RFC 6455.
        OSError: the connection broke.

    Cancellation: bytes that were read are gone; close the link.
    """
    assembler = MessageAssembler(MAX_OPENING_BYTES)
    header = ffi.new("tp_websocket_frame *")
    buffer = bytearray(16384)
    waiting = bytearray(leftover)
    messages = 0
    while True:
        got = lib.tp_websocket_read_header(header, bytes(waiting[:14]), min(len(waiting), 14)) if waiting else 0
        if got < 0 or (got and bool(header.masked) == masked):
            raise FrameError("a frame breaks RFC 6455", CLOSE_PROTOCOL_ERROR)
        length = header.header_bytes + header.payload_bytes if got else 0
        if length > MAX_OPENING_BYTES:
            raise FrameError("the opening message is too long", CLOSE_TOO_BIG, "too_long")
        if not got or len(waiting) < length:
            data = await receive_some(link, buffer)
            if not data:
                raise RemoteWireError(
                    "the peer closed before the wire's opening message", wire="websocket", event="opening"
                )
            waiting += data
            continue
        payload = waiting[header.header_bytes : length]
        if header.masked and payload:
            lib.tp_websocket_mask(ffi.from_buffer("uint8_t[]", payload), len(payload), header.mask, 0)
        opcode, fin = header.opcode, bool(header.fin)
        del waiting[:length]
        event = assembler.receive(opcode, fin, bytes(payload))
        if isinstance(event, TextMessage | BinaryMessage):
            messages += 1
            found = recogniser.receive(event.payload, binary=isinstance(event, BinaryMessage))
            if found is not None:
                return found[0], found[1], bytes(waiting)
            if messages >= MAX_OPENING_MESSAGES:
                raise RemoteWireError(f"{messages} messages and still no start", event="opening", kind="unknown_wire")
        elif isinstance(event, Ping):
            await send_all(link, frame(PONG, event.payload, b"\0\0\0\0" if masked else None))
        elif isinstance(event, Close):
            raise RemoteWireError(
                "the peer closed before the wire's opening message", wire="websocket", event="opening"
            )
