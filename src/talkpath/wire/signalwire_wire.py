"""SignalWire's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.dialect import Role
from talkpath.wire.entry import Wire
from talkpath.wire.signalwire import FORMATS, SignalWireDialect, SignalWireOptions
from talkpath.wire.signalwire_status import cxml_callback, swml_callback
from talkpath.wire.status import StatusEvent
from talkpath.wire.twilio import check_account_id, check_parameters


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: SignalWireOptions
) -> None:
    SignalWireDialect(Role.PLATFORM, media_format=media_format, options=options)
    check_parameters("signalwire", custom_parameters)
    check_account_id(account_id)


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    if scheme == "cxml":
        return cxml_callback(event, url=url, method=method, auth_token=auth_token)
    return swml_callback(event, url=url, method=method)


SIGNALWIRE = Wire(
    name="signalwire",
    formats=FORMATS,
    options_type=SignalWireOptions,
    dialect=SignalWireDialect,
    status_request=_status,
    status_schemes=("swml", "cxml"),
    default_account_id="00000000-0000-4000-8000-000000000000",
    check=_check,
    digits_one_way=False,
    has_realtime=True,
)
