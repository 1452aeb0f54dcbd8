"""Where we may connect when somebody else names the address: schemes, hosts, ports, and which networks.

A server that takes URLs from its customers' documents must not become their way into its own network. Looking at the
URL is not enough: a name may point anywhere, and may point elsewhere a moment later. So the policy judges addresses.
`open_permitted` resolves a name once, judges each address and connects to one that was permitted, as an address; the
name only goes into ``Host`` and into the certificate's check.

What is refused without a word of permission is everything that is not the public network: RFC 6890's special-purpose
ranges in both families, multicast, the cloud platforms' metadata services. An IPv6 address that carries an IPv4 one
(mapped, NAT64, 6to4) is judged by what it carries.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), RFC 4291, RFC 6052, RFC 3056; 168.63.129.16 is
Azure's platform service; read 2026-11.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from talkpath.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEXT_ADDRESS_S: Final = 0.25
"""How long one address may stay silent before the next is tried beside it (RFC 8305)."""

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class DestinationForbidden(PermissionError):
    """The policy does not permit to connect there; another try would end the same."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Where connections may go. Frozen; the default permits every public address.

    Raises:
        ConfigError: says what would be right.
    """

    schemes: tuple[str, ...] = ()
    """``("https",)`` for example; empty: whatever the client speaks."""
    hosts: tuple[str, ...] = ()
    """Names, or addresses as the URL writes them; ``*.example.com`` is every name below it. Empty: any. To be named
    here does not permit a private address: a name's owner decides where it points."""
    ports: tuple[int, ...] = ()
    """Empty: any."""
    private: bool = False
    """Whether addresses that are not public are permitted: loopback, private, link-local, multicast, metadata."""
    networks: tuple[str, ...] = ()
    """Networks that are permitted although they are not public: ``("127.0.0.0/8", "10.1.0.0/16")``."""
    _networks: tuple[Network, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        for what in ("schemes", "hosts", "ports", "networks"):
            value = getattr(self, what)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"{what} is {type(value).__name__}; right is a tuple")
            object.__setattr__(self, what, tuple(value))
        if not isinstance(self.private, bool):
            raise ConfigError(f"private is {self.private!r}; right is True or False")
        for name in (*self.schemes, *self.hosts):
            if not isinstance(name, str) or not name or name != name.lower() or "/" in name or name.endswith("."):
                raise ConfigError(f"{name!r} is no scheme or host in lower case; right are https and app.example")
        for port in self.ports:
            if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
                raise ConfigError(f"{port!r} is no port; right is 1 to 65535")
        try:
            networks = tuple(ipaddress.ip_network(network) for network in self.networks)
        except ValueError as exc:
            raise ConfigError(f"networks has one that is none ({exc}); right is for example 10.1.0.0/16") from None
        object.__setattr__(self, "_networks", networks)

    @property
    def permits_everything(self) -> bool:
        """Whether there is nothing to judge."""
        return self.private and not (self.schemes or self.hosts or self.ports)

    def check(self, scheme: str, host: str, port: int) -> None:
        """Judge a URL by what is written in it. Raises DestinationForbidden."""
        if self.schemes and scheme not in self.schemes:
            raise DestinationForbidden(f"the scheme {scheme!r} is not permitted")
        if self.hosts and not self._names(host.lower().rstrip(".")):
            raise DestinationForbidden("the host is not permitted")
        if self.ports and port not in self.ports:
            raise DestinationForbidden(f"port {port} is not permitted")

    def _names(self, host: str) -> bool:
        return any(
            host.endswith(name[1:]) and len(host) > len(name) - 1 if name.startswith("*.") else host == name
            for name in self.hosts
        )

    def permits(self, address: str) -> bool:
        """Whether connections may go to an address, as text."""
        if self.private:
            return True
        try:
            carried = _carried(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        return is_public(carried) or any(carried in network for network in self._networks)


PUBLIC: Final = UrlPolicy()
EVERYWHERE: Final = UrlPolicy(private=True)
"""For addresses that nobody else names."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public network; one that carries another is judged by that."""
    address = _carried(address)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _carried(address: Address) -> Address:
    """Return the IPv4 address within an IPv6 one, the address itself where there is none."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def open_permitted(policy: UrlPolicy, scheme: str, host: str, port: int) -> trio.SocketStream:
    """Connect to `host`:`port` as far as `policy` permits: to an address that was judged, never to the name again.

    Raises:
        DestinationForbidden: nothing of it is permitted; the caller of ours who named it is to blame.
        OSError: no permitted address answered; the last error. UnicodeError: no name service could hold the name.

    Cancellation: no socket is left open.
    """
    policy.check(scheme, host, port)
    if policy.permits_everything:
        return await trio.open_tcp_stream(host, port)
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))
    permitted = [address for address in addresses if policy.permits(address)]
    if not permitted:
        raise DestinationForbidden("the host has no address that is permitted")
    return await _open_first(permitted, port)


async def _open_first(addresses: Sequence[str], port: int) -> trio.SocketStream:
    """Connect to whichever address answers first, each begun a little after the one before."""
    opened: list[trio.SocketStream] = []
    failures: list[OSError] = []
    won = None
    try:
        async with trio.open_nursery() as nursery:

            async def attempt(address: str, over: trio.Event) -> None:
                try:
                    opened.append(await trio.open_tcp_stream(address, port))
                    nursery.cancel_scope.cancel()
                except OSError as exc:
                    failures.append(exc)
                over.set()

            for address in addresses:
                over = trio.Event()
                nursery.start_soon(attempt, address, over)
                with trio.move_on_after(NEXT_ADDRESS_S):
                    await over.wait()
        won = opened[0] if opened else None
    finally:
        for stream in opened:
            if stream is not won:
                stream.socket.close()
    if won is None:
        raise failures[-1]
    return won
