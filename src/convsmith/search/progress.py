"""The progress bar of a search."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from convsmith.search.history import History


class Bar(Protocol):
    """What a search tells its bar: that the history has grown, or that a trial has reported."""

    def update(self, history: History, note: str = "") -> None:
        """Draw the state of the history, and a note."""


class _NoBar:
    def update(self, history: History, note: str = "") -> None:
        """Draw nothing."""


class _RichBar:
    """Trials done, the best objective, and how long the rest takes at the pace of this start."""

    def __init__(self, trials: int, history: History):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("search"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
        self.began, self.done_before = time.monotonic(), len(history.complete)
        self.trials = trials
        self.task = self.progress.add_task("", total=trials, completed=len(history.complete))

    def update(self, history: History, note: str = "") -> None:
        done = len(history.complete)
        parts = []
        if done > self.done_before:
            seconds = (time.monotonic() - self.began) / (done - self.done_before) * (self.trials - done)
            parts.append(f"left {timedelta(seconds=round(seconds))}")
        if history.best is not None:
            parts.append(f"best {history.metric} {history.best.metrics[history.metric]:.4g}")
        self.progress.update(self.task, completed=done, description="  ".join([*parts, note]))


@contextmanager
def progress_bar(trials: int, history: History) -> Iterator[Bar]:
    """A bar on standard error until `trials` are complete; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield _NoBar()
        return
    bar = _RichBar(trials, history)
    with bar.progress:
        bar.update(history)
        yield bar
