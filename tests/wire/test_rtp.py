"""RTP and telephone events: one test per rule of RFC 3550, RFC 5761 and RFC 4733, and any bytes at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import LocalWireError, RemoteWireError
from talkpath.wire.rtp import (
    EVENT_DIGITS,
    DigitPhase,
    EventReceiver,
    RtpPacket,
    RtpSender,
    TelephoneEvent,
    build_rtp,
    build_telephone_event,
    digit_to_event,
    event_to_digit,
    is_rtcp,
    parse_rtp,
    parse_telephone_event,
)

MS = 1_000_000

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    seq=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
)


def raw(first: int = 0x80, second: int = 0, rest: bytes = b"") -> bytes:
    return bytes((first, second)) + bytes.fromhex("1234 89abcdef 01020304") + rest


def test_fixed_header_fields_are_where_rfc_3550_5_1_puts_them() -> None:
    packet = parse_rtp(raw(0x80, 0x80 | 101, b"audio"))
    assert packet == RtpPacket(101, 0x1234, 0x89ABCDEF, 0x01020304, b"audio", True)


def test_a_packet_without_payload_is_a_packet() -> None:
    assert parse_rtp(raw()).payload == b""


@pytest.mark.parametrize("version", [0, 1, 3])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(RemoteWireError):
        parse_rtp(raw(version << 6))


@pytest.mark.parametrize("length", range(12))
def test_shorter_than_a_header_is_refused(length: int) -> None:
    with pytest.raises(RemoteWireError):
        parse_rtp(raw()[:length])


@pytest.mark.parametrize("count", [1, 7, 15])
def test_csrc_list_is_passed_over(count: int) -> None:
    assert parse_rtp(raw(0x80 | count, 0, b"cccc" * count + b"audio")).payload == b"audio"
    with pytest.raises(RemoteWireError):
        parse_rtp(raw(0x80 | count, 0, b"cccc" * count)[:-1])


@pytest.mark.parametrize("words", [0, 1, 3])
def test_header_extension_is_passed_over(words: int) -> None:
    extension = b"\xbe\xde" + words.to_bytes(2, "big") + b"eeee" * words
    assert parse_rtp(raw(0x90, 0, extension + b"audio")).payload == b"audio"
    with pytest.raises(RemoteWireError):
        parse_rtp(raw(0x90, 0, extension[:-1]))


def test_csrc_list_extension_and_padding_together() -> None:
    rest = b"cccc" * 2 + b"\x00\x00\x00\x01eeee" + b"audio" + b"\x00\x00\x03"
    assert parse_rtp(raw(0xB2, 0, rest)).payload == b"audio"


def test_padding_counts_itself_and_must_fit() -> None:
    assert parse_rtp(raw(0xA0, 0, b"audio\x01")).payload == b"audio"
    assert parse_rtp(raw(0xA0, 0, b"\x00\x00\x03")).payload == b""
    for wrong in (b"audio\x00", b"audio\x07", b""):
        with pytest.raises(RemoteWireError):
            parse_rtp(raw(0xA0, 0, wrong))


def test_rtcp_is_told_by_the_second_octet() -> None:
    for second in range(256):
        assert is_rtcp(bytes((0x80, second, 0, 1))) == (64 <= second % 128 <= 95)
    assert not is_rtcp(b"\x80\xc8\x00")
    assert not is_rtcp(b"\x00\xc8\x00\x01")


@given(packets)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_is_built_is_parsed_back(packet: RtpPacket) -> None:
    assert parse_rtp(build_rtp(packet)) == packet


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=120).map(lambda b: b"\xbf" + b)))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_any_bytes_are_a_packet_within_themselves_or_refused(data: bytes) -> None:
    is_rtcp(data)
    try:
        packet = parse_rtp(data)
    except RemoteWireError:
        return
    assert packet.payload in data
    assert len(packet.payload) <= len(data) - 12


@pytest.mark.parametrize(
    "wrong", [{"payload_type": 128}, {"payload_type": -1}, {"seq": 65536}, {"timestamp": 1 << 32}, {"ssrc": -1}]
)
def test_a_number_that_does_not_fit_is_the_callers_fault(wrong: dict[str, int]) -> None:
    fields = {"payload_type": 0, "seq": 0, "timestamp": 0, "ssrc": 0} | wrong
    with pytest.raises(LocalWireError):
        build_rtp(RtpPacket(**fields, payload=b""))


def test_event_codes_are_rfc_4733_table_3() -> None:
    assert [digit_to_event(d) for d in "0123456789*#ABCD"] == list(range(16))
    assert [digit_to_event(d) for d in "abcd"] == [12, 13, 14, 15]
    assert [event_to_digit(code) for code in (0, 10, 11, 15, 16, 255)] == ["0", "*", "#", "D", None, None]
    for wrong in ("", "E", "12", "½", " "):
        with pytest.raises(LocalWireError):
            digit_to_event(wrong)


def test_event_payload_is_laid_out_as_rfc_4733_2_3() -> None:
    event = TelephoneEvent(11, 0x0320, end=True, volume=10)
    assert build_telephone_event(event) == bytes.fromhex("0b8a0320")
    assert parse_telephone_event(bytes.fromhex("0b8a0320")) == event
    # The reserved bit beside "end" is not volume.
    assert parse_telephone_event(bytes.fromhex("0b4a0320")) == TelephoneEvent(11, 0x0320, end=False, volume=10)
    with pytest.raises(RemoteWireError):
        parse_telephone_event(b"\x01\x02\x03")
    with pytest.raises(LocalWireError):
        build_telephone_event(TelephoneEvent(0, 0x10000))


class Ear:
    """Feeds an event receiver and keeps what it said."""

    def __init__(self) -> None:
        self.receiver = EventReceiver()
        self.now = 0
        self.reports: list[tuple[str, DigitPhase]] = []
        self.durations: list[int] = []

    def hear(self, digit: str, timestamp: int, duration: int, *, end: bool = False, after_ms: int = 20) -> None:
        self.now += after_ms * MS
        payload = build_telephone_event(TelephoneEvent(digit_to_event(digit), duration, end))
        self._keep(self.receiver.receive(payload, timestamp & 0xFFFFFFFF, self.now))

    def wait(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.now += 20 * MS
            self._keep(self.receiver.tick(self.now))

    def _keep(self, reports: tuple) -> None:  # type: ignore[type-arg]
        self.reports += [(r.digit, r.phase) for r in reports]
        self.durations += [r.duration for r in reports if r.phase != DigitPhase.BEGAN]

    @property
    def digits(self) -> str:
        return "".join(d for d, phase in self.reports if phase == DigitPhase.BEGAN)


def test_an_event_begins_once_and_ends_once() -> None:
    ear = Ear()
    for k in range(1, 5):
        ear.hear("5", 8000, 160 * k)
    for _ in range(3):
        ear.hear("5", 8000, 800, end=True)
    ear.wait(200)
    assert ear.reports == [("5", DigitPhase.BEGAN), ("5", DigitPhase.ENDED)]
    assert ear.durations == [800]


def test_an_event_of_which_only_one_end_packet_arrives_is_a_digit() -> None:
    ear = Ear()
    ear.hear("7", 8000, 800, end=True)
    assert ear.reports == [("7", DigitPhase.BEGAN), ("7", DigitPhase.ENDED)]


def test_a_lost_end_is_ended_by_100_ms_of_silence() -> None:
    ear = Ear()
    ear.hear("7", 8000, 160)
    ear.wait(80)
    assert ear.reports == [("7", DigitPhase.BEGAN)]
    ear.wait(20)
    assert ear.reports == [("7", DigitPhase.BEGAN), ("7", DigitPhase.END_LOST)]
    assert ear.receiver.n_lost_ends == 1
    # Its end comes after all: no second digit.
    ear.hear("7", 8000, 800, end=True)
    assert ear.digits == "7"


def test_a_lost_end_is_ended_by_the_next_event() -> None:
    ear = Ear()
    ear.hear("1", 8000, 160)
    ear.hear("2", 9600, 160)
    assert ear.reports == [("1", DigitPhase.BEGAN), ("1", DigitPhase.END_LOST), ("2", DigitPhase.BEGAN)]


def test_the_end_of_the_next_event_is_not_lost_when_it_is_all_that_came() -> None:
    ear = Ear()
    ear.hear("1", 8000, 160)
    ear.hear("2", 9600, 800, end=True)
    ear.wait(20)
    assert ear.reports[1:] == [("1", DigitPhase.END_LOST), ("2", DigitPhase.BEGAN), ("2", DigitPhase.ENDED)]


def test_the_same_digit_with_a_new_timestamp_is_a_second_digit() -> None:
    ear = Ear()
    for timestamp in (8000, 9600):
        ear.hear("1", timestamp, 160)
        ear.hear("1", timestamp, 800, end=True)
    assert ear.digits == "11"


def test_a_straggler_of_an_older_event_is_ignored() -> None:
    ear = Ear()
    ear.hear("1", 8000, 800, end=True)
    ear.hear("2", 9600, 160)
    ear.hear("1", 8000, 640)
    ear.hear("1", 8000, 800, end=True)
    ear.hear("2", 9600, 800, end=True)
    ear.hear("1", 8000, 800, end=True)
    assert ear.reports == [(d, p) for d in "12" for p in (DigitPhase.BEGAN, DigitPhase.ENDED)]


def test_event_timestamps_wrap() -> None:
    ear = Ear()
    for k in range(4):
        ear.hear("1", 0xFFFFF000 + 1600 * k, 800, end=True)
        ear.hear("1", 0xFFFFF000 + 1600 * k, 800, end=True)
    assert ear.digits == "1111"


def test_an_event_longer_than_a_segment_is_one_digit() -> None:
    ear = Ear()
    start, total = 0xFFFF0000, 0xFFFF * 2 + 1600
    for elapsed in range(160, total + 1, 160):
        segment = (elapsed - 1) // 0xFFFF
        ear.hear("9", start + segment * 0xFFFF, elapsed - segment * 0xFFFF)
    for _ in range(3):
        ear.hear("9", start + 2 * 0xFFFF, 1600, end=True)
    assert ear.reports == [("9", DigitPhase.BEGAN), ("9", DigitPhase.ENDED)]
    assert ear.durations == [total]


def test_events_that_are_no_digits_are_passed_over_and_broken_ones_refused() -> None:
    receiver = EventReceiver()
    assert receiver.receive(bytes((16, 10, 0, 160)), 8000, 0) == ()
    with pytest.raises(RemoteWireError):
        receiver.receive(b"\x01\x0a\x00", 8000, 0)


@given(st.integers(0, 10_000), st.text("0123456789*#ABCD", min_size=1, max_size=12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_one_digit_per_event_whatever_is_lost_repeated_or_swapped(seed: int, digits: str) -> None:
    rng = random.Random(seed)
    sender = RtpSender(0, 1, first_timestamp=rng.randrange(1 << 32), event_payload_type=101)
    sender.press(digits, on_ms=rng.choice((40, 60, 100, 130)), off_ms=rng.choice((0, 40, 60, 100)))
    heard: list[tuple[int, int, RtpPacket]] = []
    expected: dict[int, str] = {}
    tick = 0
    while sender.sending_digits:
        for datagram in sender.tick(None):
            packet = parse_rtp(datagram)
            for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
                heard.append((tick * 20 + rng.choice((0, 0, 0, 15, 30)), len(heard), packet))
        tick += 1
    receiver = EventReceiver()
    began = ""
    open_digits = 0
    newest = None
    now = 0
    for at_ms, _, packet in sorted(heard, key=lambda entry: entry[:2]):
        while now < at_ms:
            now += 20
            open_digits -= len(receiver.tick(now * MS))
        for report in receiver.receive(packet.payload, packet.timestamp, at_ms * MS):
            began += report.digit if report.phase == DigitPhase.BEGAN else ""
            open_digits += 1 if report.phase == DigitPhase.BEGAN else -1
        # An event all of whose packets were overtaken by the next one's is gone: RFC 4733 has no way to place it.
        if newest is None or (packet.timestamp - newest) & 0xFFFFFFFF < 1 << 31:
            newest = packet.timestamp
            expected[packet.timestamp] = EVENT_DIGITS[packet.payload[0]]
    for _ in range(10):
        now += 20
        open_digits -= len(receiver.tick(now * MS))
    assert began == "".join(expected.values())
    assert open_digits == 0


def test_sent_events_keep_their_timestamp_grow_and_end_three_times() -> None:
    sender = RtpSender(0, 7, first_seq=65534, first_timestamp=1000, event_payload_type=101)
    sender.press("4#", on_ms=60, off_ms=60)
    ticks = [[parse_rtp(d) for d in sender.tick(b"a" * 160)] for _ in range(13)]
    assert [len(t) for t in ticks] == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1]
    sent = [p for t in ticks for p in t]
    assert [p.seq for p in sent] == [(65534 + k) % 65536 for k in range(11)]
    events = [parse_telephone_event(p.payload) for p in sent[:10]]
    assert [e.code for e in events] == [4] * 5 + [11] * 5
    assert [e.duration for e in events] == [160, 320, 480, 480, 480] * 2
    assert [e.end for e in events] == [False, False, True, True, True] * 2
    assert [p.timestamp for p in sent] == [1000] * 5 + [1960] * 5 + [2920]
    assert [p.marker for p in sent] == [True] + [False] * 4 + [True] + [False] * 4 + [True]
    assert [p.payload_type for p in sent] == [101] * 10 + [0]


@pytest.mark.parametrize(("off_ms", "shape"), [(0, [1, 3]), (20, [1, 2, 1]), (40, [1, 1, 1, 1]), (60, [1, 1, 1, 1, 0])])
def test_end_packets_go_together_where_the_gap_is_short(off_ms: int, shape: list[int]) -> None:
    sender = RtpSender(0, 7, event_payload_type=101)
    sender.press("1", on_ms=40, off_ms=off_ms)
    lengths = []
    while sender.sending_digits:
        lengths.append(len(sender.tick(None)))
    assert lengths == shape


def test_each_digit_keeps_the_times_it_was_pressed_with() -> None:
    sender = RtpSender(0, 7, event_payload_type=101)
    sender.press("1", on_ms=40, off_ms=20)
    sender.press("2", on_ms=80, off_ms=40)
    ends = {}
    while sender.sending_digits:
        for datagram in sender.tick(None):
            packet = parse_rtp(datagram)
            event = parse_telephone_event(packet.payload)
            if event.end:
                ends[event.code] = (packet.timestamp, event.duration)
    assert ends == {1: (0, 320), 2: (480, 640)}


def test_digits_are_queued_all_or_none() -> None:
    sender = RtpSender(0, 7, event_payload_type=101)
    for wrong in ("12x", "é"):
        with pytest.raises(LocalWireError):
            sender.press(wrong)
    for times in ({"on_ms": 0}, {"on_ms": 8200}, {"off_ms": 70_000}):
        with pytest.raises(LocalWireError):
            sender.press("1", **times)
    sender.press("1" * 60)
    with pytest.raises(LocalWireError):
        sender.press("22222")
    sender.press("2222")
    digits = ""
    while sender.sending_digits:
        for packet in map(parse_rtp, sender.tick(None)):
            digits += EVENT_DIGITS[packet.payload[0]] if packet.marker else ""
    assert digits == "1" * 60 + "2222"
    with pytest.raises(LocalWireError):
        RtpSender(0, 7).press("1")


def test_a_pause_costs_time_but_no_sequence_number() -> None:
    sender = RtpSender(8, 7, first_seq=10, first_timestamp=0xFFFFFFF0)
    sent = [parse_rtp(d) for audio in (b"a", b"b", None, None, b"c") for d in sender.tick(audio)]
    assert [(p.seq, p.timestamp, p.marker) for p in sent] == [
        (10, 0xFFFFFFF0, True),
        (11, 0x90, False),
        (12, 0x90 + 480, True),
    ]
    assert (sender.seq, sender.timestamp) == (13, 0x90 + 640)
