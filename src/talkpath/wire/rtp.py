"""RTP as values: packets, telephone events, and a sender that lays them out in time.

Rules: sans-IO, no clock; `now` is an integer of nanoseconds and only the event receiver asks for it. Parsers raise
`RemoteWireError` and nothing else, on any input. The hot path does none of this: it uses the same C (``csrc/tp_rtp.h``)
without the values.

Source: RFC 3550 5.1, RFC 4733, RFC 5761 4.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from talkpath._native import ffi, lib
from talkpath.errors import LocalWireError, RemoteWireError

Datagram = bytes | bytearray | memoryview

EVENT_DIGITS = "0123456789*#ABCD"
"""RFC 4733 table 3: the digit of event code i."""

_ARGUMENT = -1
_FULL = -4


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One RTP packet without CSRC list, extension and padding, which no telephone audio needs."""

    payload_type: int
    seq: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False


def parse_rtp(datagram: Datagram) -> RtpPacket:
    """Read one RTP packet; CSRC list, header extension and padding are left out.

    Raises:
        RemoteWireError: it is no RTP packet of version 2, or its parts do not fit into it.
    """
    packet = bytes(datagram)
    header = ffi.new("tp_rtp_header *")
    if lib.tp_rtp_read(header, packet, len(packet)) < 0:
        raise RemoteWireError(f"{len(packet)} bytes are no RTP packet", wire="rtp")
    at = header.payload_offset
    return RtpPacket(
        header.payload_type,
        header.seq,
        header.timestamp,
        header.ssrc,
        packet[at : at + header.payload_bytes],
        bool(header.marker),
    )


def build_rtp(packet: RtpPacket) -> bytes:
    """Write one RTP packet.

    Raises:
        LocalWireError: a number does not fit its field; the caller's to mend.
    """
    header = ffi.new("tp_rtp_header *")
    try:
        header.payload_type = packet.payload_type
        header.seq = packet.seq
        header.timestamp = packet.timestamp
        header.ssrc = packet.ssrc
    except OverflowError as error:
        raise LocalWireError(f"a number does not fit its field: {error}", wire="rtp") from None
    header.marker = packet.marker
    out = ffi.new("uint8_t[12]")
    if lib.tp_rtp_write(out, 12, header) < 0:
        raise LocalWireError(f"payload type {packet.payload_type} is above 127", wire="rtp")
    return bytes(ffi.buffer(out)) + packet.payload


def is_rtcp(datagram: Datagram) -> bool:
    """Tell RTCP from RTP where both share a port (RFC 5761 4)."""
    packet = bytes(datagram[:4])
    return bool(lib.tp_rtp_is_rtcp(packet, len(packet)))


def digit_to_event(digit: str) -> int:
    """Return the event code of ``0-9 * # A-D`` (``a-d`` too).

    Raises:
        LocalWireError: there is no such digit.
    """
    code = EVENT_DIGITS.find(digit.upper()) if len(digit) == 1 and digit.isascii() else -1
    if code < 0:
        raise LocalWireError("a digit is one of 0-9 * # A-D", wire="rtp", event="telephone-event")
    return code


def event_to_digit(code: int) -> str | None:
    """Return the digit of an event code; None for events that are no digits."""
    return EVENT_DIGITS[code] if 0 <= code < len(EVENT_DIGITS) else None


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """The payload of one telephone-event packet (RFC 4733 2.3)."""

    code: int
    duration: int
    """Since the event's timestamp, in RTP units."""
    end: bool = False
    volume: int = 10
    """Power level below 0 dBm0, 0 to 63 dB."""


def parse_telephone_event(payload: Datagram) -> TelephoneEvent:
    """Read a telephone-event payload; of several events in it the first.

    Raises:
        RemoteWireError: shorter than four bytes.
    """
    if len(payload) < 4:
        raise RemoteWireError(f"{len(payload)} bytes are no event", wire="rtp", event="telephone-event")
    return TelephoneEvent(
        payload[0], int.from_bytes(payload[2:4], "big"), end=bool(payload[1] & 0x80), volume=payload[1] & 0x3F
    )


def build_telephone_event(event: TelephoneEvent) -> bytes:
    """Write a telephone-event payload.

    Raises:
        LocalWireError: a number does not fit its field.
    """
    if not (0 <= event.code <= 255 and 0 <= event.volume <= 63 and 0 <= event.duration <= 0xFFFF):
        raise LocalWireError("a number does not fit its field", wire="rtp", event="telephone-event")
    return bytes((event.code, (0x80 if event.end else 0) | event.volume)) + event.duration.to_bytes(2, "big")


class DigitPhase(enum.IntEnum):
    """What is known of a digit."""

    BEGAN = 0
    ENDED = 1
    END_LOST = 2


@dataclass(frozen=True, slots=True)
class DigitReport:
    """A digit began or ended. Each event gives one BEGAN, whatever is lost, repeated or reordered."""

    digit: str
    phase: DigitPhase
    duration: int
    """RTP units so far."""
    timestamp: int
    volume: int


