"""Where a call goes, which ports and options a worker has: pure functions."""

from __future__ import annotations

import itertools
import ssl
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkpath.engine import EngineConfig, WorkersConfig, open_workers
from talkpath.engine.placement import Load, backoff_s, by_load, port_slices, usable_cores
from talkpath.engine.travel import check_name, made_by, named, pack, to_travel, unpack
from talkpath.errors import ConfigError
from talkpath.line import LineConfig, ServeConfig


@pytest.mark.parametrize(
    ("loads", "first"),
    [
        # nobody has reported yet: the fewest calls, then the first
        ([Load(1), Load(0), Load(0)], 1),
        ([Load(0), Load(0)], 0),
        # what a worker is busy with counts more than how many calls that is
        ([Load(10, 0.6, 10), Load(20, 0.2, 20)], 1),
        # within a tenth of a core the number of calls decides
        ([Load(10, 0.31, 10), Load(9, 0.39, 9)], 1),
        # calls that came since the report cost what the others do: 20 more at 2 % each
        ([Load(40, 0.4, 20), Load(35, 0.7, 35)], 1),
        # and those that ended since cost nothing any more
        ([Load(1, 0.5, 10), Load(10, 0.2, 10)], 0),
    ],
)
def test_the_least_loaded_is_first(loads: list[Load], first: int) -> None:
    assert by_load(loads)[0] == first


loads = st.builds(Load, st.integers(0, 5000), st.floats(0, 4), st.integers(0, 5000))


@given(st.lists(loads, max_size=8))
def test_everybody_has_a_place_in_the_order(some: list[Load]) -> None:
    assert sorted(by_load(some)) == list(range(len(some)))


@given(st.integers(1, 8), st.integers(1, 400))
def test_calls_alike_spread_evenly_between_two_reports(workers: int, calls: int) -> None:
    some = [Load(0)] * workers
    for _ in range(calls):
        first = by_load(some)[0]
        some[first] = replace(some[first], calls=some[first].calls + 1)
    counts = [one.calls for one in some]
    # A band of a tenth of a core is filled before the next; within it they are even.
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(1, 40))
def test_slices_of_ports_are_even_aligned_disjoint_and_alike(first: int, last: int, count: int) -> None:
    try:
        slices = port_slices((first, last), count)
    except ConfigError:
        assert (last + 1 - first - first % 2) // 2 < count
        return
    assert len(slices) == count
    assert all(low % 2 == 0 and high % 2 == 1 and low < high for low, high in slices)
    assert {high - low for low, high in slices} == {slices[0][1] - slices[0][0]}
    assert slices[0][0] in (first, first + 1)
    assert slices[-1][1] <= last
    assert all(one[1] < other[0] for one, other in itertools.pairwise(slices))


def test_the_wait_doubles_up_to_its_bound() -> None:
    assert [backoff_s(n, 0.1, 1.0) for n in range(7)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff_s(10_000, 0.1, 30.0) == 30.0


def test_there_is_a_core_to_use() -> None:
    assert usable_cores()


# Names and options that travel


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (print, "give its name"),
        ("no_colon", "package.module:function"),
        ("a.b:", "package.module:function"),
        ("a b:c", "package.module:function"),
        ("__main__:bot", "another program"),
    ],
)
def test_a_name_that_no_other_process_can_import_is_refused(name: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_name("the bot", name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module_anywhere:f", "no_such_module_anywhere:f' cannot be imported: ModuleNotFoundError"),
        ("talkpath.units:no_such", "the module talkpath.units has no no_such"),
        ("talkpath.units:NS_PER_MS", "must be a function"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_the_reason(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        named("the bot", name)


@pytest.mark.parametrize(
    "options",
    [
        EngineConfig(),
        EngineConfig(max_calls=7, stall_s=1.5, port_range=(4000, 5001)),
        ServeConfig(line=LineConfig(linger_s=1), plivo_auth_token="t", max_lines=3),
    ],
)
def test_options_arrive_as_they_left(options: object) -> None:
    assert unpack(pack("config", options)) == options


def test_fields_that_are_at_their_default_stay_at_home() -> None:
    assert pack("engine", EngineConfig(max_calls=7))["fields"] == {"max_calls": 7}


@dataclass(frozen=True)
class Nested:
    names: tuple[str, ...] = ()
    table: dict[str, tuple[int, ...]] | None = None


def test_tuples_and_mappings_arrive_as_such() -> None:
    nested = Nested(("a", "b"), {"x": (1, 2)})
    assert unpack(pack("nested", nested)) == nested


@pytest.mark.parametrize(
    "options", [ServeConfig(on_ended=print), ServeConfig(tls_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))]
)
def test_options_that_only_exist_here_are_refused_with_the_way_out(options: ServeConfig) -> None:
    with pytest.raises(ConfigError, match=r"cannot travel.*config='package.module:function'"):
        to_travel("config", options, ServeConfig)


def test_options_can_be_made_by_a_function() -> None:
    assert made_by("engine", "support.worker_calls:small_engine", EngineConfig).max_calls == 1
    with pytest.raises(ConfigError, match="must be ServeConfig"):
        made_by("config", "support.worker_calls:small_engine", ServeConfig)
    with pytest.raises(ConfigError, match="must be EngineConfig, or the name"):
        to_travel("engine", 7, EngineConfig)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": -1}, "count"),
        ({"count": 1.5}, "whole number"),
        ({"pin": 1}, "pin"),
        ({"count": 3, "port_range": (4000, 4006)}, "4 are needed"),
        ({"port_range": (4000,)}, "first port, last port"),
        ({"engine": EngineConfig(port_range=(4000, 5000))}, "WorkersConfig"),
        ({"engine": "nowhere"}, "package.module:function"),
        ({"hang_s": 1, "report_s": 0.5}, "hang_s"),
        ({"log_level": "LOUD"}, "log_level"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        WorkersConfig(**options)  # type: ignore[arg-type]


def test_a_target_is_a_name() -> None:
    with pytest.raises(ConfigError, match="the target"):
        open_workers("my_calls")
