"""One media message: WebSocket frame to PCM, and PCM to WebSocket frame, each one call into C, against the usual chain.

Content varies (500 different frames of 20 ms), every way's result is compared with the others' before anything is
timed, and what is timed is from bytes as they come from the socket to PCM, and from PCM to bytes for the socket.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from benchmarks.peers import TableG711, find_peer
from benchmarks.signals import frames_of, speech_like
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib
from talkpath.events import MediaFormat, StreamStarted
from talkpath.wire.dialect import Role
from talkpath.wire.media_message import compile_shape, compile_template
from talkpath.wire.plivo import PlivoDialect

FRAMES = 500
SAMPLES = 160
PCMU = 1
ROOM = 1024
STREAM_ID = "b7d3e6a2-91c4-4f0b-8e2d-0c5a7f9e1d22"

g711: Any = find_peer("audioop") or TableG711()
G711_NAME = "table" if isinstance(g711, TableG711) else "audioop"

Receive = Callable[[bytes], bytes]
Send = Callable[[bytes], bytes]


class WrongAnswerError(RuntimeError):
    """Two ways of the same work gave different results, so that comparing their speed means nothing."""


def _frames() -> list[bytes]:
    """20 ms of linear audio each, on PCMU's own levels so that every encoder gives the same octets."""
    pcm = [frame.tobytes() for frame in frames_of(speech_like(FRAMES / 50))]
    # Twice: the first decoding may hold negative zero, which no encoder writes.
    for _ in range(2):
        pcm = [g711.ulaw2lin(g711.lin2ulaw(frame, 2), 2) for frame in pcm]
    return pcm


def dialect_at(role: Role) -> PlivoDialect:
    """Make the dialect of one end, its stream begun."""
    started = StreamStarted(
        stream_id=STREAM_ID,
        call_id=STREAM_ID,
        account_id="MABENCH",
        tracks=("inbound",),
        media_format=MediaFormat("PCMU", 8000),
    )
    platform = PlivoDialect(Role.PLATFORM)
    (start,) = platform.send(started, sequence=1)
    if role is Role.PLATFORM:
        return platform
    application = PlivoDialect(Role.APPLICATION)
    application.receive(start)
    return application


def _wsproto(role: Role) -> Connection:
    return Connection(ConnectionType.CLIENT if role is Role.PLATFORM else ConnectionType.SERVER)


def _message(role: Role, number: int, payload: str) -> dict[str, Any]:
    if role is Role.APPLICATION:
        return {"event": "playAudio", "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}}
    media = {"track": "inbound", "timestamp": str(number * 20), "chunk": number, "payload": payload}
    return {
        "event": "media",
        "sequenceNumber": number,
        "streamId": STREAM_ID,
        "media": media,
        "extra_headers": "{}",
    }


def wsproto_receive(role: Role) -> Receive:
    """Receive with the libraries that a Trio program has: wsproto, json, base64, audioop."""
    connection = _wsproto(role)

    def receive(frame: bytes) -> bytes:
        connection.receive_data(frame)
        pcm = b""
        for event in connection.events():
            assert isinstance(event, TextMessage)
            pcm += g711.ulaw2lin(base64.b64decode(json.loads(event.data)["media"]["payload"]), 2)
        return pcm

    return receive


def wsproto_send(role: Role) -> Send:
    """Send with wsproto, json, base64, audioop."""
    connection = _wsproto(role)
    number = 0

    def send(pcm: bytes) -> bytes:
        nonlocal number
        number += 1
        payload = base64.b64encode(g711.lin2ulaw(pcm, 2)).decode("ascii")
        return connection.send(TextMessage(json.dumps(_message(role, number, payload))))

    return send


def best_peers(role: Role) -> tuple[str, Receive, Send] | None:
    """Receive and send with the fastest peers that are installed; None without websockets, the largest part of them."""
    if find_peer("websockets") is None:
        return None
    from websockets.client import ClientProtocol
    from websockets.protocol import State
    from websockets.server import ServerProtocol
    from websockets.uri import parse_uri

    orjson, pybase64 = find_peer("orjson"), find_peer("pybase64")
    loads: Any = orjson.loads if orjson else json.loads
    dumps: Any = orjson.dumps if orjson else lambda message: json.dumps(message).encode()
    decode: Any = pybase64.b64decode if pybase64 else base64.b64decode
    encode: Any = pybase64.b64encode if pybase64 else base64.b64encode
    protocol: Any = (
        ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN)
        if role is Role.PLATFORM
        else ServerProtocol(state=State.OPEN)
    )
    number = 0

    def receive(frame: bytes) -> bytes:
        protocol.receive_data(frame)
        pcm = b""
        for event in protocol.events_received():
            pcm += g711.ulaw2lin(decode(loads(event.data)["media"]["payload"]), 2)
        return pcm

    def send(pcm: bytes) -> bytes:
        nonlocal number
        number += 1
        payload = encode(g711.lin2ulaw(pcm, 2)).decode("ascii")
        protocol.send_text(dumps(_message(role, number, payload)))
        return b"".join(protocol.data_to_send())

    names = ("orjson" if orjson else "json", "pybase64" if pybase64 else "base64", G711_NAME, "websockets")
    return " + ".join(names), receive, send


def _check(work: str, expected: Sequence[bytes], found: Sequence[bytes]) -> None:
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one != other:
            raise WrongAnswerError(f"{work}: frame {index} differs")


