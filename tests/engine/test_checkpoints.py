"""A checkpoint's outcome is exact to one sample, and so is what the caller hears.

An application plays, marks, clears, overflows its bound and pauses at random. Its raw messages go into the platform's
end of the wire; what the wire, the record and the caller's ear say afterwards must be what forty lines of Python say.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from functools import partial
from math import ceil

import numpy as np
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.peer import Peer
from support.virtual import assert_pool_is_whole, run_virtually, virtual_engine
from talkpath._native import ffi, lib
from talkpath.audio import Samples
from talkpath.dsp import Resampler, pcmu_decode
from talkpath.engine.config import StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.records import MarkOutcome, Outcome, StreamRecord
from talkpath.transport.memory import listen_memory

PTIME_MS, BOUND_MS = 20, 1000


@dataclass(frozen=True)
class Wire:
    """What the stream carries, and the rate of the leg it is played to."""

    codec: str
    rate_hz: int
    leg_hz: int

    @property
    def delay(self) -> int:
        """Of the conversion, in samples of the leg."""
        state = ffi.new("tp_resample *")
        assert lib.tp_resample_init(state, self.rate_hz, self.leg_hz) == 0
        return int(lib.tp_resample_delay(state))

    def message(self, n_samples: int, seed: int) -> tuple[dict[str, object], Samples]:
        """Return a playAudio message, and the samples in it."""
        chance = np.random.default_rng(seed)
        if self.codec == "PCMU":
            payload = chance.integers(0, 256, n_samples).astype(np.uint8).tobytes()
            samples, kind = pcmu_decode(payload), "audio/x-mulaw"
        else:
            samples, kind = chance.integers(-9000, 9000, n_samples).astype("<i2"), "audio/x-l16"
            payload = samples.tobytes()
        media = {"contentType": kind, "sampleRate": self.rate_hz, "payload": base64.b64encode(payload).decode()}
        return {"event": "playAudio", "media": media}, samples


WIRES = {
    "payload passes as it is": Wire("L16", 8000, 8000),
    "payload is decoded": Wire("PCMU", 8000, 8000),
    "payload is resampled down": Wire("L16@16000h", 16000, 8000),
    "payload is resampled up": Wire("PCMU", 8000, 16000),
}


# The model -----------------------------------------------------------------------------------------------------------


@dataclass
class Mark:
    name: str
    position: int
    """Samples written before it."""
    out: int | None = None
    """Sample of the run at which it lies, once its audio has been taken."""


class Model:
    """What must happen: a queue, a run of audio that begins at a frame, marks at positions of both."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.n = wire.leg_hz * PTIME_MS // 1000
        self.clock = self.written = self.read = 0
        self.queue: Samples = np.zeros(0, np.int16)
        self.marks: list[Mark] = []
        self.settled: dict[str, MarkOutcome] = {}
        self.heard: list[Samples] = []
        self.lossy = self.running = False
        self.produced = self.fed = self.audio_fed = 0
        self.resampler = Resampler(wire.rate_hz, wire.leg_hz)

    def out_of(self, fed: int) -> int:
        """Run samples that so many of its input samples make."""
        return ceil(fed * self.wire.leg_hz / self.wire.rate_hz)

    def settle(self, mark: Mark, outcome: Outcome, at: int) -> None:
        self.settled[mark.name] = MarkOutcome(mark.name, outcome, at)
        if mark in self.marks:
            self.marks.remove(mark)

    def play(self, samples: Samples) -> None:
        taken = samples[: self.wire.rate_hz * BOUND_MS // 1000 - len(self.queue)]
        self.lossy = self.lossy or len(taken) < len(samples)
        self.queue = np.concatenate([self.queue, taken])
        self.written += len(taken)

    def mark(self, name: str) -> None:
        mark = Mark(name, self.written)
        if self.lossy:
            self.settle(mark, Outcome.LOST, self.clock)
        else:
            self.marks.append(mark)
        self.lossy = False

    def end(self, outcome: Outcome) -> None:
        """Cleared, or lost with the stream."""
        for mark in list(self.marks):
            self.settle(mark, outcome, self.clock)
        self.queue, self.read = self.queue[:0], self.written
        self.lossy = self.running = False

    def tick(self) -> None:
        """Hand one frame to the leg."""
        idle = not self.running
        for mark in self.marks:
            if mark.position <= self.read and mark.out is None:
                mark.out = 0 if idle else max(self.out_of(self.audio_fed) + self.wire.delay, self.produced)
        if idle:
            self.produced = self.fed = self.audio_fed = 0
            self.resampler.reset()
            self.running = len(self.queue) > 0
        frame = np.zeros(self.n, np.int16)
        if self.running:
            frame = self.take(self.produced + self.n)
        for mark in list(self.marks):
            if mark.out is not None and (mark.out <= self.produced + self.n if self.running else mark.out <= 0):
                self.settle(mark, Outcome.PLAYED, self.clock + mark.out - self.produced)
        self.produced += self.n
        if not len(self.queue) and self.out_of(self.audio_fed) + self.wire.delay <= self.produced:
            self.running = False
        self.heard.append(frame)
        self.clock += self.n

    def take(self, until: int) -> Samples:
        """Convert until the run has that many samples: audio while there is some, then zeros."""
        fed: list[Samples] = []
        while self.out_of(self.fed) < until:
            wanted = max(until * self.wire.rate_hz // self.wire.leg_hz - self.fed, 1)
            taken = self.queue[:wanted]
            for mark in self.marks:
                if self.read < mark.position <= self.read + len(taken):
                    mark.out = self.out_of(self.fed + mark.position - self.read) + self.wire.delay
            self.queue, self.read = self.queue[len(taken) :], self.read + len(taken)
            fed.append(taken if len(taken) else np.zeros(wanted, np.int16))
            self.fed += len(fed[-1])
            if len(taken):
                self.audio_fed = self.fed
        return self.resampler.process(np.concatenate(fed).astype(np.int16))


# What an application does --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """So long after the step before: play so many ms, set a mark, or clear."""

    after_ms: int
    what: str
    ms_x8: int = 0
    """Of audio, in eighths of a millisecond: so many samples of an 8 kHz wire."""


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from([0, 0, 0, 1, 5, 13, 20, 40, 111, 400]),
        st.sampled_from(["play", "play", "play", "mark", "mark", "clear"]),
        st.one_of(st.integers(1, 400), st.integers(1, 4000), st.sampled_from([160, 320, 8000, 12000])),
    ),
    max_size=25,
)


