"""SignalWire's messages beside the events they are: one row per documented message, each with its source and date."""

from __future__ import annotations

from dataclasses import replace

from conformance_twilio import family_refusals

from support.wire_table import Refusal, Row, WireTable
from talkpath.events import (
    Clear,
    Digit,
    Handshaken,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    SendDigits,
    StreamStarted,
    StreamStopped,
)
from talkpath.wire.dialect import Role
from talkpath.wire.signalwire import FORMATS, SignalWireDialect, SignalWireOptions

STREAM = "c1a5b9e0-2f3d-4a6b-8c7d-9e0f1a2b3c4d"
CALL = "7d0b2f3e-5a41-4b0e-9a52-33333333aaaa"
ACCOUNT = "11111111-1111-4111-8111-111111111111"

MULAW, L16 = MediaFormat("PCMU", 8000), MediaFormat("L16", 24000)
CXML = "SignalWire cXML <Stream> page, 2026-08"
SWML = "SignalWire SWML connect page, 2026-08 (frames assumed to be cXML's)"
FAMILY = "Twilio's form, which applications written for both need; harmless to SignalWire's own, read 2026-11"
LENIENT = "not documented: forms of applications and of platforms that copy this wire, read 2026-11"
UNNAMED = "SignalWire names no encoding for this codec; the registered name of its kind, read 2026-11"

STARTED = StreamStarted(STREAM, CALL, ACCOUNT, ("inbound",), MULAW, {})
PARAMETERS = {"tier": "gold", "who": 'a "b" é'}
APP, PLATFORM = Role.APPLICATION, Role.PLATFORM
LETTER = SignalWireOptions(as_documented=True)


def start(
    encoding: str = "audio/x-mulaw", rate_hz: int = 8000, parameters: str = "{}", *, at_the_top: bool = True
) -> str:
    """Return a start message."""
    return (
        f'{{"event":"start","sequenceNumber":"1","start":{{"streamSid":"{STREAM}","accountSid":"{ACCOUNT}",'
        f'"callSid":"{CALL}","tracks":["inbound"],"customParameters":{parameters},'
        f'"mediaFormat":{{"encoding":"{encoding}","sampleRate":{rate_hz},"channels":1}}}}'
        + (f',"streamSid":"{STREAM}"}}' if at_the_top else "}")
    )


def started(encoding: str, rate_hz: int, *, big_endian: bool = False) -> StreamStarted:
    """Return what a start in a format is read as."""
    return replace(STARTED, media_format=MediaFormat(encoding, rate_hz, big_endian))


