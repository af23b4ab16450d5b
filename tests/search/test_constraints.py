"""Constraints by themselves; the loop's tests say what it does with them."""

import math

import pytest
import torch

import convsmith as cs
from convsmith.measure.predictor import About
from convsmith.nn import Classifier, ConvNormAct
from convsmith.search import Constraint, cost_constraint, latency_constraint, predicted_latency_constraint
from tests.search import toy


def test_the_excess_is_the_distance_from_the_allowed_range():
    constraint = Constraint("m", minimum=1.0, maximum=2.0)
    assert [constraint.excess(value) for value in (0.5, 1.0, 1.5, 2.0, 2.25)] == [0.5, 0, 0, 0, 0.25]
    assert [Constraint("m", maximum=2.0).excess(value) for value in (-math.inf, 3.0)] == [0, 1]
    assert [Constraint("m", minimum=2.0).excess(value) for value in (math.inf, 1.5)] == [0, 0.5]
    assert str(constraint) == "1 <= m <= 2"


@pytest.mark.parametrize(
    "bounds", [{}, {"maximum": math.nan}, {"minimum": -math.inf}, {"minimum": 2.0, "maximum": 1.0}]
)
def test_bounds_are_checked(bounds):
    with pytest.raises(ValueError, match="a constraint needs a finite maximum or minimum, and minimum <= maximum"):
        Constraint("m", **bounds)


NETWORK = cs.Architecture(stages=[[cs.spec(ConvNormAct, 8)]], head=cs.spec(Classifier, 10), in_channels=1)


def test_a_cost_is_counted():
    # 3 x 3 x 1 x 8 on 64 pixels and 8 x 10 in the head; norm has 16, the head 10 biases.
    assert cost_constraint("macs", 1e6, (1, 1, 8, 8)).measure(NETWORK) == 72 * 64 + 80
    assert cost_constraint("params", 1e6, (1, 1, 8, 8)).measure(NETWORK) == 72 + 16 + 80 + 10
    assert cost_constraint("params", 1e6, (1, 1, 8, 8)).metric == "params"
    with pytest.raises(ValueError, match="a cost is one of params, macs, activations, memory_bytes, got 'flops'"):
        cost_constraint("flops", 1e6, (1, 1, 8, 8))


def test_latency_is_measured_with_the_threads_asked_for(monkeypatch):
    seen = {}

    def latency(module, input_shape, **options):
        seen.update(options, input_shape=input_shape, params=sum(p.numel() for p in module.parameters()))
        return type("Latency", (), {"median_ms": 1.25})

    monkeypatch.setattr("convsmith.search.constraints.latency", latency)
    constraint = latency_constraint(1.0, (1, 1, 8, 8), backend="onnxruntime", threads=2)
    assert constraint.excess(constraint.measure(NETWORK)) == 0.25
    assert seen == {"backend": "onnxruntime", "threads": 2, "input_shape": (1, 1, 8, 8), "params": 178}
    with pytest.raises(ValueError, match="threads must be at most"):
        latency_constraint(1.0, (1, 1, 8, 8), threads=10**6)


def test_latency_leaves_the_generator_alone():
    # Each trial builds a network to measure it: the random numbers of a user's evaluate must not depend on that.
    before = torch.get_rng_state()
    assert latency_constraint(1.0, (1, 1, 8, 8)).measure(NETWORK) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_search_can_ask_that_every_output_channel_sees_every_input_channel():
    # Two grouped 1 x 1 convolutions with a shuffle between mix all channels exactly if g1 * g2 <= C.
    space = cs.Architecture(
        stem=[cs.spec(cs.nn.ConvNormAct, 16)],
        stages=[
            [
                cs.spec(cs.nn.ConvNormAct, 16, kernel_size=1, groups=cs.choice(2, 4, 8, name="first")),
                cs.spec(cs.nn.ChannelShuffle, groups=cs.choice(2, 4, 8, name="first")),
                cs.spec(cs.nn.ConvNormAct, 16, kernel_size=1, groups=cs.choice(2, 4, 8, name="second")),
            ]
        ],
    )

    def full(architecture):
        return float(cs.nn.has_full_channel_receptive_field(list(cs.network.build(architecture).stages[0])))

    found = cs.search.search(
        space,
        cs.search.strategies.Random(),
        lambda architecture, *, seed, report: {"score": float(architecture.stages[0][0].get("groups"))},
        trials=8,
        objective="score",
        constraints=[Constraint("full_receptive_field", minimum=1, measure=full)],
    )
    groups = [(a.get("groups"), b.get("groups")) for t in found for a, _, b in [space.resolve(t.decisions).stages[0]]]
    kept = [trial.state == "complete" for trial in found]
    assert kept == [first * second <= 16 for first, second in groups]
    assert not all(kept)


class Predicting:
    """A predictor that believes every network to take half of its widths in milliseconds."""

    about = About("cpu", "some processor", "onnxruntime", "1.32.0", 2, 16, "2026-11-26", 1.0)

    def predict_ms(self, architecture, input_shape, *, unknown):
        assert (input_shape, unknown) == ((1, 3, 8, 8), "measure")
        return sum(toy.widths(architecture)) / 2


def test_a_predicted_latency_is_measured_before_a_network_becomes_the_best(monkeypatch):
    measured = []

    def latency(module, input_shape, **options):
        assert options == {"backend": "onnxruntime", "threads": 2}
        measured.append(toy.widths(module.architecture))
        return type("Latency", (), {"median_ms": float(sum(toy.widths(module.architecture)))})

    monkeypatch.setattr("convsmith.search.constraints.latency", latency)
    constraint = predicted_latency_constraint(30.0, (1, 3, 8, 8), Predicting())
    assert "predicted from onnxruntime 1.32.0 calibrated 2026-11-26, 2 threads, 1x3x8x8" in constraint.how
    found = cs.search.search(
        toy.toy_space(2),
        cs.search.strategies.Random(),
        toy.evaluate,
        trials=12,
        objective="score",
        constraints=[constraint],
    )
    # Widths up to 60 are predicted to fit, those up to 30 do.
    assert sum(toy.widths(found.space.resolve(found.best.decisions))) <= 30
    best = float("-inf")
    for trial in found:
        total = float(sum(toy.widths(found.space.resolve(trial.decisions))))
        score = trial.metrics.get("score")
        if score is None or score <= best:
            expected = "infeasible" if total / 2 > 30 else "complete"
            assert (trial.state, trial.metrics["latency_ms"]) == (expected, total / 2)
            assert "predicted_latency_ms" not in trial.metrics
            continue
        assert (trial.metrics["predicted_latency_ms"], trial.metrics["latency_ms"]) == (total / 2, total)
        assert trial.state == ("complete" if total <= 30 else "infeasible")
        best = max(best, score) if total <= 30 else best
    assert 1 < len(measured) < len(found)
