"""Memory that a training step frees on a CPU is kept for the next one."""

import ctypes
import sys

# glibc's <malloc.h>: from which size a block is a mapping of its own; how much may lie free at the top.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, where the C library is glibc; whether it does now.

    Feature maps are large, and glibc gives large blocks back to the system as soon as they are free. The
    next step gets fresh ones, page by page, each filled with zeros first. A step needs what the one before
    needed, so keeping it costs nothing at the peak.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
