"""One call's audio path: a typed coat over the native core, without a clock and without I/O."""

from __future__ import annotations
