"""Model search: spaces, strategies, the loop that asks and tells, its history, and where trials are evaluated."""

from convsmith.search import executors, spaces, strategies
from convsmith.search.constraints import Constraint, cost_constraint, latency_constraint, predicted_latency_constraint
from convsmith.search.evaluate import TrainAndMeasure
from convsmith.search.executors import Evaluate, Executor, InlineExecutor, ProcessExecutor, Report
from convsmith.search.history import History, Trial
from convsmith.search.loop import search
from convsmith.search.pareto import pareto_front
from convsmith.search.strategies import Strategy

__all__ = [
    "Constraint",
    "Evaluate",
    "Executor",
    "History",
    "InlineExecutor",
    "ProcessExecutor",
    "Report",
    "Strategy",
    "TrainAndMeasure",
    "Trial",
    "cost_constraint",
    "executors",
    "latency_constraint",
    "pareto_front",
    "predicted_latency_constraint",
    "search",
    "spaces",
    "strategies",
]
