"""How far a calibration has come, for the person who waits for it or reads its log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from convsmith.cli.output import console, say

Progress: TypeAlias = Callable[[int, float], None]

EVERY_SECONDS = 60.0  # a line in a log


@contextmanager
def shown(seconds: float) -> Iterator[Progress]:
    """What is told the number of networks and the seconds measured: a bar on standard error, or lines in a log."""
    if not sys.stderr.isatty():
        yield _lines(seconds)
        return
    from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = (TextColumn("calibrate"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=console(error=True)) as bar:
        task = bar.add_task("", total=seconds)
        yield lambda networks, done: bar.update(task, completed=done, description=f"{networks} networks")


def _lines(seconds: float) -> Progress:
    """A line a minute, and one at the end."""
    told = 0.0

    def tell(networks: int, done: float) -> None:
        nonlocal told
        if done - told >= EVERY_SECONDS or done >= seconds:
            told = done
            say(f"calibrate: {networks} networks in {done / 60:.1f} of {seconds / 60:g} minutes")

    return tell
