"""Units of ShuffleNet v2 for deep networks and for detection (Ma et al. 2018, arXiv:1807.11164)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.attention import build_squeeze_excite
from convsmith.nn.channels import check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.shuffle import ChannelShuffle, ShuffleUnitV2


@block("shuffle_unit_v2_deep")
class ShuffleUnitV2Deep(nn.Module):
    """The unit of ShuffleNet v2 with squeeze-and-excitation and a residual path (Appendix, Fig. 2c; without gate 2a).

    The branch of 1 x 1, depthwise k x k and 1 x 1 convolution has no activation at its end: its map is gated, the half
    of the input that it reads is added, then activated; concat and shuffle follow. There are
    `se_ratio * out_channels` squeezed channels, half of the channels in the paper.

    Where the unit strides or changes its channels, which the figure does not show, each branch gives half of
    `out_channels` and nothing is added to the gated map: our reading. The inner width is `out_channels / 2`, or exactly
    `hidden_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        se_ratio: float = 0.5,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if out_channels % 2:
            raise ValueError(f"a ShuffleNet v2 unit has two halves: out_channels must be even, got {out_channels=}")

        def separable(in_channels: int, act: str | BlockSpec) -> nn.Module:
            return DepthwiseSeparable(
                in_channels,
                half,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                mid_act=False,
                norm=norm,
                act=act,
            )

        half = out_channels // 2
        hidden = inner_channels(hidden_channels, half)
        self.splits = stride == 1 and in_channels == out_channels
        self.passing = nn.Identity() if self.splits else separable(in_channels, act)
        self.reduce = ConvNormAct(half if self.splits else in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.separable = separable(hidden, "identity")
        self.se = build_squeeze_excite(half, se_ratio, out_channels)
        self.act = build_act(act, half)
        self.shuffle = ChannelShuffle(out_channels, groups=2)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        a, b = x.chunk(2, 1) if self.splits else (x, x)
        y = self.se(self.separable(self.reduce(b)))
        y = self.act(y.add_(b) if self.splits else y)  # in place, on a map of its own: one map less to allocate
        return self.shuffle(torch.cat((self.passing(a), y), 1))


@block("shuffle_unit_v2_star")
class ShuffleUnitV2Star(ShuffleUnitV2):
    """The unit of ShuffleNet v2 with one more depthwise k x k convolution in front of its first 1 x 1: v2* (Sec. 4).

    Theirs is the larger receptive field of Xception. The paper says no more than this. Our reading: behind it stands a
    norm and no activation, as behind the unit's other depthwise convolution; its stride is 1; the passing branch of a
    unit that strides or changes its channels has none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        split: Literal["half", "paper"] = "half",
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            split=split,
            hidden_channels=hidden_channels,
            norm=norm,
            act=act,
        )
        self.reduce = DepthwiseSeparable(  # type: ignore[assignment]
            out_channels // 2 if self.splits else in_channels,
            inner_channels(hidden_channels, out_channels // 2),
            kernel_size=kernel_size,
            dilation=dilation,
            mid_act=False,
            norm=norm,
            act=act,
        )
