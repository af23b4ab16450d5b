"""What the plots hold, point by point; and that plotly knows every property."""

import math
from collections import defaultdict
from random import Random

import plotly.graph_objects as go
import pytest

from convsmith.report.figure import Axis, bounds, cost_axis
from convsmith.report.plots import Marked, curves, pareto, progress, view_edge
from convsmith.report.units import unit_of
from convsmith.search import Constraint, History, Trial

COST, ACCURACY = "latency_ms", "accuracy"


def trial(number, state="complete", accuracy=None, cost=None):
    metrics = {name: value for name, value in ((ACCURACY, accuracy), (COST, cost)) if value is not None}
    return Trial(number, {}, state, metrics)


def some_trials(seed=0, count=60):
    rng = Random(seed)
    trials = []
    for number in range(count):
        state = rng.choice(["complete"] * 4 + ["infeasible", "failed"])
        known = state == "complete" or rng.random() < 0.5
        cost = rng.uniform(1, 4) if state != "failed" or rng.random() < 0.7 else None
        trials.append(trial(number, state, rng.uniform(0.8, 1) if known and state != "failed" else None, cost))
    return trials


def axes(trials, bound=None):
    values = {name: [t.metrics.get(name) for t in trials] for name in (COST, ACCURACY)}
    limits = () if bound is None else (bound,)
    return Axis(COST, unit_of(COST, values[COST]), limits), Axis(ACCURACY, unit_of(ACCURACY, values[ACCURACY]))


def placed(figure):
    """The positions of the trials in the list, by the name of their trace."""
    found = defaultdict(list)
    for trace in figure["data"]:
        found[trace["name"]] += trace.get("customdata", [])
    return found


def check(figure):
    go.Figure(figure)  # raises for a property or value that plotly does not have
    for trace in figure["data"]:
        assert len(trace["x"]) == len(trace["y"]) == len(trace.get("customdata", trace["x"])) > 0


@pytest.mark.parametrize("seed", range(5))
def test_every_trial_with_a_cost_is_in_the_pareto_plot_once(seed):
    trials = some_trials(seed)
    x, y = axes(trials, 3.0)
    complete = [t for t in trials if t.state == "complete"]
    front = History(ACCURACY, trials).front(COST)
    figure = pareto(trials, front, x, y)
    check(figure)
    points = placed(figure)
    beaten = {
        t.number for t in complete for other in complete
        if other.metrics[ACCURACY] >= t.metrics[ACCURACY] and other.metrics[COST] <= t.metrics[COST] and other is not t
    }  # fmt: skip
    assert sorted(points["Pareto front"]) == sorted({t.number for t in complete} - beaten)
    assert sorted(points["complete"]) == sorted(beaten)
    assert sorted(points["failed"]) == [t.number for t in trials if t.state == "failed" and COST in t.metrics]
    shown = [i for trace in figure["data"] for i in trace["customdata"]]
    assert sorted(shown) == [t.number for t in trials if COST in t.metrics]
    lanes = [i for trace in figure["data"] if trace.get("yaxis") == "y2" for i in trace["customdata"]]
    assert all(trials[i].state != "complete" and ACCURACY not in trials[i].metrics for i in lanes)
    for trace in figure["data"]:
        for position, across, up in zip(trace["customdata"], trace["x"], trace["y"], strict=True):
            assert across == trials[position].metrics[COST]
            assert up == (trace["name"] if trace.get("yaxis") == "y2" else 100 * trials[position].metrics[ACCURACY])


def test_the_front_goes_from_cheap_to_dear():
    trials = [trial(0, accuracy=0.9, cost=3.0), trial(1, accuracy=0.7, cost=1.0), trial(2, accuracy=0.8, cost=2.0)]
    figure = pareto(trials, trials, *axes(trials))
    assert next(trace for trace in figure["data"] if trace["name"] == "Pareto front")["customdata"] == [1, 2, 0]


