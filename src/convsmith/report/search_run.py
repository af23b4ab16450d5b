"""The run of a search as its page needs it: trials, units, limits, and decisions in words."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from convsmith.arch import Architecture
from convsmith.report.folder import RunFolder
from convsmith.report.units import Unit, unit_of
from convsmith.report.words import ChoiceWords, choices_in_words, keys_in_words
from convsmith.search import Constraint, History, Trial

COSTS = (
    "latency_ms",
    "macs",
    "params",
    "memory_bytes",
    "activations",
)  # the first that trials have, if none is limited


class SearchRun:
    """What the folder of a search holds at this moment, read once.

    `trials` are all by number, `finished` those that are not running. `metrics` are the names that trials have, the
    most telling first; `units` say how each is shown.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.history = _history(folder)
        self.results = folder.read("results.json") or {}
        self.metric = self.history.objective.removeprefix("-")
        self.constraints = [
            Constraint(entry["metric"], maximum=entry["maximum"], minimum=entry["minimum"])
            for entry in self.history.facts.get("constraints", [])
        ]
        self.finished = sorted(self.history, key=lambda trial: trial.number)
        self.trials = sorted([*self.finished, *self.history.running.values()], key=lambda trial: trial.number)
        known = dict.fromkeys(name for trial in self.finished for name in trial.metrics)
        limited = [constraint.metric for constraint in self.constraints]
        first = (self.metric, *limited, "latency_ms", "params", "macs")
        self.metrics = list(dict.fromkeys([*(name for name in first if name in known), *known]))
        self.units = {name: self._unit(name) for name in (self.metric, *self.metrics)}

    @cached_property
    def costs(self) -> list[str]:
        """The metrics that the objective is held against: those with a limit, or else the best known one."""
        limited = dict.fromkeys(constraint.metric for constraint in self.constraints)
        known = [name for name in limited if name in self.metrics and name != self.metric]
        return known or [name for name in COSTS if name in self.metrics and name != self.metric][:1]

    def front(self, cost: str) -> list[Trial]:
        """The Pareto front in the objective and one cost, cheapest first; empty before a trial is complete."""
        if not any(cost in trial.metrics for trial in self.history.complete):
            return []
        return sorted(self.history.front(cost), key=lambda trial: (trial.metrics[cost], trial.number))

    def limits(self, metric: str) -> list[str]:
        """The limits of a metric in words: `at most 0.5 ms`."""
        words = []
        for constraint in self.constraints:
            if constraint.metric == metric:
                unit = self.units.get(metric) or unit_of(metric, [])
                for bound, word in ((constraint.minimum, "at least"), (constraint.maximum, "at most")):
                    words += [f"{word} {bound * unit.factor:,.6g} {unit.unit}".strip()] if bound is not None else []
        return words

    @cached_property
    def space(self) -> Architecture | None:
        """The space; None where the run does not have it yet, or where its blocks are not registered here."""
        try:
            return self.history.space if "space_file" in self.history.facts else None
        except ValueError:  # a user's own blocks, whose program is not running
            return None

    @cached_property
    def choices(self) -> list[ChoiceWords]:
        """The choices of the space in words."""
        if self.space is not None:
            return choices_in_words(self.space)
        return keys_in_words(list(dict.fromkeys(key for trial in self.trials for key in trial.decisions)))

    def best(self) -> Architecture | None:
        """The winner of results.json, or the best architecture so far; ValueError where its blocks are unknown here."""
        winner = Path(str(self.results.get("artifacts", {}).get("architecture", ""))).name
        found = self.folder.architecture(winner) if winner else None
        return self.folder.architecture("best.json") if found is None else found

    def _unit(self, metric: str) -> Unit:
        return unit_of(metric, [trial.metrics.get(metric) for trial in self.finished])


def _history(folder: RunFolder) -> History:
    try:
        return History.open(folder.path)
    except FileNotFoundError:  # run.json is written first
        return History(str(folder.settings.get("objective", "accuracy")))
