"""Options of the platform's end. Frozen, checked when made: a bad value never gets as far as a call."""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from talkpath.audio import AudioClip, samples_of
from talkpath.dsp.mix import gain_db_x100
from talkpath.errors import ConfigError, LocalWireError, check_range
from talkpath.events import MediaFormat
from talkpath.transport.admission import LoadOptions, check_limit
from talkpath.transport.carrier import parse_target
from talkpath.transport.clock import DEFAULT_DRIVER, check_driver
from talkpath.transport.tls import check_context
from talkpath.transport.url_policy import EVERYWHERE, PUBLIC, UrlPolicy
from talkpath.wire.callback import check_callback_url
from talkpath.wire.catalog import wire_named
from talkpath.wire.json_message import is_text
from talkpath.wire.websocket import ClientHandshake

_CODEC = re.compile(r"^(?P<name>[A-Za-z0-9]+)(?:@(?P<rate>\d{4,6})h)?(?:@(?P<ptime>\d{1,3})i)?$")
_HEADERS_MAX = 8192
"""Characters of all headers of the upgrade that the caller of our API adds; common servers stop at 8 KiB."""
FALLBACK_LEAST_MS = 100
CODEC_NAMES = ("PCMU", "PCMA", "L16")
UNSUPPORTED_CODECS = ("G722", "OPUS")
L16_RATES_HZ = (8000, 16000, 24000, 48000)


def parse_codec(codec: str, sample_rate_hz: int | None = None) -> tuple[MediaFormat, int | None]:
    """Read a codec string like ``PCMU``, ``L16@16000h`` or ``PCMU@40i``; return the format and the ptime, when one is
    named.

    Raises:
        ConfigError: an unknown codec, or a rate it does not have; the caller's to mend.
    """
    if not isinstance(codec, str):
        raise ConfigError(f"codec {codec!r} cannot be read; write PCMU, PCMA, L16 or L16@16000h")
    return _read_codec(codec, sample_rate_hz)


