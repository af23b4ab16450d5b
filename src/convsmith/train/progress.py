"""The progress bar of a training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]  # batches done, what to show beside the bar

SECONDS_BETWEEN_DRAWINGS = 0.5  # drawing takes milliseconds, as long as a step of a small network


@contextmanager
def progress_bar(total: int, done: int, *, shown: bool | None) -> Iterator[Advance]:
    """A bar over `total` batches on standard error, with the remaining time; None shows it on a terminal only."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda batches, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    waiting, said, drawn = 0, "", 0.0
    # Drawn from here, not by a thread of its own, which would take time from the training ten times a second.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=total, completed=done)

        def advance(batches: int, text: str) -> None:
            nonlocal waiting, said, drawn
            waiting, said = waiting + batches, text
            if time.monotonic() - drawn >= SECONDS_BETWEEN_DRAWINGS:
                bar.update(task, advance=waiting, description=said, refresh=True)
                waiting, drawn = 0, time.monotonic()

        yield advance
        bar.update(task, advance=waiting, description=said, refresh=True)
