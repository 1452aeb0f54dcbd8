"""One bot for every wire: it greets, yields when talked over, echoes, answers keys, dials on, and hangs up on ``#``.

Nothing in it names a platform. What a wire cannot express raises `NotOnThisWire`, here and now, and the bot leaves
that part out; what a wire cannot tell comes out as ASSUMED.

    python examples/every_wire_bot.py
    talkpath call ws://127.0.0.1:8080 --wire twilio --play examples/audio/caller.wav --press '1*#@9s'
"""

from __future__ import annotations

from pathlib import Path

import trio

import talkpath
from talkpath.dsp import tone

GREETING = Path(__file__).parent / "audio" / "greeting.wav"
EXTENSION = "12"
"""What ``*`` dials for the caller."""
RATE_HZ = 8_000
KEY_TONES_HZ = {"1": 600.0, "2": 800.0}
"""What the menu says to a key: a tone of 300 ms stands for a recording."""


async def bot(line: talkpath.Line) -> None:
    """Greet, then echo the caller and answer his keys until he presses #."""
    await greet(line)
    echo = line.on_audio(line.speak)
    async for digit in line.digits():
        if digit == "#":
            break
        # Meanwhile the caller is not echoed: what was said after the answer would come later by its length, for good.
        echo.close()
        await answer(line, digit)
        echo = line.on_audio(line.speak)
    await line.drain()
    await line.hang_up()


async def greet(line: talkpath.Line) -> None:
    """Say the greeting; the caller may talk over it, where the wire can take back what was sent."""
    try:
        line.barge_in(talkpath.EnergyGate())
    except talkpath.NotOnThisWire as missing:
        print(f"no barge-in: {missing}")
    line.speak(talkpath.read_audio(GREETING))
    greeted = await line.checkpoint("greeted").wait()
    print(f"{line.info.wire}: the greeting was {greeted.outcome.value}")
    line.barge_in(None)


async def answer(line: talkpath.Line, digit: str) -> None:
    """Answer a key of the menu: say its tone, or with * dial on, where the wire has keys to send."""
    if digit in KEY_TONES_HZ:
        await line.play(tone(KEY_TONES_HZ[digit], 300, RATE_HZ), sample_rate_hz=RATE_HZ)
    elif digit == "*":
        try:
            await line.send_digits(EXTENSION)
        except talkpath.NotOnThisWire as missing:
            print(f"no keys sent: {missing}")


if __name__ == "__main__":
    trio.run(talkpath.serve_lines, bot, "127.0.0.1", 8080)
