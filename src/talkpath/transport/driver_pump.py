"""The `pump` driver: plain media of all calls and lines in a Trio run, moved by one C call per tick.

Theory of operation. `tp_pump` (see its header) owns an epoll over the media sockets and ticks the paths and lines that
were given to it; this driver is the `tasks` driver with that beneath it. A member is pumped when it asks for it and all
of it is made of sockets: a call with an `RtpLeg`, a line on TCP. Whatever else there is in the run (memory legs, links
in memory) is moved by the `tasks` driver's own step, in the same step.

A step is: the pump reads; Python attends to what was not plain media, in the order it came; other reads and commands;
the pump ticks and sends; Python attends to what happened. When there is nothing for Python to do in between, the two
halves are one C call, and that is nearly always. Then the pump may also `stay`: take the next steps by itself, while
nobody else in the run has anything to do. What it comes back with is attended to in a step like any other.

*Streams over TLS.* Only the cipher itself passes through Python, in two loops per step: `_decipher` after the pump has
read gives OpenSSL what came and the pump the plaintext, `_hand_over` after it has ticked gives OpenSSL its messages and
the pump the cipher. Both do themselves what is nearly always to be done; the rest is the connection's. Each goes
through all connections before the pump does the next thing with any, so that neither evicts the other's code from the
caches.

*The media thread.* With `media_thread` the pump's two halves run on a native thread without the GIL, and this step only
attends, does what is not pumped, and sends what was handed over. The thread belongs to the clock's nursery: it begins
when somebody first asks for it and is gone when the clock is. Whatever Python asks of native state then goes through
the pump's lock, one C call at a time; `paused` makes several of them one.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, ClassVar, Protocol

import numpy as np
import trio

from talkpath._native import ffi, lib
from talkpath.errors import NativeError
from talkpath.path.stream import NEVER
from talkpath.transport.clock import Lateness, Stay
from talkpath.transport.driver_tasks import (
    PHASE_NS,
    READ_ROUNDS,
    SOCKET_POLL_NS,
    CallMember,
    LineMember,
    Member,
    TasksDriver,
)
from talkpath.transport.pump import CIPHER_BYTES, PhaseLateness, Pump
from talkpath.transport.tls import PIECE_BYTES, Feed, Read, Take, TlsCalls

log = logging.getLogger("talkpath.transport.driver")

TWO_RECORDS_BYTES = 42
"""The least that the headers, tags and types of two records take: TLS 1.2 with ChaCha20-Poly1305."""
ATTENTION_AT_ONCE = 512
ORIGIN_READINGS = 5
MAX_WAITING_BYTES: int = lib.TP_PUMP_CIPHER_MAX
REALTIME_PRIORITY = 10
"""Of SCHED_FIFO: above every ordinary thread, below the kernel's own."""

FULL = -4
NUMBER = 0xFFFFFFFF
"""Of a port, in its handle; the rest is its generation."""

SEND_MEDIA: int = lib.TP_SEND_MEDIA
SEND_CONTROL: int = lib.TP_SEND_CONTROL
SEND_CIPHER: int = lib.TP_SEND_CIPHER
STREAM_LIVE: int = lib.TP_STREAM_LIVE
STREAM_CIPHER: int = lib.TP_STREAM_CIPHER
OUTPUT_CIPHER: int = lib.TP_OUTPUT_CIPHER
CIPHER_ONCE: int = lib.TP_PUMP_CIPHER_ONCE
ATTEND_EVENTS: int = lib.TP_ATTEND_EVENTS
ATTEND_STUCK: int = lib.TP_ATTEND_STUCK

Attend = Callable[[int, int, int], None]
"""Called with (what, error, now_ns)."""

_attention = struct.Struct("=IIQiI")
_cipher = struct.Struct("=QII")


