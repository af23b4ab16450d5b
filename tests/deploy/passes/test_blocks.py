import pytest
import torch
from torch import fx, nn

import convsmith as cs
from convsmith.deploy import fold_norm
from convsmith.deploy.passes.blocks import block_channels
from tests.deploy.net import Net, conv
from tests.deploy.passes.test_shuffles import Dice
from tests.deploy.random_weights import outputs, randomised


def check(network, x, *, block=16):
    """Fill up, compare with the network, and see that every convolution but grouped and last ones has whole blocks."""
    twin = block_channels(network, block)
    expected = outputs(network, x)
    assert (outputs(twin, x) - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert (expected[0] - expected[-1]).abs().max() > 1e-3 * expected.abs().max()
    return twin


@pytest.mark.parametrize("name", ["shufflenet_v2_x1_0", "shufflenet_v2_star_x1_0"])
def test_networks_of_odd_widths_compute_the_same_in_whole_blocks(name):
    network = fold_norm(randomised(cs.create_model(name)))
    twin = check(network, torch.randn(2, 3, 32, 32, dtype=torch.float64))
    called = [twin.get_submodule(node.target) for node in twin.graph.find_nodes(op="call_module")]
    widths = {layer.out_channels for layer in called if isinstance(layer, nn.Conv2d)}
    assert all(width % 16 == 0 for width in widths)
    names = [getattr(node.target, "__name__", "") for node in twin.graph.nodes]
    assert not {"channel_shuffle", "shuffle_channels"} & set(names)
    splits = [node.args[1] for node in twin.graph.nodes if node.target is torch.split]
    assert splits
    assert all(size % 16 == 0 for sizes in splits for size in sizes)


def test_what_is_read_together_is_stored_together():
    network = randomised(cs.create_model("shufflenet_v2_x1_0"))
    twin = check(fold_norm(network), torch.randn(2, 3, 32, 32, dtype=torch.float64))
    splits = [node.args[1] for node in twin.graph.nodes if node.target is torch.split]
    # Of 58 channels 29 pass to the next unit but one; of 116, 58, then 29, 15, and a block for the last ones.
    assert splits[0] == [32, 16, 16]
    assert [64, 32, 16, 16] in splits


def test_widths_that_stay_in_the_layout_are_left_alone():
    network = fold_norm(randomised(cs.create_model("shufflenet_v2_x0_5")))
    assert not isinstance(block_channels(network), fx.GraphModule)


def test_filling_does_not_pile_up_from_unit_to_unit():
    unit = cs.spec(cs.nn.ShuffleUnitV2Deep, 20, se_ratio=0.5)
    classic = cs.zoo.get("shufflenet_v2_164_se", num_classes=10)
    deep = classic.replace(stages=[[unit.replace(stride=2), *[unit] * 12]], neck=[])
    network = fold_norm(randomised(cs.create_model(deep)))
    assert not isinstance(block_channels(network), fx.GraphModule)


def hooked(layer):
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return layer


LAYERS = {"a": conv(4, 6), "d": conv(6, 6, groups=6), "b": conv(6, 6), "c": conv(12, 4)}
VALID = {
    "a depthwise convolution": (lambda m, x: m.b(m.d(m.a(x)).relu()), {}),
    "a norm": (lambda m, x: m.b(m.d(m.norm(m.a(x)).relu())), {"norm": nn.BatchNorm2d(6)}),
    "a sigmoid, which makes filling a half": (lambda m, x: m.b(m.d(torch.sigmoid(m.a(x)))), {}),
    "both halves": (lambda m, x: m.c(torch.cat((m.d((y := m.a(x)).chunk(2, 1)[0].repeat(1, 2, 1, 1)), y), 1)), {}),
    "a changed map": (lambda m, x: m.c(torch.cat((m.d(y := m.a(x)), y), 1).relu_()), {}),
}
INVALID = {
    "an output in its own order": (lambda m, x: m.d(m.a(x)), {}),
    "a quotient": (lambda m, x: m.b(m.d(y := m.a(x)) / (1 + y * y)), {}),
    "a hook": (lambda m, x: m.b(m.d(m.a(x))), {"d": hooked(conv(6, 6, groups=6))}),
    "a shared layer": (lambda m, x: m.b(m.d(m.d(m.a(x)))), {}),
    "one map twice": (lambda m, x: m.c(torch.cat((y := m.d(m.a(x)), y), 1)), {}),
    "a concatenation as the output": (lambda m, x: torch.cat((m.d(m.a(x)), m.b(m.a(x))), 1), {}),
}


@pytest.mark.parametrize(("formula", "layers"), (VALID | INVALID).values(), ids=VALID | INVALID)
def test_small_networks(formula, layers):
    network = randomised(Net(formula, **(LAYERS | layers)))
    check(network, torch.randn(3, 4, 7, 7, dtype=torch.float64), block=8)


@pytest.mark.parametrize(("formula", "layers"), [VALID["a depthwise convolution"], VALID["a norm"]])
def test_filling_has_no_weights(formula, layers):
    network = randomised(Net(formula, **(LAYERS | layers)))
    twin = block_channels(network, 8)
    assert (twin.a.out_channels, twin.d.groups, twin.b.in_channels, twin.b.out_channels) == (8, 8, 8, 6)
    assert not twin.a.weight[6:].any()
    assert not twin.b.weight[:, 6:].any()


def test_random_wirings():
    filled = 0
    for seed in range(80):
        torch.manual_seed(seed)
        twin = check(randomised(Dice(seed)), torch.randn(2, 3, 5, 5, dtype=torch.float64), block=4)
        filled += isinstance(twin, fx.GraphModule)
    assert filled > 2
