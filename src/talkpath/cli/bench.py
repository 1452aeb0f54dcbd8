"""``talkpath bench``: run the benchmarks of a checkout."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from talkpath.errors import ConfigError

_EPILOG = """\
The benchmarks live in the source tree, beside the peers they measure against; what follows `--` is handed to them.

examples:
  talkpath bench
  talkpath bench -- calls --short
  talkpath bench -- --json -     JSON on stdout, tables on stderr
  talkpath bench -- --help
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
    parser.add_argument("arguments", nargs="*", help="handed to the benchmarks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hand over to the benchmarks' own entry point."""
    root = checkout()
    if root is None or not (root / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(
            "the benchmarks come with the source tree, not with the package; run this in a checkout: make bench"
        )
    return subprocess.run([sys.executable, "-m", "benchmarks", *options.arguments], cwd=root, check=False).returncode


def checkout() -> Path | None:
    """Return the root of the source tree this module runs from; None when it was installed as a package."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "csrc").is_dir() and (root / "pyproject.toml").is_file() else None
