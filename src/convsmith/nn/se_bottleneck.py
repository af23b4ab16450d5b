"""The bottleneck of SENet-154 (Squeeze-and-Excitation Networks, Hu et al. 2018, arXiv:1709.01507)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.attention import build_squeeze_excite
from convsmith.nn.channels import check_odd_kernel, check_positive, inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("senet_bottleneck")
class SENetBottleneck(nn.Module):
    """act(shortcut(x) + se(conv1x1(conv3x3(conv1x1(x))))): a ResNeXt bottleneck, changed (Appendix).

    The first 1 x 1 convolution has half as many channels as the grouped 3 x 3 one, which has
    `bottleneck_ratio * out_channels`, or `hidden_channels` are both widths exactly; the stride stands in the 3 x 3. The
    shortcut, where the size or the channels change, is a convolution of `shortcut_kernel_size`: 3, or 1 in the first
    stage of the authors' network. Squeeze-and-excitation has `se_ratio * out_channels` squeezed channels, 0 leaves it
    out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        shortcut_kernel_size: Literal[1, 3] = 3,
        bottleneck_ratio: float = 1.0,
        se_ratio: float = 0.0625,
        hidden_channels: tuple[int, int] | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        if hidden_channels is None:
            wide = inner_channels(None, out_channels * bottleneck_ratio)
            hidden_channels = (wide // 2, wide)
        check_positive(hidden_channels=hidden_channels)
        reduced, hidden = hidden_channels
        self.conv1 = ConvNormAct(in_channels, reduced, kernel_size=1, norm=norm, act=act)
        self.conv2 = ConvNormAct(
            reduced,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            groups=groups,
            dilation=dilation,
            norm=norm,
            act=act,
        )
        self.conv3 = ConvNormAct(hidden, out_channels, kernel_size=1, norm=norm, act="identity")
        self.se = build_squeeze_excite(out_channels, se_ratio, out_channels)
        if stride == 1 and in_channels == out_channels:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = ConvNormAct(
                in_channels, out_channels, kernel_size=shortcut_kernel_size, stride=stride, norm=norm, act="identity"
            )
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.se(self.conv3(self.conv2(self.conv1(x))))
        return self.act(y.add_(self.shortcut(x)))  # in place, on a map of its own: one map less to allocate
