import pytest
import torch
from torch.nn import functional as F

import convsmith as cs
from convsmith.nn import BoundaryRefinement, GlobalConv2d, LargeSeparableConv2d


def maps(channels, side=11):
    return torch.randn(2, channels, side, side, dtype=torch.float64)


def kernels(block):
    """The weights of the two paths, each in the order of execution."""
    return [[conv.conv.weight.detach() for conv in path] for path in (block.left, block.right)]


def dense_kernel(block):
    """Entry by entry: what one k x k convolution would have to multiply with."""
    (column1, row1), (row2, column2) = kernels(block)
    out_channels, hidden, _, size = row1.shape
    dense = torch.zeros(out_channels, column1.shape[1], size, size, dtype=torch.float64)
    for y in range(size):
        for x in range(size):
            for m in range(hidden):
                dense[:, :, y, x] += torch.outer(row1[:, m, 0, x], column1[m, :, y, 0])
                dense[:, :, y, x] += torch.outer(column2[:, m, y, 0], row2[m, :, 0, x])
    return dense


@pytest.mark.parametrize("hidden_channels", [None, 1, 5])
def test_the_two_paths_are_one_convolution_of_low_rank(hidden_channels):
    block = GlobalConv2d(3, 4, kernel_size=7, hidden_channels=hidden_channels).double()
    for path in (block.left, block.right):
        torch.nn.init.zeros_(path[0].conv.bias)
    x = maps(3)
    bias = block.left[1].conv.bias + block.right[1].conv.bias
    torch.testing.assert_close(block(x), F.conv2d(x, dense_kernel(block), bias, padding=3))
    rank = torch.linalg.matrix_rank(dense_kernel(block)).unique()
    assert rank.tolist() == [min(7, 2 * (hidden_channels or 4))]


def test_an_inner_bias_is_not_padded():
    # The map between the convolutions is padded with zeros, not with the bias: near the border fewer terms count.
    block = GlobalConv2d(2, 3, kernel_size=3).double()
    y = block(torch.zeros(1, 2, 5, 5, dtype=torch.float64))[0]
    (_, row1), (_, column2) = kernels(block)
    for at_y, at_x in ((0, 0), (2, 0), (0, 4), (2, 2)):
        inside_x = [x for x in range(3) if 0 <= at_x + x - 1 < 5]
        inside_y = [y for y in range(3) if 0 <= at_y + y - 1 < 5]
        expected = block.left[1].conv.bias + block.right[1].conv.bias
        for x in inside_x:
            expected = expected + row1[:, :, 0, x] @ block.left[0].conv.bias
        for dy in inside_y:
            expected = expected + column2[:, :, dy, 0] @ block.right[0].conv.bias
        torch.testing.assert_close(y[:, at_y, at_x], expected)


def test_which_path_runs_which_way():
    block = GlobalConv2d(8, 4, kernel_size=15)
    assert [tuple(weight.shape) for path in kernels(block) for weight in path] == [
        (4, 8, 15, 1),
        (4, 4, 1, 15),
        (4, 8, 1, 15),
        (4, 4, 15, 1),
    ]
    assert not [m for m in block.modules() if isinstance(m, torch.nn.BatchNorm2d | torch.nn.ReLU | cs.nn.ReLU)]


def test_a_large_kernel_costs_2k_in_place_of_k_squared():
    # On the last map of ResNet for the 21 classes of VOC: 2 k C (C_in + C), and one bias a filter.
    cost = cs.measure.cost(GlobalConv2d(2048, 21), (1, 2048, 16, 16))
    assert cost.params == 2 * 15 * 21 * (2048 + 21) + 4 * 21
    assert cost.macs == 16 * 16 * 2 * 15 * 21 * (2048 + 21)


@pytest.mark.parametrize(("setting", "mid_channels"), [("L", 256), ("S", 64)])
def test_the_two_settings_of_light_head(setting, mid_channels):
    with torch.device("meta"):
        block = LargeSeparableConv2d(2048, 10 * 7 * 7, mid_channels=mid_channels)
    assert block.out_channels == 490
    weights = 2 * 15 * mid_channels * (2048 + 490)
    assert sum(p.numel() for p in block.parameters()) == weights + 2 * (mid_channels + 490)
    assert LargeSeparableConv2d(8, 9).conv.left[0].conv.out_channels == 256


def test_one_activation_behind_the_sum():
    block = LargeSeparableConv2d(4, 6, kernel_size=5, mid_channels=3).double()
    x = maps(4)

    def path(convs):
        y = x
        for conv in convs:
            height, width = conv.conv.weight.shape[2:]
            y = F.conv2d(y, conv.conv.weight, conv.conv.bias, padding=(height // 2, width // 2))
        return y

    left, right = path(block.conv.left), path(block.conv.right)
    torch.testing.assert_close(block(x), (left + right).clamp(min=0))
    assert min(left.min(), right.min()) < 0, "a ReLU inside of a path would go unnoticed"


def test_boundary_refinement_adds_two_convolutions():
    block = BoundaryRefinement(5).double()
    x = maps(5)
    a, b = block.conv1.conv, block.conv2.conv
    y = F.conv2d(F.conv2d(x, a.weight, a.bias, padding=1).clamp(min=0), b.weight, b.bias, padding=1)
    torch.testing.assert_close(block(x), x + y)
    assert sum(p.numel() for p in block.parameters()) == 2 * (5 * 5 * 9 + 5)


def test_boundary_refinement_with_zeros_changes_nothing():
    block = BoundaryRefinement(5).double()
    for tensor in block.conv2.parameters():
        torch.nn.init.zeros_(tensor)
    x = maps(5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("make", [GlobalConv2d, LargeSeparableConv2d])
@pytest.mark.parametrize("kernel_size", [14, 0, -3])
def test_kernels_without_a_middle_are_refused(make, kernel_size):
    with pytest.raises(ValueError, match=rf"kernel_size must be odd here, got kernel_size={kernel_size}; take \d+"):
        make(8, 4, kernel_size=kernel_size)
