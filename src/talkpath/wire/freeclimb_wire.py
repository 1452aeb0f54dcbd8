"""FreeClimb's entry in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.events import MediaFormat
from talkpath.wire.entry import Wire
from talkpath.wire.freeclimb import FORMATS, FreeClimbDialect, FreeClimbOptions, check_format, write_metadata
from talkpath.wire.freeclimb_messages import METHOD


def _check(
    media_format: MediaFormat, custom_parameters: Mapping[str, str], account_id: str, options: FreeClimbOptions
) -> None:
    check_format(media_format)
    write_metadata(custom_parameters)


FREECLIMB = Wire(
    name="freeclimb",
    transport="grpc",
    formats=FORMATS,
    options_type=FreeClimbOptions,
    dialect=FreeClimbDialect,
    grpc_method=METHOD,
    default_account_id="freeclimb",
    check=_check,
)
