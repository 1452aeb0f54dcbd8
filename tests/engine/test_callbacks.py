"""The order, the bounds and the end of an engine's status callbacks, in virtual time."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from support.virtual import virtual_engine
from talkpath.engine import callbacks as module
from talkpath.engine.callbacks import IN_PASSING_MAX, CallbackQueue, Callbacks
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.memory_leg import MemoryLeg
from talkpath.line import Line, serve_memory_lines
from talkpath.transport.http import DeliveryResult
from talkpath.wire.callback import CallbackRequest, callback


def request(name: str) -> CallbackRequest:
    return callback("GET", f"https://app.example/{name}", {})


class Servers:
    """Stands in for `deliver`: each request takes as long as `takes_s` says of its path, and may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.takes_s: dict[str, float] = {}
        self.fails: set[str] = set()
        self.at: list[tuple[float, str]] = []
        """When each had been delivered, or given up."""
        self.ids: list[str] = []
        monkeypatch.setattr(module, "deliver", self.deliver)

    async def deliver(self, one: CallbackRequest, *, delivery_id: str, **_: Any) -> DeliveryResult:
        name = one.url.rsplit("/", 1)[1]
        self.ids.append(delivery_id)
        await trio.sleep(self.takes_s.get(name, 0))
        self.at.append((trio.current_time(), name))
        return DeliveryResult(name not in self.fails, 1, 204)


async def test_a_streams_callbacks_go_in_order_and_different_streams_side_by_side(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers(monkeypatch)
    servers.takes_s = {"a-started": 5, "b-started": 1}
    servers.fails = {"a-started"}
    async with trio.open_nursery() as nursery:
        which = Callbacks(nursery, EngineConfig(), random.Random(1).randbytes)
        begun = trio.current_time()
        one, other = CallbackQueue(), CallbackQueue()
        for name, queue in (("a-started", one), ("a-stopped", one), ("b-started", other), ("b-stopped", other)):
            which.tell(request(name), queue, in_passing=False)
    assert [(round(at - begun, 6), name) for at, name in servers.at] == [
        (1, "b-started"),
        (1, "b-stopped"),
        (5, "a-started"),
        (5, "a-stopped"),
    ]
    assert (which.delivered, which.failed) == (3, 1)
    assert len(set(servers.ids)) == 4, "each has an id of its own"


async def test_one_streams_news_in_passing_is_bounded_and_leaves_room_for_its_end(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers(monkeypatch)
    servers.takes_s = {"started": 5}
    async with trio.open_nursery() as nursery:
        which = Callbacks(nursery, EngineConfig(), random.Random(1).randbytes)
        queue = CallbackQueue()
        which.tell(request("started"), queue, in_passing=False)
        await trio.sleep(1)
        for _ in range(IN_PASSING_MAX + 36):
            which.tell(request("played"), queue, in_passing=True)
        which.tell(request("stopped"), queue, in_passing=False)
    names = [name for _, name in servers.at]
    assert names == ["started", *["played"] * IN_PASSING_MAX, "stopped"]
    assert (which.delivered, which.failed) == (IN_PASSING_MAX + 2, 36)


async def test_an_engine_that_is_left_waits_no_longer_than_for_one_callback(
    autojump: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = Servers(monkeypatch)
    servers.takes_s = {"status": 20}

    async def bot(line: Line) -> None:
        for number in range(9):
            await line.checkpoint(str(number)).wait()
        await line.wait_ended()

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        engine = virtual_engine(EngineConfig(pool_bytes=1 << 20, callback_deadline_s=30))
        async with engine:
            async with engine.open_call(MemoryLeg()) as call:
                begun = trio.current_time()
                await call.start_stream(
                    StreamSpec(url=url, bidirectional=True, status_url="https://app.example/status", status_scheme="A")
                )
                await trio.sleep(1)
            left = trio.current_time()
            assert left - begun < 2, "a hang-up waits for no web server"
        assert trio.current_time() - left == pytest.approx(30)
        told = engine.statistics()
        assert (told.callbacks_delivered, told.callbacks_failed) == (1, 10), "all eleven are accounted for"
        nursery.cancel_scope.cancel()
