"""A dense k x k convolution as a chain of cheaper ones: each block here stands where one convolution could.

1 x 1 + k x k            ReducedConv2d       (GoogLeNet)
1 x 1 + k x k + 1 x 1    BottleneckConv2d    (ResNet; with its shortcut: Bottleneck in residual.py)
1 x 1 + grouped + 1 x 1  the same, with `groups` (ResNeXt)
1 x k + k x 1            AsymmetricConv2d    (Inception v3, v4; both orders summed: GlobalConv2d in global_conv.py)
grouped k x k + 1 x 1    RootModule in root.py (Deep Roots)
depthwise k x k + 1 x 1  DepthwiseSeparable in conv.py (Xception, MobileNet)
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible, check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("reduced_conv2d")
class ReducedConv2d(nn.Sequential):
    """1 x 1 convolution to fewer channels, then k x k: a branch of GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842).

    (N, C, H, W) -> (N, C', H / stride, W / stride). Fig. 2b there; norm and activation follow both. Between them are
    `bottleneck_ratio * out_channels` channels, or exactly `hidden_channels`. GoogLeNet's ratios lie between 0.25 and
    0.75 (Table 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.5,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        self.reduce = ConvNormAct(in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.conv = ConvNormAct(
            hidden, out_channels, kernel_size=kernel_size, stride=stride, dilation=dilation, norm=norm, act=act
        )
        self.out_channels = out_channels


@block("bottleneck_conv2d")
class BottleneckConv2d(nn.Sequential):
    """1 x 1 convolution to fewer channels, k x k, 1 x 1 back: ResNet's bottleneck (He et al. 2016, arXiv:1512.03385).

    (N, C, H, W) -> (N, C', H / stride, W / stride). Fig. 5 right there, and with `groups` Fig. 3c of ResNeXt (Xie et
    al. 2017, arXiv:1611.05431). Unlike `Bottleneck` it has no shortcut, so norm and activation follow all three. The
    inner ones have `bottleneck_ratio * out_channels` channels, or exactly `hidden_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        check_divisible(hidden_channels=hidden, groups=groups)
        self.reduce = ConvNormAct(in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.conv = ConvNormAct(
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            groups=groups,
            dilation=dilation,
            norm=norm,
            act=act,
        )
        self.expand = ConvNormAct(hidden, out_channels, kernel_size=1, norm=norm, act=act)
        self.out_channels = out_channels


@block("asymmetric_conv2d")
class AsymmetricConv2d(nn.Sequential):
    """1 x k, then k x 1 convolution (Szegedy et al. 2016, arXiv:1512.00567, Sec. 3.2), or with `first` the other order.

    (N, C, H, W) -> (N, C', H / stride, W / stride). Norm and activation follow both, and `hidden_channels`, or
    `out_channels` of them, are between. The stride stands in the second: the first would skip rows that it reads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        first: Literal["1xk", "kx1"] = "1xk",
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels)
        row, column = (1, kernel_size), (kernel_size, 1)
        kernels = (row, column) if first == "1xk" else (column, row)
        self.conv1 = ConvNormAct(in_channels, hidden, kernel_size=kernels[0], dilation=dilation, norm=norm, act=act)
        self.conv2 = ConvNormAct(
            hidden, out_channels, kernel_size=kernels[1], stride=stride, dilation=dilation, norm=norm, act=act
        )
        self.out_channels = out_channels
