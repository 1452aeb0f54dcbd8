"""A simulated caller: speech from a recording, digits, silence, in RTP over an impaired link; and an ear that records.

Rules of this file: it packs and reads RTP and RFC 4733 events by itself, on purpose. A caller that shared that code
with the engine could not show that the code is wrong.

`CallerMachine` is sans-IO and lives on a grid: frame n leaves at n · ptime after its beginning, whatever woke the
caller. It sends silence from its beginning on (a phone does), the recording from `begin`, then silence again. All times
of a script count from the first sample of the recording. `Caller` is its Trio coat over UDP, or over anything with the
two verbs of `Datagrams`.

What it hears (`talkpath.testing.ear`) is placed in time by the best of all arrivals: hence a recording without a seam,
whose sample 0 is the instant at which the first sample of the caller's speech leaves, and an independent measure of how
late the engine's packets are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import trio

from talkpath.audio import AudioClip, Samples
from talkpath.dsp import pcma_decode, pcma_encode, pcmu_decode, pcmu_encode
from talkpath.errors import ConfigError, check_range
from talkpath.testing.ear import EVENT, EVENT_DIGITS, HEADER, Ear, Telephone
from talkpath.testing.link import LinkEmulator, LinkStatistics
from talkpath.units import NS_PER_MS, NS_PER_S, seconds_to_ns

_EVENT_CODES = {digit: code for code, digit in enumerate(EVENT_DIGITS)}
_CODECS: dict[str, tuple[int, int, Callable[[Samples], bytes], Callable[[bytes], Samples]]] = {
    # RFC 3551 table 4: name, static payload type, clock rate
    "PCMU": (0, 8000, pcmu_encode, pcmu_decode),
    "PCMA": (8, 8000, pcma_encode, pcma_decode),
}
_LONGEST_EVENT_MS = 8_191
"""RFC 4733 2.3.5: 16 bits of duration, in samples of 8 kHz; longer events would have to be sent in segments."""
_LONGEST_PAUSE_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Press:
    """Digits that the caller presses, and when."""

    digits: str
    """0-9 * # A-D."""
    at_ms: int
    """From the first sample of what is played, exact to the sample."""


@dataclass(frozen=True, slots=True)
class CallerScript:
    """What the caller does, and over what kind of path."""

    speech: AudioClip | None = None
    """What he says after `begin`, once; at any rate."""
    presses: Sequence[Press] = ()
    codec: str = "PCMU"
    """``PCMU`` or ``PCMA``."""
    ptime_ms: int = 20
    digit_on_ms: int = 100
    """How long a key is down: 1 to 8191, what the duration of one RFC 4733 event can hold."""
    digit_off_ms: int = 100
    """The pause after it."""
    event_payload_type: int = 101
    outward: LinkEmulator = field(default_factory=LinkEmulator)
    """The path from the caller to the engine."""
    inward: LinkEmulator | None = None
    """The path back to him, who then hears through a jitter buffer of his own; None: he hears all that left."""
    seed: int = 0
    """Of SSRC, first sequence number and first timestamp."""

    def pressing_ends_ms(self) -> int:
        """Return when the pause after the last digit is over, from the first sample of the speech; 0 without digits.

        Raises:
            ConfigError: a length or a digit that he does not have.
        """
        return max((key.up_ms + self.digit_off_ms for key in _keys(self)), default=0)


