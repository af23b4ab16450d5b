"""Strategies by name, as commands and run files have them."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from convsmith.search.strategies.base import Strategy
from convsmith.search.strategies.local_search import LocalSearch
from convsmith.search.strategies.random import Random
from convsmith.search.strategies.regularized_evolution import RegularizedEvolution

STRATEGIES: dict[str, type[Any]] = {
    "random": Random,
    "local_search": LocalSearch,
    "regularized_evolution": RegularizedEvolution,
}


def names() -> list[str]:
    """The names that `get` takes."""
    return list(STRATEGIES)


def get(name: str, **options: Any) -> Strategy:
    """The strategy of a name, with settings of its own; a wrong name or setting raises ValueError with those it has."""
    if name not in STRATEGIES:
        close = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown strategy {name!r}; {hint}there are {', '.join(STRATEGIES)}")
    known = [f.name for f in fields(STRATEGIES[name]) if f.init]
    unknown = [option for option in options if option not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"unknown option {unknown[0]!r} of the strategy {name}; {has}")
    strategy: Strategy = STRATEGIES[name](**options)
    return strategy
