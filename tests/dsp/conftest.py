"""Every test here leaves the SIMD level as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from talkpath.dsp.simd import select_simd_level, simd_level


@pytest.fixture(autouse=True)
def simd_level_restored() -> Iterator[None]:
    before = simd_level()
    yield
    select_simd_level(before)
