"""The shift operation (`shift.py`) as one operator in C++ (`shift_cpu.cpp`, see `native.py`).

Of nine or more slices a compiler makes as many loops, of channels-last maps very short ones; this is one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.native import is_batched
from convsmith.nn.shift_forms import Moved, Moves

torch.library.define(
    "convsmith::shift",
    "(Tensor x, int kernel_size, int dilation, int stride, bool interleaved, int sign, bool channels_last) -> Tensor",
    tags=(torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag),
)


@torch.library.register_fake("convsmith::shift")  # type: ignore[untyped-decorator]
def _allocate(
    x: Tensor, kernel_size: int, dilation: int, stride: int, interleaved: bool, sign: int, channels_last: bool
) -> Tensor:
    batch, channels, height, width = x.shape
    form = torch.channels_last if channels_last else torch.contiguous_format
    size = batch, channels, -(-height // stride), -(-width // stride)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=form)


_OPERATOR = torch.ops.convsmith.shift.default


def by_operator(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in the memory format of `x`; only where `native` has its operators loaded."""
    batched = not torch.compiler.is_compiling() and is_batched(x)  # its memory format cannot be asked for
    last = not batched and is_channels_last(x)
    x = x if last else x.contiguous()
    moved: Tensor = _OPERATOR(x, *moves, last)
    return moved


def in_graph(x: Tensor, kernel_size: int, dilation: int, stride: int, interleaved: bool) -> Tensor:
    """`by_operator` with its derivative as one call of a compiled program, once `is_in_graph` has said so.

    The function that records a derivative, followed by the compiler itself, has every gradient laid out in rows.
    """
    shifted: Tensor = Moved.apply(x, by_operator, Moves(kernel_size, dilation, stride, interleaved))
    return shifted


def is_in_graph() -> bool:
    """Let compilers take `in_graph` as it is; asked while a program is traced, as `native.is_built` is."""
    torch.compiler.allow_in_graph(in_graph)  # type: ignore[no-untyped-call]
    return True


vars(is_in_graph)["_dynamo_marked_constant"] = True
