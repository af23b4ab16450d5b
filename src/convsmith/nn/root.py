"""Root modules and their schedules of groups.

Deep Roots: Improving CNN Efficiency with Hierarchical Filter Groups (Ioannou et al. 2017, arXiv:1605.06489).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible, check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM

Schedule = Literal["root", "tree", "column"]


@block("root_module")
class RootModule(nn.Sequential):
    """k x k convolution in groups, then a dense 1 x 1 convolution that mixes them.

    (N, C, H, W) -> (N, C', H / stride, W / stride). Norm and activation follow both, as in the networks of the paper.
    The grouped convolution has `hidden_channels` filters, or `out_channels`. With as many groups and filters as input
    channels it is a depthwise separable convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 2,
        dilation: int = 1,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, out_channels)
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(hidden_channels=hidden, groups=groups)
        self.spatial = ConvNormAct(
            in_channels,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            groups=groups,
            dilation=dilation,
            norm=norm,
            act=act,
        )
        self.mix = ConvNormAct(hidden, out_channels, kernel_size=1, norm=norm, act=act)
        self.out_channels = out_channels


def group_schedule(kind: Schedule, groups: int, depth: int) -> tuple[int, ...]:
    """The groups of `depth` stages, `groups` of them in the first: the paper's root-8 is `("root", 8, depth)`.

    A root halves them from stage to stage until one is left, a tree doubles them, a column keeps them. The stages are
    the second and third spatial convolution of Network in Network, the four stages of ResNet, and of GoogLeNet the
    second convolution and the three sizes of the modules' maps. The first convolution of a network is not among them;
    it stays dense.

    Raises ValueError for another kind, for less than one group or a negative depth, and for a root that cannot halve.
    """
    if kind not in get_args(Schedule):
        raise ValueError(f"a schedule of groups must be one of {', '.join(get_args(Schedule))}, got {kind!r}")
    if groups < 1 or depth < 0:
        raise ValueError(f"groups must be at least 1 and depth at least 0, got {groups=} and {depth=}")
    if kind == "root":
        if groups & (groups - 1):
            raise ValueError(
                f"the groups of a root halve from stage to stage: they must be a power of two, got {groups=}; "
                f"take {1 << groups.bit_length() - 1} or {1 << groups.bit_length()}"
            )
        return tuple(max(1, groups >> stage) for stage in range(depth))
    return tuple(groups << stage if kind == "tree" else groups for stage in range(depth))
