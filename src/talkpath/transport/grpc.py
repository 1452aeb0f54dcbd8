"""gRPC as a carriage: one call on an HTTP/2 connection carries one stream's messages.

A call begins with a task (`GrpcCarriage`: `open_grpc` dialled it, or a `GrpcServerConnection` accepted it), which may
read its first messages; `carry` hands it to the clock (`GrpcCarrier`), which gives every message to the stream's owner.
How several calls share a connection: `grpc_channel`.

What the peer does, and what the stream's owner hears of it:

=======================================================  =============================
status OK (client), half-close (server)                  ``on_peer_closed(1000)``
any other status                                         ``on_peer_closed(1011)``
RST_STREAM, the end of the connection                    ``on_peer_closed(None)``
the socket breaks                                        ``on_broken``
HTTP/2 or gRPC broken; a message too long or compressed  ``on_protocol_error``
does not read (its socket, or its flow control)          ``on_full``, then `GrpcCarrier.flush`
=======================================================  =============================

GOAWAY ends nothing: a call in progress goes on, no other begins.
"""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.transport.grpc_channel import Channel, trio_ns
from talkpath.transport.link import Link, SocketLink, TlsLink, open_socket_link
from talkpath.transport.owner import ConnectionOwner
from talkpath.transport.tls import default_client_context
from talkpath.transport.unsent import MAX_PENDING_MEDIA_BYTES
from talkpath.transport.upgrade import Target, open_link, parse_url
from talkpath.transport.url_policy import EVERYWHERE, UrlPolicy
from talkpath.wire.grpc import DEFAULT_OPTIONS, Call, GrpcConnection, GrpcOptions, Metadata, Status

if TYPE_CHECKING:
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver

MAX_MESSAGES_A_STEP = 64
"""Of one call; the rest waits for the next step, unacknowledged."""
LINGER_S = 0.5
"""How long a peer that is told that we close may take to hang up."""

STATUS_OF_CODE = {1000: Status.OK, 1001: Status.UNAVAILABLE, 1012: Status.UNAVAILABLE, 1013: Status.UNAVAILABLE}
ALPN = "h2"