def test_limits_are_lines():
    trials = [trial(0, accuracy=0.9, cost=3.0)]
    limits = [Constraint(COST, maximum=4.0, minimum=1.0), Constraint("params", maximum=5)]
    assert bounds(limits, COST) == (1.0, 4.0)
    x, y = axes(trials, 4.0)
    (line,) = pareto(trials, trials, x, y)["layout"]["shapes"]
    assert (line["xref"], line["x0"], line["x1"], line["yref"]) == ("x", 4.0, 4.0, "y domain")
    assert line["label"]["text"] == "limit 4 ms"
    at_least = Axis(ACCURACY, y.unit, (0.95,))
    (line,) = progress(trials, at_least, larger_is_better=True)["layout"]["shapes"]
    assert (line["yref"], line["y0"], line["y1"], line["xref"]) == ("y", 95.0, 95.0, "x domain")
    check(pareto(trials, trials, x, at_least))


def test_what_costs_far_more_than_needed_is_out_of_the_view_at_first():
    trials = [trial(0, accuracy=0.9, cost=3.0), trial(1, "infeasible", cost=7.9), trial(2, "infeasible", cost=80.0)]
    x, y = axes(trials, 4.0)
    assert view_edge(trials, x) == 8.0
    assert pareto(trials, trials[:1], x, y)["layout"]["xaxis"]["range"] == [0.0, 8.0]
    assert view_edge(trials, x, [Marked("resnet18", 50.0, 99.0)]) == 100.0
    assert view_edge(trials[1:], x) == math.inf


def test_costs_of_different_orders_are_on_a_logarithmic_axis():
    axis = cost_axis([100.0, 1e6], 2e6)
    assert axis["type"] == "log"
    assert axis["range"] == pytest.approx([1.68, 2 + 4.3010299957])
    assert cost_axis([1.0, 29.0], math.inf)["range"] == pytest.approx([0.0, 31.32])
    assert cost_axis([], math.inf)["range"] == [0.0, 1.08]


def test_networks_trained_in_full_are_labelled():
    trials = [trial(0, accuracy=0.9, cost=3.0)]
    marked = [Marked("res<net>&", 6.0, 99.0), Marked("found", 2.0, 98.0, winner=True)]
    figure = pareto(trials, trials, *axes(trials), marked)
    check(figure)
    labels = {trace["text"][0]: (trace["x"], trace["y"]) for trace in figure["data"] if "text" in trace}
    assert labels == {"<b>found</b>": ([2.0], [98.0]), "res&lt;net&gt;&amp;": ([6.0], [99.0])}


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_the_progress_has_every_trial_and_the_best_so_far(larger_is_better):
    trials = some_trials(3)
    _, y = axes(trials)
    figure = progress(trials, y, larger_is_better=larger_is_better)
    check(figure)
    positions = [i for trace in figure["data"] for i in trace.get("customdata", ())]
    assert sorted(positions) == list(range(len(trials)))
    best = next(trace for trace in figure["data"] if trace["name"] == "best so far")
    steps = dict(zip(best["x"], best["y"], strict=True))
    pick = max if larger_is_better else min
    for last in (t.number for t in trials if t.state == "complete"):
        expected = pick(t.metrics[ACCURACY] for t in trials[: last + 1] if t.state == "complete")
        assert steps[last] == 100 * expected
    assert best["x"][-1] == trials[-1].number


def test_failed_trials_alone_are_a_plot():
    trials = [trial(0, "failed"), trial(1, "infeasible", cost=3.0)]
    x, y = axes(trials)
    figure = progress(trials, y, larger_is_better=True)
    check(figure)
    assert {trace["name"]: trace["x"] for trace in figure["data"]} == {"failed": [0], "infeasible": [1]}
    check(pareto(trials, [], x, y))


def test_curves():
    rows = [{"epoch": epoch, "a": 0.5 / epoch, "b": math.nan if epoch == 2 else 1.0} for epoch in (1, 2, 3)]
    figure = curves(rows, ["a", "b"], unit_of("accuracy", [0.5]))
    check(figure)
    assert [trace["y"] for trace in figure["data"]] == [[50.0, 25.0, pytest.approx(50 / 3)], [100.0, None, 100.0]]
    assert figure["layout"]["showlegend"]
    assert "type" not in figure["layout"]["yaxis"]
    losses = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 0.01}]
    single = curves(losses, ["loss"], unit_of("loss", [3.0, 0.01]))
    check(single)
    assert single["layout"]["yaxis"]["type"] == "log"
    assert not single["layout"]["showlegend"]
