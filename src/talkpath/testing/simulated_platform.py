"""A platform by hand: it streams a caller's audio to an application and does what the application says.

No engine is in it: messages are a dialect's, audio leaves by absolute deadlines, and what the application plays is a
clock that says when it will have been heard. It is as lenient as platforms are, and remembers all it saw.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio

from talkpath.audio import Samples
from talkpath.dsp import pcma_encode, pcmu_encode
from talkpath.errors import RemoteWireError
from talkpath.events import (
    BufferDepth,
    Clear,
    Cleared,
    Digit,
    HangUp,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    Pause,
    PlatformStatistics,
    QueryBuffer,
    QueryStatistics,
    Resume,
    StreamStarted,
    StreamStopped,
    WireEvent,
)
from talkpath.records import EndReason, Outcome
from talkpath.testing.message_peer import Arrival, MessagePeer
from talkpath.wire.entry import Wire

EPOCH_MS = 1_760_000_000_000
"""What the wall clock says as a stream begins, where the wire writes moments of it."""


def encode(pcm: Samples, media_format: MediaFormat) -> bytes:
    """Write samples in a stream's format."""
    if media_format.encoding == "L16":
        return pcm.astype(">i2" if media_format.big_endian else "<i2").tobytes()
    return pcmu_encode(pcm) if media_format.encoding == "PCMU" else pcma_encode(pcm)


@dataclass(eq=False)
class _Pending:
    """A checkpoint that has not been answered."""

    mark: Mark
    due_s: float
    settled: bool = False


