"""What a call may do to its own sound: play its source louder or softer, and be written down.

Theory of operation. A gain belongs to a place in the path, and the path ramps it; it is set in the step, like
everything that changes a path. A recording is a tape that the path writes in its ticks, and a task that brings it to a
file (`transport.recording`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from talkpath._native import ffi, lib
from talkpath.dsp.mix import gain_db_x100
from talkpath.path.tape import Tape
from talkpath.records import EndReason
from talkpath.transport.recording import Recording, Recordings

if TYPE_CHECKING:
    from talkpath.engine.engine import Engine
    from talkpath.engine.leg import Leg
    from talkpath.engine.source import Source
    from talkpath.transport.clock import Clock
    from talkpath.transport.commands import Commands
    from talkpath.transport.lifetime import Job


class SoundOfCall:
    """This side of a `Call`; see the module."""

    __slots__ = ("_play_gain_db", "_recordings", "_source", "clock", "commands", "end_reason", "engine", "leg", "path")

    clock: Clock
    commands: Commands
    engine: Engine
    leg: Leg
    path: Any
    end_reason: EndReason | None
    _source: Source | None
    _play_gain_db: float
    _recordings: Recordings | None
    """Made for the first one."""

    @property
    def name(self) -> str:
        """For the log."""
        raise NotImplementedError

    def check_live(self) -> None:
        """Raise CallEnded when the call is over, ConfigError when it has not begun."""
        raise NotImplementedError

    def start_soon(self, job: Job) -> None:
        """Run a task among the call's; it ends with the call."""
        raise NotImplementedError

    @property
    def play_gain_db(self) -> float:
        """How loud all that `play` plays is, in dB, -60 to 18; minus infinity is mute.

        Set it at any time, to lower music under a voice for instance: it moves there in a straight line over one ptime,
        from the next tick on. Streams have a gain of their own, `CallStream.gain_db`.

        Raises:
            ConfigError: out of range; the caller's to mend. CallEnded: the call is over.
        """
        return self._play_gain_db

    @play_gain_db.setter
    def play_gain_db(self, gain_db: float) -> None:
        gain_db_x100(gain_db)
        self.check_live()
        self.commands.put(lambda now_ns: self._apply_play_gain())
        self._play_gain_db = float(gain_db)

    def _apply_play_gain(self) -> None:
        if self._source is not None:
            self._source.set_gain(self._play_gain_db)

    async def record_to(self, path: str | os.PathLike[str]) -> Recording:
        """Record the call from the next tick on: a stereo WAV file, left what the caller says, right what it hears.

        Both tracks lie on the call's one sample clock, the leg's rate: a pair of samples is of one moment, from the
        first to the last, whatever stalled meanwhile. Files are written by other threads, about once a second; a disk
        that is full or does not keep up ends the recording, with `Recording.error` and a line in
        `CallRecord.recordings`, and nothing else. The recording ends with the call; to end it before, `stop` it.

        Args:
            path: the file; one that exists is replaced.

        Raises:
            CallEnded: the call is over. ConfigError: it has not been entered, or is being recorded already.
            OSError: the file cannot be created.

        Cancellation: nothing is recorded; there may be an empty file.
        """
        self.check_live()
        if self._recordings is None:
            self._recordings = Recordings(self, self.commands, self.engine.config.goodbye_s)
        return await self._recordings.begin(path)

    @property
    def rate_of_tape_hz(self) -> int:
        """The leg's."""
        return self.leg.media_format.sample_rate_hz

    def insert_tape(self, seconds: float) -> Tape:
        """Have each tick write both tracks to a new tape."""
        rate_hz = self.rate_of_tape_hz
        tape = Tape(round(seconds * rate_hz), int(lib.tp_path_clock(self.path)), sample_rate_hz=rate_hz)
        lib.tp_path_record(self.path, tape.native)
        return tape

    def remove_tape(self) -> None:
        """Write to it no more."""
        if self.path is not None:
            lib.tp_path_record(self.path, ffi.NULL)
