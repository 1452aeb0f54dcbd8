"""Serve lines on many cores: the front accepts, the least loaded worker process does everything else.

The problem: kernels spread connections over listening processes by a hash, not by load, and a process that is behind
gets as many as one that is idle. The choice: one process accepts and passes each socket, before a byte of it has been
read, to the worker that has least to do; TLS, the upgrade, the wire and the bot are that worker's. The front's cost is
one accept and one message a call.

A worker that goes (drained, restarted, lost) takes its own lines with it and nobody else's; connections that wait in
the listen queue meanwhile are served by the others. Lines that a drain has to end are closed with 1001.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import trio

from talkpath.engine.placed import Placed, Ports
from talkpath.engine.travel import check_name, made_by, named, to_travel
from talkpath.engine.worker_process import PlacedCall, PlacedRecord
from talkpath.engine.workers import Workers, WorkersConfig, WorkersStatistics
from talkpath.errors import CallEnded, ConfigError
from talkpath.line.accepting import Door, Visit, bind_sockets
from talkpath.line.arrival import serve_link
from talkpath.line.config import LineRecord, ServeConfig
from talkpath.line.serve import LineServer
from talkpath.records import EndReason
from talkpath.transport.clock import Clock, open_clock
from talkpath.transport.link import SocketLink
from talkpath.transport.signals import run_until_signalled

log = logging.getLogger("talkpath.line.workers")

_PLACE_MARGIN_S = 5.0


class Lines:
    """What a worker runs for `LineWorkers`: one server, and a bot on each socket that is passed on.

    Raises:
        ConfigError: the bot cannot be imported, or the options are wrong.
    """

    def __init__(self, options: Mapping[str, Any], ports: Ports | None) -> None:
        self._bot = named("the bot", options["bot"])
        self._wire: str | None = options["wire"]
        self._config = made_by("config", options["config"], ServeConfig)
        self._server: LineServer | None = None
        self._clock_manager: AbstractAsyncContextManager[Clock] = open_clock()

    async def __aenter__(self) -> Lines:
        clock = await self._clock_manager.__aenter__()
        self._server = LineServer(self._bot, self._wire, self._config, clock, os.urandom)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._clock_manager.__aexit__(None, None, None)

    async def run(self, placed: Placed) -> LineRecord:
        """Serve one connection; the front has its answer when the line is open."""
        assert self._server is not None
        (sock,) = placed.sockets
        record = await serve_link(self._server, SocketLink(sock), None, lambda line: placed.ready())
        if record is None:
            raise CallEnded(EndReason.HANDSHAKE_REFUSED)
        return record

    def statistics(self) -> Mapping[str, Any]:
        return {"lines": self._server.lines if self._server is not None else 0}


class LineWorkers:
    """A live server; entered with ``async with open_line_workers(...) as server``."""

    def __init__(self, workers: Workers, host: str, ports: tuple[int, ...], config: ServeConfig) -> None:
        self.workers = workers
        self.addresses: list[tuple[str, int]] = []
        """Bound, with their actual ports."""
        self._host = host
        self._ports = ports
        self._config = config
        self._door = Door(config)
        self._sockets: list[trio.socket.SocketType] = []
        self._accepting = trio.CancelScope()
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> LineWorkers:
        """Listen, start the workers, accept; return when all of them serve.

        Raises:
            ConfigError: an address other than loopback without a way to know who connects (see `ServeConfig`), or a
                worker cannot begin; says why.
            OSError: the address cannot be bound.

        Cancellation: nothing remains.
        """
        if self._manager is not None:
            raise ConfigError("a server can be entered once; open another with open_line_workers()")
        self._manager = trio.open_nursery()
        self._sockets = await bind_sockets(self._host, self._ports, self._config)
        try:
            await self.workers.__aenter__()
        except BaseException:
            self._stop_listening()
            raise
        nursery = await self._manager.__aenter__()
        self.addresses = [(str(name[0]), int(name[1])) for name in (sock.getsockname() for sock in self._sockets)]
        nursery.start_soon(self._accept)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop accepting; close the lines that are left with 1001; wait until no worker is left."""
        assert self._manager is not None
        self._accepting.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        finally:
            await self.workers.__aexit__(kind, exc, trace)

    def _stop_listening(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def _accept(self) -> None:
        try:
            async with trio.open_nursery() as watching:
                async with trio.open_nursery() as placing:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:

                            async def place(sock: socket.socket, visit: Visit) -> None:
                                await self._place(sock, visit, watching)

                            for sock in self._sockets:
                                accepting.start_soon(self._door.accept, sock, place, placing)
                    self._stop_listening()
                watching.cancel_scope.cancel()
        finally:
            self._stop_listening()

    async def _place(self, sock: socket.socket, visit: Visit, watching: trio.Nursery) -> None:
        placed: PlacedCall | None = None
        try:
            with sock:
                placed = await self.workers.place(sockets=(sock,))
        except CallEnded as ended:
            level = logging.WARNING if ended.reason is EndReason.NO_CAPACITY else logging.INFO
            log.log(level, "a connection was not served: %s", ended.reason.value)
        finally:
            visit.settled()
            if placed is not None and self._config.max_connections_per_address:
                watching.start_soon(self._watch, placed, visit)
            else:
                visit.left()

    async def _watch(self, placed: PlacedCall, visit: Visit) -> None:
        """Count a connection while it lives."""
        try:
            await placed.wait_ended()
        finally:
            visit.left()

    async def drain(self, deadline_s: float) -> list[PlacedRecord]:
        """Stop accepting; wait until the live lines are over, at most `deadline_s`, then end them; end the workers.

        Returns:
            Records of the lines that had to be ended.

        Cancellation: nothing is accepted; the workers drain on, within their deadline.
        """
        self._accepting.cancel()
        self._stop_listening()
        return await self.workers.drain(deadline_s)

    async def restart(self, deadline_s: float) -> None:
        """Replace the workers by new processes, one after the other; see `Workers.restart`."""
        await self.workers.restart(deadline_s)

    def statistics(self) -> WorkersStatistics:
        """Return a snapshot; calls are lines here."""
        return self.workers.statistics()


def open_line_workers(
    bot: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    grpc_port: int | None = None,
    wire: str | None = None,
    config: ServeConfig | str | None = None,
    workers: WorkersConfig | None = None,
) -> LineWorkers:
    """Serve lines on worker processes: ``async with open_line_workers("package.module:bot") as server``.

    Args:
        bot: the name of ``async def bot(line)``, which each worker imports.
        host, port, grpc_port: where to listen, as `serve_lines`.
        wire: its name; None recognises it.
        config: options, where `max_lines` is a worker's, and so is `max_connections_per_address` behind `proxies`; or,
            for those that cannot travel (a TLS context, a hook),
            ``"package.module:function"``: it makes the options in each worker, and here too, for the listening.
        workers: how many, and how they are looked after; its `engine` and `port_range` are not used.

    Raises:
        ConfigError: a value that cannot be; or, on entering, see `LineWorkers`.
    """
    config = config if config is not None else ServeConfig()
    options = {
        "bot": check_name("the bot", bot),
        "wire": wire,
        "config": to_travel("config", config, ServeConfig),
    }
    here = config if isinstance(config, ServeConfig) else made_by("config", config, ServeConfig)
    ports = (port,) if grpc_port is None else (port, grpc_port)
    settings = workers or WorkersConfig()
    settings = dataclasses.replace(settings, place_s=max(settings.place_s, here.handshake_s + _PLACE_MARGIN_S))
    return LineWorkers(Workers("talkpath.line.workers:Lines", options, settings), host, ports, here)


async def serve_lines_on_workers(
    bot: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    grpc_port: int | None = None,
    wire: str | None = None,
    config: ServeConfig | str | None = None,
    workers: WorkersConfig | None = None,
    drain_s: float = 60.0,
    task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a server program: accept, pass on, and at SIGTERM or SIGINT drain and return; a second signal forces it.

    Args:
        drain_s: for the live lines, after the first signal.
        task_status: readiness; its value is the list of bound addresses.

    As `open_line_workers` in everything else. To be called in the main thread.

    Cancellation: lines are closed with 1001, nothing remains.
    """
    async with (
        open_line_workers(bot, host, port, grpc_port=grpc_port, wire=wire, config=config, workers=workers) as server,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(run_until_signalled, server, drain_s)
        task_status.started(server.addresses)
