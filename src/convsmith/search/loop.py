"""The loop of a search: ask, check, evaluate, record."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

from convsmith.arch import Architecture, has_choice
from convsmith.search.constraints import Constraint
from convsmith.search.executors import Evaluate, Executor, InlineExecutor, Job, Outcome, ProcessExecutor, reason
from convsmith.search.history import History, State, Trial, check_metrics, parse_objective
from convsmith.search.progress import Bar, progress_bar
from convsmith.search.proposals import Proposals, digest
from convsmith.search.run import Run
from convsmith.search.strategies import Strategy, describe

MAX_INFEASIBLE = 1000  # in a row
MAX_FAILED = 20  # in a row


def search(
    space: Architecture,
    strategy: Strategy,
    evaluate: Evaluate,
    *,
    trials: int,
    objective: str,
    constraints: Sequence[Constraint] = (),
    seed: int = 0,
    run_dir: str | Path | None = None,
    executor: Literal["inline", "process"] | Executor = "inline",
) -> History:
    """Evaluate architectures of a space until `trials` of them are complete, and return all that was tried.

    With `run_dir`, the same call goes on with a search that was killed: finished trials stay, those that were under
    evaluation run again under their numbers, and with the inline executor, a deterministic `evaluate` and
    deterministic measurements the end is that of an uninterrupted search. `trials` counts over all starts; a larger
    number extends the search. All randomness comes from `seed` and the number of the trial.

    No architecture is evaluated twice. Where a proposal, identities aside, has been tried before, the strategy is
    asked again, twenty times in all; then its first proposal becomes a trial that takes over the known result
    (`same_as`; a failed one is evaluated again). A space of which every network is known ends the search early, with
    a message of the logger `convsmith`.

    Args:
        space: An architecture with choices.
        strategy: Proposes the next architecture; a strategy of its own per search.
        evaluate: Called as `evaluate(architecture, seed=..., report=...)`; see `Evaluate`.
        trials: How many complete trials there shall be.
        objective: The metric to maximise; with a leading `-`, to minimise.
        constraints: Limits on metrics. Those with a `measure` are checked first, in this order, before the evaluation.
        seed: Seed of the search; each trial has one of its own, made from it.
        run_dir: Folder of the run: `history.sqlite`, `run.json`, `best.json`. None keeps everything in memory.
        executor: Where trials are evaluated: `"inline"`, `"process"`, or an object such as
            `ProcessExecutor(workers=2, timeout_s=60)`.

    Raises:
        ValueError: for wrong arguments, and for a `run_dir` that holds another search.
        BlockingIOError: when another process runs this search.
        RuntimeError: after twenty failed trials in a row, with the last error, and after a thousand infeasible ones,
            with the closest value. The run can be resumed.
    """
    _check(space, trials, seed, constraints)
    _check_metrics_are_there(evaluate, objective, constraints)
    facts = {
        **_facts_of(evaluate),
        "space": f"{space.name} {digest(space)}",
        "strategy": describe(strategy),
        "seed": seed,
        "objective": objective,
        "constraints": [
            {"metric": c.metric, "minimum": c.minimum, "maximum": c.maximum, **({"how": c.how} if c.how else {})}
            for c in constraints
        ],
    }
    pool = _executor(executor)
    settings = {**facts, "trials": trials, "executor": type(pool).__name__}
    facts["space_file"] = space.to_json()
    with ExitStack() as stack:
        stack.enter_context(closing(pool))
        pool.open(evaluate)
        folder = None if run_dir is None else Path(run_dir)
        run = Run(folder, space=space, strategy=strategy, facts=facts, settings=settings)
        stack.enter_context(closing(run))
        bar = stack.enter_context(progress_bar(trials, run.history))
        _Loop(run, constraints, seed, trials, bar).go(pool)
        run.done()
        return run.history


class _Loop:
    """What one start of a search keeps beside the history."""

    def __init__(self, run: Run, constraints: Sequence[Constraint], seed: int, trials: int, bar: Bar):
        self.run, self.history, self.space = run, run.history, run.space
        self.constraints, self.trials, self.bar = constraints, trials, bar
        self.proposals = Proposals(run.strategy, run.space, run.history, seed)
        self.interrupted = deque(sorted(self.history.running.values(), key=lambda trial: trial.number))
        self.evaluated: dict[int, Trial] = {}  # under evaluation now
        self.failed = self.infeasible = 0  # in a row
        self.closest: dict[str, float] = {}  # to each constraint, among those in a row

    def go(self, executor: Executor) -> None:
        while True:
            while len(self.evaluated) < executor.capacity and (job := self._next_job()) is not None:
                executor.submit(job)
            if not self.evaluated:
                return
            self._take(executor.wait(self._note_report))

    def _note_report(self, number: int, step: int, value: float) -> None:
        trial = self.evaluated[number]
        self.evaluated[number] = dataclasses.replace(trial, reports=(*trial.reports, (int(step), float(value))))
        self.bar.update(self.history, f"trial {number}, step {step}: {value:.4g}")

    def _next_job(self) -> Job | None:
        """The next trial that has to be evaluated; None where none is wanted, or none before a result comes in."""
        while len(self.history.complete) + len(self.evaluated) < self.trials:
            trial = self.interrupted.popleft() if self.interrupted else self.proposals.next()
            if trial is None:
                return None
            trial = dataclasses.replace(trial, started=time.time())
            self.run.start(trial)
            known = self.history.find(trial.architecture) if trial.same_as is not None else None
            if known is not None:
                self._finish(trial, known.state, known.metrics)
                continue
            architecture = self.space.resolve(trial.decisions)
            metrics = self._measure(trial, architecture)
            if metrics is not None:
                self.evaluated[trial.number] = dataclasses.replace(trial, metrics=metrics)
                return Job(trial.number, architecture, trial.seed)
        return None

    def _measure(self, trial: Trial, architecture: Architecture) -> dict[str, float] | None:
        """What the constraints measure; None where one is violated, or a measurement fails: that ends the trial."""
        metrics: dict[str, float] = {}
        for constraint in self.constraints:
            if constraint.measure is None:
                continue
            try:
                metrics |= check_metrics({constraint.metric: constraint.measure(architecture)})
            except Exception as error:  # a user's function may raise anything
                self._finish(trial, "failed", metrics, f"measuring {constraint.metric}: {reason(error)}")
                return None
            if constraint.excess(metrics[constraint.metric]) > 0:
                self._finish(trial, "infeasible", metrics)
                return None
        return metrics

    def _take(self, outcome: Outcome) -> None:
        trial = self.evaluated.pop(outcome.number)
        metrics = {**outcome.metrics, **trial.metrics}
        after = [constraint for constraint in self.constraints if constraint.measure is None]
        needed = [self.history.metric, *(constraint.metric for constraint in after)]
        missing = [name for name in needed if name not in metrics]
        if outcome.error is not None:
            self._finish(trial, "failed", metrics, outcome.error)
        elif missing:
            error = f"evaluate must return the metric {missing[0]!r}, got {', '.join(outcome.metrics) or 'none'}"
            self._finish(trial, "failed", metrics, error)
        else:
            self.failed = 0
            keeps = all(constraint.excess(metrics[constraint.metric]) == 0 for constraint in after)
            try:
                keeps = keeps and self._confirm(trial, metrics)
            except Exception as error:  # a measurement may fail as an evaluation may
                self._finish(trial, "failed", metrics, f"confirming: {reason(error)}")
                return
            self._finish(trial, "complete" if keeps else "infeasible", metrics)

    def _confirm(self, trial: Trial, metrics: dict[str, float]) -> bool:
        """Whether a trial that would be the best keeps the limits as measured; `metrics` get what was measured."""
        dear = [constraint for constraint in self.constraints if constraint.confirm is not None]
        best, score = self.history.best, self.history.score(dataclasses.replace(trial, metrics=metrics))
        if not dear or (best is not None and score <= self.history.score(best)):
            return True
        architecture = self.space.resolve(trial.decisions)
        for constraint in dear:
            assert constraint.confirm is not None
            predicted = {f"predicted_{constraint.metric}": metrics[constraint.metric]}
            metrics |= check_metrics({constraint.metric: constraint.confirm(architecture)}) | predicted
        return all(constraint.excess(metrics[constraint.metric]) == 0 for constraint in dear)

    def _finish(self, trial: Trial, state: State, metrics: dict[str, float], error: str | None = None) -> None:
        finished = dataclasses.replace(trial, state=state, metrics=metrics, error=error, finished=time.time())
        self.run.finish(finished)
        if state == "complete":
            self.failed = self.infeasible = 0
            self.closest.clear()
        elif state == "failed":
            self.failed += 1
        else:
            self.infeasible += 1
            self._note_closest(metrics)
        self.bar.update(self.history, "" if state == "complete" else f"trial {trial.number} {state}")
        if self.failed >= MAX_FAILED:
            raise RuntimeError(
                f"{self.failed} trials in a row failed, the last one, trial {trial.number}, with: {error}; "
                "mend what evaluate meets there, and start the same search again"
            )
        if self.infeasible >= MAX_INFEASIBLE:
            values = ", ".join(f"{value:g} for {constraint}" for constraint, value in self.closest.items())
            raise RuntimeError(
                f"{self.infeasible} trials in a row violate a constraint, the closest values being {values}; "
                "relax the constraint, or give the space smaller options"
            )

    def _note_closest(self, metrics: dict[str, float]) -> None:
        for constraint in self.constraints:
            value = metrics.get(constraint.metric)
            if value is not None and constraint.excess(value) > 0:
                known = self.closest.get(str(constraint), value)
                self.closest[str(constraint)] = min(value, known, key=constraint.excess)


def _check_metrics_are_there(evaluate: Evaluate, objective: str, constraints: Sequence[Constraint]) -> None:
    """Raise ValueError for a metric that nothing gives, where `evaluate` says by a method `metrics` what it gives."""
    wanted = [parse_objective(objective)[0], *(c.metric for c in constraints if c.measure is None)]
    names = getattr(evaluate, "metrics", None)
    if callable(names):
        known = [*names(), *(c.metric for c in constraints if c.measure is not None)]
        for metric in wanted:
            if metric not in known:
                raise ValueError(f"nothing gives the metric {metric!r}; there are {', '.join(dict.fromkeys(known))}")


def _check(space: Architecture, trials: int, seed: int, constraints: Sequence[Constraint]) -> None:
    if not has_choice(space):
        raise ValueError(
            f"a search space must have choices, got {space!r}; leave a value or a block open with choice()"
        )
    if type(trials) is not int or trials < 1:
        raise ValueError(f"trials must be a positive integer, got {trials!r}")
    if type(seed) is not int:
        raise ValueError(f"seed must be an integer, got {seed!r}")
    wrong = [constraint for constraint in constraints if not isinstance(constraint, Constraint)]
    if wrong:
        raise TypeError(f"constraints must be a list of Constraint(...), got {wrong[0]!r} in it")


def _executor(executor: str | Executor) -> Executor:
    if executor == "inline":
        return InlineExecutor()
    if executor == "process":
        return ProcessExecutor()
    if isinstance(executor, str):
        raise ValueError(
            f"executor must be 'inline', 'process' or an object such as ProcessExecutor(), got {executor!r}"
        )
    return executor


def _facts_of(evaluate: Evaluate) -> dict[str, Any]:
    facts = getattr(evaluate, "facts", None)
    return dict(facts()) if callable(facts) else {}
