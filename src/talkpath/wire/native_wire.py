"""The native wire's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest, json_callback
from talkpath.wire.dialect import Role
from talkpath.wire.entry import SHORT_MESSAGES_MS, StreamAttributes, Wire, any_start, make_uuid, no_headers
from talkpath.wire.native import FORMATS, NativeDialect, NativeOptions, check_format, check_parameters
from talkpath.wire.status import StatusEvent

_DEFAULTS = NativeOptions()


def _options(options: Any) -> NativeOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, NativeOptions):
        raise ConfigError(f"options of the native wire are NativeOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    check_format(media_format)
    check_parameters(custom_parameters)
    _options(options)
    if len(account_id) > 64:
        raise ConfigError("account_id has more than 64 characters")


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """A JSON object of what happened, in our own words; always by POST."""
    return json_callback(
        url,
        {
            "event": event.kind.value,
            "call_id": event.call_id,
            "stream_id": event.stream_id,
            "control_id": event.control_id,
            "name": event.stream_name,
            "mark": event.name,
            "reason": event.reason,
            "at_unix_s": event.at_unix_s,
            "duration_s": event.duration_s,
        },
    )


NATIVE = Wire(
    name="native",
    transport="websocket",
    formats=FORMATS,
    message_ms=SHORT_MESSAGES_MS,
    default_message_ms=20,
    options_type=NativeOptions,
    platform=lambda media_format, options: NativeDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: NativeDialect(Role.APPLICATION, options=_options(options)),
    claims=any_start,
    upgrade_headers=no_headers,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("json",),
    make_stream_id=make_uuid,
    subprotocol="",
    grpc_method="",
    default_account_id="local",
    two_way_inbound_only=False,
    check_stream=_check,
)
