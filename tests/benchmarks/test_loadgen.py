"""The load generator is the benchmark's only instrument: what it counts is checked against ends that are known.

Its two modes play each other's far end (the platform's streams into the application's WebSocket server), so that
every message length, TLS and the framing of both sides meet; callers talk to sockets of the test's own.
"""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import SOURCES, Child

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc")
STRICT = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror")
PATIENCE_S = 10.0

pytestmark = [pytest.mark.smoke, pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")]
Start = Callable[..., Child]


def build(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert COMPILER is not None
    sources = [str(ROOT / "benchmarks" / name) for name in SOURCES]
    command = [COMPILER, *STRICT, *sources, "-o", str(directory / "loadgen"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator without TLS."""
    directory = tmp_path_factory.mktemp("plain")
    built = build(directory)
    assert built.returncode == 0, built.stderr
    return directory / "loadgen"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with TLS, and a certificate for 127.0.0.1 beside it."""
    directory = tmp_path_factory.mktemp("secure")
    built = build(directory, "-DLOADGEN_TLS", "-lssl", "-lcrypto")
    if "openssl/" in built.stderr or "-lssl" in built.stderr:
        pytest.skip("needs OpenSSL's headers")
    assert built.returncode == 0, built.stderr
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "authority.pem")
    own.private_key_pem.write_to_path(directory / "key.pem")
    own.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    return directory / "loadgen"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start generators that are gone at the end of the test; their first line is left to hear."""
    with ExitStack() as stack:

        def start_one(program: Path, *arguments: object) -> Child:
            command = [str(program), "--limit-s", "60", *map(str, arguments)]
            return stack.enter_context(Child(command, (), "load generator"))

        yield start_one


def window(*generators: Child, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Take windows of growing length until what is to be seen has been seen."""
    deadline, seconds = time.monotonic() + PATIENCE_S, 0.15
    while True:
        for generator in generators:
            generator.tell("begin")
        time.sleep(seconds)
        reports = [generator.ask("end") for generator in generators]
        if until(reports):
            return reports
        assert time.monotonic() < deadline, json.dumps(reports)
        seconds *= 2


def caller(start: Start, program: Path, calls: int = 1, *options: str) -> tuple[Child, list[int]]:
    bridge = start(program, "--calls", calls, *options)
    return bridge, bridge.hear()["rtp_ports"]


def open_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(PATIENCE_S)
    return sock


def packet(seq: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, seq, timestamp, ssrc) + payload


@pytest.mark.parametrize(("sends_ms", "other_ms"), [(20, 20), (20, 60), (40, 20), (60, 100), (100, 20)])
def test_messages_of_any_length_are_known_for_their_calls_audio(
    start: Start, plain: Path, sends_ms: int, other_ms: int
) -> None:
    application = start(plain, "--calls", 1, "--message-ms", other_ms)
    port = application.hear()["ws_port"]
    platform = start(plain, "--mode", "platform", "--calls", 1, "--message-ms", sends_ms, "--connect", port)
    platform.hear()
    assert platform.ask("connect 1") == {"connected": 1}
    heard, played = window(application, platform, until=lambda all_: all(r["messages"]["received"] for r in all_))
    messages = heard["messages"]
    # Two generators say the same for the same call, so the application hears the audio it expects.
    assert messages["matching"] == messages["received"]
    assert messages["audio_s"] == pytest.approx(messages["received"] * sends_ms / 1000)
    # What the application plays is not what the platform says: it must not be taken for it.
    assert played["messages"]["matching"] == 0
    assert played["messages"]["audio_s"] == pytest.approx(played["messages"]["received"] * other_ms / 1000)
    assert heard["connections"] == played["connections"] == 1
    assert messages["protocol_errors"] == played["messages"]["protocol_errors"] == 0


def test_the_same_over_tls_with_the_certificate_checked(start: Start, secure: Path) -> None:
    directory = secure.parent
    own = ("--tls-cert", directory / "certificate.pem", "--tls-key", directory / "key.pem")
    application = start(secure, "--calls", 4, *own)
    port = application.hear()["ws_port"]
    trusting = ("--mode", "platform", "--connect", port, "--tls-ca", directory / "authority.pem")
    platform = start(secure, "--calls", 1, *trusting)
    platform.hear()
    platform.ask("connect 1")
    heard, played = window(application, platform, until=lambda all_: all(r["messages"]["received"] for r in all_))
    assert heard["messages"]["matching"] == heard["messages"]["received"]
    assert heard["messages"]["protocol_errors"] == played["messages"]["protocol_errors"] == 0
    # A platform that trusts somebody else hangs up before a word is said.
    shutil.copy(directory / "certificate.pem", directory / "stranger.pem")
    stranger = subprocess.run(
        [str(secure), "--limit-s", "20", *map(str, trusting[:-1]), str(directory / "stranger.pem")],
        input="connect 1\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert stranger.returncode == 1
    assert "handshake" in stranger.stderr


def test_without_openssl_tls_is_refused_in_words(plain: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(plain), "--tls-cert", str(tmp_path), "--tls-key", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "without TLS" in done.stderr


def test_a_caller_speaks_to_where_it_is_told_and_falls_silent_when_stopped(start: Start, plain: Path) -> None:
    bridge, ports = caller(start, plain, 2)
    with open_socket() as first, open_socket() as second:
        bridge.tell(f"to {first.getsockname()[1]}")
        packets = [first.recvfrom(2048) for _ in range(3)]
        assert {source[1] for _, source in packets} == {ports[0]}
        headers = [struct.unpack("!BBHII", data[:12]) for data, _ in packets]
        assert [kind for _, kind, *_ in headers] == [0, 0, 0]
        assert [(b[2] - a[2]) & 0xFFFF for a, b in itertools.pairwise(headers)] == [1, 1]
        assert [(b[3] - a[3]) & 0xFFFFFFFF for a, b in itertools.pairwise(headers)] == [160, 160]
        assert len({data[12:] for data, _ in packets}) == 1
        assert len(packets[0][0]) == 172
        # The same call, elsewhere; then nowhere.
        bridge.tell(f"at 0 {second.getsockname()[1]}")
        assert second.recvfrom(2048)[1][1] == ports[0]
        bridge.tell("stop 0 1")
        (report,) = window(bridge, until=lambda all_: all_[0]["rtp"]["sent"] == 0)
        assert report["calls"] == 0


def counted(bridge: Child, port: int, packets: list[bytes]) -> dict[str, Any]:
    """Send packets to a caller within a window and return the report that holds them all."""
    deadline = time.monotonic() + PATIENCE_S
    with open_socket() as sock:
        bridge.tell(f"to {sock.getsockname()[1]}")
        while True:
            bridge.tell("begin")
            time.sleep(0.05)
            for data in packets:
                sock.sendto(data, ("127.0.0.1", port))
            time.sleep(0.05)
            report = bridge.ask("end")
            if report["rtp"]["received"] == len(packets):
                return report
            assert time.monotonic() < deadline, report


def test_what_comes_back_is_the_applications_audio_or_silence_or_neither(start: Start, plain: Path) -> None:
    bridge, ports = caller(start, plain)
    payloads = (b"\xff" * 160, bytes(range(160)), b"\xff" * 80)
    rtp = counted(bridge, ports[0], [packet(seq, seq * 160, 7, payload) for seq, payload in enumerate(payloads)])["rtp"]
    assert (rtp["silence"], rtp["other"], rtp["matching"]) == (1, 2, 0)


def test_lateness_is_what_a_packet_is_later_than_its_own_calls_grid(start: Start, plain: Path) -> None:
    bridge, ports = caller(start, plain)
    hour = 8000 * 3600
    # At once, but an hour of audio apart: against the grid of the last one the first is an hour late. Another SSRC,
    # whatever its timestamps, is measured by itself.
    stamps = ((0, 1), (hour, 1), (5, 2))
    packets = [packet(seq, timestamp, ssrc, bytes(160)) for seq, (timestamp, ssrc) in enumerate(stamps)]
    late = counted(bridge, ports[0], packets)["lateness_ms"]
    assert late["n"] == 3
    assert late["p50"] == 0
    assert late["max"] == pytest.approx(3_600_000, rel=0.01)


def test_with_latch_a_caller_answers_whoever_called_it_last(start: Start, plain: Path) -> None:
    _, ports = caller(start, plain, 1, "--latch")
    for ssrc in (1, 2):
        with open_socket() as sock:
            sock.sendto(packet(0, 0, ssrc, bytes(160)), ("127.0.0.1", ports[0]))
            data, source = sock.recvfrom(2048)
            assert (len(data), source[1]) == (172, ports[0])
