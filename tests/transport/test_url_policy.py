"""Where connections may go: addresses judged, names resolved once, nothing followed."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

from support.virtual import virtual_engine
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.records import EndReason
from talkpath.transport.http import DeliveryOptions, DeliveryResult, deliver
from talkpath.transport.url_policy import EVERYWHERE, DestinationForbidden, UrlPolicy, open_permitted
from talkpath.wire.callback import callback

PUBLIC = ["8.8.8.8", "1.1.1.1", "192.0.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "no address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert UrlPolicy().permits(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_public_is_refused_unless_allowed(address: str) -> None:
    assert not UrlPolicy().permits(address)
    assert not UrlPolicy(networks=("11.0.0.0/8", "fd11::/16")).permits(address)
    assert EVERYWHERE.permits(address)


def test_a_network_is_allowed_in_whatever_dress_its_addresses_come() -> None:
    policy = UrlPolicy(networks=("127.0.0.0/8", "fd00::/8"))
    assert policy.permits("127.0.0.1")
    assert policy.permits("::ffff:127.0.0.1")
    assert policy.permits("fd12::1")
    assert not policy.permits("10.0.0.1")
    assert not policy.permits("::1")


@pytest.mark.parametrize(
    ("policy", "right", "wrong"),
    [
        (UrlPolicy(schemes=("https",)), ("https", "a", 1), ("http", "a", 1)),
        (UrlPolicy(ports=(443,)), ("https", "a", 443), ("https", "a", 22)),
        (UrlPolicy(hosts=("app.example",)), ("https", "App.Example.", 1), ("https", "app.example.org", 1)),
        (UrlPolicy(hosts=("app.example",)), ("https", "app.example", 1), ("https", "x.app.example", 1)),
        (UrlPolicy(hosts=("*.app.example",)), ("https", "x.app.example", 1), ("https", "app.example", 1)),
        (UrlPolicy(hosts=("*.app.example",)), ("https", "x.y.app.example", 1), ("https", "evilapp.example", 1)),
    ],
)
def test_schemes_hosts_and_ports_are_allow_lists(
    policy: UrlPolicy, right: tuple[str, str, int], wrong: tuple[str, str, int]
) -> None:
    policy.check(*right)
    with pytest.raises(DestinationForbidden):
        policy.check(*wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"schemes": "https"},
        {"schemes": ("HTTPS",)},
        {"hosts": ("https://app.example",)},
        {"hosts": ("",)},
        {"ports": (0,)},
        {"ports": (True,)},
        {"networks": ("10.0.0.1/8",)},
        {"networks": ("home",)},
        {"private": 1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        UrlPolicy(**options)
    with pytest.raises(ConfigError):
        EngineConfig(callback_policy=options)  # type: ignore[arg-type]


class Names(trio.abc.HostnameResolver):
    """A name service of one name, that answers something else each time."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        self.asked += 1
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, int(port), 0, 0) if ":" in address else (address, int(port)),
            )
            for address in self.answers.pop(0)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks")


async def serve_once(nursery: trio.Nursery) -> tuple[int, list[bytes]]:
    """A web server on loopback that redirects. -> its port, what it is asked"""
    heads: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        heads.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, listeners)
    return listeners[0].socket.getsockname()[1], heads


@pytest.mark.smoke
async def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    # A name that is public when it is looked at and private when it is used does not get its second answer.
    names = Names(["127.0.0.1"], ["10.99.99.99"])
    trio.socket.set_custom_hostname_resolver(names)
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                port, heads = await serve_once(nursery)
                request = callback("GET", f"http://app.example:{port}/", {})
                policy = UrlPolicy(networks=("127.0.0.1/32",))
                result = await deliver(request, delivery_id="d", policy=policy)
                assert result == DeliveryResult(False, 1, 302, "status"), "and a redirect is not followed"
                nursery.cancel_scope.cancel()
    finally:
        trio.socket.set_custom_hostname_resolver(None)
    assert names.asked == 1
    assert len(heads) == 1
    assert f"Host: app.example:{port}\r\n".encode() in heads[0]


@pytest.mark.smoke
async def test_of_a_names_addresses_only_the_permitted_ones_are_tried() -> None:
    names = Names(["10.99.99.99", "127.0.0.2", "127.0.0.1"])
    trio.socket.set_custom_hostname_resolver(names)
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                port, _ = await serve_once(nursery)
                # Nobody listens at 127.0.0.2.
                stream = await open_permitted(UrlPolicy(networks=("127.0.0.0/8",)), "http", "app.example", port)
                assert stream.socket.getpeername()[0] == "127.0.0.1"
                await stream.aclose()
                nursery.cancel_scope.cancel()
    finally:
        trio.socket.set_custom_hostname_resolver(None)


async def test_a_forbidden_destination_is_not_tried_again() -> None:
    options = DeliveryOptions(attempts=5)
    for url in ("http://127.0.0.1:9/", "http://[::ffff:127.0.0.1]:9/", "http://2130706433:9/", "http://0x7f.1:9/"):
        result = await deliver(callback("POST", url, {}), delivery_id="d", options=options)
        assert result == DeliveryResult(False, 1, None, "DestinationForbidden")


async def test_cancelled_or_in_vain_nothing_is_left_open() -> None:
    policy = UrlPolicy(networks=("127.0.0.0/8",))
    with pytest.raises(OSError):
        await open_permitted(policy, "http", "127.0.0.1", 9)
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_permitted(policy, "http", "127.0.0.1", 9)
    assert scope.cancelled_caught


async def test_streams_go_everywhere_unless_a_policy_says_otherwise(autojump: object) -> None:
    for policy, cause in ((UrlPolicy(), "DestinationForbidden"), (EVERYWHERE, "ConnectionRefusedError")):
        config = EngineConfig(pool_bytes=1 << 20, connect_attempts=1, stream_policy=policy)
        async with virtual_engine(config) as engine, engine.open_call(MemoryLeg()) as call:
            with pytest.raises(CallEnded) as caught:
                await call.start_stream(StreamSpec(url="ws://127.0.0.1:9/"))
            assert caught.value.reason is EndReason.CONNECT_FAILED
            assert type(caught.value.cause).__name__ == cause
