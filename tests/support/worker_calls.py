"""What the worker processes of the tests run: calls that do as they are told, also the worst."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import trio

import talkpath
from talkpath.engine import Engine


async def run_call(engine: Engine, placed: talkpath.Placed) -> object:
    """Open a call, say where it is, then do what its parameters say."""
    leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", 9))
    if placed.parameters.get("do") == "fail before it is ready":
        raise KeyError("nothing to see")
    async with engine.open_call(leg) as call:
        placed.ready({"port": leg.local_address[1], "pid": os.getpid()}, call=call)
        what = placed.parameters.get("do")
        if what == "as told":
            (sock,) = placed.sockets
            await trio.lowlevel.wait_readable(sock)
            what = sock.recv(100).decode()
        await _do(placed, what)
        if "last_s" in placed.parameters:
            with trio.move_on_after(placed.parameters["last_s"]):
                return await call.wait_ended()
            call.hang_up()
        return await call.wait_ended()


async def _do(placed: talkpath.Placed, what: Any) -> None:
    control = int(sys.argv[1])
    match what:
        case "fail":
            raise KeyError("nothing to see")
        case "hang":
            time.sleep(60)  # noqa: ASYNC251 - this is what a hang is
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "talk nonsense":
            os.write(control, b"\x00\x00\x00\x04what")
        case "leave in the middle of a message":
            os.write(control, b"\x00\x00\x10\x00half of it")
            os._exit(0)
        case "echo":
            (sock,) = placed.sockets
            sock.sendall(sock.recv(100).upper())


async def stubborn(engine: Engine, placed: talkpath.Placed) -> None:
    """Be ready, and do not care who wants it over."""
    placed.ready({"pid": os.getpid()})
    with trio.CancelScope(shield=True):
        await trio.sleep(60)


def small_engine() -> talkpath.EngineConfig:
    """Options that a worker makes itself."""
    return talkpath.EngineConfig(max_calls=1, max_busy_share=None, max_lateness_ms=None)


async def bot(line: talkpath.Line) -> None:
    """Echo, and say in which process: by the name of a checkpoint."""
    line.checkpoint(f"pid-{os.getpid()}")
    async for chunk in line.listen():
        line.speak(chunk)


def serve_config() -> talkpath.ServeConfig:
    """Serve with TLS; the test has said where the certificate lies."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["TALKPATH_TEST_CERTIFICATE"])
    return talkpath.ServeConfig(tls_context=context, max_busy_share=None, max_lateness_ms=None)
