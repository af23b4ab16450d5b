"""What layers with weights or windows read: products, convolutions, pooling, interpolation, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.measure.reach import windows
from convsmith.measure.reach.mode import NOTHING, Reach
from convsmith.measure.reach.windows import (
    adaptive_windows,
    gathered,
    marked,
    pooled,
    read_by_axis,
    selected,
    structural,
)

Arguments = Mapping[str, Any]
AT_DATA = "reads where the data say: what it returns is taken to depend on the whole input"


def matrices(reach: Reach, func: Any, named: Arguments) -> Any:
    """A (..., n, k) times (..., k, m): each result reads a row of the one and a column of the other."""
    a = named.get("mat1", named.get("batch1", named.get("self")))
    b = named.get("mat2", named.get("batch2", named.get("vec", named.get("tensor"))))
    vector, row = b.dim() == 1, a.dim() == 1
    a, b = a[None] if row else a, b[:, None] if vector else b
    reach.check_size((*a.shape[:-1], b.shape[-1]))
    result = torch.minimum(_left(reach, a, b), _left(reach, b.mT, a.mT).mT)
    result = result.squeeze(-1) if vector else result
    result = result.squeeze(-1 if vector and row else 0) if row else result
    added = named.get("input", named["self"]) if "mat1" in named or "batch1" in named or "vec" in named else None
    if added is None or (added is named.get("self") and func._schema.name in ("aten::mv",)):
        return result
    return torch.minimum(result, reach.least(added).expand(result.shape))


def _left(reach: Reach, a: Tensor, b: Tensor) -> Tensor:
    """What the left factor brings in: (..., n, m)."""
    shape = (*a.shape[:-1], b.shape[-1])
    if not reach.reaches(a):
        return torch.full((), NOTHING).expand(shape)
    pattern = None if reach.reaches(b) else structural(b)
    if pattern is None:
        return a.amin(-1, keepdim=True).expand(shape)
    if b.dim() == 2:
        return selected(a.reshape(-1, a.shape[-1]), pattern.mT, 1).view(shape)
    return torch.stack([selected(x, p.mT, 1) for x, p in zip(a, pattern, strict=True)])


def linear(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads the input along the rows of its weights."""
    return _left(reach, named["input"], named["weight"].mT).clone()


def attention(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads its query, all keys, and a column of the values."""
    query, key, value = (reach.least(named[name]) for name in ("query", "key", "value"))
    heads = query.shape[-3] // key.shape[-3] if query.dim() > 2 else 1
    key, value = (x.repeat_interleave(heads, -3) if heads > 1 else x for x in (key, value))
    read = torch.minimum(value.amin(-2, keepdim=True), key.amin((-1, -2), keepdim=True))
    return torch.minimum(query.amin(-1, keepdim=True), read)


def convolution(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads its window, where the weights are not zero."""
    if reach.reaches(named["weight"]):
        return reach.everything(func, named, "has weights that depend on the input: the whole of it is taken")
    return windows.convolution(
        named["input"],
        named["weight"],
        *(named[n] for n in ("stride", "padding", "dilation", "groups")),
        transposed=named["transposed"],
        output_padding=named["output_padding"],
    )


def deformable(reach: Reach, func: Any, named: Arguments) -> Any:
    """As the convolution at the regular grid, with all that its offsets and mask depend on."""
    reach.assume(
        "torchvision::deform_conv2d",
        "reads where its offsets say: taken at the regular grid, with all that offsets and mask depend on",
    )
    pairs = (("stride_h", "stride_w"), ("pad_h", "pad_w"), ("dilation_h", "dilation_w"))
    stride, padding, dilation = ([named[a], named[b]] for a, b in pairs)
    y = windows.convolution(reach.least(named["input"]), named["weight"], stride, padding, dilation, named["groups"])
    for name in ("offset", "mask"):
        if reach.reaches(named[name]):
            y = torch.minimum(y, named[name].amin(1, keepdim=True))
    return y


def pool(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads its window."""
    return pooled(
        named["self"],
        named["kernel_size"],
        named["stride"],
        named["padding"],
        named.get("dilation", [1]),
        ceil_mode=named["ceil_mode"],
    )


def adaptive_pool(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads its window; in a local pass nothing, where the size of the map changes."""
    x = named["self"]
    for axis, size in enumerate(named["output_size"], start=x.dim() - len(named["output_size"])):
        if reach.local and size != x.shape[axis]:
            x = torch.full((*x.shape[:axis], size, *x.shape[axis + 1 :]), NOTHING)
        else:
            x = gathered(x, axis, *marked(adaptive_windows(x.shape[axis], size)))
    return x.clone()


def unpool(reach: Reach, func: Any, named: Arguments) -> Any:
    """Switched unpooling: with windows that tile the map, a pixel reads its window's value."""
    x, size = named["self"], named["output_size"]
    if any(out % own for out, own in zip(size, x.shape[-2:], strict=True)):
        return reach.everything(func, named, AT_DATA)
    for axis, out in ((-2, size[0]), (-1, size[1])):
        x = x.repeat_interleave(out // x.shape[axis], axis)
    return x


def interpolated(reach: Reach, func: Any, named: dict[str, Any]) -> Any:
    """Each result reads the pixels that its weights mix, axis by axis."""
    return read_by_axis(func, named)


def sampled(reach: Reach, func: Any, named: Arguments) -> Any:
    """Each result reads the pixels around a point of a grid that is constant."""
    known = named["padding_mode"] == 0 and named["interpolation_mode"] in (0, 1)
    if reach.reaches(named["grid"]) or not known:
        return reach.everything(func, dict(named), AT_DATA)
    return windows.sampled(named["input"], named["grid"], named["interpolation_mode"], named["align_corners"])


def padded(reach: Reach, func: Any, named: Arguments) -> Any:
    """The border reads nothing."""
    return F.pad(named["self"], named["pad"], value=NOTHING)


def columns(reach: Reach, func: Any, named: dict[str, Any]) -> Any:
    """Each column reads its window."""
    rows, columns = named["padding"]
    x = F.pad(named["self"], (columns, columns, rows, rows), value=NOTHING)
    return func(**{**named, "self": x, "padding": [0, 0]})
