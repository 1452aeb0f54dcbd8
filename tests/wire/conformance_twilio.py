"""Twilio's messages beside the events they are: one row per documented message, each with its source and date."""

from __future__ import annotations

from dataclasses import replace

from support.wire_table import Refusal, Row, WireTable
from talkpath.events import (
    Clear,
    Digit,
    Handshaken,
    Mark,
    MarkReached,
    Media,
    MediaFormat,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
)
from talkpath.wire.dialect import Role
from talkpath.wire.twilio import TwilioDialect, TwilioOptions

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CAb77e037d411944b5902d25826b654539"
ACCOUNT = "AC00000000000000000000000000000abc"

MULAW = MediaFormat("PCMU", 8000)
MESSAGES = "Twilio Media Streams, WebSocket messages page, read 2026-11"
TWIML = "Twilio TwiML <Stream> page, read 2026-11"
LENIENT = "not documented: forms of applications and of platforms that copy this wire, read 2026-11"
BY_OPTION = "not Twilio's: platforms that copy its wire with ids of their own, read 2026-11"

STARTED = StreamStarted(STREAM, CALL, ACCOUNT, ("inbound",), MULAW, {})
BOTH = replace(STARTED, tracks=("inbound", "outbound"))
PARAMETERS = {"tier": "gold", "who": 'a "b" é'}
APP, PLATFORM = Role.APPLICATION, Role.PLATFORM
OTHER_IDS = TwilioOptions(require_sids=False)


def start(tracks: str = '["inbound"]', parameters: str = "{}", media_format: str = "", stream_id: str = STREAM) -> str:
    """Return a start message."""
    media_format = media_format or '{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}'
    return (
        f'{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"{ACCOUNT}","streamSid":"{stream_id}",'
        f'"callSid":"{CALL}","tracks":{tracks},"mediaFormat":{media_format},"customParameters":{parameters}}},'
        f'"streamSid":"{stream_id}"}}'
    )


