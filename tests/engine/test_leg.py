"""Whose packets are the caller's: sockets of our own in the parts of the caller and of everybody else."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio

from support.virtual import virtual_engine
from talkpath.engine.call import Call
from talkpath.engine.rtp_leg import RtpLeg
from talkpath.errors import ConfigError


class Phone:
    """A socket that sends RTP, one packet a ptime, and hears what comes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.address: Any = self.socket.getsockname()[:2]
        self.seq = 0

    async def send(self, call: Call, n: int) -> None:
        """Send `n` packets, 20 ms apart, and let the engine read the last."""
        for _ in range(n):
            header = struct.pack(">BBHII", 0x80, 0, self.seq, 160 * self.seq, self.address[1])
            self.socket.sendto(header + b"\x55" * 160, call.leg.local_address)
            self.seq += 1
            await trio.sleep(0.02)
        await trio.sleep(0.02)

    def is_heard_from(self) -> bool:
        """Whether the engine has sent anything here since last asked."""
        n = 0
        while True:
            try:
                self.socket.recv(2048)
            except BlockingIOError:
                return n > 0
            n += 1


@pytest.fixture
def phones() -> Iterator[list[Phone]]:
    with ExitStack() as stack:
        made = [Phone() for _ in range(3)]
        for phone in made:
            stack.enter_context(phone.socket)
        yield made


def counts(call: Call) -> tuple[int, int]:
    statistics = call.statistics()
    return statistics.packets_received, statistics.packets_refused


@pytest.mark.parametrize("symmetric", [False, True])
async def test_the_configured_address_is_trusted_from_its_first_packet(
    autojump: object, phones: list[Phone], symmetric: bool
) -> None:
    leg = RtpLeg(local=("127.0.0.1", 0), remote=phones[0].address, symmetric=symmetric)
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        await phones[0].send(call, 1)
        assert counts(call) == (1, 0)
        await phones[0].send(call, 9)
        assert counts(call) == (10, 0)
        assert leg.source == phones[0].address
        leg.update(remote=phones[1].address)
        await trio.sleep(0.02)
        assert leg.source == phones[1].address
        await phones[1].send(call, 2)
        assert counts(call) == (12, 0)
        await phones[0].send(call, 2)
        assert counts(call) == (12, 2)


async def test_another_port_is_learned_while_the_configured_one_is_silent(
    autojump: object, phones: list[Phone]
) -> None:
    configured, behind_nat, late = phones
    leg = RtpLeg(local=("127.0.0.1", 0), remote=configured.address, symmetric=True)
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        await behind_nat.send(call, 2)
        assert counts(call) == (0, 2)
        assert leg.source == configured.address
        await behind_nat.send(call, 3)
        assert counts(call) == (3, 2), "the third packet in a row makes it the caller's, and is heard"
        assert leg.source == behind_nat.address
        for phone in phones:
            phone.is_heard_from()
        await trio.sleep(0.1)
        assert [phone.is_heard_from() for phone in phones] == [False, True, False]
        await late.send(call, 5)
        assert counts(call) == (3, 7), "the learned one was heard a moment ago"
        await trio.sleep(1)
        await late.send(call, 5)
        assert leg.source == late.address
        leg.update(remote=configured.address)
        await trio.sleep(0.02)
        await configured.send(call, 1)
        assert call.statistics().packets_received == 7


async def test_a_heard_caller_is_not_displaced_by_another_port(autojump: object, phones: list[Phone]) -> None:
    leg = RtpLeg(local=("127.0.0.1", 0), remote=phones[0].address, symmetric=True)
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        for _ in range(10):
            await phones[0].send(call, 1)
            await phones[1].send(call, 5)
        assert leg.source == phones[0].address
        assert counts(call) == (10, 50)


async def test_any_source_is_learned_even_if_one_is_configured(autojump: object, phones: list[Phone]) -> None:
    leg = RtpLeg(local=("127.0.0.1", 0), remote=phones[0].address, symmetric="any")
    async with virtual_engine() as engine, engine.open_call(leg) as call:
        assert leg.source is None
        await phones[1].send(call, 4)
        assert leg.source == phones[1].address
        assert counts(call) == (2, 2)


async def test_an_address_is_the_same_however_it_is_written(autojump: object) -> None:
    try:
        phone = Phone("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    remote: Any = ["0:0:0:0:0:0:0:0001", phone.address[1]]
    leg = RtpLeg(local=("::1", 0), remote=remote)
    with phone.socket:
        async with virtual_engine() as engine, engine.open_call(leg) as call:
            await phone.send(call, 3)
            assert counts(call) == (3, 0)


@pytest.mark.parametrize(
    "remote", ["127.0.0.1", ("127.0.0.1",), ("phone.example", 4000), ("127.0.0.1", 0), ("127.0.0.1", "4000")]
)
def test_an_address_that_is_none_is_refused(remote: Any) -> None:
    with pytest.raises(ConfigError, match="remote"):
        RtpLeg(remote=remote)
