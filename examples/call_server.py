"""Embedding the engine in a call server: SDP text in and out, a leg, a stream, the call's events, its record.

A call server has its own signalling; what it needs of talkpath is `answer_call`. Here the signalling is the terminal:
the caller's offer on stdin, the answer on stdout, what happens on stderr.

    python examples/call_server.py ws://127.0.0.1:8080 < offer.sdp
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

import talkpath
from talkpath.wire.sdp import LocalAudio, negotiate

if TYPE_CHECKING:
    from talkpath.engine import Engine


async def answer_call(
    engine: Engine,
    offer: str,
    stream_url: str,
    *,
    send_answer: Callable[[str], None],
    address: str = "127.0.0.1",
) -> talkpath.CallRecord:
    """Answer an offered call, hand its audio to the application at `stream_url`, and return the call's record.

    Args:
        engine: an open engine, shared by all calls.
        offer: the caller's SDP.
        stream_url: where the application listens.
        send_answer: gives our SDP to the signalling.
        address: ours, that the caller can reach.

    Raises:
        RemoteWireError: the offer has no audio that we could speak; the caller's to mend.
    """
    # What we agree on does not depend on our port, and the port is not known before the leg is open.
    agreed = negotiate(LocalAudio(address, port=9), offer)
    leg = talkpath.RtpLeg(
        local=(address, 0),
        remote=(agreed.remote_address, agreed.remote_port),
        codec=agreed.codec,
        payload_type=agreed.payload_type,
        event_payload_type=agreed.telephone_event_payload_type,
        ptime_ms=agreed.ptime_ms,
        symmetric=True,
    )
    async with engine.open_call(leg) as call:
        send_answer(negotiate(LocalAudio(*leg.local_address), offer).answer)
        spec = talkpath.StreamSpec(
            url=stream_url,
            wire="plivo",
            bidirectional=True,
            custom_parameters={"queue": "front desk"},
            # The application decides when the call is over.
            ends_call=True,
        )
        try:
            await call.start_stream(spec)
        except talkpath.CallEnded as ended:
            print(f"no application: {ended}", file=sys.stderr)
        async for event in call.events():
            print(event, file=sys.stderr)
    return await call.wait_ended()


async def main(stream_url: str) -> None:
    """Answer the one call that is offered on stdin."""
    async with talkpath.open_engine(talkpath.EngineConfig()) as engine:
        record = await answer_call(engine, sys.stdin.read(), stream_url, send_answer=print)
    print(
        f"{record.reason} after {record.duration_ms} ms, {record.statistics.packets_lost} packets lost", file=sys.stderr
    )


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
