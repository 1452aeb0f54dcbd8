"""Lines over gRPC: each call on a connection is a line of its own.

What its caller hears of it, as gRPC's status:

=============================================  ====================================
shows too little of who it is                  UNAUTHENTICATED, PERMISSION_DENIED
too many from its address                      RESOURCE_EXHAUSTED
no room (`Admission`)                          UNAVAILABLE
opens as no wire does                          INVALID_ARGUMENT
no opening message in time                     DEADLINE_EXCEEDED
another method                                 UNIMPLEMENTED
the line ended                                 OK; the bot failed: INTERNAL; the server goes: UNAVAILABLE
=============================================  ====================================

The connection itself has `ServeConfig.handshake_s` for its first line; after that it may live without one for a while,
as the connections of gRPC's clients do.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

import trio

from talkpath.errors import RemoteWireError
from talkpath.line.config import LineRecord
from talkpath.line.line import Line
from talkpath.line.opening import MAX_OPENING_BYTES, MAX_OPENING_MESSAGES, Recogniser, wires_on
from talkpath.transport.grpc import GrpcCarriage, GrpcServerConnection
from talkpath.wire.catalog import wire_named
from talkpath.wire.grpc import Status
from talkpath.wire.websocket import Headers

if TYPE_CHECKING:
    from talkpath.events import StreamStarted
    from talkpath.line.access import Access
    from talkpath.line.arrival import Arrival
    from talkpath.wire.dialect import Dialect

IDLE_S = 60.0
"""How long a connection may live between its lines."""
GRACE_S = 0.5
"""Whoever took too long is told so, and then hung up on."""

log = logging.getLogger("talkpath.line.grpc_lines")


async def serve_calls(arrival: Arrival, leftover: bytes) -> LineRecord | None:
    """Serve one connection that speaks HTTP/2 until it is over. Raises nothing but cancellation.

    Args:
        leftover: what has been read.

    Returns:
        The last line's record; None when none was opened.
    """
    calls = _Calls(arrival)
    try:
        return await calls.serve(leftover)
    finally:
        arrival.settled()


class _Calls:
    """The calls of one connection."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._server = arrival.server
        self._wires = {wire_named(name).grpc_method: name for name in wires_on("grpc", arrival.server.wire)}
        self._record: LineRecord | None = None
        self._patience = trio.CancelScope()

    async def serve(self, leftover: bytes) -> LineRecord | None:
        arrival = self._arrival
        connection = GrpcServerConnection(
            arrival.link,
            self._serve_call,
            paths=tuple(self._wires),
            leftover=leftover,
            idle_s=IDLE_S,
            greeting_s=max(0.0, arrival.deadline - trio.current_time()),
        )
        self._patience.deadline = arrival.deadline + GRACE_S
        with self._patience:
            await connection.run()
        if self._patience.cancelled_caught:
            log.info("a connection from %s did not open a line in time", arrival.link.peer_name())
        return self._record

    async def _serve_call(self, carriage: GrpcCarriage) -> None:
        line = await self._open(carriage)
        if line is None:
            return
        self._patience.deadline = math.inf
        self._arrival.settled()
        self._record = await self._arrival.live(line, carriage.close) or self._record

    async def _open(self, carriage: GrpcCarriage) -> Line | None:
        """Read the call's opening message; None when the peer was told why not. A line that is returned is counted."""
        line: Line | None = None
        with self._arrival.refusals(), contextlib.suppress(_Refused):
            try:
                with trio.fail_at(self._deadline()):
                    line = await self._let_in(carriage)
            except trio.TooSlowError:
                carriage.refuse(Status.DEADLINE_EXCEEDED, "no opening message in time")
                raise
            except RemoteWireError as exc:
                carriage.refuse(Status.INVALID_ARGUMENT, str(exc))
                raise
        return line

    def _deadline(self) -> float:
        """Until when a call that begins now is to have its line: that of the connection counts for its first one."""
        return min(trio.current_time() + self._server.config.handshake_s, self._patience.deadline - GRACE_S)

    def _refuse(self, carriage: GrpcCarriage, status: Status, message: str, why: str) -> _Refused:
        log.info("a call from %s was refused: %s", carriage.peer_name(), why)
        carriage.refuse(status, message)
        return _Refused()

    async def _let_in(self, carriage: GrpcCarriage) -> Line:
        arrival, server = self._arrival, self._server
        name = self._wires[carriage.path]
        headers = Headers([(key, value) for key, value in carriage.metadata if isinstance(value, str)])
        shown = arrival.shown((name,), headers, carriage.path, None)
        ways = arrival.ways_left(shown)
        if ways is None:
            raise self._no_access(carriage)
        if not arrival.is_for(shown.address):
            raise self._refuse(carriage, Status.RESOURCE_EXHAUSTED, "too many connections", "too many from its address")
        refusal = server.admission.refusal()
        if refusal is not None:
            raise self._refuse(carriage, Status.UNAVAILABLE, "no room now, try again later", refusal.explanation)
        server.lines += 1
        try:
            return await self._recognise(carriage, name, ways)
        except BaseException:
            server.lines -= 1
            raise

    def _no_access(self, carriage: GrpcCarriage) -> _Refused:
        mendable = self._server.gate.challenge().status == 401
        status = Status.UNAUTHENTICATED if mendable else Status.PERMISSION_DENIED
        return self._refuse(carriage, status, "this server is not for whoever calls", "no access")

    async def _recognise(self, carriage: GrpcCarriage, name: str, ways: tuple[Access, ...]) -> Line:
        dialect, started = await self._receive_start(carriage, name)
        if not self._arrival.admits(ways, dialect, started):
            raise self._no_access(carriage)
        carriage.wrap = dialect.wrap_media
        return self._arrival.make_line(dialect, started, carriage, path=carriage.path)

    async def _receive_start(self, carriage: GrpcCarriage, name: str) -> tuple[Dialect, StreamStarted]:
        recogniser = Recogniser((name,), self._server.config.options)
        for _ in range(MAX_OPENING_MESSAGES):
            message = await carriage.receive_message()
            if message is None:
                raise RemoteWireError("the peer closed before the wire's opening message", wire=name, event="opening")
            if len(message) > MAX_OPENING_BYTES:
                raise RemoteWireError("the opening message is too long", wire=name, kind="too_long")
            found = recogniser.receive(message, binary=True)
            if found is not None:
                return found
        raise RemoteWireError(
            f"{MAX_OPENING_MESSAGES} messages and still no start", event="opening", kind="unknown_wire"
        )


class _Refused(Exception):
    """The call was refused, and its caller told."""
