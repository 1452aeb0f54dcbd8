"""Frames, whole messages and handshakes against RFC 6455's own examples and wsproto."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import Connection, ConnectionType, WSConnection
from wsproto import events as peer_events
from wsproto.extensions import PerMessageDeflate

from talkpath._native import ffi, lib
from talkpath.errors import LocalWireError, RemoteWireError
from talkpath.wire.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_HANDSHAKE_BYTES,
    PING,
    PONG,
    TEXT,
    BinaryMessage,
    ClientHandshake,
    Close,
    FrameError,
    HandshakeError,
    Headers,
    MessageAssembler,
    Ping,
    Pong,
    Received,
    ServerHandshake,
    TextMessage,
    UpgradeRequest,
    close_payload,
    frame,
)

FORMAT, ARGUMENT, ROOM = -3, -1, -2
Frame = tuple[int, bool, bytes]


def read_header(data: bytes) -> int | tuple[int, bool, bool, int, int]:
    """opcode, fin, masked, header bytes, payload bytes; or what the native reader answered instead."""
    out = ffi.new("tp_websocket_frame *")
    status = lib.tp_websocket_read_header(out, data, len(data))
    if status != 1:
        return int(status)
    return out.opcode, bool(out.fin), bool(out.masked), out.header_bytes, out.payload_bytes


class FrameReader:
    """The native frame reader fed with bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames: list[Frame] = []
        header = ffi.new("tp_websocket_frame *")
        while True:
            status = lib.tp_websocket_read_header(header, bytes(self._buffer), len(self._buffer))
            assert status >= 0
            end = header.header_bytes + header.payload_bytes
            if status == 0 or len(self._buffer) < end:
                return frames
            payload = ffi.new("uint8_t[]", bytes(self._buffer[header.header_bytes : end]))
            if header.masked:
                lib.tp_websocket_mask(payload, header.payload_bytes, header.mask, 0)
            frames.append((header.opcode, bool(header.fin), bytes(ffi.buffer(payload, header.payload_bytes))))
            del self._buffer[:end]


HEADERS = [
    # RFC 6455 5.7: the examples; then lengths at their limits.
    ("81 05", (TEXT, True, False, 2, 5)),
    ("81 85 37 fa 21 3d", (TEXT, True, True, 6, 5)),
    ("01 03", (TEXT, False, False, 2, 3)),
    ("80 02", (CONTINUATION, True, False, 2, 2)),
    ("89 05", (PING, True, False, 2, 5)),
    ("8a 85 37 fa 21 3d", (PONG, True, True, 6, 5)),
    ("82 7e 01 00", (BINARY, True, False, 4, 256)),
    ("82 7f 00 00 00 00 00 01 00 00", (BINARY, True, False, 10, 65536)),
    ("88 00", (CLOSE, True, False, 2, 0)),
    ("88 7d", (CLOSE, True, False, 2, 125)),
    ("82 7d", (BINARY, True, False, 2, 125)),
    ("82 7e 00 7e", (BINARY, True, False, 4, 126)),
    ("82 fe ff ff 01 02 03 04", (BINARY, True, True, 8, 65535)),
    ("82 ff 7f ff ff ff ff ff ff ff 01 02 03 04", (BINARY, True, True, 14, 2**63 - 1)),
]


@pytest.mark.parametrize(("text", "expected"), HEADERS)
def test_reads_a_header_whole_and_nothing_before(text: str, expected: tuple[int, bool, bool, int, int]) -> None:
    header = bytes.fromhex(text)
    for n in range(len(header)):
        assert read_header(header[:n]) == 0
    assert read_header(header) == expected
    assert read_header(header + b"payload") == expected


@pytest.mark.parametrize(("text", "expected"), HEADERS)
def test_writes_the_same_header(text: str, expected: tuple[int, bool, bool, int, int]) -> None:
    header = bytes.fromhex(text)
    opcode, fin, masked, _, payload_bytes = expected
    out = ffi.new("uint8_t[]", 14)
    mask = header[-4:] if masked else ffi.NULL
    for capacity in range(len(header)):
        assert lib.tp_websocket_write_header(out, capacity, fin, opcode, payload_bytes, mask) == ROOM
    assert lib.tp_websocket_write_header(out, len(header), fin, opcode, payload_bytes, mask) == len(header)
    assert bytes(ffi.buffer(out, len(header))) == header


