"""The system under test: talkpath through its public face alone, as a call server embeds it.

One `open_call` block per call in a task of its own, one bidirectional stream on Plivo's wire, nothing between the
engine and the benchmark that a user would not have. Beyond what every design does it closes calls, lets them come and
go (`churn`), looks for what is left over (`audit`), and can do other work in the same process (`--lumps`).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import ssl
import statistics
import sys
import time
from typing import Any

import trio

import talkpath
from benchmarks.control import UNAVAILABLE, Peers, serve_control
from talkpath.errors import ConfigError
from talkpath.testing.quiescent import ResourceSnapshot

SETUPS_AT_ONCE = 8
LUMP_EVERY_S = 0.1
LUMP_NS = 20_000_000
SETTLE_S = 3.0
SETTLE_LOOKS = 30
SCHEDULERS = {os.SCHED_OTHER: "SCHED_OTHER", os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR"}


class Server:
    """Holds calls open until it is told to stop, and adds up what their records say."""

    def __init__(self, engine: talkpath.Engine, scheme: str, message_ms: int) -> None:
        self._engine = engine
        self._scheme = scheme
        self._message_ms = message_ms
        self._live: dict[int, tuple[trio.CancelScope, trio.Event]] = {}
        self._before: ResourceSnapshot | None = None
        self._failed: dict[str, int] = {}
        self._setup_s: list[float] = []
        self.ended: dict[str, int] = {}
        self.lump_cpu_s = 0.0

    def statistics(self) -> dict[str, Any]:
        """Return what every answer says of the design."""
        return {
            "live": len(self._live),
            "ended": self.ended,
            "lump_cpu_s": self.lump_cpu_s,
            "schedulers": _schedulers(),
            "engine": dataclasses.asdict(self._engine.statistics()),
        }

    async def run_call(
        self,
        number: int,
        ws_port: int,
        rtp_port: int,
        hold_s: float = float("inf"),
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep one call with one stream until it is closed; reports its local RTP port when media can flow."""
        leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", rtp_port), codec="PCMU", ptime_ms=20)
        stream = talkpath.StreamSpec(
            url=f"{self._scheme}://127.0.0.1:{ws_port}/{number}",
            wire="plivo",
            bidirectional=True,
            codec="PCMU",
            message_ms=self._message_ms,
        )
        gone = trio.Event()
        began = time.monotonic()
        try:
            with trio.move_on_after(hold_s) as scope:
                self._live[number] = scope, gone
                async with self._engine.open_call(leg) as call:
                    await call.start_stream(stream)
                    self._setup_s.append(time.monotonic() - began)
                    task_status.started(call.leg.local_address[1])
                    record = await call.wait_ended()
                self.ended[record.reason.value] = self.ended.get(record.reason.value, 0) + 1
        finally:
            del self._live[number]
            gone.set()

    async def close(self, command: dict[str, Any]) -> dict[str, Any]:
        """Cancel calls, all at once, and wait until nothing of them is left; says what it cost."""
        numbers = range(command["first"], command["first"] + command["count"])
        going = [self._live[number] for number in numbers if number in self._live]
        cpu_s, media_s, began = time.process_time(), self._media_s(), time.monotonic()
        for scope, _ in going:
            scope.cancel()
        for _, gone in going:
            await gone.wait()
        return {
            "closed": len(going),
            "close_cpu_s": time.process_time() - cpu_s,
            "close_media_s": self._media_s() - media_s,
            "close_s": time.monotonic() - began,
        }

    def _media_s(self) -> float:
        """Processor time that the pump has spent so far; 0 where there is none, for then nothing tells it apart."""
        return getattr(self._engine.driver, "media_cpu_ns", 0) / 1e9

    async def churn(self, command: dict[str, Any]) -> dict[str, Any]:
        """Open calls at a steady rate, each for the same time; the far ends' ports are used again and again."""
        self.look_around()
        ports, total, hold_s = command["rtp_ports"], command["total"], command["hold_s"]
        self._setup_s.clear()
        waited, cpu_s, began = 0, time.process_time(), trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(total):
                await trio.sleep_until(began + number / command["per_second"])
                slot = number % len(ports)
                if slot in self._live:
                    waited += 1
                    await self._live[slot][1].wait()
                nursery.start_soon(self._try_call, slot, command["ws_port"], ports[slot], hold_s)
            spawned_s = trio.current_time() - began
        took = sorted(self._setup_s)
        return {
            "spawned_s": spawned_s,
            "churn_s": trio.current_time() - began,
            "churn_cpu_s": time.process_time() - cpu_s,
            "set_up": len(took),
            "failed": self._failed,
            "waited_for_a_port": waited,
            "setup_ms": {
                "p50": 1e3 * statistics.median(took),
                "p99": 1e3 * took[len(took) * 99 // 100],
                "max": 1e3 * took[-1],
            },
        }

    async def _try_call(self, slot: int, ws_port: int, rtp_port: int, hold_s: float) -> None:
        try:
            await self.run_call(slot, ws_port, rtp_port, hold_s)
        except Exception as exc:
            self._failed[type(exc).__name__] = self._failed.get(type(exc).__name__, 0) + 1
            print(f"call on {slot}: {exc!r}", file=sys.stderr)

    def look_around(self) -> None:
        """Remember what is in use before the first call."""
        self._before = self._before or ResourceSnapshot.take()

    async def audit(self, command: dict[str, Any]) -> dict[str, Any]:
        """Say what is in use that was not before the first call; what is on its way out gets a moment."""
        self.look_around()
        assert self._before is not None
        now = ResourceSnapshot.take()
        for _ in range(SETTLE_LOOKS):
            if not now.left_since(self._before):
                break
            await trio.sleep(SETTLE_S / SETTLE_LOOKS)
            now = ResourceSnapshot.take()
        return {
            "left": now.left_since(self._before),
            "tasks": len(now.tasks),
            "descriptors": len(now.descriptors),
            "counts": dict(now.counts),
        }

    async def make_lumps(self) -> None:
        """Do 20 ms of pure Python work every 100 ms, as an application in the same process does.

        The work is measured on this thread's own clock, so that it stays the same amount when something goes before it.
        """
        deadline = trio.current_time()
        while True:
            deadline += LUMP_EVERY_S
            await trio.sleep_until(deadline)
            began = time.thread_time_ns()
            while time.thread_time_ns() - began < LUMP_NS:
                sum(each * each for each in range(200))
            self.lump_cpu_s += (time.thread_time_ns() - began) * 1e-9


def _schedulers() -> dict[str, int]:
    """Count this process's threads by how the kernel schedules them: whether real time was permitted shows here."""
    threads: dict[str, int] = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            policy = os.sched_getscheduler(int(thread))
        except ProcessLookupError:
            continue
        name = SCHEDULERS.get(policy, str(policy))
        threads[name] = threads.get(name, 0) + 1
    return threads


async def main(
    config: talkpath.EngineConfig, scheme: str, message_ms: int, lumps: bool, make: type[Server] = Server
) -> None:
    """Serve the harness on standard input and output."""
    async with talkpath.open_engine(config) as engine, trio.open_nursery() as nursery:
        server = make(engine, scheme, message_ms)

        async def open_calls(peers: Peers) -> list[int]:
            server.look_around()
            ports = [0] * len(peers.rtp_ports)
            waiting = iter(enumerate(peers.rtp_ports))

            async def open_some() -> None:
                for at, rtp_port in waiting:
                    ports[at] = await nursery.start(server.run_call, peers.first + at, peers.ws_port, rtp_port)

            async with trio.open_nursery() as setups:
                for _ in range(SETUPS_AT_ONCE):
                    setups.start_soon(open_some)
            return ports

        if lumps:
            nursery.start_soon(server.make_lumps)
        commands = {"close": server.close, "churn": server.churn, "audit": server.audit}
        await serve_control(open_calls, server.statistics, commands=commands)
        nursery.cancel_scope.cancel()


def configure(options: argparse.Namespace) -> talkpath.EngineConfig:
    """Make the engine's options of what the command line says; what it does not say stays as talkpath has it.

    Raises:
        ConfigError, TypeError: this talkpath has no such driver or option.
    """
    # What is to be found is where it no longer keeps time, and it would rather take no more calls before.
    chosen: dict[str, Any] = {"max_calls": 8192, "max_busy_share": None, "max_lateness_ms": None}
    if options.driver:
        chosen["driver"] = options.driver
    if options.media_thread:
        chosen["media_thread"] = True
    if options.wss:
        chosen["tls_context"] = ssl.create_default_context(cafile=options.wss)
    return talkpath.EngineConfig(**chosen)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser of the command line that `configure` reads; another server may have more words on it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--driver", help="who moves plain media; the engine's default when not given")
    parser.add_argument("--media-thread", action="store_true", help="on a thread of its own")
    parser.add_argument("--message-ms", type=int, default=20, help="audio in one media message")
    parser.add_argument("--wss", metavar="CA_FILE", help="streams over TLS, trusting this authority")
    return parser


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--lumps", action="store_true", help="20 ms of Python work every 100 ms beside the calls")
    asked = parser.parse_args()
    try:
        wanted = configure(asked)
    except (ConfigError, TypeError) as cannot:
        print(cannot, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    trio.run(main, wanted, "wss" if asked.wss else "ws", asked.message_ms, asked.lumps)
