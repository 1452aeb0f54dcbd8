"""Checks of an application: the checker is the platform, dials as often as it needs to, and judges what comes back.

`APPLICATION_CHECKS` is the table, `check_application` runs it. Most checks have a call of their own, so that what one
breaks is not the next one's trouble; those that judge what an application says share one *conversation*: the caller is
silent, talks over what he hears, and is silent again.

What is special to WebSockets (pings, fragments, masks) is asked of a `WebSocketPeer` alone and not applicable to the
wires on gRPC or bare TCP.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from talkpath.errors import RemoteWireError
from talkpath.events import Clear, Digit, Mark, Media, MediaFormat, UnknownMessage
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
from talkpath.testing.foreign import unknown_message, with_other_numbers, with_unknown_fields
from talkpath.testing.message_peer import BINARY, TEXT, MessagePeer, WebSocketPeer, frame
from talkpath.testing.other_peers import BUSY, BUSY_STATUSES, REFUSED, REFUSED_STATUSES, AudioSocketPeer, GrpcPeer
from talkpath.testing.simulated_platform import SimulatedPlatform, open_simulated_stream
from talkpath.testing.tones import ToneSource
from talkpath.transport.carrier import parse_target
from talkpath.transport.grpc import open_grpc
from talkpath.transport.upgrade import open_link, receive_some, send_all
from talkpath.wire.catalog import wire_named
from talkpath.wire.entry import Wire
from talkpath.wire.websocket import ClientHandshake, HandshakeError

ANSWER_S = 2.0
"""How long an application may take to answer what asks for an answer: a pong, a close."""
TOLERATED_S = 0.5
"""How long it is watched after something it has to tolerate."""
DIAL_S = 10.0
_TURNED_AWAY_S = 0.1
_BUSY_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
CLOSE_NORMAL, CLOSE_GOING_AWAY = 1000, 1001
_LIMITS = {"plivo": 64 * 1024, "asterisk": 65_500}
"""Bytes of one message, where the platform says a bound."""
_LONGEST_MESSAGE_BYTES = 1 << 20
"""Where it says none: more than any application has reason to send at once."""


@dataclass(frozen=True, slots=True)
class ApplicationTarget:
    """An application under test, and how it is dialled."""

    url: str = field(repr=False)
    wire: str
    media_format: MediaFormat | None = None
    """Of the stream; None: mu-law, or what the wire has instead."""
    options: Any = None
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth_token: str = field(default="", repr=False)
    """With it the upgrade is signed in the wire's way."""
    bearer_token: str = field(default="", repr=False)
    tls_context: Any = None


