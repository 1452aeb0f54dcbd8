"""Simulated calls over real loopback sockets: what the report says is what happened."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import wave
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
import trio_websocket

from talkpath.audio import AudioClip, Samples, read_audio, write_audio
from talkpath.cli import call as cli_call
from talkpath.cli import main
from talkpath.cli.call import CallPlan, PlacedCall, place_call
from talkpath.cli.progress import Progress
from talkpath.engine import Call
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, serve_lines
from talkpath.records import EndReason
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.testing.caller import Press
from talkpath.wire.catalog import WIRES

pytestmark = pytest.mark.smoke


def tone_samples(track: Samples) -> int:
    """How much of a track is the caller's tone, whatever a busy machine did to its edges."""
    return sum(span.to_sample - span.from_sample for span in find_tones(track, 8_000, [450]))


async def call(bot: Callable[[Line], Awaitable[None]], scheme: str = "ws", **asked: object) -> PlacedCall:
    """Serve the bot, call it, and leave nothing behind."""
    with trio.fail_after(20), quiescence():
        async with trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(serve_lines, bot, "127.0.0.1", 0)
            plan = CallPlan(url=f"{scheme}://{host}:{port}", **asked)  # type: ignore[arg-type]
            placed = await place_call(plan, Progress(quiet=True))
            nursery.cancel_scope.cancel()
    return placed


def test_every_wire_at_a_url_can_be_called() -> None:
    assert sorted(cli_call.WIRES) == sorted(WIRES)


def grpc_plan(*words: str) -> CallPlan:
    commands = argparse.ArgumentParser().add_subparsers()
    cli_call.add_command(commands)
    return cli_call.plan_of(commands.choices["call"].parse_args(words))


def test_an_address_of_grpc_means_freeclimb() -> None:
    for scheme in ("http", "https", "grpc", "grpcs"):
        assert grpc_plan(f"{scheme}://127.0.0.1:8081").wire == "freeclimb"
    assert grpc_plan("ws://127.0.0.1:8080").wire == "plivo"
    for words in (("ws://127.0.0.1:8080", "--wire", "freeclimb"), ("grpc://127.0.0.1:8081", "--wire", "twilio")):
        with pytest.raises(ConfigError):
            grpc_plan(*words)


async def test_freeclimbs_wire_is_called_over_grpc(tmp_path: Path) -> None:
    async def bot(line: Line) -> None:
        line.speak(ToneSource(450).take(4_000), sample_rate_hz=8000)
        await line.checkpoint("said").wait()
        await line.digits().__anext__()
        await line.hang_up()

    placed = await call(bot, wire="freeclimb", scheme="grpc", presses=(Press("5", 700),), duration_ms=5_000)
    report = json.loads(placed.report.to_json())
    assert (report["wire"], report["end_reason"]) == ("freeclimb", "application_hung_up")
    assert report["digits_sent"] == "5"
    assert [one["outcome"] for one in report["checkpoints"]] == ["PLAYED"]
    assert tone_samples(placed.heard.samples) > 3_500


async def test_both_tracks_lie_side_by_side(tmp_path: Path) -> None:
    """An echo: right is what is left, later by one delay; and left is the file, later by the jitter buffer."""

    async def echo(line: Line) -> None:
        async for chunk in line.listen():
            line.speak(chunk)

    speech = AudioClip(ToneSource(450).take(8_000), 8000)
    placed = await call(echo, speech=speech, duration_ms=2_000, stereo=True)
    assert placed.said is not None
    assert len(placed.said) == len(placed.heard.samples) == 16_000
    (said,), (heard,) = find_tones(placed.said, 8_000, [450]), find_tones(placed.heard.samples, 8_000, [450])
    assert 0 <= said.from_sample < 1_600
    assert said.from_sample < heard.from_sample < said.from_sample + 4_000
    cli_call._write_recording(tmp_path / "both.wav", placed)
    with wave.open(str(tmp_path / "both.wav")) as file:
        pairs = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.array_equal(pairs[:, 0], placed.said)
    assert np.array_equal(pairs[:, 1], placed.heard.samples)


