"""The `tasks` driver: moves plain media of every call and line in a Trio run, one synchronous step per tick.

Theory of operation. A step, in slot order, in one task:

1. *read*: everything that is readable is read into one scratch buffer and handed to the native core; what is not
   plain media (control messages, control frames) is handed to its owner at once, in the order it came, because a
   checkpoint's position and "a clear is heard at once" depend on that order;
2. *commands*: what other tasks asked for since the last step;
3. *tick*: each path that is due moves one ptime both ways; its datagrams and messages land in the outbox;
4. *send*: the outbox, by non-blocking calls; whoever cannot take it is left to its own send task;
5. *events*: pulled from the paths that have some.

Reading is repeated (bounded) while something is readable, so memory links complete a round trip within one instant
and a burst on a socket cannot grow a backlog.

Everything that changes a path's state happens here. Tasks hand over commands and never touch a live path, with one
exception: `end` of a call or stream detaches at once, whoever calls it.
"""

from __future__ import annotations

import logging
import select
import selectors
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from talkpath._native import ffi, lib
from talkpath.errors import NativeError
from talkpath.path.path import OutputKind
from talkpath.path.stream import Tick
from talkpath.transport.clock import Lateness
from talkpath.units import NS_PER_MS

if TYPE_CHECKING:
    from talkpath.path.pool import Pool
    from talkpath.transport.clock import Clock, Stay
    from talkpath.transport.memory import MemoryLink

log = logging.getLogger("talkpath.transport.driver")

SCRATCH_BYTES = 256 * 1024
"""One receive buffer for all; only an unfinished message is kept aside, by its own connection."""
OUTBOX_BYTES = 1024 * 1024
OUTBOX_OUTPUTS = 16384
READ_ROUNDS = 8
"""How often one step looks again for something readable."""
POLL_EVENTS = 8192
PHASE_NS = 5 * NS_PER_MS
"""Calls are spread over phases of the ptime, so that their packets do not leave in one burst."""
HOUSEKEEPING_NS = 1000 * NS_PER_MS
"""Liveness of connections is looked at once a second: no timer per call."""
HOUSEKEEPING_A_STEP = 64
"""Members looked at in one step, some 2 µs each: few of 200 steps a second need Python for it, none is a long one."""
SOCKET_POLL_NS = 5 * NS_PER_MS
"""In real time a line is read, and its commands are done, at least this often; calls have their ticks for it."""
POLLS_NS = (4 * SOCKET_POLL_NS, 2 * SOCKET_POLL_NS)
"""What a line that says long messages is content with: it asked for fewer, longer pieces."""
POLLS_A_MESSAGE = 3

_NOTHING = nullcontext()


def poll_ns_of(message_ms: int) -> int:
    """Return how often a line with such messages is looked at, where nothing wakes the clock for it: every 5 ms; every
    10 from messages of 30 ms on, every 20, as calls are with their ticks, from 60 on.

    Each divides the usual lengths of a message, so that what is said back comes as evenly as what was heard.
    """
    return next((poll for poll in POLLS_NS if POLLS_A_MESSAGE * poll <= message_ms * NS_PER_MS), SOCKET_POLL_NS)


# Plain integers: an enum's arithmetic costs more than the work.
TICK_EVENTS = int(Tick.EVENTS)
OUTPUT_RTP = int(OutputKind.RTP)
OUTPUT_MESSAGE = int(OutputKind.MESSAGE)


class Member(Protocol):
    """A call or a line, as the driver sees it."""

    slot: int
    pumped: bool
    """Whether the pump moves its media, not this module; see `driver_pump`."""

    def run_commands(self, now_ns: int) -> None:
        """Apply what other tasks asked for."""
        ...

    def pull_events(self, now_ns: int) -> None:
        """Take the native core's events and act on them."""
        ...

    def housekeeping(self, now_ns: int) -> None:
        """Once a second: pings, half-open detection, limits of duration."""
        ...

    def failed(self, exc: Exception) -> None:
        """Something in this member's part of the step raised: end it; nobody else is disturbed."""
        ...


