"""Plivo's messages beside the events they are: one row per documented message, each with its source and date.

A row that is `written` holds in both directions: the other end's `send` writes a message equal as JSON. The rest are
forms that are only read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
    WireEvent,
)
from talkpath.wire.dialect import Role
from talkpath.wire.plivo import PlivoOptions

STREAM = "b7d3e6a2-91c4-4f0b-8e2d-0c5a7f9e1d22"
CALL = "3f2a9c10-6b1d-4c57-9a1e-5d0f6f1c2b34"
ACCOUNT = "MAXXXXXXXXXXXXXXXXXX"

MULAW = MediaFormat("PCMU", 8000)
L16 = MediaFormat("L16", 16000)

STARTED = StreamStarted(STREAM, CALL, ACCOUNT, ("inbound",), MULAW, {})

REFERENCE = "Plivo streaming reference, 2026-01"
GUIDE = "Plivo streaming guide, 2026-01"
PROTOCOL = "Plivo stream event protocol page, read 2026-11"
SDK = "Plivo stream SDKs (Python 0.1.1, Node 1.0.0, Java 1.0.0), read 2026-11"
OBSERVED = "observed on live or compatible platforms, read 2026-11"


@dataclass(frozen=True)
class Row:
    """One message, read by the end `role`."""

    name: str
    role: Role
    text: str
    event: WireEvent
    source: str
    written: bool = False
    sequence: int = 0
    media_format: MediaFormat = MULAW
    before_start: bool = False
    options: PlivoOptions = field(default_factory=PlivoOptions)


def _start(media_format: str, extra_headers: str, tracks: str = '["inbound"]') -> str:
    return (
        f'{{"event":"start","sequenceNumber":1,"start":{{"callId":"{CALL}","streamId":"{STREAM}",'
        f'"accountId":"{ACCOUNT}","tracks":{tracks},"mediaFormat":{media_format}}},"extra_headers":{extra_headers}}}'
    )


def _started(
    media_format: MediaFormat = MULAW, tracks: tuple[str, ...] = ("inbound",), **parameters: str
) -> StreamStarted:
    return StreamStarted(STREAM, CALL, ACCOUNT, tracks, media_format, parameters)


MULAW_TEXT = '{"encoding":"audio/x-mulaw","sampleRate":8000}'
APP, PLATFORM = Role.APPLICATION, Role.PLATFORM

ROWS: tuple[Row, ...] = (
    # What the platform writes.
    Row("start", APP, _start(MULAW_TEXT, '"{}"'), _started(), REFERENCE, True, 1, before_start=True),
    Row(
        "start, 16-bit at 8 kHz",
        APP,
        _start('{"encoding":"audio/x-l16","sampleRate":8000}', '"{}"'),
        _started(MediaFormat("L16", 8000)),
        REFERENCE,
        True,
        1,
        MediaFormat("L16", 8000),
        before_start=True,
    ),
    Row(
        "start, 16-bit at 16 kHz",
        APP,
        _start('{"encoding":"audio/x-l16","sampleRate":16000}', '"{}"'),
        _started(L16),
        REFERENCE,
        True,
        1,
        L16,
        before_start=True,
    ),
    Row(
        "start, big-endian by option",
        APP,
        _start('{"encoding":"audio/x-l16","sampleRate":16000}', '"{}"'),
        _started(MediaFormat("L16", 16000, big_endian=True)),
        "byte order is not documented; observed on a compatible platform, read 2026-11",
        True,
        1,
        L16,
        before_start=True,
        options=PlivoOptions(big_endian=True),
    ),
    Row(
        "start, both tracks",
        APP,
        _start(MULAW_TEXT, '"{}"', '["inbound","outbound"]'),
        _started(tracks=("inbound", "outbound")),
        REFERENCE,
        True,
        1,
        before_start=True,
    ),
    Row(
        "start, custom parameters",
        APP,
        _start(MULAW_TEXT, r'"{\"tier\":\"gold\",\"room\":\"7\"}"'),
        _started(tier="gold", room="7"),
        REFERENCE,
        True,
        1,
        before_start=True,
    ),
    Row(
        "start, braces",
        APP,
        _start(MULAW_TEXT, '"{tier: gold, room: 7}"'),
        _started(tier="gold", room="7"),
        OBSERVED,
        before_start=True,
    ),
    Row(
        "start, semicolons",
        APP,
        _start(MULAW_TEXT, '"tier=gold;room=7"'),
        _started(tier="gold", room="7"),
        GUIDE,
        before_start=True,
    ),
    Row(
        "start, commas",
        APP,
        _start(MULAW_TEXT, '"tier=gold,room=7"'),
        _started(tier="gold", room="7"),
        OBSERVED,
        before_start=True,
    ),
    Row(
        "start, prefixed names",
        APP,
        _start(MULAW_TEXT, r'"{\"X-PH-tier\":\"gold\",\"x-ph-room\":7}"'),
        _started(tier="gold", room="7"),
        OBSERVED,
        before_start=True,
    ),
    Row(
        "start, headers as an object",
        APP,
        _start(MULAW_TEXT, '{"tier":"gold","vip":true,"note":null}'),
        _started(tier="gold", vip="true", note=""),
        OBSERVED,
        before_start=True,
    ),
    Row("start, no headers", APP, _start(MULAW_TEXT, "null"), _started(), SDK, before_start=True),
    Row(
        "start, customParameters",
        APP,
        f'{{"event":"start","sequenceNumber":1,"start":{{"callId":"{CALL}","streamId":"{STREAM}","accountId":"{ACCOUNT}",'
        f'"tracks":["inbound"],"mediaFormat":{MULAW_TEXT},"customParameters":{{"tier":"gold"}}}}}}',
        _started(tier="gold"),
        SDK + " (Java's model only)",
        before_start=True,
    ),
    Row(
        "start, little said",
        APP,
        f'{{"event":"start","streamId":"{STREAM}","start":{{"mediaFormat":'
        '{"encoding":"audio/x-mulaw;rate=8000"},"accountId":12345}}',
        StreamStarted(STREAM, "", "12345", ("inbound",), MULAW, {}),
        OBSERVED,
        before_start=True,
    ),
    Row(
        "start, 24 kHz",
        APP,
        _start('{"encoding":"audio/x-l16","sampleRate":"24000"}', '"{}"'),
        _started(MediaFormat("L16", 24000)),
        "Plivo XML page (not its reference), read 2026-11",
        before_start=True,
    ),
    Row(
        "media",
        APP,
        f'{{"event":"media","sequenceNumber":2,"streamId":"{STREAM}","media":{{"track":"inbound",'
        '"timestamp":"1760000000120","chunk":1,"payload":"/////w=="},"extra_headers":"{}"}',
        Media(b"\xff\xff\xff\xff", "inbound", None, 2, 1, 1_760_000_000_120),
        REFERENCE,
        True,
        2,
    ),
    Row(
        "media, outbound",
        APP,
        f'{{"event":"media","sequenceNumber":9,"streamId":"{STREAM}","media":{{"track":"outbound",'
        '"timestamp":"20","chunk":4,"payload":"AAAB"},"extra_headers":"{}"}',
        Media(b"\0\0\1", "outbound", None, 9, 4, 20),
        REFERENCE,
        True,
        9,
    ),
    Row(
        "media, reduced",
        APP,
        '{"event":"media","media":{"track":"inbound","timestamp":20,"chunk":"4","payload":"AAAB"}}',
        Media(b"\0\0\1", "inbound", None, None, 4, 20),
        "Plivo's command-line stream test, by its agent notes, read 2026-11",
    ),
    Row("media, payload alone", APP, '{"event":"media","media":{"payload":""}}', Media(b""), OBSERVED),
    Row(
        "dtmf",
        APP,
        f'{{"event":"dtmf","sequenceNumber":203,"streamId":"{STREAM}","dtmf":{{"track":"inbound","digit":"5",'
        '"timestamp":"1760000004000"},"extra_headers":"{}"}',
        Digit("5", "inbound", 1_760_000_004_000),
        REFERENCE,
        True,
        203,
    ),
    Row(
        "dtmf, star",
        APP,
        f'{{"event":"dtmf","sequenceNumber":204,"streamId":"{STREAM}","dtmf":{{"track":"inbound","digit":"*",'
        '"timestamp":"0"},"extra_headers":"{}"}',
        Digit("*", "inbound", 0),
        REFERENCE,
        True,
        204,
    ),
    Row("dtmf, reduced", APP, '{"event":"dtmf","dtmf":{"digit":"a"}}', Digit("A"), OBSERVED),
    Row("dtmf, a number", APP, '{"event":"dtmf","dtmf":{"digit":7,"timestamp":5}}', Digit("7", "inbound", 5), OBSERVED),
    Row(
        "playedStream",
        APP,
        f'{{"event":"playedStream","sequenceNumber":311,"streamId":"{STREAM}","name":"greeting-end"}}',
        MarkReached("greeting-end"),
        REFERENCE,
        True,
        311,
    ),
    Row("playedStream, short", APP, '{"event":"playedStream","name":"a"}', MarkReached("a"), OBSERVED),
    Row("played", APP, '{"event":"played","name":"a"}', MarkReached("a"), "Plivo support pages, read 2026-11"),
    Row(
        "clearedAudio",
        APP,
        f'{{"event":"clearedAudio","sequenceNumber":312,"streamId":"{STREAM}"}}',
        Cleared(),
        REFERENCE,
        True,
        312,
    ),
    Row("clearedAudio, short", APP, '{"event":"clearedAudio"}', Cleared(), OBSERVED),
    Row(
        "stop",
        APP,
        f'{{"event":"stop","sequenceNumber":313,"streamId":"{STREAM}","reason":"hangup"}}',
        StreamStopped("hangup"),
        SDK + " (Java's model)",
        True,
        313,
        options=PlivoOptions(emit_stop=True),
    ),
    Row(
        "stop without reason",
        APP,
        f'{{"event":"stop","sequenceNumber":313,"streamId":"{STREAM}"}}',
        StreamStopped(),
        SDK + " (Java's model)",
        True,
        313,
        options=PlivoOptions(emit_stop=True),
    ),
    Row("an event of tomorrow", APP, '{"event":"speechStarted","x":1}', UnknownMessage("speechStarted"), OBSERVED),
    # What the application writes.
    Row(
        "playAudio",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":"AAAB"}}',
        Media(b"\0\0\1", media_format=MULAW),
        REFERENCE,
        True,
    ),
    Row(
        "playAudio, 16-bit",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":16000,"payload":"AAABAA=="}}',
        Media(b"\0\0\1\0", media_format=L16),
        REFERENCE,
        True,
        media_format=L16,
    ),
    Row(
        "playAudio, rate as text and a stream id",
        PLATFORM,
        f'{{"event":"playAudio","streamId":"{STREAM}","media":{{"contentType":"audio/x-mulaw","sampleRate":"8000",'
        '"payload":"AAAB"}}',
        Media(b"\0\0\1", media_format=MULAW),
        REFERENCE,
    ),
    Row(
        "playAudio, rate in the content type",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-l16;rate=16000","payload":"AAABAA=="}}',
        Media(b"\0\0\1\0", media_format=L16),
        OBSERVED,
        media_format=L16,
    ),
    Row(
        "playAudio, format of the stream",
        PLATFORM,
        '{"event":"playAudio","media":{"payload":"AAAB"}}',
        Media(b"\0\0\1"),
        SDK + " (Java's convenience call)",
    ),
    Row(
        "playAudio, another format",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":24000,"payload":"AAABAA=="}}',
        Media(b"\0\0\1\0", media_format=MediaFormat("L16", 24000)),
        OBSERVED,
    ),
    Row(
        "checkpoint",
        PLATFORM,
        f'{{"event":"checkpoint","streamId":"{STREAM}","name":"greeting-end"}}',
        Mark("greeting-end"),
        REFERENCE,
        True,
    ),
    Row("checkpoint, no id", PLATFORM, '{"event":"checkpoint","name":"a"}', Mark("a"), OBSERVED),
    Row("clearAudio", PLATFORM, f'{{"event":"clearAudio","streamId":"{STREAM}"}}', Clear(), REFERENCE, True),
    Row("clearAudio, no id", PLATFORM, '{"event":"clearAudio"}', Clear(), "Plivo's examples, read 2026-11"),
    Row("sendDTMF", PLATFORM, '{"event":"sendDTMF","dtmf":"1234#"}', SendDigits("1234#"), PROTOCOL, True),
    Row("sendDTMF, small letters", PLATFORM, '{"event":"sendDTMF","dtmf":"12ab"}', SendDigits("12AB"), OBSERVED),
    Row("stop", PLATFORM, f'{{"event":"stop","streamId":"{STREAM}"}}', StreamStopped(), OBSERVED),
    Row("another wire's media", PLATFORM, '{"event":"media","media":{}}', UnknownMessage("media"), OBSERVED),
)

REFUSED: tuple[tuple[str, Role, str | bytes, str], ...] = (
    # name, end that reads, message, kind
    ("no JSON", APP, "hello", "bad_json"),
    ("no number", APP, '{"event":"media","x":NaN}', "bad_json"),
    ("an endless number", APP, '{"event":"media","x":' + "7" * 5000 + "}", "bad_json"),
    ("nested beyond reason", APP, "[" * 100_000, "bad_json"),
    ("binary", APP, b"\xff\xd8\xff\xe0", "bad_utf8"),
    ("a list", APP, "[1]", "bad_type"),
    ("no event", APP, "{}", "missing_field"),
    ("event is a number", APP, '{"event":1}', "bad_type"),
    ("too long", APP, '{"event":"media","x":"' + "a" * (1 << 21) + '"}', "too_long"),
    ("a second start", APP, _start(MULAW_TEXT, '"{}"'), "bad_state"),
    ("media without media", APP, '{"event":"media"}', "missing_field"),
    ("media is text", APP, '{"event":"media","media":"AAAA"}', "bad_type"),
    ("no payload", APP, '{"event":"media","media":{}}', "missing_field"),
    ("payload is a number", APP, '{"event":"media","media":{"payload":5}}', "bad_type"),
    ("no base64", APP, '{"event":"media","media":{"payload":"*AAA"}}', "bad_base64"),
    ("no ASCII", APP, '{"event":"media","media":{"payload":"é"}}', "bad_base64"),
    ("base64 cut short", APP, '{"event":"media","media":{"payload":"AAA"}}', "bad_base64"),
    ("base64 with bits left over", APP, '{"event":"media","media":{"payload":"AAB="}}', "bad_base64"),
    ("a strange track", APP, '{"event":"media","media":{"payload":"AA==","track":"left"}}', "bad_value"),
    ("chunk is no number", APP, '{"event":"media","media":{"payload":"AA==","chunk":true}}', "bad_type"),
    ("timestamp is a list", APP, '{"event":"media","media":{"payload":"AA==","timestamp":[]}}', "bad_type"),
    ("chunk below zero", APP, '{"event":"media","media":{"payload":"AA==","chunk":-1}}', "bad_value"),
    (
        "sequence out of range",
        APP,
        '{"event":"media","sequenceNumber":1' + "0" * 30 + ',"media":{"payload":""}}',
        "bad_value",
    ),
    ("no digit", APP, '{"event":"dtmf","dtmf":{}}', "missing_field"),
    ("two digits", APP, '{"event":"dtmf","dtmf":{"digit":"12"}}', "bad_value"),
    ("no such digit", APP, '{"event":"dtmf","dtmf":{"digit":"E"}}', "bad_value"),
    ("no name", APP, '{"event":"playedStream"}', "missing_field"),
    ("half a character", APP, '{"event":"playedStream","name":"\\ud800"}', "bad_value"),
    ("checkpoint with a number", PLATFORM, '{"event":"checkpoint","name":5}', "bad_type"),
    ("checkpoint without a name", PLATFORM, '{"event":"checkpoint"}', "missing_field"),
    ("checkpoint with an empty name", PLATFORM, '{"event":"checkpoint","name":""}', "bad_value"),
    ("checkpoint with a novel", PLATFORM, '{"event":"checkpoint","name":"' + "a" * 257 + '"}', "too_long"),
    (
        "unknown encoding",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/mp3","payload":""}}',
        "unknown_format",
    ),
    (
        "unknown rate",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":44100,"payload":""}}',
        "unknown_format",
    ),
    (
        "half a sample",
        PLATFORM,
        '{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":8000,"payload":"AAAA"}}',
        "odd_length",
    ),
    ("no digits", PLATFORM, '{"event":"sendDTMF","dtmf":""}', "bad_value"),
    ("digits as a number", PLATFORM, '{"event":"sendDTMF","dtmf":12}', "bad_type"),
    ("a pause", PLATFORM, '{"event":"sendDTMF","dtmf":"1w2"}', "bad_value"),
    ("too many digits", PLATFORM, '{"event":"sendDTMF","dtmf":"' + "1" * 65 + '"}', "too_long"),
)
