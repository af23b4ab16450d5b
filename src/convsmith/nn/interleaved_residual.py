"""The residual block of IGCNets (Zhang T. et al. 2017, arXiv:1707.02725)."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.interleaved import InterleavedGroupConv
from convsmith.nn.norm import BATCH_NORM


@block("interleaved_residual")
class InterleavedResidual(nn.Module):
    """act(shortcut(x) + IGC(IGC(x))): two interleaved group convolutions, the first one strided.

    Both have L = `primary_groups`; the activation of the second stands behind the sum. The shortcut is the identity,
    or where the size or the channels change a 1 x 1 convolution in L groups with a norm, as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        primary_groups: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()

        def interleaved(in_channels: int, stride: int, act: str | BlockSpec) -> InterleavedGroupConv:
            return InterleavedGroupConv(
                in_channels,
                out_channels=out_channels,
                primary_groups=primary_groups,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                norm=norm,
                act=act,
            )

        self.conv1 = interleaved(in_channels, stride, act)
        self.conv2 = interleaved(out_channels, 1, "identity")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvNormAct(
                in_channels,
                out_channels,
                kernel_size=1,
                stride=stride,
                groups=primary_groups,
                norm=norm,
                act="identity",
            )
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.act(self.conv2(self.conv1(x)).add_(self.shortcut(x)))  # in place, on a map of its own
