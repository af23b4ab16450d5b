"""Channel shuffle and the units of ShuffleNet v1 (Zhang X. et al. 2018, arXiv:1707.01083) and v2 (Ma et al. 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch._C import _get_tracing_state
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn import native
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_divisible, check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.memory_format import keeps_channels_last
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.pool import AvgPool
from convsmith.nn.shuffle_cpu import by_operator

# For so few rows torch's channels-last kernel on the CPU, which transposes small matrices, takes up to 50 copies' time
# on large maps, whose memory is new; on small ones it takes two.
_THIN = (3, 5, 6)
_SMALL = 2**18  # elements


@block("channel_shuffle")
class ChannelShuffle(nn.Module):
    """Channels read as (groups, C / groups), transposed, flattened (ShuffleNet v1, Sec. 3.1).

    Every group of the next grouped convolution then reads from every group of the last one. One group, and as many as
    there are channels, leave the order; the input itself is returned then.
    """

    def __init__(self, in_channels: int, *, groups: int):
        super().__init__()
        check_divisible(in_channels=in_channels, groups=groups)
        self.groups = groups
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), its memory format kept; channel i of group j becomes i * groups + j."""
        return x if self.groups in (1, self.out_channels) else shuffle_channels(x, self.groups, self.out_channels)


@fx.wrap  # one node of a traced graph: it branches on the memory format
def shuffle_channels(x: Tensor, groups: int, channels: int | None = None) -> Tensor:
    """`torch.nn.functional.channel_shuffle` of (N, C, H, W), which keeps channels-last and is quick in it.

    Raises ValueError for another number of channels than `channels`, if that is given.
    """
    compiled = torch.compiler.is_compiling()
    # To `torch.jit.trace` sizes are no numbers.
    if channels and (compiled or not _get_tracing_state()) and (x.dim() != 4 or x.size(1) != channels):
        raise ValueError(f"a shuffle of {channels} channels takes (N, {channels}, H, W), got {tuple(x.shape)}")
    if not compiled and x.is_cpu and native.is_plain_call(x):
        return by_operator(x, groups)
    if not keeps_channels_last(x):
        return F.channel_shuffle(x, groups)
    # On CUDA torch's own form loses the channels-last format.
    if not x.is_cuda and (groups not in _THIN or x.numel() <= _SMALL):
        return F.channel_shuffle(x, groups)
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).view(n, h, w, groups, -1).transpose(3, 4).reshape(n, h, w, c).permute(0, 3, 1, 2)


@block("shuffle_unit_v1")
class ShuffleUnitV1(nn.Module):
    """Grouped 1 x 1, shuffle, depthwise k x k, grouped 1 x 1; added to the input (ShuffleNet v1, Fig. 2b).

    Where the unit strides or changes its channels, its result is instead followed by the input, average-pooled 3 x 3,
    and has `out_channels - in_channels` channels of its own (Fig. 2c). The first convolution has
    `bottleneck_ratio * out_channels` channels, or exactly `hidden_channels`; `grouped_reduce` False leaves it without
    groups, as in the first unit of a network, whose input is narrow.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 3,
        dilation: int = 1,
        grouped_reduce: bool = True,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        self.adds = stride == 1 and in_channels == out_channels
        own = out_channels if self.adds else out_channels - in_channels
        if not self.adds and (own < 1 or groups < 1 or own % groups):
            raise ValueError(
                "out_channels must exceed in_channels by a multiple of groups where a shuffle unit strides or changes "
                f"its channels, got {in_channels=}, {out_channels=} and {groups=}"
            )
        hidden = inner_channels(hidden_channels, out_channels * bottleneck_ratio)
        check_divisible(hidden_channels=hidden, groups=groups)
        self.reduce = ConvNormAct(
            in_channels, hidden, kernel_size=1, groups=groups if grouped_reduce else 1, norm=norm, act=act
        )
        self.shuffle = ChannelShuffle(hidden, groups=groups)
        self.depthwise = ConvNormAct(
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            groups=hidden,
            dilation=dilation,
            norm=norm,
            act="identity",
        )
        self.expand = ConvNormAct(hidden, own, kernel_size=1, groups=groups, norm=norm, act="identity")
        self.pool = nn.Identity() if self.adds else AvgPool(in_channels, stride=stride, count_include_pad=True)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.expand(self.depthwise(self.shuffle(self.reduce(x))))
        return self.act(y + x if self.adds else torch.cat((y, self.pool(x)), 1))


@block("shuffle_unit_v2")
class ShuffleUnitV2(nn.Module):
    """Half of the channels pass by 1 x 1, depthwise k x k, 1 x 1 on the other half; concat and shuffle (Fig. 3c).

    ShuffleNet v2: Practical Guidelines for Efficient CNN Architecture Design (Ma et al. 2018, arXiv:1807.11164,
    Sec. 3.2). Where the unit strides or changes its channels (Fig. 3d), both branches read the whole input and the
    passing one is a depthwise k x k and a 1 x 1 convolution. Each then gives half of `out_channels` with `split="half"`
    (torchvision), or the passing one keeps `in_channels` and the other gives the rest with `split="paper"` (the
    authors' code). The inner width is `out_channels / 2`, or exactly `hidden_channels`.
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
        super().__init__()
        check_odd_kernel(kernel_size)
        if out_channels % 2:
            raise ValueError(f"a ShuffleNet v2 unit has two halves: out_channels must be even, got {out_channels=}")
        self.splits = stride == 1 and in_channels == out_channels
        passing = in_channels if split == "paper" and not self.splits else out_channels // 2
        if passing >= out_channels:
            raise ValueError(
                "with split='paper' out_channels must exceed in_channels where a unit strides or changes its channels, "
                f"got {in_channels=} and {out_channels=}; take split='half'"
            )

        def separable(in_channels: int, out_channels: int) -> nn.Module:
            return DepthwiseSeparable(
                in_channels,
                out_channels,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                mid_act=False,
                norm=norm,
                act=act,
            )

        hidden = inner_channels(hidden_channels, out_channels // 2)
        self.passing = nn.Identity() if self.splits else separable(in_channels, passing)
        self.reduce = ConvNormAct(passing if self.splits else in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.separable = separable(hidden, out_channels - passing)
        self.shuffle = ChannelShuffle(out_channels, groups=2)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        a, b = x.chunk(2, 1) if self.splits else (x, x)
        return self.shuffle(torch.cat((self.passing(a), self.separable(self.reduce(b))), 1))
