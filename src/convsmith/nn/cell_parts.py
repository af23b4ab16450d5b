"""What the operations of cells are made of, with the conventions of NASNet (Zoph et al. 2018, arXiv:1707.07012).

Each is activation, convolution, norm; several of them read one map, so their first activation is not in place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block, registered
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_positive, pair
from convsmith.nn.norm import BATCH_NORM, build_norm
from convsmith.nn.same_padding import Padding, pad_for_conv


@block("act_conv_norm")
class ActConvNorm(nn.Module):
    """Activation, then convolution, 1 x 1 unless said otherwise, then norm; sizes may be `(height, width)`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(out_channels=out_channels, kernel_size=kernel_size, stride=stride, dilation=dilation)
        window = pair(kernel_size)
        steps = (stride, stride) if isinstance(stride, int) else stride
        self.act = shared_act(act, in_channels)
        self.pad, inner = pad_for_conv(window, steps, dilation, padding)
        self.conv = nn.Conv2d(in_channels, out_channels, window, steps, inner, dilation, bias=norm is None)
        self.norm = build_norm(norm, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        return self.norm(self.conv(self.pad(self.act(x))))


@block("factorized_reduction")
class FactorizedReduction(nn.Module):
    """One activation, then two strided 1 x 1 convolutions to half the channels each, then norm.

    The second convolution reads one pixel below and right of the first one, zeros behind the border: with stride 2 the
    two miss no row and no column (Zoph et al. 2018, in their code). On maps of even size that is the reduction of DARTS
    too, which takes no others.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 2,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(out_channels=out_channels, stride=stride)
        self.act = shared_act(act, in_channels)
        self.straight = nn.Conv2d(in_channels, out_channels // 2, 1, stride, bias=norm is None)
        self.shifted = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride, bias=norm is None)
        self.norm = build_norm(norm, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        x = self.act(x)
        return self.norm(torch.cat([self.straight(x), self.shifted(F.pad(x, (-1, 1, -1, 1)))], 1))


@block("act_separable")
class ActSeparable(nn.Module):
    """Activation, depthwise k x k and pointwise 1 x 1 convolution with nothing between the two, norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_positive(out_channels=out_channels, kernel_size=kernel_size, stride=stride, dilation=dilation)
        self.act = shared_act(act, in_channels)
        self.pad, inner = pad_for_conv((kernel_size, kernel_size), (stride, stride), dilation, padding)
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, stride, inner, dilation, groups=in_channels, bias=norm is None
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=norm is None)
        self.norm = build_norm(norm, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        return self.norm(self.pointwise(self.depthwise(self.pad(self.act(x)))))


@block("stacked_separable")
class StackedSeparable(nn.Module):
    """Twice: activation, depthwise k x k and pointwise 1 x 1 convolution, norm; the stride in the first one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()

        def separable(in_channels: int, stride: int) -> ActSeparable:
            return ActSeparable(
                in_channels,
                out_channels,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                padding=padding,
                norm=norm,
                act=act,
            )

        self.first, self.second = separable(in_channels, stride), separable(out_channels, 1)
        self.second.act = build_act(act, out_channels)  # in place: nobody else reads the map between the two
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        return self.second(self.first(x))


def shared_act(act: str | BlockSpec, channels: int) -> nn.Module:
    """The activation of a name or spec for a map that others read too: out of place, unlike by `build_act`."""
    module: nn.Module = act.build(channels) if isinstance(act, BlockSpec) else registered(act).constructor(channels)
    return module
