"""One native pump and the memory it works in: what `tp_pump` (see its header) must be given, and how much of it."""

from __future__ import annotations

import os
from typing import Any

from talkpath._native import ffi, lib
from talkpath.path.arena import HUGE_BYTES, Arena
from talkpath.transport.clock import Lateness

MAX_SLOTS = 8192
MAX_PORTS = 5 * MAX_SLOTS
POOL_BYTES = 256 * 1024 * 1024
"""For unfinished input and unsent output. Address space: pages are taken when they are first used."""
OUTBOX_BYTES = 256 * 1024
OUTBOX_OUTPUTS = 4096
HANDOVER_BYTES = 4 * 1024 * 1024
HANDOVER_OUTPUTS = 16384
CIPHER_BYTES = 1024 * 1024
HOT_BYTES = (
    MAX_SLOTS * (ffi.sizeof("tp_slot") + 8)
    + MAX_PORTS * ffi.sizeof("tp_port")
    + OUTBOX_OUTPUTS * ffi.sizeof("tp_output")
    + OUTBOX_BYTES
    + lib.TP_PUMP_SCRATCH_BYTES
)

_untouched = ffi.new_allocator(should_clear_after_alloc=False)


class PhaseLateness(Lateness):
    """The pump's own histogram of the lateness of one phase, read where it lies."""

    __slots__ = ("_pump",)

    def __init__(self, pump: Any, phase: int) -> None:
        self._pump = pump
        self.counts = memoryview(ffi.buffer(pump.lateness[phase])).cast("Q")  # type: ignore[assignment]

    @property
    def max_ns(self) -> int:  # type: ignore[override]
        """Of all phases."""
        return int(self._pump.counters.late_max_ns)

    @property
    def sum_ns(self) -> int:  # type: ignore[override]
        """Of all phases."""
        return int(self._pump.counters.late_sum_ns)

    @property
    def total(self) -> int:  # type: ignore[override]
        return sum(self.counts)


class Pump:
    """Own one native pump and the memory it works in."""

    def __init__(self, origin_ns: int, *, ring: bool) -> None:
        self.native: Any = ffi.new("tp_pump *")
        memory = self._memory = ffi.new("tp_pump_memory *")
        # What each tick goes through is on one huge page, up to some thousands of ports.
        self._arena = arena = Arena(HOT_BYTES, huge_bytes=HUGE_BYTES)
        memory.slots = arena.take("tp_slot", MAX_SLOTS)
        memory.due = arena.take("int64_t", MAX_SLOTS)
        memory.scratch = arena.take("uint8_t", lib.TP_PUMP_SCRATCH_BYTES)
        memory.outbox_bytes = arena.take("uint8_t", OUTBOX_BYTES)
        memory.outbox_outputs = arena.take("tp_output", OUTBOX_OUTPUTS)
        memory.ports = arena.take("tp_port", MAX_PORTS)
        self._kept = {
            "attention": _untouched("tp_attention[]", MAX_SLOTS + MAX_PORTS),
            "free_ports": _untouched("uint32_t[]", MAX_PORTS),
            "pool_bytes": _untouched("uint8_t[]", POOL_BYTES),
        }
        if ring:
            self._kept["ring_bytes"] = _untouched("uint8_t[]", lib.TP_PUMP_RING_BYTES)
        for name, value in self._kept.items():
            setattr(memory, name, value)
        self._handover = [_untouched("uint8_t[]", HANDOVER_BYTES) for _ in range(2)]
        self._handover_outputs = [_untouched("tp_output[]", HANDOVER_OUTPUTS) for _ in range(2)]
        for i in range(2):
            memory.handover_bytes[i] = self._handover[i]
            memory.handover_outputs[i] = self._handover_outputs[i]
        self._cipher = [_untouched("uint8_t[]", CIPHER_BYTES) for _ in range(2)]
        self._cipher_entries = [_untouched("tp_cipher[]", MAX_PORTS) for _ in range(2)]
        for i in range(2):
            memory.cipher_bytes[i] = self._cipher[i]
            memory.cipher_entries[i] = self._cipher_entries[i]
        memory.cipher_capacity = CIPHER_BYTES
        self.cipher_views = [memoryview(ffi.buffer(each)) for each in self._cipher]
        self.cipher_entries = [memoryview(ffi.buffer(each)) for each in self._cipher_entries]
        self.handover_views = [memoryview(ffi.buffer(each)) for each in self._handover]
        self.handover_numbers = [memoryview(ffi.buffer(each)).cast("I") for each in self._handover_outputs]
        memory.n_slots, memory.n_ports = MAX_SLOTS, MAX_PORTS
        memory.outbox_capacity, memory.outbox_outputs_capacity = OUTBOX_BYTES, OUTBOX_OUTPUTS
        memory.handover_capacity, memory.handover_outputs_capacity = HANDOVER_BYTES, HANDOVER_OUTPUTS
        memory.pool_capacity = POOL_BYTES
        if lib.tp_pump_open(self.native, memory, origin_ns) < 0:
            raise OSError("the pump could not get what it needs of the system (epoll, eventfd)")

    def close(self) -> None:
        """Give back what it holds of the system. Idempotent; no thread may be running it."""
        lib.tp_pump_close(self.native)


def ring_refusal() -> OSError | None:
    """Open an io_uring as the pump does and close it; return why the system would not have it."""
    ring = ffi.new("tp_uring *")
    if not lib.tp_uring_open(ring):
        return OSError(ffi.errno, os.strerror(ffi.errno))
    lib.tp_uring_close(ring)
    return None
