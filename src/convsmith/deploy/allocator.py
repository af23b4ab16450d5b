"""The C library's allocator, told to keep the memory of activations instead of returning it to the kernel.

glibc gives a freed block of some hundred kilobytes back at once, so that the next convolution's output is mapped and
zeroed page by page again: for a network of wide maps this can cost as much as the arithmetic. What it decides depends
on what ran before, which is also why two runs of one network may differ by several per cent.
"""

from __future__ import annotations

import ctypes
import sys

# The names of <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1

_kept = False  # glibc does not tell what it was told


def keep_memory() -> bool:
    """Keep freed memory in this process from now on; False where the C library is not glibc, and nothing was changed.

    Every size is served from the heap (no mmap) and the heap is never trimmed: the process keeps its peak. An
    environment variable would do the same only if it were set before the process started.
    """
    global _kept
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    _kept = all(
        library.mallopt(option, value) == 1 for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST_INT))
    )
    return _kept


def keeps_memory() -> bool:
    """Whether `keep_memory` was called in this process, and succeeded."""
    return _kept
