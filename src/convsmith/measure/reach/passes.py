"""The passes that find receptive fields: one over the input itself, and some over larger ones, where no border cuts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from convsmith.deploy.rounds import no_garbage_collection
from convsmith.measure.reach.mode import Reach, TooLargeError, maps_in
from convsmith.measure.untouched import attention_in_parts, left_as_it_was
from convsmith.network.shapes import Shape

Rows: TypeAlias = Tensor

STEP = 128  # larger inputs differ from the given one by multiples of it, so that strides meet the same remainders
LARGEST = 8192
WIDTHS = (1, 32, 96)  # of the other side of a larger input: the least with which a network runs
LONGEST_PERIOD = 64

OWN_SIZE = "the network takes no larger input"
TOO_LARGE = "larger inputs would take too much memory, as attention over all places does"
CUT = "a border cuts it everywhere, in an input of {} pixels too"
STAYS = "the map stays of one size while the input grows"
AT_ONCE = "what is read is a whole map at once, or nothing"
IRREGULAR = "fields do not repeat"


@dataclass(frozen=True)
class Lines:
    """A map's fields along one axis: value i sees `size` lines at most, from `start + stride * i` on."""

    size: int
    stride: float
    start: float


class Exact(NamedTuple):
    """What the values of each module's map see of the input itself.

    Attributes:
        extents: By module path, (4, h, w): first row, first column, last row, last column seen.
        wholes: In the order of calls, of each map and sequence (N, L, C) of several places: whether every value of it
            sees the whole input.
        assumptions: What was assumed, by operator.
    """

    extents: dict[str, Rows]
    wholes: dict[str, bool]
    assumptions: dict[str, str]


def exact_extents(module: nn.Module, input_shape: Shape) -> Exact:
    """One pass over the input as it is, borders included."""
    _, channels, height, width = input_shape
    rows, columns = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
    planes = [plane.expand(height, width) for plane in (rows, columns, -rows, -columns)]
    numbers = torch.stack(planes)[:, None].expand(4, channels, height, width).clone()
    sequences: set[str] = set()
    reach, maps = _pass(module, numbers, local=False, sequences=sequences)
    limits = torch.tensor([0, 0, 1 - height, 1 - width]).view(4, 1, 1)
    found = {path: least for path, least in maps.items() if least.shape[0] == 4}
    extents = {path: torch.maximum(least, limits) for path, least in found.items()}
    wholes = {path: own[0].numel() > 1 and bool((own <= limits).all()) for path, own in extents.items()}
    mapped = {path: torch.cat((own[:2], -own[2:])) for path, own in extents.items() if path not in sequences}
    return Exact(mapped, wholes, reach.assumptions)


def unclipped_lines(
    module: nn.Module, input_shape: Shape, paths: Iterable[str]
) -> tuple[dict[str, Lines | str], dict[str, Lines | str]]:
    """By module path, the fields along rows and along columns, from inputs so large that borders cut some no more.

    In the place of those that could not be found stands why.
    """
    paths = list(paths)
    return _along(module, input_shape, 0, paths), _along(module, input_shape, 1, paths)


def _along(module: nn.Module, input_shape: Shape, axis: int, paths: Sequence[str]) -> dict[str, Lines | str]:
    length, other = input_shape[2 + axis], input_shape[3 - axis]
    widths, found = [width for width in WIDTHS if width < other] + [other], dict[str, Lines]()
    why = dict.fromkeys(paths, OWN_SIZE)
    grown, counts = length, dict[str, int]()
    while grown < LARGEST:
        grown += STEP * max(1, math.ceil(grown / STEP))
        maps, fault = _lines_of(module, input_shape[1], grown, widths[0], axis)
        while fault == OWN_SIZE and len(widths) > 1:
            del widths[0]
            maps, fault = _lines_of(module, input_shape[1], grown, widths[0], axis)
        fields = {path: _lines(least, grown) for path, least in maps.items() if path not in found}
        found.update((path, lines) for path, lines in fields.items() if isinstance(lines, Lines))
        # A map that stays as it is while the input grows has no fields of one size.
        cut = [path for path, lines in fields.items() if lines is None and maps[path].shape[1] != counts.get(path)]
        counts = {path: least.shape[1] for path, least in maps.items()}
        why |= {path: lines or STAYS for path, lines in fields.items() if not isinstance(lines, Lines)}
        why |= dict.fromkeys(cut, CUT.format(grown))
        why |= dict.fromkeys((path for path in paths if fault and path not in maps), fault)
        if fault or not cut:
            break
    fields_or_why: dict[str, Lines | str] = {**why, **found}
    return fields_or_why


def _lines_of(module: nn.Module, channels: int, length: int, width: int, axis: int) -> tuple[dict[str, Tensor], str]:
    """By path, (2, n): the first line and the negated last one that each of n values sees; and why not all ran."""
    lines = torch.arange(length).float()
    lines = lines[:, None].expand(length, width) if axis == 0 else lines[None].expand(width, length)
    numbers = torch.stack((lines, -lines))[:, None]
    numbers = numbers.expand(2, channels, *lines.shape).clone()
    maps: dict[str, Tensor] = {}
    try:
        _pass(module, numbers, local=True, maps=maps)
        fault = ""
    except TooLargeError:
        fault = TOO_LARGE
    except Exception:  # a network that takes inputs of its own size alone: the maps that came before are known
        fault = OWN_SIZE
    whole = {path: least for path, least in maps.items() if least.shape[0] == 2 and least.numel()}
    return {path: least.amin(2 - axis) for path, least in whole.items()}, fault or (
        OWN_SIZE if len(whole) < len(maps) else ""
    )


def _lines(least: Tensor, length: int) -> Lines | str | None:
    """The fields of one map; None where all are cut by a border, a reason where larger inputs would not help."""
    first, last = least[0].double(), -least[1].double()
    if not bool(torch.isfinite(first).any()):
        return AT_ONCE
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
    return None if high - low < 4 * LONGEST_PERIOD else IRREGULAR


def _step(values: Tensor, period: int) -> float | None:
    """By how much values grow over a period, always; where there are none, there are none a period later."""
    now, later = values[:-period], values[period:]
    some = torch.isfinite(now)
    if not bool(some.any()) or not torch.equal(some, torch.isfinite(later)):
        return None
    steps = (later - now)[some]
    return float(steps[0]) if steps[0] > 0 and bool((steps == steps[0]).all()) else None


def _pass(
    module: nn.Module,
    numbers: Tensor,
    *,
    local: bool,
    maps: dict[str, Tensor] | None = None,
    sequences: set[str] | None = None,
) -> tuple[Reach, dict[str, Tensor]]:
    """One pass over numbers; `maps` is filled with the least over channels of each module's last map.

    Where `sequences` are asked for, `maps` has those (N, L, C) of modules without a map too, and `sequences` their
    paths.
    """
    maps = {} if maps is None else maps
    reach = Reach(numbers, local=local)
    paths = {id(part): path for path, part in module.named_modules()}
    latest: list[Any] = [None, None, None]  # modules inside one another often return the same map

    def leave(part: nn.Module, args: Any, output: Any) -> None:
        path = paths.get(id(part))
        found = [each for each in maps_in(output) if reach.reaches(each)]
        if path is not None and not found and sequences is not None:
            listed = [each for each in maps_in(output, axes=3) if reach.reaches(each) and min(each.shape[1:]) > 1]
            if listed:
                maps.pop(path, None)
                maps[path] = listed[0].detach().clone()
                sequences.add(path)
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