class ApplicationProbe:
    """What checks may ask of an application: calls, and what was seen in one conversation with it."""

    def __init__(self, target: ApplicationTarget, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self.target = target
        self.wire: Wire = wire_named(target.wire)
        formats = self.wire.formats
        default = ("PCMU", 8000) if ("PCMU", 8000) in formats else formats[0]
        self.media_format = target.media_format or MediaFormat(*default)
        self._entropy = entropy
        self._conversation: Conversation | None = None
        self._address = parse_target(self.wire.transport, target.url)

    async def dial(self, *, credentials: bool = True) -> MessagePeer:
        """Connect, and upgrade where there is something to upgrade.

        Raises:
            OSError: nobody answers.
            RemoteWireError: refused; of a WebSocket a `HandshakeError`.
        """
        target = self._address
        headers: list[tuple[str, str]] = []
        if credentials:
            nonce = str(int.from_bytes(self._entropy(8), "big"))
            headers += self.wire.upgrade_headers(self.target.auth_token, nonce, target.url)
            if self.target.bearer_token:
                headers.append(("Authorization", f"Bearer {self.target.bearer_token}"))
        with trio.move_on_after(DIAL_S):
            if self.wire.transport == "grpc":
                metadata = tuple((name.lower(), value) for name, value in headers)
                context = self.target.tls_context
                return GrpcPeer(await open_grpc(target, self.wire.grpc_method, metadata=metadata, context=context))
            link = await open_link(target, self.target.tls_context)
            if self.wire.transport == "audiosocket":
                return AudioSocketPeer(link)
            offered = (self.wire.subprotocol,) if self.wire.subprotocol else ()
            try:
                handshake = ClientHandshake(target.authority, target.path, headers, subprotocols=offered)
                await send_all(link, handshake.request)
                buffer = bytearray(4096)
                while not handshake.receive(bytes(await receive_some(link, buffer))):
                    pass
            except BaseException:
                link.close()
                raise
            return WebSocketPeer(link, handshake.leftover, client=True, subprotocol=handshake.subprotocol)
        raise TimeoutError(110, f"no answer to the upgrade within {DIAL_S:g} s")

    async def _dial_patiently(self) -> MessagePeer:
        """Dial; where it is busy for the moment (503 or 429, as a server under load may say), again a little later."""
        for pause_s in _BUSY_PAUSES_S:
            try:
                return await self.dial()
            except RemoteWireError as error:
                busy = error.kind == BUSY or (isinstance(error, HandshakeError) and error.status in (429, 503))
                if not busy:
                    raise
            await trio.sleep(pause_s)
        return await self.dial()

    @asynccontextmanager
    async def call(self, *, start: bool = True) -> AsyncIterator[Call]:
        """Hold one call to the application. Raises Broken when it cannot be had."""
        for pause_s in (*_BUSY_PAUSES_S, 0.0):
            platform = await self._platform()
            peer = platform.peer
            async with open_simulated_stream(platform, start=start):
                if pause_s and await _turned_away(peer):
                    await trio.sleep(pause_s)
                    continue
                try:
                    yield Call(platform, peer)
                except OSError:
                    await peer.wait_end(TOLERATED_S)
                    if peer.close_code is not None:
                        broken(f"it closed the connection with {peer.close_code}")
                    raise
                return

    async def _platform(self) -> SimulatedPlatform:
        """Dial, and be the platform's end. Raises Broken."""
        try:
            peer = await self._dial_patiently()
        except HandshakeError as error:
            broken(f"the upgrade was refused: {error}" if error.status else f"the upgrade failed: {error}")
        except RemoteWireError as error:
            broken(f"the call was refused: {error}")
        return SimulatedPlatform(
            self.wire,
            peer,
            media_format=self.media_format,
            options=self.target.options,
            parameters=self.target.parameters,
            entropy=self._entropy,
        )

    async def conversation(self) -> Conversation:
        """Return what one whole call was like; it takes place at the first asking."""
        if self._conversation is None:
            async with self.call() as call:
                self._conversation = await _converse(call)
        return self._conversation


@dataclass
class Call:
    """A call to the application."""

    platform: SimulatedPlatform
    peer: MessagePeer

    async def still_there(self, after: str, within_s: float = TOLERATED_S) -> None:
        """Watch for a while, then see that it still reads: a ping is answered, where there are pings. Raises Broken."""
        await self.peer.wait_until(lambda: self.peer.close_code is not None, within_s)
        self._not_closed(after)
        if not isinstance(self.peer, WebSocketPeer):
            return
        took = await self.peer.ping(ANSWER_S)
        self._not_closed(after)
        expect(took is not None, f"{after} it answers no ping within {ANSWER_S:g} s: it does not read any more")

    def _not_closed(self, after: str) -> None:
        peer = self.peer
        if peer.close_code is not None:
            broken(f"{after} it closed the connection with {peer.close_code}")
        if peer.at_end:
            broken(f"{after} the connection was gone without a close")


@dataclass
class Conversation:
    """What was seen in one whole call."""

    platform: SimulatedPlatform
    peer: MessagePeer
    pongs_s: list[float | None]
    """How long the pings took that were sent while the application spoke; None: no answer."""
    closed_in_between: bool
    close_code: int | None


async def _converse(call: Call) -> Conversation:
    platform, peer = call.platform, call.peer
    rate_hz = platform.media_format.sample_rate_hz
    tone = ToneSource(450.0, rate_hz, -9.0)
    pongs: list[float | None] = []
    await peer.wait_until(lambda: bool(platform.named(Media)), ANSWER_S)
    # A second of what is said, then the caller talks over it for a second and a half, then he listens.
    for talks in (False, False, True, True, True, False, False, False):
        if talks:
            platform.say(tone.take(rate_hz // 2))
        if peer.at_end or peer.close_code is not None:
            break
        speaking = platform.heard_until_s > trio.current_time()
        if isinstance(peer, WebSocketPeer):
            took = await peer.ping(ANSWER_S)
            if speaking:
                pongs.append(took)
        await peer.wait_until(lambda: peer.close_code is not None, 0.5)
    closed = peer.close_code is not None or peer.at_end
    if not closed:
        await platform.stop()
        await peer.close()
        await peer.wait_until(lambda: peer.at_end, ANSWER_S)
    return Conversation(platform, peer, pongs, closed, peer.close_code)


async def _turned_away(peer: MessagePeer) -> bool:
    """Whether an application that has no upgrade to refuse has ended the call at once, for want of room."""
    if isinstance(peer, WebSocketPeer):
        return False
    await peer.wait_until(lambda: peer.closed, _TURNED_AWAY_S)
    return peer.closed and (not isinstance(peer, GrpcPeer) or peer.status in BUSY_STATUSES)


def _websocket(peer: MessagePeer) -> WebSocketPeer:
    """Return the peer as a WebSocket's. Raises NotApplicable."""
    if not isinstance(peer, WebSocketPeer):
        skip("this wire does not travel on a WebSocket")
    return peer


# The checks ------------------------------------------------------------------------------------------------------


async def _opens(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        wanted = probe.wire.subprotocol
        if wanted and isinstance(call.peer, WebSocketPeer):
            expect(call.peer.subprotocol == wanted, f"the subprotocol {wanted!r} was offered and not selected")
        await call.still_there("after the stream's start")
    return "the connection was accepted and the stream taken" + (f", subprotocol {wanted}" if wanted else "")


async def _credentials(probe: ApplicationProbe) -> str:
    if not (probe.target.auth_token or probe.target.bearer_token):
        skip("no token was given (--token, --auth-token)")
    if probe.wire.transport == "audiosocket":
        skip("this wire has no place for credentials")
    try:
        peer = await probe.dial(credentials=False)
        if isinstance(peer, GrpcPeer):
            return await _refused_call(peer)
    except HandshakeError as error:
        expect(
            error.status in (401, 403), f"an upgrade without credentials was answered {error.status}, not 401 or 403"
        )
        status = error.status
    except RemoteWireError as error:
        expect(error.kind in REFUSED, f"a call without credentials was refused otherwise: {error}")
        return f"a call without credentials was refused: {error}"
    else:
        peer.abort()
        broken("an upgrade without credentials was accepted")
    return f"an upgrade without credentials was answered {status}"


async def _refused_call(peer: GrpcPeer) -> str:
    try:
        with trio.move_on_after(ANSWER_S):
            await peer.run(lambda arrival: None)
    finally:
        peer.abort()
    expect(peer.status in REFUSED_STATUSES, "a call without credentials was accepted")
    return f"a call without credentials was answered {peer.status}"


async def _media(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        call.platform.say(ToneSource(450.0, call.platform.media_format.sample_rate_hz).take(4000))
        await call.still_there("while the caller was heard", 2.0)
        expect(call.peer.slowest_send_s < 1.0, f"it left a message unread for {call.peer.slowest_send_s:.1f} s")
    return "two seconds of the caller were read"


async def _unknown_message(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        ((example, _),) = call.platform.write(call.platform.next_media())
        if not call.platform.dialect.writes_binary and call.platform.dialect.media_template("inbound").binary:
            example = call.platform.write(Digit("1"))[0][0]
        unknown = unknown_message(call.platform.dialect, example)
        if unknown is None:
            skip("this wire has no room for unknown messages")
        await call.peer.send(unknown[0], binary=unknown[1])
        await call.still_there("after a message of a kind it cannot know")
    return "tolerated"


async def _unknown_fields(probe: ApplicationProbe) -> str:
    return await _changed(
        probe,
        with_unknown_fields,
        "after a start and audio with fields it cannot know",
        "this wire's messages have no room for fields",
    )


async def _number_forms(probe: ApplicationProbe) -> str:
    return await _changed(
        probe,
        lambda dialect, message, *, binary: with_other_numbers(dialect, message),
        "after numbers written as text, and text as numbers",
        "this wire's numbers have one form",
    )


async def _changed(probe: ApplicationProbe, change: Callable[..., bytes | None], after: str, nowhere: str) -> str:
    """Start a stream whose messages are changed, all of them."""
    async with probe.call(start=False) as call:
        platform, changed = call.platform, 0
        messages = platform.write(platform.started)
        for _ in range(10):
            messages += platform.write(platform.next_media())
        messages += platform.write(Digit("5", timestamp_ms=200, duration_ms=100))
        for message, binary in messages:
            other = change(platform.dialect, message, binary=binary)
            changed += other is not None
            await call.peer.send(other if other is not None else message, binary=binary)
        if not changed:
            skip(nowhere)
        await call.still_there(after)
    return "tolerated"


async def _fragments(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        ping, peer = b"between fragments", _websocket(call.peer)
        for message, binary in call.platform.write(call.platform.next_media()):
            await peer.send_fragments(message, binary=binary, ping=ping)
        await call.still_there("after a message in fragments, a ping between them")
        took = await peer.ponged(ping, ANSWER_S, send=False)
        expect(took is not None, "a ping between two fragments was not answered")
    return "a message in three fragments was read, and a ping between them answered"


async def _pings(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        for payload in (b"", b"talkpath", bytes(range(125))):
            took = await _websocket(call.peer).ponged(payload, ANSWER_S)
            expect(took is not None, f"a ping of {len(payload)} bytes was not answered within {ANSWER_S:g} s")
    return "each ping was answered with its own payload"


async def _split(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        n_pieces, peer = 0, _websocket(call.peer)
        for message, binary in call.platform.write(_shortened(call.platform.next_media())):
            data = frame(BINARY if binary else TEXT, message, os.urandom(4))
            await peer.send_pieces([data[n : n + 1] for n in range(len(data))], apart_s=0.0005)
            n_pieces += len(data)
        await call.still_there("after a message that came byte by byte")
    return f"a message was read that came in {n_pieces} pieces"


def _shortened(media: Media) -> Media:
    """Shorten audio to 10 ms or less: what is sent byte by byte need not be long."""
    return replace(media, payload=media.payload[: min(len(media.payload), 160) // 2 * 2])


async def _masks(probe: ApplicationProbe) -> str:
    seen = _websocket((await probe.conversation()).peer)
    expect(
        not seen.masked_frames_read,
        f"{seen.masked_frames_read} of its {seen.frames_read} frames are masked; a server's",
    )
    expect(not seen.violations, f"its frames break RFC 6455: {'; '.join(seen.violations[:3])}")
    async with probe.call() as call:
        peer = _websocket(call.peer)
        for message, binary in call.platform.write(call.platform.next_media()):
            await peer.send_pieces([frame(BINARY if binary else TEXT, message, None)])
        await peer.wait_until(lambda: peer.close_code is not None, ANSWER_S)
        expect(peer.close_code is not None or peer.at_end, "a client's frame without a mask was accepted")
    return "its frames have no mask, and one without a mask from a client ends the connection"


async def _messages(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    if not talk.peer.arrivals:
        skip("it said nothing")
    if talk.platform.refused:
        error = talk.platform.refused[0]
        broken(f"{len(talk.platform.refused)} of its messages are not of this wire; the first: {error}")
    unknown = talk.platform.named(UnknownMessage)
    if unknown:
        broken(f"{len(unknown)} of its messages are of a kind this wire does not have: {unknown[0][1].kind}")
    return f"{len(talk.peer.arrivals)} messages, all of this wire"


async def _audio(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    about_audio = [e for e in talk.platform.refused if e.kind in ("odd_length", "unknown_format", "bad_base64")]
    if about_audio:
        broken(f"{len(about_audio)} audio messages cannot be played; the first: {about_audio[0]}")
    spoken = [media for _, media in talk.platform.named(Media)]
    if not spoken:
        skip("it played nothing")
    right = talk.platform.dialect.play_format
    for media in spoken:
        if media.media_format is not None and media.media_format != right:
            given = media.media_format
            broken(
                f"it plays {given.encoding} at {given.sample_rate_hz} Hz on a stream of"
                f" {right.encoding} at {right.sample_rate_hz} Hz"
            )
        expect(bool(media.payload), "an audio message is empty")
        expect(len(media.payload) % right.sample_bytes == 0, "an audio message ends within a sample")
    n_bytes = sum(len(media.payload) for media in spoken)
    seconds = n_bytes / right.sample_bytes / right.sample_rate_hz
    return f"{seconds:.2f} s in {len(spoken)} messages, {right.encoding} at {right.sample_rate_hz} Hz, whole samples"


async def _reads_on(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    _websocket(talk.peer)
    if not talk.pongs_s:
        skip("it was not speaking when it was looked at")
    slowest = max((took for took in talk.pongs_s if took is not None), default=0.0)
    expect(None not in talk.pongs_s, f"a ping was not answered within {ANSWER_S:g} s while it spoke")
    expect(slowest <= 1.0, f"while it spoke, a ping took {slowest:.1f} s")
    expect(talk.peer.slowest_send_s <= 1.0, f"while it spoke, audio waited {talk.peer.slowest_send_s:.1f} s unread")
    return f"it read on while it spoke; pings took at most {slowest * 1000:.0f} ms"


async def _marks(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    about_marks = [error for error in talk.platform.refused if error.event in ("mark", "checkpoint", "MARK_MEDIA")]
    if about_marks:
        broken(f"a checkpoint cannot be read: {about_marks[0]}")
    marks = [mark for _, mark in talk.platform.named(Mark) if not mark.id or mark.name]
    if not marks:
        skip("it set no checkpoint")
    for mark in marks:
        expect(mark.name.strip() != "", "a checkpoint has no name")
    if talk.platform.answered and talk.closed_in_between:
        expect(talk.close_code in (CLOSE_NORMAL, CLOSE_GOING_AWAY), f"it closed with {talk.close_code} after an answer")
    return f"{len(marks)} checkpoints with names; {len(talk.platform.answered)} were reached and reported to it"


async def _clears(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    if not talk.platform.named(Clear):
        skip("it cleared nothing when the caller talked over it")
    if talk.closed_in_between:
        expect(talk.close_code in (CLOSE_NORMAL, CLOSE_GOING_AWAY), f"it closed with {talk.close_code} after its clear")
    at_s = talk.platform.named(Clear)[0][0]
    later = [error for error in talk.platform.refused if error.event]
    expect(not later, f"after its clear was obeyed it said what is not of this wire: {later[0] if later else ''}")
    went_on = sum(1 for at, _ in talk.platform.events if at > at_s)
    return f"it cleared {len(talk.platform.named(Clear))} times, and went on ({went_on} messages after the first)"


async def _digits(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        await call.still_there("after the stream's start")
        if not await call.platform.press("5"):
            skip("this wire has no message for a pressed key")
        await call.peer.wait_until(lambda: call.peer.close_code is not None, TOLERATED_S)
        if call.peer.close_code in (CLOSE_NORMAL, CLOSE_GOING_AWAY):
            return f"it hung up at the key 5, with {call.peer.close_code}"
        await call.still_there("after the key 5")
    return "the key 5 was taken"


async def _silence(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        await call.still_there("after the stream's start")
        call.platform.streaming = False
        await call.peer.wait_until(lambda: call.peer.close_code is not None, 3.0)
        if call.peer.close_code in (CLOSE_NORMAL, CLOSE_GOING_AWAY):
            return f"it hung up when no audio came, with {call.peer.close_code}"
        call.platform.streaming = True
        await call.still_there("after three seconds without audio")
    return "three seconds without audio were borne"


async def _ends(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        await call.still_there("after the stream's start")
        said = await call.platform.stop()
        if not call.peer.at_end:
            await call.peer.close()
        began = trio.current_time()
        await call.peer.wait_until(lambda: call.peer.at_end, ANSWER_S)
        code = call.peer.close_code
        expect(code is not None, "the close was not answered")
        expect(
            code in (CLOSE_NORMAL, CLOSE_GOING_AWAY, 1005), f"the end of the call was answered with {code}, not 1000"
        )
        expect(call.peer.at_end, f"it closed with {code}, but the connection is open {ANSWER_S:g} s later")
    took_ms = (call.peer.ended_s - began) * 1000
    return f"{'stop and close' if said else 'close'}: answered with {code}, and gone within {took_ms:.0f} ms"


async def _quiet_after_close(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        await call.peer.wait_until(lambda: bool(call.platform.named(Media)), ANSWER_S)
        await call.peer.close()
        await call.peer.wait_until(lambda: call.peer.at_end, ANSWER_S)
        # Whatever follows its close frame lies in the same direction behind it, so the end is the place to look.
        expect(call.peer.close_code is not None, "the close was not answered")
        peer = _websocket(call.peer)
        expect(not peer.after_close, f"{peer.after_close} frames came after its close")
    return "nothing came after its close"


async def _survives(probe: ApplicationProbe) -> str:
    async with probe.call() as call:
        await call.still_there("after the stream's start")
        if isinstance(call.peer, WebSocketPeer):
            half = frame(TEXT, b'{"event":"media","med', os.urandom(4), fin=False)
            await call.peer.send_pieces([half[:-5]])
        call.peer.abort()
    async with probe.call() as call:
        await call.still_there("as the next call after one that broke off")
    return "a call broke off within a message; the next one was taken"


async def _sizes(probe: ApplicationProbe) -> str:
    talk = await probe.conversation()
    if not talk.peer.arrivals:
        skip("it said nothing")
    limit = _LIMITS.get(probe.wire.name, _LONGEST_MESSAGE_BYTES)
    longest = talk.peer.longest_message_bytes
    expect(longest <= limit, f"its longest message has {longest} bytes; at most {limit} are right")
    return f"its longest message has {longest} bytes, at most {limit} are right"


APPLICATION_CHECKS: Sequence[Check[ApplicationProbe]] = (
    Check(1, "opens", "accepts the upgrade (and its subprotocol), takes the opening messages, stays", _opens),
    Check(
        2, "credentials", "refuses an upgrade without the token or signature it asks for, with 401 or 403", _credentials
    ),
    Check(3, "media", "reads the caller's audio as it comes", _media),
    Check(4, "unknown-message", "tolerates a message of a kind it does not know", _unknown_message),
    Check(5, "unknown-fields", "tolerates fields it does not know, in any message", _unknown_fields),
    Check(6, "number-forms", "tolerates numbers as text, and text as numbers", _number_forms),
    Check(7, "fragments", "reads a message in fragments, with a ping between them", _fragments),
    Check(8, "pings", "answers each ping with its payload", _pings),
    Check(9, "split", "reads a message that arrives byte by byte", _split),
    Check(10, "masks", "masks no frame, and refuses a client's without a mask; keeps RFC 6455", _masks),
    Check(11, "messages", "says nothing but this wire's messages", _messages),
    Check(12, "audio", "plays the stream's format, in whole samples", _audio),
    Check(13, "reads-on", "goes on reading while it speaks", _reads_on),
    Check(14, "marks", "gives checkpoints names, and bears their answers", _marks),
    Check(15, "clears", "bears the answer to its clear, and goes on", _clears),
    Check(16, "digits", "bears a pressed key", _digits),
    Check(17, "silence", "bears it when no audio comes for a while", _silence),
    Check(18, "ends", "answers the end with 1000 and is gone soon", _ends),
    Check(19, "quiet-after-close", "sends nothing after its close", _quiet_after_close),
    Check(20, "survives", "takes the next call after one that broke off within a message", _survives),
    Check(21, "sizes", "keeps its messages within the platform's limit", _sizes),
)
"""What an application is asked."""


async def check_application(
    target: ApplicationTarget,
    *,
    only: Sequence[str] = (),
    on_finding: Callable[[Finding], None] | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> ConformanceReport:
    """Play the platform against an application and judge it.

    Args:
        target: the application.
        only: numbers or names of checks; all where empty.
        on_finding: told of each check as it comes out.
        entropy: n -> n random bytes; of ids and nonces.

    Raises:
        ConfigError: a wire, format, option or check that there is not.

    Cancellation: the call under way is broken off; nothing remains.
    """
    checks = selected(APPLICATION_CHECKS, only)
    findings = await judge_all(checks, ApplicationProbe(target, entropy), on_finding=on_finding)
    return ConformanceReport(target.wire, "application", findings)
