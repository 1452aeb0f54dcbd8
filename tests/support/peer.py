"""The other end of a WebSocket, by hand: an application, or a platform, that does exactly what a test says."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import trio

from support.frames import CLOSE, KEY, PING, PONG, TEXT, Frame, close, frame, take_frame
from talkpath.transport.link import Link
from talkpath.transport.memory import MemoryListener, connect_memory

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_upgrade(key: str) -> bytes:
    """The answer to an upgrade that was asked for with `key`."""
    digest = hashlib.sha1(key.encode() + GUID).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


class Peer:
    """One end of an upgraded WebSocket. `link` is talkpath's memory link, or anything with its calls."""

    def __init__(self, link: Link, *, client: bool, head: str = "") -> None:
        self.link = link
        self.client = client
        self.head = head
        """The other side's HTTP head."""
        self.frames: list[Frame] = []
        """Everything read by `read_all`, in order."""
        self.arrived: list[float] = []
        """When each of them came."""
        self.at_end = False
        self._unread = bytearray()

    @property
    def path(self) -> str:
        return self.head.split(" ", 2)[1]

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the other side's HTTP head, names in lower case."""
        lines = self.head.split("\r\n")[1:]
        return {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name
        }

    @property
    def key(self) -> bytes | None:
        return KEY if self.client else None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The text messages read so far."""
        return [json.loads(one.payload) for one in self.frames if one.opcode == TEXT]

    def named(self, event: str) -> list[dict[str, Any]]:
        """The messages of one event."""
        return [message for message in self.messages if message["event"] == event]

    @property
    def close_code(self) -> int | None:
        """Of the other side's close frame; None when there was none."""
        return next((one.close_code for one in self.frames if one.opcode == CLOSE), None)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.link.send(rest) :]
            except BlockingIOError:
                await self.link.wait_writable()
        await trio.lowlevel.checkpoint()

    async def text(self, message: object) -> None:
        """Send one text message: text or bytes as they are, anything else as JSON."""
        if isinstance(message, str):
            message = message.encode()
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.send(frame(TEXT, payload, key=self.key))

    async def close(self, code: int | None = 1000) -> None:
        """Send a close frame; the connection stays open."""
        await self.send(close(code, key=self.key))

    async def _fill(self) -> bool:
        buffer = bytearray(65536)
        while True:
            try:
                n = self.link.recv_into(memoryview(buffer))
            except BlockingIOError:
                await self.link.wait_readable()
                continue
            self._unread += buffer[:n]
            return n > 0

    async def read(self) -> Frame | None:
        """Return the next frame, None at the end of the connection."""
        while True:
            one = take_frame(self._unread)
            if one is not None:
                assert one.masked != self.client, "a client masks and a server does not"
                return one
            try:
                if not await self._fill():
                    return None
            except OSError:
                return None

    async def read_all(self, *, pongs: bool = True, closes: bool = True) -> None:
        """Read until the end; answer pings and a close as is proper, unless told otherwise."""
        while (one := await self.read()) is not None:
            self.frames.append(one)
            self.arrived.append(trio.current_time())
            try:
                if one.opcode == PING and pongs:
                    await self.send(frame(PONG, one.payload, key=self.key))
                elif one.opcode == CLOSE and closes:
                    await self.send(frame(CLOSE, one.payload, key=self.key))
                    with trio.move_on_after(0.1):  # whatever follows a close frame is seen too
                        while (one := await self.read()) is not None:
                            self.frames.append(one)
                    break
            except OSError:
                break
        self.at_end = True
        self.link.close()

    async def wait_for(self, event: str, count: int = 1, *, within_s: float = 30) -> list[dict[str, Any]]:
        """Wait until `count` messages of an event have been read (by `read_all`, in another task)."""
        with trio.fail_after(within_s):
            while len(found := self.named(event)) < count:  # noqa: ASYNC110 - a moment of virtual time costs nothing
                await trio.sleep(0.005)
        return found

    async def read_head(self) -> str:
        """Read the other side's HTTP head; what follows it stays unread."""
        while b"\r\n\r\n" not in self._unread:
            if not await self._fill():
                return self._unread.decode("latin-1")
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        return self.head

    async def upgrade_as_server(self) -> None:
        """Answer the client's upgrade."""
        await self.read_head()
        await self.send(accept_upgrade(self.headers["sec-websocket-key"]))

    async def upgrade_as_client(self, path: str = "/", *headers: tuple[str, str], host: str = "bot") -> str:
        """Ask for the upgrade; return the status line of the answer."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode())
        return (await self.read_head()).partition("\r\n")[0]


async def accept(listener: MemoryListener) -> Peer:
    """Take the next connection at a memory address and upgrade it."""
    peer = Peer(await listener.accept(), client=False)
    await peer.upgrade_as_server()
    return peer


def connect(name: str) -> Peer:
    """Connect to whoever listens at ``memory://name``; not upgraded yet."""
    return Peer(connect_memory(name), client=True)
