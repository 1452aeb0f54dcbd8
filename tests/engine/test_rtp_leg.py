"""A caller on a port that anybody can find: whose packets are heard, where ours go, and what else a leg has to bear.

The sockets are real, on loopback; the clock is virtual. The kernel hands a datagram over before `sendto` returns, so
what each tick finds is the same in every run.
"""

from __future__ import annotations

import base64
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time, pool_is_whole
from support.peer import Peer
from talkpath.audio import Samples
from talkpath.dsp import ToneDetector, dtmf, pcmu_decode, pcmu_encode
from talkpath.engine import Call, CallStream, EngineConfig, RtpLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import CallEvent, DigitReceived, LegChanged
from talkpath.records import CallStatistics, EndReason
from talkpath.testing import ToneSource, find_tones
from talkpath.transport.memory import listen_memory

CALLER, ATTACKER, APPLICATION = 450, 1050, 650
TONES = (CALLER, ATTACKER, APPLICATION)


def rtp(
    seq: int, timestamp: int, payload: bytes, *, ssrc: int = 1, payload_type: int = 0, marker: bool = False
) -> bytes:
    return struct.pack("!BBHII", 0x80, marker << 7 | payload_type, seq & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


class Phone:
    """A UDP socket that says a tone in RTP, a packet every 20 ms when told to, and keeps what it is sent."""

    def __init__(self, hz: int, host: str = "127.0.0.1", *, ssrc: int = 1, seq: int = 1000) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.tone = ToneSource(hz)
        self.ssrc, self.seq, self.timestamp = ssrc, seq, 160 * seq
        self.to: Any = None
        self.got: list[bytes] = []

    @property
    def address(self) -> tuple[str, int]:
        name = self.sock.getsockname()
        return name[0], name[1]

    def packet(self, payload: bytes | None = None, **options: Any) -> bytes:
        """The next packet of the tone."""
        made = rtp(
            self.seq,
            self.timestamp,
            pcmu_encode(self.tone.take(160)) if payload is None else payload,
            **{"ssrc": self.ssrc, **options},
        )
        self.seq += 1
        self.timestamp += 160
        return made

    def send(self, data: bytes | None = None) -> None:
        self.sock.sendto(self.packet() if data is None else data, self.to)

    async def talk(self, ms: int, at_once: int = 1) -> None:
        """Send for `ms`, `at_once` packets every 20 ms of them."""
        for _ in range(ms // 20):
            for _ in range(at_once):
                self.send()
            await trio.sleep(0.02)

    def hear(self) -> list[bytes]:
        """Everything that has come in."""
        while True:
            try:
                self.got.append(self.sock.recv(4096))
            except BlockingIOError:
                return self.got

    def heard(self) -> list[float]:
        """Which tones the audio holds that has come in."""
        payload = b"".join(one[12:] for one in self.hear() if one[1] & 0x7F == 0)
        return sorted({span.hz for span in find_tones(pcmu_decode(payload), 8000, TONES)})

    def close(self) -> None:
        self.sock.close()


@dataclass
class Scene:
    """A live call on an RTP leg with one stream to an application that plays a tone and keeps what it is sent."""

    call: Call
    leg: RtpLeg
    peer: Peer
    stream: CallStream
    events: list[CallEvent] = field(default_factory=list)

    def inbound(self) -> Samples:
        """What the application was sent."""
        payloads = (base64.b64decode(message["media"]["payload"]) for message in self.peer.named("media"))
        return pcmu_decode(b"".join(payloads))

    def said(self) -> list[float]:
        """Which tones the application was sent."""
        return sorted({span.hz for span in find_tones(self.inbound(), 8000, TONES)})

    @property
    def counters(self) -> CallStatistics:
        return self.call.statistics()

    def changes(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, LegChanged)]


@asynccontextmanager
async def scene(*phones: Phone, plays_s: float = 20, **options: Any) -> AsyncIterator[Scene]:
    which = engine()
    listener = listen_memory("application")
    peers: list[Peer] = []
    playing = trio.Event()

    async def application() -> None:
        peer = Peer(await listener.accept(), client=False)
        peers.append(peer)
        await peer.upgrade_as_server()
        payload = base64.b64encode(pcmu_encode(ToneSource(APPLICATION).take(round(plays_s * 8000)))).decode()
        media = {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}
        await peer.text({"event": "playAudio", "media": media})
        playing.set()
        await peer.read_all()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(application)
            leg = RtpLeg(**{"local": ("127.0.0.1", 0), **options})
            async with which:
                async with which.open_call(leg) as call:
                    for phone in phones:
                        phone.to = leg.local_address
                    stream = await call.start_stream(StreamSpec(url="memory://application", bidirectional=True))
                    made = Scene(call, leg, peers[0], stream)
                    call.on_event(made.events.append)
                    await playing.wait()
                    await trio.sleep(0.007)  # whoever sends every 20 ms from now on does so between two ticks
                    yield made
                assert pool_is_whole(which)
            listener.close()
    finally:
        for phone in phones:
            phone.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    in_virtual_time(work)


# By default: the configured address and nobody else


def test_only_the_configured_address_is_heard_and_sent_to() -> None:
    async def work() -> None:
        caller, same_host, other_host = Phone(CALLER), Phone(ATTACKER), Phone(ATTACKER, "127.0.0.2")
        async with scene(caller, same_host, other_host, remote=caller.address) as it:
            async with trio.open_nursery() as nursery:
                for phone in (caller, same_host, other_host):
                    nursery.start_soon(phone.talk, 2000)
            assert it.leg.source == caller.address
            assert it.said() == [CALLER]
            assert caller.heard() == [APPLICATION]
            assert same_host.hear() == other_host.hear() == []
            assert it.counters.packets_received == 100
            assert it.counters.packets_refused == 200
            assert it.counters.ssrc_changes == 0
            assert it.changes() == []

    run(work)


@pytest.mark.parametrize("symmetric", [False, True, "any"])
def test_a_flood_of_valid_looking_packets_neither_injects_nor_redirects_nor_delays(symmetric: Any) -> None:
    async def work() -> None:
        caller, attacker, other = Phone(CALLER), Phone(ATTACKER), Phone(ATTACKER, "127.0.0.2")
        async with scene(caller, attacker, other, remote=caller.address, symmetric=symmetric) as it:
            await caller.talk(200)
            before = it.counters
            async with trio.open_nursery() as talking:
                talking.start_soon(caller.talk, 3000)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(attacker.talk, 2000, 50)
                    nursery.start_soon(other.talk, 2000, 50)
                after = it.counters
                talking.cancel_scope.cancel()
            assert it.leg.source == caller.address
            assert it.said() == [CALLER]
            assert attacker.hear() == other.hear() == []
            assert caller.heard() == [APPLICATION]
            assert after.packets_received - before.packets_received == 100
            assert after.packets_refused - before.packets_refused == 10_000
            assert (after.packets_lost, after.packets_late, after.concealed_samples) == (0, 0, 0)
            assert after.jitter_buffer_delay_ms <= 40

    run(work)


def test_an_attacker_who_guesses_everything_but_the_address_changes_nothing() -> None:
    """Same SSRC, the very next sequence numbers and timestamps, sent before the caller's own."""

    async def work() -> None:
        caller, attacker = Phone(CALLER), Phone(ATTACKER)
        async with scene(caller, attacker, remote=caller.address) as it:
            for _ in range(50):
                attacker.seq, attacker.timestamp = caller.seq, caller.timestamp
                attacker.send()
                caller.send()
                await trio.sleep(0.02)
            assert it.said() == [CALLER]
            assert it.counters.packets_duplicated == 0
            assert it.counters.packets_refused == 50

    run(work)


# symmetric=True: another port of the same host


def test_a_caller_behind_nat_is_found_by_three_consecutive_packets() -> None:
    async def work() -> None:
        announced, real = Phone(CALLER), Phone(CALLER)
        async with scene(announced, real, remote=announced.address, symmetric=True) as it:
            await trio.sleep(0.1)
            assert len(announced.hear()) == 6, "until it is known better, audio goes to the address that was given"
            for n in range(3):
                assert it.changes() == []
                assert it.counters.packets_refused == n
                real.send()
                await trio.sleep(0.02)
            assert it.changes() == ["source_learned"]
            assert it.leg.source == real.address
            await real.talk(1000)
            assert it.said() == [CALLER]
            assert real.heard() == [APPLICATION]
            assert len(announced.hear()) == 8
            assert it.counters.packets_refused == 2

    run(work)


def test_the_announced_address_is_heard_from_its_first_packet() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address, symmetric=True) as it:
            await caller.talk(1000)
            assert it.counters.packets_received == 50
            assert it.counters.packets_refused == 0
            assert it.leg.source == caller.address

    run(work)


