"""The loop: what is asked, evaluated, recorded, and when it stops."""

import json
import logging
import math
import re
from dataclasses import dataclass, field
from random import Random as Generator

import pytest
import torch

import convsmith as cs
from convsmith.arch import random_decisions
from convsmith.nn import ConvNormAct, Identity
from convsmith.search import Constraint, History, search
from convsmith.search.strategies import LocalSearch, Random, RegularizedEvolution
from tests.search.toy import Scripted, decisions, evaluate, kernels, toy_space, widths

SPACE = toy_space()


def run(strategy=None, function=evaluate, space=SPACE, **options):
    options = {"trials": 20, "objective": "score", **options}
    return search(space, Random() if strategy is None else strategy, function, **options)


def facts(history):
    return [(t.number, t.state, t.decisions, t.metrics, t.seed, t.error, t.same_as) for t in history]


NO = ValueError("no")


def failing(*numbers, error=NO):
    calls = iter(range(10**6))

    def function(architecture, *, seed, report):
        if next(calls) in numbers:
            raise error
        return evaluate(architecture, seed=seed, report=report)

    return function


def test_trials_are_what_the_strategy_proposed():
    history = run(trials=15)
    assert [trial.number for trial in history] == list(range(15))
    for trial in history:
        architecture = SPACE.resolve(trial.decisions)
        assert trial.state == "complete"
        assert trial.metrics == evaluate(architecture, seed=trial.seed, report=lambda step, value: None)
        assert trial.reports == ((0, 0.5),)
        assert 0 < trial.started <= trial.finished
    assert len({trial.seed for trial in history}) == 15
    assert history.best.metrics["score"] == max(trial.metrics["score"] for trial in history)


def test_the_seed_decides_everything():
    strategies = [lambda: RegularizedEvolution(8, 3), LocalSearch, Random]
    for strategy in strategies:
        assert facts(run(strategy())) == facts(run(strategy()))
        assert facts(run(strategy())) != facts(run(strategy(), seed=1))


def test_a_leading_minus_minimises():
    history = run(LocalSearch(), objective="-cost", trials=60)
    assert kernels(SPACE.resolve(history.best.decisions)) == [1, 1, 1]


def test_failures_are_recorded_with_their_reason_and_the_search_goes_on():
    history = run(function=failing(0, 3), trials=5)
    assert [trial.state for trial in history] == ["failed", *["complete"] * 2, "failed", *["complete"] * 3]
    assert re.fullmatch(r"ValueError: no \(test_loop.py, line \d+: raise error\)", history[0].error)
    assert len(history.complete) == 5


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ({"loss": 1.0}, "evaluate must return the metric 'score', got loss"),
        ({}, "evaluate must return the metric 'score', got none"),
        ({"score": math.nan}, "ValueError: the metric 'score' must be finite, got nan"),
        ({"score": math.inf}, "ValueError: the metric 'score' must be finite, got inf"),
        ({"score": "good"}, "ValueError: the metric 'score' must be a number, got 'good'"),
        (None, "ValueError: evaluate must return a dict of metrics, got None"),
    ],
)
def test_what_is_no_result_is_a_failed_trial(returned, reason):
    calls = iter(range(100))

    def function(architecture, *, seed, report):
        return returned if next(calls) == 1 else {"score": 1.0}

    history = run(function=function, trials=2)
    assert [trial.state for trial in history] == ["complete", "failed", "complete"]
    assert history[1].error.startswith(reason)


def test_tensors_and_integers_are_metrics():
    def function(architecture, *, seed, report):
        return {"score": torch.tensor(0.5), "params": 7}

    history = run(function=function, trials=1)
    assert history[0].metrics == {"score": 0.5, "params": 7.0}
    assert type(history[0].metrics["score"]) is float


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_out_of_memory_is_a_failed_trial(error):
    history = run(function=failing(0, error=error), trials=2)
    assert history[0].error.startswith(type(error).__name__)


def test_an_evaluation_that_never_works_ends_the_search_with_the_last_error():
    with pytest.raises(RuntimeError, match=r"20 trials in a row failed, the last one, trial 19, with: ValueError: no"):
        run(function=failing(*range(1000)))


def test_failures_that_are_not_in_a_row_do_not_end_it():
    history = run(function=failing(*(n for n in range(200) if n % 20 != 19)), trials=4)
    assert [len(history), len(history.complete)] == [80, 4]


def test_an_interrupt_is_not_a_failed_trial():
    with pytest.raises(KeyboardInterrupt):
        run(function=failing(2, error=KeyboardInterrupt()))


