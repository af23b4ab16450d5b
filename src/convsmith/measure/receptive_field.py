"""The receptive field: which pixels of the input each value of a map depends on, and how much.

The theoretical field is exact, for any module: `reach.py` says how it is found. The effective one is the gradient
(Luo et al. 2016, arXiv:1701.04128): pixels in the middle of the field count far more than those at its edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from convsmith.arch import Architecture
from convsmith.deploy.silence import reason
from convsmith.deploy.snapshot import module_of
from convsmith.measure.count import count
from convsmith.measure.effective_field import EffectiveField, effective_field
from convsmith.measure.fitting import FAILURES, fitted, place
from convsmith.measure.reach.passes import Lines, Rows, exact_extents, unclipped_lines
from convsmith.measure.untouched import in_eval_mode, twin
from convsmith.network import build
from convsmith.network.shapes import Shape, check_shape

Pair = tuple[float, float]


@dataclass(frozen=True)
class Field:
    """The receptive fields of a map's values, rows first: the value at (i, j) sees `start + stride * (i, j)` and on.

    Attributes:
        map_size: Height and width of the map for the input that was given.
        size: Height and width of the field where no border cuts it; of several kinds of values (behind an upsampling)
            the largest. None where it could not be known: the map has no such field, as behind global pooling, or the
            module takes inputs of this size only.
        stride: Pixels from one field to the next; below 1 behind an upsampling.
        start: The first row and column of the field of value (0, 0): negative, as most of it lies in the padding.
        sees_everything: Whether each value depends on the whole input besides, by what reads a map as a whole: global
            pooling in squeeze-and-excitation, a norm over the map, attention. `size`, `stride` and `start` leave it
            out.
        sees_whole: Whether each value depends on every row, and on every column, of the input besides, however few of
            the other: of the columns alone where something is averaged along rows.
        reason: Why `size` is None; "" where it is not.
    """

    map_size: tuple[int, int]
    size: tuple[int, int] | None
    stride: Pair | None
    start: Pair | None
    sees_everything: bool
    sees_whole: tuple[bool, bool]
    reason: str


@dataclass(frozen=True)
class ReceptiveField(Field):
    """The field of the map at `path`, and exactly what each of its values sees.

    Attributes:
        path: The module whose output the map is, as in `named_modules`.
        input_size: Height and width of the input.
        by_module: The field behind each module that returns a map, in the order of their calls.
        whole_behind: Path of the first map, or sequence (N, L, C), behind this one that has no field of its own and
            sees the whole input with each of its values, as attention does; None where there is none. A map of one
            value, as of global pooling, does not count.
        assumptions: What was assumed, by operator: that one reads its regular grid, or all there is.
        effective: The effective field, where it was asked for.
    """

    path: str
    input_size: tuple[int, int]
    by_module: Mapping[str, Field]
    whole_behind: str | None
    assumptions: Mapping[str, str]
    effective: EffectiveField | None
    _extents: Tensor = field(repr=False, compare=False)

    def extent(self, row: int, column: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """First and last row, first and last column that the value at (row, column) depends on, in any channel.

        Within the input, whatever reads whole maps included; None where it depends on no pixel.
        """
        top, left, bottom, right = self._extents[:, row, column].tolist()
        return None if top > bottom or left > right else ((int(top), int(bottom)), (int(left), int(right)))


def receptive_field(
    network: nn.Module | Architecture,
    input_shape: Shape = (1, 3, 224, 224),
    *,
    at: str | None = None,
    effective: bool = False,
    share: float = 0.95,
) -> ReceptiveField:
    """The receptive field of the last map of a network for an input (N, C, H, W), in eval mode; N does not matter.

    The last map is the output of the last module, in the order of calls, whose fields have a size; global pooling and
    what follows it have none. `at` names another module. Fields are the smallest boxes around what is seen: holes, as
    dilation leaves them, are inside. Padding is nothing to depend on. A shift reads one pixel in each channel, an
    irregular convolution its present positions, interpolation and transposed convolution what they really read, which
    differs from value to value. A deformable convolution reads where the data say: its regular grid is taken, with all
    that its offsets depend on, and `assumptions` says so, as it does of operators without a rule.

    The module is copied: neither it nor its buffers change. With `effective`, the gradient of the middle value on
    noise is added, and the box around it that holds `share` of it.

    Raises ValueError for a shape that is none of images, an unknown `at`, a module that returns no map, a forward pass
    that branches on values of a map, and an operator that cannot be followed.
    """
    input_shape = check_shape(input_shape, images=True)
    module = build(network) if isinstance(network, Architecture) else _copied(module_of(network))
    size = (input_shape[2], input_shape[3])
    with in_eval_mode(module), fitted(module, input_shape):
        try:
            extents, wholes, assumptions = exact_extents(module, input_shape)
        except FAILURES as error:
            if not _takes(module, input_shape):
                raise
            raise _unfollowed(module, input_shape, error) from error
        rows, columns = unclipped_lines(module, input_shape, extents)
        fields = {path: _field(extents[path], size, rows[path], columns[path]) for path in extents}
        path = _checked_path(at, fields)
        found = fields[path]
        effect = effective_field(module, input_shape, path, share=share) if effective else None
    return ReceptiveField(
        map_size=found.map_size,
        size=found.size,
        stride=found.stride,
        start=found.start,
        sees_everything=found.sees_everything,
        sees_whole=found.sees_whole,
        reason=found.reason,
        path=path,
        input_size=size,
        by_module=fields,
        whole_behind=_whole_behind(path, wholes, fields),
        assumptions=assumptions,
        effective=effect,
        _extents=extents[path],
    )


def _takes(module: nn.Module, input_shape: Shape) -> bool:
    """Whether the module runs on the input."""
    try:
        count(module, input_shape)
    except Exception:
        return False
    return True


def _unfollowed(module: nn.Module, input_shape: Shape, error: Exception) -> ValueError:
    """Which operator is not followed, and where: the pass once more, to see functions as the module calls them."""
    with _FailedFunction() as failed, suppress(*FAILURES):
        exact_extents(module, input_shape)
    return ValueError(
        f"the receptive field cannot be followed through {failed.name} in {place(module, error)} ({reason(error)}), "
        "though the network takes this input; ask for the field of the part in front of this module, or put another "
        "operator in its place"
    )


class _FailedFunction(TorchFunctionMode):
    """Keeps the name of the last function of torch that raised."""

    name = "its forward"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except FAILURES:
            self.name = resolve_name(func) or getattr(func, "__name__", self.name)
            raise


def _copied(module: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU; half precision cannot count pixels. What is on the meta device stays there."""
    copied = twin(module).float()
    return copied.cpu() if any(tensor.is_cuda for tensor in (*copied.parameters(), *copied.buffers())) else copied


