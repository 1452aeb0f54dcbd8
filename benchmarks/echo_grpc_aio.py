"""FreeClimb's sample echo on ``grpc.aio``: each packet goes back as it came."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.control import UNAVAILABLE, say, usage
from talkpath.wire.freeclimb_messages import METHOD, AppMessage, PlatformMessage


async def _echo(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    async for message in requests:
        if message.WhichOneof("payload") == "notify_audio_data":
            heard = message.notify_audio_data
            reply = AppMessage()
            reply.audio_data.id = "testing"
            reply.audio_data.audio_data = heard.audio_data
            reply.audio_data.content_type = "audio/mulaw;rate=8000"
            reply.audio_data.sequence_num = heard.sequence_num
            yield reply


async def main() -> None:
    """Serve the harness on standard input and output."""
    try:
        import grpc
    except ImportError:
        print("grpcio is not installed", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    service, method = METHOD[1:].split("/")
    server = grpc.aio.server()
    # What the stubs that protoc generates do.
    echo = grpc.stream_stream_rpc_method_handler(
        _echo, request_deserializer=PlatformMessage.FromString, response_serializer=AppMessage.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say({"port": port})
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        if json.loads(line)["do"] == "open":  # as control.py does for the others
            gc.collect()
            gc.freeze()
        say(usage())
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
