"""The door: how many may be at it, in all and of each address, and what they cost who say nothing."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
import trio
import trustme

from support.frames import TEXT, frame
from support.peer import Peer
from support.served import START, served_on_sockets
from talkpath.line import Access, ServeConfig
from talkpath.line.accepting import Door, Visit, neighbourhood
from talkpath.testing import quiescence
from talkpath.transport.link import SocketLink
from talkpath.transport.tls import server_context

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("memory", "memory"),
        ("", ""),
    ],
)
def test_an_address_counts_for_itself_and_of_ipv6_its_64(address: str, one: str) -> None:
    assert neighbourhood(address) == one


def visit(door: Door, address: str) -> Visit:
    one = door.visit(address, object())
    assert one is not None
    return one


async def test_handshakes_and_connections_are_counted_apart() -> None:
    door = Door(ServeConfig(max_handshakes_per_address=2, max_connections_per_address=3))
    first, second = visit(door, "2001:db8::1"), visit(door, "2001:db8::2")
    assert door.visit("2001:db8::3", object()) is None
    visit(door, "2001:db8:0:1::1")
    first.settled()
    first.settled()
    third = visit(door, "2001:db8::3")
    third.settled()
    second.settled()
    assert door.visit("2001:db8::4", object()) is None, "three connections live"
    second.left()
    second.left()
    visit(door, "2001:db8::4").left()
    assert door.turned_away == 2
    first.left()
    third.left()
    assert "2001:db8::/64" not in door.connected | door.handshaking


async def test_a_proxy_is_counted_as_those_behind_it() -> None:
    door = Door(
        ServeConfig(max_handshakes_per_address=1, max_connections_per_address=1, proxies=("10.0.0.0/8",)),
    )
    visits = [visit(door, "10.0.0.1") for _ in range(4)]
    assert [one.is_for(address) for one, address in zip(visits, ["192.0.2.1", "192.0.2.2"] * 2, strict=True)] == [
        True,
        True,
        False,
        False,
    ]
    for one in visits:
        one.left()
    assert not door.connected
    assert not door.handshaking


async def test_no_limit_is_none_or_nought() -> None:
    for none in (None, 0):
        door = Door(ServeConfig(max_handshakes_per_address=none, max_connections_per_address=none))
        for _ in range(1000):
            visit(door, "192.0.2.1")


# On sockets


def connect_from(source: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), source_address=(source, 0))


async def said(sock: socket.socket) -> bytes:
    """What the server says until it hangs up."""
    sock.setblocking(False)
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            await trio.lowlevel.wait_readable(sock)
            data = sock.recv(4096)
            if not data:
                break
            got += data
    return got


async def open_line(sock: socket.socket, *headers: tuple[str, str]) -> Peer:
    peer = Peer(SocketLink(sock), client=True)
    await peer.upgrade_as_client("/", *headers)
    if "101" in peer.head:
        await peer.send(frame(TEXT, json.dumps(START).encode(), key=peer.key))
    return peer


async def until(condition: object) -> None:
    with trio.fail_after(5):
        while not condition():  # type: ignore[operator] # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)


async def test_one_address_takes_no_more_than_its_share_of_the_door() -> None:
    with quiescence():
        config = ServeConfig(max_handshakes=8, max_handshakes_per_address=3)
        async with served_on_sockets(config) as server:
            port = server.addresses[0][1]
            silent = [connect_from("127.0.0.1", port) for _ in range(3)]
            await until(lambda: server.server.statistics().handshakes >= 3)
            for _ in range(20):
                with connect_from("127.0.0.1", port) as sock:
                    answer = await said(sock)
                assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n")
            peer = await open_line(connect_from("127.0.0.2", port))
            assert "101" in peer.head
            await until(lambda: server.lines)
            assert server.server.statistics().refused == {"address": 20}
            silent.pop().close()
            await until(lambda: server.server.door.handshaking["127.0.0.1"] == 2)
            again = await open_line(connect_from("127.0.0.1", port))
            assert "101" in again.head
            for sock in silent:
                sock.close()
            peer.link.close()
            again.link.close()


async def test_a_flood_of_the_silent_is_over_when_their_time_is() -> None:
    with quiescence():
        config = ServeConfig(handshake_s=0.3, max_handshakes=16, max_handshakes_per_address=None)
        async with served_on_sockets(config) as server:
            port = server.addresses[0][1]
            flood = [connect_from("127.0.0.1", port) for _ in range(60)]
            for sock in flood[::3]:
                sock.send(b"GET / HTTP/1.1\r\nHost: ")
            for sock in flood[1::3]:
                sock.send(b"PRI * HTTP/2.0\r\n\r\nSM")
            peer = await open_line(connect_from("127.0.0.1", port))
            assert "101" in peer.head, "behind all of them"
            for sock in flood:
                with sock:
                    await said(sock)
            await until(lambda: server.lines)
            await until(lambda: server.server.statistics().handshakes == 0)
            assert server.server.door.connected == {"127.0.0.1": 1}
            assert server.server.door.handshaking == {}
            peer.link.close()


async def test_connections_of_an_address_are_bounded_while_they_live() -> None:
    with quiescence():
        async with served_on_sockets(ServeConfig(max_connections_per_address=1)) as server:
            port = server.addresses[0][1]
            first = await open_line(connect_from("127.0.0.1", port))
            await until(lambda: server.lines)
            with connect_from("127.0.0.1", port) as sock:
                assert (await said(sock)).startswith(b"HTTP/1.1 429 ")
            other = await open_line(connect_from("127.0.0.2", port))
            assert "101" in other.head
            first.link.close()
            await until(lambda: server.records)
            await until(lambda: not server.server.door.connected["127.0.0.1"])
            again = await open_line(connect_from("127.0.0.1", port))
            assert "101" in again.head
            again.link.close()
            other.link.close()


async def test_who_stands_behind_a_proxy_is_counted_there() -> None:
    config = ServeConfig(
        max_connections_per_address=1, proxies=("127.0.0.1/32",), access=Access(networks=("198.51.100.0/24",))
    )
    with quiescence():
        async with served_on_sockets(config) as server:
            port = server.addresses[0][1]
            answers = []
            peers = []
            for address in ("198.51.100.1", "198.51.100.1", "198.51.100.2", "192.0.2.1"):
                peer = await open_line(connect_from("127.0.0.1", port), ("X-Forwarded-For", f"6.6.6.6, {address}"))
                answers.append(peer.head.split(" ")[1])
                peers.append(peer)
            assert answers == ["101", "429", "101", "403"]
            # From elsewhere the header is nobody's word.
            peer = await open_line(connect_from("127.0.0.2", port), ("X-Forwarded-For", "198.51.100.9"))
            assert "403" in peer.head
            for one in (*peers, peer):
                one.link.close()


async def test_over_tls_one_too_many_is_hung_up_on_unheard(tmp_path: Path) -> None:
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = ServeConfig(max_handshakes_per_address=1, tls_context=server_context(tmp_path / "server.pem"))
    with quiescence():
        async with served_on_sockets(config) as server:
            port = server.addresses[0][1]
            with connect_from("127.0.0.1", port), connect_from("127.0.0.1", port) as second:
                assert await said(second) == b""
