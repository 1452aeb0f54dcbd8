"""What a line asks its platform, and the answers, which come in the order of the questions."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping

import trio

from talkpath.errors import PlayoutFull

MAX_QUESTIONS = 64
"""Asked and unanswered; a platform that never answers costs no more."""
ANSWER_S = 5.0
_DIGITS = re.compile(r"[0-9]{3,}")


class Question:
    """One that was asked; `answer` is None until it is answered, and for ever when the line ends first."""

    __slots__ = ("answer", "settled")

    def __init__(self) -> None:
        self.answer: Mapping[str, int] | None = None
        self.settled = trio.Event()


class Questions:
    """Those of one line that are unanswered, oldest first."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: deque[Question] = deque()

    def ask(self) -> Question:
        """Return a new question. One that nobody waits for any more keeps its place: its answer still comes.

        Raises:
            PlayoutFull: 64 are unanswered.
        """
        if len(self._open) >= MAX_QUESTIONS:
            raise PlayoutFull(f"{MAX_QUESTIONS} questions to the platform are unanswered")
        question = Question()
        self._open.append(question)
        return question

    def withdraw(self, question: Question) -> None:
        """It was never sent."""
        self._open.remove(question)

    def answer(self, counters: Mapping[str, int]) -> bool:
        """The platform answers; False when nobody asked."""
        if not self._open:
            return False
        question = self._open.popleft()
        question.answer = counters
        question.settled.set()
        return True

    def give_up(self) -> None:
        """The line is over."""
        for question in self._open:
            question.settled.set()
        self._open.clear()


def speakable(message: str) -> str:
    """A peer's words as they may be logged: short, printable, and without anything that could be a number."""
    return _DIGITS.sub("...", "".join(c if c.isprintable() else "?" for c in message[:80]))
