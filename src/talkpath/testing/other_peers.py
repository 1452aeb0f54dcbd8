"""Peers of the wires that do not travel on a WebSocket: one gRPC call, one AudioSocket connection."""

from __future__ import annotations

from collections.abc import Callable

import trio

from talkpath.errors import RemoteWireError
from talkpath.testing.message_peer import Arrival, MessagePeer
from talkpath.transport.grpc import GrpcCarriage, GrpcServerConnection
from talkpath.transport.link import Link
from talkpath.transport.upgrade import send_all
from talkpath.wire.audiosocket import Splitter
from talkpath.wire.grpc import Status

CLOSE_NORMAL, CLOSE_INTERNAL = 1000, 1011
BUSY = f"status_{int(Status.UNAVAILABLE)}"
"""What `open_grpc` says of a server without room."""
BUSY_STATUSES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
REFUSED_STATUSES = ("UNAUTHENTICATED", "PERMISSION_DENIED")
REFUSED = tuple(f"status_{int(Status[name])}" for name in REFUSED_STATUSES)
"""What `open_grpc` says of a server that does not let in who calls."""


class GrpcPeer(MessagePeer):
    """One call, bidirectional streaming; of a client, or the first that a client makes on a connection.

    OK and half-closing are read as 1000, any other status as 1011, a reset as no word at all.

    Args:
        carriage: client: the call. Server: None.
        link: server: the connection, just accepted.
        method: server: the path of the call that is waited for.
    """

    def __init__(self, carriage: GrpcCarriage | None = None, *, link: Link | None = None, method: str = "") -> None:
        super().__init__()
        self._carriage = carriage
        self._link = link
        self._method = method
        self._begun = trio.Event()
        self._finished = False
        self.status = ""
        """What a server ended the call with, where that is not OK."""
        if carriage is not None:
            self._begun.set()

    @property
    def metadata(self) -> dict[str, str]:
        """What the client sent with the call."""
        if self._carriage is None:
            return {}
        return {name: value for name, value in self._carriage.metadata if isinstance(value, str)}

    async def run(self, heard: Callable[[Arrival], None]) -> None:
        """As `MessagePeer`."""
        try:
            if self._carriage is not None:
                await self._read(self._carriage, heard)
                return
            assert self._link is not None

            async def handle(carriage: GrpcCarriage) -> None:
                if self._carriage is None:
                    self._carriage = carriage
                    self._begun.set()
                    await self._read(carriage, heard)

            await GrpcServerConnection(self._link, handle, paths=(self._method,)).run()
        finally:
            if not self.at_end:
                self._ended()

    async def _read(self, carriage: GrpcCarriage, heard: Callable[[Arrival], None]) -> None:
        try:
            while (message := await carriage.receive_message()) is not None:
                self._arrive(message, True, heard)
            self.close_code = CLOSE_NORMAL
            carriage.finish()
        except RemoteWireError as error:
            if not error.kind.startswith("status_"):
                self.violations.append(str(error))
            self.close_code = CLOSE_INTERNAL
            self.status = carriage.call.end.status.name if carriage.call.end is not None else ""
        except OSError:
            # It was reset, or the connection is gone; behind a server's status that is as good an answer as any.
            self.close_code = CLOSE_NORMAL if self._finished and self._link is not None else None
        finally:
            self._ended()

    async def send(self, payload: bytes, *, binary: bool) -> None:
        """As `MessagePeer`."""
        await self._begun.wait()
        assert self._carriage is not None
        try:
            await self._carriage.send_message(payload)
        except RemoteWireError as error:
            raise ConnectionAbortedError(103, str(error)) from None

    async def close(self, code: int = CLOSE_NORMAL) -> None:
        """As `MessagePeer`: a client half-closes, a server gives OK, or INTERNAL where it is not 1000."""
        self._finished = True
        if self._carriage is not None:
            self._carriage.finish(Status.OK if code == CLOSE_NORMAL else Status.INTERNAL)
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """As `MessagePeer`."""
        if self._carriage is not None:
            self._carriage.close()
        if self._link is not None:
            self._link.close()


class AudioSocketPeer(MessagePeer):
    """One bare TCP connection of messages with three header bytes. Its end between two messages is read as 1000."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._writing = trio.Lock()

    async def run(self, heard: Callable[[Arrival], None]) -> None:
        """As `MessagePeer`."""
        buffer, splitter = bytearray(65536), Splitter()
        try:
            while True:
                try:
                    n = self._link.recv_into(memoryview(buffer))
                except BlockingIOError:
                    await self._link.wait_readable()
                    continue
                if n == 0:
                    self.close_code = CLOSE_NORMAL if splitter.is_between else None
                    break
                for message in splitter.receive(bytes(buffer[:n])):
                    self._arrive(message, True, heard)
        except (OSError, trio.ClosedResourceError):
            pass  # It hung up without a word, or we did.
        finally:
            self._link.close()
            self._ended()

    async def send(self, payload: bytes, *, binary: bool) -> None:
        """As `MessagePeer`."""
        async with self._writing:
            began = trio.current_time()
            await send_all(self._link, payload)
            self.slowest_send_s = max(self.slowest_send_s, trio.current_time() - began)

    async def close(self, code: int = CLOSE_NORMAL) -> None:
        """As `MessagePeer`: nothing more is sent; the wire knows no codes."""
        self._link.finish()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """As `MessagePeer`."""
        self._link.close()
