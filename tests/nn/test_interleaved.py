import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import (
    Classifier,
    ConvNormAct,
    InterlacedGroupConv,
    InterleavedGroupConv,
    has_full_channel_receptive_field,
)


def maps(channels, size=7):
    return torch.randn(2, channels, size, size, dtype=torch.float64)


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def normalised(norm, channel, y):
    y = (y - norm.running_mean[channel]) / (norm.running_var[channel] + 1e-5).sqrt()
    return y * norm.weight[channel] + norm.bias[channel]


def interleaved_kernel(block, groups, inside, outside):
    """One dense kernel: the sum over all ways from an input to an output; L groups of `inside` -> `outside` channels.

    Also, for each output, the channel of the secondary convolution that computes it.
    """
    first, second = block.primary.conv.weight, block.secondary.conv.weight
    kernel = first.new_zeros(groups * outside, groups * inside, *first.shape[2:])
    order = {}
    for m in range(outside):  # the secondary groups: channel m of every primary group
        for into in range(groups):
            order[into * outside + m] = m * groups + into
            for out_of in range(groups):
                for i in range(inside):
                    weight = second[m * groups + into, out_of, 0, 0] * first[out_of * outside + m, i]
                    kernel[into * outside + m, out_of * inside + i] += weight
    return kernel, order


SHAPES = [(1, 6, 6, 1, 3), (6, 1, 1, 1, 3), (2, 3, 3, 1, 3), (3, 4, 4, 2, 5), (4, 2, 4, 2, 3), (4, 1, 3, 1, 1)]


@pytest.mark.parametrize(("groups", "inside", "outside", "stride", "kernel_size"), SHAPES)
def test_interleaved_groups_are_one_convolution_with_a_sparse_kernel(groups, inside, outside, stride, kernel_size):
    block = InterleavedGroupConv(
        groups * inside,
        primary_groups=groups,
        out_channels=groups * outside,
        kernel_size=kernel_size,
        stride=stride,
        norm=None,
        act="identity",
    ).double()
    kernel, order = interleaved_kernel(block, groups, inside, outside)
    bias = torch.stack([block.secondary.conv.bias[order[o]] for o in range(groups * outside)])
    x = maps(groups * inside)
    torch.testing.assert_close(block(x), F.conv2d(x, kernel, bias, stride, kernel_size // 2))
    assert block.primary.conv.bias is None
    assert (kernel != 0).all()


def test_norm_and_activation_follow_the_two_convolutions():
    block = jittered(InterleavedGroupConv(12, primary_groups=3, dilation=2))
    kernel, order = interleaved_kernel(block, 3, 4, 4)
    x = maps(12)
    y = F.conv2d(x, kernel, padding=2, dilation=2)
    for o in range(12):
        y[:, o] = normalised(block.secondary.norm, order[o], y[:, o]).clamp(min=0)
    torch.testing.assert_close(block(x), y)
    assert (y == 0).any()


@pytest.mark.parametrize(("groups", "inside"), [(24, 2), (4, 32), (16, 16), (100, 2)])
def test_interleaved_groups_have_the_weights_of_the_paper(groups, inside):
    block = InterleavedGroupConv(groups * inside, primary_groups=groups, norm=None, act="identity")
    weights = sum(p.numel() for name, p in block.named_parameters() if name.endswith("weight"))
    assert weights == groups * inside**2 * 9 + inside * groups**2
    assert (block.primary.conv.groups, block.secondary.conv.groups) == (groups, inside)


def test_a_network_doubles_its_width_by_either_number():
    by_m = InterleavedGroupConv(48, primary_groups=24, out_channels=96, stride=2)
    by_l = InterleavedGroupConv(200, primary_groups=200, out_channels=400, stride=2)
    assert by_m.primary.conv.weight.shape == (96, 2, 3, 3)
    assert by_m.secondary.conv.weight.shape == (96, 24, 1, 1)
    assert by_l.primary.conv.weight.shape == (400, 1, 3, 3)
    assert by_l.secondary.conv.weight.shape == (400, 200, 1, 1)


@pytest.mark.parametrize(("channels", "out_channels", "first", "second"), [(12, 8, 6, 2), (12, 9, 2, 3), (8, 8, 8, 4)])
def test_interlaced_groups_compute_the_formula(channels, out_channels, first, second):
    block = jittered(
        InterlacedGroupConv(channels, out_channels, primary_groups=first, secondary_groups=second, stride=2)
    )
    x = maps(channels)
    size = channels // first
    y = {}
    for group in range(first):
        weight = block.primary.conv.weight[group * size : (group + 1) * size]
        convolved = F.conv2d(x[:, group * size : (group + 1) * size], weight, None, 2, 1)
        for j in range(size):  # interlaced: the j-th of all groups, then the next one of all groups
            y[j * first + group] = normalised(block.primary.norm, group * size + j, convolved[:, j])
    outputs = []
    for o in range(out_channels):
        start = o // (out_channels // second) * (channels // second)
        mixed = sum(block.secondary.conv.weight[o, i, 0, 0] * y[start + i] for i in range(channels // second))
        outputs.append(normalised(block.secondary.norm, o, mixed).clamp(min=0))
    torch.testing.assert_close(block(x), torch.stack(outputs, 1))


def test_by_default_interlaced_groups_are_as_small_as_a_full_receptive_field_admits():
    block = InterlacedGroupConv(32, 64)
    assert (block.primary.conv.groups, block.secondary.conv.groups) == (16, 2)
    assert has_full_channel_receptive_field(block)
    assert not has_full_channel_receptive_field(InterlacedGroupConv(32, 64, primary_groups=32))


def test_clcnet_a_rebuilt_from_the_block_has_its_published_size():
    def stage(channels, repeats):
        return [cs.spec(InterlacedGroupConv, channels, stride=2), *[cs.spec(InterlacedGroupConv, channels)] * repeats]

    a, b, c, d = 1, 1, 5, 2
    network = cs.Architecture(
        stem=[cs.spec(ConvNormAct, 32, stride=2)],
        stages=[
            [cs.spec(InterlacedGroupConv, 64, primary_groups=16)],
            *(stage(*row) for row in ((128, a), (256, b), (512, c), (1024, d))),
        ],
        head=cs.spec(Classifier, 1000),
    )
    cost = cs.measure.cost(network, (1, 3, 224, 224))
    assert (cost.params, cost.macs) == (3_253_640, 342_973_440)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InterleavedGroupConv(10, primary_groups=3),
            "in_channels must be divisible by primary_groups, got in_",
        ),
        (lambda: InterleavedGroupConv(12, primary_groups=4, out_channels=18), "got out_channels=18 and primary_groups"),
        (lambda: InterleavedGroupConv(12, primary_groups=0), "got in_channels=12 and primary_groups=0"),
        (lambda: InterleavedGroupConv(12, primary_groups=4, kernel_size=2), "kernel_size must be odd here, got"),
        (lambda: InterlacedGroupConv(12, 12, kernel_size=4), "kernel_size must be odd here, got kernel_size=4; take 5"),
        (lambda: InterlacedGroupConv(15, 16), "in_channels must be divisible by secondary_groups, got in_channels=15"),
        (lambda: InterlacedGroupConv(16, 15), "out_channels must be divisible by secondary_groups, got out_channels="),
        (lambda: InterlacedGroupConv(16, 16, primary_groups=5), "divisible by primary_groups, got in_channels=16"),
    ],
)
def test_wrong_groups_and_kernels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
