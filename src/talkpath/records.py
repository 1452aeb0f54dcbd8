"""What remains when something is over: outcomes, end reasons, records, statistics. Frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class EndReason(enum.StrEnum):
    """Why a call, stream or line ended. The same words appear in records, `CallEnded.reason` and ``--json``."""

    CALLER_HUNG_UP = "caller_hung_up"
    APPLICATION_HUNG_UP = "application_hung_up"
    PLATFORM_HUNG_UP = "platform_hung_up"
    DURATION_REACHED = "duration_reached"
    STREAM_TIMED_OUT = "stream_timed_out"
    STOPPED = "stopped"
    BLOCK_LEFT = "block_left"
    BLOCK_FAILED = "block_failed"
    CANCELLED = "cancelled"
    DRAINED = "drained"
    CONNECT_FAILED = "connect_failed"
    HANDSHAKE_TIMED_OUT = "handshake_timed_out"
    HANDSHAKE_REFUSED = "handshake_refused"
    WIRE_ERROR = "wire_error"
    PEER_STALLED = "peer_stalled"
    PEER_VANISHED = "peer_vanished"
    MEDIA_TIMED_OUT = "media_timed_out"
    CONTROL_OVERFLOW = "control_overflow"
    APPLICATION_FAILED = "application_failed"
    PLATFORM_FAILED = "platform_failed"
    """A line's, where the wire says that the platform could not go on."""
    POLICY_FAILED = "policy_failed"
    HOOK_FAILED = "hook_failed"
    NO_CAPACITY = "no_capacity"
    OVERLOADED = "overloaded"
    WORKER_LOST = "worker_lost"
    """The process that carried it crashed, hung or was killed."""
    INTERNAL_ERROR = "internal_error"

    @property
    def orderly(self) -> bool:
        """Whether this is how a healthy call ends."""
        return self in _ORDERLY


