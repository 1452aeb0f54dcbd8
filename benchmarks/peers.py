"""The named peers, each optional but the standard library: what is absent is skipped and the result says so.

Nothing here imports talkpath. Versions go into every result.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterable
from types import ModuleType

import numpy as np
import numpy.typing as npt

OPTIONAL = {
    "audioop": "G.711 and resampling of the standard library (before 3.13) or its backport audioop-lts",
    "orjson": "JSON in Rust",
    "pybase64": "base64 with SIMD",
    "soxr": "resampling, the usual choice of voice applications",
    "scipy": "resampling by polyphase filter, no streaming state",
    "wsproto": "sans-IO WebSocket under trio-websocket",
    "websockets": "sans-IO WebSocket of the asyncio library",
    "trio_websocket": "the WebSocket library of Trio programs",
    "uvloop": "event loop of the asyncio peers",
    "picows": "the fastest WebSocket library for Python, in Cython",
    "pipecat": "voice bots on asyncio: the peer of the application's end",
    "webrtcvad": "voice activity, the usual choice; webrtcvad-wheels has it built",
    "aiortc": "jitter buffer and RTP parser in Python",
}

DISTRIBUTIONS = {"audioop": "audioop-lts", "pipecat": "pipecat-ai", "webrtcvad": "webrtcvad-wheels"}
"""Under which name a module is installed, where it is another."""


def find_peer(name: str) -> ModuleType | None:
    """Import a peer by its module name, or return None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def missing_modules(names: Iterable[str]) -> list[str]:
    """Name those that are not installed, without importing them: a system under test does, in its own process."""
    missing: list[str] = []
    for name in names:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # the package that it is part of
            found = None
        if found is None:
            missing.append(name)
    return missing


def peer_versions() -> dict[str, str | None]:
    """Name the version of every peer; None where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in OPTIONAL:
        if missing_modules((name,)):
            versions[name] = None
            continue
        try:
            versions[name] = importlib.metadata.version(DISTRIBUTIONS.get(name, name.replace("_", "-")))
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "standard library"
    return versions


class TableG711:
    """PCMU by numpy look-up tables, for Pythons without audioop.

    Source: ITU-T G.711, table 2a; the encoder takes the nearest of the 256 decoded values' decision intervals as the
    algorithm with a bias of 33 on 14 bits does.
    """

    def __init__(self) -> None:
        codes = ~np.arange(256, dtype=np.int32) & 0xFF
        exponent, mantissa = codes >> 4 & 7, codes & 15
        magnitude = (((mantissa << 3) + 132) << exponent) - 132
        self._linear: npt.NDArray[np.int16] = np.where(codes & 0x80, -magnitude, magnitude).astype(np.int16)
        samples = np.arange(-32768, 32768, dtype=np.int32)
        negative = samples < 0
        biased = np.minimum(np.where(negative, ~samples, samples) >> 2, 8158) + 33
        power = np.floor(np.log2(biased)).astype(np.int32) - 5
        code = power << 4 | (biased >> (power + 1) & 15)
        self._octets: npt.NDArray[np.uint8] = (~(code | negative.astype(np.int32) << 7) & 0xFF).astype(np.uint8)

    def ulaw2lin(self, octets: bytes, width: int) -> bytes:
        """Decode; the signature of audioop's function, width 2 only."""
        return self._linear[np.frombuffer(octets, np.uint8)].tobytes()

    def lin2ulaw(self, pcm: bytes, width: int) -> bytes:
        """Encode; the signature of audioop's function, width 2 only."""
        return self._octets[np.frombuffer(pcm, np.int16).astype(np.int32) + 32768].tobytes()
