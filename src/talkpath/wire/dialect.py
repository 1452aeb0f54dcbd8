"""What every platform's message language offers to the engine and to a line: the `Dialect`.

A dialect is one end of one stream: it holds the numbers and ids of that stream and nothing else. Messages go in
and frozen events come out; commands go in and messages come out. It carries payload bytes and the name of their
encoding, never samples. What happens fifty times a second does not pass through it: for that it only *describes* its
media message, as a template (to write) and a shape (to read), which the native core executes; `receive` stays the
judge of everything the native reader does not take, and the two agree.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from talkpath.events import MediaFormat, WireEvent


class Role(enum.Enum):
    """Which end of the wire a dialect stands at."""

    PLATFORM = "platform"
    APPLICATION = "application"


class Field(enum.IntEnum):
    """What stands between two pieces of a media message's template."""

    END = 0
    PAYLOAD = 1
    SEQUENCE = 2
    CHUNK = 3
    TIMESTAMP_MS = 4
    BYTES = 5
    """The payload as it is; this and what follows: binary messages alone."""
    SEQUENCE_32 = 6
    SAMPLE_64 = 7
    """The first sample's position, since the stream began."""
    LENGTH_16 = 8
    """The payload's bytes."""


class ShapeKind(enum.IntEnum):
    """How media messages that come in are written."""

    JSON = 0
    BYTES = 1
    """A binary message is payload and nothing else."""
    NATIVE = 2
    """A binary message of talkpath's own wire."""


@dataclass(frozen=True, slots=True)
class MediaTemplate:
    """A media message as text cut into pieces; after ``pieces[i]`` comes ``fields[i]``, END after the last."""

    pieces: tuple[bytes, ...]
    fields: tuple[Field, ...]
    binary: bool = False
    """It is a binary message, its numbers big-endian and of fixed width."""


@dataclass(frozen=True, slots=True)
class MediaShape:
    """The keys of the media message that comes in; an empty name means the wire has no such key."""

    event_value: str
    event_key: str = "event"
    object_key: str = "media"
    payload_key: str = "payload"
    track_key: str = ""
    encoding_key: str = ""
    rate_key: str = ""
    timestamp_key: str = ""
    chunk_key: str = ""
    sequence_key: str = ""
    encoding_name: str = ""
    """How the wire writes the stream's own encoding; a message that names another goes to `receive`."""
    kind: ShapeKind = ShapeKind.JSON
    """Binary kinds have no names."""


class Dialect(ABC):
    """One end of one stream's message language. Sans-IO, one owner.

    The platform's end is made with the stream's format and learns the rest from the `StreamStarted` it sends; the
    application's end learns all of it from the one it receives.
    """

    wire: str
    role: Role
    media_format: MediaFormat
    """Of the stream; an application learns it from `StreamStarted`."""
    writes_binary: bool = False
    """What `send` returns are binary messages, else text."""
    has_marks: bool = True
    """Whether checkpoints can be sent and are answered. Where not, when one is heard is the line's own model."""
    reports_errors: bool = False
    """The platform's end says what it refused (`PlatformError`); elsewhere it is only counted."""
    confirms_digits: bool = False
    """The platform's end says when digits begin to be sent, and when they have been (`DigitsSent`)."""
    returns_marks_on_clear: bool = False
    """Whether pending checkpoints come back after a clear (Twilio, SignalWire) or are dropped (Plivo)."""
    confirms_clear: bool = False
    """Whether a clear is answered (Plivo's ``clearedAudio``)."""

    @abstractmethod
    def receive(self, text: bytes | bytearray | memoryview | str) -> Sequence[WireEvent]:
        """Turn one whole text message into events.

        Raises:
            RemoteWireError: the peer's message is not of this wire; nothing else is ever raised, on any input.
        """

    @abstractmethod
    def receive_binary(self, data: bytes) -> Sequence[WireEvent]:
        """Turn one whole binary message into events. Raises as `receive`."""

    @abstractmethod
    def send(self, command: WireEvent, *, sequence: int = 0) -> Sequence[bytes]:
        """Write a command or event as zero or more messages. `sequence` is the stream's next message number.

        Zero messages: the wire says this by silence (Plivo drops checkpoints on clear). Only `Media` and what the wire
        numbers uses `sequence`; `numbered` says which.

        Raises:
            NotOnThisWire: the wire has no such message.
            LocalWireError: the command breaks the wire's rules.
        """

    @abstractmethod
    def numbered(self, command: WireEvent) -> bool:
        """Whether the message for `command` carries a sequence number."""

    @abstractmethod
    def media_template(self, track: str) -> MediaTemplate:
        """Describe this stream's media message for `track` (``inbound``/``outbound``); the application's for what it
        plays.
        """

    @abstractmethod
    def media_shape(self) -> MediaShape | None:
        """Describe the media message that the other end sends; None: all of them are `receive`'s."""

    @property
    def play_format(self) -> MediaFormat:
        """Of what the application plays: the stream's, but for a wire that has a format for each direction."""
        return self.media_format

    def greeting(self) -> Sequence[bytes]:
        """What the application's end writes as soon as it knows the stream; on most wires nothing."""
        return ()

    def check(self, command: WireEvent) -> None:
        """Raise what `send` would, and send nothing: to tell a caller in his own frame what is wrong.

        For a dialect whose `send` changes nothing that a second time could not change; others have their own.
        """
        self.send(command)

    def wrap_media(self, framed: memoryview) -> bytes:
        """Make a message of what the native core wrote; on most wires it is one."""
        return bytes(framed)

    def plain_audio(self, data: bytes) -> bytes | None:
        """Return the audio of a binary message that is audio in the stream's format and nothing else, or None.

        A shorter way to what `receive_binary` would say of it, for wires whose audio the native core does not read.
        """
        return None
