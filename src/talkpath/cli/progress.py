"""Live progress on stderr: one line that changes on a terminal, one line a second elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self, TextIO

_BAR_DB = 45


class Progress:
    """Shows where a call is. Blocking writes to stderr only; a reader that has gone is forgotten, not an error."""

    def __init__(self, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._out.isatty()
        self._shown_second = -1
        self._width = 0

    def show(self, elapsed_ms: int, text: str) -> None:
        """Show the present state; call it as often as you like."""
        if self._quiet:
            return
        if self._live:
            line = f"{elapsed_ms / 1000:6.1f} s  {text}"
            self._write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif elapsed_ms // 1000 != self._shown_second:
            self._shown_second = elapsed_ms // 1000
            self._write(f"{self._shown_second:4d} s  {text}\n")

    def say(self, elapsed_ms: int, text: str) -> None:
        """Show something that happened; it stays."""
        if self._quiet:
            return
        self._wipe()
        self._write(f"{elapsed_ms / 1000:6.1f} s  {text}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._wipe()

    def _wipe(self) -> None:
        if self._live and self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self._quiet = True


def meter(level_dbov: float, cells: int = 12) -> str:
    """Draw a level from -45 to 0 dBov as a bar."""
    filled = round(max(0.0, min(1.0, 1 + level_dbov / _BAR_DB)) * cells)
    return "#" * filled + "." * (cells - filled)