@pytest.mark.parametrize(
    ("text", "told_after_bytes"),
    [
        ("c1 00", 1),  # reserved bits
        ("a1 00", 1),
        ("91 00", 1),
        *((f"8{opcode:x} 00", 1) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        ("08 00", 1),  # a fragmented control frame
        ("09 00", 1),
        ("0a 00", 1),
        ("88 7e 00 7e", 2),  # a control frame of more than 125 bytes
        ("89 fe 00 7e", 2),
        ("8a 7f 00 00 00 00 00 01 00 00", 2),
        ("82 7e 00 7d", 4),  # a length that is not minimal
        ("82 fe 00 00 01 02 03 04", 4),
        ("82 7f 00 00 00 00 00 00 ff ff", 8),
        ("82 7f 00 00 00 00 00 00 00 00", 8),
        ("82 7f 80 00 00 00 00 00 00 00", 3),  # 64 bits with the highest set
        ("82 7f ff ff ff ff ff ff ff ff", 3),
    ],
)
def test_refuses_a_header_at_the_byte_that_breaks_it(text: str, told_after_bytes: int) -> None:
    header = bytes.fromhex(text)
    for n in range(len(header) + 1):
        assert read_header(header[:n]) == (0 if n < told_after_bytes else FORMAT)


@given(st.binary(min_size=1, max_size=16))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_header_that_reads_is_the_one_that_would_be_written(data: bytes) -> None:
    read = read_header(data)
    if isinstance(read, int):
        assert read in (0, FORMAT)
        assert not (read == 0 and len(data) >= 14)
        return
    opcode, fin, masked, header_bytes, payload_bytes = read
    out = ffi.new("uint8_t[]", 14)
    mask = data[header_bytes - 4 : header_bytes] if masked else ffi.NULL
    assert lib.tp_websocket_write_header(out, 14, fin, opcode, payload_bytes, mask) == header_bytes
    assert bytes(ffi.buffer(out, header_bytes)) == data[:header_bytes]


def test_the_writer_refuses_what_the_reader_would() -> None:
    out = ffi.new("uint8_t[]", 14)
    for opcode in (3, 7, 11, 15, 16, 255):
        assert lib.tp_websocket_write_header(out, 14, 1, opcode, 0, ffi.NULL) == ARGUMENT
    assert lib.tp_websocket_write_header(out, 14, 0, PING, 0, ffi.NULL) == ARGUMENT
    assert lib.tp_websocket_write_header(out, 14, 1, PING, 126, ffi.NULL) == ARGUMENT
    assert lib.tp_websocket_write_header(out, 14, 1, TEXT, 2**63, ffi.NULL) == ARGUMENT


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4), st.integers(0, 9), st.integers(0, 2**64 - 300))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_masking_is_an_xor_from_any_offset_and_alignment(data: bytes, key: bytes, shift: int, offset: int) -> None:
    place = ffi.new("uint8_t[]", bytes(shift) + data)
    lib.tp_websocket_mask(place + shift, len(data), key, offset)
    expected = bytes(byte ^ key[(offset + i) % 4] for i, byte in enumerate(data))
    assert bytes(ffi.buffer(place, shift + len(data))) == bytes(shift) + expected


def is_utf8(data: bytes) -> bool:
    return lib.tp_websocket_is_utf8(data, len(data)) == 1


def decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_every_lead_with_every_second_byte_is_judged_as_python_does() -> None:
    ends = [b"", b"\x7f", b"\x80", b"\xbf", b"\xc0", b"\x80\x80", b"\xbf\xbf", b"\x80\x7f", b"\xbf\xc0"]
    for lead in range(0x80, 0x100):
        for second in range(0x100):
            for end in ends if second >= 0x70 else ends[:2]:
                data = bytes((lead, second)) + end
                assert is_utf8(data) == decodes(data), data


