"""AudioSocket as a carriage: a bare TCP connection of messages with three header bytes.

`accept_audiosocket` waits, in a task, until it is known whose call this is and at which rate its audio comes;
`open_audiosocket` dials. Then `AudioSocketCarriage.carry` hands the connection to the clock (`AudioSocketCarrier`),
which gives the stream's own audio to the native core and every other message to the stream's owner.

What the peer does, and what the stream's owner hears of it: its end between two messages is ``on_peer_closed(1000)``,
which on this wire is as good as a terminate; its end amid one is ``on_peer_closed(None)``; a broken socket is
``on_broken``. A silent peer is the system's to find (TCP keep-alive): the wire has no pings.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from talkpath._native import lib
from talkpath.errors import ConfigError, RemoteWireError
from talkpath.events import MediaFormat, StreamStarted
from talkpath.transport.link import Link, SocketLink
from talkpath.transport.memory import MemoryLink
from talkpath.transport.outgoing import Outgoing
from talkpath.transport.owner import ConnectionOwner
from talkpath.transport.upgrade import Target, open_link, parse_url, receive_some
from talkpath.transport.url_policy import EVERYWHERE, UrlPolicy
from talkpath.wire.audiosocket import (
    HEADER_BYTES,
    PAYLOAD_MAX,
    RATES_HZ,
    WIRE,
    AudioSocketDialect,
    AudioSocketOptions,
    Kind,
    Splitter,
    message,
)
from talkpath.wire.dialect import Role

if TYPE_CHECKING:
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver

MAX_MESSAGES_A_STEP = 64
"""Of one connection; the rest waits for the next step, and nothing more is read until then."""
READ_BYTES = 16 * 1024
"""At once: half a second of audio at 16 kHz."""
MAX_OPENING_BYTES = HEADER_BYTES + PAYLOAD_MAX
"""What may come before the first audio, besides the UUID."""
MAX_GOODBYE_BYTES = 1024 * 1024
KEEP_ALIVE = (10, 5, 4)
"""Seconds of silence before the system asks, and between its questions, and how many remain unanswered: 30 s in all."""


class AudioSocketCarriage:
    """A connection whose first message has been read or is still to be written. `leftover` follows it."""

    __slots__ = ("audio_kind", "leftover", "link")

    framed = False
    masked = False
    pumpable = False

    def __init__(self, link: Link, leftover: bytes = b"", audio_kind: int | None = None) -> None:
        self.link = link
        self.leftover = leftover
        self.audio_kind = audio_kind
        """Of the stream's own audio, which is the native core's; None: all of it is the owner's to look at."""

    @property
    def on_socket(self) -> bool:
        return self.link.fd is not None

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
    ) -> AudioSocketCarrier:
        """As `Carriage`. A message's bound is the wire's own: 65,535 bytes."""
        return AudioSocketCarrier(self, driver, native, owner, live=live)

    def decline(self, mask_seed: int) -> None:
        """As `Carriage`: the wire has no word for it but terminate."""
        with contextlib.suppress(OSError):
            self.link.send(message(Kind.TERMINATE))
        self.link.close()

    def close(self) -> None:
        """As `Carriage`."""
        self.link.close()


