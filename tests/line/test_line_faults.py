"""Whatever a platform does to one line on the pump, the line beside it is whole to the byte, and nothing is left over.

Real sockets, and steps taken by hand (see `support.hand`).
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import pytest
import trio
import trio.testing

from support.frames import PING, TEXT, frame, take_frame
from support.hand import (
    PATIENCE_S,
    STEP_NS,
    STEPS_OF_PTIME,
    HandClock,
    accept_stream,
    all_there,
    assert_nothing_is_left,
    drain,
    hand_clock,
    own_listener,
    url_of,
)
from talkpath.audio import AudioChunk
from talkpath.dsp import pcmu_decode
from talkpath.line import Line, LineConfig, connect_line
from talkpath.records import EndReason
from talkpath.testing import quiescence
from talkpath.transport.clock import has_timerfd

pytestmark = pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")

STEPS_A_SECOND = 200
SPEECH_MAX = 32 * 1024


def start() -> bytes:
    opening = {
        "callId": "22b5d9e8-9f8c-4c63-a5a8-1a2f5c2f0e11",
        "streamId": "b77e037d-4119-44b5-902d-25826b654539",
        "accountId": "MA00000000000000TEST",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    }
    message = {"event": "start", "sequenceNumber": 0, "start": opening, "extra_headers": "{}"}
    return frame(TEXT, json.dumps(message).encode())


def media(payload: bytes) -> bytes:
    body = {"track": "inbound", "payload": base64.b64encode(payload).decode()}
    return frame(TEXT, json.dumps({"event": "media", "media": body, "extra_headers": "{}"}).encode())


class Held:
    """A line, and the platform's end of it."""

    def __init__(self, line: Line, platform: socket.socket, done: trio.Event, gone: trio.Event) -> None:
        self.line = line
        self.platform = platform
        self.done = done
        self.gone = gone
        self.reads = True
        self.says: Callable[[int], bytes] = lambda step: b""
        self.unsent = b""
        self.written: list[tuple[int, bytes]] = []
        self.heard = b""
        line.on_audio(self._hear)

    def _hear(self, chunk: AudioChunk) -> None:
        payload = chunk.payload  # type: ignore[attr-defined]
        self.heard += payload

    def speak(self, step: int) -> None:
        self.unsent += self.says(step)
        while self.unsent:
            try:
                self.unsent = self.unsent[self.platform.send(self.unsent) :]
            except BlockingIOError:
                return
            except OSError:
                self.unsent = b""

    def read(self, step: int) -> None:
        data = b"".join(drain(self.platform)) if self.reads else b""
        if data:
            self.written.append((step, data))

    def audio(self) -> bytes:
        """What the platform was sent to play."""
        waiting = bytearray(b"".join(data for _, data in self.written))
        found = []
        while (one := take_frame(waiting)) is not None:
            message = json.loads(one.payload) if one.opcode == TEXT else {}
            if message.get("event") == "playAudio":
                found.append(base64.b64decode(message["media"]["payload"]))
        return b"".join(found)


