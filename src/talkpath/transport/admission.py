"""Who is let in: one more call or line, or an answer that its caller's server can use.

The problem: a machine that takes one call too many does not serve that call badly, it serves all of them badly. Media
has no slack; past the knee every tick of every call is late. So a new call is refused while the old ones still sound
right, with a reason, a status and a time after which asking again makes sense.

Theory of operation. Two kinds of limit:

* *overload* (`busy`, `lateness`), judged by `Load` over the last seconds. It has hysteresis: once refusing, it goes on
  until the measure is below nine tenths of the limit, else admission would flap with every call that comes and goes.
  In virtual time nothing is refused for it: time stands still while a step is done;
* *room* (`calls` or `lines`, `streams`, `pool`, `memory`, `descriptors`), looked at when somebody asks, without
  hysteresis: a place that is free is free.

Each limit is off where it is None or 0. What asking costs: 10 to 30 µs, of which the descriptors are 4; the memory,
where it has a limit, takes 20 more.

`retry_after_s` is 5 for overload: the measures look back that far. It is 1 for room: at three minutes a call, a
thousand of them give a place back every 0.2 s. It is None while draining: this process is going away, and the caller's
server should ask another one.

Source: RFC 9110 15.6.4, 10.2.3; RFC 3261 21.5.4, 20.33.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from talkpath.errors import CallEnded, ConfigError, check_range
from talkpath.records import EndReason, Refusal
from talkpath.transport.collector import POLICIES, Policy
from talkpath.transport.process import Descriptors, resident_bytes

if TYPE_CHECKING:
    from talkpath.path.pool import Pool
    from talkpath.transport.load import Load

RESUME = 0.9
"""Refusing for overload ends below this share of the limit."""
RETRY_OVERLOADED_S = 5
RETRY_FULL_S = 1
DESCRIPTORS_A_CALL = 3
"""Its RTP, a stream, a status callback under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What an engine and a server do about load: when no more is taken. None or 0 turns a limit off."""

    max_busy_share: float | None = 0.70
    """Processor time over wall time of the thread that moves media, over two seconds."""
    max_lateness_ms: float | None = 5.0
    """The 99th percentile of how late ticks are, over five seconds."""
    max_pool_share: float | None = 0.95
    """Of the pool in use or promised."""
    max_resident_bytes: int | None = None
    """Memory of the whole process."""
    spare_descriptors: int | None = 64
    """File descriptors that stay free below the soft limit, for what is not a call."""
    gc: Policy = "freeze"
    """What is done about Python's garbage collector meanwhile: ``freeze`` keeps it from stopping media, ``leave``
    leaves it as it is. See `talkpath.transport.collector`.
    """

    def check_limits(self) -> None:
        """Raise ConfigError for a value that cannot be."""
        check_limit("max_busy_share", self.max_busy_share, 0.01, 1)
        check_limit("max_lateness_ms", self.max_lateness_ms, 0.1, 1000)
        check_limit("max_pool_share", self.max_pool_share, 0.01, 1)
        check_limit("max_resident_bytes", self.max_resident_bytes, 1 << 20, 1 << 50, whole=True)
        check_limit("spare_descriptors", self.spare_descriptors, 1, 1_000_000, whole=True)
        if self.gc not in POLICIES:
            raise ConfigError(f"gc {self.gc!r} is neither of {', '.join(POLICIES)}")


def check_limit(what: str, value: float | None, low: float, high: float, *, whole: bool = False) -> None:
    """Raise ConfigError unless it is None, 0, or a number (a `whole` one) between low and high."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return
    if whole and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{what} is {value!r}; it must be a whole number, or None for no limit")
    check_range(what, value, low, high)


