"""A call written down: both tracks, side by side on one sample clock, in a stereo WAV file.

Within its step the owner, a call or a line, has both tracks written to a tape in memory; a task of the owner's takes
down what is on it about once a second, and has a thread write that to the file. So the clock never waits for a disk,
and memory is bounded by the tape: a disk that lags by more than the tape holds ends the recording with an error, since
a recording with holes would be worse than one that says where it ends. The header is put right with every write, so
what a killed process leaves can be read. In virtual time, where a thread would be invisible to the clock, the task
writes itself.

At the owner's end the rest is written within its time for goodbyes (`goodbye_s`). A thread whose write has not come
back by then can be stopped by nobody: it is left to the system, and closes the file when it does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple

import trio

from talkpath.audio import WavWriter
from talkpath.errors import ConfigError
from talkpath.path.tape import Pairs, Tape
from talkpath.records import RecordingRecord
from talkpath.transport.wake import Bell, Moment

if TYPE_CHECKING:
    from talkpath.records import EndReason
    from talkpath.transport.clock import Clock
    from talkpath.transport.commands import Commands
    from talkpath.transport.lifetime import Job

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger("talkpath.transport.recording")

TAPE_S = 4
"""How far a disk may lag."""
WRITE_EVERY_S = 1.0
RECORDS_KEPT = 64
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


class Recorded(Protocol):
    """Who is recorded: a call, or a line."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    clock: Clock
    end_reason: EndReason | None

    @property
    def rate_of_tape_hz(self) -> int:
        """Of both tracks, once they are on a tape."""
        ...

    def insert_tape(self, seconds: float) -> Tape:
        """Have both tracks written to a new tape from here on; in the step."""
        ...

    def remove_tape(self) -> None:
        """Write to it no more. Idempotent; at once, since nothing that sounds depends on it."""
        ...

    def start_soon(self, job: Job) -> None:
        """Run a task that ends with the owner."""
        ...


class Recordings:
    """The recordings of one owner, one after the other."""

    __slots__ = ("commands", "goodbye_s", "live", "owner", "records")

    def __init__(self, owner: Recorded, commands: Commands, goodbye_s: float) -> None:
        self.owner = owner
        self.commands = commands
        self.goodbye_s = goodbye_s
        self.live: Recording | None = None
        self.records: tuple[RecordingRecord, ...] = ()
        """Of those that have ended, the last 64."""

    async def begin(self, path: str | os.PathLike[str]) -> Recording:
        """Begin one; see `Call.record_to`."""
        if self.live is not None:
            raise ConfigError("this is being recorded already; stop that recording first")
        self.live = recording = Recording(self, path)
        try:
            await recording.begin()
        except BaseException:
            self.live = None
            raise
        return recording

    def end(self) -> None:
        """The owner is over."""
        if self.live is not None:
            self.live.end()

    def gone(self, record: RecordingRecord) -> None:
        """The live one is at its end."""
        self.live = None
        self.records = (*self.records, record)[-RECORDS_KEPT:]


class Recording:
    """One recording; made by `Call.record_to` and `Line.record_to`. See the module."""

    def __init__(self, of: Recordings, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.error = ""
        """Why it ended before it was stopped or its owner was over; empty: it did not."""
        self.record: RecordingRecord | None = None
        """Once it has ended."""
        self._of = of
        self._owner = of.owner
        self.sample_rate_hz = of.owner.rate_of_tape_hz
        """Of both tracks."""
        self.at_sample = 0
        """The owner's sample that is the file's first."""
        self.begun = False
        """Whether the tape runs, or ran."""
        self._file: _File
        self._tape: Tape | None = None
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
        """End it now; return what became of it, once the file is complete.

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

    # The owner's side --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Create the file and insert a tape."""
        self._file = await self._at_the_disk(_File, self.path, self.sample_rate_hz)
        try:
            await self._of.commands.perform(self._insert_tape)
            self._owner.start_soon(self._run)
        except BaseException:
            self._ending = True
            self._owner.remove_tape()
            self._file.give_up()
            raise

    def _insert_tape(self, now_ns: int) -> None:
        if not self._ending:  # whoever asked for it was cancelled meanwhile
            self._tape = self._owner.insert_tape(TAPE_S)
            self.at_sample = self._tape.begin
            self.begun = True

    def end(self) -> None:
        """Record nothing more, and write the rest. Synchronous, idempotent."""
        if not self._ending:
            self._ending = True
            self._owner.remove_tape()
            self._bell.ring()
        self._hurry()

    def _hurry(self) -> None:
        if self._scope is not None and self._owner.end_reason is not None:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + self._of.goodbye_s)

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
            self._tape = None
            self._of.gone(self.record)
            self._ended.set()

    async def _write_down(self, *, last: bool = False) -> None:
        """Bring what is on the tape to the file; nothing but time cuts it short, and an owner that ends gives less."""
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TAPE_S) as self._scope:
                self._hurry()
                assert self._tape is not None
                taken = self._tape.read()
                if not taken.lost:
                    await self._at_the_disk(self._file.write, taken.pairs)
                    if last:
                        await self._at_the_disk(self._file.close)
                    return
            raise DiskTooSlow(f"the disk lagged by more than {TAPE_S} s, or did not take the end in time")
        except Exception as exc:  # whatever it is, nobody's call ends for it
            self._fail(exc)
        finally:
            self._scope = None

    def _fail(self, exc: Exception) -> None:
        self.error = f"{type(exc).__name__}: {exc}"
        log.error("%s: its recording ended: %s", self._owner.name, self.error)
        self._owner.remove_tape()
        self._ending = True
        with suppress(OSError):
            self._file.give_up()

    async def _at_the_disk(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._owner.clock.virtual:
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