@pytest.mark.parametrize("what", ["another host", "gaps", "two SSRCs", "payload type", "RTCP", "not RTP", "no payload"])
def test_what_is_not_three_consecutive_valid_packets_of_the_host_teaches_nothing(what: str) -> None:
    async def work() -> None:
        announced = Phone(CALLER)
        other = Phone(ATTACKER, "127.0.0.2" if what == "another host" else "127.0.0.1")
        async with scene(announced, other, remote=announced.address, symmetric=True) as it:
            for n in range(20):
                match what:
                    case "gaps":
                        if n % 2:
                            other.packet()
                        other.send()
                    case "two SSRCs":
                        other.send(other.packet(ssrc=n % 2))
                    case "payload type":
                        other.send(other.packet(payload_type=96))
                    case "RTCP":
                        other.send(struct.pack("!BBHI", 0x80, 201, 1, 7))
                    case "not RTP":
                        other.send(b"\0" * 172)
                    case "no payload":
                        other.send(other.packet(b""))
                    case _:
                        other.send()
                await trio.sleep(0.02)
            assert it.changes() == []
            assert it.said() == []
            assert other.hear() == []
            assert it.counters.packets_refused == 20
            await announced.talk(200)
            assert it.said() == [CALLER]

    run(work)


def test_a_caller_may_come_back_from_another_port_after_a_second_of_silence_and_not_before() -> None:
    async def work() -> None:
        first, second = Phone(CALLER), Phone(ATTACKER)
        async with scene(first, second, remote=first.address, symmetric=True) as it:
            async with trio.open_nursery() as nursery:  # while the first talks, the second cannot take over
                nursery.start_soon(first.talk, 1000)
                nursery.start_soon(second.talk, 1000)
            assert it.said() == [CALLER]
            assert it.leg.source == first.address
            await second.talk(900)
            assert it.leg.source == first.address, "0.9 s are not silence enough"
            assert second.hear() == []
            await second.talk(300)
            assert it.leg.source == second.address
            assert it.changes() == ["source_learned"]
            await second.talk(500)
            n_first = len(first.hear())
            assert it.said() == [CALLER, ATTACKER]
            await trio.sleep(0.2)
            assert len(first.hear()) == n_first, "audio goes to the one place"

    run(work)


