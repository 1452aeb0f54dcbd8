"""For those who test voice applications: an impaired link, known tones, a simulated caller, nothing-is-left checks.

Everything here may import anything of talkpath; of talkpath only the command line imports it. The pytest plugin
(`talkpath.testing.pytest_plugin`) is found by pytest by itself where talkpath is installed.
"""

from __future__ import annotations

from talkpath.testing.link import GilbertElliott, LinkEmulator, LinkStatistics
from talkpath.testing.quiescent import assert_quiescent, quiescence, register_resource_counter
from talkpath.testing.tones import ToneSource, ToneSpan, find_tones, tone_levels

__all__ = [
    "GilbertElliott",
    "LinkEmulator",
    "LinkStatistics",
    "ToneSource",
    "ToneSpan",
    "assert_quiescent",
    "find_tones",
    "quiescence",
    "register_resource_counter",
    "tone_levels",
]
