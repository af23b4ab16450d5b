"""The shift operation (`shift.py`) as strided copies.

By (dy, dx) a map in rows shifts by dy * W + dx places of its memory, but for the borders, where that leads into another
row or channel. As the displacements form a grid, the shift of all channels is one strided view of the input. It is
copied in one piece, or in five, whatever the kernel size, and the borders are zeroed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.shift_forms import Moves, by_padding
from convsmith.nn.shift_masked import by_masking, is_masked

# Up to so many elements one more copy of them takes less time than the calls of operators that it saves.
FEW_ELEMENTS = 2**16


def by_copying(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in the memory format of `x`."""
    if is_masked(x, moves):
        return by_masking(x, moves)
    channels_last = is_channels_last(x)
    plan = _plan(tuple(x.shape), moves, channels_last)
    if plan is None:
        return by_padding(x, moves, channels_last=channels_last)
    x = x if channels_last else x.contiguous()
    form = torch.channels_last if channels_last else torch.contiguous_format
    out = x.clone() if plan.from_input else torch.empty(plan.shape, dtype=x.dtype, device=x.device, memory_format=form)
    source = x
    if plan.slack:
        slack = x.new_empty(plan.slack)
        source = torch.cat((slack, x.as_strided((x.numel(),), (1,)), slack))
    start = source.storage_offset()
    for size, read, first, written, target in plan.copies:
        out.as_strided(size, written, target).copy_(source.as_strided(size, read, start + first))
    for size, strides, first in plan.borders:
        out.as_strided(size, strides, first).zero_()
    return out


class _Copy(NamedTuple):
    size: tuple[int, ...]
    read: tuple[int, ...]
    source: int
    written: tuple[int, ...]
    target: int


class _Border(NamedTuple):
    size: tuple[int, ...]
    strides: tuple[int, ...]
    start: int


class _Plan(NamedTuple):
    """Views of the source, which is the input between `slack` places at either end, and of the output."""

    shape: tuple[int, ...]
    from_input: bool
    slack: int
    copies: tuple[_Copy, ...]
    borders: tuple[_Border, ...]


@lru_cache(maxsize=1024)
def _plan(shape: tuple[int, ...], moves: Moves, channels_last: bool) -> _Plan | None:
    """What to copy and what to zero; None where the taps' steps in memory are not all forward."""
    batch, channels, height, width = shape
    k, dilation, stride, interleaved, sign = moves
    group, rest = divmod(channels, k * k)
    rows, columns = -(-height // stride), -(-width // stride)
    image, channel, row, column = _strides(channels, height, width, channels_last)
    out_image, out_channel, out_row, out_column = _strides(channels, rows, columns, channels_last)
    # Along: images, members of a group of channels, rows and columns of taps, rows and columns of the map.
    size = (batch, group, k, k, rows, columns)
    member, tap = (k * k, 1) if interleaved else (1, group)
    steps = tap * k * channel + sign * dilation * row, tap * channel + sign * dilation * column
    if min(steps) < 0:
        return None
    read = (image, member * channel, *steps, stride * row, stride * column)
    written = (out_image, member * out_channel, tap * k * out_channel, tap * out_channel, out_row, out_column)
    reach = k // 2 * dilation * (row + column)
    run = tap * channel
    few = batch * channels * height * width <= FEW_ELEMENTS
    slack = 0
    if sign < 0 or reach == 0:  # the first taps read ahead and the last ones back: all stay inside
        copies = [_Copy(size, read, reach, written, 0)]
    elif few or channels_last or stride > 1 or run < reach:
        slack = reach
        copies = [_Copy(size, read, 0, written, 0)]
    else:
        copies = list(_copies_inside(run, reach, size, read, written))
    from_input = few and stride == 1
    if rest and not from_input:
        copies.append(
            _Copy(
                (batch, rest, rows, columns),
                (image, channel, stride * row, stride * column),
                slack + (channels - rest) * channel,
                (out_image, out_channel, out_row, out_column),
                (channels - rest) * out_channel,
            )
        )
    borders = tuple(_borders(moves, (height, width), size, written, paired=few or not interleaved))
    return _Plan((batch, channels, rows, columns), from_input, slack, tuple(copies), borders)


def _strides(channels: int, height: int, width: int, channels_last: bool) -> tuple[int, int, int, int]:
    """Of images, channels, rows and columns."""
    image, plane = channels * height * width, height * width
    return (image, 1, width * channels, channels) if channels_last else (image, plane, width, 1)


def _copies_inside(
    run: int, reach: int, size: Sequence[int], read: Sequence[int], written: Sequence[int]
) -> Iterator[_Copy]:
    """Copies of `run` places in a row that never read outside of the input: what they leave out is border."""
    batch, group, k, *_ = size
    members = group if written[1] > written[3] else 1
    for i0, i1, j0, j1, first, last in (
        (1, k - 1, 0, k, 0, run),
        (0, 1, 1, k, 0, run),
        (k - 1, k, 0, k - 1, 0, run),
        (0, 1, 0, 1, reach, run),
        (k - 1, k, k - 1, k, 0, run - reach),
    ):
        yield _Copy(
            (batch, members, i1 - i0, j1 - j0, last - first),
            (*read[:4], 1),
            i0 * read[2] + j0 * read[3] + first - reach,
            (*written[:4], 1),
            i0 * written[2] + j0 * written[3] + first,
        )


def _borders(
    moves: Moves, sides: Sequence[int], size: Sequence[int], written: Sequence[int], *, paired: bool
) -> Iterator[_Border]:
    """What read outside of the map: for each distance the near edge in one row of taps, the far edge in another.

    The same in the columns. `paired` edges of one width are one view: one call, though a slower one where it breaks a
    long row of equal steps.
    """
    k, out_sides = moves.kernel_size, size[4:]
    for axis, (side, out_side) in enumerate(zip(sides, out_sides, strict=True)):
        tap, place = written[2 + axis], written[4 + axis]
        along, other_tap, other_place = out_sides[1 - axis], written[3 - axis], written[5 - axis]
        for t in range(k // 2):
            distance = (k // 2 - t) * moves.dilation
            near = min(out_side, -(-distance // moves.stride))
            far = min(out_side, out_side + (distance - side) // moves.stride)
            back, ahead = (t, k - 1 - t)[:: moves.sign]
            edges = sorted([(back * tap, near), (ahead * tap + (out_side - far) * place, far)])
            together = paired and near == far
            gap = edges[1][0] - edges[0][0]
            for start, width in edges[:1] if together else edges:
                yield _Border(
                    (*size[:2], 2 if together else 1, k, along, width),
                    (*written[:2], gap, other_tap, other_place, place),
                    start,
                )
