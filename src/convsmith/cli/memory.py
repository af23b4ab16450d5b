"""The allocator's setting of a command that measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from convsmith.cli.output import say


@contextmanager
def kept_memory(device: str = "cpu") -> Iterator[bool]:
    """Let this process keep freed memory, so that eager does not pay for pages at every pass; say so at the end.

    Gives whether the C library can. A command that fails says only what is wrong, and one that measures another
    device, which has an allocator of its own, nothing.
    """
    from convsmith.deploy import allocator

    kept = allocator.keep_memory()
    yield kept
    if kept and device == "cpu":
        say("freed memory stayed with this process (mallopt): where it goes back to the kernel, wide maps take longer")
