"""An application on Plivo's own stream SDK, unmodified: it says what it sees on stdout, a JSON line each.

Run as a program. It greets with half a second of tone and a checkpoint; a digit clears what it has queued and has it
say the digit's tone.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import warnings

with warnings.catch_warnings():
    # The SDK imports a name from where the websockets library no longer likes it to be imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    from plivo_stream import PlivoWebsocketStreamingHandler

import websockets

GREETING_HZ, DIGIT_HZ = 450, 1050


def say(what: str, **facts: object) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


def mulaw(sample: int) -> int:
    """G.711 by its definition, for one sample of 14 bits."""
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude + 33, 8191)
    exponent = magnitude.bit_length() - 6
    return ~(sign | exponent << 4 | magnitude >> (exponent + 1) & 0x0F) & 0xFF


def tone(hz: int, ms: int) -> bytes:
    return bytes(mulaw(round(4000 * math.sin(2 * math.pi * hz * n / 8000))) for n in range(8 * ms))


async def serve_one(websocket: object) -> None:
    handler = PlivoWebsocketStreamingHandler()
    media = 0

    @handler.on_connected
    async def connected() -> None:
        say("connected")

    @handler.on_disconnected
    async def disconnected() -> None:
        say("disconnected", media=media)

    @handler.on_error
    async def error(exc: Exception) -> None:
        say("error", type=type(exc).__name__, text=str(exc))

    @handler.on_start
    async def start(event: object) -> None:
        data = event.start  # type: ignore[attr-defined]
        say(
            "start",
            stream_id=data.stream_id,
            call_id=data.call_id,
            tracks=data.tracks,
            encoding=data.media_format.encoding,
            rate=data.media_format.sample_rate,
            extra_headers=event.extra_headers,  # type: ignore[attr-defined]
        )
        await handler.send_media(tone(GREETING_HZ, 500))
        await handler.send_checkpoint("greeting")

    @handler.on_media
    async def heard(event: object) -> None:
        nonlocal media
        media += 1
        if media == 25:
            say("media", n_bytes=len(event.get_raw_media()), chunk=event.media.chunk)  # type: ignore[attr-defined]

    @handler.on_dtmf
    async def digit(event: object) -> None:
        say("dtmf", digit=event.dtmf.digit)  # type: ignore[attr-defined]
        await handler.send_media(tone(GREETING_HZ, 5000))
        await handler.send_checkpoint("cleared before it is heard")
        await handler.send_clear_audio()
        await handler.send_media(tone(DIGIT_HZ, 300))
        await handler.send_checkpoint("digit")

    @handler.on_played_stream
    async def played(event: object) -> None:
        say("playedStream", name=event.name)  # type: ignore[attr-defined]

    @handler.on_cleared_audio
    async def cleared(event: object) -> None:
        say("clearedAudio", stream_id=event.stream_id)  # type: ignore[attr-defined]

    await handler.handle(websocket)  # type: ignore[arg-type]


async def main() -> None:
    async with websockets.serve(serve_one, "127.0.0.1", 0) as server:
        say("listening", port=next(iter(server.sockets)).getsockname()[1])
        await asyncio.to_thread(sys.stdin.read)  # until whoever started us goes


asyncio.run(main())
