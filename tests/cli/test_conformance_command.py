"""`talkpath conformance` over loopback: what it prints, and with which status it ends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

import talkpath
from talkpath.cli import conformance, main
from talkpath.cli.echo import echo_bot
from talkpath.testing.application_checks import APPLICATION_CHECKS
from talkpath.testing.platform_checks import PLATFORM_CHECKS
from talkpath.wire.catalog import WIRES as CATALOGUE


@contextmanager
def echo() -> Iterator[str]:
    """Serve an echo in a thread; yields its address."""
    ready = threading.Event()
    found: list[tuple[str, int]] = []
    token: list[trio.lowlevel.TrioToken] = []
    stop = trio.CancelScope()

    async def serve() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with stop:
            async with trio.open_nursery() as nursery:
                # A test machine is often busy; what is judged here is not how many calls it has room for.
                config = talkpath.ServeConfig(max_lateness_ms=None, max_busy_share=None)
                found.extend(
                    await nursery.start(
                        lambda task_status: talkpath.serve_lines(
                            echo_bot, "127.0.0.1", 0, config=config, task_status=task_status
                        )
                    )
                )
                ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(20)
        yield f"ws://{found[0][0]}:{found[0][1]}"
    finally:
        token[0].run_sync_soon(stop.cancel)
        thread.join(20)


def test_the_list_has_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--list"]) == 0
    said = capsys.readouterr().out
    rules = [(check.number, check.name, check.rule) for check in APPLICATION_CHECKS]
    rules += [(check.number, check.name, check.rule) for check in PLATFORM_CHECKS]
    for number, name, rule in rules:
        assert f"{number:3d}  {name} " in said
        assert rule in said
    assert main(["conformance", "--list", "--serve"]) == 0
    assert "reads-on" not in capsys.readouterr().out


def test_every_wire_can_be_judged() -> None:
    assert set(conformance.WIRES) == set(CATALOGUE)


@pytest.mark.slow
@pytest.mark.smoke
def test_an_application_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    with echo() as url:
        words = ["conformance", url, "--wire", "twilio", "--only", "opens", "--only", "8"]
        assert main(words) == 0
        seen = capsys.readouterr()
        assert seen.out.splitlines()[0].split()[:3] == ["1", "opens", "ok"]
        assert seen.out.splitlines()[-1] == "twilio application: 2 passed, 0 failed, 0 not applicable"
        assert "8 pings: ok" in seen.err
        assert main([*words, "--only", "credentials", "--token", "abc", "--json"]) == 1
        seen = capsys.readouterr()
    report = json.loads(seen.out)
    assert [one["verdict"] for one in report["checks"]] == ["passed", "failed", "passed"]
    assert seen.err == ""


def test_no_call_is_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--serve", "--wire", "plivo", "--port", "0", "--wait", "50ms"]) == 1
    said = capsys.readouterr()
    assert "waiting for a call at ws://127.0.0.1:" in said.err
    assert said.err.endswith("talkpath conformance: no stream came within 0.05 s\n")
    assert said.out == ""


@pytest.mark.slow
@pytest.mark.smoke
def test_a_platform_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    statuses: list[int] = []
    words = ["conformance", "--serve", "--wire", "plivo", "--port", str(port), "--wait", "20s", "--quiet"]
    checker = threading.Thread(
        target=lambda: statuses.append(main([*words, "--only", "opening", "--only", "ends", "--only", "pause"]))
    )
    checker.start()

    async def place() -> talkpath.CallRecord:
        config = talkpath.EngineConfig(
            connect_attempts=20, connect_backoff_s=0.05, max_lateness_ms=None, max_busy_share=None
        )
        async with talkpath.open_engine(config) as engine, engine.open_call(talkpath.MemoryLeg()) as call:
            spec = talkpath.StreamSpec(url=f"ws://127.0.0.1:{port}", bidirectional=True, ends_call=True)
            await call.start_stream(spec)
            return await call.wait_ended()

    record = trio.run(place)
    checker.join(20)
    assert statuses == [0]
    assert record.reason is talkpath.EndReason.APPLICATION_HUNG_UP
    assert capsys.readouterr().out.endswith("plivo platform: 2 passed, 0 failed, 1 not applicable\n")
