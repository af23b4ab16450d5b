"""A grouped convolution that reads chosen channels: what a learned group convolution becomes."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible
from convsmith.nn.dense import NormActConv
from convsmith.nn.memory_format import keeps_channels_last
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.shuffle import ChannelShuffle


@block("condensed_conv2d")
class CondensedConv2d(NormActConv):
    """A learned group convolution as it is shipped: index, norm, activation, grouped 1 x 1 convolution, shuffle.

    Group g reads the `in_channels / condensation` inputs that its part of the buffer `index` names (Sec. 3.1), so norm
    and activation see `groups * in_channels / condensation` channels. In a fresh block each group names the next ones.

    An average of weights must leave the index alone, as `torch.optim.swa_utils.AveragedModel` does with
    `use_buffers=False`; with True it would average the numbers of the channels.
    """

    index: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int = 4,
        condensation: int = 4,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        check_divisible(in_channels=in_channels, condensation=condensation)
        check_divisible(out_channels=out_channels, groups=groups)
        selected = groups * in_channels // condensation
        super().__init__(selected, out_channels, kernel_size=1, groups=groups, norm=norm, act=act)
        self.shuffle = ChannelShuffle(out_channels, groups=groups) if groups > 1 else nn.Identity()
        self.register_buffer("index", torch.arange(selected) % in_channels)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W), in the memory format of the input."""
        return self.shuffle(super().forward(_select(x, self.index)))


@fx.wrap  # one node of a traced graph: it branches on the memory format
def _select(x: Tensor, index: Tensor) -> Tensor:
    """The channels that the index names; torch's own form loses the channels-last format."""
    if keeps_channels_last(x):
        return x.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)
    return x.index_select(1, index)
