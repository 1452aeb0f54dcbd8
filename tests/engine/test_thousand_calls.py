"""A thousand live calls end at once: a few in each tick, all of them, and nobody beside them notices."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator

import pytest
import trio

from support.frames import TEXT, frame
from support.hand import accept_stream, assert_nothing_is_left, drain, media, new_caller
from support.program import running
from support.virtual import assert_pool_is_whole
from talkpath.engine import Call, Engine, EngineConfig, RtpLeg, StreamSpec, open_engine
from talkpath.records import EndReason
from talkpath.testing import quiescence
from talkpath.transport.clock import current_clock, has_timerfd
from talkpath.transport.pace import PACE_S, PER_TICK

pytestmark = [pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux"), pytest.mark.smoke]

N_CALLS = 1000
N_STREAMS = 500
AT_ONCE = 50
DESCRIPTORS = 4096
PATIENCE_S = 120


@pytest.fixture
def enough_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < DESCRIPTORS:
        pytest.skip(f"{limits[1]} descriptors are permitted, {DESCRIPTORS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], DESCRIPTORS), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def config(media_thread: bool) -> EngineConfig:
    return EngineConfig(
        media_thread=media_thread,
        max_busy_share=None,
        max_lateness_ms=None,
        pool_bytes=64 << 20,
        gc="leave",
        stall_s=60,
    )


async def read(sock: socket.socket, into: list[bytes]) -> None:
    """Take what comes, as it comes."""
    while True:
        into += drain(sock)
        await trio.sleep(0.02)


async def send_all(sock: socket.socket, data: bytes) -> None:
    while data:
        await trio.lowlevel.wait_writable(sock)
        data = data[sock.send(data) :]


async def place(engine: Engine, remote: tuple[str, int], url: str, task_status: trio.TaskStatus[Call]) -> None:
    leg = RtpLeg(local=("127.0.0.1", 0), remote=remote, ptime_ms=60, media_timeout_s=0)
    async with engine.open_call(leg) as call:
        if url:
            await call.start_stream(StreamSpec(url=url, message_ms=60))
        task_status.started(call)
        await call.wait_ended()


@pytest.mark.usefixtures("enough_descriptors")
@pytest.mark.parametrize(
    ("cancelled", "media_thread"), [(False, False), (True, True)], ids=["closed", "cancelled, on the media thread"]
)
async def test_an_engine_with_a_thousand_live_calls_ends_them_a_few_at_a_time(
    cancelled: bool, media_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_at: list[float] = []
    caller, listens = new_caller(), new_caller()
    audio = bytes(range(1, 201)) * 200  # five seconds
    calls: list[Call] = []
    packets: list[bytes] = []
    end = Call.end

    def noted(self: Call, reason: EndReason, cause: BaseException | None = None) -> None:
        if self.end_reason is None:
            ended_at.append(trio.current_time())
        end(self, reason, cause)

    async with running("deaf_application.py", within_s=PATIENCE_S) as deaf:
        with quiescence():
            url = f"ws://127.0.0.1:{(await deaf.wait_for('listening'))['port']}/"
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            async with (
                open_engine(config(media_thread)) as other,
                other.open_call(RtpLeg(local=("127.0.0.1", 0), remote=listens.getsockname())) as beside,
                trio.open_nursery() as nursery,
            ):
                port = listener.socket.getsockname()[1]
                spec = StreamSpec(url=f"ws://127.0.0.1:{port}/", bidirectional=True)
                nursery.start_soon(beside.start_stream, spec)
                peer = await accept_stream(listener)
                nursery.start_soon(read, peer, [])
                nursery.start_soon(read, listens, packets)
                async with (
                    trio.open_nursery() as placing,
                    open_engine(config(media_thread)) as engine,
                ):
                    limit = trio.CapacityLimiter(AT_ONCE)

                    async def begin(number: int) -> None:
                        async with limit:
                            with_stream = url if number < N_STREAMS else ""
                            calls.append(await placing.start(place, engine, caller.getsockname(), with_stream))

                    async with trio.open_nursery() as beginning:
                        for number in range(N_CALLS):
                            beginning.start_soon(begin, number)
                    assert engine.statistics().calls == N_CALLS
                    assert engine.statistics().streams == N_STREAMS
                    assert all(call.pumped for call in calls)

                    # Five seconds of audio for the call beside, heard while the others end.
                    pieces = (audio[at : at + 800] for at in range(0, len(audio), 800))
                    await send_all(peer, b"".join(frame(TEXT, media(piece)) for piece in pieces))
                    await trio.sleep(0.1)
                    monkeypatch.setattr(Call, "end", noted)
                    if cancelled:
                        placing.cancel_scope.cancel()
                monkeypatch.undo()
                assert engine.statistics().calls == 0
                assert_pool_is_whole(engine)
                assert len(ended_at) == N_CALLS
                # Of so many in a row, those in the middle had a whole tick to themselves.
                for first, last in zip(ended_at, ended_at[2 * PER_TICK :], strict=False):
                    assert last - first >= PACE_S * 0.99
                assert {call.record.reason for call in calls if call.record is not None} == {EndReason.CANCELLED}
                assert sum(len(call.record.streams) for call in calls if call.record is not None) == N_STREAMS
                clock = current_clock()
                assert clock is not None
                assert clock.driver.members() == 1

                heard = b""
                while audio not in heard:
                    heard = b"".join(packet[12:] for packet in packets)
                    await trio.sleep(0.05)
                assert set(heard.replace(audio, b"")) <= {0xFF}
                assert beside.end_reason is None
                nursery.cancel_scope.cancel()
                peer.close()
            assert_nothing_is_left(other.driver)
            await listener.aclose()
    caller.close()
    listens.close()
