"""Random search: the baseline that every other strategy has to beat.

Random Search and Reproducibility for Neural Architecture Search.  Li & Talwalkar, UAI 2019, arXiv:1902.07638.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random as Generator

from convsmith.arch import Architecture, Decisions, random_decisions
from convsmith.search.history import History


@dataclass
class Random:
    """Decides each open choice uniformly, whatever the history says."""

    def ask(self, space: Architecture, history: History, rng: Generator) -> Decisions:
        """The next proposal: the index of an option for each open choice of the space."""
        return random_decisions(space, rng)
