"""FreJun Teler's entry in the catalogue."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest, json_callback
from talkpath.wire.entry import Wire
from talkpath.wire.status import StatusEvent, StatusKind, moment
from talkpath.wire.teler import FORMATS, TelerDialect, TelerOptions, check_format, check_parameters
from talkpath.wire.twilio import check_account_id

_DEFAULTS = TelerOptions()
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Of the base-32 ids behind the platform's prefixes."""


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: TelerOptions
) -> None:
    check_format(media_format)
    check_parameters(custom_parameters)
    check_account_id(account_id)


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    """The flat webhook of 2025-08-01: ``stream.initiated`` and ``stream.completed``; always a POST of JSON.

    Signed when there is a token, over the moment and the body. The headers' names agree in several programs that verify
    them; that the digest is written in hex is the likelier of two readings.
    """
    at = moment(event).strftime("%Y-%m-%dT%H:%M:%SZ")
    match event.kind:
        case StatusKind.STARTED:
            name, when = "stream.initiated", {"start_time": at}
        case StatusKind.STOPPED | StatusKind.FAILED:
            name, when = "stream.completed", {"end_time": at}
        case _:
            return None
    unsigned = json_callback(
        url,
        {
            "event": name,
            "account_id": event.account_id,
            "call_app_id": _DEFAULTS.voice_app_id,
            "data": {"call_id": event.call_id, "stream_id": event.stream_id, **when},
        },
    )
    if not auth_token:
        return unsigned
    timestamp = str(int(event.at_unix_s))
    signature = hmac.digest(auth_token.encode(), f"{timestamp}.".encode() + unsigned.body, hashlib.sha256).hex()
    headers = (("X-Teler-Timestamp", timestamp), ("X-Teler-Signature", signature))
    return CallbackRequest("POST", url, (*unsigned.headers, *headers), unsigned.body)


def _stream_id(entropy: Callable[[int], bytes]) -> str:
    number = int.from_bytes(entropy(16), "big")
    return "ms_" + "".join(_ALPHABET[number >> 5 * i & 31] for i in reversed(range(26)))


TELER = Wire(
    name="teler",
    formats=FORMATS,
    message_ms=tuple(range(20, 2001, 20)),
    default_message_ms=400,
    options_type=TelerOptions,
    dialect=TelerDialect,
    status_request=_status,
    status_schemes=("2025-08-01",),
    make_stream_id=_stream_id,
    default_account_id="acc_00000000000000000000000000",
    check=_check,
    tracks=("inbound_track",),
    takes_back_chunks=True,
)
