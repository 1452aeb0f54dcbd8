"""Each check of a platform passes on ours, over every wire, and catches a platform that breaks its rule."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

import talkpath
from support.frames import KEY, frame
from support.saboteur import CLOSE, PONG, TEXT, Frame, HangUp, Reply, Saboteur, Step, again, close, relaying
from support.virtual import virtual_engine
from talkpath.engine import MemoryLeg, StreamSpec
from talkpath.errors import CallEnded
from talkpath.testing import quiescence
from talkpath.testing.checks import ConformanceReport, Finding, Verdict
from talkpath.testing.platform_checks import PLATFORM_CHECKS, check_platform, take_stream
from talkpath.testing.platform_probe import PlatformTarget
from talkpath.transport.link import SocketLink
from talkpath.transport.memory import listen_memory
from talkpath.wire.asterisk import AsteriskOptions
from talkpath.wire.catalog import WIRES
from talkpath.wire.native import Kind


def judge(
    wire: str,
    spoiled: Saboteur | None = None,
    *,
    only: Sequence[str] = (),
    press: str = "",
    hangs_up: bool = False,
    spec: dict[str, Any] | None = None,
    **target: Any,
) -> ConformanceReport:
    """Run checks on our engine in virtual time, with somebody in between or not."""

    async def main() -> ConformanceReport:
        told = PlatformTarget(wire, hang_up_s=5.0 if hangs_up else 0.0, press_s=1.0 if press else 0.0, **target)
        listener = listen_memory("checker")
        leg = MemoryLeg()

        async def place() -> None:
            async with virtual_engine() as engine, engine.open_call(leg) as call:
                try:
                    await call.start_stream(
                        StreamSpec(url=url, wire=wire, **{"bidirectional": True, "ends_call": True, **(spec or {})})
                    )
                except CallEnded:
                    return
                await call.wait_ended()

        def announce(text: str) -> None:
            if text.startswith("press"):
                leg.press(press)
            else:
                leg.hang_up()

        async with trio.open_nursery() as nursery:
            url = "memory://checker"
            if spoiled is not None:
                relaying(nursery, spoiled, "between", url)
                url = "memory://between"
            nursery.start_soon(place)
            report = await check_platform(
                told, await take_stream(told, await listener.accept()), only=only, announce=announce
            )
            await trio.sleep(2)  # the call ends with its stream
            nursery.cancel_scope.cancel()
        listener.close()
        return report

    with quiescence():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def finding(report: ConformanceReport) -> Finding:
    (only,) = report.findings
    return only


FRAMED = {"upgrade", "masks", "pings", "fragments"}
"""What is judged of WebSockets alone."""
NOTHING_TO_JUDGE = {
    "plivo": {"pause"},
    "twilio": {"pause", "digits-taken"},
    "signalwire": {"pause"},
    "teler": {
        *("chunks", "timestamps", "pause", "digits-taken", "digit-pressed"),
        *("mark-empty", "mark-played", "mark-order", "clear"),
    },
    "native": {"ids", "chunks"},
    "asterisk": {"ids", "sequence", "chunks", "timestamps", "digits-taken", "unknown-fields"},
    "freeclimb": {"ids", "chunks", "pause"} | FRAMED,
    "audiosocket": {
        *("ids", "sequence", "chunks", "timestamps", "pause", "unknown-fields", "digits-taken", "garbage"),
        *("mark-empty", "mark-played", "mark-order", "clear"),
        *FRAMED,
    },
}


@pytest.mark.parametrize("wire", WIRES)
def test_our_platform_keeps_every_rule(wire: str) -> None:
    report = judge(wire, press="7")
    assert [one for one in report.findings if one.verdict is Verdict.FAILED] == []
    assert [one.number for one in report.findings] == list(range(1, len(PLATFORM_CHECKS) + 1))
    nothing_to_judge = {one.name for one in report.findings if one.verdict is Verdict.NOT_APPLICABLE}
    assert nothing_to_judge == {"credentials", "stop"} | NOTHING_TO_JUDGE[wire]


OTHERWISE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plivo", {"codec": "L16@16000h"}),
    ("plivo", {"codec": "PCMU", "message_ms": 60}),
    ("signalwire", {"codec": "L16@24000h"}),
    ("teler", {"codec": "L16@16000h", "message_ms": 20}),
    ("native", {"codec": "PCMA"}),
    ("freeclimb", {"codec": "L16@16000h"}),
    ("asterisk", {"options": AsteriskOptions(control="json")}),
)


@pytest.mark.parametrize(("wire", "spec"), OTHERWISE, ids=[f"{row[0]}-{n}" for n, row in enumerate(OTHERWISE)])
def test_our_platform_keeps_every_rule_in_its_other_forms(wire: str, spec: dict[str, Any]) -> None:
    report = judge(wire, spec=spec)
    assert [one for one in report.findings if one.verdict is Verdict.FAILED] == []


@pytest.mark.parametrize("wire", ["twilio", "signalwire", "native", "freeclimb", "audiosocket"])
def test_our_platform_says_the_end_when_the_caller_hangs_up(wire: str) -> None:
    report = judge(wire, only=["stop", "ends"], hangs_up=True)
    assert [one.verdict for one in report.findings] == [Verdict.PASSED, Verdict.NOT_APPLICABLE]


def test_both_tracks_of_a_one_way_stream_are_judged() -> None:
    report = judge("twilio", spec={"bidirectional": False, "track": "both_tracks"}, only=[*"3456789", "10"])
    assert [one for one in report.findings if one.verdict is not Verdict.PASSED] == []
    (chunks,) = (one for one in report.findings if one.name == "chunks")
    assert "inbound 1 to" in chunks.reason
    assert "outbound 1 to" in chunks.reason


@pytest.mark.parametrize("wire", ["plivo", "twilio"])
def test_a_signature_is_judged(wire: str) -> None:
    told: dict[str, Any] = {"auth_token": "the secret", "public_url": "memory://checker"}
    right = finding(judge(wire, only=["credentials"], spec={"auth_token": "the secret"}, **told))
    assert right.verdict is Verdict.PASSED
    for spec in ({}, {"auth_token": "another"}):
        assert finding(judge(wire, only=["credentials"], spec=spec, **told)).verdict is Verdict.FAILED


def test_a_bearer_token_is_judged() -> None:
    for token, verdict in (("abc", Verdict.PASSED), ("abd", Verdict.FAILED), ("", Verdict.FAILED)):
        spec = {"authorization_bearer_token": token}
        assert finding(judge("signalwire", only=["2"], spec=spec, bearer_token="abc")).verdict is verdict


def saying(change: Callable[[int, dict[str, Any]], list[dict[str, Any]]]) -> type[Saboteur]:
    """A platform whose messages are changed; `change` is told their number, from 1."""

    class Saying(Saboteur):
        def to_server(self, one: Frame) -> Sequence[Step]:
            if one.opcode != TEXT:
                return [again(one)]
            self.seen += 1
            changed = change(self.seen, json.loads(one.payload))
            return [frame(TEXT, json.dumps(said).encode(), key=KEY) for said in changed]

    return Saying


def refusing(what: Callable[[Frame], bool]) -> type[Saboteur]:
    """A platform that ends the stream when it is told something."""

    class Refusing(Saboteur):
        def to_client(self, one: Frame) -> Sequence[Step]:
            return [Reply(close(1003, key=KEY))] if what(one) else [again(one)]

    return Refusing


def hearing(change: Callable[[Frame], Sequence[Step]]) -> type[Saboteur]:
    """A platform that hears other than it is told."""

    class Hearing(Saboteur):
        def to_client(self, one: Frame) -> Sequence[Step]:
            return change(one)

    return Hearing


def event_of(one: Frame) -> str:
    try:
        return str(json.loads(one.payload)["event"])
    except (ValueError, KeyError, TypeError):
        return ""


def platform_says(**said: object) -> Reply:
    return Reply(frame(TEXT, json.dumps(said).encode(), key=KEY))


def no_call(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if n == 1:
        said["start"]["callId"] = ""
    return [said]


def another_word(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    return [said, {"event": "speechStarted"}] if n == 20 else [said]


def another_stream(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**said, "streamId": "another"}] if n == 20 else [said]


def drops_one(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    return [] if n == 20 else [said]


def skips_a_chunk(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if n >= 20 and "media" in said:
        said["media"]["chunk"] += 1
    return [said]


def jumps_in_time(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if n >= 20 and "media" in said:
        said["media"]["timestamp"] = str(int(said["media"]["timestamp"]) + 500)
    return [said]


def goes_back_in_time(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if n >= 20 and "media" in said:
        said["media"]["timestamp"] = str(int(said["media"]["timestamp"]) - 100)
    return [said]


def half_a_message(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if n == 20:
        said["media"]["payload"] = base64.b64encode(bytes(80)).decode()
    return [said]


def twice(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    return [said, said] if said["event"] == "playedStream" else [said]


def no_such_key(n: int, said: dict[str, Any]) -> list[dict[str, Any]]:
    if "dtmf" in said:
        said["dtmf"]["digit"] = "E"
    return [said]


class Stutters(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        self.seen += 1
        return [0.5, again(one)] if self.seen == 20 else [again(one)]


class Slow(Saboteur):
    """A platform whose audio comes at half the pace."""

    def to_server(self, one: Frame) -> Sequence[Step]:
        return [0.04, again(one)]


class Unmasked(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        return [frame(one.opcode, one.payload, fin=one.fin)]


class NoPongs(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        return [] if one.opcode == PONG else [again(one)]


class NoSubprotocol(Saboteur):
    subprotocol = ""


def late_answers(one: Frame) -> Sequence[Step]:
    return [1.0, again(one)] if event_of(one) == "checkpoint" else [again(one)]


def early_answers(one: Frame) -> Sequence[Step]:
    if event_of(one) != "checkpoint":
        return [again(one)]
    return [platform_says(event="playedStream", name=json.loads(one.payload)["name"])]


def no_clear(one: Frame) -> Sequence[Step]:
    return [platform_says(event="clearedAudio")] if event_of(one) == "clearAudio" else [again(one)]


def no_pause(one: Frame) -> Sequence[Step]:
    return [] if one.payload[:2] == b"\x95\x01" and one.payload[2] == Kind.PAUSE else [again(one)]


class NoFragments(Saboteur):
    """A platform that loses messages in fragments."""

    def to_client(self, one: Frame) -> Sequence[Step]:
        lost = not one.fin or one.opcode == 0
        return [] if lost else [again(one)]


class BreaksOff(Saboteur):
    def to_client(self, one: Frame) -> Sequence[Step]:
        if one.payload.startswith(b"}"):
            raise HangUp
        return [again(one)]


class SaysTheEndTwice(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        return [again(one), again(one)] if event_of(one) == "stop" else [again(one)]


class TalksAfterTheEnd(Saboteur):
    def to_server(self, one: Frame) -> Sequence[Step]:
        if event_of(one) != "stop":
            return [again(one)]
        return [again(one), frame(TEXT, b'{"event":"mark","mark":{"name":"late"}}', key=KEY)]


BROKEN: tuple[tuple[str, str, type[Saboteur], str, dict[str, Any]], ...] = (
    ("asterisk", "upgrade", NoSubprotocol, "'media' was not offered", {}),
    ("plivo", "opening", saying(no_call), "names no call", {}),
    ("plivo", "messages", saying(another_word), "speechStarted", {}),
    ("plivo", "ids", saying(another_stream), "name 2 different streams", {}),
    ("plivo", "sequence", saying(drops_one), "after number 19 came 21", {}),
    ("plivo", "chunks", saying(skips_a_chunk), "after chunk 18 of the inbound track came 20", {}),
    ("plivo", "timestamps", saying(jumps_in_time), "goes on by 520 ms after 20 ms of audio", {}),
    ("plivo", "timestamps", saying(goes_back_in_time), "goes back by 80 ms", {}),
    ("plivo", "payloads", saying(half_a_message), "do not hold 20 ms, but 10", {}),
    ("plivo", "cadence", Stutters, "paused for", {}),
    ("plivo", "cadence", Slow, "of the inbound track came in", {}),
    ("plivo", "masks", Unmasked, "frames of a client have no mask", {}),
    ("plivo", "pings", NoPongs, "a ping was not answered", {}),
    ("plivo", "mark-empty", hearing(late_answers), "answered after 10", {}),
    ("plivo", "mark-played", hearing(early_answers), "too early", {}),
    ("plivo", "mark-played", hearing(late_answers), "late", {}),
    ("plivo", "mark-order", saying(twice), "in the wrong order or more than once", {}),
    ("plivo", "clear", hearing(no_clear), "the checkpoint was not answered", {}),
    ("native", "pause", hearing(no_pause), "reached while its audio was paused", {}),
    ("plivo", "fragments", NoFragments, "500 ms of audio in fragments were not played", {}),
    ("plivo", "unknown-fields", refusing(lambda one: b'"talkpathUnknown":true' in one.payload), "ended the stream", {}),
    ("plivo", "unknown-message", refusing(lambda one: event_of(one) == "talkpathUnknown"), "with 1003", {}),
    ("plivo", "digits-taken", refusing(lambda one: event_of(one) == "sendDTMF"), "ended the stream with 1003", {}),
    ("plivo", "digit-pressed", saying(no_such_key), "a pressed key cannot be read", {"press": "7"}),
    ("plivo", "garbage", BreaksOff, "gone without a close", {}),
    ("twilio", "stop", SaysTheEndTwice, "2 end messages", {"hangs_up": True}),
    ("twilio", "stop", TalksAfterTheEnd, "something came after the end message", {"hangs_up": True}),
    ("plivo", "ends", hearing(lambda one: [] if one.opcode == CLOSE else [again(one)]), "was not answered within", {}),
)


@pytest.mark.parametrize(
    ("wire", "check", "broken", "says", "options"), BROKEN, ids=[f"{row[1]}-{n}" for n, row in enumerate(BROKEN)]
)
def test_a_broken_platform_is_caught(
    wire: str, check: str, broken: type[Saboteur], says: str, options: dict[str, Any]
) -> None:
    caught = finding(judge(wire, broken(), only=[check], **options))
    assert caught.verdict is Verdict.FAILED
    assert says in caught.reason


def test_every_check_has_a_platform_that_fails_it() -> None:
    assert {row[1] for row in BROKEN} | {"credentials"} == {check.name for check in PLATFORM_CHECKS}


def test_a_platform_that_never_starts_fails_at_its_opening_alone() -> None:
    class Silent(Saboteur):
        def to_server(self, one: Frame) -> Sequence[Step]:
            return [] if one.opcode == TEXT else [again(one)]

    report = judge("plivo", Silent())
    assert [one.name for one in report.findings if one.verdict is Verdict.FAILED] == ["opening"]


@pytest.mark.slow
@pytest.mark.smoke
async def test_over_loopback() -> None:
    told = PlatformTarget("signalwire", tolerance_ms=2_000)
    with trio.fail_after(30):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        async with listener, trio.open_nursery() as nursery, talkpath.open_engine() as engine:

            async def place() -> None:
                async with engine.open_call(MemoryLeg()) as call:
                    spec = StreamSpec(
                        url=f"ws://127.0.0.1:{port}", wire="signalwire", bidirectional=True, ends_call=True
                    )
                    await call.start_stream(spec)
                    await call.wait_ended()

            nursery.start_soon(place)
            accepted = (await listener.accept()).socket
            link = SocketLink(socket.socket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach()))
            report = await check_platform(
                told, await take_stream(told, link), only=["opening", "messages", "mark-empty", "clear", "ends"]
            )
    assert [one for one in report.findings if one.verdict is not Verdict.PASSED] == []
