"""A call written down: both tracks, side by side on the call's sample clock, in a stereo WAV file.

The path writes each ptime of both tracks to a tape in memory, within its tick; a task of the call's takes down what is
on it about once a second, and has a thread write that to the file. So the clock never waits for a disk, and memory is
bounded by the tape: a disk that lags by more than the tape holds ends the recording with an error, since a recording
with holes would be worse than one that says where it ends. The header is put right with every write, so what a killed
process leaves can be read. In virtual time, where a thread would be invisible to the clock, the task writes itself.

At the end of the call the rest is written within the call's time for goodbyes (`EngineConfig.goodbye_s`). A thread
whose write has not come back by then can be stopped by nobody: it is left to the system, and closes the file when it
does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

from talkpath._native import ffi, lib
from talkpath.audio import WavWriter
from talkpath.errors import FormatError
from talkpath.path.tape import Pairs, Tape
from talkpath.records import RecordingRecord
from talkpath.transport.wake import Bell, Moment

if TYPE_CHECKING:
    from talkpath.engine.call import Call

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("talkpath.engine.recording")

TAPE_S = 4
"""How far a disk may lag."""
WRITE_EVERY_S = 1.0
WRITERS_MAX = 8
"""Threads that write recordings, of all calls of a Trio run together: a disk that hangs takes no others."""

_writers: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("talkpath recording writers")


class DiskTooSlow(Exception):
    """The disk lags by more than the tape holds."""


class _File:
    """The WAV file, in the hands of one thread at a time; one that was given up closes it when it comes back."""

    def __init__(self, path: str | os.PathLike[str], sample_rate_hz: int) -> None:
        self._writer = WavWriter(path, sample_rate_hz, n_channels=2)
        self._lock = threading.Lock()
        self._busy = False
        self._given_up = False
        self.n_samples = 0

    def write(self, pairs: Pairs) -> None:
        self._do(self._append, pairs)

    def _append(self, pairs: Pairs) -> None:
        self._writer.write(pairs)
        self._writer.flush()
        self.n_samples = self._writer.n_samples

    def close(self) -> None:
        self._do(self._writer.close)

    def _do(self, work: Callable[..., None], *args: Pairs) -> None:
        with self._lock:
            self._busy = True
        try:
            work(*args)
        finally:
            with self._lock:
                self._busy = False
                given_up = self._given_up
            if given_up:
                self._writer.close()

    def give_up(self) -> None:
        """Close it, unless a thread still has it: then that one does."""
        with self._lock:
            self._given_up = True
            if self._busy:
                return
        self._writer.close()


class Recording:
    """One recording of a call; made by `Call.record_to`. See the module."""

    def __init__(self, call: Call, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.sample_rate_hz = call.leg.media_format.sample_rate_hz
        self.at_sample = 0
        """The call's sample that is the file's first."""
        self.error = ""
        """Why it ended before it was stopped or the call was over; empty: it did not."""
        self.record: RecordingRecord | None = None
        """Once it has ended."""
        self.begun = False
        """Whether the tape runs."""
        self._call = call
        self._file: _File
        self._tape: Tape
        self._bell = Bell()
        self._ending = False
        self._scope: trio.CancelScope | None = None
        """Of the writing under way."""
        self._ended = Moment()

    @property
    def n_samples(self) -> int:
        """Samples of each track in the file so far."""
        return self._file.n_samples

    async def stop(self) -> RecordingRecord:
        """End it now, at the next tick; return what became of it, once the file is complete.

        Cancellation: it ends all the same.
        """
        self.end()
        return await self.wait_ended()

    async def wait_ended(self) -> RecordingRecord:
        """Wait until it has been stopped, has failed, or the call is over; return what became of it.

        Cancellation changes nothing.
        """
        await self._ended.wait()
        assert self.record is not None
        return self.record

    # The call's side ---------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Create the file and put in a tape."""
        self._file = await self._at_the_disk(_File, self.path, self.sample_rate_hz)
        try:
            await self._call.commands.perform(self._put_in_tape)
            self._call.start_soon(self._run)
        except BaseException:
            self._take_out_tape()
            self._file.give_up()
            raise

    def end(self) -> None:
        """Record nothing more, and write the rest. Synchronous, idempotent."""
        if self._ending:
            return
        self._ending = True
        self._take_out_tape()
        self._hurry()
        self._bell.ring()

    def _hurry(self) -> None:
        if self._scope is not None and self._call.end_reason is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._call.engine.config.goodbye_s)

    def _put_in_tape(self, now_ns: int) -> None:
        path = self._call.path
        self.at_sample = int(lib.tp_path_clock(path))
        self._tape = Tape(round(TAPE_S * self.sample_rate_hz), self.at_sample)
        lib.tp_path_record(path, self._tape.native)
        self.begun = True

    def _take_out_tape(self) -> None:
        """At once: what is on it has been, and nothing that sounds depends on it."""
        if self._call.path is not None:
            lib.tp_path_record(self._call.path, ffi.NULL)

    # The task ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._ending:
                with trio.move_on_after(WRITE_EVERY_S):
                    await self._bell.wait()
                if not self._ending:
                    await self._write_down()
        finally:
            self._ending = True
            if not self.error:
                await self._write_down(last=True)
            self.record = RecordingRecord(self.path, self.at_sample, self.n_samples, self.sample_rate_hz, self.error)
            self._call.recording_gone(self.record)
            self._ended.set()

    async def _write_down(self, *, last: bool = False) -> None:
        """Bring what is on the tape to the file; nothing but time cuts it short, and a call that ends gives less."""
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TAPE_S) as self._scope:
                self._hurry()
                taken = self._tape.read(round(TAPE_S * self.sample_rate_hz))
                if not taken.lost:
                    await self._at_the_disk(self._file.write, taken.pairs)
                    if last:
                        await self._at_the_disk(self._file.close)
                    return
            raise DiskTooSlow(f"the disk lagged by more than {TAPE_S} s, or did not take the end in time")
        except (OSError, FormatError, DiskTooSlow) as exc:
            self._fail(exc)
        finally:
            self._scope = None

    def _fail(self, exc: Exception) -> None:
        self.error = f"{type(exc).__name__}: {exc}"
        log.error("call %s: its recording ended: %s", self._call.call_id, self.error)
        self._take_out_tape()
        self._ending = True
        with suppress(OSError):
            self._file.give_up()

    async def _at_the_disk(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._call.clock.virtual:
            await trio.lowlevel.checkpoint()
            return work(*args)
        return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=_limiter())


def _limiter() -> trio.CapacityLimiter:
    try:
        return _writers.get()
    except LookupError:
        limiter = trio.CapacityLimiter(WRITERS_MAX)
        _writers.set(limiter)
        return limiter
