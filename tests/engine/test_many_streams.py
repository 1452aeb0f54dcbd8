"""Several streams on one call, each on a wire of its own: what each hears, and that none is another's business."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from support.calls import engine, in_virtual_time, pool_is_whole
from support.frames import BINARY, TEXT, frame
from support.hand import Party, Steady, accept_stream, media, open_bench, options, url_of
from support.peer import Peer
from talkpath.audio import AudioClip
from talkpath.dsp import pcma_decode, pcmu_decode
from talkpath.engine import Call, MemoryLeg, StreamSpec
from talkpath.errors import ConfigError
from talkpath.events import Media, StreamStarted
from talkpath.records import EndReason
from talkpath.testing import ToneSource, quiescence
from talkpath.transport.clock import has_timerfd
from talkpath.transport.memory import listen_memory
from talkpath.wire.callback import CallbackRequest
from talkpath.wire.catalog import wire_named

CALLER_HZ, OWN_HZ = 1050, 450


class Application:
    """One application's end: a name to dial, a way to behave, and what it was told in its wire's words."""

    def __init__(self, nursery: trio.Nursery, name: str, wire: str, behaviour: str = "reads") -> None:
        self.url = f"memory://{name}"
        self.behaviour = behaviour
        self.peers: list[Peer] = []
        self._wire = wire
        self._listener = listen_memory(name)
        nursery.start_soon(self._serve, nursery)

    async def _serve(self, nursery: trio.Nursery) -> None:
        try:
            while True:
                peer = Peer(await self._listener.accept(), client=False)
                self.peers.append(peer)
                nursery.start_soon(self._serve_one, nursery, peer)
        finally:
            self._listener.close()

    async def _serve_one(self, nursery: trio.Nursery, peer: Peer) -> None:
        try:
            await peer.upgrade_as_server()
            if self.behaviour != "stalls":
                nursery.start_soon(partial(peer.read_all, pongs=self.behaviour != "dies"))
            if self.behaviour == "flaps":
                await trio.sleep(0.37)
                peer.link.close()
        except OSError:
            return

    def events(self) -> list[Any]:
        """What its first connection was told."""
        dialect = wire_named(self._wire).application(None)
        events: list[Any] = []
        for one in self.peers[0].frames:
            if one.opcode == TEXT:
                events += dialect.receive(one.payload)
            elif one.opcode == BINARY:
                events += dialect.receive_binary(one.payload)
        return events

    def heard(self, track: str) -> tuple[Any, int]:
        """The audio of a track -> (samples, rate)."""
        started = next(event for event in self.events() if isinstance(event, StreamStarted))
        name, rate = started.media_format.encoding, started.media_format.sample_rate_hz
        payload = b"".join(
            event.payload for event in self.events() if isinstance(event, Media) and event.track == track
        )
        if name == "L16":
            return np.frombuffer(payload, "<i2").astype(np.int16), rate
        return (pcmu_decode if name == "PCMU" else pcma_decode)(payload), rate


def pitch_hz(samples: Any, rate: int) -> float:
    middle = samples[len(samples) // 4 : len(samples) // 4 + rate // 2].astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(middle)))) * 2


MIXED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plivo", {"bidirectional": True, "name": "bot"}),
    ("twilio", {"name": "asr"}),
    ("signalwire", {"track": "both_tracks", "codec": "L16@16000h", "name": "record"}),
    ("native", {"track": "outbound_track", "codec": "L16@24000h", "message_ms": 60}),
)


def test_each_stream_has_its_own_wire_track_codec_name_and_callbacks() -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            applications = [Application(nursery, wire, wire) for wire, _ in MIXED]
            which = engine()
            told: list[CallbackRequest] = []
            which.deliver = lambda request, **_: told.append(request)  # type: ignore[method-assign]
            leg = MemoryLeg()
            async with which, which.open_call(leg) as call:
                for application, (wire, more) in zip(applications, MIXED, strict=True):
                    status: dict[str, Any] = {"status_url": f"https://{wire}.example/status"}
                    await call.start_stream(StreamSpec(url=application.url, wire=wire, **status, **more))
                with pytest.raises(ConfigError, match="at most 4"):
                    await call.start_stream(StreamSpec(url="memory://one-too-many"))
                leg.say(ToneSource(CALLER_HZ).take(16_000))
                await call.stop_stream()
                live = [one.spec.wire for one in call.streams if one is not None]
                assert live == ["plivo", "twilio", "signalwire"], "the youngest was stopped"
                again = await call.start_stream(StreamSpec(url=applications[3].url, wire="native", **MIXED[3][1]))
                await call.stop_stream(again.control_id)
                playing = AudioClip(ToneSource(OWN_HZ).take(12_000), 8000)
                await call.play(playing)
            assert pool_is_whole(which)
            nursery.cancel_scope.cancel()
        for application, wire, tracks, rate in (
            (applications[0], "plivo", {"inbound": CALLER_HZ}, 8000),
            (applications[1], "twilio", {"inbound": CALLER_HZ}, 8000),
            (applications[2], "signalwire", {"inbound": CALLER_HZ, "outbound": OWN_HZ}, 16_000),
        ):
            for track, hz in tracks.items():
                samples, its_rate = application.heard(track)
                assert (its_rate, pitch_hz(samples, its_rate)) == (rate, hz), (wire, track)
            silent = {"inbound", "outbound"} - set(tracks)
            for track in silent:
                assert len(application.heard(track)[0]) == 0
        hosts = [request.url.split("/")[2].partition(".")[0] for request in told]
        assert {host: hosts.count(host) for host in hosts} == {"plivo": 2, "twilio": 2, "signalwire": 2, "native": 2}
        assert call.record is not None
        assert sorted(stream.name for stream in call.record.streams) == ["", "", "asr", "bot", "record"]

    in_virtual_time(run)


def test_control_ids_are_made_where_they_are_absent_unique_among_the_live_and_free_again_after() -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            application = Application(nursery, "application", "twilio")
            async with engine() as which, which.open_call(MemoryLeg()) as call:

                async def start(control_id: str = "") -> Any:
                    spec = StreamSpec(url=application.url, wire="twilio", control_id=control_id)
                    return await call.start_stream(spec)

                made = [await start(), await start()]
                assert len({stream.control_id for stream in made}) == 2
                assert all(stream.control_id for stream in made)
                named = await start("mine")
                with pytest.raises(ConfigError, match="taken"):
                    await start("mine")
                with pytest.raises(ConfigError, match="taken"):
                    await start(made[0].control_id)
                with pytest.raises(ConfigError, match="no live stream"):
                    await call.stop_stream("nobody's")
                await call.stop_stream("mine")
                named = await start("mine")
                oldest = await start("oldest")
                await call.stop_stream(made[0].control_id)
                await call.stop_stream()
                assert oldest.end_reason is EndReason.STOPPED, "without an id the youngest"
                await call.stop_stream()
                assert named.end_reason is EndReason.STOPPED
            nursery.cancel_scope.cancel()

    in_virtual_time(run)


TROUBLE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("twilio", "stalls", {"reconnect_s": 60}),
    ("signalwire", "flaps", {"reconnect_s": 60, "track": "both_tracks"}),
    ("native", "dies", {}),
)


async def _beside(trouble: bool) -> tuple[bytes, list[Any], list[bytes]]:
    """A call of 45 s with a bot that echoes -> what the caller hears, when, and what the bot is told."""
    async with trio.open_nursery() as nursery:
        good = Application(nursery, "good", "plivo")
        which = engine()
        leg = MemoryLeg()
        arrived: list[Any] = []
        async with which, which.open_call(leg) as call:
            first = await call.start_stream(StreamSpec(url=good.url, bidirectional=True))
            peer = good.peers[0]

            async def talk() -> None:
                for _ in range(2000):
                    await peer.send(frame(TEXT, media(bytes([next(levels) % 256]) * 160)))
                    await trio.sleep(0.02)

            levels = iter(range(10_000))
            for wire, behaviour, more in TROUBLE if trouble else ():
                other = Application(nursery, behaviour, wire, behaviour)
                await call.start_stream(StreamSpec(url=other.url, wire=wire, **more))
            # Both runs go on from here at one moment of their clocks.
            await trio.sleep_until(1)
            nursery.start_soon(talk)
            leg.say(ToneSource(CALLER_HZ).take(8000 * 40))
            await trio.sleep_until(45)
            assert first.end_reason is None
            heard = leg.heard().tobytes()
            if trouble:
                reasons = {stream.name or stream.wire: stream.reason for stream in call._records}
                assert reasons == {"native": EndReason.PEER_VANISHED}
                assert sum(one is not None for one in call.streams) == 3
        arrived = [round(at, 6) for at in peer.arrived]
        assert pool_is_whole(which)
        assert call.record is not None
        if trouble:
            by_wire = {stream.wire: stream for stream in call.record.streams}
            assert by_wire["twilio"].reconnects >= 2
            assert by_wire["signalwire"].reconnects >= 4
            assert by_wire["twilio"].media_dropped > 0
        nursery.cancel_scope.cancel()
    return heard, arrived, [one.payload for one in peer.frames]


def test_receivers_that_stall_flap_or_die_change_no_sample_and_no_moment_of_the_others() -> None:
    alone = in_virtual_time(_beside, False)
    among = in_virtual_time(_beside, True)
    assert len(alone[0]) == 2 * 8000 * 45
    assert among[0] == alone[0], "the caller hears the same"
    assert among[1] == alone[1], "the bot is told at the same moments"
    assert among[2] == alone[2], "the same, to the byte"


@pytest.mark.skipif(not has_timerfd(), reason="the pump needs Linux")
@pytest.mark.parametrize("driver", ["pump", "tasks"])
def test_over_real_sockets_too(driver: str) -> None:
    async def play(trouble: bool) -> tuple[list[Any], list[Any]]:
        async with open_bench(options(driver=driver, stall_s=0.1), beside=False) as bench:
            party: Party = await bench.call()
            steady = Steady(3)
            party.caller_says, party.application_says = steady.caller, steady.application
            held = []
            call: Call = party.call
            for wire, _, more in TROUBLE if trouble else ():
                spec = StreamSpec(url=url_of(bench.listener), wire=wire, **more)
                bench.nursery.start_soon(call.start_stream, spec)
                held.append(await accept_stream(bench.listener))
            await bench.until(lambda: sum(one is not None and one._live for one in call.streams) == len(held) + 1)
            await bench.steps(200)
            for sock in held[1:]:
                sock.close()
            await bench.steps(600)
            for sock in held:
                sock.close()
            got = party.datagrams, party.messages
            assert party.stream is not None
            assert party.stream.end_reason is None
            await party.leave()
            return [(step, packet[12:]) for step, packet in got[0]], [(step, len(data)) for step, data in got[1]]

    def run(trouble: bool) -> Any:
        with quiescence():
            return trio.run(play, trouble)

    alone = run(False)
    assert len(alone[0]) == 200
    assert run(True) == alone
