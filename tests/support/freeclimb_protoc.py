"""What protoc makes of our FreeClimb definition: messages that are no table of ours, and stubs for grpcio."""

from __future__ import annotations

import importlib
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import talkpath.wire.freeclimb

PROTO = Path(talkpath.wire.freeclimb.__file__).with_name("freeclimb.proto")


@lru_cache
def _directory() -> str:
    import grpc_tools
    from grpc_tools import protoc

    made = tempfile.mkdtemp(prefix="talkpath-freeclimb-")
    common = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        ["protoc", f"-I{PROTO.parent}", f"-I{common}", f"--python_out={made}", f"--grpc_python_out={made}", PROTO.name]
    )
    assert status == 0, "protoc refuses our definition"
    return made


def _generated(name: str) -> ModuleType:
    sys.path.insert(0, _directory())
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(_directory())


@lru_cache
def messages() -> Any:
    """Return the generated messages."""
    return _generated("freeclimb_pb2")


@lru_cache
def stubs() -> Any:
    """Return the generated client and server of grpcio."""
    return _generated("freeclimb_pb2_grpc")


def platform(**payload: Any) -> Any:
    """Make a `PlatformMessage` by its one payload's name and fields; a field may bear the name ``from``."""
    ((which, fields),) = payload.items()
    return messages().PlatformMessage(**{which: fields})


def app(**payload: Any) -> Any:
    """Make an `AppMessage`."""
    ((which, fields),) = payload.items()
    return messages().AppMessage(**{which: fields})