def receive_row(role: Role) -> Row:
    """Frame from the socket to PCM, standing at `role`'s end: unmasked to the platform, masked to the application."""
    pcm = _frames()
    other_end = Role.APPLICATION if role is Role.PLATFORM else Role.PLATFORM
    make = wsproto_send(other_end)
    frames = [make(frame) for frame in pcm]
    shape = compile_shape(dialect_at(role).media_shape())
    held = [ffi.new("uint8_t[]", frame) for frame in frames]
    pairs = [(cdata, len(frame)) for cdata, frame in zip(held, frames, strict=True)]
    out = ffi.new("int16_t[]", SAMPLES)
    heard = ffi.buffer(out)
    scratch = ffi.new("uint8_t[]", ROOM)
    read = lib.tp_media_message_read_pcm
    copy = ffi.memmove
    masked = role is Role.APPLICATION

    # The reader unmasks in place, as it may in a receive buffer; a frame that is used again is copied there first.
    def run_unmasked() -> None:
        for frame, n_bytes in pairs:
            read(out, SAMPLES, shape, PCMU, frame, n_bytes)

    def run_masked() -> None:
        for frame, n_bytes in pairs:
            copy(scratch, frame, n_bytes)
            read(out, SAMPLES, shape, PCMU, scratch, n_bytes)

    def ours(frame: Any, n_bytes: int) -> bytes:
        copy(scratch, frame, n_bytes)
        if read(out, SAMPLES, shape, PCMU, scratch, n_bytes) != SAMPLES:
            raise WrongAnswerError("talkpath did not take the message")
        return bytes(heard)

    def run_bytes() -> None:
        for frame, n_bytes in pairs:
            copy(scratch, frame, n_bytes)
            read(out, SAMPLES, shape, PCMU, scratch, n_bytes)
            bytes(heard)

    usual = wsproto_receive(role)
    ways: list[tuple[str, Receive]] = [(f"json + base64 + {G711_NAME} + wsproto", usual)]
    if (best := best_peers(role)) is not None:
        ways.append((best[0], best[1]))
    work = f"message in, {role.value}'s end" + (", masked" if masked else "")
    _check(work, pcm, [ours(frame, n_bytes) for frame, n_bytes in pairs])
    for _, way in ways:
        _check(work, pcm, [way(frame) for frame in frames])
    name = "talkpath, one call" + (", copied in" if masked else "")
    peers = [Candidate("talkpath, copied in, PCM as bytes", run_bytes, FRAMES)]
    peers += [Candidate(name, _over(way, frames), FRAMES) for name, way in ways]
    return Row(work, Candidate(name, run_masked if masked else run_unmasked, FRAMES), peers)


def _over(way: Callable[[bytes], bytes], inputs: Sequence[bytes]) -> Callable[[], None]:
    def run() -> None:
        for each in inputs:
            way(each)

    return run


def send_row(role: Role) -> Row:
    """PCM to frame for the socket, standing at `role`'s end: masked from the platform, not from the application."""
    pcm = _frames()
    masked = role is Role.PLATFORM
    template = compile_template(dialect_at(role).media_template("inbound"))
    held = [ffi.new("uint8_t[]", frame) for frame in pcm]
    frames = [ffi.cast("int16_t *", cdata) for cdata in held]
    numbers = [ffi.new("tp_media_numbers *", (at, at, at * 20)) for at in range(1, FRAMES + 1)]
    key = ffi.new("uint8_t[4]", [0x37, 0xFA, 0x21, 0x3D]) if masked else ffi.NULL
    pairs = list(zip(frames, numbers, strict=True))
    out = ffi.new("uint8_t[]", ROOM)
    written = ffi.buffer(out)
    write = lib.tp_media_message_write_pcm

    def run_into() -> None:
        for frame, number in pairs:
            write(out, ROOM, template, number, PCMU, frame, SAMPLES, key)

    def run_bytes() -> None:
        for frame, number in pairs:
            written[: write(out, ROOM, template, number, PCMU, frame, SAMPLES, key)]

    def ours(frame: Any, number: Any) -> bytes:
        n_bytes = write(out, ROOM, template, number, PCMU, frame, SAMPLES, key)
        if n_bytes <= 0:
            raise WrongAnswerError(f"talkpath wrote nothing: {n_bytes}")
        return bytes(written[:n_bytes])

    ways: list[tuple[str, Send]] = [(f"json + base64 + {G711_NAME} + wsproto", wsproto_send(role))]
    if (best := best_peers(role)) is not None:
        ways.append((best[0], best[2]))
    work = f"message out, {role.value}'s end" + (", masked" if masked else "")
    read = wsproto_receive(Role.APPLICATION if role is Role.PLATFORM else Role.PLATFORM)
    _check(work, pcm, [read(ours(frame, number)) for frame, number in pairs])
    for _, way in ways:
        _check(work, pcm, [read(way(frame)) for frame in pcm])
    peers = [Candidate("talkpath, frame as bytes", run_bytes, FRAMES)]
    peers += [Candidate(name, _over(way, pcm), FRAMES) for name, way in ways]
    return Row(work, Candidate("talkpath, one call", run_into, FRAMES), peers)


def rows() -> list[Row]:
    """Build the four rows: in and out, at either end."""
    return [
        receive_row(Role.PLATFORM),
        send_row(Role.PLATFORM),
        receive_row(Role.APPLICATION),
        send_row(Role.APPLICATION),
    ]
