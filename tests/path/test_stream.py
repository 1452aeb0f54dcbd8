"""One end of a wire: bytes to audio and back, the line's sending ahead."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_wire import (
    L16,
    L16_16K,
    MS,
    PCMA,
    PCMU,
    application,
    frame,
    media_text,
    platform,
    play_text,
    read_media,
)

from talkpath._native import ffi, lib
from talkpath.dsp.g711 import pcma_decode, pcmu_decode, pcmu_encode
from talkpath.errors import CallEnded, ConfigError, FormatError
from talkpath.events import MediaFormat
from talkpath.path.path import LegKind, Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import NEVER, Event, EventKind, MarkOutcome, Received, Stream, Tick, Track
from talkpath.records import EndReason


def pool() -> Pool:
    return Pool(1 << 21)


def feed(stream: Stream, data: bytes, cuts: list[int]) -> tuple[list[tuple[int, bool, bytes]], int]:
    """Hand `data` over in pieces, the rest of each again with the next; -> other frames, protocol error."""
    others: list[tuple[int, bool, bytes]] = []
    held = bytearray()
    edges = [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    at = 0
    for edge in edges:
        held += data[at:edge]
        at = edge
        while True:
            got: Received = stream.receive(held, 0)
            held = held[got.consumed :]
            if got.protocol_error:
                return others, got.protocol_error
            if not got.other:
                break
            others.append((got.opcode, got.fin, got.payload))
    return others, 0


def drain(stream: Stream, leg_format: MediaFormat) -> bytes:
    """Play what is queued into a PCM leg; -> the samples heard, until the queue is empty."""
    assert leg_format.encoding == "L16"
    path = Path(stream.pool, PathOptions(leg=LegKind.PCM, media_format=leg_format))
    path.attach(0, stream)
    outbox = Outbox()
    heard = b""
    while stream.queued_samples:
        outbox.reset()
        path.tick(path.deadline, outbox)
        heard += b"".join(bytes(output.bytes) for output in outbox if output.kind == 3)
    path.close()
    return heard


A_WIRE = (
    frame(play_text(bytes(range(160))), key=b"abcd")
    + frame(b'{"event":"checkpoint","name":"a"}', key=b"efgh")
    + frame(b"", opcode=9, key=b"0123")
    + frame(b'{"event":"play', fin=False, key=b"ijkl")
    + frame(play_text(bytes(20)), opcode=0, fin=True, key=b"mnop")
    + frame(play_text(bytes(range(100, 250)) * 500), key=b"qrst")
    + frame(play_text(b"ab").replace(b"YWI=", b"YWI"), key=b"uvwx")
    + frame(play_text(b"\x7f" * 160), key=b"yzab")
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(A_WIRE)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_state(cuts: list[int]) -> None:
    whole, split = platform(pool()), platform(pool())
    expected = feed(whole, A_WIRE, [])
    assert [(opcode, fin) for opcode, fin, _ in expected[0]] == [(1, True), (9, True), (1, False), (0, True), (1, True)]
    assert feed(split, A_WIRE, cuts) == expected
    assert split.counters() == whole.counters()
    assert whole.counters()["messages_in"] == 3
    assert split.queued_samples == whole.queued_samples == 160 + 75_000 + 160
    assert split.take_sequence() == whole.take_sequence()


def test_byte_by_byte() -> None:
    stream = platform(pool())
    wire = frame(play_text(b"\x01\x02\x03"), key=b"abcd") + frame(b"{}", key=b"abcd")
    others, error = feed(stream, wire, list(range(len(wire))))
    assert (others, error) == ([(1, True, b"{}")], 0)
    assert stream.queued_samples == 3


def test_a_long_message_says_how_much_it_needs() -> None:
    stream = platform(pool())
    audio = bytes(i % 251 for i in range(40 * 8000))
    wire = frame(play_text(audio), key=b"abcd")
    got = stream.receive(bytearray(wire[:20]), 0)
    assert (got.consumed, got.needed) == (0, len(wire))
    assert stream.receive(bytearray(wire[:3]), 0).needed == 0
    assert not stream.receive(bytearray(wire), 0).other
    assert stream.queued_us == 40_000_000
    assert stream.pool_bytes == -(-len(audio) // 1016) * 1024
    np.testing.assert_array_equal(np.frombuffer(drain(stream, L16), np.int16)[: len(audio)], pcmu_decode(audio))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (play_text(b""), "an empty payload"),
        (play_text(b"ab").replace(b"YWI=", b"YWJ="), "bits set in the last group"),
        (play_text(b"ab").replace(b"YWI=", b"YWI"), "no padding"),
        (play_text(b"ab").replace(b"mulaw", b"l16"), "another encoding"),
        (play_text(b"ab").replace(b"8000", b"16000"), "another rate"),
        (play_text(b"ab").replace(b"mulaw", b"mulaw;rate=16000"), "another rate in the name"),
        (play_text(b"ab").replace(b"playAudio", b"playAudi0"), "another event"),
        (play_text(b"ab") + b"x", "something behind it"),
        (b"\xff" + play_text(b"ab"), "not ASCII"),
        (play_text(bytes(30_000)).replace(b"AAAA", b"AA==", 1), "padding within a long payload"),
        (play_text(bytes(30_000)).replace(b"AAAA", b"AA!A", 1), "no base64 within a long payload"),
    ],
)
def test_what_is_not_plain_media_is_handed_on_whole(text: bytes, why: str) -> None:
    stream = platform(pool())
    others, error = feed(stream, frame(text, key=b"\x01\x02\x03\x04"), [])
    assert (others, error) == ([(1, True, text)], 0), why
    assert not stream.receive_message(text, 0)
    assert (stream.queued_samples, stream.counters()["messages_in"]) == (0, 0)


@pytest.mark.parametrize(
    "name", [b"audio/x-mulaw", b"AUDIO/X-MULAW", b"audio/x-mulaw;rate=8000", b"audio/x-mulaw;RATE=8000"]
)
def test_names_of_the_streams_own_encoding(name: bytes) -> None:
    stream = platform(pool())
    assert stream.receive_message(play_text(b"abc").replace(b"audio/x-mulaw", name), 0)
    assert stream.queued_samples == 3


def test_half_a_sample_is_the_parsers() -> None:
    stream = platform(pool(), L16)
    assert not stream.receive_message(play_text(b"abc", L16), 0)
    assert stream.receive_message(play_text(b"abcd", L16), 0)
    assert stream.queued_samples == 2
    with pytest.raises(FormatError):
        stream.receive_audio(b"abc", 0)
    with pytest.raises(FormatError):
        stream.play(b"a")
    assert stream.queued_samples == 2


def test_a_one_way_stream_takes_no_audio() -> None:
    stream = platform(pool(), bidirectional=False)
    assert not stream.receive_message(play_text(b"abc"), 0)


@pytest.mark.parametrize(
    ("masked", "wire", "error"),
    [
        (False, frame(b"{}"), 3),
        (True, frame(b"{}", key=b"abcd"), 3),
        (False, frame(bytes(200), key=b"abcd"), 2),
        (False, b"\xf1\x80abcd", 1),
        (False, b"\x83\x80abcd", 1),
        (False, b"\x09\x80abcd", 1),
        (False, b"\x81\xfe\x00\x01abcdx", 1),
    ],
)
def test_a_broken_frame_is_a_protocol_error(masked: bool, wire: bytes, error: int) -> None:
    good = frame(play_text(b"abc"), key=None if masked else b"abcd")
    stream = platform(pool(), masked=masked, max_message_bytes=150)
    others, got = feed(stream, good + wire, [])
    assert (others, got) == ([], error)
    assert stream.queued_samples == 3


def test_excess_is_dropped_counted_and_told() -> None:
    stream = platform(pool(), bound_ms=1000)
    assert stream.receive_message(play_text(bytes(5000)), 0)
    assert stream.receive_message(play_text(bytes(5000)), 0)
    assert stream.queued_samples == 8000
    assert stream.mark(7)
    assert stream.mark(8)
    assert stream.receive_message(play_text(bytes(100)), 0)
    assert stream.counters()["samples_dropped"] == 2100
    events = stream.take_events()
    assert events[0] == Event(EventKind.MARK, 0, 0, 7, MarkOutcome.LOST)
    fills = [(event.value, event.id) for event in events if event.kind == EventKind.FILL]
    assert fills == [(30, 0), (60, 0), (90, 0), (100, 2100)]
    assert len(events) == 5, "mark 8 marks what was kept"
    assert stream.close(123) == [Event(EventKind.MARK, 0, 123, 8, MarkOutcome.LOST)]


def test_fill_counts_upward_crossings() -> None:
    stream = platform(pool(), bound_ms=1000, reserve_ms=100)
    path = Path(stream.pool, PathOptions(leg=LegKind.PCM, media_format=L16))
    path.attach(0, stream)
    outbox = Outbox()

    def fills(n_samples: int) -> list[int]:
        stream.play(bytes(n_samples))
        return [event.value for event in path.take_events() if event.kind == EventKind.FILL]

    def play_out(n_frames: int) -> None:
        for _ in range(n_frames):
            outbox.reset()
            path.tick(path.deadline, outbox)

    assert fills(2399) == []
    assert fills(1) == [30]
    play_out(5)  # to 20 %: not yet low enough to count again
    assert fills(800) == []
    play_out(6)  # to 18 %
    assert fills(8000 - 1440) == [30, 60, 90]
    path.close()


def test_audio_of_another_format_is_played_as_it_is() -> None:
    stream = platform(pool())
    law = pcmu_encode(np.arange(-8000, 8000, 100, dtype=np.int16))
    stream.receive_audio(bytes(law), 0)
    alaw = bytes(range(160))
    stream.receive_audio(alaw, 0, media_format=PCMA)
    linear = np.arange(160, dtype=np.int16) * 100
    stream.receive_audio(linear.astype(">i2").tobytes(), 0, media_format=MediaFormat("L16", 8000, big_endian=True))
    heard = np.frombuffer(drain(stream, L16), np.int16)
    np.testing.assert_array_equal(heard, np.concatenate([pcmu_decode(law), pcma_decode(alaw), linear]))
    with pytest.raises(FormatError):
        stream.receive_audio(b"ab", 0, media_format=MediaFormat("L16", 44100))


def test_configurations_that_cannot_work() -> None:
    with pytest.raises(ConfigError):
        platform(pool(), templates=(None, None))
    with pytest.raises(ConfigError):
        platform(pool(), reserve_ms=2, bound_ms=1)
    with pytest.raises(ConfigError):
        platform(pool(), message_ms=0)
    with pytest.raises(FormatError):
        platform(pool(), MediaFormat("PCMU", 11025))
    with pytest.raises(CallEnded) as refused:
        platform(Pool(12 * 1028))
    assert refused.value.reason is EndReason.NO_CAPACITY


def test_a_refused_stream_leaves_the_pool_as_it_was() -> None:
    small = Pool(12 * 1028)
    with pytest.raises(CallEnded):
        platform(small)
    assert (small.statistics().n_free, small.statistics().n_reserved) == (12, 0)
    platform(small, reserve_ms=500).close(0)
    assert (small.statistics().n_free, small.statistics().n_reserved) == (12, 0)


# The application's role.


def test_a_line_hears_both_tracks() -> None:
    line = application(pool(), masked=True)
    line.set_track(Track.INBOUND, 400)
    wire = b"".join(frame(media_text(bytes([i]) * 160, chunk=i)) for i in range(1, 4))
    wire += frame(media_text(b"\x80" * 80, "outbound"))
    assert feed(line, wire, [100, 300]) == ([], 0)
    assert [(e.kind, e.value) for e in line.take_events()] == [(EventKind.AUDIO, Track.INBOUND | Track.OUTBOUND)]
    assert line.take_events() == []
    written = [lib.tp_stream_track_written(line.native, track) for track in (1, 2)]
    assert written == [480, 80]
    assert read_ring(line, Track.INBOUND, 0, 1000) == (80, b"\x01" * 80 + b"\x02" * 160 + b"\x03" * 160)
    assert read_ring(line, Track.INBOUND, 470, 5) == (470, b"\x03" * 5)
    assert read_ring(line, Track.INBOUND, 480, 5) == (480, b"")
    assert read_ring(line, Track.OUTBOUND, 0, 5) == (80, b""), "nobody listened: nothing was kept"
    line.set_track(Track.OUTBOUND, 400)
    feed(line, frame(media_text(b"\x81" * 10, "outbound")), [])
    assert read_ring(line, Track.OUTBOUND, 0, 1000) == (80, b"\x81" * 10)


def read_ring(line: Stream, track: Track, start: int, n: int) -> tuple[int, bytes]:
    out = ffi.new("uint8_t[]", 4096)
    at = ffi.new("uint64_t *", start)
    got = lib.tp_stream_track_read(line.native, track, out, 4096, at, n)
    sample_bytes = 1 if line._config.format.encoding in (1, 2) else 2
    return at[0], bytes(ffi.buffer(out, got * sample_bytes))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=12), st.integers(0, 1500), st.integers(1, 900))
def test_a_ring_keeps_the_newest(lengths: list[int], start: int, n: int) -> None:
    line = application(pool(), L16)
    line.set_track(Track.INBOUND, 2 * 500)
    audio = np.arange(sum(lengths), dtype=np.int16)
    at = 0
    for length in lengths:
        line.receive_audio(audio[at : at + length].tobytes(), 0)
        at += length
    begin = max(start, at - 500, 0)
    assert read_ring(line, Track.INBOUND, start, n) == (begin, audio[begin : begin + n].tobytes())


class Sender:
    """A line that plays, and what it sent when."""

    def __init__(self, media_format: MediaFormat = PCMU, **options: Any) -> None:
        self.line = application(pool(), media_format, **options)
        self.outbox = Outbox()
        self.sent: list[tuple[int, bytes]] = []
        self.due: list[tuple[int, int]] = []

    def tick(self, now: int) -> None:
        while True:
            flags = self.line.tick(0, now, self.outbox)
            self.sent += [(now, read_media(output.bytes)["payload"]) for output in self.outbox]
            self.outbox.reset()
            due = [event for event in self.line.take_events() if event.kind == EventKind.MARK_DUE]
            assert bool(due) == bool(flags & Tick.MARK_DUE)
            self.due += [(event.id, sum(len(payload) for _, payload in self.sent)) for event in due]
            if not due:
                return


def test_a_line_sends_ahead_and_no_further() -> None:
    sender = Sender(send_ahead_ms=500)
    audio = bytes(i % 255 for i in range(8000))
    sender.line.play(audio)
    sender.tick(0)
    assert [len(payload) for _, payload in sender.sent] == [1600, 1600], "a third 200 ms would be 600 ms ahead"
    assert sender.line.next_deadline() == 100 * MS
    sender.tick(100 * MS - 1)
    assert len(sender.sent) == 2
    sender.tick(sender.line.next_deadline())
    assert [len(payload) for _, payload in sender.sent] == [1600] * 3
    while sender.line.queued_samples:
        sender.tick(sender.line.next_deadline())
    assert b"".join(payload for _, payload in sender.sent) == audio
    assert sender.line.next_deadline() == NEVER
    assert lib.tp_stream_model_played(sender.line.native, 100 * MS) == 800
    assert lib.tp_stream_model_played(sender.line.native, 2000 * MS) == 8000


def test_what_may_be_ahead_bounds_the_message_too() -> None:
    sender = Sender(send_ahead_ms=30)
    sender.line.play(bytes(8000))
    now = 0
    while sender.line.queued_samples:
        sender.tick(now)
        n_sent = sum(len(payload) for _, payload in sender.sent)
        assert n_sent - lib.tp_stream_model_played(sender.line.native, now) <= 240
        now = sender.line.next_deadline()
    assert {len(payload) for _, payload in sender.sent} == {240, 160, 80}
    assert sender.sent[-1][0] == 970 * MS, "and nothing is held back"


def test_a_short_rest_goes_as_it_is() -> None:
    sender = Sender()
    sender.line.play(bytes(400))
    sender.tick(0)
    assert [len(payload) for _, payload in sender.sent] == [160, 160, 80]


def test_a_mark_falls_due_when_all_before_it_is_written() -> None:
    sender = Sender(send_ahead_ms=100)
    sender.line.mark(1)
    sender.line.play(bytes(1000))
    sender.line.mark(2)
    sender.line.mark(3)
    sender.line.play(bytes(100))
    sender.line.mark(4)
    sender.tick(0)
    assert sender.due == [(1, 0)]
    now = 0
    while sender.line.next_deadline() != NEVER:
        now = sender.line.next_deadline()
        sender.tick(now)
    assert sender.due == [(1, 0), (2, 1000), (3, 1000), (4, 1100)]
    assert sender.line.take_events() == [], "outcomes of marks that were sent are the wire's business"


def test_a_clear_recalls_what_was_not_sent() -> None:
    sender = Sender(send_ahead_ms=100)
    sender.line.mark(1)
    sender.line.play(bytes(8000))
    sender.line.mark(2)
    sender.tick(0)
    n_sent = sum(len(payload) for _, payload in sender.sent)
    assert sender.line.clear(77) == 8000 - n_sent
    assert sender.line.take_events() == [Event(EventKind.MARK, 0, 77, 2, MarkOutcome.CLEARED)]
    assert lib.tp_stream_model_played(sender.line.native, 0) == n_sent
    sender.line.play(bytes(160))
    sender.tick(1)
    assert sender.sent[-1] == (1, bytes(160)), "the far end has nothing left: it goes at once"


def test_no_room_and_then_room_gives_the_same_bytes() -> None:
    big, small = Sender(), Sender()
    audio = bytes(i % 253 for i in range(7777))
    for sender in (big, small):
        sender.line.play(audio)
    small.outbox = Outbox(400, 4)
    assert small.line.tick(0, 0, small.outbox) == -2
    assert small.line.queued_samples == 7777
    small.outbox = Outbox(3000, 4)
    big.tick(0)
    for _ in range(6):
        small.tick(0)
    assert small.sent == big.sent


def kinds(line: Stream) -> list[int]:
    return [event.kind for event in line.take_events()]


def test_a_short_queue_is_told_once() -> None:
    sender = Sender(send_ahead_ms=100)
    line = sender.line
    line.play(bytes(1600))
    line.want_low(800)
    assert not line.take_events(), "only what shortens the queue tells"
    sender.tick(0)
    assert line.queued_samples == 800
    assert not sender.line.take_events(), "fewer than 800"
    now = line.next_deadline()
    assert line.tick(0, now, sender.outbox) & Tick.EVENTS
    assert kinds(line) == [EventKind.LOW]
    assert not line.tick(0, line.next_deadline(), sender.outbox) & Tick.EVENTS, "once"
    line.want_low(100)
    line.want_low(0)
    line.clear(0)
    assert kinds(line) == []
    line.play(bytes(1600))
    line.want_low(1)
    line.clear(0)
    assert kinds(line) == [EventKind.LOW]
    line.want_low(1)
    line.tick(0, now, sender.outbox)
    line.want_low(0)
    assert kinds(line) == [], "what is no longer wanted is taken back"


def test_an_alarm_is_a_deadline_and_is_told_once() -> None:
    line = application(pool())
    outbox = Outbox()
    line.set_alarm(70 * MS)
    assert line.next_deadline() == 70 * MS
    assert line.tick(0, 70 * MS - 1, outbox) == 0
    assert line.tick(0, 71 * MS, outbox) == Tick.EVENTS
    assert (kinds(line), line.next_deadline()) == ([EventKind.ALARM], NEVER)
    assert line.tick(0, 80 * MS, outbox) == 0
    line.set_alarm(500 * MS)
    line.play(bytes(160))
    assert line.next_deadline() == 80 * MS, "what is to be sent comes first"
    line.tick(0, 80 * MS, outbox)
    line.pause()
    assert line.next_deadline() == 500 * MS, "time goes on in a pause"
    line.set_alarm(NEVER)
    assert line.tick(0, 600 * MS, outbox) == 0
    line.set_alarm(700 * MS)
    line.close(0)
    line.set_alarm(0)
    assert line.next_deadline() == NEVER
    assert line.tick(0, 800 * MS, outbox) == 0


def test_audio_is_told_once_there_is_as_much_as_was_asked_for() -> None:
    line = application(pool())
    for n_written, wake_at, told in [(160, 0, True), (320, 480, False), (480, 480, True), (640, 480, True)]:
        line.wake_at(Track.INBOUND, wake_at)
        line.take_events()
        assert line.receive_message(media_text(bytes(160)), 0)
        assert lib.tp_stream_track_written(line.native, Track.INBOUND) == n_written
        assert kinds(line) == [EventKind.AUDIO] * told
    line.wake_at(Track.INBOUND, 640)
    assert line.take_events() == [Event(EventKind.AUDIO, 0, 0, 0, Track.INBOUND)], "it is there already"
    line.wake_at(Track.INBOUND, 640)
    line.wake_at(Track.INBOUND, 641)
    assert not lib.tp_stream_has_events(line.native), "what is no longer due is taken back"
    line.wake_at(Track.INBOUND, (1 << 64) - 1)
    line.receive_message(media_text(bytes(16000)), 0)
    assert kinds(line) == []
    line.receive_message(media_text(bytes(160), "outbound"), 0)
    assert [event.value for event in line.take_events()] == [Track.OUTBOUND], "each track for itself"
    with pytest.raises(ConfigError):
        platform(pool()).wake_at(Track.INBOUND, 0)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.one_of(st.integers(1, 500), st.none()), max_size=40),
    st.integers(1, 300),
    st.integers(0, 300),
)
def test_a_reader_gets_whole_pieces_and_loses_its_oldest(steps: list[int | None], n_piece: int, slack: int) -> None:
    """Against a model that keeps everything ever written. None: the reader reads what it can."""
    line = application(pool())
    bound = n_piece + slack
    line.set_track(Track.INBOUND, bound + 600)
    written = b""
    at = 0
    cursor = ffi.new("uint64_t *", 0)
    out = ffi.new("uint8_t[]", n_piece)
    for step in [*steps, None]:
        if step is not None:
            audio = bytes((len(written) + i) * 31 % 251 for i in range(step))
            written += audio
            line.receive_audio(audio, 0)
            # A reader that lags by more than the ring holds is not one of a line's: its bound is shorter than the ring.
            if len(written) - at <= bound + 600 - 500:
                continue
        while True:
            lost = lib.tp_stream_track_next(line.native, Track.INBOUND, out, n_piece, cursor, n_piece, bound)
            if len(written) - at < n_piece:
                assert lost == -5
                assert cursor[0] == at
                break
            expected = max(0, len(written) - at - bound)
            at += expected
            assert lost == expected
            assert bytes(out) == written[at : at + n_piece]
            at += n_piece
            assert cursor[0] == at


def test_a_reader_beyond_its_ring_or_its_room_is_refused() -> None:
    line = application(pool())
    cursor = ffi.new("uint64_t *", 0)
    out = ffi.new("uint8_t[]", 100)
    line.set_track(Track.INBOUND, 200)
    line.receive_audio(bytes(1000), 0)
    assert lib.tp_stream_track_next(line.native, Track.INBOUND, out, 100, cursor, 100, 500) == -1
    assert lib.tp_stream_track_next(line.native, Track.INBOUND, out, 99, cursor, 100, 100) == -1
    assert cursor[0] == 0
    assert lib.tp_stream_track_next(line.native, Track.INBOUND, out, 100, cursor, 100, 100) == 900


def test_a_pause_holds_the_line() -> None:
    sender = Sender()
    sender.line.play(bytes(160))
    sender.line.pause()
    sender.tick(0)
    assert (sender.sent, sender.line.next_deadline()) == ([], NEVER)
    sender.line.pause(False)
    sender.tick(5)
    assert sender.sent == [(5, bytes(160))]


def test_a_line_converts_encodings_and_refuses_rates() -> None:
    sender = Sender()
    pcm = np.arange(-500, 500, dtype=np.int16) * 30
    sender.line.play(pcm.tobytes(), media_format=L16)
    sender.tick(0)
    assert b"".join(payload for _, payload in sender.sent) == bytes(pcmu_encode(pcm))
    with pytest.raises(FormatError):
        sender.line.play(pcm.tobytes(), media_format=L16_16K)


def test_without_framing_the_text_stands_alone() -> None:
    line = application(pool(), websocket=False, masked=True)
    line.play(bytes(range(160)))
    outbox = Outbox()
    line.tick(0, 0, outbox)
    (text,) = [bytes(output.bytes) for output in outbox]
    assert base64.b64decode(json.loads(text)["media"]["payload"]) == bytes(range(160))
    assert line.counters()["bytes_out"] == len(text)


def test_masks_come_from_the_seed() -> None:
    def keys(seed: int) -> list[bytes]:
        line = application(pool(), masked=True, mask_seed=seed)
        line.play(bytes(480))
        outbox = Outbox()
        line.tick(0, 0, outbox)
        return [bytes(output.bytes)[4:8] for output in outbox]

    assert keys(1) == keys(1)
    assert len(set(keys(1) + keys(2))) == 6


def test_base64_in_the_test_is_what_the_stream_reads() -> None:
    stream = platform(pool())
    for n in (1, 2, 3, 6143, 6144, 6145, 12288, 12289):
        audio = bytes(i * 7 % 256 for i in range(n))
        before = stream.queued_samples
        assert base64.b64decode(json.loads(play_text(audio))["media"]["payload"]) == audio
        assert stream.receive_message(play_text(audio), 0)
        assert stream.queued_samples == before + n
