"""A line on Asterisk's WebSocket channel: against a channel by hand that is as strict as Asterisk's, and ours.

`Channel` does what ``chan_websocket.c`` does with commands and audio: whole frames of 20 ms only, a remainder kept
while the application buffers and dropped else, one frame or silence each 20 ms, a flush that drops marks and ends the
buffering but not a pause.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time
from support.frames import BINARY, TEXT, frame
from support.peer import Peer, accept, connect
from talkpath.audio import Samples
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import NotOnThisWire
from talkpath.line import Line, LineConfig, connect_line, serve_memory_lines
from talkpath.records import EndReason, Outcome
from talkpath.transport.memory import listen_memory
from talkpath.wire.asterisk import AsteriskOptions

Bot = Callable[[Line], Awaitable[None]]
FRAME = 160
SILENCE = b"\xff" * FRAME
START = "MEDIA_START connection_id:m channel:WebSocket/m channel_id:c.1 format:ulaw optimal_frame_size:160 ptime:20"


def speech(n_samples: int, seed: int = 3) -> Samples:
    """Audio that survives mu-law as it is, none of it silence."""
    return pcmu_decode(np.random.default_rng(seed).integers(0, 120, n_samples).astype(np.uint8).tobytes())


class Channel:
    """See the module."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.queue: list[bytes | str] = []
        self.leftover = b""
        self.buffering = self.paused = self.over = False
        self.commands: list[str] = []
        self.heard = b""
        self.most_queued = 0

    async def tell(self, text: str) -> None:
        await self.peer.send(frame(TEXT, text.encode(), key=self.peer.key))

    def audio(self, payload: bytes) -> None:
        assert len(payload) <= 65_500, "a longer message costs the socket"
        if not self.buffering:
            self.leftover = b""
        payload = self.leftover + payload
        n = len(payload) // FRAME * FRAME
        self.queue += [payload[i : i + FRAME] for i in range(0, n, FRAME)]
        self.leftover = payload[n:] if self.buffering else b""
        self.most_queued = max(self.most_queued, len(self.queue))

    def command(self, text: str) -> None:
        assert len(text) <= 128, "a longer command is ignored"
        self.commands.append(text)
        word, _, name = text.partition(" ")
        match word:
            case "START_MEDIA_BUFFERING":
                self.buffering = True
            case "STOP_MEDIA_BUFFERING":
                self.buffering = False
                if self.leftover:
                    self.queue.append(self.leftover)
                self.leftover = b""
                self.queue.append(f"MEDIA_BUFFERING_COMPLETED {name}".strip())
            case "MARK_MEDIA":
                self.queue.append(f"MEDIA_MARK_PROCESSED {name}".strip())
            case "FLUSH_MEDIA":
                self.queue, self.leftover, self.buffering = [], b"", False
            case "PAUSE_MEDIA":
                self.paused = True
            case "CONTINUE_MEDIA":
                self.paused = False
            case "HANGUP":
                self.over = True
            case _:
                assert word == "ANSWER", f"Asterisk knows no {word}"

    async def tick(self) -> None:
        """Let the caller hear 20 ms."""
        while not self.paused and self.queue and isinstance(self.queue[0], str):
            await self.tell(str(self.queue.pop(0)))
        if self.paused or not self.queue:
            self.heard += SILENCE
        else:
            self.heard += bytes(self.queue.pop(0)).ljust(FRAME, b"\xff")  # type: ignore[arg-type]

    async def run(self) -> None:
        await self.tell(START)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            at = trio.current_time()
            while not self.over:
                at += 0.02
                await trio.sleep_until(at)
                await self.tick()
                await self.peer.send(frame(BINARY, SILENCE, key=self.peer.key))
            await self.peer.close()
            nursery.cancel_scope.deadline = trio.current_time() + 1

    async def _read(self) -> None:
        while (one := await self.peer.read()) is not None:
            if one.opcode == BINARY:
                self.audio(one.payload)
            elif one.opcode == TEXT:
                self.command(one.payload.decode())
            else:
                self.over = True