def cost(architecture):
    return float(sum(kernels(architecture)))


def test_constraints_are_checked_before_the_evaluation_in_their_order():
    measured, evaluated = [], []

    def width(architecture):
        measured.append(architecture)
        return sum(widths(architecture))

    def function(architecture, *, seed, report):
        evaluated.append(architecture)
        return evaluate(architecture, seed=seed, report=report)

    cheap, dear = Constraint("kernels", maximum=9, measure=cost), Constraint("width", minimum=60, measure=width)
    history = run(function=function, constraints=[cheap, dear], trials=10)
    assert len(history.complete) == 10
    infeasible = [trial for trial in history if trial.state == "infeasible"]
    assert {tuple(trial.metrics) for trial in infeasible} == {("kernels",), ("kernels", "width")}
    for trial in history:
        architecture = SPACE.resolve(trial.decisions)
        assert trial.metrics["kernels"] == cost(architecture)
        assert (architecture in measured) == (cost(architecture) <= 9)
        keeps = cost(architecture) <= 9 and sum(widths(architecture)) >= 60
        assert (architecture in evaluated) == keeps == (trial.state == "complete")


def test_a_constraint_on_a_metric_of_evaluate_holds_after_it():
    history = run(constraints=[Constraint("cost", maximum=9)], trials=10)
    assert len(history.complete) == 10
    assert {trial.state for trial in history} == {"complete", "infeasible"}
    assert all((trial.metrics["cost"] <= 9) == (trial.state == "complete") for trial in history)
    assert all("score" in trial.metrics for trial in history)


def test_a_constraint_on_a_metric_that_is_missing_is_a_failure():
    with pytest.raises(RuntimeError, match="evaluate must return the metric 'latency', got score, cost"):
        run(constraints=[Constraint("latency", maximum=9)])


def test_a_measurement_that_fails_is_a_failed_trial():
    calls = iter(range(100))

    def measure(architecture):
        number = next(calls)
        if number == 1:
            raise OSError("no clock")
        return math.nan if number == 2 else 1.0

    history = run(constraints=[Constraint("ms", maximum=9, measure=measure)], trials=2)
    assert [trial.state for trial in history] == ["complete", "failed", "failed", "complete"]
    assert history[1].error.startswith("measuring ms: OSError: no clock (test_loop.py")
    assert history[2].error.startswith("measuring ms: ValueError: the metric 'ms' must be finite, got nan")


def test_limits_that_nothing_keeps_end_the_search_with_the_closest_value():
    constraint = Constraint("kernels", maximum=2.5, measure=cost)
    with pytest.raises(
        RuntimeError, match=r"1000 trials in a row violate a constraint, .* 3 for kernels <= 2.5; relax the constraint"
    ):
        run(constraints=[constraint])


A, B, C = decisions(0, 0, 0, 0, 0, 0), decisions(1, 0, 0, 0, 0, 0), decisions(2, 0, 0, 0, 0, 0)


def test_a_known_proposal_is_asked_again():
    strategy = Scripted([A, A, A, B, A, C])
    history = run(strategy, trials=3)
    assert [trial.decisions for trial in history] == [A, B, C]
    assert strategy.asked == 6


def test_a_strategy_that_only_repeats_itself_gets_known_results_without_an_evaluation():
    calls = []

    def function(architecture, *, seed, report):
        calls.append(architecture)
        return {"score": float(len(calls))}

    history = run(Scripted([A]), function=function, trials=4)
    assert len(calls) == 1
    assert [(t.decisions, t.state, t.metrics, t.same_as) for t in history] == [
        (A, "complete", {"score": 1.0}, None),
        *[(A, "complete", {"score": 1.0}, 0)] * 3,
    ]


def test_a_repeated_infeasible_proposal_is_infeasible_again(monkeypatch):
    monkeypatch.setattr("convsmith.search.loop.MAX_INFEASIBLE", 30)
    measured = []

    def measure(architecture):
        measured.append(architecture)
        return sum(widths(architecture)) - 24.0

    with pytest.raises(RuntimeError, match=r"30 trials in a row violate .* 8 for width <= 4"):
        run(Scripted([B]), constraints=[Constraint("width", maximum=4, measure=measure)])
    assert len(measured) == 1


def test_a_repeated_failed_proposal_is_evaluated_again():
    history = run(Scripted([A]), function=failing(0, 1), trials=1)
    assert [(t.state, t.same_as) for t in history] == [("failed", None), ("failed", None), ("complete", None)]


