"""The system under test with four streams on each call, each on another wire: two are read, one stalls, one flaps.

The first is the load generator's, on Plivo's wire, two-way, as in every other measurement: what the caller hears is its
audio. The others are one-way and go to `streams_receivers`. What is lost is connected anew as long as the call lasts.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any

import trio

import talkpath
from benchmarks.control import UNAVAILABLE
from benchmarks.talkpath_server import Server, configure, main, make_parser
from talkpath.errors import ConfigError

BESIDE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("twilio", "reads", {}),
    ("signalwire", "stalls", {"track": "both_tracks"}),
    ("native", "flaps", {}),
)
RECONNECT_S = 600.0
STALL_S = 1.0
BACKOFF_S = 0.05
"""Shorter than what they are by default, so that a window of seconds sees many losses."""


class StreamsServer(Server):
    """As `Server`, with three streams more on each call."""

    receivers_port = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reconnects: dict[str, int] = {}

    def statistics(self) -> dict[str, Any]:
        """As `Server.statistics`, and how often a lost connection was made anew, of the streams that are over."""
        return super().statistics() | {"reconnects": self._reconnects}

    async def run_call(
        self,
        number: int,
        ws_port: int,
        rtp_port: int,
        hold_s: float = float("inf"),
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep one call with four streams until it is closed."""
        leg = talkpath.RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", rtp_port), codec="PCMU", ptime_ms=20)
        gone = trio.Event()
        began = time.monotonic()
        call = self._engine.open_call(leg)
        try:
            with trio.move_on_after(hold_s) as scope:
                self._live[number] = scope, gone
                async with call:
                    await call.start_stream(
                        talkpath.StreamSpec(
                            url=f"{self._scheme}://127.0.0.1:{ws_port}/{number}",
                            bidirectional=True,
                            codec="PCMU",
                            message_ms=self._message_ms,
                        )
                    )
                    for wire, kind, more in BESIDE:
                        url = f"ws://127.0.0.1:{self.receivers_port}/{kind}"
                        await call.start_stream(
                            talkpath.StreamSpec(url=url, wire=wire, name=kind, reconnect_s=RECONNECT_S, **more)
                        )
                    self._setup_s.append(time.monotonic() - began)
                    task_status.started(call.leg.local_address[1])
                    await call.wait_ended()
        finally:
            if (record := call.record) is not None:
                self.ended[record.reason.value] = self.ended.get(record.reason.value, 0) + 1
                for stream in record.streams:
                    self._reconnects[stream.name] = self._reconnects.get(stream.name, 0) + stream.reconnects
            del self._live[number]
            gone.set()


if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.add_argument("--receivers", type=int, required=True, help="port of streams_receivers")
    asked = parser.parse_args()
    try:
        wanted = configure(asked)
    except (ConfigError, TypeError) as cannot:
        print(cannot, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    StreamsServer.receivers_port = asked.receivers
    wanted = dataclasses.replace(wanted, stall_s=STALL_S, connect_backoff_s=BACKOFF_S)
    trio.run(main, wanted, "wss" if asked.wss else "ws", asked.message_ms, False, StreamsServer)
