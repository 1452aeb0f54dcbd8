"""The simulated caller: what he says, presses and hears, by an independent reading of his packets."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import trio

from talkpath.audio import AudioClip, Samples
from talkpath.dsp import pcmu_decode, pcmu_encode
from talkpath.errors import ConfigError
from talkpath.testing import LinkEmulator, ToneSource, tone_levels
from talkpath.testing.caller import Caller, CallerMachine, CallerScript, Press

MS = 1_000_000


@dataclass(frozen=True)
class Packet:
    payload_type: int
    marker: bool
    seq: int
    timestamp: int
    payload: bytes
    at_ms: float


def read(datagram: bytes, now: int) -> Packet:
    version, kind, seq, timestamp, _ = struct.unpack("!BBHII", datagram[:12])
    assert version == 0x80
    return Packet(kind & 0x7F, bool(kind & 0x80), seq, timestamp, datagram[12:], now / MS)


def packets(machine: CallerMachine, until_ms: int) -> list[Packet]:
    """Everything that leaves up to a moment, at the machine's own deadlines."""
    out: list[Packet] = []
    while (due := machine.next_deadline()) < until_ms * MS:
        out += [read(datagram, due) for datagram in machine.tick(due)]
    return out


def rtp(timestamp: int, payload: bytes, payload_type: int = 0) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, timestamp // 160 % 65536, timestamp % 2**32, 99) + payload


def test_a_caller_is_silent_then_speaks_then_is_silent_again() -> None:
    speech = ToneSource(450).take(800)
    machine = CallerMachine(CallerScript(speech=AudioClip(speech, 8000)))
    before = packets(machine, 100)
    assert machine.begin() == 100 * MS
    after = packets(machine, 400)
    assert [packet.at_ms for packet in before + after] == list(range(0, 400, 20))
    assert {packet.payload for packet in before} == {b"\xff" * 160}
    assert b"".join(packet.payload for packet in after[:5]) == pcmu_encode(speech)
    assert {packet.payload for packet in after[5:]} == {b"\xff" * 160}
    assert machine.speech_ms == 100


def test_sequence_and_timestamp_run_on_without_a_hole_across_their_wrap() -> None:
    stream = packets(CallerMachine(CallerScript(seed=3)), 3000)
    assert {(b.seq - a.seq) % 65536 for a, b in pairwise(stream)} == {1}
    assert {(b.timestamp - a.timestamp) % 2**32 for a, b in pairwise(stream)} == {160}
    assert not any(packet.marker for packet in stream)


def test_a_late_caller_makes_up_and_keeps_his_grid() -> None:
    machine = CallerMachine(CallerScript())
    assert len(machine.tick(0)) == 1
    assert len(machine.tick(90 * MS)) == 4
    assert machine.next_deadline() == 100 * MS


def test_speech_at_another_rate_is_converted() -> None:
    machine = CallerMachine(CallerScript(speech=AudioClip(ToneSource(450, 44_100).take(4410), 44_100)))
    machine.begin()
    heard = pcmu_decode(b"".join(packet.payload for packet in packets(machine, 100)))
    wanted = ToneSource(450).take(800)
    assert np.abs(heard[100:700].astype(int) - wanted[100:700]).max() < 700


def test_digits_are_events_of_rfc_4733() -> None:
    machine = CallerMachine(CallerScript(presses=[Press("1#", 100)]))
    machine.begin()
    stream = packets(machine, 700)
    events = [packet for packet in stream if packet.payload_type == 101]
    first, second = events[:7], events[7:]
    for digit, code, at_ms in ((first, 1, 100), (second, 11, 300)):
        codes, flags, durations = zip(*(struct.unpack("!BBH", packet.payload) for packet in digit), strict=True)
        assert set(codes) == {code}
        assert durations == (160, 320, 480, 640, 800, 800, 800)
        assert [flag >> 7 for flag in flags] == [0, 0, 0, 0, 1, 1, 1]
        assert [packet.marker for packet in digit] == [True] + [False] * 6
        assert {packet.timestamp for packet in digit} == {stream[0].timestamp + at_ms * 8}
        assert digit[0].at_ms == at_ms
    assert {(b.seq - a.seq) % 65536 for a, b in pairwise(stream)} == {1}
    # In place of audio while a key is down, audio again in the 100 ms after it.
    assert [packet.at_ms for packet in stream if packet.payload_type == 0 and 100 <= packet.at_ms < 320] == [
        200, 220, 240, 260, 280,
    ]  # fmt: skip
    assert machine.digits_pressed == "1#"


def test_presses_that_overlap_are_pressed_one_after_the_other() -> None:
    machine = CallerMachine(CallerScript(presses=[Press("12", 0), Press("3", 50)]))
    machine.begin()
    events = [packet for packet in packets(machine, 1000) if packet.marker]
    assert [(packet.at_ms, packet.payload[0]) for packet in events] == [(0, 1), (200, 2), (400, 3)]


