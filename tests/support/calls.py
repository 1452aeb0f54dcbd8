"""Calls in virtual time: one with an application that a test makes misbehave, one beside it that must not notice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import trio
import trio.testing

from support.peer import Peer
from talkpath.audio import Samples
from talkpath.engine import Call, Engine, EngineConfig, Leg, MemoryLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded
from talkpath.events import CallEvent, StreamEnded
from talkpath.line import Line, serve_memory_lines
from talkpath.records import CallRecord, EngineStatistics, StreamRecord
from talkpath.testing import ToneSource, quiescence
from talkpath.transport.memory import listen_memory
from talkpath.wire.callback import CallbackRequest

T = TypeVar("T")

Application = Callable[[Peer], Awaitable[None]]
"""What an application does with one connection."""
EPOCH = 1_760_000_000.0


def in_virtual_time(work: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run `work` on a clock that jumps whenever everybody waits; fails when anything outlives it."""
    with quiescence():
        return trio.run(work, *args, clock=trio.testing.MockClock(autojump_threshold=0))


def engine(config: EngineConfig | None = None, seed: int = 1) -> Engine:
    """An engine whose every byte is repeatable."""
    return open_engine(config, entropy=random.Random(seed).randbytes, wall_clock=lambda: EPOCH)


def pool_is_whole(which: Engine) -> bool:
    """Whether every block of an engine's pool is back and no promise is open."""
    pool = which.pool.native
    return bool(pool.n_free == pool.n_blocks and pool.n_reserved == 0)


@dataclass
class Outcome:
    """What became of a call whose application misbehaved, and of the one beside it."""

    attempts: list[Peer] = field(default_factory=list)
    """The connections that were made to the application."""
    attempted_at: list[float] = field(default_factory=list)
    callbacks: list[CallbackRequest] = field(default_factory=list)
    """Status callbacks, where the stream has a `status_url`; nobody delivers them."""
    call: CallRecord | None = None
    events: list[CallEvent] = field(default_factory=list)
    heard: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    refused_to_start: CallEnded | None = None
    started_at: float | None = None
    ended_at: float | None = None
    """When the stream ended, while the call lived."""
    beside: bytes = b""
    """What the other call's caller heard."""
    engine: EngineStatistics | None = None
    pool_whole: bool = False

    @property
    def peer(self) -> Peer:
        """The application's end of the last connection."""
        return self.attempts[-1]

    @property
    def stream(self) -> StreamRecord:
        assert self.call is not None
        return self.call.streams[0]


async def _echo(line: Line) -> None:
    line.speak(ToneSource(450).take(4000), sample_rate_hz=8000)
    async for chunk in line.listen():
        line.speak(chunk)


async def _place(
    application: Application | None,
    seconds: float,
    options: dict[str, Any],
    leg: Leg,
    config: EngineConfig | None,
    during: Callable[[Call], Awaitable[None]] | None,
    answer: Application | None,
    reads: bool,
    pongs: bool,
) -> Outcome:
    outcome = Outcome()
    which = engine(config)
    if "status_url" in options:
        which.deliver = lambda request, **_: outcome.callbacks.append(request)  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, _echo, "beside")
        listener = listen_memory("application")

        async def serve() -> None:
            while True:
                peer = Peer(await listener.accept(), client=False)
                outcome.attempts.append(peer)
                outcome.attempted_at.append(trio.current_time())
                nursery.start_soon(serve_one, peer)

        async def serve_one(peer: Peer) -> None:
            try:
                if answer is not None:
                    await answer(peer)
                else:
                    await peer.upgrade_as_server()
                    if reads:
                        nursery.start_soon(partial(peer.read_all, pongs=pongs))
                if application is not None:
                    await application(peer)
            except OSError:
                pass  # The engine hung up on it in the middle, as it may.

        def note(event: CallEvent) -> None:
            outcome.events.append(event)
            if isinstance(event, StreamEnded):
                outcome.ended_at = trio.current_time()

        nursery.start_soon(serve)
        caller = MemoryLeg()
        async with which:
            async with which.open_call(caller) as beside:
                await beside.start_stream(StreamSpec(url=url, bidirectional=True))
                caller.say(ToneSource(1050).take(round((seconds + 1) * 8000)))
                async with which.open_call(leg) as call, trio.open_nursery() as watching:
                    call.on_event(note)
                    try:
                        await call.start_stream(
                            StreamSpec(**{"url": "memory://application", "bidirectional": True, **options})
                        )
                        outcome.started_at = trio.current_time()
                    except CallEnded as exc:
                        outcome.refused_to_start = exc
                    if during is not None:
                        watching.start_soon(during, call)
                    await trio.sleep_until(seconds)
                    if isinstance(leg, MemoryLeg):
                        outcome.heard = leg.heard()
                    watching.cancel_scope.cancel()
                outcome.call = call.record
                await trio.sleep_until(seconds + 1)  # the end of the one call is part of what the other must not notice
                outcome.beside = caller.heard().tobytes()
            outcome.engine = which.statistics()
            outcome.pool_whole = pool_is_whole(which)
        listener.close()
        nursery.cancel_scope.cancel()
    return outcome


def place(
    application: Application | None,
    *,
    seconds: float = 2.0,
    leg: Leg | None = None,
    config: EngineConfig | None = None,
    during: Callable[[Call], Awaitable[None]] | None = None,
    answer: Application | None = None,
    reads: bool = True,
    pongs: bool = True,
    **options: Any,
) -> Outcome:
    """Place a call to `application` until `seconds`, with another call beside it; all of it in virtual time.

    Args:
        application: what it does once upgraded; None: nothing.
        leg: the caller; a silent one in memory when None.
        during: runs beside the call, from the moment its stream was started or not.
        answer: what each connection meets before `application`; None: it is upgraded, and read in another task.
        reads: whether the application reads what it is sent.
        pongs: whether it answers pings.
        options: of the `StreamSpec`.
    """
    return in_virtual_time(
        _place, application, seconds, options, leg or MemoryLeg(), config, during, answer, reads, pongs
    )


@lru_cache
def undisturbed(seconds: float) -> bytes:
    """What the caller beside hears when the other application does nothing at all."""
    return place(None, seconds=seconds).beside


def assert_nobody_else_noticed(outcome: Outcome, seconds: float = 2.0) -> None:
    """The call beside heard what it always hears, to the sample, and every block is back."""
    assert outcome.beside == undisturbed(seconds)
    assert len(outcome.beside) == 2 * 8000 * (seconds + 1)
    assert outcome.pool_whole
