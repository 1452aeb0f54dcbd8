"""The call's own source: what the call server itself plays to the caller, beside the streams.

It is a stream without a wire: its own queue, bound, marks and clear in the same path, mixed with the others. `play`
hands its audio to the call's playback task, which feeds the queue as room allows, so any length can be played in
bounded memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import trio

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk, AudioClip
from talkpath.errors import CallEnded, ConfigError, FormatError
from talkpath.events import MediaFormat
from talkpath.path.stream import native_format
from talkpath.records import EndReason, Outcome, Played

if TYPE_CHECKING:
    from talkpath.engine.call import Call

BOUND_MS = 5_000
"""Audio in the queue; what waits beyond is held by `play`."""
FEED_PAUSE_S = 0.5
RATES_HZ = (8000, 16000, 24000, 48000)
EVENT_MARK = 2
OUTCOMES = {1: Outcome.PLAYED, 2: Outcome.CLEARED, 3: Outcome.LOST}


class _Piece:
    """A run of audio, or (no bytes) the end of a play."""

    def __init__(self, data: bytes, rate_hz: int) -> None:
        self.data = data
        self.rate_hz = rate_hz
        self.outcome: Outcome | None = None
        self.settled = trio.Event()

    def settle(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.settled.set()


class Source:
    """See the module; made by the call when first needed."""

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index
        self._native = ffi.new("tp_stream *")
        self._config = config = ffi.new("tp_stream_config *")
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
        self._pieces: deque[_Piece] = deque()
        self._marked: dict[int, _Piece] = {}
        self._next_mark = 1
        self._lot = trio.lowlevel.ParkingLot()
        self._closed = False

    def on_native_event(self, event: Any) -> None:
        if event.kind == EVENT_MARK:
            piece = self._marked.pop(int(event.id), None)
            if piece is not None:
                piece.settle(OUTCOMES[event.value])

    def close(self) -> None:
        """The call is ending: everything queued is lost. Idempotent."""
        if self._closed:
            return
        self._closed = True
        lib.tp_path_detach(self.call.path, self.index)
        self._drop(Outcome.LOST)
        for piece in self._marked.values():
            piece.settle(Outcome.LOST)
        self._marked.clear()

    def _drop(self, outcome: Outcome) -> None:
        for piece in self._pieces:
            piece.settle(outcome)
        self._pieces.clear()

    async def feed(self) -> None:
        """Move what `play` was given into the queue, as room allows; run by the call's playback task."""
        while True:
            while self._pieces:
                piece = self._pieces[0]
                if not piece.data:
                    self._pieces.popleft()
                    await self.call.commands.perform(partial(self._mark, piece))
                    continue
                took = await self.call.commands.perform(partial(self._write, piece))
                if not piece.data:
                    if self._pieces and self._pieces[0] is piece:
                        self._pieces.popleft()
                    piece.settle(Outcome.PLAYED)
                elif took == 0:
                    await trio.sleep(FEED_PAUSE_S)
            await self._lot.park()

    def _write(self, piece: _Piece, now_ns: int) -> int:
        if piece.outcome is not None:
            piece.data = b""
            return 0
        data = piece.data
        native = native_format(MediaFormat("L16", piece.rate_hz))
        took = int(lib.tp_stream_play(self._native, native, ffi.from_buffer("uint8_t[]", data), len(data)))
        piece.data = data[2 * max(took, 0) :]
        return took

    def _mark(self, piece: _Piece, now_ns: int) -> None:
        if piece.outcome is not None:
            return
        ident = self._next_mark
        self._next_mark += 1
        if lib.tp_stream_mark(self._native, ident) < 0:
            piece.settle(Outcome.LOST)
        else:
            self._marked[ident] = piece

    def _push(self, pcm: npt.NDArray[np.int16], rate_hz: int) -> _Piece:
        self.call.check_live()
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise FormatError(f"audio to play is one-dimensional int16, not {pcm.ndim}-dimensional {pcm.dtype}")
        if rate_hz not in RATES_HZ:
            rates = ", ".join(map(str, RATES_HZ))
            raise FormatError(f"audio of {rate_hz} Hz cannot be played; convert it to one of {rates} Hz")
        piece = _Piece(pcm.tobytes(), rate_hz)
        self._pieces.append(piece)
        self._lot.unpark_all()
        return piece

    async def play(self, audio: object) -> Played:
        """Play a clip, a chunk, or chunks as they come; one chunk ahead of the queue at most."""
        samples = 0
        pieces: list[_Piece] = []
        try:
            if isinstance(audio, AudioClip | AudioChunk):
                if len(audio.samples):
                    pieces.append(self._push(audio.samples, audio.sample_rate_hz))
                    samples = len(audio.samples)
            elif isinstance(audio, AsyncIterable):
                async for chunk in audio:
                    if not isinstance(chunk, AudioClip | AudioChunk):
                        raise FormatError(f"play() takes audio chunks, not {type(chunk).__name__}")
                    if len(chunk.samples):
                        pieces = [self._push(chunk.samples, chunk.sample_rate_hz)]
                        samples += len(chunk.samples)
                        await pieces[0].settled.wait()
            else:
                raise FormatError(
                    f"play() takes an AudioClip, an AudioChunk or an async iterable of them, not {type(audio).__name__}"
                )
            self.call.check_live()
            end = _Piece(b"", 0)
            pieces.append(end)
            self._pieces.append(end)
            self._lot.unpark_all()
            await end.settled.wait()
        except trio.Cancelled:
            for piece in pieces:
                piece.settle(Outcome.CLEARED)
            raise
        assert end.outcome is not None
        played = end.outcome is Outcome.PLAYED
        return Played(samples if played else 0, end.outcome, played)

    async def clear(self) -> int:
        """Drop everything queued and everything handed to `play`; return the samples dropped from the queue."""

        def drop(now_ns: int) -> int:
            self._drop(Outcome.CLEARED)
            dropped = int(lib.tp_path_clear(self.call.path, self.index))
            event = ffi.new("tp_event *")
            while lib.tp_stream_next_event(self._native, event) == 1:
                self.on_native_event(event)
            return dropped

        return await self.call.commands.perform(drop)

    async def send_digits(self, digits: str) -> None:
        """Queue digits; return when they have been taken."""
        text = digits.encode("ascii", "replace")
        status = await self.call.commands.perform(
            lambda now_ns: int(lib.tp_path_send_digits(self.call.path, self.index, text, len(text), 0, 0))
        )
        if status < 0:
            raise ConfigError("the leg has no telephone-event, or the digits are not of 0-9 * # A-D")