@given(st.lists(st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=3)))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_longer_texts_are_judged_as_python_does(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert is_utf8(data) == decodes(data)
    assert is_utf8(b"ascii " * 3 + data + b" ascii" * 3) == decodes(data)


# Frames and wsproto, both ways.

SIZES = [0, 1, 125, 126, 127, 1000, 65535, 65536, 70000]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_wsproto_reads_our_frames(n: int, masked: bool) -> None:
    peer = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    payload = bytes((3 * i) & 0xFF for i in range(n))
    peer.receive_data(frame(BINARY, payload, b"\x01\x80\xff\x7e" if masked else None))
    received = [event for event in peer.events() if isinstance(event, peer_events.BytesMessage)]
    assert b"".join(event.data for event in received) == payload
    assert received[-1].message_finished


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_we_read_wsprotos_frames(n: int, masked: bool) -> None:
    peer = Connection(ConnectionType.CLIENT if masked else ConnectionType.SERVER)
    payload = bytes((3 * i) & 0xFF for i in range(n))
    assert FrameReader().receive(peer.send(peer_events.BytesMessage(payload))) == [(BINARY, True, payload)]


@pytest.mark.parametrize("masked", [True, False])
def test_wsproto_understands_our_control_frames_and_fragments(masked: bool) -> None:
    key = b"mask" if masked else None
    peer = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    sent = [
        frame(TEXT, "né".encode()[:2], key, fin=False),
        frame(PING, b"are you there", key),
        frame(CONTINUATION, "né".encode()[2:], key),
        frame(PONG, b"", key),
        frame(CLOSE, close_payload(1001, "going"), key),
    ]
    peer.receive_data(b"".join(sent))
    received = list(peer.events())
    assert [type(event).__name__ for event in received] == [
        "TextMessage", "Ping", "TextMessage", "Pong", "CloseConnection"
    ]  # fmt: skip
    texts = [event for event in received if isinstance(event, peer_events.TextMessage)]
    assert "".join(event.data for event in texts) == "né"
    assert received[-1] == peer_events.CloseConnection(code=1001, reason="going")


EXCHANGE: list[tuple[peer_events.Event, Received | None]] = [
    (peer_events.TextMessage("hello é"), TextMessage("hello é".encode())),
    (peer_events.TextMessage("frag", message_finished=False), None),
    (peer_events.Ping(b"now"), Ping(b"now")),
    (peer_events.TextMessage("ments \U0001f600", message_finished=True), TextMessage("fragments \U0001f600".encode())),
    (peer_events.BytesMessage(bytes(range(256))), BinaryMessage(bytes(range(256)))),
    (peer_events.BytesMessage(b"", message_finished=False), None),
    (peer_events.BytesMessage(b"", message_finished=False), None),
    (peer_events.Pong(b"later"), Pong(b"later")),
    (peer_events.BytesMessage(b"end"), BinaryMessage(b"end")),
    (peer_events.CloseConnection(4000, "done é"), Close(4000, "done é")),
]


@given(st.lists(st.integers(1, 400), max_size=12), st.booleans())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_messages_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int], masked: bool) -> None:
    peer = Connection(ConnectionType.CLIENT if masked else ConnectionType.SERVER)
    stream = b"".join(peer.send(event) for event, _ in EXCHANGE)
    reader, assembler = FrameReader(), MessageAssembler(1000)
    received = []
    for n in [*cuts, len(stream)]:
        received += [assembler.receive(*received_frame) for received_frame in reader.receive(stream[:n])]
        stream = stream[n:]
    assert received == [expected for _, expected in EXCHANGE]


def test_messages_survive_every_split_point() -> None:
    peer = Connection(ConnectionType.CLIENT)
    stream = b"".join(peer.send(event) for event, _ in EXCHANGE)
    for cut in range(len(stream) + 1):
        reader, assembler = FrameReader(), MessageAssembler(1000)
        frames = reader.receive(stream[:cut]) + reader.receive(stream[cut:])
        assert [assembler.receive(*received_frame) for received_frame in frames] == [event for _, event in EXCHANGE]


# Whole messages.


