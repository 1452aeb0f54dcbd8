"""The jitter buffer on seeded traces: delay, late loss, stretching and how it sounds, against two peers; and its cost.

Three buffers hear the same packets (G.711 of recorded speech) at the same times and are asked for 20 ms at the same
ticks:

* **ours**: a call's whole path as the engine has it, adaptive, stretching, concealment by tp_plc;
* **fixed**: a buffer of one depth, the playout `depth` after the first packet came; it begins anew behind ten packets
  in a row that were late, and skips to its depth when it holds 100 ms more. Lost and late frames concealed by tp_plc;
* **speexdsp**: its adaptive buffer through cffi (ABI mode), one `tick` and one `get` a frame as its manual has it;
  what it reports as missing or asks to be inserted is concealed by tp_plc.

**Delay** of a frame: the moment it was taken minus the moment its first sample was sent, minus the least transit of
the trace, which no buffer can do anything about. **Late**: the greater of two shares of the packets sent: the ptimes
for which something was made up though the network lost nothing, and the packets that came and were never heard.
Either alone would flatter somebody: a buffer that waits makes audio up and plays what was late afterwards, one that
skips makes nothing up.

**Equal late loss.** More delay buys less loss, so a delay says nothing without the loss beside it. The fixed buffer
is run at every depth and speexdsp's at every margin, and the delay is read off between the two settings whose losses
lie around ours; with less loss than ours nowhere, or more nowhere, the nearest setting is compared and the loss says
so. That gives the fixed buffer the depth that is best *for this very trace, known afterwards*. No real one has that;
so there is a second row: one depth for all traces, the least at which its loss over all of them together is not above
ours.
"""

from __future__ import annotations

import ctypes.util
import itertools
import os
import shutil
import struct
import subprocess
import tempfile
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from cffi import FFI

from benchmarks.peers import find_peer
from benchmarks.plots import line_plot
from benchmarks.report import ROOT, Goal, judge_goal, print_goals, print_table, progress, spread
from benchmarks.signals import speech_like
from benchmarks.timing import Candidate, Row
from benchmarks.traces import KINDS, NEVER, PTIME_NS, Trace, make_trace
from talkpath._native import ffi, lib
from talkpath.dsp.g711 import pcmu_decode, pcmu_encode
from talkpath.dsp.jitter import JitterBuffer
from talkpath.events import MediaFormat
from talkpath.path.path import Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import Stream, StreamOptions, Track
from talkpath.wire.dialect import Field, MediaTemplate, Role

Pcm = npt.NDArray[np.int16]

SAMPLES = 160
PTIME_MS = 20
PHASES_NS = (3_000_000, 9_000_000, 15_000_000)
"""Of the ticks against the first packet sent. All buffers give whole frames, so where a tick falls between two packets
moves each of them by up to 20 ms; every trace is played with each, and what is told is of all together."""
SOUNDS = FilePath("/usr/share/asterisk/sounds")
PROMPTS = ("en/demo-instruct", "it/demo-instruct", "ru/demo-instruct", "fr/demo-instruct")
"""Debian's asterisk-core-sounds: three women and a man; not part of this repository."""
MIN_MS, MAX_MS = 0, 300
DEPTHS = (*range(0, 60, 4), *range(60, 160, 10), *range(160, 321, 20))
MARGINS = (0, 20, 40, 60, 80, 100, 120, 160, 200)
SEGMENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do."""

    seconds: float = 300.0
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


def _ticks(trace: Trace, phase_ns: int) -> range:
    """When 20 ms are asked for, from the first packet's sending to the last's."""
    return range(phase_ns, len(trace.arrivals) * PTIME_NS, PTIME_NS)


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


def play_ours(trace: Trace, frames: Sequence[bytes], phase_ns: int = PHASES_NS[0], *, keep_pcm: bool = False) -> Heard:
    """Run a call's path over the trace."""
    pool = Pool(1 << 20)
    path = Path(pool, PathOptions(jitter_min_ms=MIN_MS, jitter_max_ms=MAX_MS, phase_ns=phase_ns))
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
    for now in _ticks(trace, phase_ns):
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


