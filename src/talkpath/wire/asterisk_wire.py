"""Asterisk's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.asterisk import FORMATS, AsteriskDialect, AsteriskOptions, check_format
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import SHORT_MESSAGES_MS, StreamAttributes, Wire, any_start, make_uuid, no_headers
from talkpath.wire.status import StatusEvent

_DEFAULTS = AsteriskOptions()
SUBPROTOCOL = "media"


def _options(options: Any) -> AsteriskOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, AsteriskOptions):
        raise ConfigError(f"options of the asterisk wire are AsteriskOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    check_format(media_format)
    if custom_parameters and _options(options).control != "json":
        raise ConfigError("channel variables travel in JSON control only: AsteriskOptions(control='json')")
    if not 1 <= len(account_id) <= 64:
        raise ConfigError("account_id is not 1 to 64 characters")


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """Asterisk tells a media channel's end through its own interfaces (ARI, AMI): it makes no callbacks."""
    return None


ASTERISK = Wire(
    name="asterisk",
    transport="websocket",
    formats=FORMATS,
    message_ms=SHORT_MESSAGES_MS,
    default_message_ms=20,
    options_type=AsteriskOptions,
    platform=lambda media_format, options: AsteriskDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: AsteriskDialect(Role.APPLICATION, options=_options(options)),
    claims=any_start,
    upgrade_headers=no_headers,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("none",),
    make_stream_id=make_uuid,
    subprotocol=SUBPROTOCOL,
    grpc_method="",
    default_account_id="media",
    two_way_inbound_only=True,
    most_ahead_ms=15_000,  # Asterisk drops what comes when 20 s wait, and asks for less at 18.
    check_stream=_check,
)