# symmetric="any": whoever comes first, then nobody else


def test_the_first_with_three_consecutive_packets_is_the_caller_for_good() -> None:
    async def work() -> None:
        first, second = Phone(CALLER, "127.0.0.2"), Phone(ATTACKER, "127.0.0.3")
        async with scene(first, second, symmetric="any") as it:
            second.send()
            second.send()
            await trio.sleep(0.1)
            assert it.leg.source is None
            assert second.hear() == [], "nobody is sent audio before it is known who the caller is"
            await first.talk(100)
            assert it.leg.source == first.address
            await second.talk(1000)
            await trio.sleep(2)
            await second.talk(3000)  # silence from the first, for however long, hands nothing over
            assert it.leg.source == first.address
            assert it.said() == [CALLER]
            assert first.heard() == [APPLICATION]
            assert second.hear() == []

    run(work)


def test_after_five_seconds_nobody_is_learned_until_an_update() -> None:
    async def work() -> None:
        late = Phone(CALLER, "127.0.0.2")
        async with scene(late, symmetric="any") as it:
            await trio.sleep(5.01)
            await late.talk(500)
            assert it.leg.source is None
            assert late.hear() == []
            assert it.counters.packets_refused == 25
            it.leg.update(remote=("127.0.0.9", 9))
            await trio.sleep(0.02)
            await late.talk(500)
            assert it.leg.source == late.address
            assert it.said() == [CALLER]
            assert it.changes() == ["updated", "source_learned"]

    run(work)


