"""What the forms of the shift operation (`shift.py`) share: who moves where, the derivatives, and the plainest form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.native import is_batched


class Moves(NamedTuple):
    """Which channel moves where; with `sign` -1 each moves back, which is the transposed operator for stride 1."""

    kernel_size: int
    dilation: int
    stride: int
    interleaved: bool
    sign: int = 1

    @property
    def displacements(self) -> list[tuple[int, int]]:
        """(dy, dx) of each of the k * k groups of channels, in the order of a kernel's taps."""
        steps = [self.sign * self.dilation * (tap - self.kernel_size // 2) for tap in range(self.kernel_size)]
        return [(dy, dx) for dy in steps for dx in steps]


Run: TypeAlias = Callable[[Tensor, Moves], Tensor]


class Moved(torch.autograd.Function):
    """`run(x, moves)` with its derivative: the gradient moves back.

    Without `setup_context`, which would take longer than moving a small map; hence not for transforms of torch.func.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Run, moves: Moves) -> Tensor:
        """The shifted map."""
        ctx.run, ctx.moves, ctx.size = run, moves, x.shape[2:]
        return run(x, moves)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, spread over the positions that were read, moved back."""
        kernel_size, dilation, stride, interleaved, sign = ctx.moves
        if stride > 1:
            images, channels = gradient.shape[:2]
            if not is_batched(gradient) and is_channels_last(gradient):
                spread = gradient.new_zeros(images, *ctx.size, channels).permute(0, 3, 1, 2)
            else:
                spread = gradient.new_zeros(images, channels, *ctx.size)
            spread[..., ::stride, ::stride] = gradient
            gradient = spread
        back = Moves(kernel_size, dilation, 1, interleaved, -sign)
        return run_differentiably(gradient, ctx.run, back), None, None


class MovedForward(Moved):
    """The derivative in forward mode beside it, which no compiler takes: a tangent moves along."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """The tangent, moved as the map."""
        return run_differentiably(tangent, ctx.run, ctx.moves)


def run_differentiably(x: Tensor, run: Run, moves: Moves) -> Tensor:
    """`run(x, moves)`, recorded where gradients are."""
    if not torch.is_grad_enabled():
        return run(x, moves)
    moved = Moved if torch.compiler.is_compiling() else MovedForward
    return moved.apply(x, run, moves)


def by_padding(x: Tensor, moves: Moves, *, channels_last: bool = False) -> Tensor:
    """Each group of channels cropped at one side and padded at the other: what compilers and exporters understand."""
    if channels_last:
        # Said by the order of the axes: the compiler would else lay the concatenation out row by row.
        return _padded(x.permute(0, 2, 3, 1), moves, 3).permute(0, 3, 1, 2)
    return _padded(x, moves, 1)


def _padded(x: Tensor, moves: Moves, axis: int) -> Tensor:
    groups = moves.kernel_size**2
    size, rest = divmod(x.shape[axis], groups)
    height, width = (side for i, side in enumerate(x.shape) if i not in (0, axis))
    read = slice(None, None, moves.stride)

    def moved(part: Tensor, displacement: tuple[int, int]) -> Tensor:
        dy, dx = (max(-side, min(side, step)) for side, step in zip((height, width), displacement, strict=True))
        pads = (-dx, dx, -dy, dy)
        part = F.pad(part, pads if axis == 1 else (0, 0, *pads)) if dy or dx else part
        return part[:, :, read, read] if axis == 1 else part[:, read, read]

    shifting, resting = x.narrow(axis, 0, size * groups), x.narrow(axis, size * groups, rest)
    still = [moved(resting, (0, 0))] if rest else []
    if not moves.interleaved:
        return torch.cat([*map(moved, shifting.chunk(groups, axis), moves.displacements), *still], axis)
    parts = torch.unflatten(shifting, axis, (size, groups)).unbind(axis + 1)
    shifted = torch.stack(list(map(moved, parts, moves.displacements)), axis + 1).flatten(axis, axis + 1)
    return torch.cat((shifted, *still), axis) if rest else shifted