@pytest.mark.parametrize("ptime_ms", [10, 20, 30])
@pytest.mark.parametrize(
    ("at_ms", "on_ms", "off_ms"), [(100, 50, 100), (100, 30, 45), (105, 41, 7), (0, 1, 0), (7, 33, 3)]
)
def test_digits_last_as_long_as_asked_to_the_sample(ptime_ms: int, at_ms: int, on_ms: int, off_ms: int) -> None:
    script = CallerScript(
        presses=[Press("12#", at_ms)], digit_on_ms=on_ms, digit_off_ms=off_ms, ptime_ms=ptime_ms, seed=3
    )
    machine = CallerMachine(script)
    machine.begin()
    stream = packets(machine, 1_000)
    origin = stream[0].timestamp if stream[0].payload_type == 0 else stream[0].timestamp - 8 * at_ms
    events: dict[int, list[tuple[Packet, int, bool, int]]] = {}
    for packet in stream:
        if packet.payload_type == 101:
            code, flags, duration = struct.unpack("!BBH", packet.payload)
            events.setdefault((packet.timestamp - origin) % 2**32, []).append(
                (packet, code, bool(flags & 0x80), duration)
            )
    period = on_ms + off_ms
    assert list(events) == [8 * (at_ms + n * period) for n in range(3)]
    for (start, updates), digit in zip(events.items(), (1, 2, 11), strict=True):
        assert {code for _, code, _, _ in updates} == {digit}
        assert [packet.marker for packet, *_ in updates] == [True] + [False] * (len(updates) - 1)
        durations = [duration for *_, duration in updates]
        assert durations[-3:] == [8 * on_ms] * 3
        assert [end for *_, end, _ in updates] == [False] * (len(updates) - 3) + [True] * 3
        # A packet a frame, each up to the frame's end.
        assert all((start + duration) % (8 * ptime_ms) == 0 for duration in durations[:-3])
        assert [b - a for a, b in pairwise(durations[:-3])] == [8 * ptime_ms] * max(len(durations) - 4, 0)
    assert script.pressing_ends_ms() == at_ms + 3 * period


def test_the_link_strikes_what_he_says() -> None:
    link = LinkEmulator(7, loss=0.2, jitter_ms=30, reorder=0.05)
    machine = CallerMachine(CallerScript(outward=link))
    stream = packets(machine, 20_000)
    statistics = machine.path_statistics()
    assert statistics.sent == 1000
    assert len(stream) == statistics.delivered
    assert 150 < statistics.lost < 250
    assert any((b.seq - a.seq) % 65536 > 32768 for a, b in pairwise(stream))


