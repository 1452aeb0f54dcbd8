"""The impaired link: repeatable, true to its figures, each knob alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError
from talkpath.testing import GilbertElliott, LinkEmulator, LinkStatistics

MS = 1_000_000
N = 20_000


def run(link: LinkEmulator, n: int = N, spacing_ms: int = 20) -> list[tuple[int, int]]:
    """Send packets 0..n-1 at `spacing_ms`; return (packet, delay in ns) in order of arrival, by deadline alone."""
    heard: list[tuple[int, int]] = []

    def listen_until(end_ns: int) -> None:
        while (due := link.next_deadline()) is not None and due <= end_ns:
            arrived = link.receive(due)
            assert arrived, "a deadline without a packet"
            for datagram in arrived:
                number = int.from_bytes(datagram, "big")
                heard.append((number, due - number * spacing_ms * MS))

    for number in range(n):
        listen_until(number * spacing_ms * MS - 1)
        link.send(number.to_bytes(4, "big"), number * spacing_ms * MS)
    listen_until(10**18)
    assert link.next_deadline() is None
    return heard


def test_a_perfect_link_delivers_at_once_and_in_order() -> None:
    link = LinkEmulator()
    assert run(link, 100) == [(number, 0) for number in range(100)]
    assert link.statistics() == LinkStatistics(sent=100, delivered=100)


def test_latency_is_exact() -> None:
    assert run(LinkEmulator(latency_ms=7.5), 3) == [(0, 7_500_000), (1, 7_500_000), (2, 7_500_000)]


def test_nothing_arrives_before_its_time() -> None:
    link = LinkEmulator(latency_ms=10)
    link.send(b"x", 5 * MS)
    assert link.receive(15 * MS - 1) == []
    assert link.receive(15 * MS) == [b"x"]
    assert link.receive(16 * MS) == []


def test_jitter_is_uniform_and_keeps_the_order() -> None:
    heard = run(LinkEmulator(1, latency_ms=10, jitter_ms=15))
    delays = [delay / MS - 10 for _, delay in heard]
    assert [number for number, _ in heard] == list(range(N))
    assert 0 <= min(delays) < 0.05
    assert 14.95 < max(delays) <= 15
    quarters = Counter(int(delay * 4 / 15) for delay in delays)
    assert all(abs(quarters[quarter] / N - 0.25) < 0.02 for quarter in range(4))


def test_jitter_beyond_the_spacing_still_keeps_the_order() -> None:
    heard = run(LinkEmulator(1, jitter_ms=60))
    assert [number for number, _ in heard] == list(range(N))
    assert max(delay for _, delay in heard) <= 60 * MS


def test_loss_strikes_as_often_as_asked() -> None:
    link = LinkEmulator(7, loss=0.03)
    heard = run(link)
    assert len(heard) == N - link.statistics().lost
    assert 0.026 < link.statistics().lost / N < 0.034


def test_reordered_packets_arrive_right_after_their_successor() -> None:
    link = LinkEmulator(3, reorder=0.05)
    order = [number for number, _ in run(link)]
    assert sorted(order) == list(range(N))
    swaps = [index for index in range(1, N) if order[index] < order[index - 1]]
    assert all(order[index] == order[index - 1] - 1 for index in swaps)
    # One strike in a row at most: the packet that overtakes is not itself held.
    assert 0.04 < len(swaps) / N < 0.055
    assert link.statistics().reordered in (len(swaps), len(swaps) + 1)


def test_a_held_packet_without_a_successor_comes_late() -> None:
    link = LinkEmulator(reorder=1.0, latency_ms=5)
    link.send(b"last", 0)
    assert link.next_deadline() == 105 * MS
    assert link.receive(104 * MS) == []
    assert link.receive(105 * MS) == [b"last"]


def test_duplicates_come_twice() -> None:
    link = LinkEmulator(5, duplicate=0.1)
    times = Counter(number for number, _ in run(link))
    assert set(times.values()) == {1, 2}
    assert 0.09 < sum(count == 2 for count in times.values()) / N < 0.11


def test_bursts_have_the_length_and_share_of_the_model() -> None:
    heard = {number for number, _ in run(LinkEmulator(11, gilbert_elliott=GilbertElliott(to_bad=0.01, to_good=0.25)))}
    lost = [number not in heard for number in range(N)]
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / N == pytest.approx(0.01 / 0.26, rel=0.25)
    assert sum(lost) / bursts == pytest.approx(4, rel=0.2)


def test_the_same_seed_gives_the_same_path_and_another_seed_another() -> None:
    knobs: dict[str, Any] = {"jitter_ms": 30, "loss": 0.03, "reorder": 0.02, "duplicate": 0.01}
    assert run(LinkEmulator(7, **knobs), 2000) == run(LinkEmulator(7, **knobs), 2000)
    assert run(LinkEmulator(7, **knobs), 2000) != run(LinkEmulator(8, **knobs), 2000)


def test_jitter_does_not_change_who_is_lost() -> None:
    plain = {number for number, _ in run(LinkEmulator(7, loss=0.1), 2000)}
    shaken = {number for number, _ in run(LinkEmulator(7, loss=0.1, jitter_ms=30, reorder=0.1), 2000)}
    assert plain == shaken


@given(
    seed=st.integers(0, 1000),
    chances=st.tuples(*[st.floats(0, 0.5)] * 3),
    jitter_ms=st.integers(0, 100),
    spacing_ms=st.integers(0, 40),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_packet_is_accounted_for(
    seed: int, chances: tuple[float, float, float], jitter_ms: int, spacing_ms: int
) -> None:
    loss, duplicate, reorder = chances
    link = LinkEmulator(seed, jitter_ms=jitter_ms, loss=loss, duplicate=duplicate, reorder=reorder)
    heard = run(link, 200, spacing_ms)
    counts = link.statistics()
    assert counts.delivered == len(heard) == counts.sent - counts.lost + counts.duplicated
    assert counts.overflowed == 0
    assert all(0 <= delay <= (jitter_ms + 100 + spacing_ms) * MS for _, delay in heard)


def test_what_nobody_receives_is_bounded() -> None:
    link = LinkEmulator()
    for _ in range(65_537):
        link.send(b"", 0)
    assert link.statistics().overflowed == 1
    assert len(link.receive(0)) == 65_536


@pytest.mark.parametrize(
    ("knob", "value"),
    [("latency_ms", -1), ("jitter_ms", 1e9), ("loss", 3.0), ("duplicate", -0.1), ("reorder", float("nan"))],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(knob: str, value: float) -> None:
    with pytest.raises(ConfigError, match=knob):
        LinkEmulator(**{knob: value})  # type: ignore[arg-type]


def test_two_kinds_of_loss_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="give one"):
        LinkEmulator(loss=0.1, gilbert_elliott=GilbertElliott(0.1, 0.1))
