"""Where trials are evaluated: in the process of the search, or in worker processes."""

from convsmith.search.executors.base import Evaluate, Executor, Job, Outcome, Report, reason
from convsmith.search.executors.inline import InlineExecutor
from convsmith.search.executors.process import ProcessExecutor

__all__ = ["Evaluate", "Executor", "InlineExecutor", "Job", "Outcome", "ProcessExecutor", "Report", "reason"]
