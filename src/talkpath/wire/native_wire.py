"""The native wire's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest, json_callback
from talkpath.wire.entry import Wire
from talkpath.wire.native import FORMATS, NativeDialect, NativeOptions, check_format, check_parameters
from talkpath.wire.status import StatusEvent


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: NativeOptions
) -> None:
    check_format(media_format)
    check_parameters(custom_parameters)
    if len(account_id) > 64:
        raise ConfigError("account_id has more than 64 characters")


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
    formats=FORMATS,
    options_type=NativeOptions,
    dialect=NativeDialect,
    status_request=_status,
    status_schemes=("json",),
    default_account_id="local",
    two_way_inbound_only=False,
    check=_check,
)