def test_a_second_voice_between_the_callers_first_packets_does_not_keep_it_out() -> None:
    async def work() -> None:
        first, second = Phone(CALLER, "127.0.0.2"), Phone(ATTACKER, "127.0.0.3")
        async with scene(first, second, symmetric="any") as it:
            for _ in range(10):
                first.send()
                second.send()
                await trio.sleep(0.02)
            assert it.leg.source == first.address
            assert second.hear() == []

    run(work)


# What else arrives


def test_rtcp_foreign_payload_types_and_broken_packets_are_counted_each_as_what_it_is() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address) as it:
            await caller.talk(200)
            caller.send(struct.pack("!BBHI", 0x80, 200, 6, 7) + bytes(20))
            caller.send(struct.pack("!BBHI", 0x81, 203, 1, 7))
            for payload_type in (3, 8, 96, 127):
                caller.send(caller.packet(payload_type=payload_type))
            for broken in (
                b"",
                b"\x80",
                b"\0" * 172,
                b"\x80\x00" + bytes(9),
                b"\xff" * 12,
                b"\x9f" + caller.packet()[1:],
            ):
                caller.send(broken)
            await trio.sleep(0.1)
            await caller.talk(200)
            counters = it.counters
            assert counters.rtcp_packets_received == 2
            assert counters.packets_wrong_payload_type == 4
            assert counters.packets_malformed == 6
            assert counters.packets_received == 20
            assert counters.packets_refused == 0
            assert it.said() == [CALLER]

    run(work)


def test_random_datagrams_from_the_caller_itself_do_no_harm() -> None:
    async def work() -> None:
        dice = random.Random(7)
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address) as it:
            for _ in range(300):
                data = bytearray(dice.randbytes(dice.choice([0, 1, 11, 12, 13, 16, 40, 172, 1400])))
                if len(data) > 1 and dice.random() < 0.7:
                    data[0], data[1] = 0x80 | dice.randrange(64), dice.choice([0, 0x80, 101, 13, 200])
                caller.send(bytes(data))
                if dice.random() < 0.3:
                    await trio.sleep(0.02)
            await caller.talk(2000)
            assert it.call.end_reason is None
            levels = find_tones(it.inbound()[-8000:], 8000, [CALLER])
            assert levels, "the caller is heard again once it talks sense"

    run(work)


def test_a_port_that_is_closed_for_a_moment_ends_nothing() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        address = caller.address
        async with scene(remote=address) as it:
            caller.to = it.leg.local_address
            await caller.talk(200)
            caller.close()
            await trio.sleep(1)
            again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            again.bind(address)
            again.setblocking(False)
            caller.sock = again
            await caller.talk(500)
            assert it.call.end_reason is None
            assert it.counters.packets_received == 35
            assert caller.heard() == [APPLICATION]
            caller.close()

    run(work)


# Changes on the way


@pytest.mark.parametrize(
    ("direction", "hears", "says"),
    [("sendonly", True, False), ("recvonly", False, True), ("inactive", False, False), ("sendrecv", True, True)],
)
def test_a_call_on_hold_carries_audio_only_where_it_may(direction: str, hears: bool, says: bool) -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address, media_timeout_s=1) as it:
            await caller.talk(500)
            it.leg.update(direction=direction)
            await trio.sleep(0.1)
            caller.hear().clear()
            it.peer.frames.clear()
            await caller.talk(2000)
            assert it.said() == ([CALLER] if says else [])
            assert caller.heard() == ([APPLICATION] if hears else [])
            # The tracks run on: what the application is sent is silence, not nothing.
            assert abs(len(it.inbound()) - 16000) <= 160
            it.leg.update(direction="sendrecv")
            await trio.sleep(0.1)
            caller.hear().clear()
            it.peer.frames.clear()
            await caller.talk(1000)
            assert it.said() == [CALLER]
            assert caller.heard() == [APPLICATION]
            assert it.changes() == ["resumed" if direction == "sendrecv" else "held", "resumed"]

    run(work)


