"""The jitter buffer on seeded traces: delay, late loss, stretching and how it sounds, against two peers; and its cost.

Three buffers hear the same packets (G.711 of recorded speech) at the same times and are asked for 20 ms at the same ticks:

* **ours**: a call's whole path as the engine has it, adaptive, stretching, concealment by tp_plc;
* **fixed**: a buffer of one depth, the playout `depth` after the first packet came; it begins anew behind ten packets in
  a row that were late, and skips to its depth when it holds 100 ms more. Lost and late frames concealed by tp_plc;
* **speexdsp**: its adaptive buffer through cffi (ABI mode), one `tick` and one `get` a frame as its manual has it; what it
  reports as missing or asks to be inserted is concealed by tp_plc.

**Delay** of a frame: the moment it was taken minus the moment its first sample was sent, minus the least transit of the
trace, which no buffer can do anything about. **Late**: the greater of two shares of the packets sent: the ptimes for which
something was made up though the network lost nothing, and the packets that came and were never heard. Either alone would
flatter somebody: a buffer that waits makes audio up and plays what was late afterwards, one that skips makes nothing up.

**Equal late loss.** More delay buys less loss, so a delay says nothing without the loss beside it. The fixed buffer is run
at every depth and speexdsp's at every margin, and the delay is read off between the two settings whose losses lie around
ours; with less loss than ours nowhere, or more nowhere, the nearest setting is compared and the loss says so. That gives
the fixed buffer the depth that is best *for this very trace, known afterwards*. No real one has that; so there is a second
row: one depth for all traces, the least at which its loss over all of them together is not above ours.
"""

from __future__ import annotations

import ctypes.util
import itertools
import struct
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from cffi import FFI

from benchmarks.peers import find_peer
from benchmarks.report import print_table, progress
from benchmarks.signals import speech_like
from benchmarks.traces import KINDS, NEVER, PTIME_NS, Trace, make_trace
from talkpath._native import ffi, lib
from talkpath.dsp.g711 import pcmu_decode, pcmu_encode
from talkpath.events import MediaFormat
from talkpath.path.path import Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import Stream, StreamOptions, Track
from talkpath.wire.dialect import Field, MediaTemplate, Role

Pcm = npt.NDArray[np.int16]

SAMPLES = 160
PTIME_MS = 20
PHASE_NS = 7_000_000
"""Of the ticks against the first packet sent."""
SOUNDS = FilePath("/usr/share/asterisk/sounds")
PROMPTS = ("en/demo-instruct", "it/demo-instruct", "ru/demo-instruct", "fr/demo-instruct")
"""Debian's asterisk-core-sounds: three women and a man; not part of this repository."""
MIN_MS, MAX_MS = 10, 300
DEPTHS = (*range(0, 60, 4), *range(60, 160, 10), *range(160, 321, 20))
MARGINS = (0, 20, 40, 60, 80, 100, 120, 160, 200)
SEGMENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do."""

    seconds: float = 600.0
    """Of each trace."""
    pesq_seconds: float = 240.0


FULL = Plan()
SHORT = Plan(seconds=30.0, pesq_seconds=20.0)


@dataclass(slots=True)
class Heard:
    """What one buffer made of one trace."""

    setting: float
    delays_ms: list[float] = field(default_factory=list)
    """Of each ptime that was audio."""
    at_s: list[float] = field(default_factory=list)
    made_up: float = 0.0
    """ptimes without audio from the first that had some, to the trace's end, without what the network lost."""
    unheard: float = 0.0
    """Packets that came and were not heard."""
    stretched_ms: float = 0.0
    n_packets: int = 0
    pcm: list[Pcm] = field(default_factory=list)
    """One ptime a tick, from the first tick on; empty where it was not asked for."""

    @property
    def late_percent(self) -> float:
        """See the module."""
        return 100 * max(self.made_up, self.unheard, 0.0) / self.n_packets

    @property
    def delay_ms(self) -> float:
        """The mean."""
        return float(np.mean(self.delays_ms)) if self.delays_ms else 0.0


