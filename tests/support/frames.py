"""WebSocket frames written and read in plain Python, after RFC 6455 section 5.2; independent of what is tested.

Every rule can be broken: reserved bits, any opcode, a mask or none, lengths written longer than needed.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    key: bytes | None = None,
    length_bytes: int | None = None,
    says_length: int | None = None,
) -> bytes:
    """Write one frame.

    Args:
        key: mask with it; None: unmasked.
        length_bytes: write the length in 0, 2 or 8 further bytes, needed or not.
        says_length: announce another length than the payload's.
    """
    length = len(payload) if says_length is None else says_length
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[length_bytes]
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode, (0x80 if key else 0) | short])
    head += length.to_bytes(length_bytes, "big") if length_bytes else b""
    return head + (key + masked(payload, key) if key else payload)


def close(code: int | None = None, reason: bytes = b"", *, key: bytes | None = None) -> bytes:
    """Write a close frame; without a code it is empty."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, key=key)


def masked(payload: bytes, key: bytes) -> bytes:
    """Apply a mask; applying it again takes it off."""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


@dataclass(frozen=True)
class Frame:
    """One frame as it was read."""

    opcode: int
    fin: bool
    masked: bool
    payload: bytes

    @property
    def close_code(self) -> int | None:
        return int.from_bytes(self.payload[:2], "big") if self.opcode == CLOSE and self.payload else None


def take_frame(data: bytearray) -> Frame | None:
    """Cut one whole frame off the beginning of `data`, or return None. Asserts that it keeps the rules."""
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    assert first & 0x70 == 0, "no extension was agreed, so no reserved bit may be set"
    length, at = second & 0x7F, 2
    if length >= 126:
        n = 2 if length == 126 else 8
        if len(data) < at + n:
            return None
        length = int.from_bytes(data[at : at + n], "big")
        assert length >= (126 if n == 2 else 65536), "a length is written as short as it can be"
        at += n
    key = None
    if second & 0x80:
        key = bytes(data[at : at + 4])
        at += 4
    if len(data) < at + length:
        return None
    payload = bytes(data[at : at + length])
    del data[: at + length]
    return Frame(first & 0x0F, bool(first & 0x80), key is not None, masked(payload, key) if key else payload)