class GrpcCarriage:
    """One call, bidirectional streaming, that a task has opened or accepted.

    Until `carry`, a task may read and write messages here; a carriage that is not carried is refused or closed.
    """

    framed = False
    masked = False
    pumpable = False

    def __init__(self, channel: Channel, call: Call) -> None:
        self._channel = channel
        self.call = call
        self.carrier: GrpcCarrier | None = None
        self.wrap: Callable[[memoryview], bytes] = bytes
        """Makes one gRPC message of what the native core wrote as one media message; set before `carry`."""
        self.deadline = trio.current_time() + call.timeout_s if call.timeout_s is not None else math.inf
        """In Trio's time, as the client asked (``grpc-timeout``). Looked at once a second while the call is carried."""
        channel.calls.add(call)

    @property
    def path(self) -> str:
        """Of the method."""
        return self.call.path

    @property
    def metadata(self) -> Metadata:
        """What the client sent with the call."""
        return self.call.metadata

    @property
    def on_socket(self) -> bool:
        return self._channel.link.fd is not None

    def peer_name(self) -> str:
        """Who is at the other end, for the log."""
        return self._channel.link.peer_name()

    def _check(self) -> None:
        channel, end = self._channel, self.call.end
        if channel.failure is not None:
            raise channel.failure
        if end is not None and not end.broken and (end.status is not Status.OK or end.ours):
            kind = f"status_{int(end.status)}"
            raise RemoteWireError(f"the call ended with status {end.status.name}", wire="grpc", kind=kind)
        if channel.broken or (end is not None and end.broken):
            raise ConnectionResetError(104, "the call was cancelled or its connection is gone")

    async def receive_message(self) -> bytes | None:
        """Wait for the next message; None when the peer has said that there will be no more.

        Raises:
            OSError: the peer cancelled the call, or the connection is gone.
            RemoteWireError: the peer broke the rules of HTTP/2 or gRPC, or ended the call with a status other than OK.

        Cancellation: no message is lost.
        """
        await trio.lowlevel.checkpoint()
        while True:
            message = self.call.next_message()
            if message is not None:
                self._channel.send_soon()
                return message
            if self.call.half_closed and (self.call.end is None or self.call.end.status is Status.OK):
                return None
            self._check()
            await self._channel.turn()

    async def send_message(self, payload: bytes) -> None:
        """Send one message; waits for room. Raises as `receive_message`.

        Cancellation: it was sent whole or not at all.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self.call.send(payload):
                self._channel.send_soon()
                return
            await self._channel.turn()

    def finish(self, status: Status = Status.OK) -> None:
        """Say that nothing more will come: a client half-closes, a server gives its status. For tasks; idempotent."""
        if self._channel.machine.client:
            self.call.half_close()
        else:
            self.call.finish_with(status)
        self._channel.send_soon()

    def refuse(self, status: Status, message: str) -> None:
        """Server: answer with a status at once and be done with the call. Client: cancel."""
        if self._channel.machine.client:
            self.call.cancel()
        else:
            self.call.finish_with(status, message)
        self._channel.send_soon()
        self._channel.forget(self.call)

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
    ) -> GrpcCarrier:
        """As `Carriage`. The bound of a message is the connection's (`GrpcOptions.max_message_bytes`)."""
        self.carrier = GrpcCarrier(self._channel, self, driver, owner, live=live)
        return self.carrier

    def decline(self, mask_seed: int) -> None:
        """As `Carriage`: UNAVAILABLE."""
        self.refuse(Status.UNAVAILABLE, "try again later")

    def close(self) -> None:
        """Cancel the call (RST_STREAM). Idempotent."""
        if self.carrier is not None:
            self.carrier.abort()
        elif self.call in self._channel.calls:
            self.call.cancel()
            self._channel.send_soon()
            self._channel.forget(self.call)