_ORDERLY = frozenset(
    {
        EndReason.CALLER_HUNG_UP,
        EndReason.APPLICATION_HUNG_UP,
        EndReason.PLATFORM_HUNG_UP,
        EndReason.DURATION_REACHED,
        EndReason.STREAM_TIMED_OUT,
        EndReason.STOPPED,
        EndReason.BLOCK_LEFT,
        EndReason.DRAINED,
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call or line was not taken, in terms that the one who asked for it can be answered in."""

    kind: str
    """Which limit: ``busy``, ``lateness``, ``calls``, ``lines``, ``streams``, ``pool``, ``memory``, ``descriptors`` or
    ``draining``.
    """
    reason: EndReason
    """`OVERLOADED` where the machine has no time, `NO_CAPACITY` where a limit is reached, `DRAINED`."""
    explanation: str
    """One line for a log; nothing of the call's is in it."""
    retry_after_s: int | None
    """When asking again makes sense; None: not here."""
    status: int = 503
    """The same number says it in HTTP (RFC 9110 15.6.4) and in SIP (RFC 3261 21.5.4)."""


class Outcome(enum.StrEnum):
    """How a checkpoint, or a play, came out. Exactly one per checkpoint."""

    PLAYED = "PLAYED"
    CLEARED = "CLEARED"
    LOST = "LOST"
    ASSUMED = "ASSUMED"


@dataclass(frozen=True, slots=True)
class Played:
    """What became of something played."""

    samples: int
    """Samples of the line's own rate that were played (an estimate when not exact)."""
    reason: Outcome
    exact: bool
    """False where the wire reports no positions and this is a model's figure."""


@dataclass(frozen=True, slots=True)
class MarkOutcome:
    """What became of one checkpoint."""

    name: str
    outcome: Outcome
    at_sample: int
    """Sample of the outbound track, silence counted, sample 0 = the track's first."""
    exact: bool = True


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One stream of a call, after its end."""

    stream_id: str
    control_id: str
    name: str
    wire: str
    reason: EndReason
    duration_ms: int
    messages_sent: int
    messages_received: int
    marks: tuple[MarkOutcome, ...]
    clears: int
    refused: dict[str, int]
    """Messages refused, count by kind (``bad_json``, ``bad_base64``, ``too_long``, ...)."""
    application_ms: int
    """Audio of the application that was handed to the leg."""
    dropped_ms: int
    """Audio of the application refused as beyond the bound."""
    media_dropped: int
    """Media messages dropped because the peer did not read."""
    digits_received: int
    digits_sent: int
    cause: str = ""
    """The type of the error behind the reason, when there was one."""
    reconnects: int = 0
    """How often a lost connection was made anew; `stream_id` is the last one's, all counters are of all together."""


@dataclass(frozen=True, slots=True)
class RecordingRecord:
    """One recording of a call's both tracks, after its end."""

    path: str
    at_sample: int
    """The call's sample that is the file's first."""
    n_samples: int
    """Samples of each track in the file."""
    sample_rate_hz: int
    error: str = ""
    """Why it ended before it was stopped or the call was over; empty: it did not."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call, after its end; names follow webrtc-stats in snake case with units."""

    call_id: str
    reason: EndReason
    cause: str
    duration_ms: int
    streams: tuple[StreamRecord, ...]
    """In the order in which they ended, the last 64 of them."""
    statistics: CallStatistics
    errors_after_end: int = 0
    streams_forgotten: int = 0
    """Streams that ended before those in `streams`."""
    recordings: tuple[RecordingRecord, ...] = ()
    """In the order in which they ended, the last 64 of them."""


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """A snapshot of one call's counters; all since its beginning."""

    clock_samples: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    packets_lost: int = 0
    packets_late: int = 0
    packets_discarded: int = 0
    packets_duplicated: int = 0
    packets_reordered: int = 0
    packets_refused: int = 0
    """Datagrams from a source that is not the caller's."""
    packets_malformed: int = 0
    packets_wrong_payload_type: int = 0
    """Of a payload type that was not negotiated."""
    rtcp_packets_received: int = 0
    ssrc_changes: int = 0
    jitter_ms: float = 0.0
    jitter_buffer_delay_ms: int = 0
    jitter_buffer_target_delay_ms: int = 0
    jitter_buffer_mean_delay_ms: float = 0.0
    """Of all audio so far: how long it was played after the shortest way would have brought it."""
    removed_samples_for_acceleration: int = 0
    """Left out of the caller's voice, by periods of it, so that delay shrinks."""
    inserted_samples_for_deceleration: int = 0
    """Heard twice, so that delay grows before packets are late. What waits for late ones is in `concealed_samples`."""
    concealed_samples: int = 0
    concealment_events: int = 0
    silent_samples: int = 0
    """Of the inbound track: samples for which the caller's side gave no audio and none was lost either (nothing has
    come yet, the caller sends nothing or is on hold). What stands in for lost packets is in `concealed_samples`.
    """
    application_samples: int = 0
    loop_stall_samples: int = 0
    underruns: int = 0
    digits_received: int = 0
    digits_sent: int = 0
    digits_refused: int = 0
    send_failures: int = 0
    lateness_p50_ms: float = 0.0
    lateness_p99_ms: float = 0.0
    lateness_p999_ms: float = 0.0
    lateness_max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """How the thread that moves media and its process stand; shared by all engines and servers of a Trio run. All zero
    in virtual time, where nothing of it has a meaning.
    """

    busy_share: float = 0.0
    """Processor time over wall time, over two seconds; 1 is a whole processor."""
    recent_lateness_p99_ms: float = 0.0
    """Of each of the last five seconds, the middle one: what admission looks at."""
    lateness_counts: tuple[int, ...] = field(default=(), repr=False)
    """How many ticks were how late, all since the beginning: 200 steps of 0.1 ms, 55 of 5 ms, one for the rest."""
    lateness_sum_ms: float = 0.0
    loop_stalls: int = 0
    """Ticks more than 60 ms late; what they missed was skipped."""
    gc_pauses: int = 0
    """Garbage collections of the process while an engine or server was open."""
    gc_pause_ms: float = 0.0
    gc_pause_max_ms: float = 0.0
    gc_freezes: int = 0
    """Times that what lived was put aside."""
    gc_thaws: int = 0
    """Times that all of it was taken back and looked through."""
    descriptors: int = 0
    """Open files of the process."""
    descriptors_max: int = 0
    """The soft limit; 0: none."""
    resident_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot of one engine."""

    calls: int = 0
    calls_opened: int = 0
    streams: int = 0
    pool_bytes: int = 0
    pool_used_bytes: int = 0
    pool_refused: int = 0
    ticks: int = 0
    late_ticks: int = 0
    lateness_p50_ms: float = 0.0
    lateness_p99_ms: float = 0.0
    lateness_p999_ms: float = 0.0
    lateness_max_ms: float = 0.0
    callbacks_delivered: int = 0
    callbacks_failed: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Calls and streams not taken, count by `Refusal.kind`."""
    loop_stall_ms: float = 0.0
    """Audio skipped because a tick came more than 60 ms late, of all calls together."""
    load: LoadStatistics = field(default_factory=LoadStatistics)


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A snapshot of one `serve_lines`."""

    lines: int = 0
    lines_opened: int = 0
    handshakes: int = 0
    """Connections that have not opened a line yet."""
    pool_bytes: int = 0
    pool_used_bytes: int = 0
    pool_refused: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Connections not taken, count by `Refusal.kind`; ``access``: showed too little, ``address``: too many of it."""
    load: LoadStatistics = field(default_factory=LoadStatistics)


@dataclass(frozen=True, slots=True)
class LineStatistics:
    """A snapshot of one line."""

    messages_received: int = 0
    messages_sent: int = 0
    received_ms: int = 0
    sent_ms: int = 0
    queued_ms: int = 0
    listener_dropped_ms: int = 0
    clears: int = 0
    barge_ins: int = 0
    suspicions: int = 0
    """Times that a barge-in policy had the audio pause; those that it confirmed are among the `barge_ins`."""
    refused: dict[str, int] = field(default_factory=dict)
    pings_sent: int = 0
    round_trip_ms: float = 0.0
    platform_errors: int = 0
    """What the platform said that it could not do."""
