"""What the front and its worker processes say to each other: msgpack messages with a length before each. Sans-IO.

The problem: two processes of one program talk over a socket that passes file descriptors too. Either may be killed in
the middle of a message, or be of another version (a rolling restart after an update); neither must ever be confused or
held up by the other. The choice: one frozen class per message, its fields checked one by one on the way in; four bytes
of length (big-endian) before each message, at most 64 KiB of it; whatever is not exactly one of these messages is a
`RemoteWireError`, after which nothing more is read: the process that said it is ended.

::

    front to worker                                     worker to front
    Hello     who you are, what you serve; once, first  Serving   calls may come
    Place     a call, with so many sockets              Refusing  there will be none, and why
    HangUp    end that call                             Taken     the call was read, before any of it was run
    Drain     take no more; end by then                 Ready     the call is up, with its answer
                                                        Ended     the call is over, with its record
                                                        Report    how much there is to do; the heartbeat
                                                        Draining  take no more, from the worker's own signal

Descriptors travel beside the bytes, by SCM_RIGHTS with the first byte of the message that says how many they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from talkpath.errors import ConfigError, RemoteWireError

CONTROL_VERSION = 1
"""Said in `Hello`; a worker of another version refuses."""
MAX_MESSAGE_BYTES = 64 * 1024
"""Of one message without its length. A call's parameters and its answer are meant to be some hundred bytes."""
MAX_SOCKETS = 8
"""That one message may carry."""
_DEPTH_MAX = 32
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """The front's first word: who the worker is and what it serves."""

    version: int
    worker: int
    """Its number, of all workers that this front has ever started."""
    service: str
    """``module:name`` of what makes the service."""
    options: dict[str, Any]
    """The service's."""
    path: list[Any]
    """The front's ``sys.path``."""
    core: int
    """To stay on; -1: any."""
    first_port: int
    """Of the worker's own RTP ports; 0: none."""
    last_port: int
    start_s: float
    """From this message to `Serving`."""
    report_s: float
    """Between two reports."""
    hang_s: float
    """A worker that does not get round to a report for so long ends itself, saying where it hung."""
    drain_s: float
    """For the live calls, when the worker is told to go by a signal, or the front is gone."""
    goodbye_s: float
    """For calls that were told to end, until they are cancelled."""
    log_level: str
    """Empty: logging is left to the service."""


@dataclass(frozen=True, slots=True)
class Place:
    """A call for the worker."""

    number: int
    parameters: dict[str, Any]
    sockets: int = 0
    """How many descriptors come with it."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """End a call."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more calls; what is live after `deadline_s` is ended for `reason`. A later one may shorten the time."""

    deadline_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Serving:
    """The worker takes calls."""


@dataclass(frozen=True, slots=True)
class Refusing:
    """The worker cannot serve, and why."""

    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A call has been read, and nothing of it has run yet: from here on it must not be placed elsewhere."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """A call is up."""

    number: int
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """A call is over, or was never taken."""

    number: int
    reason: str
    cause: str
    duration_ms: int
    statistics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """The worker's heartbeat."""

    calls: int
    busy: float
    """Of one core, since the report before; 0..1, more where several threads run."""
    statistics: dict[str, Any]
    """The service's."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The worker takes no more calls, of its own accord (a signal)."""


Message = Hello | Place | HangUp | Drain | Serving | Refusing | Taken | Ready | Ended | Report | Draining
_KINDS: Mapping[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (Hello, Place, HangUp, Drain, Serving, Refusing, Taken, Ready, Ended, Report, Draining)
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "int": _is_int,
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "dict[str, Any]": lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value),
    "list[Any]": lambda value: isinstance(value, list),
}
_FIELDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    kind: {field.name: _CHECKS[str(field.type)] for field in dataclasses.fields(made)} for kind, made in _KINDS.items()
}


def encode(message: Message) -> bytes:
    """Write one message, its length before it.

    Raises:
        ConfigError: something in it cannot travel (plain values only: text, bytes, numbers, None, lists and mappings
            with text for keys), or it is too long; whoever gave that value can mend it.
    """
    kind = type(message).__name__.lower()
    body: dict[str, Any] = {name: getattr(message, name) for name in _FIELDS[kind]}
    for name, value in body.items():
        _check_plain(name, value, 0)
    try:
        data = cast(bytes, msgpack.packb({"kind": kind, **body}))
    except (ValueError, OverflowError) as exc:
        raise ConfigError(f"what is to be sent cannot travel to another process: {type(exc).__name__}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise ConfigError(
            f"what is to be sent has {len(data)} bytes; at most {MAX_MESSAGE_BYTES} travel to another process"
        )
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _check_plain(name: str, value: object, depth: int) -> None:
    """What the packer would take and the reader would not, must not get so far as to cost a worker its life."""
    if depth > _DEPTH_MAX:
        raise ConfigError(f"{name} is nested more than {_DEPTH_MAX} deep")
    if value is None or isinstance(value, str | bytes | int | float):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{name} has a key of type {type(key).__name__}; keys are text")
            _check_plain(f"{name}[{key!r}]", inner, depth + 1)
    elif type(value) in (list, tuple):
        for at, inner in enumerate(cast(Sequence[object], value)):
            _check_plain(f"{name}[{at}]", inner, depth + 1)
    else:
        raise ConfigError(
            f"{name} is of type {type(value).__name__}, which cannot travel to another process; text, bytes, numbers, "
            "None, lists and dicts can"
        )


def decode(data: bytes) -> Message:
    """Read one message without its length.

    Raises:
        RemoteWireError: it is none; the peer's doing.
    """
    try:
        body = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError) as exc:
        raise _malformed(f"cannot be read ({type(exc).__name__})") from None
    if not isinstance(body, dict):
        raise _malformed("is not a mapping")
    kind = body.pop("kind", None)
    checks = _FIELDS.get(kind) if isinstance(kind, str) else None
    if checks is None or not isinstance(kind, str):
        raise _malformed("is of an unknown kind")
    if body.keys() != checks.keys():
        raise _malformed("has other fields than it should", kind)
    for name, check in checks.items():
        if not check(body[name]):
            raise _malformed(f"has a field {name} of the wrong type", kind)
    return _KINDS[kind](**body)


def _malformed(what: str, kind: str = "") -> RemoteWireError:
    return RemoteWireError(f"the message {what}", wire="control", event=kind)


class Decoder:
    """Messages out of a byte stream, however it was cut. After an error nothing more is read."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._failed: RemoteWireError | None = None

    def receive(self, data: bytes | memoryview) -> None:
        """Take what came."""
        if self._failed is None:
            self._unread += data

    def next_message(self) -> Message | None:
        """Return the next message; None when it is not all there yet.

        Raises:
            RemoteWireError: what came is no message, now and ever after.
        """
        if self._failed is not None:
            raise self._failed
        if len(self._unread) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._unread[:_LENGTH_BYTES], "big")
        try:
            if not 0 < length <= MAX_MESSAGE_BYTES:
                raise _malformed("has an impossible length")
            end = _LENGTH_BYTES + length
            if len(self._unread) < end:
                return None
            message = decode(bytes(self._unread[_LENGTH_BYTES:end]))
            if isinstance(message, Place) and not 0 <= message.sockets <= MAX_SOCKETS:
                raise _malformed("has an impossible number of sockets", "place")
        except RemoteWireError as exc:
            self._failed = exc
            self._unread.clear()
            raise
        del self._unread[:end]
        return message

    @property
    def amid(self) -> bool:
        """Whether part of a message waits for its rest."""
        return bool(self._unread)