def hear(
    machine: CallerMachine, track: Samples, *, grid_ms: float, first_timestamp: int, delays_ms: list[float]
) -> None:
    """Let him hear a track cut into packets; packet n is due at grid_ms + 20 n and comes delays_ms[n % len] later."""
    for n in range(len(track) // 160):
        payload = pcmu_encode(track[160 * n : 160 * (n + 1)])
        at_ms = grid_ms + 20 * n + delays_ms[n % len(delays_ms)]
        machine.receive(rtp(first_timestamp + 160 * n, payload), round(at_ms * MS))


def test_what_he_hears_is_placed_by_its_timestamps_and_the_best_arrival() -> None:
    track = pcmu_decode(pcmu_encode(ToneSource(450).take(8000)))
    machine = CallerMachine(CallerScript())
    machine.tick(100 * MS)
    machine.begin()  # at 120 ms
    # Wraps the timestamp; the engine's grid lies 5.25 ms = 42 samples off his own.
    hear(machine, track, grid_ms=5.25, first_timestamp=2**32 - 1600, delays_ms=[3, 0.5, 0, 9])
    shift = round((120 - 5.25) * 8)
    assert machine.track_sample_at_begin() == shift
    assert np.array_equal(machine.heard(), track[shift:])
    assert np.array_equal(machine.heard(120 * MS + 50 * MS), track[shift : shift + 400])
    longer = machine.heard(2000 * MS)
    assert len(longer) == (2000 - 120) * 8
    assert not longer[8000 - shift :].any()
    assert Counter(round(late, 6) for late in machine.lateness_ms()) == {3: 13, 0.5: 13, 0: 12, 9: 12}


def test_packets_missing_reordered_or_doubled_leave_their_place() -> None:
    track = pcmu_decode(pcmu_encode(ToneSource(450).take(1600)))
    machine = CallerMachine(CallerScript())
    machine.begin()
    for n in (0, 1, 4, 3, 3, 5, 6, 7, 8, 9):
        machine.receive(rtp(160 * n, pcmu_encode(track[160 * n : 160 * (n + 1)])), n * 20 * MS)
    track[320:480] = 0
    assert np.array_equal(machine.heard(), track)


def test_digits_he_hears_count_once() -> None:
    machine = CallerMachine(CallerScript())
    for timestamp, code in ((100, 5), (100, 5), (900, 5), (1700, 10), (1700, 10)):
        machine.receive(rtp(timestamp, bytes([code, 10, 0, 160]), 101), 0)
    assert machine.digits_heard == "55*"


def through_his_telephone(inward: LinkEmulator) -> Samples:
    """What he hears of ten seconds of tone on an engine's grid 7 ms off his own."""
    machine = CallerMachine(CallerScript(inward=inward))
    machine.begin()
    track = ToneSource(450).take(80_000)
    for n in range(500):
        machine.tick(n * 20 * MS)
        machine.receive(rtp(160 * n, pcmu_encode(track[160 * n : 160 * (n + 1)])), (n * 20 + 7) * MS)
    return machine.heard(10_000 * MS)


def test_through_a_perfect_path_his_telephone_adds_only_delay() -> None:
    heard = through_his_telephone(LinkEmulator())
    assert len(heard) == 80_000
    sent = pcmu_decode(pcmu_encode(ToneSource(450).take(80_000)))
    (first, *_) = np.flatnonzero(heard)
    delay = int(first) - int(np.flatnonzero(sent)[0])
    assert 0 < delay <= 100 * 8
    assert np.array_equal(heard[8000:], sent[8000 - delay : 80_000 - delay])


def test_through_a_bad_path_he_hears_concealment_instead_of_holes() -> None:
    link = LinkEmulator(7, loss=0.05, jitter_ms=30)
    heard = through_his_telephone(link)
    assert link.statistics().lost > 10
    levels = tone_levels(heard[8000:], 8000, 450)
    assert np.count_nonzero(levels < -20) < 10


@pytest.mark.parametrize("noise", [b"", b"\x80", b"\x90" + bytes(30), b"\x80\x63" + bytes(30), b"\x80\x65" + bytes(10)])
def test_noise_is_not_heard(noise: bytes) -> None:
    machine = CallerMachine(CallerScript())
    machine.receive(noise, 0)
    assert len(machine.heard()) == 0
    assert machine.digits_heard == ""
    assert machine.lateness_ms() == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (CallerScript(codec="G722"), "codec='G722'"),
        (CallerScript(presses=[Press("x", 0)]), "'X' is on no telephone"),
        (CallerScript(digit_on_ms=0), "digit_on_ms is 0"),
        (CallerScript(digit_on_ms=8_192), "between 1 and 8191"),
        (CallerScript(digit_off_ms=-1), "digit_off_ms is -1"),
        (CallerScript(ptime_ms=25), "ptime_ms=25"),
    ],
)
def test_what_he_cannot_do_is_refused(script: CallerScript, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CallerMachine(script)


class Loop:
    """Datagrams that come back to their sender after 50 ms."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[float, bytes]](100)

    async def send(self, datagram: bytes) -> None:
        self._send.send_nowait((trio.current_time() + 0.05, datagram))

    async def receive(self) -> bytes:
        due, datagram = await self._receive.receive()
        await trio.sleep_until(due)
        return datagram


async def test_over_memory_and_virtual_time_he_hears_himself_exactly_when_he_should(autojump: object) -> None:
    speech = pcmu_decode(pcmu_encode(ToneSource(450).take(8000)))
    caller = Caller(CallerScript(speech=AudioClip(speech, 8000)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run_over, Loop())
        await trio.sleep(0.51)
        assert caller.begin() == pytest.approx(0.52)
        await trio.sleep_until(caller.clock_time_of(1500))
        assert caller.elapsed_ms() == 1500
        nursery.cancel_scope.cancel()
    heard = caller.machine.heard()
    assert np.array_equal(heard[400:8400], speech)
    assert set(caller.machine.lateness_ms()) == {0}


@pytest.mark.smoke
async def test_over_a_real_socket_he_reaches_whom_he_is_connected_to_and_hears_nobody_else() -> None:
    caller = Caller(CallerScript())
    with trio.fail_after(5), trio.socket.socket(type=trio.socket.SOCK_DGRAM) as engine:
        await engine.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            address = await nursery.start(caller.run)
            caller.connect(engine.getsockname())
            datagram, source = await engine.recvfrom(2048)
            assert (len(datagram), source) == (172, address)
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
                await stranger.sendto(rtp(0, b"\x00" * 160), address)
            await engine.sendto(rtp(0, b"\x80" * 160), address)
            while not len(caller.machine.heard()):
                await engine.recvfrom(2048)
            nursery.cancel_scope.cancel()
    assert caller.machine.heard().tolist().count(32124) == 160
