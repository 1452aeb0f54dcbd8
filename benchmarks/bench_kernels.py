"""The native core's kernels, one frame of 20 ms at a time and in bulk, beside what Python programs use for the same.

Each row says what the result is worth beside what it costs: encoders by mismatches against ITU-T G.711, resamplers by
signal to noise and delay. Rows of peers that are not installed are left out.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import TableG711, find_peer
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


def g711_rows() -> list[Row]:
    """PCMU both ways: a frame per call, and a minute per call."""
    table = TableG711()
    audioop = find_peer("audioop")
    pcm = [frame.tobytes() for frame in frames_of(speech_like(SECONDS))]
    octets = [table.lin2ulaw(frame, 2) for frame in pcm]
    linear_in = [ffi.new("uint8_t[]", frame) for frame in pcm]
    linear = [ffi.cast("int16_t *", frame) for frame in linear_in]
    coded = [ffi.new("uint8_t[]", frame) for frame in octets]
    out_samples, out_octets = ffi.new("int16_t[]", SAMPLES), ffi.new("uint8_t[]", SAMPLES)
    decode, encode = lib.tp_g711_pcmu_decode, lib.tp_g711_pcmu_encode

    def run_decode() -> None:
        for frame in coded:
            decode(out_samples, frame, SAMPLES)

    def run_encode() -> None:
        for frame in linear:
            encode(out_octets, frame, SAMPLES)

    every = np.arange(-32768, 32768, dtype=np.int16)
    exact = table.lin2ulaw(every.tobytes(), 2)
    all_octets = ffi.new("uint8_t[]", 65536)
    encode(all_octets, ffi.from_buffer("int16_t[]", every), 65536)

    def mismatches(found: bytes) -> dict[str, float]:
        return {"mismatches of 65536": sum(one != other for one, other in zip(exact, found, strict=True))}

    decoders = [Candidate("numpy table", _each(lambda frame: table.ulaw2lin(frame, 2), octets), FRAMES)]
    encoders = [Candidate("numpy table", _each(lambda frame: table.lin2ulaw(frame, 2), pcm), FRAMES)]
    minute = speech_like(BULK_SECONDS)
    minute_pcm = minute.tobytes()
    minute_octets = table.lin2ulaw(minute_pcm, 2)
    n = len(minute)
    bulk_samples, bulk_octets = ffi.new("int16_t[]", n), ffi.new("uint8_t[]", n)
    bulk_linear = ffi.from_buffer("int16_t[]", minute)
    bulk_frames = n // SAMPLES
    bulk_decoders = [Candidate("numpy table", lambda: _drop(table.ulaw2lin(minute_octets, 2)), bulk_frames)]
    bulk_encoders = [Candidate("numpy table", lambda: _drop(table.lin2ulaw(minute_pcm, 2)), bulk_frames)]
    if audioop is not None:
        ulaw2lin, lin2ulaw = audioop.ulaw2lin, audioop.lin2ulaw
        quality = mismatches(lin2ulaw(every.tobytes(), 2))

        def run_ulaw2lin() -> None:
            for frame in octets:
                ulaw2lin(frame, 2)

        def run_lin2ulaw() -> None:
            for frame in pcm:
                lin2ulaw(frame, 2)

        decoders.insert(0, Candidate("audioop", run_ulaw2lin, FRAMES))
        encoders.insert(0, Candidate("audioop", run_lin2ulaw, FRAMES, quality))
        bulk_decoders.insert(0, Candidate("audioop", lambda: _drop(ulaw2lin(minute_octets, 2)), bulk_frames))
        bulk_encoders.insert(0, Candidate("audioop", lambda: _drop(lin2ulaw(minute_pcm, 2)), bulk_frames))

    def run_bulk_decode() -> None:
        decode(bulk_samples, minute_octets, n)

    def run_bulk_encode() -> None:
        encode(bulk_octets, bulk_linear, n)

    ours = mismatches(bytes(ffi.buffer(all_octets)))
    works: tuple[tuple[str, Callable[[], None], int, dict[str, float], list[Candidate]], ...] = (
        ("PCMU decode, frame a call", run_decode, FRAMES, {}, decoders),
        ("PCMU encode, frame a call", run_encode, FRAMES, ours, encoders),
        ("PCMU decode, 60 s a call, per frame", run_bulk_decode, bulk_frames, {}, bulk_decoders),
        ("PCMU encode, 60 s a call, per frame", run_bulk_encode, bulk_frames, ours, bulk_encoders),
    )
    return [
        Row(name, Candidate("talkpath", run, count, notes), [Candidate(BASE, _at_base(run), count), *peers])
        for name, run, count, notes, peers in works
    ]


def _drop(_: object) -> None:
    """Let the result go; what a benchmark measures must not be optimised into returning it."""


Convert = Callable[[Pcm], npt.NDArray[Any]]


def _resampler_quality(make: Callable[[], Convert], from_hz: int, to_hz: int) -> dict[str, float]:
    """Measure what comes out against what went in, chunk by chunk as a stream.

    Signal to noise: the worst of five sines of the telephone band, the sine itself fitted and taken out of the
    output, so that images, ripple's distortion and rounding remain. Alias: the loudest that a tone above the lower
    rate's band leaves, downwards only. Delay: where a click comes out, plus what the stream holds back on average.
    """
    n_in = from_hz
    at = np.arange(n_in)

    def through(signal: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
        convert = make()
        taken = delivered = 0
        missing: list[float] = []
        pieces: list[npt.NDArray[Any]] = []
        for frame in frames_of(signal.astype(np.int16), from_hz):
            pieces.append(np.array(convert(frame)))
            taken += len(frame)
            delivered += len(pieces[-1])
            missing.append(taken / from_hz - delivered / to_hz)
        return np.concatenate(pieces).astype(np.float64), float(np.mean(missing[len(missing) // 2 :]) * 1000)

    worst = np.inf
    for hz in (300, 1000, 2000, 3000, 3400):
        out, _ = through(16000 * np.sin(2 * np.pi * hz * at / from_hz))
        out = out[len(out) // 3 : len(out) * 2 // 3]
        phase = 2 * np.pi * hz * np.arange(len(out)) / to_hz
        basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
        fitted = basis @ np.linalg.lstsq(basis, out, rcond=None)[0]
        worst = min(worst, 10 * np.log10(np.sum(fitted**2) / max(1e-9, np.sum((out - fitted) ** 2))))
    click = np.zeros(n_in)
    click[n_in // 2] = 16000
    out, held_ms = through(click)
    peak_ms = (float(np.argmax(np.abs(out))) / to_hz - (n_in // 2) / from_hz) * 1000
    quality = {"SNR dB": float(worst), "delay ms": peak_ms + held_ms}
    if to_hz < from_hz:
        limit = 0.0
        for hz in (4600, 5200, 6300):
            out, _ = through(16000 * np.sin(2 * np.pi * hz * at / from_hz))
            limit = max(limit, float(np.sqrt(np.mean(out[len(out) // 3 : len(out) * 2 // 3] ** 2))))
        quality["alias dB"] = 20 * np.log10(max(limit, 1e-3) / (16000 / np.sqrt(2)))
    return quality


def resample_rows() -> list[Row]:
    """Resampling, 20 ms at a time with state kept, as a call does it."""
    return [
        _resample_row(from_hz, to_hz)
        for from_hz, to_hz in ((8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (8000, 48000), (48000, 8000))
    ]


def _resample_row(from_hz: int, to_hz: int) -> Row:
    frames = frames_of(speech_like(SECONDS, from_hz), from_hz)
    n_in, room = from_hz // 50, to_hz // 50
    held = [_samples_of(frame) for frame in frames]
    out = ffi.new("int16_t[]", room)
    state = ffi.new("tp_resample *")
    lib.tp_resample_init(state, from_hz, to_hz)
    process = lib.tp_resample_process

    def run() -> None:
        for frame in held:
            process(state, out, room, frame, n_in)

    def make_ours() -> Convert:
        own = ffi.new("tp_resample *")
        lib.tp_resample_init(own, from_hz, to_hz)

        def convert(frame: Pcm) -> npt.NDArray[Any]:
            written = process(own, out, room, ffi.from_buffer("int16_t[]", np.ascontiguousarray(frame)), len(frame))
            return np.frombuffer(ffi.buffer(out, written * 2), np.int16)

        return convert

    peers = [Candidate(BASE, _at_base(run), len(held))]
    if (soxr := find_peer("soxr")) is not None:

        def make_soxr() -> Convert:
            stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16", quality="VHQ")
            return lambda frame: stream.resample_chunk(frame)

        peers.append(_resample_peer("soxr stream VHQ", make_soxr, frames, from_hz, to_hz))
    if (audioop := find_peer("audioop")) is not None:

        def make_ratecv() -> Convert:
            kept: list[Any] = [None]

            def convert(frame: Pcm) -> npt.NDArray[Any]:
                converted, kept[0] = audioop.ratecv(frame.tobytes(), 2, 1, from_hz, to_hz, kept[0])
                return np.frombuffer(converted, np.int16)

            return convert

        peers.append(_resample_peer("audioop.ratecv", make_ratecv, frames, from_hz, to_hz))
    if (signal := find_peer("scipy.signal")) is not None:
        resample_poly = signal.resample_poly
        up, down = (to_hz // 8000, from_hz // 8000)

        def make_poly() -> Convert:
            return lambda frame: np.clip(np.rint(resample_poly(frame.astype(np.float32), up, down)), -32768, 32767)

        peers.append(_resample_peer("scipy resample_poly, no state", make_poly, frames[:50], from_hz, to_hz))
    name = f"resample {from_hz // 1000} -> {to_hz // 1000} kHz"
    return Row(name, Candidate("talkpath", run, len(held), _resampler_quality(make_ours, from_hz, to_hz)), peers)


def _resample_peer(name: str, make: Callable[[], Convert], frames: list[Pcm], from_hz: int, to_hz: int) -> Candidate:
    return Candidate(name, _each(make(), frames), len(frames), _resampler_quality(make, from_hz, to_hz))


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
    return [*g711_rows(), *resample_rows(), *jitter_rows(), *plc_rows(), *base64_rows()]
