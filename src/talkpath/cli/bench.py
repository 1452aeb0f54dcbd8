"""``talkpath bench``: run the benchmarks of a checkout."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from talkpath.errors import ConfigError

_EPILOG = """\
The benchmarks live in the source tree, beside the peers they measure against.

  talkpath bench                 everything: tables on stdout, JSON in build/bench.json
  talkpath bench calls           how many two-way calls one core of this machine carries: ramp to the knee,
                                 overload, hold, and a look at what is left over; two minutes
  talkpath bench -- ARGUMENTS    what follows `--` is handed to the benchmarks

examples:
  talkpath bench calls --short
  talkpath bench calls --design "talkpath tasks" --json -
  talkpath bench -- calls --short    designs and peers in turns
  talkpath bench -- --json -     JSON on stdout, tables on stderr
  talkpath bench -- --help

Exit status of `bench calls`: 0 measured; 1 not measured, or not to be trusted: the calls were not carried cleanly where
they were held, the load generator was the limit there, or something was left over.
"""


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "bench",
        help="measure against named peers in the same run (in a checkout)",
        description="Measure against named peers in the same run; tables on stdout, JSON in build/bench.json.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="calls [...] | -- ...", help="what to measure; see below"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hand over to the benchmarks' own entry point."""
    root = checkout()
    if root is None or not (root / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the benchmarks come with the source tree, not with the package; run this in a checkout: make bench"
        )
    arguments = list(options.arguments)
    if arguments[:1] == ["--"]:
        del arguments[0]
    elif arguments[:1] == ["calls"]:
        arguments[0] = "knee"
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=root, check=False).returncode


def checkout() -> Path | None:
    """Return the root of the source tree this module runs from; None when it was installed as a package."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "csrc").is_dir() and (root / "pyproject.toml").is_file() else None
