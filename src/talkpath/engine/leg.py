"""Legs: one party's connection to a call. `rtp_leg` has the one on a socket, `memory_leg` those without.

A leg object is both the description and, once a call has opened it, the live thing; it serves one call. Everything that
touches the call's path runs in the driver's step; `update` and `say` hand over commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from talkpath._native import lib
from talkpath.errors import CallEnded, ConfigError
from talkpath.events import MediaFormat
from talkpath.path.path import LegKind
from talkpath.records import EndReason

if TYPE_CHECKING:
    from talkpath.engine.call import Call

DIGIT_ON_MS, DIGIT_OFF_MS = 100, 100
DIGITS_MAX = 64
"""Digits that may wait to go out to a caller."""

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
