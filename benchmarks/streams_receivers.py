"""Applications of three kinds on one port, by the path they are asked for: one reads, one stalls, one flaps.

    /reads    takes everything and looks at nothing
    /stalls   is upgraded and never reads again
    /flaps    reads for a third of a second to a second, then closes without a word, every other time with a reset

It says its port as a line of JSON and ends with its standard input.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
import struct
import sys
from collections import Counter

import trio

LASTS_S = (0.33, 1.0)
RECEIVE_BUFFER_BYTES = 4096
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Of RFC 6455 1.3."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Receivers:
    """Counts what it was asked for, and chooses how long a flapping connection lasts."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._random = random.Random(1)

    async def serve_one(self, stream: trio.SocketStream) -> None:
        """Upgrade one connection and be what it asks for."""
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some(4096)
            lines = head.decode("latin-1").split("\r\n")
            kind = lines[0].split(" ")[1].strip("/")
            self.asked[kind] += 1
            key = next(line for line in lines if line.lower().startswith("sec-websocket-key")).partition(":")[2].strip()
            accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest())
            await stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            if kind == "stalls":
                await trio.sleep_forever()
            with trio.move_on_after(self._random.uniform(*LASTS_S) if kind == "flaps" else float("inf")):
                while await stream.receive_some(65536):
                    pass
            if self.asked[kind] % 2:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        except (trio.BrokenResourceError, StopIteration, IndexError):
            pass
        finally:
            stream.socket.close()


async def main() -> None:
    """Serve until standard input ends."""
    receivers = Receivers()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=512)
    # Inherited by the connections: what a receiver that never reads keeps is little.
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    print(json.dumps({"port": listener.socket.getsockname()[1]}), flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, receivers.serve_one, [listener])
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps({"asked": dict(receivers.asked)}), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
