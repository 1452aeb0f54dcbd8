"""Usage: help teaches, wrong usage is exit status 2 with the reason on stderr and nothing on stdout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import talkpath
from talkpath.audio import write_audio
from talkpath.cli import main
from talkpath.cli.call import CallPlan, plan_of
from talkpath.testing.caller import Press


@pytest.fixture
def speech(tmp_path: Path) -> str:
    """A file of 3 s."""
    path = tmp_path / "speech.wav"
    write_audio(path, np.zeros(24_000, np.int16), 8000)
    return str(path)


def plan(*words: str) -> CallPlan:
    """What `talkpath call` would do."""
    import argparse

    from talkpath.cli import call

    parser = argparse.ArgumentParser()
    call.add_command(parser.add_subparsers())
    return plan_of(parser.parse_args(["call", *words]))


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"talkpath {talkpath.__version__}\n"


@pytest.mark.parametrize("command", ["demo", "call", "echo", "conformance", "bench", "doctor"])
def test_help_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "examples" in said
    assert main(["--help"]) == 0
    assert command in capsys.readouterr().out.split("COMMAND", 2)[2].split()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["dial"], "invalid choice"),
        (["call"], "required: URL"),
        (["call", "ftp://x"], "no application's address"),
        (["call", "ws://x", "--loss", "3"], "write 3%"),
        (["call", "ws://x", "--reorder", "-1%"], "argument --reorder: '-1%' is no share; write 3% or 0.03"),
        (["call", "ws://x", "--loss", "-0.5", "--json"], "argument --loss: '-0.5' is no share"),
        (["call", "ws://x", "--duplicate", "-.5%"], "argument --duplicate: '-.5%' is no share"),
        (["call", "ws://x", "--jitter", "-5ms"], "argument --jitter: '-5ms' is no duration"),
        (["call", "ws://x", "--json", "-1%"], "ignored explicit argument '-1%'"),
        (["call", "-1%"], "required: URL"),
        (["call", "ws://x", "--play", "missing.wav"], "there is no file"),
        (["call", "ws://x", "--press", "1@11s"], "the call is over after 10000 ms"),
        (["call", "ws://x", "--duration", "2m", "--press", "9@3m"], "the call is over"),
        (["call", "ws://x", "--press", "1234567890@1900ms", "--duration", "2s"], "give --duration 3900ms"),
        (["call", "ws://x", "--press", "12@1s", "--digit-on", "6s", "--digit-off", "1ms"], "give --duration 13002ms"),
        (["call", "ws://x", "--press", "1@9s", "--press", "12345@9s"], "the last is done at 10200 ms"),
        (["call", "ws://x", "--press", "1@1s", "--digit-on", "9s"], "between 1 and 8191"),
        (["call", "ws://x", "--duration", "90m"], "at most an hour"),
        (["call", "ws://x", "--parameter", "a=1", "--parameter", "a=2"], "the same name twice"),
        (
            ["call", "ws://x", "--parameter", f"a={'x' * 511}"],
            "take 513 bytes written as k=v,k=v; right is at most 512",
        ),
        (["call", "ws://x", "--parameter", "a=\udcff"], "well-formed Unicode"),
        (["call", "ws://x", "--wire", "pigeon"], "invalid choice"),
        (["echo", "--port", "http"], "no port"),
        (["echo", "--grpc-port", "some"], "argument --grpc-port"),
        (["conformance"], "give the application's URL, or --serve"),
        (["conformance", "ws://x"], "--wire says which language is spoken: plivo, "),
        (["conformance", "ws://x", "--wire", "pigeon"], "invalid choice"),
        (["conformance", "http://x", "--wire", "plivo"], "must begin with ws:// or wss://"),
        (["conformance", "ws://x", "--wire", "freeclimb"], "begins with http://, https://, grpc:// or grpcs://"),
        (["conformance", "tcp://x", "--wire", "audiosocket"], "with a port and without a path"),
        (["conformance", "ws://x", "--serve", "--wire", "plivo"], "a URL is an application's"),
        (["conformance", "ws://x", "--wire", "plivo", "--only", "99"], "no check is called '99'"),
        (["conformance", "--serve", "--wire", "plivo", "--only", "reads-on"], "no check is called 'reads-on'"),
        (["conformance", "ws://x", "--wire", "twilio", "--codec", "G729"], "codec 'G729' is not one of"),
        (["conformance", "--serve", "--wire", "plivo", "--host", "0.0.0.0"], "--open says that this is meant"),
        (["conformance", "--serve", "--wire", "plivo", "--wait", "0s"], "expected more than 0"),
        (["demo", "--seed", "-1"], "expected a whole number"),
    ],
)
def test_wrong_usage_is_exit_status_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_the_benchmarks_get_what_follows_two_dashes_and_write_where_the_help_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def note(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    assert main(["bench", "--", "calls", "--json", "-"]) == 0
    assert commands == [[sys.executable, "-m", "benchmarks", "calls", "--json", "-"]]
    root = Path(__file__).parents[2]
    assert main(["bench", "--help"]) == 0
    said = capsys.readouterr().out
    assert "tables on stdout, JSON in build/bench.json" in said
    assert "--json -     JSON on stdout" in said
    assert 'ROOT / "build" / "bench.json"' in (root / "benchmarks" / "__main__.py").read_text()


def test_a_file_that_is_no_audio_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"ID3\x04 not a wav file")
    assert main(["call", "ws://127.0.0.1:1", "--play", str(path)]) == 2
    assert "an MP3 file; expected WAV" in capsys.readouterr().err


def test_a_call_lasts_its_file_and_two_seconds(speech: str) -> None:
    assert plan("ws://x", "--play", speech).duration_ms == 5000
    assert plan("ws://x", "--play", speech, "--duration", "1s").duration_ms == 1000
    assert plan("ws://x").duration_ms == 10_000


def test_digits_may_last_until_the_end() -> None:
    asked = plan("ws://x", "--press", "1234567890@1900ms", "--duration", "3900ms")
    assert (asked.duration_ms, asked.presses) == (3_900, (Press("1234567890", 1_900),))


def test_parameters_may_fill_what_the_wire_has_for_them() -> None:
    assert plan("ws://x", "--parameter", f"a={'x' * 510}").parameters == {"a": "x" * 510}


def test_options_become_a_plan(speech: str) -> None:
    asked = plan(
        "wss://app.example/a", "--play", speech, "--press", "1@1s", "--press", "2#@2s",
        "--loss", "3%", "--jitter", "30ms", "--reorder", "1%", "--seed", "7", "--impair", "both",
        "--codec", "L16@16000h", "--leg-codec", "PCMA", "--track", "outbound", "--one-way",
        "--parameter", "tier=gold", "--token", "s3cret",
    )  # fmt: skip
    assert asked.presses == (Press("1", 1000), Press("2#", 2000))
    assert (asked.loss, asked.jitter_ms, asked.reorder, asked.seed, asked.impair_both) == (0.03, 30, 0.01, 7, True)
    assert (asked.codec, asked.leg_codec, asked.track, asked.bidirectional) == ("L16@16000h", "PCMA", "outbound", False)
    assert (asked.parameters, asked.bearer_token) == ({"tier": "gold"}, "s3cret")
    assert "s3cret" not in repr(asked)
