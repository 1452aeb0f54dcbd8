"""How values are written on the command line: durations, shares, digits with their time, addresses.

Each function takes the text and returns the value, or raises `argparse.ArgumentTypeError` saying what would be right.
"""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from talkpath.testing.caller import Press

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000}
_MAX_DURATION_MS = 24 * 3_600_000
_DIGITS = frozenset("0123456789*#ABCDabcd")


def duration_ms(text: str) -> int:
    """``4s``, ``500ms``, ``1.5m`` -> milliseconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 4s, 500ms or 2m")
    value = Fraction(match[1]) * _UNIT_MS[match[2]]
    if value.denominator != 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a fraction of a millisecond; write whole ones")
    if value > _MAX_DURATION_MS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a day")
    return int(value)


def positive_duration_ms(text: str) -> int:
    """Like `duration_ms`, and more than nothing."""
    value = duration_ms(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected more than 0")
    return value


def share(text: str) -> float:
    """``3%`` or ``0.03`` -> 0.03."""
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if percent:
        value /= 100
    elif value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is more than everything; write {text}% for per cent")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write 3% or 0.03")
    return value


def press(text: str) -> Press:
    """``12#@4s`` -> the digits 1, 2, # pressed from second 4 on."""
    digits, at, when = text.rpartition("@")
    if not at or not digits:
        raise argparse.ArgumentTypeError(f"{text!r}: write the digits, @ and when: 12#@4s")
    wrong = sorted(set(digits) - _DIGITS)
    if wrong:
        raise argparse.ArgumentTypeError(f"{text!r}: {''.join(wrong)} is on no telephone; digits are 0-9 * # A-D")
    return Press(digits.upper(), duration_ms(when))


GRPC_SCHEMES = ("http", "https", "grpc", "grpcs")
WIRE_OF_SCHEME = {**dict.fromkeys(GRPC_SCHEMES, "freeclimb"), "tcp": "audiosocket"}
"""The wire that goes without saying at an address; plivo at any other."""


def application_url(text: str) -> str:
    """An address of an application: ``ws://`` or ``wss://``, one of gRPC's, or ``tcp://``."""
    try:
        parts = urlsplit(text)
        port_is_plausible = parts.port is None or parts.port > 0
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no address; write ws://HOST:PORT/PATH") from None
    if parts.scheme not in ("ws", "wss", *WIRE_OF_SCHEME) or not parts.hostname or not port_is_plausible:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no application's address; write ws://HOST:PORT/PATH or wss://HOST/PATH, for gRPC"
            " http://HOST:PORT or https://HOST, for AudioSocket tcp://HOST:PORT"
        )
    return text


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose."""
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 0 to 65535")
    return int(text)


def seed(text: str) -> int:
    """Any whole number from 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number such as 7")
    return int(text)


def workers(text: str) -> int:
    """A number of processes; 0: one for each core."""
    if not text.isascii() or not text.isdigit() or int(text) > 1024:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of processes, 0 to 1024")
    return int(text)


def parameter(text: str) -> tuple[str, str]:
    """``tier=gold`` -> name and value."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def readable_file(text: str) -> Path:
    """A file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def writable_file(text: str) -> Path:
    """A file that can be made: its directory is there."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: no such directory, or a directory itself")
    return path
