"""Operations of cells by name, with the conventions of NASNet (Zoph et al. 2018, arXiv:1707.07012).

Each is activation, convolution, norm; a separable convolution is applied twice, its stride in the first one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block, registered
from convsmith.nn.act import Identity
from convsmith.nn.norm import BATCH_NORM, build_norm
from convsmith.nn.pool import AvgPool, MaxPool
from convsmith.nn.same_padding import SamePad, SamePool

OPERATIONS = ("identity", "avg_3x3", "max_3x3", "sep_3x3", "sep_5x5", "sep_7x7")

# How strided operations reach a size of H / stride, rounded up. "symmetric": kernel_size // 2 on each side. "same": as
# TensorFlow, only as much as is needed, an odd row or column at the end; a mean leaves the padding out. "same_counted":
# likewise, but a mean counts its zeros, as timm does.
Padding = Literal["symmetric", "same", "same_counted"]


def build_operation(
    name: str,
    in_channels: int,
    filters: int,
    *,
    stride: int,
    padding: Padding,
    norm: BlockSpec | None,
    act: str | BlockSpec,
) -> nn.Module:
    """The module of an operation from `in_channels` to `filters` channels.

    Where the channels change, a 1 x 1 convolution follows pooling; it replaces the identity there and where it strides.
    """
    if name not in OPERATIONS:
        raise ValueError(f"an operation of a cell must be one of {', '.join(OPERATIONS)}, got {name!r}")
    kind, _, size = name.partition("_")
    if kind == "sep":
        return StackedSeparable(
            in_channels, filters, kernel_size=int(size[0]), stride=stride, padding=padding, norm=norm, act=act
        )
    if kind == "identity":
        changes = stride > 1 or in_channels != filters
        return ActConvNorm(in_channels, filters, stride=stride, norm=norm, act=act) if changes else Identity(filters)
    pool = _build_pool(kind, in_channels, int(size[0]), stride, padding)
    if in_channels == filters:
        return pool
    return nn.Sequential(pool, ActConvNorm(in_channels, filters, norm=norm, act="identity"))


@block("act_conv_norm")
class ActConvNorm(nn.Module):
    """Activation, then 1 x 1 convolution, then norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        self.act = _build_act(act, in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=norm is None)
        self.norm = build_norm(norm, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        return self.norm(self.conv(self.act(x)))


@block("factorized_reduction")
class FactorizedReduction(nn.Module):
    """One activation, then two strided 1 x 1 convolutions to half the channels each, then norm.

    The second convolution reads one pixel below and right of the first one, zeros behind the border: with stride 2 the
    two miss no row and no column (Zoph et al. 2018, in their code).
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
        self.act = _build_act(act, in_channels)
        self.straight = nn.Conv2d(in_channels, out_channels // 2, 1, stride, bias=norm is None)
        self.shifted = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride, bias=norm is None)
        self.norm = build_norm(norm, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        x = self.act(x)
        return self.norm(torch.cat([self.straight(x), self.shifted(F.pad(x, (-1, 1, -1, 1)))], 1))


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
        padding: Padding = "symmetric",
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        self.first = _Separable(in_channels, out_channels, kernel_size, stride, padding, norm, act)
        self.second = _Separable(out_channels, out_channels, kernel_size, 1, padding, norm, act)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        return self.second(self.first(x))


class _Separable(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: Padding,
        norm: BlockSpec | None,
        act: str | BlockSpec,
    ):
        super().__init__()
        padded = stride > 1 and padding != "symmetric"
        inner, bias = 0 if padded else kernel_size // 2, norm is None
        self.act = _build_act(act, in_channels)
        self.pad = SamePad(kernel_size, stride) if padded else nn.Identity()
        self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, stride, inner, groups=in_channels, bias=bias)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.norm = build_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(self.pad(self.act(x)))))


def _build_pool(kind: str, channels: int, kernel_size: int, stride: int, padding: Padding) -> nn.Module:
    if stride > 1 and padding == "same_counted" and kind == "avg":
        return nn.Sequential(SamePad(kernel_size, stride), nn.AvgPool2d(kernel_size, stride))
    if stride > 1 and padding != "symmetric":
        return SamePool(kind, kernel_size, stride)
    return (MaxPool if kind == "max" else AvgPool)(channels, kernel_size=kernel_size, stride=stride)


def _build_act(act: str | BlockSpec, channels: int) -> nn.Module:
    # Out of place, unlike one given by name elsewhere: several operations read one state of a cell.
    module: nn.Module = act.build(channels) if isinstance(act, BlockSpec) else registered(act).constructor(channels)
    return module
