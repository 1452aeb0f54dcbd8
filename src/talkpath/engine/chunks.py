"""What an application has queued, by chunk: for a wire on which one chunk can be taken back (Teler's ``interrupt``).

The native queue has one order and no names. Beside it the payloads that are still to be played are kept here, each
with its chunk's number; taking one out means clearing the queue and queueing the others anew, from the very sample
that would have been played next.
"""

from __future__ import annotations

from collections import deque
from typing import Final

UNNUMBERED: Final = -1
"""Of audio that came without a number: it lies among the others, and nothing takes it back."""


class Chunks:
    """The chunks of one stream that have not been played to their end. Lengths are in samples of the stream."""

    __slots__ = ("_sample_bytes", "_waiting")

    def __init__(self, sample_bytes: int) -> None:
        self._sample_bytes = sample_bytes
        self._waiting: deque[tuple[int, bytes]] = deque()

    def add(self, number: int, payload: bytes, taken: int, queued: int) -> None:
        """Note a chunk of which the queue took `taken` samples; `queued` wait now, these included."""
        if taken > 0:
            self._waiting.append((number, payload[: taken * self._sample_bytes]))
        self._drop_played(queued)

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()

    def without(self, number: int, queued: int) -> list[tuple[int, bytes]] | None:
        """Return what is left of the others, in order, and forget all; None when no chunk of that number waits."""
        self._drop_played(queued)
        if not any(other == number for other, _ in self._waiting):
            return None
        rest = [(other, payload) for other, payload in self._waiting if other != number]
        self._waiting.clear()
        return rest

    def _drop_played(self, queued: int) -> None:
        """Let go what has been played: all but the last `queued` samples."""
        played = sum(len(payload) for _, payload in self._waiting) - queued * self._sample_bytes
        while self._waiting and played > 0:
            number, payload = self._waiting[0]
            if len(payload) > played:
                self._waiting[0] = (number, payload[played:])
                return
            played -= len(payload)
            self._waiting.popleft()
