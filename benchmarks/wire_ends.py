"""What every system under test of bench_wire agrees on: its command line, its texts, its beat.

A system has one end of N WebSocket connections, sends a media message every 20 ms on each of them, hears one every
20 ms, does both or neither. At the platform's end it connects when the harness says open, as in `calls`; at the
application's end it first says ``{"port": P}`` and then serves.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.control import Peers

PHASES = 4
STREAM_ID = "00000000-0000-4000-8000-000000000000"
AUDIO = bytes(range(160))
"""20 ms of G.711, as it is before and after the wire."""
PAYLOAD = base64.b64encode(AUDIO).decode()
START = (
    '{"event":"start","sequenceNumber":1,"start":{"callId":"' + STREAM_ID + '","streamId":"' + STREAM_ID + '",'
    '"accountId":"MABENCH","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}},'
    '"extra_headers":"{}"}'
)
MEDIA = (
    '{"event":"media","sequenceNumber":12345,"streamId":"' + STREAM_ID + '","media":{"track":"inbound",'
    '"timestamp":"246880","chunk":12344,"payload":"' + PAYLOAD + '"},"extra_headers":"{}"}'
)
PLAY = '{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":"' + PAYLOAD + '"}}'


@dataclass(frozen=True, slots=True)
class Ends:
    """What one run of a system under test is to do."""

    platform: bool
    """Which end it has: the platform's, a client that masks, or the application's, a server."""
    sends: bool
    hears: bool
    driver: str | None
    """talkpath's alone: who moves media; None leaves it to talkpath."""
    library: str
    """Trio's alone: trio-websocket or websockets."""
    codec: bool
    """picows' alone: make each message from audio, and audio from each message, as ours does anyway."""

    @property
    def text(self) -> str:
        """The message that this end sends."""
        return MEDIA if self.platform else PLAY


def asked() -> Ends:
    """Read the command line."""
    options = argparse.ArgumentParser()
    options.add_argument("--end", choices=("platform", "application"), required=True)
    options.add_argument("--sends", action="store_true")
    options.add_argument("--hears", action="store_true")
    options.add_argument("--driver")
    options.add_argument("--library", choices=("trio-websocket", "websockets"), default="trio-websocket")
    options.add_argument("--codec", action="store_true")
    given = options.parse_args()
    return Ends(given.end == "platform", given.sends, given.hears, given.driver, given.library, given.codec)


def urls(peers: Peers) -> Sequence[str]:
    """Name the application's addresses that the platform's end connects to."""
    return [f"ws://127.0.0.1:{peers.ws_port}/{number}" for number, _ in enumerate(peers.rtp_ports, peers.first)]
