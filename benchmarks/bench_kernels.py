"""The native core's kernels, one frame of 20 ms at a time and in bulk, beside what Python programs use for the same.

G.711 and resampling have modules of their own. Rows of peers that are not installed are left out.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers import find_peer
from benchmarks.signals import Pcm, frames_of, speech_like
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib

FRAMES = 500
SAMPLES = 160
SECONDS = FRAMES / 50
BULK_SECONDS = 60
BASE = "talkpath, base instruction set"


def _octets_of(frame: Pcm) -> Any:
    return ffi.new("uint8_t[]", frame.tobytes())


def _samples_of(frame: Pcm) -> Any:
    return ffi.new("int16_t[]", frame.tolist())


def _each(work: Callable[[Any], object], inputs: list[Any]) -> Callable[[], None]:
    def run() -> None:
        for item in inputs:
            work(item)

    return run


def _at_base(run: Callable[[], None]) -> Callable[[], None]:
    """The same work with the base instruction set alone: what a machine without AVX2 gets."""

    def run_base() -> None:
        lib.tp_simd_select(0)
        run()
        lib.tp_simd_select(-1)

    return run_base


class DictJitterBuffer:
    """What a Python program writes: packets in a dict by sequence number, struct for the header."""

    def __init__(self) -> None:
        self._header = struct.Struct("!BBHII")
        self._frames: dict[int, bytes] = {}
        self._next: int | None = None

    def put(self, packet: bytes) -> None:
        """Take a datagram."""
        _, _, seq, _, _ = self._header.unpack_from(packet)
        if self._next is None:
            self._next = seq
        if (seq - self._next) & 0xFFFF < 0x8000:
            self._frames[seq] = packet[12:]

    def get(self) -> bytes | None:
        """Give the next frame; None where it has not come."""
        if self._next is None:
            return None
        frame = self._frames.pop(self._next, None)
        self._next = (self._next + 1) & 0xFFFF
        return frame


def jitter_rows() -> list[Row]:
    """A packet in and a frame out, in order: RTP header read, put, get."""
    header = struct.Struct("!BBHII")
    # A whole round of sequence numbers, so that packets can go round without end and stay in order.
    body = [frame.tobytes()[:SAMPLES] for frame in frames_of(speech_like(SECONDS))]
    packets = [
        header.pack(0x80, 0, seq, seq * SAMPLES, 0x1234) + payload
        for seq, payload in zip(range(65536), itertools.cycle(body), strict=False)
    ]
    held = [ffi.new("uint8_t[]", packet) for packet in packets]
    config = ffi.new(
        "tp_jitter_config *",
        {"clock_rate_hz": 8000, "bytes_per_ms": 8, "min_delay_ms": 20, "max_delay_ms": 200, "ptime_ms": 20},
    )
    ring = ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * 8)
    state = ffi.new("tp_jitter *")
    lib.tp_jitter_init(state, config, ring, len(ring))
    frame, out, parsed = ffi.new("tp_jitter_frame *"), ffi.new("uint8_t[]", SAMPLES), ffi.new("tp_rtp_header *")
    read, put, get = lib.tp_rtp_read, lib.tp_jitter_put, lib.tp_jitter_get
    size = 12 + SAMPLES
    ours_at, theirs_at = itertools.count(), itertools.count()

    def run() -> None:
        for _ in range(FRAMES):
            number = next(ours_at)
            packet, now = held[number & 0xFFFF], number * 20_000_000
            read(parsed, packet, size)
            # The timestamp goes on where the sequence number wraps.
            put(state, parsed.seq, number * SAMPLES & 0xFFFFFFFF, 0, packet + 12, SAMPLES, now)
            get(state, frame, out, now + 10_000_000)

    def fed() -> None:
        for _ in range(FRAMES):
            number = next(theirs_at)
            buffer.put(packets[number & 0xFFFF])
            buffer.get()

    buffer = DictJitterBuffer()
    peers = [Candidate("struct + dict, no adaptation", fed, FRAMES)]
    jitterbuffer, rtp = find_peer("aiortc.jitterbuffer"), find_peer("aiortc.rtp")
    if jitterbuffer is not None and rtp is not None:
        theirs, parse = jitterbuffer.JitterBuffer(capacity=16), rtp.RtpPacket.parse
        aiortc_at = itertools.count()

        def run_aiortc() -> None:
            for _ in range(FRAMES):
                packet = parse(packets[next(aiortc_at) & 0xFFFF])
                packet._data = packet.payload  # as its receiver does for G.711
                theirs.add(packet)

        peers.append(Candidate("aiortc", run_aiortc, FRAMES))
    run()
    quality = {"missing % of emitted": 100 * state.missing_ms / state.emitted_ms}
    ours = Candidate("talkpath, three calls", run, FRAMES, quality, keeps=(ring,))
    return [Row("RTP in, jitter buffer, frame out", ours, peers)]


def plc_rows() -> list[Row]:
    """Concealment: what a good frame costs for being remembered, and a lost one."""
    frames = frames_of(speech_like(SECONDS))
    held = [_samples_of(frame) for frame in frames]
    state = ffi.new("tp_plc *")
    lib.tp_plc_init(state, 8000)
    out = ffi.new("int16_t[]", SAMPLES)
    receive, fillin = lib.tp_plc_receive, lib.tp_plc_fillin
    fade = np.linspace(1.0, 0.0, SAMPLES)

    def run_good() -> None:
        for frame in held:
            receive(state, frame, SAMPLES)

    def run_lost() -> None:
        for frame in held:
            receive(state, frame, SAMPLES)
            fillin(state, out, SAMPLES, ffi.NULL, 0)

    def repeat(frame: Pcm) -> None:
        kept = frame.copy()
        (kept * fade).astype(np.int16)

    return [
        Row("concealment, good frame", Candidate("talkpath", run_good, FRAMES), []),
        Row(
            "concealment, good and lost frame",
            Candidate("talkpath", run_lost, FRAMES),
            [Candidate("numpy, last frame faded", _each(repeat, list(frames)), FRAMES)],
        ),
    ]


def base64_rows() -> list[Row]:
    """Base64 of one frame of PCMU."""
    octets = [frame.tobytes()[:SAMPLES] for frame in frames_of(speech_like(SECONDS))]
    texts = [base64.b64encode(each) for each in octets]
    held_octets = [ffi.new("uint8_t[]", each) for each in octets]
    held_texts = [ffi.new("uint8_t[]", each) for each in texts]
    out = ffi.new("uint8_t[]", 256)
    encode, decode = lib.tp_base64_encode, lib.tp_base64_decode
    n_text = len(texts[0])

    def run_encode() -> None:
        for each in held_octets:
            encode(out, 256, each, SAMPLES)

    def run_decode() -> None:
        for each in held_texts:
            decode(out, 256, each, n_text)

    encoders = [Candidate("base64", _each(base64.b64encode, octets), FRAMES)]
    decoders = [
        Candidate("base64", _each(base64.b64decode, texts), FRAMES),
        Candidate(
            "base64, validating as ours", _each(lambda text: base64.b64decode(text, validate=True), texts), FRAMES
        ),
    ]
    if (pybase64 := find_peer("pybase64")) is not None:
        encoders.append(Candidate("pybase64", _each(pybase64.b64encode, octets), FRAMES))
        decoders.append(
            Candidate(
                "pybase64, validating", _each(lambda text: pybase64.b64decode(text, validate=True), texts), FRAMES
            )
        )
    return [
        Row("base64 encode, 160 bytes", Candidate("talkpath", run_encode, FRAMES), encoders),
        Row("base64 decode, 160 bytes", Candidate("talkpath, validating", run_decode, FRAMES), decoders),
    ]


def rows() -> list[Row]:
    """Build every kernel's row."""
    return [*jitter_rows(), *plc_rows(), *base64_rows()]
