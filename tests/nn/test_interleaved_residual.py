import pytest
import torch
from torch.nn import functional as F

from convsmith.nn import InterleavedResidual, has_full_channel_receptive_field


def jittered(module):
    """The module in float64 and eval mode, its norms with statistics and affine parts of their own."""
    module = module.double()
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def in_groups(x, weight, groups, stride):
    inside, outside = x.shape[1] // groups, weight.shape[0] // groups
    return torch.cat(
        [
            F.conv2d(
                x[:, inside * g : inside * (g + 1)],
                weight[outside * g : outside * (g + 1)],
                stride=stride,
                padding=weight.shape[-1] // 2,
            )
            for g in range(groups)
        ],
        1,
    )


def interleaved(block, x, groups, stride):
    """norm(P^-1 W_s P W_p x); the block holds its norm in the order of the secondary groups."""
    y = in_groups(x, block.primary.conv.weight, groups, stride)
    of_each = y.shape[1] // groups
    order = [g * of_each + m for m in range(of_each) for g in range(groups)]
    y = block.secondary.norm(in_groups(y[:, order], block.secondary.conv.weight, of_each, 1))
    back = torch.empty_like(y)
    back[:, order] = y
    return back


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride"), [(12, 12, 1), (12, 24, 2), (12, 18, 1), (12, 12, 2)]
)
def test_two_interleaved_convolutions_are_added_to_the_shortcut(in_channels, out_channels, stride):
    groups = 3
    block = jittered(InterleavedResidual(in_channels, out_channels, primary_groups=groups, stride=stride))
    x = torch.randn(2, in_channels, 7, 7, dtype=torch.float64)
    shortcut = x
    if stride == 2 or in_channels != out_channels:
        shortcut = block.shortcut.norm(in_groups(x, block.shortcut.conv.weight, groups, stride))
    y = interleaved(block.conv1, x, groups, stride).clamp(min=0)
    expected = (interleaved(block.conv2, y, groups, 1) + shortcut).clamp(min=0)
    torch.testing.assert_close(block(x), expected)
    assert has_full_channel_receptive_field(block, in_channels=in_channels)


def test_groups_must_divide_the_channels():
    with pytest.raises(ValueError, match="out_channels must be divisible by primary_groups"):
        InterleavedResidual(12, 14, primary_groups=4)
