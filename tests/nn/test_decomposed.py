import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import AsymmetricConv2d, Bottleneck, BottleneckConv2d, Inception, ReducedConv2d


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def with_weights_of(module, source):
    """The module with the tensors of another one, by position."""
    tensors = source.state_dict().values()
    module.load_state_dict(dict(zip(module.state_dict(), tensors, strict=True)))
    return module


def maps(channels, side=9):
    return torch.randn(2, channels, side, side, dtype=torch.float64)


def response(module, in_channels, kernel_size):
    """The kernel (C', C, k, k) of a linear module without biases, by what it makes of single pixels."""
    side = 2 * kernel_size - 1
    pixels = torch.zeros(in_channels, in_channels, side, side, dtype=torch.float64)
    pixels[range(in_channels), range(in_channels), kernel_size - 1, kernel_size - 1] = 1
    near = slice(kernel_size // 2, kernel_size // 2 + kernel_size)
    return module(pixels)[:, :, near, near].flip(2, 3).transpose(0, 1).detach()


def linear(make, *args, **kwargs):
    module = make(*args, **kwargs, norm=None, act="identity").double()
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.zeros_(conv.bias)
    return module


def test_one_by_one_then_k_by_k_is_a_branch_of_googlenet():
    inception = jittered(Inception(192, conv1x1=64, conv3x3=(96, 128), conv5x5=(16, 32), pool_proj=32))
    x = maps(192, 5)
    for branch, block in (
        (inception.branch3x3, ReducedConv2d(192, 128, hidden_channels=96)),
        (inception.branch5x5, ReducedConv2d(192, 32, kernel_size=5)),
    ):
        block = with_weights_of(block.double().eval(), branch)
        torch.testing.assert_close(block(x), branch(x))


@pytest.mark.parametrize("groups", [1, 4])
def test_one_by_one_around_k_by_k_is_a_bottleneck_without_its_shortcut(groups):
    bottleneck = jittered(Bottleneck(8, 32, stride=2, groups=groups, dilation=2))
    body = nn.ModuleList([bottleneck.conv1, bottleneck.conv2, bottleneck.conv3])
    block = with_weights_of(BottleneckConv2d(8, 32, stride=2, groups=groups, dilation=2).double().eval(), body)
    x = maps(8)
    torch.testing.assert_close(block(x), bottleneck.conv3(bottleneck.conv2(bottleneck.conv1(x))).clamp(min=0))
    assert block.conv.conv.weight.shape == (8, 8 // groups, 3, 3)


@pytest.mark.parametrize("first", ["1xk", "kx1"])
def test_rows_and_columns_one_after_the_other_are_a_convolution_of_low_rank(first):
    block = linear(AsymmetricConv2d, 3, 4, kernel_size=5, first=first, hidden_channels=2)
    w1, w2 = block.conv1.conv.weight, block.conv2.conv.weight
    assert w1.shape == ((2, 3, 1, 5) if first == "1xk" else (2, 3, 5, 1))
    columns, rows = ("omy", "mix") if first == "1xk" else ("miy", "omx")
    vertical, horizontal = (w2, w1) if first == "1xk" else (w1, w2)
    kernel = torch.einsum(f"{columns},{rows}->oiyx", vertical.squeeze(3), horizontal.squeeze(2))
    x = maps(3)
    torch.testing.assert_close(block(x), F.conv2d(x, kernel, padding=2))
    torch.testing.assert_close(response(block, 3, 5), kernel.detach())
    assert all(torch.linalg.matrix_rank(plane) == 2 for planes in response(block, 3, 5) for plane in planes)


def test_rows_and_columns_have_norm_and_activation_behind_both():
    block = jittered(AsymmetricConv2d(6, 8, kernel_size=3, dilation=2, act="relu6"))
    x = maps(6)
    y = F.conv2d(x, block.conv1.conv.weight, None, 1, (0, 2), 2)
    y = block.conv1.norm(y).clamp(0, 6)
    y = block.conv2.norm(F.conv2d(y, block.conv2.conv.weight, None, 1, (2, 0), 2)).clamp(0, 6)
    torch.testing.assert_close(block(x), y)
    assert block.conv1.conv.bias is None


@pytest.mark.parametrize("make", [ReducedConv2d, BottleneckConv2d, AsymmetricConv2d])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_stride_keeps_every_other_pixel(make, dilation):
    dense = jittered(make(6, 8, kernel_size=3, dilation=dilation))
    strided = with_weights_of(make(6, 8, kernel_size=3, stride=2, dilation=dilation).double().eval(), dense)
    x = maps(6)
    torch.testing.assert_close(strided(x), dense(x)[:, :, ::2, ::2])


@pytest.mark.parametrize(
    ("block", "macs_per_pixel"),
    [
        (cs.spec(cs.nn.ConvNormAct, 64, kernel_size=7), 64 * 64 * 49),
        (cs.spec(ReducedConv2d, 64, kernel_size=7), 64 * 32 + 32 * 64 * 49),
        (cs.spec(BottleneckConv2d, 64, kernel_size=7), 64 * 16 + 16 * 16 * 49 + 16 * 64),
        (cs.spec(BottleneckConv2d, 64, kernel_size=7, groups=4), 64 * 16 + 16 * 4 * 49 + 16 * 64),
        (cs.spec(AsymmetricConv2d, 64, kernel_size=7), 2 * 64 * 64 * 7),
        (cs.spec(cs.nn.GlobalConv2d, 64, kernel_size=7), 4 * 64 * 64 * 7),
        (cs.spec(cs.nn.RootModule, 64, kernel_size=7, groups=4), 64 * 16 * 49 + 64 * 64),
        (cs.spec(cs.nn.DepthwiseSeparable, 64, kernel_size=7), 64 * 49 + 64 * 64),
    ],
    ids=str,
)
def test_what_a_decomposition_costs(block, macs_per_pixel):
    cost = cs.measure.cost(cs.Architecture(stages=[[block]], in_channels=64), (1, 64, 6, 5))
    assert (cost.macs, cost.uncounted) == (30 * macs_per_pixel, {})


def test_a_narrow_block_keeps_a_channel():
    assert ReducedConv2d(4, 1, bottleneck_ratio=0.25).reduce.out_channels == 1
    assert BottleneckConv2d(4, 1).conv.out_channels == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReducedConv2d(8, 8, kernel_size=4), "kernel_size must be odd here, got kernel_size=4; take 5"),
        (lambda: BottleneckConv2d(8, 8, kernel_size=2), "must be odd here, got kernel_size=2; take 3"),
        (lambda: AsymmetricConv2d(8, 8, kernel_size=0), "must be odd here, got kernel_size=0; take 1"),
        (
            lambda: BottleneckConv2d(8, 24, groups=4),
            "hidden_channels must be divisible by groups, got hidden_channels=6",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
