"""Residual blocks (He et al. 2016, arXiv:1512.03385) and their aggregated form (Xie et al. 2017, arXiv:1611.05431)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.attention import build_squeeze_excite
from convsmith.nn.channels import check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


class _Residual(nn.Module):
    """What residual blocks share: squeeze-and-excitation at one of several positions."""

    se: nn.Module
    se_position: str

    def _gate(self, position: str, x: Tensor) -> Tensor:
        """The map gated by squeeze-and-excitation if this is the position for it."""
        return self.se(x) if position == self.se_position else x


@block("basic_block")
class BasicBlock(_Residual):
    """act(shortcut(x) + conv3x3(conv3x3(x))): Fig. 5 left. The shortcut is a 1 x 1 convolution where shapes change.

    `se_ratio` adds squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507, Sec. 6.5 of its journal version) with that
    share of the channels of the map it gates: "standard", the branch before the sum; "pre", what the branch reads;
    "post", the sum behind its activation; "identity", the shortcut, behind its projection where there is one, which is
    our reading. `se_norm` puts a norm behind its fully connected layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        se_ratio: float = 0.0,
        se_position: Literal["standard", "pre", "post", "identity"] = "standard",
        se_norm: BlockSpec | None = None,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels)
        self.conv1 = ConvNormAct(
            in_channels, hidden, kernel_size=kernel_size, stride=stride, dilation=dilation, norm=norm, act=act
        )
        self.conv2 = ConvNormAct(
            hidden, out_channels, kernel_size=kernel_size, dilation=dilation, norm=norm, act="identity"
        )
        widths = {"standard": out_channels, "pre": in_channels, "post": out_channels, "identity": out_channels}
        self.se = _squeeze_excite(widths, se_position, se_ratio, se_norm)
        self.se_position = se_position
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self._gate("standard", self.conv2(self.conv1(self._gate("pre", x))))
        y = y.add_(self._gate("identity", self.shortcut(x)))  # in place, on a map of its own: one map less to allocate
        return self._gate("post", self.act(y))


@block("bottleneck")
class Bottleneck(_Residual):
    """act(shortcut(x) + conv1x1(conv3x3(conv1x1(x)))): Fig. 5 right; with `groups`, Fig. 3c of ResNeXt.

    The 1 x 1 convolutions have `bottleneck_ratio * out_channels` inner channels, or exactly `hidden_channels`. The
    stride stands in the first 1 x 1 convolution in the paper ("v1"), in the 3 x 3 one in most code ("v1.5").
    Squeeze-and-excitation is that of `BasicBlock`, with one more position: "3x3", the middle convolution's map, gated
    behind its activation (our reading).
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
        se_position: Literal["standard", "pre", "post", "identity", "3x3"] = "standard",
        se_norm: BlockSpec | None = None,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
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
        widths = {"standard": out_channels, "pre": in_channels, "post": out_channels, "identity": out_channels}
        self.se = _squeeze_excite({**widths, "3x3": hidden}, se_position, se_ratio, se_norm)
        self.se_position = se_position
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self._gate("3x3", self.conv2(self.conv1(self._gate("pre", x))))
        y = self._gate("standard", self.conv3(y))
        y = y.add_(self._gate("identity", self.shortcut(x)))  # in place, on a map of its own: one map less to allocate
        return self._gate("post", self.act(y))


def build_shortcut(in_channels: int, out_channels: int, stride: int, norm: BlockSpec | None) -> nn.Module:
    """The identity, or option B of Sec. 3.3: a 1 x 1 projection where the size or the channels change."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormAct(in_channels, out_channels, kernel_size=1, stride=stride, norm=norm, act="identity")


def _squeeze_excite(widths: dict[str, int], position: str, se_ratio: float, norm: BlockSpec | None) -> nn.Module:
    """Squeeze-and-excitation for the channels at that position."""
    return build_squeeze_excite(widths[position], se_ratio, widths[position], norm=norm)
