"""The call's own source: what the call server itself plays to the caller, beside the streams.

It is a stream without a wire: its own queue, bound, marks and clear in the same path, mixed with the others. `play`
hands its audio to the call's playback task, which feeds the queue as room allows, so any length can be played in
bounded memory: what waits is a view of the program's own array.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import trio

from talkpath._native import ffi, lib
from talkpath.audio import PLAYABLE_RATES_HZ, samples_of
from talkpath.dsp.mix import gain_db_x100, steady
from talkpath.engine.barge_in import SourceBargeIn
from talkpath.engine.leg import DIGITS_MAX
from talkpath.errors import CallEnded, ConfigError, NativeError, PlayoutFull
from talkpath.events import MediaFormat, SourceCleared
from talkpath.path.arena import new_struct
from talkpath.path.barge_in import BargeIn, Interruption, check_policy
from talkpath.path.stream import native_format
from talkpath.records import EndReason, Outcome, Played

if TYPE_CHECKING:
    from talkpath.engine.call import Call

BOUND_MS = 5_000
"""Audio in the queue; what waits beyond is held by `play`."""
FEED_PAUSE_S = 0.5
MAX_PLAYS = 64
"""Plays under way in one call, the sounding one and those behind it."""
NOTHING = memoryview(b"")
Scale = Callable[[npt.NDArray[np.int16]], npt.NDArray[np.int16]]
DIGITS = re.compile(r"[0-9*#A-Da-d]+", re.ASCII)
EVENT_MARK, EVENT_DIGITS_SENT = 2, 6
FULL, NOT_NOW = -4, -5
OUTCOMES = {1: Outcome.PLAYED, 2: Outcome.CLEARED, 3: Outcome.LOST}


class _Play:
    """One `play`: what it has brought to the caller's ear so far."""

    def __init__(self, epoch: int, gain_db: float) -> None:
        self.epoch = epoch
        self.gain_db = gain_db
        self._scales: dict[int, Scale | None] = {}
        self.given = 0
        self.heard = 0
        """Both in samples at the leg's rate; what was heard is known once the queue has moved on or was dropped."""
        self.exact = True

    def scale(self, rate_hz: int) -> Scale | None:
        """What brings its audio of one rate to its gain; None: nothing."""
        if rate_hz not in self._scales:
            self._scales[rate_hz] = steady(self.gain_db, rate_hz)
        return self._scales[rate_hz]


