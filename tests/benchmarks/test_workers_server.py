"""The benchmark's server on worker processes obeys the harness; figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

import talkpath

ROOT = Path(__file__).resolve().parent.parent.parent


async def bot(line: talkpath.Line) -> None:
    await line.wait_ended()


@pytest.mark.slow
@pytest.mark.smoke
async def test_it_opens_calls_on_both_workers_and_counts_them_together() -> None:
    command = [sys.executable, "-m", "benchmarks.workers_server", "--workers", "2"]
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            ((_, ws_port),) = await nursery.start(talkpath.serve_lines, bot, "127.0.0.1", 0)
            process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
            assert process.stdin is not None
            assert process.stdout is not None

            async def ask(**order: Any) -> dict[str, Any]:
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdin.send_all(json.dumps(order).encode() + b"\n")
                said = b""
                while not said.endswith(b"\n"):
                    said += await process.stdout.receive_some()
                answer: dict[str, Any] = json.loads(said)
                return answer

            opened = await ask(do="open", ws_port=ws_port, first=0, rtp_ports=[40_000, 40_002, 40_004, 40_006])
            assert len(set(opened["rtp_ports"])) == 4
            design = (await ask(do="mark"))["design"]
            assert [one["calls"] for one in design["workers"]] == [2, 2]
            assert design["live"] == 4
            assert design["cpu_s"] > sum(one["cpu_s"] for one in design["workers"]) > 0
            await process.stdin.send_all(b'{"do": "stop"}\n')
            assert await process.wait() == 0
            await process.stdin.aclose()
            await process.stdout.aclose()
            nursery.cancel_scope.cancel()