class CallerMachine:
    """The caller without a socket or a clock; `now` is the caller's own integer nanoseconds from his beginning."""

    def __init__(self, script: CallerScript) -> None:
        """Prepare a caller whose frame 0 leaves at 0.

        Raises:
            ConfigError: a codec, a length or a digit that he does not have.
        """
        if script.codec not in _CODECS:
            raise ConfigError(f"codec={script.codec!r}: expected one of {', '.join(_CODECS)}")
        if script.ptime_ms < 10 or script.ptime_ms % 10:
            raise ConfigError(f"ptime_ms={script.ptime_ms}: expected a multiple of 10")
        self._payload_type, self.sample_rate_hz, encode, decode = _CODECS[script.codec]
        self._event_payload_type = script.event_payload_type
        self._outward = script.outward
        self._frame_samples = script.ptime_ms * self.sample_rate_hz // 1000
        self._ptime_ns = script.ptime_ms * NS_PER_MS
        self._silence = encode(np.zeros(self._frame_samples, np.int16))
        self._frames = self._cut(script.speech, encode)
        self.speech_ms = len(self._frames) * script.ptime_ms
        self._events = self._schedule(script)
        randomness = random.Random(script.seed)
        self._ssrc = randomness.getrandbits(32)
        self._seq = randomness.getrandbits(16)
        self._first_timestamp = randomness.getrandbits(32)
        self._n_frames = 0
        self._begin_frame: int | None = None
        self._pressed: list[str] = []
        self._ear = Ear(self._payload_type, script.event_payload_type, self.sample_rate_hz, decode)
        self._telephone: Telephone | None = None
        if script.inward is not None:
            self._telephone = Telephone(script.inward, self._payload_type, self.sample_rate_hz, script.ptime_ms, decode)

    @property
    def begun_at_ns(self) -> int | None:
        """When the first sample of the speech leaves (left); None before `begin`."""
        return None if self._begin_frame is None else self._begin_frame * self._ptime_ns

    @property
    def digits_pressed(self) -> str:
        """The digits begun so far."""
        return "".join(self._pressed)

    @property
    def digits_heard(self) -> str:
        """The digits that came back as RTP events."""
        return self._ear.digits

    @property
    def heard_level_dbov(self) -> float:
        """Level of the newest packet heard; -127 for silence."""
        return self._ear.level_dbov

    def begin(self) -> int:
        """Speak from the next frame on, and return when that leaves. A second time changes nothing."""
        if self._begin_frame is None:
            self._begin_frame = self._n_frames
        return self._begin_frame * self._ptime_ns

    def next_deadline(self) -> int:
        """When `tick` has something to do next."""
        frame = self._n_frames * self._ptime_ns
        link = self._outward.next_deadline()
        return frame if link is None else min(frame, link)

    def tick(self, now: int) -> list[bytes]:
        """Say what is due by `now`, and return the datagrams that come out of the link."""
        while self._n_frames * self._ptime_ns <= now:
            due = self._n_frames * self._ptime_ns
            for datagram in self._frame(self._n_frames):
                self._outward.send(datagram, due)
            if self._telephone is not None:
                self._telephone.play(due)
            self._n_frames += 1
        return self._outward.receive(now)

    def receive(self, datagram: bytes, now: int) -> None:
        """Hear a datagram of the engine."""
        self._ear.receive(datagram, now)
        if self._telephone is not None:
            self._telephone.receive(datagram, now)

    def heard(self, until_ns: int | None = None) -> Samples:
        """Return what was heard, int16; sample 0 is the instant at which the first sample of the speech left.

        Args:
            until_ns: Where it ends; by default with the last packet.
        """
        if self._telephone is not None:
            begun_ns = self.begun_at_ns or 0
            n_samples = None if until_ns is None else round((until_ns - begun_ns) * self.sample_rate_hz / NS_PER_S)
            return self._telephone.recording(self._begin_frame or 0, n_samples)
        return self._ear.recording(self.begun_at_ns or 0, until_ns)

    def track_sample_at_begin(self) -> int:
        """Return the sample of the outbound track that left the engine as the first sample of the speech left here.

        Subtract it from a mark's `at_sample` to find the mark in `heard`. Right when the engine's first packet arrived.
        """
        return self._ear.sample_at(self.begun_at_ns or 0)

    def lateness_ms(self) -> list[float]:
        """Return how late each packet of the engine came, against the best grid through all of them."""
        return self._ear.lateness_ms()

    def path_statistics(self) -> LinkStatistics:
        """Return what the path to the engine did to the packets."""
        return self._outward.statistics()

    def _cut(self, speech: AudioClip | None, encode: Callable[[Samples], bytes]) -> list[bytes]:
        if speech is None:
            return []
        samples = speech.at_rate(self.sample_rate_hz).samples
        n_frames = math.ceil(len(samples) / self._frame_samples)
        padded = np.zeros(n_frames * self._frame_samples, np.int16)
        padded[: len(samples)] = samples
        octets = encode(padded)
        size = len(octets) // max(n_frames, 1)
        return [octets[n * size : (n + 1) * size] for n in range(n_frames)]

    def _frame(self, n: int) -> list[bytes]:
        timestamp = self._first_timestamp + n * self._frame_samples
        position = n - self._begin_frame if self._begin_frame is not None else -1
        events = self._events.get(position)
        if events is not None:
            return [packet for event in events for packet in self._event_packets(event, position, timestamp)]
        payload = self._frames[position] if 0 <= position < len(self._frames) else self._silence
        # Transmission is continuous, so the marker is never set (RFC 3551 4.1).
        return [self._packet(self._payload_type, False, timestamp, payload)]

    def _schedule(self, script: CallerScript) -> dict[int, list[_Event]]:
        """Return the events that each frame from `begin` on has a part of."""
        per_ms = self.sample_rate_hz // 1000
        frames: dict[int, list[_Event]] = {}
        for key in _keys(script):
            event = _Event(key.digit, key.down_ms * per_ms, key.up_ms * per_ms)
            for frame in range(event.start // self._frame_samples, math.ceil(event.end / self._frame_samples)):
                frames.setdefault(frame, []).append(event)
        return frames

    def _event_packets(self, event: _Event, position: int, timestamp: int) -> list[bytes]:
        frame_start = position * self._frame_samples
        frame_end = frame_start + self._frame_samples
        first, last = event.start >= frame_start, event.end <= frame_end
        if first:
            self._pressed.append(event.digit)
        duration = min(event.end, frame_end) - event.start
        payload = EVENT.pack(_EVENT_CODES[event.digit], (0x80 if last else 0) | 10, duration)
        # RFC 4733 2.5.1.4: the end is sent three times, so that it survives loss.
        copies = 3 if last else 1
        began_at = timestamp + event.start - frame_start
        return [
            self._packet(self._event_payload_type, first and copy == 0, began_at, payload) for copy in range(copies)
        ]

    def _packet(self, payload_type: int, marker: bool, timestamp: int, payload: bytes) -> bytes:
        octet = (0x80 if marker else 0) | payload_type
        header = HEADER.pack(0x80, octet, self._seq, timestamp & 0xFFFFFFFF, self._ssrc)
        self._seq = (self._seq + 1) & 0xFFFF
        return header + payload


@dataclass(frozen=True, slots=True)
class _Key:
    digit: str
    down_ms: int
    up_ms: int


@dataclass(frozen=True, slots=True)
class _Event:
    digit: str
    start: int
    """Sample counted from `begin`."""
    end: int


def _keys(script: CallerScript) -> Iterator[_Key]:
    """Yield the keys in the order they are pressed; presses that overlap wait for each other."""
    check_range("digit_on_ms", script.digit_on_ms, 1, _LONGEST_EVENT_MS)
    check_range("digit_off_ms", script.digit_off_ms, 0, _LONGEST_PAUSE_MS)
    free_ms = 0
    for press in sorted(script.presses, key=lambda press: press.at_ms):
        free_ms = max(press.at_ms, free_ms)
        for digit in press.digits.upper():
            if digit not in _EVENT_CODES:
                raise ConfigError(f"{digit!r} is on no telephone; digits are 0-9 * # A-D")
            yield _Key(digit, free_ms, free_ms + script.digit_on_ms)
            free_ms += script.digit_on_ms + script.digit_off_ms


class Datagrams(Protocol):
    """What carries a caller's datagrams: a socket, or a pair of memory channels."""

    async def send(self, datagram: bytes) -> None:
        """Send one datagram; may drop it."""
        ...

    async def receive(self) -> bytes:
        """Wait for one datagram."""
        ...


class Caller:
    """A simulated caller on the telephone network: RTP over UDP on loopback, or over given datagrams.

    ::

        caller = Caller(CallerScript(speech=talkpath.read_audio("caller.wav")))
        async with trio.open_nursery() as nursery:
            address = await nursery.start(caller.run)
            ...                                  # open a call whose RtpLeg has remote=address
            caller.connect(call.leg.local_address)
            caller.begin()
    """

    def __init__(self, script: CallerScript) -> None:
        """Prepare the caller; `run` gives him a socket.

        Raises:
            ConfigError: the script asks for what he does not have.
        """
        self._machine = CallerMachine(script)
        self._remote: tuple[str, int] | None = None
        self._connected = trio.Event()
        self._t0: float | None = None

    @property
    def machine(self) -> CallerMachine:
        """What he says and hears."""
        return self._machine

    def connect(self, remote: tuple[str, int]) -> None:
        """Send to this address from now on; frame 0 leaves now."""
        self._remote = remote
        self._connected.set()

    def begin(self) -> float:
        """Speak from the next frame on; return that instant on Trio's clock."""
        return self._clock_time(self._machine.begin())

    def clock_time_of(self, after_begin_ms: int) -> float:
        """Return the instant, on Trio's clock, that lies so long after the first sample of the speech."""
        return self._clock_time((self._machine.begun_at_ns or 0) + after_begin_ms * NS_PER_MS)

    def elapsed_ms(self) -> int:
        """Return how long ago the first sample of the speech left; 0 before."""
        begun = self._machine.begun_at_ns
        return 0 if begun is None else max(0, (self._now() - begun) // NS_PER_MS)

    async def run(
        self,
        *,
        host: str = "127.0.0.1",
        task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be the caller until cancelled; reports his address once the socket is bound.

        Cancellation: closes the socket; what was heard stays readable.
        """
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
            await socket.bind((host, 0))
            address = socket.getsockname()
            task_status.started((address[0], address[1]))
            await self._connected.wait()
            await self.run_over(_Udp(socket, lambda: self._remote))

    async def run_over(self, datagrams: Datagrams) -> None:
        """Be the caller over `datagrams` until cancelled; frame 0 leaves at once.

        Cancellation: what was heard stays readable.
        """
        async with trio.open_nursery() as nursery:
            self._t0 = trio.current_time()
            nursery.start_soon(self._listen, datagrams)
            while True:
                for datagram in self._machine.tick(self._now()):
                    await datagrams.send(datagram)
                await trio.sleep_until(self._clock_time(self._machine.next_deadline()))

    async def _listen(self, datagrams: Datagrams) -> None:
        while True:
            datagram = await datagrams.receive()
            self._machine.receive(datagram, self._now())

    def _now(self) -> int:
        return 0 if self._t0 is None else seconds_to_ns(trio.current_time() - self._t0)

    def _clock_time(self, machine_ns: int) -> float:
        return (trio.current_time() if self._t0 is None else self._t0) + machine_ns * 1e-9


class _Udp:
    """Datagrams over a UDP socket, to and from one remote address."""

    def __init__(self, socket: trio.socket.SocketType, remote: Callable[[], tuple[str, int] | None]) -> None:
        self._socket, self._remote = socket, remote

    async def send(self, datagram: bytes) -> None:
        remote = self._remote()
        if remote is None:
            return
        try:
            await self._socket.sendto(datagram, remote)
        except OSError:
            # Nobody listens there (yet, or any more); a phone goes on talking.
            await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        while True:
            try:
                datagram, source = await self._socket.recvfrom(2048)
            except ConnectionError:
                await trio.lowlevel.checkpoint()
                continue
            if source[:2] == self._remote():
                return bytes(datagram)
