"""A `Line`: what a Trio program holds of one call while a platform streams it.

Theory of operation. A line is a native stream in the application's role: it takes the call's tracks out of media
messages into rings that listeners read with cursors of their own, and sends what the program says, at most
`send_ahead_ms` ahead of a model of what has been played. Everything that touches the stream happens in the driver's
step; the program's calls hand over commands, which a step applies in order. The one exception is a piece of speech that
is behind nothing but queued speech and within the line's own reserve: it is queued as it is said, because no step could
tell the difference. State lies in the rings, and a wake is only a hint, so a cancelled reader loses nothing.

What it says is `Speech`, what it hears `Hearing`, `Checkpoints` keeps the positions whose outcome is open.
`DrivenLine` is the side that the step touches, `SpeakingLine` the one that a program speaks to.

*Positions.* Most wires do not say where in the outbound track something happened, so `at_sample` here is an estimate
from the inbound track, whose clock is the same (`exact=False`), and what `play` reports after a clear is the model's.
The native wire does say it. There all of them, the estimates too, count samples of the call's own clock
(`LineInfo.clock_rate_hz`) since the stream began, whatever rate the stream's audio has; elsewhere the two are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType

import trio

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk
from talkpath.errors import CallEnded, ConfigError, NotOnThisWire, PlayoutFull
from talkpath.events import (
    Clear,
    HangUp,
    Interrupt,
    Mark,
    Pause,
    QueryStatistics,
    SendDigits,
    StreamStarted,
)
from talkpath.line.checkpoint import Checkpoint, Checkpoints
from talkpath.line.config import LineConfig, LineInfo, LineRecord
from talkpath.line.hearing import Hearing
from talkpath.line.holding import PROGRAM, SUSPICION, can
from talkpath.line.listen import AudioHook, DigitEar, Digits, Listener
from talkpath.line.questions import ANSWER_S, Questions
from talkpath.line.recorded import RecordedLine
from talkpath.line.speech import Speech
from talkpath.path.pool import Pool
from talkpath.path.stream import Stream, StreamOptions, native_format, tracks_of
from talkpath.records import EndReason, LineStatistics, Played
from talkpath.transport.carrier import Carriage
from talkpath.transport.clock import Clock
from talkpath.transport.commands import Commands
from talkpath.transport.driver_pump import PumpDriver
from talkpath.transport.driver_tasks import poll_ns_of
from talkpath.transport.lifetime import Job, Lifetime
from talkpath.transport.refusals import Refusals
from talkpath.units import NS_PER_MS, samples_to_ms
from talkpath.wire.catalog import wire_named
from talkpath.wire.dialect import Dialect, Role

log = logging.getLogger("talkpath.line.line")


class Line(RecordedLine):
    """One call at the application's end; see the module. Made by `serve_lines`, `connect_line`, `line_on`."""

    __slots__ = (
        "_carriage",
        "_clears",
        "_digit_ear",
        "_ended_lot",
        "_ended_ns",
        "_full",
        "_mask_seed",
        "_over",
        "_pool",
        "_send_lot",
        "_started_ns",
        "on_ended",
        "record",
    )

    def __init__(
        self,
        clock: Clock,
        pool: Pool,
        dialect: Dialect,
        started: StreamStarted,
        carriage: Carriage,
        *,
        mask_seed: int,
        config: LineConfig,
        path: str,
    ) -> None:
        self.clock = clock
        self.driver = clock.driver
        self.driver.pools.add(pool)
        self.config = config
        self.info = LineInfo(
            dialect.wire,
            started.call_id,
            started.stream_id,
            started.account_id,
            started.tracks,
            started.media_format,
            dict(started.custom_parameters),
            path,
            started.clock_rate_hz or dialect.media_format.sample_rate_hz,
            started.from_number,
            started.to_number,
            started.direction,
        )
        self.end_reason = None
        self.cause = None
        self.record: LineRecord | None = None
        self.on_ended: Callable[[], None] | None = None
        """For whoever runs the program: called as the line ends, not in the program's task."""
        self._pool = pool
        self._dialect = dialect
        self._carriage = carriage
        self._mask_seed = mask_seed
        self._life = Lifetime()
        self._connection = None
        self._stream = None
        self._native = None
        self._rate = dialect.media_format.sample_rate_hz
        self.slot = -1
        self.on_socket = carriage.on_socket
        self.poll_ns = poll_ns_of(config.message_ms)
        self.pumped = False
        self._send_due = None
        self._send_known = False
        self._straight_hz = 0
        self._commands = Commands(self.driver, self, self._forestall)
        self._checkpoints = Checkpoints(self._here, self._on_settled)
        self._clears = 0
        self._recordings = None
        self._tape = None
        self._paused_ns = None
        self._held_by = 0
        self._can_pause = can(dialect, Pause())
        self._takes_back = not self._can_pause and wire_named(dialect.wire).clear_reaches_sent
        self._interruption = None
        self._platform_errors = 0
        self._questions: Questions | None = None
        self._pressed = None
        self._policy = self._policy_ear = None
        self._digit_ear: DigitEar | None = None
        self._barge_ins = self._suspicions = 0
        # The end.
        self._send_lot = trio.lowlevel.ParkingLot()
        self._full = False
        self._ended_lot: trio.lowlevel.ParkingLot | None = None
        self._over: trio.Event | None = None
        self._refusals = Refusals(log, f"line {self.info.stream_id}: the platform's")
        self._close_code = 1000
        self._started_ns = clock.now_ns()
        self._ended_ns = 0

    # The context manager -----------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Line:
        if self._life.used:
            raise ConfigError("a line can be entered once")
        await self._life.enter(self)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.leave(self, exc)

    def set_up(self) -> None:
        """Make the native stream and give the line to the driver."""
        options, media_format, wire = self.config, self._dialect.media_format, wire_named(self._dialect.wire)
        stream = self._stream = Stream(
            self._pool,
            StreamOptions(
                role=Role.APPLICATION,
                media_format=media_format,
                play_format=self._dialect.play_format,
                templates=(self._dialect.media_template("inbound"), None),
                shape=self._dialect.media_shape(),
                tracks=tracks_of(self.info.tracks),
                websocket=self._carriage.framed,
                masked=self._carriage.masked,
                mask_seed=self._mask_seed,
                message_ms=options.message_ms,
                bound_ms=round(options.queue_s * 1000),
                send_ahead_ms=min(options.send_ahead_ms, wire.most_ahead_ms),
                most_message_ms=max(wire.most_message_ms, options.message_ms),
                max_message_bytes=options.max_message_bytes,
            ),
            now=self.clock.now_ns(),
        )
        native = self._native = stream.native
        self._event = ffi.new("tp_event *")
        self._audio_format = native_format(media_format)
        self._hearing = Hearing(stream, media_format, self.info.tracks, options.listen_bound_ms)
        self.slot = self.driver.take_slot(self)
        self.pumped = (
            options.driver == "pump"
            and self._carriage.pumpable
            and self.driver.want_pump(media_thread=options.media_thread)
        )
        self._speech = Speech(
            native,
            self._dialect.play_format,
            self._commands,
            self._checkpoints,
            queue_s=options.queue_s,
        )
        self._straight_encoding = self._speech.encoding
        self._straight_pump = self.driver.pump_of(self)
        self._connection = self._carriage.carry(
            self.driver,
            native,
            self,
            live=False,
            writes_binary=self._dialect.writes_binary,
            max_message_bytes=options.max_message_bytes,
            mask_seed=self._mask_seed ^ 0x5DEECE66D,
            pump=(self.driver, self.slot, 0) if self.pumped and isinstance(self.driver, PumpDriver) else None,
        )
        self.driver.add_line(self)
        self._commands.put(self._connection.start)
        for message in self._dialect.greeting():
            self._commands.put(partial(self._greet, message))

    def _greet(self, message: bytes, now_ns: int) -> None:
        if self._connection is not None:
            self._connection.send_message(message)

    def jobs(self) -> tuple[Job, ...]:
        """The line's one background task: media is the driver's, and what it says is fed by whoever speaks."""
        return (self._send,)

    async def _send(self) -> None:
        """Empty the socket when it was full, or give the line up."""
        while True:
            while self._full:
                self._full = False
                assert self._connection is not None
                if not await self._connection.flush(self.config.stall_s):
                    self.end(EndReason.PEER_STALLED)
                    return
                if self.end_reason is None:
                    self.driver.command(self)  # What waited for the socket may be sent now.
            await self._send_lot.park()

    async def say_goodbye(self) -> None:
        """Close the WebSocket as far as the peer lets us."""
        connection = self._connection
        if connection is None:
            self._carriage.close()
            return
        with trio.move_on_after(self.config.goodbye_s, shield=True):
            if not connection.broken:
                await connection.close(self._close_code)
        connection.abort()

    def finish(self) -> None:
        """Write the record; nothing of the line is left."""
        statistics = self.statistics()
        self.record = LineRecord(
            self.info,
            self.end_reason or EndReason.INTERNAL_ERROR,
            type(self.cause).__name__ if self.cause is not None else "",
            (self._ended_ns - self._started_ns) // NS_PER_MS,
            statistics,
            self._recordings.records if self._recordings is not None else (),
        )
        if self._connection is None:
            # It never began, for want of room: the platform is told to try again later, if it can be told at once.
            self._carriage.decline(self._mask_seed)
        # What refers back to the line: it dies when nobody refers to it any more.
        self._connection = self._policy_ear = self._digit_ear = self.on_ended = None
        self._checkpoints.let_go()
        if self._over is not None:
            self._over.set()

    def end(self, reason: EndReason, cause: BaseException | None = None) -> None:
        """End the line now: nothing is sent or heard from here. Synchronous, idempotent; the only door."""
        if self.end_reason is not None:
            return
        self.end_reason, self.cause = reason, cause
        self._forestall()
        self._ended_ns = self.clock.now_ns()
        if reason in (
            EndReason.BLOCK_FAILED,
            EndReason.APPLICATION_FAILED,
            EndReason.INTERNAL_ERROR,
            EndReason.POLICY_FAILED,
            EndReason.HOOK_FAILED,
        ):
            self._close_code = 1011
        elif reason is EndReason.CANCELLED:
            self._close_code = 1001
        self.driver.remove(self)
        if self._connection is not None:
            self._connection.stop()
        if self._native is not None:
            self._hearing.end()
            self._speech.end(self._ended_ns)
            lib.tp_stream_close(self._native, self._inbound_position())
            # The blocks of marks go back as their outcomes are read; `lose_all` settles the checkpoints.
            while lib.tp_stream_next_event(self._native, self._event) == 1:
                pass
        self._checkpoints.lose_all()
        if self._recordings is not None:
            self._recordings.end()
        self._commands.close(reason, cause)
        self._send_known = False
        if self._pressed is not None:
            self._pressed.lot.unpark_all()
        if self._questions is not None:
            self._questions.give_up()
        if self._ended_lot is not None:
            self._ended_lot.unpark_all()
        if self.on_ended is not None:
            self.on_ended()
        self._life.cancel()
        self._journal("ended", reason.value)

    def on_full(self) -> None:
        """Bytes wait for the socket: have them flushed."""
        self._full = True
        self._send_lot.unpark_all()

    # Listening ---------------------------------------------------------------------------------------------------

    def listen(
        self, *, sample_rate_hz: int | None = None, chunk_ms: int | None = None, track: str = "inbound"
    ) -> Listener:
        """Return an iterator over a track's audio from this moment on.

        Each listener has its own cursor and bound (`LineConfig.listen_bound_ms`): a slow one loses its oldest audio,
        counted, and delays nobody. Its task is woken once a chunk, so longer chunks cost less.

        Args:
            sample_rate_hz: of the chunks; the wire's own when None.
            chunk_ms: length of each chunk, 10..500; `LineConfig.chunk_ms` when None.
            track: ``inbound`` what the caller says, ``outbound`` what it hears, where the platform sends it.

        Raises:
            ConfigError: a rate, length or track that cannot be had.
            CallEnded: the line is over.
        """
        self._check_live()
        return Listener(self._hearing, sample_rate_hz or self._rate, chunk_ms or self.config.chunk_ms, track)

    def on_audio(
        self,
        hook: Callable[[AudioChunk], object],
        *,
        sample_rate_hz: int | None = None,
        chunk_ms: int | None = None,
        track: str = "inbound",
    ) -> AudioHook:
        """Call `hook` with each chunk of a track from this moment on, until the hook is closed.

        For what has to be done to every line and takes no time: no task is woken, the call happens within the
        driver's step, where every other line waits for it. It may `speak`. When it raises, the line ends with
        ``hook_failed``.

        Args:
            hook: takes an `AudioChunk`; what it returns is ignored.
            sample_rate_hz, chunk_ms, track: as for `listen`.

        Returns:
            The hook's ear; ``close()`` ends it.

        Raises:
            ConfigError: a rate, length or track that cannot be had.
            CallEnded: the line is over.
        """
        self._check_live()

        def what(chunk: AudioChunk, now_ns: int) -> None:
            try:
                hook(chunk)
            except Exception as exc:
                self._end_by_callable("a hook", EndReason.HOOK_FAILED, exc)

        return AudioHook(self._hearing, sample_rate_hz or self._rate, chunk_ms or self.config.chunk_ms, track, what)

    def _end_by_callable(self, whose: str, reason: EndReason, exc: Exception) -> None:
        if self.end_reason is None:
            log.error("line %s: %s raised %s", self.info.stream_id, whose, type(exc).__name__, exc_info=exc)
            self.end(reason, exc)

    def digits(self) -> Digits:
        """Return an iterator over the digits the caller presses, from the line's beginning (the last 256 are kept)."""
        return Digits(self, self._digits_pressed())

    def detect_digits(self) -> None:
        """Find the caller's digits in its audio too, from this moment on, for `digits`.

        For platforms that tell no digits, or leave those of some callers in the audio. A press that is told and heard
        is one digit: two sights of one key within 500 ms are the same press, and each is used up by one other. Costs
        one call of the detector (`talkpath.dsp.ToneDetector`) per 20 ms of audio.

        Raises:
            ConfigError: the caller's track is not streamed. CallEnded: the line is over.
        """
        self._check_live()
        if self._digit_ear is None:
            self._digit_ear = DigitEar(self._hearing, self._digits_pressed())

    # Speaking ----------------------------------------------------------------------------------------------------

    async def play(self, audio: object, *, sample_rate_hz: int | None = None, gain_db: float = 0.0) -> Played:
        """Play audio and return what became of it, once that is known.

        Args:
            audio: an array (int16, mono, with `sample_rate_hz`), an `AudioClip` such as `read_audio` returns, an
                `AudioChunk`, the path of a WAV file (read here and now), or an async iterable of arrays, clips or
                chunks as a synthesiser gives them: it is read as it can be played, so a synthesiser that is faster than
                speech is held back.
            sample_rate_hz: of arrays.
            gain_db: how much louder or softer, -60 to 18 dB, minus infinity is mute; limited, not clipped.

        Returns:
            How many samples (at the line's rate) were heard, and whether all were PLAYED, or a clear (CLEARED) or the
            end of the line (LOST) came first.

        Raises:
            FormatError: audio that cannot be played. ConfigError: the gain is out of range.
            OSError: the file cannot be opened.
            CallEnded: the line was over before.

        Cancellation: what has been queued is still played; `clear` drops it.
        """
        self._check_live()
        return await self._speech.play(audio, sample_rate_hz, gain_db)

    def checkpoint(self, name: str) -> Checkpoint:
        """Set a checkpoint after everything said so far; ``await checkpoint.wait()`` tells how it came out.

        Raises:
            ConfigError: an empty name, or one of more than 256 characters.
            LocalWireError: the wire cannot carry the name.
            CallEnded: the line is over.
        """
        if not 1 <= len(name) <= 256:
            raise ConfigError(f"a checkpoint's name has 1 to 256 characters, not {len(name)}")
        self._check_live()
        if self._dialect.has_marks:
            self._dialect.check(Mark(name))  # Raises here, in the caller's frame, what is wrong with it.
        return self._speech.mark(name)

    async def clear(self) -> None:
        """Drop what has not been sent, and have the platform drop what has; return once the wire's clear is written.

        It ends a pause: what is said next is heard.

        Raises:
            NotOnThisWire: the wire has no clear.
            CallEnded: the line is over.

        Cancellation: it may still happen.
        """
        self._check_live()
        self._dialect.check(Clear())
        self._speech.clears_asked += 1
        try:
            await self._commands.perform(self._clear)
        except PlayoutFull:
            self._speech.clears_asked -= 1
            raise

    def _clear(self, now_ns: int) -> None:
        with self.driver.paused():
            # A checkpoint that is due was reached before this clear: it is sent first, and counted as cleared by it.
            self.pull_events(now_ns)
            if self.end_reason is not None:
                return
            if self._tape is not None:
                self._tape.cut(now_ns)
            self._speech.clear(now_ns)
            lib.tp_stream_clear(self._native, self._inbound_position())
            self._checkpoints.clear(now_ns, confirmed_later=self._dialect.confirms_clear)
            self._clears += 1
            self.pull_events(now_ns)
            self._write(Clear())
            if self._interruption is not None:
                self._interruption.gone()
            self._let_go(PROGRAM | SUSPICION, now_ns)
        if not self._dialect.confirms_clear and not self._dialect.returns_marks_on_clear:
            self._checkpoints.settle_cleared()
        self._speech.wake()
        self._journal("clear")

    async def platform_statistics(self) -> Mapping[str, int]:
        """Ask the platform for its own counters of this stream; return them by name.

        Raises:
            NotOnThisWire: the wire has no such question (the native wire has).
            PlayoutFull: 64 questions are unanswered.
            trio.TooSlowError: no answer within 5 s.
            CallEnded: the line is over, or was before the answer came.

        Cancellation changes nothing.
        """
        self._check_live()
        self._dialect.check(QueryStatistics())
        questions = self._questions
        if questions is None:
            questions = self._questions = Questions()
        question = questions.ask()
        try:
            self._commands.put(lambda now_ns: self._write(QueryStatistics()))
        except BaseException:
            questions.withdraw(question)
            raise
        with trio.fail_after(ANSWER_S):
            await question.settled.wait()
        if question.answer is None:
            self._check_live()
        assert question.answer is not None
        return question.answer

    async def interrupt(self, chunk: int) -> None:
        """Take back one chunk of what was sent, by its number on the wire (Teler counts media messages from 1).

        What the line's model says of the rest is off by that chunk until it has been played: `clear` is exact.

        Raises:
            NotOnThisWire: the wire's audio has no numbers.
            CallEnded: the line is over.

        Cancellation: it may still happen.
        """
        self._check_live()
        self._dialect.check(Interrupt(chunk))
        await self._commands.perform(lambda now_ns: self._write(Interrupt(chunk)))

    async def drain(self) -> None:
        """Wait until everything said so far has been played, cleared or lost; at once when nothing is unheard.

        Cancellation changes nothing.
        """
        await trio.lowlevel.checkpoint()
        if self.end_reason is not None:
            return
        self._speech.let_out_tails()
        if self._speech.is_heard(self.clock.now_ns()):
            await self._speech.mark_here().wait()

    async def send_digits(self, digits: str) -> None:
        """Have the platform send digits to the caller; return once the message is written.

        Raises:
            LocalWireError: characters the wire does not know.
            NotOnThisWire: the wire has no such message.
            CallEnded: the line is over.
        """
        self._check_live()
        self._dialect.check(SendDigits(digits))  # Raises here, in the caller's frame, what is wrong with them.
        await self._commands.perform(lambda now_ns: self._write(SendDigits(digits)))

    async def hang_up(self) -> None:
        """End the line in the way the wire has, at once: what is queued is dropped (`drain` first to have it heard).

        Cancellation: the line is ended all the same.
        """
        try:
            if self.end_reason is None:
                self._dialect.send(HangUp())
                await self._commands.perform(lambda now_ns: self._write(HangUp()))
        except (NotOnThisWire, CallEnded):
            pass  # Closing the WebSocket says it; or somebody else has.
        finally:
            self.end(EndReason.APPLICATION_HUNG_UP)
        if self.record is None and self._over is None:
            self._over = trio.Event()
        if self._over is not None:
            await self._over.wait()

    # The end, seen from the program ------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether the line is over."""
        return self.end_reason is not None

    async def wait_ended(self) -> EndReason:
        """Wait until the line is over; return why. Cancellation changes nothing."""
        if self.end_reason is None:
            if self._ended_lot is None:
                self._ended_lot = trio.lowlevel.ParkingLot()
            await self._ended_lot.park()
        else:
            await trio.lowlevel.checkpoint()
        assert self.end_reason is not None
        return self.end_reason

    def _here(self) -> int:
        """Estimate the present sample of the outbound track, in `LineInfo.clock_rate_hz`."""
        return self._inbound_position() * self.info.clock_rate_hz // self._rate

    def _check_live(self) -> None:
        if self.end_reason is not None:
            raise CallEnded(self.end_reason, self.cause)
        if self._native is None:
            raise ConfigError("the line has not been entered; write `async with line:`")

    def statistics(self) -> LineStatistics:
        """Return a snapshot of the line's counters."""
        if self.record is not None:
            return self.record.statistics
        if self._native is None:
            return LineStatistics()
        counters = lib.tp_stream_statistics(self._native)
        connection = self._connection
        return LineStatistics(
            messages_received=counters.messages_in,
            messages_sent=counters.messages_out,
            received_ms=samples_to_ms(counters.samples_in, self._rate),
            sent_ms=samples_to_ms(counters.samples_out, self._rate),
            queued_ms=samples_to_ms(self._speech.queued_samples(), self._rate) if self.end_reason is None else 0,
            listener_dropped_ms=samples_to_ms(self._hearing.dropped_samples, self._rate),
            clears=self._clears,
            barge_ins=self._barge_ins,
            suspicions=self._suspicions,
            refused=dict(self._refusals.by_kind),
            pings_sent=connection.pings_sent if connection is not None else 0,
            round_trip_ms=connection.round_trip_ms if connection is not None else 0.0,
            platform_errors=self._platform_errors,
        )