def test_networks_that_differ_in_identities_alone_are_one():
    block = cs.spec(ConvNormAct, 8)
    space = cs.Architecture(stages=[[cs.choice(block, cs.spec(Identity)), cs.choice(block, cs.spec(Identity))]])
    first, second = ({"stages.0.0": a, "stages.0.1": 1 - a} for a in (0, 1))
    calls = []

    def function(architecture, *, seed, report):
        calls.append(architecture)
        return {"score": 1.0}

    history = run(Scripted([first] + [second] * 1000), function=function, space=space, trials=2)
    assert len(calls) == 1
    assert history[1].same_as == 0


@pytest.mark.parametrize("strategy", [Random(), LocalSearch(), RegularizedEvolution(5, 2)])
def test_a_space_that_is_exhausted_ends_the_search(strategy, caplog):
    space = toy_space(blocks=1)
    with caplog.at_level(logging.WARNING, logger="convsmith"):
        history = run(strategy, space=space, trials=1000)
    assert {tuple(trial.decisions.items()) for trial in history if trial.same_as is None} == {
        tuple(random.items()) for random in all_decisions(space)
    }
    assert "the space toy is exhausted: all of its 16 networks are known" in caplog.text


def all_decisions(space):
    (a, first), (b, second) = space.choices()
    return [{a: i, b: j} for i in range(len(first)) for j in range(len(second))]


@dataclass
class Counting:
    """A strategy with a state that the history does not hold."""

    bias: torch.Tensor = field(default_factory=lambda: torch.zeros(2), init=False)
    names: dict = field(default_factory=dict, init=False)

    def ask(self, space, history, rng):
        self.bias += torch.tensor([1.0, len(history.complete)])
        self.names[f"ask {len(self.names)}"] = int(self.bias[0])
        proposed = random_decisions(space, rng)
        return {key: (index + int(self.bias.sum())) % 4 for key, index in proposed.items()}

    def state_dict(self):
        return {"bias": self.bias, "names": self.names}

    def load_state_dict(self, state):
        self.bias, self.names = state["bias"], state["names"]


def test_a_strategy_with_a_state_goes_on_with_it(tmp_path):
    once = run(Counting(), trials=30)
    for trials in (1, 9, 30):
        resumed = run(Counting(), trials=trials, run_dir=tmp_path)
    assert facts(resumed) == facts(once)


def test_the_folder_says_what_the_run_is(tmp_path):
    constraint = Constraint("kernels", maximum=9, measure=cost)
    history = run(RegularizedEvolution(5, 2), trials=12, seed=3, run_dir=tmp_path / "a" / "b", constraints=[constraint])
    folder = tmp_path / "a" / "b"
    document = json.loads((folder / "run.json").read_text())
    assert document["format"] == "convsmith/run/1"
    assert (document["kind"], document["seed"]) == ("search", 3)
    assert document["settings"]["strategy"] == {
        "name": "regularized_evolution", "population_size": 5, "sample_size": 2,
    }  # fmt: skip
    assert document["settings"]["constraints"] == [{"metric": "kernels", "minimum": None, "maximum": 9}]
    assert document["settings"]["trials"] == 12
    assert torch.__version__.startswith(document["versions"]["torch"])
    assert document["started"] <= document["finished"]
    best = cs.Architecture.load(folder / "best.json")
    assert best == SPACE.resolve(history.best.decisions)
    assert best.found_by == f"regularized_evolution seed 3, trial {history.best.number}"
    opened = History.open(folder)
    assert facts(opened) == facts(history)
    assert opened.space == SPACE
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.json", "history.sqlite", "history.sqlite.lock", "run.json",
    ]  # fmt: skip


def test_more_trials_extend_a_run_and_fewer_leave_it(tmp_path):
    run(trials=5, run_dir=tmp_path)
    started = json.loads((tmp_path / "run.json").read_text())["started"]
    history = run(trials=9, run_dir=tmp_path)
    assert facts(history) == facts(run(trials=9))
    assert facts(run(trials=3, run_dir=tmp_path)) == facts(history)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["started"] == started
    assert "finished" in document


def test_notes_of_others_in_run_json_are_kept(tmp_path):
    note = {"format": "convsmith/run/1", "kind": "search", "command": "convsmith search", "settings": {"epochs": 3}}
    (tmp_path / "run.json").write_text(json.dumps(note))
    run(trials=1, run_dir=tmp_path)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["command"] == "convsmith search"
    assert document["settings"]["epochs"] == 3


