"""An application that takes every stream it is offered, listens to none and says goodbye as is proper.

Run as a program: it says its port on stdout and goes when its stdin ends. It has hundreds of streams, so it looks at no
more of what it reads than the headers of frames.
"""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import selectors
import socket
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE = 0x88


class Stream:
    """Where the frames of a stream begin."""

    def __init__(self) -> None:
        self._rest = b""
        self._skip = 0

    def closes(self, data: bytes) -> bool:
        """Whether a close frame begins in what was read."""
        data = self._rest + data
        at = self._skip
        while at + 10 <= len(data) or (at < len(data) and data[at] == CLOSE):
            if data[at] == CLOSE:
                return True
            short = data[at + 1] & 0x7F
            extra = {126: 2, 127: 8}.get(short, 0)
            length = int.from_bytes(data[at + 2 : at + 2 + extra], "big") if extra else short
            at += 2 + extra + 4 + length
        self._rest, self._skip = data[at:], max(0, at - len(data))
        return False


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print(json.dumps({"what": "listening", "port": listener.getsockname()[1]}), flush=True)
    heads: dict[socket.socket, bytes] = {}
    streams: dict[socket.socket, Stream] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                try:
                    accepted, _ = listener.accept()
                except BlockingIOError:
                    continue
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ)
                heads[accepted] = b""
                continue
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            over = not data
            if sock in heads:
                heads[sock] += data
                if b"\r\n\r\n" in heads[sock]:
                    sock.send(_accept(heads.pop(sock)))
                    streams[sock] = Stream()
            elif streams[sock].closes(data):
                sock.send(bytes([CLOSE, 2, 3, 232]))
                over = True
            if over:
                heads.pop(sock, None)
                streams.pop(sock, None)
                selector.unregister(sock)
                sock.close()


def _accept(head: bytes) -> bytes:
    lines = dict(line.partition(b":")[::2] for line in head.split(b"\r\n")[1:])
    key = next(value.strip() for name, value in lines.items() if name.lower() == b"sec-websocket-key")
    token = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + token
        + b"\r\n\r\n"
    )


if __name__ == "__main__":
    main()
