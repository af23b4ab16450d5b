"""Jobs one after the other, in the process of the search."""

from __future__ import annotations

from functools import partial

from convsmith.search.executors.base import Evaluate, Job, OnReport, Outcome, run_job


class InlineExecutor:
    """Evaluate in this process: exactly repeatable, with all threads, without limits of time."""

    capacity = 1

    def open(self, evaluate: Evaluate) -> None:
        """Remember what to call."""
        self._evaluate = evaluate

    def submit(self, job: Job) -> None:
        """Remember the job."""
        self._job = job

    def wait(self, on_report: OnReport) -> Outcome:
        """Run the job."""
        return run_job(self._evaluate, self._job, partial(on_report, self._job.number))

    def close(self) -> None:
        """Nothing is left over."""
