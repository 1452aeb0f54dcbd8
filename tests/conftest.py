"""What every test shares: the build under test in the header, repeatable hypothesis profiles, our own plugin."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from hypothesis import settings

from support.errors import Errors
from talkpath.cli.doctor import native_summary

pytest.register_assert_rewrite("support.calls", "support.frames", "support.peer", "support.virtual")

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("TALKPATH_HYPOTHESIS_PROFILE", "repeatable"))

# An installed talkpath brings its pytest plugin by entry point; a bare source tree on PYTHONPATH does not.
if not any(plugin.name == "talkpath" for plugin in entry_points(group="pytest11")):
    pytest_plugins = ["talkpath.testing.pytest_plugin"]


def pytest_report_header(config: pytest.Config) -> str:
    return f"talkpath: {native_summary()}; hypothesis profile {settings.get_current_profile_name()}"


@pytest.fixture
def errors() -> Iterator[Errors]:
    """Collect what talkpath logs as errors, instead of writing thousands of tracebacks."""
    seen = Errors()
    log = logging.getLogger("talkpath")
    log.addHandler(seen)
    log.propagate = False
    yield seen
    log.propagate = True
    log.removeHandler(seen)
