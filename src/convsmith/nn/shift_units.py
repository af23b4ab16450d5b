"""Units of 1 x 1 convolution, shift, 1 x 1 convolution.

Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions (Wu et al. 2018, arXiv:1711.08141, Sec. 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import inner_channels
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.dense import NormActConv
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.pool import AvgPool
from convsmith.nn.residual import build_shortcut
from convsmith.nn.shift import Shift


@block("shift_unit")
class ShiftUnit(nn.Module):
    """x + W_2 act(norm(shift(W_1 act(norm(x))))): the CSC module of Fig. 3, both W 1 x 1 convolutions.

    Where the channels grow, the result is instead followed by the input, and has `out_channels - in_channels` channels
    of its own. W_2 has the stride; the input is then average-pooled 3 x 3. Between the two W are `expansion` times the
    unit's own channels, or exactly `hidden_channels`. Interpretations: the order of the two parts, and that a strided
    unit whose channels stay adds the pooled input, where the paper shows growing ones only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        expansion: float = 1.0,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(
                f"a shift unit must keep its channels or add to them, got {in_channels=} and {out_channels=}; put a "
                "1 x 1 convolution in front"
            )
        self.adds = in_channels == out_channels
        own = out_channels if self.adds else out_channels - in_channels
        hidden = inner_channels(hidden_channels, own * expansion)
        self.expand = NormActConv(in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.shift = Shift(hidden, kernel_size=kernel_size, dilation=dilation)
        self.project = NormActConv(hidden, own, kernel_size=1, stride=stride, norm=norm, act=act)
        self.pool = AvgPool(in_channels, stride=stride, count_include_pad=True) if stride > 1 else nn.Identity()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        y = self.project(self.shift(self.expand(x)))
        passed = self.pool(x)
        return y.add_(passed) if self.adds else torch.cat((y, passed), 1)  # in place, on a map of its own


@block("shift_residual")
class ShiftResidual(nn.Module):
    """shortcut(x) + act(norm(W_2 shift(act(norm(W_1 x))))): the unit of ShiftResNet, as in the authors' last code.

    There is no activation behind the sum; an earlier version had the second one there instead. W_1 makes `expansion`
    times `out_channels` channels, or exactly `hidden_channels`; W_2 has the stride. The shortcut is the identity, or a
    1 x 1 convolution with a norm where the shape changes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        expansion: float = 1.0,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        hidden = inner_channels(hidden_channels, out_channels * expansion)
        self.expand = ConvNormAct(in_channels, hidden, kernel_size=1, norm=norm, act=act)
        self.shift = Shift(hidden, kernel_size=kernel_size, dilation=dilation)
        self.project = ConvNormAct(hidden, out_channels, kernel_size=1, stride=stride, norm=norm, act=act)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, norm)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return self.project(self.shift(self.expand(x))) + self.shortcut(x)
