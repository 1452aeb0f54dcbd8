"""A call's delay over time: skew, stalls, stretching, pauses with comfort noise, frames that come too late."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_wire import L16, MS, PCMU

from talkpath._native import ffi, lib
from talkpath.dsp.g711 import pcmu_decode, pcmu_encode
from talkpath.events import MediaFormat
from talkpath.path.path import OutputKind, Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import Stream, StreamOptions, Track
from talkpath.wire.dialect import Field, MediaTemplate, Role

PTIME = 20 * MS
PHASE = 7 * MS
RAW = MediaTemplate((b"", b""), (Field.BYTES, Field.END), binary=True)
NOISE = 13

Pcm = npt.NDArray[np.int16]


class Listener:
    """A path, and what one stream hears of its caller: payload as it is, frame by frame."""

    def __init__(self, media_format: MediaFormat = PCMU, **options: Any) -> None:
        self.path = Path(Pool(1 << 18), PathOptions(phase_ns=PHASE, **options))
        self.stream = Stream(
            self.path.pool,
            StreamOptions(
                role=Role.PLATFORM,
                media_format=media_format,
                templates=(RAW, None),
                tracks=Track.INBOUND,
                websocket=False,
                bidirectional=False,
            ),
            leg_rate_hz=8000,
        )
        self.path.attach(0, self.stream)
        self.outbox = Outbox()
        self.heard: list[bytes] = []
        self.delays_ms: list[float] = []

    def say(
        self, seq: int, payload: bytes, at: int, *, pt: int = 0, marker: bool = False, stamp: int | None = None
    ) -> None:
        stamp = seq * 160 if stamp is None else stamp
        header = struct.pack(">BBHII", 0x80, pt | (0x80 if marker else 0), seq & 0xFFFF, stamp & 0xFFFFFFFF, 9)
        self.path.receive_rtp(header + payload, at)

    def tick(self, now: int) -> None:
        self.path.tick(now, self.outbox)
        self.heard += [bytes(output.bytes) for output in self.outbox if output.kind != OutputKind.RTP]
        self.outbox.reset()
        self.delays_ms.append((now + PTIME) / MS - self.jitter.playout_timestamp / 8)

    def run(self, packets: list[bytes], arrivals: list[int | None], until: int | None = None) -> None:
        """Packets of 20 ms that arrive when they do; None: lost."""
        waiting = sorted((at, i) for i, at in enumerate(arrivals) if at is not None)
        k = 0
        for now in range(PHASE, until or len(packets) * PTIME, PTIME):
            while k < len(waiting) and waiting[k][0] <= now:
                self.say(waiting[k][1], packets[waiting[k][1]], waiting[k][0])
                k += 1
            self.tick(now)

    @property
    def jitter(self) -> Any:
        return lib.tp_path_jitter(self.path.native)

    def pcm(self) -> Pcm:
        return pcmu_decode(b"".join(self.heard))


def voiced(seconds: float) -> Pcm:
    """A voice's pulse train through a resonance, without pauses."""
    n = round(seconds * 8000)
    at = np.arange(n) / 8000
    phase = np.cumsum(130 * (1 + 0.05 * np.sin(9 * at))) / 8000
    harmonics = sum(np.sin(2 * np.pi * k * phase) / (1 + abs(k - 4)) for k in range(1, 20))
    return np.asarray(harmonics / np.max(np.abs(harmonics)) * 12000, np.int16)


def packets_of(pcm: Pcm) -> list[bytes]:
    octets = bytes(pcmu_encode(pcm))
    return [octets[at : at + 160] for at in range(0, len(octets) - 159, 160)]


def largest_step(pcm: Pcm) -> int:
    return int(np.max(np.abs(np.diff(pcm.astype(int)))))


def test_delay_grows_and_shrinks_without_a_gap_or_a_click() -> None:
    rng = random.Random(3)
    pcm = voiced(24)
    packets = packets_of(pcm)
    # Ten seconds of a steady network, four of a bad one, ten of a steady one.
    arrivals = [i * PTIME + (rng.randrange(70 * MS) if 500 <= i < 700 else 0) for i in range(len(packets))]
    leg = Listener()
    leg.run(packets, arrivals)  # type: ignore[arg-type]
    counters = leg.path.counters()
    assert max(leg.delays_ms[520:700]) > 60
    assert leg.delays_ms[-1] <= 20 + 7 + 20
    assert leg.jitter.removed_samples >= 8 * 40
    assert leg.jitter.removed_samples - leg.jitter.repeated_samples <= 8 * 20 * 5
    assert (leg.jitter.skipped_ms, counters["silent_samples"]) == (0, 160)
    assert largest_step(leg.pcm()) <= 1.5 * largest_step(pcm)


