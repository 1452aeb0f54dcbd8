"""``talkpath echo``: an application to call, which says back what it hears."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import TYPE_CHECKING, Any

from talkpath.cli import values
from talkpath.errors import PlayoutFull

if TYPE_CHECKING:
    from talkpath.line import Line

_EPILOG = """\
Every second of audio is followed by a checkpoint, `second-1` and so on. When more than a second waits to be played
back, what waits is cleared: an echo that lags is no use to anybody.

Every wire there is, is recognised, on every port: FreeClimb's gRPC too, for which there is a second port as well.

With --workers the calls are spread over that many processes. SIGTERM and Ctrl-C then let live calls finish, for at most
--drain; a second signal ends them.

examples:
  talkpath echo --port 8080
  talkpath echo --workers 0                                as many processes as there are cores
  talkpath echo --port 8080 --grpc-port 50051
  talkpath call ws://127.0.0.1:8080 --play caller.wav --record heard.wav
"""


_NEXT = -1
"""The port after ``--port``, if it is free."""


def _grpc_port(text: str) -> int | None:
    return None if text == "none" else values.port(text) or None


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "echo",
        help="serve an echo to call",
        description="Serve an application that echoes what it hears.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=values.port, default=8080, metavar="N", help="TCP port; 0 lets the system choose (8080)"
    )
    parser.add_argument(
        "--grpc-port",
        type=_grpc_port,
        default=_NEXT,
        metavar="N",
        help="a second port, for gRPC; 0 or none: no such port (the port after --port)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind (127.0.0.1); calls from elsewhere need --open"
    )
    parser.add_argument(
        "--open", action="store_true", help="serve without authentication on an address that others can reach"
    )
    parser.add_argument(
        "--workers",
        type=values.workers,
        metavar="N",
        help="processes that share the calls; 0: one for each core (all calls in this process)",
    )
    parser.add_argument(
        "--drain",
        type=values.duration_ms,
        default=30_000,
        metavar="TIME",
        help="with --workers: for live calls, when it is told to stop (30s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from talkpath.cli.runs import run_bare

    serve = _serve if options.workers is None else _serve_on_workers
    grpc_port: int | None = options.grpc_port
    if grpc_port == _NEXT:
        grpc_port = 0 if options.port == 0 else options.port + 1 if options.port < 65_535 else None
    try:
        try:
            run_bare(serve, options, grpc_port)
        except OSError:
            if options.grpc_port != _NEXT or grpc_port is None:
                raise
            # Nobody asked for it, and the first port speaks gRPC, too.
            run_bare(serve, options, None)
    except OSError as error:
        ports = f"port {options.port}" + (f" and {grpc_port}" if options.grpc_port not in (_NEXT, None) else "")
        where = f"{options.host} {ports}"
        print(f"talkpath echo: cannot listen on {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace, grpc_port: int | None) -> None:
    import trio

    from talkpath.cli.runs import on_interrupt
    from talkpath.line import ServeConfig, serve_lines

    serve = functools.partial(
        serve_lines,
        echo_bot,
        options.host,
        options.port,
        grpc_port=grpc_port,
        config=ServeConfig(allow_unauthenticated=options.open),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(on_interrupt, nursery.cancel_scope.cancel)
        _announce(await nursery.start(serve))


async def _serve_on_workers(options: argparse.Namespace, grpc_port: int | None) -> None:
    import trio

    from talkpath.engine import WorkersConfig
    from talkpath.line import ServeConfig, serve_lines_on_workers

    serve = functools.partial(
        serve_lines_on_workers,
        "talkpath.cli.echo:echo_bot",
        options.host,
        options.port,
        grpc_port=grpc_port,
        config=ServeConfig(allow_unauthenticated=options.open),
        workers=WorkersConfig(count=options.workers, drain_s=options.drain / 1000),
        drain_s=options.drain / 1000,
    )
    async with trio.open_nursery() as nursery:
        _announce(await nursery.start(serve))


def _announce(addresses: list[tuple[str, int]]) -> None:
    for host, port in addresses:
        shown = f"[{host}]" if ":" in host else host
        # All addresses of the first port have its number; the second port is another.
        scheme = "ws" if port == addresses[0][1] else "http"
        print(f"talkpath echo: {scheme}://{shown}:{port}", flush=True)


async def echo_bot(line: Line) -> None:
    """Say back what is heard, with a checkpoint after each second of it."""
    n_samples = n_seconds = 0
    previous = None
    async for chunk in line.listen():
        try:
            line.speak(chunk)
        except PlayoutFull:
            await line.clear()
            continue
        n_samples += len(chunk.samples)
        if n_samples < (n_seconds + 1) * chunk.sample_rate_hz:
            continue
        n_seconds += 1
        if previous is not None and previous.outcome is None:
            await line.clear()
        previous = line.checkpoint(f"second-{n_seconds}")
