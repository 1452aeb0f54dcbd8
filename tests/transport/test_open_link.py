"""Opening links over TCP and TLS: which address, which authorities, which error."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest
import trio
import trio.abc

from talkpath.transport import tls as tls_module
from talkpath.transport.link import open_socket_link
from talkpath.transport.tls import client_context, default_client_context


class Names(trio.abc.HostnameResolver):
    """One name, with these addresses; every other is unknown."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != b"app.example":
            raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not known")
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*kind, (address, port)) for address in self.addresses]

    async def getnameinfo(self, *args: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def port() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.smoke
@pytest.mark.parametrize("others", [(), ("127.0.0.77",), ("192.0.2.1", "127.0.0.77"), ("192.0.2.1",)])
async def test_an_address_that_refuses_or_swallows_holds_up_no_other(port: int, others: tuple[str, ...]) -> None:
    trio.socket.set_custom_hostname_resolver(Names(*others, "127.0.0.1"))
    with trio.fail_after(3):
        link = await open_socket_link("app.example", port)
    assert link.sock.getpeername() == ("127.0.0.1", port)
    assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    link.close()


@pytest.mark.smoke
async def test_a_failure_keeps_its_kind_and_names_no_host(port: int) -> None:
    trio.socket.set_custom_hostname_resolver(Names("127.0.0.77"))
    with pytest.raises(ConnectionRefusedError):
        await open_socket_link("app.example", port)
    for host in ("secret.example", "a..b", "x" * 100):
        with pytest.raises(OSError, match="cannot resolve") as caught:
            await open_socket_link(host, port)
        assert host not in str(caught.value)


@pytest.mark.smoke
async def test_an_address_is_connected_to_as_it_is(port: int) -> None:
    trio.socket.set_custom_hostname_resolver(Names())  # nobody is asked
    link = await open_socket_link("127.0.0.1", port)
    assert link.sock.getpeername() == ("127.0.0.1", port)
    assert link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert link.sock.gettimeout() == 0
    link.close()
    with pytest.raises(ConnectionRefusedError):
        await open_socket_link("127.0.0.77", port)


@pytest.mark.smoke
async def test_a_cancelled_connection_leaves_no_socket(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    connect = socket.socket

    def remember(*args: Any, **kwargs: Any) -> socket.socket:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr("talkpath.transport.link.socket.socket", remember)
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_socket_link("127.0.0.1", port)
    assert scope.cancelled_caught
    assert [one.fileno() for one in made] == [-1]


@pytest.mark.smoke
async def test_the_systems_authorities_are_read_once_and_not_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    made: list[ssl.SSLContext] = []

    def slowly() -> ssl.SSLContext:
        assert may_go_on.wait(10), "the event loop stood still"
        made.append(client_context())
        return made[-1]

    monkeypatch.setattr(tls_module, "client_context", slowly)
    monkeypatch.setattr(tls_module, "_default_context", None)
    got: list[ssl.SSLContext] = []

    async def get() -> None:
        got.append(await default_client_context())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(0.05)
        may_go_on.set()
    await get()
    assert got == [made[0]] * 2
    assert len(made) == 1
    assert got[0].verify_mode is ssl.CERT_REQUIRED
    assert got[0].check_hostname
