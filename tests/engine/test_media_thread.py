"""The media thread: whole calls on real sockets in real time, both ends on it, and nothing of it left afterwards.

What a test waits for is that something has happened, never that it took so long; audio is compared to the sample where
no clock but the engine's own is in it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trustme

from support.frames import TEXT, frame, take_frame
from support.hand import accept_stream, assert_nothing_is_left, drain, media, new_caller, rtp
from support.virtual import assert_pool_is_whole
from talkpath.dsp import pcmu_decode
from talkpath.engine import Call, Engine, EngineConfig, MemoryLeg, RtpLeg, StreamSpec, open_engine
from talkpath.events import LegChanged
from talkpath.line import Line, LineConfig, LineRecord, ServeConfig, serve_lines
from talkpath.records import EndReason, Outcome
from talkpath.testing import quiescence
from talkpath.transport.clock import current_clock, has_timerfd
from talkpath.transport.tls import client_context, server_context

pytestmark = [pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux"), pytest.mark.smoke]

PATIENCE_S = 30
PR_GET_TIMERSLACK = 30
SILENCE = b"\xff" * 160
CHEAP: dict[str, Any] = {"max_busy_share": None, "max_lateness_ms": None}


def config(**options: Any) -> EngineConfig:
    return EngineConfig(**{"media_thread": True, "pool_bytes": 8 << 20, "goodbye_s": 0.3, **CHEAP, **options})


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has happened. A test that hangs fails."""
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - sockets are read meanwhile
            await trio.sleep(0.002)


class Caller:
    """A caller on a UDP socket, in a task: says a packet every 20 ms, and keeps what it hears."""

    def __init__(self) -> None:
        self.socket = new_caller()
        self.address = self.socket.getsockname()
        self.said: list[bytes] = []
        self.packets: list[bytes] = []
        self.random = random.Random(1)
        self._seq = 0
        self._press = ""

    async def run(self, to: tuple[str, int]) -> None:
        while True:
            digit, self._press = self._press, ""
            if digit:
                for n in range(6):
                    self._seq += 1
                    body = bytes([int(digit), (0x80 if n > 2 else 0) | 10]) + (160 * min(n + 1, 4)).to_bytes(2, "big")
                    self.socket.sendto(rtp(self._seq, 160 * self._seq - 160 * n, body, payload_type=101), to)
            self._seq += 1
            self.said.append(self.random.randbytes(160))
            self.socket.sendto(rtp(self._seq, 160 * self._seq, self.said[-1]), to)
            self.hear()
            await trio.sleep(0.02)

    def press(self, digit: str) -> None:
        self._press = digit

    def hear(self) -> None:
        self.packets += drain(self.socket)

    def heard(self) -> bytes:
        self.hear()
        return b"".join(packet[12:] for packet in self.packets if packet[1] & 0x7F == 0)

    def digits(self) -> str:
        """Of the telephone-events that came, each once."""
        self.hear()
        begun = {packet[4:8]: packet[12] for packet in self.packets if packet[1] & 0x7F == 101}
        return "".join(str(begun[at]) for at in sorted(begun))


def in_order(found: list[bytes], said: list[bytes]) -> int:
    """Return how many frames are of those that were said; each comes after the one before, and none twice."""
    places = {one: at for at, one in enumerate(said)}
    at = [places[one] for one in found if one in places]
    assert at == sorted(set(at))
    return len(at)


class Bot:
    """The program at the other end: a hand on each line for the test, and a note of all that is heard there."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.heard: dict[str, list[bytes]] = {}
        self.digits: dict[str, str] = {}
        self.records: list[LineRecord] = []

    async def __call__(self, line: Line) -> None:
        name = line.info.path.strip("/")
        heard = self.heard[name] = []
        self.digits[name] = ""
        self.lines[name] = line
        for track in line.info.tracks:
            line.on_audio(lambda chunk: heard.append(chunk.payload), track=track)  # type: ignore[attr-defined]
        async for digit in line.digits():
            self.digits[name] += digit


@asynccontextmanager
async def serving(bot: Bot, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve a bot on the media thread; the address without its path."""
    async with trio.open_nursery() as nursery:
        options = ServeConfig(
            line=LineConfig(media_thread=True, goodbye_s=0.3), tls_context=tls, on_ended=bot.records.append, **CHEAP
        )
        ((host, port),) = await nursery.start(partial(serve_lines, bot, port=0, config=options))
        yield f"{'wss' if tls is not None else 'ws'}://{host}:{port}"
        nursery.cancel_scope.cancel()


def audio(n_ms: int, seed: int) -> bytes:
    """μ-law, of which no two frames are alike and none is silent."""
    return bytes(1 + byte % 100 for byte in random.Random(seed).randbytes(8 * n_ms))


