"""An application of another wire that misbehaves ends its own stream, with the reason recorded, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support.calls import assert_nobody_else_noticed, place
from support.frames import BINARY, TEXT, frame
from support.peer import Peer
from talkpath.records import EndReason
from talkpath.transport.refusals import MAX_UNREADABLE

each_wire = pytest.mark.parametrize("wire", ["twilio", "signalwire", "teler"])


def audio(wire: str, n_bytes: int) -> dict[str, Any]:
    payload = base64.b64encode(b"\x11" * n_bytes).decode()
    if wire == "teler":
        return {"type": "audio", "audio_b64": payload, "chunk_id": 1}
    return {"event": "media", "media": {"payload": payload}}


@each_wire
@pytest.mark.parametrize("garbage", ["hello", "[]", "{}", "\x00", '{"event":"media"}', '{"type":"audio"}'])
def test_garbage_is_counted_and_ends_the_stream_when_there_is_nothing_else(wire: str, garbage: str) -> None:
    async def babble(peer: Peer) -> None:
        for _ in range(MAX_UNREADABLE + 1):
            await peer.text(garbage)

    outcome = place(babble, wire=wire)
    assert list(outcome.stream.refused.values()) == [MAX_UNREADABLE + 1]
    assert outcome.stream.reason is EndReason.WIRE_ERROR
    assert outcome.peer.close_code == 1002
    assert_nobody_else_noticed(outcome)


@each_wire
def test_a_binary_message_is_refused_and_the_stream_lives_on(wire: str) -> None:
    async def mistake(peer: Peer) -> None:
        await peer.send(frame(BINARY, b"\0\1\2"))
        await peer.text(audio(wire, 1600))

    outcome = place(mistake, wire=wire)
    assert outcome.stream.refused == {"binary": 1}
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.heard.any()
    assert_nobody_else_noticed(outcome)


@each_wire
def test_a_flood_of_audio_is_kept_to_the_bound(wire: str) -> None:
    async def flood(peer: Peer) -> None:
        for _ in range(200):
            await peer.text(audio(wire, 16_000))

    outcome = place(flood, wire=wire, playout_s=5)
    assert outcome.stream.reason is EndReason.PLATFORM_HUNG_UP
    assert outcome.stream.dropped_ms > 100_000
    assert outcome.stream.messages_received >= 200
    assert_nobody_else_noticed(outcome)


@each_wire
@pytest.mark.parametrize("whole_frame", [False, True])
def test_one_that_dies_in_the_middle_of_a_message_has_vanished(wire: str, whole_frame: bool) -> None:
    async def die(peer: Peer) -> None:
        first = frame(TEXT, json.dumps(audio(wire, 160)).encode()[:50], fin=False)
        await peer.send(first if whole_frame else first[:-10])
        peer.link.close()

    outcome = place(die, wire=wire)
    assert outcome.stream.reason is EndReason.PEER_VANISHED
    assert not outcome.heard.any()
    assert_nobody_else_noticed(outcome)


@each_wire
def test_one_that_never_reads_is_given_up_after_the_stall(wire: str) -> None:
    async def talk_on(peer: Peer) -> None:
        await peer.text(audio(wire, 16_000))

    outcome = place(talk_on, wire=wire, reads=False, seconds=14)
    assert outcome.stream.reason is EndReason.PEER_STALLED
    assert outcome.ended_at is not None
    assert 6 < outcome.ended_at < 13, "what the link holds, and five seconds"
    assert outcome.heard.any()
    assert_nobody_else_noticed(outcome, 14)


@each_wire
def test_a_call_may_go_with_its_stream(wire: str) -> None:
    async def leave(peer: Peer) -> None:
        peer.link.close()

    outcome = place(leave, wire=wire, ends_call=True)
    assert outcome.call is not None
    assert outcome.call.reason is EndReason.PEER_VANISHED
    assert_nobody_else_noticed(outcome)
