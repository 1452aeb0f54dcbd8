"""One bot file on every wire: the caller hears the same, to the bit."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

import talkpath
from support.virtual import virtual_engine
from talkpath.line import ServeConfig, serve_memory_lines
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.wire.catalog import WIRES
from talkpath.wire.teler import TelerOptions

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMPARED_S = 5
"""From when the caller begins to talk."""
GREETED = round(1.08 * 8_000)
"""By then the greeting is over: the caller talks over it after a second, and a tenth of one later it is known."""
TOLD: dict[str, Any] = {"teler": TelerOptions(undocumented=True, play_at_stream_rate=True)}
"""Teler's documents have no word for a key and none for playing at 16 kHz; with these options it has both."""
NO_KEYS_TO_SEND = {"twilio", "teler", "asterisk", "audiosocket"}


NO_CLEAR = {"audiosocket"}
"""What was sent cannot be taken back: the greeting ends a little later when it is talked over."""
UNTOLD = {"teler", "audiosocket"}
"""Whether audio was played the platform does not say."""


def outcome_on(wire: str, talks_s: float) -> str:
    return "CLEARED" if talks_s < 5 else "ASSUMED" if wire in UNTOLD else "PLAYED"


def load() -> ModuleType:
    described = importlib.util.spec_from_file_location("every_wire_bot", EXAMPLES / "every_wire_bot.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def heard(
    wire: str, codec: str, options: Any = None, *, keys: str = "12*#", talks_s: float = 1
) -> tuple[np.ndarray, list[str]]:
    """What the caller hears from the bot's first sample on, and the keys he is sent.

    He talks for a second, after one over the greeting, waits, and presses the keys, one a second.
    """
    example = load()
    leg = talkpath.MemoryLeg()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                config = ServeConfig(options=options)
                await serve_memory_lines(example.bot, "bot", wire=wire, config=config, task_status=task_status)

            url = await nursery.start(serve)
            async with virtual_engine() as engine, engine.open_call(leg) as call:
                await call.start_stream(
                    talkpath.StreamSpec(
                        url=url,
                        wire=wire,
                        codec=codec,
                        bidirectional=True,
                        message_ms=20,
                        ends_call=True,
                        options=options,
                    )
                )
                await trio.sleep(talks_s)
                leg.say(ToneSource(450).take(8_000))
                await trio.sleep(1)
                for key in keys:
                    await trio.sleep(1)
                    leg.press(key)
                with trio.move_on_after(2):
                    record = await call.wait_ended()
                    assert record.reason is talkpath.EndReason.APPLICATION_HUNG_UP
            nursery.cancel_scope.cancel()

    with quiescence():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    samples = leg.heard()
    first = int(np.flatnonzero(np.abs(samples.astype(np.int32)) > 16)[0])
    whole = np.zeros(round((COMPARED_S + talks_s) * 8_000), np.int16)
    said = samples[first : first + len(whole)]
    whole[: len(said)] = said
    # A-law has no zero: silence that was echoed is 8, and silence in which keys are sent is 0.
    whole[np.abs(whole) <= 8] = 0
    return whole, leg.digits()


@pytest.mark.parametrize(
    ("codec", "talks_s"), [("PCMU", 1), ("PCMA", 1), ("L16@8000h", 1), ("L16@16000h", 1), ("PCMU", 5), ("L16@8000h", 5)]
)
def test_the_caller_hears_the_same_on_every_wire(
    codec: str, talks_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, rate = codec.removesuffix("h").partition("@")
    wires = [
        wire.name
        for wire in WIRES.values()
        if (name, int(rate or 8000)) in wire.formats and not (wire.name in NO_CLEAR and talks_s < 5)
    ]
    assert len(wires) >= 3
    hashes: dict[str, list[str]] = {}
    for wire in wires:
        samples, dialled = heard(wire, codec, TOLD.get(wire), talks_s=talks_s)
        hashes.setdefault(hashlib.sha256(samples.tobytes()).hexdigest(), []).append(wire)
        assert dialled == ([] if wire in NO_KEYS_TO_SEND else ["1", "2"])
    assert list(hashes.values()) == [wires]
    said = capsys.readouterr().out
    for wire in wires:
        assert f"{wire}: the greeting was {outcome_on(wire, talks_s)}" in said
        assert (f"no keys sent: the {wire} wire" in said) == (wire in NO_KEYS_TO_SEND)


def test_what_is_heard_is_the_bot() -> None:
    samples, _ = heard("plivo", "PCMU")
    greeting = talkpath.read_audio(EXAMPLES / "audio" / "greeting.wav")
    begun = int(np.flatnonzero(np.abs(greeting.samples) > 16)[0])
    together = np.corrcoef(samples[:7_000], greeting.samples[begun : begun + 7_000])[0, 1]
    assert together > 0.99
    spans = find_tones(samples[GREETED:], 8_000, [450, 600, 800])
    assert [round(span.hz) for span in spans] == [450, 600, 800]
    echo, one, two = spans
    # He is heard again from a tenth of a second on, when the gate had taken him for a speaker.
    assert abs((echo.to_sample - echo.from_sample) / 8_000 - 0.88) < 0.05
    assert abs((one.from_sample - echo.from_sample) / 8_000 - 1.9) < 0.1
    assert abs((two.from_sample - one.from_sample) / 8_000 - 1) < 0.05


def test_where_nothing_can_be_taken_back_the_greeting_ends_a_little_later() -> None:
    there, _ = heard("audiosocket", "L16@8000h")
    elsewhere, _ = heard("plivo", "L16@8000h")
    differ = np.flatnonzero(there != elsewhere)
    assert differ[0] >= GREETED - 160
    # The echo begins when the line knows that the greeting is over: at its end, by so much later.
    assert abs(len(np.trim_zeros(there)) - len(np.trim_zeros(elsewhere))) <= 0.1 * 8_000


def test_a_wire_without_keys_sounds_alike_until_the_first_key() -> None:
    """By its documents Teler tells of no key; nobody there hangs up on # then."""
    plain, _ = heard("teler", "L16@8000h", keys="1")
    other, _ = heard("native", "L16@8000h", keys="1")
    assert np.array_equal(plain[: int(2.9 * 8_000)], other[: int(2.9 * 8_000)])
    assert [round(span.hz) for span in find_tones(plain[GREETED:], 8_000, [450, 600])] == [450]
    assert [round(span.hz) for span in find_tones(other[GREETED:], 8_000, [450, 600])] == [450, 600]