@functools.lru_cache(maxsize=64, typed=True)  # 8000.0 is not 8000 where it is written
def _read_codec(codec: str, sample_rate_hz: int | None) -> tuple[MediaFormat, int | None]:
    match = _CODEC.match(codec)
    if match is None:
        raise ConfigError(f"codec {codec!r} cannot be read; write PCMU, PCMA, L16 or L16@16000h")
    name = match["name"].upper()
    if name in UNSUPPORTED_CODECS:
        raise ConfigError(f"codec {name} is one of the platforms', and not of this core; use {', '.join(CODEC_NAMES)}")
    if name not in CODEC_NAMES:
        raise ConfigError(f"codec {name!r} is not one of {', '.join(CODEC_NAMES)}")
    rate = int(match["rate"]) if match["rate"] else sample_rate_hz or 8000
    if name != "L16" and rate != 8000:
        raise ConfigError(f"{name} has a sample rate of 8000 Hz, not {rate}")
    if name == "L16" and rate not in L16_RATES_HZ:
        raise ConfigError(f"L16 at {rate} Hz is not supported; use one of {', '.join(map(str, L16_RATES_HZ))}")
    return MediaFormat(name, rate), int(match["ptime"]) if match["ptime"] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig(LoadOptions):
    """Options of an engine; see each field, and those of `LoadOptions`: when calls are refused."""

    driver: Literal["pump", "tasks"] = DEFAULT_DRIVER
    """Who moves plain media. ``pump``: one native call per tick for all calls (Linux, RTP legs); ``tasks``: pure Trio,
    works everywhere and under a test's clock, where a pump cannot be. Both do the same, to the byte."""
    media_thread: bool = False
    """Run the pump's ticks on a native thread that never takes the GIL: for a process that also runs real Python work.
    It asks for SCHED_FIFO and warns when that is not permitted."""
    pool_bytes: int = 64 * 1024 * 1024
    """Memory for queued audio of all calls. Not touched until used."""
    max_calls: int | None = 4096
    """Live at once; the next is refused. None or 0: no limit."""
    max_streams: int | None = None
    """Live streams of all calls at once. None or 0: no limit."""
    connect_timeout_s: float = 5.0
    """For each attempt to connect a stream: address, TLS and upgrade together."""
    connect_attempts: int = 3
    """A first try and two more, as Plivo does."""
    connect_backoff_s: float = 0.5
    """Before the second attempt; doubled before each further one."""
    goodbye_s: float = 0.5
    """All end messages, close frames and their answers of one call together."""
    stall_s: float = 5.0
    """How long a peer may take no bytes before its stream ends."""
    tls_context: ssl.SSLContext | None = None
    """For ``wss``; None verifies certificates against the system's authorities, TLS 1.2 or later. `client_context`
    makes one with authorities or a certificate of your own; one that allows older versions is refused."""
    callback_attempts: int = 3
    callback_deadline_s: float = 30.0
    """One status callback, all attempts together; and all that is left of them when an engine is closed."""
    callback_policy: UrlPolicy = PUBLIC
    """Where status callbacks may go. Their URLs come with a customer's document as a rule, so by default they may go to
    public addresses alone: ``UrlPolicy(networks=("127.0.0.0/8",))`` permits a web server on the same machine."""
    stream_policy: UrlPolicy = EVERYWHERE
    """Where streams may go. Everywhere by default: bots live inside the network of whoever runs the engine. Where the
    streams' URLs are a customer's too, give it what `callback_policy` has."""
    max_callbacks: int = 1024
    """Status callbacks waiting or under way; the next is dropped and counted. Half of it is kept for streams'
    beginnings and ends."""
    hang_up_pace: int = 20
    """Calls that may be torn down within one tick when many end at once."""
    port_range: tuple[int, int] | None = None
    """(first, last) UDP port for the RTP legs that name neither a port nor a range of their own; None: any."""

    def __post_init__(self) -> None:
        check_driver(self.driver, self.media_thread)
        _check_whole(self, "pool_bytes", "connect_attempts", "callback_attempts", "max_callbacks", "hang_up_pace")
        for what in ("callback_policy", "stream_policy"):
            if not isinstance(getattr(self, what), UrlPolicy):
                raise ConfigError(f"{what} is {type(getattr(self, what)).__name__}; it must be a UrlPolicy")
        if self.tls_context is not None:
            check_context(self.tls_context, server_side=False)
        check_range("pool_bytes", self.pool_bytes, 64 * 1024, 1 << 40)
        check_limit("max_calls", self.max_calls, 1, 1_000_000, whole=True)
        check_limit("max_streams", self.max_streams, 1, 4_000_000, whole=True)
        self.check_limits()
        check_range("connect_timeout_s", self.connect_timeout_s, 0.01, 300)
        check_range("connect_attempts", self.connect_attempts, 1, 20)
        check_range("connect_backoff_s", self.connect_backoff_s, 0, 60)
        check_range("goodbye_s", self.goodbye_s, 0, 10)
        check_range("stall_s", self.stall_s, 0.1, 300)
        check_range("callback_attempts", self.callback_attempts, 1, 20)
        check_range("callback_deadline_s", self.callback_deadline_s, 0.1, 600)
        check_range("max_callbacks", self.max_callbacks, 1, 1_000_000)
        check_range("hang_up_pace", self.hang_up_pace, 1, 100_000)
        if self.port_range is not None:
            check_port_range("port_range", self.port_range)


def check_port_range(what: str, port_range: object) -> None:
    """Raise ConfigError unless it is (first, last), with an even port for RTP in it."""
    if not isinstance(port_range, tuple | list) or len(port_range) != 2:
        raise ConfigError(f"{what} is {port_range!r}; it must be (first port, last port)")
    first, last = port_range
    check_range(f"the first port of {what}", first, 1, 65535)
    check_range(f"the last port of {what}", last, first, 65535)
    if first % 2 and first == last:
        raise ConfigError(f"{what} holds no even port; RTP wants one")


def _check_whole(options: object, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name} is {value!r}; it must be a whole number")


def _check_text(what: str, value: object, most: int) -> None:
    if type(value) is str and len(value) <= most and value.isascii():
        return
    if not isinstance(value, str):
        raise ConfigError(f"{what} is {type(value).__name__}; it must be text")
    if len(value) > most:
        raise ConfigError(f"{what} has {len(value)} characters; at most {most} are allowed")
    if not is_text(value):
        raise ConfigError(f"{what} is not well-formed Unicode")


def _fallback_clip(fallback: object) -> AudioClip:
    """Read and check what is heard in an application's place. Raises ConfigError, FormatError, OSError."""
    clip = AudioClip(*samples_of(fallback, or_file=True))
    if clip.duration_ms < FALLBACK_LEAST_MS:
        raise ConfigError(f"the fallback audio lasts {clip.duration_ms:g} ms; right is at least {FALLBACK_LEAST_MS}")
    return clip


