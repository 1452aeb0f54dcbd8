"""A virtual call is repeatable to the byte, whatever order Trio runs its tasks in.

Both ends in one run over memory links: digits, checkpoints, clears, two streams, bots that sleep and play, a caller
who speaks. What is compared over repeated runs, and over seeds of Trio's shuffling: the event log, all bytes on the
wires in the order of their sending, and every sample the caller heard.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import settings

from support.virtual import run_virtually, speech, virtual_engine
from talkpath.audio import AudioClip, Samples
from talkpath.engine.call import Call
from talkpath.engine.config import StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.errors import CallEnded
from talkpath.line.line import Line
from talkpath.line.serve import serve_memory_lines
from talkpath.path.barge_in import EnergyGate
from talkpath.testing import ToneSource
from talkpath.transport.memory import MemoryLink


@dataclass
class Trace:
    """Everything that can be seen of a run."""

    log: list[str] = field(default_factory=list)
    wires: dict[MemoryLink, list[bytes]] = field(default_factory=dict)
    """By the end of a link that sent it: every frame's bytes, each time with the moment."""
    heard: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    record: str = ""

    @property
    def n_wire_bytes(self) -> int:
        return sum(len(piece) for pieces in self.wires.values() for piece in pieces)

    @property
    def digests(self) -> tuple[str, ...]:
        heard = hashlib.sha256(self.heard.tobytes()).hexdigest()
        return heard, self.record, *(hashlib.sha256(b"".join(pieces)).hexdigest() for pieces in self.wires.values())


@contextmanager
def wire_tap(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note every byte that any memory link takes, and when, from the upgrade's end on: its key is wsproto's own."""
    send = MemoryLink.send

    def tapped(link: MemoryLink, data: Any) -> int:
        n = send(link, data)
        if link in trace.wires:
            trace.wires[link] += [f"{trio.current_time()!r} ".encode(), bytes(data[:n])]
        elif bytes(data[:n]).endswith(b"\r\n\r\n"):
            trace.wires[link] = []
        return n

    with monkeypatch.context() as patched:
        patched.setattr(MemoryLink, "send", tapped)
        yield


# Both ends' programs. Two tasks of one program that speak at one instant are the program's own race: these do not.


async def echo(line: Line) -> None:
    """Echo what is heard, with a checkpoint each second; greet first; be interrupted."""
    line.barge_in(EnergyGate(threshold_dbov=-20, speech_ms=60, hangover_ms=200))
    line.speak(speech(4000, seed=1), sample_rate_hz=16000)
    async with trio.open_nursery() as nursery:

        async def keys() -> None:
            async for digit in line.digits():
                await trio.sleep(0.013)
                with suppress(CallEnded):
                    await line.send_digits(digit)

        nursery.start_soon(keys)
        n = itertools.count()
        async for chunk in line.listen(chunk_ms=60):
            line.speak(chunk)
            if next(n) % 17 == 0:
                line.checkpoint("second")
        nursery.cancel_scope.cancel()


async def reader(line: Line) -> None:
    """Sleep, play what a synthesiser gives, clear in the middle of it, wait for checkpoints."""

    async def synthesiser(n: int) -> AsyncIterator[Samples]:
        for index in range(n):
            await trio.sleep(0.11)
            yield speech(2400, seed=index)

    for n in itertools.count(1):
        played = await line.play(synthesiser(n % 5), sample_rate_hz=24000)
        if line.ended:
            return
        line.speak(ToneSource(300).take(1600 * (n % 3)), sample_rate_hz=8000)
        mark = line.checkpoint(f"{n}:{played.reason}")
        await trio.sleep(0.05 * (n % 4))
        if n % 3 == 0:
            with suppress(CallEnded):
                await line.clear()
        await mark.wait()


async def converse(call: Call, leg: MemoryLeg, seconds: float) -> None:
    for name in ("echo", "reader"):
        await call.start_stream(StreamSpec(url=f"memory://{name}", bidirectional=True, control_id=name))
    chance = random.Random(9)
    begin = trio.current_time()
    while trio.current_time() - begin < seconds:
        leg.say(ToneSource(450).take(chance.choice([800, 2400, 4000])))
        await trio.sleep(chance.choice([0.3, 0.777, 1.0]))
        leg.press(chance.choice("0123456789*#"))
        if chance.random() < 0.3:
            await call.play(AudioClip(ToneSource(1000).take(chance.choice([160, 1111])), 8000))
    await call.stop_stream("echo")
    await trio.sleep(0.25)


async def a_call(seconds: float, trace: Trace) -> None:
    async with trio.open_nursery() as nursery:
        for name, bot in (("echo", echo), ("reader", reader)):
            await nursery.start(partial(serve_memory_lines, bot, name, entropy=random.Random(name).randbytes))
        async with virtual_engine() as engine:
            engine.driver.journal = lambda now_ns, slot, kind, facts: trace.log.append(
                f"{now_ns} {slot} {kind} {facts}"
            )
            leg = MemoryLeg()
            async with engine.open_call(leg) as call:
                await converse(call, leg, seconds)
            trace.record = repr(await call.wait_ended())
            trace.heard = leg.heard()
            await trio.sleep(10)
        nursery.cancel_scope.cancel()


def trace_of(seconds: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> Trace:
    trace = Trace()
    with wire_tap(trace, monkeypatch):
        run_virtually(a_call, seconds, trace, seed=seed)
    return trace


def assert_repeatable(seconds: float, seeds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (trace_of(seconds, seed, monkeypatch) for seed in seeds)
    for other in others:
        assert other.log == first.log
        assert other.digests == first.digests
    # It was a call worth comparing.
    kinds = {line.split(" ", 3)[2] for line in first.log}
    assert {
        "StreamUp",
        "DigitReceived",
        "MarkSettled",
        "SourceCleared",
        "StreamEnded",
        "barge-in",
        "clear",
        "mark",
    } <= kinds
    assert {outcome for outcome in ("PLAYED", "CLEARED", "LOST") if f"'{outcome}'" in str(first.log)} >= {
        "PLAYED",
        "CLEARED",
    }
    assert len(first.wires) == 4
    assert first.n_wire_bytes > 1000 * seconds
    assert len(first.heard) >= 8000 * seconds
    assert np.count_nonzero(first.heard) > 2000 * seconds


def test_a_minute_is_the_same_in_every_run_and_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_repeatable(60, [0, 0, 1], monkeypatch)


def test_the_beginning_is_the_same_in_many_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_repeatable(6, list(range(12)), monkeypatch)


@pytest.mark.slow
@pytest.mark.skipif(settings.get_current_profile_name() != "thorough", reason="half a minute: in the thorough profile")
def test_ten_minutes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_repeatable(600, [3, 4], monkeypatch)


def test_other_entropy_makes_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared above depends on what it should."""
    one = trace_of(3, 0, monkeypatch)
    monkeypatch.setattr("support.virtual.EPOCH_S", 1.0)
    assert trace_of(3, 0, monkeypatch).digests[2:] != one.digests[2:]
