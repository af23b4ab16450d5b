"""The strategy contract over the whole registry: adding a strategy is being tested."""

from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest

from convsmith.arch import random_decisions
from convsmith.search import strategies
from convsmith.testing import GuidedStrategyContract, StrategyContract

# Settings for searches of fifty trials.
SETTINGS = {"regularized_evolution": {"population_size": 10, "sample_size": 4}}
# Those whose paper does not say that they beat random search.
UNGUIDED = {"random"}


class TestEveryStrategy(StrategyContract):
    @pytest.fixture(autouse=True, params=[name for name in strategies.names() if name in UNGUIDED])
    def _the_strategy(self, request):
        self.make = partial(strategies.get, request.param, **SETTINGS.get(request.param, {}))


class TestEveryGuidedStrategy(GuidedStrategyContract):
    @pytest.fixture(autouse=True, params=[name for name in strategies.names() if name not in UNGUIDED])
    def _the_strategy(self, request):
        self.make = partial(strategies.get, request.param, **SETTINGS.get(request.param, {}))


@dataclass
class Counts:
    """Keeps to itself how often it was asked."""

    asked: int = field(default=0, init=False)

    def ask(self, space, history, rng):
        self.asked += 1
        proposed = random_decisions(space, rng)
        return {key: (index + self.asked) % 2 for key, index in proposed.items()}


class Careless:
    """Draws from a generator of its own."""

    def ask(self, space, history, rng):
        return random_decisions(space, Random())


class Closed:
    """Decides choices that are not open."""

    def ask(self, space, history, rng):
        return {path: rng.randrange(len(options)) for path, options in space.choices()}


class Vandal:
    """Changes what was proposed before."""

    def ask(self, space, history, rng):
        for trial in history:
            trial.decisions.clear()
        return random_decisions(space, rng)


@pytest.mark.parametrize(
    ("strategy", "test"),
    [
        (Counts, "a_fresh_strategy_proposes_the_same_next"),
        (Careless, "a_seed_decides_everything"),
        (Closed, "it_decides_the_open_choices_and_no_others"),
        (Vandal, "it_leaves_the_history_alone"),
        (strategies.Random, "it_beats_random_search"),
    ],
)
def test_the_contract_finds_what_breaks_it(strategy, test):
    contract = GuidedStrategyContract()
    contract.make = strategy
    with pytest.raises(AssertionError):
        getattr(contract, f"test_{test}")()