@dataclass
class Seen:
    record: StreamRecord | None = None
    heard: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    messages: list[dict[str, object]] = field(default_factory=list)


async def converse(wire: Wire, script: list[Step], drains: bool) -> tuple[Seen, Model]:
    seen, model = Seen(), Model(wire)
    listener = listen_memory("application")
    async with trio.open_nursery() as nursery, virtual_engine() as engine:
        peers: list[Peer] = []

        async def application() -> None:
            peers.append(Peer(await listener.accept(), client=False))
            await peers[0].upgrade_as_server()
            await peers[0].read_all()

        nursery.start_soon(application)
        leg = MemoryLeg(sample_rate_hz=wire.leg_hz, ptime_ms=PTIME_MS)
        async with engine.open_call(leg) as call:
            spec = StreamSpec(
                url="memory://application", bidirectional=True, codec=wire.codec, playout_s=BOUND_MS / 1000
            )
            stream = await call.start_stream(spec)
            now_ms = n_ticks = 0

            async def go_to(ms: int) -> None:
                """Let time pass; a tick is due every 20 ms from 0, and nothing else happens at its instant."""
                nonlocal now_ms, n_ticks
                now_ms = ms
                while n_ticks * PTIME_MS <= now_ms + 0.5:
                    model.tick()
                    n_ticks += 1
                await trio.sleep_until(engine.clock.t0 + now_ms / 1000 + 0.0005)

            for index, step in enumerate(script):
                await go_to(now_ms + step.after_ms)
                message: dict[str, object] = {"event": "clearAudio", "streamId": stream.stream_id}
                if step.what == "play":
                    message, samples = wire.message(step.ms_x8 * wire.rate_hz // 8000, index)
                    model.play(samples)
                elif step.what == "mark":
                    message = {"event": "checkpoint", "streamId": stream.stream_id, "name": f"mark {index}"}
                    model.mark(f"mark {index}")
                else:
                    model.end(Outcome.CLEARED)
                await peers[0].text(message)
            await go_to(now_ms + (BOUND_MS + 100 if drains else 1))
            call.hang_up()
            model.end(Outcome.LOST)
        seen.record, seen.heard = stream.record, leg.heard()
        assert_pool_is_whole(engine)
        await trio.sleep(1)
        seen.messages = peers[0].messages
        nursery.cancel_scope.cancel()
    listener.close()
    return seen, model


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
@settings(max_examples=40)
@given(script=steps, drains=st.booleans())
@example(script=[Step(0, "play", 160), Step(0, "mark"), Step(0, "play", 8000), Step(0, "mark")], drains=True)
@example(script=[Step(0, "mark"), Step(20, "play", 17), Step(20, "mark"), Step(0, "play", 9)], drains=True)
@example(script=[Step(3, "play", 9000), Step(0, "mark"), Step(0, "mark"), Step(500, "clear")], drains=False)
def test_outcomes_are_exact_to_a_sample(wire: Wire, script: list[Step], drains: bool) -> None:
    seen, model = run_virtually(partial(converse, wire, script, drains), seed=len(script))
    assert seen.record is not None
    assert {one.name: one for one in seen.record.marks} == model.settled
    assert len(seen.record.marks) == len(model.settled), "each once"
    assert np.array_equal(seen.heard, np.concatenate(model.heard))
    said = [
        (one["event"], one.get("name")) for one in seen.messages if one["event"] in ("playedStream", "clearedAudio")
    ]
    played = [one for one in model.settled.values() if one.outcome is Outcome.PLAYED]
    assert [name for event, name in said if event == "playedStream"] == [
        one.name for one in sorted(played, key=lambda one: (one.at_sample, int(one.name.split()[1])))
    ]
    assert sum(event == "clearedAudio" for event, _ in said) == sum(step.what == "clear" for step in script)
    assert seen.record.refused == {}


def test_the_model_knows_every_outcome() -> None:
    """The property above would prove little if its scripts only ever played."""
    chance = random.Random(1)
    outcomes: set[Outcome] = set()
    for _ in range(20):
        script = [
            Step(
                chance.choice([0, 5, 40]),
                chance.choice(["play", "play", "mark", "clear"]),
                chance.choice([80, 4000, 9000]),
            )
            for _ in range(15)
        ]
        _, model = run_virtually(partial(converse, WIRES["payload is decoded"], script, False))
        outcomes |= {one.outcome for one in model.settled.values()}
    assert outcomes == {Outcome.PLAYED, Outcome.CLEARED, Outcome.LOST}
