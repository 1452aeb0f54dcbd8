"""A call as the worker process sees it: what it was placed with, and how it says that it is up.

The user's function gets one of these with the worker's own engine, runs the call, and returns its record::

    async def run_call(engine, placed):
        leg = talkpath.RtpLeg(remote=tuple(placed.parameters["remote"]))
        async with engine.open_call(leg) as call:
            placed.ready({"rtp": call.leg.local_address}, call=call)
            await call.start_stream(talkpath.StreamSpec(url=placed.parameters["url"], bidirectional=True))
            return await call.wait_ended()

*How it ends.* The front hangs up, or the worker's drain comes to its deadline: the call that `ready` was given is ended
with that reason, and the function has `goodbye_s` to return before it is cancelled; without a call, or before `ready`,
it is cancelled at once.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol

import trio

from talkpath.engine.config import EngineConfig
from talkpath.engine.engine import Engine, open_engine
from talkpath.engine.travel import made_by, named
from talkpath.errors import ConfigError
from talkpath.records import EndReason

Ports = tuple[int, int]


class Endable(Protocol):
    """A `Call` or a `Line`."""

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None: ...


class Placed:
    """One call in the worker that carries it; made by the worker."""

    def __init__(
        self,
        number: int,
        parameters: Mapping[str, Any],
        sockets: tuple[socket.socket, ...],
        tell_ready: Callable[[int, dict[str, Any]], None],
        goodbye_s: float,
    ) -> None:
        self.number = number
        self.parameters = parameters
        """What `Workers.place` was given."""
        self.sockets = sockets
        """What it passed on. The function may close them; what it leaves open is closed after it."""
        self.scope = trio.CancelScope()
        """The function runs in it."""
        self.end_reason: EndReason | None = None
        """What it was told to end for, if it was."""
        self._tell_ready = tell_ready
        self._goodbye_s = goodbye_s
        self.is_ready = False
        """Whether `ready` was called."""
        self._call: Endable | None = None

    def ready(self, answer: Mapping[str, Any] | None = None, *, call: Endable | None = None) -> None:
        """Say that the call is up: `Workers.place` returns with `answer`.

        Args:
            answer: plain values, at most 64 KiB: for example the local RTP address, for the SDP.
            call: what a hang-up, or a drain, ends; without it the function is cancelled.

        Raises:
            ConfigError: said before, or the answer cannot travel.
        """
        if self.is_ready:
            raise ConfigError("a placed call is ready once")
        self._tell_ready(self.number, dict(answer or {}))
        self.is_ready = True
        self._call = call

    def end(self, reason: EndReason) -> None:
        """End the call; for the worker."""
        self.end_reason = self.end_reason or reason
        if self._call is None:
            self.scope.cancel()
            return
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + self._goodbye_s)
        self._call.end(self.end_reason)


class Service(Protocol):
    """What a worker runs: entered once, then run for each placed call, many at a time."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> object: ...

    async def run(self, placed: Placed) -> object:
        """Live a call's life. -> a `CallRecord` or the like, a mapping of plain values, or None"""
        ...

    def statistics(self) -> Mapping[str, Any]:
        """Return plain values, for the worker's reports."""
        ...


RunCall = Callable[[Engine, Placed], Awaitable[object]]


class EngineCalls:
    """The service of `open_workers`: one engine, and the user's function for each call.

    Args:
        options: ``target``, the function's name; ``engine``, options or the name of what makes them.
        ports: for the RTP legs of this worker alone.

    Raises:
        ConfigError: the function cannot be imported, or the options are wrong.
    """

    def __init__(self, options: Mapping[str, Any], ports: Ports | None) -> None:
        self._run_call: RunCall = named("the target", options["target"])
        config = made_by("engine", options["engine"], EngineConfig)
        if ports is not None:
            config = dataclasses.replace(config, port_range=ports)
        self._engine = open_engine(config)

    async def __aenter__(self) -> EngineCalls:
        await self._engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.__aexit__(kind, exc, trace)

    async def run(self, placed: Placed) -> object:
        return await self._run_call(self._engine, placed)

    def statistics(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self._engine.statistics())
