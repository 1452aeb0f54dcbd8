"""What the process uses of the system: open files and memory, asked for cheaply."""

from __future__ import annotations

import errno
import os


class Descriptors:
    """File descriptors of this process, counted cheaply."""

    def limit(self) -> int | None:
        """Return the soft limit; None where there is none."""
        try:
            import resource
        except ImportError:  # not a Unix
            return None
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if soft == resource.RLIM_INFINITY else soft

    def in_use(self) -> int:
        """Return how many are open; 0 where nobody can tell.

        Linux 6.2 and later says it as the size of a directory, in 4 µs; else the directory is read, in 1 ms for every
        3,000 of them.
        """
        try:
            size = os.stat("/proc/self/fd").st_size
            if size > 0:
                return size
        except OSError:
            pass
        for directory in ("/proc/self/fd", "/dev/fd"):
            try:
                return len(os.listdir(directory)) - 1  # the one that lists
            except OSError as exc:
                if exc.errno == errno.EMFILE:  # not one is left to look with
                    return self.limit() or 0
        return 0


def resident_bytes() -> int:
    """Return the memory of this process that is in use now; where the system does not tell, the most there ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024
