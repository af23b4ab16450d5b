import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.nn import InterlacedGroupConv, has_full_channel_receptive_field

# Input and output channels, stride, output side; the rows of the author's code, a to d blocks repeated.
ROWS = [(32, 64, 1, 112), (64, 128, 2, 56), (128, 256, 2, 28), (256, 512, 2, 14), (512, 1024, 2, 7)]
REPEATS = {"clcnet_a": (0, 1, 1, 5, 2), "clcnet_b": (0, 1, 1, 7, 3)}


def rows(name):
    for (inputs, outputs, stride, side), repeats in zip(ROWS, REPEATS[name], strict=True):
        yield inputs, outputs, stride, side
        yield from [(outputs, outputs, 1, side)] * repeats


@pytest.mark.parametrize("name", REPEATS)
def test_the_counts_are_those_of_the_formula(name):
    # Per pixel 9 C^2 / g1 + C C' / g2, with g1 = C / 2 and g2 = 2.
    macs, params = 27 * 32 * 112**2 + 1024 * 1000, 27 * 32 + 2 * 32 + 1025 * 1000
    for inputs, outputs, _, side in rows(name):
        macs += (9 * inputs * 2 + inputs * outputs // 2) * side**2
        params += 9 * inputs * 2 + inputs * outputs // 2 + 2 * (inputs + outputs)
    variant = cs.zoo.variants()[name]
    assert (variant.params, variant.macs) == (params, macs)


@pytest.mark.parametrize(("name", "megabytes"), [("clcnet_a", 26.2), ("clcnet_b", 32.9)])
def test_the_released_files_hold_weights_and_gradients_of_as_many_parameters(name, megabytes):
    with torch.device("meta"):
        network = cs.create_model(name)
    numbers = 2 * sum(p.numel() for p in network.parameters()) + sum(b.numel() for b in network.buffers())
    assert megabytes - 0.15 < 4 * numbers / 1e6 <= megabytes


@pytest.mark.parametrize("name", REPEATS)
def test_every_block_has_a_full_channel_receptive_field_with_the_most_groups(name):
    blocks = [unit for stage in cs.zoo.get(name).stages for unit in stage]
    seen = set()
    for block, (inputs, outputs, stride, _) in zip(blocks, rows(name), strict=True):
        assert (block.get("out_channels"), block.get("stride")) == (outputs, stride)
        if (inputs, outputs) in seen:
            continue
        seen.add((inputs, outputs))
        with torch.device("meta"):
            module = block.build(inputs)
            depthwise = InterlacedGroupConv(inputs, outputs, primary_groups=inputs, secondary_groups=2)
            more = InterlacedGroupConv(inputs, outputs, primary_groups=inputs // 2, secondary_groups=4)
        assert (module.primary.conv.groups, module.secondary.conv.groups) == (inputs // 2, 2)
        assert has_full_channel_receptive_field(module.to_empty(device="cpu"))
        assert not has_full_channel_receptive_field(depthwise.to_empty(device="cpu"))
        assert not has_full_channel_receptive_field(more.to_empty(device="cpu"))


def test_a_block_by_its_formula():
    block = InterlacedGroupConv(8, 12).double().eval()
    for norm in (block.primary.norm, block.secondary.norm):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    convolve = nn.functional.conv2d
    first, second = block.primary.conv.weight, block.secondary.conv.weight
    y = torch.cat([convolve(x[:, 2 * g : 2 * g + 2], first[2 * g : 2 * g + 2], padding=1) for g in range(4)], 1)
    y = block.primary.norm(y)
    interlaced = torch.empty_like(y)
    for i in range(4):
        for j in range(2):
            interlaced[:, j * 4 + i] = y[:, i * 2 + j]  # output j of group i: place i of half j
    halves = [convolve(interlaced[:, 4 * h : 4 * h + 4], second[6 * h : 6 * h + 6]) for h in range(2)]
    torch.testing.assert_close(block(x), block.secondary.norm(torch.cat(halves, 1)).clamp(min=0))


@pytest.mark.slow
def test_it_exports_and_takes_small_images():
    architecture = cs.zoo.for_small_inputs(cs.zoo.get("clcnet_a", num_classes=10), 32)
    network = cs.create_model(architecture).eval()
    x = torch.randn(2, 3, 32, 32)
    assert network.features(x)[-1].shape[-1] >= 2
    torch.testing.assert_close(torch.export.export(network, (x,), strict=True).module()(x), network(x))