class Ciphered(Protocol):
    """The connection whose bytes are TLS's: for what the driver's loops do not do themselves. Raises nothing."""

    def decipher(self, cipher: memoryview, now_ns: int) -> None:
        """Decrypt and hand on what came."""
        ...

    def decipher_on(self, n: int, exc: ssl.SSLError | None, now_ns: int) -> None:
        """Go on where the loop began: it has `n` bytes of plaintext in the driver's scratch, or `exc`."""
        ...

    def encrypt(self, framed: memoryview) -> None:
        """Encrypt and send media of any length."""
        ...


class Pumped:
    """What calls that are pumped have in place of a group: where their lateness is counted."""

    __slots__ = ("key", "lateness")

    def __init__(self, key: tuple[int, int], lateness: Lateness) -> None:
        self.key = key
        self.lateness = lateness


class PumpDriver(TasksDriver):
    """See the module. Without a pumped member it is the `tasks` driver and nothing else."""

    may_ring: ClassVar[bool] = True
    """Whether the pump makes its system calls through io_uring where it can; the bytes are the same."""

    def __init__(self) -> None:
        super().__init__()
        self._pump: Pump | None = None
        self._native: Any = None
        self._pumped: dict[int, Member] = {}
        self._pumped_lines = 0
        self._phases: dict[tuple[int, int], int] = {}
        """Pumped calls of each (ptime, phase)."""
        self._groups_pumped: dict[tuple[int, int], Pumped] = {}
        """What the calls of each have in common."""
        self._attends: dict[int, Attend] = {}
        """By port."""
        # Plain tuples: the loops unpack them a thousand times a tick.
        self._to_decipher: dict[int, tuple[Feed, Read, ssl.MemoryBIO, ssl.MemoryBIO, Ciphered]] = {}
        """By port."""
        self._to_encrypt: dict[int, tuple[Feed, Take, Ciphered]] = {}
        """By port number."""
        self._deciphering = False
        self._handing_over = False
        self._n_cipher = ffi.new("uint32_t *")
        self._entries = ffi.new("tp_attention[]", ATTENTION_AT_ONCE)
        self._entries_view = memoryview(ffi.buffer(self._entries))
        self._ticked = ffi.new("int *")
        self._result = ffi.new("int *")
        self._last_step_ns = -1
        self._both = Lateness()
        """Of the pump's ticks and the others', brought up to date whenever somebody looks."""
        self.threaded = False
        """Whether the media thread has been asked for."""
        self._realtime_said = False
        self.waiting = bytearray(0)
        self.unread = bytearray(0)
        self.waiting_c: Any = None
        self.unread_c: Any = None
        self._n_unread = ffi.new("uint32_t *")
        self._stay = ffi.new("tp_stay *")

    @property
    def has_ring(self) -> bool:
        """Whether the pump's system calls go through io_uring now."""
        return self._pump is not None and self._pump.native.uring.fd >= 0

    # Opening -----------------------------------------------------------------------------------------------------

    def want_pump(self, *, media_thread: bool = False) -> bool:
        if self._pump is None:
            # Time 0 on the system's monotonic clock, which is the one that Trio's own clock is made of.
            # Whatever comes between the two readings makes it earlier.
            origin = max(time.monotonic_ns() - self.clock.now_ns() for _ in range(ORIGIN_READINGS))
            self._pump = Pump(origin, ring=self.may_ring)
            self._native = self._pump.native
            self.waiting = bytearray(MAX_WAITING_BYTES)
            self.unread = bytearray(lib.TP_PUMP_SCRATCH_BYTES)
            self.waiting_c = ffi.from_buffer("uint8_t[]", self.waiting)
            self.unread_c = ffi.from_buffer("uint8_t[]", self.unread)
        if media_thread and not self.threaded:
            self.threaded = True
            self.clock.listen(int(self._native.signal))
            self.clock.start_soon(self._run_thread)
            counters = self._native.counters
            self.clock.load.media_cpu_ns = lambda: int(counters.busy_ns)
        return True

    def pump_of(self, member: Member) -> Any:
        return self._native if member.pumped else None

    async def _run_thread(self) -> None:
        """Be the media thread's owner: it runs until `stopping`, and this task until it has gone."""
        await trio.to_thread.run_sync(lib.tp_pump_run, self._native, REALTIME_PRIORITY, limiter=trio.CapacityLimiter(1))

    def stopping(self) -> None:
        if self.threaded:
            lib.tp_pump_stop(self._native)

    def close(self) -> None:
        super().close()
        if self._pump is not None:
            self._pump.close()

    def paused(self) -> AbstractContextManager[None]:
        return self._paused() if self.threaded else super().paused()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        lib.tp_pump_pause(self._native, 1)
        try:
            yield
        finally:
            lib.tp_pump_pause(self._native, -1)

    # Members -----------------------------------------------------------------------------------------------------

    def choose_phase(self, period_ns: int, pumped: bool = False) -> int:
        if not pumped:
            return super().choose_phase(period_ns)
        phases = range(0, period_ns, PHASE_NS) if period_ns >= PHASE_NS else range(1)
        return min(phases, key=lambda phase: self._phases.get((period_ns, phase), 0))

    def first_tick_ns(self, period_ns: int, phase_ns: int, pumped: bool = False) -> int:
        if not pumped:
            return super().first_tick_ns(period_ns, phase_ns)
        return self.clock.now_ns()

    def add_call(self, call: CallMember, phase_ns: int) -> None:
        if not call.pumped:
            super().add_call(call, phase_ns)
            return
        self._begin_anew()
        if lib.tp_pump_add_path(self._native, call.slot, call.path) < 0:
            raise NativeError("the pump refused a slot that was free")
        key = (call.period_ns, phase_ns)
        self._phases[key] = self._phases.get(key, 0) + 1
        pumped = self._groups_pumped.get(key)
        if pumped is None:
            lateness = PhaseLateness(self._native, phase_ns // PHASE_NS % int(lib.TP_PUMP_PHASES))
            pumped = self._groups_pumped[key] = Pumped(key, lateness)
        call.group = pumped
        self._take_in(call)

    def add_line(self, line: LineMember) -> None:
        if not line.pumped:
            super().add_line(line)
            return
        self._begin_anew()
        if lib.tp_pump_add_line(self._native, line.slot, line.native) < 0:
            raise NativeError("the pump refused a slot that was free")
        self._pumped_lines += 1
        self._take_in(line)

    def _begin_anew(self) -> None:
        """Forget when something was last due: nobody was there, and who comes now is not late for it."""
        if not self._pumped and not self.threaded:
            self._last_step_ns = self._native.now = self.clock.now_ns()
            self._native.next_due = NEVER

    def _take_in(self, member: Member) -> None:
        self._members[member.slot] = member
        self._pumped[member.slot] = member
        self._start_housekeeping()
        self.clock.nudge()

    def remove(self, member: Member) -> None:
        if self._pumped.get(member.slot) is member:
            del self._pumped[member.slot]
            with self.paused():  # what was left for it would be taken for the slot's next owner's
                self.settle()
                lib.tp_pump_remove(self._native, member.slot)
            group = getattr(member, "group", None)
            if isinstance(group, Pumped):
                self._phases[group.key] -= 1
            else:
                self._pumped_lines -= 1
        super().remove(member)

    def rearm(self, member: Member, now_ns: int) -> None:
        """Look again at when a pumped line has something to send."""
        lib.tp_pump_rearm(self._native, member.slot, now_ns)

    def command(self, member: Member) -> None:
        if self._pumped.get(member.slot) is not member:
            super().command(member)
            return
        # There is a step within 5 ms of a line's life and at each tick of a call's: no need to look for an earlier one.
        first = not self._commanded
        self._commanded[member.slot] = member
        if first and self.threaded and not self.in_step:
            self.clock.nudge()

    # Ports -------------------------------------------------------------------------------------------------------

    def open_leg(self, slot: int, sock: socket.socket, latch: Any, attend: Attend, now_ns: int) -> int:
        """Have the pump read and write a leg's UDP socket. -> its handle"""
        family = 6 if sock.family == socket.AF_INET6 else 4
        return self._opened(lib.tp_pump_open_leg(self._native, slot, sock.fileno(), family, latch, now_ns), attend)

    def open_stream(
        self,
        slot: int,
        index: int,
        fd: int,
        stream: Any,
        attend: Attend,
        now_ns: int,
        *,
        live: bool,
        tls: tuple[TlsCalls, Ciphered] | None = None,
    ) -> int:
        """Have the pump read and write a WebSocket's socket. -> its handle"""
        flags = (STREAM_LIVE if live else 0) | (STREAM_CIPHER if tls is not None else 0)
        port = self._opened(lib.tp_pump_open_stream(self._native, slot, index, fd, stream, flags, now_ns), attend)
        if tls is not None:
            calls, connection = tls
            self._to_decipher[port] = (calls.feed, calls.read, calls.incoming, calls.outgoing, connection)
            self._to_encrypt[port & NUMBER] = (calls.write, calls.take, connection)
        return port

    def _opened(self, port: int, attend: Attend) -> int:
        if port < 0:
            raise OSError(f"the pump has no room for another socket (status {port})")
        self._attends[port] = attend
        return port

    def close_port(self, port: int) -> tuple[memoryview, memoryview]:
        """Take a socket back, before its descriptor is closed. -> what waits to be sent, what was read and not parsed;
        both valid until the next call
        """
        if port in self._to_decipher:
            self._forget_cipher(port)
        self._attends.pop(port, None)
        n = int(lib.tp_pump_close_port(self._native, port, self.waiting_c, self.unread_c, self._n_unread))
        if n < 0:
            return memoryview(b""), memoryview(b"")
        return memoryview(self.waiting)[:n], memoryview(self.unread)[: self._n_unread[0]]

    def _forget_cipher(self, port: int) -> None:
        """See to what is on its way through Python, then know no more of the port."""
        if self.threaded:
            with self.paused():
                self._decipher(self.clock.now_ns())
                self._hand_over()
        del self._to_decipher[port], self._to_encrypt[port & NUMBER]

    def settle(self) -> None:
        """Have what was handed over without Python leave before anything that Python is about to send."""
        if self.threaded:
            self._hand_over()
        elif not self.in_step:
            self._hand_over_rest()

    def receive(self, port: int, n: int, now_ns: int) -> bool:
        """Give the pump `n` bytes of plaintext that lie in the scratch. -> whether it takes more"""
        return bool(lib.tp_pump_receive(self._native, port, self.scratch_c, n, now_ns) == 0)

    def end_port(self, port: int) -> None:
        """Say that nothing more will come, which is then said as attention."""
        lib.tp_pump_end(self._native, port)

    def take_held(self, port: int, report: Any, out: Any, capacity: int) -> int | None:
        """Take what the pump holds of a connection from a frame on that is not plain media. -> bytes, None: nothing"""
        n = int(lib.tp_pump_take_held(self._native, port, report, self._result, out, capacity))
        return n if n >= 0 else None

    def held_result(self) -> int:
        """Return what the native core had answered to what `take_held` took last."""
        return int(self._result[0])

    def give(self, port: int, left: bytes | bytearray, needed: int) -> bool:
        """Give back the beginning of a frame; reading goes on. False: it is too long to wait there."""
        return bool(lib.tp_pump_give(self._native, port, ffi.from_buffer("uint8_t[]", left), len(left), needed) != FULL)

    def send(self, port: int, data: bytes | bytearray | memoryview, kind: int) -> int:
        """Send behind whatever waits. -> bytes that wait now, or a status"""
        return int(lib.tp_pump_send(self._native, port, ffi.from_buffer("uint8_t[]", data), len(data), kind))

    def flush(self, port: int) -> bool:
        """Hand over what waits, as far as the socket takes it. False: it is broken, which is said as attention too."""
        return bool(lib.tp_pump_flush(self._native, port) >= 0)

    def port(self, port: int) -> Any:
        """Return the native port, for its counters; NULL when it is closed."""
        return lib.tp_pump_port(self._native, port)

    def watched(self) -> int:
        return super().watched() + len(self._attends)

    # The clock's side --------------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        native = self._native
        if native is not None and (
            native.n_attention or (self.threaded and native.n_cipher) or native.handover[native.filling].n_outputs
        ):
            return True
        return super().has_work()

    def next_due_ns(self) -> int | None:
        due = super().next_due_ns()
        if not self._pumped:
            return due
        if self.threaded:
            if self._commanded:
                return min(due, self._last_step_ns + 1) if due is not None else self._last_step_ns + 1
            if self._poller.handlers or self._later:  # what the thread does not read; what was left for later
                poll = self._last_step_ns // SOCKET_POLL_NS * SOCKET_POLL_NS + SOCKET_POLL_NS
                due = poll if due is None or poll < due else due
        else:
            pump_due = int(self._native.next_due)
            if self._pumped_lines:
                pump_due = min(pump_due, self._last_step_ns // SOCKET_POLL_NS * SOCKET_POLL_NS + SOCKET_POLL_NS)
            if due is None or pump_due < due:
                due = pump_due
        if due is None or self._housekeeping_due_ns < due:
            due = self._housekeeping_due_ns
        return due

    def stay(self, timer_fd: int, others_fd: int, until_ns: int, enough_ns: int) -> Stay | None:
        if not self._pumped or self.threaded or self._to_decipher or self._to_keep or self._has_own_work():
            return None
        stay = self._stay
        stay.timer, stay.others = timer_fd, others_fd
        stay.until = min(until_ns, self._housekeeping_due_ns)
        stay.enough, stay.last, stay.polls = enough_ns, self._last_step_ns, self._pumped_lines > 0
        n = lib.tp_pump_stay(self._native, stay)
        self._last_step_ns = stay.last
        late_ns = ffi.unpack(stay.late, n) if n > 0 else []
        return Stay(late_ns, stay.armed, stay.done, stay.before, stay.cpu_before)

    def step(self, now_ns: int) -> None:
        if self._native is not None and self._pumped and not self.threaded and not self._has_own_work():
            self.in_step = True
            try:
                self._last_step_ns = now_ns
                self._hand_over_rest()
                n = lib.tp_pump_step(self._native, now_ns, self._ticked)
                if self._ticked[0]:
                    self._after_tick(n, now_ns)
                else:
                    self._after_read(n, now_ns)
                    if self._commanded:
                        self._run_commands(now_ns)
                    self._tick_due(now_ns)
                self._keep_house(now_ns)
            finally:
                self._end_step()
            return
        super().step(now_ns)
        self._last_step_ns = now_ns

    def _has_own_work(self) -> bool:
        """Whether the `tasks` driver's part of a step has anything in it."""
        return bool(
            self._commanded or self._later or self._memory_ready or self._poller.handlers or self._groups or self._lines
        )

    def _read(self, now: int) -> None:
        super()._read(now)  # First: what the last step left for this one is not what this one leaves for the next.
        if self._pumped:
            self._read_pump(now)

    def _read_pump(self, now_ns: int) -> None:
        if self.threaded:
            self._hear_signal()
            self._decipher(now_ns)
            self._hand_over()  # First: it was written before anything that is done now, perhaps for another stream.
            self._attend(now_ns)
            return
        self._hand_over_rest()
        self._after_read(lib.tp_pump_read(self._native, now_ns), now_ns)

    def _after_read(self, n: int, now_ns: int) -> None:
        """See to what the pump has read, and have it read again where there may be more."""
        native = self._native
        collected = False
        for _ in range(READ_ROUNDS):
            again = self._decipher(now_ns) if native.n_cipher else False
            if n or native.n_attention:
                again = self._attend(now_ns) or again
            if (again or collected) and self._poller.handlers:
                # Of a message that is too long for the pump more may be there already.
                collected = self._read_polled(now_ns)
            elif not again:
                return
            n = lib.tp_pump_read(native, now_ns)

    def _tick_due(self, now_ns: int) -> None:
        super()._tick_due(now_ns)
        if self._pumped:
            if self.threaded:
                self._hand_over()
            else:
                self._after_tick(lib.tp_pump_tick(self._native, now_ns), now_ns)

    def _after_tick(self, n: int, now_ns: int) -> None:
        native = self._native
        while native.handover[native.filling].n_outputs:
            self._hand_over()  # First: what is said of it comes behind it.
            if native.next_due <= now_ns:  # it was much, and others have waited for it
                lib.tp_pump_tick(native, now_ns)
        if n or native.n_attention:
            self._attend(now_ns)

    def _hand_over_rest(self) -> None:
        """Send what a turn without Python has handed over, before anything else is read or done."""
        if self._native.handover[self._native.filling].n_outputs:
            self._hand_over()

    def _hear_signal(self) -> None:
        with suppress(BlockingIOError):
            os.read(int(self._native.signal), 8)
        if not self._realtime_said and self._native.realtime >= 0:
            self._realtime_said = True
            if self._native.realtime == 0:
                log.warning(
                    "the media thread runs at ordinary priority: SCHED_FIFO is not permitted (CAP_SYS_NICE or "
                    "RLIMIT_RTPRIO); other processes on its core will be heard as lateness"
                )

    def _attend(self, now_ns: int) -> bool:
        """See to what was not plain media, in the order it came. -> whether a connection was held: more may be there"""
        held = False
        while (n := int(lib.tp_pump_take_attention(self._native, self._entries, ATTENTION_AT_ONCE))) > 0:
            entries = _attention.iter_unpack(self._entries_view[: n * _attention.size])
            for slot, what, port, error, _ in list(entries):
                member = self._members[slot]
                if member is None:
                    continue
                if port:
                    held = True
                    attend = self._attends.get(port)
                    if attend is not None:
                        self._guard(member, lambda now, a=attend, w=what, e=error: a(w, e, now), now_ns)  # type: ignore[misc]
                    continue
                if what & ATTEND_EVENTS:
                    self._guard(member, member.pull_events, now_ns)
                if what & ATTEND_STUCK:
                    member.failed(NativeError("a path found no room in an empty outbox"))
            if n < ATTENTION_AT_ONCE and not self.threaded:
                break
        return held

    def _decipher(self, now_ns: int) -> bool:
        """Give the pump the plaintext of the cipher that it has read. -> whether there is surely more to read"""
        if self._deciphering:
            return False
        native = self._native
        which = lib.tp_pump_take_cipher(native, self._n_cipher)
        if which < 0:
            return False
        pump = self._pump
        assert pump is not None
        view, entries = pump.cipher_views[which], pump.cipher_entries[which][: 16 * self._n_cipher[0]]
        known = self._to_decipher.get
        again = False
        lengths: list[int] = []
        first = offset = length = 0
        self._deciphering = True
        try:
            for port, offset, length in _cipher.iter_unpack(entries):
                entry = known(port)
                if entry is not None and length <= PIECE_BYTES:
                    feed, read, incoming, outgoing, connection = entry
                    piece = view[offset : offset + length]
                    feed(piece)
                    failure: ssl.SSLError | None = None
                    try:
                        n = read(length, piece)
                    except ssl.SSLError as exc:
                        n, failure = 0, exc
                    # One record, and all of it. Nothing that TLS answers to has room beside it; to look whether it has
                    # would fetch into the cache what nobody needs.
                    alone = length < n + TWO_RECORDS_BYTES
                    if 0 < n < length and not incoming.pending and (alone or not outgoing.pending):
                        lengths.append(n)
                        continue
                    first = self._receive_many(first, lengths, now_ns)
                    self.scratch_view[:n] = piece[:n]
                    connection.decipher_on(n, failure, now_ns)
                else:
                    first = self._receive_many(first, lengths, now_ns)
                    if entry is not None:
                        entry[4].decipher(view[offset : offset + length], now_ns)
                        again = again or length == CIPHER_ONCE
                first += 1
            self._receive_many(first, lengths, now_ns)
        finally:
            self._deciphering = False
        return again or offset + length > CIPHER_BYTES - CIPHER_ONCE  # then there was no room for more

    def _receive_many(self, first: int, lengths: list[int], now_ns: int) -> int:
        """Give the pump the plaintext of entries in a row, which lies where they lay. -> the number of the next"""
        n = len(lengths)
        if n:
            numbers = ffi.from_buffer("uint32_t[]", array("I", lengths))
            lib.tp_pump_receive_many(self._native, first, n, numbers, now_ns)
            lengths.clear()
        return first + n

    def _hand_over(self) -> None:
        """Send the messages that the pump has left to Python: of cipher ports, and of streams without a port."""
        if self._handing_over:
            return
        which = int(lib.tp_pump_take_handover(self._native))
        if which < 0:
            return
        pump = self._pump
        assert pump is not None
        view, numbers = pump.handover_views[which], pump.handover_numbers[which]
        known = self._to_encrypt.get
        quadruple = iter(numbers[: 4 * self._native.handover[which].n_outputs].tolist())
        ciphers: list[bytes] = []
        first = 0
        self._handing_over = True
        try:
            for offset, length, slot, kind in zip(quadruple, quadruple, quadruple, quadruple, strict=True):
                entry = known(slot) if kind & 0xFFFF == OUTPUT_CIPHER else None
                if entry is not None and length <= PIECE_BYTES:
                    write, take, _ = entry
                    try:
                        write(view[offset : offset + length])
                    except ssl.SSLError:
                        pass
                    else:
                        ciphers.append(take())
                        continue
                first = self._send_many(first, ciphers)
                if entry is not None:  # long, or TLS is broken, which is found out again
                    entry[2].encrypt(view[offset : offset + length])
                elif kind & 0xFFFF != OUTPUT_CIPHER:
                    self._send_outputs(view, numbers[4 * first : 4 * first + 4], 1)
                first += 1
            self._send_many(first, ciphers)
        finally:
            self._handing_over = False

    def _send_many(self, first: int, ciphers: list[bytes]) -> int:
        """Give the pump the cipher of outputs in a row. -> the number of the next"""
        n = len(ciphers)
        if n:
            numbers = ffi.from_buffer("uint32_t[]", array("I", map(len, ciphers)))
            lib.tp_pump_send_many(self._native, first, n, numbers, b"".join(ciphers))
            ciphers.clear()
        return first + n

    @property
    def lateness(self) -> Lateness:
        own = super().lateness
        if self._native is None:
            return own
        phases = np.frombuffer(ffi.buffer(self._native.lateness), np.uint64).reshape(int(lib.TP_PUMP_PHASES), -1)
        both = self._both
        both.counts = array("Q", (phases.sum(axis=0) + np.array(own.counts, np.uint64)).tobytes())
        both.max_ns = max(own.max_ns, int(self._native.counters.late_max_ns))
        both.sum_ns = own.sum_ns + int(self._native.counters.late_sum_ns)
        both.total = sum(both.counts)
        return both

    @property
    def media_cpu_ns(self) -> int:
        """Processor time of the pump's turns so far, by the clock of the thread that takes them."""
        return int(self._native.counters.busy_ns) if self._native is not None else 0

    @property
    def ticks(self) -> int:
        return super().ticks + (int(self._native.counters.turns) if self._native is not None else 0)
