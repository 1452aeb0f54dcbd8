"""Checkpoints: each comes out once, first in first out by name, and a clear settles what came before it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from support.platform import instant, open_line
from support.virtual import run_virtually, speech
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import LineConfig
from talkpath.line.checkpoint import MAX_SENT, Checkpoint, Checkpoints
from talkpath.records import Outcome

PLAYED, CLEARED, LOST, ASSUMED = Outcome.PLAYED, Outcome.CLEARED, Outcome.LOST, Outcome.ASSUMED


def outcomes(marks: list[Checkpoint]) -> list[Outcome | None]:
    return [mark.outcome.outcome if mark.outcome is not None else None for mark in marks]


async def test_it_comes_out_when_what_was_said_before_it_has_been_heard(autojump_clock: Any) -> None:
    async with open_line() as (line, _):
        began = trio.current_time()
        line.speak(speech(8000), sample_rate_hz=8000)
        first = line.checkpoint("first")
        line.speak(speech(4000), sample_rate_hz=8000)
        second = line.checkpoint("second")
        assert (await first.wait()).outcome is PLAYED
        assert trio.current_time() - began == pytest.approx(1, abs=1e-6)
        assert (await second.wait()).outcome is PLAYED
        assert trio.current_time() - began == pytest.approx(1.5, abs=1e-6)
        assert await first.wait() is first.outcome, "as often as one likes"
        assert second.outcome is not None
        assert not second.outcome.exact, "the wire names no sample"


async def test_at_sample_is_the_callers_clock(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        await platform.say_paced(speech(800))
        outcome = await line.checkpoint("here").wait()
        assert (outcome.at_sample, outcome.exact) == (800, False)


@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_a_name_that_cannot_be_one(name: str, autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        with pytest.raises(ConfigError, match="1 to 256 characters"):
            line.checkpoint(name)
        await instant()
        assert platform.messages == []


async def test_answers_match_first_in_first_out_by_name(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        marks = [line.checkpoint(name) for name in ("a", "b", "a", "a")]
        await instant()
        assert platform.names() == ["a", "b", "a", "a"]
        seen = []
        for name in ("a", "a", "b", "a"):
            await platform.played(name)
            await instant()
            seen.append(outcomes(marks))
        assert seen == [
            [PLAYED, None, None, None],
            [PLAYED, None, PLAYED, None],
            [PLAYED, PLAYED, PLAYED, None],
            [PLAYED] * 4,
        ]
        assert line.statistics().refused == {}


async def test_an_answer_nobody_waits_for_is_counted_and_settles_nothing(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        mark = line.checkpoint("mine")
        await instant()
        for name in ("other", "mine", "mine"):
            await platform.played(name)
        await instant()
        assert outcomes([mark]) == [PLAYED]
        assert line.statistics().refused == {"unexpected_mark": 2}
        assert not line.ended


async def test_a_clear_settles_what_was_sent_before_it_once_confirmed(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        before = line.checkpoint("same")
        await instant()
        await line.clear()
        after = line.checkpoint("same")
        await instant()
        assert outcomes([before, after]) == [None, None]
        await platform.cleared()
        await instant()
        assert outcomes([before, after]) == [CLEARED, None]
        await platform.played("same")
        await instant()
        assert outcomes([before, after]) == [CLEARED, PLAYED]


async def test_one_that_was_heard_just_before_the_clear_arrived_was_played(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        before = line.checkpoint("same")
        await instant()
        await line.clear()
        after = line.checkpoint("same")
        await instant()
        await platform.played("same")
        await platform.cleared()
        await instant()
        assert outcomes([before, after]) == [PLAYED, None]


async def test_two_clears_under_way_are_confirmed_in_turn(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        marks = [line.checkpoint("0")]
        for i in (1, 2):
            await instant()
            await line.clear()
            marks.append(line.checkpoint(f"{i}"))
        await instant()
        seen = [outcomes(marks)]
        for _ in range(2):
            await platform.cleared()
            await instant()
            seen.append(outcomes(marks))
        assert seen == [[None] * 3, [CLEARED, None, None], [CLEARED, CLEARED, None]]


async def test_a_confirmation_that_nobody_asked_for_touches_nothing_that_is_live(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        mark = line.checkpoint("live")
        await instant()
        await platform.cleared()
        await instant()
        assert outcomes([mark]) == [None]
        await line.clear()
        await platform.cleared()
        later = line.checkpoint("later")
        await platform.cleared()
        await instant()
        assert outcomes([mark, later]) == [CLEARED, None]


async def test_what_was_not_sent_is_cleared_at_once(autojump_clock: Any) -> None:
    async with open_line(config=LineConfig(send_ahead_ms=100), answers=False) as (line, platform):
        line.speak(speech(8000), sample_rate_hz=8000)
        mark = line.checkpoint("far behind")
        await trio.sleep(0.1)
        await line.clear()
        assert outcomes([mark]) == [CLEARED], "the platform has never heard of it"
        await trio.sleep(1)
        assert platform.names() == []


async def test_the_lines_end_loses_all_that_is_open(autojump_clock: Any) -> None:
    async with open_line(config=LineConfig(send_ahead_ms=100), answers=False) as (line, platform):
        sent = line.checkpoint("sent")
        line.speak(speech(8000), sample_rate_hz=8000)
        unsent = line.checkpoint("unsent")
        await instant()
        async with trio.open_nursery() as nursery:
            waited: list[Outcome] = []

            async def wait(mark: Checkpoint) -> None:
                waited.append((await mark.wait()).outcome)

            nursery.start_soon(wait, sent)
            nursery.start_soon(wait, unsent)
            await instant()
            just_set = line.checkpoint("in no step yet")
            await platform.peer.close(1000)
        assert waited == [LOST, LOST]
        assert outcomes([just_set]) == [LOST]
        with pytest.raises(CallEnded):
            line.checkpoint("too late")


async def test_a_cancelled_wait_changes_nothing(autojump_clock: Any) -> None:
    async with open_line() as (line, _):
        line.speak(speech(8000), sample_rate_hz=8000)
        mark = line.checkpoint("end")
        with trio.move_on_after(0.5) as scope:
            await mark.wait()
        assert scope.cancelled_caught
        assert (await mark.wait()).outcome is PLAYED


async def test_no_answer_is_waited_for_10_s_after_it_should_have_been_heard(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        began = trio.current_time()
        line.speak(speech(5 * 8000), sample_rate_hz=8000)
        mark = line.checkpoint("unanswered")
        assert (await mark.wait()).outcome is ASSUMED
        assert 15 <= trio.current_time() - began <= 16.1
        await platform.played("unanswered")
        await instant()
        assert outcomes([mark]) == [ASSUMED]
        assert line.statistics().refused == {"unexpected_mark": 1}


async def test_so_many_wait_for_an_answer_and_no_more(autojump_clock: Any) -> None:
    async with open_line(answers=False) as (line, platform):
        marks: list[Checkpoint] = []
        while len(marks) < MAX_SENT + 10:
            marks += [line.checkpoint("x") for _ in range(100)]
            await instant()
        assert outcomes(marks[:MAX_SENT]) == [None] * MAX_SENT
        assert set(outcomes(marks[MAX_SENT:])) == {LOST}
        assert len(platform.names()) == MAX_SENT
        await platform.played("x")
        await instant()
        one_more = line.checkpoint("x")
        await instant()
        assert outcomes([marks[0], one_more]) == [PLAYED, None]


# Drain ---------------------------------------------------------------------------------------------------------------


async def test_a_drain_returns_at_once_when_nothing_is_unheard(autojump_clock: Any) -> None:
    async with open_line() as (line, platform):
        began = trio.current_time()
        await line.drain()
        line.speak(speech(800), sample_rate_hz=8000)
        await trio.sleep(0.2)
        await line.drain()
        assert trio.current_time() == began + 0.2
        assert platform.named("checkpoint") == []


async def test_a_drain_waits_for_what_is_unheard_and_not_for_what_comes_later(autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        began = trio.current_time()
        line.speak(speech(4000), sample_rate_hz=8000)
        nursery.start_soon(line.drain)
        await instant()
        line.speak(speech(8000), sample_rate_hz=8000)
    assert trio.current_time() - began == pytest.approx(0.5, abs=0.001)
    assert len(platform.named("checkpoint")) == 1


@pytest.mark.parametrize("how", ["cleared", "lost"])
async def test_a_drain_ends_with_what_it_waits_for(how: str, autojump_clock: Any) -> None:
    async with open_line() as (line, platform), trio.open_nursery() as nursery:
        line.speak(speech(80000), sample_rate_hz=8000)
        nursery.start_soon(line.drain)
        await trio.sleep(0.3)
        began = trio.current_time()
        if how == "cleared":
            await line.clear()
        else:
            await platform.peer.close(1000)
    assert trio.current_time() - began < 0.01


# Against a model -----------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What must become of each checkpoint, told in lists: what the platform was sent, what it has answered so far."""

    sent: list[tuple[int, str, int]] = field(default_factory=list)
    """Open ones: number, name, clears before it."""
    clears: int = 0
    confirmed: int = 0
    fate: dict[int, Outcome] = field(default_factory=dict)
    unexpected: int = 0
    n: int = 0

    def mark(self, name: str) -> None:
        self.sent.append((self.n, name, self.clears))
        self.n += 1

    def clear(self) -> None:
        self.clears += 1

    def played(self, name: str) -> None:
        for one in self.sent:
            if one[1] == name:
                self.sent.remove(one)
                self.fate[one[0]] = PLAYED
                return
        self.unexpected += 1

    def cleared(self) -> None:
        self.confirmed = min(self.confirmed + 1, self.clears)
        for one in [one for one in self.sent if one[2] < self.confirmed]:
            self.sent.remove(one)
            self.fate[one[0]] = CLEARED

    def end(self) -> None:
        for number, _, _ in self.sent:
            self.fate[number] = LOST