ROWS: tuple[Row, ...] = (
    # What the platform writes.
    Row(
        "connected",
        APP,
        '{"event":"connected","protocol":"Call","version":"1.0.0"}',
        Handshaken("1.0.0"),
        MESSAGES,
        before_start=True,
    ),
    Row("connected, bare", APP, '{"event":"connected"}', Handshaken(""), LENIENT, before_start=True),
    Row("connected, version a number", APP, '{"event":"connected","version":1}', Handshaken(""), LENIENT),
    Row("start", APP, start(), STARTED, MESSAGES, True, 1, before_start=True),
    Row("start, both tracks", APP, start('["inbound","outbound"]'), BOTH, MESSAGES, True, 1, before_start=True),
    Row(
        "start, outbound track",
        APP,
        start('["outbound"]'),
        replace(STARTED, tracks=("outbound",)),
        TWIML,
        True,
        1,
        before_start=True,
    ),
    Row(
        "start, custom parameters",
        APP,
        start(parameters=r'{"tier":"gold","who":"a \"b\" é"}'),
        replace(STARTED, custom_parameters=PARAMETERS),
        TWIML,
        True,
        1,
        before_start=True,
    ),
    Row(
        "start, parameters that are no text",
        APP,
        start(parameters='{"vip":true,"room":7,"note":null,"list":[1]}'),
        replace(STARTED, custom_parameters={"vip": "true", "room": "7", "note": "", "list": "[1]"}),
        LENIENT,
        before_start=True,
    ),
    Row("start, parameters null", APP, start(parameters="null"), STARTED, LENIENT, before_start=True),
    Row("start, tracks as configured", APP, start('["both_tracks"]'), BOTH, LENIENT, before_start=True),
    Row("start, inbound_track", APP, start('["inbound_track"]'), STARTED, LENIENT, before_start=True),
    Row(
        "start, little said",
        APP,
        f'{{"event":"start","start":{{"mediaFormat":{{"encoding":"AUDIO/X-MULAW"}}}},"streamSid":"{STREAM}"}}',
        StreamStarted(STREAM, "", "", ("inbound",), MULAW, {}),
        LENIENT,
        before_start=True,
    ),
    Row(
        "start, numbers as text",
        APP,
        start(media_format='{"encoding":"audio/x-mulaw","sampleRate":"8000","channels":"1"}'),
        STARTED,
        LENIENT,
        before_start=True,
    ),
    Row(
        "start, an encoding Twilio has not",
        APP,
        start(media_format='{"encoding":"audio/x-l16","sampleRate":16000,"channels":1}'),
        replace(STARTED, media_format=MediaFormat("L16", 16000)),
        LENIENT,
        before_start=True,
    ),
    Row(
        "start, any id",
        APP,
        start(stream_id="stream-1"),
        replace(STARTED, stream_id="stream-1"),
        BY_OPTION,
        True,
        1,
        before_start=True,
        options=OTHER_IDS,
    ),
    Row(
        "media",
        APP,
        '{"event":"media","sequenceNumber":"12","media":{"track":"inbound","chunk":"11","timestamp":"200",'
        f'"payload":"/////w=="}},"streamSid":"{STREAM}"}}',
        Media(b"\xff\xff\xff\xff", "inbound", None, 12, 11, 200),
        MESSAGES,
        True,
        12,
    ),
    Row(
        "media, outbound",
        APP,
        '{"event":"media","sequenceNumber":"13","media":{"track":"outbound","chunk":"1","timestamp":"5",'
        f'"payload":"AAAB"}},"streamSid":"{STREAM}"}}',
        Media(b"\0\0\1", "outbound", None, 13, 1, 5),
        MESSAGES,
        True,
        13,
    ),
    Row(
        "media, numbers as numbers",
        APP,
        '{"event":"media","sequenceNumber":12,"media":{"track":"inbound","chunk":11,"timestamp":200,"payload":"AAAB"}}',
        Media(b"\0\0\1", "inbound", None, 12, 11, 200),
        LENIENT,
    ),
    Row("media, payload alone", APP, '{"event":"media","media":{"payload":""}}', Media(b""), LENIENT),
    Row(
        "media, track as configured",
        APP,
        '{"event":"media","media":{"track":"outbound_track","payload":"AA=="}}',
        Media(b"\0", "outbound"),
        LENIENT,
    ),
    Row(
        "dtmf",
        APP,
        f'{{"event":"dtmf","streamSid":"{STREAM}","sequenceNumber":"40",'
        '"dtmf":{"track":"inbound_track","digit":"7"}}',
        Digit("7"),
        MESSAGES,
        True,
        40,
    ),
    Row(
        "dtmf, star",
        APP,
        f'{{"event":"dtmf","streamSid":"{STREAM}","sequenceNumber":"41",'
        '"dtmf":{"track":"inbound_track","digit":"*"}}',
        Digit("*"),
        MESSAGES,
        True,
        41,
    ),
    Row("dtmf, reduced", APP, '{"event":"dtmf","dtmf":{"digit":"a"}}', Digit("A"), LENIENT),
    Row("dtmf, a number", APP, '{"event":"dtmf","dtmf":{"digit":7}}', Digit("7"), LENIENT),
    Row(
        "mark",
        APP,
        f'{{"event":"mark","sequenceNumber":"55","streamSid":"{STREAM}","mark":{{"name":"m1"}}}}',
        MarkReached("m1", None),
        MESSAGES,
        True,
        55,
    ),
    Row("mark, short", APP, '{"event":"mark","mark":{"name":"m1"}}', MarkReached("m1", None), LENIENT),
    Row(
        "stop",
        APP,
        f'{{"event":"stop","sequenceNumber":"902","stop":{{"accountSid":"{ACCOUNT}","callSid":"{CALL}"}},'
        f'"streamSid":"{STREAM}"}}',
        StreamStopped(),
        MESSAGES,
        True,
        902,
    ),
    Row("stop, bare", APP, '{"event":"stop"}', StreamStopped(), LENIENT),
    Row("an event of tomorrow", APP, '{"event":"speechStarted","x":1}', UnknownMessage("speechStarted"), LENIENT),
    # What the application writes.
    Row(
        "media",
        PLATFORM,
        f'{{"event":"media","streamSid":"{STREAM}","media":{{"payload":"AAAB"}}}}',
        Media(b"\0\0\1"),
        MESSAGES,
        True,
    ),
    Row("media, no id", PLATFORM, '{"event":"media","media":{"payload":"AAAB"}}', Media(b"\0\0\1"), LENIENT),
    Row(
        "media, with what the platform's has",
        PLATFORM,
        f'{{"event":"media","streamSid":"{STREAM}","sequenceNumber":"4","media":{{"track":"outbound","chunk":"4",'
        '"timestamp":"80","payload":"AAAB"}}',
        Media(b"\0\0\1"),
        LENIENT,
    ),
    Row(
        "mark",
        PLATFORM,
        f'{{"event":"mark","streamSid":"{STREAM}","mark":{{"name":"m1"}}}}',
        Mark("m1"),
        MESSAGES,
        True,
    ),
    Row("mark, no id", PLATFORM, '{"event":"mark","mark":{"name":"m1"}}', Mark("m1"), LENIENT),
    Row("clear", PLATFORM, f'{{"event":"clear","streamSid":"{STREAM}"}}', Clear(), MESSAGES, True),
    Row("clear, no id", PLATFORM, '{"event":"clear"}', Clear(), LENIENT),
    Row("stop", PLATFORM, f'{{"event":"stop","streamSid":"{STREAM}"}}', StreamStopped(), LENIENT),
    Row(
        "dtmf, which is not Twilio's",
        PLATFORM,
        '{"event":"dtmf","dtmf":{"digit":"5"}}',
        UnknownMessage("dtmf"),
        MESSAGES + " (no such message)",
    ),
    Row("another wire's audio", PLATFORM, '{"event":"playAudio","media":{}}', UnknownMessage("playAudio"), LENIENT),
)


