"""A call server on all cores: the front answers, a worker process carries the call.

The front has the signalling; a worker has the audio. Here the signalling is the terminal: one caller's SDP offer on
stdin, the answer on stdout. SIGTERM lets live calls finish, a second one ends them.

    python examples/many_cores.py ws://127.0.0.1:8080 < offer.sdp
"""

from __future__ import annotations

import sys

import trio

import talkpath
from talkpath.engine import Engine, Workers
from talkpath.wire.sdp import LocalAudio, negotiate

ADDRESS = "127.0.0.1"


async def run_call(engine: Engine, placed: talkpath.Placed) -> talkpath.CallRecord:
    """Carry one call; this runs in the worker, with the worker's own engine and ports."""
    offer, stream_url = placed.parameters["offer"], placed.parameters["stream_url"]
    agreed = negotiate(LocalAudio(ADDRESS, port=9), offer)
    leg = talkpath.RtpLeg(
        local=(ADDRESS, 0),
        remote=(agreed.remote_address, agreed.remote_port),
        codec=agreed.codec,
        payload_type=agreed.payload_type,
        event_payload_type=agreed.telephone_event_payload_type,
        symmetric=True,
    )
    async with engine.open_call(leg) as call:
        # The answer names this worker by its port; with `call` the front can hang up, and a drain can end it.
        placed.ready({"answer": negotiate(LocalAudio(*leg.local_address), offer).answer}, call=call)
        await call.start_stream(talkpath.StreamSpec(url=stream_url, bidirectional=True, ends_call=True))
        return await call.wait_ended()


async def answer_call(workers: Workers, offer: str, stream_url: str) -> talkpath.EndReason:
    """Answer one call; this runs in the front."""
    placed = await workers.place({"offer": offer, "stream_url": stream_url})
    print(placed.answer["answer"], flush=True)
    record = await placed.wait_ended()
    print(f"{record.reason} after {record.duration_ms} ms in worker {record.worker}", file=sys.stderr)
    return record.reason


async def main(stream_url: str) -> None:
    """Answer the call that is offered on stdin."""
    config = talkpath.WorkersConfig(port_range=(20000, 29999))
    async with talkpath.open_workers("many_cores:run_call", config) as workers, trio.open_nursery() as nursery:
        await nursery.start(talkpath.run_until_signalled, workers, 30)
        await answer_call(workers, sys.stdin.read(), stream_url)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
