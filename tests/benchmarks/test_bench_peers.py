"""The peers carry the right audio, so that what they cost means something; figures are not looked at.

What a peer does for itself is proved without a network but loopback: its order of packets against a model, its call by
hand, tick by tick. Then every design and every end runs for a moment under the real load generator.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import bench_application, bench_wire, harness
from benchmarks.packets import REORDER_FRAMES, Reorder
from benchmarks.peers import missing_modules

FRAME = bytes(range(160))
NO_GENERATOR = not sys.platform.startswith("linux") or (shutil.which("cc") or shutil.which("gcc")) is None
needs_generator = pytest.mark.skipif(NO_GENERATOR, reason="the load generator needs Linux and a C compiler")


def skip_without(*modules: str) -> None:
    missing = missing_modules(modules)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@given(first=st.integers(0, 0xFFFF), order=st.permutations(range(12)), lost=st.sets(st.integers(1, 10), max_size=4))
def test_packets_come_out_in_order_each_at_most_once_whatever_order_they_came_in(
    first: int, order: list[int], lost: set[int]
) -> None:
    reorder = Reorder()
    out = [int.from_bytes(payload, "big") for payload in reorder.put(first, (0).to_bytes(2, "big"))]
    for number in order:
        if number and number not in lost:
            ready = reorder.put((first + number) & 0xFFFF, number.to_bytes(2, "big"))
            out += [int.from_bytes(payload, "big") for payload in ready]
    assert out == sorted(set(out))
    assert len(reorder.waiting) <= REORDER_FRAMES
    assert set(out).isdisjoint(lost)


def test_packets_in_order_wait_for_nothing_and_a_gap_waits_for_a_few() -> None:
    reorder = Reorder()
    assert reorder.put(0xFFFE, b"a") == [b"a"]
    assert reorder.put(0xFFFF, b"b") == [b"b"]
    assert reorder.put(1, b"d") == []
    assert reorder.put(0, b"c") == [b"c", b"d"]
    assert reorder.put(0, b"again") == []
    for number in range(3, 3 + REORDER_FRAMES):
        assert reorder.put(number, b"%d" % number) == []
    assert reorder.put(3 + REORDER_FRAMES, b"last") == [*(b"%d" % n for n in range(3, 3 + REORDER_FRAMES)), b"last"]


@pytest.fixture
def caller() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def rtp(seq: int, payload: bytes) -> bytes:
    return b"\x80\x00" + seq.to_bytes(2, "big") + bytes(8) + payload


def test_a_call_on_one_clock_carries_audio_both_ways_and_makes_up_for_late_packets(caller: socket.socket) -> None:
    skip_without("orjson", "pybase64")
    from benchmarks.one_clock import SILENCE, Call

    class Heard(Call):
        def send_text(self, text: bytearray) -> None:
            said.append(json.loads(text))

    def payloads() -> list[bytes]:
        return [base64.b64decode(message["media"]["payload"]) for message in said]

    def tick() -> bytes:
        call.tick()
        return caller.recv(2048)

    said: list[dict[str, Any]] = []
    call = Heard(7)
    with contextlib.closing(call._socket):
        port = call.open_rtp(caller.getsockname()[1])
        caller.connect(("127.0.0.1", port))
        packets = [tick()]
        assert said == []

        # Nothing came for one tick: the next reads two packets.
        spoken = [bytes([n]) * 160 for n in range(1, 5)]
        for seq, payload in enumerate(spoken[:2]):
            caller.send(rtp(seq, payload))
        packets.append(tick())
        assert payloads() == spoken[:2]
        assert [message["media"]["chunk"] for message in said] == [1, 2]
        assert [message["media"]["timestamp"] for message in said] == ["20", "40"]
        # One packet a tick from here, though two wait; out of order, and put in order.
        caller.send(rtp(3, spoken[3]))
        caller.send(rtp(2, spoken[2]))
        packets.append(tick())
        assert len(said) == 2
        packets.append(tick())
        assert payloads() == spoken

        # What the application plays: 20 ms as it is, other lengths cut, cleared when it says so.
        for octets in (FRAME, 2 * FRAME + FRAME[:80], FRAME[80:]):
            call.receive_text(play(octets))
        packets += [tick() for _ in range(5)]
        call.receive_text(play(FRAME))
        call.receive_text(b'{"event":"clearAudio"}')
        packets.append(tick())
        assert [packet[12:] for packet in packets] == [SILENCE] * 4 + [EXPECTED] * 4 + [SILENCE] * 2
        assert [int.from_bytes(packet[2:4], "big") for packet in packets] == list(range(10))
        assert [int.from_bytes(packet[4:8], "big") for packet in packets] == [160 * n for n in range(10)]


# Through PCM and back nothing changes but negative zero.
EXPECTED = FRAME.replace(b"\x7f", b"\xff")


def play(octets: bytes) -> bytes:
    return json.dumps({"event": "playAudio", "media": {"payload": base64.b64encode(octets).decode()}}).encode()


@pytest.fixture(scope="module")
def bench() -> Iterator[harness.Bench]:
    mine = os.sched_getaffinity(0)
    try:
        with harness.open_bench() as bench:
            yield bench
    finally:
        os.sched_setaffinity(0, mine)


@needs_generator
@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("design", [*harness.PEERS, harness.UVLOOP_PICOWS_POLLED], ids=lambda design: str(design.name))
def test_every_peer_carries_the_callers_and_the_applications_audio(
    bench: harness.Bench, design: harness.Design
) -> None:
    skip_without(*design.needs)
    report = bench.measure(design, 3, 0.3, 0.2)["generator"]
    assert report["connections"] == 3
    assert report["messages"]["protocol_errors"] == 0
    for carried in (report["rtp"], report["messages"]):
        assert carried["matching"] > 0
        assert carried["other"] == 0


WAYS = (
    bench_wire.talkpath_way(None),
    bench_wire.PICOWS,
    bench_wire.PICOWS_TEXT,
    bench_wire.TRIO_WEBSOCKET,
    bench_wire.WEBSOCKETS,
)
MOMENT = bench_wire.Plan(rounds=1, seconds=0.2, warm_up_s=0.2, patience_s=0.0, streams=3)


@needs_generator
@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("end", ["platform", "application"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.name))
def test_every_end_sends_and_hears_a_message_every_20_ms(bench: harness.Bench, way: bench_wire.Way, end: str) -> None:
    skip_without(*way.needs)
    both = bench_wire.sample(bench, way, end, (True, True), MOMENT)
    assert both["generator"]["connections"] == 3
    assert both["generator"]["messages"]["sent"] > 0
    assert both["generator"]["messages"]["received"] > 0


@needs_generator
@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("bot", bench_application.bots(None), ids=lambda bot: str(bot.name))
def test_every_echo_says_back_the_calls_own_audio(bench: harness.Bench, bot: bench_application.Bot) -> None:
    skip_without(*bot.needs)
    messages = bench_application.sample(bench, bot, 3, 0.5, 0.3, 0.0)["generator"]["messages"]
    assert messages["audio_s"] > 0
    assert messages["matching"] == messages["received"] > 0


def test_a_package_that_is_missing_is_named_without_importing_any() -> None:
    assert missing_modules(("json", "no_such_package", "no_such_package.part")) == [
        "no_such_package",
        "no_such_package.part",
    ]
