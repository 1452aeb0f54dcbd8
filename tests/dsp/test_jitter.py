"""The jitter buffer against what must hold for any network: time, order, identity, bounds.

Every octet of the audio sent names its own millisecond and packet, so that what comes out can be checked without
another jitter buffer: it was sent, it is whole, it is in order, it comes once.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp.jitter import JitterBuffer, JitterFrame, JitterKind
from talkpath.errors import ConfigError
from talkpath.wire.rtp import RtpPacket, build_rtp

MS = 1_000_000
SSRC = 0x5EED
AUDIO, PARTIAL, MISSING, SILENCE = JitterKind.AUDIO, JitterKind.PARTIAL, JitterKind.MISSING, JitterKind.SILENCE


def spell(media_ms: int) -> bytes:
    """The 8 octets of one millisecond of media: its number, so that any other can be told from it."""
    return media_ms.to_bytes(8, "big", signed=True)


def read(payload: bytes) -> list[int]:
    return [int.from_bytes(payload[i : i + 8], "big", signed=True) for i in range(0, len(payload), 8)]


def audio_packet(
    seq: int, media_ms: int, n_ms: int = 20, *, origin: int = 0, marker: bool = False, ssrc: int = SSRC
) -> bytes:
    payload = b"".join(spell(media_ms + i) for i in range(n_ms))
    timestamp = (origin + 8 * media_ms) & 0xFFFFFFFF
    return build_rtp(RtpPacket(0, seq & 0xFFFF, timestamp, ssrc, payload, marker))


def other_packet(seq: int, media_ms: int) -> bytes:
    return build_rtp(RtpPacket(101, seq & 0xFFFF, 8 * media_ms, SSRC, b"\x01\x0a\x00\xa0"))


@dataclass
class Heard:
    """What a run of the buffer gave, one frame per ptime."""

    frames: list[JitterFrame] = field(default_factory=list)
    depths_ms: list[int] = field(default_factory=list)
    playout_delay_ms: list[float] = field(default_factory=list)
    """Of each whole frame: playout time minus the media time of its first ms."""

    @property
    def kinds(self) -> list[JitterKind]:
        return [frame.kind for frame in self.frames]

    def media(self) -> list[int]:
        """Every millisecond of audio that came out, in the order it did."""
        out = []
        for frame in self.frames:
            if frame.kind is AUDIO:
                out += read(frame.payload)
            elif frame.kind is PARTIAL:
                whole = read(frame.payload)
                del whole[frame.missing_first_ms : frame.missing_first_ms + frame.missing_ms]
                out += whole
        return out


def run(
    buffer: JitterBuffer,
    arrivals: Iterable[tuple[float, bytes]],
    until_ms: int,
    *,
    ptime_ms: int = 20,
    phase_ms: int = 7,
) -> Heard:
    """Put each datagram at its arrival (ms) and get one frame each ptime."""
    heard = Heard()
    waiting = sorted(arrivals, key=lambda entry: entry[0])
    k = 0
    for tick_ms in range(phase_ms, until_ms, ptime_ms):
        while k < len(waiting) and waiting[k][0] <= tick_ms:
            buffer.put(waiting[k][1], round(waiting[k][0] * MS))
            k += 1
        frame = buffer.get(tick_ms * MS)
        heard.frames.append(frame)
        heard.depths_ms.append(buffer.delay_ms)
        if frame.kind is AUDIO:
            heard.playout_delay_ms.append(tick_ms - read(frame.payload)[0])
    return heard


def steady(n: int, n_ms: int = 20, *, seq: int = 0, origin: int = 0) -> list[tuple[float, bytes]]:
    return [(float(n_ms * i), audio_packet(seq + i, n_ms * i, n_ms, origin=origin)) for i in range(n)]


# What any network must leave true.


@dataclass(frozen=True)
class Network:
    """A random sender and network."""

    seed: int
    packet_ms: int
    ptime_ms: int
    jitter_ms: int
    loss: float
    duplicates: float
    first_seq: int
    origin: int
    skew_ppm: int
    pauses: bool
    stall: bool


networks = st.builds(
    Network,
    seed=st.integers(0, 1 << 30),
    packet_ms=st.sampled_from((10, 20, 30, 40, 60)),
    ptime_ms=st.sampled_from((10, 20, 30, 40, 60)),
    jitter_ms=st.sampled_from((0, 5, 30, 60, 150)),
    loss=st.sampled_from((0.0, 0.03, 0.3)),
    duplicates=st.sampled_from((0.0, 0.1)),
    first_seq=st.sampled_from((0, 65530, 32760)),
    origin=st.sampled_from((0, 0xFFFFF000, 0x7FFFF000)),
    skew_ppm=st.sampled_from((0, 200, -200)),
    pauses=st.booleans(),
    stall=st.booleans(),
)


def send(network: Network, n: int) -> tuple[list[tuple[float, bytes]], set[int], int]:
    """Lay out what arrives; also every ms that was sent and how many packets were lost."""
    rng = random.Random(network.seed)
    arrivals, sent, lost, media_ms, marker = [], set(), 0, 0, True
    for i in range(n):
        if network.pauses and rng.random() < 0.03:
            media_ms += network.packet_ms * rng.randrange(1, 60)
            marker = True
        packet = audio_packet(network.first_seq + i, media_ms, network.packet_ms, origin=network.origin, marker=marker)
        marker = False
        sent.update(range(media_ms, media_ms + network.packet_ms))
        leaves = media_ms * (1 + network.skew_ppm * 1e-6)
        for _ in range(2 if rng.random() < network.duplicates else 1):
            arrives = leaves + 50 + rng.random() * network.jitter_ms
            if network.stall and 1500 < arrives < 2700:
                arrives = 2700
            if rng.random() < network.loss:
                lost += 1
            else:
                arrivals.append((arrives, packet))
        media_ms += network.packet_ms
    return arrivals, sent, lost


@given(networks)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_time_order_identity_and_bounds_hold_on_any_network(network: Network) -> None:
    arrivals, sent, _ = send(network, 150)
    buffer = JitterBuffer(8000, network.ptime_ms, 20, 200)
    until = round(max(at for at, _ in arrivals)) + 1000
    heard = run(buffer, arrivals, until, ptime_ms=network.ptime_ms)
    statistics = buffer.statistics()

    for frame in heard.frames:
        assert len(frame.payload) == (8 * network.ptime_ms if frame.kind in (AUDIO, PARTIAL) else 0)
        if frame.kind is PARTIAL:
            assert 0 < frame.missing_ms < network.ptime_ms
            assert frame.missing_first_ms + frame.missing_ms <= network.ptime_ms
        if frame.inserted_ms:
            assert (frame.kind, frame.inserted_ms) == (MISSING, network.ptime_ms)
    media = heard.media()
    assert set(media) <= sent
    assert all(a < b for a, b in itertools.pairwise(media))
    assert len(media) == statistics.emitted_ms
    assert max(heard.depths_ms) <= 200 + 2 * max(network.packet_ms, network.ptime_ms)
    assert buffer.delay_ms == 0
    assert 20 <= statistics.target_delay_ms <= 200
    assert statistics.packets_received == len(arrivals)
    assert statistics.packets_discarded >= statistics.packets_late + statistics.packets_duplicated
    # A second after the last packet nothing is made up any more.
    assert heard.kinds[-1] is SILENCE
    for before, after in itertools.pairwise(heard.frames):
        if before.following is not None and not after.skipped_ms:
            assert (after.kind, after.payload) == (AUDIO, before.following)


@given(networks.filter(lambda n: not n.stall and n.duplicates == 0 and n.jitter_ms <= 30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_each_packet_is_in_time_late_or_lost(network: Network) -> None:
    arrivals, _, lost = send(network, 150)
    numbers = {int.from_bytes(packet[2:4], "big") for _, packet in arrivals}
    ends = [(network.first_seq + i) & 0xFFFF for i in (0, 149)]
    buffer = JitterBuffer(8000, network.ptime_ms, 20, 200)
    until = round(max(at for at, _ in arrivals)) + 1000
    run(buffer, arrivals, until, ptime_ms=network.ptime_ms)
    statistics = buffer.statistics()
    # Losses before the first and after the last that came cannot be seen from the receiver's side.
    unseen = 0
    for end, step in zip(ends, (1, -1), strict=True):
        while end not in numbers:
            unseen += 1
            end = (end + step) & 0xFFFF
    assert statistics.packets_lost == lost - unseen
    assert statistics.packets_duplicated == 0


# One rule at a time.


def test_a_clean_link_gives_every_frame_at_the_least_delay() -> None:
    heard = run(JitterBuffer(), steady(500), 10_000)
    assert heard.kinds == [SILENCE] + [AUDIO] * 499
    assert heard.media() == list(range(499 * 20))
    assert set(heard.playout_delay_ms) == {27}


def test_sequence_numbers_and_timestamps_wrap_unnoticed() -> None:
    buffer = JitterBuffer()
    heard = run(buffer, steady(100, seq=65500, origin=0xFFFFFFFF - 8 * 1000), 2000)
    assert heard.kinds == [SILENCE] + [AUDIO] * 99
    assert buffer.statistics().packets_lost == 0


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60, 200])
@pytest.mark.parametrize("ptime_ms", [10, 20, 30, 60])
def test_any_ptime_in_gives_any_ptime_out(packet_ms: int, ptime_ms: int) -> None:
    buffer = JitterBuffer(8000, ptime_ms)
    heard = run(buffer, steady(6000 // packet_ms, packet_ms), 6000, ptime_ms=ptime_ms)
    after_the_start = heard.kinds[1000 // ptime_ms :]
    assert set(after_the_start) == {AUDIO}
    assert buffer.statistics().skipped_ms == 0


@pytest.mark.parametrize(("clock_rate_hz", "bytes_per_ms"), [(8000, 16), (16000, 32), (8000, 8), (48000, 1)])
def test_payloads_of_other_encodings_pass_through_unchanged(clock_rate_hz: int, bytes_per_ms: int) -> None:
    rng = random.Random(3)
    sent = [rng.randbytes(20 * bytes_per_ms) for _ in range(60)]
    buffer = JitterBuffer(clock_rate_hz, bytes_per_ms=bytes_per_ms)
    step = clock_rate_hz // 50
    arrivals = [(20.0 * i, build_rtp(RtpPacket(11, i, step * i, 1, sent[i]))) for i in range(60)]
    heard = run(buffer, arrivals, 1200)
    assert [frame.payload for frame in heard.frames[1:]] == sent[:59]


def test_reordered_packets_come_out_in_order_and_are_not_lost() -> None:
    arrivals = steady(100)
    for i in range(10, 90, 10):
        arrivals[i] = (arrivals[i][0] + 25, arrivals[i][1])
    buffer = JitterBuffer(min_delay_ms=40)
    heard = run(buffer, arrivals, 2000)
    assert heard.kinds == [SILENCE] * 2 + [AUDIO] * 98
    statistics = buffer.statistics()
    assert (statistics.packets_reordered, statistics.packets_lost, statistics.packets_late) == (8, 0, 0)


def test_duplicates_are_dropped_and_counted() -> None:
    arrivals = steady(50)
    buffer = JitterBuffer()
    heard = run(buffer, arrivals + [(at + 5, packet) for at, packet in arrivals], 1000)
    assert heard.kinds == [SILENCE] + [AUDIO] * 49
    assert buffer.statistics().packets_duplicated == 50
    assert buffer.statistics().packets_late == 0


def test_a_lost_packet_is_missing_for_its_time_and_tells_what_follows() -> None:
    arrivals = steady(50)
    del arrivals[20]
    buffer = JitterBuffer(min_delay_ms=60)
    heard = run(buffer, arrivals, 1000)
    assert heard.kinds == [SILENCE] * 3 + [AUDIO] * 20 + [MISSING] + [AUDIO] * 26
    gap = heard.frames[23]
    assert (gap.timestamp, gap.inserted_ms, gap.following) == (8 * 400, 0, heard.frames[24].payload)
    statistics = buffer.statistics()
    assert (statistics.packets_lost, statistics.missing_ms, statistics.inserted_ms) == (1, 20, 0)


def test_a_loss_with_nothing_behind_it_yet_costs_no_delay() -> None:
    arrivals = steady(200)
    del arrivals[20], arrivals[60:62], arrivals[110:113]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 4000)
    assert heard.kinds.count(MISSING) == 6
    assert set(heard.playout_delay_ms) == {27}
    statistics = buffer.statistics()
    assert (statistics.packets_lost, statistics.missing_ms, statistics.skipped_ms, statistics.inserted_ms) == (
        6,
        120,
        0,
        0,
    )


def test_part_of_a_frame_is_told_to_the_millisecond() -> None:
    arrivals = steady(100, 10)
    del arrivals[41]
    buffer = JitterBuffer(min_delay_ms=60)
    heard = run(buffer, arrivals, 1000)
    partial = [frame for frame in heard.frames if frame.kind is PARTIAL]
    assert [(frame.timestamp, frame.missing_first_ms, frame.missing_ms) for frame in partial] == [(8 * 400, 10, 10)]
    assert heard.media() == [ms for ms in range(heard.media()[-1] + 1) if not 410 <= ms < 420]


def test_several_holes_in_a_frame_are_told_as_one() -> None:
    arrivals = steady(100, 10)
    del arrivals[44], arrivals[42]
    heard = run(JitterBuffer(ptime_ms=60, min_delay_ms=60), arrivals, 1000, ptime_ms=60)
    partial = [frame for frame in heard.frames if frame.kind is PARTIAL]
    assert [(frame.timestamp, frame.missing_first_ms, frame.missing_ms) for frame in partial] == [(8 * 420, 0, 30)]


def test_a_pause_is_silence_and_no_loss_and_the_talkspurt_restarts_at_the_target() -> None:
    arrivals = [(20.0 * i, audio_packet(i, 20 * i)) for i in range(50)]
    arrivals += [(3000 + 20.0 * i, audio_packet(50 + i, 3000 + 20 * i, marker=i == 0)) for i in range(50)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 4000)
    assert heard.media() == list(range(1000)) + list(range(3000, 3980))
    assert set(heard.playout_delay_ms) == {27}
    statistics = buffer.statistics()
    assert (statistics.packets_lost, statistics.missing_ms, statistics.skipped_ms) == (0, 0, 0)
    # Concealed while it could still have been a late packet, then silence.
    after = heard.kinds[51:]
    assert after[:5] == [MISSING] * 5
    assert set(after[5:100]) == {SILENCE}


def test_a_short_pause_between_buffered_talkspurts_is_silence() -> None:
    sent = [0, 20, 40, 60, 140, 160, 180, 200, 220]
    arrivals = [(float(ms), audio_packet(i, ms)) for i, ms in enumerate(sent)]
    heard = run(JitterBuffer(min_delay_ms=120), arrivals, 400)
    kinds = heard.kinds[heard.kinds.index(AUDIO) :]
    assert kinds[:12] == [AUDIO] * 4 + [SILENCE] * 3 + [AUDIO] * 5


def test_telephone_events_between_audio_are_no_loss() -> None:
    arrivals = [(20.0 * i, audio_packet(i, 20 * i)) for i in range(20)]
    arrivals += [(20.0 * i, other_packet(i, 400)) for i in range(20, 30)]
    arrivals += [(20.0 * i, audio_packet(i, 20 * i, marker=i == 30)) for i in range(30, 50)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 1000)
    assert buffer.statistics().packets_lost == 0
    assert heard.media() == list(range(400)) + list(range(600, 980))
    # The event says that no audio is being sent: nothing to conceal.
    assert MISSING not in heard.kinds


def test_events_interleaved_with_audio_leave_it_whole() -> None:
    arrivals = []
    for i in range(50):
        arrivals += [(20.0 * i, audio_packet(2 * i, 20 * i)), (20.0 * i + 1, other_packet(2 * i + 1, 0))]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 1000)
    assert heard.kinds == [SILENCE] + [AUDIO] * 49
    assert buffer.statistics().packets_lost == 0


@pytest.mark.parametrize("stall_ms", [100, 300, 800, 3000, 30_000])
def test_delay_is_back_at_the_target_after_a_stall(stall_ms: int) -> None:
    n = (2000 + stall_ms + 10_000) // 20
    arrivals = [(at if at < 2000 else max(at, 2000.0 + stall_ms), packet) for at, packet in steady(n)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 20 * n)
    assert max(heard.depths_ms) <= 240
    assert set(heard.playout_delay_ms[-400:]) == {27}
    assert heard.media()[-1] == 20 * (n - 1) - 1
    assert buffer.target_delay_ms == 20
    assert buffer.statistics().packets_lost == 0
    # What the stall held up is gone, and is accounted for.
    gone = 20 * (n - 1) - len(heard.media())
    assert gone == buffer.statistics().skipped_ms + 20 * (buffer.statistics().packets_discarded)


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [200, -200])
def test_an_hour_of_clock_skew_moves_the_delay_by_a_frame_at_most(ppm: int) -> None:
    n = 180_000
    buffer = JitterBuffer()
    packet = bytearray(audio_packet(0, 0))
    delays = set()
    k = 0
    for tick in range(n - 100):
        now = tick * 20 * MS + 7 * MS
        while k * 20 * MS * (1_000_000 + ppm) // 1_000_000 <= now:
            packet[2:4] = (k & 0xFFFF).to_bytes(2, "big")
            packet[4:8] = ((160 * k) & 0xFFFFFFFF).to_bytes(4, "big")
            buffer.put(packet, k * 20 * MS * (1_000_000 + ppm) // 1_000_000)
            k += 1
        frame = buffer.get(now)
        if frame.kind is AUDIO and tick > 100:
            media_ns = frame.timestamp // 8 * (1_000_000 + ppm)
            delays.add((now - media_ns) // MS)
    statistics = buffer.statistics()
    assert min(delays) >= 0
    assert max(delays) <= 20 + 2 * 20 + 7
    # 200 ppm of an hour are 720 ms: 36 frames, counted on the side they belong to.
    corrections = (statistics.skipped_ms, statistics.inserted_ms)
    assert 700 <= max(corrections) <= 760
    assert min(corrections) == 0
    assert (statistics.packets_late, statistics.packets_lost, statistics.missing_ms) == (0, 0, 0)


def test_thirty_ms_of_jitter_and_three_percent_loss_are_few_late_packets_and_little_delay() -> None:
    rng = random.Random(11)
    arrivals = [(at + 60 * rng.random(), packet) for at, packet in steady(6000) if rng.random() >= 0.03]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 120_000)
    statistics = buffer.statistics()
    assert statistics.packets_late < 0.01 * statistics.packets_received
    later = heard.playout_delay_ms[500:]
    assert sum(later) / len(later) < 100
    assert max(later) < 120
    assert 0.025 < statistics.packets_lost / 6000 < 0.035


def test_the_target_rises_at_once_and_falls_slowly() -> None:
    rng = random.Random(5)
    bad = 60 * 50
    arrivals = [(at + (rng.random() * 80 if i < bad else 0), p) for i, (at, p) in enumerate(steady(bad + 120 * 50))]
    buffer = JitterBuffer()
    run(buffer, arrivals[:bad], 60_000)
    at_worst = buffer.target_delay_ms
    assert 70 <= at_worst <= 100
    heard = run(buffer, arrivals[bad:], 180_000, phase_ms=60_007)
    assert buffer.target_delay_ms == 20
    assert heard.playout_delay_ms[-1] <= 20 + 20 + 7
    assert heard.media() == sorted(heard.media())


def test_another_ssrc_starts_anew() -> None:
    arrivals = steady(50)
    arrivals += [(1000 + 20.0 * i, audio_packet(40_000 + i, 7_000_000 + 20 * i, ssrc=99)) for i in range(50)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 2000)
    assert heard.media()[-980:] == list(range(7_000_000, 7_000_980))
    statistics = buffer.statistics()
    assert (statistics.ssrc_changes, statistics.packets_lost, statistics.packets_discarded) == (1, 0, 0)


@pytest.mark.parametrize("jump_ms", [5_000, -5_000, 100_000_000])
@pytest.mark.parametrize("seq_jump", [0, 20_000])
def test_a_new_clock_under_the_old_ssrc_is_followed_after_three_packets(jump_ms: int, seq_jump: int) -> None:
    arrivals = steady(100)
    arrivals += [(2000 + 20.0 * i, audio_packet(100 + seq_jump + i, 2000 + jump_ms + 20 * i)) for i in range(100)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 4000)
    statistics = buffer.statistics()
    assert (statistics.resyncs, statistics.packets_discarded) == (1, 2)
    assert heard.media()[-1940:] == list(range(2000 + jump_ms + 40, 2000 + jump_ms + 1980))
    assert set(heard.playout_delay_ms[-50:]) == {27 - jump_ms}


def test_one_implausible_packet_changes_nothing() -> None:
    arrivals = [*steady(100), (1003.0, audio_packet(51, 90_000_000)), (1013.0, audio_packet(9000, 1000))]
    buffer = JitterBuffer()
    heard = run(buffer, [a for a in arrivals if a[0] != 1013.0], 2000)
    assert heard.kinds == [SILENCE] + [AUDIO] * 99
    assert buffer.statistics().packets_discarded == 1


def test_what_was_overtaken_before_a_stall_is_late_and_no_new_clock() -> None:
    arrivals = [
        (at if at < 2000 and i not in (95, 96, 97, 98) else max(at, 3500.0), p) for i, (at, p) in enumerate(steady(400))
    ]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 8000)
    media = heard.media()
    assert media == sorted(set(media))
    statistics = buffer.statistics()
    assert (statistics.packets_late, statistics.packets_lost) == (4, 0)
    assert set(heard.playout_delay_ms[-150:]) == {27}


def test_a_sender_whose_clock_stands_still_in_pauses_is_heard_after_them() -> None:
    arrivals = steady(100)
    arrivals += [(10_000 + 20.0 * i, audio_packet(100 + i, 2000 + 20 * i, marker=i == 0)) for i in range(100)]
    heard = run(JitterBuffer(), arrivals, 12_000)
    assert heard.media() == list(range(2000 + 1980))


def test_a_longer_way_is_followed() -> None:
    arrivals = [(at + (0 if at < 2000 else 150), packet) for at, packet in steady(1500)]
    buffer = JitterBuffer()
    heard = run(buffer, arrivals, 30_000)
    tail = heard.kinds[-500:]
    assert tail == [AUDIO] * 500
    assert buffer.statistics().packets_late == 0


def test_hold_is_silence_and_reset_forgets_the_audio_but_not_the_counts() -> None:
    buffer = JitterBuffer(min_delay_ms=60)
    run(buffer, steady(50), 1000)
    assert buffer.delay_ms > 0
    buffer.reset()
    assert buffer.delay_ms == 0
    assert buffer.get(1007 * MS).kind is SILENCE
    assert buffer.statistics().packets_received == 50
    arrivals = [(5000 + 20.0 * i, audio_packet(600 + i, 90_000 + 20 * i)) for i in range(50)]
    heard = run(buffer, arrivals, 6000, phase_ms=5007)
    assert heard.media() == list(range(90_000, 90_000 + len(heard.media())))
    assert buffer.statistics().packets_lost == 0


def test_no_more_waits_than_the_bound_when_nobody_takes_it() -> None:
    buffer = JitterBuffer()
    for at, packet in steady(500):
        buffer.put(packet, round(at * MS))
        assert buffer.delay_ms <= 512
    frame = buffer.get(10_000 * MS)
    assert buffer.delay_ms <= 220
    assert frame.kind is AUDIO
    assert read(frame.payload)[0] + 20 + buffer.delay_ms == 10_000
    assert frame.skipped_ms == read(frame.payload)[0]


def test_what_is_no_rtp_is_counted_and_ignored() -> None:
    buffer = JitterBuffer()
    assert not buffer.put(b"", 0)
    assert not buffer.put(b"\x00" * 40, 0)
    assert buffer.put(audio_packet(1, 0), 0)
    assert not buffer.put(audio_packet(2, 20)[:-3], 1)
    assert not buffer.put(b"\x80", 1)
    assert not buffer.put(b"\x80\xc8\x00\x06" + bytes(24), 1)
    assert not buffer.put(audio_packet(3, 40, 201), 1)
    assert buffer.statistics().packets_malformed == 5
    assert buffer.statistics().packets_received == 1


@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 50 * MS)), max_size=60), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_datagrams_leave_one_frame_per_ptime(datagrams: list[tuple[bytes, int]], as_rtp: bool) -> None:
    buffer = JitterBuffer(payload_type=0)
    now = 0
    for data, step in datagrams:
        now += step
        if as_rtp:
            data = b"\x80\x00" + data[:2].ljust(2, b"\0") + data[2:6].ljust(4, b"\0") + b"ssrc" + data[6:14] * 20
        buffer.put(data, now)
        frame = buffer.get(now)
        assert len(frame.payload) == (160 if frame.kind in (AUDIO, PARTIAL) else 0)
        assert buffer.delay_ms <= 512


@pytest.mark.parametrize(
    "wrong",
    [
        {"clock_rate_hz": 11_025},
        {"clock_rate_hz": 0},
        {"clock_rate_hz": 96_000},
        {"ptime_ms": 5},
        {"ptime_ms": 61},
        {"ptime_ms": -20},
        {"max_delay_ms": 401},
        {"min_delay_ms": 201},
        {"bytes_per_ms": 33},
        {"bytes_per_ms": 0},
        {"payload_type": 128},
    ],
)
def test_a_value_out_of_range_is_refused_at_once(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        JitterBuffer(**wrong)  # type: ignore[arg-type]
