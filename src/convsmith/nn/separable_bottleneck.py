"""Bottlenecks of three depthwise convolutions, whose receptive field is 7: what "Xception-like" may stand for.

Light-Head R-CNN (Li et al. 2017, arXiv:1711.07264) uses a small Xception-like network without saying what its block is;
ShuffleNet v2 (Ma et al. 2018, arXiv:1807.11164, Sec. 4) says that the receptive field of such a block is 7. That one
of the blocks here is meant is an interpretation.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.cell_parts import shared_act
from convsmith.nn.channels import check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.pool import AvgPool


@block("depthwise_bottleneck")
class DepthwiseBottleneck(nn.Module):
    """act(x + D(P(D(P(D(x)))))): depthwise k x k convolutions D around and between 1 x 1 ones P, to a quarter and back.

    An interpretation, see the file. Norm and activation stand behind the 1 x 1 convolutions, a norm behind the last
    depthwise one. Where the block strides, in its first convolution, or changes its channels, its result is followed by
    the input, average-pooled 3 x 3, as in ShuffleNet v1. The inner width is `bottleneck_ratio * out_channels`, or
    exactly `hidden_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        self.adds = stride == 1 and in_channels == out_channels
        own = out_channels if self.adds else out_channels - in_channels
        if own < 1:
            raise ValueError(
                "out_channels must exceed in_channels where a depthwise bottleneck strides or changes its channels, "
                f"got {in_channels=} and {out_channels=}"
            )
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        separable = _separable(kernel_size, dilation, norm)
        self.reduce = separable(in_channels, hidden, stride=stride, act=act)
        self.expand = separable(hidden, own, act=act)
        self.depthwise = ConvNormAct(
            own, own, kernel_size=kernel_size, groups=own, dilation=dilation, norm=norm, act="identity"
        )
        self.pool = nn.Identity() if self.adds else AvgPool(in_channels, stride=stride, count_include_pad=True)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        y = self.depthwise(self.expand(self.reduce(x)))
        return self.act(y.add_(x) if self.adds else torch.cat((y, self.pool(x)), 1))


@block("separable_bottleneck")
class SeparableBottleneck(nn.Module):
    """act(shortcut(x) + S(S(S(x)))): separable convolutions S to a quarter, a quarter and all of the channels.

    The block of Xception39 in TorchSeg, from the laboratory of Light-Head R-CNN. Nothing stands between depthwise and
    pointwise convolution; norm and activation are behind the latter, the last activation behind the sum. The first one
    strides; where shapes change, the shortcut is a separable convolution too. The inner width is
    `bottleneck_ratio * out_channels`, or exactly `hidden_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        separable = _separable(kernel_size, dilation, norm)
        self.body = nn.Sequential(
            separable(in_channels, hidden, stride=stride, act=act),
            separable(hidden, hidden, act=act),
            separable(hidden, out_channels, act="identity"),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = separable(in_channels, out_channels, stride=stride, act="identity")
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        y: Tensor = self.body(x)
        return self.act(y.add_(self.shortcut(x)))


@block("waterfall_block")
class WaterfallBlock(nn.Module):
    """act(shortcut(x) + [a, b, c]) with a = S(x), b = S(act(a)), c = S(act(b)): separable convolutions S in steps.

    An interpretation, of a name alone (see `convsmith.zoo.waterfall_xception`): what each step of a
    `SeparableBottleneck` computes flows into the next one and also into the output, which so has receptive fields of 3,
    5 and 7. The first two steps have `bottleneck_ratio * out_channels` channels each, or exactly `hidden_channels`, the
    last one the rest. Norms, stride and shortcut are those of `SeparableBottleneck`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        if out_channels <= 2 * hidden:
            raise ValueError(
                "the first two steps of a waterfall must leave channels to the third one, got "
                f"{out_channels=} and two steps of {hidden}; take a smaller bottleneck_ratio or hidden_channels"
            )
        separable = _separable(kernel_size, dilation, norm)
        self.first = separable(in_channels, hidden, stride=stride, act="identity")
        # The activations are not in place: the map in front of them is part of the output too.
        self.second = nn.Sequential(shared_act(act, hidden), separable(hidden, hidden, act="identity"))
        last = separable(hidden, out_channels - 2 * hidden, act="identity")
        self.third = nn.Sequential(shared_act(act, hidden), last)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = separable(in_channels, out_channels, stride=stride, act="identity")
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        a = self.first(x)
        b = self.second(a)
        return self.act(torch.cat((a, b, self.third(b)), 1).add_(self.shortcut(x)))


def _separable(kernel_size: int, dilation: int, norm: BlockSpec | None) -> partial[DepthwiseSeparable]:
    """Separable convolutions of these settings, with nothing between depthwise and pointwise."""
    return partial(
        DepthwiseSeparable, kernel_size=kernel_size, dilation=dilation, mid_norm=False, mid_act=False, norm=norm
    )