@pytest.mark.parametrize("symmetric", [False, True, "any"])
def test_a_new_address_is_taken_over_and_the_old_one_is_a_stranger(symmetric: Any) -> None:
    async def work() -> None:
        old, new = Phone(CALLER), Phone(CALLER, ssrc=2, seq=40_000)
        async with scene(old, new, remote=old.address, symmetric=symmetric) as it:
            await old.talk(500)
            assert it.leg.source == old.address
            it.leg.update(remote=new.address)
            await trio.sleep(0.02)
            old.hear().clear()
            await new.talk(500)
            assert it.leg.source == new.address
            assert new.heard() == [APPLICATION]
            n_before = it.counters.packets_received
            old.tone = ToneSource(ATTACKER)
            await old.talk(500)
            assert it.counters.packets_received == n_before
            assert ATTACKER not in it.said()
            assert len(old.hear()) <= 1

    run(work)


@pytest.mark.parametrize(
    "update", [{"direction": "both"}, {"remote": ("phone.example", 4000)}, {"remote": ("127.0.0.1", 0)}]
)
def test_an_update_that_cannot_be_is_refused_and_changes_nothing(update: dict[str, Any]) -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address) as it:
            with pytest.raises(ConfigError):
                it.leg.update(**update)
            await caller.talk(500)
            assert it.said() == [CALLER]
            it.call.hang_up()
            with pytest.raises(CallEnded):
                it.leg.update(direction="sendonly")

    run(work)


def test_a_caller_who_falls_silent_ends_the_call_unless_on_hold() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address, media_timeout_s=3) as it:
            await caller.talk(1000)
            it.leg.update(direction="sendonly")
            await trio.sleep(10)
            assert it.call.end_reason is None
            it.leg.update(direction="sendrecv")
            await trio.sleep(2.9)
            assert it.call.end_reason is None
            caller.send(
                struct.pack("!BBHI", 0x80, 200, 6, 7) + bytes(20)
            )  # neither RTCP nor a stranger is the caller's voice
            caller.send(caller.packet(payload_type=96))
            await trio.sleep(0.2)
            assert it.call.end_reason is EndReason.MEDIA_TIMED_OUT
            record = await it.call.wait_ended()
            assert record.reason is EndReason.MEDIA_TIMED_OUT
            assert it.stream.end_reason is EndReason.MEDIA_TIMED_OUT

    run(work)


def test_a_caller_who_never_speaks_ends_the_call_too() -> None:
    async def work() -> None:
        stranger = Phone(ATTACKER)
        async with scene(stranger, remote=("127.0.0.1", 9), media_timeout_s=2) as it:
            await stranger.talk(1900)
            assert it.call.end_reason is None
            await stranger.talk(200)
            assert it.call.end_reason is EndReason.MEDIA_TIMED_OUT
            assert it.counters.packets_refused >= 95

    run(work)


# Ports and addresses


def test_ports_of_a_range_are_even_distinct_and_all_used() -> None:
    async def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1] // 16 * 16 - 256
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("127.0.0.1", first + 4))

        def leg() -> RtpLeg:
            return RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", 9), port_range=(first - 1, first + 7))

        async with engine() as which:
            async with (
                which.open_call(leg()) as a,
                which.open_call(leg()) as b,
                which.open_call(leg()) as c,
            ):
                ports = {one.leg.local_address[1] for one in (a, b, c)}  # type: ignore[attr-defined]
                assert ports == {first, first + 2, first + 6}
                with pytest.raises(OSError, match="in use"):
                    async with which.open_call(leg()):
                        pass
            assert which.statistics().calls == 0
            async with which.open_call(leg()) as again:
                assert again.leg.local_address[1] in ports  # type: ignore[attr-defined]
        taken.close()

    run(work)


