"""The report of a call: exactly the documented keys in JSON, a table for people."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from talkpath.cli.progress import Progress, meter
from talkpath.cli.report import ORDERLY, CallReport, Checkpoint, Lateness, in_words, table
from talkpath.records import EndReason, MarkOutcome, Outcome

REPORT = CallReport(
    wire="plivo",
    end_reason=EndReason.APPLICATION_HUNG_UP,
    duration_ms=5_020,
    media_sent=251,
    media_received=200,
    heard_ms=4_000,
    checkpoints=(Checkpoint("greeting", "PLAYED", 32_000),),
    digits_sent="12#",
    digits_received="",
    lateness_ms=Lateness(0.1, 0.4, 2.5),
    lost=3,
    late=1,
    concealed_ms=80,
    clears=1,
    refused_messages={"bad_json": 2},
)


def test_json_is_one_line_with_the_documented_keys() -> None:
    text = REPORT.to_json()
    assert "\n" not in text
    assert json.loads(text) == {
        "wire": "plivo",
        "end_reason": "application_hung_up",
        "duration_ms": 5020,
        "media_sent": 251,
        "media_received": 200,
        "heard_ms": 4000,
        "checkpoints": [{"name": "greeting", "outcome": "PLAYED", "at_sample": 32000}],
        "digits_sent": "12#",
        "digits_received": "",
        "lateness_ms": {"p50": 0.1, "p99": 0.4, "max": 2.5},
        "lost": 3,
        "late": 1,
        "concealed_ms": 80,
        "clears": 1,
        "refused_messages": {"bad_json": 2},
    }


def test_a_failed_call_has_the_same_keys() -> None:
    failed = CallReport(wire="plivo", end_reason=EndReason.CONNECT_FAILED)
    assert json.loads(failed.to_json()).keys() == json.loads(REPORT.to_json()).keys()
    assert not failed.orderly


def test_which_ends_are_a_success() -> None:
    assert {reason.value for reason in ORDERLY} == {
        "duration_reached", "caller_hung_up", "application_hung_up", "stream_timed_out",
    }  # fmt: skip
    assert REPORT.orderly


@pytest.mark.parametrize("reason", EndReason)
def test_every_failure_has_words_on_one_line(reason: EndReason) -> None:
    said = in_words(reason, "TooSlowError")
    if reason in ORDERLY:
        assert said == ""
        return
    words, colon, detail = said.rpartition(": ")
    assert (words, colon, detail) == (in_words(reason), ": ", "TooSlowError")
    assert len(words) > 10
    assert in_words(reason, " of\n two lines ").endswith(": of two lines")


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_is_in_the_documented_table_with_its_exit_status(reason: EndReason) -> None:
    page = Path(__file__).parents[2] / "docs" / "command-line.md"
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("|") and f"`{reason.value}`" in line]
    assert row.split("|")[2].strip() == ("0" if reason in ORDERLY else "1")


def test_marks_move_from_the_track_to_the_recording() -> None:
    assert Checkpoint.of(MarkOutcome("a", Outcome.CLEARED, 10_000), 960) == Checkpoint("a", "CLEARED", 9_040)


def test_what_was_settled_before_the_recording_begins_is_not_moved_into_it() -> None:
    assert Checkpoint.of(MarkOutcome("a", Outcome.PLAYED, 0), 47).at_sample == -47


def test_the_table_says_what_happened() -> None:
    text = table(REPORT.rows())
    for words in (
        "application_hung_up after 5.02 s",
        "p99 0.40 ms",
        "PLAYED at sample 32000",
        "2 bad_json",
        "pressed 12#",
    ):
        assert words in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_one_line_a_second() -> None:
    out = io.StringIO()
    with Progress(out=out) as progress:
        for elapsed_ms in range(0, 2500, 100):
            progress.show(elapsed_ms, "speaking")
        progress.say(2500, "checkpoint a: PLAYED")
    assert out.getvalue().splitlines() == [
        "   0 s  speaking", "   1 s  speaking", "   2 s  speaking", "   2.5 s  checkpoint a: PLAYED",
    ]  # fmt: skip


def test_a_terminal_gets_one_line_that_changes_and_is_wiped() -> None:
    out = Terminal()
    with Progress(out=out) as progress:
        progress.show(0, "a long line of text")
        progress.show(100, "short")
        progress.say(200, "event")
    pieces = out.getvalue().split("\r")
    assert pieces[2].startswith("   0.1 s  short")
    assert len(pieces[2]) == len(pieces[1])
    assert pieces[-1] == "   0.2 s  event\n"


def test_quiet_is_quiet_and_a_reader_that_has_gone_is_no_error() -> None:
    out = io.StringIO()
    Progress(quiet=True, out=out).say(0, "x")
    assert out.getvalue() == ""
    progress = Progress(out=out)
    out.close()
    progress.say(0, "x")
    progress.show(0, "y")


@pytest.mark.parametrize(
    ("level", "bar"),
    [(0.0, "############"), (-45.0, "............"), (-127.0, "............"), (-22.5, "######......")],
)
def test_levels_are_drawn(level: float, bar: str) -> None:
    assert meter(level) == bar
