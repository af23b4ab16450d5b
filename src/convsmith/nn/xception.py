"""Residual blocks of separable convolutions: Xception (Chollet 2017, arXiv:1610.02357) and its aligned form."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.cell_parts import shared_act
from convsmith.nn.channels import check_odd_kernel
from convsmith.nn.conv import ConvNormAct, DepthwiseSeparable
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.pool import MaxPool
from convsmith.nn.residual import build_shortcut


class _SeparableResidual(nn.Module):
    """shortcut(x) + body(x)."""

    shortcut: nn.Module
    body: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride), rounded up."""
        y: Tensor = self.body(x)
        return y.add_(self.shortcut(x))  # in place, on a map of its own: one map less to allocate


@block("xception_block")
class XceptionBlock(_SeparableResidual):
    """shortcut(x) + pool(separable convolutions of x), each in the order activation, depthwise, pointwise, norm.

    Fig. 5. Nothing stands between depthwise and pointwise convolution (Sec. 4.7). `hidden_channels` are the widths
    between the separable convolutions, so there is one convolution more than widths; None is (out_channels,), two
    convolutions as in the entry flow. With a stride a max pooling closes the body; the shortcut is a strided 1 x 1
    convolution where shapes change. The first convolution of the entry flow has no activation (`first_act` False).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        first_act: bool = True,
        hidden_channels: tuple[int, ...] | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        # Peers register the shortcut first.
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        body: list[nn.Module] = []
        channels = in_channels
        for i, width in enumerate((*((out_channels,) if hidden_channels is None else hidden_channels), out_channels)):
            if i > 0 or first_act:
                body.append(_act_in_front(act, channels, first=i == 0))
            body.append(
                DepthwiseSeparable(
                    channels,
                    width,
                    kernel_size=kernel_size,
                    dilation=dilation,
                    mid_norm=False,
                    mid_act=False,
                    norm=norm,
                    act="identity",
                )
            )
            channels = width
        if stride > 1:
            body.append(MaxPool(out_channels, kernel_size=3, stride=stride))
        self.body = nn.Sequential(*body)
        self.out_channels = out_channels


@block("aligned_xception_block")
class AlignedXceptionBlock(_SeparableResidual):
    """shortcut(x) + separable convolutions of x, each activation, depthwise, norm, pointwise, norm; the last strides.

    The "modified aligned Xception" of DeepLabv3+ (Chen et al. 2018, arXiv:1802.02611, Fig. 4), in which a strided
    separable convolution stands for max pooling, so that the stride can become a dilation; activations are where its
    code has them. `hidden_channels` are those of `XceptionBlock`; None is (out_channels, out_channels). The shortcut is
    a 1 x 1 convolution where shapes change, and always with `project`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        project: bool = False,
        hidden_channels: tuple[int, ...] | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if project:
            self.shortcut: nn.Module = ConvNormAct(
                in_channels, out_channels, kernel_size=1, stride=stride, norm=norm, act="identity"
            )
        else:
            self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        hidden = (out_channels, out_channels) if hidden_channels is None else hidden_channels
        body: list[nn.Module] = []
        channels = in_channels
        for i, width in enumerate((*hidden, out_channels)):
            body.append(_act_in_front(act, channels, first=i == 0))
            body.append(
                DepthwiseSeparable(
                    channels,
                    width,
                    kernel_size=kernel_size,
                    stride=stride if i == len(hidden) else 1,
                    dilation=dilation,
                    mid_act=False,
                    norm=norm,
                    act="identity",
                )
            )
            channels = width
        self.body = nn.Sequential(*body)
        self.out_channels = out_channels


def _act_in_front(act: str | BlockSpec, channels: int, *, first: bool) -> nn.Module:
    """The activation in front of a convolution of the body: the first one reads the shortcut's map, so not in place."""
    return shared_act(act, channels) if first else build_act(act, channels)
