"""Both ends of the native wire, written from ``docs/wire-native.md`` and nothing else of talkpath.

`say` takes one binary message to be sent; whoever holds the connection hands what comes to `hear`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack

Say = Callable[[bytes], Awaitable[None]]

PLATFORM = {0: "AUDIO", 1: "START", 2: "STOP", 3: "DIGIT", 4: "MARK_REACHED", 5: "CLEARED", 6: "STATISTICS"} | {
    7: "DIGITS_SENT",
    8: "ERROR",
}
APPLICATION = {0: "AUDIO", 16: "MARK", 17: "CLEAR", 18: "PAUSE", 19: "RESUME", 20: "SEND_DIGITS"} | {
    21: "QUERY_STATISTICS",
    22: "HANG_UP",
}
NUMBERS = {name: kind for kind, name in (*PLATFORM.items(), *APPLICATION.items())}


def take_apart(message: bytes) -> tuple[int, int, int, int, int, Any]:
    """Return version, kind, sequence, position, track, and the payload or map."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(message)
    header = unpacker.unpack()
    version, kind, sequence, position, track = header[:5]
    body = message[unpacker.tell() :] if kind == 0 else unpacker.unpack()
    assert kind == 0 or unpacker.tell() == len(message), "nothing stands behind the map"
    return version, kind, sequence, position, track, body


class End:
    """What both ends have in common: numbering, and a log of what came."""

    names: dict[int, str]
    """Of what the other end sends."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._sent = 0
        self._received = 0
        self.heard: list[tuple[str, int, int, Any]] = []
        """Name, position, track and body of each message that came, audio too."""

    async def send(self, name: str, body: Any = None, *, position: int = 0, track: int = 0) -> None:
        """Send one message; audio in the one form that the page recommends."""
        self._sent += 1
        if name == "AUDIO":
            head = struct.pack(">BBBBIBQB", 0x95, 1, 0, 0xCE, self._sent, 0xCF, position, track)
            await self._say(head + body)
            return
        head = msgpack.packb([1, NUMBERS[name], self._sent, position, track])
        await self._say(head + msgpack.packb(body or {}))

    def hear(self, message: bytes) -> tuple[str, int, int, Any]:
        """Read one message."""
        version, kind, sequence, position, track, body = take_apart(message)
        assert version == 1
        self._received += 1
        assert sequence == self._received, "the other end counts its messages from 1"
        entry = (self.names[kind], position, track, body)
        self.heard.append(entry)
        return entry

    def named(self, name: str) -> list[tuple[int, Any]]:
        """Position and body of the messages of one name."""
        return [(position, body) for kind, position, _, body in self.heard if kind == name]

    def audio(self, track: int) -> bytes:
        """All audio of one track, which must follow without a hole."""
        heard, width = b"", 2 if self.start["encoding"] == "L16" else 1
        for kind, position, its, body in self.heard:
            if kind == "AUDIO" and its == track:
                assert position * width == len(heard), "each message begins where the last one ended"
                heard += body
        return heard

    start: dict[str, Any]


class Application(End):
    """An application."""

    names = PLATFORM

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._samples = 0

    def hear(self, message: bytes) -> tuple[str, int, int, Any]:
        entry = super().hear(message)
        if entry[0] == "START":
            self.start = entry[3]
        return entry

    async def play(self, payload: bytes) -> None:
        """Send audio."""
        await self.send("AUDIO", payload, position=self._samples, track=2)
        self._samples += len(payload) // (2 if self.start["encoding"] == "L16" else 1)


class Platform(End):
    """A platform: it keeps a queue, and plays it when it is told that time has passed."""

    names = APPLICATION

    def __init__(self, say: Say, start: dict[str, Any]) -> None:
        super().__init__(say)
        self.start = start
        self.queue: list[bytes | str] = []
        """Audio and the names of marks, in their order."""
        self.paused = False
        self.clock = 0
        self.answered: dict[str, int] = {}
        self.caller_heard = b""
        """One byte a sample: the stream is mu-law; 0xff is silence."""

    async def begin(self) -> None:
        await self.send("START", self.start)

    async def obey(self, message: bytes) -> None:
        """Read one message and do what it says."""
        name, _, _, body = self.hear(message)
        match name:
            case "AUDIO":
                self.queue.append(body)
            case "MARK":
                self.queue.append(body["name"])
            case "CLEAR":
                marks = [one for one in self.queue if isinstance(one, str)]
                self.queue, self.paused = [], False
                for mark in marks:
                    await self._answer(mark, "CLEARED")
                await self.send("CLEARED")
            case "PAUSE":
                self.paused = True
            case "RESUME":
                self.paused = False
            case "SEND_DIGITS":
                await self.send("DIGITS_SENT", {"begun": True})
                await self.send("DIGITS_SENT")
            case "QUERY_STATISTICS":
                await self.send("STATISTICS", {"counters": {"messages_in": self._received}})
        if not self.paused:
            await self._play(0)

    async def _answer(self, mark: str, outcome: str) -> None:
        self.answered[mark] = self.clock
        await self.send("MARK_REACHED", {"name": mark, "outcome": outcome}, position=self.clock, track=2)

    async def _play(self, n: int) -> None:
        """Play n samples; the marks behind them are answered."""
        while self.queue:
            first = self.queue[0]
            if isinstance(first, str):
                await self._answer(first, "PLAYED")
                self.queue.pop(0)
                continue
            if not n:
                return
            now, rest = first[:n], first[n:]
            self.caller_heard += now
            self.clock += len(now)
            n -= len(now)
            if rest:
                self.queue[0] = rest
            else:
                self.queue.pop(0)
        self.caller_heard += b"\xff" * n
        self.clock += n

    async def pass_time(self, payload: bytes) -> None:
        """One message's time has passed, in which the caller said `payload`."""
        at = self.clock
        if self.paused:
            self.caller_heard += b"\xff" * len(payload)
            self.clock += len(payload)
        else:
            await self._play(len(payload))
        await self.send("AUDIO", payload, position=at, track=1)
