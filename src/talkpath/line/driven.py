"""A line as its driver and its connection see it: what is done to it in a step, and only there.

The native stream does what happens to every message; of it, Python hears only what the line asked for: somebody's
chunk is whole, a checkpoint is to be written, the queue has become short, a moment has come. So a driver of many lines
calls `pull_events` where a stream has events and leaves the others alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from talkpath._native import lib
from talkpath.errors import NativeError, RemoteWireError
from talkpath.events import (
    BufferDepth,
    Cleared,
    Digit,
    DigitsSent,
    Mark,
    MarkReached,
    Media,
    PlatformError,
    PlatformStatistics,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.line.checkpoint import Checkpoint, Checkpoints
from talkpath.line.listen import Pressed
from talkpath.line.questions import speakable
from talkpath.path.stream import NEVER, OUTCOMES, EventKind, Track, native_format, tracks_of
from talkpath.records import EndReason, Outcome

if TYPE_CHECKING:
    from talkpath.line.config import LineInfo
    from talkpath.line.hearing import Hearing
    from talkpath.line.questions import Questions
    from talkpath.line.speech import Speech
    from talkpath.transport.carrier import Carrier
    from talkpath.transport.clock import Clock
    from talkpath.transport.commands import Commands
    from talkpath.transport.driver_tasks import TasksDriver
    from talkpath.transport.refusals import Refusals
    from talkpath.wire.dialect import Dialect

log = logging.getLogger("talkpath.line.line")

# Plain integers: an enum's arithmetic costs more than the work.
AUDIO = int(EventKind.AUDIO)
MARK_DUE = int(EventKind.MARK_DUE)
MARK = int(EventKind.MARK)
LOW = int(EventKind.LOW)
ALARM = int(EventKind.ALARM)
INBOUND = int(Track.INBOUND)


ERRORS_LOGGED = 5
"""Of what a platform reports on one line; all are counted."""


class DrivenLine:
    """The side of a `Line` that only the step touches; see the module."""

    __slots__ = (
        "_audio_format",
        "_checkpoints",
        "_close_code",
        "_commands",
        "_connection",
        "_dialect",
        "_event",
        "_full",
        "_hearing",
        "_native",
        "_paused_ns",
        "_platform_errors",
        "_pressed",
        "_questions",
        "_refusals",
        "_send_due",
        "_send_known",
        "cause",
        "clock",
        "driver",
        "end_reason",
        "info",
        "on_socket",
        "poll_ns",
        "pumped",
        "slot",
    )

    hears_media = True

    clock: Clock
    driver: TasksDriver
    info: LineInfo
    slot: int
    on_socket: bool
    poll_ns: int
    pumped: bool
    end_reason: EndReason | None
    cause: BaseException | None
    _native: Any
    _event: Any
    _dialect: Dialect
    _connection: Carrier | None
    _commands: Commands
    _checkpoints: Checkpoints
    _hearing: Hearing
    _speech: Speech
    _refusals: Refusals
    _pressed: Pressed | None
    _send_due: int | None
    _send_known: bool
    _close_code: int
    _audio_format: tuple[int, int]
    """The stream's, as the native core writes it."""
    _paused_ns: int | None
    """Since when the far end holds what it has."""
    _platform_errors: int
    _questions: Questions | None

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """End the line now."""
        raise NotImplementedError

    def _on_time(self, now_ns: int) -> None:
        """A moment has come that was waited for."""
        raise NotImplementedError

    def _set_alarm(self) -> None:
        """Have an ALARM come when the next thing is due that nobody else tells of."""
        raise NotImplementedError

    def on_full(self) -> None:
        """Bytes wait for the socket."""
        raise NotImplementedError

    # What the driver calls ---------------------------------------------------------------------------------------

    def run_commands(self, now_ns: int) -> None:
        """Apply what tasks asked for."""
        self._commands.run(now_ns)
        self._reschedule(now_ns)

    def _reschedule(self, now_ns: int) -> None:
        """What is to be sent may have changed, and with it when."""
        self._send_known = False
        if self.end_reason is None:
            if self.pumped:
                self.driver.rearm(self, now_ns)
            else:
                self.driver.reschedule(self)

    @property
    def name(self) -> str:
        """For the log."""
        return f"line {self.info.stream_id}"

    @property
    def native(self) -> Any:
        """The native stream."""
        return self._native

    def next_send_ns(self) -> int | None:
        """Return when the stream is to be ticked, for a driver that does not tick it anyway."""
        if not self._send_known:
            self._send_known = True
            if self.end_reason is not None or self._connection is None or self._connection.backlogged():
                self._send_due = None  # What is said is never dropped: it waits until the socket has taken more.
            else:
                due = int(lib.tp_stream_next_deadline(self._native))
                self._send_due = None if due == NEVER else due
        return self._send_due

    def tick(self, now_ns: int) -> None:
        """Send what the model allows, and act on what came of it."""
        assert self._connection is not None
        if not self._connection.backlogged():
            self._tick_stream(now_ns)
        self.pull_events(now_ns)

    def _tick_stream(self, now_ns: int) -> None:
        driver = self.driver
        if lib.tp_stream_tick(self._native, self.slot, now_ns, driver.outbox) < 0:
            raise NativeError("a line found no room in an empty outbox")
        driver.flush_outbox()

    @property
    def send_media(self) -> list[Callable[[memoryview], None]]:
        """The driver's way to send this line's messages."""
        assert self._connection is not None
        return [self._connection.send_media]

    def pull_events(self, now_ns: int) -> None:
        """Take the stream's events and act on them."""
        native, event = self._native, self._event
        audio_alone = False
        while self.end_reason is None and (tracks := lib.tp_stream_take_audio(native)):
            self._hearing.hear(tracks, now_ns)
            audio_alone = True
        if audio_alone:
            return  # by which nothing is to be sent earlier or later
        while self.end_reason is None and lib.tp_stream_next_event(native, event) == 1:
            kind = event.kind
            if kind == AUDIO:
                self._hearing.hear(event.value, now_ns)
            elif kind == MARK_DUE:
                self._send_mark(event.id, now_ns)
            elif kind == MARK:
                self._checkpoints.unsent(event.id, OUTCOMES[event.value])
            elif kind == LOW:
                self._speech.on_low()
            elif kind == ALARM:
                self._speech.let_out_tails(now_ns)
                self._on_time(now_ns)
        self._reschedule(now_ns)

    def _send_mark(self, ident: int, now_ns: int) -> None:
        """Send a checkpoint exactly where it lies, and then what waited behind it."""
        assert self._connection is not None
        checkpoint = self._checkpoints.due(ident, now_ns + self._speech.ahead_ns(now_ns))
        if checkpoint is not None:
            if self._dialect.has_marks:
                self._write(Mark(checkpoint.name))
            else:
                self._set_alarm()
        if self.end_reason is None and not self._connection.backlogged():
            self._tick_stream(now_ns)

    def _write(self, command: WireEvent) -> None:
        assert self._connection is not None
        numbered = self._dialect.numbered(command)
        sequence = int(lib.tp_stream_take_sequence(self._native)) if numbered else 0
        for message in self._dialect.send(command, sequence=sequence):
            self._connection.send_message(message)

    def housekeeping(self, now_ns: int) -> None:
        """Once a second: answers that are overdue, a peer that has vanished."""
        if self._paused_ns is None:
            self._checkpoints.assume(now_ns)
        if self._connection is not None and not self._connection.check_alive(now_ns):
            self.end(EndReason.PEER_VANISHED)

    def failed(self, exc: Exception) -> None:
        """Something in this line's part of a step raised."""
        log.error("line %s: %s", self.info.stream_id, type(exc).__name__, exc_info=exc)
        self.end(EndReason.INTERNAL_ERROR, exc)

    def _journal(self, kind: str, *facts: object) -> None:
        if self.driver.journal is not None:
            self.driver.journal(self.clock.now_ns(), self.slot, kind, facts)

    # What the connection hands over ------------------------------------------------------------------------------

    def on_media(self, now_ns: int) -> None:
        """The stream took media messages; for a driver that does not look at its events itself."""
        if lib.tp_stream_has_events(self._native):
            self.pull_events(now_ns)

    def on_text(self, payload: bytes, now_ns: int) -> None:
        """Act on a text message that is not plain media."""
        self._receive(self._dialect.receive, payload, now_ns)

    def _receive(self, read: Callable[[bytes], Sequence[WireEvent]], payload: bytes, now_ns: int) -> None:
        try:
            events = read(payload)
        except RemoteWireError as exc:
            self._refuse_unreadable(exc.kind)
            return
        for event in events:
            if self.end_reason is not None:
                return
            self._on_event(event, now_ns)

    def _on_event(self, event: WireEvent, now_ns: int) -> None:
        match event:
            case Media(payload=payload, track=track, media_format=media_format):
                native = native_format(media_format or self.info.media_format)
                bit = tracks_of((track,)) or Track.INBOUND
                lib.tp_stream_receive_audio(self._native, bit, native, payload, len(payload), now_ns)
                self.on_media(now_ns)
            case Digit(digit=digit):
                at_ms = self._inbound_position() * 1000 // self._audio_format[0]
                self._digits_pressed().see(digit, at_ms, lib.TP_PRESS_MESSAGE)
                self._journal("digit")
            case MarkReached(name=name, outcome=outcome, at_sample=at_sample):
                if not self._checkpoints.answered(name, outcome, at_sample):
                    self._refusals.add("unexpected_mark")
            case Cleared():
                self._checkpoints.confirmed()
            case PlatformError(message=message):
                self._platform_errors += 1
                if self._platform_errors <= ERRORS_LOGGED:
                    log.warning("%s: the platform reports: %s", self.name, speakable(message))
            case PlatformStatistics(counters=counters):
                if self._questions is None or not self._questions.answer(counters):
                    self._refusals.add("unexpected_statistics")
            case DigitsSent() | BufferDepth():
                self._journal(type(event).__name__)
            case StreamStopped(end=end):
                self.end(end or EndReason.PLATFORM_HUNG_UP)
            case StreamStarted():
                self._refusals.add("second_start")
            case UnknownMessage(kind=kind):
                self._refusals.add_unknown(kind)
            case _:
                self._refusals.add("not_the_platforms")

    def _digits_pressed(self) -> Pressed:
        if self._pressed is None:
            self._pressed = Pressed()
        return self._pressed

    def _on_settled(self, checkpoint: Checkpoint, outcome: Outcome) -> None:
        self._journal("mark", checkpoint.name, outcome.value)

    def _inbound_position(self) -> int:
        return int(lib.tp_stream_track_written(self._native, Track.INBOUND)) if self._native is not None else 0

    def _refuse_unreadable(self, kind: str) -> None:
        if self._refusals.add_unreadable(kind):
            self._close_code = 1002
            self.end(EndReason.WIRE_ERROR)

    def on_binary(self, payload: bytes, now_ns: int) -> None:
        """Act on a binary message that the native core has not read."""
        if (audio := self._dialect.plain_audio(payload)) is not None:
            native = self._native
            lib.tp_stream_receive_audio(native, INBOUND, self._audio_format, audio, len(audio), now_ns)
            if lib.tp_stream_has_events(native):
                self.pull_events(now_ns)
        else:
            self._receive(self._dialect.receive_binary, payload, now_ns)

    def on_peer_closed(self, code: int | None) -> None:
        """The platform said goodbye, or was gone without."""
        self.end(EndReason.PEER_VANISHED if code is None else EndReason.PLATFORM_HUNG_UP)

    def on_broken(self, exc: OSError) -> None:
        """The socket failed."""
        self.end(EndReason.PEER_VANISHED, exc)

    def on_protocol_error(self, exc: RemoteWireError) -> None:
        """The platform broke RFC 6455."""
        self._refusals.add(exc.kind)
        self.end(EndReason.WIRE_ERROR, exc)
        self._close_code = getattr(exc, "close_code", 1002)

    def on_overflow(self) -> None:
        """A control message found no room."""
        self.end(EndReason.CONTROL_OVERFLOW)
