"""``talkpath conformance``: judge an application by playing the platform, or a platform by playing the application."""

from __future__ import annotations

import argparse
import functools
import ipaddress
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from talkpath.cli import values
from talkpath.cli.progress import Progress
from talkpath.errors import ConfigError, RemoteWireError

if TYPE_CHECKING:
    import trio

    from talkpath.testing.checks import ConformanceReport, Finding
    from talkpath.testing.platform_checks import TakenStream
    from talkpath.testing.platform_probe import PlatformTarget

_UPGRADE_S = 10.0
WIRES = ("plivo", "twilio", "signalwire", "teler", "native", "asterisk", "audiosocket", "freeclimb")
"""Named here, so that help need not wait for all their libraries."""

_EPILOG = """\
With an address, it is an application that is judged: the command dials it again and again as the platform would, says
what platforms say, now and then what they had better not, and looks at what comes back. About half a minute.

With --serve, it is a platform that is judged: the command waits for one call's stream, as an application would, and
asks the platform for one thing after another: audio, checkpoints, a clear. About ten seconds of one call; the caller
need say nothing. Two checks need him: --press waits for a key, --hang-up has him end the call.

Each check has a number, a name, and one of three verdicts: ok, FAILED, n/a (there was nothing to judge). Every one says
why. Checks keep their numbers and names.

examples:
  talkpath conformance ws://127.0.0.1:8080 --wire plivo            is this a good application?
  talkpath conformance wss://app.example/audio --wire twilio --auth-token TOKEN --json
  talkpath conformance http://127.0.0.1:8080 --wire freeclimb      over gRPC; tcp:// with --wire audiosocket
  talkpath conformance ws://127.0.0.1:8080 --wire plivo --only marks --only clears
  talkpath conformance --serve --wire signalwire --port 8080       is this a good platform?
  talkpath conformance --serve --wire plivo --press 10s --hang-up 30s
  talkpath conformance --list                                      what is judged

exit status:
  0  every check passed or had nothing to judge
  1  a check failed, or no stream came
  2  wrong usage
"""


