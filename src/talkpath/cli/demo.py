"""``talkpath demo``: a whole call through real loopback sockets, by a script, judged at its end.

The caller says nothing while the bot greets him, talks over it when it asks again, is echoed, presses ``12#``, and the
bot hangs up. His packets cross a seeded bad link on their way to the engine.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkpath.audio import AudioClip, Samples, read_audio, write_audio
from talkpath.cli import values
from talkpath.cli.bench import checkout
from talkpath.cli.call import CallPlan, PlacedCall, place_call
from talkpath.cli.progress import Progress
from talkpath.cli.report import seconds, table
from talkpath.dsp import Level
from talkpath.errors import ConfigError
from talkpath.records import EndReason, Outcome
from talkpath.testing.caller import Press
from talkpath.testing.likeness import find_copy
from talkpath.units import ms_to_samples, samples_to_ms

if TYPE_CHECKING:
    from talkpath.line import Line

    Bot = Callable[[Line], Awaitable[None]]

_RATE_HZ = 8_000
_SPEAKS_AT_MS = 6_500
_PRESSES_AT_MS = 16_000
_LONGEST_MS = 20_000
_KEYS = "12#"
_SKIPPED_MS = 200
_PIECE_MS = 400
"""In which the echo is looked for: the delay to the caller may change within a second, on a busy machine often."""
_QUIET_DBOV = -45.0
"""A piece of speech that is quieter says nothing."""
_SAME = 0.8
"""Likeness from which audio counts as the same; lost and concealed packets cost some of it."""

_EPILOG = """\
The bot is examples/demo_bot.py, so this runs in a checkout (make demo). What the caller heard is written to
demo-out/heard.wav. Exit status 1 when the call did not go as scripted.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that the script demands."""

    name: str
    held: bool
    says: str


@dataclass(frozen=True, slots=True)
class Echo:
    """The caller's words as they came back to him."""

    delays_ms: tuple[float, ...]
    """One per piece of speech that was recognised."""
    n_pieces: int

    @property
    def median_ms(self) -> float:
        return float(np.median(self.delays_ms)) if self.delays_ms else float("nan")


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "demo",
        help="play a whole call through real loopback sockets (20 s)",
        description="Play a whole call through real loopback sockets: caller, engine, Plivo's wire, bot, and back.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where heard.wav goes (demo-out)"
    )
    parser.add_argument("--seed", type=values.seed, default=7, metavar="N", help="of the bad link (7)")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Play the call and judge it."""
    from talkpath.cli.runs import run_bare

    root = checkout()
    if root is None:
        raise ConfigError("the demonstration needs the examples of the source tree; run it in a checkout: make demo")
    audio = root / "examples" / "audio"
    speech = read_audio(audio / "caller.wav").at_rate(_RATE_HZ)
    greeting = read_audio(audio / "greeting.wav").at_rate(_RATE_HZ)
    options.out.mkdir(parents=True, exist_ok=True)
    print(
        "A caller with 30 ms of jitter, 3 % loss and reordering calls examples/demo_bot.py over Plivo's wire.",
        flush=True,
    )
    with Progress(quiet=options.quiet) as progress:
        placed = run_bare(play, _bot(root / "examples" / "demo_bot.py"), speech, options.seed, progress)
    recording = options.out / "heard.wav"
    write_audio(recording, placed.heard.samples, placed.heard.sample_rate_hz)
    echo = echo_of(speech.samples, placed.heard.samples)
    verdicts = judge(placed, greeting.samples, echo)
    print()
    print(table(rows(placed, echo, verdicts)))
    print(f"\nWhat the caller heard: {recording}")
    failed = [verdict for verdict in verdicts if not verdict.held]
    if placed.failure:
        print(f"talkpath demo: {placed.failure}", file=sys.stderr)
    for verdict in failed:
        print(f"talkpath demo: not as scripted: {verdict.name}: {verdict.says}", file=sys.stderr)
    return 1 if failed else 0


async def play(bot: Bot, speech: AudioClip, seed: int, progress: Progress) -> PlacedCall:
    """Serve the bot and call it."""
    import trio

    from talkpath.line import serve_lines

    waits = np.zeros(ms_to_samples(_SPEAKS_AT_MS, speech.sample_rate_hz), np.int16)
    async with trio.open_nursery() as nursery:
        ((host, port),) = await nursery.start(serve_lines, bot, "127.0.0.1", 0)
        plan = CallPlan(
            url=f"ws://{host}:{port}/demo",
            speech=AudioClip(np.concatenate([waits, speech.samples]), speech.sample_rate_hz),
            presses=(Press(_KEYS, _PRESSES_AT_MS),),
            duration_ms=_LONGEST_MS,
            jitter_ms=30,
            loss=0.03,
            reorder=0.02,
            seed=seed,
        )
        placed = await place_call(plan, progress)
        nursery.cancel_scope.cancel()
    return placed


def echo_of(speech: Samples, heard: Samples) -> Echo:
    """Find the caller's speech in what he heard, piece by piece, and how long it was on its way."""
    second, piece = _RATE_HZ, ms_to_samples(_PIECE_MS, _RATE_HZ)
    spoken_at = ms_to_samples(_SPEAKS_AT_MS, _RATE_HZ)
    delays, n_pieces, level = [], 0, Level()
    # The first second goes into the barge-in.
    for start in range(second, len(speech) - second, piece):
        said = speech[start : start + piece]
        around = heard[spoken_at + start :][: piece + second]
        if len(around) < piece or level.process(said) < _QUIET_DBOV:
            continue
        n_pieces += 1
        copy = find_copy(around, said)
        if copy.likeness >= _SAME:
            delays.append(copy.at_sample * 1000 / _RATE_HZ)
    return Echo(tuple(delays), n_pieces)


