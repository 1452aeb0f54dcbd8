"""A platform under test, as checks see it: what it said in one call, and what it does when it is told something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from talkpath.errors import NotOnThisWire, RemoteWireError
from talkpath.events import (
    Mark,
    MarkReached,
    Media,
    StreamStarted,
    WireEvent,
)
from talkpath.testing.checks import (
    broken,
    expect,
    skip,
)
from talkpath.testing.message_peer import Arrival, MessagePeer, WebSocketPeer
from talkpath.testing.simulated_platform import encode
from talkpath.testing.tones import ToneSource
from talkpath.wire.catalog import wire_named
from talkpath.wire.websocket import UpgradeRequest

LISTEN_S = 3.0
ANSWER_S = 2.0
PLAY_MESSAGE_MS = 20


@dataclass(frozen=True, slots=True)
class PlatformTarget:
    """A platform under test, and what it was told."""

    wire: str
    options: Any = None
    auth_token: str = field(default="", repr=False)
    """With it the signature of the upgrade is judged."""
    bearer_token: str = field(default="", repr=False)
    public_url: str = ""
    """Behind a proxy: the address the platform dials (``wss://host``), for the signature."""
    tolerance_ms: int = 150
    """How far from the right moment something may happen."""
    press_s: float = 0.0
    """How long to wait for the caller to press a key; 0: only what happens to come is judged."""
    hang_up_s: float = 0.0
    """How long to wait at the end for the caller to hang up, in place of hanging up on him; 0: not at all."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """One message of the platform's, with what it says."""

    at_s: float
    payload: bytes = field(repr=False)
    events: tuple[WireEvent, ...]


class PlatformProbe:
    """What checks may ask of a platform: what it said, and what it does when it is told something.

    Args:
        target: the platform.
        peer: the connection it opened, or that was opened to it; nobody else reads it.
        request: its upgrade request, where it dialled.
        announce: tells whoever plays the caller what to do.
    """

    def __init__(
        self,
        target: PlatformTarget,
        peer: MessagePeer,
        *,
        request: UpgradeRequest | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.target = target
        self.wire = wire_named(target.wire)
        self.peer = peer
        self.request = request
        self.announce = announce or (lambda text: None)
        """Tells whoever plays the caller what to do."""
        self.dialect = self.wire.application(target.options)
        self.heard: list[_Heard] = []
        self.refused: list[RemoteWireError] = []
        self.started: StreamStarted | None = None
        self._greeting: list[bytes] = []
        self._greets = trio.Event()
        self._sequence = self._chunk = self._position = 0
        self._names = 0
        self._listened = False

    # What came ---------------------------------------------------------------------------------------------------

    def hear(self, arrival: Arrival) -> None:
        """Take one message."""
        try:
            read = self.dialect.receive_binary if arrival.binary else self.dialect.receive
            events = tuple(read(arrival.payload))
        except RemoteWireError as error:
            self.refused.append(error)
            events = ()
        self.heard.append(_Heard(arrival.at_s, arrival.payload, events))
        for event in events:
            if isinstance(event, StreamStarted) and self.started is None:
                self.started = event
                self._greets.set()

    async def greet(self) -> None:
        """Say what this wire's applications say as soon as they know the stream."""
        await self._greets.wait()
        try:
            for message in self.dialect.greeting():
                await self.peer.send(message, binary=self.dialect.writes_binary)
        except OSError:
            return

    def said(self, *kinds: type[Any]) -> list[tuple[float, Any]]:
        """What the platform said of some kinds, and when."""
        return [(one.at_s, event) for one in self.heard for event in one.events if isinstance(event, kinds)]

    def tracks(self) -> Mapping[str, list[tuple[float, Media]]]:
        """The audio of each track."""
        tracks: dict[str, list[tuple[float, Media]]] = {}
        for at_s, media in self.said(Media):
            tracks.setdefault(media.track, []).append((at_s, media))
        return tracks

    async def listen(self) -> None:
        """Have heard the caller for a while. Raises NotApplicable when no stream was started."""
        if self.started is None:
            skip("no stream was started")
        if not self._listened:
            self._listened = True
            await self.peer.wait_until(lambda: False, LISTEN_S)

    # What it is told ---------------------------------------------------------------------------------------------

    def write(self, command: WireEvent) -> list[tuple[bytes, bool]]:
        """Write a command as messages, each with whether it is binary. Raises NotApplicable: not on this wire."""
        number = 0
        if self.dialect.numbered(command):
            self._sequence += 1
            number = self._sequence
        binary = self.dialect.writes_binary
        if isinstance(command, Media):
            binary = self.dialect.media_template("inbound").binary
        try:
            return [(message, binary) for message in self.dialect.send(command, sequence=number)]
        except NotOnThisWire as error:
            skip(str(error))

    async def tell(self, command: WireEvent) -> None:
        """Send a command. Raises NotApplicable: not on this wire; OSError."""
        self.check_open()
        for message, binary in self.write(command):
            await self.peer.send(message, binary=binary)

    def audio(self, duration_ms: int) -> Media:
        """Return a tone in the format that the application plays."""
        played = self.dialect.play_format
        n = played.sample_rate_hz * duration_ms // 1000
        self._chunk += 1
        media = Media(
            encode(ToneSource(1000.0, played.sample_rate_hz).take(n), played),
            chunk=self._chunk,
            position=self._position,
        )
        self._position += n
        return media

    async def play(self, duration_ms: int) -> float:
        """Send a tone at once; return when."""
        began = trio.current_time()
        for _ in range(duration_ms // PLAY_MESSAGE_MS):
            await self.tell(self.audio(PLAY_MESSAGE_MS))
        return began

    def new_name(self) -> str:
        """Return a checkpoint's name that was not used before."""
        self._names += 1
        return f"check-{self._names}"

    async def mark(self) -> str:
        """Set a checkpoint; return its name. Raises NotApplicable where the wire has none."""
        if not self.dialect.has_marks:
            skip("this wire has no checkpoints")
        name = self.new_name()
        await self.tell(Mark(name))
        return name

    def answers_to(self, name: str) -> list[tuple[float, MarkReached]]:
        """The reports of a checkpoint, and when each came."""
        return [(at_s, event) for at_s, event in self.said(MarkReached) if event.name == name]

    async def answered(self, name: str, within_s: float) -> float:
        """Wait for the report of a checkpoint; return when it came. Raises Broken."""
        await self.peer.wait_until(lambda: bool(self.answers_to(name)), within_s)
        answers = self.answers_to(name)
        if not answers:
            if self.peer.at_end or self.peer.close_code is not None:
                broken(f"it ended the stream{self._code()} where a checkpoint was to be answered")
            broken(f"the checkpoint was not answered within {within_s:.1f} s")
        return answers[0][0]

    async def reacts(self, after: str) -> None:
        """See that the platform still obeys: a checkpoint is answered, or at least a ping. Raises Broken."""
        await self.peer.wait_until(lambda: self.peer.close_code is not None, 0.3)
        if self.peer.at_end or self.peer.close_code is not None:
            broken(f"{after} it ended the stream{self._code()}")
        if self.dialect.has_marks and self.two_way:
            name = await self.mark()
            await self.peer.wait_until(lambda: bool(self.answers_to(name)), ANSWER_S)
            expect(bool(self.answers_to(name)), f"{after} it answers no checkpoint any more")
        elif isinstance(self.peer, WebSocketPeer):
            expect(await self.peer.ping(ANSWER_S) is not None, f"{after} it answers no ping any more")

    def _code(self) -> str:
        code = self.peer.close_code
        return f" with {code}" if code is not None else " without a close"

    two_way = True
    """Whether the platform lets the application play; found out by the first checkpoint."""

    def check_open(self) -> None:
        """Raise NotApplicable when there is no stream (any more)."""
        if self.started is None:
            skip("no stream was started")
        if self.peer.at_end or self.peer.close_code is not None:
            skip("the stream is over")

    @property
    def tolerance_s(self) -> float:
        return self.target.tolerance_ms / 1000


def websocket_of(peer: MessagePeer) -> WebSocketPeer:
    """Return the peer as a WebSocket's. Raises NotApplicable."""
    if not isinstance(peer, WebSocketPeer):
        skip("this wire does not travel on a WebSocket")
    return peer
