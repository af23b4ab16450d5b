from random import Random

import pytest
import torch

import convsmith as cs
from convsmith import arch
from convsmith.network import Network, build, inherit, supernet
from convsmith.nn import Classifier, ConvNormAct, Identity

SPACE = cs.Architecture(
    stem=[cs.spec(ConvNormAct, 8, kernel_size=cs.choice(1, 3))],
    stages=[
        [
            cs.choice(
                cs.spec(ConvNormAct, 8, kernel_size=cs.choice(3, 5), act=cs.choice("relu", "swish")), cs.spec(Identity)
            ),
            cs.choice(
                (), (cs.spec(ConvNormAct, 8),), (cs.spec(ConvNormAct, 8), cs.spec(ConvNormAct, 8, kernel_size=5))
            ),
            cs.spec(ConvNormAct, 8, kernel_size=cs.choice(1, 3, name="tied"), stride=2),
            cs.spec(ConvNormAct, 8, kernel_size=cs.choice(1, 3, name="tied")),
        ]
    ],
    head=cs.spec(Classifier, 4),
)


def decided(network: Network, decisions) -> None:
    """Turn a supernet's mixtures into the options that the decisions choose, by setting their weights to 0 and 1."""

    def choose(module, index):
        module.alpha.data.fill_(-1e9)
        module.alpha.data[index] = 0

    stem, chain = network.stem[0], network.stages[0]
    choose(stem, decisions["stem.0.kernel_size"])
    first = decisions["stages.0.0"]
    choose(chain[0], first)
    if first == 0:
        inner = 2 * decisions["stages.0.0:0.kernel_size"] + decisions["stages.0.0:0.act"]
        choose(chain[0].options[0], inner)
    choose(chain[1], decisions["stages.0.1"])
    for k in (2, 3):
        choose(chain[k], decisions["tied"])


def test_a_candidate_computes_what_the_supernet_computes_for_it():
    torch.manual_seed(0)
    whole = build(supernet(SPACE)).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    seen = set()
    for seed in range(40):
        decisions = arch.random_decisions(SPACE, Random(seed))
        seen.add(tuple(sorted(decisions.items())))
        candidate = build(SPACE.resolve(decisions)).double().eval()
        inherit(candidate, whole, SPACE, decisions)
        decided(whole, decisions)
        with torch.no_grad():
            torch.testing.assert_close(candidate(x), whole(x), rtol=1e-12, atol=1e-12)
    assert len(seen) > 20


def test_a_supernet_is_an_architecture_and_trains():
    architecture = supernet(SPACE)
    assert not arch.has_choice(architecture)
    assert cs.Architecture.from_json(architecture.to_json()) == architecture
    network = build(architecture)
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_widths_cannot_be_mixed():
    space = cs.Architecture(stages=[[cs.spec(ConvNormAct, cs.choice(8, 16))]])
    with pytest.raises(
        ValueError, match=r"stages.0.0 \(mixed\): the options of a mixture must have equal out_channels"
    ):
        build(supernet(space))


def test_decisions_of_another_space_are_refused():
    whole = build(supernet(SPACE))
    decisions = arch.random_decisions(SPACE, Random(0))
    candidate = build(SPACE.resolve(decisions))
    with pytest.raises(ValueError, match=r"the decisions leave stem\.0 open"):
        inherit(candidate, whole, SPACE, {})
