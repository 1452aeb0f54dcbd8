"""Byte links in memory, for tests in virtual time and for both ends in one process.

They block like sockets do: each direction holds a bounded number of bytes, and a peer that does not read makes `send`
raise `BlockingIOError`. A memory link tells the run's driver that it has become readable, since no poll would see it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

CAPACITY_BYTES = 64 * 1024
"""Per direction: more than two seconds of media messages, about what a tuned TCP socket pair holds."""


class MemoryLink:
    """One end of a pair; see `memory_link_pair`."""

    fd: int | None = None

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._inbox: deque[bytes] = deque()
        self._held = 0
        self._eof = False
        self._finished = False
        self.closed = False
        self._peer: MemoryLink | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        self.on_readable: Callable[[MemoryLink], None] | None = None
        """Called, synchronously, whenever there is something to read; set by whoever polls."""

    def recv_into(self, buffer: memoryview) -> int:
        if self.closed:
            raise OSError(9, "the link is closed")
        if not self._inbox:
            if self._eof:
                return 0
            raise BlockingIOError
        n = 0
        while self._inbox and n < len(buffer):
            piece = self._inbox[0]
            take = min(len(piece), len(buffer) - n)
            buffer[n : n + take] = piece[:take]
            n += take
            if take == len(piece):
                self._inbox.popleft()
            else:
                self._inbox[0] = piece[take:]
        self._held -= n
        if self._peer is not None:
            self._peer._writers.unpark_all()
        return n

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.closed:
            raise OSError(9, "the link is closed")
        peer = self._peer
        if peer is None or peer.closed or self._finished:
            raise BrokenPipeError(32, "the other end is closed")
        room = peer._capacity - peer._held
        if room <= 0:
            raise BlockingIOError
        piece = bytes(data[:room])
        if piece:
            peer._inbox.append(piece)
            peer._held += len(piece)
            peer._readable()
        return len(piece)

    def _readable(self) -> None:
        self._readers.unpark_all()
        if self.on_readable is not None:
            self.on_readable(self)

    def unsent(self) -> bool:
        return False

    def flush(self) -> None:
        return

    def more(self) -> bool:
        return bool(self._inbox)

    def ready(self) -> bool:
        """Whether `recv_into` would not block."""
        return bool(self._inbox) or self._eof

    async def wait_readable(self) -> None:
        if self.ready() or self.closed:
            await trio.lowlevel.checkpoint()
            return
        await self._readers.park()

    async def wait_writable(self) -> None:
        peer = self._peer
        if peer is None or peer.closed or peer._held < peer._capacity or self.closed:
            await trio.lowlevel.checkpoint()
            return
        await self._writers.park()

    def finish(self) -> None:
        peer = self._peer
        if not self.closed and peer is not None and not peer.closed:
            self._finished = peer._eof = True
            peer._readable()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._readers.unpark_all()
        self._writers.unpark_all()
        peer = self._peer
        if peer is not None and not peer.closed:
            peer._eof = True
            peer._writers.unpark_all()
            peer._readable()

    def tune_for_media(self) -> None:
        return

    def peer_name(self) -> str:
        return "memory"


def memory_link_pair(capacity_bytes: int = CAPACITY_BYTES) -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a link; each direction holds `capacity_bytes`."""
    a, b = MemoryLink(capacity_bytes), MemoryLink(capacity_bytes)
    a._peer, b._peer = b, a
    return a, b


class MemoryListener:
    """A name at which `memory://name` can be reached within this Trio run; see `listen_memory`."""

    def __init__(self, name: str, backlog: int) -> None:
        self.name = name
        self._backlog = backlog
        self._waiting: deque[MemoryLink] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self.closed = False

    async def accept(self) -> MemoryLink:
        """Return the next link. Cancellation loses nothing."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._lot.park()
        return self._waiting.popleft()

    def _offer(self) -> MemoryLink:
        if self.closed or len(self._waiting) >= self._backlog:
            raise ConnectionRefusedError(111, "nobody accepts at this memory address")
        ours, theirs = memory_link_pair()
        self._waiting.append(theirs)
        self._lot.unpark()
        return ours

    def close(self) -> None:
        self.closed = True
        for link in self._waiting:
            link.close()
        self._waiting.clear()
        listeners = _listeners.get()
        if listeners is not None and listeners.get(self.name) is self:
            del listeners[self.name]


_listeners: trio.lowlevel.RunVar[dict[str, MemoryListener] | None] = trio.lowlevel.RunVar(
    "talkpath.memory", default=None
)


def listen_memory(name: str, *, backlog: int = 1024) -> MemoryListener:
    """Take the name `memory://name` in this Trio run.

    Raises:
        OSError: the name is taken; the caller's to mend.
    """
    listeners = _listeners.get()
    if listeners is None:
        listeners = {}
        _listeners.set(listeners)
    if name in listeners:
        raise OSError(98, f"memory://{name} is already listening in this run")
    listeners[name] = listener = MemoryListener(name, backlog)
    return listener


def connect_memory(name: str) -> MemoryLink:
    """Return a link to whoever listens at `memory://name`. Raises ConnectionRefusedError when nobody does."""
    listener = (_listeners.get() or {}).get(name)
    if listener is None:
        raise ConnectionRefusedError(111, "nobody listens at this memory address")
    return listener._offer()
