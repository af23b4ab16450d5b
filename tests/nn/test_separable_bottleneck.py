import pytest
import torch
from torch.nn import functional as F

from convsmith.nn import DepthwiseBottleneck, SeparableBottleneck, WaterfallBlock
from tests.zoo.peers import randomise

BLOCKS = [DepthwiseBottleneck, SeparableBottleneck, WaterfallBlock]


def random_block(block, x):
    block = block.double().eval()
    randomise(block, x)
    return block


def conv_norm(x, weights, prefix, **arguments):
    y = F.conv2d(x, weights[f"{prefix}.conv.weight"], **arguments)
    mean, var, gamma, beta = (
        weights[f"{prefix}.norm.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (y - mean) / (var + 1e-5).sqrt() * gamma + beta


def separable(x, weights, prefix, stride=1):
    dense = torch.einsum(  # depthwise and pointwise convolution have nothing between them: one dense kernel
        "oihw,iahw->oihw",
        weights[f"{prefix}.pointwise.conv.weight"].expand(-1, -1, 3, 3),
        weights[f"{prefix}.depthwise.conv.weight"],
    )
    joined = {**weights, f"{prefix}.pointwise.conv.weight": dense}
    return conv_norm(x, joined, f"{prefix}.pointwise", stride=stride, padding=1)


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (4, 2)])
def test_the_depthwise_bottleneck(in_channels, stride):
    x = torch.randn(3, in_channels, 7, 7, dtype=torch.float64)
    block = random_block(DepthwiseBottleneck(in_channels, 8, stride=stride, hidden_channels=3), x)
    w = block.state_dict()
    y = separable(separable(x, w, "reduce", stride).clamp(min=0), w, "expand").clamp(min=0)
    y = conv_norm(y, w, "depthwise", padding=1, groups=8 if in_channels == 8 else 4)
    expected = y + x if in_channels == 8 else torch.cat([y, F.avg_pool2d(x, 3, stride, 1)], 1)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected.clamp(min=0))


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_the_separable_bottleneck(in_channels, stride):
    x = torch.randn(3, in_channels, 7, 7, dtype=torch.float64)
    block = random_block(SeparableBottleneck(in_channels, 8, stride=stride), x)
    w = block.state_dict()
    y = separable(separable(x, w, "body.0", stride).clamp(min=0), w, "body.1").clamp(min=0)
    y = separable(y, w, "body.2") + (x if (in_channels, stride) == (8, 1) else separable(x, w, "shortcut", stride))
    with torch.no_grad():
        torch.testing.assert_close(block(x), y.clamp(min=0))


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_each_step_of_a_waterfall_flows_on_and_out(in_channels, stride):
    x = torch.randn(3, in_channels, 7, 7, dtype=torch.float64)
    block = random_block(WaterfallBlock(in_channels, 8, stride=stride), x)
    w = block.state_dict()
    a = separable(x, w, "first", stride)
    b = separable(a.clamp(min=0), w, "second.1")
    c = separable(b.clamp(min=0), w, "third.1")
    assert [y.shape[1] for y in (a, b, c)] == [2, 2, 4]
    shortcut = x if (in_channels, stride) == (8, 1) else separable(x, w, "shortcut", stride)
    with torch.no_grad():
        torch.testing.assert_close(block(x), (torch.cat([a, b, c], 1) + shortcut).clamp(min=0))


def seen(block, channel):
    """From the first to the last row that a pixel of that channel depends on; positive weights cut no path."""
    block = block.double().eval()
    for parameter in block.parameters():
        parameter.data = parameter.data.abs() + 0.1
    x = torch.ones(1, 8, 21, 21, dtype=torch.float64, requires_grad=True)
    block(x)[0, channel, 10, 10].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    return int(rows.max() - rows.min()) + 1


@pytest.mark.parametrize("block", BLOCKS)
def test_the_receptive_field_is_7_as_shufflenet_v2_says(block):
    assert seen(block(8, 8), 7) == 7
    assert seen(block(8, 8, dilation=2), 7) == 13


def test_the_receptive_fields_of_a_waterfall():
    assert [seen(WaterfallBlock(8, 8), channel) for channel in range(8)] == [3, 3, 5, 5, 7, 7, 7, 7]


def test_channels_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"must exceed in_channels .* got in_channels=8 and out_channels=6"):
        DepthwiseBottleneck(8, 6)
    with pytest.raises(ValueError, match="must leave channels to the third one, got out_channels=8 and two steps of 4"):
        WaterfallBlock(8, 8, hidden_channels=4)
