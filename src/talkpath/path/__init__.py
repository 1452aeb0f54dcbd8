"""One call's audio path: a typed coat over the native core, without a clock and without I/O."""

# Importing it chooses the kernels this machine can run, before any path uses them.
import talkpath.dsp.simd as simd

__all__ = ["simd"]
