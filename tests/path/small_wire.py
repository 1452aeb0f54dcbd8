"""A media message in the manner of the platforms, for tests of the path: templates, a shape, frames made by hand."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from talkpath.events import MediaFormat
from talkpath.path.pool import Pool
from talkpath.path.stream import Stream, StreamOptions, Track
from talkpath.wire.dialect import Field, MediaShape, MediaTemplate, Role

PCMU = MediaFormat("PCMU", 8000)
PCMA = MediaFormat("PCMA", 8000)
L16 = MediaFormat("L16", 8000)
L16_16K = MediaFormat("L16", 16000)
MS = 1_000_000
NAMES = {"PCMU": "audio/x-mulaw", "PCMA": "audio/x-alaw", "L16": "audio/x-l16"}


def template(track: str) -> MediaTemplate:
    pieces = (
        b'{"event":"media","sequenceNumber":',
        b',"media":{"track":"' + track.encode() + b'","timestamp":"',
        b'","chunk":',
        b',"payload":"',
        b'"}}',
    )
    return MediaTemplate(pieces, (Field.SEQUENCE, Field.TIMESTAMP_MS, Field.CHUNK, Field.PAYLOAD, Field.END))


def play_shape(media_format: MediaFormat) -> MediaShape:
    name = NAMES[media_format.encoding]
    return MediaShape("playAudio", encoding_key="contentType", rate_key="sampleRate", encoding_name=name)


MEDIA_SHAPE = MediaShape("media", track_key="track", timestamp_key="timestamp", chunk_key="chunk")


def platform(pool: Pool, media_format: MediaFormat = PCMU, *, leg_rate_hz: int = 8000, **options: Any) -> Stream:
    chosen: dict[str, Any] = {
        "templates": (template("inbound"), template("outbound")),
        "shape": play_shape(media_format),
        "tracks": Track.INBOUND | Track.OUTBOUND,
    }
    stream_options = StreamOptions(role=Role.PLATFORM, media_format=media_format, **(chosen | options))
    return Stream(pool, stream_options, leg_rate_hz=leg_rate_hz)


def application(pool: Pool, media_format: MediaFormat = PCMU, **options: Any) -> Stream:
    chosen: dict[str, Any] = {"templates": (template("played"), None), "shape": MEDIA_SHAPE}
    return Stream(pool, StreamOptions(role=Role.APPLICATION, media_format=media_format, **(chosen | options)))


def play_text(payload: bytes, media_format: MediaFormat = PCMU) -> bytes:
    media = {
        "contentType": NAMES[media_format.encoding],
        "sampleRate": media_format.sample_rate_hz,
        "payload": base64.b64encode(payload).decode(),
    }
    return json.dumps({"event": "playAudio", "media": media}).encode()


def media_text(payload: bytes, track: str = "inbound", chunk: int = 1) -> bytes:
    media = {"track": track, "timestamp": "0", "chunk": chunk, "payload": base64.b64encode(payload).decode()}
    return json.dumps({"event": "media", "media": media}).encode()


def frame(payload: bytes, *, opcode: int = 1, fin: bool = True, key: bytes | None = None) -> bytes:
    """RFC 6455 5.2, by hand."""
    n = len(payload)
    mask = 0x80 if key is not None else 0
    head = bytes([opcode | (0x80 if fin else 0)])
    if n < 126:
        head += bytes([mask | n])
    elif n < 65536:
        head += bytes([mask | 126]) + struct.pack(">H", n)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", n)
    if key is None:
        return head + payload
    return head + key + bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


def unframe(data: bytes | memoryview) -> tuple[bytes, bytes | None]:
    """One whole frame -> its payload and its mask key."""
    octets = bytes(data)
    n, at = octets[1] & 0x7F, 2
    if n == 126:
        n, at = struct.unpack(">H", octets[2:4])[0], 4
    elif n == 127:
        n, at = struct.unpack(">Q", octets[2:10])[0], 10
    if not octets[1] & 0x80:
        assert len(octets) == at + n
        return octets[at:], None
    key, body = octets[at : at + 4], octets[at + 4 :]
    assert len(body) == n
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(body)), key


def read_media(data: bytes | memoryview) -> dict[str, Any]:
    """A framed media message -> its fields, payload decoded."""
    message = json.loads(unframe(data)[0])
    assert message["event"] == "media"
    return {
        "sequence": message["sequenceNumber"],
        "track": message["media"]["track"],
        "timestamp_ms": int(message["media"]["timestamp"]),
        "chunk": message["media"]["chunk"],
        "payload": base64.b64decode(message["media"]["payload"], validate=True),
    }