class GrpcCarrier:
    """A call in the clock's hands; see `Carrier`."""

    def __init__(
        self, channel: Channel, carriage: GrpcCarriage, driver: TasksDriver, owner: ConnectionOwner, *, live: bool
    ) -> None:
        self._channel = channel
        self._carriage = carriage
        self._call = carriage.call
        self._driver = driver
        self._live = live
        self._wrap = carriage.wrap
        self._closing = False
        self._held = False
        self._given_up = False
        self._owner = owner
        self.media_dropped = 0

    @property
    def broken(self) -> bool:
        """As `Carrier`."""
        return self._given_up or self._channel.broken or self._call.gone

    @property
    def pings_sent(self) -> int:
        return self._channel.pings_sent

    @property
    def round_trip_ms(self) -> float:
        return self._channel.round_trip_ms

    # In the step -------------------------------------------------------------------------------------------------

    def start(self, now_ns: int) -> None:
        """As `Carrier`."""
        self._channel.add(self._call, self, self._driver, now_ns)
        if not self._channel.machine.client:
            self._call.accept()
        self._channel.send_soon()
        self.deliver(now_ns)
        if self._channel.broken and not self._closing:
            self.on_lost(None)

    def stop(self) -> None:
        """As `Carrier`."""
        self._closing = True
        self._channel.remove(self._call)

    def _guard(self, report: Callable[..., None], *facts: Any) -> None:
        """Tell the owner; what that raises ends this stream only."""
        try:
            report(*facts)
        except Exception as exc:
            self._owner.failed(exc)

    def deliver(self, now_ns: int) -> None:
        """Give the owner what has come, the end behind it."""
        if self._held:
            return
        call = self._call
        for _ in range(MAX_MESSAGES_A_STEP):
            if self._closing:
                return
            message = call.next_message() if call.messages else None
            if message is None:
                if call.end is not None or call.half_closed:
                    self._deliver_end()
                return
            try:
                self._owner.on_binary(message, now_ns)
            except Exception as exc:
                self._owner.failed(exc)
        self._held = True
        self._driver.later(self._go_on)

    def _go_on(self, now_ns: int) -> None:
        self._held = False
        self.deliver(now_ns)
        self._channel.send_soon()

    def _deliver_end(self) -> None:
        end = self._call.end
        if end is None:
            self._guard(self._owner.on_peer_closed, 1000)
        elif end.ours:
            kind = f"status_{int(end.status)}"
            self._guard(self._owner.on_protocol_error, RemoteWireError(end.message, wire="grpc", kind=kind))
        elif end.broken:
            self._guard(self._owner.on_peer_closed, None)
        else:
            self._guard(self._owner.on_peer_closed, 1000 if end.status is Status.OK else 1011)

    def on_full(self) -> None:
        """As `Carried`."""
        self._guard(self._owner.on_full)

    def on_lost(self, exc: OSError | None) -> None:
        """As `Carried`."""
        if exc is None:
            self._guard(self._owner.on_peer_closed, None)
        else:
            self._guard(self._owner.on_broken, exc)

    def on_protocol_error(self, exc: RemoteWireError) -> None:
        """As `Carried`."""
        self._guard(self._owner.on_protocol_error, exc)

    def failed(self, exc: Exception) -> None:
        """As `Carried`."""
        self._owner.failed(exc)

    def send_media(self, framed: memoryview) -> None:
        """As `Carrier`."""
        call = self._call
        if self._given_up or self._closing or call.gone or self._channel.broken:
            return
        backlog = len(call.outgoing)
        if backlog and self._live and backlog + len(framed) > MAX_PENDING_MEDIA_BYTES:
            self.media_dropped += 1
            return
        self._send(self._wrap(framed))

    def send_message(self, payload: bytes) -> None:
        """As `Carrier`."""
        if not self.broken:
            self._send(payload)

    def _send(self, payload: bytes) -> None:
        call = self._call
        if not call.send(payload):
            self._owner.on_overflow()
            return
        self._channel.send_soon()
        if call.outgoing:
            self._owner.on_full()

    def backlogged(self) -> bool:
        """As `Carrier`: for the peer's windows, or for the link."""
        return (bool(self._call.outgoing) or self._channel.blocked) and not self.broken

    def media_dropped_so_far(self) -> int:
        """As `Carrier`."""
        return self.media_dropped

    def check_alive(self, now_ns: int) -> bool:
        """As `Carrier`; the call's deadline is looked at here, too."""
        if trio.current_time() >= self._carriage.deadline:
            if self._channel.machine.client:
                self._call.cancel("the deadline has passed")
            else:
                self._call.finish_with(Status.DEADLINE_EXCEEDED, "the deadline has passed")
            self._channel.send_soon()
            return False
        return self._channel.check_alive(now_ns)

    # In tasks ----------------------------------------------------------------------------------------------------

    async def flush(self, stall_s: float = math.inf) -> bool:
        """As `Carrier`. Cancellation: what was not sent still waits."""
        before = (-1, -1)
        deadline = math.inf
        await trio.lowlevel.checkpoint()
        while self.backlogged():
            progress = (self._call.backlog, self._channel.sent_bytes if self._channel.blocked else 0)
            if progress != before:
                before, deadline = progress, trio.current_time() + stall_s
            with trio.move_on_at(deadline) as scope:
                await self._channel.turn()
            if scope.cancelled_caught and trio.current_time() >= deadline:
                return False
        return True

    async def close(self, code: int, reason: str = "") -> None:
        """As `Carrier`: a client half-closes and waits for the server's status, a server gives its own.

        Cancellation: the call is cancelled at once.
        """
        self.stop()
        call, channel = self._call, self._channel
        try:
            if not self.broken:
                if channel.machine.client:
                    call.half_close()
                else:
                    call.finish_with(STATUS_OF_CODE.get(code, Status.INTERNAL), reason)
                channel.send_now()
            while not self.broken:
                while call.next_message() is not None:
                    pass  # Said too late: the stream is over.
                channel.send_now()
                await channel.turn()
            while channel.blocked and not channel.broken:
                await channel.turn()
        finally:
            self.abort()

    def abort(self) -> None:
        """As `Carrier`."""
        self.stop()
        if self._given_up:
            return
        self._given_up = True
        self._call.cancel()
        self._channel.send_now()
        self._channel.forget(self._call)


