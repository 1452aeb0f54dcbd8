"""The memory that all queues of an engine share, and the arena in which what is to be sent is handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError
from talkpath.path.arena import Arena

BLOCK_BYTES: int = lib.TP_BLOCK_BYTES
DEFAULT_POOL_BYTES = 64 * 1024 * 1024

HUGE_BYTES = 4 * 1024 * 1024
"""The blocks that are used first: a few thousand calls', as a rule."""

_BYTES = ffi.typeof("uint8_t[]")
# Fresh pages from the system are zero already and cost nothing until they are used.
_untouched = ffi.new_allocator(should_clear_after_alloc=False)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Blocks of a pool, each `BLOCK_BYTES`."""

    n_blocks: int
    n_free: int
    n_reserved: int
    """Promised to queues and not in use by them."""
    n_refused: int
    n_peak: int
    """Most ever in use at once."""


class Pool:
    """Own the blocks in which queued audio and marks wait.

    An application may send a minute of audio in one burst, yet most calls have nothing waiting: so queues share one
    pool, each with a reserve of its own, and an idle call costs none of it.

    Args:
        n_bytes: memory in all; rounded down to whole blocks and their links.

    Raises:
        ConfigError: too little for a single block.
    """

    __slots__ = ("__weakref__", "_arena", "native")

    def __init__(self, n_bytes: int = DEFAULT_POOL_BYTES) -> None:
        if n_bytes < BLOCK_BYTES + 4:
            raise ConfigError(f"a pool needs at least {BLOCK_BYTES + 4} bytes, not {n_bytes}")
        # A line of its own has a small one, and no use for huge pages.
        self._arena = Arena(n_bytes, huge_bytes=HUGE_BYTES if n_bytes >= DEFAULT_POOL_BYTES else 0)
        self.native: Any = ffi.new("tp_pool *")
        lib.tp_pool_init(self.native, self._arena.take("uint8_t", n_bytes), n_bytes)

    def statistics(self) -> PoolStatistics:
        """Return the present count of blocks."""
        pool = self.native
        return PoolStatistics(pool.n_blocks, pool.n_free, pool.n_reserved, pool.n_refused, pool.n_peak)


class Output(NamedTuple):
    """One datagram, message or frame to send. `bytes` is valid until the outbox is reset."""

    kind: int
    slot: int
    stream: int
    bytes: memoryview


class Outbox:
    """Own the arena that ticks append to; one serves all calls of an engine.

    A tick checks for its worst case first and else answers `TP_E_ROOM` with nothing done: send, `reset()`, tick again.

    Args:
        n_bytes: of content.
        n_outputs: how many datagrams and messages.
    """

    __slots__ = ("_bytes", "_outputs", "native", "view")

    def __init__(self, n_bytes: int = 1024 * 1024, n_outputs: int = 8192) -> None:
        self._bytes = _untouched(_BYTES, n_bytes)
        self._outputs = _untouched("tp_output[]", n_outputs)
        self.native: Any = ffi.new("tp_outbox *", (self._bytes, self._outputs, n_bytes, 0, n_outputs, 0))
        self.view = memoryview(ffi.buffer(self._bytes))

    def __len__(self) -> int:
        return int(self.native.n_outputs)

    def __iter__(self) -> Iterator[Output]:
        outputs, view = self._outputs, self.view
        for i in range(self.native.n_outputs):
            output = outputs[i]
            offset = output.offset
            yield Output(output.kind, output.slot, output.stream, view[offset : offset + output.length])

    def reset(self) -> None:
        """Forget what was appended; views handed out before are void."""
        self.native.used = 0
        self.native.n_outputs = 0
