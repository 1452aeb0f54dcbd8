"""The wires there are, by name. The engine and the lines look things up here and never name a platform themselves."""

from __future__ import annotations

from collections.abc import Mapping

from talkpath.errors import ConfigError
from talkpath.wire.asterisk_wire import ASTERISK
from talkpath.wire.audiosocket_wire import AUDIOSOCKET
from talkpath.wire.entry import Wire
from talkpath.wire.freeclimb_wire import FREECLIMB
from talkpath.wire.native_wire import NATIVE
from talkpath.wire.plivo_wire import PLIVO
from talkpath.wire.signalwire_wire import SIGNALWIRE
from talkpath.wire.teler_wire import TELER
from talkpath.wire.twilio_wire import TWILIO

WIRES: Mapping[str, Wire] = {
    wire.name: wire for wire in (PLIVO, TWILIO, SIGNALWIRE, TELER, NATIVE, ASTERISK, AUDIOSOCKET, FREECLIMB)
}

SUBPROTOCOLS = tuple(wire.subprotocol for wire in WIRES.values() if wire.subprotocol)


def wire_named(name: str) -> Wire:
    """Return the wire called `name`.

    Raises:
        ConfigError: there is none.
    """
    wire = WIRES.get(name)
    if wire is None:
        raise ConfigError(f"wire {name!r} is not one of {', '.join(WIRES)}")
    return wire
