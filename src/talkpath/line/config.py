"""Options of the application's end. Frozen, checked when made."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from talkpath.errors import ConfigError, check_range
from talkpath.events import MediaFormat
from talkpath.line.access import Access, parse_network
from talkpath.records import EndReason, LineStatistics, RecordingRecord
from talkpath.transport.admission import LoadOptions, check_limit
from talkpath.transport.clock import DEFAULT_DRIVER, check_driver
from talkpath.transport.tls import check_context
from talkpath.wire.catalog import wire_named

if TYPE_CHECKING:
    from talkpath.line.serve import LineServer

CHUNK_MS = (10, 500)
"""What a listener may ask for at a time."""


@dataclass(frozen=True, slots=True)
class LineInfo:
    """Who calls, and how; from the wire's opening message."""

    wire: str
    call_id: str
    stream_id: str
    account_id: str
    tracks: tuple[str, ...]
    media_format: MediaFormat
    custom_parameters: Mapping[str, str] = field(repr=False)
    path: str = field(default="/", repr=False)
    """Of the upgrade request, query included: tokens, where they are dialled. Of the method on gRPC."""
    clock_rate_hz: int = 0
    """In which positions are told (`MarkOutcome.at_sample`): the call's own on the native wire, whose start names it;
    elsewhere the stream's rate."""
    from_number: str = field(default="", repr=False)
    """Of the caller, where the wire says it; `to_number` likewise."""
    to_number: str = field(default="", repr=False)
    direction: str = ""
    """``inbound`` or ``outbound``, as the platform sees the call, where the wire says it."""

    @property
    def codec(self) -> str:
        return self.media_format.encoding

    @property
    def sample_rate_hz(self) -> int:
        return self.media_format.sample_rate_hz