def play_fixed(
    trace: Trace, frames: Sequence[bytes], depth_ms: float, phase_ns: int = PHASES_NS[0], *, keep_pcm: bool = False
) -> Heard:
    """Run a buffer of one depth over the trace."""
    heard = Heard(depth_ms, n_packets=len(trace.arrivals))
    network, concealment = _Network(trace), _Concealment()
    held: set[int] = set()
    position, start, n_late, n_heard, newest = None, None, 0, 0, -1
    arrived = 0
    for now in _ticks(trace, phase_ns):
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
        self.ffi: Any = FFI()
        self.ffi.cdef(self.CDEF)
        if name is not None:
            self.lib = self.ffi.dlopen(name)

    def play(
        self,
        trace: Trace,
        frames: Sequence[bytes],
        margin_ms: float,
        phase_ns: int = PHASES_NS[0],
        *,
        keep_pcm: bool = False,
    ) -> Heard:
        """Run it over the trace."""
        new, native = self.ffi.new, self.lib
        heard = Heard(margin_ms, n_packets=len(trace.arrivals))
        network, concealment = _Network(trace), _Concealment()
        state = self.ffi.gc(native.jitter_buffer_init(SAMPLES), native.jitter_buffer_destroy)
        native.jitter_buffer_ctl(state, self.SET_MARGIN, new("int32_t *", round(margin_ms * 8)))
        data, offset = new("char[]", SAMPLES), new("int32_t *")
        given, taken = new("packet *"), new("packet *")
        arrived, played = 0, set()
        for now in _ticks(trace, phase_ns):
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


def together(runs: Iterable[Heard]) -> Heard:
    """One result of several of the same buffer and trace."""
    first, *others = runs
    for run in others:
        first.delays_ms += run.delays_ms
        first.made_up += run.made_up
        first.unheard += run.unheard
        first.stretched_ms += run.stretched_ms
        first.n_packets += run.n_packets
    return first


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


def _one_depth(fixed: dict[str, list[Heard]], ours: dict[str, Heard]) -> int:
    """The place in DEPTHS of the least depth that loses no more than ours over all traces together."""
    budget = sum(heard.late_percent for heard in ours.values())
    for place in range(len(DEPTHS)):
        if sum(runs[place].late_percent for runs in fixed.values()) <= budget:
            return place
    return len(DEPTHS) - 1


def _nearest(runs: Sequence[Heard], late_percent: float) -> Heard:
    """The least delay among those that lose at most so much, or the least loss."""
    return min(runs, key=lambda run: (max(run.late_percent - late_percent, 0), run.delay_ms))


