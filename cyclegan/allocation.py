"""What the C library does with freed memory: kept for a training's next step, given back by a server."""

import ctypes
import gc

# Numbers of mallopt(3) in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _HEAPS = -1, -3, -8
_NEVER = 2**31 - 1
LARGEST_THRESHOLD = 2**25  # what is larger is mapped by itself, and so can be had after a failure


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, in place of asking the system for it again.

    A step's feature maps are of tens of megabytes each. glibc gives such back at once and gets them anew,
    and the system fills each page with zeros before it is first written. What
    a process holds at most stays the same, for a step frees nothing that the next one does not need.
    It holds for the whole process, so it is a program's to call, not a library's.

    Returns:
        Whether the C library did so; others than glibc have other ways, and are left alone.
    """
    return _told("mallopt", _MMAP_THRESHOLD, LARGEST_THRESHOLD) and _told("mallopt", _TRIM_THRESHOLD, _NEVER)


def share_heaps() -> bool:
    """Let all threads share two heaps, in place of up to eight for each core.

    Each heap keeps some megabytes for good, for what lives on lies scattered over its pages. To be called
    before threads begin, and for the whole process.

    Returns:
        As ``keep_freed_memory``.
    """
    return _told("mallopt", _HEAPS, 2)


def give_memory_back() -> bool:
    """What is freed, and stays with the process until the C library is told, goes back to the system.

    Returns:
        As ``keep_freed_memory``.
    """
    gc.collect()
    return _told("malloc_trim", 0)


def _told(function: str, *numbers: int) -> bool:
    try:
        call = getattr(ctypes.CDLL(None), function)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(call(*numbers))
