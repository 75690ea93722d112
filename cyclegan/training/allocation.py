"""Memory that a step gives back is kept for the next one."""

import ctypes

# Numbers of mallopt(3) in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGEST_THRESHOLD = 2**25  # what is larger is mapped by itself, and so can be had after a failure


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, in place of asking the system for it again.

    A step's feature maps are of tens of megabytes each. glibc gives such back at once and gets them anew,
    and the system fills each page with zeros before it is first written. What
    a process holds at most stays the same, for a step frees nothing that the next one does not need.
    It holds for the whole process, so it is a program's to call, not a library's.

    Returns:
        Whether the C library did so; others than glibc have other ways, and are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_TRIM_THRESHOLD, _NEVER))
