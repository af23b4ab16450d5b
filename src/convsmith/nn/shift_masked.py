"""The shift operation (`shift.py`) of interleaved channels as one masked copy, for maps in rows on the CPU.

Planes that move differently are short pieces to copy, and their borders are shorter ones. One pass over integers of the
same size does both: what each channel reads, and zero where that is outside of the map.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from convsmith.nn.memory_format import is_channels_last
from convsmith.nn.native import is_followed
from convsmith.nn.shift_forms import Moves

# Up to so many elements one more copy of them takes less time than the operators that do without it.
FEW_ELEMENTS = 2**18
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def is_masked(x: Tensor, moves: Moves) -> bool:
    """Whether `by_masking` takes this map: neighbouring planes must lie further apart than taps do."""
    if not (moves.interleaved and moves.stride == 1 and x.is_cpu and x.is_floating_point()) or x.is_neg():
        return False
    apart = 0 < 2 * _reach(x, moves) < x.shape[2] * x.shape[3]
    return apart and len(x) > 0 and not is_channels_last(x) and not is_followed()


def by_masking(x: Tensor, moves: Moves) -> Tensor:
    """The shifted map, in rows."""
    x = x.contiguous()
    out = torch.empty_like(x)
    integer = _INTEGERS[x.element_size()]
    source, target = x.view(integer), out.view(integer)
    images, channels, height, width = x.shape
    k, dilation, _, _, sign = moves
    area, taps, reach = height * width, k * k, _reach(x, moves)
    groups, rest = divmod(channels, taps)
    mask = _mask(height, width, moves, integer)
    # Along: images, groups of channels, rows and columns of taps, places of a plane.
    read = (channels * area, taps * area, k * area + sign * dilation * width, area + sign * dilation, 1)
    written = (channels * area, taps * area, k * area, area, 1)

    def move(source: Tensor, start: int, target_start: int, images: int, groups: int) -> None:
        size = (max(0, images), max(0, groups), k, k, area)
        moved = target.as_strided(size, written, target_start)
        torch.bitwise_and(source.as_strided(size, read, start), mask, out=moved)

    first = int(source.storage_offset()) - sign * reach
    if sign < 0:  # the first taps read ahead and the last ones back: all stay inside
        move(source, first, 0, images, groups)
    elif x.numel() <= FEW_ELEMENTS or images * groups == 1:
        slack = source.new_empty(reach)
        move(torch.cat((slack, source.view(-1), slack)), 0, 0, images, groups)
    else:
        # The first plane of all and the last one read outside of the memory: their groups are maps of their own.
        out[:1, :taps] = by_masking(x[:1, :taps], moves)
        if rest:
            move(source, first + taps * area, taps * area, images, groups - 1)
            move(source, first + channels * area, channels * area, images - 1, 1)
        else:
            move(source, first + taps * area, taps * area, 1, images * groups - 2)
            out[-1:, -taps:] = by_masking(x[-1:, -taps:], moves)
    if rest:
        out[:, -rest:] = x[:, -rest:]
    return out


def _reach(x: Tensor, moves: Moves) -> int:
    """Places in memory from a pixel to the one that the first tap, or the last one, reads."""
    return moves.kernel_size // 2 * moves.dilation * (x.shape[3] + 1)


@lru_cache(maxsize=64)
def _mask(height: int, width: int, moves: Moves, integer: torch.dtype) -> Tensor:
    """(k, k, H * W), all bits set where a tap reads inside of the map."""
    with torch.inference_mode(False):
        inside = []
        for dy, dx in moves.displacements:
            rows, columns = torch.arange(height) + dy, torch.arange(width) + dx
            valid = [(at >= 0) & (at < side) for at, side in ((rows, height), (columns, width))]
            inside.append(valid[0][:, None] & valid[1])
        return torch.stack(inside).view(moves.kernel_size, moves.kernel_size, -1).to(integer).neg()
