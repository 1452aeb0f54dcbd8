"""Both tracks on one sample clock: exact to the sample after an hour with stalls on all sides."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.path.path import LegKind, OutputKind, Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import Stream, StreamOptions, Track
from talkpath.path.tape import Tape
from talkpath.wire.dialect import Role

MS = 1_000_000
HOUR_NS = 3_600_000 * MS
RATE_HZ = 8000
PTIME_MS = 20
FRAME = RATE_HZ * PTIME_MS // 1000
L16 = MediaFormat("L16", RATE_HZ)

Marks = list[tuple[int, int]]
"""(sample of the track, value) of all that is not silence."""


def marks_of(samples: npt.NDArray[np.int16], first: int) -> Marks:
    at = np.flatnonzero(samples)
    return [(first + int(i), int(samples[i])) for i in at]


def test_an_hour_with_stalls_of_driver_caller_and_application_is_exact() -> None:
    """The truth is time itself: a tick that was due at t moves the samples from t on, whatever was missed before.

    What the caller says goes in with the tick and is expected at its time; what the caller hears is taken from the
    leg's output and expected at the time of the tick that put it out.
    """
    chance = random.Random(11)
    pool = Pool(1 << 20)
    path = Path(pool, PathOptions(leg=LegKind.PCM, media_format=L16, ptime_ms=PTIME_MS))
    stream = Stream(
        pool,
        StreamOptions(role=Role.PLATFORM, media_format=L16, tracks=Track(0), bound_ms=40_000),
        leg_rate_hz=RATE_HZ,
    )
    path.attach(0, stream)
    tape = Tape(4 * RATE_HZ)
    path.record(tape)
    outbox = Outbox()
    said, heard = Marks(), Marks()
    recorded: tuple[Marks, Marks] = ([], [])
    now = read_at = 0
    quiet_until = unspoken_until = 0
    n_holes = 0

    def read() -> None:
        first = tape.at_sample
        pairs, lost = tape.read(4 * RATE_HZ)
        assert lost == 0
        assert tape.at_sample == first + len(pairs)
        for track in (0, 1):
            recorded[track].extend(marks_of(pairs[:, track], first))

    while now < HOUR_NS:
        what = chance.random()
        if what < 0.0005:  # the driver comes too late, by little or by much
            missed = chance.choice([1, 2, 3, 4, 10, 50, 140])
            n_holes += missed > 3
            now += missed * PTIME_MS * MS + chance.randrange(19 * MS)
        elif what < 0.001:
            quiet_until = now + chance.randrange(8000) * MS
        elif what < 0.0015:
            unspoken_until = now + chance.randrange(8000) * MS
        if what > 0.9 and now >= unspoken_until:  # the application: bursts, of which the last samples are marked
            burst = np.zeros(chance.randrange(1, 700), np.int16)
            burst[-1] = chance.randrange(1, 20000)
            stream.play(burst.tobytes(), media_format=L16)
        while path.deadline <= now:
            mark = chance.randrange(FRAME) if chance.random() < 0.2 and now >= quiet_until else None
            value = -chance.randrange(1, 20000)
            if mark is not None:
                frame = np.zeros(FRAME, np.int16)
                frame[mark] = value
                path.receive_pcm(frame, now)
            path.tick(now, outbox)
            due = path.deadline - PTIME_MS * MS  # of the tick that has just been
            first = due * RATE_HZ // 1_000_000_000
            if mark is not None:
                said.append((first + mark, value))
            for output in outbox:
                assert output.kind == OutputKind.PCM
                pcm = np.frombuffer(output.bytes, np.int16)
                if pcm.any():
                    heard.extend(marks_of(pcm, first))
            outbox.reset()
            path.take_events()
        if now - read_at >= 1000 * MS:
            read_at = now
            read()
        now += PTIME_MS * MS
    read()
    assert n_holes > 20
    assert min(len(said), len(heard)) > 5_000
    assert recorded[0] == said
    assert recorded[1] == heard
    assert tape.at_sample == path.clock == path.deadline * RATE_HZ // 1_000_000_000


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), capacity=st.integers(1, 50), begin=st.integers(0, 1000))
def test_a_ring_keeps_the_newest_and_says_what_is_lost(data: st.DataObject, capacity: int, begin: int) -> None:
    tape = Tape(capacity, begin)
    written = dict[int, tuple[int, int]]()
    clock, value = begin, 0
    for _ in range(data.draw(st.integers(1, 12))):
        clock += data.draw(st.sampled_from([0, 0, 3, 70]))
        n = data.draw(st.integers(0, 80))
        left = np.arange(value, value + n).astype(np.int16)
        value += n
        lib.tp_tape_write(
            tape.native, clock, ffi.from_buffer("int16_t[]", left), ffi.from_buffer("int16_t[]", -left), n
        )
        written |= {clock + i: (int(x), -int(x)) for i, x in enumerate(left)}
        clock += n
        if data.draw(st.booleans()):
            first, most = tape.at_sample, data.draw(st.integers(0, 100))
            pairs, lost = tape.read(most)
            assert lost == max(0, clock - capacity - first)
            assert len(pairs) == min(most, clock - first - lost)
            expected = [written.get(first + lost + i, (0, 0)) for i in range(len(pairs))]
            assert [tuple(pair) for pair in pairs.tolist()] == expected


def test_a_tape_has_room() -> None:
    with pytest.raises(ConfigError):
        Tape(0)
