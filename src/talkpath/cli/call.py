"""``talkpath call``: place a simulated call to an application, and say what came of it.

A caller (`talkpath.testing.caller`) speaks RTP over loopback to an engine in this process, which streams to the
application at the given address as a platform would.
"""

from __future__ import annotations

import argparse
import sys
import wave
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from talkpath.audio import AudioClip, Samples, WavWriter, read_audio, write_audio
from talkpath.cli import values
from talkpath.cli.progress import Progress, meter
from talkpath.cli.report import CallReport, Checkpoint, Lateness, in_words, table
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import CallEvent, DigitReceived, MarkSettled, SourceCleared, StreamDegraded
from talkpath.records import CallRecord, EndReason, StreamRecord
from talkpath.testing.caller import Caller, CallerScript, Press
from talkpath.testing.link import LinkEmulator
from talkpath.units import NS_PER_MS, samples_to_ms

if TYPE_CHECKING:
    from talkpath.engine import Call, Recording, StreamSpec

WIRES = ("plivo", "twilio", "signalwire", "teler", "native", "asterisk", "freeclimb", "audiosocket")
"""The catalogue's, which is not loaded to print a help text."""
LEG_CODECS = ("PCMU", "PCMA")

_AFTER_THE_FILE_MS = 2_000
_WITHOUT_A_FILE_MS = 10_000
_LONGEST_MS = 3_600_000