class CallMember(Member, Protocol):
    """A member with a leg, ticked at its ptime."""

    path: Any
    period_ns: int
    send_media: list[Callable[[memoryview], None] | None]
    """Per stream index: takes one framed message."""
    group: Any
    """Where its lateness is counted; kept by the driver."""

    def send_rtp(self, datagram: memoryview) -> None: ...

    def hear_pcm(self, pcm: memoryview) -> None: ...

    def before_tick(self, now_ns: int) -> None:
        """PCM legs: hand the caller's next frame to the path."""
        ...

    needs_before_tick: bool


class LineMember(Member, Protocol):
    """A member without a leg, ticked when it has audio to send."""

    on_socket: bool
    poll_ns: int
    """How often it is looked at where nothing wakes the clock for it."""

    @property
    def native(self) -> Any: ...

    def next_send_ns(self) -> int | None:
        """Return when it is to be ticked; `TasksDriver.reschedule` says that this may have changed."""
        ...

    def tick(self, now_ns: int) -> None: ...


class Group:
    """Calls that tick at the same instants."""

    __slots__ = ("array", "calls", "dirty", "due_ns", "flags", "hooked", "lateness", "period_ns", "phase_ns")

    def __init__(self, period_ns: int, phase_ns: int, due_ns: int) -> None:
        self.period_ns = period_ns
        self.phase_ns = phase_ns
        self.due_ns = due_ns
        self.calls: list[CallMember] = []
        self.hooked: list[CallMember] = []
        self.array: Any = None
        self.flags: Any = None
        self.dirty = True
        self.lateness = Lateness()

    def rebuild(self) -> None:
        """Renew the arrays that the native core walks, in slot order."""
        self.calls.sort(key=lambda call: call.slot)
        self.hooked = [call for call in self.calls if call.needs_before_tick]
        self.array = ffi.new("tp_path *[]", [call.path for call in self.calls])
        self.flags = ffi.new("uint8_t[]", max(len(self.calls), 1))
        self.dirty = False


