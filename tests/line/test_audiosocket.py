"""AudioSocket, both ends: our line and our platform's end on it, each against the other and against plain sockets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time
from talkpath.audio import Samples
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import ConfigError, NotOnThisWire, RemoteWireError
from talkpath.line import Line, LineConfig, LineRecord
from talkpath.line.bot import run_bot
from talkpath.path.pool import Pool
from talkpath.records import EndReason, Outcome
from talkpath.transport.audiosocket import accept_audiosocket
from talkpath.transport.clock import open_clock
from talkpath.transport.link import Link, SocketLink
from talkpath.transport.memory import connect_memory, listen_memory
from talkpath.wire.audiosocket import AudioSocketOptions

Bot = Callable[[Line], Awaitable[None]]
CALL = uuid.UUID("1f6b0d6e-2d0a-4a39-9b0e-7d5b0a6a9a11")


def tlv(kind: int, payload: bytes = b"") -> bytes:
    return bytes((kind, len(payload) >> 8, len(payload) & 255)) + payload


def speech(n_samples: int, seed: int = 3) -> Samples:
    """Audio no two frames of which are alike."""
    return np.random.default_rng(seed).integers(1, 8000, n_samples).astype(np.int16)


async def serve_one(link: Link, bot: Bot, options: AudioSocketOptions | None = None) -> LineRecord:
    """Be the application on one connection, from its first byte."""
    async with open_clock() as clock:
        try:
            dialect, started, carriage = await accept_audiosocket(link, b"", options)
        except BaseException:
            link.close()
            raise
        line = Line(
            clock, Pool(1 << 20), dialect, started, carriage, mask_seed=1, config=LineConfig(drain_s=5), path=""
        )
        await run_bot(bot, line)
    assert line.record is not None
    return line.record


class Asterisk:
    """What Asterisk does on such a connection, by hand."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.received = b""
        self.at_end = False
        self.came: list[tuple[float, bytes]] = []

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.link.send(rest) :]
            except BlockingIOError:
                await self.link.wait_writable()

    async def read_all(self) -> None:
        buffer = bytearray(65536)
        while True:
            try:
                n = self.link.recv_into(memoryview(buffer))
            except BlockingIOError:
                await self.link.wait_readable()
                continue
            except OSError:
                return
            if n == 0:
                self.at_end = True
                self.link.close()
                return
            self.received += buffer[:n]
            self.came.append((trio.current_time(), bytes(buffer[:n])))

    def messages(self) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while at < len(self.received):
            n = int.from_bytes(self.received[at + 1 : at + 3], "big")
            found.append((self.received[at], self.received[at + 3 : at + 3 + n]))
            at += 3 + n
        assert at == len(self.received), "the last message is whole"
        return found

    def audio(self) -> Samples:
        return np.frombuffer(b"".join(body for kind, body in self.messages() if kind != 0), np.int16)


@asynccontextmanager
async def application(bot: Bot, options: AudioSocketOptions | None = None) -> AsyncIterator[tuple[Asterisk, list[Any]]]:
    """A bot, and an Asterisk connected to it; the line's record once the block is left."""
    listener = listen_memory("bot")
    records: list[Any] = []

    async def serve() -> None:
        try:
            records.append(await serve_one(await listener.accept(), bot, options))
        except RemoteWireError as exc:
            records.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        asterisk = Asterisk(connect_memory("bot"))
        nursery.start_soon(asterisk.read_all)
        yield asterisk, records
        asterisk.link.close()
        nursery.cancel_scope.deadline = trio.current_time() + 60
    listener.close()


async def echo(line: Line) -> None:
    async for chunk in line.listen():
        line.speak(chunk)