NAMES = st.sampled_from("ab")
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), NAMES),
        st.tuples(st.just("played"), NAMES),
        st.tuples(st.sampled_from(["clear", "cleared", "speak"])),
    ),
    max_size=40,
)


@given(OPERATIONS)
def test_each_settles_exactly_once_and_as_the_model_says(operations: list[tuple[str, ...]]) -> None:
    model = Model()
    settled: list[str] = []

    async def main() -> None:
        async with open_line(answers=False, config=LineConfig(send_ahead_ms=60_000)) as (line, platform):
            line._checkpoints._on_settled = lambda mark, outcome: settled.append(f"{id(mark)} {outcome}")
            marks: list[Checkpoint] = []
            for name, *arguments in operations:
                if name == "mark":
                    marks.append(line.checkpoint(arguments[0]))
                elif name == "speak":
                    line.speak(speech(400), sample_rate_hz=8000)
                elif name == "clear":
                    await line.clear()
                elif name == "played":
                    await platform.played(arguments[0])
                else:
                    await platform.cleared()
                if name != "speak":
                    getattr(model, name)(*arguments)
                await instant()
                assert {i: mark.outcome.outcome for i, mark in enumerate(marks) if mark.outcome} == model.fate
            assert line.statistics().refused.get("unexpected_mark", 0) == model.unexpected
            await platform.peer.close(1000)
            await line.wait_ended()
            model.end()
            assert {i: mark.outcome.outcome for i, mark in enumerate(marks) if mark.outcome} == model.fate
            assert len(model.fate) == len(marks) == len(settled) == len(set(settled))

    run_virtually(main)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("speak"), st.integers(1, 8000)),
            st.tuples(st.just("sleep"), st.integers(1, 700)),
            st.tuples(st.sampled_from(["mark", "clear"]), st.just(0)),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from([20, 300, 2000]),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_at_an_obedient_platform_each_comes_out_as_the_caller_heard_it(
    steps: list[tuple[str, int]], ahead_ms: int, confirms_after_s: float
) -> None:
    """Played when the platform has said so, else cleared: by a clear that came later than the checkpoint."""

    async def main() -> None:
        async with open_line(config=LineConfig(send_ahead_ms=ahead_ms)) as (line, platform):
            platform.hold_answers_s = confirms_after_s
            marks: list[Checkpoint] = []
            clears_after: list[int] = []
            for name, amount in steps:
                if name == "speak":
                    line.speak(speech(amount), sample_rate_hz=8000)
                elif name == "sleep":
                    await trio.sleep(amount / 1000)
                elif name == "mark":
                    marks.append(line.checkpoint(f"{len(marks)}"))
                    clears_after.append(0)
                else:
                    await line.clear()
                    clears_after = [n + 1 for n in clears_after]
            await line.drain()
            await trio.sleep(confirms_after_s + 0.01)
            for mark, n_clears in zip(marks, clears_after, strict=True):
                assert outcomes([mark]) == [PLAYED if mark.name in platform.reported else CLEARED]
                assert n_clears or mark.name in platform.reported
            assert platform.gaps_s() == [] or any(name in ("sleep", "clear") for name, _ in steps)
            assert line.statistics().refused == {}

    run_virtually(main)


