"""A line as a program that speaks sees it: `speak`, straight to the native queue where nothing is ahead.

Theory of operation. A program that speaks every 20 ms does so on every line it has, and of each line's objects nothing
is in the cache then. So that one Python object is looked at, the line itself, whether nothing is ahead (commands, what
the native queue had no room for, the end of what a resampler holds, a `play` that waits for room) is not asked each
time: it is found out once and remembered until somebody puts something ahead, who says so (`Commands.forestall`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from talkpath._native import lib
from talkpath.audio import PLAYABLE_RATES_HZ, AudioChunk, AudioClip
from talkpath.line.driven import DrivenLine
from talkpath.line.hearing import HeardChunk
from talkpath.line.speech import Speech

ndarray = np.ndarray
INT16 = np.dtype(np.int16)
"""The one that every array of the machine's own int16 has."""

_pump_say: Any = lib.tp_pump_say
_stream_say: Any = lib.tp_stream_say


class SpeakingLine(DrivenLine):
    """The side of a `Line` that is spoken to; see the module."""

    # By name they lie together in memory, behind the driven line's `slot`.
    __slots__ = ("_speech", "_straight_encoding", "_straight_hz", "_straight_pump")

    _speech: Speech
    _straight_hz: int
    """The rate of what may go straight to the native queue; 0: something may be ahead."""
    _straight_encoding: int
    """Payload of which may go there as it is."""
    _straight_pump: Any
    """The pump that moves the line; None: the driver's own step does."""

    def _check_live(self) -> None:
        raise NotImplementedError

    def speak(
        self, chunk: AudioChunk | AudioClip | npt.NDArray[np.int16], *, sample_rate_hz: int | None = None
    ) -> None:
        """Queue audio; never blocks.

        Args:
            chunk: an `AudioChunk`, an `AudioClip`, or int16 mono with its `sample_rate_hz`. Consecutive chunks of one
                rate are one piece of audio: the resampler keeps its state.

        Raises:
            PlayoutFull: more than `LineConfig.queue_s` would wait; nothing of the chunk was taken.
            FormatError: not int16 mono, or a rate that is not 8, 16, 24 or 48 kHz.
            CallEnded: the line is over.
        """
        straight_hz = self._straight_hz or self._look_ahead()
        data = None
        encoding = 0  # int16 as numpy has it
        if type(chunk) is HeardChunk and (payload := chunk.payload) is not None:
            encoding = self._straight_encoding
            if chunk.sample_rate_hz == straight_hz and chunk.encoding == encoding:
                data = payload
        elif straight_hz:
            pcm, rate = chunk, sample_rate_hz
            if type(pcm) is not ndarray and isinstance(chunk, AudioChunk | AudioClip):
                pcm, rate = chunk.samples, chunk.sample_rate_hz
            if (
                rate == straight_hz
                and type(rate) is int
                and type(pcm) is ndarray
                and pcm.dtype is INT16
                and pcm.ndim == 1
            ):
                data = pcm.tobytes()
        # Queued by no step, and only within the reserve that is this line's alone: then that makes no difference. A
        # program that speaks every 20 ms never has more.
        if data is not None:
            pump = self._straight_pump
            if pump is not None:
                if _pump_say(pump, self.slot, encoding, data, len(data)):
                    return
            elif _stream_say(self._native, encoding, data, len(data)):
                self.driver.command(self)  # It looks again at when there is something to send.
                return
        self._forestall()
        self._speech.speak(chunk, sample_rate_hz)

    def _look_ahead(self) -> int:
        """Find out whether anything is ahead of what is said now. -> `_straight_hz`. Raises CallEnded, ConfigError."""
        self._check_live()
        speech = self._speech
        if speech.is_ahead():
            return 0
        # One object for all lines: that one is in the cache.
        self._straight_hz = PLAYABLE_RATES_HZ[PLAYABLE_RATES_HZ.index(speech.sample_rate_hz)]
        return self._straight_hz

    def _forestall(self) -> None:
        """Something is put ahead of what is said from now on."""
        self._straight_hz = 0
