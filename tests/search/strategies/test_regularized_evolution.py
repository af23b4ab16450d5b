"""Algorithm 1 of the paper against an independent transcription, and its aging."""

from collections import deque
from random import Random

import pytest

from convsmith.arch import mutate, random_decisions
from convsmith.search import History, Trial
from convsmith.search.strategies import RegularizedEvolution
from tests.search.toy import toy_space

SPACE = toy_space()


def score(decisions):
    return float(sum(decisions.values()))


def searched(strategy, trials, seed=0):
    history = History("score")
    for number in range(trials):
        decisions = strategy.ask(SPACE, history, Random(f"{seed}:{number}"))
        history.record(Trial(number, decisions, "complete", {"score": score(decisions)}))
    return [trial.decisions for trial in history]


def algorithm_1(population_size, sample_size, cycles, seed=0):
    """The pseudocode of the paper, line by line: the oldest is removed from the left of the queue."""
    population, history = deque(), []
    while len(population) < population_size:
        model = random_decisions(SPACE, Random(f"{seed}:{len(history)}"))
        population.append(model)
        history.append(model)
    while len(history) < cycles:
        rng = Random(f"{seed}:{len(history)}")
        sample = []
        while len(sample) < sample_size:
            # One draw of `choices` each: a candidate stays in the population.
            sample.append(population[int(rng.random() * len(population))])
        parent = max(sample, key=score)
        child = mutate(SPACE, parent, rng)
        population.append(child)
        history.append(child)
        population.popleft()
    return history


@pytest.mark.parametrize(("population_size", "sample_size"), [(10, 4), (5, 1), (8, 8), (3, 6)])
def test_it_is_algorithm_1(population_size, sample_size):
    found = searched(RegularizedEvolution(population_size, sample_size), 80)
    assert found == algorithm_1(population_size, sample_size, 80)


def history_of(*trials):
    history = History("score")
    for number, (state, first, value) in enumerate(trials):
        decisions = dict.fromkeys((path for path, _ in SPACE.choices()), first)
        history.record(Trial(number, decisions, state, {"score": value}))
    return history


def parents(history, population_size, asks=200):
    """The first option that a child shares with all but one of its choices: which trial it comes from."""
    strategy = RegularizedEvolution(population_size, sample_size=population_size)
    found = set()
    for seed in range(asks):
        values = list(strategy.ask(SPACE, history, Random(seed)).values())
        found.add(max(set(values), key=values.count))
        assert sorted(map(values.count, set(values))) == [1, 5]  # one choice was moved
    return found


def test_the_oldest_die_however_good_they_are():
    history = history_of(("complete", 3, 9.0), ("complete", 0, 1.0), ("complete", 1, 2.0), ("complete", 2, 3.0))
    assert 3 in parents(history, population_size=4)
    assert 3 not in parents(history, population_size=3)


def test_the_best_of_a_large_sample_is_the_parent():
    history = history_of(*(("complete", 0, 1.0), ("complete", 1, 5.0), ("complete", 2, 3.0)))
    strategy = RegularizedEvolution(population_size=3, sample_size=200)
    for seed in range(20):
        values = list(strategy.ask(SPACE, history, Random(seed)).values())
        assert values.count(1) == 5


def test_the_population_is_made_of_complete_trials():
    # What failed or is infeasible neither fills the population nor ages it.
    history = history_of(("complete", 0, 1.0), ("failed", 3, 9.0), ("infeasible", 3, 9.0), ("complete", 1, 2.0))
    assert parents(history, population_size=2) == {0, 1}
    one_missing = RegularizedEvolution(population_size=3, sample_size=1)
    assert one_missing.ask(SPACE, history, Random(5)) == random_decisions(SPACE, Random(5))


def test_a_minimised_objective_turns_the_parents_round():
    maximising = history_of(("complete", 0, 1.0), ("complete", 1, 5.0))
    minimising = History("-score", maximising)
    strategy = RegularizedEvolution(population_size=2, sample_size=50)
    for history, option in ((maximising, 1), (minimising, 0)):
        values = list(strategy.ask(SPACE, history, Random(0)).values())
        assert values.count(option) == 5


@pytest.mark.parametrize("settings", [{"population_size": 0}, {"sample_size": 0}, {"sample_size": 2.0}])
def test_settings_are_positive_integers(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be a positive integer"):
        RegularizedEvolution(**settings)
