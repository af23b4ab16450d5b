"""The shift operation (`shift.py`) as one Triton kernel, for maps in rows and for channels-last ones."""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-untyped, import-not-found, unused-ignore]
from torch import Tensor

from convsmith.nn.shift_forms import Moves, is_channels_last

BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _shift_kernel(  # type: ignore[no-untyped-def]
    x, out, channels, height, width, rows, columns, group, dilation,
    k: tl.constexpr, stride: tl.constexpr, interleaved: tl.constexpr, last: tl.constexpr, size: tl.constexpr,
):  # fmt: skip
    """One block of an image, in the order of its memory; a negative dilation shifts back."""
    image = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * size + tl.arange(0, size)
    if last:
        c = place % channels
        h, w = place // channels // columns, place // channels % columns
    else:
        c = place // (rows * columns)
        h, w = place // columns % rows, place % columns
    tap = c % (k * k) if interleaved else c // group
    tap = tl.where(c < group * k * k, tap, k * k // 2)
    h = h * stride + (tap // k - k // 2) * dilation
    w = w * stride + (tap % k - k // 2) * dilation
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    source = (h * width + w) * channels + c if last else (c * height + h) * width + w
    exists = place < channels * rows * columns
    value = tl.load(x + image * channels * height * width + source, mask=exists & inside, other=0.0)
    tl.store(out + image * channels * rows * columns + place, value, mask=exists)


def by_triton(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in the memory format of `x`."""
    last = is_channels_last(x)
    form = torch.channels_last if last else torch.contiguous_format
    x = x.contiguous(memory_format=form)
    batch, channels, height, width = x.shape
    rows, columns = -(-height // moves.stride), -(-width // moves.stride)
    out = torch.empty((batch, channels, rows, columns), dtype=x.dtype, device=x.device, memory_format=form)
    launch: Any = _shift_kernel[(batch, triton.cdiv(channels * rows * columns, BLOCK))]
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        launch(
            *(x, out, channels, height, width, rows, columns),
            *(channels // moves.kernel_size**2, moves.sign * moves.dilation),
            k=moves.kernel_size,
            stride=moves.stride,
            interleaved=moves.interleaved,
            last=last,
            size=BLOCK,
        )
    return out
