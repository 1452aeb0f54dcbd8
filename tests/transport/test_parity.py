"""The two drivers are one machine: the same recorded input at the same times gives the same bytes and events.

Real sockets on loopback and a clock that the test moves by hand: each step reads what was sent before it, in both
drivers.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
import trio.testing
import trustme

from support.calls import EPOCH
from support.frames import BINARY, CONTINUATION, PING, TEXT, frame
from support.hand import STEP_NS, HandClock, accept_stream, all_there, drain, entered, hand_clock, media, never_full
from talkpath.engine import Call, EngineConfig, RtpLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded
from talkpath.records import CallRecord
from talkpath.transport.clock import has_timerfd
from talkpath.transport.driver_pump import PumpDriver
from talkpath.transport.pump import ring_refusal
from talkpath.transport.tls import client_context

pytestmark = pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")

STEPS = 600
GAINS_DB = (-12.0, 0.0, 3.0, -math.inf, -0.5)
"""One after the other, of the streams of two calls; the third's pass as they are."""
CALLS = 3


@dataclass
class Heard:
    """What came out of one call, step by step."""

    rtp: list[tuple[int, bytes]] = field(default_factory=list)
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    record: Any = None
    recorded: bytes = b""


class Caller:
    """A seeded caller: RTP with loss, reordering, duplicates, digits, a stranger; a pause now and then."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.seq = self.random.randrange(65536)
        self.timestamp = self.random.randrange(1 << 32)
        self.late: list[bytes] = []
        self.digit_left = 0
        self.digit_at = 0

    def packets(self, step: int) -> Iterator[bytes]:
        if step % 4 != 1 or 300 <= step < 320:
            return
        self.seq = (self.seq + 1) & 0xFFFF
        self.timestamp = (self.timestamp + 160) & 0xFFFFFFFF
        if self.digit_left == 0 and self.random.random() < 0.02:
            self.digit_left, self.digit_at = 6, self.timestamp
        if self.digit_left:
            self.digit_left -= 1
            duration = 160 * (6 - self.digit_left)
            ended = 0x80 if self.digit_left < 3 else 0
            head = bytes([0x80, 101]) + self.seq.to_bytes(2, "big") + self.digit_at.to_bytes(4, "big") + b"\0\0\0\x07"
            yield head + bytes([5, ended | 10]) + duration.to_bytes(2, "big")
            return
        head = bytes([0x80, 0]) + self.seq.to_bytes(2, "big") + self.timestamp.to_bytes(4, "big") + b"\0\0\0\x07"
        packet = head + self.random.randbytes(160)
        what = self.random.random()
        if what < 0.05:
            return
        if what < 0.10:
            self.late.append(packet)
            return
        yield packet
        if what < 0.13:
            yield packet
        if what < 0.15:
            yield b"\x00garbage"
        while self.late:
            yield self.late.pop()


@dataclass(frozen=True)
class Spoken:
    """How an application writes on one wire, and what its streams are asked to be."""

    specs: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
    media: Callable[[bytes, int], dict[str, Any] | bytes]
    """(payload, its number)"""
    mark: Callable[[int], dict[str, Any] | bytes]
    """(number of the mark); where there are none, the nearest thing."""
    clear: dict[str, Any] | bytes
    long_bytes: int = 80_000
    """Of audio in a long message."""


def _like_twilio(*specs: dict[str, Any]) -> Spoken:
    assert len(specs) == 3
    return Spoken(
        specs,
        lambda payload, n: {"event": "media", "streamSid": "s", "media": {"payload": _base64(payload)}},
        lambda n: {"event": "mark", "streamSid": "s", "mark": {"name": f"m{n}"}},
        {"event": "clear", "streamSid": "s"},
    )


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def _native(kind: int, **body: str) -> bytes:
    return bytes(msgpack.packb([1, kind, 1, 0, 0]) + msgpack.packb(body))


WIRES = {
    "plivo": Spoken(
        ({"message_ms": 20}, {"message_ms": 40}, {"message_ms": 60}),
        lambda payload, n: json.loads(media(payload)),
        lambda n: {"event": "checkpoint", "streamId": "s", "name": f"m{n}"},
        {"event": "clearAudio", "streamId": "s"},
    ),
    "twilio": _like_twilio({"message_ms": 20}, {"message_ms": 40}, {"message_ms": 60}),
    "signalwire": _like_twilio({"codec": "L16@24000h@20i"}, {"codec": "PCMA@40i"}, {"realtime": True}),
    "teler": Spoken(
        ({"message_ms": 20}, {"codec": "L16@16000h", "message_ms": 400}, {"codec": "L16@16000h", "message_ms": 2000}),
        lambda payload, n: {"type": "audio", "audio_b64": _base64(payload), "chunk_id": n},
        lambda n: {"type": "interrupt", "chunk_id": n},
        {"type": "clear"},
    ),
    "native": Spoken(
        ({"message_ms": 20}, {"codec": "L16@16000h", "message_ms": 40}, {"codec": "PCMA", "track": "both_tracks"}),
        lambda payload, n: struct.pack(">BBBBIBQB", 0x95, 1, 0, 0xCE, n, 0xCF, 0, 2) + payload,
        # Every third is a pause or the end of one.
        lambda n: _native(16, name=f"m{n}") if n % 3 else _native(18 if n % 2 else 19),
        _native(17),
    ),
    "asterisk": Spoken(
        ({"message_ms": 20}, {"codec": "L16@16000h", "message_ms": 40}, {"codec": "PCMA"}),
        lambda payload, n: payload,
        lambda n: {"command": "MARK_MEDIA", "correlation_id": f"m{n}"},
        {"command": "FLUSH_MEDIA"},
        long_bytes=60_000,
    ),
}


class Application:
    """A seeded application: media whole, split and in bursts, checkpoints, clears, pings, fragments, nonsense."""

    def __init__(self, number: int, spoken: Spoken) -> None:
        self.random = random.Random(1000 + number)
        self.spoken = spoken
        self.n_media = 0
        self.n = 0
        self.unsent = b""

    def media(self, n_bytes: int, **more: object) -> bytes:
        self.n_media += 1
        message = self.spoken.media(self.random.randbytes(n_bytes), self.n_media)
        if isinstance(message, dict):
            return json.dumps(message | more).encode()
        if more and message.startswith(b"\x95"):  # its numbers in another form, which is the parser's to read
            return bytes(msgpack.packb([1, 0, self.n_media, 0, 2])) + message[18:]
        return message

    @property
    def opcode(self) -> int:
        """Of media messages."""
        return TEXT if isinstance(self.spoken.media(b"", 0), dict) else BINARY

    @staticmethod
    def control(message: dict[str, Any] | bytes) -> bytes:
        return frame(BINARY, message) if isinstance(message, bytes) else frame(TEXT, json.dumps(message).encode())

    def bytes_at(self, step: int) -> bytes:
        new = b""
        what = self.random.random()
        if step % 4 == 2 and what < 0.9:
            new += frame(self.opcode, self.media(160))
        if what < 0.05:
            self.n += 1
            new += self.control(self.spoken.mark(self.n))
            new += frame(self.opcode, self.media(80))
        elif what < 0.07:
            new += self.control(self.spoken.clear)
            new += frame(self.opcode, self.media(240))
        elif what < 0.09:
            new += frame(PING, b"there?")
        elif what < 0.11:
            text = self.media(320)
            new += frame(self.opcode, text[:50], fin=False) + frame(PING) + frame(CONTINUATION, text[50:])
        elif what < 0.12:
            new += frame(self.opcode, self.media(8000, extra="seen"))
        elif what < 0.13:
            new += frame(self.opcode, self.media(self.spoken.long_bytes))
        elif what < 0.14:
            new += frame(TEXT, b'{"event": "unheard of"}')
        elif what < 0.15:
            new += frame(BINARY, b"\0\1")
        elif what < 0.16:
            new += b"".join(frame(PING, bytes([i])) for i in range(100))
        self.unsent += new
        keep = self.random.randrange(len(self.unsent) + 1) if self.unsent and self.random.random() < 0.2 else 0
        out, self.unsent = self.unsent[: len(self.unsent) - keep], self.unsent[len(self.unsent) - keep :]
        return out


def somewhere(seeded: random.Random) -> Callable[[int], int]:
    """Return where to cut cipher: mostly behind the last record, else anywhere in it."""
    return lambda n: n if seeded.random() < 0.8 else seeded.randrange(n + 1)


@dataclass
class Contexts:
    """Both ends' of a run over TLS."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def make_contexts() -> Contexts:
    authority = trustme.CA()
    contexts = Contexts(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context())
    authority.issue_cert("localhost").configure_cert(contexts.server)
    authority.configure_trust(contexts.client)
    return contexts


