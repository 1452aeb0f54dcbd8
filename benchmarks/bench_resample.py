"""Resampling 20 ms at a time with state kept, as a call does it, beside the resamplers that voice programs use.

Quality stands on the same line, measured through the same chunks: ripple and the loudest trace beside a tone of the
telephone band, the loudest trace of tones above the lower rate's band, and the delay from end to end. `draw` makes the
pictures of the responses. Peers that are not installed are left out.
"""

from __future__ import annotations

import ctypes.util
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cffi import FFI

from benchmarks.peers import find_peer
from benchmarks.plots import Series, line_plot
from benchmarks.signals import Pcm, frames_of, speech_like
from benchmarks.timing import Candidate, Row, at_base
from talkpath._native import ffi, lib
from talkpath.dsp import Resampler

SECONDS = 4
RATES_HZ = ((8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (8000, 48000), (48000, 8000), (44100, 8000))
FUSED_GOALS = {
    (8000, 16000): {"soxr": 12.0},
    (16000, 8000): {"soxr": 5.0},
    (8000, 24000): {"soxr": 6.0},
    (8000, 48000): {"soxr": 6.0},
    (24000, 8000): {"soxr": 2.5, "speexdsp": 5.0},
    (48000, 8000): {"soxr": 2.5, "speexdsp": 5.0},
}
PUBLIC_GOALS = {(8000, 16000): {"soxr": 5.0}, (16000, 8000): {"soxr": 3.0}}
BASE = "talkpath, base instruction set"
FUSED = "talkpath, the call in the path"
PUBLIC = "talkpath.dsp.Resampler"
AMPLITUDE = 16000.0
FLOOR_DB = -120.0

Convert = Callable[[Pcm], npt.NDArray[Any]]
Make = Callable[[int, int], Convert]


def _ours(from_hz: int, to_hz: int) -> Convert:
    return Resampler(from_hz, to_hz).process


def _soxr(from_hz: int, to_hz: int) -> Convert:
    soxr = find_peer("soxr")
    assert soxr is not None
    convert: Convert = soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16", quality="VHQ").resample_chunk
    return convert


def _ratecv(from_hz: int, to_hz: int) -> Convert:
    audioop = find_peer("audioop")
    assert audioop is not None
    kept: Any = None

    def convert(frame: Pcm) -> npt.NDArray[Any]:
        nonlocal kept
        converted, kept = audioop.ratecv(frame.tobytes(), 2, 1, from_hz, to_hz, kept)
        return np.frombuffer(converted, np.int16)

    return convert


@cache
def _speexdsp() -> tuple[FFI, Any] | None:
    """Open the system's speexdsp, without headers; None where it is not installed."""
    name = ctypes.util.find_library("speexdsp")
    if name is None:
        return None
    speex = FFI()
    speex.cdef("""
        void *speex_resampler_init(uint32_t channels, uint32_t in_rate, uint32_t out_rate, int quality, int *err);
        int speex_resampler_process_int(void *state, uint32_t channel, const int16_t *in, uint32_t *in_len,
                                        int16_t *out, uint32_t *out_len);
        void speex_resampler_destroy(void *state);
    """)
    return speex, speex.dlopen(name)


def _speex(from_hz: int, to_hz: int) -> Convert:
    opened = _speexdsp()
    assert opened is not None
    speex, library = opened
    state = speex.gc(library.speex_resampler_init(1, from_hz, to_hz, 4, speex.NULL), library.speex_resampler_destroy)
    process, room = library.speex_resampler_process_int, to_hz // 10
    out, n_in, n_out = speex.new("int16_t[]", room), speex.new("uint32_t *"), speex.new("uint32_t *")
    view = np.frombuffer(speex.buffer(out), np.int16)
    samples = speex.typeof("int16_t[]")

    def convert(frame: Pcm) -> npt.NDArray[Any]:
        n_in[0], n_out[0] = len(frame), room
        process(state, 0, speex.from_buffer(samples, frame), n_in, out, n_out)
        return view[: n_out[0]].copy()

    return convert


def _peers() -> list[tuple[str, Make]]:
    peers: list[tuple[str, Make]] = []
    if find_peer("soxr") is not None:
        peers.append(("soxr stream VHQ", _soxr))
    if _speexdsp() is not None:
        peers.append(("speexdsp quality 4", _speex))
    if find_peer("audioop") is not None:
        peers.append(("audioop.ratecv", _ratecv))
    return peers


def _lines_of(make: Make, from_hz: int, to_hz: int, hz: float) -> npt.NDArray[np.float64]:
    """Return the levels, in dB of the tone's and 5 Hz apart, of what a tone at a multiple of 5 Hz comes out as."""
    n = np.arange(from_hz * 3 // 5)
    tone = np.rint(AMPLITUDE * np.sin(2 * np.pi * hz / from_hz * n)).astype(np.int16)
    convert = make(from_hz, to_hz)
    out = np.concatenate([np.array(convert(frame)) for frame in frames_of(tone, from_hz)])
    lines = np.abs(np.fft.rfft(out[-(to_hz // 5) :].astype(np.float64))) / (to_hz // 10) / AMPLITUDE
    decibels: npt.NDArray[np.float64] = 20 * np.log10(np.maximum(lines, 10 ** (FLOOR_DB / 20)))
    return decibels


@cache
def quality(make: Make, from_hz: int, to_hz: int) -> dict[str, float]:
    """Measure what comes out of a stream of 20 ms chunks against what goes in."""
    gains, beside = [], FLOOR_DB
    for hz in (300, 550, 1000, 1550, 2000, 2550, 3000, 3250, 3400):
        lines = _lines_of(make, from_hz, to_hz, hz)
        gains.append(float(lines[hz // 5]))
        beside = max(beside, float(np.delete(lines, hz // 5).max()))
    measured = {"ripple dB": max(map(abs, gains)), "images dB": beside}
    if to_hz < from_hz:
        above = [4000, 4050, *range(4200, 8000, 550), *range(8050, from_hz // 2, 1450)]
        measured["aliases dB"] = max(float(_lines_of(make, from_hz, to_hz, hz).max()) for hz in above)
    return measured | {"delay ms": _delay_ms(make, from_hz, to_hz)}


def _delay_ms(make: Make, from_hz: int, to_hz: int) -> float:
    """Where a click comes out, plus what the stream holds back on average."""
    click = np.zeros(from_hz, np.int16)
    click[from_hz // 2] = 16000
    convert, taken, pieces, held = make(from_hz, to_hz), 0, [], []
    delivered = 0
    for frame in frames_of(click, from_hz):
        pieces.append(np.array(convert(frame)))
        taken += len(frame)
        delivered += len(pieces[-1])
        held.append(taken / from_hz - delivered / to_hz)
    at = int(np.argmax(np.abs(np.concatenate(pieces).astype(np.int32))))
    return 1000 * (at / to_hz - 0.5 + float(np.mean(held[len(held) // 2 :])))


def rows() -> list[Row]:
    """Build two rows per pair of rates: the call inside the core, and the public one."""
    return [row for from_hz, to_hz in RATES_HZ for row in _rows_of(from_hz, to_hz)]


def _rows_of(from_hz: int, to_hz: int) -> list[Row]:
    frames = frames_of(speech_like(SECONDS, from_hz), from_hz)
    held = [ffi.new("uint8_t[]", frame.tobytes()) for frame in frames]
    out = ffi.new("int16_t[]", to_hz // 25)
    port = ffi.new("tp_resample_port *", {"out": out, "capacity": len(out)})
    lib.tp_resample_init(ffi.addressof(port, "state"), from_hz, to_hz)
    chunk, n_bytes = lib.tp_resample_chunk, 2 * len(frames[0])

    def fused() -> None:
        for frame in held:
            chunk(port, frame, n_bytes)

    public = _each(_ours(from_hz, to_hz), frames)
    own = quality(_ours, from_hz, to_hz)
    peers = [
        Candidate(name, _each(make(from_hz, to_hz), frames), len(frames), quality(make, from_hz, to_hz))
        for name, make in _peers()
    ]
    name = f"resample {from_hz / 1000:g} -> {to_hz / 1000:g} kHz"
    return [
        Row(
            f"{name}, fused",
            Candidate(FUSED, fused, len(frames), own, (port, out, held)),
            [Candidate(BASE, at_base(fused), len(frames)), *peers],
            FUSED_GOALS.get((from_hz, to_hz), {}),
        ),
        Row(
            f"{name}, public call",
            Candidate(PUBLIC, public, len(frames), own),
            [Candidate(BASE, at_base(public), len(frames)), *peers],
            PUBLIC_GOALS.get((from_hz, to_hz), {}),
        ),
    ]


def _each(convert: Convert, frames: list[Pcm]) -> Callable[[], None]:
    def run() -> None:
        for frame in frames:
            convert(frame)

    return run


def response(make: Make, from_hz: int, to_hz: int) -> tuple[list[float], list[float]]:
    """Measure the response at some 120 frequencies up to half the higher rate, tone by tone.

    Upwards at frequency f: how loud the tone of which f is an image comes out at f. Downwards: how loud a tone at f
    comes out where it folds to.

    Returns:
        Frequencies in Hz, levels in dB.
    """
    low, high = min(from_hz, to_hz), max(from_hz, to_hz)
    step = max(50, math.ceil(high / 2 / 120 / 50) * 50)
    frequencies = sorted({*range(50, high // 2, step), *range(3000, 5000, 100)})
    levels = []
    for hz in frequencies:
        folded = hz % low
        folded = min(folded, low - folded)
        if folded in (0, low // 2):  # a sine there is all zeros, or may be
            levels.append(math.nan)
            continue
        tone, line = (hz, folded) if from_hz > to_hz else (folded, hz)
        levels.append(float(_lines_of(make, from_hz, to_hz, tone)[line // 5]))
    return [float(hz) for hz in frequencies], levels


def draw(directory: Path) -> list[Path]:
    """Draw the responses of every pair of rates, ours beside the peers'; return the files written."""
    written = []
    for from_hz, to_hz in RATES_HZ:
        series: list[Series] = []
        for name, make in (("talkpath", _ours), *_peers()):
            delay = quality(make, from_hz, to_hz)["delay ms"]
            series.append((f"{name}, {delay:.1f} ms", *response(make, from_hz, to_hz)))
        path = directory / f"response-{from_hz}-{to_hz}.svg"
        heard = "level of the tone and its images" if to_hz > from_hz else "level of the tone or what it folds to"
        title = f"Resampling {from_hz / 1000:g} to {to_hz / 1000:g} kHz in chunks of 20 ms; mean delay"
        line_plot(path, title, "frequency in Hz", f"{heard}, dB", series, y_range=(-110, 6))
        written.append(path)
    return written
