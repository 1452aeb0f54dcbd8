"""Each check of an application passes on ours, over every wire, and catches an application that breaks its rule."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

import talkpath
from support.frames import BINARY, KEY, frame
from support.program import running
from support.saboteur import CLOSE, PING, TEXT, Frame, Reply, Saboteur, Step, again, close, relaying
from support.virtual import virtual_engine
from talkpath.errors import ConfigError, NotOnThisWire
from talkpath.events import MediaFormat
from talkpath.line import ServeConfig, serve_lines, serve_memory_lines
from talkpath.line.access import Access
from talkpath.testing import ToneSource, quiescence
from talkpath.testing.application_checks import APPLICATION_CHECKS, ApplicationTarget, check_application
from talkpath.testing.checks import ConformanceReport, Finding, Verdict
from talkpath.wire.catalog import WIRES

FRAMED = {"fragments", "pings", "split", "masks", "reads-on", "quiet-after-close"}
"""What is judged of WebSockets alone."""
NOTHING_TO_JUDGE = {
    "teler": {"marks", "digits"},
    "native": {"number-forms"},
    "asterisk": {"number-forms"},
    "freeclimb": {"number-forms"} | FRAMED,
    "audiosocket": {"unknown-fields", "number-forms", "marks", "clears"} | FRAMED,
}


async def bot(line: talkpath.Line) -> None:
    """Speak, with checkpoints, stop for the caller, then say back what he says."""
    line.barge_in(talkpath.EnergyGate())
    line.speak(ToneSource(1000).take(24_000), sample_rate_hz=8000)
    for name in ("spoken", "spoken too"):
        try:
            line.checkpoint(name.replace(" ", "-"))
        except NotOnThisWire:
            break
    async for chunk in line.listen():
        line.speak(chunk)


def judge(
    wire: str,
    spoiled: Saboteur | None = None,
    *,
    only: Sequence[str] = (),
    config: ServeConfig | None = None,
    **target: Any,
) -> ConformanceReport:
    """Run checks on our application in virtual time, with somebody in between or not."""

    async def main() -> ConformanceReport:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                lambda task_status: serve_memory_lines(bot, "bot", config=config, task_status=task_status)
            )
            if spoiled is not None:
                relaying(nursery, spoiled, "between", url)
                url = "memory://between"
            report = await check_application(
                ApplicationTarget(url, wire, **target), only=only, entropy=random.Random(3).randbytes
            )
            nursery.cancel_scope.cancel()
        return report

    with quiescence():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def finding(report: ConformanceReport) -> Finding:
    (only,) = report.findings
    return only


@pytest.mark.parametrize("wire", WIRES)
def test_our_application_keeps_every_rule(wire: str) -> None:
    report = judge(wire)
    assert [one for one in report.findings if one.verdict is Verdict.FAILED] == []
    assert [one.number for one in report.findings] == list(range(1, len(APPLICATION_CHECKS) + 1))
    nothing_to_judge = {one.name for one in report.findings if one.verdict is Verdict.NOT_APPLICABLE}
    assert nothing_to_judge == {"credentials"} | NOTHING_TO_JUDGE.get(wire, set())


@pytest.mark.parametrize(
    ("wire", "encoding", "rate_hz"),
    [
        ("plivo", "L16", 16000),
        ("signalwire", "L16", 24000),
        ("teler", "L16", 16000),
        ("native", "PCMA", 8000),
        ("audiosocket", "L16", 16000),
        ("freeclimb", "L16", 16000),
    ],
)
def test_our_application_keeps_every_rule_in_other_formats(wire: str, encoding: str, rate_hz: int) -> None:
    report = judge(wire, media_format=MediaFormat(encoding, rate_hz))
    assert [one for one in report.findings if one.verdict is Verdict.FAILED] == []


def test_an_application_that_asks_for_a_signature_is_seen_to_ask() -> None:
    config = ServeConfig(plivo_auth_token="the secret")
    report = judge("plivo", only=["opens", "credentials"], config=config, auth_token="the secret")
    assert [one.verdict for one in report.findings] == [Verdict.PASSED, Verdict.PASSED]
    wrong = judge("plivo", only=["opens"], config=config, auth_token="another")
    assert finding(wrong).verdict is Verdict.FAILED
    assert "403" in finding(wrong).reason
    careless = finding(judge("plivo", only=["credentials"], auth_token="the secret"))
    assert (careless.verdict, careless.reason) == (Verdict.FAILED, "an upgrade without credentials was accepted")


def test_a_call_over_grpc_without_the_bearer_token_is_seen_to_be_refused() -> None:
    config = ServeConfig(access=Access(bearer_tokens=("abc",)))
    report = judge("freeclimb", only=["opens", "credentials"], config=config, bearer_token="abc")
    assert [one.verdict for one in report.findings] == [Verdict.PASSED, Verdict.PASSED]
    careless = finding(judge("freeclimb", only=["credentials"], bearer_token="abc"))
    assert (careless.verdict, careless.reason) == (Verdict.FAILED, "a call without credentials was accepted")


@pytest.mark.parametrize("wire", ["plivo", "freeclimb", "audiosocket"])
def test_an_application_without_room_is_asked_again_until_it_is_judged(wire: str) -> None:
    config = ServeConfig(max_lines=1)

    async def main() -> ConformanceReport:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(
                lambda task_status: serve_memory_lines(bot, "bot", config=config, task_status=task_status)
            )
            async with virtual_engine() as engine, engine.open_call(talkpath.MemoryLeg()) as call:
                await call.start_stream(talkpath.StreamSpec(url=url, wire=wire, bidirectional=True))
                nursery.start_soon(leave, call)
                report = await check_application(ApplicationTarget(url, wire), only=["opens"])
            nursery.cancel_scope.cancel()
        return report

    async def leave(call: talkpath.Call) -> None:
        await trio.sleep(2.5)
        call.hang_up()

    with quiescence():
        report = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert finding(report).verdict is Verdict.PASSED


def test_a_subprotocol_that_is_not_selected_is_caught() -> None:
    class Deaf(Saboteur):
        selects = ()

    caught = finding(judge("asterisk", Deaf(), only=["opens"]))
    assert caught.verdict is Verdict.FAILED
    assert "'media' was offered and not selected" in caught.reason


def refusing(what: Callable[[Frame], bool], code: int = 1003) -> type[Saboteur]:
    """An application that closes when it is sent something."""

    class Refusing(Saboteur):
        def to_server(self, one: Frame) -> Sequence[Step]:
            return [Reply(close(code))] if what(one) else [again(one)]

    return Refusing


def saying(change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> type[Saboteur]:
    """An application whose messages are changed."""

    class Saying(Saboteur):
        def to_client(self, one: Frame) -> Sequence[Step]:
            if one.opcode != TEXT:
                return [again(one)]
            return [frame(TEXT, json.dumps(said).encode()) for said in change(json.loads(one.payload))]

    return Saying


def event_of(one: Frame) -> str:
    try:
        event = json.loads(one.payload)["event"]
    except ValueError:
        return ""
    return str(event)


class TakesFewer(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        self.seen += event_of(one) == "media"
        return [Reply(close(1011))] if self.seen == 60 else [again(one)]


class NoLongPing(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        return [] if one.opcode == PING and len(one.payload) == 125 else [again(one)]


class NoPieces(Saboteur):
    takes_pieces = False


class Masks(Saboteur):
    def to_client(self, one: Frame) -> Sequence[Step]:
        return [frame(one.opcode, one.payload, fin=one.fin, key=KEY)]


class TakesUnmasked(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        return [frame(one.opcode, one.payload, fin=one.fin, key=KEY)]


class Engrossed(Saboteur):
    def to_client(self, one: Frame) -> Sequence[Step]:
        self.seen += one.opcode == TEXT
        return [again(one)]

    def to_server(self, one: Frame) -> Sequence[Step]:
        return [] if one.opcode == PING and self.seen else [again(one)]


class Impatient(Saboteur):
    idle_s = 1.0


class Fragile(Saboteur):
    dies_of_a_break = True


class SaysGoodbyeBadly(Saboteur):
    def to_client(self, one: Frame) -> Sequence[Step]:
        return [close(1011)] if one.opcode == CLOSE else [again(one)]


class TalksOn(Saboteur):
    def to_client(self, one: Frame) -> Sequence[Step]:
        return [again(one), frame(TEXT, b"{}")] if one.opcode == CLOSE else [again(one)]


def another_format(said: dict[str, Any]) -> list[dict[str, Any]]:
    if "media" in said:
        said["media"].update(contentType="audio/x-l16", sampleRate=8000)
    return [said]


def half_a_payload(said: dict[str, Any]) -> list[dict[str, Any]]:
    if "media" in said:
        said["media"]["payload"] = said["media"]["payload"][:-1]
    return [said]


def another_word(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [said, {"event": "playSound"}]


def no_name(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**said, "name": ""} if said["event"] == "checkpoint" else said]


def far_too_long(said: dict[str, Any]) -> list[dict[str, Any]]:
    if "media" in said:
        said["media"]["payload"] = "/" * 80_000
    return [said]


def number_is_text(one: Frame) -> bool:
    return one.opcode == TEXT and b'"sequenceNumber":"' in one.payload


BROKEN: tuple[tuple[str, type[Saboteur], str], ...] = (
    ("opens", refusing(lambda one: event_of(one) == "start"), "closed the connection with 1003"),
    ("media", TakesFewer, "closed the connection with 1011"),
    ("unknown-message", refusing(lambda one: b'"event":"talkpathUnknown"' in one.payload), "closed the connection"),
    ("unknown-fields", refusing(lambda one: b'"talkpathUnknown":true' in one.payload), "closed the connection"),
    ("number-forms", refusing(number_is_text), "closed the connection"),
    ("fragments", refusing(lambda one: not one.fin), "closed the connection"),
    ("pings", NoLongPing, "a ping of 125 bytes was not answered"),
    ("split", NoPieces, "closed the connection with 1002"),
    ("masks", Masks, "are masked"),
    ("masks", TakesUnmasked, "a client's frame without a mask was accepted"),
    ("messages", saying(another_word), "of a kind this wire does not have: playSound"),
    ("messages", saying(half_a_payload), "are not of this wire"),
    ("audio", saying(another_format), "it plays L16 at 8000 Hz on a stream of PCMU at 8000 Hz"),
    ("audio", saying(half_a_payload), "cannot be played"),
    ("reads-on", Engrossed, "was not answered within 2 s while it spoke"),
    ("marks", saying(no_name), "a checkpoint cannot be read"),
    ("clears", refusing(lambda one: event_of(one) == "clearedAudio", 1011), "closed with 1011 after its clear"),
    ("digits", refusing(lambda one: event_of(one) == "dtmf"), "closed the connection with 1003"),
    ("silence", Impatient, "closed the connection with 1011"),
    ("ends", SaysGoodbyeBadly, "answered with 1011, not 1000"),
    ("quiet-after-close", TalksOn, "1 frames came after its close"),
    ("survives", Fragile, "the upgrade failed"),
    ("sizes", saying(far_too_long), "at most 65536 are right"),
)


@pytest.mark.parametrize(("check", "broken", "says"), BROKEN, ids=[f"{row[0]}-{n}" for n, row in enumerate(BROKEN)])
def test_a_broken_application_is_caught(check: str, broken: type[Saboteur], says: str) -> None:
    caught = finding(judge("plivo", broken(), only=[check]))
    assert caught.verdict is Verdict.FAILED
    assert says in caught.reason


def test_every_check_has_an_application_that_fails_it() -> None:
    assert {row[0] for row in BROKEN} | {"credentials"} == {check.name for check in APPLICATION_CHECKS}


def test_who_stands_between_and_spoils_nothing_is_not_noticed() -> None:
    report = judge("twilio", Saboteur())
    assert [one for one in report.findings if one.verdict is Verdict.FAILED] == []


def test_a_silent_application_has_nothing_to_judge_about_what_it_says() -> None:
    class Mute(Saboteur):
        def to_client(self, one: Frame) -> Sequence[Step]:
            return [] if one.opcode in (TEXT, BINARY) else [again(one)]

    report = judge("plivo", Mute(), only=["11", "12", "13", "14", "15", "21"])
    assert {one.verdict for one in report.findings} == {Verdict.NOT_APPLICABLE}


def test_nobody_at_the_address_is_a_finding() -> None:
    async def main() -> ConformanceReport:
        return await check_application(ApplicationTarget("memory://nobody", "plivo"), only=["opens"])

    report = trio.run(main)
    assert finding(report).verdict is Verdict.FAILED
    assert "the connection failed" in finding(report).reason
    assert not report.passed


def test_a_check_that_there_is_not_is_said_so() -> None:
    with pytest.raises(ConfigError, match="no check is called 'cadence'"):
        trio.run(lambda: check_application(ApplicationTarget("memory://bot", "plivo"), only=["cadence"]))


def test_a_report_reads_as_json_and_as_a_table() -> None:
    report = judge("plivo", only=["opens", "credentials"])
    said = json.loads(report.to_json())
    assert (said["wire"], said["against"]) == ("plivo", "application")
    assert (said["passed"], said["failed"], said["not_applicable"]) == (1, 0, 1)
    assert [(one["number"], one["verdict"]) for one in said["checks"]] == [(1, "passed"), (2, "not applicable")]
    assert all(one["reason"] and one["rule"] for one in said["checks"])
    lines = report.lines()
    assert lines[0].split()[:3] == ["1", "opens", "ok"]
    assert lines[-1] == "plivo application: 1 passed, 0 failed, 1 not applicable"


@pytest.mark.slow
@pytest.mark.smoke
async def test_an_application_that_is_not_ours_passes() -> None:
    """Plivo's own stream SDK on the websockets library."""
    async with running("official_sdk_bot.py", within_s=60) as sdk:
        url = f"ws://127.0.0.1:{(await sdk.wait_for('listening'))['port']}/stream"
        checks = ["unknown-message", "unknown-fields", "fragments", "pings", "split", "ends", "survives"]
        report = await check_application(ApplicationTarget(url, "plivo"), only=checks)
    assert [one for one in report.findings if one.verdict is not Verdict.PASSED] == []


@pytest.mark.slow
@pytest.mark.smoke
async def test_over_loopback() -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(serve_lines, bot, "127.0.0.1", 0)
            target = ApplicationTarget(f"ws://{host}:{port}", "twilio")
            report = await check_application(target, only=["opens", "pings", "split", "survives"])
            nursery.cancel_scope.cancel()
    assert [one for one in report.findings if one.verdict is not Verdict.PASSED] == []