@pytest.mark.parametrize(
    ("frames", "close_code"),
    [
        ([(CONTINUATION, True, b"x")], 1002),
        ([(TEXT, True, b"x"), (CONTINUATION, True, b"y")], 1002),
        ([(TEXT, False, b"x"), (TEXT, True, b"y")], 1002),
        ([(BINARY, False, b"x"), (TEXT, False, b"y")], 1002),
        ([(BINARY, False, b"x"), (CONTINUATION, True, b"y"), (CONTINUATION, True, b"y")], 1002),
        ([(3, True, b"x")], 1002),
        ([(11, True, b"x")], 1002),
        ([(PING, False, b"x")], 1002),
        ([(PING, True, bytes(126))], 1002),
        ([(TEXT, True, b"\xff")], 1007),
        ([(TEXT, True, b"\xed\xa0\x80")], 1007),
        ([(TEXT, True, b"\xc3")], 1007),
        ([(TEXT, False, b"\xc3"), (CONTINUATION, True, b"")], 1007),
        ([(TEXT, False, b"\xc3"), (CONTINUATION, False, b"(")], 1007),
        ([(TEXT, False, b"\xff")], 1007),
        ([(TEXT, True, bytes(101))], 1009),
        ([(BINARY, True, bytes(101))], 1009),
        ([(BINARY, False, bytes(60)), (CONTINUATION, False, bytes(41))], 1009),
        ([(BINARY, False, bytes(100)), (PING, True, b"x"), (CONTINUATION, True, bytes(1))], 1009),
        ([(CLOSE, True, b"\x03")], 1002),
        *(
            ([(CLOSE, True, code.to_bytes(2, "big"))], 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
        ),
        ([(CLOSE, True, b"\x03\xe8\xff")], 1007),
    ],
)
def test_a_broken_rule_is_refused_with_its_close_code(frames: list[Frame], close_code: int) -> None:
    assembler = MessageAssembler(100)
    for before in frames[:-1]:
        assembler.receive(*before)
    with pytest.raises(FrameError) as caught:
        assembler.receive(*frames[-1])
    assert caught.value.close_code == close_code
    assert isinstance(caught.value, RemoteWireError)
    with pytest.raises(FrameError) as again:
        assembler.receive(PING, True, b"")
    assert again.value is caught.value


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 1014, 3000, 3999, 4000, 4999])
def test_lawful_close_codes_are_read_and_written(code: int) -> None:
    payload = close_payload(code, "why é")
    assert MessageAssembler(10).receive(CLOSE, True, payload) == Close(code, "why é")


def test_a_close_without_a_code_is_reported_as_1005_and_can_be_echoed() -> None:
    close = MessageAssembler(10).receive(CLOSE, True, b"")
    assert close == Close(1005, "")
    assert close_payload(1005) == b""


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2000, 5000, 70000, -1])
def test_close_codes_that_must_not_be_sent_are_our_own_error(code: int) -> None:
    with pytest.raises(LocalWireError):
        close_payload(code, "x")


def test_a_long_reason_is_cut_at_a_character() -> None:
    payload = close_payload(1000, "é" * 100)
    assert len(payload) == 124
    assert MessageAssembler(10).receive(CLOSE, True, payload) == Close(1000, "é" * 61)


def test_what_follows_a_close_is_discarded() -> None:
    assembler = MessageAssembler(10)
    assembler.receive(CLOSE, True, b"")
    assert assembler.receive(TEXT, True, bytes(1000)) is None
    assert assembler.receive(CLOSE, True, b"\x00") is None


def test_a_message_may_be_exactly_as_long_as_the_bound_however_it_is_cut() -> None:
    for n in range(11):
        assembler = MessageAssembler(10)
        assert assembler.receive(BINARY, False, bytes(n)) is None
        for _ in range(50):
            assert assembler.receive(CONTINUATION, False, b"") is None
        assert assembler.receive(CONTINUATION, True, bytes(10 - n)) == BinaryMessage(bytes(10))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 0, 1, 1, 2, 3, 8, 9, 10, 15]),
            st.booleans(),
            st.binary(max_size=12) | st.sampled_from([b"plain", b"\x03\xe8bye", b"\xc3", b"\xa9"]),
        )
    )
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_arbitrary_frames_give_messages_or_a_frame_error_and_agree_with_wsproto(frames: list[Frame]) -> None:
    assembler, peer = MessageAssembler(1000), Connection(ConnectionType.CLIENT)
    ours: list[bytes] = []
    theirs: list[bytes] = []
    fault = False
    for opcode, fin, payload in frames:
        try:
            received = assembler.receive(opcode, fin, payload)
        except FrameError:
            fault = True
            break
        if isinstance(received, Close):
            break
        if received is not None:
            ours.append(received.payload)
        peer.receive_data(bytes([fin << 7 | opcode, len(payload)]) + payload)
        for event in peer.events():
            assert not isinstance(event, peer_events.CloseConnection), "wsproto found a fault that we did not"
            if isinstance(event, peer_events.TextMessage | peer_events.BytesMessage):
                data = event.data.encode() if isinstance(event, peer_events.TextMessage) else bytes(event.data)
                theirs.append(data)
            elif isinstance(event, peer_events.Ping | peer_events.Pong):
                theirs.append(bytes(event.payload))
    # wsproto hands fragments on as they come; only where there are none do the two give the same list.
    if not fault and all(fin for _, fin, _ in frames):
        assert ours == theirs