def speech(seconds: float) -> tuple[list[bytes], str]:
    """Give that much speech as G.711 frames, and say whose."""
    pcm: list[Pcm] = []
    for prompt in PROMPTS:
        file = SOUNDS / f"{prompt}.wav"
        if file.exists():
            with wave.open(str(file)) as reader:
                pcm.append(np.frombuffer(reader.readframes(reader.getnframes()), "<i2").astype(np.int16))
    named = "prompts " + ", ".join(PROMPTS) if pcm else "synthetic (no prompts here)"
    one = np.concatenate(pcm) if pcm else speech_like(60.0)
    whole = np.resize(one, round(seconds * 8000) // SAMPLES * SAMPLES)
    octets = bytes(pcmu_encode(whole))
    return [octets[at : at + SAMPLES] for at in range(0, len(octets), SAMPLES)], named


class _Network:
    """Hands over a trace's packets tick by tick."""

    def __init__(self, trace: Trace) -> None:
        self._waiting = trace.by_arrival()
        self._next = 0

    def until(self, now: int) -> list[tuple[int, int]]:
        """What arrived up to `now` and was not handed over yet: (arrival, packet)."""
        first = self._next
        while self._next < len(self._waiting) and self._waiting[self._next][0] <= now:
            self._next += 1
        return self._waiting[first : self._next]


def _ticks(trace: Trace) -> range:
    """When 20 ms are asked for, from the first packet's sending to the last's."""
    return range(PHASE_NS, len(trace.arrivals) * PTIME_NS, PTIME_NS)


class _Concealment:
    """tp_plc behind a buffer that gives frames or nothing."""

    def __init__(self) -> None:
        self._state = ffi.new("tp_plc *")
        lib.tp_plc_init(self._state, 8000)
        self._pcm = ffi.new("int16_t[]", SAMPLES)
        self._view = np.frombuffer(ffi.buffer(self._pcm), np.int16)

    def hear(self, payload: bytes | None, following: bytes | None) -> Pcm:
        """Give the linear samples of one frame, made up where there is no payload."""
        if payload is None:
            ahead = ffi.NULL
            if following is not None:
                ahead = ffi.from_buffer("int16_t[]", pcmu_decode(following))
            lib.tp_plc_fillin(self._state, self._pcm, SAMPLES, ahead, SAMPLES if following is not None else 0)
        else:
            self._view[:] = pcmu_decode(payload)
            lib.tp_plc_receive(self._state, self._pcm, SAMPLES)
        return self._view.copy()


RTP_HEADER = struct.Struct("!BBHII")


def play_ours(trace: Trace, frames: Sequence[bytes], *, keep_pcm: bool = False) -> Heard:
    """Run a call's path over the trace."""
    pool = Pool(1 << 20)
    path = Path(pool, PathOptions(jitter_min_ms=MIN_MS, jitter_max_ms=MAX_MS, phase_ns=PHASE_NS))
    template = MediaTemplate((b"", b""), (Field.BYTES, Field.END), binary=True)
    options = StreamOptions(
        role=Role.PLATFORM,
        media_format=MediaFormat("L16", 8000),
        templates=(template, None),
        tracks=Track.INBOUND,
        websocket=False,
        bidirectional=False,
    )
    path.attach(0, Stream(pool, options, leg_rate_hz=8000))
    outbox, network = Outbox(), _Network(trace)
    jitter, counters = lib.tp_path_jitter(path.native), lib.tp_path_statistics(path.native)
    heard = Heard(MIN_MS, n_packets=len(trace.arrivals))
    emitted = silent_before = 0
    for now in _ticks(trace):
        for at, i in network.until(now):
            header = RTP_HEADER.pack(0x80, 0, i & 0xFFFF, i * SAMPLES & 0xFFFFFFFF, 7)
            path.receive_rtp(header + frames[i % len(frames)], at)
        path.tick(now, outbox)
        if keep_pcm:
            heard.pcm += [
                np.frombuffer(bytes(output.bytes), np.int16) for output in outbox if len(output.bytes) == 2 * SAMPLES
            ][-1:]
        outbox.reset()
        if jitter.emitted_ms > emitted:
            if not heard.delays_ms:
                silent_before = counters.silent_samples
            # Where the next frame will begin, which it will do one ptime later.
            position = jitter.playout_timestamp / SAMPLES
            heard.delays_ms.append((now + PTIME_NS - trace.sent(position) - trace.least_transit) / 1e6)
            heard.at_s.append(now / 1e9)
            emitted = jitter.emitted_ms
    made_up = counters.concealed_samples + counters.silent_samples - silent_before
    heard.made_up = made_up / SAMPLES - trace.lost
    heard.unheard = jitter.packets_discarded + jitter.skipped_ms / PTIME_MS
    heard.stretched_ms = (jitter.removed_samples + jitter.repeated_samples) / 8
    path.close()
    return heard


def play_fixed(trace: Trace, frames: Sequence[bytes], depth_ms: float, *, keep_pcm: bool = False) -> Heard:
    """Run a buffer of one depth over the trace."""
    heard = Heard(depth_ms, n_packets=len(trace.arrivals))
    network, concealment = _Network(trace), _Concealment()
    held: set[int] = set()
    position, start, n_late, n_heard, newest = None, None, 0, 0, -1
    arrived = 0
    for now in _ticks(trace):
        for at, i in network.until(now):
            arrived += 1
            newest = max(newest, i)
            if position is None or i >= position:
                held.add(i)
                n_late = 0
            else:
                n_late += 1
            if start is None or n_late >= 10:
                position, start, n_late = None, (at + depth_ms * 1e6, i), 0
        if position is None and start is not None and now >= start[0]:
            position = start[1]
        if position is not None and newest - position > (depth_ms + 100) / PTIME_MS:
            position = newest - round(depth_ms / PTIME_MS)
        payload = None
        if position is not None:
            if position in held:
                payload = frames[position % len(frames)]
                heard.delays_ms.append((now - trace.sent(position) - trace.least_transit) / 1e6)
                heard.at_s.append(now / 1e9)
                n_heard += 1
                held.discard(position)
            position += 1
        if n_heard and payload is None:
            heard.made_up += 1
        if keep_pcm:
            following = frames[position % len(frames)] if position in held and position is not None else None
            heard.pcm.append(concealment.hear(payload, following))
    heard.made_up -= trace.lost
    heard.unheard = arrived - n_heard - len([i for i in held if position is not None and i >= position])
    return heard


class Speex:
    """libspeexdsp's jitter buffer, found at run time; a peer, not a dependency."""

    CDEF = """
    typedef struct { char *data; uint32_t len, timestamp, span; uint16_t sequence; uint32_t user_data; } packet;
    void *jitter_buffer_init(int step_size);
    void jitter_buffer_destroy(void *jitter);
    void jitter_buffer_put(void *jitter, const packet *in);
    int jitter_buffer_get(void *jitter, packet *out, int32_t desired_span, int32_t *start_offset);
    void jitter_buffer_tick(void *jitter);
    int jitter_buffer_ctl(void *jitter, int request, void *ptr);
    """
    SET_MARGIN = 0

    def __init__(self) -> None:
        name = ctypes.util.find_library("speexdsp")
        self.lib: Any = None
        self.ffi = FFI()
        self.ffi.cdef(self.CDEF)
        if name is not None:
            self.lib = self.ffi.dlopen(name)

    def play(self, trace: Trace, frames: Sequence[bytes], margin_ms: float, *, keep_pcm: bool = False) -> Heard:
        """Run it over the trace."""
        new, native = self.ffi.new, self.lib
        heard = Heard(margin_ms, n_packets=len(trace.arrivals))
        network, concealment = _Network(trace), _Concealment()
        state = self.ffi.gc(native.jitter_buffer_init(SAMPLES), native.jitter_buffer_destroy)
        native.jitter_buffer_ctl(state, self.SET_MARGIN, new("int32_t *", round(margin_ms * 8)))
        data, offset = new("char[]", SAMPLES), new("int32_t *")
        given, taken = new("packet *"), new("packet *")
        arrived, played = 0, set()
        for now in _ticks(trace):
            for _, i in network.until(now):
                arrived += 1
                self.ffi.buffer(data)[:] = frames[i % len(frames)]
                given.data, given.len, given.timestamp, given.span = data, SAMPLES, i * SAMPLES & 0xFFFFFFFF, SAMPLES
                given.sequence, given.user_data = i & 0xFFFF, i
                native.jitter_buffer_put(state, given)
            taken.data, taken.len = data, SAMPLES
            status = native.jitter_buffer_get(state, taken, SAMPLES, offset)
            native.jitter_buffer_tick(state)
            payload = None
            if status == 0:
                i = taken.user_data
                played.add(i)
                payload = bytes(self.ffi.buffer(data))
                heard.delays_ms.append((now - trace.sent(i) - trace.least_transit) / 1e6)
                heard.at_s.append(now / 1e9)
            elif played:
                heard.made_up += 1
            if keep_pcm:
                heard.pcm.append(concealment.hear(payload, None))
        heard.made_up -= trace.lost
        heard.unheard = arrived - len(played)
        return heard


def at_equal_loss(runs: Sequence[Heard], late_percent: float) -> tuple[float, float]:
    """Read off the mean delay at which a buffer loses as much as another; see the module.

    Returns:
        (delay in ms, the late loss it goes with in percent)
    """
    # The least delay for each loss: a setting with more delay and more loss is nobody's choice.
    best: list[Heard] = []
    for run in sorted(runs, key=lambda run: (run.delay_ms, run.late_percent)):
        if not best or run.late_percent < best[-1].late_percent:
            best.append(run)
    if late_percent >= best[0].late_percent:
        return best[0].delay_ms, best[0].late_percent
    for more, less in itertools.pairwise(best):
        if less.late_percent <= late_percent:
            share = (more.late_percent - late_percent) / (more.late_percent - less.late_percent)
            return more.delay_ms + share * (less.delay_ms - more.delay_ms), late_percent
    return best[-1].delay_ms, best[-1].late_percent


def quality(heard: Heard, frames: Sequence[bytes]) -> float | None:
    """Mean narrow-band PESQ of 10 s pieces against the G.711 that was sent; None without the `pesq` package."""
    pesq = find_peer("pesq")
    if pesq is None:
        return None
    whole = np.concatenate(heard.pcm)
    lag = round(heard.delay_ms * 8)
    scores = []
    size = SEGMENT_MS * 8
    for at in range(size, len(whole) - size - lag, size):
        first = at // SAMPLES
        sent = pcmu_decode(b"".join(frames[i % len(frames)] for i in range(first, first + size // SAMPLES)))
        if np.mean(np.abs(sent.astype(float))) > 100:
            got = whole[at + lag : at + lag + size]
            scores.append(pesq.pesq(8000, sent, got, "nb", on_error=pesq.PesqError.RETURN_VALUES))
    good = [score for score in scores if score > 0]
    return float(np.mean(good)) if good else None
