"""What may be written on the command line, and what is said about what may not."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from talkpath.cli import values
from talkpath.testing.caller import Press


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.duration_ms, "4s", 4000),
        (values.duration_ms, "500ms", 500),
        (values.duration_ms, "1.5m", 90_000),
        (values.duration_ms, "0s", 0),
        (values.duration_ms, " 0.25s ", 250),
        (values.share, "3%", 0.03),
        (values.share, "0.03", 0.03),
        (values.share, "100%", 1.0),
        (values.press, "12#@4s", Press("12#", 4000)),
        (values.press, "*a@1500ms", Press("*A", 1500)),
        (values.application_url, "wss://app.example/audio?x=1", "wss://app.example/audio?x=1"),
        (values.application_url, "ws://[::1]:8080", "ws://[::1]:8080"),
        (values.application_url, "grpc://127.0.0.1:50051", "grpc://127.0.0.1:50051"),
        (values.port, "0", 0),
        (values.port, "65535", 65535),
        (values.seed, "7", 7),
        (values.parameter, "tier=gold=1", ("tier", "gold=1")),
        (values.parameter, "empty=", ("empty", "")),
    ],
)
def test_what_may_be_written(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (values.duration_ms, "4", "write 4s"),
        (values.duration_ms, "-1s", "no duration"),
        (values.duration_ms, "4 s", "no duration"),
        (values.duration_ms, "48000m", "more than a day"),
        (values.duration_ms, "50.5ms", "whole ones"),
        (values.duration_ms, "0.0001s", "whole ones"),
        (values.positive_duration_ms, "0ms", "more than 0"),
        (values.share, "3", "write 3%"),
        (values.share, "130%", "no share"),
        (values.share, "-1%", "no share"),
        (values.share, "nan", "no share"),
        (values.share, "x", "no share"),
        (values.press, "12#", "12#@4s"),
        (values.press, "@4s", "12#@4s"),
        (values.press, "1x@4s", "x is on no telephone"),
        (values.press, "1@4", "write 4s"),
        (values.application_url, "ftp://app.example", "ws://HOST"),
        (values.application_url, "ws://", "ws://HOST"),
        (values.application_url, "ws://app.example:notaport/", "ws://HOST"),
        (values.application_url, "ws://[::1", "ws://HOST"),
        (values.port, "65536", "no port"),
        (values.port, "-1", "no port"),
        (values.port, "²", "no port"),
        (values.seed, "7.5", "whole number"),
        (values.parameter, "tier", "NAME=VALUE"),
        (values.parameter, "=x", "NAME=VALUE"),
        (values.readable_file, "no/such.wav", "there is no file"),
        (values.writable_file, "no/such/heard.wav", "cannot be written"),
    ],
)
def test_what_may_not_be_written_is_refused_with_what_would_be_right(
    read: Callable[[str], object], text: str, says: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=says):
        read(text)


def test_files_are_looked_for_before_anything_starts(tmp_path: Path) -> None:
    there = tmp_path / "a.wav"
    there.write_bytes(b"")
    assert values.readable_file(str(there)) == there
    assert values.writable_file(str(tmp_path / "b.wav")) == tmp_path / "b.wav"
    with pytest.raises(argparse.ArgumentTypeError):
        values.writable_file(str(tmp_path))