def run(plan: Plan) -> dict[str, Any]:
    """Play every trace to every buffer."""
    frames, whose = speech(plan.pesq_seconds)
    speex = Speex()
    traces = {kind: make_trace(kind, plan.seconds) for kind in KINDS}
    ours, fixed, adaptive = {}, {}, {}
    for kind, trace in traces.items():
        progress(f"jitter: {kind}")
        ours[kind] = together(play_ours(trace, frames, phase) for phase in PHASES_NS)
        fixed[kind] = [together(play_fixed(trace, frames, depth, phase) for phase in PHASES_NS) for depth in DEPTHS]
        adaptive[kind] = [
            together(speex.play(trace, frames, margin, phase) for phase in PHASES_NS)
            for margin in (MARGINS if speex.lib is not None else ())
        ]
    one = _one_depth(fixed, ours)
    rows = []
    for kind, trace in traces.items():
        mine = ours[kind]
        delay, late = at_equal_loss(fixed[kind], mine.late_percent)
        row: dict[str, Any] = {
            "trace": kind,
            "lost_percent": 100 * trace.lost / len(trace.arrivals),
            "delay_ms": mine.delay_ms,
            "late_percent": mine.late_percent,
            "stretch_percent": 100 * mine.stretched_ms / (PTIME_MS * mine.n_packets),
            "fixed": {"delay_ms": delay, "late_percent": late, "ratio": mine.delay_ms / delay},
            "fixed, one depth": {
                "depth_ms": DEPTHS[one],
                "delay_ms": fixed[kind][one].delay_ms,
                "late_percent": fixed[kind][one].late_percent,
                "ratio": mine.delay_ms / fixed[kind][one].delay_ms,
            },
        }
        if adaptive[kind]:
            delay, late = at_equal_loss(adaptive[kind], mine.late_percent)
            row["speexdsp"] = {"delay_ms": delay, "late_percent": late, "ratio": mine.delay_ms / delay}
        progress(f"jitter: {kind}, how it sounds")
        short = make_trace(kind, plan.pesq_seconds)
        row["pesq"] = quality(play_ours(short, frames, keep_pcm=True), frames)
        depth = _nearest(fixed[kind], mine.late_percent).setting
        row["fixed"]["pesq"] = quality(play_fixed(short, frames, depth, keep_pcm=True), frames)
        if adaptive[kind]:
            margin = _nearest(adaptive[kind], mine.late_percent).setting
            row["speexdsp"]["pesq"] = quality(speex.play(short, frames, margin, keep_pcm=True), frames)
        rows.append(row)
    goals = [
        judge_goal(Goal(f"{row['trace']}, over {what}", "x", target, at_least=False), spread([row[peer]["ratio"]]))
        for row in rows
        for peer, what, target in (
            ("fixed", "a fixed buffer's chosen for the trace", 0.75),
            ("speexdsp", "speexdsp's adaptive buffer's", 1.0),
        )
        if peer in row
    ]
    return {
        "speech": whose,
        "seconds": plan.seconds,
        "speexdsp": speex.lib is not None,
        "traces": rows,
        "goals": goals,
    }


def show(result: dict[str, Any], out: TextIO) -> None:
    """Print the table."""

    def text(value: float | None, digits: int = 1) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    def measured(entry: dict[str, Any]) -> tuple[str, str]:
        return text(entry["delay_ms"]), text(entry["late_percent"], 2)

    lines: list[list[str]] = []
    for row in result["traces"]:
        stretched = text(row["stretch_percent"], 2)
        lines.append([row["trace"], "ours", *measured(row), stretched, "1", text(row["pesq"], 2)])
        entries = [(peer, row[peer]) for peer in ("fixed", "fixed, one depth", "speexdsp") if peer in row]
        lines += [
            ["", peer, *measured(entry), "", text(entry["ratio"], 2), text(entry.get("pesq"), 2)]
            for peer, entry in entries
        ]
    title = (
        f"jitter buffer, {result['seconds']:.0f} s of each trace; concealment by tp_plc everywhere; {result['speech']}"
    )
    heads = ("trace", "buffer", "delay ms", "late %", "stretched %", "ours/theirs", "PESQ")
    print_table(title, heads, lines, out)
    print_goals(result["goals"], out)


def draw(folder: FilePath, seconds: float = 60.0) -> list[FilePath]:
    """Draw the delay of each buffer over one trace of each kind; the files."""
    frames, _ = speech(seconds)
    speex = Speex()
    drawn = []
    for kind in KINDS:
        trace = make_trace(kind, seconds)
        ours = play_ours(trace, frames)
        runs = [play_fixed(trace, frames, depth) for depth in DEPTHS]
        named = [("network", _transits(trace)), ("ours", ours), ("fixed", _nearest(runs, ours.late_percent))]
        if speex.lib is not None:
            named.append(("speexdsp", speex.play(trace, frames, 0)))
        series = [(name, *_thinned(heard)) for name, heard in named]
        path = folder / f"jitter-{kind.replace(' ', '-').replace('+', 'plus-').replace('--', '-minus-')}.svg"
        line_plot(path, f"Delay over the least possible: {kind}", "s", "ms", series)
        drawn.append(path)
    return drawn


