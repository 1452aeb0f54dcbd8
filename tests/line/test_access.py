"""Who may connect: each way in, alone and together; what is answered; and that nothing of the bot's runs before."""

from __future__ import annotations

import base64
import hmac
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from support.calls import in_virtual_time
from support.peer import connect
from support.served import knock, served, served_on_sockets
from talkpath.engine.travel import made_by, pack
from talkpath.errors import ConfigError
from talkpath.line import Access, ServeConfig
from talkpath.line.access import Gate, Shown, forwarded_address, parse_network
from talkpath.testing import quiescence
from talkpath.transport.tls import client_context, server_context
from talkpath.transport.upgrade import open_websocket, parse_url
from talkpath.wire import signature, twilio_signature

TOKEN = "token-4f6d2a9c"
OTHER = "other-9b81d3e7"
WRONG = "wrong-77c0ffee"
HOST = "bot"
URL = f"wss://{HOST}/audio"


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def basic(user: str, password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def plivo(token: str = TOKEN, url: str = URL) -> tuple[tuple[str, str], ...]:
    return signature.signature_headers(token, "12345", "GET", url, scheme="http")


def twilio(token: str = TOKEN, url: str = URL) -> tuple[tuple[str, str], ...]:
    return (("X-Twilio-Signature", twilio_signature.sign(token, url)),)


RIGHT: list[tuple[Access, str, tuple[tuple[str, str], ...], str]] = [
    (Access(plivo_auth_token=TOKEN), "/audio", plivo(), "{}"),
    (Access(twilio_auth_token=TOKEN), "/audio", twilio(), "{}"),
    (Access(bearer_tokens=(OTHER, TOKEN)), "/", (bearer(TOKEN),), "{}"),
    (Access(bearer_tokens=(TOKEN,)), "/", (("authorization", f"bearer  {TOKEN}"),), "{}"),
    (Access(basic=(("a", OTHER), ("asterisk", TOKEN))), "/", (basic("asterisk", TOKEN),), "{}"),
    (Access(url_tokens=(TOKEN,)), f"/audio/{TOKEN}", (), "{}"),
    (Access(url_tokens=(TOKEN,)), f"/audio?a=b&key={TOKEN}", (), "{}"),
    (Access(url_tokens=("a b/c",)), "/audio/a%20b%2Fc", (), "{}"),
    (Access(parameter_token=("key", TOKEN)), "/", (), f'{{"key":"{TOKEN}","more":"x"}}'),
    (Access(bearer_tokens=(TOKEN,), wires=("twilio", "plivo")), "/", (bearer(TOKEN),), "{}"),
    (
        Access(plivo_auth_token=TOKEN, parameter_token=("key", OTHER)),
        "/audio",
        plivo(),
        f'{{"key":"{OTHER}"}}',
    ),
]
WRONG_ONES: list[tuple[Access, str, tuple[tuple[str, str], ...], str, str]] = [
    (Access(plivo_auth_token=TOKEN), "/audio", (), "{}", "403"),
    (Access(plivo_auth_token=TOKEN), "/audio", plivo(WRONG), "{}", "403"),
    (Access(plivo_auth_token=TOKEN), "/other", plivo(), "{}", "403"),
    (Access(plivo_auth_token=TOKEN), "/audio", twilio(), "{}", "403"),
    (Access(twilio_auth_token=TOKEN), "/audio", (), "{}", "403"),
    (Access(twilio_auth_token=TOKEN), "/audio", twilio(WRONG), "{}", "403"),
    (Access(twilio_auth_token=TOKEN), "/audio", (*twilio(), *twilio()), "{}", "403"),
    (Access(bearer_tokens=(TOKEN,)), "/", (), "{}", "401"),
    (Access(bearer_tokens=(TOKEN,)), "/", (bearer(WRONG),), "{}", "401"),
    (Access(bearer_tokens=(TOKEN,)), "/", (bearer(TOKEN[:-1]),), "{}", "401"),
    (Access(bearer_tokens=(TOKEN,)), "/", (bearer(""),), "{}", "401"),
    (Access(bearer_tokens=(TOKEN,)), "/", (("Authorization", f"Basic {TOKEN}"),), "{}", "401"),
    (Access(bearer_tokens=(TOKEN,)), "/", (bearer(TOKEN), bearer(TOKEN)), "{}", "401"),
    (Access(basic=(("asterisk", TOKEN),)), "/", (basic("asterisk", WRONG),), "{}", "401"),
    (Access(basic=(("asterisk", TOKEN),)), "/", (basic("other", TOKEN),), "{}", "401"),
    (Access(basic=(("asterisk", TOKEN),)), "/", (("Authorization", "Basic !!!"),), "{}", "401"),
    (Access(url_tokens=(TOKEN,)), "/audio", (), "{}", "403"),
    (Access(url_tokens=(TOKEN,)), f"/audio/{TOKEN}x?key={WRONG}", (), "{}", "403"),
    (Access(url_tokens=(TOKEN,)), f"/audio?{TOKEN}=x", (), "{}", "403"),
    (Access(url_tokens=(TOKEN,)), "/audio?" + "a=b&" * 200 + f"key={TOKEN}", (), "{}", "403"),
    (Access(parameter_token=("key", TOKEN)), "/", (), "{}", "1008"),
    (Access(parameter_token=("key", TOKEN)), f"/?key={TOKEN}", (), f'{{"key":"{WRONG}"}}', "1008"),
    (Access(parameter_token=("key", TOKEN)), "/", (), f'{{"other":"{TOKEN}"}}', "1008"),
    (Access(plivo_auth_token=TOKEN, parameter_token=("key", OTHER)), "/audio", plivo(), "{}", "1008"),
    (Access(plivo_auth_token=TOKEN, parameter_token=("key", OTHER)), "/audio", (), f'{{"key":"{OTHER}"}}', "403"),
    (Access(bearer_tokens=(TOKEN,), wires=("twilio",)), "/", (bearer(TOKEN),), "{}", "1008"),
    (Access(bearer_tokens=(TOKEN,), wires=("freeclimb",)), "/", (bearer(TOKEN),), "{}", "401"),
    (Access(networks=("127.0.0.0/8",)), "/", (), "{}", "403"),
]


@pytest.mark.parametrize(("access", "path", "headers", "parameters"), RIGHT)
def test_who_shows_what_is_asked_for_is_let_in(
    access: Access, path: str, headers: tuple[tuple[str, str], ...], parameters: str
) -> None:
    async def scene() -> None:
        for ways in (access, (Access(bearer_tokens=("another",)), access, Access(url_tokens=("nobody",)))):
            async with served(ServeConfig(access=ways)) as server:
                status, peer = await knock(path, *headers, parameters=parameters)
                assert status == "101"
                assert peer.close_code is None
                assert len(server.lines) == 1
                peer.link.close()
                await trio.sleep(1)
                assert server.server.statistics().refused == {}

    in_virtual_time(scene)


@pytest.mark.parametrize(("access", "path", "headers", "parameters", "answer"), WRONG_ONES)
def test_who_does_not_is_turned_away_before_the_bot_hears_of_it(
    access: Access,
    path: str,
    headers: tuple[tuple[str, str], ...],
    parameters: str,
    answer: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene() -> None:
        async with served(ServeConfig(access=access)) as server:
            status, peer = await knock(path, *headers, parameters=parameters)
            assert (str(peer.close_code) if status == "101" else status) == answer
            if answer == "401":
                scheme = "Bearer" if access.bearer_tokens else "Basic"
                assert peer.headers["www-authenticate"].startswith(f'{scheme} realm="talkpath"')
            peer.link.close()
            await trio.sleep(1)
            assert server.lines == []
            assert server.records == []
            statistics = server.server.statistics()
            assert statistics.refused == {"access": 1}
            assert (statistics.lines, statistics.lines_opened) == (0, 0)

    in_virtual_time(scene)
    assert "refused" in caplog.text
    for secret in (TOKEN, OTHER, WRONG):
        assert secret not in caplog.text


def test_a_challenge_names_every_scheme_that_would_do() -> None:
    gate = Gate([Access(bearer_tokens=(TOKEN,)), Access(basic=(("a", "b"),)), Access(plivo_auth_token=TOKEN)])
    assert gate.challenge().headers == (
        ("WWW-Authenticate", 'Bearer realm="talkpath", Basic realm="talkpath", charset="UTF-8"'),
    )
    assert Gate([Access(plivo_auth_token=TOKEN)]).challenge().status == 403


def test_a_public_url_is_what_is_signed() -> None:
    async def scene() -> None:
        config = ServeConfig(access=Access(twilio_auth_token=TOKEN), public_url="wss://public.example")
        async with served(config):
            assert (await knock("/a?b=c", *twilio(TOKEN, "wss://public.example/a?b=c")))[0] == "101"
            assert (await knock("/a?b=c", *twilio(TOKEN, f"wss://{HOST}/a?b=c")))[0] == "403"

    in_virtual_time(scene)


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"Bearer {OTHER}", f"Bearer {WRONG}", "Bearer x", ""])
def test_as_much_is_compared_whoever_knocks(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[tuple[int, int]] = []

    def compare(a: bytes, b: bytes) -> bool:
        lengths.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    gate = Gate([Access(bearer_tokens=(TOKEN, OTHER)), Access(bearer_tokens=(TOKEN,), wires=("plivo",))])
    gate.left_for(Shown(("plivo",), "", "/", HOST, {"authorization": given}))
    assert lengths == [(32, 32)] * 3


TEXT = st.text(st.characters(max_codepoint=255), max_size=40)
NAMES = st.sampled_from(["authorization", "x-twilio-signature", "x-plivo-signature-v3", "x-plivo-signature-v3-nonce"])
EVERY_WAY = Gate(
    [
        Access(plivo_auth_token=TOKEN),
        Access(twilio_auth_token=TOKEN),
        Access(bearer_tokens=(TOKEN,)),
        Access(basic=(("u", TOKEN),)),
        Access(url_tokens=(TOKEN,)),
        Access(networks=("192.0.2.0/24", "2001:db8::/32")),
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    headers=st.dictionaries(
        NAMES,
        TEXT | st.sampled_from(["Basic ", "Bearer ", "Basic w6k=", "Basic é"]).flatmap(lambda a: TEXT.map(a.__add__)),
    ),
    target=TEXT.map("/".__add__),
    host=TEXT,
    address=st.sampled_from(["", "memory", "192.0.2", "::1%", "fe80::1%x"]) | TEXT,
)
def test_whatever_is_shown_a_guess_is_not_let_in_and_nothing_raises(
    headers: dict[str, str], target: str, host: str, address: str
) -> None:
    assert EVERY_WAY.left_for(Shown(("plivo",), address, target, host, headers)) == ()


def test_a_check_that_fails_by_a_fault_of_ours_ends_its_connection_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(gate: Gate, shown: Shown) -> tuple[Access, ...]:
        raise ZeroDivisionError

    async def scene() -> None:
        async with served(ServeConfig(access=Access(bearer_tokens=(TOKEN,)))) as server:
            with monkeypatch.context() as patch:
                patch.setattr(Gate, "left_for", stumble)
                peer = connect("bot")
                assert await peer.upgrade_as_client("/", bearer(TOKEN)) == ""
            assert "a connection failed: ZeroDivisionError" in caplog.text
            assert (await knock("/", bearer(TOKEN)))[0] == "101"
            assert len(server.lines) == 1

    in_virtual_time(scene)


# What cannot be


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "asks for nothing"),
        ({"wires": ("plivo",)}, "asks for nothing"),
        ({"plivo_auth_token": "a", "twilio_auth_token": "b"}, "two platforms' signatures"),
        ({"bearer_tokens": ("a",), "basic": (("u", "p"),)}, "two Authorization headers"),
        ({"bearer_tokens": TOKEN}, "bearer_tokens is of type str; it must be a tuple"),
        ({"url_tokens": TOKEN}, "url_tokens is of type str"),
        ({"bearer_tokens": ("",)}, "bearer_tokens has one that is empty"),
        ({"bearer_tokens": ("a b",)}, "characters that a header cannot carry"),
        ({"bearer_tokens": ("tök",)}, "characters that a header cannot carry"),
        ({"url_tokens": (None,)}, "url_tokens has one that is empty or no text"),
        ({"basic": ("user", "password")}, "also of one"),
        ({"basic": (("user", ""),)}, "without a password"),
        ({"basic": (("us:er", "p"),)}, "a colon in its user"),
        ({"parameter_token": ("name",)}, "parameter_token is a pair"),
        ({"parameter_token": "name"}, "parameter_token is a pair"),
        ({"parameter_token": ("name", "")}, "parameter_token is a pair"),
        ({"plivo_auth_token": None}, "plivo_auth_token must be text"),
        ({"networks": ("10.0.0.1/8",)}, "networks has one that is no network"),
        ({"networks": ("everywhere",)}, "networks has one that is no network"),
        ({"wires": ("morse",), "bearer_tokens": ("a",)}, "wire 'morse' is not one of"),
    ],
)
def test_an_access_that_is_of_no_use_is_refused_when_it_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Access(**options)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"access": TOKEN}, "access is an Access"),
        ({"access": (TOKEN,)}, "access is an Access"),
        ({"access": Access(url_tokens=("a",)), "allow_unauthenticated": True}, "contradict"),
        ({"plivo_auth_token": "a", "allow_unauthenticated": True}, "contradict"),
        ({"public_url": "wss://x.example"}, "needs access"),
        ({"access": Access(client_certificate=True)}, "asks for a client's certificate"),
        ({"access": Access(client_names=("a",))}, "asks for a client's certificate"),
        ({"proxies": ("10.0.0.1/8",)}, "proxies has one that is no network"),
        ({"wire_by_path": {"plivo": "plivo"}}, "a path begins with /"),
        ({"wire_by_path": {"/a": "morse"}}, "wire 'morse' is not one of"),
        ({"wire_by_path": {"/a": "freeclimb"}}, "one of WebSockets"),
        ({"max_connections_per_address": -1}, "max_connections_per_address"),
        ({"max_handshakes_per_address": 1.5}, "max_handshakes_per_address"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ServeConfig(**options)


def test_no_secret_is_in_a_repr() -> None:
    access = Access(plivo_auth_token=TOKEN, bearer_tokens=(TOKEN,), url_tokens=(TOKEN,), parameter_token=(TOKEN, TOKEN))
    config = ServeConfig(access=(access, Access(twilio_auth_token=TOKEN, basic=((TOKEN, TOKEN),))))
    shown = Shown((), "", f"/{TOKEN}", "", {"authorization": TOKEN})
    assert TOKEN not in repr((access, config, shown))


def test_ways_in_travel_to_a_worker() -> None:
    config = ServeConfig(
        access=(Access(basic=(("u", "p"),), wires=("asterisk",)), Access(parameter_token=("key", TOKEN))),
        wire_by_path={"/plivo": "plivo"},
        proxies=("10.0.0.0/8",),
    )
    assert made_by("config", pack("config", config), ServeConfig) == config
    one = ServeConfig(access=Access(bearer_tokens=(TOKEN,)))
    assert made_by("config", pack("config", one), ServeConfig) == one


# Who is behind a proxy

PROXIES = [parse_network("proxies", "10.0.0.0/8"), parse_network("proxies", "fd00::/8")]


@pytest.mark.parametrize(
    ("address", "forwarded", "whose"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7 , 10.0.0.2,fd00::1", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("memory", "198.51.100.7", "memory"),
    ],
)
def test_a_proxys_word_is_taken_for_who_is_behind_it_and_nobody_elses(
    address: str, forwarded: str | None, whose: str
) -> None:
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert forwarded_address(address, headers, PROXIES) == whose


# On sockets


@pytest.mark.smoke
async def test_serving_everyone_on_an_address_that_others_reach_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served_on_sockets(ServeConfig(allow_unauthenticated=True), "127.0.0.1"):
        assert "anyone who finds the port" not in caplog.text
    async with served_on_sockets(ServeConfig(allow_unauthenticated=True), "0.0.0.0"):
        assert caplog.text.count("anyone who finds the port") == 1
    caplog.clear()
    async with served_on_sockets(ServeConfig(access=Access(url_tokens=(TOKEN,))), "0.0.0.0"):
        assert caplog.text == ""


@pytest.mark.smoke
async def test_a_network_is_a_way_in() -> None:
    for network, status in (("127.0.0.0/8", None), ("192.0.2.0/24", 403)):
        async with served_on_sockets(ServeConfig(access=Access(networks=(network,)))) as server:
            assert await upgrade_status(server.addresses[0][1], None) == status


async def upgrade_status(port: int, context: ssl.SSLContext | None) -> int | None:
    """Ask for an upgrade. -> the status when it was refused"""
    from talkpath.wire.websocket import HandshakeError

    scheme = "ws" if context is None else "wss"
    try:
        link, _ = await open_websocket(parse_url(f"{scheme}://localhost:{port}/"), context=context)
    except HandshakeError as exc:
        return exc.status
    link.close()
    return None


@pytest.mark.smoke
async def test_a_certificate_is_a_way_in_by_its_name(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("localhost", "platform.example", "stranger.example"):
        pem = tmp_path / f"{name}.pem"
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(pem)

    def server() -> ssl.SSLContext:
        return server_context(tmp_path / "localhost.pem", client_ca_file=tmp_path / "ca.pem")

    def client(name: str | None) -> ssl.SSLContext:
        return client_context(ca_file=tmp_path / "ca.pem", cert_file=tmp_path / f"{name}.pem" if name else None)

    named = Access(client_names=("Platform.example", "other.example"))
    with quiescence():
        async with served_on_sockets(ServeConfig(access=named, tls_context=server())) as one:
            assert await upgrade_status(one.addresses[0][1], client("platform.example")) is None
            assert await upgrade_status(one.addresses[0][1], client("stranger.example")) == 403
        optional = server()
        optional.verify_mode = ssl.CERT_OPTIONAL
        any_name = Access(client_certificate=True)
        async with served_on_sockets(ServeConfig(access=any_name, tls_context=optional)) as one:
            assert await upgrade_status(one.addresses[0][1], client("stranger.example")) is None
            assert await upgrade_status(one.addresses[0][1], client(None)) == 403