def pcm(mulaw: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return pcmu_decode(mulaw)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    where: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(where / "ca.pem")
    issued.private_key_pem.write_to_path(where / "key.pem")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(where / "cert.pem", append=True)
    return {
        "client": client_context(ca_file=where / "ca.pem"),
        "server": server_context(where / "cert.pem", where / "key.pem"),
    }


def scheduling() -> set[tuple[int, int]]:
    """The policy and the priority of every thread there is."""
    found = set()
    for name in os.listdir("/proc/self/task"):
        with suppress(OSError):
            found.add((os.sched_getscheduler(int(name)), os.sched_getparam(int(name)).sched_priority))
    return found


def whole_thread() -> tuple[int, int, set[int]]:
    """A worker's policy, its timer slack and the signals it blocks."""
    slack = ctypes.CDLL(None).prctl(PR_GET_TIMERSLACK)
    return os.sched_getscheduler(0), slack, {int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


async def assert_no_thread_is_left(before: set[tuple[int, int]], as_new: tuple[int, int, set[int]]) -> None:
    """Fail when a thread runs, or when one that Trio keeps for later is not as it was."""
    assert scheduling() <= before | {(os.SCHED_OTHER, 0)}
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("Trio thread")]
    for _ in range(len(workers) + 1):
        assert await trio.to_thread.run_sync(whole_thread) == as_new
    assert not [thread for thread in threading.enumerate() if "tp_pump" in thread.name]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_whole_call_with_both_ends_on_the_thread(scheme: str, contexts: dict[str, Any]) -> None:
    as_new, threads = await trio.to_thread.run_sync(whole_thread), scheduling()
    secure = scheme == "wss"
    bot, caller = Bot(), Caller()
    said = {name: audio(1000, seed) for seed, name in enumerate(("greeting", "after the clear", "played", "memory"))}
    long = audio(20_000, 9)
    with quiescence():
        async with (
            serving(bot, contexts["server"] if secure else None) as url,
            open_engine(config(tls_context=contexts["client"] if secure else None)) as engine,
            trio.open_nursery() as nursery,
        ):
            leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.address)
            memory = MemoryLeg()
            async with engine.open_call(leg) as call, engine.open_call(memory) as beside:
                assert (call.pumped, beside.pumped) == (True, False)
                nursery.start_soon(caller.run, leg.local_address)
                await call.start_stream(StreamSpec(url=f"{url}/talk", bidirectional=True))
                both = await call.start_stream(StreamSpec(url=f"{url}/both", track="both_tracks", message_ms=60))
                await beside.start_stream(StreamSpec(url=f"{url}/memory", bidirectional=True))
                await until(lambda: len(bot.lines) == 3)
                talk = bot.lines["talk"]
                assert talk.pumped

                # Out, to the sample; and a checkpoint behind it.
                bot.lines["memory"].speak(pcm(said["memory"]), sample_rate_hz=8000)
                talk.speak(pcm(said["greeting"]), sample_rate_hz=8000)
                with trio.fail_after(PATIENCE_S):
                    assert (await talk.checkpoint("greeted").wait()).outcome is Outcome.PLAYED
                await until(lambda: said["greeting"] in caller.heard())

                # A clear in the middle: what is heard of it is its beginning, and then what was said afterwards.
                talk.speak(pcm(long), sample_rate_hz=8000)
                never = talk.checkpoint("never")
                await until(lambda: long[:1600] in caller.heard())
                with trio.fail_after(PATIENCE_S):
                    await talk.clear()
                    talk.speak(pcm(said["after the clear"]), sample_rate_hz=8000)
                    assert (await talk.checkpoint("again").wait()).outcome is Outcome.PLAYED
                    assert (await never.wait()).outcome is Outcome.CLEARED
                await until(lambda: said["after the clear"] in caller.heard())
                heard = caller.heard().replace(said["greeting"], b"").replace(said["after the clear"], b"")
                assert long.startswith(bytes(byte for byte in heard if byte != 0xFF))

                # Digits both ways, and the call's own source.
                caller.press("5")
                await until(lambda: bot.digits["talk"] == bot.digits["both"] == "5")
                with trio.fail_after(PATIENCE_S):
                    await call.send_digits("12")
                    assert (await call.play(pcm(said["played"]), sample_rate_hz=8000)).samples == 8000
                await until(lambda: said["played"] in caller.heard())
                assert caller.digits() == "12"

                # In: what the caller says, in its order, and as much of it as the machine let it say in time.
                await until(lambda: in_order(bot.heard["talk"], caller.said) > 25)
                frames = [one[at : at + 160] for one in bot.heard["both"] for at in range(0, len(one), 160)]
                assert in_order(frames, caller.said) > 10

                # Hold, and on again.
                leg.update(direction="inactive")
                await until(lambda: LegChanged("held") in call._events.kept)
                caller.hear()
                n = len(caller.packets)
                await trio.sleep(0.1)
                caller.hear()
                assert len(caller.packets) == n
                leg.update(direction="sendrecv")
                await until(lambda: caller.hear() or len(caller.packets) > n + 5)

                # The other call has had its own all the while.
                await until(lambda: pcm(said["memory"]).tobytes() in memory.heard().tobytes())

                await call.stop_stream(both.control_id)
                with trio.fail_after(PATIENCE_S):
                    await talk.hang_up()
                    await until(lambda: all(stream is None for stream in call.streams))
                assert call.end_reason is None
            nursery.cancel_scope.cancel()
            clock = current_clock()
            assert clock is not None
            driver = clock.driver
            await until(lambda: len(bot.records) == 3)
            assert call.record is not None
            assert {one.reason for one in call.record.streams} == {
                EndReason.APPLICATION_HUNG_UP,
                EndReason.STOPPED,
            }
            assert call.record.errors_after_end == 0
            assert_nothing_is_left(driver)
            assert_pool_is_whole(engine)
        caller.socket.close()
    assert driver._native.running == 0  # type: ignore[attr-defined]
    await assert_no_thread_is_left(threads, as_new)