class Bench:
    def __init__(self, clock: HandClock, nursery: trio.Nursery, listener: trio.SocketListener) -> None:
        self.clock = clock
        self.nursery = nursery
        self.listener = listener
        self.lines: list[Held] = []
        self.step_number = 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let time stand still until something has happened. A test that hangs fails."""
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await self.settle()
                await trio.sleep(0.001)

    async def settle(self) -> None:
        self.clock.arrive()
        self.clock.driver.step(self.clock.at_ns)
        await trio.testing.wait_all_tasks_blocked()
        self.clock.arrive()

    async def open(self, *, receive_buffer: int | None = None, **options: Any) -> Held:
        number = len(self.lines)
        config = LineConfig(**{"goodbye_s": 0.02, **options})
        lines: list[Line] = []
        done, gone = trio.Event(), trio.Event()

        async def hold(url: str) -> None:
            async with connect_line(url, config=config, entropy=random.Random(number).randbytes) as line:
                lines.append(line)
                await done.wait()
            gone.set()

        async with own_listener(self.listener, receive_buffer) as listener:
            self.nursery.start_soon(hold, url_of(listener))
            platform = await accept_stream(listener)
        platform.sendall(start())
        await self.until(lambda: bool(lines))
        held = Held(lines[0], platform, done, gone)
        self.lines.append(held)
        await self.settle()
        assert held.line.pumped
        return held

    async def steps(self, n: int, *, each: Callable[[], None] | None = None) -> None:
        for _ in range(n):
            self.step_number += 1
            for held in self.lines:
                held.speak(self.step_number)
            self.clock.at_ns = self.step_number * STEP_NS
            await self.settle()
            for held in self.lines:
                if held.reads:
                    await all_there(held.line._connection)
            self.clock.arrive()
            for held in self.lines:
                held.read(self.step_number)
            if each is not None:
                each()

    async def leave(self, held: Held) -> None:
        held.done.set()
        await self.until(held.gone.is_set)


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    """Hold lines on the pump, moved by hand; at the end nothing may be left of them."""
    with hand_clock() as clock:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        bench: Bench | None = None
        try:
            async with trio.open_nursery() as nursery:
                bench = Bench(clock, nursery, listener)
                yield bench
                for held in bench.lines:
                    await bench.leave(held)
            assert_nothing_is_left(clock.driver)
        finally:
            for held in bench.lines if bench is not None else ():
                held.platform.close()
            await listener.aclose()


Scene = Callable[[Bench], Awaitable[None]]


def play(scene: Scene | None, n_steps: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Play a scene beside a line that echoes; return what that one heard, and what it wrote in which step."""

    async def run() -> tuple[bytes, list[tuple[int, bytes]]]:
        async with open_bench() as bench:
            beside = await bench.open()
            chance = random.Random(1)
            beside.says = lambda step: media(chance.randbytes(160)) if step % STEPS_OF_PTIME == 1 else b""
            beside.line.on_audio(beside.line.speak)
            if scene is not None:
                await scene(bench)
            assert bench.step_number <= n_steps
            await bench.steps(n_steps - bench.step_number)
            assert beside.line.end_reason is None
            return beside.heard, beside.written

    with quiescence():
        return trio.run(run)