@pytest.mark.parametrize(
    ("opcode", "payload", "mask_key", "fin"),
    [
        (3, b"", None, True),
        (16, b"", None, True),
        (257, b"", None, True),
        (-1, b"", None, True),
        (PING, b"", None, False),
        (PING, bytes(126), None, True),
        (TEXT, b"", b"abc", True),
        (TEXT, b"", b"", True),
    ],
)
def test_an_unlawful_frame_of_ours_is_our_own_error(
    opcode: int, payload: bytes, mask_key: bytes | None, fin: bool
) -> None:
    with pytest.raises(LocalWireError):
        frame(opcode, payload, mask_key, fin)


# Handshakes.

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(scope="module", autouse=True)
def one_key_for_all() -> Iterator[None]:
    """Keys are drawn from the operating system; here they are the RFC's, so that answers repeat."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("talkpath.wire.websocket._draw_key", KEY.encode)
        patch.setattr("wsproto.handshake.generate_nonce", KEY.encode)
        yield


def receive_all(handshake: ClientHandshake | ServerHandshake, pieces: list[bytes]) -> None:
    for piece in pieces:
        handshake.receive(piece)


def request_bytes(*lines: str, first: str = "GET /audio?tier=gold HTTP/1.1") -> bytes:
    usual = {
        "host": "Host: app.example:8443",
        "upgrade": "Upgrade: websocket",
        "connection": "Connection: keep-alive, Upgrade",
        "sec-websocket-key": f"Sec-WebSocket-Key: {KEY}",
        "sec-websocket-version": "Sec-WebSocket-Version: 13",
    }
    changed = {line.partition(":")[0].lower() for line in lines}
    kept = [line for name, line in usual.items() if name not in changed]
    return "\r\n".join([first, *kept, *(line for line in lines if line.partition(":")[2]), "", ""]).encode("latin-1")


def test_client_and_wsproto_server_open_a_connection() -> None:
    client = ClientHandshake("app.example:8443", "/audio?a=1", [("Authorization", "Bearer abc"), ("X-Trace", "7")])
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(client.request)
    (asked,) = server.events()
    assert isinstance(asked, peer_events.Request)
    assert (asked.host, asked.target) == ("app.example:8443", "/audio?a=1")
    assert (asked.extensions, asked.subprotocols) == ([], [])
    assert dict(asked.extra_headers)[b"authorization"] == b"Bearer abc"
    answer = server.send(peer_events.AcceptConnection(extra_headers=[(b"X-Served-By", b"here")]))
    first_frame = server.send(peer_events.TextMessage("hello"))
    for cut in range(1, len(answer)):
        again = ClientHandshake("app.example", "/")
        assert again.receive(answer[:cut]) is False
        assert again.receive(answer[cut:] + first_frame) is True
        assert again.leftover == first_frame
        assert again.response_headers["x-served-by"] == "here"
    with pytest.raises(LocalWireError):
        again.receive(b"more")


@pytest.mark.parametrize("host", ["app.example", "app.example:8443", "127.0.0.1:80", "[::1]:8443", "a_b-c.example"])
@pytest.mark.parametrize("target", ["/", "/audio?a=1&b=%20", "/~x;y=1"])
@pytest.mark.parametrize("headers", [[], [("Authorization", "Bearer abc="), ("x-trace", "a, b c")], [("X-A", "ü")]])
def test_a_request_is_what_wsproto_would_write(host: str, target: str, headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    peer = WSConnection(ConnectionType.CLIENT)
    expected = peer.send(peer_events.Request(host=host, target=target, extra_headers=raw))
    assert ClientHandshake(host, target, headers).request == expected


@pytest.mark.parametrize(
    "lines",
    [
        ["X-Tier:  gold ", "Server: a"],
        ["Set-Cookie: a=1", "Set-Cookie: b=2"],
        ["Content-Length: 0"],
        ["X-Folded: a\r\n b"],
        ["X-Latin: \xfc"],
        ["connection: keep-alive, UPGRADE", "upgrade: WebSocket"],
        ["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="],
        ["Sec-WebSocket-Protocol: audio"],
        ["Connection: close"],
        ["X-Empty: "],
        ["Connection: Upgrade", "Connection: close"],
    ],
)
def test_an_answer_means_the_same_whole_and_in_pieces(lines: list[str]) -> None:
    """A whole answer that is plain is read at once, one in pieces by wsproto."""

    def outcome(cut: int) -> tuple[bool, dict[str, str], bytes]:
        client = ClientHandshake("app.example", "/")
        data = answer_bytes(client, *lines) + b"\x81\x00"
        try:
            for piece in (data[:cut], data[cut:]):
                if piece and client.receive(piece):
                    return True, dict(client.response_headers), client.leftover
        except HandshakeError:
            return False, {}, b""
        raise AssertionError("a whole answer, and no outcome")

    assert outcome(0) == outcome(30) == outcome(1)


def test_wsproto_client_and_server_open_a_connection() -> None:
    client = WSConnection(ConnectionType.CLIENT)
    asked = client.send(
        peer_events.Request(
            host="app.example",
            target="/audio/7?tier=gold&x=a?b",
            extensions=[PerMessageDeflate()],
            subprotocols=["audio"],
            extra_headers=[(b"X-Plivo-Signature-V3", b"abc="), (b"Cookie", b"a=1"), (b"Cookie", b"b=2")],
        )
    )
    for cut in range(1, len(asked)):
        server = ServerHandshake()
        assert server.receive(asked[:cut]) is None
        request = server.receive(asked[cut:] + b"\x81\x80abcd")
        assert isinstance(request, UpgradeRequest)
    assert (request.host, request.path, request.query) == ("app.example", "/audio/7", "tier=gold&x=a?b")
    assert request.headers["x-plivo-signature-v3"] == request.headers["X-PLIVO-Signature-V3"] == "abc="
    assert request.headers["cookie"] == "a=1, b=2"
    assert request.headers["host"] == "app.example"
    assert "abc=" not in repr(request)
    assert server.leftover == b"\x81\x80abcd"
    client.receive_data(server.accept([("X-Served-By", "here")]))
    (accepted,) = client.events()
    assert isinstance(accepted, peer_events.AcceptConnection)
    assert (accepted.extensions, accepted.subprotocol) == ([], None)
    assert dict(accepted.extra_headers)[b"x-served-by"] == b"here"


def test_the_rfcs_own_key_gets_the_rfcs_own_answer() -> None:
    server = ServerHandshake()
    assert server.receive(request_bytes()) is not None
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in server.accept()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request_bytes("Upgrade:"), 400),
        (request_bytes("Upgrade: h2c"), 400),
        (request_bytes("Connection: close"), 400),
        (request_bytes("Connection:"), 400),
        (request_bytes("Sec-WebSocket-Key:"), 400),
        (request_bytes("Sec-WebSocket-Key: short"), 400),
        (request_bytes("Sec-WebSocket-Key: ****************"), 400),
        (request_bytes("Sec-WebSocket-Key: \xff\xfe"), 400),
        (request_bytes("Sec-WebSocket-Version: 8"), 426),
        (request_bytes("Sec-WebSocket-Version:"), 400),
        (request_bytes("Host:"), 400),
        (request_bytes("Host: \xff\xfe.example"), 400),
        (request_bytes("Host: xn--a\xe9.example"), 400),
        (request_bytes("Content-Length: 5"), 400),
        (request_bytes("Transfer-Encoding: chunked"), 400),
        (request_bytes("Content-Length: five"), 400),
        (request_bytes("Connection: Upgr\xe4de"), 400),
        (request_bytes(first="POST /audio HTTP/1.1"), 400),
        (request_bytes(first="GET /audio HTTP/9"), 400),
        (request_bytes(first="GET"), 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET / HTTP/1.1\r\n broken: folding\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HANDSHAKE_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HANDSHAKE_BYTES + b"\r\n\r\n", 431),
        (b"", None),
    ],
)
def test_a_request_that_is_no_upgrade_is_refused_and_can_be_answered(data: bytes, status: int | None) -> None:
    server = ServerHandshake()
    with pytest.raises(HandshakeError) as caught:
        server.receive(data)
    assert caught.value.status == status
    with pytest.raises(HandshakeError) as again:
        server.receive(b"GET")
    assert again.value is caught.value
    with pytest.raises(LocalWireError):
        server.accept()
    answer = server.reject(status or 400, "Because", list(caught.value.headers.items()), b"no")
    assert answer.startswith(b"HTTP/1.1 %d Because\r\n" % (status or 400))
    assert answer.endswith(b"\r\n\r\nno")
    assert status != 426 or b"sec-websocket-version: 13\r\n" in answer
    with pytest.raises(LocalWireError):
        server.reject(400)


def test_a_request_is_answered_once() -> None:
    server = ServerHandshake()
    with pytest.raises(LocalWireError):
        server.accept()
    assert server.receive(request_bytes()) is not None
    server.accept()
    for answer in (server.accept, lambda: server.reject(403)):
        with pytest.raises(LocalWireError):
            answer()


def test_a_refusal_reaches_a_wsproto_client() -> None:
    client, server = WSConnection(ConnectionType.CLIENT), ServerHandshake()
    server.receive(client.send(peer_events.Request(host="app.example", target="/")))
    client.receive_data(server.reject(401, "Who are you", [("WWW-Authenticate", "Bearer")], b"no"))
    refusal, body, *_ = client.events()
    assert isinstance(refusal, peer_events.RejectConnection)
    assert refusal.status_code == 401
    assert (b"www-authenticate", b"Bearer") in list(refusal.headers)
    assert isinstance(body, peer_events.RejectData)
    assert body.data == b"no"


def answer_bytes(client: ClientHandshake, *lines: str, first: str = "HTTP/1.1 101 Switching Protocols") -> bytes:
    """What a correct server answers, with lines changed; `name:` leaves one out."""
    server = ServerHandshake()
    server.receive(client.request)
    usual = [line for line in server.accept().decode().split("\r\n")[1:] if line]
    changed = {line.partition(":")[0].lower() for line in lines}
    kept = [line for line in usual if line.partition(":")[0].lower() not in changed]
    return "\r\n".join([first, *kept, *(line for line in lines if line.partition(":")[2]), "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("lines", "first", "status"),
    [
        (["Sec-WebSocket-Accept:"], None, None),
        (["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="], None, None),
        (["Upgrade:"], None, None),
        (["Upgrade: h2c"], None, None),
        (["Connection: close"], None, None),
        (["Sec-WebSocket-Extensions: permessage-deflate"], None, None),
        (["Sec-WebSocket-Extensions: permessage-deflate", "sec-websocket-extensions: "], None, None),
        (["Sec-WebSocket-Extensions: x\xff"], None, None),
        (["Sec-WebSocket-Protocol: audio"], None, None),
        (["Sec-WebSocket-Protocol: \xff"], None, None),
        (["Connection: Upgr\xe4de"], None, None),
        ([], "HTTP/1.1 200 OK", 200),
        ([], "HTTP/1.1 401 Unauthorized", 401),
        (["Location: https://elsewhere.example/"], "HTTP/1.1 302 Found", 302),
        (["Retry-After: 5"], "HTTP/1.1 503 Busy", 503),
        ([], "HTTP/1.1 100 Continue", 100),
        ([], "SIP/2.0 200 OK", None),
        ([], "", None),
    ],
)
def test_an_answer_that_opens_nothing_is_an_error(lines: list[str], first: str | None, status: int | None) -> None:
    client = ClientHandshake("app.example", "/")
    data = answer_bytes(client, *lines) if first is None else answer_bytes(client, *lines, first=first)
    with pytest.raises(HandshakeError) as caught:
        client.receive(data)
    assert caught.value.status == status
    if status in (302, 503):
        assert {"location", "retry-after"} & set(caught.value.headers)
    with pytest.raises(HandshakeError) as again:
        client.receive(b"HTTP")
    assert again.value is caught.value


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"RFB 003.008\n", b"HTTP/1.1 101 X\r\nA: " + b"b" * MAX_HANDSHAKE_BYTES]
)
def test_a_server_that_is_none_is_an_error_without_a_status(data: bytes) -> None:
    client = ClientHandshake("app.example", "/")
    with pytest.raises(HandshakeError) as caught:
        receive_all(client, [data, b"\r\n\r\n"])
    assert caught.value.status is None


def test_a_head_is_bounded_however_slowly_it_comes() -> None:
    server = ServerHandshake()
    server.receive(b"GET / HTTP/1.1\r\n")
    with pytest.raises(HandshakeError) as caught:
        receive_all(server, [b"X%d: y\r\n" % i for i in range(MAX_HANDSHAKE_BYTES // 8)])
    assert caught.value.status == 431


@given(st.data())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_damaged_head_is_taken_or_refused_whole_or_in_pieces(data: st.DataObject) -> None:
    at_server = data.draw(st.booleans())
    answer = answer_bytes(ClientHandshake("app.example", "/audio"), "X-Tier: gold")
    head = request_bytes("X-Tier: gold") if at_server else answer
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(head)))
        put_in = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\r\n", b"\n", b"\n\n", b": ", b"\xff", b",", b"\x00"])
        )
        head = head[:at] + put_in + head[at + data.draw(st.integers(0, 3)) :]
    head += b"\x81\x00"
    cuts = data.draw(st.lists(st.integers(1, 90), max_size=5))

    def outcome(pieces: list[bytes]) -> tuple[bool, bytes]:
        side = ServerHandshake() if at_server else ClientHandshake("app.example", "/audio")
        rest = b""
        done = False
        for piece in pieces:
            if done:
                rest += piece
                continue
            try:
                done = bool(side.receive(piece))
            except HandshakeError:
                return False, b""
        return done, side.leftover + rest

    pieces, stream = [], head
    for n in cuts:
        if len(stream) > n:
            pieces.append(stream[:n])
            stream = stream[n:]
    assert outcome([head]) == outcome([*pieces, stream])


@pytest.mark.parametrize(
    ("host", "target", "headers"),
    [
        ("app.example", "/", [("Upgrade", "h2c")]),
        ("app.example", "/", [("sec-websocket-extensions", "permessage-deflate")]),
        ("app.example", "/", [("Sec-WebSocket-Protocol", "x")]),
        ("app.example", "/", [("Host", "other")]),
        ("app.example", "/", [("X-A", "b\r\nX-Injected: c")]),
        ("app.example", "/", [("X-A", "€")]),
        ("app.example", "/", [("X A", "b")]),
        ("app.example", "/a b", []),
        ("app.example", "/é", []),
        ("app.example\r\nX: y", "/", []),
        ("a" * 64 + ".example", "/", []),
    ],
)
def test_a_request_that_http_cannot_carry_is_our_own_error(
    host: str, target: str, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(LocalWireError):
        ClientHandshake(host, target, headers)


def test_an_answer_that_http_cannot_carry_is_our_own_error() -> None:
    for headers in ([("X-A", "b\nc")], [("Connection", "close")], [("Content-Length", "1")]):
        server = ServerHandshake()
        server.receive(request_bytes())
        with pytest.raises(LocalWireError):
            server.accept(headers)
    for status, reason in ((99, ""), (403, "no\r\nway"), (403, "€")):
        with pytest.raises(LocalWireError):
            ServerHandshake().reject(status, reason)


def test_headers_ignore_case_and_join_what_stands_twice() -> None:
    headers = Headers([("A", "1"), ("b", "2"), ("a", "3")])
    assert dict(headers) == {"a": "1, 3", "b": "2"}
    assert headers["A"] == "1, 3"
    assert "B" in headers
    assert "c" not in headers
    assert headers.get("c") is None
