"""The command line: place a call, answer one, watch a demonstration, judge, measure, find out what is wrong.

A command is a module here with two functions: ``add_command(commands)`` describes it to argparse, ``run(options)``
does it and returns the exit status. `doctor` needs nothing but Python, so that it can speak where nothing else can.

Exit status: 0 it went as it should; 1 it did not; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from talkpath import __version__
from talkpath.cli import doctor
from talkpath.errors import ConfigError, FormatError

_EPILOG = """\
examples:
  talkpath doctor                                          is everything there?
  talkpath demo                                            a whole call, played and measured
  talkpath echo --port 8080                                an application to call
  talkpath call ws://127.0.0.1:8080 --play caller.wav --record heard.wav
                                                           call it, without a phone
  talkpath conformance ws://127.0.0.1:8080 --wire plivo    does it keep the platform's rules?
  talkpath COMMAND --help                                  more on each

exit status: 0 it went as it should, 1 it did not, 2 wrong usage
"""

_NEGATIVE = re.compile(r"-\.?\d")
_OPTION = re.compile(r"--[a-z][a-z-]*")


def _modules() -> list[ModuleType]:
    from talkpath.cli import bench, call, conformance, demo, echo

    return [demo, call, echo, conformance, bench, doctor]


def _parser(modules: Sequence[ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="talkpath",
        description="Telephone-call audio at both ends of the voice platforms' wires.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"talkpath {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in modules:
        module.add_command(commands)
    return parser


def _with_negative_values(words: Sequence[str]) -> list[str]:
    """Write ``--loss -1%`` as ``--loss=-1%``; argparse would take ``-1%`` for an option."""
    joined: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return joined + list(words[place:])
        if _NEGATIVE.match(word) and joined and _OPTION.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The words after the program's name; those of the process by default.
    """
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    try:
        modules = _modules()
    except ImportError as error:
        if words[:1] != ["doctor"]:
            print(
                f"talkpath: something it needs is missing ({error}); talkpath doctor says what to do", file=sys.stderr
            )
            return 1
        modules = [doctor]
    try:
        options = _parser(modules).parse_args(_with_negative_values(words))
    except SystemExit as stop:
        # argparse has said what it had to say: help (0) or what is wrong (2).
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return int(options.run(options))
    except (ConfigError, FormatError) as error:
        print(f"talkpath: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has gone (| head); there is nobody left to tell.
        sys.stderr.close()
        return 1