class Poller:
    """Which of many descriptors are readable, in one system call."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._selector = selectors.DefaultSelector() if self._epoll is None else None
        self.handlers: dict[int, Callable[[int], None]] = {}

    def add(self, fd: int, handler: Callable[[int], None]) -> None:
        if self._epoll is not None:
            self._epoll.register(fd, select.EPOLLIN)
        else:
            assert self._selector is not None
            self._selector.register(fd, selectors.EVENT_READ)
        self.handlers[fd] = handler

    def remove(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            if self._epoll is not None:
                with suppress(OSError):  # one that was closed first has left it already
                    self._epoll.unregister(fd)
            else:
                assert self._selector is not None
                self._selector.unregister(fd)

    def ready(self) -> list[int]:
        if self._epoll is not None:
            return [fd for fd, _ in self._epoll.poll(0, POLL_EVENTS)]
        assert self._selector is not None
        return [int(key.fd) for key, _ in self._selector.select(0)]

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        else:
            assert self._selector is not None
            self._selector.close()


class TasksDriver:
    """See the module."""

    def __init__(self) -> None:
        self.clock: Clock = None  # type: ignore[assignment]  # set by open_clock before anything can run
        self._poller = Poller()
        self._members: list[Member | None] = []
        self._free: list[int] = []
        self._taken: dict[int, Member] = {}
        self._groups: dict[tuple[int, int], Group] = {}
        self._lines: dict[int, LineMember] = {}
        self._line_due_ns: dict[int, int] = {}
        """By slot, of the lines that have something to send."""
        self._lines_due_ns: int | None = None
        """The first of them."""
        self._unsettled: dict[int, LineMember] = {}
        """Lines of which it may have changed."""
        self._polled_lines: dict[int, int] = {}
        """How many are to be looked at so often."""
        self._poll_due_ns = 0
        self._woken = False
        """Something has been read: who waited for it may have something to say."""
        self._housekeeping_due_ns = 0
        self._to_keep: list[Member] = []
        self._commanded: dict[int, Member] = {}
        self._later: list[Callable[[int], None]] = []
        self._at_end: list[Callable[[], None]] = []
        self._memory_ready: dict[int, tuple[MemoryLink, Callable[[int], None]]] = {}
        self._memory_ids: dict[int, tuple[MemoryLink, Callable[[int], None]]] = {}
        self._next_memory_id = 0
        self.scratch = bytearray(SCRATCH_BYTES)
        self.scratch_view = memoryview(self.scratch)
        self.report = ffi.new("tp_received *")
        """What the native core says of bytes it was given; valid until it is given more."""
        self.event = ffi.new("tp_event *")
        """The event that was pulled last."""
        self.scratch_c = ffi.from_buffer("uint8_t[]", self.scratch)
        self.outbox_bytes = bytearray(OUTBOX_BYTES)
        self.outbox_view = memoryview(self.outbox_bytes)
        self._outbox_c = ffi.from_buffer("uint8_t[]", self.outbox_bytes)
        self._outputs = ffi.new("tp_output[]", OUTBOX_OUTPUTS)
        self._outputs_view = memoryview(ffi.buffer(self._outputs)).cast("I")
        self.outbox = ffi.new("tp_outbox *")
        self.outbox.bytes = self._outbox_c
        self.outbox.outputs = self._outputs
        self.outbox.capacity = OUTBOX_BYTES
        self.outbox.outputs_capacity = OUTBOX_OUTPUTS
        self._ticks = 0
        self._lateness = Lateness()
        self.in_step = False
        self.pools: WeakSet[Pool] = WeakSet()
        """Of the engines and servers in this run, for whoever counts what is left."""
        self.journal: Callable[[int, int, str, tuple[object, ...]], None] | None = None
        """For tests: called with (now_ns, slot, kind, facts) for everything that happens, in order."""

    @property
    def ticks(self) -> int:
        """How many groups of calls have been ticked, ever."""
        return self._ticks

    @property
    def lateness(self) -> Lateness:
        """How late ticks were, all calls together."""
        return self._lateness

    # What only the pump has --------------------------------------------------------------------------------------

    def want_pump(self, *, media_thread: bool = False) -> bool:
        """Make ready to move members' media natively; False where that cannot be: they are moved by this module."""
        return False

    def paused(self) -> AbstractContextManager[None]:
        """Let nothing native happen between the calls of the block; only a media thread could."""
        return _NOTHING

    def reschedule(self, line: LineMember) -> None:
        """Look again at when a line that is not pumped has something to send, before that matters next."""
        self._unsettled[line.slot] = line

    def rearm(self, member: Member, now_ns: int) -> None:
        """Look again at when a pumped line has something to send."""

    def pump_of(self, member: Member) -> Any:
        """Return the native pump that moves a member, or None."""
        return None

    def stopping(self) -> None:
        """The clock is about to end."""

    def stay(self, timer_fd: int, others_fd: int, until_ns: int, enough_ns: int) -> Stay | None:
        """Take the steps that are due by `until_ns` without Python, until somebody is to be seen to; the first after
        `enough_ns` is the last. None: it cannot be. Python's other threads run meanwhile.
        """
        return None

    # Members -----------------------------------------------------------------------------------------------------

    def take_slot(self, member: Member) -> int:
        """Return the lowest free slot number, for `member` to keep until `remove`."""
        if not self._free:
            self._free.append(len(self._members))
            self._members.append(None)
        slot = self._free.pop()
        self._taken[slot] = member
        return slot

    def choose_phase(self, period_ns: int, pumped: bool = False) -> int:
        """Return the phase of `period_ns` with the fewest calls of its kind."""
        phases = range(0, period_ns, PHASE_NS) if period_ns >= PHASE_NS else range(1)
        return min(
            phases,
            key=lambda phase: len(self._groups[period_ns, phase].calls) if (period_ns, phase) in self._groups else 0,
        )

    def first_tick_ns(self, period_ns: int, phase_ns: int, pumped: bool = False) -> int:
        """Return when a new call of a group can tick first: the group may have had this instant already."""
        group = self._groups.get((period_ns, phase_ns))
        return max(self.clock.now_ns(), group.due_ns if group is not None else 0)

    def add_call(self, call: CallMember, phase_ns: int) -> None:
        """Begin to tick `call`, whose path was initialised with this phase."""
        key = (call.period_ns, phase_ns)
        group = self._groups.get(key)
        if group is None:
            due = int(lib.tp_path_next_deadline(call.path))
            group = self._groups[key] = Group(call.period_ns, phase_ns, due)
        self._members[call.slot] = call
        group.calls.append(call)
        group.dirty = True
        call.group = group
        self._start_housekeeping()
        self.clock.nudge()

    def add_line(self, line: LineMember) -> None:
        self._members[line.slot] = line
        self._lines[line.slot] = line
        self.reschedule(line)
        if self._is_polled(line):
            self._polled_lines[line.poll_ns] = self._polled_lines.get(line.poll_ns, 0) + 1
            due = self._next_poll_ns(self.clock.now_ns())
            if len(self._polled_lines) == 1 or due < self._poll_due_ns:
                self._poll_due_ns = due
        self._start_housekeeping()
        self.clock.nudge()

    def _next_poll_ns(self, now_ns: int) -> int:
        period_ns = min(self._polled_lines)
        return now_ns // period_ns * period_ns + period_ns

    def _is_polled(self, line: LineMember) -> bool:
        """Whether a line has nothing that wakes the clock for it: a socket, or in real time a memory link as well."""
        return line.on_socket or not self.clock.virtual

    def remove(self, member: Member) -> None:
        """Forget `member` at once, whether it was added or only had a slot; nothing of it is touched from here on.
        Idempotent.
        """
        slot = member.slot
        if self._taken.get(slot) is not member:
            return
        del self._taken[slot]
        self._members[slot] = None
        self._free.append(slot)
        self._free.sort(reverse=True)
        self._commanded.pop(slot, None)
        line = self._lines.pop(slot, None)
        if line is not None:
            self.reschedule(line)
            if self._is_polled(line):
                self._polled_lines[line.poll_ns] -= 1
                if not self._polled_lines[line.poll_ns]:
                    del self._polled_lines[line.poll_ns]
        else:
            for key, group in list(self._groups.items()):
                if member in group.calls:
                    group.calls.remove(member)  # pyright: ignore[reportArgumentType] - what is in there is a CallMember
                    group.dirty = True
                    if not group.calls:
                        del self._groups[key]
                    break

    def members(self) -> int:
        """Return how many calls and lines have a slot."""
        return len(self._taken)

    def watched(self) -> int:
        """Return how many descriptors and memory links are being polled."""
        return len(self._poller.handlers) + len(self._memory_ids)

    def _start_housekeeping(self) -> None:
        if self._housekeeping_due_ns == 0 or self.members() == 1:
            self._housekeeping_due_ns = self.clock.now_ns() + HOUSEKEEPING_NS

    # Watching links ----------------------------------------------------------------------------------------------

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        """Call `handler(now_ns)` in each step in which `fd` is readable."""
        self._poller.add(fd, handler)

    def unwatch(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        self._poller.remove(fd)

    def watch_memory(self, link: MemoryLink, handler: Callable[[int], None]) -> int:
        """Call `handler(now_ns)` in each step in which the memory link is readable. -> an id for `unwatch_memory`"""
        ident = self._next_memory_id
        self._next_memory_id += 1
        entry = (link, handler)
        self._memory_ids[ident] = entry

        def ready(_: MemoryLink) -> None:
            self._memory_ready[ident] = entry
            if not self.in_step:
                self.clock.nudge()

        link.on_readable = ready
        if link.ready():
            ready(link)
        return ident

    def unwatch_memory(self, ident: int) -> None:
        entry = self._memory_ids.pop(ident, None)
        self._memory_ready.pop(ident, None)
        if entry is not None:
            entry[0].on_readable = None

    def command(self, member: Member) -> None:
        """Say that `member` has commands waiting."""
        if self._members[member.slot] is member:
            first = not self._commanded
            self._commanded[member.slot] = member
            if first and not self.in_step:  # for the others the next step is no sooner
                self.clock.nudge()

    # The clock's side --------------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether there is something to do at this very instant (commands, memory links), whatever is due."""
        return bool(self._commanded or self._memory_ready or self._later)

    def later(self, handler: Callable[[int], None]) -> None:
        """Call `handler(now_ns)` once, in the next step."""
        self._later.append(handler)

    def at_end(self, handler: Callable[[], None]) -> None:
        """Call `handler()` once, when this step is over: for a connection that sends all of a step at once. It raises
        nothing; to be asked for within a step only.
        """
        self._at_end.append(handler)

    def next_due_ns(self) -> int | None:
        """Return when something is next to be done, or None when nothing ever will be unless nudged."""
        due: int | None = None
        for group in self._groups.values():
            if due is None or group.due_ns < due:
                due = group.due_ns
        if self._lines:
            if self._polled_lines and (due is None or self._poll_due_ns < due):
                due = self._poll_due_ns
            at = self._next_line_ns()
            if at is not None and (due is None or at < due):
                due = at
        if (self._groups or self._lines) and (due is None or self._housekeeping_due_ns < due):
            due = self._housekeeping_due_ns
        return due

    def step(self, now_ns: int) -> None:
        """Do all that is due by now. Never raises and never blocks."""
        self.in_step = True
        try:
            self._read(now_ns)
            if self._commanded:
                self._run_commands(now_ns)
            self._tick_due(now_ns)
            if self._lines:
                self._tick_lines(now_ns)
            if self._memory_ready:
                self._read(now_ns)
                if self._commanded:
                    self._run_commands(now_ns)
                if self._lines:
                    self._tick_lines(now_ns)
            if self._polled_lines and self._poll_due_ns <= now_ns:
                self._poll_due_ns = self._next_poll_ns(now_ns)
            self._keep_house(now_ns)
        finally:
            self._end_step()

    def awaits_answers(self, now_ns: int) -> bool:
        """Whether tasks that the last step woke may say something that would lie until the next look, which is far."""
        woken, self._woken = self._woken, False
        return woken and bool(self._polled_lines) and self._poll_due_ns - now_ns > SOCKET_POLL_NS

    def answer(self, now_ns: int) -> None:
        """Do what lines were asked for since the last step, and send it. Never raises and never blocks."""
        asked = {slot: line for slot, line in self._commanded.items() if slot in self._lines}
        if not asked:
            return
        rest = {slot: member for slot, member in self._commanded.items() if slot not in asked}
        self._commanded = asked
        self.in_step = True
        try:
            self._run_commands(now_ns)
            self._commanded |= rest
            self._tick_lines(now_ns)
        finally:
            self._end_step()

    def _end_step(self) -> None:
        while self._at_end:
            at_end, self._at_end = self._at_end, []
            for finish in at_end:
                finish()
        self.in_step = False

    def _keep_house(self, now_ns: int) -> None:
        if self._housekeeping_due_ns <= now_ns:
            self._housekeeping_due_ns = now_ns + HOUSEKEEPING_NS
            self._to_keep = [member for member in self._members if member is not None][::-1]
        for _ in range(min(HOUSEKEEPING_A_STEP, len(self._to_keep))):
            member = self._to_keep.pop()
            if self._members[member.slot] is member:
                self._guard(member, member.housekeeping, now_ns)

    def _tick_due(self, now_ns: int) -> None:
        due_groups = [group for group in self._groups.values() if group.due_ns <= now_ns]
        due_groups.sort(key=lambda group: (group.due_ns, group.phase_ns, group.period_ns))
        for group in due_groups:
            self._tick_group(group, now_ns)

    def _read(self, now: int) -> None:
        if self._later:
            later, self._later = self._later, []
            for go_on in later:
                go_on(now)
        handlers = self._poller.handlers
        for _ in range(READ_ROUNDS):
            busy = self._read_polled(now) if handlers else False
            if self._memory_ready:
                busy = True
                ready = sorted(self._memory_ready.items())
                self._memory_ready.clear()
                for ident, (link, handler) in ready:
                    if ident in self._memory_ids:
                        handler(now)
                        if ident in self._memory_ids and link.ready():
                            self._memory_ready[ident] = (link, handler)
            if not busy:
                return
            self._woken = True

    def _read_polled(self, now: int) -> bool:
        """Read once from every descriptor that is readable. -> whether there was any"""
        ready = self._poller.ready()
        for fd in ready:
            watching = self._poller.handlers.get(fd)
            if watching is not None:
                watching(now)
        return bool(ready)

    def _run_commands(self, now_ns: int) -> None:
        commanded = sorted(self._commanded.items())
        self._commanded.clear()
        for slot, member in commanded:
            if self._members[slot] is member:
                self._guard(member, member.run_commands, now_ns)

    def _guard(self, member: Member, what: Callable[[int], None], now_ns: int) -> None:
        try:
            what(now_ns)
        except Exception as exc:
            log.error(
                "slot %d: %s in %s", member.slot, type(exc).__name__, getattr(what, "__name__", "a step"), exc_info=exc
            )
            member.failed(exc)

    def _tick_group(self, group: Group, now_ns: int) -> None:
        due = group.due_ns
        latest = due + (now_ns - due) // group.period_ns * group.period_ns
        group.due_ns = latest + group.period_ns
        if group.dirty:
            group.rebuild()
        for call in group.hooked:
            self._guard(call, call.before_tick, latest)
        if group.dirty:  # a hook ended its call
            group.rebuild()
        calls, array, flags = group.calls, group.array, group.flags
        count = len(calls)
        calls = list(calls)
        done = 0
        while done < count:
            ticked = lib.tp_path_tick_many(array + done, count - done, latest, self.outbox, flags + done)
            if ticked <= 0 and self.outbox.n_outputs == 0:
                calls[done].failed(NativeError("a path found no room in an empty outbox"))
                ticked = 1
            done += ticked
            self._send()
        self._ticks += 1
        lateness = 0 if self.clock.virtual else self.clock.now_ns() - due
        group.lateness.add(lateness)
        self._lateness.add(lateness)
        for index, flag in enumerate(bytes(ffi.buffer(flags, count))):
            if flag & TICK_EVENTS:
                call = calls[index]
                if self._members[call.slot] is call:
                    self._guard(call, call.pull_events, latest)

    def _next_line_ns(self) -> int | None:
        """Return when the first line is to be ticked. Most lines most of the time have nothing to send: only those are
        asked of which it may have changed.
        """
        if self._unsettled:
            due_ns = self._line_due_ns
            for slot, line in self._unsettled.items():
                at = line.next_send_ns() if self._lines.get(slot) is line else None
                if at is None:
                    due_ns.pop(slot, None)
                else:
                    due_ns[slot] = at
            self._unsettled.clear()
            self._lines_due_ns = min(due_ns.values(), default=None)
        return self._lines_due_ns

    def _tick_lines(self, now_ns: int) -> None:
        first = self._next_line_ns()
        if first is None or first > now_ns:
            return
        for slot, at in sorted(self._line_due_ns.items()):
            line = self._lines.get(slot)
            if at <= now_ns and line is not None:
                self._guard(line, line.tick, now_ns)
                self.reschedule(line)

    def _send(self) -> None:
        outbox = self.outbox
        if outbox.n_outputs:
            self._send_outputs(self.outbox_view, self._outputs_view, outbox.n_outputs)
        outbox.used = 0
        outbox.n_outputs = 0

    def _send_outputs(self, view: memoryview, outputs: memoryview, n: int) -> None:
        members: Any = self._members
        quadruple = iter(outputs[: 4 * n].tolist())
        for offset, length, slot, kind in zip(quadruple, quadruple, quadruple, quadruple, strict=True):
            member = members[slot]
            if member is None:
                continue
            data = view[offset : offset + length]
            what = kind & 0xFFFF
            try:
                if what == OUTPUT_RTP:
                    member.send_rtp(data)
                elif what == OUTPUT_MESSAGE:
                    send = member.send_media[kind >> 16]
                    if send is not None:
                        send(data)
                else:
                    member.hear_pcm(data)
            except Exception as exc:
                log.error("slot %d: %s while sending", slot, type(exc).__name__, exc_info=exc)
                member.failed(exc)

    def flush_outbox(self) -> None:
        """Send what a line's tick has put into the outbox, before the line writes something after it."""
        self._send()

    def abandon(self) -> None:
        """End whoever is still moved by it: no step will come any more."""
        for member in list(self._taken.values()):
            member.failed(RuntimeError("the Trio run is breaking up"))

    def close(self) -> None:
        """Give back what it holds of the system; the clock has ended, and nobody holds it. Idempotent."""
        self._poller.close()