_EPILOG = """\
The caller says the file from the moment the wire's start has been written, then is silent. Every time counts from the
file's first sample, which is also sample 0 of the recording: delays and at_sample can be read off it (what happens
between the start and that sample has a negative at_sample). The recording is what left the engine; with --impair both,
what arrives through the caller's own jitter buffer.

examples:
  talkpath call ws://127.0.0.1:8080 --play caller.wav --record heard.wav
  talkpath call wss://app.example/audio --play caller.wav --press '12#@4s' --duration 20s --json
  talkpath call grpc://127.0.0.1:8081 --play caller.wav --record heard.wav
  talkpath call ws://127.0.0.1:8080 --play caller.wav --loss 3% --jitter 30ms --reorder 1% --seed 7

exit status:
  0  the call took place and ended in an orderly way:
     duration_reached, caller_hung_up, application_hung_up, stream_timed_out
  1  it failed or broke off: connect_failed, handshake_timed_out, handshake_refused, wire_error, peer_stalled,
     peer_vanished, media_timed_out, control_overflow, no_capacity, internal_error, ...
  2  wrong usage
"""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One simulated call, as asked for."""

    url: str
    wire: str = "plivo"
    speech: AudioClip | None = None
    duration_ms: int = _WITHOUT_A_FILE_MS
    presses: tuple[Press, ...] = ()
    digit_on_ms: int = 100
    digit_off_ms: int = 100
    track: str = "inbound"
    codec: str = ""
    """The stream's; empty: mu-law, or what the wire has instead."""
    leg_codec: str = "PCMU"
    ptime_ms: int = 20
    latency_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0
    reorder: float = 0
    duplicate: float = 0
    seed: int = 0
    impair_both: bool = False
    bidirectional: bool = True
    bearer_token: str = field(default="", repr=False)
    parameters: dict[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    stereo: bool = False
    """Whether what the engine hears of the caller is wanted too."""


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """What came of a call: its report, and the recording."""

    report: CallReport
    heard: AudioClip
    said: Samples | None = None
    """The inbound track as the engine had it, sample by sample beside `heard`; where it was asked for."""
    failure: str = ""
    """Why it failed, in words; empty when it did not."""


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "call",
        help="place a simulated call to an application",
        description="Place a simulated call to an application that speaks a voice platform's wire.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "url",
        type=values.application_url,
        metavar="URL",
        help="the application: ws://... or wss://...; gRPC: http://... or https://..., also grpc:// and grpcs://;"
        " AudioSocket: tcp://...",
    )
    parser.add_argument(
        "--wire",
        choices=WIRES,
        help="the platform's message language (plivo; freeclimb at an address of gRPC, audiosocket at tcp://)",
    )
    parser.add_argument(
        "--play", type=values.readable_file, metavar="WAV", help="what the caller says; silence without"
    )
    parser.add_argument("--record", type=values.writable_file, metavar="WAV", help="write what the caller hears")
    parser.add_argument(
        "--stereo",
        action="store_true",
        help="record both tracks: left the caller as the engine hears him, right what he hears",
    )
    parser.add_argument(
        "--duration", type=values.positive_duration_ms, metavar="TIME", help="hang up after this (the file plus 2s)"
    )
    parser.add_argument(
        "--press",
        type=values.press,
        action="append",
        default=[],
        metavar="DIGITS@TIME",
        help="press digits: 12#@4s; repeatable",
    )
    parser.add_argument(
        "--digit-on",
        type=values.positive_duration_ms,
        default=100,
        metavar="TIME",
        help="how long a key is down (100ms)",
    )
    parser.add_argument(
        "--digit-off", type=values.positive_duration_ms, default=100, metavar="TIME", help="the pause after it (100ms)"
    )
    stream = parser.add_argument_group("the stream")
    stream.add_argument(
        "--codec",
        metavar="CODEC",
        default="",
        help="between engine and application: PCMU, PCMA, L16@16000h, ... (PCMU where the wire has it)",
    )
    stream.add_argument(
        "--track",
        choices=("inbound", "outbound", "both"),
        default="inbound",
        help="what the application hears (inbound)",
    )
    stream.add_argument("--one-way", action="store_true", help="the application only listens")
    stream.add_argument(
        "--parameter",
        type=values.parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="custom parameter; repeatable",
    )
    stream.add_argument("--token", default="", metavar="TOKEN", help="authorization bearer token")
    stream.add_argument(
        "--ca-file", type=values.readable_file, metavar="PEM", help="trust this certificate authority for wss and https"
    )
    leg = parser.add_argument_group("the caller's line")
    leg.add_argument("--leg-codec", choices=LEG_CODECS, default="PCMU", help="between caller and engine (PCMU)")
    leg.add_argument("--latency", type=values.duration_ms, default=0, metavar="TIME", help="delay of every packet")
    leg.add_argument(
        "--jitter", type=values.duration_ms, default=0, metavar="TIME", help="further delay, uniform from 0 to this"
    )
    leg.add_argument("--loss", type=values.share, default=0.0, metavar="SHARE", help="packets lost: 3%% or 0.03")
    leg.add_argument(
        "--reorder", type=values.share, default=0.0, metavar="SHARE", help="packets overtaken by their successor"
    )
    leg.add_argument("--duplicate", type=values.share, default=0.0, metavar="SHARE", help="packets that arrive twice")
    leg.add_argument(
        "--seed", type=values.seed, default=0, metavar="N", help="the same seed strikes the same packets (0)"
    )
    leg.add_argument(
        "--impair", choices=("outward", "both"), default="outward", help="impair only caller to engine, or both ways"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print exactly one JSON object")
    output.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def plan_of(options: argparse.Namespace) -> CallPlan:
    """Turn options into a plan.

    Raises:
        ConfigError, FormatError: what was asked for cannot be; the caller's to mend.
    """
    speech = read_audio(options.play) if options.play is not None else None
    duration_ms = options.duration
    if duration_ms is None:
        duration_ms = _WITHOUT_A_FILE_MS if speech is None else round(speech.duration_ms) + _AFTER_THE_FILE_MS
    if duration_ms > _LONGEST_MS:
        raise ConfigError(f"the call would last {duration_ms // 1000} s; at most an hour: give --duration")
    parameters = dict(options.parameter)
    if len(parameters) != len(options.parameter):
        raise ConfigError("--parameter: the same name twice")
    # The wire's own bound; without this look the call would fail as if the application had.
    from talkpath.engine import StreamSpec
    from talkpath.transport.carrier import parse_target
    from talkpath.wire.catalog import wire_named

    wire = options.wire or values.WIRE_OF_SCHEME.get(urlsplit(options.url).scheme, "plivo")
    parse_target(wire_named(wire).transport, options.url)
    StreamSpec(url="memory://plan", wire=wire, codec=options.codec, custom_parameters=parameters)
    plan = CallPlan(
        url=options.url,
        wire=wire,
        speech=speech,
        duration_ms=duration_ms,
        presses=tuple(options.press),
        digit_on_ms=options.digit_on,
        digit_off_ms=options.digit_off,
        track=options.track,
        codec=options.codec,
        leg_codec=options.leg_codec,
        latency_ms=options.latency,
        jitter_ms=options.jitter,
        loss=options.loss,
        reorder=options.reorder,
        duplicate=options.duplicate,
        seed=options.seed,
        impair_both=options.impair == "both",
        bidirectional=not options.one_way,
        bearer_token=options.token,
        parameters=parameters,
        ca_file=options.ca_file,
        stereo=options.stereo,
    )
    if options.stereo and options.record is None:
        raise ConfigError("--stereo says how --record is written; give --record")
    pressed_ms = _script(plan).pressing_ends_ms()
    if pressed_ms > duration_ms:
        raise ConfigError(
            f"--press: with {plan.digit_on_ms} ms for each digit and {plan.digit_off_ms} ms after it the last is done"
            f" at {pressed_ms} ms, but the call is over after {duration_ms} ms; give --duration {pressed_ms}ms"
        )
    return plan


def run(options: argparse.Namespace) -> int:
    """Place the call and report."""
    plan = plan_of(options)
    with Progress(quiet=options.quiet or (options.json and not sys.stderr.isatty())) as progress:
        placed = place_call_now(plan, progress)
    if options.record is not None:
        _write_recording(options.record, placed)
    if options.json:
        print(placed.report.to_json())
    else:
        print(table(placed.report.rows()))
    if placed.report.orderly:
        return 0
    print(f"talkpath call: {placed.report.end_reason.value}: {placed.failure}", file=sys.stderr)
    return 1


def _write_recording(path: Path, placed: PlacedCall) -> None:
    if placed.said is None:
        write_audio(path, placed.heard.samples, placed.heard.sample_rate_hz)
        return
    with WavWriter(path, placed.heard.sample_rate_hz, n_channels=2) as writer:
        writer.write(np.stack([placed.said, placed.heard.samples], axis=1))


def place_call_now(plan: CallPlan, progress: Progress) -> PlacedCall:
    """Place one simulated call in a Trio run of its own; a failure of ours is an outcome like any other.

    Raises:
        ConfigError: the plan asks for what the wire or the engine does not have.
    """
    from talkpath.cli.runs import run_bare

    try:
        return run_bare(place_call, plan, progress)
    except ConfigError:
        raise
    except Exception as error:
        report = CallReport(wire=plan.wire, end_reason=EndReason.INTERNAL_ERROR)
        failure = in_words(report.end_reason, _described(error))
        nothing = np.zeros(0, np.int16)
        return PlacedCall(report, AudioClip(nothing, 8000), nothing if plan.stereo else None, failure)


async def place_call(plan: CallPlan, progress: Progress) -> PlacedCall:
    """Place one simulated call and wait for its end. SIGINT and SIGTERM are the caller hanging up, at any time.

    Raises:
        ConfigError: the plan asks for what the wire or the engine does not have.

    Cancellation: the call is hung up and nothing of it is left.
    """
    import trio

    from talkpath.cli.runs import on_interrupt
    from talkpath.engine import EngineConfig, RtpLeg, open_engine
    from talkpath.transport.tls import client_context

    spec = _stream_spec(plan)
    trusted = client_context(ca_file=plan.ca_file) if plan.ca_file is not None else None
    caller = Caller(_script(plan))
    log = _CallLog(progress, caller)
    cause = ""
    conversation = trio.CancelScope()

    def hang_up() -> None:
        log.end(EndReason.CALLER_HUNG_UP)
        conversation.cancel()

    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            await nursery.start(on_interrupt, hang_up)
            address = await nursery.start(caller.run)
            leg = RtpLeg(local=("127.0.0.1", 0), remote=address, codec=plan.leg_codec, ptime_ms=plan.ptime_ms)
            async with open_engine(EngineConfig(tls_context=trusted)) as engine, engine.open_call(leg) as call:
                tracks = await call.record_to(stack.enter_context(NamedTemporaryFile()).name) if plan.stereo else None
                caller.connect(leg.local_address)
                with conversation:
                    try:
                        await call.start_stream(spec)
                    except CallEnded as error:
                        cause = "" if error.cause is None else _described(error.cause)
                        log.end(error.reason)
                    else:
                        caller.begin()
                        conversation.deadline = caller.clock_time_of(plan.duration_ms)
                        await _follow(call, log, progress, caller)
                if conversation.cancelled_caught:
                    log.end(EndReason.DURATION_REACHED)
                lasted_ms = plan.duration_ms if log.reason is EndReason.DURATION_REACHED else caller.elapsed_ms()
                call.hang_up()
                record = await call.wait_ended()
            nursery.cancel_scope.cancel()
        end_ns = (caller.machine.begun_at_ns or 0) + lasted_ms * NS_PER_MS
        heard = AudioClip(caller.machine.heard(end_ns), caller.machine.sample_rate_hz)
        said = None if tracks is None else _inbound(tracks, caller, len(heard.samples))
    report = log.report(plan, record, lasted_ms)
    return PlacedCall(report, heard, said, in_words(report.end_reason, cause or _cause(record)))


def _inbound(tracks: Recording, caller: Caller, n_samples: int) -> Samples:
    """Return the inbound track from the sample on that was under way as the first sample of the speech left."""
    first = caller.machine.track_sample_at_begin() - tracks.at_sample
    with wave.open(tracks.path) as file:
        pairs = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    said = np.pad(pairs[max(first, 0) :, 0], (max(-first, 0), 0))[:n_samples]
    return np.pad(said, (0, n_samples - len(said))).astype(np.int16)


def _script(plan: CallPlan) -> CallerScript:
    def path(seed: int) -> LinkEmulator:
        return LinkEmulator(
            seed,
            latency_ms=plan.latency_ms,
            jitter_ms=plan.jitter_ms,
            loss=plan.loss,
            reorder=plan.reorder,
            duplicate=plan.duplicate,
        )

    return CallerScript(
        speech=plan.speech,
        presses=plan.presses,
        codec=plan.leg_codec,
        ptime_ms=plan.ptime_ms,
        digit_on_ms=plan.digit_on_ms,
        digit_off_ms=plan.digit_off_ms,
        outward=path(plan.seed),
        inward=path(plan.seed + 1) if plan.impair_both else None,
        seed=plan.seed,
    )


def _stream_spec(plan: CallPlan) -> StreamSpec:
    from talkpath.engine import StreamSpec

    return StreamSpec(
        url=plan.url,
        wire=plan.wire,
        bidirectional=plan.bidirectional,
        track={"inbound": "inbound_track", "outbound": "outbound_track", "both": "both_tracks"}[plan.track],
        codec=plan.codec,
        control_id="call",
        custom_parameters=plan.parameters,
        authorization_bearer_token=plan.bearer_token,
        ends_call=True,
    )


async def _follow(call: Call, log: _CallLog, progress: Progress, caller: Caller) -> None:
    """Show and note what happens until the call is over."""
    import trio

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_show, progress, caller, log)
        async for event in call.events():
            log.note(event)
        nursery.cancel_scope.cancel()


