"""Least numbers over windows: convolutions, pooling, interpolation and sampling, as `Reach` answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING = float("inf")
_MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_TINY = 1e-9  # below it, a coefficient of an interpolation is rounding


def structural(constant: Tensor) -> Tensor | None:
    """Where a constant is not zero; None where it is to be taken as zero nowhere.

    A parameter that is trained is zero nowhere, whatever its present values, and so is what is all zero, as a kernel
    with a gain that starts there. Other constants (a mask, the taps of a shift, a frozen kernel) are what they are.
    ValueError for one on the meta device, which has no values.
    """
    if constant.requires_grad:
        return None
    if constant.is_meta:
        raise ValueError("a receptive field reads the zeros of constants; build the module off the meta device")
    nonzero = constant != 0
    return None if bool(nonzero.all()) or not bool(nonzero.any()) else nonzero


def convolution(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *,
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
) -> Tensor:
    """The least over the window of each output, in the channels of its group."""
    axes = weight.dim() - 2
    unbatched = x.dim() == axes + 1
    x = x[None] if unbatched else x
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels:
        raise ValueError(f"a convolution of {channels} channels got {x.shape[1]}; give an input of as many as it takes")
    stride, padding, dilation, more = (_each(v, axes) for v in (stride, padding, dilation, output_padding))
    sizes = weight.shape[2:]
    nonzero = structural(weight)
    reach = [d * (k - 1) for d, k in zip(dilation, sizes, strict=True)]
    if transposed:
        sides = [(r - p, r - p + o) for r, p, o in zip(reach, padding, more, strict=True)]
        out_channels = weight.shape[1] * groups
        if nonzero is not None:
            swapped = nonzero.view(groups, -1, *nonzero.shape[1:]).transpose(1, 2).flatten(0, 1)
            nonzero = swapped.flip(tuple(range(2, 2 + axes)))
    else:
        sides = [(p, p) for p in padding]
        out_channels = weight.shape[0]
    if nonzero is None:
        x = x.reshape(len(x), groups, -1, *x.shape[2:]).amin(2)
    x = _stuffed(x, stride) if transposed else x
    x = F.pad(x, [side for pair in reversed(sides) for side in pair], value=NOTHING)
    steps = [1] * axes if transposed else stride
    if nonzero is None:
        y = _windows(x, sizes, steps, dilation).repeat_interleave(out_channels // groups, 1)
    else:
        y = _by_taps(x, nonzero, steps, dilation, groups)
    return y[0] if unbatched else y


def _windows(x: Tensor, sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Axis by axis: the least over a box is that of the least over its lines."""
    axes = len(sizes)
    for axis, (size, step, spread) in enumerate(zip(sizes, stride, dilation, strict=True)):
        if size > 1 or step > 1:
            kernel, steps, spreads = ([v if i == axis else 1 for i in range(axes)] for v in (size, step, spread))
            x = -_MAX_POOL[axes](-x, kernel, steps, 0, spreads)
    return x


def _by_taps(x: Tensor, nonzero: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> Tensor:
    """The least over the taps of a kernel (out, in / groups, ...) that are not zero."""
    sizes = nonzero.shape[2:]
    counts = [
        (length - d * (k - 1) - 1) // s + 1
        for length, d, k, s in zip(x.shape[2:], dilation, sizes, stride, strict=True)
    ]
    least = torch.full((x.shape[0], nonzero.shape[0], *counts), NOTHING)
    for index, tap in enumerate(product(*map(range, sizes))):
        pattern = nonzero.flatten(2)[..., index]
        if pattern.any():
            places = [
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, dilation, stride, counts, strict=True)
            ]
            least = torch.minimum(least, selected(x[(slice(None), slice(None), *places)], pattern, groups))
    return least


def selected(x: Tensor, pattern: Tensor, groups: int) -> Tensor:
    """(N, C, ...) -> (N, out, ...): the least of the channels of its group that each row of (out, C / groups) marks."""
    out = pattern.shape[0] // groups
    if pattern.shape[1] == 1:
        marked = pattern.view(1, -1, *[1] * (x.dim() - 2))
        return torch.where(marked, x.repeat_interleave(out, 1), NOTHING)
    results = []
    for own, rows in zip(x.chunk(groups, 1), pattern.chunk(groups), strict=True):
        kinds, kind = torch.unique(rows, dim=0, return_inverse=True)
        least = [own[:, row].amin(1) if row.any() else torch.full_like(own[:, 0], NOTHING) for row in kinds]
        results.append(torch.stack(least, 1)[:, kind])
    return torch.cat(results, 1)


