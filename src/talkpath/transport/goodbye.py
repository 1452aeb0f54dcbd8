"""The end of a WebSocket that is over: reading what the peer had under way until it has closed, too."""

from __future__ import annotations

from talkpath._native import ffi, lib
from talkpath.transport.link import Link
from talkpath.transport.upgrade import receive_some
from talkpath.wire.websocket import CLOSE

MAX_GOODBYE_BYTES = 1024 * 1024
MAX_GOODBYE_FRAMES = 4096
"""What a peer may send between our close frame and its own before it is hung up on."""
_MAX_HEADER_BYTES = 14


async def read_goodbye(link: Link, rest: bytes, *, until_close_frame: bool) -> None:
    """Read until the peer's end, or its close frame where that is enough (RFC 6455 7.1.1: the server closes first).

    Audio in between is not looked at: the stream is over. A peer that never comes to its end is left to itself.

    Args:
        link: what the frames come from; it stays open.
        rest: what has been read already.
        until_close_frame: the peer's close frame is the end.

    Cancellation: what was read is gone.
    """
    header = ffi.new("tp_websocket_frame *")
    buffer = bytearray(16384)
    n_bytes = n_frames = skip = 0
    while n_bytes < MAX_GOODBYE_BYTES:
        at = 0
        while until_close_frame and at < len(rest):
            if skip:
                step = min(skip, len(rest) - at)
                at, skip = at + step, skip - step
                continue
            head = rest[at : at + _MAX_HEADER_BYTES]
            got = lib.tp_websocket_read_header(header, head, len(head))
            if got == 0:
                break
            n_frames += 1
            if got < 0 or header.opcode == CLOSE or n_frames > MAX_GOODBYE_FRAMES:
                return
            skip = header.header_bytes + header.payload_bytes
        data = await receive_some(link, buffer)
        if not data:
            return
        n_bytes += len(data)
        rest = rest[at:] + data if until_close_frame else b""
