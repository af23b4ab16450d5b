"""Squeeze-and-excitation, with and without a norm, and at its positions in residual blocks, by the formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import BasicBlock, BatchNorm, Bottleneck, GroupNorm, SqueezeExcite

POSITIONS = [(make, p) for make in (BasicBlock, Bottleneck) for p in ("standard", "pre", "post", "identity")]
POSITIONS.append((Bottleneck, "3x3"))


def maps(channels=8, side=6, batch=2):
    return torch.randn(batch, channels, side, side, dtype=torch.float64)


def jittered(block):
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return block.double().eval()


def normed(unit, x):
    conv, norm = unit.conv, unit.norm
    y = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    mean, var, gamma, beta = (t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (y - mean) / (var + norm.eps).sqrt() * gamma + beta


def gated(se, x):
    """x * sigmoid(W2 relu(W1 mean(x) + b1) + b2), with plain matrices."""
    mean = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    squeezed = (mean @ se.reduce.weight.flatten(1).T + se.reduce.bias).clamp(min=0)
    gate = 1 / (1 + (-(squeezed @ se.expand.weight.flatten(1).T + se.expand.bias)).exp())
    return x * gate[:, :, None, None]


def by_formula(block, position, x):
    """The residual block with its gate at one position (Fig. 5 of the paper)."""

    def at(place, y):
        return gated(block.se, y) if place == position else y

    y = normed(block.conv1, at("pre", x)).clamp(min=0)
    if isinstance(block, Bottleneck):
        y = at("3x3", normed(block.conv2, y).clamp(min=0))
        y = normed(block.conv3, y)
    else:
        y = normed(block.conv2, y)
    shortcut = x if isinstance(block.shortcut, nn.Identity) else normed(block.shortcut, x)
    return at("post", (at("standard", y) + at("identity", shortcut)).clamp(min=0))


@pytest.mark.parametrize(("make", "position"), POSITIONS)
@pytest.mark.parametrize(("out_channels", "stride"), [(8, 1), (12, 2)])
def test_the_gate_stands_at_its_position(make, position, out_channels, stride):
    block = jittered(make(8, out_channels, stride=stride, se_ratio=0.5, se_position=position, hidden_channels=6))
    x = maps()
    before = x.clone()
    torch.testing.assert_close(block(x), by_formula(block, position, x))
    assert torch.equal(x, before)
    others = [by_formula(block, "nowhere", x)]
    others += [gated(block.se, y) for y in others if block.se.out_channels == y.shape[1] and position != "post"]
    assert not any(torch.allclose(block(x), other) for other in others)
    width = {"pre": 8, "3x3": 6}.get(position, out_channels)
    assert (block.se.reduce.in_channels, block.se.reduce.out_channels) == (width, width // 2)


@pytest.mark.parametrize("make", [BasicBlock, Bottleneck])
def test_without_a_ratio_no_position_matters(make):
    plain, placed = make(8, 8), make(8, 8, se_position="post")
    assert list(plain.state_dict()) == list(placed.state_dict())
    placed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(plain(x), placed(x))


def test_a_norm_stands_behind_each_fully_connected_layer():
    se = jittered(SqueezeExcite(8, squeeze_channels=4, norm=cs.spec(BatchNorm)))
    x = maps()
    squeezed = normed(se.reduce, x.mean((2, 3), keepdim=True)).clamp(min=0)
    torch.testing.assert_close(se(x), x * normed(se.expand, squeezed).sigmoid())
    assert se.reduce.conv.bias is None
    assert se.expand.conv.bias is None


def test_a_norm_trains_on_the_means_of_the_batch():
    se = SqueezeExcite(8, squeeze_channels=4, norm=cs.spec(BatchNorm)).double().train()
    x = maps(batch=5)
    se(x)
    means = x.mean((2, 3)) @ se.reduce.conv.weight.flatten(1).T
    torch.testing.assert_close(se.reduce.norm.running_mean, 0.1 * means.mean(0))
    torch.testing.assert_close(se.reduce.norm.running_var, 0.9 + 0.1 * means.var(0))


@pytest.mark.parametrize("make", [BasicBlock, Bottleneck])
def test_residual_blocks_hand_the_norm_on(make):
    block = make(8, 8, se_ratio=0.5, se_norm=cs.spec(GroupNorm, groups=2))
    assert isinstance(block.se.reduce.norm, GroupNorm)
    assert isinstance(block.se.expand.norm, GroupNorm)
    assert make(8, 8, se_ratio=0.5).se.reduce.bias is not None


@pytest.mark.parametrize("squeezed", [0, -1])
def test_no_squeezed_channels_are_refused(squeezed):
    with pytest.raises(ValueError, match=f"squeeze_channels must be at least 1, got squeeze_channels={squeezed}; take"):
        SqueezeExcite(8, squeeze_channels=squeezed)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (BasicBlock, "'standard', 'pre', 'post', 'identity', got '3x3'"),
        (Bottleneck, "'standard', 'pre', 'post', 'identity', '3x3', got 'before'"),
    ],
)
def test_an_unknown_position_is_refused(make, known):
    with pytest.raises(ValueError, match=f"se_position must be one of {known}"):
        make(8, 8, se_ratio=0.5, se_position="3x3" if make is BasicBlock else "before")
