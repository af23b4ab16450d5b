"""Where values are: shapes, joining and cutting, padding, shuffles and scaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from convsmith.deploy.onnx.forms.table import operator
from convsmith.deploy.onnx.graph import Graph
from convsmith.deploy.onnx.record import Call, Value
from convsmith.deploy.onnx.refusals import NotQuickError

END = 2**63 - 1
FILLED = ("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")


@operator("view", "_unsafe_view", "squeeze.dim", "squeeze.dims", "unsqueeze")
def reshape(g: Graph, call: Call, self: Value, *arguments: Any) -> str:
    if call.name == "squeeze":  # of a batch of one, the batch dimension goes
        dims = [arguments[0]] if isinstance(arguments[0], int) else arguments[0]
        g.fixed([self.shape[dim] for dim in dims])
    return g.reshape(self, self.shape, call.outputs[0].shape)


@operator("permute")
def permute(g: Graph, call: Call, self: Value, dims: Sequence[int]) -> str:
    return str(g.node("Transpose", [self], perm=[dim % len(self.shape) for dim in dims]))


@operator("transpose.int", "t")
def transpose(g: Graph, call: Call, self: Value, dim0: int = 0, dim1: int = 1) -> str:
    order = list(range(len(self.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return str(g.node("Transpose", [self], perm=order))


@operator("expand")
def expand(g: Graph, call: Call, self: Value, size: Sequence[int], implicit: bool) -> str:
    before = (1,) * (len(call.outputs[0].shape) - len(self.shape)) + self.shape
    sizes = [1 if old == new else new for old, new in zip(before, call.outputs[0].shape, strict=True)]
    return g.expanded(self, sizes)


@operator("repeat")
def repeat(g: Graph, call: Call, self: Value, repeats: Sequence[int]) -> str:
    shape = (1,) * (len(repeats) - len(self.shape)) + self.shape
    if any(g.is_batch(size) and g.is_batch(times) for size, times in zip(shape, repeats, strict=True)):
        raise NotQuickError("a batch that is repeated for each image")
    return str(g.node("Tile", [g.reshape(self, self.shape, shape), g.sizes(repeats)]))


@operator(*FILLED)
def filled(g: Graph, call: Call, *_: Any) -> str:
    kind, made = call.name.removeprefix("new_").removesuffix("_like"), call.outputs[0]
    value = call.arguments["fill_value"] if kind == "full" else int(kind == "ones")
    return g.expanded(g.typed(value, made.dtype), made.shape)


@operator("cat")
def cat(g: Graph, call: Call, tensors: Sequence[Value], dim: int) -> str:
    dtype = call.outputs[0].dtype
    return str(g.node("Concat", [g.typed(x, dtype) for x in tensors if x.shape != (0,)], axis=dim))


@operator("stack")
def stack(g: Graph, call: Call, tensors: Sequence[Value], dim: int) -> str:
    made = call.outputs[0]
    axis = dim % len(made.shape)
    parts = [g.node("Unsqueeze", [g.typed(x, made.dtype), g.constant([axis])]) for x in tensors]
    return str(g.node("Concat", parts, axis=axis))


@operator("split.Tensor", "split_with_sizes", "unbind.int")
def split(g: Graph, call: Call, self: Value, *arguments: Any) -> list[str]:
    dim = arguments[-1]
    alone = [1] * len(call.outputs)
    sizes = g.fixed(alone if call.name == "unbind" else [part.shape[dim] for part in call.outputs])
    if g.is_batch(self.shape[dim]):
        raise NotQuickError("a batch that is taken apart")
    parts = g.node("Split", [self, g.constant(sizes)], outputs=len(sizes), axis=dim)
    parts = [parts] if len(sizes) == 1 else parts
    return [g.node("Squeeze", [part, g.constant([dim])]) for part in parts] if call.name == "unbind" else parts


@operator("slice.Tensor")
def slice_(g: Graph, call: Call, self: Value, dim: int, start: int | None, end: int | None, step: int) -> str:
    if call.outputs[0].shape == self.shape:
        return g.name(self)
    bounds = g.fixed([start or 0, END if end is None or end == self.shape[dim] else end])
    return str(g.node("Slice", [self, *(g.constant([i]) for i in (bounds[0], bounds[1], dim % len(self.shape), step))]))


@operator("select.int")
def select(g: Graph, call: Call, self: Value, dim: int, index: int) -> str:
    return str(g.node("Gather", [self, g.constant(index)], axis=dim))


@operator("index_select")
def index_select(g: Graph, call: Call, self: Value, dim: int, index: Value) -> str:
    return str(g.node("Gather", [self, index], axis=dim))


@operator("index.Tensor")
def index(g: Graph, call: Call, self: Value, indices: Sequence[Value | None]) -> str:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].constant is None or given[0][1].dtype != torch.int64:
        raise NotQuickError("indices of such a kind")
    ((axis, chosen),) = given
    return str(g.node("Gather", [self, chosen], axis=axis))


@operator("constant_pad_nd")
def pad(g: Graph, call: Call, self: Value, pad: Sequence[int], value: float) -> str:
    # torch begins with the last dimension and has both ends together; ONNX has all beginnings first.
    first, last = list(pad[0::2])[::-1], list(pad[1::2])[::-1]
    axes = list(range(len(self.shape) - len(first), len(self.shape)))
    x: Value | str = self
    if min(pad) < 0:  # negative padding cuts
        starts, ends = [max(-amount, 0) for amount in first], [min(amount, 0) or END for amount in last]
        x = g.node("Slice", [x, g.constant(starts), g.constant(ends), g.constant(axes)])
    if max(pad) > 0:
        missing = [0] * axes[0]
        amounts = [max(amount, 0) for amount in (*missing, *first, *missing, *last)]
        x = g.node("Pad", [x, g.constant(amounts), g.constant(value, self.dtype)])
    return x if isinstance(x, str) else g.name(x)


@operator("reflection_pad2d", "replication_pad2d")
def pad_with_values(g: Graph, call: Call, self: Value, padding: Sequence[int]) -> str:
    left, right, top, bottom = padding
    if min(padding) < 0:
        raise NotQuickError("negative padding with values")
    missing = [0] * (len(self.shape) - 2)
    amounts = g.constant([*missing, top, left, *missing, bottom, right])
    return str(g.node("Pad", [self, amounts], mode="reflect" if "reflection" in call.name else "edge"))


@operator("channel_shuffle")
def channel_shuffle(g: Graph, call: Call, self: Value, groups: int) -> str:
    batch, channels, *sides = self.shape
    grouped, mixed = (batch, groups, channels // groups, *sides), (batch, channels // groups, groups, *sides)
    x = g.reshape(self, self.shape, grouped)
    return g.reshape(g.node("Transpose", [x], perm=[0, 2, 1, *range(3, len(grouped))]), mixed, self.shape)


@operator("pixel_shuffle")
def pixel_shuffle(g: Graph, call: Call, self: Value, upscale_factor: int) -> str:
    return str(g.node("DepthToSpace", [self], blocksize=upscale_factor, mode="CRD"))


@operator("roll")
def roll(g: Graph, call: Call, self: Value, shifts: Sequence[int], dims: Sequence[int]) -> str:
    if len(shifts) != len(dims):
        raise NotQuickError("a roll of all values")
    x: Value | str = self
    for shift, dim in zip(shifts, dims, strict=True):
        (size,) = g.fixed([self.shape[dim]])
        cut, axis, step = (size - shift) % size, g.constant([dim % len(self.shape)]), g.constant([1])
        ends = [(cut, END), (0, cut)] if cut else [(0, END)]
        parts = [g.node("Slice", [x, g.constant([a]), g.constant([b]), axis, step]) for a, b in ends]
        x = g.node("Concat", parts, axis=dim)
    return x if isinstance(x, str) else g.name(x)


@operator("upsample_nearest2d", "upsample_bilinear2d")
def upsample(g: Graph, call: Call, self: Value, output_size: Sequence[int], *rest: Any) -> str:
    bilinear = call.name == "upsample_bilinear2d"
    aligned = bilinear and rest[0]
    factors = [new / old for new, old in zip(output_size, self.shape[2:], strict=True)]
    # torch computes positions from a factor that it was given, a runtime from that which gives the size.
    given = [factor or own for factor, own in zip(rest[-2:], factors, strict=True)]
    if given != factors:
        raise NotQuickError("scaling by such a factor")
    scales = g.constant(torch.tensor([1.0, 1.0, *map(_factor, output_size, self.shape[2:])]))
    position = "align_corners" if aligned else "half_pixel" if bilinear else "asymmetric"
    return str(
        g.node(
            "Resize",
            [self, None, scales],
            mode="linear" if bilinear else "nearest",
            coordinate_transformation_mode=position,
            nearest_mode=None if bilinear else "floor",
        )
    )


@operator("as_strided")
def as_strided(
    g: Graph, call: Call, self: Value, size: Sequence[int], stride: Sequence[int], offset: int | None
) -> str:
    # What torch does to pooled maps: where a size is one, the stride is free.
    told = [new for new, side in zip(stride, self.shape, strict=False) if side > 1]
    if (
        tuple(size) != self.shape
        or offset
        or told != [s for s, side in zip(self.stride, self.shape, strict=True) if side > 1]
    ):
        raise NotQuickError("another view of the memory")
    return g.name(self)


def _factor(new: int, old: int) -> float:
    """The smallest factor in float32, not below new / old, from which the new size comes out when rounded down."""
    factor = torch.tensor(new / old)
    while min(factor.item() * old, (factor * old).item()) < new:
        factor = torch.nextafter(factor, torch.tensor(torch.inf))
    return factor.item()
