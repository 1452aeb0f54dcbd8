"""Digits in a leg's audio: found though frames are lost, reported once beside RTP events, and sent as tones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from small_wire import PCMA, PCMU
from test_path import Leg, Packet, rtp

from talkpath.dsp import ToneDetector, dtmf, pcma_decode, pcmu_decode, pcmu_encode
from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.path.path import LegKind
from talkpath.path.stream import EventKind

FRAME = 160
EVENT = 101


def quiet(ms: int) -> np.ndarray:
    return np.zeros(8 * ms, np.int16)


def event_payload(digit: str, duration: int, *, end: bool) -> bytes:
    """RFC 4733 2.3."""
    return struct.pack(">BBH", "0123456789*#ABCD".index(digit), (0x80 if end else 0) | 10, duration)


class Caller(Leg):
    """Says PCM frame by frame; at frames of its choice an RTP event of 60 ms begins beside the audio."""

    def call(
        self,
        pcm: np.ndarray,
        events: dict[int, str] | None = None,
        lost: tuple[int, ...] = (),
    ) -> list[tuple[str, int]]:
        under_way: list[tuple[str, int, int]] = []
        for i in range(len(pcm) // FRAME):
            if digit := (events or {}).get(i):
                under_way.append((digit, self.seq * FRAME, 0))
            for n, (digit, stamp, told) in enumerate(under_way):
                payload = event_payload(digit, (told + 1) * FRAME, end=told >= 2)
                # Its own sequence number belongs to the audio's: one of each in every ptime.
                self.path.receive_rtp(rtp(2 * i, payload, timestamp=stamp, pt=EVENT), self.now)
                under_way[n] = (digit, stamp, told + 1)
            under_way = [one for one in under_way if one[2] < 3]
            if i not in lost:
                frame = pcmu_encode(pcm[i * FRAME : (i + 1) * FRAME])
                self.path.receive_rtp(rtp(2 * i + 1, frame, timestamp=i * FRAME), self.now)
            self.seq += 1
            self.tick()
        return [(chr(event.value), event.at_sample) for event in self.events if event.kind == EventKind.DIGIT]


def caller(**options: object) -> Caller:
    return Caller(event_payload_type=EVENT, inband_digits=True, **options)


def test_digits_are_found_where_they_sound() -> None:
    leg = caller()
    pcm = np.concatenate([quiet(100), dtmf("19#D", 60, pause_ms=60), quiet(200)])
    found = leg.call(pcm)
    delay = 8 * leg.path.jitter().target_delay_ms
    assert "".join(digit for digit, _ in found) == "19#D"
    for i, (_, at) in enumerate(found):
        assert at == pytest.approx(800 + i * 960 + delay, abs=FRAME)
    assert leg.path.counters()["digits_in"] == leg.path.counters()["digits_in_audio"] == 4


def test_frames_stay_undecoded_and_keys_unheard_unless_asked_for() -> None:
    leg = Caller(event_payload_type=EVENT)
    assert leg.call(np.concatenate([quiet(100), dtmf("5", 100), quiet(100)])) == []


@pytest.mark.parametrize("n_lost", [1, 2])
def test_lost_frames_neither_split_a_digit_nor_double_it(n_lost: int) -> None:
    pcm = np.concatenate([quiet(100), dtmf("7", 200), quiet(200)])
    for first in range(4, 16):
        found = caller().call(pcm, lost=tuple(range(first, first + n_lost)))
        assert [digit for digit, _ in found] == ["7"], first


@pytest.mark.parametrize("first_frame", [3, 4, 5, 6, 7, 8, 9])
def test_a_press_seen_both_ways_is_told_once_whichever_comes_first(first_frame: int) -> None:
    """The tones begin at frame 5 and are told in frame 7: events come before that, and after it."""
    leg = caller()
    pcm = np.concatenate([quiet(100), dtmf("4", 100), quiet(300)])
    found = leg.call(pcm, {first_frame: "4"})
    assert [digit for digit, _ in found] == ["4"]
    counters = leg.path.counters()
    assert (counters["digits_in"], counters["digits_doubled"]) == (1, 1)
    assert counters["digits_in_audio"] == (1 if first_frame >= 8 else 0)


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_two_presses_of_one_key_in_quick_succession_stay_two(late: int) -> None:
    """50 ms each and 100 ms from one beginning to the next, in the audio, as events, and as both."""
    pcm = np.concatenate([quiet(100), dtmf("88", 50, pause_ms=50), quiet(300)])
    events = {5 + late: "8", 10 + late: "8"}
    for said, told in ((pcm, None), (np.zeros_like(pcm), events), (pcm, events)):
        assert [digit for digit, _ in caller().call(said, told)] == ["8", "8"]
    apart = np.concatenate([quiet(100), dtmf("88", 100, pause_ms=100), quiet(300)])
    assert [digit for digit, _ in caller().call(apart, {5 + late: "8", 15 + late: "8"})] == ["8", "8"]


def test_different_keys_and_distant_presses_are_not_taken_for_one() -> None:
    pcm = np.concatenate([quiet(100), dtmf("3", 60), quiet(400)])
    assert [digit for digit, _ in caller().call(pcm, {5: "6"})] == ["6", "3"]
    assert [digit for digit, _ in caller().call(pcm, {16: "3"})] == ["3", "3"]


def test_a_pcm_leg_finds_them_too() -> None:
    leg = Leg(MediaFormat("L16", 16000), leg=LegKind.PCM, inband_digits=True)
    pcm = np.concatenate([np.zeros(1600, np.int16), dtmf("0", 80, 16000), np.zeros(3200, np.int16)])
    for i in range(0, len(pcm), 320):
        leg.path.receive_pcm(pcm[i : i + 320], leg.now)
        if i == 1600:
            leg.path.receive_digit("0")
        leg.tick()
    found = [event for event in leg.events if event.kind == EventKind.DIGIT]
    assert [(chr(event.value), event.at_sample) for event in found] == [("0", 1600)]
    with pytest.raises(ConfigError):
        Leg(MediaFormat("L16", 24000), leg=LegKind.PCM, inband_digits=True)


def sent_pcm(packets: list[Packet], law: MediaFormat) -> np.ndarray:
    return np.concatenate([(pcmu_decode if law == PCMU else pcma_decode)(packet.payload) for packet in packets])


@pytest.mark.parametrize("law", [PCMU, PCMA])
@pytest.mark.parametrize("ptime_ms", [20, 30])
def test_digits_to_a_leg_without_telephone_events_go_as_tones(law: MediaFormat, ptime_ms: int) -> None:
    leg = Leg(law, inband_digits=True, ptime_ms=ptime_ms)
    stream = leg.stream(0, law, message_ms=ptime_ms)
    n = 8 * ptime_ms
    hum = np.full(8000, 4000, np.int16)
    stream.play(pcmu_encode(hum) if law == PCMU else bytes([0x95]) * 8000)
    for i in range(40):
        if i == 3:
            assert leg.path.send_digits(0, "2D", on_ms=60, off_ms=60)
            assert leg.path.counters()["digits_out"] == 2
        leg.path.tick(leg.now, leg.outbox)
        leg.take()
        leg.now += ptime_ms * 1_000_000
    assert [packet.pt for packet in leg.packets] == [0] * 40
    assert [packet.timestamp for packet in leg.packets] == [i * n for i in range(40)]
    pcm = sent_pcm(leg.packets, law)
    events = ToneDetector().process(pcm)
    assert [(event.digit, event.ended) for event in events] == [("2", False), ("2", True), ("D", False), ("D", True)]
    on = 60 // ptime_ms * n
    for k in (0, 1):
        assert events[2 * k].at_sample == pytest.approx(3 * n + k * 2 * on, abs=40)
        assert events[2 * k + 1].n_samples == pytest.approx(480, abs=48)
    sounding = np.flatnonzero(np.abs(pcm[3 * n : 3 * n + 4 * on].reshape(4, on)).max(axis=1) > 500)
    assert list(sounding) == [0, 2]
    assert np.all(pcm[: 3 * n] == pcm[0])
    assert np.all(pcm[3 * n + 4 * on : 3 * n + 4 * on + 8000 - 3 * n] == pcm[0]), (
        "and then the audio, from its next sample"
    )
    sent = [event for event in leg.events if event.kind == EventKind.DIGITS_SENT]
    assert [event.stream for event in sent] == [0]
