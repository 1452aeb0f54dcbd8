"""HTTP/2, sans-IO: what h2 does not see of it, held against h2; and the bounds."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, PingAckReceived, StreamReset
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from support.grpc_pair import OK_HEADERS, PATH, REQUEST, Pair, Stranger, StrangeServer, message, take_all
from talkpath.wire import http2
from talkpath.wire.grpc import Call, CallReceived, GrpcConnection, GrpcOptions, Status
from talkpath.wire.http2 import Http2Error, frame

PING = frame(http2.PING, 0, 0, b"12345678")


def begun(stranger: Stranger) -> Call:
    """The call that a stranger has just begun."""
    stranger.request()
    (event,) = stranger.server.next_events()
    assert isinstance(event, CallReceived)
    return event.call


def goaway_code(machine: GrpcConnection) -> int:
    """What the machine's last word says."""
    out = machine.data_to_send()
    assert out[-14] == http2.GOAWAY
    return int.from_bytes(out[-4:], "big")


def fails(machine: GrpcConnection, data: bytes, code: ErrorCodes, now_ns: int = 0) -> Http2Error:
    """See a machine give up over `data`, and say why."""
    with pytest.raises(Http2Error) as caught:
        machine.receive(data, now_ns)
    assert caught.value.code == code
    assert goaway_code(machine) == code
    assert not machine.streams
    return caught.value


# Flow control against an independent reckoning -------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255) | st.none(), st.booleans()), max_size=20),
    st.sampled_from([200, 5000, 65535]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_windows_given_back_are_what_h2_reckons(sends: list[tuple[int, int | None, bool]], window: int) -> None:
    stranger = Stranger(GrpcOptions(window_bytes=window))
    call = begun(stranger)
    unsent, taken = b"".join(message(bytes(n)) for n, _, _ in sends), 0
    for n, padding, take in sends:
        room = min(stranger.h2.local_flow_control_window(1), 16384, n) - (0 if padding is None else padding + 1)
        if room > 0:
            stranger.h2.send_data(1, unsent[:room], pad_length=padding)
            unsent = unsent[room:]
        stranger.settle()
        if take:
            taken += len(take_all(call))
            stranger.settle()
    while unsent:
        stranger.settle()
        taken += len(take_all(call))
        stranger.settle()
        room = min(stranger.h2.local_flow_control_window(1), 16384)
        assert room > 0
        stranger.h2.send_data(1, unsent[:room])
        unsent = unsent[room:]
    stranger.settle()
    taken += len(take_all(call))
    stranger.settle()
    assert taken == len(sends)
    # All is taken; what is not given back yet is less than half a window.
    assert window - window // 2 <= stranger.h2.local_flow_control_window(1) <= window


def test_what_is_sent_keeps_to_the_peers_windows_and_frames() -> None:
    stranger = Stranger()
    call = begun(stranger)
    call.send(b"x" * 200_000)
    stranger.settle()  # h2 would raise FlowControlError
    assert len(stranger.body) == 65535
    stranger.h2.increment_flow_control_window(10_000, 1)
    stranger.settle()
    assert len(stranger.body) == 65535  # the connection's is shut still
    stranger.h2.increment_flow_control_window(7_000)
    stranger.settle()
    assert len(stranger.body) == 72535
    stranger.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 165535})
    stranger.h2.increment_flow_control_window(1_000_000)
    stranger.settle()
    assert len(stranger.body) == 65535 + 10_000 + 100_000
    stranger.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    stranger.settle()
    stranger.h2.increment_flow_control_window(100_000, 1)
    stranger.settle()
    assert stranger.body == message(b"x" * 200_000)[: 65535 + 10_000 + 100_000]
    stranger.h2.increment_flow_control_window(200_000, 1)
    stranger.settle()
    assert stranger.body == message(b"x" * 200_000)


