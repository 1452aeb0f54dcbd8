"""Legs: one party's connection to a call. RTP on a socket, PCM in memory, PCM from and to files.

A leg object is both the description and, once a call has opened it, the live thing; it serves one call. Everything that
touches the call's path runs in the driver's step; `update` and `say` hand over commands.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.audio import WavWriter, read_audio
from talkpath.engine.config import check_port_range, parse_codec
from talkpath.errors import CallEnded, ConfigError, FormatError, check_range
from talkpath.events import LegChanged, MediaFormat
from talkpath.path.arena import new_struct
from talkpath.path.path import LegKind
from talkpath.records import EndReason
from talkpath.transport.link import NOT_OURS
from talkpath.units import NS_PER_MS

if TYPE_CHECKING:
    from talkpath.engine.call import Call
    from talkpath.transport.driver_pump import PumpDriver

log = logging.getLogger("talkpath.engine.leg")

FULL = -4

receive_rtp = lib.tp_path_receive_rtp
STATIC_PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8}
MAX_STRANGERS = 256
"""Datagrams of others that are read, counted and thrown away in one turn. More than the kernel's buffer holds of small
ones, so a flood that it can take does not silence the caller."""
SYMMETRIC = {False: lib.TP_SYMMETRIC_NO, True: lib.TP_SYMMETRIC_PORT, "any": lib.TP_SYMMETRIC_ANY}
KNOWN: int = lib.TP_LATCH_KNOWN
LEARNED: int = lib.TP_LATCH_LEARNED
MAKE_UP_MS = 60
"""Ticks missed by no more than this are made up at once."""
DIRECTIONS = {"sendrecv": 3, "recvonly": 1, "sendonly": 2, "inactive": 0}
"""SDP's words from the engine's point of view: recvonly = we receive from the caller and send nothing."""

DIGIT_ON_MS, DIGIT_OFF_MS = 100, 100
DIGITS_MAX = 64
"""Digits that may wait to go out to a caller."""
DIGITS_KEPT = 1024

Address = tuple[str, int]


class Leg:
    """What a call needs of any leg. Subclasses are the public ones."""

    kind: LegKind
    media_format: MediaFormat
    ptime_ms: int
    needs_before_tick = False
    pumpable = False
    """Whether all of it is a socket that the pump can move."""
    payload_type = 0
    event_payload_type: int | None = None
    inband_digits = False
    """Whether digits may be tones in the audio."""
    media_timeout_ms = 0
    jitter_min_ms = 20
    jitter_max_ms = 200

    def __init__(self) -> None:
        self._call: Call | None = None
        self._call_ended: EndReason | None = None
        self._used = False
        self._send_failures = 0
        self.digits_taken = 0
        self.digits_refused = 0
        """Beside those that the path counts."""

    def open(self, call: Call) -> None:
        """Take what the leg needs of the system. Synchronous; `close` gives it back."""
        if self._used:
            raise ConfigError("a leg serves one call; make a new one for each")
        self._used = True
        self._call = call

    def start(self) -> None:
        """The path exists: media may flow from here."""

    def close(self) -> None:
        """Give back everything, at once. Idempotent."""

    def let_go(self, reason: EndReason) -> None:
        """The call is over, and everything of it written down: refer to it no more."""
        self._call = None
        self._call_ended = reason

    @property
    def packets_refused(self) -> int:
        """Datagrams that came from somebody else than the caller."""
        return 0

    @property
    def send_failures(self) -> int:
        """Datagrams that could not be sent, and errors that others caused."""
        return self._send_failures

    def send_rtp(self, datagram: memoryview) -> None:
        """Send one datagram to the caller."""

    def hear_pcm(self, pcm: memoryview) -> None:
        """Let the caller hear one ptime of native int16."""

    def before_tick(self, now_ns: int) -> None:
        """Hand the caller's next ptime to the path."""

    def send_digits(self, index: int, stream: Any, digits: str, on_ms: int = 0, off_ms: int = 0) -> int:
        """Queue digits of a source to the caller, in the step; `stream` is its native one. -> a count, or a status

        `on_ms` and `off_ms` are of each digit and of the gap after it; 0: as usual.
        """
        assert self._call is not None
        return int(lib.tp_path_send_digits(self._call.path, index, digits.upper().encode(), len(digits), on_ms, off_ms))

    def digits_waiting(self) -> int:
        """Return how many digits wait to be sent, or sound."""
        assert self._call is not None
        return int(lib.tp_path_digits_waiting(self._call.path))

    def drop_digits(self, index: int) -> None:
        """The source is gone, and with it its digits that have not begun."""

    def holds_audio(self, index: int) -> bool:
        """Whether digits of a source hold its native stream, which is nobody else's to resume then."""
        return False

    @property
    def local_address(self) -> Address:
        """The bound address with its actual port, for the SDP. Raises ConfigError: the leg has none, or is not open."""
        raise ConfigError("this leg has no network address")

    def _command(self, what: Callable[[int], None]) -> None:
        call = self._call
        ended = self._call_ended if call is None else call.end_reason
        if ended is not None:
            raise CallEnded(ended)
        if call is None:
            raise ConfigError("the leg is not part of a call yet")
        call.commands.put(what)