def _stuffed(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The map with stride - 1 places without a pixel between its elements."""
    sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True)]
    wide = torch.full((*x.shape[:2], *sizes), NOTHING)
    wide[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = x
    return wide


def pooled(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    ceil_mode: bool,
) -> Tensor:
    """The least over pooling windows; those of an average are those of a maximum."""
    axes = len(kernel_size) if len(kernel_size) > 1 else min(3, max(1, x.dim() - 2))
    largest: Tensor = _MAX_POOL[axes](-x, kernel_size, list(stride) or None, padding, _each(dilation, axes), ceil_mode)
    return -largest


def adaptive_windows(size: int, out: int) -> Tensor:
    """(out, size): output i reads from floor(i size / out) to below ceil((i + 1) size / out)."""
    i, place = torch.arange(out)[:, None], torch.arange(size)
    return (place >= i * size // out) & (place < -(-(i + 1) * size // out))


def read_by_axis(func: Any, named: Mapping[str, Any]) -> Tensor:
    """An interpolation that is one along each axis."""
    x: Tensor = named["self"]
    linear = any(kind in func._schema.name for kind in ("nearest", "linear")) and "_aa" not in func._schema.name
    for axis in range(x.dim() - 2):
        size = x.shape[2 + axis]
        if linear:  # of a row of places it makes the place that is read, between two pixels or on one
            at = _along(func, named, axis, torch.arange(size, dtype=torch.float64)[None])[0]
            places = torch.stack(((at + _TINY).floor(), (at - _TINY).ceil()), 1).long()
            x = gathered(x, 2 + axis, places, torch.ones_like(places, dtype=torch.bool))
        else:
            weights = _along(func, named, axis, torch.eye(size, dtype=torch.float64))
            x = gathered(x, 2 + axis, *marked(weights.T.abs() > _TINY))
    return x


def _along(func: Any, named: Mapping[str, Any], axis: int, values: Tensor) -> Tensor:
    """Interpolates (rows, size) along one axis alone: (rows, out)."""
    axes, other = named["self"].dim() - 2, 2  # two alike: of an axis of length 1 antialiasing mistakes the layout
    shape = [values.shape[1] if a == axis else 1 for a in range(axes)]
    given = values.view(1, len(values), *shape)
    given = given.expand(1, len(values), *(-1 if a == axis else other for a in range(axes))).contiguous()
    sizes = [named["output_size"][axis] if a == axis else other for a in range(axes)]
    others = {"scales_d", "scales_h", "scales_w"} - {"scales_" + "dhw"[axis - axes]}
    options = dict.fromkeys(others & named.keys())
    found: Tensor = func(**{**named, **options, "self": given, "output_size": sizes})
    return found[(0, slice(None), *(slice(None) if a == axis else 0 for a in range(axes)))]


def marked(reads: Tensor) -> tuple[Tensor, Tensor]:
    """The places that each row of a Boolean matrix (outputs, inputs) marks, and which of them are some at all."""
    found, places = reads.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    most = int(reads.sum(1).max())
    return places[:, :most], found[:, :most].bool()


def gathered(x: Tensor, axis: int, places: Tensor, read: Tensor) -> Tensor:
    """The least along an axis over the places (outputs, most) that each output reads."""
    shape = [-1 if i == axis else 1 for i in range(x.dim())]
    least = x.new_full((*x.shape[:axis], len(places), *x.shape[axis + 1 :]), NOTHING)
    for turn in range(places.shape[1]):
        values = x.index_select(axis, places[:, turn])
        least = torch.minimum(least, torch.where(read[:, turn].view(shape), values, NOTHING))
    return least


def sampled(x: Tensor, grid: Tensor, mode: int, align_corners: bool) -> Tensor:
    """(N, C, H, W) read at a constant grid (N, H', W', 2), bilinear (mode 0) or nearest (1), nothing outside."""
    sizes = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float64)
    at = grid.detach().double()
    at = (at + 1) / 2 * (sizes - 1) if align_corners else ((at + 1) * sizes - 1) / 2
    corners = [at.round()] if mode == 1 else [at.floor() + torch.tensor(step) for step in product((0, 1), repeat=2)]
    least = torch.full((*x.shape[:2], *grid.shape[1:3]), NOTHING)
    for corner in corners:
        read = ((corner >= 0) & (corner < sizes)).all(-1)
        if mode == 0:
            read &= ((1 - (at - corner).abs()) > _TINY).all(-1)
        place = corner.clamp(torch.zeros(2), sizes - 1).long()
        flat = (place[..., 1] * x.shape[3] + place[..., 0]).flatten(1)[:, None].expand(-1, x.shape[1], -1)
        values = x.flatten(2).gather(2, flat).view(least.shape)
        least = torch.minimum(least, torch.where(read[:, None], values, NOTHING))
    return least


def _each(values: Sequence[int], number: int) -> list[int]:
    return list(values) if len(values) == number else list(values) * number
