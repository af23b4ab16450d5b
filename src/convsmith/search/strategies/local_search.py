"""Local search: hill climbing with restarts.

Exploring the Loss Landscape in Neural Architecture Search.  White, Nolen & Savani, UAI 2021, arXiv:2005.02960,
Sec. 4: the variant that moves on as soon as a better neighbour is found.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from convsmith.arch import Architecture, Decisions, neighbours, random_decisions
from convsmith.search.history import History

_Key: TypeAlias = "frozenset[tuple[str, int]]"


@dataclass
class LocalSearch:
    """Proposes neighbours of the current trial in random order, moves to the first better one, restarts at an optimum.

    Neighbours differ in one open choice. The climb so far is read off the history: a complete trial becomes the
    current one if it is better, or if every neighbour of the current one was known when it finished (a restart).
    """

    _climb: _Climb | None = field(default=None, init=False, repr=False, compare=False)

    def ask(self, space: Architecture, history: History, rng: Random) -> Decisions:
        """The next proposal: the index of an option for each open choice of the space."""
        if self._climb is None or not self._climb.follows(space, history):
            self._climb = _Climb(space, history)
        untried = self._climb.catch_up(history)
        return rng.choice(untried) if untried else random_decisions(space, rng)


class _Climb:
    """Where a walk through the history leads; each trial is looked at once."""

    def __init__(self, space: Architecture, history: History):
        self.space, self.history = space, weakref.ref(history)
        self.seen = 0
        self.known: set[_Key] = set()
        self.best = -math.inf  # the score of the current trial
        self.untried: dict[_Key, Decisions] = {}  # neighbours of the current trial

    def follows(self, space: Architecture, history: History) -> bool:
        return self.space is space and self.history() is history

    def catch_up(self, history: History) -> list[Decisions]:
        """The neighbours of the current trial that no finished or running trial has."""
        for trial in history[self.seen :]:
            restarts = not self.untried
            self.known.add(_key(trial.decisions))
            self.untried.pop(_key(trial.decisions), None)
            if trial.state == "complete" and (restarts or history.score(trial) > self.best):
                self.best = history.score(trial)
                # What a moved choice opens is drawn, from the trial's number: the neighbours stay the same.
                found = neighbours(self.space, trial.decisions, Random(trial.number))
                self.untried = {_key(d): d for d in found if _key(d) not in self.known}
        self.seen = len(history)
        running = {_key(trial.decisions) for trial in history.running.values()}
        return [decisions for key, decisions in self.untried.items() if key not in running]


def _key(decisions: Decisions) -> _Key:
    return frozenset(decisions.items())
