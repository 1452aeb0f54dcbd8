"""The text for Prometheus: its own parser reads it, and finds in it what `statistics` says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from talkpath.engine.metrics import CONTENT_TYPE, LATENESS_EDGES_S, prometheus_text
from talkpath.errors import ConfigError
from talkpath.records import EngineStatistics, LoadStatistics, ServerStatistics
from talkpath.transport.clock import Lateness
from talkpath.units import NS_PER_MS

LATE_MS = [0.05] * 60 + [0.45] * 20 + [2.95, 4.99, 5.01, 9.95, 19.95, 24.0, 59.0, 61.0, 299.0, 5000.0]


def a_load() -> LoadStatistics:
    lateness = Lateness()
    for late_ms in LATE_MS:
        lateness.add(round(late_ms * NS_PER_MS))
    return LoadStatistics(
        busy_share=0.625,
        recent_lateness_p99_ms=1.5,
        lateness_counts=tuple(lateness.counts),
        lateness_sum_ms=lateness.sum_ns / NS_PER_MS,
        loop_stalls=3,
        gc_pauses=7,
        gc_pause_ms=12.5,
        gc_pause_max_ms=8.0,
        gc_freezes=2,
        gc_thaws=1,
        descriptors=77,
        descriptors_max=1024,
        resident_bytes=123_456_789,
    )


ENGINE = EngineStatistics(
    calls=12,
    calls_opened=3400,
    streams=13,
    pool_bytes=1 << 26,
    pool_used_bytes=2048,
    pool_refused=4,
    ticks=90,
    late_ticks=8,
    callbacks_delivered=10,
    callbacks_failed=1,
    refused={"busy": 5, "calls": 2},
    loop_stall_ms=180.0,
    load=a_load(),
)
SERVER = ServerStatistics(
    lines=4, lines_opened=40, handshakes=2, pool_bytes=1 << 20, refused={"lines": 9}, load=a_load()
)


class Source:
    def __init__(self, statistics: EngineStatistics | ServerStatistics) -> None:
        self._statistics = statistics

    def statistics(self) -> Any:
        return self._statistics


def samples(text: str) -> dict[str, float]:
    """Every sample, by its name with labels; read by hand, line by line."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in found
            found[name] = float(value)
    return found


def test_an_engine_s_figures_are_in_base_units() -> None:
    found = samples(prometheus_text(Source(ENGINE)))
    assert {name.removeprefix("talkpath_engine_"): value for name, value in found.items() if "bucket" not in name} == {
        "calls": 12,
        "calls_opened_total": 3400,
        "streams": 13,
        "pool_bytes": 1 << 26,
        "pool_used_bytes": 2048,
        "pool_refused_total": 4,
        'refusals_total{limit="busy"}': 5,
        'refusals_total{limit="calls"}': 2,
        "late_ticks_total": 8,
        "loop_stall_seconds_total": 0.18,
        "callbacks_delivered_total": 10,
        "callbacks_failed_total": 1,
        "busy_ratio": 0.625,
        "recent_lateness_p99_seconds": 0.0015,
        "tick_lateness_seconds_sum": pytest.approx(sum(LATE_MS) / 1000),
        "tick_lateness_seconds_count": len(LATE_MS),
        "loop_stalls_total": 3,
        "gc_pauses_total": 7,
        "gc_pause_seconds_total": 0.0125,
        "gc_pause_max_seconds": 0.008,
        "gc_freezes_total": 2,
        "gc_thaws_total": 1,
        "open_fds": 77,
        "max_fds": 1024,
        "resident_bytes": 123_456_789,
    }


def test_the_buckets_count_every_tick_up_to_their_edge() -> None:
    found = samples(prometheus_text(Source(ENGINE)))
    for edge in LATENESS_EDGES_S:
        in_it = sum(late_ms <= edge * 1000 for late_ms in LATE_MS)
        assert found[f'talkpath_engine_tick_lateness_seconds_bucket{{le="{edge!r}"}}'] == in_it
    assert found['talkpath_engine_tick_lateness_seconds_bucket{le="+Inf"}'] == len(LATE_MS)


@pytest.mark.parametrize("statistics", [ENGINE, SERVER, EngineStatistics(), ServerStatistics()])
def test_every_family_says_what_it_is_before_its_samples(statistics: Any) -> None:
    """HELP, then TYPE, then samples of that family and no other; as the format asks."""
    family = kind = ""
    for line in prometheus_text(Source(statistics)).splitlines():
        if match := re.fullmatch(r"# HELP ([a-z_0-9]+) \S.*", line):
            family = match[1]
        elif match := re.fullmatch(r"# TYPE ([a-z_0-9]+) (gauge|counter|histogram)", line):
            assert match[1] == family
            kind = match[2]
            assert (kind == "counter") == family.endswith("_total")
        else:
            name = re.split(r"[{ ]", line)[0]
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert name in {family + end for end in ends}


def test_the_two_ends_of_one_process_share_no_name() -> None:
    names = [
        {line.split(" ")[2] for line in prometheus_text(Source(one)).splitlines() if line.startswith("# TYPE")}
        for one in (ENGINE, SERVER)
    ]
    assert not names[0] & names[1]


def test_labels_are_on_every_sample_and_escaped() -> None:
    text = prometheus_text(Source(SERVER), labels={"worker": 'a"b\\c\nd'})
    for name in samples(text.replace('\\"', "'")):
        assert 'worker="a\'b\\\\c\\nd"' in name


@pytest.mark.parametrize("name", ["", "1st", "a-b", "__name__", "le", "limit", 'a"'])
def test_a_label_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="label"):
        prometheus_text(Source(ENGINE), labels={name: "x"})


def test_without_a_limit_on_files_none_is_named() -> None:
    text = prometheus_text(Source(replace(ENGINE, load=replace(ENGINE.load, descriptors_max=0))))
    assert "max_fds" not in text


@pytest.mark.parametrize("statistics", [ENGINE, SERVER])
def test_prometheus_own_parser_reads_it(statistics: Any) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = prometheus_text(Source(statistics), labels={"worker": 'a"b\\c\nd'})
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    families = list(parser.text_string_to_metric_families(text))
    kinds = {family.name: family.type for family in families}
    assert set(kinds.values()) == {"gauge", "counter", "histogram"}
    ours = samples(text)
    theirs = [sample for family in families for sample in family.samples]
    assert len(theirs) == len(ours)
    assert sorted(sample.value for sample in theirs) == sorted(ours.values())
    assert all(sample.labels["worker"] == 'a"b\\c\nd' for sample in theirs)
    assert all(family.documentation for family in families)
