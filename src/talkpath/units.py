"""Conversions between milliseconds, samples and nanoseconds, all in integers."""

from __future__ import annotations

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def ms_to_samples(ms: int, sample_rate_hz: int) -> int:
    """Return the whole samples in `ms` milliseconds, rounded down."""
    return ms * sample_rate_hz // 1000


def samples_to_ms(n_samples: int, sample_rate_hz: int) -> int:
    """Return the whole milliseconds in `n_samples`, rounded down."""
    return n_samples * 1000 // sample_rate_hz


def samples_to_ns(n_samples: int, sample_rate_hz: int) -> int:
    """Return the nanoseconds in `n_samples`, rounded to nearest."""
    return (n_samples * NS_PER_S + sample_rate_hz // 2) // sample_rate_hz


def seconds_to_ns(seconds: float) -> int:
    """Return a clock reading in integer nanoseconds; rounds, never truncates."""
    return round(seconds * 1e9)
