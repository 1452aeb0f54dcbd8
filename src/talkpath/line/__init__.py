"""The application's end: a `Line` to listen, speak, clear and hang up; servers and clients that make one."""

from talkpath.line.access import Access
from talkpath.line.checkpoint import Checkpoint
from talkpath.line.config import LineConfig, LineInfo, LineRecord, ServeConfig
from talkpath.line.connect import connect_line, line_on
from talkpath.line.line import Line
from talkpath.line.listen import AudioHook, Digits, Listener
from talkpath.line.serve import LineServer, serve_lines, serve_memory_lines
from talkpath.line.workers import LineWorkers, open_line_workers, serve_lines_on_workers

__all__ = [
    "Access",
    "AudioHook",
    "Checkpoint",
    "Digits",
    "Line",
    "LineConfig",
    "LineInfo",
    "LineRecord",
    "LineServer",
    "LineWorkers",
    "Listener",
    "ServeConfig",
    "connect_line",
    "line_on",
    "open_line_workers",
    "serve_lines",
    "serve_lines_on_workers",
    "serve_memory_lines",
]