async def run_calls(driver: str, contexts: Contexts | None = None, wire: str = "plivo") -> list[Heard]:
    """Replay the input through one driver."""
    with hand_clock() as clock, TemporaryDirectory() as directory:
        return await _run_calls(driver, clock, contexts, wire, Path(directory))


def _read(record: CallRecord) -> bytes:
    return Path(record.recordings[0].path).read_bytes()


async def _announce(call: Call) -> None:
    """What the call server itself plays, mixed with the application's; the call ends before it."""
    with suppress(CallEnded):
        await call.play(
            np.random.default_rng(9).integers(-30000, 30000, 160_000).astype(np.int16), sample_rate_hz=16000
        )


async def _run_calls(
    driver: str, clock: HandClock, contexts: Contexts | None, wire: str, directory: Path
) -> list[Heard]:
    heard = [Heard() for _ in range(CALLS)]
    callers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(CALLS)]
    strangers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    url = f"{'wss' if contexts else 'ws'}://localhost:{listener.socket.getsockname()[1]}/"
    done = trio.Event()
    calls: list[Call] = []
    try:
        async with trio.open_nursery() as nursery:
            config = EngineConfig(driver=driver, tls_context=contexts.client if contexts else None)  # type: ignore[arg-type]
            seeded = random.Random(7)
            engine = await entered(
                nursery, open_engine(config, entropy=seeded.randbytes, wall_clock=lambda: EPOCH), done
            )
            peers: list[Any] = []
            for number, caller in enumerate(callers):
                caller.bind(("127.0.0.1", 0))
                caller.setblocking(False)
                symmetric: Any = ("any", True, False)[number % 3]
                leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname(), symmetric=symmetric)
                call = await entered(nursery, engine.open_call(leg), done)
                calls.append(call)
                spec = StreamSpec(url=url, wire=wire, bidirectional=True, **WIRES[wire].specs[number])
                nursery.start_soon(call.start_stream, spec)
                peers.append(await accept_stream(listener, context=contexts.server if contexts else None))
                while not any(stream is not None and stream._live for stream in call.streams):
                    clock.driver.step(clock.at_ns)
                    await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            for call in calls:
                assert call.streams[0] is not None
                never_full(call.streams[0]._connection)
            assert [call.pumped for call in calls] == [driver == "pump"] * CALLS
            if driver == "pump":  # TLS or not, the pump has every socket
                pump: Any = clock.driver
                assert pump._native.n_open_ports == 2 * CALLS
                assert pump.has_ring == (PumpDriver.may_ring and ring_refusal() is None)
            for number, peer in enumerate(peers):
                if contexts is not None:
                    peer.cut = somewhere(random.Random(50 + number))
            for number, call in enumerate(calls):
                nursery.start_soon(call.record_to, directory / f"{number}.wav")
            while not all(call._recordings and call._recordings.live and call._recordings.live.begun for call in calls):
                clock.driver.step(clock.at_ns)
                await trio.sleep(0.001)
            nursery.start_soon(_announce, calls[2])
            await trio.testing.wait_all_tasks_blocked()
            says = [Caller(number) for number in range(CALLS)]
            plays = [Application(number, WIRES[wire]) for number in range(CALLS)]
            for step in range(1, STEPS):
                clock.at_ns = step * STEP_NS
                if 400 <= step < 403 or 450 <= step < 470:
                    continue  # The driver comes too late: 15 ms is made up for, 100 ms are skipped.
                for number, call in enumerate(calls):
                    if step % 40 == 3 and number != 1 and (stream := call.streams[0]) is not None:
                        stream.gain_db = GAINS_DB[step // 40 % len(GAINS_DB)]
                    target = call.leg.local_address
                    for packet in says[number].packets(step):
                        callers[number].sendto(packet, target)
                    if step % 50 == number:
                        strangers.sendto(b"\x80\0" + bytes(170), target)
                    peers[number].sendall(plays[number].bytes_at(step))
                    await all_there(peers[number])
                clock.arrive()
                clock.driver.step(clock.at_ns)
                await trio.testing.wait_all_tasks_blocked()
                for stream in (call.streams[0] for call in calls):
                    await all_there(stream._connection if stream is not None else None)
                clock.arrive()
                for number in range(CALLS):
                    heard[number].rtp += [(step, packet) for packet in drain(callers[number])]
                    written = b"".join(drain(peers[number]))
                    if written:
                        heard[number].messages.append((step, written))
            for number, call in enumerate(calls):
                heard[number].events = list(call._events.kept)
                call.hang_up()
                heard[number].record = call.statistics()
            done.set()
            for peer in peers:
                peer.close()
    finally:
        for sock in (*callers, strangers):
            sock.close()
        await listener.aclose()
    for number, call in enumerate(calls):
        assert call.record is not None
        heard[number].record = dataclasses.replace(call.record, recordings=())
        heard[number].recorded = _read(call.record)
    return heard


@pytest.mark.parametrize("ring", [False, True], ids=["each call alone", "through the ring"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_the_same_input_gives_the_same_bytes_and_events(
    secure: bool, ring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PumpDriver, "may_ring", ring)
    contexts = make_contexts() if secure else None
    assert_same(trio.run(run_calls, "tasks", contexts), trio.run(run_calls, "pump", contexts))


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "plivo"])
def test_every_wire_is_the_same_on_both(wire: str) -> None:
    """Teler's messages of 2 s and its chunks taken back; marks that come back after a clear; 24 kHz; a short bound;
    pauses; binary messages.
    """
    assert_same(
        trio.run(run_calls, "tasks", None, wire),
        trio.run(run_calls, "pump", None, wire),
        at_least_messages=3 if wire == "teler" else 30,
    )


def assert_same(tasks: list[Heard], pump: list[Heard], *, at_least_messages: int = 30) -> None:
    for theirs, ours in zip(tasks, pump, strict=True):
        assert len(ours.rtp) > 100
        assert len(ours.messages) >= at_least_messages
        assert len(ours.events) > 10
        assert ours.rtp == theirs.rtp
        assert ours.messages == theirs.messages
        assert len(ours.recorded) > 80_000
        assert ours.recorded == theirs.recorded
        assert ours.events == theirs.events
        assert _comparable(ours.record) == _comparable(theirs.record)


def _comparable(record: Any) -> str:
    """All of a record but how late the ticks of that run were."""
    return "\n".join(part for part in repr(record).replace(", ", "\n").split("\n") if not part.startswith("lateness_"))
