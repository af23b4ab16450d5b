"""Residual blocks (He et al. 2016, arXiv:1512.03385) and their aggregated form (Xie et al. 2017, arXiv:1611.05431)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.attention import build_squeeze_excite
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("basic_block")
class BasicBlock(nn.Module):
    """act(shortcut(x) + conv3x3(conv3x3(x))): Fig. 5 left. The shortcut is a 1 x 1 convolution where shapes change."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        se_ratio: float = 0.0,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        hidden = hidden_channels or out_channels
        self.conv1 = ConvNormAct(
            in_channels, hidden, kernel_size=kernel_size, stride=stride, dilation=dilation, norm=norm, act=act
        )
        self.conv2 = ConvNormAct(
            hidden, out_channels, kernel_size=kernel_size, dilation=dilation, norm=norm, act="identity"
        )
        self.se = build_squeeze_excite(out_channels, se_ratio, out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.se(self.conv2(self.conv1(x)))
        return self.act(y.add_(self.shortcut(x)))  # in place, on a map of its own: one map less to allocate


@block("bottleneck")
class Bottleneck(nn.Module):
    """act(shortcut(x) + conv1x1(conv3x3(conv1x1(x)))): Fig. 5 right; with `groups`, Fig. 3c of ResNeXt.

    The 1 x 1 convolutions have `bottleneck_ratio * out_channels` inner channels, or exactly `hidden_channels`. The
    stride stands in the first 1 x 1 convolution in the paper ("v1"), in the 3 x 3 one in most code ("v1.5").
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        stride_in: Literal["1x1", "3x3"] = "3x3",
        groups: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        se_ratio: float = 0.0,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        hidden = hidden_channels or round(out_channels * bottleneck_ratio)
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = ConvNormAct(in_channels, hidden, kernel_size=1, stride=first, norm=norm, act=act)
        self.conv2 = ConvNormAct(
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=second,
            groups=groups,
            dilation=dilation,
            norm=norm,
            act=act,
        )
        self.conv3 = ConvNormAct(hidden, out_channels, kernel_size=1, norm=norm, act="identity")
        self.se = build_squeeze_excite(out_channels, se_ratio, out_channels)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.se(self.conv3(self.conv2(self.conv1(x))))
        return self.act(y.add_(self.shortcut(x)))  # in place, on a map of its own: one map less to allocate


def build_shortcut(in_channels: int, out_channels: int, stride: int, norm: BlockSpec | None) -> nn.Module:
    """The identity, or option B of Sec. 3.3: a 1 x 1 projection where the size or the channels change."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormAct(in_channels, out_channels, kernel_size=1, stride=stride, norm=norm, act="identity")
