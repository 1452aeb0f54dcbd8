"""Worker processes, real ones: calls placed, hung up, lost, drained, restarted; nobody hangs, nothing is left."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from support.program import running
from talkpath.engine import EngineConfig, PlacedCall, Workers, WorkersConfig, WorkerState, open_workers
from talkpath.errors import CallEnded, ConfigError
from talkpath.records import EndReason
from talkpath.testing import quiescence

pytestmark = [pytest.mark.smoke, pytest.mark.slow]

RUN_CALL = "support.worker_calls:run_call"
# What other programs of this machine do to the timing must refuse nobody here.
UNHURRIED = EngineConfig(max_busy_share=None, max_lateness_ms=None)
SHORT: dict[str, Any] = {
    "count": 1,
    "report_s": 0.1,
    "hang_s": 5,
    "goodbye_s": 0.5,
    "pin": False,
    "engine": UNHURRIED,
}


@asynccontextmanager
async def workers_of(target: str = RUN_CALL, **options: Any) -> AsyncIterator[Workers]:
    """Hold workers; a test that hangs fails, and so does one that leaves anything in this process."""
    with trio.fail_after(120), quiescence():
        async with open_workers(target, WorkersConfig(**(SHORT | options))) as workers:
            yield workers


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped by whoever has to or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.02)


async def wait_gone(pid: int) -> None:
    await until(lambda: is_gone(pid))


async def wait_for_pids(workers: Workers, count: int, without: set[int]) -> set[int]:
    """Wait until so many workers serve, none of them of `without`; return their pids."""

    def serving() -> set[int]:
        return {one.pid for one in workers.statistics().workers if one.state is WorkerState.READY}

    await until(lambda: len(serving()) == count and not serving() & without)
    return serving()


async def place(workers: Workers, do: str = "", **parameters: Any) -> PlacedCall:
    return await workers.place({"do": do, **parameters})


async def test_calls_go_to_the_least_loaded_worker_and_their_records_come_back() -> None:
    # No report comes while this lasts: how busy setting up the first call made a worker would be part of its load.
    async with workers_of(count=2, port_range=(21001, 21600), report_s=60, hang_s=240) as workers:
        calls = [await place(workers) for _ in range(6)]
        by_pid: dict[int, list[int]] = {}
        for call in calls:
            by_pid.setdefault(call.answer["pid"], []).append(call.answer["port"])
        assert sorted(map(len, by_pid.values())) == [3, 3]
        # 300 pairs of ports for two workers and one to come.
        slices = {(port - 21002) // 2 // 99 for ports in by_pid.values() for port in ports}
        assert all(port % 2 == 0 and 21002 <= port <= 21599 for ports in by_pid.values() for port in ports)
        assert len(slices) == 2
        for ports in by_pid.values():
            assert len({(port - 21002) // 2 // 99 for port in ports}) == 1
        calls[0].hang_up()
        calls[1].hang_up(EndReason.CALLER_HUNG_UP)
        record = await calls[0].wait_ended()
        assert (record.reason, record.worker) == (EndReason.PLATFORM_HUNG_UP, calls[0].worker)
        assert record.statistics["packets_received"] == 0
        assert (await calls[1].wait_ended()).reason is EndReason.CALLER_HUNG_UP
        statistics = workers.statistics()
        assert (statistics.calls, statistics.calls_placed, statistics.workers_lost) == (4, 6, 0)
        assert {one.pid for one in statistics.workers} == by_pid.keys()
    assert all(is_gone(pid) for pid in by_pid)
    assert [call.record.reason for call in calls[2:] if call.record is not None] == [EndReason.CANCELLED] * 4


async def test_workers_report_their_calls_and_how_busy_they_are() -> None:
    async with workers_of(count=2) as workers:
        calls = [await place(workers) for _ in range(4)]
        carried = Counter(call.worker for call in calls)
        await until(
            lambda: all(
                one.service.get("calls") == carried[one.worker] and one.busy > 0 for one in workers.statistics().workers
            )
        )


async def test_sockets_are_passed_on_and_a_call_s_own_failure_is_nobody_else_s() -> None:
    async with workers_of() as workers:
        call = await place(workers)
        near, far = socket.socketpair()
        far.settimeout(0)
        far.sendall(b"hello")
        with near:
            passed = await workers.place({"do": "echo", "last_s": 0.2}, [near])
        with far:
            await trio.lowlevel.wait_readable(far)
            assert far.recv(10) == b"HELLO"
            await passed.wait_ended()
            await trio.lowlevel.wait_readable(far)
            assert far.recv(10) == b""  # the worker closes what its function leaves open
        with pytest.raises(CallEnded) as caught:
            await place(workers, "fail before it is ready")
        assert caught.value.reason is EndReason.APPLICATION_FAILED
        assert caught.value.__notes__ == ["in worker 1: KeyError"]
        failing = await place(workers, "fail")
        record = await failing.wait_ended()
        assert (record.reason, record.cause) == (EndReason.APPLICATION_FAILED, "KeyError")
        assert call.record is None
        with pytest.raises(ConfigError, match="cannot travel"):
            await workers.place({"what": object()})
        with trio.move_on_after(0) as cancelled:
            await place(workers)
        assert cancelled.cancelled_caught
        await until(lambda: workers.statistics().calls == 1)
        assert call.record is None


async def test_a_call_is_refused_when_every_worker_refuses() -> None:
    async with workers_of(count=2, engine=dataclasses.replace(UNHURRIED, max_calls=1)) as workers:
        first, second = await place(workers), await place(workers)
        assert first.worker != second.worker
        with pytest.raises(CallEnded) as caught:
            await place(workers)
        assert caught.value.reason is EndReason.NO_CAPACITY
        second.hang_up()
        await second.wait_ended()
        # The least loaded one comes first, and who has refused once is asked again.
        third = await place(workers)
        assert third.worker == second.worker
        assert workers.statistics().calls_refused == 1


async def test_a_worker_without_a_port_left_refuses() -> None:
    async with workers_of(port_range=(21610, 21613)) as workers:
        first = await place(workers)
        with pytest.raises(CallEnded) as caught:
            await place(workers)
        assert caught.value.reason is EndReason.NO_CAPACITY
        first.hang_up()
        await first.wait_ended()
        assert (await place(workers)).answer == first.answer


async def test_a_worker_that_is_lost_ends_its_own_calls_and_is_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    fates = ("be killed", "hang", "stop", "talk nonsense", "leave in the middle of a message", "live")
    two_each = dataclasses.replace(UNHURRIED, max_calls=2)
    async with workers_of(count=len(fates), hang_s=2.0, engine=two_each) as workers:
        before = {one.pid for one in workers.statistics().workers}
        calls: dict[str, PlacedCall] = {}
        pids: dict[str, int] = {}
        # Two calls each, of which one brings the worker its fate, and the other is known to be lost with it.
        placed: dict[int, list[tuple[PlacedCall, socket.socket]]] = {}
        for _ in range(2 * len(fates)):
            tells, told = socket.socketpair()
            with told:
                call = await workers.place({"do": "as told"}, [told])
            placed.setdefault(call.worker, []).append((call, tells))
        by_worker: dict[int, PlacedCall] = {}
        for fate, ((call, tells), (beside, idle)) in zip(fates, placed.values(), strict=True):
            calls[fate], by_worker[call.worker] = call, beside
            pids[fate] = call.answer["pid"]
            tells.sendall(fate.encode())
            tells.close()
            idle.close()
        assert set(pids.values()) == before
        os.kill(pids["be killed"], signal.SIGKILL)
        for fate in fates[:-1]:
            record = await calls[fate].wait_ended()
            assert record.reason is EndReason.WORKER_LOST, fate
            assert (await by_worker[calls[fate].worker].wait_ended()).reason is EndReason.WORKER_LOST
            assert is_gone(pids[fate])
        lost = set(pids.values()) - {pids["live"]}
        assert pids["live"] in await wait_for_pids(workers, len(fates), lost)
        assert calls["live"].record is None
        again = await place(workers)
        assert again.answer["pid"] not in before
        statistics = workers.statistics()
        assert (statistics.workers_lost, statistics.calls_lost, statistics.restarts) == (5, 10, 5)
        calls["live"].hang_up()
        assert (await calls["live"].wait_ended()).reason is EndReason.PLATFORM_HUNG_UP
    # Where it hung is on stderr, which is ours.
    said = capfd.readouterr().err
    assert "most recent call first" in said
    assert "worker_calls.py" in said


async def test_a_worker_that_cannot_begin_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "changing_calls.py"
    right = "from support.worker_calls import run_call\n"
    module.write_text(right)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    async with workers_of("changing_calls:run_call", backoff_s=0.05, backoff_max_s=0.2) as workers:
        call = await place(workers)
        module.write_text("no_such_name\n")
        # A restart finds out before anything is given up.
        with pytest.raises(ConfigError, match=r"changing_calls:run_call.*NameError"):
            await workers.restart(1)
        assert call.record is None
        (one,) = workers.statistics().workers
        os.kill(one.pid, signal.SIGKILL)
        assert (await call.wait_ended()).reason is EndReason.WORKER_LOST
        with pytest.raises(CallEnded) as caught:
            await place(workers)
        assert caught.value.reason is EndReason.NO_CAPACITY
        await until(lambda: workers.statistics().restarts >= 2)
        module.write_text(right)
        await wait_for_pids(workers, 1, {one.pid})
        await place(workers)


async def test_a_rolling_restart_refuses_no_call_and_lets_live_ones_finish() -> None:
    async with workers_of(count=2, port_range=(21700, 21999)) as workers:
        before = {one.pid for one in workers.statistics().workers}
        long = [await place(workers, last_s=1.0) for _ in range(2)]
        placed: list[PlacedCall] = []
        async with trio.open_nursery() as nursery:

            async def keep_placing() -> None:
                while True:
                    placed.append(await place(workers, last_s=0.05))
                    await trio.sleep(0.02)

            nursery.start_soon(keep_placing)
            await workers.restart(40)
            n_during = len(placed)
            await until(lambda: len(placed) > n_during + 2)
            nursery.cancel_scope.cancel()
        after = {one.pid for one in workers.statistics().workers}
        assert len(after) == 2
        assert not after & before
        assert n_during > 5
        assert {call.answer["pid"] for call in placed} & after
        for call in [*long, *placed]:
            assert (await call.wait_ended()).reason is EndReason.PLATFORM_HUNG_UP
        assert workers.statistics().restarts == 2
        assert [one.restarts for one in workers.statistics().workers] == [1, 1]
        assert workers.statistics().workers_lost == 0


async def test_a_drain_waits_for_calls_within_its_deadline_and_ends_the_rest() -> None:
    async with workers_of(count=2) as workers:
        short = await place(workers, last_s=0.2)
        forever = await place(workers)
        records = await workers.drain(1.5)
        assert records == [forever.record]
        assert records[0].reason is EndReason.DRAINED
        assert short.record is not None
        assert short.record.reason is EndReason.PLATFORM_HUNG_UP
        assert workers.statistics().workers == ()
        with pytest.raises(CallEnded) as caught:
            await place(workers)
        assert caught.value.reason is EndReason.DRAINED
        assert await workers.drain(1.0) == []


async def test_a_function_that_does_not_care_is_ended_with_its_process() -> None:
    async with workers_of("support.worker_calls:stubborn", goodbye_s=0.1) as workers:
        call = await workers.place()
        assert await workers.drain(0.1) == []
    assert call.record is not None
    assert call.record.reason is EndReason.WORKER_LOST
    assert is_gone(call.answer["pid"])


async def test_a_signalled_worker_drains_and_another_takes_its_place() -> None:
    async with workers_of(drain_s=40) as workers:
        first, forever = await place(workers), await place(workers)
        pid = first.answer["pid"]
        os.kill(pid, signal.SIGTERM)
        await wait_for_pids(workers, 1, {pid})
        assert first.record is None
        second = await place(workers)
        assert second.answer["pid"] != pid
        first.hang_up()
        assert (await first.wait_ended()).reason is EndReason.PLATFORM_HUNG_UP
        os.kill(pid, signal.SIGINT)
        assert (await forever.wait_ended()).reason is EndReason.DRAINED
        await wait_gone(pid)
        assert second.record is None
        assert workers.statistics().workers_lost == 0


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module_here:run", "no_such_module_here:run' cannot be imported: ModuleNotFoundError"),
        ("support.worker_calls:no_such", "has no no_such"),
        ("this:c", "must be a function"),
    ],
)
async def test_what_a_worker_cannot_import_is_said_at_the_opening(target: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        async with workers_of(target):
            raise AssertionError("it began")


async def test_a_worker_that_dies_while_it_begins_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying_calls.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"a worker could not begin: it ended \(exit status 7\)"):
        async with workers_of("dying_calls:run_call"):
            raise AssertionError("it began")


async def test_the_block_s_own_exception_leaves_bare_and_cancellation_leaves_nothing() -> None:
    pids: list[int] = []

    async def fail() -> None:
        async with workers_of() as workers:
            pids.append((await place(workers)).answer["pid"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with trio.CancelScope() as scope:
        async with workers_of() as workers:
            call = await place(workers)
            pids.append(call.answer["pid"])
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    call.hang_up(EndReason.STOPPED)
                    assert (await call.wait_ended()).reason is EndReason.STOPPED
    with trio.move_on_after(0.1):
        async with workers_of():
            raise AssertionError("it began within a tenth of a second")
    assert len(pids) == 2
    assert all(map(is_gone, pids))


async def test_no_worker_outlives_its_front_not_even_one_that_hangs() -> None:
    pids: list[int] = []

    async def kill_the_front() -> None:
        async with running("workers_front.py", "", "hang") as front:
            await front.wait_for("call", 2)
            pids.extend(one["pid"] for one in front.all("call"))
            front.process.kill()

    with trio.fail_after(30):
        with pytest.raises(ExceptionGroup) as caught:
            await kill_the_front()
        assert caught.group_contains(subprocess.CalledProcessError, match="SIGKILL")
        assert len(pids) == 2
        for pid in pids:
            await wait_gone(pid)


async def test_a_front_program_drains_at_the_first_signal_and_is_forced_by_the_second() -> None:
    with trio.fail_after(30):
        async with running("workers_front.py", "") as front:
            call = await front.wait_for("call")
            front.process.send_signal(signal.SIGTERM)
            await trio.sleep(0.3)
            assert front.all("ended") == []
            front.process.send_signal(signal.SIGTERM)
            assert (await front.wait_for("ended"))["reason"] == "drained"
            await front.wait_for("drained")
            await wait_gone(call["pid"])
        assert front.process.returncode == 0


def test_a_worker_is_not_started_by_hand() -> None:
    command = [sys.executable, "-m", "talkpath.engine.worker"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 2
    assert "open_workers" in answer.stderr
