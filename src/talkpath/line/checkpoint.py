"""Checkpoints of a line: positions in what it says, and how each came out.

Each settles exactly once::

    SET --all before it written, checkpoint sent--> SENT --the platform's answer--> PLAYED, or ASSUMED where the wire
     |                                               |                              cannot tell
     |                                               +--a later clear, confirmed--> CLEARED
     |                                               +--returned after a later clear--> CLEARED, or ASSUMED (below)
     |                                               +--the wire has no answers, and it should be heard now--> ASSUMED
     |                                               +--no answer long after it should have been heard--> ASSUMED
     +--cleared before it was written--> CLEARED
    SENT --held by a clear before it was heard--> KEPT --it should be heard now--> ASSUMED, --a later clear--> CLEARED
    SET, SENT, KEPT --the line ends--> LOST

KEPT are those whose audio is sent again on a wire that has no pause: the platform has forgotten them, or tells of them
as of any that were pending at a clear, so what it says of their names up to then is a ghost's and is nobody's.

Answers match first-in-first-out per name. A clear is an epoch: its confirmation settles what was sent before it, and
nothing that was sent after. Some platforms return what was pending at a clear as if it had been played: one that by the
model could not have been heard when the clear arrived was cleared, and of one near that moment nothing is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from talkpath.path.stream import NEVER
from talkpath.records import MarkOutcome, Outcome

MAX_SENT = 4096
"""Checkpoints sent and unanswered; the next is LOST at once, so a platform that never answers costs no memory."""
MAX_UNCONFIRMED = 256
CLEAR_TRIP_NS = 500_000_000
"""How long a clear may be on its way, and how far the model may be off: what was to be heard sooner may have been."""
ASSUMED_AFTER_NS = 10_000_000_000
"""How long after the model says that a checkpoint was heard its answer is waited for: a one-way stream gives none."""


class Checkpoint:
    """A position in what the line says; `wait` tells how it came out."""

    __slots__ = ("__weakref__", "_outcome", "_settled", "epoch", "expected_ns", "fate", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = -1
        """The clears that came before it was sent; -1: not sent yet."""
        self.expected_ns = 0
        """When, by the model, it is heard."""
        self.fate: Outcome | None = Outcome.CLEARED
        """What a confirmed clear makes of it; None: it is a ghost, nobody waits for it."""
        self._settled = trio.Event()
        self._outcome: MarkOutcome | None = None

    @property
    def outcome(self) -> MarkOutcome | None:
        """How it came out, or None while that is open."""
        return self._outcome

    async def wait(self) -> MarkOutcome:
        """Wait for the outcome; at the latest the line's end settles it. Cancellation changes nothing."""
        await self._settled.wait()
        assert self._outcome is not None
        return self._outcome

    def settle(self, outcome: Outcome, at_sample: int, exact: bool) -> None:
        """Settle once; what comes later is ignored."""
        if self._outcome is None:
            self._outcome = MarkOutcome(self.name, outcome, at_sample, exact)
            self._settled.set()


def _nowhere() -> int:
    return 0


def _tell_nobody(checkpoint: Checkpoint, outcome: Outcome) -> None:
    """Nobody is left."""