def test_stereo_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="give --record"):
        grpc_plan("ws://127.0.0.1:8080", "--stereo")


async def test_a_checkpoint_lies_in_the_recording_where_the_report_says() -> None:
    async def bot(line: Line) -> None:
        await trio.sleep(0.1)
        line.speak(ToneSource(450).take(4_000), sample_rate_hz=8000)
        await line.checkpoint("said").wait()
        await line.hang_up()

    placed = await call(bot, duration_ms=5_000)
    report, heard = placed.report, placed.heard.samples
    assert report.end_reason is EndReason.APPLICATION_HUNG_UP
    assert report.orderly
    (said,) = report.checkpoints
    assert (said.name, said.outcome) == ("said", "PLAYED")
    # Sample for sample: the tone's last one (its very last is a zero crossing) is the one before the mark.
    assert 0 <= said.at_sample - 1 - int(np.flatnonzero(heard)[-1]) <= 1
    assert report.heard_ms == 500
    assert 500 <= report.duration_ms <= 1_500


async def test_the_application_hears_the_caller_and_his_digits() -> None:
    heard: list[np.ndarray] = []
    digits: list[str] = []

    async def bot(line: Line) -> None:
        async with trio.open_nursery() as nursery:

            async def take_digits() -> None:
                digits.extend([digit async for digit in line.digits()])

            nursery.start_soon(take_digits)
            heard.extend([chunk.samples async for chunk in line.listen()])
            nursery.cancel_scope.cancel()

    speech = AudioClip(ToneSource(450).take(8_000), 8_000)
    placed = await call(bot, speech=speech, presses=(Press("1#", 1_200),), duration_ms=2_000, jitter_ms=10, seed=7)
    report = placed.report
    assert report.end_reason is EndReason.DURATION_REACHED
    assert report.duration_ms == 2_000
    assert len(placed.heard.samples) == 16_000
    assert report.digits_sent == "".join(digits) == "1#"
    assert 7_000 < tone_samples(np.concatenate(heard)) < 9_500
    assert report.media_sent > 50
    assert report.refused_messages == {}


