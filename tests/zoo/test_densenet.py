import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.zoo.densenet import densenet_cifar
from tests.zoo.peers import assert_equal_outputs, images, randomise

# Millions of parameters of the paper's Table 2.
TABLE_2 = {
    "densenet_40_k12_cifar": 1.0,
    "densenet_100_k12_cifar": 7.0,
    "densenet_bc_100_k12_cifar": 0.8,
    "densenet_bc_250_k24_cifar": 15.3,
    "densenet_bc_190_k40_cifar": 25.6,
}


@pytest.mark.parametrize(("name", "millions"), TABLE_2.items())
def test_the_networks_for_cifar_have_the_parameters_of_the_paper(name, millions):
    assert round(cs.zoo.variants()[name].params / 1e6, 1) == millions
    depth = int(name.removeprefix("densenet_").removeprefix("bc_").split("_")[0])
    with torch.device("meta"):
        network = cs.create_model(name)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == depth


def test_the_plain_network_by_its_formula():
    network = cs.create_model("densenet_40_k12_cifar").double()
    x = images(32)
    randomise(network, x)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    stem, *layers = layers
    y = stem(x)
    for block in range(3):
        for _ in range(12):
            norm, conv, *layers = layers
            y = torch.cat((y, conv(norm(y).clamp(min=0))), 1)
        if block < 2:
            norm, conv, *layers = layers
            assert conv.in_channels == conv.out_channels == y.shape[1]  # no compression
            y = F.avg_pool2d(conv(norm(y).clamp(min=0)), 2)
    norm, linear = layers
    with torch.no_grad():
        assert_equal_outputs(network.eval()(x), linear(norm(y).clamp(min=0).mean((2, 3))))


@pytest.mark.parametrize(("depth", "bottleneck", "rule"), [(42, False, r"3n \+ 4"), (43, True, r"6n \+ 4")])
def test_another_depth_is_refused(depth, bottleneck, rule):
    with pytest.raises(ValueError, match=f"must be {rule}.*, got {depth}"):
        densenet_cifar(depth=depth, growth_rate=12, bottleneck=bottleneck)