def add_command(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "conformance",
        help="judge an application or a platform, rule by rule",
        description="Judge an application by playing the platform, or with --serve a platform by playing the"
        " application.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="the application: ws:// or wss://, http:// or https:// (gRPC), tcp:// (AudioSocket)",
    )
    parser.add_argument("--wire", choices=WIRES, help="the platform's message language; needed but for --list")
    parser.add_argument("--only", action="append", default=[], metavar="CHECK", help="number or name; repeatable")
    parser.add_argument("--list", action="store_true", help="print the checks and stop")
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object on one line")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--token", default="", metavar="TOKEN", help="authorization bearer token, to send or to expect")
    parser.add_argument(
        "--auth-token",
        default="",
        metavar="TOKEN",
        help="the account's secret that signs upgrades, to sign or to verify",
    )
    application = parser.add_argument_group("an application")
    application.add_argument(
        "--codec", default="", metavar="CODEC", help="of the stream: PCMU, L16@16000h, ... (PCMU where the wire has it)"
    )
    application.add_argument(
        "--parameter",
        type=values.parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="custom parameter of the start; repeatable",
    )
    application.add_argument(
        "--ca-file", type=values.readable_file, metavar="PEM", help="trust this certificate authority for wss"
    )
    platform = parser.add_argument_group("a platform")
    platform.add_argument("--serve", action="store_true", help="be the application, and judge who calls")
    platform.add_argument("--host", default="127.0.0.1", help="address to bind (127.0.0.1); others need --open")
    platform.add_argument(
        "--port", type=values.port, default=8080, metavar="N", help="TCP port; 0 lets the system choose (8080)"
    )
    platform.add_argument("--open", action="store_true", help="serve on an address that others can reach")
    platform.add_argument(
        "--public-url",
        default="",
        metavar="URL",
        help="behind a proxy: the address the platform dials, for its signature",
    )
    platform.add_argument(
        "--wait", type=values.positive_duration_ms, default=300_000, metavar="TIME", help="for the call to come (5m)"
    )
    platform.add_argument(
        "--tolerance",
        type=values.positive_duration_ms,
        default=150,
        metavar="TIME",
        help="how far from its right moment a thing may happen (150ms)",
    )
    platform.add_argument(
        "--press", type=values.duration_ms, default=0, metavar="TIME", help="wait for the caller to press a key (0s)"
    )
    platform.add_argument(
        "--hang-up", type=values.duration_ms, default=0, metavar="TIME", help="wait for the caller to hang up (0s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Judge, and report."""
    if options.list:
        return _list(options)
    if options.serve == (options.url is not None):
        raise ConfigError(
            "conformance: give the application's URL, or --serve to judge a platform"
            if options.url is None
            else "conformance: a URL is an application's; --serve waits for a platform and has none"
        )
    if options.wire is None:
        raise ConfigError(f"conformance: --wire says which language is spoken: {', '.join(WIRES)}")
    with Progress(quiet=options.quiet or (options.json and not sys.stderr.isatty())) as progress:
        report = _run(options, _Watch(progress))
    if report is None:
        print(f"talkpath conformance: no stream came within {options.wait / 1000:g} s", file=sys.stderr)
        return 1
    print(report.to_json() if options.json else "\n".join(report.lines()))
    return 0 if report.passed else 1


def _list(options: argparse.Namespace) -> int:
    """Print the rules of one side, or of both."""
    from talkpath.testing.application_checks import APPLICATION_CHECKS
    from talkpath.testing.checks import listing
    from talkpath.testing.platform_checks import PLATFORM_CHECKS

    if not options.serve:
        print("an application:", *listing(APPLICATION_CHECKS), sep="\n")
    if options.url is None:
        print("a platform (--serve):", *listing(PLATFORM_CHECKS), sep="\n")
    return 0


class _Watch:
    """Shows each finding as it comes out."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began_s = time.monotonic()

    def say(self, text: str) -> None:
        """Show something that happened."""
        self._progress.say(round((time.monotonic() - self._began_s) * 1000), text)

    def found(self, finding: Finding) -> None:
        """Show a finding."""
        from talkpath.testing.checks import Verdict

        said = {Verdict.PASSED: "ok", Verdict.NOT_APPLICABLE: "n/a"}.get(finding.verdict, f"FAILED: {finding.reason}")
        self.say(f"{finding.number} {finding.name}: {said}")


def _run(options: argparse.Namespace, watch: _Watch) -> ConformanceReport | None:
    from talkpath.cli.runs import run_bare
    from talkpath.testing.checks import selected
    from talkpath.testing.platform_checks import PLATFORM_CHECKS

    if options.serve:
        selected(PLATFORM_CHECKS, options.only)
        try:
            return run_bare(functools.partial(_serve, options, watch))
        except OSError as error:
            where = f"{options.host} port {options.port}"
            raise ConfigError(f"conformance: cannot listen on {where}: {error.strerror or error}") from None
    return run_bare(functools.partial(_call, options, watch))


async def _call(options: argparse.Namespace, watch: _Watch) -> ConformanceReport:
    from talkpath.engine.config import parse_codec
    from talkpath.testing.application_checks import ApplicationTarget, check_application
    from talkpath.transport.tls import client_context

    target = ApplicationTarget(
        url=options.url,
        wire=options.wire,
        media_format=parse_codec(options.codec)[0] if options.codec else None,
        parameters=dict(options.parameter),
        auth_token=options.auth_token,
        bearer_token=options.token,
        tls_context=client_context(ca_file=options.ca_file) if options.ca_file is not None else None,
    )
    return await check_application(target, only=options.only, on_finding=watch.found)


async def _serve(options: argparse.Namespace, watch: _Watch) -> ConformanceReport | None:
    """Wait for a platform's stream and judge it; None when none comes."""
    import trio

    from talkpath.testing.platform_checks import check_platform
    from talkpath.testing.platform_probe import PlatformTarget
    from talkpath.wire.catalog import wire_named

    target = PlatformTarget(
        wire=options.wire,
        auth_token=options.auth_token,
        bearer_token=options.token,
        public_url=options.public_url,
        tolerance_ms=options.tolerance,
        press_s=options.press / 1000,
        hang_up_s=options.hang_up / 1000,
    )
    if not options.open and not _is_loopback(options.host):
        raise ConfigError(f"conformance: {options.host} can be reached by others; --open says that this is meant")
    listeners = await trio.open_tcp_listeners(options.port, host=options.host)
    scheme = {"grpc": "http", "audiosocket": "tcp"}.get(wire_named(options.wire).transport, "ws")
    stream: TakenStream | None = None
    try:
        for listener in listeners:
            host, port = listener.socket.getsockname()[:2]
            watch.say(f"waiting for a call at {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        with trio.move_on_after(options.wait / 1000):
            stream = await _first_stream(target, listeners, watch)
    finally:
        for listener in listeners:
            await listener.aclose()
    if stream is None:
        return None
    watch.say("a stream was opened")
    return await check_platform(target, stream, only=options.only, on_finding=watch.found, announce=watch.say)


async def _first_stream(target: PlatformTarget, listeners: Sequence[trio.SocketListener], watch: _Watch) -> TakenStream:
    """Return the first connection that is upgraded; others are reported and closed."""
    import trio

    from talkpath.testing.platform_checks import take_stream
    from talkpath.transport.link import SocketLink

    taken: list[TakenStream] = []

    async def accept(listener: trio.SocketListener, scope: trio.CancelScope) -> None:
        while not taken:
            ours = (await listener.accept()).socket
            link = SocketLink(socket.socket(ours.family, ours.type, ours.proto, fileno=ours.detach()))
            try:
                with trio.fail_after(_UPGRADE_S):
                    taken.append(await take_stream(target, link))
            except (RemoteWireError, OSError, trio.TooSlowError) as error:
                watch.say(f"a connection was no stream: {error or type(error).__name__}")
                link.close()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(accept, listener, nursery.cancel_scope)
    return taken[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
