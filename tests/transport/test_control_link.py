"""A control link: messages with sockets, whole or not at all; a peer that does not read, or dies, holds up nobody."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.testing import quiescence
from talkpath.transport.control import UNSENT_BYTES_MAX, ControlLink
from talkpath.wire.control import Message, Place, Ready, Serving, Taken, encode

pytestmark = pytest.mark.smoke


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[ControlLink, ControlLink]]:
    """Two ends, each with its sender at work; nothing is left of them."""
    with trio.fail_after(10), quiescence():
        a, b = (ControlLink(sock, takes_sockets=True) for sock in socket.socketpair())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.run_sender)
                nursery.start_soon(b.run_sender)
                yield a, b
                nursery.cancel_scope.cancel()
        finally:
            a.close()
            b.close()


def put_many(link: ControlLink, message: Message, count: int) -> None:
    for _ in range(count):
        link.put(message)


def numbered(n: int) -> Place:
    return Place(n, {"text": "x" * 100}, 1)


async def test_messages_come_in_order_with_the_sockets_that_were_sent_with_them() -> None:
    async with pair() as (a, b):
        near, far = zip(*(socket.socketpair() for _ in range(5)), strict=True)
        for n, sock in enumerate(near):
            a.put(Taken(n))
            a.put(numbered(n), [sock])
            sock.close()  # a copy is on its way
        for n in range(5):
            assert (await b.receive()) is not None
            received = await b.receive()
            assert received is not None
            assert received.message == numbered(n)
            assert received.sockets is not None
            (mine,) = received.sockets
            assert not mine.get_inheritable()
            mine.sendall(b"%d" % n)
            assert far[n].recv(10) == b"%d" % n
            mine.close()
            assert far[n].recv(10) == b""
            far[n].close()


async def test_a_long_queue_is_moved_whole_while_the_other_end_reads() -> None:
    async with pair() as (a, b):
        one = Ready(1, {"blob": bytes(60_000)})
        for _ in range(12):
            a.put(one)
        for _ in range(12):
            received = await b.receive()
            assert received is not None
            assert received.message == one
        await a.flush()


async def test_an_end_that_does_not_read_breaks_the_link_and_makes_nobody_wait() -> None:
    async with pair() as (a, b):
        sock, other = socket.socketpair()
        blob = Ready(1, {"blob": bytes(60_000)})
        with pytest.raises(OSError, match="does not read"):
            put_many(a, blob, UNSENT_BYTES_MAX // 60_000 + 20)
        assert a.broken
        with pytest.raises(OSError, match="gone"):
            a.put(Serving(), [sock])
        await a.flush()
        b.put(Serving())
        received = await a.receive()
        assert received is not None  # what the other end says can still be heard
        sock.close()
        other.close()


async def test_the_end_of_the_other_process_is_an_end() -> None:
    async with pair() as (a, b):
        a.put(Serving())
        await a.flush()
        a.close()
        received = await b.receive()
        assert received is not None
        assert await b.receive() is None
        with pytest.raises(OSError, match=r"gone|Broken"):
            put_many(b, Serving(), 3)


@pytest.mark.parametrize("cut", [1, 4, 20])
async def test_an_end_in_the_middle_of_a_message_is_an_error(cut: int) -> None:
    near, far = socket.socketpair()
    link = ControlLink(near, takes_sockets=False)
    with far:
        far.sendall(encode(numbered(1))[:cut])
    with pytest.raises(RemoteWireError, match="middle"):
        await link.receive()
    link.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Descriptors are given out lowest first: all holes below the highest are filled, and the limit set behind it.
    highest = max(int(one) for one in os.listdir("/proc/self/fd"))
    taken = [os.dup(0)]
    while taken[-1] <= highest:
        taken.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
async def test_a_receiver_without_descriptors_gets_the_message_without_its_sockets() -> None:
    async with pair() as (a, b):
        sock, other = socket.socketpair()
        a.put(numbered(1), [sock])
        await a.flush()
        with no_descriptor_left():
            received = await b.receive()
        assert received is not None
        assert received.message == numbered(1)
        assert received.sockets is None
        # The next one is matched with its own.
        a.put(numbered(2), [sock])
        sock.close()
        received = await b.receive()
        assert received is not None
        assert received.message == numbered(2)
        assert received.sockets
        received.sockets[0].sendall(b"here")
        assert other.recv(10) == b"here"
        received.sockets[0].close()
        other.close()


async def test_descriptors_that_nobody_takes_are_not_left_open() -> None:
    async with pair() as (a, b):
        sock, other = socket.socketpair()
        a.put(numbered(1), [sock])
        await a.flush()
        await trio.testing.wait_all_tasks_blocked()
        sock.close()
        b.close()
        assert other.recv(10) == b""
        other.close()


async def test_what_cannot_travel_is_not_queued() -> None:
    async with pair() as (a, b):
        with pytest.raises(ConfigError):
            a.put(Ready(1, {"what": object()}))
        a.put(Serving())
        received = await b.receive()
        assert received is not None
        assert received.message == Serving()
