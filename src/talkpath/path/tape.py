"""The newest seconds of a call, both tracks side by side on its one sample clock, for whoever writes them down."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from talkpath._native import ffi, lib
from talkpath.errors import ConfigError
from talkpath.path.arena import new_struct

Pairs = npt.NDArray[np.int16]
"""int16, [n_samples, 2]: what the caller says, what the caller hears."""

Track = npt.NDArray[np.int16]
"""int16, [n_samples]."""


class Taken(NamedTuple):
    """What one read of a tape gave."""

    pairs: Pairs
    lost: int
    """Samples before them that were no longer on the tape."""


class Tape:
    """Own one native tape, and a reader's place on it.

    The path writes to it within its ticks; reading changes nothing that a tick looks at, so it may be read from any
    task of the driver's thread.

    Args:
        capacity: samples of each track that it holds; more is overwritten, oldest first.
        clock: the call's present sample, the tape's first.
        sample_rate_hz: of both tracks, for whoever asks.

    Raises:
        ConfigError: no capacity.
    """

    __slots__ = ("_at", "_lost", "_memory", "begin", "capacity", "native", "sample_rate_hz")

    def __init__(self, capacity: int, clock: int = 0, *, sample_rate_hz: int = 8000) -> None:
        self.capacity = capacity
        self.begin = clock
        """The first sample that it was ever to hold."""
        self.sample_rate_hz = sample_rate_hz
        self._memory: Any = ffi.new("int16_t[]", 2 * max(capacity, 1))
        self.native: Any = new_struct("tp_tape")
        if lib.tp_tape_init(self.native, self._memory, capacity, clock) < 0:
            raise ConfigError(f"a tape of {capacity} samples cannot be")
        self._at = ffi.new("int64_t *", clock)
        self._lost = ffi.new("int64_t *")

    @property
    def at_sample(self) -> int:
        """The call's sample that is read next."""
        return int(self._at[0])

    def write(self, at_sample: int, inbound: Track, outbound: Track) -> None:
        """Write a piece of both tracks, of one length; for an owner that has no path."""
        left, right = (ffi.from_buffer("int16_t[]", np.ascontiguousarray(track)) for track in (inbound, outbound))
        lib.tp_tape_write(self.native, at_sample, left, right, min(len(left), len(right)))

    def read(self, most: int | None = None) -> Taken:
        """Take up to `most` samples of both tracks, all by default, from where the last read ended."""
        most = self.capacity if most is None else most
        out = np.empty((most, 2), np.int16)
        buffer = ffi.from_buffer("int16_t[]", out)
        n = lib.tp_path_read_tape(self.native, buffer, most, self._at, self._lost)
        return Taken(out[:n], int(self._lost[0]))
