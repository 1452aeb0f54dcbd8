"""A WebSocket in the clock's hands: after the upgrade (see `upgrade`) a `Connection` takes its link over.

From there on nothing on it awaits except the two ends of trouble: `flush` when the peer does not read, `close` to say
goodbye. Everything else happens in the driver's steps.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from talkpath._native import ffi, lib
from talkpath.errors import RemoteWireError
from talkpath.transport.goodbye import read_goodbye
from talkpath.transport.link import Link, SocketLink, TlsLink
from talkpath.transport.memory import MemoryLink
from talkpath.transport.outgoing import Outgoing
from talkpath.transport.owner import ConnectionOwner
from talkpath.transport.unsent import MAX_PENDING_CONTROL_BYTES, MAX_PENDING_MEDIA_BYTES
from talkpath.transport.upgrade import send_all
from talkpath.wire.websocket import (
    BINARY,
    CLOSE,
    CLOSE_NORMAL,
    PING,
    PONG,
    TEXT,
    BinaryMessage,
    Close,
    MaskKeys,
    MessageAssembler,
    Ping,
    Pong,
    TextMessage,
    close_payload,
    frame,
    frame_error,
)

if TYPE_CHECKING:
    from talkpath.transport.driver_pump import PumpDriver
    from talkpath.transport.driver_tasks import TasksDriver

receive_frames = lib.tp_stream_receive

ATTEND_HELD: int = lib.TP_ATTEND_HELD
ATTEND_FULL: int = lib.TP_ATTEND_FULL
ATTEND_ENDED: int = lib.TP_ATTEND_ENDED
ATTEND_BROKEN: int = lib.TP_ATTEND_BROKEN
ATTEND_PROTOCOL: int = lib.TP_ATTEND_PROTOCOL
PUMP_IN_MAX: int = lib.TP_PUMP_IN_MAX
SEND_MEDIA: int = lib.TP_SEND_MEDIA
SEND_CONTROL: int = lib.TP_SEND_CONTROL
SEND_CIPHER: int = lib.TP_SEND_CIPHER
PORT_FULL = -4

MAX_FRAMES_A_STEP = 64
"""Of other than plain media, from one read; the rest waits for the next step."""
PING_AFTER_NS = 10_000_000_000
VANISHED_AFTER_NS = 30_000_000_000
"""A peer from which nothing has come for 10 s is pinged; one that is silent for 30 s is gone. Both well inside the
minute in which intermediaries drop idle connections."""
LOOKED_AT_EVERY_NS = 1_000_000_000
"""The driver's housekeeping."""


