"""Memory links block, break and end like sockets do."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from talkpath.transport.memory import MemoryLink, connect_memory, listen_memory, memory_link_pair


def take(link: MemoryLink, n: int = 1 << 16) -> bytes:
    buffer = bytearray(n)
    return bytes(buffer[: link.recv_into(memoryview(buffer))])


def test_bytes_come_out_in_order_and_then_nothing_is_there() -> None:
    near, far = memory_link_pair()
    assert near.send(b"abc") == 3
    assert near.send(memoryview(b"defg")) == 4
    assert far.ready()
    assert far.more()
    assert take(far, 5) == b"abcde"
    assert take(far) == b"fg"
    assert not far.ready()
    with pytest.raises(BlockingIOError):
        take(far)


def test_what_was_sent_is_the_senders_to_change() -> None:
    near, far = memory_link_pair()
    data = bytearray(b"abc")
    near.send(data)
    data[:] = b"xyz"
    assert take(far) == b"abc"


def test_each_direction_holds_so_much_and_no_more() -> None:
    near, far = memory_link_pair(10)
    assert near.send(b"12345678") == 8
    assert near.send(b"9abcd") == 2
    with pytest.raises(BlockingIOError):
        near.send(b"x")
    assert far.send(b"the other way") == 10
    assert take(far, 3) == b"123"
    assert near.send(b"xyz!") == 3
    assert take(far) == b"456789axyz"


def test_after_a_close_the_other_end_reads_what_was_there_and_then_the_end() -> None:
    near, far = memory_link_pair()
    near.send(b"last words")
    near.close()
    near.close()
    assert take(far) == b"last words"
    assert take(far) == b""
    assert far.ready()
    with pytest.raises(BrokenPipeError):
        far.send(b"too late")
    for call in (lambda: take(near), lambda: near.send(b"x")):
        with pytest.raises(OSError, match="closed"):
            call()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60), st.integers(1, 20))
def test_no_byte_is_lost_doubled_or_reordered(operations: list[tuple[bool, int]], capacity: int) -> None:
    near, far = memory_link_pair(capacity)
    source, came, sent = bytes(range(256)) * 3, b"", 0
    for sends, n in operations:
        try:
            if sends:
                sent += near.send(source[sent : sent + n])
            else:
                came += take(far, n)
        except BlockingIOError:
            assert sent - len(came) == (capacity if sends else 0)
        assert 0 <= sent - len(came) <= capacity
    near.close()
    while piece := take(far):
        came += piece
    assert came == source[:sent]


async def test_waiting_ends_when_there_is_room_and_when_there_is_something(autojump: object) -> None:
    near, far = memory_link_pair(4)
    order: list[str] = []

    async def write() -> None:
        near.send(b"1234")
        await near.wait_writable()
        order.append("room")
        near.send(b"5")

    async def read() -> None:
        await far.wait_readable()
        order.append("there")
        await trio.sleep(1)
        assert order == ["there"]
        take(far, 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(write)
    assert order == ["there", "room"]
    assert take(far) == b"345"


@pytest.mark.parametrize("closer", ["near", "far"])
async def test_a_close_wakes_whoever_waits(autojump: object, closer: str) -> None:
    near, far = memory_link_pair(1)
    near.send(b"x")
    woken: list[str] = []

    async def wait(link: MemoryLink, what: str) -> None:
        await (link.wait_writable() if what == "to write" else link.wait_readable())
        woken.append(what)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, near, "to write")
        nursery.start_soon(wait, near, "to read")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        (near if closer == "near" else far).close()
    assert sorted(woken) == ["to read", "to write"]


async def test_a_listener_is_found_by_its_name_until_it_closes(autojump: object) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect_memory("here")
    listener = listen_memory("here", backlog=2)
    with pytest.raises(OSError, match="already"):
        listen_memory("here")
    first, second = connect_memory("here"), connect_memory("here")
    with pytest.raises(ConnectionRefusedError):
        connect_memory("here")
    first.send(b"one")
    second.send(b"two")
    assert take(await listener.accept()) == b"one"
    third = connect_memory("here")
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        connect_memory("here")
    assert take(second) == b"", "whoever was not accepted is told"
    assert take(third) == b""
    listen_memory("here").close()


async def test_a_cancelled_accept_takes_no_connection(autojump: object) -> None:
    listener = listen_memory("here")
    with trio.move_on_after(1) as scope:
        await listener.accept()
    assert scope.cancelled_caught
    link = connect_memory("here")
    link.send(b"hello")
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()
    assert take(await listener.accept()) == b"hello"
    listener.close()


async def test_names_are_a_runs_own() -> None:
    listener = listen_memory("here")

    async def another_run() -> None:
        with pytest.raises(ConnectionRefusedError):
            connect_memory("here")
        listen_memory("here").close()

    await trio.to_thread.run_sync(trio.run, another_run)
    connect_memory("here")
    listener.close()
