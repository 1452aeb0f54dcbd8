"""gRPC's calls, sans-IO: our client against our server, and each against bytes that nobody should send."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.grpc_pair import OK_HEADERS, PATH, Pair, Stranger, StrangeServer, message, take_all
from talkpath.errors import LocalWireError
from talkpath.wire.grpc import (
    CallChanged,
    CallReceived,
    GrpcConnection,
    GrpcOptions,
    Status,
    decode_timeout,
    encode_message,
    encode_timeout,
    is_grpc,
)
from talkpath.wire.http2 import Http2Error

# Calls -----------------------------------------------------------------------------------------------------------


def test_messages_metadata_and_a_status_pass_both_ways() -> None:
    pair = Pair()
    ours, theirs = pair.open(metadata=[("token", "t 1"), ("key-bin", b"\0\xff")], timeout_s=2.5)
    assert theirs.path == PATH
    assert theirs.authority == "peer"
    assert theirs.timeout_s == 2.5
    assert [one for one in theirs.metadata if one[0] != "user-agent"] == [("token", "t 1"), ("key-bin", b"\0\xff")]
    for payload in (b"one", b"", b"x" * 100_000):
        assert ours.send(payload)
    ours.half_close()
    pair.settle()
    assert pair.server.next_events() == [CallChanged(theirs)]
    assert take_all(theirs) == [b"one", b"", b"x" * 100_000]
    assert theirs.half_closed
    assert theirs.end is None
    theirs.accept([("answer", "yes")])
    assert theirs.send(b"back")
    theirs.finish_with(Status.ABORTED, "100 % über\n", [("why-bin", b"\1")])
    pair.settle()
    assert take_all(ours) == [b"back"]
    assert ours.response_metadata == (("answer", "yes"),)
    assert ours.end is not None
    assert (ours.end.status, ours.end.message, ours.end.broken) == (Status.ABORTED, "100 % über\n", False)
    assert ("why-bin", b"\1") in ours.end.trailers
    assert not pair.client.streams
    assert not pair.server.streams


def test_an_unknown_method_is_answered_with_trailers_only() -> None:
    pair = Pair()
    ours = pair.client.open_call("/peer.Service/Nothing", authority="peer")
    pair.settle()
    assert ours.end is not None
    assert ours.end.status is Status.UNIMPLEMENTED
    assert pair.server.next_events() == []
    assert not pair.server.streams


def test_a_server_that_is_done_stops_a_client_that_goes_on() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    theirs.finish_with(Status.OK)
    pair.settle()
    assert ours.end is not None
    assert ours.end.status is Status.OK
    assert ours.gone
    assert ours.send(b"into the void")
    pair.settle()
    assert not pair.client.streams
    assert not pair.server.streams


def test_cancelling_breaks_the_call_at_the_other_end_and_no_other() -> None:
    pair = Pair()
    first, at_server = pair.open()
    second, beside = pair.open()
    first.send(b"never read")
    pair.settle()
    first.cancel()
    pair.settle()
    assert at_server.end is not None
    assert at_server.end.broken
    assert at_server.end.status is Status.CANCELLED
    assert take_all(at_server) == []
    second.send(b"alive")
    pair.settle()
    assert take_all(beside) == [b"alive"]
    beside.cancel()
    pair.settle()
    assert second.end is not None
    assert second.end.broken


def test_a_status_comes_behind_all_messages_and_leaves_them_to_be_taken() -> None:
    pair = Pair(client=GrpcOptions(window_bytes=100))
    ours, theirs = pair.open()
    sent = [bytes([n]) * 70 for n in range(20)]
    for payload in sent:
        theirs.send(payload)
    theirs.finish_with(Status.OK)
    pair.settle()
    got = []
    while ours.end is None or ours.messages:
        got += take_all(ours)
        pair.settle()
    assert got == sent
    assert ours.end.status is Status.OK


def test_calls_go_on_after_goaway_and_none_begins() -> None:
    pair = Pair()
    ours, theirs = pair.open()
    pair.server.go_away()
    pair.settle()
    assert pair.client.draining
    with pytest.raises(LocalWireError):
        pair.client.open_call(PATH, authority="peer")
    ours.send(b"still here")
    pair.settle()
    assert take_all(theirs) == [b"still here"]
    theirs.send(b"and here")
    theirs.finish_with(Status.OK)
    pair.settle()
    assert take_all(ours) == [b"and here"]
    assert ours.end is not None
    assert ours.end.status is Status.OK


def test_a_call_begun_while_goaway_was_under_way_is_refused() -> None:
    pair = Pair()
    pair.server.go_away()
    late = pair.client.open_call(PATH, authority="peer")
    pair.settle()
    assert late.end is not None
    assert late.end.status is Status.UNAVAILABLE
    assert not pair.client.streams
    assert not pair.server.streams


# Flow control ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 5, 7, 100])
def test_tiny_windows_carry_everything(window: int) -> None:
    options = GrpcOptions(window_bytes=window)
    pair = Pair(options, options)
    ours, theirs = pair.open()
    sent = [bytes(range(n)) for n in range(0, 60, 7)]
    for payload in sent:
        assert ours.send(payload)
        assert theirs.send(payload)
    up, down = [], []
    for _ in range(200):
        pair.settle()
        up += take_all(theirs)
        down += take_all(ours)
    assert up == sent
    assert down == sent


def test_who_takes_nothing_stops_his_peer_within_the_window() -> None:
    pair = Pair(server=GrpcOptions(window_bytes=1000))
    ours, theirs = pair.open()
    other, beside = pair.open()
    for _ in range(50):
        ours.send(b"x" * 95)
    pair.settle()
    waiting = len(theirs.messages)
    assert waiting * 100 <= 1000
    assert ours.backlog == 5000 - 1000
    other.send(b"y" * 900)
    pair.settle()
    assert take_all(beside) == [b"y" * 900]
    taken = 0
    while ours.backlog or theirs.messages:
        taken += len(take_all(theirs))
        pair.settle()
    assert taken == 50


def test_a_message_longer_than_the_window_comes_through() -> None:
    pair = Pair(server=GrpcOptions(window_bytes=64))
    ours, theirs = pair.open()
    ours.send(b"z" * 10_000)
    pair.settle()
    assert take_all(theirs) == [b"z" * 10_000]


def test_what_waits_for_a_peer_is_bounded() -> None:
    pair = Pair(client=GrpcOptions(max_backlog_bytes=5000))
    ours, _ = pair.open()
    pair.client.blocked = True
    assert ours.send(b"x" * 4000)
    assert not ours.send(b"x" * 4000)
    assert ours.backlog == 4005
    pair.client.blocked = False
    pair.settle()
    assert ours.backlog == 0
    assert ours.send(b"x" * 4000)


# What a peer may get wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"\1\0\0\0\1x", Status.UNIMPLEMENTED),
        (message(b"x" * 1001), Status.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED),
    ],
)
def test_messages_that_are_not_taken_end_their_call(payload: bytes, status: Status) -> None:
    stranger = Stranger(GrpcOptions(max_message_bytes=1000))
    stranger.request()
    stranger.h2.send_data(1, message(b"fine") + payload)
    stranger.settle()
    assert stranger.headers["grpc-status"] == str(int(status))
    assert stranger.ended
    assert not stranger.server.streams
    assert stranger.server.failure is None


def test_an_end_within_a_message_is_an_error() -> None:
    stranger = Stranger()
    stranger.request()
    stranger.h2.send_data(1, b"\0\0\0\0\5abc", end_stream=True)
    stranger.settle()
    assert stranger.headers["grpc-status"] == str(int(Status.INTERNAL))
    assert not stranger.server.streams


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "text/html"}, "415"),
        ({"content-type": "application/grpcx"}, "415"),
        ({"content-type": None}, "415"),
        ({"content-length": "10"}, "400"),
    ],
)
def test_requests_that_are_no_grpc_are_answered_in_http(changes: dict[str, str | None], status: str) -> None:
    stranger = Stranger()
    stranger.request(**changes)
    assert stranger.headers[":status"] == status
    assert "grpc-status" not in stranger.headers
    assert stranger.server.next_events() == []
    assert not stranger.server.streams


@pytest.mark.parametrize("changes", [{"te": None}, {"content-type": "application/grpc+proto"}, {"x-new": "1"}])
def test_requests_that_are_a_little_different_are_taken(changes: dict[str, str | None]) -> None:
    stranger = Stranger()
    stranger.request(**changes)
    assert [type(event) for event in stranger.server.next_events()] == [CallReceived]


@pytest.mark.parametrize("changes", [{"grpc-timeout": "soon"}, {"grpc-timeout": "123456789S"}, {"k-bin": "*"}])
def test_requests_that_cannot_be_read_are_refused(changes: dict[str, str | None]) -> None:
    stranger = Stranger()
    stranger.request(**changes)
    assert stranger.headers["grpc-status"] == str(int(Status.INTERNAL))


@pytest.mark.parametrize(
    ("headers", "end", "status"),
    [
        ([(":status", "503")], False, Status.UNAVAILABLE),
        ([(":status", "404")], True, Status.UNIMPLEMENTED),
        ([(":status", "418")], False, Status.UNKNOWN),
        ([(":status", "200"), ("content-type", "text/html")], False, Status.UNKNOWN),
        ([*OK_HEADERS, ("content-length", "7")], False, Status.INTERNAL),
        ([*OK_HEADERS, ("grpc-status", "5"), ("grpc-message", "a%20b%zz")], True, Status.NOT_FOUND),
        ([*OK_HEADERS, ("grpc-status", "99")], True, Status.UNKNOWN),
        ([*OK_HEADERS, ("grpc-status", "no")], True, Status.UNKNOWN),
        (OK_HEADERS, True, Status.UNKNOWN),
    ],
)
def test_a_servers_answers_become_a_status(headers: list[tuple[str, str]], end: bool, status: Status) -> None:
    peer = StrangeServer()
    peer.h2.send_headers(1, headers, end_stream=end)
    peer.settle()
    assert peer.call.end is not None
    assert peer.call.end.status is status
    assert peer.call.gone
    assert not peer.client.streams


def test_a_server_that_just_ends_has_given_no_status() -> None:
    peer = StrangeServer()
    peer.h2.send_headers(1, OK_HEADERS)
    peer.h2.send_data(1, message(b"hi"), end_stream=True)
    peer.settle()
    assert peer.call.end is not None
    assert peer.call.end.status is Status.INTERNAL


def test_informational_answers_are_passed_over() -> None:
    peer = StrangeServer()
    peer.h2.send_headers(1, [(":status", "103"), ("link", "x")])
    peer.h2.send_headers(1, OK_HEADERS)
    peer.h2.send_data(1, message(b"hi"))
    peer.settle()
    assert take_all(peer.call) == [b"hi"]
    assert peer.call.end is None


def test_ok_in_the_middle_of_a_message_is_not_ok() -> None:
    peer = StrangeServer()
    peer.h2.send_headers(1, OK_HEADERS)
    peer.h2.send_data(1, message(b"hi")[:-1])
    peer.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    peer.settle()
    assert peer.call.end is not None
    assert peer.call.end.status is Status.UNKNOWN


@pytest.mark.parametrize("metadata", [[("Up", "x")], [("grpc-x", "x")], [("te", "x")], [("a b", "x")], [("a", "ü")]])
def test_metadata_that_cannot_be_sent_is_said_to_the_caller(metadata: list[tuple[str, str]]) -> None:
    pair = Pair()
    with pytest.raises(LocalWireError):
        pair.client.open_call(PATH, authority="peer", metadata=metadata)
    assert pair.open()[1].path == PATH


# Values ----------------------------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=1e9))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_timeout_is_never_shortened_and_hardly_prolonged(timeout_s: float) -> None:
    read = decode_timeout(encode_timeout(timeout_s))
    assert read is not None
    assert timeout_s - 2e-6 <= read <= timeout_s * (1 + 2e-6) + 2e-6 or timeout_s >= 1e8


@given(st.text(max_size=50))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_status_message_is_printable_on_the_wire_and_comes_back(text: str) -> None:
    raw = encode_message(text)
    assert all(0x20 <= byte < 0x7F for byte in raw)
    pair = Pair()
    ours, theirs = pair.open()
    theirs.finish_with(Status.UNKNOWN, text)
    pair.settle()
    assert ours.end is not None
    stripped = text.encode("utf-8", "replace").decode()
    assert ours.end.message.strip(" ") == stripped.strip(" ")


@pytest.mark.parametrize(
    ("content_type", "is_ours"),
    [
        (b"application/grpc", True),
        (b"application/grpc;charset=utf-8", True),
        (b"APPLICATION/GRPC+json", True),
        (b"application/grpc-web", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, is_ours: bool) -> None:
    assert is_grpc(content_type) is is_ours


# Any bytes -------------------------------------------------------------------------------------------------------


def recorded() -> tuple[list[bytes], list[bytes]]:
    """What passed each way in a conversation that uses most of what there is."""
    pair = Pair()
    ours, theirs = pair.open(metadata=[("token", "t"), ("key-bin", b"\0\1")], timeout_s=3)
    for n in (0, 3, 300, 4000):
        ours.send(bytes(n))
        theirs.send(bytes(n))
        pair.settle()
        take_all(ours)
        take_all(theirs)
    cancelled, _ = pair.open()
    cancelled.cancel()
    pair.client.ping(b"12345678")
    pair.settle()
    pair.server.go_away()
    ours.half_close()
    pair.settle()
    theirs.finish_with(Status.OK, "done")
    pair.settle()
    return pair.to_server, pair.to_client


TO_SERVER, TO_CLIENT = (b"".join(parts) for parts in recorded())


def hear(chunks: list[bytes]) -> tuple[list[object], bytes, str]:
    """What a server makes of bytes. -> what its calls heard, what it answered, how it failed"""
    server = GrpcConnection(client=False, paths=[PATH])
    out, failed, calls = b"", "", []
    try:
        for chunk in chunks:
            server.receive(chunk, 0)
            calls += [event.call for event in server.next_events() if isinstance(event, CallReceived)]
            out += server.data_to_send()
    except Http2Error as exc:
        failed = exc.kind
    out += server.data_to_send()
    heard = [(call.path, call.metadata, call.timeout_s, take_all(call), call.half_closed, call.end) for call in calls]
    return list(heard), out, failed


@given(st.lists(st.integers(0, len(TO_SERVER)), max_size=30))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_it_does_not_matter_how_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TO_SERVER)]
    chunks = [TO_SERVER[a:b] for a, b in pairwise(edges)]
    assert hear(chunks) == hear([TO_SERVER])


def test_byte_by_byte_is_the_same() -> None:
    assert hear([TO_SERVER[n : n + 1] for n in range(len(TO_SERVER))]) == hear([TO_SERVER])


def poke(machine: GrpcConnection, data: bytes, size: int) -> None:
    """Feed a machine anything and use it as a program would; only `Http2Error` may come of it."""
    if machine.client:
        calls = [machine.open_call(PATH, authority="peer"), machine.open_call(PATH, authority="peer")]
        calls[0].send(b"hello")
    else:
        calls = []
    for at in range(0, len(data), size):
        try:
            machine.receive(data[at : at + size], at)
        except Http2Error:
            assert machine.failure is not None
            goodbye = machine.data_to_send()
            assert goodbye[-17 + 3 : -17 + 4] == b"\x07"
            with pytest.raises(Http2Error):
                machine.receive(b"more", at)
            return
        for event in machine.next_events():
            calls.append(event.call)
            event.call.next_message()
            event.call.send(b"answer")
            if event.call.half_closed and not machine.client:
                event.call.finish_with(Status.OK)
        machine.data_to_send()
    for call in calls:
        call.send(b"late")
        call.cancel()
    machine.data_to_send()


mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "double", "insert"]), st.floats(0, 1), st.integers(0, 255)), max_size=6
)


@given(st.booleans(), mutations, st.sampled_from([7, 100, 100_000]))
@settings(max_examples=250, deadline=None, derandomize=True)
def test_spoilt_conversations_raise_nothing_else(client: bool, spoil: list[tuple[str, float, int]], size: int) -> None:
    data = bytearray(TO_CLIENT if client else TO_SERVER)
    for how, where, byte in spoil:
        at = int(where**3 * (len(data) - 1))  # most of what matters comes early
        if how == "flip":
            data[at] ^= byte
        elif how == "cut":
            del data[at : at + byte]
        elif how == "double":
            data[at:at] = data[at : at + byte]
        else:
            data[at:at] = bytes([byte])
    poke(GrpcConnection(client=client, paths=[PATH]), bytes(data), size)


frames = st.lists(
    st.tuples(
        st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]), st.binary(max_size=40)
    ),
    max_size=12,
)


@given(st.booleans(), frames)
@settings(max_examples=250, deadline=None, derandomize=True)
def test_frames_in_any_order_raise_nothing_else(client: bool, some: list[tuple[int, int, int, bytes]]) -> None:
    data = (TO_CLIENT if client else TO_SERVER)[:250]
    for kind, flags, stream_id, payload in some:
        data += len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload
    poke(GrpcConnection(client=client, paths=[PATH]), data, 100_000)