def _thinned(heard: Heard, by: int = 5) -> tuple[list[float], list[float]]:
    """The greatest of every few delays: a picture has no room for all of them."""
    most = [round(max(heard.delays_ms[at : at + by]), 1) for at in range(0, len(heard.delays_ms), by)]
    return heard.at_s[::by], most


def _transits(trace: Trace) -> Heard:
    """The network's own delay, as if it were a buffer's."""
    heard = Heard(0, n_packets=len(trace.arrivals))
    for i, at in enumerate(trace.arrivals):
        if at != NEVER:
            heard.at_s.append(at / 1e9)
            heard.delays_ms.append((at - trace.sent(i) - trace.least_transit) / 1e6)
    return heard


LOOP = """
uint64_t loop_ours(void *state, const uint8_t *datagrams, size_t size, uint64_t first, uint64_t n);
uint64_t loop_speex(void **calls, void *jitter, uint8_t *datagrams, size_t size, uint64_t first, uint64_t n);
"""


def _compile_loop(folder: FilePath) -> Any:
    """Compile jitter_loop.c; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    core = [ROOT / "csrc" / name for name in ("tp_jitter.c", "tp_jitter_learn.c", "tp_rtp.c")]
    sources = [ROOT / "benchmarks/jitter_loop.c", *core]
    # As the extension is compiled.
    flags = ["-std=c11", "-O2", "-ffp-contract=off", "-fvisibility=hidden", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    library = folder / "jitter_loop.so"
    subprocess.run([compiler, *flags, "-o", str(library), *map(str, sources)], check=True)
    ours: Any = FFI()
    ours.cdef(LOOP)
    return ours, ours.dlopen(str(library))


CONFIG = (8000, 8, 20, 200, 20, 0)


def _new_state() -> tuple[Any, Any]:
    config = ffi.new("tp_jitter_config *", CONFIG)
    ring, state = ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * 8), ffi.new("tp_jitter *")
    lib.tp_jitter_init(state, config, ring, len(ring))
    return state, ring


COST_GOALS = {"aiortc": 15.0, "speexdsp": 10.0}


def rows() -> list[Row]:
    """Build the rows: an RTP packet in and a frame out, in order.

    In the first all is called from C, as a media engine does; aiortc is Python. In the others all is called from
    Python: ours as the public class gives frames, then as the two calls of cffi's API mode below it; speexdsp's are
    three calls of cffi's ABI mode. What these cost from Python is mostly the calls.
    """
    frames, _ = speech(10.0)
    n, size = 500, 12 + SAMPLES
    # A whole round of sequence numbers, so that packets can go round without end and stay in order.
    packets = [
        RTP_HEADER.pack(0x80, 0, seq, seq * SAMPLES & 0xFFFFFFFF, 0x1234) + frames[seq % len(frames)]
        for seq in range(65536)
    ]
    speex = Speex()
    from_c: list[Candidate] = []
    from_python = _python_candidates(packets, speex, n)
    with tempfile.TemporaryDirectory() as folder:
        loop = _compile_loop(FilePath(folder))
    if loop is not None:
        native, calls = loop
        octets = native.new("uint8_t[]", b"".join(packets))
        state, ring = _new_state()
        address = native.cast("void *", int(ffi.cast("uintptr_t", state)))
        ours_at = itertools.count(step=n)
        from_c.append(
            Candidate(
                "talkpath",
                lambda: _whole(calls.loop_ours(address, octets, size, next(ours_at), n), n),
                n,
                keeps=(state, ring, native),
            )
        )
        if speex.lib is not None:
            theirs = speex.ffi.gc(speex.lib.jitter_buffer_init(SAMPLES), speex.lib.jitter_buffer_destroy)

            def pointer(of: Any) -> Any:
                return native.cast("void *", int(speex.ffi.cast("uintptr_t", of)))

            names = ("jitter_buffer_put", "jitter_buffer_get", "jitter_buffer_tick")
            table = native.new("void *[3]", [pointer(speex.ffi.addressof(speex.lib, name)) for name in names])
            there, speex_at = pointer(theirs), itertools.count(step=n)
            from_c.append(
                Candidate(
                    "speexdsp, with our RTP parser",
                    lambda: _whole(calls.loop_speex(table, there, octets, size, next(speex_at), n), n),
                    n,
                    keeps=(theirs, speex),
                )
            )
    peers = from_python[2:]
    built = [
        Row("RTP in, jitter buffer, frame out; JitterBuffer from Python", from_python[0], peers, COST_GOALS),
        Row("RTP in, jitter buffer, frame out; two native calls from Python", from_python[1], peers, COST_GOALS),
    ]
    if from_c:
        aiortc = [candidate for candidate in peers if candidate.name.startswith("aiortc")]
        built.insert(0, Row("RTP in, jitter buffer, frame out; from C", from_c[0], [*from_c[1:], *aiortc], COST_GOALS))
    return built


def _whole(n_whole: int, n: int) -> None:
    # One frame at the beginning, and three where the sequence numbers' round ends before the timestamps' does.
    if n_whole < n - 20:
        raise RuntimeError(f"only {n_whole} of {n} frames were audio")


def _python_candidates(packets: list[bytes], speex: Speex, n: int) -> list[Candidate]:
    public, public_at = JitterBuffer(payload_type=0), itertools.count()
    put_public, get_public = public.put, public.get

    def run_public() -> None:
        for _ in range(n):
            i = next(public_at)
            now = i * PTIME_NS
            put_public(packets[i & 0xFFFF], now)
            get_public(now + PHASES_NS[0])

    box, ring = ffi.new("tp_jitter_box *"), ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * 8)
    lib.tp_jitter_init(ffi.addressof(box, "jitter"), ffi.new("tp_jitter_config *", CONFIG), ring, len(ring))
    put_native, get_native = lib.tp_jitter_box_put, lib.tp_jitter_box_get
    size, native_at = 12 + SAMPLES, itertools.count()

    def run_native() -> None:
        for _ in range(n):
            i = next(native_at)
            now = i * PTIME_NS
            put_native(box, packets[i & 0xFFFF], size, now)
            get_native(box, now + PHASES_NS[0])

    candidates = [Candidate("talkpath", run_public, n), Candidate("talkpath", run_native, n, keeps=(ring,))]
    jitterbuffer, rtp = find_peer("aiortc.jitterbuffer"), find_peer("aiortc.rtp")
    if jitterbuffer is not None and rtp is not None:
        theirs, parse, theirs_at = jitterbuffer.JitterBuffer(capacity=16), rtp.RtpPacket.parse, itertools.count()

        def run_aiortc() -> None:
            for _ in range(n):
                packet = parse(packets[next(theirs_at) & 0xFFFF])
                packet._data = packet.payload  # as its receiver does
                theirs.add(packet)

        candidates.append(Candidate("aiortc, parse and add", run_aiortc, n))
    if speex.lib is not None:
        new, native = speex.ffi.new, speex.lib
        buffer = speex.ffi.gc(native.jitter_buffer_init(SAMPLES), native.jitter_buffer_destroy)
        held = [new("char[]", packet[12:]) for packet in packets[:n]]
        data, offset, given, taken = new("char[]", SAMPLES), new("int32_t *"), new("packet *"), new("packet *")
        put, take, tick = native.jitter_buffer_put, native.jitter_buffer_get, native.jitter_buffer_tick
        speex_at = itertools.count()

        def run_speex() -> None:
            for _ in range(n):
                i = next(speex_at)
                given.data, given.len, given.timestamp, given.span = held[i % n], SAMPLES, i * SAMPLES, SAMPLES
                given.sequence = i & 0xFFFF
                put(buffer, given)
                taken.data, taken.len = data, SAMPLES
                take(buffer, taken, SAMPLES, offset)
                tick(buffer)

        # What it is called through must outlive it.
        candidates.append(Candidate("speexdsp, no RTP parser", run_speex, n, keeps=(speex, held)))
    return candidates
