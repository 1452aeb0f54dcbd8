"""A control link: messages and file descriptors between two processes of one program, over an AF_UNIX socket.

The problem: either end may be killed, stopped or full of garbage at any moment, sending must never make the sender
wait (a hang-up is synchronous), and a cancelled task must not leave half a message behind. The choice: `put` sends
what the socket takes and queues the rest, within a bound; one task, `run_sender`, that nobody cancels while the link is
of use, moves the queue; what is received comes out of one `receive` for one reader. A full queue means that the other
end does not read, which for these processes is as good as gone: the link breaks.

Descriptors are duplicated when they are queued, so whoever gave them may close his own at once. On Linux one
``sendmsg`` is one batch of descriptors and no read joins two; batches are matched with the messages that announce
them, in order. When the receiver has no descriptor left the kernel drops them and says so: the message is then
handed over with None in place of its sockets.

Source: unix(7), SCM_RIGHTS; cmsg(3), MSG_CTRUNC.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from talkpath.errors import RemoteWireError
from talkpath.wire.control import MAX_SOCKETS, Decoder, Message, Place, encode

UNSENT_BYTES_MAX = 1 << 20
"""Queued for a peer that does not read; beyond it the link is broken."""
_READ_BYTES = 64 * 1024
_TOO_MANY_S = 0.02
_CLOEXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_SOCKETS * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0


@dataclass(frozen=True, slots=True)
class Received:
    """One message, and the sockets that came with it; whoever receives them owns them."""

    message: Message
    sockets: tuple[socket.socket, ...] | None = ()
    """None: they were sent, and this process had no descriptor left for them."""


class ControlLink:
    """One end; see the module. One task receives, one runs `run_sender`, anybody puts."""

    def __init__(self, sock: socket.socket, *, takes_sockets: bool) -> None:
        sock.setblocking(False)
        sock.set_inheritable(False)
        self._sock = sock
        self._takes_sockets = takes_sockets
        self._decoder = Decoder()
        self._batches: deque[tuple[int, ...] | None] = deque()
        """Descriptors that came before the message that announces them was complete."""
        self._to_send: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._unsent_bytes = 0
        self._send_lot = trio.lowlevel.ParkingLot()
        self._sent_lot = trio.lowlevel.ParkingLot()
        self.broken = False
        """Nothing is sent any more. What had come before can still be received."""

    def put(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Queue a message; never waits.

        Raises:
            ConfigError: it cannot travel; see `encode`. Nothing was queued.
            OSError: the link is broken, or the peer has not read for long, or there is no descriptor for a copy of
                the sockets. Nothing was queued.
        """
        data = encode(message)
        if self.broken:
            raise BrokenPipeError(errno.EPIPE, "the other process is gone")
        if self._unsent_bytes + len(data) > UNSENT_BYTES_MAX:
            self._break()
            raise BrokenPipeError(errno.ENOBUFS, "the other process does not read")
        copies: list[int] = []
        try:
            copies += (os.dup(one.fileno()) for one in sockets)
        except OSError:
            _close_all(copies)
            raise
        self._to_send.append((memoryview(data), tuple(copies)))
        self._unsent_bytes += len(data)
        if len(self._to_send) > 1:
            return
        try:
            # At once, if it can be: whoever puts may compute for long before the sender has its turn.
            self._send_first()
        except BlockingIOError:
            self._send_lot.unpark_all()
        except OSError:
            self._break()
            raise

    async def run_sender(self) -> None:
        """Move what could not be sent at once until cancelled; a task of its own. What breaks the link is not raised.

        Cancellation: the link is of no more use but for receiving.
        """
        try:
            while not self.broken:
                while self._to_send:
                    try:
                        self._send_first()
                    except BlockingIOError as exc:
                        if exc.errno == errno.ETOOMANYREFS:
                            await trio.sleep(_TOO_MANY_S)
                        else:
                            await trio.lowlevel.wait_writable(self._sock)
                self._sent_lot.unpark_all()
                if not self.broken:
                    await self._send_lot.park()
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            self._break()

    def _send_first(self) -> None:
        """Send what fits of the first message. Raises BlockingIOError (nothing fits), OSError (broken)."""
        rest, copies = self._to_send[0]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", copies))] if copies else []
        try:
            n = self._sock.sendmsg([rest], ancillary)
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:
                # More descriptors are on their way between processes than a user may have; the other end reads some.
                raise BlockingIOError(*exc.args) from None
            raise
        # The descriptors left with the first byte.
        _close_all(copies)
        self._unsent_bytes -= n
        if n < len(rest):
            self._to_send[0] = rest[n:], ()
        else:
            self._to_send.popleft()

    async def flush(self) -> None:
        """Wait until all that was put is with the system, or the link is broken. Cancellation changes nothing."""
        while self._to_send and not self.broken:
            await self._sent_lot.park()

    async def receive(self) -> Received | None:
        """Return the next message; None at the orderly or abrupt end of the other process.

        Raises:
            RemoteWireError: what came is no message, or the end came in the middle of one.

        Cancellation: nothing is lost.
        """
        while True:
            message = self._decoder.next_message()
            if message is not None:
                return Received(message, self._sockets_for(message))
            try:
                if not self._read():
                    break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError:
                break
        if self._decoder.amid:
            raise RemoteWireError("the end came in the middle of a message", wire="control")
        return None

    def _read(self) -> int:
        if not self._takes_sockets:
            # A plain recv: descriptors that nobody asked for are closed by the kernel.
            data = self._sock.recv(_READ_BYTES)
        else:
            data, ancillary, flags, _ = self._sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, _CLOEXEC)
            numbers = array.array("i")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            if flags & socket.MSG_CTRUNC:
                _close_all(numbers)
                self._batches.append(None)
            elif numbers:
                self._batches.append(tuple(numbers))
        self._decoder.receive(data)
        return len(data)

    def _sockets_for(self, message: Message) -> tuple[socket.socket, ...] | None:
        if not isinstance(message, Place) or message.sockets == 0:
            return ()
        batch = self._batches.popleft() if self._batches else None
        if batch is None:
            return None
        if len(batch) != message.sockets:
            _close_all(batch)
            raise RemoteWireError("the message came with another number of sockets", wire="control", event="place")
        sockets: list[socket.socket] = []
        try:
            for number in batch:
                os.set_inheritable(number, False)
                sockets.append(socket.socket(fileno=number))
        except OSError:
            _close_all(batch[len(sockets) :])
            for one in sockets:
                one.close()
            raise RemoteWireError("the message came with what is no socket", wire="control", event="place") from None
        return tuple(sockets)

    def _break(self) -> None:
        self.broken = True
        for _, copies in self._to_send:
            _close_all(copies)
        self._to_send.clear()
        self._unsent_bytes = 0
        self._send_lot.unpark_all()
        self._sent_lot.unpark_all()

    def close(self) -> None:
        """Close at once; what has not been sent or received is lost. Idempotent."""
        self._break()
        for batch in self._batches:
            _close_all(batch or ())
        self._batches.clear()
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


def _close_all(numbers: Sequence[int] | array.array[int]) -> None:
    for number in numbers:
        with contextlib.suppress(OSError):
            os.close(number)
