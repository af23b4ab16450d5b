"""How a search decides what to evaluate next: one paper per file."""

from convsmith.search.strategies.base import StatefulStrategy, Strategy, describe
from convsmith.search.strategies.local_search import LocalSearch
from convsmith.search.strategies.random import Random
from convsmith.search.strategies.registry import get, names
from convsmith.search.strategies.regularized_evolution import RegularizedEvolution

__all__ = [
    "LocalSearch",
    "Random",
    "RegularizedEvolution",
    "StatefulStrategy",
    "Strategy",
    "describe",
    "get",
    "names",
]