class AudioSocketCarrier(Outgoing):
    """A connection in the clock's hands; see `Carrier`."""

    __slots__ = (
        "_audio_kind",
        "_closing",
        "_held",
        "_leftover",
        "_native",
        "_splitter",
        "_waiting",
        "_watched",
        "driver",
        "pings_sent",
        "round_trip_ms",
    )

    def __init__(
        self,
        carriage: AudioSocketCarriage,
        driver: TasksDriver,
        native: Any,
        owner: ConnectionOwner,
        *,
        live: bool,
    ) -> None:
        super().__init__(carriage.link, owner, live=live)
        self.driver = driver
        self._native = native
        self._audio_kind = carriage.audio_kind
        self._leftover = carriage.leftover
        self._splitter = Splitter()
        self._waiting: list[bytes] = []
        """Whole messages that wait for the next step."""
        self._held = False
        self._closing = False
        self._watched: Callable[[], None] | None = None
        """Ends the watching of the link."""
        self.pings_sent = 0
        self.round_trip_ms = 0.0
        if isinstance(self.link, SocketLink):
            self.link.tune_for_media()
            _keep_alive(self.link.sock)

    # Reading, in the step ----------------------------------------------------------------------------------------

    def start(self, now_ns: int) -> None:
        """As `Carrier`."""
        leftover, self._leftover = self._leftover, b""
        try:
            self._take(self._splitter.receive(leftover), now_ns)
        except Exception as exc:
            self._owner.failed(exc)
        if self._closing:
            return
        driver, link = self.driver, self.link
        if link.fd is not None:
            fd = link.fd
            driver.watch(fd, self.on_readable)
            self._watched = lambda: driver.unwatch(fd)
            if link.more():
                self.on_readable(now_ns)
        else:
            assert isinstance(link, MemoryLink)
            ident = driver.watch_memory(link, self.on_readable)
            self._watched = lambda: driver.unwatch_memory(ident)

    def stop(self) -> None:
        """As `Carrier`."""
        self._closing = True
        watched, self._watched = self._watched, None
        if watched is not None:
            watched()

    def on_readable(self, now_ns: int) -> None:
        """Read what is there, within a bound, and hand it on. Never raises: what fails here is this connection's."""
        try:
            while not self._held and not self._closing and not self.peer_gone:
                view = self.driver.scratch_view[:READ_BYTES]
                try:
                    n = self.link.recv_into(view)
                except BlockingIOError:
                    return
                except OSError as exc:
                    self._break(exc)
                    return
                if n == 0:
                    self._at_end()
                    return
                self._take(self._splitter.receive(view[:n]), now_ns)
                if not self.link.more():
                    return
        except Exception as exc:
            self._owner.failed(exc)

    def _take(self, messages: list[bytes], now_ns: int) -> None:
        heard = False
        for i, one in enumerate(messages):
            if self._closing:
                return
            if i == MAX_MESSAGES_A_STEP:
                self._waiting = messages[i:]
                self._held = True
                self.driver.later(self._go_on)
                break
            if one[0] == self._audio_kind and self._is_native(one, now_ns):
                heard = True
                continue
            if heard:
                heard = False
                self._owner.on_media(now_ns)
            self._owner.on_binary(one, now_ns)
        if heard and not self._closing:
            self._owner.on_media(now_ns)

    def _is_native(self, one: bytes, now_ns: int) -> bool:
        payload = one[HEADER_BYTES:]
        return bool(lib.tp_stream_receive_message(self._native, payload, len(payload), now_ns) == 1)

    def _go_on(self, now_ns: int) -> None:
        """Take up what the last step left; then what came meanwhile."""
        self._held = False
        if self._closing:
            return
        waiting, self._waiting = self._waiting, []
        try:
            self._take(waiting, now_ns)
        except Exception as exc:
            self._owner.failed(exc)
        if not self._held and not self._closing and (self.link.fd is not None or _is_ready(self.link)):
            self.on_readable(now_ns)

    def _at_end(self) -> None:
        self.peer_gone = self.broken = True
        self._owner.on_peer_closed(1000 if self._splitter.is_between else None)

    # Writing, in the step ----------------------------------------------------------------------------------------

    def send_media(self, framed: memoryview) -> None:
        """As `Carrier`."""
        if not self.broken:
            self._send_media(framed)

    def send_message(self, payload: bytes) -> None:
        """As `Carrier`."""
        if not self.broken:
            self._send_control(payload)

    def check_alive(self, now_ns: int) -> bool:
        """As `Carrier`: the system asks, and the socket breaks when nobody answers."""
        return True

    # What may wait, in tasks -------------------------------------------------------------------------------------

    async def close(self, code: int, reason: str = "") -> None:
        """As `Carrier`: say that nothing more comes, and wait until the peer has hung up. The wire knows no codes.

        Cancellation: the link is closed at once.
        """
        self.stop()
        try:
            if not self.broken:
                await self.flush()
                self.link.finish()
                buffer, n_bytes = bytearray(READ_BYTES), 0
                while n_bytes < MAX_GOODBYE_BYTES and (data := await receive_some(self.link, buffer)):
                    n_bytes += len(data)
        except (OSError, ssl.SSLError, trio.ClosedResourceError):
            self.broken = True
        finally:
            self.link.close()

    def abort(self) -> None:
        """As `Carrier`."""
        self.stop()
        self.broken = True
        self.link.close()


