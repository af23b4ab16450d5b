"""The allocator's setting of a command that measures."""

from __future__ import annotations

from convsmith.cli.output import say


def keep_memory() -> bool:
    """Let this process keep freed memory, so that eager does not pay for pages at every pass, and say so."""
    from convsmith.deploy import allocator

    kept = allocator.keep_memory()
    if kept:
        say("freed memory stays with this process (mallopt): where it goes back to the kernel, wide maps take longer")
    return kept
