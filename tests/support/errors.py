"""What is logged as an error during a test."""

from __future__ import annotations

import logging


class Errors(logging.Handler):
    """What was logged as an error; thousands of tracebacks are not written for it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []
        self.raised: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.raised.append(record.exc_info[1])
