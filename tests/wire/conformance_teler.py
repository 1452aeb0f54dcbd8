"""Teler's messages beside the events they are: one row per documented message, each with its source and date."""

from __future__ import annotations

from dataclasses import replace

from support.wire_table import Refusal, Row, WireTable
from talkpath.events import (
    Clear,
    Digit,
    Interrupt,
    Media,
    MediaFormat,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
)
from talkpath.wire.dialect import Role
from talkpath.wire.teler import TelerDialect, TelerOptions

STREAM = "ms_01JABCDEFGHJKMNPQRSTVWXYZ0"
CALL = "cs_01JABCDEFGHJKMNPQRSTVWXYZ1"
ACCOUNT = "acc_01JABCDEFGHJKMNPQRSTVWXYZ2"
APP_ID = "va_01JABCDEFGHJKMNPQRSTVWXYZ3"

L16, WIDE = MediaFormat("L16", 8000), MediaFormat("L16", 16000)
MESSAGES = "Teler supported messages page, read 2026-11"
SDK = "Teler SDKs (Python 1.0.0, Node 1.0.8) and bridge samples, read 2026-11"
THIRD = "third parties' notes, read 2026-11"
LENIENT = "not documented: what a reader can do without, read 2026-11"

STARTED = StreamStarted(STREAM, CALL, ACCOUNT, ("inbound",), L16, {})
OURS = TelerOptions(voice_app_id=APP_ID)
NESTED = TelerOptions(nested_audio=True)
UNDOCUMENTED = TelerOptions(undocumented=True)
APP, PLATFORM = Role.APPLICATION, Role.PLATFORM


def start(rate_hz: int = 8000, encoding: str = "audio/l16") -> str:
    """Return a start message."""
    return (
        f'{{"type":"start","account_id":"{ACCOUNT}","call_app_id":"{APP_ID}","call_id":"{CALL}","stream_id":"{STREAM}",'
        f'"message_id":1,"data":{{"encoding":"{encoding}","sample_rate":{rate_hz},"channels":1}}}}'
    )


def described(what: str) -> str:
    """Return a start message whose format is described so."""
    return f'{{"type":"start","stream_id":"ms_1","data":{what}}}'


ROWS: tuple[Row, ...] = (
    # What the platform writes.
    Row("start", APP, start(), STARTED, MESSAGES, True, 1, before_start=True, options=OURS),
    Row(
        "start, 16 kHz",
        APP,
        start(16000),
        replace(STARTED, media_format=WIDE),
        MESSAGES,
        True,
        1,
        WIDE,
        before_start=True,
        options=OURS,
    ),
    Row(
        "start, big-endian by option",
        APP,
        start(16000),
        replace(STARTED, media_format=MediaFormat("L16", 16000, big_endian=True)),
        "byte order is not documented; seen little-endian on a live call, read 2026-11",
        True,
        1,
        WIDE,
        before_start=True,
        options=replace(OURS, big_endian=True),
    ),
    Row(
        "start, little said",
        APP,
        described('{"sample_rate":"16000"}').replace("ms_1", STREAM),
        StreamStarted(STREAM, "", "", ("inbound",), WIDE, {}),
        LENIENT,
        before_start=True,
    ),
    Row("start, another spelling", APP, start(encoding="audio/x-L16"), STARTED, LENIENT, before_start=True),
    Row(
        "audio",
        APP,
        f'{{"type":"audio","stream_id":"{STREAM}","message_id":2,"data":{{"audio_b64":"AAABAA=="}}}}',
        Media(b"\0\0\1\0", sequence=2),
        MESSAGES,
        True,
        2,
    ),
    Row(
        "audio, empty",
        APP,
        f'{{"type":"audio","stream_id":"{STREAM}","message_id":3,"data":{{"audio_b64":""}}}}',
        Media(b"", sequence=3),
        MESSAGES,
        True,
        3,
    ),
    Row("audio, payload alone", APP, '{"type":"audio","data":{"audio_b64":""}}', Media(b""), LENIENT),
    Row(
        "dtmf",
        APP,
        f'{{"type":"dtmf","stream_id":"{STREAM}","message_id":4,"data":{{"digit":"1"}}}}',
        Digit("1"),
        THIRD,
        True,
        4,
        options=UNDOCUMENTED,
    ),
    Row("dtmf, short", APP, '{"type":"dtmf","data":{"digit":"1"}}', Digit("1"), THIRD),
    Row(
        "stop",
        APP,
        f'{{"type":"stop","stream_id":"{STREAM}","message_id":5}}',
        StreamStopped(),
        THIRD,
        True,
        5,
        options=UNDOCUMENTED,
    ),
    Row("stop, short", APP, '{"type":"stop"}', StreamStopped(), THIRD),
    Row("another's message", APP, '{"type":"interruption"}', UnknownMessage("interruption"), THIRD),
    # What the application writes.
    Row(
        "audio, flat",
        PLATFORM,
        '{"type":"audio","audio_b64":"AAABAA==","chunk_id":1}',
        Media(b"\0\0\1\0", chunk=1),
        SDK,
        True,
    ),
    Row(
        "audio, nested",
        PLATFORM,
        '{"type":"audio","data":{"audio_b64":"AAABAA==","chunk_id":1}}',
        Media(b"\0\0\1\0", chunk=1),
        MESSAGES,
        True,
        options=NESTED,
    ),
    Row(
        "audio, nested, to one who writes flat",
        PLATFORM,
        '{"type":"audio","data":{"audio_b64":"AAABAA==","chunk_id":0}}',
        Media(b"\0\0\1\0", chunk=0),
        MESSAGES,
    ),
    Row(
        "audio, half nested",
        PLATFORM,
        '{"type":"audio","data":{"audio_b64":"AAABAA=="},"chunk_id":7}',
        Media(b"\0\0\1\0", chunk=7),
        LENIENT,
    ),
    Row(
        "audio, number as text",
        PLATFORM,
        '{"type":"audio","audio_b64":"","chunk_id":"9"}',
        Media(b"", chunk=9),
        LENIENT,
    ),
    Row("audio, no number", PLATFORM, '{"type":"audio","audio_b64":"AAA="}', Media(b"\0\0"), LENIENT),
    Row("interrupt", PLATFORM, '{"type":"interrupt","chunk_id":1}', Interrupt(1), MESSAGES, True),
    Row("interrupt, as text", PLATFORM, '{"type":"interrupt","chunk_id":"12"}', Interrupt(12), LENIENT),
    Row("interrupt, nested", PLATFORM, '{"type":"interrupt","data":{"chunk_id":3}}', Interrupt(3), LENIENT),
    Row("clear", PLATFORM, '{"type":"clear"}', Clear(), MESSAGES, True),
    Row("stop", PLATFORM, '{"type":"stop"}', StreamStopped(), LENIENT),
    Row("another wire's message", PLATFORM, '{"type":"mark","name":"a"}', UnknownMessage("mark"), LENIENT),
)

