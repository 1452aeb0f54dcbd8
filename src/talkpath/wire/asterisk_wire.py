"""Asterisk's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.asterisk import FORMATS, AsteriskDialect, AsteriskOptions, check_format
from talkpath.wire.entry import Wire

SUBPROTOCOL = "media"


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: AsteriskOptions
) -> None:
    check_format(media_format)
    if custom_parameters and options.control != "json":
        raise ConfigError("channel variables travel in JSON control only: AsteriskOptions(control='json')")
    if not 1 <= len(account_id) <= 64:
        raise ConfigError("account_id is not 1 to 64 characters")


ASTERISK = Wire(
    name="asterisk",
    formats=FORMATS,
    options_type=AsteriskOptions,
    dialect=AsteriskDialect,
    subprotocol=SUBPROTOCOL,
    default_account_id="media",
    most_ahead_ms=15_000,  # Asterisk drops what comes when 20 s wait, and asks for less at 18.
    check=_check,
)