class _Piece:
    """A run of audio, or (no bytes) the end of a play."""

    def __init__(self, play: _Play, data: memoryview, rate_hz: int) -> None:
        self.play = play
        self.data = data
        """Bytes to be queued next: a view, so that taking some off the front of an hour copies nothing."""
        self._unscaled = NOTHING
        """Bytes after them, where they are scaled a second at a time."""
        self.rate_hz = rate_hz
        if data and play.scale(rate_hz) is not None:
            self._unscaled = data
            self._scale_next()
        self.n_queued = 0
        """Samples of it that have gone into the queue, at its own rate."""
        self.outcome: Outcome | None = None
        self.settled = trio.Event()

    def take(self, n_samples: int) -> None:
        """So many have been queued."""
        self.n_queued += n_samples
        self.data = self.data[2 * n_samples :]
        if not self.data and self._unscaled:
            self._scale_next()

    def _scale_next(self) -> None:
        scale = self.play.scale(self.rate_hz)
        assert scale is not None
        second, self._unscaled = self._unscaled[: 2 * self.rate_hz], self._unscaled[2 * self.rate_hz :]
        self.data = scale(np.frombuffer(second, np.int16)).view(np.uint8).data

    def settle(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.settled.set()


class Source:
    """See the module; made by the call when first needed."""

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index
        self._native = new_struct("tp_stream")
        self._config = config = new_struct("tp_stream_config")
        config.role = 1
        config.framing = 2
        config.format = native_format(call.leg.media_format)
        config.tracks = 0
        config.bidirectional = 1
        config.message_ms = call.leg.ptime_ms
        config.bound_ms = BOUND_MS
        config.reserve_ms = 1000
        config.max_message_bytes = 1 << 20
        pool, rate = call.engine.pool.native, call.leg.media_format.sample_rate_hz
        if lib.tp_stream_init(self._native, pool, config, rate, call.clock.now_ns()) < 0:
            raise CallEnded(EndReason.NO_CAPACITY)
        if lib.tp_path_attach(call.path, index, self._native) < 0:
            raise ConfigError("the call has no room for another source")
        self._plays = 0
        self._pieces: deque[_Piece] = deque()
        self._sounding: deque[_Piece] = deque()
        """Pieces of which something may still wait in the queue, oldest first."""
        self._sounding_samples = 0
        self._marked: dict[int, _Piece] = {}
        self._next_mark = 1
        self._epoch = 0
        self._lot = trio.lowlevel.ParkingLot()
        self._sending: list[trio.Event] = []
        """Set when the digits that are on their way have gone out, or never will."""
        self._closed = False
        self._held = False
        self.barge_in: SourceBargeIn | None = None

    def on_native_event(self, event: Any) -> None:
        if event.kind == EVENT_MARK:
            piece = self._marked.pop(int(event.id), None)
            if piece is not None:
                piece.settle(OUTCOMES[event.value])
        elif event.kind == EVENT_DIGITS_SENT:
            self.on_digits_sent()

    def is_heard(self) -> bool:
        """Whether anything handed to `play`, or to come from what it was handed, is still to be heard."""
        return self._plays > 0 or int(lib.tp_stream_queued_samples(self._native)) > 0

    def hold(self, held: bool) -> None:
        """Rest at the next sample, or go on with it; digits that hold the audio have the last word. In the step."""
        self._held = held
        if not self.call.leg.holds_audio(self.index):
            lib.tp_stream_pause(self._native, held)

    def on_audio_let_go(self) -> None:
        """A leg that held the audio for digits has let it go on."""
        if self._held:
            lib.tp_stream_pause(self._native, True)

    def set_barge_in(self, policy: BargeIn | None, suspicion_ms: int) -> None:
        """See `Call.barge_in`."""
        interruption = Interruption(suspicion_ms)
        if policy is not None:
            check_policy(policy)
        if self.barge_in is not None:
            self.barge_in.close()
        self.barge_in = None if policy is None else SourceBargeIn(self.call, self, policy, interruption)

    def barged_in(self, now_ns: int) -> None:
        """The caller speaks: drop everything; in the step."""
        self.call.note(SourceCleared("", self.drop(now_ns)))

    def on_digits_sent(self) -> None:
        """All digits of this source have gone out."""
        waiting, self._sending = self._sending, []
        for sent in waiting:
            sent.set()

    def close(self) -> None:
        """The call is ending: everything queued is lost. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._drop(Outcome.LOST)
        if self.barge_in is not None:
            self.barge_in.close()
            self.barge_in = None
        lib.tp_path_detach(self.call.path, self.index)
        self._pull_events()
        self.on_digits_sent()

    def _drop(self, outcome: Outcome) -> None:
        """Settle what waits to be queued, and reckon up what was heard; the queue is then to be emptied."""
        self._reckon()
        waiting = int(lib.tp_stream_queued_samples(self._native))
        for piece in reversed(self._sounding):
            unheard = min(waiting, piece.n_queued)
            waiting -= unheard
            self._credit(piece, piece.n_queued - unheard)
        self._sounding.clear()
        self._sounding_samples = 0
        for piece in self._pieces:
            piece.settle(outcome)
        self._pieces.clear()

    def _reckon(self) -> None:
        """Forget the pieces that have been heard to their end."""
        waiting = int(lib.tp_stream_queued_samples(self._native))
        while self._sounding and self._sounding_samples - self._sounding[0].n_queued >= waiting:
            piece = self._sounding.popleft()
            self._sounding_samples -= piece.n_queued
            self._credit(piece, piece.n_queued)
            piece.n_queued = 0

    def _credit(self, piece: _Piece, n_heard: int) -> None:
        piece.play.heard += self._at_leg_rate(n_heard, piece.rate_hz)

    def _at_leg_rate(self, n_samples: int, rate_hz: int) -> int:
        return n_samples * self.call.leg.media_format.sample_rate_hz // rate_hz

    def _pull_events(self) -> None:
        event = ffi.new("tp_event *")
        while lib.tp_stream_next_event(self._native, event) == 1:
            self.on_native_event(event)

    async def feed(self) -> None:
        """Move what `play` was given into the queue, as room allows; run by the call's playback task."""
        while True:
            while self._pieces:
                piece = self._pieces[0]
                took = await self.call.commands.perform(partial(self._move, piece))
                if piece.data and took == 0:
                    await trio.sleep(FEED_PAUSE_S)
            await self._lot.park()

    def _move(self, piece: _Piece, now_ns: int) -> int:
        """Put what fits of the first piece into the queue, or its mark; in the step. -> samples taken"""
        if not self._pieces or self._pieces[0] is not piece:
            return 1  # cleared, or withdrawn by whoever played it
        if not piece.data:
            self._pieces.popleft()
            self._mark(piece)
            return 1
        self._reckon()
        data = piece.data
        native = native_format(MediaFormat("L16", piece.rate_hz), PLAYABLE_RATES_HZ)
        took = max(int(lib.tp_stream_play(self._native, native, ffi.from_buffer("uint8_t[]", data), len(data))), 0)
        if took:
            if not self._sounding or self._sounding[-1] is not piece:
                self._sounding.append(piece)
            piece.take(took)
            self._sounding_samples += took
            if not piece.data:
                self._pieces.popleft()
                piece.settle(Outcome.PLAYED)
        return took

    def _mark(self, piece: _Piece) -> None:
        ident = self._next_mark
        self._next_mark += 1
        if lib.tp_stream_mark(self._native, ident) < 0:
            piece.settle(Outcome.LOST)
        else:
            self._marked[ident] = piece

    def _push(self, play: _Play, pcm: npt.NDArray[np.int16], rate_hz: int) -> _Piece:
        self.call.check_live()
        piece = _Piece(play, pcm.view(np.uint8).data, rate_hz)
        play.given += self._at_leg_rate(len(pcm), rate_hz)
        play.exact = play.exact and rate_hz == self.call.leg.media_format.sample_rate_hz
        self._pieces.append(piece)
        self._lot.unpark_all()
        return piece

    async def play(self, audio: object, sample_rate_hz: int | None, gain_db: float = 0.0) -> Played:
        """Play audio, or pieces of it as they come; one piece ahead of the queue at most."""
        if self._plays >= MAX_PLAYS:
            raise PlayoutFull(f"{MAX_PLAYS} plays wait in this call already; await one before the next")
        gain_db_x100(gain_db)
        play = _Play(self._epoch, gain_db)
        end = _Piece(play, NOTHING, 0)
        pieces = [end]
        self._plays += 1
        try:
            if isinstance(audio, AsyncIterable):
                chunks = aiter(audio)
                try:
                    async for chunk in chunks:
                        pcm, rate_hz = samples_of(chunk, sample_rate_hz)
                        if self._closed or self._epoch != play.epoch:
                            break
                        if len(pcm):
                            piece = self._push(play, pcm, rate_hz)
                            pieces = [piece, end]
                            await piece.settled.wait()
                finally:
                    if isinstance(chunks, AsyncGenerator):
                        await chunks.aclose()  # Left half read, its clean-up would be the garbage collector's.
            else:
                pcm, rate_hz = samples_of(audio, sample_rate_hz, or_file=True)
                if len(pcm):
                    pieces = [self._push(play, pcm, rate_hz), end]
            if self._epoch != play.epoch:
                return Played(play.heard, Outcome.CLEARED, play.exact)
            if self._closed:
                return Played(play.heard, Outcome.LOST, play.exact)
            self._pieces.append(end)
            self._lot.unpark_all()
            await end.settled.wait()
        finally:
            self._plays -= 1
            for piece in pieces:
                self._withdraw(piece)
        assert end.outcome is not None
        return Played(play.given if end.outcome is Outcome.PLAYED else play.heard, end.outcome, play.exact)

    def _withdraw(self, piece: _Piece) -> None:
        """Nobody waits for it any more: what of it has not been queued is not going to be."""
        if piece.outcome is None and piece in self._pieces:
            self._pieces.remove(piece)

    def set_gain(self, gain_db: float) -> None:
        """Play all of it so loud from now on; in the step."""
        lib.tp_path_set_gain(self.call.path, self.index, gain_db_x100(gain_db))

    async def clear(self) -> int:
        """Drop everything queued and everything handed to `play`; return the samples dropped from the queue."""
        return await self.call.commands.perform(self.drop)

    def drop(self, now_ns: int) -> int:
        """Do what `clear` says; in the step."""
        self._epoch += 1
        if self.barge_in is not None:
            self.barge_in.gone()
        with self.call.driver.paused():  # what was heard is reckoned, and nothing more is
            self._drop(Outcome.CLEARED)
            dropped = int(lib.tp_path_clear(self.call.path, self.index))
            self.hold(False)
        self._pull_events()
        return dropped

    async def send_digits(self, digits: str) -> None:
        """Send digits; return when they have gone out."""
        if not isinstance(digits, str) or not DIGITS.fullmatch(digits):
            raise ConfigError("digits to send are one or more of 0-9 * # A-D")
        sent = trio.Event()

        def send(now_ns: int) -> int:
            with self.call.driver.paused():  # those before may have gone out just now, and these have not
                self.call.pull_events(now_ns)
                if self._closed:
                    sent.set()
                    return 0
                status = self.call.leg.send_digits(self.index, self._native, digits)
                if status >= 0:
                    self._sending.append(sent)
            return status

        status = await self.call.commands.perform(send)
        if status == NOT_NOW:
            raise ConfigError(
                "the leg has no telephone-event and no inband_digits: digits cannot be sent to this caller"
            )
        if status == FULL:
            raise PlayoutFull(f"no more than {DIGITS_MAX} digits may wait to go out; wait until some have")
        if status < 0:
            raise NativeError(f"digits were refused with status {status}")
        await sent.wait()
        self.call.check_live()