def test_many_clears_that_nobody_confirms_cost_no_memory() -> None:
    marks = Checkpoints(lambda: 0, lambda mark, outcome: None)
    for _ in range(100_000):
        marks.clear(0, confirmed_later=True)
    assert len(marks._unconfirmed) <= 256


def test_numbers_that_are_unknown_change_nothing() -> None:
    """The native queue may report a mark after its checkpoint was settled."""
    told: list[Outcome] = []
    marks = Checkpoints(lambda: 0, lambda mark, outcome: told.append(outcome))
    ident, mark = marks.set("x")
    unknown: list[Callable[[], object]] = [
        partial(marks.unsent, ident + 1, LOST),
        partial(marks.due, ident + 1, 0),
        partial(marks.unsent, ident, CLEARED),
        partial(marks.unsent, ident, LOST),
        partial(marks.due, ident, 0),
        marks.lose_all,
    ]
    for change in unknown:
        change()
    assert told == [CLEARED]
    assert mark.outcome is not None
    assert mark.outcome.outcome is CLEARED
    assert not marks.outstanding()


@pytest.mark.parametrize(
    ("expected_ms", "outcome"),
    [
        (100, Outcome.ASSUMED),  # should have been heard before the clear arrived, or was being heard
        (1_400, Outcome.ASSUMED),
        (1_501, Outcome.CLEARED),  # cannot have been heard within the clear's trip
    ],
)
def test_what_comes_back_after_a_clear_was_cleared_unless_it_may_have_been_heard(
    expected_ms: int, outcome: Outcome
) -> None:
    marks = Checkpoints(lambda: 0, lambda mark, outcome: None)
    ident, checkpoint = marks.set("a")
    assert marks.due(ident, expected_ms * 1_000_000) is checkpoint
    marks.clear(1_000_000_000, confirmed_later=False)
    assert checkpoint.outcome is None
    assert marks.answered("a", None, None)
    assert checkpoint.outcome is not None
    assert checkpoint.outcome.outcome is outcome


def test_what_was_sent_after_the_clear_is_taken_at_its_word() -> None:
    marks = Checkpoints(lambda: 0, lambda mark, outcome: None)
    marks.clear(1_000_000_000, confirmed_later=False)
    ident, checkpoint = marks.set("a")
    assert marks.due(ident, 9_000_000_000) is checkpoint
    assert marks.answered("a", None, None)
    assert checkpoint.outcome is not None
    assert checkpoint.outcome.outcome is Outcome.PLAYED
