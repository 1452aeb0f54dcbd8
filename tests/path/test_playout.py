"""The queues of a call's sources against a model: what is heard, and when each mark is settled, to the sample."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.dsp.mix import Limiter
from talkpath.dsp.resample import Resampler
from talkpath.events import MediaFormat
from talkpath.path.path import Direction, LegKind, OutputKind, Path, PathOptions
from talkpath.path.pool import Outbox, Pool
from talkpath.path.stream import (
    KNOWN_RATES_HZ,
    MAX_PENDING_MARKS,
    Event,
    EventKind,
    MarkOutcome,
    Stream,
    StreamOptions,
    Track,
)
from talkpath.wire.dialect import Role

PLAYED, CLEARED, LOST = MarkOutcome.PLAYED, MarkOutcome.CLEARED, MarkOutcome.LOST
PTIME_NS = 20_000_000


@dataclass
class Model:
    """One source, one sample at a time. `clock` is of the outbound track; a run lasts from silence to silence."""

    leg_hz: int
    audio: deque[tuple[int, int]] = field(default_factory=deque)  # (rate, sample)
    marks: list[tuple[int, int]] = field(default_factory=list)  # (queue position, id)
    due: dict[int, int] = field(default_factory=dict)  # id -> sample of the run
    outcomes: dict[int, tuple[int, int]] = field(default_factory=dict)
    fifo: deque[int] = field(default_factory=deque)
    run: Resampler | None = None
    paused = dropped = False
    written = read = began = n_in = produced = end = 0

    def write(self, rate_hz: int, samples: list[int]) -> None:
        self.audio.extend((rate_hz, sample) for sample in samples)
        self.written += len(samples)

    def mark(self, mark: int, clock: int) -> None:
        if self.dropped:
            self.outcomes[mark] = (LOST, clock)
            self.dropped = False
        else:
            self.marks.append((self.written, mark))

    def stop(self, outcome: int, clock: int) -> None:
        self.outcomes |= dict.fromkeys([*self.due, *(mark for _, mark in self.marks)], (outcome, clock))
        self.audio, self.marks, self.due, self.fifo = deque(), [], {}, deque()
        self.run, self.read, self.produced, self.end, self.dropped = None, self.written, 0, 0, False

    def frame(self, clock: int, n: int, rests: bool) -> list[int]:
        heard = [0] * n
        self.reach(max(self.produced, self.end))
        passed = 0 if rests or self.paused else n
        if passed and self.run is None and self.audio:
            self.begin(0)
        if passed and self.run is not None:
            heard = [self.sample(at) for at in range(self.produced, self.produced + n)]
        for mark, at in list(self.due.items()):
            if at <= self.produced + (passed if self.run else 0):
                self.outcomes[mark] = (PLAYED, clock + at - self.produced)
                del self.due[mark]
        self.produced += passed if self.run else 0
        if not self.audio and self.end <= self.produced:
            self.run, self.produced, self.end = None, 0, 0
        return heard

    def reach(self, at: int) -> None:
        self.due |= {mark: at for position, mark in self.marks if position <= self.read}
        self.marks = [entry for entry in self.marks if entry[0] > self.read]

    def begin(self, at: int) -> None:
        self.run, self.began, self.end, self.n_in = Resampler(self.audio[0][0], self.leg_hz), at, at, 0
        self.fifo.clear()

    def sample(self, at: int) -> int:
        assert self.run is not None
        if self.audio and self.audio[0][0] != self.run.from_hz and at >= self.end:
            self.begin(at)
        while not self.fifo:
            has_audio = bool(self.audio) and self.audio[0][0] == self.run.from_hz
            sample = self.audio.popleft()[1] if has_audio else 0
            self.fifo.extend(self.run.process(np.array([sample], np.int16)).tolist())
            self.n_in += 1
            if has_audio:
                self.read += 1
                self.end = self.began - (-self.n_in * self.leg_hz // self.run.from_hz) + self.run.delay_samples
                self.reach(self.end)
        return self.fifo.popleft()


class Call:
    """A PCM leg with two sources, and the model of each beside it."""

    def __init__(self, leg_hz: int, *, pool_bytes: int = 1 << 20, bound_ms: int = 60_000, reserve_ms: int = 0) -> None:
        self.leg_hz = leg_hz
        self.n = leg_hz // 50
        self.pool = Pool(pool_bytes)
        self.leg_format = MediaFormat("L16", leg_hz)
        self.path = Path(self.pool, PathOptions(leg=LegKind.PCM, media_format=self.leg_format))
        self.outbox = Outbox(1 << 16, 64)
        options = StreamOptions(
            role=Role.PLATFORM,
            media_format=self.leg_format,
            tracks=Track(0),
            bound_ms=bound_ms,
            reserve_ms=reserve_ms,
        )
        self.streams = [Stream(self.pool, options, leg_rate_hz=leg_hz) for _ in range(2)]
        for i, stream in enumerate(self.streams):
            self.path.attach(i, stream)
        self.models = [Model(leg_hz) for _ in range(2)]
        self.limiter = Limiter(leg_hz)
        """Of the sum, while there is one, and for as long as it takes to let go."""
        self.outcomes: list[dict[int, tuple[int, int]]] = [{}, {}]
        self.now = 0
        self.clock = 0
        self.held = False
        self.n_marks = 0

    def write(self, i: int, rate_hz: int, samples: npt.NDArray[np.int16]) -> int:
        fmt = MediaFormat("L16", rate_hz)
        if rate_hz in KNOWN_RATES_HZ:
            taken = self.streams[i].receive_audio(samples.tobytes(), self.now, media_format=fmt)
        else:  # a wire's audio never has another rate, what a program plays may
            taken = self.streams[i].play(samples.tobytes(), media_format=fmt)
        self.models[i].write(rate_hz, samples[:taken].tolist())
        self.models[i].dropped |= taken < len(samples)
        return taken

    def mark(self, i: int) -> int:
        self.n_marks += 1
        assert self.streams[i].mark(self.n_marks)
        self.models[i].mark(self.n_marks, self.clock)
        return self.n_marks

    def clear(self, i: int) -> None:
        self.path.clear(i)
        self.models[i].stop(CLEARED, self.clock)

    def pause(self, i: int, paused: bool) -> None:
        self.streams[i].pause(paused)
        self.models[i].paused = paused

    def hold(self, held: bool) -> None:
        self.path.hold(Direction.RECEIVE if held else Direction.BOTH)
        self.held = held

    def stall(self, n_missed: int) -> None:
        self.now += n_missed * PTIME_NS
        self.clock += n_missed * self.n

    def tick(self) -> None:
        sounding = sum(not (model.paused or self.held) and bool(model.run or model.audio) for model in self.models)
        frames = [model.frame(self.clock, self.n, self.held) for model in self.models]
        expected = np.sum(np.array(frames), axis=0).astype(np.int32)
        if sounding == 0:
            self.limiter.reset()
        elif sounding > 1 or self.limiter.reduction_db:
            expected = self.limiter.process(expected)
        self.outbox.reset()
        self.path.tick(self.now, self.outbox)
        sent = [np.frombuffer(o.bytes, np.int16) for o in self.outbox if o.kind == OutputKind.PCM]
        if self.held:
            assert sent == []
        else:
            np.testing.assert_array_equal(sent[0], expected)
        self.now += PTIME_NS
        self.clock += self.n
        assert self.path.clock == self.clock
        self.gather(self.path.take_events())

    def gather(self, events: list[Event]) -> None:
        for event in events:
            if event.kind == EventKind.MARK:
                assert event.id not in self.outcomes[event.stream], "an outcome came twice"
                self.outcomes[event.stream][event.id] = (event.value, event.at_sample)

    def check(self) -> None:
        assert self.outcomes == [model.outcomes for model in self.models]

    def close(self) -> None:
        self.gather(self.path.close())
        for model in self.models:
            model.stop(LOST, self.clock)
        self.check()
        statistics = self.pool.statistics()
        assert (statistics.n_free, statistics.n_reserved) == (statistics.n_blocks, 0)


def noise(seed: int, n: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-32768, 32768, n).astype(np.int16)


SOURCE = st.sampled_from([0, 0, 0, 1])
LENGTH = st.one_of(st.integers(0, 40), st.sampled_from([159, 160, 161, 320, 508, 1016]), st.integers(0, 1500))
RATE = st.sampled_from([0, 8000, 16000, 16000, 24000, 48000, 11025, 22050, 44100])  # 0: the leg's own
PLAY = st.tuples(st.just("play"), SOURCE, RATE, LENGTH)  # write, mark
TICK = st.tuples(st.just("tick"), st.integers(1, 5))
MOSTLY_NOT = st.sampled_from([False, False, False, True])
RARE = st.one_of(
    st.tuples(st.just("mark"), SOURCE),
    st.tuples(st.just("write"), SOURCE, RATE, LENGTH),
    st.tuples(st.just("clear"), SOURCE),
    st.tuples(st.just("pause"), SOURCE, MOSTLY_NOT),
    st.tuples(st.just("hold"), MOSTLY_NOT),
    st.tuples(st.just("stall"), st.integers(4, 9)),
)
# What fails is mostly a pair of rare operations around a tick, so every list is a row of such triples.
OPERATIONS = st.lists(st.tuples(PLAY, RARE, TICK, RARE, TICK), min_size=3, max_size=10)


def run(call: Call, operations: list[tuple[tuple[object, ...], ...]], native_rate_only: bool) -> None:
    for seed, (what, *args) in enumerate(operation for row in operations for operation in row):
        match what, args:
            case "write" | "play", (int(i), int(rate_hz), int(n)):
                call.write(i, call.leg_hz if native_rate_only or not rate_hz else rate_hz, noise(seed, n))
                if what == "play":
                    call.mark(i)
            case "mark", (int(i),):
                call.mark(i)
            case "clear", (int(i),):
                call.clear(i)
            case "pause", (int(i), bool(paused)):
                call.pause(i, paused)
            case "hold", (bool(held),):
                call.hold(held)
            case "stall", (int(n),):
                call.stall(n)
                call.tick()
            case "tick", (int(n),):
                for _ in range(n):
                    call.tick()
    call.close()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(OPERATIONS, st.sampled_from([8000, 16000]))
def test_pass_through_is_exact(operations: list[tuple[tuple[object, ...], ...]], leg_hz: int) -> None:
    run(Call(leg_hz), operations, native_rate_only=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(OPERATIONS, st.sampled_from([8000, 16000, 24000, 48000]))
def test_resampled_is_exact(operations: list[tuple[tuple[object, ...], ...]], leg_hz: int) -> None:
    run(Call(leg_hz), operations, native_rate_only=False)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(OPERATIONS, st.integers(10, 14), st.sampled_from([30, 100, 5000]))
def test_exact_with_an_empty_pool(
    operations: list[tuple[tuple[object, ...], ...]], n_blocks: int, bound_ms: int
) -> None:
    run(Call(8000, pool_bytes=n_blocks * 1028, bound_ms=bound_ms), operations, native_rate_only=True)


def test_marks_at_the_edges_of_a_frame() -> None:
    call = Call(8000)
    first = call.mark(0)  # an empty, idle queue: the next frame's start
    call.write(0, 8000, noise(1, 160))
    second = call.mark(0)  # the frame's last sample belongs to it
    call.write(0, 8000, noise(2, 1))
    third = call.mark(0)
    call.tick()
    assert call.outcomes[0] == {first: (PLAYED, 0), second: (PLAYED, 160)}
    call.tick()
    assert call.outcomes[0][third] == (PLAYED, 161)
    call.close()


def test_a_resampled_mark_is_heard_behind_the_filter() -> None:
    call = Call(8000)
    delay = Resampler(16000, 8000).delay_samples
    call.write(0, 16000, noise(1, 101))
    mark = call.mark(0)
    call.tick()
    assert call.outcomes[0] == {mark: (PLAYED, 51 + delay)}
    call.write(0, 16000, noise(2, 320))  # a new run: the silence before it is whole frames
    late = call.mark(0)
    call.tick()
    assert late not in call.outcomes[0]
    call.tick()
    assert call.outcomes[0][late] == (PLAYED, 160 + 160 + delay)
    call.close()


def test_marks_never_need_a_block_that_audio_can_take() -> None:
    call = Call(8000, pool_bytes=10 * 1028)  # two sources of five reserved mark blocks: nothing is left for audio
    assert call.write(0, 8000, noise(1, 100)) == 0
    call.mark(0)  # LOST
    for i in range(2):
        for _ in range(MAX_PENDING_MARKS):
            call.mark(i)
    call.tick()
    call.check()
    call.close()


@pytest.mark.parametrize("n_before", [0, 1, 63, 64, 150])
def test_at_most_256_marks_are_pending(n_before: int) -> None:
    call = Call(8000)
    for _ in range(n_before):
        call.mark(0)
    call.clear(0)  # their outcomes are not read yet and stand in nobody's way
    call.write(0, 8000, noise(1, 320))
    for _ in range(MAX_PENDING_MARKS):
        call.mark(0)
    assert not call.streams[0].mark(-1)
    assert call.streams[0].counters()["marks_refused"] == 1
    call.tick()
    call.tick()
    call.check()
    call.close()


def test_marks_march_around_their_ring() -> None:
    call = Call(8000)
    audio = noise(1, 160)
    for i in range(700):
        call.write(0, 8000, audio)
        call.mark(0)
        if i > 100:
            call.tick()
            assert call.outcomes[0][i - 100] == (PLAYED, (i - 100) * 160)
    assert call.streams[0].pool_bytes <= (101 * 320 // 1016 + 2 + 4) * 1024
    call.close()


def test_the_reserve_is_there_when_others_have_taken_the_rest() -> None:
    pool = Pool(40 * 1028)
    fmt = MediaFormat("PCMU", 8000)
    greedy = Stream(pool, StreamOptions(role=Role.PLATFORM, media_format=fmt, tracks=Track(0), reserve_ms=0))
    modest = Stream(pool, StreamOptions(role=Role.PLATFORM, media_format=fmt, tracks=Track(0), reserve_ms=1000))
    assert greedy.play(bytes(60 * 8000)) < 60 * 8000
    assert modest.play(bytes(8000)) == 8000
    modest.close(0)
    greedy.close(0)
    statistics = pool.statistics()
    assert (statistics.n_free, statistics.n_reserved) == (40, 0)
    assert statistics.n_refused > 0


def test_a_lost_mark_does_not_wait_for_earlier_ones() -> None:
    call = Call(8000, bound_ms=100)
    call.write(0, 8000, noise(1, 400))
    early = call.mark(0)
    assert call.write(0, 8000, noise(2, 1000)) == 400
    lost = call.mark(0)
    after = call.mark(0)  # the excess before `lost` is accounted for: this one marks what was kept
    call.tick()
    assert call.outcomes[0] == {lost: (LOST, 0)}
    for _ in range(5):
        call.tick()
    assert call.outcomes[0] == {lost: (LOST, 0), early: (PLAYED, 400), after: (PLAYED, 800)}
    call.close()


@pytest.mark.parametrize("n_before", [1, 63, 64, 65, 127])
def test_a_lost_mark_gives_its_entry_back(n_before: int) -> None:
    call = Call(8000, bound_ms=100)
    call.write(0, 8000, noise(1, 800))
    for _ in range(n_before):
        call.mark(0)
    for _ in range(200):
        assert call.write(0, 8000, noise(2, 1)) == 0
        call.mark(0)
        call.gather(call.path.take_events())
    call.check()
    call.clear(0)
    call.gather(call.path.take_events())
    call.check()
    assert call.streams[0].pool_bytes == 0
    call.close()
