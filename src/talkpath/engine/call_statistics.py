"""A call's counters, as its path, its leg and its group's clock have them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from talkpath._native import lib
from talkpath.path.path import LegKind
from talkpath.records import CallStatistics
from talkpath.transport.clock import Lateness

if TYPE_CHECKING:
    from talkpath.engine.leg import Leg

LATENESS_SHARES = (0.5, 0.99, 0.999, 1.0)


def read_statistics(
    path: Any, leg: Leg, lateness: Lateness | None, lateness_before: array[int] | None, underruns: int
) -> CallStatistics:
    """Return a snapshot of what a live native path has counted.

    Args:
        path: the native one.
        leg: the call's.
        lateness: of the ticks of the call's group, with those from before the call.
        lateness_before: packed, as it was when the call began.
        underruns: of all its sources.
    """
    counters = lib.tp_path_statistics(path)
    jitter = lib.tp_path_jitter(path)
    rate = leg.media_format.sample_rate_hz
    rtp = leg.kind is LegKind.RTP
    before = Lateness.unpacked(lateness_before) if lateness_before is not None else None
    late_ms = lateness.percentiles_ms(LATENESS_SHARES, before) if lateness is not None else [0.0] * 4
    return CallStatistics(
        clock_samples=int(lib.tp_path_clock(path)),
        packets_received=counters.rtp_packets_in,
        packets_sent=counters.rtp_packets_out,
        packets_lost=jitter.packets_lost if rtp else 0,
        packets_late=jitter.packets_late if rtp else 0,
        packets_discarded=jitter.packets_discarded if rtp else 0,
        packets_duplicated=jitter.packets_duplicated if rtp else 0,
        packets_reordered=jitter.packets_reordered if rtp else 0,
        packets_refused=leg.packets_refused,
        packets_malformed=counters.rtp_malformed,
        packets_wrong_payload_type=counters.rtp_wrong_payload_type,
        rtcp_packets_received=counters.rtcp_packets_in,
        ssrc_changes=counters.ssrc_changes,
        jitter_ms=jitter.jitter_x16 / 16 / rate * 1000 if rtp else 0.0,
        jitter_buffer_delay_ms=int(lib.tp_jitter_delay_ms(jitter)) if rtp else 0,
        jitter_buffer_target_delay_ms=jitter.target_delay_ms if rtp else 0,
        jitter_buffer_mean_delay_ms=jitter.delay_ms_sum / max(1, jitter.delay_frames) if rtp else 0.0,
        removed_samples_for_acceleration=jitter.removed_samples if rtp else 0,
        inserted_samples_for_deceleration=jitter.repeated_samples if rtp else 0,
        concealed_samples=counters.concealed_samples,
        concealment_events=counters.concealment_events,
        silent_samples=counters.silent_samples,
        application_samples=counters.application_samples,
        loop_stall_samples=counters.loop_stall_samples,
        underruns=underruns,
        digits_received=counters.digits_in,
        digits_sent=counters.digits_out + leg.digits_taken,
        digits_refused=counters.digits_refused + leg.digits_refused,
        send_failures=leg.send_failures,
        lateness_p50_ms=late_ms[0],
        lateness_p99_ms=late_ms[1],
        lateness_p999_ms=late_ms[2],
        lateness_max_ms=late_ms[3],
    )