def parse_grpc_url(url: str) -> Target:
    """Take apart ``http://``, ``https://``, ``grpc://`` (= http), ``grpcs://`` (= https) or ``memory://``.

    Raises:
        ConfigError: not such an address; the caller's to mend. The address itself is not repeated.
    """
    scheme, mark, rest = url.partition("://")
    plain = {"http": "http", "grpc": "http", "https": "https", "grpcs": "https", "memory": "memory"}.get(scheme)
    if plain is None or not mark:
        raise ConfigError("the address of a gRPC server begins with http://, https://, grpc:// or grpcs://")
    parsed = parse_url(f"{ {'http': 'ws', 'https': 'wss'}.get(plain, plain) }://{rest}")
    return replace(parsed, scheme=plain)


async def open_grpc(
    target: Target,
    path: str,
    *,
    metadata: Metadata = (),
    context: ssl.SSLContext | None = None,
    deadline_s: float | None = None,
    options: GrpcOptions = DEFAULT_OPTIONS,
    policy: UrlPolicy = EVERYWHERE,
) -> GrpcCarriage:
    """Dial and begin one call on a connection of its own: h2c with prior knowledge for ``http`` and ``memory``, TLS
    with ALPN for ``https``.

    It returns when the server has shown that it speaks HTTP/2. Whether it knows the method, many say only with their
    first message; so that is awaited by nobody.

    Args:
        target: where; its path is not used.
        path: of the method, ``/package.Service/Method``.
        metadata: to go with the call.
        context: for TLS; None trusts the system's authorities. That it offers ``h2`` is seen to here.
        deadline_s: of the whole call; sent as ``grpc-timeout`` and kept.
        options: bounds.
        policy: where it may go.

    Raises:
        DestinationForbidden: `policy` does not permit it.
        OSError, ssl.SSLError: could not connect.
        LocalWireError: metadata that cannot be sent.
        RemoteWireError: the peer speaks no HTTP/2, or refused the call at once.

    Cancellation: nothing is left open.
    """
    link = await (_open_secure(target, context, policy) if target.secure else open_link(target, policy=policy))
    try:
        machine = GrpcConnection(client=True, options=options)
        call = machine.open_call(
            path,
            authority=target.authority,
            scheme="https" if target.secure else "http",
            metadata=metadata,
            timeout_s=deadline_s,
        )
        channel = Channel(link, machine)
        carriage = GrpcCarriage(channel, call)
        channel.send_now()
        while not machine.greeted and not channel.broken:
            await channel.turn()
        carriage._check()
    except BaseException:
        link.close()
        raise
    return carriage


async def _open_secure(target: Target, context: ssl.SSLContext | None, policy: UrlPolicy) -> Link:
    context = context or await default_client_context()
    tcp = await open_socket_link(target.host, target.port, target.scheme, policy)
    try:
        context.set_alpn_protocols([ALPN])
        try:
            tls = TlsLink(tcp, context, server_side=False, server_hostname=target.host)
        finally:
            context.set_alpn_protocols(["http/1.1"])  # as contexts made here have it, for WebSockets
        await tls.do_handshake()
        if tls.records.alpn_protocol() != ALPN:
            raise RemoteWireError("the server's TLS does not agree on HTTP/2 (ALPN h2)", wire="grpc", kind="alpn")
    except BaseException:
        tcp.close()
        raise
    return tls


