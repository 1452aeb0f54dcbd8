"""SignalWire's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import SHORT_MESSAGES_MS, StreamAttributes, Wire, any_start, make_uuid, no_headers
from talkpath.wire.signalwire import FORMATS, SignalWireDialect, SignalWireOptions
from talkpath.wire.signalwire_status import cxml_callback, swml_callback
from talkpath.wire.status import StatusEvent
from talkpath.wire.twilio import check_account_id, check_parameters

_DEFAULTS = SignalWireOptions()


def _options(options: Any) -> SignalWireOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, SignalWireOptions):
        raise ConfigError(f"options of the signalwire wire are SignalWireOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    SignalWireDialect(Role.PLATFORM, media_format=media_format, options=_options(options))
    check_parameters("signalwire", custom_parameters)
    check_account_id(account_id)


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    if scheme == "cxml":
        return cxml_callback(event, url=url, method=method, auth_token=auth_token)
    return swml_callback(event, url=url, method=method)


SIGNALWIRE = Wire(
    name="signalwire",
    transport="websocket",
    formats=FORMATS,
    message_ms=SHORT_MESSAGES_MS,
    default_message_ms=20,
    options_type=SignalWireOptions,
    platform=lambda media_format, options: SignalWireDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: SignalWireDialect(Role.APPLICATION, options=_options(options)),
    claims=any_start,
    upgrade_headers=no_headers,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("swml", "cxml"),
    make_stream_id=make_uuid,
    subprotocol="",
    grpc_method="",
    default_account_id="00000000-0000-4000-8000-000000000000",
    two_way_inbound_only=True,
    check_stream=_check,
    digits_one_way=False,
    has_realtime=True,
)
