"""One end of a connection that carries whole messages, for checks: it remembers what came, and when.

`MessagePeer` is the seam: whole messages in and out, a polite close, a rude one. What is special to a transport stands
in its own: a `WebSocketPeer` can also write any bytes it likes, and hears how the other end's frames are made.

Rules of this file: frames are written and read here by hand (RFC 6455 section 5.2), on purpose. A checker that shared
the engine's reader and writer could not show that they are wrong, nor break a rule itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from talkpath.transport.link import Link, SocketLink, TlsLink
from talkpath.transport.upgrade import send_all

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_KEPT = 200_000
"""Messages remembered of one connection: an hour of both tracks, and more."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One whole message, as it came."""

    at_s: float
    """On Trio's clock."""
    payload: bytes = field(repr=False)
    binary: bool


class MessagePeer:
    """One end of a connection. One owner; `run` reads it until its end. Subclasses know a transport."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.at_end = False
        """Nothing more will come."""
        self.ended_s = 0.0
        self.close_code: int | None = None
        """What the other end closed with, in a WebSocket's codes; None: it did not say."""
        self.violations: list[str] = []
        """Rules of the transport that the other end broke, in words."""
        self.longest_message_bytes = 0
        self.slowest_send_s = 0.0
        self._changed = trio.lowlevel.ParkingLot()

    async def run(self, heard: Callable[[Arrival], None]) -> None:
        """Read to the end; `heard` is told of each message as it comes."""
        raise NotImplementedError

    async def send(self, payload: bytes, *, binary: bool) -> None:
        """Send one whole message. Raises OSError."""
        raise NotImplementedError

    async def wait_until(self, true: Callable[[], bool], within_s: float) -> bool:
        """Wait until something is so, which what comes may change; return whether it is."""
        with trio.move_on_after(within_s):
            while not true() and not self.at_end:
                await self._changed.park()
        return true()

    async def wait_end(self, within_s: float) -> bool:
        """Wait until the connection is at its end; return whether it is."""
        return await self.wait_until(lambda: self.at_end, within_s)

    async def close(self, code: int = 1000) -> None:
        """Say goodbye; the other end is to answer. Raises OSError."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close without a goodbye."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether the other end has said goodbye, or is gone."""
        return self.at_end or self.close_code is not None

    def _arrive(self, payload: bytes, binary: bool, heard: Callable[[Arrival], None]) -> None:
        self.longest_message_bytes = max(self.longest_message_bytes, len(payload))
        arrival = Arrival(trio.current_time(), payload, binary)
        if len(self.arrivals) < MAX_KEPT:
            self.arrivals.append(arrival)
        heard(arrival)
        self._changed.unpark_all()

    def _ended(self) -> None:
        self.at_end = True
        self.ended_s = trio.current_time()
        self._changed.unpark_all()


def frame(opcode: int, payload: bytes, key: bytes | None, *, fin: bool = True) -> bytes:
    """Write one frame, masked where there is a key. Nothing is checked."""
    length = len(payload)
    size = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[size]
    head = bytes([(0x80 if fin else 0) | opcode, (0x80 if key else 0) | short])
    head += length.to_bytes(size, "big") if size else b""
    return head + (key + _masked(payload, key) if key else payload)


def _masked(payload: bytes, key: bytes) -> bytes:
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


@dataclass(frozen=True, slots=True)
class _Frame:
    opcode: int
    fin: bool
    reserved: int
    masked: bool
    payload: bytes


def _take(waiting: bytearray) -> _Frame | None:
    """Cut one whole frame off the beginning, or return None."""
    if len(waiting) < 2:
        return None
    length, at = waiting[1] & 0x7F, 2
    size = {126: 2, 127: 8}.get(length, 0)
    masked = bool(waiting[1] & 0x80)
    if len(waiting) < at + size + 4 * masked:
        return None
    if size:
        length = int.from_bytes(waiting[at : at + size], "big")
        at += size
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    key = bytes(waiting[at : at + 4]) if masked else b""
    at += len(key)
    if len(waiting) < at + length:
        return None
    payload = bytes(waiting[at : at + length])
    first = waiting[0]
    del waiting[: at + length]
    if masked:
        payload = _masked(payload, key)
    return _Frame(first & 0x0F, bool(first & 0x80), first >> 4 & 7, masked, payload)