@dataclass(frozen=True)
class WithFacts:
    data: str

    def __call__(self, architecture, *, seed, report):
        return evaluate(architecture, seed=seed, report=report)

    def facts(self):
        return {"data": self.data, "sizes": (8, 8)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": toy_space(2)}, r'the space "toy [0-9a-f]{24}", this one has "toy [0-9a-f]{24}"'),
        ({"strategy": LocalSearch()}, r'the strategy.name "random", this one has "local_search"'),
        ({"function": WithFacts("other")}, 'the data "digits", this one has "other"'),
        ({"function": evaluate}, 'the data "digits", this one has null'),
        ({"seed": 1}, "the seed 0, this one has 1"),
        ({"objective": "-score"}, 'the objective "score", this one has "-score"'),
        (
            {"constraints": [Constraint("cost", maximum=20.25)]},
            r"the constraints\[0\]\S* \S*20\.5\S*, this one has \S*20\.25",
        ),
    ],
)
def test_another_search_is_refused_by_name_and_values(tmp_path, changed, message):
    options = {"function": WithFacts("digits"), "constraints": [Constraint("cost", maximum=20.5)], "run_dir": tmp_path}
    before = run(trials=3, **options)
    with pytest.raises(ValueError, match=message):
        run(trials=3, **{**options, **changed})
    assert facts(run(trials=3, **options)) == facts(before)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format": "convsmith/run/1", "kind": "train"}')
    with pytest.raises(ValueError, match=r"must hold a search in the format convsmith/run/1, got a train"):
        run(run_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.json").write_text('{"format": "conv')
    with pytest.raises(ValueError, match="is no JSON"):
        run(run_dir=tmp_path)


def test_a_run_that_is_being_searched_is_refused_to_others(tmp_path):
    def function(architecture, *, seed, report):
        with pytest.raises(BlockingIOError, match="another search is writing"):
            run(trials=1, run_dir=tmp_path)
        return {"score": 1.0}

    assert len(run(function=function, trials=1, run_dir=tmp_path)) == 1


def test_an_error_gives_the_run_free(tmp_path):
    with pytest.raises(RuntimeError, match="20 trials in a row"):
        run(function=failing(*range(1000)), run_dir=tmp_path)
    history = run(trials=2, run_dir=tmp_path)
    assert [len(history), len(history.complete)] == [22, 2]


def test_a_crash_between_a_result_and_its_record_repeats_the_trial(tmp_path, monkeypatch):
    # The moment that no kill hits on purpose: evaluated, not yet written.
    original = cs.search.loop.Run.finish

    def finish(self, trial):
        if trial.number == 4:
            raise KeyboardInterrupt
        original(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr("convsmith.search.loop.Run.finish", finish)
        with pytest.raises(KeyboardInterrupt):
            run(LocalSearch(), run_dir=tmp_path)
    assert list(History.open(tmp_path).running) == [4]
    assert facts(run(LocalSearch(), run_dir=tmp_path)) == facts(run(LocalSearch()))


def test_a_copy_that_was_interrupted_is_a_copy_again(tmp_path, monkeypatch):
    original = cs.search.loop.Run.finish
    monkeypatch.setattr(
        "convsmith.search.loop.Run.finish",
        lambda self, trial: original(self, trial) if trial.number < 2 else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    with pytest.raises(KeyboardInterrupt):
        run(Scripted([A]), trials=4, run_dir=tmp_path)
    monkeypatch.setattr("convsmith.search.loop.Run.finish", original)
    calls = []
    history = run(Scripted([A]), function=lambda a, **_: calls.append(a), trials=4, run_dir=tmp_path)
    assert [trial.same_as for trial in history] == [None, 0, 0, 0]
    assert calls == []


def test_the_first_arguments_are_checked(tmp_path):
    wrong = [
        ({"space": SPACE.sample(Generator(0))}, "a search space must have choices"),
        ({"trials": 0}, "trials must be a positive integer, got 0"),
        ({"trials": True}, "trials must be a positive integer, got True"),
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
        ({"objective": "-"}, "an objective is the name of a metric"),
        ({"executor": "ray"}, "executor must be 'inline', 'process' or an object"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            run(run_dir=tmp_path / "none", **options)
    with pytest.raises(TypeError, match="constraints must be a list of Constraint"):
        run(constraints=["latency_ms < 3"], run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_strategy_that_proposes_nonsense_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no decision for the choice 'stages.0.0.out_channels'"):
        run(Scripted([{}]))
