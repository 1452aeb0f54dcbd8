"""Fixtures for tests of voice applications; pytest finds them by itself where talkpath is installed.

* ``autojump``: virtual time for one test. Nothing waits in earnest, and moments can be compared with ``==``.
* ``quiescent``: the test fails when it leaves a descriptor or a talkpath resource behind. For a whole module:
  ``pytestmark = pytest.mark.usefixtures("quiescent")``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.fixture
def autojump() -> MockClock:
    """Give the test a virtual clock that jumps whenever every task waits; begins at 0."""
    # Imported here: the plugin is loaded by every pytest run of the environment, most of which have no use for it.
    from trio.testing import MockClock

    return MockClock(autojump_threshold=0)


@pytest.fixture
def quiescent() -> Iterator[None]:
    """Fail the test when something is left over after it."""
    from talkpath.testing.quiescent import quiescence

    with quiescence():
        yield
