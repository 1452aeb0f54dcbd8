"""The common rules catch dialects that break them: each mutant here breaks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from talkpath.events import Clear, Cleared, MediaFormat, StreamStarted, WireEvent
from talkpath.testing.conformance import check_dialect, read_with_shape
from talkpath.wire.dialect import MediaShape, MediaTemplate, Role
from talkpath.wire.plivo import PlivoDialect

STARTED = StreamStarted(
    "b7d3e6a2-91c4-4f0b-8e2d-0c5a7f9e1d22",
    "3f2a9c10-6b1d-4c57-9a1e-5d0f6f1c2b34",
    "MA",
    ("inbound", "outbound"),
    MediaFormat("PCMU", 8000),
    {"tier": "gold"},
)


class ForgetsParameters(PlivoDialect):
    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        return [replace(e, custom_parameters={}) if isinstance(e, StreamStarted) else e for e in super().receive(text)]


class WritesAnotherTemplate(PlivoDialect):
    def media_template(self, track: str) -> MediaTemplate:
        template = super().media_template(track)
        return replace(template, pieces=(template.pieces[0] + b" ", *template.pieces[1:]))


class KnowsAnotherShape(PlivoDialect):
    def media_shape(self) -> MediaShape:
        return replace(super().media_shape(), event_value="audio")


class MisreadsTheShape(PlivoDialect):
    def media_shape(self) -> MediaShape:
        shape = super().media_shape()
        return replace(shape, chunk_key=shape.timestamp_key)


class ChokesOnNonsense(PlivoDialect):
    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        if text == b"null":
            raise AttributeError("no get")
        return super().receive(text)


class NumbersNothing(PlivoDialect):
    def numbered(self, command: WireEvent) -> bool:
        return False


class ClaimsMarksComeBack(PlivoDialect):
    @property
    def returns_marks_on_clear(self) -> bool:
        return True


class ClaimsSilentClears(PlivoDialect):
    @property
    def confirms_clear(self) -> bool:
        return False


class ConfusesClears(PlivoDialect):
    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        return [Cleared() if isinstance(event, Clear) else event for event in super().receive(text)]


class HatesTheUnknown(PlivoDialect):
    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        return [] if "x_unknown" in str(text) else super().receive(text)


@pytest.mark.parametrize(
    ("mutant", "says"),
    [
        (ForgetsParameters, "the stream started is read as"),
        (WritesAnotherTemplate, "the template and send write one text"),
        (KnowsAnotherShape, "the shape knows"),
        (MisreadsTheShape, "the shape and receive differ in chunk"),
        (NumbersNothing, "numbered says"),
        (ClaimsMarksComeBack, "returns_marks_on_clear"),
        (ClaimsSilentClears, "confirms_clear"),
        (ConfusesClears, "is read as"),
        (HatesTheUnknown, "unknown fields change nothing"),
    ],
)
def test_a_dialect_that_breaks_a_rule_is_caught(mutant: type[PlivoDialect], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_dialect(mutant, STARTED, payload=b"\x7f" * 160)


def test_an_exception_of_another_kind_is_not_swallowed() -> None:
    with pytest.raises(AttributeError):
        check_dialect(ChokesOnNonsense, STARTED, payload=b"\x7f" * 160)


def test_the_original_passes() -> None:
    check_dialect(PlivoDialect, STARTED, payload=b"\x7f" * 160)


def test_a_shape_knows_what_is_not_its_message() -> None:
    shape = PlivoDialect(Role.PLATFORM).media_shape()
    for text in (b'{"event":"media"}', b'{"event":"playAudio"}', b'{"event":"playAudio","media":{}}'):
        assert read_with_shape(shape, text) is None
