"""A bot in ten lines: it greets the caller, then says back whatever it hears.

Run it, then call it without a phone:  talkpath call ws://127.0.0.1:8080 --play examples/audio/caller.wav
"""

from pathlib import Path

import trio

import talkpath

GREETING = Path(__file__).parent / "audio" / "greeting.wav"


async def bot(line: talkpath.Line) -> None:
    await line.play(talkpath.read_audio(GREETING))
    async for chunk in line.listen():
        line.speak(chunk)


if __name__ == "__main__":
    trio.run(talkpath.serve_lines, bot, "127.0.0.1", 8080)
