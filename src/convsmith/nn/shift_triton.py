"""The shift operation (`shift.py`) as Triton kernels, one for maps in rows and one for channels-last ones.

Both compute on a tile what its rows and its columns have in common once, and only add and compare for each element:
divisions for each would take longer than memory does.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from convsmith.nn import shift_cpu  # noqa: F401  (defines the operator)
from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.shift_forms import Moves

# Elements of a tile, the best of a dozen on an H100: planes and their positions in rows, of small planes and of others;
# pixels down and across, and channels, in channels-last maps.
SMALL, OTHERS = (32, 64), (8, 128)
DOWN, ACROSS, CHANNELS = 2, 8, 64


@triton.jit  # type: ignore[untyped-decorator]
def _displacements(c, group, dilation, k: tl.constexpr, interleaved: tl.constexpr):  # type: ignore[no-untyped-def]
    """(dy, dx) of channels; a negative dilation shifts back."""
    tap = c % (k * k) if interleaved else c // group
    tap = tl.where(c < group * k * k, tap, k * k // 2)
    return (tap // k - k // 2) * dilation, (tap % k - k // 2) * dilation


@triton.jit  # type: ignore[untyped-decorator]
def _rows_kernel(  # type: ignore[no-untyped-def]
    x, out, planes, channels, height, width, area, columns, out_area, group, dilation,
    k: tl.constexpr, stride: tl.constexpr, interleaved: tl.constexpr, rows: tl.constexpr, positions: tl.constexpr,
):  # fmt: skip
    """A tile of planes (of images and their channels) and positions."""
    plane = tl.program_id(0) * rows + tl.arange(0, rows)
    place = tl.program_id(1) * positions + tl.arange(0, positions)
    dy, dx = _displacements(plane % channels, group, dilation, k, interleaved)
    y = (place // columns * stride)[None, :] + dy[:, None]
    z = (place % columns * stride)[None, :] + dx[:, None]
    inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
    exists = (plane < planes)[:, None] & (place < out_area)[None, :]
    plane = plane.to(tl.int64)[:, None]
    value = tl.load(x + plane * area + (y * width + z), mask=exists & inside, other=0.0)
    tl.store(out + plane * out_area + place[None, :], value, mask=exists)


@triton.jit  # type: ignore[untyped-decorator]
def _last_kernel(  # type: ignore[no-untyped-def]
    x, out, channels, height, width, rows, columns, tiles_down, tiles_across, group, dilation,
    k: tl.constexpr, stride: tl.constexpr, interleaved: tl.constexpr,
    down: tl.constexpr, across: tl.constexpr, size: tl.constexpr,
):  # fmt: skip
    """A tile of an image's pixels, down and across, and channels: what a pixel's neighbours read is read nearby."""
    tile = tl.program_id(0)
    image = (tile // (tiles_down * tiles_across)).to(tl.int64)
    pixel = tl.arange(0, down * across)
    h = tile // tiles_across % tiles_down * down + pixel // across
    w = tile % tiles_across * across + pixel % across
    c = tl.program_id(1) * size + tl.arange(0, size)
    dy, dx = _displacements(c, group, dilation, k, interleaved)
    y = (h * stride)[:, None] + dy[None, :]
    z = (w * stride)[:, None] + dx[None, :]
    inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
    exists = ((h < rows) & (w < columns))[:, None] & (c < channels)[None, :]
    source = x + image * height * width * channels
    value = tl.load(source + (y * width + z) * channels + c[None, :], mask=exists & inside, other=0.0)
    target = out + image * rows * columns * channels
    tl.store(target + (h * columns + w)[:, None] * channels + c[None, :], value, mask=exists)


def by_triton(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in the memory format of `x`."""
    last = is_channels_last(x)
    form = torch.channels_last if last else torch.contiguous_format
    x = x.contiguous(memory_format=form)
    batch, channels, height, width = x.shape
    rows, columns = -(-height // moves.stride), -(-width // moves.stride)
    out = torch.empty((batch, channels, rows, columns), dtype=x.dtype, device=x.device, memory_format=form)
    steps = channels // moves.kernel_size**2, moves.sign * moves.dilation
    kind = {"k": moves.kernel_size, "stride": moves.stride, "interleaved": moves.interleaved}
    launch: Any
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        if last:
            tiles = triton.cdiv(rows, DOWN), triton.cdiv(columns, ACROSS)
            size = min(CHANNELS, triton.next_power_of_2(channels))
            launch = _last_kernel[(batch * tiles[0] * tiles[1], triton.cdiv(channels, size))]
            sizes = (channels, height, width, rows, columns, *tiles, *steps)
            launch(x, out, *sizes, **kind, down=DOWN, across=ACROSS, size=size)
        else:
            planes, area, out_area = batch * channels, height * width, rows * columns
            down, across = SMALL if out_area <= SMALL[1] else OTHERS
            launch = _rows_kernel[(triton.cdiv(planes, down), triton.cdiv(out_area, across))]
            sizes = (planes, channels, height, width, area, columns, out_area, *steps)
            launch(x, out, *sizes, **kind, rows=down, positions=across)
    return out


@torch.library.register_kernel("convsmith::shift", "cuda")  # type: ignore[untyped-decorator]
def _as_operator(
    x: Tensor, kernel_size: int, dilation: int, stride: int, interleaved: bool, sign: int, channels_last: bool
) -> Tensor:
    return by_triton(x, Moves(kernel_size, dilation, stride, interleaved, sign))