TRACKS: Mapping[str, tuple[str, ...]] = {
    "inbound_track": ("inbound",),
    "outbound_track": ("outbound",),
    "both_tracks": ("inbound", "outbound"),
}
REALTIME_S = 1.0
"""What waits on a realtime stream, in seconds; no platform says how much it keeps."""
_TEXTS = {
    "url": 2048,
    "wire": 64,
    "track": 64,
    "codec": 64,
    "control_id": 256,
    "name": 256,
    "authorization_bearer_token": _HEADERS_MAX,
    "account_id": 256,
    "auth_token": 256,
    "status_url": 8192,
    "status_url_method": 8,
    "status_scheme": 8,
}
"""Fields of a `StreamSpec` that are text, and how many characters each may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """One stream of a call's audio to one application."""

    url: str = field(repr=False)
    """``wss://`` or ``ws://`` (``memory://name`` within one Trio run, for tests). No `repr` shows it, nor anything else
    that may hold secrets.
    """
    wire: str = "plivo"
    bidirectional: bool = False
    """Whether the application may play, clear and send digits."""
    track: str = "inbound_track"
    """``inbound_track`` what the caller says, ``outbound_track`` what it hears, ``both_tracks``."""
    codec: str = ""
    """``PCMU``, ``PCMA``, ``L16``, optionally with ``@<rate>h`` and ``@<ptime>i``; empty: mu-law, or what the wire has
    instead."""
    message_ms: int = 0
    """Audio in one media message: 20, 40, 60, 80 or 100 on most wires. 0: 20, or the platform's own default."""
    control_id: str = ""
    """Unique among the call's live streams; generated when empty."""
    name: str = ""
    custom_parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Handed to the application; the plivo wire carries 512 bytes of them, written as k=v,k=v."""
    authorization_bearer_token: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of the upgrade request."""
    account_id: str = ""
    """What the wire's start message names as the account; empty: an example in the platform's form."""
    auth_token: str = field(default="", repr=False)
    """With it the upgrade and the callbacks are signed in the wire's way."""
    status_url: str = field(default="", repr=False)
    status_url_method: Literal["GET", "POST"] = "POST"
    status_scheme: str = ""
    """How the callbacks are written where a platform has several ways; empty: the first. Plivo: ``"B"`` the guide's
    names (started, stopped, failed), ``"A"`` the classic ones (StartStream, StopStream, ...). SignalWire: ``"swml"``
    (JSON), ``"cxml"`` (a form). See the wire's page in docs/.
    """
    stream_timeout_s: float = 86400.0
    """The stream, not the call, is stopped then."""
    playout_s: float = 40.0
    """How much of the application's audio may wait; Plivo promises 40 s."""
    gain_db: float = 0.0
    """How loud the application's audio is played: -60 to 18 dB, minus infinity is mute. Set `CallStream.gain_db` to
    change it while it plays."""
    realtime: bool = False
    """SignalWire's two-way streams: bursts are evened out, and no deep queue is kept. At most 1 s of what the
    application sends waits; newer audio that finds no room is dropped, counted, and told as a degraded stream."""
    ends_call: bool = False
    """Whether the call ends when the application ends this stream, or the stream fails."""
    reconnect_s: float = 0.0
    """How long a lost connection is tried anew before the stream ends; 0: not at all. What is lost, and what is not, is
    in `talkpath.engine.stream_life`."""
    fallback: object = field(default=None, repr=False)
    """What the caller hears in the application's place: an `AudioClip`, or the path of a WAV file, read here and now.
    Over and over while a lost connection is tried anew; what has begun is heard to its end when it is given up, and
    only then does the call end, if `ends_call`. At a failure without an outage before it, once. None: silence."""
    fallback_clip: AudioClip | None = field(init=False, default=None, repr=False, compare=False)
    """`fallback`, read and checked."""
    options: Any = None
    """The wire's own options, `PlivoOptions` for example."""

    def __post_init__(self) -> None:
        for what, most in _TEXTS.items():
            _check_text(what, getattr(self, what), most)
        for what in ("bidirectional", "realtime", "ends_call"):
            if not isinstance(getattr(self, what), bool):
                raise ConfigError(f"{what} is {getattr(self, what)!r}; it must be True or False")
        for what in ("custom_parameters", "headers"):
            if not isinstance(getattr(self, what), Mapping):
                raise ConfigError(
                    f"{what} is {type(getattr(self, what)).__name__}; it must be a mapping of text to text"
                )
            # What has been checked must not change afterwards.
            object.__setattr__(self, what, dict(getattr(self, what)))
        wire = wire_named(self.wire)
        if self.track not in TRACKS:
            raise ConfigError(f"track {self.track!r} is not one of {', '.join(TRACKS)}")
        if self.bidirectional and self.track != "inbound_track" and wire.two_way_inbound_only:
            raise ConfigError(f"a bidirectional {self.wire} stream carries the inbound_track only, not {self.track}")
        if self.track not in wire.tracks:
            raise ConfigError(f"a {self.wire} stream carries the {', '.join(wire.tracks)} only, not {self.track}")
        if self.realtime and not wire.has_realtime:
            raise ConfigError(f"the {self.wire} wire has no realtime streams; give a short playout_s instead")
        if self.realtime and not self.bidirectional:
            raise ConfigError("realtime is for a bidirectional stream: it says how the application's audio is played")
        media_format = self.media_format()
        _check_whole(self, "message_ms")
        message_ms, choice = self.message_ptime_ms(), wire.message_ms
        if message_ms not in choice:
            right = (
                f"one of {', '.join(map(str, choice))}" if len(choice) < 8 else f"{choice[0]} to {choice[-1]} in 20s"
            )
            raise ConfigError(f"message_ms is {message_ms}; it must be {right} on the {self.wire} wire")
        if self.status_url_method not in ("GET", "POST"):
            raise ConfigError(f"status_url_method {self.status_url_method!r} is neither GET nor POST")
        if self.status_scheme and self.status_scheme not in wire.status_schemes:
            raise ConfigError(
                f"status_scheme {self.status_scheme!r} is not one of {', '.join(wire.status_schemes)} ({self.wire})"
            )
        if self.status_url:
            check_callback_url(self.status_url)
        self._check_upgrade()
        check_range("stream_timeout_s", self.stream_timeout_s, 0.1, 7 * 86400)
        check_range("reconnect_s", self.reconnect_s, 0, 600)
        if self.fallback is not None:
            object.__setattr__(self, "fallback_clip", _fallback_clip(self.fallback))
        check_range("playout_s", self.playout_s, 1, 300)
        gain_db_x100(self.gain_db)
        account_id = self.account_id or wire.default_account_id
        wire.check_stream(media_format, self.custom_parameters, account_id, self.options)

    def _check_upgrade(self) -> None:
        """Refuse an address or headers with which no WebSocket can be opened."""
        wire = wire_named(self.wire)
        target = parse_target(wire.transport, self.url)
        if "#" in self.url:
            raise ConfigError("the stream's url has a fragment (#...), which a WebSocket's cannot have")
        token = self.authorization_bearer_token
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(
                "authorization_bearer_token has white space, control characters or other than ASCII in it"
            )
        for name, value in self.headers.items():
            _check_text("a header's name", name, _HEADERS_MAX)
            _check_text(f"the value of the header {name!a}", value, _HEADERS_MAX)
            if not (value.isascii() and value.isprintable()):
                raise ConfigError(f"the value of the header {name!a} is not one line of printable ASCII")
            if token and name.lower() == "authorization":
                raise ConfigError("headers and authorization_bearer_token both say Authorization; one of them must do")
        if len(token) + sum(len(name) + len(value) for name, value in self.headers.items()) > _HEADERS_MAX:
            raise ConfigError(f"headers and the bearer token have more than {_HEADERS_MAX} characters together")
        try:
            if wire.transport == "audiosocket" and (token or self.headers):
                raise ConfigError(
                    f"the {self.wire} wire has no headers and no bearer token: nothing is sent before the call"
                )
            if wire.transport == "websocket":
                ClientHandshake(target.authority, target.path, self.headers.items())
        except LocalWireError as exc:
            raise ConfigError(f"the stream's url or headers cannot be sent: {exc}") from None

    def media_format(self) -> MediaFormat:
        """Return how this stream's payload is written."""
        if not self.codec:
            formats = wire_named(self.wire).formats
            return MediaFormat(*(("PCMU", 8000) if ("PCMU", 8000) in formats else formats[0]))
        return parse_codec(self.codec)[0]

    def bound_s(self) -> float:
        """Return how much of the application's audio may wait."""
        return min(self.playout_s, REALTIME_S) if self.realtime else self.playout_s

    def message_ptime_ms(self) -> int:
        """Return the audio in one media message; the codec string's word goes before `message_ms`."""
        named = parse_codec(self.codec)[1] if self.codec else None
        return named or self.message_ms or wire_named(self.wire).default_message_ms