def _is_ready(link: Link) -> bool:
    return isinstance(link, MemoryLink) and link.ready()


def _keep_alive(sock: socket.socket) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), KEEP_ALIVE, strict=True):
        if hasattr(socket, name):  # macOS names the first one otherwise, and has two hours
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def parse_audiosocket_url(url: str) -> Target:
    """Take apart ``tcp://host:port`` or ``memory://``.

    Raises:
        ConfigError: not such an address; the caller's to mend.
    """
    scheme, mark, rest = url.partition("://")
    if scheme == "memory":
        return parse_url(url)
    if scheme != "tcp" or not mark:
        raise ConfigError("the address of an AudioSocket server is tcp://host:port")
    target = parse_url(f"ws://{rest}")
    if urlsplit(url).port is None or target.path != "/":
        raise ConfigError("the address of an AudioSocket server is tcp://host:port, with a port and without a path")
    return Target("tcp", target.host, target.port, "/")


async def open_audiosocket(target: Target, *, policy: UrlPolicy = EVERYWHERE) -> AudioSocketCarriage:
    """Dial an application as Asterisk does, where `policy` permits it.

    Raises OSError (`DestinationForbidden`). Cancellation: nothing is left open.
    """
    return AudioSocketCarriage(await open_link(target, policy=policy))


async def accept_audiosocket(
    link: Link, leftover: bytes = b"", options: AudioSocketOptions | None = None
) -> tuple[AudioSocketDialect, StreamStarted, AudioSocketCarriage]:
    """Be the application's end of a connection that Asterisk has made: learn the call's UUID and its audio's rate.

    The rate is that of the first audio, which is left unread; where none comes in time, `options` says it. The caller
    bounds the wait for the UUID, and closes the link when this raises.

    Args:
        leftover: what has been read already.

    Raises:
        RemoteWireError: the first message is no UUID, the peer has hung up, or its audio has a rate that is not played.
        OSError: the connection broke.

    Cancellation: bytes that were read are gone; close the link.
    """
    options = options or AudioSocketOptions()
    waiting = bytearray(leftover)
    while len(waiting) < HEADER_BYTES + 16:
        if not (data := await _more(link)):
            raise RemoteWireError("the peer closed before its UUID", wire=WIRE, event="UUID", kind="closed")
        waiting += data
        if waiting[:HEADER_BYTES] != b"\x01\x00\x10"[: len(waiting)]:
            raise RemoteWireError("the first message is no UUID", wire=WIRE, event="UUID", kind="bad_state")
    if waiting[:HEADER_BYTES] != b"\x01\x00\x10":
        raise RemoteWireError("the first message is no UUID", wire=WIRE, event="UUID", kind="bad_state")
    first, rest = bytes(waiting[: HEADER_BYTES + 16]), waiting[HEADER_BYTES + 16 :]
    kind = _first_audio(rest)
    with trio.move_on_after(options.first_audio_s):
        while kind is None and len(rest) < MAX_OPENING_BYTES and (data := await _more(link)):
            rest += data
            kind = _first_audio(rest)
    rate_hz = RATES_HZ[kind] if kind is not None else options.sample_rate_hz
    try:
        dialect = AudioSocketDialect(Role.APPLICATION, media_format=MediaFormat("L16", rate_hz), options=options)
    except ConfigError as exc:
        raise RemoteWireError(str(exc), wire=WIRE, event="AUDIO", kind="unknown_format") from None
    (started,) = dialect.receive_binary(first)
    assert isinstance(started, StreamStarted)
    return dialect, started, AudioSocketCarriage(link, bytes(rest), dialect.audio_kind)


async def _more(link: Link) -> bytes:
    buffer = bytearray(READ_BYTES)
    return bytes(await receive_some(link, buffer))


def _first_audio(data: bytes | bytearray) -> int | None:
    """Return the kind of the first audio message among those whose header has come; None: there is none yet."""
    at = 0
    while len(data) - at >= HEADER_BYTES:
        if data[at] in RATES_HZ:
            return data[at]
        at += HEADER_BYTES + int.from_bytes(data[at + 1 : at + 3], "big")
    return None
