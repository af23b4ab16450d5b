"""Convolution, norm, activation: what nearly every network repeats; and its depthwise separable form."""

from __future__ import annotations

from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.act import build_act
from convsmith.nn.channels import check_divisible, check_odd_kernel, check_positive
from convsmith.nn.norm import BATCH_NORM, acts_on_weights, apply_norm, build_norm


@block("conv_norm_act")
class ConvNormAct(nn.Sequential):
    """Convolution, then norm, then activation: (N, C, H, W) -> (N, C', H', W'); `kernel_size` may be `(height, width)`.

    Padding is `kernel_size // 2 * dilation` unless given, which an even kernel needs; the convolution has a bias
    exactly if `norm` is None or acts on weights, unless `bias` says otherwise. The parts are `conv`, `norm` and `act`;
    one that does nothing is left out, as each call of a module takes time. A norm that acts on weights is part of
    `conv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | tuple[int, int] = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        padding: int | tuple[int, int] | None = None,
        bias: bool | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_divisible(in_channels=in_channels, groups=groups)
        check_divisible(out_channels=out_channels, groups=groups)
        check_positive(kernel_size=kernel_size, stride=stride, dilation=dilation)
        if padding is None:
            check_odd_kernel(kernel_size)
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            same_padding(kernel_size, dilation) if padding is None else padding,
            dilation,
            groups,
            bias=norm is None or acts_on_weights(norm) if bias is None else bias,
        )
        self.conv = apply_norm(norm, conv)
        if norm is not None and not acts_on_weights(norm):
            self.norm = build_norm(norm, out_channels)
        if act != "identity":
            self.act = build_act(act, out_channels)
        self.out_channels = out_channels

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        # Without the iterator of a Sequential, which takes a hundredth of a light network's time.
        for part in self._modules.values():
            input = part(input)
        return input


@block("depthwise_separable")
class DepthwiseSeparable(nn.Module):
    """Depthwise k x k, then pointwise 1 x 1 convolution, with or without norm and activation between the two.

    MobileNet v1 has both (Howard et al. 2017, arXiv:1704.04861, Fig. 3); Xception has neither (Chollet 2017,
    arXiv:1610.02357, Sec. 4.7: an activation there hurts). The depthwise convolution has a bias only where no norm
    behind it, its own or that of a directly following pointwise convolution, would absorb it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        mid_norm: bool = True,
        mid_act: bool = True,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels,
            in_channels,
            kernel_size=kernel_size,
            stride=stride,
            groups=in_channels,
            dilation=dilation,
            bias=None if mid_norm else norm is None or mid_act,
            norm=norm if mid_norm else None,
            act=act if mid_act else "identity",
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, kernel_size=1, norm=norm, act=act)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return self.pointwise(self.depthwise(x))


def same_padding(kernel_size: int | tuple[int, int], dilation: int = 1) -> int | tuple[int, int]:
    """`kernel_size // 2 * dilation`, which keeps the size of a map under an odd kernel and stride 1."""
    if isinstance(kernel_size, int):
        return kernel_size // 2 * dilation
    return kernel_size[0] // 2 * dilation, kernel_size[1] // 2 * dilation
