"""What waits for a peer that does not read: bytes in order, bounded, audio apart from control messages.

Live audio is worth nothing later: what finds no room is dropped whole and counted. A control message is never dropped;
when too many wait, whoever sends is told, and the stream is over.
"""

from __future__ import annotations

MAX_PENDING_MEDIA_BYTES = 8 * 1024
"""What waits when the kernel takes no more; further media messages are dropped."""
MAX_PENDING_CONTROL_BYTES = 64 * 1024
"""What control messages may add to it, however much audio waits."""


class Unsent:
    """The bytes of one connection that the kernel has not taken yet. One owner.

    Args:
        live: media is worth nothing later: a call's tracks. What a program says is not, and whoever sends it asks first
            whether anything waits.
    """

    __slots__ = ("_bytes", "_control_bytes", "_controls", "_gone", "live", "media_dropped")

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.media_dropped = 0
        """Messages."""
        self._bytes = bytearray()
        self._gone = 0
        """Bytes that have left, ever."""
        self._controls: list[tuple[int, int]] = []
        """Of each control message that waits: where it ends, counted as `_gone`, and its length."""
        self._control_bytes = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def view(self) -> bytearray:
        """Return what waits, to be sent and not to be changed; `sent` says how much of it went."""
        return self._bytes

    def add_rest(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the end of a message whose beginning has been sent; it has no bound of its own."""
        self._bytes += data

    def add_media(self, framed: memoryview) -> bool:
        """Keep one media message; False when it found no room and was dropped."""
        if self.live and len(self._bytes) + len(framed) > MAX_PENDING_MEDIA_BYTES:
            self.media_dropped += 1
            return False
        self._bytes += framed
        return True

    def add_control(self, data: bytes) -> bool:
        """Keep one control message; False when there is no room for it."""
        if self._control_bytes + len(data) > MAX_PENDING_CONTROL_BYTES:
            return False
        self._bytes += data
        self._controls.append((self._gone + len(self._bytes), len(data)))
        self._control_bytes += len(data)
        return True

    def sent(self, n: int) -> None:
        """Forget the first `n` bytes."""
        del self._bytes[:n]
        self._gone += n
        while self._controls and self._controls[0][0] <= self._gone:
            self._control_bytes -= self._controls.pop(0)[1]

    def take(self) -> bytearray:
        """Return all that waits and keep nothing."""
        taken, self._bytes = self._bytes, bytearray()
        self._gone += len(taken)
        self._controls.clear()
        self._control_bytes = 0
        return taken