class WebSocketPeer(MessagePeer):
    """One end of an upgraded WebSocket.

    Args:
        link: what it travels on; closed with it.
        leftover: what came after the handshake.
        client: whether this end dialled, and so masks its frames.
        subprotocol: what the handshake agreed on.
    """

    def __init__(self, link: Link, leftover: bytes = b"", *, client: bool, subprotocol: str = "") -> None:
        super().__init__()
        self.client = client
        self.subprotocol = subprotocol
        self.frames_read = 0
        self.masked_frames_read = 0
        self.after_close = 0
        """Frames that came after the other end's close frame."""
        self._link = link
        if isinstance(link, SocketLink | TlsLink):
            link.tune_for_media()
        self._waiting = bytearray(leftover)
        self._writing = trio.Lock()
        self._pongs: dict[bytes, float] = {}
        self._opcode = CONTINUATION
        self._fragments = bytearray()
        self._close_sent = False
        self._n_pings = 0

    # Reading -----------------------------------------------------------------------------------------------------

    async def run(self, heard: Callable[[Arrival], None]) -> None:
        """As `MessagePeer`; pings and a close are answered as is proper."""
        buffer = bytearray(65536)
        try:
            while True:
                try:
                    one = _take(self._waiting)
                except ValueError as error:
                    self.violations.append(str(error))
                    break
                if one is not None:
                    await self._hear(one, heard)
                    continue
                try:
                    n = self._link.recv_into(memoryview(buffer))
                except BlockingIOError:
                    await self._link.wait_readable()
                    continue
                if n == 0:
                    break
                self._waiting += buffer[:n]
        except (OSError, trio.ClosedResourceError):
            pass  # It hung up without a word, or we did.
        finally:
            self._link.close()
            self._ended()

    async def _hear(self, one: _Frame, heard: Callable[[Arrival], None]) -> None:
        self.frames_read += 1
        self.masked_frames_read += one.masked
        if self.close_code is not None:
            self.after_close += 1
            return
        if one.reserved:
            self.violations.append("a frame with reserved bits set")
        if one.opcode >= CLOSE and (not one.fin or len(one.payload) > 125):
            self.violations.append("a control frame in fragments, or longer than 125 bytes")
        if one.opcode == CLOSE:
            self.close_code = int.from_bytes(one.payload[:2], "big") if len(one.payload) >= 2 else 1005
            await self._answer_close(one.payload)
        elif one.opcode == PING:
            await self.send_frame(PONG, one.payload)
        elif one.opcode == PONG:
            self._pongs[one.payload] = trio.current_time()
        elif one.opcode in (CONTINUATION, TEXT, BINARY):
            self._collect(one, heard)
        else:
            self.violations.append(f"a frame with the reserved opcode {one.opcode}")
        self._changed.unpark_all()

    def _collect(self, one: _Frame, heard: Callable[[Arrival], None]) -> None:
        if (one.opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            self.violations.append("fragments out of order")
            self._opcode = CONTINUATION
            self._fragments.clear()
            return
        if one.opcode != CONTINUATION:
            self._opcode = one.opcode
        self._fragments += one.payload
        if not one.fin:
            return
        payload, binary = bytes(self._fragments), self._opcode == BINARY
        self._opcode = CONTINUATION
        self._fragments.clear()
        self._arrive(payload, binary, heard)

    async def _answer_close(self, payload: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            await self.send_frame(CLOSE, payload[:2])
        if not self.client:
            # A server hangs up first; a client waits for it (RFC 6455 7.1.1).
            self._link.finish()

    # Writing -----------------------------------------------------------------------------------------------------

    def _key(self) -> bytes | None:
        return os.urandom(4) if self.client else None

    async def send(self, payload: bytes, *, binary: bool) -> None:
        """As `MessagePeer`."""
        await self.send_frame(BINARY if binary else TEXT, payload)

    async def send_frame(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        """Send one frame. Raises OSError."""
        await self.send_pieces([frame(opcode, payload, self._key(), fin=fin)])

    async def send_pieces(self, pieces: Sequence[bytes], *, apart_s: float = 0.0) -> None:
        """Send bytes as they are, nothing between them; each piece by itself, with a pause after it. Raises OSError."""
        async with self._writing:
            for piece in pieces:
                began = trio.current_time()
                await send_all(self._link, piece)
                self.slowest_send_s = max(self.slowest_send_s, trio.current_time() - began)
                if apart_s:
                    await trio.sleep(apart_s)

    async def send_fragments(self, payload: bytes, *, binary: bool, ping: bytes = b"") -> None:
        """Send one message in three frames, with a ping between them where one is given. Raises OSError."""
        third = max(1, len(payload) // 3)
        parts = [payload[:third], payload[third : 2 * third], payload[2 * third :]]
        frames = [
            frame(CONTINUATION if n else BINARY if binary else TEXT, part, self._key(), fin=n == 2)
            for n, part in enumerate(parts)
        ]
        if ping:
            frames.insert(2, frame(PING, ping, self._key()))
        await self.send_pieces(frames)

    async def ping(self, within_s: float) -> float | None:
        """Ask for a pong; return the seconds it took, None when none came. Raises OSError."""
        self._n_pings += 1
        return await self.ponged(b"talkpath %d" % self._n_pings, within_s)

    async def ponged(self, payload: bytes, within_s: float, *, send: bool = True) -> float | None:
        """As `ping`, with a payload of one's own; `send` off: it was sent already. Raises OSError."""
        began = trio.current_time()
        if send:
            await self.send_frame(PING, payload)
        if await self.wait_until(lambda: payload in self._pongs, within_s):
            return self._pongs[payload] - began
        return None

    async def close(self, code: int = 1000) -> None:
        """As `MessagePeer`."""
        if not self._close_sent and not self.at_end:
            self._close_sent = True
            await self.send_frame(CLOSE, code.to_bytes(2, "big"))

    def abort(self) -> None:
        """As `MessagePeer`."""
        self._link.close()
