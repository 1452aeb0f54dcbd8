"""talkpath: the two-way audio circuit of a call, at both ends of the voice platforms' wires.

Rules of this file: it only re-exports, and lazily, so that ``import talkpath.dsp`` loads the arithmetic and neither
Trio nor a socket. Floors, lowest first, imports go down only:

  1  errors units audio events records      values
  2  dsp                                     arithmetic on numpy arrays, over the C core
  3  wire                                    sans-IO: bytes <-> events
  4  path                                    sans-IO: one call's audio path
  5  transport                               Trio begins here
  6  engine, line                            the platform's end; the application's end
  7  gateway                                 call control
  8  cli

``talkpath.testing`` may import anything and is imported by none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

if TYPE_CHECKING:
    from talkpath.audio import AudioChunk as AudioChunk
    from talkpath.audio import AudioClip as AudioClip
    from talkpath.audio import convert_rate as convert_rate
    from talkpath.audio import read_audio as read_audio
    from talkpath.audio import write_audio as write_audio
    from talkpath.engine import EngineConfig as EngineConfig
    from talkpath.engine import MemoryLeg as MemoryLeg
    from talkpath.engine import Placed as Placed
    from talkpath.engine import RtpLeg as RtpLeg
    from talkpath.engine import StreamSpec as StreamSpec
    from talkpath.engine import WavLeg as WavLeg
    from talkpath.engine import WorkersConfig as WorkersConfig
    from talkpath.engine import open_engine as open_engine
    from talkpath.engine import open_workers as open_workers
    from talkpath.engine import prometheus_text as prometheus_text
    from talkpath.errors import CallEnded as CallEnded
    from talkpath.errors import ConfigError as ConfigError
    from talkpath.errors import FormatError as FormatError
    from talkpath.errors import LocalWireError as LocalWireError
    from talkpath.errors import NativeError as NativeError
    from talkpath.errors import NotOnThisWire as NotOnThisWire
    from talkpath.errors import PlayoutFull as PlayoutFull
    from talkpath.errors import RemoteWireError as RemoteWireError
    from talkpath.errors import TalkpathError as TalkpathError
    from talkpath.errors import WireError as WireError
    from talkpath.line import Access as Access
    from talkpath.line import Line as Line
    from talkpath.line import LineConfig as LineConfig
    from talkpath.line import LineServer as LineServer
    from talkpath.line import ServeConfig as ServeConfig
    from talkpath.line import connect_line as connect_line
    from talkpath.line import line_on as line_on
    from talkpath.line import open_line_workers as open_line_workers
    from talkpath.line import serve_lines as serve_lines
    from talkpath.line import serve_lines_on_workers as serve_lines_on_workers
    from talkpath.path.barge_in import BargeIn as BargeIn
    from talkpath.path.barge_in import EnergyGate as EnergyGate
    from talkpath.path.barge_in import Verdict as Verdict
    from talkpath.path.barge_in import VoiceGate as VoiceGate
    from talkpath.path.second_opinion import SecondOpinion as SecondOpinion
    from talkpath.records import CallRecord as CallRecord
    from talkpath.records import CallStatistics as CallStatistics
    from talkpath.records import EndReason as EndReason
    from talkpath.records import MarkOutcome as MarkOutcome
    from talkpath.records import Outcome as Outcome
    from talkpath.records import Played as Played
    from talkpath.records import RecordingRecord as RecordingRecord
    from talkpath.records import Refusal as Refusal
    from talkpath.records import StreamRecord as StreamRecord
    from talkpath.transport.signals import run_until_signalled as run_until_signalled
    from talkpath.transport.tls import client_context as client_context
    from talkpath.transport.tls import server_context as server_context
    from talkpath.transport.url_policy import UrlPolicy as UrlPolicy
    from talkpath.wire.asterisk import AsteriskOptions as AsteriskOptions
    from talkpath.wire.freeclimb import FreeClimbOptions as FreeClimbOptions
    from talkpath.wire.native import NativeOptions as NativeOptions
    from talkpath.wire.plivo import PlivoOptions as PlivoOptions
    from talkpath.wire.signalwire import SignalWireOptions as SignalWireOptions
    from talkpath.wire.teler import TelerOptions as TelerOptions
    from talkpath.wire.twilio import TwilioOptions as TwilioOptions

_HOME = {
    "talkpath.audio": ("AudioChunk", "AudioClip", "convert_rate", "read_audio", "write_audio"),
    "talkpath.engine": (
        "EngineConfig",
        "MemoryLeg",
        "Placed",
        "RtpLeg",
        "StreamSpec",
        "WavLeg",
        "WorkersConfig",
        "open_engine",
        "open_workers",
        "prometheus_text",
    ),
    "talkpath.errors": (
        "CallEnded",
        "ConfigError",
        "FormatError",
        "LocalWireError",
        "NativeError",
        "NotOnThisWire",
        "PlayoutFull",
        "RemoteWireError",
        "TalkpathError",
        "WireError",
    ),
    "talkpath.line": (
        "Access",
        "Line",
        "LineConfig",
        "LineServer",
        "ServeConfig",
        "connect_line",
        "line_on",
        "open_line_workers",
        "serve_lines",
        "serve_lines_on_workers",
    ),
    "talkpath.path.barge_in": ("BargeIn", "EnergyGate", "Verdict", "VoiceGate"),
    "talkpath.path.second_opinion": ("SecondOpinion",),
    "talkpath.records": (
        "CallRecord",
        "CallStatistics",
        "EndReason",
        "MarkOutcome",
        "Outcome",
        "Played",
        "RecordingRecord",
        "Refusal",
        "StreamRecord",
    ),
    "talkpath.transport.tls": ("client_context", "server_context"),
    "talkpath.transport.signals": ("run_until_signalled",),
    "talkpath.transport.url_policy": ("UrlPolicy",),
    "talkpath.wire.asterisk": ("AsteriskOptions",),
    "talkpath.wire.freeclimb": ("FreeClimbOptions",),
    "talkpath.wire.native": ("NativeOptions",),
    "talkpath.wire.plivo": ("PlivoOptions",),
    "talkpath.wire.signalwire": ("SignalWireOptions",),
    "talkpath.wire.teler": ("TelerOptions",),
    "talkpath.wire.twilio": ("TwilioOptions",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
