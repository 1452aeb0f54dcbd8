"""Twilio's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat, StreamStarted
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import Wire
from talkpath.wire.status import StatusEvent
from talkpath.wire.twilio import TwilioDialect, TwilioOptions, check_account_id, check_parameters, sid
from talkpath.wire.twilio_signature import SIGNATURE_HEADER, sign
from talkpath.wire.twilio_status import status_callback


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: TwilioOptions
) -> None:
    TwilioDialect(Role.PLATFORM, media_format=media_format, options=options)
    check_parameters("twilio", custom_parameters)
    if not options.require_sids:
        check_account_id(account_id)
    elif sid("AC", account_id) is None:
        raise ConfigError("account_id is neither AC and 32 hexadecimal digits nor a UUID")


def _upgrade(auth_token: str, nonce: str, url: str) -> tuple[tuple[str, str], ...]:
    # The form that was seen to be signed, whatever is dialled.
    return ((SIGNATURE_HEADER, sign(auth_token, f"wss://{url.partition('://')[2]}")),) if auth_token else ()


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
    formats=(("PCMU", 8000),),
    options_type=TwilioOptions,
    dialect=TwilioDialect,
    claims=_claims,
    upgrade_headers=_upgrade,
    status_request=_status,
    status_schemes=("form",),
    make_stream_id=_stream_id,
    default_account_id=f"AC{0:032x}",
    check=_check,
    digits_one_way=False,
)
