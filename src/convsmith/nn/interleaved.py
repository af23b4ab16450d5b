"""Two grouped convolutions whose groups complement each other: the second one mixes what the first one kept apart.

Where the first has g1 groups and the second g2, each output sees all input channels exactly if g1 * g2 <= in_channels,
given the shuffle between them (see `convsmith.nn.channel_graph`).
"""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible, check_odd_kernel
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.shuffle import ChannelShuffle


@block("interleaved_group_conv")
class InterleavedGroupConv(nn.Module):
    """act(norm(P^-1 W_s P W_p x)): interleaved groups, IGCV1 (Zhang T. et al. 2017, arXiv:1707.02725, Sec. 3.1).

    The primary convolution W_p is k x k, in L = `primary_groups` groups of M channels; the secondary one W_s is 1 x 1,
    in M groups of L channels. The permutation P brings channel m of every primary group into secondary group m, its
    inverse restores the order. Nothing stands between the two convolutions, so that together they are one convolution
    with a sparse kernel. L = 1 is an ordinary one with scaled outputs, M = 1 a depthwise and a full 1 x 1 convolution.
    Of one width, and with K = k * k, the block has K * L * M^2 + M * L^2 weights.

    `out_channels` (default: `in_channels`) is the width of both convolutions, M = `out_channels / primary_groups`; the
    primary one has the stride. The authors' networks double their width by doubling M, one of them by doubling L.

    Norm and activation stand before the inverse permutation, the authors' behind it: for those that work on single
    channels this changes the order of their parameters only, and a norm can be folded. Only the secondary convolution
    has a bias where `norm` is None: it absorbs any other.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        primary_groups: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        out_channels = in_channels if out_channels is None else out_channels
        check_divisible(in_channels=in_channels, primary_groups=primary_groups)
        check_divisible(out_channels=out_channels, primary_groups=primary_groups)
        secondary_groups = out_channels // primary_groups
        self.primary = ConvNormAct(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            groups=primary_groups,
            dilation=dilation,
            bias=False,
            norm=None,
            act="identity",
        )
        self.permute = ChannelShuffle(out_channels, groups=primary_groups)
        self.secondary = ConvNormAct(
            out_channels, out_channels, kernel_size=1, groups=secondary_groups, norm=norm, act=act
        )
        self.restore = ChannelShuffle(out_channels, groups=secondary_groups)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.restore(self.secondary(self.permute(self.primary(x))))


@block("interlaced_group_conv")
class InterlacedGroupConv(nn.Module):
    """act(norm(W_2 P norm(W_1 x))): the channel local block of clcNet (Zhang D-Q. 2018, arXiv:1712.06145).

    W_1 is k x k, in `primary_groups` groups and of `in_channels` outputs, strided; the interlacing permutation P (a
    shuffle by the same groups) deals its outputs out to the `secondary_groups` groups of the 1 x 1 convolution W_2.
    There is one permutation: the order is not restored. By default W_1 has the most groups with which every output
    still sees every input, `in_channels / secondary_groups`, as everywhere in clcNet.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        primary_groups: int | None = None,
        secondary_groups: int = 2,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        check_divisible(in_channels=in_channels, secondary_groups=secondary_groups)
        primary_groups = in_channels // secondary_groups if primary_groups is None else primary_groups
        check_divisible(in_channels=in_channels, primary_groups=primary_groups)
        check_divisible(out_channels=out_channels, secondary_groups=secondary_groups)
        self.primary = ConvNormAct(
            in_channels,
            in_channels,
            kernel_size=kernel_size,
            stride=stride,
            groups=primary_groups,
            dilation=dilation,
            norm=norm,
            act="identity",
        )
        self.interlace = ChannelShuffle(in_channels, groups=primary_groups)
        self.secondary = ConvNormAct(
            in_channels, out_channels, kernel_size=1, groups=secondary_groups, norm=norm, act=act
        )
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.secondary(self.interlace(self.primary(x)))
