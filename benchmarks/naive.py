"""The named peer of the row that matters: a call bridge as a competent Trio programmer writes it at first.

Per call one nursery with four tasks, and trio-websocket's own reader as the fifth:

    receive   awaits the UDP socket, parses RTP, reorders a little, decodes, hands the frame over a memory channel
    send      awaits the channel, encodes, wraps in base64 and JSON, `send_message`
    listen    awaits `get_message`, parses JSON and base64, decodes, appends to the playout buffer
    playout   sleeps until its own next 20 ms, takes a frame, encodes, sends RTP

What a good programmer does is done: connected sockets, absolute deadlines, bounded buffers, one pass over each
message, C for G.711 where Python has it, the collector frozen after set-up. What the design itself costs is left in:
five tasks a call woken for every frame, a timer per call, a channel hand-over per frame, a WebSocket library in Python.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio_websocket

from benchmarks.control import Peers, serve_control
from benchmarks.packets import FRAME_SAMPLES, PLAYOUT_FRAMES, Reorder, rtp_header
from benchmarks.peers import TableG711, find_peer

PTIME_S = 0.02
FRAME_BYTES = 2 * FRAME_SAMPLES
CHANNEL_FRAMES = 8  # 160 ms: what the WebSocket may fall behind before audio is dropped

g711: Any = find_peer("audioop") or TableG711()


@dataclass(frozen=True, slots=True)
class Messages:
    """An open WebSocket connection as far as a call needs it, whatever library made it."""

    send: Callable[[str], Awaitable[None]]
    receive: Callable[[], Awaitable[str | bytes]]


Connect = Callable[[str], AbstractAsyncContextManager[Messages]]
"""Opens a connection to a URL for the length of the block."""


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Messages]:
    """Connect with trio-websocket."""
    async with trio_websocket.open_websocket_url(url) as connection:
        yield Messages(connection.send_message, connection.get_message)


class Call:
    """One call: its socket, its WebSocket connection, its four tasks."""

    def __init__(self, number: int, ws_port: int, remote_port: int, connect: Connect) -> None:
        self._number = number
        self._connect = connect
        self._url = f"ws://127.0.0.1:{ws_port}/{number}"
        self._remote = ("127.0.0.1", remote_port)
        self._playout: deque[bytes] = deque(maxlen=PLAYOUT_FRAMES)
        self._stream_id = f"00000000-0000-4000-8000-{number:012d}"
        self.frames_dropped = 0
        self.frames_sent = 0

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Bridge until cancelled; reports the local RTP port when media can flow."""
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            await sock.connect(self._remote)
            async with self._connect(self._url) as ws, trio.open_nursery() as nursery:
                start = {
                    "callId": self._stream_id,
                    "streamId": self._stream_id,
                    "accountId": "MABENCH",
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
                }
                await ws.send(
                    json.dumps({"event": "start", "sequenceNumber": 1, "start": start, "extra_headers": "{}"})
                )
                to_application, from_caller = trio.open_memory_channel[bytes](CHANNEL_FRAMES)
                nursery.start_soon(self._receive, sock, to_application)
                nursery.start_soon(self._send, ws, from_caller)
                nursery.start_soon(self._listen, ws)
                nursery.start_soon(self._play, sock)
                task_status.started(sock.getsockname()[1])

    async def _receive(self, sock: trio.socket.SocketType, frames: trio.MemorySendChannel[bytes]) -> None:
        order = Reorder()
        while True:
            packet = await sock.recv(2048)
            if len(packet) < 12 or packet[0] >> 6 != 2:
                continue
            _, kind, seq, _, _ = rtp_header.unpack_from(packet)
            if kind & 0x7F != 0:
                continue
            for payload in order.put(seq, packet[12:]):
                try:
                    frames.send_nowait(g711.ulaw2lin(payload, 2))
                except trio.WouldBlock:
                    self.frames_dropped += 1

    async def _send(self, ws: Messages, frames: trio.MemoryReceiveChannel[bytes]) -> None:
        chunk = 0
        async for pcm in frames:
            chunk += 1
            payload = base64.b64encode(g711.lin2ulaw(pcm, 2)).decode("ascii")
            message = {
                "event": "media",
                "sequenceNumber": chunk + 1,
                "streamId": self._stream_id,
                "media": {"track": "inbound", "timestamp": str(chunk * 20), "chunk": chunk, "payload": payload},
                "extra_headers": "{}",
            }
            await ws.send(json.dumps(message))

    async def _listen(self, ws: Messages) -> None:
        rest = b""
        while True:
            message = json.loads(await ws.receive())
            if message["event"] == "clearAudio":
                self._playout.clear()
            if message["event"] != "playAudio":
                continue
            pcm = rest + g711.ulaw2lin(base64.b64decode(message["media"]["payload"]), 2)
            whole = len(pcm) - len(pcm) % FRAME_BYTES
            for at in range(0, whole, FRAME_BYTES):
                self._playout.append(pcm[at : at + FRAME_BYTES])
            rest = pcm[whole:]

    async def _play(self, sock: trio.socket.SocketType) -> None:
        silence = bytes(FRAME_BYTES)
        seq, timestamp, ssrc = 0, 0, 0x54500000 + self._number
        deadline = trio.current_time()
        while True:
            deadline += PTIME_S
            await trio.sleep_until(deadline)
            pcm = self._playout.popleft() if self._playout else silence
            header = rtp_header.pack(0x80, 0, seq, timestamp, ssrc)
            await sock.send(header + g711.lin2ulaw(pcm, 2))
            seq = (seq + 1) & 0xFFFF
            timestamp = (timestamp + FRAME_SAMPLES) & 0xFFFFFFFF
            self.frames_sent += 1


async def main(connect: Connect) -> None:
    """Serve the harness on standard input and output."""
    calls: list[Call] = []
    async with trio.open_nursery() as nursery:

        async def open_calls(peers: Peers) -> list[int]:
            ports: list[int] = []
            for number, remote_port in enumerate(peers.rtp_ports, peers.first):
                call = Call(number, peers.ws_port, remote_port, connect)
                calls.append(call)
                ports.append(await nursery.start(call.run))
                # Calls do not begin in the same millisecond.
                await trio.sleep(0.001)
            return ports

        def statistics() -> dict[str, Any]:
            return {
                "g711": type(g711).__name__ if isinstance(g711, TableG711) else "audioop",
                "frames_dropped": sum(call.frames_dropped for call in calls),
                "frames_sent": sum(call.frames_sent for call in calls),
            }

        await serve_control(open_calls, statistics)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, connect)