REFUSALS: tuple[Refusal, ...] = (
    Refusal("a second start", APP, start(), "bad_state"),
    Refusal("audio without data", APP, '{"type":"audio"}', "missing_field"),
    Refusal("data is text", APP, '{"type":"audio","data":"AAAA"}', "bad_type"),
    Refusal("flat audio from the platform", APP, '{"type":"audio","audio_b64":"AAA="}', "missing_field"),
    Refusal("no payload", APP, '{"type":"audio","data":{}}', "missing_field"),
    Refusal("payload is a number", APP, '{"type":"audio","data":{"audio_b64":5}}', "bad_type"),
    Refusal("no base64", APP, '{"type":"audio","data":{"audio_b64":"*AAA"}}', "bad_base64"),
    Refusal("half a sample", APP, '{"type":"audio","data":{"audio_b64":"AAAA"}}', "odd_length"),
    Refusal("message id is true", APP, '{"type":"audio","message_id":true,"data":{"audio_b64":""}}', "bad_type"),
    Refusal("no digit", APP, '{"type":"dtmf","data":{}}', "missing_field"),
    Refusal("no such digit", APP, '{"type":"dtmf","data":{"digit":"E"}}', "bad_value"),
    Refusal("half a played sample", PLATFORM, '{"type":"audio","audio_b64":"AAAA"}', "odd_length"),
    Refusal("no base64 to play", PLATFORM, '{"type":"audio","audio_b64":"AAB="}', "bad_base64"),
    Refusal("nothing to play", PLATFORM, '{"type":"audio","chunk_id":1}', "missing_field"),
    Refusal("chunk below zero", PLATFORM, '{"type":"audio","audio_b64":"","chunk_id":-1}', "bad_value"),
    Refusal("chunk is a list", PLATFORM, '{"type":"audio","audio_b64":"","chunk_id":[]}', "bad_type"),
    Refusal("interrupt of nothing", PLATFORM, '{"type":"interrupt"}', "missing_field"),
    Refusal("interrupt of a word", PLATFORM, '{"type":"interrupt","chunk_id":"all"}', "bad_type"),
    Refusal("start without an id", APP, '{"type":"start","data":{}}', "missing_field", before_start=True),
    Refusal("id is an object", APP, '{"type":"start","stream_id":{}}', "bad_type", before_start=True),
    Refusal("a long id", APP, '{"type":"start","stream_id":"' + "a" * 200 + '"}', "too_long", before_start=True),
    Refusal("start without data", APP, '{"type":"start","stream_id":"ms_1"}', "missing_field", before_start=True),
    Refusal("no rate", APP, described("{}"), "missing_field", before_start=True),
    Refusal("24 kHz", APP, described('{"sample_rate":24000}'), "unknown_format", before_start=True),
    Refusal("mu-law", APP, described('{"encoding":"audio/x-mulaw","sample_rate":8000}'), "unknown_format", True),
    Refusal("encoding is a number", APP, described('{"encoding":7,"sample_rate":8000}'), "unknown_format", True),
    Refusal("stereo", APP, described('{"sample_rate":8000,"channels":2}'), "unknown_format", before_start=True),
    Refusal("audio before start", APP, '{"type":"audio","data":{"audio_b64":""}}', "bad_state", before_start=True),
    Refusal("audio before our start", PLATFORM, '{"type":"audio","audio_b64":""}', "bad_state", before_start=True),
)

TABLE = WireTable(
    "teler",
    lambda role, media_format, options: TelerDialect(
        role, media_format=media_format, options=options or TelerOptions()
    ),
    STARTED,
    ROWS,
    REFUSALS,
    streams=(replace(STARTED, media_format=WIDE),),
    event_key="type",
)