def judge(placed: PlacedCall, greeting: Samples, echo: Echo) -> list[Verdict]:
    """Compare the call with its script."""
    report, heard = placed.report, placed.heard.samples
    outcomes = {point.name: point for point in report.checkpoints}
    greeted, again = outcomes.get("greeting"), outcomes.get("asked again")
    # The bot may begin a few samples before the recording does, so the greeting is looked for without its beginning.
    skipped = ms_to_samples(_SKIPPED_MS, _RATE_HZ)
    copy = find_copy(heard, greeting[skipped:]) if len(heard) >= len(greeting) else None
    found = "no"
    if copy is not None:
        begins_ms = samples_to_ms(max(copy.at_sample - skipped, 0), _RATE_HZ)
        found = f"at {seconds(begins_ms)}, likeness {copy.likeness:.3f}"
    cleared_ms = samples_to_ms(again.at_sample, _RATE_HZ) if again is not None else -1
    echoed = len(echo.delays_ms)
    return [
        Verdict("the greeting is heard", copy is not None and copy.likeness >= _SAME, found),
        Verdict(
            "its checkpoint is PLAYED",
            greeted is not None and greeted.outcome == Outcome.PLAYED,
            str(greeted) if greeted else "not reported",
        ),
        Verdict(
            "talking over it clears",
            again is not None
            and again.outcome == Outcome.CLEARED
            and _SPEAKS_AT_MS <= cleared_ms <= _SPEAKS_AT_MS + 1_000,
            f"{again}, {cleared_ms - _SPEAKS_AT_MS} ms into the caller's speech" if again else "not reported",
        ),
        Verdict(
            "the caller is echoed",
            2 * echoed > echo.n_pieces and echo.median_ms < 1_000,
            f"{echoed} of {echo.n_pieces} pieces recognised, round trip {echo.median_ms:.0f} ms",
        ),
        Verdict("digits arrive", report.digits_sent == _KEYS, report.digits_sent or "none"),
        Verdict(
            "the bot hangs up",
            report.end_reason is EndReason.APPLICATION_HUNG_UP,
            f"{report.end_reason.value} after {seconds(report.duration_ms)}",
        ),
    ]


def rows(placed: PlacedCall, echo: Echo, verdicts: list[Verdict]) -> list[tuple[str, str]]:
    """Lay out the call for people."""
    report = placed.report
    spread = f" ({min(echo.delays_ms):.0f} to {max(echo.delays_ms):.0f})" if echo.delays_ms else ""
    lines = [(("ok      " if verdict.held else "NOT SO  ") + verdict.name, verdict.says) for verdict in verdicts]
    lines += [
        ("", ""),
        ("round-trip delay", f"median {echo.median_ms:.0f} ms{spread}, jitter buffer and codec included"),
        ("outgoing lateness", str(report.lateness_ms)),
        ("caller's packets", f"{report.lost} lost, {report.late} late, {report.concealed_ms} ms concealed"),
        ("messages", f"{report.media_sent} media to the bot, {report.media_received} from it, {report.clears} clears"),
    ]
    return lines + report.checkpoint_rows()


def _bot(path: Path) -> Bot:
    described = importlib.util.spec_from_file_location("talkpath_demo_bot", path)
    if described is None or described.loader is None or not path.is_file():
        raise ConfigError(f"there is no bot at {path}")
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    bot: Bot = module.bot
    return bot
