"""Who may connect: what a platform shows, and whether that is enough.

An `Access` is one way in, and all that is set in it must be shown. Several are alternatives: who satisfies one of them
is let in. So each platform gets an `Access` with the method it has (docs/access.md says which), and whoever wants two
things of one platform, a signature and a token say, writes both into one. Slips fail closed: what nobody could ever
satisfy is refused when it is made, and a forgotten platform is turned away.

What can be shown comes at three moments, and each way in is given up at the first at which it fails: the TLS
handshake and the peer's address; the request (upgrade or call), before it is accepted; the wire's opening message,
before there is a line. Nothing of the bot's runs before the last.

Secrets are compared in a time that depends neither on where they differ nor on which of several is right, and are in
no repr, log or error.

Source: RFC 9110 section 11 (401, 403, challenges), RFC 6750 (bearer), RFC 7617 (basic), RFC 6125 (names in
certificates).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from talkpath.errors import ConfigError
from talkpath.wire import signature, twilio_signature
from talkpath.wire.catalog import wire_named

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REALM = "talkpath"
MAX_URL_PIECES = 64
"""Segments of a path and values of a query that are looked at for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One way in: all that is set here must be shown. See the module.

    Raises:
        ConfigError: nothing is asked for, what is asked for cannot be shown together, or a value is of no use.
    """

    plivo_auth_token: str = field(default="", repr=False)
    """The account's: Plivo's V3 signature on the upgrade is checked with it."""
    twilio_auth_token: str = field(default="", repr=False)
    """The account's: Twilio's signature on the upgrade is checked with it."""
    bearer_tokens: tuple[str, ...] = field(default=(), repr=False)
    """``Authorization: Bearer ...`` with one of these (SignalWire, and whoever can set a header)."""
    basic: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """``Authorization: Basic ...`` with one of these pairs of user and password (Asterisk)."""
    url_tokens: tuple[str, ...] = field(default=(), repr=False)
    """One of these is a segment of the path or a value of the query that is dialled (Teler)."""
    parameter_token: tuple[str, str] | None = field(default=None, repr=False)
    """(name, value) among the custom parameters of the opening message (FreeClimb's metadata)."""
    client_certificate: bool = False
    """A certificate that verifies: `ServeConfig.tls_context` must ask for one."""
    client_names: tuple[str, ...] = ()
    """As `client_certificate`, and it names one of these hosts (subjectAltName)."""
    networks: tuple[str, ...] = ()
    """The address is in one of these networks, ``192.0.2.0/24`` (AudioSocket, which can show nothing else)."""
    wires: tuple[str, ...] = ()
    """For these wires alone; empty: for any."""

    def __post_init__(self) -> None:
        for name in ("bearer_tokens", "url_tokens", "client_names", "networks", "wires", "basic"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ConfigError(f"{name} is of type {type(value).__name__}; it must be a tuple, also of one")
            object.__setattr__(self, name, tuple(tuple(one) if isinstance(one, list) else one for one in value))
        for name in ("plivo_auth_token", "twilio_auth_token"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be text")
        for name in ("bearer_tokens", "url_tokens", "client_names"):
            if not all(isinstance(one, str) and one for one in getattr(self, name)):
                raise ConfigError(f"{name} has one that is empty or no text")
        for token in self.bearer_tokens:
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise ConfigError("a bearer token has characters that a header cannot carry")
        self._check_pairs()
        for network in self.networks:
            parse_network("networks", network)
        for wire in self.wires:
            wire_named(wire)
        self._check_whole()

    def _check_pairs(self) -> None:
        for pair in self.basic:
            if not (isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2):
                raise ConfigError("basic is a tuple of (user, password) pairs, also of one: ((user, password),)")
            user, password = pair
            if not (isinstance(user, str) and isinstance(password, str) and password) or ":" in user:
                raise ConfigError("basic has a pair without a password, or with a colon in its user")
        token = self.parameter_token
        if token is not None and not (
            isinstance(token, Sequence)
            and not isinstance(token, str)
            and len(token) == 2
            and all(isinstance(one, str) and one for one in token)
        ):
            raise ConfigError("parameter_token is a pair of a parameter's name and its value")

    def _check_whole(self) -> None:
        if self.plivo_auth_token and self.twilio_auth_token:
            raise ConfigError("no request bears two platforms' signatures; make an Access for each of them")
        if self.bearer_tokens and self.basic:
            raise ConfigError("no request has two Authorization headers; make an Access for each of them")
        if not (
            self.plivo_auth_token
            or self.twilio_auth_token
            or self.bearer_tokens
            or self.basic
            or self.url_tokens
            or self.parameter_token
            or self.wants_certificate
            or self.networks
        ):
            raise ConfigError("an Access that asks for nothing would let anyone in; set what is to be shown")

    @property
    def wants_certificate(self) -> bool:
        return self.client_certificate or bool(self.client_names)


def parse_network(what: str, text: str) -> Network:
    """Raises ConfigError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise ConfigError(f"{what} has one that is no network ({exc}); write it like 192.0.2.0/24") from None


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address as sockets tell it, one of IPv4 in IPv6's clothes as what it is; None: it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a connection has shown before its first message."""

    wires: Collection[str]
    """What it may turn out to speak."""
    address: str
    target: str = field(repr=False)
    """Path and query."""
    host: str
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case, or looked up whatever their case."""
    client_names: Collection[str] | None = None
    """Of the certificate that was verified; None: there was none."""
    signable: bool = True
    """It is an upgrade, which platforms sign."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """How to turn away who has shown too little."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


class Gate:
    """The ways in of one server.

    Args:
        ways: alternatives; none of them lets anyone in.
        public_url: what the platform dials, where that is not what arrives here.
    """

    def __init__(self, ways: Sequence[Access], public_url: str = "") -> None:
        self._ways = tuple(ways)
        self._public = urlsplit(public_url) if public_url else None
        self._networks = {way: [parse_network("networks", one) for one in way.networks] for way in self._ways}

    @property
    def is_open(self) -> bool:
        """Whether anyone may come in."""
        return not self._ways

    def left_for(self, shown: Shown) -> tuple[Access, ...]:
        """Return the ways in that are still possible after the request; none: turn it away."""
        url = self._url(shown)
        return tuple(way for way in self._ways if self._fits(way, shown, url))

    def admits(self, left: Sequence[Access], wire: str, parameters: Mapping[str, str]) -> bool:
        """Whether one of the ways that were left after the request holds after the opening message, too."""
        if self.is_open:
            return True
        right = False
        for way in left:
            right |= (not way.wires or wire in way.wires) and _has_parameter(way.parameter_token, parameters)
        return right

    def challenge(self) -> Challenge:
        """Return what to answer who has shown too little: 401 where a header of theirs could mend it, else 403."""
        schemes = [f'Bearer realm="{REALM}"'] if any(way.bearer_tokens for way in self._ways) else []
        if any(way.basic for way in self._ways):
            schemes.append(f'Basic realm="{REALM}", charset="UTF-8"')
        if not schemes:
            return Challenge(403, "Forbidden")
        return Challenge(401, "Unauthorized", (("WWW-Authenticate", ", ".join(schemes)),))

    def _url(self, shown: Shown) -> str:
        if self._public is not None:
            return f"{self._public.scheme}://{self._public.netloc}{shown.target}"
        return f"ws://{shown.host}{shown.target}"

    def _fits(self, way: Access, shown: Shown, url: str) -> bool:
        # Every check is made, whatever the others gave.
        fits = not way.wires or any(wire in way.wires for wire in shown.wires)
        headers = list(shown.headers.items())
        if way.plivo_auth_token:
            fits &= shown.signable and signature.verify_headers(way.plivo_auth_token, headers, "GET", url)
        if way.twilio_auth_token:
            fits &= shown.signable and twilio_signature.verify_headers(way.twilio_auth_token, headers, url)
        authorization = shown.headers.get("authorization", "")
        if way.bearer_tokens:
            fits &= _is_one_of(_credentials(authorization, "bearer"), way.bearer_tokens)
        if way.basic:
            fits &= _is_one_of(_user_and_password(authorization), [f"{user}:{word}" for user, word in way.basic])
        if way.url_tokens:
            fits &= _has_token(shown.target, way.url_tokens)
        if way.wants_certificate:
            fits &= shown.client_names is not None
        if way.client_names:
            known = {name.lower() for name in way.client_names}
            fits &= any(name.lower() in known for name in shown.client_names or ())
        if way.networks:
            fits &= is_within(shown.address, self._networks[way])
        return fits


def _same(given: bytes, right: bytes) -> bool:
    """Compare without telling by the time how much was right, the length included."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(right).digest())


def _is_one_of(given: bytes, secrets: Iterable[str]) -> bool:
    right = False
    for secret in secrets:
        right |= _same(given, secret.encode())
    return right


def _credentials(authorization: str, scheme: str) -> bytes:
    name, _, rest = authorization.strip().partition(" ")
    return rest.strip().encode("latin-1", "replace") if name.lower() == scheme else b""


def _user_and_password(authorization: str) -> bytes:
    try:
        return base64.b64decode(_credentials(authorization, "basic"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _has_token(target: str, tokens: Iterable[str]) -> bool:
    path, _, query = target.partition("?")
    pieces = [unquote(segment) for segment in path.split("/") if segment]
    try:
        pieces += [value for _, value in parse_qsl(query, max_num_fields=MAX_URL_PIECES)]
    except ValueError:
        return False
    right = False
    for piece in pieces[: 2 * MAX_URL_PIECES]:
        right |= _is_one_of(piece.encode("utf-8", "replace"), tokens)
    return right


def _has_parameter(token: tuple[str, str] | None, parameters: Mapping[str, str]) -> bool:
    if token is None:
        return True
    name, value = token
    given = parameters.get(name)
    return isinstance(given, str) and _same(given.encode("utf-8", "replace"), value.encode())


def forwarded_address(address: str, headers: Mapping[str, str], proxies: Sequence[Network]) -> str:
    """Return who is behind a proxy that is trusted: the last in ``X-Forwarded-For`` that is no such proxy itself.

    Args:
        address: who is connected. One that is no proxy of ours may write what it likes and is taken for itself.
    """
    if not is_within(address, proxies):
        return address
    for one in reversed(headers.get("x-forwarded-for", "").split(",")):
        behind = parse_address(one.strip())
        if behind is None:
            break
        if not is_within(str(behind), proxies):
            return str(behind)
    return address
