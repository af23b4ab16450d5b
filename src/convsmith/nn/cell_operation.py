"""The operations of cells by name: those of the cells and search spaces of NASNet, PNASNet, AmoebaNet and DARTS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from convsmith.arch import BlockSpec
from convsmith.nn.act import Identity, build_act
from convsmith.nn.cell_parts import ActConvNorm, ActSeparable, FactorizedReduction, StackedSeparable
from convsmith.nn.pool import AvgPool, MaxPool
from convsmith.nn.same_padding import Padding, SamePad, SamePool


@dataclass(frozen=True)
class Place:
    """Where an operation stands: what it reads, what it makes, and the conventions of its cell."""

    in_channels: int
    filters: int
    stride: int
    padding: Padding
    norm: BlockSpec | None
    act: str | BlockSpec


Operation = Callable[[Place], nn.Module]


def build_operation(
    name: str,
    in_channels: int,
    filters: int,
    *,
    stride: int,
    padding: Padding,
    norm: BlockSpec | None,
    act: str | BlockSpec,
) -> nn.Module:
    """The module of an operation of `OPERATIONS`: (N, C, H, W) -> (N, filters, H / stride, W / stride), rounded up."""
    if name not in OPERATIONS:
        raise ValueError(f"an operation of a cell must be one of {', '.join(OPERATIONS)}, got {name!r}")
    return OPERATIONS[name](Place(in_channels, filters, stride, padding, norm, act))


def _identity(at: Place) -> nn.Module:
    return _conv(at) if at.stride > 1 or at.in_channels != at.filters else Identity(at.filters)


def _skip(at: Place) -> nn.Module:
    if at.stride > 1:
        return FactorizedReduction(at.in_channels, at.filters, stride=at.stride, norm=at.norm, act=at.act)
    return _identity(at)


def _none(at: Place) -> nn.Module:
    return Zero(at.filters, at.stride)


def _conv(at: Place) -> nn.Module:
    return ActConvNorm(at.in_channels, at.filters, stride=at.stride, norm=at.norm, act=at.act)


def _pool(kind: str, kernel_size: int) -> Operation:
    """Pooling, with a 1 x 1 convolution and norm behind it where the channels change."""

    def build(at: Place) -> nn.Module:
        pool: nn.Module
        counted = at.padding == "same_counted" and kind == "avg"
        if at.stride > 1 and counted:
            window, steps = (kernel_size, kernel_size), (at.stride, at.stride)
            pool = nn.Sequential(SamePad(window, steps), nn.AvgPool2d(window, steps))
        elif kernel_size % 2 == 0 or (at.stride > 1 and at.padding != "symmetric"):
            pool = SamePool(kind, kernel_size, at.stride)  # an even window has no middle: no padding is symmetric
        else:
            pool = (MaxPool if kind == "max" else AvgPool)(at.in_channels, kernel_size=kernel_size, stride=at.stride)
        if at.in_channels == at.filters:
            return pool
        return nn.Sequential(pool, ActConvNorm(at.in_channels, at.filters, norm=at.norm, act="identity"))

    return build


def _separable(kernel_size: int, *, twice: bool = True, dilation: int = 1) -> Operation:
    def build(at: Place) -> nn.Module:
        return (StackedSeparable if twice else ActSeparable)(
            at.in_channels,
            at.filters,
            kernel_size=kernel_size,
            stride=at.stride,
            dilation=dilation,
            padding=at.padding,
            norm=at.norm,
            act=at.act,
        )

    return build


def _narrow(*kernel_sizes: tuple[int, int], eighths: int = 2, dilation: int = 1) -> Operation:
    """Convolutions between 1 x 1 ones to `eighths` eighths of the filters and back, as in the code of AmoebaNet.

    Each has an activation in front and a norm behind. Where no channel would be left, there are no 1 x 1 ones.
    """

    def build(at: Place) -> nn.Module:
        width = eighths * at.filters // 8
        layers = [ActConvNorm(at.in_channels, width, norm=at.norm, act=at.act)] if width else []
        channels = width or at.in_channels
        for kernel_size in kernel_sizes:
            height, breadth = (at.stride if k > 1 else 1 for k in kernel_size)
            layers.append(
                ActConvNorm(
                    channels,
                    width or at.filters,
                    kernel_size=kernel_size,
                    stride=(height, breadth),
                    dilation=dilation,
                    padding=at.padding,
                    norm=at.norm,
                    act=at.act,
                )
            )
            channels = width or at.filters
        if width:
            layers.append(ActConvNorm(width, at.filters, norm=at.norm, act=at.act))
        for layer in layers[1:]:
            layer.act = build_act(at.act, layer.conv.in_channels)  # in place: nobody else reads the map in front
        return nn.Sequential(*layers)

    return build


class Zero(nn.Module):
    """Zeros, of which no gradient comes."""

    def __init__(self, filters: int, stride: int):
        super().__init__()
        self.filters, self.stride = filters, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, filters, H / stride, W / stride), rounded up."""
        height, width = (-(-x.shape[side] // self.stride) for side in (-2, -1))
        return x.new_zeros((x.shape[0], self.filters, height, width))


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,  # where it strides or the channels change: activation, 1 x 1 convolution, norm
    "skip": _skip,  # DARTS: where it strides, a factorised reduction
    "none": _none,  # DARTS: no connection
    "avg_2x2": _pool("avg", 2),
    "avg_3x3": _pool("avg", 3),
    "max_2x2": _pool("max", 2),
    "max_3x3": _pool("max", 3),
    "max_5x5": _pool("max", 5),
    "max_7x7": _pool("max", 7),
    "conv_1x1": _conv,
    "conv_3x3": _narrow((3, 3)),
    "conv_1x3_3x1": _narrow((1, 3), (3, 1), eighths=3),
    "conv_1x7_7x1": _narrow((1, 7), (7, 1)),
    "conv_dil_3x3": _narrow((3, 3), dilation=2),
    "sep_3x3": _separable(3),
    "sep_5x5": _separable(5),
    "sep_7x7": _separable(7),
    "sep_dil_3x3": _separable(3, dilation=2),
    "sep_dil_5x5": _separable(5, dilation=2),
    "dil_3x3": _separable(3, twice=False, dilation=2),  # DARTS: once, where its other separable ones are twice
    "dil_5x5": _separable(5, twice=False, dilation=2),
}
