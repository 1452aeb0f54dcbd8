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
# switch interval to get back beside a busy thread), so the module is compiled to keep it, but for the pump's turns,
# which are long. Around the body of every wrapper cffi writes these two macros; the wrapper's name says which call it
# is, and as it is a constant the compiler leaves nothing of the question in it.
#
# While the pump's thread runs, what touches a path, a stream or a pump goes through the guard, taken after the GIL is
# let go. The thread announces itself before it lets go, so that no wrapper is then between its look at the guard and
# its call. The two system headers are what cffi's own glue needs and Python.h no longer brings under the limited API.
GLUE = """
#include <alloca.h>
#include <string.h>
#include "tp_pump.h"
#define TP_CALL_BEGINS(name) (__builtin_strncmp(__func__, "_cffi_f_" name, sizeof("_cffi_f_" name) - 1) == 0)
#define TP_CALL_IS(name) (__builtin_strcmp(__func__, "_cffi_f_" name) == 0)
#define TP_CALL_RUNS TP_CALL_IS("tp_pump_run")
#define TP_CALL_STAYS TP_CALL_IS("tp_pump_stay")
#define TP_CALL_IS_LONG \
    (TP_CALL_RUNS || TP_CALL_STAYS || TP_CALL_IS("tp_pump_step") || TP_CALL_IS("tp_pump_read") || \
     TP_CALL_IS("tp_pump_tick"))
#define TP_CALL_IS_GUARDED \
    ((TP_CALL_BEGINS("tp_path_") || TP_CALL_BEGINS("tp_stream_") || TP_CALL_BEGINS("tp_latch_") || \
      TP_CALL_BEGINS("tp_pump_")) && \
     !TP_CALL_RUNS && !TP_CALL_STAYS && !TP_CALL_IS("tp_pump_stop"))
#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS \
    { \
        if (TP_CALL_RUNS) tp_pump_guard_begin(); \
        PyThreadState *tp_thread = TP_CALL_IS_LONG ? PyEval_SaveThread() : NULL; \
        bool tp_entered = TP_CALL_IS_GUARDED && tp_pump_guard_enter();
#define Py_END_ALLOW_THREADS \
        if (TP_CALL_IS_GUARDED) tp_pump_guard_leave(tp_entered); \
        if (TP_CALL_IS_LONG) PyEval_RestoreThread(tp_thread); \
        if (TP_CALL_RUNS) tp_pump_guard_end(); \
        (void)tp_thread, (void)tp_entered; \
    }
"""


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
        GLUE + "".join(f'#include "{name}"\n' for name in headers),
        sources=sources,
        depends=sorted(os.path.relpath(path, ROOT) for path in HERE.rglob("*") if path.suffix in (".h", ".inc")),
        include_dirs=[str(HERE.relative_to(ROOT)), str(HERE.relative_to(ROOT) / "tables")],
        extra_compile_args=flags,
        extra_link_args=["-pthread"],
        py_limited_api=True,
        define_macros=[("Py_LIMITED_API", "0x030b0000")],
    )
    return ffi


ffi = make_ffi()
