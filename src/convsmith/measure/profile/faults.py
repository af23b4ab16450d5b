"""Pages that the kernel has to provide anew, because the allocator gave freed activations back to it."""

from __future__ import annotations

import mmap
import resource
import time
from statistics import median

import torch

BLOCK_BYTES = 2**20  # of an activation; what a page costs hardly depends on it
REPEATS = 16


def page_faults() -> int:
    """Pages that this process was given so far without reading a disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def fault_ms() -> float:
    """Milliseconds that a new page costs: a block fresh from the kernel is filled twice, and gets its pages once."""
    costs = []
    for _ in range(REPEATS):
        with mmap.mmap(-1, BLOCK_BYTES) as fresh:
            block = torch.frombuffer(fresh, dtype=torch.uint8)
            faults, start = page_faults(), time.perf_counter()
            block.fill_(1)
            first, faults = time.perf_counter() - start, page_faults() - faults
            start = time.perf_counter()
            block.fill_(1)
            costs.append((first - (time.perf_counter() - start)) / max(faults, 1))
            del block  # a mapping that is looked at cannot be closed
    return 1e3 * max(0.0, median(costs))