def test_what_asterisk_says_is_heard_and_what_is_said_is_paced() -> None:
    said, spoken = speech(4000), speech(16000, seed=8)
    ear: list[Samples] = []
    digits: list[str] = []
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        assert (line.info.call_id, line.info.wire, line.info.sample_rate_hz) == (str(CALL), "audiosocket", 8000)

        async def listen() -> None:
            async for chunk in line.listen():
                ear.append(chunk.samples)  # noqa: PERF401 - it is cancelled, and what was heard is kept

        async def press() -> None:
            async for digit in line.digits():
                digits.append(digit)  # noqa: PERF401

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(press)
            outcomes.append((await line.play(spoken, sample_rate_hz=8000), trio.current_time()))
            nursery.cancel_scope.cancel()

    async def main() -> Any:
        async with application(bot) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes))
            for at in range(0, 4000, 160):
                await asterisk.send(tlv(0x10, said[at : at + 160].tobytes()))
                await trio.sleep(0.02)
            await asterisk.send(tlv(3, b"5") + tlv(0x42, b"later"))
            await trio.sleep(5)
        return asterisk, records[0]

    asterisk, record = in_virtual_time(main)
    assert np.array_equal(np.concatenate(ear)[:4000], said[: len(np.concatenate(ear))])
    assert digits == ["5"]
    assert np.array_equal(asterisk.audio(), spoken)
    assert {len(body) for kind, body in asterisk.messages() if kind == 0x10} == {320}, "20 ms in a message"
    begin = asterisk.came[0][0]
    sent = 0
    for when, data in asterisk.came[:-1]:
        sent += len(data) // 323
        assert sent * 0.02 <= when - begin + 0.0601, "never more than 60 ms ahead"
    assert asterisk.messages()[-1] == (0, b"")
    ((played, when),) = outcomes
    assert (played.samples, played.reason) == (16000, Outcome.ASSUMED)
    assert 2.0 <= when <= 2.05
    assert record.reason is EndReason.APPLICATION_HUNG_UP
    assert record.statistics.refused == {"unknown": 1}


def test_a_clear_drops_what_has_not_been_sent() -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(16000), sample_rate_hz=8000)
        mark = line.checkpoint("never")
        await trio.sleep(0.5)
        await line.clear()
        outcomes.append((await mark.wait(), trio.current_time()))
        line.speak(speech(1600, seed=9), sample_rate_hz=8000)
        for refused in (line.pause, partial(line.send_digits, "1"), line.platform_statistics):
            with pytest.raises(NotOnThisWire):
                await refused()

    async def main() -> Any:
        async with application(bot) as (asterisk, _):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(0x10, bytes(320)))
            await trio.sleep(5)
        return asterisk

    asterisk = in_virtual_time(main)
    heard = asterisk.audio()
    assert np.array_equal(heard[-1600:], speech(1600, seed=9))
    assert np.array_equal(heard[:-1600], speech(16000)[: len(heard) - 1600])
    assert 0.5 <= (len(heard) - 1600) / 8000 <= 0.58
    ((outcome, when),) = outcomes
    assert outcome.outcome is Outcome.CLEARED
    assert when < 0.51


@pytest.mark.parametrize(("kind", "rate_hz"), [(0x10, 8000), (0x12, 16000), (0x13, 24000), (0x16, 48000)])
def test_the_first_audio_tells_the_rate_and_comes_after_digits(kind: int, rate_hz: int) -> None:
    ear: list[Samples] = []
    digits: list[str] = []
    said = speech(rate_hz // 50)

    async def bot(line: Line) -> None:
        assert line.info.sample_rate_hz == rate_hz
        digits.append(await anext(line.digits()))
        line.speak(said, sample_rate_hz=rate_hz)
        ear.append((await anext(line.listen())).samples)
        await trio.sleep(1)

    async def main() -> Any:
        async with application(bot) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(3, b"#"))
            await trio.sleep(0.5)
            for _ in range(5):
                await asterisk.send(tlv(kind, said.tobytes()))
                await trio.sleep(0.02)
            await trio.sleep(2)
        assert records[0].statistics.refused == {}
        return asterisk

    asterisk = in_virtual_time(main)
    assert digits == ["#"]
    assert np.array_equal(ear[0], said)
    assert asterisk.messages() == [(kind, said.tobytes()), (0, b"")]


def test_a_call_without_audio_has_the_rate_that_the_options_say() -> None:
    rates: list[tuple[int, float]] = []

    async def bot(line: Line) -> None:
        rates.append((line.info.sample_rate_hz, trio.current_time()))

    async def main() -> None:
        async with application(bot, AudioSocketOptions(sample_rate_hz=16000, first_audio_s=2)) as (asterisk, _):
            await asterisk.send(tlv(1, CALL.bytes))
            await trio.sleep(5)

    in_virtual_time(main)
    assert rates == [(16000, 2.0)]


@pytest.mark.parametrize("kind", [0x11, 0x14, 0x15, 0x17, 0x18])
def test_a_rate_that_is_not_played_is_refused_before_the_line(kind: int) -> None:
    async def main() -> Any:
        async with application(echo) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(kind, bytes(320)))
            await trio.sleep(1)
        return records[0], asterisk.at_end

    refusal, at_end = in_virtual_time(main)
    assert isinstance(refusal, RemoteWireError)
    assert refusal.kind == "unknown_format"
    assert at_end


