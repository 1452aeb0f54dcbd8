"""A caller reached by RTP over UDP, on a socket of the leg's own.

Theory of operation. Whose packets are the caller's is judged by one latch in the native core. The pump asks it itself;
without the pump the leg asks it, but for the common case, in which the source is the one that Python knows already.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Any, Literal

from talkpath._native import ffi, lib
from talkpath.engine.config import check_port_range, parse_codec
from talkpath.engine.leg import Address, Leg
from talkpath.errors import ConfigError, check_range
from talkpath.events import LegChanged, MediaFormat
from talkpath.path.arena import new_struct
from talkpath.path.path import LegKind
from talkpath.transport.link import NOT_OURS

if TYPE_CHECKING:
    from talkpath.engine.call import Call
    from talkpath.transport.driver_pump import PumpDriver

receive_rtp = lib.tp_path_receive_rtp
STATIC_PAYLOAD_TYPES = {"PCMU": 0, "PCMA": 8}
MAX_STRANGERS = 256
"""Datagrams of others that are read, counted and thrown away in one turn. More than the kernel's buffer holds of small
ones, so a flood that it can take does not silence the caller."""
SYMMETRIC = {False: lib.TP_SYMMETRIC_NO, True: lib.TP_SYMMETRIC_PORT, "any": lib.TP_SYMMETRIC_ANY}
KNOWN: int = lib.TP_LATCH_KNOWN
LEARNED: int = lib.TP_LATCH_LEARNED
DIRECTIONS = {"sendrecv": 3, "recvonly": 1, "sendonly": 2, "inactive": 0}
"""SDP's words from the engine's point of view: recvonly = we receive from the caller and send nothing."""


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
