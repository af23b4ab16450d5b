"""The passes that find receptive fields: one over the input itself, and some over larger ones, where no border cuts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from convsmith.deploy.rounds import no_garbage_collection
from convsmith.measure.reach.mode import Reach, maps_in
from convsmith.measure.untouched import attention_in_parts, left_as_it_was
from convsmith.network.shapes import Shape

Rows: TypeAlias = Tensor

STEP = 128  # larger inputs differ from the given one by multiples of it, so that strides meet the same remainders
LARGEST = 8192
WIDTHS = (1, 32, 96)  # of the other side of a larger input: the least with which a network runs
LONGEST_PERIOD = 64


@dataclass(frozen=True)
class Lines:
    """A map's fields along one axis: value i sees `size` lines at most, from `start + stride * i` on."""

    size: int
    stride: float
    start: float


def exact_extents(module: nn.Module, input_shape: Shape) -> tuple[dict[str, Rows], dict[str, str]]:
    """By module path, (4, h, w): first row, first column, last row, last column seen; and what was assumed."""
    _, channels, height, width = input_shape
    rows, columns = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
    planes = [plane.expand(height, width) for plane in (rows, columns, -rows, -columns)]
    numbers = torch.stack(planes)[:, None].expand(4, channels, height, width).clone()
    reach, maps = _pass(module, numbers, local=False)
    limits = torch.tensor([0, 0, 1 - height, 1 - width]).view(4, 1, 1)
    found = {path: least for path, least in maps.items() if least.shape[0] == 4}
    extents = {path: torch.maximum(least, limits) for path, least in found.items()}
    return {path: torch.cat((own[:2], -own[2:])) for path, own in extents.items()}, reach.assumptions


def unclipped_lines(module: nn.Module, input_shape: Shape) -> tuple[dict[str, Lines], dict[str, Lines]]:
    """By module path, the fields along rows and along columns, from inputs so large that borders cut some no more."""
    return _along(module, input_shape, 0), _along(module, input_shape, 1)


def _along(module: nn.Module, input_shape: Shape, axis: int) -> dict[str, Lines]:
    length, other = input_shape[2 + axis], input_shape[3 - axis]
    widths, found = [width for width in WIDTHS if width < other] + [other], dict[str, Lines]()
    grown, counts = length, dict[str, int]()
    while grown < LARGEST:
        grown += STEP * max(1, math.ceil(grown / STEP))
        maps, ended = _lines_of(module, input_shape[1], grown, widths[0], axis)
        while not ended and len(widths) > 1:
            del widths[0]
            maps, ended = _lines_of(module, input_shape[1], grown, widths[0], axis)
        fields = {path: _lines(least, grown) for path, least in maps.items() if path not in found}
        found.update((path, lines) for path, lines in fields.items() if isinstance(lines, Lines))
        # A map that stays as it is while the input grows has no fields of one size.
        cut = [path for path, lines in fields.items() if lines is None and maps[path].shape[1] != counts.get(path)]
        counts = {path: least.shape[1] for path, least in maps.items()}
        if not ended or not cut:
            break
    return found


def _lines_of(module: nn.Module, channels: int, length: int, width: int, axis: int) -> tuple[dict[str, Tensor], bool]:
    """By path, (2, n): the first line and the negated last one that each of n values sees; and whether all ran."""
    lines = torch.arange(length).float()
    lines = lines[:, None].expand(length, width) if axis == 0 else lines[None].expand(width, length)
    numbers = torch.stack((lines, -lines))[:, None]
    numbers = numbers.expand(2, channels, *lines.shape).clone()
    maps: dict[str, Tensor] = {}
    try:
        _pass(module, numbers, local=True, maps=maps)
        ended = True
    except Exception:  # a network that takes inputs of its own size alone: the maps that came before are known
        ended = False
    whole = {path: least for path, least in maps.items() if least.shape[0] == 2 and least.numel()}
    return {path: least.amin(2 - axis) for path, least in whole.items()}, ended and len(whole) == len(maps)


def _lines(least: Tensor, length: int) -> Lines | str | None:
    """The fields of one map; None where all are cut by a border, a reason where larger inputs would not help."""
    first, last = least[0].double(), -least[1].double()
    if not bool(torch.isfinite(first).any()):
        return "reads nothing, or all there is"
    seen = torch.isfinite(first)
    inside = torch.nonzero(seen & (first > 0) & (last < length - 1)).flatten()
    # Dilated windows have holes: with its outermost tap cut off, a field may still begin inside.
    inside = inside[len(inside) // 4 : len(inside) - len(inside) // 4]
    if len(inside) < 3:
        return None
    low, high = int(inside[0]), int(inside[-1]) + 1
    for period in range(1, min(LONGEST_PERIOD, high - low - 1) + 1):
        step = _step(first[low:high], period)
        if step is not None and step == _step(last[low:high], period):
            stride, size = step / period, int((last - first)[low:high][seen[low:high]].max()) + 1
            anchor = int(next((i for i in inside if i % period == 0), inside[0]))
            return Lines(size, stride, float(first[anchor]) - stride * anchor)
    return None if high - low < 4 * LONGEST_PERIOD else "has fields that do not repeat"


def _step(values: Tensor, period: int) -> float | None:
    """By how much values grow over a period, always; where there are none, there are none a period later."""
    now, later = values[:-period], values[period:]
    some = torch.isfinite(now)
    if not bool(some.any()) or not torch.equal(some, torch.isfinite(later)):
        return None
    steps = (later - now)[some]
    return float(steps[0]) if steps[0] > 0 and bool((steps == steps[0]).all()) else None


def _pass(
    module: nn.Module, numbers: Tensor, *, local: bool, maps: dict[str, Tensor] | None = None
) -> tuple[Reach, dict[str, Tensor]]:
    """One pass over numbers; `maps` is filled with the least over channels of each module's last map."""
    maps = {} if maps is None else maps
    reach = Reach(numbers, local=local)
    paths = {id(part): path for path, part in module.named_modules()}
    latest: list[Any] = [None, None, None]  # modules inside one another often return the same map

    def leave(part: nn.Module, args: Any, output: Any) -> None:
        path = paths.get(id(part))
        found = [each for each in maps_in(output) if reach.reaches(each)]
        if path is not None and found:
            maps.pop(path, None)  # the order is that of the last calls
            output = found[-1]
            if latest[0] is not output or latest[1] != output._version:
                least = output.detach().amin(1) if output.numel() else output.detach()[:, 0]
                latest[:] = output, output._version, least
            maps[path] = latest[2]

    with no_garbage_collection(), left_as_it_was([]), attention_in_parts(), torch.no_grad(), _hooked(leave), reach:
        module(numbers)
    return reach, maps


@contextmanager
def _hooked(leave: Any) -> Iterator[None]:
    handle = register_module_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()
