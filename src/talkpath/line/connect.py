"""Lines from the other side: where the application dials, and on a WebSocket somebody else holds."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError
from talkpath.line.config import LineConfig
from talkpath.line.line import Line
from talkpath.line.opening import Recogniser, check_options, receive_start, wires_on
from talkpath.path.pool import Pool
from talkpath.transport.carrier import WebSocketCarriage
from talkpath.transport.clock import open_clock
from talkpath.transport.link import Link
from talkpath.transport.memory import memory_link_pair
from talkpath.transport.tls import check_context
from talkpath.transport.upgrade import open_websocket, parse_url, receive_some, send_all
from talkpath.wire.catalog import wire_named
from talkpath.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame

POOL_BYTES = 4 * 1024 * 1024
OPENING_S = 10.0
NO_MASK = b"\0\0\0\0"


@asynccontextmanager
async def connect_line(
    url: str,
    *,
    wire: str | None = None,
    headers: Mapping[str, str] | None = None,
    config: LineConfig | None = None,
    tls_context: ssl.SSLContext | None = None,
    options: Any = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[Line]:
    """Dial a platform that waits for applications, and hold the `Line` for the block.

    Args:
        url: ``wss://``, ``ws://`` or ``memory://``.
        wire: its name; None recognises it by its opening message.
        headers: further headers of the upgrade.
        config, tls_context, options: of the line, of TLS (verified by default), of the wire.
        entropy: n -> n random bytes.

    Raises:
        ConfigError: the url or `tls_context` is of no use; says why.
        OSError, ssl.SSLError: could not connect.
        RemoteWireError: the peer speaks no known wire.
        trio.TooSlowError: no opening message within 10 s.

    Cancellation: the line is closed, nothing remains.
    """
    if tls_context is not None:
        check_context(tls_context, server_side=False)
    async with open_clock():
        with trio.fail_after(OPENING_S):
            link, leftover = await open_websocket(
                parse_url(url),
                headers=tuple((headers or {}).items()),
                subprotocol=wire_named(wire).subprotocol if wire is not None else "",
                context=tls_context,
            )
        async with _line_on_link(
            link, leftover, wire, config, options, entropy, masked=True, path=parse_url(url).path
        ) as line:
            yield line


@asynccontextmanager
async def line_on(
    websocket: trio_websocket.WebSocketConnection,
    *,
    wire: str | None = None,
    config: LineConfig | None = None,
    options: Any = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[Line]:
    """Put a `Line` on a WebSocket that already exists, for the block.

    For programs that have a trio-websocket server of their own. It is the slow path: that library reads the socket,
    so every message passes through two tasks. Closing the WebSocket stays with its owner.

    Raises:
        RemoteWireError: the peer speaks no known wire.
        trio.TooSlowError: no opening message within 10 s.

    Cancellation: the line ends; the WebSocket is left open.
    """
    ours, theirs = memory_link_pair()
    failure: BaseException | None = None
    async with open_clock():
        async with trio.open_nursery() as nursery:
            bridge = _Bridge(websocket, theirs)
            nursery.start_soon(bridge.run)
            try:
                path = getattr(websocket, "path", None) or "/"
                async with _line_on_link(ours, b"", wire, config, options, entropy, masked=False, path=path) as line:
                    yield line
            except BaseException as exc:
                failure = exc
            bridge.scope.cancel()
        theirs.close()
        ours.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _line_on_link(
    link: Link,
    leftover: bytes,
    wire: str | None,
    config: LineConfig | None,
    options: Any,
    entropy: Callable[[int], bytes],
    *,
    masked: bool,
    path: str,
) -> AsyncIterator[Line]:
    try:
        check_options(wire, options)
        wires = wires_on("websocket", wire)
        if not wires:
            raise ConfigError(f"the wire {wire!r} does not travel on a WebSocket")
        with trio.fail_after(OPENING_S):
            dialect, started, rest = await receive_start(link, leftover, Recogniser(wires, options), masked=masked)
    except BaseException:
        link.close()
        raise
    async with open_clock() as clock:
        line = Line(
            clock,
            Pool(POOL_BYTES),
            dialect,
            started,
            WebSocketCarriage(link, rest, masked=masked),
            mask_seed=int.from_bytes(entropy(8), "big"),
            config=config or LineConfig(),
            path=path,
        )
        async with line:
            yield line


class _Bridge:
    """Carries messages between a WebSocket that a library reads and the memory link of a line.

    It is shielded, like the line's own tasks: a block that is cancelled may still say goodbye. `scope` ends it.
    """

    def __init__(self, websocket: trio_websocket.WebSocketConnection, link: Link) -> None:
        self.scope = trio.CancelScope(shield=True)
        self._websocket = websocket
        self._link = link
        self._writing = trio.Lock()
        """A frame is written whole before another task writes the next."""

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bring_in)
                await self._take_out(nursery)

    async def _write(self, opcode: int, payload: bytes) -> None:
        async with self._writing:
            await send_all(self._link, frame(opcode, payload, NO_MASK))

    async def _bring_in(self) -> None:
        """Messages of the WebSocket become frames on the link; its end becomes a close frame."""
        code: int | None = None
        try:
            while True:
                message = await self._websocket.get_message()
                if isinstance(message, str):
                    await self._write(TEXT, message.encode())
                else:
                    await self._write(BINARY, message)
        except trio_websocket.ConnectionClosed as exc:
            code = exc.reason.code if exc.reason is not None else None
        except OSError:
            return
        try:
            if code is not None and code != 1006:
                await self._write(CLOSE, close_payload(code if code != 1005 else 1000, ""))
            else:
                self._link.close()
        except OSError:
            return

    async def _take_out(self, nursery: trio.Nursery) -> None:
        """Frames on the link become messages of the WebSocket. A line writes whole messages, never fragments."""
        buffer = bytearray(65536)
        waiting = bytearray()
        header = ffi.new("tp_websocket_frame *")
        try:
            while True:
                data = await receive_some(self._link, buffer)
                if not data:
                    return
                waiting += data
                while waiting and lib.tp_websocket_read_header(header, bytes(waiting[:14]), min(len(waiting), 14)) == 1:
                    length = header.header_bytes + header.payload_bytes
                    if len(waiting) < length:
                        break
                    payload = bytes(waiting[header.header_bytes : length])
                    del waiting[:length]
                    if header.opcode == TEXT:
                        await self._websocket.send_message(payload.decode())
                    elif header.opcode == BINARY:
                        await self._websocket.send_message(payload)
                    elif header.opcode == PING:
                        nursery.start_soon(self._ping, payload)
                    elif header.opcode == CLOSE:
                        # The WebSocket stays open, so nobody else will answer the line's goodbye.
                        await self._write(CLOSE, payload)
        except (trio_websocket.ConnectionClosed, OSError):
            return

    async def _ping(self, payload: bytes) -> None:
        """Ask the peer; audio does not wait for its answer."""
        try:
            await self._websocket.ping()
            await self._write(PONG, payload)
        except (trio_websocket.ConnectionClosed, OSError):
            return
