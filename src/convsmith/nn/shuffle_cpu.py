"""Channel shuffle (`shuffle.py`) of channels-last maps as an operator in C++ (`shuffle_cpu.cpp`, see `native.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.nn.native import is_batched

torch.library.define(
    "convsmith::channel_shuffle",
    "(Tensor x, int groups) -> Tensor",
    tags=(torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag),
)
torch.library.register_fake("convsmith::channel_shuffle", lambda x, groups: torch.empty_like(x))


# Rows, or columns, of the matrices that the operator transposes in registers: of others torch's is the faster one.
_QUICK = (2, 3, 4)


def is_quick(x: Tensor, groups: int) -> bool:
    """Whether the operator is faster than torch's, which does not know the shape beforehand."""
    channels = x.shape[1]
    return channels % groups == 0 and min(groups, channels // groups) in _QUICK


class Shuffled(torch.autograd.Function):
    """`by_operator` with its derivatives: a tangent is shuffled along, the gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int) -> Tensor:
        """The shuffled map."""
        ctx.groups = groups
        shuffled: Tensor = torch.ops.convsmith.channel_shuffle(x, groups)
        return shuffled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient, with rows and columns exchanged."""
        return by_operator(gradient, gradient.shape[1] // ctx.groups), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """The tangent, shuffled as the map."""
        return by_operator(tangent, ctx.groups)


def by_operator(x: Tensor, groups: int) -> Tensor:
    """The shuffled map, channels-last, its derivative recorded; only where `native` has its operators loaded."""
    if is_batched(x):
        return F.channel_shuffle(x, groups)
    x = x.contiguous(memory_format=torch.channels_last)
    if torch.is_grad_enabled():
        shuffled: Tensor = Shuffled.apply(x, groups)
        return shuffled
    moved: Tensor = torch.ops.convsmith.channel_shuffle(x, groups)
    return moved
