"""A test's other program: started, spoken to by lines of JSON on its stdout, gone when the block is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio


class Program:
    """A live one; `said` grows as it speaks."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._spoke = trio.Event()

    async def read(self) -> None:
        rest = b""
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self.said += [json.loads(line) for line in lines]
            self._spoke.set()
            self._spoke = trio.Event()

    def all(self, what: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["what"] == what]

    async def wait_for(self, what: str, count: int = 1) -> dict[str, Any]:
        """Return the `count`-th thing of a kind that it says."""
        while len(found := self.all(what)) < count:
            await self._spoke.wait()
        return found[count - 1]


@asynccontextmanager
async def running(script: str, *arguments: str, within_s: float = 20) -> AsyncIterator[Program]:
    """Run a script of this directory with our interpreter; at the end its stdin closes, and it must go by itself."""
    # -P: the modules beside the script are not the program's own.
    command = [sys.executable, "-P", str(Path(__file__).parent / script), *arguments]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, capture_stdout=False)
        process: trio.Process = await nursery.start(start)
        program = Program(process)
        nursery.start_soon(program.read)
        with trio.fail_after(within_s):
            yield program
            assert process.stdin is not None
            await process.stdin.aclose()
