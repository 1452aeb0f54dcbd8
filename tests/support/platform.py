"""The platform's end of a line, by hand: Plivo's messages as JSON, a caller who hears, checkpoints answered or not.

Independent of the engine: a few lines of Python that play what they are sent, gap-free from its arrival, and remember
when each sample was heard.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from support.frames import CLOSE, PING, PONG, TEXT, close, frame
from support.peer import Peer, accept
from talkpath.audio import Samples
from talkpath.line import Line, LineConfig, connect_line
from talkpath.transport.memory import listen_memory

STREAM_ID = "b77e037d-4119-44b5-902d-25826b654539"
CALL_ID = "22b5d9e8-9f8c-4c63-a5a8-1a2f5c2f0e11"
ADDRESS = "platform"


async def instant() -> None:
    """Let everything that happens at this instant happen: a microsecond later all of it has."""
    await trio.sleep(1e-6)


def start_message(sample_rate_hz: int = 8000, tracks: tuple[str, ...] = ("inbound",)) -> dict[str, Any]:
    """Return the message that opens a stream of L16 audio."""
    return {
        "event": "start",
        "sequenceNumber": 0,
        "start": {
            "callId": CALL_ID,
            "streamId": STREAM_ID,
            "accountId": "MA00000000000000TEST",
            "tracks": list(tracks),
            "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": sample_rate_hz},
        },
        "extra_headers": "{}",
    }


def media_message(samples: Samples, track: str = "inbound") -> dict[str, Any]:
    """Return one media message."""
    payload = base64.b64encode(samples.astype("<i2").tobytes()).decode()
    return {
        "event": "media",
        "streamId": STREAM_ID,
        "media": {"track": track, "payload": payload},
        "extra_headers": "{}",
    }


@dataclass
class Sounding:
    """A piece of audio, and when its first sample is heard."""

    begin_s: float
    samples: Samples


class Platform:
    """One stream at the platform's end. `obey` reads and obeys; whatever else happens is the test's to say.

    Args:
        answers: whether checkpoints are answered when they are reached, and clears confirmed.
    """

    def __init__(self, peer: Peer, sample_rate_hz: int, *, answers: bool = True) -> None:
        self.peer = peer
        self.rate = sample_rate_hz
        self.answers = answers
        self.hold_answers_s = 0.0
        """How long clears wait for their confirmation."""
        self.messages: list[dict[str, Any]] = []
        """Everything read, in order."""
        self.arrived: list[float] = []
        """When each of them came."""
        self.soundings: list[Sounding] = []
        self.reported: list[str] = []
        """The checkpoints that were answered, in order."""
        self.most_ahead_s = 0.0
        """The most audio that ever waited here, the message that had just come included."""
        self.close_code: int | None = None
        self.heard_until_s = 0.0
        self._epoch = 0

    async def say(self, samples: Samples, track: str = "inbound") -> None:
        """Send one media message."""
        await self.peer.text(media_message(samples, track))

    async def say_paced(self, samples: Samples, chunk_ms: int = 20) -> None:
        """Send audio as it is spoken: each chunk when it is over."""
        n = self.rate * chunk_ms // 1000
        began = trio.current_time()
        for i in range(0, len(samples), n):
            await trio.sleep_until(began + (i // n + 1) * chunk_ms / 1000)
            await self.say(samples[i : i + n])

    async def press(self, digit: str) -> None:
        await self.peer.text({"event": "dtmf", "streamId": STREAM_ID, "dtmf": {"track": "inbound", "digit": digit}})

    async def played(self, name: str) -> None:
        """Report a checkpoint, reached or not."""
        self.reported.append(name)
        await self.peer.text({"event": "playedStream", "streamId": STREAM_ID, "name": name})

    async def cleared(self) -> None:
        """Confirm a clear, asked for or not."""
        await self.peer.text({"event": "clearedAudio", "streamId": STREAM_ID})

    async def obey(self) -> None:
        """Read until the end; play, answer, and close as is proper."""
        async with trio.open_nursery() as answering:
            while (one := await self.peer.read()) is not None:
                if one.opcode == TEXT:
                    message = json.loads(one.payload)
                    self.messages.append(message)
                    self.arrived.append(trio.current_time())
                    self._obey(message, answering)
                elif one.opcode == PING:
                    await self.peer.send(frame(PONG, one.payload, key=self.peer.key))
                elif one.opcode == CLOSE:
                    self.close_code = one.close_code
                    await self._send(close(one.close_code, key=self.peer.key))
                    break
            answering.cancel_scope.cancel()
        self.peer.link.close()

    async def _send(self, data: bytes) -> None:
        try:
            await self.peer.send(data)
        except OSError:
            return

    def _obey(self, message: dict[str, Any], answering: trio.Nursery) -> None:
        now = trio.current_time()
        match message["event"]:
            case "playAudio":
                samples = np.frombuffer(base64.b64decode(message["media"]["payload"]), "<i2").astype(np.int16)
                begin = max(now, self.heard_until_s)
                self.soundings.append(Sounding(begin, samples))
                self.heard_until_s = begin + len(samples) / self.rate
                self.most_ahead_s = max(self.most_ahead_s, self.heard_until_s - now)
            case "checkpoint" if self.answers:
                answering.start_soon(self._reach, message["name"], max(now, self.heard_until_s), self._epoch)
            case "clearAudio":
                self._epoch += 1
                self._stop(now)
                if self.answers:
                    answering.start_soon(self._confirm)

    async def _reach(self, name: str, at_s: float, epoch: int) -> None:
        await trio.sleep_until(at_s)
        if self._epoch == epoch:
            await self.played(name)

    async def _confirm(self) -> None:
        await trio.sleep(self.hold_answers_s)
        await self.cleared()

    def _stop(self, now: float) -> None:
        kept = []
        for sounding in self.soundings:
            n = max(0, round((now - sounding.begin_s) * self.rate))
            if n:
                kept.append(Sounding(sounding.begin_s, sounding.samples[:n]))
        self.soundings = kept
        self.heard_until_s = min(now, self.heard_until_s)

    def heard(self) -> Samples:
        """Return what is heard when nothing more comes, gaps left out."""
        return np.concatenate([np.zeros(0, np.int16), *(sounding.samples for sounding in self.soundings)])

    def gaps_s(self) -> list[float]:
        """Return the pauses between pieces."""
        ends = [sounding.begin_s + len(sounding.samples) / self.rate for sounding in self.soundings]
        begins = [sounding.begin_s for sounding in self.soundings[1:]]
        return [round(begin - end, 9) for begin, end in zip(begins, ends[:-1], strict=True) if begin - end > 1e-6]

    def named(self, event: str) -> list[dict[str, Any]]:
        """The messages of one event."""
        return [message for message in self.messages if message["event"] == event]

    def names(self, event: str = "checkpoint") -> list[str]:
        """The names in the messages of one event."""
        return [message["name"] for message in self.named(event)]


@asynccontextmanager
async def open_line(
    *,
    sample_rate_hz: int = 8000,
    tracks: tuple[str, ...] = ("inbound",),
    config: LineConfig | None = None,
    answers: bool = True,
    obeys: bool = True,
    within_s: float = 600,
) -> AsyncIterator[tuple[Line, Platform]]:
    """Hold a line and the platform's end of it, over a memory link. A test that hangs fails.

    Args:
        obeys: whether the platform reads at all before the test lets it.
    """
    listener = listen_memory(ADDRESS)
    with trio.fail_after(within_s):
        async with trio.open_nursery() as nursery:
            platforms: list[Platform] = []

            async def serve(task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                peer = await accept(listener)
                platforms.append(Platform(peer, sample_rate_hz, answers=answers))
                await peer.text(start_message(sample_rate_hz, tracks))
                if obeys:
                    await platforms[0].obey()

            await nursery.start(serve)
            try:
                async with connect_line(f"memory://{ADDRESS}", config=config) as line:
                    yield line, platforms[0]
            finally:
                listener.close()
            nursery.cancel_scope.cancel()
