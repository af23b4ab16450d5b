"""Deformable convolution, version 1 (Deformable Convolutional Networks, Dai et al. 2017, arXiv:1703.06211)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_divisible, check_odd_kernel, check_positive
from convsmith.nn.memory_format import keeps_channels_last
from convsmith.nn.norm import BATCH_NORM, build_norm
from convsmith.nn.residual import Bottleneck


class OffsetConv2d(nn.Module):
    """A convolution that starts at zero, weight and bias; (N, C, H, W) -> (N, C', H / stride, W / stride).

    No `nn.Conv2d`, so that the initialisation of a whole network leaves it at zero (Dai et al. 2017, Sec. 2.3).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        padding: int = 0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.dilation, self.padding = stride, dilation, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)


@block("deformable_conv2d")
class DeformableConv2d(nn.Module):
    """Y(q) = sum over taps of w_t x(q + p_t + o_t(q)), p_t the regular grid, x read bilinearly, 0 outside (Eq. 2).

    The offsets o come from a convolution of the same kernel, stride and dilation, zero at first (Sec. 2.1 and 2.3):
    channel 2 (g k k + t) is tap t's row offset for the g-th of `offset_groups` equal groups of input channels, the next
    one its column offset, as in torchvision. The paper's code has four such groups. The plain kernel is `weight`, of
    shape (out, in / groups, k, k). At each place the cost is that of the offset convolution and k * k * C * C' / groups
    multiply-accumulates. Padding is `kernel_size // 2 * dilation` unless given, which an even kernel needs; there is a
    bias, zero at first, exactly if `norm` is None.

    Torchvision's operator has no second derivative: a critic with a gradient penalty takes an ordinary convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        dilation: int = 1,
        padding: int | None = None,
        norm: BlockSpec | None = None,
        act: str | BlockSpec = "identity",
    ):
        super().__init__()
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        check_divisible(in_channels=in_channels, offset_groups=offset_groups)
        check_positive(kernel_size=kernel_size, stride=stride, dilation=dilation)
        if padding is None:
            check_odd_kernel(kernel_size)
        self.stride, self.dilation = stride, dilation
        self.padding = kernel_size // 2 * dilation if padding is None else padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_channels)) if norm is None else None
        self.offset_channels = 2 * kernel_size**2 * offset_groups
        self.offset = OffsetConv2d(
            in_channels,
            self.offset_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            padding=self.padding,
        )
        self.norm = build_norm(norm, out_channels)
        self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C', H / stride, W / stride); `offsets` given take the place of the predicted ones.

        They are (N, 2 * k * k * offset_groups, H / stride, W / stride); another number of channels raises ValueError.
        `torch.fx.symbolic_trace` of the block alone takes `concrete_args={"offsets": None}`.
        """
        offsets = self.offset(x) if offsets is None else offsets
        form = self.stride, self.padding, self.dilation, self.offset_channels
        return self.act(self.norm(_deform(x, offsets, self.weight, self.bias, *form)))


@fx.wrap  # one node of a traced graph: it asks for shapes and types
def _deform(
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    offset_channels: int,
) -> Tensor:
    """Torchvision's operator, in the memory format and the type of `x`."""
    from torchvision.ops import deform_conv2d  # here, as it brings torch's compiler along, which takes seconds

    if offsets.shape[1] != offset_channels:
        raise ValueError(
            "offsets must have 2 * kernel_size ** 2 * offset_groups channels, a row and a column for each tap of "
            f"each group, here {offset_channels}, got {offsets.shape[1]}"
        )
    # The operator takes operands of one type, which is not bfloat16; on a CPU it does not autocast.
    dtype = torch.float32 if weight.dtype == torch.bfloat16 else weight.dtype
    operands = x.to(dtype), offsets.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    y = deform_conv2d(*operands, stride, padding, dilation).to(x.dtype)
    return y.contiguous(memory_format=torch.channels_last) if keeps_channels_last(x) else y


@block("deformable_bottleneck")
class DeformableBottleneck(Bottleneck):
    """A bottleneck whose 3 x 3 convolution is deformable, as in the last stage of the paper's ResNets (Sec. 2.3).

    While the offsets are zero, as at first, it computes what `Bottleneck` does; its arguments are those, and the
    `offset_groups` of `DeformableConv2d`, which are 4 in the paper's code. The deformable kernel stands where that of
    `Bottleneck` does in the state dict: `conv2.weight` for `conv2.conv.weight`, then `conv2.offset`.
    It has no second derivative: a critic with a gradient penalty takes `Bottleneck`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        stride_in: Literal["1x1", "3x3"] = "3x3",
        groups: int = 1,
        offset_groups: int = 1,
        dilation: int = 1,
        bottleneck_ratio: float = 0.25,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__(
            in_channels,
            out_channels,
            stride=stride,
            stride_in=stride_in,
            groups=groups,
            bottleneck_ratio=bottleneck_ratio,
            hidden_channels=hidden_channels,
            norm=norm,
            act=act,
        )
        hidden = self.conv1.out_channels
        self.conv2 = DeformableConv2d(  # type: ignore[assignment]
            hidden,
            hidden,
            kernel_size=kernel_size,
            stride=stride if stride_in == "3x3" else 1,
            groups=groups,
            offset_groups=offset_groups,
            dilation=dilation,
            norm=norm,
            act=act,
        )
