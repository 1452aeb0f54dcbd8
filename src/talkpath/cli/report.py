"""What a simulated call came to: one value, shown as a table for people or as one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from talkpath.records import EndReason, MarkOutcome

ORDERLY = frozenset(
    {
        EndReason.DURATION_REACHED,
        EndReason.CALLER_HUNG_UP,
        EndReason.APPLICATION_HUNG_UP,
        EndReason.STREAM_TIMED_OUT,
    }
)
"""The ends that a script may take for success; every other reason is exit status 1."""

_IN_WORDS = {
    EndReason.CONNECT_FAILED: "nobody answers at the address, or TLS fails",
    EndReason.HANDSHAKE_TIMED_OUT: "no connection, or no answer to the upgrade, in the time allowed",
    EndReason.HANDSHAKE_REFUSED: "the server declines the WebSocket",
    EndReason.WIRE_ERROR: "the wire's rules were broken beyond what can be skipped and counted",
    EndReason.PEER_STALLED: "the application reads nothing any more",
    EndReason.PEER_VANISHED: "the connection broke, or pings are not answered",
    EndReason.MEDIA_TIMED_OUT: "no RTP came from the caller",
    EndReason.CONTROL_OVERFLOW: "more control messages than can be kept",
    EndReason.APPLICATION_FAILED: "the application's code failed",
    EndReason.PLATFORM_FAILED: "the platform could not go on",
    EndReason.POLICY_FAILED: "the application's barge-in policy failed",
    EndReason.HOOK_FAILED: "a callable of the application's that hears audio failed",
    EndReason.NO_CAPACITY: "the engine is full",
    EndReason.OVERLOADED: "the engine has no time for another call",
    EndReason.WORKER_LOST: "the process that carried the call is gone",
    EndReason.INTERNAL_ERROR: "a bug of ours",
    EndReason.PLATFORM_HUNG_UP: "the platform ended the call",
    EndReason.PLATFORM_FAILED: "the platform says that it failed",
    EndReason.STOPPED: "the platform stopped the stream",
    EndReason.DRAINED: "the engine takes no more calls",
    EndReason.BLOCK_LEFT: "the program that holds the call left it",
    EndReason.BLOCK_FAILED: "the program that holds the call failed",
    EndReason.CANCELLED: "the program that holds the call cancelled it",
}


def in_words(reason: EndReason, detail: str = "") -> str:
    """Say on one line why a call failed; empty for an end that is a success."""
    if reason in ORDERLY:
        return ""
    # An exception's text may be of many lines, or of none.
    return ": ".join(part for part in (_IN_WORDS[reason], " ".join(detail.split())) if part)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of the application."""

    name: str
    outcome: str
    """``PLAYED``, ``CLEARED``, ``LOST`` or ``ASSUMED``."""
    at_sample: int
    """Of the recording: sample 0 is the instant at which the first sample of what is played leaves.

    Negative: so many samples before it. The wire's start is written first and the caller's next packet is the first of
    his speech, so what an application sends at once may be settled in between.
    """

    @classmethod
    def of(cls, mark: MarkOutcome, begun_at_sample: int) -> Checkpoint:
        """Move a mark from the track's clock to the recording's."""
        return cls(mark.name, mark.outcome.value, mark.at_sample - begun_at_sample)

    def __str__(self) -> str:
        return f"{self.outcome} at sample {self.at_sample}"


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late the engine's packets left, against their grid."""

    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, max {self.max:.2f} ms"


@dataclass(frozen=True, slots=True)
class CallReport:
    """The outcome of one simulated call; the field names are those of ``--json``."""

    wire: str
    end_reason: EndReason
    duration_ms: int = 0
    """From the first sample of what is played to the end."""
    media_sent: int = 0
    """Media messages, engine to application."""
    media_received: int = 0
    """Media messages, application to engine."""
    heard_ms: int = 0
    """Audio of the application that was played; concealment and silence excluded."""
    checkpoints: tuple[Checkpoint, ...] = ()
    digits_sent: str = ""
    """What the caller pressed, as the application was told."""
    digits_received: str = ""
    """What the application sent, as the caller received it."""
    lateness_ms: Lateness = field(default_factory=Lateness)
    lost: int = 0
    """Packets of the caller that never arrived."""
    late: int = 0
    """Packets of the caller that arrived after their turn."""
    concealed_ms: int = 0
    clears: int = 0
    refused_messages: Mapping[str, int] = field(default_factory=dict)
    """What the application sent and the wire forbids, count by kind."""

    @property
    def orderly(self) -> bool:
        """Whether this end is a success."""
        return self.end_reason in ORDERLY

    def to_json(self) -> str:
        """Return the report as one JSON object on one line."""
        values = asdict(self)
        values["refused_messages"] = dict(self.refused_messages)
        return json.dumps(values)

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as lines for people."""
        rows = [
            ("ended", f"{self.end_reason.value} after {seconds(self.duration_ms)}"),
            ("messages", f"{self.media_sent} media to the application, {self.media_received} from it"),
            ("heard", f"{seconds(self.heard_ms)} of the application's audio"),
            ("lateness", str(self.lateness_ms)),
            ("caller's audio", f"{self.lost} packets lost, {self.late} late, {self.concealed_ms} ms concealed"),
            ("clears", str(self.clears)),
        ]
        if self.digits_sent or self.digits_received:
            rows.append(("digits", f"pressed {self.digits_sent or 'none'}, received {self.digits_received or 'none'}"))
        rows += self.checkpoint_rows()
        if self.refused_messages:
            refused = ", ".join(f"{count} {kind}" for kind, count in sorted(self.refused_messages.items()))
            rows.append(("refused", refused))
        return rows

    def checkpoint_rows(self) -> list[tuple[str, str]]:
        """Return one line for each checkpoint."""
        return [(f"checkpoint {point.name}", str(point)) for point in self.checkpoints]


def seconds(ms: int) -> str:
    """Write milliseconds as seconds."""
    return f"{ms / 1000:.2f} s"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Lay out two columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)
