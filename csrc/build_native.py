"""Build talkpath._native, the C extension, with cffi in API mode (one abi3 module for CPython 3.11+).

The declarations Python sees are in native.cdef.h and nowhere else; the sources are every tp_*.c beside this file.
"""

from __future__ import annotations

import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# cffi releases the GIL around every call. Ours are far shorter than a GIL hand-over (a released GIL costs up to one
# switch interval to get back beside a busy thread), so the module is compiled to keep it. Long calls are the pump's.
KEEP_GIL = """
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }
"""


# Under the limited API Python.h no longer brings these along, and cffi's glue relies on them.
GLUE_INCLUDES = ["-include", "alloca.h", "-include", "string.h"]


def make_ffi() -> FFI:
    """Describe the extension module; setup.py and the command line below compile it."""
    ffi = FFI()
    ffi.cdef((HERE / "native.cdef.h").read_text())
    headers = sorted(path.name for path in HERE.glob("tp_*.h"))
    sources = sorted(os.path.relpath(path, ROOT) for path in HERE.glob("tp_*.c"))
    flags = [
        "-std=c11",
        "-O2",
        "-ffp-contract=off",
        *GLUE_INCLUDES,
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Wstrict-prototypes",
        "-fvisibility=hidden",
    ]
    # The generated glue casts freely, so -Wconversion is left to `make c-test`, which compiles our own sources alone.
    if os.environ.get("TALKPATH_WERROR"):
        flags.append("-Werror")
    ffi.set_source(
        "talkpath._native",
        KEEP_GIL + "".join(f'#include "{name}"\n' for name in headers),
        sources=sources,
        include_dirs=[str(HERE.relative_to(ROOT)), str(HERE.relative_to(ROOT) / "tables")],
        extra_compile_args=flags,
        py_limited_api=True,
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
    )
    return ffi


ffi = make_ffi()