@pytest.fixture
def echo() -> Iterator[str]:
    """`talkpath echo` in a process of its own."""
    command = [sys.executable, "-m", "talkpath", "echo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_from_the_command_line_a_caller_hears_his_echo(
    echo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tmp_path / "tone.wav"
    write_audio(speech, ToneSource(450).take(8_000), 8_000)
    recording = tmp_path / "heard.wav"
    words = ["call", echo, "--play", str(speech), "--record", str(recording), "--duration", "2s", "--json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["end_reason"] == "duration_reached"
    assert report["duration_ms"] == 2_000
    assert [point["name"] for point in report["checkpoints"]][:1] == ["second-1"]
    assert captured.err == ""
    heard = read_audio(recording)
    assert (heard.sample_rate_hz, len(heard.samples)) == (8_000, 16_000)
    assert 7_000 < tone_samples(heard.samples) < 9_500


def failed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a call that fails; return its end reason and what it said."""
    assert main([*words, "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("\n") == captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return json.loads(captured.out)["end_reason"], captured.err


def test_a_call_that_nobody_takes_fails_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        reason, said = failed(["call", f"ws://127.0.0.1:{nobody.getsockname()[1]}"], capsys)
    assert reason == "connect_failed"
    assert "Refused" in said


def test_a_server_of_another_kind_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            for _ in range(3):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        reason, _ = failed(["call", f"ws://127.0.0.1:{server.getsockname()[1]}"], capsys)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert reason in ("handshake_refused", "connect_failed")


@pytest.mark.parametrize(
    ("ended", "says"),
    [
        (
            CallEnded(EndReason.HANDSHAKE_TIMED_OUT, trio.TooSlowError()),
            "handshake_timed_out: no connection, or no answer to the upgrade, in the time allowed: TooSlowError\n",
        ),
        (CallEnded(EndReason.NO_CAPACITY), "no_capacity: the engine is full\n"),
    ],
)
def test_a_failure_without_a_message_is_told_in_words(
    ended: CallEnded, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def start_stream(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ended

    monkeypatch.setattr(Call, "start_stream", start_stream)
    reason, said = failed(["call", "ws://127.0.0.1:1"], capsys)
    assert reason == ended.reason.value
    assert said == f"talkpath call: {says}"


def test_an_echo_that_cannot_listen_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["echo", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen" in capsys.readouterr().err
    assert main(["echo", "--port", "0", "--host", "0.0.0.0"]) == 2


@contextlib.contextmanager
def echoing(n_addresses: int, *words: str) -> Iterator[list[str]]:
    """`talkpath echo` in a process of its own; the addresses that it says, and no more of them."""
    command = [sys.executable, "-m", "talkpath", "echo", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield [process.stdout.readline().split()[-1] for _ in range(n_addresses)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""


def test_an_echo_has_a_port_for_grpc_unless_it_is_told_not_to_or_finds_it_taken() -> None:
    with echoing(2, "--port", "0") as (first, second):
        assert (first[:5], second[:7]) == ("ws://", "http://")
        with socket.create_connection(("127.0.0.1", int(second.rpartition(":")[2]))):
            pass
    with echoing(1, "--port", "0", "--grpc-port", "none") as (first,):
        assert first.startswith("ws://")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with echoing(1, "--port", str(port - 1)) as (first,):
            assert first == f"ws://127.0.0.1:{port - 1}"


@contextlib.contextmanager
def calling(*words: str) -> Iterator[subprocess.Popen[str]]:
    """`talkpath call` in a process of its own, which a test that fails does not leave behind."""
    command = [sys.executable, "-m", "talkpath", "call", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], *, status: int) -> dict[str, object]:
    """Wait for its end, which must be wordless on stderr, and return its report."""
    said, complaint = process.communicate(timeout=10)
    assert (process.returncode, complaint) == (status, "")
    report: dict[str, object] = json.loads(said)
    return report


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_a_call_that_is_still_connecting_hangs_up(interrupt: signal.Signals, tmp_path: Path) -> None:
    recording = tmp_path / "heard.wav"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(10)
        with calling(f"ws://127.0.0.1:{mute.getsockname()[1]}", "--record", str(recording)) as process:
            connection, _ = mute.accept()
            with connection:
                process.send_signal(interrupt)
                report = told(process, status=0)
    assert (report["end_reason"], report["duration_ms"]) == ("caller_hung_up", 0)
    assert len(read_audio(recording).samples) == 0


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
async def test_whoever_interrupts_a_call_hangs_up_in_an_orderly_way(interrupt: signal.Signals, tmp_path: Path) -> None:
    recording = tmp_path / "heard.wav"
    codes: list[int] = []
    live = trio.Event()

    async def application(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            for n_messages in itertools.count(1):
                await connection.get_message()
                if n_messages == 10:
                    live.set()
        assert connection.closed is not None
        codes.append(connection.closed.code)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(trio_websocket.serve_websocket, application, "127.0.0.1", 0, None)
            with calling(f"ws://127.0.0.1:{server.port}", "--duration", "60s", "--record", str(recording)) as process:
                await live.wait()
                process.send_signal(interrupt)
                report = await trio.to_thread.run_sync(lambda: told(process, status=0))
            nursery.cancel_scope.cancel()
    assert report["end_reason"] == "caller_hung_up"
    assert codes == [1000]
    lasted_ms = report["duration_ms"]
    assert isinstance(lasted_ms, int)
    assert 100 <= lasted_ms < 20_000
    assert len(read_audio(recording).samples) == lasted_ms * 8
