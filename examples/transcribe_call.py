"""Live transcription of both sides of a call, offline: who said what, and when.

A platform streams both tracks one-way (Twilio and SignalWire: ``<Start><Stream track="both_tracks">``); here each is
cut into utterances, and a speech recogniser whose package carries its model (``pip install talkpath[examples]``)
writes them down. Recognition takes a good part of a core and does not let go of Python's lock, so it has a process of
its own: the media loop only hands over utterances. At most four of a call wait; when the recogniser falls behind, the
oldest is dropped and counted.

    python examples/transcribe_call.py

The model is small and made for wide-band audio, so on telephone speech it is a demonstration. Put another recogniser in
its place: anything that takes samples and returns text.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import trio

import talkpath
from talkpath.audio import Samples
from talkpath.dsp import Level

RATE_HZ = 16_000
"""What the model was trained on."""
CHUNK_MS = 100
LOUD_DBOV = -40.0
PAUSE_MS = 600
"""So much quiet ends an utterance."""
LONGEST_MS = 10_000
WAITING = 4
"""Utterances of one call that may wait for the recogniser."""
SPEAKERS = {"inbound": "caller", "outbound": "agent"}

Recognise = Callable[[Samples], Awaitable[str]]


class Utterance(NamedTuple):
    """What one side said in one breath."""

    track: str
    at_s: float
    samples: Samples


class Cutter:
    """Cuts a track into utterances, where it is quiet for a while."""

    def __init__(self, track: str) -> None:
        self.track = track
        self._level = Level()
        self._chunks: list[Samples] = []
        self._at_s = 0.0
        self._quiet_ms = 0.0

    def take(self, chunk: talkpath.AudioChunk) -> Utterance | None:
        """Take the next chunk; return the utterance that it ends."""
        loud = self._level.process(chunk.samples) > LOUD_DBOV
        if loud and not self._chunks:
            self._at_s = chunk.at_sample / chunk.sample_rate_hz
        if loud or self._chunks:
            self._chunks.append(chunk.samples)
        self._quiet_ms = 0.0 if loud else self._quiet_ms + chunk.duration_ms
        if self._quiet_ms >= PAUSE_MS or len(self._chunks) * CHUNK_MS >= LONGEST_MS:
            return self.rest()
        return None

    def rest(self) -> Utterance | None:
        """Return what has been said of an utterance that is not over."""
        chunks, self._chunks = self._chunks, []
        return Utterance(self.track, self._at_s, np.concatenate(chunks)) if chunks else None


class Transcript:
    """Writes down the utterances of one call, one after the other, as fast as the recogniser can."""

    def __init__(self, recognise: Recognise) -> None:
        self.dropped = 0
        self._recognise = recognise
        self._waiting: deque[Utterance] = deque()
        self._wake = trio.Event()
        self._over = False

    def put(self, utterance: Utterance | None) -> None:
        """Have it written down; what has waited longest gives way."""
        if utterance is None:
            return
        if len(self._waiting) == WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(utterance)
        self._wake.set()

    def finish(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._wake.set()

    async def run(self) -> None:
        """Write until everything has been written."""
        while self._waiting or not self._over:
            if not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            utterance = self._waiting.popleft()
            words = await self._recognise(utterance.samples)
            print(
                f"{utterance.at_s:6.1f} s  {SPEAKERS[utterance.track]}: {words or '(nothing understood)'}", flush=True
            )


async def bot(recognise: Recognise, line: talkpath.Line) -> None:
    """Transcribe one call, to its end."""
    transcript = Transcript(recognise)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transcript.run)
        async with trio.open_nursery() as ears:
            for track in line.info.tracks:
                ears.start_soon(listen_to, line, track, transcript)
        transcript.finish()
    if transcript.dropped:
        print(f"{transcript.dropped} utterances were dropped: the recogniser is too slow", flush=True)


async def listen_to(line: talkpath.Line, track: str, transcript: Transcript) -> None:
    """Cut one track into utterances until the call is over."""
    cutter = Cutter(track)
    async for chunk in line.listen(sample_rate_hz=RATE_HZ, chunk_ms=CHUNK_MS, track=track):
        transcript.put(cutter.take(chunk))
    transcript.put(cutter.rest())


# The recogniser, in a process of its own -------------------------------------------------------------------------

_decoder: Any = None


def load_model() -> None:
    """Load the model; once in the recogniser's process."""
    global _decoder
    from pocketsphinx import Decoder

    _decoder = Decoder(samprate=float(RATE_HZ), loglevel="FATAL")


def decode(audio: bytes) -> str:
    """Recognise one utterance; in the recogniser's process."""
    _decoder.start_utt()
    _decoder.process_raw(audio, full_utt=True)
    _decoder.end_utt()
    best = _decoder.hyp()
    return str(best.hypstr) if best is not None else ""


def recogniser_process() -> ProcessPoolExecutor:
    """Return the process that recognises; leave it as a context manager."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=load_model)


async def recognise_in(process: ProcessPoolExecutor, samples: Samples) -> str:
    """Have the process recognise; a thread waits for it, and Trio's loop does not."""
    audio = samples.tobytes()
    return await trio.to_thread.run_sync(lambda: process.submit(decode, audio).result(), abandon_on_cancel=True)


def main() -> None:
    """Serve until interrupted."""
    config = talkpath.ServeConfig(line=talkpath.LineConfig(linger_s=60))
    with recogniser_process() as process:
        transcribe = functools.partial(bot, functools.partial(recognise_in, process))
        trio.run(functools.partial(talkpath.serve_lines, transcribe, "127.0.0.1", 8080, config=config))


if __name__ == "__main__":
    main()
