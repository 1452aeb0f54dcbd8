"""The platform's end: an engine owns calls, a call owns a leg and its streams."""

from talkpath.engine.call import Call, CallEvents
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.engine import Engine, open_engine
from talkpath.engine.leg import Leg, MemoryLeg, RtpLeg, WavLeg
from talkpath.engine.metrics import prometheus_text
from talkpath.engine.stream import CallStream

__all__ = [
    "Call",
    "CallEvents",
    "CallStream",
    "Engine",
    "EngineConfig",
    "Leg",
    "MemoryLeg",
    "RtpLeg",
    "StreamSpec",
    "WavLeg",
    "open_engine",
    "prometheus_text",
]
