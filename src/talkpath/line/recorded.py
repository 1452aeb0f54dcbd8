"""A line that can be recorded: what the caller says and what it hears, side by side in a file.

Theory of operation. The clock is the inbound track's. `line.tape` brings what is heard to it, `transport.recording`
brings both to the file; here is what a program sees of that, and the line's part of the bargain.
"""

from __future__ import annotations

import os

from talkpath.errors import ConfigError
from talkpath.line.holding import HoldingLine
from talkpath.line.tape import LineTape
from talkpath.path.tape import Tape
from talkpath.transport.lifetime import Job, Lifetime
from talkpath.transport.recording import Recording, Recordings


class RecordedLine(HoldingLine):
    """The side of a `Line` that is recorded; see the module."""

    __slots__ = ("_life", "_rate", "_recordings", "_tape")

    _life: Lifetime
    _rate: int
    """The wire's, of what is heard."""
    _recordings: Recordings | None
    """Made for the first one."""
    _tape: LineTape | None
    """While there is one."""

    def _check_live(self) -> None:
        raise NotImplementedError

    async def record_to(self, path: str | os.PathLike[str]) -> Recording:
        """Record the line from the next step on: a stereo WAV file, left what the caller says, right what it hears.

        Both tracks lie on the inbound track's sample clock, at the wire's rate. Right is the outbound track where the
        wire streams it; elsewhere it is what this line has said, at the positions of the line's model: exact in its
        length and its gaps, and off as a whole by the difference between two messages' times on their way. Files are
        written by other threads; a disk that is full or does not keep up ends the recording, with `Recording.error`
        and a line in `LineRecord.recordings`, and nothing else.

        Args:
            path: the file; one that exists is replaced.

        Raises:
            CallEnded: the line is over. ConfigError: it is being recorded already, or the caller's track is not
                streamed. OSError: the file cannot be created.

        Cancellation: nothing is recorded; there may be an empty file.
        """
        self._check_live()
        if "inbound" not in self.info.tracks:
            raise ConfigError("a line is recorded on the clock of what the caller says, which is not streamed here")
        if self._recordings is None:
            self._recordings = Recordings(self, self._commands, self.config.goodbye_s)
        return await self._recordings.begin(path)

    @property
    def rate_of_tape_hz(self) -> int:
        """The wire's."""
        return self._rate

    def insert_tape(self, seconds: float) -> Tape:
        """Have both tracks written to a new tape as they come."""
        assert self._stream is not None
        self._stream.keep_tail(self._speech.tail_bytes(self.config.send_ahead_ms))
        tape = Tape(round(seconds * self._rate), self._inbound_position(), sample_rate_hz=self._rate)
        self._tape = LineTape(
            tape, self._hearing, self._dialect.play_format, self.driver, both="outbound" in self.info.tracks
        )
        return tape

    def remove_tape(self) -> None:
        """Write to it no more."""
        if self._tape is not None:
            self._tape.close()
            self._tape = None

    def start_soon(self, job: Job) -> None:
        """Run a task that ends with the line."""
        assert self._life.nursery is not None
        self._life.nursery.start_soon(job)