ROWS: tuple[Row, ...] = (
    # What the platform writes.
    Row(
        "connected",
        APP,
        '{"event":"connected","protocol":"Call","version":"0.2.0"}',
        Handshaken("0.2.0"),
        CXML,
        before_start=True,
    ),
    Row("start", APP, start(), STARTED, FAMILY, True, 1, before_start=True),
    Row(
        "start, to the letter",
        APP,
        start(at_the_top=False),
        STARTED,
        CXML,
        True,
        1,
        before_start=True,
        options=LETTER,
    ),
    *(
        Row(
            f"start, {encoding} at {rate_hz} Hz",
            APP,
            start(named, rate_hz),
            started(encoding, rate_hz),
            source,
            True,
            1,
            MediaFormat(encoding, rate_hz),
            before_start=True,
        )
        for encoding, rate_hz, named, source in (
            ("L16", 16000, "audio/x-L16", CXML),
            ("L16", 24000, "audio/x-L16", CXML),
            ("L16", 8000, "audio/x-L16", SWML),
            ("L16", 48000, "audio/x-L16", SWML),
            ("PCMA", 8000, "audio/x-alaw", UNNAMED),
        )
    ),
    Row(
        "start, big-endian by option",
        APP,
        start("audio/x-L16", 24000),
        started("L16", 24000, big_endian=True),
        "byte order is not documented, read 2026-11",
        True,
        1,
        L16,
        before_start=True,
        options=SignalWireOptions(big_endian=True),
    ),
    Row("start, small letters", APP, start("audio/x-l16", 16000), started("L16", 16000), LENIENT, before_start=True),
    Row("start, PCMA by its name", APP, start("audio/PCMA"), started("PCMA", 8000), LENIENT, before_start=True),
    Row(
        "start, custom parameters",
        APP,
        start(parameters=r'{"tier":"gold","who":"a \"b\" é"}'),
        replace(STARTED, custom_parameters=PARAMETERS),
        FAMILY,
        True,
        1,
        before_start=True,
    ),
    Row(
        "start, custom parameters of any kind",
        APP,
        start(parameters='{"a":1,"b":{"c":null}}'),
        replace(STARTED, custom_parameters={"a": "1", "b": '{"c":null}'}),
        "SignalWire calling API specification (any JSON object), 2026-08",
        before_start=True,
    ),
    Row(
        "start, no custom parameters",
        APP,
        start(at_the_top=False).replace('"customParameters":{},', ""),
        STARTED,
        CXML + " (the table; its example has an empty object)",
        before_start=True,
    ),
    Row(
        "media",
        APP,
        '{"event":"media","sequenceNumber":"7","media":{"track":"inbound","chunk":"6","timestamp":"100",'
        f'"payload":"/////w=="}},"streamSid":"{STREAM}"}}',
        Media(b"\xff\xff\xff\xff", "inbound", None, 7, 6, 100),
        FAMILY,
        True,
        7,
    ),
    Row(
        "media, to the letter",
        APP,
        '{"event":"media","sequenceNumber":"7","media":{"track":"outbound","chunk":"6","timestamp":"100",'
        '"payload":"AAAB"}}',
        Media(b"\0\0\1", "outbound", None, 7, 6, 100),
        CXML,
        True,
        7,
        options=LETTER,
    ),
    Row(
        "dtmf",
        APP,
        f'{{"event":"dtmf","sequenceNumber":"88","streamSid":"{STREAM}","dtmf":{{"digit":"9","duration":140}}}}',
        Digit("9", duration_ms=140),
        CXML,
        True,
        88,
    ),
    Row(
        "dtmf, as Twilio's",
        APP,
        f'{{"event":"dtmf","streamSid":"{STREAM}","sequenceNumber":"4","dtmf":{{"track":"inbound_track","digit":"#"}}}}',
        Digit("#"),
        LENIENT,
    ),
    Row(
        "mark",
        APP,
        f'{{"event":"mark","streamSid":"{STREAM}","mark":{{"name":"m1"}}}}',
        MarkReached("m1", None),
        CXML,
        True,
    ),
    Row(
        "stop",
        APP,
        f'{{"event":"stop","sequenceNumber":"641","stop":{{"accountSid":"{ACCOUNT}","callSid":"{CALL}"}},'
        f'"streamSid":"{STREAM}"}}',
        StreamStopped(),
        FAMILY,
        True,
        641,
    ),
    Row(
        "stop, to the letter",
        APP,
        '{"event":"stop","sequenceNumber":"641"}',
        StreamStopped(),
        CXML,
        True,
        641,
        options=LETTER,
    ),
    # What the application writes.
    Row(
        "media",
        PLATFORM,
        f'{{"event":"media","streamSid":"{STREAM}","media":{{"payload":"AAAB"}}}}',
        Media(b"\0\0\1"),
        CXML,
        True,
    ),
    Row(
        "media, 16-bit",
        PLATFORM,
        f'{{"event":"media","streamSid":"{STREAM}","media":{{"payload":"AAABAA=="}}}}',
        Media(b"\0\0\1\0"),
        CXML,
        True,
        media_format=L16,
    ),
    Row("media, no id", PLATFORM, '{"event":"media","media":{"payload":"AAAB"}}', Media(b"\0\0\1"), LENIENT),
    Row(
        "mark",
        PLATFORM,
        f'{{"event":"mark","streamSid":"{STREAM}","mark":{{"name":"m1"}}}}',
        Mark("m1"),
        CXML,
        True,
    ),
    Row("clear", PLATFORM, f'{{"event":"clear","streamSid":"{STREAM}"}}', Clear(), CXML, True),
    Row(
        "dtmf",
        PLATFORM,
        f'{{"event":"dtmf","streamSid":"{STREAM}","dtmf":{{"digit":"5"}}}}',
        SendDigits("5"),
        CXML,
        True,
    ),
    Row("dtmf, several", PLATFORM, '{"event":"dtmf","dtmf":{"digit":"12a#"}}', SendDigits("12A#"), LENIENT),
    Row("dtmf, a number", PLATFORM, '{"event":"dtmf","dtmf":{"digit":5}}', SendDigits("5"), LENIENT),
    Row("stop", PLATFORM, '{"event":"stop"}', StreamStopped(), LENIENT),
)

REFUSALS = (
    *family_refusals(start()),
    Refusal("half a sample", APP, '{"event":"media","media":{"payload":"AAAA"}}', "odd_length", media_format=L16),
    Refusal(
        "half a played sample",
        PLATFORM,
        '{"event":"media","media":{"payload":"AAAA"}}',
        "odd_length",
        media_format=L16,
    ),
    Refusal("no digits", PLATFORM, '{"event":"dtmf","dtmf":{"digit":""}}', "bad_value"),
    Refusal("dtmf without digits", PLATFORM, '{"event":"dtmf","dtmf":{}}', "missing_field"),
    Refusal("a pause", PLATFORM, '{"event":"dtmf","dtmf":{"digit":"1w2"}}', "bad_value"),
    Refusal("too many digits", PLATFORM, '{"event":"dtmf","dtmf":{"digit":"' + "1" * 65 + '"}}', "too_long"),
    Refusal("digits that are true", PLATFORM, '{"event":"dtmf","dtmf":{"digit":true}}', "bad_type"),
)

TABLE = WireTable(
    "signalwire",
    lambda role, media_format, options: SignalWireDialect(
        role, media_format=media_format, options=options or SignalWireOptions()
    ),
    STARTED,
    ROWS,
    REFUSALS,
    streams=tuple(
        replace(
            STARTED,
            tracks=("inbound", "outbound"),
            custom_parameters=PARAMETERS,
            media_format=MediaFormat(encoding, rate_hz),
        )
        for encoding, rate_hz in FORMATS
    ),
)
