"""Twilio's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat, StreamStarted
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import SHORT_MESSAGES_MS, StreamAttributes, Wire
from talkpath.wire.status import StatusEvent
from talkpath.wire.twilio import TwilioDialect, TwilioOptions, check_account_id, check_parameters, sid
from talkpath.wire.twilio_signature import SIGNATURE_HEADER, sign
from talkpath.wire.twilio_status import status_callback

_DEFAULTS = TwilioOptions()


def _options(options: Any) -> TwilioOptions:
    if options is None:
        return _DEFAULTS
    if not isinstance(options, TwilioOptions):
        raise ConfigError(f"options of the twilio wire are TwilioOptions, not {type(options).__name__}")
    return options


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    TwilioDialect(Role.PLATFORM, media_format=media_format, options=_options(options))
    check_parameters("twilio", custom_parameters)
    if not _options(options).require_sids:
        check_account_id(account_id)
    elif sid("AC", account_id) is None:
        raise ConfigError("account_id is neither AC and 32 hexadecimal digits nor a UUID")


def _upgrade(auth_token: str, nonce: str, url: str) -> tuple[tuple[str, str], ...]:
    # The form that was seen to be signed, whatever is dialled.
    return ((SIGNATURE_HEADER, sign(auth_token, f"wss://{url.partition('://')[2]}")),) if auth_token else ()


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    return {}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    return status_callback(event, url=url, method=method, auth_token=auth_token)


def _stream_id(entropy: Callable[[int], bytes]) -> str:
    return f"MZ{entropy(16).hex()}"


def _claims(started: StreamStarted) -> bool:
    return started.stream_id.startswith("MZ") and sid("MZ", started.stream_id) is not None


TWILIO = Wire(
    name="twilio",
    transport="websocket",
    formats=(("PCMU", 8000),),
    message_ms=SHORT_MESSAGES_MS,
    default_message_ms=20,
    options_type=TwilioOptions,
    platform=lambda media_format, options: TwilioDialect(
        Role.PLATFORM, media_format=media_format, options=_options(options)
    ),
    application=lambda options: TwilioDialect(Role.APPLICATION, options=_options(options)),
    claims=_claims,
    upgrade_headers=_upgrade,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("form",),
    make_stream_id=_stream_id,
    subprotocol="",
    grpc_method="",
    default_account_id=f"AC{0:032x}",
    two_way_inbound_only=True,
    check_stream=_check,
    digits_one_way=False,
)