@dataclass(frozen=True, slots=True)
class LineRecord:
    """One line, after its end."""

    info: LineInfo
    reason: EndReason
    cause: str
    duration_ms: int
    statistics: LineStatistics
    recordings: tuple[RecordingRecord, ...] = ()
    """In the order in which they ended, the last 64 of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineConfig:
    """Options of a line; see each field."""

    send_ahead_ms: int = 2000
    """How far ahead of what has been played audio is sent: what was sent cannot be recalled, only cleared over the
    wire. On a wire that has no clear (AudioSocket) it is at most 60.
    """
    message_ms: int = 20
    """Audio in one message while little waits; up to 200 ms when much does."""
    driver: Literal["pump", "tasks"] = DEFAULT_DRIVER
    """Who moves plain media, as `EngineConfig.driver`. The pump moves lines on plain TCP; others are
    moved beside it."""
    media_thread: bool = False
    """As `EngineConfig.media_thread`."""
    queue_s: float = 60.0
    """Audio that may wait to be sent; `speak` raises `PlayoutFull` beyond, `play` waits."""
    chunk_ms: int = 20
    """What a listener gets at a time when it does not say. Each chunk wakes a task: where a core carries hundreds of
    lines, 60 costs a third.
    """
    listen_bound_ms: int = 1000
    """What a listener may lag; older audio is dropped and counted."""
    linger_s: float = 5.0
    """After the line has ended, its bot has so long to finish before it is cancelled."""
    drain_s: float = 60.0
    """When a bot returns, what it has queued is played, at most so long; then the line hangs up."""
    goodbye_s: float = 0.5
    stall_s: float = 5.0
    """How long the peer may take no bytes before the line ends."""
    max_message_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        check_driver(self.driver, self.media_thread)
        check_range("send_ahead_ms", self.send_ahead_ms, 20, 60_000)
        if self.message_ms not in (20, 40, 60, 80, 100):
            raise ConfigError(f"message_ms is {self.message_ms}; it must be 20, 40, 60, 80 or 100")
        check_range("queue_s", self.queue_s, 1, 3600)
        check_range("chunk_ms", self.chunk_ms, *CHUNK_MS)
        check_range("listen_bound_ms", self.listen_bound_ms, 100, 60_000)
        check_range("linger_s", self.linger_s, 0, 3600)
        check_range("drain_s", self.drain_s, 0, 3600)
        check_range("goodbye_s", self.goodbye_s, 0, 10)
        check_range("stall_s", self.stall_s, 0.1, 300)
        check_range("max_message_bytes", self.max_message_bytes, 4096, 1 << 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig(LoadOptions):
    """Options of `serve_lines`; see each field, and those of `LoadOptions`: when lines are refused."""

    line: LineConfig = field(default_factory=LineConfig)
    access: Access | tuple[Access, ...] = ()
    """Who may connect: what has to be shown, checked before the bot hears of the line; several are alternatives.
    Without it everybody may, on loopback addresses alone."""
    allow_unauthenticated: bool = False
    """Serve other than loopback addresses without checking who connects. Anyone who finds the port can then talk to
    the bot.
    """
    plivo_auth_token: str = field(default="", repr=False)
    """Short for ``Access(plivo_auth_token=...)``, beside what `access` has."""
    public_url: str = ""
    """Behind a proxy: the address the platform dials (``wss://host``), for the signatures."""
    proxies: tuple[str, ...] = ()
    """Networks (``10.0.0.0/8``) of proxies that are trusted: their ``X-Forwarded-For`` says whose address counts."""
    tls_context: ssl.SSLContext | None = None
    """Serve ``wss`` with it; `server_context` makes one, with a demand for client certificates if that is wanted. One
    that allows versions before TLS 1.2 is refused."""
    handshake_s: float = 10.0
    """TLS, the upgrade and the wire's opening message together."""
    max_lines: int | None = 1000
    """Lines at once; further upgrades are answered 503. None or 0: no limit."""
    max_handshakes: int = 256
    """Connections whose handshake is unfinished; the next waits in the listen queue."""
    max_handshakes_per_address: int | None = 128
    """Of those, from one address (of IPv6 a /64); the next is answered 429. None or 0: no limit."""
    max_connections_per_address: int | None = None
    """Connections, lines included, from one address; further ones are answered 429. Platforms call from few addresses:
    set it above what one of them may bring."""
    wire_by_path: Mapping[str, str] = field(default_factory=dict)
    """Which wire is spoken below which path, ``{"/plivo": "plivo"}``; the longest prefix counts. Other paths: as
    `serve_lines` was told."""
    backlog: int = 1024
    pool_bytes: int = 64 * 1024 * 1024
    """Memory for queued audio of all lines."""
    on_ended: Callable[[LineRecord], None] | None = None
    """Called with each line's record; must not block."""
    on_serving: Callable[[LineServer], None] | None = None
    """Called once, as serving begins, with what has the server's `statistics`; must not block."""
    options: Any = None
    """The wire's own options, `PlivoOptions` for example."""

    def __post_init__(self) -> None:
        if self.tls_context is not None:
            check_context(self.tls_context, server_side=True)
        self._check_access()
        check_limit("max_handshakes_per_address", self.max_handshakes_per_address, 1, 1_000_000, whole=True)
        check_limit("max_connections_per_address", self.max_connections_per_address, 1, 1_000_000, whole=True)
        for proxy in self.proxies:
            parse_network("proxies", proxy)
        for path, wire in self.wire_by_path.items():
            if not path.startswith("/") or wire_named(wire).transport != "websocket":
                raise ConfigError(f"wire_by_path has {path!r}: a path begins with /, and its wire is one of WebSockets")
        check_range("handshake_s", self.handshake_s, 0.01, 300)
        check_limit("max_lines", self.max_lines, 1, 1_000_000, whole=True)
        self.check_limits()
        check_range("max_handshakes", self.max_handshakes, 1, 1_000_000)
        check_range("backlog", self.backlog, 1, 65535)
        check_range("pool_bytes", self.pool_bytes, 64 * 1024, 1 << 40)

    def _check_access(self) -> None:
        ways = (self.access,) if isinstance(self.access, Access) else self.access
        if not isinstance(ways, tuple | list) or not all(isinstance(way, Access) for way in ways):
            raise ConfigError("access is an Access, or a tuple of them")
        object.__setattr__(self, "access", tuple(ways))
        if self.ways and self.allow_unauthenticated:
            raise ConfigError("allow_unauthenticated and access contradict each other; leave out one of them")
        if self.public_url and not self.ways and not self.allow_unauthenticated:
            raise ConfigError("a server with a public_url needs access=Access(...), or allow_unauthenticated=True")
        asked = self.tls_context is not None and self.tls_context.verify_mode is not ssl.CERT_NONE
        if any(way.wants_certificate for way in self.ways) and not asked:
            raise ConfigError(
                "access asks for a client's certificate, and tls_context does not; "
                "make it with server_context(..., client_ca_file=...)"
            )

    @property
    def ways(self) -> tuple[Access, ...]:
        """The ways in, of `access` and of `plivo_auth_token`; none: everybody may."""
        ways = (self.access,) if isinstance(self.access, Access) else tuple(self.access)
        return (*ways, Access(plivo_auth_token=self.plivo_auth_token)) if self.plivo_auth_token else ways