def test_streams_that_wait_for_one_window_take_turns() -> None:
    pair = Pair()
    calls = [pair.open() for _ in range(4)]
    pair.client._out_window = 0
    for ours, _ in calls:
        for _ in range(50):
            ours.send(b"x" * 95)
    for _ in range(80):
        pair.client.receive(frame(http2.WINDOW_UPDATE, 0, 0, (100).to_bytes(4, "big")), 0)
    pair.settle()
    assert [len(take_all(theirs)) for _, theirs in calls] == [20] * 4


def test_more_than_the_window_is_the_peers_fault() -> None:
    stranger = Stranger(GrpcOptions(max_message_bytes=1 << 20))
    call = begun(stranger)
    data = message(bytes(16000)) * 4
    stranger.server.receive(b"".join(frame(0, 0, 1, data[at : at + 16000]) for at in range(0, len(data), 16000)), 0)
    assert len(call.messages) == 4
    fails(stranger.server, frame(0, 0, 1, bytes(16000)), ErrorCodes.FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("stream_id", [0, 1])
def test_a_window_beyond_all_bounds_is_the_peers_fault(stream_id: int) -> None:
    stranger = Stranger()
    call = begun(stranger)
    update = frame(http2.WINDOW_UPDATE, 0, stream_id, (2**31 - 1).to_bytes(4, "big"))
    if stream_id == 0:
        fails(stranger.server, update, ErrorCodes.FLOW_CONTROL_ERROR)
        return
    stranger.server.receive(update, 0)
    stranger.settle()
    assert stranger.reset == ErrorCodes.FLOW_CONTROL_ERROR
    assert call.end is not None
    assert call.end.broken


# Frames that are out of place ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(http2.DATA, 0, 3, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.DATA, 0, 0, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.DATA, http2.PADDED, 1, b"\5abcd"), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.DATA, http2.PADDED, 1, b""), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0"), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(http2.WINDOW_UPDATE, 0, 0, bytes(4)), ErrorCodes.FLOW_CONTROL_ERROR),
        (frame(http2.WINDOW_UPDATE, 0, 3, b"\0\0\0\1"), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.PING, 0, 1, bytes(8)), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.PING, 0, 0, bytes(7)), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(http2.GOAWAY, 0, 0, bytes(7)), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(http2.HEADERS, 0, 3, b"") + PING, ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.HEADERS, http2.END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.CONTINUATION, http2.END_HEADERS, 1, b""), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.PUSH_PROMISE, http2.END_HEADERS, 1, bytes(4)), ErrorCodes.PROTOCOL_ERROR),
        (frame(http2.DATA, 0, 1, bytes(16385)), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(http2.SETTINGS, 0, 0, b"\0\5\0\0\0\1"), ErrorCodes.PROTOCOL_ERROR),
    ],
)
def test_frames_out_of_place_end_the_connection(data: bytes, code: ErrorCodes) -> None:
    stranger = Stranger()
    begun(stranger)
    fails(stranger.server, data, code)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not_http2"),
        (b"\x16\x03\x01\x02\0\1", "not_http2"),
        (http2.PREFACE + PING, "not_http2"),
    ],
)
def test_who_does_not_speak_http2_is_told_apart(data: bytes, kind: str) -> None:
    assert fails(GrpcConnection(client=False), data, ErrorCodes.PROTOCOL_ERROR).kind == kind


def test_a_server_of_http1_is_told_apart() -> None:
    client = GrpcConnection(client=True)
    client.data_to_send()
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert fails(client, answer, ErrorCodes.PROTOCOL_ERROR).kind == "not_http2"


def test_data_behind_the_end_of_a_stream_resets_it_and_nothing_else() -> None:
    stranger = Stranger()
    call = begun(stranger)
    stranger.h2.end_stream(1)
    stranger.settle()
    assert call.half_closed
    stranger.server.receive(frame(0, 0, 1, message(b"late")), 0)
    stranger.settle()
    assert stranger.reset == ErrorCodes.STREAM_CLOSED
    assert stranger.server.failure is None


