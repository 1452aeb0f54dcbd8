"""Testing a voice application without a phone, a socket or a second of waiting.

The bot under test is `echo_bot`. Both ends of the wire run in this process over memory, and the clock is virtual: a
call of eight seconds takes a fraction of one, and every run gives the same samples.

    pytest examples/test_bot.py
"""

from __future__ import annotations

import trio
import trio.testing

import talkpath
from echo_bot import GREETING, bot
from talkpath.line import serve_memory_lines
from talkpath.testing import ToneSource, find_tones
from talkpath.testing.likeness import find_copy


async def test_the_bot_greets_then_echoes(autojump_clock: trio.testing.MockClock) -> None:
    greeting = talkpath.read_audio(GREETING)
    leg = talkpath.MemoryLeg(sample_rate_hz=8000)

    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, bot, "bot")
        async with talkpath.open_engine() as engine, engine.open_call(leg) as call:
            await call.start_stream(talkpath.StreamSpec(url=url, bidirectional=True))
            await trio.sleep(5)
            leg.say(ToneSource(450).take(8000))  # one second of tone, known to nobody else
            await trio.sleep(3)
            heard = leg.heard()
        nursery.cancel_scope.cancel()

    said = find_copy(heard, greeting.samples)
    assert said.likeness > 0.99
    assert said.at_sample < 0.2 * 8000

    (echo,) = find_tones(heard[5 * 8000 :], 8000, [450])
    assert 0 < echo.from_sample < 0.3 * 8000
    assert abs(echo.to_sample - echo.from_sample - 8000) <= 2 * 160
