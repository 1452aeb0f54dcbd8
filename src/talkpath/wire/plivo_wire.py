"""Plivo's entry in the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.entry import StreamAttributes, Wire
from talkpath.wire.plivo import PlivoDialect, PlivoOptions
from talkpath.wire.plivo_parameters import FORMATS_WRITTEN, check_format, content_type, write_extra_headers
from talkpath.wire.plivo_status import StatusNaming, status_callback
from talkpath.wire.signature import signature_headers
from talkpath.wire.status import StatusEvent

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)


def _check(media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: Any) -> None:
    check_format(media_format)
    write_extra_headers(custom_parameters)
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise ConfigError("account_id is not 1 to 64 letters, digits and - _ . :, for example MA00000000000000TALK")


def _upgrade(auth_token: str, nonce: str, url: str) -> tuple[tuple[str, str], ...]:
    return signature_headers(auth_token, nonce, "GET", url, scheme="http") if auth_token else ()


def _attributes(asked: StreamAttributes) -> Mapping[str, str]:
    attributes = {
        "bidirectional": "true" if asked.bidirectional else "false",
        "audioTrack": "both" if len(asked.tracks) == 2 else asked.tracks[0],
        "streamTimeout": str(round(asked.timeout_s)),
        "contentType": content_type(asked.media_format),
    }
    if asked.custom_parameters:
        attributes["extraHeaders"] = ",".join(f"{name}={value}" for name, value in asked.custom_parameters.items())
    return attributes


_NAMINGS: Mapping[str, StatusNaming] = {"A": StatusNaming.CLASSIC, "B": StatusNaming.GUIDE}


def _status(
    event: StatusEvent, scheme: str, url: str, method: str, auth_token: str, nonce: str
) -> CallbackRequest | None:
    return status_callback(event, _NAMINGS[scheme], url=url, method=method, auth_token=auth_token, nonce=nonce)


PLIVO = Wire(
    name="plivo",
    formats=FORMATS_WRITTEN,
    options_type=PlivoOptions,
    dialect=PlivoDialect,
    upgrade_headers=_upgrade,
    stream_attributes=_attributes,
    status_request=_status,
    status_schemes=("B", "A"),
    default_account_id="MA00000000000000TALK",
    check=_check,
)
