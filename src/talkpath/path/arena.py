"""Where the native state of calls lies: side by side, on huge pages where the system has them.

A tick goes through all calls, and between two of them the kernel has gone through its sockets. What it finds then of a
call is in no cache; but with ordinary pages not even the page tables are, and the walk through them (twice over on a
virtual machine) costs more than the miss itself. State of calls scattered over the heap is on a thousand pages, side by
side it is on a handful of huge ones.

Memory that is given back waits for the next of its size; a process keeps what its most calls at once needed.
"""

from __future__ import annotations

import functools
import mmap
import threading
from typing import Any

from talkpath._native import ffi

HUGE_BYTES = 2 * 1024 * 1024
SLAB_BYTES = 32 * 1024 * 1024
"""Address space: pages are taken when they are first used."""
ORDINARY_BYTES = 256 * 1024
"""Of the first slab: a program of a few calls does not pay for a huge page."""
_LINE_BYTES = 64
_ADVICE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


class Arena:
    """Own zeroed memory, taken from its beginning on and never given back piece by piece.

    Args:
        n_bytes: in all.
        ordinary_bytes: at the beginning, that are on ordinary pages.
        huge_bytes: behind them, that are on huge pages if the system has any; what follows is on ordinary ones.

    Raises:
        MemoryError: the system has no such address space.
    """

    __slots__ = ("_at", "_bytes", "_end")

    def __init__(self, n_bytes: int, *, ordinary_bytes: int = 0, huge_bytes: int) -> None:
        n_bytes = _whole_lines(n_bytes)
        try:
            memory = mmap.mmap(-1, n_bytes + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as exc:
            raise MemoryError(f"the system has no {n_bytes} bytes of address space") from exc
        self._bytes = ffi.from_buffer("uint8_t[]", memory)
        boundary = -(int(ffi.cast("uintptr_t", self._bytes)) + ordinary_bytes) % HUGE_BYTES + ordinary_bytes
        self._at = boundary - ordinary_bytes
        self._end = self._at + n_bytes
        huge = min(huge_bytes, self._end - boundary) // HUGE_BYTES * HUGE_BYTES
        if _ADVICE is not None and huge > 0:
            try:
                memory.madvise(_ADVICE, boundary, huge)
            except OSError:
                return  # a kernel without: ordinary pages do as well

    @property
    def left(self) -> int:
        """Bytes that can still be taken."""
        return self._end - self._at

    def take(self, kind: str, n: int = 1) -> Any:
        """Return ``kind *`` to `n` zeroed entries, at the beginning of a cache line; valid as long as the arena lives.

        Raises:
            MemoryError: fewer are left.
        """
        n_bytes = _whole_lines(n * ffi.sizeof(kind))
        if n_bytes > self.left:
            raise MemoryError(f"{n_bytes} bytes of an arena that has {self.left} left")
        taken = ffi.cast(f"{kind} *", self._bytes + self._at)
        self._at += n_bytes
        return taken


def _whole_lines(n_bytes: int) -> int:
    return -(-n_bytes // _LINE_BYTES) * _LINE_BYTES


_lock = threading.RLock()
"""Of `_slabs`: calls may live in several threads' runs. Giving back needs none."""
_slabs: list[Arena] = []


def _cut(n_bytes: int) -> Any:
    with _lock:
        if not _slabs or _slabs[-1].left < n_bytes:
            n_slab = max(SLAB_BYTES, n_bytes)
            _slabs.append(Arena(n_slab, ordinary_bytes=0 if _slabs else ORDINARY_BYTES, huge_bytes=n_slab))
        return _slabs[-1].take("uint8_t", n_bytes)


@functools.cache
def _allocator(n_bytes: int) -> Any:
    free: list[Any] = []

    def take(_: int) -> Any:
        try:
            return free.pop()
        except IndexError:
            return _cut(n_bytes)

    return ffi.new_allocator(take, free.append)


def new_struct(kind: str) -> Any:
    """Return an owning, zeroed ``kind *``, as ``ffi.new`` does."""
    return _allocator(_whole_lines(ffi.sizeof(kind)))(f"{kind} *")


def new_bytes(n: int) -> Any:
    """Return an owning, zeroed ``uint8_t[n]``, as ``ffi.new`` does."""
    return _allocator(_whole_lines(n))("uint8_t[]", n)
