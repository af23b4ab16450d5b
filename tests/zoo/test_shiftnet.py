import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import Shift
from convsmith.zoo.shiftresnet import shiftresnet

# Params in millions with two digits of the authors' table for CIFAR-10, by depth and expansion.
# fmt: off
CIFAR = {20: {1: 0.03, 3: 0.10, 6: 0.19, 9: 0.28}, 56: {1: 0.10, 3: 0.29, 6: 0.58, 9: 0.87},
         110: {1: 0.20, 3: 0.59, 6: 1.18, 9: 1.76}}
# fmt: on


def test_the_multiply_accumulates_are_those_of_the_paper():
    assert round(cs.zoo.variants()["shiftnet_a"].macs / 1e9, 1) == 1.4
    assert round(cs.zoo.variants()["shiftnet_b"].macs / 1e6) == 371


@pytest.mark.parametrize(("depth", "row"), CIFAR.items())
def test_the_params_of_shiftresnet_are_those_of_the_authors(depth, row):
    params = {expansion: cs.zoo.variants()[f"shiftresnet{depth}_e{expansion}"].params for expansion in row}
    assert {expansion: round(count / 1e6, 2) for expansion, count in params.items()} == row
    if depth == 20:
        assert params[3] == 95_642  # the one figure that they give exactly


@pytest.mark.parametrize(
    ("name", "kernel_sizes"),
    [("shiftnet_a", [5] * 11 + [3] * 10), ("shiftnet_b", [5] * 11 + [3] * 10), ("shiftnet_c", [3] * 12)],
)
def test_what_moves_between_pixels_are_shifts_alone(name, kernel_sizes):
    with torch.device("meta"):
        network = cs.create_model(name)
    assert [m.kernel_size for m in network.modules() if isinstance(m, Shift)] == kernel_sizes
    stem, *convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert (stem.kernel_size, stem.stride) == ((7, 7), (2, 2))
    assert {conv.kernel_size for conv in convolutions} == {(1, 1)}
    sides = [feature.shape[-1] for feature in network.features(torch.empty(1, 3, 224, 224, device="meta"))]
    assert sides == [56, 28, 14, 7]


def test_the_widths_of_a_are_those_of_its_table():
    with torch.device("meta"):
        network = cs.create_model("shiftnet_a")
    hidden = [[unit.expand.out_channels for unit in stage] for stage in network.stages]
    assert hidden == [
        [4 * (64 - 32)] + [4 * 64] * 4,
        [4 * (128 - 64)] + [3 * 128] * 5,
        [3 * (256 - 128)] + [2 * 256] * 6,
        [2 * (512 - 256)] + [512] * 2,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shiftresnet20_e1", "shiftnet_c"])
def test_small_images_and_export(name):
    network = cs.create_model(cs.zoo.for_small_inputs(cs.zoo.get(name, num_classes=10), 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    assert network.features(x)[-1].shape[-1] >= 2
    torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), network(x))


def test_another_depth_is_refused():
    with pytest.raises(ValueError, match=r"must be 6n \+ 2, got 21"):
        shiftresnet(depth=21, expansion=3.0)
