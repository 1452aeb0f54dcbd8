"""The peer of the application's end: Pipecat's barest telephony bot, which says back what it hears.

A pipeline of three: the transport's input, a processor that turns audio heard into audio to say, the transport's
output. As its documentation has it for telephony: FastAPI and uvicorn, Plivo's frame serializer, 8 kHz throughout so
that nothing is resampled. To its advantage: uvloop; no voice activity detection, no turn tracking, no RTVI, no idle
watch, no observers, no logging; the same length of chunks as ours where 40 ms is its default; no compression, no
keepalive pings; uvicorn's sans-IO WebSocket, the cheapest of those it has; the collector frozen after set-up.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from benchmarks.control import Peers, say
from benchmarks.control_asyncio import serve_control

RATE_HZ = 8000


class Echo(FrameProcessor):
    """Says what is heard; passes on everything else."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take one frame."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


async def run_bot(websocket: WebSocket, chunk_ms: int) -> None:
    """Run one pipeline until the platform goes."""
    await websocket.accept()
    start = json.loads(await websocket.receive_text())["start"]
    serializer = PlivoFrameSerializer(
        start["streamId"], start["callId"], params=PlivoFrameSerializer.InputParams(auto_hang_up=False)
    )
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=chunk_ms // 10,
            serializer=serializer,
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
        check_dangling_tasks=False,
    )

    async def gone(*_: Any) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", gone)
    runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
    await runner.add_workers(worker)
    await runner.run()


async def main(chunk_ms: int) -> None:
    """Serve the harness on standard input and output."""
    logger.remove()
    app = FastAPI()

    @app.websocket("/{path:path}")
    async def answer(websocket: WebSocket) -> None:
        await run_bot(websocket, chunk_ms)

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_level="critical",
        backlog=4096,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()

    async def settle(peers: Peers) -> list[int]:
        return []

    say({"port": server.servers[0].sockets[0].getsockname()[1]})
    await serve_control(settle)
    server.force_exit = True
    await server.shutdown()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--chunk-ms", type=int, default=60)
    uvloop.run(main(options.parse_args().chunk_ms))
