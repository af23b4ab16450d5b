"""What a search tries next: a proposal of its strategy that nobody has made before, where there is one."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from functools import cached_property
from random import Random

from convsmith.arch import Architecture, canonical
from convsmith.search.history import History, Trial
from convsmith.search.strategies import Strategy

ASKS_PER_TRIAL = 20

logger = logging.getLogger("convsmith")


class Proposals:
    """Trials made from what the strategy proposes; a function of the history, the seed and the trial's number."""

    def __init__(self, strategy: Strategy, space: Architecture, history: History, seed: int):
        self.strategy, self.space, self.history, self.seed = strategy, space, history, seed
        self.exhausted = False

    def next(self) -> Trial | None:
        """A new trial, or the copy of one (`same_as`) if twenty proposals in a row were known.

        None where the space is exhausted, and where the proposal is under evaluation: there is a result to wait for.
        """
        if self.exhausted:
            return None
        number = self.history.next_number
        seed = Random(f"{self.seed}:{number}:evaluate").getrandbits(31)
        proposals: list[tuple[Trial, Trial]] = []
        for attempt in range(ASKS_PER_TRIAL):
            rng = Random(f"{self.seed}:{number}" + (f":{attempt}" if attempt else ""))
            decisions = self.strategy.ask(self.space, self.history, rng)
            architecture = digest(canonical(self.space.resolve(decisions)))
            trial = Trial(number, decisions, seed=seed, architecture=architecture)
            known = self.history.find(architecture)
            if known is None:
                return trial
            proposals.append((trial, known))
        self.exhausted = self._is_exhausted([trial for trial, _ in proposals])
        trial, known = proposals[0]
        if self.exhausted or known.state == "running":
            return None
        return trial if known.state == "failed" else dataclasses.replace(trial, same_as=known.number)

    @cached_property
    def _size(self) -> int:
        return self.space.size()

    def _is_exhausted(self, proposals: list[Trial]) -> bool:
        size = self._size
        if size > self.history.next_number + len(proposals):
            return False
        trials = [*self.history, *self.history.running.values(), *proposals]
        if len({frozenset(trial.decisions.items()) for trial in trials}) < size:
            return False
        logger.warning("the space %s is exhausted: all of its %d networks are known", self.space.name, size)
        return True


def digest(architecture: Architecture) -> str:
    """A short hash of an architecture."""
    return hashlib.sha256(architecture.to_json().encode()).hexdigest()[:24]