@pytest.mark.parametrize(
    "opening", [b"GET / HTTP/1.1\r\n\r\n", tlv(0x10, bytes(320)), b"\x01\x00\x0f" + bytes(15), b""]
)
def test_what_opens_with_no_uuid_is_refused(opening: bytes) -> None:
    async def main() -> Any:
        async with application(echo) as (asterisk, records):
            await asterisk.send(opening)
            asterisk.link.finish()
            await trio.sleep(1)
        return records[0]

    assert isinstance(in_virtual_time(main), RemoteWireError)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (tlv(0), EndReason.PLATFORM_HUNG_UP),
        (b"", EndReason.PLATFORM_HUNG_UP),
        (tlv(0x10, bytes(320))[:100], EndReason.PEER_VANISHED),
        (b"\x10", EndReason.PEER_VANISHED),
    ],
    ids=["terminate", "end between messages", "end in a payload", "end in a header"],
)
def test_how_asterisk_ends_it(ending: bytes, reason: EndReason) -> None:
    async def main() -> Any:
        async with application(echo) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(0x10, bytes(320)))
            await trio.sleep(0.5)
            await asterisk.send(ending)
            asterisk.link.finish()
            await trio.sleep(1)
        return records[0]

    assert in_virtual_time(main).reason is reason


def test_garbage_and_a_flood_end_a_line_with_a_reason_and_nothing_else() -> None:
    async def main() -> Any:
        async with application(echo) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(0x10, bytes(320)))
            await asterisk.send((tlv(3, b"x") + tlv(0x10, b"\0") + tlv(0x14, bytes(4)) + tlv(1, bytes(16))) * 400)
            await trio.sleep(5)
        return records[0]

    record = in_virtual_time(main)
    assert record.reason is EndReason.WIRE_ERROR
    assert set(record.statistics.refused) == {"bad_value", "odd_length", "unknown_format", "bad_state"}


def test_audio_of_another_rate_and_an_error_are_counted_and_the_line_lives_on() -> None:
    async def main() -> Any:
        async with application(echo) as (asterisk, records):
            await asterisk.send(tlv(1, CALL.bytes) + tlv(0x10, bytes(320)))
            await asterisk.send(tlv(0x12, bytes(640)) + tlv(0xFF, b"\x02") + tlv(0x10, b"") + tlv(0x10, bytes(320)))
            await trio.sleep(1)
            await asterisk.send(tlv(0))
            await trio.sleep(1)
        return records[0]

    record = in_virtual_time(main)
    assert record.reason is EndReason.PLATFORM_HUNG_UP
    assert record.statistics.refused == {"other_format": 1}
    assert record.statistics.platform_errors == 1
    assert record.statistics.received_ms == 40


# Both ends ----------------------------------------------------------------------------------------------------------


async def _call(bot: Bot, url: str, accept: Callable[[], Awaitable[Link]], options: dict[str, Any]) -> Any:
    leg, records = MemoryLeg(), []
    said = speech(8000)
    press, seconds = options.pop("press", ""), options.pop("seconds", 3.0)

    async def serve() -> None:
        records.append(await serve_one(await accept(), bot))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with engine() as which, which.open_call(leg) as call:
            begin = trio.current_time()
            stream = await call.start_stream(StreamSpec(url=url, wire="audiosocket", bidirectional=True, **options))
            leg.say(said)
            for digit in press:
                await trio.sleep(0.1)
                leg.press(digit)
            with trio.move_on_at(begin + seconds):
                await stream.ended.wait()
        heard = leg.heard()
    assert stream.record is not None
    return said, heard, stream.record, records[0]


def test_both_ends_of_ours_understand_each_other() -> None:
    digits: list[str] = []

    async def bot(line: Line) -> None:
        async def press() -> None:
            async for digit in line.digits():
                digits.append(digit)  # noqa: PERF401

        async with trio.open_nursery() as nursery:
            nursery.start_soon(press)
            await echo(line)
            nursery.cancel_scope.cancel()

    async def main() -> Any:
        listener = listen_memory("bot")
        result = await _call(bot, "memory://bot", listener.accept, {"press": "1#"})
        listener.close()
        return result

    said, heard, stream, line = in_virtual_time(main)
    first = int(np.flatnonzero(heard)[0])
    assert np.array_equal(heard[first : first + 8000], said)
    assert digits == ["1", "#"]
    assert (stream.reason, line.reason) == (EndReason.PLATFORM_HUNG_UP, EndReason.PLATFORM_HUNG_UP)
    assert stream.refused == line.statistics.refused == {}
    assert stream.stream_id == line.info.stream_id