class SimulatedPlatform:
    """One stream at the platform's end; `open_simulated_stream` makes one.

    Args:
        wire: whose language it speaks.
        peer: the connection, which nobody else reads.
    """

    def __init__(
        self,
        wire: Wire,
        peer: MessagePeer,
        *,
        media_format: MediaFormat,
        options: Any = None,
        parameters: Mapping[str, str] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.wire = wire
        self.peer = peer
        self.dialect = wire.platform(media_format, options)
        self.media_format = self.dialect.media_format
        self.message_ms = wire.default_message_ms
        self.started = StreamStarted(
            stream_id=wire.make_stream_id(entropy),
            call_id=str(uuid.UUID(bytes=entropy(16), version=4)),
            account_id=wire.default_account_id,
            tracks=("inbound",),
            media_format=self.media_format,
            custom_parameters=dict(parameters or {}),
            clock_rate_hz=self.media_format.sample_rate_hz,
        )
        self.events: list[tuple[float, WireEvent]] = []
        """What the application said, and when."""
        self.refused: list[RemoteWireError] = []
        """What of it was not of this wire."""
        self.answered: list[tuple[float, str]] = []
        """The checkpoints that were reported to it, and when."""
        self.cleared_s: list[float] = []
        """When each of its clears was done and, where the wire says so, confirmed."""
        self.heard_until_s = 0.0
        """When the last of what it played will have been heard."""
        self.streaming = True
        """Whether the caller's audio leaves; off, nothing is sent, and time goes on."""
        self._to_say = np.zeros(0, np.int16)
        self._sequence = self._chunk = self._position = 0
        self._pending: list[_Pending] = []
        self._paused_s: float | None = None
        self._resumed = trio.Event()
        self._nursery: trio.Nursery | None = None

    # What the caller does ----------------------------------------------------------------------------------------

    def say(self, pcm: Samples) -> None:
        """Let the caller say `pcm` (at the stream's rate) from the next message on, after what he is saying."""
        self._to_say = np.concatenate([self._to_say, pcm])

    async def press(self, digit: str) -> bool:
        """Let the caller press a key; False where the wire has no word for it. Raises OSError."""
        return await self.tell(Digit(digit, timestamp_ms=self._now_ms(), duration_ms=100))

    async def stop(self) -> bool:
        """Say that the stream is over; False where the wire has no word for it. Raises OSError."""
        return await self.tell(StreamStopped(EndReason.CALLER_HUNG_UP.value))

    # Messages ----------------------------------------------------------------------------------------------------

    def write(self, event: WireEvent) -> list[tuple[bytes, bool]]:
        """Write what the platform says as messages, each with whether it is binary."""
        number = 0
        if self.dialect.numbered(event):
            self._sequence += 1
            number = self._sequence
        binary = self.dialect.writes_binary
        if isinstance(event, Media):
            binary = self.dialect.media_template(event.track).binary
        return [(message, binary) for message in self.dialect.send(event, sequence=number)]

    async def tell(self, event: WireEvent) -> bool:
        """Send what the platform says; False where it says it by silence. Raises OSError."""
        messages = self.write(event)
        for message, binary in messages:
            await self.peer.send(message, binary=binary)
        return bool(messages)

    def next_media(self) -> Media:
        """Return the caller's next audio, and count it as said."""
        n = self.media_format.sample_rate_hz * self.message_ms // 1000
        pcm = np.zeros(n, np.int16)
        said, self._to_say = self._to_say[:n], self._to_say[n:]
        pcm[: len(said)] = said
        self._chunk += 1
        media = Media(
            encode(pcm, self.media_format),
            chunk=self._chunk,
            timestamp_ms=self._now_ms(),
            position=self._position,
        )
        self._position += n
        return media

    def _now_ms(self) -> int:
        from_start = getattr(getattr(self.dialect, "options", None), "timestamp_from_start", False)
        elapsed_ms = self._position * 1000 // self.media_format.sample_rate_hz
        return elapsed_ms if from_start else EPOCH_MS + elapsed_ms

    async def stream(self) -> None:
        """Stream the caller's audio, each message when it is over, until cancelled or the connection is gone."""
        began, n = trio.current_time(), 0
        with suppress(OSError):
            while not self.peer.at_end:
                n += 1
                await trio.sleep_until(began + n * self.message_ms / 1000)
                media = self.next_media()
                if self.streaming:
                    await self.tell(media)

    # What the application says -----------------------------------------------------------------------------------

    def hear(self, arrival: Arrival) -> None:
        """Take one message of the application's, and obey."""
        read = self.dialect.receive_binary if arrival.binary else self.dialect.receive
        try:
            events = read(arrival.payload)
        except RemoteWireError as error:
            self.refused.append(error)
            return
        for event in events:
            self.events.append((arrival.at_s, event))
            self._obey(event, arrival.at_s)

    def named(self, *kinds: type[Any]) -> list[tuple[float, Any]]:
        """What the application said of some kinds, and when."""
        return [(at, event) for at, event in self.events if isinstance(event, kinds)]

    def _obey(self, event: WireEvent, now: float) -> None:
        match event:
            case Media(payload=payload, media_format=media_format):
                played = media_format or self.dialect.play_format
                seconds = len(payload) / played.sample_bytes / played.sample_rate_hz
                self.heard_until_s = max(now, self.heard_until_s) + seconds
            case Mark():
                pending = _Pending(event, max(now, self.heard_until_s))
                self._pending.append(pending)
                self._start(self._reach, pending)
            case Clear(id=ident):
                pending_marks, self._pending = self._pending, []
                for pending in pending_marks:
                    pending.settled = True
                self.heard_until_s = now
                self._start(self._settle_clear, [pending.mark for pending in pending_marks], ident)
            case Pause():
                self._paused_s = self._paused_s if self._paused_s is not None else now
            case Resume() if self._paused_s is not None:
                held_s, self._paused_s = now - self._paused_s, None
                self.heard_until_s += held_s
                for pending in self._pending:
                    pending.due_s += held_s
                self._resumed.set()
                self._resumed = trio.Event()
            case QueryBuffer(what=what):
                self._start(self._report, BufferDepth(what, 0, 2000))
            case QueryStatistics():
                self._start(self._report, PlatformStatistics({}))
            case HangUp() | StreamStopped():
                self._start(self._hang_up)

    def _start(self, work: Callable[..., Any], *arguments: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(work, *arguments)

    async def _reach(self, pending: _Pending) -> None:
        while not pending.settled:
            if self._paused_s is not None:
                await self._resumed.wait()
            elif trio.current_time() >= pending.due_s:
                pending.settled = True
                self._pending.remove(pending)
                if pending.mark.name:
                    self.answered.append((trio.current_time(), pending.mark.name))
                await self._report(MarkReached(pending.mark.name, Outcome.PLAYED, id=pending.mark.id))
            else:
                await trio.sleep_until(pending.due_s)

    async def _settle_clear(self, marks: list[Mark], ident: str) -> None:
        for mark in marks:
            await self._report(MarkReached(mark.name, Outcome.CLEARED, id=mark.id))
        await self._report(Cleared(ident))
        self.cleared_s.append(trio.current_time())

    async def _report(self, event: WireEvent) -> None:
        with suppress(OSError):
            await self.tell(event)

    async def _hang_up(self) -> None:
        with suppress(OSError):
            await self.stop()
            await self.peer.close()


@asynccontextmanager
async def open_simulated_stream(platform: SimulatedPlatform, *, start: bool = True) -> AsyncIterator[SimulatedPlatform]:
    """Live a stream for the block: read what the application says and, with `start`, begin and stream the caller.

    Raises:
        OSError: the connection was gone before the stream had begun.

    Cancellation: the connection is closed without a goodbye, as it is when the block is left.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        platform._nursery = nursery
        nursery.start_soon(platform.peer.run, platform.hear)
        try:
            if start:
                await platform.tell(platform.started)
                nursery.start_soon(platform.stream)
            yield platform
        except BaseException as exc:
            failure = exc
        platform._nursery = None
        nursery.cancel_scope.cancel()
    platform.peer.abort()
    if failure is not None:
        raise failure
