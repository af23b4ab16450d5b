import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import FractalBlock, single_column
from tests.zoo.peers import images

WIDTHS = (64, 128, 256, 512, 512)


def blocks(network):
    return [module for module in network.modules() if isinstance(module, FractalBlock)]


def test_the_parameters_are_counted_by_hand():
    # In each block the first convolution of each of three columns reads the block's input, four more read joins.
    convolutions = sum(9 * (3 * a + 4 * b) * b for a, b in zip((3, *WIDTHS), WIDTHS, strict=False))
    norms = sum(7 * 2 * width for width in WIDTHS)
    assert cs.zoo.variants()["fractalnet_cifar"].params == convolutions + norms + 512 * 10 + 10


def test_drop_rates_are_the_papers():
    network = cs.create_model("fractalnet_cifar")
    assert {(b.local_drop_rate, b.global_drop_share, b.columns) for b in blocks(network)} == {(0.15, 0.5, 3)}
    assert [getattr(b.dropout, "p", 0.0) for b in blocks(network)] == [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("column", "depth"), [(1, 5), (2, 10), (3, 20)])
def test_each_column_is_a_network_with_the_weights_of_the_whole(column, depth):
    whole = cs.create_model("fractalnet_cifar")
    alone = cs.create_model(single_column(cs.zoo.get("fractalnet_cifar"), column)).eval()
    alone.load_state_dict({name: whole.state_dict()[name] for name in alone.state_dict()})
    assert sum(isinstance(module, nn.Conv2d) for module in alone.modules()) == depth
    with torch.no_grad():
        assert alone(images(32, batch=2).float()).shape == (2, 10)


def test_maps_halve_behind_each_block():
    with torch.device("meta"):
        network = cs.create_model("fractalnet_cifar")
    assert network.feature_strides == [1, 2, 4, 8, 16]
    assert network.feature_channels == list(WIDTHS)
    small = cs.zoo.for_small_inputs(cs.zoo.get("fractalnet_cifar"), 32)
    assert [stage[0].block for stage in small.stages] == [*["fractal_block"] * 2, *["max_pool"] * 3]


@pytest.mark.slow
def test_a_strict_export_gives_the_same_outputs():
    network, x = cs.create_model("fractalnet_cifar").eval(), images(32, batch=2).float()
    program = torch.export.export(network, (x,), strict=True).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), network(x))