@lru_cache
def undisturbed(n_steps: int) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What becomes of the line beside when nothing is wrong."""
    return play(None, n_steps)


def assert_nobody_else_notices(scene: Scene, n_steps: int) -> None:
    heard, written = undisturbed(n_steps)
    assert len(heard) == 160 * n_steps // STEPS_OF_PTIME
    assert len(written) == n_steps // STEPS_OF_PTIME
    assert play(scene, n_steps) == (heard, written)


def test_a_platform_that_stops_reading_for_a_while_is_told_all_that_was_said() -> None:
    said = random.Random(2).randbytes(8000 * 30).replace(b"\x7f", b"\xff")  # one zero of the two

    async def scene(bench: Bench) -> None:
        held = await bench.open(receive_buffer=32768, send_ahead_ms=60_000, stall_s=300)
        held.reads = False
        held.line.speak(pcmu_decode(said), sample_rate_hz=8000)
        connection = held.line._connection
        assert connection is not None
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, connection._state.out_bytes)

        await bench.steps(STEPS_A_SECOND, each=look)
        assert 0 < most <= 2 * SPEECH_MAX
        held.reads = True

        def told() -> bool:
            held.read(bench.step_number)
            return not connection.backlogged()

        for _ in range(50):  # a window that was closed opens in real time
            await bench.until(told)
            await bench.steps(2, each=look)
        await bench.until(lambda: told() and len(held.audio()) >= len(said))
        assert held.audio() == said
        assert most <= 2 * SPEECH_MAX
        await bench.leave(held)
        assert held.line.end_reason is EndReason.BLOCK_LEFT

    assert_nobody_else_notices(scene, 3 * STEPS_A_SECOND)


def test_a_platform_that_never_reads_again_loses_its_line() -> None:
    async def scene(bench: Bench) -> None:
        held = await bench.open(receive_buffer=4096, send_ahead_ms=60_000, stall_s=0.2)
        held.reads = False
        held.line.speak(pcmu_decode(bytes(8000 * 30)), sample_rate_hz=8000)
        await bench.steps(STEPS_OF_PTIME)
        with trio.fail_after(PATIENCE_S):
            assert await held.line.wait_ended() is EndReason.PEER_STALLED
        await bench.leave(held)

    assert_nobody_else_notices(scene, STEPS_A_SECOND)


@pytest.mark.parametrize("in_one", [False, True])
def test_ten_seconds_of_audio_in_one_burst_are_heard_to_the_sample(in_one: bool) -> None:
    said = random.Random(3).randbytes(80_000)

    async def scene(bench: Bench) -> None:
        held = await bench.open(listen_bound_ms=30_000)
        pieces = [said] if in_one else [said[at : at + 160] for at in range(0, len(said), 160)]
        held.unsent = b"".join(media(piece) for piece in pieces)
        await bench.steps(STEPS_A_SECOND)
        await bench.until(lambda: not held.unsent)
        await bench.steps(STEPS_OF_PTIME)
        assert held.heard == said
        await bench.leave(held)
        assert held.line.record is not None
        assert held.line.record.statistics.listener_dropped_ms == 0

    assert_nobody_else_notices(scene, 2 * STEPS_A_SECOND)


def test_what_came_for_an_ended_line_is_not_the_next_ones_who_has_its_descriptor_and_its_slot() -> None:
    async def scene(bench: Bench) -> None:
        for round_ in range(8):
            old = await bench.open()
            await bench.steps(STEPS_OF_PTIME)
            connection = old.line._connection
            assert connection is not None
            was = (connection.link.fd, old.line.slot)
            for _ in range(30):  # nobody has read any of it when the line ends
                old.platform.send(media(b"\x11" * 160) + frame(PING, b"old"))
            old.line.end(EndReason.APPLICATION_HUNG_UP)
            await bench.leave(old)
            new = await bench.open()
            connection = new.line._connection
            assert connection is not None
            assert (connection.link.fd, new.line.slot) == was
            chance = random.Random(round_)
            said = chance.randbytes(1600)
            new.unsent = b"".join(media(said[at : at + 160]) for at in range(0, 1600, 160))
            await bench.steps(2 * STEPS_OF_PTIME)
            assert new.heard == said
            assert old.heard == b""
            assert new.audio() == b""
            await bench.leave(new)
            for held in (old, new):
                held.platform.close()
                bench.lines.remove(held)

    assert_nobody_else_notices(scene, STEPS_A_SECOND)


def test_a_descriptor_that_was_closed_behind_our_back_costs_its_own_line_and_not_its_new_owner() -> None:
    async def scene(bench: Bench) -> None:
        victim = await bench.open()
        assert victim.line._connection is not None
        fd = victim.line._connection.link.fd
        assert fd is not None
        os.close(fd)
        newcomer = await bench.open()
        assert newcomer.line._connection is not None
        assert newcomer.line._connection.link.fd == fd
        await bench.settle()
        assert victim.line.end_reason is EndReason.PEER_VANISHED
        await bench.leave(victim)
        said = random.Random(4).randbytes(8000)
        newcomer.unsent = b"".join(media(said[at : at + 160]) for at in range(0, 8000, 160))
        newcomer.line.speak(pcmu_decode(bytes(8000)), sample_rate_hz=8000)
        await bench.steps(2 * STEPS_OF_PTIME)
        assert newcomer.heard == said
        assert newcomer.audio() == bytes(8000)
        assert newcomer.line.end_reason is None

    assert_nobody_else_notices(scene, STEPS_A_SECOND)


def test_a_line_that_comes_after_a_time_without_any_finds_nothing_overdue() -> None:
    """What is overdue is counted as lateness, and who is late is not given more to carry."""

    async def run() -> list[int]:
        overdue_ns: list[int] = []
        async with open_bench() as bench:
            driver: Any = bench.clock.driver
            add_line = driver.add_line

            def add_later(line: Any) -> None:
                bench.clock.at_ns += 1_000_000_000
                add_line(line)
                overdue_ns.append(bench.clock.at_ns - driver.next_due_ns())

            driver.add_line = add_later
            for _ in range(2):
                held = await bench.open()
                bench.step_number = bench.clock.at_ns // STEP_NS
                await bench.steps(4)
                await bench.leave(held)
                bench.lines.remove(held)
                held.platform.close()
        return overdue_ns

    with quiescence():
        first, second = trio.run(run)
    assert first <= 0
    assert second <= 0
