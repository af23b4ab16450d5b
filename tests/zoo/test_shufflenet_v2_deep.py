import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.zoo.shufflenet_v2_deep import shufflenet_v2_164_se


def layers(name):
    """The convolutions of the main path and the linear layers, as names of networks count them."""
    with torch.device("meta"):
        network = cs.create_model(name)
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and ".passing." not in path and ".se." not in path
        for path, module in network.named_modules()
    )


def cost(architecture):
    return cs.measure.cost(architecture, (1, 3, 224, 224))


def without_gates(architecture):
    return architecture.replace(
        stages=[[unit.replace(se_ratio=0.0) for unit in stage] for stage in architecture.stages]
    )


def test_the_networks_are_as_deep_as_their_names_say():
    assert layers("shufflenet_v2_164_se") == 164
    assert layers("shufflenet_v2_50") == 51  # as the paper's table, whose 50 leave the classifier out


def test_the_costs_are_those_of_the_papers_table():
    variants = cs.zoo.variants()
    assert round(variants["shufflenet_v2_50"].macs / 1e9, 1) == 2.3
    # Ours rounds to 12.6; the table's 12.7 is within a hundredth of it.
    assert variants["shufflenet_v2_164_se"].macs == pytest.approx(12.7e9, rel=0.01)


def test_the_gates_are_all_that_the_deep_network_adds_to_plain_units():
    gated = shufflenet_v2_164_se()
    plain = cost(without_gates(gated))
    assert (plain.params, plain.macs) == (71_878_896, 12_537_551_792)
    halves = [170] * 10 + [340] * 10 + [680] * 23 + [1360] * 10
    squares = sum(2 * half**2 for half in halves)
    assert cost(gated).macs - plain.macs == squares
    assert cost(gated).params - plain.params == squares + sum(2 * half for half in halves)


def test_the_star_adds_little_to_the_network_that_it_widens():
    plain, star = (cs.zoo.variants()[f"shufflenet_v2_{name}x1_0"] for name in ("", "star_"))
    # Input widths of the branch and map sides: the first unit of a stage reads the whole map at twice the side.
    read = [(24, 56), *[(58, 28)] * 3, (116, 28), *[(116, 14)] * 7, (232, 14), *[(232, 7)] * 3]
    assert star.macs - plain.macs == sum(9 * width * side**2 for width, side in read)
    assert star.params - plain.params == sum((9 + 2) * width for width, _ in read)


@pytest.mark.parametrize("name", ["shufflenet_v2_50", "shufflenet_v2_164_se", "shufflenet_v2_star_x1_0"])
def test_small_images_keep_the_parameters(name):
    large = cs.zoo.get(name, num_classes=10)
    small = cs.zoo.for_small_inputs(large, 32)
    with torch.device("meta"):
        network, original = cs.create_model(small), cs.create_model(large)
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)
        sides = [f.shape[-1] for f in original.features(torch.empty(1, 3, 224, 224))]
    assert sides == ([28, 14, 7] if "star" in name else [56, 28, 14, 7])
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }


@pytest.mark.parametrize("name", ["shufflenet_v2_164_se", "shufflenet_v2_star_x1_0"])
def test_a_shallow_form_trains_and_exports(name):
    full = cs.zoo.get(name, num_classes=10)
    network = cs.create_model(full.replace(stages=[stage[:2] for stage in full.stages[:2]]))
    x = torch.randn(2, 3, 32, 32)
    network(x).square().sum().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    program = torch.export.export(network.eval(), (x,), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
