"""Strategies by name."""

import re

import pytest

from convsmith.search import strategies
from convsmith.search.strategies import LocalSearch, Random, RegularizedEvolution, describe


def test_names_give_strategies_and_strategies_their_names():
    assert strategies.names() == ["random", "local_search", "regularized_evolution"]
    for name in strategies.names():
        assert describe(strategies.get(name))["name"] == name
    assert isinstance(strategies.get("random"), Random)
    assert isinstance(strategies.get("local_search"), LocalSearch)
    assert strategies.get("regularized_evolution", population_size=7) == RegularizedEvolution(7, 25)


def test_defaults_are_those_of_the_paper():
    assert describe(RegularizedEvolution()) == {
        "name": "regularized_evolution", "population_size": 100, "sample_size": 25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolution", {}, "unknown strategy 'evolution'; did you mean 'regularized_evolution'? there are random, loc"),
        ("x", {}, "unknown strategy 'x'; there are random, local_search, regularized_evolution"),
        ("random", {"sample_size": 3}, "unknown option 'sample_size' of the strategy random; it has none"),
        ("local_search", {"_climb": None}, "unknown option '_climb' of the strategy local_search; it has none"),
        ("regularized_evolution", {"size": 3}, "unknown option 'size' of the strategy regularized_evolution; it has "),
        ("regularized_evolution", {"sample_size": -1}, "sample_size must be a positive integer, got -1"),
    ],
)
def test_errors_list_what_there_is(name, options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        strategies.get(name, **options)


def test_a_strategy_that_is_no_dataclass_is_described_by_its_name():
    class MyStrategy:
        pass

    assert describe(MyStrategy()) == {"name": "my_strategy"}


@pytest.mark.parametrize("name", ["random", "local_search", "regularized_evolution"])
def test_a_file_cites_its_paper(name):
    module = __import__(f"convsmith.search.strategies.{name}", fromlist=["x"])
    assert re.search(r"\b(19|20)\d\d, arXiv:\d{4}\.\d{5}\b", module.__doc__.replace("\n", " "))
