"""Every error talkpath raises on purpose.

::

    TalkpathError
      WireError                  abstract
        LocalWireError           we or the caller broke the wire's rules
        RemoteWireError          the peer did; the machine stays in its error state
      NotOnThisWire              the wire has no such operation
      PlayoutFull                more audio queued than the bound
      CallEnded                  with .reason (enum), .cause, and .refusal where a call was not taken
      ConfigError(ValueError)    unknown key, bad value: says which, and what would be right
      FormatError(ValueError)    wrong rate, width, shape
      NativeError(RuntimeError)  a bug of ours

Messages carry facts (wire, event, offset), never audio, digits, tokens or full numbers.
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from talkpath.records import EndReason, Refusal


class TalkpathError(Exception):
    """The base of everything raised on purpose."""


class WireError(TalkpathError):
    """A platform's message rules were broken; see the two kinds, which say by whom.

    `kind` is one short word for counting (``bad_json``, ``missing_field``, ``too_long``, ...): records keep counts by
    it, so it never holds anything the peer wrote.
    """

    def __init__(
        self, message: str, *, wire: str = "", event: str = "", offset: int | None = None, kind: str = "malformed"
    ) -> None:
        if type(self) is WireError:
            raise TypeError("WireError is abstract; raise LocalWireError or RemoteWireError")
        where = " ".join(part for part in (wire, event) if part)
        at = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{where}{at}: {message}" if where or at else message)
        self.wire = wire
        self.event = event
        self.offset = offset
        self.kind = kind


class LocalWireError(WireError):
    """We, or the caller of our API, broke the wire's rules."""


class RemoteWireError(WireError):
    """The peer broke the wire's rules; parsers raise this and nothing else, on any input."""


class NotOnThisWire(TalkpathError):
    """The wire has no such operation; names the wire and the nearest thing it has."""

    def __init__(self, wire: str, operation: str, nearest: str) -> None:
        super().__init__(f"the {wire} wire has no {operation}; the nearest thing it has is {nearest}")
        self.wire = wire
        self.operation = operation
        self.nearest = nearest


class PlayoutFull(TalkpathError):
    """More audio is queued than the bound allows; nothing of the refused chunk was taken."""


class CallEnded(TalkpathError):
    """The call, stream or line is over, or was not let begin; then `refusal` says what to answer whoever asked."""

    def __init__(
        self, reason: EndReason, cause: BaseException | None = None, *, refusal: Refusal | None = None
    ) -> None:
        why = f": {refusal.explanation}" if refusal is not None else ""
        super().__init__(f"ended: {reason.value}" + (f" ({type(cause).__name__})" if cause is not None else why))
        self.reason = reason
        self.cause = cause
        self.refusal = refusal


class ConfigError(TalkpathError, ValueError):
    """An unknown key or a bad value; says which, and what would be right."""


class FormatError(TalkpathError, ValueError):
    """Audio of the wrong rate, width or shape; the caller's to mend."""


class NativeError(TalkpathError, RuntimeError):
    """The native core answered with a status that should not happen: a bug of ours."""


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless it is a number and low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{what} is of type {type(value).__name__}; it must be a number between {low} and {high}")
    if not low <= value <= high:
        raise ConfigError(f"{what} is {value}; it must be between {low} and {high}")
