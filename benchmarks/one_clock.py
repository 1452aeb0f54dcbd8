"""What the two asyncio peers have in common: a call bridge with one clock for all calls, but for its WebSocket.

The naive design pays for a task and a timer per job and call. Its author, told so, would write this next, on uvloop:

    clock     one timerfd of 20 ms, each tick for all calls; absolute deadlines; no task, no timer per call
    RTP in    read by the call's tick with one plain `recv_into`: at 20 ms a packet there is one to read, so neither
              the event loop nor its poll is asked; what comes late or early is caught up on by reading more often
    RTP out   the same tick sends on the connected socket, one packet buffer for all calls
    codec     talkpath's own G.711 in C, called on buffers that live as long as the process: octets to PCM and back in
              each direction, so that a level meter, a recorder or a mixer could be put in between
    playout   payload as it came, decoded when its turn has come; only sizes other than 20 ms are cut
    JSON      written from a template filled in by one `bytes %`, read by orjson; base64 by pybase64

Left out, to the peer's advantage: jitter buffer and concealment (lost and late packets are skipped), RTP source checks.

Tried against each other at the same time on one core, microseconds of a call and 20 ms: a quarter of the calls every
5 ms costs 7 % more than one tick of 20 ms, reading RTP through the loop's readers 5 % more, `orjson.dumps` for the
template or sending from a copy the same within 1 %. One thing more can be had, `polled`: the loop makes one pass for
each tick, in which it finds everybody's messages at once, 10 to 15 % less again for up to 20 ms more delay of messages
and of everything else in the process. It is a design of its own here, since it gives up what an event loop is for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
import pybase64

from benchmarks.control import Peers
from benchmarks.control_asyncio import serve_control
from benchmarks.idle_timer import open_timerfd
from benchmarks.packets import FRAME_SAMPLES, PLAYOUT_FRAMES, REORDER_FRAMES, Reorder, rtp_header
from talkpath._native import ffi, lib

TICK_NS = 20_000_000
OPENED_AT_ONCE = 100
HEADER_BYTES = 12
PACKET_BYTES = HEADER_BYTES + FRAME_SAMPLES
SILENCE = b"\xff" * FRAME_SAMPLES
SURPLUS_EVERY = 64
"""Frames after which one packet more is looked for: a caller's clock may be faster than ours."""

loads: Any = orjson.loads
b64decode: Any = pybase64.b64decode
b64encode: Any = pybase64.b64encode
decode: Any = lib.tp_g711_pcmu_decode
encode: Any = lib.tp_g711_pcmu_encode

# One thread, nothing awaited while they are in use: all calls share them.
_packet_in = bytearray(2048)
_octets_in: Any = ffi.from_buffer("uint8_t[]", _packet_in) + HEADER_BYTES
_packet_out = bytearray(PACKET_BYTES)
_octets_out: Any = ffi.from_buffer("uint8_t[]", _packet_out) + HEADER_BYTES
_pcm: Any = ffi.new("int16_t[]", FRAME_SAMPLES)
_said: Any = ffi.new("uint8_t[]", FRAME_SAMPLES)
_said_bytes: Any = ffi.buffer(_said)
_read_header = rtp_header.unpack_from
_write_header = rtp_header.pack_into


