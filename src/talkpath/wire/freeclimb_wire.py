"""FreeClimb's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import SHORT_MESSAGES_MS, StreamAttributes, Wire, any_start, make_uuid, no_headers
from talkpath.wire.freeclimb import FORMATS, FreeClimbDialect, FreeClimbOptions, check_format, write_metadata
from talkpath.wire.freeclimb_messages import METHOD
from talkpath.wire.status import StatusEvent

_DEFAULTS = FreeClimbOptions()


def _options(options: Any) -> FreeClimbOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, FreeClimbOptions):
        raise ConfigError(f"options of the freeclimb wire are FreeClimbOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    check_format(media_format)
    write_metadata(custom_parameters)
    _options(options)


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """A stream of FreeClimb's has no callback of its own: its command's ``actionUrl`` belongs to call control."""
    return None


FREECLIMB = Wire(
    name="freeclimb",
    transport="grpc",
    formats=FORMATS,
    message_ms=SHORT_MESSAGES_MS,
    default_message_ms=20,
    options_type=FreeClimbOptions,
    platform=lambda media_format, options: FreeClimbDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: FreeClimbDialect(Role.APPLICATION, options=_options(options)),
    claims=any_start,
    upgrade_headers=no_headers,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("none",),
    make_stream_id=make_uuid,
    subprotocol="",
    grpc_method=METHOD,
    default_account_id="freeclimb",
    two_way_inbound_only=True,
    check_stream=_check,
)
