"""FreeClimb's messages beside the events they are, as protoc's classes for our definition make them.

A row that is `written` holds in both directions: the other end's `send` writes an equal message. The rest are forms
that are only read. Where each comes from is named, with what is our inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from talkpath.events import (
    BufferDepth,
    Clear,
    Digit,
    DigitsSent,
    HangUp,
    Media,
    MediaFormat,
    PlatformError,
    QueryBuffer,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.records import EndReason
from talkpath.wire.dialect import Role
from talkpath.wire.freeclimb import FreeClimbOptions

CALL = "0b1c2d3e@sip.example"
EPOCH_S = 1_760_000_000
EPOCH_MS = EPOCH_S * 1000
MULAW, L16_8, L16_16 = MediaFormat("PCMU", 8000), MediaFormat("L16", 8000), MediaFormat("L16", 16000)
STARTED = StreamStarted(
    CALL,
    CALL,
    "",
    ("inbound",),
    MULAW,
    {},
    from_number="+15550001",
    to_number="+15550002",
    direction="inbound",
)

SPEC = "FreeClimb audio streaming specification, 2024-05"
GUIDE = "FreeClimb audio streaming guide, read 2026-11"
SAMPLES = "FreeClimb's samples, read 2026-11"
OLD = "FreeClimb audio streaming specification, 2023-03"
OURS = "our inference"


@dataclass(frozen=True)
class Row:
    """One message, read by the end `role`."""

    name: str
    role: Role
    payload: Mapping[str, Mapping[str, Any]]
    events: tuple[WireEvent, ...]
    source: str
    written: bool = False
    sequence: int = 0
    media_format: MediaFormat = MULAW
    before_start: bool = False
    options: FreeClimbOptions = field(default_factory=FreeClimbOptions)


def moment(ms: int) -> dict[str, int]:
    """A protobuf Timestamp."""
    return {"seconds": ms // 1000, "nanos": ms % 1000 * 1_000_000}


def start(content_type: str = "audio/mulaw;rate=8000", **fields: Any) -> dict[str, Any]:
    """The fields of ``notify_call_started``."""
    call = {"call_id": CALL, "to": "+15550002", "from": "+15550001", "is_inbound": True, "content_type": content_type}
    return {"notify_call_started": call | fields}


def started(media_format: MediaFormat = MULAW, direction: str = "inbound", **parameters: str) -> StreamStarted:
    """The event of `start`."""
    return StreamStarted(
        CALL,
        CALL,
        "",
        ("inbound",),
        media_format,
        parameters,
        from_number="+15550001",
        to_number="+15550002",
        direction=direction,
    )


APP, PLATFORM = Role.APPLICATION, Role.PLATFORM

ROWS: tuple[Row, ...] = (
    # What the platform writes.
    Row("start", APP, start(), (started(),), SPEC, True, before_start=True),
    Row("start, a call that goes out", APP, start(is_inbound=False), (started(direction="outbound"),), SPEC, True,
        before_start=True),
    Row("start, 16-bit at 8 kHz", APP, start("audio/l16;rate=8000"), (started(L16_8),), SPEC, True,
        media_format=L16_8, before_start=True),
    Row("start, 16-bit at 16 kHz", APP, start("audio/l16;rate=16000"), (started(L16_16),), SPEC, True,
        media_format=L16_16, before_start=True),
    Row("start, big-endian by option", APP, start("audio/l16;rate=16000"),
        (started(MediaFormat("L16", 16000, big_endian=True)),), "the byte order is not documented", True,
        media_format=L16_16, before_start=True, options=FreeClimbOptions(big_endian=True)),
    Row("start, metadata", APP, start(metadata=["tier=gold", "a=b=c"]), (started(tier="gold", a="b=c"),),
        SPEC + " (strings); as name=value: " + OURS, True, before_start=True),
    Row("start, metadata without names", APP, start(metadata=["tenant-7", "", "=x"]),
        (started(**{"0": "tenant-7", "1": "", "2": "=x"}),), GUIDE + " (its example)", before_start=True),
    Row("start, little said", APP, {"notify_call_started": {"content_type": "Audio/L16; rate=8000"}},
        (StreamStarted("freeclimb", "", "", ("inbound",), L16_8, {}, direction="outbound"),), OURS, before_start=True),
    Row("audio", APP,
        {"notify_audio_data": {"audio_data": b"\xff\x7f" * 80, "start_tstamp": moment(EPOCH_MS + 40),
                               "end_tstamp": moment(EPOCH_MS + 60), "sequence_num": 7}},
        (Media(b"\xff\x7f" * 80, sequence=7, timestamp_ms=EPOCH_MS + 40),), SPEC, True, sequence=7),
    Row("audio, 16-bit at 16 kHz", APP,
        {"notify_audio_data": {"audio_data": b"\0\1" * 320, "start_tstamp": moment(EPOCH_MS + 40),
                               "end_tstamp": moment(EPOCH_MS + 60)}},
        (Media(b"\0\1" * 320, sequence=0, timestamp_ms=EPOCH_MS + 40),), SPEC, True, media_format=L16_16),
    Row("audio, no moments", APP, {"notify_audio_data": {"audio_data": b"\xff"}}, (Media(b"\xff", sequence=0),), OURS),
    Row("audio, none", APP, {"notify_audio_data": {}}, (), OURS),
    Row("a key goes down", APP, {"notify_dtmf_received_start_data": {"digit": "5", "start_tstamp": moment(EPOCH_MS)}},
        (Digit("5", timestamp_ms=EPOCH_MS),), SPEC),
    Row("a key goes down, a small letter", APP, {"notify_dtmf_received_start_data": {"digit": "d"}}, (Digit("D"),),
        OURS),
    Row("a key went up that was not seen to go down", APP,
        {"notify_dtmf_received_end_data": {"digit": "#", "end_tstamp": moment(EPOCH_MS + 9)}},
        (Digit("#", timestamp_ms=EPOCH_MS + 9),), OURS),
    Row("playing began", APP, {"notify_playback_started_data": {"id": "a"}}, (), SPEC),
    Row("playing of somebody's ended", APP, {"notify_playback_completed_data": {"id": "a"}}, (), OURS),
    Row("a clear that nobody asked for", APP, {"notify_audio_cleared_data": {"id": "a"}}, (), OURS),
    Row("digits began", APP, {"notify_dtmf_play_started_data": {"id": "d", "timestamp": moment(EPOCH_MS)}},
        (DigitsSent("d", begun=True),), SPEC, True),
    Row("digits are sent", APP, {"notify_dtmf_play_completed_data": {"id": "d", "timestamp": moment(EPOCH_MS)}},
        (DigitsSent("d"),), SPEC, True),
    Row("the caller hung up", APP, {"notify_call_ended": {"call_id": CALL, "reason": "bye"}},
        (StreamStopped("CALLER_DISCONNECT", EndReason.CALLER_HUNG_UP),), SPEC),
    Row("the application hung up", APP, {"notify_call_ended": {"reason_code": 1}},
        (StreamStopped("APPLICATION_DISCONNECT", EndReason.APPLICATION_HUNG_UP),), SPEC),
    Row("the platform hung up", APP, {"notify_call_ended": {"reason_code": 2}},
        (StreamStopped("PLATFORM_DISCONNECT", EndReason.PLATFORM_HUNG_UP),), SPEC),
    Row("the platform failed", APP, {"notify_call_ended": {"reason_code": 3}},
        (StreamStopped("PLATFORM_ERROR", EndReason.PLATFORM_FAILED),), SPEC),
    Row("a reason of later days", APP, {"notify_call_ended": {"reason_code": 9}}, (StreamStopped("reason 9"),), OURS),
    Row("a reason below nothing", APP, {"notify_call_ended": {"reason_code": -1}}, (StreamStopped("reason -1"),), OURS),
    Row("an error", APP, {"notify_error": {"error_message": "buffer overflow", "error_id": "e1"}},
        (PlatformError("buffer overflow", "e1"),), SPEC, True),
    Row("depth of the audio", APP, {"notify_buffer": {"buffer_type": 1, "depth": 12, "buffer_size": 2000}},
        (BufferDepth("audio", 12, 2000),), SPEC, True),
    Row("depth of the digits, none", APP, {"notify_buffer": {"buffer_size": 64}}, (BufferDepth("digits", 0, 64),), SPEC,
        True),
    Row("nothing in it", APP, {"notify_error": {}}, (PlatformError("", ""),), OURS),
    # What the application writes. Segments are a test of their own.
    Row("clear", PLATFORM, {"clear_audio_buffer": {"id": "clear-1"}}, (Clear("clear-1"),), SPEC, True),
    Row("digits", PLATFORM,
        {"dtmf_data": {"id": "d", "dtmf_digits": "12#a", "press_duration_ms": 250, "break_duration_ms": 50}},
        (SendDigits("12#A", "d", 250, 50),), SPEC, True),
    Row("digits, as the platform likes", PLATFORM, {"dtmf_data": {"dtmf_digits": "1"}}, (SendDigits("1"),), SPEC),
    Row("digits, held for too long", PLATFORM,
        {"dtmf_data": {"dtmf_digits": "1", "press_duration_ms": 8001, "break_duration_ms": 4_000_000_000}},
        (SendDigits("1", "", 8000, 8000),), SPEC),
    Row("hang up", PLATFORM, {"terminate_call": {}}, (HangUp(),), SPEC, True),
    Row("end of the stream alone", PLATFORM, {"end_stream": {"action_url": "https://a.example"}},
        (UnknownMessage("end_stream"),), SPEC + " (marked as not to be used)"),
    Row("how much audio waits", PLATFORM, {"query_buffer": {"buffer_type": 1}}, (QueryBuffer("audio"),), SPEC, True),
    Row("how many digits wait", PLATFORM, {"query_buffer": {}}, (QueryBuffer("digits"),), SPEC, True),
)  # fmt: skip

REFUSED: tuple[tuple[str, Role, Mapping[str, Mapping[str, Any]], str], ...] = (
    ("start, no content type", APP, start(""), "unknown_format"),
    ("start, a rate that is none of the wire's", APP, start("audio/l16;rate=24000"), "unknown_format"),
    ("start, a call id that is no id", APP, start(call_id="x" * 129), "too_long"),
    ("start, too much metadata", APP, start(metadata=["x"] * 257), "too_long"),
    ("a digit that is none", APP, {"notify_dtmf_received_start_data": {"digit": "e"}}, "bad_value"),
    ("a digit that is two", APP, {"notify_dtmf_received_end_data": {"digit": "12"}}, "bad_value"),
    ("digits that are none", PLATFORM, {"dtmf_data": {"dtmf_digits": "1w2"}}, "bad_value"),
    ("no digits", PLATFORM, {"dtmf_data": {}}, "bad_value"),
    ("too many digits", PLATFORM, {"dtmf_data": {"dtmf_digits": "1" * 65}}, "bad_value"),
    ("audio of another rate", PLATFORM, {"audio_data": {"content_type": "audio/l16;rate=16000"}}, "other_format"),
    ("audio of a kind that is none", PLATFORM, {"audio_data": {"content_type": "audio/opus"}}, "unknown_format"),
    ("half a sample", PLATFORM, {"audio_data": {"content_type": "audio/l16;rate=8000", "audio_data": b"\0"}},
     "odd_length"),
    ("a long id", PLATFORM, {"clear_audio_buffer": {"id": "x" * 129}}, "too_long"),
)  # fmt: skip
