"""What a strategy is."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from random import Random
from typing import Any, Protocol, runtime_checkable

from convsmith.arch import Architecture, Decisions
from convsmith.search.history import History


class Strategy(Protocol):
    """Proposes what to evaluate next, from the history alone.

    `ask` may keep what it derives from the history to be quick, never anything else: a new object with the same
    settings, history and `rng` must propose the same. One that learns more than it can derive again (the weights of
    a controller) is a `StatefulStrategy`. Where a proposal has been evaluated before, the search asks again with
    another `rng`. The settings that identify a strategy in a run are the fields of its dataclass.
    """

    def ask(self, space: Architecture, history: History, rng: Random) -> Decisions:
        """The next proposal: the index of an option for each open choice of the space."""


@runtime_checkable
class StatefulStrategy(Strategy, Protocol):
    """A strategy whose state is saved with each trial that starts, and restored where a search is resumed."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `ask` depends on beside its arguments: tensors, numbers, strings, their dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""


def describe(strategy: object) -> dict[str, Any]:
    """The name of a strategy, and its settings where it is a dataclass."""
    settings: dict[str, Any] = {}
    if is_dataclass(strategy):
        settings = {f.name: getattr(strategy, f.name) for f in fields(strategy) if f.init}
    return {"name": re.sub(r"(?<!^)(?=[A-Z])", "_", type(strategy).__name__).lower(), **settings}


def check_positive(**values: int) -> None:
    """Raise ValueError for a named setting that is no positive integer."""
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