class RtpLeg(Leg):
    """A caller reached by RTP over UDP.

    A port that is open to the network will be found: so the question is whose packets are the caller's. By default
    only those of the configured address; `symmetric=True` trusts that address too, and while nothing comes from it
    learns another port of the same IP address (NAT) from three consecutive valid packets of the negotiated payload
    type; `symmetric="any"` learns in that way the first source of all that sends within 5 s, and then holds on to it.
    Everybody else is counted and heard by nobody, and audio is never sent to them.

    Args:
        local: address to bind; port 0 takes an even one of `port_range`, or any.
        remote: where the caller's media comes from and goes to; None only with ``symmetric="any"``.
        codec: ``PCMU``, ``PCMA``, or ``L16@<rate>h`` with a `payload_type`.
        ptime_ms: 10..60, what is sent; any whole-ms ptime is received.
        payload_type: RTP's number for the codec; the static one when None.
        event_payload_type: RFC 4733 telephone-event's; None when not negotiated.
        inband_digits: whether the caller's digits are also looked for in its audio (ITU-T Q.24), and digits to it sent
            as tones where there is no telephone-event. A digit seen both ways is reported once, as soon as either way
            shows it. It costs the decoding of every frame and about as much again, so by default (None) it is on only
            where digits would be lost without it: where telephone-event was not negotiated. Off, and without
            telephone-event, digits to send are refused and counted.
        symmetric: see above.
        port_range: (first, last) to choose an even local port from; the engine's (`EngineConfig.port_range`) when None.
        media_timeout_s: the call ends when no media came for so long (not while held); 0 never.

    Raises:
        ConfigError: a value that cannot work; the caller's to mend.
    """

    kind = LegKind.RTP
    pumpable = True

    def __init__(
        self,
        *,
        local: Address = ("0.0.0.0", 0),
        remote: Address | None = None,
        codec: str = "PCMU",
        ptime_ms: int = 20,
        payload_type: int | None = None,
        event_payload_type: int | None = 101,
        inband_digits: bool | None = None,
        symmetric: bool | Literal["any"] = False,
        port_range: tuple[int, int] | None = None,
        media_timeout_s: float = 60.0,
        jitter_min_ms: int = 20,
        jitter_max_ms: int = 200,
    ) -> None:
        super().__init__()
        self.media_format, _ = parse_codec(codec)
        if self.media_format.encoding == "L16":
            self.media_format = MediaFormat("L16", self.media_format.sample_rate_hz, big_endian=True)
            if self.media_format.sample_rate_hz > 16000:
                raise ConfigError("an RTP leg carries L16 at 8000 or 16000 Hz")
        if payload_type is None:
            if self.media_format.encoding not in STATIC_PAYLOAD_TYPES:
                raise ConfigError("L16 has no static payload type here; pass payload_type=96..127 as negotiated")
            payload_type = STATIC_PAYLOAD_TYPES[self.media_format.encoding]
        check_range("payload_type", payload_type, 0, 127)
        if 64 <= payload_type <= 95:
            raise ConfigError(f"payload_type {payload_type} collides with multiplexed RTCP; use 0..63 or 96..127")
        if event_payload_type is not None:
            check_range("event_payload_type", event_payload_type, 96, 127)
            if event_payload_type == payload_type:
                raise ConfigError("event_payload_type must differ from payload_type")
        if ptime_ms not in (10, 20, 30, 40, 60):
            raise ConfigError(f"ptime_ms is {ptime_ms}; it must be 10, 20, 30, 40 or 60")
        if symmetric not in (False, True, "any"):
            raise ConfigError(f"symmetric is {symmetric!r}; it must be False, True or 'any'")
        if remote is None and symmetric != "any":
            raise ConfigError("remote is missing; only symmetric='any' can do without it")
        check_range("media_timeout_s", media_timeout_s, 0, 86400)
        check_range("jitter_min_ms", jitter_min_ms, 0, 400)
        check_range("jitter_max_ms", jitter_max_ms, max(jitter_min_ms, ptime_ms), 400)
        if port_range is not None:
            check_port_range("port_range", port_range)
        if remote is not None and (":" in remote[0]) != (":" in local[0]):
            raise ConfigError(
                "one of local and remote is an IPv6 address and the other is not; media cannot pass between"
            )
        self.local = local
        self.remote = _numeric(remote) if remote is not None else None
        self.ptime_ms = ptime_ms
        self.payload_type = payload_type
        self.event_payload_type = event_payload_type
        self.inband_digits = event_payload_type is None if inband_digits is None else inband_digits
        self.symmetric = symmetric
        self.port_range = port_range
        self.media_timeout_ms = round(media_timeout_s * 1000)
        self.jitter_min_ms = jitter_min_ms
        self.jitter_max_ms = jitter_max_ms
        self._socket: socket.socket | None = None
        self._receive_from: Any = None
        self._send_to: Any = None
        self._latch = new_struct("tp_latch")
        """Whose packets are the caller's; the same judge as the pump asks."""
        lib.tp_latch_init(self._latch, SYMMETRIC[symmetric], payload_type)
        self._source: Any = None
        """The latch's source as the socket writes it, for the comparison of the common case."""
        self._target: Any = None
        """Where audio goes: the source, or while there is none the configured address."""
        self._port = 0
        self._pump: PumpDriver | None = None
        self._path: Any = None
        self._scratch: memoryview = memoryview(b"")
        self._scratch_c: Any = None

    @property
    def local_address(self) -> Address:
        """The bound address with its actual port, for the SDP."""
        if self._socket is None:
            raise ConfigError("the leg is not open")
        name = self._socket.getsockname()
        return str(name[0]), int(name[1])

    @property
    def source(self) -> Address | None:
        """Where the caller's media is expected from: the configured address, or the learned one."""
        if self._call is None:
            return None
        with self._call.driver.paused():  # nobody learns another while this one is read
            source = self._latch.source
            ip, port = bytes(source.ip)[: source.ip_bytes], int(source.port)
        return (str(ipaddress.ip_address(ip)), port) if ip else None

    def open(self, call: Call) -> None:
        super().open(call)
        family = socket.AF_INET6 if ":" in self.local[0] else socket.AF_INET
        ports = [self.local[1]]
        port_range = self.port_range or call.engine.config.port_range
        if port_range is not None and self.local[1] == 0:
            first, last = port_range
            ports = list(range(first + first % 2, last + 1, 2))
            start = int.from_bytes(call.entropy(4), "big") % max(len(ports), 1)
            ports = ports[start:] + ports[:start]
        last_error: OSError | None = None
        for port in ports:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                sock.bind((self.local[0], port))
            except OSError as exc:
                sock.close()
                last_error = exc
                continue
            self._socket = sock
            self._receive_from, self._send_to = sock.recvfrom_into, sock.sendto
            break
        else:
            raise last_error if last_error is not None else OSError("port_range holds no even port")

    def _expect(self, remote: Address | None, now_ns: int, *, pumped: bool) -> None:
        """Take `remote` for the caller's address, or learn it; see `tp_latch`."""
        lib.tp_latch_expect(self._latch, ffi.NULL if remote is None else _native_address(remote), now_ns)
        if pumped:
            return  # The pump asks the latch itself.
        self._source = self._as_socket_writes(self.source)
        self._target = self._source or self._as_socket_writes(remote)

    def _as_socket_writes(self, address: Address | None) -> Any:
        if address is None or self._socket is None:
            return None
        return (address[0], address[1], 0, 0) if self._socket.family == socket.AF_INET6 else address

    def start(self) -> None:
        call = self._call
        assert call is not None
        assert self._socket is not None
        self._path = call.path
        self._scratch = call.driver.scratch_view
        self._scratch_c = call.driver.scratch_c
        now_ns = call.clock.now_ns()
        place = call.pump_place(0)
        self._expect(self.remote, now_ns, pumped=place is not None)
        if place is not None:
            self._port = place[0].open_leg(call.slot, self._socket, self._latch, self._attend, now_ns)
            self._pump = place[0]
        else:
            call.driver.watch(self._socket.fileno(), self.on_readable)

    def close(self) -> None:
        if self._socket is not None:
            if self._pump is not None:
                self._send_failures = self.send_failures
                self._pump.close_port(self._port)
                self._pump = None
            elif self._path is not None and self._call is not None:
                self._call.driver.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = self._receive_from = self._send_to = None
        self._path = None

    @property
    def packets_refused(self) -> int:
        return int(self._latch.refused)

    @property
    def send_failures(self) -> int:
        pumped = int(self._pump.port(self._port).send_failures) if self._pump is not None else 0
        return self._send_failures + pumped

    def _attend(self, what: int, error: int, now_ns: int) -> None:
        """Act on what the pump says of the socket."""
        call = self._call
        assert call is not None
        if what & lib.TP_ATTEND_LEARNED:
            call.note(LegChanged("source_learned"))
        if what & lib.TP_ATTEND_BROKEN:
            self._disown_if_not_ours(error)
            call.failed(OSError(error, os.strerror(error)))

    def _disown_if_not_ours(self, error: int | None) -> None:
        """Somebody closed our descriptor, and it may be another's by now: whose it is closes it."""
        if error in NOT_OURS and self._socket is not None:
            if self._pump is None and self._call is not None:
                self._call.driver.unwatch(self._socket.fileno())
            self._socket.detach()

    def on_readable(self, now_ns: int) -> None:
        """Read up to the caller's next datagram; whoever one is from decides what becomes of it.

        Never raises: what fails here ends this call.
        """
        try:
            for _ in range(MAX_STRANGERS):
                n, source = self._receive_from(self._scratch)
                if source == self._source:
                    self._latch.source_heard = now_ns
                elif not self._judge(source, n, now_ns):
                    continue  # A stranger's packet must not cost the caller's its turn.
                receive_rtp(self._path, self._scratch_c, n, now_ns)
                return
        except BlockingIOError:
            return
        except OSError:
            # An ICMP error for something sent earlier: the caller's port is closed for the moment.
            self._send_failures += 1
        except Exception as exc:
            assert self._call is not None
            self._call.failed(exc)

    def _judge(self, source: Any, n: int, now_ns: int) -> bool:
        """Ask the latch about a source other than the trusted one. -> whether it is the caller"""
        verdict = lib.tp_latch_receive(self._latch, _native_address(source), self._scratch_c, n, now_ns)
        if verdict == LEARNED:
            self._source = self._target = source
            assert self._call is not None
            self._call.note(LegChanged("source_learned"))
        return bool(verdict in (LEARNED, KNOWN))

    def send_rtp(self, datagram: memoryview) -> None:
        target = self._target
        if target is None:
            return
        try:
            self._send_to(datagram, target)
        except OSError as exc:
            self._send_failures += 1
            if exc.errno in NOT_OURS:
                self._disown_if_not_ours(exc.errno)
                raise

    def update(self, *, remote: Address | None = None, direction: str | None = None) -> None:
        """Take over what a re-negotiation changed: hold (`direction`, in SDP's words) or another address.

        A new address is learned afresh under the same rules as the first. Takes effect at the next tick.

        Raises:
            ConfigError: an unknown direction, or an address that is not numeric.
            CallEnded: the call is over.
        """
        if direction is not None and direction not in DIRECTIONS:
            raise ConfigError(f"direction {direction!r} is not one of {', '.join(DIRECTIONS)}")
        target = _numeric(remote) if remote is not None else None

        def apply(now_ns: int) -> None:
            call = self._call
            if self._path is None or call is None:
                return
            if target is not None:
                self.remote = target
                with call.driver.paused():  # nothing of the new caller before the path expects it
                    self._expect(target, now_ns, pumped=self._pump is not None)
                    lib.tp_path_restart_receive(self._path)
                call.note(LegChanged("updated"))
            if direction is not None:
                lib.tp_path_hold(self._path, DIRECTIONS[direction])
                call.note(LegChanged("resumed" if direction == "sendrecv" else "held"))

        self._command(apply)


