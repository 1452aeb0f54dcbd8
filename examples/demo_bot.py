"""The bot of `make demo`: it greets and asks again, is talked over, echoes, takes digits, and hangs up on ``#``.

One life of a voice application against the public `Line`: audio sent ahead, checkpoints in it, barge-in that clears
what is queued, digits, the end of the call.
"""

from __future__ import annotations

from pathlib import Path

import trio

import talkpath

GREETING = Path(__file__).parent / "audio" / "greeting.wav"


async def bot(line: talkpath.Line) -> None:
    """Greet, ask again, and from the caller's first word on say back what he says, until he presses #."""
    greeting = talkpath.read_audio(GREETING)
    line.barge_in(talkpath.EnergyGate())

    # Both at once: what waits is the line's affair, and the checkpoints say what became of it.
    line.speak(greeting)
    line.checkpoint("greeting")
    line.speak(greeting)
    asked_again = line.checkpoint("asked again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up_on_hash, line)
        await asked_again.wait()
        line.barge_in(None)
        async for chunk in line.listen():
            line.speak(chunk)


async def hang_up_on_hash(line: talkpath.Line) -> None:
    """Wait for the key that ends the call."""
    async for digit in line.digits():
        if digit == "#":
            await line.hang_up()


if __name__ == "__main__":
    trio.run(talkpath.serve_lines, bot, "127.0.0.1", 8080)
