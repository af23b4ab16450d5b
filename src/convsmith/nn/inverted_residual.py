"""Inverted residual with linear bottleneck (MobileNetV2, Sandler et al. 2018, arXiv:1801.04381, Sec. 3.3)."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.attention import build_squeeze_excite
from convsmith.nn.channels import check_odd_kernel, inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM


@block("inverted_residual")
class InvertedResidual(nn.Module):
    """1 x 1 expansion, depthwise k x k, linear 1 x 1 projection; added to the input where shapes agree (Table 1).

    The expansion is left out where it would not widen. `se_ratio` adds squeeze-and-excitation behind the depthwise
    convolution, its squeezed channels a share of the block's input channels (Tan et al. 2019, arXiv:1807.11626).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        expansion: float = 6.0,
        se_ratio: float = 0.0,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu6",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        hidden = inner_channels(hidden_channels, in_channels * expansion)
        widens = hidden != in_channels
        self.expand = ConvNormAct(in_channels, hidden, kernel_size=1, norm=norm, act=act) if widens else nn.Identity()
        self.depthwise = ConvNormAct(
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=stride,
            groups=hidden,
            dilation=dilation,
            norm=norm,
            act=act,
        )
        self.se = build_squeeze_excite(hidden, se_ratio, in_channels)
        self.project = ConvNormAct(hidden, out_channels, kernel_size=1, norm=norm, act="identity")
        self.has_skip = stride == 1 and in_channels == out_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return y.add_(x) if self.has_skip else y  # in place, on a map of its own: one map less to allocate
