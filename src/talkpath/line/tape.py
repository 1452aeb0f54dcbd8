"""Both tracks of a line side by side, on the clock of what the caller says.

An ear on the inbound track writes 20 ms at a time. What the caller heard meanwhile is the outbound track, where the
wire streams it. Where it does not, it is what the line has sent, laid out by the line's model of the far end: a run of
speech begins at the inbound sample of the moment at which the model begins it, and is then gap-free, whatever the
network does to the messages that come in. A clear cuts off what by the model had not been played; a pause moves it.
"""

from __future__ import annotations

import numpy as np

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk, Samples
from talkpath.dsp.resample import Resampler
from talkpath.events import MediaFormat
from talkpath.line.hearing import Hearing, decoded
from talkpath.line.listen import AudioHook
from talkpath.path.stream import NEVER, Track, native_format
from talkpath.path.tape import Tape
from talkpath.transport.driver_tasks import TasksDriver
from talkpath.units import ms_to_samples

CHUNK_MS = 20
PATIENCE_MS = 1000
"""How long the outbound track is waited for, where it is streamed."""
READ_SAMPLES = 48_000


class LineTape:
    """Writes a tape until it is closed; within the step.

    Args:
        tape: its first sample is the inbound track's present one.
        hearing: of the line, whose stream keeps what it sends.
        play_format: of what the line sends.
        both: whether the outbound track is streamed.
    """

    __slots__ = (
        "_ahead",
        "_base",
        "_buffer",
        "_delay",
        "_driver",
        "_ear",
        "_encoding",
        "_from",
        "_heard_ns",
        "_hearing",
        "_inbound",
        "_model",
        "_other_ear",
        "_rate",
        "_resampler",
        "_sent_rate",
        "_shifted",
        "_start",
        "_start_sent",
        "_tape",
        "_written",
    )

    def __init__(
        self, tape: Tape, hearing: Hearing, play_format: MediaFormat, driver: TasksDriver, *, both: bool
    ) -> None:
        self._tape = tape
        self._hearing = hearing
        self._driver = driver
        self._rate = hearing.sample_rate_hz
        self._written = tape.begin
        """Sample up to which the tape is written."""
        self._inbound: list[Samples] = []
        """What is to be written as soon as the outbound track has come so far."""
        self._ahead = np.zeros(0, np.int16)
        """What the caller is to hear from there on."""
        self._sent_rate, self._encoding = native_format(play_format)
        self._resampler = Resampler(self._sent_rate, self._rate)
        self._delay = self._resampler.delay_samples
        self._model = ffi.new("tp_model *")
        lib.tp_stream_model(hearing.native, self._model)
        self._from = ffi.new("uint64_t *", self._model.sent)
        self._buffer = ffi.new("uint8_t[]", 2 * READ_SAMPLES)
        self._start, self._start_sent = int(self._model.start), int(self._model.start_sent)
        self._base = tape.begin
        """Where on the inbound track the run began."""
        self._heard_ns = NEVER
        """When the last chunk came: the inbound track's clock runs on from there."""
        self._shifted = 0
        """Samples by which a pause that is on has moved what is ahead."""
        self._ear = AudioHook(hearing, self._rate, CHUNK_MS, "inbound", self._hear if not both else self._hear_first)
        self._other_ear = AudioHook(hearing, self._rate, CHUNK_MS, "outbound", self._hear_other) if both else None

    def close(self) -> None:
        """Write no more."""
        self._ear.close()
        if self._other_ear is not None:
            self._other_ear.close()
            self._write_pairs(patience=0)

    # The wire streams both ---------------------------------------------------------------------------------------

    def _hear_first(self, chunk: AudioChunk, now_ns: int) -> None:
        self._inbound.append(chunk.samples)
        self._write_pairs(patience=ms_to_samples(PATIENCE_MS, self._rate))

    def _hear_other(self, chunk: AudioChunk, now_ns: int) -> None:
        self._lay(chunk.at_sample, chunk.samples)
        self._write_pairs(patience=ms_to_samples(PATIENCE_MS, self._rate))

    def _write_pairs(self, *, patience: int) -> None:
        """Write what has come of both; of the inbound track alone what has waited too long."""
        while self._inbound and (len(self._ahead) >= len(self._inbound[0]) or sum(map(len, self._inbound)) > patience):
            self._write(self._inbound.pop(0))

    # By the model ------------------------------------------------------------------------------------------------

    def cut(self, now_ns: int) -> None:
        """The line is about to clear: the caller hears nothing more of what was sent."""
        if self._other_ear is None:
            here = self._look(now_ns)
            self._ahead = self._ahead[: max(0, here - self._written)]

    def _hear(self, chunk: AudioChunk, now_ns: int) -> None:
        n = len(chunk.samples)
        if chunk.at_sample > self._written:  # the ear lagged, and has lost some
            self._ahead = self._ahead[chunk.at_sample - self._written :]
            self._written = chunk.at_sample
        self._heard_ns = now_ns
        self._look(now_ns)
        held = min(n, self._samples_in(max(0, now_ns - self._model.held_at)))
        if held:  # of the chunk's time, its end
            before, after = self._ahead[: n - held], self._ahead[n - held :]
            missing = n - held - len(before)
            self._ahead = np.concatenate([before, np.zeros(missing + held, np.int16), after])
            self._shifted += held
        self._write(chunk.samples)

    def _look(self, now_ns: int) -> int:
        """Lay out what has been sent since the last look. -> the inbound track's sample of this moment"""
        with self._driver.paused():
            native = self._hearing.native
            lib.tp_stream_model(native, self._model)
            model = self._model
            if model.sent < self._from[0]:  # it will be sent again
                self._from[0] = model.start_sent
            here = int(lib.tp_stream_track_written(native, Track.INBOUND))
            first = int(self._from[0])
            n_read = lib.tp_stream_tail_read(native, self._buffer, 2 * READ_SAMPLES, self._from)
            first = max(first, int(self._from[0]) - n_read)
        pcm = decoded(ffi.buffer(self._buffer, n_read * (1 + (self._encoding > 2)))[:], self._encoding)
        here += self._samples_in(now_ns - min(now_ns, self._heard_ns))
        self._follow(first, pcm, here, now_ns)
        return here

    def _samples_in(self, ns: int) -> int:
        return (ns * self._rate + 500_000_000) // 1_000_000_000

    def _follow(self, first: int, pcm: Samples, here: int, now_ns: int) -> None:
        """Lay out what was sent from sample `first` on, and follow the model where it has moved."""
        model = self._model
        start, start_sent = int(model.start), int(model.start_sent)
        if (start, start_sent) != (self._start, self._start_sent):
            old = max(0, min(len(pcm), start_sent - first))
            self._lay_sent(first, pcm[:old])
            first, pcm = first + old, pcm[old:]
            if start_sent == self._start_sent < first:  # a pause is over: the run is one that had begun
                moved = self._samples_in(start - self._start)
                late = max(0, moved - self._shifted)
                self._ahead = np.concatenate([np.zeros(late, np.int16), self._ahead])
                self._base += moved
            else:
                self._base = here - self._samples_in(now_ns - start)
                self._resampler.reset()
                if model.held_at != NEVER:  # what had not been played will be sent again
                    self._ahead = self._ahead[: max(0, self._base - self._written)]
            self._start, self._start_sent, self._shifted = start, start_sent, 0
        self._lay_sent(first, pcm)

    def _lay_sent(self, first: int, pcm: Samples) -> None:
        if len(pcm):
            at = self._base + self._shifted + (first - self._start_sent) * self._rate // self._sent_rate
            self._lay(at - self._delay, self._resampler.process(pcm))

    # The tape ----------------------------------------------------------------------------------------------------

    def _lay(self, at_sample: int, pcm: Samples) -> None:
        """Have the caller hear `pcm` from a sample on; what lies before the tape's present end is past."""
        past = max(0, self._written - at_sample)
        pcm = pcm[past:]
        at = max(0, at_sample - self._written)
        missing = at + len(pcm) - len(self._ahead)
        if missing > 0:
            self._ahead = np.concatenate([self._ahead, np.zeros(missing, np.int16)])
        self._ahead[at : at + len(pcm)] = pcm

    def _write(self, inbound: Samples) -> None:
        n = len(inbound)
        outbound, self._ahead = self._ahead[:n], self._ahead[n:]
        self._tape.write(self._written, inbound, np.pad(outbound, (0, n - len(outbound))))
        self._written += n
