"""AudioSocket's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.audiosocket import FORMATS, AudioSocketDialect, AudioSocketOptions, check_format
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import StreamAttributes, Wire, any_start, make_uuid, no_headers
from talkpath.wire.status import StatusEvent

_DEFAULTS = AudioSocketOptions()


def _options(options: Any) -> AudioSocketOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, AudioSocketOptions):
        raise ConfigError(f"options of the audiosocket wire are AudioSocketOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    check_format(media_format)
    _options(options)
    if custom_parameters:
        raise ConfigError("the audiosocket wire has no custom parameters; all it tells of a call is its UUID")


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """Asterisk makes no callbacks."""
    return None


AUDIOSOCKET = Wire(
    name="audiosocket",
    transport="audiosocket",
    formats=FORMATS,
    message_ms=(20, 40),
    default_message_ms=20,
    options_type=AudioSocketOptions,
    platform=lambda media_format, options: AudioSocketDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: AudioSocketDialect(
        Role.APPLICATION,
        media_format=MediaFormat("L16", _options(options).sample_rate_hz),
        options=_options(options),
    ),
    claims=any_start,
    upgrade_headers=no_headers,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("none",),
    make_stream_id=make_uuid,
    subprotocol="",
    grpc_method="",
    default_account_id="audiosocket",
    two_way_inbound_only=True,
    check_stream=_check,
    tracks=("inbound_track",),
    most_ahead_ms=60,
    most_message_ms=20,
)
