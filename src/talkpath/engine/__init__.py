"""The platform's end: an engine owns calls, a call owns a leg and its streams."""

from talkpath.engine.call import Call
from talkpath.engine.call_events import CallEvents
from talkpath.engine.config import EngineConfig, StreamSpec
from talkpath.engine.engine import Engine, open_engine
from talkpath.engine.leg import Leg
from talkpath.engine.memory_leg import MemoryLeg, WavLeg
from talkpath.engine.metrics import prometheus_text
from talkpath.engine.placed import Placed
from talkpath.engine.rtp_leg import RtpLeg
from talkpath.engine.stream import CallStream
from talkpath.engine.worker_process import PlacedCall, PlacedRecord, WorkerState
from talkpath.engine.workers import Workers, WorkersConfig, WorkersStatistics, WorkerStatistics, open_workers
from talkpath.transport.recording import Recording

__all__ = [
    "Call",
    "CallEvents",
    "CallStream",
    "Engine",
    "EngineConfig",
    "Leg",
    "MemoryLeg",
    "Placed",
    "PlacedCall",
    "PlacedRecord",
    "Recording",
    "RtpLeg",
    "StreamSpec",
    "WavLeg",
    "WorkerState",
    "WorkerStatistics",
    "Workers",
    "WorkersConfig",
    "WorkersStatistics",
    "open_engine",
    "open_workers",
    "prometheus_text",
]
