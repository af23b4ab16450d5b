"""What stands between depthwise and pointwise convolution, design by design, beside the switches that give it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import DepthwiseSeparable, InvertedResidual, ReLU, Sequence

CHANNELS, OUT = 8, 12


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def separable(**switches):
    return cs.spec(DepthwiseSeparable, OUT, **switches)


# The steps: d and p are the two convolutions, n a norm, r ReLU, 6 ReLU6.
DESIGNS = {
    "MobileNet v1": (separable(), "dnrpnr"),
    "DeepLab v3+ aligned Xception": (separable(kernel_size=3, dilation=2), "dnrpnr"),
    "Xception": (
        cs.spec(Sequence, blocks=(cs.spec(ReLU), separable(mid_norm=False, mid_act=False, act="identity"))),
        "rdpn",
    ),
    "Xception39": (separable(mid_norm=False, mid_act=False), "dpnr"),
    "Xception39, last of a block": (separable(mid_norm=False, mid_act=False, act="identity"), "dpn"),
    "ShuffleNet v1": (separable(mid_act=False, act="identity"), "dnpn"),
    "ShuffleNet v2": (separable(mid_act=False), "dnpnr"),
    "clcNet": (separable(mid_act=False), "dnpnr"),
    "IGCV1": (separable(mid_norm=False, mid_act=False), "dpnr"),
    # An activation between and none behind is no pair of switches: it is the inverted residual that does not expand.
    "MobileNet v2": (cs.spec(InvertedResidual, OUT, expansion=1.0), "dn6pn"),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_designs(design):
    block, steps = DESIGNS[design]
    module = jittered(block.build(CHANNELS))
    convolutions = iter([m for m in module.modules() if isinstance(m, nn.Conv2d)])
    norms = iter([m for m in module.modules() if isinstance(m, nn.BatchNorm2d)])
    x = torch.randn(2, CHANNELS, 7, 7, dtype=torch.float64)
    y = x
    for step in steps:
        if step in "dp":
            conv = next(convolutions)
            assert conv.bias is None, "a norm follows directly, or behind a linear step"
            assert conv.groups == (CHANNELS if step == "d" else 1)
            padding = conv.dilation if step == "d" else 0
            y = F.conv2d(y, conv.weight, None, 1, padding, conv.dilation, conv.groups)
        elif step == "n":
            norm = next(norms)
            y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        else:
            y = y.clamp(0, 6 if step == "6" else None)
    torch.testing.assert_close(module(x), y)
    assert [next(convolutions, None), next(norms, None)] == [None, None]
