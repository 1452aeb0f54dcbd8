"""What a peer sent and was not obeyed: counted by kind, told once a kind, never a reason to stop listening at once."""

from __future__ import annotations

import logging
import re

MAX_UNREADABLE = 1000
"""Messages that could not be read before a peer is given up: one that only ever sends rubbish is not a slip. What can
be read and is merely not obeyed (a checkpoint too many, audio into a one-way stream, an unknown event) never ends
anything."""
MAX_KINDS = 32
NAMEABLE = re.compile(r"[A-Za-z_.-]{1,32}")
"""An unknown event's name that may stand in a log: nothing that could be a number or a token."""


class Refusals:
    """The count of one stream's or line's.

    Args:
        log: where each kind is told once.
        whose: who refuses whose messages, for the log.
    """

    __slots__ = ("_log", "_unreadable", "_whose", "by_kind")

    def __init__(self, log: logging.Logger, whose: str) -> None:
        self._log = log
        self._whose = whose
        self._unreadable = 0
        self.by_kind: dict[str, int] = {}

    def add(self, kind: str) -> None:
        """Count one that was understood and not obeyed."""
        if kind not in self.by_kind:
            if len(self.by_kind) >= MAX_KINDS:
                kind = "other"
            else:
                self._log.info("%s message was refused: %s", self._whose, kind)
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1

    def add_unknown(self, name: str) -> None:
        """Count one of an event that the wire does not have."""
        self.add(f"unknown:{name}" if NAMEABLE.fullmatch(name) else "unknown")

    def add_unreadable(self, kind: str) -> bool:
        """Count one that could not be read; return whether the peer is to be given up."""
        self.add(kind)
        self._unreadable += 1
        return self._unreadable > MAX_UNREADABLE
