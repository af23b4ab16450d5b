"""Hill climbing: moves, exhausted optima, restarts."""

from random import Random

from convsmith.arch import neighbours
from convsmith.search import History, Trial
from convsmith.search.strategies import LocalSearch
from tests.search.toy import toy_space

SPACE = toy_space(blocks=2)
PATHS = [path for path, _ in SPACE.choices()]


def distance(a, b):
    return sum(a[path] != b[path] for path in PATHS)


def climb(score, trials, strategy=None):
    """Ask and tell; every proposal is evaluated at once. Returns decisions and scores."""
    strategy, history = strategy or LocalSearch(), History("score")
    for number in range(trials):
        decisions = strategy.ask(SPACE, history, Random(number))
        history.record(Trial(number, decisions, "complete", {"score": score(decisions)}))
    return [(trial.decisions, trial.metrics["score"]) for trial in history]


def test_it_proposes_neighbours_of_the_best_so_far_until_the_top():
    found = climb(lambda decisions: float(sum(decisions.values())), 40)
    best, value = found[0]
    for decisions, score in found[1:]:
        if value == 12:
            break  # the top: what follows are its other neighbours and restarts
        assert distance(decisions, best) == 1
        if score > value:
            best, value = decisions, score
    assert value == 12


def test_it_tries_each_neighbour_of_an_optimum_once_and_restarts():
    # A flat landscape: the first trial is never beaten, and has 4 * 3 neighbours.
    found = [decisions for decisions, _ in climb(lambda decisions: 0.0, 14)]
    first, around, restart = found[0], found[1:13], found[13]
    expected = neighbours(SPACE, first, Random(0))
    assert sorted(map(str, around)) == sorted(map(str, expected))
    assert distance(restart, first) > 1
    # From there on it climbs from the restart, although that is no better.
    assert distance(climb(lambda decisions: 0.0, 15)[14][0], restart) == 1


def test_a_last_neighbour_that_is_worse_is_no_restart():
    found = climb(lambda decisions: -float(sum(decisions.values())), 60)
    optimum = next(i for i, (_, score) in enumerate(found) if score == 0)
    known = {str(decisions) for decisions, _ in found[:optimum]}
    left = [d for d in neighbours(SPACE, found[optimum][0], Random(0)) if str(d) not in known]
    around = found[optimum + 1 : optimum + 1 + len(left)]
    assert all(distance(decisions, found[optimum][0]) == 1 for decisions, _ in around)
    restart, after = found[optimum + 1 + len(left)][0], found[optimum + 2 + len(left)][0]
    assert distance(after, restart) == 1


def test_trials_without_a_score_are_tried_and_not_climbed():
    strategy, history = LocalSearch(), History("score")
    first = strategy.ask(SPACE, history, Random(0))
    history.record(Trial(0, first, "complete", {"score": 0.0}))
    for number in range(1, 13):
        decisions = strategy.ask(SPACE, history, Random(number))
        assert distance(decisions, first) == 1
        history.record(Trial(number, decisions, "failed" if number % 2 else "infeasible", {"score": 9.0}))
    assert distance(strategy.ask(SPACE, history, Random(13)), first) > 1


def test_what_is_under_evaluation_is_not_proposed_again():
    strategy, history = LocalSearch(), History("score")
    first = strategy.ask(SPACE, history, Random(0))
    history.record(Trial(0, first, "complete", {"score": 0.0}))
    proposed = []
    for number in range(1, 13):
        decisions = strategy.ask(SPACE, history, Random(0))
        history.record(Trial(number, decisions))
        proposed.append(str(decisions))
    assert len(set(proposed)) == 12


def test_another_history_is_another_climb():
    strategy = LocalSearch()
    once = climb(lambda decisions: float(sum(decisions.values())), 20, strategy)
    assert climb(lambda decisions: float(sum(decisions.values())), 20, strategy) == once


def test_each_trial_is_looked_at_once(monkeypatch):
    looked = []
    original = History.__getitem__
    monkeypatch.setattr(History, "__getitem__", lambda self, index: looked.append(index) or original(self, index))
    climb(lambda decisions: float(sum(decisions.values())), 50)
    assert [index.start for index in looked if isinstance(index, slice)] == [0, *range(49)]
