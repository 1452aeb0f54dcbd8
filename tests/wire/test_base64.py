"""Base64 against the standard library, at every SIMD level."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath._native import ffi, lib

ROOM, FORMAT = -2, -3


@pytest.fixture(params=range(lib.tp_simd_level_best() + 1), autouse=True)
def simd_level(request: pytest.FixtureRequest) -> Iterator[int]:
    before = lib.tp_simd_level_in_use()
    assert lib.tp_simd_select(request.param) == request.param
    yield request.param
    lib.tp_simd_select(before)


def encode(data: bytes) -> bytes:
    out = ffi.new("uint8_t[]", len(data) * 2 + 8)
    written = lib.tp_base64_encode(out, len(out), data, len(data))
    return bytes(ffi.buffer(out, written))


def decode(text: bytes, capacity: int | None = None) -> bytes | int:
    out = ffi.new("uint8_t[]", len(text) + 1)
    written = lib.tp_base64_decode(out, len(text) if capacity is None else capacity, text, len(text))
    return int(written) if written < 0 else bytes(ffi.buffer(out, written))


def reference(text: bytes) -> bytes | int:
    """The standard library's reading, and the rule that there is one text only for each result (RFC 4648 3.5)."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return FORMAT
    return data if base64.b64encode(data) == text else FORMAT


def test_encodes_every_length_as_the_standard_library_does() -> None:
    for n in [*range(101), 160, 320, 640, 1023]:
        data = bytes((7 * i + n) & 0xFF for i in range(n))
        assert encode(data) == base64.b64encode(data)
        assert decode(base64.b64encode(data)) == data


def test_every_three_bytes_value_of_each_position_survives() -> None:
    for value in range(256):
        data = bytes([value]) * 96
        assert decode(encode(data)) == data


@pytest.mark.parametrize("n", [1, 2, 3, 22, 23, 24, 25, 47, 48, 50])
def test_judges_every_changed_character_as_the_standard_library_does(n: int) -> None:
    text = base64.b64encode(bytes((31 * i + n) & 0xFF for i in range(n)))
    for at in range(len(text)):
        for value in range(256):
            changed = text[:at] + bytes([value]) + text[at + 1 :]
            assert decode(changed) == reference(changed), changed


@pytest.mark.parametrize(
    "text",
    [
        b"A", b"AA", b"AAA", b"AAAAA", b"=", b"==", b"===", b"====", b"A===", b"AA=", b"AA=A", b"A=AA", b"AA==AAAA",
        b"AAAA====", b"AB==", b"AAB=", b"AA-_", b"AAAA\n", b" AAAA", b"AAAA\x00\x00\x00\x00", b"AA\n=",
        b"\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_refuses_what_is_not_canonical(text: bytes) -> None:
    assert decode(text) == FORMAT


@given(st.text("ABwxyz0189+/=-_ \n", max_size=90).map(str.encode))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_agrees_with_the_standard_library_on_likely_texts(text: bytes) -> None:
    before = lib.tp_simd_level_in_use()
    for level in range(lib.tp_simd_level_best() + 1):
        lib.tp_simd_select(level)
        assert decode(text) == reference(text)
    lib.tp_simd_select(before)


def test_says_when_there_is_no_room_and_writes_nothing() -> None:
    data = bytes(range(50))
    text = base64.b64encode(data)
    for capacity in range(len(text)):
        out = ffi.new("uint8_t[]", b"\xee" * 80)
        assert lib.tp_base64_encode(out, capacity, data, len(data)) == ROOM
        assert bytes(ffi.buffer(out, 80)) == b"\xee" * 80
    for capacity in range(len(data)):
        assert decode(text, capacity) == ROOM
    assert decode(text, len(data)) == data


def test_writes_nothing_beyond_the_result() -> None:
    for n in range(1, 101):
        data = bytes((11 * i + n) & 0xFF for i in range(n))
        text = base64.b64encode(data)
        out = ffi.new("uint8_t[]", b"\xee" * 200)
        lib.tp_base64_encode(out, 200, data, n)
        assert bytes(ffi.buffer(out, 200)) == text + b"\xee" * (200 - len(text))
        out = ffi.new("uint8_t[]", b"\xee" * 200)
        lib.tp_base64_decode(out, 200, text, len(text))
        assert bytes(ffi.buffer(out, 200)) == data + b"\xee" * (200 - n)


def test_decodes_in_place_and_encodes_from_its_own_end() -> None:
    for n in range(1, 201):
        data = bytes((13 * i + n) & 0xFF for i in range(n))
        text = base64.b64encode(data)
        place = ffi.new("uint8_t[]", text)
        assert lib.tp_base64_decode(place, len(text), place, len(text)) == n
        assert bytes(ffi.buffer(place, n)) == data
        place = ffi.new("uint8_t[]", bytes(len(text) - n) + data)
        assert lib.tp_base64_encode(place, len(text), place + (len(text) - n), n) == len(text)
        assert bytes(ffi.buffer(place, len(text))) == text


def test_knows_the_length_without_decoding() -> None:
    for n in range(50):
        text = base64.b64encode(bytes(n))
        assert lib.tp_base64_decoded_length(text, len(text)) == n
    assert lib.tp_base64_decoded_length(b"AAAAA", 5) == FORMAT
