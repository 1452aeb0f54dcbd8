"""Native state lies side by side: on lines of its own, zeroed, used again, and never in two hands."""

from __future__ import annotations

import gc
import itertools
import mmap
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath._native import ffi
from talkpath.path import arena
from talkpath.path.arena import HUGE_BYTES, Arena, new_bytes, new_struct


def address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def test_pieces_follow_one_another_on_lines_of_their_own() -> None:
    own = Arena(4096, huge_bytes=0)
    first, second = own.take("uint8_t", 65), own.take("tp_latch", 3)
    assert address(first) % 64 == 0
    assert address(second) == address(first) + 128
    assert own.left == 4096 - 128 - -(-3 * ffi.sizeof("tp_latch") // 64) * 64
    assert bytes(ffi.buffer(first, 65)) == bytes(65)


def test_an_arena_holds_all_it_was_made_for_and_no_more() -> None:
    own = Arena(1000, huge_bytes=0)
    taken = own.take("uint8_t", 1000)
    taken[999] = 7
    with pytest.raises(MemoryError):
        own.take("uint8_t")


def test_more_than_the_system_has_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Arena(1 << 60, huge_bytes=0)


def test_the_huge_part_begins_on_a_boundary_behind_the_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, int]] = []

    class Map(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            advised.append((start, length))

    monkeypatch.setattr("talkpath.path.arena.mmap.mmap", Map)
    monkeypatch.setattr(arena, "_ADVICE", 14)
    own = Arena(8 * HUGE_BYTES, ordinary_bytes=4096, huge_bytes=3 * HUGE_BYTES + 5)
    taken = own.take("uint8_t", 8 * HUGE_BYTES)
    ((start, length),) = advised
    assert length == 3 * HUGE_BYTES
    assert (address(taken) + 4096) % HUGE_BYTES == 0
    assert start % mmap.PAGESIZE == 0
    taken[8 * HUGE_BYTES - 1] = 1
    advised.clear()
    Arena(HUGE_BYTES - 64, huge_bytes=HUGE_BYTES)
    assert advised == [], "a part of a huge page is none"


def test_a_kernel_without_huge_pages_gives_ordinary_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Map(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("talkpath.path.arena.mmap.mmap", Map)
    monkeypatch.setattr(arena, "_ADVICE", 14)
    own = Arena(2 * HUGE_BYTES, huge_bytes=2 * HUGE_BYTES)
    own.take("uint8_t", 2 * HUGE_BYTES)[0] = 1
    monkeypatch.setattr(arena, "_ADVICE", None)
    unadvised = Arena(2 * HUGE_BYTES, huge_bytes=2 * HUGE_BYTES)
    unadvised.take("uint8_t")[0] = 1


def test_what_is_given_back_comes_again_zeroed() -> None:
    first = new_bytes(1500)
    ffi.memmove(first, b"\xff" * 1500, 1500)
    was = address(first)
    del first
    gc.collect()
    again = new_bytes(1501)  # of the same number of lines
    assert address(again) == was
    assert bytes(ffi.buffer(again)) == bytes(1501)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=40))
def test_no_two_in_use_share_a_byte(steps: list[tuple[int, bool]]) -> None:
    kept: list[Any] = []
    for i, (n, drop) in enumerate(steps):
        if drop and kept:
            kept.pop(len(kept) // 2)
        piece = new_bytes(n)
        assert bytes(ffi.buffer(piece)) == bytes(n)
        ffi.memmove(piece, bytes([i % 255 + 1]) * n, n)
        kept.append(piece)
    spans = sorted((address(piece), len(piece)) for piece in kept)
    for (at, n), (following, _) in itertools.pairwise(spans):
        assert at + n <= following
    assert all(len(set(bytes(ffi.buffer(piece)))) == 1 for piece in kept)


def test_a_struct_owns_its_memory_and_is_zeroed() -> None:
    path = new_struct("tp_path")
    assert ffi.typeof(path) is ffi.typeof("tp_path *")
    assert bytes(ffi.buffer(path)) == bytes(ffi.sizeof("tp_path"))
    other = new_struct("tp_path")
    assert abs(address(other) - address(path)) >= ffi.sizeof("tp_path")


def test_a_full_slab_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "SLAB_BYTES", 4096)
    monkeypatch.setattr(arena, "ORDINARY_BYTES", 0)
    slabs: list[Arena] = []
    monkeypatch.setattr(arena, "_slabs", slabs)
    kept = [arena._cut(1024) for _ in range(9)]
    assert len(slabs) == 3
    assert len({address(piece) for piece in kept}) == 9
    arena._cut(10_000)
    assert len(slabs) == 4
