"""A line is the same on either driver: the same bytes at the same times give the same bytes and events.

The platform's bytes are made of a seed and sent on real sockets by hand (see `support.hand`); the bot does in each step
what the seed says, and whatever it hears, and however it comes out, is written down with the step in which it did.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
import trio.testing

from support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, close, frame
from support.hand import (
    PATIENCE_S,
    STEP_NS,
    HandClock,
    accept_stream,
    all_there,
    assert_nothing_is_left,
    drain,
    hand_clock,
    never_full,
)
from support.virtual import task_order
from talkpath.audio import AudioChunk, Samples
from talkpath.errors import CallEnded, PlayoutFull
from talkpath.line import Line, LineConfig, connect_line
from talkpath.path.barge_in import EnergyGate, Verdict
from talkpath.testing import quiescence
from talkpath.transport.clock import has_timerfd
from talkpath.transport.driver_pump import PumpDriver

pytestmark = pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")

STEPS = 800
CALL_ID, STREAM_ID = "22b5d9e8-9f8c-4c63-a5a8-1a2f5c2f0e11", "b77e037d-4119-44b5-902d-25826b654539"


@dataclass(frozen=True)
class Kind:
    """One sort of line."""

    encoding: str
    rate: int
    tracks: tuple[str, ...]
    config: dict[str, Any]

    @property
    def frame_bytes(self) -> int:
        return self.rate // 50 * (2 if self.encoding == "audio/x-l16" else 1)


BOTH = ("inbound", "outbound")
KINDS = (
    Kind("audio/x-mulaw", 8000, ("inbound",), {"listen_bound_ms": 30_000}),
    Kind("audio/x-l16", 16000, BOTH, {"message_ms": 60, "send_ahead_ms": 400, "listen_bound_ms": 30_000}),
    Kind("audio/x-mulaw", 8000, BOTH, {"chunk_ms": 60, "queue_s": 5, "send_ahead_ms": 100, "listen_bound_ms": 300}),
)


@dataclass
class Heard:
    """What one line did."""

    written: list[tuple[int, bytes]] = field(default_factory=list)
    """To the platform, and in which step."""
    events: list[tuple[Any, ...]] = field(default_factory=list)
    record: Any = None


class Platform:
    """A seeded platform: media whole, split, in bursts; digits, answers true and false, pings, fragments, nonsense."""

    opcode = TEXT

    def __init__(self, kind: Kind, number: int, seed: int) -> None:
        self.kind = kind
        self.random = random.Random(1000 * seed + 500 + number)
        self.unsent = b""

    def start(self) -> bytes:
        return self._text(
            event="start",
            sequenceNumber=0,
            start={
                "callId": CALL_ID,
                "streamId": STREAM_ID,
                "accountId": "MA00000000000000TEST",
                "tracks": list(self.kind.tracks),
                "mediaFormat": {"encoding": self.kind.encoding, "sampleRate": self.kind.rate},
            },
            extra_headers="{}",
        )

    def _text(self, **message: Any) -> bytes:
        return frame(TEXT, json.dumps(message).encode())

    def _media(self, n_bytes: int, track: str = "inbound", **more: Any) -> bytes:
        payload = base64.b64encode(self.random.randbytes(n_bytes // 2 * 2)).decode()
        body = {"track": track, "payload": payload}
        return json.dumps(
            {"event": "media", "streamId": STREAM_ID, "media": body, "extra_headers": "{}", **more}
        ).encode()

    def bytes_at(self, step: int) -> bytes:
        chance, n = self.random, self.kind.frame_bytes
        new = b""
        if step % 4 == 1 and chance.random() < 0.95:
            new += b"".join(frame(self.opcode, self._media(n, track)) for track in self.kind.tracks)
        what = chance.random()
        if what < 0.04:
            new += self._text(event="playedStream", streamId=STREAM_ID, name=f"m{chance.randrange(step // 20 + 1)}")
            new += frame(self.opcode, self._media(n))
        elif what < 0.05:
            new += self._text(event="clearedAudio", streamId=STREAM_ID)
        elif what < 0.07:
            new += self._text(
                event="dtmf", streamId=STREAM_ID, dtmf={"track": "inbound", "digit": chance.choice("0123*#")}
            )
        elif what < 0.09:
            new += frame(PING, b"there?") + frame(PONG)
        elif what < 0.11:
            text = self._media(2 * n)
            new += frame(self.opcode, text[:50], fin=False) + frame(PING) + frame(CONTINUATION, text[50:])
        elif what < 0.12:
            new += frame(self.opcode, self._media(10 * n, more="seen"))
        elif what < 0.13:
            # What comes in more than one read is heard in more than one go, and how much comes in one is the system's.
            new += frame(self.opcode, self._media(80_000 if self.kind.config["listen_bound_ms"] > 10_000 else 8_000))
        elif what < 0.14:
            new += frame(TEXT, b'{"event": "unheard of"}') + frame(TEXT, b"{")
        elif what < 0.15:
            new += frame(BINARY, b"\0\1")
        elif what < 0.16:
            new += b"".join(frame(PING, bytes([i])) for i in range(100)) + frame(self.opcode, self._media(n))
        elif what < 0.17:
            new += b"".join(frame(self.opcode, self._media(n)) for _ in range(30))
        self.unsent += new
        if step == STEPS - 10:
            return self.unsent + self._text(event="stop", streamId=STREAM_ID) + close(1000)
        keep = chance.randrange(len(self.unsent) + 1) if self.unsent and chance.random() < 0.2 else 0
        out, self.unsent = self.unsent[: len(self.unsent) - keep], self.unsent[len(self.unsent) - keep :]
        return out


class Bot:
    """A seeded bot: speaks, plays, sets checkpoints, clears, listens in every way there is."""

    def __init__(
        self, line: Line, number: int, seed: int, heard: Heard, nursery: trio.Nursery, step: Callable[[], int]
    ) -> None:
        self.line = line
        self.random = random.Random(1000 * seed + 900 + number)
        self.noise = np.random.default_rng(number)
        self.heard = heard
        self.nursery = nursery
        self.step = step
        self.marks = 0
        line.on_audio(self.hook)
        line.on_audio(lambda chunk: self.note("slow", chunk.at_sample, chunk.samples.tobytes()), sample_rate_hz=24000)
        if number == 2:
            line.barge_in(EnergyGate(speech_ms=60))
        elif number == 1:
            line.barge_in(self.suspicion, suspicion_ms=300)
        for track in line.info.tracks:
            nursery.start_soon(self.listen, track, (8000, 16000, 48000)[number], (20, 60, 100)[number])
        nursery.start_soon(self.digits)

    def suspicion(self, chunk: AudioChunk) -> Verdict | None:
        """Change its mind now and then, by what is heard and so at the same moment whoever drives."""
        what = chunk.at_sample // 160 * 7 % 90
        return {3: Verdict.SUSPECT, 20: Verdict.REJECT, 41: Verdict.SUSPECT, 55: Verdict.CONFIRM}.get(what)

    def note(self, *facts: Any) -> None:
        self.heard.events.append((self.step(), *facts))

    def hook(self, chunk: AudioChunk) -> None:
        self.note("hook", chunk.at_sample, chunk.samples.tobytes())
        if self.random.random() < 0.05 and not self.line.ended:
            try:
                self.line.speak(chunk)
            except PlayoutFull:
                self.note("full")

    async def listen(self, track: str, rate: int, chunk_ms: int) -> None:
        async for chunk in self.line.listen(sample_rate_hz=rate, chunk_ms=chunk_ms, track=track):
            self.note("listen", track, chunk.at_sample, chunk.samples.tobytes())

    async def digits(self) -> None:
        async for digit in self.line.digits():
            self.note("digit", digit)

    def audio(self, rate: int, ms: int) -> Samples:
        return self.noise.integers(-8000, 8000, rate * ms // 1000).astype(np.int16)

    async def play(self, audio: Samples, rate: int) -> None:
        try:
            played = await self.line.play(audio, sample_rate_hz=rate)
            self.note("played", played)
        except CallEnded as exc:
            self.note("ended", exc.reason)

    async def wait(self, name: str) -> None:
        outcome = await self.line.checkpoint(name).wait()
        self.note("mark", outcome)

    async def clear(self) -> None:
        try:
            await self.line.clear()
            self.note("cleared")
        except CallEnded as exc:
            self.note("ended", exc.reason)

    async def send_digits(self) -> None:
        try:
            await self.line.send_digits("12#")
        except CallEnded as exc:
            self.note("ended", exc.reason)

    def act(self) -> None:
        """Do one thing, or nothing."""
        if self.line.ended:
            return
        chance = self.random
        what = chance.random()
        rate = chance.choice((8000, 16000, 24000, 48000))
        try:
            if what < 0.10:
                self.line.speak(self.audio(rate, chance.choice((20, 37, 200))), sample_rate_hz=rate)
            elif what < 0.13:
                self.marks += 1
                self.nursery.start_soon(self.wait, f"m{self.marks}")
            elif what < 0.14:
                self.nursery.start_soon(self.play, self.audio(rate, 1300), rate)
            elif what < 0.15:
                self.nursery.start_soon(self.clear)
            elif what < 0.155:
                self.nursery.start_soon(self.send_digits)
            elif what < 0.16:
                self.line.speak(self.audio(rate, 3000), sample_rate_hz=rate)
        except PlayoutFull:
            self.note("full")


class NativePlatform(Platform):
    """The same on the native wire, in binary; it also answers questions, and says that it could not do something."""

    opcode = BINARY
    sequence = 0

    def _text(self, **message: Any) -> bytes:
        named: dict[str, tuple[int, dict[str, Any]]] = {
            "playedStream": (4, {"name": message.get("name"), "outcome": self.random.choice(["PLAYED", "CLEARED"])}),
            "clearedAudio": (5, {}),
            "dtmf": (3, {"digit": message.get("dtmf", {}).get("digit")}),
            "stop": (2, {}),
            "start": (1, self._start()),
        }
        kind, body = named[message["event"]]
        position = self.random.randrange(1 << 20)
        written = frame(BINARY, msgpack.packb([1, kind, 7, position, 2]) + msgpack.packb(body))
        if kind == 3:
            for more, answer in ((6, {"counters": {"n": position}}), (8, {"message": "no"}), (7, {})):
                written += frame(BINARY, msgpack.packb([1, more, 7, 0, 0]) + msgpack.packb(answer))
        return written

    def _start(self) -> dict[str, Any]:
        encoding = "PCMU" if self.kind.encoding == "audio/x-mulaw" else "L16"
        body = {"stream_id": STREAM_ID, "call_id": CALL_ID, "tracks": list(self.kind.tracks), "encoding": encoding}
        return body | {"sample_rate_hz": self.kind.rate, "clock_rate_hz": 16000}

    def _media(self, n_bytes: int, track: str = "inbound", **more: Any) -> bytes:
        self.sequence += 1
        payload, number = self.random.randbytes(n_bytes // 2 * 2), 1 if track == "inbound" else 2
        if more:  # its numbers in another form, which is the parser's to read
            return bytes(msgpack.packb([1, 0, self.sequence, 0, number])) + payload
        return struct.pack(">BBBBIBQB", 0x95, 1, 0, 0xCE, self.sequence, 0xCF, 0, number) + payload


class NativeBot(Bot):
    """It pauses, resumes and asks, too."""

    async def _quietly(self, what: Callable[[], Awaitable[Any]], name: str) -> None:
        try:
            self.note(name, await what())
        except CallEnded as exc:
            self.note("ended", exc.reason)
        except trio.TooSlowError:
            self.note("too slow")

    def act(self) -> None:
        what = self.random.random()
        if not self.line.ended and what < 0.03:
            work = (self.line.pause, "paused") if what < 0.01 else (self.line.resume, "resumed")
            self.nursery.start_soon(self._quietly, *(work if what < 0.02 else (self._ask, "statistics")))
        else:  # one thing at a time: Trio would shuffle two
            super().act()

    async def _ask(self) -> Any:
        return dict(await self.line.platform_statistics())


async def run_lines(
    driver: str, seed: int, make_platform: type[Platform] = Platform, make_bot: type[Bot] = Bot
) -> list[Heard]:
    """Replay the bytes, and the bot's whims, through one driver."""
    heard = [Heard() for _ in KINDS]
    with hand_clock() as clock:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
        peers: list[socket.socket] = []
        try:
            async with trio.open_nursery() as nursery:
                over = trio.Event()
                lines: list[Line] = []
                platforms = [make_platform(kind, number, seed) for number, kind in enumerate(KINDS)]
                for number, kind in enumerate(KINDS):
                    config = LineConfig(driver=driver, goodbye_s=0.05, linger_s=0.05, **kind.config)  # type: ignore[arg-type]
                    nursery.start_soon(_hold, url, config, number, lines, heard[number], over)
                    peers.append(await accept_stream(listener))
                    peers[-1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
                    peers[-1].sendall(platforms[number].start())
                    await _until(clock, lambda n=number: len(lines) == n + 1)  # type: ignore[misc]
                    never_full(lines[-1]._connection)
                assert [line.pumped for line in lines] == [driver == "pump"] * len(KINDS)
                await _go(clock, lines, peers, platforms, heard, nursery, seed, make_bot)
                over.set()
                for peer in peers:
                    peer.close()
            assert_nothing_is_left(clock.driver)
        finally:
            for peer in peers:
                peer.close()
            await listener.aclose()
    return heard


async def _hold(url: str, config: LineConfig, number: int, lines: list[Line], heard: Heard, over: trio.Event) -> None:
    async with connect_line(url, config=config, entropy=random.Random(70 + number).randbytes) as line:
        lines.append(line)
        await over.wait()
    assert line.record is not None
    heard.record = line.record


async def _until(clock: HandClock, condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            clock.driver.step(clock.at_ns)
            await trio.sleep(0.001)
    clock.driver.step(clock.at_ns)
    await trio.testing.wait_all_tasks_blocked()


async def _go(
    clock: HandClock,
    lines: list[Line],
    peers: list[socket.socket],
    platforms: list[Platform],
    heard: list[Heard],
    nursery: trio.Nursery,
    seed: int,
    make_bot: type[Bot],
) -> None:
    now = 0
    bots = [make_bot(line, number, seed, heard[number], nursery, lambda: now) for number, line in enumerate(lines)]
    unsent = [b""] * len(lines)
    await trio.testing.wait_all_tasks_blocked()
    for now in range(1, STEPS):
        clock.at_ns = now * STEP_NS
        if 400 <= now < 403 or 450 <= now < 470:
            continue  # The driver comes too late.
        for number, bot in enumerate(bots):
            bot.act()
            unsent[number] += platforms[number].bytes_at(now)
            unsent[number] = _send(peers[number], unsent[number])
        for peer in peers:
            await all_there(peer)
        await trio.testing.wait_all_tasks_blocked()
        clock.arrive()
        with task_order(now):
            clock.driver.step(clock.at_ns)
            await trio.testing.wait_all_tasks_blocked()
        for line in lines:
            await all_there(line._connection)
        clock.arrive()
        for number, peer in enumerate(peers):
            written = b"".join(drain(peer))
            if written:
                heard[number].written.append((now, written))


def _send(peer: socket.socket, data: bytes) -> bytes:
    try:
        return data[peer.send(data) :] if data else data
    except BlockingIOError:
        return data
    except OSError:
        return b""


def kinds_of(events: list[tuple[Any, ...]]) -> Iterator[str]:
    return (event[1] for event in events)


@pytest.mark.parametrize(("seed", "ring"), [(0, True), (0, False), (1, True), (2, False), (3, True)])
def test_the_same_bytes_give_the_same_line_on_either_driver(
    seed: int, ring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PumpDriver, "may_ring", ring)
    with quiescence():
        tasks = trio.run(run_lines, "tasks", seed)
        pump = trio.run(run_lines, "pump", seed)
    assert_same(tasks, pump)


def test_a_native_line_is_the_same_on_either_driver() -> None:
    with quiescence():
        tasks = trio.run(run_lines, "tasks", 4, NativePlatform, NativeBot)
        pump = trio.run(run_lines, "pump", 4, NativePlatform, NativeBot)
    assert_same(tasks, pump, "paused", "statistics")


def assert_same(tasks: list[Heard], pump: list[Heard], *more: str) -> None:
    for theirs, ours in zip(tasks, pump, strict=True):
        seen = set(kinds_of(ours.events))
        assert seen >= {"hook", "slow", "listen", "digit", "mark", "played", "cleared", *more}
        assert len(ours.written) > 50
        for their_event, our_event in zip(theirs.events, ours.events, strict=False):
            assert our_event == their_event
        assert len(ours.events) == len(theirs.events)
        assert ours.written == theirs.written
        assert ours.record == theirs.record
