"""What an engine or a server counts, as the text that Prometheus reads.

Names say the unit, units are base units (seconds, bytes, ratios of 1), what only grows ends in ``_total``. An engine's
begin with ``talkpath_engine_``, a server's with ``talkpath_server_``, so the two texts of one process can be put one
after the other. Nothing of any call is in it, and the number of rows is bounded.

Serving it is the program's business: any HTTP server that it has will do.

Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Protocol

from talkpath.errors import ConfigError
from talkpath.records import EngineStatistics, LoadStatistics, ServerStatistics
from talkpath.transport.clock import bucket_edge_ms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENESS_EDGES_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.25)
"""Each the end of one of `Lateness`'s own buckets, so no tick is counted in the wrong one."""
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Counted(Protocol):
    """An engine or a server."""

    def statistics(self) -> EngineStatistics | ServerStatistics: ...


def prometheus_text(source: Counted, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the statistics of an engine, or of a server, in Prometheus' text exposition format.

    Args:
        source: an open engine, or the `LineServer` that `ServeConfig.on_serving` was given.
        labels: put on every sample, to tell several engines of one process apart.

    Raises:
        ConfigError: a label's name that cannot be, or an engine that has not been entered.
    """
    common = dict(labels or {})
    for name in common:
        if not _LABEL.fullmatch(name) or name.startswith("__") or name in ("le", "limit"):
            raise ConfigError(f"{name!r} cannot be the name of a label; right is for example worker")
    statistics = source.statistics()
    if isinstance(statistics, EngineStatistics):
        page = _Page("talkpath_engine_", common)
        _write_engine(page, statistics)
    else:
        page = _Page("talkpath_server_", common)
        _write_server(page, statistics)
    _write_load(page, statistics.load)
    return "".join(page.lines)


class _Page:
    """The text as it grows, one family after the other."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._prefix = prefix
        self._labels = labels

    def gauge(self, name: str, tells: str, value: float) -> None:
        self._family(name, "gauge", tells)
        self._sample(name, value)

    def counter(self, name: str, tells: str, value: float) -> None:
        self._family(name, "counter", tells)
        self._sample(name, value)

    def counters(self, name: str, tells: str, label: str, values: Mapping[str, float]) -> None:
        self._family(name, "counter", tells)
        for key in sorted(values):
            self._sample(name, values[key], {label: key})

    def histogram(self, name: str, tells: str, buckets: Iterator[tuple[str, int]], total: int, sum_s: float) -> None:
        self._family(name, "histogram", tells)
        for edge, count in buckets:
            self._sample(f"{name}_bucket", count, {"le": edge})
        self._sample(f"{name}_sum", sum_s)
        self._sample(f"{name}_count", total)

    def _family(self, name: str, kind: str, tells: str) -> None:
        self.lines.append(f"# HELP {self._prefix}{name} {tells}\n# TYPE {self._prefix}{name} {kind}\n")

    def _sample(self, name: str, value: float, more: Mapping[str, str] | None = None) -> None:
        labels = {**self._labels, **(more or {})}
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        braced = f"{{{inside}}}" if inside else ""
        self.lines.append(f"{self._prefix}{name}{braced} {value!r}\n")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _write_engine(page: _Page, now: EngineStatistics) -> None:
    page.gauge("calls", "Calls that live.", now.calls)
    page.counter("calls_opened_total", "Calls taken since the engine was opened.", now.calls_opened)
    page.gauge("streams", "Streams that live, of all calls.", now.streams)
    _write_pool(page, now.pool_bytes, now.pool_used_bytes, now.pool_refused)
    page.counters("refusals_total", "Calls and streams not taken, by the limit that refused.", "limit", now.refused)
    page.counter("late_ticks_total", "Ticks more than 5 ms late.", now.late_ticks)
    page.counter("loop_stall_seconds_total", "Audio skipped by late ticks, of all calls.", now.loop_stall_ms / 1000)
    page.counter("callbacks_delivered_total", "Status callbacks delivered.", now.callbacks_delivered)
    page.counter("callbacks_failed_total", "Status callbacks given up.", now.callbacks_failed)


def _write_server(page: _Page, now: ServerStatistics) -> None:
    page.gauge("lines", "Lines that live.", now.lines)
    page.counter("lines_opened_total", "Lines opened since serving began.", now.lines_opened)
    page.gauge("handshakes", "Connections that have not opened a line yet.", now.handshakes)
    _write_pool(page, now.pool_bytes, now.pool_used_bytes, now.pool_refused)
    page.counters("refusals_total", "Connections not taken, by the limit that refused.", "limit", now.refused)


def _write_pool(page: _Page, in_all: int, used: int, refused: int) -> None:
    page.gauge("pool_bytes", "Memory for queued audio.", in_all)
    page.gauge("pool_used_bytes", "Memory for queued audio in use.", used)
    page.counter("pool_refused_total", "Blocks that the pool did not have.", refused)


def _write_load(page: _Page, now: LoadStatistics) -> None:
    page.gauge("busy_ratio", "Processor time over wall time of the thread that moves media, over 2 s.", now.busy_share)
    page.gauge(
        "recent_lateness_p99_seconds",
        "Lateness that 99 % of ticks did not exceed, over 5 s.",
        now.recent_lateness_p99_ms / 1000,
    )
    page.histogram(
        "tick_lateness_seconds",
        "How late ticks were done, from due to sent.",
        _cumulative(now.lateness_counts),
        sum(now.lateness_counts),
        now.lateness_sum_ms / 1000,
    )
    page.counter("loop_stalls_total", "Ticks more than 60 ms late: what they missed was skipped.", now.loop_stalls)
    page.counter("gc_pauses_total", "Garbage collections of the process.", now.gc_pauses)
    page.counter("gc_pause_seconds_total", "Time that garbage collections took.", now.gc_pause_ms / 1000)
    page.gauge("gc_pause_max_seconds", "The longest garbage collection.", now.gc_pause_max_ms / 1000)
    page.counter("gc_freezes_total", "Times that living containers were put aside.", now.gc_freezes)
    page.counter("gc_thaws_total", "Times that all of them were taken back and looked through.", now.gc_thaws)
    page.gauge("open_fds", "Open files of the process.", now.descriptors)
    if now.descriptors_max:
        page.gauge("max_fds", "Open files that the process may have, the soft limit.", now.descriptors_max)
    page.gauge("resident_bytes", "Memory of the process.", now.resident_bytes)


def _cumulative(counts: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    ends_s = [round(bucket_edge_ms(bucket) / 1000, 6) for bucket in range(len(counts))]
    so_far = [0, *accumulate(counts)]
    for edge in LATENESS_EDGES_S:
        yield repr(edge), so_far[bisect_right(ends_s, edge)]
    yield "+Inf", so_far[-1]
