"""The yardstick of lateness: a Trio process that does nothing but keep time.

One clock task on a timerfd of 5 ms with four phases, and one UDP packet per phase and 20 ms, so that the same
instrument (kernel receive timestamps in the load generator, each call's own best grid) measures it as measures the
engines. What it shows is the machine, the kernel's timers, the interpreter's wake-up and one send; a design's
lateness beyond that is the design's own. Where there is no timerfd it sleeps with `trio.sleep_until` and says so.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from typing import Any

import trio

from benchmarks.control import Peers, serve_control

PHASES = 4
TICK_NS = 5_000_000
FRAME_SAMPLES = 160

CLOCK_MONOTONIC = 1
TFD_NONBLOCK = 0o4000
TFD_CLOEXEC = 0o2000000
TFD_TIMER_ABSTIME = 1


def open_timerfd(first_ns: int, interval_ns: int) -> int | None:
    """Open a periodic timerfd on the monotonic clock; None where the C library has none.

    Python has it from 3.13 on; through ctypes it is the same three calls for every version.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        create, settime = libc.timerfd_create, libc.timerfd_settime
    except (OSError, AttributeError):
        return None
    fd = create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
    if fd < 0:
        return None
    times = (interval_ns // 10**9, interval_ns % 10**9, first_ns // 10**9, first_ns % 10**9)
    if settime(fd, TFD_TIMER_ABSTIME, (ctypes.c_long * 4)(*times), None) < 0:
        os.close(fd)
        return None
    return int(fd)


class Clock:
    """Ticks at absolute deadlines, never drifting; `wait()` returns how many are due."""

    def __init__(self) -> None:
        self._next_ns = time.monotonic_ns() + TICK_NS
        self._fd = open_timerfd(self._next_ns, TICK_NS)
        self.driver = "sleep_until" if self._fd is None else "timerfd"

    async def wait(self) -> int:
        """Wait for at least one tick. Cancelling it loses none: the next wait returns them."""
        if self._fd is not None:
            await trio.lowlevel.wait_readable(self._fd)
            return int.from_bytes(os.read(self._fd, 8), "little")
        await trio.sleep(max(0.0, (self._next_ns - time.monotonic_ns()) * 1e-9))
        due = max(0, (time.monotonic_ns() - self._next_ns) // TICK_NS + 1)
        self._next_ns += due * TICK_NS
        return due


async def keep_time(sockets: list[socket.socket], clock: Clock) -> None:
    """Send one packet for each tick that is due, sockets in turn."""
    packet = bytearray(172)
    header = struct.Struct("!BBHII")
    ticks = 0
    while True:
        for _ in range(await clock.wait()):
            frame, phase = divmod(ticks, PHASES)
            ticks += 1
            if phase < len(sockets):
                stamp = frame * FRAME_SAMPLES & 0xFFFFFFFF
                header.pack_into(packet, 0, 0x80, 0, frame & 0xFFFF, stamp, phase)
                sockets[phase].send(packet)


async def main() -> None:
    """Serve the harness on standard input and output."""
    clock = Clock()
    sockets: list[socket.socket] = []
    async with trio.open_nursery() as nursery:

        async def open_calls(peers: Peers) -> list[int]:
            for port in peers.rtp_ports:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setblocking(False)
                sock.connect(("127.0.0.1", port))
                sockets.append(sock)
            nursery.start_soon(keep_time, sockets, clock)
            return [sock.getsockname()[1] for sock in sockets]

        def statistics() -> dict[str, Any]:
            return {"driver": clock.driver}

        await serve_control(open_calls, statistics)
        nursery.cancel_scope.cancel()
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    trio.run(main)
