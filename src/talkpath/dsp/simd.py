"""Which instruction set the native core uses; importing this module chooses the best one the machine has.

``TALKPATH_SIMD=base`` or ``TALKPATH_SIMD=avx2`` in the environment forces a level, for tests and for comparing. Every
level gives identical bytes, so this is never a question of quality. The choice is per process and made once, at import.
"""

from __future__ import annotations

import os

from talkpath._native import lib
from talkpath.errors import ConfigError, NativeError

ENVIRONMENT_VARIABLE = "TALKPATH_SIMD"
SIMD_LEVELS = ("base", "avx2")
"""Names of the levels, lowest first; a name's index is the native core's number for it."""


def simd_level() -> str:
    """Return the name of the level in use."""
    return SIMD_LEVELS[lib.tp_simd_level_in_use()]


def available_simd_levels() -> tuple[str, ...]:
    """Return the levels this machine can run, lowest first."""
    return SIMD_LEVELS[: lib.tp_simd_level_best() + 1]


def select_simd_level(name: str | None = None) -> str:
    """Use the named level from now on, or the best one when `name` is None; return the level in use.

    Only for tests and measurements, and only while nothing else runs in the native core: the choice is one for the
    whole process.

    Raises:
        ConfigError: no level has this name, or this machine lacks it; the caller's to mend.
    """
    if name is not None and name not in available_simd_levels():
        known = ", ".join(available_simd_levels())
        raise ConfigError(f"SIMD level {name!r} is not available here; this machine has: {known}")
    if lib.tp_simd_select(-1 if name is None else SIMD_LEVELS.index(name)) < 0:
        raise NativeError(f"the native core refused SIMD level {name!r}")
    return simd_level()


select_simd_level(os.environ.get(ENVIRONMENT_VARIABLE) or None)