def _checked_path(at: str | None, fields: Mapping[str, Field]) -> str:
    if not fields:
        raise ValueError("a receptive field is that of a map (N, C, H, W), and no module of this network returns one")
    if at is not None and at not in fields:
        raise ValueError(f"no map comes out of {at!r}; those that return one are {', '.join(list(fields)[:8])}, ...")
    sized = [path for path, own in fields.items() if own.size is not None]
    large = [path for path, own in fields.items() if max(own.map_size) > 1]
    return at if at is not None else (sized or large or list(fields))[-1]


def _whole_behind(path: str, wholes: Mapping[str, bool], fields: Mapping[str, Field]) -> str | None:
    later = list(wholes)
    later = later[later.index(path) + 1 :]
    return next((own for own in later if wholes[own] and (own not in fields or fields[own].size is None)), None)


def _field(extents: Rows, size: tuple[int, int], rows: Lines | str, columns: Lines | str) -> Field:
    """One map's field from its exact extents (4, h, w) and its lines in larger inputs."""
    map_size = (extents.shape[1], extents.shape[2])
    last = torch.tensor([size[0] - 1, size[1] - 1]).view(2, 1, 1)
    seen = (extents[:2] <= 0) & (extents[2:] >= last)
    whole = bool(seen[0].all()), bool(seen[1].all())
    if isinstance(rows, str):
        return Field(map_size, None, None, None, all(whole), whole, rows)
    if isinstance(columns, str):
        return Field(map_size, None, None, None, all(whole), whole, columns)
    # Otherwise what each value sees of the whole is more than its own field: that of a corner ends inside.
    reaches = [
        line.start + line.size >= side and line.start + line.stride * (count - 1) <= 0
        for line, side, count in zip((rows, columns), size, map_size, strict=True)
    ]
    return Field(
        map_size,
        (rows.size, columns.size),
        (rows.stride, columns.stride),
        (rows.start, columns.start),
        all(whole) and not all(reaches),
        (whole[0] and not reaches[0], whole[1] and not reaches[1]),
        "",
    )