def test_a_leg_that_names_no_port_takes_one_of_the_engine_s_range() -> None:
    async def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1] // 16 * 16 - 512
        remote = ("127.0.0.1", 9)
        legs = [
            RtpLeg(local=("127.0.0.1", 0), remote=remote),
            RtpLeg(local=("127.0.0.1", 0), remote=remote, port_range=(first + 8, first + 9)),
            RtpLeg(local=("127.0.0.1", first + 15), remote=remote),
        ]
        ports = []
        async with engine(EngineConfig(port_range=(first, first + 1))) as which:
            for leg in legs:
                async with which.open_call(leg):
                    ports.append(leg.local_address[1])
        assert ports == [first, first + 8, first + 15]

    run(work)


@pytest.mark.parametrize("written", ["::1", "0:0:0:0:0:0:0:1", "0000::0001"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_ipv6_however_the_address_is_written(written: str, symmetric: bool) -> None:
    async def work() -> None:
        caller, stranger = Phone(CALLER, "::1"), Phone(ATTACKER, "::1")
        remote = (written, caller.address[1])
        async with scene(caller, stranger, local=("::1", 0), remote=remote, symmetric=symmetric) as it:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.talk, 500)
                nursery.start_soon(stranger.talk, 500)
            assert it.leg.source == ("::1", caller.address[1])
            assert it.said() == [CALLER]
            assert caller.heard() == [APPLICATION]
            assert stranger.hear() == []

    run(work)


@pytest.mark.parametrize(
    "options",
    [
        {"remote": ("phone.example", 4000)},
        {"remote": ("127.0.0.1", 0)},
        {"remote": ("127.0.0.1", 70000)},
        {"remote": ("::1", 4000), "local": ("127.0.0.1", 0)},
        {"remote": ("127.0.0.1", 4000), "local": ("::1", 0)},
        {"remote": None},
        {"remote": None, "symmetric": True},
        {"symmetric": "some"},
        {"codec": "OPUS"},
        {"codec": "L16@16000h"},
        {"payload_type": 72},
        {"payload_type": 101},
        {"ptime_ms": 25},
        {"port_range": (0, 10)},
        {"port_range": (4001, 4000)},
        {"port_range": (4001, 4001)},
        {"media_timeout_s": -1},
        {"jitter_min_ms": 100, "jitter_max_ms": 50},
    ],
)
def test_a_leg_that_cannot_work_is_refused_when_it_is_described(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RtpLeg(**{"local": ("127.0.0.1", 0), "remote": ("127.0.0.1", 4000), **options})


# Digits


def event(code: int, duration: int, *, end: bool = False) -> bytes:
    return struct.pack("!BBH", code, 0x80 * end | 10, duration)


def test_a_digit_is_heard_once_whatever_is_lost_of_it() -> None:
    """RFC 4733: a row of packets with one timestamp, three of them the end; any one of them is the digit."""

    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address) as it:
            await caller.talk(200)
            for code, survives in enumerate([range(8), [0], [7], [5], [2, 6], [4, 7], range(1, 8, 2)]):
                at = caller.timestamp
                for n in range(8):
                    payload = event(code, 160 * min(n + 1, 6), end=n >= 5)
                    packet = rtp(caller.seq, at, payload, payload_type=101, marker=n == 0)
                    caller.seq += 1
                    if n in survives:
                        caller.send(packet)
                        if n == 7:
                            caller.send(packet)  # and once more, from the network
                    await trio.sleep(0.02)
                caller.timestamp = at + 8 * 160
                await caller.talk(200)
            digits = "".join(one.digit for one in it.events if isinstance(one, DigitReceived))
            assert digits == "0123456"
            assert [message["dtmf"]["digit"] for message in it.peer.named("dtmf")] == list("0123456")
            assert it.counters.digits_received == 7

    run(work)


def parsed(datagrams: list[bytes]) -> list[tuple[Any, ...]]:
    """-> first octet, marker and payload type, sequence number, timestamp, SSRC, payload"""
    return [(*struct.unpack("!BBHII", one[:12]), one[12:]) for one in datagrams]


def test_digits_go_out_as_events_with_their_end_three_times_and_the_audio_waits() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address) as it:
            await trio.sleep(0.5)
            before = parsed(caller.hear())
            caller.got = []
            await it.peer.text({"event": "sendDTMF", "dtmf": "1#"})
            await trio.sleep(1)
            packets = parsed(caller.hear())
            events = [packet for packet in packets if packet[1] & 0x7F == 101]
            first = packets[0][2]
            assert [one[2] for one in packets] == [first + n & 0xFFFF for n in range(len(packets))], (
                "no gap in sequence"
            )
            by_digit = {code: [one for one in events if one[5][0] == code] for code in (1, 11)}
            for code, rows in by_digit.items():
                assert len({row[3] for row in rows}) == 1, "one timestamp a digit"
                ends = [row[5] for row in rows if row[5][1] & 0x80]
                assert len(ends) == 3, code
                assert len(set(ends)) == 1
                assert struct.unpack("!H", ends[0][2:])[0] == 800, "100 ms"
                assert [bool(row[1] & 0x80) for row in rows] == [True] + [False] * (len(rows) - 1)
            assert sum(map(len, by_digit.values())) == len(events)
            assert it.counters.digits_sent == 2
            # Behind the digits the application's audio goes on at the next sample: without the gap it is whole.
            frames = [one[5] for one in before + packets if one[1] & 0x7F == 0 and one[5] != b"\xff" * 160]
            audio = b"".join(frames)
            assert len(audio) > 8000
            assert audio == pcmu_encode(ToneSource(APPLICATION).take(len(audio)))

    run(work)


