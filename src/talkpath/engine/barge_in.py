"""Barge-in at the platform's end: the caller's speech against what the call server itself plays to him.

The path puts what the caller says into a ring as it ticks, and the step that follows asks the policy. So the source
rests from the tick after the one that brought the speech, and goes on with its very next sample. A call without a
policy has no ring, and none of its frames is decoded for one. An application's stream is its own: applications hear
the caller and pause, where their wire can say it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from talkpath._native import ffi, lib
from talkpath.audio import AudioChunk
from talkpath.path.barge_in import Act, BargeIn, Interruption, read_answer
from talkpath.records import EndReason

if TYPE_CHECKING:
    from talkpath.engine.call import Call
    from talkpath.engine.source import Source

log = logging.getLogger("talkpath.engine.barge_in")

TAP_MS = 500
"""A step that comes later than this has the policy hear the rest."""


class SourceBargeIn:
    """One policy on one call's own source.

    Args:
        call: live.
        source: the call's own.
        policy: asked about each ptime.
        interruption: what its answers lead to; idle.
    """

    def __init__(self, call: Call, source: Source, policy: BargeIn, interruption: Interruption) -> None:
        self._call = call
        self._source = source
        self._policy = policy
        self._interruption = interruption
        self._rate = call.leg.media_format.sample_rate_hz
        self._frame = call.leg.ptime_ms * self._rate // 1000
        # Whole frames: none is in two pieces.
        self._ring = np.zeros(TAP_MS // call.leg.ptime_ms * self._frame, np.int16)
        self._read = 0
        self._began = int(lib.tp_path_clock(call.path))
        lib.tp_path_tap(call.path, ffi.from_buffer("int16_t[]", self._ring), len(self._ring))

    def hear(self, written: int, now_ns: int) -> None:
        """Ask the policy about what has come; in the step."""
        self._read = max(self._read, written - len(self._ring))
        while self._read < written:
            at = self._read % len(self._ring)
            frame = self._ring[at : at + self._frame].copy()
            chunk = AudioChunk(frame, self._rate, self._began + self._read, "inbound")
            self._read += self._frame
            try:
                verdict = read_answer(self._policy(chunk))
            except Exception as exc:
                log.error(
                    "call %s: the barge-in policy raised %s", self._call.call_id, type(exc).__name__, exc_info=exc
                )
                self._call.end(EndReason.POLICY_FAILED, exc)
                return
            if self._source.barge_in is not self:
                return  # it has taken itself away, or ended the call
            self._do(self._interruption.answer(verdict, now_ns, self._source.is_heard), now_ns)
        self._do(self._interruption.look(now_ns), now_ns)

    def _do(self, act: Act, now_ns: int) -> None:
        match act:
            case Act.PAUSE:
                self._source.hold(True)
            case Act.RESUME:
                self._source.hold(False)
            case Act.CLEAR:
                self._source.barged_in(now_ns)
            case Act.NOTHING:
                pass

    def gone(self) -> None:
        """The program has cleared what was played."""
        self._interruption.gone()

    def close(self) -> None:
        """Listen no more; a suspicion has ended."""
        lib.tp_path_tap(self._call.path, ffi.NULL, 0)
        if self._interruption.suspected:
            self._interruption.gone()
            self._source.hold(False)
