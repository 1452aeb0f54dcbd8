"""One tick of many calls: decode, level, voice activity, resample to 16 kHz; what it costs, and what a call occupies.

Beside it the same by the libraries of a Python program, call by call, each with a resampler and a detector of its own.
A program that measures loudness alone takes audioop's for its detector; the row has that peer too, and it does less.
The second row has no peer but the same work for other numbers of calls: what a cache that is too small costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import TableG711, find_peer
from benchmarks.signals import frames_of, speech_like
from benchmarks.timing import Candidate, Row, at_base
from talkpath._native import ffi, lib
from talkpath.dsp import EAR_BYTES, Ears, Resampler
from talkpath.path.path import LegKind

CALLS = 1000
FEW, MANY = 100, 4000
SECONDS = 20
TURNS = 8
SAMPLES = 160
PCMU = 1
SOXR_DELAY_MS = 63.0
"""On average: with chunks of 20 ms its stream gives nothing for 100 ms and then all at once."""

Payloads = npt.NDArray[np.uint8]


def _payloads() -> Payloads:
    encode = TableG711().lin2ulaw
    data = b"".join(encode(frame.tobytes(), 2) for frame in frames_of(speech_like(SECONDS)))
    return np.frombuffer(data, np.uint8).reshape(-1, SAMPLES)


def _ticks(payloads: Payloads, calls: int) -> list[Payloads]:
    """What each call sends in each of some ticks: every call is somewhere else in the speech."""
    first = np.arange(calls) * 17
    return [np.ascontiguousarray(payloads[(first + turn) % len(payloads)]) for turn in range(TURNS)]


def _ours(payloads: Payloads, calls: int) -> tuple[Callable[[], None], Ears]:
    ears, ticks = Ears(calls), _ticks(payloads, calls)
    out = np.empty((calls, 2 * SAMPLES), np.int16)

    def run() -> None:
        for tick in ticks:
            ears.process(tick, out=out)

    return run, ears


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _resident_per_ear(payloads: Payloads) -> float:
    """Bytes by which the process grows for each ear that works."""
    few = [_ours(payloads, FEW)]
    few[0][0]()
    before = _resident_bytes()
    ears = Ears(MANY * 4)
    for _ in range(2):
        ears.process(np.tile(payloads[:FEW], (MANY * 4 // FEW, 1)))
    grown = _resident_bytes() - before
    return grown / (MANY * 4)


def _path_bytes() -> int:
    """What a call with an RTP leg and one stream occupies in the native core."""
    config = ffi.new("tp_path_config *")
    config.leg_kind, config.leg_format, config.ptime_ms = LegKind.RTP, (8000, PCMU), 20
    config.event_payload_type, config.jitter_max_ms = 101, 200
    return int(lib.tp_path_sizeof() + lib.tp_path_jitter_bytes(config) + lib.tp_stream_sizeof())


def _peers(payloads: Payloads) -> list[Candidate]:
    audioop, soxr, webrtcvad = find_peer("audioop"), find_peer("soxr"), find_peer("webrtcvad")
    if audioop is None or soxr is None:
        return []
    ticks = [[frame.tobytes() for frame in tick] for tick in _ticks(payloads, CALLS)]

    def peer(name: str, detectors: list[Callable[[bytes], object]]) -> Candidate:
        streams = [soxr.ResampleStream(8000, 16000, 1, dtype="int16", quality="VHQ") for _ in range(CALLS)]

        def run() -> None:
            for tick in ticks:
                for frame, speaks, stream in zip(tick, detectors, streams, strict=True):
                    pcm = audioop.ulaw2lin(frame, 2)
                    audioop.rms(pcm, 2)
                    speaks(pcm)
                    stream.resample_chunk(np.frombuffer(pcm, np.int16))

        return Candidate(name, run, CALLS * TURNS, {"delay ms": SOXR_DELAY_MS})

    peers = []
    if webrtcvad is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gates: list[Any] = [webrtcvad.Vad(2) for _ in range(CALLS)]
        asked: list[Callable[[bytes], object]] = [lambda pcm, gate=gate: gate.is_speech(pcm, 8000) for gate in gates]  # type: ignore[misc]
        peers.append(peer("audioop + soxr VHQ stream + webrtcvad", asked))
    peers.append(peer("audioop + soxr VHQ stream, loudness for a detector", [lambda pcm: audioop.rms(pcm, 2)] * CALLS))
    return peers


def rows() -> list[Row]:
    """Build the row of a thousand calls, and the one of few and many."""
    payloads = _payloads()
    resident = _resident_per_ear(payloads)
    thousand, _ = _ours(payloads, CALLS)
    quality = {
        "delay ms": Resampler(8000, 16000).delay_ms,
        "bytes a call": float(EAR_BYTES),
        "resident bytes a call": resident,
        "with path and stream": float(EAR_BYTES + _path_bytes()),
    }
    few, _ = _ours(payloads, FEW)
    many, _ = _ours(payloads, MANY)
    return [
        Row(
            f"one tick of {CALLS:,} calls, each",
            Candidate("talkpath", thousand, CALLS * TURNS, quality),
            [Candidate("talkpath, base instruction set", at_base(thousand), CALLS * TURNS), *_peers(payloads)],
            {"audioop": 8},
        ),
        Row(
            f"the same, of {FEW} calls",
            Candidate(f"talkpath, {FEW} calls", few, FEW * TURNS),
            [Candidate(f"talkpath, {MANY:,} calls", many, MANY * TURNS)],
            at_most={"talkpath": 1.3},
        ),
    ]