def test_a_leg_without_telephone_event_has_digits_in_its_audio_both_ways() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address, event_payload_type=None) as it:
            await caller.talk(100)
            await it.peer.text({"event": "sendDTMF", "dtmf": "9#"})
            for at in range(0, len(pressed), 160):
                caller.send(caller.packet(pcmu_encode(pressed[at : at + 160])))
                await trio.sleep(0.02)
            await caller.talk(300)
            packets = caller.hear()
            assert {one[1] & 0x7F for one in packets} == {0}
            heard = np.concatenate([pcmu_decode(one[12:]) for one in packets])
            assert [event.digit for event in ToneDetector().process(heard) if not event.ended] == ["9", "#"]
            assert [event.digit for event in it.events if isinstance(event, DigitReceived)] == ["4", "4", "D"]
            assert (it.counters.digits_received, it.counters.digits_sent) == (3, 2)

    pressed = np.concatenate([dtmf("44D", 60, pause_ms=60, level_dbov=-16), np.zeros(640, np.int16)])
    run(work)


def test_a_leg_without_telephone_event_refuses_digits_and_counts_them() -> None:
    async def work() -> None:
        caller = Phone(CALLER)
        async with scene(caller, remote=caller.address, event_payload_type=None, inband_digits=False) as it:
            await it.peer.text({"event": "sendDTMF", "dtmf": "12#"})
            await caller.talk(200)
            with pytest.raises(ConfigError, match="telephone-event") as caught:
                await it.call.send_digits("4711")
            assert "4711" not in str(caught.value)
            assert it.counters.digits_refused == 7
            assert it.counters.digits_sent == 0
            assert {one[1] & 0x7F for one in caller.hear()} == {0}
            caller.send(caller.packet(event(5, 800, end=True), payload_type=101))
            await trio.sleep(0.1)
            assert it.counters.digits_received == 0
            assert it.counters.packets_wrong_payload_type == 1
            it.call.hang_up()
            await it.stream.ended.wait()
            assert it.stream.record is not None
            assert it.stream.record.refused == {"digits": 1}

    run(work)


# And once in earnest


@pytest.mark.smoke
async def test_a_caller_behind_nat_in_real_time() -> None:
    announced, real = Phone(CALLER), Phone(CALLER)
    async with scene(announced, real, remote=announced.address, symmetric=True) as it:
        with trio.fail_after(10):
            while APPLICATION not in real.heard() or it.said() != [CALLER]:
                await real.talk(100)
