"""Channel shuffle (`shuffle.py`) as an operator in C++ (`shuffle_cpu.cpp`, see `native.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state
from torch.nn import functional as F

from convsmith.nn.native import is_batched
from convsmith.nn.shift_forms import is_channels_last

torch.library.define(
    "convsmith::channel_shuffle",
    "(Tensor x, int groups) -> Tensor",
    tags=(torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag),
)
torch.library.register_fake("convsmith::channel_shuffle", lambda x, groups: torch.empty_like(x))


_OPERATOR = torch.ops.convsmith.channel_shuffle.default

# Rows, or columns, of the matrices for which the operator takes few permutations of registers: of others torch's
# kernel is the faster one while a map fits into the cache.
_QUICK = (2, 3, 4, 8, 16)
_LARGE = 2**20  # elements
# In rows torch's kernel copies planes, as the operator does, but asks for none of them ahead of time.
_LARGE_ROWS = 2**22


def is_large(x: Tensor) -> bool:
    """Whether these are values, not what a tracer has for them, and so many that the operator serves maps in rows."""
    return type(x) is Tensor and not _get_tracing_state() and x.numel() >= _LARGE_ROWS


def is_quick(x: Tensor, groups: int, *, channels_last: bool) -> bool:
    """Whether the operator is faster than torch's, of values; in rows, of many."""
    channels = x.size(1)
    if x.dim() != 4 or groups < 1 or channels % groups:
        return False
    return not channels_last or min(groups, channels // groups) in _QUICK or x.numel() >= _LARGE


class Shuffled(torch.autograd.Function):
    """`by_operator` with its derivatives: a tangent is shuffled along, the gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, channels_last: bool) -> Tensor:
        """The shuffled map."""
        ctx.groups, ctx.channels_last = groups, channels_last
        shuffled: Tensor = _OPERATOR(x, groups)
        return shuffled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, with rows and columns exchanged."""
        groups = gradient.shape[1] // ctx.groups
        if is_batched(gradient):
            return F.channel_shuffle(gradient, groups), None, None
        return by_operator(gradient, groups, channels_last=ctx.channels_last), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """The tangent, shuffled as the map."""
        return by_operator(tangent, ctx.groups, channels_last=ctx.channels_last)


def by_operator(x: Tensor, groups: int, *, channels_last: bool) -> Tensor:
    """The shuffled map in that memory format, its derivative recorded; only where `native` has its operators loaded."""
    if channels_last is not is_channels_last(x) or not (channels_last or x.is_contiguous()):
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    if torch.is_grad_enabled():
        shuffled: Tensor = Shuffled.apply(x, groups, channels_last)
        return shuffled
    moved: Tensor = _OPERATOR(x, groups)
    return moved