def family_refusals(stream_start: str) -> tuple[Refusal, ...]:
    """What Twilio's wire and its copies refuse."""
    media = '{"event":"media","media":{"payload":%s}}'
    return (
        Refusal("a second start", APP, stream_start, "bad_state"),
        Refusal("media without media", APP, '{"event":"media"}', "missing_field"),
        Refusal("media is text", APP, '{"event":"media","media":"AAAA"}', "bad_type"),
        Refusal("no payload", APP, '{"event":"media","media":{}}', "missing_field"),
        Refusal("payload is a number", APP, media % "5", "bad_type"),
        Refusal("no base64", APP, media % '"*AAA"', "bad_base64"),
        Refusal("no ASCII", APP, media % '"é"', "bad_base64"),
        Refusal("base64 cut short", APP, media % '"AAA"', "bad_base64"),
        Refusal("base64 with bits left over", PLATFORM, media % '"AAB="', "bad_base64"),
        Refusal("base64 of the URL kind", PLATFORM, media % '"_-8="', "bad_base64"),
        Refusal("a strange track", APP, '{"event":"media","media":{"payload":"AA==","track":"left"}}', "bad_value"),
        Refusal("track is a list", APP, '{"event":"media","media":{"payload":"AA==","track":[]}}', "bad_type"),
        Refusal("chunk is no number", APP, '{"event":"media","media":{"payload":"AA==","chunk":true}}', "bad_type"),
        Refusal("timestamp is a list", APP, '{"event":"media","media":{"payload":"AA==","timestamp":[]}}', "bad_type"),
        Refusal("chunk below zero", APP, '{"event":"media","media":{"payload":"AA==","chunk":-1}}', "bad_value"),
        Refusal(
            "sequence out of range",
            APP,
            '{"event":"media","sequenceNumber":1' + "0" * 30 + ',"media":{"payload":""}}',
            "bad_value",
        ),
        Refusal("no digit", APP, '{"event":"dtmf","dtmf":{}}', "missing_field"),
        Refusal("dtmf without a body", APP, '{"event":"dtmf"}', "missing_field"),
        Refusal("two digits", APP, '{"event":"dtmf","dtmf":{"digit":"12"}}', "bad_value"),
        Refusal("no such digit", APP, '{"event":"dtmf","dtmf":{"digit":"E"}}', "bad_value"),
        Refusal("mark without a body", APP, '{"event":"mark"}', "missing_field"),
        Refusal("mark without a name", APP, '{"event":"mark","mark":{}}', "missing_field"),
        Refusal("half a character", APP, '{"event":"mark","mark":{"name":"\\ud800"}}', "bad_value"),
        Refusal("the name at the top", PLATFORM, '{"event":"mark","name":"m1"}', "missing_field"),
        Refusal("mark is text", PLATFORM, '{"event":"mark","mark":"m1"}', "bad_type"),
        Refusal("name is a number", PLATFORM, '{"event":"mark","mark":{"name":5}}', "bad_type"),
        Refusal("an empty name", PLATFORM, '{"event":"mark","mark":{"name":""}}', "bad_value"),
        Refusal("a novel", PLATFORM, '{"event":"mark","mark":{"name":"' + "a" * 257 + '"}}', "too_long"),
        Refusal("start without start", APP, '{"event":"start"}', "missing_field", before_start=True),
        Refusal("start is a list", APP, '{"event":"start","start":[]}', "bad_type", before_start=True),
        Refusal("start without an id", APP, '{"event":"start","start":{}}', "missing_field", before_start=True),
        Refusal("id is an object", APP, '{"event":"start","start":{"streamSid":{}}}', "bad_type", before_start=True),
        Refusal("half an id", APP, '{"event":"start","start":{"streamSid":"\\udfff"}}', "bad_value", before_start=True),
        Refusal(
            "a long id",
            APP,
            '{"event":"start","start":{"streamSid":"' + "a" * 200 + '"}}',
            "too_long",
            before_start=True,
        ),
        Refusal("no format", APP, '{"event":"start","start":{"streamSid":"MZ1"}}', "missing_field", before_start=True),
        Refusal(
            "tracks is text",
            APP,
            '{"event":"start","start":{"streamSid":"MZ1","tracks":"inbound"}}',
            "bad_type",
            before_start=True,
        ),
        *(
            Refusal(
                f"the format {described}",
                APP,
                f'{{"event":"start","start":{{"streamSid":"MZ1","mediaFormat":{described}}}}}',
                kind,
                before_start=True,
            )
            for described, kind in (
                ("{}", "missing_field"),
                ('{"encoding":7}', "bad_type"),
                ('{"encoding":"audio/mpeg"}', "unknown_format"),
                ('{"encoding":"audio/x-mulaw","sampleRate":16000}', "unknown_format"),
                ('{"encoding":"audio/x-mulaw","sampleRate":"many"}', "bad_type"),
                ('{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":2}', "unknown_format"),
            )
        ),
        *(
            Refusal(
                f"parameters that are {what}",
                APP,
                '{"event":"start","start":{"streamSid":"MZ1","mediaFormat":{"encoding":"audio/x-mulaw"},'
                f'"customParameters":{parameters}}}}}',
                kind,
                before_start=True,
            )
            for what, parameters, kind in (
                ("a list", "[]", "bad_type"),
                ("half a character", '{"a":["\\ud800"]}', "bad_value"),
                ("too many", "{" + ",".join(f'"k{i}":"v"' for i in range(300)) + "}", "too_long"),
            )
        ),
        Refusal("audio before start", APP, '{"event":"media","media":{"payload":"AA=="}}', "bad_state", True),
        Refusal("audio before our start", PLATFORM, '{"event":"media","media":{"payload":"AA=="}}', "bad_state", True),
    )


TABLE = WireTable(
    "twilio",
    lambda role, media_format, options: TwilioDialect(
        role, media_format=media_format, options=options or TwilioOptions()
    ),
    STARTED,
    ROWS,
    family_refusals(start()),
    streams=(replace(BOTH, custom_parameters=PARAMETERS),),
)
