"""Training as an evaluation: what it returns, that the seed decides it, and a whole search with it."""

import pickle
from random import Random

import pytest
import torch

import convsmith as cs
from convsmith.arch import complete
from convsmith.measure import cost
from convsmith.search import Constraint, ProcessExecutor, TrainAndMeasure, cost_constraint, search, spaces, strategies
from convsmith.train import Recipe

SPACE = spaces.stages(num_classes=10, in_channels=1, input_size=8)
SMALL = {
    path: 0 if path in {"stem_width", "stage1_width", "stage2_width", "stage1_depth", "stage2_depth"} else 1
    for path, _ in SPACE.choices()
}


def small_network():
    return SPACE.resolve(complete(SPACE, SMALL, Random(0)))


@pytest.fixture(scope="module")
def evaluation():
    return TrainAndMeasure("digits", Recipe(epochs=2, batch_size=32, augment=False))


@pytest.mark.slow
def test_it_trains_with_the_seed_and_measures_on_the_validation_split(evaluation):
    architecture = small_network()
    reports = []
    metrics = evaluation(architecture, seed=3, report=lambda step, value: reports.append((step, value)))
    assert [step for step, _ in reports] == [1, 2]
    assert reports[-1][1] == metrics["accuracy"] > 0.5
    counted = cost(architecture, (1, 1, 8, 8))
    assert (metrics["params"], metrics["macs"]) == (counted.params, counted.macs)
    assert metrics["seconds"] > 0
    again = evaluation(architecture, seed=3, report=lambda step, value: None)
    other = evaluation(architecture, seed=4, report=lambda step, value: None)
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}
    assert other["train_loss"] != metrics["train_loss"]
    # The same by hand: another way to the same numbers.
    data = cs.data.load("digits")
    torch.manual_seed(3)
    network = cs.network.build(architecture)
    recipe = Recipe(epochs=2, batch_size=32, augment=False, seed=3)
    result = cs.train.fit(network, cs.tasks.Classification(10), data, recipe, progress=False)
    assert result.metrics["accuracy"] == metrics["accuracy"]


def test_it_says_what_its_results_depend_on(evaluation):
    facts = evaluation.facts()
    assert facts["data"] == f"digits {cs.data.load('digits').fingerprint}"
    assert facts["recipe"]["epochs"] == 2
    assert "seed" not in facts["recipe"]
    assert facts["task"] == {"task": "Classification", "num_classes": 10, "label_smoothing": 0.0, "aux_weight": 0.3}
    assert pickle.loads(pickle.dumps(evaluation)) == evaluation  # noqa: S301


@pytest.mark.slow
def test_a_search_over_digits_resumes_and_refuses_other_data(evaluation, tmp_path):
    options = {
        "objective": "accuracy",
        "constraints": [cost_constraint("macs", 3e5, (1, 1, 8, 8)), Constraint("seconds", maximum=1e6)],
        "run_dir": tmp_path,
    }
    search(SPACE, strategies.get("random"), evaluation, trials=1, **options)
    history = search(SPACE, strategies.get("random"), evaluation, trials=2, **options)
    assert len(history.complete) == 2
    assert all(trial.metrics["macs"] <= 3e5 for trial in history.complete)
    assert any(trial.state == "infeasible" and set(trial.metrics) == {"macs"} for trial in history)
    longer = TrainAndMeasure("digits", Recipe(epochs=3, batch_size=32, augment=False))
    with pytest.raises(ValueError, match=r"the recipe\.epochs 2, this one has 3; name"):
        search(SPACE, strategies.get("random"), longer, trials=3, **options)


@pytest.mark.slow
def test_workers_give_what_this_process_gives(evaluation):
    options = {"trials": 2, "objective": "accuracy", "constraints": [cost_constraint("macs", 3e5, (1, 1, 8, 8))]}
    here = search(SPACE, strategies.get("random"), evaluation, **options)
    there = search(SPACE, strategies.get("random"), evaluation, executor=ProcessExecutor(workers=1), **options)

    def outcomes(history):
        return [(trial.number, trial.state, {**trial.metrics, "seconds": 0}) for trial in history]

    assert outcomes(there) == outcomes(here)
