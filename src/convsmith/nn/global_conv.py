"""Large kernels as the sum of two paths, one of rows then columns, one of columns then rows, and what goes with them.

Large Kernel Matters (Peng et al. 2017, arXiv:1703.02719) and Light-Head R-CNN (Li et al. 2017, arXiv:1711.07264).
"""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct


@block("global_conv2d")
class GlobalConv2d(nn.Module):
    """The global convolution of GCN: k x 1 then 1 x k, plus 1 x k then k x 1 (Peng et al. 2017, Sec. 3.1, Fig. 2B).

    No norm and no activation, so the sum equals one k x k convolution of low rank, with 2 k C' (C + C') weights in
    place of k^2 C C'; but for the border where the inner convolutions have biases other than zero, since the second
    ones pad their maps with zeros. Both inner maps have `hidden_channels` channels, or `out_channels` as in the paper.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 15, hidden_channels: int | None = None
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels)
        column, row = (kernel_size, 1), (1, kernel_size)
        self.left = _linear_path(in_channels, hidden, out_channels, column, row)
        self.right = _linear_path(in_channels, hidden, out_channels, row, column)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        return self.left(x).add_(self.right(x))  # in place, on a map of its own: one map less to allocate


@block("large_separable_conv2d")
class LargeSeparableConv2d(nn.Module):
    """Activation of a global convolution whose paths have `mid_channels` inside (Li et al. 2017, Sec. 3.2, Fig. 3).

    `mid_channels` is the paper's C_mid: 256 in its setting L, 64 in S, with 10 * 7 * 7 channels behind both. One
    activation, behind the sum, is what the authors' code has.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 15,
        mid_channels: int = 256,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        self.conv = GlobalConv2d(in_channels, out_channels, kernel_size=kernel_size, hidden_channels=mid_channels)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        return self.act(self.conv(x))


@block("boundary_refinement")
class BoundaryRefinement(nn.Module):
    """x + conv3x3(ReLU(conv3x3(x))), with biases and without norm (Peng et al. 2017, Sec. 3.2, Fig. 2C)."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, in_channels, norm=None)
        self.conv2 = ConvNormAct(in_channels, in_channels, norm=None, act="identity")
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.conv2(self.conv1(x)).add_(x)  # in place, on a map of its own: one map less to allocate


def _linear_path(
    in_channels: int, hidden: int, out_channels: int, first: tuple[int, int], second: tuple[int, int]
) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, hidden, kernel_size=first, norm=None, act="identity"),
        ConvNormAct(hidden, out_channels, kernel_size=second, norm=None, act="identity"),
    )
