"""How a simulated caller hears: all that left the engine, or what a telephone makes of it at the end of a bad path.

`Ear` knows no jitter: it lays out payloads by RTP timestamp and needs no buffer to be exact. `Telephone` is what a
caller really has: an impaired link, a jitter buffer, concealment, one ptime at a time on his own clock.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import numpy as np

from talkpath.audio import Samples
from talkpath.dsp import SILENCE_DBOV, Level
from talkpath.dsp.jitter import JitterBuffer, JitterKind
from talkpath.dsp.plc import Concealer
from talkpath.testing.link import LinkEmulator
from talkpath.units import NS_PER_MS, NS_PER_S, samples_to_ns

HEADER = struct.Struct("!BBHII")
"""RFC 3550 5.1: version and flags, marker and payload type, sequence number, timestamp, SSRC."""
EVENT = struct.Struct("!BBH")
"""RFC 4733 2.3: event, end flag and volume, duration."""
EVENT_DIGITS = "0123456789*#ABCD"
"""RFC 4733 table 3: the digit of event code i."""

_MAX_PACKETS = 1_000_000

Decode = Callable[[bytes], Samples]


class Ear:
    """Lays out what arrives by RTP timestamp, and finds the sender's grid.

    The packet that was least delayed shows where the grid lies; every other is late against it.
    """

    def __init__(self, payload_type: int, event_payload_type: int, rate_hz: int, decode: Decode) -> None:
        self._payload_type, self._event_payload_type = payload_type, event_payload_type
        self._rate_hz, self._decode = rate_hz, decode
        self._first_timestamp: int | None = None
        self._newest = 0
        self._payloads: dict[int, bytes] = {}
        self._delays_ns = array("q")
        self._grid_ns: int | None = None
        self._event_timestamp: int | None = None
        self._newest_payload = b""
        self.digits = ""

    @property
    def level_dbov(self) -> float:
        return Level().process(self._decode(self._newest_payload)) if self._newest_payload else SILENCE_DBOV

    def receive(self, datagram: bytes, now: int) -> None:
        if len(datagram) < HEADER.size:
            return
        first, second, _, timestamp, _ = HEADER.unpack_from(datagram)
        payload_type, payload = second & 0x7F, datagram[HEADER.size :]
        if first != 0x80:
            return
        if payload_type == self._event_payload_type and len(payload) >= EVENT.size:
            if timestamp != self._event_timestamp and payload[0] < len(EVENT_DIGITS):
                self._event_timestamp = timestamp
                self.digits += EVENT_DIGITS[payload[0]]
            return
        if payload_type != self._payload_type or len(self._payloads) >= _MAX_PACKETS:
            return
        if self._first_timestamp is None:
            self._first_timestamp = timestamp
        # Unwrapped around the newest position, in both directions.
        ahead = (timestamp - self._first_timestamp - self._newest) & 0xFFFFFFFF
        position = self._newest + (ahead if ahead < 0x80000000 else ahead - 0x100000000)
        self._newest = max(self._newest, position)
        if position in self._payloads:
            return
        self._payloads[position] = self._newest_payload = payload
        delay = now - samples_to_ns(position, self._rate_hz)
        self._delays_ns.append(delay)
        self._grid_ns = delay if self._grid_ns is None else min(self._grid_ns, delay)

    def sample_at(self, moment_ns: int) -> int:
        elapsed = moment_ns - (self._grid_ns or 0)
        return round(elapsed * self._rate_hz / NS_PER_S)

    def recording(self, begun_ns: int, until_ns: int | None) -> Samples:
        shift = self.sample_at(begun_ns)
        pieces = [(position - shift, self._decode(payload)) for position, payload in self._payloads.items()]
        end = max((start + len(piece) for start, piece in pieces), default=0)
        if until_ns is not None:
            end = round((until_ns - begun_ns) * self._rate_hz / NS_PER_S)
        track = np.zeros(max(end, 0), np.int16)
        for start, piece in pieces:
            low, high = max(start, 0), min(start + len(piece), len(track))
            if low < high:
                track[low:high] = piece[low - start : high - start]
        return track

    def lateness_ms(self) -> list[float]:
        grid = self._grid_ns or 0
        return [(delay - grid) / NS_PER_MS for delay in self._delays_ns]


class Telephone:
    """What the caller hears through an impaired link, his own jitter buffer and concealment."""

    def __init__(self, link: LinkEmulator, payload_type: int, rate_hz: int, ptime_ms: int, decode: Decode) -> None:
        self._link, self._decode, self._rate_hz = link, decode, rate_hz
        self._frame_samples = ptime_ms * rate_hz // 1000
        self._jitter = JitterBuffer(rate_hz, ptime_ms, payload_type=payload_type)
        self._concealer = Concealer(rate_hz)
        self._frames: list[Samples] = []

    def receive(self, datagram: bytes, now: int) -> None:
        """Put a datagram of the engine on the path to the caller."""
        self._link.send(datagram, now)

    def play(self, due: int) -> None:
        """Play one ptime, due at `due`; what reaches the caller later is for the next."""
        while (arrival := self._link.next_deadline()) is not None and arrival <= due:
            for datagram in self._link.receive(arrival):
                self._jitter.put(datagram, arrival)
        self._frames.append(self._next(due))

    def recording(self, first_frame: int, n_samples: int | None) -> Samples:
        """Return what was played from a frame on."""
        track = np.concatenate([np.zeros(0, np.int16), *self._frames[first_frame:]])
        if n_samples is None:
            return track
        return np.pad(track[:n_samples], (0, max(0, n_samples - len(track))))

    def _next(self, due: int) -> Samples:
        frame = self._jitter.get(due)
        if frame.kind is JitterKind.SILENCE:
            return self._concealer.receive(np.zeros(self._frame_samples, np.int16))
        if frame.kind is JitterKind.MISSING:
            after = self._decode(frame.following) if frame.following is not None else None
            return self._concealer.fillin(self._frame_samples, after)
        pcm = self._decode(frame.payload)
        if frame.kind is JitterKind.AUDIO:
            return self._concealer.receive(pcm)
        per_ms = self._rate_hz // 1000
        start, end = frame.missing_first_ms * per_ms, (frame.missing_first_ms + frame.missing_ms) * per_ms
        before = self._concealer.receive(pcm[:start])
        gap = self._concealer.fillin(end - start, pcm[end:] if end < len(pcm) else None)
        return np.concatenate([before, gap, self._concealer.receive(pcm[end:])])