class Connection(Outgoing):
    """A WebSocket whose media the native core reads and writes. One owner; made after the handshake."""

    __slots__ = (
        "_assembler",
        "_closing",
        "_collecting",
        "_control_opcode",
        "_failure",
        "_held",
        "_is_plain",
        "_last_received_ns",
        "_left",
        "_masks",
        "_needed",
        "_ping_sent_ns",
        "_port",
        "_pump",
        "_recv_into",
        "_state",
        "_stream",
        "_tls",
        "_watched",
        "close_sent",
        "driver",
        "peer_close_code",
        "pings_sent",
        "round_trip_ms",
    )

    def __init__(
        self,
        driver: TasksDriver,
        link: Link,
        stream: Any,
        owner: ConnectionOwner,
        *,
        masked: bool,
        max_message_bytes: int,
        mask_seed: int,
        live: bool = True,
        writes_binary: bool = False,
        leftover: bytes = b"",
        pump: tuple[PumpDriver, int, int] | None = None,
    ) -> None:
        super().__init__(link, owner, live=live)
        self.driver = driver
        self._stream = stream
        self._control_opcode = BINARY if writes_binary else TEXT
        self._masks = MaskKeys(mask_seed) if masked else None
        self._assembler = MessageAssembler(max_message_bytes)
        self._recv_into = link.recv_into
        self._is_plain = isinstance(link, SocketLink)
        self._tls = link if isinstance(link, TlsLink) else None
        self._pump = pump if self._is_plain or self._tls is not None else None
        """The pump, with the member's slot and the stream's index there, for as long as it may move this socket."""
        self._port = 0
        """The pump's handle; 0 while this object moves the bytes itself."""
        self._state: Any = None
        """The native port, while there is a handle."""
        self._failure: OSError | None = None
        """What TLS found wrong, until the pump has said that the connection is at its end."""
        self._collecting = False
        """A frame too long for the pump is being collected here."""
        self._left: bytes | bytearray = leftover
        self._needed = 0
        self._held = False
        """Bytes wait in `_left` for the next step; nothing more is read until then."""
        self._watched: tuple[str, int] | None = None
        self._closing = False
        self.close_sent = False
        self.peer_close_code: int | None = None
        self.pings_sent = 0
        self.round_trip_ms = 0.0
        self._ping_sent_ns: int | None = None
        self._last_received_ns = driver.clock.now_ns()
        if isinstance(link, (SocketLink, TlsLink)):
            link.tune_for_media()

    # Reading, in the step ----------------------------------------------------------------------------------------

    def start(self, now_ns: int) -> None:
        """Take over: what came with the handshake is read now, what comes later in the steps."""
        if self._left:
            left, self._left = bytes(self._left), b""
            self._guard(self._consume, left, now_ns)
        tls = self._tls
        if self._pump is not None and tls is not None and tls.more() and not self._closing and not self.peer_gone:
            self.on_readable(now_ns)  # decrypted with the handshake: it comes before all that the pump will read
        if self._closing or self.peer_gone:
            return
        if self._pump is not None:
            driver, slot, index = self._pump
            assert self.link.fd is not None
            with driver.paused():  # what waits already is sent first
                self._port = driver.open_stream(
                    slot,
                    index,
                    self.link.fd,
                    self._stream,
                    self._attend,
                    now_ns,
                    live=self._unsent.live,
                    tls=(tls.records.calls(), self) if tls is not None else None,
                )
                self._state = driver.port(self._port)
                if tls is not None:
                    tls.divert(self._send_cipher)
                if self._unsent:
                    self._give_pump(self._unsent.take(), SEND_CONTROL)
            self._give_back(now_ns)
        elif self.link.fd is not None:
            self._watched = ("fd", self.link.fd)
            self.driver.watch(self.link.fd, self.on_readable)
            if self.link.more():  # decrypted with the handshake: the system will not say again that it is there
                self.on_readable(now_ns)
        else:
            assert isinstance(self.link, MemoryLink)
            self._watched = ("memory", self.driver.watch_memory(self.link, self.on_readable))

    def stop(self) -> None:
        """Read no more; before anything else may close the descriptor. Idempotent."""
        self._closing = True
        if self._port:
            assert self._pump is not None
            self._last_received_ns = self.last_received_ns
            self._unsent.media_dropped = self.media_dropped_so_far()
            waiting, unread = self._pump[0].close_port(self._port)
            self._port, self._state = 0, None
            if self._tls is not None:
                self._tls.restore(bytes(waiting))
            else:
                self._unsent.add_rest(waiting)
            if not self._left:
                self._left = bytes(unread)
        watched, self._watched = self._watched, None
        if watched is not None:
            if watched[0] == "fd":
                self.driver.unwatch(watched[1])
            else:
                self.driver.unwatch_memory(watched[1])

    @property
    def last_received_ns(self) -> int:
        """When bytes last came."""
        if self._port:
            return max(self._last_received_ns, int(self._state.last_received))
        return self._last_received_ns

    def media_dropped_so_far(self) -> int:
        """Return how many media messages found no room."""
        return super().media_dropped_so_far() + (int(self._state.media_dropped) if self._port else 0)

    # Beside the pump: what it hands over is dealt with here, and given back.

    def _attend(self, what: int, error: int, now_ns: int) -> None:
        """Act on what the pump says of this socket."""
        try:
            if what & ATTEND_HELD:
                self._take_held(now_ns)
            if what & ATTEND_PROTOCOL and not self._closing:
                self._refuse_frame(error)
            if what & ATTEND_BROKEN and not self._closing:
                self._break(OSError(error, os.strerror(error)))
            elif what & ATTEND_ENDED and not self._closing:
                self._at_end_of_port()
            if what & ATTEND_FULL and not self._closing:
                self._owner.on_full()
        except Exception as exc:
            self._owner.failed(exc)

    def _take_held(self, now_ns: int) -> None:
        if not self._port or self._collecting:
            return
        assert self._pump is not None
        driver = self._pump[0]
        n = driver.take_held(self._port, self.driver.report, self.driver.scratch_c, len(self.driver.scratch_view))
        if n is None:
            return
        self._parse(self.driver.scratch_view, self.driver.scratch_c, n, now_ns, driver.held_result())
        self._give_back(now_ns)

    def _give_back(self, now_ns: int) -> None:
        """Let the pump go on behind what was dealt with; a frame too long for it is collected here first."""
        if not self._port or self._closing or self.peer_gone or self._held:
            return
        assert self._pump is not None
        driver = self._pump[0]
        if self._tls is not None and self._tls.more():
            with driver.paused():  # what is decrypted already comes before what is read from here on
                given = driver.give(self._port, self._left, self._needed)
                if given:
                    self._take_plain(self._tls.recv_into, now_ns)
        else:
            given = driver.give(self._port, self._left, self._needed)
        if given:
            self._left, self._needed = b"", 0
            if self._collecting:
                self._collecting = False
                self.driver.unwatch(self._state.fd)
                self._watched = None
        elif not self._collecting:
            self._collecting = True
            self._watched = ("fd", self._state.fd)
            self.driver.watch(self._state.fd, self._collect)

    # Beside the pump, TLS: what its loops over all connections do not do themselves.

    def decipher(self, cipher: memoryview, now_ns: int) -> None:
        tls = self._tls
        assert tls is not None
        self._take_plain_paused(lambda into: tls.decrypt(cipher, into), now_ns)

    def decipher_on(self, n: int, exc: ssl.SSLError | None, now_ns: int) -> None:
        tls = self._tls
        assert tls is not None
        self._take_plain_paused(lambda into: tls.go_on(into, n, exc), now_ns)

    def encrypt(self, framed: memoryview) -> None:
        try:
            self.send_media(framed)
        except Exception as exc:
            self._owner.failed(exc)

    def _take_plain_paused(self, decrypt: Callable[[memoryview], int], now_ns: int) -> None:
        with self.driver.paused():  # nothing more is read before it is known whether this holds the port
            try:
                self._take_plain(decrypt, now_ns)
            except Exception as exc:
                self._owner.failed(exc)

    def _take_plain(self, decrypt: Callable[[memoryview], int], now_ns: int) -> None:
        """Hand the pump what `decrypt` gives, and what follows it, until there is no more or the pump takes no more."""
        assert self._pump is not None
        assert self._tls is not None
        driver = self._pump[0]
        try:
            n = decrypt(driver.scratch_view)
            while n:
                if not driver.receive(self._port, n, now_ns) or not self._tls.more():
                    return
                n = self._tls.recv_into(driver.scratch_view)
        except BlockingIOError:
            driver.receive(self._port, 0, now_ns)
            return
        except OSError as exc:
            self._failure = exc
        driver.end_port(self._port)

    def _at_end_of_port(self) -> None:
        """Nothing more comes: the end of TCP, of TLS, or TLS has failed."""
        failure = self._failure
        if failure is None and self._tls is not None:
            try:
                self._tls.records.receive_eof()
            except OSError as exc:
                failure = exc
        if failure is not None:
            self._break(failure)
        else:
            self._at_end()

    def _send_cipher(self, cipher: bytes | bytearray | memoryview) -> int:
        assert self._pump is not None
        self._pump[0].send(self._port, cipher, SEND_CIPHER)
        return len(cipher)

    def _collect(self, now_ns: int) -> None:
        self.on_readable(now_ns)
        if not self._left or self._needed <= PUMP_IN_MAX:
            self._give_back(now_ns)

    def on_readable(self, now_ns: int) -> None:
        """Read once (TLS: until it is dry) and hand on what came.

        Never raises: what fails here is this connection's.
        """
        try:
            if self._left:
                if not self._held and self._read_once(now_ns):
                    self._read_more(now_ns)
                return
            # The common case, fifty times a second: whole messages of plain media.
            try:
                n = self._recv_into(self.driver.scratch_view)
            except BlockingIOError:
                return
            except OSError as exc:
                self._break(exc)
                return
            if n == 0:
                self._at_end()
                return
            self._last_received_ns = now_ns
            result = receive_frames(self._stream, self.driver.report, self.driver.scratch_c, n, now_ns)
            if result != 0 or self.driver.report.consumed != n:
                self._parse(self.driver.scratch_view, self.driver.scratch_c, n, now_ns, result)
            elif self._owner.hears_media:
                self._owner.on_media(now_ns)
            if not self._is_plain and not self._closing and not self._held:
                self._read_more(now_ns)
        except Exception as exc:
            self._owner.failed(exc)

    def _read_more(self, now_ns: int) -> None:
        """Read what the system will not say that it is there: the link has it (TLS, memory)."""
        while self.link.more() and not self.peer_gone and self._read_once(now_ns):
            pass

    def _guard(self, what: Callable[[bytes, int], None], data: bytes, now_ns: int) -> None:
        try:
            what(data, now_ns)
        except Exception as exc:
            self._owner.failed(exc)

    def _read_once(self, now_ns: int) -> bool:
        """-> whether there is anybody left to read for"""
        if self._needed > len(self.driver.scratch):
            self._read_long(now_ns)
        else:
            scratch, left = self.driver.scratch_view, self._left
            kept = len(left)
            if kept:
                scratch[:kept] = left
            n = self._receive(scratch[kept:] if kept else scratch, now_ns)
            if n == 0:
                return False
            self._parse(scratch, self.driver.scratch_c, kept + n, now_ns)
        return not self._closing and not self._held

    def _receive(self, view: memoryview, now_ns: int) -> int:
        """-> bytes read, 0 when there are none now or there will never be any more"""
        try:
            n = self.link.recv_into(view)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self._break(exc)
            return 0
        if n == 0:
            self._at_end()
        else:
            self._last_received_ns = now_ns
        return n

    def _consume(self, data: bytes, now_ns: int) -> None:
        """Parse bytes that did not come through the scratch (they followed the handshake)."""
        buffer = bytearray(data)
        self._parse(memoryview(buffer), ffi.from_buffer("uint8_t[]", buffer), len(buffer), now_ns)

    def _read_long(self, now_ns: int) -> None:
        """Collect a frame that is longer than the scratch, then parse it where it lies."""
        if not isinstance(self._left, bytearray):
            self._left = bytearray(self._left)
        missing = self._needed - len(self._left)
        view = self.driver.scratch_view[: min(missing, len(self.driver.scratch))]
        n = self._receive(view, now_ns)
        self._left += view[:n]
        if len(self._left) >= self._needed:
            whole, self._left, self._needed = self._left, b"", 0
            self._parse(memoryview(whole), ffi.from_buffer("uint8_t[]", whole), len(whole), now_ns)

    def _parse(self, view: memoryview, address: Any, total: int, now_ns: int, first: int | None = None) -> None:
        """Deal with `total` bytes; `first` is what the native core answered to them, when it was asked already."""
        report = self.driver.report
        begin = 0
        n_media = 0
        n_other = 0
        while begin < total:
            if first is None:
                result = receive_frames(self._stream, report, address + begin, total - begin, now_ns)
            else:
                result, first = first, None
            n_media += report.n_media
            if result < 0:
                if n_media:
                    self._owner.on_media(now_ns)
                self._refuse_frame(report.protocol_error)
                return
            if result == 0:
                begin += report.consumed
                break
            payload = bytes(view[begin + report.offset : begin + report.offset + report.length])
            begin += report.consumed
            if n_media:
                n_media = 0
                self._owner.on_media(now_ns)
            self._on_frame(report.opcode, bool(report.fin), payload, now_ns)
            if self._closing or self.peer_gone:
                self._left = b""
                return
            n_other += 1
            if n_other == MAX_FRAMES_A_STEP and begin < total:
                # Only plain media is cheap. Who sends thousands of anything else waits, and nobody waits with him.
                self._held = True
                self._left, self._needed = bytes(view[begin:total]), 0
                self.driver.later(self._go_on)
                return
        self._needed = report.needed if begin < total else 0
        self._left = bytes(view[begin:total]) if begin < total else b""
        if n_media:
            self._owner.on_media(now_ns)

    def _refuse_frame(self, protocol_error: int) -> None:
        self._owner.on_protocol_error(frame_error(protocol_error))

    def _go_on(self, now_ns: int) -> None:
        """Take up what the last step left."""
        self._held = False
        if self._closing or self.peer_gone:
            return
        left, self._left = bytes(self._left), b""
        self._guard(self._consume, left, now_ns)
        if self._port:
            self._give_back(now_ns)
        elif not self._closing and not self._held and self.link.fd is not None and self.link.more():
            self.on_readable(now_ns)

    def _on_frame(self, opcode: int, fin: bool, payload: bytes, now_ns: int) -> None:
        try:
            event = self._assembler.receive(opcode, fin, payload)
        except RemoteWireError as exc:
            self._owner.on_protocol_error(exc)
            return
        if event is None:
            return
        if isinstance(event, TextMessage):
            data = bytearray(event.payload)
            if lib.tp_stream_receive_message(self._stream, ffi.from_buffer("uint8_t[]", data), len(data), now_ns) == 1:
                self._owner.on_media(now_ns)
            else:
                self._owner.on_text(event.payload, now_ns)
        elif isinstance(event, BinaryMessage):
            self._owner.on_binary(event.payload, now_ns)
        elif isinstance(event, Ping):
            self.send_frame(PONG, event.payload)
        elif isinstance(event, Pong):
            if self._ping_sent_ns is not None:
                self.round_trip_ms = (now_ns - self._ping_sent_ns) / 1e6
                self._ping_sent_ns = None
        elif isinstance(event, Close):
            self.peer_close_code = event.code
            self.peer_gone = True
            if not self.close_sent:
                self.close_sent = True
                self.send_frame(CLOSE, close_payload(CLOSE_NORMAL if event.code == 1005 else event.code, ""))
            self._owner.on_peer_closed(event.code)

    def _at_end(self) -> None:
        self.peer_gone = True
        self.broken = True
        self._owner.on_peer_closed(None)

    # Writing, in the step ----------------------------------------------------------------------------------------

    def send_media(self, framed: memoryview) -> None:
        """Send one framed media message now, or let it wait; live audio that finds no room is dropped whole."""
        if self.broken or self.close_sent:
            return
        if self._port:
            self._give_pump(framed, SEND_MEDIA)
        else:
            self._send_media(framed)

    def _give_pump(self, data: bytes | bytearray | memoryview, kind: int) -> None:
        assert self._pump is not None
        driver = self._pump[0]
        if self._tls is not None:
            driver.settle()
            waiting = self._state.out_bytes
            if kind == SEND_CONTROL and waiting + len(data) > MAX_PENDING_MEDIA_BYTES + MAX_PENDING_CONTROL_BYTES:
                self._owner.on_overflow()
            elif kind == SEND_MEDIA and self._unsent.live and waiting and waiting + len(data) > MAX_PENDING_MEDIA_BYTES:
                self._unsent.media_dropped += 1
            else:
                try:
                    self.link.send(data)
                except OSError as exc:
                    self._break(exc)
            return
        waiting = driver.send(self._port, data, kind)
        if waiting > 0:
            self._owner.on_full()
        elif waiting == PORT_FULL and kind == SEND_CONTROL:
            self._owner.on_overflow()

    def backlogged(self) -> bool:
        """Whether bytes wait for the socket."""
        if self._port:
            return bool(self._state.out_bytes)
        return super().backlogged()

    def send_message(self, payload: bytes) -> None:
        """Send a control message; it is never dropped."""
        self.send_frame(self._control_opcode, payload)

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send one frame behind whatever waits; after a close frame nothing more (RFC 6455 5.5.1)."""
        if self.broken or (self.close_sent and opcode != CLOSE):
            return
        key = self._masks.take() if self._masks is not None else None
        data = frame(opcode, payload, key)
        if self._port:
            self._give_pump(data, SEND_CONTROL)
        else:
            self._send_control(data)

    def check_alive(self, now_ns: int) -> bool:
        """Ping a silent peer; return False when it has been silent too long (half-open, stalled for good)."""
        silent = now_ns - self.last_received_ns
        if silent < PING_AFTER_NS:
            self._ping_sent_ns = None
        elif self._ping_sent_ns is None:
            self._ping_sent_ns = now_ns
            self.pings_sent += 1
            self.send_frame(PING, b"")
        elif silent >= VANISHED_AFTER_NS:
            # Whoever stood still for longer than that (a virtual machine that was suspended) asks first.
            return now_ns - self._ping_sent_ns < VANISHED_AFTER_NS - PING_AFTER_NS - LOOKED_AT_EVERY_NS
        return True

    # What may wait, in tasks -------------------------------------------------------------------------------------

    def _flush_once(self) -> bool:
        if self._port:
            assert self._pump is not None
            return self._pump[0].flush(self._port)
        return super()._flush_once()

    async def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, as far as the peer lets us, and close the link. The caller bounds it and shields it.

        Cancellation: the link is closed at once.
        """
        self.stop()
        try:
            if not self.broken:
                if self._flushing is not None or self.backlogged():
                    await self.flush()
                if not self.close_sent:
                    self.close_sent = True
                    key = self._masks.take() if self._masks is not None else None
                    await send_all(self.link, frame(CLOSE, close_payload(code, reason), key))
                elif self.link.unsent():
                    await send_all(self.link, b"")
                await self._wait_peer_close()
        except (OSError, ssl.SSLError, trio.ClosedResourceError):
            self.broken = True
        finally:
            self.link.close()

    async def _wait_peer_close(self) -> None:
        """Read until the peer's end; a server's goodbye is over with the peer's close frame already."""
        server = self._masks is None
        if server and (self.peer_close_code is not None or self.peer_gone):
            return
        await read_goodbye(self.link, bytes(self._left), until_close_frame=server)

    def abort(self) -> None:
        """Close without a goodbye."""
        self.stop()
        self.broken = True
        self.link.close()
