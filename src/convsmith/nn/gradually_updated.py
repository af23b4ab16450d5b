"""Gradually updated layer (Gradually Updated Neural Networks, Qiao et al. 2018, arXiv:1711.09280)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convsmith.arch import BlockSpec, block
from convsmith.nn.channels import check_divisible, check_odd_kernel
from convsmith.nn.conv import ConvNormAct
from convsmith.nn.norm import BATCH_NORM
from convsmith.nn.recompute import on_concat


@block("gradually_updated")
class GraduallyUpdated(nn.Module):
    """x_l <- x_l + F_l([x_1, ..., x_P]) for each of P = `segments` equal parts of the channels, one after the other.

    F_l reads the parts in front of l as their own updates have left them, so that one layer is up to P updates deep.
    F_l is a 1 x 1 convolution, a k x k one and a 1 x 1 one; its two inner widths are `expansion` times that of a part,
    or exactly `hidden_channels`. No activation follows its last norm, nor the sum.

    `shortcut` adds to each update a 1 x 1 convolution of all parts, with its norm: in the authors' code the networks
    for CIFAR have it, those for ImageNet do not.

    The concatenation of all parts, which each update reads, is most of what training keeps. `memory_efficient` makes it
    again in the backward pass, as the authors' code does.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        segments: int,
        kernel_size: int = 3,
        dilation: int = 1,
        expansion: float = 2.0,
        shortcut: bool = False,
        memory_efficient: bool = False,
        hidden_channels: int | None = None,
        norm: BlockSpec | None = BATCH_NORM,
        act: str | BlockSpec = "relu",
    ):
        super().__init__()
        check_odd_kernel(kernel_size)
        check_divisible(in_channels=in_channels, segments=segments)
        self.width = in_channels // segments
        hidden = round(self.width * expansion) if hidden_channels is None else hidden_channels
        if hidden < 1:
            raise ValueError(
                f"an update must have at least one inner channel, got {hidden} for segments of {self.width} channels; "
                "raise expansion"
            )
        self.updates = nn.ModuleList(
            Update(
                ConvNormAct(in_channels, hidden, kernel_size=1, norm=norm, act=act),
                ConvNormAct(hidden, hidden, kernel_size=kernel_size, dilation=dilation, norm=norm, act=act),
                ConvNormAct(hidden, self.width, kernel_size=1, norm=norm, act="identity"),
                ConvNormAct(in_channels, self.width, kernel_size=1, norm=norm, act="identity") if shortcut else None,
            )
            for _ in range(segments)
        )
        self.memory_efficient = memory_efficient
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        recompute = self.memory_efficient and self.training
        parts = [x.narrow(1, i * self.width, self.width) for i in range(len(self.updates))]
        for i, update in enumerate(self.updates):
            parts[i] = parts[i] + update(*parts, recompute=recompute)
        return torch.cat(parts, 1)


class Update(nn.Module):
    """F_l, and the shortcut if there is one: what is added to one part, made of all of them."""

    def __init__(self, reduce: ConvNormAct, conv: ConvNormAct, expand: ConvNormAct, shortcut: ConvNormAct | None):
        super().__init__()
        self.reduce, self.conv, self.expand, self.shortcut = reduce, conv, expand, shortcut

    def forward(self, *parts: Tensor, recompute: bool) -> Tensor:
        """(N, C / P, H, W) each -> (N, C / P, H, W)."""
        y = self.expand(self.conv(_of_all(self.reduce, parts, recompute)))
        return y if self.shortcut is None else y + _of_all(self.shortcut, parts, recompute)


def _of_all(unit: ConvNormAct, parts: tuple[Tensor, ...], recompute: bool) -> Tensor:
    # Only the convolution needs all parts; what follows it would have to be computed twice.
    conv, *rest = unit
    y = on_concat(conv, *parts, recompute=recompute)
    for module in rest:
        y = module(y)
    return y