def test_an_application_that_hangs_up_ends_the_stream() -> None:
    async def bot(line: Line) -> None:
        await line.play(speech(800), sample_rate_hz=8000)
        await line.hang_up()

    async def main() -> Any:
        listener = listen_memory("bot")
        result = await _call(bot, "memory://bot", listener.accept, {"codec": "L16@16000h"})
        listener.close()
        return result

    _, heard, stream, line = in_virtual_time(main)
    assert np.count_nonzero(heard) >= 700
    assert stream.reason is line.reason is EndReason.APPLICATION_HUNG_UP
    assert line.info.sample_rate_hz == 16000


def test_an_application_that_sends_what_it_may_not_ends_its_own_stream_only() -> None:
    async def main(data: bytes, then_close: bool) -> Any:
        listener = listen_memory("bot")
        leg = MemoryLeg()
        async with engine() as which, which.open_call(leg) as call:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(call.start_stream, StreamSpec(url="memory://bot", wire="audiosocket", bidirectional=True))
                )
                asterisk = Asterisk(await listener.accept())
            nursery_stream = next(one for one in call.streams if one is not None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asterisk.read_all)
                await asterisk.send(data)
                if then_close:
                    asterisk.link.finish()
                await trio.sleep(1)
                ended = nursery_stream.record
                asterisk.link.close()
                nursery.cancel_scope.cancel()
            assert call.end_reason is None
        listener.close()
        return ended

    assert in_virtual_time(main, tlv(1, bytes(16)) + tlv(3, b"1") + tlv(0x11, bytes(4)), False) is None
    flood = in_virtual_time(main, tlv(0x11, bytes(4)) * 1001, False)
    assert (flood.reason, flood.refused) == (EndReason.WIRE_ERROR, {"unknown_format": 1001})
    cut = in_virtual_time(main, tlv(0x10, bytes(320))[:9], True)
    assert cut.reason is EndReason.PEER_VANISHED
    gone = in_virtual_time(main, tlv(0x10, bytes(320)), True)
    assert gone.reason is EndReason.APPLICATION_HUNG_UP


def test_an_application_that_reads_nothing_is_given_up() -> None:
    async def main() -> Any:
        listener = listen_memory("bot")
        async with engine() as which, which.open_call(MemoryLeg()) as call:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(call.start_stream, StreamSpec(url="memory://bot", wire="audiosocket", bidirectional=True))
                )
                link = await listener.accept()
            stream = next(one for one in call.streams if one is not None)
            await stream.ended.wait()
            link.close()
        listener.close()
        return stream.record, trio.current_time()

    record, when = in_virtual_time(main)
    assert record.reason is EndReason.PEER_STALLED
    assert record.media_dropped > 0
    assert when < 15


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ws://host/"},
        {"url": "tcp://host"},
        {"url": "tcp://host:9000/path"},
        {"codec": "PCMU"},
        {"headers": {"a": "b"}},
        {"authorization_bearer_token": "t"},
        {"custom_parameters": {"a": "b"}},
        {"track": "both_tracks", "bidirectional": False},
    ],
    ids=str,
)
def test_a_stream_that_cannot_be_is_refused_when_it_is_specified(options: dict[str, Any]) -> None:
    StreamSpec(url="tcp://host:9000", wire="audiosocket")
    with pytest.raises(ConfigError):
        StreamSpec(**{"url": "tcp://host:9000", "wire": "audiosocket", **options})


@pytest.mark.smoke
async def test_over_a_real_socket() -> None:
    listening = trio.socket.socket()
    await listening.bind(("127.0.0.1", 0))
    listening.listen()

    async def accept() -> Link:
        sock, _ = await listening.accept()
        import socket

        return SocketLink(socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach()))

    port = listening.getsockname()[1]
    with trio.fail_after(10):
        said, heard, stream, line = await _call(echo, f"tcp://127.0.0.1:{port}", accept, {"seconds": 2.0})
    listening.close()
    first = int(np.flatnonzero(heard)[0])
    assert np.array_equal(heard[first : first + 160], said[:160]), "what was said comes back, from its first sample"
    assert stream.refused == line.statistics.refused == {}
