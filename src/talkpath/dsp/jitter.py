"""An adaptive, bounded jitter buffer: RTP datagrams in as they come, one ptime of payload out per call.

Rules: one owner, one clock. `now` is an integer of nanoseconds, the same clock for `put` and `get`; `get` is called
once per ptime. Nothing the network does raises: what cannot be used is counted.

How delay is kept (the least transit, the histogram of what had to be waited for, skips and insertions) is told in
``csrc/tp_jitter.h``. This buffer knows payload, not sound, so it moves by whole frames; an engine's calls stretch.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError, NativeError

_ANY_PAYLOAD_TYPE = -1
_new_tuple = tuple.__new__


class JitterKind(enum.IntEnum):
    """What one ptime of the caller is made of."""

    AUDIO = 1
    """Whole."""
    PARTIAL = 2
    """Some milliseconds are missing; their bytes mean nothing."""
    MISSING = 3
    """Nothing of it has arrived though the talkspurt goes on: conceal."""
    SILENCE = 4
    """Nothing was sent: before the first packet, in a pause, on hold. Not a loss."""


class JitterFrame(NamedTuple):
    """One ptime, as `JitterBuffer.get` gives it."""

    kind: JitterKind
    payload: bytes
    """ptime_ms * bytes_per_ms bytes for AUDIO and PARTIAL, else empty."""
    timestamp: int
    """RTP timestamp of the first sample."""
    following: bytes | None = None
    """The ptime after this one, when it has arrived whole and this one is not: what two-sided concealment needs."""
    missing_first_ms: int = 0
    missing_ms: int = 0
    """PARTIAL: the stretch that holds all that is missing."""
    skipped_ms: int = 0
    """Passed by just before this frame to shrink the delay."""
    inserted_ms: int = 0
    """Above 0: this frame is one more than was sent, to grow the delay or to wait for what is late."""


_AUDIO = JitterKind.AUDIO


@dataclass(frozen=True, slots=True)
class JitterStatistics:
    """All since the beginning, over resets too; names follow webrtc-stats."""

    packets_received: int
    packets_lost: int
    packets_late: int
    """Arrived after their playout; no longer counted as lost."""
    packets_discarded: int
    """Late, duplicate or implausible."""
    packets_duplicated: int
    packets_reordered: int
    packets_malformed: int
    emitted_ms: int
    missing_ms: int
    skipped_ms: int
    inserted_ms: int
    jitter_ms: float
    """RFC 3550 A.8."""
    delay_ms: int
    """Audio waiting now."""
    target_delay_ms: int
    ssrc_changes: int
    resyncs: int
    """Times the sender went on with another clock under the same SSRC."""


class JitterBuffer:
    """Reorder, time and bound the audio of one RTP sender.

    Packets of any whole-millisecond ptime up to 200 ms; `get` takes `ptime_ms` whatever theirs is. A datagram with
    another SSRC starts the buffer anew. The delay it adds is `target_delay_ms` past the fastest packets' way, or as
    near to it as whole frames come.

    Source: RFC 3550 6.4.1, A.1 and A.8; RFC 3551 4.1 and 4.2.
    """

    def __init__(
        self,
        clock_rate_hz: int = 8000,
        ptime_ms: int = 20,
        min_delay_ms: int = 20,
        max_delay_ms: int = 200,
        *,
        bytes_per_ms: int | None = None,
        payload_type: int | None = None,
    ) -> None:
        """Make an empty buffer.

        Args:
            clock_rate_hz: of the RTP timestamps; whole kHz, 8000 to 48000.
            ptime_ms: what one `get` takes; 10 to 60.
            min_delay_ms: the target is never below; 20: one packet of the usual kind.
            max_delay_ms: the target is never above, what is deeper is skipped; at most 400.
            bytes_per_ms: payload bytes in a millisecond; None: one octet a sample, as G.711 has it.
            payload_type: of the audio; packets of others (telephone-event, comfort noise) only count as not lost. None:
                that of the first packet.

        Raises:
            ConfigError: a value out of range; the caller's to mend.
        """
        config = ffi.new("tp_jitter_config *")
        try:
            config.clock_rate_hz = clock_rate_hz
            config.bytes_per_ms = clock_rate_hz // 1000 if bytes_per_ms is None else bytes_per_ms
            config.min_delay_ms = min_delay_ms
            config.max_delay_ms = max_delay_ms
            config.ptime_ms = ptime_ms
        except OverflowError as error:
            raise ConfigError(f"a jitter buffer's numbers are not negative: {error}") from None
        if payload_type is not None and not 0 <= payload_type <= 127:
            raise ConfigError(f"payload type {payload_type} is not in 0..127")
        room = lib.TP_JITTER_SPAN_MS * min(config.bytes_per_ms, 32)
        # The C struct points at the ring: both live as long as this object.
        self._ring: Any = ffi.new("uint8_t[]", max(room, 1))
        self._box: Any = ffi.new("tp_jitter_box *")
        self._state: Any = ffi.addressof(self._box, "jitter")
        if lib.tp_jitter_init(self._state, config, self._ring, room) < 0:
            raise ConfigError(
                "a jitter buffer takes a clock rate of whole kHz (8000..48000), 1..32 bytes per ms, ptime 10..60 ms "
                f"and 0 <= min <= max <= 400 ms of delay, not {clock_rate_hz=} {bytes_per_ms=} {ptime_ms=} "
                f"{min_delay_ms=} {max_delay_ms=}"
            )
        self._box.payload_type = _ANY_PAYLOAD_TYPE if payload_type is None else payload_type
        self._n_bytes: int = ptime_ms * config.bytes_per_ms
        self._out_view: Any = ffi.buffer(self._box.out, self._n_bytes)
        self._samples_per_ms = clock_rate_hz // 1000
        self._native_put: Any = lib.tp_jitter_box_put
        self._native_get: Any = lib.tp_jitter_box_get

    def put(self, datagram: bytes | bytearray | memoryview, now: int) -> bool:
        """Take one RTP datagram, arrived at `now` (ns). `bytes` are taken as they are, others copied first.

        Returns:
            Whether its audio was taken; False: late, duplicate, implausible, malformed or no audio, which is counted.
        """
        try:
            taken: int = self._native_put(self._box, datagram, len(datagram), now)
        except TypeError:  # what is not bytes; asking first would cost as much as taking the packet
            datagram = bytes(datagram)
            taken = self._native_put(self._box, datagram, len(datagram), now)
        return taken == 1

    def get(self, now: int) -> JitterFrame:
        """Take the ptime that is due at `now` (ns); always exactly one."""
        timestamp = self._native_get(self._box, now)
        if timestamp >= 0:
            # Of what it takes to make a NamedTuple most is its own __new__, with its defaults.
            return _new_tuple(JitterFrame, (_AUDIO, self._out_view[:], timestamp, None, 0, 0, 0, 0))
        frame = self._box.frame
        kind = JitterKind(frame.kind)
        payload = self._out_view[:] if kind <= JitterKind.PARTIAL else b""
        following = None
        if frame.following and kind is not JitterKind.AUDIO:
            if lib.tp_jitter_peek(self._state, self._box.out, self._n_bytes) != self._n_bytes:
                raise NativeError("the frame that follows is not where it was announced")
            following = self._out_view[:]
        return JitterFrame(
            kind,
            payload,
            frame.timestamp,
            following,
            frame.missing_first_ms,
            frame.missing_ms,
            frame.skipped_ms,
            frame.inserted_ms,
        )

    def reset(self) -> None:
        """Forget the audio, keep statistics and target: a new source, or hold released."""
        lib.tp_jitter_reset(self._state)

    @property
    def delay_ms(self) -> int:
        """Audio waiting now."""
        return int(lib.tp_jitter_delay_ms(self._state))

    @property
    def target_delay_ms(self) -> int:
        """The playout delay that is aimed at, past the least transit."""
        return int(self._state.target_delay_ms)

    def statistics(self) -> JitterStatistics:
        """Return a snapshot of the counters."""
        state = self._state
        return JitterStatistics(
            packets_received=state.packets_received,
            packets_lost=state.packets_lost,
            packets_late=state.packets_late,
            packets_discarded=state.packets_discarded,
            packets_duplicated=state.packets_duplicated,
            packets_reordered=state.packets_reordered,
            packets_malformed=self._box.packets_malformed,
            emitted_ms=state.emitted_ms,
            missing_ms=state.missing_ms,
            skipped_ms=state.skipped_ms,
            inserted_ms=state.inserted_ms,
            jitter_ms=state.jitter_x16 / 16 / self._samples_per_ms,
            delay_ms=self.delay_ms,
            target_delay_ms=state.target_delay_ms,
            ssrc_changes=state.ssrc_restarts,
            resyncs=state.resyncs,
        )