def test_what_was_under_way_to_a_stream_that_is_gone_is_let_pass() -> None:
    stranger = Stranger()
    begun(stranger).cancel()
    stranger.server.next_events()
    for _ in range(100):
        stranger.server.receive(frame(0, 0, 1, bytes(10_000)), 0)
        stranger.server.receive(frame(http2.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), 0)
    assert stranger.server.failure is None
    stranger.h2.send_headers(3, REQUEST)
    stranger.settle()
    assert [type(event) for event in stranger.server.next_events()] == [CallReceived]


def test_frames_of_unknown_kinds_are_let_pass() -> None:
    stranger = Stranger()
    call = begun(stranger)
    stranger.server.receive(frame(0x2, 0, 1, bytes(5)) + frame(0xA, 0, 0, bytes(9)) + frame(0xFE, 255, 9, b"x"), 0)
    stranger.h2.send_data(1, message(b"fine"))
    stranger.settle()
    assert take_all(call) == [b"fine"]


def test_header_blocks_in_pieces_are_put_together() -> None:
    stranger = Stranger()
    stranger.h2.send_headers(1, [*REQUEST, ("x-a", "1"), ("x-b", "2")])
    data = stranger.h2.data_to_send()
    block = data[9:]
    pieces = [block[:3], block[3:3], block[3:20], block[20:]]
    stranger.server.receive(frame(http2.HEADERS, 0, 1, pieces[0]), 0)
    for piece in pieces[1:-1]:
        stranger.server.receive(frame(http2.CONTINUATION, 0, 1, piece), 0)
    stranger.server.receive(frame(http2.CONTINUATION, http2.END_HEADERS, 1, pieces[-1]), 0)
    (event,) = stranger.server.next_events()
    assert event.call.metadata == (("x-a", "1"), ("x-b", "2"))


# Bounds ----------------------------------------------------------------------------------------------------------

EMPTY_SETTINGS = frame(http2.SETTINGS, 0, 0)


