"""Lines on worker processes: the front accepts, a worker does everything else, TLS included."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trustme

import talkpath
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.engine.stream import CallStream
from talkpath.errors import ConfigError
from talkpath.line import LineWorkers, ServeConfig, open_line_workers, serve_lines_on_workers
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.transport.tls import client_context

pytestmark = [pytest.mark.smoke, pytest.mark.slow]

BOT = "support.worker_calls:bot"
TWO = talkpath.WorkersConfig(count=2, report_s=0.1, goodbye_s=1.0, pin=False)
ONE = talkpath.WorkersConfig(count=1, report_s=0.1, goodbye_s=1.0, pin=False)


@asynccontextmanager
async def serving(workers: talkpath.WorkersConfig = ONE, **options: Any) -> AsyncIterator[LineWorkers]:
    options.setdefault("config", ServeConfig(max_busy_share=None, max_lateness_ms=None))
    with trio.fail_after(60), quiescence():
        async with open_line_workers(BOT, "127.0.0.1", 0, workers=workers, **options) as server:
            yield server


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate for localhost, where `support.worker_calls.serve_config` looks for it."""
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("TALKPATH_TEST_CERTIFICATE", str(pem))
    return authority


def pid_of(stream: CallStream) -> set[str]:
    assert stream.record is not None
    return {mark.name for mark in stream.record.marks}


async def test_lines_go_to_the_least_loaded_worker_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    tls = client_context(ca_file=str(tmp_path / "ca.pem"))
    async with serving(TWO, config="support.worker_calls:serve_config") as server:
        ((_, port),) = server.addresses
        async with talkpath.open_engine(EngineConfig(tls_context=tls)) as engine, trio.open_nursery() as nursery:
            legs = [MemoryLeg(), MemoryLeg()]
            streams: list[CallStream] = []
            both = trio.Event()

            async def hold(leg: MemoryLeg, *, task_status: trio.TaskStatus[None]) -> None:
                async with engine.open_call(leg) as call:
                    url = f"wss://localhost:{port}"
                    streams.append(await call.start_stream(StreamSpec(url=url, bidirectional=True)))
                    task_status.started()
                    leg.say(ToneSource(500).take(8_000))
                    await trio.sleep(1.5)
                    await both.wait()
                    await call.stop_stream()

            for leg in legs:
                await nursery.start(hold, leg)
            assert server.statistics().calls == 2
            both.set()
        for leg in legs:
            assert find_tones(leg.heard(), 8_000, [500])
        # Each said by a checkpoint's name in which process it ran.
        assert len(pid_of(streams[0]) | pid_of(streams[1])) == 2
        assert server.statistics().calls_placed == 2


async def test_a_drain_stops_accepting_and_closes_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        ((host, port),) = server.addresses
        # Who says nothing sensible is turned away by the worker, and nobody else suffers.
        stream = await trio.open_tcp_stream(host, port)
        await stream.send_all(b"this is not HTTP\r\n\r\n")
        async for _ in stream:
            pass
        await stream.aclose()
        async with (
            talkpath.open_engine() as engine,
            engine.open_call(MemoryLeg()) as call,
        ):
            await call.start_stream(StreamSpec(url=f"ws://{host}:{port}", bidirectional=True, ends_call=True))
            records = await server.drain(0.3)
            assert [record.reason for record in records] == [EndReason.DRAINED]
            assert (await call.wait_ended()).reason in (EndReason.APPLICATION_HUNG_UP, EndReason.APPLICATION_FAILED)
        with pytest.raises(OSError):
            await trio.open_tcp_stream(host, port)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_cannot_be_served_is_said_at_the_opening() -> None:
    with pytest.raises(ConfigError, match="anyone who finds the port"):
        async with open_line_workers(BOT, "0.0.0.0", 0):
            raise AssertionError("it began")
    with pytest.raises(ConfigError, match=r"the bot 'support.worker_calls:nobody' does not exist"), quiescence():
        async with open_line_workers("support.worker_calls:nobody", "127.0.0.1", 0, workers=ONE):
            raise AssertionError("it began")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await serve_lines_on_workers(BOT, "127.0.0.1", taken.getsockname()[1], workers=ONE)


@pytest.fixture
def echo() -> Iterator[subprocess.Popen[str]]:
    """`talkpath echo` on workers."""
    command = [sys.executable, "-m", "talkpath", "echo", "--port", "0", "--workers", "1", "--drain", "20s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_the_echo_on_workers_lets_a_call_finish_and_then_goes(echo: subprocess.Popen[str]) -> None:
    assert echo.stdout is not None
    url = (await trio.to_thread.run_sync(echo.stdout.readline)).split()[-1]
    leg = MemoryLeg()
    with trio.fail_after(30):
        async with talkpath.open_engine() as engine, engine.open_call(leg) as call:
            await call.start_stream(StreamSpec(url=url, bidirectional=True))
            echo.send_signal(signal.SIGTERM)
            leg.say(ToneSource(500).take(8_000))
            await trio.sleep(1.5)
            assert echo.poll() is None
            await call.stop_stream()
        assert await trio.to_thread.run_sync(echo.wait, 10) == 0
    assert find_tones(leg.heard().astype(np.int16), 8_000, [500])


async def test_lines_over_grpc_go_to_workers_too_and_addresses_are_bounded_at_the_front() -> None:
    config = ServeConfig(max_busy_share=None, max_lateness_ms=None, max_connections_per_address=1)
    async with serving(config=config, grpc_port=0) as server:
        (_, port), (host, grpc_port) = server.addresses
        assert port != grpc_port
        leg = MemoryLeg()
        async with talkpath.open_engine() as engine, engine.open_call(leg) as call:
            spec = StreamSpec(url=f"http://{host}:{grpc_port}", wire="freeclimb", bidirectional=True)
            stream = await call.start_stream(spec)
            leg.say(ToneSource(500).take(8_000))
            with socket.create_connection((host, port)) as second:
                assert (await trio.to_thread.run_sync(second.recv, 64)).startswith(b"HTTP/1.1 429 ")
            await trio.sleep(1.5)
            await call.stop_stream()
            assert stream.record is not None
        assert find_tones(leg.heard(), 8_000, [500])
        for _ in range(100):
            if server.statistics().calls == 0:
                break
            await trio.sleep(0.02)
        async with talkpath.open_engine() as engine, engine.open_call(MemoryLeg()) as call:
            await call.start_stream(StreamSpec(url=f"ws://{host}:{port}"))
