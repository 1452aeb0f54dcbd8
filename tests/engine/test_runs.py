"""Trio runs in one process: after one another, side by side in threads, and one that breaks up."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from support.hand import PATIENCE_S, drain, new_caller, options, rtp
from talkpath.dsp.g711 import pcmu_decode
from talkpath.engine import Call, Engine, EngineConfig, RtpLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded
from talkpath.line import Line, ServeConfig, serve_lines
from talkpath.records import EndReason
from talkpath.testing import quiescence
from talkpath.transport.clock import DEFAULT_DRIVER, has_timerfd
from talkpath.transport.pump import ring_refusal

N_CALLS = 4
FRAME = 160
WORDS = 50 * FRAME


async def say(caller: socket.socket, to: tuple[str, int]) -> None:
    """Say something every 20 ms."""
    for number in range(1 << 16):
        caller.sendto(rtp(number, number * FRAME, bytes([number & 0x7F]) * FRAME), to)
        await trio.sleep(0.02)


async def hear(engine: Engine, url: str, words: bytes) -> None:
    """Be a caller who speaks until the bot has answered, with these words."""
    with new_caller() as caller:
        leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname())
        async with engine.open_call(leg) as call, trio.open_nursery() as nursery:
            await call.start_stream(StreamSpec(url=url, bidirectional=True))
            nursery.start_soon(say, caller, call.leg.local_address)
            heard = b""
            while words not in heard:
                await trio.lowlevel.wait_readable(caller)
                heard += b"".join(packet[12:] for packet in drain(caller))
            nursery.cancel_scope.cancel()


async def one_run(config: EngineConfig, seed: int, together: Callable[[], Any] = lambda: None) -> None:
    """Both ends of some calls, on one clock; as it begins and before it ends, `together` is called in a thread."""
    words = random.Random(seed).randbytes(WORDS).replace(b"\x7f", b"\xff")  # the other zero, which is never written

    async def answer(line: Line) -> None:
        async for _ in line.listen():
            await line.play(pcmu_decode(words), sample_rate_hz=8000)

    unhurried = ServeConfig(max_busy_share=None, max_lateness_ms=None)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            ((_, port),) = await nursery.start(partial(serve_lines, answer, "127.0.0.1", 0, config=unhurried))
            async with open_engine(config) as engine:
                await trio.to_thread.run_sync(together)
                async with trio.open_nursery() as callers:
                    for _ in range(N_CALLS):
                        callers.start_soon(hear, engine, f"ws://127.0.0.1:{port}/", words)
                if config.driver == "pump":
                    driver: Any = engine.driver
                    assert driver.has_ring == (ring_refusal() is None)
                await trio.to_thread.run_sync(together)
            nursery.cancel_scope.cancel()


def test_a_second_run_of_a_thread_is_as_good_as_its_first() -> None:
    for seed in range(3):
        with quiescence():
            trio.run(one_run, options(), seed)


@pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")
@pytest.mark.parametrize("media_thread", [False, True], ids=["two pumps", "one with a media thread"])
def test_runs_in_two_threads_do_not_disturb_each_other(media_thread: bool) -> None:
    together = threading.Barrier(2)
    failures: list[BaseException] = []

    def run(config: EngineConfig, seed: int) -> None:
        try:
            for round_ in range(2):
                trio.run(one_run, config, seed + round_, partial(together.wait, PATIENCE_S))
                gc.collect()  # what the other run has left is given back in this thread as well
        except BaseException as exc:
            failures.append(exc)
            together.abort()

    with quiescence():
        threads = [
            threading.Thread(target=run, args=(options(), 10)),
            threading.Thread(target=run, args=(options(media_thread=media_thread), 20)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for failure in failures:
        raise failure


@pytest.mark.parametrize("config", [options(driver="tasks"), options(), options(media_thread=DEFAULT_DRIVER == "pump")])
@pytest.mark.parametrize("shielded", [False, True])
def test_a_run_that_breaks_up_ends_its_calls_and_leaves_nothing(config: EngineConfig, shielded: bool) -> None:
    """A system task that raises takes all others with it, the clock too, and perhaps before those who need it."""
    ended: list[EndReason | None] = []

    async def crash() -> None:
        await trio.sleep(0.05)
        raise ZeroDivisionError

    async def wait_ended(call: Call) -> None:
        with trio.CancelScope(shield=shielded), trio.fail_after(PATIENCE_S):
            ended.append((await call.wait_ended()).reason)

    async def run() -> None:
        with new_caller() as caller:
            leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname())
            async with open_engine(config) as engine, engine.open_call(leg) as call:
                trio.lowlevel.spawn_system_task(crash)
                try:
                    if shielded:
                        await wait_ended(call)
                    await trio.sleep_forever()
                finally:
                    if shielded:
                        with pytest.raises(CallEnded):
                            await call.start_stream(StreamSpec(url="ws://127.0.0.1:9/"))

    with quiescence(), pytest.raises(trio.TrioInternalError) as caught:
        trio.run(run)
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert caught.value.__cause__.subgroup(ZeroDivisionError) is not None
    assert ended == [EndReason.INTERNAL_ERROR] * shielded


@pytest.mark.smoke
@pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")
def test_what_the_handler_of_a_signal_raises_ends_the_run() -> None:
    """Nearly always it is raised while the pump stays, out of Trio's sight."""
    program = """
        import os, signal, sys, threading
        import trio
        from support.hand import new_caller, options
        from talkpath.engine import RtpLeg, open_engine

        async def run():
            leg = RtpLeg(local=("127.0.0.1", 0), remote=new_caller().getsockname())
            async with open_engine(options()) as engine, engine.open_call(leg):
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
                await trio.sleep(20)
            print("it was not heard")

        signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to go"))
        trio.run(run)
        print("it was not heard")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == ""
    assert ran.returncode not in (0, -signal.SIGSEGV)
    assert "asked to go" in ran.stderr