class Checkpoints:
    """All open checkpoints of one line; see the module.

    Args:
        here: the present sample of the outbound track, an estimate: for answers that name none.
        on_settled: told of each outcome.
    """

    __slots__ = (
        "_cleared_ns",
        "_here",
        "_kept",
        "_n_sent",
        "_next",
        "_on_settled",
        "_sent",
        "_set",
        "_unconfirmed",
        "_wire_epoch",
        "epoch",
    )

    def __init__(self, here: Callable[[], int], on_settled: Callable[[Checkpoint, Outcome], None]) -> None:
        self._here = here
        self._on_settled = on_settled
        self._set: dict[int, Checkpoint] = {}
        self._sent: dict[str, deque[Checkpoint]] = {}
        self._n_sent = 0
        self._next = 1
        self._unconfirmed: list[int] = []
        """Short, and of most lines always empty: a deque would cost 600 bytes more."""
        self._kept: list[Checkpoint] = []
        self.epoch = 0
        """Clears so far, as the program sees it."""
        self._wire_epoch = 0
        """Clears written; one that only holds is none to the program."""
        self._cleared_ns = 0

    def set(self, name: str) -> tuple[int, Checkpoint]:
        """Return a new checkpoint and the number it goes by in the native queue."""
        ident, self._next = self._next, self._next + 1
        checkpoint = self._set[ident] = Checkpoint(name)
        return ident, checkpoint

    def due(self, ident: int, expected_ns: int) -> Checkpoint | None:
        """Everything before it is written: return the checkpoint, to be sent now. None: it is settled already."""
        checkpoint = self._set.pop(ident, None)
        if checkpoint is None:
            return None
        checkpoint.epoch = self._wire_epoch
        checkpoint.expected_ns = expected_ns
        if self._n_sent >= MAX_SENT:
            self._settle(checkpoint, Outcome.LOST)
            return None
        self._sent.setdefault(checkpoint.name, deque()).append(checkpoint)
        self._n_sent += 1
        return checkpoint

    def unsent(self, ident: int, outcome: Outcome) -> None:
        """It will never be sent."""
        checkpoint = self._set.pop(ident, None)
        if checkpoint is not None:
            self._settle(checkpoint, outcome)

    def answered(self, name: str, outcome: Outcome | None, at_sample: int | None) -> bool:
        """The platform reports a checkpoint; False when none of that name is open.

        Args:
            outcome: None where the wire does not say whether it was played or came back because of a clear.
        """
        waiting = self._sent.get(name)
        if not waiting:
            return False
        checkpoint = self._pop(name, waiting)
        if outcome is None:
            outcome = Outcome.PLAYED
            if checkpoint.epoch < self._wire_epoch:
                unheard = checkpoint.expected_ns > self._cleared_ns + CLEAR_TRIP_NS
                outcome = Outcome.CLEARED if unheard else Outcome.ASSUMED
        self._settle(checkpoint, outcome, at_sample)
        return True

    def clear(self, now_ns: int, *, confirmed_later: bool) -> None:
        """A clear goes out. What the wire confirms is settled by `confirmed`."""
        self.epoch += 1
        kept, self._kept = self._kept, []
        for checkpoint in kept:
            self._settle(checkpoint, Outcome.CLEARED)
        self._wire_clear(now_ns, confirmed_later)

    def _wire_clear(self, now_ns: int, confirmed_later: bool) -> None:
        self._wire_epoch += 1
        self._cleared_ns = now_ns
        if confirmed_later:
            self._unconfirmed.append(self._wire_epoch)
            if len(self._unconfirmed) > MAX_UNCONFIRMED:
                self._unconfirmed.pop(0)

    def keep(self, now_ns: int, *, confirmed_later: bool) -> None:
        """A clear goes out that only holds: keep what was sent and is still to be heard."""
        for name, waiting in self._sent.items():
            for i, checkpoint in enumerate(waiting):
                if checkpoint.fate is None:
                    continue
                if checkpoint.expected_ns <= now_ns:
                    checkpoint.fate = Outcome.ASSUMED
                    continue
                ghost = waiting[i] = Checkpoint(name)
                ghost.epoch, ghost.expected_ns, ghost.fate = checkpoint.epoch, checkpoint.expected_ns, None
                self._kept.append(checkpoint)
        self._kept.sort(key=lambda checkpoint: checkpoint.expected_ns)
        self._wire_clear(now_ns, confirmed_later)

    def confirmed(self) -> None:
        """The oldest unconfirmed clear is confirmed; one that nobody asked for counts as the latest."""
        self._settle_before(self._unconfirmed.pop(0) if self._unconfirmed else self._wire_epoch)

    def settle_cleared(self) -> None:
        """The platform will not answer: what was sent before the latest clear was cleared."""
        self._settle_before(self._wire_epoch)

    def _settle_before(self, wire_epoch: int) -> None:
        for name, waiting in list(self._sent.items()):
            while waiting and waiting[0].epoch < wire_epoch:
                checkpoint = self._pop(name, waiting)
                self._settle(checkpoint, checkpoint.fate or Outcome.CLEARED)

    def assume(self, now_ns: int, *, after_ns: int = ASSUMED_AFTER_NS) -> None:
        """Settle what the platform owes an answer for too long; where it never gives one, `after_ns` is 0."""
        for name, waiting in list(self._sent.items()):
            while waiting and waiting[0].expected_ns + after_ns <= now_ns:
                self._settle(self._pop(name, waiting), Outcome.ASSUMED)

    def assume_kept(self, now_ns: int) -> None:
        """Settle what was kept and should have been heard."""
        while self._kept and self._kept[0].expected_ns <= now_ns:
            self._settle(self._kept.pop(0), Outcome.ASSUMED)

    def next_kept_ns(self) -> int:
        """When, by the model, the next of those that are kept is heard; `NEVER` when there is none."""
        return self._kept[0].expected_ns if self._kept else NEVER

    def next_expected_ns(self) -> int:
        """When, by the model, the next unanswered one is heard; `NEVER` when there is none."""
        return min((waiting[0].expected_ns for waiting in self._sent.values()), default=NEVER)

    def shift(self, from_ns: int, by_ns: int) -> None:
        """What was still to be heard at `from_ns` is heard so much later."""
        for waiting in (*self._sent.values(), self._kept):
            for checkpoint in waiting:
                if checkpoint.expected_ns > from_ns:
                    checkpoint.expected_ns += by_ns

    def lose_all(self) -> None:
        """The line is over."""
        sent = (checkpoint for waiting in self._sent.values() for checkpoint in waiting)
        for checkpoint in (*self._set.values(), *sent, *self._kept):
            self._settle(checkpoint, Outcome.LOST)
        self._set.clear()
        self._sent.clear()
        self._kept.clear()
        self._n_sent = 0

    def let_go(self) -> None:
        """Forget who was told; nothing is open or will be."""
        self._here, self._on_settled = _nowhere, _tell_nobody

    def outstanding(self) -> bool:
        """Whether any is open that no clear has touched."""
        return bool(self._set or self._kept) or any(
            waiting[-1].epoch == self._wire_epoch for waiting in self._sent.values()
        )

    def _pop(self, name: str, waiting: deque[Checkpoint]) -> Checkpoint:
        self._n_sent -= 1
        checkpoint = waiting.popleft()
        if not waiting:
            del self._sent[name]
        return checkpoint

    def _settle(self, checkpoint: Checkpoint, outcome: Outcome, at_sample: int | None = None) -> None:
        if checkpoint.fate is None:
            return
        checkpoint.settle(outcome, self._here() if at_sample is None else at_sample, at_sample is not None)
        self._on_settled(checkpoint, outcome)
