"""Checks of a platform: the checker is the application, takes one call, and judges what the platform does in it.

`PLATFORM_CHECKS` is the table. A platform's calls cannot be had for the asking, so all checks share one: first the
caller is heard for a while, then the platform is asked for one thing after another, and what might end the stream
comes last. `check_platform` judges one connection; `take_stream` gives it one that a platform opened.

Times are judged with a tolerance (`PlatformTarget.tolerance_ms`), since a platform's audio passes through its own
queue and the network both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import trio

from talkpath.events import (
    Clear,
    Cleared,
    Digit,
    Mark,
    MarkReached,
    Media,
    Pause,
    Resume,
    SendDigits,
    StreamStarted,
    StreamStopped,
    UnknownMessage,
)
from talkpath.records import Outcome
from talkpath.testing.checks import (
    Check,
    ConformanceReport,
    Finding,
    broken,
    expect,
    judge_all,
    selected,
    skip,
)
from talkpath.testing.foreign import sequence_of, stream_ids_in, unknown_message, with_unknown_fields
from talkpath.testing.message_peer import MessagePeer, WebSocketPeer
from talkpath.testing.other_peers import AudioSocketPeer, GrpcPeer
from talkpath.testing.platform_probe import ANSWER_S, LISTEN_S, PlatformProbe, PlatformTarget, websocket_of
from talkpath.transport.link import Link
from talkpath.transport.upgrade import receive_upgrade, send_all
from talkpath.wire.catalog import wire_named
from talkpath.wire.websocket import UpgradeRequest

OPENING_S = 5.0
ENDS_S = 2.0
CADENCE_SHARE = 0.05
"""How far the amount of audio may be from the time it took."""


async def _upgrade(probe: PlatformProbe) -> str:
    wanted, peer = probe.wire.subprotocol, websocket_of(probe.peer)
    expect(not wanted or peer.subprotocol == wanted, f"the subprotocol {wanted!r} was not offered")
    return "a WebSocket was asked for" + (f", subprotocol {wanted}" if wanted else "")


async def _credentials(probe: PlatformProbe) -> str:
    target, request = probe.target, probe.request
    if not (target.auth_token or target.bearer_token):
        skip("no token was given (--token, --auth-token)")
    if request is None:
        if not isinstance(probe.peer, GrpcPeer) or not target.bearer_token:
            skip("this wire has no place for credentials")
        await probe.peer.wait_until(lambda: probe.started is not None, OPENING_S)
        expect(probe.peer.metadata.get("authorization") == f"Bearer {target.bearer_token}", "no right authorization")
        return "the call bears the right credentials"
    if target.bearer_token:
        said = request.headers.get("authorization", "")
        expect(bool(said), "the upgrade has no Authorization")
        expect(said == f"Bearer {target.bearer_token}", "Authorization is not the bearer token")
    if target.auth_token:
        url = (target.public_url.rstrip("/") or f"ws://{request.host}") + request.target
        nonce = next((value for name, value in request.headers.items() if name.endswith("nonce")), "none")
        expected = probe.wire.upgrade_headers(target.auth_token, nonce, url)
        if not expected and not target.bearer_token:
            skip("upgrades of this wire are not signed")
        for name, value in expected:
            expect(name.lower() in request.headers, f"the upgrade has no {name}")
            expect(request.headers[name] == value, f"{name} is not right for the address {url.partition('?')[0]}")
    return "the upgrade bears the right credentials"


async def _opening(probe: PlatformProbe) -> str:
    await probe.peer.wait_until(lambda: probe.started is not None or bool(probe.refused), OPENING_S)
    if probe.refused:
        broken(f"its opening is not of this wire: {probe.refused[0]}")
    started = probe.started
    if started is None:
        broken(f"no stream was started within {OPENING_S:g} s; {len(probe.heard)} messages came")
    kinds = [type(event).__name__ for one in probe.heard for event in one.events]
    before = kinds[: kinds.index("StreamStarted")]
    expect(set(before) <= {"Handshaken"}, f"{', '.join(before)} came before the start")
    expect(bool(started.stream_id), "the start names no stream")
    expect(bool(started.call_id), "the start names no call")
    expect(bool(started.tracks), "the start names no track")
    formats = (started.media_format.encoding, started.media_format.sample_rate_hz)
    expect(formats in probe.wire.formats, f"{formats[0]} at {formats[1]} Hz is no format of this wire's")
    return f"{formats[0]} at {formats[1]} Hz, tracks {', '.join(started.tracks)}"


async def _messages(probe: PlatformProbe) -> str:
    await probe.listen()
    if probe.refused:
        broken(f"{len(probe.refused)} of its messages are not of this wire; the first: {probe.refused[0]}")
    unknown = [event.kind for _, event in probe.said(UnknownMessage)]
    expect(not unknown, f"messages of a kind this wire does not have: {', '.join(sorted(set(unknown)))}")
    starts = len(probe.said(StreamStarted))
    expect(starts == 1, f"the stream was started {starts} times")
    return f"{len(probe.heard)} messages, all of this wire"


async def _ids(probe: PlatformProbe) -> str:
    await probe.listen()
    assert probe.started is not None
    seen: set[str] = set()
    without = 0
    for one in probe.heard:
        ids = stream_ids_in(probe.dialect, one.payload)
        seen |= ids
        without += not ids
    if not seen:
        skip("this wire's messages do not name the stream")
    expect(seen == {probe.started.stream_id}, f"messages name {len(seen)} different streams")
    return f"one stream throughout; {len(probe.heard) - without} of {len(probe.heard)} messages name it"


async def _sequence(probe: PlatformProbe) -> str:
    await probe.listen()
    numbers = [n for one in probe.heard if (n := sequence_of(probe.dialect, one.payload)) is not None]
    audio_alone = not numbers
    if audio_alone:
        numbers = [media.sequence for _, media in probe.said(Media) if media.sequence is not None]
    if not numbers:
        skip("this wire's messages have no numbers")
    # Where only audio is numbered (FreeClimb), nothing says where the numbers begin.
    expect(audio_alone or numbers[0] == 1, f"the first number is {numbers[0]}, not 1")
    for before, after in pairwise(numbers):
        expect(after == before + 1, f"after number {before} came {after}")
    return f"{numbers[0]} to {numbers[-1]} without a gap"


async def _chunks(probe: PlatformProbe) -> str:
    await probe.listen()
    tracks = {
        track: [media.chunk for _, media in heard if media.chunk is not None] for track, heard in probe.tracks().items()
    }
    if not any(tracks.values()):
        skip("this wire's audio has no chunk numbers")
    for track, chunks in tracks.items():
        expect(bool(chunks) and chunks[0] == 1, f"the first chunk of the {track} track is {chunks[:1]}, not 1")
        for before, after in pairwise(chunks):
            expect(after == before + 1, f"after chunk {before} of the {track} track came {after}")
    return ", ".join(f"{track} 1 to {chunks[-1]}" for track, chunks in tracks.items())


def _duration_ms(probe: PlatformProbe, media: Media) -> float:
    given = media.media_format or probe.dialect.media_format
    return len(media.payload) / given.sample_bytes / given.sample_rate_hz * 1000


async def _timestamps(probe: PlatformProbe) -> str:
    await probe.listen()
    judged = 0
    for track, heard in probe.tracks().items():
        timed = [media for _, media in heard if media.timestamp_ms is not None or media.position is not None]
        for before, after in pairwise(timed):
            if before.position is not None and after.position is not None:
                expect(
                    after.position == before.position + len(before.payload) // probe.dialect.media_format.sample_bytes,
                    f"positions of the {track} track do not follow from the audio",
                )
            elif before.timestamp_ms is not None and after.timestamp_ms is not None:
                step = after.timestamp_ms - before.timestamp_ms
                expect(step >= 0, f"a timestamp of the {track} track goes back by {-step} ms")
                right = _duration_ms(probe, before)
                expect(
                    abs(step - right) <= right / 2 + 1,
                    f"a timestamp of the {track} track goes on by {step} ms after {right:g} ms of audio",
                )
            judged += 1
    if not judged:
        skip("this wire's audio has no timestamps")
    return f"{judged} steps, each as long as the audio before it"


async def _payloads(probe: PlatformProbe) -> str:
    await probe.listen()
    sizes = [round(_duration_ms(probe, media), 3) for _, media in probe.said(Media)]
    if not sizes:
        broken("no audio came")
    common = max(set(sizes), key=sizes.count)
    expect(common in probe.wire.message_ms, f"messages hold {common:g} ms of audio, which this platform's never do")
    odd = [size for size in sizes[:-1] if size != common]
    expect(not odd, f"{len(odd)} of {len(sizes)} messages do not hold {common:g} ms, but {odd[0] if odd else 0:g}")
    return f"{len(sizes)} messages of {common:g} ms"


async def _cadence(probe: PlatformProbe) -> str:
    await probe.listen()
    worst_ms = 0.0
    for track, heard in probe.tracks().items():
        if len(heard) < 3:
            broken(f"{len(heard)} messages of the {track} track came within {LISTEN_S:g} s")
        each_ms = _duration_ms(probe, heard[0][1])
        gaps = [(after - before) * 1000 for (before, _), (after, _) in pairwise(heard)]
        worst_ms = max(worst_ms, max(abs(gap - each_ms) for gap in gaps))
        expect(
            max(gaps) <= each_ms + probe.target.tolerance_ms,
            f"the {track} track paused for {max(gaps):.0f} ms between messages of {each_ms:g} ms",
        )
        audio_ms = sum(_duration_ms(probe, media) for _, media in heard[1:])
        wall_ms = (heard[-1][0] - heard[0][0]) * 1000
        expect(
            abs(audio_ms - wall_ms) <= wall_ms * CADENCE_SHARE + probe.target.tolerance_ms,
            f"{audio_ms:.0f} ms of the {track} track came in {wall_ms:.0f} ms",
        )
    if not probe.tracks():
        broken("no audio came")
    return f"messages came within {worst_ms:.0f} ms of their grid"


async def _pings(probe: PlatformProbe) -> str:
    probe.check_open()
    took = await websocket_of(probe.peer).ping(ANSWER_S)
    expect(took is not None, f"a ping was not answered within {ANSWER_S:g} s")
    return f"a ping was answered after {(took or 0) * 1000:.0f} ms"


async def _masks(probe: PlatformProbe) -> str:
    await probe.listen()
    peer = websocket_of(probe.peer)
    unmasked = peer.frames_read - peer.masked_frames_read
    if peer.client:
        expect(not peer.masked_frames_read, "a server's frames have a mask")
    else:
        expect(not unmasked, f"{unmasked} of {peer.frames_read} frames of a client have no mask")
    expect(not peer.violations, f"its frames break RFC 6455: {'; '.join(peer.violations[:3])}")
    return f"{peer.frames_read} frames" + (", all masked" if not peer.client else ", none masked")


async def _mark_empty(probe: PlatformProbe) -> str:
    began = trio.current_time()
    name = await probe.mark()
    try:
        at_s = await probe.answered(name, ANSWER_S)
    except Exception:
        probe.two_way = False
        raise
    expect(at_s - began <= probe.tolerance_s, f"answered after {(at_s - began) * 1000:.0f} ms")
    return f"answered after {(at_s - began) * 1000:.0f} ms"


async def _mark_played(probe: PlatformProbe) -> str:
    began = await probe.play(500)
    took_s = await probe.answered(await probe.mark(), 0.5 + ANSWER_S) - began
    expect(
        took_s >= 0.5 - probe.tolerance_s, f"answered {took_s * 1000:.0f} ms after 500 ms of audio were sent: too early"
    )
    expect(took_s <= 0.5 + probe.tolerance_s, f"answered {took_s * 1000:.0f} ms after 500 ms of audio were sent: late")
    return f"answered {took_s * 1000:.0f} ms after 500 ms of audio were sent"


async def _mark_order(probe: PlatformProbe) -> str:
    names = []
    for duration_ms in (100, 100, 0):
        await probe.play(duration_ms)
        names.append(await probe.mark())
    for name in names:
        await probe.answered(name, 0.2 + ANSWER_S)
    order = [event.name for _, event in probe.said(MarkReached) if event.name in names]
    expect(order == names, f"three checkpoints were answered as {len(order)}, in the wrong order or more than once")
    wrong = [event.outcome for name in names for _, event in probe.answers_to(name)]
    expect(set(wrong) <= {Outcome.PLAYED, None}, "a checkpoint that was played is reported as something else")
    return "three checkpoints were answered once each, in their order"


async def _clear(probe: PlatformProbe) -> str:
    await probe.play(3000)
    behind = await probe.mark()
    await probe.peer.wait_until(lambda: False, 0.3)
    expect(not probe.answers_to(behind), "a checkpoint behind three seconds of audio was answered within 0.3 s")
    confirmed = len(probe.said(Cleared))
    began = trio.current_time()
    await probe.tell(Clear())
    empty_s = await probe.answered(await probe.mark(), ANSWER_S) - began
    expect(
        empty_s <= probe.tolerance_s, f"after a clear, a checkpoint took {empty_s * 1000:.0f} ms: something still plays"
    )
    answers = probe.answers_to(behind)
    dialect = probe.dialect
    if dialect.returns_marks_on_clear:
        expect(bool(answers), "the checkpoint that was pending did not come back after the clear")
        outcomes = {event.outcome for _, event in answers}
        expect(Outcome.PLAYED not in outcomes, "the checkpoint that was cleared is reported as played")
        said = "what was pending came back"
    else:
        await probe.peer.wait_until(lambda: False, 0.2)
        expect(not probe.answers_to(behind), "the checkpoint that was cleared was answered; this wire drops it")
        said = "what was pending was dropped"
    if dialect.confirms_clear:
        expect(len(probe.said(Cleared)) == confirmed + 1, "the clear was not confirmed once")
        said += ", the clear confirmed"
    return f"the queue was empty after {empty_s * 1000:.0f} ms; {said}"


async def _pause(probe: PlatformProbe) -> str:
    probe.write(Pause())
    await probe.play(300)
    name = await probe.mark()
    await probe.tell(Pause())
    await probe.peer.wait_until(lambda: False, 0.6)
    expect(not probe.answers_to(name), "a checkpoint was reached while its audio was paused")
    resumed = trio.current_time()
    await probe.tell(Resume())
    took_s = await probe.answered(name, ANSWER_S) - resumed
    expect(abs(took_s - 0.3) <= probe.tolerance_s, f"300 ms of audio took {took_s * 1000:.0f} ms from resume on")
    return f"held, and went on; the rest took {took_s * 1000:.0f} ms"


async def _fragments(probe: PlatformProbe) -> str:
    probe.check_open()
    began, peer = trio.current_time(), websocket_of(probe.peer)
    for message, binary in probe.write(probe.audio(500)):
        await peer.send_fragments(message, binary=binary, ping=b"between fragments")
    if probe.dialect.has_marks and probe.two_way:
        took_s = await probe.answered(await probe.mark(), 0.5 + ANSWER_S) - began
        expect(took_s >= 0.5 - probe.tolerance_s, "500 ms of audio in fragments were not played")
    await probe.reacts("after audio in fragments")
    took = await peer.ponged(b"between fragments", ANSWER_S, send=False)
    expect(took is not None, "a ping between two fragments was not answered")
    return "audio in three fragments was taken, and a ping between them answered"


async def _unknown_fields(probe: PlatformProbe) -> str:
    probe.check_open()
    commands: list[Media | Mark] = [probe.audio(40), *([Mark(probe.new_name())] if probe.dialect.has_marks else [])]
    changed = 0
    for command in commands:
        for message, binary in probe.write(command):
            other = with_unknown_fields(probe.dialect, message, binary=binary)
            changed += other is not None
            await probe.peer.send(other if other is not None else message, binary=binary)
    if not changed:
        skip("this wire's messages have no room for fields")
    if probe.two_way and isinstance(commands[-1], Mark):
        await probe.answered(commands[-1].name, ANSWER_S)
    await probe.reacts("after messages with fields it cannot know")
    return "tolerated, and obeyed"


async def _unknown_message(probe: PlatformProbe) -> str:
    probe.check_open()
    example = probe.write(probe.audio(20))[0][0]
    if not probe.dialect.writes_binary and probe.dialect.media_template("inbound").binary:
        example = probe.write(Clear())[0][0]
    unknown = unknown_message(probe.dialect, example)
    if unknown is None:
        skip("this wire has no room for unknown messages")
    await probe.peer.send(unknown[0], binary=unknown[1])
    await probe.reacts("after a message of a kind it cannot know")
    return "tolerated"


async def _digits_taken(probe: PlatformProbe) -> str:
    await probe.tell(SendDigits("12"))
    await probe.reacts("after digits to be sent")
    return "the digits 12 were taken"


async def _digit_pressed(probe: PlatformProbe) -> str:
    if not probe.said(Digit) and probe.target.press_s:
        probe.check_open()
        probe.announce(f"press a key on the telephone, within {probe.target.press_s:g} s")
        await probe.peer.wait_until(lambda: bool(probe.said(Digit)), probe.target.press_s)
    about = [error for error in probe.refused if "dtmf" in error.event.lower() or error.event == "DIGIT"]
    if about:
        broken(f"a pressed key cannot be read: {about[0]}")
    pressed = probe.said(Digit)
    if not pressed:
        skip("no key was pressed")
    return f"{len(pressed)} keys, each one of 0-9 * # A-D"


async def _garbage(probe: PlatformProbe) -> str:
    probe.check_open()
    peer = probe.peer
    if probe.wire.transport == "audiosocket":
        skip("this wire's messages are bytes of any kind")
    await peer.send(b"}this is not a message{", binary=probe.wire.transport != "websocket")
    await peer.wait_until(lambda: peer.close_code is not None, 0.5)
    if peer.close_code is not None:
        return f"it closed with {peer.close_code}"
    expect(not peer.at_end, "the connection was gone without a close")
    await probe.reacts("after garbage")
    return "tolerated"


async def _stop(probe: PlatformProbe) -> str:
    peer = probe.peer
    if probe.target.hang_up_s and not peer.at_end:
        probe.announce(f"hang up the telephone, within {probe.target.hang_up_s:g} s")
        await peer.wait_until(lambda: peer.at_end, probe.target.hang_up_s)
        expect(peer.at_end, "the caller's end did not end the stream")
        expect(peer.close_code in (1000, 1001, 1005), f"the call's end closed the connection with {peer.close_code}")
    stops = probe.said(StreamStopped)
    if not stops:
        skip("no end message was seen")
    expect(len(stops) == 1, f"{len(stops)} end messages came")
    last = next(one for one in reversed(probe.heard) if one.events)
    expect(any(isinstance(event, StreamStopped) for event in last.events), "something came after the end message")
    return "one end message, the last of all"


async def _ends(probe: PlatformProbe) -> str:
    probe.check_open()
    peer = probe.peer
    began = trio.current_time()
    await peer.close()
    await peer.wait_until(lambda: peer.at_end, ENDS_S)
    expect(peer.close_code is not None, f"our close was not answered within {ENDS_S:g} s")
    expect(peer.at_end, f"it answered our close, but the connection is open {ENDS_S:g} s later")
    if isinstance(peer, WebSocketPeer):
        expect(not peer.after_close, f"{peer.after_close} frames came after its close")
    took_ms = (peer.ended_s - began) * 1000
    return f"our close was answered with {peer.close_code} and the connection gone after {took_ms:.0f} ms"


PLATFORM_CHECKS: Sequence[Check[PlatformProbe]] = (
    Check(1, "upgrade", "asks for a WebSocket, and offers the wire's subprotocol", _upgrade),
    Check(2, "credentials", "signs the upgrade, or bears the token, as it was told to", _credentials),
    Check(3, "opening", "opens with the wire's start, complete, in a format of this wire", _opening),
    Check(4, "messages", "says nothing but this wire's messages, and starts once", _messages),
    Check(5, "ids", "names one stream throughout", _ids),
    Check(6, "sequence", "numbers its messages from 1 without a gap, where the wire numbers them", _sequence),
    Check(7, "chunks", "numbers the chunks of each track from 1 without a gap, where the wire does", _chunks),
    Check(8, "timestamps", "gives timestamps that follow from the audio", _timestamps),
    Check(9, "payloads", "fills its messages alike, with whole samples", _payloads),
    Check(10, "cadence", "sends audio at the pace of speech", _cadence),
    Check(11, "masks", "masks its frames where it dialled; keeps RFC 6455", _masks),
    Check(12, "pings", "answers a ping", _pings),
    Check(13, "mark-empty", "answers a checkpoint at once when nothing waits", _mark_empty),
    Check(14, "mark-played", "answers a checkpoint when what is before it has been played, no sooner", _mark_played),
    Check(15, "mark-order", "answers checkpoints in their order, once each", _mark_order),
    Check(16, "clear", "drops what waits at a clear, and treats pending checkpoints as the wire says", _clear),
    Check(17, "pause", "holds at a pause and goes on at the next sample, where the wire has one", _pause),
    Check(18, "fragments", "reads a message in fragments, with a ping between them", _fragments),
    Check(19, "unknown-fields", "tolerates fields it does not know", _unknown_fields),
    Check(20, "unknown-message", "tolerates a message of a kind it does not know", _unknown_message),
    Check(21, "digits-taken", "takes digits to be sent, where the wire has them", _digits_taken),
    Check(22, "digit-pressed", "tells of a pressed key", _digit_pressed, limit_s=120),
    Check(23, "garbage", "tolerates garbage, or closes with a code", _garbage),
    Check(24, "stop", "says the end once, as the last of all, where the wire has a word for it", _stop, limit_s=120),
    Check(25, "ends", "ends soon after the application closes", _ends),
)
"""What a platform is asked, in this order within one call."""


@dataclass(frozen=True, slots=True)
class TakenStream:
    """A connection that a platform opened."""

    peer: MessagePeer
    request: UpgradeRequest | None
    """Of a WebSocket."""


async def take_stream(target: PlatformTarget, link: Link) -> TakenStream:
    """Accept a platform's upgrade on a new connection, whatever credentials it has: they are judged later.

    Raises:
        RemoteWireError: what came was no upgrade; whoever sent it has been told so.
        OSError: the connection broke.
    """
    wire = wire_named(target.wire)
    if wire.transport == "grpc":
        return TakenStream(GrpcPeer(link=link, method=wire.grpc_method), None)
    if wire.transport == "audiosocket":
        return TakenStream(AudioSocketPeer(link), None)
    handshake, request = await receive_upgrade(link)
    wanted = wire.subprotocol
    answer = handshake.accept(subprotocols=(wanted,) if wanted else ())
    chosen = wanted if wanted and b"sec-websocket-protocol" in answer.lower() else ""
    await send_all(link, answer)
    return TakenStream(WebSocketPeer(link, handshake.leftover, client=False, subprotocol=chosen), request)


async def check_platform(
    target: PlatformTarget,
    stream: TakenStream,
    *,
    only: Sequence[str] = (),
    on_finding: Callable[[Finding], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> ConformanceReport:
    """Play the application on a connection that a platform opened, and judge the platform.

    Args:
        target: the platform.
        stream: the connection; closed in the end.
        only: numbers or names of checks; all where empty. The opening is always waited for.
        on_finding: told of each check as it comes out.
        announce: told what the caller is to do now, where a check waits for him.

    Raises:
        ConfigError: a wire or check that there is not.

    Cancellation: the connection is closed without a goodbye.
    """
    checks = selected(PLATFORM_CHECKS, only)
    probe = PlatformProbe(target, stream.peer, request=stream.request, announce=announce)
    findings: tuple[Finding, ...] = ()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.peer.run, probe.hear)
            nursery.start_soon(probe.greet)
            await stream.peer.wait_until(lambda: probe.started is not None, OPENING_S)
            findings = await judge_all(checks, probe, on_finding=on_finding)
            if not stream.peer.at_end:
                with suppress(OSError):  # It may hang up first.
                    await stream.peer.close()
                await stream.peer.wait_until(lambda: stream.peer.at_end, ENDS_S)
            nursery.cancel_scope.cancel()
    finally:
        stream.peer.abort()
    return ConformanceReport(target.wire, "platform", findings)