def _native_address(address: Any) -> Any:
    """Return a socket's address as the native core has it."""
    ip = _packed(str(address[0]).partition("%")[0])
    return ffi.new("tp_address *", {"ip": list(ip), "port": address[1], "ip_bytes": len(ip)})


def _numeric(address: Address) -> Address:
    """Return the address as the system writes it: one address may be written in many ways."""
    try:
        host, port = address
        numeric = _numeric_host(host)
    except (TypeError, ValueError):
        raise ConfigError(
            "a leg's remote address must be (IP address, port), the address numeric as in an SDP connection line"
        ) from None
    check_range("the remote port", port, 1, 65535)
    # Packets' sources are compared with it, and the system writes them in one way only.
    return numeric, port


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def _numeric_host(host: str) -> str:
    """Raises ValueError, TypeError."""
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
    except (OSError, UnicodeError):
        return str(ipaddress.ip_address(host))


class MemoryLeg(Leg):
    """A caller in memory: PCM in and out, at the call's own pace, without a socket.

    Args:
        sample_rate_hz: 8000 or 16000.
        ptime_ms: 10..60.
        keep_heard_s: how much of what was heard is kept for `heard`; older audio is dropped.
        on_heard: called with each ptime the caller hears, within the driver's step: must be quick and must not block.
        on_digit: called in the same way with each digit that the caller is sent, as it begins.
        inband_digits: whether digits are also found in what the caller says, as on an `RtpLeg`.

    Digits that are sent to this caller take the time they take over RTP: 100 ms and 100 ms of gap each, in which the
    source that sends them rests. Other sources are heard on meanwhile, since no packet's place is taken.
    """

    kind = LegKind.PCM
    needs_before_tick = True

    def __init__(
        self,
        *,
        sample_rate_hz: int = 8000,
        ptime_ms: int = 20,
        keep_heard_s: float = 3600.0,
        on_heard: Callable[[npt.NDArray[np.int16]], None] | None = None,
        on_digit: Callable[[str], None] | None = None,
        inband_digits: bool = False,
    ) -> None:
        super().__init__()
        if sample_rate_hz not in (8000, 16000):
            raise ConfigError(f"a leg's sample_rate_hz is {sample_rate_hz}; it must be 8000 or 16000")
        if ptime_ms not in (10, 20, 30, 40, 60):
            raise ConfigError(f"ptime_ms is {ptime_ms}; it must be 10, 20, 30, 40 or 60")
        self.media_format = MediaFormat("L16", sample_rate_hz)
        self.ptime_ms = ptime_ms
        self._frame_bytes = 2 * sample_rate_hz * ptime_ms // 1000
        self._to_say: deque[bytes] = deque()
        self._to_say_bytes = 0
        self._heard: deque[bytes] = deque()
        self._keep_frames = max(1, round(keep_heard_s * 1000 / ptime_ms))
        self._on_heard = on_heard
        self._on_digit = on_digit
        self.inband_digits = inband_digits
        self._digits: deque[str] = deque(maxlen=DIGITS_KEPT)
        self._digits_to_come: deque[tuple[str, int, Any, int]] = deque()
        """(digit, index of its source, native stream of its source, ticks); the first of them sounds."""
        self._digit_ticks_left = 0

    @property
    def sample_rate_hz(self) -> int:
        return self.media_format.sample_rate_hz

    def say(self, pcm: npt.NDArray[np.int16]) -> None:
        """Let the caller say `pcm` (int16, mono, at the leg's rate) after what it is already saying. At most an hour
        waits.

        Raises:
            FormatError: not one-dimensional int16.
        """
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise FormatError(f"say() takes one-dimensional int16, not {pcm.ndim}-dimensional {pcm.dtype}")
        data = pcm.tobytes()
        if self._to_say_bytes + len(data) > 3600 * 2 * self.sample_rate_hz:
            raise FormatError("more than an hour of speech is waiting to be said")
        self._to_say.append(data)
        self._to_say_bytes += len(data)

    @property
    def still_to_say_ms(self) -> int:
        """How much speech waits to be said."""
        return self._to_say_bytes * 500 // self.sample_rate_hz

    def press(self, digit: str) -> None:
        """Let the caller press a key: one of 0-9 * # A-D."""
        if len(digit) != 1 or digit.upper() not in "0123456789*#ABCD":
            raise ConfigError(f"a digit is one of 0-9 * # A-D, not {len(digit)} characters of something else")
        self._command(lambda now_ns: lib.tp_path_receive_digit(self._live_path(), digit.upper().encode()))

    def hang_up(self) -> None:
        """Let the caller hang up."""
        if self._call is not None:
            self._call.end(EndReason.CALLER_HUNG_UP)

    def heard(self) -> npt.NDArray[np.int16]:
        """Return everything kept of what the caller has heard so far."""
        return np.frombuffer(b"".join(self._heard), dtype=np.int16)

    def digits(self) -> list[str]:
        """Return the digits that the caller has been sent so far, the last 1,024 of them."""
        return list(self._digits)

    def send_digits(self, index: int, stream: Any, digits: str, on_ms: int = 0, off_ms: int = 0) -> int:
        if len(self._digits_to_come) + len(digits) > DIGITS_MAX:
            self.digits_refused += len(digits)
            return FULL
        self.digits_taken += len(digits)
        lib.tp_stream_pause(stream, True)
        silent = not self._digits_to_come
        ticks = sum(math.ceil(ms / self.ptime_ms) for ms in (on_ms or DIGIT_ON_MS, off_ms or DIGIT_OFF_MS))
        self._digits_to_come.extend((digit, index, stream, ticks) for digit in digits.upper())
        if silent:
            self._begin_digit()
        return len(digits)

    def drop_digits(self, index: int) -> None:
        if self._digits_to_come:
            digit, sounding, stream, ticks = self._digits_to_come.popleft()
            kept = [one for one in self._digits_to_come if one[1] != index]
            # The digit that sounds goes on, for nobody: the index may be another source's by the time it ends.
            self._digits_to_come = deque(((digit, -1 if sounding == index else sounding, stream, ticks), *kept))

    def digits_waiting(self) -> int:
        return len(self._digits_to_come)

    def holds_audio(self, index: int) -> bool:
        return any(one[1] == index for one in self._digits_to_come)

    def _begin_digit(self) -> None:
        digit, _, _, self._digit_ticks_left = self._digits_to_come[0]
        self._digits.append(digit)
        if self._on_digit is not None:
            self._on_digit(digit)

    def _move_digits(self) -> None:
        """A ptime has been heard: of the digit that sounds, or of the gap after it, as long as there is one."""
        if not self._digits_to_come:
            return
        self._digit_ticks_left -= 1
        if self._digit_ticks_left > 0:
            return
        _, index, stream, _ = self._digits_to_come.popleft()
        if all(one[1] != index for one in self._digits_to_come):
            lib.tp_stream_pause(stream, False)
            assert self._call is not None
            self._call.digits_sent(index)
        if self._digits_to_come:
            self._begin_digit()

    def _live_path(self) -> Any:
        assert self._call is not None
        return self._call.path

    def next_frame(self) -> bytes:
        """Return the next ptime of speech, zero-padded; empty when the caller is silent."""
        need = self._frame_bytes
        if not self._to_say:
            return b""
        if len(self._to_say[0]) == need:
            self._to_say_bytes -= need
            return self._to_say.popleft()
        out = bytearray()
        while self._to_say and len(out) < need:
            piece = self._to_say.popleft()
            take = need - len(out)
            out += piece[:take]
            if len(piece) > take:
                self._to_say.appendleft(piece[take:])
        self._to_say_bytes -= len(out)
        if len(out) < need:
            out += bytes(need - len(out))
        return bytes(out)

    def before_tick(self, now_ns: int) -> None:
        path = self._live_path()
        # A late tick makes up for the missed ones, each with its own ptime of speech; of too many it skips all but one.
        late_ms = (now_ns - int(lib.tp_path_next_deadline(path))) // NS_PER_MS
        for _ in range(1 + (late_ms // self.ptime_ms if late_ms <= MAKE_UP_MS else 0)):
            frame = self.next_frame()
            if frame:
                lib.tp_path_receive_pcm(path, ffi.from_buffer("int16_t[]", frame), len(frame) // 2, now_ns)

    def hear_pcm(self, pcm: memoryview) -> None:
        frame = bytes(pcm)
        self._heard.append(frame)
        if len(self._heard) > self._keep_frames:
            self._heard.popleft()
        if self._on_heard is not None:
            self._on_heard(np.frombuffer(frame, dtype=np.int16))
        self._move_digits()


class WavLeg(MemoryLeg):
    """A caller read from a WAV file; what it hears is written to another.

    Args:
        say: the caller's speech, 8 or 16 kHz mono; None: a silent caller.
        hear: where what the caller heard is written, 16-bit PCM mono; None: nowhere.
        ptime_ms: 10..60.
        inband_digits: whether digits are found in the speech, as on an `RtpLeg`.

    Raises:
        FormatError: the file cannot be played at a leg's rate.
    """

    def __init__(
        self,
        say: str | Path | None = None,
        hear: str | Path | None = None,
        *,
        ptime_ms: int = 20,
        inband_digits: bool = False,
    ) -> None:
        clip = read_audio(say) if say is not None else None
        rate = clip.sample_rate_hz if clip is not None else 8000
        if rate not in (8000, 16000):
            raise FormatError(f"a WAV leg speaks at 8000 or 16000 Hz, and the file has {rate}")
        super().__init__(sample_rate_hz=rate, ptime_ms=ptime_ms, keep_heard_s=0, inband_digits=inband_digits)
        if clip is not None:
            self.say(clip.samples)
        self._hear = hear
        self._writer: WavWriter | None = None

    def open(self, call: Call) -> None:
        super().open(call)
        if self._hear is not None:
            self._writer = WavWriter(self._hear, self.sample_rate_hz)

    def hear_pcm(self, pcm: memoryview) -> None:
        if self._writer is not None:
            self._writer.write(np.frombuffer(pcm, dtype=np.int16))
        self._move_digits()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
