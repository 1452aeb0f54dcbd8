"""What a connection speaks: by its first bytes, its path, its messages; and gRPC, where each call is a line."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from support.calls import engine, in_virtual_time
from support.peer import connect
from support.served import knock, reasons, served, served_on_sockets
from talkpath.engine import EngineConfig, MemoryLeg, StreamSpec
from talkpath.errors import CallEnded, ConfigError, RemoteWireError
from talkpath.events import MediaFormat, StreamStarted
from talkpath.line import Access, Line, ServeConfig, connect_line, serve_lines
from talkpath.line.arrival import wire_at
from talkpath.line.opening import FirstBytes, first_bytes_say, wires_on
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.transport.grpc import GrpcCarriage, open_grpc, parse_grpc_url
from talkpath.transport.tls import client_context, server_context
from talkpath.wire.dialect import Role
from talkpath.wire.freeclimb import FreeClimbDialect
from talkpath.wire.freeclimb_messages import METHOD
from talkpath.wire.grpc import Status

TOKEN = "token-4f6d2a9c"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NUMBER = "+15550001111"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PREFACE, FirstBytes.GRPC),
        (b"GET / HTTP/1.1\r\n", FirstBytes.HTTP),
        (b"POST / HTTP/1.1\r\n", FirstBytes.HTTP),
        (b"PRI * HTTP/1.1\r\n", FirstBytes.HTTP),
        (b"\x01\x00\x10" + bytes(16), FirstBytes.AUDIOSOCKET),
        (b"\x01\x00\x02", FirstBytes.HTTP),
        (b"\x16\x03\x01\x02", FirstBytes.HTTP),
        (b"\x00", FirstBytes.HTTP),
    ],
)
def test_the_first_bytes_say_what_is_spoken_however_they_are_cut(data: bytes, kind: FirstBytes) -> None:
    said = [first_bytes_say(data[:n]) for n in range(len(data) + 1)]
    assert said[0] is None
    assert said[-1] is kind
    decided = next(n for n, one in enumerate(said) if one is not None)
    assert set(said[:decided]) == {None}
    assert set(said[decided:]) == {kind}


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/plivo", "plivo"),
        ("/plivo/", "plivo"),
        ("/plivo/a/b", "plivo"),
        ("/plivo/a/t/x", "twilio"),
        ("/plivots", None),
        ("/", None),
        ("/n", "native"),
    ],
)
def test_the_longest_prefix_of_a_path_names_the_wire(path: str, wire: str | None) -> None:
    by_path = {"/plivo": "plivo", "/plivo/a/t/": "twilio", "/n/": "native"}
    assert wire_at(by_path, path) == wire
    assert wire_at({**by_path, "/": "teler"}, path) == (wire or "teler")


def test_a_wire_below_a_path_is_spoken_there_and_any_elsewhere() -> None:
    async def scene() -> None:
        config = ServeConfig(wire_by_path={"/t": "twilio", "/p": "plivo"})
        async with served(config) as server:
            for path, code in (("/t/x", 1008), ("/p?a=b", None), ("/", None)):
                _, peer = await knock(path)
                assert peer.close_code == code, path
                peer.link.close()
            assert [line.info.path for line in server.lines] == ["/p?a=b", "/"]

    in_virtual_time(scene)


def test_what_is_not_served_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scene() -> None:
        async with served() as server:
            peer = connect("bot")
            await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            assert (await peer.read_head()).startswith("HTTP/1.1 400 ")
            assert "begins TLS, and there is no tls_context" in caplog.text
            peer.link.close()
            assert server.lines == []
        async with served(wire="freeclimb"):
            assert (await knock())[0] == "404"
        async with served(wire="plivo") as server:
            peer = connect("bot")
            await peer.send(b"\x01\x00\x10" + bytes(16))
            assert await peer.read() is None
            assert "an AudioSocket, which is not served here" in caplog.text
            assert await status_of(start_message()) is Status.UNIMPLEMENTED
            assert server.lines == []
        async with served():
            with pytest.raises(ConfigError, match="does not travel on a WebSocket"):
                async with connect_line("memory://bot", wire="freeclimb"):
                    pytest.fail("there is no line")

    in_virtual_time(scene)


# gRPC


async def dial(*metadata: tuple[str, str], method: str = METHOD) -> GrpcCarriage:
    return await open_grpc(parse_grpc_url("memory://bot"), method, metadata=metadata)


def start_message(parameters: dict[str, str] | None = None, call_id: str = "CA1") -> bytes:
    dialect = FreeClimbDialect(Role.PLATFORM, media_format=MediaFormat("PCMU", 8000))
    (message,) = dialect.send(
        StreamStarted(
            stream_id="s",
            call_id=call_id,
            account_id="",
            tracks=("inbound",),
            media_format=MediaFormat("PCMU", 8000),
            custom_parameters=parameters or {},
            from_number=NUMBER,
            to_number="+15550002222",
            direction="inbound",
        )
    )
    return message


async def status_of(message: bytes | None, *metadata: tuple[str, str], method: str = METHOD) -> Status:
    """Make a call, with a first message if there is one; return the status that it ends with."""
    carriage: GrpcCarriage | None = None
    try:
        carriage = await dial(*metadata, method=method)
        if message is not None:
            await carriage.send_message(message)
        while await carriage.receive_message() is not None:
            pass
    except RemoteWireError as exc:
        return Status(int(exc.kind.removeprefix("status_")))
    finally:
        if carriage is not None:
            carriage.close()
    return Status.OK


def test_a_call_is_a_line_whose_platform_says_who_calls_whom() -> None:
    async def scene() -> None:
        async with served() as server:
            calls = [await dial(), await dial()]
            for number, carriage in enumerate(calls):
                await carriage.send_message(start_message({"key": TOKEN}, f"CA{number}"))
            await trio.sleep(0.1)
            assert [line.info.call_id for line in server.lines] == ["CA0", "CA1"]
            info = server.lines[0].info
            assert (info.wire, info.path, info.direction) == ("freeclimb", METHOD, "inbound")
            assert (info.from_number, info.to_number) == (NUMBER, "+15550002222")
            assert info.custom_parameters == {"key": TOKEN}
            assert NUMBER not in repr(info)
            assert TOKEN not in repr(info)
            for carriage in calls:
                carriage.close()
            await trio.sleep(1)
            assert reasons(server.records) == [EndReason.PEER_VANISHED] * 2

    in_virtual_time(scene)


def test_an_engine_and_a_bot_talk_over_grpc_with_each_others_voice() -> None:
    async def answer(line: Line) -> None:
        line.speak(ToneSource(450).take(1600), sample_rate_hz=8000)
        async for chunk in line.listen():
            line.speak(chunk)

    async def scene() -> None:
        async with served(bot=answer) as server, engine() as which:
            leg = MemoryLeg()
            async with which.open_call(leg) as call:
                spec = StreamSpec(url="memory://bot", wire="freeclimb", bidirectional=True)
                await call.start_stream(spec)
                leg.say(ToneSource(1050).take(8000))
                await trio.sleep(2)
            assert {span.hz for span in find_tones(leg.heard(), 8000, [450, 1050])} == {450, 1050}
            await trio.sleep(1)
            assert reasons(server.records) == [EndReason.PLATFORM_HUNG_UP]

    in_virtual_time(scene)


def test_how_a_line_ended_is_its_calls_status() -> None:
    async def leave(line: Line) -> None:
        await trio.sleep(0.1)

    async def fail(line: Line) -> None:
        raise RuntimeError("the bot's own")

    async def ended(bot: Callable[[Line], Awaitable[None]]) -> tuple[Status, list[EndReason]]:
        async with served(bot=bot) as server:
            status = await status_of(start_message())
            await trio.sleep(1)
            return status, reasons(server.records)

    async def scene() -> None:
        assert await ended(leave) == (Status.OK, [EndReason.APPLICATION_HUNG_UP])
        assert await ended(fail) == (Status.INTERNAL, [EndReason.APPLICATION_FAILED])
        statuses: list[Status] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                statuses.append(await status_of(start_message()))

            async with served() as server:
                nursery.start_soon(call)
                await trio.sleep(1)
        assert statuses == [Status.UNAVAILABLE]
        assert reasons(server.records) == [EndReason.CANCELLED]

    in_virtual_time(scene)


def test_a_call_that_opens_as_none_does_is_refused_and_says_so() -> None:
    async def scene() -> None:
        async with served() as server:
            assert await status_of(b"\xff\xff\xff") is Status.INVALID_ARGUMENT
            assert await status_of(None, method="/freeclimb.GRPCStreamService/Other") is Status.UNIMPLEMENTED
            begun = trio.current_time()
            assert await status_of(None) is Status.DEADLINE_EXCEEDED
            assert trio.current_time() == begun + 10
            assert server.lines == []
            assert server.server.lines == 0

    in_virtual_time(scene)


def test_no_room_is_unavailable() -> None:
    async def scene() -> None:
        async with served(ServeConfig(max_lines=1)) as server:
            first = await dial()
            await first.send_message(start_message())
            await trio.sleep(0.1)
            assert await status_of(start_message()) is Status.UNAVAILABLE
            assert server.server.statistics().refused == {"lines": 1}
            first.close()
            await trio.sleep(1)
            again = await dial()
            await again.send_message(start_message())
            await trio.sleep(0.1)
            assert len(server.lines) == 2
            again.close()

    in_virtual_time(scene)


REFUSED: list[tuple[Access, tuple[tuple[str, str], ...], dict[str, str], Status]] = [
    (Access(bearer_tokens=(TOKEN,)), (), {}, Status.UNAUTHENTICATED),
    (Access(bearer_tokens=(TOKEN,)), (("authorization", "Bearer wrong"),), {}, Status.UNAUTHENTICATED),
    (Access(plivo_auth_token=TOKEN), (), {}, Status.PERMISSION_DENIED),
    (Access(url_tokens=(TOKEN,)), (), {}, Status.PERMISSION_DENIED),
    (Access(parameter_token=("key", TOKEN)), (), {"key": "wrong"}, Status.PERMISSION_DENIED),
    (Access(bearer_tokens=(TOKEN,), wires=("plivo",)), (("authorization", f"Bearer {TOKEN}"),), {}, Status(16)),
]


@pytest.mark.parametrize(("access", "metadata", "parameters", "status"), REFUSED)
def test_a_call_that_shows_too_little_is_refused_before_the_bot_hears_of_it(
    access: Access, metadata: tuple[tuple[str, str], ...], parameters: dict[str, str], status: Status
) -> None:
    async def scene() -> None:
        async with served(ServeConfig(access=access)) as server:
            assert await status_of(start_message(parameters), *metadata) is status
            assert server.lines == []
            assert server.server.statistics().refused == {"access": 1}

    in_virtual_time(scene)


@pytest.mark.parametrize(
    ("access", "metadata", "parameters"),
    [
        (Access(bearer_tokens=(TOKEN,)), (("authorization", f"Bearer {TOKEN}"),), {}),
        (Access(parameter_token=("key", TOKEN)), (), {"key": TOKEN}),
        (
            Access(parameter_token=("key", TOKEN), bearer_tokens=(TOKEN,), wires=("freeclimb",)),
            (("authorization", f"bearer {TOKEN}"),),
            {"key": TOKEN},
        ),
    ],
)
def test_a_call_that_shows_what_is_asked_for_is_let_in(
    access: Access, metadata: tuple[tuple[str, str], ...], parameters: dict[str, str]
) -> None:
    async def scene() -> None:
        async with served(ServeConfig(access=access)) as server:
            carriage = await dial(*metadata)
            await carriage.send_message(start_message(parameters))
            await trio.sleep(0.1)
            assert len(server.lines) == 1
            carriage.close()

    in_virtual_time(scene)


@pytest.mark.parametrize("dribbles", [False, True])
def test_a_connection_that_makes_no_call_is_hung_up_on(dribbles: bool) -> None:
    async def scene() -> None:
        async with served(ServeConfig(handshake_s=10)) as server, trio.open_nursery() as nursery:
            peer = connect("bot")
            if dribbles:
                for byte in PREFACE[:8]:
                    await peer.send(bytes([byte]))
                    await trio.sleep(1)
            await peer.send(PREFACE[8 if dribbles else 0 :] + b"\0\0\0\4\0\0\0\0\0")
            nursery.start_soon(peer._fill)
            begun = trio.current_time()
            while not peer.link._eof:  # type: ignore[attr-defined] # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.1)
            assert trio.current_time() - begun <= 11
            peer.link.close()
            assert server.lines == []

    in_virtual_time(scene)


def test_lines_of_every_wire_are_recognised_at_one_address() -> None:
    async def scene() -> None:
        async with served() as server, engine() as which:
            names = [*wires_on("websocket"), *wires_on("grpc"), *wires_on("audiosocket")]
            async with which.open_call(MemoryLeg()) as call:
                for name in random.Random(1).sample(names, len(names)):
                    await call.start_stream(StreamSpec(url="memory://bot", wire=name))
                    await trio.sleep(0.5)
                    await call.stop_stream()
                    assert server.lines[-1].info.wire == name
            assert len(server.lines) == len(names)

    in_virtual_time(scene)


# AudioSocket

UUID = b"\x01\x00\x10" + bytes(range(16))
SILENCE = b"\x10\x01\x40" + bytes(320)


@pytest.mark.parametrize(
    ("config", "opened"),
    [
        (ServeConfig(), True),
        (ServeConfig(access=Access(networks=("192.0.2.0/24",))), False),
        (ServeConfig(access=Access(bearer_tokens=(TOKEN,))), False),
        (ServeConfig(access=Access(parameter_token=("key", TOKEN))), False),
    ],
)
def test_an_audiosocket_is_a_line_or_is_told_to_terminate(config: ServeConfig, opened: bool) -> None:
    async def scene() -> None:
        async with served(config) as server:
            peer = connect("bot")
            for byte in UUID + SILENCE:
                await peer.send(bytes([byte]))
            await trio.sleep(1)
            assert [line.info.wire for line in server.lines] == ["audiosocket"] * opened
            assert server.server.statistics().refused == ({} if opened else {"access": 1})
            if not opened:
                await peer._fill()
                assert bytes(peer._unread) == b"\0\0\0"
                assert server.server.lines == 0
            peer.link.close()
            await trio.sleep(1)

    in_virtual_time(scene)


def test_an_audiosocket_too_many_is_told_to_terminate() -> None:
    async def scene() -> None:
        async with served(ServeConfig(max_lines=1)) as server:
            peers = [connect("bot"), connect("bot")]
            for peer in peers:
                await peer.send(UUID + SILENCE)
                await trio.sleep(1)
            assert len(server.lines) == 1
            await peers[1]._fill()
            assert bytes(peers[1]._unread) == b"\0\0\0"
            assert server.server.statistics().refused == {"lines": 1}
            for peer in peers:
                peer.link.close()

    in_virtual_time(scene)


# On sockets


async def talk(port: int, wire: str, scheme: str, context: Any = None) -> None:
    """Have an engine place a call and open a stream."""
    host = "localhost" if context is not None else "127.0.0.1"
    settings = EngineConfig(tls_context=context, connect_attempts=1, max_busy_share=None, max_lateness_ms=None)
    async with engine(settings) as which, which.open_call(MemoryLeg()) as call:
        await call.start_stream(StreamSpec(url=f"{scheme}://{host}:{port}", wire=wire, bidirectional=True))
        await trio.sleep(0.1)
        await call.stop_stream()


@pytest.mark.smoke
async def test_both_ports_speak_all() -> None:
    with quiescence():
        config = ServeConfig(max_busy_share=None, max_lateness_ms=None)
        async with served_on_sockets(config, grpc_port=0) as server:
            (_, port), (_, grpc_port) = server.addresses
            assert port != grpc_port
            for which in (port, grpc_port):
                await talk(which, "plivo", "ws")
                await talk(which, "freeclimb", "http")
        assert [line.info.wire for line in server.lines] == ["plivo", "freeclimb"] * 2


@pytest.mark.smoke
async def test_both_transports_agree_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    config = ServeConfig(tls_context=server_context(tmp_path / "server.pem"), max_busy_share=None, max_lateness_ms=None)
    with quiescence():
        async with served_on_sockets(config) as server:
            ((_, port), *_) = server.addresses
            context = client_context(ca_file=tmp_path / "ca.pem")
            await talk(port, "plivo", "wss", context)
            await talk(port, "freeclimb", "https", context)
        assert [line.info.wire for line in server.lines] == ["plivo", "freeclimb"]


@pytest.mark.smoke
async def test_a_second_port_that_is_taken_is_said_and_leaves_nothing() -> None:
    with quiescence():
        async with served_on_sockets() as server:
            with pytest.raises(OSError, match="in use"):
                await serve_lines(server.stay, "127.0.0.1", 0, grpc_port=server.addresses[0][1])


# What the platform's end shows, the application's end asks for


@pytest.mark.parametrize(
    ("wire", "shows", "access"),
    [
        ("plivo", {"auth_token": TOKEN}, Access(plivo_auth_token=TOKEN)),
        ("twilio", {"auth_token": TOKEN}, Access(twilio_auth_token=TOKEN)),
        ("signalwire", {"authorization_bearer_token": TOKEN}, Access(bearer_tokens=(TOKEN,))),
        ("teler", {"url": f"memory://bot/audio?key={TOKEN}"}, Access(url_tokens=(TOKEN,))),
        ("freeclimb", {"custom_parameters": {"key": TOKEN}}, Access(parameter_token=("key", TOKEN))),
        ("freeclimb", {"authorization_bearer_token": TOKEN}, Access(bearer_tokens=(TOKEN,))),
        ("asterisk", {"headers": {"Authorization": "Basic dTpw"}}, Access(basic=(("u", "p"),))),
        ("native", {"custom_parameters": {"key": TOKEN}}, Access(parameter_token=("key", TOKEN))),
    ],
)
def test_each_platforms_own_way_in(wire: str, shows: dict[str, Any], access: Access) -> None:
    async def scene() -> None:
        async with served(ServeConfig(access=access)) as server, engine() as which:
            async with which.open_call(MemoryLeg()) as call:
                await call.start_stream(StreamSpec(**{"url": "memory://bot", "wire": wire, **shows}))
                await trio.sleep(0.5)
                assert [line.info.wire for line in server.lines] == [wire]
            async with which.open_call(MemoryLeg()) as call:
                with suppress(CallEnded):  # or it begins, and ends with the opening message
                    await call.start_stream(StreamSpec(url="memory://bot", wire=wire))
                await trio.sleep(0.5)
            assert call.record is not None
            assert call.record.streams[0].reason in (EndReason.HANDSHAKE_REFUSED, EndReason.APPLICATION_FAILED)
            assert len(server.lines) == 1
            assert set(server.server.statistics().refused) == {"access"}

    in_virtual_time(scene)
