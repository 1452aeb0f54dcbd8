"""What a telephone network lets a caller hear of its call: dial tone, ringback, busy, congestion, special information.

A platform that answers a call and lets it ring on, or an application that hands one over, plays what the caller's
country plays there: to an American ear a German ringback is a fault. The tables follow ITU-T E.180 supplement 2, and
where a country's own rules say it better those: Australia S002, Russia GOST 45.223, Singapore TS PSTN 1, United Kingdom
SIN 350. Where a country lists several forms, this is the commonest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from talkpath.errors import ConfigError, FormatError
from talkpath.units import ms_to_samples

if TYPE_CHECKING:
    from talkpath.dsp.pcm import Pcm

ProgressKind = Literal["dial", "busy", "ringback", "congestion", "information"]

PROGRESS_DBOV = -16.0
"""About -10 dBm0, what ITU-T E.180 recommends."""
_MODULATION_DEPTH = 0.9
_FULL_SCALE = 32768
_NORTH_AMERICA = (
    "350+440",
    "480+620/500 0/500",
    "440+480/2000 0/4000",
    "480+620/250 0/250",
    "950/330 1400/330 1800/330 -",
)
_SIT = "950/330 1400/330 1800/330 0/1000"
_SIT_APART = "950/330 0/30 1400/330 0/30 1800/330 0/1000"

# Dial, busy, ringback, congestion, special information. Hz/ms, over and over unless a - ends it; 0 is silence, + adds
# two tones, * modulates the first with the second.
_TONES: dict[str, tuple[str, str, str, str, str]] = {
    "at": ("420", "420/400 0/400", "420/1000 0/5000", "420/200 0/200", "950/330 1450/330 1850/330 0/1000"),
    "au": (
        "413+438",
        "425/375 0/375",
        "413+438/400 0/200 413+438/400 0/2000",
        "425/375 0/375",
        "425/2500 0/500",
    ),
    "be": ("425", "425/500 0/500", "425/1000 0/3000", "425/167 0/167", "900/330 1400/330 1800/330 0/1000"),
    "br": ("425", "425/250 0/250", "425/1000 0/4000", "425/250 0/250 425/750 0/250", _SIT),
    "ca": _NORTH_AMERICA,
    "ch": ("425", "425/500 0/500", "425/1000 0/4000", "425/200 0/200", _SIT),
    "cl": ("400", "400/500 0/500", "400/1000 0/3000", "400/200 0/200", _SIT),
    "cn": (
        "450",
        "450/350 0/350",
        "450/1000 0/4000",
        "450/700 0/700",
        "450/100 0/100 450/100 0/100 450/100 0/100 450/400 0/400",
    ),
    "cz": ("425/330 0/330 425/660 0/660", "425/330 0/330", "425/1000 0/4000", "425/165 0/165", _SIT_APART),
    "de": ("425", "425/480 0/480", "425/1000 0/4000", "425/240 0/240", _SIT),
    "dk": ("425", "425/500 0/500", "425/1000 0/4000", "425/200 0/200", _SIT),
    "es": ("425", "425/200 0/200", "425/1500 0/3000", "425/200 0/200 425/200 0/200 425/200 0/600", _SIT),
    "fr": ("440", "440/500 0/500", "440/1500 0/3500", "440/250 0/250", _SIT),
    "gb": (
        "350+440",
        "400/375 0/375",
        "400+450/400 0/200 400+450/400 0/2000",
        "400/400 0/350 400/225 0/525",
        "950/330 0/15 1400/330 0/15 1800/330 0/1000",
    ),
    "hu": ("425", "425/300 0/300", "425/1250 0/3750", "425/300 0/300", _SIT),
    "il": ("414", "414/500 0/500", "414/1000 0/3000", "414/250 0/250", "1000/330 1400/330 1800/330 0/1000"),
    "in": ("400*25", "400/750 0/750", "400*25/400 0/200 400*25/400 0/2000", "400/250 0/250", _SIT),
    "it": ("425/200 0/200 425/600 0/1000", "425/500 0/500", "425/1000 0/4000", "425/200 0/200", _SIT),
    "jp": ("400", "400/500 0/500", "400*16/1000 0/2000", "400/500 0/500", _SIT),
    "mx": ("425", "425/250 0/250", "425/1000 0/4000", "425/250 0/250", _SIT_APART),
    "nl": ("425", "425/500 0/500", "425/1000 0/4000", "425/250 0/250", _SIT),
    "no": ("425", "425/500 0/500", "425/1000 0/4000", "425/200 0/200", _SIT),
    "nz": (
        "400",
        "400/500 0/500",
        "400+450/400 0/200 400+450/400 0/2000",
        "400/250 0/250",
        "400/750 0/100 400/750 0/100 400/750 0/100 400/750 0/400",
    ),
    "pl": ("425", "425/500 0/500", "425/1000 0/4000", "425/500 0/500", _SIT),
    "pt": ("425", "425/500 0/500", "425/1000 0/5000", "425/200 0/200", _SIT),
    "ru": ("425", "425/350 0/350", "425/1000 0/4000", "425/175 0/175", _SIT),
    "se": ("425", "425/250 0/250", "425/1000 0/5000", "425/250 0/750", "950/332 0/24 1400/332 0/24 1800/332 0/2024"),
    "sg": ("425", "425/750 0/750", "425*24/400 0/200 425*24/400 0/2000", "425/250 0/250", _SIT),
    "us": _NORTH_AMERICA,
    "za": (
        "400*33",
        "400/500 0/500",
        "400*33/400 0/200 400*33/400 0/2000",
        "400/250 0/250",
        "950/330 1400/330 1800/330 0/330",
    ),
}

COUNTRIES: tuple[str, ...] = tuple(_TONES)
"""ISO 3166 codes of the countries whose tones are known."""


class _Piece(NamedTuple):
    added_hz: tuple[int, ...]
    modulating_hz: int
    ms: int
    """0: without end."""


@lru_cache(maxsize=256)
def _cadence(kind: str, country: str) -> tuple[tuple[_Piece, ...], bool]:
    """Return the pieces of a tone, and whether they are repeated."""
    kinds = get_args(ProgressKind)
    if kind not in kinds:
        raise ConfigError(f"kind {kind!r} is not one of {', '.join(kinds)}")
    if country.lower() not in _TONES:
        raise ConfigError(f"country {country!r} is not one of {', '.join(COUNTRIES)}")
    pieces: list[_Piece] = []
    repeated = True
    for text in _TONES[country.lower()][kinds.index(kind)].split():
        if text == "-":
            repeated = False
            continue
        tones, _, ms = text.partition("/")
        added, _, modulating = tones.partition("*")
        added_hz = tuple(int(hz) for hz in added.split("+") if hz != "0")
        pieces.append(_Piece(added_hz, int(modulating or 0), int(ms or 0)))
    return tuple(pieces), repeated


class CallProgress:
    """One tone of a network, taken in pieces of any length without a seam.

    Args:
        kind: ``dial``, ``busy``, ``ringback``, ``congestion`` or ``information`` (the special information tone, three
            rising notes).
        country: ISO 3166 code, one of `COUNTRIES`.
        sample_rate_hz: 8000 or more.
        level_dbov: of all that sounds at once, RFC 6464's scale.

    Raises:
        ConfigError: a kind, country or level there is not; the caller's to mend.
        FormatError: a rate below 8000; the caller's to mend.

    Source: ITU-T E.180 supplement 2.
    """

    def __init__(
        self,
        kind: ProgressKind,
        country: str = "us",
        sample_rate_hz: int = 8000,
        level_dbov: float = PROGRESS_DBOV,
    ) -> None:
        if sample_rate_hz < 8000:
            raise FormatError(f"sample_rate_hz must be 8000 or more, got {sample_rate_hz}")
        if not -90 <= level_dbov <= -10:
            raise ConfigError(f"level_dbov is {level_dbov}; it must be between -90 and -10")
        pieces, self._repeated = _cadence(kind, country)
        self.sample_rate_hz = sample_rate_hz
        self._pieces = pieces
        self._ends = np.cumsum([ms_to_samples(piece.ms, sample_rate_hz) for piece in pieces])
        self._power = _FULL_SCALE * 10 ** (level_dbov / 20)
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will sound: of the few tones that sound once."""
        return not self._repeated and self._at >= int(self._ends[-1])

    def take(self, n_samples: int) -> Pcm:
        """Return the next `n_samples`, int16, [n_samples]; silence where the tone is over.

        Raises:
            ConfigError: a negative count; the caller's to mend.
        """
        if n_samples < 0:
            raise ConfigError(f"n_samples must not be negative, got {n_samples}")
        out = np.zeros(n_samples, dtype=np.int16)
        period = int(self._ends[-1])
        done = 0
        while done < n_samples and not self.is_over:
            if period == 0:  # one tone without end
                piece, left = self._pieces[0], n_samples - done
            else:
                within = self._at % period
                index = int(np.searchsorted(self._ends, within, side="right"))
                piece, left = self._pieces[index], int(self._ends[index]) - within
            n = min(left, n_samples - done)
            if piece.added_hz:
                out[done : done + n] = self._sound(piece, n)
            self._at += n
            done += n
        return out

    def _sound(self, piece: _Piece, n: int) -> Pcm:
        # Phase by position in the whole, so that a cadence's parts are one tone that is switched.
        at = np.arange(self._at, self._at + n, dtype=np.float64)

        def wave(hz: int) -> npt.NDArray[np.float64]:
            return np.sin(2 * np.pi * np.remainder(at * (hz / self.sample_rate_hz), 1.0))

        sound = np.sum([wave(hz) for hz in piece.added_hz], axis=0)
        power = len(piece.added_hz) / 2
        if piece.modulating_hz:
            sound = sound * (1 + _MODULATION_DEPTH * wave(piece.modulating_hz))
            power *= 1 + _MODULATION_DEPTH**2 / 2
        pcm: Pcm = np.rint(sound * (self._power / np.sqrt(power))).astype(np.int16)
        return pcm


def call_progress(
    kind: ProgressKind,
    country: str = "us",
    duration_ms: int = 4000,
    sample_rate_hz: int = 8000,
    level_dbov: float = PROGRESS_DBOV,
) -> Pcm:
    """Make `duration_ms` of a network's tone, from the beginning of its cadence.

    Args:
        kind, country, sample_rate_hz, level_dbov: as for `CallProgress`, which makes it piece by piece.
        duration_ms: 0 or more; rounded down to whole samples.

    Returns:
        int16, [duration_ms * sample_rate_hz // 1000].

    Raises:
        ConfigError, FormatError: as `CallProgress`; a negative duration.

    Source: as `CallProgress`.
    """
    if duration_ms < 0:
        raise ConfigError(f"duration_ms must not be negative, got {duration_ms}")
    return CallProgress(kind, country, sample_rate_hz, level_dbov).take(ms_to_samples(duration_ms, sample_rate_hz))
