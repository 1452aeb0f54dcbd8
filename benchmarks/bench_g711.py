"""G.711 beside audioop: many calls' frames in one call, as a tick has them; a frame a call; a minute a call.

Encoders by mismatches against ITU-T G.711 on all 65,536 inputs. Peers that are not installed are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers import TableG711, find_peer
from benchmarks.signals import frames_of, speech_like
from benchmarks.timing import Candidate, Row, at_base
from talkpath._native import ffi, lib
from talkpath.dsp import pcma_decode, pcma_encode, pcmu_decode, pcmu_encode

SAMPLES = 160
CALLS = 500
MINUTE = 60 * 50
BASE = "talkpath, base instruction set"


def _ours_per_frame(calls: list[tuple[object, object]], kernel: Callable[..., None], n: int) -> Callable[[], None]:
    def run() -> None:
        for out, given in calls:
            kernel(out, given, n)

    return run


def rows() -> list[Row]:
    """Build the rows of both laws, both ways."""
    table, audioop = TableG711(), find_peer("audioop")
    every = np.arange(-32768, 32768, dtype=np.int16)
    exact = {"PCMU": table.lin2ulaw(every.tobytes(), 2), "PCMA": None}
    linear = [frame.tobytes() for frame in frames_of(speech_like(CALLS / 50))]
    minute = speech_like(MINUTE / 50)
    result: list[Row] = []
    for law, encode, decode, native, short in (
        ("PCMU", pcmu_encode, pcmu_decode, "pcmu", "ulaw"),
        ("PCMA", pcma_encode, pcma_decode, "pcma", "alaw"),
    ):
        coded = [encode(frame) for frame in linear]
        kernels = {
            "encode": getattr(lib, f"tp_g711_{native}_encode"),
            "decode": getattr(lib, f"tp_g711_{native}_decode"),
        }
        public: dict[str, Callable[[bytes], object]] = {"encode": encode, "decode": decode}
        given = {"encode": linear, "decode": coded}
        for way in ("encode", "decode"):
            frames, kernel, call = given[way], kernels[way], public[way]
            slab_bytes = b"".join(frames)
            type_in, type_out = ("int16_t[]", "uint8_t[]") if way == "encode" else ("uint8_t[]", "int16_t[]")
            slab, out = ffi.from_buffer(type_in, slab_bytes), ffi.new(type_out, CALLS * SAMPLES)
            each = [(out, ffi.from_buffer(type_in, frame)) for frame in frames]
            whole = minute.tobytes() if way == "encode" else encode(minute)
            notes: dict[str, float] = {}
            wanted = exact[law]
            if way == "encode" and wanted is not None:
                notes = {"mismatches of 65536": _mismatches(wanted, encode(every))}
            batch = _ours_per_frame([(out, slab)], kernel, CALLS * SAMPLES)
            single = _ours_per_frame(each, kernel, SAMPLES)

            def bulk(call: Callable[[bytes], object] = call, whole: bytes = whole) -> None:
                call(whole)

            batch_peers = [Candidate(BASE, at_base(batch), CALLS)]
            single_peers = [Candidate(BASE, at_base(single), CALLS)]
            bulk_peers = [Candidate(BASE, at_base(bulk), MINUTE)]
            if audioop is not None:
                peer = getattr(audioop, f"lin2{short}" if way == "encode" else f"{short}2lin")
                peer_notes: dict[str, float] = {}
                if way == "encode" and wanted is not None:
                    peer_notes = {"mismatches of 65536": _mismatches(wanted, peer(every.tobytes(), 2))}

                def per_frame(peer: Callable[[bytes, int], bytes] = peer, frames: list[bytes] = frames) -> None:
                    for frame in frames:
                        peer(frame, 2)

                def at_once(peer: Callable[[bytes, int], bytes] = peer, whole: bytes = whole) -> None:
                    peer(whole, 2)

                batch_peers.append(Candidate("audioop, frame a call", per_frame, CALLS, peer_notes))
                single_peers.append(Candidate("audioop", per_frame, CALLS, peer_notes))
                bulk_peers.append(Candidate("audioop", at_once, MINUTE, peer_notes))
            keeps = (slab_bytes, slab, out, frames)
            result += [
                Row(
                    f"{law} {way}, {CALLS} calls' frames a call, per frame",
                    Candidate("talkpath", batch, CALLS, notes, keeps),
                    batch_peers,
                    {"audioop": 25 if way == "encode" else 2.5},
                ),
                Row(f"{law} {way}, frame a call", Candidate("talkpath", single, CALLS, notes, keeps), single_peers),
                Row(
                    f"{law} {way}, 60 s a call, per frame",
                    Candidate("talkpath.dsp", bulk, MINUTE, notes),
                    bulk_peers,
                    {"audioop": 30 if way == "encode" else 3},
                ),
            ]
    return result


def _mismatches(exact: bytes, found: bytes) -> float:
    return sum(one != other for one, other in zip(exact, found, strict=True))
