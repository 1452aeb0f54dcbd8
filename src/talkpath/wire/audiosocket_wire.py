"""AudioSocket's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.errors import ConfigError
from talkpath.events import MediaFormat
from talkpath.wire.audiosocket import FORMATS, AudioSocketDialect, AudioSocketOptions, check_format
from talkpath.wire.entry import Wire


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: AudioSocketOptions
) -> None:
    check_format(media_format)
    if custom_parameters:
        raise ConfigError("the audiosocket wire has no custom parameters; all it tells of a call is its UUID")


AUDIOSOCKET = Wire(
    name="audiosocket",
    transport="audiosocket",
    formats=FORMATS,
    message_ms=(20, 40),
    options_type=AudioSocketOptions,
    dialect=AudioSocketDialect,
    default_account_id="audiosocket",
    check=_check,
    tracks=("inbound_track",),
    most_ahead_ms=60,
    clear_reaches_sent=False,
    most_message_ms=20,
)
