"""What carries one stream's messages: a WebSocket, a gRPC call, a bare TCP connection.

Two halves, because making a connection may wait and using it must not. A `Carriage` is a connection that has been made
(dialled or accepted, TLS and upgrade behind it) and that nobody reads yet; a task made it. The driver's step takes it
over: `Carriage.carry` gives the `Carrier`, which is told when bytes come, hands messages to its owner, and sends. From
then on only `flush` and `close` wait.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from talkpath.transport.audiosocket import open_audiosocket, parse_audiosocket_url
from talkpath.transport.grpc import open_grpc, parse_grpc_url
from talkpath.transport.link import Link, SocketLink, TlsLink
from talkpath.transport.owner import ConnectionOwner
from talkpath.transport.upgrade import Target, open_websocket, parse_url
from talkpath.transport.url_policy import EVERYWHERE, UrlPolicy
from talkpath.transport.websocket import Connection
from talkpath.wire.websocket import CLOSE, close_payload, frame

if TYPE_CHECKING:
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver

CLOSE_TRY_LATER = 1013


class Carrier(Protocol):
    """A connection in the clock's hands. Synchronous but for `flush` and `close`; what goes wrong is told to its
    `ConnectionOwner`, never raised.
    """

    @property
    def broken(self) -> bool:
        """Nothing can be sent any more; no goodbye is worth trying."""
        ...

    @property
    def pings_sent(self) -> int: ...

    @property
    def round_trip_ms(self) -> float: ...

    def start(self, now_ns: int) -> None:
        """Take over: what has come already is read now, what comes later in the steps."""
        ...

    def stop(self) -> None:
        """Read no more; before anything else may close the descriptor. Idempotent."""
        ...

    def send_media(self, framed: memoryview) -> None:
        """Send one media message as the native core wrote it, or let it wait; live audio without room is dropped."""
        ...

    def send_message(self, payload: bytes) -> None:
        """Send one control message behind whatever waits; never dropped."""
        ...

    def backlogged(self) -> bool:
        """Whether bytes wait for the socket."""
        ...

    def media_dropped_so_far(self) -> int:
        """Return how many media messages found no room."""
        ...

    def check_alive(self, now_ns: int) -> bool:
        """Ask a silent peer; return False when it has been silent too long. Once a second."""
        ...

    async def flush(self, stall_s: float = math.inf) -> bool:
        """Hand over what waits as the peer reads; False when it takes nothing for `stall_s`."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Say goodbye as far as the peer lets us; `code` is a WebSocket's, others translate it."""
        ...

    def abort(self) -> None:
        """Close without a goodbye."""
        ...


class Carriage(Protocol):
    """A connection that has been made and that nobody reads yet. One owner; given to `carry` or closed."""

    framed: bool
    """Media messages are WebSocket frames, read and written by the native core; else they pass as they are."""
    masked: bool
    """Frames of ours are masked (we are a WebSocket's client)."""

    @property
    def on_socket(self) -> bool: ...

    @property
    def pumpable(self) -> bool:
        """The pump may move its bytes."""
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
    ) -> Carrier:
        """Make the carrier; in the step, once.

        Args:
            native: the stream whose media it carries.
            live: media is worth nothing later (a call's tracks): what finds no room is dropped, not kept.
            writes_binary: control messages are binary.
            pump: the pump with the member's slot and the stream's index there, where it is to move the bytes.
        """
        ...

    def decline(self, mask_seed: int) -> None:
        """Tell the peer to try again later, if it can be told at once, and close."""
        ...

    def close(self) -> None: ...


class WebSocketCarriage:
    """An upgraded WebSocket: its link, and the bytes that came after the handshake."""

    __slots__ = ("leftover", "link", "masked")

    framed = True

    def __init__(self, link: Link, leftover: bytes, *, masked: bool) -> None:
        self.link = link
        self.leftover = leftover
        self.masked = masked

    @property
    def on_socket(self) -> bool:
        return self.link.fd is not None

    @property
    def pumpable(self) -> bool:
        return isinstance(self.link, (SocketLink, TlsLink))

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
    ) -> Carrier:
        """As `Carriage`."""
        return Connection(
            driver,
            self.link,
            native,
            owner,
            masked=self.masked,
            live=live,
            writes_binary=writes_binary,
            max_message_bytes=max_message_bytes,
            mask_seed=mask_seed,
            leftover=self.leftover,
            pump=pump,
        )

    def decline(self, mask_seed: int) -> None:
        """As `Carriage`."""
        key = mask_seed.to_bytes(8, "big")[:4] if self.masked else None
        with contextlib.suppress(OSError):
            self.link.send(frame(CLOSE, close_payload(CLOSE_TRY_LATER), key))
        self.link.close()

    def close(self) -> None:
        """As `Carriage`."""
        self.link.close()


def parse_target(transport: str, url: str) -> Target:
    """Take apart the address of an application on a transport. Raises ConfigError: not such an address."""
    if transport == "audiosocket":
        return parse_audiosocket_url(url)
    return parse_grpc_url(url) if transport == "grpc" else parse_url(url)


async def open_carriage(
    transport: str,
    target: Target,
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocol: str = "",
    method: str = "",
    wrap: Callable[[memoryview], bytes] = bytes,
    context: ssl.SSLContext | None = None,
    policy: UrlPolicy = EVERYWHERE,
) -> Carriage:
    """Dial an application over what its wire travels on (`Wire.transport`).

    Args:
        headers: of the upgrade, or the call's metadata.
        method: gRPC's.
        wrap: makes a message of what the native core writes of a media message, where that is not a message already.

    Raises:
        DestinationForbidden: `policy` does not permit it.
        OSError, ssl.SSLError: could not connect.
        RemoteWireError: the peer answered, but not in the transport's language.

    Cancellation: nothing is left open.
    """
    if transport == "grpc":
        metadata = tuple((name.lower(), value) for name, value in headers)
        carriage = await open_grpc(target, method, metadata=metadata, context=context, policy=policy)
        carriage.wrap = wrap
        return carriage
    if transport == "audiosocket":
        return await open_audiosocket(target, policy=policy)
    link, leftover = await open_websocket(
        target, headers=headers, subprotocol=subprotocol, context=context, policy=policy
    )
    return WebSocketCarriage(link, leftover, masked=True)
