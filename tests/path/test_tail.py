"""What was sent and not played is sent again: the native stream's tail against a far end that plays by the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_wire import MS, application, platform, read_media

from talkpath._native import lib
from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import NEVER, MarkOutcome, Stream, Tick

FORMATS = [MediaFormat("PCMU", 8000), MediaFormat("L16", 16000)]


class FarEnd:
    """Plays gap-free from arrival, in whole samples; a hold takes what it has not played away."""

    def __init__(self, media_format: MediaFormat) -> None:
        self.rate = media_format.sample_rate_hz
        self.size = media_format.sample_bytes
        self.heard = b""
        self.queue = b""
        self.ends_ns = 0

    def play_until(self, now: int) -> None:
        left = max(0, -(-(self.ends_ns - now) * self.rate // 1_000_000_000))
        played = len(self.queue) - left * self.size
        self.heard += self.queue[:played]
        self.queue = self.queue[played:]

    def take(self, payload: bytes, now: int) -> None:
        self.play_until(now)
        begin = max(now, self.ends_ns)
        self.queue += payload
        self.ends_ns = begin + len(payload) // self.size * 1_000_000_000 // self.rate

    def clear(self, now: int) -> None:
        self.play_until(now)
        self.queue = b""
        self.ends_ns = now


def tick(stream: Stream, far: FarEnd, now: int) -> None:
    while True:
        outbox = Outbox()
        flags = stream.tick(0, now, outbox)
        for output in outbox:
            far.take(read_media(output.bytes)["payload"], now)
        if not flags & Tick.MARK_DUE:
            return
        stream.take_events()


step = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 3000)),
    st.tuples(st.just("pass"), st.integers(1, 700)),
    st.tuples(st.just("hold"), st.integers(0, 400)),
    st.tuples(st.just("mark"), st.just(0)),
    st.tuples(st.just("clear"), st.booleans()),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(FORMATS), st.sampled_from([40, 500, 2000]), st.lists(step, max_size=25))
def test_no_sample_is_lost_or_doubled(media_format: MediaFormat, ahead_ms: int, steps: list[tuple[str, int]]) -> None:
    rate, size = media_format.sample_rate_hz, media_format.sample_bytes
    pool = Pool(1 << 21)
    stream = application(pool, media_format, send_ahead_ms=ahead_ms)
    stream.keep_tail((ahead_ms + 500) * rate // 1000 * size)
    far = FarEnd(media_format)
    chance = np.random.default_rng(len(steps))
    said, now = b"", 0
    for what, number in [*steps, ("pass", 20_000)]:
        if what == "say":
            payload = chance.bytes(number * size)
            said += payload
            assert stream.play(payload) == number
        elif what == "mark":
            stream.mark(1)
        elif what == "pass":
            for _ in range(0, number, 5):
                tick(stream, far, now)
                now += 5 * MS
        elif what == "hold":
            lib.tp_stream_hold(stream.native, 1, now)
            far.clear(now)
            again = int(lib.tp_stream_rewind(stream.native))
            assert again <= (ahead_ms + 200) * rate // 1000
            assert len(far.heard) + stream.queued_samples * size == len(said)
            for _ in range(0, number, 5):
                tick(stream, far, now)
                now += 5 * MS
            assert far.queue == b"", "held"
            lib.tp_stream_hold(stream.native, 0, now)
        else:
            if number:
                lib.tp_stream_hold(stream.native, 1, now)
                lib.tp_stream_rewind(stream.native)
            far.clear(now)
            stream.clear(0)
            said = far.heard
            assert stream.queued_samples == 0
    assert stream.queued_samples == 0
    far.play_until(now + 10**12)
    assert far.heard == said
    assert all(event.value == MarkOutcome.CLEARED for event in stream.take_events() if event.kind == 2)
    stream.close(0)
    assert pool.native.n_free == pool.native.n_blocks


def test_without_a_tail_nothing_is_taken_back() -> None:
    stream = application(Pool(1 << 20))
    stream.play(bytes(800))
    stream.tick(0, 0, Outbox())
    lib.tp_stream_hold(stream.native, 1, 0)
    assert lib.tp_stream_rewind(stream.native) == 0
    assert stream.queued_samples == 0
    assert stream.next_deadline() == NEVER


def test_a_tail_is_the_applications_and_holds_a_message() -> None:
    with pytest.raises(ConfigError):
        platform(Pool(1 << 20)).keep_tail(16_000)
    stream = application(Pool(1 << 20))
    with pytest.raises(ConfigError):
        stream.keep_tail(100)
    stream.keep_tail(16_000)
    stream.keep_tail(10)  # there is one
