"""RTP as far as the peers need it: the header, and packets put back in order."""

from __future__ import annotations

import struct
from functools import partial

FRAME_SAMPLES = 160
REORDER_FRAMES = 4
PLAYOUT_FRAMES = 2000  # 40 s, as the platform promises its applications

rtp_header = struct.Struct("!BBHII")


def ahead_of(base: int, seq: int) -> int:
    """How far `seq` is ahead of `base` in RTP's modular order; 0x8000 and more: behind."""
    return (seq - base) & 0xFFFF


class Reorder:
    """Puts packets back in order as far as a few frames allow; what comes later than that is skipped."""

    __slots__ = ("expected", "waiting")

    def __init__(self) -> None:
        self.expected = -1
        self.waiting: dict[int, bytes] = {}

    def put(self, seq: int, payload: bytes) -> list[bytes]:
        """Take one packet's payload; return those that are next."""
        if self.expected < 0:
            self.expected = seq
        if ahead_of(self.expected, seq) >= 0x8000:
            return []  # late: its place has been played
        self.waiting[seq] = payload
        if len(self.waiting) > REORDER_FRAMES:
            self.expected = min(self.waiting, key=partial(ahead_of, self.expected))
        ready: list[bytes] = []
        while (each := self.waiting.pop(self.expected, None)) is not None:
            self.expected = (self.expected + 1) & 0xFFFF
            ready.append(each)
        return ready
