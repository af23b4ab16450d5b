"""The basic blocks against torch's and torchvision's operators, in float64."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import (
    BasicBlock,
    Bottleneck,
    Classifier,
    ConvNormAct,
    DepthwiseSeparable,
    GroupNorm,
    InvertedResidual,
    Mixed,
    SqueezeExcite,
)


def image(channels=8, side=9, batch=2):
    return torch.randn(batch, channels, side, side, dtype=torch.float64)


def norm(x, module):
    return F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, False, 0.0, module.eps)


def jittered(block):
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return block.double().eval()


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", F.relu),
        ("relu6", lambda x: x.clamp(0, 6)),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("elu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("swish", lambda x: x / (1 + (-x).exp())),
        ("hard_swish", lambda x: x * (x + 3).clamp(0, 6) / 6),
        ("identity", lambda x: x),
    ],
)
def test_activations_are_their_formulas(name, function):
    x = 4 * image()
    torch.testing.assert_close(cs.arch.registered(name).constructor(8)(x), function(x))


def test_conv_norm_act_is_convolution_norm_activation():
    block = jittered(ConvNormAct(8, 12, kernel_size=(1, 5), stride=2, groups=4, dilation=2, act="relu6"))
    x = image()
    y = F.conv2d(x, block.conv.weight, None, 2, (0, 4), 2, 4)
    torch.testing.assert_close(block(x), norm(y, block.norm).clamp(0, 6))


@pytest.mark.parametrize(
    ("arguments", "has_bias"),
    [({}, False), ({"norm": None}, True), ({"bias": True}, True), ({"norm": None, "bias": False}, False)],
)
def test_a_convolution_has_a_bias_exactly_without_norm_unless_told(arguments, has_bias):
    assert (ConvNormAct(8, 8, **arguments).conv.bias is not None) is has_bias


@pytest.mark.parametrize("mid_norm", [True, False])
@pytest.mark.parametrize("mid_act", [True, False])
def test_the_two_switches_of_a_depthwise_separable_convolution(mid_norm, mid_act):
    block = jittered(DepthwiseSeparable(8, 12, kernel_size=5, stride=2, mid_norm=mid_norm, mid_act=mid_act))
    x = image()
    y = F.conv2d(x, block.depthwise.conv.weight, block.depthwise.conv.bias, 2, 2, 1, 8)
    y = norm(y, block.depthwise.norm) if mid_norm else y
    y = y.relu() if mid_act else y
    torch.testing.assert_close(block(x), norm(F.conv2d(y, block.pointwise.conv.weight), block.pointwise.norm).relu())
    assert (block.depthwise.conv.bias is not None) is (mid_act and not mid_norm)


def test_squeeze_excite_is_torchvisions():
    own, peer = SqueezeExcite(32).double(), torchvision.ops.SqueezeExcitation(32, 2).double()
    cs.transplant(peer.state_dict(), own)
    x = image(32)
    torch.testing.assert_close(own(x), peer(x))


@pytest.mark.parametrize(("in_channels", "stride", "has_skip"), [(8, 1, True), (8, 2, False), (6, 1, False)])
def test_an_inverted_residual_adds_where_shapes_agree(in_channels, stride, has_skip):
    block = jittered(InvertedResidual(in_channels, 8, stride=stride, expansion=2))
    x = image(in_channels)
    y = block.project(block.depthwise(block.expand(x)))
    torch.testing.assert_close(block(x), x + y if has_skip else y)
    assert block.expand.conv.out_channels == 2 * in_channels


def test_an_exact_width_goes_before_the_ratio():
    assert InvertedResidual(8, 8, hidden_channels=13).depthwise.conv.groups == 13
    assert Bottleneck(8, 64, hidden_channels=11).conv2.conv.in_channels == 11
    assert BasicBlock(8, 64, hidden_channels=11).conv2.conv.in_channels == 11


@pytest.mark.parametrize(("stride_in", "strides"), [("1x1", (2, 1)), ("3x3", (1, 2))])
def test_where_the_stride_of_a_bottleneck_stands(stride_in, strides):
    block = Bottleneck(16, 32, stride=2, stride_in=stride_in)
    assert (block.conv1.conv.stride[0], block.conv2.conv.stride[0]) == strides
    assert block.shortcut.conv.stride == (2, 2)


def test_the_squeeze_stands_before_the_addition():
    block = jittered(BasicBlock(8, 8, se_ratio=0.25))
    x = image()
    torch.testing.assert_close(block(x), F.relu(x + block.se(block.conv2(block.conv1(x)))))
    assert block.se.reduce.out_channels == 2


def test_the_classifier_is_mean_then_linear():
    head = Classifier(8, 5).double()
    x = image()
    torch.testing.assert_close(head(x), F.linear(x.mean((2, 3)), head.linear.weight, head.linear.bias))


def test_group_norm_needs_divisible_channels():
    with pytest.raises(ValueError, match=r"in_channels must be divisible by groups, got in_channels=12 and groups=8"):
        GroupNorm(12, groups=8)


def test_any_norm_stands_in_any_block():
    for make in (BasicBlock, Bottleneck, InvertedResidual, DepthwiseSeparable):
        block = make(8, 16, norm=cs.spec(GroupNorm, groups=2))
        kinds = {type(m) for m in block.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
        assert kinds == {GroupNorm}


def test_a_mixture_is_the_softmax_weighted_sum():
    mixed = Mixed(8, options=(cs.spec(ConvNormAct, 8), cs.spec(ConvNormAct, 8, kernel_size=1))).double().eval()
    mixed.alpha.data = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x = image()
    a, b = (option(x) for option in mixed.options)
    share = 1 / (1 + torch.tensor(-2.0, dtype=torch.float64).exp())
    torch.testing.assert_close(mixed(x), share * a + (1 - share) * b)


@pytest.mark.parametrize(
    "build",
    [
        lambda: cs.nn.Swish(16, beta="per_channel"),
        lambda: cs.nn.SubPixelConv(8, 8, init="ICNR"),
        lambda: cs.nn.Deconvolution(8, 8, init="Bilinear"),
        lambda: cs.nn.Upsample(8, mode="cubic"),
        lambda: cs.nn.AsymmetricConv2d(8, 8, first="1x3"),
    ],
)
def test_an_unknown_option_is_refused_with_those_that_there_are(build):
    with pytest.raises(ValueError, match=r"(beta|init|mode|first) must be one of '.*', got '"):
        build()