@asynccontextmanager
async def asterisk_dials(bot: Bot) -> AsyncIterator[Channel]:
    """Asterisk is the WebSocket client, as ``websocket_client.conf`` has it."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_memory_lines, bot, "bot"))
        peer = connect("bot")
        answer = await peer.upgrade_as_client("/media", ("Sec-WebSocket-Protocol", "media"))
        assert "101" in answer
        assert peer.headers["sec-websocket-protocol"] == "media"
        yield Channel(peer)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asterisk_is_dialled(bot: Bot) -> AsyncIterator[Channel]:
    """Asterisk is the server, as ``WebSocket/INCOMING`` has it."""
    listener = listen_memory("asterisk")

    async def dial() -> None:
        async with connect_line("memory://asterisk/media/id", wire="asterisk", config=LineConfig()) as line:
            await bot(line)
            await line.drain()
            await line.hang_up()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        peer = await accept(listener)
        assert peer.headers["sec-websocket-protocol"] == "media"
        yield Channel(peer)
    listener.close()


def run(bot: Bot, *, dials: bool) -> Channel:
    async def main() -> Channel:
        async with (asterisk_dials if dials else asterisk_is_dialled)(bot) as channel:
            await channel.run()
        return channel

    return in_virtual_time(main)


each_direction = pytest.mark.parametrize("dials", [True, False], ids=["asterisk dials", "asterisk is dialled"])


@each_direction
def test_every_sample_is_heard_whatever_its_length_and_a_mark_is_exact_in_time(dials: bool) -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(4321), sample_rate_hz=8000)
        outcomes.append((await line.checkpoint("first").wait(), trio.current_time()))
        line.speak(speech(100, seed=5), sample_rate_hz=8000)
        line.speak(speech(70, seed=6), sample_rate_hz=8000)
        outcomes.append((await line.checkpoint("second").wait(), trio.current_time()))

    channel = run(bot, dials=dials)
    heard = channel.heard.lstrip(b"\xff")
    first = pcmu_encode(speech(4321))
    assert heard.startswith(first)
    second = pcmu_encode(np.concatenate((speech(100, seed=5), speech(70, seed=6))))
    assert second in heard[len(first) :]
    assert [one.outcome for one, _ in outcomes] == [Outcome.PLAYED, Outcome.PLAYED]
    assert 0.54 <= outcomes[0][1] <= 0.64
    assert channel.commands[:2] == ["ANSWER", "START_MEDIA_BUFFERING"]
    assert channel.commands[-1] == "HANGUP"


@each_direction
def test_a_flush_is_heard_at_once_and_what_comes_next_is_whole(dials: bool) -> None:
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        line.speak(speech(16000), sample_rate_hz=8000)
        mark = line.checkpoint("never")
        await trio.sleep(0.5)
        await line.clear()
        outcomes.append(await mark.wait())
        for seed in range(4):  # pieces that are no whole frames
            line.speak(speech(333, seed=seed), sample_rate_hz=8000)
        outcomes.append(await line.checkpoint("heard").wait())

    channel = run(bot, dials=dials)
    assert [one.outcome for one in outcomes] == [Outcome.CLEARED, Outcome.PLAYED]
    assert pcmu_encode(np.concatenate([speech(333, seed=seed) for seed in range(4)])) in channel.heard
    assert pcmu_encode(speech(16000))[: 4000 - 5 * FRAME] in channel.heard
    assert pcmu_encode(speech(16000))[: 4000 + 5 * FRAME] not in channel.heard


@each_direction
def test_a_pause_holds_and_a_clear_ends_it(dials: bool) -> None:
    async def bot(line: Line) -> None:
        line.speak(speech(8000), sample_rate_hz=8000)
        await trio.sleep(0.5)
        await line.pause()
        await trio.sleep(1)
        await line.resume()
        await line.drain()
        line.speak(speech(8000), sample_rate_hz=8000)
        await trio.sleep(0.2)
        await line.pause()
        await line.clear()
        await line.play(speech(1600, seed=9), sample_rate_hz=8000)
        with pytest.raises(NotOnThisWire):
            await line.send_digits("1")
        with pytest.raises(NotOnThisWire):
            await line.platform_statistics()

    channel = run(bot, dials=dials)
    at = channel.heard.index(pcmu_encode(speech(8000))[:FRAME])
    held = channel.heard.index(SILENCE * 45, at)
    assert channel.heard[at : held // FRAME * FRAME] + channel.heard[held:].lstrip(b"\xff")[: 8000 - (held - at)] == (
        pcmu_encode(speech(8000))
    )
    assert pcmu_encode(speech(1600, seed=9)) in channel.heard
    pauses = [text for text in channel.commands if text in ("PAUSE_MEDIA", "CONTINUE_MEDIA", "FLUSH_MEDIA")]
    assert pauses == ["PAUSE_MEDIA", "CONTINUE_MEDIA", "PAUSE_MEDIA", "FLUSH_MEDIA", "CONTINUE_MEDIA"]


def test_no_more_waits_in_asterisk_than_it_takes() -> None:
    async def bot(line: Line) -> None:
        await line.play(speech(8000 * 40), sample_rate_hz=8000)

    async def main() -> Channel:
        async with trio.open_nursery() as nursery:
            listener = listen_memory("asterisk")

            async def dial() -> None:
                config = LineConfig(send_ahead_ms=60_000)
                async with connect_line("memory://asterisk", wire="asterisk", config=config) as line:
                    await bot(line)
                    await line.hang_up()

            nursery.start_soon(dial)
            channel = Channel(await accept(listener))
            await channel.run()
            listener.close()
        return channel

    channel = in_virtual_time(main)
    assert 700 <= channel.most_queued < 800, "never so much that it says MEDIA_XOFF"
    assert channel.heard.strip(b"\xff") == pcmu_encode(speech(8000 * 40)).strip(b"\xff")


@pytest.mark.parametrize("control", ["plain", "json"])
@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "L16@16000h", "L16@48000h"])
def test_both_ends_of_ours_understand_each_other(control: Any, codec: str) -> None:
    digits: list[str] = []
    outcomes: list[Any] = []

    async def bot(line: Line) -> None:
        assert line.info.wire == "asterisk"
        digits.append(await anext(line.digits()))
        line.speak(speech(8000), sample_rate_hz=8000)
        outcomes.append((await line.checkpoint("heard").wait()).outcome)
        line.speak(speech(8000), sample_rate_hz=8000)
        mark = line.checkpoint("cleared")
        await trio.sleep(0.2)
        await line.pause()
        await trio.sleep(0.5)
        await line.clear()
        outcomes.append((await mark.wait()).outcome)

    async def main() -> Any:
        leg = MemoryLeg()
        async with trio.open_nursery() as nursery:
            url = await nursery.start(partial(serve_memory_lines, bot, "bot"))
            async with engine() as which, which.open_call(leg) as call:
                stream = await call.start_stream(
                    StreamSpec(
                        url=url,
                        wire="asterisk",
                        codec=codec,
                        bidirectional=True,
                        options=AsteriskOptions(control=control),
                        custom_parameters={"lang": "en"} if control == "json" else {},
                    )
                )
                leg.press("5")
                await stream.ended.wait()
            nursery.cancel_scope.cancel()
        return stream.record

    record = in_virtual_time(main)
    assert digits == ["5"]
    assert outcomes == [Outcome.PLAYED, Outcome.CLEARED]
    assert record.reason is EndReason.APPLICATION_HUNG_UP
    assert record.refused == {}
    assert [(mark.name, mark.outcome) for mark in record.marks] == [
        ("heard", Outcome.PLAYED),
        ("cleared", Outcome.CLEARED),
    ]
    assert record.clears == 1