class EventReceiver:
    """Turn telephone-event packets of one sender into digits, one per event."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._state: Any = ffi.new("tp_event_receiver *")
        self._out: Any = ffi.new("tp_digit[2]")
        lib.tp_event_receiver_reset(self._state)

    def _reports(self, n: int) -> tuple[DigitReport, ...]:
        return tuple(
            DigitReport(EVENT_DIGITS[d.code], DigitPhase(d.ended), d.duration, d.timestamp, d.volume)
            for d in (self._out[i] for i in range(n))
        )

    def receive(self, payload: bytes, timestamp: int, now: int) -> tuple[DigitReport, ...]:
        """Take one packet's payload and RTP timestamp, arrived at `now` (ns).

        Raises:
            RemoteWireError: the payload is no event.
        """
        n = lib.tp_event_receiver_receive(self._state, self._out, payload, len(payload), timestamp, now)
        if n < 0:
            raise RemoteWireError(f"{len(payload)} bytes are no event", wire="rtp", event="telephone-event")
        return self._reports(n)

    def tick(self, now: int) -> tuple[DigitReport, ...]:
        """End an event that has been silent for 100 ms; call once per ptime."""
        return self._reports(lib.tp_event_receiver_tick(self._state, self._out, now))

    @property
    def n_lost_ends(self) -> int:
        """Events whose end never came."""
        return int(self._state.n_lost_ends)


class RtpSender:
    """Lay out one sender's packets: consecutive audio, pauses, and digits as telephone events.

    Each `tick` is one ptime. While digits are being sent the audio of that ptime is not: who plays both would double
    the tone.
    """

    def __init__(
        self,
        payload_type: int,
        ssrc: int,
        *,
        first_seq: int = 0,
        first_timestamp: int = 0,
        clock_rate_hz: int = 8000,
        ptime_ms: int = 20,
        event_payload_type: int | None = None,
    ) -> None:
        """Start at `first_seq` and `first_timestamp`; the first packet carries the marker."""
        self._payload_type = payload_type
        self._event_payload_type = event_payload_type
        self._ssrc = ssrc
        self._seq = first_seq & 0xFFFF
        self._timestamp = first_timestamp & 0xFFFFFFFF
        self._clock_rate_hz = clock_rate_hz
        self._ptime_units = clock_rate_hz * ptime_ms // 1000
        self._marker_due = True
        self._events: Any = ffi.new("tp_event_sender *")
        lib.tp_event_sender_init(self._events, clock_rate_hz, self._ptime_units)
        self._event_payload: Any = ffi.new("uint8_t[4]")
        self._event_timestamp: Any = ffi.new("uint32_t *")
        self._event_marker: Any = ffi.new("uint8_t *")

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next tick."""
        return self._timestamp

    @property
    def seq(self) -> int:
        """Sequence number of the next packet."""
        return self._seq

    @property
    def sending_digits(self) -> bool:
        """Whether a digit, or the gap after it, is being sent or waits."""
        return bool(lib.tp_event_sender_busy(self._events))

    def press(self, digits: str, *, on_ms: int = 100, off_ms: int = 100) -> None:
        """Queue digits, each `on_ms` long with `off_ms` after it; all or none.

        Raises:
            LocalWireError: no event payload type, no such digit, a length no event can say, or more than 64 waiting.
        """
        if self._event_payload_type is None:
            raise LocalWireError("no telephone-event payload type was agreed", wire="rtp")
        if not (digits.isascii() and 0 < on_ms <= 0xFFFF and 0 <= off_ms <= 0xFFFF):
            raise LocalWireError("digits are 0-9 * # A-D, their times up to 65535 ms", wire="rtp")
        queued = lib.tp_event_sender_queue(self._events, digits.encode(), len(digits), on_ms, off_ms)
        if queued == _ARGUMENT:
            raise LocalWireError("digits are 0-9 * # A-D, their times up to 65535 RTP units", wire="rtp")
        if queued == _FULL:
            raise LocalWireError("too many digits are waiting", wire="rtp")

    def tick(self, payload: bytes | None) -> Sequence[bytes]:
        """Let one ptime pass and return the datagrams to send.

        Args:
            payload: this ptime's audio; None: a pause (no packet, and the next one carries the marker). Not sent while
                digits are.
        """
        if self.sending_digits:
            return self._tick_event()
        if payload is None:
            self._marker_due = True
            self._pass()
            return ()
        datagram = self._packet(self._payload_type, self._timestamp, payload, marker=self._marker_due)
        self._marker_due = False
        self._pass()
        return (datagram,)

    def _pass(self) -> None:
        self._timestamp = (self._timestamp + self._ptime_units) & 0xFFFFFFFF

    def _packet(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool) -> bytes:
        packet = RtpPacket(payload_type, self._seq, timestamp, self._ssrc, payload, marker)
        self._seq = (self._seq + 1) & 0xFFFF
        return build_rtp(packet)

    def _tick_event(self) -> Sequence[bytes]:
        assert self._event_payload_type is not None, "press() refuses digits without one"
        n = lib.tp_event_sender_tick(
            self._events, self._event_payload, self._event_timestamp, self._event_marker, self._timestamp
        )
        payload = bytes(ffi.buffer(self._event_payload))
        marker = bool(self._event_marker[0])
        packets = [
            self._packet(self._event_payload_type, self._event_timestamp[0], payload, marker=marker and i == 0)
            for i in range(n)
        ]
        self._marker_due = True
        self._pass()
        return packets
