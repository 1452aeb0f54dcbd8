"""What the engine and the lines know of one platform's wire: an entry of the catalogue.

How each end is made, what it travels on, how the upgrade is signed, how a status is told, what a stream of it cannot
be. One module per platform fills one in; nobody else names a platform.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat, StreamStarted
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Dialect, Role
from talkpath.wire.status import StatusEvent


@dataclass(frozen=True, slots=True)
class StreamAttributes:
    """What a stream was asked to be, in no platform's words."""

    bidirectional: bool
    tracks: tuple[str, ...]
    timeout_s: float
    media_format: MediaFormat
    custom_parameters: Mapping[str, str]


SHORT_MESSAGES_MS = (20, 40, 60, 80, 100)


def make_uuid(entropy: Callable[[int], bytes]) -> str:
    """Make an id that is a random UUID."""
    return str(uuid.UUID(bytes=entropy(16), version=4))


def any_start(started: StreamStarted) -> bool:
    """For a wire whose start no other dialect reads, or that is the last of its family to be asked."""
    return True


def no_headers(auth_token: str, nonce: str, url: str) -> tuple[tuple[str, str], ...]:
    """For a wire whose upgrade is not signed."""
    return ()


def no_attributes(asked: StreamAttributes) -> Mapping[str, str]:
    """For a wire whose callbacks do not repeat what was asked for."""
    return {}


def no_callback(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """For a wire that tells nobody how its streams stand."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One platform's wire."""

    name: str
    transport: str = "websocket"
    """What it travels on: ``websocket``, ``grpc`` or ``audiosocket`` (bare TCP)."""
    formats: tuple[tuple[str, int], ...]
    """(encoding, rate) of the streams a platform can start."""
    message_ms: tuple[int, ...] = SHORT_MESSAGES_MS
    """What one media message of the platform's may hold."""
    default_message_ms: int = 20
    options_type: type
    """Of the wire's own options; what it makes without arguments are the defaults."""
    dialect: Callable[..., Dialect]
    """(role, *, media_format, options): one end of a stream."""
    claims: Callable[[StreamStarted], bool] = any_start
    """Whether a start that the dialect can read is this platform's, where nobody has named the wire: dialects of one
    family read each other's."""
    upgrade_headers: Callable[[str, str, str], tuple[tuple[str, str], ...]] = no_headers
    """(auth_token, nonce, url) -> headers that sign the upgrade; empty without a token."""
    stream_attributes: Callable[[StreamAttributes], Mapping[str, str]] = no_attributes
    """How the wire's documents write what a stream was asked to be; its callbacks may repeat it."""
    status_request: Callable[[StatusEvent, str, str, str, str, str], CallbackRequest | None] = no_callback
    """(event, scheme, url, method, auth_token, nonce) -> the callback; None where the scheme has no word for it."""
    status_schemes: tuple[str, ...] = ("none",)
    """What `StreamSpec.status_scheme` may be; the first is the default."""
    make_stream_id: Callable[[Callable[[int], bytes]], str] = make_uuid
    """(entropy) -> a new stream's id in the platform's form."""
    subprotocol: str = ""
    """Of the WebSocket: offered by who dials, selected by who serves where it is offered; empty: none."""
    grpc_method: str = ""
    """The path of the call that carries a stream, where the transport is gRPC."""
    default_account_id: str
    """What stands where the platform's account would, when `StreamSpec.account_id` is empty."""
    two_way_inbound_only: bool = True
    """A stream on which the application may play carries the caller's track alone."""
    check: Callable[[MediaFormat, Mapping[str, str], str, Any], None]
    """(format, custom parameters, account id, options of the right type); `check_stream` calls it."""
    tracks: tuple[str, ...] = ("inbound_track", "outbound_track", "both_tracks")
    """What a stream of this wire can carry."""
    digits_one_way: bool = True
    """Pressed keys are told on a stream on which the application cannot play, too."""
    most_ahead_ms: int = 60_000
    """How far ahead of what is heard an application sends at most, whatever it asks for: short where a clear reaches
    only what has not been sent."""
    clear_reaches_sent: bool = True
    """A clear takes back what has been sent and not been heard."""
    most_message_ms: int = 200
    """What an application puts into one message while much waits."""
    has_realtime: bool = False
    """A two-way stream can be asked to even out bursts instead of holding deep queues."""
    takes_back_chunks: bool = False
    """What the application plays has numbers by which it can be taken back."""

    def platform(self, media_format: MediaFormat, options: object = None) -> Dialect:
        """Make the platform's end for a format and options; None: the defaults.

        Raises:
            ConfigError: a format that this wire does not write, or another wire's options.
        """
        return self.dialect(Role.PLATFORM, media_format=media_format, options=self._options(options))

    def application(self, options: object = None) -> Dialect:
        """Make the application's end; it learns the rest from the wire.

        Raises:
            ConfigError: another wire's options.
        """
        return self.dialect(Role.APPLICATION, options=self._options(options))

    def check_stream(
        self, media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: object
    ) -> None:
        """Raise `ConfigError` for what a stream of this wire cannot be."""
        self.check(media_format, custom_parameters, account_id, self._options(options))

    def _options(self, options: object) -> object:
        if options is None:
            return self.options_type()
        if not isinstance(options, self.options_type):
            raise ConfigError(
                f"options of the {self.name} wire are {self.options_type.__name__}, not {type(options).__name__}"
            )
        return options
