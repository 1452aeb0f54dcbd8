"""A bot with a streaming synthesiser and barge-in: it reads out news, and stops when the caller speaks.

The synthesiser here is a stand-in that needs no network: every word is a short tone, handed over in chunks as they
come, at 24 kHz as many services do. Put a real one in its place: anything that can be iterated with ``async for`` and
gives `AudioChunk`. `play` reads it only as fast as it can be spoken, and tells how much of it the caller heard.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
import trio

import talkpath
from talkpath.dsp import Level

RATE_HZ = 24_000
NEWS = (
    "The village clock has stopped again, at a quarter past four.",
    "Eleven garden gnomes were found on a doorstep; nobody has claimed them.",
    "Tomorrow will be dry.",
)


async def synthesise(text: str) -> AsyncIterator[talkpath.AudioChunk]:
    """Give the speech for `text` word by word, a little after each was asked for, as a service would."""
    for word in text.split():
        await trio.sleep(0.02)
        n = np.arange(RATE_HZ * (60 + 30 * len(word)) // 1000)
        pitch_hz = 300 + 40 * (sum(map(ord, word)) % 10)
        swell = np.sin(math.pi * n / len(n))
        yield talkpath.AudioChunk(
            (6000 * swell * np.sin(2 * math.pi * pitch_hz * n / RATE_HZ)).astype(np.int16), RATE_HZ
        )


async def wait_until_quiet(line: talkpath.Line, quiet_ms: int = 600) -> None:
    """Wait until the caller has said nothing for `quiet_ms`."""
    quiet_so_far_ms = 0.0
    meter = Level()
    async for chunk in line.listen():
        quiet_so_far_ms = 0.0 if meter.process(chunk.samples) > -35 else quiet_so_far_ms + chunk.duration_ms
        if quiet_so_far_ms >= quiet_ms:
            return


async def bot(line: talkpath.Line) -> None:
    """Read the news; when the caller talks over an item, let him finish and say how far it got."""
    line.barge_in(talkpath.EnergyGate())
    for item in NEWS:
        played = await line.play(synthesise(item))
        if played.reason is talkpath.Outcome.CLEARED:
            seconds = played.samples / line.info.sample_rate_hz
            print(f"interrupted after {seconds:.1f} s of: {item}")
            await wait_until_quiet(line)
    # Returning hangs up, after what is queued has been played.


if __name__ == "__main__":
    trio.run(talkpath.serve_lines, bot, "127.0.0.1", 8080)
