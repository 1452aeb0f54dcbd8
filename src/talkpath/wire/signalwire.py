"""SignalWire's stream wire, both ends: Twilio's, with differences.

Three documents start a stream: SWML ``stream`` (one-way), SWML ``connect`` to ``stream:wss://`` (two-way), and cXML
``<Stream>``. The frames are documented for cXML alone; that the SWML ways write the same ones is inferred from their
words about the first message. The differences from Twilio: the version in ``connected`` (0.2.0), ids are UUIDs, more
codecs, ``dtmf`` tells how long a key was held, a ``mark`` that comes back has no number, and the application may send
digits, one a message.

Where the documents are silent: ``streamSid`` stands at the top of ``dtmf`` and ``mark`` only, and ``stop`` has no
body. An application written for Twilio needs both everywhere and one written for SignalWire does not mind, so they
are written unless `SignalWireOptions.as_documented` asks for the letter.

Source: SignalWire's cXML and SWML pages and API specifications of 2026-08, its official demo, read 2026-11; the page
``docs/wire-signalwire.md`` says which of them each rule rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from talkpath.errors import ConfigError
from talkpath.events import Digit, MediaFormat, SendDigits, StreamStarted, WireEvent
from talkpath.wire.dialect import Role
from talkpath.wire.json_message import check_max_message_bytes, digits_problem, named
from talkpath.wire.twilio import TwilioFamily

FORMATS: Final = (
    ("PCMU", 8000),
    ("PCMA", 8000),
    ("L16", 8000),
    ("L16", 16000),
    ("L16", 24000),
    ("L16", 48000),
)
"""What a stream can be. cXML documents mu-law, L16 at 16 and 24 kHz; SWML's codec strings name a rate freely. G722 and
OPUS, which SWML names too, the core does not have."""


@dataclass(frozen=True, slots=True)
class SignalWireOptions:
    """What SignalWire's own documents leave open, with the choice made where nothing is said."""

    as_documented: bool = False
    """Platform: write ``streamSid`` only where the documents show it, and ``stop`` without a body."""
    big_endian: bool = False
    """Byte order of L16 samples; not documented, the official demo hands them to a little-endian API unchanged."""
    max_message_bytes: int = 1 << 21
    """A longer message is refused unread; no bound is documented."""

    timestamp_from_start: ClassVar[bool] = True
    """Timestamps count milliseconds from the stream's start (documented)."""

    def __post_init__(self) -> None:
        check_max_message_bytes(self.max_message_bytes)


class SignalWireDialect(TwilioFamily):
    """One end of one SignalWire stream: messages in, events out; commands in, messages out.

    Args:
        role: Which end this is.
        media_format: Platform: the stream's format. Its byte order is not looked at; `options` says it.
        options: What SignalWire leaves open.

    Raises:
        ConfigError: a format that this wire does not write.
    """

    wire: str = "signalwire"
    _VERSION = "0.2.0"
    _ENCODINGS: ClassVar[Mapping[str, str]] = {"PCMU": "audio/x-mulaw", "PCMA": "audio/x-alaw", "L16": "audio/x-L16"}
    _MARKS_NUMBERED = False

    def __init__(
        self,
        role: Role,
        *,
        media_format: MediaFormat = MediaFormat("PCMU", 8000),  # noqa: B008 - frozen
        options: SignalWireOptions = SignalWireOptions(),
    ) -> None:
        if (media_format.encoding, media_format.sample_rate_hz) not in FORMATS:
            raise ConfigError(
                f"codec {named(media_format)} is not on the signalwire wire; right is "
                + ", ".join(f"{encoding} at {rate_hz} Hz" for encoding, rate_hz in FORMATS)
            )
        self.options = options
        self._ID_EVERYWHERE = self._STOP_SAYS_WHO = not options.as_documented
        super().__init__(
            role,
            media_format=media_format,
            max_message_bytes=options.max_message_bytes,
            big_endian=options.big_endian,
        )

    def _write_ids(self, started: StreamStarted) -> tuple[str, str, str]:
        return (
            self._check_written_id("stream_id", started.stream_id),
            self._check_written_id("call_id", started.call_id),
            self._check_written_id("account_id", started.account_id),
        )

    def _digit_body(self, digit: Digit) -> dict[str, object]:
        return {"digit": digit.digit.upper(), "duration": digit.duration_ms or 0}

    def _send_digits(self, command: SendDigits) -> Sequence[bytes]:
        self._check_started("dtmf")
        problem = digits_problem(command.digits)
        if problem:
            self._json.blame("dtmf", "bad_value", problem)
        return tuple(
            self._json.write({"event": "dtmf", "streamSid": self.stream_id, "dtmf": {"digit": digit}})
            for digit in command.digits.upper()
        )

    def _read_digits(self, message: dict[str, Any]) -> WireEvent:
        body = self._json.inner(message, "dtmf", "dtmf")
        digit = body.get("digit")
        if isinstance(digit, int) and not isinstance(digit, bool) and 0 <= digit <= 9:
            return SendDigits(str(digit))
        return SendDigits(self._json.digits(body, "dtmf", key="digit"))
