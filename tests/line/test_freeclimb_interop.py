"""FreeClimb's wire with grpcio and the stubs it makes of our definition: its server as FreeClimb's samples are written,
its client as FreeClimb itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
import trio

from support import freeclimb_protoc as protoc
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec, open_engine
from talkpath.line import Line, serve_lines
from talkpath.records import EndReason, Outcome
from talkpath.testing import ToneSource, assert_quiescent, find_tones

grpc = pytest.importorskip("grpc")
pytest.importorskip("grpc_tools")
pytestmark = pytest.mark.smoke


class Sample:
    """An application as FreeClimb's samples are: each packet goes back as it came, until the platform ends."""

    def __init__(self) -> None:
        self.began: list[Any] = []
        self.ended: list[Any] = []
        self.replies: list[str] = []
        self.pool = futures.ThreadPoolExecutor(max_workers=4)
        self.server = grpc.server(self.pool)
        outer = self

        class Service(protoc.stubs().GRPCStreamServiceServicer):  # type: ignore[misc]
            def SendIVRData(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's name
                for message in requests:
                    which = message.WhichOneof("payload")
                    if which == "notify_call_started":
                        outer.began.append(message.notify_call_started)
                    elif which == "notify_audio_data":
                        heard = message.notify_audio_data
                        yield protoc.app(
                            audio_data={
                                "id": "testing",
                                "audio_data": heard.audio_data,
                                "content_type": "audio/mulaw;rate=8000",
                                "sequence_num": heard.sequence_num,
                            }
                        )
                    elif which == "notify_call_ended":
                        outer.ended.append(message.notify_call_ended)
                    else:
                        outer.replies.append(which)

        protoc.stubs().add_GRPCStreamServiceServicer_to_server(Service(), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Sample:
        self.server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.stop(0).wait()
        self.pool.shutdown()


@pytest.mark.parametrize("driver", ["tasks", "pump"])
async def test_an_application_as_freeclimbs_samples_are(driver: Any) -> None:
    with Sample() as app, trio.fail_after(20):
        leg = MemoryLeg()
        async with open_engine(EngineConfig(driver=driver)) as engine, engine.open_call(leg) as call:
            await call.start_stream(
                StreamSpec(
                    url=f"grpc://127.0.0.1:{app.port}",
                    wire="freeclimb",
                    bidirectional=True,
                    custom_parameters={"tier": "gold"},
                )
            )
            leg.say(ToneSource(450).take(8000))
            await trio.sleep(1.4)
            leg.hang_up()
            record = await call.wait_ended()
        while not app.ended:  # noqa: ASYNC110 - what a thread does
            await trio.sleep(0.01)
    (span,) = find_tones(leg.heard(), 8000, [450])
    assert span.to_sample - span.from_sample > 7000
    assert (app.began[0].call_id, list(app.began[0].metadata)) == (record.call_id, ["tier=gold"])
    assert app.ended[0].ReasonCode.Name(app.ended[0].reason_code) == "CALLER_DISCONNECT"
    assert app.replies == ["notify_playback_started_data"]
    assert record.streams[0].refused == {}


class FreeClimb:
    """A call of FreeClimb's, in a thread: grpcio's client."""

    def __init__(self, channel: Any, call_id: str) -> None:
        self._to_send: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.heard: list[Any] = []
        self.over = threading.Event()
        self._replies = protoc.stubs().GRPCStreamServiceStub(channel).SendIVRData(iter(self._to_send.get, None))
        self.code: Any = None
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.send(
            notify_call_started={
                "call_id": call_id,
                "from": "+15550001",
                "to": "+15550002",
                "is_inbound": True,
                "metadata": ["tenant-7"],
                "content_type": "audio/mulaw;rate=8000",
            }
        )

    def _read(self) -> None:
        try:
            for message in self._replies:
                self.heard.append(message)
        except grpc.RpcError:
            pass
        self.code = self._replies.code()
        self.over.set()

    def send(self, **payload: Any) -> None:
        self._to_send.put(protoc.platform(**payload))

    def hang_up(self) -> None:
        self.send(notify_call_ended={"reason_code": "CALLER_DISCONNECT"})
        self._to_send.put(None)

    def wait_over(self) -> None:
        assert self.over.wait(10)
        self._reader.join()

    def audio(self) -> bytes:
        return b"".join(message.audio_data.audio_data for message in self.heard)


async def test_freeclimb_as_grpcio_plays_it_and_our_line() -> None:
    seen: list[Any] = []

    async def bot(line: Line) -> None:
        mark = line.checkpoint("at once")
        pressed = line.digits()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, line)
            seen.append(await pressed.__anext__())
            seen.append((await mark.wait()).outcome)
            seen.append(await line.wait_ended())
            nursery.cancel_scope.cancel()
        seen.append((line.info.call_id, line.info.from_number, dict(line.info.custom_parameters)))

    async def echo(line: Line) -> None:
        async for chunk in line.listen(chunk_ms=20):
            line.speak(chunk)

    def play(port: int) -> FreeClimb:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = FreeClimb(channel, "call-1")
            for number in range(25):
                call.send(notify_audio_data={"audio_data": bytes([number]) * 160, "sequence_num": number})
                time.sleep(0.02)
            ident = next(one.audio_data.id for one in call.heard if one.audio_data.last_message)
            call.send(notify_playback_completed_data={"id": ident})
            call.send(notify_dtmf_received_start_data={"digit": "5"})
            call.send(notify_dtmf_received_end_data={"digit": "5"})
            time.sleep(0.1)
            call.hang_up()
            call.wait_over()
            return call

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ((_, port),) = await nursery.start(serve_lines, bot, "127.0.0.1", 0)
            call = await trio.to_thread.run_sync(play, port)
            nursery.cancel_scope.cancel()
    assert_quiescent()  # of ours: what grpcio keeps open for itself is not
    assert seen == ["5", Outcome.PLAYED, EndReason.CALLER_HUNG_UP, ("call-1", "+15550001", {"0": "tenant-7"})]
    assert call.code is grpc.StatusCode.OK
    said = call.audio()
    assert len(said) >= 20 * 160
    assert said in b"".join(bytes([number]) * 160 for number in range(25))  # the bot may hear the first too late


async def test_a_hundred_calls_on_one_connection() -> None:
    live: list[int] = [0, 0]

    async def bot(line: Line) -> None:
        live[0] += 1
        live[1] = max(live)
        await line.digits().__anext__()
        await line.hang_up()
        live[0] -= 1

    def play(port: int) -> list[FreeClimb]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = [FreeClimb(channel, f"call-{number}") for number in range(100)]
            deadline = time.monotonic() + 10
            while live[0] < 100 and time.monotonic() < deadline:
                time.sleep(0.01)
            for call in calls:
                call.send(notify_dtmf_received_start_data={"digit": "1"})
            for call in calls:
                call.wait_over()
                call._to_send.put(None)
            return calls

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ((_, port),) = await nursery.start(serve_lines, bot, "127.0.0.1", 0)
            calls = await trio.to_thread.run_sync(play, port)
            nursery.cancel_scope.cancel()
    assert_quiescent()  # of ours: what grpcio keeps open for itself is not
    assert live[1] == 100
    assert {call.code for call in calls} == {grpc.StatusCode.OK}
    assert all(call.heard[-1].WhichOneof("payload") == "terminate_call" for call in calls)