@pytest.mark.parametrize(
    "nothing",
    [
        PING,
        EMPTY_SETTINGS,
        frame(0, 0, 1),
        frame(0, http2.PADDED, 1, b"\3abc"),
        frame(0x2, 0, 1, bytes(5)),
        frame(0xFE, 0, 0),
    ],
)
def test_floods_of_frames_that_carry_nothing_end_the_connection(nothing: bytes) -> None:
    stranger = Stranger()
    begun(stranger)
    for _ in range(http2.FLOOD_BURST // 2):
        stranger.server.receive(nothing, 0)
        stranger.server.data_to_send()
    assert fails(stranger.server, nothing * http2.FLOOD_BURST, ErrorCodes.ENHANCE_YOUR_CALM).kind == "flood"


def test_the_same_frames_in_their_time_end_nothing() -> None:
    stranger = Stranger()
    call = begun(stranger)
    for n in range(5 * http2.FLOOD_BURST):
        stranger.server.receive(PING, n * 2_000_000)
        stranger.server.data_to_send()
    stranger.h2.send_data(1, message(b"fine"))
    stranger.settle()
    assert take_all(call) == [b"fine"]


def test_streams_opened_and_reset_without_end_end_the_connection() -> None:
    stranger = Stranger()
    for n in range(1, 2 * http2.FLOOD_BURST - 100, 2):
        stranger.h2.send_headers(n, REQUEST)
        stranger.h2.reset_stream(n, 8)
        stranger.server.receive(stranger.h2.data_to_send(), 0)
        stranger.server.next_events()
        stranger.server.data_to_send()
    for n in range(2 * http2.FLOOD_BURST - 99, 2 * http2.FLOOD_BURST + 101, 2):
        stranger.h2.send_headers(n, REQUEST)
        stranger.h2.reset_stream(n, 8)
    assert fails(stranger.server, stranger.h2.data_to_send(), ErrorCodes.ENHANCE_YOUR_CALM).kind == "flood"


def test_header_blocks_are_bounded() -> None:
    for data in (
        frame(http2.HEADERS, 0, 3, bytes(100)) + frame(http2.CONTINUATION, 0, 3, bytes(1000)) * 17,
        frame(http2.HEADERS, 0, 3, b"") + frame(http2.CONTINUATION, 0, 3, b"") * 2000,
    ):
        stranger = Stranger()
        with pytest.raises(Http2Error):
            stranger.server.receive(data, 0)
    stranger = Stranger()
    stranger.h2.send_headers(1, [*REQUEST, *[(f"x-{n}", "0" * 200) for n in range(100)]])
    assert fails(stranger.server, stranger.h2.data_to_send(), ErrorCodes.ENHANCE_YOUR_CALM)


def test_more_streams_than_were_announced_end_the_connection() -> None:
    stranger = Stranger(GrpcOptions(max_streams=2))
    for n in (1, 3):
        stranger.h2.send_headers(n, REQUEST)
        stranger.settle()
    assert len(stranger.server.next_events()) == 2
    rogue = H2Connection(H2Configuration(client_side=True))
    rogue.initiate_connection()
    machine = GrpcConnection(client=False, paths=[PATH], options=GrpcOptions(max_streams=2))
    for n in (1, 3, 5):
        rogue.send_headers(n, REQUEST)
    fails(machine, rogue.data_to_send(), ErrorCodes.PROTOCOL_ERROR)


def test_a_peer_that_asks_and_never_reads_is_hung_up_on() -> None:
    stranger = Stranger()
    begun(stranger)
    few = 500
    times = http2.MAX_ANSWER_BYTES // (few * len(PING))
    for n in range(times):
        stranger.server.receive(PING * few, n * 1_000_000_000)
    assert fails(stranger.server, PING * few, ErrorCodes.ENHANCE_YOUR_CALM, times * 1_000_000_000).kind == "flood"


# The rest --------------------------------------------------------------------------------------------------------


def test_pings_are_answered_and_asked() -> None:
    stranger = Stranger()
    stranger.h2.ping(b"whoisit?")
    stranger.server.receive(stranger.h2.data_to_send(), 0)
    events = stranger.h2.receive_data(stranger.server.data_to_send())
    assert [event.ping_data for event in events if isinstance(event, PingAckReceived)] == [b"whoisit?"]
    stranger.server.ping(b"andyou? ")
    stranger.settle()
    assert stranger.server.answered == b"andyou? "


def test_goaway_says_the_last_stream_and_code() -> None:
    stranger = Stranger()
    begun(stranger)
    stranger.server.go_away()
    (event,) = stranger.h2.receive_data(stranger.server.data_to_send())
    assert isinstance(event, ConnectionTerminated)
    assert (event.last_stream_id, event.error_code) == (1, ErrorCodes.NO_ERROR)


def test_a_peers_goaway_refuses_what_it_has_not_seen_and_keeps_the_rest() -> None:
    peer = StrangeServer()
    late = peer.client.open_call(PATH, authority="peer")
    peer.client.data_to_send()
    peer.client.receive(frame(http2.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4) + b"bye"), 0)
    assert late.end is not None
    assert late.end.status is Status.UNAVAILABLE
    peer.h2.send_headers(1, OK_HEADERS)
    peer.h2.send_data(1, message(b"on"))
    peer.client.receive(peer.h2.data_to_send(), 0)
    assert take_all(peer.call) == [b"on"]
    assert peer.call.end is None


def test_all_frames_of_a_turn_leave_in_one_piece() -> None:
    stranger = Stranger()
    call = begun(stranger)
    for n in range(10):
        call.send(bytes([n]))
    call.finish_with(Status.OK)
    events = stranger.h2.receive_data(stranger.server.data_to_send())
    assert sum(isinstance(event, DataReceived) for event in events) == 10
    assert any(isinstance(event, StreamReset) for event in events)
    assert stranger.server.data_to_send() == b""
