"""What is peculiar to Teler's wire; its table is run by test_wire_tables.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from conformance_teler import APP, L16, PLATFORM, STARTED, STREAM, TABLE, UNDOCUMENTED, WIDE

from support.wire_table import last_json
from talkpath.engine import StreamSpec
from talkpath.errors import ConfigError, LocalWireError, NotOnThisWire
from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Handshaken,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    SendDigits,
    StreamStopped,
    WireEvent,
)
from talkpath.wire.catalog import wire_named
from talkpath.wire.dialect import Role
from talkpath.wire.teler import TelerDialect, TelerOptions


def test_silence_is_most_of_what_the_platform_says() -> None:
    platform = TABLE.started(PLATFORM)
    for command in (MarkReached("a"), Cleared(), Handshaken("1"), Digit("5"), StreamStopped()):
        assert list(platform.send(command, sequence=5)) == []
        assert not platform.numbered(command)
    for says in (platform.has_marks, platform.confirms_clear, platform.returns_marks_on_clear):
        assert not says


def test_digits_and_the_end_are_told_by_option_and_numbered_then() -> None:
    platform = TABLE.started(PLATFORM, options=UNDOCUMENTED)
    assert last_json(platform, Digit("a"), 8) == {
        "type": "dtmf",
        "stream_id": STREAM,
        "message_id": 8,
        "data": {"digit": "A"},
    }
    for command in (Digit("5"), StreamStopped()):
        assert platform.numbered(command)


@pytest.mark.parametrize(
    ("command", "nearest"),
    [
        (Mark("a"), "the line's own model of what has been heard"),
        (SendDigits("1"), "the REST API's dtmf"),
    ],
)
def test_what_the_wire_has_not_is_named_with_what_is_nearest(command: WireEvent, nearest: str) -> None:
    with pytest.raises(NotOnThisWire, match=nearest):
        TABLE.started(APP).send(command)


@pytest.mark.parametrize(
    ("rate_hz", "options", "plays_hz"),
    [
        (8000, TelerOptions(), 8000),
        (16000, TelerOptions(), 8000),
        (16000, TelerOptions(play_at_stream_rate=True), 16000),
    ],
)
def test_what_is_played_stays_at_8_khz_unless_told_otherwise(
    rate_hz: int, options: TelerOptions, plays_hz: int
) -> None:
    for role in Role:
        end = TABLE.started(role, MediaFormat("L16", rate_hz), options)
        assert end.media_format.sample_rate_hz == rate_hz
        assert end.play_format.sample_rate_hz == plays_hz
    application = TABLE.started(APP, MediaFormat("L16", rate_hz), options)
    application.send(Media(b"\0\0", media_format=MediaFormat("L16", plays_hz)))
    with pytest.raises(LocalWireError, match="audio is sent as"):
        application.send(Media(b"\0\0", media_format=MediaFormat("L16", 24000)))


def test_both_ends_may_be_told_another_byte_order() -> None:
    for role in Role:
        end = TABLE.started(role, L16, TelerOptions(big_endian=True))
        assert end.media_format.big_endian
        assert end.play_format.big_endian


def test_chunks_are_read_one_by_one_for_any_may_be_taken_back() -> None:
    assert TABLE.started(PLATFORM).media_shape() is None
    assert TABLE.started(APP).media_shape() is not None


def test_audio_waits_for_the_start() -> None:
    with pytest.raises(LocalWireError, match="before its start"):
        TABLE.end(APP).send(Clear())


def test_a_stream_carries_the_caller_alone() -> None:
    with pytest.raises(LocalWireError, match="no track but the caller's"):
        TABLE.end(PLATFORM).send(replace(STARTED, tracks=("inbound", "outbound")))
    with pytest.raises(LocalWireError, match="no track but the caller's"):
        TABLE.started(PLATFORM).media_template("outbound")
    for track in ("outbound_track", "both_tracks"):
        with pytest.raises(ConfigError, match="teler stream carries the inbound_track only"):
            StreamSpec(url="memory://a", wire="teler", track=track)


@pytest.mark.parametrize("media_format", [MediaFormat("PCMU", 8000), MediaFormat("L16", 24000)])
def test_formats_that_teler_has_not_are_refused(media_format: MediaFormat) -> None:
    with pytest.raises(ConfigError, match="right is L16 at 8000 or 16000 Hz"):
        TelerDialect(Role.PLATFORM, media_format=media_format)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"message_ms": 30}, "20 to 2000 in 20s on the teler wire"),
        ({"message_ms": 2020}, "20 to 2000 in 20s"),
        ({"codec": "PCMU"}, "right is L16 at 8000 or 16000 Hz"),
        ({"custom_parameters": {"a": "b"}}, "put them into the query of the stream's url"),
        ({"account_id": "a b"}, "1 to 64 letters"),
        ({"options": object()}, "TelerOptions"),
    ],
)
def test_what_a_teler_stream_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StreamSpec(url="memory://a", wire="teler", **options)


def test_what_a_teler_stream_is_when_nothing_is_said() -> None:
    spec = StreamSpec(url="memory://a", wire="teler")
    assert (spec.media_format(), spec.message_ptime_ms()) == (MediaFormat("L16", 8000), 400)
    assert StreamSpec(url="memory://a", wire="teler", codec="L16@16000h", message_ms=2000).message_ptime_ms() == 2000


def test_ids_have_the_platforms_prefix() -> None:
    stream_id = wire_named("teler").make_stream_id(lambda n: bytes(range(n)))
    assert stream_id.startswith("ms_")
    assert len(stream_id) == 29
    assert stream_id != wire_named("teler").make_stream_id(lambda n: bytes(range(1, n + 1)))
    with pytest.raises(ConfigError, match="voice_app_id"):
        TelerOptions(voice_app_id="no id")


def test_numbers_are_numbers_here() -> None:
    message = json.loads(TABLE.started(PLATFORM, WIDE).send(Media(b"\0\0"), sequence=7)[0])
    assert message == {"type": "audio", "stream_id": STREAM, "message_id": 7, "data": {"audio_b64": "AAA="}}
