"""Admission: each limit refuses at its figure and not before, says why, and is off when it is None or 0."""

from __future__ import annotations

import mmap
import os
from types import SimpleNamespace
from typing import Any

import pytest

from talkpath.errors import CallEnded, ConfigError
from talkpath.path.pool import Pool
from talkpath.records import EndReason, Refusal
from talkpath.transport.admission import Admission, Descriptors, LoadOptions, resident_bytes


class Situation:
    """Everything that admission looks at, as a test sets it."""

    def __init__(self, **limits: Any) -> None:
        most, most_streams = limits.pop("most", None), limits.pop("most_streams", None)
        self.share = self.late_ms = 0.0
        self.live = self.streams = 0
        self.used, self.most_descriptors = 10, 1024
        self.resident = 50 << 20
        self.load = SimpleNamespace(
            virtual=False, expected_share=lambda: self.share, lateness_p99_ms=lambda: self.late_ms
        )
        descriptors = Descriptors()
        descriptors.limit = lambda: self.most_descriptors  # type: ignore[method-assign]
        descriptors.in_use = lambda: self.used  # type: ignore[method-assign]
        load: Any = self.load
        self.pool = Pool(1 << 20)
        options = LoadOptions(**limits)
        options.check_limits()
        self.admission = Admission(
            options,
            load,
            what=("calls", "max_calls"),
            most=most,
            live=lambda: self.live,
            pool=self.pool,
            most_streams=most_streams,
            streams=lambda: self.streams,
            descriptors=descriptors,
            resident=lambda: self.resident,
        )

    def answer(self) -> Refusal | None:
        return self.admission.refusal()

    def takes(self) -> bool:
        return self.answer() is None


def test_an_idle_machine_takes_calls() -> None:
    situation = Situation()
    assert situation.takes()
    assert situation.admission.refused == {}


@pytest.mark.parametrize(
    ("what", "limit", "kind", "just", "above", "still", "well_below"),
    [
        ("share", {"max_busy_share": 0.7}, "busy", 0.7, 0.701, 0.631, 0.629),
        ("late_ms", {"max_lateness_ms": 5.0}, "lateness", 5.0, 5.1, 4.51, 4.49),
    ],
)
def test_overload_is_refused_until_it_is_well_over(
    what: str, limit: dict[str, float], kind: str, just: float, above: float, still: float, well_below: float
) -> None:
    situation = Situation(**limit)
    taken = []
    for value in (0.0, just, above, just, still, well_below, just):
        setattr(situation, what, value)
        taken.append(situation.takes())
    assert taken == [True, True, False, False, False, True, True]
    setattr(situation, what, above)
    refusal = situation.answer()
    assert refusal is not None
    assert (refusal.kind, refusal.reason, refusal.status) == (kind, EndReason.OVERLOADED, 503)
    assert refusal.retry_after_s == 5
    assert situation.admission.refused == {kind: 4}


def test_in_virtual_time_nothing_is_refused_for_overload() -> None:
    situation = Situation()
    situation.load.virtual = True
    situation.share, situation.late_ms = 3.0, 300.0
    assert situation.takes()


@pytest.mark.parametrize(
    ("limits", "what", "last_taken", "kind"),
    [
        ({"most": 3}, "live", 2, "calls"),
        ({"most_streams": 3}, "streams", 2, "streams"),
        ({"spare_descriptors": 21}, "used", 1000, "descriptors"),
        ({"max_resident_bytes": 100 << 20}, "resident", 100 << 20, "memory"),
    ],
)
def test_room_is_refused_at_its_figure_and_free_again_below(
    limits: dict[str, int], what: str, last_taken: int, kind: str
) -> None:
    situation = Situation(**limits)
    for value, taken in ((last_taken, True), (last_taken + 1, False), (last_taken, True)):
        setattr(situation, what, value)
        assert situation.takes() is taken
    setattr(situation, what, last_taken + 1)
    refusal = situation.answer()
    assert refusal is not None
    assert (refusal.kind, refusal.reason, refusal.retry_after_s) == (kind, EndReason.NO_CAPACITY, 1)
    assert situation.admission.refused == {kind: 2}


def test_a_pool_that_is_nearly_taken_or_promised_is_refused() -> None:
    situation = Situation(max_pool_share=0.9)
    native = situation.pool.native
    native.n_reserved = native.n_blocks // 2
    native.n_free = native.n_blocks * 61 // 100 + 1
    assert situation.takes()
    native.n_free = native.n_blocks * 59 // 100
    refusal = situation.answer()
    assert refusal is not None
    assert refusal.kind == "pool"


@pytest.mark.parametrize("off", [None, 0])
def test_every_limit_can_be_turned_off(off: Any) -> None:
    situation = Situation(
        most=off,
        most_streams=off,
        max_busy_share=off,
        max_lateness_ms=off,
        max_pool_share=off,
        max_resident_bytes=off,
        spare_descriptors=off,
    )
    situation.share, situation.late_ms = 1.0, 1000.0
    situation.live = situation.streams = situation.used = 10_000_000
    situation.resident = 1 << 50
    situation.pool.native.n_free = 0
    assert situation.takes()


def test_no_limit_on_descriptors_is_no_limit() -> None:
    situation = Situation()
    situation.most_descriptors, situation.used = None, 10_000_000  # type: ignore[assignment]
    assert situation.takes()


def test_the_exception_carries_what_to_answer() -> None:
    situation = Situation(most=1)
    situation.live = 1
    with pytest.raises(CallEnded, match="ended: no_capacity: 1 calls are live, which is max_calls") as refused:
        situation.admission.check()
    assert refused.value.reason is EndReason.NO_CAPACITY
    assert refused.value.refusal is not None
    assert refused.value.refusal.retry_after_s == 1
    assert CallEnded(EndReason.STOPPED).refusal is None


def test_one_more_stream_is_looked_at_alone() -> None:
    situation = Situation(most=1, most_streams=2)
    situation.live = 1
    situation.admission.check_stream()
    situation.streams = 2
    with pytest.raises(CallEnded, match="max_streams"):
        situation.admission.check_stream()
    assert situation.admission.refused == {"streams": 1}


def test_draining_names_no_time() -> None:
    refusal = Situation().admission.draining()
    assert (refusal.reason, refusal.retry_after_s) == (EndReason.DRAINED, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_busy_share": 70},
        {"max_busy_share": False},
        {"max_lateness_ms": -1},
        {"max_lateness_ms": "5"},
        {"max_pool_share": 1.5},
        {"max_resident_bytes": 1024},
        {"max_resident_bytes": 1e9},
        {"spare_descriptors": 2.5},
        {"gc": "disable"},
    ],
)
def test_limits_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoadOptions(**wrong).check_limits()


def test_open_files_are_counted() -> None:
    descriptors = Descriptors()
    before = descriptors.in_use()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(30)]
    try:
        assert descriptors.in_use() == before + 30
    finally:
        for number in opened:
            os.close(number)
    assert descriptors.in_use() == before


def test_open_files_are_counted_where_the_directory_has_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors()
    before = descriptors.in_use()
    monkeypatch.setattr(os, "stat", lambda path: SimpleNamespace(st_size=0))
    assert descriptors.in_use() == before


def test_resident_memory_grows_with_what_is_touched() -> None:
    with mmap.mmap(-1, 40 << 20) as fresh:
        before = resident_bytes()
        fresh.write(b"\1" * (40 << 20))
        assert resident_bytes() - before > 30 << 20


def test_descriptors_know_the_limit_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (777, 4096))
    assert Descriptors().limit() == 777
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Descriptors().limit() is None
