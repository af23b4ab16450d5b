"""What an executor is, and how one job runs, wherever it does."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from convsmith.arch import Architecture
from convsmith.search.history import check_metrics

Report = Callable[[int, float], None]  # step, value
OnReport = Callable[[int, int, float], None]  # number of the trial, step, value


class Evaluate(Protocol):
    """What a search calls: metrics of an architecture, the objective among them.

    `seed` is the trial's own; `report(step, value)` records an intermediate value. An exception, and a metric that is
    no finite number, make the trial a failed one. A method `facts() -> dict`, if there is one, says what a value
    depends on (data, recipe); a resumed search is refused where it differs.
    """

    def __call__(self, architecture: Architecture, /, *, seed: int, report: Report) -> Mapping[str, float]:
        """Evaluate one architecture."""


@dataclass(frozen=True)
class Job:
    """One trial to be evaluated."""

    number: int
    architecture: Architecture
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its metrics, or the reason of its failure."""

    number: int
    metrics: dict[str, float]
    error: str | None = None


class Executor(Protocol):
    """Where jobs run.

    A search opens its executor, submits jobs as long as fewer than `capacity` are under way, waits for one of them to
    finish, and closes it at the end, whatever happened.
    """

    @property
    def capacity(self) -> int:
        """How many jobs may be under way at the same time."""

    def open(self, evaluate: Evaluate) -> None:
        """Get ready to evaluate."""

    def submit(self, job: Job) -> None:
        """Take a job on."""

    def wait(self, on_report: OnReport) -> Outcome:
        """Block until one of the submitted jobs has finished, passing on what jobs report meanwhile."""

    def close(self) -> None:
        """End what still runs, and give everything back."""


def run_job(evaluate: Evaluate, job: Job, report: Report) -> Outcome:
    """Evaluate in this process; any exception but an interrupt is a failed trial."""
    try:
        return Outcome(job.number, check_metrics(evaluate(job.architecture, seed=job.seed, report=report)))
    except Exception as error:  # out of memory too, on the host (MemoryError) and on the device (RuntimeError)
        return Outcome(job.number, {}, reason(error))


def reason(error: BaseException) -> str:
    """An exception as a trial records it: type, message, and the line that raised it."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    place = frames[-1]
    return f"{text} ({Path(place.filename).name}, line {place.lineno}: {place.line})"