def test_what_is_not_stretched_is_the_payload_that_arrived() -> None:
    rng = random.Random(4)
    packets = packets_of(voiced(30))
    arrivals = [i * PTIME + (rng.randrange(60 * MS) if 300 <= i < 400 else 0) for i in range(len(packets))]
    leg = Listener()
    leg.run(packets, arrivals)  # type: ignore[arg-type]
    sent = b"".join(packets)
    touched = sum(payload not in sent for payload in leg.heard[2:])
    assert leg.jitter.removed_samples > 0
    made_up = leg.path.counters()["concealed_samples"] // 160
    assert touched <= 2 * made_up + 40
    assert all(payload in sent for payload in leg.heard[-200:])


def test_silence_is_stretched_by_exactly_what_is_over() -> None:
    rng = random.Random(5)
    packets = [b"\xff" * 160] * 600
    arrivals = [i * PTIME + (rng.randrange(80 * MS) if 100 <= i < 200 else 0) for i in range(len(packets))]
    leg = Listener()
    leg.run(packets, arrivals)  # type: ignore[arg-type]
    assert set(leg.delays_ms[-50:]) == {27.0}
    assert set(b"".join(leg.heard)) <= {0xFF, 0x7F}


@pytest.mark.parametrize("ppm", [200, -200])
def test_eight_hours_of_clock_skew_keep_the_depth_within_a_frame(ppm: int) -> None:
    # 1,440,000 turns, so straight into the core.
    config = ffi.new("tp_jitter_config *", (8000, 8, 20, 200, 20, 1))
    ring = ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * 8)
    state, frame, out = ffi.new("tp_jitter *"), ffi.new("tp_jitter_frame *"), ffi.new("uint8_t[]", 160)
    assert lib.tp_jitter_init(state, config, ring, len(ring)) == 0
    payload = ffi.new("uint8_t[]", b"\xff" * 160)
    put, get, stretched = lib.tp_jitter_put, lib.tp_jitter_get, lib.tp_jitter_stretched
    period, n = PTIME * (1_000_000 + ppm) // 1_000_000, 8 * 3600 * 50
    k, delays, kinds, moved = 0, set(), set(), 0
    for tick in range(n):
        now = tick * PTIME + PHASE
        while k * period <= now:
            put(state, k & 0xFFFF, 160 * k & 0xFFFFFFFF, 0, payload, 160, k * period)
            k += 1
        get(state, frame, out, now)
        if tick < 50:
            continue
        kinds.add(frame.kind)
        if frame.wanted_samples:
            # A pitch period in one direction or the other, as a voice would allow.
            step = 60 if frame.wanted_samples >= 60 else -60 if frame.wanted_samples < 0 else 0
            assert stretched(state, step) == 0
            moved += step
        if tick % 100 == 0:
            delays.add(round((now + PTIME) / MS - state.playout_timestamp / 8 * (1 + ppm * 1e-6)))
    assert kinds == {1}, "nothing was ever missing"
    assert min(delays) >= 0
    assert max(delays) - min(delays) <= 2 * 20
    assert max(delays) <= 20 + 2 * 20
    skew = 8 * 3600 * 1000 * abs(ppm) / 1e6 * 8
    assert abs(abs(moved) - skew) < 8 * 120
    assert (state.skipped_ms, state.inserted_ms, state.missing_ms, state.packets_late) == (0, 0, 0, 0)


def test_a_stall_of_five_seconds_is_over_when_it_is_over() -> None:
    pcm = voiced(15)
    packets = packets_of(pcm)
    arrivals = [i * PTIME if not 200 <= i < 450 else 450 * PTIME for i in range(len(packets))]
    leg = Listener()
    leg.run(packets, arrivals)  # type: ignore[arg-type]
    assert set(leg.delays_ms[480:]) == {27.0}
    assert max(leg.delays_ms[452:]) <= 227
    assert leg.heard[300] == b"\xff" * 160, "nothing is made up that long"
    assert largest_step(leg.pcm()) <= 1.5 * largest_step(pcm)
    assert all(payload in b"".join(packets) for payload in leg.heard[-100:])