async def test_peers_that_stall_or_vanish_cost_their_own_streams_only() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
    caller = Caller()
    peers: list[socket.socket] = []
    with quiescence():
        async with open_engine(config(stall_s=0.3)) as engine, trio.open_nursery() as nursery:
            leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.address)
            async with engine.open_call(leg) as call:
                nursery.start_soon(caller.run, leg.local_address)

                async def connect(**options: Any) -> Any:
                    streams: list[Any] = []

                    async def start() -> None:
                        spec = StreamSpec(**{"url": url, "bidirectional": True, **options})
                        streams.append(await call.start_stream(spec))

                    nursery.start_soon(start)
                    peers.append(await accept_stream(listener))
                    await until(lambda: streams)
                    return streams[0]

                stalls = await connect(bidirectional=False, track="both_tracks", codec="L16@16000h")
                vanishes = await connect()
                hangs_up = await connect()
                stays = await connect()
                peers[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peers[1].close()  # a reset
                peers[2].close()
                read = bytearray()

                def stays_alive() -> bool:
                    read.extend(b"".join(drain(peers[3])))
                    return stalls.end_reason is not None

                sent = b""
                for at in range(0, 8000, 160):
                    sent += audio(20, at)
                    peers[3].sendall(frame(TEXT, media(audio(20, at))))
                await until(lambda: vanishes.end_reason is not None and hangs_up.end_reason is not None)
                assert vanishes.end_reason is EndReason.PEER_VANISHED
                assert hangs_up.end_reason is EndReason.PEER_VANISHED
                await until(stays_alive)
                assert stalls.end_reason is EndReason.PEER_STALLED
                await until(lambda: sent in caller.heard())
                assert stays.end_reason is None
                assert call.end_reason is None
                messages = []
                while (one := take_frame(read)) is not None:
                    messages.append(json.loads(one.payload))
                numbers = [int(one["media"]["chunk"]) for one in messages if one["event"] == "media"]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                await call.stop_stream(stays.control_id)
            nursery.cancel_scope.cancel()
            assert_pool_is_whole(engine)
            assert_nothing_is_left(engine.driver)
        for peer in peers:
            peer.close()
        caller.socket.close()
        await listener.aclose()


async def test_a_thread_asked_to_stop_anywhere_in_a_tick_is_gone_200_times() -> None:
    as_new, threads = await trio.to_thread.run_sync(whole_thread), scheduling()
    chance = random.Random(2)
    caller = new_caller()
    ran = 0

    async def live(engine: Engine, task_status: trio.TaskStatus[Call]) -> None:
        leg = RtpLeg(local=("127.0.0.1", 0), remote=caller.getsockname(), ptime_ms=10)
        async with engine.open_call(leg) as call:
            task_status.started(call)
            await trio.sleep_forever()

    with quiescence():
        for round_ in range(200):
            async with trio.open_nursery() as nursery:
                async with open_engine(config(gc="leave", pool_bytes=1 << 20)) as engine:
                    for _ in range(round_ % 5):
                        call = await nursery.start(live, engine)
                        caller.sendto(rtp(1, 1, SILENCE), call.leg.local_address)
                    if round_ % 3:
                        await trio.sleep(chance.random() * 0.006)
                    driver: Any = engine.driver
                    if round_ % 2:
                        nursery.cancel_scope.cancel()  # the calls first, else the engine ends them
                turns = driver._native.counters.turns
                assert driver._native.running == 0
                ran += turns
                nursery.cancel_scope.cancel()
            assert driver._native.counters.turns == turns
            assert_driver_closed(driver)
    caller.close()
    assert ran > 20
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("Trio")]) <= 4
    await assert_no_thread_is_left(threads, as_new)


def assert_driver_closed(driver: Any) -> None:
    native = driver._native
    assert (native.n_members, native.n_open_ports, native.signal) == (0, 0, -1)
    assert (driver.members(), driver.watched()) == (0, 0)