class Admission:
    """Who is let in; one for each engine and each server. See the module.

    Args:
        limits: the options.
        load: of the run.
        what: what asks, in the plural, and the name of its limit: ``("calls", "max_calls")``.
        most: that limit.
        live: returns how many there are.
        pool: whose share is limited.
        most_streams, streams: as `most` and `live`, for the streams of calls.
        descriptors, resident: how the process stands.
    """

    def __init__(
        self,
        limits: LoadOptions,
        load: Load,
        *,
        what: tuple[str, str],
        most: int | None,
        live: Callable[[], int],
        pool: Pool,
        most_streams: int | None = None,
        streams: Callable[[], int] = lambda: 0,
        descriptors: Descriptors | None = None,
        resident: Callable[[], int] = resident_bytes,
    ) -> None:
        self.refused: dict[str, int] = {}
        """How often each limit refused."""
        self._limits = limits
        self._load = load
        self._what, self._option = what
        self._most = most
        self._live = live
        self._pool = pool
        self._most_streams = most_streams
        self._streams = streams
        self._descriptors = descriptors or Descriptors()
        self._resident = resident
        self._refusing: set[str] = set()

    def check(self) -> None:
        """Return when one more is taken. Raises CallEnded, with what to answer in `refusal`."""
        refusal = self.refusal()
        if refusal is not None:
            raise CallEnded(refusal.reason, refusal=refusal)

    def check_stream(self) -> None:
        """Return when one more stream is taken. Raises CallEnded."""
        refusal = self._no_room_for_streams()
        if refusal is not None:
            raise CallEnded(refusal.reason, refusal=self._count(refusal))

    def refusal(self) -> Refusal | None:
        """Return why no more is taken now, counted; None: come in."""
        refusal = self._no_room() or self._overloaded()
        return self._count(refusal) if refusal is not None else None

    def draining(self) -> Refusal:
        """Return the refusal of one that takes no more, counted."""
        return self._count(Refusal("draining", EndReason.DRAINED, f"no more {self._what} are taken here", None))

    def _count(self, refusal: Refusal) -> Refusal:
        self.refused[refusal.kind] = self.refused.get(refusal.kind, 0) + 1
        return refusal

    def _no_room(self) -> Refusal | None:
        limits = self._limits
        if self._most and self._live() >= self._most:
            return _full(self._what, f"{self._most:,} {self._what} are live, which is {self._option}")
        refusal = self._no_room_for_streams()
        if refusal is not None:
            return refusal
        if limits.max_pool_share:
            pool = self._pool.native
            taken = (pool.n_blocks - pool.n_free + pool.n_reserved) / pool.n_blocks
            if taken > limits.max_pool_share:
                return _full("pool", f"{taken:.0%} of the pool is taken, max_pool_share is {limits.max_pool_share:.0%}")
        if limits.spare_descriptors:
            most = self._descriptors.limit()
            if most is not None:
                used = self._descriptors.in_use()
                if used + DESCRIPTORS_A_CALL + limits.spare_descriptors > most:
                    spare = limits.spare_descriptors
                    return _full("descriptors", f"{used:,} of {most:,} open files are taken, {spare} stay free")
        if limits.max_resident_bytes:
            resident = self._resident()
            if resident > limits.max_resident_bytes:
                return _full(
                    "memory", f"{resident:,} bytes are resident, max_resident_bytes is {limits.max_resident_bytes:,}"
                )
        return None

    def _no_room_for_streams(self) -> Refusal | None:
        most = self._most_streams
        if most and self._streams() >= most:
            return _full("streams", f"{most:,} streams are live, which is max_streams")
        return None

    def _overloaded(self) -> Refusal | None:
        limits = self._limits
        if self._load.virtual:
            return None
        if limits.max_busy_share:
            share = self._load.expected_share()
            if self._exceeds("busy", share, limits.max_busy_share):
                return _overloaded(
                    "busy", f"{share:.0%} of a processor is taken, max_busy_share is {limits.max_busy_share:.0%}"
                )
        if limits.max_lateness_ms:
            late_ms = self._load.lateness_p99_ms()
            if self._exceeds("lateness", late_ms, limits.max_lateness_ms):
                return _overloaded(
                    "lateness",
                    f"ticks are {late_ms:.1f} ms late (99th percentile), max_lateness_ms is {limits.max_lateness_ms:g}",
                )
        return None

    def _exceeds(self, kind: str, measure: float, limit: float) -> bool:
        """Whether it is above its limit, or was and is not yet well below."""
        if measure > limit:
            self._refusing.add(kind)
        elif measure < RESUME * limit:
            self._refusing.discard(kind)
        return kind in self._refusing


def _full(kind: str, explanation: str) -> Refusal:
    return Refusal(kind, EndReason.NO_CAPACITY, explanation, RETRY_FULL_S)


def _overloaded(kind: str, explanation: str) -> Refusal:
    return Refusal(kind, EndReason.OVERLOADED, explanation, RETRY_OVERLOADED_S)