def test_a_frame_that_comes_after_its_concealment_began_is_faded_into() -> None:
    pcm = voiced(4)
    packets = packets_of(pcm)
    for late_by in (30, 50, 75):
        arrivals = [i * PTIME + (late_by * MS if i == 100 else 0) for i in range(len(packets))]
        leg = Listener()
        leg.run(packets, arrivals)  # type: ignore[arg-type]
        counters = leg.path.counters()
        assert counters["concealed_samples"] > 0
        assert largest_step(leg.pcm()) <= 1.25 * largest_step(pcm)
        assert leg.jitter.packets_lost == 0


def test_what_is_skipped_at_once_leaves_no_step() -> None:
    pcm = voiced(6)
    packets = packets_of(pcm)
    leg = Listener()
    # The sender's clock jumps: what was heard and what comes have nothing to do with each other.
    jumped = [(i * PTIME, i, i * 160 + (0 if i < 150 else 8_000_000)) for i in range(len(packets))]
    for k, now in enumerate(range(PHASE, len(packets) * PTIME, PTIME)):
        at, i, stamp = jumped[k]
        leg.say(i, packets[i], at, stamp=stamp)
        leg.tick(now)
    assert leg.jitter.resyncs == 1
    assert largest_step(leg.pcm()) <= 1.5 * largest_step(pcm)


def level_db(pcm: Pcm) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(pcm.astype(float) ** 2) + 1e-9) / 32768))


def test_a_pause_sounds_as_the_sender_describes_it() -> None:
    pcm = voiced(2)
    packets = packets_of(pcm)
    leg = Listener()
    seq = 0
    for tick in range(300):
        now = tick * PTIME
        if tick < 100 or tick >= 200:
            leg.say(seq, packets[tick % 100], now, stamp=tick * 160, marker=tick == 200)
            seq += 1
        elif tick == 100:
            leg.say(seq, bytes([40, 127 + 60]), now, stamp=tick * 160, pt=NOISE)
            seq += 1
        leg.tick(now + PHASE)
    counters = leg.path.counters()
    pause = pcmu_decode(b"".join(leg.heard[104:198]))
    assert abs(level_db(pause) + 40) < 1.5
    assert leg.jitter.packets_lost == 0
    assert counters["concealed_samples"] == 0
    assert 98 * 160 <= counters["silent_samples"] <= 103 * 160
    assert all(payload in packets for payload in leg.heard[-90:])


def test_noise_is_the_same_in_every_run_and_another_sender_brings_its_own() -> None:
    def run(ssrc_changes: bool) -> list[bytes]:
        leg = Listener()
        for tick in range(20):
            leg.say(tick, b"\x20" * 160, tick * PTIME)
            leg.tick(tick * PTIME + PHASE)
        leg.say(20, bytes([50]), 20 * PTIME, pt=NOISE)
        for tick in range(20, 60):
            if ssrc_changes and tick == 40:
                header = struct.pack(">BBHII", 0x80, NOISE, 7, 0, 10)
                leg.path.receive_rtp(header + bytes([127]), tick * PTIME)
            leg.tick(tick * PTIME + PHASE)
        return leg.heard

    assert run(ssrc_changes=False) == run(ssrc_changes=False)
    after = pcmu_decode(b"".join(run(ssrc_changes=True)[45:]))
    before = pcmu_decode(b"".join(run(ssrc_changes=False)[45:]))
    assert level_db(before) > -55
    assert level_db(after) < -80


def test_linear_streams_hear_the_same_stretching() -> None:
    rng = random.Random(6)
    packets = packets_of(voiced(10))
    arrivals = [i * PTIME + (rng.randrange(60 * MS) if 50 <= i < 150 else 0) for i in range(len(packets))]
    octets, linear = Listener(), Listener(L16)
    for leg in (octets, linear):
        leg.run(packets, arrivals)  # type: ignore[arg-type]
    heard = np.frombuffer(b"".join(linear.heard), "<i2").astype(int)
    assert linear.jitter.removed_samples == octets.jitter.removed_samples > 0
    assert np.max(np.abs(heard - octets.pcm())) <= 512, "no more apart than G.711's own steps"