async def accept_secure(link: SocketLink, context: ssl.SSLContext) -> TlsLink:
    """Complete a server's TLS handshake with ALPN ``h2``, beside which the context goes on offering ``http/1.1``.

    Raises:
        OSError, ssl.SSLError: the handshake failed.
        RemoteWireError: the client does not ask for HTTP/2.

    Cancellation: as any failure, `link` is to be closed.
    """
    context.set_alpn_protocols([ALPN, "http/1.1"])
    tls = TlsLink(link, context, server_side=True, server_hostname=None)
    await tls.do_handshake()
    if tls.records.alpn_protocol() != ALPN:
        raise RemoteWireError("the client's TLS does not ask for HTTP/2 (ALPN h2)", wire="grpc", kind="alpn")
    return tls


class GrpcServerConnection:
    """One accepted connection: `run` it in a task; each call has `handle(carriage)` run in a task of its own.

    A handler that returns without having carried, refused or closed its call has it ended with INTERNAL. What a
    handler raises passes through `run`, so it had better raise nothing but cancellation.

    Args:
        link: accepted, TLS behind it (`accept_secure`). Closed by `run`.
        handle: told of each call.
        paths: the methods, ``/package.Service/Method`` each; others are answered with UNIMPLEMENTED.
        leftover: bytes that were read already.
        idle_s: how long a connection may live without a call.
        greeting_s: how long it may take until it has shown that it speaks HTTP/2.
    """

    def __init__(
        self,
        link: Link,
        handle: Callable[[GrpcCarriage], Awaitable[None]],
        *,
        paths: Collection[str],
        leftover: bytes = b"",
        options: GrpcOptions = DEFAULT_OPTIONS,
        idle_s: float = 300.0,
        greeting_s: float = 10.0,
    ) -> None:
        self._machine = GrpcConnection(client=False, paths=paths, options=options)
        self._channel = Channel(link, self._machine)
        self._handle = handle
        self._leftover = leftover
        self._idle_s = idle_s
        self._greeting_s = greeting_s

    @property
    def calls(self) -> int:
        """How many are open."""
        return len(self._channel.calls)

    async def run(self) -> None:
        """Serve until the connection is over and every handler has returned. Raises nothing but cancellation.

        Cancellation: calls are cancelled, the link is closed.
        """
        channel, machine = self._channel, self._machine
        channel.attended = True
        began = trio.current_time()
        try:
            async with trio.open_nursery() as handlers:
                channel.on_call = lambda call: self._begin(handlers, call)
                channel.send_now()
                if self._leftover:
                    channel.take(self._leftover, trio_ns())
                while not channel.broken and not (machine.draining and not self.calls):
                    with trio.move_on_at(self._patience(began)) as patience:
                        await channel.turn(attending=True)
                    if self.calls:
                        began = trio.current_time()
                    elif patience.cancelled_caught:
                        break
                machine.go_away()
                channel.send_now()
            await self._linger()
        finally:
            channel.on_call = None
            channel.close()

    def _patience(self, since: float) -> float:
        """Return until when the next thing must happen."""
        if self.calls:
            return math.inf
        return since + (self._idle_s if self._machine.greeted else self._greeting_s)

    def _begin(self, handlers: trio.Nursery, call: Call) -> None:
        handlers.start_soon(self._serve, GrpcCarriage(self._channel, call))

    async def _serve(self, carriage: GrpcCarriage) -> None:
        try:
            await self._handle(carriage)
        finally:
            if carriage.carrier is None and carriage.call in self._channel.calls:
                carriage.refuse(Status.INTERNAL, "nobody took the call")

    async def _linger(self) -> None:
        """Let the peer read what was said last: closing a socket that holds unread bytes would take it back."""
        channel = self._channel
        if channel.broken:
            return
        with trio.move_on_after(LINGER_S), contextlib.suppress(OSError):
            while channel.blocked and not channel.broken:
                await channel.turn(attending=True)
            channel.link.finish()
            while not channel.broken:
                await channel.turn(attending=True)

    def drain(self) -> None:
        """Take no new calls (GOAWAY); `run` returns when the last is over."""
        self._machine.go_away()
        self._channel.send_soon()
        self._channel.notify()
