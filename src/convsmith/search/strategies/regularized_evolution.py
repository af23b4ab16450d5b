"""Regularised (aging) evolution.

Regularized Evolution for Image Classifier Architecture Search.  Real, Aggarwal, Huang & Le, AAAI 2019,
arXiv:1802.01548, Algorithm 1.

Differs from the paper: a mutation moves one open choice of any space to another option, where the paper rewires or
replaces an operation of a NASNet cell; its identity mutation (one in twenty) is left out, since the search evaluates no
architecture twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from convsmith.arch import Architecture, Decisions, mutate, random_decisions
from convsmith.search.history import History
from convsmith.search.strategies.base import check_positive


@dataclass
class RegularizedEvolution:
    """The best of a random sample of the youngest trials becomes a parent; the oldest die, not the worst.

    `population_size` (P) and `sample_size` (S) are those of the paper's large runs; searches of a hundred trials want
    about 20 and 5. The population is the latest `population_size` complete trials: what failed or violates a
    constraint never enters it.
    """

    population_size: int = 100
    sample_size: int = 25

    def __post_init__(self) -> None:
        check_positive(population_size=self.population_size, sample_size=self.sample_size)

    def ask(self, space: Architecture, history: History, rng: Random) -> Decisions:
        """The next proposal: the index of an option for each open choice of the space."""
        if len(history.complete) < self.population_size:
            return random_decisions(space, rng)
        population = history.complete[-self.population_size :]
        sample = rng.choices(population, k=self.sample_size)  # with replacement
        return mutate(space, max(sample, key=history.score).decisions, rng)
