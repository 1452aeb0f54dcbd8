"""The jitter buffer under a caller that stretches, against a model: where in the sender's audio each frame must begin.

Every sample sent is an octet of a sequence in which any 16 in a row occur once, so where a frame came from can be read
off it.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath._native import ffi, lib

MS = 1_000_000
AUDIO, PARTIAL, MISSING, SILENCE = 1, 2, 3, 4
SOURCE = random.Random(1).randbytes(8 * 20 * 400)


@dataclass
class Turn:
    """What one get() gave and what was done about it."""

    kind: int
    payload: bytes
    missing: tuple[int, int]
    skipped_ms: int
    inserted_ms: int
    wanted: int
    moved: int
    following: bytes | None


class Buffer:
    def __init__(self, ptime_ms: int = 20, *, stretches: int = 1, min_ms: int = 20, max_ms: int = 200) -> None:
        config = ffi.new("tp_jitter_config *", (8000, 8, min_ms, max_ms, ptime_ms, stretches))
        self.ring = ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * 8)
        self.state = ffi.new("tp_jitter *")
        assert lib.tp_jitter_init(self.state, config, self.ring, len(self.ring)) == 0
        self.ptime_ms = ptime_ms
        self.frame, self.out = ffi.new("tp_jitter_frame *"), ffi.new("uint8_t[]", 8 * ptime_ms)

    def put(self, seq: int, at_sample: int, n: int, now: int) -> None:
        payload = SOURCE[at_sample : at_sample + n]
        lib.tp_jitter_put(self.state, seq & 0xFFFF, (at_sample + 0xFFFFFF00) & 0xFFFFFFFF, 0, payload, n, now)

    def peek(self) -> bytes | None:
        n = 8 * self.ptime_ms
        ahead = ffi.new("uint8_t[]", n)
        return bytes(ahead) if lib.tp_jitter_peek(self.state, ahead, n) == n else None

    def turn(self, now: int, rng: random.Random) -> Turn:
        frame = self.frame
        lib.tp_jitter_get(self.state, frame, self.out, now)
        wanted, moved = frame.wanted_samples, 0
        following = self.peek() if frame.following else None
        if wanted:
            # As a voice would have it: some period or other, not more than is there, or nothing.
            most = min(abs(wanted), 8 * self.ptime_ms)
            moved = rng.choice((0, min(most, 20), rng.randint(0, most))) * (1 if wanted > 0 else -1)
            assert lib.tp_jitter_stretched(self.state, moved) == 0
        return Turn(
            frame.kind,
            bytes(self.out) if frame.kind <= PARTIAL else b"",
            (frame.missing_first_ms, frame.missing_ms),
            frame.skipped_ms,
            frame.inserted_ms,
            wanted,
            moved,
            following,
        )


@given(
    st.integers(0, 1 << 30),
    st.sampled_from((10, 20, 30, 60)),
    st.sampled_from((10, 20, 30)),
    st.sampled_from((0, 10, 40, 90)),
    st.sampled_from((0.0, 0.05)),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_every_frame_begins_where_the_last_one_and_its_stretching_left_off(
    seed: int, packet_ms: int, ptime_ms: int, jitter_ms: int, loss: float
) -> None:
    rng = random.Random(seed)
    n_packets = 6000 // packet_ms
    # In the order of sending: what overtakes what is test_jitter's.
    times = itertools.accumulate((i * packet_ms * MS + rng.randint(0, jitter_ms * MS) for i in range(n_packets)), max)
    arrivals = [(at, i) for i, at in enumerate(times) if rng.random() >= loss]
    buffer, n, position, k = Buffer(ptime_ms), 8 * ptime_ms, None, 0
    state, removed, repeated, emitted = buffer.state, 0, 0, 0
    for now in range(7 * MS, 6400 * MS, ptime_ms * MS):
        while k < len(arrivals) and arrivals[k][0] <= now:
            at, i = arrivals[k]
            buffer.put(i, i * packet_ms * 8, packet_ms * 8, at)
            k += 1
        turn = buffer.turn(now, rng)
        removed += max(turn.moved, 0)
        repeated += max(-turn.moved, 0)
        if turn.skipped_ms and position is not None:
            position += 8 * turn.skipped_ms
        if turn.kind == AUDIO:
            begins = SOURCE.index(turn.payload[:16])
            assert SOURCE[begins : begins + n] == turn.payload
            if position is None:
                position = begins
            assert begins == position
            position += n + turn.moved
        elif turn.kind == PARTIAL:
            first, missing = turn.missing
            assert 0 < missing < ptime_ms
            assert first + missing <= ptime_ms
            if position is not None:
                good = turn.payload[: 8 * first] + turn.payload[8 * (first + missing) :]
                source = SOURCE[position : position + n]
                assert good == source[: 8 * first] + source[8 * (first + missing) :]
                # Behind what there was, or behind the frame.
                position = position + n if not turn.inserted_ms else None
            assert turn.inserted_ms in (0, missing)
        elif turn.kind == MISSING and not turn.inserted_ms:
            position = None if position is None else position + n
        else:
            # Nothing was there: where it goes on depends on what comes.
            position = None
        emitted += turn.kind == AUDIO
        if turn.following is not None and turn.kind == AUDIO and position is not None and not turn.moved:
            assert SOURCE[position : position + n] == turn.following
        assert turn.wanted == 0 or turn.kind == AUDIO
    assert (state.removed_samples, state.repeated_samples) == (removed, repeated)
    assert emitted > 0


def run(buffer: Buffer, delays_ms: list[float], *, obey: int = 60) -> list[tuple[float, int, int]]:
    """20 ms packets with those delays; (delay, wanted, urgency) of each turn, obeyed by a period at most."""
    arrivals = sorted((round((i * 20 + delay) * MS), i) for i, delay in enumerate(delays_ms))
    k, seen = 0, []
    for now in range(7 * MS, len(delays_ms) * 20 * MS, 20 * MS):
        while k < len(arrivals) and arrivals[k][0] <= now:
            at, i = arrivals[k]
            buffer.put(i, i * 160 % (len(SOURCE) - 160), 160, at)
            k += 1
        lib.tp_jitter_get(buffer.state, buffer.frame, buffer.out, now)
        wanted = buffer.frame.wanted_samples
        if wanted:
            done = min(wanted, obey) if wanted > 0 else max(wanted, -obey)
            assert lib.tp_jitter_stretched(buffer.state, done) == 0
        position = (buffer.state.playout_timestamp - 0xFFFFFF00) & 0xFFFFFFFF
        seen.append(((now + 20 * MS) / MS - position / 8, wanted, buffer.frame.urgency))
    return seen


def test_delay_comes_down_in_pieces_and_ends_at_a_packets_border() -> None:
    rng = random.Random(2)
    delays = [rng.random() * 70 if i < 100 else 0.0 for i in range(390)]
    seen = run(Buffer(), delays)
    assert max(delay for delay, *_ in seen[50:100]) >= 60
    assert seen[-1][:2] == (27.0, 0)
    falls = [before - after for (before, *_), (after, *_) in itertools.pairwise(seen[110:])]
    assert max(falls) <= 8, "one period at a time, told to the ms"


def test_who_refuses_is_asked_again_and_more_urgently() -> None:
    rng = random.Random(2)
    buffer = Buffer()
    seen = run(buffer, [rng.random() * 70 if i < 100 else 0.0 for i in range(390)], obey=0)
    urgencies = [urgency for _, wanted, urgency in seen[110:] if wanted]
    assert urgencies == sorted(urgencies)
    assert set(urgencies) == {0, 1, 2, 3}
    assert (buffer.state.removed_samples, seen[-1][0]) == (0, seen[110][0])


def test_what_cannot_be_is_refused_and_changes_nothing() -> None:
    buffer = Buffer()
    for i in range(3):
        buffer.put(i, 160 * i, 160, i * 20 * MS)
    rng = random.Random(5)
    assert lib.tp_jitter_stretched(buffer.state, -8) < 0, "nothing was got yet"
    assert buffer.turn(67 * MS, rng).kind == AUDIO
    before = buffer.state.playout_timestamp
    assert lib.tp_jitter_stretched(buffer.state, 160 * 4) < 0
    assert lib.tp_jitter_stretched(buffer.state, -161) < 0
    assert buffer.state.playout_timestamp == before
    assert lib.tp_jitter_stretched(buffer.state, -160) == 0
    assert math.isclose(buffer.state.repeated_samples, 160)


@pytest.mark.parametrize("bytes_per_ms", [1, 7, 12])
def test_samples_that_are_no_whole_bytes_cannot_be_stretched(bytes_per_ms: int) -> None:
    config = ffi.new("tp_jitter_config *", (8000, bytes_per_ms, 20, 200, 20, 1))
    ring = ffi.new("uint8_t[]", lib.TP_JITTER_SPAN_MS * bytes_per_ms)
    assert lib.tp_jitter_init(ffi.new("tp_jitter *"), config, ring, len(ring)) < 0
