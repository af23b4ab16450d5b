import pytest
import torch
from torch import nn

from convsmith.nn import ConvNormAct, SENetBottleneck


def test_the_first_convolution_has_half_of_the_grouped_ones_channels():
    block = SENetBottleneck(16, 32, groups=4, bottleneck_ratio=0.5)
    shapes = [tuple(conv.conv.weight.shape) for conv in (block.conv1, block.conv2, block.conv3)]
    assert shapes == [(8, 16, 1, 1), (16, 2, 3, 3), (32, 16, 1, 1)]
    assert block.se.reduce.weight.shape == (2, 32, 1, 1)


def test_exact_widths_take_the_place_of_the_ratio():
    block = SENetBottleneck(16, 32, hidden_channels=(5, 12))
    assert (block.conv1.out_channels, block.conv2.out_channels) == (5, 12)


@pytest.mark.parametrize(("in_channels", "stride", "projects"), [(16, 1, False), (16, 2, True), (8, 1, True)])
def test_the_shortcut_projects_by_three_by_three_where_shapes_change(in_channels, stride, projects):
    shortcut = SENetBottleneck(in_channels, 16, stride=stride).shortcut
    assert isinstance(shortcut, ConvNormAct if projects else nn.Identity)
    if projects:
        assert (shortcut.conv.kernel_size, shortcut.conv.stride) == ((3, 3), (stride, stride))


def test_the_gate_acts_on_the_branch_alone():
    block = SENetBottleneck(16, 16).double().eval()
    x = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        branch = block(x + 100) - 100 - x  # above zero, where the last activation does nothing
        block.se.expand.bias.fill_(-1e3)  # the gate closes
        torch.testing.assert_close(block(x), x.relu())
    assert branch.abs().max() > 1e-3


def test_groups_that_do_not_divide_the_width_are_told():
    with pytest.raises(ValueError, match="groups"):
        SENetBottleneck(16, 32, groups=3)
