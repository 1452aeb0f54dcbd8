"""gRPC as a carriage: one call of a connection carries one stream's messages. (Surface; the bodies follow.)"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from talkpath.transport.link import Link
from talkpath.transport.upgrade import Target
from talkpath.wire.grpc import GrpcOptions, Status

if TYPE_CHECKING:
    from talkpath.transport.carrier import Carrier
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver
    from talkpath.transport.websocket import ConnectionOwner

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of a lower-case name and a value; the value of a name that ends in ``-bin`` is bytes."""


class GrpcCarriage:
    """One gRPC call, bidirectional streaming, that a task has opened or accepted.

    Until `carry`, a task may read and write messages here; a carriage that is not carried is refused or closed.
    """

    framed = False
    masked = False
    pumpable = False

    path: str
    metadata: Metadata
    """Server: what the client sent with the call. Client: what it sends."""
    timeout_s: float | None
    """Of the call, as the client asked (``grpc-timeout``)."""
    wrap: Callable[[memoryview], bytes]
    """Makes one gRPC message of what the native core wrote as one media message; `bytes` unless set before `carry`."""

    @property
    def on_socket(self) -> bool: ...

    def peer_name(self) -> str: ...

    async def receive_message(self) -> bytes | None:
        """Wait for the next message; None when the peer has said that there will be no more.

        Raises:
            OSError: the peer cancelled the call, or the connection is gone.
            RemoteWireError: the peer broke the rules of HTTP/2 or gRPC.

        Cancellation: no message is lost.
        """
        ...

    async def send_message(self, payload: bytes) -> None:
        """Send one message; waits for room. Raises as `receive_message`."""
        ...

    def refuse(self, status: Status, message: str) -> None:
        """Server: answer with a status at once and be done with the call. Client: cancel."""
        ...

    def carry(
        self,
        driver: TasksDriver,
        native: Any,
        owner: ConnectionOwner,
        *,
        live: bool,
        writes_binary: bool,
        max_message_bytes: int,
        mask_seed: int,
        pump: tuple[PumpDriver, int, int] | None = None,
    ) -> Carrier: ...

    def decline(self, mask_seed: int) -> None:
        """Server: UNAVAILABLE. Client: cancel."""
        ...

    def close(self) -> None:
        """Cancel the call (RST_STREAM)."""
        ...


def parse_grpc_url(url: str) -> Target:
    """Take apart ``http://``, ``https://``, ``grpc://`` (= http), ``grpcs://`` (= https) or ``memory://``. Raises
    ConfigError.
    """
    raise NotImplementedError


async def open_grpc(
    target: Target,
    path: str,
    *,
    metadata: Metadata = (),
    context: ssl.SSLContext | None = None,
    deadline_s: float | None = None,
    options: GrpcOptions = GrpcOptions(),
) -> GrpcCarriage:
    """Dial and begin one call on a connection of its own; h2c for ``http``, TLS with ALPN for ``https``.

    Raises:
        OSError, ssl.SSLError: could not connect.
        RemoteWireError: the peer speaks no HTTP/2, or refused the call at once.
    """
    raise NotImplementedError


class GrpcServerConnection:
    """One accepted connection: `run` it in a task; each call that comes has `handle(carriage)` run in a task of its own.

    A handler that returns without having carried or refused the call has it closed with INTERNAL. What a handler
    raises passes through `run`, so it should raise nothing but cancellation.
    """

    def __init__(
        self,
        link: Link,
        handle: Callable[[GrpcCarriage], Awaitable[None]],
        *,
        paths: Collection[str],
        leftover: bytes = b"",
        options: GrpcOptions = GrpcOptions(),
        idle_s: float = 300.0,
    ) -> None: ...

    async def run(self) -> None:
        """Serve until the connection is over and every handler has returned. Raises nothing but cancellation.

        Cancellation: calls are cancelled, the link is closed.
        """
        ...

    def drain(self) -> None:
        """Take no new calls (GOAWAY); `run` returns when the last is over."""
        ...
