"""A wire's conformance table, and what the tests of all text wires make of one.

A table is rows of a message beside the event it is, each read by one end, with its source and date. A row that is
`written` holds in both directions: the other end's `send` writes a message equal as JSON. The rest are forms that are
only read. Messages that are no messages are the table's too: what is refused, and by which word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from talkpath.events import MediaFormat, StreamStarted, WireEvent
from talkpath.wire.dialect import Dialect, Role

OTHER = {Role.PLATFORM: Role.APPLICATION, Role.APPLICATION: Role.PLATFORM}


@dataclass(frozen=True)
class Row:
    """One message, read by the end `role`."""

    name: str
    role: Role
    text: str
    event: WireEvent
    source: str
    written: bool = False
    sequence: int = 0
    media_format: MediaFormat | None = None
    """Of the stream; None: the table's own."""
    before_start: bool = False
    options: Any = None


@dataclass(frozen=True)
class Refusal:
    """One message that the end `role` refuses."""

    name: str
    role: Role
    text: str | bytes
    kind: str
    before_start: bool = False
    media_format: MediaFormat | None = None


@dataclass(frozen=True)
class WireTable:
    """All rows of one wire, and how its ends are made."""

    wire: str
    make: Callable[[Role, MediaFormat, Any], Dialect]
    stream: StreamStarted
    """A stream that the wire can start; what is played is in its format."""
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    streams: tuple[StreamStarted, ...] = ()
    """Further ones: other formats, tracks, parameters."""
    event_key: str = "event"
    numbered_from: int = 1

    def end(self, role: Role, media_format: MediaFormat | None = None, options: Any = None) -> Dialect:
        """A fresh end."""
        return self.make(role, media_format or self.stream.media_format, options)

    def started(self, role: Role, media_format: MediaFormat | None = None, options: Any = None) -> Dialect:
        """An end whose stream has been started."""
        media_format = media_format or self.stream.media_format
        platform, application = (
            self.end(Role.PLATFORM, media_format, options),
            self.end(Role.APPLICATION, None, options),
        )
        for text in platform.send(replace(self.stream, media_format=media_format), sequence=1):
            application.receive(text)
        return platform if role is Role.PLATFORM else application

    def end_for(self, row: Row | Refusal, role: Role) -> Dialect:
        """An end as a row wants it."""
        options = row.options if isinstance(row, Row) else None
        return (self.end if row.before_start else self.started)(role, row.media_format, options)

    def good(self, role: Role) -> Row:
        """A row that an end takes which has been started without ado."""
        return next(
            row
            for row in self.rows
            if row.role is role and not row.before_start and row.media_format is None and row.options is None
        )


def last_json(end: Dialect, command: WireEvent, sequence: int = 1) -> Any:
    """The last message a command is written as: the only one, but for a greeting before a start."""
    return json.loads(list(end.send(command, sequence=sequence))[-1])


def strings_in(value: object) -> Iterator[str]:
    """All text in an event's fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings_in(pair)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from strings_in(item)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*at, key))


@st.composite
def damaged(draw: st.DrawFn, table: WireTable) -> str:
    """A message of the table with a few of its values replaced, taken away, or put where others belong."""
    texts = [row.text for row in table.rows]
    message = json.loads(draw(st.sampled_from(texts)))
    donor = json.loads(draw(st.sampled_from(texts)))
    gifts = [value for value in (_at(donor, place) for place in _places(donor)) if value is not donor]
    for _ in range(draw(st.integers(1, 4))):
        places = [place for place in _places(message) if place]
        if not places:
            break
        place = draw(st.sampled_from(places))
        holder = _at(message, place[:-1])
        what = draw(st.integers(0, 3))
        if what == 0:
            del holder[place[-1]]
        elif what == 1 and gifts:
            holder[place[-1]] = draw(st.sampled_from(gifts))
        else:
            holder[place[-1]] = draw(json_values)
    return json.dumps(message, ensure_ascii=draw(st.booleans()))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value
