"""The history of a search: its trials, and what strategies, reports and `status` read from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

from convsmith.arch import Architecture, Decisions
from convsmith.search import store
from convsmith.search.pareto import pareto_front

State = Literal["running", "complete", "failed", "infeasible"]


@dataclass(frozen=True)
class Trial:
    """One proposal of a search, and what became of it.

    Its architecture is `space.resolve(trial.decisions)`; `architecture` is a hash of the canonical form, which
    isomorphic candidates share. `infeasible` is a trial that violates a constraint: its metrics say by how much, and
    unless the constraint is on a metric of `evaluate`, it was not evaluated. `same_as` is the number of the trial
    whose metrics were taken over because it had the same architecture. Times are seconds since the epoch.
    """

    number: int
    decisions: Decisions
    state: State = "running"
    metrics: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    started: float = 0.0
    finished: float | None = None
    error: str | None = None
    reports: tuple[tuple[int, float], ...] = ()
    architecture: str = ""
    same_as: int | None = None


class History(Sequence[Trial]):
    """The finished trials of a search, in the order in which they finished; those under evaluation are in `running`.

    `complete` (the ones that have metrics to learn from, in the same order) and `best` are kept as trials are
    recorded, so that reading them costs the same after ten trials and after ten thousand.

    Args:
        objective: The metric that the search is after; a leading `-` minimises it.
        trials: What is known already, in the order of finishing.
        facts: What the search is: space, strategy, seed, constraints, and what `evaluate` says of itself.
    """

    def __init__(self, objective: str, trials: Iterable[Trial] = (), *, facts: Mapping[str, Any] | None = None):
        self.objective = objective
        self.facts: Mapping[str, Any] = facts or {}
        self.running: dict[int, Trial] = {}
        self.best: Trial | None = None
        self.metric, self._sign = parse_objective(objective)
        self._finished: list[Trial] = []
        self._complete: list[Trial] = []
        self._numbers: set[int] = set()
        self._by_architecture: dict[str, Trial] = {}
        for trial in trials:
            self.record(trial)

    @classmethod
    def open(cls, path: str | Path) -> History:
        """What a run's folder, or its `history.sqlite`, holds at this moment; another process may be writing it.

        Raises FileNotFoundError where no history is, ValueError for a file that is none.
        """
        path = Path(path)
        facts, rows = store.read(path / store.FILE if path.is_dir() else path)
        return cls(facts["objective"], (Trial(**row) for row in rows), facts=facts)

    @property
    def complete(self) -> Sequence[Trial]:
        """The trials that were evaluated and violate no constraint, in the order of finishing; not to be changed."""
        return self._complete

    @property
    def next_number(self) -> int:
        """The number of a trial that is not there yet."""
        return len(self._numbers)

    @property
    def space(self) -> Architecture:
        """The space that was searched."""
        return Architecture.from_json(self.facts["space_file"])

    def record(self, trial: Trial) -> None:
        """Add a trial that starts, or one that has finished. ValueError for one that finished before."""
        if trial.number in self._numbers and trial.number not in self.running:
            raise ValueError(f"trial {trial.number} has finished before; a trial finishes once")
        self._numbers.add(trial.number)
        if trial.same_as is None:
            self._by_architecture[trial.architecture] = trial
        if trial.state == "running":
            self.running[trial.number] = trial
            return
        self.running.pop(trial.number, None)
        self._finished.append(trial)
        if trial.state == "complete":
            self._complete.append(trial)
            if self.best is None or self.score(trial) > self.score(self.best):
                self.best = trial

    def score(self, trial: Trial) -> float:
        """The objective of a complete trial, its sign changed where it is minimised: larger is better."""
        return self._sign * trial.metrics[self.metric]

    def find(self, architecture: str) -> Trial | None:
        """The latest trial of an architecture, given its hash, that was more than a copy of another one."""
        return self._by_architecture.get(architecture)

    def front(self, *metrics: str) -> list[Trial]:
        """The complete trials that no other one beats: in the objective, and in `metrics`, where less is better.

        Trials without one of the metrics are left out. ValueError for a metric that no complete trial has.
        """
        known = {name for trial in self._complete for name in trial.metrics}
        unknown = [metric for metric in metrics if known and metric not in known]
        if unknown:
            raise ValueError(f"no trial has the metric {unknown[0]!r}; there are {', '.join(sorted(known))}")
        trials = [trial for trial in self._complete if all(metric in trial.metrics for metric in metrics)]
        points = [(-self.score(trial), *(trial.metrics[metric] for metric in metrics)) for trial in trials]
        return [trials[i] for i in pareto_front(points)]

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> list[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | list[Trial]:
        return self._finished[index]

    def __len__(self) -> int:
        return len(self._finished)

    def __repr__(self) -> str:
        best = "" if self.best is None else f", best {self.metric} {self.best.metrics[self.metric]:.6g}"
        return f"History({len(self)} finished trials, {len(self._complete)} of them complete{best})"


def parse_objective(objective: str) -> tuple[str, float]:
    """The metric of an objective and the sign that makes larger better: `"-latency_ms"` is `("latency_ms", -1.0)`."""
    metric = objective.removeprefix("-")
    if not metric or metric.startswith("-") or metric != metric.strip():
        raise ValueError(f"an objective is the name of a metric, with a leading '-' to minimise it, got {objective!r}")
    return metric, -1.0 if objective.startswith("-") else 1.0


def check_metrics(metrics: object) -> dict[str, float]:
    """Metrics as plain numbers; ValueError for what is no mapping of names to finite numbers."""
    if not isinstance(metrics, Mapping):
        raise ValueError(f"evaluate must return a dict of metrics, got {metrics!r}")
    checked = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"the metric {name!r} must be a number, got {value!r}") from None
        if not math.isfinite(number):
            raise ValueError(f"the metric {name!r} must be finite, got {number}")
        checked[str(name)] = number
    return checked
