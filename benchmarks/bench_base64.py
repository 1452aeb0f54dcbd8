"""Base64 of one frame of G.711, both ways, beside what Python programs use; peers that are missing are left out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from benchmarks.peers import find_peer
from benchmarks.signals import frames_of, speech_like
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib

FRAMES = 500
SAMPLES = 160
SECONDS = FRAMES / 50


def _each(work: Callable[[Any], object], inputs: list[Any]) -> Callable[[], None]:
    def run() -> None:
        for item in inputs:
            work(item)

    return run


def rows() -> list[Row]:
    """Build both ways' rows."""
    octets = [frame.tobytes()[:SAMPLES] for frame in frames_of(speech_like(SECONDS))]
    texts = [base64.b64encode(each) for each in octets]
    held_octets = [ffi.new("uint8_t[]", each) for each in octets]
    held_texts = [ffi.new("uint8_t[]", each) for each in texts]
    out = ffi.new("uint8_t[]", 256)
    encode, decode = lib.tp_base64_encode, lib.tp_base64_decode
    n_text = len(texts[0])

    def run_encode() -> None:
        for each in held_octets:
            encode(out, 256, each, SAMPLES)

    def run_decode() -> None:
        for each in held_texts:
            decode(out, 256, each, n_text)

    encoders = [Candidate("base64", _each(base64.b64encode, octets), FRAMES)]
    decoders = [
        Candidate("base64", _each(base64.b64decode, texts), FRAMES),
        Candidate(
            "base64, validating as ours", _each(lambda text: base64.b64decode(text, validate=True), texts), FRAMES
        ),
    ]
    if (pybase64 := find_peer("pybase64")) is not None:
        encoders.append(Candidate("pybase64", _each(pybase64.b64encode, octets), FRAMES))
        decoders.append(
            Candidate(
                "pybase64, validating", _each(lambda text: pybase64.b64decode(text, validate=True), texts), FRAMES
            )
        )
    return [
        Row("base64 encode, 160 bytes", Candidate("talkpath", run_encode, FRAMES), encoders),
        Row("base64 decode, 160 bytes", Candidate("talkpath, validating", run_decode, FRAMES), decoders),
    ]
