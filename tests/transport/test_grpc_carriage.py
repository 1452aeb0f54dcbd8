"""gRPC calls in the clock's hands, over links in memory and in virtual time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from support.grpc_calls import Owner, open_bench, refusal
from support.grpc_pair import PATH, Pair
from talkpath.errors import ConfigError, RemoteWireError
from talkpath.testing import assert_quiescent
from talkpath.transport.grpc import MAX_MESSAGES_A_STEP, GrpcCarriage, open_grpc, parse_grpc_url
from talkpath.transport.grpc_channel import PING_AFTER_NS, VANISHED_AFTER_NS
from talkpath.transport.memory import connect_memory, listen_memory
from talkpath.wire.grpc import GrpcOptions, Status
from talkpath.wire.http2 import PING, PREFACE, frame

Autojump = trio.testing.MockClock
S = 1_000_000_000


async def ignore(carriage: GrpcCarriage) -> None:
    await trio.sleep_forever()


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """End a run in which nothing will ever happen again: virtual time does not pass by itself."""
    signal.alarm(10)
    yield
    signal.alarm(0)


async def settle() -> None:
    await trio.sleep(0.05)
    await trio.testing.wait_all_tasks_blocked()


async def test_messages_pass_both_ways_and_a_client_that_closes_gets_its_status(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial(metadata=[("token", "x")])
        assert ("token", "x") in theirs.carriage.metadata
        for payload in (b"up", b"", b"u" * 100_000):
            ours.carrier.send_message(payload)
        theirs.carrier.send_media(memoryview(b"down"))
        await settle()
        assert theirs.messages == [b"up", b"", b"u" * 100_000]
        assert ours.messages == [b"down"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.carrier.close, 1000)
            assert await theirs.over() == "closed 1000"
            theirs.carrier.send_message(b"bye")
            await theirs.carrier.close(1000)
        assert ours.said == []
        await settle()
        assert bench.ran == 1
        assert bench.links[0].closed
        assert bench.clock.driver.watched() == 0
    assert_quiescent()


@pytest.mark.parametrize(("code", "heard"), [(1000, "closed 1000"), (1011, "closed 1011"), (1001, "closed 1011")])
async def test_a_servers_goodbye_is_a_status_behind_its_messages(
    code: int, heard: str, autojump_clock: Autojump
) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        theirs.carrier.send_message(b"last words")
        await theirs.carrier.close(code, "why")
        assert await ours.over() == heard
        assert ours.messages == [b"last words"]
        await ours.carrier.close(1000)
        await settle()
        assert bench.ran == 1
    assert_quiescent()


async def test_an_abort_is_heard_as_a_peer_that_vanished(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        for who in (0, 1):
            pair = await bench.dial()
            pair[who].carrier.abort()
            pair[who].carrier.abort()
            assert await pair[1 - who].over() == "closed"
            await pair[1 - who].carrier.close(1000)
        await settle()
        assert bench.clock.driver.watched() == 0
    assert_quiescent()


async def test_a_link_that_is_gone_ends_its_calls(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        ours.carriage._channel.link.close()
        assert await theirs.over() == "closed"
        assert theirs.carrier.broken
        ours.carrier.send_message(b"to nobody")
        assert await ours.over() == "broken OSError"
        await ours.carrier.close(1000)
        await theirs.carrier.close(1000)
        await settle()
        assert bench.ran == 1
    assert_quiescent()


async def test_all_that_a_step_writes_leaves_in_one_send(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        await settle()
        link, sends = bench.links[0], list[int]()
        send = link.send

        def count(data: bytes) -> int:
            sends.append(len(data))
            return send(data)

        link.send = count  # type: ignore[method-assign,assignment]

        def repeat(payload: bytes) -> None:
            for _ in range(10):
                theirs.carrier.send_message(payload)

        theirs.on_message = repeat
        ours.carrier.send_message(b"ten times")
        await settle()
        assert ours.messages == [b"ten times"] * 10
        assert len(sends) == 1


async def test_a_bug_of_ours_ends_the_connections_calls_and_not_the_clock(autojump_clock: Autojump) -> None:
    def stumble(*facts: object) -> bytes:
        raise ZeroDivisionError

    async with open_bench() as bench:
        for what in ("receive", "data_to_send"):
            ours, theirs = await bench.dial()
            setattr(theirs.carriage._channel.machine, what, stumble)
            ours.carrier.send_message(b"x")
            if what == "data_to_send":
                theirs.carrier.send_message(b"y")
            assert await theirs.over() == "failed ZeroDivisionError"
            await theirs.carrier.close(1011)
            assert await ours.over() == "closed"
            ours.carrier.abort()
        other, beside = await bench.dial()
        other.carrier.send_message(b"x")
        await settle()
        assert beside.messages == [b"x"]


async def test_an_owner_that_raises_is_told_so_and_ends_alone(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        other, beside = await bench.dial()

        def fail(payload: bytes) -> None:
            raise ZeroDivisionError

        theirs.on_message = fail
        ours.carrier.send_message(b"x")
        other.carrier.send_message(b"y")
        assert await theirs.over() == "failed ZeroDivisionError"
        theirs.carrier.abort()
        assert await ours.over() == "closed"
        await settle()
        assert beside.messages == [b"y"]


async def test_a_flood_of_messages_is_spread_over_steps_and_none_is_lost(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        later, spread = bench.clock.driver.later, list[int]()

        def count(handler: Callable[[int], None]) -> None:
            spread.append(len(theirs.messages))
            later(handler)

        bench.clock.driver.later = count  # type: ignore[method-assign]
        for n in range(1000):
            ours.carrier.send_message(n.to_bytes(2, "big"))
        await settle()
        assert theirs.messages == [n.to_bytes(2, "big") for n in range(1000)]
        assert len(spread) >= 10
        assert max(b - a for a, b in pairwise([0, *spread, 1000])) <= MAX_MESSAGES_A_STEP


# A peer that does not read ---------------------------------------------------------------------------------------


async def test_who_takes_nothing_makes_media_wait_and_then_drop_and_a_flush_says_so(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        bench.handle = ignore
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH)
        ours = Owner(bench.nursery, carriage)
        ours.stall_s = 2
        await ours.begin(bench.clock)
        for _ in range(1000):
            ours.carrier.send_media(memoryview(b"m" * 195))
        assert ours.carrier.backlogged()
        assert 1000 - (65536 + 8192) // 200 < ours.carrier.media_dropped_so_far() < 1000 - 65536 // 210
        before = trio.current_time()
        await trio.sleep(2.5)
        assert ours.stalled == 1
        ours.carrier.send_message(b"control is never dropped")
        assert ours.said == []
        ours.carrier.abort()
        assert trio.current_time() == before + 2.5


async def test_a_flush_ends_when_the_peer_has_taken_all(autojump_clock: Autojump) -> None:
    async with open_bench(GrpcOptions(window_bytes=1000)) as bench:
        ours, theirs = await bench.dial(live=False)
        for n in range(3000):
            ours.carrier.send_media(memoryview(n.to_bytes(2, "big") * 100))
        assert ours.carrier.backlogged()
        assert await ours.carrier.flush(1)
        assert not ours.carrier.backlogged()
        await settle()
        assert theirs.messages == [n.to_bytes(2, "big") * 100 for n in range(3000)]
        assert ours.stalled == 0


async def test_control_messages_without_end_overflow(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        bench.handle = ignore
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH, options=GrpcOptions(max_backlog_bytes=10_000))
        ours = await Owner(bench.nursery, carriage).begin(bench.clock)
        for _ in range(100):
            ours.carrier.send_message(bytes(1000))
        assert await ours.over() == "overflow"
        ours.carrier.abort()


async def test_a_goodbye_to_one_who_does_not_read_is_bounded_by_the_caller(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        bench.handle = ignore
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH)
        ours = await Owner(bench.nursery, carriage).begin(bench.clock, live=False)
        for _ in range(1000):
            ours.carrier.send_media(memoryview(bytes(1000)))
        with trio.move_on_after(0.5) as bound:
            await ours.carrier.close(1000)
        assert bound.cancelled_caught
        await settle()
        assert bench.clock.driver.watched() == 0


# What a peer may get wrong ---------------------------------------------------------------------------------------


async def test_bytes_that_are_no_http2_end_the_connections_calls_with_goaway(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        link = ours.carriage._channel.link
        link.send(frame(PING, 0, 7, bytes(8)))
        assert await theirs.over() == "protocol bad_frame"
        assert ours.carriage._channel.machine.goaway_code == ErrorCodes.PROTOCOL_ERROR
        assert await ours.over() == "closed"
        theirs.carrier.abort()
        await ours.carrier.close(1000)
        await settle()
        assert bench.ran == 1
    assert_quiescent()


async def test_a_message_that_is_too_long_ends_its_call_with_a_status(autojump_clock: Autojump) -> None:
    async with open_bench(GrpcOptions(max_message_bytes=100)) as bench:
        ours, theirs = await bench.dial()
        ours.carrier.send_message(bytes(101))
        assert await theirs.over() == "protocol status_8"
        assert await ours.over() == "closed 1011"
        assert ours.carriage.call.end is not None
        assert ours.carriage.call.end.status is Status.RESOURCE_EXHAUSTED
        theirs.carrier.abort()
        await ours.carrier.close(1000)


async def test_a_client_that_is_told_too_much_says_so_and_cancels(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial(options=GrpcOptions(max_message_bytes=100))
        theirs.carrier.send_message(bytes(101))
        assert await ours.over() == "protocol status_8"
        assert await theirs.over() == "closed"
        ours.carrier.abort()
        theirs.carrier.abort()


async def test_a_server_that_never_answers_and_one_of_http1_are_told_apart(autojump_clock: Autojump) -> None:
    listener = listen_memory("web")
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            link = await listener.accept()
            link.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link = await listener.accept()
            link.close()
            link = await listener.accept()
            await trio.sleep_forever()

        nursery.start_soon(answer)
        with pytest.raises(RemoteWireError) as caught:
            await open_grpc(parse_grpc_url("memory://web"), PATH)
        assert caught.value.kind == "not_http2"
        with pytest.raises(OSError, match=r"closed|gone"):
            await open_grpc(parse_grpc_url("memory://web"), PATH)
        with trio.move_on_after(1) as bound:
            await open_grpc(parse_grpc_url("memory://web"), PATH)
        assert bound.cancelled_caught
        nursery.cancel_scope.cancel()
    listener.close()
    assert_quiescent()


# Before a call is carried ----------------------------------------------------------------------------------------


async def test_a_task_reads_the_first_messages_and_the_rest_are_carried(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        first: list[bytes | None] = []

        async def handle(carriage: GrpcCarriage) -> None:
            first.append(await carriage.receive_message())
            await bench.carry(carriage)

        bench.handle = handle
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH)
        for n in range(5):
            await carriage.send_message(bytes([n]))
        ours = await Owner(bench.nursery, carriage).begin(bench.clock)
        await settle()
        assert first == [b"\0"]
        assert bench.calls[0].messages == [b"\1", b"\2", b"\3", b"\4"]
        ours.carrier.abort()
        await settle()


async def test_tasks_at_both_ends_need_no_clock(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:

        async def echo(carriage: GrpcCarriage) -> None:
            while (message := await carriage.receive_message()) is not None:
                await carriage.send_message(message)
            carriage.refuse(Status.OK, "")

        bench.handle = echo
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH)
        for payload in (b"a", b"b" * 300_000):
            await carriage.send_message(payload)
            assert await carriage.receive_message() == payload
        carriage.call.half_close()
        carriage._channel.send_now()
        assert await carriage.receive_message() is None
        carriage.close()
        await settle()
        assert bench.ran == 1


async def test_a_cancelled_call_and_a_lost_connection_reach_a_task_that_waits(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        heard: list[str] = []

        async def wait(carriage: GrpcCarriage) -> None:
            try:
                await carriage.receive_message()
            except (OSError, RemoteWireError) as exc:
                heard.append(exc.kind if isinstance(exc, RemoteWireError) else "gone")

        bench.handle = wait
        (await open_grpc(parse_grpc_url("memory://app"), PATH)).close()
        await settle()
        carriage = await open_grpc(parse_grpc_url("memory://app"), PATH)
        carriage._channel.link.close()
        await settle()
        await open_grpc(parse_grpc_url("memory://app"), PATH)
        link = connect_memory("app")
        pair = Pair()
        pair.open()
        for part in pair.to_server:
            link.send(part)
        await settle()
        link.send(b"\0\0\7\6\0\0\0\0\0")
        link.send(bytes(7))
        await settle()
        assert heard == ["gone", "gone", "bad_frame"]
        link.close()


async def test_who_refuses_and_who_forgets_gives_a_status(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:

        async def refuse(carriage: GrpcCarriage) -> None:
            carriage.refuse(Status.UNAUTHENTICATED, "who are you?")

        async def forget(carriage: GrpcCarriage) -> None:
            return

        async def decline(carriage: GrpcCarriage) -> None:
            carriage.decline(0)

        for handle, kind in ((refuse, "status_16"), (forget, "status_13"), (decline, "status_14")):
            bench.handle = handle
            assert await refusal(parse_grpc_url("memory://app"), PATH) == kind
        assert await refusal(parse_grpc_url("memory://app"), "/no.Such/Method") == "status_12"
        await settle()
        assert bench.ran == 4


# Time ------------------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_the_call_at_both_ends(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial(deadline_s=5)
        assert theirs.carriage.call.timeout_s == 5
        now_ns = bench.clock.now_ns()
        assert ours.carrier.check_alive(now_ns)
        assert theirs.carrier.check_alive(now_ns)
        await trio.sleep(5)
        assert not theirs.carrier.check_alive(bench.clock.now_ns())
        assert await ours.over() == "closed 1011"
        assert ours.carriage.call.end is not None
        assert ours.carriage.call.end.status is Status.DEADLINE_EXCEEDED
        assert not ours.carrier.check_alive(bench.clock.now_ns())
        theirs.carrier.abort()
        ours.carrier.abort()


async def test_a_silent_peer_is_asked_and_its_answer_timed(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        await trio.sleep(PING_AFTER_NS / 1e9)
        for end in (ours, theirs):
            assert end.carrier.check_alive(bench.clock.now_ns())
            assert end.carrier.pings_sent == 1
        await settle()
        assert ours.carrier.check_alive(bench.clock.now_ns())
        assert (ours.carrier.pings_sent, theirs.carrier.pings_sent) == (1, 1)


async def test_a_peer_that_does_not_answer_has_vanished(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        bench.clock.driver.unwatch_memory(ours.carriage._channel._watched[1])  # type: ignore[index]
        alive = []
        for second in range(VANISHED_AFTER_NS // S + 2):
            alive.append(theirs.carrier.check_alive(bench.clock.now_ns()))
            await trio.sleep(1)
            assert second or alive[0]
        assert alive[25]
        assert not alive[-1]
        assert theirs.carrier.pings_sent == 1


async def test_a_client_does_not_ping_more_than_grpcs_servers_bear(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        asked = list[float]()
        for second in range(1000):
            before = ours.carrier.pings_sent
            assert ours.carrier.check_alive(bench.clock.now_ns())
            if ours.carrier.pings_sent != before:
                asked.append(second)
            await trio.sleep(1)
        assert len(asked) <= 5
        assert min(b - a for a, b in pairwise(asked[1:])) >= 300
        theirs.carrier.send_message(b"here I am")
        await trio.sleep(11)
        before = ours.carrier.pings_sent
        assert ours.carrier.check_alive(bench.clock.now_ns())
        assert ours.carrier.pings_sent == before + 1


async def test_draining_lets_calls_end_and_takes_no_more(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        bench.servers[0].drain()
        await settle()
        assert bench.ran == 0
        ours.carrier.send_message(b"still")
        await settle()
        assert theirs.messages == [b"still"]
        await theirs.carrier.close(1000)
        assert await ours.over() == "closed 1000"
        await ours.carrier.close(1000)
        await settle()
        assert bench.ran == 1


async def test_a_connection_without_calls_is_closed_in_time(autojump_clock: Autojump) -> None:
    async with open_bench(idle_s=20) as bench:
        link = connect_memory("app")
        link.send(PREFACE + frame(4, 0, 0))
        await trio.sleep(19)
        assert bench.ran == 0
        await trio.sleep(2)
        assert bench.ran == 1
        link.close()
        mute = connect_memory("app")
        await trio.sleep(11)
        assert bench.ran == 2
        mute.close()
    assert_quiescent()


async def test_cancelling_a_server_leaves_nothing(autojump_clock: Autojump) -> None:
    async with open_bench() as bench:
        ours, theirs = await bench.dial()
        idle = await open_grpc(parse_grpc_url("memory://app"), PATH)
        theirs.carrier.abort()
        ours.carrier.abort()
        idle.close()
    assert_quiescent()


# Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme", "authority", "secure"),
    [
        ("grpc://bot.example:5000", "http", "bot.example:5000", False),
        ("http://bot.example", "http", "bot.example", False),
        ("https://bot.example", "https", "bot.example", True),
        ("grpcs://[::1]:7/x", "https", "[::1]:7", True),
        ("memory://app", "memory", "app", False),
    ],
)
def test_addresses(url: str, scheme: str, authority: str, secure: bool) -> None:
    target = parse_grpc_url(url)
    assert (target.scheme, target.secure) == (scheme, secure)
    assert target.authority.removesuffix(":80") == authority


@pytest.mark.parametrize("url", ["", "ws://x", "http:/x", "http://", "http://u@x", "http://x:99999", "http://a b"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_grpc_url(url)
