"""The public face of `talkpath.dsp` as a newcomer meets it: everything is described, and named once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

import talkpath.dsp


def described() -> Iterator[tuple[str, object]]:
    for name in talkpath.dsp.__all__:
        thing = getattr(talkpath.dsp, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for member, value in vars(thing).items():
                if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value


@pytest.mark.parametrize(("name", "thing"), list(described()))
def test_every_public_thing_says_what_it_is_for(name: str, thing: object) -> None:
    text = inspect.getdoc(thing)
    assert text, name
    first = text.splitlines()[0]
    assert first.endswith((".", ":", "?")) or len(first) > 60, first
    if inspect.isfunction(thing) and [p for p in inspect.signature(thing).parameters if p not in ("self", "now")]:
        assert "Raises:" in text or name.startswith("JitterBuffer."), f"{name} does not say what it refuses"


VALUES = {"HeardTick", "JitterFrame", "JitterKind", "JitterStatistics", "ToneEvent", "VoiceFigures", "VoiceState"}


@pytest.mark.parametrize("name", sorted({*talkpath.dsp.__all__} - VALUES - {"simd_level"}))
def test_what_works_on_audio_names_its_source(name: str) -> None:
    thing = getattr(talkpath.dsp, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert "Source:" in (inspect.getdoc(thing) or ""), f"{name} does not say after what it is made"


def test_names_are_listed_once_and_there() -> None:
    assert len(set(talkpath.dsp.__all__)) == len(talkpath.dsp.__all__)
    assert all(hasattr(talkpath.dsp, name) for name in talkpath.dsp.__all__)