async def _show(progress: Progress, caller: Caller, log: _CallLog) -> None:
    import trio

    while True:
        progress.show(caller.elapsed_ms(), f"hears [{meter(caller.machine.heard_level_dbov)}] {log.latest}")
        await trio.sleep(0.1)


class _CallLog:
    """What happened in the call so far, and the report made of it."""

    def __init__(self, progress: Progress, caller: Caller) -> None:
        self._progress, self._caller = progress, caller
        self._digits_sent = ""
        self.reason: EndReason | None = None
        """Why the call ended, where this side decided it."""
        self.latest = ""

    def note(self, event: CallEvent) -> None:
        if isinstance(event, DigitReceived):
            self._digits_sent += event.digit
            self._say(f"the caller pressed {event.digit}")
        elif isinstance(event, MarkSettled):
            self._say(f"checkpoint {event.name}: {event.outcome.value}")
        elif isinstance(event, SourceCleared):
            self._say("the application cleared what it had queued")
        elif isinstance(event, StreamDegraded):
            self._say(f"the application's queue is at {event.percent} % of its bound")

    def end(self, reason: EndReason) -> None:
        """Say why the call ended where this side decided it; the first reason stands."""
        self.reason = self.reason or reason

    def report(self, plan: CallPlan, record: CallRecord, lasted_ms: int) -> CallReport:
        machine = self._caller.machine
        shift = machine.track_sample_at_begin()
        stream = record.streams[0] if record.streams else None
        figures = record.statistics
        rate_hz = machine.sample_rate_hz
        lateness = Lateness(
            round(figures.lateness_p50_ms, 3), round(figures.lateness_p99_ms, 3), round(figures.lateness_max_ms, 3)
        )
        return CallReport(
            wire=plan.wire,
            end_reason=self.reason or (stream.reason if stream is not None else record.reason),
            duration_ms=lasted_ms,
            heard_ms=samples_to_ms(figures.application_samples, rate_hz),
            digits_sent=self._digits_sent,
            digits_received=machine.digits_heard,
            lateness_ms=lateness,
            lost=figures.packets_lost,
            late=figures.packets_late,
            concealed_ms=samples_to_ms(figures.concealed_samples, rate_hz),
            **_of_stream(stream, shift),
        )

    def _say(self, text: str) -> None:
        self.latest = text
        self._progress.say(self._caller.elapsed_ms(), text)


def _of_stream(stream: StreamRecord | None, shift: int) -> dict[str, Any]:
    if stream is None:
        return {}
    return {
        "media_sent": stream.messages_sent,
        "media_received": stream.messages_received,
        "checkpoints": tuple(Checkpoint.of(mark, shift) for mark in stream.marks),
        "clears": stream.clears,
        "refused_messages": stream.refused,
    }


def _described(error: BaseException) -> str:
    """Name an error's kind, and what it says if it says something."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _cause(record: CallRecord) -> str:
    for stream in record.streams:
        if stream.cause:
            return stream.cause
    return record.cause
