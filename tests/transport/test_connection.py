"""A connection that is full, and closed while it is: what two tasks do with one socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from support.frames import CLOSE, TEXT, Frame, take_frame
from talkpath._native import ffi, lib
from talkpath.events import MediaFormat
from talkpath.path.pool import Pool
from talkpath.path.stream import native_format
from talkpath.transport.driver_tasks import TasksDriver
from talkpath.transport.link import SocketLink
from talkpath.transport.websocket import Connection

pytestmark = pytest.mark.smoke


class Owner:
    """Takes what a connection reports."""

    hears_media = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *facts: self.said.append(name)


@pytest.fixture
async def full() -> AsyncIterator[tuple[Connection, Owner, socket.socket]]:
    """A server's connection whose peer has not read for long: control messages wait."""
    driver: Any = TasksDriver()
    driver.clock = SimpleNamespace(now_ns=lambda: 0, nudge=lambda: None, virtual=False)
    pool = Pool(1 << 16)
    stream, config = ffi.new("tp_stream *"), ffi.new("tp_stream_config *")
    config.role, config.framing, config.format = 2, 1, native_format(MediaFormat("PCMU", 8000))
    config.message_ms, config.bound_ms, config.max_message_bytes = 20, 1000, 1 << 20
    assert lib.tp_stream_init(stream, pool.native, config, 8000, 0) == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before connecting, or the window grows unasked
        theirs.connect(server.getsockname())
        ours, _ = server.accept()
    owner = Owner()
    connection = Connection(
        driver, SocketLink(ours), stream, owner, masked=False, max_message_bytes=1 << 20, mask_seed=1
    )
    connection.start(0)
    while "on_full" not in owner.said:
        connection.send_message(b"x" * 1000)
    for _ in range(3):
        connection.send_message(b"waits")
    theirs.setblocking(False)
    yield connection, owner, theirs
    connection.abort()
    theirs.close()
    driver.close()


async def read_frames(sock: socket.socket, until: int) -> list[Frame]:
    """Read whole frames up to one with opcode `until`."""
    unread, frames = bytearray(), list[Frame]()
    while not frames or frames[-1].opcode != until:
        await trio.lowlevel.wait_readable(sock)
        unread += sock.recv(65536)
        while (one := take_frame(unread)) is not None:
            frames.append(one)
    return frames


async def test_a_goodbye_waits_for_the_flush_under_way_and_follows_it(
    full: tuple[Connection, Owner, socket.socket],
) -> None:
    connection, owner, theirs = full
    results: list[bool] = []

    async def flush() -> None:
        results.append(await connection.flush())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(connection.close, 1000)
            await trio.testing.wait_all_tasks_blocked()
            frames = await read_frames(theirs, CLOSE)
            theirs.send(b"\x88\x80\0\0\0\0")
    assert results == [True]
    assert [one.payload for one in frames if one.opcode == TEXT][-3:] == [b"waits"] * 3
    assert frames[-1].close_code == 1000
    assert not set(owner.said) - {"on_full"}


async def test_closing_under_a_waiting_flush_raises_nothing(full: tuple[Connection, Owner, socket.socket]) -> None:
    connection, owner, _ = full
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.flush)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.01):
                await connection.close(1000)
    assert connection.broken
    assert connection.link.fd is None
    assert not set(owner.said) - {"on_full"}


async def test_a_peer_that_takes_nothing_is_told_from_one_that_is_slow(
    full: tuple[Connection, Owner, socket.socket],
) -> None:
    connection, _, theirs = full
    assert not await connection.flush(0.01)

    async def read_slowly() -> None:
        for _ in range(1000):
            await trio.sleep(0.001)
            try:
                theirs.recv(2000)
            except BlockingIOError:
                return

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            assert await connection.flush(2)