class Call(ABC):
    """One call: its RTP socket, its order, its playout. A WebSocket library makes the other half."""

    room_for_header = 0
    """Bytes to leave in front of each message, where the library writes its header in place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stream_id = f"00000000-0000-4000-8000-{number:012d}"
        # Any: a bytearray, whose % the type stubs take to give bytes.
        self.message: Any = bytearray(self.room_for_header) + (
            b'{"event":"media","sequenceNumber":%d,"streamId":"' + self.stream_id.encode() + b'",'
            b'"media":{"track":"inbound","timestamp":"%d","chunk":%d,"payload":"%b"},"extra_headers":"{}"}'
        )
        self.frames_dropped = 0
        self.frames_sent = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receive_into = self._socket.recv_into
        self._send = self._socket.send
        self._ssrc = 0x54500000 + number
        self._order = Reorder()
        self._missed = 0
        self._chunk = 0
        self._playout: deque[bytes] = deque(maxlen=PLAYOUT_FRAMES)
        self._rest = b""

    @abstractmethod
    def send_text(self, text: bytearray) -> None:
        """Send one message, or drop it and count it while the peer takes none; `text` is the WebSocket side's."""

    def open_rtp(self, remote_port: int) -> int:
        """Connect the RTP socket on loopback; return the local port."""
        self._socket.bind(("127.0.0.1", 0))
        self._socket.connect(("127.0.0.1", remote_port))
        self._socket.setblocking(False)
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin the stream."""
        start = {
            "callId": self.stream_id,
            "streamId": self.stream_id,
            "accountId": "MABENCH",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
        }
        message = {"event": "start", "sequenceNumber": 1, "start": start, "extra_headers": "{}"}
        self.send_text(bytearray(self.room_for_header) + bytearray(orjson.dumps(message)))

    def receive_text(self, text: bytes | memoryview) -> None:
        """Take one message of the application."""
        message = loads(text)
        event = message["event"]
        if event == "playAudio":
            payload = b64decode(message["media"]["payload"], validate=True)
            if len(payload) == FRAME_SAMPLES and not self._rest:
                self._playout.append(payload)
            else:
                self._cut(payload)
        elif event == "clearAudio":
            self._playout.clear()
            self._rest = b""

    def _cut(self, payload: bytes) -> None:
        octets = self._rest + payload
        whole = len(octets) - len(octets) % FRAME_SAMPLES
        for at in range(0, whole, FRAME_SAMPLES):
            self._playout.append(octets[at : at + FRAME_SAMPLES])
        self._rest = octets[whole:]

    def tick(self) -> None:
        """Do the call's 20 ms: read what has come, send what is due."""
        n = self.frames_sent
        due = 1 + self._missed
        reads = due if n % SURPLUS_EVERY else due + 1
        done = 0
        try:
            while done < reads:
                size = self._receive_into(_packet_in)
                done += 1
                self._receive_packet(size)
        except BlockingIOError:
            pass
        self._missed = min(REORDER_FRAMES, max(0, due - done))

        decode(_pcm, self._playout.popleft() if self._playout else SILENCE, FRAME_SAMPLES)
        encode(_octets_out, _pcm, FRAME_SAMPLES)
        _write_header(_packet_out, 0, 0x80, 0, n & 0xFFFF, n * FRAME_SAMPLES & 0xFFFFFFFF, self._ssrc)
        self.frames_sent = n + 1
        try:
            self._send(_packet_out)
        except BlockingIOError:
            self.frames_dropped += 1

    def _receive_packet(self, size: int) -> None:
        first, kind, seq, _, _ = _read_header(_packet_in)
        if size != PACKET_BYTES or first != 0x80 or kind & 0x7F:
            return
        order = self._order
        if seq == order.expected and not order.waiting:
            order.expected = (seq + 1) & 0xFFFF
            decode(_pcm, _octets_in, FRAME_SAMPLES)
            self._send_frame()
            return
        # The first packet, or one out of order: rare, so it may cost more.
        for payload in order.put(seq, bytes(_packet_in[HEADER_BYTES:size])):
            decode(_pcm, payload, FRAME_SAMPLES)
            self._send_frame()

    def _send_frame(self) -> None:
        encode(_said, _pcm, FRAME_SAMPLES)
        self._chunk = chunk = self._chunk + 1
        self.send_text(self.message % (chunk + 1, chunk * 20, chunk, b64encode(_said_bytes)))


OpenCall = Callable[[int, str], Awaitable[Call]]
"""Connects one call, given its number and the application's URL."""


class Ticking(Protocol):
    """What the clock serves."""

    def tick(self) -> None: ...


class Clock:
    """The one timer of the process: everybody's 20 ms at absolute deadlines."""

    def __init__(self) -> None:
        self._ticking: list[Ticking] = []
        self._loop = asyncio.get_running_loop()
        fd = open_timerfd(time.monotonic_ns() + TICK_NS, TICK_NS)
        if fd is None:
            raise OSError("this peer needs timerfd")
        self._fd = fd

    def add(self, ticking: Ticking) -> None:
        """Serve one more from now on."""
        self._ticking.append(ticking)

    def start(self, *, polled: bool = False) -> None:
        """Tick from now on; `polled`: let the loop look at its sockets once a tick and not whenever one is readable."""
        if polled:
            os.set_blocking(self._fd, True)
            self._loop.call_soon(self._on_turn)
        else:
            self._loop.add_reader(self._fd, self._on_timer)

    def _on_timer(self) -> None:
        for _ in range(int.from_bytes(os.read(self._fd, 8), "little")):
            for each in self._ticking:
                each.tick()

    def _on_turn(self) -> None:
        # Blocks: what waits here waits for nothing in the loop, which has a turn of its own before the next tick.
        self._on_timer()
        self._loop.call_soon(self._on_turn)


async def serve(open_call: OpenCall, *, polled: bool = False) -> None:
    """Serve the harness on standard input and output, with one clock for all calls."""
    calls: list[Call] = []
    clock = Clock()
    clock.start(polled=polled)

    async def open_calls(peers: Peers) -> list[int]:
        ports: list[int] = []
        numbered = list(enumerate(peers.rtp_ports, peers.first))
        for at in range(0, len(numbered), OPENED_AT_ONCE):
            some = numbered[at : at + OPENED_AT_ONCE]
            base = f"ws://127.0.0.1:{peers.ws_port}"
            opened = await asyncio.gather(*(open_call(number, f"{base}/{number}") for number, _ in some))
            for call, (_, remote_port) in zip(opened, some, strict=True):
                ports.append(call.open_rtp(remote_port))
                call.start()
                calls.append(call)
                clock.add(call)
        return ports

    def statistics() -> dict[str, Any]:
        return {
            "frames_dropped": sum(call.frames_dropped for call in calls),
            "frames_sent": sum(call.frames_sent for call in calls),
        }

    await serve_control(open_calls, statistics)
